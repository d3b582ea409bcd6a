"""Keys and outputs on GPIO pins that may not be there yet: after a boot the system takes a moment until it lets this
program have them, and a test at the console may hold them. They are tried again until they are there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from firmware.machine.events import Event, PartFault
from hw.errors import DeviceNotFoundError, HardwareError

if TYPE_CHECKING:
    from hw.sound.patterns import Beat
    from hw.sound.player import Outputs

RETRY_MS = 3_000


class Closing(Protocol):
    """A part that can be let go."""

    def close(self) -> None:
        """Let go of the pins; harmless twice."""
        ...


Part_co = TypeVar("Part_co", bound=Closing, covariant=True)


class OnPins(Generic[Part_co]):
    """A part that `open_part` opens, HardwareError while its pins are not there."""

    def __init__(self, name: str, open_part: Callable[[], Part_co], now_ms: Callable[[], int]) -> None:
        self._name, self._open, self._now_ms = name, open_part, now_ms
        self._lock = threading.Lock()
        self._part: Part_co | None = None
        self._problem = "not opened"
        self._due_ms: int | None = None  # of the next try; None: at once
        self._closed = False

    def probe(self) -> tuple[Event, ...]:
        """Try, when it is time to, and tell how it stands: one of the things that are asked every second."""
        with self._lock:
            now_ms = self._now_ms()
            if self._part is None and not self._closed and (self._due_ms is None or now_ms >= self._due_ms):
                self._due_ms = now_ms + RETRY_MS
                try:
                    self._part, self._problem = self._open(), ""
                except HardwareError as exc:
                    self._problem = exc.problem
            return (PartFault(self._name, self._problem),)

    def there(self) -> Part_co:
        """The part; HardwareError while it is not there."""
        part = self._part
        if part is None:
            raise DeviceNotFoundError(self._name, self._problem)
        return part

    def close(self) -> None:
        """Let go of it, for good; harmless twice."""
        with self._lock:
            self._closed = True
            if self._part is not None:
                self._part.close()


class OutputsOnPins:
    """Buzzer, LED and motor for a player, who is there before they are."""

    def __init__(self, outputs: OnPins[Outputs]) -> None:
        self._outputs = outputs

    def put(self, beat: Beat) -> None:
        """As the outputs' own; HardwareError."""
        self._outputs.there().put(beat)

    def close(self) -> None:
        """As the outputs' own."""
        self._outputs.close()
