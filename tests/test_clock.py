"""Trusted time: a wrong clock is noticed where anything can notice it, and a right one is left alone."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware.build import trusted_time
from firmware.config import Home
from scripts.sandbox.server import serve
from tests.nightly import BEGAN, EPOCH_KEY, Device, FakeClock, Night, fleet
from verifier import trusted_time as module
from verifier.audit import AuditLog, read_log, replay
from verifier.cache import marks as marks_module
from verifier.cache.marks import Accepted, ClockMarks, read_clock, update_clock
from verifier.cache.state import Marks
from verifier.cache.store import StatusStore
from verifier.check import CheckResult, Observation, Verifier
from verifier.clock import Ticks, system_clock, system_witness
from verifier.net import HttpFetcher
from verifier.repository import ExpiredError
from verifier.sync import sync_history
from verifier.trusted_time import Doubt, TrustedTime, clock_report, http_date, judge
from verifier.types import Month, PlateSeen, StatusLetter, VehicleRecord
from verifier.verdict import Reason, Tone, VerdictCode

HOUR = timedelta(hours=1)


@dataclass
class Machine:
    """A computer: its clock, which anybody may set, and the counters beside it."""

    clock: FakeClock = field(default_factory=FakeClock)
    boot: int = 1
    elapsed: float = 50.0
    rtc_offset: timedelta | None = None  # of the battery-backed clock from true time
    true: datetime = BEGAN

    def ticks(self) -> Ticks:
        rtc = None if self.rtc_offset is None else (self.true + self.rtc_offset).timestamp()
        return Ticks(f"boot-{self.boot}", self.elapsed, rtc)

    def run(self, time: timedelta, drift: float = 0.0) -> None:
        """Time passes; the clock runs too fast by `drift` of it."""
        self.true += time
        self.elapsed += time.total_seconds()
        self.clock.now += time * (1 + drift)

    def set_clock(self, **delta: float) -> None:
        self.clock.move(**delta)

    def reboot(self, off: timedelta = timedelta(minutes=1)) -> None:
        """Switched off and on; whoever starts it has set the clock rightly."""
        self.run(off)
        self.boot, self.elapsed = self.boot + 1, 5.0


class Handheld:
    """A device with its machine, a publisher, and a verifier that knows of the time what state.db keeps."""

    def __init__(self, folder: Path, machine: Machine) -> None:
        self.machine, self.folder = machine, folder
        self.night = Night(clock=machine.clock)
        self.publish()
        self.device: Device = self.night.device(folder / "cache")
        self.store = StatusStore(self.device.root, EPOCH_KEY)
        self.start()

    @property
    def state(self) -> Path:
        return self.device.root / "state.db"

    def start(self) -> None:
        """The program starts anew: nothing is in memory."""
        self.time = TrustedTime(self.state, self.machine.clock, self.machine.ticks)
        self.verifier = Verifier(
            self.store, clock=self.machine.clock, audit=AuditLog(self.folder / "audit"), software="t", time=self.time
        )

    def publish(self) -> None:
        """At the true time, whatever this device's clock shows."""
        shown, self.machine.clock.now = self.machine.clock.now, self.machine.true
        self.night.publish(vehicles=fleet(40))
        self.machine.clock.now = shown

    def sync(self, **options: Any) -> tuple[str, ...]:
        """A sync; what it says of the clock."""
        try:
            notes = self.device.client(trusted_time=self.time, **options).refresh().notes
        except ExpiredError as exc:
            notes = tuple(str(exc).split("; "))
        return tuple(note for note in notes if note.startswith("clock: "))

    def check(self, vehicle: VehicleRecord | None = None) -> CheckResult:
        plate = (vehicle or GOOD).plate
        return self.verifier.check(Observation(plate_seen=PlateSeen(plate=plate, confirmed=True)))

    def believed(self) -> bool:
        """Whether a check believes the clock; when it does not, it must say why and judge no date."""
        result = self.check()
        trusted = result.evidence.clock_trusted
        assert trusted == (Reason.CLOCK_SUSPECT not in result.verdict.reasons)
        assert trusted == (not any(remark.startswith("clock: ") for remark in result.remarks))
        if not trusted:
            assert result.verdict.code is VerdictCode.UNDECIDED
        return trusted


