"""What pages are put together from: an empty sheet that refuses what does not fit, pictures of words, and a packer.

A sheet is grey, 0 paper and 255 ink, whatever the panel: inversion, colours and one bit are made of it at the end
(`firmware.draw`). Nothing is ever clipped: a text that does not fit or would touch another one raises `LayoutError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image

from firmware.fonts import Font, headline_font, plate_font, text_font
from firmware.icons import LIT
from firmware.views import drawable

LINE = 13  # rows of a line of text, which has 11 rows of ink
GAP = 2  # empty columns between two texts in one row
_BETWEEN = 3  # between two pictures that stand at the right end of a row
UNIFONT_PX = 16  # the plate's bitmap font; larger plates are drawn by the outline font

Box = tuple[int, int, int, int]  # left, top, right, bottom; right and bottom are the first outside


class LayoutError(Exception):
    """A text that does not fit its place on the panel."""


class Sheet:
    """An empty panel that takes pictures and texts as long as none leaves it or touches another."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.picture = Image.new("L", size)
        self._taken: list[Box] = []

    def place(self, picture: Image.Image, left: int, top: int) -> None:
        """Put a picture at its place; LayoutError when it leaves the panel or touches another one."""
        right, bottom = left + picture.width, top + picture.height
        if left < 0 or top < 0 or right > self.picture.width or bottom > self.picture.height:
            raise LayoutError(f"{left},{top} to {right},{bottom} leaves the panel")
        for x0, y0, x1, y1 in self._taken:
            if left < x1 + GAP and x0 < right + GAP and top < y1 and y0 < bottom:
                raise LayoutError(f"{left},{top} to {right},{bottom} touches {x0},{y0} to {x1},{y1}")
        self._taken.append((left, top, right, bottom))
        self.picture.paste(picture, (left, top))

    def centred(self, picture: Image.Image, top: int) -> None:
        """Put a picture in the middle of its row."""
        self.place(picture, (self.picture.width - picture.width) // 2, top)

    def from_right(self, top: int, pictures: Sequence[Image.Image], rows: int = 0, right: int | None = None) -> None:
        """Put pictures in one row so that the last one ends at `right`, each in the middle of so many `rows`."""
        right = self.picture.width if right is None else right
        for picture in reversed(pictures):
            self.place(picture, right - picture.width, top + max(0, rows - picture.height + 1) // 2)
            right -= picture.width + _BETWEEN


# -------------------------------------------------------------------------------------------- words as pictures


@lru_cache(maxsize=64)  # most words of a page are those of the one before
def words(text: str) -> Image.Image:
    """A text in the font of reasons and lists: 11 rows, because the first of the font's 12 is empty.

    Not to be drawn on.
    """
    picture = text_font().draw(text)
    box = picture.getbbox()
    return picture if box is not None and box[1] == 0 else picture.crop((0, 1, picture.width, picture.height))


def headline(text: str, px: int, *, grey: bool) -> Image.Image:
    """The verdict's word; with smooth edges where the panel has grey."""
    font = headline_font(px) if px > UNIFONT_PX or text.isascii() else plate_font()
    return font.draw_grey(text) if grey else font.draw(text)


def label(text: str, rows: int = LINE) -> Image.Image:
    """A word cut out of a full box: it is the officer's turn, or which of two cars this is."""
    ink = words(text)
    box = Image.new("1", (ink.width + 3, rows), LIT)
    box.paste(0, (2, 1), ink)
    return box


def badge(letter: str) -> Image.Image:
    """A letter in a box: the grade."""
    box = Image.new("1", (12, 12), LIT)
    box.paste(0, (1, 1, 11, 11))
    drawn = text_font().draw(letter)
    ink = drawn.crop(drawn.getbbox())
    box.paste(ink, ((13 - ink.width) // 2, (12 - ink.height) // 2))
    return box


def plate_picture(plate: str, px: int = UNIFONT_PX, *, grey: bool = False) -> Image.Image:
    """The plate, its dot as a square in a narrow cell: the font's own dot is one pixel in eight."""
    font = plate_font() if px == UNIFONT_PX else headline_font(px)
    parts = [_drawn(font, part, grey) for part in drawable(plate).split("·")]
    dot = px // 8
    row = Image.new("L", (sum(part.width for part in parts) + 2 * dot * (len(parts) - 1), px))
    left = 0
    for index, part in enumerate(parts):
        if index:
            row.paste(LIT, (left + dot // 2, (px - dot) // 2, left + dot // 2 + dot, (px + dot) // 2))
            left += 2 * dot
        row.paste(part, (left, 0))
        left += part.width
    return row


def _drawn(font: Font, text: str, grey: bool) -> Image.Image:
    return font.draw_grey(text) if grey else font.draw(text)


def cut_words(text: str, room: int) -> Image.Image:
    """A text from outside, shortened with "…" to so many pixels: what others write is never a reason to fail."""
    text = drawable(text)
    picture = words(text)
    while picture.width > room and text:
        text = text[:-1]
        picture = words(text.rstrip() + "…")
    return picture


# --------------------------------------------------------------------------------------------------- packing


@dataclass(frozen=True, slots=True)
class Piece:
    """A fact that has to stand somewhere: its forms, the best first, and the lines it may stand in, likewise."""

    forms: tuple[Image.Image, ...]
    lines: tuple[str, ...]
    optional: bool = False  # left out where there is no room


def pack(pieces: Sequence[Piece], room: Mapping[str, int]) -> dict[str, list[Image.Image]]:
    """Which pictures stand in which line, in the order of the pieces; `room` is each line's free width in pixels.

    The first piece has the first choice; a later one takes a worse place or form before an earlier one does.
    LayoutError when there is no way.
    """
    names = list(room)
    # In numbers: where each piece may stand and how wide it is there, the best first; most of the time goes here.
    places = [
        [(names.index(line), form.width, form) for form in piece.forms for line in piece.lines if line in room]
        for piece in pieces
    ]
    dead: set[tuple[int, tuple[int, ...]]] = set()

    def placed(at: int, free: tuple[int, ...]) -> list[tuple[str, Image.Image] | None] | None:
        if at == len(pieces):
            return []
        if (at, free) in dead:
            return None
        for line, width, form in places[at]:
            left = free[line] - width
            if left >= 0:
                rest = placed(at + 1, (*free[:line], left - _BETWEEN, *free[line + 1 :]))
                if rest is not None:
                    return [(names[line], form), *rest]
        rest = placed(at + 1, free) if pieces[at].optional else None
        if rest is None:
            dead.add((at, free))
            return None
        return [None, *rest]

    found = placed(0, tuple(room.values()))
    if found is None:
        raise LayoutError("no room for every fact")
    lines: dict[str, list[Image.Image]] = {}
    for line, form in filter(None, found):
        lines.setdefault(line, []).append(form)
    return lines
