"""Verdicts on old data, looked at again when the centre can be asked: who works off the queue of them."""

from __future__ import annotations

import hashlib
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from verifier.audit import recorded
from verifier.cache.keys import KeyHasher
from verifier.check import CheckResult, Verifier
from verifier.clock import Clock
from verifier.codec.online import MAX_IDS, AskedId, Report, ReportReason
from verifier.decide import decide
from verifier.errors import AuditError, FetchError, StatusError, VerifierError
from verifier.online import Centre, Exchange, Inquiry, Outcome, Standing, boottime_ms, questions
from verifier.recheck_queue import News, RecheckQueue, seconds_of
from verifier.trusted_time import TrustedTime
from verifier.types import Evidence, Month, OnlineEvidence, StatusLetter
from verifier.verdict import VerdictCode

LONGEST_WAIT = timedelta(days=14)
STEP_S, RECHECK_EVERY_MS = 1.0, 60_000
_NEVER_TAKEN = (400, 409, 413, 415, 422)  # of this report, however often it is sent; the others must not wait for it


@dataclass(frozen=True, slots=True, kw_only=True)
class Recheck:
    """What one run did; `gone` are checks of another epoch, or that waited too long."""

    settled: tuple[News, ...] = ()
    waiting: int = 0
    gone: int = 0
    unreported: int = 0  # reports for which the centre has given no receipt


