"""Blocks: exact round trips, and a wrong bit is noticed before it can be an answer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifier.cache.blocks import (
    HEADER,
    MAX_SPAN,
    PER,
    ROW,
    Splitter,
    checked,
    count_rows,
    encode_block,
    encode_group,
    find_in_block,
    low_key,
    protect,
    read_block,
    read_group,
    split_blocks,
    with_rows,
)
from verifier.cache.keys import MAX_KEY
from verifier.errors import CacheCorruptError

keys = st.integers(0, MAX_KEY) | st.integers(0, 5000) | st.integers(MAX_KEY - 5000, MAX_KEY)
rows = st.dictionaries(keys, st.integers(0, (1 << 24) - 1), max_size=200)


def find_in(k: int, d: bytes, key: int) -> int | None:
    return find_in_block(k, checked(k, d), key)


def find(blocks: list[tuple[int, bytes]], key: int) -> int | None:
    k, d = next((k, d) for k, d in blocks if k >= key)
    return find_in(k, d, key)


def find_in_group(k: int, d: bytes, digest: bytes) -> int | None:
    return read_group(k, checked(k, d)).get(digest)


@given(rows, st.lists(keys, max_size=20))
def test_every_key_is_found_and_no_other(table: dict[int, int], others: list[int]) -> None:
    blocks = list(split_blocks(sorted(table.items())))
    for key in [*table, *others]:
        assert find(blocks, key) == table.get(key)


@given(rows)
def test_blocks_leave_no_gap(table: dict[int, int]) -> None:
    low, seen = 0, 0
    for k, d in split_blocks(sorted(table.items())):
        block_low, block_keys, values = read_block(k, checked(k, d))
        assert block_low == low
        assert dict(zip(block_keys, values, strict=True)).items() <= table.items()
        low, seen = k + 1, seen + len(block_keys)
    assert low == MAX_KEY + 1
    assert seen == len(table)


def test_the_ends_of_the_key_space() -> None:
    blocks = list(split_blocks([(0, 1), (MAX_KEY, 2)]))
    assert [find(blocks, key) for key in (0, 1, MAX_KEY - 1, MAX_KEY)] == [1, None, None, 2]


def test_an_empty_set_answers_for_every_key() -> None:
    blocks = list(split_blocks([]))
    assert len(blocks) == 1
    assert find(blocks, 0) is find(blocks, MAX_KEY) is None


@pytest.mark.parametrize("gap", [MAX_SPAN - 1, MAX_SPAN, MAX_SPAN + 1])
def test_blocks_split_where_the_span_does_not_fit(gap: int) -> None:
    blocks = list(split_blocks([(10, 1), (10 + gap, 2)]))
    assert len(blocks) == (2 if gap <= MAX_SPAN else 3)  # the last one is the empty end of the key space
    assert [find(blocks, key) for key in (10, 11, 9 + gap, 10 + gap)] == [1, None, None, 2]


def test_four_full_blocks_fill_a_page() -> None:
    (k, d), (_, rest), _ = split_blocks((i, i % 7) for i in range(PER + 1))
    assert 4 * (len(d) + 15) <= 4096 - 8 < 4 * (len(d) + ROW + 15)
    assert list(read_block(k, checked(k, d))[1]) == list(range(PER))
    assert len(rest) == HEADER + ROW


@pytest.mark.parametrize("offset", [0x01010101, 0x02010101, 0x01020101, 0x01010201])
def test_bytes_between_two_offsets_are_no_offset(offset: int) -> None:
    # Offsets whose bytes repeat: 01010101 also stands across every two neighbours.
    last = 0x01010101 * 3
    keys = [MAX_SPAN + key - last for key in (0x01010100, 0x01010102, 0x02010101, last)]
    k, d = keys[-1] + 5, encode_block(0, [*keys, keys[-1] + 5], [1, 2, 3, 4, 5])
    for key in range(keys[0] - 300, keys[-1] + 5, 1 << 8):
        assert find_in(k, d, key) == (keys.index(key) + 1 if key in keys else None)
    key = k - MAX_SPAN + offset
    assert find_in(k, d, key) == (keys.index(key) + 1 if key in keys else None)


@given(rows, st.lists(keys, min_size=1, max_size=5))
def test_blocks_are_the_same_however_the_rows_arrive(table: dict[int, int], cuts: list[int]) -> None:
    ordered = sorted(table.items())
    splitter, blocks, start = Splitter(), list[tuple[int, bytes]](), 0
    for stop in [*sorted(cut % (len(ordered) + 1) for cut in cuts), len(ordered)]:
        blocks += splitter.add([k for k, _ in ordered[start:stop]], [v for _, v in ordered[start:stop]])
        start = stop
    blocks += splitter.end()
    assert blocks == list(split_blocks(ordered))


@given(
    st.dictionaries(st.integers(MAX_SPAN, 2 * MAX_SPAN), st.integers(0, (1 << 24) - 1), min_size=1, max_size=60),
    st.dictionaries(st.integers(0, 2 * MAX_SPAN), st.integers(0, (1 << 24) - 1), min_size=1, max_size=60),
)
def test_a_block_with_room_takes_new_rows_in_place(old: dict[int, int], new: dict[int, int]) -> None:
    k = max(old)
    new = {key: value for key, value in new.items() if key <= k} or {k: 3}
    body = checked(k, encode_block(0, sorted(old), [old[key] for key in sorted(old)]))
    fresh = sorted(new)
    grown = with_rows(k, body, fresh, [new[key] for key in fresh], 100)
    if len(old) + len(new) > 100 or fresh[0] < k - MAX_SPAN:
        assert grown is None
    else:
        joined = old | new
        assert grown == checked(k, encode_block(0, sorted(joined), [joined[key] for key in sorted(joined)]))


def test_rows_of_another_range_are_put_into_no_block() -> None:
    body = checked(9, encode_block(5, [7, 9], [1, 2]))
    for key in (4, 10):
        with pytest.raises(CacheCorruptError):
            with_rows(9, body, [key], [1], PER)
    assert with_rows(MAX_KEY, checked(MAX_KEY, encode_block(5, [], [], last=MAX_KEY)), [8], [1], PER) is None


def test_a_block_may_be_taken_over_between_others() -> None:
    old = dict(split_blocks((key, 7) for key in range(1000, 1000 + PER)))
    splitter = Splitter()
    blocks = list(splitter.add([5, 6], [1, 2]))
    blocks += splitter.copy(999 + PER, old[999 + PER])  # answers for all keys from 0: fits behind nothing
    with pytest.raises(CacheCorruptError):
        find(blocks[1:], -1)
    assert [find(blocks, key) for key in (5, 6, 1000)] == [1, 2, 7]


@pytest.mark.parametrize("rows", [[(2, 0), (1, 0)], [(1, 0), (1, 0)], [(1, 1 << 24)], [(1 << 48, 0)]])
def test_rows_that_no_block_can_hold_are_refused(rows: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="order|24 bits|fit"):
        list(split_blocks(rows))


@settings(max_examples=20)
@given(st.dictionaries(st.integers(10**9, 10**9 + 10**6), st.integers(0, (1 << 24) - 1), min_size=1, max_size=12))
def test_a_flipped_bit_is_never_an_answer(table: dict[int, int]) -> None:
    k, d = next(iter(split_blocks(sorted(table.items()))))
    for bit in range(8 * len(d)):
        spoiled = bytearray(d)
        spoiled[bit // 8] ^= 1 << bit % 8
        for key in table:
            with pytest.raises(CacheCorruptError):
                find_in(k, bytes(spoiled), key)
    for bit in range(48):
        # The key by which the block was found may be the wrong part.
        for key in table:
            with pytest.raises(CacheCorruptError):
                find_in(k ^ 1 << bit, d, key)


@given(rows.filter(bool), st.integers(0, 5000))
def test_a_shortened_block_is_refused(table: dict[int, int], cut: int) -> None:
    k, d = next(iter(split_blocks(sorted(table.items()))))
    shorter = d[: cut % len(d)]
    with pytest.raises(CacheCorruptError):
        find_in(k, shorter, k)


def test_a_block_found_for_another_key_is_refused() -> None:
    # A flipped bit in an inner page of the tree leads to a sound block that does not hold the key.
    (k1, d1), (k2, d2), _ = split_blocks([(100, 1), (100 + 2 * MAX_SPAN, 2)])
    with pytest.raises(CacheCorruptError):
        find_in(k2, d2, 100)
    with pytest.raises(CacheCorruptError):
        find_in(k1, d1, 101)


@pytest.mark.parametrize("k", [-1, 1 << 48, 1 << 62])
def test_a_key_outside_48_bits_is_refused(k: int) -> None:
    with pytest.raises(CacheCorruptError):
        find_in(k, encode_block(0, [5], [1]), 5)


@given(rows)
def test_all_rows_of_all_blocks_are_counted(table: dict[int, int]) -> None:
    assert count_rows(split_blocks(sorted(table.items()))) == len(table)


THREE = list(split_blocks((i, i % 7) for i in range(PER + 1)))  # a full block, one row, the end of the key space


@pytest.mark.parametrize(
    "blocks",
    [
        [], THREE[:2], THREE[1:], [THREE[0], THREE[2]], [THREE[1], THREE[0], THREE[2]], [*THREE, THREE[2]],
        [THREE[0], (THREE[1][0] + 1, THREE[1][1]), THREE[2]], [(MAX_KEY, protect(MAX_KEY, bytes(7)))],
        [(MAX_KEY, protect(MAX_KEY, bytes(5)))], [(MAX_KEY, b"")], [(MAX_KEY, None)], [(MAX_KEY, 7)],
        [(MAX_KEY, "x" * 9)], [(None, THREE[2][1])], [("x", THREE[2][1])], [(-1, THREE[2][1])],
        [(1 << 62, THREE[2][1])],
    ],
)  # fmt: skip
def test_blocks_that_are_missing_moved_or_of_another_form_are_told(blocks: list[tuple[int, bytes]]) -> None:
    with pytest.raises(CacheCorruptError):
        count_rows(blocks)


def test_a_flipped_bit_in_any_block_is_told_when_all_are_read() -> None:
    for place, (k, d) in enumerate(THREE):
        for bit in range(0, 8 * len(d), 13):
            spoiled = bytearray(d)
            spoiled[bit // 8] ^= 1 << bit % 8
            with pytest.raises(CacheCorruptError):
                count_rows([*THREE[:place], (k, bytes(spoiled)), *THREE[place + 1 :]])


@pytest.mark.parametrize("length", range(6))
def test_a_body_too_short_for_its_lowest_key_is_damage(length: int) -> None:
    with pytest.raises(CacheCorruptError):
        low_key(bytes(length))
    with pytest.raises(CacheCorruptError):
        with_rows(5, bytes(length), [1], [1], PER)


@pytest.mark.parametrize("keys", [[2, 1], [1, 1]])
def test_rows_out_of_order_are_not_encoded(keys: list[int]) -> None:
    with pytest.raises(ValueError, match="order"):
        encode_block(0, keys, [0] * len(keys))


digests = st.binary(min_size=10, max_size=10).map(lambda rest: b"\0\0\0\0\0\7" + rest)


@given(st.dictionaries(digests, st.integers(0, (1 << 56) - 1), min_size=1, max_size=6), digests)
def test_groups_round_trip(table: dict[bytes, int], other: bytes) -> None:
    d = encode_group(7, table.items())
    for digest in [*table, other]:
        assert find_in_group(7, d, digest) == table.get(digest)


def test_a_flipped_bit_in_a_group_is_never_an_answer() -> None:
    digest = bytes(16)
    d = encode_group(0, [(digest, 99)])
    for bit in range(8 * len(d)):
        spoiled = bytearray(d)
        spoiled[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CacheCorruptError):
            find_in_group(0, bytes(spoiled), digest)
    for length in range(len(d)):
        with pytest.raises(CacheCorruptError):
            find_in_group(0, d[:length], digest)
    with pytest.raises(CacheCorruptError):
        read_group(0, checked(0, protect(0, bytes(19))))
    with pytest.raises(CacheCorruptError):
        find_in_group(1, d, digest)
