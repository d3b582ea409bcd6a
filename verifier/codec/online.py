"""The online look-up as bytes: request, signed answer, and the report of a check that turned out otherwise.

docs/online-api.md describes all of it. Identities travel as keyed hashes (`verifier.cache.keys`), facts of vehicles as
the wide values of the status cache (`verifier.cache.values`), states of documents as those of the status list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Any

from verifier.cache.keys import CREDENTIAL, DIGEST_LENGTH, PLATE, TAG, VIN
from verifier.cache.values import from_wide
from verifier.codec import cbor
from verifier.codec.cose import TYP_ONLINE, Sign1, parse_sign1
from verifier.codec.index import MAX_NUMBER
from verifier.codec.status import ListedStatus
from verifier.errors import CacheCorruptError, CodeError, VerifierError
from verifier.signature import verify_with
from verifier.trust import TrustedKey, TrustList
from verifier.types import Code, KeyRole, KeyState, Plate
from verifier.verdict import VerdictCode

VERSION = 1
CONTENT_TYPE = "application/cbor"  # of requests, reports and their receipts
ANSWER_TYPE = "application/cose"  # RFC 9052 clause 11.3
STATUS_PATH, REPORTS_PATH = "v1/status", "v1/reports"
MAX_IDS = 50
MAX_REQUEST = 2048  # bytes; 50 identities take about 1100
MAX_ANSWER = 8192  # bytes; 50 rows take about 3000
MAX_REPORT = 512  # bytes, and of its receipt
NONCE_LENGTH = 16  # bytes
LIFE = timedelta(seconds=300)  # of an answer

_MAX_TIME = (1 << 32) - 1  # POSIX seconds
_MAX_WIDE = (1 << 56) - 1
_MAX_ISSUER = 40  # characters


class OnlineFormatError(VerifierError):
    """A request, answer or report that breaks a bound, or whose signature proves nothing."""


class IdKind(IntEnum):
    """What an identity is."""

    PLATE = 1
    TAG = 2
    CREDENTIAL = 3
    VIN = 4


PERSONS = {IdKind.PLATE: PLATE, IdKind.TAG: TAG, IdKind.CREDENTIAL: CREDENTIAL, IdKind.VIN: VIN}
"""The kind of keyed hash (`KeyHasher.digest`) that belongs to each kind of identity."""


class RowStatus(IntEnum):
    """What the centre can say of one identity."""

    FOUND = 0
    ABSENT = 1  # looked for in a register that is complete for it, and not there
    UNKNOWN = 2  # the centre cannot say: a register behind it does not answer, or it is not in its charge


class ReportReason(Code):
    """Why a device reports a check."""

    CONFIRMED = "confirmed"  # asked again later: the centre says the same
    CORRECTED = "corrected"  # asked again later: the centre says otherwise
    DISPUTED = "disputed"  # the officer holds the record for wrong


@dataclass(frozen=True, slots=True)
class AskedId:
    """One identity as it is asked for: its kind and its 16-byte keyed hash."""

    kind: IdKind
    key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRequest:
    """What a device asks. `key_check` is `KeyHasher.check_value`: it names the epoch key behind the hashes."""

    nonce: bytes  # 16 random bytes, new for each request
    key_check: bytes
    ids: tuple[AskedId, ...]  # 1 to 50
    seq: int = 0  # of the set in use on the device, 0 for none
    hot_seq: int = 0  # of its hot list, likewise


@dataclass(frozen=True, slots=True)
class DocumentWord:
    """State of a credential, and the keyed hash of the plate that its vehicle carries now, where it has another."""

    state: ListedStatus
    new_plate: bytes | None = None


@dataclass(frozen=True, slots=True)
class VinWord:
    """The vehicle that has a VIN: the keyed hash of the plate that it carries now, and its wide value."""

    plate: bytes
    wide: int


Record = int | DocumentWord | VinWord
"""What is found: the wide value of a vehicle (for a plate or a tag), the word on a credential or on a VIN."""

_RECORD_OF: dict[IdKind, type[Record]] = {
    IdKind.PLATE: int, IdKind.TAG: int, IdKind.CREDENTIAL: DocumentWord, IdKind.VIN: VinWord,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What the centre says of one identity; `as_of` is the moment at which it read the register.

    `record` is there when FOUND, in the form that belongs to the kind of identity.
    """

    status: RowStatus
    as_of: datetime
    record: Record | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineAnswer:
    """A signed answer: one row for each identity asked for, in the order of the request."""

    issuer: str  # of the trust list's entry whose key signs
    issued_at: datetime
    expires_at: datetime  # LIFE later at the latest
    nonce: bytes
    request_hash: bytes  # SHA-256 of the request's bytes: nobody between can have asked for somebody else
    rows: tuple[Row, ...]
    hot_seq: int  # of the newest hot list, 0 for none


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a device tells the centre about an earlier check of its own. No plate, no officer."""

    report_id: bytes  # 16 bytes, the same when it is sent again
    check_id: bytes  # 16 bytes; the device's audit log has the check under it
    reason: ReportReason
    vehicle: AskedId
    key_check: bytes
    checked_at: datetime
    then: VerdictCode  # the verdict at that time
    now: VerdictCode  # what it would have been with what the centre says now


# ------------------------------------------------------------------------------------------------ request


def encode_request(request: StatusRequest) -> bytes:
    """The request as bytes; ValueError when it breaks a rule of the format."""
    data = cbor.encode(
        {
            "v": VERSION,
            "nonce": request.nonce,
            "kc": request.key_check,
            "ids": [[int(asked.kind), asked.key] for asked in request.ids],
            "have": {"seq": request.seq, "hot_seq": request.hot_seq},
        }
    )
    return _sound(data, decode_request)


def decode_request(data: bytes) -> StatusRequest:
    """Bytes to StatusRequest; OnlineFormatError names what is wrong."""
    top = _Fields(_map(data, MAX_REQUEST, "request"), ("v", "nonce", "kc", "ids", "have"), "request")
    have = _Fields(top.get("have", dict), ("seq", "hot_seq"), "request.have")
    ids = top.get("ids", list, lambda v: 1 <= len(v) <= MAX_IDS)
    return StatusRequest(
        nonce=top.octets("nonce", NONCE_LENGTH),
        key_check=top.octets("kc", DIGEST_LENGTH),
        ids=tuple(_asked(item, "request.ids") for item in ids),
        seq=have.number("seq", 0, MAX_NUMBER),
        hot_seq=have.number("hot_seq", 0, MAX_NUMBER),
    )


def request_hash(data: bytes) -> bytes:
    """What an answer names its request by."""
    return hashlib.sha256(data).digest()


# ------------------------------------------------------------------------------------------------- answer


def answer_payload(answer: OnlineAnswer) -> bytes:
    """The payload to be signed under typ 65005, with kid; ValueError when it breaks a rule of the format."""
    data = cbor.encode(
        {
            "v": VERSION, "iss": answer.issuer, "iat": _seconds(answer.issued_at), "exp": _seconds(answer.expires_at),
            "nonce": answer.nonce, "req": answer.request_hash, "hot_seq": answer.hot_seq,
            "r": [_row_wire(number, row) for number, row in enumerate(answer.rows)],
        }
    )  # fmt: skip
    return _sound(data, _payload)


def decode_answer(data: bytes, request: bytes, trust: TrustList) -> tuple[OnlineAnswer, TrustedKey]:
    """Verify and read the answer to these request bytes; OnlineFormatError. Also the key that signed it.

    Freshness rests on the nonce alone, so that a device with a wrong clock can be put right by an answer. Whether
    `issued_at` agrees with any clock is for the caller to say, and which plates the key may speak of too.
    """
    if len(data) > MAX_ANSWER:
        raise OnlineFormatError(f"answer: more than {MAX_ANSWER} bytes")
    try:
        signed = parse_sign1(data, (TYP_ONLINE,))
        key = _trusted(signed, trust)
    except CodeError as exc:
        raise OnlineFormatError(f"answer: {exc.fault.value}") from exc
    answer = _payload(signed.payload)
    _check_key(key, answer)
    asked = decode_request(request)
    if answer.nonce != asked.nonce or answer.request_hash != request_hash(request):
        raise OnlineFormatError("answer: to another request")
    if len(answer.rows) != len(asked.ids):
        raise OnlineFormatError("answer.r: not one row for each identity")
    for wanted, row in zip(asked.ids, answer.rows, strict=True):
        if row.status is RowStatus.FOUND and type(row.record) is not _RECORD_OF[wanted.kind]:
            raise OnlineFormatError("answer.r: a record of another kind than was asked for")
    return answer, key


def _trusted(signed: Sign1, trust: TrustList) -> TrustedKey:
    """The key of the trust list under which this verifies (its algorithm is the entry's, not the header's)."""
    key = trust.find(signed.kid, KeyRole.STATUS)
    if key is None or key.state is not KeyState.ACTIVE:
        raise OnlineFormatError("answer: signed by no key that may sign answers")
    if key.public is None or key.alg != signed.alg:
        raise OnlineFormatError("answer: an algorithm that is not the key's, or not available here")
    if not verify_with(key.public, signed.to_be_signed, signed.signature):
        raise OnlineFormatError("answer: the signature does not fit")
    return key


def _check_key(key: TrustedKey, answer: OnlineAnswer) -> None:
    if answer.issuer != key.issuer:
        raise OnlineFormatError("answer.iss: not the issuer of the key")
    if not key.not_before <= answer.issued_at.timestamp() <= key.not_after:
        raise OnlineFormatError("answer.iat: outside the time of the key")


def _payload(data: bytes) -> OnlineAnswer:
    names = ("v", "iss", "iat", "exp", "nonce", "req", "hot_seq", "r")
    top = _Fields(_map(data, MAX_ANSWER, "answer"), names, "answer")
    issued_at, expires_at = top.time("iat"), top.time("exp")
    if not timedelta(0) < expires_at - issued_at <= LIFE:
        raise OnlineFormatError("answer.exp: not within 300 s after iat")
    rows = top.get("r", list, lambda v: 1 <= len(v) <= MAX_IDS)
    return OnlineAnswer(
        issuer=top.get("iss", str, lambda v: 1 <= len(v) <= _MAX_ISSUER and v.isprintable()),
        issued_at=issued_at,
        expires_at=expires_at,
        nonce=top.octets("nonce", NONCE_LENGTH),
        request_hash=top.octets("req", 32),
        rows=tuple(_row(number, item, issued_at) for number, item in enumerate(rows)),
        hot_seq=top.number("hot_seq", 0, MAX_NUMBER),
    )


def _row_wire(number: int, row: Row) -> list[Any]:
    wire: list[Any] = [number, int(row.status), _seconds(row.as_of)]
    if isinstance(row.record, DocumentWord):
        new = row.record.new_plate
        wire.append([int(row.record.state)] if new is None else [int(row.record.state), new])
    elif isinstance(row.record, VinWord):
        wire.append([row.record.plate, row.record.wide])
    elif row.record is not None:
        wire.append(row.record)
    return wire


def _row(number: int, item: Any, issued_at: datetime) -> Row:
    if type(item) is not list or [type(v) for v in item[:3]] != [int] * 3 or item[0] != number:
        raise OnlineFormatError("answer.r: not [i, status, as_of] in the order of the request")
    if item[1] not in tuple(RowStatus) or not 1 <= item[2] <= _MAX_TIME:
        raise OnlineFormatError("answer.r: status or as_of out of bounds")
    status, as_of = RowStatus(item[1]), datetime.fromtimestamp(item[2], UTC)
    if as_of > issued_at:
        raise OnlineFormatError("answer.r: as_of after iat")
    if len(item) != (4 if status is RowStatus.FOUND else 3):
        raise OnlineFormatError("answer.r: a record that must or must not be there")
    return Row(status=status, as_of=as_of, record=_record(item[3]) if status is RowStatus.FOUND else None)


def _record(item: Any) -> Record:
    if type(item) is int:
        return _wide(item)
    if type(item) is not list or len(item) not in (1, 2):
        raise OnlineFormatError("answer.r: neither a vehicle nor a document")
    return _vin_word(item) if type(item[0]) is bytes else _document_word(item)


def _wide(item: Any) -> int:
    if type(item) is not int or not 0 <= item <= _MAX_WIDE:
        raise OnlineFormatError("answer.r: a value out of bounds")
    try:
        from_wide(item, Plate("", None))  # its dates exist
    except CacheCorruptError as exc:
        raise OnlineFormatError("answer.r: a value that no vehicle has") from exc
    return item


def _vin_word(item: list[Any]) -> VinWord:
    if len(item) != 2 or len(item[0]) != DIGEST_LENGTH:
        raise OnlineFormatError("answer.r: not the plate and the value of a vehicle")
    return VinWord(item[0], _wide(item[1]))


def _document_word(item: list[Any]) -> DocumentWord:
    if type(item[0]) is not int:
        raise OnlineFormatError("answer.r: neither a vehicle nor a document")
    if item[0] not in tuple(ListedStatus):
        raise OnlineFormatError("answer.r: a document state that this program does not know")
    new = item[1] if len(item) == 2 else None
    if new is not None and (item[0] != ListedStatus.SUPERSEDED or type(new) is not bytes or len(new) != DIGEST_LENGTH):
        raise OnlineFormatError("answer.r: a new plate of a document that has none")
    return DocumentWord(ListedStatus(item[0]), new)


# ------------------------------------------------------------------------------------------------- report


def encode_report(report: Report) -> bytes:
    """The report as bytes; ValueError when it breaks a rule of the format."""
    data = cbor.encode(
        {
            "v": VERSION, "id": report.report_id, "check": report.check_id, "reason": report.reason.value,
            "vehicle": [int(report.vehicle.kind), report.vehicle.key], "kc": report.key_check,
            "at": _seconds(report.checked_at), "then": report.then.value, "now": report.now.value,
        }
    )  # fmt: skip
    return _sound(data, decode_report)


def decode_report(data: bytes) -> Report:
    """Bytes to Report; OnlineFormatError names what is wrong."""
    names = ("v", "id", "check", "reason", "vehicle", "kc", "at", "then", "now")
    top = _Fields(_map(data, MAX_REPORT, "report"), names, "report")
    return Report(
        report_id=top.octets("id", 16),
        check_id=top.octets("check", 16),
        reason=ReportReason(top.get("reason", str, lambda v: v in tuple(ReportReason))),
        vehicle=_asked(top.get("vehicle", list), "report.vehicle"),
        key_check=top.octets("kc", DIGEST_LENGTH),
        checked_at=top.time("at"),
        then=VerdictCode(top.get("then", str, lambda v: v in tuple(VerdictCode))),
        now=VerdictCode(top.get("now", str, lambda v: v in tuple(VerdictCode))),
    )


def encode_receipt(report_id: bytes) -> bytes:
    """What the centre answers to a report that it has kept; ValueError for an id that is none."""
    return _sound(cbor.encode({"v": VERSION, "id": report_id}), decode_receipt)


def decode_receipt(data: bytes) -> bytes:
    """The report's id in a receipt; OnlineFormatError."""
    return _Fields(_map(data, MAX_REPORT, "receipt"), ("v", "id"), "receipt").octets("id", 16)


