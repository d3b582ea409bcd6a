"""What the program asks of a part. A new part is a class with these methods, and passes the same tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from hw.errors import FrameError
from verifier.types import CodeSeen

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image


@dataclass(frozen=True, slots=True, eq=False)  # two arrays have no single truth value to compare by
class Frame:
    """One picture: `gray` is uint8, height x width, C-contiguous; `name` says where it comes from."""

    gray: NDArray[np.uint8]
    name: str


class FrameSource(Protocol):
    """Where pictures come from: a camera, a video, a folder."""

    def frames(self) -> Iterator[Frame | FrameError]:
        """The pictures in order; one that cannot be used stands in its place as a `FrameError` value."""
        ...

    def close(self) -> None:
        """Let go of the device and end the iteration; harmless twice."""
        ...


@dataclass(frozen=True, slots=True)
class CameraSettings:
    """What a reader may ask of a camera beyond its automatic: lamp, stops more or less than it would choose, zoom."""

    torch: bool = False
    exposure_ev: int = 0  # -1, 0 or +1 stop
    zoom: bool = False  # the middle of the picture, twice as large


class CodeDecoder(Protocol):
    """A library that finds and reads QR codes."""

    @property
    def name(self) -> str:
        """The short name under which `CodeSeen.decoder` tells who read a code."""
        ...

    def decode(self, gray: NDArray[np.uint8]) -> list[CodeSeen]:
        """All QR codes (model 2) in a uint8 height x width picture, corners in its pixels; empty when none."""
        ...


class Display(Protocol):
    """The panel the officer reads."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        ...

    def show(self, image: Image.Image) -> None:
        """Put a picture of exactly `size` on the panel; HardwareError when the panel does not take it."""
        ...

    def close(self) -> None:
        """Let go of the panel; harmless twice."""
        ...
