"""changes.db: all nightly changes since the base, merged, in the base's own format.

It is written anew beside the old one and comes into use with its generation. So a power cut leaves the old or the
new set, no reader sees an open file change, and what follows where it must not leaves no trace.
"""

from __future__ import annotations

import secrets
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from verifier.cache.blocks import (
    LOW,
    PER,
    PER_SEALED,
    ROW,
    Groups,
    Splitter,
    ascending,
    encode_groups,
    low_key,
    protect,
    read_columns,
    read_group,
    unpack_values,
    with_rows,
)
from verifier.cache.build import Progress, no_progress, write_base_blocks
from verifier.cache.keys import MAX_KEY, key48
from verifier.cache.schema import SALT_LENGTH, BaseMeta, check_same_base
from verifier.cache.sealing import open_seal
from verifier.cache.tables import GroupTable, Table, open_table
from verifier.cache.values import SEE_EXACT, TOMBSTONE
from verifier.codec.delta import Delta, DeltaFormatError
from verifier.durable import sync_file
from verifier.errors import CacheCorruptError

_SLICE = 1 << 15  # rows that are sorted at a time
_SLICE_BITS = 40  # keys with the same highest 8 bits are joined at a time


def write_changes(
    out: Path,
    base: Path,
    previous: Path | None,
    deltas: Iterable[Delta],
    progress: Progress | None = None,
    *,
    epoch_key: bytes | None = None,
    draw: Callable[[int], bytes] = secrets.token_bytes,
) -> int:
    """Write changes.db at `out` from the one in use (None: there is none) and the deltas behind it, in their order.

    Returns the number of its rows; they are on the card then. DeltaFormatError when a delta does not follow the one
    before it, or is for another base, region or key epoch; CacheCorruptError when `base` or `previous` is damaged,
    or `previous` is not of this base; EpochKeyError when the base is sealed and the key is absent or another one.
    Whatever fails, nothing is left at `out`. 12 bytes of memory for each row of the deltas, twice.
    """
    with ExitStack() as stack:
        under = stack.enter_context(closing(open_table(base, epoch_key)))
        over = None if previous is None else stack.enter_context(closing(open_table(previous, epoch_key)))
        if under.meta.salt is not None:
            open_seal(under.meta, epoch_key)
        if over is not None:
            check_same_base(over.meta, under.meta)
        fresh = _Fresh.begin(under, over)
        for delta in deltas:
            fresh.add(delta)
        meta = replace(
            under.meta, seq=fresh.seq, n=0, keys=0, base_seq=under.meta.seq,
            salt=None if under.meta.salt is None else draw(SALT_LENGTH),
        )  # fmt: skip
        keys, values = fresh.joined()
        blocks = _merged(over, keys, values, PER if meta.salt is None else PER_SEALED, progress or no_progress)
        try:
            meta = write_base_blocks(
                out,
                blocks,
                meta,
                exact=encode_groups(fresh.exact),
                replated=encode_groups(fresh.replated),
                epoch_key=epoch_key,
            )
        except BaseException:
            out.unlink(missing_ok=True)
            raise
    sync_file(out)
    return meta.keys


@dataclass(slots=True)
class _Fresh:
    """What the deltas bring on top of the changes in use; the side tables as they will be."""

    base: BaseMeta
    seq: int
    exact: Groups
    replated: Groups
    shared: set[int]  # keys that more than one vehicle has had since the base
    columns: list[tuple[Sequence[int], Sequence[int]]] = field(default_factory=list)

    @classmethod
    def begin(cls, under: Table, over: Table | None) -> _Fresh:
        exact = {} if over is None else _groups(over, "exact")
        both = (*_groups(under, "exact").items(), *exact.items())
        return cls(
            base=under.meta,
            seq=under.meta.seq if over is None else over.meta.seq,
            exact=exact,
            replated={} if over is None else _groups(over, "replated"),
            shared={key for key, group in both if len(group) > 1},
        )

    def add(self, delta: Delta) -> None:
        """Take the next delta; DeltaFormatError when it is not the next one of this base."""
        check_follows(delta, self.base, self.seq)
        # A key that was listed in `exact` gets a plain value or goes, unless the delta lists it there again.
        for key in [*self.exact, *self.shared]:
            value = _value(delta, key)
            if value is None or value == SEE_EXACT:
                continue
            if key in self.shared and value != TOMBSTONE:
                raise DeltaFormatError("delta: a plain row for a key that vehicles share")
            self.exact.pop(key, None)
            self.shared.discard(key)
        groups: Groups = {}
        for digest, wide in delta.exact:
            groups.setdefault(key48(digest), {})[digest] = wide
        self.exact |= groups
        self.shared.update(key for key, group in groups.items() if len(group) > 1)
        for digest, target in delta.replated:
            self.replated.setdefault(key48(digest), {})[digest] = target
        self.columns.append((delta.keys, delta.values))
        self.seq = delta.seq_to

    def joined(self) -> tuple[array[int], array[int]]:
        """All rows in order; of several rows for a key the newest."""
        if len(self.columns) == 1:
            return array("Q", self.columns[0][0]), array("I", self.columns[0][1])
        keys, values = array("Q"), array("I")
        places = [0] * len(self.columns)
        for end in range(1 << _SLICE_BITS, MAX_KEY + 2, 1 << _SLICE_BITS):
            table: dict[int, int] = {}
            for i, (their_keys, their_values) in enumerate(self.columns):
                stop = bisect_left(their_keys, end, places[i])
                table.update(zip(their_keys[places[i] : stop], their_values[places[i] : stop], strict=True))
                places[i] = stop
            ordered = sorted(table)
            keys.extend(ordered)
            values.extend(map(table.__getitem__, ordered))
        return keys, values


