"""Why nothing was read in a frame, measured in the part that most looks like a code.

A code is texture: change both ways, filling a square. From that square come its size, its light and its sharpness.
The thresholds were set on drawn codes and lie well inside the gaps between readable and unreadable ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hw.qr.region import change_both_ways
from hw.qr.views import Gray, View, resized
from verifier.types import Hint

_SIDE = 256  # pixels, longest side of the copy in which the texture is outlined
_MODULES = 57  # along the side of a mark's code, version 10; a live one has 69

_DARK_WHITE = 40  # of 255; what should be white and is not
_SMALL_SIDE = 100  # pixels; below 1.75 for each of 57 modules even the best decoder begins to miss
_CLEAR_TEXTURE = 40  # mean change, in logarithms, per pixel of the copy: sharp codes have 44 and more, scenes less
_DAZZLED_TEXTURE = 25  # what glare leaves of it
_SOFT_TEXTURE = 1.3  # what defocus leaves of it
_FILLED = 0.65  # of the outline; letters and branches leave gaps
_SQUARE = 0.45  # short side to long side; 60 degrees of tilt leave 0.5
_EDGE_WIDTHS = (0.9, 4.0)  # modules from dark to light; sharp codes take less than 0.5, panels out of focus 5 and more
_GREY_SHARE = 0.33  # of the part, neither dark nor light: what blur makes of modules, and not of a few long edges
_SHARE = 0.35  # of the strongest change; what is less is not the code
_BORDER = 0.02  # of the side
_SATURATED = 245
_LONGEST_RUN = 7  # modules; masking (ISO/IEC 18004 clause 7.8) keeps runs shorter
_SAMPLE = 256  # pixels, side of the part from which sharpness is measured
_DIAGONAL = 2**0.5  # pixels
_GLARE_SHARE = 0.06  # of the square; error correction M makes up for 15 % of the codewords, and glare reaches further


@dataclass(frozen=True, slots=True, kw_only=True)
class _Texture:
    """The textured part of a frame."""

    strength: float  # mean change per pixel of the small copy
    side_px: float  # the longer one, in frame pixels
    square: float  # short side to long side
    filled: float  # share of its outline
    glare: float  # share of the square around it that is saturated where modules should be
    at_border: bool  # it goes on outside the frame
    pixels: Gray  # the part itself, as large as the region shows it


def find_hint(gray: Gray, region: View) -> Hint | None:
    """What keeps a frame from being read, given the region of it that most looks like a code.

    Ask only for frames in which nothing was read. None when a code seems to be there and nothing measured explains
    why it cannot be read: dirt, creases, a symbol of another kind.
    """
    if _percentiles(gray[::8, ::8], 99.5)[0] < _DARK_WHITE:
        return Hint.DARK
    texture = _texture(gray, region)
    if texture is None:
        return Hint.NO_CODE
    if texture.strength >= _DAZZLED_TEXTURE and texture.glare >= _GLARE_SHARE:
        return Hint.GLARE
    if texture.filled < _FILLED or texture.square < _SQUARE:
        return Hint.NO_CODE
    if _percentiles(texture.pixels, 95)[0] < _DARK_WHITE:
        return Hint.DARK
    return _hint_of_code(texture)


def _hint_of_code(texture: _Texture) -> Hint | None:
    clear = texture.strength >= _CLEAR_TEXTURE
    if clear and texture.at_border:
        return Hint.CUT_OFF
    if clear and texture.side_px < _SMALL_SIDE:
        return Hint.TOO_SMALL
    if texture.strength >= _SOFT_TEXTURE and _is_blurred(texture):
        return Hint.BLURRED
    return None if clear else Hint.NO_CODE


def _texture(gray: Gray, region: View) -> _Texture | None:
    scale = min(1.0, _SIDE / max(region.pixels.shape))
    small = resized(region.pixels, scale)
    window = max(7, max(small.shape) // 12 | 1)
    change = change_both_ways(small, window)
    strength = float(np.percentile(change[::4, ::4], 98))
    closing = np.ones((window, window), np.uint8)
    mask = cv2.morphologyEx((change > strength * _SHARE).astype(np.uint8), cv2.MORPH_CLOSE, closing)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    if not outlines or strength == 0:
        return None
    outline = max(outlines, key=cv2.contourArea)
    box = cv2.minAreaRect(outline)
    short, long = sorted(box[1])
    x, y, width, height = (round(value / scale) for value in cv2.boundingRect(outline))
    pixels = region.pixels[y : y + height, x : x + width]
    return _Texture(
        strength=strength,
        side_px=long / scale / region.scale,
        square=short / max(long, 1),
        filled=cv2.contourArea(outline) / max(short * long, 1),
        glare=_glare(small, cv2.boxPoints((box[0], (long, long), box[2]))),
        at_border=_at_border(gray, region, (x, y, width, height)),
        pixels=pixels,
    )


def _glare(small: Gray, corners: NDArray[Any]) -> float:
    """Share of the square that is saturated over more modules than a code has in a row without a dark one."""
    inside = np.zeros(small.shape, np.uint8)
    cv2.fillConvexPoly(inside, corners.astype(np.int32), 1)
    long = float(np.hypot(*(corners[1] - corners[0])))
    run = np.ones((max(3, int(_LONGEST_RUN * long / _MODULES)),) * 2, np.uint8)
    flat = cv2.morphologyEx((small >= _SATURATED).astype(np.uint8), cv2.MORPH_OPEN, run)
    return cv2.countNonZero(cv2.bitwise_and(flat, inside)) / max(1, cv2.countNonZero(inside))


def _at_border(gray: Gray, region: View, box: tuple[int, int, int, int]) -> bool:
    x, y, width, height = (value / region.scale for value in box)
    left, top = region.left + x, region.top + y
    gap = min(left, top, gray.shape[1] - left - width, gray.shape[0] - top - height)
    return bool(gap < _BORDER * max(width, height))


def _is_blurred(texture: _Texture) -> bool:
    pixels = _middle(texture.pixels)
    dark, light = _percentiles(pixels, 5, 95)
    grey = cv2.inRange(pixels, np.array(dark + 0.3 * (light - dark)), np.array(dark + 0.7 * (light - dark)))
    if cv2.countNonZero(grey) < _GREY_SHARE * grey.size:
        return False
    low, high = _EDGE_WIDTHS
    return low <= _edge_width(pixels, light - dark) * _MODULES / texture.side_px <= high


def _middle(pixels: Gray) -> Gray:
    top, left = (max(0, (side - _SAMPLE) // 2) for side in pixels.shape)
    return pixels[top : top + _SAMPLE, left : left + _SAMPLE]


def _edge_width(part: Gray, contrast: float) -> float:
    """Pixels that the steepest edges take from dark to light, in the direction that is blurred most."""
    if min(part.shape) < 3:
        return 0.0
    steps = ((part[1:-1, 2:], 1.0), (part[2:, 1:-1], 1.0), (part[2:, 2:], _DIAGONAL), (part[2:, :-2], _DIAGONAL))
    changes = ((np.asarray(cv2.absdiff(part[1:-1, 1:-1], there), np.uint8), length) for there, length in steps)
    slopes = [_percentiles(change, 97)[0] / length for change, length in changes]
    return contrast / max(1.0, min(slopes))


def _percentiles(values: Gray, *shares: float) -> list[float]:
    """As numpy's, for bytes and in a fraction of its time; the picture has at least one pixel."""
    below = cv2.calcHist([np.ascontiguousarray(values)], [0], None, [256], [0, 256]).cumsum()
    return [float(np.searchsorted(below, share / 100 * below[-1])) for share in shares]
