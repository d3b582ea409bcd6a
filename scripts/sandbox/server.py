"""A web server with bounds, on the loopback address unless told otherwise: of the sandbox, the demo and the tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

CONNECTIONS = 512  # at once


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
    with running(BoundedServer((bind, port), _handler(respond), CONNECTIONS)) as server:
        yield server


class BoundedServer(ThreadingHTTPServer):
    """A thread for each connection, as far as there are places: a further one is closed unheard."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], connections: int) -> None:
        """Listens from now on; OSError."""
        super().__init__(address, handler)
        self._places = threading.BoundedSemaphore(connections)

    def process_request(self, request: Any, client_address: Any) -> None:
        """In the thread that listens."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no more threads to be had
            self._places.release()
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread: one that takes its time keeps nobody else waiting."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle of an answer is no news."""


@contextmanager
def running(server: BoundedServer, scheme: str = "http") -> Iterator[RunningServer]:
    """Let a server answer, in a thread of its own, until the context ends."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        bound, port = str(server.server_address[0]), int(server.server_address[1])
        host = "127.0.0.1" if bound == "0.0.0.0" else bound  # noqa: S104 - compared, not bound
        yield RunningServer(f"{scheme}://{host}:{port}", port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


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
