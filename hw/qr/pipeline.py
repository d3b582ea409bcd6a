"""A frame in, the codes in it out: the cheap look first, then ever more effort until something is read.

Which stages, and in which order, was measured on photographs: the two libraries fail on different things,
zxing takes a tenth of zbar's time, and most of what the first call misses is read once the region that holds
the code is cut out and enlarged. Importing this module loads OpenCV; the scanner process does, others need not.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hw.interfaces import CodeDecoder
from verifier.types import CodeSeen

Gray = NDArray[np.uint8]

_MARK = re.compile(rb"VM[0-9]")  # any version of our prefix: a newer one deserves its own answer

_FINDER_SIDE = 480  # pixels, longest side of the copy in which the region is looked for
_FINDER_WINDOW = 31  # pixels of that copy; a code that can be read spans at least as much
_FINDER_SHARE = 0.4  # of the strongest energy; lower lets the background in, higher cuts codes in half
_FINDER_MARGIN = 0.25  # of the region's side, on each side: the quiet zone and what the shadow hid
_ENLARGE_LIMIT = 1280  # pixels, longest side; beyond, modules are large enough and time is not


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

    def __init__(self, gray: Gray) -> None:
        self.frame = View(gray)

    @cached_property
    def half(self) -> View:
        """The frame at half size: averages noise away."""
        return _scaled(self.frame, 0.5)

    @cached_property
    def region(self) -> View:
        """The part of the frame that most looks like a code."""
        return find_region(self.frame.pixels)

    @cached_property
    def enlarged(self) -> View:
        """The region at twice the size, unless it is large already."""
        return _enlarged(self.region)

    @property
    def frame_enlarged(self) -> View:
        """The frame at twice the size, for a code that is not in the region."""
        return _enlarged(self.frame)


def find_region(gray: Gray) -> View:
    """Cut out the square with much change both ways, as only codes have; the whole frame when nothing stands out.

    Edges, letters and grilles change strongly in one direction; hence the smaller of the two energies.
    """
    height, width = gray.shape
    scale = min(1.0, _FINDER_SIDE / max(height, width))
    small = cv2.LUT(_resized(gray, scale), _logarithm())
    window = (_FINDER_WINDOW, _FINDER_WINDOW)
    across, down = (
        cv2.boxFilter(cv2.convertScaleAbs(cv2.Sobel(small, cv2.CV_16S, dx, dy, ksize=1)), cv2.CV_32F, window)
        for dx, dy in ((1, 0), (0, 1))
    )
    energy = np.minimum(across, down)
    peak = np.unravel_index(int(energy.argmax()), energy.shape)
    if not energy[peak] > 0:
        return View(gray)
    _, labels, boxes, _ = cv2.connectedComponentsWithStats((energy > energy[peak] * _FINDER_SHARE).astype(np.uint8))
    x, y, w, h = (int(v) for v in boxes[labels[peak]][:4])
    reach = max(w, h) * (0.5 + _FINDER_MARGIN)
    left, right = (_clamp((x + w / 2 + side) / scale, width) for side in (-reach, reach))
    top, bottom = (_clamp((y + h / 2 + side) / scale, height) for side in (-reach, reach))
    return View(np.ascontiguousarray(gray[top:bottom, left:right]), left=left, top=top)


def _logarithm() -> Gray:
    """Light falls on a code as a factor: in logarithms its shaded half has the energy of the sunlit one."""
    return np.asarray(np.rint(np.log1p(np.arange(256) / 8) / np.log1p(255 / 8) * 255), np.uint8)


def _clamp(value: float, limit: int) -> int:
    return int(min(max(value, 0), limit))


def _resized(gray: Gray, scale: float) -> Gray:
    height, width = (max(1, round(side * scale)) for side in gray.shape)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(gray, (width, height), interpolation=method), np.uint8)


def _scaled(view: View, scale: float) -> View:
    return replace(view, pixels=_resized(view.pixels, scale), scale=view.scale * scale)


def _with(view: View, pixels: NDArray[Any]) -> View:
    return replace(view, pixels=np.asarray(pixels, np.uint8))


def _enlarged(view: View) -> View:
    return view if max(view.pixels.shape) > _ENLARGE_LIMIT else _scaled(view, 2.0)


def _odd(length: float) -> int:
    return max(3, int(length) | 1)


def _thresholded(view: View, parts: int) -> View:
    """Black and white by the mean of such a part of the picture's side: dirt, gradients, moiré."""
    block = _odd(min(view.pixels.shape) / parts)
    method, kind = cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY
    return _with(view, cv2.adaptiveThreshold(view.pixels, 255, method, kind, block, 5))


