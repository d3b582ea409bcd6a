"""The camera's driver on the real Picamera2 package; libcamera below it is ours, or the real one where there is one."""

from __future__ import annotations

import errno
import gc
import importlib.util
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firmware.scanner import FaultReason, Scanner, ScanSource
from hw.camera.fake_libcamera.camera import CameraManager
from hw.camera.fake_libcamera.install import install
from hw.camera.fake_libcamera.scene import PADDING, World
from hw.camera.focus import SWEEP
from hw.camera.picamera import BUFFERS, CLOSE_S, SIZE, PiCamera
from hw.errors import DeviceFaultError, DeviceNotFoundError, DeviceTimeoutError
from hw.interfaces import CameraSettings, Frame
from hw.qr.decoders import available_decoders
from scripts.bench.optics import Gray
from tests.conftest import ROOT
from tests.test_scanner import MARK, PATIENCE_S, Clock, faults, is_code, is_fault, payloads, save, scene, until

if importlib.util.find_spec("picamera2") is None:
    pytest.skip("picamera2 is not installed (requirements-picamera2.lock)", allow_module_level=True)

pytestmark = [
    pytest.mark.filterwarnings("ignore:setDaemon:DeprecationWarning"),  # Picamera2's own
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),  # of a camera that it could not open
]

AHEAD = scene(MARK, size=(SIZE[1], SIZE[0]))
Open = Callable[..., PiCamera]


@pytest.fixture
def world() -> World:
    return World(picture=AHEAD, frame_s=0.002)


@pytest.fixture
def manager(world: World) -> CameraManager:
    return install(world)


@pytest.fixture
def camera(manager: CameraManager) -> Iterator[Open]:
    cameras: list[PiCamera] = []

    def make(**options: Any) -> PiCamera:
        cameras.append(PiCamera(**{"wait_s": PATIENCE_S, **options}))  # a busy machine is no silent camera
        return cameras[-1]

    yield make
    for made in cameras:
        made.close()
    gc.collect()  # while the warnings of a camera that Picamera2 could not open are passed over


def take(frames: Iterator[object], count: int = 1) -> list[Gray]:
    taken = [next(frames) for _ in range(count)]
    return [frame.gray for frame in taken if isinstance(frame, Frame)]


def read(gray: Gray) -> set[bytes]:
    return {code.payload for decoder in available_decoders() for code in decoder.decode(gray)}


def read_within(frames: Iterator[object], count: int) -> set[bytes]:
    return set().union(*(read(gray) for gray in take(frames, count)))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def last(manager: CameraManager) -> dict[str, Any]:
    return {name: values[-1] for name, values in manager.camera.taken.items()}


# ------------------------------------------------------------------------------------------------- what it sees


def test_a_code_out_of_focus_is_read_as_soon_as_the_autofocus_is_there(camera: Open) -> None:
    frames = camera().frames()
    [first] = take(frames)
    assert first.shape == (SIZE[1], SIZE[0])
    assert first.flags.c_contiguous
    assert read(first) == set()
    assert read_within(frames, 8) == {MARK.encode()}


def test_the_bytes_behind_a_line_are_no_part_of_the_picture(camera: Open, world: World) -> None:
    world.picture = np.full_like(AHEAD, 100)
    frames = camera(size=(810, 456)).frames()
    assert 810 % 64, "the lines would have nothing behind them"
    [gray] = take(frames)
    assert gray.shape == (456, 810)
    assert PADDING not in gray
    assert np.unique(gray).tolist() == [100]


