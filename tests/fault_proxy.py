"""What a network may do to one request, on loopback: stands between a device and a centre, one fault at a time.

A fault is a function on a `Wire`; it may forward to the real centre behind, spoil what comes back, or answer itself.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import requests

MAX_HEAD = 1 << 16
OK = b"HTTP/1.1 200 OK\r\n"


@dataclass
class Wire:
    """One connection from the device; `closing` is set when the test ends."""

    connection: socket.socket
    proxy: FaultProxy
    head: bytes = b""
    body: bytes = b""

    def read_request(self) -> None:
        """The whole request of the device."""
        data = b""
        while b"\r\n\r\n" not in data and len(data) < MAX_HEAD:
            piece = self.connection.recv(65536)
            if not piece:
                raise ConnectionError("the device went away")
            data += piece
        self.head, _, self.body = data.partition(b"\r\n\r\n")
        length = int(header(self.head, b"content-length") or b"0")
        while len(self.body) < length:
            piece = self.connection.recv(65536)
            if not piece:
                raise ConnectionError("the device went away")
            self.body += piece
        self.proxy.requests.append(self.body)

    @property
    def path(self) -> str:
        """What was asked for."""
        return self.head.split(b" ")[1].decode()

    def forward(self) -> requests.Response:
        """What the centre answers to this request."""
        with requests.Session() as session:
            session.trust_env = False
            kind = (header(self.head, b"content-type") or b"").decode()
            method = self.head.split(b" ")[0].decode()
            url, headers = self.proxy.upstream + self.path, {"Content-Type": kind}
            return session.request(method, url, data=self.body, headers=headers)

    def send(self, data: bytes) -> None:
        """To the device."""
        self.connection.sendall(data)
        self.proxy.sent += len(data)

    def pause(self, seconds: float) -> None:
        """Wait, but not beyond the end of the test."""
        if self.proxy.closing.wait(seconds):
            raise ConnectionError("the test is over")

    def reset(self) -> None:
        """Break the connection off with RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


def header(head: bytes, name: bytes) -> bytes | None:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip()
    return None


