"""Work beside the program: the sync in its own process, the self-test, and what is asked every second."""

from __future__ import annotations

import json
import queue
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from firmware import probes, self_tests
from firmware.build import trusted_time
from firmware.config import Home
from firmware.console_commands import _SYNC_WORDS
from firmware.jobs import _KINDS, Running, SyncProcess, sync_lines
from firmware.machine.events import Counted, DataRead, Event, NetworkRead, PartFault, PowerRead, Reported
from firmware.machine.states import MenuItem
from firmware.parts import NAMES
from firmware.probes import Probing, Tally
from firmware.self_tests import Ended, PartReport, panel_lines, self_test
from firmware.views import columns
from hw.power.fake import write_power
from scripts.bench import appliance
from scripts.sandbox.folder_store import FolderStore
from scripts.sandbox.server import serve
from tests.centres import START, OnlineWorld
from tests.officer import home_of
from verifier.cache.store import StatusStore
from verifier.errors import CacheMissingError
from verifier.link import Link, failed, succeeded
from verifier.types import OnlineState
from verifier.verdict import VerdictCode
from verifier.wording import LANGUAGES

V = VerdictCode


@pytest.fixture(scope="module")
def world() -> OnlineWorld:
    return OnlineWorld()


# ------------------------------------------------------------------------------------------------- the sync


@pytest.mark.parametrize("over", ["folder", "http"])
def test_a_sync_of_its_own_process_brings_new_data_and_says_of_when_they_are(tmp_path: Path, over: str) -> None:
    world = OnlineWorld(now=datetime.now(UTC))
    home = home_of(world, tmp_path / "home")
    folder = tmp_path / "published"
    for name, data in world.store.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    with serve(FolderStore(folder)) as server:
        job = SyncProcess(("--home", str(home), "--from", str(folder) if over == "folder" else server.url))
        outcome = job.run()
        assert outcome["kind"] == "done", outcome
        assert job("en")[0] == "SYNC DONE"


def test_a_sync_that_finds_nobody_leaves_the_old_data_in_use(world: OnlineWorld, tmp_path: Path) -> None:
    home = home_of(world, tmp_path / "home")
    job = SyncProcess(("--home", str(home), "--from", "http://127.0.0.1:9/"))
    assert job.run()["kind"] == "unreachable"
    assert sync_lines({"kind": "unreachable"}, "zh") == ("网络不通,未同步", "原数据继续有效")


def test_a_sync_that_hangs_is_ended_and_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    assert SyncProcess(("--home", "x"), limit_s=0.1).run() == {"kind": "hung"}


def test_without_a_source_the_officer_is_told_so() -> None:
    assert SyncProcess(())("en") == ("NO SYNC SOURCE", "OLD DATA IN USE")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_outcome_of_a_sync_fits_the_panel(language: str) -> None:
    assert set(_KINDS) == set(_SYNC_WORDS)  # the console knows the same
    for kind in [*_KINDS, "what is that"]:
        for line in sync_lines({"kind": kind, "as_of": START.isoformat()}, language):
            assert columns(line) <= 20


def test_a_job_runs_once_however_often_it_is_asked_for_and_reports_under_its_own_name() -> None:
    told: queue.Queue[Event] = queue.Queue()
    go, runs = threading.Event(), []

    def slow(language: str) -> tuple[str, ...]:
        runs.append(language)
        assert go.wait(10)
        return ("done",)

    jobs = Running(told.put, lambda: "zh", sync=slow, self_test=lambda language: ("well",))
    jobs.sync()
    jobs.sync()
    jobs.self_test()
    assert told.get(timeout=10) == Reported(("well",), MenuItem.SELF_TEST)
    go.set()
    assert told.get(timeout=10) == Reported(("done",), MenuItem.SYNC)
    assert runs == ["zh"]


# ---------------------------------------------------------------------------------------------- the self-test


def test_every_part_that_fails_is_named_and_one_that_hangs_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firmware.self_tests._USUAL_LIMIT", 0.1)
    go = threading.Event()

    def broken() -> self_tests.Answer:
        raise CacheMissingError("no data")

    def hangs() -> self_tests.Answer:
        go.wait(30)
        return Ended.PASS, ""

    tested = self_test({"cache": broken, "sound": hangs, "keys": lambda: (Ended.PASS, "")})
    go.set()
    assert [(one.part, one.state, one.detail) for one in tested] == [
        ("cache", Ended.FAIL, "no data"),
        ("sound", Ended.FAIL, "no answer within 0.1 s"),
        ("keys", Ended.PASS, ""),
    ]
    assert panel_lines(tested, "zh") == ("故障2 正常1", "缓存 声音")


