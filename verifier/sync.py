"""The sync: TUF refresh, plan, download, generation, swap, marks; and the hot list between two nights.

Nothing is stored as accepted before it is verified, and whatever fails, the set in use stays in use.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from verifier.cache import schema
from verifier.cache.changes import write_changes
from verifier.cache.keys import KEY_LENGTH, KeyHasher
from verifier.cache.marks import Accepted, NewerStateError, SyncHistory, read_history
from verifier.cache.schema import BaseMeta
from verifier.cache.sealing import open_seal
from verifier.cache.selftest import check_base, check_changes, read_base_meta
from verifier.cache.state import Marks
from verifier.cache.store import StatusStore
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
from verifier.codec.delta import DeltaFormatError, decode_delta
from verifier.codec.hot import MAX_HOT, HotListError, decode_hot, hot_key
from verifier.codec.index import MAX_INDEX, DeltaEntry, Index, decode_index, is_region
from verifier.codec.status import StatusListError, inflate
from verifier.download import Meter, detach, fetch_base, fetch_delta, held_bytes, hot_path, status_list_path
from verifier.durable import replace_file
from verifier.errors import CacheCorruptError, CacheError, DigestError, EpochKeyError, NotFoundError, SyncError
from verifier.net import Fetcher, read_file
from verifier.policy import MAX_POLICY_BYTES
from verifier.repository import (
    ENTRIES_TARGET,
    MAX_SETTINGS,
    POLICY_TARGET,
    SETTINGS_TARGET,
    NotSignedError,
    SignedRepository,
    index_target,
)
from verifier.signature import PublicKey
from verifier.snapshot import (
    ExpiredError,
    Held,
    HotHeld,
    Offer,
    Plan,
    check_digest,
    check_hot,
    check_index,
    check_space,
    choose_entries,
    choose_policy,
    plan,
)
from verifier.sync_report import HotReport, KeyNeededError, SettingsFile, StorageError, SyncReport
from verifier.trust import MAX_BYTES as MAX_ENTRIES
from verifier.trusted_time import TrustedTime

CLOCK_TOLERANCE = timedelta(seconds=300)
# What a delta may add to changes.db: rows in blocks that are half full, or, where side tables are most of it, what
# its bytes inflate to.
ROW_BYTES, INFLATED = 16, 4

Progress = Callable[[str, int, int], None]
"""Called with a step's name, how many bytes of it are done, and the whole."""


def free_bytes(path: Path) -> int:
    """Room left for this user on the file system of `path`."""
    stat = os.statvfs(path)
    return stat.f_bavail * stat.f_frsize


def sync_history(root: Path) -> SyncHistory:
    """How the last syncs under this root went: only looks, and says in `last_failure` when it cannot see."""
    return read_history(root / schema.STATE)


