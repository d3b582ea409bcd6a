"""Keyed hashes: the only form in which plates, tags and serials are stored (docs/status-format.md).

A plate has so few possible values that a plain hash of it can be turned back in seconds. The hash is keyed with
the epoch key, which is delivered for a shift and is not kept beside the data.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from verifier.errors import EpochKeyError, PlateError
from verifier.plates import canonical
from verifier.types import Plate, Serial

PLATE, TAG, CREDENTIAL = b"plate", b"tag", b"cred"  # BLAKE2b "person": kinds of identity never mix
VIN = b"vin"  # in look-ups at the centre alone: no set has VINs
CARD = b"card"  # a plate and the number on the card of its tag: which tag belongs to which vehicle
CHECK = b"check"
KEY_LENGTH = 32  # bytes
DIGEST_LENGTH = 16  # bytes
KEY_BITS = 48
MAX_KEY = (1 << KEY_BITS) - 1
MAX_TID = 62  # hex digits; a TID of ISO/IEC 18000-63 has 24
CARD_DIGITS = 12  # the number on a tag's card: the last ones of its TID


class KeyHasher:
    """Keyed BLAKE2b-128 of identities under one epoch key; the first 48 bits are the key of the cache."""

    def __init__(self, epoch_key: bytes) -> None:
        if len(epoch_key) != KEY_LENGTH:
            raise EpochKeyError(f"epoch key: not {KEY_LENGTH} bytes")
        # A copy of a keyed state costs half of keying a new one: the key block is hashed only once.
        self._states = {
            person: hashlib.blake2b(digest_size=DIGEST_LENGTH, key=epoch_key, person=person)
            for person in (PLATE, TAG, VIN, CARD, CREDENTIAL, CHECK)
        }
        # Hash of a constant: tells a wrong epoch key from an absent vehicle.
        self.check_value = self.digest(CHECK, b"markcheck")

    def digest(self, person: bytes, canonical_bytes: bytes) -> bytes:
        """The 16-byte hash of one identity."""
        state = self._states[person].copy()
        state.update(canonical_bytes)
        return state.digest()


def key48(digest: bytes) -> int:
    """The 48-bit key of an identity: the first six bytes of its hash, big-endian."""
    return int.from_bytes(digest[:6], "big")


def plate_bytes(plate: Plate) -> bytes:
    """Kind and canonical text: the same text under another kind is another vehicle. PlateError without a kind."""
    kind = plate.kind
    if kind is None or len(kind) != 2 or not (kind.isascii() and kind.isdigit()):
        raise PlateError("plate kind: a two-digit code is needed")
    return (kind + canonical(plate.text)).encode()


def tag_bytes(tid: str) -> bytes:
    """A tag's TID in upper-case hex. PlateError for what is not hex."""
    text = tid.upper()
    if not 2 <= len(text) <= MAX_TID or len(text) % 2 or not set(text) <= set("0123456789ABCDEF"):
        raise PlateError("tag: TID is not hex")
    return text.encode()


def card_bytes(plate: Plate, card: str) -> bytes:
    """A plate with a card's number (hex digits, in groups or not) or the whole TID. PlateError as for both."""
    return plate_bytes(plate) + b"/" + tag_bytes("".join(card.split()))[-CARD_DIGITS:]


def serial_bytes(serial: Serial) -> bytes:
    """A credential's serial as bytes. PlateError for what is not hex."""
    try:
        return bytes.fromhex(serial)
    except ValueError as exc:
        raise PlateError("serial: not hex") from exc


def load_epoch_key(path: Path) -> bytes:
    """Read an epoch key: a file with 64 hex digits. EpochKeyError when it is absent or anything else.

    The file's mode is not looked at: keeping it private is the matter of whoever delivers it.
    """
    try:
        text = path.read_text(encoding="ascii").strip()
        key = bytes.fromhex(text)
    except OSError as exc:
        raise EpochKeyError("epoch key: file cannot be read") from exc
    except ValueError as exc:
        raise EpochKeyError("epoch key: not hex") from exc
    if len(key) != KEY_LENGTH:
        raise EpochKeyError(f"epoch key: not {KEY_LENGTH} bytes")
    return key
