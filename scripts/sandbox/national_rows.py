"""The national fleet as one base's sorted rows, hashed on several cores, and these as packed blocks."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from typing import NamedTuple, TypeVar
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from scripts.sandbox.national import PLACE_BITS, PROVINCES, Keys, National, Numbers, Values, digest_keys, narrow
from verifier.cache.blocks import MAX_SPAN, PER, Groups, encode_block
from verifier.cache.keys import MAX_KEY, key48
from verifier.cache.values import SEE_EXACT

_T = TypeVar("_T")
Progress = Callable[[str, int, int], None]
"""Called with a step's name, how much of it is done, and the whole."""

CHUNK = 500_000  # vehicles hashed at a time
EVERYWHERE = range(len(PROVINCES))

_GROUPS = 256  # by the highest 8 bits of the key: what is left of it and a 24-bit value fill one machine word
_LOW, _LOW_MASK, _VALUE_BITS, _VALUE_MASK = np.uint64(40), np.uint64((1 << 40) - 1), np.uint64(24), np.uint64(0xFFFFFF)


class Rows(NamedTuple):
    """A stretch of a base: keys strictly ascending."""

    keys: Keys
    values: Values


class _Chunk(NamedTuple):
    """Some vehicles: low 40 bits of the key | value, lying together by the key's highest 8 bits."""

    packed: NDArray[np.uint64]
    ends: NDArray[np.int64]  # of each group
    exact: list[tuple[bytes, int]]


@dataclass
class SortedFleet:
    """All vehicles of a base.

    `exact` holds full hash and wide value of those whose facts do not fit into 24 bits and of those that share a
    key; the latter are `twins`, too.
    """

    groups: list[NDArray[np.uint64]]
    vehicles: int
    exact: Groups = field(default_factory=dict)
    twins: list[int] = field(default_factory=list)

    @property
    def keys(self) -> int:
        """Number of rows."""
        return sum(len(group) for group in self.groups)

    def rows(self) -> Iterator[Rows]:
        """The rows in order, in a few hundred stretches."""
        for high, group in enumerate(self.groups):
            keys = group >> _VALUE_BITS | np.uint64(high) << _LOW
            yield Rows(keys, (group & _VALUE_MASK).astype(np.uint32))


def sort_fleet(
    fleet: National, progress: Progress, *, provinces: Sequence[int] = EVERYWHERE, processes: int = 1
) -> SortedFleet:
    """Hash and sort the vehicles of these provinces (all by default): 8 bytes of memory a vehicle."""
    chunks = list(_ranges(fleet, provinces))
    vehicles = sum(len(numbers) for numbers in chunks)
    groups: list[list[NDArray[np.uint64]]] = [[] for _ in range(_GROUPS)]
    out = SortedFleet(groups=[], vehicles=vehicles)
    done = 0
    with closing(_each(partial(_hash_chunk, fleet), chunks, processes)) as results:
        for numbers, chunk in zip(chunks, results, strict=True):
            for pieces, piece in zip(groups, np.split(chunk.packed, chunk.ends[:-1]), strict=True):
                pieces.append(piece)
            for digest, wide in chunk.exact:
                out.exact.setdefault(key48(digest), {})[digest] = wide
            done += len(numbers)
            progress("hash", done, vehicles)
    shared: dict[int, set[int]] = {}
    for high in range(_GROUPS):
        group = np.concatenate(groups[high])
        groups[high].clear()
        group.sort()
        out.groups.append(_without_twins(high, group, shared))
        progress("sort", high + 1, _GROUPS)
    if shared:
        _resolve(fleet, chunks, shared, out, processes)
    return out


def _ranges(fleet: National, provinces: Sequence[int]) -> Iterator[Numbers]:
    for province in provinces:
        count = int(fleet.counts[province])
        for start in range(0, count, CHUNK):
            yield np.arange(start, min(start + CHUNK, count)) + (province << PLACE_BITS)


def _each(work: Callable[[Numbers], _T], chunks: Sequence[Numbers], processes: int) -> Generator[_T, None, None]:
    """The results in order; in this process where one process is enough."""
    if processes == 1 or len(chunks) == 1:
        yield from map(work, chunks)
        return
    # Spawned, not forked: a progress bar has a thread.
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        yield from pool.map(work, chunks)


def _hash_chunk(fleet: National, numbers: Numbers) -> _Chunk:
    keys, values, exact = fleet.hashed(numbers, fleet.wides(numbers))
    high = (keys >> _LOW).astype(np.uint8)
    order = np.argsort(high, kind="stable")
    packed = (keys & _LOW_MASK) << _VALUE_BITS | values
    return _Chunk(packed[order], np.cumsum(np.bincount(high, minlength=_GROUPS)), exact)


