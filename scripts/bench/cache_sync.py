"""The real sync client against a distribution on the loopback address: what a night costs the device."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np

from scripts.bench.cache_distribution import Distribution
from scripts.bench.cache_lookups import WrongAnswerError
from scripts.bench.figures import Figure
from scripts.sandbox.national_churn import OF_FLEET
from verifier.cache.store import StatusStore
from verifier.cache.swap import file_digest
from verifier.cache.values import from_wide
from verifier.clock import Clock
from verifier.codec.index import BaseEntry
from verifier.download import held_bytes
from verifier.errors import CacheError, FetchError
from verifier.net import Fetcher, HttpFetcher
from verifier.sync import SyncClient
from verifier.sync_report import HotReport, SyncOutcome, SyncReport
from verifier.types import Plate, VehicleRecord

INSTALL_TARGET, READER_TARGET, MISSED_NIGHTS_TARGET = 3.0, 3.0, 45.0
TSL_TARGET = 1.2  # MB at full scale
TUF_BYTES, TUF_REQUESTS = 1024, 2
HOT_TARGET = 10.0  # ms
_HOT_LISTS = 11
_IDLE_S = 1.5  # seconds that the reader reads before and after the apply
_BREAK_AT = 0.45  # of the base
_LARGE_BASE = 100_000_000  # bytes from which a file's hash takes longer than opening and closing things


class BrokenLink:
    """A fetcher whose link goes down after so many bytes of the base."""

    def __init__(self, fetcher: Fetcher, after: int) -> None:
        self._fetcher, self._left = fetcher, after

    def fetch(self, path: str, max_length: int) -> Iterator[bytes]:
        """As `Fetcher.fetch`."""
        for piece in self._fetcher.fetch(path, max_length):
            if path.startswith("chunk/"):
                self._left -= len(piece)
                if self._left < 0:
                    raise FetchError(path, "the link went down")
            yield piece


class ChunkMeter:
    """A fetcher that counts the bytes of the base that go through it."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self.bytes = 0

    def fetch(self, path: str, max_length: int) -> Iterator[bytes]:
        """As `Fetcher.fetch`."""
        for piece in self._fetcher.fetch(path, max_length):
            self.bytes += len(piece) if path.startswith("chunk/") else 0
            yield piece


class _Noting:
    """A fetcher that tells when a file was received."""

    def __init__(self, fetcher: Fetcher, step: Callable[[str], None]) -> None:
        self._fetcher, self._step = fetcher, step

    def fetch(self, path: str, max_length: int) -> Iterator[bytes]:
        """As `Fetcher.fetch`."""
        yield from self._fetcher.fetch(path, max_length)
        self._step("received")


@dataclass
class Device:
    """A handheld's cache folder, and where it syncs from."""

    root: Path
    url: str
    clock: Clock
    bootstrap: bytes
    region: str
    steps: dict[str, float] = field(default_factory=dict)  # when each step of the last sync was reached
    cpu: dict[str, float] = field(default_factory=dict)  # and how much processor time had been used by then

    def refresh(self, fetcher: Fetcher | None = None) -> SyncReport:
        """One sync, through this fetcher or plainly over HTTP."""
        with HttpFetcher(self.url) as http:
            report = self._client(fetcher or http).refresh()
        self._reached("done")
        return report

    def refresh_hot(self) -> HotReport:
        """One refresh of the hot list over HTTP; notes when all of it was received."""
        with HttpFetcher(self.url) as http:
            return self._client(_Noting(http, self._reached)).refresh_hot()

    def _client(self, fetcher: Fetcher) -> SyncClient:
        return SyncClient(self.root, fetcher, self.clock, self.bootstrap, self.region, on_step=self._reached)

    def through(self) -> HttpFetcher:
        """Its plain fetcher, to be wrapped."""
        return HttpFetcher(self.url)

    def _reached(self, step: str) -> None:
        self.steps[step], self.cpu[step] = time.perf_counter(), time.process_time()


