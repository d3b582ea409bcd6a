"""Bringing the audit log to the centre, and removing what is there: resumed where it was left, sent twice if need be.

What the centre has acknowledged stands in a file beside the log. It says how far the log went: a log that is shorter,
or that does not pass through it, was cut or changed on this device.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from verifier.audit_file import Line, log_head, read_lines, remove_up_to, start_of
from verifier.codec.device import (
    AUDIT_PATH,
    MAX_RECORDS,
    MAX_UPLOAD,
    AuditHead,
    AuditUpload,
    DeviceFormatError,
    decode_audit_head,
    encode_audit_head,
    encode_upload,
)
from verifier.codec.online import CONTENT_TYPE
from verifier.durable import replace_file
from verifier.errors import AuditError, StatusError
from verifier.online import Poster
from verifier.seal import SESSION

MAX_RECEIPT = 128  # bytes
_ROOM = MAX_UPLOAD - 4096  # bytes of lines in one upload
_FRAME = 8  # bytes that CBOR adds to a line, at most
_CONFLICT = 409  # what the centre answers to lines that do not continue what it has
_MAX_FILE = 4096  # bytes
OTHER_LOG = "audit upload: the centre has another log of this device; keep this one as it is"


class AcknowledgedHead:
    """How far the centre has this log, kept in a file; it only ever grows."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> AuditHead:
        """0 and zeros when nothing was acknowledged yet; AuditError for a file that cannot be read."""
        try:
            with self._path.open("rb") as file:
                raw = json.loads(file.read(_MAX_FILE))
            head = AuditHead(raw["seq"], bytes.fromhex(raw["head"]))
            return decode_audit_head(encode_audit_head(head))  # within its bounds
        except FileNotFoundError:
            return AuditHead()
        except OSError as exc:
            raise AuditError(f"acknowledged head: cannot be read: {exc.strerror}") from exc
        except (ValueError, KeyError, TypeError, RecursionError, DeviceFormatError) as exc:
            raise AuditError("acknowledged head: its file is damaged") from exc

    def save(self, head: AuditHead) -> None:
        """Keep it, unless one that goes further is there; AuditError."""
        try:
            with _alone(self._path.parent):
                self._save(head)
        except OSError as exc:
            raise AuditError(f"acknowledged head: cannot be written: {exc.strerror}") from exc

    def _save(self, head: AuditHead) -> None:
        known = AuditHead()
        with suppress(AuditError):
            known = self.load()  # a damaged one is replaced by what the centre says
        if head.seq > known.seq:
            replace_file(self._path, json.dumps({"seq": head.seq, "head": head.head.hex()}).encode() + b"\n")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other upload writes into this folder meanwhile: the timer's and one by hand may run at once. OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploaded:
    """What one upload did: lines that were sent, and how far the centre has the log now."""

    sent: int
    acknowledged: AuditHead


