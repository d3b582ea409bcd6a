"""A Raspberry Pi camera through Picamera2 and libcamera. The library is loaded when a camera is made, not before.

Capturing and stopping have hung for ever in the driver. A capture ends after `WAIT_S` with an error; a stop is waited
for `CLOSE_S` and then left alone, in a thread that keeps no program from ending. Such a process cannot use the camera
again, and where the driver holds the interpreter's lock as well it cannot do anything: keep the camera in a process of
its own that somebody ends. The kernel lets go of the camera with it.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw.camera.focus import FocusSearch, FocusState
from hw.camera.lamp import Lamp
from hw.errors import DeviceFaultError, DeviceNotFoundError, DeviceTimeoutError, FrameError, HardwareError
from hw.interfaces import CameraSettings, Frame

SIZE = (1536, 864)  # width and height in pixels
# The IMX708's own mode of that size shows two thirds of the view; of this one, zoom gives pixels that are really there.
SENSOR_MODE = {"output_size": (2304, 1296), "bit_depth": 10}
BUFFERS = 4
WAIT_S = 2.0  # for one frame
CLOSE_S = 1.0
FLICKER_US = 10_000  # lamps on 50 Hz mains

_PART = "camera"  # also the name of each frame
_ZOOM = 2

Area = tuple[int, int, int, int]  # left, top, width, height on the sensor


class PiCamera:
    """Camera number `path` (0 when there is no number in it), in grey; live, so never an old frame for a new one.

    `lamp` is the folder of a kernel LED. Focus, exposure and flicker are set for codes on paper and on screens at arm's
    length; what a camera cannot do is left out.
    """

    def __init__(
        self,
        path: Path = Path("0"),
        lamp: Path | None = None,
        *,
        skip: int = 0,
        size: tuple[int, int] = SIZE,
        wait_s: float = WAIT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """DeviceNotFoundError without the library. A live source has nothing to `skip`; the camera opens later."""
        self._library, self._controls = _library()
        self._number = int(path.name) if path.name.isdecimal() else 0
        self._size, self._wait_s, self._clock = size, wait_s, clock
        self._lamp = Lamp(lamp)
        self._settings = CameraSettings()
        self._position: float | None = None  # of the lens, dioptres; None: the autofocus has it
        self._focus = FocusSearch()
        self._camera: Any = None
        self._closed = False

    def frames(self) -> Iterator[Frame | FrameError]:
        """Opens the camera; then the next picture each time one is asked for.

        DeviceNotFoundError; DeviceFaultError when it does not start or breaks off; DeviceTimeoutError when silent.
        """
        self._lamp.light(self._settings.torch)  # a process that was ended has left it lit
        self._camera = self._open()
        while not self._closed:
            gray, metadata = self._capture()
            self._follow_focus(metadata)
            yield Frame(gray=gray, name=_PART)

    def adjust(self, settings: CameraSettings) -> None:
        """Take the next frames so, from some two frames on."""
        self._lamp.light(settings.torch)
        before, self._settings = self._settings, settings
        if self._camera is None:
            return
        if settings.exposure_ev != before.exposure_ev:
            self._set(ExposureValue=float(settings.exposure_ev))
        if settings.zoom != before.zoom:
            self._set(ScalerCrop=self._middle(_ZOOM if settings.zoom else 1))

    def close(self) -> None:
        """Stop, and let go of the camera and the lamp; within about `CLOSE_S` seconds, harmless twice."""
        self._closed = True
        self._lamp.light(False)
        camera, self._camera = self._camera, None
        if camera is not None:
            _close(camera)

    def _open(self) -> Any:
        try:
            there = self._number < len(self._library.Picamera2.global_camera_info())
            camera = self._library.Picamera2(self._number) if there else None
        except (RuntimeError, OSError, IndexError) as exc:
            raise _fault_of(exc, "does not open") from exc
        if camera is None:
            raise DeviceNotFoundError(_PART, "no camera is connected")
        try:
            self._start(camera)
        except (RuntimeError, OSError, ValueError) as exc:
            _close(camera)
            raise _fault_of(exc, "does not start") from exc
        return camera

    def _start(self, camera: Any) -> None:
        # Without a queue of its own Picamera2 keeps no frame for who asks next.
        camera.configure(
            camera.create_video_configuration(
                main={"size": self._size, "format": "YUV420"},
                raw=None,
                buffer_count=BUFFERS,
                queue=False,
                sensor=SENSOR_MODE,
            )
        )
        self._camera = camera  # whose controls are known now
        try:
            self._set(**self._wishes())
            camera.start()
        except (RuntimeError, OSError):
            self._camera = None
            raise

    def _wishes(self) -> dict[str, object]:
        enums = self._controls
        wishes: dict[str, object] = {
            "AfMode": enums.AfModeEnum.Continuous,
            "AfRange": enums.AfRangeEnum.Normal,  # Macro ends at 33 cm
            "AfSpeed": enums.AfSpeedEnum.Fast,
            "AfMetering": enums.AfMeteringEnum.Windows,
            "AfWindows": [self._middle(_ZOOM)],
            "AeExposureMode": enums.AeExposureModeEnum.Short,
            "AeFlickerMode": enums.AeFlickerModeEnum.Manual,
            "AeFlickerPeriod": FLICKER_US,
            "ExposureValue": float(self._settings.exposure_ev),
        }
        if self._settings.zoom:
            wishes["ScalerCrop"] = self._middle(_ZOOM)
        return wishes

    def _set(self, **wishes: object) -> None:
        """Those that this camera has: a Camera Module 2 has no autofocus."""
        known = self._camera.camera_controls
        self._camera.set_controls({name: value for name, value in wishes.items() if name in known})

    def _middle(self, zoom: int) -> Area:
        _, most, _ = self._camera.camera_controls.get("ScalerCrop", (None, (0, 0, *self._size), None))
        return middle_of(most, self._size, zoom)

    def _capture(self) -> tuple[NDArray[np.uint8], Mapping[str, Any]]:
        camera = self._camera
        if camera is None:
            raise DeviceFaultError(_PART, "closed", errno.EBADF)
        try:
            request = camera.capture_request(wait=self._wait_s)
        except TimeoutError as exc:
            camera.cancel_all_and_flush()  # the job would take, and never give back, the frame that comes too late
            raise DeviceTimeoutError(_PART, "delivers no pictures") from exc
        except (RuntimeError, OSError) as exc:
            raise _fault_of(exc, "broke off") from exc
        try:
            with self._library.MappedArray(request, "main", write=False) as mapped:
                width, height = self._size
                # Behind the picture's lines lie padding, and below them the colours.
                return np.array(mapped.array[:height, :width]), request.get_metadata()
        finally:
            request.release()

    def _follow_focus(self, metadata: Mapping[str, Any]) -> None:
        if "AfState" not in metadata:
            return
        position = self._focus.position(FocusState(int(metadata["AfState"])), self._clock())
        if position == self._position:
            return
        self._position = position
        if position is None:
            self._set(AfMode=self._controls.AfModeEnum.Continuous)
        else:
            self._set(AfMode=self._controls.AfModeEnum.Manual, LensPosition=position)


def middle_of(most: Area, size: tuple[int, int], zoom: int) -> Area:
    """The middle of the sensor's area `most` in the shape of a picture of that size, `zoom` times as narrow."""
    left, top, width, height = most
    share = min(width / size[0], height / size[1]) / zoom
    inner = (int(size[0] * share), int(size[1] * share))
    return left + (width - inner[0]) // 2, top + (height - inner[1]) // 2, *inner


def _library() -> tuple[Any, Any]:
    try:
        return import_module("picamera2"), import_module("libcamera").controls
    except ImportError as exc:
        raise DeviceNotFoundError(_PART, "the library picamera2 is not there, or libcamera below it") from exc


def _fault_of(exc: Exception, what: str) -> HardwareError:
    """Our error for the library's: it raises RuntimeError for everything, the system's words behind it."""
    said: BaseException | None = exc
    while said is not None:
        if "busy" in str(said).lower():
            return DeviceFaultError(_PART, f"{what}: another program uses it", errno.EBUSY)
        said = said.__cause__ or said.__context__
    return DeviceFaultError(_PART, what, errno.EIO)


def _close(camera: Any) -> None:
    """Picamera2 also wants to close the camera when the program ends; it takes that back before anything can hang."""

    def close() -> None:
        with suppress(RuntimeError, OSError):  # it is gone already
            camera.close()

    closing = threading.Thread(target=close, name="camera close", daemon=True)
    closing.start()
    closing.join(CLOSE_S)
