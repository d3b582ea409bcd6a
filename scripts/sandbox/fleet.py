"""A seeded fleet of vehicles with real plate syntax, over the pilot cities. All of it is made up."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from enum import StrEnum
from typing import NamedTuple

from verifier.plates import ENERGY_LETTERS
from verifier.types import Month, Plate, StatusLetter, VehicleRecord
from verifier.vin import ALPHABET, check_digit


class City(NamedTuple):
    """A pilot city: English name, administrative division code (GB/T 2260), plate prefixes with their letter."""

    name: str
    code: str
    prefixes: tuple[str, ...]


def _municipality(name: str, code: str, province: str, letters: str) -> City:
    return City(name, code, tuple(province + letter for letter in letters))


CITIES: tuple[City, ...] = (
    _municipality("Beijing", "110000", "京", "ACEFGHJKLMNPQ"),
    _municipality("Tianjin", "120000", "津", "ABCDEFGHJKLMN"),
    _municipality("Shanghai", "310000", "沪", "ABCDEFGHJKLMN"),
    _municipality("Chongqing", "500000", "渝", "ABCDFGH"),
    City("Harbin", "230100", ("黑A",)),
    City("Nanjing", "320100", ("苏A",)),
    City("Hangzhou", "330100", ("浙A",)),
    City("Ningbo", "330200", ("浙B",)),
    City("Jinan", "370100", ("鲁A",)),
    City("Zhuzhou", "430200", ("湘B",)),
    City("Shenzhen", "440300", ("粤B",)),
    City("Haikou", "460100", ("琼A",)),
    City("Chengdu", "510100", ("川A",)),
    City("Guiyang", "520100", ("贵A",)),
    City("Yuxi", "530400", ("云F",)),
    City("Urumqi", "650100", ("新A",)),
)


class IssueReason(StrEnum):
    """Why a credential was issued: the four of S15, each of which gives one, and a transfer to another owner."""

    REGISTRATION = "registration"
    INSPECTION = "inspection"
    EXEMPT = "exempt"
    REISSUE = "reissue"
    TRANSFER = "transfer"


_FIRST_REASONS = tuple(reason for reason in IssueReason if reason is not IssueReason.TRANSFER)  # of a new fleet


@dataclass(frozen=True, slots=True, kw_only=True)
class Vehicle:
    """One vehicle as the sandbox's register knows it."""

    number: int  # place in the fleet
    city: City
    plate: Plate
    vin: str
    vehicle_type: str
    use_nature: str
    body_colour: str
    status: frozenset[StatusLetter]
    valid_until: Month
    ctp_until: date
    ecred_issued: bool
    issue_reason: IssueReason
    tid: str | None

    def record(self) -> VehicleRecord:
        """The vehicle facts that are distributed."""
        return VehicleRecord(
            plate=self.plate,
            status=self.status,
            inspection_valid_until=self.valid_until,
            ecred_issued=self.ecred_issued,
            ctp_until=self.ctp_until,
        )


# Numbers per prefix that are handed out before a pattern repeats; a prime step visits each of them once.
_ORDINARY = 5 * 24 * 10_000 + 100_000
_ELECTRIC = len(ENERGY_LETTERS) * 10_000 * 24
_STEP = 7_368_787
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
MAX_SCALE = 20_000_000

# kind, share of the fleet, vehicle types, use natures
_KINDS: tuple[tuple[str, float, tuple[str, ...], str], ...] = (
    ("02", 0.80, ("K33", "K33", "K33", "K32", "K31", "K43"), "AAAAAAAG"),
    ("52", 0.10, ("K33", "K33", "K31"), "AAAAGT"),
    ("01", 0.08, ("H11", "H31", "K11", "Q11"), "FFFBC"),
    ("51", 0.02, ("K11",), "C"),
)
# status letters, share of the fleet; the rest is normal
_STATUSES: tuple[tuple[str, float], ...] = (
    ("AG", 0.06), ("AI", 0.002), ("AH", 0.001), ("B", 0.004), ("C", 0.0005), ("J", 0.0003), ("E", 0.002),
    ("M", 0.001), ("P", 0.0005), ("K", 0.0015), ("L", 0.0006), ("D", 0.001), ("GO", 0.0004), ("CG", 0.0001),
)  # fmt: skip


