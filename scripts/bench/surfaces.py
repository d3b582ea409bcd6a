"""What stands before the camera: a mark on paper, phone or label, bent and turned, before bodywork and gravel.

Pictures are reflectance in float32, height x width, 1.0 for perfect white.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from scripts.bench.optics import Light, pixel_grid, smooth_noise
from scripts.sandbox.codes import QUIET_ZONE, qr_picture

_MARGIN = 14  # modules of the surface around the code
_CAMERA_DISTANCE = 3.0  # in widths of the code
_LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ0123456789"


class Medium(StrEnum):
    """What carries the code."""

    PAPER = "paper"
    PHONE = "phone"
    LABEL = "label"


class Sheet(NamedTuple):
    """A surface with a code in its middle."""

    reflectance: Light
    modules: int  # of the code's side
    module_px: int  # pixels of the reflectance


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """How the surface lies in the picture; pixels are those of the picture it is set into."""

    module_px: float
    x: float
    y: float
    turn_deg: float
    tilt_deg: float
    cylinder_deg: float
    crumple: float  # modules
    grid_pitch: float  # modules; 0 for none
    grid_depth: float


# ---------------------------------------------------------------------------------------------------- surface


def sheet(
    text: str,
    rng: np.random.Generator,
    *,
    medium: Medium,
    module_px: int,
    contrast: float,
    quiet_zone: float,
    dirt: float,
    inverted: bool,
) -> Sheet:
    """The surface with the code of this text; quiet zone in modules, contrast and dirt as shares."""
    dark = np.asarray(qr_picture(text, scale=1))[QUIET_ZONE:-QUIET_ZONE, QUIET_ZONE:-QUIET_ZONE] < 128
    side = (dark.shape[0] + 2 * _MARGIN) * module_px
    ink = _medium(rng, medium, side, module_px)
    edge = _MARGIN * module_px
    inside = slice(edge, side - edge)
    ink[inside, inside] = np.kron(dark, np.ones((module_px, module_px), np.float32))
    _close_in(ink, rng, module_px, edge - quiet_zone * module_px)
    if inverted:
        ink = 1 - ink
    white = 0.9 * (1 + 0.015 * smooth_noise(rng, ink.shape, 1.5))  # fibres of paper, grain of plastic
    reflectance = white * (1 - contrast * ink)
    if dirt > 0:
        _soil(reflectance, rng, inside, module_px, dirt)
    return Sheet(np.asarray(reflectance, np.float32), dark.shape[0], module_px)


def _medium(rng: np.random.Generator, medium: Medium, side: int, module_px: int) -> Light:
    """The surface without its code, as ink: 0 white, 1 black; QUIET_ZONE modules around the code are left clear."""
    ink = np.zeros((side, side), np.float32)
    clear = _MARGIN - QUIET_ZONE
    if medium is Medium.PAPER:
        for row in (0.35, 0.75):
            for y in (row * clear, _MARGIN * 2 + side / module_px - 2 * _MARGIN - row * clear):
                _write(ink, rng, module_px * 2.4, y * module_px, 0.9)
        return ink
    rim = round((clear - 1) * module_px * (0.5 if medium is Medium.PHONE else 0.8))
    frame = 0.97 if medium is Medium.PHONE else 0.75
    ink[:rim], ink[-rim:], ink[:, :rim], ink[:, -rim:] = frame, frame, frame, frame
    if medium is Medium.PHONE:
        _write(ink, rng, module_px * 2, (clear - 1.2) * module_px, 0.6)
    return ink


def _write(ink: Light, rng: np.random.Generator, height_px: float, baseline: float, strength: float) -> None:
    """A line of letters across the surface, its middle at `baseline`."""
    text = "".join(_LETTERS[i] for i in rng.integers(0, len(_LETTERS), 24))
    scale = height_px / 24
    spot = (round(0.12 * ink.shape[1]), round(baseline + height_px / 2))
    cv2.putText(ink, text, spot, cv2.FONT_HERSHEY_SIMPLEX, scale, strength, max(1, round(2 * scale)), cv2.LINE_AA)


def _close_in(ink: Light, rng: np.random.Generator, module_px: int, edge: float) -> None:
    """Cover everything farther out than `edge` pixels from the border with dark, streaky stuff, if that is too near."""
    if edge <= (_MARGIN - QUIET_ZONE) * module_px:
        return
    cover = np.clip(0.8 + 0.15 * smooth_noise(rng, ink.shape, 2 * module_px), 0, 1)
    near = round(edge)
    cover[near:-near, near:-near] = ink[near:-near, near:-near]
    ink[:] = cover


def _soil(reflectance: Light, rng: np.random.Generator, inside: slice, module_px: int, share: float) -> None:
    """Mud and droppings over exactly this share of the code, in blots of some modules and in specks."""
    shape = (reflectance.shape[0], reflectance.shape[1])
    blots = smooth_noise(rng, shape, 7 * module_px) + 0.6 * smooth_noise(rng, shape, 2 * module_px)
    covered = blots > np.quantile(blots[inside, inside], 1 - share)
    shade = np.clip(0.28 + 0.12 * smooth_noise(rng, shape, 3 * module_px), 0.05, 0.8)
    reflectance[covered] = shade[covered]


# --------------------------------------------------------------------------------------------------- geometry


def compose(scene: Light, printed: Sheet, pose: Pose, rng: np.random.Generator) -> Light:
    """The scene with the surface in its place."""
    shape = scene.shape
    matrix = _projection(printed, pose)
    top, bottom, left, right = _bounds(printed, matrix, shape[0], shape[1])
    y, x = np.mgrid[top:bottom, left:right].astype(np.float32)
    u, v, shade = _unprojected(x, y, printed, pose, matrix, rng)
    scale, origin = printed.module_px, printed.reflectance.shape[0] / 2 - 0.5
    maps = np.stack([u, v]) * scale + origin
    layer = _sampled(printed.reflectance, maps) * shade
    share = _sampled(np.ones_like(printed.reflectance), maps)
    if pose.grid_depth > 0:
        layer *= pixel_grid(u, v, pose.grid_pitch, pose.grid_depth)
    out = scene.copy()
    out[top:bottom, left:right] = layer + (1 - share) * scene[top:bottom, left:right]
    return out


def _sampled(surface: Light, maps: Light) -> Light:
    """The surface's values at column and row coordinates, 0 outside."""
    return np.asarray(cv2.remap(surface, maps[0], maps[1], cv2.INTER_LINEAR, borderValue=0), np.float32)


