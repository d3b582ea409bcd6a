"""A lost device with its program running: no data, no look-ups, and an order that is obeyed wherever it arrives.

Status server, program, files and commands are the real ones.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from firmware import in_use, keeper
from firmware.config import Home
from firmware.keeper import ERASED, held_file
from hw.barcode import BarcodeEngine
from hw.rfid.emulator.scene import Tag
from scripts.cli import erasing
from scripts.cli.main import main
from scripts.demonstration.handheld import PROTOCOL, Parts
from scripts.sandbox.json_schema import check
from scripts.sandbox.status_api import HEARTBEAT_REQUEST
from scripts.sandbox.status_store import DeviceState
from scripts.sandbox.tags import TagForm
from tests.handhelds import NAME, Field, every_byte
from tests.officer import Officer
from tests.status_world import World, make_world
from tests.test_appliance import NO_CAMERA, check_plate
from tests.test_barcode import Plug, plug
from verifier.clock import system_clock
from verifier.epoch_key import is_in_memory
from verifier.types import CodeSeen, Plate
from verifier.verdict import Reason, VerdictCode

__all__ = ["plug"]
UNKNOWN = Plate("京A00001", "02")  # the centre is asked about it
V = VerdictCode


@pytest.fixture
def centre(tmp_path: Path) -> Iterator[World]:
    made = make_world(tmp_path / "world")
    made.live.authority.publish()
    with made.serving():
        yield made


@pytest.fixture
def field(centre: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Field]:
    """A device in a shift."""
    memory = Path("/dev/shm") / f"markcheck-test-{os.getpid()}-lost"  # noqa: S108
    if not is_in_memory(memory.parent):
        pytest.skip("no file system in memory here")
    monkeypatch.setenv("MARKCHECK_RUN", str(memory))
    made = Field(centre, Home(tmp_path / "home"), memory)
    made.enrolled()
    made.sync()
    made.keeper().begin_shift()
    yield made
    shutil.rmtree(memory, ignore_errors=True)


def program(field: Field, tmp_path: Path) -> Officer:
    folder = tmp_path / "settings"
    folder.mkdir(exist_ok=True)
    return Officer(SimpleNamespace(clock=system_clock), folder, NO_CAMERA, home=field.home.folder)  # type: ignore[arg-type]


@pytest.fixture
def officer(field: Field, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Officer]:
    """Holds it with the program running; a minute of the upkeep goes by when he skips it."""
    made, boottime_ms = program(field, tmp_path), keeper.boottime_ms
    monkeypatch.setattr(keeper, "boottime_ms", lambda: boottime_ms() + made.skipped_ms)
    monkeypatch.setattr(in_use, "LOOK_S", 1.0)
    yield made
    made.close()


def lawful(field: Field) -> Plate:
    vehicles = field.world.live.authority.registry.vehicles
    return next(plate for plate, one in vehicles.items() if plate.kind == "02" and not one.record().status - {"A"})


def upload(field: Field, *more: str) -> int:
    return main(["audit", "upload", "--home", str(field.home.folder), *more])


def left_of(field: Field) -> set[str]:
    found = {p.relative_to(field.home.folder).as_posix() for p in field.home.folder.rglob("*") if p.is_file()}
    return {name for name in found if not name.endswith(".lock") and name not in (".alive", "wiped.json", "cache/lock")}


def assert_erased(field: Field, plate: Plate) -> None:
    assert left_of(field) <= {"centre-ca.pem", "online.toml", "log.jsonl"}  # the program notes that its cache is gone
    path = held_file(field.home, field.run)
    assert path is not None
    assert not path.exists()
    assert plate.text.encode() not in every_byte(field.home.folder)


def assert_knows_nothing(field: Field, tmp_path: Path, plate: Plate) -> None:
    """The program as the service manager starts it anew."""
    fresh = program(field, tmp_path)
    try:
        assert fresh.state.history == ()
        assert check_plate(fresh, plate).verdict is V.UNDECIDED
        fresh.until(lambda: "cache" in fresh.asks().state.faults)
    finally:
        fresh.close()


def test_a_lost_device_that_looks_up_erases_itself_and_its_program_ends(
    field: Field, officer: Officer, tmp_path: Path
) -> None:
    plate = lawful(field)
    check_plate(officer, plate).until(lambda: officer.verdict is V.VALID)
    officer.press("back")
    assert plate.text.encode() in every_byte(field.home.folder)
    field.world.store.set_state(NAME, DeviceState.LOST, wipe=True)
    check_plate(officer, UNKNOWN).until(lambda: Reason.ONLINE_DENIED in officer.shown.outcome.result.verdict.reasons)
    officer.skip(60).until(lambda: officer.program.over)
    officer.close()
    assert_erased(field, plate)
    assert_knows_nothing(field, tmp_path, plate)


def test_a_lost_device_that_nobody_uses_gets_its_order_with_the_upload_of_the_timer(
    field: Field, officer: Officer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plate = lawful(field)
    check_plate(officer, plate).until(lambda: officer.verdict is V.VALID)
    field.world.store.set_state(NAME, DeviceState.LOST, wipe=True)
    assert upload(field) == 1
    assert ERASED in capsys.readouterr().err
    assert field.world.store.audit_records(NAME) == []
    officer.until(lambda: officer.program.over)
    officer.close()
    assert_erased(field, plate)
    assert_knows_nothing(field, tmp_path, plate)


def test_a_lost_device_after_its_shift_forgets_its_last_checks_as_well(field: Field, officer: Officer) -> None:
    plate = lawful(field)
    check_plate(officer, plate).until(lambda: officer.verdict is V.VALID)
    officer.press("back")
    field.keeper().end_shift()
    officer.until(lambda: "cache" in officer.asks().state.faults)
    field.world.store.set_state(NAME, DeviceState.LOST, wipe=True)
    assert upload(field) == 1
    officer.until(lambda: officer.program.over)
    assert_erased(field, plate)


def test_a_lost_device_with_nothing_to_upload_gets_its_order_with_its_sign_of_life(
    field: Field, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not field.home.audit.exists()
    field.world.store.set_state(NAME, DeviceState.LOST, wipe=True)
    assert upload(field) == 1
    assert ERASED in capsys.readouterr().err
    assert not field.home.device_key.exists()


def test_a_lost_device_without_an_order_keeps_what_it_has_and_is_told_nothing(
    field: Field, officer: Officer, capsys: pytest.CaptureFixture[str]
) -> None:
    plate = lawful(field)
    field.world.store.set_state(NAME, DeviceState.LOST)
    assert upload(field) == 1
    assert ERASED not in capsys.readouterr().err
    check_plate(officer, plate).until(lambda: officer.verdict is V.VALID)
    assert not officer.program.over


def test_what_a_program_writes_between_the_erasing_and_its_end_goes_too(field: Field, officer: Officer) -> None:
    """As the queue of a check that was under way, or the note of how the program is."""
    plate = lawful(field)
    field.world.store.set_state(NAME, DeviceState.LOST, wipe=True)
    assert upload(field) == 1
    for path in (field.home.rechecks, field.home.vitals, field.home.audit):
        path.write_text(plate.text, encoding="utf-8")
    officer.until(lambda: officer.program.over)
    officer.close()
    assert_erased(field, plate)


def test_a_device_that_is_enrolled_anew_before_the_program_has_ended_keeps_what_it_was_given(
    field: Field, officer: Officer
) -> None:
    assert main(["device", "wipe", "--yes", "--home", str(field.home.folder)]) == 0
    field.enrolled()
    given = field.home.device_key.read_bytes()
    officer.until(lambda: officer.program.over)
    officer.close()
    assert field.home.device_key.read_bytes() == given


def test_a_device_that_was_erased_and_came_back_under_another_name_obeys_again(field: Field) -> None:
    for name in (NAME, "hand-8"):
        field.enrolled(name)
        field.sync()
        field.world.store.set_state(name, DeviceState.LOST, wipe=True)
        assert upload(field) == 1
        assert not field.home.device_key.exists()


def test_a_wipe_by_hand_ends_a_running_program_too(field: Field, officer: Officer) -> None:
    assert main(["device", "wipe", "--yes", "--home", str(field.home.folder)]) == 0
    officer.until(lambda: officer.program.over)


# ------------------------------------------------------------------------------- commands that run for long


def held(field: Field, plate: Plate) -> Tag:
    """The tag of this car, which names it in its EPC."""
    made = field.world.live.authority.tag(plate, TagForm.TC0)
    return Tag(epc=made.epc, tid=made.tid, user=made.user)


def cars_with_tags(field: Field) -> list[Plate]:
    vehicles = field.world.live.authority.registry.vehicles
    return [plate for plate, car in vehicles.items() if car.tid is not None and plate.kind == "02"]


def test_a_checkpoint_at_the_terminal_ends_when_the_device_is_erased_and_names_no_car_on_its_card(
    field: Field, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = cars_with_tags(field)[:2]
    ended: list[int] = []
    with closing(Parts(tmp_path / "parts")) as parts:
        parts.plug(True)
        parts.hold_tags([held(field, first)])
        words = [
            "--protocol",
            PROTOCOL,
            "--power",
            "20",
            "--port",
            parts.port,
            "--seconds",
            "15",
            "--home",
            str(field.home.folder),
        ]
        command = threading.Thread(target=lambda: ended.append(main(["checkpoint", *words])))
        command.start()
        while command.is_alive() and first.text.encode() not in every_byte(field.home.folder):
            pass
        field.world.store.set_state(NAME, DeviceState.LOST, wipe=True)
        assert upload(field) == 1
        parts.hold_tags([held(field, second)])
        command.join()
    assert ended == [1]
    assert capsys.readouterr().err.count(ERASED) == 2  # told by the upload, and by the checkpoint
    assert_erased(field, first)
    assert second.text.encode() not in every_byte(field.home.folder)


def test_a_check_that_waits_while_the_device_is_erased_is_none_any_more(
    field: Field, plug: Plug, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As for a code from the engine."""
    plate, home = lawful(field), ["--home", str(field.home.folder)]
    waits = threading.Event()

    class Told(BarcodeEngine):
        def poll(self, timeout_s: float = 0.0) -> list[CodeSeen]:
            codes = super().poll(timeout_s if waits.is_set() else 0)
            waits.set()
            return codes

    def others() -> None:
        waits.wait()
        field.world.store.set_state(NAME, DeviceState.LOST, wipe=True)
        assert upload(field) == 1
        plug.send(b"https://example.com/\r")

    monkeypatch.setattr("hw.barcode.BarcodeEngine", Told)
    monkeypatch.setattr(erasing, "EVERY_S", 0.0)  # as if it had waited for long
    thread = threading.Thread(target=others)
    thread.start()
    assert main(["check", "--port", str(plug.path), "--baud", "115200", "--plate", plate.text, *home]) == 1
    thread.join()
    told = capsys.readouterr()
    assert told.err.count(ERASED) == 2  # told by the upload, and by the check
    assert plate.text not in told.out
    assert_erased(field, plate)


