"""The sign of life: the program notes how it is, and the newest note reaches the centre; nothing else is in it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from firmware import probes
from firmware.config import Home
from firmware.machine.events import Counted, DataRead, PartFault, PowerRead
from firmware.machine.states import State
from firmware.machine.steps import step
from firmware.pages import PARTS
from scripts.cli.audit_send import send, sign_of_life
from scripts.sandbox.json_schema import check
from scripts.sandbox.status_api import HEARTBEAT_REQUEST
from tests.nightly import FakeClock, Night
from tests.sealed_logs import sealed_log
from verifier.audit_file import log_head
from verifier.codec.device import AUDIT_PATH
from verifier.errors import StatusError
from verifier.heartbeat import MAX_COUNTERS, MAX_FAULTS, Heartbeat, LogWord, Vitals, load_vitals, save_vitals
from verifier.trusted_time import Doubt
from verifier.verdict import VerdictCode

NOW = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
BEAT = Heartbeat(software="0.1.0", uptime_s=5, region="national")


class Running:
    """A program's state, and the probe that notes it."""

    def __init__(self, folder: Path) -> None:
        self.path, self.state, self.ms = folder / "vitals.json", State(), 1_000_000
        self.probe = probes.vitals(
            self.path, lambda: self.state, lambda: NOW + timedelta(milliseconds=self.ms), lambda: self.ms
        )

    def happens(self, *events: object) -> None:
        for event in events:
            self.state, _ = step(self.state, event, self.ms)  # type: ignore[arg-type]

    def goes_on(self, seconds: int) -> None:
        """Asked every second, as the program does."""
        for _ in range(seconds):
            self.ms += 1000
            assert self.probe() == ()

    def note(self) -> Vitals:
        found = load_vitals(self.path)
        assert found is not None
        return found


@pytest.fixture
def running(tmp_path: Path) -> Running:
    return Running(tmp_path)


def test_the_program_notes_battery_verdicts_and_faults_by_part(running: Running) -> None:
    counts = {VerdictCode.VALID: 7, VerdictCode.WANTED: 1}
    running.happens(PowerRead(percent=64, charging=True), Counted(NOW.date(), counts))
    for problem in ("no frames", "", "no frames"):
        running.happens(PartFault("camera", problem))
        running.goes_on(1)
    running.happens(PartFault("reader", "silent"), PartFault("camera", ""), DataRead(as_of=NOW))
    running.goes_on(10)
    note = running.note()
    assert (note.battery_percent, note.charging, note.faults) == (64, True, ("reader",))
    assert note.counters == {"verdict_valid": 7, "verdict_wanted": 1, "fault_camera": 2, "fault_reader": 1}


def test_a_fault_that_stays_counts_once(running: Running) -> None:
    running.happens(PartFault("camera", "no frames"))
    running.goes_on(400)
    assert running.note().counters == {"fault_camera": 1}


def test_a_card_is_written_to_every_five_minutes_and_only_the_newest_note_is_kept(running: Running) -> None:
    moments = []
    for _ in range(700):
        running.goes_on(1)
        moments += [running.note().at] if running.path.exists() else []
    assert len(set(moments)) == 3
    assert [path.name for path in running.path.parent.iterdir()] == ["vitals.json"]


def test_a_card_that_takes_no_note_costs_the_program_nothing(running: Running) -> None:
    running.path.mkdir()
    running.goes_on(20)
    assert load_vitals(running.path) is None


def test_every_verdict_and_every_part_together_fit_the_schema() -> None:
    counters = {f"verdict_{code.value.lower()}": 1 for code in VerdictCode} | {f"fault_{part}": 1 for part in PARTS}
    vitals = Vitals(at=NOW, counters=counters, faults=tuple(PARTS))
    assert len(counters) <= MAX_COUNTERS
    assert len(PARTS) <= MAX_FAULTS
    check(replace(BEAT, vitals=vitals, clock=NOW, doubts=tuple(Doubt)).to_json(), HEARTBEAT_REQUEST)


@pytest.mark.parametrize(
    "beat",
    [
        BEAT,
        replace(BEAT, data_age_s=-5, uptime_s=1 << 40),
        replace(BEAT, data_age_s=1 << 40, clock=datetime(9999, 12, 31, tzinfo=UTC)),
        replace(BEAT, vitals=Vitals(at=NOW)),
    ],
    ids=["bare", "a clock behind", "a clock far ahead", "nothing known"],
)
def test_a_sign_of_life_of_any_device_fits_the_schema(beat: Heartbeat) -> None:
    check(beat.to_json(), HEARTBEAT_REQUEST)


