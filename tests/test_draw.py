"""What the panel shows in every state of the machine, on every size of panel."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from itertools import cycle, product
from pathlib import Path
from types import MappingProxyType
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from PIL import Image, ImageChops

from firmware.digit_entry import Digits
from firmware.draw import CHECKING_MS, SHIFT_MS, draw
from firmware.fonts import headline_font, plate_font, text_font
from firmware.icons import battery_icon, clock_icon, data_icon, network_icon
from firmware.machine import events as ev
from firmware.machine import states as st
from firmware.machine.checking import sheets
from firmware.machine.states import Light, MenuItem, Mode, Network, State, Status
from firmware.page_screens import page_view_ink, rows_of
from firmware.pages import _ROWS, PARTS, page_view
from firmware.plate_entry import Entry
from firmware.sheet import LayoutError, label, words
from firmware.verdict_screen import page_ink
from firmware.views import result_view
from scripts.demonstration.mirror import page_texts
from tests import make_screens
from tests.hand import Hand, result_of
from tests.make_screens import (
    PAGE,
    SIZES,
    STORED,
    changed,
    difference_page,
    docs_page,
    picture,
    sheet_name,
    stored_picture,
)
from tests.screen_states import (
    AGES,
    CARS,
    NOW,
    NOW_MS,
    PLATES,
    make_credential,
    make_result,
    make_state,
    make_verdict,
    page_states,
    showing,
    stored_states,
)
from verifier.check import Observation
from verifier.officers import LoginFault, Officer
from verifier.plates import kinds_of
from verifier.recheck_queue import News
from verifier.roles import Answer, LimitedAnswer
from verifier.types import Hint, Month, Plate, PresentationMode, TagAuth, TagEvidence
from verifier.verdict import Action, Reason, Role, Tone, VerdictCode
from verifier.wording import LANGUAGES, REASONS, VERDICTS, Language, Text

SMALL, WIDE, COLOUR = SIZES
EVERYTHING = Status(
    battery=100, charging=True, data_as_of=NOW - timedelta(days=999), clock_doubted=True, demo=True,
    about=("markcheck 10.10.10", "a device name that somebody chose"),
)  # fmt: skip


def stands_in(image: Image.Image, part: Image.Image) -> bool:
    """Whether the part's pixels are somewhere in the picture, as they are or inverted."""
    whole, piece = (np.asarray(picture.convert("L")) > 127 for picture in (image, part))
    return any(_placed(whole, shown) for shown in (piece, ~piece))


def _placed(whole: np.ndarray, piece: np.ndarray) -> bool:
    rows, wanted = [row.tobytes() for row in whole], [row.tobytes() for row in piece]
    key = int(np.argmax(np.count_nonzero(np.diff(piece, axis=1), axis=1)))  # the row with most edges is nowhere else
    for top in range(len(rows) - len(wanted) + 1):
        left = rows[top + key].find(wanted[key])
        while left >= 0:
            cut = slice(left, left + piece.shape[1])
            if all(rows[top + number][cut] == row for number, row in enumerate(wanted)):
                return True
            left = rows[top + key].find(wanted[key], left + 1)
    return False


def says(image: Image.Image, text: str) -> bool:
    """Whether the text stands in the picture, in the font of lists."""
    return stands_in(image, words(text))


# --------------------------------------------------------------------------------------- everything fits


def test_every_page_has_its_rows_and_a_stored_picture() -> None:
    every = {*get_args(st.Page)}
    drawn = _ROWS.keys() | {st.Shown}  # a verdict has pages of its own
    assert drawn == every, f"in _ROWS of firmware/pages.py: {every ^ drawn}"
    stored = {type(state.page) for state in stored_states("zh").values()}
    assert stored == every, f"in page_states of tests/screen_states.py: {every ^ stored}"


