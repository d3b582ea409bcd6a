"""A USB camera whose buffers go on filling while nobody asks; the driver behind OpenCV is the test's."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from hw.camera.uvc import BUFFERS, UvcCamera
from hw.errors import DeviceNotFoundError, FrameError, LinkLostError
from hw.interfaces import Frame
from tests.test_scanner import Clock

FRAME_S = 1 / 30


class Driver:
    """As the kernel's: takes a frame every 1/30 s into one of its buffers while one is free, gives the oldest first.

    A frame's brightness is the number of 1/30 s since the camera was plugged in.
    """

    def __init__(self, clock: Clock, *, tells_time: float = 1.0) -> None:
        self._clock, self._tells_time = clock, tells_time
        self._begin_s = clock.now_s
        self._filled = 0  # frames that the camera has made or dropped
        self._buffers: list[int] = []
        self._grabbed = 0
        self.plugged = self.open = True
        self.damaged = False

    def _fill(self) -> None:
        now = int((self._clock.now_s - self._begin_s) / FRAME_S + 1e-6)
        for number in range(self._filled + 1, now + 1):
            if len(self._buffers) < BUFFERS:
                self._buffers.append(number)
        self._filled = now

    def grab(self) -> bool:
        self._fill()
        if not self._buffers:
            self._clock.now_s = self._begin_s + (self._filled + 1) * FRAME_S
            self._fill()
        self._grabbed = self._buffers.pop(0)
        return self.plugged

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return not self.damaged, np.full((48, 64, 3), self._grabbed, np.uint8)

    def get(self, setting: int, /) -> float:
        assert setting == cv2.CAP_PROP_POS_MSEC
        return self._tells_time * (self._begin_s + self._grabbed * FRAME_S) * 1000

    def isOpened(self) -> bool:  # noqa: N802
        return self.open

    def release(self) -> None:
        self.open = False


@pytest.mark.parametrize("tells_time", [1.0, 0.0, 1000.0], ids=["its clock is ours", "no times", "another clock"])
@pytest.mark.parametrize("pause_s", [0.0, 0.05, 1.0, 5.0])
def test_a_frame_that_lay_in_a_buffer_is_never_given_as_new(tells_time: float, pause_s: float) -> None:
    clock = Clock()
    driver = Driver(clock, tells_time=tells_time)
    frames = UvcCamera(Path("video0"), open_capture=lambda path: driver, clock=clock).frames()
    next(frames)
    clock.now_s += pause_s
    asked = (clock.now_s - driver._begin_s) / FRAME_S
    frame = next(frames)
    assert isinstance(frame, Frame)
    assert frame.gray.shape == (48, 64)
    assert int(frame.gray[0, 0]) >= int(asked)


def test_of_a_camera_whose_clock_is_ours_only_old_frames_are_passed_over() -> None:
    clock = Clock()
    driver = Driver(clock)
    frames = UvcCamera(Path("video0"), open_capture=lambda path: driver, clock=clock).frames()
    seen = [next(frames) for _ in range(10)]
    numbers = [int(frame.gray[0, 0]) for frame in seen if isinstance(frame, Frame)]
    assert numbers == list(range(numbers[0], numbers[0] + 10)), "who asks all the time gets every frame"


def test_an_unplugged_camera_is_a_lost_link_and_a_damaged_frame_is_only_a_damaged_frame() -> None:
    clock = Clock()
    driver = Driver(clock)
    camera = UvcCamera(Path("video0"), open_capture=lambda path: driver, clock=clock)
    frames = camera.frames()
    driver.damaged = True
    assert isinstance(next(frames), FrameError)
    driver.damaged = False
    assert isinstance(next(frames), Frame)
    driver.plugged = False
    with pytest.raises(LinkLostError):
        next(frames)
    camera.close()
    camera.close()
    assert not driver.open


def test_a_closed_camera_gives_no_more_frames() -> None:
    clock = Clock()
    camera = UvcCamera(Path("video0"), open_capture=lambda path: Driver(clock), clock=clock)
    frames = camera.frames()
    next(frames)
    camera.close()
    assert next(frames, None) is None


@pytest.mark.parametrize("name", ["/dev/null", "/dev/video999", "rtsp://example.org/video0", "{folder}/video0"])
def test_what_is_no_video_device_is_not_found_and_never_opened_as_anything_else(tmp_path: Path, name: str) -> None:
    (tmp_path / "video0").write_bytes(b"RIFF")
    with pytest.raises(DeviceNotFoundError):
        next(UvcCamera(Path(name.format(folder=tmp_path))).frames())
