"""The make of a symbol that was read, for diagnostics: how large it is, and whether its margin is what it must be.

ISO/IEC 18004: 17 + 4 x version modules a side (clause 6.3.1), timing patterns in the seventh row and column (6.3.5), a
quiet zone of 4 modules on all sides (6.3.8).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hw.qr.views import Gray
from verifier.types import CodeSeen

QUIET_ZONE = 4  # modules

_MOST_VERSION = 40
_FINDER = 7  # modules; with a light one around it
_ALIKE = 0.9  # of the timing patterns' modules
_STEPS = 4  # a module
_CLEAR = 0.95  # of what lies at a distance from a side; noise may take the rest
_CORNERS = 0.75  # modules, to which a decoder tells the corners of an upright code; of a turned one to about one
_SHORT = 1.0  # modules; less of the quiet zone may seem to be lacking where it is whole


@dataclass(frozen=True, slots=True)
class Symbol:
    """What was measured of one symbol.

    `quiet_zone` is the narrowest of its four margins in modules, in quarters, from 0.75 (none or hardly any) to
    QUIET_ZONE; what lies outside the frame is no margin. All are None where the picture does not tell the version.
    """

    version: int | None
    module_px: float | None
    quiet_zone: float | None

    @property
    def quiet_zone_missing(self) -> bool:
        """Whether the margin lacks more than a module of what the standard asks; False where it is not known."""
        return self.quiet_zone is not None and self.quiet_zone < QUIET_ZONE - _SHORT


def measure_symbol(gray: Gray, code: CodeSeen) -> Symbol | None:
    """The make of a code that was read in a uint8 height x width frame; None when it has no four corners."""
    corners = np.array(code.corners, np.float32)
    if corners.shape != (4, 2) or cv2.contourArea(corners) < 1:
        return None
    version = code.version or _version(gray, corners)
    if version is None:
        return Symbol(version=None, module_px=None, quiet_zone=None)
    modules = 17 + 4 * version
    side_px = float(np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1).mean())
    return Symbol(version=version, module_px=side_px / modules, quiet_zone=_quiet_zone(gray, corners, modules))


def _version(gray: Gray, corners: NDArray[Any]) -> int | None:
    """The largest version whose timing patterns are there; which corner is the first is not known of every code."""
    for version in range(_MOST_VERSION, 0, -1):
        modules = 17 + 4 * version
        along = np.arange(_FINDER + 1, modules - _FINDER - 1) + 0.5
        across = np.full_like(along, _FINDER - 0.5)
        dark = np.tile(np.arange(len(along)) % 2 == 0, 2)
        for turn in range(4):
            turned = np.roll(corners, turn, axis=0)
            light = _samples(gray, turned, modules, np.r_[along, across], np.r_[across, along])
            middle = (int(light.min()) + int(light.max())) / 2
            if abs(np.mean((light < middle) == dark) - 0.5) >= _ALIKE - 0.5:  # alike, or the exact negative
                return version
    return None


def _quiet_zone(gray: Gray, corners: NDArray[Any], modules: int) -> float:
    """The narrowest margin, in modules."""
    everywhere = np.arange(modules) + 0.5
    inside = _samples(gray, corners, modules, *np.meshgrid(everywhere, everywhere))
    middle = (float(np.percentile(inside, 5)) + float(np.percentile(inside, 95))) / 2
    inverted = np.mean(np.r_[inside[0, :_FINDER], inside[:_FINDER, 0], inside[0, -_FINDER:]] < middle) < 0.5
    return min(
        _margin(gray, np.roll(corners, turn, axis=0), modules, middle, inverted=bool(inverted)) for turn in range(4)
    )


def _margin(gray: Gray, corners: NDArray[Any], modules: int, middle: float, *, inverted: bool) -> float:
    """How far light reaches beyond the side between the first two corners, in modules."""
    away = (np.arange(QUIET_ZONE * _STEPS) + 1) / _STEPS
    x, y = np.meshgrid(np.arange(0.5, modules, 1 / _STEPS), -away)
    outside = _samples(gray, corners, modules, x, y)
    clear = np.mean((outside < middle) == inverted, axis=1) >= _CLEAR
    clear[: int(_CORNERS * _STEPS)] = True  # the side itself may lie there
    return float(QUIET_ZONE if clear.all() else int(np.argmin(clear)) / _STEPS)


def _samples(gray: Gray, corners: NDArray[Any], modules: int, x: NDArray[Any], y: NDArray[Any]) -> Gray:
    """The picture at places given in modules from the first corner; black outside of it."""
    upright = np.array([[0, 0], [modules, 0], [modules, modules], [0, modules]], np.float32)
    places = np.stack([x, y], axis=-1).astype(np.float32)
    there = cv2.perspectiveTransform(places.reshape(-1, 1, 2), cv2.getPerspectiveTransform(upright, corners))
    across, down = (there[..., axis].reshape(len(x), -1) for axis in (0, 1))
    sampled = cv2.remap(gray, across, down, cv2.INTER_LINEAR)
    return np.asarray(sampled.reshape(x.shape), np.uint8)