def check_follows(delta: Delta, base: BaseMeta, seq: int) -> None:
    """DeltaFormatError unless this delta leads on from `seq` over this base."""
    theirs = (delta.region, delta.base_seq, delta.key_epoch)
    if theirs != (base.region, base.seq, base.key_epoch):
        raise DeltaFormatError("delta: for another base, region or key epoch")
    if delta.seq_from != seq:
        raise DeltaFormatError(f"delta: leads on from {delta.seq_from} and not from {seq}")
    combos = set(map((31).__and__, delta.values)) - {SEE_EXACT}
    if combos and max(combos) >= len(base.scheme.combos):
        raise DeltaFormatError("delta: a combination that the base's dictionary does not have")


def _merged(
    over: Table | None, keys: array[int], values: array[int], per: int, report: Progress
) -> Iterator[tuple[int, bytes]]:
    """The blocks of the changes in use with these rows in them.

    Blocks without any are taken over as they are, and those with room get theirs; only what lies between is cut anew.
    """
    splitter, run, told = Splitter(per), _Run(keys, values), 0
    for k, body in _rows(over):
        new = run.new_rows(k)
        grown = with_rows(k, body, keys[new], values[new], per) if new.start < new.stop else body
        if grown is not None:
            if run.length:
                yield from run.into(splitter)
            yield from splitter.copy(k, protect(k, grown))
            run.skip(new)
        else:
            run.take(k, body, new)
            if run.length >= _SLICE:
                yield from run.into(splitter)
        if k >> _SLICE_BITS > told:
            told = k >> _SLICE_BITS
            report("merge", told, 256)
    yield from run.into(splitter)
    yield from splitter.end()
    report("merge", 256, 256)


class _Run:
    """Blocks side by side that must be cut anew, and the new rows for them."""

    def __init__(self, keys: array[int], values: array[int]) -> None:
        self._keys, self._values = keys, values
        self._first = self._stop = 0  # the new rows that belong to the run
        self._clear()

    def _clear(self) -> None:
        self._old_keys: list[int] = []
        self._old_values = bytearray()
        self._first = self._stop

    @property
    def length(self) -> int:
        return len(self._old_keys) + self._stop - self._first

    def new_rows(self, k: int) -> slice:
        """The new rows up to k that no block has got yet."""
        return slice(self._stop, bisect_right(self._keys, k, self._stop))

    def skip(self, new: slice) -> None:
        """These rows are in a block."""
        self._first = self._stop = new.stop

    def take(self, k: int, body: bytes, new: slice) -> None:
        """The block and its new rows belong to the run."""
        _low, keys, values = read_columns(k, body)
        self._old_keys += keys
        self._old_values += values
        self._stop = new.stop

    def into(self, splitter: Splitter) -> Iterator[tuple[int, bytes]]:
        """Old and new rows as blocks; where both have a key the new row counts."""
        old, stop, old_values = 0, self._stop, unpack_values(bytes(self._old_values))
        if not ascending(self._old_keys):
            raise CacheCorruptError("changes: keys out of order")
        for start in range(self._first, stop, _SLICE):
            part = slice(start, min(start + _SLICE, stop))
            if not self._old_keys:
                yield from splitter.add(self._keys[part], self._values[part])
                continue
            end = len(self._old_keys) if part.stop == stop else bisect_right(self._old_keys, self._keys[part.stop - 1])
            table = dict(zip(self._old_keys[old:end], old_values[old:end], strict=True))
            table.update(zip(self._keys[part], self._values[part], strict=True))
            ordered = sorted(table)
            yield from splitter.add(ordered, map(table.__getitem__, ordered))
            old = end
        self._clear()


def _rows(over: Table | None) -> Iterator[tuple[int, bytes]]:
    """The blocks in use, proved to be whole; one empty block when there are none."""
    if over is None:
        yield MAX_KEY, bytes(LOW)
        return
    low, count = 0, 0
    for k, body in over.rows("seg"):
        if low_key(body) != low:
            raise CacheCorruptError("changes: a gap between blocks")
        low, count = k + 1, count + (len(body) - LOW) // ROW
        yield k, body
    if low != MAX_KEY + 1 or count != over.meta.keys:
        raise CacheCorruptError("changes: blocks are missing")


def _groups(table: Table, name: GroupTable) -> Groups:
    return {k: read_group(k, body) for k, body in table.rows(name)}


def _value(delta: Delta, key: int) -> int | None:
    place = bisect_left(delta.keys, key)
    return delta.values[place] if place < len(delta.keys) and delta.keys[place] == key else None