def test_the_camera_is_asked_for_what_codes_at_arms_length_need(camera: Open, manager: CameraManager) -> None:
    opened = camera()
    take(opened.frames())
    asked = last(manager)
    assert {name: int(asked[name]) for name in ("AfMode", "AfRange", "AfSpeed", "AfMetering")} == {
        "AfMode": 2,  # continuous
        "AfRange": 0,  # normal
        "AfSpeed": 1,  # fast
        "AfMetering": 1,  # windows
    }
    [window] = asked["AfWindows"]
    assert (window.x, window.y, window.width, window.height) == (1152, 648, 2304, 1296)
    assert (int(asked["AeExposureMode"]), int(asked["AeFlickerMode"]), asked["AeFlickerPeriod"]) == (1, 1, 10_000)
    streams = opened._camera.camera_configuration()
    assert (streams["main"]["format"], streams["main"]["size"], streams["raw"]) == ("YUV420", SIZE, None)
    assert (streams["buffer_count"], streams["queue"]) == (4, False)
    assert streams["sensor"]["output_size"] == (2304, 1296), "the whole view"


def test_a_camera_without_autofocus_or_exposure_modes_works_all_the_same(camera: Open, manager: CameraManager) -> None:
    kept = ("FrameDurationLimits", "NoiseReductionMode", "ScalerCrop", "ExposureTime")
    everything = manager.camera.controls
    manager.camera.controls = {key: info for key, info in everything.items() if key.name in kept}
    try:
        assert len(take(camera().frames(), 3)) == 3
        assert set(last(manager)) <= set(kept)
    finally:
        manager.camera.controls = everything


def test_a_frame_from_before_the_question_is_no_answer(camera: Open, world: World, manager: CameraManager) -> None:
    frames = camera(wait_s=1.0).frames()
    take(frames)
    fake, at = manager.camera, manager.camera.sequence
    wait_for(lambda: fake.sequence >= at + 4)  # frames of which nobody asked for any
    world.faults.silent, turn = True, fake.turns
    wait_for(lambda: fake.turns >= turn + 2)
    wait_for(lambda: fake.waiting == BUFFERS)  # none of them is kept for who asks next
    with pytest.raises(DeviceTimeoutError):
        next(frames)


def test_picamera2_gets_three_streams_with_their_strides_from_the_fake_and_errors_for_what_a_camera_refuses(
    manager: CameraManager, world: World
) -> None:
    from picamera2 import Picamera2  # noqa: PLC0415 - needs the library that `manager` has put there

    world.picture = np.full_like(AHEAD, 77)
    with Picamera2() as picamera2:
        main, lores = {"size": (810, 456), "format": "YUV420"}, {"size": (404, 228), "format": "YUV420"}
        picamera2.configure(picamera2.create_preview_configuration(main=main, lores=lores, raw={}))
        streams = picamera2.camera_configuration()
        assert [streams[name]["stride"] for name in ("main", "lores", "raw")] == [832, 448, 1920]
        picamera2.start()
        arrays, metadata = picamera2.capture_arrays(["main", "lores", "raw"], wait=PATIENCE_S)
        assert [array.shape for array in arrays] == [(684, 832), (342, 448), (864, 1920)]
        assert np.unique(arrays[1][:228, :404]).tolist() == [77]
        assert metadata["ScalerCrop"] == (0, 0, 4608, 2592)
        with pytest.raises(RuntimeError, match="not advertised"):
            picamera2.set_controls({"AfMod": 1})


# --------------------------------------------------------------------------------------- focus, light and zoom


def test_without_focus_the_lens_is_moved_by_hand_and_the_code_is_read(camera: Open, world: World) -> None:
    world.faults.no_focus, world.subject = True, 2.8
    clock = Clock(step_s=0.1)
    frames = camera(clock=clock).frames()
    seen = [read(gray) for gray in take(frames, 30)]
    assert not any(seen[:10])
    assert any(seen[10:])


def test_after_a_search_by_hand_the_autofocus_has_its_turn_again(
    camera: Open, world: World, manager: CameraManager
) -> None:
    world.faults.no_focus = True
    frames = camera(clock=Clock(step_s=0.2)).frames()
    take(frames, 20)
    world.faults.no_focus = False
    assert tuple(manager.camera.taken["LensPosition"][: len(SWEEP)]) == SWEEP
    assert read_within(frames, 12) == {MARK.encode()}
    assert int(last(manager)["AfMode"]) == 2


