"""What is asked every second: battery, network, data in use, clock, day. A thread of its own asks, because a gauge on
a bus or a card may take its time; only what has changed is posted.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import date, datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from firmware.machine.events import Counted, DataRead, Event, ModesRead, NetworkRead, PartFault, PowerRead
from firmware.machine.states import Mode, State
from firmware.machine.steps import FLAT
from hw.power.sysfs import read_power
from verifier.audit import COUNTED, checks_of
from verifier.cache.store import StatusStore
from verifier.clock import Clock
from verifier.errors import AuditError, CacheError, CacheMissingError, PolicyError
from verifier.heartbeat import Vitals, save_vitals
from verifier.online import Centre
from verifier.policy import Policy, load_policy
from verifier.types import SHANGHAI
from verifier.verdict import VerdictCode
from verifier.wipe import WipeRecord

EVERY_S = 1.0
WIPE_ROUNDS = 30  # for which a wipe may go on before the program is ended all the same
VITALS_FIRST_MS, VITALS_EVERY_MS = 10_000, 300_000
CACHE, MODE = "cache", "mode"
NEEDS_READER = frozenset({Mode.TAGS, Mode.CHECKPOINT})
_RETRY_STEP_MS = 5_000  # the next try is told in steps of this: nobody reads seconds, and each one is a new picture
_BLOCK = 1 << 16  # bytes
_MOST_BYTES = 32 << 20  # of the audit log for one day

Probe = Callable[[], tuple[Event, ...]]


class Probing:
    """Asks all probes again and again, and posts what is not as before."""

    def __init__(self, probes: tuple[Probe, ...], post: Callable[[Event], None], every_s: float = EVERY_S) -> None:
        self._probes, self._post, self._every_s = probes, post, every_s
        self._last: dict[tuple[int, int], Event] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="probes", daemon=True)

    def start(self) -> None:
        """The first answers now, the others from a thread."""
        self.ask()
        self._thread.start()

    def close(self) -> None:
        """End the thread, unless a part holds it."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(1)

    def ask(self) -> None:
        """One round."""
        for at, probe in enumerate(self._probes):
            for place, event in enumerate(probe()):
                if self._last.get((at, place)) != event:
                    self._last[at, place] = event
                    self._post(event)

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            self.ask()


def battery(sysfs: Path) -> Probe:
    """The charge, None on mains. An empty one counts once it is read twice: a gauge may err once, and off is off."""
    told: list[PowerRead] = []
    empty = [0]  # times in a row

    def probe() -> tuple[Event, ...]:
        reading = read_power(sysfs)
        flat = reading.percent is not None and reading.percent <= FLAT and not reading.charging
        empty[0] = empty[0] + 1 if flat else 0
        if empty[0] != 1:
            told[:] = [PowerRead(percent=reading.percent, charging=reading.charging)]
        return tuple(told)

    return probe


