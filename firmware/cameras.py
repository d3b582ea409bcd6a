"""Which source of pictures stands for which kind of camera in the settings. This module loads none of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from firmware.scanner import Limits, ScanSource, pictures, video
from firmware.settings import CameraSettings

# The first frame takes as long as the opening of the camera, a large picture about a second. Whoever is silent later is
# to be noticed within two seconds of the last frame.
_CAMERA = Limits(open_s=5.0, capture_s=1.8)
_DEVICES = "/dev/"


def chosen_source(camera: CameraSettings, file: Callable[[str], Path]) -> ScanSource | None:
    """The source that the settings name, None for none; `file` finds a picture or a video that they name."""
    if camera.kind == "none":
        return None
    named = camera.kind in ("window", "video", "files") and camera.path
    return camera_source(camera.kind, str(file(camera.path)) if named else camera.path, camera.lamp)


def camera_source(kind: str, path: str, lamp: str = "") -> ScanSource:
    """The source of that kind, KeyError for an unknown one.

    `path`: picamera2: the camera's number, 0 when empty; uvc: the video device; window: the picture file that is held;
    video: a video file, or a video device; files: a picture or a folder. `lamp`: folder of the kernel's LED for
    a camera that has one.
    """
    return KINDS[kind](path, lamp)


def _picamera2(path: str, lamp: str) -> ScanSource:
    more = (Path(lamp),) if lamp else ()
    return ScanSource(make="hw.camera.picamera:PiCamera", path=Path(path or "0"), more=more, live=True, limits=_CAMERA)


def _uvc(path: str, lamp: str) -> ScanSource:
    return ScanSource(make="hw.camera.uvc:UvcCamera", path=Path(path or "/dev/video0"), live=True, limits=_CAMERA)


def _window(path: str, lamp: str) -> ScanSource:
    return ScanSource(make="hw.camera.window:Window", path=Path(path), live=True, limits=_CAMERA)


def _video(path: str, lamp: str) -> ScanSource:
    return _uvc(path, lamp) if path.startswith(_DEVICES) else video(Path(path))


def _files(path: str, lamp: str) -> ScanSource:
    return pictures(Path(path))


KINDS: Mapping[str, Callable[[str, str], ScanSource]] = {
    "picamera2": _picamera2,
    "uvc": _uvc,
    "window": _window,
    "video": _video,
    "files": _files,
}
