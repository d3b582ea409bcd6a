"""The sandbox's publisher: makes and signs what the handhelds sync from. It holds private keys.

Publishes into any mapping from path to bytes: a dict in tests, a folder behind a static file server otherwise.
Order: data, index, nightly role, snapshot, timestamp; whoever reads in between sees the publication before.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tuf.api.metadata import (  # type: ignore[attr-defined]
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from scripts.sandbox.publisher_keys import ROLES, PublisherKeys
from verifier.cache.build import build_base
from verifier.clock import Clock
from verifier.codec.index import BaseEntry, Index, StatusListEntry, encode_index, is_region
from verifier.codec.status import deflate
from verifier.download import chunk_path, status_list_path
from verifier.repository import ENTRIES_TARGET, METADATA, POLICY_TARGET, TARGETS, index_target
from verifier.types import Plate, Serial, VehicleRecord

CHUNK = 1 << 20  # bytes
LIST_BITS = 2
EXPIRY = {
    "root": timedelta(days=365),
    "targets": timedelta(days=90),
    "nightly": timedelta(days=14),
    "snapshot": timedelta(days=7),
    "timestamp": timedelta(hours=48),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One publication."""

    region: str
    seq: int
    issued_at: datetime
    vehicles: int
    base_length: int  # bytes
    base_sha256: bytes
    chunks: int
    index_sha256: bytes


