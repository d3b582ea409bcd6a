"""A picture as the bytes a controller takes, sent through luma's device: the same bytes as luma's own, made faster.

luma goes through the pixels one by one in Python, which takes up to a hundred times as long on a colour panel. Here
Pillow does it, which is loaded anyway.
"""

from __future__ import annotations

from typing import Any

from PIL import Image, ImageChops

_HIGH = bytes(value & 0xF0 for value in range(256))
_LOW = bytes(value >> 4 for value in range(256))
_RED_HIGH = [value & 0xF8 for value in range(256)]
_GREEN_HIGH = [value >> 5 for value in range(256)]
_GREEN_LOW = [value << 3 & 0xE0 for value in range(256)]
_BLUE_LOW = [value >> 3 for value in range(256)]


def send_window(device: Any, image: Image.Image) -> None:
    """SSD1306 and SSD1309: one window, pages of eight rows (SSD1306 data sheet, clause 8.7)."""
    const, pages = device._const, image.height // 8
    device.command(const.COLUMNADDR, 0, image.width - 1, const.PAGEADDR, 0, pages - 1)
    device.data(list(b"".join(page_bytes(image, page) for page in range(pages))))


def send_pages(device: Any, image: Image.Image) -> None:
    """SH1106: page by page, because its address counter stays in a page (SH1106 data sheet, page addressing)."""
    for page in range(image.height // 8):
        device.command(0xB0 + page, device._page_address_offset, 0x10)
        device.data(list(page_bytes(image, page)))


def send_ram(device: Any, image: Image.Image) -> None:
    """SSD1322 and SSD1351: the whole window of the RAM, four bits of grey or 16 of colour by the picture's mode."""
    width, height = image.size
    device._set_position(0, width, height, 0)
    device.data(list(grey_bytes(image) if image.mode == "L" else colour_bytes(image)))


def page_bytes(image: Image.Image, page: int) -> bytes:
    """A byte for each column of eight rows, the upper pixel in the lowest bit. Mode "1"."""
    rows = image.crop((0, 8 * page, image.width, 8 * page + 8))
    return rows.transpose(Image.Transpose.ROTATE_270).tobytes()


def grey_bytes(image: Image.Image) -> bytes:
    """Two pixels in a byte, the left one in the upper half. Mode "L", an even width."""
    pixels = image.tobytes()
    left, right = pixels[0::2].translate(_HIGH), pixels[1::2].translate(_LOW)
    both = int.from_bytes(left, "big") | int.from_bytes(right, "big")
    return both.to_bytes(len(left), "big")


def colour_bytes(image: Image.Image) -> bytes:
    """Five bits of red, six of green, five of blue, the upper byte first. Mode "RGB"."""
    red, green, blue = image.split()
    upper = ImageChops.add(red.point(_RED_HIGH), green.point(_GREEN_HIGH))
    lower = ImageChops.add(green.point(_GREEN_LOW), blue.point(_BLUE_LOW))
    return Image.merge("LA", (upper, lower)).tobytes()
