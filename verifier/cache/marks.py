"""state.db: what this device has accepted, how the last syncs went, and what it knows of the time.

The high-water marks are the only protection against an old publication when the metadata folder of the signed
distribution is lost; they are raised before the data they stand for come into use.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from verifier.cache.schema import DAMAGE
from verifier.codec.index import MAX_NUMBER

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
    """How the last syncs went; `last_failure` is None when the last one ended well, `failures` counts since then."""

    last_good: datetime | None
    last_failure: str | None
    last_failure_at: datetime | None
    failures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class GoodTime:
    """A moment at which a new signed time agreed with the clock: the clock, and the counters beside it."""

    wall: datetime
    boot: str
    elapsed: int  # seconds
    rtc: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockMarks:
    """What this device knows of the time.

    `floor` is the newest signed time of all, `signed` the newest one that was compared with the clock, `seen` the
    latest time that a clock in good standing has shown. `moved` and `ahead` say why the clock is under suspicion
    until a signed time clears it. `server_offset` is by how many seconds a server's unsigned date was later than the
    clock, at `server_at`.
    """

    floor: datetime | None = None
    signed: datetime | None = None
    seen: datetime | None = None
    good: GoodTime | None = None
    moved: bool = False
    ahead: bool = False
    server_offset: int | None = None
    server_at: datetime | None = None


class Marks:
    """The file state.db. `lost` says that it was absent or unreadable and was begun anew. sqlite3.Error, OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.lost = not path.exists() or path.stat().st_size == 0  # to SQLite, nothing at all is a sound file
        try:
            with self._transaction() as connection:
                _check_types(dict(connection.execute("SELECT name, value FROM marks").fetchall()))
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
            failures=int(get("failures", 0)),
        )
    except (FileNotFoundError, NotADirectoryError):
        return never
    except (*DAMAGE, OSError, TypeError, ValueError, OverflowError):
        return unreadable


def read_clock(path: Path) -> ClockMarks | None:
    """What state.db knows of the time; nothing at all when there is no such file, None when it cannot be read.

    May finish a transaction that a power cut left half done, as SQLite does on opening; makes no file.
    """
    try:
        path.lstat()
        with closing(_existing(path)) as connection:
            return _clock_of(connection)
    except (FileNotFoundError, NotADirectoryError):
        return ClockMarks()
    except (*DAMAGE, OSError, TypeError, ValueError, OverflowError):
        return None


def update_clock(path: Path, change: Callable[[ClockMarks], ClockMarks]) -> ClockMarks:
    """Change what is known of the time, durably and in one step; returns it. The floor never goes down.

    sqlite3.Error, also where there is no such file: a state.db that was lost is for the sync to notice and to say.
    """
    with closing(_existing(path)) as connection:
        connection.execute("PRAGMA synchronous=FULL")
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            old = _clock_of(connection)
            new = change(old)
            if old.floor is not None and (new.floor is None or new.floor < old.floor):
                new = replace(new, floor=old.floor)
            connection.execute(f"DELETE FROM marks WHERE {_OF_CLOCK}")  # noqa: S608 - a constant
            connection.executemany("INSERT INTO marks VALUES (?, ?)", _clock_rows(new).items())
    return new


_OF_CLOCK = "name GLOB 'clock_*'"
_CLOCK_WAIT = 1.0  # seconds; a check may have to wait while a sync commits, and never longer than this


def _existing(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=rw", uri=True, timeout=_CLOCK_WAIT)


def _clock_of(connection: sqlite3.Connection) -> ClockMarks:
    rows: dict[str, Any] = dict(
        connection.execute(f"SELECT name, value FROM marks WHERE {_OF_CLOCK}").fetchall()  # noqa: S608 - a constant
    )
    _check_types(rows)

    get = rows.get
    wall, elapsed, good = _moment(get("clock_good")), get("clock_good_elapsed"), None
    if wall is not None and elapsed is not None:
        good = GoodTime(wall=wall, boot=get("clock_good_boot", ""), elapsed=elapsed, rtc=get("clock_good_rtc"))
    return ClockMarks(
        floor=_moment(get("clock_floor")),
        signed=_moment(get("clock_signed")),
        seen=_moment(get("clock_seen")),
        good=good,
        moved=bool(get("clock_moved")),
        ahead=bool(get("clock_ahead")),
        server_offset=get("clock_server_offset"),
        server_at=_moment(get("clock_server_at")),
    )


def _clock_rows(marks: ClockMarks) -> dict[str, int | str]:
    good = marks.good
    rows = {
        "clock_floor": _seconds(marks.floor),
        "clock_signed": _seconds(marks.signed),
        "clock_seen": _seconds(marks.seen),
        "clock_good": _seconds(good.wall) if good else None,
        "clock_good_boot": good.boot if good else None,
        "clock_good_elapsed": good.elapsed if good else None,
        "clock_good_rtc": good.rtc if good else None,
        "clock_moved": int(marks.moved),
        "clock_ahead": int(marks.ahead),
        "clock_server_offset": marks.server_offset,
        "clock_server_at": _seconds(marks.server_at),
    }
    return {name: value for name, value in rows.items() if value is not None}


_TEXTS = ("last_failure", "clock_good_boot")
_TIMES = ("clock_", "last_")
LARGEST_TIME = 1 << 35  # seconds, either way: the years 881 to 3058


def _check_types(rows: Mapping[str, object]) -> None:
    """sqlite3.DatabaseError for a value that was never written so: a flipped bit can make a number a text."""
    for name, value in rows.items():
        if name in _TEXTS:
            sound = isinstance(value, str)
        elif name.startswith(("index_sha256:", "hot_sha256:")):
            sound = isinstance(value, bytes)
        else:
            sound = type(value) is int and abs(value) <= (LARGEST_TIME if name.startswith(_TIMES) else MAX_NUMBER)
        if not sound:
            raise sqlite3.DatabaseError("marks: a value of another form")


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())


def _moment(seconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
