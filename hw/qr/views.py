"""The pictures made of one frame: cut out, scaled, and put through one operation each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hw.qr.region import find_regions
from verifier.types import CodeSeen

Gray = NDArray[np.uint8]

_LOOK_SIDE = 1280  # pixels, longest side of the reduced frame: what every decoder manages in bounded time
_FULL_SIDE = 2592  # pixels, longest side; the frame of the usual camera modules unreduced
_ENLARGE_LIMIT = 640  # pixels, longest side; a code that fills more has large modules, and time is short
_REGIONS = 2  # places that are cut out: a mesh may draw more attention than the code
_MARGIN = 0.4  # of a code's side, on each side, when it is looked for again: a hand moves between two frames
_COVERING_SIDE = 120  # pixels; error correction lets a mark of some 60 modules take half the side
_FINDER = 7  # modules, side of a finder pattern; ISO/IEC 18004 clause 6.3.3
_FINDER_SHARE = 0.24  # of a side, where the version is not known: most of the pattern in the smallest symbol


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A picture made from a frame; its pixel (x, y) lies at (left + x / scale, top + y / scale) of the frame."""

    pixels: Gray
    scale: float = 1.0
    left: int = 0
    top: int = 0

    def in_frame(self, code: CodeSeen) -> CodeSeen:
        """The code with its corners in frame pixels."""
        corners = tuple((round(self.left + x / self.scale), round(self.top + y / self.scale)) for x, y in code.corners)
        return replace(code, corners=corners)


class Views:
    """The views of one frame that several stages share, each made when first asked for."""

    def __init__(self, gray: Gray, read: Sequence[NDArray[Any]] = ()) -> None:
        """`read` holds the outlines of codes that draw no attention any more."""
        self._whole = View(np.ascontiguousarray(gray))
        self._read = tuple(read)

    @property
    def gray(self) -> Gray:
        """The frame itself."""
        return self._whole.pixels

    @cached_property
    def frame(self) -> View:
        """The frame; a large one reduced."""
        return _fitted(self._whole, _LOOK_SIDE)

    @cached_property
    def full(self) -> View | None:
        """A large frame in as much detail as any stage may look at in one go; None for others."""
        return _fitted(self._whole, _FULL_SIDE) if max(self.gray.shape) > _LOOK_SIDE else None

    @cached_property
    def half(self) -> View:
        """The frame at half size: averages noise away."""
        return scaled(self.frame, 0.5)

    @property
    def region(self) -> View:
        """The part of the frame that most looks like a code, in full resolution up to the size of a frame."""
        return self._regions[0]

    @property
    def second_region(self) -> View | None:
        """The part that most looks like a code after the first; None when there is no further one."""
        return self._regions[1] if len(self._regions) > 1 else None

    @cached_property
    def covered(self) -> View | None:
        """What the largest code read so far covers; None when none is large enough to hold another one."""
        outline = max(self._read, key=cv2.contourArea, default=None)
        if outline is None or cv2.contourArea(outline) < _COVERING_SIDE**2:
            return None
        (left, top), (right, bottom) = outline.min(axis=0), outline.max(axis=0)
        return self._cut(left, top, right, bottom)

    @cached_property
    def enlarged(self) -> View:
        """The region at twice the size, unless it is large already."""
        region = self.region
        return region if max(region.pixels.shape) > _ENLARGE_LIMIT else scaled(region, 2.0)

    def around(self, code: CodeSeen) -> View:
        """Where the code was seen and as far around as it may have moved since."""
        (left, top), (right, bottom) = np.min(code.corners, axis=0), np.max(code.corners, axis=0)
        margin = _MARGIN * max(right - left, bottom - top)
        return self._cut(left - margin, top - margin, right + margin, bottom + margin)

    def without(self, codes: Iterable[CodeSeen]) -> Views:
        """The views of the same frame in which these codes are not read again, so that others come to the fore.

        Only their finder patterns are painted over: a mark may lie inside the outline of a foreign code.
        """
        pixels, read = self.gray.copy(), list(self._read)
        for code in codes:
            if len(code.corners) > 2:
                outline = _outline(code)
                read.append(outline)
                for pattern in _finder_patterns(outline, code.version):
                    cv2.fillConvexPoly(pixels, pattern, 255)
        return Views(pixels, read)

    @cached_property
    def _regions(self) -> list[View]:
        return [self._cut(*box) for box in find_regions(self.gray, _REGIONS, self._read)]

    def _cut(self, left: float, top: float, right: float, bottom: float) -> View:
        height, width = self.gray.shape
        x, y = _clamp(left, width - 1), _clamp(top, height - 1)
        part = self.gray[y : max(y + 1, _clamp(bottom, height)), x : max(x + 1, _clamp(right, width))]
        return _fitted(View(np.ascontiguousarray(part), left=x, top=y), _LOOK_SIDE)


