"""The status cache at national scale: every figure beside its target, from one generated fleet."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np

from scripts.bench.cache_cuts import VEHICLES, cuts_figure
from scripts.bench.cache_dead_server import dead_server_figures
from scripts.bench.cache_distribution import BASE_SEQ, REGION, Distribution, Publication, base_meta, status_list
from scripts.bench.cache_figures import CacheResult
from scripts.bench.cache_lookups import (
    SELECT,
    WHOLE_TARGET,
    base_figure,
    cold_figure,
    in_turn,
    sealed_figure,
    write_bare,
)
from scripts.bench.cache_nights import (
    Night,
    apply_figures,
    apply_first,
    apply_next,
    facts,
    floor_bytes,
    make_nights,
    wire_figures,
)
from scripts.bench.cache_sync import (
    Device,
    Sample,
    check_answers,
    first_install,
    hot_figure,
    missed_nights,
    nothing_new,
    reader_figures,
    wire_figure,
)
from scripts.bench.figures import Figure
from scripts.sandbox.national import National, Numbers
from scripts.sandbox.national_churn import Churn
from scripts.sandbox.national_rows import Rows, SortedFleet, pack_blocks, sort_fleet
from verifier.cache.blocks import PER, PER_SEALED, encode_groups
from verifier.cache.build import write_base_blocks
from verifier.cache.schema import SALT_LENGTH, BaseMeta, open_base
from verifier.cache.store import StatusStore
from verifier.cache.values import parse_combo
from verifier.clock import system_clock
from verifier.types import Plate

Progress = Callable[[str, int, int], None]

SEED = 1
TODAY = date(2026, 11, 22)
EPOCH_KEY = bytes(range(32))  # of a made-up fleet
LOOKUPS = 20_000
BUILD_TARGET = 2.0  # million rows a second
SIZE_TARGET, SIZE_FLOOR_TARGET = 7.5, 1.65  # bytes a vehicle; times the information floor
FULL = 10_000_000  # vehicles from which blocks are full, so that the targets of size are meant
SMALLEST, LARGEST = 1000, 60_000_000  # vehicles
DISK_BYTES = 80  # a vehicle, for all files of a run

HOT_ROWS = 14

_LETTERS, _STOLEN = 0xFFFF, parse_combo("C")  # of a wide value


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fleet:
    """What is measured on, in one folder."""

    folder: Path
    national: National
    base: Path
    bare: Path
    meta: BaseMeta
    twins: tuple[int, ...]
    numbers: Numbers  # the sample that is looked up
    plates: list[Plate]
    keys: list[int]


def bench_cache(scale: int, nights: int, folder: Path, progress: Progress) -> CacheResult:
    """All figures for `scale` vehicles and so many nights; everything is written below `folder`.

    WrongAnswerError when an answer differs from the register: then there are no figures.
    """
    fleet, figures = _make_fleet(scale, folder, progress)
    lookups = (
        base_figure(fleet.base, fleet.bare, fleet.keys),
        sealed_figure(fleet.base, folder / "sealed.db", fleet.keys, EPOCH_KEY),
    )
    figures = [*lookups, *figures]
    churn = Churn(fleet.national, spared=fleet.twins)
    made = list(make_nights(churn, nights, REGION, BASE_SEQ, progress))
    before = facts(churn, fleet.numbers)
    made += make_nights(churn, 1, REGION, BASE_SEQ, progress)
    sample = Sample(fleet.plates, before, facts(churn, fleet.numbers))
    figures += wire_figures(made)
    figures += apply_figures(
        apply_first(folder, fleet.base, made[0]), apply_next(folder, fleet.base, made, progress), nights
    )
    figures.append(cold_figure(fleet.base, folder / "changes.db", fleet.keys))
    figures += _device_figures(fleet, made, sample, progress)
    cuts = cuts_figure(National(VEHICLES, SEED, TODAY, EPOCH_KEY), folder / "cuts", partial(progress, "power cuts"))
    return CacheResult(vehicles=scale, nights=nights, nightly=churn.nightly, figures=(*figures, cuts))


def _make_fleet(scale: int, folder: Path, progress: Progress) -> tuple[_Fleet, list[Figure]]:
    """The fleet, its base and the plain table, with the figures of building the base."""
    national = National(scale, SEED, TODAY, EPOCH_KEY)
    processes = 1 if scale <= 200_000 else os.cpu_count() or 1
    fleet = sort_fleet(national, progress, processes=processes)
    meta = base_meta(national, fleet.vehicles)
    base, bare = folder / "base.db", folder / "bare.db"
    seconds = _write(base, fleet, meta, partial(progress, "base"))
    write_bare(bare, _told(fleet, partial(progress, "plain table")))
    sealed = replace(meta, salt=secrets.token_bytes(SALT_LENGTH))
    _write(folder / "sealed.db", fleet, sealed, partial(progress, "sealed base"))
    numbers = national.numbers(np.random.default_rng(SEED).integers(0, scale, LOOKUPS))
    numbers = np.setdiff1d(numbers, fleet.twins)  # their key alone does not say whose facts they are
    np.random.default_rng(SEED).shuffle(numbers)
    hashed = national.hashed(numbers, national.wides(numbers))
    values = np.concatenate([rows.values for rows in fleet.rows()])
    made = _Fleet(
        folder=folder, national=national, base=base, bare=bare, meta=meta, twins=tuple(fleet.twins), numbers=numbers,
        plates=national.plates(numbers), keys=hashed.keys.tolist(),
    )  # fmt: skip
    return made, list(_build_figures(fleet, seconds, base.stat().st_size, floor_bytes(fleet.keys, values)))


def _told(fleet: SortedFleet, report: Callable[[int, int], None]) -> Iterator[Rows]:
    """The fleet's rows, with progress."""
    for number, rows in enumerate(fleet.rows(), 1):
        yield rows
        report(number, len(fleet.groups))


