"""A delta: what changed in the register between two publications, immutable and named by its SHA-256.

header  "MCD1" | region (32 bytes, filled up with zeros) | from | to | base seq | key epoch (u64 each)
        | rows | exact rows | replated rows (u32 each)
body    one zlib stream of: gaps of the rows' keys (6 bytes a row) | their values (3 bytes a row)
        | exact (16-byte hash, u64 wide value)* | replated (16-byte hash, u48 key)*

All numbers are little-endian. A gap is the number of keys left out before a key, so keys can only ascend. Gaps and
values stand in planes (all lowest bytes, then all second bytes, ...): like bytes side by side deflate best, and both
directions need no loop over rows. The counts say how long the body is, so inflating is bounded before it begins. A
sealed delta is all of this in a box (`verifier.cache.sealing`).

A row's value is one of 24 bits under the scheme of the base that the delta is for, or TOMBSTONE ("no longer in the
register"), or SEE_EXACT: then the key has its rows in `exact`, and they are ALL identities that now have this key.
A key which two identities of the register share, or which `exact` of the base or of an earlier delta lists for more
than one, must be given that way whenever one of them changes, as long as any of them is left: a 24-bit value cannot
say whose it is. `replated` only adds and replaces.
"""

from __future__ import annotations

import hashlib
import struct
import sys
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, compress, count, islice, pairwise, repeat
from operator import add, eq, lt, sub

from verifier.cache.keys import MAX_KEY
from verifier.cache.sealing import BOX, DELTA_BOX, open_box
from verifier.cache.values import SEE_EXACT, TOMBSTONE
from verifier.codec.index import MAX_DELTA, MAX_DELTA_ROWS, MAX_NUMBER, DeltaEntry, is_region
from verifier.errors import SyncError

MAX_WIDE = (1 << 56) - 1
MAX_SIDE_ROWS = 1 << 20  # of `exact` and of `replated`

_HEAD = struct.Struct("<4s32s4Q3I")
_MAGIC = b"MCD1"
_EXACT = struct.Struct("<16sQ")
_REPLATED = struct.Struct("<16sIH")
_ROW = 9  # bytes of a row before it is deflated
_SWAP = sys.byteorder == "big"
_SPECIAL = bytes(range(31, 256, 32))  # lowest bytes of values with combination 31


class DeltaFormatError(SyncError):
    """A delta that breaks a bound, or is not for what it should be applied to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """One delta. `keys` (strictly ascending) and `values` are columns of the same length, at best array("Q") and
    array("I"): a million rows are 12 MB then.
    """

    region: str
    seq_from: int
    seq_to: int
    base_seq: int
    key_epoch: int
    keys: Sequence[int]  # 48 bits
    values: Sequence[int]  # 24 bits
    exact: Sequence[tuple[bytes, int]] = ()  # 16-byte hash, wide value; strictly ascending
    replated: Sequence[tuple[bytes, int]] = ()  # 16-byte hash of the old serial, 48-bit key of the new plate; likewise

    def rows(self) -> Iterator[tuple[int, int]]:
        """Key and value of each row."""
        return zip(self.keys, self.values, strict=True)


def encode_delta(delta: Delta) -> bytes:
    """The delta's bytes; DeltaFormatError when it breaks a rule of the format or has more rows than a delta may."""
    _check(delta)
    header = _HEAD.pack(
        _MAGIC, delta.region.encode(), delta.seq_from, delta.seq_to, delta.base_seq, delta.key_epoch,
        len(delta.keys), len(delta.exact), len(delta.replated),
    )  # fmt: skip
    steps = list(map(sub, delta.keys, count()))
    gaps = array("Q", map(sub, steps, [0, *steps[:-1]]))
    body = [_planes(gaps, 8, 6), _planes(array("I", delta.values), 4, 3)]
    body += [_EXACT.pack(*row) for row in delta.exact]
    body += [_REPLATED.pack(digest, key & 0xFFFFFFFF, key >> 32) for digest, key in delta.replated]
    return header + zlib.compress(b"".join(body), 9)


