"""Deltas: exact round trips, bounded inflating, and no other bytes than those the index names."""

from __future__ import annotations

import hashlib
import random
import struct
import zlib
from array import array
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.cache.keys import MAX_KEY
from verifier.cache.values import SEE_EXACT, TOMBSTONE
from verifier.codec.delta import MAX_SIDE_ROWS, Delta, DeltaFormatError, decode_delta, encode_delta
from verifier.codec.index import MAX_DELTA_ROWS, DeltaEntry

HEAD = struct.Struct("<4s32s4Q3I")
EMPTY = Delta(region="national", seq_from=412, seq_to=413, base_seq=400, key_epoch=3, keys=[], values=[])
SOME = replace(
    EMPTY,
    keys=[0, 7, 8, 9 + (1 << 33), MAX_KEY],
    values=[1, SEE_EXACT, TOMBSTONE, 0xFFFFFE, 0],
    exact=((bytes(5) + b"\7" + b"a" * 10, 5), (bytes(5) + b"\7" + b"b" * 10, (1 << 56) - 1)),
    replated=((b"s" * 16, 0), (b"t" * 16, MAX_KEY)),
)


def entry(data: bytes, delta: Delta = SOME) -> DeltaEntry:
    return DeltaEntry(
        seq_from=delta.seq_from, seq_to=delta.seq_to, length=len(data), sha256=hashlib.sha256(data).digest(),
        rows=len(delta.keys),
    )  # fmt: skip


def round_trip(delta: Delta) -> Delta:
    data = encode_delta(delta)
    return decode_delta(data, entry(data, delta))


def same(a: Delta, b: Delta) -> bool:
    return list(a.rows()) == list(b.rows()) and replace(a, keys=[], values=[]) == replace(b, keys=[], values=[])


values = st.integers(0, (1 << 24) - 1).filter(lambda v: v & 31 != 31) | st.just(TOMBSTONE)
keys = st.integers(0, MAX_KEY) | st.integers(0, 300) | st.integers(MAX_KEY - 300, MAX_KEY)
hashes = st.tuples(keys, st.binary(min_size=10, max_size=10)).map(lambda pair: pair[0].to_bytes(6, "big") + pair[1])


@given(
    st.dictionaries(keys, values, max_size=80),
    st.dictionaries(hashes, st.integers(0, (1 << 56) - 1), max_size=8),
    st.dictionaries(hashes, st.integers(0, MAX_KEY), max_size=8),
)
def test_every_delta_round_trips(table: dict[int, int], exact: dict[bytes, int], replated: dict[bytes, int]) -> None:
    table |= {int.from_bytes(digest[:6], "big"): SEE_EXACT for digest in exact}
    ordered = sorted(table)
    delta = replace(
        EMPTY, keys=array("Q", ordered), values=array("I", [table[key] for key in ordered]),
        exact=tuple(sorted(exact.items())), replated=tuple(sorted(replated.items())),
    )  # fmt: skip
    assert same(round_trip(delta), delta)


@pytest.mark.parametrize("delta", [EMPTY, SOME, replace(EMPTY, keys=[0], values=[TOMBSTONE], region="r" * 32)])
def test_the_ends_of_what_a_delta_can_hold(delta: Delta) -> None:
    assert same(round_trip(delta), delta)


@pytest.mark.parametrize(
    "changes",
    [
        {"keys": [1, 1], "values": [0, 0]}, {"keys": [2, 1], "values": [0, 0]}, {"keys": [-1], "values": [0]},
        {"keys": [MAX_KEY + 1], "values": [0]}, {"keys": [1], "values": []}, {"keys": [1], "values": [1 << 24]},
        {"keys": [1], "values": [-1]}, {"keys": [1], "values": [63]}, {"keys": [1], "values": [SEE_EXACT]},
        {"exact": [(bytes(16), 1)]}, {"exact": [(bytes(16), 1)], "keys": [0], "values": [5]},
        {"exact": [(bytes(16), 1 << 56)], "keys": [0], "values": [SEE_EXACT]},
        {"exact": [(bytes(16), 1), (bytes(16), 2)], "keys": [0], "values": [SEE_EXACT]},
        {"replated": [(bytes(15), 1)]}, {"replated": [(bytes(16), MAX_KEY + 1)]},
        {"replated": [(b"b" * 16, 1), (b"a" * 16, 1)]},
        {"region": "A"}, {"region": ""}, {"region": "r" * 33}, {"seq_to": 412}, {"base_seq": 413}, {"base_seq": 0},
        {"key_epoch": -1}, {"seq_to": 1 << 64},
    ],
)  # fmt: skip
def test_what_breaks_a_rule_is_not_encoded(changes: dict[str, object]) -> None:
    with pytest.raises(DeltaFormatError, match="delta"):
        encode_delta(replace(EMPTY, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"replated": [(bytes(16), 1)] * (MAX_SIDE_ROWS + 1)},
        {"keys": [1], "values": [SEE_EXACT], "exact": [(b"\0\0\0\0\0\1" + bytes(10), 1)] * (MAX_SIDE_ROWS + 1)},
        {"keys": range(MAX_DELTA_ROWS + 1), "values": bytes(MAX_DELTA_ROWS + 1)},
    ],
)
def test_more_rows_than_a_delta_may_have_are_one_error_that_says_what_to_do(changes: dict[str, Any]) -> None:
    with pytest.raises(DeltaFormatError, match=r"more than [0-9,]+ .*rows: these take another base"):
        encode_delta(replace(EMPTY, **changes))


