"""Look-ups in the generation in use: the officer's path, standard library and CBOR only.

Each look-up first asks where `current` points, so a new generation is noticed by the next scan; what was opened of
the old one stays open until then.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Set
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from verifier.cache import schema
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
from verifier.cache.tables import Table
from verifier.cache.values import SEE_EXACT, TOMBSTONE, from_wide
from verifier.codec.hot import MAX_HOT, HotList, HotListError, decode_hot, hot_key, open_rows
from verifier.codec.index import EVERYWHERE, Index, IndexFormatError, decode_index
from verifier.codec.status import ListedStatus, StatusListError, inflate, unpack
from verifier.errors import CacheCorruptError, CacheMissingError, EpochKeyError, PlateError
from verifier.plates import usual_kind
from verifier.types import CredentialState, CredentialStatus, Plate, Serial, VehicleRecord

T = TypeVar("T")

DOCUMENT_STATES = {
    ListedStatus.ACTIVE: CredentialState.ACTIVE,
    ListedStatus.REVOKED: CredentialState.REVOKED,
    ListedStatus.SUSPENDED: CredentialState.SUPERSEDED,  # not a current document either: a note, never a pass
    ListedStatus.SUPERSEDED: CredentialState.SUPERSEDED,
}
"""What a listed status means for a document, from whatever source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationInfo:
    """The generation in use, as its index says; `as_of` is the moment its data describe, `bytes` its size on disk.

    The hot list's own moment stands apart: it tells of the vehicles that changed, and nothing of documents.
    """

    region: str
    seq: int  # of the newest change in it
    as_of: datetime
    scope: str
    covers: tuple[str, ...]  # plate prefixes, or ("*",)
    vehicles: int  # in the base; the changes above it are of rows (plates and tags), which tell no vehicles apart
    bytes: int
    key_epoch: int
    path: Path
    base_seq: int  # of the base below the changes
    changed_rows: int  # in the nights since that base; a row that changed in two nights counts twice
    trust_as_of: datetime  # the moment that its trust list describes: an older one may have been kept
    hot_seq: int | None = None  # None: no hot list counts
    hot_as_of: datetime | None = None
    hot_due: datetime | None = None  # when the list after it was to come
    notes: tuple[str, ...] = ()  # what is wrong with files that the answers can do without


