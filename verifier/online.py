"""Asking the centre: what is asked of a check, what the answer means, and the one bounded attempt.

Nothing here waits for the network but the threads made for it, and nothing loads an HTTP library: the poster does.
"""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from verifier.adapters import online_evidence, online_failure
from verifier.cache.keys import CREDENTIAL, PLATE, VIN, KeyHasher, plate_bytes, serial_bytes
from verifier.cache.store import DOCUMENT_STATES
from verifier.cache.values import from_wide
from verifier.codec import online as codec
from verifier.codec.online import (
    AskedId,
    DocumentWord,
    IdKind,
    OnlineFormatError,
    Row,
    RowStatus,
    StatusRequest,
    VinWord,
)
from verifier.errors import FetchError, PlateError, RejectedError, StatusError
from verifier.facts import WATCH_LETTERS
from verifier.link import Link, Mode, chosen, failed, retried, succeeded
from verifier.plates import kinds_of, usual_kind
from verifier.trust import TrustedKey, TrustList
from verifier.types import CredentialStatus, OnlineEvidence, OnlineState, Plate, Serial, StatusAnswer, VinAnswer
from verifier.vin import Vin

CONNECT_MS, TOTAL_MS = 500, 1500
OLDEST_ROW = timedelta(hours=1)  # what the centre read of its register longer ago is no online answer
SKEW = timedelta(seconds=300)
FARTHEST = timedelta(days=400)  # ahead of the newest signed set; beyond, it is the centre's clock that is wrong
MAX_REMEMBERED = 64  # answers
MAX_AT_WORK = 4  # attempts that have not come back yet, a hanging one included
_NO_PLATE = Plate("", None)
_BAD_REQUEST = 400  # RFC 9110 clause 15.5.1


class Poster(Protocol):
    """What carries a request to the centre: `verifier.online_http.HttpPoster`."""

    def post(self, path: str, body: bytes, content_type: str, answer_type: str, max_length: int) -> bytes:
        """The body of the answer; FetchError and its kinds."""


