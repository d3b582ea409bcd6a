"""Checkpoint: every tag that passes is checked against the data at hand; then silence, or an alarm.

Pure but for the check: time comes with the reads. The network is never waited for. What speaks for a copy is gathered
over the reads of many vehicles and goes into the check as a suspicion.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, NamedTuple, TypeVar

from firmware.machine.events import Alarm, Passed
from hw.rfid.tracker import CAP, HOLD_OFF_S, Arrived, Key, Left, Tracker
from hw.rfid.types import TagRead
from verifier.check import CheckResult, Observation
from verifier.types import Plate, Purpose, TagAuth, TagEvidence, TagSeen, TagSuspicion, WatchHit
from verifier.verdict import LOUD, Reason, VerdictCode

Check = Callable[[Observation], CheckResult]
LookAt = Callable[[TagSeen], TagEvidence]
WatchList = Callable[[Plate], tuple[WatchHit, ...]]
"""What a list for this place says of a plate."""

PATIENCE_S = 0.12  # for which the memory of a tag is waited for, where the reader reads it along
TWO_PLACES_S = 10.0  # within which no car gets from one lane to the next but one unseen in between
SPREADS = 3.0  # standard deviations below the usual peak, a tag may still be in an antenna's own lane
LEARNT = 32  # passings, until it is known what is usual
STRONG_READS = 2  # on each of two antennas: one alone may be a damaged frame
MEMORIES = 8  # different ones of one EPC that are counted, where one read alone may be damaged

_FINDINGS = frozenset({Reason.TAG_AUTH_FAILED, Reason.WATCH_LEAD})  # that count whatever else is not known

Memory = tuple[bytes | None, bytes | None]  # TID and user bank, None where it was not read
Shown = tuple[bytes | None, bytes | None, TagAuth | None]  # with what the reader's security module says of the tag

K = TypeVar("K")
V = TypeVar("V")


class _Recent(Generic[K, V]):
    """The last values that were put, at most CAP."""

    def __init__(self) -> None:
        self._kept: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        return self._kept.get(key)

    def put(self, key: K, value: V) -> None:
        self._kept[key] = value
        self._kept.move_to_end(key)
        if len(self._kept) > CAP:
            self._kept.popitem(last=False)


class _Place(NamedTuple):
    """A tag before one antenna."""

    reads: int
    last_ns: int
    peak: float  # strength, in dBm or as the reader tells it


@dataclass(slots=True)
class _Known:
    """What is known of one EPC in the field."""

    tid: bytes | None = None
    user: bytes | None = None
    auth: TagAuth | None = None
    heard: dict[Memory, int] = field(default_factory=dict)  # how often, where one read does not count
    places: dict[int, _Place] = field(default_factory=dict)
    suspicions: tuple[TagSuspicion, ...] = ()
    last_ns: int = 0
    waits_since: int | None = None  # ns; it has arrived, and its memory has not been read yet
    checked: Shown | None = None  # what the last check knew of it
    unchecked: bool = False  # it could not say anything
    alarmed_ns: int | None = None
    lane: int = 0

    @property
    def shown(self) -> Shown:
        return self.tid, self.user, self.auth


@dataclass(slots=True, kw_only=True)
class Counts:
    """What passed. `unchecked`: vehicles of which our data could not say anything; they make no alarm."""

    vehicles: int = 0
    alarms: int = 0
    unchecked: int = 0
    suspects: int = 0


class Checkpoint:
    """The vehicles before one reader. One thread uses it."""

    def __init__(
        self,
        check: Check,
        look_at: LookAt,
        *,
        tracker: Tracker | None = None,
        watch_list: WatchList | None = None,
        with_memory: bool = False,
        hold_off_s: float = HOLD_OFF_S,
    ) -> None:
        """`with_memory`: the reader reads TID and user memory along, so every tag is given a moment to show it.

        Without, a tag that names no plate may well be that of a car in order.
        """
        self._check, self._look_at = check, look_at
        self._tracker = tracker or Tracker(hold_off_s=hold_off_s)
        self._watch_list = watch_list
        self._with_memory = with_memory
        self._hold_off_ns = int(hold_off_s * 1e9)
        self._known: _Recent[Key, _Known] = _Recent()
        self._epcs: _Recent[bytes, Key] = _Recent()  # by TID
        self._plates: _Recent[Plate, tuple[Key, int]] = _Recent()
        self._waiting: dict[Key, _Known] = {}
        self._antennas = _Antennas()
        self._numbers = count(-1, -1)  # apart from those of the officer's checks
        self.counts = Counts()

    def see(self, read: TagRead) -> list[Passed | Alarm]:
        """Take a read; what came of it, and of the vehicles that were waited for until it was heard.

        Its own time counts, and not when it is looked at: while a slow disk held this thread up, all waited.
        """
        told = list(self.tick(read.mono_ns)) if self._waiting else []
        return told + list(self._read(read))

    def tick(self, now_ns: int) -> Iterator[Passed | Alarm]:
        """Let time pass, up to which every read was seen: whose memory has not come by now is checked without it."""
        for left in self._tracker.tick(now_ns):
            self._left(left)
        patience = int(PATIENCE_S * 1e9)
        late = [(key, known) for key, known in self._waiting.items() if now_ns - (known.waits_since or 0) >= patience]
        for key, known in late:
            yield from self._checked(key, known, now_ns)

    def _read(self, read: TagRead) -> Iterator[Passed | Alarm]:
        key = (read.protocol, read.epc)
        known = self._known.get(key)
        if known is None or read.mono_ns - known.last_ns >= self._hold_off_ns:
            known = _Known()  # a lead of this morning is none against who passes in the evening
        known.last_ns = read.mono_ns
        self._known.put(key, known)
        new = self._leads(key, known, read)
        # One vehicle whatever was read along: with or without its TID it is the same tag.
        moved = self._tracker.see(read._replace(tid=None, user=None))
        arrived = next((e for e in moved if isinstance(e, Arrived)), None)
        for event in moved:
            if isinstance(event, Left):
                self._left(event)
        if arrived is not None:
            known.lane = arrived.passing.lane
        if arrived is not None and arrived.alert:
            if self._with_memory and known.user is None:
                known.waits_since = read.mono_ns
                self._waiting[key] = known
            else:
                yield from self._checked(key, known, read.mono_ns)
        elif key in self._waiting:
            if known.user is not None:
                yield from self._checked(key, known, read.mono_ns)
        elif known.checked is not None and (new or _has_shown_more(known, known.checked)):
            yield from self._checked_again(key, known, read.mono_ns)

    def _left(self, event: Left) -> None:
        self._antennas.left(self._known.get((event.passing.first.protocol, event.passing.first.epc)))

    # ------------------------------------------------------------------------------------------ leads

    def _leads(self, key: Key, known: _Known, read: TagRead) -> bool:
        """Keep what a read adds, and whether it is a new reason to suspect a copy."""
        tid, user = _that_counts(known, read)
        leads = (self._other_tid(key, known, tid), self._antennas.two_places(known, read))
        found = [lead for lead in leads if lead is not None]
        known.user = user or known.user
        if known.auth is not TagAuth.FAIL:  # that stands: a copy may answer beside its original
            known.auth = read.auth or known.auth
        new = [s for s in found if s not in known.suspicions]
        known.suspicions += tuple(new)
        return bool(new)

    def _other_tid(self, key: Key, known: _Known, tid: bytes | None) -> TagSuspicion | None:
        if tid is None:
            return None
        before, known.tid = known.tid, tid
        if before not in (None, tid):
            known.user = None  # it was the other one's
            return TagSuspicion.TWO_TAGS
        other = self._epcs.get(tid)
        self._epcs.put(tid, key)
        return TagSuspicion.TWO_EPCS if other not in (None, key) else None

    def _plate_twice(self, key: Key, tag: TagEvidence | None, now_ns: int) -> bool:
        """Whether another tag has just named the same plate."""
        if tag is None or tag.plate is None:
            return False
        other = self._plates.get(tag.plate)
        self._plates.put(tag.plate, (key, now_ns))
        return other is not None and other[0] != key and now_ns - other[1] < self._hold_off_ns

    # ------------------------------------------------------------------------------------------ checks

    def _checked(self, key: Key, known: _Known, now_ns: int) -> Iterator[Passed | Alarm]:
        """The first check of a passing, and mostly the only one."""
        self._waiting.pop(key, None)
        known.waits_since, known.unchecked = None, False
        self.counts.vehicles += 1
        result = self._judged(key, known, now_ns)
        yield self._alarm(known, result, now_ns) if self._is_loud(result) else Passed(1)

    def _checked_again(self, key: Key, known: _Known, now_ns: int) -> Iterator[Alarm]:
        """A vehicle that was checked already has come under suspicion, or has shown its memory only now."""
        result = self._judged(key, known, now_ns)
        told = known.alarmed_ns is not None and now_ns - known.alarmed_ns < self._hold_off_ns
        if self._is_loud(result) and not told:
            yield self._alarm(known, result, now_ns)

    def _judged(self, key: Key, known: _Known, now_ns: int) -> CheckResult:
        known.checked = known.shown
        result = self._check(self._observation(key, known))
        if TagSuspicion.TWO_TAGS not in known.suspicions and self._plate_twice(key, result.evidence.tag, now_ns):
            known.suspicions += (TagSuspicion.TWO_TAGS,)
            result = self._check(self._observation(key, known))
        before, known.unchecked = known.unchecked, result.verdict.tone in LOUD and not self._is_loud(result)
        self.counts.unchecked += known.unchecked - before
        return result

    def _is_loud(self, result: CheckResult) -> bool:
        """Whether a check is worth an alarm: that our data, or this reader, cannot say anything is none."""
        verdict = result.verdict
        if verdict.code is not VerdictCode.UNDECIDED or not _FINDINGS.isdisjoint(verdict.reasons):
            return verdict.tone in LOUD
        return self._with_memory and not result.plates

    def _observation(self, key: Key, known: _Known) -> Observation:
        seen = _seen(key, known)
        tag = TagEvidence(auth=seen.auth, tid="", plate=None, seen=seen)
        hits: tuple[WatchHit, ...] = ()
        if self._watch_list is not None and (plate := self._look_at(seen).plate) is not None:
            hits = self._watch_list(plate)
        return Observation(tag=tag, watch=hits, purpose=Purpose.CHECKPOINT)

    def _alarm(self, known: _Known, result: CheckResult, now_ns: int) -> Alarm:
        known.alarmed_ns = now_ns
        self.counts.alarms += 1
        tag = result.evidence.tag
        self.counts.suspects += tag is not None and bool(tag.suspicions)
        return Alarm(number=next(self._numbers), result=result, lane=known.lane)


def _that_counts(known: _Known, read: TagRead) -> Memory:
    """The memory that came along with a read, once it was read as often as its frame's checksum asks for."""
    memory: Memory = (read.tid, read.user)
    if memory == (None, None) or read.integrity.reads_needed == 1:
        return memory
    times = known.heard.pop(memory, 0) + 1
    if len(known.heard) >= MEMORIES:
        del known.heard[next(iter(known.heard))]
    known.heard[memory] = times
    return memory if times >= read.integrity.reads_needed else (None, None)


