"""What changed in the register from one night to the next, and whether it may be published."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from statistics import median

from verifier.cache.blocks import read_block
from verifier.cache.changes import write_changes
from verifier.cache.keys import MAX_KEY
from verifier.cache.schema import BaseMeta
from verifier.cache.tables import Table
from verifier.cache.values import SEE_EXACT, TOMBSTONE
from verifier.codec.delta import Delta, decode_delta
from verifier.codec.index import MAX_DELTA_ROWS, DeltaEntry
from verifier.errors import CacheError, SyncError, VerifierError

SAMPLE = 100_000  # look-ups that a sign-off compares, at most
LARGEST_SHARE = 20  # a night changes at most one row in twenty,
LARGEST_GROWTH = 3  # and at most three times as many as the nights before it did
HISTORY = 7  # nights
SMALL = 1000  # rows; a night that changes no more is never too large

Group = dict[bytes, int]  # wide values by 16-byte hash


class PublicationError(VerifierError):
    """A publication that the publisher itself refuses; what was published before stays the current one."""


class State:
    """A night's register, as a base and the changes upon it say it. A context manager through `closing`."""

    def __init__(self, base: Path, changes: Path | None = None, epoch_key: bytes | None = None) -> None:
        self.base, self.changes, self.epoch_key = base, changes, epoch_key
        self._under = Table(base, epoch_key)
        self._over = None if changes is None else Table(changes, epoch_key)
        self._wides: dict[int, int] = {}

    def close(self) -> None:
        """Close the files."""
        for table in (self._under, self._over):
            if table is not None:
                table.close()

    @property
    def meta(self) -> BaseMeta:
        """What the base says of itself."""
        return self._under.meta

    @cached_property
    def keys(self) -> int:
        """Number of rows."""
        return self.meta.keys if self._over is None else sum(1 for _ in self.rows())

    def rows(self) -> Iterator[tuple[int, int]]:
        """Key and 24-bit value of all that are in the register, by ascending key."""
        under = _rows(self._under)
        return under if self._over is None else _overlaid(under, _rows(self._over))

    def group(self, key: int) -> Group:
        """The exact rows of a key whose value is SEE_EXACT."""
        if self._over is not None and self._over.find(key) is not None:
            return self._over.exact(key)
        return self._under.exact(key)

    def exact_rows(self, key: int) -> Group:
        """The exact rows of a key; none for one that has a value of its own or is not in the register."""
        return self.group(key) if self._value(key) == SEE_EXACT else {}

    def look_up(self, key: int) -> int | Group | None:
        """What is said of a key; None when it is not in the register."""
        value = self._value(key)
        return None if value is None or value == TOMBSTONE else self.content(key, value)

    def _value(self, key: int) -> int | None:
        value = None if self._over is None else self._over.find(key)
        return self._under.find(key) if value is None else value

    def content(self, key: int, value: int) -> int | Group:
        """The wide value of a row, or all of them where several identities share the key."""
        if value == SEE_EXACT:
            group = self.group(key)
            return group if len(group) > 1 else next(iter(group.values()))
        if value not in self._wides:
            self._wides[value] = self.meta.scheme.widen(value)
        return self._wides[value]

    def exact_keys(self) -> set[int]:
        """All keys that have exact rows, or had some since the base was made."""
        tables = (self._under,) if self._over is None else (self._under, self._over)
        return {key for table in tables for key, _ in table.rows("exact")}

    def replated(self) -> Group:
        """The key of the new plate by the hash of the old credential's serial."""
        moves: Group = {}
        for table in (self._under, self._over):
            if table is not None:
                for key, _ in table.rows("replated"):
                    moves |= table.group("replated", key)
        return {digest: key for digest, key in moves.items() if key != _nowhere(digest)}

    def replay(self, out: Path, delta: Delta) -> State:
        """This state with a delta applied as a device applies it, written to `out`."""
        write_changes(out, self.base, self.changes, [delta], epoch_key=self.epoch_key)
        return State(self.base, out, self.epoch_key)


@dataclass(slots=True)
class Change:
    """From one state to the next, in the terms of a delta: values are under the new state's scheme."""

    keys: array[int] = field(default_factory=lambda: array("Q"))
    values: array[int] = field(default_factory=lambda: array("I"))
    exact: list[tuple[bytes, int]] = field(default_factory=list)
    replated: list[tuple[bytes, int]] = field(default_factory=list)
    growth: int = 0  # rows more than before

    def __len__(self) -> int:
        return len(self.keys) + len(self.replated)


