"""From the centre's register to the officer's panel: a car reported stolen stops at a handheld within two minutes.

Publisher, web server, status server and client are the real ones, over HTTP and HTTPS. The test turns the clock.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from firmware.build import Device, build_device
from firmware.config import REGION, Home
from scripts.cli import cache as cache_command
from scripts.cli.main import main
from scripts.sandbox.republish import Republisher
from scripts.sandbox.server import serve as serve_files
from tests.handhelds import Field
from tests.status_world import make_world
from verifier.check import Observation
from verifier.clock import system_clock
from verifier.codec.online import ANSWER_TYPE, CONTENT_TYPE, MAX_ANSWER, STATUS_PATH
from verifier.epoch_key import is_in_memory
from verifier.errors import FetchError, SyncError
from verifier.hot_follow import EVERY_MS, LEAST_MS, MOST_MS, HintingPoster, HotFollower
from verifier.net import HttpFetcher
from verifier.online import at_once
from verifier.sync import SyncClient
from verifier.sync_report import HotReport
from verifier.types import Plate, PlateSeen
from verifier.verdict import Tone, VerdictCode

TWO_MINUTES_MS = 120_000


@dataclass
class Street:
    """A centre with a register, and a handheld that follows its hot list."""

    field: Field
    url: str
    republisher: Republisher
    plate: Plate
    device: Device
    follower: HotFollower
    now_ms: int = 0

    def report_stolen(self, letters: str = "C") -> None:
        """As 'markcheck sandbox event status' does, in another process."""
        home = self.field.world.home
        authority = home.open(clock=system_clock)
        event = {"event": "status", "plate": self.plate.text, "kind": self.plate.kind, "letters": letters}
        home.record(authority, event)

    def pass_time(self, ms: int) -> None:
        """The centre looks for events each second; the device does what is due."""
        end = self.now_ms + ms
        while self.now_ms < end:
            self.now_ms += 1_000
            self.republisher.step()
            self.follower.step()

    def check(self):
        return self.device.verifier.check(Observation(plate_seen=PlateSeen(plate=self.plate, confirmed=True))).verdict


@pytest.fixture
def street(tmp_path: Path) -> Iterator[Street]:
    memory = Path("/dev/shm") / f"markcheck-test-{os.getpid()}-hot"  # noqa: S108
    if not is_in_memory(memory.parent):
        pytest.skip("no file system in memory here")
    world = make_world(tmp_path / "world")
    republisher = Republisher(world.live)
    world.live.authority.publish()
    with world.serving(), serve_files(world.live.authority.store) as server:
        field = Field(world, Home(tmp_path / "home"), memory)
        field.enrolled()
        root = world.home.root_file.read_bytes()
        field.home.root.write_bytes(root)
        fetcher = HttpFetcher(server.url)
        client = SyncClient(field.home.cache, fetcher, system_clock, root, REGION)
        client.refresh()
        field.keeper().begin_shift()
        follower = HotFollower(client.refresh_hot, lambda: made.now_ms)
        device = build_device(field.home, system_clock, run=memory, hot_hint=follower.hint)
        made = Street(field, server.url, republisher, lawful(world), device, follower)
        yield made
        device.store.close()
        fetcher.close()
    shutil.rmtree(memory, ignore_errors=True)


def lawful(world) -> Plate:
    """A plate with nothing against it."""
    return next(p for p, v in world.live.authority.registry.vehicles.items() if not v.record().status - {"A"})


def test_a_car_reported_stolen_at_the_centre_stops_at_a_handheld_within_two_minutes(street: Street):
    street.pass_time(61_000)
    before = street.check()
    assert before.tone is not Tone.STOP
    street.report_stolen()
    street.pass_time(1_000)
    assert street.check().tone is not Tone.STOP  # it has not come yet: nothing else told the device
    street.pass_time(TWO_MINUTES_MS - 1_000)
    after = street.check()
    assert (after.tone, after.code) == (Tone.STOP, VerdictCode.WANTED)


def test_a_car_that_was_found_again_passes_within_two_minutes(street: Street):
    before = street.check()
    street.report_stolen()
    street.pass_time(TWO_MINUTES_MS)
    assert street.check().tone is Tone.STOP
    street.report_stolen("A")
    street.pass_time(TWO_MINUTES_MS)
    assert street.check().code is before.code


def test_an_answer_of_the_centre_about_another_car_hastens_the_fetch(street: Street):
    """Look-ups carry the hot list's number: the device need not wait for its minute."""
    street.pass_time(1_000)
    street.report_stolen()
    street.republisher.step()
    street.now_ms += LEAST_MS + 1
    assert street.follower.step() is None
    late = street.device.online.late(lambda _: None, start=at_once)
    other = Plate("京A00001", "02")
    late.check(Observation(plate_seen=PlateSeen(plate=other, confirmed=True)))
    report = street.follower.step()
    assert report is not None
    assert report.rows >= 1
    assert street.check().tone is Tone.STOP


