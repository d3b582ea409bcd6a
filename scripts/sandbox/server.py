"""A small web server, on the loopback address unless told otherwise, for the sandbox and for tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that is answering; `url` has no slash at its end."""

    url: str
    port: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request gets."""

    status: int
    body: bytes = b""
    content_type: str = "application/octet-stream"
    headers: tuple[tuple[str, str], ...] = ()  # besides type and length


Respond = Callable[[str], Answer]  # takes the request target as it was sent; called by several threads at once


def serve(store: Mapping[str, bytes], port: int = 0) -> AbstractContextManager[RunningServer]:
    """Answer GET and HEAD from `store` on 127.0.0.1 until the context ends; port 0 takes a free one. OSError."""
    return serve_answers(lambda target: _file(store, target), port=port)


def _file(store: Mapping[str, bytes], target: str) -> Answer:
    data = store.get(unquote(urlsplit(target).path).lstrip("/"))
    return Answer(404) if data is None else Answer(200, data)


@contextmanager
def serve_answers(respond: Respond, *, port: int = 0, bind: str = "127.0.0.1") -> Iterator[RunningServer]:
    """Answer GET and HEAD by `respond` on an IPv4 address until the context ends; port 0 takes a free one. OSError."""
    server = _Server((bind, port), _handler(respond))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        number = server.server_address[1]
        host = "127.0.0.1" if bind == "0.0.0.0" else bind  # noqa: S104 - compared, not bound
        yield RunningServer(f"http://{host}:{number}", number)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    allow_reuse_address = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle of an answer is no news."""


def _handler(respond: Respond) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version = "sandbox"
        timeout = 5  # seconds an idle connection is kept
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, *, with_body: bool) -> None:
            answer = respond(self.path)
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body)))
            for name, value in answer.headers:
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(answer.body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet: what is asked for is nobody's business."""

    return Handler
