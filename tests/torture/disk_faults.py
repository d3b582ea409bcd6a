"""Disk calls that fail, one after the other, under the real sync, cache and audit log.

`python -m tests.torture.disk_faults SEED SECONDS FOLDER NAME...`, with the library of disk_faults.c preloaded, is the
process in which they fail; SECONDS is a number or "all", the names are those of SUBJECTS. It says on stdout, as JSON
lines, how many have failed so far.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import random
import shutil
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from datetime import timedelta
from enum import IntEnum
from pathlib import Path

from scripts.sandbox.audit_keys import open_log
from tests.conftest import ROOT
from tests.nightly import EPOCH_KEY, Device, Night
from tests.sealed_logs import KEY, NOW, PRIVATE, a_clock, record, sealed_log
from tests.syncing import device_behind, first_night, publish_seed, seed_in_use
from tests.test_sync_hot import publish_hot
from tests.torture.run import NotHereError, Run
from verifier.audit import AuditLog
from verifier.audit_file import log_head
from verifier.audit_upload import purge
from verifier.cache.store import StatusStore
from verifier.errors import AuditError, SyncError

SOURCE = Path(__file__).with_suffix(".c")


class Kind(IntEnum):
    """As in the C source."""

    NO_SPACE = 0
    BROKEN_WRITE = 1
    SHORT_WRITE = 2
    BROKEN_READ = 3


class FaultyDisk:
    """The preloaded library of this process."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.disk_faults_arm.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_int]
        self._library.disk_faults_disarm.restype = ctypes.c_long

    def arm(self, folder: Path, kind: Kind, number: int, *, sticky: bool) -> None:
        """From now on the call of this number fails, if `sticky` all behind it too; 0: they are only counted."""
        self._library.disk_faults_arm(os.fsencode(folder), kind, number or -1, sticky and number > 0)

    def disarm(self) -> int:
        """All is well again: how many calls there were that could have failed."""
        return int(self._library.disk_faults_disarm())


class Subject(ABC):
    """Something that writes. `before` is a folder as it is before; it is copied for each fault."""

    def __init__(self, folder: Path) -> None:
        self.before = folder / "before"
        self.prepare()

    @abstractmethod
    def prepare(self) -> None:
        """Fill `before`."""

    @abstractmethod
    def work(self, folder: Path) -> bool:
        """Do it in a copy: whether it says that it is done. Only the errors that it may raise are caught."""

    @abstractmethod
    def check(self, folder: Path, *, done: bool) -> None:
        """The copy holds the old or the new state, the new one if it was done, and the next try succeeds."""


class Syncing(Subject):
    """One night over another by deltas."""

    night: Night

    def prepare(self) -> None:
        self.night = first_night()
        device_behind(self.night, self.before)

    def device(self, folder: Path) -> Device:
        return self.night.device(folder)

    def work(self, folder: Path) -> bool:
        try:
            self.device(folder).client().refresh()
        except SyncError:
            return False
        return True

    def check(self, folder: Path, *, done: bool) -> None:
        device = self.device(folder)
        assert self.found(device) in ((1,) if done else (0, 1)), "neither the old night nor the new one"
        device.client().refresh()
        assert seed_in_use(device) == 1, "the next sync does not end in the new night"
        assert list((folder / "stage").iterdir()) == [], "something was left behind"

    def found(self, device: Device) -> int | None:
        return seed_in_use(device)


class SyncingAnew(Syncing):
    """One night over another, by a whole snapshot."""

    def prepare(self) -> None:
        self.night = first_night(nights=0)
        device_behind(self.night, self.before)


class SyncingFirst(Syncing):
    """The first night of a device."""

    def prepare(self) -> None:
        self.night = first_night()
        publish_seed(self.night, 1)
        self.before.mkdir()

    def check(self, folder: Path, *, done: bool) -> None:
        if not done and not (folder / "current").exists():
            self.device(folder).client().refresh()
            done = True
        super().check(folder, done=done)


class Hot(Subject):
    """The list of what changed since the night."""

    def prepare(self) -> None:
        self.night = first_night()
        device = self.night.device(self.before)
        device.client().refresh()
        self._publish()
        device.client().refresh_hot()
        self._publish()

    def _publish(self) -> None:
        self.night.vehicles = self.night.vehicles[:-1]
        self.newest = publish_hot(self.night).hot_seq

    def _number(self, folder: Path) -> int | None:
        with closing(StatusStore(folder, EPOCH_KEY)) as store:
            return store.info().hot_seq

    def work(self, folder: Path) -> bool:
        try:
            self.night.device(folder).client().refresh_hot()
        except SyncError:
            return False
        return True

    def check(self, folder: Path, *, done: bool) -> None:
        old = () if done else (self.newest - 1,)
        assert self._number(folder) in (*old, self.newest), "neither the old list nor the new one"
        self.night.device(folder).client().refresh_hot()
        assert self._number(folder) == self.newest


class Auditing(Subject):
    """Checks that are recorded."""

    HELD, MORE = 3, 4

    def prepare(self) -> None:
        self.before.mkdir()
        sealed_log(self.before / "log", self.HELD)

    def work(self, folder: Path) -> bool:
        log = AuditLog(folder / "log", key=KEY, clock=a_clock)
        self.acknowledged = list(range(self.HELD))
        for number in range(self.HELD, self.HELD + self.MORE):
            try:
                log.append(record(number))
            except AuditError:
                continue
            self.acknowledged.append(number)
        return True

    def check(self, folder: Path, *, done: bool) -> None:
        last = self.HELD + self.MORE
        AuditLog(folder / "log", key=KEY, clock=a_clock).append(record(last))
        found = [int(one.record["id"], 16) for one in open_log(folder / "log", PRIVATE) if one.record is not None]
        assert found == sorted(set(found)), "out of order, or twice"
        assert {*self.acknowledged, last} <= set(found), "acknowledged, and not there"


