"""The objects of libcamera's Python bindings that do something: camera, its manager, configurations, requests.

Only what Picamera2 calls is there, and only the pixel format YUV420 holds a picture. Errors are raised as the
bindings raise them: RuntimeError with the system's words.
"""

from __future__ import annotations

import enum
import mmap
import os
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from hw.camera.fake_libcamera import scene
from hw.camera.fake_libcamera.values import (
    CONTROLS,
    IDS,
    MODES,
    PROPERTIES,
    SENSOR,
    ColorSpace,
    ControlId,
    ControlInfo,
    Orientation,
    PixelFormat,
    Rectangle,
    Size,
    StreamRole,
)

_ALIGNMENT = 64  # bytes; of a line in memory, as the Raspberry Pi's image processor writes it
_RAW = PixelFormat("SRGGB10_CSI2P")
_MANUAL, _CONTINUOUS = 0, 2  # AfModeEnum
_IDLE, _SCANNING, _FOCUSED, _FAILED = range(4)  # AfStateEnum
_FOCUS_STEP = 0.6  # of the way to the subject, each frame
_FOCUS_FAILS_AFTER = 8  # frames


class Stream:
    """Names a stream."""


@dataclass(frozen=True, slots=True)
class StreamFormats:
    """Pixel formats and their sizes."""

    by_format: Mapping[PixelFormat, Sequence[tuple[int, int]]]

    @property
    def pixel_formats(self) -> list[PixelFormat]:
        """All formats."""
        return list(self.by_format)

    def sizes(self, pixel_format: PixelFormat) -> list[Size]:
        """The sizes of one."""
        return [Size(*size) for size in self.by_format[pixel_format]]


@dataclass(slots=True)
class StreamConfiguration:
    """One stream as asked for, and after `validate` as it will be."""

    pixel_format: PixelFormat
    size: Size
    formats: StreamFormats
    stride: int = 0
    frame_size: int = 0
    buffer_count: int = 4
    color_space: ColorSpace | None = None
    stream: Stream = field(default_factory=Stream)


@dataclass(slots=True)
class SensorConfiguration:
    """The sensor's mode."""

    bit_depth: int = 0
    output_size: Size = field(default_factory=Size)