def changes_between(old: State, new: State) -> Change:
    """What a device that holds `old` must be told to hold `new`; both under one epoch key."""
    change = Change()
    for key, value, growth in _differing(old, new):
        change.growth += growth
        change.keys.append(key)
        change.values.append(value)
        if value == SEE_EXACT:
            change.exact += new.group(key).items()
    change.exact.sort()
    before, after = old.replated(), new.replated()
    moves = {digest: key for digest, key in after.items() if before.get(digest) != key}
    # A delta cannot take a row away: a serial that leads nowhere any more is led to a key that no plate has.
    moves |= {digest: _nowhere(digest) for digest in before.keys() - after.keys()}
    change.replated = sorted(moves.items())
    return change


def why_no_delta(old: State, new: State, change: Change) -> str | None:
    """Why a night must be another base; None where a delta tells it."""
    if old.meta.scheme != new.meta.scheme:
        return "its values no longer fit"
    return "more rows than a delta may have" if len(change.keys) > MAX_DELTA_ROWS else None


def check_size(changed: int, fleet: int, history: Sequence[int]) -> None:
    """PublicationError when so many changed rows are more likely a mistake at the source than a day's work.

    `fleet` is the number of rows before, `history` how many the nights before changed, the newest last.
    """
    bounds = {f"one in {LARGEST_SHARE} of {fleet:,}": fleet // LARGEST_SHARE}
    if len(history) >= HISTORY:
        usual = median(history[-HISTORY:])
        bounds[f"{LARGEST_GROWTH} times the {usual:,.0f} of the nights before"] = int(usual * LARGEST_GROWTH)
    for text, bound in bounds.items():
        if changed > max(bound, SMALL):
            raise PublicationError(f"not published: {changed:,} rows have changed, which is more than {text}")


def sign_off(old: State, encoded: bytes, entry: DeltaEntry, new: State, out: Path) -> None:
    """PublicationError unless `old` and the delta, as a device reads and applies them, answer as `new` does.

    Compared are the number of rows, a sample of look-ups (changed, unchanged and absent keys) and all replated rows.
    """
    try:
        delta = decode_delta(encoded, entry, old.epoch_key)
        state = old.replay(out, delta)
    except (SyncError, CacheError) as exc:
        raise PublicationError(f"not published: a device could not apply the delta: {exc}") from exc
    with closing(state) as replayed:
        if replayed.keys != new.keys:
            raise PublicationError("not published: the replayed delta gives another number of rows")
        for key in _sample(delta.keys, new):
            if replayed.look_up(key) != new.look_up(key):
                raise PublicationError("not published: the replayed delta answers otherwise than the register")
        if replayed.replated() != new.replated():
            raise PublicationError("not published: the replayed delta leads to other plates than the register")


def _sample(changed: Sequence[int], new: State) -> Iterator[int]:
    draw = random.SystemRandom()
    half = SAMPLE // 2
    yield from _every(changed, len(changed), half, draw)
    yield from _every((key for key, _ in new.rows()), new.keys, half, draw)
    yield from (draw.randrange(MAX_KEY + 1) for _ in range(min(SAMPLE // 100, new.keys + 1)))


def _every(keys: Iterable[int], count: int, most: int, draw: random.Random) -> Iterator[int]:
    step = max(1, -(-count // most))
    return islice(keys, draw.randrange(step), None, step)


def _differing(old: State, new: State) -> Iterator[tuple[int, int, int]]:
    """Key and new value of each row that differs, and whether it came (1), changed (0) or went (-1: a TOMBSTONE)."""
    alike = old.meta.scheme == new.meta.scheme
    rows = old.rows()
    before = next(rows, None)
    for key, value in new.rows():
        while before is not None and before[0] < key:
            yield before[0], TOMBSTONE, -1
            before = next(rows, None)
        if before is None or before[0] > key:
            yield key, value, 1
            continue
        was = before[1]
        before = next(rows, None)
        if alike and was == value != SEE_EXACT:
            continue
        if _says(old, key, was, value) != _says(new, key, value, was):
            yield key, value, 0
    while before is not None:
        yield before[0], TOMBSTONE, -1
        before = next(rows, None)


def _says(state: State, key: int, value: int, other: int) -> int | Group:
    """A row for comparison: with hashes where both sides have them."""
    return state.group(key) if value == other == SEE_EXACT else state.content(key, value)


def _rows(table: Table) -> Iterator[tuple[int, int]]:
    for k, body in table.rows("seg"):
        _low, keys, values = read_block(k, body)
        yield from zip(keys, values, strict=True)


def _overlaid(under: Iterator[tuple[int, int]], over: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    change = next(over, None)
    for row in under:
        while change is not None and change[0] < row[0]:
            if change[1] != TOMBSTONE:
                yield change
            change = next(over, None)
        if change is None or change[0] > row[0]:
            yield row
    while change is not None:
        if change[1] != TOMBSTONE:
            yield change
        change = next(over, None)


def _nowhere(digest: bytes) -> int:
    """The serial's own key: hashes of serials and of plates never mix."""
    return int.from_bytes(digest[:6], "big")