def _write(path: Path, fleet: SortedFleet, meta: BaseMeta, report: Callable[[int, int], None]) -> tuple[float, float]:
    """Write a base, sealed where it has a salt; the seconds it took, and those of them on the processor."""
    per = PER if meta.salt is None else PER_SEALED
    began, cpu = time.perf_counter(), time.process_time()
    write_base_blocks(
        path, pack_blocks(_told(fleet, report), per), meta, exact=encode_groups(fleet.exact), epoch_key=EPOCH_KEY
    )
    return time.perf_counter() - began, time.process_time() - cpu


def _build_figures(fleet: SortedFleet, seconds: tuple[float, float], length: int, floor: float) -> Iterator[Figure]:
    full = fleet.vehicles >= FULL
    note = "" if full else "keys lie too far apart to fill the blocks, which end after 2^32 keys"
    yield Figure(
        name="bytes per vehicle", unit="B", value=length / fleet.vehicles, at_most=SIZE_TARGET, comparable=full,
        measured=f"{length / fleet.vehicles:.3f} B ({length / 1e6:.1f} MB)", note=note,
    )  # fmt: skip
    yield Figure(
        name="bytes per vehicle / information floor", value=length / floor, at_most=SIZE_FLOOR_TARGET, comparable=full,
        measured=f"{length / floor:.2f}x ({floor / fleet.vehicles:.2f} B at least)",
        note="48-bit keys as a random set, values by their distribution in the fleet",
    )  # fmt: skip
    whole, cpu = seconds
    rate = fleet.keys / whole / 1e6
    yield Figure(
        name="base build", unit="million rows/s", value=rate, at_least=BUILD_TARGET, comparable=full,
        measured=f"{rate:.2f} million rows/s ({whole:.1f} s, {cpu:.1f} s CPU)",
        note="from sorted arrays to the file, before it is forced to the disk",
    )  # fmt: skip


def _device_figures(fleet: _Fleet, nights: Sequence[Night], sample: Sample, progress: Progress) -> Iterator[Figure]:
    """A device that installs the base, misses all nights, and then follows."""
    distribution = Distribution(fleet.folder / "public", system_clock)
    base = distribution.put_base(fleet.base, BASE_SEQ, fleet.meta.n)
    tsl = distribution.put_status_list(status_list(fleet.meta.n, SEED))
    root = fleet.folder / "device"
    with distribution.served() as url:
        device = Device(root, url, system_clock, distribution.root, REGION)
        distribution.publish(Publication(base, tsl, ()))
        progress("sync", 0, 5)
        yield from first_install(device, base)
        progress("sync", 1, 5)
        distribution.publish(Publication(base, tsl, nights[:-1]))
        yield missed_nights(device, len(nights) - 1, sum(night.entry.rows for night in nights[:-1]))
        progress("sync", 2, 5)
        yield from nothing_new(device)
        sample = _with_stolen(sample)
        rows = dict(zip(fleet.keys, sample.before, strict=True))
        yield hot_figure(
            device, distribution, nights[-2].entry.seq_to, {key: rows[key] for key in fleet.keys[:HOT_ROWS]}
        )
        with closing(StatusStore(root, EPOCH_KEY)) as store:
            check_answers(store, sample.plates, sample.before)
            yield from _whole_figures(fleet, store)
        progress("sync", 3, 5)
        distribution.publish(Publication(base, tsl, nights))
        yield from reader_figures(device, EPOCH_KEY, sample)
        progress("sync", 4, 5)
        with closing(StatusStore(root, EPOCH_KEY)) as store:
            check_answers(store, sample.plates, sample.after)
        progress("sync", 5, 5)
    yield from dead_server_figures(device, EPOCH_KEY, sample.plates)
    yield wire_figure(tsl.length, fleet.meta.n)


def _with_stolen(sample: Sample) -> Sample:
    """The sample with its first vehicles reported as stolen after the last of the missed nights."""
    stolen = [None if wide is None else wide & ~_LETTERS | _STOLEN for wide in sample.before[:HOT_ROWS]]
    return sample._replace(before=stolen + sample.before[HOT_ROWS:])


def _whole_figures(fleet: _Fleet, store: StatusStore) -> Iterator[Figure]:
    with closing(open_base(fleet.bare)) as connection:
        times = in_turn(
            lambda i: store.vehicle(fleet.plates[i]),
            lambda i: connection.execute(SELECT, (fleet.keys[i],)).fetchone(),
            len(fleet.plates),
        )
    for name, quantiles in (("p50", times.p50), ("p99", times.p99)):
        yield Figure(
            name=f"whole look-up {name} / bare {name}", measured=quantiles.text(), value=quantiles.ratio,
            at_most=WHOLE_TARGET,
            note="plate to record: generation in use, hash, hot list, changes, base, record",
        )  # fmt: skip
