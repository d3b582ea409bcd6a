"""Fetching from a static file server or a carried folder: bounded in size and in time, never interpreting it."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from verifier.errors import FetchError, FetchTimeoutError, NotFoundError, RejectedError, StatusError
from verifier.trusted_time import http_date

READ_SIZE = 1 << 16  # bytes
_PATH = re.compile(r"[A-Za-z0-9_.%-]+(/[A-Za-z0-9_.%-]+)*")


class Fetcher(Protocol):
    """Where files come from."""

    def fetch(self, path: str, max_length: int) -> Iterator[bytes]:
        """The bytes of the file at `path` (relative, no leading slash), in pieces.

        FetchError when it cannot be had, NotFoundError when there is none, RejectedError as soon as more than
        `max_length` bytes come.
        """


def read_file(fetcher: Fetcher, path: str, max_length: int) -> bytes:
    """The whole file; RejectedError when a fetcher gives more than it was allowed to, FetchError as above."""
    out = bytearray()
    pieces = fetcher.fetch(path, max_length)
    try:
        for piece in pieces:
            out += piece
            if len(out) > max_length:
                raise RejectedError(path, f"more than {max_length} bytes")
    finally:
        if isinstance(pieces, Generator):
            pieces.close()  # the connection is not left to the garbage collector
    return bytes(out)


def check_path(path: str) -> None:
    """RejectedError for a path that is not plain and relative."""
    if not _PATH.fullmatch(path) or ".." in path:
        raise RejectedError(path[:80], "not a plain relative path")


class HttpFetcher:
    """Fetches over HTTP(S) from below one base address; a context manager.

    `connect_timeout`, `read_timeout` (the longest silence) and `total_timeout` (one file, from the first byte sent
    to the last received) are in seconds. No redirects, no proxies or credentials from the environment, no
    decompression, no retries. The host must answer 404 for a file it does not have, and say each file's length.
    `on_date` is told the date that comes with each answer: unsigned, so a hint at most.
    """

    def __init__(
        self,
        base_url: str,
        *,
        connect_timeout: float = 5.0,
        read_timeout: float = 10.0,
        total_timeout: float = 60.0,
        ca_file: str | None = None,
        client_certificate: tuple[str, str] | None = None,
        on_date: Callable[[datetime], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if not is_base(base_url):
            raise FetchError("base address", "not an http or https address")
        self._base = base_url.rstrip("/") + "/"
        self._timeouts = (connect_timeout, read_timeout)
        self._total = total_timeout
        self._monotonic = monotonic
        self._on_date = on_date
        self._session = guarded_session(total_timeout, ca_file=ca_file, client_certificate=client_certificate)

    def __enter__(self) -> HttpFetcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def fetch(self, path: str, max_length: int) -> Iterator[bytes]:
        """As `Fetcher.fetch`; FetchTimeoutError when the file takes longer than the total timeout."""
        check_path(path)
        deadline = self._monotonic() + self._total
        with translated(path):
            response = self._session.get(self._base + path, stream=True, allow_redirects=False, timeout=self._timeouts)
            with response:
                date = http_date(response.headers.get("Date", ""))
                # A cache between us and the server answers with the date of its copy (RFC 9111 clause 5.1).
                if self._on_date is not None and date is not None and "Age" not in response.headers:
                    self._on_date(date)
                _check_answer(path, response, max_length)
                received = 0
                while self._monotonic() < deadline:
                    # read1 returns after one receive; read and stream wait until a whole piece has dripped in.
                    piece = response.raw.read1(READ_SIZE, decode_content=False)
                    if not piece:
                        return
                    received += len(piece)
                    if received > max_length:
                        raise RejectedError(path, f"more than {max_length} bytes")
                    yield piece
                raise FetchTimeoutError(path, f"not done within {self._total:g} s")


class FolderFetcher:
    """Fetches from below one folder, for data that come by cable or on a card: the same paths, bounds and errors.

    No symbolic link below the folder is followed, and nothing but plain files is read: who prepares a card must not
    reach the device's own files with it. FetchError when there is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise FetchError("folder", "there is none at this place")
        self._folder = folder

    def fetch(self, path: str, max_length: int) -> Iterator[bytes]:
        """As `Fetcher.fetch`."""
        check_path(path)
        try:
            with os.fdopen(_open_below(self._folder, path), "rb") as file:
                received = 0
                while piece := file.read(READ_SIZE):
                    received += len(piece)
                    if received > max_length:
                        raise RejectedError(path, f"more than {max_length} bytes")
                    yield piece
        except OSError as exc:
            raise FetchError(path, f"cannot be read ({type(exc).__name__})") from exc