def test_a_burnt_out_code_is_read_with_one_stop_less(camera: Open, world: World, manager: CameraManager) -> None:
    world.picture, world.light = np.where(AHEAD < 128, 130, 255).astype(np.uint8), 2.0
    opened = camera()
    frames = opened.frames()
    assert read_within(frames, 12) == set()
    opened.adjust(CameraSettings(exposure_ev=-1))
    assert read_within(frames, 8) == {MARK.encode()}
    assert manager.camera.taken["ExposureValue"] == [0.0, -1.0]


def test_zoom_shows_the_middle_twice_as_large_and_can_be_taken_back(camera: Open, world: World) -> None:
    world.picture = np.zeros_like(AHEAD)
    world.picture[216:648, 384:1152] = 200  # the middle half of either side
    opened = camera()
    frames = opened.frames()
    wide = take(frames, 8)[-1]
    opened.adjust(CameraSettings(zoom=True))
    near = take(frames, 8)[-1]
    opened.adjust(CameraSettings())
    again = take(frames, 8)[-1]
    assert [round(float((gray > 100).mean()), 1) for gray in (wide, near, again)] == [0.2, 1.0, 0.2]


def test_what_was_asked_before_the_camera_opens_is_taken_over(
    camera: Open, manager: CameraManager, tmp_path: Path
) -> None:
    opened = camera(lamp=tmp_path)
    opened.adjust(CameraSettings(torch=True, exposure_ev=1, zoom=True))
    take(opened.frames())
    assert (tmp_path / "brightness").read_text() == "1"
    assert last(manager)["ExposureValue"] == 1.0
    assert last(manager)["ScalerCrop"].width == 2304


def test_the_lamp_is_lit_when_asked_and_out_before_and_after(camera: Open, tmp_path: Path) -> None:
    brightness = tmp_path / "brightness"
    brightness.write_text("255")
    (tmp_path / "max_brightness").write_text("31\n")
    opened = camera(lamp=tmp_path)
    frames = opened.frames()
    levels = []
    for step in (lambda: take(frames), lambda: opened.adjust(CameraSettings(torch=True)), opened.close):
        step()
        levels.append(brightness.read_text())
    assert levels == ["0", "31", "0"]


# ------------------------------------------------------------------------------------------------- what goes wrong


def test_it_closes_and_opens_again(camera: Open) -> None:
    for _ in range(3):
        opened = camera()
        frames = opened.frames()
        assert read_within(frames, 8) == {MARK.encode()}
        opened.close()
        opened.close()
        assert next(frames, None) is None


def test_a_camera_that_stops_delivering_is_an_error_in_time_and_works_when_opened_again(
    camera: Open, world: World
) -> None:
    opened = camera(wait_s=1.0)
    frames = opened.frames()
    take(frames)
    world.faults.silent = True
    with pytest.raises(DeviceTimeoutError, match="delivers no pictures"):
        take(frames, BUFFERS + 1)  # some may have been under way
    opened.close()
    world.faults.silent = False
    assert read_within(camera().frames(), 8) == {MARK.encode()}


def test_frames_with_an_error_status_are_passed_over_and_never_shown(camera: Open, world: World) -> None:
    world.picture = np.full_like(AHEAD, 90)
    opened = camera()
    frames = opened.frames()
    take(frames)
    world.faults.errors = True
    mended = threading.Timer(0.1, lambda: setattr(world.faults, "errors", False))
    mended.start()
    assert {int(gray.min()) for gray in take(frames, 20)} == {90}, "a frame with an error is black here"
    mended.join()


