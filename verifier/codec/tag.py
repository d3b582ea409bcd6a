"""Tag certificates: what an in-car tag's memory says, and the message that its signature covers. Nothing here signs.

Two forms, by the size of the user bank. Neither stores what it is bound to: the reader gives TID and EPC, and the
signature covers them, so a bank copied into another tag is worthless.

| form | user bank | fields |
|---|---|---|
| TC1 | 102 or 106 of 128 bytes: body of 38 or 42, signature of 64 | in the body |
| TC0 | 64 bytes: the signature | in the 96-bit EPC; no VIN, no day of issue, no credential, no looks |

Body of TC1, bytes: version 1 · key hint 2 · plate kind 1 · plate 6 · VIN 11 · day of issue 2 · valid until 2 · status
list 1 and index 4 · credential 8; version 2, which says something of the vehicle's looks, goes on: vehicle type 2 ·
body colours 2. EPC of TC0, bits: version 4 · key hint 12 · plate 48 · valid until 12 · plate kind 4
· status index 16. The hint is the beginning of the kid. The signature is raw, r || s or R || S.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, timedelta
from typing import NamedTuple

from verifier.codec.cose import SIGNATURE_LENGTH
from verifier.errors import CodeError
from verifier.plates import PLATE_KINDS
from verifier.types import CodeFault, Month, Plate
from verifier.vin import ALPHABET as VIN_ALPHABET
from verifier.vin import LENGTH as VIN_LENGTH

_PLAIN, _WITH_LOOKS = 1, 2  # versions of TC1; a body has the lower one where it says nothing of the looks
_BODY_BYTES = {_PLAIN: 38, _WITH_LOOKS: 42}
SHORTEST_TC1_BYTES = _BODY_BYTES[_PLAIN] + SIGNATURE_LENGTH
LONGEST_TC1_BYTES = _BODY_BYTES[_WITH_LOOKS] + SIGNATURE_LENGTH
TC0_EPC_BYTES = 12
MAX_TID_BYTES = 64
MAX_EPC_BYTES = 62  # 31 words, the most that a PC word can announce
BEGINNING = date(2020, 1, 1)  # day 0 and month 0

_TC1_DOMAIN, _TC0_DOMAIN = b"VEID-TC1\0", b"VEID-TC0\0"
_TC0_VERSION = 0
_LAST_VERSION = 15  # what a later form may use; anything above is some other memory
# 31 provinces in the order of GB/T 2260; their places are part of the format, and of its 5 bits one place is left.
PLACES_ON_TAGS = "京津冀晋蒙辽吉黑沪苏浙皖闽赣鲁豫鄂湘粤桂琼渝川贵云藏陕甘青宁新"
_CHARACTERS = " 0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # base 37; a blank fills up at the end
_PLATE_CHARACTERS = 7  # after the province
_SHORTEST_PLATE = 5  # characters, province included
_PROVINCE_BITS = 43  # below the province
# Plate kinds in four bits; 0 is none.
_TC0_KINDS = ("01", "02", "03", "04", "05", "06", "07", "08", "13", "15", "16", "23", "26", "51", "52")
_KIND_BYTES = frozenset(map(int, PLATE_KINDS))
_VEHICLE_TYPE = re.compile("[A-Z][0-9]{2}")  # GA/T 16; as a number they are counted from 1
_BODY_COLOUR = re.compile("[A-Z]{1,3}")  # GA 24.8
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_COLOUR_CHARACTERS, _COLOURS = " " + _LETTERS, 3  # base 27; a blank fills up at the end


@dataclass(frozen=True, slots=True, kw_only=True)
class TagCertificate:
    """What the certificate says, not yet trusted. TC0 has None for what it does not hold."""

    plate: Plate
    valid_until: Month  # of the inspection, when the tag was written
    status_index: int
    status_list: int | None = None
    vin: str | None = None
    issued_on: date | None = None  # in China
    credential_id: bytes | None = None  # the first 8 bytes of the credential's cti
    vehicle_type: str | None = None  # a letter and two digits
    body_colour: str | None = None  # one to three letters


class SignedTag(NamedTuple):
    """A decoded certificate with the exact bytes that its signature covers. `hint` begins the key's kid."""

    certificate: TagCertificate
    hint: str  # hex: four digits of TC1, three of TC0
    message: bytes
    signature: bytes


def decode(tid: bytes, epc: bytes, user: bytes) -> SignedTag:
    """What a reader read of one tag to its certificate; CodeError NOT_A_MARK, VERSION or CLAIMS.

    A bank of 102 bytes and more is read as TC1, one of 64 and more as TC0; what follows a signature is not looked at.
    """
    if not (0 < len(tid) <= MAX_TID_BYTES and 0 < len(epc) <= MAX_EPC_BYTES):
        raise CodeError(CodeFault.NOT_A_MARK, "tag: no TID or no EPC")
    if len(user) >= SHORTEST_TC1_BYTES:
        return _decode_tc1(tid, epc, user)
    if len(user) >= SIGNATURE_LENGTH and len(epc) == TC0_EPC_BYTES:
        return _decode_tc0(tid, epc, user[:SIGNATURE_LENGTH])
    raise CodeError(CodeFault.NOT_A_MARK, "tag: the user bank is too short")