def a_vehicle(ends_after: int) -> VehicleRecord:
    """One of the fleet in good standing, whose month ends so many months after the tests begin, at the least."""
    until = Month.at(BEGAN).plus(ends_after)
    return next(
        record
        for record, _ in fleet(40)
        if record.status == {StatusLetter.NORMAL} and (record.inspection_valid_until or until) > until
    )


GOOD = a_vehicle(3)


@pytest.fixture
def handheld(tmp_path: Path) -> Iterator[Handheld]:
    """Synced at a moment of good time; an hour has passed since."""
    handheld = Handheld(tmp_path, Machine())
    assert handheld.sync() == ()
    handheld.machine.run(HOUR)
    assert handheld.believed()
    yield handheld
    handheld.store.close()


# --------------------------------------------------------------------------------- behind what was signed or seen


@pytest.mark.parametrize(("behind", "believed"), [(0, True), (300, True), (301, False), (5000 * 86400, False)])
def test_a_clock_behind_the_newest_signed_time_is_not_believed(tmp_path: Path, behind: int, believed: bool) -> None:
    handheld = Handheld(tmp_path, Machine())
    handheld.sync()
    handheld.machine.reboot(timedelta(0))  # so that no counter tells
    handheld.machine.clock.now = BEGAN - timedelta(seconds=behind)
    assert handheld.believed() is believed
    handheld.store.close()


def test_the_signed_time_counts_when_the_data_are_gone(handheld: Handheld) -> None:
    (handheld.device.root / "current").unlink()
    shutil.rmtree(handheld.device.root / "gen")
    handheld.machine.reboot()
    handheld.machine.clock.now = BEGAN - HOUR
    handheld.start()
    assert not handheld.believed()


def test_a_clock_behind_what_this_device_has_seen_is_not_believed(handheld: Handheld) -> None:
    handheld.machine.run(10 * HOUR)
    assert handheld.believed()
    handheld.machine.reboot()
    handheld.machine.set_clock(hours=-2)
    handheld.start()
    assert not handheld.believed()
    assert f"clock: {Doubt.BEHIND_SEEN}" in handheld.check().remarks
    handheld.machine.run(2 * HOUR)  # an unsigned time source puts it right
    assert handheld.believed()


# ------------------------------------------------------------------------------------- set since it was good


def test_a_clock_set_back_to_just_after_the_sync_is_noticed(handheld: Handheld) -> None:
    """Data of eighteen hours would look like data of five minutes."""
    handheld.machine.run(17 * HOUR)
    handheld.start()
    handheld.machine.clock.now = BEGAN + timedelta(minutes=65)  # later than all that this device has seen
    assert handheld.check().remarks == (f"clock: {Doubt.MOVED}",)
    assert not handheld.believed()


@pytest.mark.parametrize(("seconds", "believed"), [(-299, True), (-310, False), (299, True), (310, False)])
def test_a_clock_is_believed_within_five_minutes_of_the_counters(
    handheld: Handheld, seconds: int, believed: bool
) -> None:
    handheld.machine.run(HOUR)
    handheld.machine.set_clock(seconds=seconds)
    assert handheld.believed() is believed


def test_the_suspicion_outlives_the_boot_in_which_it_arose(handheld: Handheld) -> None:
    handheld.machine.run(10 * HOUR)
    handheld.machine.set_clock(hours=-9)
    assert not handheld.believed()
    handheld.machine.reboot()
    handheld.start()
    assert not handheld.believed()


def test_a_clock_put_right_again_is_believed_and_stays_so(handheld: Handheld) -> None:
    handheld.machine.run(10 * HOUR)
    handheld.machine.set_clock(hours=-9)
    assert not handheld.believed()
    handheld.machine.set_clock(hours=9)
    assert handheld.believed()
    handheld.machine.reboot()
    assert handheld.believed()


def test_a_new_signed_time_repairs_and_a_replayed_one_does_not(handheld: Handheld) -> None:
    handheld.machine.run(10 * HOUR)
    handheld.machine.set_clock(hours=-9, minutes=-30)
    assert not handheld.believed()
    assert handheld.sync() == (f"clock: {Doubt.MOVED}",)  # the network still shows yesterday's publication
    assert not handheld.believed()
    handheld.machine.clock.now = handheld.machine.true
    handheld.machine.reboot()
    assert not handheld.believed()  # right now, but who knows that
    handheld.publish()
    assert handheld.sync() == ()
    assert handheld.believed()


