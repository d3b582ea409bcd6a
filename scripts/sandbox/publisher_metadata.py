"""The signed metadata (TUF) of the sandbox's distribution: which small files are current, role by role."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime, timedelta
from typing import Any

from tuf.api.exceptions import RepositoryError
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

from firmware.bundle import RELEASE_ROLE, RELEASE_TARGET
from firmware.provision import ROOT_FIELD
from scripts.sandbox.publisher_keys import PROVISIONING, ROLES, PublisherKeys, nightly_role
from verifier.clock import Clock
from verifier.repository import METADATA, TARGETS, index_target

EXPIRY = {
    "root": timedelta(days=365),
    "targets": timedelta(days=90),
    "nightly": timedelta(days=14),
    RELEASE_ROLE: timedelta(days=90),
    "snapshot": timedelta(days=7),
    "timestamp": timedelta(hours=48),
}


class SignedMetadata:
    """Root, targets, snapshot, timestamp and one nightly role for each region, in a mapping from path to bytes.

    Every method of signing writes one role; who reads before the timestamp is signed sees the publication before.
    """

    def __init__(self, store: MutableMapping[str, bytes], clock: Clock, keys: PublisherKeys) -> None:
        self._store, self._clock, self._keys = store, clock, keys

    @staticmethod
    def begun(store: Mapping[str, bytes]) -> bool:
        """Whether there is a repository in this store."""
        return f"{METADATA}1.root.json" in store

    def begin(self) -> None:
        """Sign the root of a new repository."""
        root = Root(version=1, expires=self._expiry("root"), consistent_snapshot=True)
        for role in ROLES:
            root.add_key(self._keys[role].public_key, role)
        self._keys.ensure(PROVISIONING)
        # No role of the metadata: it signs what a new device is provisioned with (docs/operations.md).
        root.unrecognized_fields[ROOT_FIELD] = self._keys.private(PROVISIONING).public_key().public_bytes_raw().hex()
        self._put(root, "root", Root.type)

    def root_bytes(self) -> bytes:
        """The root that a new device is made with."""
        return self._store[f"{METADATA}1.root.json"]

    def is_ours(self) -> bool:
        """Whether the root names our root key."""
        root = Metadata[Root].from_bytes(self.root_bytes()).signed
        return bool(root.roles[Root.type].keyids == [self._keys[Root.type].public_key.keyid])

    def target(self, path: str, data: bytes, custom: Mapping[str, object]) -> TargetFile:
        """Store a small file under its content's name; what a role signs of it, with this custom field."""
        target = TargetFile.from_data(path, data, ["sha256"])
        target.unrecognized_fields["custom"] = dict(custom)
        for name in target.get_prefixed_paths():
            self._store[TARGETS + name] = data
        return target

    def current(self, role: str, path: str) -> TargetFile | None:
        """What a role has signed of a path; None when it has not."""
        signed = self._latest(role)
        return signed.targets.get(path) if signed else None

    def targets(self) -> dict[str, TargetFile]:
        """What the role of the targets has signed, by path."""
        signed = self._latest(Targets.type)
        return dict(signed.targets) if signed else {}

    def bytes_of(self, target: TargetFile) -> bytes | None:
        """The stored bytes of a signed file; None when they are gone or damaged."""
        for path in target.get_prefixed_paths():
            data = self._store.get(TARGETS + path)
            if data is not None and hashlib.sha256(data).hexdigest() == target.hashes["sha256"]:
                return data
        return None

    def sign_targets(self, files: Mapping[str, TargetFile], region: str) -> None:
        """Trust list, policy and delegation; nothing when none of them changed and half of its life is still left."""
        self._sign_targets(files, nightly_role(region), index_target(region))

    def sign_release(self, target: TargetFile | None = None) -> None:
        """The release on offer, by a key of its own; without one, the one there is again when half of its life is over.

        RepositoryError before the first night.
        """
        old = self._latest(RELEASE_ROLE)
        if target is None and (old is None or old.expires - self._clock() > EXPIRY[RELEASE_ROLE] / 2):
            return
        targets = self._latest(Targets.type)
        if targets is None:
            raise RepositoryError("a release goes beside a trust list, and there is none yet")
        self._sign_targets(targets.targets, RELEASE_ROLE, RELEASE_TARGET)
        offered = Targets(
            version=self._version(RELEASE_ROLE) + 1,
            expires=self._expiry(RELEASE_ROLE),
            targets=old.targets if target is None else {target.path: target},
        )
        self._put(offered, RELEASE_ROLE, RELEASE_ROLE)

    def _sign_targets(self, files: Mapping[str, TargetFile], role: str, path: str) -> None:
        old = self._latest(Targets.type)
        delegations = old.delegations if old and old.delegations else Delegations({}, {})
        roles = delegations.roles or {}
        fresh = old and old.expires - self._clock() > EXPIRY["targets"] / 2
        key = self._keys[role].public_key
        delegated = role in roles and roles[role].keyids == [key.keyid]
        if fresh and old.targets == files and delegated:
            return
        roles[role] = DelegatedRole(role, [key.keyid], 1, True, paths=[path])
        targets = Targets(
            version=self._version(Targets.type) + 1,
            expires=self._expiry("targets"),
            targets=dict(files),
            delegations=Delegations(delegations.keys | {key.keyid: key}, roles),
        )
        self._put(targets, Targets.type, Targets.type)

    def sign_nightly(self, region: str, index: TargetFile) -> None:
        """A region's index, by the region's own key."""
        role = nightly_role(region)
        nightly = Targets(
            version=self._version(role) + 1,
            expires=self._expiry("nightly"),
            targets={index.path: index},
        )
        self._put(nightly, role, role)

    def sign_snapshot(self, region: str) -> None:
        """The newest version of every role; other regions' as they were."""
        old = self._latest(Snapshot.type)
        meta = dict(old.meta) if old else {}
        for role in (Targets.type, nightly_role(region), RELEASE_ROLE):
            if version := self._version(role):
                data = self._store[f"{METADATA}{version}.{role}.json"]
                meta[f"{role}.json"] = MetaFile.from_data(version, data, ["sha256"])
        snapshot = Snapshot(version=self._version(Snapshot.type) + 1, expires=self._expiry("snapshot"), meta=meta)
        self._put(snapshot, Snapshot.type, Snapshot.type)

    def sign_timestamp(self) -> None:
        """The newest snapshot: from now on the publication is the current one."""
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

    def _put(self, signed: Signed, name: str, role: str) -> None:
        metadata: Metadata[Any] = Metadata(signed)
        metadata.sign(self._keys[role])
        self._store[f"{METADATA}{signed.version}.{name}.json"] = metadata.to_bytes()

    def _version(self, role: str) -> int:
        """The newest version of a role in the store, 0 when there is none; old ones may have been pruned."""
        name = re.compile(rf"{METADATA}(\d+)\.{re.escape(role)}\.json", re.ASCII)
        return max((int(found[1]) for found in map(name.fullmatch, self._store) if found), default=0)

    def _latest(self, role: str) -> Any:
        """The signed part of a role's newest metadata, None when there is none."""
        version = self._version(role)
        if not version:
            return None
        return Metadata.from_bytes(self._store[f"{METADATA}{version}.{role}.json"]).signed

    def _expiry(self, role: str) -> datetime:
        return self._clock().astimezone(UTC).replace(microsecond=0) + EXPIRY[role]
