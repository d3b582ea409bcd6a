"""A credential for every valid vehicle, signed on all cores and written in shards, ready to be pushed.

A shard is a gzip file of JSON lines with the codes of one issuer's vehicles; `manifest.json` names those that are
whole. A run that was cut off goes on where the manifest ends: with the same keys, and the same moment of issue.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, NamedTuple

from scripts.sandbox.fleet import Vehicle
from scripts.sandbox.folder_store import FolderStore
from scripts.sandbox.issue_sources import PRIVATE, Source, Stretch, Vehicles
from scripts.sandbox.issuer import LIFE, Extras, Issuer
from scripts.sandbox.national_churn import CREDENTIALS, OF_FLEET
from scripts.sandbox.registry import CredentialEntry, RegistryError
from verifier.cache.swap import file_digest
from verifier.clock import Clock
from verifier.durable import replace_file, taking_the_place, unfinished
from verifier.snapshot import check_space
from verifier.sync import free_bytes
from verifier.types import Month, PresentationMode

MODE = PresentationMode.STORED
PER_SHARD = 50_000  # vehicles
LINE = 200  # bytes of a packed line, at most: they are 150 to 170, for a signature does not pack
MANIFEST, ENTRIES = "manifest.json", "entries.cbor"
FORMAT = 1

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A shard that is whole. `first` and `last` are serials; `seconds` of one core went into it."""

    file: str
    vehicles: int  # looked at
    count: int  # credentials
    first: str | None
    last: str | None
    length: int  # bytes
    sha256: str
    seconds: float