def _open_below(folder: Path, path: str) -> int:
    """A handle on the plain file at `path`, whose every part was opened without following a link. OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    *parents, name = path.split("/")
    for part, kind in [*((parent, os.O_DIRECTORY) for parent in parents), (name, os.O_NONBLOCK)]:
        above = handle
        try:
            handle = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | kind, dir_fd=above)
        except OSError as exc:
            raise _why_closed(above, part, path, exc) from exc
        finally:
            os.close(above)
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return handle
    os.close(handle)
    raise NotFoundError(path) if stat.S_ISDIR(mode) else RejectedError(path, "not a plain file")


def _why_closed(above: int, part: str, path: str, error: OSError) -> FetchError | OSError:
    if error.errno == errno.ENOENT:
        return NotFoundError(path)
    if error.errno in (errno.ENOTDIR, errno.ELOOP):
        linked = stat.S_ISLNK(os.stat(part, dir_fd=above, follow_symlinks=False).st_mode)
        return RejectedError(path, "symbolic links are not followed") if linked else NotFoundError(path)
    return RejectedError(path, "not a plain file") if error.errno == errno.ENXIO else error


def is_base(url: str) -> bool:
    """Whether this is an http or https address that paths can be put behind."""
    try:
        parts = urlsplit(url)
        plain = parts.port is None or parts.port > 0  # the port is parsed, and refused, only when asked for
    except ValueError:
        return False
    return plain and parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment)


def _check_answer(path: str, response: requests.Response, max_length: int) -> None:
    if 300 <= response.status_code < 400:
        raise RejectedError(path, "redirects are not followed")
    if response.status_code == 404:
        raise NotFoundError(path)
    if response.status_code != 200:
        raise StatusError(path, response.status_code)
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise RejectedError(path, "an encoding that was not asked for")
    length = response.headers.get("Content-Length", "")
    # A body in chunks could drip its chunk sizes for ever inside one call of the library, where nobody can look at a
    # clock. Ours are static files: their length is known.
    if "Transfer-Encoding" in response.headers or not (length.isascii() and length.isdigit()):
        raise RejectedError(path, "an answer that does not say its length")
    if int(length[:18]) > max_length:
        raise RejectedError(path, f"more than {max_length} bytes")


@contextmanager
def translated(path: str) -> Iterator[None]:
    """What the libraries raise, as ours; texts from outside stay out of ours."""
    try:
        yield
    except (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError) as exc:
        raise FetchTimeoutError(path, "the server did not answer in time") from exc
    except (requests.ConnectionError, urllib3.exceptions.ProtocolError, ConnectionError) as exc:
        raise FetchError(path, "no connection, or it broke off") from exc
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as exc:
        raise FetchError(path, f"fetching failed ({type(exc).__name__})") from exc


def guarded_session(
    seconds: float, *, ca_file: str | None, client_certificate: tuple[str, str] | None
) -> requests.Session:
    """A session that takes nothing from the environment, follows nothing, and cuts what takes longer than `seconds`."""
    session = _Session()
    session.trust_env = False
    session.headers.clear()
    session.headers.update({"Accept-Encoding": "identity", "User-Agent": "markcheck"})
    session.verify = ca_file or True
    session.cert = client_certificate
    adapter = _GuardedAdapter(seconds)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


class _Session(requests.Session):
    """Sees no redirects: the library would read the whole body of one, however long, even when told not to follow."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


class _GuardedAdapter(HTTPAdapter):
    """No retries, and connections that are cut when the answer's head does not come in time.

    The libraries' timeout counts from one received byte to the next, so a head that drips in would hold the caller
    for hours; nobody can look at a clock meanwhile.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        seconds = self._seconds

        class Http(HTTPConnection):
            def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
                with _cut_after(self.sock, seconds):
                    return super().getresponse()

        class Https(HTTPSConnection):
            def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
                with _cut_after(self.sock, seconds):
                    return super().getresponse()

        class HttpPool(HTTPConnectionPool):
            ConnectionCls = Http

        class HttpsPool(HTTPSConnectionPool):
            ConnectionCls = Https

        self.poolmanager.pool_classes_by_scheme = {"http": HttpPool, "https": HttpsPool}

    def close(self) -> None:
        """Close every connection now: the library leaves that to the garbage collector."""
        for key in self.poolmanager.pools.keys():  # noqa: SIM118 - it cannot be iterated
            if (pool := self.poolmanager.pools.get(key)) is not None:
                pool.close()
        super().close()


@contextmanager
def _cut_after(sock: socket.socket | None, seconds: float) -> Iterator[None]:
    """Shut the socket down after so many seconds, and make a TimeoutError of whatever comes of that."""
    due = threading.Event()

    def cut() -> None:
        due.set()
        if sock is not None:
            with suppress(OSError):
                # The plain method: an SSL socket's own one takes its state apart under the reading thread.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, HTTPException) as exc:
        if due.is_set():
            raise TimeoutError("the head of the answer did not come in time") from exc
        raise
    finally:
        timer.cancel()
    if due.is_set():  # a head that was cut can still look like a complete one
        raise TimeoutError("the head of the answer did not come in time")
