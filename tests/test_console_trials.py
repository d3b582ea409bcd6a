"""What a technician tries at the console: on the running program's own parts, and without one on parts of its own."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image

from firmware.config import Home
from firmware.console import open_session
from firmware.console_commands import COMMANDS
from firmware.console_line import Terminal
from firmware.console_link import SOCKET, LinkError, ask
from firmware.console_login import hmac_answer
from firmware.console_parts import own_look, own_tags
from firmware.console_trials import OUTPUTS, WHAT, SharedPanel, squares
from firmware.machine import states as st
from firmware.panel import PanelAtHand
from firmware.settings import read_settings
from firmware.syncjob import main as syncjob
from hw.display.simulator import SimulatedPanel
from hw.errors import HardwareError
from hw.rfid.emulator.device import EmulatedReader
from hw.rfid.emulator.port import PtyPort, running
from hw.rfid.emulator.scene import AirProtocol as EmulatedAir
from hw.rfid.emulator.scene import Authentication, Passage, ReaderSetup, Scene, Tag
from scripts.demonstration.handheld import PROTOCOL, Parts
from scripts.sandbox.audit_keys import open_log
from tests.centres import OnlineWorld
from tests.officer import SETTINGS, Officer, home_of
from tests.sealed_logs import PRIVATE, write_key
from tests.test_appliance import NO_CAMERA, code_of
from tests.test_console import KEYS, SECRET, Line, console, events, home
from tests.test_console import SETTINGS as NO_PARTS
from verifier.audit import read_log
from verifier.roles import limited_answer

__all__ = ["home"]
EPC, TID = bytes(range(12)), bytes.fromhex("e28011052000000000000001")


@pytest.fixture(scope="module")
def world() -> OnlineWorld:
    return OnlineWorld()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MARKCHECK_RUN", str(tmp_path / "run"))
    return tmp_path / "run" / SOCKET


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    made = Parts(tmp_path / "parts")
    made.plug(True)
    made.hold_tags([Tag(epc=EPC, tid=TID)])
    return made


@pytest.fixture
def officer(world: OnlineWorld, tmp_path: Path, run: Path, parts: Parts) -> Iterator[Officer]:
    settings = SETTINGS.replace('[sound]\nsource = "none"\n', "")
    settings += f'[reader]\nport = "{parts.port}"\nprotocol = "{PROTOCOL}"\n'
    with closing(Officer(world, home_of(world, tmp_path / "device"), settings)) as made:
        yield made


# ------------------------------------------------------------------------------------------ the running program


def test_a_look_of_the_camera_tells_of_a_code_without_its_payload_and_no_check_comes_of_it(
    world: OnlineWorld, officer: Officer, run: Path
) -> None:
    code = code_of(world)
    told = ask(run, "scan", limit_s=20)
    assert (told["codes"], told["fault"]) == ([], None)
    assert told["frames"] > 0
    officer.holds_up(code, "https://example.com/")
    told = ask(run, "scan", limit_s=20)
    assert told["codes"][0]["code"] == "mark"
    assert told["codes"][0]["bytes"] == len(code)
    assert code[:20] not in json.dumps(told)
    officer.turns(3)
    assert isinstance(officer.page, st.Ready)
    assert officer.records() == []
    assert officer.scans(code).shown  # and the officer is told of it as of any other


def test_the_tags_before_the_reader_are_told_without_their_numbers(officer: Officer, run: Path) -> None:
    told = ask(run, "tags", limit_s=20)
    assert [set(tag) for tag in told["tags"]] == [{"rssi_dbm", "antenna", "auth", "names_a_plate"}]
    assert not any(number.hex() in json.dumps(told).lower() for number in (EPC, TID))
    assert isinstance(officer.page, st.Ready)


def test_an_officer_who_reads_tags_goes_on_reading_after_a_technician_has(officer: Officer, run: Path) -> None:
    officer.press("left").until(lambda: isinstance(officer.page, st.Tags) and bool(officer.page.tags))
    assert len(ask(run, "tags", limit_s=20)["tags"]) == 1
    officer.program.state = officer.state.__class__(page=st.Tags())
    officer.until(lambda: isinstance(officer.page, st.Tags) and bool(officer.page.tags))


def test_a_checkpoint_is_not_disturbed(officer: Officer, run: Path) -> None:
    officer.program.state = officer.state.__class__(mode=st.Mode.CHECKPOINT)
    with pytest.raises(LinkError, match="a checkpoint is watched"):
        ask(run, "tags", limit_s=20)


def test_no_test_picture_takes_the_place_of_a_verdict_of_a_check_or_of_a_checkpoint(
    world: OnlineWorld, officer: Officer, run: Path
) -> None:
    shown = officer.scans(code_of(world)).shown
    result = shown.outcome.result
    pages = (
        shown,
        st.Checking(number=1, since_ms=0, seen=(shown.outcome.seen,), behind=st.Ready()),
        st.Answer(number=1, answer=limited_answer(result.evidence, result.policy, result.now), since_ms=0),
        st.Checkpoint(),
        st.Menu(behind=st.Checkpoint()),
        st.Login(behind=st.Checkpoint()),
    )
    seen = officer.sees()
    for page in pages:
        mode = st.Mode.CHECKPOINT if st.Checkpoint() in (page, getattr(page, "behind", None)) else st.Mode.ROADSIDE
        officer.program.state = st.State(page=page, mode=mode)
        with pytest.raises(LinkError, match="busy: a check, a verdict or a checkpoint is on the panel"):
            ask(run, "test", what="panel")
        assert officer.sees() == seen
    officer.program.state = st.State(page=st.Ready())
    assert ask(run, "test", what="panel", limit_s=20) == {"test": "panel"}


@pytest.mark.parametrize(("what", "pins"), [("led", (23, 22)), ("motor", (27,))])
def test_each_output_is_tried_by_itself_on_the_pins_that_the_program_holds(
    officer: Officer, run: Path, what: str, pins: tuple[int, ...]
) -> None:
    mocks = {number: officer.pins.pin(number) for number in (12, 22, 23, 27)}
    for pin in mocks.values():
        pin.clear_states()
    assert ask(run, "test", what=what) == {"test": what}
    officer.until(lambda: all(any(s.state for s in mocks[n].states) and not mocks[n].state for n in pins))
    assert not any(s.state for n in set(mocks) - set(pins) for s in mocks[n].states)


def test_what_is_not_there_and_what_is_no_test_is_told_as_that(world: OnlineWorld, tmp_path: Path, run: Path) -> None:
    with closing(Officer(world, home_of(world, tmp_path / "device"), NO_CAMERA)):
        for request, more, problem in (
            ("scan", {}, "no camera is set"), ("tags", {}, "no reader is set"),
            ("test", {"what": "led"}, "no outputs are set"), ("test", {"what": "poweroff"}, "no such test"),
        ):  # fmt: skip
            with pytest.raises(LinkError, match=problem):
                ask(run, request, **more)


def test_a_test_picture_goes_as_soon_as_the_program_draws_and_leaves_the_page_as_it_was() -> None:
    glass = SimulatedPanel()
    shared = SharedPanel(PanelAtHand(read_settings("").panel, lambda _: glass))
    page, other = Image.new("1", shared.size), Image.new("1", shared.size, 1)
    shared.show(page)
    before = glass.image().tobytes()
    shared.test(0.0)
    assert glass.image().tobytes() == before
    thread = threading.Thread(target=shared.test, args=(60.0,))
    thread.start()
    while glass.image().tobytes() == before:
        pass
    assert glass.image().convert("1").tobytes() == squares(shared.size).tobytes()
    shared.test(60.0)  # another one meanwhile changes nothing, and does not wait
    shared.show(other)
    thread.join(10)
    assert not thread.is_alive()
    assert glass.image().convert("L").getextrema() == (255, 255)


def test_every_test_says_what_is_to_be_seen() -> None:
    assert set(WHAT) == {*OUTPUTS, "panel"} == set(COMMANDS["test"].words)


# ------------------------------------------------------------------------------------------- without a program


def test_without_a_program_the_console_looks_and_reads_tags_by_itself(home: Path, parts: Parts) -> None:
    beside = home.parent
    Image.new("L", (640, 480), 128).save(beside / "window.png")
    text = NO_PARTS.replace('kind = "none"', 'kind = "window"\npath = "window.png"')
    text += f'[reader]\nport = "{parts.port}"\nprotocol = "{PROTOCOL}"\n'
    (beside / "device.toml").write_text(text)
    with console(home) as line:
        assert "log in first" in line.ask("scan")
        line.login()
        assert re.search(r"frames [1-9]\d*  ms \d+  hint \w+  fault -", line.ask("scan"))
        told = line.ask("tags")
        assert re.search(r"tags 1  fault -\s+rssi_dbm -\d+\.?\d*  antenna 1  air gen2", told)
        assert EPC.hex() not in told.lower()
        assert "sound: none is set" in line.ask("test led")
    assert ("scan", "refused", None) in events(home)
    assert ("tags", "asked", "field-3") in events(home)


def test_parts_that_no_settings_name_are_told_as_none(home: Path) -> None:
    with pytest.raises(HardwareError, match="none is set"):
        own_look(read_settings(NO_PARTS), home, Home(home))
    with pytest.raises(HardwareError, match="none is set"):
        own_tags(read_settings(NO_PARTS))


@contextmanager
def statutory_tags(*lanes: int) -> Iterator[str]:
    """The `[reader]` section of a gx reader with one tag of GB/T 29768 in each lane; they demand their proof first."""
    passages = tuple(
        Passage(
            tag=Tag(
                epc=EPC[:-1] + bytes((lane,)), tid=TID[:-1] + bytes((lane,)), protocol=EmulatedAir.GB29768,
                authentication=Authentication.REQUIRED,
            ), lane=lane, rssi_dbm=-50.0,
        )
        for lane in lanes
    )  # fmt: skip
    scene = Scene(passages=passages, reader=ReaderSetup(security_module=True))
    with running(EmulatedReader("gx", scene), time.monotonic, port=PtyPort()) as emulator:
        yield f'[reader]\nport = "{emulator.port.path}"\nprotocol = "gx"\nair = "gb29768"\n'


def test_without_a_program_tags_are_read_on_the_antennas_and_of_the_air_of_the_settings() -> None:
    with statutory_tags(1, 2, 3) as text:
        seen = own_tags(read_settings(text + "antennas = 2\n"))
    assert {(tag["antenna"], tag["air"]) for tag in seen["tags"]} == {(1, "gb29768"), (2, "gb29768")}


def test_an_antenna_that_the_reader_does_not_have_is_named() -> None:
    with statutory_tags(1) as text, pytest.raises(HardwareError, match="tag reader"):
        own_tags(read_settings(text + "antennas = 8\n"))


# ---------------------------------------------------------------------------------------------- every command

CHANGES_LINES = {"login", "logout", "wipe"}


def test_every_command_has_its_help_completes_by_tab_and_answers_in_json(home: Path) -> None:
    with console(home) as line:
        for name, command in COMMANDS.items():
            told = line.ask(f"help {name}")
            assert told.strip().startswith(name)
            assert all(word in told for word in (command.help, *command.words[:2]))
            assert ("(after login)" in told) is not command.free
        line.login()
        for name in COMMANDS:
            first = next(n for n in range(1, len(name) + 1) if alone(name[:n]))
            line.type(name[:first] + "\t")
            line.expect(rf"{name} $")
            line.type("\x15")
        for name in sorted(COMMANDS.keys() - CHANGES_LINES):
            rows = [json.loads(row) for row in line.ask(f"{name} -j").splitlines() if row]
            assert rows, name
            assert all(isinstance(row, dict) for row in rows)
        assert json.loads(line.ask("frob -j")) == {"error": "no such command; 'help' lists them"}


def alone(beginning: str) -> bool:
    return sum(name.startswith(beginning) for name in (*COMMANDS, "quit")) == 1 or beginning in COMMANDS


def test_nobody_reboots_or_erases_the_machine_without_a_login_nor_without_saying_so_twice(home: Path) -> None:
    with console(home) as line:
        for command in ("reboot yes", "wipe", "test led", "tags", "data", "sync full yes"):
            assert "log in first" in line.ask(command)
        line.login()
        assert "usage: reboot yes" in line.ask("reboot")
        assert "usage: sync" in line.ask("sync full")
        for word in ("", "erase", "yes", "ERASE me"):
            line.type("wipe\r")
            line.expect("erase: ")
            assert "nothing was erased" in line.ask(word)
    assert (home / KEYS).exists()
    assert ("wipe", "refused", None) in events(home)
    assert ("reboot", "refused", None) in events(home)


@pytest.mark.parametrize("command", ["reboot", "poweroff"])
def test_who_is_logged_in_and_says_so_twice_reaches_the_service_manager(home: Path, command: str) -> None:
    switched = []
    session = open_session(
        home.parent / "device.toml", home, Terminal(0, 1), switch=lambda words: switched.append(words) or 0
    )
    session.login.answer(hmac_answer(SECRET, session.login.challenge()))
    [row] = COMMANDS[command].run(session, ["yes"])
    assert row.facts == {command: "begun", "status": 0}
    assert switched == [("systemctl", command)]


def erased(line: Line) -> str:
    line.type("wipe\r")
    line.expect("erase: ")
    return line.ask("ERASE")


def test_erasing_leaves_no_key_no_data_and_no_login_and_the_log_begins_anew_and_can_be_read(home: Path) -> None:
    write_key(home / "audit-key.pem")
    (home / "epoch.key").write_text("11" * 32)
    with console(home) as line:
        line.login()
        assert "wipe erased" in erased(line)
        assert "nothing was typed" not in line.all.decode()
        assert "log in first" in line.ask("logs")
        assert "no technician's key" in line.ask("login")
    assert not (home / KEYS).exists()
    assert not (home / "epoch.key").exists()
    found = [one.record for one in open_log(home / "audit.jsonl", PRIVATE) if one.record]
    assert [record["command"] for record in found] == ["logs", "login"]


def test_logging_out_is_no_absence(home: Path) -> None:
    with console(home) as line:
        line.login()
        assert line.ask("logout").split() == ["logout", "done"]


def test_a_full_sync_fetches_everything_anew_and_the_sets_are_listed_with_their_ages(
    tmp_path: Path, home: Path
) -> None:
    world = OnlineWorld(now=datetime.now(UTC))
    published = tmp_path / "published"
    for name, data in world.store.items():
        (published / name).parent.mkdir(parents=True, exist_ok=True)
        (published / name).write_bytes(data)
    home_of(world, home)
    before = (home / "cache" / "current").resolve()
    (tmp_path / "device.toml").write_text(NO_PARTS + f'[sync]\nsource = "{published}"\n')
    with console(home) as line:
        line.login()
        assert "sync: done" in line.ask("sync full yes")
        told = line.ask("data")
        assert re.search(r"data status  number \d+  as_of \S+  age_h \d+\.\d", told)
        assert re.search(r"data trust  number -  as_of \S+  age_h \d+\.\d", told)
        rows = [json.loads(row) for row in line.ask("data -j").splitlines() if row]
        assert [row["data"] for row in rows] == ["status", "hot", "trust"]
    assert (home / "cache" / "current").resolve() != before
    assert list(read_log(home / "audit.jsonl"))


def test_a_sync_cannot_be_hot_and_full_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        syncjob(["--home", str(tmp_path), "--from", "x", "--hot", "--full"])
    assert "not allowed with" in capsys.readouterr().err
