"""Look-ups in the generation in use: the officer's path, standard library and CBOR only.

Each look-up first asks where `current` points, so a new generation is noticed by the next scan; what was opened of
the old one stays open until then.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from verifier.cache import schema
from verifier.cache.blocks import find_in_block, find_in_group
from verifier.cache.keys import CREDENTIAL, PLATE, TAG, KeyHasher, key48, plate_bytes, serial_bytes, tag_bytes
from verifier.cache.values import SEE_EXACT, from_wide
from verifier.codec.index import EVERYWHERE, IndexFormatError, decode_index
from verifier.codec.status import ListedStatus, StatusListError, inflate, unpack
from verifier.errors import CacheCorruptError, CacheMissingError, EpochKeyError, PlateError
from verifier.plates import usual_kind
from verifier.types import CredentialState, CredentialStatus, Plate, Serial, VehicleRecord

T = TypeVar("T")

_STATES = {
    ListedStatus.ACTIVE: CredentialState.ACTIVE,
    ListedStatus.REVOKED: CredentialState.REVOKED,
    ListedStatus.SUSPENDED: CredentialState.SUPERSEDED,  # not a current document either: a note, never a pass
    ListedStatus.SUPERSEDED: CredentialState.SUPERSEDED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationInfo:
    """The generation in use, as its index says; `as_of` is the moment its data describe, `bytes` its size on disk."""

    region: str
    seq: int
    as_of: datetime
    scope: str
    covers: tuple[str, ...]  # plate prefixes, or ("*",)
    vehicles: int
    bytes: int
    key_epoch: int
    path: Path


class StatusStore:
    """The status cache under `root`. May be asked from several threads; `close` is harmless twice.

    Every method may raise CacheMissingError (no generation in use) and CacheCorruptError (stored bytes fail a
    check: the answer is "cannot say"). Those that hash an identity also raise EpochKeyError when the generation
    was made under another epoch key; only they read base.db, so a damaged one costs no other answer. A `hasher` in
    place of the real one serves to force collisions in tests.
    """

    def __init__(self, root: Path, epoch_key: bytes, *, hasher: KeyHasher | None = None) -> None:
        self._root = root
        self._current = str(root / schema.CURRENT)
        self._hasher = hasher or KeyHasher(epoch_key)
        self._lock = threading.Lock()
        self._open: _Generation | None = None

    def close(self) -> None:
        """Close the generation; the next look-up opens it again."""
        with self._lock:
            if self._open is not None:
                self._open.close()
                self._open = None

    def info(self) -> GenerationInfo:
        """What is in use."""
        with self._lock:
            return self._generation().info

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
            wide = self._base().wide(self._digest(PLATE, plate_bytes, plate))
            return None if wide is None else from_wide(wide, plate)

    def vehicle_by_tag(self, tid: str, plate: Plate) -> VehicleRecord | None:
        """The record of the vehicle whose tag has this TID (hex), for the plate that the tag shows."""
        with self._lock:
            wide = self._base().wide(self._digest(TAG, tag_bytes, tid))
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
            state = None if listed is None else _STATES.get(listed)
            if state is None:
                return None
            plate = None
            if listed is ListedStatus.SUPERSEDED:
                plate = self._new_plate(self._base(), serial, plates)
            return CredentialStatus(state=state, superseded_by_plate=plate)

    def trust_entries(self) -> bytes:
        """The trust list that was signed together with the set in use."""
        with self._lock:
            return self._generation().entries

    def policy(self) -> bytes:
        """The policy that was signed together with the set in use."""
        with self._lock:
            return self._generation().policy

    def _new_plate(self, base: _Base, serial: Serial, plates: Iterable[Plate]) -> str | None:
        digest = self._digest(CREDENTIAL, serial_bytes, serial)
        target = None if digest is None else base.replated(digest)
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

    def _base(self) -> _Base:
        """The base of that generation; EpochKeyError when it was made under another key."""
        base = _looked_twice(lambda: self._follow().base())
        if base.meta.key_check != self._hasher.check_value:
            raise EpochKeyError("epoch key: not the one this set was made under")
        return base

    def _follow(self) -> _Generation:
        try:
            target = os.readlink(self._current)  # noqa: PTH115 - half the time, and each scan pays it
        except OSError as exc:
            raise CacheMissingError("no generation in use") from exc
        if self._open is not None and self._open.target == target:
            return self._open
        fresh = _Generation(self._root, target)
        if self._open is not None:
            self._open.close()
        self._open = fresh
        return fresh


class _Generation:
    """One opened folder: the small files checked and in memory, base.db opened when it is first asked for.

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
        self._base: _Base | None = None
        size = len(index_bytes) + len(self.entries) + len(self.policy) + len(self._packed)
        with suppress(OSError):
            size += (path / schema.BASE).stat().st_size
        self.info = GenerationInfo(
            region=self.index.region, seq=self.index.seq, as_of=self.index.issued_at, scope=self.index.scope,
            covers=self.index.covers, vehicles=self.index.base.n, bytes=size, key_epoch=self.index.key_epoch, path=path,
        )  # fmt: skip

    def close(self) -> None:
        if self._base is not None:
            self._base.close()
            self._base = None

    def base(self) -> _Base:
        """The base; CacheCorruptError when it cannot be opened, FileNotFoundError when it is gone."""
        if self._base is None:
            self._base = _Base(self.info.path / schema.BASE)
        return self._base

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