class StatusStore:
    """The status cache under `root`. May be asked from several threads; `close` is harmless twice.

    Every method may raise CacheMissingError (no generation in use) and CacheCorruptError (stored bytes fail a
    check: the answer is "cannot say"). Those that hash an identity also raise EpochKeyError when the generation
    was made under another epoch key; only they read base.db and changes.db, so a damaged one costs no other answer.
    A `hasher` in place of the real one serves to force collisions in tests.
    """

    def __init__(self, root: Path, epoch_key: bytes, *, hasher: KeyHasher | None = None) -> None:
        self._root = root
        self._current = str(root / schema.CURRENT)
        self._epoch_key = epoch_key
        self._hasher = hasher or KeyHasher(epoch_key)
        self._hot = _HotFile(root / schema.HOT)
        self._lock = threading.Lock()
        self._open: _Generation | None = None
        self._ready: tuple[str, _Vehicles] | None = None  # target and vehicles that a look-up found in order

    def close(self) -> None:
        """Close the generation; the next look-up opens it again."""
        with self._lock:
            if self._open is not None:
                self._open.close()
                self._open = self._ready = None

    def info(self) -> GenerationInfo:
        """What is in use."""
        with self._lock:
            generation = self._generation()
            hot = self._hot.of(generation.index)
            notes = () if self._hot.note is None else (self._hot.note,)
            if hot is None:
                return replace(generation.info, notes=notes)
            return replace(
                generation.info, hot_seq=hot.hot_seq, hot_as_of=hot.issued_at, hot_due=hot.next_update, notes=notes
            )

    def covers(self, plate: Plate) -> bool:
        """Whether absence of this plate from the set says anything."""
        return any(p == EVERYWHERE or plate.text.startswith(p) for p in self.info().covers)

    def vehicle(self, plate: Plate) -> VehicleRecord | None:
        """The record of a plate, None when it is not in the set.

        A plate whose kind is not known is looked up under the usual kind of its class and no other: the same text
        under another kind is another vehicle, and its record says nothing of this one.
        """
        plate = _with_kind(plate)
        with self._lock:
            wide = self._wide(PLATE, plate_bytes, plate)
            return None if wide is None else from_wide(wide, plate)

    def vehicle_by_tag(self, tid: str, plate: Plate) -> VehicleRecord | None:
        """The record of the vehicle whose tag has this TID (hex), for the plate that the tag shows."""
        with self._lock:
            wide = self._wide(TAG, tag_bytes, tid)
            return None if wide is None else from_wide(wide, plate)

    def vehicle_by_card(self, card: str, plate: Plate) -> VehicleRecord | None:
        """The record of the vehicle with this plate, if its tag's card has this number; None for any other pair.

        `card` is the number as printed, or the tag's whole TID (hex).
        """
        plate = _with_kind(plate)
        with self._lock:
            wide = self._wide(CARD, lambda number: card_bytes(plate, number), card)
            return None if wide is None else from_wide(wide, plate)

    def credential(
        self, serial: Serial, status_list: int, status_index: int, plates: Iterable[Plate]
    ) -> CredentialStatus | None:
        """The state of a credential by its place in the status list.

        None says nothing about it: another list's number, or a place behind the end of the list. A suspended
        credential is answered as superseded, without a new plate: it is not a current document, and the decision
        makes a note of that and never a pass. A superseded one names its vehicle's new plate when that is one of
        `plates` (those that were seen): the set knows plates only as hashes.
        """
        with self._lock:
            listed = self._generation().listed(status_list, status_index)
            state = None if listed is None else DOCUMENT_STATES.get(listed)
            if state is None:
                return None
            plate = None
            if listed is ListedStatus.SUPERSEDED:
                plate = self._new_plate(self._vehicles(), serial, plates)
            return CredentialStatus(state=state, superseded_by_plate=plate)

    def trust_entries(self) -> bytes:
        """The trust list that was signed together with the set in use."""
        with self._lock:
            return self._generation().entries

    def policy(self) -> bytes:
        """The policy that was signed together with the set in use."""
        with self._lock:
            return self._generation().policy

    def _wide(self, person: bytes, to_bytes: Callable[[T], bytes], identity: T) -> int | None:
        vehicles = self._vehicles()
        digest = self._digest(person, to_bytes, identity)
        return None if digest is None else vehicles.wide(digest, self._hot.rows_of(vehicles.index, self._epoch_key))

    def _new_plate(self, vehicles: _Vehicles, serial: Serial, plates: Iterable[Plate]) -> str | None:
        digest = self._digest(CREDENTIAL, serial_bytes, serial)
        target = None if digest is None else vehicles.replated(digest)
        if target is None:
            return None
        for plate in plates:
            digest = self._digest(PLATE, plate_bytes, _with_kind(plate))
            if digest is not None and key48(digest) == target:
                return plate.text
        return None

    def _digest(self, person: bytes, to_bytes: Callable[[T], bytes], identity: T) -> bytes | None:
        """The hash of an identity; None for one that no set can hold, because the builder refuses it too."""
        try:
            return self._hasher.digest(person, to_bytes(identity))
        except PlateError:
            return None

    def _generation(self) -> _Generation:
        """The generation `current` names now, opened anew when that has changed."""
        return _looked_twice(self._follow)

    def _vehicles(self) -> _Vehicles:
        """Base and changes of that generation; EpochKeyError when they were made under another key."""
        if self._ready is not None and self._ready[0] == self._target():
            return self._ready[1]
        vehicles = _looked_twice(lambda: self._follow().vehicles(self._epoch_key))
        if vehicles.base.meta.key_check != self._hasher.check_value:
            raise EpochKeyError("epoch key: not the one this set was made under")
        if self._open is not None:
            self._ready = self._open.target, vehicles
        return vehicles

    def _target(self) -> str:
        try:
            return os.readlink(self._current)  # noqa: PTH115 - half the time, and each scan pays it
        except OSError as exc:
            raise CacheMissingError("no generation in use") from exc

    def _follow(self) -> _Generation:
        target = self._target()
        if self._open is not None and self._open.target == target:
            return self._open
        fresh = _Generation(self._root, target)
        self._ready = None
        if self._open is not None:
            self._open.close()
        self._open = fresh
        return fresh


