"""Tells the service manager that the program lives, as long as each of its parts has given a sign lately.

A watchdog that is fed by a timer of its own only proves that the timer runs.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

_DISK_EVERY_S = 30.0


class Notifier:
    """sd_notify(3): datagrams to the socket that the service manager named; without one, nothing."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        name = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + name[1:] if name.startswith("@") else name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)  # a supervisor that does not read must not stop who tells it

    def tell(self, message: str) -> None:
        """One message, such as READY=1, WATCHDOG=1, STOPPING=1 or STATUS=…; a full socket loses it."""
        if not self._address:
            return
        try:
            self._socket.sendto(message.encode(), self._address)
        except OSError:
            return

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()


class Watchdog:
    """Feeds the service manager's watchdog while every sign is fresh.

    `limits_ms` tells for each part how old its last sign may be. A part that never gave one is not waited for: it may
    not be there at all.
    """

    def __init__(self, tell: Callable[[str], None], limits_ms: Mapping[str, int], every_ms: int = 3_000) -> None:
        self._tell, self._limits, self._every_ms = tell, dict(limits_ms), every_ms
        self._signs: dict[str, int] = {}
        self._fed_ms: int | None = None

    def sign(self, part: str, now_ms: int) -> None:
        """The part lives."""
        self._signs[part] = now_ms

    def late(self, now_ms: int) -> list[str]:
        """The parts whose last sign is too old."""
        signs = dict(self._signs)  # other threads give signs meanwhile
        return [part for part, at in signs.items() if now_ms - at > self._limits[part]]

    def feed(self, now_ms: int) -> bool:
        """Feed if it is time and nobody is late; tells whether it did."""
        if self._fed_ms is not None and now_ms - self._fed_ms < self._every_ms:
            return False
        if late := self.late(now_ms):
            self._tell(f"STATUS=no sign of {', '.join(late)}")
            return False
        self._fed_ms = now_ms
        self._tell("WATCHDOG=1")
        return True


class DiskCheck:
    """Writes a byte to the disk now and then, in a thread of its own: a card that hangs must not hang the panel."""

    def __init__(self, folder: Path, told: Callable[[str], None], every_s: float = _DISK_EVERY_S) -> None:
        """`told` is called after each try with what is wrong, empty when the byte reached the disk.

        A disk that says why it takes nothing is no disk that hangs: starting anew would not mend it.
        """
        self._file, self._told, self._every_s = folder / ".alive", told, every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="disk", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread, unless the disk holds it."""
        self._over.set()
        self._thread.join(1)

    def _run(self) -> None:
        while True:
            self._told(self._problem())
            if self._over.wait(self._every_s):
                return

    def _problem(self) -> str:
        try:
            descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.pwrite(descriptor, b"1", 0)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as exc:
            return exc.strerror or type(exc).__name__
        return ""