def test_a_time_seen_while_the_clock_ran_ahead_is_forgotten_with_the_next_signed_time(tmp_path: Path) -> None:
    machine = Machine()
    machine.set_clock(days=1)
    handheld = Handheld(tmp_path, machine)
    handheld.sync()
    assert handheld.believed()
    machine.reboot()
    machine.clock.now = machine.true
    assert not handheld.believed()
    machine.run(2 * HOUR)
    handheld.publish()
    handheld.sync()
    assert handheld.believed()
    handheld.store.close()


# ----------------------------------------------------------------------------------- a battery-backed clock


@pytest.fixture
def with_rtc(tmp_path: Path) -> Iterator[Handheld]:
    handheld = Handheld(tmp_path, Machine(rtc_offset=timedelta(hours=8)))  # one that keeps local time
    handheld.sync()
    handheld.machine.run(HOUR)
    assert handheld.believed()
    handheld.machine.reboot(off=12 * HOUR)
    assert handheld.believed()
    yield handheld
    handheld.store.close()


def test_a_battery_backed_clock_notices_across_boots(with_rtc: Handheld) -> None:
    with_rtc.machine.run(6 * HOUR)
    with_rtc.machine.set_clock(hours=-5)
    assert not with_rtc.believed()


def test_one_whose_battery_was_empty_says_nothing(with_rtc: Handheld) -> None:
    with_rtc.machine.rtc_offset = datetime(1970, 1, 1, tzinfo=UTC) - with_rtc.machine.true
    assert with_rtc.believed()


def test_one_that_was_put_right_together_with_the_clock_accuses_nobody(with_rtc: Handheld) -> None:
    with_rtc.machine.rtc_offset = timedelta(seconds=3)
    assert with_rtc.believed()


def test_a_month_of_drift_is_no_set_clock(with_rtc: Handheld) -> None:
    with_rtc.machine.run(timedelta(days=45), drift=90e-6)
    assert with_rtc.believed()


# -------------------------------------------------------------------------------------------- a clock ahead


def test_expired_by_this_clock_and_not_by_the_servers_date_is_a_clock_ahead(handheld: Handheld) -> None:
    machine = handheld.machine
    machine.reboot()
    machine.set_clock(days=20)
    assert handheld.believed()  # nothing can tell yet
    handheld.time.heard(machine.true)
    remarks = handheld.sync()
    assert f"clock: {Doubt.AHEAD}" in remarks
    assert "20 days, 0:00:00 ahead" in remarks[-1]
    assert not handheld.believed()
    assert handheld.store.info().seq == 1
    assert "expired" in (sync_history(handheld.device.root).last_failure or "")
    handheld.start()
    assert not handheld.believed()
    machine.clock.now = machine.true
    handheld.publish()
    handheld.time.heard(machine.true)
    assert handheld.sync() == ()
    assert handheld.believed()


def test_the_date_of_a_real_server_is_heard(handheld: Handheld) -> None:
    behind = (datetime.now(UTC) - handheld.machine.clock()).total_seconds()
    with serve(handheld.night.store) as server, HttpFetcher(server.url, on_date=handheld.time.heard) as fetcher:
        remarks = handheld.sync(fetcher=fetcher)
    known = read_clock(handheld.state)
    assert known is not None
    assert known.server_offset == pytest.approx(behind, abs=60)
    assert len(remarks) == 1
    assert handheld.believed()  # it is this server's word against that of the counters


def test_a_clock_ahead_that_was_put_right_is_cleared_by_the_next_good_sync(handheld: Handheld) -> None:
    machine = handheld.machine
    machine.reboot()
    machine.set_clock(days=20)
    handheld.time.heard(machine.true)
    assert f"clock: {Doubt.AHEAD}" in handheld.sync()
    machine.reboot()
    machine.clock.now = machine.true
    assert not handheld.believed()
    handheld.time.heard(machine.true)
    assert handheld.sync() == ()  # nothing new, but in force by this clock too
    assert handheld.believed()


def test_a_clock_ahead_that_a_counter_finds_right_again_is_believed(with_rtc: Handheld) -> None:
    machine = with_rtc.machine
    machine.set_clock(days=20)
    with_rtc.time.heard(machine.true)
    assert f"clock: {Doubt.AHEAD}" in with_rtc.sync()
    machine.set_clock(days=-20)
    assert with_rtc.believed()


