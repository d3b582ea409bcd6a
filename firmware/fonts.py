"""The three fonts of the panel, from their Debian packages, as pictures of text: one bit, or grey.

Outline fonts are drawn in grey and cut at the middle here: FreeType changed its own one-bit hinting between
versions, and a verdict must look the same on every device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

_NO_CHARACTER = "\uffff"  # Unicode keeps it unassigned for ever, so it is drawn as "glyph missing"


class FontMissingError(Exception):
    """A font of the panel is not installed; the text names the Debian package."""


@dataclass(frozen=True)
class FontFile:
    """Where Debian installs a font."""

    name: str
    package: str
    paths: tuple[str, ...]


TEXT = FontFile(
    "WenQuanYi Bitmap Song 12 px",
    "xfonts-wqy",
    ("/usr/share/fonts/X11/misc/wenquanyi_9pt.pcf", "/usr/share/fonts/X11/misc/wenquanyi_9pt.pcf.gz"),
)
PLATE = FontFile(
    "GNU Unifont",
    "fonts-unifont",
    ("/usr/share/fonts/opentype/unifont/unifont.otf", "/usr/share/fonts/truetype/unifont/unifont.ttf"),
)
HEADLINE = FontFile(
    "WenQuanYi Micro Hei",
    "fonts-wqy-microhei",
    ("/usr/share/fonts/truetype/wqy/wqy-microhei.ttc",),
)

_TEXT_PX, _PLATE_PX = 12, 16  # the bitmaps exist in these sizes only


def in_black_and_white(grey: Image.Image) -> Image.Image:
    """Ink from half of white on, mode "1": for a panel without grey."""
    return grey.convert("1", dither=Image.Dither.NONE)


class Font:
    """One font in one size. Text is drawn into a cell of `height` pixels."""

    def __init__(self, face: ImageFont.FreeTypeFont, height: int, *, top: int | None) -> None:
        self.height = height
        self._face = face
        self._top = top  # row of the cell at which the face's own cell begins; None centres the ink
        self._drawn = lru_cache(maxsize=64)(self._draw)  # most words of a page are those of the one before

    def width(self, text: str) -> int:
        """Pixels from the left edge of the first cell to the right edge of the last."""
        return math.ceil(max(self._face.getlength(text), self._face.getbbox(text)[2]))

    def draw(self, text: str) -> Image.Image:
        """The text in white on black, mode "1", as wide as `width` says and `height` high. Not to be drawn on."""
        return self._drawn(text)

    def _draw(self, text: str) -> Image.Image:
        return in_black_and_white(self.draw_grey(text))

    def draw_grey(self, text: str) -> Image.Image:
        """The same with smooth edges, mode "L", for panels that have grey."""
        picture = Image.new("L", (max(1, self.width(text)), self.height))
        ImageDraw.Draw(picture).text((0, self._first_row(text)), text, fill=255, font=self._face)
        return picture

    def missing_glyphs(self, text: str) -> set[str]:
        """The characters of the text that this font cannot draw."""
        nothing = self._pixels(_NO_CHARACTER)
        return {char for char in text if not char.isspace() and self._pixels(char) == nothing}

    def _pixels(self, char: str) -> tuple[tuple[int, int], bytes]:
        mask = self._face.getmask(char, mode="L")
        return mask.size, bytes(mask)

    def _first_row(self, text: str) -> float:
        if self._top is not None:
            return self._top
        _, top, _, bottom = self._face.getbbox(text)
        return (self.height - (bottom - top)) // 2 - top


def text_font() -> Font:
    """WenQuanYi's 12-pixel bitmap: 11 rows of ink, which leaves one row between lines."""
    return _load(TEXT, _TEXT_PX, -1)


def plate_font() -> Font:
    """GNU Unifont: every character 8 or 16 pixels wide, so a plate and a list never jump."""
    return _load(PLATE, _PLATE_PX, 0)


def headline_font(px: int) -> Font:
    """Micro Hei for the verdict's headline, and for large plates on panels that have grey."""
    return _load(HEADLINE, px, None)


def find(font: FontFile) -> Path:
    """The installed file; FontMissingError names the package to install."""
    for path in font.paths:
        if Path(path).is_file():
            return Path(path)
    raise FontMissingError(f"font {font.name} is missing: apt-get install {font.package}")


@lru_cache(maxsize=16)
def _load(font: FontFile, px: int, top: int | None) -> Font:
    path = find(font)
    try:
        # The basic layout needs no Raqm, and gives the same widths with and without it.
        face = ImageFont.truetype(str(path), px, layout_engine=ImageFont.Layout.BASIC)
    except OSError as exc:
        raise FontMissingError(f"font {font.name} cannot be read: reinstall {font.package}") from exc
    return Font(face, px, top=top)
