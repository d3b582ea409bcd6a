"""state.db as the sync keeps it: its tables and their versions, and what this device has accepted.

The high-water marks are the only protection against an old publication when the metadata folder of the signed
distribution is lost; they are raised before the data they stand for come into use.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path

from sqlite_utils import Database

from verifier.cache.marks import VERSION, Accepted, NewerStateError, check_types, check_version, moment_of

MAX_FAILURE = 300  # characters


def _first_version(db: Database) -> None:
    """Files from before there were versions have this table already, made without rowids: it serves as it is."""
    db.table("marks").create({"name": str, "value": bytes}, pk="name", not_null={"value"}, if_not_exists=True)


MIGRATIONS: tuple[Callable[[Database], None], ...] = (_first_version,)
"""Step n leads from version n to n + 1; a step that was released is never changed."""


def migrate(connection: sqlite3.Connection) -> None:
    """Bring state.db to the tables of this program, whole or not at all; NewerStateError, sqlite3.Error."""
    version = check_version(connection)
    if version == VERSION:
        return
    db = Database(connection, execute_plugins=False)
    with db.atomic():
        for step in MIGRATIONS[version:]:
            step(db)
        connection.execute(f"PRAGMA user_version={VERSION}")


class Marks:
    """The file state.db. `lost` says that it was absent or unreadable and was begun anew.

    NewerStateError (the file stays as it is), sqlite3.Error, OSError.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.lost = not path.exists() or path.stat().st_size == 0  # to SQLite, nothing at all is a sound file
        try:
            self._migrate()
            with self._transaction() as connection:
                check_types(dict(connection.execute("SELECT name, value FROM marks").fetchall()))
        except sqlite3.DatabaseError as exc:
            if isinstance(exc, (sqlite3.OperationalError, NewerStateError)):
                raise  # locked, no room, or newer: the file itself is sound
            self.lost = True
            path.replace(path.with_suffix(".bad"))
            with suppress(FileNotFoundError):
                path.with_name(path.name + "-journal").unlink()
            self._migrate()

    def _migrate(self) -> None:
        with closing(self._open()) as connection:
            migrate(connection)

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
            clock_floor=moment_of(get("clock_floor")),
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

    def hot(self, region: str) -> tuple[int, bytes | None]:
        """Number and digest of the newest hot list that was verified for a region; 0 and None without one."""
        with self._transaction() as connection:
            get = dict(connection.execute("SELECT name, value FROM marks").fetchall()).get
        return get(f"hot_seq:{region}", 0), get(f"hot_sha256:{region}")

    def accept_hot(self, region: str, seq: int, sha256: bytes) -> None:
        """Raise the marks of the hot list, durably. The caller has seen that the number does not go down."""
        with self._transaction() as connection:
            self._set(connection, f"hot_seq:{region}", seq)
            self._set(connection, f"hot_sha256:{region}", sha256)

    def succeeded(self, at: datetime) -> None:
        """Note a sync that ended well."""
        with self._transaction() as connection:
            self._set(connection, "last_good", int(at.timestamp()))
            connection.execute("DELETE FROM marks WHERE name IN ('last_failure', 'last_failure_at', 'failures')")

    def failed(self, text: str, at: datetime) -> None:
        """Note a sync that did not."""
        with self._transaction() as connection:
            self._set(connection, "last_failure", text[:MAX_FAILURE])
            self._set(connection, "last_failure_at", int(at.timestamp()))
            connection.execute(
                "INSERT INTO marks VALUES ('failures', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1"
            )

    def _set(self, connection: sqlite3.Connection, name: str, value: int | str | bytes | None) -> None:
        if value is None:
            connection.execute("DELETE FROM marks WHERE name = ?", (name,))
        else:
            connection.execute("INSERT OR REPLACE INTO marks VALUES (?, ?)", (name, value))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        # Opened for each use: there are a handful in a night, and no handle outlives an error.
        with closing(self._open()) as connection, connection:
            yield connection

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=5)
        try:
            connection.execute("PRAGMA synchronous=FULL")
        except sqlite3.Error:
            connection.close()
            raise
        return connection