class Job(NamedTuple):
    """One shard to write."""

    source: Source
    stretch: Stretch
    issued_at: datetime
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What this run did; `whole` are the shards that stand, those of runs before it included."""

    whole: tuple[Shard, ...]
    written: tuple[Shard, ...]
    processes: int
    seconds: float

    @property
    def credentials(self) -> int:
        """In all shards."""
        return sum(shard.count for shard in self.whole)

    @property
    def per_core(self) -> float:
        """Credentials a second on one core, vehicles that get none included; 0 when nothing was to be done."""
        seconds = sum(shard.seconds for shard in self.written)
        return sum(shard.count for shard in self.written) / seconds if seconds else 0.0

    def core_hours(self, credentials: int) -> float | None:
        """How long one core takes for so many at the rate of this run; None when it signed nothing."""
        return credentials / self.per_core / 3600 if self.per_core else None


def daily() -> int:
    """Credentials that the whole country needs a day: inspections and newcomers, and codes whose life ends."""
    return CREDENTIALS + OF_FLEET // LIFE[MODE].days


def issue_all(
    source_at: Callable[[datetime], Source],
    out: Path,
    *,
    clock: Clock,
    per_shard: int = PER_SHARD,
    processes: int = 1,
    limit: int | None = None,
    progress: Progress = lambda *_: None,
    free_space: Callable[[Path], int] = free_bytes,
    monotonic: Callable[[], float] = time.monotonic,
) -> Report:
    """Issue to all vehicles of a source, or the first `limit` of them, that are valid at the moment of the first run.

    RegistryError when the folder has shards of something else or another process writes there, NoSpaceError before
    anything is signed that would not fit, OSError.
    """
    began = monotonic()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FolderStore(out).exclusive():
            manifest = _Manifest.begun(source_at, out, clock().replace(microsecond=0), per_shard, limit)
            counts = manifest.counts()
            jobs = [
                Job(manifest.source, stretch, manifest.issued_at, out / _name(stretch, per_shard))
                for stretch in _stretches(counts, per_shard, limit)
            ]
            written = _written(jobs, manifest, processes, progress, free_space)
    except BlockingIOError as exc:
        raise RegistryError(f"{out}: another process is issuing into this folder") from exc
    return Report(
        whole=tuple(manifest.shards.values()), written=written, processes=processes, seconds=monotonic() - began
    )  # fmt: skip


def _written(
    jobs: Sequence[Job], manifest: _Manifest, processes: int, progress: Progress, free_space: Callable[[Path], int]
) -> tuple[Shard, ...]:
    """Write the shards that do not stand yet; each is in the manifest before the next one is waited for."""
    left = [job for job in jobs if job.path.name not in manifest.shards]
    whole, missing = (sum(job.stretch.size for job in some) for some in (jobs, left))
    check_space(missing * LINE, free_space(manifest.out))
    written, done = [], whole - missing
    progress("issue", done, whole)
    with closing(_each(left, processes)) as shards:
        for shard in shards:
            manifest.add(shard)
            written.append(shard)
            done += shard.vehicles
            progress("issue", done, whole)
    return tuple(written)


# ------------------------------------------------------------------------------------------- the manifest


class _Manifest:
    """What the folder holds: of which source, issued when, and the shards that are whole."""

    def __init__(self, out: Path, source: Source, issued_at: datetime, facts: dict[str, Any]) -> None:
        self.out, self.source, self.issued_at = out, source, issued_at
        self.shards: dict[str, Shard] = {}
        self._facts = facts

    @classmethod
    def begun(
        cls, source_at: Callable[[datetime], Source], out: Path, now: datetime, per_shard: int, limit: int | None
    ) -> _Manifest:
        """That of an earlier run with its shards that are still whole, or a new one with its keys. RegistryError."""
        found = _load(out / MANIFEST)
        if found is None and {path.name for path in out.iterdir()} - {PRIVATE, unfinished(out / MANIFEST).name}:
            raise RegistryError(f"{out} is neither empty nor the folder of a run")
        issued_at = now if found is None else found[1]
        source = source_at(issued_at)
        facts = {"format": FORMAT, "source": source.label(), "mode": MODE.value, "per_shard": per_shard, "limit": limit}
        made = cls(out, source, issued_at, facts)
        if found is None:
            source.prepare()
            made._save()
        elif {name: found[0].get(name) for name in facts} != facts:
            raise RegistryError(f"{out} holds shards of another run: go on with its options, or give another --out")
        else:
            made.shards = {shard.file: shard for shard in found[2] if _is_whole(out / shard.file, shard)}
        return made

    def counts(self) -> dict[str, int]:
        """How many vehicles each issuer has; the trust list for their codes is put beside the shards."""
        vehicles = self.source.open()
        replace_file(self.out / ENTRIES, vehicles.trust_entries())
        return vehicles.counts()

    def add(self, shard: Shard) -> None:
        """Keep that this shard is whole."""
        self.shards[shard.file] = shard
        self._save()

    def _save(self) -> None:
        shards = [asdict(self.shards[name]) for name in sorted(self.shards)]
        raw = self._facts | {"issued_at": self.issued_at.isoformat(), "shards": shards}
        replace_file(self.out / MANIFEST, json.dumps(raw, indent=1).encode() + b"\n")


def _load(path: Path) -> tuple[dict[str, Any], datetime, list[Shard]] | None:
    """The manifest, its moment of issue and its shards; None when there is none. RegistryError when it is damaged."""
    try:
        raw: dict[str, Any] = json.loads(path.read_bytes())
        return raw, datetime.fromisoformat(raw["issued_at"]), [Shard(**fields) for fields in raw["shards"]]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as exc:
        raise RegistryError(f"{path}: not a manifest that this program wrote") from exc


def _is_whole(path: Path, shard: Shard) -> bool:
    try:
        return file_digest(path).hex() == shard.sha256
    except OSError:
        return False


# --------------------------------------------------------------------------------------------- the shards


def _stretches(counts: dict[str, int], per_shard: int, limit: int | None) -> Iterator[Stretch]:
    left = sum(counts.values()) if limit is None else limit
    for issuer, count in counts.items():
        for start in range(0, min(count, left), per_shard):
            yield Stretch(issuer, start, min(per_shard, count - start, left - start))
        left -= min(count, left)


def _name(stretch: Stretch, per_shard: int) -> str:
    return f"{stretch.issuer}-{stretch.start // per_shard:05d}.jsonl.gz"


def _each(jobs: Sequence[Job], processes: int) -> Generator[Shard, None, None]:
    """The shards in order; in this process where one is enough. RegistryError when a worker was killed."""
    if processes == 1 or len(jobs) <= 1:
        opened = [job.source.open() for job in jobs[:1]]
        yield from (write_shard(opened[0], job) for job in jobs)
        return
    try:
        # Spawned, not forked: a progress bar has a thread.
        with ProcessPoolExecutor(processes, get_context("spawn"), initializer=_end_with_parent) as pool:
            yield from pool.map(_work, jobs)
    except BrokenProcessPool as exc:
        raise RegistryError("a worker was ended, perhaps for want of memory: the same command goes on") from exc


def _end_with_parent() -> None:
    """A worker that waits for work is not told that who gives it was killed."""
    parent = parent_process()
    assert parent is not None  # noqa: S101 - this is a worker

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _work(job: Job) -> Shard:
    return write_shard(_opened(job.source), job)


@cache
def _opened(source: Source) -> Vehicles:
    """Once in a worker, not for every shard."""
    return source.open()


def write_shard(vehicles: Vehicles, job: Job) -> Shard:
    """Sign for the valid vehicles of a stretch, line by line; the file appears when it is whole. OSError."""
    started, count = time.process_time(), 0
    first = last = None
    with taking_the_place(job.path) as handle:
        os.ftruncate(handle, 0)
        with os.fdopen(handle, "wb", closefd=False) as raw, _packed(raw) as lines:
            for vehicle, entry in vehicles.valid(job.stretch, Month.at(job.issued_at)):
                lines.write(_line(vehicles.issuer, vehicle, entry, job.issued_at))
                first, last, count = first or entry.serial, entry.serial, count + 1
    return Shard(
        file=job.path.name, vehicles=job.stretch.size, count=count, first=first, last=last,
        length=job.path.stat().st_size, sha256=file_digest(job.path).hex(), seconds=time.process_time() - started,
    )  # fmt: skip


def _line(issuer: Issuer, vehicle: Vehicle, entry: CredentialEntry, issued_at: datetime) -> str:
    """Whom to push to, and the text of the code."""
    credential = issuer.credential(vehicle, entry, MODE, issued_at)
    text = issuer.text(credential, extras=Extras(reason=vehicle.issue_reason))
    line = {"plate": vehicle.plate.text, "kind": vehicle.plate.kind, "serial": entry.serial, "text": text}
    return json.dumps(line, ensure_ascii=False) + "\n"


def _packed(raw: io.BufferedWriter) -> io.TextIOWrapper:
    """Lines into gzip: without name and time, so that the same codes give the same bytes."""
    return io.TextIOWrapper(gzip.GzipFile("", "wb", 1, raw, mtime=0), encoding="utf-8")