def fleet(scale: int, seed: int, today: date) -> Iterator[Vehicle]:
    """`scale` vehicles, the same ones for the same seed and day; ValueError when the scale is out of range."""
    if not 16 <= scale <= MAX_SCALE:
        raise ValueError(f"scale: not between 16 and {MAX_SCALE}")
    rng = random.Random(seed)  # noqa: S311 - made-up vehicles, no secret
    starts = {(prefix, kind[0]): rng.randrange(2**31) for city in CITIES for prefix in city.prefixes for kind in _KINDS}
    used: dict[tuple[str, str], int] = {}
    month = Month(today.year, today.month)
    for number in range(scale):
        city = CITIES[number % len(CITIES)]
        kind, types, uses = _pick_kind(rng)
        prefix = city.prefixes[rng.randrange(len(city.prefixes))]
        count = used.get((prefix, kind), 0)
        used[prefix, kind] = count + 1
        vehicle = Vehicle(
            number=number,
            city=city,
            plate=Plate(_plate_text(prefix, kind, starts[prefix, kind] + count * _STEP), kind),
            vin=_vin(rng, number),
            vehicle_type=rng.choice(types),
            use_nature=rng.choice(uses),
            body_colour=rng.choice("AAAABBBEHJJ"),
            status=_status(rng),
            valid_until=month.plus(rng.randrange(0, 25)),
            ctp_until=today + timedelta(days=rng.randrange(1, 366)),
            ecred_issued=rng.random() < 0.9,
            issue_reason=rng.choice(_FIRST_REASONS),
            tid=f"E280{rng.getrandbits(80):020X}" if rng.random() < 0.2 else None,
        )
        yield _with_lapses(vehicle, rng, month, today)


def _with_lapses(vehicle: Vehicle, rng: random.Random, month: Month, today: date) -> Vehicle:
    """Some inspections and some insurances have lapsed; letter Q follows the month, some weeks late."""
    if rng.random() < 0.05:
        past = rng.randrange(1, 13)
        letters = vehicle.status | {StatusLetter.OVERDUE} if past > 1 else vehicle.status
        vehicle = replace(vehicle, valid_until=month.plus(-past), status=letters)
    if rng.random() < 0.02:
        vehicle = replace(vehicle, ctp_until=today - timedelta(days=rng.randrange(1, 200)))
    return vehicle


def _pick_kind(rng: random.Random) -> tuple[str, tuple[str, ...], str]:
    draw = rng.random()
    for kind, share, types, uses in _KINDS:
        if draw < share:
            return kind, types, uses
        draw -= share
    kind, _, types, uses = _KINDS[0]
    return kind, types, uses


def _status(rng: random.Random) -> frozenset[StatusLetter]:
    draw = rng.random()
    for letters, share in _STATUSES:
        if draw < share:
            return frozenset(map(StatusLetter, letters))
        draw -= share
    return frozenset({StatusLetter.NORMAL})


def _plate_text(prefix: str, kind: str, index: int) -> str:
    if kind in ("51", "52"):
        index %= _ELECTRIC
        letter, digits = ENERGY_LETTERS[index % 10], index // 10
        if kind == "51":
            return f"{prefix}{digits % 100_000:05d}{letter}"
        return f"{prefix}{letter}{_LETTERS[digits // 10_000 % 24]}{digits % 10_000:04d}"
    index %= _ORDINARY
    if index < 100_000:
        return f"{prefix}{index:05d}"
    index -= 100_000
    place, digits = index % 5, index // 5
    four = f"{digits % 10_000:04d}"
    return f"{prefix}{four[:place]}{_LETTERS[digits // 10_000]}{four[place:]}"


def _vin(rng: random.Random, number: int) -> str:
    body = "L" + "".join(rng.choice(ALPHABET) for _ in range(9)) + f"{number % 10_000_000:07d}"
    return body[:8] + check_digit(body) + body[9:]
