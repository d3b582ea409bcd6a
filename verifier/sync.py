"""The nightly sync: TUF refresh, plan, download, generation, swap, marks.

Nothing is stored as accepted before it is verified, and whatever fails, the set in use stays in use.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

from verifier.cache import schema
from verifier.cache.marks import Accepted, Marks, SyncHistory, read_history
from verifier.cache.selftest import check_base
from verifier.cache.swap import (
    InUse,
    adopt,
    current_name,
    exclusive,
    file_digest,
    free_name,
    in_use,
    sweep_generations,
    sweep_parts,
    switch,
    write_generation,
)
from verifier.clock import Clock
from verifier.codec.index import MAX_INDEX, Index, decode_index, is_region
from verifier.codec.status import StatusListError, inflate
from verifier.download import Meter, fetch_base, held_bytes, status_list_path
from verifier.errors import CacheCorruptError, DigestError, SyncError
from verifier.net import Fetcher, read_file
from verifier.policy import MAX_POLICY_BYTES
from verifier.repository import ENTRIES_TARGET, POLICY_TARGET, SignedRepository, index_target
from verifier.snapshot import (
    Held,
    Kept,
    Plan,
    check_digest,
    check_index,
    check_space,
    choose_entries,
    choose_policy,
    plan,
)
from verifier.trust import MAX_BYTES as MAX_ENTRIES

CLOCK_TOLERANCE = timedelta(seconds=300)

Progress = Callable[[str, int, int], None]
"""Called with a step's name, how many bytes of it are done, and the whole."""


class StorageError(SyncError):
    """The card or its file system failed."""


