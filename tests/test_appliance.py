"""What an officer does with the handheld, as scripts over the real program and real parts."""

from __future__ import annotations

import os
import pty
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from firmware.machine import states as st
from firmware.machine.states import Light
from tests.centres import OLD, START, OnlineWorld
from tests.officer import SETTINGS, Officer, children, home_of, open_files
from tests.test_plate_entry import presses
from verifier.audit import checks_of, read_log
from verifier.plates import kinds_of
from verifier.types import Month, Plate, PresentationMode
from verifier.verdict import VerdictCode

V = VerdictCode
NO_CAMERA = SETTINGS.replace('"window"', '"none"')


@pytest.fixture(scope="module")
def world() -> OnlineWorld:
    return OnlineWorld()


@pytest.fixture(scope="module")
def handheld(world: OnlineWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Officer]:
    """One handheld for all scripts that leave it as it was."""
    made = Officer(world, home_of(world, tmp_path_factory.mktemp("handheld") / "home"))
    yield made
    made.close()


@pytest.fixture
def officer(handheld: Officer) -> Officer:
    return handheld.ready()


@pytest.fixture
def another(world: OnlineWorld, tmp_path: Path) -> Iterator[Officer]:
    """A handheld of one's own, without a camera."""
    made = Officer(world, home_of(world, tmp_path / "home"), NO_CAMERA)
    yield made
    made.close()


def code_of(world: OnlineWorld, plate: Plate | None = None) -> str:
    return world.authority.text(plate or world.vehicle().plate, PresentationMode.STORED, START - timedelta(days=5))


# -------------------------------------------------------------------------------------------- the trigger


def test_press_scan_verdict_detail_next(world: OnlineWorld, officer: Officer) -> None:
    officer.scans(code_of(world))
    assert officer.verdict is V.VALID
    first = officer.sees()
    officer.press("right")
    assert officer.shown.sheet == 1
    assert officer.sees() != first
    officer.press("left")
    assert officer.sees() == first
    officer.scans(code_of(world))
    assert officer.verdict is V.VALID


def test_a_code_that_stays_in_view_for_sixty_frames_is_one_check_and_one_record(
    world: OnlineWorld, officer: Officer
) -> None:
    before = len(officer.records())
    officer.scans(code_of(world)).wait(60 / 15)
    assert len(officer.records()) == before + 1


def test_a_foreign_code_and_then_a_mark_is_the_verdict_of_the_mark(world: OnlineWorld, officer: Officer) -> None:
    officer.holds_up("https://example.com/").press("ok")
    officer.until(lambda: isinstance(officer.page, st.Aim) and officer.page.foreign is not None)
    with officer.in_no_time():  # the mark comes within the half second for which one is looked for
        officer.holds_up(code_of(world)).until(lambda: isinstance(officer.page, st.Shown))
    assert officer.verdict is V.VALID


def test_a_foreign_code_alone_is_named_as_such(officer: Officer) -> None:
    assert officer.scans("https://example.com/").verdict is V.NOT_A_MARK


def test_of_two_marks_in_a_frame_the_officer_chooses_by_their_plates(world: OnlineWorld, officer: Officer) -> None:
    cars = [world.vehicle().plate for _ in range(2)]
    officer.scans(*(code_of(world, plate) for plate in cars))
    assert isinstance(officer.page, st.Choose)
    labels = [code.label.replace("·", "") for code in officer.page.codes]
    assert sorted(labels) == sorted(plate.text for plate in cars)
    officer.press("down", "ok").until(lambda: isinstance(officer.page, st.Shown))
    assert officer.shown.outcome.result.verdict.plate.text == labels[1]


def test_a_trigger_over_nothing_ends_in_a_named_reason_within_three_seconds(officer: Officer) -> None:
    officer.press("ok").until(lambda: isinstance(officer.page, st.Aim)).skip(3)
    assert isinstance(officer.page, st.Aim)
    assert officer.page.named
    assert officer.heard[-1] == "refused"


