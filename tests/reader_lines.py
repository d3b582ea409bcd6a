"""Lines to readers without a port: an emulated reader's under a clock that jumps, and one that says what it is told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from hw.rfid.driver import Driver
from hw.rfid.emulator.device import EmulatedReader
from hw.rfid.models import MODELS
from hw.rfid.transport import Lost, Received
from hw.rfid.types import Event, Gap, InventoryConfig, TagRead
from scripts import emulated_line

SERIAL = sorted(name for name, model in MODELS.items() if not model.in_network)  # whose frames are ours
BEGAN = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)


class Clock(emulated_line.JumpingClock):
    def __init__(self) -> None:
        super().__init__(BEGAN, ns=1_000_000_000)


class EmulatedLine(emulated_line.EmulatedLine):
    """Keeps what went over it."""

    def __init__(self, reader: EmulatedReader, clock: Clock) -> None:
        super().__init__(reader, clock)
        self.written = self.read = b""
        self.opened = 0

    def connect(self, received: Received, lost: Lost) -> EmulatedLine:
        def kept(data: bytes) -> None:
            self.read += data
            received(data)

        super().connect(kept, lost)
        self.opened += 1
        return self

    def write(self, data: bytes) -> None:
        super().write(data)
        self.written += data


def scanned(driver: Driver, clock: Clock, seconds: float, config: InventoryConfig | None = None) -> list[Event]:
    """What a scan of so many seconds tells, with what came until it stopped."""
    end = clock.ns + int(seconds * 1e9)
    with driver.inventory(config) as inventory:
        polled = [inventory.poll(0.1) for _ in iter(lambda: clock.ns < end, False)]
    return [event for event in polled if event is not None] + list(inventory)


def reads_of(events: list[Event]) -> list[TagRead]:
    return [event for event in events if isinstance(event, TagRead)]


def gaps_of(events: list[Event]) -> list[Gap]:
    return [event for event in events if isinstance(event, Gap)]


class ScriptedLine:
    """`connect` for a driver, to a reader that answers every write by a rule."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self.answer = answer
        self.written: list[bytes] = []
        self.received: Received | None = None

    def connect(self, received: Received, _: Lost) -> ScriptedLine:
        self.received = received
        return self

    def write(self, data: bytes) -> None:
        self.written.append(data)
        if self.received and (answer := self.answer(data)):
            self.received(answer)

    def close(self) -> None:
        self.received = None
