"""Tables and `meta` of base.db and changes.db, and the folder of one generation."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from verifier.cache.values import SEE_EXACT, ValueScheme, combo_text, parse_combo
from verifier.errors import CacheCorruptError

FORMAT = 1
SEALED_FORMAT = 2  # the same with every block encrypted
SALT_LENGTH = 32  # bytes
PAGE_SIZE = 4096  # bytes

BASE, STATUS_LIST, INDEX, ENTRIES, POLICY = "base.db", "tsl.bin", "index.cbor", "entries.cbor", "policy.json"
CHANGES = "changes.db"  # in a generation whose index names deltas
ENTRIES_DATE = "entries.date"  # in a generation whose trust list is an older one, kept in place of a refused one
HOT = "hot.cose"  # beside the generations: it lives for hours
CURRENT, GENERATIONS, STAGE, TRUST, STATE, LOCK = "current", "gen", "stage", "trust", "state.db", "lock"

# What reading a damaged base may raise: a flipped bit in a page can also become an error text that is not UTF-8, or
# a length for which there is no memory.
DAMAGE = (sqlite3.Error, UnicodeError, MemoryError)


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseMeta:
    """What base.db or changes.db says of itself.

    `n` counts vehicles (0 in changes.db, which cannot know), `keys` the rows of all blocks (plates and tags).
    """

    region: str
    seq: int
    n: int
    keys: int
    key_epoch: int
    key_check: bytes
    scheme: ValueScheme
    base_seq: int | None = None  # of the base that a changes.db belongs to; None in a base
    salt: bytes | None = None  # of the key that seals the blocks; None when they are not sealed

    def to_rows(self) -> dict[str, str]:
        """The rows of the table `meta`, with a digest over all of them: one wrong bit in day0 shifts every date."""
        rows = {
            "format": str(FORMAT if self.salt is None else SEALED_FORMAT),
            "region": self.region,
            "seq": str(self.seq),
            "n": str(self.n),
            "keys": str(self.keys),
            "key_epoch": str(self.key_epoch),
            "key_check": self.key_check.hex(),
            "day0": str(self.scheme.day0),
            "month0": str(self.scheme.month0),
            "combos": json.dumps([combo_text(c) for c in self.scheme.combos]),
        }
        if self.base_seq is not None:
            rows["base_seq"] = str(self.base_seq)
        if self.salt is not None:
            rows["salt"] = self.salt.hex()
        return rows | {"digest": _digest(rows)}

    @classmethod
    def from_rows(cls, rows: Mapping[str, str]) -> BaseMeta:
        """Read the table; CacheCorruptError when it is damaged or of another format."""
        plain = {key: value for key, value in rows.items() if key != "digest"}
        if rows.get("digest") != _digest(plain):
            raise CacheCorruptError("meta: digest")
        if plain.get("format") != str(SEALED_FORMAT if "salt" in plain else FORMAT):
            raise CacheCorruptError("meta: a format that this program does not know")
        try:
            combos = tuple(parse_combo(text) for text in json.loads(plain["combos"]))
            return cls(
                region=plain["region"],
                seq=int(plain["seq"]),
                n=int(plain["n"]),
                keys=int(plain["keys"]),
                key_epoch=int(plain["key_epoch"]),
                key_check=bytes.fromhex(plain["key_check"]),
                scheme=ValueScheme(int(plain["day0"]), int(plain["month0"]), combos[:SEE_EXACT]),
                base_seq=int(plain["base_seq"]) if "base_seq" in plain else None,
                salt=bytes.fromhex(plain["salt"]) if "salt" in plain else None,
            )
        except (KeyError, ValueError, TypeError) as exc:
            raise CacheCorruptError("meta: not readable") from exc


def check_same_base(changes: BaseMeta, base: BaseMeta) -> None:
    """CacheCorruptError unless these changes were made for this base."""
    ours = replace(base, seq=changes.seq, n=changes.n, keys=changes.keys, base_seq=base.seq, salt=changes.salt)
    if changes != ours or (changes.salt is None) != (base.salt is None):
        raise CacheCorruptError("changes: of another base")


def open_base(path: Path) -> sqlite3.Connection:
    """Open a base for reading, from any thread; sqlite3.Error when that fails.

    `immutable` spares all locking and is true of a base: it is never written after it was built. No mmap: its
    read-ahead costs megabytes a look-up on a cold card.
    """
    uri = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
    return sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None)


def read_meta(connection: sqlite3.Connection) -> BaseMeta:
    """The `meta` of an open base; CacheCorruptError, or one of DAMAGE."""
    rows = connection.execute("SELECT key, value FROM meta").fetchall()
    if not all(isinstance(k, str) and isinstance(v, str) for k, v in rows):
        raise CacheCorruptError("meta: not text")
    return BaseMeta.from_rows(dict(rows))


def content_hash(index: bytes, entries: bytes, policy: bytes) -> str:
    """16 hex digits over the small files: a changed trust list or policy alone makes another generation."""
    whole = hashlib.sha256()
    for part in (index, entries, policy):
        whole.update(hashlib.sha256(part).digest())
    return whole.hexdigest()[:16]


def entries_as_of(folder: Path, issued_at: datetime) -> datetime:
    """The moment that a generation's trust list describes: that of its index, unless an older list was kept.

    A date that cannot be read is the oldest there is: nobody is told that such a list is young.
    """
    try:
        kept = datetime.fromtimestamp(int((folder / ENTRIES_DATE).read_bytes()[:20]), UTC)
    except FileNotFoundError:
        return issued_at
    except (OSError, ValueError, OverflowError):
        return datetime.fromtimestamp(0, UTC)
    return min(kept, issued_at)


def generation_name(region: str, seq: int, content: str, attempt: int = 0) -> str:
    """The folder's name; a later attempt replaces a generation that was found damaged on the card."""
    return f"{region}-{seq}-{content}" + (f".{attempt}" if attempt else "")


def content_of_name(name: str) -> str:
    """The content hash in a generation's name."""
    return name.rpartition("-")[2].partition(".")[0]


def _digest(rows: Mapping[str, str]) -> str:
    text = "\n".join(f"{key}={rows[key]}" for key in sorted(rows))
    return hashlib.sha256(text.encode()).hexdigest()