def _projection(printed: Sheet, pose: Pose) -> NDArray[np.float64]:
    """The homography from the surface, in modules around the code's middle, to the picture (a pinhole camera)."""
    turn, tilt = np.radians(pose.turn_deg), np.radians(pose.tilt_deg)
    spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)], [0, 0]])
    lean = np.array([[np.cos(tilt), 0, 0], [0, 1, 0], [np.sin(tilt), 0, 1]])
    x, y, z = lean @ spin  # rows: coefficients of the two surface axes
    distance = _CAMERA_DISTANCE * printed.modules
    to_picture = np.array([[pose.module_px, 0, pose.x], [0, pose.module_px, pose.y], [0, 0, 1]])
    return np.asarray(to_picture @ np.array([[*x, 0], [*y, 0], [*(z / distance), 1]]), np.float64)


def _bounds(printed: Sheet, matrix: NDArray[np.float64], height: int, width: int) -> tuple[int, int, int, int]:
    half = printed.reflectance.shape[0] / printed.module_px / 2 + 2
    corners = np.array([[[-half, -half], [half, -half], [half, half], [-half, half]]])
    x, y = cv2.perspectiveTransform(corners, matrix)[0].T
    top, bottom = (int(np.clip(value, 0, height)) for value in (y.min(), y.max() + 1))
    left, right = (int(np.clip(value, 0, width)) for value in (x.min(), x.max() + 1))
    return top, bottom, left, right


def _unprojected(
    x: Light, y: Light, printed: Sheet, pose: Pose, matrix: NDArray[np.float64], rng: np.random.Generator
) -> tuple[Light, Light, Light]:
    """Surface coordinates in modules, and the light each place gets by how it is bent, for picture coordinates."""
    points = cv2.perspectiveTransform(np.stack([x, y], axis=-1), np.linalg.inv(matrix))
    u, v = (np.asarray(points[..., axis], np.float32) for axis in (0, 1))
    shade = np.ones_like(u)
    if pose.cylinder_deg > 0:
        radius = printed.modules / 2 / np.radians(pose.cylinder_deg)
        sine = u / radius
        shade = np.sqrt(np.clip(1 - sine**2, 0, 1))
        u = np.where(np.abs(sine) < 1, radius * np.arcsin(np.clip(sine, -1, 1)), 4 * printed.modules)
    if pose.crumple > 0:
        shift_u, shift_v, folds = _crumpled(u, v, printed.modules, rng)
        u, v = u + pose.crumple * shift_u, v + pose.crumple * shift_v
        shade = shade * np.clip(1 + 0.25 * min(pose.crumple, 1.5) * folds, 0.2, 1.6)
    return np.asarray(u, np.float32), np.asarray(v, np.float32), np.asarray(shade, np.float32)


