"""The hot list: what changed in the register since the last night, signed by itself every few minutes.

COSE_Sign1 in the strict profile, typ 65004; kid may be left out, because the index names the one key that counts.
Payload: a CBOR map with text keys "v" (1), "region", "nightly_seq", "hot_seq", "iat" and "next" (seconds), "rows"
(6-byte key, u64 little-endian)* and "exact" (16-byte hash, u64)*, both strictly ascending. A value is a wide one
(`verifier.cache.values`) or 2^64 - 1: no longer in the register.

A list holds all changes since the night it names, so the newest is enough. An identity may stand in either list; one
whose 48-bit key another identity has too, now or in the night's set, must stand in `exact`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from verifier.codec import cbor
from verifier.codec.cose import TYP_HOT, parse_sign1
from verifier.codec.index import MAX_NUMBER, HotEntry, is_region
from verifier.errors import CodeError, SyncError
from verifier.signature import PublicKey, load_public_key, verify_with
from verifier.types import Algorithm

VERSION = 1
MAX_HOT = 4 << 20  # bytes
MAX_ROWS = 200_000  # of both lists together

_GONE = (1 << 64) - 1
_MAX_WIDE = (1 << 56) - 1
_MAX_TIME = (1 << 32) - 1
_FIELDS = {"v": int, "region": str, "nightly_seq": int, "hot_seq": int, "iat": int, "next": int, "rows": bytes,
           "exact": bytes}  # fmt: skip
_ROW, _EXACT = struct.Struct("<6sQ"), struct.Struct("<16sQ")


class HotListError(SyncError):
    """A hot list that breaks a bound or whose signature does not fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HotList:
    """One hot list; a value of None means that the vehicle is no longer in the register."""

    region: str
    nightly_seq: int  # of the publication that the rows come on top of
    hot_seq: int  # grows with every list, also across nights
    issued_at: datetime  # the moment that the rows describe
    next_update: datetime  # when the next list is due
    rows: Mapping[int, int | None] = field(default_factory=dict)  # 48-bit key to wide value
    exact: Mapping[bytes, int | None] = field(default_factory=dict)  # 16-byte hash to wide value


def hot_payload(hot: HotList) -> bytes:
    """The payload to be signed; ValueError when it breaks a rule of the format."""
    data = cbor.encode(
        {
            "v": VERSION, "region": hot.region, "nightly_seq": hot.nightly_seq, "hot_seq": hot.hot_seq,
            "iat": int(hot.issued_at.timestamp()), "next": int(hot.next_update.timestamp()),
            "rows": b"".join(_ROW.pack(key.to_bytes(6), _wire(hot.rows[key])) for key in sorted(hot.rows)),
            "exact": b"".join(_EXACT.pack(digest, _wire(hot.exact[digest])) for digest in sorted(hot.exact)),
        }
    )  # fmt: skip
    try:
        _payload(data)
    except HotListError as exc:
        raise ValueError(str(exc)) from exc
    return data


def hot_key(entry: HotEntry) -> PublicKey:
    """The key that the index names; HotListError for one that this program cannot use."""
    if entry.key_alg != Algorithm.EDDSA:
        raise HotListError("hot list: signed with an algorithm that this program does not know")
    try:
        key = load_public_key(Algorithm.EDDSA, entry.key)
    except ValueError as exc:
        raise HotListError("hot list: the index names no Ed25519 key") from exc
    if key is None:
        raise HotListError("hot list: the index names no Ed25519 key")
    return key


def decode_hot(data: bytes, public_key: PublicKey) -> HotList:
    """Verify and read a hot list; HotListError. Whether it is newer than the last one is for the caller to say."""
    if len(data) > MAX_HOT:
        raise HotListError(f"hot list: more than {MAX_HOT} bytes")
    try:
        signed = parse_sign1(data, (TYP_HOT,))
        sound = signed.alg == Algorithm.EDDSA and verify_with(public_key, signed.to_be_signed, signed.signature)
    except CodeError as exc:
        raise HotListError(f"hot list: {exc.fault.value}") from exc
    if not sound:
        raise HotListError("hot list: the signature does not fit")
    return _payload(signed.payload)


def _payload(data: bytes) -> HotList:
    try:
        raw: Any = cbor.decode(data)
    except CodeError as exc:
        raise HotListError(f"hot list: {exc.detail}") from exc
    if type(raw) is not dict or {name: type(value) for name, value in raw.items()} != _FIELDS or raw["v"] != VERSION:
        raise HotListError("hot list: not the fields of a version that this program knows")
    if not is_region(raw["region"]) or not all(1 <= raw[name] <= MAX_NUMBER for name in ("nightly_seq", "hot_seq")):
        raise HotListError("hot list: region or sequence number out of bounds")
    if not 1 <= raw["iat"] < raw["next"] <= _MAX_TIME:
        raise HotListError("hot list: times out of bounds")
    if len(raw["rows"]) // _ROW.size + len(raw["exact"]) // _EXACT.size > MAX_ROWS:
        raise HotListError(f"hot list: more than {MAX_ROWS} rows")
    rows = _rows(_ROW, raw["rows"])
    return HotList(
        region=raw["region"], nightly_seq=raw["nightly_seq"], hot_seq=raw["hot_seq"],
        issued_at=datetime.fromtimestamp(raw["iat"], UTC), next_update=datetime.fromtimestamp(raw["next"], UTC),
        rows={int.from_bytes(key, "big"): value for key, value in rows.items()}, exact=_rows(_EXACT, raw["exact"]),
    )  # fmt: skip


def _rows(row: struct.Struct, data: bytes) -> dict[bytes, int | None]:
    if len(data) % row.size:
        raise HotListError("hot list: a cut row")
    rows = list(row.iter_unpack(data))
    if any(a[0] >= b[0] for a, b in pairwise(rows)):
        raise HotListError("hot list: rows out of order")
    if any(value > _MAX_WIDE and value != _GONE for _, value in rows):
        raise HotListError("hot list: a value out of bounds")
    return {key: None if value == _GONE else value for key, value in rows}


def _wire(value: int | None) -> int:
    return _GONE if value is None else value
