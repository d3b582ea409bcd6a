"""The sandbox's publisher: makes and signs what the handhelds sync from. It holds private keys.

Publishes into any mapping from path to bytes: a dict in tests, a folder behind a static file server otherwise.
A night is a delta on what was published before, or another base. Order: data, index, nightly role, snapshot,
timestamp; whoever reads in between sees the publication before.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tuf.api.metadata import TargetFile  # type: ignore[attr-defined]

from firmware.bundle import RELEASE_ROLE, RELEASE_TARGET
from firmware.settings import SettingsError, read_centre_settings
from scripts.sandbox.folder_store import alone
from scripts.sandbox.hot import LIFE, HotRows, rows_between, sign_hot
from scripts.sandbox.nightly import (
    HISTORY,
    Change,
    PublicationError,
    State,
    changes_between,
    check_size,
    sign_off,
    why_no_delta,
)
from scripts.sandbox.publisher_data import RegionData
from scripts.sandbox.publisher_keys import PROVISIONING, PublisherKeys, hot_role, nightly_role
from scripts.sandbox.publisher_metadata import SignedMetadata
from scripts.sandbox.publisher_prune import Retention, unreferenced
from scripts.sandbox.release import Bundle
from verifier.cache.build import build_base
from verifier.cache.keys import KeyHasher
from verifier.cache.schema import BaseMeta
from verifier.cache.sealing import DELTA_BOX, close_box
from verifier.clock import Clock
from verifier.codec.delta import Delta, encode_delta
from verifier.codec.hot import HotList, HotListError, decode_hot, seal_rows
from verifier.codec.index import (
    DELTA_CLIENT,
    MAX_DELTAS,
    SEALED_CLIENT,
    BaseEntry,
    DeltaEntry,
    HotEntry,
    Index,
    decode_index,
    encode_index,
    is_region,
)
from verifier.download import delta_path, hot_path
from verifier.errors import TrustListError
from verifier.repository import ENTRIES_TARGET, POLICY_TARGET, SETTINGS_TARGET, index_target
from verifier.snapshot import LARGEST_SHRINK
from verifier.trust import load_trust_list
from verifier.types import Algorithm, Plate, Serial, VehicleRecord

CHUNK = 1 << 20  # bytes
NIGHTS = 45  # deltas on one base
HOT_MAX_AGE = 24 * 3600  # seconds; what an officer is told of the hot list's age begins to be a warning there
TARGETS_ROLE = "targets"

Vehicles = Iterable[tuple[VehicleRecord, str | None]]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One publication; `base_…` and `chunks` are those of the base in its index.

    `rows` is the number of rows that changed since the last one, None when the two cannot be compared; `snapshot`
    says why another base was made, None when it was a delta.
    """

    region: str
    seq: int
    issued_at: datetime
    vehicles: int
    base_length: int  # bytes
    base_sha256: bytes
    chunks: int
    index_sha256: bytes
    rows: int | None
    snapshot: str | None
    delta_length: int = 0  # bytes


@dataclass(frozen=True, slots=True)
class _Last:
    """What was published last: its number, its index where that is still there, rows changed in the nights before."""

    seq: int = 0
    index: Index | None = None
    history: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Night:
    """What a night became: base and deltas, number of vehicles, of changed rows, and why it is another base."""

    base: BaseEntry
    deltas: tuple[DeltaEntry, ...]
    vehicles: int
    rows: int | None
    why: str | None