def test_a_silent_publisher_is_no_clock_ahead(handheld: Handheld) -> None:
    handheld.machine.reboot(timedelta(days=5))
    handheld.time.heard(handheld.machine.true)
    assert handheld.sync() == ()
    assert handheld.believed()


def test_without_a_servers_date_expired_metadata_accuse_nobody(handheld: Handheld) -> None:
    handheld.machine.reboot(timedelta(days=5))
    assert handheld.sync() == ()
    assert handheld.believed()


def test_a_false_date_accuses_no_clock_that_a_counter_vouches_for(handheld: Handheld) -> None:
    handheld.machine.run(timedelta(days=5))
    handheld.time.heard(BEGAN)
    (hint,) = handheld.sync()
    assert "seems to be 5 days, 1:00:00 ahead" in hint
    assert handheld.believed()
    handheld.machine.reboot()
    assert handheld.believed()  # and the accusation is not kept for later


def test_a_clock_in_another_year_is_not_believed(handheld: Handheld) -> None:
    for year in (1970, 2026, 2029, 2038, 2099, 9999):
        handheld.machine.reboot()
        handheld.machine.clock.now = datetime(year, 1, 19, 3, 14, 8, tzinfo=UTC)
        assert not handheld.believed(), year
    handheld.machine.clock.now = handheld.machine.true
    assert handheld.believed()  # none of those years is remembered as a time that was seen


def test_a_servers_date_raises_no_floor_and_vouches_for_no_clock(handheld: Handheld) -> None:
    before = read_clock(handheld.state)
    assert before is not None
    handheld.time.heard(BEGAN + timedelta(days=30))
    assert "behind" in handheld.sync()[0]
    after = read_clock(handheld.state)
    assert after is not None
    assert (after.floor, after.good, after.server_offset) == (before.floor, before.good, 30 * 86400 - 3600)
    handheld.machine.set_clock(hours=-3)
    handheld.time.heard(handheld.machine.clock())
    handheld.sync()
    assert not handheld.believed()


def test_a_signed_time_that_the_servers_date_contradicts_repairs_nothing(handheld: Handheld) -> None:
    handheld.machine.run(10 * HOUR)
    handheld.publish()
    handheld.machine.run(10 * HOUR)
    handheld.machine.set_clock(hours=-9)
    handheld.time.heard(handheld.machine.true)
    assert any("9:00:00 behind" in remark for remark in handheld.sync())
    assert not handheld.believed()


# ------------------------------------------------------------------------------- never red for green, or green for red


@pytest.mark.parametrize("days", [-4000, -40, -1, 40, 80, 399, 401, 5000])
def test_a_set_clock_makes_neither_an_overdue_nor_a_valid_vehicle(handheld: Handheld, days: int) -> None:
    handheld.machine.set_clock(days=days)
    for vehicle, _ in fleet(40):
        verdict = handheld.check(vehicle).verdict
        assert verdict.code not in (VerdictCode.VALID, VerdictCode.VALID_STALE, VerdictCode.EXPIRED)
        if verdict.tone is Tone.STOP:  # a deregistered or sealed vehicle is so at any time
            assert vehicle.status & {StatusLetter.DEREGISTERED, StatusLetter.SEALED}


def test_a_servers_date_is_compared_with_the_clock_as_it_is_and_not_as_it_was(handheld: Handheld) -> None:
    """Heard beside a wrong clock, in a sync that then failed; somebody puts the clock right before the next one."""
    handheld.machine.set_clock(days=3)
    handheld.time.heard(handheld.machine.true)
    handheld.machine.run(timedelta(minutes=20))
    handheld.machine.set_clock(days=-3)
    handheld.publish()
    assert handheld.sync() == ()
    assert handheld.believed()


def test_a_servers_date_serves_one_signed_time_and_is_forgotten(handheld: Handheld) -> None:
    """A card that comes next says nothing of the date, so a server's of this morning must not speak for it."""
    handheld.time.heard(handheld.machine.true + timedelta(days=3))
    handheld.publish()
    assert any("seems to be" in note for note in handheld.sync())
    handheld.machine.run(HOUR)
    handheld.publish()
    assert handheld.sync() == ()


