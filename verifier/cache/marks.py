"""What state.db holds, and its part that a check may touch: how the last syncs went, and what is known of the time.

`verifier/cache/state.py` makes the file and keeps the rest of it; no library but sqlite3 is loaded here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from verifier.cache.schema import DAMAGE
from verifier.codec.index import MAX_NUMBER

VERSION = 1  # of the tables in state.db, kept as its user_version; 0 are the files from before there were versions
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


class NewerStateError(sqlite3.NotSupportedError):
    """state.db was written by a newer program, whose marks this one cannot keep."""

    def __init__(self) -> None:
        super().__init__("state.db: made by a newer program than this one")


def check_version(connection: sqlite3.Connection) -> int:
    """The version of its tables, 0 to VERSION; NewerStateError above that."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise NewerStateError
    return version


def read_history(path: Path) -> SyncHistory:
    """How the last syncs went, by the file state.db; all None when there is none. Never raises.

    Leaves the file as it is, whatever its state: making and repairing it is for the sync, which then says so.
    """
    never = SyncHistory(last_good=None, last_failure=None, last_failure_at=None)
    unreadable = replace(never, last_failure=UNREADABLE)
    try:
        path.lstat()
        with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)) as connection:
            check_version(connection)
            get = dict(connection.execute("SELECT name, value FROM marks").fetchall()).get
        return SyncHistory(
            last_good=moment_of(get("last_good")),
            last_failure=get("last_failure"),
            last_failure_at=moment_of(get("last_failure_at")),
            failures=int(get("failures", 0)),
        )
    except (FileNotFoundError, NotADirectoryError):
        return never
    except NewerStateError as exc:
        return replace(never, last_failure=str(exc))
    except (*DAMAGE, OSError, TypeError, ValueError, OverflowError):
        return unreadable


def read_clock(path: Path) -> ClockMarks | None:
    """What state.db knows of the time; nothing at all when there is no such file, None when it cannot be read.

    May finish a transaction that a power cut left half done, as SQLite does on opening; makes no file.
    """
    try:
        path.lstat()
        with closing(_existing(path)) as connection:
            check_version(connection)
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
            check_version(connection)
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
    check_types(rows)

    get = rows.get
    wall, elapsed, good = moment_of(get("clock_good")), get("clock_good_elapsed"), None
    if wall is not None and elapsed is not None:
        good = GoodTime(wall=wall, boot=get("clock_good_boot", ""), elapsed=elapsed, rtc=get("clock_good_rtc"))
    return ClockMarks(
        floor=moment_of(get("clock_floor")),
        signed=moment_of(get("clock_signed")),
        seen=moment_of(get("clock_seen")),
        good=good,
        moved=bool(get("clock_moved")),
        ahead=bool(get("clock_ahead")),
        server_offset=get("clock_server_offset"),
        server_at=moment_of(get("clock_server_at")),
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


def check_types(rows: Mapping[str, object]) -> None:
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


def moment_of(seconds: int | None) -> datetime | None:
    """POSIX seconds as they are kept; 0 stands for nothing."""
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
