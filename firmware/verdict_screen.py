"""A verdict's words as ink on a sheet, for every size of panel. No rules live here, only places.

The verdict page has an icon with the headline, the plate, and the verdict's text; every other fact is packed into the
lines beside and below them. Where all does not fit, facts take shorter forms and the headline a smaller size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image

from firmware.icons import LIT, draw_icon
from firmware.sheet import (
    GAP,
    LINE,
    UNIFONT_PX,
    LayoutError,
    Piece,
    Sheet,
    badge,
    headline,
    label,
    pack,
    plate_picture,
    words,
)
from firmware.views import LISTED, VerdictView
from verifier.verdict import Tone, VerdictCode

PANEL = (128, 64)


@dataclass(frozen=True, slots=True)
class Around:
    """What stands on a verdict's pages and is no part of it, each in its forms: mode, which of two cars, test data."""

    mode: tuple[str, ...] = ()
    car: tuple[str, ...] = ()
    demo: tuple[str, ...] = ()


_NOTHING = Around()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Places on one size of panel, in pixels. `lines` are what facts may stand in: top, and what stands before it."""

    icon: tuple[int, int]  # size and top
    headline: tuple[int, int, int]  # left, top, rows
    headline_px: tuple[int, ...]  # the largest that fits is taken
    plate: tuple[int, int]  # top, rows
    plate_px: tuple[int, ...]
    left: int  # of plate and text
    text_top: int
    lines: Mapping[str, tuple[int, str]]


_TALL: dict[str, tuple[int, str]] = {
    "head1": (0, "headline"), "head2": (LINE, "headline"), "plate1": (26, "plate"), "plate2": (39, "plate"),
    "text": (52, "text"),
}  # fmt: skip
_LOW: dict[str, tuple[int, str]] = {
    "under": (13, "icon"),
    **{name: _TALL[name] for name in ("plate1", "plate2", "text")},
}
_LOWER: dict[str, tuple[int, str]] = {
    "under": (15, "icon"), "plate1": (27, "plate"), "plate2": (39, "plate"), "text": (52, "text"),
}  # fmt: skip
_SQUARE: dict[str, tuple[int, str]] = {
    "top": (0, ""), "head1": (16, "headline"), "head2": (31, "headline"), "text": (50, "text"),
    "plate1": (71, "plate"), "low1": (89, ""), "low2": (102, ""), "low3": (115, ""),
}  # fmt: skip

_LAYOUTS: dict[tuple[int, int], tuple[_Layout, ...]] = {
    (128, 64): (
        _Layout(
            icon=(28, 0), headline=(30, 0, 28), headline_px=(28, 24, 20), plate=(28, 24), plate_px=(UNIFONT_PX,),
            left=0, text_top=53, lines=_TALL,
        ),
        _Layout(  # long Latin words: a line of facts under a small headline
            icon=(28, 0), headline=(30, 0, LINE), headline_px=(16,), plate=(28, 24), plate_px=(UNIFONT_PX,),
            left=0, text_top=53, lines=_LOW,
        ),
        _Layout(  # the same for Chinese, where many facts meet a long plate
            icon=(28, 0), headline=(30, 0, 16), headline_px=(16,), plate=(28, 24), plate_px=(UNIFONT_PX,),
            left=0, text_top=53, lines=_LOWER,
        ),
    ),
    (256, 64): (
        _Layout(
            icon=(56, 4), headline=(62, 0, 28), headline_px=(28, 24), plate=(28, 24), plate_px=(22, UNIFONT_PX),
            left=62, text_top=53, lines=_TALL,
        ),
    ),
    (128, 128): (
        _Layout(
            icon=(32, 16), headline=(35, 14, 36), headline_px=(36, 32, 30, 28, 24, 20, 16), plate=(64, 26),
            plate_px=(24, 20, UNIFONT_PX), left=0, text_top=51, lines=_SQUARE,
        ),
    ),
}  # fmt: skip

# Where a fact stands best, second best, … ; a line that a panel does not have is passed over.
_MODE = ("top", "head2", "plate2", "under", "plate1", "head1")
_SOURCE = ("top", "head1", "under", "plate2", "text", "plate1", "head2")
_AGE = ("top", "text", "under", "plate2", "plate1", "head2", "head1")
_GRADE = ("top", "head1", "under", "head2", "text", "plate1", "plate2")
_CAR = ("head2", "head1", "plate2", "plate1", "under", "low3", "low1")
_MONTH = ("low1", "plate1", "plate2", "under", "head2", "text")
_COMPARE = ("low2", "plate2", "plate1", "head2", "head1", "under")
_DEMO = ("low3", "plate2", "plate1", "under", "text", "head2", "head1")
_ACTION = ("low2", "plate2", "plate1")
_REASON = ("low3", "plate2", "plate1")


def verdict_ink(view: VerdictView, size: tuple[int, int] = PANEL, around: Around = _NOTHING) -> Image.Image:
    """The verdict page: icon and headline, plate and month, verdict text; grade, source, age and mode always.

    Mode "L", 255 where there is ink; `firmware.draw` makes the panel's colours of it.
    """
    problem = LayoutError("no layout")
    for pieces in (_pieces(view, around), _pieces(view, around, tight=True)):
        for layout, plate, word in _largest_first(view, size):
            sheet = Sheet(size)
            try:
                _laid_out(sheet, layout, view, plate, word, pieces)
            except LayoutError as exc:
                problem = exc
            else:
                return sheet.picture
    raise problem


def page_ink(view: VerdictView, number: int, size: tuple[int, int] = PANEL, around: Around = _NOTHING) -> Image.Image:
    """The verdict page, or one of those of reasons, actions and the vehicle (`VerdictView.lists`), from 1.

    A number behind the last, which a late answer may leave, is the last.
    """
    number = min(number, len(view.lists))
    return _list_page(view, number, size, around) if number else verdict_ink(view, size, around)


def band(size: tuple[int, int], page: int) -> tuple[int, int, int, int]:
    """The part that has the tone's colour, where there are colours: the headline's, or a list's title."""
    if page:
        return (0, 0, size[0], LINE - 1)
    _, top, rows = _layouts(size)[0].headline
    return (0, top, size[0], top + rows)


