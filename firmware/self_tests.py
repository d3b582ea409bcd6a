"""The self-test: every part tested for itself, each within its time, and told in lines for the panel."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from firmware.parts import LOW_BATTERY, NAMES
from firmware.probes import Doubting
from hw.errors import HardwareError, one_line
from hw.power.sysfs import read_power
from verifier.audit import read_log
from verifier.cache.store import StatusStore
from verifier.clock import Clock
from verifier.errors import VerifierError
from verifier.online import Centre
from verifier.trust import load_trust_list
from verifier.wording import Language, Text

# Seconds; together less than the minute that a technician waits. A camera's process loads its libraries first.
_LIMITS = {"camera": 20.0, "reader": 6.0, "audit": 6.0, "cache": 4.0}
_USUAL_LIMIT = 2.5
LOW_DISK = 64 << 20  # bytes free
_EXPECTED = (VerifierError, HardwareError, OSError, sqlite3.Error)
_COLUMNS = 20
_BEGINS = threading.Lock()  # of two who ask for the same part, one begins

_ALL_WELL = Text("{}项全部正常", "{} PARTS WELL")
_FAILED = Text("故障{} 正常{}", "FAIL {} PASS {}")


class Ended(StrEnum):
    """How the test of a part, or of a section of an installation, ended."""

    PASS = "PASS"  # noqa: S105 - no password
    NOTE = "NOTE"  # works, with something missing
    FAIL = "FAIL"


Answer = tuple[Ended, str]
Test = Callable[[], Answer]


@dataclass(frozen=True, slots=True)
class PartReport:
    """One part: how its test ended, in how many milliseconds, and what was found, for a technician."""

    part: str
    state: Ended
    ms: int
    detail: str


def self_test(tests: Mapping[str, Test]) -> list[PartReport]:
    """Test the parts one after the other. One that does not come back within its time has failed, and is left alone."""
    return [report_of(part, test) for part, test in tests.items()]


def limit_of(part: str) -> float:
    """How long a technician waits for the test of one part, in seconds."""
    return _LIMITS.get(part, _USUAL_LIMIT)


class _Running(threading.Thread):
    """A test of one part, for all who ask while it runs: the panel and the console may ask at the same time."""

    def __init__(self, part: str, test: Test) -> None:
        super().__init__(name=f"test {part}", daemon=True)
        self._test, self.began = test, time.monotonic()
        self.answer: Answer | None = None

    def run(self) -> None:
        """Once, in this thread."""
        self.answer = _guarded(self._test)


def report_of(part: str, test: Test) -> PartReport:
    """Of one part. While a test of it has not come back, no other begins: threads that hang must not add up."""
    asked, limit_s = time.monotonic(), limit_of(part)
    with _BEGINS:
        of_it = (one for one in threading.enumerate() if isinstance(one, _Running) and one.name == f"test {part}")
        running = next(of_it, None)
        if mine := running is None:
            running = _Running(part, test)
            running.start()
    running.join(max(0.0, running.began + limit_s - time.monotonic()))  # one that hangs is not waited for again
    late = f"no answer within {limit_s:g} s" if mine else "another test of it has not come back"
    state, detail = running.answer or (Ended.FAIL, late)
    return PartReport(part, state, round((time.monotonic() - asked) * 1000), detail)


def _guarded(test: Test) -> Answer:
    try:
        return test()
    except ImportError as exc:
        return Ended.FAIL, one_line(f"a library is missing: {exc.name}")
    except _EXPECTED as exc:
        return Ended.FAIL, exc.strerror or "error" if isinstance(exc, OSError) else str(exc)


def _name(part: str, language: Language) -> str:
    """A part that was forgotten in the table is told under the name it has in the program: a test must never end it."""
    return NAMES[part].in_(language) if part in NAMES else part.upper()


def panel_lines(tested: Iterable[PartReport], language: Language) -> tuple[str, ...]:
    """The sum, then the parts that failed, in lines of at most 20 columns."""
    failed = [_name(one.part, language) for one in tested if one.state is Ended.FAIL]
    well = sum(1 for one in tested if one.state is not Ended.FAIL)
    if not failed:
        return (_ALL_WELL.in_(language).format(well),)
    lines = [_FAILED.in_(language).format(len(failed), well)]
    wide = 2 if language == "zh" else 1
    for name in failed:
        fits = len(lines) > 1 and (len(lines[-1]) + len(name)) * wide + 1 <= _COLUMNS
        lines[-1:] = [f"{lines[-1]} {name}"] if fits else [lines[-1], name]
    return tuple(lines)


# ------------------------------------------------------------------------------------------------- the tests


def standing(part: str, faults: Callable[[], Mapping[str, str]]) -> Test:
    """A part that is watched all the time: its standing fault, if there is one."""

    def test() -> Answer:
        problem = faults().get(part, "")
        return (Ended.FAIL, problem) if problem else (Ended.PASS, "no fault stands")

    return test


def camera(frame_s: Callable[[], float | None], clock: Callable[[], float], oldest_s: float) -> Test:
    """Whether frames come; while nobody looks, one every few seconds."""

    def test() -> Answer:
        last = frame_s()
        if last is None:
            return Ended.FAIL, "no frame yet"
        age_s = clock() - last
        return Ended.PASS if age_s <= oldest_s else Ended.FAIL, f"last frame {age_s:.1f} s ago"

    return test


def cache(store: StatusStore) -> Test:
    """Whether there are data in use, and whether anything is the matter with their files."""

    def test() -> Answer:
        info = store.info()
        told = "; ".join([f"no. {info.seq} of {info.as_of.isoformat(timespec='minutes')}", *info.notes])
        return Ended.NOTE if info.notes else Ended.PASS, told

    return test


def trust(store: StatusStore) -> Test:
    """Whether the list of issuers' keys can be read."""

    def test() -> Answer:
        keys = len(load_trust_list(store.trust_entries()).keys)
        return Ended.PASS if keys else Ended.FAIL, f"{keys} keys"

    return test


