"""How large each model's picture is: known before its driver, and luma with it, is loaded."""

from __future__ import annotations

SIZES: dict[str, tuple[int, int]] = {  # width and height in pixels
    "ssd1309": (128, 64),
    "ssd1306": (128, 64),
    "sh1106": (128, 64),
    "ssd1322": (256, 64),
    "ssd1351": (128, 128),
}
