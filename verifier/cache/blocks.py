"""The blocks of base.db: sorted keys with their values, and groups of full hashes.

seg   k = last key of the block
      d = crc32 | low key (6 bytes) | n x u32 (key - k + 2^32 - 1), ascending | n x u24 value
exact, replated
      k = 48-bit key
      d = crc32 | m x (the other 10 bytes of the hash | u64 value)

All numbers are little-endian. The checksum covers k and everything behind it. Blocks leave no gap: each names the
lowest key it answers for (one above the k before it) and the last one ends at 2^48 - 1, so that "not listed" is
proved by a checksummed block and not by the shape of a tree in which a bit may have flipped.
"""

from __future__ import annotations

import struct
import sys
from array import array
from binascii import crc32
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from verifier.cache.keys import MAX_KEY
from verifier.errors import CacheCorruptError

HEADER = 10  # bytes: crc32 and low key
ROW = 7  # bytes
# One block fills one page of 4096 bytes: 35 = smallest reserve SQLite keeps beside local payload, 17 = page header,
# cell pointer, record header and the two varints of a cell.
PER = (4096 - 35 - 17 - HEADER) // ROW
MAX_SPAN = (1 << 32) - 1  # between the first and the last key of a block
GROUP_ROW = struct.Struct("<10sQ")

_HEAD = struct.Struct("<IIH")  # checksum, low key
_SWAP = sys.byteorder == "big"


def split_blocks(rows: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
    """Rows (48-bit key, 24-bit value) in strictly ascending order to (k, d), without a gap up to 2^48 - 1."""
    low = 0
    keys: list[int] = []
    values: list[int] = []
    for key, value in rows:
        if keys and (len(keys) == PER or key - keys[0] > MAX_SPAN):
            yield keys[-1], encode_block(low, keys, values)
            low, keys, values = keys[-1] + 1, [], []
        keys.append(key)
        values.append(value)
    if keys:
        yield keys[-1], encode_block(low, keys, values)
        low = keys[-1] + 1
    if low <= MAX_KEY:
        yield MAX_KEY, encode_block(low, [], [], last=MAX_KEY)


def encode_block(low: int, keys: Sequence[int], values: Sequence[int], last: int | None = None) -> bytes:
    """The d of a block; `last` (its k) is given only for a block without rows. ValueError for rows out of order."""
    k = keys[-1] if last is None else last
    if any(b <= a for a, b in pairwise(keys)):
        raise ValueError("keys are not in strictly ascending order")
    if keys and not (0 <= low <= keys[0] and k - keys[0] <= MAX_SPAN and k <= MAX_KEY):
        raise ValueError("keys do not fit into one block")
    base = k - MAX_SPAN
    offsets = array("I", [key - base for key in keys])
    if _SWAP:
        offsets.byteswap()
    # Three bytes of every four: u32 little-endian with its highest byte left out.
    wide = b"".join([value.to_bytes(3, "little") for value in values])
    body = low.to_bytes(6, "little") + offsets.tobytes() + wide
    return crc32(body, crc32(k.to_bytes(6, "little"))).to_bytes(4, "little") + body


def find_in_block(k: int, d: bytes, key: int) -> int | None:
    """The value of a key in the block (k, d) that should hold it, None when it is not listed.

    CacheCorruptError when the checksum fails or the block does not answer for this key.
    """
    low, count = _check_block(k, d)
    if not low <= key <= k:
        raise CacheCorruptError("block: does not answer for the key it was found with")
    offset = key - k + MAX_SPAN
    if offset < 0:
        return None  # below the first key a block can hold, above the block before it
    offsets = _offsets(d, count)
    i = bisect_left(offsets, offset)
    if i == count or offsets[i] != offset:
        return None
    start = HEADER + 4 * count + 3 * i
    return int.from_bytes(d[start : start + 3], "little")


def read_block(k: int, d: bytes) -> tuple[int, list[int], list[int]]:
    """Low key, keys and values of a block; CacheCorruptError when anything in it does not fit."""
    low, count = _check_block(k, d)
    base = k - MAX_SPAN
    keys = [base + offset for offset in _offsets(d, count)]
    values = [int.from_bytes(d[i : i + 3], "little") for i in range(HEADER + 4 * count, len(d), 3)]
    if keys and (keys[-1] != k or keys[0] < low or any(b <= a for a, b in pairwise(keys))):
        raise CacheCorruptError("block: keys out of order")
    return low, keys, values


def encode_group(k: int, rows: Iterable[tuple[bytes, int]]) -> bytes:
    """The d of a group: (16-byte hash, value) of the identities whose 48-bit key is k."""
    body = b"".join(GROUP_ROW.pack(digest[6:], value) for digest, value in sorted(rows))
    return crc32(body, crc32(k.to_bytes(6, "little"))).to_bytes(4, "little") + body


def find_in_group(k: int, d: bytes, digest: bytes) -> int | None:
    """The value of a full hash in the group (k, d), None when it is not there; CacheCorruptError as above."""
    if len(d) < 4 or (len(d) - 4) % GROUP_ROW.size:
        raise CacheCorruptError("group: length")
    body = d[4:]
    if crc32(body, crc32(k.to_bytes(6, "little"))) != int.from_bytes(d[:4], "little"):
        raise CacheCorruptError("group: checksum")
    rest = digest[6:]
    for other, value in GROUP_ROW.iter_unpack(body):
        if other == rest:
            return int(value)
    return None


def _check_block(k: int, d: bytes) -> tuple[int, int]:
    """Low key and number of rows of a block whose checksum is right."""
    count, remainder = divmod(len(d) - HEADER, ROW)
    if remainder or count < 0:
        raise CacheCorruptError("block: length")
    if not 0 <= k <= MAX_KEY:
        raise CacheCorruptError("block: key out of range")
    checksum, low, low_high = _HEAD.unpack_from(d)
    if crc32(d[4:], crc32(k.to_bytes(6, "little"))) != checksum:
        raise CacheCorruptError("block: checksum")
    return low | low_high << 32, count


def _offsets(d: bytes, count: int) -> Sequence[int]:
    packed = d[HEADER : HEADER + 4 * count]
    # A cast needs no loop, but has the machine's byte order; the Pi and every x86 are little-endian.
    if not _SWAP:
        return memoryview(packed).cast("I")
    swapped = array("I", packed)
    swapped.byteswap()
    return swapped
