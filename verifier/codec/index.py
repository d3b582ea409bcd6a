"""The nightly index: one signed file of a few kB that names everything big by length and SHA-256.

CBOR map with text keys. Keys that this version does not know are ignored, so that later versions can add some;
what changes the meaning of the known ones raises `v`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from verifier.codec import cbor
from verifier.errors import CodeError, SyncError

VERSION = 1
CLIENT_VERSION = 3  # what `min_client` is compared with
DELTA_CLIENT = 2  # a first client reads the base alone and would take it for as new as the index
SEALED_CLIENT = 3  # a second one opens neither sealed deltas nor sealed hot lists
MAX_INDEX = 1 << 20  # bytes; 42 million vehicles need 10 kB, 450 million 100 kB
MAX_BASE = 8 << 30  # bytes
MAX_LIST = 256 << 20  # bytes of an inflated status list: 10^9 credentials
MAX_DELTAS = 90
MAX_DELTA = 64 << 20  # bytes
MAX_DELTA_ROWS = 8_000_000  # what changes more is published as another base
MAX_NUMBER = (1 << 53) - 1
MAX_HOT_KEY = 256  # bytes
MAX_HOT_AGE = 7 * 86400  # seconds
DIGEST = 32  # bytes
EVERYWHERE = "*"

_REGION = re.compile(r"[a-z0-9][a-z0-9_]{0,31}")


class IndexFormatError(SyncError):
    """An index that breaks a bound; the text names the field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseEntry:
    """The base: number of vehicles, length in bytes, digest, and the digests of its chunks."""

    seq: int
    n: int
    length: int
    sha256: bytes
    chunk: int  # bytes; the last chunk may be shorter
    hashes: tuple[bytes, ...]

    def chunk_length(self, number: int) -> int:
        """Bytes of one chunk."""
        return min(self.chunk, self.length - number * self.chunk)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaEntry:
    """A delta between two sequence numbers: length and digest of its bytes, number of its rows."""

    seq_from: int
    seq_to: int
    length: int
    sha256: bytes
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusListEntry:
    """The status list: its number, length and digest as it travels (zlib), bits per status, inflated length."""

    number: int
    length: int
    sha256: bytes
    bits: int
    raw_length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HotEntry:
    """Whose hot list counts on top of this publication, and how old it may be before it counts as out of date."""

    key_alg: int  # COSE; -8 is Ed25519. A number that this program does not know costs the hot list, not the night.
    key: bytes
    max_age_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """One night's publication for one region; `issued_at` is the moment at which the register was read.

    `deltas` lead without a gap from the base's sequence number to the index's own; none when they are the same.
    """

    region: str
    seq: int
    issued_at: datetime
    scope: str
    covers: tuple[str, ...]  # plate prefixes, or ("*",)
    key_epoch: int
    base: BaseEntry
    tsl: StatusListEntry
    deltas: tuple[DeltaEntry, ...] = ()
    min_client: int = 1  # at least DELTA_CLIENT where there are deltas
    hot: HotEntry | None = None


def encode_index(index: Index) -> bytes:
    """The index as its signed bytes."""
    base, tsl, hot = index.base, index.tsl, index.hot
    optional = {} if hot is None else {"hot": {"alg": hot.key_alg, "key": hot.key, "max_age": hot.max_age_s}}
    return cbor.encode(
        optional
        | {
            "v": VERSION,
            "region": index.region,
            "seq": index.seq,
            "issued_at": int(index.issued_at.timestamp()),
            "scope": index.scope,
            "covers": list(index.covers),
            "key_epoch": index.key_epoch,
            "base": {
                "seq": base.seq, "n": base.n, "len": base.length, "sha256": base.sha256, "chunk": base.chunk,
                "hashes": b"".join(base.hashes),
            },
            "deltas": [
                {"from": d.seq_from, "to": d.seq_to, "len": d.length, "sha256": d.sha256, "rows": d.rows}
                for d in index.deltas
            ],
            "tsl": {
                "list": tsl.number, "len": tsl.length, "sha256": tsl.sha256, "bits": tsl.bits,
                "raw_len": tsl.raw_length,
            },
            "min_client": index.min_client,
        }
    )  # fmt: skip


def decode_index(data: bytes) -> Index:
    """Bytes to Index; IndexFormatError names the field that is missing or out of bounds."""
    if len(data) > MAX_INDEX:
        raise IndexFormatError(f"index: more than {MAX_INDEX} bytes")
    try:
        raw = cbor.decode(data)
    except CodeError as exc:
        raise IndexFormatError(f"index: {exc.detail}") from exc
    top = _Fields(raw, "index")
    if top.integer("v", 1, MAX_NUMBER) != VERSION:
        raise IndexFormatError("index.v: a version that this program does not know")
    region = top.text("region", 32)
    if not is_region(region):
        raise IndexFormatError("index.region: not a short lower-case name")
    index = Index(
        region=region,
        seq=top.integer("seq", 1, MAX_NUMBER),
        issued_at=datetime.fromtimestamp(top.integer("issued_at", 1, (1 << 32) - 1), UTC),
        scope=top.text("scope", 40),
        covers=_covers(top.get("covers", list)),
        key_epoch=top.integer("key_epoch", 0, MAX_NUMBER),
        base=_base(_Fields(top.get("base", dict), "index.base")),
        tsl=_status_list(_Fields(top.get("tsl", dict), "index.tsl")),
        deltas=tuple(_deltas(top.get("deltas", list))),
        min_client=top.integer("min_client", 1, MAX_NUMBER),
        hot=_hot(raw.get("hot")),
    )
    _check_chain(index)
    return index