def first_install(device: Device, base: BaseEntry) -> Iterator[Figure]:
    """A download that breaks off and is taken up again, and what follows a complete download."""
    with device.through() as http:
        try:
            device.refresh(BrokenLink(http, int(base.length * _BREAK_AT)))
        except FetchError:
            pass
        else:
            raise WrongAnswerError("the link went down and the sync did not notice")
        missing = base.length - max(map(held_bytes, (device.root / "stage").glob("*.part")), default=0)
        meter = ChunkMeter(http)
        device.refresh(meter)
    again = (meter.bytes - missing) / base.chunk
    yield Figure(
        name="resume after a broken link", unit="chunks over", value=again, at_most=1,
        measured=f"{meter.bytes:,} bytes fetched again for {missing:,} missing",
        note="the link went down in the middle of a chunk",
    )  # fmt: skip
    installed, cpu = (times["done"] - times["downloaded"] for times in (device.steps, device.cpu))
    sha_s = _sha256_seconds(next((device.root / "gen").glob("*/base.db")))
    yield Figure(
        name="install after download / sha256 of the file", value=installed / sha_s, at_most=INSTALL_TARGET,
        comparable=base.length >= _LARGE_BASE,
        measured=f"{installed / sha_s:.2f}x ({installed:.2f} s, {cpu:.2f} s CPU / {sha_s:.2f} s)",
        note="every block read and checked, folder written, swapped, marks raised",
    )  # fmt: skip


def _sha256_seconds(path: Path) -> float:
    times = []
    for _ in range(3):
        began = time.perf_counter()
        file_digest(path)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def missed_nights(device: Device, nights: int, rows: int) -> Figure:
    """All nights since the base in one sync."""
    began = time.process_time()
    report = device.refresh()
    cpu = time.process_time() - began
    if report.outcome is not SyncOutcome.DELTAS:
        raise WrongAnswerError(f"the device made a {report.outcome} where deltas were to be had")
    return Figure(
        name=f"{nights} missed nights", unit="s", value=report.seconds, at_most=MISSED_NIGHTS_TARGET,
        measured=f"{report.seconds:.1f} s, {cpu:.1f} s CPU ({rows:,} rows, {report.bytes_fetched:,} bytes)",
        comparable=rows >= 0.9 * nights * 200_000,
        note="the whole sync on the loopback address: signatures, download, merge, test of every block, swap",
    )  # fmt: skip


def nothing_new(device: Device) -> Iterator[Figure]:
    """A sync that finds nothing new."""
    report = device.refresh()
    if report.outcome is not SyncOutcome.FRESH:
        raise WrongAnswerError(f"the device made a {report.outcome} where nothing was new")
    yield Figure(
        name="requests when nothing is new", unit="", value=float(report.requests), at_most=TUF_REQUESTS,
        measured=str(report.requests), note="real client on the loopback address",
    )  # fmt: skip
    yield Figure(
        name="bytes when nothing is new", unit="B", value=float(report.bytes_fetched), at_most=TUF_BYTES,
        measured=f"{report.bytes_fetched:,} B",
    )  # fmt: skip


def hot_figure(device: Device, distribution: Distribution, nightly_seq: int, rows: Mapping[int, int | None]) -> Figure:
    """Hot lists with these rows, one after the other; the last one stays in use."""
    times = []
    for hot_seq in range(1, _HOT_LISTS + 1):
        distribution.publish_hot(nightly_seq, hot_seq, rows)
        report = device.refresh_hot()
        if report.fresh or report.rows != len(rows):
            raise WrongAnswerError("the device did not take the new hot list")
        steps = device.steps
        commit, swap = (steps["hot-replaced"] - steps[name] for name in ("received", "hot-accepted"))
        times.append((commit, swap, _forced_write_seconds(device.root / "forced")))
    commit, swap, forced = (statistics.median(column) * 1000 for column in zip(*times, strict=True))
    return Figure(
        name=f"hot list of {len(rows)} rows: commit", unit="ms", value=commit, at_most=HOT_TARGET,
        measured=f"{commit:.1f} ms ({swap:.1f} ms of them for the file); one forced write {forced:.1f} ms",
        note="from the last byte to its being in use: signature, mark in state.db and file, both forced to the disk",
    )  # fmt: skip


