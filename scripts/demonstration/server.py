"""The page of the demo: HTTP on the loopback address for one person's browser, and nobody else's pages.

A web page of a stranger can send requests to this machine too. So every path begins with a token that only the printed
address has; the Host must be ours (a name that is bound to 127.0.0.1 later does not help), and so must the Origin of
whatever changes something. Bodies are bounded by their announced length before a byte of them is read.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from importlib.resources import files
from typing import Any, Protocol

from scripts.demonstration.feed import Feed
from scripts.sandbox.server import BoundedServer, running

MAX_ORDER = 1024  # bytes of JSON
MAX_PICTURE = 4 * 1024 * 1024
MAX_STREAMS, MAX_CONNECTIONS = 8, 48
QUIET_S = 10.0  # after which a stream says that it is alive
PICTURES = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff"}
"""Types that are taken, with what their bytes begin with; only the scanner process looks any further."""

_HEADERS = (
    ("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"), ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(self), microphone=(), geolocation=()"),
)  # fmt: skip
_NAME = re.compile(r"[a-z0-9_-]{1,40}")


class OrderError(ValueError):
    """An order that cannot be carried out; the text says why and repeats nothing of it."""


class Stage(Protocol):
    """What stands behind the page. Called by several threads at once."""

    def order(self, name: str, value: dict[str, Any]) -> None:
        """Do what the page asks for; OrderError."""
        ...

    def take_picture(self, data: bytes) -> None:
        """Hold this picture before the camera; OrderError."""
        ...

    def picture(self, name: str) -> bytes | None:
        """A PNG or JPEG to show on the page; None when there is none of that name."""
        ...

    def left(self) -> None:
        """Nobody looks at the page any more."""
        ...


@dataclass(frozen=True, slots=True)
class Page:
    """A page that is being served: its whole address, and the parts of it."""

    url: str
    port: int
    token: str


@contextmanager
def serve_page(stage: Stage, feed: Feed, *, port: int = 0, token: str | None = None) -> Iterator[Page]:
    """Serve until the context ends; port 0 takes a free one. OSError when the port is taken."""
    token = token or secrets.token_urlsafe(18)
    with running(_Server(("127.0.0.1", port), stage, feed, token)) as server:
        try:
            yield Page(f"{server.url}/{token}/", server.port, token)
        finally:
            feed.close()


class _Server(BoundedServer):
    def __init__(self, address: tuple[str, int], stage: Stage, feed: Feed, token: str) -> None:
        super().__init__(address, _Handler, MAX_CONNECTIONS)
        self.stage, self.feed, self.token = stage, feed, token
        self.hosts = {f"{name}:{self.server_address[1]}" for name in ("127.0.0.1", "localhost")}
        self.streams = threading.BoundedSemaphore(MAX_STREAMS)
        self.page = files("scripts.demonstration").joinpath("page.html").read_bytes()
        self.policy = content_policy(self.page)
        self._listeners = 0
        self._lock = threading.Lock()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While a page listens; when the last one goes, no finger of it may stay on a key."""
        with self._lock:
            self._listeners += 1
        try:
            yield
        finally:
            with self._lock:
                self._listeners -= 1
                nobody = not self._listeners
            if nobody:
                self.stage.left()


def content_policy(page: bytes) -> str:
    """By which a browser runs the page's own script and style and nothing else, and loads nothing from elsewhere."""
    rules = [
        "default-src 'none'", "connect-src 'self'", "img-src 'self' blob: data:", "media-src 'self' blob:",
        "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
    ]  # fmt: skip
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>".encode(), page, re.DOTALL)
        rules.append(f"{tag}-src 'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'")
    return "; ".join(rules)


