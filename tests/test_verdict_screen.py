"""Words and pixels of the officer's screens: everything fits, nothing is missing, nothing hostile gets out."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace
from datetime import timedelta
from itertools import combinations_with_replacement, cycle, product, zip_longest

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops

from firmware import fonts
from firmware.draw import verdict_picture
from firmware.fonts import FontFile, FontMissingError, headline_font, plate_font, text_font
from firmware.icons import ICON_PX, draw_icon
from firmware.pages import MODES, MODES_SHORT, TEST
from firmware.sheet import LayoutError, Sheet
from firmware.verdict_screen import PANEL, Around, verdict_ink
from firmware.views import LIST_COLUMNS, SHORT_ACTIONS, columns, printable, terminal_card, verdict_view
from tests.make_screens import SIZES
from tests.screen_states import AGES, CARS, NOW, PLATES, make_credential, make_verdict, pages_ink
from verifier.plates import LETTERS, PLATE_KINDS, PROVINCES
from verifier.types import Month, Plate, PresentationMode
from verifier.vehicle_words import COLOUR_LABEL, COLOURS, TYPE_LABEL, USE_LABEL, USE_NATURES, VEHICLE_TYPES
from verifier.verdict import Action, Grade, Reason, Tone, VerdictCode
from verifier.wording import ACTIONS, LANGUAGES, REASONS, VERDICTS, Language

HEADLINE_LEFT = 30
CODES_AND_LANGUAGES = list(product(VerdictCode, LANGUAGES))


def view_of(code: VerdictCode, language: Language = "zh", **facts: object):
    return verdict_view(make_verdict(code, **facts), now=NOW, language=language)


def same(a: Image.Image, b: Image.Image) -> bool:
    return ImageChops.difference(a.convert("L"), b.convert("L")).getbbox() is None


# ---------------------------------------------------------------------------------------------- words


def test_the_four_lines_of_the_design() -> None:
    view = view_of(VerdictCode.VALID, actions=(Action.RELEASE,))
    assert view.lines == ("检验有效", "京A·12345", "至2027年08月", "放行 8小时前 B")
    mismatch = view_of(VerdictCode.MISMATCH, grade=Grade.ONLINE, age=timedelta(seconds=2), actions=(Action.CHECK_VIN,))
    assert mismatch.lines[3] == "核车架号 在线 A"
    old = view_of(
        VerdictCode.EXPIRED_UNCONFIRMED,
        grade=Grade.STALE_CACHE,
        age=timedelta(days=5),
        month=Month(2026, 6),
        actions=(Action.ONLINE_RECHECK,),
    )
    assert old.lines == ("疑似逾期待核实", "京A·12345", "至2026年06月", "联网复核 5天前 C")


def test_the_four_lines_in_english() -> None:
    view = view_of(VerdictCode.VALID, "en", actions=(Action.RELEASE,))
    assert view.lines == ("VALID", "京A·12345", "TO 2027-08", "RELEASE 8h AGO B")


@pytest.mark.parametrize(("code", "language"), CODES_AND_LANGUAGES)
def test_every_line_fits_eight_full_columns(code: VerdictCode, language: Language) -> None:
    ages = (*AGES, timedelta(hours=47), timedelta(days=999), timedelta(days=1000), timedelta(days=-1))
    for number, (grade, age, action) in enumerate(product((Grade.ONLINE, Grade.NOTHING), ages, Action)):
        plate = PLATES[number % len(PLATES)]
        lines = view_of(code, language, plate=plate, grade=grade, age=age, actions=(action,)).lines
        assert all(columns(line) <= 16 for line in lines), lines
        assert lines[3].endswith(f" {grade}")


def test_short_actions_are_complete_and_short() -> None:
    assert set(SHORT_ACTIONS) == set(Action)
    for text in SHORT_ACTIONS.values():
        assert columns(text.zh) <= 8
        assert columns(text.en) <= 9


AGE_WORDS = [
    (None, "无数据", "--", "NO DATA", "--"),
    (timedelta(days=-1), "--", "--", "--", "--"),
    (timedelta(seconds=-301), "--", "--", "--", "--"),
    (timedelta(seconds=-2), "刚刚", "刚刚", "NOW", "NOW"),
    (timedelta(minutes=59), "刚刚", "刚刚", "NOW", "NOW"),
    (timedelta(hours=1), "1小时前", "1时", "1h AGO", "1h"),
    (timedelta(hours=47, minutes=59), "47小时前", "47时", "47h AGO", "47h"),
    (timedelta(hours=48), "2天前", "2天", "2d AGO", "2d"),
    (timedelta(days=999), "999天前", "999天", "999d AGO", "999d"),
    (timedelta(days=1000), "2年前", "2年", "2y AGO", "2y"),
]


@pytest.mark.parametrize(("age", "zh", "zh_short", "en", "en_short"), AGE_WORDS)
def test_ages(age: timedelta | None, zh: str, zh_short: str, en: str, en_short: str) -> None:
    chinese, english = (view_of(VerdictCode.VALID, language, age=age) for language in LANGUAGES)
    assert (chinese.age, chinese.age_short) == (zh, zh_short)
    assert (english.age, english.age_short) == (en, en_short)


@pytest.mark.parametrize("grade", Grade)
def test_online_exactly_at_grade_a(grade: Grade) -> None:
    assert (view_of(VerdictCode.VALID, grade=grade).source == "在线") == (grade is Grade.ONLINE)
    assert (view_of(VerdictCode.VALID, "en", grade=grade).source == "ONLINE") == (grade is Grade.ONLINE)


def test_a_verdict_without_facts() -> None:
    view = view_of(VerdictCode.UNDECIDED, plate=None, month=None, age=None, grade=Grade.NOTHING, reasons=(), actions=())
    assert view.lines == ("无法判定", "--·-----", "有效期未知", "-- 无数据 E")
    assert len(pages_ink(view)) == 1


def test_what_the_credential_says_of_the_car_is_there_to_compare() -> None:
    chinese, english = (
        verdict_view(make_verdict(VerdictCode.VALID), now=NOW, language=language, credential=make_credential(*CARS[0]))
        for language in LANGUAGES
    )
    assert (chinese.vehicle_title, chinese.vehicle) == ("证载", ("车型 小型轿车", "颜色 白/黑", "用途 非营运"))
    assert english.vehicle == ("TYPE small car", "BODY white/black", "USE non-commercial")
    assert view_of(VerdictCode.VALID).vehicle == ()


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_word_for_a_car_fits_its_page(language: Language) -> None:
    letters = [*COLOURS, "W"]
    colours = ["".join(some) for n in (1, 2, 3) for some in combinations_with_replacement(letters, n)]
    verdict, room = make_verdict(VerdictCode.REVOKED), PANEL[0] - 2
    for row, mode in zip(zip_longest([*VEHICLE_TYPES, "W99"], colours, [*USE_NATURES, "W"]), cycle(PresentationMode)):
        view = verdict_view(verdict, now=NOW, language=language, credential=make_credential(*row), mode=mode)
        assert len(view.vehicle) == sum(part is not None for part in row) + 1
        assert all(columns(line) <= LIST_COLUMNS and "…" not in line for line in view.vehicle)
        assert all(text_font().draw(line).width <= room for line in view.vehicle), view.vehicle


def test_the_car_has_the_last_page_of_its_own() -> None:
    verdict = make_verdict(VerdictCode.VALID)
    plain = pages_ink(verdict_view(verdict, now=NOW, language="zh"))
    cars = [pages_ink(verdict_view(verdict, now=NOW, language="zh", credential=make_credential(*car))) for car in CARS]
    assert all(len(pages) == len(plain) + 1 for pages in cars)
    assert all(same(plain[0], pages[0]) for pages in cars)
    assert len({pages[-1].tobytes() for pages in cars}) == len(CARS)


def test_reasons_and_actions_keep_their_order() -> None:
    view = view_of(VerdictCode.VALID, reasons=(Reason.ID_WEAK, Reason.CTP_LAPSED, Reason.ID_WEAK))
    assert view.reasons == ("号牌未经确认", "交强险已过期")
    assert view.actions == ("核对车架号", "联系中心核实")


# --------------------------------------------------------------------------------------------- pixels


ACTIONS_TO_FIT = ((Action.CONFIRM_PLATE,), (Action.NO_PENALTY_NOT_SHOWN,))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("code", "language"), CODES_AND_LANGUAGES)
def test_every_verdict_fits_with_every_plate_grade_and_age(
    code: VerdictCode, language: Language, size: tuple[int, int]
) -> None:
    mode = (MODES["accident"].in_(language), MODES_SHORT["accident"].in_(language))[
        language == "en" and size == PANEL :
    ]
    demo = tuple(text.in_(language) for text in TEST)
    around = (Around(), Around(mode=mode, car=("甲车", "甲") if language == "zh" else ("CAR A", "A"), demo=demo))
    pairs = [*zip(Grade, AGES, strict=False), (Grade.SIGNATURE_ONLY, AGES[4])]
    for number, (plate, (grade, age)) in enumerate(product(PLATES, pairs)):
        month = None if number % 3 == 1 else Month(2027, 8)
        actions = ACTIONS_TO_FIT[number // 5 % 2]
        view = view_of(code, language, plate=plate, grade=grade, age=age, month=month, actions=actions)
        assert verdict_ink(view, size, around[number % 2]).size == size


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_reason_and_action_fits_its_page(language: Language, size: tuple[int, int]) -> None:
    everything = view_of(VerdictCode.VALID, language, age=AGES[4], reasons=tuple(Reason), actions=tuple(Action))
    demo = tuple(text.in_(language) for text in TEST)
    mode = (MODES["roadside"].in_(language), MODES_SHORT["roadside"].in_(language))
    around = Around(mode=mode, car=("甲车", "甲") if language == "zh" else ("CAR A", "A"), demo=demo)
    pages = pages_ink(everything, size, around)
    assert len(pages) == 1 + -(-len(Reason) // 3) + -(-len(Action) // 3)


def test_plates_that_a_typed_one_may_be_stand_with_the_reasons() -> None:
    similar = (Plate("京A1234B", "02"), Plate("京A12B45", "02"))
    view = verdict_view(
        make_verdict(VerdictCode.NOT_FOUND, reasons=(Reason.ID_WEAK,)), now=NOW, language="zh", similar=similar
    )
    assert view.lists[0] == ("原因", ("号牌未经确认", "近似 京A·1234B", "近似 京A·12B45"))
    assert "近似 京A·1234B" in terminal_card(view, colour=False)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_plate_to_compare_is_asked_for_in_words(language: Language) -> None:
    assert view_of(VerdictCode.VALID, language).compare == ()
    asked = view_of(VerdictCode.VALID, language, actions=(Action.CONFIRM_PLATE,))
    assert asked.compare[0] == SHORT_ACTIONS[Action.CONFIRM_PLATE].in_(language)
    for size in SIZES:
        assert not same(verdict_picture(asked, size), verdict_picture(replace(asked, compare=()), size))


@pytest.mark.parametrize(
    ("hours", "long", "short"),
    [
        (0, "--", "--"),
        (5, ">5小时前", ">5时"),
        (72, ">3天前", ">3天"),
        (24 * 400, ">99天前", ">99天"),
        (24 * 1100, ">3年前", ">3年"),
    ],
)
def test_an_age_under_a_suspect_clock_is_shown_as_the_least_that_it_is(hours: int, long: str, short: str) -> None:
    age = timedelta(hours=hours)
    suspect = view_of(VerdictCode.WANTED, age=age, reasons=(Reason.CLOCK_SUSPECT,))
    assert (suspect.age, suspect.age_short) == (long, short)
    behind = view_of(VerdictCode.WANTED, age=timedelta(hours=-1), reasons=(Reason.CLOCK_SUSPECT,))
    assert behind.age == "--"
    assert ">" not in view_of(VerdictCode.WANTED, age=age).age


def test_every_fact_is_on_the_verdict_page() -> None:
    """Changing one fact changes the picture: none of them is left out in any arrangement."""
    changes: dict[str, dict[str, object]] = {
        "source": {"source": "在线", "source_short": "在线"},
        "age": {"age": "9天前", "age_short": "9天"},
        "grade": {"grade": "C"},
        "plate": {"plate": "沪A·12345"},
        "month": {"months": ("2026-01", "26-01")},
        "text": {"text": "检验无效"},
    }
    for size, code in product(SIZES, VerdictCode):
        view = view_of(code, grade=Grade.SIGNATURE_ONLY, age=AGES[2])
        for name, change in changes.items():
            changed = replace(view, **change)
            assert not same(verdict_picture(view, size), verdict_picture(changed, size)), (size, code, name)


plate_glyphs = st.sampled_from(PROVINCES + LETTERS + "0123456789使领港澳学挂警应急")


@settings(max_examples=60, deadline=None)
@given(st.text(plate_glyphs, max_size=24), st.sampled_from(CODES_AND_LANGUAGES), st.sampled_from(AGES))
def test_a_plate_of_any_length_never_costs_the_verdict(
    plate: str, code_and_language: tuple[VerdictCode, Language], age: timedelta | None
) -> None:
    code, language = code_and_language
    verdict_picture(view_of(code, language, plate=plate, age=age, grade=Grade.SIGNATURE_ONLY))


def test_stop_is_the_inverted_panel_and_icons_differ_in_shape() -> None:
    for code in VerdictCode:
        corner = verdict_picture(view_of(code)).getpixel((127, 63))
        assert (corner == 255) == (VERDICTS[code].tone is Tone.STOP), code
    icons = [draw_icon(tone, VerdictCode.VALID) for tone in Tone] + [draw_icon(Tone.CAUTION, VerdictCode.UNDECIDED)]
    assert len({icon.tobytes() for icon in icons}) == 5
    assert all(icon.size == (ICON_PX, ICON_PX) for icon in icons)


@pytest.mark.parametrize("code", VerdictCode)
def test_the_chinese_headline_is_28_pixels_high(code: VerdictCode) -> None:
    """An ordinary plate never pushes the headline to a smaller size, in whatever mode, with test data or not."""
    for age, mode, plate in product(AGES[1::2], list(MODES)[:2], ("京A12345", "京AD12345")):
        around = Around(mode=(MODES[mode].zh, MODES_SHORT[mode].zh))
        view = view_of(code, age=age, grade=Grade.SIGNATURE_ONLY, plate=plate)
        drawn = headline_font(28).draw(VERDICTS[code].headline.zh)
        picture = verdict_ink(view, PANEL, around)
        ink = drawn.getbbox()
        left, right, rows = HEADLINE_LEFT + ink[0], HEADLINE_LEFT + ink[2], ink[3] - ink[1]
        there = picture.crop((left, (28 - rows) // 2, right, (28 - rows) // 2 + rows))
        assert same(there, drawn.crop(ink)), (age, mode, plate)


def test_text_that_does_not_fit_is_refused() -> None:
    sheet = Sheet(PANEL)
    sheet.place(Image.new("1", (20, 20)), 10, 10)
    for left, top in ((-1, 40), (109, 40), (0, 50), (28, 29), (31, 10)):
        with pytest.raises(LayoutError):
            sheet.place(Image.new("1", (20, 20)), left, top)
    sheet.place(Image.new("1", (20, 20)), 32, 10)


def test_too_long_a_text_and_another_panel_are_refused() -> None:
    view = view_of(VerdictCode.VALID)
    with pytest.raises(LayoutError):
        verdict_picture(replace(view, text="检验有效检验有效检验有效"))
    with pytest.raises(LayoutError):
        pages_ink(replace(view, reasons=("检验有效检验有效检验有效",)))
    with pytest.raises(LayoutError, match="100x50"):
        verdict_picture(view, (100, 50))


# ---------------------------------------------------------------------------------------------- fonts


def test_no_glyph_is_missing() -> None:
    headlines = "".join("".join(words.headline) for words in VERDICTS.values())
    texts = "".join("".join(text) for table in (REASONS, ACTIONS, SHORT_ACTIONS) for text in table.values())
    texts += "".join("".join(words.text) for words in VERDICTS.values())
    for code, language, age in product(VerdictCode, LANGUAGES, AGES):
        view = view_of(code, language, age=age)
        texts += "".join((*view.lines, view.source, view.age_short, *view.months, *view.compare))
        texts += view.reasons_title + view.actions_title + view.vehicle_title
    for table in (VEHICLE_TYPES, COLOURS, USE_NATURES):
        texts += "".join("".join(text) for text in table.values())
    texts += "".join("".join(label) for label in (TYPE_LABEL, COLOUR_LABEL, USE_LABEL)) + "/"
    plates = PROVINCES + LETTERS + "IO0123456789-使领港澳学挂警应急…"
    assert headline_font(28).missing_glyphs(headlines) == set()
    assert text_font().missing_glyphs(texts + "0123456789") == set()
    assert plate_font().missing_glyphs(plates) == set()
    assert headline_font(22).missing_glyphs(plates) == set()
    assert text_font().missing_glyphs("".join(PLATE_KINDS.values())) == set()


def test_a_missing_glyph_is_noticed() -> None:
    for font in (text_font(), plate_font(), headline_font(20)):
        assert font.missing_glyphs("有 \ue123") == {"\ue123"}


@pytest.mark.parametrize("font", [fonts.TEXT, fonts.PLATE, fonts.HEADLINE], ids=lambda font: font.package)
def test_a_missing_font_names_its_package(font: FontFile, tmp_path) -> None:
    nowhere = replace(font, paths=(str(tmp_path / "none.ttf"),))
    with pytest.raises(FontMissingError, match=f"apt-get install {font.package}"):
        fonts.find(nowhere)


def test_a_broken_font_names_its_package(tmp_path) -> None:
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    with pytest.raises(FontMissingError, match="reinstall some-package"):
        fonts._load(FontFile("Some Font", "some-package", (str(tmp_path / "broken.ttf"),)), 12, 0)


# ------------------------------------------------------------------------------------------- terminal

HOSTILE = [
    ("\x1b[31m京A12345", "京A12345"),
    ("京A\x1b]0;title\x0712345", "京A12345"),
    ("京A\x9b2J12345", "京A12345"),
    ("\x1bPq#0\x1b\\京A", "京A"),
    ("京A\u202e54321\u202c", "京A54321"),
    ("京\u2066A\u2069\u200f1\u200b2", "京A12"),
    ("京A\r\n\x00\x071", "京A1"),
    ("京A\u03011", "京A1"),
]


@pytest.mark.parametrize(("text", "shown"), HOSTILE)
def test_printable_keeps_only_what_prints(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(max_size=200), st.integers(2, 40))
def test_printable_is_bounded_and_stays_as_it_is(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert columns(shown) <= limit
    assert printable(shown, limit) == shown
    assert all(unicodedata.category(char)[0] not in "C" for char in shown)


@pytest.mark.parametrize("text", [text for text, _ in HOSTILE])
def test_a_hostile_plate_is_harmless_on_card_and_panel(text: str) -> None:
    view = view_of(VerdictCode.VALID, plate=text[:24])
    card = terminal_card(view, colour=False)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", card)
    verdict_picture(view)
    hostile = replace(view, plate=text * 20, reasons=(text,))
    assert {columns(line) for line in terminal_card(hostile, colour=False).split("\n")} == {40}


@pytest.mark.parametrize(("code", "language"), CODES_AND_LANGUAGES)
def test_the_card_is_a_box_with_everything_in_it(code: VerdictCode, language: Language) -> None:
    view = view_of(code, language)
    card = terminal_card(view, colour=False)
    assert {columns(line) for line in card.split("\n")} == {40}
    for words in (view.headline, *view.lines, view.source, *view.reasons, *view.actions):
        assert words in card
    coloured = terminal_card(view, colour=True)
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == card
    assert coloured != card


def test_the_card_describes_the_car_of_the_credential() -> None:
    view = view_of(VerdictCode.VALID)
    assert "证载" not in terminal_card(view, colour=False)
    card = terminal_card(replace(view, vehicle=("车型 小型轿车", "颜色 白/黑")), colour=False)
    assert {columns(line) for line in card.split("\n")} == {40}
    assert card.split("\n")[-3].startswith("│ 证载     车型 小型轿车 ")
    assert card.split("\n")[-2].startswith("│          颜色 白/黑 ")


def test_the_tone_tells_the_colour() -> None:
    cards = [terminal_card(replace(view_of(VerdictCode.VALID), tone=tone), colour=True) for tone in Tone]
    assert len({card[:6] for card in cards}) == len(Tone)
