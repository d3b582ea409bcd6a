"""A signed distribution on disk, served on the loopback address, made from a base and deltas that are ready."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scripts.bench.cache_nights import Night
from scripts.sandbox.folder_store import FolderStore
from scripts.sandbox.hot import LIFE, sign_hot
from scripts.sandbox.issuer import Issuer, issuing_keys
from scripts.sandbox.national import National
from scripts.sandbox.publisher import CHUNK, HOT_MAX_AGE
from scripts.sandbox.publisher_data import LIST_BITS
from scripts.sandbox.publisher_keys import PublisherKeys, hot_role
from scripts.sandbox.publisher_metadata import SignedMetadata
from scripts.sandbox.server import serve
from verifier.cache.keys import KeyHasher
from verifier.cache.schema import BaseMeta
from verifier.clock import Clock
from verifier.codec.hot import HotList
from verifier.codec.index import (
    DELTA_CLIENT,
    EVERYWHERE,
    BaseEntry,
    HotEntry,
    Index,
    StatusListEntry,
    encode_index,
)
from verifier.codec.status import ListedStatus, deflate
from verifier.download import chunk_path, delta_path, hot_path, status_list_path
from verifier.policy import Policy, dump_policy
from verifier.repository import ENTRIES_TARGET, POLICY_TARGET, index_target
from verifier.types import Algorithm

REGION, BASE_SEQ = "national", 1
STATUS_LIST = 1
# Parts of a thousand credentials that are not active: revoked, suspended, superseded by another one.
_STATES = ((ListedStatus.REVOKED, 4), (ListedStatus.SUSPENDED, 1), (ListedStatus.SUPERSEDED, 12))


@dataclass(frozen=True, slots=True)
class Publication:
    """What a sequence number stands for."""

    base: BaseEntry
    tsl: StatusListEntry
    deltas: Sequence[Night]

    @property
    def seq(self) -> int:
        """The newest night's number."""
        return self.deltas[-1].entry.seq_to if self.deltas else self.base.seq


class Distribution:
    """Publishes into a folder and signs as the sandbox's publisher does; keys are made for the run."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.store = FolderStore(folder)
        self._clock = clock
        self.keys = PublisherKeys.generate(REGION)
        self._metadata = SignedMetadata(self.store, clock, self.keys)
        self._metadata.begin()
        self._entries = Issuer(issuing_keys(clock())).trust_entries()
        self._policy = dump_policy(Policy())

    @property
    def root(self) -> bytes:
        """What a device is made with."""
        return self._metadata.root_bytes()

    @contextmanager
    def served(self) -> Iterator[str]:
        """Its address on this machine."""
        with serve(self.store) as server:
            yield server.url

    def put_base(self, path: Path, seq: int, vehicles: int) -> BaseEntry:
        """Store a base in chunks named by their content."""
        whole, hashes, length = hashlib.sha256(), [], 0
        with path.open("rb") as handle:
            while data := handle.read(CHUNK):
                digest = hashlib.sha256(data).digest()
                self.store[chunk_path(digest)] = data
                whole.update(data)
                hashes.append(digest)
                length += len(data)
        return BaseEntry(
            seq=seq, n=vehicles, length=length, sha256=whole.digest(), chunk=CHUNK, hashes=tuple(hashes)
        )  # fmt: skip

    def put_status_list(self, raw: bytes) -> StatusListEntry:
        """Store a packed status list as it travels."""
        packed = deflate(raw)
        digest = hashlib.sha256(packed).digest()
        self.store[status_list_path(REGION, digest)] = packed
        return StatusListEntry(
            number=STATUS_LIST, length=len(packed), sha256=digest, bits=LIST_BITS, raw_length=len(raw)
        )

    def publish(self, publication: Publication) -> None:
        """Store the deltas and sign everything anew."""
        for night in publication.deltas:
            self.store[delta_path(REGION, night.entry.sha256)] = night.data
        index = Index(
            region=REGION, seq=publication.seq, issued_at=self._clock().replace(microsecond=0), scope="national",
            covers=(EVERYWHERE,), key_epoch=1, base=publication.base, tsl=publication.tsl,
            deltas=tuple(night.entry for night in publication.deltas),
            min_client=DELTA_CLIENT if publication.deltas else 1,
            hot=HotEntry(key_alg=int(Algorithm.EDDSA), key=self._hot_key(), max_age_s=HOT_MAX_AGE),
        )  # fmt: skip
        files = {ENTRIES_TARGET: self._entries, POLICY_TARGET: self._policy}
        targets = {path: self._metadata.target(path, data, {"version": 1}) for path, data in files.items()}
        self._metadata.sign_targets(targets, REGION)
        signed = self._metadata.target(index_target(REGION), encode_index(index), {"version": index.seq})
        self._metadata.sign_nightly(REGION, signed)
        self._metadata.sign_snapshot(REGION)
        self._metadata.sign_timestamp()

    def publish_hot(self, nightly_seq: int, hot_seq: int, rows: Mapping[int, int | None]) -> None:
        """Replace the hot list."""
        now = self._clock().replace(microsecond=0)
        hot = HotList(
            region=REGION, nightly_seq=nightly_seq, hot_seq=hot_seq, issued_at=now, next_update=now + LIFE, rows=rows
        )  # fmt: skip
        self.store[hot_path(REGION)] = sign_hot(hot, self.keys.private(hot_role(REGION)))

    def _hot_key(self) -> bytes:
        return self.keys.private(hot_role(REGION)).public_key().public_bytes_raw()


def base_meta(national: National, vehicles: int) -> BaseMeta:
    """What the fleet's base says of itself."""
    return BaseMeta(
        region=REGION, seq=BASE_SEQ, n=vehicles, keys=0, key_epoch=1,
        key_check=KeyHasher(national.epoch_key).check_value, scheme=national.scheme,
    )  # fmt: skip


def status_list(credentials: int, seed: int) -> bytes:
    """A packed two-bit list of so many credentials, one in sixty of them not active."""
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, 1000, -(-credentials // 4) * 4, np.int32)
    states = np.zeros(len(draws), np.uint8)
    start = 0
    for state, share in _STATES:
        states[(draws >= start) & (draws < start + share)] = state
        start += share
    fours = states.reshape(-1, 4) << np.arange(0, 8, LIST_BITS, dtype=np.uint8)
    return bytes(np.bitwise_or.reduce(fours, axis=1))