def hardest(state: State) -> list[State]:
    """The same page with as much around it as there can be: test data and each fault, or an almost empty battery."""
    faults = [MappingProxyType({part: "broken"}) for part in (*PARTS, "of a part that nobody knows")]
    low = replace(EVERYTHING, battery=10, charging=False)
    full = [replace(state, status=EVERYTHING, network=Network.OFF, faults=fault) for fault in faults]
    return [state, *full, replace(state, status=low), replace(state, status=replace(EVERYTHING, demo=False))]


def pages(language: Language) -> list[State]:
    """Every page with every text that can stand on it."""
    states = list(page_states(language).values())
    base = make_state(language)
    states += [replace(base, page=st.Menu(cursor=at)) for at in range(len(MenuItem))]
    states += [replace(base, page=st.Info(title=item, busy=True)) for item in (MenuItem.SYNC, MenuItem.SELF_TEST)]
    states += [
        replace(base, page=st.Aim(since_ms=0, hint=hint, named=named)) for hint in Hint for named in (False, True)
    ]
    states += [
        replace(base, page=st.Login(refused=why, until_ms=wait_s and 1, wait_s=wait_s))
        for why in LoginFault for wait_s in (0, 60, 86_400)
    ]  # fmt: skip
    full = Digits(shortest=1, longest=12, text="110001110001")
    states += [
        replace(base, page=st.Login(number=replace(full, done=done), pin=replace(full, half=half)))
        for done in (False, True) for half in (None, 0, 1)
    ]  # fmt: skip
    guarded = replace(base, lock_ms=1, officer=Officer(officer_id=full.text, role=Role.OFFICER))
    states += [replace(guarded, page=st.Menu(cursor=at)) for at in range(len(guarded.menu))]
    states.append(replace(guarded, locked=True, page=st.Checkpoint(passed=9999, alarms=999), mode=Mode.CHECKPOINT))
    states.append(replace(base, page=st.Checkpoint(passed=9_999_999, alarms=99_999), mode=Mode.CHECKPOINT))
    for answer in Answer:
        limited = LimitedAnswer(answer=answer, month=Month(2027, 8), as_of=None, policy="test", age=None)
        for role in (Role.GATE, Role.RENTAL):
            by = replace(guarded, officer=Officer(officer_id="1", role=role))
            states.append(replace(by, page=st.Answer(number=1, answer=limited, since_ms=0)))
    for plate in ("京A12345", "京AD12345", "川XS1234应急", "粤ZF023港", "使123456"):
        entry = Entry("京", plate, done=True)
        typed = st.Typing(entry=entry, seen=Observation())
        states.append(replace(base, page=st.PurposeChoice(seen=Observation(), typed=typed)))
        states += [
            replace(base, page=st.Typing(entry=entry, seen=Observation(), kind=kind))
            for kind in (None, *kinds_of(plate))
        ]
    for code in VerdictCode:
        alarm = ev.Alarm(number=9, result=make_result(make_verdict(code, plate=PLATES[2])), lane=12)
        states.append(
            Hand(replace(base, page=st.Checkpoint(passed=9999, alarms=999), mode=Mode.CHECKPOINT)).happens(alarm).state
        )
    return states


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("size", SIZES)
def test_every_page_fits_with_everything_around_it(size: tuple[int, int], language: Language) -> None:
    modes, around = cycle(Mode), cycle(range(15))
    for state in pages(language):
        harder = hardest(state)
        for number in {0, 1, next(around), next(around), len(harder) - 2, len(harder) - 1}:
            view = page_view(replace(harder[number], mode=next(modes)), NOW, rows_of(size))
            assert page_view_ink(view, size).size == size


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("size", SIZES)
def test_every_fault_fits_every_kind_of_page(size: tuple[int, int], language: Language) -> None:
    states = page_states(language)
    for name in ("ready", "menu", "typing 0", "typing 2", "typed long", "about", "tags"):
        for state, mode in product(hardest(states[name]), Mode):
            assert page_view_ink(page_view(replace(state, mode=mode), NOW), size).size == size


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_glyph_of_any_page_is_missing(language: Language) -> None:
    texts, big = set(), set()
    for state in pages(language):
        for harder in hardest(state):
            for mode in Mode:
                view = page_view(replace(harder, mode=mode), NOW)
                texts.update(*view.texts, *view.title, *view.mode, *view.banner, *view.demo)
                big.update(*(row.text for row in view.rows if row.big))
    assert text_font().missing_glyphs("".join(texts)) == set()
    assert plate_font().missing_glyphs("".join(texts)) == set()
    assert headline_font(20).missing_glyphs("".join(big)) == set()


