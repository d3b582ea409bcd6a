"""The login, the lock, roles and purposes: scripts over the pure state machine."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from firmware.digit_entry import Digits, digit_choices, digit_pressed
from firmware.draw import draw
from firmware.machine import events as ev
from firmware.machine import states as st
from firmware.machine.effects import Check, LogIn, PowerOff, ReadTags, Scan, Watch
from firmware.machine.login import FLAGGED_MS, NEEDS, TYPING_MS, WHILE_LOCKED, admitted
from firmware.machine.states import Light, MenuItem, Mode, State
from firmware.machine.steps import step
from firmware.pages import page_view
from hw.buttons.keys import Key, KeyEvent
from tests.hand import NOON, Hand, result_of
from tests.test_machine import _EVENTS, engine, tag
from tests.test_plate_entry import presses
from verifier.officers import LoginFault, Officer
from verifier.policy import DEFAULT_ROLES, Policy
from verifier.roles import ANSWERS, DUTIES, Answer, Duty
from verifier.types import Purpose
from verifier.verdict import Role, Tone, VerdictCode, View

V = VerdictCode
MINUTE = 60.0
NUMBER, PIN = "110001", "274951"
LOCK_MIN = 10
LOCK_MS = LOCK_MIN * 60_000


def digit_keys(digits: str) -> list[str]:
    """The presses that type digits, and OK at the end."""
    keys = []
    for digit in digits:
        half, place = divmod(int(digit), 5)
        keys += [("up", "left")[half], ("up", "left", "ok", "right", "down")[place]]
    return [*keys, "ok"]


def locked_hand(**facts: object) -> Hand:
    """A device that somebody has to log in at."""
    hand = Hand(State(locked=True, lock_ms=LOCK_MS, **facts))
    return hand.happens(ev.Started())


def asked(hand: Hand) -> LogIn:
    return [effect for effect in hand.effects if isinstance(effect, LogIn)][-1]


def let_in(hand: Hand, role: Role = Role.OFFICER, number: str = NUMBER) -> Hand:
    """Whoever types this number and a PIN is let in."""
    assert isinstance(hand.page, st.Login)
    if not hand.page.number.done:
        hand.press(*digit_keys(number))
    hand.press(*digit_keys(PIN))
    return hand.happens(ev.LoggedIn(attempt=asked(hand).attempt, officer=Officer(officer_id=number, role=role)))


def hand_of(role: Role = Role.OFFICER) -> Hand:
    return let_in(locked_hand(), role)


def in_menu(hand: Hand, item: MenuItem) -> Hand:
    if not isinstance(hand.page, st.Menu):
        hand.hold("ok")
    assert isinstance(hand.page, st.Menu)
    steps = (hand.state.menu.index(item) - hand.page.cursor) % len(hand.state.menu)
    return hand.press(*["down"] * steps, "ok")


def texts(state: State) -> str:
    return " ".join(page_view(state, NOON).texts)


# ------------------------------------------------------------------------------------------------- digits


def test_every_digit_takes_two_presses_and_the_end_is_offered_at_the_length_of_a_pin() -> None:
    entry = Digits(shortest=6, longest=12)
    for at, digit in enumerate("0123456789", 1):
        for key in digit_keys(digit)[:2]:
            entry = digit_pressed(entry, Key(key))
        assert entry.text == "0123456789"[:at]
        assert (digit_choices(entry).places[2] is not None) is (at >= 6)
    assert digit_pressed(entry, Key.OK).done


@given(keys=some.lists(some.sampled_from(Key), max_size=80))
def test_digits_are_never_more_than_there_may_be_and_stand_in_no_text(keys: list[Key]) -> None:
    entry = Digits(shortest=6, longest=12)
    for key in keys:
        entry = digit_pressed(entry, key)
        assert len(entry.text) <= 12
        assert repr(replace(entry, done=False)) == repr(Digits(shortest=6, longest=12))
        if entry.done:
            break


# -------------------------------------------------------------------------------------------------- the login


def test_without_the_setting_the_device_is_for_everybody_as_ever() -> None:
    hand = Hand.ready()
    assert isinstance(hand.page, st.Ready)
    assert all(hand.state.may(duty) for duty in Duty)
    assert hand.state.menu == tuple(item for item in MenuItem if item not in (MenuItem.LOCK, MenuItem.DISPUTE))
    hand.wait(20 * MINUTE)
    assert not hand.state.locked


def test_number_and_pin_are_typed_with_five_keys_and_the_pin_is_never_shown() -> None:
    hand = locked_hand()
    assert "NO." in texts(replace(hand.state, language="en"))
    hand.press(*digit_keys(NUMBER))
    for key in digit_keys(PIN)[:-1]:
        hand.press(key)
        row = page_view(hand.state, NOON).rows[0].text
        assert not set(row) - set(">*_")
    assert page_view(hand.state, NOON).rows[0].text == ">******_"
    hand.press("ok")
    assert hand.did == (LogIn(attempt=1, number=NUMBER, pin=PIN),)
    assert PIN not in repr(hand.did)
    assert PIN not in repr(hand.state)
    hand.happens(ev.LoggedIn(attempt=1, officer=Officer(officer_id=NUMBER, role=Role.OFFICER)))
    assert isinstance(hand.page, st.Ready)


def test_the_page_says_the_same_for_a_wrong_number_and_a_wrong_pin() -> None:
    hand = locked_hand().press(*digit_keys("999999"), *digit_keys(PIN))
    hand.happens(ev.NotLetIn(attempt=1, why=LoginFault.WRONG))
    assert hand.heard() == ["refused"]
    assert "警号或密码有误" in texts(hand.state)
    assert hand.state.locked
    hand.press("ok")
    assert page_view(hand.state, NOON).rows[0].text == ">_", "the PIN once more"


def test_while_no_try_counts_no_key_does_anything_and_the_wait_is_told() -> None:
    hand = locked_hand().press(*digit_keys(NUMBER), *digit_keys(PIN))
    hand.happens(ev.NotLetIn(attempt=1, why=LoginFault.WRONG, wait_ms=30_000))
    before = len(hand.effects)
    assert "30秒后再试" in texts(hand.state)
    hand.wait(12).press("ok", *digit_keys(PIN))
    assert "20秒后再试" in texts(hand.state)
    assert not any(isinstance(effect, LogIn) for effect in hand.effects[before:])
    hand.wait(18)
    let_in(hand)
    assert isinstance(hand.page, st.Ready)
    assert "2分钟后再试" in texts(
        Hand(replace(hand.state, locked=True, page=st.Login(attempt=9)))
        .happens(ev.NotLetIn(attempt=9, why=LoginFault.WAIT, wait_ms=61_000))
        .state
    )


def test_an_answer_to_an_attempt_that_was_given_up_lets_nobody_in() -> None:
    hand = locked_hand().press(*digit_keys(NUMBER), *digit_keys(PIN))
    officer = Officer(officer_id=NUMBER, role=Role.OFFICER)
    hand.hold("back")
    hand.happens(ev.LoggedIn(attempt=1, officer=officer))
    assert hand.state.locked
    hand.press(*digit_keys(NUMBER), *digit_keys(PIN)).happens(ev.LoggedIn(attempt=1, officer=officer))
    assert hand.state.locked
    hand.wait(25)
    assert "人员文件故障" in texts(hand.state), "no answer is a refusal"
    hand.happens(ev.LoggedIn(attempt=2, officer=officer))
    assert hand.state.locked


def test_what_was_typed_and_left_is_gone_after_half_a_minute() -> None:
    hand = locked_hand().press(*digit_keys("11")[:-1]).wait(TYPING_MS / 1000 + 1)
    assert hand.page == st.Login()
    hand = hand_of()
    in_menu(hand, MenuItem.LOCK).press(*digit_keys("274")[:-1]).wait(TYPING_MS / 1000 + 1)
    assert isinstance(hand.page, st.Login)
    assert (hand.page.number.text, hand.page.pin.text) == (NUMBER, "")


# --------------------------------------------------------------------------------------------------- the lock


def test_the_device_locks_when_nobody_touches_it_and_the_pin_alone_opens_it_again() -> None:
    hand = hand_of().wait(LOCK_MIN * MINUTE - 1)
    assert not hand.state.locked
    hand.wait(2)
    assert isinstance(hand.page, st.Login)
    hand.press("ok")  # wakes the panel
    hand.press(*digit_keys(PIN))
    assert asked(hand).number == NUMBER
    hand.happens(ev.LoggedIn(attempt=2, officer=Officer(officer_id=NUMBER, role=Role.OFFICER)))
    assert isinstance(hand.page, st.Ready)


def test_another_officer_takes_over_a_locked_device_by_his_number() -> None:
    hand = in_menu(hand_of(), MenuItem.LOCK).press("back")
    let_in(hand, number="110002")
    assert hand.state.officer == Officer(officer_id="110002", role=Role.OFFICER)


def test_a_lock_hides_the_plate_of_a_verdict_and_of_the_history() -> None:
    hand = hand_of().press("ok").sees("car one").answers(result_of(code=V.FORGED))
    hand.wait(LOCK_MIN * MINUTE + 1)
    assert isinstance(hand.page, st.Login)
    for keys in (["down"], ["up"], ["left"], ["right"], ["ok"], ["back"]):
        hand.press(*keys)
        assert isinstance(hand.page, st.Login)
        assert "12345" not in texts(hand.state)
    hand.hold("ok")
    assert isinstance(hand.page, st.Login)
    hand.hold("back")
    assert (isinstance(hand.page, st.Menu), "12345" in texts(hand.state)) == (True, False)
    let_in(hand.press("back"), number=NUMBER)
    hand.press("down", "ok")
    assert isinstance(hand.page, st.Shown), "it is still there for who may see it"


def test_a_check_that_runs_is_not_interrupted_and_its_verdict_stays_as_long_as_any() -> None:
    hand = hand_of()
    hand.now_ms += LOCK_MS
    hand.press("ok").sees("car one")
    hand.state = replace(hand.state, acted_ms=hand.now_ms - LOCK_MS)
    hand.wait(0.5)
    assert isinstance(hand.page, st.Checking)
    hand.answers(result_of(code=V.FORGED)).wait(LOCK_MIN * MINUTE - 1)
    assert isinstance(hand.page, st.Shown)
    assert isinstance(hand.wait(2).page, st.Login)


def test_a_verdict_that_comes_when_the_device_is_locked_is_not_shown() -> None:
    hand = hand_of().press("ok").sees("car one").answers(result_of("a", V.SIGNED_ONLY))
    hand.state = replace(hand.state, page=st.Login(), locked=True)
    hand.answers(result_of("a", V.VALID), late=True)
    assert (hand.heard(), isinstance(hand.page, st.Login)) == ([], True)
    assert [one.result.verdict.code for one in hand.state.history] == [V.VALID]


@pytest.mark.parametrize("way", [["ok"], ["up", "ok"], ["left"], ["right"]])
def test_a_lock_ends_what_was_being_looked_at(way: list[str]) -> None:
    hand = hand_of().press(*way)
    hand.now_ms += LOCK_MS
    hand.happens(ev.Tick())
    assert isinstance(hand.page, st.Login)
    assert hand.state.first_car is None
    stops = {"ok": (Scan(on=False),), "left": (ReadTags(on=False),)}
    assert hand.did == stops.get(way[0], ())


def test_a_trigger_of_a_barcode_engine_checks_nothing_on_a_locked_device() -> None:
    hand = locked_hand().happens(engine("car one"))
    assert (hand.checks, isinstance(hand.page, st.Login)) == (0, True)
    hand.happens(ev.CodesSeen((ev.SeenCode(b"car"),))).happens(ev.TagsSeen((tag("AA", -40),)))
    assert (hand.checks, isinstance(hand.page, st.Login)) == (0, True)


# ---------------------------------------------------------------------------------------- a locked checkpoint


def locked_checkpoint() -> Hand:
    hand = in_menu(hand_of(), MenuItem.CHECKPOINT).wait(LOCK_MIN * MINUTE + 1)
    assert hand.state.locked
    return hand


def lane_alarm(number: int = 900) -> ev.Alarm:
    return ev.Alarm(number=number, result=result_of(f"x{number}", V.EXPIRED), lane=3)


def test_a_lock_does_not_silence_a_checkpoint() -> None:
    hand = locked_checkpoint()
    assert isinstance(hand.page, st.Checkpoint)
    assert Watch(on=False) not in hand.effects
    assert "已锁定 按键登录" in texts(hand.state)
    hand.happens(ev.Passed(3)).happens(lane_alarm())
    assert hand.heard() == ["stop"]
    assert "京A·12345" in texts(hand.state), "the car that is to be stopped"
    hand.wait(0.5).press("ok")
    assert isinstance(hand.page, st.Checkpoint)
    assert hand.page.waiting == ()
    assert hand.state.mode is Mode.CHECKPOINT


@pytest.mark.parametrize("key", ["back", "up", "down", "left", "right", "ok"])
def test_to_leave_a_locked_checkpoint_or_see_more_takes_the_pin_and_it_goes_on_meanwhile(key: str) -> None:
    hand = locked_checkpoint().press(key)
    assert isinstance(hand.page, st.Login)
    assert hand.state.mode is Mode.CHECKPOINT
    hand.happens(ev.Passed(5)).wait(TYPING_MS / 1000 + 1)
    assert isinstance(hand.page, st.Checkpoint)
    assert hand.page.passed == 5
    hand.press(key).happens(lane_alarm())
    assert (hand.heard(), isinstance(hand.page, st.Checkpoint)) == (["stop"], True)
    assert Watch(on=False) not in hand.effects
    hand.wait(0.5).press("back").press(*digit_keys(PIN)).happens(lane_alarm(901))
    assert hand.heard() == ["stop"]
    assert isinstance(hand.page, st.Login), "a PIN that is being tried is not lost"
    hand.happens(ev.LoggedIn(attempt=asked(hand).attempt, officer=Officer(officer_id=NUMBER, role=Role.OFFICER)))
    assert isinstance(hand.page, st.Checkpoint)
    assert (hand.page.alarms, Watch(on=False) in hand.effects) == (2, False)
    assert Watch(on=False) in hand.wait(0.5).press("back").did
    assert isinstance(hand.page, st.Ready)


def test_a_key_that_was_meant_for_a_digit_acknowledges_no_alarm() -> None:
    hand = locked_checkpoint().press("down", "up").happens(lane_alarm()).press("ok", "left")
    assert isinstance(hand.page, st.Checkpoint)
    assert len(hand.page.waiting) == 1
    hand.wait(0.3).press("ok")
    assert hand.page.waiting == ()


def test_a_checkpoint_is_locked_by_ok_held_and_ends_with_who_may_not_have_one() -> None:
    hand = in_menu(hand_of(), MenuItem.CHECKPOINT)
    hand.hold("ok")
    assert (hand.state.locked, isinstance(hand.page, st.Checkpoint)) == (True, True)
    hand.press("back", "back")
    let_in(hand, Role.TECHNICIAN, "110009")
    assert isinstance(hand.page, st.Menu)
    assert Watch(on=False) in hand.did


# ---------------------------------------------------------------------------------------------------- roles


def test_the_table_of_duties_agrees_with_what_the_policy_shows_each_role() -> None:
    assert set(DUTIES) == set(Role)
    for role, view in DEFAULT_ROLES:
        assert (Duty.VERDICT in DUTIES[role]) is (view is View.FULL)
        assert view is not View.LIMITED or DUTIES[role] == {Duty.CHECK}
    assert set(NEEDS) | set(WHILE_LOCKED) | {st.Menu, st.Info} == set(get_args(st.Page)), "no page is forgotten"


def test_a_technician_tests_and_syncs_and_looks_nobody_up() -> None:
    hand = hand_of(Role.TECHNICIAN)
    assert isinstance(hand.page, st.Menu)
    assert set(hand.state.menu) & {MenuItem.LOOKUP, MenuItem.TAGS, MenuItem.HISTORY, MenuItem.CHECKPOINT} == set()
    assert {MenuItem.SYNC, MenuItem.SELF_TEST, MenuItem.NETWORK} <= set(hand.state.menu)
    assert in_menu(hand, MenuItem.SELF_TEST).page == st.Info(title=MenuItem.SELF_TEST, busy=True)
    assert isinstance(hand.press("back").page, st.Menu)
    hand.happens(engine("car one"))
    assert (hand.checks, hand.heard()) == (0, ["refused"])


def test_an_auditor_sees_the_history_and_checks_nothing() -> None:
    hand = hand_of().press("ok").sees("car one").answers(result_of(code=V.FORGED))
    hand.wait(0.5).press("back")
    let_in(in_menu(hand, MenuItem.LOCK).press("back"), Role.AUDITOR, "110007")
    assert hand.state.menu[0] is MenuItem.HISTORY
    in_menu(hand, MenuItem.HISTORY).press("ok")
    assert isinstance(hand.page, st.Shown)
    checks = hand.wait(0.5).checks
    for key in ("ok", "up"):
        assert isinstance(hand.press(key).page, st.Shown)
        assert hand.heard() == ["refused"]
    hand.happens(engine("car two"))
    assert hand.checks == checks
    assert isinstance(hand.press("back").page, st.Menu)


@pytest.mark.parametrize("code", VerdictCode)
@pytest.mark.parametrize("role", [Role.INSURER, Role.RENTAL, Role.GATE])
def test_who_is_not_the_police_gets_the_limited_answer_with_one_sound_for_all(role: Role, code: VerdictCode) -> None:
    hand = hand_of(role).press("ok").sees("car one").answers(result_of(code=code))
    assert hand.heard() == [Tone.NOTE.value]
    assert isinstance(hand.page, st.Answer)
    view = page_view(hand.state, NOON)
    assert (view.tone, hand.page.answer.answer) == (None, Answer.UNKNOWN), "decided anew, on evidence that is empty"
    assert V.VALID in ANSWERS
    hand.answers(result_of(code=V.WANTED), late=True)
    assert (hand.heard(), isinstance(hand.page, st.Answer)) == ([], True)
    for keys in (["down"], ["right"], ["left"]):
        assert isinstance(hand.press(*keys).page, st.Answer)
    assert isinstance(hand.wait(16).page, st.Ready)
    for way in (["ok"], ["left"], ["up", *presses("京A12345"), "ok"]):
        hand.press(*way).sees("car two").happens(ev.TagsSeen((tag("AA", -40),)))
        if way == ["left"]:
            hand.wait(0.5).press("ok")
        assert hand.last_seen.purpose is Purpose.OTHER, "enforcement is the police's"
        hand.answers(result_of(code=code)).press("back")
    for keys in (["down"], ["right"]):
        assert isinstance(hand.press(*keys).page, st.Ready), "neither history nor accident"
    assert hand.state.mode is Mode.ROADSIDE
    assert set(hand.state.menu) & {MenuItem.HISTORY, MenuItem.CHECKPOINT, MenuItem.ACCIDENT, MenuItem.SYNC} == set()


def test_a_policy_may_take_the_whole_verdict_from_a_role() -> None:
    def answered(view: View) -> Hand:
        roles = tuple((role, view if role is Role.OFFICER else usual) for role, usual in DEFAULT_ROLES)
        result = replace(result_of(code=V.FORGED), policy=replace(Policy(), roles=roles))
        return hand_of().press("ok").sees("car one").answers(result)

    assert isinstance(answered(View.LIMITED).page, st.Answer)
    assert isinstance(answered(View.NONE).page, st.Ready)
    hand = answered(View.LIMITED).press("back", "down", "ok")
    assert (isinstance(hand.page, st.HistoryList), hand.heard()) == (True, ["refused"])


# -------------------------------------------------------------------------------------------------- purposes


@pytest.mark.parametrize(
    ("key", "purpose"),
    [
        ("ok", Purpose.ENFORCEMENT), ("left", Purpose.ACCIDENT), ("right", Purpose.REPORT), ("down", Purpose.OTHER),
    ],
)  # fmt: skip
def test_what_a_typed_plate_is_for_takes_one_press_and_the_whole_at_most_25(key: str, purpose: Purpose) -> None:
    keys = ["up", *presses("京AD12345"), "ok", key]
    assert len(keys) <= 25
    hand = hand_of().press(*keys)
    assert hand.last_seen.purpose is purpose
    assert hand.last_seen.plate_seen is not None
    assert hand.last_seen.plate_seen.plate.text == "京AD12345"


def test_a_purpose_is_asked_for_a_plate_alone_and_for_nothing_else() -> None:
    hand = Hand.ready().press("up", *presses("京A12345"), "ok")
    assert hand.checks == 1, "not where nobody logs in"
    hand = hand_of().press("ok").sees("car one").answers().press("up", *presses("京B12345"), "ok")
    assert hand.last_seen.code == b"car one"
    hand = hand_of().press("ok").wait(3).press("ok").answers(result_of(code=V.UNREADABLE))
    hand.wait(0.5).press("up", *presses("京B12345"), "ok")
    assert isinstance(hand.page, st.PurposeChoice), "a code that cannot be read tells of no car"
    hand = hand_of().press("right", "up", *presses("京B12345"), "ok")
    assert hand.state.first_car is not None
    assert hand.state.first_car.purpose is Purpose.ACCIDENT


def test_from_the_purposes_back_leads_to_the_plate_and_up_to_nothing() -> None:
    hand = hand_of().press("up", *presses("京A12345"), "ok", "up")
    assert isinstance(hand.page, st.PurposeChoice)
    hand.press("back")
    assert isinstance(hand.page, st.Typing)
    assert hand.page.entry.text == "京A12345"
    assert hand.checks == 0


def test_too_many_look_ups_are_a_note_for_an_hour_and_stop_nobody() -> None:
    hand = hand_of().happens(ev.LookedUp(flagged=True))
    assert "查询过多已标记" in texts(hand.state)
    hand.press("up", *presses("京A12345"), "ok", "ok")
    assert hand.checks == 1
    hand.answers().press("back")
    in_menu(hand, MenuItem.LOCK)
    assert "查询过多已标记" not in texts(hand.state)
    let_in(hand)
    assert "查询过多已标记" in texts(hand.state)
    hand.now_ms += FLAGGED_MS
    hand.press("ok", "back")
    assert "查询过多已标记" not in texts(hand.state)
    hand.happens(ev.LookedUp(flagged=True)).happens(ev.LookedUp(flagged=False))
    assert hand.state.flagged_ms is None


# ------------------------------------------------------------------------------------------ switching it off


def test_a_locked_device_can_be_switched_off_without_the_pin_and_nothing_else() -> None:
    hand = locked_hand()
    hand.hold("back")
    assert (hand.state.menu, hand.state.locked, "关机" in texts(hand.state)) == ((MenuItem.POWER_OFF,), True, True)
    hand.press("up", "down", "left", "right", "back")
    assert isinstance(hand.page, st.Login)
    hand.hold("back")
    hand.press("ok")
    assert (isinstance(hand.page, st.Off), PowerOff() in hand.did) == (True, True)


def test_to_hold_back_over_what_was_typed_takes_it_away_and_no_digit_after_that_switches_off() -> None:
    hand = locked_hand().press(*digit_keys(NUMBER)[:6])
    hand.hold("back")
    assert isinstance(hand.page, st.Login)
    hand.press(*digit_keys(NUMBER), *digit_keys(PIN))
    assert asked(hand).number == NUMBER


def test_the_menu_of_a_locked_device_goes_by_itself_and_shows_no_number() -> None:
    hand = hand_of()
    hand.now_ms += LOCK_MS
    hand.happens(ev.Tick()).hold("back")
    assert not any(NUMBER in text for text in texts(hand.state))
    hand.wait(TYPING_MS / 1000 + 1)
    assert isinstance(hand.page, st.Login)


def test_a_locked_checkpoint_goes_on_behind_the_menu_until_the_device_is_switched_off() -> None:
    hand = locked_checkpoint()
    hand.hold("back").hold("back")
    assert isinstance(hand.page, st.Menu)
    hand.happens(ev.Passed(2)).happens(lane_alarm())
    assert (hand.heard(), isinstance(hand.page, st.Checkpoint)) == (["stop"], True)
    hand.hold("back").hold("back")
    hand.wait(TYPING_MS / 1000 + 1)
    assert isinstance(hand.page, st.Checkpoint)
    assert (hand.page.passed, Watch(on=False) in hand.effects) == (3, False)
    hand.hold("back").hold("back")
    hand.press("ok")
    assert isinstance(hand.page, st.Off)
    assert set(hand.did) >= {Watch(on=False), PowerOff()}


# --------------------------------------------------------------------------------------- whatever happens

_OFFICERS = some.builds(Officer, officer_id=some.sampled_from(["1", "2"]), role=some.sampled_from(Role))
_GUARDED: some.SearchStrategy[ev.Event] = some.one_of(
    _EVENTS,
    some.builds(ev.LoggedIn, attempt=some.integers(1, 4), officer=_OFFICERS),
    some.builds(ev.NotLetIn, attempt=some.integers(1, 4), why=some.sampled_from(LoginFault)),
    some.builds(ev.LookedUp, some.booleans()),
)
_LOGIN = [KeyEvent(Key(key)) for key in (*digit_keys("1"), *digit_keys(PIN))]


@given(
    role=some.sampled_from(Role),
    events=some.lists(some.tuples(_GUARDED, some.sampled_from([0, 300, 4_000, 700_000])), max_size=60),
)
@settings(max_examples=300, deadline=None)
def test_no_page_is_ever_shown_to_who_may_not_see_it_and_no_check_begun(
    role: Role, events: list[tuple[ev.Event, int]]
) -> None:
    first = Officer(officer_id="1", role=role)
    begin = [ev.Started(), *_LOGIN, ev.LoggedIn(attempt=1, officer=first)]
    state, now = State(locked=True, lock_ms=600_000), 0
    for event, passing in [*((event, 0) for event in begin), *events]:
        now += passing
        before = state
        state, effects = step(state, event, now)
        assert admitted(state), type(state.page)
        if before.locked and not state.locked:
            assert isinstance(event, ev.LoggedIn)
        for effect in effects:
            assert not isinstance(effect, Check | Scan | ReadTags) or not effect_begins(effect) or may_check(before)
    if state.light is not Light.SLEEP:
        draw(state, NOON, now, (128, 64))


def effect_begins(effect: object) -> bool:
    return isinstance(effect, Check) or bool(getattr(effect, "on", False))


def may_check(state: State) -> bool:
    return state.may(Duty.CHECK)
