"""HTTPS for the status server: TLS with client certificates, bounded requests, one answer each.

HTTP/1.1 (RFC 9112) with kept connections. A request has one deadline from its first byte to its last, whatever dribbles
in; what breaks a bound gets a refusal and the connection ends. Nothing that a client sends is written anywhere here.
"""

from __future__ import annotations

import io
import json
import socket
import ssl
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from scripts.sandbox.server import Answer, BoundedServer, RunningServer, running
from verifier.codec.device import Refusal

LINGER_S, LINGER_BYTES = 1.0, 4 << 20
PROBLEM_TYPE = "application/problem+json"  # RFC 9457
HEAD_BYTES = 16 * 1024  # request line and header fields together, read ahead included
STATUS = {
    Refusal.REQUEST_MALFORMED: 400,
    Refusal.CERTIFICATE_MISSING: 401,
    Refusal.CERTIFICATE_UNKNOWN: 403,
    Refusal.CODE_REFUSED: 403,
    Refusal.DEVICE_LOST: 403,
    Refusal.DEVICE_HELD: 403,
    Refusal.PATH_UNKNOWN: 404,
    Refusal.METHOD_NOT_ALLOWED: 405,
    Refusal.REQUEST_TIMEOUT: 408,
    Refusal.EPOCH_KEY_DIFFERS: 409,
    Refusal.REPORT_DIFFERS: 409,
    Refusal.AUDIT_GAP: 409,
    Refusal.AUDIT_BROKEN: 409,
    Refusal.LENGTH_REQUIRED: 411,
    Refusal.BODY_TOO_LARGE: 413,
    Refusal.CONTENT_TYPE: 415,
    Refusal.TOO_MANY_REQUESTS: 429,
    Refusal.UNAVAILABLE: 503,
}
"""The status of each refusal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """Bounds of the edge; times in seconds."""

    handshake_s: float = 5.0
    idle_s: float = 60.0  # between two requests on one connection
    request_s: float = 10.0  # from a request's first byte to its last
    answer_s: float = 10.0  # for each write of an answer
    connections: int = 512  # at once; a further one is closed unheard


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A client certificate that verified: its serial number (hex), and whom it names."""

    serial: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, with the certificate that TLS verified where the client showed one."""

    method: str
    path: str
    content_type: str
    body: bytes
    certificate: ClientCertificate | None
    address: str


@dataclass(frozen=True, slots=True)
class Route:
    """What a path takes: its method, the type of its body (None: it has none), and the most bytes of it."""

    method: str
    content_type: str | None
    max_body: int


Respond = Callable[[Request], Answer]  # called by several threads at once
Routes = dict[str, Route]  # by path, with its slash


def refusal(reason: Refusal, headers: tuple[tuple[str, str], ...] = (), **more: object) -> Answer:
    """An error as a problem document; `more` are further members of it, with no identity among them."""
    status = STATUS[reason]
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "reason": reason.value, **more}
    return Answer(status, json.dumps(body).encode(), PROBLEM_TYPE, headers)


@contextmanager
def serve_https(
    respond: Respond,
    routes: Routes,
    context: ssl.SSLContext,
    *,
    port: int = 0,
    bind: str = "127.0.0.1",
    limits: HttpLimits | None = None,
) -> Iterator[RunningServer]:
    """Answer by `respond` on an IPv4 address until the context ends; port 0 takes a free one. OSError."""
    with running(_Server((bind, port), respond, routes, context, limits or HttpLimits()), "https") as server:
        yield server


class _Server(BoundedServer):
    request_queue_size = 256

    def __init__(
        self, address: tuple[str, int], respond: Respond, routes: Routes, context: ssl.SSLContext, limits: HttpLimits
    ) -> None:
        super().__init__(address, _Handler, limits.connections)
        self.respond, self.routes, self.limits = respond, routes, limits
        self._context = context

    def finish_request(self, request: Any, client_address: Any) -> None:
        """The handshake, under one deadline, and then the requests."""
        request.settimeout(self.limits.handshake_s)
        with self._context.wrap_socket(request, server_side=True) as connection:
            self.RequestHandlerClass(connection, client_address, self)  # type: ignore[arg-type]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away or fails the handshake is no news; a mistake of ours is one line without values."""
        error = sys.exc_info()[1]
        if error is None or isinstance(error, OSError):
            return
        place = traceback.extract_tb(error.__traceback__)[-1]
        name = Path(place.filename).name
        print(f"status server: our mistake: {type(error).__name__} in {name}, line {place.lineno}", file=sys.stderr)


