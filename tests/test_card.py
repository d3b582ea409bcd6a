"""The number on a tag's card, typed with its plate because its code cannot be read: on the device, in a terminal."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from firmware.machine import states as st
from scripts.cli.main import main
from scripts.sandbox.codes import card_number
from scripts.sandbox.fleet import Vehicle
from scripts.sandbox.tags import unbind_tag
from tests.centres import OnlineWorld
from tests.hand import Hand
from tests.officer import Officer as Hands
from tests.officer import home_of
from tests.test_appliance import NO_CAMERA
from tests.test_plate_entry import card_presses, presses
from tests.test_tags import NOW, World, on_the_car
from verifier.adapters import NOTHING_READ
from verifier.audit import replay
from verifier.check import CheckResult, read_card
from verifier.clock import system_clock
from verifier.officers import Officer
from verifier.types import Month, OnlineEvidence, OnlineState, Plate, Purpose, StatusAnswer, StatusLetter, TagLevel
from verifier.verdict import Action, Reason, Role, Tone, VerdictCode

V = VerdictCode
NOBODYS = "0123456789AB"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.device.store.close()


def card_of(vehicle: Vehicle) -> str:
    return read_card(card_number(vehicle.tid or ""))


def checked(world: World, vehicle: Vehicle, card: str, kind: str | None = "02") -> CheckResult:
    plate = replace(on_the_car(vehicle), plate=Plate(vehicle.plate.text, kind))
    return world.check(plate_seen=plate, card=card)


# ----------------------------------------------------------------------------------------------- the verdict


def test_a_card_with_its_own_plate_gives_what_its_code_would_have_given(world: World) -> None:
    vehicle = world.tagged[0]
    result = checked(world, vehicle, card_of(vehicle))
    by_plate = world.check(plate_seen=on_the_car(vehicle))
    assert (result.verdict.code, result.verdict.tone) == (V.VALID, Tone.PASS)
    assert result.verdict.valid_until == by_plate.verdict.valid_until == vehicle.valid_until
    assert result.evidence.tag is not None
    assert result.evidence.tag.level is TagLevel.BOUND


def test_lapsed_insurance_is_told_of_a_typed_card_as_well(tmp_path: Path) -> None:
    def lapse(world: World) -> None:
        vehicle = world.tagged[0]
        world.authority.registry.vehicles[vehicle.plate] = replace(vehicle, ctp_until=NOW.date() - timedelta(days=3))

    world = World(tmp_path, lapse)
    result = checked(world, world.tagged[0], card_of(world.tagged[0]))
    assert Reason.CTP_LAPSED in result.verdict.reasons
    world.device.store.close()


def test_a_card_tells_the_kind_of_a_plate_that_was_typed_without_one(world: World) -> None:
    vehicle = world.tagged[0]
    result = checked(world, vehicle, card_of(vehicle), kind=None)
    assert result.plates[0].kind == "02" or result.plates[-1].kind == "02"
    assert result.verdict.code is V.VALID


@pytest.mark.parametrize("code", [None, NOTHING_READ])
def test_a_number_that_leads_to_nothing_is_undecided_with_its_reason_and_neither_green_nor_red(
    world: World, code: bytes | None
) -> None:
    vehicle = world.tagged[0]
    for card in (NOBODYS, card_of(world.tagged[1])):
        verdict = world.check(plate_seen=on_the_car(vehicle), card=card, code=code).verdict
        assert verdict.code is (V.UNDECIDED if code is None else V.UNREADABLE)
        assert (verdict.tone, Reason.NO_STATUS_DATA in verdict.reasons) == (Tone.CAUTION, True)
        assert {Action.ENTER_PLATE, Action.RELEASE} & set(verdict.actions) == {Action.ENTER_PLATE}
        assert verdict.valid_until is None


def test_what_the_centre_says_of_the_plate_makes_no_pass_of_a_number_that_leads_to_nothing(world: World) -> None:
    vehicle = world.tagged[0]
    result = checked(world, vehicle, NOBODYS)
    answer = StatusAnswer(vehicle=vehicle.record())
    online = OnlineEvidence(state=OnlineState.OK, answer=answer, server_time=NOW)
    late = world.device.verifier.upgrade(result, online, {})
    assert (late.verdict.code, late.verdict.tone) == (V.VALID, Tone.CAUTION)
    assert {Reason.ID_WEAK, Reason.TAG_AUTH_FAILED} <= set(late.verdict.reasons)
    assert Action.RELEASE not in late.verdict.actions


def test_a_car_that_is_looked_for_is_told_whatever_number_is_typed_with_its_plate(tmp_path: Path) -> None:
    def steal(world: World) -> None:
        vehicle = world.tagged[0]
        stolen = replace(vehicle, status=frozenset({StatusLetter.STOLEN}))
        world.authority.registry.vehicles[vehicle.plate] = stolen

    world = World(tmp_path, steal)
    for card in (NOBODYS, card_of(world.tagged[0])):
        assert checked(world, world.tagged[0], card).verdict.code is V.WANTED
    world.device.store.close()


def test_data_that_are_old_or_gone_make_no_red_of_a_card(world: World) -> None:
    vehicle = world.tagged[0]
    world.now += timedelta(days=400)
    for card in (NOBODYS, card_of(vehicle)):
        assert checked(world, vehicle, card).verdict.tone is not Tone.STOP
    world.device.store.close()
    assert checked(world, vehicle, card_of(vehicle)).verdict.tone is not Tone.STOP


def test_a_card_whose_tag_was_taken_off_speaks_for_no_car(tmp_path: Path) -> None:
    def take_off(world: World) -> None:
        world.old = card_of(world.tagged[0])  # type: ignore[attr-defined]
        unbind_tag(world.authority.registry, world.tagged[0].plate)

    world = World(tmp_path, take_off)
    assert checked(world, world.tagged[0], world.old).verdict.code is V.UNDECIDED  # type: ignore[attr-defined]
    world.device.store.close()


def test_the_record_of_a_typed_card_gives_its_verdict_again_and_holds_no_number(world: World) -> None:
    vehicle = world.tagged[0]
    for card in (NOBODYS, card_of(vehicle)):
        result = checked(world, vehicle, card)
        text = world.home.audit.read_text(encoding="utf-8")
        record = json.loads(text.splitlines()[-1])
        assert replay(record)[1], result.verdict
        assert card not in text
        assert "card_sha256" in record["inputs"]


@pytest.mark.parametrize(
    "text", ["", "0123", "0123456789ABC", "0123456789AX", "0123456789A\u0661", "0" * 40, "\x1b[31m0123456789"]
)
def test_what_is_no_number_of_a_card_is_refused_without_being_told(text: str) -> None:
    with pytest.raises(ValueError, match="12 digits") as caught:
        read_card(text)
    assert not text or text not in str(caught.value)


def test_a_number_is_read_with_and_without_its_gaps() -> None:
    assert read_card("0a1b 2C3D 4e5f") == read_card("0A1B2C3D4E5F") == "0A1B2C3D4E5F"


# ------------------------------------------------------------------------------------------------- the keys


def test_the_card_of_a_typed_plate_is_one_key_away_and_is_checked_with_it() -> None:
    number = "10203040506F"
    keys = ["up", *card_presses(number), "ok", "ok"]
    assert len(keys) == 27
    hand = Hand.ready().press("up", *presses("京AD12345"), *keys)
    assert hand.last_seen.card == number
    assert hand.last_seen.plate_seen is not None
    assert hand.last_seen.plate_seen.plate == Plate("京AD12345", "52")
    assert hand.state.mode is st.Mode.LOOKUP


def test_back_takes_a_digit_away_and_in_the_end_goes_back_to_the_plate_as_it_was() -> None:
    hand = Hand.ready().press("up", *presses("京A12345"), "right")
    plate = hand.page
    hand.press("up", *card_presses("10"), "back")
    assert isinstance(hand.page, st.Typing)
    assert hand.page.entry.text == "1"
    assert hand.press("back", "back").page == plate
    assert hand.press("ok").last_seen.card == ""


def test_a_whole_number_can_be_corrected_and_no_other_key_changes_it() -> None:
    hand = Hand.ready().press("up", *presses("京AD12345"), "up", *card_presses("10203040506F"), "ok")
    hand.press("left", "right", "up", "down", "back", "back", *card_presses("A"), "ok", "ok")
    assert hand.last_seen.card == "10203040506A"


def test_beside_a_code_that_was_read_no_card_is_asked_for() -> None:
    hand = Hand.ready().press("ok").sees("car one").answers().press("up", *presses("京B12345"))
    page = hand.page
    assert hand.press("up").page == page


def test_where_officers_log_in_a_card_says_what_for_as_a_plate_does() -> None:
    guarded = replace(Hand.ready().state, lock_ms=600_000, officer=Officer(officer_id="110001", role=Role.OFFICER))
    hand = Hand(guarded).press("up", *presses("京AD12345"), "up", *card_presses("10203040506F"), "ok")
    typed = hand.page
    hand.press("ok")
    assert isinstance(hand.page, st.PurposeChoice)
    assert hand.press("back").page == typed
    hand.press("ok", "right")
    assert (hand.last_seen.card, hand.last_seen.purpose) == ("10203040506F", Purpose.REPORT)


# ------------------------------------------------------------------------------------- the whole program


@pytest.fixture(scope="module")
def today() -> OnlineWorld:
    return OnlineWorld(now=system_clock().replace(microsecond=0))


def tagged(world: OnlineWorld) -> Vehicle:
    def in_order(car: Vehicle) -> bool:
        lasting = car.valid_until > Month.at(world.now) and car.ctp_until > world.now.date()
        return lasting and car.plate.kind == "52" and car.tid is not None and car.status == {StatusLetter.NORMAL}

    return next(car for car in world.authority.registry.vehicles.values() if in_order(car))


def type_card(officer: Hands, plate: Plate, card: str) -> Hands:
    """Fingers of 30 ms miss a key where a machine is busy, and then it is typed again."""
    for _ in range(4):
        officer.press("up", *presses(plate.text), "up", *card_presses(card), "ok")
        page = officer.page
        typed = isinstance(page, st.Typing) and page.entry.done and page.entry.text == card
        if typed and page.seen.plate_seen is not None and page.seen.plate_seen.plate.text == plate.text:
            return officer.press("ok").until(lambda: isinstance(officer.page, st.Shown))
        officer.hold("back")
    raise AssertionError("mistyped again and again")


def test_an_officer_types_a_worn_label_and_sees_the_verdict_of_its_car(today: OnlineWorld, tmp_path: Path) -> None:
    officer, car = Hands(today, home_of(today, tmp_path / "home"), NO_CAMERA), tagged(today)
    try:
        assert type_card(officer, car.plate, card_of(car)).verdict is V.VALID
        officer.ready()
        assert type_card(officer, car.plate, NOBODYS).verdict is V.UNDECIDED
        assert "stop" not in officer.heard
    finally:
        officer.close()


def test_a_technician_checks_a_card_in_a_terminal(
    today: OnlineWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, car = home_of(today, tmp_path / "home"), tagged(today)
    line = ["check", "--plate", car.plate.text, "--kind", "52", "--json", "--home", str(home), "--card"]
    assert main([*line, card_number(car.tid or "")]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "VALID"
    assert main([*line, NOBODYS]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "UNDECIDED"


@pytest.mark.parametrize(
    "line", [["--card", NOBODYS], ["--card", NOBODYS, "photo.png"], ["--card", "12", "--plate", "京A12345"]]
)
def test_a_card_without_its_plate_or_of_another_length_is_wrong_usage(
    line: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.suppress(SystemExit):
        assert main(["check", *line]) == 2
    assert "card" in capsys.readouterr().err
