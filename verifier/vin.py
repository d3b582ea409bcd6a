"""Vehicle identification numbers (车辆识别代号): a check of what was typed, never a finding about a vehicle."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from enum import StrEnum
from typing import NewType

Vin = NewType("Vin", str)  # one that was typed without a slip that the check digit can tell

LENGTH = 17
ALPHABET = "0123456789ABCDEFGHJKLMNPRSTUVWXYZ"  # without I, O and Q (ISO 3779 clause 5.2)

_VALUES = dict(zip(ALPHABET, map(int, "012345678912345678123457923456789"), strict=True))
_WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)
_CHECK_PLACE = 8
_VIN_KIND = b"VM1-VIN"  # of the binding, docs/credential-format.md


class VinState(StrEnum):
    """What can be said of a VIN by its text alone."""

    OK = "ok"
    CHECK_MISMATCH = "check_mismatch"  # a typing hint only: imported vehicles need not carry a check digit
    MALFORMED = "malformed"


def check_digit(vin: str) -> str:
    """The check digit that belongs in the ninth place (GB 16735 annex A); the character there does not count."""
    total = sum(weight * _VALUES[c] for weight, c in zip(_WEIGHTS, vin, strict=True))
    return "0123456789X"[total % 11]


def check_vin(text: str) -> VinState:
    """Whether 17 permitted characters were typed, and whether the check digit fits."""
    if len(text) != LENGTH or not set(text) <= set(ALPHABET):
        return VinState.MALFORMED
    return VinState.OK if check_digit(text) == text[_CHECK_PLACE] else VinState.CHECK_MISMATCH


def read_vin(text: str) -> Vin:
    """A VIN as typed, in capitals; ValueError, which does not repeat it, for one that cannot be compared.

    A wrong check digit is refused too: a mistyped VIN must never turn a car into another one. The price is that a
    vehicle whose maker puts no check digit (many imported ones) is compared by eye.
    """
    vin = "".join(text.split()).upper()
    state = check_vin(vin)
    if state is VinState.MALFORMED:
        raise ValueError("VIN: not 17 letters and digits (I, O and Q do not occur)")
    if state is VinState.CHECK_MISMATCH:
        raise ValueError("VIN: the check digit does not fit: mistyped, or a vehicle whose VIN has none; compare by eye")
    return Vin(vin)


def same_vin(vin: Vin, serial: str, bound: bytes) -> bool | None:
    """Whether this VIN is the one bound to a credential: its serial (cti) and the binding's 8 bytes.

    None when one slip in typing would explain the difference. The check digit does not tell them all: not characters
    of one value (A, J, 1), and none for certain in the VIN of a maker who puts no check digit.
    """
    if binding(_VIN_KIND, serial, vin) == bound:
        return True
    return None if any(binding(_VIN_KIND, serial, slip) == bound for slip in _slips(vin)) else False


def _slips(vin: str) -> Iterator[str]:
    """What one slip makes of a VIN: another character, or two neighbours swapped."""
    for place in range(LENGTH):
        head, tail = vin[:place], vin[place + 1 :]
        yield from (head + char + tail for char in ALPHABET)
        if tail:
            yield head + tail[0] + vin[place] + tail[1:]


def binding(kind: bytes, serial: str, value: str) -> bytes:
    """The first 8 bytes of SHA-256(kind, cti, value): binds a VIN or TID to one credential without telling it."""
    return hashlib.sha256(kind + bytes.fromhex(serial) + value.encode()).digest()[:8]