def test_a_camera_that_delivers_only_errors_is_as_silent_as_one_that_delivers_nothing(
    camera: Open, world: World
) -> None:
    world.faults.errors = True
    with pytest.raises(DeviceTimeoutError):
        next(camera(wait_s=0.1).frames())


def test_a_camera_that_another_program_uses_is_told_from_one_that_is_not_there(camera: Open, world: World) -> None:
    world.faults.busy = True
    with pytest.raises(DeviceFaultError, match="another program uses it") as busy:
        next(camera().frames())
    assert busy.value.code == errno.EBUSY
    world.faults.busy, world.faults.unplugged = False, True
    with pytest.raises(DeviceNotFoundError, match="no camera is connected"):
        next(camera().frames())
    world.faults.unplugged = False
    assert take(camera().frames())


def test_a_camera_that_does_not_start_is_let_go_of(camera: Open, world: World) -> None:
    world.faults.fails_to_start = True
    failing = camera()
    with pytest.raises(DeviceFaultError, match="does not start") as failed:
        next(failing.frames())
    assert failed.value.code == errno.EIO
    world.faults.fails_to_start = False
    assert take(camera().frames())


def test_without_the_library_the_camera_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(DeviceNotFoundError, match="picamera2 is not there"):
        PiCamera()


HANGS = """
import time
import numpy as np
from hw.camera.fake_libcamera.install import install
from hw.camera.fake_libcamera.scene import World
world = World(frame_s=0.002)
install(world)
from hw.camera.picamera import PiCamera
camera = PiCamera()
next(camera.frames())
world.faults.hangs_in_stop = True
began = time.monotonic()
camera.close()
print(time.monotonic() - began)
"""


def test_a_hang_in_stop_delays_closing_by_a_second_and_never_the_end_of_the_program() -> None:
    command = [sys.executable, "-c", HANGS]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=PATIENCE_S)
    assert CLOSE_S <= float(run.stdout) < CLOSE_S + 2


# ------------------------------------------------------------------------------------------------- the whole chain


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    save(tmp_path / "held.png", AHEAD)
    return tmp_path / "held.png"


def test_a_mark_before_the_camera_becomes_a_code_event_of_the_program(held: Path) -> None:
    source = ScanSource(make="tests.camera_stand_ins:FakePi", path=held, live=True)
    with Scanner(source) as scanner:
        events = until(scanner, lambda event: is_code(event) or is_fault(event))
    assert faults(events) == []
    assert payloads(events) == [MARK]


def test_a_camera_that_falls_silent_and_hangs_in_stop_is_back_with_the_next_process(held: Path) -> None:
    source = ScanSource(make="tests.camera_stand_ins:FailsOnce", path=held, live=True)
    with Scanner(source) as scanner:
        events = until(scanner, is_code)
    [fault] = faults(events)
    assert (fault.reason, fault.problem) == (FaultReason.CRASH, "camera: delivers no pictures")
    assert payloads(events) == [MARK]


REAL = """
from hw.camera.picamera import SIZE, PiCamera
for _ in range(2):
    camera = PiCamera()
    frames = camera.frames()
    shapes = {next(frames).gray.shape for _ in range(5)}
    camera.close()
    assert shapes == {(SIZE[1], SIZE[0])}, shapes
"""


def real_interpreter() -> str:
    """A Python with both libraries; on a Raspberry Pi they are Debian's and belong to Debian's Python."""
    for python in (sys.executable, "/usr/bin/python3"):
        tried = subprocess.run([python, "-c", "import libcamera, picamera2, numpy"], capture_output=True, check=False)
        if tried.returncode == 0:
            return python
    pytest.skip("no real libcamera here (Debian: python3-libcamera, python3-picamera2)")


@pytest.mark.long
def test_the_same_driver_opens_a_real_camera_twice() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [real_interpreter(), "-c", REAL], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    if "no camera is connected" in run.stderr:
        pytest.skip("libcamera is here, a camera is not")
    assert run.returncode == 0, run.stderr