def test_the_sound_of_a_verdict_comes_with_its_picture_and_not_before(world: OnlineWorld, officer: Officer) -> None:
    officer.scans(code_of(world))
    assert officer.heard[-2:] == ["decoded", "pass"]
    assert officer.seen_when_heard[-1] == officer.sees()


def test_a_camera_that_freezes_in_a_scan_is_told_and_started_anew_while_keys_are_answered(
    world: OnlineWorld, officer: Officer
) -> None:
    """How soon is a figure of `markcheck bench appliance`; the limits themselves are tested with the scanner."""
    officer.press("ok").until(lambda: isinstance(officer.page, st.Aim))
    (frozen,) = children("firmware.scan_worker")
    os.kill(frozen, signal.SIGSTOP)
    officer.until(lambda: "camera" in officer.state.faults)
    officer.press("back").until(lambda: isinstance(officer.page, st.Ready))
    officer.press("up").until(lambda: isinstance(officer.page, st.Typing))
    officer.press("back").until(lambda: "camera" not in officer.state.faults)
    assert frozen not in children("firmware.scan_worker")
    assert officer.scans(code_of(world)).verdict is V.VALID


def test_an_accident_is_two_cars_in_one_record(world: OnlineWorld, officer: Officer) -> None:
    before = len(officer.records())
    officer.press("right").scans(code_of(world))
    assert isinstance(officer.page, st.Accident)
    officer.scans(code_of(world))
    assert len(officer.shown.outcomes) == 2
    records = officer.records()[before:]
    assert [record["kind"] for record in records] == ["accident"]
    assert [records[0][car]["verdict"]["verdict"] for car in "ab"] == ["VALID", "VALID"]
    assert {records[0][car]["by"]["mode"] for car in "ab"} == {"accident"}
    assert list(read_log(officer.home / "audit.jsonl"))


def test_the_counts_of_today_are_the_rows_of_the_audit_log_also_after_a_restart(
    world: OnlineWorld, officer: Officer
) -> None:
    officer.scans(code_of(world)).asks()
    rows = [check["verdict"]["verdict"] for record in officer.records() for check in checks_of(record)]
    assert officer.state.counts == Counter(rows)
    again = Officer(world, officer.home, NO_CAMERA)
    again.turns(2)
    assert again.state.counts == Counter(rows)
    again.close()


# ----------------------------------------------------------------------------------------------- the rest of it


def test_a_new_energy_plate_is_typed_in_at_most_25_presses(another: Officer) -> None:
    keys = ["up", *presses("京AD12345"), "ok"]
    assert len(keys) <= 25
    another.press(*keys).until(lambda: isinstance(another.page, st.Shown))
    assert another.shown.outcome.result.verdict.plate.text == "京AD12345"
    assert another.verdict is V.NOT_FOUND


def check_plate(officer: Officer, plate: Plate) -> Officer:
    """The verdict of this plate. Fingers of 30 ms miss a key where a machine is busy, and then it is typed again."""
    for _ in range(4):
        officer.press("up", *presses(plate.text))
        for _ in kinds_of(plate.text):
            if isinstance(officer.page, st.Typing) and officer.page.kind != plate.kind:
                officer.press("right")
        page = officer.page
        if isinstance(page, st.Typing) and page.entry.done and (page.entry.text, page.kind) == (plate.text, plate.kind):
            officer.press("ok")
        if not isinstance(officer.page, st.Typing | st.Ready):
            return officer.until(lambda: isinstance(officer.page, st.Shown))
        officer.hold("back")
    raise AssertionError("mistyped again and again")


def test_a_script_whose_keys_are_missed_ends_by_itself(
    world: OnlineWorld, another: Officer, monkeypatch: pytest.MonkeyPatch
) -> None:
    press = another.press
    monkeypatch.setattr(another, "press", lambda *keys: press(*(key for key in keys if key != "right")))
    with pytest.raises(AssertionError, match="mistyped"):
        check_plate(another, world.vehicle().plate)


