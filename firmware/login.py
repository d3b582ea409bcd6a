"""Logs officers in, beside the program: a hash that costs what a PIN is worth must not hold up panel and keys."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from contextlib import suppress

from firmware.build import software_version
from firmware.machine.events import Event, LoggedIn, NotLetIn
from verifier.audit import RecordLog
from verifier.clock import Clock
from verifier.errors import AuditError, VerifierError
from verifier.officers import LoginError, LoginFault, Officer, OfficerFile


class LoginDesk:
    """Tries one PIN after the other; each ends in a `LoggedIn` or a `NotLetIn` under its number."""

    def __init__(
        self, officers: OfficerFile, post: Callable[[Event], None], clock: Clock, audit: RecordLog
    ) -> None:  # fmt: skip
        """`clock` is the wall clock of the waits, which outlive a restart; `audit` keeps who was let in."""
        self._officers, self._post, self._clock, self._audit = officers, post, clock, audit
        self._free = threading.Semaphore()

    def log_in(self, attempt: int, number: str, pin: str) -> None:
        """Try it; refused at once while the one before hangs on the disk. Never waits."""
        if not self._free.acquire(blocking=False):
            self._post(NotLetIn(attempt=attempt, why=LoginFault.FILE))
            return
        threading.Thread(target=self._work, args=(attempt, number, pin), name="login", daemon=True).start()

    def _work(self, attempt: int, number: str, pin: str) -> None:
        try:
            event = self._answer(attempt, number, pin)
        finally:
            self._free.release()
        self._post(event)

    def _answer(self, attempt: int, number: str, pin: str) -> Event:
        try:
            officer = self._officers.login(number, pin, self._clock())
        except LoginError as exc:
            wait_ms = round(exc.wait.total_seconds() * 1000)
            return NotLetIn(attempt=attempt, why=exc.fault, wait_ms=wait_ms)
        except VerifierError:  # the file cannot be used, or the try not be counted
            return NotLetIn(attempt=attempt, why=LoginFault.FILE)
        with suppress(AuditError):  # a log that fails is told of by its own banner, and stops nobody
            self._audit.append(self._event(officer))
        return LoggedIn(attempt=attempt, officer=officer)

    def _event(self, officer: Officer) -> dict[str, str | int]:
        return {
            "v": 1, "kind": "event", "id": secrets.token_hex(8), "software": software_version(), "event": "login",
            "officer": officer.officer_id, "role": officer.role.value,
            "at": self._clock().isoformat(timespec="seconds"),
        }  # fmt: skip
