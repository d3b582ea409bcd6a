"""QR pictures of credentials, and what is printed of them: the sheet of a driver and the label of a tag card."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import segno
from PIL import Image, ImageDraw

from firmware.fonts import Font, headline_font
from verifier.plates import display_text
from verifier.types import Month, Plate

QUIET_ZONE = 4  # modules, ISO/IEC 18004 clause 6.3.8
PRINT_DPI = 300
MAX_ON_SHEET = 6

CITY_NAMES = {
    "110000": "北京市", "120000": "天津市", "310000": "上海市", "500000": "重庆市", "230100": "哈尔滨市",
    "320100": "南京市", "330100": "杭州市", "330200": "宁波市", "370100": "济南市", "430200": "株洲市",
    "440300": "深圳市", "460100": "海口市", "510100": "成都市", "520100": "贵阳市", "530400": "玉溪市",
    "650100": "乌鲁木齐市",
}  # fmt: skip
"""The pilot cities by administrative division code (GB/T 2260)."""


class PaperMark(NamedTuple):
    """A code to print, with what people read beside it."""

    text: str
    plate: Plate
    valid_until: Month
    issuer: str  # administrative division code


def qr_picture(text: str, *, scale: int = 8) -> Image.Image:
    """The code as a grey picture: alphanumeric mode, level M, `scale` pixels a module."""
    code = _qr(text)
    buffer = io.BytesIO()
    code.save(buffer, kind="png", scale=scale, border=QUIET_ZONE)
    return Image.open(buffer).convert("L")


def qr_svg(text: str) -> bytes:
    """The code as an SVG picture that fills whatever place it is given, with its quiet zone in white."""
    buffer = io.BytesIO()
    _qr(text).save(buffer, kind="svg", border=QUIET_ZONE, dark="#000", light="#fff", xmldecl=False, omitsize=True)
    return buffer.getvalue()


def any_qr_picture(text: str, *, scale: int = 8) -> Image.Image:
    """A code of any text, as somebody else's code would be."""
    buffer = io.BytesIO()
    segno.make(text, micro=False).save(buffer, kind="png", scale=scale, border=QUIET_ZONE)
    return Image.open(buffer).convert("L")


def _qr(text: str) -> segno.QRCode:
    return segno.make(text, error="m", mode="alphanumeric", boost_error=False, micro=False)


def card_number(tid: str) -> str:
    """The number on the tag's card: the last 12 hex digits of the TID in groups of four.

    The whole TID is not printed: a credential binds to it, and who photographs the card need not have it.
    """
    tail = tid[-12:]
    return " ".join(tail[place : place + 4] for place in range(0, len(tail), 4))


# ------------------------------------------------------------------------------------------------- paper

# All lengths below are pixels at PRINT_DPI, counted within a cell of the sheet or within the label.
_A4 = (2480, 3508)
_SHEET_MARGIN = 95  # 8 mm, which every printer can do
_CELL = (1145, 1106)  # a sixth of what remains: 97 x 94 mm
_SHEET_CODE = 709  # 60 mm without the quiet zone
_DASH = 14

_CARD = (1011, 638)  # 85.60 x 53.98 mm, ISO/IEC 7810 ID-1
_CARD_RADIUS = 38  # 3.18 mm, likewise
_LABEL_CODE = 472  # 40 mm without the quiet zone
_LABEL_MARGIN = 14
_COLUMN_END = 985  # of the label's texts