def test_an_unknown_size_of_panel_is_refused() -> None:
    for state in (make_state(), make_state(light=Light.SLEEP)):
        with pytest.raises(LayoutError, match="96x64"):
            draw(state, NOW, 0, (96, 64))


OUTSIDE = some.text(some.characters(exclude_categories=["Cs"]), max_size=60)


@settings(max_examples=60, deadline=None)
@given(OUTSIDE, some.sampled_from(SIZES), some.sampled_from(LANGUAGES))
def test_what_others_wrote_is_cut_and_never_costs_a_page(text: str, size: tuple[int, int], language: Language) -> None:
    base = make_state(language, status=replace(EVERYTHING, about=(text, text)))
    tag = ev.SeenTag(evidence=TagEvidence(auth=TagAuth.FAIL, tid="1", plate=Plate(text[:24], None)), rssi_dbm=-40)
    result = make_result(make_verdict(VerdictCode.FORGED, plate=text[:24]), similar=(Plate(text[:24], None),) * 4)
    alarm = ev.Alarm(number=9, result=result, lane=3)
    for page in (
        st.Choose(codes=(ev.SeenCode(b"", label=text), ev.SeenCode(b"", label="W" * 60))),
        st.Info(lines=(text, "W" * 60, text)),
        st.Info(),
        st.Tags(tags=(tag, tag)),
    ):
        draw(replace(base, page=page), NOW, 0, size)
    draw(Hand(replace(base, page=st.Checkpoint())).happens(alarm).state, NOW, 0, size)
    shown = showing(replace(base, mode=Mode.ACCIDENT), result, result)
    for sheet in range(4):
        draw(replace(shown, page=replace(shown.page, sheet=sheet)), NOW, 0, size)


# ------------------------------------------------------------------------------------ what always stands there


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_test_data_are_marked_on_every_page_and_verdict(language: Language, size: tuple[int, int]) -> None:
    marks = ("测试数据",) if language == "zh" else ("TEST DATA", "TEST")
    for name, state in stored_states(language).items():
        in_service = replace(state, status=replace(state.status, demo=False))
        demo = replace(state, status=replace(state.status, demo=True))
        shown = draw(replace(demo, light=Light.ON), NOW, 0, size)
        assert any(says(shown, mark) for mark in marks), name
        assert not says(draw(replace(in_service, light=Light.ON), NOW, 0, size), marks[0]), name


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_mode_source_and_age_stand_on_every_verdict_and_sheet(language: Language, size: tuple[int, int]) -> None:
    verdict = make_verdict(VerdictCode.EXPIRED, age=timedelta(days=5))
    offline, days = ("离线", "5天") if language == "zh" else ("OFF", "5d")
    for mode, words_ in zip(
        Mode,
        ("路检", "查牌", "标识", "卡口", "事故") if language == "zh" else ("ROAD", "FIND", "TAGS", "LANE", "ACC."),
        strict=True,
    ):
        for sheet in range(4):
            state = replace(showing(make_state(language), make_result(verdict), sheet=sheet), mode=mode)
            shown = draw(state, NOW, 0, size)
            long = {"ROAD": "ROADSIDE", "FIND": "LOOKUP", "LANE": "CHECKPT", "ACC.": "ACCIDENT"}.get(words_, words_)
            assert says(shown, words_) or says(shown, long), (mode, sheet)
            assert says(shown, offline), (mode, sheet)
            assert says(shown, days), (mode, sheet)


