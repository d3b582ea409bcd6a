"""Nights of changes: their size on the wire, and applying them beside a bare upsert of the same rows."""

from __future__ import annotations

import hashlib
import math
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from scripts.bench.figures import Figure
from scripts.sandbox.national import Numbers
from scripts.sandbox.national_churn import NIGHTLY, NO_VEHICLE, Churn
from verifier.cache.changes import write_changes
from verifier.codec.delta import Delta, decode_delta, encode_delta
from verifier.codec.index import DeltaEntry
from verifier.durable import sync_file

Progress = Callable[[str, int, int], None]

APPLY_TARGET = 0.6  # of the rate of a bare upsert
DELTA_TARGET, FLOOR_TARGET = 6.5, 1.25  # bytes a row; times the information floor
WRITTEN_TARGET = 6.0  # MB in the first night
KEY_SPACE_BITS = 48
_DENSE = NIGHTLY * 3 // 4  # rows a night from which keys lie as close as the targets suppose
_ENOUGH = 2000  # rows a night from which the header no longer counts
_UPSERT = "INSERT INTO rows VALUES (?, ?) ON CONFLICT (k) DO UPDATE SET v = excluded.v"
_TIMES = 3  # a night is applied so often, and the median counts


@dataclass(frozen=True, slots=True)
class Night:
    """One delta as it is published, and what the index says of it."""

    data: bytes
    entry: DeltaEntry
    floor: float  # bytes: what its keys and values cannot go below

    def delta(self) -> Delta:
        """As a device reads it."""
        return decode_delta(self.data, self.entry)


class Applied(NamedTuple):
    """Seconds for one night, from the delta's bytes to changes.db on the card, and for the two baselines.

    `upsert_s` is for this night's ready rows in a table that holds the others, `anew_s` for all ready rows in a new
    file: what writing a whole set takes that nobody could tear.
    """

    rows: int
    all_rows: int  # since the base
    ours_s: float
    upsert_s: float
    anew_s: float
    written: int  # bytes


def make_nights(churn: Churn, count: int, region: str, base_seq: int, progress: Progress) -> Iterator[Night]:
    """The next nights of this fleet."""
    for number in range(count):
        delta = churn.night(region, base_seq, 1)
        data = encode_delta(delta)
        entry = DeltaEntry(
            seq_from=delta.seq_from, seq_to=delta.seq_to, length=len(data), sha256=hashlib.sha256(data).digest(),
            rows=len(delta.keys),
        )  # fmt: skip
        yield Night(data, entry, floor_bytes(len(delta.keys), np.array(delta.values)))
        progress("nights", number + 1, count)


def facts(churn: Churn, numbers: Numbers) -> list[int | None]:
    """What the register says of these vehicles after the nights so far; None of one that is not in it."""
    return [None if wide == NO_VEHICLE else int(wide) for wide in churn.wides(numbers)]


def floor_bytes(count: int, values: np.ndarray) -> float:
    """What a set of so many 48-bit keys with values of this distribution takes at least, in bytes."""
    shares = np.unique(values, return_counts=True)[1] / max(1, len(values))
    return count * (key_bits(count) + float(-(shares * np.log2(shares)).sum())) / 8


def key_bits(count: int) -> float:
    """Bits a key of a random set of so many: log2 of the number of such sets, by Stirling's formula."""
    return KEY_SPACE_BITS - math.log2(max(1, count)) + math.log2(math.e)


def apply_first(folder: Path, base: Path, night: Night) -> Applied:
    """The first night after the base."""
    rows = list(night.delta().rows())
    times = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        write_changes(folder / "first.db", base, None, [night.delta()])
        ours = time.perf_counter() - began
        times.append((ours, _upserted(folder / "upsert.db", [rows]), _written_anew(folder / "anew.db", rows)))
    written = (folder / "first.db").stat().st_size
    ours_s, upsert_s, anew_s = (statistics.median(column) for column in zip(*times, strict=True))
    return Applied(len(rows), len(rows), ours_s, upsert_s, anew_s, written)


def apply_next(folder: Path, base: Path, nights: Sequence[Night], progress: Progress) -> Applied:
    """The last of these nights, upon all others; their changes are left in `changes.db`."""
    changes, after = folder / "changes.db", folder / "next.db"
    write_changes(changes, base, None, (night.delta() for night in nights[:-1]))
    progress("apply", 0, len(nights))
    upsert = _upserted(folder / "upsert.db", _ready(nights, progress))
    with closing(sqlite3.connect(folder / "upsert.db")) as connection:
        rows = connection.execute("SELECT k, v FROM rows ORDER BY k").fetchall()
    times = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        write_changes(after, base, changes, [nights[-1].delta()])
        ours = time.perf_counter() - began
        times.append((ours, _written_anew(folder / "anew.db", rows)))
    ours_s, anew_s = (statistics.median(column) for column in zip(*times, strict=True))
    return Applied(nights[-1].entry.rows, len(rows), ours_s, upsert, anew_s, after.stat().st_size)