def test_self_tests_of_a_part_that_hangs_do_not_add_up_and_only_the_first_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("firmware.self_tests._USUAL_LIMIT", 0.05)
    go, begun = threading.Event(), []

    def hangs() -> self_tests.Answer:
        begun.append(1)
        go.wait(30)
        return Ended.PASS, ""

    tested = [self_test({"keys": hangs})[0] for _ in range(4)]
    go.set()
    assert begun == [1]
    assert {one.state for one in tested} == {Ended.FAIL}
    assert [one.ms >= 50 for one in tested] == [True, False, False, False]


def test_a_part_that_two_ask_for_at_the_same_time_is_tested_once_and_both_are_told_that_it_is_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("firmware.self_tests._USUAL_LIMIT", 30.0)
    both, begun, told = threading.Event(), [], []

    class Gate:
        """The lock under which one of two begins; tells when the second has been through."""

        def __init__(self) -> None:
            self.lock, self.through = threading.Lock(), 0

        def __enter__(self) -> None:
            self.lock.acquire()

        def __exit__(self, *_: object) -> None:
            self.through += 1
            if self.through == 2:
                both.set()
            self.lock.release()

    def slow() -> self_tests.Answer:
        begun.append(1)
        both.wait(30)
        return Ended.PASS, "well"

    monkeypatch.setattr("firmware.self_tests._BEGINS", Gate())
    askers = [threading.Thread(target=lambda: told.extend(self_test({"disk": slow}))) for _ in range(2)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert begun == [1]
    assert [(one.state, one.detail) for one in told] == [(Ended.PASS, "well")] * 2


def test_a_part_without_a_name_of_its_own_is_told_all_the_same() -> None:
    assert panel_lines([PartReport("lamp", Ended.FAIL, 0, "")], "zh") == ("故障1 正常0", "LAMP")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_lines_of_a_self_test_fit_the_panel_whatever_has_failed(language: str) -> None:
    tested = [PartReport(part, Ended.FAIL, 0, "") for part in NAMES]
    lines = panel_lines(tested, language)
    assert all(columns(line) <= 20 for line in lines)
    assert all(name.in_(language) in " ".join(lines) for name in NAMES.values())
    assert len(panel_lines([PartReport("cache", Ended.PASS, 0, "")], language)) == 1


def test_the_tests_find_a_good_device_good_and_a_bad_one_bad(world: OnlineWorld, tmp_path: Path) -> None:
    home = Home(home_of(world, tmp_path / "home"))
    time = trusted_time(home, world.clock)
    with closing(StatusStore(home.cache, world.authority.epoch_key)) as store:
        tests = {
            "cache": self_tests.cache(store), "trust": self_tests.trust(store), "disk": self_tests.disk(home.folder),
            "audit": self_tests.audit(home.audit), "clock": self_tests.clock(time, world.clock),
            "battery": self_tests.battery(home.folder / "sys"), "network": self_tests.network(None),
        }  # fmt: skip
        good = {one.part: one.state for one in self_test(tests)}
    assert good == dict.fromkeys(tests, Ended.PASS) | {"battery": Ended.NOTE, "network": Ended.NOTE}
    home.audit.write_bytes(b'{"prev":"x"}\n')
    write_power(home.folder / "sys", 5)
    tests |= {"disk": self_tests.disk(tmp_path / "gone")}
    with closing(StatusStore(tmp_path, world.authority.epoch_key)) as store:
        tests |= {"cache": self_tests.cache(store), "trust": self_tests.trust(store)}
        bad = {one.part for one in self_test(tests) if one.state is Ended.FAIL}
    assert bad == {"cache", "trust", "disk", "audit", "battery"}


# ---------------------------------------------------------------------------------------- asked every second


def test_only_what_has_changed_is_posted(tmp_path: Path) -> None:
    posted: list[Event] = []
    write_power(tmp_path, 60)
    probing = Probing((probes.battery(tmp_path),), posted.append)
    probing.ask()
    probing.ask()
    write_power(tmp_path, 59, "Charging")
    probing.ask()
    assert posted == [PowerRead(percent=60), PowerRead(percent=59, charging=True)]


class Linked:
    """A centre with a link that the test makes."""

    def __init__(self) -> None:
        self.link, self.next_ms = Link(), None

    def next_try_ms(self) -> int | None:
        return self.next_ms


def test_a_centre_counts_as_reached_once_it_has_answered_and_its_next_try_is_told_in_steps() -> None:
    centre = Linked()
    probe = probes.network(centre)
    assert probe() == (NetworkRead(online=False),)
    centre.link = succeeded(centre.link)
    assert probe() == (NetworkRead(online=True),)
    centre.link, centre.next_ms = (
        failed(failed(centre.link, OnlineState.TIMEOUT, 0, 0), OnlineState.TIMEOUT, 0, 0),
        12_345,
    )
    assert probe() == (NetworkRead(online=False, retry_ms=15_000),)


def test_data_that_are_missing_or_without_their_key_are_a_banner(world: OnlineWorld, tmp_path: Path) -> None:
    home = Home(home_of(world, tmp_path / "home"))
    time = trusted_time(home, world.clock)
    with closing(StatusStore(home.cache, world.authority.epoch_key)) as store:
        good = probes.data(store, time, world.clock, has_key=True)()
        locked = probes.data(store, time, world.clock, has_key=False)()
    with closing(StatusStore(tmp_path, world.authority.epoch_key)) as store:
        empty = probes.data(store, time, world.clock, has_key=True)()
    assert good == (DataRead(as_of=START), PartFault("cache"))
    assert locked[1] == PartFault("cache", "no epoch key")
    assert empty == (DataRead(as_of=None), PartFault("cache", "no data"))


def record(moment: str, *codes: VerdictCode, kind: str = "check") -> str:
    checks = [{"evidence": {"now": moment}, "verdict": {"verdict": code.value}, "kind": "check"} for code in codes]
    if kind == "accident":
        return json.dumps({"kind": kind, "a": checks[0], "b": checks[1]})
    return json.dumps({**checks[0], "kind": kind, "pad": "x" * 3_000})


@pytest.fixture
def audit(tmp_path: Path) -> Callable[..., Path]:
    def write(*lines: str) -> Path:
        path = tmp_path / "audit.jsonl"
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    return write


def test_the_counts_of_a_day_are_its_checks_in_shanghai_with_both_cars_of_an_accident(
    audit: Callable[..., Path],
) -> None:
    path = audit(
        record("2026-06-01T15:59:00+00:00", V.FORGED),  # the day before, there
        *[record("2026-06-01T16:01:00+00:00", V.VALID)] * 100,
        record("2026-06-02T01:00:00+00:00", V.VALID, V.EXPIRED, kind="accident"),
        record("2026-06-02T01:00:01+00:00", V.REVOKED, kind="upgrade"),
        "half a li",
        "[]",
        record("no time at all", V.FORGED),
        json.dumps({"day": "2026-06-02", "codes": ["REVOKED", "VALID"], "sealed": "..."}),
        json.dumps({"day": "2026-06-02", "codes": [], "sealed": "..."}),
    )
    assert Tally(path).of(date(2026, 6, 2)) == {V.VALID: 102, V.EXPIRED: 1, V.REVOKED: 1}
    assert Tally(path).of(date(2026, 6, 1)) == {V.FORGED: 1}
    assert Tally(path.parent / "gone").of(date(2026, 6, 2)) == {}


def test_of_a_log_that_grows_each_row_counts_once_even_when_it_is_met_half_written(audit: Callable[..., Path]) -> None:
    row = record("2026-06-02T01:00:00+00:00", V.VALID)
    path, day = audit(row), date(2026, 6, 2)
    tally = Tally(path)
    assert tally.of(day) == tally.of(day) == {V.VALID: 1}
    for piece, counted in ((f"{row}\n{row[:99]}", 2), (row[99:], 2), ("\n", 3), (f"{row}\n{row}\n", 5)):
        with path.open("a") as file:
            file.write(piece)
        assert tally.of(day) == {V.VALID: counted}
    audit(row)
    assert tally.of(day) == {V.VALID: 1}


def test_a_new_day_begins_with_nothing(audit: Callable[..., Path]) -> None:
    now = [datetime(2026, 6, 1, 15, 59, tzinfo=UTC)]
    probe = probes.counts(audit(record("2026-06-01T15:58:00+00:00", V.VALID)), lambda: now[0])
    assert probe() == (Counted(date(2026, 6, 1), {V.VALID: 1}),)
    now[0] = datetime(2026, 6, 1, 16, 0, tzinfo=UTC)
    assert probe() == probe() == (Counted(date(2026, 6, 2), {}),)


def test_one_empty_reading_of_a_gauge_switches_nothing_off(tmp_path: Path) -> None:
    probe = probes.battery(tmp_path)
    write_power(tmp_path, 0)
    assert probe() == ()
    write_power(tmp_path, 50)
    assert probe() == (PowerRead(percent=50),)
    write_power(tmp_path, 3)
    assert [probe(), probe()] == [(PowerRead(percent=50),), (PowerRead(percent=3),)]


# ------------------------------------------------------------------------------------------------- the benchmark


@pytest.mark.long
def test_the_benchmark_measures_everything_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"STARTS": 1, "SCANS": 2, "PRESSES": 4, "HOUR": 4, "SETTLED": 1}.items():
        monkeypatch.setattr(appliance, name, value)
    figures = appliance.bench_appliance(lambda step, done, total: None)
    assert len(figures) == 10
    assert all(figure.value is not None for figure in figures)
    page = appliance.write_page(figures, tmp_path, "markcheck bench appliance", START)
    assert all(figure.name in page.read_text() for figure in figures)
