"""A whole country's vehicles in numpy: keys and values as the cache holds them, and what changes each night.

All of it is made up. Every vehicle has a plate of real syntax (as those of `scripts.sandbox.fleet`, over all
provinces) and its real keyed hash; its facts are a function of seed and number, so that any vehicle can be asked for
without making the others. The tables below stand for a fleet's habits and come from no register.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from verifier.cache.keys import DIGEST_LENGTH, PLATE, KeyHasher
from verifier.cache.values import LETTERS as LETTER_BITS
from verifier.cache.values import SEE_EXACT, ValueScheme, parse_combo
from verifier.plates import ENERGY_LETTERS, LETTERS
from verifier.types import Plate

Numbers = NDArray[np.int64]
"""Vehicles: province << 32 | place among the province's vehicles. Places from the province's count on are newer."""
Keys = NDArray[np.uint64]  # 48 bits
Wides = NDArray[np.uint64]  # as `verifier.cache.values` packs them
Values = NDArray[np.uint32]  # 24 bits
Digests = NDArray[np.uint8]  # rows of 16 bytes

# Provinces with their share of all vehicles, in parts of the sum.
PROVINCES: tuple[tuple[str, int], ...] = (
    ("粤", 60), ("鲁", 60), ("苏", 60), ("豫", 56), ("浙", 55), ("冀", 54), ("川", 45), ("皖", 36), ("鄂", 36),
    ("湘", 35), ("辽", 33), ("云", 31), ("桂", 30), ("陕", 28), ("晋", 28), ("闽", 28), ("赣", 27), ("贵", 23),
    ("蒙", 23), ("京", 22), ("黑", 20), ("吉", 18), ("沪", 18), ("渝", 18), ("新", 18), ("甘", 15), ("津", 12),
    ("琼", 6), ("宁", 6), ("青", 5), ("藏", 3),
)  # fmt: skip
MAX_SCALE = 460_000_000  # vehicles; then the plates of the largest province run out
PLACE_BITS = 32

# Numbers that are handed out before a pattern repeats; a prime step visits each of them once.
_ORDINARY, _SMALL, _LARGE = 5 * 24 * 10_000 + 100_000, len(ENERGY_LETTERS) * 10_000 * 24, len(ENERGY_LETTERS) * 100_000
_STEP = 7_368_787
_KINDS = (("02", 800), ("52", 100), ("01", 80), ("51", 20))  # per mille
_PLATE_BYTES = 12  # kind, province (3), letter, 5 or 6 characters; a shorter one ends in a zero byte

_PARTS = 1 << 24  # of the whole, in which shares are drawn
# Status letters and their shares; the rest is normal.
_STATUSES = (
    ("AG", 0.06), ("AI", 0.002), ("AH", 0.001), ("B", 0.004), ("C", 0.0005), ("J", 0.0003), ("E", 0.002),
    ("M", 0.001), ("P", 0.0005), ("K", 0.0015), ("L", 0.0006), ("D", 0.001), ("GO", 0.0004), ("CG", 0.0001), ("A", 1),
)  # fmt: skip
_LATE, _ISSUED, _UNINSURED = 0.05, 0.9, 0.02  # inspection lapsed, e-credential issued, insurance lapsed
_OVERDUE = _LATE * 11 / 12  # letter Q comes a month late

_COMBO_MASK = np.uint64((1 << 17) - 1)
_MONTH_SHIFT, _MONTH_MASK, _DAY_SHIFT = np.uint64(17), np.uint64((1 << 17) - 1), np.uint64(34)


class Hashed(NamedTuple):
    """Vehicles with their hashes: keys, 24-bit values, and the full hashes with wide values where those do not do."""

    keys: Keys
    values: Values
    exact: list[tuple[bytes, int]]


@dataclass(frozen=True)
class National:
    """`scale` vehicles, the same ones for the same seed, day and epoch key. ValueError when there are too many."""

    scale: int
    seed: int
    today: date
    epoch_key: bytes

    def __post_init__(self) -> None:
        if not 1 <= self.scale <= MAX_SCALE:
            raise ValueError(f"scale: not between 1 and {MAX_SCALE}")

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Vehicles of each province."""
        shares = np.cumsum([share for _, share in PROVINCES], dtype=np.int64)
        return np.asarray(np.diff(self.scale * shares // shares[-1], prepend=0), np.int64)

    @property
    def month(self) -> int:
        """The month in which the fleet is made, year*12 + month."""
        return self.today.year * 12 + self.today.month

    @property
    def scheme(self) -> ValueScheme:
        """How its 24-bit values are read."""
        return ValueScheme(day0=self.today.toordinal() - 400, month0=self.month - 60, combos=_COMMON)

    def numbers(self, places: NDArray[np.int64]) -> Numbers:
        """The vehicles at these places (0 to scale-1) of the whole fleet."""
        ends = np.cumsum(self.counts)
        province = np.searchsorted(ends, places, side="right")
        return np.asarray(province << PLACE_BITS | places - (ends - self.counts)[province], np.int64)

    def plates(self, numbers: Numbers) -> list[Plate]:
        """The plate of each vehicle."""
        texts = [data.decode() for data in self.plate_bytes(numbers).tolist()]
        return [Plate(text[2:], text[:2]) for text in texts]

    def plate_bytes(self, numbers: Numbers) -> NDArray[np.bytes_]:
        """What is hashed of each vehicle: kind and canonical text, as by `verifier.cache.keys.plate_bytes`."""
        province, place = numbers >> PLACE_BITS, numbers & (1 << PLACE_BITS) - 1
        letter, count = place % len(LETTERS), place // len(LETTERS)
        kind = pick([share for _, share in _KINDS], self.draw(numbers, "kind", 1000))
        kind[(kind == 3) & (count >= _LARGE)] = 0
        # Each prefix and kind hands out its numbers from a start of its own.
        index = self.draw((province * 4 + kind) * 32 + letter, "start", 1 << 31) + count * _STEP
        out = np.zeros((len(numbers), _PLATE_BYTES), np.uint8)
        out[:, :2] = _ascii([kind for kind, _ in _KINDS])[kind]
        out[:, 2:5] = _ascii([name for name, _ in PROVINCES])[province]
        out[:, 5] = _ascii(LETTERS)[letter, 0]
        for kinds, write in (((0, 2), _ordinary), ((1,), _small_electric), ((3,), _large_electric)):
            rows = np.flatnonzero(np.isin(kind, kinds))
            out[rows, 6:] = write(index[rows])
        return out.view(f"S{_PLATE_BYTES}").ravel()

    def wides(self, numbers: Numbers) -> Wides:
        """The facts of each vehicle on the first day."""
        late = self.chance(numbers, "late", _LATE)
        past = 1 + self.draw(numbers, "past", 12)
        months = np.where(late, -past, self.draw(numbers, "month", 25))
        uninsured = self.chance(numbers, "uninsured", _UNINSURED)
        days = np.where(uninsured, -1 - self.draw(numbers, "lapsed", 199), 1 + self.draw(numbers, "day", 365))
        combos = self.letters(numbers, "letters") | self.chance(numbers, "issued", _ISSUED) * ISSUED_BIT
        combos[late & (past > 1)] |= OVERDUE_BIT
        return pack_wides(self.today.toordinal() + days, self.month + months, combos)

    def letters(self, numbers: Numbers, salt: str) -> NDArray[np.uint64]:
        """Status letters, drawn by their shares in the fleet, as the bits of a combination."""
        return _LETTER_SETS[pick(_LETTER_SHARES, self.draw(numbers, salt, _PARTS))]

    def hashed(self, numbers: Numbers, wides: Wides) -> Hashed:
        """Keys of these vehicles and 24-bit values of these facts, in the same order."""
        digests, values = self.digests(numbers), narrow(self.scheme, wides)
        exact = [(digests[i].tobytes(), int(wides[i])) for i in np.flatnonzero(values == SEE_EXACT)]
        return Hashed(digest_keys(digests), values, exact)

    def digests(self, numbers: Numbers) -> Digests:
        """The hash of each vehicle's plate."""
        digest, plates = KeyHasher(self.epoch_key).digest, self.plate_bytes(numbers).tolist()
        joined = b"".join([digest(PLATE, plate) for plate in plates])
        return np.frombuffer(joined, np.uint8).reshape(-1, DIGEST_LENGTH)

    def chance(self, numbers: Numbers, salt: str, share: float) -> NDArray[np.bool_]:
        """Whether each vehicle belongs to this share of the fleet."""
        return self.draw(numbers, salt, _PARTS) < share * _PARTS

    def draw(self, numbers: NDArray[np.int64], salt: str, bound: int) -> NDArray[np.int64]:
        """A number below `bound` (at most 2^31) for each vehicle and salt: the finaliser of SplitMix64."""
        salted = hashlib.blake2b(f"{self.seed} {salt}".encode(), digest_size=8).digest()
        x = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(int.from_bytes(salted, "little"))
        x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        return ((x ^ x >> np.uint64(31)) >> np.uint64(32)).astype(np.int64) * bound >> 32


def pick(shares: Sequence[int], draws: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place of each draw among shares laid end to end; the last one takes what is beyond."""
    return np.asarray(np.searchsorted(np.cumsum(shares)[:-1], draws, side="right"), np.int64)


def changed_letters(rng: np.random.Generator, count: int) -> NDArray[np.uint64]:
    """Status letters after a change of status: half of the vehicles come back to normal."""
    abnormal = _LETTER_SETS[pick(_LETTER_SHARES[:-1], rng.integers(0, sum(_LETTER_SHARES[:-1]), count))]
    return np.where(rng.random(count) < 0.5, _LETTER_SETS[-1], abnormal)


def pack_wides(days: NDArray[np.int64], months: NDArray[np.int64], combos: NDArray[np.uint64]) -> Wides:
    """Insurance day (ordinal), inspection month (year*12 + month) and combination, each for one vehicle, as facts."""
    return days.astype(np.uint64) << _DAY_SHIFT | months.astype(np.uint64) << _MONTH_SHIFT | combos


def unpack_wides(wides: Wides) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
    """What `pack_wides` was given."""
    days, months = wides >> _DAY_SHIFT, wides >> _MONTH_SHIFT & _MONTH_MASK
    return days.astype(np.int64), months.astype(np.int64), wides & _COMBO_MASK


def narrow(scheme: ValueScheme, wides: Wides) -> Values:
    """`ValueScheme.narrow` of each, for facts with day and month; SEE_EXACT where the value does not fit."""
    days, months, combos = unpack_wides(wides)
    order = np.argsort(np.array(scheme.combos, np.uint64))
    ranked = np.array(scheme.combos, np.uint64)[order]
    place = np.searchsorted(ranked, combos).clip(max=len(ranked) - 1)
    days, months = days - scheme.day0, months - scheme.month0
    fits = (ranked[place] == combos) & (days > 0) & (days < 1 << 11) & (months > 0) & (months < 1 << 8)
    return np.where(fits, days << 13 | months << 5 | order[place], SEE_EXACT).astype(np.uint32)


def digest_keys(digests: Digests) -> Keys:
    """`verifier.cache.keys.key48` of each hash."""
    return np.ascontiguousarray(digests[:, :8]).view(">u8").ravel().astype(np.uint64) >> np.uint64(16)


def _ascii(texts: list[str] | str) -> NDArray[np.uint8]:
    """The bytes of texts of one length, a row for each."""
    return np.array([list(text.encode()) for text in texts], np.uint8)


def _digits(numbers: NDArray[np.int64], width: int) -> NDArray[np.uint8]:
    places = 10 ** np.arange(width - 1, -1, -1)
    return (numbers.astype(np.int32)[:, None] // places.astype(np.int32) % 10 + ord("0")).astype(np.uint8)


def _ordinary(index: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Five digits, or four and a letter at any of five places."""
    index = index % _ORDINARY
    out = np.zeros((len(index), 6), np.uint8)
    plain = index < 100_000
    out[plain, :5] = _digits(index[plain], 5)
    rest = index[~plain] - 100_000
    place, number = rest % 5, rest // 5
    four, letter = _digits(number % 10_000, 4), _ascii(LETTERS)[number // 10_000, 0]
    mixed = np.stack(
        [np.where(place == i, letter, four[np.arange(len(rest)), i - (place < i)]) for i in range(4)]
        + [np.where(place == 4, letter, four[:, 3])],
        axis=1,
    )
    out[~plain, :5] = mixed
    return out


def _small_electric(index: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Energy letter, letter, four digits."""
    index = index % _SMALL
    number = index // 10
    energy, letter = _ascii(ENERGY_LETTERS)[index % 10], _ascii(LETTERS)[number // 10_000]
    return np.hstack([energy, letter, _digits(number % 10_000, 4)])


def _large_electric(index: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Five digits, energy letter."""
    index = index % _LARGE
    return np.hstack([_digits(index // 10, 5), _ascii(ENERGY_LETTERS)[index % 10]])


def _commonest() -> tuple[int, ...]:
    """The combinations that the base's scheme takes; the rest goes into the exact table."""
    shares: dict[int, float] = {}
    normal = 1 - sum(share for _, share in _STATUSES[:-1])
    for letters, share in (*_STATUSES[:-1], ("A", normal)):
        for more, late in (("", 1 - _OVERDUE), ("Q", _OVERDUE)):
            shares[parse_combo(letters + more)] = share * late * (1 - _ISSUED)
            shares[parse_combo(letters + more + "+")] = share * late * _ISSUED
    return tuple(sorted(shares, key=lambda combo: (-shares[combo], combo))[:SEE_EXACT])


OVERDUE_BIT = np.uint64(1 << LETTER_BITS.index("Q"))
ISSUED_BIT = np.uint64(parse_combo("+"))
_LETTER_SHARES = tuple(round(share * _PARTS) for _, share in _STATUSES)
_LETTER_SETS = np.array([parse_combo(letters) for letters, _ in _STATUSES], np.uint64)
_COMMON = _commonest()
