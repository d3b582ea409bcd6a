"""What a device and its centre say to each other besides look-ups: refusals, audit uploads, the order to wipe.

The schemas of the JSON bodies stand in docs/openapi.json.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from verifier.codec import cbor
from verifier.codec.cose import parse_sign1
from verifier.codec.index import MAX_NUMBER
from verifier.errors import CodeError, VerifierError
from verifier.signature import verify_with
from verifier.trust import TrustList
from verifier.types import Code, KeyRole, KeyState

VERSION = 1
TYP_ORDER = 65006  # COSE typ of an order to a device; verifier.codec.cose has those of codes and lists
AUDIT_PATH, ENROL_PATH, EPOCH_KEY_PATH, HEARTBEAT_PATH = "v1/audit", "v1/enrol", "v1/epoch-key", "v1/heartbeat"
MAX_RECORDS = 200
MAX_RECORD = 256 * 1024  # bytes; longer than any line of the audit log
MAX_UPLOAD = 1 << 20  # bytes
NO_HEAD = bytes(32)  # the head of an empty log
DEVICE_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")

_DIGEST = 32  # bytes
_MAX_TIME = (1 << 32) - 1  # POSIX seconds
_MAX_ISSUER = 40  # characters


class DeviceFormatError(VerifierError):
    """An upload, receipt or order that breaks a bound, or an order that proves nothing."""


class Refusal(Code):
    """Why the centre refuses a request: `reason` in the body of the error."""

    REQUEST_MALFORMED = "REQUEST_MALFORMED"
    CERTIFICATE_MISSING = "CERTIFICATE_MISSING"
    CERTIFICATE_UNKNOWN = "CERTIFICATE_UNKNOWN"  # issued by nobody here, or replaced by an enrolment
    CODE_REFUSED = "CODE_REFUSED"  # an enrolment code that is wrong, used or too old
    DEVICE_LOST = "DEVICE_LOST"
    DEVICE_HELD = "DEVICE_HELD"  # gets no new certificate and no epoch key
    PATH_UNKNOWN = "PATH_UNKNOWN"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    REQUEST_TIMEOUT = "REQUEST_TIMEOUT"
    EPOCH_KEY_DIFFERS = "EPOCH_KEY_DIFFERS"
    REPORT_DIFFERS = "REPORT_DIFFERS"  # another report under an id that is taken
    AUDIT_GAP = "AUDIT_GAP"  # records before these are missing here: send from the receipt's number on
    AUDIT_BROKEN = "AUDIT_BROKEN"  # they do not continue what is remembered: cut, changed or rolled back
    LENGTH_REQUIRED = "LENGTH_REQUIRED"
    BODY_TOO_LARGE = "BODY_TOO_LARGE"
    CONTENT_TYPE = "CONTENT_TYPE"
    TOO_MANY_REQUESTS = "TOO_MANY_REQUESTS"
    UNAVAILABLE = "UNAVAILABLE"


# -------------------------------------------------------------------------------------------------- audit


@dataclass(frozen=True, slots=True)
class AuditHead:
    """How far an audit log goes: number of its lines, and SHA-256 of the last one."""

    seq: int = 0
    head: bytes = NO_HEAD


@dataclass(frozen=True, slots=True)
class AuditUpload:
    """Lines of the audit log as they lie in the file, without their newline; `after` is the head before the first."""

    after: AuditHead
    records: tuple[bytes, ...]  # 1 to 200

    def heads(self) -> tuple[AuditHead, ...]:
        """The head behind each record."""
        return tuple(
            AuditHead(number, hashlib.sha256(record).digest())
            for number, record in enumerate(self.records, self.after.seq + 1)
        )


def encode_upload(upload: AuditUpload) -> bytes:
    """The upload as bytes; ValueError when it breaks a rule of the format."""
    after = upload.after
    data = cbor.encode({"v": VERSION, "seq": after.seq, "head": after.head, "records": list(upload.records)})
    try:
        decode_upload(data)
    except DeviceFormatError as exc:
        raise ValueError(str(exc)) from exc
    return data


def decode_upload(data: bytes) -> AuditUpload:
    """Bytes to AuditUpload; DeviceFormatError."""
    raw = _map(data, MAX_UPLOAD, {"v": int, "seq": int, "head": bytes, "records": list})
    records = raw["records"]
    if not 1 <= len(records) <= MAX_RECORDS:
        raise DeviceFormatError(f"upload.records: not 1 to {MAX_RECORDS}")
    if any(type(line) is not bytes or not 1 <= len(line) <= MAX_RECORD or b"\n" in line for line in records):
        raise DeviceFormatError("upload.records: not lines")
    return AuditUpload(_head(raw), tuple(records))


def encode_audit_head(head: AuditHead) -> bytes:
    """What the centre answers to an upload: how far it has the log now."""
    return cbor.encode({"v": VERSION, "seq": head.seq, "head": head.head})


def decode_audit_head(data: bytes) -> AuditHead:
    """Bytes to AuditHead; DeviceFormatError."""
    return _head(_map(data, 128, {"v": int, "seq": int, "head": bytes}))


def _head(raw: dict[str, Any]) -> AuditHead:
    seq, head = raw["seq"], raw["head"]
    if not 0 <= seq <= MAX_NUMBER or len(head) != _DIGEST or (seq == 0 and head != NO_HEAD):
        raise DeviceFormatError("audit head: out of bounds")
    return AuditHead(seq, head)


# -------------------------------------------------------------------------------------------------- order


@dataclass(frozen=True, slots=True, kw_only=True)
class WipeOrder:
    """The order that one device erases its keys and data.

    `order_seq` grows over all orders of a centre, whatever device they are for: an older order is a replay.
    """

    issuer: str  # of the trust list's entry whose key signs
    device: str
    order_seq: int
    issued_at: datetime


def order_payload(order: WipeOrder) -> bytes:
    """The payload to be signed under typ 65006, with kid; ValueError when it breaks a rule of the format."""
    data = cbor.encode(
        {
            "v": VERSION, "order": "wipe", "iss": order.issuer, "device": order.device, "seq": order.order_seq,
            "iat": int(order.issued_at.timestamp()),
        }
    )  # fmt: skip
    try:
        _order(data)
    except DeviceFormatError as exc:
        raise ValueError(str(exc)) from exc
    return data


def decode_order(data: bytes, device: str, trust: TrustList) -> WipeOrder:
    """Verify and read an order to this device; DeviceFormatError. Whether it is a replay is for the caller to say.

    An active key in the role of status signs it: whoever may speak for vehicles here may speak to devices.
    """
    try:
        signed = parse_sign1(data, (TYP_ORDER,))
        key = trust.find(signed.kid, KeyRole.STATUS)
        if key is None or key.state is not KeyState.ACTIVE or key.public is None or key.alg != signed.alg:
            raise DeviceFormatError("order: signed by no key that may give orders")
        sound = verify_with(key.public, signed.to_be_signed, signed.signature)
    except CodeError as exc:
        raise DeviceFormatError(f"order: {exc.fault.value}") from exc
    if not sound:
        raise DeviceFormatError("order: the signature does not fit")
    order = _order(signed.payload)
    if order.issuer != key.issuer or not key.not_before <= order.issued_at.timestamp() <= key.not_after:
        raise DeviceFormatError("order: not within what its key may sign")
    if order.device != device:
        raise DeviceFormatError("order: for another device")
    return order


def _order(data: bytes) -> WipeOrder:
    raw = _map(data, 512, {"v": int, "order": str, "iss": str, "device": str, "seq": int, "iat": int})
    if raw["order"] != "wipe" or DEVICE_ID.fullmatch(raw["device"]) is None:
        raise DeviceFormatError("order: not one that this program knows")
    if not (1 <= len(raw["iss"]) <= _MAX_ISSUER and 1 <= raw["seq"] <= MAX_NUMBER and 1 <= raw["iat"] <= _MAX_TIME):
        raise DeviceFormatError("order: out of bounds")
    return WipeOrder(
        issuer=raw["iss"], device=raw["device"], order_seq=raw["seq"],
        issued_at=datetime.fromtimestamp(raw["iat"], UTC),
    )  # fmt: skip


def _map(data: bytes, max_length: int, fields: dict[str, type]) -> dict[str, Any]:
    """A map with exactly these fields of these types, in version 1."""
    if len(data) > max_length:
        raise DeviceFormatError(f"more than {max_length} bytes")
    try:
        raw = cbor.decode(data)
    except CodeError as exc:
        raise DeviceFormatError(f"not the format: {exc.detail}") from exc
    if type(raw) is not dict or {name: type(value) for name, value in raw.items()} != fields or raw["v"] != VERSION:
        raise DeviceFormatError("not the fields of a version that this program knows")
    return raw
