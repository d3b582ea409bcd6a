"""Generations made by hand: a base, nights of deltas over it and a hot list, under any hasher."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.nightly import BEGAN, EPOCH_KEY, trust_list
from verifier.cache import schema
from verifier.cache.build import build_base
from verifier.cache.changes import write_changes
from verifier.cache.keys import CREDENTIAL, PLATE, KeyHasher, key48, plate_bytes, serial_bytes
from verifier.cache.store import StatusStore
from verifier.cache.values import SEE_EXACT, TOMBSTONE, to_wide
from verifier.codec.cose import TYP_HOT, join, protected_header, sig_structure
from verifier.codec.delta import Delta, decode_delta, encode_delta
from verifier.codec.hot import HotList, hot_payload
from verifier.codec.index import DELTA_CLIENT, BaseEntry, DeltaEntry, HotEntry, Index, StatusListEntry, encode_index
from verifier.codec.status import deflate, pack
from verifier.policy import Policy, dump_policy
from verifier.types import Algorithm, Plate, Serial, VehicleRecord

HOT_KEY = Ed25519PrivateKey.from_private_bytes(b"h" * 32)
BASE_SEQ = 5
STATES = [0, 1, 2, 3]

Vehicles = Mapping[Plate, VehicleRecord]
Groups = dict[int, dict[bytes, int]]


class CollidingHasher(KeyHasher):
    """Every identity has one of a few 48-bit keys, among them the lowest and the highest there can be."""

    KEYS = (b"\0" * 6, b"\xff" * 6, b"\0\0\0\0\0\1", b"\x80" + b"\0" * 5)

    def digest(self, person: bytes, canonical_bytes: bytes) -> bytes:
        digest = super().digest(person, canonical_bytes)
        return self.KEYS[digest[0] % len(self.KEYS)] + digest[6:]


@dataclass
class Nights:
    """A register and its publications; `install` puts what was published so far onto the card in `root`."""

    root: Path
    vehicles: Vehicles
    hasher: KeyHasher = field(default_factory=lambda: KeyHasher(EPOCH_KEY))
    sealed: bool = False
    replated: dict[Serial, Plate] = field(default_factory=dict)
    deltas: list[bytes] = field(default_factory=list)
    entries: list[DeltaEntry] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.work = self.root / "publisher"
        self.work.mkdir(parents=True)
        self.base = self.work / "base.db"
        self.meta = build_base(
            self.base, ((record, None) for record in self.vehicles.values()), region="national", seq=BASE_SEQ,
            epoch_key=EPOCH_KEY, key_epoch=1, replated=self.replated, hasher=self.hasher, sealed=self.sealed,
        )  # fmt: skip
        groups = self.groups(self.vehicles)
        self.apart = {key for key, group in groups.items() if len(group) > 1}

    @property
    def seq(self) -> int:
        return BASE_SEQ + len(self.entries)

    def digest(self, plate: Plate) -> bytes:
        return self.hasher.digest(PLATE, plate_bytes(plate))

    def groups(self, vehicles: Vehicles) -> Groups:
        groups: Groups = {}
        for plate, record in vehicles.items():
            digest = self.digest(plate)
            groups.setdefault(key48(digest), {})[digest] = to_wide(record)
        return groups

    def night(self, vehicles: Vehicles, moves: Mapping[Serial, Plate] | None = None) -> Delta:
        """Publish what differs from the register of the night before."""
        old, new = self.groups(self.vehicles), self.groups(vehicles)
        rows: dict[int, int] = {}
        exact: dict[bytes, int] = {}
        for key in old.keys() | new.keys():
            group = new.get(key, {})
            if group == old.get(key, {}):
                continue
            if len(group.keys() | old.get(key, {}).keys()) > 1:
                self.apart.add(key)
            narrow = self.meta.scheme.narrow(next(iter(group.values()))) if group else TOMBSTONE
            if group and (key in self.apart or narrow is None):
                narrow = SEE_EXACT
                exact |= group
            assert narrow is not None
            rows[key] = narrow
        self.vehicles = vehicles
        keys = sorted(rows)
        return self.publish(
            Delta(
                region="national", seq_from=self.seq, seq_to=self.seq + 1, base_seq=BASE_SEQ, key_epoch=1,
                keys=keys, values=[rows[key] for key in keys], exact=sorted(exact.items()),
                replated=sorted(self._moves(moves or {}).items()),
            )
        )  # fmt: skip

    def publish(self, delta: Delta) -> Delta:
        data = encode_delta(delta)
        self.deltas.append(data)
        self.entries.append(
            DeltaEntry(
                seq_from=delta.seq_from, seq_to=delta.seq_to, length=len(data), sha256=hashlib.sha256(data).digest(),
                rows=len(delta.keys),
            )
        )  # fmt: skip
        return decode_delta(data, self.entries[-1])

    def _moves(self, moves: Mapping[Serial, Plate]) -> dict[bytes, int]:
        return {
            self.hasher.digest(CREDENTIAL, serial_bytes(serial)): key48(self.digest(plate))
            for serial, plate in moves.items()
        }

    def changes(self, name: str = "changes.db", previous: Path | None = None, start: int = 0) -> Path:
        """The deltas from `start` on over `previous`."""
        pairs = zip(self.deltas[start:], self.entries[start:], strict=True)
        deltas = (decode_delta(data, entry) for data, entry in pairs)
        write_changes(self.work / name, self.base, previous, deltas, epoch_key=EPOCH_KEY)
        return self.work / name

    def index(self) -> Index:
        data, packed = self.base.read_bytes(), deflate(pack(STATES, 2))
        chunk = 1 << 20
        hashes = tuple(hashlib.sha256(data[i : i + chunk]).digest() for i in range(0, len(data), chunk))
        return Index(
            region="national", seq=self.seq, issued_at=BEGAN + timedelta(days=len(self.entries)), scope="national",
            covers=("*",), key_epoch=1,
            base=BaseEntry(
                seq=BASE_SEQ, n=self.meta.n, length=len(data), sha256=hashlib.sha256(data).digest(), chunk=chunk,
                hashes=hashes,
            ),
            tsl=StatusListEntry(
                number=7, length=len(packed), sha256=hashlib.sha256(packed).digest(), bits=2, raw_length=1
            ),
            deltas=tuple(self.entries), min_client=DELTA_CLIENT,
            hot=HotEntry(key_alg=-8, key=HOT_KEY.public_key().public_bytes_raw(), max_age_s=3600),
        )  # fmt: skip

    def install(self, changes: Path | None = None, **other: object) -> Path:
        """Put it into use under `root`; `other` fields of the index are not those of the publication."""
        index = replace(self.index(), **other)  # type: ignore[arg-type]
        files = {
            schema.BASE: self.base.read_bytes(),
            schema.STATUS_LIST: deflate(pack(STATES, 2)),
            schema.INDEX: encode_index(index),
            schema.ENTRIES: trust_list(2),
            schema.POLICY: dump_policy(Policy()),
        }
        if changes is not None:
            files[schema.CHANGES] = changes.read_bytes()
        content = schema.content_hash(files[schema.INDEX], files[schema.ENTRIES], files[schema.POLICY])
        target = Path(schema.GENERATIONS) / schema.generation_name(index.region, index.seq, content)
        (self.root / target).mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (self.root / target / name).write_bytes(data)
        fresh = self.root / "fresh"
        fresh.symlink_to(target)
        fresh.replace(self.root / schema.CURRENT)
        return self.root / target

    def store(self) -> StatusStore:
        return StatusStore(self.root, EPOCH_KEY, hasher=self.hasher)

    def hot(self, hot_seq: int = 1, **fields: object) -> HotList:
        """An empty hot list over the newest publication, with other fields if given."""
        made = HotList(
            region="national", nightly_seq=self.seq, hot_seq=hot_seq, issued_at=BEGAN + timedelta(days=40),
            next_update=BEGAN + timedelta(days=40, hours=1),
        )  # fmt: skip
        return replace(made, **fields)  # type: ignore[arg-type]

    def put_hot(self, hot: HotList) -> None:
        fresh = self.root / "hot.new"
        fresh.write_bytes(signed(hot))
        fresh.replace(self.root / schema.HOT)


def signed(hot: HotList, key: Ed25519PrivateKey = HOT_KEY, typ: int = TYP_HOT, alg: int = Algorithm.EDDSA) -> bytes:
    """A hot list as it is published."""
    protected, payload = protected_header(alg, None, typ), hot_payload(hot)
    return join(protected, payload, key.sign(sig_structure(protected, payload)))