class _Reader(io.RawIOBase):
    """Reads from a connection under a deadline and a budget, which the handler sets; TimeoutError past either."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._end = 0.0
        self._left = 0

    def allow(self, seconds: float | None, length: int) -> None:
        """So many seconds from now (None: as before) and so many bytes more."""
        if seconds is not None:
            self._end = time.monotonic() + seconds
        self._left = length

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        seconds = self._end - time.monotonic()
        if seconds <= 0 or self._left <= 0:
            raise TimeoutError("the request takes too long")
        self._connection.settimeout(seconds)
        count = self._connection.recv_into(buffer, min(len(buffer), self._left))
        self._left -= count
        return count


class _RefusedError(Exception):
    """A request that the edge refuses before anybody reads its body."""

    def __init__(self, reason: Refusal) -> None:
        self.reason = reason


class _Handler(BaseHTTPRequestHandler):
    """One connection: its requests, one after the other."""

    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 16 * 1024  # head and body of an answer in one record

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self._reader = _Reader(self.connection)
        self.rfile = io.BufferedReader(self._reader)
        self._certificate = _certificate(self.connection)

    def handle_one_request(self) -> None:
        self._reader.allow(self.server.limits.idle_s, HEAD_BYTES)
        try:
            waiting = self.rfile.peek(1)  # type: ignore[attr-defined]
        except (TimeoutError, OSError):
            waiting = b""
        if not waiting:
            self.close_connection = True
            return
        self._reader.allow(self.server.limits.request_s, HEAD_BYTES)
        super().handle_one_request()

    def answer(self) -> None:
        self.close_connection = self.close_connection or "close" in self.headers.get("Connection", "").lower()
        try:
            request = self._request()
        except (_RefusedError, TimeoutError) as exc:
            # What follows on this connection may be the body that was not read.
            self.close_connection = True
            reason = exc.reason if isinstance(exc, _RefusedError) else Refusal.REQUEST_TIMEOUT
            self._send(refusal(reason, self._allow() if reason is Refusal.METHOD_NOT_ALLOWED else ()))
            self._linger()
            return
        self._send(self.server.respond(request))

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = answer  # noqa: N815

    def _allow(self) -> tuple[tuple[str, str], ...]:
        return (("Allow", self.server.routes[self.path].method),)

    def _request(self) -> Request:
        route = self.server.routes.get(self.path)
        if route is None:
            raise _RefusedError(Refusal.PATH_UNKNOWN)
        if self.command != route.method:
            raise _RefusedError(Refusal.METHOD_NOT_ALLOWED)
        length = self._length()
        if length > route.max_body:
            raise _RefusedError(Refusal.BODY_TOO_LARGE)
        sent = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if route.content_type is not None and (sent != route.content_type or "Content-Encoding" in self.headers):
            raise _RefusedError(Refusal.CONTENT_TYPE)
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(HTTPStatus.CONTINUE)
            self.end_headers()
            self.wfile.flush()
        self._reader.allow(None, length)
        body = self.rfile.read(length)
        if len(body) != length:
            raise TimeoutError("the body ends early")
        return Request(
            method=self.command, path=self.path, content_type=sent, body=body, certificate=self._certificate,
            address=str(self.client_address[0]),
        )  # fmt: skip

    def _length(self) -> int:
        """Content-Length, given once and as digits; a body may not come in pieces (RFC 9112 clause 6.3)."""
        given = self.headers.get_all("Content-Length") or []
        if "Transfer-Encoding" in self.headers or (not given and self.command != "GET"):
            raise _RefusedError(Refusal.LENGTH_REQUIRED)
        text = given[0] if given else "0"
        if len(given) > 1 or not (text.isascii() and text.isdigit()):
            raise _RefusedError(Refusal.REQUEST_MALFORMED)
        return int(text) if len(text) < 16 else 1 << 60  # int of very long digits is slow, and too large anyway

    def handle_expect_100(self) -> bool:
        return True  # answered once the length and the type are known to be right

    def _send(self, answer: Answer) -> None:
        self.connection.settimeout(self.server.limits.answer_s)
        self.send_response_only(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        for name, value in answer.headers:
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def _linger(self) -> None:
        """Read a little of what still comes: closing on unread bytes would take the answer back (RFC 9112 9.6)."""
        self._reader.allow(LINGER_S, LINGER_BYTES)
        with suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_WR)  # the client sees the end, and nothing is decrypted any more
            while self.rfile.read1(HEAD_BYTES):
                pass

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the standard library refuses to read as a request; its texts repeat what was sent, ours do not."""
        self.close_connection = True
        self.request_version = "HTTP/1.1"
        unknown = code == HTTPStatus.NOT_IMPLEMENTED
        with suppress(OSError):
            self._send(refusal(Refusal.METHOD_NOT_ALLOWED if unknown else Refusal.REQUEST_MALFORMED))

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: what is asked for is nobody's business."""


def _certificate(connection: socket.socket) -> ClientCertificate | None:
    """The client's certificate, which TLS has verified; None when it showed none."""
    shown: Any = connection.getpeercert() if isinstance(connection, ssl.SSLSocket) else None
    if not shown:
        return None
    names = dict(pair for part in shown["subject"] for pair in part)
    return ClientCertificate(f"{int(shown['serialNumber'], 16):x}", str(names.get("commonName", "")))
