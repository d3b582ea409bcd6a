"""The network between a device and a server, as a demo may spoil it: bytes of TCP connections, not understood here.

On loopback, in front of one server. What a fault does to TLS and HTTP is theirs to find out, as on a real road.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum

DRIP_BYTES, DRIP_S = 1, 0.4
MAX_CONNECTIONS = 32
_PIECE = 1 << 16
_LOGIN = b"<!doctype html><title>Free WiFi</title><p>Please log in"
PORTAL_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
    % (len(_LOGIN), _LOGIN)
)  # fmt: skip


class Fault(StrEnum):
    """What the road does."""

    NONE = "none"
    CUT = "cut"  # no connection can be had, and those there are break
    DRIP = "drip"  # the server's bytes come one at a time
    PORTAL = "portal"  # somebody else answers everything with a page to log in


class Road:
    """Carries connections to the port behind it; `choose` may be called at any time."""

    def __init__(self, upstream: int) -> None:
        """A free port of 127.0.0.1; OSError."""
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self._fault = Fault.NONE
        self._lock = threading.Lock()
        self._ends: set[socket.socket] = set()
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._turned = threading.Event()  # set when the fault has changed: whoever drips looks up
        threading.Thread(target=self._run, name="road", daemon=True).start()

    def choose(self, fault: Fault) -> None:
        """From now on; what is under way breaks, as when a network is changed."""
        self._fault = fault
        turned, self._turned = self._turned, threading.Event()
        turned.set()
        with self._lock:
            ends = list(self._ends)
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """No more connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.choose(Fault.CUT)

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if not self._places.acquire(blocking=False):
                    _reset(near)
                    continue
                threading.Thread(target=self._carry, args=(near,), name="road", daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        try:
            with near, self._known(near), suppress(OSError):
                match self._fault:
                    case Fault.CUT:
                        _reset(near)
                    case Fault.PORTAL:
                        near.settimeout(5)
                        near.recv(_PIECE)
                        near.sendall(PORTAL_ANSWER)
                    case _:
                        self._through(near)
        finally:
            self._places.release()

    def _through(self, near: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self._upstream), timeout=5) as far, self._known(far):
            far.settimeout(None)
            back = threading.Thread(target=self._pump, args=(far, near), name="road", daemon=True)
            back.start()
            self._pump(near, far, slowly=False)
            back.join()

    def _pump(self, source: socket.socket, sink: socket.socket, *, slowly: bool = True) -> None:
        """Until the source ends or either breaks; then the sink is told."""
        turned = self._turned
        with suppress(OSError):
            while data := source.recv(_PIECE):
                if slowly and self._fault is Fault.DRIP:
                    for place in range(0, len(data), DRIP_BYTES):
                        sink.sendall(data[place : place + DRIP_BYTES])
                        if turned.wait(DRIP_S):
                            return
                else:
                    sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    @contextmanager
    def _known(self, end: socket.socket) -> Iterator[None]:
        with self._lock:
            self._ends.add(end)
        try:
            yield
        finally:
            with self._lock:
                self._ends.discard(end)


def _reset(end: socket.socket) -> None:
    """Break off with RST."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()
