"""Where the vehicles come from to whom all credentials are issued: a sandbox authority, or the generated country.

A source can be sent to another process, which opens it for itself: private keys stay in files of the sandbox.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from scripts.sandbox.authority import AuthorityFolder
from scripts.sandbox.fleet import City, IssueReason, Vehicle
from scripts.sandbox.issuer import Issuer
from scripts.sandbox.keys import SigningKey, load_key, save_keys, signing_key
from scripts.sandbox.national import PLACE_BITS, PROVINCES, National
from scripts.sandbox.regions import is_overdue
from scripts.sandbox.registry import ACTIVE, CredentialEntry, RegistryError
from verifier.cache.values import from_wide
from verifier.facts import DEREGISTERED_LETTERS
from verifier.types import SHANGHAI, Algorithm, KeyRole, Month, Serial, VehicleRecord
from verifier.vin import check_digit

AT_ONCE = 10_000  # vehicles of the country that are made at a time
PRIVATE = "private"  # where a run's own keys lie

# Administrative division codes (GB/T 2260) of the provinces: their first two digits.
_CODES = {
    "京": 11, "津": 12, "冀": 13, "晋": 14, "蒙": 15, "辽": 21, "吉": 22, "黑": 23, "沪": 31, "苏": 32, "浙": 33,
    "皖": 34, "闽": 35, "赣": 36, "鲁": 37, "豫": 41, "鄂": 42, "湘": 43, "粤": 44, "桂": 45, "琼": 46, "渝": 50,
    "川": 51, "贵": 52, "云": 53, "藏": 54, "陕": 61, "甘": 62, "青": 63, "宁": 64, "新": 65,
}  # fmt: skip
_CITIES = tuple(City(province, f"{_CODES[province]}0000", (province,)) for province, _ in PROVINCES)
_TYPES = {"01": ("H31", "F"), "51": ("K11", "C")}  # others: a car, not for hire


class Stretch(NamedTuple):
    """Vehicles of one issuer, by their place among all of that issuer."""

    issuer: str
    start: int
    size: int


class Vehicles(Protocol):
    """A source that was opened."""

    issuer: Issuer

    def counts(self) -> dict[str, int]:
        """How many vehicles each issuer has."""

    def valid(self, stretch: Stretch, month: Month) -> Iterator[tuple[Vehicle, CredentialEntry]]:
        """Those of a stretch that are in order in this month."""

    def trust_entries(self) -> bytes:
        """The trust list under which their codes are good."""


class Source(Protocol):
    """Names vehicles and keys; small, and picklable."""

    def __hash__(self) -> int:
        """By its fields."""

    def label(self) -> dict[str, Any]:
        """What tells it apart from others, and from itself after a change: for JSON."""

    def prepare(self) -> None:
        """Make what has to be there before it is opened for the first time."""

    def open(self) -> Vehicles:
        """The vehicles and their issuer."""


# ------------------------------------------------------------------------------------------- an authority


@dataclass(frozen=True)
class FromAuthority:
    """All that an authority has in its register. It is held in memory, by each process."""

    folder: Path
    issued_at: datetime

    def label(self) -> dict[str, Any]:
        """A digest of what it was made from and of what has happened since to its vehicles and keys. OSError."""
        home = AuthorityFolder(self.folder)
        if not home.exists():
            raise RegistryError(f"no sandbox authority in {self.folder}: make one with 'markcheck sandbox publish'")
        files = [path for path in (home.private / "authority.json", home.events_file) if path.exists()]
        return {"authority": hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()}

    def prepare(self) -> None:
        """Nothing: the authority is there."""

    def open(self) -> Vehicles:
        """RegistryError when there is no authority."""
        return _Register(AuthorityFolder(self.folder), self.issued_at)


class _Register:
    def __init__(self, folder: AuthorityFolder, now: datetime) -> None:
        authority = folder.open(clock=lambda: now)
        self.issuer, self._registry, self.trust_entries = authority.issuer, authority.registry, authority.trust_entries
        self._by_issuer: dict[str, list[Vehicle]] = {}
        for vehicle in self._registry.vehicles.values():
            self._by_issuer.setdefault(vehicle.city.code, []).append(vehicle)

    def counts(self) -> dict[str, int]:
        return {issuer: len(vehicles) for issuer, vehicles in sorted(self._by_issuer.items())}

    def valid(self, stretch: Stretch, month: Month) -> Iterator[tuple[Vehicle, CredentialEntry]]:
        for vehicle in self._by_issuer[stretch.issuer][stretch.start : stretch.start + stretch.size]:
            entry = self._registry.credential(vehicle.plate)
            if is_valid(vehicle.record(), month) and self._registry.states[entry.index] == ACTIVE:
                yield vehicle, entry


# -------------------------------------------------------------------------------------------- the country


@dataclass(frozen=True)
class FromCountry:
    """`scale` made-up vehicles of all provinces, made as they are needed; the keys are the run's own, in its folder."""

    scale: int
    seed: int
    issued_at: datetime
    folder: Path

    def label(self) -> dict[str, Any]:
        """Scale and seed."""
        return {"scale": self.scale, "seed": self.seed}

    def prepare(self) -> None:
        """A fresh key for each province. OSError."""
        self._private.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self._private / ".gitignore").write_text("*\n")
        save_keys(
            self._private,
            (
                signing_key(
                    Algorithm.ES256, issuer=city.code, regions=city.prefixes, role=KeyRole.CREDENTIAL,
                    now=self.issued_at,
                )
                for city in _CITIES
            ),
        )  # fmt: skip

    def open(self) -> Vehicles:
        """With the keys that were prepared. OSError."""
        return _Country(
            National(self.scale, self.seed, self.issued_at.astimezone(SHANGHAI).date(), bytes(32)),
            Issuer({city.code: self._key(city) for city in _CITIES}),
        )

    @property
    def _private(self) -> Path:
        return self.folder / PRIVATE

    def _key(self, city: City) -> SigningKey:
        return load_key(
            self._private, issuer=city.code, regions=city.prefixes, role=KeyRole.CREDENTIAL, begin=self.issued_at
        )


