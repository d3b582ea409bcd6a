"""Token Status List (draft-ietf-oauth-status-list-20): a packed array of 1, 2, 4 or 8 bits per credential.

Clause 4.1: the first status stands in the least significant bits of the first byte. The array travels as zlib.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from enum import IntEnum

from verifier.errors import VerifierError

WIDTHS = (1, 2, 4, 8)  # bits per status


class ListedStatus(IntEnum):
    """Values of our two-bit lists; 0 to 2 are those of the draft's registry, 3 is ours (application specific)."""

    ACTIVE = 0
    REVOKED = 1
    SUSPENDED = 2
    SUPERSEDED = 3


class StatusListError(VerifierError):
    """Bytes that are not the status list they should be."""


def unpack(data: bytes, bits: int, index: int) -> int | None:
    """The status at an index; None when it lies beyond the list (clause 8.3: then nothing is said)."""
    if bits not in WIDTHS:
        raise StatusListError("status list: not 1, 2, 4 or 8 bits")
    position, place = divmod(index, 8 // bits)
    if index < 0 or position >= len(data):
        return None
    return data[position] >> place * bits & (1 << bits) - 1


def pack(values: Iterable[int], bits: int) -> bytes:
    """The packed array of these statuses, filled up with zeros to whole bytes."""
    if bits not in WIDTHS:
        raise StatusListError("status list: not 1, 2, 4 or 8 bits")
    per_byte, out, place = 8 // bits, bytearray(), 0
    for value in values:
        if not 0 <= value < 1 << bits:
            raise StatusListError(f"status list: a value that {bits} bits cannot hold")
        if place == 0:
            out.append(0)
        out[-1] |= value << place * bits
        place = (place + 1) % per_byte
    return bytes(out)


def deflate(data: bytes) -> bytes:
    """The array as it travels."""
    return zlib.compress(data, 9)


def inflate(data: bytes, max_length: int) -> bytes:
    """The array of one complete zlib stream; StatusListError when it has more than `max_length` bytes.

    Never inflates further than that, whatever the stream promises.
    """
    stream = zlib.decompressobj()
    try:
        out = stream.decompress(data, max_length + 1)
    except zlib.error as exc:
        raise StatusListError("status list: not zlib") from exc
    if len(out) > max_length:
        raise StatusListError(f"status list: inflates to more than {max_length} bytes")
    if not stream.eof or stream.unused_data:
        raise StatusListError("status list: cut off, or bytes behind its end")
    return out
