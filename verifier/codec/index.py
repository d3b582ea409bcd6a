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
CLIENT_VERSION = 1  # what `min_client` is compared with
MAX_INDEX = 1 << 20  # bytes; 42 million vehicles need 10 kB, 450 million 100 kB
MAX_BASE = 8 << 30  # bytes
MAX_LIST = 256 << 20  # bytes of an inflated status list: 10^9 credentials
MAX_DELTAS = 400
MAX_NUMBER = (1 << 53) - 1
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
    """A delta between two sequence numbers; this version of the client does not fetch any."""

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
class Index:
    """One night's publication for one region; `issued_at` is the moment at which the register was read."""

    region: str
    seq: int
    issued_at: datetime
    scope: str
    covers: tuple[str, ...]  # plate prefixes, or ("*",)
    key_epoch: int
    base: BaseEntry
    tsl: StatusListEntry
    deltas: tuple[DeltaEntry, ...] = ()
    min_client: int = 1


def encode_index(index: Index) -> bytes:
    """The index as its signed bytes."""
    base, tsl = index.base, index.tsl
    return cbor.encode(
        {
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
    )
    if index.base.seq > index.seq:
        raise IndexFormatError("index.base.seq: later than the index itself")
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
                length=fields.integer("len", 1, MAX_BASE),
                sha256=fields.digest("sha256"),
                rows=fields.integer("rows", 0, MAX_NUMBER),
            )
        )
    return out


def _covers(raw: list[Any]) -> tuple[str, ...]:
    if not 1 <= len(raw) <= 64 or not all(type(p) is str and 1 <= len(p) <= 4 for p in raw):
        raise IndexFormatError("index.covers: not 1 to 64 plate prefixes")
    return tuple(raw)
