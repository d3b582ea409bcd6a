from __future__ import annotations

from datetime import datetime

import pytest

from tests.conftest import load_data
from verifier.errors import PlateError
from verifier.plates import (
    CONFUSABLE,
    PLATE_KINDS,
    PROVINCES,
    canonical,
    confusable_plates,
    display_text,
    parse_plate,
    plate_class,
)
from verifier.types import Month, Plate, same_plate
from verifier.vin import check_vin

TABLES = load_data("domain_tables.json")


@pytest.mark.parametrize("example", TABLES["plate_valid"], ids=lambda e: e["text"])
def test_every_valid_plate_example(example):
    assert canonical(example["text"]) == example["canonical"]
    assert plate_class(example["canonical"]) == example["cls"]
    assert parse_plate(example["text"]).text == example["canonical"]


@pytest.mark.parametrize("text", [*TABLES["plate_invalid"], "京" * 200, "京A12345\x1b[31m", "京A1234\u202e5"])
def test_every_invalid_plate_example(text):
    with pytest.raises(PlateError, match="^plate: "):
        parse_plate(text)


def test_kinds_and_provinces_are_those_of_the_domain_tables():
    assert TABLES["hpzl"] == PLATE_KINDS
    assert TABLES["provinces"] == PROVINCES


def test_a_kind_is_never_guessed():
    assert parse_plate("京A12345").kind is None  # a car, a lorry or a motorcycle may carry it
    assert parse_plate("京AD12345").kind == "52"
    assert parse_plate("沪A12345D").kind == "51"
    assert parse_plate("京A12345", "01").kind == "01"
    for text, kind in (("京A12345", "77"), ("京A12345", "31"), ("WJ京12345", "02"), ("京AD12345", "02")):
        with pytest.raises(PlateError, match="plate kind"):
            parse_plate(text, kind)
    assert parse_plate("京A12345", "22").kind == "22"  # a kind that no class claims


def test_the_error_does_not_repeat_the_plate():
    with pytest.raises(PlateError) as caught:
        parse_plate("京A1234567")
    assert "京A1234567" not in str(caught.value)


def test_same_plate_needs_equal_kinds_when_both_are_known():
    assert same_plate(Plate("京A12345", "02"), Plate("京A12345", None))
    assert same_plate(Plate("京A12345", "02"), Plate("京A12345", "02"))
    assert not same_plate(Plate("京A12345", "01"), Plate("京A12345", "02"))
    assert not same_plate(Plate("京A12345", "02"), Plate("京A12346", "02"))


def test_the_dot_stands_where_plates_have_it():
    assert display_text(Plate("京A12345", "02")) == "京A·12345"
    assert display_text(Plate("粤BD12345", "52")) == "粤B·D12345"
    assert display_text(Plate("使014578", "03")) == "使014578"


@pytest.mark.parametrize("case", TABLES["validity_vectors"], ids=lambda c: c["now"])
def test_a_month_lasts_to_its_last_second_in_shanghai(case):
    now = datetime.fromisoformat(case["now"])
    assert (Month.parse(case["valid_until"]) >= Month.at(now)) is case["valid"]


@pytest.mark.parametrize("text", ["2026-13", "2026-00", "202-011", "2026/08", "2026-8", "", "٢٠٢٦-٠٨"])
def test_impossible_months_are_refused(text):
    with pytest.raises(ValueError, match="month|invalid"):
        Month.parse(text)


def test_month_arithmetic():
    assert Month(2026, 11).plus(2) == Month(2027, 1)
    assert Month(2026, 1).plus(-1) == Month(2025, 12)
    assert str(Month(2026, 3)) == "2026-03"


def test_confusable_plates_are_hints_of_the_same_class():
    hints = [plate.text for plate in confusable_plates(Plate("京A1234B", "02"))]
    assert "京A12348" in hints
    assert "京A1Z34B" in hints
    assert all(plate_class(text) == "ordinary" for text in hints)
    assert [list(group) for group in CONFUSABLE] == TABLES["plate_confusable"]


def test_o_and_i_are_named_and_never_changed():
    for text in ("京AO2345", "京AI2345"):
        with pytest.raises(PlateError, match="0 or 1"):
            parse_plate(text)


@pytest.mark.parametrize("case", TABLES["vin"]["vectors"], ids=lambda c: c["vin"])
def test_vin_examples(case):
    assert check_vin(case["vin"]) == case["state"]
