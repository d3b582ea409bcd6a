"""A file in the format of base.db, opened for reading: every row that it gives has passed its check."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from verifier.cache import schema
from verifier.cache.blocks import checked, count_rows, find_in_block, protect, read_group
from verifier.cache.sealing import Seal, open_seal
from verifier.errors import CacheCorruptError

GroupTable = Literal["exact", "replated"]
AnyTable = Literal["seg", "exact", "replated"]
_BLOCK = "SELECT k, d FROM seg WHERE k >= ? ORDER BY k LIMIT 1"
_GROUP = {
    "exact": "SELECT k, d FROM exact WHERE k = ?",
    "replated": "SELECT k, d FROM replated WHERE k = ?",
}
_ALL = {
    "seg": "SELECT k, d FROM seg ORDER BY k",
    "exact": "SELECT k, d FROM exact ORDER BY k",
    "replated": "SELECT k, d FROM replated ORDER BY k",
}


class Table:
    """base.db or changes.db. CacheCorruptError when it cannot be read, FileNotFoundError when it is not there.

    Blocks of a sealed file need the epoch key: EpochKeyError without it.
    """

    def __init__(self, path: Path, epoch_key: bytes | None = None) -> None:
        self._name = path.name
        self._connection, self.meta = _open(path)
        self._execute = self._connection.cursor().execute  # a cursor for each look-up is a tenth of its time
        self._plain = self.meta.salt is None
        self._epoch_key = epoch_key
        self._seal: Seal | None = None

    def close(self) -> None:
        """Harmless twice."""
        self._connection.close()

    def find(self, key: int) -> int | None:
        """The 24-bit value of a key, None when it is not listed."""
        try:
            row = self._execute(_BLOCK, (key,)).fetchone()
        except schema.DAMAGE as exc:
            raise CacheCorruptError(f"{self._name}: not readable") from exc
        if row is None or type(row[1]) is not bytes:  # the last block ends at the highest key there can be
            raise CacheCorruptError(f"{self._name}: a block is missing")
        k, d = row
        return find_in_block(k, checked(k, d) if self._plain else self.body("seg", k, d), key)

    def exact(self, key: int) -> dict[bytes, int]:
        """Wide values by full hash of all identities that have this key, which the block marks with SEE_EXACT."""
        group = self.group("exact", key)
        if not group:
            raise CacheCorruptError(f"{self._name}: an exact row is missing")
        return group

    def group(self, name: GroupTable, key: int) -> dict[bytes, int]:
        """The rows of `exact` or `replated` under a key, by full hash."""
        row = self._row(_GROUP[name], key)
        return {} if row is None else read_group(key, self.body(name, *row))

    def rows(self, name: AnyTable) -> Iterator[tuple[int, bytes]]:
        """All rows of a table in order, as (k, body)."""
        return ((k, self.body(name, k, d)) for k, d in self.stored(name))

    def stored(self, name: AnyTable) -> Iterator[tuple[int, bytes]]:
        """All rows of a table in order, as they are stored and not checked yet."""
        try:
            for k, d in self._connection.execute(_ALL[name]):
                if type(k) is not int or type(d) is not bytes:
                    raise CacheCorruptError(f"{self._name}: a row of another type")
                yield k, d
        except schema.DAMAGE as exc:
            raise CacheCorruptError(f"{self._name}: not readable") from exc

    def count_rows(self) -> int:
        """Read and prove all blocks as `blocks.count_rows` does; EpochKeyError where they are sealed and it is not
        the key.
        """
        try:
            if self._plain:
                return count_rows(self._connection.execute(_ALL["seg"]))
        except schema.DAMAGE as exc:
            raise CacheCorruptError(f"{self._name}: not readable") from exc
        return count_rows((k, protect(k, body)) for k, body in self.rows("seg"))

    def body(self, name: AnyTable, k: int, d: bytes) -> bytes:
        """What d protects."""
        if self._plain:
            return checked(k, d)
        if self._seal is None:
            self._seal = open_seal(self.meta, self._epoch_key)
        return self._seal.open(name, k, d)

    def _row(self, statement: str, key: int) -> tuple[int, bytes] | None:
        try:
            row: tuple[int, bytes] | None = self._execute(statement, (key,)).fetchone()
        except schema.DAMAGE as exc:
            raise CacheCorruptError(f"{self._name}: not readable") from exc
        if row is not None and type(row[1]) is not bytes:
            raise CacheCorruptError(f"{self._name}: a row of another type")
        return row


def open_table(path: Path, epoch_key: bytes | None = None) -> Table:
    """A Table for a sync, to which an absent file is one more kind of damage: CacheCorruptError."""
    try:
        return Table(path, epoch_key)
    except FileNotFoundError as exc:
        raise CacheCorruptError(f"{path.name}: the file is missing") from exc


def _open(path: Path) -> tuple[sqlite3.Connection, schema.BaseMeta]:
    connection = None
    try:
        connection = schema.open_base(path)
        return connection, schema.read_meta(connection)
    except (*schema.DAMAGE, CacheCorruptError) as exc:
        if connection is not None:
            connection.close()
        if not os.path.lexists(path):  # swept away meanwhile: worth a second look
            raise FileNotFoundError(path.name) from exc
        raise CacheCorruptError(f"{path.name}: cannot be opened") from exc