def _has_shown_more(known: _Known, checked: Shown) -> bool:
    """Whether TID, user bank or proof have come that the last check had to do without, or a proof has failed since."""
    pairs = list(zip(known.shown, checked, strict=True))
    return any(now is not None and then is None for now, then in pairs) or pairs[-1] == (TagAuth.FAIL, TagAuth.OK)


def _seen(key: Key, known: _Known) -> TagSeen:
    auth = known.auth or TagAuth.UNSUPPORTED
    return TagSeen(epc=key[1], tid=known.tid, user=known.user, auth=auth, suspicions=known.suspicions)


class _Antennas:
    """Antennas hang in a row, one over each lane: two that are not neighbours never hear one tag as their own.

    What "as their own" is, the vehicles before have shown, in whatever unit the reader tells a strength.
    """

    def __init__(self) -> None:
        self._mean = self._variance = 0.0
        self._passings = 0

    def left(self, known: _Known | None) -> None:
        """A passing is complete: the loudest antenna was the one of its lane."""
        if known is None or not known.places:
            return
        peak = max(place.peak for place in known.places.values())
        self._passings = min(self._passings + 1, LEARNT)
        off = peak - self._mean
        self._mean += off / self._passings
        self._variance += (off * (peak - self._mean) - self._variance) / self._passings

    def two_places(self, known: _Known, read: TagRead) -> TagSuspicion | None:
        """Whether a read, with those before, is of a tag that is in two lanes."""
        strength = float(read.rssi_raw) if read.rssi_dbm is None else read.rssi_dbm
        here = known.places.get(read.antenna)
        if here is None or read.mono_ns - here.last_ns >= TWO_PLACES_S * 1e9:
            here = _Place(0, 0, strength)
        here = _Place(here.reads + 1, read.mono_ns, max(here.peak, strength))
        known.places[read.antenna] = here
        for antenna, there in known.places.items():
            recent = read.mono_ns - there.last_ns < TWO_PLACES_S * 1e9
            if abs(antenna - read.antenna) >= 2 and recent and self._own(here) and self._own(there):
                low, high = sorted((antenna, read.antenna))
                between = [place.peak for at, place in known.places.items() if low < at < high]
                if max(between, default=-math.inf) < min(here.peak, there.peak):
                    return TagSuspicion.TWO_PLACES
        return None

    def _own(self, place: _Place) -> bool:
        """Whether an antenna heard a tag like one in its own lane."""
        learnt = self._passings >= LEARNT and place.reads >= STRONG_READS
        return learnt and place.peak >= self._mean - SPREADS * math.sqrt(self._variance)