def _decode_tc1(tid: bytes, epc: bytes, user: bytes) -> SignedTag:
    version = user[0]
    if version not in _BODY_BYTES:
        later = _WITH_LOOKS < version <= _LAST_VERSION
        raise CodeError(CodeFault.VERSION if later else CodeFault.NOT_A_MARK)
    size = _BODY_BYTES[version]
    body, signature = user[:size], user[size : size + SIGNATURE_LENGTH]
    if len(signature) < SIGNATURE_LENGTH or not any(signature):
        raise CodeError(CodeFault.NOT_A_MARK, "tag: no signature in the user bank")
    vehicle_type, body_colour = (None, None) if version == _PLAIN else _looks(body[38:])
    certificate = TagCertificate(
        plate=_plate(body[4:10], _kind(body[3])),
        vin=_vin(body[10:21]),
        issued_on=_day(int.from_bytes(body[21:23])),
        valid_until=_month(int.from_bytes(body[23:25])),
        status_list=body[25],
        status_index=int.from_bytes(body[26:30]),
        credential_id=body[30:38],
        vehicle_type=vehicle_type,
        body_colour=body_colour,
    )
    return SignedTag(certificate, body[1:3].hex(), tc1_message(tid, epc, body), signature)


def _decode_tc0(tid: bytes, epc: bytes, signature: bytes) -> SignedTag:
    if epc[0] >> 4 != _TC0_VERSION or not any(signature):
        raise CodeError(CodeFault.NOT_A_MARK, "tag: neither a long user bank nor an EPC with fields")
    tail = int.from_bytes(epc[8:10])  # 12 bits of month, 4 of kind
    number = tail & 0x0F
    if not 1 <= number <= len(_TC0_KINDS):
        raise CodeError(CodeFault.CLAIMS, "tag: plate kind")
    certificate = TagCertificate(
        plate=_plate(epc[2:8], _TC0_KINDS[number - 1]),
        valid_until=_month(tail >> 4),
        status_index=int.from_bytes(epc[10:12]),
    )
    return SignedTag(certificate, epc[:2].hex()[1:], tc0_message(tid, epc), signature)


# ------------------------------------------------------------------------------------------------ encoding


def tc1_message(tid: bytes, epc: bytes, body: bytes) -> bytes:
    """What the signature of a TC1 covers."""
    return _TC1_DOMAIN + _sized(tid) + _sized(epc) + body


def tc0_message(tid: bytes, epc: bytes) -> bytes:
    """What the signature of a TC0 covers; its fields are in the EPC."""
    return _TC0_DOMAIN + _sized(tid) + _sized(epc)


def tc1_body(certificate: TagCertificate, kid: bytes) -> bytes:
    """What stands before the signature: 38 bytes, and 42 where it says something of the vehicle's looks.

    ValueError, which repeats no value, for what does not fit.
    """
    c = certificate
    if c.vin is None or c.issued_on is None or c.status_list is None or len(c.credential_id or b"") != 8:
        raise ValueError("tag: a field of TC1 is missing")
    looks = _looks_bytes(c.vehicle_type, c.body_colour)
    return b"".join(
        (
            bytes((_WITH_LOOKS if looks else _PLAIN,)), kid[:2], _number(int(c.plate.kind or 0), 1),
            _plate_bytes(c.plate.text), _vin_bytes(c.vin), _number((c.issued_on - BEGINNING).days, 2),
            _number(_months(c.valid_until), 2), _number(c.status_list, 1), _number(c.status_index, 4),
            c.credential_id or b"", looks,
        )
    )  # fmt: skip


def tc0_epc(certificate: TagCertificate, kid: bytes) -> bytes:
    """The 12-byte EPC with the fields; ValueError, which repeats no value, for what does not fit."""
    c = certificate
    months = _months(c.valid_until)
    if c.plate.kind not in _TC0_KINDS or not 0 <= months < 1 << 12:
        raise ValueError("tag: plate kind or month does not fit TC0")
    head = _number(_TC0_VERSION << 12 | int.from_bytes(kid[:2]) >> 4, 2)
    tail = _number(months << 4 | _TC0_KINDS.index(c.plate.kind) + 1, 2)
    return head + _plate_bytes(c.plate.text) + tail + _number(c.status_index, 2)


def _sized(data: bytes) -> bytes:
    return bytes((len(data),)) + data


def _number(value: int, size: int) -> bytes:
    if not 0 <= value < 1 << 8 * size:
        raise ValueError("tag: a number does not fit")
    return value.to_bytes(size)


