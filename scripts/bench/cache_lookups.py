"""Look-ups in base.db and in the whole cache, call by call beside a bare point query."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np

from scripts.bench.figures import Figure
from scripts.sandbox.national_rows import Rows
from verifier.cache.schema import open_base
from verifier.cache.tables import Table

BASE_TARGET, WHOLE_TARGET = 1.6, 4.0
COLD_TARGET = 8192  # bytes
COLD_LOOKUPS = 1000
PASSES = 3
SELECT = "SELECT v FROM rows WHERE k = ?"

_LARGE_BASE = 100_000_000  # bytes from which two look-ups hardly ever fall into one page
_IO = Path("/proc/self/io")


class WrongAnswerError(RuntimeError):
    """The cache says something else of a vehicle than the register: then no figure is worth anything."""


class Quantiles(NamedTuple):
    """Ours and the baseline's, in microseconds, and their ratio."""

    ours_us: float
    bare_us: float

    @property
    def ratio(self) -> float:
        """How many times as long ours takes."""
        return self.ours_us / self.bare_us

    def text(self) -> str:
        """Both times and the ratio."""
        return f"{self.ratio:.2f}x ({self.ours_us:.1f} / {self.bare_us:.1f} µs)"


class LookupTimes(NamedTuple):
    """Medians, and what one look-up in a hundred exceeds."""

    p50: Quantiles
    p99: Quantiles


def in_turn(ours: Callable[[int], object], bare: Callable[[int], object], count: int) -> LookupTimes:
    """Both of them for 0 to count-1, call by call in turn.

    Of several passes each call's quickest time counts, so that p99 tells of the slowest vehicles and not of what else
    the machine was doing.
    """
    clock = time.perf_counter_ns
    times = np.full((2, count), np.iinfo(np.int64).max)
    for _ in range(PASSES):
        for i in range(count):
            began = clock()
            ours(i)
            between = clock()
            bare(i)
            ended = clock()
            times[0, i] = min(times[0, i], between - began)
            times[1, i] = min(times[1, i], ended - between)
    quantiles = np.percentile(times / 1000, [50, 99], axis=1)
    return LookupTimes(*(Quantiles(float(a), float(b)) for a, b in quantiles))


def write_bare(path: Path, stretches: Iterable[Rows]) -> None:
    """A plain rowid table with these rows."""
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("CREATE TABLE rows (k INTEGER PRIMARY KEY, v INTEGER)")
        connection.execute("BEGIN")
        for keys, values in stretches:
            connection.executemany("INSERT INTO rows VALUES (?, ?)", zip(keys.tolist(), values.tolist(), strict=True))
        connection.execute("COMMIT")


def base_figure(base: Path, bare: Path, keys: Sequence[int]) -> Figure:
    """A look-up in a base with its check, beside the bare query. WrongAnswerError when they differ."""
    with closing(Table(base)) as table, closing(open_base(bare)) as connection:

        def bare_query(i: int) -> int | None:
            row = connection.execute(SELECT, (keys[i],)).fetchone()
            return None if row is None else int(row[0])

        if any(table.find(key) != bare_query(i) for i, key in enumerate(keys)):
            raise WrongAnswerError("base and plain table differ")
        times = in_turn(lambda i: table.find(keys[i]), bare_query, len(keys))
    return Figure(
        name="base look-up p50 / bare", measured=times.p50.text(), value=times.p50.ratio, at_most=BASE_TARGET,
        note="with its checksum, by key",
    )  # fmt: skip


def sealed_figure(base: Path, sealed: Path, keys: Sequence[int], epoch_key: bytes) -> Figure:
    """What sealing the blocks costs. WrongAnswerError when the sealed base says anything else."""
    with closing(Table(base)) as plain, closing(Table(sealed, epoch_key)) as closed:
        if any(closed.find(key) != plain.find(key) for key in keys):
            raise WrongAnswerError("sealed and plain base differ")
        times = in_turn(lambda i: closed.find(keys[i]), lambda i: plain.find(keys[i]), len(keys))
    return Figure(
        name="sealed base look-up p50 / plain", measured=times.p50.text(), value=times.p50.ratio,
        note="ChaCha20-Poly1305 in place of the checksum",
    )  # fmt: skip


def cold_figure(base: Path, changes: Path, keys: Sequence[int]) -> Figure:
    """Bytes read from the card for a look-up whose block is not in memory."""
    keys = keys[:COLD_LOOKUPS]
    alone, how = _cold_bytes((base,), keys)
    both, _ = _cold_bytes((changes, base), keys)
    return Figure(
        name="bytes read per cold look-up", unit="bytes", at_most=COLD_TARGET, value=alone,
        comparable=base.stat().st_size >= _LARGE_BASE,
        measured=f"{alone:,.0f} in the base ({both:,.0f} with the changes)",
        note=f"{len(keys)} look-ups on a fresh connection after dropping the file from the page cache; {how}",
    )  # fmt: skip


def _cold_bytes(paths: Sequence[Path], keys: Sequence[int]) -> tuple[float, str]:
    """Bytes for each look-up in all of these files, and how they were counted."""
    for path in paths:
        _drop(path)
    before = _io()
    for path in paths:
        with closing(Table(path)) as table:
            for key in keys:
                table.find(key)
    after = _io()
    fetched, asked = ((after[name] - before[name]) / len(keys) for name in ("read_bytes", "rchar"))
    if fetched:
        return fetched, "what the system fetched from storage (read_bytes of /proc/self/io)"
    return asked, "what SQLite asked for (rchar of /proc/self/io): this file system does not count fetches"


def _drop(path: Path) -> None:
    with path.open("rb") as handle:
        os.fsync(handle.fileno())
        os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _io() -> dict[str, int]:
    pairs = (line.partition(":")[::2] for line in _IO.read_text(encoding="ascii").splitlines())
    return {name: int(value) for name, value in pairs}
