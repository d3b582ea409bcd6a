"""What the program asks of a part. A new part is a class with these methods, and passes the same tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from hw.errors import FrameError
from verifier.types import CodeSeen

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from hw.rfid.types import (
        AuthResult,
        Bank,
        Caps,
        Event,
        Health,
        InventoryConfig,
        MemoryRead,
        Selector,
        TagRead,
        Unsupported,
    )


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


class AdjustableCamera(FrameSource, Protocol):
    """A frame source whose light can be changed; files and videos are none."""

    def adjust(self, settings: CameraSettings) -> None:
        """Take the next frames so, as far as the part can; HardwareError when it does not answer."""
        ...


class TagScan(Protocol):
    """A running inventory; iterate it, or poll it."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def __iter__(self) -> Iterator[Event]: ...

    def poll(self, timeout: float) -> Event | None:
        """The next read, round end or gap; None when there is none within so many seconds."""
        ...


class TagReader(Protocol):
    """A reader of in-car tags. It has no method that changes a tag."""

    def open(self) -> Caps:
        """Who is there; afterwards band and power are set and confirmed. HardwareError."""
        ...

    def close(self) -> None:
        """Stop and let go of the line; harmless twice."""
        ...

    def inventory(self, config: InventoryConfig | None = None) -> TagScan:
        """Scans while it is entered."""
        ...

    def read_once(self, timeout: float, config: InventoryConfig | None = None) -> list[TagRead]:
        """The tags in the field, each once; empty when there is none. HardwareError."""
        ...

    def read_memory(
        self, selector: Selector, bank: Bank, word: int, count: int, access_password: bytes = ...
    ) -> MemoryRead:
        """Words of one tag's bank; TagError."""
        ...

    def authenticate(self, selector: Selector, method: str, challenge: bytes) -> AuthResult | Unsupported:
        """What the reader says of the tag's proof; Unsupported when it cannot ask for one. TagError."""
        ...

    def health(self) -> Health:
        """Counters."""
        ...


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
