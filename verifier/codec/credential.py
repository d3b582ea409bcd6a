"""VM1, the documented reference format of a credential: text to bytes to claims, and back. Nothing here signs.

The steps and their faults follow docs/credential-format.md; a code is refused by its first failed check.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Any, NamedTuple, cast

from verifier.codec import base45, cbor, cose
from verifier.codec.cose import Sign1
from verifier.errors import CodeError
from verifier.plates import ALPHABET, PLATE_KINDS
from verifier.types import (
    Algorithm,
    CodeFault,
    Credential,
    Month,
    Plate,
    PresentationMode,
    Serial,
    utc,
)

PREFIX = "VM1:"
MAX_TEXT = 800  # characters
MAX_ENCRYPTED = 160  # bytes

_ANY_VERSION = re.compile(rb"VM[0-9]{1,3}:")

# Claim keys: RFC 8392 and RFC 8747 where they have one, private use below -65536.
ISS, EXP, NBF, IAT, CTI, CNF, MARK, INNER = 1, 4, 5, 6, 7, 8, -65537, -65538
# Keys of the mark map.
(
    PLATE,
    KIND,
    VEHICLE_TYPE,
    VALID_UNTIL,
    CTP_UNTIL,
    VIN_HASH,
    TID_HASH,
    MODE,
    STATUS,
    USE,
    COLOUR,
    ENCRYPTED,
) = range(1, 13)
_MARK_KEYS = frozenset(range(1, 13))
_REQUIRED = frozenset({PLATE, KIND, VEHICLE_TYPE, VALID_UNTIL, VIN_HASH, MODE, STATUS})
_INTEGER = frozenset({int})
MODE_NUMBERS: dict[PresentationMode, int] = {
    PresentationMode.LIVE: 1,
    PresentationMode.STORED: 2,
    PresentationMode.PRINTED: 3,
    PresentationMode.TAG_LABEL: 4,
}
_MODES = {number: mode for mode, number in MODE_NUMBERS.items()}
_PLATE_CHARACTERS = frozenset(ALPHABET)


class SignedCredential(NamedTuple):
    """A decoded code: signatures not verified, claims not read. `presentation` is the live wrapper, if any."""

    credential: Sign1
    presentation: Sign1 | None = None
    shown_at: int | None = None  # POSIX seconds, from the wrapper


class HolderKey(NamedTuple):
    """The credential's confirmation key (cnf, RFC 8747): algorithm and encoded public key (65, 33 or 32 bytes)."""

    alg: Algorithm
    key: bytes


def decode(payload: bytes) -> SignedCredential:
    """The bytes of a QR code to a SignedCredential; CodeError with the first fault."""
    if not payload.startswith(PREFIX.encode()):
        fault = CodeFault.VERSION if _ANY_VERSION.match(payload) else CodeFault.NOT_A_MARK
        raise CodeError(fault)
    if len(payload) > MAX_TEXT:
        raise CodeError(CodeFault.OVERSIZE, f"more than {MAX_TEXT} characters")
    try:
        text = payload.rstrip(b"\r\n").decode("ascii")
    except UnicodeDecodeError as exc:
        raise CodeError(CodeFault.ENCODING, "not ASCII") from exc
    outer = cose.parse_sign1(base45.decode(text[len(PREFIX) :]))
    if outer.typ == cose.TYP_CREDENTIAL:
        return SignedCredential(outer)
    shown_at, inner = _presentation(outer.payload)
    credential = cose.parse_sign1(inner)
    if credential.typ != cose.TYP_CREDENTIAL:
        raise CodeError(CodeFault.HEADER, "presentation of something that is no credential")
    return SignedCredential(credential, outer, shown_at)


def encode(sign1: bytes) -> str:
    """A COSE_Sign1 to the text of the QR code."""
    return PREFIX + base45.encode(sign1)


def _presentation(payload: bytes) -> tuple[int, bytes]:
    claims = cbor.decode(payload)
    if type(claims) is not dict or set(claims) != {IAT, INNER}:
        raise CodeError(CodeFault.CLAIMS, "presentation: not shown_at and credential")
    return _uint32(claims, IAT), _bytes(claims, INNER, 1, MAX_TEXT)