class SyncOutcome(StrEnum):
    """What a sync did."""

    FRESH = "fresh"  # nothing new
    SNAPSHOT = "snapshot"  # another generation is in use now


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """A sync that ended well; `as_of` is the moment that the data in use describe."""

    outcome: SyncOutcome
    region: str
    seq_before: int | None  # None when nothing of this region was in use
    seq_after: int
    vehicles: int
    bytes_fetched: int
    requests: int
    seconds: float
    as_of: datetime
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A verified publication that may be accepted."""

    index: Index
    index_bytes: bytes
    entries: Kept
    policy: Kept

    @property
    def content(self) -> str:
        """The content hash of the generation it would make."""
        return schema.content_hash(self.index_bytes, self.entries.data, self.policy.data)

    def marks(self, floor: datetime | None) -> Accepted:
        """The high-water marks after accepting it."""
        issued = self.index.issued_at
        return Accepted(
            seq=self.index.seq,
            index_sha256=hashlib.sha256(self.index_bytes).digest(),
            key_epoch=self.index.key_epoch,
            trust_version=self.entries.version,
            policy_version=self.policy.version,
            clock_floor=issued if floor is None else max(floor, issued),
        )


def free_bytes(path: Path) -> int:
    """Room left for this user on the file system of `path`."""
    stat = os.statvfs(path)
    return stat.f_bavail * stat.f_frsize


def sync_history(root: Path) -> SyncHistory:
    """How the last syncs under this root went: only looks, and says in `last_failure` when it cannot see."""
    return read_history(root / schema.STATE)


class SyncClient:
    """Keeps the cache under `root` up to date with one region of a signed distribution.

    `bootstrap` is the root metadata the device was made with. `on_step` is told each step around which a power
    cut could come; `free_space` and `monotonic` replace the system's in tests.
    """

    def __init__(
        self,
        root: Path,
        fetcher: Fetcher,
        clock: Clock,
        bootstrap: bytes,
        region: str,
        *,
        progress: Progress | None = None,
        on_step: Callable[[str], None] | None = None,
        free_space: Callable[[Path], int] = free_bytes,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if not is_region(region):
            raise SyncError("region: not a short lower-case name")
        self._root = root
        self._fetcher = fetcher
        self._clock = clock
        self._bootstrap = bootstrap
        self._region = region
        self._progress = progress or (lambda _step, _done, _whole: None)
        self._step = on_step or (lambda _name: None)
        self._free_space = free_space
        self._monotonic = monotonic

    def refresh(self, *, recheck: bool = False) -> SyncReport:
        """Bring the cache up to date; with `recheck` also read the whole base and replace it if it is damaged.

        SyncBusyError when another sync runs; any other SyncError is kept in state.db as the last failure, and the
        set in use stays in use.
        """
        try:
            with exclusive(self._root):
                marks = Marks(self._root / schema.STATE)
                try:
                    return self._refresh(marks, recheck=recheck)
                except (SyncError, OSError, sqlite3.Error) as exc:
                    text = str(exc) if isinstance(exc, SyncError) else f"card: {type(exc).__name__}"
                    marks.failed(text, self._clock())
                    raise
        except OSError as exc:
            raise StorageError(f"card: {exc.strerror or type(exc).__name__}") from exc
        except sqlite3.Error as exc:
            raise StorageError("card: the state file cannot be used") from exc

    def _refresh(self, marks: Marks, *, recheck: bool) -> SyncReport:
        started, meter, notes = self._monotonic(), Meter(self._fetcher), list[str]()
        sweep_generations(self._root)  # orphans of a run that was cut off
        before = in_use(self._root)
        accepted = marks.accepted(self._region)
        held = self._held(before, accepted, recheck=recheck)
        if marks.lost and (before is not None or (self._root / schema.TRUST).exists()):
            notes.append("state.db was lost and begun anew with the marks of the set in use")
        now = self._now(accepted.clock_floor, notes)
        offer = self._offer(meter, now, before, held)
        notes += [kept.note for kept in (offer.entries, offer.policy) if kept.note is not None]
        todo = plan(offer.content, held)
        if todo is Plan.SNAPSHOT:
            folder = self._prepare(offer, before, meter)
            name = free_name(self._region, offer.index.seq, offer.content, current_name(self._root))
            adopt(self._root, folder, name, self._step)
        # Accepted before in use: at no moment is a set in use that an older one could still replace.
        self._step("before-accept")
        marks.accept(self._region, offer.marks(accepted.clock_floor))
        self._step("after-accept")
        if todo is Plan.SNAPSHOT:
            switch(self._root, name, self._step)
        self._step("before-marks")
        marks.succeeded(now)
        self._step("after-marks")
        sweep_generations(self._root)
        sweep_parts(self._root)
        index = offer.index
        return SyncReport(
            outcome=SyncOutcome(todo.value), region=self._region, seq_before=self._seq(before),
            seq_after=index.seq, vehicles=index.base.n, bytes_fetched=meter.bytes, requests=meter.requests,
            seconds=self._monotonic() - started, as_of=index.issued_at, notes=tuple(notes),
        )  # fmt: skip

    def _now(self, floor: datetime | None, notes: list[str]) -> datetime:
        """The clock, but never earlier than the newest signed time that was seen."""
        now = self._clock()
        if floor is not None and now < floor - CLOCK_TOLERANCE:
            notes.append("the clock is behind the newest signed time: all ages are at least what is shown")
        return now if floor is None else max(now, floor)

    def _seq(self, before: InUse | None) -> int | None:
        return before.index.seq if before is not None and before.index.region == self._region else None

    def _held(self, before: InUse | None, accepted: Accepted, *, recheck: bool) -> Held:
        seq, digest, content = accepted.seq, accepted.index_sha256, None
        if before is not None and not before.intact:
            before = None  # what was altered on the card is neither a mark nor carried on
        if before is not None and before.index.region == self._region:
            if before.index.seq > seq:
                seq, digest = before.index.seq, hashlib.sha256(before.index_bytes).digest()
            if before.sound and not (recheck and file_digest(before.base) != before.index.base.sha256):
                content = schema.content_of_name(before.name)
        return Held(
            seq=seq, index_sha256=digest, key_epoch=accepted.key_epoch, content=content,
            trust_version=accepted.trust_version, policy_version=accepted.policy_version,
            entries=before.entries if before else None, policy=before.policy if before else None,
        )  # fmt: skip

    def _offer(self, meter: Meter, now: datetime, before: InUse | None, held: Held) -> Offer:
        """What the signed distribution offers now, verified and checked against what is held."""
        repository = SignedRepository(self._root / schema.TRUST, meter, self._bootstrap, now)
        repository.refresh()
        signed = repository.get(index_target(self._region), MAX_INDEX, [before.index_bytes if before else None])
        index = decode_index(signed.data)
        check_index(index, signed.data, self._region, held)
        entries = choose_entries(repository.get(ENTRIES_TARGET, MAX_ENTRIES, [held.entries]), held)
        policy = choose_policy(repository.get(POLICY_TARGET, MAX_POLICY_BYTES, [held.policy]), held)
        self._step("verified")
        return Offer(index=index, index_bytes=signed.data, entries=entries, policy=policy)

    def _prepare(self, offer: Offer, before: InUse | None, meter: Meter) -> Path:
        """A complete and tested generation in a temporary folder."""
        index = offer.index
        packed = self._status_list(index, before, meter)
        base = self._base(index, before, meter, len(packed))
        self._step("downloaded")
        files = {
            schema.STATUS_LIST: packed,
            schema.INDEX: offer.index_bytes,
            schema.ENTRIES: offer.entries.data,
            schema.POLICY: offer.policy.data,
        }
        folder = write_generation(self._root, base, files, self._step)
        self._progress("test", 0, index.base.length)
        try:
            check_base(folder / schema.BASE, index)
        except CacheCorruptError as exc:
            raise DigestError(f"set refused: {exc}") from exc
        self._progress("test", index.base.length, index.base.length)
        return folder

    def _status_list(self, index: Index, before: InUse | None, meter: Meter) -> bytes:
        entry = index.tsl
        if before is not None and hashlib.sha256(before.status_list).digest() == entry.sha256:
            return before.status_list
        data = read_file(meter, status_list_path(index.region, entry.sha256), entry.length)
        check_digest("status list", data, entry.length, entry.sha256)
        try:
            raw = inflate(data, entry.raw_length)
        except StatusListError as exc:
            raise DigestError(str(exc)) from exc
        if len(raw) != entry.raw_length:
            raise DigestError("status list: shorter than the index says")
        return data

    def _base(self, index: Index, before: InUse | None, meter: Meter, more: int) -> Path:
        """The base's file: the one in use when it is the same, else downloaded into the stage."""
        entry = index.base
        if before is not None and before.index.base.sha256 == entry.sha256 and file_digest(before.base) == entry.sha256:
            return before.base
        part = self._root / schema.STAGE / f"{entry.sha256.hex()}.part"
        sweep_parts(self._root, keep=part.name)
        missing = max(0, entry.length - held_bytes(part))
        check_space(missing + more, self._free_space(self._root))
        fetch_base(entry, part, meter, lambda done, whole: self._progress("download", done, whole))
        return part