class CameraConfiguration:
    """Several streams."""

    Status = enum.Enum("Status", ["Valid", "Adjusted", "Invalid"])

    def __init__(self, streams: Sequence[StreamConfiguration]) -> None:
        self._streams = list(streams)
        self.orientation: object = Orientation["Rotate0"]
        self.sensor_config: SensorConfiguration | None = None

    def at(self, index: int) -> StreamConfiguration:
        """One stream."""
        return self._streams[index]

    def __iter__(self) -> Iterator[StreamConfiguration]:
        return iter(self._streams)

    @property
    def size(self) -> int:
        """How many streams."""
        return len(self._streams)

    def validate(self) -> object:
        """Say what will be made of it, in the streams themselves."""
        status = self.Status["Valid"]
        for stream in self._streams:
            if stream.pixel_format == PixelFormat("YUV420"):
                stream.stride = _aligned(stream.size.width)
                stream.frame_size = stream.stride * stream.size.height * 3 // 2
            elif _RAW in stream.formats.by_format:
                self._fit_raw(stream)
                status = self.Status["Adjusted"]
            else:
                return self.Status["Invalid"]
        return status

    def _fit_raw(self, stream: StreamConfiguration) -> None:
        wanted = (stream.size.width, stream.size.height)
        width, height = min(MODES, key=lambda mode: abs(mode[0] - wanted[0]) + abs(mode[1] - wanted[1]))
        stream.pixel_format, stream.size = _RAW, Size(width, height)
        stream.stride = _aligned(width * 5 // 4)
        stream.frame_size = stream.stride * height


def _aligned(length: int) -> int:
    return -(-length // _ALIGNMENT) * _ALIGNMENT


@dataclass(slots=True)
class PlaneMetadata:
    """What a plane holds."""

    bytes_used: int


class FrameMetadata:
    """How one buffer was filled."""

    Status = enum.Enum("Status", ["Success", "Error", "Cancelled"])

    def __init__(self, lengths: Sequence[int]) -> None:
        self.status = self.Status["Success"]
        self.sequence = 0
        self.planes = [PlaneMetadata(length) for length in lengths]


class _Plane:
    """Part of a buffer: an open file, where and how long."""

    def __init__(self) -> None:
        self.fd, self.offset, self.length = -1, 0, 0


class FrameBuffer:
    """Memory for a picture; libcamera has a duplicate of the file of its own."""

    Plane = _Plane

    def __init__(self, planes: Sequence[_Plane]) -> None:
        self.planes = list(planes)
        self.metadata = FrameMetadata([plane.length for plane in planes])
        self._memory = mmap.mmap(planes[0].fd, planes[0].length)

    def memory(self) -> mmap.mmap:
        """Its bytes."""
        return self._memory


class Request:
    """Buffers to fill, controls to take them with, and afterwards what came of it."""

    Status = enum.Enum("Status", ["Pending", "Complete", "Cancelled"])

    def __init__(self, cookie: int) -> None:
        self.cookie = cookie
        self.buffers: dict[Stream, FrameBuffer] = {}
        self.reuse()

    def add_buffer(self, stream: Stream, buffer: FrameBuffer) -> None:
        """Fill this one for that stream."""
        self.buffers[stream] = buffer

    def set_control(self, control: ControlId, value: object) -> None:
        """From this frame on."""
        self.controls[control] = value

    def reuse(self) -> None:
        """Empty, with the same buffers."""
        self.status = self.Status["Pending"]
        self.controls: dict[ControlId, object] = {}
        self.metadata: dict[ControlId, object] = {}


class Camera:
    """The camera; `taken` is every value that a control was ever set to, in order, by its name.

    `sequence` counts the frames since the start, `turns` every time it could have taken one.
    """

    id = "/base/soc/i2c0mux/i2c@1/imx708@1a"

    def __init__(self, manager: CameraManager) -> None:
        self._manager = manager
        self.controls: dict[ControlId, ControlInfo] = dict(CONTROLS)
        self.properties = dict(PROPERTIES)
        self.taken: dict[str, list[object]] = {}
        self.sequence = self.turns = self._scanning = 0
        self._acquired = False
        self._configuration: CameraConfiguration | None = None
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        """Take it for this program."""
        if self._acquired or self._manager.world.faults.busy:
            raise RuntimeError("Failed to acquire camera: Device or resource busy")
        self._acquired = True

    def release(self) -> None:
        """Give it back."""
        if self._thread is not None:
            raise RuntimeError("Failed to release camera: Device or resource busy")
        self._acquired = False

    def generate_configuration(self, roles: Sequence[object]) -> CameraConfiguration:
        """What suits the roles."""
        raw = StreamFormats({_RAW: MODES})
        processed = StreamFormats({PixelFormat("YUV420"): [(64, 64), SENSOR]})
        return CameraConfiguration(
            [
                StreamConfiguration(_RAW, Size(*MODES[-1]), raw)
                if role is StreamRole["Raw"]
                else StreamConfiguration(PixelFormat("YUV420"), Size(800, 600), processed)
                for role in roles
            ]
        )

    def configure(self, configuration: CameraConfiguration) -> int:
        """Take it over; 0 when done."""
        self._configuration = configuration
        return 0

    def create_request(self, cookie: int = 0) -> Request:
        """An empty one."""
        return Request(cookie)

    def start(self, controls: Mapping[ControlId, object] | None = None) -> None:
        """Begin; frames come for queued requests."""
        if self._configuration is None or self._thread is not None:
            raise RuntimeError("Failed to start camera: Permission denied")
        if self._manager.world.faults.fails_to_start:
            raise RuntimeError("Failed to start camera: Input/output error")
        self.sequence = self._scanning = 0
        self._state: dict[str, object] = {info.name: _initial(info.name) for info in IDS.values()}
        self._requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._over = threading.Event()
        self._apply(controls or {})
        self._thread = threading.Thread(target=self._run, args=(self._configuration,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; requests that were not filled come back cancelled."""
        if self._manager.world.faults.hangs_in_stop:
            threading.Event().wait()
        if self._thread is None:
            return
        self._over.set()
        self._thread.join()
        self._thread = None
        with suppress(queue.Empty):
            while True:
                request = self._requests.get_nowait()
                request.status = Request.Status["Cancelled"]
                self._manager.done(request)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._requests.qsize()

    def queue_request(self, request: Request) -> None:
        """Fill it when its turn comes."""
        self._requests.put(request)

    def _run(self, configuration: CameraConfiguration) -> None:
        while not self._over.wait(self._manager.world.frame_s):
            self.turns += 1
            if self._manager.world.faults.silent:
                continue
            try:
                request = self._requests.get_nowait()
            except queue.Empty:
                continue
            self._apply(request.controls)
            self._focus()
            self._fill(request, configuration)
            self._manager.done(request)

    def _apply(self, controls: Mapping[ControlId, object]) -> None:
        for control, value in sorted(controls.items(), key=lambda item: item[0].name != "AfMode"):
            if control not in self.controls:
                raise RuntimeError(f"unknown control {control.name}")
            _refuse_outside(control.name, self.controls[control], value)
            if control.name == "LensPosition" and self._state["AfMode"] != _MANUAL:
                continue  # libcamera ignores it while it focuses by itself
            self._state[control.name] = value
            self.taken.setdefault(control.name, []).append(value)
            if control.name == "AfMode":
                self._state["AfState"] = _SCANNING if value == _CONTINUOUS else _IDLE
                self._scanning = 0

    def _focus(self) -> None:
        if self._state["AfMode"] != _CONTINUOUS or self._state["AfState"] == _FOCUSED:
            return
        world = self._manager.world
        self._scanning += 1
        if world.faults.no_focus:
            failed = self._scanning > _FOCUS_FAILS_AFTER
            self._state["AfState"] = _FAILED if failed else _SCANNING
            return
        lens = float(str(self._state["LensPosition"]))
        lens += (world.subject - lens) * _FOCUS_STEP
        self._state["LensPosition"] = lens
        self._state["AfState"] = _FOCUSED if abs(world.subject - lens) < 0.05 else _SCANNING

    def _fill(self, request: Request, configuration: CameraConfiguration) -> None:
        world = self._manager.world
        failed = world.faults.errors
        picture = scene.seen(world, self._state)
        for stream in configuration:
            buffer = request.buffers[stream.stream]
            buffer.metadata.status = FrameMetadata.Status["Error" if failed else "Success"]
            buffer.metadata.sequence = self.sequence
            data = np.frombuffer(buffer.memory(), np.uint8)
            if failed or stream.pixel_format == _RAW:
                data[:] = 0
            else:
                size = (stream.size.width, stream.size.height)
                scene.write_yuv420(picture, size, stream.stride, data)
            del data
        self.sequence += 1
        request.metadata = {IDS[name]: value for name, value in self._metadata().items()}
        request.status = Request.Status["Complete"]

    def _metadata(self) -> dict[str, object]:
        told = ("AfState", "ScalerCrop", "LensPosition")
        brightness = scene.exposure(self._state)
        return {name: self._state[name] for name in told} | {
            "SensorTimestamp": time.monotonic_ns(),
            "ExposureTime": round(10_000 * brightness),
            "AnalogueGain": 2.0,
            "DigitalGain": 1.0,
            "FrameDuration": round(self._manager.world.frame_s * 1e6),
            "Lux": 400.0,
            "ColourTemperature": 5000,
        }


def _initial(name: str) -> object:
    if name == "ScalerCrop":
        return Rectangle(0, 0, *SENSOR)
    return {"LensPosition": 1.0, "ExposureValue": 0.0}.get(name, 0)


def _refuse_outside(name: str, info: ControlInfo, value: object) -> None:
    """libcamera clamps or ignores such values; nobody should count on it."""
    numbers = [number for number in (info.min, value, info.max) if isinstance(number, int | float)]
    if numbers != sorted(numbers):
        raise RuntimeError(f"{name} out of range")


class CameraManager:
    """All cameras: one, or none when it is unplugged."""

    version = "v0.7.0+fake"

    def __init__(self, world: scene.World) -> None:
        self.world = world
        self.camera = Camera(self)
        self.event_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._done: list[Request] = []
        self._lock = threading.Lock()

    @property
    def cameras(self) -> list[Camera]:
        """Who is there."""
        return [] if self.world.faults.unplugged else [self.camera]

    def done(self, request: Request) -> None:
        """A request is ready to be fetched."""
        with self._lock:
            self._done.append(request)
        os.eventfd_write(self.event_fd, 1)

    def get_ready_requests(self) -> list[Request]:
        """Fetch them."""
        with suppress(BlockingIOError):
            os.eventfd_read(self.event_fd)
        with self._lock:
            done, self._done = self._done, []
        return done
