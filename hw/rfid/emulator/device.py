"""A whole emulated reader between two byte streams: model, faults, and a serial line of its real speed."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from hw.rfid.emulator.a0 import A0
from hw.rfid.emulator.engine import Engine, Sent
from hw.rfid.emulator.faults import FaultKind, FaultPlan
from hw.rfid.emulator.gx import Gx
from hw.rfid.emulator.llrp import Llrp
from hw.rfid.emulator.m100 import M100
from hw.rfid.emulator.scene import Scene

FIFO_BYTES = 4096
_BITS_PER_BYTE = 10  # 8N1: a start bit, eight, a stop bit


@dataclass(frozen=True, slots=True)
class Model:
    """One reader model: how to make it, and after how many bytes a frame has said its length."""

    make: Callable[[Scene, FaultPlan], Engine]
    header: int


ENGINES = {"m100": Model(M100, 5), "a0": Model(A0, 4), "gx": Model(Gx, 7), "llrp": Model(Llrp, 6)}


class Fifo:
    """Bytes waiting for a line of a given speed; what finds it full is lost."""

    def __init__(self, size: int = FIFO_BYTES) -> None:
        self._size = size
        self._bytes = bytearray()
        self._free_s = 0.0  # when the line has sent what left already
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._bytes)

    def put(self, data: bytes, now: float) -> None:
        """Add bytes at this moment (seconds)."""
        if not self._bytes:
            self._free_s = max(self._free_s, now)
        room = self._size - len(self._bytes)
        self._bytes += data[:room]
        self.dropped += max(0, len(data) - room)

    @property
    def through_s(self) -> float:
        """When the last byte taken was through."""
        return self._free_s

    def take(self, now: float, baud: int | None) -> bytes:
        """The bytes that are through by now; all with no speed given."""
        count = len(self._bytes)
        if baud is not None:
            per_s = baud / _BITS_PER_BYTE
            # A millionth of a byte of tolerance, so that sums of floats cost no byte.
            count = min(count, int((now - self._free_s) * per_s + 1e-6))
            self._free_s += max(count, 0) / per_s
        taken = bytes(self._bytes[: max(count, 0)])
        del self._bytes[: len(taken)]
        return taken


class Figures(NamedTuple):
    """What an emulator has done so far."""

    commands: int
    reads: int
    frames: int
    bytes_sent: int
    dropped: int  # bytes that found a FIFO full, in either direction
    junk: int  # bytes from the host that were part of no command
    faults: int


class EmulatedReader:
    """One reader: `turn` is given the time and the host's bytes, and returns the bytes for the host.

    Without pacing the line is endlessly fast, for tests whose clock jumps. Moments (seconds) must not go back.
    """

    def __init__(self, protocol: str, scene: Scene, *, paced: bool = True) -> None:
        model = ENGINES[protocol]
        self.protocol = protocol
        self.faults = FaultPlan(scene.faults, scene.seed)
        self.engine = model.make(scene, self.faults)
        self._header, self._paced = model.header, paced
        self._to_host, self._from_host = Fifo(), Fifo()
        self._sent: list[tuple[float, int, bytes]] = []  # heap: frames by the moment they begin to leave
        self._count = 0
        self._line: deque[tuple[float, bytes]] = deque()  # pieces in order, each not before its moment
        self._line_s = 0.0  # when the last piece went to the line
        self._lose = 0  # bytes
        self._bytes_sent = 0

    @property
    def idle(self) -> bool:
        """Whether nothing will happen until the host says something or a fault comes due."""
        waiting = self._sent or self._line or len(self._to_host) or len(self._from_host)
        return not waiting and not self.engine.scanning

    @property
    def figures(self) -> Figures:
        """What was done so far."""
        engine = self.engine
        return Figures(
            commands=sum(engine.heard.values()), reads=engine.reads, frames=self.faults.frames,
            bytes_sent=self._bytes_sent, dropped=self._to_host.dropped + self._from_host.dropped, junk=engine.junk,
            faults=sum(self.faults.taken.values()),
        )  # fmt: skip

    def turn(self, now: float, heard: bytes = b"") -> bytes:
        """Let time pass until now; the host has just sent `heard`."""
        self._reader_faults(now)
        if heard and self.faults.lasting(FaultKind.WRONG_BAUD, now):
            heard = self.faults.spoil(heard, now)
        self._hear(now)
        self._from_host.put(heard, now)
        self._hear(now)
        self.engine.play(now)
        return self._lost(self.faults.spoil(self._send_due(now), now))

    def power_cycle(self) -> None:
        """Power was gone: what waited is lost, and so are the settings."""
        self.engine.outbox.clear()
        self._sent.clear()
        self._line.clear()
        self._to_host.take(0, None)
        self._from_host.take(0, None)
        self.engine.power_up()

    # ----------------------------------------------------------------------------------------- inside

    @property
    def _baud(self) -> int | None:
        return self.engine.baud if self._paced else None

    def _hear(self, now: float) -> None:
        """What has come through from the host, at the moment it did."""
        if data := self._from_host.take(now, self._baud):
            at_s = min(now, max(self._from_host.through_s, self.engine.now))
            self.engine.play(at_s)
            self.engine.hear(data, at_s)

    def _reader_faults(self, now: float) -> None:
        faults = self.faults
        while junk := faults.take(FaultKind.JUNK, now):
            self._line.append((now, faults.junk(junk.size)))
        if reset := faults.take(FaultKind.RESET, now):
            self.power_cycle()
            self.engine.reset_for(reset.seconds)
        if faults.take(FaultKind.SLEEP, now):
            self.engine.sleep()
        while overrun := faults.take(FaultKind.OVERRUN, now):
            self._lose += overrun.size

    def _send_due(self, now: float) -> bytes:
        """Give the line what is due, each piece at its own moment however long this turn is; what is through."""
        outbox = self.engine.outbox
        while outbox:
            sent: Sent = outbox.popleft()
            heapq.heappush(self._sent, (sent.at_s, self._count, sent.frame))
            self._count += 1
        while self._sent and self._sent[0][0] <= now:
            at_s, _, frame = heapq.heappop(self._sent)
            self.faults.frames += 1
            self._line.extend(self._pieces(frame, at_s))
        through = bytearray()
        while self._line and self._line[0][0] <= now:
            at_s, piece = self._line.popleft()
            self._line_s = max(self._line_s, at_s)
            through += self._to_host.take(self._line_s, self._baud)
            self._to_host.put(piece, self._line_s)
        return bytes(through + self._to_host.take(now, self._baud))

    def _pieces(self, frame: bytes, at_s: float) -> list[tuple[float, bytes]]:
        """The frame as it goes on the line; whatever comes after waits for the last piece."""
        if stall := self.faults.take(FaultKind.STALL, at_s):
            return [(at_s, frame[: self._header]), (at_s + stall.seconds, b"")]
        if split := self.faults.take(FaultKind.SPLIT, at_s):
            middle = len(frame) // 2
            return [(at_s, frame[:middle]), (at_s + split.seconds, frame[middle:])]
        if self.faults.take(FaultKind.DUPLICATE, at_s):
            return [(at_s, frame), (at_s, frame)]
        return [(at_s, frame)]

    def _lost(self, data: bytes) -> bytes:
        lost = min(self._lose, len(data))
        self._lose -= lost
        self._bytes_sent += len(data) - lost
        return data[lost:]
