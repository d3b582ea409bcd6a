"""Makes base.db: the publisher's work, never done on the appliance."""

from __future__ import annotations

import itertools
import sqlite3
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sqlite_utils import Database

from verifier.cache.blocks import encode_group, split_blocks
from verifier.cache.keys import CREDENTIAL, PLATE, TAG, KeyHasher, key48, plate_bytes, serial_bytes, tag_bytes
from verifier.cache.schema import PAGE_SIZE, BaseMeta
from verifier.cache.values import SEE_EXACT, ValueScheme, choose_scheme, to_wide
from verifier.errors import CacheError
from verifier.types import Plate, Serial, VehicleRecord

Progress = Callable[[str, int, int], None]
"""Called with a step's name, how much of it is done, and the whole (0 when not known)."""

REPORT_EVERY = 65536  # vehicles
_BUCKETS = 256  # by the highest 8 bits of the key: what is left of it and a 24-bit number fill one machine word
_LOW_BITS = 40
_ID_BITS = 24
_ID_MASK = (1 << _ID_BITS) - 1
_REST = 10  # bytes of a hash behind its key


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
) -> BaseMeta:
    """Write a new base at `path` from vehicles and the TID of their tags; the iterable is read once.

    `replated` leads from an old credential's serial to the vehicle's new plate. BuildError when a plate or a tag
    is listed twice, PlateError for a plate without kind or a TID that is not hex, EpochKeyError.
    A `hasher` in place of the real one serves to force collisions in tests.
    """
    report = progress or _no_progress
    hasher = hasher or KeyHasher(epoch_key)
    gathered = _gather(vehicles, hasher, report)
    scheme = choose_scheme(gathered.counts)
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
        sorter = _Sorter(gathered, scheme, report)
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO seg VALUES (?, ?)", split_blocks(sorter.rows()))
        connection.executemany("INSERT INTO exact VALUES (?, ?)", _groups(sorter.exact))
        connection.executemany("INSERT INTO replated VALUES (?, ?)", _groups(_moves(replated or {}, hasher)))
        meta = BaseMeta(
            region=region, seq=seq, n=gathered.vehicles, keys=sorter.keys, key_epoch=key_epoch,
            key_check=hasher.check_value, scheme=scheme,
        )  # fmt: skip
        db.table("meta").insert_all({"key": key, "value": value} for key, value in meta.to_rows().items())
        connection.execute("COMMIT")
    finally:
        connection.close()
    return meta


def _gather(vehicles: Iterable[tuple[VehicleRecord, str | None]], hasher: KeyHasher, report: Progress) -> _Gathered:
    gathered = _Gathered()
    for record, tid in vehicles:
        wide = to_wide(record)
        gathered.counts[wide] += 1
        gathered.add(hasher.digest(PLATE, plate_bytes(record.plate)), wide)
        if tid is not None:
            gathered.add(hasher.digest(TAG, tag_bytes(tid)), wide)
        gathered.vehicles += 1
        if gathered.vehicles % REPORT_EVERY == 0:
            report("hash", gathered.vehicles, 0)
    report("hash", gathered.vehicles, gathered.vehicles)
    return gathered


class _Sorter:
    """All keys in order with their 24-bit value; what shares a key or does not fit is put into `exact`."""

    def __init__(self, gathered: _Gathered, scheme: ValueScheme, report: Progress) -> None:
        self._buckets = gathered.buckets
        self._wides = list(gathered.numbers)
        self._narrow = [scheme.narrow(wide) for wide in self._wides]
        self._report = report
        self.exact: dict[int, list[tuple[bytes, int]]] = {}
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
            group = self.exact.setdefault(key, [])
            if any(digest == other for other, _ in group):
                raise BuildError("a plate or a tag is listed twice")
            group.append((digest, self._wides[row & _ID_MASK]))


def _moves(replated: Mapping[Serial, Plate], hasher: KeyHasher) -> dict[int, list[tuple[bytes, int]]]:
    groups: dict[int, list[tuple[bytes, int]]] = {}
    for serial, plate in replated.items():
        digest = hasher.digest(CREDENTIAL, serial_bytes(serial))
        target = key48(hasher.digest(PLATE, plate_bytes(plate)))
        groups.setdefault(key48(digest), []).append((digest, target))
    return groups


def _groups(groups: Mapping[int, list[tuple[bytes, int]]]) -> Iterator[tuple[int, bytes]]:
    return ((key, encode_group(key, groups[key])) for key in sorted(groups))


def _no_progress(_step: str, _done: int, _whole: int) -> None:
    pass