def presentation_claims(shown_at: int, credential: bytes) -> bytes:
    """The payload of a live presentation around a credential's COSE_Sign1."""
    return cbor.encode({IAT: shown_at, INNER: credential})


# ------------------------------------------------------------------------------------------------- claims


def parse_claims(payload: bytes) -> tuple[Credential, HolderKey | None]:
    """The payload of a credential to its claims; CodeError CBOR or CLAIMS. Call it after the signature verified."""
    claims = cbor.decode(payload)
    if type(claims) is not dict:
        raise CodeError(CodeFault.CLAIMS, "not a map")
    if not {ISS, EXP, IAT, CTI, MARK} <= claims.keys() <= {ISS, EXP, NBF, IAT, CTI, CNF, MARK}:
        raise CodeError(CodeFault.CLAIMS, "a claim missing or unknown")
    issued, expires = _uint32(claims, IAT), _uint32(claims, EXP)
    if expires <= issued:
        raise CodeError(CodeFault.CLAIMS, "ends before it begins")
    mark = claims[MARK]
    if type(mark) is not dict or not _INTEGER.issuperset(map(type, mark)):
        raise CodeError(CodeFault.CLAIMS, "mark: not a map with integer keys")
    if any(key < 64 for key in mark.keys() - _MARK_KEYS):
        raise CodeError(CodeFault.CLAIMS, "mark: unknown key")
    if not mark.keys() >= _REQUIRED:
        raise CodeError(CodeFault.CLAIMS, "mark: a claim is missing")
    if ENCRYPTED in mark:
        _bytes(mark, ENCRYPTED, 1, MAX_ENCRYPTED)
    status_list, status_index = _status(mark[STATUS])
    credential = Credential(
        serial=Serial(_bytes(claims, CTI, 8, 16).hex()),
        plate=_plate(mark),
        valid_until=_month(mark[VALID_UNTIL]),
        issued_at=utc(issued),
        mode=_mode(mark[MODE]),
        issuer=cast(str, _text(claims, ISS, _SIX_DIGITS)),
        not_before=utc(_uint32(claims, NBF)) if NBF in claims else None,
        expires_at=utc(expires),
        status_list=status_list,
        status_index=status_index,
        ctp_until=_day(mark[CTP_UNTIL]) if CTP_UNTIL in mark else None,
        vehicle_type=_text(mark, VEHICLE_TYPE, _VEHICLE_TYPE),
        use_nature=_text(mark, USE, _LETTER),
        body_colour=_text(mark, COLOUR, _LETTERS),
        vin_hash=_bytes(mark, VIN_HASH, 8, 8),
        tid_hash=_bytes(mark, TID_HASH, 8, 8) if TID_HASH in mark else None,
    )
    return credential, _holder_key(claims[CNF]) if CNF in claims else None


def encode_claims(credential: Credential, holder: HolderKey | None = None) -> bytes:
    """The claims as the payload that `parse_claims` reads; all fields the format requires must be set."""
    c = credential
    mark: dict[int, Any] = {
        PLATE: c.plate.text,
        KIND: int(c.plate.kind) if c.plate.kind else None,
        VEHICLE_TYPE: c.vehicle_type,
        VALID_UNTIL: c.valid_until.number,
        CTP_UNTIL: int(c.ctp_until.strftime("%Y%m%d")) if c.ctp_until else None,
        VIN_HASH: c.vin_hash,
        TID_HASH: c.tid_hash,
        MODE: MODE_NUMBERS[c.mode] if c.mode else None,
        STATUS: [c.status_list, c.status_index],
        USE: c.use_nature,
        COLOUR: c.body_colour,
    }
    claims: dict[int, Any] = {
        ISS: c.issuer,
        EXP: int(c.expires_at.timestamp()) if c.expires_at else None,
        NBF: int(c.not_before.timestamp()) if c.not_before else None,
        IAT: int(c.issued_at.timestamp()),
        CTI: bytes.fromhex(c.serial),
        CNF: _cose_key(holder) if holder else None,
        MARK: {key: value for key, value in mark.items() if value is not None},
    }
    return cbor.encode({key: value for key, value in claims.items() if value is not None})


_SIX_DIGITS = re.compile("[0-9]{6}")
_VEHICLE_TYPE = re.compile("[A-Z][0-9]{2}")
_LETTER = re.compile("[A-Z]")
_LETTERS = re.compile("[A-Z]{1,3}")


