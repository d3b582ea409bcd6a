"""A video file in place of a camera. Nothing in a file is trusted; FFmpeg's decoders run native code on it.

Read videos in a process that can be ended: a damaged file can hang or crash the libraries. Importing this loads OpenCV.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hw.camera.files import MAX_SIDE, os_problem
from hw.errors import FrameError, one_line
from hw.interfaces import Frame

MAX_FRAMES = 90_000  # an hour at 25 a second
MAX_PIXELS = 33_200_000  # of one frame; a decoder holds several, and 8K video has as many

SUFFIXES = frozenset({".avi", ".mp4", ".m4v", ".mov", ".mkv", ".webm"})
# Looked for before FFmpeg is asked, which would also open playlists, and follow what they name. It finds a session
# description (RFC 8866) behind any first line, "RIFF" included: hence the second word of that container.
_CONTAINERS = ((8, b"AVI "), (4, b"ftyp"), (0, b"\x1aE\xdf\xa3"))  # AVI; ISO/IEC 14496-12; Matroska and WebM, RFC 8794
_HEAD = 12  # bytes
_USUAL_FPS = 25.0
# What a container says of its length is exact in most and an estimate in some; more than this share is a loss.
_MISSING_SHARE = 1 / 20
_MISSING_FRAMES = 2
_NAME_LENGTH = 80  # characters, so that the place fits the line as well


@dataclass(frozen=True, slots=True, eq=False)
class VideoFrame(Frame):
    """A frame of a recording and its time: seconds since the beginning, never less than those of the frame before."""

    at_s: float


class VideoSource:
    """The frames of a video file in order: AVI, MP4 and QuickTime, Matroska and WebM.

    Whatever is the matter with the file ends the iteration with one `FrameError` that says where. `skip` frames at
    the beginning are passed over without being looked at.
    """

    def __init__(self, path: Path, *, skip: int = 0) -> None:
        self._path, self._skip = path, skip
        self._name = path.name or str(path)
        self._closed = False
        self.total: int | None = None  # frames, as the file says; known once the first was asked for

    def frames(self) -> Iterator[VideoFrame | FrameError]:
        """Each frame when it is asked for, at most MAX_SIDE pixels long."""
        try:
            with closing(_Capture(self._path, self._name)) as capture:
                self.total = capture.total
                for frame in capture.frames(self._skip):
                    if self._closed:
                        return
                    yield frame
        except FrameError as error:
            yield error

    def close(self) -> None:
        """End the iteration and let go of the file; harmless twice."""
        self._closed = True


class _Capture:
    """An open video file; raises FrameError."""

    def __init__(self, path: Path, name: str) -> None:
        self._name, self._short_name = name, one_line(name)[:_NAME_LENGTH]
        _refuse_unknown(path, name)
        # An absolute path cannot be taken for an address, and FFmpeg alone not for a numbered series of pictures.
        self._capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG)
        self._fps = self._number(cv2.CAP_PROP_FPS) or _USUAL_FPS
        total = int(self._number(cv2.CAP_PROP_FRAME_COUNT))
        self.total = total if 0 < total <= MAX_FRAMES else None
        self._at_s = 0.0
        try:
            self._refuse_unusable()
        except FrameError:
            self.close()
            raise

    def _refuse_unusable(self) -> None:
        if not self._capture.isOpened():
            raise FrameError(self._name, "damaged or cut short, or a video without pictures")
        self._refuse_large(self._number(cv2.CAP_PROP_FRAME_WIDTH) * self._number(cv2.CAP_PROP_FRAME_HEIGHT))

    def _refuse_large(self, pixels: float) -> None:
        if pixels > MAX_PIXELS:
            raise FrameError(self._name, f"frames of more than {MAX_PIXELS // 1_000_000} megapixels")

    def _number(self, setting: int) -> float:
        value = self._capture.get(setting)
        return value if isfinite(value) and value > 0 else 0.0

    def frames(self, skip: int) -> Iterator[VideoFrame]:
        if skip:
            self._capture.set(cv2.CAP_PROP_POS_FRAMES, skip)
        for index in range(skip, MAX_FRAMES):
            gray = self._read(index)
            if gray is None:
                self._refuse_short(index)
                return
            yield VideoFrame(gray=gray, name=f"{self._short_name} {self._where(index)}", at_s=self._at_s)
        if self._read(MAX_FRAMES) is not None:
            raise FrameError(self._name, f"longer than {MAX_FRAMES} frames; the rest was not looked at")

    def _read(self, index: int) -> NDArray[np.uint8] | None:
        try:
            there, picture = self._capture.read()
            if not there:
                return None
            self._refuse_large(picture.shape[0] * picture.shape[1])
            gray = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), np.uint8)
            self._at_s = max(self._at_s, self._number(cv2.CAP_PROP_POS_MSEC) / 1000 or index / self._fps)
            return _fitted(gray)
        except (cv2.error, MemoryError) as exc:
            raise FrameError(self._name, f"damaged at {self._where(index)}") from exc

    def _refuse_short(self, frames: int) -> None:
        if frames == 0:
            raise FrameError(self._name, "no pictures in this video")
        missing = (self.total or 0) - frames
        if missing > max(_MISSING_FRAMES, (self.total or 0) * _MISSING_SHARE):
            raise FrameError(
                self._name, f"damaged or cut short after {self._where(frames - 1)}, of {self.total} frames"
            )

    def _where(self, index: int) -> str:
        return f"frame {index + 1} at {_time(self._at_s)}"

    def close(self) -> None:
        self._capture.release()


def _time(seconds: float) -> str:
    return f"{int(seconds // 60)}:{seconds % 60:05.2f}"


def _fitted(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = MAX_SIDE / max(gray.shape)
    if scale >= 1:
        return gray
    height, width = (max(1, round(side * scale)) for side in gray.shape)
    return np.asarray(cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _refuse_unknown(path: Path, name: str) -> None:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise FrameError(name, "not a file")
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except (OSError, ValueError) as exc:
        raise FrameError(name, os_problem(exc)) from exc
    if not head:
        raise FrameError(name, "the file is empty")
    if not any(head[place:].startswith(sign) for place, sign in _CONTAINERS):
        raise FrameError(name, "not a video of a known kind")
