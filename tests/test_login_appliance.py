"""Officers at the whole handheld: the real program over real parts, with a login."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import verifier.officers as module
from firmware.machine import states as st
from firmware.pages import page_view
from tests.centres import OnlineWorld
from tests.officer import SETTINGS, Officer, home_of
from tests.test_login import PIN, digit_keys
from tests.test_plate_entry import presses
from verifier.audit import read_log
from verifier.officers import FREE_TRIES, OfficerFile
from verifier.policy import Policy
from verifier.verdict import Role

GUARDED = SETTINGS.replace('"window"', '"none"') + "[officers]\nrequired = true\nlock_minutes = 10\n"
NUMBER, TYPED = "110001", "京AD12345"
WRONG = "000123"
EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"


@pytest.fixture(scope="module")
def world() -> OnlineWorld:
    return OnlineWorld()


@pytest.fixture
def home(world: OnlineWorld, tmp_path: Path) -> Path:
    home = home_of(world, tmp_path / "home")
    officers = OfficerFile(home / "officers.json")
    officers.put(NUMBER, Role.OFFICER, PIN)
    officers.put("110009", Role.TECHNICIAN, "395172")
    return home


@pytest.fixture
def handheld(world: OnlineWorld, home: Path) -> Iterator[Officer]:
    made = Officer(world, home, GUARDED)
    yield made
    made.close()


def types(officer: Officer, number: str, pin: str) -> Officer:
    """Number where it is asked for, PIN, and the answer."""
    assert isinstance(officer.page, st.Login), officer.page
    if officer.page.refused is not None:
        officer.press("ok")
    if not officer.page.number.done:
        officer.press(*digit_keys(number))
    officer.press(*digit_keys(pin))
    return officer.until(lambda: not isinstance(officer.page, st.Login) or officer.page.attempt is None)


def looks_up(officer: Officer, plate: str, purpose: str) -> Officer:
    keys = ["up", *presses(plate), "ok", purpose]
    assert len(keys) <= 25
    return officer.press(*keys).until(lambda: isinstance(officer.page, st.Shown))


def checks(officer: Officer) -> list[dict]:
    return [record for record in officer.records() if record["kind"] == "check"]


def words(officer: Officer) -> str:
    return " ".join(page_view(officer.state, officer.world.clock()).texts)


def test_officer_and_purpose_of_a_check_are_in_its_record_and_pin_number_and_plate_in_no_log(
    handheld: Officer, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    types(handheld, NUMBER, WRONG)
    assert handheld.state.locked
    types(handheld, NUMBER, PIN)
    looks_up(handheld, TYPED, "right")
    handheld.press("back")
    looks_up(handheld, TYPED, "ok")
    handheld.glass.unplug()
    handheld.press("up").until(lambda: "panel" in handheld.state.faults).asks().close()
    logins = [record for record in handheld.records() if record["kind"] == "event"]
    assert [(record["event"], record["officer"], record["role"]) for record in logins] == [("login", NUMBER, "officer")]
    assert list(read_log(home / "audit.jsonl")), "its lines are chained, whoever of the program wrote them"
    records = checks(handheld)
    assert [record["by"]["officer"] for record in records] == [NUMBER] * 2
    assert [record["evidence"]["purpose"] for record in records] == ["report", "enforcement"]
    assert {record["by"]["mode"] for record in records} == {"lookup"}
    told = capfd.readouterr()
    texts = {"out": told.out, "err": told.err}
    texts |= {
        str(path.relative_to(home)): path.read_bytes().decode("utf-8", "replace")
        for path in home.rglob("*") if path.is_file()
    }  # fmt: skip
    assert "panel" in texts["log.jsonl"]
    assert [name for name, text in texts.items() if PIN in text or WRONG in text] == []
    assert {name for name, text in texts.items() if NUMBER in text} == {"audit.jsonl", "officers.json", "lookups.json"}
    assert {name for name, text in texts.items() if TYPED in text or TYPED[1:] in text} == {"audit.jsonl"}


def test_panel_and_keys_go_on_while_a_pin_is_tried(handheld: Officer, monkeypatch: pytest.MonkeyPatch) -> None:
    real, begun, go_on = module._hash, threading.Event(), threading.Event()

    def slow(pin: str, salt: bytes) -> bytes:
        begun.set()
        assert go_on.wait(20)
        return real(pin, salt)

    monkeypatch.setattr("verifier.officers._hash", slow)
    handheld.press(*digit_keys(NUMBER), *digit_keys(PIN)).until(begun.is_set)
    rounds = 0
    while rounds < 20:
        handheld.turns(1)
        rounds += 1
    assert "正在核对" in words(handheld)
    assert handheld.state.locked
    go_on.set()
    handheld.until(lambda: isinstance(handheld.page, st.Ready))


def test_a_wait_outlives_a_restart(world: OnlineWorld, home: Path) -> None:
    officer = Officer(world, home, GUARDED)
    for _ in range(FREE_TRIES):
        types(officer, NUMBER, WRONG)
    assert "30秒后再试" in words(officer)
    officer.close()
    again = Officer(world, home, GUARDED)
    types(again, NUMBER, PIN)
    assert again.state.locked
    assert "错误次数过多" in words(again)
    again.close()


def test_a_locked_handheld_has_nothing_of_the_last_car_on_its_panel(handheld: Officer) -> None:
    types(handheld, NUMBER, PIN)
    looks_up(handheld, TYPED, "ok")
    handheld.wait(0.1).turns(3)  # the last key is up before the leap, however busy the machine is
    handheld.skip(601).turns(2)
    assert isinstance(handheld.page, st.Login)
    assert TYPED[1:] not in words(handheld).replace("·", "")
    handheld.press("back").press("back")  # the first one wakes the panel
    types(handheld, "110009", "395172")
    assert isinstance(handheld.page, st.Menu)
    assert handheld.state.history


def test_too_many_typed_plates_are_flagged_in_the_record_and_on_the_panel(
    world: OnlineWorld, home: Path, handheld: Officer
) -> None:
    handheld.close()
    limit, now = Policy().lookups_per_hour, world.clock().timestamp()
    (home / "lookups.json").write_text(json.dumps({NUMBER: [now] * (limit - 1)}))
    officer = Officer(world, home, GUARDED)
    types(officer, NUMBER, PIN)
    looks_up(officer, TYPED, "ok").press("back")
    assert "查询过多已标记" not in words(officer)
    looks_up(officer, TYPED, "ok").press("back")
    assert "查询过多已标记" in words(officer)
    assert [(record["lookups"], record["flagged"]) for record in checks(officer)] == [
        (limit, False), (limit + 1, True),
    ]  # fmt: skip
    officer.close()


def test_without_an_officers_file_nobody_is_let_in_and_it_says_why(world: OnlineWorld, tmp_path: Path) -> None:
    officer = Officer(world, home_of(world, tmp_path / "home"), GUARDED)
    types(officer, NUMBER, PIN)
    assert "未录入人员" in words(officer)
    (officer.home / "officers.json").write_bytes(b"{")
    types(officer, NUMBER, PIN)
    assert "人员文件故障" in words(officer)
    assert officer.state.locked
    officer.close()


def test_a_checkpoint_that_is_locked_goes_on_under_the_name_of_who_began_it(world: OnlineWorld, home: Path) -> None:
    scene = (EXAMPLES / "scene-lanes.toml").read_text().partition("[[tag]]")[0]
    tags = (
        f'[[tag]]\nepc = "e2004074850a0103163{at:05x}"\ntid = "e2801170200001234567{at:04x}"\n' for at in range(900)
    )
    (home / "lanes.toml").write_text(scene + "".join(tags))
    lanes = '[reader]\nscene = "lanes.toml"\nprotocol = "a0"\nantennas = 4\n'
    officer = Officer(world, home, GUARDED + lanes)
    types(officer, NUMBER, PIN)
    officer.hold("ok")
    officer.press(*["down"] * officer.state.menu.index(st.MenuItem.CHECKPOINT), "ok")
    officer.until(lambda: len(checks(officer)) >= 2, 60)
    officer.hold("ok")
    assert officer.state.locked
    before = len(checks(officer))
    officer.until(lambda: len(checks(officer)) >= before + 2, 60)
    by = [(record["by"]["officer"], record["by"]["mode"]) for record in checks(officer)]
    assert set(by) == {(NUMBER, "checkpoint")}
    officer.press("back")
    assert isinstance(officer.page, st.Login)
    types(officer, NUMBER, PIN)
    assert isinstance(officer.page, st.Checkpoint)
    officer.close()
