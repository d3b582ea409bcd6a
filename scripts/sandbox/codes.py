"""QR pictures of credentials and a sheet to print."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import segno
from PIL import Image, ImageDraw

from firmware.fonts import outline_font

QUIET_ZONE = 4  # modules, ISO/IEC 18004 clause 6.3.8
SHEET_DPI = 200
_A4 = (1654, 2339)  # pixels at 200 dpi


class Code(NamedTuple):
    """A code with its caption for the sheet."""

    text: str
    caption: str


def qr_picture(text: str, *, scale: int = 8) -> Image.Image:
    """The code as a grey picture: alphanumeric mode, level M, `scale` pixels a module."""
    code = segno.make(text, error="m", mode="alphanumeric", boost_error=False, micro=False)
    buffer = io.BytesIO()
    code.save(buffer, kind="png", scale=scale, border=QUIET_ZONE)
    return Image.open(buffer).convert("L")


def print_sheet(codes: Sequence[Code], path: Path) -> None:
    """Write an A4 sheet (PNG or PDF by the name's ending) with up to six codes of 60 mm and their captions."""
    if not 1 <= len(codes) <= 6:
        raise ValueError("a sheet holds one to six codes")
    sheet = Image.new("L", _A4, 255)
    draw = ImageDraw.Draw(sheet)
    font = outline_font(36)
    side = round(60 / 25.4 * SHEET_DPI)
    for place, code in enumerate(codes):
        left = 180 + place % 2 * 780
        top = 150 + place // 2 * 740
        picture = qr_picture(code.text)
        sheet.paste(picture.resize((side, side), Image.Resampling.NEAREST), (left, top))
        draw.text((left, top + side + 20), code.caption, font=font, fill=0)
    sheet.save(path, dpi=(SHEET_DPI, SHEET_DPI), resolution=SHEET_DPI)