def _uint32(claims: dict[Any, Any], key: int) -> int:
    value = claims[key]
    if type(value) is not int or not 0 <= value < 2**32:
        raise CodeError(CodeFault.CLAIMS, f"claim {key}: not a 32-bit time")
    return value


def _bytes(claims: dict[Any, Any], key: int, shortest: int, longest: int) -> bytes:
    value = claims[key]
    if type(value) is not bytes or not shortest <= len(value) <= longest:
        raise CodeError(CodeFault.CLAIMS, f"claim {key}: not {shortest} to {longest} bytes")
    return value


def _text(claims: dict[Any, Any], key: int, pattern: re.Pattern[str]) -> str | None:
    value = claims.get(key)
    if key in claims and not (type(value) is str and pattern.fullmatch(value)):
        raise CodeError(CodeFault.CLAIMS, f"claim {key}: not of the form {pattern.pattern}")
    return value


def _plate(mark: dict[Any, Any]) -> Plate:
    text, number = mark[PLATE], mark[KIND]
    # The characters of plates only: nothing else can reach a screen from here.
    if type(text) is not str or not 5 <= len(text) <= 10 or not _PLATE_CHARACTERS.issuperset(text):
        raise CodeError(CodeFault.CLAIMS, "plate: not canonical")
    kind = f"{number:02d}" if type(number) is int else ""
    if kind not in PLATE_KINDS:
        raise CodeError(CodeFault.CLAIMS, "plate kind: unknown")
    return Plate(text, kind)


def _month(value: Any) -> Month:
    if type(value) is not int:
        raise CodeError(CodeFault.CLAIMS, "valid until: not YYYYMM")
    try:
        return Month.of_number(value)
    except ValueError as exc:
        raise CodeError(CodeFault.CLAIMS, "valid until: not YYYYMM") from exc


def _day(value: Any) -> date:
    if type(value) is int and 19000101 <= value <= 99991231:
        try:
            return date(value // 10000, value // 100 % 100, value % 100)
        except ValueError:
            pass  # a day that the calendar does not have
    raise CodeError(CodeFault.CLAIMS, "insurance until: not YYYYMMDD")


def _mode(value: Any) -> PresentationMode:
    if type(value) is not int or value not in _MODES:
        raise CodeError(CodeFault.CLAIMS, "mode: unknown")
    return _MODES[value]


def _status(value: Any) -> tuple[int, int]:
    if not (type(value) is list and len(value) == 2 and all(type(n) is int and 0 <= n < 2**32 for n in value)):
        raise CodeError(CodeFault.CLAIMS, "status: not [list, index]")
    return value[0], value[1]


# COSE_Key labels and values, RFC 9052 clause 7 and RFC 9053 clause 7.
_KTY, _CRV, _X, _Y = 1, -1, -2, -3


def _holder_key(value: Any) -> HolderKey:
    key = value.get(1) if type(value) is dict and set(value) == {1} else None
    if type(key) is dict and type(x := key.get(_X)) is bytes and len(x) == 32:
        numbers = key.get(_KTY), key.get(_CRV)
        kind = None if bool in map(type, numbers) else (*numbers, set(key))  # true equals 1
        if kind == (2, 1, {_KTY, _CRV, _X, _Y}):
            y = key[_Y]
            if type(y) is bool:
                return HolderKey(Algorithm.ES256, (b"\x03" if y else b"\x02") + x)
            if type(y) is bytes and len(y) == 32:
                return HolderKey(Algorithm.ES256, b"\x04" + x + y)
        if kind == (1, 6, {_KTY, _CRV, _X}):
            return HolderKey(Algorithm.EDDSA, x)
    raise CodeError(CodeFault.CLAIMS, "holder key: not an EC2 P-256 or OKP Ed25519 key")


def _cose_key(holder: HolderKey) -> dict[int, Any]:
    if holder.alg is Algorithm.EDDSA:
        return {1: {_KTY: 1, _CRV: 6, _X: holder.key}}
    if len(holder.key) == 33:
        return {1: {_KTY: 2, _CRV: 1, _X: holder.key[1:], _Y: holder.key[0] == 3}}
    return {1: {_KTY: 2, _CRV: 1, _X: holder.key[1:33], _Y: holder.key[33:]}}
