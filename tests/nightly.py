"""What the tests of cache and sync share: a small fleet, a publisher in memory, a device folder."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from scripts.sandbox.folder_store import MemoryFetcher
from scripts.sandbox.publisher import Published, Publisher
from scripts.sandbox.publisher_keys import PublisherKeys
from verifier.codec.status import pack
from verifier.policy import Policy, dump_policy
from verifier.signature import load_public_key
from verifier.sync import SyncClient
from verifier.trust import TrustedKey, dump_entries, key_id
from verifier.types import Algorithm, KeyRole, KeyState, Month, Plate, Serial, StatusLetter, VehicleRecord

BEGAN = datetime(2027, 3, 1, 2, 0, tzinfo=UTC)
EPOCH_KEY = bytes(range(32))
LETTERS = [frozenset(map(StatusLetter, text)) for text in ("A", "A", "A", "AG", "Q", "GQ", "E", "K", "")]


class FakeClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: datetime = BEGAN) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def move(self, **delta: float) -> None:
        self.now += timedelta(**delta)


@cache
def record(plate: Plate, seed: int = 0) -> VehicleRecord:
    """A record drawn from the plate and a seed: the same arguments give the same record."""
    draw = random.Random(f"{plate.text}{plate.kind}{seed}")
    return VehicleRecord(
        plate=plate,
        status=draw.choice(LETTERS),
        inspection_valid_until=Month(2026, 1).plus(draw.randrange(40)) if draw.random() < 0.97 else None,
        ecred_issued=draw.random() < 0.8,
        ctp_until=date(2026, 6, 1) + timedelta(days=draw.randrange(700)) if draw.random() < 0.9 else None,
    )


def plates(n: int) -> Iterator[Plate]:
    """n different plates, some of them with a text that stands under two kinds."""
    for i in range(n):
        place, number = i % 10, i // 10
        # The ninth has the text of the first of its ten, under another kind.
        yield Plate(f"京{'ACDEFGHJKA'[place]}{number:05d}", "01" if place == 9 else "02")


def fleet(n: int, seed: int = 0) -> list[tuple[VehicleRecord, str | None]]:
    """n vehicles, two in three with a tag."""
    return [(record(p, seed), f"E280{i:020X}" if i % 3 else None) for i, p in enumerate(plates(n))]


@cache
def trust_list(n: int, seed: int = 0) -> bytes:
    """A valid trust list with n keys."""
    keys = []
    for i in range(n):
        private = Ed25519PrivateKey.from_private_bytes(random.Random(f"{seed}{i}").randbytes(32))
        raw = private.public_key().public_bytes_raw()
        keys.append(
            TrustedKey(
                kid=key_id(Algorithm.EDDSA, raw), alg=Algorithm.EDDSA, key=raw,
                public=load_public_key(Algorithm.EDDSA, raw), issuer="110000", regions=("*",),
                role=KeyRole.CREDENTIAL, not_before=1, not_after=2, until=3, state=KeyState.ACTIVE,
            )
        )  # fmt: skip
    return dump_entries(keys)


class Unguarded(Publisher):
    """A publisher that does not look at the trust list before it signs it."""

    def _least(self, entries: bytes, fewer_keys: bool) -> int:
        return 0


@dataclass
class Night:
    """A publisher with its store, and what it publishes next; change a field and publish again."""

    store: MutableMapping[str, bytes] = field(default_factory=dict)
    clock: FakeClock = field(default_factory=FakeClock)
    region: str = "national"
    chunk: int = 4096
    vehicles: list[tuple[VehicleRecord, str | None]] = field(default_factory=lambda: fleet(300))
    states: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 0, 3])
    replated: dict[Serial, Plate] = field(default_factory=dict)
    keys: int = 6
    trust_version: int = 1
    policy: Policy = field(default_factory=Policy)
    publisher_keys: PublisherKeys | None = None  # needed to go on in a store that holds a repository
    nights: int = 45  # deltas on one base, at most; with 0 every night is a snapshot
    made_by: type[Publisher] = Publisher

    def __post_init__(self) -> None:
        self.publisher = self.made_by(
            self.store, self.clock, self.region, keys=self.publisher_keys, chunk=self.chunk, nights=self.nights
        )

    def publish(self, **changes: Any) -> Published:
        values: dict[str, Any] = {
            "vehicles": iter(self.vehicles),
            "status_list": pack(self.states, 2),
            "status_list_number": 7,
            "replated": self.replated,
            "entries": trust_list(self.keys),
            "trust_version": self.trust_version,
            "policy": dump_policy(self.policy),
            "policy_version": self.policy.version,
            "epoch_key": EPOCH_KEY,
            "key_epoch": 1,
        }
        return self.publisher.publish(**(values | changes))

    def device(self, root: Path, store: Mapping[str, bytes] | None = None, **options: Any) -> Device:
        """A device folder that syncs from this store or from another one."""
        return Device(root, MemoryFetcher(self.store if store is None else store), self, options)


@dataclass
class Device:
    """A handheld's cache folder and the fetcher it syncs through."""

    root: Path
    fetcher: MemoryFetcher
    night: Night
    options: dict[str, Any]

    def client(self, **options: Any) -> SyncClient:
        return SyncClient(
            self.root, options.pop("fetcher", self.fetcher), self.night.clock, self.night.publisher.root_bytes(),
            self.night.region, **(self.options | options),
        )  # fmt: skip
