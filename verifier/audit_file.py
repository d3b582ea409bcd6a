"""The file of the audit log: lines of JSON, each with the hash of the line before it.

A line that a power cut left unfinished stays as it is, on a line of its own, and counts in the chain. Lines are
numbered through the whole life of a log: what was removed from its beginning leaves its number and hash behind.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from verifier.codec.device import MAX_RECORD, AuditHead
from verifier.durable import open_locked, taking_the_place
from verifier.errors import AuditError

FIRST = "0" * 64  # what the first line names as its predecessor
PURGED = "purged"
_TAIL = MAX_RECORD + 4096  # bytes; longer than any line


class Line(NamedTuple):
    """One line without its newline; `number` is 1 for the first that the log ever had."""

    number: int
    data: bytes
    entry: dict[str, Any] | None  # None: no record, as a power cut may leave it
    finished: bool = True  # False: there is no newline behind it yet

    @property
    def head(self) -> AuditHead:
        """The log up to this line."""
        return AuditHead(self.number, hashlib.sha256(self.data).digest())


class Entry(NamedTuple):
    """A line with the record it holds: None for one that opens a session, that a power cut left unfinished, or that is
    sealed and was not opened."""

    line: Line
    record: dict[str, Any] | None
    sealed: bool


class Place(NamedTuple):
    """Where an append goes: the hash of the last line, and whether that belongs to a sealed log."""

    previous: str
    sealed: bool


Make = Callable[[Place], list[bytes]]
"""The lines to append at a place, the first of which names its hash."""


@dataclass(frozen=True, slots=True)
class _End:
    """The end of the file as the last append left it."""

    inode: int
    size: int
    place: Place


class ChainFile:
    """Appends lines; not for several threads at once, but for several processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._end: _End | None = None

    def append(self, make: Make) -> None:
        """Write lines and see them to the disk, with the file's name if it is new; OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = open_locked(self.path, os.O_APPEND, 0o600)  # a purge may put another file in its place
        try:
            before = os.fstat(descriptor)
            known = self._end
            self._end = None  # until this is known to be on the disk
            if known is None or (known.inode, known.size) != (before.st_ino, before.st_size):
                place, broken = _place(descriptor, before.st_size)
            else:
                place, broken = known.place, False
            lines = make(place)
            data = b"".join(line + b"\n" for line in lines)
            _write_whole(descriptor, b"\n" + data if broken else data, before.st_size)
            os.fdatasync(descriptor)
            if before.st_size == 0:
                _sync_names(self.path)
            after = os.fstat(descriptor)
            self._end = _End(after.st_ino, after.st_size, Place(digest(lines[-1]), place.sealed))
        finally:
            os.close(descriptor)


def digest(line: bytes) -> str:
    """SHA-256 of a line, as the next one names it."""
    return hashlib.sha256(line).hexdigest()


def dump(previous: str, fields: dict[str, Any]) -> bytes:
    """A line; AuditError when it is longer than a reader takes."""
    line = json.dumps({"prev": previous, **fields}, ensure_ascii=False, separators=(",", ":")).encode()
    if len(line) > MAX_RECORD:
        raise AuditError(f"audit log: a record of more than {MAX_RECORD // 1024} KiB")
    return line


def parse(line: bytes) -> dict[str, Any] | None:
    """The record in a line, None when it is none."""
    with suppress(ValueError, RecursionError):
        entry = json.loads(line)
        return entry if isinstance(entry, dict) else None
    return None


def _place(descriptor: int, size: int) -> tuple[Place, bool]:
    """Where the next line goes, and whether something unfinished stands before it."""
    tail = os.pread(descriptor, min(size, _TAIL), max(0, size - _TAIL))
    lines = [line for line in tail.split(b"\n") if line]
    if not lines:
        return Place(FIRST, False), False
    records = [entry for line in lines if (entry := parse(line)) is not None]
    sealed = bool(records) and ("box" in records[-1] or records[-1].get("sealed") is True)
    purged = _purged(records[-1]) if records and lines[-1] == tail.strip(b"\n") else None
    previous = digest(lines[-1]) if purged is None else purged.head.hex()
    return Place(previous, sealed), not tail.endswith(b"\n")


def _write_whole(descriptor: int, data: bytes, size: int) -> None:
    """Append all of it or nothing: a full disk takes a part without an error."""
    if os.write(descriptor, data) != len(data):
        os.ftruncate(descriptor, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _sync_names(path: Path) -> None:
    """A new file is not on the disk before its name is, nor a new folder."""
    for folder in (path.parent, path.parent.parent):
        handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


# --------------------------------------------------------------------------------------------------- reading


def read_lines(path: Path) -> Iterator[Line]:
    """The lines as they were when reading began; AuditError names the first that does not follow the one before."""
    try:
        with path.open("rb") as file:
            yield from _chained(_raw(file, _settled_size(file.fileno())))
    except OSError as exc:
        raise AuditError(f"audit log: cannot be read: {exc.strerror}") from exc


def _settled_size(descriptor: int) -> int | None:
    """How long the file is while nobody writes; None for what is no file, as a pipe."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return None
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    size = os.fstat(descriptor).st_size
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return size