def test_the_key_that_wakes_the_panel_does_nothing_else(another: Officer) -> None:
    another.skip(301)
    assert another.state.light is Light.SLEEP
    assert not another.glass.image().getbbox()
    another.press("ok")
    assert isinstance(another.page, st.Ready)
    assert another.glass.image().getbbox()
    another.press("up")
    assert isinstance(another.page, st.Typing)


def test_a_panel_that_fails_stops_no_check_and_comes_back(world: OnlineWorld, another: Officer) -> None:
    another.glass.unplug()
    check_plate(another, world.vehicle().plate)
    assert another.heard[-1] == "pass"
    assert "panel" in another.state.faults
    another.glass.replug()
    another.skip(5).until(lambda: "panel" not in another.state.faults).turns(2)
    assert another.glass.image().getbbox()


def test_the_battery_warns_at_ten_percent_and_switches_off_at_four_with_all_records_on_the_disk(
    world: OnlineWorld, another: Officer
) -> None:
    another.battery(50)
    full = another.sees()
    another.battery(10)
    assert another.sees() != full
    check_plate(another, world.vehicle().plate)
    another.battery(4)
    assert another.page == st.Off(flat=True)
    assert another.program.over
    another.close()
    assert another.glass.image().getbbox()
    assert len(list(read_log(another.home / "audit.jsonl"))) == 1


def test_a_new_generation_is_followed_by_itself(world: OnlineWorld, another: Officer) -> None:
    before = another.state.status.data_as_of
    world.now += timedelta(hours=20)
    world.authority.publish()
    world.sync(another.home)
    another.asks()
    assert before is not None
    assert another.state.status.data_as_of == before + timedelta(hours=20)


def test_a_new_day_in_shanghai_begins_with_no_checks(world: OnlineWorld, another: Officer) -> None:
    check_plate(another, world.vehicle().plate).asks()
    assert another.state.counts == {V.VALID: 1}
    world.now += timedelta(hours=24)
    another.asks()
    assert another.state.counts == {}


def test_a_clock_that_is_set_back_is_doubted_on_every_page(world: OnlineWorld, another: Officer) -> None:
    assert not another.state.status.clock_doubted
    world.now -= timedelta(days=40)
    another.appliance.probing.ask()
    world.now += timedelta(days=40)
    assert another.turns(2).state.status.clock_doubted


# ---------------------------------------------------------------------------------------------- the late answer


class Held:
    """A centre that answers when the test says so."""

    def __init__(self, world: OnlineWorld) -> None:
        self.asked, self.go = threading.Event(), threading.Event()
        world.spoil = self.answer

    def answer(self, answer: object) -> object:
        self.asked.set()
        assert self.go.wait(20)
        return answer


def test_a_late_answer_changes_its_own_verdict_and_never_the_next_cars(world: OnlineWorld, tmp_path: Path) -> None:
    with world.serving() as url:
        home = home_of(world, tmp_path / "home")
        (home / "online.toml").write_text(f'url = "{url}"\n')
        world.now += OLD
        officer = Officer(world, home, NO_CAMERA)
        try:
            held = Held(world)
            lapsed, next_car = world.vehicle().plate, world.vehicle().plate
            world.authority.registry.lapse(lapsed, Month(2026, 8))
            check_plate(officer, lapsed)
            assert officer.verdict is V.VALID_STALE
            assert held.asked.wait(20)
            officer.press("back")
            world.spoil = lambda answer: answer
            check_plate(officer, next_car).until(lambda: officer.verdict is V.VALID)
            held.go.set()
            officer.wait(0.5)
            assert (officer.verdict, officer.shown.outcome.result.verdict.plate.text) == (V.VALID, next_car.text)
            officer.press("back")
            check_plate(officer, lapsed).until(lambda: officer.verdict is V.EXPIRED)
            assert officer.heard[-1] == "stop"
        finally:
            officer.close()
            world.spoil = lambda answer: answer
            world.authority.publish()  # for the devices of the other tests


