"""Verdicts on old data, looked at again when the centre can be asked: a queue on disk, and who works it off.

The queue names checks by their numbers and holds no plate, key or serial: what was seen stands in the audit log alone.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from verifier.audit import find_checks, recorded
from verifier.check import CheckResult, Verifier
from verifier.clock import Clock
from verifier.codec.online import (
    MAX_IDS,
    AskedId,
    OnlineFormatError,
    Report,
    ReportReason,
    decode_report,
    encode_report,
)
from verifier.decide import decide
from verifier.errors import AuditError, FetchError, StatusError
from verifier.online import Centre, Exchange, Inquiry, Outcome, Standing, boottime_ms, questions
from verifier.verdict import VerdictCode

MAX_WAITING = 1000  # checks; beyond, the oldest goes
MAX_NEWS = 200  # corrections that nobody has looked at, likewise
MAX_OUTBOX = 1000  # reports that the centre has not acknowledged, likewise
LONGEST_WAIT = timedelta(days=14)
STEP_S, RECHECK_EVERY_MS = 1.0, 60_000
_LATEST = (1 << 32) - 1  # POSIX seconds, as the reports carry them
_NEVER_TAKEN = (400, 409, 413, 415, 422)  # of this report, however often it is sent; the others must not wait for it
_CODES = frozenset(VerdictCode)
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS waiting(id TEXT PRIMARY KEY, at INTEGER NOT NULL, code TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS news(id TEXT PRIMARY KEY, at INTEGER NOT NULL, code TEXT NOT NULL, now TEXT NOT NULL)"
    " WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS outbox(id BLOB PRIMARY KEY, at INTEGER NOT NULL, report BLOB NOT NULL) WITHOUT ROWID",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """A check whose verdict would be another one by what the centre has said since."""

    check_id: str
    at: datetime
    then: VerdictCode
    now: VerdictCode


class RecheckQueue:
    """The file `path` (SQLite). What cannot be written is not queued, and never an error to the officer."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, result: CheckResult) -> bool:
        """Queue a check; whether it is safely on disk."""
        at = max(1, min(int(result.now.timestamp()), _LATEST))  # this clock may be wrong
        row = (result.check_id, at, result.verdict.code.value)
        with suppress(sqlite3.Error, OSError):
            with self._transaction() as connection:
                connection.execute("INSERT OR REPLACE INTO waiting VALUES (?, ?, ?)", row)
                _keep_newest(connection, "waiting", MAX_WAITING)
            return True
        return False

    def drop(self, check_id: str) -> None:
        """Take a check out: it was answered, or cannot be."""
        with suppress(sqlite3.Error, OSError), self._transaction() as connection:
            connection.execute("DELETE FROM waiting WHERE id = ?", (check_id,))

    def waiting(self) -> list[tuple[str, datetime, VerdictCode]]:
        """Number, time and verdict of each check that waits, oldest first."""
        return [(number, at, code) for number, at, (code, *_) in self._rows("waiting")]

    def settle(self, news: News, report: Report) -> bool:
        """Take a check out, and the report of it in; one whose verdict changed becomes news. Whether it is on disk."""
        with suppress(sqlite3.Error, OSError):
            self._settle(news, report)
            return True
        return False

    def _settle(self, news: News, report: Report) -> None:
        with self._transaction() as connection:
            connection.execute("DELETE FROM waiting WHERE id = ?", (news.check_id,))
            _post(connection, report)
            if news.now is not news.then:
                row = (news.check_id, int(news.at.timestamp()), news.then.value, news.now.value)
                connection.execute("INSERT OR REPLACE INTO news VALUES (?, ?, ?, ?)", row)
                _keep_newest(connection, "news", MAX_NEWS)

    def news(self) -> list[News]:
        """What the officer has not been told yet, oldest first."""
        return [News(check_id=number, at=at, then=codes[0], now=codes[1]) for number, at, codes in self._rows("news")]

    def told(self, check_id: str) -> None:
        """The officer has seen this piece of news."""
        with suppress(sqlite3.Error, OSError), self._transaction() as connection:
            connection.execute("DELETE FROM news WHERE id = ?", (check_id,))

    def post(self, report: Report) -> bool:
        """Put a report of the officer's own into the outbox; whether it is safely on disk."""
        with suppress(sqlite3.Error, OSError):
            with self._transaction() as connection:
                _post(connection, report)
            return True
        return False

    def outbox(self) -> list[Report]:
        """What the centre has given no receipt for yet, oldest first."""
        with suppress(sqlite3.Error, OSError, OnlineFormatError), self._transaction() as connection:
            rows = connection.execute("SELECT report FROM outbox ORDER BY at, id").fetchall()
            return [decode_report(data) for (data,) in rows]
        return []

    def delivered(self, report: Report) -> None:
        """The centre has given a receipt for it."""
        with suppress(sqlite3.Error, OSError), self._transaction() as connection:
            connection.execute("DELETE FROM outbox WHERE id = ?", (report.report_id,))

    def _rows(self, table: str) -> list[tuple[str, datetime, tuple[VerdictCode, ...]]]:
        with suppress(sqlite3.Error, OSError), self._transaction() as connection:
            asked = f"SELECT * FROM {table} WHERE at BETWEEN 1 AND {_LATEST} ORDER BY at, id"  # noqa: S608 - ours
            rows = connection.execute(asked).fetchall()
            return [
                (number, datetime.fromtimestamp(at, UTC), tuple(VerdictCode(code) for code in codes))
                for number, at, *codes in rows
                if _CODES.issuperset(codes)  # another version's are not read
            ]
        return []

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._opened() as connection:
                yield connection
        except sqlite3.DatabaseError as exc:
            if not isinstance(exc, sqlite3.OperationalError):
                self._path.replace(self._path.with_suffix(".bad"))  # the next one begins anew
                self._path.with_name(self._path.name + "-journal").unlink(missing_ok=True)
            raise

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=5)) as connection:
            connection.execute("PRAGMA synchronous=FULL")
            with connection:
                for statement in _SCHEMA:
                    connection.execute(statement)
                yield connection