def _plate_bytes(text: str) -> bytes:
    province, rest = PLACES_ON_TAGS.find(text[:1]), text[1:].ljust(_PLATE_CHARACTERS)
    known = set(text[1:]) <= set(_CHARACTERS[1:])
    if province < 0 or not text or not known or not _SHORTEST_PLATE <= len(text) <= 1 + _PLATE_CHARACTERS:
        raise ValueError("tag: the plate does not fit")
    return (province << _PROVINCE_BITS | _from_digits(rest, _CHARACTERS)).to_bytes(6)


def _vin_bytes(vin: str) -> bytes:
    if len(vin) != VIN_LENGTH or not set(vin) <= set(VIN_ALPHABET):
        raise ValueError("tag: the VIN does not fit")
    return _from_digits(vin, VIN_ALPHABET).to_bytes(11)


def _looks_bytes(vehicle_type: str | None, body_colour: str | None) -> bytes:
    """Nothing where neither is told."""
    if vehicle_type is None and body_colour is None:
        return b""
    return _type_bytes(vehicle_type) + _colour_bytes(body_colour)


def _type_bytes(vehicle_type: str | None) -> bytes:
    if vehicle_type is None:
        return bytes(2)
    if not _VEHICLE_TYPE.fullmatch(vehicle_type):
        raise ValueError("tag: the vehicle type does not fit")
    return _number(1 + 100 * _LETTERS.index(vehicle_type[0]) + int(vehicle_type[1:]), 2)


def _colour_bytes(body_colour: str | None) -> bytes:
    if body_colour is None:
        return bytes(2)
    if not _BODY_COLOUR.fullmatch(body_colour):
        raise ValueError("tag: the body colour does not fit")
    return _number(_from_digits(body_colour.ljust(_COLOURS), _COLOUR_CHARACTERS), 2)


def _months(month: Month) -> int:
    return (month.year - BEGINNING.year) * 12 + month.month - 1


# ------------------------------------------------------------------------------------------------ decoding


def _kind(number: int) -> str:
    if number not in _KIND_BYTES:
        raise CodeError(CodeFault.CLAIMS, "tag: plate kind")
    return f"{number:02d}"


def _plate(data: bytes, kind: str) -> Plate:
    number = int.from_bytes(data)
    province, rest = number >> _PROVINCE_BITS, number & (1 << _PROVINCE_BITS) - 1
    digits = _digits(rest, _CHARACTERS, _PLATE_CHARACTERS)
    text = digits.rstrip(" ") if digits else " "
    # Blanks stand at the end only: one text, one encoding.
    if province >= len(PLACES_ON_TAGS) or " " in text or len(text) < _SHORTEST_PLATE - 1:
        raise CodeError(CodeFault.CLAIMS, "tag: plate")
    return Plate(PLACES_ON_TAGS[province] + text, kind)


def _vin(data: bytes) -> str:
    vin = _digits(int.from_bytes(data), VIN_ALPHABET, VIN_LENGTH)
    if vin is None:
        raise CodeError(CodeFault.CLAIMS, "tag: VIN")
    return vin


def _looks(data: bytes) -> tuple[str | None, str | None]:
    """Vehicle type and body colours; a body that tells neither has the version without them."""
    looks = _vehicle_type(int.from_bytes(data[:2])), _body_colour(int.from_bytes(data[2:]))
    if looks == (None, None):
        raise CodeError(CodeFault.CLAIMS, "tag: neither vehicle type nor body colour")
    return looks


def _vehicle_type(number: int) -> str | None:
    if number == 0:
        return None
    letter, digits = divmod(number - 1, 100)
    if letter >= len(_LETTERS):
        raise CodeError(CodeFault.CLAIMS, "tag: vehicle type")
    return f"{_LETTERS[letter]}{digits:02d}"


def _body_colour(number: int) -> str | None:
    if number == 0:
        return None
    digits = _digits(number, _COLOUR_CHARACTERS, _COLOURS)
    text = digits.rstrip(" ") if digits else " "
    if " " in text:  # blanks stand at the end only, as in a plate
        raise CodeError(CodeFault.CLAIMS, "tag: body colour")
    return text


def _day(number: int) -> date:
    return BEGINNING + timedelta(days=number)


def _month(number: int) -> Month:
    return Month(BEGINNING.year, BEGINNING.month).plus(number)


def _from_digits(text: str, alphabet: str) -> int:
    value = 0
    for char in text:
        value = value * len(alphabet) + alphabet.index(char)
    return value


def _digits(value: int, alphabet: str, length: int) -> str | None:
    """The number in the alphabet's base, in so many characters; None when it is too large."""
    found = []
    for _ in range(length):
        value, digit = divmod(value, len(alphabet))
        found.append(alphabet[digit])
    return "".join(reversed(found)) if value == 0 else None