def _ready(nights: Sequence[Night], progress: Progress) -> Iterator[list[tuple[int, int]]]:
    for number, night in enumerate(nights, 1):
        yield list(night.delta().rows())
        progress("apply", number, len(nights))


def _upserted(path: Path, nights: Iterable[list[tuple[int, int]]]) -> float:
    """Seconds of the last night's bare upsert, one durable transaction of a ready list."""
    for left in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        left.unlink(missing_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE rows (k INTEGER PRIMARY KEY, v INTEGER)")
        seconds = 0.0
        for rows in nights:
            began = time.perf_counter()
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(_UPSERT, rows)
            connection.execute("COMMIT")
            seconds = time.perf_counter() - began
    return seconds


def _written_anew(path: Path, rows: Sequence[tuple[int, int]]) -> float:
    """Seconds of a bare insert of all rows into a new file, as this builds one: no journal, then forced to the disk."""
    path.unlink(missing_ok=True)
    began = time.perf_counter()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("CREATE TABLE rows (k INTEGER PRIMARY KEY, v INTEGER)")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO rows VALUES (?, ?)", rows)
        connection.execute("COMMIT")
    sync_file(path)
    return time.perf_counter() - began


def wire_figures(nights: Sequence[Night]) -> Iterator[Figure]:
    """What a night's delta takes on the wire."""
    rows, length = sum(night.entry.rows for night in nights), sum(len(night.data) for night in nights)
    floor = sum(night.floor for night in nights)
    dense = rows >= _DENSE * len(nights)
    yield Figure(
        name="delta bytes per row", unit="B", value=length / rows, at_most=DELTA_TARGET, comparable=dense,
        measured=f"{length / rows:.2f} B ({length / len(nights) / 1e6:.2f} MB a night)",
        note="" if dense else f"the target is for {NIGHTLY:,} rows a night: the fewer rows, the longer the gaps",
    )  # fmt: skip
    yield Figure(
        name="delta bytes / information floor", value=length / floor, at_most=FLOOR_TARGET,
        comparable=rows >= _ENOUGH * len(nights),
        measured=f"{length / floor:.2f}x ({floor / rows:.2f} B a row at least)",
        note="48-bit keys as a random set, values by their distribution in the night",
    )  # fmt: skip


def apply_figures(first: Applied, later: Applied, before: int) -> Iterator[Figure]:
    """What applying a night takes; `before` nights lie between base and the later one."""
    dense = first.rows >= _DENSE
    nightly = (("first night", first), (f"night {before + 1}", later))
    for name, applied in nightly:
        yield Figure(
            name=f"delta apply / bare rewrite, {name}", unit="x the rate", value=applied.anew_s / applied.ours_s,
            at_least=APPLY_TARGET, comparable=dense, measured=_applied(applied, applied.anew_s),
            note=f"bytes of the delta to changes.db on the card; beside it {applied.all_rows:,} ready rows, all since "
            "the base, into a plain table in a new file: like ours it leaves the old or the new set after a cut, but "
            "without proof of absence, checksums, decoding and merging",
        )  # fmt: skip
    for name, applied in nightly:
        yield Figure(
            name=f"delta apply / bare upsert, {name}", unit="x the rate", value=applied.upsert_s / applied.ours_s,
            measured=_applied(applied, applied.upsert_s),
            note="the same beside one durable executemany of the night's ready rows into a table in place, with a "
            f"log: for that the target of {APPLY_TARGET} x was set, and it is not what is done here",
        )  # fmt: skip
    yield Figure(
        name="bytes written, first night", unit="MB", value=first.written / 1e6, at_most=WRITTEN_TARGET,
        measured=f"{first.written / 1e6:.2f} MB", comparable=dense, note="the file changes.db",
    )  # fmt: skip
    yield Figure(
        name=f"bytes written, night {before + 1}", unit="MB", value=later.written / 1e6,
        measured=f"{later.written / 1e6:.1f} MB", note="likewise: the price of a set that is swapped as a whole",
    )  # fmt: skip


def _applied(applied: Applied, bare_s: float) -> str:
    times = f"{applied.ours_s * 1000:.0f} / {bare_s * 1000:.0f} ms for {applied.rows:,} rows"
    return f"{bare_s / applied.ours_s:.2f}x ({times})"
