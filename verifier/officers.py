"""Who may use this device: officers with a PIN and a role, and a growing delay after wrong PINs.

A try is counted on the disk before it is made: whoever cuts the power in between gains none. It is counted twice, for
the officer and for the device: an answer and its time are then the same for a number that is here and one that is not,
and who may log in himself has no more tries at another's PIN for that. The hash makes a PIN costly to guess from the
file and no more than that; the file is not to leave the device.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
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
MAX_OFFICERS = 500
LONGEST_NUMBER = 12  # digits
SHORTEST_PIN, LONGEST_PIN = 6, 12  # digits

_N, _R, _P = 1 << 14, 8, 1  # scrypt (RFC 7914): 16 MiB
_SALT = 16  # bytes
_MAX_FILE = 1 << 20  # bytes
_MEMORY = 64 << 20  # bytes
_ID = re.compile(f"[0-9]{{1,{LONGEST_NUMBER}}}")  # what the handheld's keys can type
_PIN = re.compile(f"[0-9]{{{SHORTEST_PIN},{LONGEST_PIN}}}")


class LoginFault(Code):
    """Why somebody is not let in."""

    WRONG = "wrong"  # the officer or the PIN
    WAIT = "wait"  # too many wrong PINs
    NO_OFFICERS = "no officers"  # nobody was entered yet
    FILE = "file"  # the officers' file cannot be used


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
class _Tries:
    """Wrong PINs since the last right one, and when the last of them was given (POSIX seconds)."""

    failed: int = 0
    failed_at: float = 0.0

    def wait(self, now: datetime) -> timedelta:
        """How long no try counts. A clock that was set back waits for one whole delay, and not for ever."""
        if self.failed < FREE_TRIES:
            return timedelta(0)
        doublings = min(self.failed - FREE_TRIES, 20)
        delay = min(FIRST_DELAY * (1 << doublings), LONGEST_DELAY)
        since = timedelta(seconds=now.timestamp() - self.failed_at)
        return min(delay, max(timedelta(0), delay - since))

    def one_more(self, now: datetime) -> _Tries:
        return _Tries(failed=self.failed + 1, failed_at=now.timestamp())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    role: str
    salt: str
    hash: str
    tries: _Tries = _Tries()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Content:
    officers: dict[str, _Entry] = field(default_factory=dict)
    tries: _Tries = _Tries()  # at this device, whatever the number


class OfficerFile:
    """The officers in one file; a command may change it while the program uses it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def officers(self) -> list[Officer]:
        """Everybody, by number; OfficerError."""
        found = sorted(self._load().officers.items())
        return [Officer(officer_id=name, role=Role(entry.role)) for name, entry in found]

    def put(self, officer_id: str, role: Role, pin: str) -> None:
        """Enter somebody, or give a new PIN and role; wrong PINs of before are forgotten. OfficerError."""
        if _ID.fullmatch(officer_id) is None:
            raise OfficerError(f"officer: a number has 1 to {LONGEST_NUMBER} digits")
        if _PIN.fullmatch(pin) is None or len(set(pin)) < 3:
            raise OfficerError(
                f"officer: a PIN has {SHORTEST_PIN} to {LONGEST_PIN} digits, at least three of them different"
            )
        salt = secrets.token_bytes(_SALT)
        entry = _Entry(role=role.value, salt=salt.hex(), hash=_hash(pin, salt).hex())
        with self._locked():
            officers = self._load().officers
            if officer_id not in officers and len(officers) >= MAX_OFFICERS:
                raise OfficerError(f"officer: more than {MAX_OFFICERS}")
            self._save(_Content(officers={**officers, officer_id: entry}))

    def remove(self, officer_id: str) -> bool:
        """Take somebody out; whether there was such a one. OfficerError."""
        with self._locked():
            content = self._load()
            left = {name: entry for name, entry in content.officers.items() if name != officer_id}
            if len(left) < len(content.officers):
                self._save(replace(content, officers=left))
            return len(left) < len(content.officers)

    def login(self, officer_id: str, pin: str, now: datetime) -> Officer:
        """Let somebody in; LoginError, OfficerError. A try that does not count does not lengthen the wait either."""
        with self._locked():
            content = self._load()
            if not content.officers:
                raise LoginError(LoginFault.NO_OFFICERS)
            entry = content.officers.get(officer_id)
            own = _Tries() if entry is None else entry.tries
            wait = max(content.tries.wait(now), own.wait(now))
            if wait > timedelta(0):
                raise LoginError(LoginFault.WAIT, wait)
            tried = replace(content, tries=content.tries.one_more(now))
            self._save(tried if entry is None else _with(tried, officer_id, entry, own.one_more(now)))
            if entry is None:
                _hash(pin, bytes(_SALT))  # takes as long as for somebody who is known
            elif hmac.compare_digest(_hash(pin, bytes.fromhex(entry.salt)), bytes.fromhex(entry.hash)):
                self._save(_with(replace(content, tries=_Tries()), officer_id, entry, _Tries()))
                return Officer(officer_id=officer_id, role=Role(entry.role))
            raise LoginError(LoginFault.WRONG, max(tried.tries.wait(now), own.one_more(now).wait(now)))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Nobody else changes the file meanwhile. Not the file itself is locked: it is replaced."""
        try:
            lock = os.open(
                self._path.with_name(f".{self._path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        except OSError as exc:
            raise OfficerError(f"officers: cannot be locked: {exc.strerror}") from exc
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _load(self) -> _Content:
        try:
            with self._path.open("rb") as file:
                raw = json.loads(file.read(_MAX_FILE))
            officers = {name: _entry(fields) for name, fields in raw["officers"].items()}
            return _Content(officers=officers, tries=_tries(raw["tries"]))
        except FileNotFoundError:
            return _Content()
        except OSError as exc:
            raise OfficerError(f"officers: cannot be read: {exc.strerror}") from exc
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
            raise OfficerError("officers: the file is damaged") from exc

    def _save(self, content: _Content) -> None:
        try:
            write_secret(self._path, json.dumps({"v": 1, **asdict(content)}, indent=1).encode() + b"\n")
        except OSError as exc:
            raise OfficerError(f"officers: cannot be written: {exc.strerror}") from exc


def _with(content: _Content, officer_id: str, entry: _Entry, tries: _Tries) -> _Content:
    return replace(content, officers={**content.officers, officer_id: replace(entry, tries=tries)})


def _entry(fields: Any) -> _Entry:
    entry = _Entry(**{**fields, "tries": _tries(fields["tries"])})
    known = Role(entry.role) and len(bytes.fromhex(entry.salt)) == _SALT and bytes.fromhex(entry.hash)
    if not known:
        raise ValueError("not an officer")
    return entry


def _tries(fields: Any) -> _Tries:
    tries = _Tries(**fields)
    if type(tries.failed) is not int or not (0 <= tries.failed < 1 << 32 and 0.0 <= float(tries.failed_at) < 1e11):
        raise ValueError("not a count of tries")
    return tries


def _hash(pin: str, salt: bytes) -> bytes:
    return hashlib.scrypt(pin.encode(), salt=salt, n=_N, r=_R, p=_P, maxmem=_MEMORY, dklen=32)
