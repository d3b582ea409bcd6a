"""Verdicts on old data that wait for the centre, what became of them, and what is to be reported: a queue on disk.

The audit log cannot be read here where it is sealed, so the queue keeps what was seen itself under the epoch
key, which does not lie on the card.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from verifier.check import CheckResult
from verifier.codec.online import OnlineFormatError, Report, decode_report, encode_report
from verifier.evidence import evidence_to_json
from verifier.policy import dump_policy
from verifier.types import Plate
from verifier.verdict import Tone, VerdictCode
from verifier.wording import VERDICTS

MAX_WAITING = 1000  # checks; beyond, the oldest goes
MAX_NEWS = 200  # corrections that nobody has looked at, likewise
MAX_OUTBOX = 1000  # reports that the centre has not acknowledged, likewise
_NONCE = 12  # bytes
_LATEST = (1 << 32) - 1  # POSIX seconds, as the reports carry them
_CODES, _TONES = frozenset(VerdictCode), frozenset(Tone)
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS waiting(id TEXT PRIMARY KEY, at INTEGER NOT NULL, code TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS news(id TEXT PRIMARY KEY, at INTEGER NOT NULL, code TEXT NOT NULL, now TEXT NOT NULL)"
    " WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS about(id TEXT PRIMARY KEY, tone TEXT NOT NULL, box BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS seen(id TEXT PRIMARY KEY, box BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS outbox(id BLOB PRIMARY KEY, at INTEGER NOT NULL, report BLOB NOT NULL) WITHOUT ROWID",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """A check whose verdict would be another one by what the centre has said since, and of which car.

    No plate where it was another shift's check; no tone where an older version kept it.
    """

    check_id: str
    at: datetime
    then: VerdictCode
    now: VerdictCode
    tone: Tone | None = None
    plate: Plate | None = None

    @property
    def tone_now(self) -> Tone:
        """How loud the verdict is now."""
        return self.tone or VERDICTS[self.now].tone


class RecheckQueue:
    """The file `path` (SQLite). What cannot be written is not queued, and never an error to the officer.

    What was seen of the checks that wait, and the plates of news, are readable under that epoch key alone.
    """

    def __init__(self, path: Path, epoch_key: bytes) -> None:
        self._path = path
        self._box = _Box(epoch_key)

    def add(self, result: CheckResult) -> bool:
        """Queue a check; whether it is safely on disk."""
        row = (result.check_id, seconds_of(result.now), result.verdict.code.value)
        with suppress(sqlite3.Error, OSError):
            with self._transaction() as connection:
                connection.execute("INSERT OR REPLACE INTO waiting VALUES (?, ?, ?)", row)
                sealed = (result.check_id, self._box.close(result.check_id, _seen(result)))
                connection.execute("INSERT OR REPLACE INTO seen VALUES (?, ?)", sealed)
                _read_back(connection, row, sealed)
                _keep_newest(connection, "waiting", MAX_WAITING)
                _drop_unwanted(connection)
            return True
        return False

    def drop(self, check_id: str) -> None:
        """Take a check out: it was answered, or cannot be."""
        with suppress(sqlite3.Error, OSError), self._transaction() as connection:
            connection.execute("DELETE FROM waiting WHERE id = ?", (check_id,))
            _drop_unwanted(connection)

    def records(self) -> dict[str, dict[str, Any]] | None:
        """What was seen of the checks that wait, by number, without those under another epoch's key.

        None when the file cannot be read now.
        """
        with suppress(sqlite3.Error, OSError):
            with self._transaction() as connection:
                rows = connection.execute("SELECT id, box FROM seen").fetchall()
            opened = {number: self._box.open(number, box) for number, box in rows}
            return {number: record for number, record in opened.items() if record is not None}
        return None

    def waiting(self) -> list[tuple[str, datetime, VerdictCode]]:
        """Number, time and verdict of each check that waits, oldest first."""
        return [(number, at, code) for number, at, (code, *_) in self._rows("waiting")]

    def waits(self, check_id: str) -> bool:
        """Whether this check still waits: the officer may have been answered meanwhile."""
        with suppress(sqlite3.Error, OSError), self._transaction() as connection:
            return connection.execute("SELECT 1 FROM waiting WHERE id = ?", (check_id,)).fetchone() is not None
        return False

    def settle(self, news: News, report: Report) -> bool:
        """Take a check out, and the report of it in; one whose verdict changed becomes news. Whether it is on disk.

        Nothing happens to a check that does not wait any more.
        """
        with suppress(sqlite3.Error, OSError):
            return self._settle(news, report)
        return False

    def _settle(self, news: News, report: Report) -> bool:
        with self._transaction() as connection:
            if connection.execute("DELETE FROM waiting WHERE id = ?", (news.check_id,)).rowcount == 0:
                return False
            _drop_unwanted(connection)
            _post(connection, report)
            if news.now is not news.then:
                self._tell(connection, news)
        return True

    def tell(self, news: News) -> None:
        """The officer is to be told of this, whoever found it out."""
        with suppress(sqlite3.Error, OSError), self._transaction() as connection:
            self._tell(connection, news)

    def _tell(self, connection: sqlite3.Connection, news: News) -> None:
        row = (news.check_id, seconds_of(news.at), news.then.value, news.now.value)
        connection.execute("INSERT OR REPLACE INTO news VALUES (?, ?, ?, ?)", row)
        _keep_newest(connection, "news", MAX_NEWS)
        sealed = (news.check_id, news.tone_now.value, self._box.close(news.check_id, _named(news.plate)))
        connection.execute("INSERT OR REPLACE INTO about VALUES (?, ?, ?)", sealed)
        _drop_unwanted(connection)

    def news(self) -> list[News]:
        """What the officer has not been told yet, oldest first."""
        with suppress(OSError):
            if not self._path.exists():  # asked every second: nothing is made for that
                return []
        about = self._about()
        return [
            News(check_id=number, at=at, then=codes[0], now=codes[1], **about.get(number, {}))
            for number, at, codes in self._rows("news")
        ]

    def _about(self) -> dict[str, dict[str, Any]]:
        """Tone and plate of each piece of news, as far as they can be read."""
        with suppress(sqlite3.Error, OSError), self._transaction() as connection:
            rows = connection.execute("SELECT id, tone, box FROM about").fetchall()
            return {
                number: {"tone": Tone(tone) if tone in _TONES else None, "plate": _plate(self._box.open(number, box))}
                for number, tone, box in rows
            }
        return {}

    def told(self, check_id: str) -> None:
        """The officer has seen this piece of news."""
        with suppress(sqlite3.Error, OSError), self._transaction() as connection:
            connection.execute("DELETE FROM news WHERE id = ?", (check_id,))
            _drop_unwanted(connection)

    def post(self, report: Report) -> bool:
        """Put a report of the officer's own into the outbox; whether it is safely on disk."""
        with suppress(sqlite3.Error, OSError):
            with self._transaction() as connection:
                _post(connection, report)
            return True
        return False

    def outbox(self) -> list[Report]:
        """What the centre has given no receipt for yet, oldest first."""
        with suppress(sqlite3.Error, OSError), self._transaction() as connection:
            rows = connection.execute("SELECT id, report FROM outbox ORDER BY at, id").fetchall()
            return [report for number, data in rows if (report := _readable(number, data)) is not None]
        return []

    def delivered(self, report: Report) -> None:
        """The centre has given a receipt for it."""
        with suppress(sqlite3.Error, OSError), self._transaction() as connection:
            connection.execute("DELETE FROM outbox WHERE id = ?", (report.report_id,))

    def _rows(self, table: str) -> list[tuple[str, datetime, tuple[VerdictCode, ...]]]:
        with suppress(sqlite3.Error, OSError), self._transaction() as connection:
            asked = f"SELECT * FROM {table} WHERE at BETWEEN 1 AND {_LATEST} ORDER BY at, id"  # noqa: S608 - ours
            rows = connection.execute(asked).fetchall()
            return [
                (number, datetime.fromtimestamp(at, UTC), tuple(VerdictCode(code) for code in codes))
                for number, at, *codes in rows
                if type(number) is str and _CODES.issuperset(codes)  # another version's are not read
            ]
        return []

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._opened() as connection:
                yield connection
        except (sqlite3.DatabaseError, UnicodeDecodeError) as exc:  # the latter of a schema that is no UTF-8
            if _is_damage(exc):
                self._path.replace(self._path.with_suffix(".bad"))  # the next one begins anew
                self._path.with_name(self._path.name + "-journal").unlink(missing_ok=True)
            if isinstance(exc, sqlite3.Error):
                raise
            raise sqlite3.DatabaseError("the schema is no UTF-8") from exc

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=5)) as connection:
            connection.execute("PRAGMA synchronous=FULL")
            with connection:
                for statement in _SCHEMA:
                    connection.execute(statement)
                yield connection