@pytest.mark.parametrize(
    "bad",
    [
        {"faults": ("京A12345",)},
        {"faults": ("A12345",)},
        {"counters": {"plate 京A12345": 1}},
        {"counters": {"scans": -1}},
        {"counters": {"scans": True}},
        {"counters": {f"c{number}": 1 for number in range(MAX_COUNTERS + 1)}},
        {"battery_percent": 101},
        {"charging": 1},
        {"at": datetime(2026, 11, 22)},  # noqa: DTZ001 - of no zone
    ],
    ids=str,
)
def test_what_is_no_lower_case_word_and_no_number_does_not_get_in(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not of the form"):
        Vitals(**{"at": NOW, **bad})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"{}", b"\xff", b"[" * 9999,
        b'{"at": 5, "percent": 1, "charging": null, "counters": {}, "faults": []}',
        b'{"at": "2026-11-22T10:00:00+08:00", "percent": 1, "charging": null, "counters": {"A": 1}, "faults": []}',
        b'{"at": "2026-11-22T10:00:00+08:00", "percent": 1, "charging": null, "counters": 3, "faults": [[]]}',
    ],
)  # fmt: skip
def test_a_note_that_rotted_leaves_a_sign_of_life_without_it(tmp_path: Path, data: bytes) -> None:
    home = Home(tmp_path)
    home.vitals.write_bytes(data)
    body = sign_of_life(home).to_json()
    assert (body["program"], body["counters"]) == (None, {})
    check(body, HEARTBEAT_REQUEST)


def test_the_sending_process_tells_version_clock_and_log_of_itself(tmp_path: Path) -> None:
    home = Home(tmp_path)
    save_vitals(home.vitals, Vitals(at=NOW, battery_percent=50, charging=False))
    body = sign_of_life(home).to_json()
    check(json.loads(json.dumps(body)), HEARTBEAT_REQUEST)
    assert body["battery"] == {"percent": 50, "charging": False}
    assert body["program"] == {"at": NOW.isoformat(), "faults": []}
    assert body["clock"]["doubts"] == []
    assert abs(datetime.fromisoformat(body["clock"]["at"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert body["audit"] == {"seq": 0, "head": "0" * 64}
    assert body["data"]["age_s"] is None


class Away:
    """A centre that takes no log now."""

    def __init__(self, status: int) -> None:
        self.status, self.told = status, list[dict[str, object]]()

    def post(self, path: str, body: bytes, *_: object) -> bytes:
        if path == AUDIT_PATH:
            raise StatusError(path, self.status)
        self.told.append(json.loads(body))
        return b'{"server_time": "", "audit": "continues"}'


@pytest.mark.parametrize("status", [413, 429, 500, 503])
def test_a_centre_that_takes_no_log_now_is_told_how_the_device_is_all_the_same(tmp_path: Path, status: int) -> None:
    home, centre = Home(tmp_path), Away(status)
    sealed_log(home.audit, 2)
    done, failure, word = send(home, centre)
    assert (done, word) == (None, LogWord.CONTINUES)
    assert str(status) in failure
    assert centre.told[0]["audit"] == {"seq": 3, "head": log_head(home.audit).head.hex()}


@pytest.mark.parametrize("status", [401, 403])
def test_a_device_that_is_refused_tells_nothing_more(tmp_path: Path, status: int) -> None:
    home, centre = Home(tmp_path), Away(status)
    sealed_log(home.audit, 2)
    with pytest.raises(StatusError):
        send(home, centre)
    assert centre.told == []


def test_the_region_and_age_are_those_of_the_data_in_use(tmp_path: Path) -> None:
    night = Night(clock=FakeClock(datetime.now(UTC) - timedelta(hours=3)), region="guangdong")
    night.publish()
    home = Home(tmp_path)
    night.device(home.cache).client().refresh()
    told = sign_of_life(home).to_json()
    check(told, HEARTBEAT_REQUEST)
    assert (told["data"]["region"], told["data"]["seq"]) == ("guangdong", 1)
    assert 3 * 3600 <= told["data"]["age_s"] < 3 * 3600 + 60
