"""The line to a reader in the network."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from hw.errors import DeviceNotFoundError, LinkLostError
from hw.rfid.transport import WRITE_TIMEOUT_S, Connect, Link, Lost, Received, Tap, ThreadedLink

CONNECT_TIMEOUT_S = 2.0
_MOST = 1 << 16  # bytes of one read
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^:\[\]/]+)(?::(\d{1,5}))?")


def address_of(text: str, port: int) -> tuple[str, int]:
    """`host`, `host:port`, `[IPv6]` or `[IPv6]:port` as host and port; ValueError."""
    found = _ADDRESS.fullmatch(text)
    if not found or not 0 <= (number := int(found[2] or port)) <= 0xFFFF:
        raise ValueError("an address is HOST or HOST:PORT")
    return found[1].strip("[]"), number


class _Connection:
    """A TCP connection. Silence is not told: TCP delivers late, and what is late is not lost."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.write, self.close = connection.sendall, connection.close

    def read(self) -> bytes | None:
        """What has come, None when there was nothing for a while; LinkLostError when the reader has ended it."""
        try:
            data = self._connection.recv(_MOST)
        except TimeoutError:
            return None
        if not data:
            raise LinkLostError("tag reader", "reader ended the connection")
        return data

    def wake(self) -> None:
        """End it, and with it a read that waits."""
        self._connection.shutdown(socket.SHUT_RDWR)


def tcp_line(address: Path, port: int, tap: Tap | None = None) -> Connect:
    """How to reach the reader at `address`, a host with or without a port; else at `port`."""

    def connect(received: Received, lost: Lost) -> Link:
        try:
            connection = socket.create_connection(address_of(str(address), port), CONNECT_TIMEOUT_S)
            connection.settimeout(WRITE_TIMEOUT_S)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except (OSError, ValueError) as exc:  # UnicodeError of a host name is a ValueError
            number = f" (errno {exc.errno})" if isinstance(exc, OSError) and exc.errno else ""
            raise DeviceNotFoundError("tag reader", f"no connection{number}") from exc
        return ThreadedLink(_Connection(connection), received, lost, tap)

    return connect
