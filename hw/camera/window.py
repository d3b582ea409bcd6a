"""A picture file as the view of a camera: who replaces the file holds something else before it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from hw.camera.files import load_picture
from hw.errors import FrameError
from hw.interfaces import Frame

FRAME_S = 1 / 15  # between two frames; nobody holds anything for a shorter time
SIZE = (480, 640)  # of the empty view

_NAME = "window"
_Version = tuple[int, int, int]  # a file: inode, length in bytes, nanoseconds of its last change


class Window:
    """A view that never ends: in each frame the picture that is in the file at that moment, black without one.

    Replace the file by renaming another over it, as often as you like; one that is written in place may be met half
    written. What cannot be used is said once, and is black until the file changes.
    """

    def __init__(
        self,
        path: Path,
        *,
        skip: int = 0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """The file may come later. A live source has nothing to `skip`."""
        self._path, self._clock, self._sleep = path, clock, sleep
        self._black = Frame(gray=np.zeros(SIZE, np.uint8), name=_NAME)
        self._version: _Version | None = None
        self._held = self._black
        self._closed = False

    def frames(self) -> Iterator[Frame | FrameError]:
        """One for each time somebody asks, not more often than every `FRAME_S` seconds."""
        due_s = self._clock()
        while not self._closed:
            if (wait_s := due_s - self._clock()) > 0:
                self._sleep(wait_s)
            due_s = self._clock() + FRAME_S
            yield self._look()

    def close(self) -> None:
        """End the iteration; harmless twice."""
        self._closed = True

    def _look(self) -> Frame | FrameError:
        # The version from before the reading: a change meanwhile is seen at the next frame.
        version = self._version_now()
        if version == self._version:
            return self._held
        self._version, self._held = version, self._black
        if version is None:
            return self._black
        try:
            self._held = Frame(gray=load_picture(self._path).gray, name=_NAME)
        except FrameError as error:
            if isinstance(error.__cause__, FileNotFoundError):  # taken away this moment
                self._version = None
                return self._black
            return error
        return self._held

    def _version_now(self) -> _Version | None:
        try:
            info = self._path.stat()
        except (OSError, ValueError):
            return None
        return info.st_ino, info.st_size, info.st_mtime_ns
