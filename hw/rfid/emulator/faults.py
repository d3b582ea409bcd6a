"""What may go wrong between a reader and its host, by time and count, repeatable by seed."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class FaultKind(StrEnum):
    """The faults. Those marked as lasting hold from their beginning for `for_s`; the others happen `count` times."""

    # on the bytes to the host
    BIT_FLIP = "bit_flip"  # lasting; `rate` per byte
    BYTE_DROP = "byte_drop"  # lasting; `rate` per byte
    BYTE_INSERT = "byte_insert"  # lasting; `rate` per byte
    WRONG_BAUD = "wrong_baud"  # lasting; garbage in both directions
    JUNK = "junk"  # `size` random bytes, as at boot
    OVERRUN = "overrun"  # the next `size` bytes are lost
    # on whole frames to the host
    DUPLICATE = "duplicate"
    SPLIT = "split"  # a pause of `seconds` in the middle
    STALL = "stall"  # the frame ends after its length field
    # on answers
    LOST_ACK = "lost_ack"
    LATE_ACK = "late_ack"  # after `seconds`
    WRONG_ACK = "wrong_ack"  # names another command
    # on the reader
    RESET = "reset"  # silent for `seconds`, then as after power-up: region and power are lost
    SLEEP = "sleep"  # the next byte wakes it and is lost, settings too
    ANTENNA_MISSING = "antenna_missing"  # lasting; antenna number `antenna`; A0 and GX tell it
    FHSS = "fhss"  # lasting; no free channel; M100 tells it
    UNPLUG = "unplug"  # back after `seconds`


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault: what, and from which moment and which frame to the host on."""

    kind: FaultKind
    at_s: float = 0.0
    after_frames: int = 0
    for_s: float = math.inf  # of lasting ones
    count: int = 1  # of the others
    rate: float = 0.001
    seconds: float = 0.5
    size: int = 16  # bytes
    antenna: int = 1


class FaultPlan:
    """The faults of a scene as they come due. `frames` and `taken` count; nothing here knows a port."""

    def __init__(self, faults: Iterable[Fault], seed: int) -> None:
        self._faults = tuple(faults)
        self._rng = random.Random(f"faults/{seed}")  # noqa: S311 - noise that can be played again, no secret
        self._left = [fault.count for fault in self._faults]
        self._began: list[float | None] = [None] * len(self._faults)
        self.frames = 0  # sent to the host
        self.taken: Counter[FaultKind] = Counter()

    def take(self, kind: FaultKind, now: float) -> Fault | None:
        """The next occurrence of a fault that happens once or a few times, if one is due; it counts as used."""
        for place, fault in enumerate(self._faults):
            if fault.kind is kind and self._left[place] and self._due(fault, now):
                self._left[place] -= 1
                self.taken[kind] += 1
                return fault
        return None

    def lasting(self, kind: FaultKind, now: float, antenna: int | None = None) -> Fault | None:
        """The lasting fault of this kind that holds now; None when there is none."""
        for place, fault in enumerate(self._faults):
            if fault.kind is not kind or (antenna is not None and fault.antenna != antenna):
                continue
            if self._began[place] is None and self._due(fault, now):
                self._began[place] = now if fault.after_frames else fault.at_s
            began = self._began[place]
            if began is not None and began <= now < began + fault.for_s:
                return fault
        return None

    def _due(self, fault: Fault, now: float) -> bool:
        return now >= fault.at_s and self.frames >= fault.after_frames

    def spoil(self, data: bytes, now: float) -> bytes:
        """The bytes as they arrive on a bad line."""
        if self.lasting(FaultKind.WRONG_BAUD, now):
            self.taken[FaultKind.WRONG_BAUD] += len(data)
            return self._rng.randbytes(len(data) * 4 // 3)
        rates = [
            (kind, fault.rate)
            for kind in (FaultKind.BIT_FLIP, FaultKind.BYTE_DROP, FaultKind.BYTE_INSERT)
            if (fault := self.lasting(kind, now))
        ]
        return b"".join(self._spoiled(byte, rates) for byte in data) if rates else data

    def _spoiled(self, byte: int, rates: list[tuple[FaultKind, float]]) -> bytes:
        out = bytes((byte,))
        for kind, rate in rates:
            if self._rng.random() >= rate:
                continue
            self.taken[kind] += 1
            if kind is FaultKind.BIT_FLIP and out:
                out = bytes((out[0] ^ 1 << self._rng.randrange(8),)) + out[1:]
            elif kind is FaultKind.BYTE_DROP:
                out = b""
            else:
                out += self._rng.randbytes(1)
        return out

    def junk(self, size: int) -> bytes:
        """Bytes without a meaning."""
        return self._rng.randbytes(size)
