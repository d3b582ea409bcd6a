"""state.db: what this device has accepted, and how the last syncs went.

The high-water marks are the only protection against an old publication when the metadata folder of the signed
distribution is lost; they are raised before the data they stand for come into use.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from verifier.cache.schema import DAMAGE

_SCHEMA = "CREATE TABLE IF NOT EXISTS marks (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID"
MAX_FAILURE = 300  # characters
UNREADABLE = "the state file cannot be read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The newest numbers that were verified for a region, and the newest signed time of all."""

    seq: int = 0
    index_sha256: bytes | None = None
    key_epoch: int = 0
    trust_version: int = 0
    policy_version: int = 0
    clock_floor: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncHistory:
    """How the last syncs went; `last_failure` is None when the last one ended well."""

    last_good: datetime | None
    last_failure: str | None
    last_failure_at: datetime | None


class Marks:
    """The file state.db. `lost` says that it was absent or unreadable and was begun anew. sqlite3.Error, OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.lost = not path.exists() or path.stat().st_size == 0  # to SQLite, nothing at all is a sound file
        try:
            with self._transaction() as connection:
                connection.execute("SELECT count(*) FROM marks").fetchone()
        except sqlite3.DatabaseError as exc:
            if isinstance(exc, sqlite3.OperationalError):
                raise  # locked or no room: the file itself is sound
            self.lost = True
            path.replace(path.with_suffix(".bad"))
            with suppress(FileNotFoundError):
                path.with_name(path.name + "-journal").unlink()
            with self._transaction():
                pass

    def accepted(self, region: str) -> Accepted:
        """The marks of one region."""
        with self._transaction() as connection:
            get = dict(connection.execute("SELECT name, value FROM marks").fetchall()).get
        return Accepted(
            seq=get(f"seq:{region}", 0),
            index_sha256=get(f"index_sha256:{region}"),
            key_epoch=get(f"key_epoch:{region}", 0),
            trust_version=get("trust_version", 0),
            policy_version=get("policy_version", 0),
            clock_floor=_moment(get("clock_floor")),
        )

    def accept(self, region: str, marks: Accepted) -> None:
        """Raise the marks, durably. No number ever goes down."""
        floor = int(marks.clock_floor.timestamp()) if marks.clock_floor else 0
        with self._transaction() as connection:
            for name, value in (
                (f"seq:{region}", marks.seq),
                (f"key_epoch:{region}", marks.key_epoch),
                ("trust_version", marks.trust_version),
                ("policy_version", marks.policy_version),
                ("clock_floor", floor),
            ):
                connection.execute(
                    "INSERT INTO marks VALUES (?, ?)"
                    " ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
                    (name, value),
                )
            self._set(connection, f"index_sha256:{region}", marks.index_sha256)

    def succeeded(self, at: datetime) -> None:
        """Note a sync that ended well."""
        with self._transaction() as connection:
            self._set(connection, "last_good", int(at.timestamp()))
            connection.execute("DELETE FROM marks WHERE name IN ('last_failure', 'last_failure_at')")

    def failed(self, text: str, at: datetime) -> None:
        """Note a sync that did not."""
        with self._transaction() as connection:
            self._set(connection, "last_failure", text[:MAX_FAILURE])
            self._set(connection, "last_failure_at", int(at.timestamp()))

    def _set(self, connection: sqlite3.Connection, name: str, value: int | str | bytes | None) -> None:
        if value is None:
            connection.execute("DELETE FROM marks WHERE name = ?", (name,))
        else:
            connection.execute("INSERT OR REPLACE INTO marks VALUES (?, ?)", (name, value))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        # Opened for each use: there are a handful in a night, and no handle outlives an error.
        with closing(sqlite3.connect(self._path, timeout=5)) as connection:
            connection.execute("PRAGMA synchronous=FULL")
            with connection:
                connection.execute(_SCHEMA)
                yield connection


def read_history(path: Path) -> SyncHistory:
    """How the last syncs went, by the file state.db; all None when there is none. Never raises.

    Leaves the file as it is, whatever its state: making and repairing it is for the sync, which then says so.
    """
    never = SyncHistory(last_good=None, last_failure=None, last_failure_at=None)
    unreadable = replace(never, last_failure=UNREADABLE)
    try:
        path.lstat()
        with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)) as connection:
            get = dict(connection.execute("SELECT name, value FROM marks").fetchall()).get
        return SyncHistory(
            last_good=_moment(get("last_good")),
            last_failure=get("last_failure"),
            last_failure_at=_moment(get("last_failure_at")),
        )
    except (FileNotFoundError, NotADirectoryError):
        return never
    except (*DAMAGE, OSError, TypeError, ValueError, OverflowError):
        return unreadable


def _moment(seconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
