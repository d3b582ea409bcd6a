"""Makes base.db, the publisher's work; the device writes only its changes with the same writer."""

from __future__ import annotations

import itertools
import secrets
import sqlite3
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

from sqlite_utils import Database

from verifier.cache.blocks import CHECKSUM, HEADER, PER, PER_SEALED, ROW, Groups, encode_groups, split_blocks
from verifier.cache.keys import (
    CARD,
    CREDENTIAL,
    PLATE,
    TAG,
    KeyHasher,
    card_bytes,
    key48,
    plate_bytes,
    serial_bytes,
    tag_bytes,
)
from verifier.cache.schema import PAGE_SIZE, SALT_LENGTH, BaseMeta
from verifier.cache.sealing import open_seal
from verifier.cache.values import SEE_EXACT, ValueScheme, choose_scheme, to_wide
from verifier.errors import CacheError
from verifier.types import Plate, Serial, VehicleRecord

Progress = Callable[[str, int, int], None]
"""Called with a step's name, how much of it is done, and the whole (0 when not known)."""

REPORT_EVERY = 65536  # vehicles
_BUCKETS = 256  # by the highest 8 bits of the key: what is left of it and a 24-bit number fill one machine word
_LOW_BITS = 40
_LOW_MASK = (1 << _LOW_BITS) - 1
_ID_BITS = 24
_ID_MASK = (1 << _ID_BITS) - 1
_REST = 10  # bytes of a hash behind its key
MISFIT_SHARE, FEWEST_MISFITS = 200, 100  # a scheme serves as long as one vehicle in 200, or these, do not fit it


class BuildError(CacheError):
    """Input from which no base can be made; the text names no vehicle."""


@dataclass(slots=True)
class _Bucket:
    rows: array[int] = field(default_factory=lambda: array("Q"))  # low key bits | number of the value
    rests: bytearray = field(default_factory=bytearray)  # the other bytes of each row's hash, in the same order


@dataclass(slots=True)
class _Gathered:
    """All identities in 18 bytes each; the value's number points into `wides`."""

    buckets: list[_Bucket] = field(default_factory=lambda: [_Bucket() for _ in range(_BUCKETS)])
    numbers: dict[int, int] = field(default_factory=dict)
    counts: Counter[int] = field(default_factory=Counter)
    vehicles: int = 0

    def add(self, digest: bytes, wide: int) -> None:
        number = self.numbers.setdefault(wide, len(self.numbers))
        if number > _ID_MASK:
            raise BuildError("more than 16 million different values")
        bucket = self.buckets[digest[0]]
        bucket.rows.append(int.from_bytes(digest[1:6], "big") << _ID_BITS | number)
        bucket.rests += digest[6:]


def build_base(
    path: Path,
    vehicles: Iterable[tuple[VehicleRecord, str | None]],
    *,
    region: str,
    seq: int,
    epoch_key: bytes,
    key_epoch: int,
    replated: Mapping[Serial, Plate] | None = None,
    progress: Progress | None = None,
    hasher: KeyHasher | None = None,
    scheme: ValueScheme | None = None,
    apart: Set[int] = frozenset(),
    sealed: bool = False,
    draw: Callable[[int], bytes] = secrets.token_bytes,
) -> BaseMeta:
    """Write a new base at `path` from vehicles and the TID of their tags; the iterable is read once.

    `replated` leads from an old credential's serial to the vehicle's new plate. An earlier base's `scheme` is kept
    while it serves, as the answer's tells; then the keys in `apart` get `exact` rows, whatever their values. With
    `sealed` the blocks are encrypted under the epoch key; `draw` makes the salt. BuildError when a plate or a tag is
    listed twice, PlateError for a plate without kind or a TID that is not hex, EpochKeyError. A `hasher` in place of
    the real one serves to force collisions in tests.
    """
    report = progress or no_progress
    hasher = hasher or KeyHasher(epoch_key)
    gathered = _gather(vehicles, hasher, report)
    best = choose_scheme(gathered.counts)
    if scheme is None or not _serves(scheme, best, gathered):
        scheme, apart = best, frozenset()
    sorter = _Sorter(gathered, scheme, apart, report)
    meta = BaseMeta(
        region=region, seq=seq, n=gathered.vehicles, keys=0, key_epoch=key_epoch, key_check=hasher.check_value,
        scheme=scheme, salt=draw(SALT_LENGTH) if sealed else None,
    )  # fmt: skip
    blocks = split_blocks(sorter.rows(), PER_SEALED if sealed else PER)
    exact, moves = encode_groups(sorter.exact), encode_groups(_moves(replated or {}, hasher))
    return write_base_blocks(path, blocks, meta, exact=exact, replated=moves, epoch_key=epoch_key)


