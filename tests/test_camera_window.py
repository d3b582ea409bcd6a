"""The picture file that is held before the camera of a demo."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from hw.camera.window import FRAME_S, Window
from hw.errors import FrameError
from hw.interfaces import Frame
from scripts.bench.optics import Gray
from tests.test_scanner import PATIENCE_S, Clock, save

WHITE, GREY = np.full((60, 80), 255, np.uint8), np.full((60, 80), 120, np.uint8)


class Timer(Clock):
    """Time passes only while somebody sleeps."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


@pytest.fixture
def timer() -> Timer:
    return Timer()


@pytest.fixture
def view(tmp_path: Path, timer: Timer) -> Iterator[Frame | FrameError]:
    return Window(tmp_path / "held.png", clock=timer, sleep=timer.sleep).frames()


@pytest.fixture
def hold(tmp_path: Path) -> Callable[[Gray], None]:
    return lambda gray: save(tmp_path / "held.png", gray)


def levels(view: Iterator[Frame | FrameError], count: int = 1) -> list[int]:
    frames = [next(view) for _ in range(count)]
    return [int(frame.gray.mean()) for frame in frames if isinstance(frame, Frame)]


def test_it_is_black_without_a_picture_and_shows_one_as_long_as_it_is_held(
    tmp_path: Path, view: Iterator[Frame | FrameError], hold: Callable[[Gray], None]
) -> None:
    seen = levels(view, 2)
    hold(WHITE)
    seen += levels(view, 3)
    hold(GREY)
    seen += levels(view, 2)
    (tmp_path / "held.png").unlink()
    seen += levels(view, 2)
    hold(GREY)
    assert seen + levels(view) == [0, 0, 255, 255, 255, 120, 120, 0, 0, 120]


def test_a_picture_that_is_held_is_decoded_once(
    tmp_path: Path, view: Iterator[Frame | FrameError], hold: Callable[[Gray], None]
) -> None:
    hold(WHITE)
    first, second = next(view), next(view)
    assert first is second


def test_a_file_without_use_is_said_once_and_black_until_it_changes(
    tmp_path: Path, view: Iterator[Frame | FrameError], hold: Callable[[Gray], None]
) -> None:
    hold(WHITE)
    assert levels(view) == [255]
    (tmp_path / "held.png").write_bytes((tmp_path / "held.png").read_bytes()[:40])  # half written
    assert isinstance(next(view), FrameError)
    assert levels(view, 2) == [0, 0], "what was there before is not held any more"
    hold(GREY)
    assert levels(view) == [120]


def test_a_picture_replaced_in_every_frame_is_never_an_old_one(
    view: Iterator[Frame | FrameError], hold: Callable[[Gray], None]
) -> None:
    for level in range(0, 250, 2):
        hold(np.full((20, 30), level, np.uint8))
        assert levels(view) == [level]


def test_a_file_that_is_replaced_all_the_time_gives_whole_pictures_only(
    tmp_path: Path, view: Iterator[Frame | FrameError], hold: Callable[[Gray], None]
) -> None:
    over = threading.Event()

    def replace() -> None:
        while not over.is_set():
            hold(WHITE)
            hold(GREY)

    hold(WHITE)
    writer = threading.Thread(target=replace)
    writer.start()
    try:
        changes, before, deadline = 0, -1, time.monotonic() + PATIENCE_S
        while changes < 50:
            [level] = levels(view)
            assert level in (255, 120)
            assert time.monotonic() < deadline
            changes, before = changes + (level != before), level
    finally:
        over.set()
        writer.join()


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: os.mkfifo(path)], ids=["folder", "pipe"])
def test_what_is_no_file_is_refused_without_waiting_for_it(
    tmp_path: Path, view: Iterator[Frame | FrameError], make: Callable[[Path], None]
) -> None:
    make(tmp_path / "held.png")
    assert isinstance(next(view), FrameError)
    assert levels(view) == [0]


def test_it_gives_no_more_than_fifteen_frames_a_second(timer: Timer, view: Iterator[Frame | FrameError]) -> None:
    levels(view, 4)
    assert timer.slept == pytest.approx([FRAME_S] * 3)
    timer.now_s += 10
    levels(view, 2)
    assert len(timer.slept) == 4, "nobody waits for frames that nobody asked for"


def test_it_ends_when_it_is_closed(tmp_path: Path, timer: Timer) -> None:
    window = Window(tmp_path / "none.png", clock=timer, sleep=timer.sleep)
    frames = window.frames()
    next(frames)
    window.close()
    window.close()
    assert next(frames, None) is None
