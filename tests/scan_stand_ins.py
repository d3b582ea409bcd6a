"""Parts for the scanner process of a test, named to it by "tests.scan_stand_ins:…"."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from hw.camera.files import load_picture
from hw.errors import DeviceNotFoundError, FrameError
from hw.interfaces import CodeDecoder, Frame
from hw.qr.decoders import available_decoders
from scripts.bench.optics import Gray
from verifier.types import CodeSeen

PRIVATE = "plate 京A12345"


def hang() -> None:
    while True:
        pass


def crash() -> None:
    ctypes.string_at(0)  # a real SIGSEGV


def fail() -> None:
    raise ValueError(PRIVATE)


TRAPS = {b"HANG": hang, b"CRASH": crash, b"ABORT": os.abort, b"FAIL": fail}


class Trapped:
    """A real decoder that comes to harm over the codes in TRAPS."""

    def __init__(self, decoder: CodeDecoder) -> None:
        self._decoder, self.name = decoder, decoder.name

    def decode(self, gray: Gray) -> list[CodeSeen]:
        codes = self._decoder.decode(gray)
        for code in codes:
            TRAPS.get(code.payload, bool)()
        return codes


def trapped() -> list[CodeDecoder]:
    return [Trapped(decoder) for decoder in available_decoders()]


def none_here() -> list[CodeDecoder]:
    raise DeviceNotFoundError("decoder", "no QR library")


class Window:
    """A view that never ends: at each frame the picture file as it is at that moment."""

    def __init__(self, path: Path, *, skip: int = 0) -> None:
        self._path = path

    def frames(self) -> Iterator[Frame | FrameError]:
        while True:
            yield load_picture(self._path)

    def close(self) -> None:
        pass


class Gate:
    """A camera that gives each picture put at its path once, and takes it away; gone when its folder is gone."""

    def __init__(self, path: Path, *, skip: int = 0) -> None:
        self._path = path

    def frames(self) -> Iterator[Frame | FrameError]:
        while True:
            if not self._path.parent.exists():
                raise DeviceNotFoundError("camera", "not there")
            if not self._path.exists():
                time.sleep(0.002)
                continue
            try:
                frame: Frame | FrameError = load_picture(self._path)
            except FrameError as error:
                frame = error
            self._path.unlink()
            yield frame

    def close(self) -> None:
        pass


class Stuck:
    """A camera whose driver never answers."""

    def __init__(self, path: Path, *, skip: int = 0) -> None:
        pass

    def frames(self) -> Iterator[Frame | FrameError]:
        threading.Event().wait()
        yield FrameError("camera", "woke up")

    def close(self) -> None:
        pass
