"""Light, lens and sensor: what happens to a picture between the road and the file.

Pictures are linear light in float32, height x width; 1.0 is where the sensor saturates.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Light = NDArray[np.float32]
Gray = NDArray[np.uint8]

_FULL_WELL = 5000  # electrons at gain 1: shot noise of a small sensor's pixel
_READ_NOISE = 2.5  # electrons


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cell_px: float) -> Light:
    """A random field of unit spread whose hills are about `cell_px` wide."""
    height, width = (max(2, int(side / cell_px) + 2) for side in shape)
    coarse = rng.standard_normal((height, width), dtype=np.float32)
    return np.asarray(cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC), np.float32)


def _grid(shape: tuple[int, int]) -> tuple[Light, Light]:
    """Row and column coordinates that broadcast to the shape."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    return y.astype(np.float32), x.astype(np.float32)


# ----------------------------------------------------------------------------------------------------- light


def sunlight(rng: np.random.Generator, shape: tuple[int, int]) -> Light:
    """Uneven light over the scene: a factor around 1."""
    y, x = _grid(shape)
    slope = rng.uniform(-0.25, 0.25, 2)
    return np.asarray(1 + slope[0] * (y / shape[0] - 0.5) + slope[1] * (x / shape[1] - 0.5), np.float32)


def hard_shadow(shape: tuple[int, int], point: tuple[float, float], angle_deg: float, factor: float) -> Light:
    """A factor: full light on one side of the line through (x, y), `factor` on the other, with a pixel of penumbra."""
    y, x = _grid(shape)
    angle = np.radians(angle_deg)
    distance = (x - point[0]) * np.cos(angle) + (y - point[1]) * np.sin(angle)
    return np.asarray(factor + (1 - factor) * np.clip(0.5 + distance / 3, 0, 1), np.float32)


def glare(
    rng: np.random.Generator, shape: tuple[int, int], point: tuple[float, float], radius_px: float, stretch: float
) -> Light:
    """Added light: the sun mirrored in an uneven gloss, saturated inside the radius, with a halo."""
    small = (shape[0] // 4, shape[1] // 4)
    y, x = _grid(small)
    away = np.hypot((4 * x - point[0]) / stretch, (4 * y - point[1]) * stretch) / max(radius_px, 1e-3)
    away = away * (1 + 0.06 * smooth_noise(rng, small, radius_px / 10 + 2))
    added = np.asarray(3 * np.exp(-(np.minimum(away / 1.1, 4) ** 5)) + 0.2 * np.exp(-away), np.float32)
    return np.asarray(cv2.resize(added, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR), np.float32)


def reflection(rng: np.random.Generator, shape: tuple[int, int], strength: float) -> Light:
    """Added light: sky, clouds and bare branches mirrored in a pane, out of focus."""
    small = (shape[0] // 4, shape[1] // 4)
    sky = np.clip(0.6 + 0.25 * smooth_noise(rng, small, 120), 0, 1)
    for _ in range(12):
        begin, end = ((int(rng.integers(0, small[1])), int(rng.integers(0, small[0]))) for _ in range(2))
        cv2.line(sky, begin, end, float(rng.uniform(0.05, 0.4)), int(rng.integers(2, 20)))
    mirrored = cv2.resize(cv2.GaussianBlur(sky, (0, 0), 2), (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(strength * mirrored, np.float32)


def banding(height: int, period_px: float, dark: float, phase: float) -> Light:
    """A factor for each row: a pulsed lamp under a rolling shutter leaves the share `dark` of the rows nearly black."""
    y = np.arange(height, dtype=np.float32)[:, None]
    place = np.abs((y / period_px + phase) % 1 - 0.5) * 2  # 0 in the middle of the dark part, 1 between two
    return np.asarray(0.004 + 0.996 * np.clip((place - dark) / 0.12 + 0.5, 0, 1), np.float32)


def pixel_grid(u: Light, v: Light, pitch: float, depth: float) -> Light:
    """A factor: a screen's pixels with the dark gaps between them, at surface coordinates u, v."""
    lit = (1 - depth * (0.5 + 0.5 * np.cos(2 * np.pi / pitch * along)) for along in (u, v))
    return np.asarray(np.multiply(*lit), np.float32)


# ---------------------------------------------------------------------------------------------------- optics


def lens(light: Light, sigma_px: float) -> Light:
    """What even a focused lens and its sensor's filter blur."""
    return np.asarray(cv2.GaussianBlur(light, (0, 0), sigma_px), np.float32)


def defocus(light: Light, diameter_px: float) -> Light:
    """Each point becomes a disc."""

    def disc(x: Light, y: Light, radius: float) -> Light:
        return np.asarray(np.clip(radius + 0.5 - np.hypot(x, y), 0, 1), np.float32)

    return _filtered(light, diameter_px, disc)


def motion(light: Light, length_px: float, angle_deg: float) -> Light:
    """Each point becomes a line, as long as it moves while the shutter is open."""
    angle = np.radians(angle_deg)

    def line(x: Light, y: Light, radius: float) -> Light:
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        inside = np.clip(radius + 0.5 - np.abs(along), 0, 1) * np.clip(1 - np.abs(across), 0, 1)
        return np.asarray(inside, np.float32)

    return _filtered(light, length_px, line)


def _filtered(light: Light, width_px: float, weight: Callable[[Light, Light, float], Light]) -> Light:
    if width_px <= 1:
        return light
    reach = int(np.ceil(width_px / 2))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    kernel = weight(x, y, width_px / 2)
    return np.asarray(cv2.filter2D(light, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE), np.float32)


# ---------------------------------------------------------------------------------------------------- sensor


def pixels(light: Light, skipping: bool) -> Light:
    """Half the size: each pixel averages what falls on it, or, with a readout that skips, sees only a point of it."""
    height, width = light.shape
    if skipping:
        return np.ascontiguousarray(light[::2, ::2])
    return np.asarray(cv2.resize(light, (width // 2, height // 2), interpolation=cv2.INTER_AREA), np.float32)


def developed(light: Light, rng: np.random.Generator, gain: float) -> Gray:
    """Shot and read noise at a gain, saturation, the sRGB curve (IEC 61966-2-1) and eight bits."""
    electron = gain / _FULL_WELL
    spread = np.sqrt(np.maximum(light, 0) * electron + (_READ_NOISE * electron) ** 2)
    noisy = np.clip(light + spread * rng.standard_normal(light.shape, dtype=np.float32), 0, 1)
    return _curve()[(noisy * 4095 + 0.5).astype(np.uint16)]


def _curve() -> Gray:
    linear = np.linspace(0, 1, 4096)
    coded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(coded * 255), np.uint8)


def jpeg(gray: Gray, quality: int) -> Gray:
    """Through the codec once."""
    _, data = cv2.imencode(".jpg", gray, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)
