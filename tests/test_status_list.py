"""Token Status List: packing, bounds, and the draft's own examples."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.codec.status import WIDTHS, StatusListError, deflate, inflate, pack, unpack


@st.composite
def lists(draw: st.DrawFn) -> tuple[int, list[int]]:
    bits = draw(st.sampled_from(WIDTHS))
    return bits, draw(st.lists(st.integers(0, (1 << bits) - 1), max_size=50))


@given(lists())
def test_round_trip(case: tuple[int, list[int]]) -> None:
    bits, values = case
    data = pack(values, bits)
    assert [unpack(data, bits, i) for i in range(len(values))] == values
    assert inflate(deflate(data), len(data)) == data


def test_least_significant_bits_come_first() -> None:
    assert pack([1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1], 1) == bytes.fromhex("b9a3")
    assert pack([1, 2, 0, 3], 2) == bytes([0b11001001])


@pytest.mark.parametrize("index", [4, 5, 10**12, -1])
def test_beyond_the_list_nothing_is_said(index: int) -> None:
    assert unpack(pack([1, 2, 3, 0], 2), 2, index) is None


def test_bad_arguments() -> None:
    with pytest.raises(StatusListError):
        pack([4], 2)
    with pytest.raises(StatusListError):
        pack([0], 3)
    with pytest.raises(StatusListError):
        unpack(b"\0", 5, 0)


def test_inflating_stops_at_the_cap() -> None:
    bomb = zlib.compress(bytes(50_000_000), 9)
    with pytest.raises(StatusListError, match="more than 1000 bytes"):
        inflate(bomb, 1000)


@pytest.mark.parametrize(
    "data",
    [b"", b"no zlib", zlib.compress(b"abc")[:-1], zlib.compress(b"abc") + b"x", zlib.compress(b"abc")[:-1] + b"\0"],
)
def test_a_damaged_stream_is_refused(data: bytes) -> None:
    with pytest.raises(StatusListError):
        inflate(data, 1000)


def test_examples_of_the_draft(vectors: Callable[[str], Path]) -> None:
    cases = [case for case in json.loads(vectors("status_list_A.json").read_text())["tests"] if "cbor" in case]
    assert len(cases) >= 3
    for case in cases:
        listed = cbor2.loads(bytes.fromhex(case["cbor"]))
        data = inflate(listed["lst"], 1 << 20)
        if "values" in case:
            found = [unpack(data, listed["bits"], i) for i in range(len(case["values"]))]
            assert found == case["values"]
            assert pack(case["values"], listed["bits"]) == data
        else:
            nonzero = {int(index): value for index, value in case["nonzero"].items()}
            for index in [*nonzero, 1, 2, 500000, case["size"] - 1]:
                assert unpack(data, case["bits"], index) == nonzero.get(index, case["everything_else"])
            assert unpack(data, case["bits"], case["out_of_bounds_index"]) is None
