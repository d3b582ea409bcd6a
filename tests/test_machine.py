"""The state machine, as scripts of what an officer does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from firmware.machine import events as ev
from firmware.machine import states as st
from firmware.machine.checking import CONFIRM_MS
from firmware.machine.effects import (
    Aid,
    Check,
    Missed,
    Play,
    PowerOff,
    ReadTags,
    Scan,
    SetLight,
    Sync,
    Told,
    UseNetwork,
    Watch,
)
from firmware.machine.states import Light, MenuItem, Mode, Network, State
from firmware.machine.steps import step
from firmware.pages import PARTS, page_view
from hw.buttons.keys import Key, KeyEvent, Touch
from tests.hand import CAR, NOON, Hand, result_of
from tests.test_plate_entry import presses
from verifier.adapters import NOTHING_READ
from verifier.check import Observation
from verifier.recheck_queue import News
from verifier.types import (
    CodeEvidence,
    CodeReading,
    Evidence,
    Hint,
    Plate,
    Purpose,
    StatusAnswer,
    TagAuth,
    TagEvidence,
    TagSeen,
)
from verifier.verdict import Action, Grade, Reason, Tone, VerdictCode

V = VerdictCode


def shown(hand: Hand) -> st.Shown:
    assert isinstance(hand.page, st.Shown)
    return hand.page


def verdict_of(hand: Hand) -> VerdictCode:
    return shown(hand).outcome.result.verdict.code


def in_menu(hand: Hand, item: MenuItem) -> Hand:
    hand.hold("ok")
    return hand.press(*["down"] * hand.state.menu.index(item), "ok")


def tag(tid: str, rssi: float) -> ev.SeenTag:
    evidence = TagEvidence(auth=TagAuth.UNSUPPORTED, tid=tid, plate=Plate("京A12345", "02"))
    return ev.SeenTag(evidence=evidence, rssi_dbm=rssi)


# ------------------------------------------------------------------------------------------ one press, one verdict


def test_press_scan_verdict_detail_next_in_three_presses() -> None:
    hand = Hand.ready().press("ok")
    assert hand.did == (Scan(on=True),)
    hand.sees("car one")
    assert hand.did[0] == Scan(on=False)
    assert hand.last_seen.code == b"car one"
    hand.answers(result_of(reasons=[Reason.DATA_STALE]))
    assert hand.heard() == ["pass"]
    hand.press("right")
    assert shown(hand).sheet == 1
    hand.press("ok")
    assert hand.did == (Scan(on=True),)


def test_the_same_code_held_for_60_frames_is_one_check() -> None:
    hand = Hand.ready().press("ok")
    for _ in range(60):
        hand.sees("car one").wait(0.05)
    assert hand.checks == 1


def test_a_foreign_code_then_a_real_one_checks_the_real_one() -> None:
    hand = Hand.ready().press("ok").sees("https://example.org", mark=False).wait(0.3).sees("car one")
    assert hand.last_seen.code == b"car one"
    assert hand.checks == 1


def test_a_foreign_code_alone_is_a_verdict_after_half_a_second() -> None:
    hand = Hand.ready().press("ok").sees("https://example.org", mark=False).wait(0.6)
    assert hand.last_seen.code == b"https://example.org"


def test_two_codes_in_a_frame_are_both_offered() -> None:
    hand = Hand.ready().press("ok").sees("car one", "car two")
    assert isinstance(hand.page, st.Choose)
    assert hand.checks == 0
    hand.press("down", "ok")
    assert hand.last_seen.code == b"car two"


@pytest.mark.parametrize("hint", [None, Hint.GLARE])
def test_a_trigger_that_sees_nothing_ends_in_a_named_reason_within_three_seconds(hint: Hint | None) -> None:
    hand = Hand.ready().press("ok").happens(ev.HintSeen(hint)).wait(3)
    assert isinstance(hand.page, st.Aim)
    assert (hand.page.named, hand.page.hint) == (True, hint or Hint.NO_CODE)
    assert hand.heard() == ["refused"]
    hand.press("ok")
    assert hand.last_seen.code == NOTHING_READ


def test_the_camera_is_told_what_keeps_it_from_reading_once() -> None:
    hand = Hand.ready().press("ok")
    for _ in range(5):
        hand.happens(ev.HintSeen(Hint.DARK))
    assert [effect for effect in hand.effects if isinstance(effect, Aid)] == [Aid(Hint.DARK)]


def test_the_camera_rests_after_a_minute() -> None:
    hand = Hand.ready().press("ok").wait(61)
    assert isinstance(hand.page, st.Ready)
    assert Scan(on=False) in hand.did


def test_a_check_without_an_answer_ends_in_a_banner() -> None:
    hand = Hand.ready().press("ok").sees("car one").wait(5.1)
    assert isinstance(hand.page, st.Ready)
    assert hand.state.faults == {"check": "no answer"}
    assert hand.heard() == ["refused"]


def test_a_plate_confirmed_from_the_history_is_checked_with_the_code_that_was_given_up() -> None:
    hand = Hand.ready().press("ok").sees("car one").wait(5.1)
    hand.answers(result_of("a", actions=[Action.CONFIRM_PLATE])).press("down", "ok").wait(0.5).press("ok")
    assert (hand.last_seen.code, hand.last_seen.plate_seen.confirmed) == (b"car one", True)


def test_a_second_answer_to_one_check_takes_the_place_of_the_first() -> None:
    hand = Hand.ready().press("ok").sees("car one").answers(result_of("a", grade=Grade.ONLINE))
    hand.answers(result_of("a", grade=Grade.FRESH_CACHE))
    assert [one.result.verdict.grade for one in hand.state.history] == [Grade.FRESH_CACHE]
    assert hand.page.outcome.result.verdict.grade is Grade.FRESH_CACHE


def test_the_banner_of_a_check_without_an_answer_goes_with_the_next_verdict() -> None:
    hand = Hand.ready().press("ok").sees("car one").wait(5.1)
    hand.press("ok").sees("car two").answers(result_of("b"))
    assert hand.state.faults == {}


@pytest.mark.parametrize("left", [lambda hand: hand.wait(5.1), lambda hand: hand.hold("back")])
def test_a_good_verdict_that_comes_when_the_officer_has_gone_on_is_in_the_history_and_nowhere_else(
    left: Callable[[Hand], Hand],
) -> None:
    hand = left(Hand.ready().press("ok").sees("car one"))
    assert hand.answers(result_of("a", V.VALID)).did == ()
    assert (hand.page, hand.state.faults) == (st.Ready(), {})
    assert [one.result.verdict.code for one in hand.state.history] == [V.VALID]
    hand.answers(result_of("a", V.FORGED), late=True)
    assert [(one.then, one.now) for one in missed(hand)] == [(V.VALID, V.FORGED)]


def missed(hand: Hand) -> list[News]:
    return [effect.news for effect in hand.did if isinstance(effect, Missed)]


@pytest.mark.parametrize("code", [V.REVOKED, V.NOT_FOUND])
def test_a_warning_after_the_time_of_its_check_comes_up_where_the_officer_still_stands(code: VerdictCode) -> None:
    hand = Hand.ready().press("ok").sees("car one").wait(8)
    assert hand.state.faults == {"check": "no answer"}
    hand.answers(result_of("a", code))
    assert (verdict_of(hand), hand.heard(), hand.state.faults) == (code, [result_of("", code).verdict.tone], {})
    assert SetLight(Light.ON, 2) in hand.did
    hand.press("ok")
    assert verdict_of(hand) is code, "the key was meant for the next car"


@pytest.mark.parametrize(
    "left",
    [
        lambda hand: hand.hold("back"),
        lambda hand: hand.wait(5.1).press("ok"),
        lambda hand: hand.wait(5.1).press("down"),
        lambda hand: hand.wait(25),
        lambda hand: hand.wait(5.1).press("ok").sees("car two").wait(5.1),
    ],
)
def test_a_warning_after_the_time_of_its_check_is_news_where_the_officer_has_gone_on(
    left: Callable[[Hand], Hand],
) -> None:
    hand = left(Hand.ready().press("ok").sees("car one"))
    page, last = hand.page, hand.asked.number
    hand.answers(result_of("a", V.REVOKED), number=1)
    (news,) = missed(hand)
    assert (news.check_id, news.now, news.plate, hand.heard()) == ("a", V.REVOKED, CAR, [])
    assert isinstance(hand.page, type(page))
    assert ("check" in hand.state.faults) is (last == 2), "the second check had no answer"
    hand.happens(ev.NewsRead((news,)))
    assert [one.check_id for one in hand.state.news] == ["a"]


def test_a_check_that_ends_late_leaves_the_cursor_of_the_history_on_its_car() -> None:
    hand = Hand.ready()
    for code in (V.VALID_STALE, V.VALID):
        hand.press("ok").sees("a car").answers(result_of(code.value, code)).press("back")
    hand.press("ok").sees("slow").wait(5.1).press("down")
    hand.answers(result_of("late", V.REVOKED)).press("ok")
    assert verdict_of(hand) is V.VALID
    full = replace(hand.state, history=hand.state.history[:1] * st.HISTORY, page=st.HistoryList(cursor=st.HISTORY - 1))
    hand = Hand(full).happens(ev.Checked(number=99, results=(result_of("b"),)))
    assert hand.page == st.HistoryList(cursor=st.HISTORY - 1)
    hand = Hand(replace(full, history=(), page=st.HistoryList()))
    assert hand.happens(ev.Checked(number=99, results=(result_of("b"),))).page == st.HistoryList()


# -------------------------------------------------------------------------------- whose verdict is on the panel


def test_a_late_answer_upgrades_the_verdict_in_place_with_a_sound() -> None:
    hand = Hand.ready().press("ok").sees("car one").answers(result_of("a", V.SIGNED_ONLY, grade=Grade.SIGNATURE_ONLY))
    hand.wait(1).answers(result_of("a", V.VALID, grade=Grade.ONLINE), late=True)
    assert verdict_of(hand) is V.VALID
    assert hand.heard() == ["pass"]
    assert [one.result.verdict.code for one in hand.state.history] == [V.VALID]


def test_a_late_answer_that_changes_nothing_makes_no_sound() -> None:
    hand = Hand.ready().press("ok").sees("car one").answers(result_of())
    assert hand.answers(result_of(), late=True).heard() == []


def test_a_late_answer_with_fewer_reasons_leaves_a_sheet_that_exists() -> None:
    hand = Hand.ready().press("ok").sees("car one").answers(result_of(reasons=list(Reason)[:9])).press("right", "right")
    hand.answers(result_of(), late=True).press("right")
    assert shown(hand).sheet in (0, 1)


def test_a_late_answer_never_overwrites_the_next_car() -> None:
    hand = Hand.ready().press("ok").sees("car one").answers(result_of("a", V.SIGNED_ONLY))
    first = hand.asked.number
    hand.press("ok").sees("car two").answers(result_of("b", V.EXPIRED))
    hand.answers(result_of("a", V.VALID), late=True, number=first)
    assert verdict_of(hand) is V.EXPIRED
    assert [one.result.verdict.code for one in hand.state.history] == [V.EXPIRED, V.VALID]


def test_an_answer_that_comes_while_the_next_car_is_checked_is_not_its_verdict() -> None:
    hand = Hand.ready().press("ok").sees("car one").answers(result_of("a", V.SIGNED_ONLY))
    first = hand.asked.number
    hand.press("ok").sees("car two").answers(result_of("a", V.VALID), late=True, number=first)
    assert isinstance(hand.page, st.Checking)
    assert hand.page.number == first + 1


@pytest.mark.parametrize(("code", "seconds"), [(V.VALID, 5), (V.SIGNED_ONLY, 15), (V.NOT_FOUND, 15), (V.FORGED, None)])
def test_good_news_goes_by_itself_and_a_stop_stays_until_a_key(code: VerdictCode, seconds: int | None) -> None:
    hand = Hand.ready().press("ok").sees("car one").answers(result_of("a", code))
    hand.wait((seconds or 40) - 0.2)
    assert isinstance(hand.page, st.Shown)
    hand.wait(0.4)
    assert isinstance(hand.page, st.Ready) is (seconds is not None)
    assert isinstance(hand.press("back").page, st.Ready)


def test_a_plate_to_compare_is_confirmed_by_one_press() -> None:
    hand = Hand.ready().press("ok").sees("car one")
    hand.answers(result_of("a", V.WATCH_CONFIRM, actions=[Action.CONFIRM_PLATE])).wait(0.5).press("ok")
    seen = hand.last_seen
    assert seen.code == b"car one"
    assert seen.plate_seen is not None
    assert (seen.plate_seen.plate, seen.plate_seen.confirmed) == (Plate("京A12345", "02"), True)


def test_a_plate_that_was_confirmed_is_not_asked_for_again_and_the_next_press_is_the_next_car() -> None:
    hand = Hand.ready().press("ok").sees("car one")
    asking = result_of("a", V.MISMATCH, actions=[Action.CONFIRM_PLATE])
    hand.answers(asking).wait(0.5).press("ok")
    seen = Evidence(code=CodeEvidence(reading=CodeReading.NONE), plate_seen=hand.last_seen.plate_seen)
    hand.answers(replace(asking, evidence=seen)).wait(0.5)
    assert verdict_of(hand) == V.MISMATCH
    assert isinstance(hand.press("ok").page, st.Aim)
    assert hand.checks == 2


def test_a_press_that_was_meant_for_what_stood_there_before_confirms_no_plate() -> None:
    asking = result_of("a", V.WATCH_CONFIRM, actions=[Action.CONFIRM_PLATE])
    hand = Hand.ready().press("ok").sees("car one").answers(asking).press("ok")
    assert (hand.checks, hand.heard(), verdict_of(hand)) == (1, [], V.WATCH_CONFIRM)
    hand = Hand.ready().press("ok").sees("car one").answers(result_of("a", V.VALID_STALE)).wait(3)
    hand.answers(asking, late=True).press("ok")
    assert (hand.checks, verdict_of(hand)) == (1, V.WATCH_CONFIRM)
    hand.wait(0.5).press("ok")
    assert hand.checks == 2


WARNED = [V.FORGED, V.NOT_FOUND]


@pytest.mark.parametrize("key", list(Key))
@pytest.mark.parametrize("code", WARNED)
def test_a_key_that_was_meant_for_what_stood_there_before_takes_no_warning_away(code: VerdictCode, key: Key) -> None:
    before = Hand.ready().press("ok").sees("car one")
    fresh = Hand(before.state, before.now_ms).happens(ev.Checked(number=1, results=(result_of("a", code),)))
    green = Hand(before.state, before.now_ms).happens(ev.Checked(number=1, results=(result_of("a", V.VALID),))).wait(2)
    for hand in (fresh, green.happens(ev.Checked(number=1, results=(result_of("a", code),), late=True))):
        page = hand.page
        hand.now_ms += 300
        assert (hand.press(key).page, hand.did) == (page, ())
        for touch in (Touch.HOLD, Touch.REPEAT):
            hand.now_ms -= 1
            assert hand.happens(KeyEvent(key, touch)).page == page
        hand.now_ms += 10
        assert hand.press(key).page != page


def test_the_same_warning_once_more_and_its_sheets_hold_up_no_key() -> None:
    hand = Hand.ready().press("ok").sees("car one").answers(result_of("a", V.EXPIRED, grade=Grade.STALE_CACHE)).wait(1)
    hand.answers(result_of("a", V.EXPIRED, grade=Grade.ONLINE), late=True).press("right", "right")
    assert isinstance(hand.press("ok").page, st.Aim)


def test_good_news_hold_up_no_key() -> None:
    hand = Hand.ready().press("ok").sees("car one").answers(result_of("a", V.SIGNED_ONLY)).press("ok")
    assert isinstance(hand.page, st.Aim)


def test_no_alarm_is_acknowledged_that_has_not_stood_there_for_a_moment() -> None:
    hand = in_menu(Hand.ready(), MenuItem.CHECKPOINT).happens(ev.Passed(1))
    hand.happens(ev.Alarm(number=-1, result=result_of("x", V.EXPIRED), lane=1)).wait(3)
    hand.happens(ev.Alarm(number=-2, result=result_of("y", V.FORGED), lane=2))
    assert waiting(hand.press("ok", "back")) == ["y", "x"]
    assert waiting(hand.wait(0.3).press("ok", "ok")) == ["x"], "the second press was meant for the first alarm"
    assert waiting(hand.wait(0.3).press("ok")) == []


def waiting(hand: Hand) -> list[str]:
    assert isinstance(hand.page, st.Checkpoint)
    return [outcome.result.check_id for outcome, _ in hand.page.waiting]


def test_a_checkpoint_with_alarms_without_end_is_left_by_a_held_key() -> None:
    hand = in_menu(Hand.ready(), MenuItem.CHECKPOINT)
    hand.happens(ev.Alarm(number=-1, result=result_of("x", V.EXPIRED), lane=1)).happens(KeyEvent(Key.BACK))
    for number in range(8):
        hand.now_ms += 200
        hand.happens(ev.Alarm(number=number, result=result_of(str(number), V.EXPIRED), lane=1))
    assert isinstance(hand.happens(KeyEvent(Key.BACK, Touch.HOLD)).page, st.Ready)


def test_a_trigger_of_an_engine_that_was_meant_for_the_next_car_takes_no_stop_away_and_is_refused() -> None:
    hand = Hand.ready().happens(engine("car one")).answers(result_of("a", V.VALID)).wait(2)
    hand.answers(result_of("a", V.REVOKED), late=True).happens(engine("car two"))
    assert (verdict_of(hand), hand.heard(), hand.checks) == (V.REVOKED, ["refused"], 1)
    assert hand.wait(0.5).happens(engine("car two")).checks == 2


# ------------------------------------------------------------------------------------------------- plates


def test_a_plate_is_typed_in_at_most_25_presses_with_its_kind() -> None:
    keys = ["up", *presses("京AD12345")]
    hand = Hand.ready().press(*keys, "ok")
    assert len(keys) + 1 <= 25
    assert hand.last_seen.plate_seen is not None
    assert hand.last_seen.plate_seen.plate == Plate("京AD12345", "52")
    assert hand.state.mode is Mode.LOOKUP


def test_a_plate_typed_beside_a_verdict_says_that_it_is_compared_with_this_car() -> None:
    hand = Hand.ready().press("ok").sees("car one").answers(result_of("a", V.VALID)).wait(0.5).press("up")
    assert isinstance(hand.page, st.Typing)
    assert hand.page.seen.code == b"car one"
    assert page_view(hand.state, NOON, rows=3).title[0] == "比对此车"
    assert page_view(Hand.ready().press("up").state, NOON, rows=3).title[0] == "查牌"


def test_a_kind_nobody_chose_is_not_guessed_and_one_can_be_chosen() -> None:
    hand = Hand.ready().press("up", *presses("京A12345"))
    assert isinstance(hand.page, st.Typing)
    assert hand.page.kind is None
    hand.press("right", "ok")
    assert hand.last_seen.plate_seen is not None
    assert hand.last_seen.plate_seen.plate.kind == "02"


def test_a_typed_plate_is_compared_with_the_code_on_the_panel() -> None:
    hand = Hand.ready().press("ok").sees("car one").answers().press("up", *presses("京B12345"), "ok")
    assert hand.last_seen.code == b"car one"
    assert hand.last_seen.plate_seen is not None


def test_back_with_nothing_typed_leaves() -> None:
    assert isinstance(Hand.ready().press("up", "ok", "back", "back").page, st.Ready)


# -------------------------------------------------------------------------------------------- other modes


def test_an_accident_is_two_cars_in_one_record() -> None:
    hand = Hand.ready().press("right", "ok").sees("car one")
    assert isinstance(hand.page, st.Accident)
    assert hand.checks == 0
    hand.press("up", *presses("京B12345"), "ok")
    first, second = hand.asked.seen
    assert first.code == b"car one"
    assert second.plate_seen is not None
    assert {first.purpose, second.purpose} == {Purpose.ACCIDENT}
    hand.answers(result_of("a"), result_of("b", V.EXPIRED))
    assert hand.heard() == ["stop"]
    assert verdict_of(hand) is V.VALID
    hand.wait(0.5).press("right", "right")
    assert verdict_of(hand) is V.EXPIRED
    assert isinstance(hand.press("ok").page, st.Accident)
    assert hand.state.first_car is None


def test_an_accident_that_was_left_leaves_no_car_behind() -> None:
    hand = Hand.ready().press("right", "ok").sees("car one").press("back").press("ok").sees("car two")
    assert len(hand.asked.seen) == 1


def test_the_strongest_tag_comes_first_and_a_chosen_one_stays_chosen() -> None:
    hand = Hand.ready().press("left")
    assert hand.did == (ReadTags(on=True),)
    hand.happens(ev.TagsSeen((tag("AA", -60), tag("BB", -40)))).press("down")
    hand.happens(ev.TagsSeen((tag("AA", -30), tag("BB", -40))))
    hand.happens(ev.TagsSeen((tag("AA", -41), tag("BB", -40)))).press("ok")
    assert hand.last_seen.tag is not None
    assert hand.last_seen.tag.tid == "AA"
    assert ReadTags(on=False) in hand.did


def read_tag(epc: str, rssi: float, tid: str = "") -> ev.SeenTag:
    seen = TagSeen(epc=epc.encode(), tid=bytes.fromhex(tid) or None)
    return ev.SeenTag(evidence=replace(tag(tid, rssi).evidence, seen=seen), rssi_dbm=rssi)


def under_cursor(hand: Hand) -> tuple[bytes, str]:
    assert isinstance(hand.page, st.Tags)
    evidence = hand.page.tags[hand.page.cursor].evidence
    assert evidence.seen is not None
    return evidence.seen.epc, evidence.tid


def test_a_chosen_tag_stays_chosen_before_and_after_its_tid_is_read() -> None:
    unread = ev.TagsSeen((read_tag("a", -40), read_tag("b", -50), read_tag("c", -60)))
    hand = Hand.ready().press("left").happens(unread).press("down", "down").happens(unread)
    assert under_cursor(hand) == (b"c", "")
    hand.happens(ev.TagsSeen((read_tag("a", -40, "a1"), read_tag("c", -30, "c1"), read_tag("b", -50))))
    hand.happens(ev.TagsSeen((read_tag("a", -40, "a1"), read_tag("c", -60, "c1")))).press("ok")
    assert hand.last_seen.tag is not None
    assert hand.last_seen.tag.tid == "c1"


@pytest.mark.parametrize(
    "after",
    [
        (read_tag("a", -40), read_tag("c", -60)),  # it is gone
        (read_tag("a", -40), read_tag("b", -50, "b2")),  # another chip with its EPC
        (read_tag("a", -40), read_tag("b", -50, "b1"), read_tag("b", -60, "b1")),  # two of which each may be it
    ],
)
def test_when_the_chosen_tag_is_gone_no_other_car_is_checked_in_its_place(after: tuple[ev.SeenTag, ...]) -> None:
    hand = Hand.ready().press("left")
    hand.happens(ev.TagsSeen((read_tag("a", -40), read_tag("b", -50, "b1")))).press("down").happens(ev.TagsSeen(after))
    assert (hand.press("ok").checks, hand.heard(), under_cursor(hand)) == (0, ["refused"], (b"a", ""))
    assert hand.press("down", "ok").checks == 1, "a key chooses another one"


def test_a_tag_that_has_only_just_become_the_strongest_is_not_checked_by_a_press_for_the_one_before() -> None:
    hand = Hand.ready().press("left").happens(ev.TagsSeen((read_tag("a", -40), read_tag("b", -50)))).wait(1)
    hand.happens(ev.TagsSeen((read_tag("a", -40), read_tag("b", -39)))).press("ok")
    assert (hand.checks, hand.heard(), under_cursor(hand)) == (0, ["refused"], (b"b", ""))
    hand.happens(ev.TagsSeen((read_tag("a", -40), read_tag("b", -39, "b1")))).wait(0.3).press("ok")
    assert hand.last_seen.tag is not None
    assert hand.last_seen.tag.tid == "b1"


def test_a_checkpoint_is_silent_for_those_in_order_and_alarms_for_the_others() -> None:
    hand = in_menu(Hand.ready(), MenuItem.CHECKPOINT)
    assert hand.did == (Watch(on=True),)
    assert hand.happens(ev.Passed(7)).heard() == []
    hand.happens(ev.Alarm(number=900, result=result_of("x", V.EXPIRED), lane=3))
    assert hand.heard() == ["stop"]
    assert isinstance(hand.page, st.Checkpoint)
    assert (hand.page.passed, hand.page.alarms, hand.page.waiting[0][1]) == (8, 1, 3)
    hand.wait(0.5).press("ok")
    assert hand.page.waiting == ()
    assert Watch(on=False) in hand.press("back").did


def test_a_checkpoint_does_not_fall_asleep_and_a_flood_of_alarms_is_bounded() -> None:
    hand = in_menu(Hand.ready(), MenuItem.CHECKPOINT).wait(400)
    assert hand.state.light is Light.ON
    for number in range(100):
        hand.happens(ev.Alarm(number=number, result=result_of(str(number), V.EXPIRED), lane=1))
    assert isinstance(hand.page, st.Checkpoint)
    assert (len(hand.page.waiting), hand.page.alarms) == (st.WAITING, 100)


def test_history_shows_the_last_checks_and_the_counts_are_those_of_the_audit_log() -> None:
    hand = Hand.ready()
    for at in range(60):
        hand.press("ok").sees(str(at)).answers(result_of(str(at), V.EXPIRED if at % 2 else V.VALID))
        hand.wait(0.5).press("back")
    assert len(hand.state.history) == st.HISTORY
    hand.press("down", "down", "ok")
    assert verdict_of(hand) is V.VALID
    hand.happens(ev.Counted(date(2026, 6, 2), {V.VALID: 30, V.EXPIRED: 30}))
    assert hand.state.counts == {V.VALID: 30, V.EXPIRED: 30}
    hand.happens(ev.Counted(date(2026, 6, 3)))
    assert hand.state.counts == {}


def test_language_network_and_sync_are_in_the_menu() -> None:
    hand = Hand.ready()
    assert in_menu(hand, MenuItem.LANGUAGE).state.language == "en"
    hand.press("back")
    assert in_menu(hand, MenuItem.NETWORK).did == (UseNetwork(Network.OFF),)
    hand.press("back")
    assert in_menu(hand, MenuItem.SYNC).did == (Sync(),)
    hand.happens(ev.Reported(("all well",), MenuItem.SELF_TEST))
    assert hand.page == st.Info(title=MenuItem.SYNC, busy=True)
    hand.happens(ev.Reported(("new data",), MenuItem.SYNC))
    assert hand.page == st.Info(title=MenuItem.SYNC, lines=("new data",))


def test_every_line_of_the_menu_does_something() -> None:
    result = result_of("a", V.VALID)
    cache = replace(result.evidence.cache, answer=StatusAnswer(vehicle=None))
    found = replace(result, evidence=replace(result.evidence, cache=cache))
    first = replace(Hand.ready().state, history=(st.Outcome(number=1, seen=Observation(), result=found),))
    assert set(MenuItem) - {*first.menu} == {MenuItem.LOCK}
    for at in range(len(first.menu)):
        hand = Hand(first)
        before = hand.hold("ok").press(*["down"] * at).state
        hand.press("ok")
        assert (hand.state.page, hand.state.language, hand.state.brightness, hand.state.network) != (
            before.page, before.language, before.brightness, before.network
        )  # fmt: skip


# -------------------------------------------------------------------------------------------- the device itself


def test_the_panel_dims_and_sleeps_and_the_key_that_wakes_it_is_swallowed() -> None:
    hand = Hand.ready()
    lights = [hand.wait(seconds).state.light for seconds in (59, 2, 240)]
    assert lights == [Light.ON, Light.DIM, Light.SLEEP]
    hand.hold("ok")
    assert isinstance(hand.page, st.Ready)
    assert SetLight(Light.ON, 2) in hand.effects
    hand.press("ok")
    assert isinstance(hand.page, st.Aim)


def test_a_fault_is_a_banner_and_never_a_block() -> None:
    hand = Hand.ready().happens(ev.PartFault("camera", "hangs")).press("up", *presses("京A12345"), "ok")
    assert hand.checks == 1
    assert hand.state.faults == {"camera": "hangs"}
    assert hand.happens(ev.PartFault("camera")).state.faults == {}


def test_a_fault_that_stays_does_not_hide_those_that_come() -> None:
    hand = Hand.ready().happens(ev.PartFault("settings", "line 3")).happens(ev.PartFault("camera", "hangs"))
    assert page_view(hand.state, NOON).banner[0] == PARTS["camera"].zh
    hand.happens(ev.PartFault("camera"))
    assert page_view(hand.state, NOON).banner[0] == PARTS["settings"].zh


def test_an_empty_battery_puts_everything_on_the_disk_and_switches_off() -> None:
    hand = Hand.ready().happens(ev.PowerRead(percent=4, charging=True))
    assert PowerOff() not in hand.effects
    hand.happens(ev.PowerRead(percent=4))
    assert hand.page == st.Off(flat=True)
    assert hand.did == (PowerOff(),)
    assert hand.press("ok").did == ()
    assert page_view(hand.state, NOON).rows[0].text == "正在关机"
    assert page_view(hand.happens(ev.Kept()).state, NOON).rows[0].text == "电量耗尽已关机"


def test_a_held_back_key_leaves_whatever_it_is() -> None:
    for way in (["ok"], ["up", "ok", "up"], ["left"], ["right"], ["down"]):
        assert isinstance(Hand.ready().press(*way).hold("back").page, st.Ready)


# --------------------------------------------------------------------------------- an engine with its own trigger


def engine(text: str, *, mark: bool = True) -> ev.CodesSeen:
    return ev.CodesSeen((ev.SeenCode(text.encode(), mark),), triggered=True)


@pytest.mark.parametrize("way", [[], ["ok"], ["down"], ["left"]])
def test_the_trigger_of_a_barcode_engine_begins_a_check_from_wherever_the_officer_is(way: list[str]) -> None:
    hand = Hand.ready().press(*way).happens(engine("car one"))
    assert hand.checks == 1
    assert hand.heard() == ["decoded"]
    hand.answers(result_of(code=V.FORGED)).wait(0.5).happens(engine("car two"))
    assert (hand.checks, hand.last_seen.code) == (2, b"car two")


def test_of_two_pulls_of_an_engines_trigger_the_verdict_on_the_panel_is_that_of_the_second_car() -> None:
    hand = Hand.ready().happens(engine("car one")).happens(engine("car one"))
    assert hand.checks == 1
    hand.happens(engine("car two"))
    assert (hand.checks, hand.last_seen.code) == (2, b"car two")
    hand.answers(result_of("a", V.VALID), number=1)
    assert isinstance(hand.page, st.Checking)
    hand.answers(result_of("b", V.FORGED), number=2)
    assert verdict_of(hand) is V.FORGED
    assert [one.result.check_id for one in hand.state.history] == ["b", "a"]


def test_a_code_that_the_camera_saw_before_the_officer_left_begins_nothing() -> None:
    hand = Hand.ready().press("ok", "back").sees("car one")
    assert (hand.checks, hand.page) == (0, st.Ready())


def test_a_barcode_engine_wakes_the_panel_and_tells_a_foreign_code_at_once() -> None:
    hand = Hand.ready().wait(400).happens(engine("https://example.com", mark=False))
    assert hand.state.light is Light.ON
    assert hand.checks == 1


def test_an_engine_reads_both_cars_of_an_accident_and_disturbs_no_typing() -> None:
    hand = Hand.ready().press("up", "ok").happens(engine("car one"))
    assert hand.checks == 0
    hand = Hand.ready().press("right").happens(engine("car one")).happens(engine("car two"))
    assert [car.code for car in hand.asked.seen] == [b"car one", b"car two"]


# ------------------------------------------------------------------------------------- news of earlier checks


def news_of(check: str, now: VerdictCode = V.REVOKED, then: VerdictCode = V.VALID_STALE, **more: object) -> News:
    return News(check_id=check, at=NOON, then=then, now=now, plate=CAR, **more)  # type: ignore[arg-type]


def told(hand: Hand) -> list[str]:
    return [effect.check_id for effect in hand.effects if isinstance(effect, Told)]


def test_news_are_a_banner_and_the_sound_of_the_new_tone_and_wake_the_panel_once() -> None:
    hand = Hand.ready().wait(301)
    assert hand.state.light is Light.SLEEP
    hand.happens(ev.NewsRead((news_of("a"), news_of("b", V.VALID, V.SIGNED_ONLY)))).wait(0.05)
    assert hand.heard() == ["stop"]
    assert hand.state.light is Light.ON
    assert "2项判定有变" in page_view(hand.state, NOON).banner
    assert hand.wait(30).heard() == []
    assert hand.state.light is Light.ON
    assert told(hand) == []


def test_each_piece_of_news_is_told_once_it_has_stood_there_for_a_second_and_not_before() -> None:
    hand = Hand.ready().happens(ev.NewsRead((news_of("a"), news_of("b")))).press("down")
    assert isinstance(hand.page, st.NewsList)
    assert page_view(hand.state, NOON).texts[-4:] == ("京A·12345", "06-01 12:00", "1/2", "有效->撤销")
    assert told(hand.wait(0.8)) == []
    assert told(hand.wait(0.2)) == ["b"]  # the newest is the first
    assert told(hand.press("down").wait(1.1)) == ["b", "a"]
    assert hand.state.news == ()
    assert isinstance(hand.press("ok").page, st.HistoryList)
    assert isinstance(hand.press("back", "down").page, st.HistoryList)


def test_news_that_nobody_could_see_stay() -> None:
    hand = Hand.ready().happens(ev.PartFault("panel", "gone")).happens(ev.NewsRead((news_of("a"),))).press("down")
    assert told(hand.wait(5)) == []
    hand.happens(ev.PartFault("panel")).wait(0.1)
    assert told(hand) == ["a"]


def test_news_come_over_no_verdict_and_are_heard_when_the_officer_has_left_it() -> None:
    hand = Hand.ready().press("ok").sees("car one").happens(ev.NewsRead((news_of("x"),)))
    hand.answers(result_of("a", V.VALID)).wait(1)
    assert [effect.signal for effect in hand.effects if isinstance(effect, Play)][-1] is Tone.PASS
    before = hand.page
    hand.happens(ev.NewsRead((news_of("x"), news_of("y")))).wait(1)
    assert (hand.page, hand.heard()) == (before, [])
    hand.press("back").wait(0.05)
    assert hand.heard() == ["stop"]


def test_a_verdict_that_changed_on_the_panel_is_told_by_that() -> None:
    hand = Hand.ready().press("ok").sees("car one").answers(result_of("a", V.VALID_STALE))
    hand.answers(result_of("a", V.REVOKED), late=True).happens(ev.NewsRead((news_of("a"), news_of("b"))))
    assert told(hand) == ["a"]
    assert [one.check_id for one in hand.state.news] == ["b"]
    hand = Hand.ready().press("ok").sees("car one").answers(result_of("a", V.VALID_STALE))
    assert told(hand.happens(ev.NewsRead((news_of("a"),)))) == []  # the old verdict stands there


def test_a_late_answer_for_a_verdict_that_was_left_is_news_unless_it_says_the_same() -> None:
    hand = Hand.ready().press("ok").sees("car one").answers(result_of("a", V.VALID_STALE)).press("back")
    assert hand.answers(result_of("a", V.VALID), late=True).did == ()
    (effect,) = hand.answers(result_of("a", V.EXPIRED), late=True).did
    assert isinstance(effect, Missed)
    assert (effect.news.check_id, effect.news.then, effect.news.now) == ("a", V.VALID, V.EXPIRED)
    assert (effect.news.plate, effect.news.tone) == (CAR, Tone.STOP)


def test_a_good_verdict_on_old_data_that_holds_is_no_news_but_one_in_doubt_is() -> None:
    hand = Hand.ready().happens(ev.NewsRead((news_of("a", V.VALID),)))
    assert (told(hand), hand.state.news) == (["a"], ())
    hand.happens(ev.NewsRead((news_of("b", V.VALID, tone=Tone.CAUTION),))).wait(0.05)
    assert hand.heard() == ["caution"]
    assert "有效->存疑" in page_view(hand.press("down").state, NOON).texts


def test_a_checkpoint_without_an_alarm_lets_news_be_heard_and_one_with_an_alarm_does_not() -> None:
    hand = in_menu(Hand.ready(), MenuItem.CHECKPOINT)
    hand.happens(ev.Alarm(number=9, result=result_of("l", V.EXPIRED), lane=1)).happens(ev.NewsRead((news_of("a"),)))
    assert hand.wait(1).heard() == []
    hand.press("ok").wait(0.05)
    assert hand.heard() == ["stop"]


def test_news_that_come_while_others_are_read_join_them() -> None:
    hand = Hand.ready().happens(ev.NewsRead((news_of("a"),))).press("down")
    hand.happens(ev.NewsRead((news_of("a"), news_of("b")))).press("down").wait(1.1)
    assert told(hand) == ["b"]
    assert isinstance(hand.page, st.NewsList)
    assert [one.check_id for one in hand.page.news] == ["a", "b"]


def test_a_verdict_that_changes_on_a_sleeping_panel_is_seen() -> None:
    hand = Hand.ready().press("ok").sees("car one").answers(result_of("a", V.FORGED)).wait(301)
    assert hand.state.light is Light.SLEEP
    hand.answers(result_of("a", V.VALID), late=True).wait(1)
    assert hand.state.light is Light.ON


# --------------------------------------------------------------------------------------- whatever happens


_TONES = [V.VALID, V.SIGNED_ONLY, V.NOT_FOUND, V.FORGED]


def _codes(count: int, marks: bool) -> ev.Event:
    return ev.CodesSeen(tuple(ev.SeenCode(b"%d" % at, marks) for at in range(count)))


def _answer(number: int, code: VerdictCode, cars: int, late: bool) -> ev.Event:
    results = tuple(result_of(f"{number}{car}", code) for car in range(cars))
    return ev.Checked(number=number, results=results, late=late)


_EVENTS: some.SearchStrategy[ev.Event] = some.one_of(
    some.builds(KeyEvent, some.sampled_from(Key), some.sampled_from(Touch)),
    some.just(ev.Tick()),
    some.builds(_codes, some.integers(0, 3), some.booleans()),
    some.builds(ev.HintSeen, some.sampled_from([None, *Hint])),
    some.builds(_answer, some.integers(0, 6), some.sampled_from(_TONES), some.integers(1, 2), some.booleans()),
    some.builds(lambda n: ev.TagsSeen(tuple(tag(f"A{i}", -40 - i) for i in range(n))), some.integers(0, 3)),
    some.builds(lambda n: ev.Alarm(number=1000 + n, result=result_of(f"l{n}", V.EXPIRED), lane=n), some.integers(0, 3)),
    some.builds(ev.Passed, some.integers(0, 3)),
    some.builds(ev.PartFault, some.sampled_from(["camera", "reader"]), some.sampled_from(["", "hangs"])),
    some.just(ev.Started()),
    some.builds(lambda n: ev.NewsRead(tuple(news_of(f"{at}0") for at in range(n))), some.integers(0, 3)),
)


@given(events=some.lists(some.tuples(_EVENTS, some.integers(0, 4000)), max_size=60))
@settings(max_examples=300, deadline=None)
def test_a_verdict_on_the_panel_always_belongs_to_what_was_checked_and_nobody_is_stuck(
    events: list[tuple[ev.Event, int]],
) -> None:
    state, now = State(), 0
    asked: dict[int, int] = {}
    for event, passing in events:
        now += passing
        before = state
        state, effects = step(state, event, now)
        for effect in effects:
            if isinstance(effect, Check):
                assert effect.number not in asked
                asked[effect.number] = len(effect.seen)
        page = state.page
        if isinstance(page, st.Shown) and not isinstance(before.page, st.Shown | st.HistoryList):
            assert isinstance(event, ev.Checked)
            assert page.outcome.number == event.number
            assert asked[event.number] == len(page.outcomes)
        if isinstance(page, st.Checking):
            assert page.number == max(asked)
        assert len(state.history) <= st.HISTORY
    _comes_home(state, now)


def _comes_home(state: State, now: int) -> None:
    """Liveness: from anywhere two held keys and a moment lead back to the trigger."""
    state = replace(step(state, ev.Started(), now)[0])
    now += CONFIRM_MS
    for touch in (Touch.PRESS, Touch.RELEASE, Touch.PRESS, Touch.HOLD):
        state, _ = step(state, KeyEvent(Key.BACK, touch), now)
    assert isinstance(state.page, st.Ready | st.Off)


def test_a_tone_is_played_with_its_verdict_and_never_alone() -> None:
    hand = Hand.ready().press("ok").sees("car one")
    assert Tone.PASS.value not in hand.heard()
    hand.answers(number=99)
    assert hand.heard() == []
