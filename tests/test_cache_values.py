"""The 24-bit value and its wide form carry every record exactly."""

from __future__ import annotations

from collections import Counter
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.cache.values import (
    LETTERS,
    SEE_EXACT,
    choose_scheme,
    combo_text,
    from_wide,
    parse_combo,
    to_wide,
)
from verifier.errors import CacheCorruptError
from verifier.types import Month, Plate, StatusLetter, VehicleRecord

PLATE = Plate("京A12345", "02")


def record(
    letters: str = "A", month: Month | None = None, ecred: bool = False, ctp: date | None = None
) -> VehicleRecord:
    return VehicleRecord(
        plate=PLATE,
        status=frozenset(map(StatusLetter, letters)),
        inspection_valid_until=month,
        ecred_issued=ecred,
        ctp_until=ctp,
    )


records = st.builds(
    lambda letters, month, ecred, ctp: VehicleRecord(
        plate=PLATE,
        status=frozenset(letters),
        inspection_valid_until=month,
        ecred_issued=ecred,
        ctp_until=ctp,
    ),
    st.frozensets(st.sampled_from(StatusLetter)),
    st.none() | st.builds(Month, st.integers(1900, 9999), st.integers(1, 12)),
    st.booleans(),
    st.none() | st.dates(),
)


def test_every_status_letter_has_a_bit() -> None:
    assert sorted(LETTERS) == sorted(letter.value for letter in StatusLetter)


@given(records)
def test_wide_form_round_trips(value: VehicleRecord) -> None:
    wide = to_wide(value)
    assert wide < 1 << 56
    assert from_wide(wide, PLATE) == value


@given(st.lists(records, min_size=1, max_size=60))
def test_what_fits_24_bits_comes_back_exactly(values: list[VehicleRecord]) -> None:
    counts = Counter(map(to_wide, values))
    scheme = choose_scheme(counts)
    assert len(scheme.combos) <= SEE_EXACT
    for wide in counts:
        narrow = scheme.narrow(wide)
        if narrow is not None:
            assert 0 <= narrow < 1 << 24
            assert narrow & 31 != SEE_EXACT
            assert scheme.widen(narrow) == wide


def test_an_ordinary_fleet_fits_completely() -> None:
    values = [
        record(letters, Month(2026, 1).plus(i % 200), ecred=bool(i % 2), ctp=date.fromordinal(740000 + i % 2000))
        for i, letters in enumerate(["A", "G", "Q", "GQ", "", "E", "K", "AH"] * 300)
    ]
    scheme = choose_scheme(Counter(map(to_wide, values)))
    assert all(scheme.narrow(to_wide(value)) is not None for value in values)


def test_outliers_do_not_push_the_many_out() -> None:
    many = [record("A", Month(2027, 1).plus(i % 24)) for i in range(100)]
    odd = [record("A", Month(1900, 1)), record("A", Month(9999, 12)), record("A", None, ctp=date.max)]
    scheme = choose_scheme(Counter(map(to_wide, many + odd)))
    assert all(scheme.narrow(to_wide(value)) is not None for value in many)
    assert scheme.narrow(to_wide(odd[0])) is None
    assert scheme.narrow(to_wide(odd[1])) is None


def test_the_thirty_one_commonest_combinations_are_kept() -> None:
    sets = [f"{a}{b}" for i, a in enumerate(LETTERS) for b in LETTERS[i + 1 :]][:40]
    counts = Counter({to_wide(record(letters)): 100 - i for i, letters in enumerate(sets)})
    scheme = choose_scheme(counts)
    fitting = [letters for letters in sets if scheme.narrow(to_wide(record(letters))) is not None]
    assert fitting == sets[:31]


@given(st.integers(0, (1 << 17) - 1))
def test_combination_text_round_trips(combo: int) -> None:
    assert parse_combo(combo_text(combo)) == combo


@pytest.mark.parametrize("text", ["Z", "A-", "+A", "a"])
def test_unknown_letters_in_a_combination_are_refused(text: str) -> None:
    with pytest.raises(CacheCorruptError):
        parse_combo(text)


def test_impossible_values_are_refused() -> None:
    scheme = choose_scheme({to_wide(record("A")): 1})
    with pytest.raises(CacheCorruptError):
        scheme.widen(7)
    for wide in ((date.max.toordinal() + 1) << 34, 5 << 17, ((1 << 17) - 1) << 17):
        with pytest.raises(CacheCorruptError):
            from_wide(wide, PLATE)