class DeferredPoster:
    """A poster that is made when it is first used, or by `prepare`: its library takes long to load."""

    def __init__(self, make: Callable[[], Poster]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: Poster | None = None

    def prepare(self) -> Poster:
        """Load it; FetchError when it cannot be made."""
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    def post(self, path: str, body: bytes, content_type: str, answer_type: str, max_length: int) -> bytes:
        """As `Poster.post`."""
        return self.prepare().post(path, body, content_type, answer_type, max_length)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a device has, and by what it judges an answer."""

    trust: TrustList
    as_of: datetime  # of the signed set in use
    seq: int
    hot_seq: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Inquiry:
    """Whom one check asks about: the first of the plates (those seen, proven ones first), and a proven credential.

    A typed `vin` is asked for to know whether it belongs to that plate.
    """

    plates: tuple[Plate, ...]
    serial: Serial | None
    standing: Standing
    vin: Vin | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A question with its verified answer; the bytes can be kept as proof. `at` is when it was asked, in ms."""

    request: bytes
    answer: bytes
    ids: tuple[AskedId, ...]
    rows: tuple[Row, ...]
    key: TrustedKey
    issued_at: datetime
    life_ms: int
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of asking. `failure` is what the network is to blame for, None when the centre answered."""

    evidence: OnlineEvidence
    exchange: Exchange | None = None
    failure: OnlineState | None = None

    @property
    def asked(self) -> bool:
        """Whether there was anybody to ask, or an answer that is still good."""
        return self.evidence.state is not OnlineState.DISABLED

    @property
    def answered(self) -> bool:
        """Whether it says anything of the vehicle (R4); a word on its document alone leaves the question open."""
        answer = self.evidence.answer
        known = self.evidence.state is OnlineState.OK and answer is not None and answer.vehicle is not None
        return known or self.evidence.state in (OnlineState.NOT_FOUND, OnlineState.SEVERAL)

    @property
    def sources(self) -> dict[str, Any]:
        """For the audit record: the question and its signed answer, which prove what the centre said."""
        if self.exchange is None:
            return {"online": None}
        return {"online": {"request": self.exchange.request.hex(), "answer": self.exchange.answer.hex()}}


NOT_ASKED = Outcome(evidence=OnlineEvidence(state=OnlineState.DISABLED))


def boottime_ms() -> int:
    """Milliseconds of the clock that nobody sets and that goes on while the machine sleeps."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1_000_000


# ---------------------------------------------------------------------------------------- what is asked


def questions(inquiry: Inquiry, hasher: KeyHasher) -> tuple[AskedId, ...]:
    """The identities to ask for, hashed: the vehicle under each kind it may have, the credential, the VIN."""
    asked = list(_vehicles(inquiry, hasher))
    vin = [AskedId(IdKind.VIN, hasher.digest(VIN, inquiry.vin.encode()))] if asked and inquiry.vin is not None else []
    if inquiry.serial is not None:
        with suppress(PlateError):  # a serial that no register has either
            asked.append(AskedId(IdKind.CREDENTIAL, hasher.digest(CREDENTIAL, serial_bytes(inquiry.serial))))
    return (*asked, *vin)


def _vehicles(inquiry: Inquiry, hasher: KeyHasher) -> dict[AskedId, Plate]:
    """The first plate under each kind that it may have; nothing for one that no register has."""
    out = {}
    for plate in inquiry.plates[:1]:
        for kind in (plate.kind,) if plate.kind is not None else kinds_of(plate.text):
            digest = _plate_digest(hasher, Plate(plate.text, kind))
            if digest is not None:
                out[AskedId(IdKind.PLATE, digest)] = Plate(plate.text, kind)
    return out


def _plate_digest(hasher: KeyHasher, plate: Plate) -> bytes | None:
    try:
        return hasher.digest(PLATE, plate_bytes(plate))
    except PlateError:
        return None


# ------------------------------------------------------------------------------------ what the answer means


def meaning(inquiry: Inquiry, exchange: Exchange, hasher: KeyHasher, now: int) -> OnlineEvidence:
    """Evidence from the rows of an exchange that belong to this inquiry. Unknown is no answer, and never absent."""
    if not all(exchange.key.covers(plate.text) for plate in inquiry.plates[:1]):
        return OnlineEvidence(state=OnlineState.BAD_SIGNATURE)
    asked = set(questions(inquiry, hasher))
    # A register that lags behind the set on the device, by whatever time, does not know what that says: of a theft.
    known = inquiry.standing.as_of.replace(microsecond=0)  # rows count whole seconds
    oldest = max(exchange.issued_at - OLDEST_ROW, known)
    rows = {
        one: row
        for one, row in zip(exchange.ids, exchange.rows, strict=True)
        if one in asked and row.status is not RowStatus.UNKNOWN and row.as_of >= oldest
    }
    document = _document(rows, inquiry.plates, hasher)
    vehicles = _vehicles(inquiry, hasher)
    found = [from_wide(row.record, vehicles[one]) for one, row in rows.items() if isinstance(row.record, int)]
    # Where more than one kind carries the text, nobody has said which of them stands there.
    told = bool(vehicles) and all(one in rows for one in vehicles) and len(found) <= 1
    vin = _whose_vin(rows, vehicles, told=told, gone=told and not found)
    server_time = exchange.issued_at + timedelta(milliseconds=max(0, now - exchange.at))
    if len(found) > 1:
        return OnlineEvidence(
            state=OnlineState.SEVERAL, answer=StatusAnswer(vehicle=None, credential=document) if document else None,
            server_time=server_time, vin=vin, watched=any(record.status & WATCH_LETTERS for record in found),
        )  # fmt: skip
    if not told and document is None and vin is None:
        return OnlineEvidence(state=OnlineState.UNREACHABLE)  # the register behind the centre, or the officer's word
    vehicle = found[0] if told and found else None
    evidence = online_evidence(StatusAnswer(vehicle=vehicle, credential=document), server_time, complete=told)
    return replace(evidence, vin=vin)


def _document(rows: dict[AskedId, Row], plates: Sequence[Plate], hasher: KeyHasher) -> CredentialStatus | None:
    for asked, row in rows.items():
        if asked.kind is IdKind.CREDENTIAL and isinstance(row.record, DocumentWord):
            new = _plate_with(row.record.new_plate, plates, hasher)
            return CredentialStatus(state=DOCUMENT_STATES[row.record.state], superseded_by_plate=new)
    return None


def _whose_vin(rows: dict[AskedId, Row], vehicles: dict[AskedId, Plate], *, told: bool, gone: bool) -> VinAnswer | None:
    """Whether the VIN belongs to the looked-up plate, under any kind that it may have.

    `told`: its own row says what became of that plate's vehicle; `gone`: that no vehicle has it.
    """
    row = next((row for asked, row in rows.items() if asked.kind is IdKind.VIN), None)
    if row is None:
        return None
    word = row.record
    if not isinstance(word, VinWord):
        return VinAnswer.ABSENT
    same = AskedId(IdKind.PLATE, word.plate) in vehicles
    if from_wide(word.wide, _NO_PLATE).status & WATCH_LETTERS and not (same and told):
        return VinAnswer.WANTED  # no other row would say so
    moved = {other.record.new_plate for other in rows.values() if isinstance(other.record, DocumentWord)}
    if gone and word.plate in moved:
        return None  # R3: the vehicle of the credential that was shown carries that plate now
    return VinAnswer.SAME if same else VinAnswer.OTHER


def _plate_with(digest: bytes | None, plates: Sequence[Plate], hasher: KeyHasher) -> str | None:
    """The text of the seen plate that has this hash."""
    if digest is None:
        return None
    for plate in plates:
        kind = plate.kind or usual_kind(plate.text)
        if _plate_digest(hasher, Plate(plate.text, kind)) == digest:
            return plate.text
    return None


# ----------------------------------------------------------------------------------------------- the asking


class _Slot:
    """Where a worker leaves what it found."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.outcome: Outcome | None = None


class Centre:
    """The centre as one device sees it: breaker, bounded attempts, and answers that are still good.

    May be used by several threads. `total_ms` bounds what a caller of `answer` waits, whatever the network does.
    """

    def __init__(
        self,
        poster: Poster,
        hasher: KeyHasher,
        *,
        monotonic_ms: Callable[[], int] = boottime_ms,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
        draw: Callable[[], float] = random.random,
        total_ms: int = TOTAL_MS,
        mode: Mode = Mode.AUTO,
    ) -> None:
        self._poster, self._hasher = poster, hasher
        self._now, self._random, self._draw = monotonic_ms, random_bytes, draw
        self._total_ms = total_ms
        self._lock = threading.Lock()
        self._link = Link(mode=mode)
        self._remembered: OrderedDict[tuple[AskedId, ...], tuple[Standing, Exchange]] = OrderedDict()
        self._free = threading.BoundedSemaphore(MAX_AT_WORK)

    @property
    def link(self) -> Link:
        """The breaker, for the panel: `asks`, `mode`, `reason`."""
        with self._lock:
            return self._link

    def next_try_ms(self) -> int | None:
        """How long until the next attempt in the background; None where none is waited for."""
        return self.link.next_try_ms(self._now())

    def choose(self, mode: Mode) -> None:
        """The officer's choice, which stands above what happens."""
        with self._lock:
            self._link = chosen(self._link, mode)

    def retry(self) -> None:
        """The officer asks to try again: the next check will."""
        with self._lock:
            self._link = retried(self._link)

    def answer(self, inquiry: Inquiry, *, fresh: bool = False) -> Outcome:
        """Ask, and wait for `total_ms` at most; never raises for what the network does.

        An answer that is still good is taken again, unless it is to be `fresh`.
        """
        ids = questions(inquiry, self._hasher)
        standing = inquiry.standing
        remembered = None if fresh else self._recall(ids, standing)
        if remembered is not None:
            return self._outcome(inquiry, remembered)
        if not ids or not self.link.asks:
            return NOT_ASKED
        # One that comes too late for this check is remembered all the same: the next scan has it at once.
        return self._bounded(lambda: self._outcome(inquiry, self._remember(self._exchange(ids, standing), standing)))

    def look_up(self, ids: tuple[AskedId, ...], standing: Standing) -> Outcome:
        """Ask about several vehicles at once, within the same time; `exchange` has the answer, None without one."""
        return self._look_up(ids, standing) if self.link.asks else NOT_ASKED

    def _look_up(self, ids: tuple[AskedId, ...], standing: Standing) -> Outcome:
        return self._bounded(lambda: replace(NOT_ASKED, exchange=self._exchange(ids, standing)))

    def probe(self, standing: Standing) -> None:
        """Try an open link when that is due, and wait for it: not for the thread that serves the officer.

        The question is about nobody: it tells whether a signed answer comes back, and nothing of any vehicle.
        """
        if self.link.probe_due(self._now()):
            self._look_up((AskedId(IdKind.PLATE, self._random(16)),), standing)

    def _exchange(self, ids: tuple[AskedId, ...], standing: Standing) -> Exchange:
        """One question and its verified answer, in the caller's thread. FetchError and its kinds.

        A centre that does not serve VINs refuses the whole request: its word on the plate must not be lost by that.
        """
        try:
            return self._exchanged(ids, standing)
        except StatusError as exc:
            served = tuple(one for one in ids if one.kind is not IdKind.VIN)
            if exc.code != _BAD_REQUEST or served == ids:
                raise
        return self._exchanged(served, standing)

    def _exchanged(self, ids: tuple[AskedId, ...], standing: Standing) -> Exchange:
        request = codec.encode_request(
            StatusRequest(
                nonce=self._random(codec.NONCE_LENGTH),
                key_check=self._hasher.check_value,
                ids=ids,
                seq=standing.seq,
                hot_seq=standing.hot_seq,
            )
        )
        at, path = self._now(), codec.STATUS_PATH
        data = self._poster.post(path, request, codec.CONTENT_TYPE, codec.ANSWER_TYPE, codec.MAX_ANSWER)
        try:
            answer, key = codec.decode_answer(data, request, standing.trust)
        except OnlineFormatError as exc:
            raise RejectedError(path, str(exc)) from exc
        if not standing.as_of - SKEW <= answer.issued_at <= standing.as_of + FARTHEST:
            raise RejectedError(path, "an answer whose time does not go with the signed set in use")
        life_ms = int((answer.expires_at - answer.issued_at).total_seconds() * 1000)
        return Exchange(
            request=request, answer=data, ids=ids, rows=answer.rows, key=key, issued_at=answer.issued_at,
            life_ms=life_ms, at=at,
        )  # fmt: skip

    def report(self, report: codec.Report) -> None:
        """Tell the centre of an earlier check, in the caller's thread. FetchError when it gave no receipt."""
        path = codec.REPORTS_PATH
        data = self._poster.post(
            path, codec.encode_report(report), codec.CONTENT_TYPE, codec.CONTENT_TYPE, codec.MAX_REPORT
        )
        try:
            receipt = codec.decode_receipt(data)
        except OnlineFormatError as exc:
            raise RejectedError(path, str(exc)) from exc
        if receipt != report.report_id:
            raise RejectedError(path, "a receipt for another report")

    @property
    def hasher(self) -> KeyHasher:
        """What identities are hashed with."""
        return self._hasher

    def understand(self, inquiry: Inquiry, exchange: Exchange) -> OnlineEvidence:
        """What an exchange says of this inquiry, whose questions were among those asked."""
        return meaning(inquiry, exchange, self._hasher, self._now())

    def _note(self, outcome: Outcome, retry_after_ms: int) -> None:
        """Let the breaker know how asking ended."""
        with self._lock:
            if outcome.failure is None:
                self._link = succeeded(self._link)
            else:
                self._link = failed(self._link, outcome.failure, self._now(), self._draw(), retry_after_ms)

    def _bounded(self, attempt: Callable[[], Outcome]) -> Outcome:
        """What the attempt brings within the time; one that takes longer goes on alone and is not waited for."""
        timeout = Outcome(evidence=OnlineEvidence(state=OnlineState.TIMEOUT), failure=OnlineState.TIMEOUT)
        if not self._free.acquire(blocking=False):
            return timeout  # earlier ones still hang: another would hang too
        slot, pause = _Slot(), [0]
        if not in_background(lambda: self._work(attempt, slot, pause)):
            self._free.release()
            return Outcome(evidence=OnlineEvidence(state=OnlineState.UNREACHABLE))
        slot.done.wait(self._total_ms / 1000)
        outcome = slot.outcome or timeout
        self._note(outcome, pause[0])
        return outcome

    def _work(self, attempt: Callable[[], Outcome], slot: _Slot, pause: list[int]) -> None:
        try:
            slot.outcome = attempt()
        except FetchError as exc:
            if isinstance(exc, StatusError):
                pause[0] = (exc.retry_after or 0) * 1000
            evidence = online_failure(exc)
            slot.outcome = Outcome(evidence=evidence, failure=evidence.state)
        finally:
            slot.done.set()
            self._free.release()

    def _outcome(self, inquiry: Inquiry, exchange: Exchange) -> Outcome:
        return Outcome(evidence=self.understand(inquiry, exchange), exchange=exchange)

    def _remember(self, exchange: Exchange, standing: Standing) -> Exchange:
        with self._lock:
            self._remembered[exchange.ids] = standing, exchange
            self._remembered.move_to_end(exchange.ids)
            while len(self._remembered) > MAX_REMEMBERED:
                self._remembered.popitem(last=False)
        return exchange

    def _recall(self, ids: tuple[AskedId, ...], standing: Standing) -> Exchange | None:
        """An answer to the same questions that is still good: no list or set has come since that may know better."""
        with self._lock:
            before, exchange = self._remembered.get(ids, (None, None))
        if before is None or exchange is None or self._now() >= exchange.at + exchange.life_ms:
            return None
        same_data = (before.seq, before.hot_seq) == (standing.seq, standing.hot_seq)
        return exchange if before.trust is standing.trust and same_data else None


def at_once(work: Callable[[], None]) -> bool:
    """Do it in the caller's thread, in place of `in_background`, for who has nothing to show meanwhile."""
    work()
    return True


def in_background(work: Callable[[], None]) -> bool:
    """Do it in a thread of its own, which ends with the program; whether one could be had."""
    try:
        threading.Thread(target=work, daemon=True).start()
    except RuntimeError:
        return False
    return True