# ------------------------------------------------------------------------------------------------- fields


class _Fields:
    """A map with exactly these keys, whose values are taken out with their bounds."""

    def __init__(self, raw: Any, names: Sequence[str], path: str) -> None:
        if type(raw) is not dict or set(raw) != set(names):
            raise OnlineFormatError(f"{path}: not a map with the fields of this version")
        self._raw: dict[str, Any] = raw
        self._path = path
        if "v" in names and self.number("v", 1, MAX_NUMBER) != VERSION:
            raise OnlineFormatError(f"{path}.v: a version that this program does not know")

    def get(self, name: str, kind: type, test: Callable[[Any], bool] = lambda _: True) -> Any:
        value = self._raw[name]
        if type(value) is not kind or not test(value):
            raise OnlineFormatError(f"{self._path}.{name}: of another type or out of bounds")
        return value

    def number(self, name: str, low: int, high: int) -> int:
        return int(self.get(name, int, lambda v: low <= v <= high))

    def octets(self, name: str, length: int) -> bytes:
        return bytes(self.get(name, bytes, lambda v: len(v) == length))

    def time(self, name: str) -> datetime:
        return datetime.fromtimestamp(self.number(name, 1, _MAX_TIME), UTC)


def _map(data: bytes, max_length: int, path: str) -> Any:
    if len(data) > max_length:
        raise OnlineFormatError(f"{path}: more than {max_length} bytes")
    try:
        return cbor.decode(data)
    except CodeError as exc:
        raise OnlineFormatError(f"{path}: {exc.detail}") from exc


def _asked(item: Any, path: str) -> AskedId:
    if type(item) is not list or [type(v) for v in item] != [int, bytes]:
        raise OnlineFormatError(f"{path}: not [kind, key]")
    kind, key = item
    if kind not in tuple(IdKind) or len(key) != DIGEST_LENGTH:
        raise OnlineFormatError(f"{path}: a kind that is not served, or not a 16-byte hash")
    return AskedId(IdKind(kind), key)


def _sound(data: bytes, decode: Callable[[bytes], Any]) -> bytes:
    """The bytes, once the reading side has taken them."""
    try:
        decode(data)
    except OnlineFormatError as exc:
        raise ValueError(str(exc)) from exc
    return data


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())
