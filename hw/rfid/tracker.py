"""From reads to passings: a tag arrives, is in the field, and has left. Pure: time comes with the reads and `tick`.

A passing ends with a gap, not after a fixed time: a car at 120 km/h is in the field for 0.3 s, a car in a jam for
minutes. What arrives again soon is told, but need not alarm again.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

from hw.rfid.types import AirProtocol, TagRead

GAP_S = 2.0
HOLD_OFF_S = 30.0  # after an alert, the same tag alarms nobody
CAP = 4096  # tags in the field, and tags remembered for the hold-off

_UNHEARD = -999.0  # dBm, of a reader that tells none

Key = tuple[AirProtocol, bytes]


@dataclass(slots=True)
class Passing:
    """One tag's stay in the field. Moments in ns of the reads' clock."""

    first: TagRead
    last: TagRead
    count: int = 0
    peak_dbm: float | None = None
    arrived: bool = False
    votes: dict[int, list[float]] = field(default_factory=dict)  # antenna: reads, peak in dBm

    @property
    def lane(self) -> int:
        """The antenna that read it most often, of equals the one that heard it loudest."""
        return max(self.votes, key=lambda antenna: self.votes[antenna])

    @property
    def seconds(self) -> float:
        """From the first read to the last."""
        return (self.last.mono_ns - self.first.mono_ns) / 1e9

    def take(self, read: TagRead) -> None:
        """Count a read."""
        self.last = read
        self.count += 1
        dbm = read.rssi_dbm
        heard = _UNHEARD if dbm is None else dbm
        if dbm is not None and (self.peak_dbm is None or dbm > self.peak_dbm):
            self.peak_dbm = dbm
        vote = self.votes.setdefault(read.antenna, [0, heard])
        vote[0] += 1
        if heard > vote[1]:
            vote[1] = heard


class Arrived(NamedTuple):
    """A tag is there; `alert` is False when it alarmed less than the hold-off ago."""

    passing: Passing
    alert: bool


class Left(NamedTuple):
    """A tag that had arrived is gone; the passing is complete."""

    passing: Passing


class Tracker:
    """The tags in the field of one reader."""

    def __init__(
        self,
        *,
        floor_dbm: float | None = None,
        gap_s: float = GAP_S,
        hold_off_s: float = HOLD_OFF_S,
        cap: int = CAP,
    ) -> None:
        """`floor_dbm`: weaker than that at its loudest, a tag does not arrive; it may be in the next lane."""
        self._floor = floor_dbm
        self._gap_ns = int(gap_s * 1e9)
        self._hold_off_ns = int(hold_off_s * 1e9)
        self._cap = cap
        self._present: OrderedDict[Key, Passing] = OrderedDict()  # the one read longest ago first
        self._alerts: OrderedDict[Key, int] = OrderedDict()
        self._due_ns = 0  # before this moment nobody's gap is over

    @property
    def present(self) -> list[Passing]:
        """The tags that have arrived and not left."""
        return [passing for passing in self._present.values() if passing.arrived]

    def see(self, read: TagRead) -> list[Arrived | Left]:
        """Take a read; what became of it, and of the tags whose gap is over by now."""
        events: list[Arrived | Left] = list(self.tick(read.mono_ns)) if read.mono_ns > self._due_ns else []
        key = read.key
        passing = self._present.get(key)
        if passing is None:
            if len(self._present) >= self._cap:
                events += self._left(self._present.popitem(last=False)[1])
            passing = self._present[key] = Passing(read, read)
        passing.take(read)
        self._present.move_to_end(key)
        if not passing.arrived and passing.count >= read.integrity.reads_needed and self._loud(passing):
            passing.arrived = True
            events.append(Arrived(passing, self._alarms(key, read.mono_ns)))
        return events

    def tick(self, now_ns: int) -> list[Left]:
        """Let time pass; the tags that have left."""
        left: list[Left] = []
        while self._present:
            passing = next(iter(self._present.values()))
            self._due_ns = passing.last.mono_ns + self._gap_ns
            if now_ns <= self._due_ns:
                break
            self._present.popitem(last=False)
            left += self._left(passing)
        return left

    def _left(self, passing: Passing) -> list[Left]:
        return [Left(passing)] if passing.arrived else []

    def _loud(self, passing: Passing) -> bool:
        return self._floor is None or passing.peak_dbm is None or passing.peak_dbm >= self._floor

    def _alarms(self, key: Key, now_ns: int) -> bool:
        last = self._alerts.get(key)
        if last is not None and now_ns - last < self._hold_off_ns:
            return False
        self._alerts[key] = now_ns
        self._alerts.move_to_end(key)
        if len(self._alerts) > self._cap:
            self._alerts.popitem(last=False)
        return True
