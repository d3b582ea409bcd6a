"""The pictograms of the verdict page: shape alone tells the tone, so colour blindness and glare do not matter."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image, ImageDraw

from verifier.types import Tone, VerdictCode

ICON_PX = 28
_LAST = ICON_PX - 1
LIT = 255  # as in decoded one-bit pictures; a 1 would stay lit when the picture is inverted

_QUESTION_MARK = (
    " ##### ",
    "##   ##",
    "     ##",
    "    ## ",
    "   ##  ",
    "   ##  ",
    "       ",
    "   ##  ",
    "   ##  ",
)


def draw_icon(tone: Tone, code: VerdictCode) -> Image.Image:
    """28 x 28 pixels, mode "1", lit on dark. UNDECIDED has a shape of its own: it is neither good nor bad."""
    picture = Image.new("1", (ICON_PX, ICON_PX))
    draw = _question if code is VerdictCode.UNDECIDED else _SHAPES[tone]
    draw(ImageDraw.Draw(picture))
    return picture


def _pass(draw: ImageDraw.ImageDraw) -> None:
    """A full disc with a tick."""
    draw.ellipse((0, 0, _LAST, _LAST), fill=LIT)
    draw.line(((7, 14), (12, 19), (21, 9)), fill=0, width=4, joint="curve")


def _note(draw: ImageDraw.ImageDraw) -> None:
    """A ring with an i."""
    draw.ellipse((0, 0, _LAST, _LAST), outline=LIT, width=2)
    draw.rectangle((12, 6, 15, 8), fill=LIT)
    draw.rectangle((12, 11, 15, 21), fill=LIT)


def _caution(draw: ImageDraw.ImageDraw) -> None:
    """A full triangle with an exclamation mark."""
    draw.polygon(((13, 0), (14, 0), (_LAST, _LAST), (0, _LAST)), fill=LIT)
    draw.rectangle((12, 9, 15, 18), fill=0)
    draw.rectangle((12, 21, 15, 24), fill=0)


def _stop(draw: ImageDraw.ImageDraw) -> None:
    """A full square with a cross."""
    draw.rectangle((0, 0, _LAST, _LAST), fill=LIT)
    for corners in (((7, 7), (20, 20)), ((20, 7), (7, 20))):
        draw.line(corners, fill=0, width=4)


def _question(draw: ImageDraw.ImageDraw) -> None:
    """An outlined box with a question mark."""
    draw.rounded_rectangle((0, 0, _LAST, _LAST), radius=4, outline=LIT, width=2)
    for row, pixels in enumerate(_QUESTION_MARK):
        for column, pixel in enumerate(pixels):
            if pixel == "#":
                x, y = 7 + 2 * column, 5 + 2 * row
                draw.rectangle((x, y, x + 1, y + 1), fill=LIT)


_SHAPES: dict[Tone, Callable[[ImageDraw.ImageDraw], None]] = {
    Tone.PASS: _pass,
    Tone.NOTE: _note,
    Tone.CAUTION: _caution,
    Tone.STOP: _stop,
}