def seconds_of(moment: datetime) -> int:
    """POSIX seconds as the reports can carry them: a device's clock may be wrong."""
    return max(1, min(int(moment.timestamp()), _LATEST))


def _readable(number: object, data: object) -> Report | None:
    """None for another version's and for a damaged one, which must not hold up the others."""
    if type(data) is not bytes:
        return None
    try:
        report = decode_report(data)
    except OnlineFormatError:
        return None
    return report if report.report_id == number else None  # under another number no receipt could take it out


def _is_damage(exc: Exception) -> bool:
    """Whether it is the file that is wrong, and not the disk, or another program that has it locked.

    Our statements are right: where SQLite takes one for an error, it is the schema that is damaged. The module itself
    says of a text that it is no UTF-8, with no code.
    """
    if not isinstance(exc, sqlite3.OperationalError):
        return True
    return getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF == sqlite3.SQLITE_ERROR


def _post(connection: sqlite3.Connection, report: Report) -> None:
    row = (report.report_id, int(report.checked_at.timestamp()), encode_report(report))
    connection.execute("INSERT OR REPLACE INTO outbox VALUES (?, ?, ?)", row)
    _keep_newest(connection, "outbox", MAX_OUTBOX)


def _read_back(connection: sqlite3.Connection, row: tuple[str, int, str], sealed: tuple[str, bytes]) -> None:
    """What a damaged page swallows is not queued: DatabaseError."""
    found = "SELECT * FROM waiting WHERE id = ?", "SELECT * FROM seen WHERE id = ?"
    if [connection.execute(one, row[:1]).fetchone() for one in found] != [row, sealed]:
        raise sqlite3.DatabaseError("what was written is not there")