def _post(connection: sqlite3.Connection, report: Report) -> None:
    row = (report.report_id, int(report.checked_at.timestamp()), encode_report(report))
    connection.execute("INSERT OR REPLACE INTO outbox VALUES (?, ?, ?)", row)
    _keep_newest(connection, "outbox", MAX_OUTBOX)


def _keep_newest(connection: sqlite3.Connection, table: str, limit: int) -> None:
    old = f"SELECT id FROM {table} ORDER BY at DESC, id LIMIT -1 OFFSET {limit}"  # noqa: S608 - ours
    connection.execute(f"DELETE FROM {table} WHERE id IN ({old})")  # noqa: S608 - ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Recheck:
    """What one run did; `gone` are checks that the audit log does not have any more or that waited too long."""

    settled: tuple[News, ...] = ()
    waiting: int = 0
    gone: int = 0
    unreported: int = 0  # reports for which the centre has given no receipt


class Rechecker:
    """Asks again about what waits, up to 50 identities at a time, and delivers what is to be reported.

    Not for the thread that serves the officer: `run` waits for the network. What the centre cannot answer yet goes on
    waiting; what it can is recorded beside its check, and told to the officer (`RecheckQueue.news`) and to the centre.
    """

    def __init__(self, queue: RecheckQueue, centre: Centre, verifier: Verifier, audit: Path, clock: Clock) -> None:
        self._queue, self._centre, self._verifier = queue, centre, verifier
        self._audit, self._clock = audit, clock

    def run(self, standing: Standing) -> Recheck:
        """One round; nothing is asked in offline mode. AuditError when the audit log cannot be read."""
        waiting = self._queue.waiting()
        if not self._centre.link.asks:
            return Recheck(waiting=len(waiting), unreported=len(self._queue.outbox()))
        cases = self._cases(waiting, standing)
        settled: list[News] = []
        for batch in _batches(cases):
            ids = tuple(dict.fromkeys(one for case in batch for one in case.ids))
            exchange = self._centre.look_up(ids, standing).exchange
            if exchange is None:
                break
            settled += [news for case in batch if (news := self._settle(case, exchange)) is not None]
        return Recheck(
            settled=tuple(settled),
            waiting=len(cases) - len(settled),
            gone=len(waiting) - len(cases),
            unreported=self._deliver(),
        )

    def _cases(self, waiting: Sequence[tuple[str, datetime, VerdictCode]], standing: Standing) -> list[_Case]:
        """What can be asked about; the rest is taken out."""
        now = self._clock()
        records = find_checks(self._audit, {number for number, _, _ in waiting})
        cases = []
        for number, at, then in waiting:
            record = records.get(number)
            case = None
            if record is not None and now - at <= LONGEST_WAIT:
                case = self._case(record, at, then, standing, now)
            if case is None:
                self._queue.drop(number)
            else:
                cases.append(case)
        return cases

    def _case(
        self, record: dict[str, Any], at: datetime, then: VerdictCode, standing: Standing, now: datetime
    ) -> _Case | None:
        try:
            evidence, _, policy = recorded(record)
        except AuditError:
            return None
        verdict = decide(evidence, policy, now)
        result = CheckResult(
            check_id=record["id"], verdict=verdict, evidence=evidence, now=now, policy=policy, earliest=now
        )
        serial = result.credential.serial if result.credential is not None else None
        inquiry = Inquiry(plates=result.plates, serial=serial, standing=standing)
        ids = questions(inquiry, self._centre.hasher)
        return _Case(result, then, at, inquiry, ids) if ids else None

    def _settle(self, case: _Case, exchange: Exchange) -> News | None:
        """What became of a check; None when the centre cannot say yet, or when that could not be kept."""
        outcome = Outcome(evidence=self._centre.understand(case.inquiry, exchange), exchange=exchange)
        if not outcome.answered:
            return None
        late = self._verifier.upgrade(case.result, outcome.evidence, outcome.sources)
        news = News(check_id=late.check_id, at=case.at, then=case.then, now=late.verdict.code)
        report = report_of(news, case.ids[0], self._centre.hasher.check_value)
        return news if self._queue.settle(news, report) else None

    def _deliver(self) -> int:
        """Send what is in the outbox; how much of it stays there."""
        reports = self._queue.outbox()
        for number, report in enumerate(reports):
            try:
                self._centre.report(report)
            except FetchError as exc:
                if not (isinstance(exc, StatusError) and exc.code in _NEVER_TAKEN):
                    return len(reports) - number
            self._queue.delivered(report)
        return 0


