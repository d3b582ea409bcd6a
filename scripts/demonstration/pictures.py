"""What the demo holds before the camera, drawn: a code on a phone or on paper, and the plate that is on the car."""

from __future__ import annotations

import io
from enum import StrEnum
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from firmware.fonts import headline_font
from scripts.sandbox.codes import any_qr_picture, qr_picture
from verifier.plates import display_text
from verifier.types import Plate

SIZE = (960, 720)
QUALITY = 88  # of JPEG

_ROAD, _SKY = (58, 66, 76), (139, 156, 173)
_GREEN_KINDS = ("51", "52")  # new-energy vehicles
_YELLOW_KINDS = ("01",)
_CODE_PX = 430
Rgb = tuple[int, int, int]


class Carrier(StrEnum):
    """What carries the code."""

    PHONE = "phone"
    PAPER = "paper"
    CREASED = "creased"
    STICKER = "sticker"  # somebody else's code, on a wall or a meter


def scene(codes: list[tuple[str, Carrier]], plate: Plate | None) -> bytes:
    """A JPEG with one or two carriers side by side, before a car with this plate."""
    picture = _backdrop().copy()
    if plate is not None:
        _put(picture, _plate(plate), SIZE[0] // 2, 652)
    for place, (text, carrier) in enumerate(codes):
        across = SIZE[0] * (2 * place + 1) // (2 * len(codes))
        _put(picture, _carrier(text, carrier, small=len(codes) > 1), across, 296)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


@lru_cache(maxsize=1)
def _backdrop() -> Image.Image:
    """A car seen through fog: windscreen above, bonnet below."""
    share = np.linspace(0, 1, SIZE[1])[:, None, None]
    rows = np.asarray(_SKY) * (1 - share) + np.asarray(_ROAD) * share
    picture = Image.fromarray(np.broadcast_to(rows, (SIZE[1], SIZE[0], 3)).astype(np.uint8), "RGB")
    draw = ImageDraw.Draw(picture)
    draw.rounded_rectangle((40, 60, 920, 560), 90, fill=(98, 112, 128))
    draw.polygon([(150, 92), (810, 92), (880, 520), (80, 520)], fill=(72, 84, 98))
    draw.rounded_rectangle((20, 540, 940, 740), 60, fill=(112, 124, 138))
    for left in (60, 800):
        draw.ellipse((left, 590, left + 100, 680), fill=(205, 212, 220))
    return picture


def _put(picture: Image.Image, part: Image.Image, across: int, down: int) -> None:
    picture.paste(part, (across - part.width // 2, down - part.height // 2), part.getchannel("A"))


def _plate(plate: Plate) -> Image.Image:
    """The plate as it is screwed to the car (GA 36): blue, yellow, or green for a new-energy vehicle."""
    ink, paper = (255, 255, 255), (21, 80, 184)
    if plate.kind in _GREEN_KINDS:
        ink, paper = (20, 20, 20), (122, 210, 152)
    elif plate.kind in _YELLOW_KINDS:
        ink, paper = (20, 20, 20), (248, 196, 0)
    text = _words(display_text(plate), 64, ink)
    picture = Image.new("RGBA", (text.width + 60, 104))
    draw = ImageDraw.Draw(picture)
    draw.rounded_rectangle((0, 0, picture.width - 1, 103), 14, fill=paper)
    draw.rounded_rectangle((5, 5, picture.width - 6, 98), 11, outline=ink, width=3)
    picture.alpha_composite(text, (30, (104 - text.height) // 2))
    return picture


def _words(text: str, px: int, ink: Rgb) -> Image.Image:
    mask = headline_font(px).draw_grey(text)
    picture = Image.new("RGBA", mask.size, (*ink, 0))
    picture.putalpha(mask)
    return picture


def _carrier(text: str, carrier: Carrier, *, small: bool) -> Image.Image:
    code = _code(text, carrier, _CODE_PX * 4 // 5 if small else _CODE_PX)
    if carrier is Carrier.PHONE:
        return _phone(code)
    if carrier is Carrier.STICKER:
        return _framed(code, 16, (255, 255, 255), "").rotate(4, Image.Resampling.BICUBIC, expand=True)
    sheet = _framed(code, 34, (247, 245, 238), "机动车检验标志电子凭证 测试数据")
    sheet = _creased(sheet) if carrier is Carrier.CREASED else sheet
    return sheet.rotate(-5, Image.Resampling.BICUBIC, expand=True)


def _code(text: str, carrier: Carrier, side: int) -> Image.Image:
    make = any_qr_picture if carrier is Carrier.STICKER else qr_picture
    code = make(text, scale=1)
    scale = max(1, side // code.width)
    return code.resize((code.width * scale, code.height * scale), Image.Resampling.NEAREST).convert("RGBA")


def _phone(code: Image.Image) -> Image.Image:
    width, height = code.width + 44, code.height + 130
    picture = Image.new("RGBA", (width, height))
    draw = ImageDraw.Draw(picture)
    draw.rounded_rectangle((0, 0, width - 1, height - 1), 40, fill=(18, 20, 24))
    draw.rounded_rectangle((12, 12, width - 13, height - 13), 30, fill=(255, 255, 255))
    draw.rounded_rectangle((12, 12, width - 13, 74), 30, fill=(27, 87, 176))
    draw.rectangle((12, 48, width - 13, 74), fill=(27, 87, 176))
    title = _words("电子凭证 测试数据", 26, (255, 255, 255))
    picture.alpha_composite(title, ((width - title.width) // 2, 30))
    picture.alpha_composite(code, ((width - code.width) // 2, 84))
    return picture


def _framed(code: Image.Image, edge: int, paper: Rgb, title: str) -> Image.Image:
    top = edge + (40 if title else 0)
    picture = Image.new("RGBA", (code.width + 2 * edge, code.height + top + edge), (*paper, 255))
    if title:
        words = _words(title, 24, (40, 40, 48))
        picture.alpha_composite(words, (max(0, (picture.width - words.width) // 2), edge - 4))
    # Paper is no screen: its white is that of the sheet.
    tinted = Image.composite(Image.new("RGBA", code.size, (*paper, 255)), code, code.convert("L"))
    picture.alpha_composite(tinted, (edge, top))
    return picture


def _creased(sheet: Image.Image) -> Image.Image:
    """Folded twice and smoothed again: the halves catch the light differently, and rows near a fold are shifted."""
    pixels = np.asarray(sheet).astype(np.float32)
    height, width = pixels.shape[:2]
    y, x = np.mgrid[0:height, 0:width]
    across, down = x / width - 0.47, y / height - 0.55
    bend = 2.6 * np.exp(-((down / 0.05) ** 2)) + 1.6 * np.exp(-((across / 0.06) ** 2))
    moved = pixels[np.clip(y + bend.astype(int), 0, height - 1), np.clip(x + (bend / 2).astype(int), 0, width - 1)]
    light = np.where(down < 0, 1.0, 0.84) * np.where(across < 0, 1.0, 0.92)
    light *= 1 - 0.22 * np.exp(-((down / 0.008) ** 2)) - 0.16 * np.exp(-((across / 0.007) ** 2))
    moved[..., :3] *= light[..., None]
    return Image.fromarray(moved.clip(0, 255).astype(np.uint8), "RGBA")