def http(status: int, body: bytes, content_type: str, *more: str) -> bytes:
    """An answer as it goes over the wire."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {content_type}", f"Content-Length: {len(body)}", *more]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


Fault = Callable[[Wire], None]


@dataclass
class FaultProxy:
    """Counts what went through; `fault` may be changed between requests."""

    fault: Fault
    upstream: str
    url: str = ""
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    sent: int = 0
    closing: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def _one(self, connection: socket.socket) -> None:
        with suppress(OSError, requests.RequestException), contextlib.closing(connection):
            connection.settimeout(10)
            self.fault(Wire(connection, self))

    def _run(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                self.connections += 1
                thread = threading.Thread(target=self._one, args=(connection,), daemon=True)
                thread.start()
                self._threads.append(thread)


@contextmanager
def fault_proxy(fault: Fault, upstream: str, *, tls: ssl.SSLContext | None = None) -> Iterator[FaultProxy]:
    """Listens on 127.0.0.1 until the context ends; with `tls` the device must speak that."""
    listener = socket.create_server(("127.0.0.1", 0))
    proxy = FaultProxy(secured(fault, tls) if tls else fault, upstream)
    proxy.url = f"{'https' if tls else 'http'}://127.0.0.1:{listener.getsockname()[1]}"
    thread = threading.Thread(target=proxy._run, args=(listener,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.closing.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for one in proxy._threads:
            one.join(timeout=10)


def secured(fault: Fault, tls: ssl.SSLContext) -> Fault:
    """The same fault behind a TLS handshake."""

    def run(wire: Wire) -> None:
        with tls.wrap_socket(wire.connection, server_side=True, do_handshake_on_connect=False) as connection:
            try:
                connection.do_handshake()
            except ssl.SSLError:
                # The alert is on its way; closing with unread bytes would overtake it with a RST.
                socket.socket.shutdown(connection, socket.SHUT_WR)
                while socket.socket.recv(connection, 65536):
                    pass
                return
            wire.connection = connection
            fault(wire)

    return run


# ------------------------------------------------------------------------------------------------- faults


def clean(wire: Wire) -> None:
    """No fault: what the centre answers."""
    wire.read_request()
    answer = wire.forward()
    more = [f"{name}: {answer.headers[name]}" for name in ("Retry-After",) if name in answer.headers]
    wire.send(http(answer.status_code, answer.content, answer.headers.get("Content-Type", ""), *more))


def hang(wire: Wire) -> None:
    """Takes the request and says nothing."""
    wire.read_request()
    wire.pause(30)


def silent(wire: Wire) -> None:
    """Takes the connection and does not even read."""
    wire.pause(30)


def drip_body(wire: Wire) -> None:
    """A good answer, a byte every 0.4 s."""
    wire.read_request()
    answer = wire.forward()
    head, body = http(200, answer.content, "application/cose").split(b"\r\n\r\n", 1)
    wire.send(head + b"\r\n\r\n")
    for byte in body:
        wire.send(bytes((byte,)))
        wire.pause(0.4)


def drip_head(wire: Wire) -> None:
    """Not even the head comes in time."""
    wire.read_request()
    for byte in http(200, wire.forward().content, "application/cose"):
        wire.send(bytes((byte,)))
        wire.pause(0.4)


def drip_handshake(wire: Wire) -> None:
    """The first bytes of a TLS record that never ends."""
    for byte in b"\x16\x03\x03\x40\x00" + bytes(0x4000):
        wire.send(bytes((byte,)))
        wire.pause(0.05)


def reset_at_once(wire: Wire) -> None:
    """RST before anything was read."""
    wire.reset()


def reset_in_the_middle(wire: Wire) -> None:
    """Half of a good answer, then RST."""
    wire.read_request()
    whole = http(200, wire.forward().content, "application/cose")
    wire.send(whole[: len(whole) - 60])
    wire.pause(0.02)
    wire.reset()


def truncated(wire: Wire) -> None:
    """Half of a good answer, then an ordinary end."""
    wire.read_request()
    whole = http(200, wire.forward().content, "application/cose")
    wire.send(whole[: len(whole) - 60])


def ten_gigabytes(wire: Wire) -> None:
    """Announces 10 GB and sends as much as anybody takes."""
    wire.read_request()
    wire.send(OK + b"Content-Type: application/cose\r\nContent-Length: 10737418240\r\n\r\n")
    while not wire.proxy.closing.is_set():
        wire.send(bytes(1 << 16))


def endless_chunks(wire: Wire) -> None:
    """Does not say how much will come."""
    wire.read_request()
    wire.send(OK + b"Content-Type: application/cose\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not wire.proxy.closing.is_set():
        wire.send(b"8000\r\n" + bytes(1 << 15) + b"\r\n")


def wrong_type(wire: Wire) -> None:
    """A good answer that does not say what it is."""
    wire.read_request()
    wire.send(http(200, wire.forward().content, "application/octet-stream"))


def captive_portal(wire: Wire) -> None:
    """200, and a page to log in."""
    wire.read_request()
    wire.send(http(200, b"<html><title>Free WiFi</title></html>", "text/html"))


def lying_portal(wire: Wire) -> None:
    """200, and a page under the right type."""
    wire.read_request()
    wire.send(http(200, b"<html><title>Free WiFi</title></html>", "application/cose"))


def redirect(wire: Wire) -> None:
    """To a page to log in."""
    wire.read_request()
    wire.send(http(302, b"", "text/html", f"Location: {wire.proxy.url}/login"))


def compressed(wire: Wire) -> None:
    """An encoding that was not asked for."""
    wire.read_request()
    wire.send(http(200, wire.forward().content, "application/cose", "Content-Encoding: gzip"))


def answers(status: int, *more: str) -> Fault:
    """An error, with a body that nobody should read."""

    def run(wire: Wire) -> None:
        wire.read_request()
        wire.send(http(status, b'{"title": "no"}', "application/problem+json", *more))

    return run


FAULTS: dict[str, Fault] = {
    "hang": hang, "silent": silent, "drip body": drip_body, "drip head": drip_head, "drip handshake": drip_handshake,
    "reset at once": reset_at_once, "reset in the middle": reset_in_the_middle, "truncated": truncated,
    "ten gigabytes": ten_gigabytes, "endless chunks": endless_chunks, "wrong type": wrong_type,
    "captive portal": captive_portal, "lying portal": lying_portal, "redirect": redirect, "compressed": compressed,
    "401": answers(401), "403": answers(403), "404": answers(404), "409": answers(409), "500": answers(500),
    "502": answers(502), "503": answers(503, "Retry-After: 3600"),
}  # fmt: skip
"""Each by its name. The lists of `test_online_faults.py`, `test_identity.py` and `torture/mirrors.py` choose from it,
and the first of them has a test that tells which is in none."""


class Replay:
    """Sends the first answer that it has seen to everybody."""

    def __init__(self) -> None:
        self.kept: bytes | None = None

    def __call__(self, wire: Wire) -> None:
        wire.read_request()
        if self.kept is None:
            self.kept = http(200, wire.forward().content, "application/cose")
        wire.send(self.kept)