class Rechecker:
    """Asks again about what waits, up to 50 identities at a time, and delivers what is to be reported.

    Not for the thread that serves the officer: `run` waits for the network. What the centre cannot answer yet goes on
    waiting; what it can is recorded beside its check, and told to the officer (`RecheckQueue.news`) and to the centre.
    By a clock that `time` doubts no check is too old; without it the clock is believed.
    """

    def __init__(
        self, queue: RecheckQueue, centre: Centre, verifier: Verifier, clock: Clock, time: TrustedTime | None = None
    ) -> None:
        self._queue, self._centre, self._verifier, self._clock, self._time = queue, centre, verifier, clock, time
        self._tell: Callable[[CheckResult], None] = lambda result: None

    def tells(self, tell: Callable[[CheckResult], None]) -> None:
        """From now on each check that is settled is handed over, as it is decided now; from the thread of `run`."""
        self._tell = tell

    def run(self, standing: Standing) -> Recheck:
        """One round; nothing is asked in offline mode."""
        waiting, records = self._queue.waiting(), self._queue.records()
        if records is None or not self._centre.link.asks:
            return Recheck(waiting=len(waiting), unreported=len(self._queue.outbox()))
        cases = self._cases(waiting, records, standing)
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

    def _cases(
        self,
        waiting: Sequence[tuple[str, datetime, VerdictCode]],
        records: Mapping[str, dict[str, Any]],
        standing: Standing,
    ) -> list[_Case]:
        """What can be asked about; the rest is taken out."""
        now = self._clock()
        oldest = now - LONGEST_WAIT if self._time is None or not self._time.doubts(now) else None
        cases = []
        for number, at, then in waiting:
            record = records.get(number)
            case = None if record is None else self._case(record, at, then, standing, oldest)
            if case is None:
                self._queue.drop(number)
            else:
                cases.append(case)
        return cases

    def _case(
        self, record: dict[str, Any], at: datetime, then: VerdictCode, standing: Standing, oldest: datetime | None
    ) -> _Case | None:
        """The check as it was, at its own time. None when it waited since before `oldest`, if both clocks are believed,
        and for what cannot be asked about."""
        try:
            evidence, when, policy = recorded(record)
        except AuditError:
            return None
        if oldest is not None and evidence.clock_trusted and at < oldest:
            return None
        verdict = decide(evidence, policy, when)
        result = CheckResult(
            check_id=record["id"], verdict=verdict, evidence=evidence, now=when, policy=policy, earliest=when
        )
        if not names_a_vehicle(result):
            return None
        serial = result.credential.serial if result.credential is not None else None
        inquiry = Inquiry(plates=result.plates, serial=serial, standing=standing)
        ids = questions(inquiry, self._centre.hasher)
        return _Case(result, then, at, inquiry, ids) if ids else None

    def _settle(self, case: _Case, exchange: Exchange) -> News | None:
        """What became of a check; None when the centre cannot say yet, or when that could not be kept."""
        outcome = Outcome(evidence=self._centre.understand(case.inquiry, exchange), exchange=exchange)
        if not outcome.answered or not self._queue.waits(case.result.check_id):  # answered late, it is out meanwhile
            return None
        online = of_that_day(outcome.evidence, case.result.evidence, case.result.now)
        late = self._verifier.upgrade(case.result, online, outcome.sources)
        verdict = late.verdict
        news = News(
            check_id=late.check_id, at=case.at, then=case.then, now=verdict.code, tone=verdict.tone, plate=verdict.plate
        )  # fmt: skip
        report = report_of(news, case.ids[0], self._centre.hasher.check_value)
        if not self._queue.settle(news, report):
            return None
        self._tell(late)
        return news

    def _deliver(self) -> int:
        """Send what is in the outbox; how much of it stays there."""
        reports = self._queue.outbox()
        for number, report in enumerate(reports):
            if not self._centre.link.asks:  # the officer chose offline mode meanwhile
                return len(reports) - number
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
        self._told: set[str] = set()

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set."""
        while not stop.wait(STEP_S):
            self.outlive(self.step)

    def outlive(self, work: Callable[[], None]) -> None:
        """Do it; what fails is tried again. A mistake of ours is told once each, and stops nothing else: this thread
        is never begun again, and what it dies of would wait on the card for the next one."""
        try:
            work()
        except (OSError, VerifierError):
            pass
        except Exception as exc:  # noqa: BLE001 - the outermost edge of the thread
            place = traceback.extract_tb(exc.__traceback__)[-1]
            told = f"{type(exc).__name__} in {Path(place.filename).name}, line {place.lineno}"
            if told not in self._told:
                self._told.add(told)
                print(f"markcheck: our mistake: {told} (upkeep)", file=sys.stderr)

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
            self._rechecker.run(standing)


def names_a_vehicle(result: CheckResult) -> bool:
    """Whether something else than an unproven code names the vehicle: that is looked up for no verdict (R1)."""
    seen = result.evidence
    by_tag = seen.tag is not None and seen.tag.plate is not None
    return seen.plate_seen is not None or by_tag or result.credential is not None


def of_that_day(online: OnlineEvidence, seen: Evidence, at: datetime) -> OnlineEvidence:
    """What the centre says of the vehicle today, for a verdict of `at`, when `seen` was seen.

    Months, insurance and lifetimes are judged at the time of the check: whoever was lawful then is told no stop because
    a month has ended since. So the centre's time, which would take the place of the clock's (R5), is left out, and
    letter Q too where the month that it repeats had not ended yet, unless the data of then had it already. Where the
    clock was under suspicion nobody knows when the check was; the centre's time counts then, unless a month has ended
    since the data of that check.
    """
    vehicle = online.answer.vehicle if online.answer is not None else None
    earliest = at if seen.clock_trusted else seen.cache.as_of
    month, today = vehicle.inspection_valid_until if vehicle is not None else None, online.server_time
    ended = month is not None and today is not None and month < Month.at(today)
    ended_since = ended and month is not None and (earliest is None or not month < Month.at(earliest))
    if not seen.clock_trusted and not ended_since:
        return online
    before = seen.cache.answer.vehicle if seen.cache.answer is not None else None
    new = before is None or StatusLetter.OVERDUE not in before.status
    if online.answer is not None and vehicle is not None and ended_since and new:
        status = (vehicle.status - {StatusLetter.OVERDUE}) or frozenset({StatusLetter.NORMAL})
        online = replace(online, answer=replace(online.answer, vehicle=replace(vehicle, status=status)))
    return replace(online, server_time=None)


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


def dispute_of(result: CheckResult, standing: Standing, hasher: KeyHasher) -> Report | None:
    """The officer's word that the record behind a check is wrong; said twice it is one report. None without a vehicle
    that a register could have."""
    serial = result.credential.serial if result.credential is not None else None
    ids = questions(Inquiry(plates=result.plates, serial=serial, standing=standing), hasher)
    if not ids:
        return None
    return Report(
        report_id=hashlib.sha256(f"dispute {result.check_id}".encode()).digest()[:16],
        check_id=bytes.fromhex(result.check_id),
        reason=ReportReason.DISPUTED,
        vehicle=ids[0],
        key_check=hasher.check_value,
        checked_at=datetime.fromtimestamp(seconds_of(result.now), UTC),
        then=result.verdict.code,
        now=result.verdict.code,
    )


@dataclass(frozen=True, slots=True)
class _Case:
    """A check that waits."""

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