class _Generation:
    """One opened folder: the small files checked and in memory, base and changes opened when they are first asked for.

    A damaged base must not take the status list with it: a revoked credential stays revoked.
    """

    def __init__(self, root: Path, target: str) -> None:
        self.target = target
        path = root / target
        try:
            index_bytes = (path / schema.INDEX).read_bytes()
            self.entries = (path / schema.ENTRIES).read_bytes()
            self.policy = (path / schema.POLICY).read_bytes()
            self._packed = (path / schema.STATUS_LIST).read_bytes()
        except FileNotFoundError:
            raise
        except OSError as exc:
            raise CacheCorruptError("generation: a file cannot be read") from exc
        content = schema.content_hash(index_bytes, self.entries, self.policy)
        if schema.content_of_name(path.name) != content:
            raise CacheCorruptError("generation: small files do not fit its name")
        try:
            self.index = decode_index(index_bytes)
        except IndexFormatError as exc:
            raise CacheCorruptError(f"generation: {exc}") from exc
        if hashlib.sha256(self._packed).digest() != self.index.tsl.sha256:
            raise CacheCorruptError("status list: digest")
        self._list: bytes | None = None
        self._vehicles: _Vehicles | None = None
        size = len(index_bytes) + len(self.entries) + len(self.policy) + len(self._packed)
        for name in (schema.BASE, schema.CHANGES):
            with suppress(OSError):
                size += (path / name).stat().st_size
        self.info = GenerationInfo(
            region=self.index.region, seq=self.index.seq, as_of=self.index.issued_at, scope=self.index.scope,
            covers=self.index.covers, vehicles=self.index.base.n, bytes=size, key_epoch=self.index.key_epoch, path=path,
            base_seq=self.index.base.seq, changed_rows=sum(delta.rows for delta in self.index.deltas),
            trust_as_of=schema.entries_as_of(path, self.index.issued_at),
        )  # fmt: skip

    def close(self) -> None:
        if self._vehicles is not None:
            self._vehicles.close()
            self._vehicles = None

    def vehicles(self, epoch_key: bytes) -> _Vehicles:
        """Base and changes; CacheCorruptError when one cannot be opened, FileNotFoundError when one is gone."""
        if self._vehicles is None:
            self._vehicles = _Vehicles(self.info.path, self.index, epoch_key)
        return self._vehicles

    def listed(self, number: int, index: int) -> ListedStatus | None:
        entry = self.index.tsl
        if number != entry.number:
            return None
        try:
            if self._list is None:
                self._list = inflate(self._packed, entry.raw_length)
                self._packed = b""  # once inflated, the packed form is not needed any more
            value = unpack(self._list, entry.bits, index)
        except StatusListError as exc:
            raise CacheCorruptError(str(exc)) from exc
        return ListedStatus(value) if value is not None and value in tuple(ListedStatus) else None