def _flattened(view: View) -> View:
    """Divided by its own background: shadows and faint print."""
    side = _odd(min(view.pixels.shape) / 6)
    light = cv2.blur(view.pixels, (side, side))
    return _with(view, cv2.divide(view.pixels, light, scale=128))


def _smoothed(view: View) -> View:
    """Without the finest detail: glare speckle, screen pixels, dot printing."""
    return _with(view, cv2.GaussianBlur(view.pixels, (0, 0), 1.2))


def _sharpened(view: View) -> View:
    """With fine detail weighed up against coarse: defocus, slight motion."""
    coarse = cv2.GaussianBlur(view.pixels, (0, 0), 4)
    return _with(view, cv2.addWeighted(view.pixels, 2.5, coarse, -1.5, 0))


def _inverted(view: View) -> View:
    """Light and dark exchanged; zxing does that itself, zbar does not."""
    return _with(view, 255 - view.pixels)


@dataclass(frozen=True, slots=True)
class Stage:
    """One attempt: the decoder's name and the picture it is given."""

    name: str
    decoder: str
    view: Callable[[Views], View]


# Stages of a decoder that is not installed are passed over; what remains is a ladder of its own.
STAGES: tuple[Stage, ...] = (
    Stage("frame", "zxing", lambda views: views.frame),
    Stage("half", "zxing", lambda views: views.half),
    Stage("region", "zxing", lambda views: views.region),
    Stage("region enlarged", "zxing", lambda views: views.enlarged),
    Stage("region flattened", "zxing", lambda views: _flattened(views.enlarged)),
    Stage("region thresholded", "zxing", lambda views: _thresholded(views.region, 8)),
    Stage("region sharpened", "zxing", lambda views: _sharpened(views.enlarged)),
    Stage("half", "zbar", lambda views: views.half),
    Stage("frame thresholded", "zbar", lambda views: _thresholded(views.frame, 8)),
    Stage("half inverted", "zbar", lambda views: _inverted(views.half)),
    Stage("region enlarged", "zbar", lambda views: views.enlarged),
    Stage("region inverted", "zbar", lambda views: _inverted(views.enlarged)),
    Stage("region thresholded", "zbar", lambda views: _thresholded(views.enlarged, 8)),
    Stage("region flattened", "zbar", lambda views: _flattened(views.enlarged)),
    Stage("region sharpened", "zbar", lambda views: _sharpened(views.enlarged)),
    Stage("frame", "zbar", lambda views: views.frame),
    Stage("frame thresholded finely", "zbar", lambda views: _thresholded(views.frame, 30)),
    Stage("frame enlarged", "zxing", lambda views: views.frame_enlarged),
    Stage("frame smoothed", "zxing", lambda views: _smoothed(views.frame)),
)


def decode_frame(
    gray: Gray,
    decoders: Sequence[CodeDecoder],
    *,
    budget_s: float,
    clock: Callable[[], float] = time.monotonic,
    stages: Sequence[Stage] = STAGES,
) -> list[CodeSeen]:
    """The codes in a uint8 height x width frame, each payload once.

    Stage after stage until one reads something that begins like a mark: a foreign code that reads easily must not hide
    a mark beside it. Empty when no stage reads anything. `budget_s` seconds are looked at between stages: the first
    always runs, and one that has begun is not cut short.
    """
    if gray.size == 0:
        return []
    by_name = {decoder.name: decoder for decoder in decoders}
    deadline = clock() + budget_s
    views = Views(gray)
    found: list[CodeSeen] = []
    for stage in stages:
        if stage.decoder not in by_name:
            continue
        view = stage.view(views)
        found += [view.in_frame(code) for code in by_name[stage.decoder].decode(view.pixels)]
        if marks(found) or clock() >= deadline:
            break
    return _unique(found)


def _unique(codes: Iterable[CodeSeen]) -> list[CodeSeen]:
    first: dict[bytes, CodeSeen] = {}
    for code in codes:
        first.setdefault(code.payload, code)
    return list(first.values())


def marks(codes: Iterable[CodeSeen]) -> list[CodeSeen]:
    """The codes that begin like a mark, of whatever version; all of them, for the caller to choose from."""
    return [code for code in codes if _MARK.match(code.payload)]
