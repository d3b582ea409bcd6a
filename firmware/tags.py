"""The thread that reads tags: what is in the field for the officer's list, or a checkpoint over all lanes.

A reader that is lost, or not there, is a fault on the panel and is tried again; every other way of checking goes on.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from firmware.checkpoint import Checkpoint
from firmware.machine.events import Event, PartFault, SeenTag, TagsSeen
from hw.errors import HardwareError, ReaderTimeoutError, RejectedError, TagError, UnsupportedError
from hw.rfid.driver import Driver
from hw.rfid.inventory import Inventory
from hw.rfid.session import Wait
from hw.rfid.tracker import Arrived, Left, Passing, Tracker
from hw.rfid.types import (
    AirProtocol,
    AuthResult,
    Bank,
    Caps,
    Gap,
    GapReason,
    InventoryConfig,
    RoundEnd,
    Selector,
    TagRead,
)
from verifier.codec.cose import SIGNATURE_LENGTH
from verifier.codec.tag import LONGEST_TC1_BYTES, TC0_EPC_BYTES
from verifier.types import TagAuth, TagEvidence, TagSeen

PART = "reader"
POLL_S = 0.1
LIST_S = 0.2  # between two lists of what is in the field
LISTED = 8  # tags of one list, the strongest
FETCHED = 4  # tags whose memory is read, the strongest
TRIES = 3  # to read one tag's memory
REMEMBERED = 256  # tags whose memory is kept
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 5.0  # between two attempts to open the reader
TID_WORDS = 6
TC1_WORDS, TC0_WORDS = LONGEST_TC1_BYTES // 2, SIGNATURE_LENGTH // 2
UNHEARD_DBM = -90.0  # of a reader that tells no strength


class _Job(Enum):
    READ = "read"
    WATCH = "watch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """Where and how a reader looks for tags.

    `user_words` of a checkpoint are read along with every read where the reader can: TC1_WORDS for certificates, of
    which a line of 115200 baud carries 63 a second. Of tags that stand, memory is read once and apart.
    """

    antennas: tuple[int, ...] = (1,)
    air: AirProtocol = AirProtocol.GEN2
    user_words: int = 0

    def config(self, caps: Caps, *, watching: bool) -> InventoryConfig:
        """TID with every read where the reader gives it, else the EPC alone."""
        tid = TID_WORDS if caps.tid_in_inventory else 0
        user = self.user_words if tid and watching else 0
        return InventoryConfig(
            protocol=self.air, antennas=self.antennas, tid=tid, user=user, authenticate=caps.can_authenticate
        )  # fmt: skip


class _Memory(NamedTuple):
    tid: bytes | None = None
    user: bytes | None = None
    auth: TagAuth | None = None  # what the reader's security module said; None: not asked yet
    tries: int = 0


class Memories:
    """What was read of the memories of the tags in the field, and what the reader says of them, by protocol and EPC."""

    def __init__(self, *, authenticates: bool, tid_along: bool, doubted: Callable[[TagSeen], bool]) -> None:
        """`authenticates`: the reader has a security module for GB/T 29768. `tid_along`: it tells TIDs while scanning.

        What is `doubted` is read once more before it is told: one damaged frame must not accuse anybody.
        """
        self._authenticates, self._tid_along, self._doubted = authenticates, tid_along, doubted
        self._kept: OrderedDict[tuple[AirProtocol, bytes], _Memory] = OrderedDict()
        self._mute: set[AirProtocol] = set()  # of these, the reader reads no memory
        self._failures = 0  # on end, of the reader and not of a tag

    def take(self, read: TagRead) -> None:
        """Keep what came along with a read.

        Another TID, or a proof that fails after one that did not, is another chip: it has nothing of the one before.
        """
        if (read.tid, read.user, read.auth) != (None, None, None):
            old = self._of(read)
            other = read.tid is not None and old.tid not in (None, read.tid)
            if other or (old.auth, read.auth) == (TagAuth.OK, TagAuth.FAIL):
                old = _Memory(tries=old.tries)
            auth = old.auth if old.auth is TagAuth.FAIL else read.auth or old.auth  # a failed proof stands
            self._put(read, old._replace(tid=read.tid or old.tid, user=read.user or old.user, auth=auth))

    def forget(self, moved: Iterable[Arrived | Left]) -> None:
        """Of tags that have left: who comes with such an EPC must show itself anew."""
        for event in moved:
            if isinstance(event, Left):
                self._kept.pop((event.passing.last.protocol, event.passing.last.epc), None)

    def seen(self, read: TagRead) -> TagSeen:
        """All that is known of the tag of a read."""
        known = self._of(read)
        return TagSeen(epc=read.epc, tid=known.tid, user=known.user, auth=known.auth or TagAuth.UNSUPPORTED)

    def wanting(self, read: TagRead) -> bool:
        """Whether something of it is still to be read or asked."""
        lacking = self._unread(read) or self._unproven(read)
        return lacking and self._of(read).tries < TRIES and bool(read.epc)

    def fetch(self, driver: Driver, read: TagRead) -> bool:
        """Read what is missing; whether the reader answered. It must not be scanning.

        HardwareError, but neither TagError, which counts as a try, nor UnsupportedError, which says nothing of the tag.
        A reader that keeps silent, or refuses, is asked TRIES times on end and then no more.
        """
        self._put(read, self._of(read)._replace(tries=self._of(read).tries + 1))
        try:
            self._fetch(driver, Selector(read.epc, read.protocol), read)
        except (ReaderTimeoutError, RejectedError):
            self._failures += 1
            if self._failures >= TRIES:
                self._mute.add(read.protocol)
                self._authenticates = False
            return False
        self._failures = 0
        return True

    def _fetch(self, driver: Driver, selector: Selector, read: TagRead) -> None:
        if self._unread(read):
            try:
                self._read(driver, selector, read)
            except TagError:
                pass  # it may answer better next time
            except UnsupportedError:
                self._mute.add(read.protocol)
        if self._unproven(read):
            with suppress(TagError):
                self.take(read._replace(tid=None, user=None, auth=self._asked(driver, selector)))

    def _read(self, driver: Driver, selector: Selector, read: TagRead) -> None:
        for again in (False, True):
            tid = self._of(read).tid if self._tid_along and not again else None
            # Where it does not come along, the TID is read with the bank, so that both are of one chip.
            tid = tid or driver.read_memory(selector, Bank.TID, 0, TID_WORDS).data
            self.take(read._replace(tid=tid, user=None, auth=None))
            user = driver.read_memory(selector, Bank.USER, 0, _user_words(read.epc)).data
            self.take(read._replace(tid=tid, user=user, auth=None))
            if not self._doubted(self.seen(read)):
                return

    def _asked(self, driver: Driver, selector: Selector) -> TagAuth:
        try:
            said = driver.authenticate(selector, "safe_mark", b"")
        except UnsupportedError:
            return TagAuth.UNSUPPORTED
        return said.state if isinstance(said, AuthResult) else TagAuth.UNSUPPORTED

    def _unread(self, read: TagRead) -> bool:
        known = self._of(read)
        return (known.tid is None or known.user is None) and read.protocol not in self._mute

    def _unproven(self, read: TagRead) -> bool:
        """Whether the reader is still to be asked what its security module says of the tag."""
        return self._authenticates and read.protocol is AirProtocol.GB29768 and self._of(read).auth is None

    def _of(self, read: TagRead) -> _Memory:
        return self._kept.get((read.protocol, read.epc), _Memory())

    def _put(self, read: TagRead, memory: _Memory) -> None:
        key = (read.protocol, read.epc)
        self._kept[key] = memory
        self._kept.move_to_end(key)
        if len(self._kept) > REMEMBERED:
            self._kept.popitem(last=False)


def _user_words(epc: bytes) -> int:
    """An EPC of version 0 holds fields, and then the bank holds a signature alone (docs/tag-certificate.md)."""
    return TC0_WORDS if len(epc) == TC0_EPC_BYTES and epc[0] >> 4 == 0 else TC1_WORDS


class TagThread:
    """Reads tags while somebody wants it; the reader is open only then."""

    def __init__(
        self,
        make: Callable[[], Driver],
        post: Callable[[Event], None],
        look_at: Callable[[TagSeen], TagEvidence],
        checkpoint: Callable[[bool], Checkpoint],
        *,
        field: Field | None = None,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        wait: Wait = threading.Condition.wait,
    ) -> None:
        """`checkpoint` makes a fresh one, told whether the reader reads memory along.

        `look_at` and the checkpoint's check are called from this thread alone, so they need a verifier of their own.
        """
        self._make, self._post, self._look_at, self._checkpoint = make, post, look_at, checkpoint
        self._field = field or Field()
        self._monotonic_ns, self._wait = monotonic_ns, wait
        self._changed = threading.Condition()
        self._wanted: _Job | None = None
        self._closed = False
        self.opened = 0  # how often the reader was there
        self._problem = ""
        self._passing_problem = False  # one that the next sign of life ends
        self._delay = FIRST_DELAY_S
        self._thread: threading.Thread | None = None

    # ---------------------------------------------------------------------------------------- from anywhere

    def start(self) -> None:
        """Begin to wait for work."""
        self._thread = threading.Thread(target=self.run, name="tags", daemon=True)
        self._thread.start()

    def read(self, on: bool) -> None:
        """Show what is in the field."""
        self._want(_Job.READ, on)

    def watch(self, on: bool) -> None:
        """Check every car that passes."""
        self._want(_Job.WATCH, on)

    def close(self) -> None:
        """Let go of the reader and end; harmless twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _want(self, job: _Job, on: bool) -> None:
        with self._changed:
            if on:
                self._wanted, self._delay = job, FIRST_DELAY_S
            elif self._wanted is job:
                self._wanted = None
            self._changed.notify_all()

    # ------------------------------------------------------------------------------------ from its own thread

    def run(self) -> None:
        """Until `close`."""
        while (job := self._next()) is not None:
            try:
                with self._make() as driver:
                    self._told("")
                    self._delay = FIRST_DELAY_S
                    self.opened += 1
                    self._work(driver, job)
            except HardwareError as exc:
                self._told(exc.problem)
                self._pause()

    def _next(self) -> _Job | None:
        with self._changed:
            while self._wanted is None and not self._closed:
                self._wait(self._changed, POLL_S)
            return None if self._closed else self._wanted

    def _pause(self) -> None:
        """Before the next attempt, unless something else is wanted meanwhile."""
        with self._changed:
            job, end = self._wanted, self._monotonic_ns() + int(self._delay * 1e9)
            while self._wanted is job and job is not None and not self._closed:
                left = (end - self._monotonic_ns()) / 1e9
                if left <= 0:
                    break
                self._wait(self._changed, min(left, POLL_S))
        self._delay = min(2 * self._delay, LONGEST_DELAY_S)

    def _goes_on(self, job: _Job) -> bool:
        with self._changed:
            return self._wanted is job and not self._closed

    def _work(self, driver: Driver, job: _Job) -> None:
        caps = driver.identify()
        config = self._field.config(caps, watching=job is _Job.WATCH)
        if job is _Job.WATCH:
            self._watch(driver, config)
            return
        memories = Memories(
            authenticates=caps.can_authenticate, tid_along=config.tid > 0, doubted=self._doubted
        )  # fmt: skip
        tracker, away_ns = Tracker(), 0
        while self._goes_on(job):
            with driver.inventory(config) as scan:
                wanting = self._listed(scan, tracker, memories, away_ns)
            since_ns = self._monotonic_ns()
            for read in wanting:
                if not memories.fetch(driver, read):
                    break  # the scan shows whether the reader is silent altogether
            away_ns += self._monotonic_ns() - since_ns  # nobody can be heard meanwhile, so nobody leaves

    def _doubted(self, seen: TagSeen) -> bool:
        return self._look_at(seen).fault is not None

    # ------------------------------------------------------------------------------------------- the two jobs

    def _watch(self, driver: Driver, config: InventoryConfig) -> None:
        checkpoint = self._checkpoint(config.user > 0)
        with driver.inventory(config) as scan:
            while self._goes_on(_Job.WATCH):
                event = scan.poll(POLL_S)
                self._heed(event)
                told: Iterable[Event] = ()
                if isinstance(event, TagRead):
                    told = checkpoint.see(event)
                elif event is None:  # nothing is left to be looked at
                    told = checkpoint.tick(self._monotonic_ns())
                for happened in told:
                    self._post(happened)

    def _listed(self, scan: Inventory, tracker: Tracker, memories: Memories, away_ns: int) -> list[TagRead]:
        """Post lists until the memory of some tag is to be read, or the job is over; these tags, heard in this scan.

        The tracker's clock stood still for `away_ns`.
        """
        began_ns = self._monotonic_ns() - away_ns
        due_ns = self._monotonic_ns() + int(LIST_S * 1e9)
        while self._goes_on(_Job.READ):
            event = scan.poll(POLL_S / 2)
            self._heed(event)
            if isinstance(event, TagRead):
                memories.forget(tracker.see(event._replace(tid=None, user=None, mono_ns=event.mono_ns - away_ns)))
                memories.take(event)
            now_ns = self._monotonic_ns()
            if now_ns < due_ns:
                continue
            due_ns = now_ns + int(LIST_S * 1e9)
            memories.forget(tracker.tick(now_ns - away_ns))
            strongest = sorted(tracker.present, key=_dbm, reverse=True)[:LISTED]
            self._post(TagsSeen(tuple(self._tag(passing, memories) for passing in strongest)))
            heard = [passing.last for passing in strongest[:FETCHED] if passing.last.mono_ns >= began_ns]
            wanting = [read for read in heard if memories.wanting(read)]
            if wanting:
                return wanting
        return []

    def _tag(self, passing: Passing, memories: Memories) -> SeenTag:
        evidence = self._look_at(memories.seen(passing.last))
        return SeenTag(evidence=evidence, rssi_dbm=_dbm(passing), antenna=passing.last.antenna)

    # ------------------------------------------------------------------------------------------------- faults

    def _heed(self, event: TagRead | RoundEnd | Gap | None) -> None:
        """Tell of a reader that is gone or has a fault, and that it is back."""
        if isinstance(event, Gap):
            problem = _PROBLEMS[event.reason]
            if not event.over:
                self._told(problem, passing=event.reason is GapReason.READER_FAULT)
            elif self._problem == problem:  # an antenna may be missing still
                self._told("")
        elif event is not None and self._passing_problem:
            self._told("")

    def _told(self, problem: str, *, passing: bool = False) -> None:
        self._passing_problem = passing and bool(problem)
        if problem != self._problem:
            self._problem = problem
            self._post(PartFault(PART, problem))


_PROBLEMS = {
    GapReason.LINK_LOST: "line lost",
    GapReason.SILENT: "no answer",
    GapReason.ANTENNA_MISSING: "antenna missing",
    GapReason.READER_FAULT: "reader fault",
}


def _dbm(passing: Passing) -> float:
    """How strongly it is heard now: the bar moves with it while the officer walks."""
    dbm = passing.last.rssi_dbm
    return UNHEARD_DBM if dbm is None else dbm
