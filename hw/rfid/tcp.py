"""The line to a reader in the network: one thread that reads a TCP connection."""

from __future__ import annotations

import re
import socket
import threading
from contextlib import suppress
from pathlib import Path

from hw.errors import DeviceNotFoundError, LinkLostError
from hw.rfid.transport import WRITE_TIMEOUT_S, Connect, Link, Lost, Received, Tap

CONNECT_TIMEOUT_S = 2.0
_MOST = 1 << 16  # bytes of one read
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^:\[\]/]+)(?::(\d{1,5}))?")


def address_of(text: str, port: int) -> tuple[str, int]:
    """`host`, `host:port`, `[IPv6]` or `[IPv6]:port` as host and port; ValueError."""
    found = _ADDRESS.fullmatch(text)
    if not found or not 0 <= (number := int(found[2] or port)) <= 0xFFFF:
        raise ValueError("an address is HOST or HOST:PORT")
    return found[1].strip("[]"), number


class TcpLink:
    """A connection with its reading thread. Silence is not told: TCP delivers late, and what is late is not lost."""

    def __init__(self, connection: socket.socket, received: Received, lost: Lost, tap: Tap | None = None) -> None:
        self._connection = connection
        self._received = received
        self._lost = lost
        self._tap = tap
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tag reader line", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        """Send all bytes; LinkLostError."""
        if self._tap:
            self._tap("out", data)
        try:
            self._connection.sendall(data)
        except OSError as exc:
            raise _lost_error(exc) from exc

    def close(self) -> None:
        """End the thread and the connection; harmless twice."""
        self._closing.set()
        with suppress(OSError):  # gone already
            self._connection.shutdown(socket.SHUT_RDWR)
        if self._thread is not threading.current_thread():
            self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                data = self._connection.recv(_MOST)
            except TimeoutError:
                continue
            except OSError as exc:
                self._tell(_lost_error(exc))
                return
            if not data:
                self._tell(LinkLostError("tag reader", "reader ended the connection"))
                return
            if self._tap:
                self._tap("in", data)
            self._received(data)

    def _tell(self, error: LinkLostError) -> None:
        if not self._closing.is_set():
            self._lost(error)


def tcp_line(address: Path, port: int, tap: Tap | None = None) -> Connect:
    """How to reach the reader at `address`, a host with or without a port; else at `port`."""

    def connect(received: Received, lost: Lost) -> Link:
        try:
            connection = socket.create_connection(address_of(str(address), port), CONNECT_TIMEOUT_S)
        except (OSError, ValueError) as exc:  # UnicodeError of a host name is a ValueError
            number = f" (errno {exc.errno})" if isinstance(exc, OSError) and exc.errno else ""
            raise DeviceNotFoundError("tag reader", f"no connection{number}") from exc
        connection.settimeout(WRITE_TIMEOUT_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return TcpLink(connection, received, lost, tap)

    return connect


def _lost_error(exc: OSError) -> LinkLostError:
    return LinkLostError("tag reader", f"line lost (errno {exc.errno})" if exc.errno else "line lost")
