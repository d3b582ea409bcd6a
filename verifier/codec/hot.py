"""The hot list: what changed in the register since the last night, signed by itself every few minutes.

COSE_Sign1 in the strict profile, typ 65004; kid may be left out, because the index names the one key that counts.
Payload: a CBOR map with text keys "v" (1), "region", "nightly_seq", "hot_seq", "iat" and "next" (seconds), "rows"
(6-byte key, u64 little-endian)* and "exact" (16-byte hash, u64)*, both strictly ascending. A value is a wide one
(`verifier.cache.values`) or 2^64 - 1: no longer in the register. A sealed list is "v" 2 and has in place of "rows" and
"exact" their number, "n", and "box": a CBOR map of the two, encrypted under the epoch key (`verifier.cache.sealing`).

A list holds all changes since the night it names, so the newest is enough. An identity may stand in either list; one
whose 48-bit key another identity has too, now or in the night's set, must stand in `exact`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from verifier.cache.sealing import HOT_BOX, close_box, open_box
from verifier.codec import cbor
from verifier.codec.cose import TYP_HOT, parse_sign1
from verifier.codec.index import MAX_NUMBER, HotEntry, is_region
from verifier.errors import CodeError, EpochKeyError, SyncError
from verifier.signature import PublicKey, load_public_key, verify_with
from verifier.types import Algorithm

MAX_HOT = 4 << 20  # bytes
MAX_ROWS = 200_000  # of both lists together

_GONE = (1 << 64) - 1
_MAX_WIDE = (1 << 56) - 1
_MAX_TIME = (1 << 32) - 1
_PLAIN, _SEALED = 1, 2  # versions
_HEAD = {"v": int, "region": str, "nightly_seq": int, "hot_seq": int, "iat": int, "next": int}
_ROWS = {"rows": bytes, "exact": bytes}
_FIELDS = {_PLAIN: _HEAD | _ROWS, _SEALED: _HEAD | {"n": int, "box": bytes}}
_ROW, _EXACT = struct.Struct("<6sQ"), struct.Struct("<16sQ")


class HotListError(SyncError):
    """A hot list that breaks a bound or whose signature does not fit."""


@dataclass(frozen=True, slots=True)
class SealedRows:
    """All rows of a list, which only the epoch key opens, and their number."""

    count: int
    box: bytes


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
    sealed: SealedRows | None = None  # in place of both, until they are opened

    @property
    def count(self) -> int:
        """The number of rows."""
        return len(self.rows) + len(self.exact) if self.sealed is None else self.sealed.count


def seal_rows(hot: HotList, epoch_key: bytes) -> HotList:
    """The list with its rows sealed; ValueError when they break a rule of the format."""
    rows = _packed(hot)
    try:
        _unpacked(rows)
    except HotListError as exc:
        raise ValueError(str(exc)) from exc
    box = close_box(epoch_key, HOT_BOX, cbor.encode(rows))
    return replace(hot, rows={}, exact={}, sealed=SealedRows(hot.count, box))


def open_rows(hot: HotList, epoch_key: bytes) -> HotList:
    """The list with its rows, sealed before or not. HotListError when they are not what the format says, and for
    another key than they were sealed under.
    """
    if hot.sealed is None:
        return hot
    try:
        raw: Any = cbor.decode(open_box(epoch_key, HOT_BOX, hot.sealed.box))
    except EpochKeyError as exc:
        raise HotListError(f"hot list: {exc}") from exc
    except CodeError as exc:
        raise HotListError(f"hot list: {exc.detail}") from exc
    if type(raw) is not dict or {name: type(value) for name, value in raw.items()} != _ROWS:
        raise HotListError("hot list: other fields under its seal")
    opened = replace(hot, sealed=None, **_unpacked(raw))
    if opened.count != hot.count:
        raise HotListError("hot list: another number of rows than it says")
    return opened


def hot_payload(hot: HotList) -> bytes:
    """The payload to be signed; ValueError when it breaks a rule of the format."""
    head = {
        "v": _PLAIN if hot.sealed is None else _SEALED, "region": hot.region, "nightly_seq": hot.nightly_seq,
        "hot_seq": hot.hot_seq, "iat": int(hot.issued_at.timestamp()), "next": int(hot.next_update.timestamp()),
    }  # fmt: skip
    rows = _packed(hot) if hot.sealed is None else {"n": hot.sealed.count, "box": hot.sealed.box}
    data = cbor.encode({**head, **rows})
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
    version = raw.get("v") if type(raw) is dict else None
    fields = _FIELDS.get(version) if type(version) is int else None
    if fields is None or {name: type(value) for name, value in raw.items()} != fields:
        raise HotListError("hot list: not the fields of a version that this program knows")
    if not is_region(raw["region"]) or not all(1 <= raw[name] <= MAX_NUMBER for name in ("nightly_seq", "hot_seq")):
        raise HotListError("hot list: region or sequence number out of bounds")
    if not 1 <= raw["iat"] < raw["next"] <= _MAX_TIME:
        raise HotListError("hot list: times out of bounds")
    if version == _PLAIN:
        rows = _unpacked(raw)
    else:
        rows = {"sealed": SealedRows(raw["n"], raw["box"])}
        if not 0 <= raw["n"] <= MAX_ROWS:
            raise HotListError(f"hot list: more than {MAX_ROWS} rows")
    return HotList(
        region=raw["region"], nightly_seq=raw["nightly_seq"], hot_seq=raw["hot_seq"],
        issued_at=datetime.fromtimestamp(raw["iat"], UTC), next_update=datetime.fromtimestamp(raw["next"], UTC), **rows,
    )  # fmt: skip


def _packed(hot: HotList) -> dict[str, bytes]:
    return {
        "rows": b"".join(_ROW.pack(key.to_bytes(6), _wire(hot.rows[key])) for key in sorted(hot.rows)),
        "exact": b"".join(_EXACT.pack(digest, _wire(hot.exact[digest])) for digest in sorted(hot.exact)),
    }


def _unpacked(raw: Mapping[str, bytes]) -> dict[str, Any]:
    """`rows` and `exact` of a list."""
    if len(raw["rows"]) // _ROW.size + len(raw["exact"]) // _EXACT.size > MAX_ROWS:
        raise HotListError(f"hot list: more than {MAX_ROWS} rows")
    rows = _rows(_ROW, raw["rows"])
    return {
        "rows": {int.from_bytes(key, "big"): value for key, value in rows.items()},
        "exact": _rows(_EXACT, raw["exact"]),
    }


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
