"""A static file server on the loopback address, for the sandbox and for tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that is answering; `url` has no slash at its end."""

    url: str
    port: int


@contextmanager
def serve(store: Mapping[str, bytes], port: int = 0) -> Iterator[RunningServer]:
    """Answer GET and HEAD from `store` on 127.0.0.1 until the context ends; port 0 takes a free one. OSError."""
    server = _Server(("127.0.0.1", port), _handler(store))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        number = server.server_address[1]
        yield RunningServer(f"http://127.0.0.1:{number}", number)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    allow_reuse_address = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle of an answer is no news."""


def _handler(store: Mapping[str, bytes]) -> type[BaseHTTPRequestHandler]:
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
            data = store.get(unquote(urlsplit(self.path).path).lstrip("/"))
            body = b"" if data is None else data
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet: what is asked for is nobody's business."""

    return Handler