def _keep_newest(connection: sqlite3.Connection, table: str, limit: int) -> None:
    old = f"SELECT id FROM {table} ORDER BY at DESC, id LIMIT -1 OFFSET {limit}"  # noqa: S608 - ours
    connection.execute(f"DELETE FROM {table} WHERE id IN ({old})")  # noqa: S608 - ours


def _drop_unwanted(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM seen WHERE id NOT IN (SELECT id FROM waiting)")
    connection.execute("DELETE FROM about WHERE id NOT IN (SELECT id FROM news)")


def _seen(result: CheckResult) -> dict[str, Any]:
    """What `recorded` reads, and the number."""
    evidence, policy = evidence_to_json(result.evidence, result.now), json.loads(dump_policy(result.policy))
    return {"id": result.check_id, "evidence": evidence, "policy": policy}


def _named(plate: Plate | None) -> dict[str, Any]:
    return {} if plate is None else {"text": plate.text, "kind": plate.kind}


def _plate(named: dict[str, Any] | None) -> Plate | None:
    return Plate(named["text"], named["kind"]) if named and named.keys() == {"text", "kind"} else None


class _Box:
    """Records under a key of the shift: ChaCha20-Poly1305 with a random nonce, bound to the check's number."""

    def __init__(self, epoch_key: bytes) -> None:
        self._cipher = ChaCha20Poly1305(HKDF(SHA256(), 32, None, b"markcheck rechecks").derive(epoch_key))

    def close(self, check_id: str, record: dict[str, Any]) -> bytes:
        nonce = secrets.token_bytes(_NONCE)
        return nonce + self._cipher.encrypt(nonce, json.dumps(record).encode(), check_id.encode())

    def open(self, check_id: object, box: object) -> dict[str, Any] | None:
        """None for what another shift's key closed, or a damaged one: SQLite keeps the type with each value."""
        if type(check_id) is not str or type(box) is not bytes:
            return None
        with suppress(InvalidTag, ValueError):
            record: dict[str, Any] = json.loads(self._cipher.decrypt(box[:_NONCE], box[_NONCE:], check_id.encode()))
            return record
        return None