class _Vehicles:
    """What is known of vehicles: the changes, where there are any, and the base below them."""

    def __init__(self, path: Path, index: Index, epoch_key: bytes) -> None:
        self.index = index
        with ExitStack() as stack:
            self.base = stack.enter_context(closing(Table(path / schema.BASE, epoch_key)))
            self._tables = [self.base]
            if index.deltas:
                changes = stack.enter_context(closing(Table(path / schema.CHANGES, epoch_key)))
                schema.check_same_base(changes.meta, self.base.meta)
                if changes.meta.seq != index.seq:
                    raise CacheCorruptError("changes: not as new as the index")
                self._tables.insert(0, changes)
            stack.pop_all()

    def close(self) -> None:
        for table in self._tables:
            table.close()

    def wide(self, digest: bytes, hot: HotList | None) -> int | None:
        """The newest word on an identity, None when it is not in the register."""
        key = key48(digest)
        if hot is not None:
            if digest in hot.exact:
                return hot.exact[digest]
            if key in hot.rows:
                if self._told_apart(key) not in (None, {digest}):
                    raise CacheCorruptError("hot list: a row without its full hash")
                return hot.rows[key]
        for table in self._tables:
            value = table.find(key)
            if value is None:
                continue
            if value == SEE_EXACT:
                return table.exact(key).get(digest)
            if value == TOMBSTONE and table is not self.base:
                return None
            return table.meta.scheme.widen(value)
        return None

    def replated(self, digest: bytes) -> int | None:
        """The 48-bit key of the plate that the vehicle of an old credential has now."""
        for table in self._tables:
            if (target := table.group("replated", key48(digest)).get(digest)) is not None:
                return target
        return None

    def _told_apart(self, key: int) -> Set[bytes] | None:
        """The identities that have this key, where they are listed by their full hashes."""
        for table in self._tables:
            if (value := table.find(key)) is not None:
                return table.exact(key).keys() if value == SEE_EXACT else None
        return None


class _HotFile:
    """hot.cose, read again whenever it was replaced. Whatever is wrong with it costs its rows and nothing else."""

    def __init__(self, path: Path) -> None:
        self._path = os.fsencode(path)
        self._seen: object = None
        self._hot: HotList | None = None
        self.note: str | None = None

    def rows_of(self, index: Index, epoch_key: bytes) -> HotList | None:
        """The same with its rows, for the key of the set in use."""
        hot = self.of(index)
        if hot is not None and hot.sealed is not None:
            try:
                self._hot = hot = open_rows(hot, epoch_key)
            except HotListError as exc:
                self._hot = hot = None
                self.note = str(exc)
        return hot

    def of(self, index: Index) -> HotList | None:
        """The list that counts on top of this index, its rows perhaps still sealed; None when there is none."""
        try:
            stat = os.stat(self._path)  # noqa: PTH116 - each look-up pays it
            mark = (stat.st_ino, stat.st_mtime_ns, stat.st_size, index)
        except OSError:
            mark = None
        if mark != self._seen:
            self._hot, self.note = (None, None) if mark is None else self._load(index)
            self._seen = mark
        return self._hot

    def _load(self, index: Index) -> tuple[HotList | None, str | None]:
        if index.hot is None:
            return None, "hot list: the set in use names no key for one"
        try:
            with open(self._path, "rb") as handle:  # noqa: PTH123 - bytes, which `stat` takes faster than a text
                hot = decode_hot(handle.read(MAX_HOT + 1), hot_key(index.hot))
        except OSError:
            return None, "hot list: cannot be read"
        except HotListError as exc:
            return None, str(exc)
        if hot.region != index.region:
            return None, "hot list: of another region"
        if hot.nightly_seq > index.seq:
            return None, "hot list: on top of a newer set than the one in use"
        return (hot if hot.nightly_seq == index.seq else None), None  # a newer set holds its rows


def _looked_twice(look: Callable[[], T]) -> T:
    """What `look` opens. Between its reading the link and opening a file a sync may have swapped and swept."""
    try:
        return look()
    except FileNotFoundError:
        try:
            return look()
        except FileNotFoundError as exc:
            raise CacheCorruptError("generation: a file is missing") from exc


def _with_kind(plate: Plate) -> Plate:
    return plate if plate.kind is not None else Plate(plate.text, usual_kind(plate.text))
