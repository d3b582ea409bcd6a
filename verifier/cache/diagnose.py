"""What the databases of the cache say of themselves, for a technician; the officer's path does not load this."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlite_utils import Database

from verifier.cache import schema
from verifier.errors import CacheCorruptError

_OPEN_TO_ALL = ("format", "region", "seq", "base_seq", "n", "keys", "key_epoch")  # of `meta`: nothing about the key


def diagnose(root: Path) -> dict[str, dict[str, Any]]:
    """Each database that is there, by its name: bytes, tables, and whether it is sound. JSON-ready, never raises.

    state.db is checked as a whole and its rows are counted. Of base.db and changes.db only `meta` is read: the blocks
    are hundreds of megabytes, and a sync with a recheck reads those.
    """
    current = root / schema.CURRENT
    looks: dict[Path, Callable[[Path], dict[str, Any]]] = {
        root / schema.STATE: _state,
        current / schema.BASE: _base,
        current / schema.CHANGES: _base,
    }
    return {path.name: _looked(path, look) for path, look in looks.items() if path.is_file()}


def _looked(path: Path, look: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    try:
        return {"bytes": path.stat().st_size, **look(path)}
    except (*schema.DAMAGE, CacheCorruptError, OSError):
        return {"sound": False}


def _state(path: Path) -> dict[str, Any]:
    with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)) as connection:
        db = Database(connection, recursive_triggers=False, execute_plugins=False)
        (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        tables = {name: db.table(name).count for name in db.table_names()}
    return {"version": version, "sound": found == "ok", "tables": tables}


def _base(path: Path) -> dict[str, Any]:
    with closing(schema.open_base(path)) as connection:
        db = Database(connection, recursive_triggers=False, execute_plugins=False)
        meta = {row["key"]: row["value"] for row in db.table("meta").rows}
        tables = sorted(db.table_names())
        schema.read_meta(connection)  # its digest
    return {"sound": True, "tables": tables, "meta": {name: meta[name] for name in _OPEN_TO_ALL if name in meta}}
