"""An emulated reader behind a TCP port: one host at a time, as gantry readers have it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress

_READ_BYTES = 4096
_MOST_WAITING = 1 << 20  # bytes; a host that fetches nothing for so long is let go


class TcpPort:
    """A listening socket and its host. Nothing here waits."""

    def __init__(self, host: str, port: int, greeting: Callable[[int], bytes]) -> None:
        """OSError when it cannot listen; port 0 takes a free one. `greeting(0)` welcomes, `greeting(2)` refuses."""
        self._greeting = greeting
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._address = (host, port)
        self._listener: socket.socket | None = None
        self._client: socket.socket | None = None
        self._waiting = bytearray()
        self.lost = 0  # bytes that the host did not fetch in time
        self.plug()

    @property
    def path(self) -> str:
        """What a host is to connect to."""
        host, port = self._address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def master(self) -> int:
        """The file descriptor of our side; -1 while unplugged."""
        found = self._client or self._listener
        return found.fileno() if found else -1

    def plug(self) -> None:
        """Listen (again), at the same port."""
        listener = socket.create_server(self._address, family=self._family)
        listener.setblocking(False)
        self._listener, self._address = listener, listener.getsockname()[:2]

    def unplug(self) -> None:
        """Go away; harmless twice."""
        self._let_go()
        if self._listener:
            self._listener.close()
            self._listener = None

    def read(self) -> bytes | None:
        """What the host has sent since; None while there is no host.

        Who comes is looked at only after the host has said all: one that left makes room for the next.
        """
        if self._client is None:
            self._accept()
            return None
        try:
            if data := self._client.recv(_READ_BYTES):
                return data
        except BlockingIOError:
            self._accept()
            return b""
        except OSError:
            pass  # reset by the host
        self._let_go()
        self._accept()
        return None

    def write(self, data: bytes) -> None:
        """Give bytes to the host, in order and complete or not at all."""
        self._waiting += data
        client = self._client
        if client is None:
            return
        try:
            while self._waiting:
                del self._waiting[: client.send(self._waiting)]
        except BlockingIOError:
            if len(self._waiting) > _MOST_WAITING:
                self._let_go()
        except OSError:
            self._let_go()

    def _accept(self) -> None:
        if self._listener is None:
            return
        try:
            client, _ = self._listener.accept()
        except BlockingIOError:
            return
        client.setblocking(False)
        if self._client is None:
            self._client = client
            self.write(self._greeting(0))
            return
        with suppress(OSError):
            client.send(self._greeting(2))
        client.close()

    def _let_go(self) -> None:
        self.lost += len(self._waiting)
        self._waiting.clear()
        if self._client:
            self._client.close()
            self._client = None
