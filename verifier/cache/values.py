"""What the cache holds of one vehicle, as integers: 24 bits for nearly all, a wide form for the rest.

wide    = inspection day of insurance (22 bits, proleptic ordinal) | inspection month (17 bits, year*12 + month)
          | e-credential issued (1 bit) | status letters (16 bits); a zero day or month means "not known"
value24 = insurance day (11 bits, counted from day0) | inspection month (8 bits, counted from month0)
          | combination of letters and e-credential (5 bits); combination 31 means "see the exact table"
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache

from verifier.errors import CacheCorruptError
from verifier.types import Month, Plate, StatusLetter, VehicleRecord

LETTERS = "ABCDEGHIJKLMNOPQ"  # bit 0 first; the order is part of the format, new letters need a new format
SEE_EXACT = 31  # combination number, and the whole value where nothing else is stored
TOMBSTONE = 0xFFFFFF  # no longer in the register: combination 31 with other bits set, neither a value nor SEE_EXACT
MAX_DAY, MAX_MONTH = 2047, 255  # largest offsets that 11 and 8 bits hold

_ECRED_BIT = 1 << 16
_COMBO_MASK = (1 << 17) - 1
_MONTH_SHIFT, _MONTH_MASK = 17, (1 << 17) - 1
_DAY_SHIFT = 34
_MAX_MONTH_NUMBER = 9999 * 12 + 12
_MAX_DAY_NUMBER = date.max.toordinal()
_LETTER_BITS = {StatusLetter(letter): 1 << i for i, letter in enumerate(LETTERS)}


@dataclass(frozen=True, slots=True)
class ValueScheme:
    """How a base's 24-bit values are read: its first day and month, and its commonest combinations."""

    day0: int  # proleptic ordinal; a stored day d means day0 + d
    month0: int  # year*12 + month; likewise
    combos: tuple[int, ...]  # at most 31 combinations: letters and e-credential bits of the wide form

    def narrow(self, wide: int) -> int | None:
        """The 24-bit value of a wide one; None when it does not fit and belongs into the exact table."""
        day, month = wide >> _DAY_SHIFT, wide >> _MONTH_SHIFT & _MONTH_MASK
        day = day and day - self.day0
        month = month and month - self.month0
        try:
            combo = self.combos.index(wide & _COMBO_MASK)
        except ValueError:
            return None
        fits = 0 <= day <= MAX_DAY and 0 <= month <= MAX_MONTH
        # An offset of zero is the mark of "not known", so day0 and month0 themselves do not fit either.
        if not fits or (day == 0) != (wide >> _DAY_SHIFT == 0):
            return None
        if (month == 0) != (wide >> _MONTH_SHIFT & _MONTH_MASK == 0):
            return None
        return day << 13 | month << 5 | combo

    def widen(self, value: int) -> int:
        """The wide form of a 24-bit value other than "see exact"; CacheCorruptError for an unknown combination."""
        combo = value & 31
        if combo >= len(self.combos):
            raise CacheCorruptError("value: a combination that the dictionary does not have")
        day, month = value >> 13, value >> 5 & 255
        return (
            (day and day + self.day0) << _DAY_SHIFT
            | (month and month + self.month0) << _MONTH_SHIFT
            | self.combos[combo]
        )


def to_wide(record: VehicleRecord) -> int:
    """The facts that the cache carries, as one integer of at most 56 bits.

    Carried are status letters, inspection month, insurance day and whether an e-credential was issued. The plate
    is in the key; serial and time of change are not stored.
    """
    wide = _ECRED_BIT if record.ecred_issued else 0
    for letter in record.status:
        wide |= _LETTER_BITS[letter]
    if (until := record.inspection_valid_until) is not None:
        wide |= (until.year * 12 + until.month) << _MONTH_SHIFT
    if record.ctp_until is not None:
        wide |= record.ctp_until.toordinal() << _DAY_SHIFT
    return wide


def from_wide(wide: int, plate: Plate) -> VehicleRecord:
    """The record of a wide value, for the plate it was asked with; CacheCorruptError for an impossible value."""
    day, month = wide >> _DAY_SHIFT, wide >> _MONTH_SHIFT & _MONTH_MASK
    if not (0 <= day <= _MAX_DAY_NUMBER and (month == 0 or 12 < month <= _MAX_MONTH_NUMBER)):
        raise CacheCorruptError("value: a date that does not exist")
    return VehicleRecord(
        plate=plate,
        status=_letters(wide & 0xFFFF),
        inspection_valid_until=_month(month) if month else None,
        ecred_issued=bool(wide & _ECRED_BIT),
        ctp_until=date.fromordinal(day) if day else None,
    )


def choose_scheme(counts: Mapping[int, int]) -> ValueScheme:
    """The scheme that fits most of these wide values into 24 bits (wide value → number of vehicles)."""
    days: Counter[int] = Counter()
    months: Counter[int] = Counter()
    combos: Counter[int] = Counter()
    for wide, n in counts.items():
        combos[wide & _COMBO_MASK] += n
        months[wide >> _MONTH_SHIFT & _MONTH_MASK] += n
        days[wide >> _DAY_SHIFT] += n
    del days[0], months[0]
    ranked = sorted(combos.items(), key=lambda item: (-item[1], item[0]))
    return ValueScheme(
        day0=_best_start(days, MAX_DAY),
        month0=_best_start(months, MAX_MONTH),
        combos=tuple(combo for combo, _ in ranked[:SEE_EXACT]),
    )


def combo_text(combo: int) -> str:
    """A combination for `meta`: the letters, with "+" where an e-credential was issued."""
    letters = "".join(letter for i, letter in enumerate(LETTERS) if combo >> i & 1)
    return letters + ("+" if combo & _ECRED_BIT else "")


def parse_combo(text: str) -> int:
    """What `combo_text` wrote; CacheCorruptError for anything else."""
    combo = _ECRED_BIT if text.endswith("+") else 0
    for letter in text.removesuffix("+"):
        if letter not in LETTERS:
            raise CacheCorruptError("meta: a status letter that is not known")
        combo |= 1 << LETTERS.index(letter)
    return combo


def _best_start(counts: Counter[int], width: int) -> int:
    """The start before the window of `width` numbers that covers most; the lowest of equals."""
    numbers = sorted(counts)
    best, best_start, covered, low = -1, 0, 0, 0
    for number in numbers:
        covered += counts[number]
        while number - numbers[low] >= width:
            covered -= counts[numbers[low]]
            low += 1
        if covered > best:
            best, best_start = covered, numbers[low] - 1
    return best_start


@lru_cache(maxsize=256)
def _letters(bits: int) -> frozenset[StatusLetter]:
    return frozenset(StatusLetter(letter) for i, letter in enumerate(LETTERS) if bits >> i & 1)


@lru_cache(maxsize=256)
def _month(number: int) -> Month:
    year, month0 = divmod(number - 1, 12)
    return Month(year, month0 + 1)