def _layouts(size: tuple[int, int]) -> tuple[_Layout, ...]:
    if size not in _LAYOUTS:
        raise LayoutError(f"no layout for a panel of {size[0]}x{size[1]}")
    return _LAYOUTS[size]


# --------------------------------------------------------------------------------------------- the verdict page


def _largest_first(view: VerdictView, size: tuple[int, int]) -> Iterator[tuple[_Layout, Image.Image, Image.Image]]:
    """Plates and headlines from large to small; the plate gives way first, for it stays legible."""
    grey = size != PANEL
    for layout in _layouts(size):
        plates = [plate_picture(view.plate, px, grey=grey and px != UNIFONT_PX) for px in layout.plate_px]
        for px in layout.headline_px:
            word = _ink_rows(headline(view.headline, px, grey=grey))
            yield from ((layout, plate, word) for plate in plates)


def _ink_rows(word: Image.Image) -> Image.Image:
    """The word without the empty rows above and below its ink."""
    box = word.getbbox()
    return word if box is None else word.crop((0, box[1], word.width, box[3]))


def _laid_out(
    sheet: Sheet, layout: _Layout, view: VerdictView, plate: Image.Image, word: Image.Image, pieces: list[Piece]
) -> None:
    """Put everything on the sheet; LayoutError where it does not fit."""
    width = sheet.picture.width
    text = words(view.text)
    icon = _icon(view.tone, view.code, layout.icon[0])
    left, top, rows = layout.headline
    sheet.place(icon, 0, layout.icon[1])
    if word.height > rows:
        raise LayoutError("headline too high")
    sheet.place(word, left, top + (rows - word.height) // 2)
    sheet.place(plate, layout.left, layout.plate[0] + (layout.plate[1] - plate.height) // 2)
    sheet.place(text, layout.left, layout.text_top)
    ends = {
        "": 0, "icon": icon.width + GAP, "headline": left + word.width + GAP, "plate": layout.left + plate.width + GAP,
        "text": layout.left + text.width + GAP,
    }  # fmt: skip
    room = {name: width - ends[before] for name, (_, before) in layout.lines.items()}
    for name, pictures in pack(pieces, room).items():
        _line(sheet, layout.lines[name][0], pictures, whole=not layout.lines[name][1])


def _line(sheet: Sheet, top: int, pictures: list[Image.Image], *, whole: bool) -> None:
    """Facts from the right end; in a line of their own the first one stands at the left."""
    rows = min(LINE, sheet.picture.height - top)
    if whole:
        sheet.from_right(top, pictures[:1], rows=rows, right=pictures[0].width)
        pictures = pictures[1:]
    sheet.from_right(top, pictures, rows=rows)


def _pieces(view: VerdictView, around: Around, *, tight: bool = False) -> list[Piece]:
    """Every fact in its forms. The order is that of importance where room is short.

    Where all of them meet (test data, one of two cars, a plate to compare, the longest plates), the month may
    be left out, and car and request are cut to one character, which reads less well.
    """
    rows = LINE - 1 if tight else LINE
    pieces = [
        Piece(tuple(words(text) for text in around.mode), _MODE),
        Piece((words(view.source), words(view.source_short)), _SOURCE),
        Piece(tuple(label(text, rows) for text in view.compare[: None if tight else 2]), _COMPARE),
        Piece((words(view.age), words(view.age_short)), _AGE),
        Piece((badge(view.grade),), _GRADE),
        Piece(tuple(label(text, rows) for text in around.car[: None if tight else 1]), _CAR),
        Piece(tuple(words(text) for text in view.months), _MONTH, optional=tight),
        Piece(tuple(words(text) for text in around.demo), _DEMO),
    ]
    hints = [*([] if view.compare else _optional(_first_action(view), _ACTION)), *_optional(view.reasons[:1], _REASON)]
    return [*(piece for piece in pieces if piece.forms), *hints]


def _first_action(view: VerdictView) -> tuple[str, ...]:
    return (view.actions[0], view.first_action) if view.actions else ()


def _optional(texts: tuple[str, ...], lines: tuple[str, ...]) -> list[Piece]:
    return [Piece(tuple(words(text) for text in texts), lines, optional=True)] if texts else []


@lru_cache(maxsize=32)
def _icon(tone: Tone, code: VerdictCode, px: int) -> Image.Image:
    return draw_icon(tone, code, px)


# ------------------------------------------------------------------------------------- pages of lists


def _list_page(view: VerdictView, number: int, size: tuple[int, int], around: Around) -> Image.Image:
    """Title, source, age and grade over up to three lines; below them mode, car and the number of the page."""
    title, texts = view.lists[number - 1]
    sheet = Sheet(size)
    sheet.place(words(title), 0, 0)
    sheet.from_right(0, [words(fact) for fact in (view.source, view.age_short, view.grade)])
    sheet.place(Image.new("1", (size[0], 1), LIT), 0, LINE - 2)
    bottom = size[1] - LINE
    pitch = (bottom - LINE + 1) // LISTED
    for row, text in enumerate(texts):
        sheet.place(_list_line(text, size[0] - 4, pitch), 2, LINE + row * pitch + (pitch - LINE) // 2)
    pages = words(f"{number + 1}/{1 + len(view.lists)}")
    foot = [
        Piece(tuple(words(text) for text in around.mode), ("foot",)),
        Piece(tuple(label(text) for text in around.car), ("foot",)),
        Piece(tuple(words(text) for text in around.demo), ("foot",)),
        Piece((pages,), ("foot",)),
    ]
    packed = pack([piece for piece in foot if piece.forms], {"foot": size[0] - GAP})
    _line(sheet, bottom, packed["foot"], whole=bool(around.mode))
    return sheet.picture


def _list_line(text: str, room: int, rows: int) -> Image.Image:
    """In the plate's larger font where it fits."""
    large = plate_picture(text)
    return large if rows > UNIFONT_PX and large.width <= room else words(text)
