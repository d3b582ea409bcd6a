"""What may leave the public folder: everything that no publication within the retention refers to.

What a device may still need is told by the signed files alone: the metadata that are in force or were lately, the
indexes that they name or that are young, and what those indexes name. All regions of a repository are looked at
together, because they share chunks. What is of no known kind stays.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Snapshot, Targets, Timestamp  # type: ignore[attr-defined]

from firmware.bundle import RELEASE_ROLE
from scripts.sandbox.nightly import PublicationError
from scripts.sandbox.publisher_metadata import EXPIRY
from verifier.codec.index import Index, decode_index
from verifier.download import chunk_path, delta_path, status_list_path
from verifier.errors import SyncError
from verifier.repository import METADATA, TARGETS

_METADATA = re.compile(rf"{METADATA}(\d+)\.(snapshot|targets|{RELEASE_ROLE}|nightly-[a-z0-9_]+)\.json", re.ASCII)
_INDEX = re.compile(rf"{TARGETS}nightly/[a-z0-9_]+/[0-9a-f]{{64}}\.index\.cbor", re.ASCII)
_KINDS = (
    *(f"{TARGETS}{folder}/" for folder in ("nightly", "trust", "policy", "settings", RELEASE_ROLE)),
    "chunk/", "delta/", "tsl/",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long devices may need something: deltas and lists of indexes, bases by number, metadata.

    What the current and the previous index of a region name is kept whatever this says.
    """

    indexes: timedelta = timedelta(days=90)
    bases: int = 2
    metadata: timedelta = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class _Role:
    """One version of a role's metadata in the store."""

    path: str
    role: str
    version: int
    signed: Any


def unreferenced(store: Mapping[str, bytes], now: datetime, retention: Retention | None = None) -> list[str]:
    """Paths that no publication within the retention refers to, sorted; nothing of an empty store.

    PublicationError when what is published now cannot be read: then nobody can say what is needed.
    """
    retention = retention or Retention()
    paths = list(store)
    if f"{METADATA}timestamp.json" not in paths:
        return []
    published = _published(store)
    roles = list(_roles(store, paths))
    kept_roles = [role for role in roles if _is_kept(role, published, now - retention.metadata)]
    needed = {role.path for role in kept_roles} | set(_targets(kept_roles))
    current = set(_targets(role for role in roles if published.get(role.role) == role.version))
    if missing := sorted(path for path in current if path not in store):
        raise PublicationError(f"nothing removed: {missing[0]} is published and not there")
    by_region = defaultdict[str, list[tuple[str, Index]]](list)
    for path, index in _indexes(store, paths, current):
        by_region[index.region].append((path, index))
    for indexes in by_region.values():
        needed |= set(_needed_of_region(indexes, current, needed, now, retention))
    ours = {role.path for role in roles} | {path for path in paths if path.startswith(_KINDS)}
    return sorted(ours - needed)


def _published(store: Mapping[str, bytes]) -> dict[str, int]:
    """The version of each role that the timestamp leads to."""
    try:
        timestamp = Metadata[Timestamp].from_bytes(store[f"{METADATA}timestamp.json"]).signed
        version = timestamp.snapshot_meta.version
        snapshot = Metadata[Snapshot].from_bytes(store[f"{METADATA}{version}.snapshot.json"]).signed
    except (KeyError, RepositoryError) as exc:
        raise PublicationError("nothing removed: the published metadata cannot be read") from exc
    return {"snapshot": version} | {name.removesuffix(".json"): meta.version for name, meta in snapshot.meta.items()}


def _roles(store: Mapping[str, bytes], paths: Iterable[str]) -> Iterator[_Role]:
    """All metadata but the roots, which are kept for ever, and what cannot be read, which nobody can use."""
    for path in paths:
        match = _METADATA.fullmatch(path)
        if match is None:
            continue
        try:
            signed = Metadata.from_bytes(store[path]).signed
        except RepositoryError:
            continue
        yield _Role(path, match[2], int(match[1]), signed)


def _is_kept(role: _Role, published: Mapping[str, int], since: datetime) -> bool:
    """The version in force, the one before it, whatever is newer, and what was signed lately."""
    life = EXPIRY["nightly" if role.role.startswith("nightly-") else role.role]
    return role.version >= published.get(role.role, 0) - 1 or role.signed.expires - life >= since


def _targets(roles: Iterable[_Role]) -> Iterator[str]:
    for role in roles:
        if isinstance(role.signed, Targets):
            for target in role.signed.targets.values():
                yield from (TARGETS + path for path in target.get_prefixed_paths())


def _indexes(store: Mapping[str, bytes], paths: Iterable[str], current: set[str]) -> Iterator[tuple[str, Index]]:
    """All indexes; a damaged one, which no device can take, only when it is not the published one."""
    for path in paths:
        if _INDEX.fullmatch(path) is None:
            continue
        try:
            yield path, decode_index(store[path])
        except SyncError as exc:
            if path in current:
                raise PublicationError("nothing removed: a published index cannot be read") from exc


def _needed_of_region(
    indexes: list[tuple[str, Index]], current: set[str], named: set[str], now: datetime, retention: Retention
) -> Iterator[str]:
    """What the kept indexes of one region name, and themselves; `named` are targets of metadata that are kept."""
    indexes = sorted(indexes, key=lambda found: found[1].seq)
    published = next((n for n, (path, _) in enumerate(indexes) if path in current), len(indexes))
    newest = [index.base.sha256 for _, index in indexes]
    bases = set(list(dict.fromkeys(reversed(newest)))[: max(retention.bases, 1)])
    for number, (path, index) in enumerate(indexes):
        last = number >= published - 1
        if not last and path not in named and now - index.issued_at > retention.indexes:
            continue
        yield path
        yield status_list_path(index.region, index.tsl.sha256)
        yield from (delta_path(index.region, delta.sha256) for delta in index.deltas)
        if last or index.base.sha256 in bases:
            yield from map(chunk_path, index.base.hashes)