def test_every_truncation_bit_flip_and_longer_file_is_refused() -> None:
    data = encode_delta(SOME)
    named = entry(data)
    spoiled = [data[:length] for length in range(len(data))] + [data + b"\0"]
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        spoiled.append(bytes(flipped))
    for other in spoiled:
        with pytest.raises(DeltaFormatError):
            decode_delta(other, named)


def test_damage_that_the_digest_cannot_tell_is_refused_or_another_delta() -> None:
    """As if the publisher had signed it: what is read is within every bound."""
    data = encode_delta(SOME)
    for place in range(len(data)):
        for other in (data[:place], bytes([*data[:place], data[place] ^ 0x41, *data[place + 1 :]])):
            try:
                delta = decode_delta(other, entry(other))
            except DeltaFormatError:
                continue
            assert encode_delta(delta)


@pytest.mark.parametrize("changes", [{"rows": 4}, {"seq_from": 411}, {"seq_to": 414}, {"length": 9}])
def test_a_delta_that_is_not_what_the_index_says_is_refused(changes: dict[str, Any]) -> None:
    data = encode_delta(SOME)
    with pytest.raises(DeltaFormatError):
        decode_delta(data, replace(entry(data), **changes))


@pytest.mark.parametrize(
    ("body", "counts", "tail"),
    [
        (1 << 28, {}, b""),  # a quarter of a gigabyte where nothing was announced
        (1 << 27, {"rows": 3}, b""),
        (26, {"rows": 3}, b""),
        (28, {"rows": 3}, b""),
        (27, {"rows": 3}, b"\0"),
        (0, {}, zlib.compress(b"")),
        (27, {"rows": MAX_DELTA_ROWS + 1}, b""),
        (0, {"exact": (1 << 32) - 1}, b""),
        (0, {"replated": (1 << 32) - 1}, b""),
        (b"\xff" * 18, {"rows": 2}, b""),  # gaps that lead beyond 48 bits, or 64
        (b"\xff" * 12 + bytes(6), {"rows": 2}, b""),
    ],
    ids=range(11),
)
def test_bodies_of_another_size_are_refused_without_inflating_them(
    body: int | bytes, counts: dict[str, int], tail: bytes
) -> None:
    rows, exact, replated = (counts.get(name, 0) for name in ("rows", "exact", "replated"))
    header = HEAD.pack(b"MCD1", b"national", 412, 413, 400, 3, rows, exact, replated)
    data = header + zlib.compress(bytes(body), 1) + tail
    with pytest.raises(DeltaFormatError):
        decode_delta(data, entry(data, replace(EMPTY, keys=range(rows), values=range(rows))))


def test_a_night_takes_at_most_six_and_a_half_bytes_a_row() -> None:
    """200,000 of 64 million keys, with values as spread as a fleet's: days of three years, months of two."""
    draw = random.Random(1)
    rows = {draw.getrandbits(48) for _ in range(200_000)}
    delta = replace(
        EMPTY,
        keys=array("Q", sorted(rows)),
        values=array(
            "I", [draw.randrange(1000) << 13 | draw.randrange(24) << 5 | min(5, int(draw.expovariate(2))) for _ in rows]
        ),
    )
    data = encode_delta(delta)
    assert len(data) <= 6.5 * len(rows)
    assert same(decode_delta(data, entry(data, delta)), delta)