@pytest.mark.parametrize("days", [-3, 3, 500])
def test_the_age_of_the_data_under_a_doubtful_clock_is_the_least_that_it_can_be(handheld: Handheld, days: int) -> None:
    """Whichever way the clock was set: the last good sight of it was four hours after the data were made."""
    handheld.machine.run(timedelta(hours=3))
    assert handheld.check().age == (timedelta(hours=4), False)
    handheld.machine.set_clock(days=days)
    assert handheld.check().age == (timedelta(hours=4), True)


def test_a_record_of_a_check_under_a_doubtful_clock_is_decided_again(handheld: Handheld) -> None:
    handheld.machine.set_clock(hours=5)
    handheld.check()
    entries = list(read_log(handheld.folder / "audit"))
    assert [replay(entry)[1] for entry in entries] == [True] * len(entries)
    assert entries[-1]["sources"]["remarks"] == [f"clock: {Doubt.MOVED}"]


step = st.one_of(
    st.tuples(st.just("run"), st.integers(0, 72 * 3600)),
    st.tuples(st.just("check"), st.just(0)),
    st.tuples(st.just("sync"), st.just(0)),
    st.tuples(st.just("publish"), st.just(0)),
    st.tuples(st.just("reboot"), st.integers(0, 72 * 3600)),
    st.tuples(st.just("start"), st.just(0)),
)


class History:
    """The marks alone, without data or files: what a long life does to them."""

    def __init__(self, rtc: bool, drift: float) -> None:
        self.machine = Machine(rtc_offset=timedelta(minutes=20) if rtc else None)
        self.drift, self.marks, self.issued = drift, ClockMarks(), BEGAN

    def do(self, what: str, seconds: int) -> None:
        machine, now, ticks = self.machine, self.machine.clock.now, self.machine.ticks()
        if what == "run":
            machine.run(timedelta(seconds=seconds), self.drift)
        elif what == "reboot":
            machine.reboot(timedelta(seconds=seconds))
        elif what == "publish":
            self.issued = machine.true
        elif what == "sync":
            self.marks = module._after_signed(self.marks, self.issued, now, ticks, None)
        else:
            self.marks = module._noted(self.marks, now, ticks)

    def doubts(self) -> tuple[Doubt, ...]:
        return judge(self.marks, self.machine.clock.now, self.machine.ticks())


@settings(max_examples=300)
@given(st.lists(step, max_size=30), st.booleans(), st.sampled_from([0.0, 4e-6, -4e-6]))
def test_a_clock_that_nobody_sets_is_always_believed(steps: list[tuple[str, int]], rtc: bool, drift: float) -> None:
    history = History(rtc, drift)
    history.do("sync", 0)
    for what, seconds in steps:
        history.do(what, seconds)
        assert history.doubts() == (), what


@settings(max_examples=300)
@given(st.lists(step, max_size=20), st.integers(400, 30 * 86400), st.booleans(), st.integers(0, 3))
def test_a_clock_set_in_the_boot_of_a_sync_is_never_believed_until_a_new_signed_time(
    steps: list[tuple[str, int]], seconds: int, forward: bool, replays: int
) -> None:
    history = History(rtc=False, drift=0.0)
    for what, value in [*steps, ("run", 1), ("publish", 0), ("sync", 0), ("run", 20)]:
        history.do(what, value)
    history.machine.set_clock(seconds=seconds if forward else -seconds)
    for _ in range(replays):
        history.do("sync", 0)  # the same publication, again and again
        history.do("check", 0)
        assert history.doubts() != ()
    assert history.doubts() != ()
    history.machine.clock.now = history.machine.true
    history.do("run", 60)
    history.do("publish", 0)
    history.do("sync", 0)
    assert history.doubts() == ()


# ------------------------------------------------------------------------------------------------- the file


def writes(path: Path) -> int:
    """SQLite's file change counter (file format, clause 1.3.7)."""
    return int.from_bytes(path.read_bytes()[24:28], "big")


def test_checks_write_to_the_card_at_most_every_five_minutes(handheld: Handheld) -> None:
    before = writes(handheld.state)
    for _ in range(120):
        handheld.machine.run(timedelta(seconds=30))
        assert handheld.believed()
    assert 10 <= writes(handheld.state) - before <= 12
    handheld.machine.set_clock(hours=-1)
    before = writes(handheld.state)
    for _ in range(5):
        assert not handheld.believed()
    assert writes(handheld.state) - before == 1