def is_region(text: str) -> bool:
    """Whether this may name a region: it becomes part of paths and of role names."""
    return _REGION.fullmatch(text) is not None


class _Fields:
    """A map whose fields are taken out with their bounds."""

    def __init__(self, raw: Any, path: str) -> None:
        if type(raw) is not dict:
            raise IndexFormatError(f"{path}: not a map")
        self._raw: dict[Any, Any] = raw
        self._path = path

    def get(self, name: str, kind: type, test: Callable[[Any], bool] = lambda _: True) -> Any:
        value = self._raw.get(name)
        if type(value) is not kind or not test(value):
            raise IndexFormatError(f"{self._path}.{name}: missing, of another type or out of bounds")
        return value

    def integer(self, name: str, low: int, high: int) -> int:
        return int(self.get(name, int, lambda v: low <= v <= high))

    def text(self, name: str, max_length: int) -> str:
        return str(self.get(name, str, lambda v: 1 <= len(v) <= max_length and v.isprintable()))

    def digest(self, name: str) -> bytes:
        return bytes(self.get(name, bytes, lambda v: len(v) == DIGEST))


def _base(fields: _Fields) -> BaseEntry:
    length, chunk = fields.integer("len", 1, MAX_BASE), fields.integer("chunk", 1 << 10, 1 << 24)
    count = -(-length // chunk)
    joined = fields.get("hashes", bytes, lambda v: len(v) == count * DIGEST)
    return BaseEntry(
        seq=fields.integer("seq", 1, MAX_NUMBER),
        n=fields.integer("n", 0, MAX_NUMBER),
        length=length,
        sha256=fields.digest("sha256"),
        chunk=chunk,
        hashes=tuple(joined[i : i + DIGEST] for i in range(0, len(joined), DIGEST)),
    )


def _status_list(fields: _Fields) -> StatusListEntry:
    return StatusListEntry(
        number=fields.integer("list", 0, MAX_NUMBER),
        length=fields.integer("len", 1, MAX_LIST),
        sha256=fields.digest("sha256"),
        bits=int(fields.get("bits", int, lambda v: v in (1, 2, 4, 8))),
        raw_length=fields.integer("raw_len", 0, MAX_LIST),
    )


def _deltas(raw: list[Any]) -> list[DeltaEntry]:
    if len(raw) > MAX_DELTAS:
        raise IndexFormatError(f"index.deltas: more than {MAX_DELTAS}")
    out = []
    for number, item in enumerate(raw):
        fields = _Fields(item, f"index.deltas[{number}]")
        start = fields.integer("from", 1, MAX_NUMBER)
        out.append(
            DeltaEntry(
                seq_from=start,
                seq_to=fields.integer("to", start + 1, MAX_NUMBER),
                length=fields.integer("len", 1, MAX_DELTA),
                sha256=fields.digest("sha256"),
                rows=fields.integer("rows", 0, MAX_DELTA_ROWS),
            )
        )
    return out


def _check_chain(index: Index) -> None:
    """What is signed must be whole: a base with half of its changes would be shown as new as the index."""
    if index.base.seq > index.seq:
        raise IndexFormatError("index.base.seq: later than the index itself")
    starts = [index.base.seq, *(delta.seq_to for delta in index.deltas)]
    if [*(delta.seq_from for delta in index.deltas), index.seq] != starts:
        raise IndexFormatError("index.deltas: do not lead from the base to the index")
    if index.deltas and index.min_client < DELTA_CLIENT:
        raise IndexFormatError(f"index.min_client: deltas need {DELTA_CLIENT}")


def _hot(raw: Any) -> HotEntry | None:
    if raw is None:
        return None
    fields = _Fields(raw, "index.hot")
    return HotEntry(
        key_alg=fields.integer("alg", -MAX_NUMBER, MAX_NUMBER),
        key=bytes(fields.get("key", bytes, lambda v: 1 <= len(v) <= MAX_HOT_KEY)),
        max_age_s=fields.integer("max_age", 1, MAX_HOT_AGE),
    )


def _covers(raw: list[Any]) -> tuple[str, ...]:
    if not 1 <= len(raw) <= 64 or not all(type(p) is str and 1 <= len(p) <= 4 for p in raw):
        raise IndexFormatError("index.covers: not 1 to 64 plate prefixes")
    return tuple(raw)
