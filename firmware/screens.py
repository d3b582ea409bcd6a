"""A verdict's words as pixels of the 128 x 64 panel: 0 dark, 1 lit. No rules live here, only places.

Nothing is ever clipped: a text that does not fit or would touch another one raises `LayoutError`. Where texts
are long there are several arrangements; the first one that fits is taken, and each of them shows everything.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

from PIL import Image, ImageChops

from firmware.fonts import headline_font, plate_font, text_font
from firmware.icons import ICON_PX, LIT, draw_icon
from firmware.views import VerdictView
from verifier.verdict import Tone

PANEL = (128, 64)

_HEADLINE_PX = (28, 24, 20, 16)  # the largest that fits is taken
_HEADLINE_LEFT = ICON_PX + 2
_PLATE_TOP, _BOTTOM_TOP = 31, 51
_GAP = 2  # dark columns between two texts in one row
_PITCH = 16  # rows of one line on the pages of lists


class LayoutError(Exception):
    """A text that does not fit its place on the panel."""


def render_verdict(view: VerdictView, size: tuple[int, int] = PANEL) -> Image.Image:
    """The verdict page: icon and headline, plate and month, verdict text; grade, source and age always."""
    _require_panel(size)
    pieces = _Pieces(view)
    problem = LayoutError("no arrangement")
    for px, arrange, month in product(_HEADLINE_PX, _ARRANGEMENTS, pieces.months):
        sheet = _Sheet()
        try:
            sheet.place(pieces.icon, 0, 0)
            arrange(sheet, pieces, pieces.headline(px), month)
        except LayoutError as exc:
            problem = exc
        else:
            return _toned(sheet.picture, view.tone)
    raise problem


def render_pages(view: VerdictView, size: tuple[int, int] = PANEL) -> list[Image.Image]:
    """The verdict page, then as many pages of reasons, actions and the vehicle as they need, three to a page."""
    sections = [
        (view.reasons_title, view.reasons), (view.actions_title, view.actions), (view.vehicle_title, view.vehicle),
    ]  # fmt: skip
    lists = [(title, texts[at : at + 3]) for title, texts in sections for at in range(0, len(texts), 3)]
    numbered = enumerate(lists, start=2)
    pages = [_list_page(view, f"{title} {number}", texts) for number, (title, texts) in numbered]
    return [render_verdict(view, size), *pages]


# -------------------------------------------------------------------------------------------- placing


class _Sheet:
    """An empty panel that takes pictures and texts as long as none leaves it or touches another."""

    def __init__(self) -> None:
        self.picture = Image.new("1", PANEL)
        self._taken: list[tuple[int, int, int, int]] = []

    def place(self, picture: Image.Image, left: int, top: int) -> None:
        """Put a picture at its place; LayoutError when it leaves the panel or touches another one."""
        right, bottom = left + picture.width, top + picture.height
        if left < 0 or top < 0 or right > PANEL[0] or bottom > PANEL[1]:
            raise LayoutError(f"{left},{top} to {right},{bottom} leaves the panel")
        for x0, y0, x1, y1 in self._taken:
            if left < x1 + _GAP and x0 < right + _GAP and top < y1 and y0 < bottom:
                raise LayoutError(f"{left},{top} to {right},{bottom} touches {x0},{y0} to {x1},{y1}")
        self._taken.append((left, top, right, bottom))
        self.picture.paste(picture, (left, top))

    def from_right(self, top: int, *pictures: Image.Image, right: int = PANEL[0]) -> None:
        """Put pictures in one row so that the last one ends at `right`."""
        for picture in reversed(pictures):
            self.place(picture, right - picture.width, top)
            right -= picture.width + _GAP + 1


class _Pieces:
    """The pictures a verdict page is put together from, each drawn once however many arrangements are tried."""

    def __init__(self, view: VerdictView) -> None:
        self.icon = draw_icon(view.tone, view.code)
        self.plate = _plate(view.plate)
        self.months = (_words(view.month_short), _words(view.month_tiny))
        self.text = _words(view.text)
        self.source = _words(view.source)
        self.source_upright = None if view.source.isascii() else _upright(view.source)
        self.age = _words(view.age_short)
        self.grade = _badge(view.grade)
        self._headline = view.headline
        self._headlines: dict[int, Image.Image] = {}

    def headline(self, px: int) -> Image.Image:
        """The headline at this size."""
        if px not in self._headlines:
            self._headlines[px] = headline_font(px).draw(self._headline)
        return self._headlines[px]


def _words(text: str) -> Image.Image:
    return text_font().draw(text)


def _badge(grade: str) -> Image.Image:
    """The grade's letter in a box."""
    box = Image.new("1", (12, 12), LIT)
    box.paste(0, (1, 1, 11, 11))
    letter = _words(grade)
    ink = letter.crop(letter.getbbox())
    box.paste(ink, ((13 - ink.width) // 2, (12 - ink.height) // 2))
    return box


def _upright(text: str) -> Image.Image:
    """Chinese words written downwards."""
    glyphs = [_words(char) for char in text]
    column = Image.new("1", (12, 12 * len(glyphs)))
    for index, glyph in enumerate(glyphs):
        column.paste(glyph, (0, 12 * index))
    return column


def _plate(plate: str) -> Image.Image:
    """The plate, its dot as 2 x 2 pixels in a narrow cell: the font's own dot is one pixel in eight."""
    parts = [plate_font().draw(part) for part in plate.split("·")]
    row = Image.new("1", (sum(part.width for part in parts) + 4 * (len(parts) - 1), _PITCH))
    left = 0
    for index, part in enumerate(parts):
        if index:
            row.paste(LIT, (left + 1, 7, left + 3, 9))
            left += 4
        row.paste(part, (left, 0))
        left += part.width
    return row


# --------------------------------------------------------------------------------------- arrangements

_Arrange = Callable[[_Sheet, _Pieces, Image.Image, Image.Image], None]


def _corner(sheet: _Sheet, pieces: _Pieces, headline: Image.Image, month: Image.Image) -> None:
    """Source over grade beside a short headline."""
    _headline(sheet, headline)
    sheet.from_right(1, pieces.source)
    sheet.from_right(15, pieces.grade)
    _plate_row(sheet, pieces, month)
    _bottom_row(sheet, pieces, pieces.age)


def _grade_in_corner(sheet: _Sheet, pieces: _Pieces, headline: Image.Image, month: Image.Image) -> None:
    """Only the grade beside the headline; the source stands beside the verdict's text."""
    _headline(sheet, headline)
    sheet.from_right(8, pieces.grade)
    _plate_row(sheet, pieces, month)
    _bottom_row(sheet, pieces, pieces.source, pieces.age)


def _source_upright(sheet: _Sheet, pieces: _Pieces, headline: Image.Image, month: Image.Image) -> None:
    """The source downwards beside three characters; the grade ends the bottom row."""
    _headline(sheet, headline)
    _place_upright(sheet, pieces)
    _plate_row(sheet, pieces, month)
    _bottom_row(sheet, pieces, pieces.age, pieces.grade)


def _grade_by_month(sheet: _Sheet, pieces: _Pieces, headline: Image.Image, month: Image.Image) -> None:
    """As before, for a verdict text of eight characters: the grade stands between plate and month."""
    _headline(sheet, headline)
    _place_upright(sheet, pieces)
    _plate_row(sheet, pieces, pieces.grade, month)
    _bottom_row(sheet, pieces, pieces.age)


def _strip(sheet: _Sheet, pieces: _Pieces, headline: Image.Image, month: Image.Image) -> None:
    """Source, age and grade under a small headline, for long Latin words."""
    top = ICON_PX - pieces.grade.height
    _headline(sheet, headline, rows=top)
    sheet.from_right(top, pieces.source, pieces.age, pieces.grade)
    _plate_row(sheet, pieces, month)
    _bottom_row(sheet, pieces)


_ARRANGEMENTS: tuple[_Arrange, ...] = (_corner, _grade_in_corner, _source_upright, _grade_by_month, _strip)


def _headline(sheet: _Sheet, headline: Image.Image, rows: int = ICON_PX) -> None:
    sheet.place(headline, _HEADLINE_LEFT, (rows - headline.height) // 2)


def _place_upright(sheet: _Sheet, pieces: _Pieces) -> None:
    if pieces.source_upright is None:
        raise LayoutError("Latin words are not written downwards")
    sheet.from_right(2, pieces.source_upright)


def _plate_row(sheet: _Sheet, pieces: _Pieces, *right: Image.Image) -> None:
    sheet.place(pieces.plate, 0, _PLATE_TOP)
    sheet.from_right(_PLATE_TOP + 2, *right)


def _bottom_row(sheet: _Sheet, pieces: _Pieces, *right: Image.Image) -> None:
    sheet.place(pieces.text, 0, _BOTTOM_TOP)
    sheet.from_right(_BOTTOM_TOP, *right)


# ------------------------------------------------------------------------------------- pages of lists


def _list_page(view: VerdictView, title: str, texts: tuple[str, ...]) -> Image.Image:
    """A title bar with source, age and grade over up to three lines."""
    sheet = _Sheet()
    sheet.place(_words(title), 1, 2)
    facts = (view.source, view.age_short, view.grade)
    sheet.from_right(2, *(_words(fact) for fact in facts), right=PANEL[0] - 1)
    bar = (0, 0, PANEL[0], _PITCH)
    sheet.picture.paste(ImageChops.invert(sheet.picture.crop(bar)), bar)
    for row, text in enumerate(texts, start=1):
        sheet.place(_words(text), 2, row * _PITCH + 2)
    return _toned(sheet.picture, view.tone)


def _toned(picture: Image.Image, tone: Tone) -> Image.Image:
    """STOP inverts the whole panel: seen from the side of an eye, without reading."""
    return ImageChops.invert(picture) if tone is Tone.STOP else picture


def _require_panel(size: tuple[int, int]) -> None:
    if size != PANEL:
        raise LayoutError(f"no layout for a panel of {size[0]}x{size[1]}")