# ------------------------------------------------------------------------------------------ parts that are missing


def test_whatever_is_missing_is_a_banner_and_a_typed_plate_still_gets_its_verdict(
    world: OnlineWorld, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    settings = SETTINGS.replace('kind = "window"', 'kind = "picamera2"') + '[reader]\nport = "/dev/nothing"\n'
    officer = Officer(world, home, settings + '[barcode]\nport = "/dev/nothing"\n')
    try:
        officer.until(lambda: {"camera", "cache", "barcode"} <= officer.state.faults.keys())
        officer.press("left").until(lambda: "reader" in officer.state.faults)
        officer.press("back", "up", *presses("京A12345"), "ok").until(lambda: isinstance(officer.page, st.Shown))
        assert officer.verdict is V.UNDECIDED
    finally:
        officer.close()


def test_a_barcode_engine_starts_the_same_check_from_the_ready_page(world: OnlineWorld, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    settings = NO_CAMERA + f'[barcode]\nport = "{os.ttyname(slave)}"\n'
    officer = Officer(world, home_of(world, tmp_path / "home"), settings)
    try:
        officer.wait(0.3)
        os.write(master, code_of(world).encode() + b"\r")
        officer.until(lambda: isinstance(officer.page, st.Shown))
        assert officer.verdict is V.VALID
        assert officer.heard == ["decoded", "pass"]
    finally:
        officer.close()
        os.close(master)
        os.close(slave)


def test_the_four_tones_are_told_apart_on_the_pins_by_motor_and_light(world: OnlineWorld, tmp_path: Path) -> None:
    sound = '[sound]\nsource = "gpio"\n'
    officer = Officer(world, home_of(world, tmp_path / "home"), NO_CAMERA.replace('[sound]\nsource = "none"\n', sound))
    told = set()
    try:
        outputs = [officer.pins.pin(number) for number in (12, 23, 22, 27)]
        for tone in ("pass", "note", "caution", "stop"):
            for pin in outputs:
                pin.clear_states()
            officer.appliance.parts.play(tone)
            officer.wait(1.2)
            told.add(tuple(tuple(state.state for state in pin.states) for pin in outputs))
    finally:
        officer.close()
    assert len(told) == 4


def test_the_self_test_of_the_menu_names_what_is_broken(world: OnlineWorld, another: Officer) -> None:
    def tested() -> tuple[str, ...]:
        another.hold("ok").press(*["down"] * another.program.state.menu.index(st.MenuItem.SELF_TEST), "ok")
        another.until(lambda: isinstance(another.page, st.Info) and not another.page.busy)
        lines = another.page.lines
        another.press("back")
        return lines

    assert tested() == ("9项全部正常",)
    another.battery(8)
    (another.home / "audit.jsonl").write_text('{"prev":"wrong"}\n')
    assert tested() == ("故障2 正常7", "电池 记录")


def test_a_home_that_cannot_be_written_is_a_banner(world: OnlineWorld, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    officer = Officer(world, tmp_path, NO_CAMERA, home=tmp_path / "file" / "home")
    try:
        officer.until(lambda: {"audit", "cache"} <= officer.state.faults.keys())
        officer.press("up", *presses("京A12345"), "ok").until(lambda: isinstance(officer.page, st.Shown))
        assert officer.verdict is V.UNDECIDED
    finally:
        officer.close()


def test_every_part_is_let_go_at_the_end(world: OnlineWorld, tmp_path: Path) -> None:
    before = set(threading.enumerate()), children("firmware.scan_worker"), open_files()
    officer = Officer(world, home_of(world, tmp_path / "home"))
    officer.until(lambda: len(children("firmware.scan_worker")) > len(before[1]))
    officer.close()
    officer.close()
    assert (set(threading.enumerate()), children("firmware.scan_worker"), open_files()) == before