def decode_delta(data: bytes, entry: DeltaEntry, epoch_key: bytes | None = None) -> Delta:
    """The delta that a signed index names; DeltaFormatError for bytes that are anything else.

    EpochKeyError for a sealed one without its key.
    """
    if len(data) != entry.length or hashlib.sha256(data).digest() != entry.sha256:
        raise DeltaFormatError("delta: not the bytes that the index names")
    if data.startswith(BOX):
        data = open_box(epoch_key, DELTA_BOX, data)
    if not _HEAD.size < len(data) <= MAX_DELTA:
        raise DeltaFormatError("delta: length")
    magic, name, seq_from, seq_to, base_seq, key_epoch, rows, exact, replated = _HEAD.unpack_from(data)
    region = name.rstrip(b"\0").decode("ascii", "replace")
    if magic != _MAGIC or (seq_from, seq_to, rows) != (entry.seq_from, entry.seq_to, entry.rows):
        raise DeltaFormatError("delta: header and index differ")
    if rows > MAX_DELTA_ROWS or exact > MAX_SIDE_ROWS or replated > MAX_SIDE_ROWS:
        raise DeltaFormatError("delta: too many rows")
    ends = list(accumulate((rows * 6, rows * 3, exact * _EXACT.size, replated * _REPLATED.size)))
    body = _inflate(data[_HEAD.size :], ends[-1])
    delta = Delta(
        region=region, seq_from=seq_from, seq_to=seq_to, base_seq=base_seq, key_epoch=key_epoch,
        keys=_keys(body[: ends[0]]), values=_unplaned(body[ends[0] : ends[1]], 3, "I"),
        exact=tuple(_EXACT.iter_unpack(body[ends[1] : ends[2]])),
        replated=tuple((h, low | high << 32) for h, low, high in _REPLATED.iter_unpack(body[ends[2] :])),
    )  # fmt: skip
    _check(delta)
    return delta


def _inflate(data: bytes, length: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        # One byte more than there may be, and at least one: zero would mean "without a bound".
        body = stream.decompress(data, length + 1)
    except zlib.error as exc:
        raise DeltaFormatError("delta: not zlib") from exc
    if len(body) != length or not stream.eof or stream.unused_data:
        raise DeltaFormatError("delta: of another length than its counts say, or bytes behind its end")
    return body


def _keys(planes: bytes) -> array[int]:
    try:
        return array("Q", map(add, accumulate(_unplaned(planes, 6, "Q")), count()))
    except OverflowError as exc:
        raise DeltaFormatError("delta: a key beyond 48 bits") from exc


def _planes(column: array[int], size: int, kept: int) -> bytes:
    """The lowest `kept` bytes of each number of `size` bytes, plane by plane."""
    if _SWAP:
        column.byteswap()
    data = column.tobytes()
    return b"".join(data[i::size] for i in range(kept))


def _unplaned(planes: bytes, kept: int, typecode: str) -> array[int]:
    rows = len(planes) // kept
    column = array(typecode)
    data = bytearray(rows * column.itemsize)
    for i in range(kept):
        data[i :: column.itemsize] = planes[i * rows : (i + 1) * rows]
    column.frombytes(data)
    if _SWAP:
        column.byteswap()
    return column


def _check(delta: Delta) -> None:
    if not is_region(delta.region) or not 1 <= delta.base_seq <= delta.seq_from < delta.seq_to <= MAX_NUMBER:
        raise DeltaFormatError("delta: region or sequence numbers out of bounds")
    if not 0 <= delta.key_epoch <= MAX_NUMBER:
        raise DeltaFormatError("delta: key epoch out of bounds")
    keys, values = delta.keys, delta.values
    if len(keys) != len(values):
        raise DeltaFormatError("delta: columns of different lengths")
    if len(keys) > MAX_DELTA_ROWS:
        raise DeltaFormatError(f"delta: more than {MAX_DELTA_ROWS:,} rows: these take another base")
    if len(keys) and not (keys[0] >= 0 and keys[-1] <= MAX_KEY and all(map(lt, keys, islice(keys, 1, None)))):
        raise DeltaFormatError("delta: keys out of order or beyond 48 bits")
    _check_values(delta)
    for name, side, most in (("exact", delta.exact, MAX_WIDE), ("replated", delta.replated, MAX_KEY)):
        if len(side) > MAX_SIDE_ROWS:
            raise DeltaFormatError(f"delta: more than {MAX_SIDE_ROWS:,} {name} rows: these take another base")
        if not all(len(h) == 16 and 0 <= value <= most for h, value in side):
            raise DeltaFormatError(f"delta: {name} out of bounds")
        if any(a[0] >= b[0] for a, b in pairwise(side)):
            raise DeltaFormatError(f"delta: {name} out of order")


def _check_values(delta: Delta) -> None:
    try:
        low = _planes(array("I", delta.values), 4, 4)
    except (OverflowError, TypeError) as exc:
        raise DeltaFormatError("delta: a value beyond 24 bits") from exc
    rows = len(delta.values)
    if low[3 * rows :].strip(b"\0"):
        raise DeltaFormatError("delta: a value beyond 24 bits")
    lowest = low[:rows]
    special = rows - len(lowest.translate(None, _SPECIAL))
    marked = set(compress(delta.keys, map(eq, delta.values, repeat(SEE_EXACT))))
    if special != len(marked) + sum(map(eq, delta.values, repeat(TOMBSTONE))):
        raise DeltaFormatError("delta: a value that means nothing")
    if marked != {int.from_bytes(digest[:6], "big") for digest, _ in delta.exact}:
        raise DeltaFormatError("delta: rows and exact differ")