def test_a_check_makes_no_state_file_and_the_sync_still_tells_of_its_loss(handheld: Handheld) -> None:
    handheld.state.unlink()
    assert handheld.believed()
    assert not handheld.state.exists()
    handheld.state.touch()
    assert handheld.believed()
    assert handheld.state.stat().st_size == 0
    assert any("state.db was lost" in note for note in handheld.device.client().refresh().notes)


def test_a_lost_state_file_leaves_the_signed_time_in_memory_and_in_the_data(handheld: Handheld) -> None:
    handheld.state.write_bytes(b"no database at all" * 99)
    handheld.machine.clock.now = BEGAN - HOUR
    assert not handheld.believed()
    handheld.start()
    verdict = handheld.check().verdict
    assert (verdict.code, Reason.CLOCK_SUSPECT in verdict.reasons) == (VerdictCode.UNDECIDED, True)


def test_a_state_file_in_use_by_a_sync_holds_no_check(handheld: Handheld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks_module, "_CLOCK_WAIT", 0.0)
    with closing(sqlite3.connect(handheld.state, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        handheld.machine.run(HOUR)
        assert handheld.believed()
        handheld.machine.set_clock(days=-1)
        assert not handheld.believed()


def test_a_power_cut_in_the_middle_of_a_write_loses_no_mark(handheld: Handheld, tmp_path: Path) -> None:
    with closing(sqlite3.connect(handheld.state, isolation_level=None)) as other:
        other.execute("PRAGMA cache_size=2")  # so that changed pages go to the file before the commit
        other.execute("BEGIN")
        other.execute("UPDATE marks SET value = 1 WHERE name = 'clock_floor'")
        other.executemany("INSERT INTO marks VALUES (?, ?)", ((f"x{i}", "y" * 900) for i in range(50)))
        cut = tmp_path / "cut"
        cut.mkdir()
        for name in ("state.db", "state.db-journal"):
            shutil.copy(handheld.device.root / name, cut / name)
    assert (cut / "state.db").stat().st_size > handheld.state.stat().st_size
    time = TrustedTime(cut / "state.db", handheld.machine.clock, handheld.machine.ticks)
    assert time.doubts(BEGAN - HOUR) == (Doubt.BEHIND_SIGNED, Doubt.BEHIND_SEEN, Doubt.MOVED)


@pytest.mark.parametrize("name", ["clock_floor", "clock_good_boot", "clock_seen", "seq:national", "trust_version"])
@pytest.mark.parametrize("value", [b"yesterday", 1.5, 1 << 60])
def test_a_value_of_another_form_is_a_lost_state_file_and_no_crash(
    handheld: Handheld, name: str, value: float | bytes
) -> None:
    with closing(sqlite3.connect(handheld.state)) as connection, connection:
        connection.execute("UPDATE marks SET value = ? WHERE name = ?", (value, name))
    handheld.start()
    assert handheld.believed()
    assert any("state.db was lost" in note for note in handheld.device.client().refresh().notes)
    assert handheld.sync() == ()


@pytest.mark.parametrize("date", [datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)])
def test_an_absurd_date_of_a_server_costs_no_mark(handheld: Handheld, date: datetime) -> None:
    """Anybody on the way may send it: it must not make state.db one that is thrown away as damaged."""
    handheld.publish()
    handheld.time.heard(date)
    handheld.sync()
    assert handheld.believed()
    assert not Marks(handheld.state).lost
    assert clock_report(handheld.device.root, handheld.machine.clock())["trusted"]


def test_a_time_before_there_were_years_is_a_lost_state_file_and_no_crash(handheld: Handheld) -> None:
    with closing(sqlite3.connect(handheld.state)) as connection, connection:
        connection.execute("UPDATE marks SET value = ? WHERE name = 'clock_floor'", (-(1 << 36),))
    handheld.start()
    assert handheld.believed()
    assert any("state.db was lost" in note for note in handheld.device.client().refresh().notes)


def test_the_floor_never_goes_down(handheld: Handheld) -> None:
    later = BEGAN + HOUR
    Marks(handheld.state).accept("national", Accepted(clock_floor=later))
    assert update_clock(handheld.state, lambda _: ClockMarks(floor=BEGAN)).floor == later
    assert update_clock(handheld.state, lambda _: ClockMarks()).floor == later
    handheld.time.signed(BEGAN)
    known = read_clock(handheld.state)
    assert known is not None
    assert known.floor == later


# ----------------------------------------------------------------------------------------------- what is said


def test_the_report_says_what_is_known(handheld: Handheld) -> None:
    machine = handheld.machine
    machine.rtc_offset = timedelta(seconds=-7)
    handheld.time.heard(machine.clock() + timedelta(minutes=10))
    handheld.time.signed(BEGAN)
    report = clock_report(handheld.device.root, machine.clock(), machine.ticks())
    assert json.loads(json.dumps(report)) == {
        "trusted": True,
        "doubts": [],
        "earliest": machine.clock().isoformat(),
        "newest_signed": BEGAN.isoformat(),
        "last_seen": (BEGAN + HOUR).isoformat(),
        "last_good": BEGAN.isoformat(),
        "server_offset_s": 600,
        "server_at": (BEGAN + HOUR).isoformat(),
        "rtc_offset_s": -7,
        "hint": "clock: this one seems to be 0:10:00 behind, by the server's unsigned date",
    }
    report = clock_report(handheld.device.root, BEGAN - HOUR)
    assert (report["trusted"], report["doubts"][0]) == (False, str(Doubt.BEHIND_SIGNED))
    assert report["earliest"] == (BEGAN + HOUR).isoformat()
    handheld.state.write_bytes(b"no database at all" * 99)
    assert clock_report(handheld.device.root, BEGAN)["trusted"] is None


def test_a_report_of_a_new_device_knows_nothing_and_makes_nothing(tmp_path: Path) -> None:
    report = clock_report(tmp_path / "none", BEGAN)
    assert (report["newest_signed"], report["trusted"]) == (None, True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("Mon, 01 Mar 2027 02:00:00 GMT", BEGAN),
        ("Sun, 22 Nov 2026 23:59:59 GMT", datetime(2026, 11, 22, 23, 59, 59, tzinfo=UTC)),
        ("Mon, 01 Mar 2027 02:00:00 +0000", None),
        ("Monday, 01-Mar-27 02:00:00 GMT", None),
        ("Mon, 31 Feb 2027 02:00:00 GMT", None),
        ("Mon, 01 Mär 2027 02:00:00 GMT", None),
        ("Mon, 01 Mar 2027 24:00:00 GMT", None),
        ("Mon, 01 Mar 0000 02:00:00 GMT", None),
        ("Mon, 01 Mar 2027 02:00:00 GMT\n", None),
        ("Mon, 0١ Mar 2027 02:00:00 GMT", None),
        ("", None),
        ("9" * 100_000, None),
    ],
)
def test_only_a_plain_http_date_is_a_date(text: str, moment: datetime | None) -> None:
    assert http_date(text) == moment