def write_base_blocks(
    path: Path,
    blocks: Iterable[tuple[int, bytes]],
    meta: BaseMeta,
    *,
    exact: Iterable[tuple[int, bytes]] = (),
    replated: Iterable[tuple[int, bytes]] = (),
    epoch_key: bytes | None = None,
) -> BaseMeta:
    """Write base.db or changes.db from whole blocks (k, d) and groups (k, d) as `verifier.cache.blocks` makes them.

    Blocks, then `exact`, then `replated` are taken, each in ascending order of k; what leaves a gap is not noticed
    here. Where `meta` has a salt every d is sealed, and `epoch_key` is needed (EpochKeyError). Returns `meta` with the
    number of rows in it.
    """
    seal = None if meta.salt is None else open_seal(meta, epoch_key)
    counter = _Counter()
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute(f"PRAGMA page_size={PAGE_SIZE}")
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute("PRAGMA synchronous=OFF")
        db = Database(connection)
        db.table("meta").create({"key": str, "value": str}, pk="key")
        for table in ("seg", "exact", "replated"):
            db.table(table).create({"k": int, "d": bytes}, pk="k")
        connection.execute("BEGIN")
        for name, rows in (("seg", counter.counted(blocks)), ("exact", exact), ("replated", replated)):
            sealed = rows if seal is None else ((k, seal.close(name, k, d[CHECKSUM:])) for k, d in rows)
            connection.executemany(f"INSERT INTO {name} VALUES (?, ?)", sealed)  # noqa: S608 - names of ours
        meta = replace(meta, keys=counter.rows)
        db.table("meta").insert_all({"key": key, "value": value} for key, value in meta.to_rows().items())
        connection.execute("COMMIT")
    finally:
        connection.close()
    return meta


class _Counter:
    """Counts the rows of the blocks that pass."""

    def __init__(self) -> None:
        self.rows = 0

    def counted(self, blocks: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
        for k, d in blocks:
            self.rows += (len(d) - HEADER) // ROW
            yield k, d


def _gather(vehicles: Iterable[tuple[VehicleRecord, str | None]], hasher: KeyHasher, report: Progress) -> _Gathered:
    gathered = _Gathered()
    for record, tid in vehicles:
        wide = to_wide(record)
        gathered.counts[wide] += 1
        gathered.add(hasher.digest(PLATE, plate_bytes(record.plate)), wide)
        if tid is not None:
            gathered.add(hasher.digest(TAG, tag_bytes(tid)), wide)
            gathered.add(hasher.digest(CARD, card_bytes(record.plate, tid)), wide)
        gathered.vehicles += 1
        if gathered.vehicles % REPORT_EVERY == 0:
            report("hash", gathered.vehicles, 0)
    report("hash", gathered.vehicles, gathered.vehicles)
    return gathered


def _serves(scheme: ValueScheme, best: ValueScheme, gathered: _Gathered) -> bool:
    bearable = max(gathered.vehicles // MISFIT_SHARE, FEWEST_MISFITS, 2 * _misfits(best, gathered))
    return _misfits(scheme, gathered) <= bearable


def _misfits(scheme: ValueScheme, gathered: _Gathered) -> int:
    return sum(n for wide, n in gathered.counts.items() if scheme.narrow(wide) is None)


class _Sorter:
    """All keys in order with their 24-bit value; what shares a key or does not fit is put into `exact`."""

    def __init__(self, gathered: _Gathered, scheme: ValueScheme, apart: Set[int], report: Progress) -> None:
        self._buckets = gathered.buckets
        self._apart = apart
        self._wides = list(gathered.numbers)
        self._narrow = [scheme.narrow(wide) for wide in self._wides]
        self._report = report
        self.exact: Groups = {}
        self.keys = 0

    def rows(self) -> Iterator[tuple[int, int]]:
        for high, bucket in enumerate(self._buckets):
            self._report("write", high, _BUCKETS)
            yield from self._bucket_rows(high, bucket)
        self._report("write", _BUCKETS, _BUCKETS)

    def _bucket_rows(self, high: int, bucket: _Bucket) -> Iterator[tuple[int, int]]:
        narrow, rows = self._narrow, sorted(bucket.rows)
        special = {row >> _ID_BITS for row in rows if narrow[row & _ID_MASK] is None}
        special.update(a >> _ID_BITS for a, b in itertools.pairwise(rows) if a >> _ID_BITS == b >> _ID_BITS)
        special.update(key & _LOW_MASK for key in self._apart if key >> _LOW_BITS == high)
        if special:
            self._collect(high, bucket, special)
        last = -1
        for row in rows:
            low = row >> _ID_BITS
            if low == last:
                continue
            last = low
            self.keys += 1
            value = None if low in special else narrow[row & _ID_MASK]
            yield high << _LOW_BITS | low, SEE_EXACT if value is None else value

    def _collect(self, high: int, bucket: _Bucket, special: set[int]) -> None:
        for place, row in enumerate(bucket.rows):
            low = row >> _ID_BITS
            if low not in special:
                continue
            key = high << _LOW_BITS | low
            digest = key.to_bytes(6, "big") + bucket.rests[place * _REST : (place + 1) * _REST]
            group = self.exact.setdefault(key, {})
            if digest in group:
                raise BuildError("a plate or a tag is listed twice")
            group[digest] = self._wides[row & _ID_MASK]


def _moves(replated: Mapping[Serial, Plate], hasher: KeyHasher) -> Groups:
    groups: Groups = {}
    for serial, plate in replated.items():
        digest = hasher.digest(CREDENTIAL, serial_bytes(serial))
        target = key48(hasher.digest(PLATE, plate_bytes(plate)))
        groups.setdefault(key48(digest), {})[digest] = target
    return groups


def no_progress(_step: str, _done: int, _whole: int) -> None:
    """Tells nobody."""