def _outline(code: CodeSeen) -> NDArray[Any]:
    """Four corners around the code."""
    hull = cv2.convexHull(np.array(code.corners, np.float32))
    return hull[:, 0] if len(hull) == 4 else cv2.boxPoints(cv2.minAreaRect(hull))


def _finder_patterns(outline: NDArray[Any], version: int | None) -> list[NDArray[np.int32]]:
    """What lies in each corner; which of them holds no finder pattern is not known of every code."""
    share = _FINDER / (17 + 4 * version) if version else _FINDER_SHARE
    along, back = (share * (np.roll(outline, step, axis=0) - outline) for step in (-1, 1))
    patterns = np.stack([outline, outline + along, outline + along + back, outline + back], axis=1)
    return list(np.rint(patterns).astype(np.int32))


def _clamp(value: float, limit: int) -> int:
    return int(min(max(value, 0), limit))


def resized(gray: Gray, scale: float) -> Gray:
    """The picture with its sides times `scale`; no side becomes empty."""
    height, width = (max(1, round(side * scale)) for side in gray.shape)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(gray, (width, height), interpolation=method), np.uint8)


def scaled(view: View, scale: float) -> View:
    """The view at another size."""
    return replace(view, pixels=resized(view.pixels, scale), scale=view.scale * scale)


def _fitted(view: View, side: int) -> View:
    longest = max(view.pixels.shape)
    return view if longest <= side else scaled(view, side / longest)


def _with(view: View, pixels: NDArray[Any]) -> View:
    return replace(view, pixels=np.asarray(pixels, np.uint8))


def _odd(length: float) -> int:
    return max(3, int(length) | 1)


def as_it_is(view: View) -> View:
    """No operation."""
    return view


def thresholded(view: View, parts: int) -> View:
    """Black and white by the mean of such a part of the picture's side: dirt, gradients, moiré."""
    block = _odd(min(view.pixels.shape) / parts)
    method, kind = cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY
    return _with(view, cv2.adaptiveThreshold(view.pixels, 255, method, kind, block, 5))


def binarised(view: View, sigma: float, parts: int) -> View:
    """Black and white by the light of the few modules around, noise smoothed away: faint print, shadow edges, bands."""
    smooth = cv2.GaussianBlur(view.pixels, (0, 0), sigma)
    block = _odd(min(view.pixels.shape) / parts)
    method, kind = cv2.ADAPTIVE_THRESH_GAUSSIAN_C, cv2.THRESH_BINARY
    return _with(view, cv2.adaptiveThreshold(smooth, 255, method, kind, block, 0))


def flattened(view: View) -> View:
    """Divided by its own background: shadows and faint print."""
    side = _odd(min(view.pixels.shape) / 6)
    light = cv2.blur(view.pixels, (side, side))
    return _with(view, cv2.divide(view.pixels, light, scale=128))


def smoothed(view: View) -> View:
    """Without the finest detail: glare speckle, screen pixels, dot printing."""
    return _with(view, cv2.GaussianBlur(view.pixels, (0, 0), 1.2))


def sharpened(view: View) -> View:
    """With fine detail weighed up against coarse: defocus, slight motion."""
    coarse = cv2.blur(view.pixels, (13, 13))
    return _with(view, cv2.addWeighted(view.pixels, 2.5, coarse, -1.5, 0))


def linear(view: View) -> View:
    """In linear light (IEC 61966-2-1): blur moves edges towards the dark in the coded picture, and not in the light."""
    return _with(view, cv2.LUT(view.pixels, _linear_light()))


def enlarged_in_linear_light(view: View) -> View:
    """At twice the size: modules below two pixels."""
    return linear(scaled(view, 2.0))


def inverted(view: View) -> View:
    """Light and dark exchanged; zxing does that itself, zbar does not."""
    return _with(view, 255 - view.pixels)


@cache
def _linear_light() -> Gray:
    coded = np.arange(256) / 255
    light = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    return np.asarray(np.rint(light * 255), np.uint8)