def _raw(file: Any, size: int | None) -> Iterator[bytes]:
    left = size
    while left is None or left > 0:
        line: bytes = file.readline(_TAIL if left is None else min(left, _TAIL))
        if not line:
            return
        left = None if left is None else left - len(line)
        yield line


def _chained(lines: Iterator[bytes]) -> Iterator[Line]:
    previous, number = FIRST, 0
    for raw in lines:
        data = raw.rstrip(b"\n")
        if not data:
            continue  # as the writer passes over it too
        if len(raw) >= _TAIL:
            raise AuditError(f"audit log: line {number + 1} is longer than a record can be")
        entry = parse(data)
        if number == 0 and entry is not None and (purged := _purged(entry)) is not None:
            previous, number = purged.head.hex(), purged.seq
            continue
        number += 1
        if entry is not None and entry.get("prev") != previous:
            raise AuditError(f"audit log: line {number} does not follow line {number - 1}")
        previous = digest(data)
        yield Line(number, data, entry, raw.endswith(b"\n"))


def _purged(entry: dict[str, Any]) -> AuditHead | None:
    """What was removed before the first line, None for another entry; AuditError."""
    if PURGED not in entry:
        return None
    seq, head = entry[PURGED], entry.get("head")
    if type(seq) is not int or seq < 1 or not isinstance(head, str) or len(head) != len(FIRST):
        raise AuditError("audit log: what was purged cannot be read")
    try:
        return AuditHead(seq, bytes.fromhex(head))
    except ValueError as exc:
        raise AuditError("audit log: what was purged cannot be read") from exc


def start_of(path: Path) -> AuditHead:
    """What was removed before the first line; 0 and zeros for a whole log. AuditError."""
    try:
        with path.open("rb") as file:
            entry = parse(file.readline(_TAIL))
    except FileNotFoundError:
        return AuditHead()
    except OSError as exc:
        raise AuditError(f"audit log: cannot be read: {exc.strerror}") from exc
    return (_purged(entry) if entry is not None else None) or AuditHead()


def log_head(path: Path) -> AuditHead:
    """How far the log goes on this device, finished lines only; AuditError."""
    head = start_of(path)
    if path.exists():
        last = None
        for line in read_lines(path):
            last = line if line.finished else last
        head = last.head if last is not None else head
    return head


# --------------------------------------------------------------------------------------------------- purging


def remove_up_to(path: Path, head: AuditHead) -> None:
    """Remove the lines up to this head from the beginning of the file; AuditError, and then all stays as it was.

    Whoever writes meanwhile waits, and goes on in the new file.
    """
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                raise AuditError("audit log: another purge is running")
            with taking_the_place(path, 0o600) as handle, os.fdopen(handle, "wb", closefd=False) as out:
                out.truncate(0)  # of a purge that was cut off
                sealed = _skip(file, head)
                out.write(json.dumps({PURGED: head.seq, "head": head.head.hex(), "sealed": sealed}).encode() + b"\n")
                while block := file.read(1 << 20):
                    out.write(block)
    except OSError as exc:
        raise AuditError(f"audit log: cannot be purged: {exc.strerror}") from exc


def _skip(file: Any, head: AuditHead) -> bool:
    """Read on behind this head; whether the log up to there is sealed."""
    sealed = False
    for line in _chained(_raw(file, os.fstat(file.fileno()).st_size)):
        sealed = sealed or (line.entry is not None and "box" in line.entry)
        if line.number >= head.seq:
            if line.head != head or not line.finished:
                break
            return sealed
    raise AuditError("audit log: does not pass through what is to be removed")