def _without_twins(high: int, group: NDArray[np.uint64], shared: dict[int, set[int]]) -> NDArray[np.uint64]:
    """The sorted group with each key once; keys that stood there more than once go to `shared`, with their values."""
    low = group >> _VALUE_BITS
    again = np.flatnonzero(low[1:] == low[:-1]) + 1
    if not len(again):
        return group
    for i in again.tolist():
        values = shared.setdefault(int(low[i]) | high << 40, set())
        values.update((group[i - 1 : i + 1] & _VALUE_MASK).tolist())
    twins = np.unique(low[again])
    group = np.delete(group, again)
    group[np.searchsorted(group >> _VALUE_BITS, twins)] = twins << _VALUE_BITS | np.uint64(SEE_EXACT)
    return group


def _resolve(
    fleet: National, chunks: Sequence[Numbers], shared: dict[int, set[int]], out: SortedFleet, processes: int
) -> None:
    """Find the vehicles behind the shared keys: rare enough that a second look costs less than keeping all hashes."""
    for key in shared:
        out.exact.pop(key, None)
    keys = np.array(sorted(shared), np.uint64)
    values = np.array(sorted(set().union(*shared.values())), np.uint32)
    with closing(_each(partial(_with_keys, fleet, keys, values), chunks, processes)) as results:
        for numbers, rows in results:
            out.twins += numbers
            for digest, wide in rows:
                out.exact.setdefault(key48(digest), {})[digest] = wide


def _with_keys(
    fleet: National, keys: Keys, values: Values, numbers: Numbers
) -> tuple[list[int], list[tuple[bytes, int]]]:
    """The vehicles among these that have one of the keys; only those with one of the values need to be hashed."""
    wides = fleet.wides(numbers)
    candidates = np.flatnonzero(np.isin(narrow(fleet.scheme, wides), values))
    digests = fleet.digests(numbers[candidates])
    found = np.isin(digest_keys(digests), keys)
    rows = zip(digests[found], wides[candidates[found]].tolist(), strict=True)
    return numbers[candidates[found]].tolist(), [(digest.tobytes(), wide) for digest, wide in rows]


def pack_blocks(stretches: Iterable[Rows], per: int = PER) -> Iterator[tuple[int, bytes]]:
    """`verifier.cache.blocks.split_blocks` of the same rows, without a loop over them."""
    low, rest = 0, Rows(np.empty(0, np.uint64), np.empty(0, np.uint32))
    for keys, values in stretches:
        rows = Rows(np.concatenate([rest.keys, keys]), np.concatenate([rest.values, values]))
        ends = _ends(rows.keys, per)
        if not ends:
            rest = rows
            continue
        # The last block may still grow by what comes.
        last = ends[-2] if len(ends) > 1 else 0
        yield from _encode(low, rows, ends[:-1])
        low = int(rows.keys[last - 1]) + 1 if last else low
        rest = Rows(rows.keys[last:], rows.values[last:])
    if len(rest.keys):
        yield from _encode(low, rest, [len(rest.keys)])
        low = int(rest.keys[-1]) + 1
    if low <= MAX_KEY:
        yield MAX_KEY, encode_block(low, [], [], last=MAX_KEY)


def _ends(keys: Keys, per: int) -> list[int]:
    """Where each block ends: as many rows as fit, within the span of a block."""
    ends, start, plain = [], 0, keys.tolist()
    while start < len(plain):
        start = bisect_right(plain, plain[start] + MAX_SPAN, start, min(start + per, len(plain)))
        ends.append(start)
    return ends


def _encode(low: int, rows: Rows, ends: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """Blocks of these rows up to the last end; `low` is the lowest key that the first one answers for."""
    if not ends:
        return
    stop = ends[-1]
    sizes = np.diff(ends, prepend=0)
    lasts = rows.keys[np.array(ends) - 1]
    # In 32 bits: key - last - 1 is the offset, key - last + 2^32 - 1.
    offsets = memoryview((rows.keys[:stop] - np.repeat(lasts, sizes) - np.uint64(1)).astype("<u4").tobytes())
    wide = rows.values[:stop].astype("<u4").view(np.uint8).reshape(-1, 4)
    values = memoryview(np.ascontiguousarray(wide[:, :3]).tobytes())
    start = 0
    for end, last in zip(ends, lasts.tolist(), strict=True):
        body = b"".join((low.to_bytes(6, "little"), offsets[4 * start : 4 * end], values[3 * start : 3 * end]))
        yield last, crc32(body, crc32(last.to_bytes(6, "little"))).to_bytes(4, "little") + body
        start, low = end, last + 1