@pytest.mark.parametrize("size", SIZES)
def test_the_status_bar_has_four_icons_and_the_words_of_the_network(size: tuple[int, int]) -> None:
    states = page_states("zh")
    for name in ("ready", "menu", "tags", "history", "typing 2", "accident"):
        shown = draw(states[name], NOW, 0, size)
        for icon in (battery_icon(72, False), clock_icon(False), data_icon(), network_icon(True, False)):
            assert stands_in(shown, icon), name
        assert says(shown, "在线")
        assert says(shown, "8时")
    worn = draw(states["ready with everything"], NOW, 0, size)
    for icon in (battery_icon(41, False), clock_icon(True), network_icon(False, True)):
        assert stands_in(worn, icon)
    assert says(worn, "禁网")


@pytest.mark.parametrize("size", SIZES)
def test_each_car_of_an_accident_is_named(size: tuple[int, int]) -> None:
    crash = make_state("zh", mode=Mode.ACCIDENT)
    both = [make_result(make_verdict(code)) for code in (VerdictCode.VALID, VerdictCode.EXPIRED)]
    for car, name in enumerate(("甲车", "乙车")):
        for sheet in (0, 1):
            assert stands_in(draw(showing(crash, *both, car=car, sheet=sheet), NOW, 0, size), label(name))
    assert not says(draw(showing(crash, both[0]), NOW, 0, size), "甲车")


@pytest.mark.parametrize("size", SIZES)
def test_a_plate_to_compare_is_asked_for_beside_the_plate(size: tuple[int, int]) -> None:
    for code in VerdictCode:
        asked = make_verdict(code, actions=(Action.CONFIRM_PLATE,))
        shown = draw(showing(make_state("zh"), make_result(asked)), NOW, 0, size)
        assert stands_in(shown, label("核对号牌")) or stands_in(shown, label("核牌")), code


def test_the_provinces_are_all_to_be_seen_before_one_is_typed() -> None:
    state = page_states("zh")["typing 0"]
    for size in SIZES:
        shown = draw(state, NOW, 0, size)
        for text in ("津沪渝冀豫云辽黑", "湘皖鲁新", "苏浙赣鄂", "桂甘晋蒙", "陕吉闽贵", "粤青藏川宁琼使", "京"):
            assert says(shown, text)


# --------------------------------------------------------------------------------------------- tone and colour


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("code", VerdictCode)
def test_only_a_stop_lights_the_whole_panel(code: VerdictCode, size: tuple[int, int]) -> None:
    state = showing(make_state(), make_result(make_verdict(code)))
    for sheet in range(4):
        shown = draw(replace(state, page=replace(state.page, sheet=sheet)), NOW, 0, size).convert("L")
        lit = np.asarray(shown).mean() > 127 or (size == COLOUR and np.asarray(shown.crop((0, 50, *size))).mean() > 127)
        assert lit == (VERDICTS[code].tone is Tone.STOP)


def test_pass_is_green_only_where_the_verdict_passes() -> None:
    """A car that must not pass never shows green, and one that may never shows red."""
    for code in VerdictCode:
        shown = np.asarray(draw(showing(make_state(), make_result(make_verdict(code))), NOW, 0, COLOUR)).astype(int)
        red, green, blue = shown[..., 0], shown[..., 1], shown[..., 2]
        tone = VERDICTS[code].tone
        assert bool(((green > 2 * red + 60) & (green > blue + 60)).any()) == (tone is Tone.PASS), code
        assert bool(((red > 2 * green + 60) & (red > blue + 60)).any()) == (tone is Tone.STOP), code


def test_each_panel_has_its_own_depth() -> None:
    assert [picture(make_state(), size).mode for size in SIZES] == ["1", "L", "RGB"]


# ---------------------------------------------------------------------------------------------- time and light


