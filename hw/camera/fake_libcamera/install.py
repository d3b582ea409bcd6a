"""Puts the fake library where `import libcamera` finds it, under the real and unmodified Picamera2 package.

Picamera2 also wants DMA memory of the kernel and three packages for previews, videos and raw files that nobody here
makes: the memory becomes plain shared memory, and the packages empty modules.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any

from hw.camera.fake_libcamera import camera, values
from hw.camera.fake_libcamera.scene import World

_VALUES = (
    *("ColorSpace", "ControlId", "ControlInfo", "ControlType", "Orientation", "PixelFormat", "Rectangle", "Size"),
    *("StreamRole", "Transform"),
)
_OBJECTS = (
    *("Camera", "CameraConfiguration", "FrameBuffer", "FrameMetadata", "Request", "SensorConfiguration"),
    *("Stream", "StreamConfiguration"),
)


def install(world: World) -> camera.CameraManager:
    """Let this process see `world` through `import picamera2`; ImportError without that package.

    A second call changes the world only, because Picamera2 keeps what it has imported. RuntimeError where a real
    libcamera is loaded already.
    """
    loaded = sys.modules.get("libcamera")
    manager: camera.CameraManager | None = _install(world) if loaded is None else getattr(loaded, "fake_manager", None)
    if manager is None:
        raise RuntimeError("a real libcamera is in use here")
    manager.world = world
    manager.camera.taken.clear()
    _give_memory()
    return manager


def _install(world: World) -> camera.CameraManager:
    manager = camera.CameraManager(world)
    library = ModuleType("libcamera")
    parts: dict[str, Any] = {name: getattr(values, name) for name in _VALUES}
    parts |= {name: getattr(camera, name) for name in _OBJECTS}
    parts |= {
        "CameraManager": SimpleNamespace(singleton=lambda: manager),
        "fake_manager": manager,
        "_libcamera": library,
        "controls": _module("libcamera.controls", **values.IDS, **values.ENUMS),
        "properties": _module("libcamera.properties"),
        "formats": _module("libcamera.formats"),
    }
    vars(library).update(parts)
    library.controls.draft = SimpleNamespace(NoiseReductionMode=values.IDS["NoiseReductionMode"], **values.DRAFT_ENUMS)
    library.properties.draft = SimpleNamespace(**values.DRAFT_ENUMS)
    sys.modules["libcamera"] = sys.modules["libcamera._libcamera"] = library
    for name in ("controls", "properties", "formats"):
        sys.modules[f"libcamera.{name}"] = getattr(library, name)
    _stand_in("pykms", PixelFormat=_AnyName())
    _stand_in("prctl")
    _stand_in("pidng")
    _stand_in("pidng.camdefs", Picamera2Camera=None)
    _stand_in("pidng.core", PICAM2DNG=None)
    return manager


def _module(name: str, **attributes: Any) -> Any:
    module = ModuleType(name)
    vars(module).update(attributes)
    return module


def _stand_in(name: str, **attributes: Any) -> None:
    """A module of that name where there is none; what is installed stays."""
    try:
        import_module(name)
    except ImportError:
        sys.modules[name] = _module(name, **attributes)


class _AnyName:
    def __getattr__(self, name: str) -> str:
        return name


def _give_memory() -> None:
    """Shared memory instead of /dev/dma_heap; there are no caches to keep in step either."""
    dma: Any = import_module("picamera2.allocators.dmaallocator")
    heap: Any = import_module("picamera2.dma_heap")

    class Memory:
        isValid = True  # noqa: N815 - Picamera2's name

        def alloc(self, name: str, size: int) -> object:
            fd = os.memfd_create(name)
            os.ftruncate(fd, size)
            return heap.UniqueFD(fd)

        def close(self) -> None:
            """Nothing is held."""

    dma.DmaHeap = Memory
    dma.fcntl = SimpleNamespace(ioctl=lambda *arguments: 0)
