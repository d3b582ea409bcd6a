"""A USB camera through the kernel's video interface. Importing this loads OpenCV.

The kernel goes on filling its buffers while nobody asks, and hands out the oldest first; those are passed over.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from hw.errors import DeviceNotFoundError, FrameError, LinkLostError
from hw.interfaces import Frame

SIZE = (1280, 720)  # width and height in pixels; a camera without it takes the next it has
BUFFERS = 4  # OpenCV's own number; a camera that tells no times has all of them passed over

_PART = "camera"  # also the name of each frame
_DEVICE = re.compile(r"/dev/video([0-9]{1,3})")
_MJPEG = cv2.VideoWriter.fourcc(*"MJPG")  # uncompressed, USB 2 brings 10 frames a second


class Capture(Protocol):
    """The part of `cv2.VideoCapture` that is used."""

    def grab(self) -> bool:
        """Take the next frame out of the driver's buffers, waiting for it."""
        ...

    def retrieve(self) -> tuple[bool, np.ndarray]:
        """Its picture, height x width x BGR."""
        ...

    def get(self, setting: int, /) -> float:
        """A property, 0 when there is none."""
        ...

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        """Whether there is a camera."""
        ...

    def release(self) -> None:
        """Let go of it."""
        ...


class UvcCamera:
    """The camera at a device file, in grey; live, so never an old frame for a new one."""

    def __init__(
        self,
        path: Path,
        *,
        skip: int = 0,
        open_capture: Callable[[Path], Capture] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """The camera opens later. A live source has nothing to `skip`; `clock` is the kernel's monotonic one."""
        self._path, self._clock = path, clock
        self._open_capture = open_capture or open_device
        self._capture: Capture | None = None
        self._closed = False

    def frames(self) -> Iterator[Frame | FrameError]:
        """Opens the camera; then the next picture each time one is asked for.

        DeviceNotFoundError; LinkLostError when it was unplugged. A silent camera keeps the caller waiting for seconds.
        """
        self._capture = self._open_capture(self._path)
        if not self._capture.isOpened():
            raise DeviceNotFoundError(_PART, "no camera at the video device")
        while not self._closed:
            yield self._fresh(self._capture)

    def close(self) -> None:
        """Let go of the camera; harmless twice."""
        self._closed = True
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.release()

    def _fresh(self, capture: Capture) -> Frame | FrameError:
        asked_ms = self._clock() * 1000
        for _ in range(BUFFERS + 1):
            if not capture.grab():
                raise LinkLostError(_PART, "unplugged or broken off")
            # The moment of the exposure, where the driver tells it by the clock that we have; see videodev2.h.
            if asked_ms <= capture.get(cv2.CAP_PROP_POS_MSEC) <= self._clock() * 1000:
                break
        try:
            there, picture = capture.retrieve()
            if not there or picture.size == 0:
                return FrameError(_PART, "a damaged frame")
            gray = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        except cv2.error:
            return FrameError(_PART, "a damaged frame")
        return Frame(gray=np.ascontiguousarray(gray, np.uint8), name=_PART)


def open_device(path: Path) -> Capture:
    """The device /dev/videoN, or a link to one, by its number: a path is never taken for an address.

    DeviceNotFoundError when the path leads to no such device.
    """
    number = _DEVICE.fullmatch(str(path.resolve()))
    if number is None or not path.exists():
        raise DeviceNotFoundError(_PART, "no video device of that name")
    capture = cv2.VideoCapture(int(number[1]), cv2.CAP_V4L2)
    if capture.isOpened():
        capture.set(cv2.CAP_PROP_FOURCC, _MJPEG)
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, SIZE[0])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, SIZE[1])
    return capture