@pytest.mark.parametrize("size", SIZES)
def test_a_quick_check_leaves_the_page_before_it(size: tuple[int, int]) -> None:
    ready = replace(page_states("zh")["ready"], mode=Mode.ROADSIDE)
    checking = replace(ready, page=st.Checking(number=1, since_ms=1_000, seen=(), behind=ready.page))
    before, early, late = (
        draw(state, NOW, ms, size)
        for state, ms in ((ready, 1_000), (checking, 999 + CHECKING_MS), (checking, 1_000 + CHECKING_MS))
    )
    assert before.tobytes() == early.tobytes() != late.tobytes()


@pytest.mark.parametrize("size", SIZES)
def test_a_sleeping_panel_is_black_but_the_last_page_stays(size: tuple[int, int]) -> None:
    for name, state in stored_states("zh").items():
        asleep = draw(replace(state, light=Light.SLEEP), NOW, 0, size).convert("L")
        assert (asleep.getbbox() is None) == (not isinstance(state.page, st.Off)), name


@pytest.mark.parametrize("size", SIZES)
def test_the_picture_moves_every_minute_and_loses_nothing(size: tuple[int, int]) -> None:
    moved = 0
    for state in stored_states("zh").values():
        if isinstance(state.page, st.Checking):
            continue
        shown = [draw(state, NOW, SHIFT_MS * minute, size) for minute in range(5)]
        assert shown[0].tobytes() == shown[4].tobytes()
        assert draw(state, NOW, SHIFT_MS - 1, size).tobytes() == shown[0].tobytes()
        ink = [np.asarray(one.convert("L")).astype(int).sum() for one in shown]
        if size != COLOUR:  # there the band of the tone stays in its place
            assert len(set(ink)) == 1
        moved += len({one.tobytes() for one in shown}) > 1
    assert moved > len(stored_states("zh")) // 3  # the fullest pages have no room


def test_a_sheet_that_a_late_answer_took_away_shows_the_last_one() -> None:
    result = make_result(make_verdict(VerdictCode.VALID, reasons=(), actions=()))
    view = result_view(result, "zh")
    assert page_ink(view, 3).tobytes() == page_ink(view, 0).tobytes()


@pytest.mark.parametrize("reasons", [0, 1, 3, 4, len(Reason)])
def test_the_machine_counts_as_many_sheets_as_there_are(reasons: int) -> None:
    cars, modes = (None, *CARS, (None, None, None)), (None, PresentationMode.STORED)
    for actions, similar, car, mode in product((0, 3, 4), (0, 2), cars, modes):
        result = make_result(
            make_verdict(VerdictCode.NOT_FOUND, reasons=tuple(Reason)[:reasons], actions=tuple(Action)[:actions]),
            None if car is None else make_credential(*car),
            (Plate("京A1234B", "02"),) * similar,
            mode,
        )
        assert sheets(result) == 1 + len(result_view(result, "zh").lists)


# ------------------------------------------------------------------------------------------------ stored pictures


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("size", SIZES)
def test_screens_are_the_stored_ones(size: tuple[int, int], language: Language, tmp_path_factory) -> None:
    names = changed(size, language)
    if names:
        page = difference_page(tmp_path_factory.mktemp("screens"), (size,))
        pytest.fail(f"{len(names)} changed, as {names[0]!r}: look at {page}, then python -m tests.make_screens")


def test_a_changed_screen_is_shown_beside_its_old_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    stored[sheet_name(SMALL, "zh")]["ready"] = "0" * 16
    del stored[sheet_name(SMALL, "zh")]["menu"]
    copy = tmp_path / "screens.json"
    copy.write_text(json.dumps(stored), encoding="utf-8")
    monkeypatch.setattr(make_screens, "STORED", copy)
    assert changed(SMALL, "zh") == ["ready", "menu"]
    page = difference_page(tmp_path / "out", (SMALL,)).read_text(encoding="utf-8")
    for name, kind in product(("ready", "menu"), ("old", "new", "difference")):
        file = f"screens-128x64-zh-{name}-{kind}.png"
        assert file in page
        with Image.open(tmp_path / "out" / file) as image:
            assert image.size == SMALL


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("size", SIZES)
def test_the_contact_sheets_show_the_stored_screens(size: tuple[int, int], language: Language) -> None:
    """Another FreeType may draw an edge otherwise, so a few pixels are let go."""
    for name, state in stored_states(language).items():
        old = stored_picture(name, size, language)
        assert old is not None, name
        difference = np.asarray(ImageChops.difference(old, picture(state, size).convert("RGB")).convert("L")) > 127
        assert difference.mean() < 0.02, name