class Upkeep:
    """What happens without a scan: a thread of its own looks whether the centre is back, and works off the queue."""

    def __init__(
        self, centre: Centre, verifier: Verifier, rechecker: Rechecker, monotonic_ms: Callable[[], int] = boottime_ms
    ) -> None:
        self._centre, self._verifier, self._rechecker = centre, verifier, rechecker
        self._now = monotonic_ms
        self._due = 0

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set."""
        while not stop.wait(STEP_S):
            self.step()

    def step(self) -> None:
        """What is due now; waits for the network, and does nothing in offline mode."""
        link, now = self._centre.link, self._now()
        if not (link.probe_due(now) or (link.asks and now >= self._due)):
            return
        standing = self._verifier.standing()
        if standing is None:
            return
        self._centre.probe(standing)
        if self._centre.link.asks:
            self._due = self._now() + RECHECK_EVERY_MS
            with suppress(AuditError):  # told by each check
                self._rechecker.run(standing)


def report_of(news: News, vehicle: AskedId, key_check: bytes) -> Report:
    """The report of a check that was looked at again; the same finding has the same number each time."""
    return Report(
        report_id=hashlib.sha256(f"recheck {news.check_id} {news.now}".encode()).digest()[:16],
        check_id=bytes.fromhex(news.check_id),
        reason=ReportReason.CONFIRMED if news.now is news.then else ReportReason.CORRECTED,
        vehicle=vehicle,
        key_check=key_check,
        checked_at=news.at,
        then=news.then,
        now=news.now,
    )


@dataclass(frozen=True, slots=True)
class _Case:
    """A check that waits, as the audit log has it."""

    result: CheckResult
    then: VerdictCode
    at: datetime
    inquiry: Inquiry
    ids: tuple[AskedId, ...]


def _batches(cases: Sequence[_Case]) -> Iterator[list[_Case]]:
    batch: list[_Case] = []
    asked: set[AskedId] = set()
    for case in cases:
        if len(asked | set(case.ids)) > MAX_IDS:
            yield batch
            batch, asked = [], set()
        batch.append(case)
        asked |= set(case.ids)
    if batch:
        yield batch
