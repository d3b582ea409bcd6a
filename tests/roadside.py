"""Pictures of codes as the road makes them: drawn, set into a scene and spoiled, all from a seed."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import segno
from numpy.typing import NDArray
from PIL import Image

Gray = NDArray[np.uint8]

BASE45 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:"
FRAME = (720, 1280)  # height, width of what the camera gives


def mark_text(seed: int, length: int = 290) -> str:
    """A text as long and as mixed as a mark's: "VM1:" and base45 characters."""
    rng = np.random.default_rng(seed)
    return "VM1:" + "".join(BASE45[i] for i in rng.integers(0, len(BASE45), length - 4))


def draw(content: str | bytes, module_px: int = 4, **options: Any) -> Gray:
    """A clean code, model 2, level M unless told otherwise, black on white with its quiet zone."""
    code = segno.make(content, **{"error": "m", "boost_error": False, "micro": False, **options})
    buffer = io.BytesIO()
    code.save(buffer, kind="png", scale=module_px, border=4)
    return np.array(Image.open(buffer).convert("L"))


def place(code: Gray, rng: np.random.Generator, size_px: float, turn_deg: float = 0, tilt_deg: float = 0) -> Gray:
    """The code in a scene of FRAME pixels, `size_px` wide with its quiet zone, turned, and seen from the side."""
    height, width = FRAME
    scene = _scene(rng)
    side = code.shape[0]
    half = size_px / 2
    corners = np.array([[-half, -half, 0], [half, -half, 0], [half, half, 0], [-half, half, 0]])
    turn, tilt = np.radians(turn_deg), np.radians(tilt_deg)
    spin = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    lean = np.array([[np.cos(tilt), 0, 0], [0, 1, 0], [np.sin(tilt), 0, 1]])
    x, y, z = lean @ spin @ corners.T
    nearer = 3 * size_px / (3 * size_px + z)  # pinhole, three code widths away
    middle = np.array([width, height]) / 2 + rng.uniform(-0.12, 0.12, 2) * [width, height]
    target = (np.stack([x, y], axis=1) * nearer[:, None] + middle).astype(np.float32)
    source = np.array([[0, 0], [side, 0], [side, side], [0, side]], np.float32)
    matrix = cv2.getPerspectiveTransform(source, target)
    # Draw at twice the size and shrink: the camera's pixels average, they do not pick.
    double = np.diag([2.0, 2.0, 1.0]) @ matrix
    size = (2 * width, 2 * height)
    layer = cv2.resize(cv2.warpPerspective(code, double, size), (width, height), interpolation=cv2.INTER_AREA)
    mask = cv2.warpPerspective(np.full_like(code, 255), double, size)
    share = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA) / 255
    return _gray(share * layer + (1 - share) * scene)


def _scene(rng: np.random.Generator) -> Gray:
    """A car front in broad strokes: a gradient, panels, a few letters and fine texture."""
    height, width = FRAME
    scene = np.linspace(rng.uniform(60, 110), rng.uniform(120, 200), height)[:, None] * np.ones(width)
    picture = _gray(scene)
    for _ in range(14):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        w, h = (int(v) for v in rng.integers(20, 300, 2))
        cv2.rectangle(picture, (x, y), (x + w, y + h), int(rng.integers(20, 235)), int(rng.choice([-1, 2, 5])))
    for _ in range(4):
        spot = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        cv2.putText(picture, "INSPECTION 2026", spot, cv2.FONT_HERSHEY_SIMPLEX, 0.8, 240, 2)
    return _gray(picture + rng.normal(0, 3, FRAME))


def _gray(values: NDArray[np.float64]) -> Gray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


# ------------------------------------------------------------------------------------- what spoils a picture


def blur(picture: Gray, sigma_px: float) -> Gray:
    return cv2.GaussianBlur(picture, (0, 0), sigma_px)


def noise(picture: Gray, rng: np.random.Generator, sigma: float) -> Gray:
    return _gray(picture + rng.normal(0, sigma, picture.shape))


def contrast(picture: Gray, share: float, floor: float) -> Gray:
    return _gray(picture * share + floor)


def jpeg(picture: Gray, quality: int) -> Gray:
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)


def shadow(picture: Gray, share: float, angle_deg: float) -> Gray:
    """Everything on one side of a line through the middle is darker, without a soft edge."""
    height, width = picture.shape
    y, x = np.mgrid[:height, :width]
    angle = np.radians(angle_deg)
    dark = (x - width / 2) * np.cos(angle) + (y - height / 2) * np.sin(angle) > 0
    return _gray(np.where(dark, picture * share, picture))


Condition = Callable[[Gray, np.random.Generator], Gray]


def _placed(module_px: float, turn_deg: float = 0, tilt_deg: float = 0) -> Condition:
    def make(code: Gray, rng: np.random.Generator) -> Gray:
        return place(code, rng, module_px * code.shape[0] / 4, turn_deg, tilt_deg)

    return make


def _then(first: Condition, spoil: Condition) -> Condition:
    return lambda code, rng: spoil(first(code, rng), rng)


# Rows are hard on purpose: at most of them one of the libraries alone begins to miss.
CONDITIONS: dict[str, Condition] = {
    "plain": _placed(5),
    "small": _placed(2.5),
    "tiny": _placed(1.75),
    "turned": _placed(3, turn_deg=33),
    "tilted": _placed(4, turn_deg=8, tilt_deg=52),
    "blurred": _then(_placed(4), lambda p, rng: blur(p, 2.0)),
    "low contrast": _then(_placed(3, turn_deg=5), lambda p, rng: noise(contrast(p, 0.04, 20), rng, 1.5)),
    "noisy": _then(_placed(3, turn_deg=-7), lambda p, rng: noise(p, rng, 60)),
    "jpeg": _then(_placed(2.5, turn_deg=12), lambda p, rng: jpeg(p, 15)),
    "inverted": _then(_placed(3, turn_deg=4), lambda p, rng: 255 - p),
    "hard shadow": _then(_placed(3, turn_deg=10), lambda p, rng: shadow(p, 0.3, 30)),
}


def roadside(name: str, seed: int) -> tuple[Gray, bytes]:
    """The picture of one condition and the payload of the code in it."""
    rng = np.random.default_rng([seed, sum(map(ord, name))])
    text = mark_text(seed)
    return CONDITIONS[name](draw(text, mode="alphanumeric"), rng), text.encode()