def test_the_page_about_screens_is_the_made_one() -> None:
    assert PAGE.read_text(encoding="utf-8") == docs_page(), "run: python -m tests.make_screens"


def test_ages_of_the_page_and_the_bar_are_those_of_the_data() -> None:
    for age, text in zip(AGES[:4], ("刚刚", "8时", "5天", "12天"), strict=True):
        state = make_state("zh", page=st.Ready(), status=Status(data_as_of=NOW - age))
        assert page_view(state, NOW).age == text


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_change_of_a_verdict_fits_with_the_longest_plate_and_everything_around(
    language: Language, size: tuple[int, int]
) -> None:
    worn = replace(page_states(language)["ready with everything"], day=NOW.date())
    for then, (number, now) in product(VerdictCode, enumerate(VerdictCode)):
        plate = None if number % 6 == 5 else Plate(PLATES[number % 5], None)
        for tone in {VERDICTS[now].tone, Tone.CAUTION}:
            one = News(check_id="a", at=NOW - timedelta(days=9), then=then, now=now, tone=tone, plate=plate)
            page = st.NewsList(news=(one,) * 200, cursor=199, since_ms=0)
            assert draw(replace(worn, page=page), NOW, NOW_MS, size)
    for count in (1, 200):
        draw(replace(worn, news=(one,) * count), NOW, NOW_MS, size)
        draw(replace(worn, news=(one,) * count, counts={VerdictCode.VALID: 9999}), NOW, NOW_MS, size)


@pytest.mark.parametrize("code", [code for code in VerdictCode if VERDICTS[code].tone in (Tone.PASS, Tone.NOTE)])
@pytest.mark.parametrize("language", LANGUAGES)
def test_an_alarm_for_a_suspected_copy_says_why_and_never_that_the_car_is_in_order(
    code: VerdictCode, language: Language
) -> None:
    raised = result_of("x", code, tone=Tone.CAUTION, reasons=[Reason.DATA_STALE, Reason.TAG_AUTH_FAILED])
    doubted = result_of("y", code, tone=Tone.CAUTION)
    lane = replace(make_state(language), page=st.Checkpoint(), mode=Mode.CHECKPOINT)
    for result, words_of in ((raised, REASONS[Reason.TAG_AUTH_FAILED]), (doubted, None)):
        alarmed = Hand(lane).happens(ev.Alarm(number=-1, result=result, lane=2)).state
        listed = replace(alarmed, page=st.HistoryList())
        for state in (alarmed, listed):
            texts = page_view(state, NOW).texts
            assert not {VERDICTS[code].text.in_(language), VERDICTS[code].headline.in_(language)} & set(texts)
            assert [draw(state, NOW, 0, size) for size in SIZES]
        opened = Hand(listed).press("ok").state
        words = result_view(result, language)
        assert (words.headline, words.tone) == (Text("存疑", "DOUBT").in_(language), Tone.CAUTION)
        assert not {VERDICTS[code].text.in_(language), VERDICTS[code].headline.in_(language)} & {words.text}
        assert set(page_texts(opened, NOW)) >= {words.headline, words.text}
        assert [draw(opened, NOW, 0, size) for size in SIZES]
        if words_of is not None:
            assert words_of.in_(language) in page_view(alarmed, NOW).texts
            assert words.text == words_of.in_(language)