class SyncClient:
    """Keeps the cache under `root` up to date with one region of a signed distribution.

    `bootstrap` is the root metadata the device was made with. `epoch_key` serves only to write changes over a sealed
    base; where it is None or another epoch's, `ask_key` is asked for the one of now. `trusted_time` takes note of
    signed times, and `settings` takes those that the distribution has. `on_step` is told each step around which a
    power cut could come; `free_space` and `monotonic` replace the system's in tests.
    """

    def __init__(
        self,
        root: Path,
        fetcher: Fetcher,
        clock: Clock,
        bootstrap: bytes,
        region: str,
        *,
        epoch_key: bytes | None = None,
        ask_key: Callable[[], bytes | None] = lambda: None,
        trusted_time: TrustedTime | None = None,
        settings: SettingsFile | None = None,
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
        self._epoch_key, self._ask_key = epoch_key, ask_key
        self._time = trusted_time
        self._settings = settings
        self._progress = progress or (lambda _step, _done, _whole: None)
        self._step = on_step or (lambda _name: None)
        self._free_space = free_space
        self._monotonic = monotonic

    def refresh(self, *, recheck: bool = False) -> SyncReport:
        """Bring the cache up to date; with `recheck` also read all of it and replace what is damaged.

        SyncBusyError when another sync runs; any other SyncError is kept in state.db as the last failure, and the
        set in use stays in use.
        """
        with _storage_errors(), exclusive(self._root):
            marks = Marks(self._root / schema.STATE)
            try:
                return self._refresh(marks, recheck=recheck)
            except (SyncError, OSError, sqlite3.Error) as exc:
                text = str(exc) if isinstance(exc, SyncError) else f"card: {type(exc).__name__}"
                marks.failed(text, self._clock())
                if isinstance(exc, ExpiredError) and self._time is not None:
                    raise ExpiredError("; ".join((text, *self._time.expired()))) from exc
                raise

    def refresh_hot(self) -> HotReport:
        """Bring the hot list up to date with the publisher's; it counts at once for the next look-up.

        SyncError when there is no nightly of this region to put it on, RollbackError for an older one than was
        accepted, ExpiredError for one past its time, SyncBusyError as above. The one in use stays in use then.
        """
        with _storage_errors(), exclusive(self._root):
            return self._refresh_hot(Marks(self._root / schema.STATE))

    # ---------------------------------------------------------------------------------------- the nightly

    def _refresh(self, marks: Marks, *, recheck: bool) -> SyncReport:
        started, meter, notes = self._monotonic(), Meter(self._fetcher), list[str]()
        sweep_generations(self._root)  # orphans of a run that was cut off
        before = in_use(self._root)
        accepted = marks.accepted(self._region)
        held = self._held(before, accepted, notes, recheck=recheck)
        if marks.lost and (lost := self._lost(before)) is not None:
            notes.append(lost)
        now = self._now(accepted.clock_floor, notes)
        repository = SignedRepository(self._root / schema.TRUST, meter, self._bootstrap, now)
        offer = self._offer(repository, before, held)
        notes += [kept.note for kept in (offer.entries, offer.policy) if kept.note is not None]
        todo = plan(offer.content, offer.index, held)
        if todo is not Plan.FRESH:
            todo, folder = self._prepare(todo, offer, before, meter, notes)
            name = free_name(self._region, offer.index.seq, offer.content, current_name(self._root))
            adopt(self._root, folder, name, self._step)
        # Accepted before in use: at no moment is a set in use that an older one could still replace.
        self._step("before-accept")
        marks.accept(self._region, offer.marks(accepted.clock_floor))
        self._step("after-accept")
        if todo is not Plan.FRESH:
            switch(self._root, name, self._step)
            if before is not None and before.index.region != self._region:
                (self._root / schema.HOT).unlink(missing_ok=True)
        self._step("before-marks")
        marks.succeeded(now)
        self._step("after-marks")
        sweep_generations(self._root)
        sweep_parts(self._root)
        index = offer.index
        if self._time is not None:
            notes += self._time.signed(index.issued_at)
        notes += (*self._notes_in_use(), *self._take_settings(repository))
        return SyncReport(
            outcome=todo, region=self._region, seq_before=self._seq(before),
            seq_after=index.seq, vehicles=index.base.n, changed_rows=sum(delta.rows for delta in index.deltas),
            bytes_fetched=meter.bytes, requests=meter.requests,
            seconds=self._monotonic() - started, as_of=index.issued_at, notes=tuple(notes),
        )  # fmt: skip

    def _notes_in_use(self) -> tuple[str, ...]:
        """What is wrong with files that the set in use can do without."""
        with suppress(CacheError), closing(StatusStore(self._root, bytes(KEY_LENGTH))) as store:
            return store.info().notes
        return ()

    def _take_settings(self, repository: SignedRepository) -> tuple[str, ...]:
        """Settings for devices in service, where there are any: whatever is wrong with them, the data are in use."""
        if self._settings is None:
            return ()
        try:
            note = self._settings.take(repository.get(SETTINGS_TARGET, MAX_SETTINGS, [self._settings.held]).data)
        except NotSignedError:
            return ()
        except SyncError as exc:
            note = f"settings of the centre not taken: {exc}"
        except OSError as exc:
            note = f"settings of the centre not taken: card: {exc.strerror or type(exc).__name__}"
        return (note,) if note else ()

    def _lost(self, before: InUse | None) -> str | None:
        if before is not None or (self._root / schema.TRUST).exists():
            return "state.db was lost and begun anew with the marks of the set in use"
        if (self._root / schema.GENERATIONS).exists():
            return "state reset: all that said what this device had accepted is gone, so what came first was taken"
        return None  # a new device

    def _now(self, floor: datetime | None, notes: list[str]) -> datetime:
        """The clock, but never earlier than the newest signed time that was seen."""
        now = self._clock()
        if floor is not None and now < floor - CLOCK_TOLERANCE:
            notes.append("the clock is behind the newest signed time: all ages are at least what is shown")
        return now if floor is None else max(now, floor)

    def _seq(self, before: InUse | None) -> int | None:
        return before.index.seq if before is not None and before.index.region == self._region else None

    def _held(self, before: InUse | None, accepted: Accepted, notes: list[str], *, recheck: bool) -> Held:
        held = Held(
            seq=accepted.seq, index_sha256=accepted.index_sha256, key_epoch=accepted.key_epoch,
            trust_version=accepted.trust_version, policy_version=accepted.policy_version,
        )  # fmt: skip
        if before is None or not before.intact:
            return held  # what was altered on the card is neither a mark nor carried on
        held = replace(held, entries=before.entries, policy=before.policy)
        if before.index.region != self._region:
            return held
        if before.index.seq > held.seq:
            digest = hashlib.sha256(before.index_bytes).digest()
            held = replace(held, seq=before.index.seq, index_sha256=digest)
        damage = "it is incomplete" if not before.sound else self._damage(before) if recheck else None
        if damage is not None:
            notes.append(f"the set in use was damaged: {damage}")
            return held
        return replace(held, content=schema.content_of_name(before.name), index=before.index)

    def _damage(self, before: InUse) -> str | None:
        """What is wrong with the large files of the set in use; all of them are read. KeyNeededError."""
        if (digest := _digest(before.base)) != before.index.base.sha256:
            return "base: digest" if digest else "base: cannot be read"
        if before.changes is None:
            return None
        try:
            meta = read_base_meta(before.base)
            key = self._key_of(meta)
            if meta.salt is not None:
                open_seal(meta, key)  # without it only what stands outside the seal would be read
            check_changes(before.changes, meta, before.index, key)
        except CacheCorruptError as exc:
            return str(exc)
        except EpochKeyError as exc:
            raise KeyNeededError(f"changes cannot be checked: {exc}") from exc
        return None

    def _offer(self, repository: SignedRepository, before: InUse | None, held: Held) -> Offer:
        """What the signed distribution offers now, verified and checked against what is held."""
        repository.refresh()
        signed = repository.get(index_target(self._region), MAX_INDEX, [before.index_bytes if before else None])
        index = decode_index(signed.data)
        check_index(index, signed.data, self._region, held, repository.ends)
        entries = choose_entries(repository.get(ENTRIES_TARGET, MAX_ENTRIES, [held.entries]), held)
        policy = choose_policy(repository.get(POLICY_TARGET, MAX_POLICY_BYTES, [held.policy]), held)
        kept = before is not None and entries.note is not None
        as_of = before.entries_as_of if before is not None and kept else index.issued_at
        self._step("verified")
        return Offer(index=index, index_bytes=signed.data, entries=entries, entries_as_of=as_of, policy=policy)

    # ------------------------------------------------------------------------------- the next generation

    def _prepare(
        self, todo: Plan, offer: Offer, before: InUse | None, meter: Meter, notes: list[str]
    ) -> tuple[Plan, Path]:
        """A complete and tested generation in a temporary folder, and the plan by which it was made."""
        packed = self._status_list(offer.index, before, meter)
        if todo is Plan.DELTAS and before is not None:
            try:
                return todo, self._with_deltas(offer, packed, before, meter)
            except (NotFoundError, DigestError, DeltaFormatError) as exc:
                notes.append(f"the deltas did not lead on from the set in use, so a snapshot was taken: {exc}")
        return Plan.SNAPSHOT, self._snapshot(offer, packed, before, meter, notes)

    def _with_deltas(self, offer: Offer, packed: bytes, before: InUse, meter: Meter) -> Path:
        """The base in use, the changes in use, and the deltas behind them."""
        index, changes = offer.index, before.changes
        if new := index.deltas[len(before.index.deltas) :]:
            self._check_space(new, held_bytes(changes) if changes else 0, 0)
            parts = self._deltas(new, meter, keep=())
            self._step("downloaded")
            changes = self._changes(index, before.base, changes, new, parts)
        else:
            self._step("downloaded")
        return self._write(offer, packed, before.base, changes)

    def _snapshot(self, offer: Offer, packed: bytes, before: InUse | None, meter: Meter, notes: list[str]) -> Path:
        """The base of the index and all its deltas; what is right of the base in use is not fetched again."""
        index = offer.index
        part = self._stage(index.base.sha256, "part")
        detach(part)
        old = self._root / schema.CURRENT / schema.BASE
        same = before is None or before.index.base.sha256 == index.base.sha256
        same = same and held_bytes(old) == index.base.length
        whole = same and _digest(old) == index.base.sha256
        self._check_space(index.deltas, 0, 0 if whole else max(0, index.base.length - held_bytes(part)))
        # The deltas first: where one is missing, that is known before the base has cost its time.
        parts = self._deltas(index.deltas, meter, keep=(part.name,))
        base = old if whole else part
        if not whole:
            fetched = fetch_base(
                index.base, part, meter, lambda done, all_: self._progress("download", done, all_),
                spare=old if same else None,
            )  # fmt: skip
            if same:
                notes.append(f"the base was repaired: {fetched} of {len(index.base.hashes)} chunks fetched anew")
        self._step("downloaded")
        self._test_base(base, index)
        changes = self._changes(index, base, None, index.deltas, parts) if parts else None
        return self._write(offer, packed, base, changes)

    def _stage(self, sha256: bytes, suffix: str) -> Path:
        return self._root / schema.STAGE / f"{sha256.hex()}.{suffix}"

    def _check_space(self, deltas: tuple[DeltaEntry, ...], changes: int, base: int) -> None:
        """NoSpaceError unless deltas, the changes that they make and the missing part of a base have room."""
        grown = sum(max(ROW_BYTES * delta.rows, INFLATED * delta.length) for delta in deltas)
        to_fetch = sum(delta.length for delta in deltas)
        check_space(base + to_fetch + changes + grown, self._free_space(self._root))

    def _deltas(self, entries: tuple[DeltaEntry, ...], meter: Meter, keep: tuple[str, ...]) -> list[Path]:
        """These deltas as verified files in the stage, where nothing else stays but `keep`."""
        parts = [self._stage(entry.sha256, "delta") for entry in entries]
        sweep_parts(self._root, keep=(*keep, *(part.name for part in parts)))
        whole = sum(entry.length for entry in entries)
        done = 0
        for entry, part in zip(entries, parts, strict=True):
            self._progress("deltas", done, whole)
            fetch_delta(entry, self._region, part, meter)
            done += entry.length
        self._progress("deltas", whole, whole)
        return parts

    def _changes(
        self, index: Index, base: Path, previous: Path | None, entries: tuple[DeltaEntry, ...], parts: list[Path]
    ) -> Path:
        """A tested changes.db in the stage: those in use, if any, with these deltas."""
        out = self._root / schema.STAGE / schema.CHANGES
        try:
            meta = read_base_meta(base)
            key = self._key_of(meta)
            deltas = (decode_delta(part.read_bytes(), entry, key) for part, entry in zip(parts, entries, strict=True))
            write_changes(out, base, previous, deltas, self._progress, epoch_key=key)
            check_changes(out, meta, index, key)
        except EpochKeyError as exc:
            raise KeyNeededError(
                f"changes cannot be written without a shift or an answer of the centre: {exc}"
            ) from exc
        except CacheCorruptError as exc:
            raise DigestError(f"set refused: {exc}") from exc
        self._step("applied")
        return out

    def _fitting_key(self, meta: BaseMeta) -> bytes | None:
        """The epoch key at hand, if it is the one that these data are of."""
        key = self._epoch_key
        return key if key is not None and KeyHasher(key).check_value == meta.key_check else None

    def _key_of(self, meta: BaseMeta) -> bytes | None:
        """The same, for sealed data the centre's where there is none; from then on that is the one at hand."""
        if (held := self._fitting_key(meta)) is not None or meta.salt is None:
            return held
        if (key := self._ask_key()) is not None:
            self._epoch_key = key
        return self._fitting_key(meta)

    def _test_base(self, base: Path, index: Index) -> None:
        self._progress("test", 0, index.base.length)
        try:
            # Another epoch's set is taken without its key, or none would ever follow: its digest proves it.
            check_base(base, index, self._fitting_key(read_base_meta(base)))
        except CacheCorruptError as exc:
            raise DigestError(f"set refused: {exc}") from exc
        self._progress("test", index.base.length, index.base.length)

    def _write(self, offer: Offer, packed: bytes, base: Path, changes: Path | None) -> Path:
        files = {
            schema.STATUS_LIST: packed,
            schema.INDEX: offer.index_bytes,
            schema.ENTRIES: offer.entries.data,
            schema.POLICY: offer.policy.data,
        }
        if offer.entries_as_of != offer.index.issued_at:
            files[schema.ENTRIES_DATE] = str(int(offer.entries_as_of.timestamp())).encode()
        linked = {schema.BASE: base} | ({schema.CHANGES: changes} if changes is not None else {})
        return write_generation(self._root, linked, files, self._step)

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

    # --------------------------------------------------------------------------------------- the hot list

    def _refresh_hot(self, marks: Marks) -> HotReport:
        started, meter, notes = self._monotonic(), Meter(self._fetcher), list[str]()
        before = in_use(self._root)
        if before is None or not before.intact or before.index.region != self._region:
            raise SyncError("hot list: there is no nightly of this region in use to put it on")
        if before.index.hot is None:
            raise SyncError("hot list: the nightly in use names none")
        key, path = hot_key(before.index.hot), self._root / schema.HOT
        held = self._held_hot(marks, path, key)
        data = read_file(meter, hot_path(self._region), MAX_HOT)
        hot = decode_hot(data, key)
        check_hot(hot, data, before.index, held, self._now(held.floor, notes))
        fresh = path.exists() and path.read_bytes() == data
        if not fresh:
            # As with the nightly: accepted before in use.
            marks.accept_hot(self._region, hot.hot_seq, hashlib.sha256(data).digest())
            self._step("hot-accepted")
            replace_file(path, data)
            self._step("hot-replaced")
        return HotReport(
            fresh=fresh, region=self._region, seq_before=held.seq or None, seq_after=hot.hot_seq,
            rows=hot.count, bytes_fetched=meter.bytes,
            seconds=self._monotonic() - started, as_of=hot.issued_at,
            next_update=hot.next_update, notes=tuple(notes),
        )  # fmt: skip

    def _held_hot(self, marks: Marks, path: Path, key: PublicKey) -> HotHeld:
        """What was accepted: by state.db, or by the list in use where that was lost."""
        seq, sha256 = marks.hot(self._region)
        with suppress(OSError, HotListError):
            data = path.read_bytes()
            hot = decode_hot(data, key)
            if hot.region == self._region and hot.hot_seq > seq:
                seq, sha256 = hot.hot_seq, hashlib.sha256(data).digest()
        return HotHeld(seq=seq, sha256=sha256, floor=marks.accepted(self._region).clock_floor)


def _digest(path: Path) -> bytes | None:
    """SHA-256 of a file; None when the card does not give it, which is for the sync to repair."""
    try:
        return file_digest(path)
    except OSError:
        return None


@contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise StorageError(f"card: {exc.strerror or type(exc).__name__}") from exc
    except NewerStateError as exc:
        raise StorageError(f"{exc}: update this program") from exc
    except sqlite3.Error as exc:
        raise StorageError("card: the state file cannot be used") from exc