# ---------------------------------------------------------------------------------------------- the machine


def test_the_machines_counters_go_on(tmp_path: Path) -> None:
    first, second = system_witness(), system_witness()
    assert first.boot == second.boot
    assert second.elapsed >= first.elapsed > 0
    (tmp_path / "boot").write_text("f8c3…\n", encoding="utf-8")
    (tmp_path / "rtc").write_text("1803866400\n")
    assert system_witness(tmp_path / "boot", tmp_path / "rtc").boot == ""
    assert system_witness(tmp_path / "none", tmp_path / "rtc")[::2] == ("", 1803866400)
    (tmp_path / "rtc").write_text("-5\n")
    assert system_witness(tmp_path / "none", tmp_path / "rtc").rtc is None


def test_two_boots_without_a_name_are_not_one(tmp_path: Path) -> None:
    handheld = Handheld(tmp_path, Machine())
    handheld.time = TrustedTime(handheld.state, handheld.machine.clock, lambda: Ticks("", handheld.machine.elapsed))
    handheld.sync()
    handheld.machine.set_clock(hours=5)
    assert handheld.time.doubts(handheld.machine.clock()) == ()
    handheld.store.close()


def test_the_machines_counters_witness_for_the_machines_clock_only(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.cache.mkdir()
    state = home.cache / "state.db"
    for clock, counted in ((system_clock, True), (FakeClock(), False)):
        Marks(state).accept("national", Accepted(clock_floor=BEGAN - timedelta(days=400)))
        trusted_time(home, clock).signed(BEGAN - timedelta(days=400))
        known = read_clock(state)
        assert known is not None
        assert known.good is not None
        assert (known.good.boot == system_witness().boot and bool(known.good.elapsed)) is counted
        state.unlink()