# ------------------------------------------------------------------------------------------- the sign of life


def heard(field: Field) -> dict[str, object]:
    """The last sign of life at the centre."""
    (known,) = [one for one in field.world.store.devices() if one["device"] == NAME]
    check(known["heartbeat"], HEARTBEAT_REQUEST)
    found: dict[str, object] = known["heartbeat"]
    return found


def test_what_the_program_notes_reaches_the_centre_with_the_log_and_no_plate_is_in_it(
    field: Field, officer: Officer, capsys: pytest.CaptureFixture[str]
) -> None:
    plate = lawful(field)
    officer.appliance.probing.close()  # asked by hand from now on
    officer.battery(64)
    check_plate(officer, plate).until(lambda: officer.verdict is V.VALID)
    officer.asks().skip(10).asks()
    assert upload(field) == 0
    told = heard(field)
    assert told["battery"] == {"percent": 64, "charging": False}
    assert told["counters"]["verdict_valid"] == 1  # type: ignore[index]
    assert told["clock"]["doubts"] == []  # type: ignore[index]
    assert 0 <= told["data"]["age_s"] < 3600  # type: ignore[index]
    assert told["audit"]["seq"] == len(field.home.audit.read_bytes().splitlines())  # type: ignore[index]
    text = json.dumps(told, ensure_ascii=False)
    assert not [word for word in (plate.text, plate.text[1:], NAME) if word in text]
    assert capsys.readouterr().err == ""


def test_off_the_network_the_newest_note_waits_and_goes_with_the_next_upload(field: Field, officer: Officer) -> None:
    officer.appliance.probing.close()
    officer.asks().skip(10).asks()
    assert upload(field, "--centre", "http://127.0.0.1:9/") == 1
    officer.battery(31)
    officer.asks().skip(300).asks()
    newest = json.loads(field.home.vitals.read_text())
    assert upload(field, "--centre", "http://127.0.0.1:9/") == 1
    officer.close()  # and then it is switched off
    assert upload(field) == 0
    told = heard(field)
    assert told["battery"]["percent"] == newest["percent"] == 31  # type: ignore[index]
    noted = datetime.fromisoformat(told["program"]["at"])  # type: ignore[index]
    assert timedelta(0) <= datetime.fromisoformat(newest["at"]).astimezone(UTC) - noted < timedelta(seconds=1)