def test_a_device_whose_publisher_is_away_keeps_what_it_has_and_catches_up(street: Street, monkeypatch):
    street.report_stolen()
    street.pass_time(TWO_MINUTES_MS)
    assert street.check().tone is Tone.STOP
    calls, refresh = [], street.follower._refresh

    def away():
        calls.append(street.now_ms)
        raise FetchError("hot/national/head.cose", "no connection")

    street.follower._refresh = away
    for _ in range(1200):
        street.now_ms += 1_000
        with suppress(SyncError):
            street.follower.step()
    assert street.check().tone is Tone.STOP
    waits = [b - a for a, b in pairwise(calls)]
    assert waits == sorted(waits)
    assert EVERY_MS <= waits[0] < waits[-1] <= MOST_MS + 1_000
    street.follower._refresh = refresh
    street.pass_time(MOST_MS)
    assert street.follower.due_in_ms() <= EVERY_MS


def test_the_list_ends_with_the_night_that_includes_it(street: Street):
    street.report_stolen()
    street.pass_time(TWO_MINUTES_MS)
    street.field.world.live.authority.publish(accept_large=True)
    street.field.sync()
    assert street.device.store.info().hot_seq is None
    assert street.check().tone is Tone.STOP  # by the night now


# --------------------------------------------------------------------------------------------- the follower


def report(seq: int) -> HotReport:
    now = system_clock()
    return HotReport(
        fresh=True, region=REGION, seq_before=seq, seq_after=seq, rows=0, bytes_fetched=0, seconds=0.0, as_of=now,
        next_update=now, notes=(),
    )  # fmt: skip


class Counting:
    def __init__(self) -> None:
        self.now, self.calls, self.seq = 0, [], 7
        self.follower = HotFollower(self.refresh, lambda: self.now)

    def refresh(self) -> HotReport:
        self.calls.append(self.now)
        return report(self.seq)

    def run(self, until: int, hint=None) -> list[int]:
        while self.now < until:
            self.now += 100
            if hint is not None:
                self.follower.hint(hint(self.now))
            self.follower.step()
        return self.calls


def test_the_list_is_fetched_every_minute_and_not_more_often():
    assert Counting().run(5 * EVERY_MS) == [100 + EVERY_MS * n for n in range(5)]


def test_a_hint_of_a_number_that_is_known_hastens_nothing():
    counting = Counting()
    counting.run(1_000)
    assert counting.run(50_000, hint=lambda _: 7) == [100]


def test_hints_without_end_cost_one_fetch_in_five_seconds():
    """A lying network can hasten fetches, and no more."""
    counting = Counting()
    calls = counting.run(60_000, hint=lambda now: 1000 + now)
    assert all(b - a >= LEAST_MS for a, b in pairwise(calls))


def test_one_number_hastens_once_because_it_may_be_another_regions():
    counting = Counting()
    counting.run(10_000)
    assert len(counting.run(55_000, hint=lambda _: 99)) == 2


def test_after_a_hint_that_was_a_lie_the_next_true_one_hastens():
    counting = Counting()
    counting.run(10_000)
    counting.run(20_000, hint=lambda _: 1 << 31)
    lied = len(counting.calls)
    assert len(counting.run(30_000, hint=lambda _: 8)) == lied + 1


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("brings", "fails", "hastened"), [(7, False, True), (99, False, False), (7, True, True)])
def test_a_hint_that_comes_while_a_fetch_runs_hastens_the_next_one_unless_that_fetch_brought_it(
    first: bool, brings: int, fails: bool, hastened: bool
):
    counting = Counting()
    plain = counting.refresh

    def hinted() -> HotReport:
        if len(counting.calls) == (0 if first else 1):
            counting.follower.hint(99)
            counting.seq = brings
            if fails:
                counting.calls.append(counting.now)
                raise SyncError("cut off")
        return plain()

    counting.follower = HotFollower(hinted, lambda: counting.now)
    for _ in range(4 * EVERY_MS // 100):
        counting.now += 100
        with suppress(SyncError):
            counting.follower.step()
    gaps = [b - a for a, b in pairwise(counting.calls)]
    expected = [LEAST_MS if hastened else EVERY_MS, EVERY_MS]  # and hastened once
    assert gaps[0 if first else 1 :][:2] == expected


@pytest.mark.parametrize("answer", [b"", b"<html>", b"\xd2\x84", bytes(8192), b"\xff" * 100])
def test_an_answer_that_is_none_hints_at_nothing(answer: bytes):
    class Centre:
        def post(self, *_):
            return answer

    hints: list[int] = []
    poster = HintingPoster(Centre(), hints.append)
    assert poster.post(STATUS_PATH, b"", CONTENT_TYPE, ANSWER_TYPE, MAX_ANSWER) == answer
    assert hints == []


def test_sync_hot_every_minute_by_command(street: Street, monkeypatch, capsys):
    """Until Ctrl-C; a failure is told and the next one is tried."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            street.report_stolen()
            street.republisher.step()
        if len(slept) == 4:
            raise KeyboardInterrupt
        ticks[0] += int(seconds * 1000) + 1

    ticks = [0]
    monkeypatch.setattr(cache_command.time, "sleep", sleep)
    monkeypatch.setattr(cache_command, "boottime_ms", lambda: ticks[0])
    line = ["sync", "--from", street.url, "--hot", "--every", "60", "--home", str(street.field.home.folder)]
    assert main(line) == 130
    assert [round(seconds) for seconds in slept] == [0, 60, 60, 60]
    assert "1 rows" in capsys.readouterr().out
    assert street.check().tone is Tone.STOP
    assert main(["sync", "--from", street.url, "--every", "60", "--home", str(street.field.home.folder)]) == 2
