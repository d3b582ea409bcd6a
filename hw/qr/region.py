"""Where in a frame a code is most likely: the parts with much change both ways."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Gray = NDArray[np.uint8]
Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels; right and bottom lie outside

_SIDE = 480  # pixels, longest side of the copy that is looked at
_WINDOW = 31  # pixels of that copy; a code that can be read spans at least as much
_SHARE = 0.4  # of the strongest energy; lower lets the background in, higher cuts codes in half
_LEAST = 0.1  # of the strongest energy of all; what has less is not worth a look of its own
_APART = _WINDOW // 2  # pixels of the copy around a part that belong to it
_MARGIN = 0.25  # of the region's side, on each side: the quiet zone and what the shadow hid


def find_regions(gray: Gray, most: int, read: Iterable[NDArray[Any]] = ()) -> list[Box]:
    """Squares around the places that most look like a code, the likeliest first; the whole frame if nothing stands out.

    Edges and letters change strongly in one direction; hence the smaller of the two energies. Meshes change both ways
    as codes do, and more strongly than faint print: hence more than one place. What lies inside the outlines `read`,
    corner by corner in pixels, is taken for white.
    """
    height, width = gray.shape
    scale = min(1.0, _SIDE / max(height, width))
    small = _reduced(gray, scale)
    for outline in read:
        cv2.fillConvexPoly(small, np.rint(outline * scale).astype(np.int32), 255)
    energy = change_both_ways(small, _WINDOW)
    least = float(energy.max()) * _LEAST
    boxes: list[Box] = []
    while len(boxes) < most and (peak := float(energy.max())) > least:
        x, y, w, h = _around_peak(energy, peak)
        energy[max(0, y - _APART) : y + h + _APART, max(0, x - _APART) : x + w + _APART] = 0
        reach = max(w, h) * (0.5 + _MARGIN)
        left, right = ((x + w / 2 + side) / scale for side in (-reach, reach))
        top, bottom = ((y + h / 2 + side) / scale for side in (-reach, reach))
        boxes.append((max(left, 0), max(top, 0), min(right, width), min(bottom, height)))
    return boxes or [(0, 0, width, height)]


def _around_peak(energy: NDArray[np.float32], peak: float) -> tuple[int, int, int, int]:
    """Left, top, width and height of the part around the strongest place that is nearly as strong."""
    place = np.unravel_index(int(energy.argmax()), energy.shape)
    _, labels, boxes, _ = cv2.connectedComponentsWithStats((energy > peak * _SHARE).astype(np.uint8))
    x, y, w, h = (int(value) for value in boxes[labels[place]][:4])
    return x, y, w, h


def change_both_ways(gray: Gray, window: int) -> NDArray[np.float32]:
    """For each pixel the mean change around it, across or down, whichever is less; in logarithms of light.

    Light falls on a code as a factor: in logarithms its shaded half changes as much as the sunlit one.
    """
    even = cv2.LUT(gray, _logarithm())
    across, down = (
        cv2.boxFilter(cv2.convertScaleAbs(cv2.Sobel(even, cv2.CV_16S, dx, dy, ksize=1)), cv2.CV_32F, (window, window))
        for dx, dy in ((1, 0), (0, 1))
    )
    return np.asarray(np.minimum(across, down), np.float32)


def _reduced(gray: Gray, scale: float) -> Gray:
    height, width = (max(1, round(side * scale)) for side in gray.shape)
    return np.asarray(cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _logarithm() -> Gray:
    return np.asarray(np.rint(np.log1p(np.arange(256) / 8) / np.log1p(255 / 8) * 255), np.uint8)