class AuditUploader:
    """Sends the lines of one log. Used by one thread at a time; a second program that sends too does no harm."""

    def __init__(self, log: Path, acknowledged: AcknowledgedHead, poster: Poster) -> None:
        self._log, self._known, self._poster = log, acknowledged, poster

    def run(self) -> Uploaded:
        """Send what the centre does not have; AuditError when the log is not what it has, FetchError.

        What was acknowledged before a failure stays so.
        """
        oldest, resumed = start_of(self._log), self._known.load()
        check_passes(self._log, resumed)
        if resumed.seq == 0:
            resumed = oldest  # the note of what was acknowledged is lost
        try:
            return self._send(resumed)
        except StatusError as exc:
            if exc.code != _CONFLICT:
                raise
            if resumed == oldest:
                raise AuditError(OTHER_LOG) from exc
        try:
            return self._send(oldest)  # the centre may have less than once, as after its books were restored
        except StatusError as exc:
            if exc.code != _CONFLICT:
                raise
            raise AuditError(OTHER_LOG) from exc

    def _send(self, after: AuditHead) -> Uploaded:
        known, sent = after, 0
        for upload in self._uploads(after):
            if upload.heads()[-1].seq > known.seq:  # the centre may have told that it has these
                known = self._post(upload)
                sent += len(upload.records)
        return Uploaded(sent=sent, acknowledged=known)

    def _post(self, upload: AuditUpload) -> AuditHead:
        """The head that the centre acknowledges; AuditError for one that this log does not have."""
        answer = self._poster.post(AUDIT_PATH, encode_upload(upload), CONTENT_TYPE, CONTENT_TYPE, MAX_RECEIPT)
        try:
            receipt = decode_audit_head(answer)
        except DeviceFormatError as exc:
            raise AuditError(f"audit upload: the receipt is {exc}") from exc
        last = upload.heads()[-1]
        if receipt.seq < last.seq:
            raise AuditError("audit upload: the centre acknowledges less than was sent")
        if receipt != last:
            check_passes(self._log, receipt)
        self._known.save(receipt)
        return receipt

    def _uploads(self, after: AuditHead) -> Iterator[AuditUpload]:
        batch: list[bytes] = []
        head = last = after
        size = 0
        for line in read_lines(self._log) if self._log.exists() else ():
            if line.number <= after.seq or not line.finished:
                continue
            if batch and (len(batch) == MAX_RECORDS or size + len(line.data) > _ROOM):
                yield AuditUpload(head, tuple(batch))
                batch, size, head = [], 0, last
            batch.append(line.data)
            size += len(line.data) + _FRAME
            last = line.head
        if batch:
            yield AuditUpload(head, tuple(batch))


def check_passes(log: Path, head: AuditHead) -> None:
    """AuditError unless the log on this device passes through this head."""
    if head.seq == 0:
        return
    start = start_of(log)
    if start == head:
        return
    if start.seq < head.seq and log.exists():
        for line in read_lines(log):
            if line.number == head.seq:
                if line.head == head:
                    return
                raise AuditError(f"audit log: line {head.seq} is not the one that the centre acknowledged")
    raise AuditError(
        f"audit log: ends at line {log_head(log).seq}, and the centre has acknowledged line {head.seq}"
        if start.seq < head.seq
        else f"audit log: begins after line {start.seq}, and the centre has acknowledged {head.seq} lines only"
    )


# ------------------------------------------------------------------------------------------------- retention


def purge(log: Path, acknowledged: AuditHead, today: date, days: int) -> int:
    """Remove the lines of days that are more than `days` ago, as far as the centre has them; how many. AuditError.

    Nothing else is ever removed. A session goes as a whole: without its beginning nobody can open its records.
    """
    if days < 0:
        raise ValueError("days: not a number of days")
    check_passes(log, acknowledged)
    start = start_of(log)
    if not log.exists() or acknowledged.seq <= start.seq:
        return 0
    last = _last_old(log, acknowledged, today - timedelta(days=days), today + timedelta(days=1))
    if last is None:
        return 0
    remove_up_to(log, last)
    return last.seq - start.seq


def _last_old(log: Path, acknowledged: AuditHead, oldest: date, latest: date) -> AuditHead | None:
    """The head of the last line that may go: all before it are old, or of a clock that was far ahead."""
    sessions: dict[str, list[int]] = {}
    old, over = 0, False
    for line in read_lines(log):
        entry = line.entry or {}
        session = str(entry.get("s"))
        if entry.get("kind") == SESSION or session in sessions:
            sessions.setdefault(session, [line.number, 0])[1] = line.number
        day = _day(line)
        over = over or line.number > acknowledged.seq or (day is not None and oldest <= day <= latest)
        if not over and day is not None and day < oldest:
            old = line.number
    while cut := [begin for begin, end in sessions.values() if begin <= old < end]:
        old = min(cut) - 1
    return next((line.head for line in read_lines(log) if line.number == old), None)


def _day(line: Line) -> date | None:
    with suppress(ValueError, TypeError, AttributeError):
        return date.fromisoformat((line.entry or {})["day"]) if "day" in (line.entry or {}) else None
    return None
