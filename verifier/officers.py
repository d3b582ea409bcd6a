"""Who may use this device: officers with a PIN and a role, and a growing delay after wrong PINs.

A try is counted on the disk before it is made: whoever cuts the power in between gains none. The hash makes a PIN
costly to guess from the file and no more than that; the file is not to leave the device.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from verifier.errors import VerifierError
from verifier.secret_files import write_secret
from verifier.types import Code
from verifier.verdict import Role

FREE_TRIES = 5
FIRST_DELAY = timedelta(seconds=30)  # after the fifth wrong PIN; doubles with each further one
LONGEST_DELAY = timedelta(hours=24)
IDLE_LOCK = timedelta(minutes=5)  # after which the device asks for the PIN again
ROLES = (Role.OFFICER, Role.TECHNICIAN, Role.AUDITOR)
MAX_OFFICERS = 500

_N, _R, _P = 1 << 14, 8, 1  # scrypt (RFC 7914): 16 MiB
_SALT = 16  # bytes
_MAX_FILE = 1 << 20  # bytes
_MEMORY = 64 << 20  # bytes
_ID = re.compile(r"[0-9A-Za-z-]{1,20}")
_PIN = re.compile(r"[0-9]{6,12}")


class LoginFault(Code):
    """Why somebody is not let in."""

    WRONG = "wrong"  # the officer or the PIN
    WAIT = "wait"  # too many wrong PINs
    NO_OFFICERS = "no officers"  # nobody was entered yet


class LoginError(VerifierError):
    """Not let in; `wait` says for how long no try counts."""

    def __init__(self, fault: LoginFault, wait: timedelta = timedelta(0)) -> None:
        super().__init__(f"login: {fault.value}")
        self.fault, self.wait = fault, wait


class OfficerError(VerifierError):
    """A change of the officers' file that cannot be, or a file that cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Officer:
    """Somebody who was let in."""

    officer_id: str
    role: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    role: str
    salt: str
    hash: str
    failed: int = 0
    failed_at: float = 0.0  # POSIX seconds


class OfficerFile:
    """The officers in one file; used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def officers(self) -> list[Officer]:
        """Everybody, by number; OfficerError."""
        return [Officer(officer_id=name, role=Role(entry.role)) for name, entry in sorted(self._load().items())]

    def put(self, officer_id: str, role: Role, pin: str) -> None:
        """Enter somebody, or give a new PIN and role; OfficerError."""
        if _ID.fullmatch(officer_id) is None:
            raise OfficerError("officer: letters, digits and hyphens, at most 20")
        if role not in ROLES:
            raise OfficerError(f"officer: none of the roles {', '.join(ROLES)}")
        if _PIN.fullmatch(pin) is None or len(set(pin)) < 3:
            raise OfficerError("officer: a PIN has 6 to 12 digits, at least three of them different")
        entries = self._load()
        if officer_id not in entries and len(entries) >= MAX_OFFICERS:
            raise OfficerError(f"officer: more than {MAX_OFFICERS}")
        salt = secrets.token_bytes(_SALT)
        entries[officer_id] = _Entry(role=role.value, salt=salt.hex(), hash=_hash(pin, salt).hex())
        self._save(entries)

    def remove(self, officer_id: str) -> None:
        """Take somebody out; nothing happens without. OfficerError."""
        entries = self._load()
        if entries.pop(officer_id, None) is not None:
            self._save(entries)

    def login(self, officer_id: str, pin: str, now: datetime) -> Officer:
        """Let somebody in; LoginError, OfficerError. A try that does not count does not lengthen the wait either."""
        entries = self._load()
        if not entries:
            raise LoginError(LoginFault.NO_OFFICERS)
        entry = entries.get(officer_id)
        if entry is None:
            _hash(pin, bytes(_SALT))  # takes as long as for somebody who is known
            raise LoginError(LoginFault.WRONG)
        wait = _wait(entry, now)
        if wait > timedelta(0):
            raise LoginError(LoginFault.WAIT, wait)
        tried = replace(entry, failed=entry.failed + 1, failed_at=now.timestamp())
        self._save({**entries, officer_id: tried})
        if not hmac.compare_digest(_hash(pin, bytes.fromhex(entry.salt)), bytes.fromhex(entry.hash)):
            raise LoginError(LoginFault.WRONG, _wait(tried, now))
        self._save({**entries, officer_id: replace(entry, failed=0, failed_at=0.0)})
        return Officer(officer_id=officer_id, role=Role(entry.role))

    def _load(self) -> dict[str, _Entry]:
        try:
            with self._path.open("rb") as file:
                raw = json.loads(file.read(_MAX_FILE))
            return {name: _entry(fields) for name, fields in raw["officers"].items()}
        except FileNotFoundError:
            return {}
        except OSError as exc:
            raise OfficerError(f"officers: cannot be read: {exc.strerror}") from exc
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            raise OfficerError("officers: the file is damaged") from exc

    def _save(self, entries: dict[str, _Entry]) -> None:
        data = {"v": 1, "officers": {name: asdict(entry) for name, entry in entries.items()}}
        try:
            write_secret(self._path, json.dumps(data, indent=1).encode() + b"\n")
        except OSError as exc:
            raise OfficerError(f"officers: cannot be written: {exc.strerror}") from exc


def _entry(fields: Any) -> _Entry:
    entry = _Entry(**fields)
    known = Role(entry.role) in ROLES and len(bytes.fromhex(entry.salt)) == _SALT and bytes.fromhex(entry.hash)
    if not known or type(entry.failed) is not int or entry.failed < 0 or type(entry.failed_at) is not float:
        raise ValueError("not an officer")
    return entry


def _wait(entry: _Entry, now: datetime) -> timedelta:
    """How long no try counts. A clock that was set back waits for one whole delay, and not for ever."""
    if entry.failed < FREE_TRIES:
        return timedelta(0)
    doublings = min(entry.failed - FREE_TRIES, 20)
    delay = min(FIRST_DELAY * (1 << doublings), LONGEST_DELAY)
    since = timedelta(seconds=now.timestamp() - entry.failed_at)
    return min(delay, max(timedelta(0), delay - since))


def _hash(pin: str, salt: bytes) -> bytes:
    return hashlib.scrypt(pin.encode(), salt=salt, n=_N, r=_R, p=_P, maxmem=_MEMORY, dklen=32)
