"""Cameras for the scanner process of a test, named to it by "tests.camera_stand_ins:…"."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hw.camera.fake_libcamera.install import install
from hw.camera.fake_libcamera.scene import World
from hw.camera.files import load_picture
from hw.camera.picamera import PiCamera
from hw.errors import FrameError
from hw.interfaces import CameraSettings, Frame
from scripts.bench.optics import Gray


class Adjustable:
    """A camera that shows the picture at its path as its settings let it; files beside it tell what it was asked."""

    def __init__(self, path: Path, *, skip: int = 0) -> None:
        self._picture = load_picture(path).gray
        self._settings = CameraSettings()

    def frames(self) -> Iterator[Frame | FrameError]:
        while True:
            yield Frame(gray=self.as_seen(self._settings), name="camera")

    def as_seen(self, settings: CameraSettings) -> Gray:
        return self._picture

    def adjust(self, settings: CameraSettings) -> None:
        self._settings = settings

    def close(self) -> None:
        pass


class DarkRoom(Adjustable):
    """Too dark for any decoder without the lamp."""

    def as_seen(self, settings: CameraSettings) -> Gray:
        return self._picture if settings.torch else np.full_like(self._picture, 3)


class Zoomed(Adjustable):
    """Shows its picture only when zoomed, and not too dark."""

    def as_seen(self, settings: CameraSettings) -> Gray:
        return self._picture if settings.zoom and settings.exposure_ev == 1 else np.full_like(self._picture, 128)


class HangsInClose(Adjustable):
    def close(self) -> None:
        threading.Event().wait()


class FakePi(PiCamera):
    """The real adapter on the real Picamera2 on the fake libcamera, before which the picture at `path` is held."""

    def __init__(self, path: Path, *, skip: int = 0) -> None:
        self.world = World(picture=load_picture(path).gray, frame_s=0.005)
        install(self.world)
        super().__init__(wait_s=0.3)


class FailsOnce(FakePi):
    """The first process has one frame; then the camera is silent, and hangs when it is stopped."""

    def __init__(self, path: Path, *, skip: int = 0) -> None:
        super().__init__(path)
        self._path = path

    def frames(self) -> Iterator[Frame | FrameError]:
        failed = self._path.with_suffix(".failed")
        for frame in super().frames():
            if not failed.exists():
                failed.touch()
                self.world.faults.silent = self.world.faults.hangs_in_stop = True
                yield Frame(gray=np.full_like(frame.gray, 128) if isinstance(frame, Frame) else frame, name="empty")
            else:
                yield frame
