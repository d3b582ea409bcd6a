"""What is typed of a car and what a credential says of it: VIN, type, colour, nature of use."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.conftest import load_data
from verifier.types import Credential, Month, Plate, PresentationMode, Serial
from verifier.vehicle_words import COLOURS, USE_NATURES, VEHICLE_TYPES, vehicle_words
from verifier.vin import ALPHABET, LENGTH, VinState, binding, check_digit, check_vin, read_vin, same_vin

TABLES = load_data("domain_tables.json")
SERIAL = "00112233445566778899"
GOOD = "LSVAA49J4E2000001"

CREDENTIAL = Credential(
    serial=Serial(SERIAL),
    plate=Plate("京A12345", "02"),
    valid_until=Month(2027, 8),
    issued_at=datetime(2026, 8, 1, tzinfo=UTC),
    vehicle_type="K33",
    body_colour="AJ",
    use_nature="A",
)


def bound_to(vin: str) -> bytes:
    return binding(b"VM1-VIN", SERIAL, vin)


def test_the_chinese_words_are_those_of_the_domain_tables():
    for ours, name in ((VEHICLE_TYPES, "vehicle_type"), (COLOURS, "body_colour"), (USE_NATURES, "use_nature")):
        assert {code: text.zh for code, text in ours.items()} == TABLES[name]
        assert all(1 <= len(text.en) <= 16 and text.en.isascii() for text in ours.values())
        assert len({text.en for text in ours.values()}) == len(ours)


def test_type_colours_and_use_are_said_in_both_languages():
    rows = vehicle_words(CREDENTIAL, None)
    assert [(label.zh, words.zh) for label, words in rows] == [
        ("车型", "小型轿车"),
        ("颜色", "白/黑"),
        ("用途", "非营运"),
    ]
    assert [words.en for _, words in rows] == ["small car", "white/black", "non-commercial"]


def test_a_code_that_no_table_knows_is_shown_as_it_is():
    rows = vehicle_words(replace(CREDENTIAL, vehicle_type="Z99", body_colour="AZ", use_nature="Z"), None)
    assert [words.zh for _, words in rows] == ["Z99", "白/Z", "Z"]


def test_what_a_credential_does_not_say_is_left_out():
    assert vehicle_words(replace(CREDENTIAL, vehicle_type=None, body_colour=None, use_nature=None), None) == ()


def test_how_the_code_was_shown_is_said_after_the_car_and_in_words_of_its_own():
    rows = {mode: vehicle_words(CREDENTIAL, mode) for mode in PresentationMode}
    assert {said[:-1] for said in rows.values()} == {vehicle_words(CREDENTIAL, None)}
    assert {mode.value: (label.zh, *words) for mode, (*_, (label, words)) in rows.items()} == {
        "live": ("出示", "动态码", "LIVE CODE"),
        "stored": ("出示", "存储码", "STORED"),
        "printed": ("出示", "打印码", "PRINTED"),
        "tag_label": ("出示", "标识卡码", "CARD LABEL"),
    }


@pytest.mark.parametrize("text", [GOOD, GOOD.lower(), f" {GOOD[:9]} {GOOD[9:]}\n"])
def test_a_vin_is_read_as_it_is_typed(text):
    assert read_vin(text) == GOOD


@pytest.mark.parametrize("text", ["", "LSVAA49J4E200000", GOOD + "1", "I" + GOOD[1:], GOOD[:-1] + "１", "\x1b[31m" * 4])
def test_what_is_no_vin_is_refused_without_repeating_it(text):
    with pytest.raises(ValueError, match="not 17 letters and digits") as caught:
        read_vin(text)
    assert not text or text not in str(caught.value)


def test_a_wrong_check_digit_is_refused_though_some_makers_put_none():
    with pytest.raises(ValueError, match="check digit") as caught:
        read_vin("LSVAA49J5E2000001")
    assert "LSVAA" not in str(caught.value)


def test_the_vin_of_another_car_is_another_one():
    assert same_vin(read_vin(GOOD), SERIAL, bound_to(GOOD)) is True
    assert same_vin(read_vin("LFV2A21KXA3000002"), SERIAL, bound_to(GOOD)) is False
    assert same_vin(read_vin(GOOD), "ff" + SERIAL[2:], bound_to(GOOD)) is False


@given(
    st.text(ALPHABET, min_size=LENGTH, max_size=LENGTH), st.integers(0, LENGTH - 1), st.sampled_from(sorted(ALPHABET))
)
def test_one_wrong_key_is_never_another_car(text, place, char):
    vin = text[:8] + check_digit(text) + text[9:]
    slip = vin[:place] + char + vin[place + 1 :]
    try:
        typed = read_vin(slip)
    except ValueError:
        return
    assert same_vin(typed, SERIAL, bound_to(vin)) is (True if slip == vin else None)


@given(st.text(ALPHABET, min_size=LENGTH, max_size=LENGTH), st.integers(0, LENGTH - 2))
@example("LSVJ149J4E2000001", 3)  # J and 1 count the same
@example("LSVAA490JE2000001", 7)  # the check digit and its neighbour
def test_two_neighbours_swapped_are_never_another_car(text, place):
    vin = text[:8] + check_digit(text) + text[9:]
    swapped = vin[:place] + vin[place + 1] + vin[place] + vin[place + 2 :]
    try:
        typed = read_vin(swapped)
    except ValueError:
        return
    assert same_vin(typed, SERIAL, bound_to(vin)) is (True if swapped == vin else None)


@given(st.text(ALPHABET, min_size=LENGTH, max_size=LENGTH), st.integers(0, LENGTH - 1))
def test_one_wrong_key_is_never_another_car_where_the_maker_puts_no_check_digit(vin, place):
    for char in ALPHABET:
        slip = vin[:place] + char + vin[place + 1 :]
        if check_vin(slip) is VinState.OK:
            assert same_vin(read_vin(slip), SERIAL, bound_to(vin)) is (True if slip == vin else None)
