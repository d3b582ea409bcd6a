"""Vehicle identification numbers (车辆识别代号): a check of what was typed, never a finding about a vehicle."""

from __future__ import annotations

import hashlib
from enum import StrEnum

LENGTH = 17
ALPHABET = "0123456789ABCDEFGHJKLMNPRSTUVWXYZ"  # without I, O and Q (ISO 3779 clause 5.2)

_VALUES = dict(zip("ABCDEFGHJKLMNPRSTUVWXYZ", map(int, "12345678123457923456789"), strict=True))
_WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)
_CHECK_PLACE = 8


class VinState(StrEnum):
    """What can be said of a VIN by its text alone."""

    OK = "ok"
    CHECK_MISMATCH = "check_mismatch"  # a typing hint only: imported vehicles need not carry a check digit
    MALFORMED = "malformed"


def check_digit(vin: str) -> str:
    """The check digit that belongs in the ninth place (GB 16735 annex A); the character there does not count."""
    total = sum(
        weight * _VALUES[c] if c in _VALUES else weight * int(c) for weight, c in zip(_WEIGHTS, vin, strict=True)
    )
    return "0123456789X"[total % 11]


def check_vin(text: str) -> VinState:
    """Whether 17 permitted characters were typed, and whether the check digit fits."""
    if len(text) != LENGTH or not set(text) <= set(ALPHABET):
        return VinState.MALFORMED
    return VinState.OK if check_digit(text) == text[_CHECK_PLACE] else VinState.CHECK_MISMATCH


def binding(kind: bytes, serial: str, value: str) -> bytes:
    """The first 8 bytes of SHA-256(kind, cti, value): binds a VIN or TID to one credential without telling it."""
    return hashlib.sha256(kind + bytes.fromhex(serial) + value.encode()).digest()[:8]