def _crumpled(u: Light, v: Light, modules: int, rng: np.random.Generator) -> tuple[Light, Light, Light]:
    """Folded paper: how far each place moves (unit spread, two axes), and how much its facet turns to the light."""
    height, slope = np.zeros_like(u), np.zeros_like(u)
    for _ in range(9):
        angle, distance = rng.uniform(0, np.pi), rng.uniform(-0.6, 0.6) * modules
        side = u * np.cos(angle) + v * np.sin(angle) - distance
        lift = rng.uniform(-1, 1)
        height += lift * np.abs(side) / modules * 3
        slope += lift * np.tanh(side) * np.cos(angle - 0.7)
    height -= height.mean()
    wobble = [smooth_noise(rng, (u.shape[0], u.shape[1]), u.shape[0] / 7) for _ in range(2)]
    unit = height / max(float(height.std()), 1e-6)
    shifts = 0.7 * unit + 0.7 * wobble[0], 0.5 * unit + 0.8 * wobble[1]
    return np.asarray(shifts[0], np.float32), np.asarray(shifts[1], np.float32), np.asarray(slope / 2, np.float32)


# ----------------------------------------------------------------------------------------------------- scene


def backdrop(rng: np.random.Generator, shape: tuple[int, int]) -> Light:
    """A car's front on a road, in broad strokes: bodywork, a grille, lettering, gravel."""
    height, width = shape
    body = rng.uniform(0.03, 0.5)
    scene = np.full(shape, body, np.float32) * (1 + 0.25 * smooth_noise(rng, shape, width / 3))
    road = round(height * rng.uniform(0.68, 0.9))
    scene[road:] = _gravel(rng, (height - road, width))
    for _ in range(int(rng.integers(2, 5))):
        _panel(scene, rng)
    for _ in range(int(rng.integers(1, 4))):
        _grille(scene, rng)
    for _ in range(int(rng.integers(3, 7))):
        _lettering(scene, rng)
    return np.asarray(np.clip(scene, 0.01, 1), np.float32)


def _gravel(rng: np.random.Generator, shape: tuple[int, int]) -> Light:
    stones = sum(weight * smooth_noise(rng, shape, cell) for weight, cell in ((1.0, 14), (0.7, 6), (0.5, 3)))
    return np.asarray(0.25 * np.exp(0.55 * stones), np.float32)


def _box(rng: np.random.Generator, shape: tuple[int, ...], least: float, most: float) -> tuple[slice, slice]:
    """A rectangle with sides between two shares of the picture's height, wherever."""
    height, width = (int(rng.uniform(least, most) * shape[0]) for _ in range(2))
    top, left = int(rng.integers(0, shape[0] - height // 2)), int(rng.integers(0, shape[1] - width // 2))
    return slice(top, top + height), slice(left, left + width)


def _panel(scene: Light, rng: np.random.Generator) -> None:
    rows, columns = _box(rng, scene.shape, 0.15, 0.6)
    scene[rows, columns] = rng.uniform(0.02, 0.7)


def _grille(scene: Light, rng: np.random.Generator) -> None:
    """Bars, meshes and perforated plates: what has as many edges as a code."""
    rows, columns = _box(rng, scene.shape, 0.12, 0.4)
    part = scene[rows, columns]
    y, x = np.ogrid[: part.shape[0], : part.shape[1]]
    pitch = rng.uniform(14, 50)
    across = np.sin(2 * np.pi * x / pitch) if rng.random() < 0.3 else np.ones_like(x, np.float64)
    down = np.sin(2 * np.pi * y / (pitch * rng.uniform(0.5, 1.5)))
    part[:] = np.where(across * down > rng.uniform(-0.3, 0.3), rng.uniform(0.2, 0.7), rng.uniform(0.01, 0.08))


def _lettering(scene: Light, rng: np.random.Generator) -> None:
    text = "".join(_LETTERS[i] for i in rng.integers(0, len(_LETTERS), int(rng.integers(5, 14))))
    scale = float(rng.uniform(0.8, 5))
    spot = (int(rng.integers(0, scene.shape[1] * 3 // 4)), int(rng.integers(40, scene.shape[0])))
    shade = float(rng.choice([0.02, 0.85]))
    thick = max(2, round(2.5 * scale))
    cv2.putText(scene, text, spot, cv2.FONT_HERSHEY_SIMPLEX, scale, shade, thick, cv2.LINE_AA)
