"""Lines to readers without a port: an emulated reader under a clock that jumps, and one that says what it is told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from hw.errors import DeviceNotFoundError, LinkLostError
from hw.rfid.emulator.device import EmulatedReader
from hw.rfid.emulator.faults import FaultKind
from hw.rfid.models import MODELS
from hw.rfid.transport import Lost, Received

STEP_NS = 1_000_000
SILENCE_NS = 100_000_000  # after so long without a byte a real port's read returns empty
SERIAL = sorted(name for name, model in MODELS.items() if not model.in_network)  # whose frames are ours
BEGAN = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)


class Clock:
    """Time that passes only while somebody waits, and what happens meanwhile."""

    def __init__(self) -> None:
        self.ns = 1_000_000_000
        self.turn: Callable[[], bool] = lambda: False  # whether something came

    def monotonic_ns(self) -> int:
        return self.ns

    def now(self) -> datetime:
        return BEGAN + timedelta(microseconds=self.ns // 1000)

    def wait(self, _: threading.Condition, seconds: float) -> None:
        end = self.ns + max(1, int(seconds * 1e9))
        while self.ns < end:
            self.ns = min(end, self.ns + STEP_NS)
            if self.turn():
                return


class EmulatedLine:
    """`connect` for a driver, to an emulated reader that shares the clock."""

    def __init__(self, reader: EmulatedReader, clock: Clock) -> None:
        self.reader, self.clock = reader, clock
        self.written = b""
        self.read = b""
        self.unplugged_until = 0
        self.opened = 0
        self._began = clock.ns
        self._heard = b""
        self._received: Received | None = None
        self._lost: Lost | None = None
        self._silent_since = clock.ns
        clock.turn = self.turn

    def connect(self, received: Received, lost: Lost) -> EmulatedLine:
        self.turn()
        if self.clock.ns < self.unplugged_until:
            raise DeviceNotFoundError("tag reader", "port cannot be opened (errno 2)")
        self._received, self._lost = received, lost
        self.opened += 1
        return self

    def write(self, data: bytes) -> None:
        if self.clock.ns < self.unplugged_until:
            raise LinkLostError("tag reader", "line lost (errno 5)")
        self.written += data
        self._heard += data

    def close(self) -> None:
        self._received = self._lost = None

    def turn(self) -> bool:
        now = (self.clock.ns - self._began) / 1e9
        if unplug := self.reader.faults.take(FaultKind.UNPLUG, now):
            self.unplugged_until = self.clock.ns + int(unplug.seconds * 1e9)
            self.reader.power_cycle()
            if self._lost:
                self._lost(LinkLostError("tag reader", "line lost (errno 5)"))
            return True
        if self.clock.ns < self.unplugged_until:
            return False
        heard, self._heard = self._heard, b""
        data = self.reader.turn(now, heard)
        received = self._received
        if not received:
            return False
        self.read += data
        if data or self.clock.ns - self._silent_since >= SILENCE_NS:
            self._silent_since = self.clock.ns
            received(data)
        return bool(data)


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