class _Country:
    def __init__(self, fleet: National, issuer: Issuer) -> None:
        self.issuer, self._fleet = issuer, fleet

    def trust_entries(self) -> bytes:
        return self.issuer.trust_entries()

    def counts(self) -> dict[str, int]:
        return {city.code: count for city, count in zip(_CITIES, self._fleet.counts.tolist(), strict=True) if count}

    @cached_property
    def _first(self) -> dict[str, int]:
        """The place in the whole fleet, and so in the status list, of each issuer's first vehicle."""
        starts = np.cumsum(self._fleet.counts) - self._fleet.counts
        return {city.code: start for city, start in zip(_CITIES, starts.tolist(), strict=True)}

    def valid(self, stretch: Stretch, month: Month) -> Iterator[tuple[Vehicle, CredentialEntry]]:
        province = next(n for n, city in enumerate(_CITIES) if city.code == stretch.issuer)
        end = stretch.start + stretch.size
        for start in range(stretch.start, end, AT_ONCE):
            numbers = np.arange(start, min(start + AT_ONCE, end)) + (province << PLACE_BITS)
            facts = zip(self._fleet.plates(numbers), self._fleet.wides(numbers).tolist(), strict=True)
            for place, (plate, wide) in enumerate(facts, self._first[stretch.issuer] + start):
                record = from_wide(wide, plate)
                if is_valid(record, month):
                    yield self._vehicle(place, _CITIES[province], record), self._entry(place, record)

    def _vehicle(self, place: int, city: City, record: VehicleRecord) -> Vehicle:
        until, insured = record.inspection_valid_until, record.ctp_until
        assert until is not None  # noqa: S101 - the country's vehicles have both
        assert insured is not None  # noqa: S101
        vehicle_type, use_nature = _TYPES.get(record.plate.kind or "", ("K33", "A"))
        vin = f"LSV{place % 1_000_000_000:014d}"
        return Vehicle(
            number=place, city=city, plate=record.plate, vin=vin[:8] + check_digit(vin) + vin[9:],
            vehicle_type=vehicle_type, use_nature=use_nature, body_colour="A", status=record.status,
            valid_until=until, ctp_until=insured, ecred_issued=True, issue_reason=IssueReason.INSPECTION, tid=None,
        )  # fmt: skip

    def _entry(self, place: int, record: VehicleRecord) -> CredentialEntry:
        digest = hashlib.blake2b(f"{self._fleet.seed}:{place}".encode(), digest_size=12)
        return CredentialEntry(Serial(digest.hexdigest()), place, record.plate)


def is_valid(record: VehicleRecord, month: Month) -> bool:
    """Whether a vehicle has a credential coming: registered, and its inspection not lapsed in this month."""
    return not is_overdue(record, month) and record.status.isdisjoint(DEREGISTERED_LETTERS)
