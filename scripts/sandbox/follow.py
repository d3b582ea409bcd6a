"""An authority's folder, followed: what another command records there counts from the next question on."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

from scripts.sandbox.authority import EVENTS, Authority, AuthorityFolder
from scripts.sandbox.keys import SigningKey
from scripts.sandbox.registry import RegistryError
from verifier.clock import Clock

Event = dict[str, Any]


class LiveAuthority:
    """An authority in memory that carries out what is recorded in its folder.

    `lock` is held while an event is carried out, and by whoever reads more than one thing at a time. `vehicle_events`
    and `other_events` count what was carried out.
    """

    def __init__(self, folder: AuthorityFolder, *, clock: Clock, make: Callable[[], Authority] | None = None) -> None:
        """`make` opens or makes the authority the first time; RegistryError when there is none."""
        self.lock = threading.RLock()
        self.vehicle_events = 0
        self.other_events = 0
        self._folder = folder
        self._listeners: list[Callable[[Event], None]] = []
        seen = len(self._events_after(0))
        self.authority = make() if make else folder.open(clock=clock)
        while (now := len(self._events_after(0))) != seen:
            self.authority, seen = folder.open(clock=clock), now
        self._seen = seen

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call this after each event, under the lock."""
        self._listeners.append(listener)

    def status_key(self) -> SigningKey:
        """The key of the status server; made, and recorded in the folder, where there is none. RegistryError."""
        with self.lock:
            self.catch_up()
            if self.authority.status_key is None:
                self._folder.record_status_key(self.authority.clock)
                self.catch_up()
            if self.authority.status_key is None:
                raise RegistryError("events: the status key that was recorded is not there")
            return self.authority.status_key

    def catch_up(self) -> None:
        """Carry out what was recorded since; RegistryError for what cannot be read or carried out."""
        with self.lock:
            for line in self._events_after(self._seen).splitlines(keepends=True):
                try:
                    event = json.loads(line)
                except ValueError as exc:
                    raise RegistryError("events: a line that is not a whole event") from exc
                self._folder.repeat(self.authority, event)
                self._seen += len(line)
                if event["event"] in EVENTS:
                    self.vehicle_events += 1
                else:
                    self.other_events += 1
                for listener in self._listeners:
                    listener(event)

    def _events_after(self, seen: int) -> bytes:
        """The whole lines that were recorded behind the first `seen` bytes; RegistryError."""
        path = self._folder.events_file
        try:
            if not path.exists() or path.stat().st_size <= seen:
                return b""
            with path.open("rb") as file:
                file.seek(seen)
                new = file.read()
        except OSError as exc:
            raise RegistryError("events: cannot be read") from exc
        return new[: new.rfind(b"\n") + 1]
