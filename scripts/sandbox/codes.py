"""QR pictures of credentials and a sheet to print."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import segno
from PIL import Image, ImageOps

from firmware.fonts import headline_font

QUIET_ZONE = 4  # modules, ISO/IEC 18004 clause 6.3.8
SHEET_DPI = 200
_A4 = (1654, 2339)  # pixels at 200 dpi
_CODE_SIDE = 472  # pixels: 60 mm
_CAPTION_PX = 32


class Code(NamedTuple):
    """A code with its caption for the sheet."""

    text: str
    caption: str


def qr_picture(text: str, *, scale: int = 8) -> Image.Image:
    """The code as a grey picture: alphanumeric mode, level M, `scale` pixels a module."""
    code = _qr(text)
    buffer = io.BytesIO()
    code.save(buffer, kind="png", scale=scale, border=QUIET_ZONE)
    return Image.open(buffer).convert("L")


def any_qr_picture(text: str, *, scale: int = 8) -> Image.Image:
    """A code of any text, as somebody else's code would be."""
    buffer = io.BytesIO()
    segno.make(text, micro=False).save(buffer, kind="png", scale=scale, border=QUIET_ZONE)
    return Image.open(buffer).convert("L")


def _qr(text: str) -> segno.QRCode:
    return segno.make(text, error="m", mode="alphanumeric", boost_error=False, micro=False)


def print_sheet(codes: Sequence[Code], path: Path) -> None:
    """Write an A4 sheet (PNG or PDF by the name's ending) with up to six codes, at most 60 mm wide, and captions."""
    if not 1 <= len(codes) <= 6:
        raise ValueError("a sheet holds one to six codes")
    sheet = Image.new("L", _A4, 255)
    caption = headline_font(_CAPTION_PX)
    for place, code in enumerate(codes):
        left, top = 180 + place % 2 * 780, 150 + place // 2 * 740
        modules, _ = _qr(code.text).symbol_size(scale=1, border=QUIET_ZONE)
        picture = qr_picture(code.text, scale=int(_CODE_SIDE // modules))
        sheet.paste(picture, (left, top))
        sheet.paste(ImageOps.invert(caption.draw(code.caption).convert("L")), (left, top + picture.height + 20))
    footer = caption.draw("测试数据  TEST DATA")
    sheet.paste(ImageOps.invert(footer.convert("L")), ((_A4[0] - footer.width) // 2, _A4[1] - 80))
    sheet.save(path, dpi=(SHEET_DPI, SHEET_DPI), resolution=SHEET_DPI)
