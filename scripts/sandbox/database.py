"""Short transactions on SQLite or PostgreSQL, with the same SQL: `?` for values, no type that one of them lacks.

SQLite is in the standard library; PostgreSQL needs psycopg 3, which is loaded when its URL is given.
"""

from __future__ import annotations

import queue
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

CONNECTIONS = 4  # at once; a transaction takes less than a millisecond on either
WAIT_S = 5.0  # for a connection, and for another's transaction

Value = str | int | bytes | None
Run = Callable[..., list[tuple[Any, ...]]]
"""Carries out one statement with its values; the rows that it gives."""


class DatabaseError(Exception):
    """The database does not answer, or not in time; the text names neither its address nor a value."""


class Connection(Protocol):
    """What both drivers have."""

    def execute(self, sql: str, values: tuple[Value, ...] = ...) -> Any:
        """Carry out a statement; a cursor."""

    def close(self) -> None:
        """Close it."""


@dataclass(frozen=True, slots=True)
class _Driver:
    """How one kind of database is spoken to."""

    connect: Callable[[], Connection]
    error: type[Exception]  # root of all that the driver raises
    begin_read: str
    begin_write: str
    mark: str  # of a value


class Database:
    """A few connections, handed out one transaction at a time; several threads may ask at once."""

    def __init__(self, driver: _Driver, connections: int = CONNECTIONS) -> None:
        self._driver = driver
        self._free: queue.LifoQueue[Connection | None] = queue.LifoQueue()
        for _ in range(connections):
            self._free.put(None)  # made when it is needed

    @contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[Run]:
        """All statements inside are carried out together, or none of them. DatabaseError.

        One that only reads waits for no other.
        """
        connection = self._take()
        try:
            connection = connection or self._driver.connect()
            connection.execute(self._driver.begin_write if write else self._driver.begin_read)
            yield self._run(connection)
            connection.execute("COMMIT")
        except self._driver.error as exc:
            self._drop(connection)
            connection = None
            raise DatabaseError(f"the database does not do this: {type(exc).__name__}") from exc
        except BaseException:
            connection = self._rolled_back(connection)
            raise
        finally:
            self._free.put(connection)

    def close(self) -> None:
        """Close the connections; those that are in use are closed by who uses them."""
        with suppress(queue.Empty):
            while True:
                self._drop(self._free.get_nowait())

    def _take(self) -> Connection | None:
        try:
            return self._free.get(timeout=WAIT_S)
        except queue.Empty as exc:
            raise DatabaseError("the database is busy") from exc

    def _run(self, connection: Connection) -> Run:
        def run(sql: str, *values: Value) -> list[tuple[Any, ...]]:
            cursor = connection.execute(sql.replace("?", self._driver.mark), values)
            return cursor.fetchall() if cursor.description else []

        return run

    def _rolled_back(self, connection: Connection | None) -> Connection | None:
        """The connection, ready for the next transaction; None where it is not."""
        try:
            if connection is not None:
                connection.execute("ROLLBACK")
        except self._driver.error:
            self._drop(connection)
            return None
        return connection

    def _drop(self, connection: Connection | None) -> None:
        if connection is not None:
            with suppress(self._driver.error):
                connection.close()


def open_database(url: str) -> Database:
    """`sqlite:///PATH` (four slashes for an absolute path) or `postgresql://USER@HOST/NAME`. DatabaseError."""
    kind, _, rest = url.partition("://")
    if kind == "sqlite" and rest.startswith("/") and len(rest) > 1:
        return sqlite_database(Path(rest[1:]))
    if kind == "postgresql":
        return Database(_postgresql(url))
    raise DatabaseError("a database is sqlite:///PATH or postgresql://USER@HOST/NAME")


def sqlite_database(path: Path) -> Database:
    """The SQLite file at this path, made when it is not there."""

    def connect() -> Connection:
        with suppress(OSError):  # what is wrong with the path, SQLite says
            path.touch(mode=0o600)  # it will hold personal data
        # One thread at a time has it: the pool sees to that.
        connection = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # a receipt frees the device from keeping what it sent
        return connection

    # Immediate: a transaction that began by reading could not be continued by writing when another one wrote.
    return Database(_Driver(connect, sqlite3.Error, "BEGIN", "BEGIN IMMEDIATE", "?"))


def _postgresql(url: str) -> _Driver:
    try:
        psycopg = import_module("psycopg")
    except ImportError as exc:
        raise DatabaseError("PostgreSQL needs psycopg 3, which is not installed") from exc

    def connect() -> Connection:
        made: Connection = psycopg.connect(url, autocommit=True, connect_timeout=int(WAIT_S))
        made.execute(f"SET statement_timeout = {int(WAIT_S * 1000)}")
        return made

    return _Driver(connect, psycopg.Error, "BEGIN READ ONLY", "BEGIN", "%s")