def network(centre: Centre | None) -> Probe:
    """Whether the centre has answered last, and when it is asked again; without one nobody is reached."""

    def probe() -> tuple[Event, ...]:
        if centre is None:
            return (NetworkRead(online=False),)
        link, wait_ms = centre.link, centre.next_try_ms()
        retry_ms = None if wait_ms is None else -(-wait_ms // _RETRY_STEP_MS) * _RETRY_STEP_MS
        return (NetworkRead(online=link.asks and link.reason is None and link.successes > 0, retry_ms=retry_ms),)

    return probe


class Doubting(Protocol):
    """What knows of the time; see `verifier.trusted_time.TrustedTime`."""

    def doubts(self, now: datetime) -> tuple[object, ...]:
        """Why the clock is not believed."""
        ...


def data(store: StatusStore, time: Doubting, clock: Clock, *, has_key: bool) -> Probe:
    """The moment of the data in use, and the banner of a cache that is missing, damaged or without its key."""

    def probe() -> tuple[Event, ...]:
        as_of, problem = None, "" if has_key else "no epoch key"
        try:
            as_of = store.info().as_of
        except CacheMissingError:
            problem = "no data"
        except CacheError:
            problem = "damaged"
        return DataRead(as_of=as_of, clock_doubted=bool(time.doubts(clock()))), PartFault(CACHE, problem)

    return probe


def modes(policy: Callable[[], bytes], *, has_reader: bool) -> Probe:
    """What the policy in force says of this device; `policy` gives its bytes, CacheError without data.

    A device without a reader opens at the roadside, and its banner says why.
    """
    known: list[tuple[bytes, Policy]] = []

    def probe() -> tuple[Event, ...]:
        with suppress(CacheError, PolicyError):  # the last good one stays in force, as in checks
            data = policy()
            if not known or known[0][0] != data:
                known[:] = [(data, load_policy(data))]
        said = known[0][1] if known else Policy()
        lacking = said.mode in NEEDS_READER and not has_reader
        return (
            ModesRead(opens=Mode.ROADSIDE if lacking else said.mode, offered=frozenset(said.modes)),
            PartFault(MODE, f"{said.mode}: this device has no reader" if lacking else ""),
        )

    return probe


def counts(audit: Path, clock: Clock) -> Probe:
    """Today's checks by their verdicts, in Asia/Shanghai: as many as the audit log has rows of them."""
    tally = Tally(audit)

    def probe() -> tuple[Event, ...]:
        today = clock().astimezone(SHANGHAI).date()
        return (Counted(today, dict(tally.of(today))),)

    return probe


def vitals(path: Path, state: Callable[[], State], clock: Clock, now_ms: Callable[[], int]) -> Probe:
    """Notes every few minutes how the program is, for the next sign of life that reaches the centre; posts nothing.

    A card that takes no note is told of by the check of the disk.
    """
    failed: Counter[str] = Counter()
    standing: set[str] = set()
    due_ms = [now_ms() + VITALS_FIRST_MS]

    def probe() -> tuple[Event, ...]:
        now = state()
        failed.update(now.faults.keys() - standing)
        standing.clear()
        standing.update(now.faults)
        if now_ms() >= due_ms[0]:
            due_ms[0] = now_ms() + VITALS_EVERY_MS
            with suppress(OSError):
                save_vitals(path, _vitals(now, failed, clock()))
        return ()

    return probe


def _vitals(state: State, failed: Mapping[str, int], now: datetime) -> Vitals:
    verdicts = {f"verdict_{code.value.lower()}": count for code, count in state.counts.items()}
    faults = {f"fault_{part}": count for part, count in failed.items()}
    settings = {"settings_version": state.status.settings} if state.status.settings else {}
    return Vitals(
        at=now, battery_percent=state.status.battery, charging=state.status.charging,
        counters=verdicts | faults | settings,
        faults=tuple(sorted(state.faults)),
    )  # fmt: skip


def erased(record: Callable[[], WipeRecord | None], over: Callable[[], None]) -> Probe:
    """Calls `over` once the device was erased, whichever process did it: a program remembers its last checks, and the
    service manager starts one that knows nothing. A wipe that does not come to its end, as while a sync runs, is
    finished by that start. Posts nothing."""
    first: list[WipeRecord | None] = []
    begun = [0]  # rounds since a wipe was begun

    def probe() -> tuple[Event, ...]:
        with suppress(OSError):
            found = record()
            if not first:
                first.append(found)
            elif found is not None and found != first[0]:
                begun[0] += 1
                if found.done or begun[0] >= WIPE_ROUNDS:
                    over()
        return ()

    return probe


# -------------------------------------------------------------------------------------------- today's counts


class Tally:
    """The verdicts of one day's checks in an audit log, an accident's two included; of a log that grows, what is new
    is read and no more. Later words on the same check do not count again. A log that cannot be read counts nothing."""

    def __init__(self, audit: Path) -> None:
        self._audit = audit
        self._day: date | None = None
        self._counts: Counter[VerdictCode] = Counter()
        self._read = 0  # bytes, to the end of a line

    def of(self, day: date) -> Mapping[VerdictCode, int]:
        """The counts of a day: at first from the log's end, as long as its checks are of that day."""
        with suppress(OSError), self._audit.open("rb") as file:
            size = file.seek(0, 2)
            if day != self._day or size < self._read:
                self._begin(file, day)
            elif size > self._read:
                self._go_on(file, day)
            return self._counts
        self._day, self._read = None, 0
        return {}

    def _begin(self, file: BinaryIO, day: date) -> None:
        self._day, self._counts, size = day, Counter(), file.seek(0, 2)
        lines = _from_the_end(file, size)
        self._read = size - len(next(lines, b""))  # what follows the last line's end is not whole yet
        for line in lines:
            told = _verdicts(line)
            if told is not None and told[0] < day:
                return
            self._add(told, day)

    def _go_on(self, file: BinaryIO, day: date) -> None:
        file.seek(self._read)
        whole, end, _ = file.read(_MOST_BYTES).rpartition(b"\n")
        self._read += len(whole) + len(end)
        for line in whole.split(b"\n"):
            self._add(_verdicts(line), day)

    def _add(self, told: tuple[date, list[VerdictCode]] | None, day: date) -> None:
        if told is not None and told[0] == day:
            self._counts.update(told[1])


def _verdicts(line: bytes) -> tuple[date, list[VerdictCode]] | None:
    """The day in Shanghai, and the verdicts; None for a line that is no check. A sealed line leaves both readable."""
    try:
        entry = json.loads(line)
        if isinstance(entry, dict) and "codes" in entry:
            return date.fromisoformat(entry["day"]), [VerdictCode(code) for code in entry["codes"]]
        if not isinstance(entry, dict) or entry.get("kind") not in COUNTED:
            return None
        checks = checks_of(entry)
        moment = datetime.fromisoformat(checks[0]["evidence"]["now"])
        codes = [VerdictCode(check["verdict"]["verdict"]) for check in checks]
    except (ValueError, KeyError, TypeError, RecursionError, AuditError):
        return None
    return (moment.astimezone(SHANGHAI).date(), codes) if moment.tzinfo is not None else None


def _from_the_end(file: BinaryIO, end: int) -> Iterator[bytes]:
    """What follows the last line end before `end`, then the lines, the last one first, as far as `_MOST_BYTES` go."""
    at, rest = end, b""
    while at > 0 and end - at < _MOST_BYTES:
        size = min(_BLOCK, at)
        at = file.seek(at - size)
        rest, *lines = (file.read(size) + rest).split(b"\n")
        yield from reversed(lines)
    if at == 0:
        yield rest
