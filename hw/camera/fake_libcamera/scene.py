"""What stands before the fake camera, and what lens, exposure and scaler make of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from hw.camera.fake_libcamera.values import SENSOR, Rectangle

Gray = NDArray[np.uint8]

PADDING = 0xAA  # grey of the bytes between a line's end and the next line
NO_COLOUR = 128
_AUTO = 20_000.0  # microseconds times gain that the automatic chooses, whatever the scene
_BLUR_PX = 0.004  # of the picture's width, standard deviation for each dioptre of wrong focus
_SHARP = 0.05  # dioptres


@dataclass(slots=True)
class Faults:
    """What goes wrong, until it is taken back."""

    silent: bool = False  # delivers nothing more
    errors: bool = False  # every frame comes with the status "error"
    busy: bool = False  # another program has the camera
    fails_to_start: bool = False
    hangs_in_stop: bool = False
    unplugged: bool = False  # not there at the next look
    no_focus: bool = False  # autofocus never gets there


@dataclass(slots=True)
class World:
    """The scene, 16:9 in grey (height x width, uint8), `subject` dioptres away, with `light` times its brightness."""

    picture: Gray = field(default_factory=lambda: np.zeros((864, 1536), np.uint8))
    subject: float = 2.5
    light: float = 1.0
    frame_s: float = 1 / 30
    faults: Faults = field(default_factory=Faults)


def seen(world: World, state: Mapping[str, object]) -> Gray:
    """The picture that falls on the part of the sensor that is read, with the controls as they are."""
    gray = _cropped(world.picture, state["ScalerCrop"])
    blur = abs(world.subject - float(str(state["LensPosition"])))
    if blur > _SHARP:
        gray = np.asarray(cv2.GaussianBlur(gray, (0, 0), blur * _BLUR_PX * gray.shape[1]), np.uint8)
    brightness = world.light * exposure(state)
    if brightness == 1:
        return gray
    return np.asarray(cv2.convertScaleAbs(gray, alpha=brightness), np.uint8)


def exposure(state: Mapping[str, object]) -> float:
    """Light on the sensor compared with what the automatic gives."""
    time_us, gain = int(str(state["ExposureTime"])), float(str(state["AnalogueGain"]))
    if time_us and gain:
        return time_us * gain / _AUTO
    return float(2.0 ** float(str(state["ExposureValue"])))


def _cropped(picture: Gray, crop: object) -> Gray:
    if not isinstance(crop, Rectangle):
        raise TypeError("ScalerCrop")
    down, across = picture.shape[0] / SENSOR[1], picture.shape[1] / SENSOR[0]
    rows = slice(round(crop.y * down), round((crop.y + crop.height) * down))
    columns = slice(round(crop.x * across), round((crop.x + crop.width) * across))
    return picture[rows, columns]


def write_yuv420(gray: Gray, size: tuple[int, int], stride: int, data: NDArray[np.uint8]) -> None:
    """The picture as three planes, the lines `stride` and half of it bytes apart."""
    width, height = size
    data[:] = PADDING
    luma = data[: stride * height].reshape(height, stride)
    luma[:, :width] = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
    chroma = data[stride * height : stride * height * 3 // 2].reshape(height, stride // 2)
    chroma[:, : width // 2] = NO_COLOUR