class Purging(Subject):
    """Old records that the centre has are removed."""

    def prepare(self) -> None:
        self.before.mkdir()
        for days in (9, 8, 1, 0):
            log = AuditLog(self.before / "log", key=KEY, clock=lambda days=days: NOW - timedelta(days=days))
            log.append(record(days))

    def work(self, folder: Path) -> bool:
        try:
            purge(folder / "log", log_head(self.before / "log"), NOW.date(), 3)
        except AuditError:
            return False
        return True

    def check(self, folder: Path, *, done: bool) -> None:
        log = folder / "log"
        found = [int(one.record["id"], 16) for one in open_log(log, PRIVATE) if one.record is not None]
        assert found in ([[1, 0]] if done else [[9, 8, 1, 0], [1, 0]]), "neither the old log nor the new one"
        purge(log, log_head(log), NOW.date(), 3)
        AuditLog(log, key=KEY, clock=a_clock).append(record(77))
        assert [int(one.record["id"], 16) for one in open_log(log, PRIVATE) if one.record][-3:] == [1, 0, 77]


SUBJECTS: Mapping[str, type[Subject]] = {
    "sync": Syncing, "snapshot": SyncingAnew, "first sync": SyncingFirst, "hot list": Hot, "audit log": Auditing,
    "purge": Purging,
}  # fmt: skip
FAULTS = [(kind, sticky) for kind in Kind for sticky in (False, True)]


def open_files() -> set[str]:
    """What this process has open below the temporary folder."""
    found = set()
    for handle in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.add(str(handle.readlink()))
    return {name for name in found if name.startswith("/")}


def attempt(disk: FaultyDisk, subject: Subject, copy: Path, kind: Kind, number: int, *, sticky: bool) -> int:
    """One failing call: how many there were that could have failed."""
    shutil.copytree(subject.before, copy, symlinks=True)
    handles = open_files()
    disk.arm(copy, kind, number, sticky=sticky)
    try:
        done = subject.work(copy)
    finally:
        calls = disk.disarm()
    subject.check(copy, done=done)
    gc.collect()  # an error on its way may still hold a file in its frames
    assert open_files() <= handles, f"stayed open: {open_files() - handles}"
    shutil.rmtree(copy)
    return calls


def all_faults(disk: FaultyDisk, subjects: Mapping[str, Subject], folder: Path, seed: int) -> list[tuple]:
    """Every call of every subject under every kind of fault, in an order that the seed draws."""
    found = []
    for name, subject in subjects.items():
        for kind, sticky in FAULTS:
            calls = attempt(disk, subject, folder / "copy", kind, 0, sticky=sticky)
            assert calls or kind is Kind.BROKEN_READ, f"no call of {name} was seen: the library is blind"
            found += [(name, kind, number, sticky) for number in range(1, calls + 1)]
    random.Random(seed).shuffle(found)
    return found


def main(seed: str, seconds: str, folder: str, *names: str) -> None:
    began, place = time.monotonic(), Path(folder)
    disk, counts = FaultyDisk(), Counter[str]()
    subjects = dict[str, Subject]()
    for name in names:
        (place / name).mkdir()
        subjects[name] = SUBJECTS[name](place / name)
    faults = all_faults(disk, subjects, place, int(seed))
    for number, (name, kind, call, sticky) in enumerate(faults, 1):
        try:
            attempt(disk, subjects[name], place / "copy", kind, call, sticky=sticky)
        except BaseException:
            print(f"{name}: call {call}, {kind.name}, {'sticky' if sticky else 'once'}", file=sys.stderr)
            raise
        counts[name] += 1
        if number % 20 == 0:
            print(json.dumps(counts), flush=True)
        if seconds != "all" and number >= len(names) and time.monotonic() - began > float(seconds):
            break
    print(json.dumps({**counts, "possible": len(faults)}), flush=True)


def library(folder: Path) -> Path:
    """The compiled library."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise NotHereError("there is no C compiler to make the faulty disk with")
    out = folder / "disk_faults.so"
    words = [compiler, "-shared", "-fPIC", "-O1", "-w", "-o", str(out), str(SOURCE), "-ldl"]
    built = subprocess.run(words, capture_output=True, text=True, check=False)
    if built.returncode:
        raise NotHereError(f"the faulty disk cannot be compiled here: {built.stderr[:200]}")
    return out


def failing(run: Run, names: Iterable[str] = SUBJECTS) -> Iterator[dict[str, int]]:
    """How many calls have failed so far in each of these, again and again."""
    allowed = "all" if run.seconds is None else str(run.seconds)
    words = [sys.executable, "-m", __name__, str(run.seed), allowed, str(run.new_folder()), *names]
    preload = {"LD_PRELOAD": str(library(run.folder)), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        words, cwd=ROOT, env={**os.environ, **preload}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            yield json.loads(line)
        errors = process.stderr.read()
    assert process.returncode == 0, errors


def disk_calls_fail(run: Run) -> None:
    """Promise 2."""
    for counts in failing(run):
        possible = counts.pop("possible", 0)
        run.counts["failing calls"] = sum(counts.values())
        if possible:
            run.note(f"of {possible:,} calls and kinds of fault that there are: "
                     + ", ".join(f"{count:,} in {name}" for name, count in sorted(counts.items())))  # fmt: skip
        run.tell(run)


if __name__ == "__main__":
    main(*sys.argv[1:])