def print_sheet(marks: Sequence[PaperMark], path: Path) -> None:
    """Write an A4 sheet (PNG or PDF by the name's ending): one to six marks, to cut or fold along the dashed lines.

    The codes are at most 60 mm wide, quiet zone not counted.
    """
    if not 1 <= len(marks) <= MAX_ON_SHEET:
        raise ValueError("a sheet holds one to six codes")
    sheet = Image.new("1", _A4, 1)
    places = [
        (_SHEET_MARGIN + place % 2 * _CELL[0], _SHEET_MARGIN + place // 2 * _CELL[1]) for place in range(len(marks))
    ]
    for mark, place in zip(marks, places, strict=True):
        sheet.paste(_cell(mark), place)
    for place in places:
        _dashed_box(sheet, place)
    _save(sheet, path)


def _cell(mark: PaperMark) -> Image.Image:
    cell = Image.new("1", _CELL, 1)
    code = _code(mark.text, _SHEET_CODE)
    cell.paste(code, ((_CELL[0] - code.width) // 2, 178))
    below = 178 + code.height
    _centred(cell, "机动车检验标志电子凭证（测试数据）", 50, 26)
    _centred(cell, display_text(mark.plate), 88, 88)
    _centred(cell, f"检验有效期至 {mark.valid_until.year}年{mark.valid_until.month:02d}月", 50, below)
    _centred(cell, f"签发地 {CITY_NAMES.get(mark.issuer, mark.issuer)}", 36, below + 60)
    _centred(cell, "TEST DATA · 沿虚线裁剪或折叠 · CUT OR FOLD", 24, _CELL[1] - 38)
    return cell


def _centred(cell: Image.Image, text: str, px: int, top: int) -> None:
    picture = headline_font(px).draw(text)
    cell.paste(0, ((cell.width - picture.width) // 2, top), picture)


def _dashed_box(sheet: Image.Image, place: tuple[int, int]) -> None:
    """Where to cut or fold: dashes around the cell at this place."""
    draw = ImageDraw.Draw(sheet)
    (left, top), (width, height) = place, _CELL
    for x in range(left, left + width, 2 * _DASH):
        for y in (top, top + height):
            draw.line((x, y, x + _DASH, y), fill=0, width=2)
    for y in range(top, top + height, 2 * _DASH):
        for x in (left, left + width):
            draw.line((x, y, x, y + _DASH), fill=0, width=2)


def print_tag_label(mark: PaperMark, number: str, path: Path) -> None:
    """Write the label of a tag's card (PNG or PDF by the name's ending), 85.60 x 53.98 mm.

    `number` is the card's. No month is printed: the label outlives an inspection, and its code tells.
    """
    label = Image.new("1", _CARD, 1)
    right, bottom = _CARD[0] - 1, _CARD[1] - 1
    ImageDraw.Draw(label).rounded_rectangle((0, 0, right, bottom), _CARD_RADIUS, outline=0, width=2)
    code = _code(mark.text, _LABEL_CODE)
    label.paste(code, (_LABEL_MARGIN, (_CARD[1] - code.height) // 2))
    left = _LABEL_MARGIN + code.width + 4
    _left(label, "汽车电子标识", 60, left, 66)
    _left(label, "IN-CAR TAG", 34, left, 136)
    _left(label, display_text(mark.plate), 92, left, 208)
    _left(label, f"卡号 {number}", 44, left, 338)
    _left(label, "扫码查验检验标志和交强险", 40, left, 406)
    notice = _fitted("测试数据 TEST DATA", 44, _COLUMN_END - left - 28)
    picture = notice.draw("测试数据 TEST DATA")
    box = (left, 502, left + picture.width + 28, 502 + notice.height + 24)
    ImageDraw.Draw(label).rectangle(box, fill=0)
    label.paste(1, (left + 14, 514), picture)
    _save(label, path)


def _code(text: str, side: int) -> Image.Image:
    """The code with the largest whole module for which it is at most `side` wide, quiet zone not counted."""
    modules, _ = _qr(text).symbol_size(scale=1, border=0)
    return qr_picture(text, scale=int(side // modules)).convert("1", dither=Image.Dither.NONE)


def _left(page: Image.Image, text: str, px: int, left: int, top: int) -> None:
    page.paste(0, (left, top), _fitted(text, px, _COLUMN_END - left).draw(text))


def _fitted(text: str, px: int, width: int) -> Font:
    """The font in that size, or in the largest smaller one in which the text fits into the width."""
    while headline_font(px).width(text) > width:
        px -= 2
    return headline_font(px)


def _save(page: Image.Image, path: Path) -> None:
    """One bit a pixel stays one bit in both formats: no compression blurs a module."""
    page.save(path, dpi=(PRINT_DPI, PRINT_DPI), resolution=PRINT_DPI)