class Publisher:
    """Signs and publishes for one region; begins a repository in an empty store or goes on with the one in it.

    To go on in another process, give it the `keys` that `save_keys` wrote. ValueError for a bad region name, and for
    keys that are not those of the repository in the store.
    """

    def __init__(
        self,
        store: MutableMapping[str, bytes],
        clock: Clock,
        region: str = "national",
        *,
        keys: PublisherKeys | None = None,
        chunk: int = CHUNK,
    ) -> None:
        if not is_region(region):
            raise ValueError("region: not a short lower-case name")
        self._store, self._clock, self._region, self._chunk = store, clock, region, chunk
        self._nightly = f"nightly-{region}"
        begun = f"{METADATA}1.root.json" in store
        if begun and keys is None:
            raise ValueError("keys: those of the repository in the store are needed")
        self._keys = keys or PublisherKeys.generate(region)
        self._keys.ensure(self._nightly)
        if not begun:
            self._begin()
        root = Metadata[Root].from_bytes(self.root_bytes()).signed
        if root.roles[Root.type].keyids != [self._keys[Root.type].public_key.keyid]:
            raise ValueError("keys: not those of the repository in the store")

    @property
    def begun(self) -> bool:
        """Whether there is a publication to add to."""
        return self._last_seq() > 0

    def root_bytes(self) -> bytes:
        """The root metadata that a new device is made with."""
        return self._store[f"{METADATA}1.root.json"]

    def save_keys(self, folder: Path) -> None:
        """Write the private keys into a folder, readable by this user only. OSError."""
        self._keys.save(folder)

    def publish(
        self,
        *,
        vehicles: Iterable[tuple[VehicleRecord, str | None]],
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
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Published:
        """Publish a snapshot under the next sequence number and sign everything anew.

        `status_list` is the packed array of two-bit statuses; BuildError and PlateError as `build_base`.
        """
        issued_at = self._clock().replace(microsecond=0)  # the moment at which the register is read
        seq = self._last_seq() + 1
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "base.db"
            meta = build_base(
                path, vehicles, region=self._region, seq=seq, epoch_key=epoch_key, key_epoch=key_epoch,
                replated=replated, progress=progress,
            )  # fmt: skip
            base = self._put_base(path, seq, meta.n)
        packed = deflate(status_list)
        tsl = StatusListEntry(
            number=status_list_number, length=len(packed), sha256=hashlib.sha256(packed).digest(),
            bits=LIST_BITS, raw_length=len(status_list),
        )  # fmt: skip
        self._store[status_list_path(self._region, tsl.sha256)] = packed
        index = Index(
            region=self._region, seq=seq, issued_at=issued_at, scope=scope, covers=covers, key_epoch=key_epoch,
            base=base, tsl=tsl, min_client=min_client,
        )  # fmt: skip
        index_bytes = encode_index(index)
        self._sign_all(index_bytes, seq, entries, trust_version, policy, policy_version)
        return Published(
            region=self._region, seq=seq, issued_at=issued_at, vehicles=meta.n, base_length=base.length,
            base_sha256=base.sha256, chunks=len(base.hashes), index_sha256=hashlib.sha256(index_bytes).digest(),
        )  # fmt: skip

    def publish_trust(self, *, entries: bytes, trust_version: int, policy: bytes, policy_version: int) -> None:
        """Publish another trust list or policy between two nights: the last index stays as it is."""
        self._sign_targets(entries, trust_version, policy, policy_version)
        self._sign_snapshot()
        self._sign_timestamp()

    def renew(self) -> None:
        """Sign timestamp and snapshot anew without other changes, so that they do not expire."""
        self._sign_snapshot()
        self._sign_timestamp()

    # ------------------------------------------------------------------------------------------- data

    def _put_base(self, path: Path, seq: int, vehicles: int) -> BaseEntry:
        whole, hashes, length = hashlib.sha256(), [], 0
        with path.open("rb") as handle:
            while data := handle.read(self._chunk):
                digest = hashlib.sha256(data).digest()
                self._store[chunk_path(digest)] = data
                whole.update(data)
                hashes.append(digest)
                length += len(data)
        return BaseEntry(
            seq=seq, n=vehicles, length=length, sha256=whole.digest(), chunk=self._chunk, hashes=tuple(hashes)
        )

    def _put_target(self, path: str, data: bytes, version: int) -> TargetFile:
        target = TargetFile.from_data(path, data, ["sha256"])
        target.unrecognized_fields["custom"] = {"version": version}
        for name in target.get_prefixed_paths():
            self._store[TARGETS + name] = data
        return target

    # --------------------------------------------------------------------------------------- metadata

    def _begin(self) -> None:
        root = Root(version=1, expires=self._expiry("root"), consistent_snapshot=True)
        for role in ROLES:
            root.add_key(self._keys[role].public_key, role)
        self._put_metadata(root, "root", Root.type)

    def _sign_all(
        self, index: bytes, seq: int, entries: bytes, trust_version: int, policy: bytes, policy_version: int
    ) -> None:
        target = self._put_target(index_target(self._region), index, seq)
        self._sign_targets(entries, trust_version, policy, policy_version)
        nightly = Targets(
            version=self._version(self._nightly) + 1,
            expires=self._expiry("nightly"),
            targets={target.path: target},
        )
        self._put_metadata(nightly, self._nightly, self._nightly)
        self._sign_snapshot()
        self._sign_timestamp()

    def _sign_targets(self, entries: bytes, trust_version: int, policy: bytes, policy_version: int) -> None:
        """Trust list, policy and delegation; nothing when neither changed and half of its life is still left."""
        files = {
            target.path: target
            for target in (
                self._put_target(ENTRIES_TARGET, entries, trust_version),
                self._put_target(POLICY_TARGET, policy, policy_version),
            )
        }
        old = self._latest(Targets.type)
        key = self._keys[self._nightly].public_key
        delegations = old.delegations if old and old.delegations else Delegations({}, {})
        roles = delegations.roles or {}
        fresh = old and old.expires - self._clock() > EXPIRY["targets"] / 2
        if fresh and old.targets == files and self._nightly in roles:
            return
        roles[self._nightly] = DelegatedRole(self._nightly, [key.keyid], 1, True, paths=[index_target(self._region)])
        keys = delegations.keys | {key.keyid: key}
        targets = Targets(
            version=self._version(Targets.type) + 1,
            expires=self._expiry("targets"),
            targets=files,
            delegations=Delegations(keys, roles),
        )
        self._put_metadata(targets, Targets.type, Targets.type)

    def _sign_snapshot(self) -> None:
        old = self._latest(Snapshot.type)
        meta = dict(old.meta) if old else {}
        for role in (Targets.type, self._nightly):
            if version := self._version(role):
                data = self._store[f"{METADATA}{version}.{role}.json"]
                meta[f"{role}.json"] = MetaFile.from_data(version, data, ["sha256"])
        snapshot = Snapshot(version=self._version(Snapshot.type) + 1, expires=self._expiry("snapshot"), meta=meta)
        self._put_metadata(snapshot, Snapshot.type, Snapshot.type)

    def _sign_timestamp(self) -> None:
        version = self._version(Snapshot.type)
        data = self._store[f"{METADATA}{version}.snapshot.json"]
        old = self._store.get(f"{METADATA}timestamp.json")
        timestamp = Timestamp(
            version=Metadata[Timestamp].from_bytes(old).signed.version + 1 if old else 1,
            expires=self._expiry("timestamp"),
            snapshot_meta=MetaFile.from_data(version, data, ["sha256"]),
        )
        signed = Metadata(timestamp)
        signed.sign(self._keys[Timestamp.type])
        self._store[f"{METADATA}timestamp.json"] = signed.to_bytes()

    def _put_metadata(self, signed: Signed, name: str, role: str) -> None:
        metadata: Metadata[Any] = Metadata(signed)
        metadata.sign(self._keys[role])
        self._store[f"{METADATA}{signed.version}.{name}.json"] = metadata.to_bytes()

    def _version(self, role: str) -> int:
        """The newest version of a role in the store, 0 when there is none: versions leave no gap."""
        version = 0
        while f"{METADATA}{version + 1}.{role}.json" in self._store:
            version += 1
        return version

    def _latest(self, role: str) -> Any:
        """The signed part of a role's newest metadata, None when there is none."""
        version = self._version(role)
        if not version:
            return None
        return Metadata.from_bytes(self._store[f"{METADATA}{version}.{role}.json"]).signed

    def _last_seq(self) -> int:
        nightly = self._latest(self._nightly)
        if nightly is None:
            return 0
        return int(nightly.targets[index_target(self._region)].custom["version"])

    def _expiry(self, role: str) -> datetime:
        return self._clock().astimezone(UTC).replace(microsecond=0) + EXPIRY[role]