def _forced_write_seconds(path: Path) -> float:
    """What this disk takes to write one page and to force it down."""
    with path.open("wb", buffering=0) as handle:
        began = time.perf_counter()
        handle.write(bytes(4096))
        os.fsync(handle.fileno())
        return time.perf_counter() - began


def wire_figure(length: int, credentials: int) -> Figure:
    """The status list on the wire; the target grows with the number of credentials."""
    limit = TSL_TARGET * credentials / OF_FLEET
    return Figure(
        name="status list on the wire", unit="MB", value=length / 1e6, at_most=round(limit, 6),
        measured=f"{length / 1e6:.3f} MB", comparable=credentials >= 500_000,
        note=f"two bits for each of {credentials:,} credentials, 1.7 % of them not active; {TSL_TARGET} MB at "
        f"{OF_FLEET:,}",
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------- a reader


class Sample(NamedTuple):
    """Vehicles and what may be said of each: facts before and after a night, None for one that is not there."""

    plates: list[Plate]
    before: list[int | None]
    after: list[int | None]


class _Readings(NamedTuple):
    idle_ns: list[int]
    applying_ns: list[int]
    errors: int


def reader_figures(device: Device, epoch_key: bytes, sample: Sample) -> Iterator[Figure]:
    """Another process looks up vehicles all the time while this one applies a night."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_read, args=(theirs, device.root, epoch_key, sample), daemon=True)
    process.start()
    try:
        ours.recv()  # it is reading
        time.sleep(_IDLE_S)
        ours.send("apply")
        device.refresh()
        ours.send("idle")
        time.sleep(_IDLE_S)
        ours.send("stop")
        readings: _Readings = ours.recv()
    finally:
        ours.close()
        process.join(10)
    idle, applying = (float(np.percentile(times or [0], 99)) for times in readings[:2])
    yield Figure(
        name="look-ups during the apply: p99 / idle p99", value=applying / idle, at_most=READER_TARGET,
        measured=f"{applying / idle:.2f}x ({applying / 1000:.0f} / {idle / 1000:.0f} µs, "
        f"{len(readings.applying_ns):,} look-ups)",
        note="a process of its own through the whole sync of one night, swap of the generation included",
    )  # fmt: skip
    yield Figure(
        name="look-ups during the apply: errors", unit="", value=float(readings.errors), at_most=0,
        measured=str(readings.errors), note="exceptions, and answers that neither the night before nor this one gives",
    )  # fmt: skip


def _read(pipe: Connection, root: Path, epoch_key: bytes, sample: Sample) -> None:
    """The reading process: until it is told to stop."""
    store, phase, errors = StatusStore(root, epoch_key), "idle", 0
    times: dict[str, list[int]] = {"idle": [], "apply": []}
    allowed = [
        {_record(a, plate), _record(b, plate)}
        for plate, a, b in zip(sample.plates, sample.before, sample.after, strict=True)
    ]
    pipe.send("reading")
    while phase != "stop":
        for plate, answers in zip(sample.plates, allowed, strict=True):
            began = time.perf_counter_ns()
            try:
                answer = store.vehicle(plate)
            except CacheError:
                answer = None
                errors += 1
            times[phase].append(time.perf_counter_ns() - began)
            errors += answer not in answers
            if pipe.poll():
                phase = pipe.recv()
                if phase == "stop":
                    break
    store.close()
    pipe.send(_Readings(times["idle"], times["apply"], errors))


def _record(wide: int | None, plate: Plate) -> VehicleRecord | None:
    return None if wide is None else from_wide(wide, plate)


def check_answers(store: StatusStore, plates: Sequence[Plate], wides: Sequence[int | None]) -> None:
    """WrongAnswerError when the store says anything else than the register of any of these vehicles."""
    wrong = sum(store.vehicle(plate) != _record(wide, plate) for plate, wide in zip(plates, wides, strict=True))
    if wrong:
        raise WrongAnswerError(f"{wrong} of {len(plates)} look-ups answer otherwise than the register")