class _Base:
    """An opened base.db."""

    def __init__(self, path: Path) -> None:
        self._connection, self.meta = _open(path)

    def close(self) -> None:
        self._connection.close()

    def wide(self, digest: bytes | None) -> int | None:
        if digest is None:
            return None
        key = key48(digest)
        row = self._row("SELECT k, d FROM seg WHERE k >= ? ORDER BY k LIMIT 1", key)
        if row is None:  # the last block ends at the highest key there can be
            raise CacheCorruptError("base: a block is missing")
        value = find_in_block(*row, key)
        if value is None:
            return None
        if value != SEE_EXACT:
            return self.meta.scheme.widen(value)
        row = self._row("SELECT k, d FROM exact WHERE k = ?", key)
        if row is None:
            raise CacheCorruptError("base: an exact row is missing")
        return find_in_group(*row, digest)

    def replated(self, digest: bytes) -> int | None:
        row = self._row("SELECT k, d FROM replated WHERE k = ?", key48(digest))
        return None if row is None else find_in_group(*row, digest)

    def _row(self, statement: str, key: int) -> tuple[int, bytes] | None:
        try:
            row = self._connection.execute(statement, (key,)).fetchone()
        except schema.DAMAGE as exc:
            raise CacheCorruptError("base: not readable") from exc
        if row is None:
            return None
        k, d = row
        if type(d) is not bytes:
            raise CacheCorruptError("base: a row of another type")
        return k, d


def _looked_twice(look: Callable[[], T]) -> T:
    """What `look` opens. Between its reading the link and opening a file a sync may have swapped and swept."""
    try:
        return look()
    except FileNotFoundError:
        try:
            return look()
        except FileNotFoundError as exc:
            raise CacheCorruptError("generation: a file is missing") from exc


def _open(path: Path) -> tuple[sqlite3.Connection, schema.BaseMeta]:
    connection = None
    try:
        connection = schema.open_base(path)
        return connection, schema.read_meta(connection)
    except (*schema.DAMAGE, CacheCorruptError) as exc:
        if connection is not None:
            connection.close()
        if not os.path.lexists(path):  # swept away meanwhile: worth a second look
            raise FileNotFoundError(path.name) from exc
        raise CacheCorruptError("base: cannot be opened") from exc


def _with_kind(plate: Plate) -> Plate:
    return plate if plate.kind is not None else Plate(plate.text, usual_kind(plate.text))