def clock(time: Doubting, now: Clock) -> Test:
    """Whether the clock is believed."""

    def test() -> Answer:
        doubts = time.doubts(now())
        return Ended.FAIL if doubts else Ended.PASS, "; ".join(map(str, doubts)) or "believed"

    return test


def network(centre: Centre | None) -> Test:
    """How the centre answered last. Without one, and off the network, a device works too."""

    def test() -> Answer:
        if centre is None:
            return Ended.NOTE, "no centre is set"
        reason = centre.link.reason
        return Ended.PASS if reason is None else Ended.NOTE, "no failure" if reason is None else reason.value

    return test


def battery(sysfs: Path) -> Test:
    """The charge."""

    def test() -> Answer:
        reading = read_power(sysfs)
        if reading.percent is None:
            return Ended.NOTE, "none, or on mains"
        low = reading.percent <= LOW_BATTERY and not reading.charging
        return Ended.FAIL if low else Ended.PASS, f"{reading.percent} %"

    return test


def disk(folder: Path) -> Test:
    """Whether a byte reaches the disk, and how much room is left."""

    def test() -> Answer:
        descriptor = os.open(folder / ".selftest", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.pwrite(descriptor, b"1", 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        (folder / ".selftest").unlink()
        free = os.statvfs(folder)
        room = free.f_bavail * free.f_frsize
        return Ended.FAIL if room < LOW_DISK else Ended.PASS, f"{room >> 20} MiB free"

    return test


def audit(path: Path) -> Test:
    """Whether the chain of records is whole."""

    def test() -> Answer:
        if not path.exists():
            return Ended.PASS, "no record yet"
        records = sum(1 for _ in read_log(path))
        return Ended.PASS, f"{records} records in one chain"

    return test