class Publisher:
    """Signs and publishes for one region; begins a repository in an empty store or goes on with the one in it.

    To go on in another process, give it the `keys` that `save_keys` wrote. `nights` is how many deltas one base
    gets at most; `sealed` encrypts bases, deltas and hot lists under the epoch key. ValueError for a bad region name,
    and for keys that are not those of the repository in the store.
    """

    def __init__(
        self,
        store: MutableMapping[str, bytes],
        clock: Clock,
        region: str = "national",
        *,
        keys: PublisherKeys | None = None,
        chunk: int = CHUNK,
        nights: int = NIGHTS,
        sealed: bool = False,
    ) -> None:
        if not is_region(region):
            raise ValueError("region: not a short lower-case name")
        if not 0 <= nights <= MAX_DELTAS:
            raise ValueError(f"nights: not between 0 and {MAX_DELTAS}")
        self._store, self._clock, self._region, self._chunk = store, clock, region, chunk
        self._nights, self._sealed = nights, sealed
        self._data = RegionData(store, region, chunk)
        begun = SignedMetadata.begun(store)
        if begun and keys is None:
            raise ValueError("keys: those of the repository in the store are needed")
        self._keys = keys or PublisherKeys.generate(region)
        for role in (nightly_role(region), hot_role(region), RELEASE_ROLE, PROVISIONING):
            self._keys.ensure(role)
        self._metadata = SignedMetadata(store, clock, self._keys)
        if not begun:
            self._metadata.begin()
        if not self._metadata.is_ours():
            raise ValueError("keys: not those of the repository in the store")

    @property
    def begun(self) -> bool:
        """Whether there is a publication to add to."""
        return self._target() is not None

    def of_region(self, region: str) -> Publisher:
        """A publisher of another region into the same store, with the same keys and habits."""
        return Publisher(
            self._store, self._clock, region, keys=self._keys, chunk=self._chunk, nights=self._nights,
            sealed=self._sealed,
        )  # fmt: skip

    def root_bytes(self) -> bytes:
        """The root metadata that a new device is made with."""
        return self._metadata.root_bytes()

    def save_keys(self, folder: Path) -> None:
        """Write the private keys into a folder, readable by this user only. OSError."""
        self._keys.save(folder)

    def publish(
        self,
        *,
        vehicles: Vehicles,
        status_list: bytes,
        status_list_number: int,
        replated: Mapping[Serial, Plate],
        entries: bytes,
        trust_version: int,
        policy: bytes,
        policy_version: int,
        epoch_key: bytes,
        key_epoch: int,
        scope: str = "national",
        covers: tuple[str, ...] = ("*",),
        min_client: int = 1,
        snapshot: bool = False,
        fleet: int | None = None,
        accept_large: bool = False,
        fewer_keys: bool = False,
        progress: Progress | None = None,
    ) -> Published:
        """Publish the register under the next sequence number, as a delta where that is possible, and sign anew.

        `status_list` is the packed array of two-bit statuses; `snapshot` asks for another base; `fewer_keys` means a
        much shorter trust list; `fleet` is, of a list, how many rows all vehicles have that may come to stand in it.
        PublicationError when more has changed than a day's work does, unless `accept_large`, or when the delta,
        replayed, does not give the register; then nothing was signed. BuildError and PlateError as `build_base`.
        """
        with alone(self._store):
            issued_at = self._clock().replace(microsecond=0)  # the moment at which the register is read
            least, last = self._least(entries, fewer_keys), self._last()
            build = partial(
                build_base, vehicles=vehicles, region=self._region, seq=last.seq + 1, epoch_key=epoch_key,
                key_epoch=key_epoch, replated=replated, progress=progress, sealed=self._sealed,
            )  # fmt: skip
            check = None if accept_large else partial(_check_size, fleet)
            night = self._night(build, last, epoch_key, key_epoch, snapshot, check)
            index = Index(
                region=self._region, seq=last.seq + 1, issued_at=issued_at, scope=scope, covers=covers,
                key_epoch=key_epoch, base=night.base, deltas=night.deltas,
                tsl=self._data.put_status_list(status_list, status_list_number),
                min_client=max(min_client, self._least_client(night)), hot=self._hot_entry(),
            )  # fmt: skip
            index_bytes = encode_index(index)
            history = last.history if night.rows is None else (*last.history, night.rows)[-HISTORY:]
            custom = {"version": index.seq, "rows": list(history)}
            target = self._metadata.target(index_target(self._region), index_bytes, custom)
            files = self._small_files(entries, trust_version, policy, policy_version, least)
            self._metadata.sign_targets(files, self._region)
            self._metadata.sign_nightly(self._region, target)
            self._sign()
            # The night includes what the list before said, and ends it; before the first night there was no list.
            self._put_hot(HotRows(), index.seq, epoch_key, lost=bool(last.seq))
            return Published(
                region=self._region, seq=index.seq, issued_at=issued_at, vehicles=night.vehicles,
                base_length=night.base.length, base_sha256=night.base.sha256, chunks=len(night.base.hashes),
                index_sha256=sha256(index_bytes).digest(), rows=night.rows, snapshot=night.why,
                delta_length=night.deltas[-1].length if night.deltas else 0,
            )  # fmt: skip

    def publish_trust(
        self, *, entries: bytes, trust_version: int, policy: bytes, policy_version: int, fewer_keys: bool = False
    ) -> None:
        """Publish another trust list or policy between two nights: the last index stays. PublicationError."""
        with alone(self._store, wait=True):  # a withdrawn key is not given up because somebody is at work
            files = self._small_files(entries, trust_version, policy, policy_version, self._least(entries, fewer_keys))
            self._metadata.sign_targets(files, self._region)
            self._sign()

    def publish_settings(self, data: bytes) -> int:
        """Publish settings for devices in service, until others take their place; their version.

        PublicationError for what no device would take, and before the first night.
        """
        try:
            version = read_centre_settings(data)[0].version
        except SettingsError as exc:
            raise PublicationError(f"not published: settings: {exc}") from exc
        with alone(self._store, wait=True):
            files = self._metadata.targets()
            if not files:
                raise PublicationError("not published: settings go beside a trust list, and there is none yet")
            if (old := files.get(SETTINGS_TARGET)) is not None and int(old.custom["version"]) >= version:
                raise PublicationError(f"not published: settings: version {old.custom['version']} is out already")
            files[SETTINGS_TARGET] = self._metadata.target(SETTINGS_TARGET, data, {"version": version})
            self._metadata.sign_targets(files, self._region)
            self._sign()
        return version

    def publish_release(self, bundle: Bundle, *, withdrawal: bool = False) -> None:
        """Publish this as the release on offer; `withdrawal` says that those above it are not to be used.

        PublicationError before the first night.
        """
        with alone(self._store, wait=True):
            if not self.begun:
                raise PublicationError("not published: a release goes beside a night, and there is none yet")
            custom = {"version": bundle.version, "withdrawal": withdrawal}
            self._metadata.sign_release(self._metadata.target(RELEASE_TARGET, bundle.data, custom))
            self._sign()

    def private_key(self, role: str) -> Ed25519PrivateKey:
        """A key that signs what is no metadata of the distribution."""
        return self._keys.private(role)

    def renew(self) -> None:
        """Sign timestamp and snapshot anew without other changes, so that they do not expire."""
        with alone(self._store, wait=True):  # two that count up at once would both write the same number
            self._sign()

    def _sign(self) -> None:
        self._metadata.sign_release()
        self._metadata.sign_snapshot(self._region)
        self._metadata.sign_timestamp()

    def missing(self) -> list[str]:
        """What the published index of this region names and the store does not have, or not whole; sorted.

        Of chunks only the presence is looked at. A night that is published then brings another base.
        """
        index = self._last().index
        return [] if index is None else self._data.missing(index)

    def prune(self, retention: Retention | None = None, *, dry_run: bool = False) -> list[str]:
        """Take out of the store what no publication of any region within the retention refers to; the paths.

        With `dry_run` they are only told. PublicationError when what is published cannot be read, or when a night is
        being published: nothing is removed then.
        """
        with alone(self._store):
            paths = unreferenced(self._store, self._clock(), retention)
            for path in () if dry_run else paths:
                del self._store[path]
        return paths

    # -------------------------------------------------------------------------------------------- hot list

    def hot_changes(
        self, *, vehicles: Vehicles, epoch_key: bytes, key_epoch: int, progress: Progress | None = None
    ) -> HotRows:
        """What has changed in the register since the last night. PublicationError when there is none to compare."""
        index, read_at = self._last().index, self._clock().replace(microsecond=0)
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            old = self._data.read_back(index, folder, epoch_key, stack)
            if index is None or old is None or old.meta.key_check != KeyHasher(epoch_key).check_value:
                raise PublicationError("not published: there is no night under this epoch key to compare with")
            build_base(
                folder / "new.db", vehicles, region=self._region, seq=index.seq, epoch_key=epoch_key,
                key_epoch=key_epoch, progress=progress, scheme=old.meta.scheme, apart=old.exact_keys(),
            )  # fmt: skip
            rows = rows_between(old, stack.enter_context(closing(State(folder / "new.db", None, epoch_key))))
            return replace(rows, read_at=read_at, nightly_seq=index.seq)

    def publish_hot(self, rows: HotRows, epoch_key: bytes | None = None) -> HotList:
        """Sign and publish these changes since the last night, all of them; it takes the place of the list before.

        PublicationError before the first night, where another came since they were read, which has newer ones, and
        where rows are sealed without the key for it.
        """
        with alone(self._store, wait=True):
            seq = self._last().seq
            if not seq:
                raise PublicationError("not published: a hot list goes on top of a night, and there is none yet")
            if rows.nightly_seq not in (None, seq):
                raise PublicationError("not published: these changes are in the night that came meanwhile")
            return self._put_hot(rows, seq, epoch_key, lost=True)

    def _put_hot(self, rows: HotRows, seq: int, epoch_key: bytes | None, *, lost: bool) -> HotList:
        """Sign and publish; `lost` says that where there is no list to go on from, there was one."""
        now, before = self._clock().replace(microsecond=0), self.hot()
        # The time in seconds is above every number that a lost list had.
        first = int(now.timestamp()) if lost else 1
        hot = HotList(
            region=self._region, nightly_seq=seq, hot_seq=first if before is None else before.hot_seq + 1,
            issued_at=rows.read_at or now, next_update=now + LIFE, rows=rows.rows, exact=rows.exact, sealed=rows.sealed,
        )  # fmt: skip
        if self._sealed and hot.sealed is None:
            if epoch_key is None:
                raise PublicationError("not published: the rows of the hot list are to be sealed, and there is no key")
            hot = seal_rows(hot, epoch_key)
        self._store[hot_path(self._region)] = sign_hot(hot, self._keys.private(hot_role(self._region)))
        return hot

    def renew_hot(self) -> None:
        """Sign the newest hot list anew, so that it does not expire; nothing before the first night."""
        with alone(self._store, wait=True):
            if (hot := self.hot()) is not None and hot.nightly_seq == self._last().seq:
                self._put_hot(HotRows(hot.rows, hot.exact, hot.sealed), hot.nightly_seq, None, lost=True)

    def hot(self) -> HotList | None:
        """The hot list as it is published; None when there is none, or what there is cannot be read."""
        data, key = self._store.get(hot_path(self._region)), self._keys.private(hot_role(self._region)).public_key()
        try:
            return None if data is None else decode_hot(data, key)
        except HotListError:
            return None

    # ---------------------------------------------------------------------------------- what was published

    def _target(self) -> TargetFile | None:
        return self._metadata.current(nightly_role(self._region), index_target(self._region))

    def _last(self) -> _Last:
        target = self._target()
        if target is None:
            return _Last()
        data = self._metadata.bytes_of(target)
        return _Last(
            seq=int(target.custom["version"]),
            index=None if data is None else decode_index(data),
            history=tuple(target.custom.get("rows", ())),
        )

    def _why_base(
        self, index: Index | None, old: State | None, asked: bool, key_check: bytes, key_epoch: int
    ) -> str | None:
        """Why there must be another base; None when there need not."""
        if index is None:
            return "the first night" if self._target() is None else "the last index is gone"
        if asked:
            return "asked for"
        if len(index.deltas) >= self._nights:
            return f"after {len(index.deltas)} nights"
        if index.key_epoch != key_epoch:
            return "another epoch key"
        if old is None:
            return "what was published before cannot be read back"
        if old.meta.key_check != key_check:
            return "another epoch key"
        return None if (old.meta.salt is not None) == self._sealed else "sealed otherwise than before"

    # ------------------------------------------------------------------------------------------- data

    def _night(
        self, build: Callable[..., BaseMeta], last: _Last, epoch_key: bytes, key_epoch: int, asked: bool,
        check: Callable[[_Last, Change | None, BaseMeta], None] | None,
    ) -> _Night:  # fmt: skip
        """Build tonight's register, compare it with the last one, and store it as a delta or as another base."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            old = self._data.read_back(last.index, folder, epoch_key, stack)
            why = self._why_base(last.index, old, asked, KeyHasher(epoch_key).check_value, key_epoch)
            kept = {} if old is None or why else {"scheme": old.meta.scheme, "apart": old.exact_keys()}
            meta = build(folder / "new.db", **kept)
            new = stack.enter_context(closing(State(folder / "new.db", None, epoch_key)))
            change = changes_between(old, new) if old and old.meta.key_check == meta.key_check else None
            if check is not None:
                check(last, change, meta)
            if old is None or last.index is None or change is None or why or (why := why_no_delta(old, new, change)):
                base, deltas = self._data.put_base(folder / "new.db", last.seq + 1, meta.n), tuple[DeltaEntry, ...]()
            else:
                base = last.index.base
                deltas = (*last.index.deltas, self._put_delta(last.index, old, new, change, folder / "replayed.db"))
        return _Night(base, deltas, meta.n, None if change is None else len(change), why)

    def _hot_entry(self) -> HotEntry:
        key = self._keys.private(hot_role(self._region)).public_key()
        return HotEntry(key_alg=int(Algorithm.EDDSA), key=key.public_bytes_raw(), max_age_s=HOT_MAX_AGE)

    def _least_client(self, night: _Night) -> int:
        """The first program that can read all of it."""
        if self._sealed:
            return SEALED_CLIENT
        return DELTA_CLIENT if night.deltas else 1

    def _put_delta(self, index: Index, old: State, new: State, change: Change, replayed: Path) -> DeltaEntry:
        """The change as a delta behind the last one; stored only when a device's replay of it gives the register."""
        delta = Delta(
            region=self._region, seq_from=index.seq, seq_to=index.seq + 1, base_seq=index.base.seq,
            key_epoch=index.key_epoch, keys=change.keys, values=change.values, exact=change.exact,
            replated=change.replated,
        )  # fmt: skip
        encoded = encode_delta(delta)
        if self._sealed and new.epoch_key is not None:  # a register that is sealed was built under one
            encoded = close_box(new.epoch_key, DELTA_BOX, encoded)
        entry = DeltaEntry(
            seq_from=delta.seq_from, seq_to=delta.seq_to, length=len(encoded),
            sha256=sha256(encoded).digest(), rows=len(change.keys),
        )  # fmt: skip
        sign_off(old, encoded, entry, new, replayed)
        self._store[delta_path(self._region, entry.sha256)] = encoded
        return entry

    def _small_files(
        self, entries: bytes, trust_version: int, policy: bytes, policy_version: int, least: int
    ) -> dict[str, TargetFile]:
        custom = {"version": trust_version} | ({"least": least} if least else {})
        targets = (
            self._metadata.target(ENTRIES_TARGET, entries, custom),
            self._metadata.target(POLICY_TARGET, policy, {"version": policy_version}),
        )
        kept = {path: old for path, old in self._metadata.targets().items() if path == SETTINGS_TARGET}
        return kept | {target.path: target for target in targets}

    def _least(self, entries: bytes, fewer_keys: bool) -> int:
        """The fewest keys that a trust list is meant to have from now on; it goes down only when that is asked for.

        Devices take a list that lost more than half of what they hold only when it has at least so many.
        """
        try:
            count = len(load_trust_list(entries).keys)
        except TrustListError as exc:
            raise PublicationError(f"not published: trust list: {exc}") from exc
        old = self._metadata.current(TARGETS_ROLE, ENTRIES_TARGET)
        least = int(old.custom.get("least", 0)) if old is not None else 0
        if count >= max(least, 1):
            return max(least, -(-count // LARGEST_SHRINK))
        if count == 0 or not fewer_keys:
            raise PublicationError(
                f"not published: the trust list has {count} keys and should have {max(least, 1)} at least"
            )
        return count


def _check_size(fleet: int | None, last: _Last, change: Change | None, meta: BaseMeta) -> None:
    """PublicationError for a night that is too large; where nights cannot be compared, by the vehicles' number.

    A list is measured by its `fleet`, because its own length and the nights before say little of it.
    """
    if change is not None:
        rows, history = (meta.keys - change.growth, last.history) if fleet is None else (fleet, ())
        check_size(len(change), rows, history)
    elif last.index is not None:
        check_size(abs(meta.n - last.index.base.n), last.index.base.n if fleet is None else fleet, ())
