"""A line to an emulated reader without a port, under a clock that jumps: minutes of the air in seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Self

from hw.errors import DeviceNotFoundError, LinkLostError
from hw.rfid.emulator.device import EmulatedReader
from hw.rfid.emulator.faults import FaultKind
from hw.rfid.transport import Lost, Received

SILENCE_NS = 100_000_000  # after so long without a byte a real port's read returns empty


class JumpingClock:
    """Time that passes only while somebody waits, in steps, and what happens meanwhile. For one thread."""

    def __init__(self, began: datetime, *, ns: int = 0, step_ns: int = 1_000_000) -> None:
        self.ns, self._began, self._step_ns = ns, began, step_ns
        self.turn: Callable[[], bool] = lambda: False  # whether something came

    def monotonic_ns(self) -> int:
        """For a driver."""
        return self.ns

    def now(self) -> datetime:
        """For a driver too."""
        return self._began + timedelta(microseconds=self.ns // 1000)

    def wait(self, _: threading.Condition, seconds: float) -> None:
        """Let time pass, at the longest until something came."""
        end = self.ns + max(1, int(seconds * 1e9))
        while self.ns < end:
            self.ns = min(end, self.ns + self._step_ns)
            if self.turn():
                return


class EmulatedLine:
    """`connect` for a driver, to an emulated reader that shares its clock."""

    def __init__(self, reader: EmulatedReader, clock: JumpingClock) -> None:
        self.reader, self.clock = reader, clock
        self.unplugged_until = 0  # ns
        self._began = self._silent_since = clock.ns
        self._heard = b""
        self._received: Received | None = None
        self._lost: Lost | None = None
        clock.turn = self.turn

    def connect(self, received: Received, lost: Lost) -> Self:
        """See `hw.rfid.transport.Connect`; DeviceNotFoundError while the plug is out."""
        self.turn()
        if self.clock.ns < self.unplugged_until:
            raise DeviceNotFoundError("tag reader", "port cannot be opened (errno 2)")
        self._received, self._lost = received, lost
        return self

    def write(self, data: bytes) -> None:
        """From the driver; LinkLostError."""
        if self.clock.ns < self.unplugged_until:
            raise LinkLostError("tag reader", "line lost (errno 5)")
        self._heard += data

    def close(self) -> None:
        """Harmless twice."""
        self._received = self._lost = None

    def turn(self) -> bool:
        """What happens at this moment; whether the driver was given bytes."""
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
        if not self._received:
            return False
        if data or self.clock.ns - self._silent_since >= SILENCE_NS:
            self._silent_since = self.clock.ns
            self._received(data)
        return bool(data)
