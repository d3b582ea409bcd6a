"""The rules of a sync, without I/O: what may be accepted, what is to be done, what stays."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from verifier.cache import schema
from verifier.cache.marks import Accepted
from verifier.codec.hot import HotList
from verifier.codec.index import CLIENT_VERSION, Index
from verifier.errors import DigestError, PolicyError, RollbackError, SyncError, TrustListError
from verifier.policy import load_policy
from verifier.trust import load_trust_list

SPACE_FACTOR = 1.1  # of what is still to be written: file system overhead and the rest of the system live too
SPACE_RESERVE = 8 << 20  # bytes
LARGEST_SHRINK = 2  # a trust list may lose up to half of its keys in one step


class Plan(StrEnum):
    """What a sync has to do."""

    FRESH = "fresh"
    DELTAS = "deltas"  # the base in use stays; what is behind it is fetched, be it a trust list alone
    SNAPSHOT = "snapshot"


class ClientTooOldError(SyncError):
    """The publication needs a newer program on this device."""


class ExpiredError(SyncError):
    """Signed data past their time: the publisher is silent, or this clock runs ahead."""


class NoSpaceError(SyncError):
    """Not enough room on the card for what is to be written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedFile:
    """A small file from the signed distribution: its bytes and what was signed with it.

    `version` is its number, `least` how many keys a trust list is meant to have at the least (0: not said).
    """

    data: bytes
    version: int = 0
    least: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What was accepted so far, and the generation in use, for one region."""

    seq: int = 0  # high-water mark; 0 when nothing was accepted yet
    index_sha256: bytes | None = None  # of the index accepted under that number
    key_epoch: int = 0
    trust_version: int = 0
    policy_version: int = 0
    content: str | None = None  # content hash of the generation in use; None when there is none or it is damaged
    index: Index | None = None  # of the generation in use, when its base and its changes can be built upon
    entries: bytes | None = None  # trust list and policy in use, also when they belong to another region
    policy: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A small file that goes into the generation, its version, and why the offered one was not taken."""

    data: bytes
    version: int
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A verified publication that may be accepted."""

    index: Index
    index_bytes: bytes
    entries: Kept
    entries_as_of: datetime  # older than the index where an older list was kept
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


@dataclass(frozen=True, slots=True, kw_only=True)
class HotHeld:
    """The newest hot list that was accepted for a region, and the newest signed time of all."""

    seq: int = 0
    sha256: bytes | None = None  # of its signed bytes
    floor: datetime | None = None


def check_index(index: Index, data: bytes, region: str, held: Held, ends: datetime) -> None:
    """Refuse an index that is not ours, too new for this program, or older than what was accepted.

    SyncError, ClientTooOldError, RollbackError. `data` are the index's signed bytes, `ends` when the time stamp over
    them runs out: a moment from the years to come would stay this device's clock floor for ever.
    """
    if index.region != region:
        raise SyncError("index: of another region than asked for")
    if index.min_client > CLIENT_VERSION:
        raise ClientTooOldError("index: needs a newer program on this device")
    if index.issued_at > ends:
        raise SyncError("index: says that it was made after its time stamp runs out")
    if index.seq < held.seq:
        raise RollbackError(f"index: number {index.seq} is older than {held.seq}, which was accepted before")
    if index.seq == held.seq and held.index_sha256 not in (None, hashlib.sha256(data).digest()):
        raise RollbackError(f"index: number {index.seq} was accepted before with other contents")
    if index.key_epoch < held.key_epoch:
        raise RollbackError("index: made under an older epoch key than what was accepted before")


def plan(content: str, index: Index, held: Held) -> Plan:
    """What leads from the generation in use to this offer.

    FRESH when the one in use holds exactly these small files (the index names all the rest), DELTAS when it has the
    same base and the offer's chain of deltas begins with its own, SNAPSHOT otherwise.
    """
    if held.content == content:
        return Plan.FRESH
    known = held.index
    if known is None or known.region != index.region or known.base != index.base:
        return Plan.SNAPSHOT
    return Plan.DELTAS if index.deltas[: len(known.deltas)] == known.deltas else Plan.SNAPSHOT


def choose_entries(offered: SignedFile, held: Held) -> Kept:
    """The trust list to use.

    A lower version is a rollback and refused (RollbackError). A list that is empty, cannot be read or has lost
    more than half of its keys is a mistake at the source: the old one stays and the note says so, because without
    its keys every genuine mark would look like one of an unknown issuer. Only when it was signed as one that is meant
    to have so few keys is a short list taken. SyncError when there is no old one.
    """
    _check_version("trust list", offered.version, held.trust_version)
    try:
        count = len(load_trust_list(offered.data).keys)
        problem = None if count else "it is empty"
    except TrustListError as exc:
        count, problem = 0, str(exc)
    if problem is None and held.entries is not None:
        before = _count(held.entries)
        meant = 0 < offered.least <= count
        if count * LARGEST_SHRINK < before and not meant:
            problem = f"it shrank from {before} to {count} keys"
    return _taken_or_kept("trust list", offered, held.entries, held.trust_version, problem)


def choose_policy(offered: SignedFile, held: Held) -> Kept:
    """The policy to use; an unreadable one is not taken, a lower version is a RollbackError. As above."""
    _check_version("policy", offered.version, held.policy_version)
    try:
        load_policy(offered.data)
        problem = None
    except PolicyError as exc:
        problem = str(exc)
    return _taken_or_kept("policy", offered, held.policy, held.policy_version, problem)


def check_hot(hot: HotList, data: bytes, index: Index, held: HotHeld, now: datetime) -> None:
    """Refuse a hot list that is not for the night in use, older than what was accepted, or past its time.

    SyncError, RollbackError, ExpiredError. `data` are its signed bytes, whose signature was verified; `index` is that
    of the generation in use.
    """
    if hot.region != index.region:
        raise SyncError("hot list: of another region than asked for")
    if hot.hot_seq < held.seq:
        raise RollbackError(f"hot list: number {hot.hot_seq} is older than {held.seq}, which was accepted before")
    if hot.hot_seq == held.seq and held.sha256 not in (None, hashlib.sha256(data).digest()):
        raise RollbackError(f"hot list: number {hot.hot_seq} was accepted before with other contents")
    if hot.nightly_seq < index.seq or hot.issued_at < max(held.floor or index.issued_at, index.issued_at):
        raise RollbackError(f"hot list: older than the nightly no. {index.seq} or another signed time")
    if hot.nightly_seq > index.seq:
        raise SyncError(f"hot list: goes with the nightly no. {hot.nightly_seq}: sync that first")
    if hot.next_update <= now:
        raise ExpiredError("hot list: past its time: its publisher is silent, or this clock runs ahead")


def check_digest(what: str, data: bytes, length: int, sha256: bytes) -> None:
    """DigestError unless the bytes have this length and SHA-256."""
    if len(data) != length:
        raise DigestError(f"{what}: {len(data)} bytes instead of {length}")
    if hashlib.sha256(data).digest() != sha256:
        raise DigestError(f"{what}: digest differs from the signed one")


def check_space(missing: int, free: int) -> None:
    """NoSpaceError when writing the `missing` bytes would fill the card."""
    needed = int(missing * SPACE_FACTOR) + SPACE_RESERVE
    if free < needed:
        raise NoSpaceError(f"card: {free >> 20} MiB free, {needed >> 20} MiB needed")


def _check_version(what: str, offered: int, held: int) -> None:
    if offered < held:
        raise RollbackError(f"{what}: version {offered} is older than {held}, which was accepted before")


def _taken_or_kept(what: str, offered: SignedFile, old: bytes | None, old_version: int, problem: str | None) -> Kept:
    if problem is None:
        return Kept(data=offered.data, version=offered.version)
    if old is None:
        raise SyncError(f"{what} refused: {problem}")
    return Kept(data=old, version=old_version, note=f"{what} refused, the old one stays: {problem}")


def _count(entries: bytes) -> int:
    try:
        return len(load_trust_list(entries).keys)
    except TrustListError:
        return 0  # a damaged old list must not keep a good new one out