class _RefusedError(Exception):
    """A request that is not taken."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "markcheck", ""
    timeout = 20  # seconds for each read
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._run(self._get)

    def do_POST(self) -> None:
        self._run(self._post)

    def _run(self, answer: Callable[[str], None]) -> None:
        try:
            answer(self._path())
        except _RefusedError as exc:
            self.close_connection = True  # what follows may be the body that was not read
            self._send(exc.status, f"{exc}\n".encode(), "text/plain; charset=utf-8")

    def _path(self) -> str:
        """What follows the token; the same refusal for a wrong one as for a path that is not there."""
        if self.headers.get_all("Host") is None or self.headers["Host"] not in self.server.hosts:
            raise _RefusedError(HTTPStatus.MISDIRECTED_REQUEST, "not a host of this page")
        origin = self.headers.get("Origin")
        if origin is not None and origin.removeprefix("http://") not in self.server.hosts:
            raise _RefusedError(HTTPStatus.FORBIDDEN, "another origin")
        if self.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            raise _RefusedError(HTTPStatus.FORBIDDEN, "another site")
        token, _, rest = self.path.partition("?")[0].removeprefix("/").partition("/")
        if not hmac.compare_digest(token.encode("utf-8", "replace"), self.server.token.encode()):
            raise _RefusedError(HTTPStatus.NOT_FOUND, "nothing here")
        return rest

    # ---------------------------------------------------------------------------------------------- reading

    def _get(self, path: str) -> None:
        if path == "":
            more = (("Content-Security-Policy", self.server.policy),)
            self._send(HTTPStatus.OK, self.server.page, "text/html; charset=utf-8", more)
        elif path == "events":
            self._stream()
        else:
            kind, _, name = path.partition("/")
            data = self.server.stage.picture(name) if kind == "picture" and _NAME.fullmatch(name) else None
            if data is None:
                raise _RefusedError(HTTPStatus.NOT_FOUND, "nothing here")
            self._send(HTTPStatus.OK, data, next(t for t, magic in PICTURES.items() if data.startswith(magic)))

    def _stream(self) -> None:
        """Server-sent events (HTML, clause 9.2), until the browser goes or the demo ends."""
        if not self.server.streams.acquire(blocking=False):
            raise _RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "too many pages")
        try:
            self.close_connection = True
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self._end_headers()
            with self.server.listening(), suppress(OSError):
                self._tell()
        finally:
            self.server.streams.release()

    def _tell(self) -> None:
        feed, number = self.server.feed, 0
        while not feed.over:
            number, news = feed.after(number, QUIET_S)
            lines = [f"event: {topic}\ndata: {text}\n\n" for topic, text in news] or [": alive\n\n"]
            self.wfile.write("".join(lines).encode())
            self.wfile.flush()

    # --------------------------------------------------------------------------------------------- changing

    def _post(self, path: str) -> None:
        if self.headers.get("Origin") is None:
            raise _RefusedError(HTTPStatus.FORBIDDEN, "no origin")
        try:
            if path == "frame":
                self._frame()
            elif _NAME.fullmatch(path):
                self.server.stage.order(path, self._order())
            else:
                raise _RefusedError(HTTPStatus.NOT_FOUND, "nothing here")
        except OrderError as exc:
            raise _RefusedError(HTTPStatus.BAD_REQUEST, str(exc)) from exc
        self._send(HTTPStatus.NO_CONTENT)

    def _frame(self) -> None:
        magic = PICTURES.get(self._type())
        if magic is None:
            raise _RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "PNG or JPEG only")
        data = self._body(MAX_PICTURE)
        if not data.startswith(magic):
            raise _RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "not what its type says")
        self.server.stage.take_picture(data)

    def _order(self) -> dict[str, Any]:
        if self._type() != "application/json":
            raise _RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "JSON only")
        try:
            value = json.loads(self._body(MAX_ORDER))
        except (ValueError, RecursionError) as exc:
            raise OrderError("not JSON") from exc
        if not isinstance(value, dict):
            raise OrderError("not an object")
        return value

    def _type(self) -> str:
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    def _body(self, limit: int) -> bytes:
        given = self.headers.get_all("Content-Length") or []
        if len(given) != 1 or "Transfer-Encoding" in self.headers:
            raise _RefusedError(HTTPStatus.LENGTH_REQUIRED, "one length is needed")
        if not (given[0].isascii() and given[0].isdigit()):
            raise _RefusedError(HTTPStatus.BAD_REQUEST, "not a length")
        if len(given[0]) > 9 or int(given[0]) > limit:
            raise _RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too large")
        data = self.rfile.read(int(given[0]))
        if len(data) != int(given[0]):
            raise _RefusedError(HTTPStatus.BAD_REQUEST, "cut short")
        return data

    # --------------------------------------------------------------------------------------------- answering

    def _send(
        self, status: HTTPStatus, body: bytes = b"", kind: str = "", more: tuple[tuple[str, str], ...] = ()
    ) -> None:
        self.send_response(status)
        if kind:
            self.send_header("Content-Type", kind)
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        for name, value in more:
            self.send_header(name, value)
        self._end_headers()
        self.wfile.write(body)

    def _end_headers(self) -> None:
        for name, value in _HEADERS:
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: the address has the token in it."""
