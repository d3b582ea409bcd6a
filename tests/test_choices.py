"""What the officer chose in the menu outlives the program (F10, F12)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from firmware.app import CONTRASTS
from firmware.choices import FILE, KeptChoices
from firmware.machine import states as st
from firmware.machine.states import MenuItem, State
from scripts.demonstration.mirror import page_texts
from tests.centres import OnlineWorld
from tests.officer import Officer
from tests.test_appliance import NO_CAMERA


@pytest.fixture(scope="module")
def world() -> OnlineWorld:
    return OnlineWorld()


@pytest.fixture
def notes() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def choices(tmp_path: Path, notes: list[tuple[str, str]]) -> Iterator[KeptChoices]:
    return KeptChoices(tmp_path / FILE, lambda *note: notes.append(note))


def in_menu(officer: Officer, item: MenuItem) -> Officer:
    officer.hold("ok").until(lambda: isinstance(officer.page, st.Menu))
    for _ in range(3 * len(MenuItem)):  # a busy machine misses a key
        if isinstance(officer.page, st.Menu) and officer.page.cursor == officer.program.state.menu.index(item):
            break
        officer.press("down")
    return officer.press("ok")


def test_language_and_brightness_of_the_menu_hold_after_a_restart_down_to_the_controller(
    world: OnlineWorld, tmp_path: Path
) -> None:
    officer = Officer(world, tmp_path, NO_CAMERA)
    assert officer.glass.contrast == CONTRASTS[2]
    in_menu(officer, MenuItem.BRIGHTNESS)
    assert officer.glass.contrast == CONTRASTS[3]
    officer.press("back")
    in_menu(officer, MenuItem.LANGUAGE)
    officer.close()  # before the file was due
    again = Officer(world, tmp_path, NO_CAMERA)
    try:
        assert again.glass.contrast == CONTRASTS[3]
        assert "OK: SCAN" in page_texts(again.state, world.now)
    finally:
        again.close()


def test_another_language_in_the_settings_wins_over_the_menu_and_the_old_choice_does_not_come_back(
    choices: KeptChoices, tmp_path: Path, notes: list[tuple[str, str]]
) -> None:
    def started(configured: str, chosen: str | None = None) -> str:
        fresh = KeptChoices(tmp_path / FILE, lambda *note: notes.append(note))
        state = fresh.applied(State(language=configured))
        fresh.keep(state)
        if chosen is not None:
            fresh.keep(State(language=chosen))
        return state.language

    assert started("zh", chosen="en") == "zh"
    assert started("zh") == "en"
    assert started("en") == "en"
    assert started("zh") == "zh"
    assert notes == []


def test_nothing_is_written_before_something_is_chosen(choices: KeptChoices, tmp_path: Path) -> None:
    state = choices.applied(State())
    choices.keep(state)
    assert list(tmp_path.iterdir()) == []
    choices.keep(State(brightness=0))
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert KeptChoices(tmp_path / FILE, print).applied(State()).brightness == 0


GOOD = {"brightness": 1, "configured": "zh", "language": "en"}


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[" * 900, b"\xff\xfe", b"null", b"[]", b"{}", json.dumps(GOOD).encode()[:-1], b" " * 2000,
        *(json.dumps({**GOOD, **bad}).encode() for bad in (
            {"brightness": 4}, {"brightness": -1}, {"brightness": True}, {"brightness": 1.0}, {"brightness": "1"},
            {"language": "fr"}, {"language": None}, {"language": ["en"]}, {"configured": {}}, {"more": 1},
        )),
        json.dumps(GOOD).encode() + b" " * 2000,
    ],
)  # fmt: skip
def test_a_damaged_file_is_ignored_and_noted_and_the_next_choice_replaces_it(
    choices: KeptChoices, tmp_path: Path, notes: list[tuple[str, str]], text: bytes
) -> None:
    (tmp_path / FILE).write_bytes(text)
    assert choices.applied(State()) == State()
    assert notes == [("choices", "damaged: the settings hold")]
    choices.keep(State(language="en"))
    assert KeptChoices(tmp_path / FILE, print).applied(State()).language == "en"


def test_a_card_that_takes_nothing_costs_the_choice_and_is_noted_once(
    choices: KeptChoices, tmp_path: Path, notes: list[tuple[str, str]]
) -> None:
    choices.applied(State())
    (tmp_path / f".{FILE}.new").mkdir()
    for _ in range(3):
        choices.keep(State(brightness=3))
    assert notes == [("choices", "not kept: Is a directory")]
