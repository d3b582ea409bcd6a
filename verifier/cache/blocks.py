"""The blocks of base.db and changes.db: sorted keys with their values, and groups of full hashes.

seg   k = last key of the block
      d = crc32 | low key (6 bytes) | n x u32 (key - k + 2^32 - 1), ascending | n x u24 value
exact, replated
      k = 48-bit key
      d = crc32 | m x (the other 10 bytes of the hash | u64 value)

All numbers are little-endian. The checksum covers k and everything behind it, which is called the body. Blocks leave
no gap: each names the lowest key it answers for (one above the k before it) and the last one ends at 2^48 - 1, so
that "not listed" is proved by a checksummed block and not by the shape of a tree in which a bit may have flipped.
In a sealed file the body is encrypted and d is ciphertext and tag (`verifier.cache.sealing`).
"""

from __future__ import annotations

import struct
import sys
from array import array
from binascii import crc32
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from operator import lt

from verifier.cache.keys import MAX_KEY
from verifier.errors import CacheCorruptError

CHECKSUM = 4  # bytes
LOW = 6  # bytes of the low key
HEADER = CHECKSUM + LOW
ROW = 7  # bytes
# Four full blocks fill a page of 4096 bytes: 8 = page header, 15 = cell pointer, payload length, key and record header
# of a cell. Larger blocks save 1 % of the file, and each look-up pays for the checksum of a whole block. A sealed
# block has a tag of 16 bytes in place of the checksum.
PER = ((4096 - 8) // 4 - 15 - HEADER) // ROW
PER_SEALED = ((4096 - 8) // 4 - 15 - 16 - LOW) // ROW
MAX_SPAN = (1 << 32) - 1  # between the first and the last key of a block
GROUP_ROW = struct.Struct("<10sQ")

_CHECKSUM, _LOW, _VALUE = struct.Struct("<I"), struct.Struct("<IH"), struct.Struct("<HB")
_HEADER = struct.Struct("<IIH")  # checksum, low key

Groups = dict[int, dict[bytes, int]]
"""Values by full hash, by key: the rows of `exact` or `replated`."""

_SWAP = sys.byteorder == "big"
_CHUNK = 1 << 14  # rows taken from an iterable at a time


class Splitter:
    """Cuts ascending rows into blocks (k, d) that leave no gap. ValueError for rows out of order."""

    def __init__(self, per: int = PER) -> None:
        self._per = per
        self._low = 0  # of the next block
        self._keys: array[int] = array("Q")
        self._values: array[int] = array("I")

    def add(self, keys: Iterable[int], values: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """The blocks that these rows fill; the last rows, up to two blocks of them, wait for more."""
        start = max(0, len(self._keys) - 1)
        self._keys += array("Q", keys)
        self._values += array("I", values)
        if not ascending(self._keys[start:]):
            raise ValueError("keys are not in strictly ascending order")
        return self._cut(2 * self._per, self._per)

    def copy(self, k: int, d: bytes) -> Iterator[tuple[int, bytes]]:
        """What waits, then a block as it stands: its low key must be one above the last row before it."""
        # Of one row too many come two halves with room, else each small night would leave a block of one row.
        if waiting := len(self._keys):
            yield from self._cut(1, -(-waiting // 2) if self._per < waiting < 2 * self._per else self._per)
        self._low = k + 1
        yield k, d

    def end(self) -> Iterator[tuple[int, bytes]]:
        """What waits, and the end of the key space."""
        yield from self._cut(1, self._per)
        if self._low <= MAX_KEY:
            yield MAX_KEY, encode_block(self._low, [], [], last=MAX_KEY)

    def _cut(self, least: int, most: int) -> Iterator[tuple[int, bytes]]:
        """Blocks of at most `most` rows, as long as `least` wait."""
        keys, values, start = self._keys, _three(self._values), 0
        while len(keys) - start >= least:
            stop = min(start + most, len(keys))
            if keys[stop - 1] - keys[start] > MAX_SPAN:
                stop = bisect_right(keys, keys[start] + MAX_SPAN, start, stop)
            k = keys[stop - 1]
            yield k, protect(k, _body(self._low, k, keys[start:stop], values[3 * start : 3 * stop]))
            self._low, start = k + 1, stop
        del self._keys[:start], self._values[:start]


def split_blocks(rows: Iterable[tuple[int, int]], per: int = PER) -> Iterator[tuple[int, bytes]]:
    """Rows (48-bit key, 24-bit value) in strictly ascending order to (k, d), without a gap up to 2^48 - 1."""
    splitter, rest = Splitter(per), iter(rows)
    while flat := array("Q", chain.from_iterable(islice(rest, _CHUNK))):
        yield from splitter.add(flat[::2], flat[1::2])
    yield from splitter.end()


def encode_block(low: int, keys: Sequence[int], values: Sequence[int], last: int | None = None) -> bytes:
    """The d of a block; `last` (its k) is given only for a block without rows. ValueError for rows out of order."""
    k = keys[-1] if last is None else last
    if not ascending(keys):
        raise ValueError("keys are not in strictly ascending order")
    return protect(k, _body(low, k, keys, _three(array("I", values))))


def protect(k: int, body: bytes) -> bytes:
    """The d of a body: its checksum, which covers k too, and the body."""
    return crc32(body, crc32(k.to_bytes(6, "little"))).to_bytes(CHECKSUM, "little") + body


def checked(k: int, d: bytes) -> bytes:
    """The body of a d; CacheCorruptError when the checksum fails."""
    body = d[CHECKSUM:]  # a copy of a kilobyte costs less than a view
    try:
        # Here and below: `unpack_from` takes half the time of `int.from_bytes` and a slice, at each look-up.
        sound = crc32(body, crc32(k.to_bytes(6, "little"))) == _CHECKSUM.unpack_from(d)[0]
    except (OverflowError, struct.error) as exc:
        raise CacheCorruptError("block: key out of range, or no checksum") from exc
    if not sound:
        raise CacheCorruptError("block: checksum")
    return body


def low_key(body: bytes) -> int:
    """The lowest key that a block answers for; CacheCorruptError for a body that is too short to say."""
    try:
        parts: tuple[int, int] = _LOW.unpack_from(body)
    except struct.error as exc:
        raise CacheCorruptError("block: length") from exc
    return parts[0] | parts[1] << 32


def find_in_block(k: int, body: bytes, key: int) -> int | None:
    """The value of a key in the block that should hold it, None when it is not listed.

    CacheCorruptError when the block does not answer for this key.
    """
    count, remainder = divmod(len(body) - LOW, ROW)
    if remainder or count < 0:
        raise CacheCorruptError("block: length")
    low, high = _LOW.unpack_from(body)
    if not low | high << 32 <= key <= k:
        raise CacheCorruptError("block: does not answer for the key it was found with")
    offset = key - k + MAX_SPAN
    if offset < 0:
        return None  # below the first key a block can hold, above the block before it
    # A search for bytes is one call where bisecting is eight; what it finds between two offsets is none.
    wanted, end = offset.to_bytes(4, "little"), LOW + 4 * count
    place = body.find(wanted, LOW, end)
    while place >= 0 and (place - LOW) % 4:
        place = body.find(wanted, place + 1, end)
    if place < 0:
        return None
    value: tuple[int, int] = _VALUE.unpack_from(body, end + (place - LOW) // 4 * 3)
    return value[0] | value[1] << 16


def read_block(k: int, body: bytes) -> tuple[int, array[int], array[int]]:
    """Low key, keys ("Q") and values ("I") of a block; CacheCorruptError when anything in it does not fit."""
    low, keys, values = read_columns(k, body)
    if low > k or (keys and not (keys[-1] == k and keys[0] >= low and ascending(keys))):
        raise CacheCorruptError("block: keys out of order")
    return low, array("Q", keys), unpack_values(values)


def count_rows(blocks: Iterable[tuple[int, bytes]]) -> int:
    """The number of rows of all blocks (k, d) of an unsealed file; their checksums, lengths and order are checked.

    CacheCorruptError when one fails, or when they leave a gap. A base has hundreds of thousands of blocks, and each
    install reads them all: so this is one loop.
    """
    low, length, number, unpack = 0, 0, 0, _HEADER.unpack_from
    try:
        for k, d in blocks:
            checksum, low_word, high_word = unpack(d)
            sound = crc32(d[CHECKSUM:], crc32(k.to_bytes(6, "little"))) == checksum
            if not sound or low_word | high_word << 32 != low or k < low or (len(d) - HEADER) % ROW:
                _rows(checked(k, d))  # says what else is wrong
                raise CacheCorruptError("base: a gap between blocks")
            low, length, number = k + 1, length + len(d), number + 1
    except (AttributeError, OverflowError, TypeError, struct.error) as exc:
        raise CacheCorruptError("block: of another form") from exc
    if low != MAX_KEY + 1:
        raise CacheCorruptError("base: blocks are missing")
    return (length - HEADER * number) // ROW


def read_columns(k: int, body: bytes) -> tuple[int, list[int], bytes]:
    """Low key, keys and packed values of a block, of which only the length is checked (CacheCorruptError)."""
    keys = list(map((k - MAX_SPAN).__add__, _offsets(body)))
    return low_key(body), keys, body[LOW + 4 * len(keys) :]


def with_rows(k: int, body: bytes, keys: Sequence[int], values: Sequence[int], per: int) -> bytes | None:
    """The body with these rows of its range in it, or in place of those with the same keys.

    None when it cannot hold them: an empty block, more than `per` rows, a key too far below the last one.
    """
    low, old = low_key(body), _offsets(body)
    packed = bytearray(body[LOW + 4 * len(old) :])
    if not old or len(old) + len(keys) > per or keys[0] < k - MAX_SPAN:
        return None
    if old[-1] != MAX_SPAN or not low <= keys[0] <= keys[-1] <= k:
        raise CacheCorruptError("block: keys out of order")
    place = 0
    for key, value in zip(keys, values, strict=True):
        offset = key - k + MAX_SPAN
        place = bisect_left(old, offset, place)
        known = old[place] == offset
        if not known:
            old.insert(place, offset)
        packed[3 * place : 3 * (place + known)] = value.to_bytes(3, "little")
    if _SWAP:
        old.byteswap()
    return body[:LOW] + old.tobytes() + packed


def unpack_values(packed: bytes) -> array[int]:
    """The u24 values as an array."""
    wide = bytearray(len(packed) // 3 * 4)
    for i in range(3):
        wide[i::4] = packed[i::3]
    values = array("I", bytes(wide))
    if _SWAP:
        values.byteswap()
    return values


def ascending(keys: Sequence[int]) -> bool:
    """Whether each key is above the one before it."""
    return all(map(lt, keys, islice(keys, 1, None)))


def encode_group(k: int, rows: Iterable[tuple[bytes, int]]) -> bytes:
    """The d of a group: (16-byte hash, value) of the identities whose 48-bit key is k."""
    return protect(k, b"".join(GROUP_ROW.pack(digest[6:], value) for digest, value in sorted(rows)))


def encode_groups(groups: Groups) -> Iterator[tuple[int, bytes]]:
    """All groups in ascending order of k; they may grow until the first one is asked for."""
    for key in sorted(groups):
        yield key, encode_group(key, groups[key].items())


def read_group(k: int, body: bytes) -> dict[bytes, int]:
    """The values of a group by their 16-byte hashes; CacheCorruptError when its length is wrong."""
    if not body or len(body) % GROUP_ROW.size:
        raise CacheCorruptError("group: length")
    first = k.to_bytes(6, "big")
    return {first + rest: value for rest, value in GROUP_ROW.iter_unpack(body)}


def _body(low: int, k: int, keys: Sequence[int], values: bytes) -> bytes:
    if keys and not (0 <= low <= keys[0] and k - keys[0] <= MAX_SPAN and k <= MAX_KEY):
        raise ValueError("keys do not fit into one block")
    offsets = array("I", list(map((MAX_SPAN - k).__add__, keys)))
    if _SWAP:
        offsets.byteswap()
    return low.to_bytes(LOW, "little") + offsets.tobytes() + values


def _three(values: array[int]) -> bytes:
    """Three bytes of every four: u32 little-endian with its highest byte left out."""
    if _SWAP:
        values = values[:]
        values.byteswap()
    wide = values.tobytes()
    if any(wide[3::4]):
        raise ValueError("a value of more than 24 bits")
    out = bytearray(3 * len(values))
    for i in range(3):
        out[i::3] = wide[i::4]
    return bytes(out)


def _rows(body: bytes) -> int:
    count, remainder = divmod(len(body) - LOW, ROW)
    if remainder or count < 0:
        raise CacheCorruptError("block: length")
    return count


def _offsets(body: bytes) -> array[int]:
    offsets = array("I", body[LOW : LOW + 4 * _rows(body)])
    # The Pi and every x86 are little-endian, as the file is.
    if _SWAP:
        offsets.byteswap()
    return offsets
