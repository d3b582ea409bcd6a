"""The nightly index: round trip, bounds, and what later versions may add."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.codec import cbor
from verifier.codec.index import (
    DELTA_CLIENT,
    MAX_DELTA,
    MAX_DELTA_ROWS,
    MAX_INDEX,
    BaseEntry,
    DeltaEntry,
    HotEntry,
    Index,
    IndexFormatError,
    StatusListEntry,
    decode_index,
    encode_index,
)

INDEX = Index(
    region="national",
    seq=412,
    issued_at=datetime(2027, 3, 1, 2, 0, tzinfo=UTC),
    scope="national",
    covers=("*",),
    key_epoch=3,
    base=BaseEntry(
        seq=400, n=1000, length=2_500_000, sha256=bytes(32), chunk=1 << 20,
        hashes=(b"a" * 32, b"b" * 32, b"c" * 32),
    ),
    tsl=StatusListEntry(number=1, length=900, sha256=bytes(32), bits=2, raw_length=10_000),
    deltas=(
        DeltaEntry(seq_from=400, seq_to=401, length=77, sha256=bytes(32), rows=9),
        DeltaEntry(seq_from=401, seq_to=412, length=78, sha256=b"d" * 32, rows=0),
    ),
    min_client=DELTA_CLIENT,
    hot=HotEntry(key_alg=-8, key=b"k" * 32, max_age_s=3600),
)  # fmt: skip


def changed(path: str, value: Any) -> bytes:
    """The encoded index with one field set, or taken out when the value is None."""
    raw = cbor.decode(encode_index(INDEX))
    *parents, last = path.split(".")
    place = raw
    for name in parents:
        place = place[int(name) if name.isdigit() else name]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return cbor.encode(raw)


def test_round_trip() -> None:
    assert decode_index(encode_index(INDEX)) == INDEX
    plain = replace(INDEX, base=replace(INDEX.base, seq=412), deltas=(), min_client=1, hot=None)
    assert decode_index(encode_index(plain)) == plain


@pytest.mark.parametrize(
    "chain",
    [
        [], [(400, 411)], [(400, 413)], [(401, 412)], [(399, 400), (400, 412)], [(400, 405), (406, 412)],
        [(400, 405), (404, 412)], [(400, 412), (400, 412)], [(405, 412), (400, 405)],
    ],
)  # fmt: skip
def test_deltas_that_do_not_lead_from_the_base_to_the_index_are_refused(chain: list[tuple[int, int]]) -> None:
    # Else a base would be shown as new as the index, without what changed since.
    entry = INDEX.deltas[0]
    deltas = tuple(replace(entry, seq_from=start, seq_to=end) for start, end in chain)
    with pytest.raises(IndexFormatError, match=r"index\.deltas"):
        decode_index(encode_index(replace(INDEX, deltas=deltas)))


def test_a_program_that_reads_no_deltas_is_kept_from_an_index_with_some() -> None:
    with pytest.raises(IndexFormatError, match="min_client"):
        decode_index(encode_index(replace(INDEX, min_client=DELTA_CLIENT - 1)))


def test_a_hot_key_of_another_kind_costs_only_the_hot_list() -> None:
    hot = HotEntry(key_alg=-48, key=bytes(65), max_age_s=60)
    assert decode_index(encode_index(replace(INDEX, hot=hot))).hot == hot


@given(st.integers(1, 8 << 30), st.integers(1 << 10, 1 << 24))
def test_chunk_lengths_add_up(length: int, chunk: int) -> None:
    count = -(-length // chunk)
    if count > 2000:
        return
    base = replace(INDEX.base, length=length, chunk=chunk, hashes=(bytes(32),) * count)
    decoded = decode_index(encode_index(replace(INDEX, base=base))).base
    assert sum(decoded.chunk_length(i) for i in range(len(decoded.hashes))) == length


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("v", 2), ("v", None), ("v", True),
        ("region", "Nord"), ("region", "a/b"), ("region", "a-b"), ("region", ""), ("region", None),
        ("seq", 0), ("seq", -1), ("seq", 1 << 60), ("seq", "1"),
        ("issued_at", 0), ("issued_at", 1 << 40),
        ("scope", ""), ("scope", "x" * 41), ("scope", "a\nb"),
        ("covers", []), ("covers", ["京"] * 65), ("covers", [1]), ("covers", "*"), ("covers", ["abcde"]),
        ("key_epoch", -1),
        ("base", {}), ("base", []), ("base.len", 0), ("base.len", 9 << 30), ("base.chunk", 0),
        ("base.chunk", 1 << 30), ("base.hashes", b"x" * 95), ("base.hashes", b"x" * 64), ("base.sha256", b"x"),
        ("base.seq", 413), ("base.n", -1),
        ("tsl.bits", 3), ("tsl.raw_len", 1 << 40), ("tsl.len", 0), ("tsl.sha256", None), ("tsl.list", -1),
        ("deltas", {}), ("deltas.0.to", 400), ("deltas.0.len", 0), ("deltas.0.sha256", b""),
        ("deltas.0.len", MAX_DELTA + 1), ("deltas.0.rows", MAX_DELTA_ROWS + 1), ("deltas.0.rows", -1),
        ("hot", []), ("hot", 1), ("hot.alg", None), ("hot.alg", True), ("hot.key", b""), ("hot.key", bytes(257)),
        ("hot.key", "k"), ("hot.max_age", 0), ("hot.max_age", 1 << 40),
        ("min_client", 0), ("min_client", None),
    ],
)  # fmt: skip
def test_out_of_bounds_is_refused_by_name(path: str, value: Any) -> None:
    with pytest.raises(IndexFormatError) as caught:
        decode_index(changed(path, value))
    assert path.rsplit(".", maxsplit=1)[-1] in str(caught.value)


def test_too_many_deltas() -> None:
    with pytest.raises(IndexFormatError, match="deltas"):
        decode_index(encode_index(replace(INDEX, deltas=INDEX.deltas * 46)))


@pytest.mark.parametrize("path", ["mirrors", "base.extra", "hot.extra", "deltas.0.extra"])
def test_later_versions_may_add_fields(path: str) -> None:
    assert decode_index(changed(path, {"url": "hot/national/head.cose"})) == INDEX


@pytest.mark.parametrize(
    "spoil",
    [lambda d: d + b"\0", lambda d: d[:-1], lambda _: b"", lambda _: b"\x01", lambda _: bytes(MAX_INDEX + 1)],
)
def test_other_bytes_are_refused(spoil: Callable[[bytes], bytes]) -> None:
    with pytest.raises(IndexFormatError):
        decode_index(spoil(encode_index(INDEX)))


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_cleanly(data: bytes) -> None:
    with pytest.raises(IndexFormatError):
        decode_index(data)
