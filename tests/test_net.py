"""Fetching: bounded in bytes and in time, whatever the server does. Loopback only."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests

from scripts.sandbox.folder_store import FolderStore, MemoryFetcher
from scripts.sandbox.server import serve
from tests.nightly import EPOCH_KEY, Night
from verifier.cache.store import StatusStore
from verifier.errors import FetchError, FetchTimeoutError, NotFoundError, RejectedError, StatusError
from verifier.net import Fetcher, FolderFetcher, HttpFetcher, read_file

FILES = {"a/b.bin": bytes(range(256)) * 1000, "empty": b"", "metadata/1.root.json": b"{}"}
OK = b"HTTP/1.1 200 OK\r\n"


@contextmanager
def raw_server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that sends whatever `answer` sends, and then waits until the client has gone."""
    listener = socket.create_server(("127.0.0.1", 0))

    def one(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.recv(65536)
            answer(connection)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass

    def run() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                one(connection)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def sends(data: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(data)


def fetched(answer: Callable[[socket.socket], None], max_length: int = 1000, **options: float) -> bytes:
    with raw_server(answer) as url, HttpFetcher(url, **options) as fetcher:  # type: ignore[arg-type]
        return read_file(fetcher, "some/file", max_length)


class Ticking:
    """A clock that goes on by a second whenever it is looked at."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


# --------------------------------------------------------------------------- one contract for both fetchers


@pytest.fixture(params=["memory", "http", "folder", "card"])
def fetcher(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fetcher]:
    if request.param == "memory":
        yield MemoryFetcher(FILES)
        return
    store = FILES
    if request.param in ("folder", "card"):
        store = FolderStore(tmp_path)  # type: ignore[assignment]
        store.update(FILES)
    if request.param == "card":
        yield FolderFetcher(tmp_path)
        return
    with serve(store) as server, HttpFetcher(server.url + "/") as fetcher:
        yield fetcher


@pytest.mark.parametrize("path", FILES)
def test_whole_files_come(fetcher: Fetcher, path: str) -> None:
    for _ in range(2):  # the second time over the same connection
        assert read_file(fetcher, path, len(FILES[path])) == FILES[path]


def test_an_absent_file(fetcher: Fetcher) -> None:
    with pytest.raises(NotFoundError) as caught:
        read_file(fetcher, "a/none", 100)
    assert caught.value.url_path == "a/none"
    assert read_file(fetcher, "empty", 0) == b""


def test_one_byte_too_many(fetcher: Fetcher) -> None:
    with pytest.raises(RejectedError):
        read_file(fetcher, "a/b.bin", len(FILES["a/b.bin"]) - 1)


@pytest.mark.parametrize("path", ["", "/a", "a//b", "../a", "a/../b", "a?b", "a#b", "http://x/y", "a b", "a\nb", "a/"])
def test_only_plain_relative_paths(fetcher: Fetcher, path: str) -> None:
    with pytest.raises(RejectedError):
        read_file(fetcher, path, 100)


def test_a_fetcher_that_gives_too_much_is_stopped() -> None:
    class Endless:
        def fetch(self, path: str, max_length: int) -> Iterator[bytes]:
            while True:
                yield bytes(1000)

    with pytest.raises(RejectedError):
        read_file(Endless(), "x", 10_000)


# ---------------------------------------------------------------------------------------- hostile cards


@pytest.fixture
def card(tmp_path: Path) -> Path:
    """A folder with files, beside one that is nobody's business."""
    FolderStore(tmp_path / "card").update(FILES)
    (tmp_path / "device").mkdir()
    (tmp_path / "device" / "secret").write_bytes(b"s")
    return tmp_path / "card"


@pytest.mark.parametrize("path", ["link", "a/link", "folder/secret", "folder"])
def test_a_link_on_a_card_is_not_followed(card: Path, path: str) -> None:
    (card / "folder").symlink_to(card.parent / "device")
    for name in ("link", "a/link"):
        (card / name).symlink_to(card.parent / "device" / "secret")
    with pytest.raises(RejectedError, match="links"):
        read_file(FolderFetcher(card), path, 100)


def test_a_link_that_stays_on_the_card_is_not_followed_either(card: Path) -> None:
    (card / "near").symlink_to("a")
    with pytest.raises(RejectedError, match="links"):
        read_file(FolderFetcher(card), "near/b.bin", 1 << 20)


def test_a_pipe_on_a_card_is_neither_read_nor_waited_for(card: Path) -> None:
    os.mkfifo(card / "pipe")
    with pytest.raises(RejectedError, match="plain file"):
        read_file(FolderFetcher(card), "pipe", 100)


@pytest.mark.parametrize("path", ["a", "a/b.bin/c", "none/b.bin"])
def test_what_a_card_does_not_have_is_not_found(card: Path, path: str) -> None:
    with pytest.raises(NotFoundError):
        read_file(FolderFetcher(card), path, 1 << 20)


def test_a_card_that_was_pulled_out_is_a_fetch_error(card: Path) -> None:
    fetcher = FolderFetcher(card)
    card.rename(card.parent / "gone")
    with pytest.raises(FetchError, match="cannot be read"):
        read_file(fetcher, "a/b.bin", 1 << 20)
    with pytest.raises(FetchError, match="none"):
        FolderFetcher(card)


def test_no_handle_is_left_open_on_a_card(card: Path) -> None:
    (card / "link").symlink_to("a")
    before = len(list(Path("/proc/self/fd").iterdir()))
    fetcher = FolderFetcher(card)
    assert next(iter(fetcher.fetch("a/b.bin", 1 << 20)))
    for path in ("a/b.bin", "none/x", "link/b.bin", "a"):
        with suppress(FetchError):
            read_file(fetcher, path, 1 << 20)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# -------------------------------------------------------------------------------------- hostile servers


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_refused(code: int) -> None:
    head = f"HTTP/1.1 {code} Moved\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n"
    with pytest.raises(RejectedError, match="redirect"):
        fetched(sends(head.encode()))


@pytest.mark.parametrize("code", [201, 204, 206, 401, 403, 429, 500, 503])
def test_other_answers_are_status_errors(code: int) -> None:
    with pytest.raises(StatusError) as caught:
        fetched(sends(f"HTTP/1.1 {code} X\r\nRetry-After: 99999\r\nContent-Length: 4\r\n\r\nbody".encode()))
    assert caught.value.code == code
    assert "body" not in str(caught.value)


def test_a_length_over_the_limit_is_refused_before_the_body() -> None:
    with pytest.raises(RejectedError, match="1000 bytes"):
        fetched(sends(OK + b"Content-Length: 99999999999\r\n\r\n"))


@pytest.mark.parametrize(
    "head",
    [
        OK,
        OK + b"Content-Length: 65536\r\n",
        OK + b"Transfer-Encoding: chunked\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /other\r\n",
        b"HTTP/1.1 404 Not Found\r\n",
        b"HTTP/1.1 500 X\r\nTransfer-Encoding: chunked\r\n",
    ],
)
def test_an_endless_body_is_cut(head: bytes) -> None:
    sent = 0

    def answer(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(head + b"\r\n")
        for _ in range(4000):
            connection.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")
            sent += 65536

    if b"Content-Length" in head:
        assert len(fetched(answer, 100_000)) == 65536
    else:
        with pytest.raises(FetchError):
            fetched(answer, 100_000)
    assert sent < 40 << 20  # what the buffers of the connection took


@pytest.mark.parametrize(
    "fields",
    [
        b"",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        b"Transfer-Encoding: identity\r\nContent-Length: 3\r\n",
        b"Content-Length: -3\r\n",
        b"Content-Length: three\r\n",
        b"Content-Length:\r\n",
    ],
)
def test_an_answer_whose_length_is_not_said_is_refused(fields: bytes) -> None:
    with pytest.raises(RejectedError, match="length"):
        fetched(sends(OK + fields + b"\r\nabc"))


@pytest.mark.parametrize("begin", [OK, b"HTTP/1.1 302 Found\r\nLocation: /other\r\n"])
def test_a_chunk_size_that_never_ends_is_not_waited_for(begin: bytes) -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(begin + b"Transfer-Encoding: chunked\r\n\r\n0")
        connection.recv(1)  # until the client goes

    with pytest.raises(RejectedError):
        fetched(answer, read_timeout=5, total_timeout=5)


def test_an_encoded_body_is_refused() -> None:
    with pytest.raises(RejectedError, match="encoding"):
        fetched(sends(OK + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage" * 99,
        OK + b"Content-Length: 100\r\n\r\nonly this",
        OK + b"Content-Length: 9\r\nContent-Length: 4\r\n\r\nonly this",
        OK + b"Transfer-Encoding: chunked\r\n\r\n10\r\nonly this",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_broken_answers_are_fetch_errors(data: bytes) -> None:
    with pytest.raises(FetchError) as caught:
        fetched(sends(data))
    assert "only this" not in str(caught.value)


def test_endless_headers_are_a_fetch_error() -> None:
    with pytest.raises(FetchError):
        fetched(lambda c: c.sendall(OK + b"".join(b"X-%d: %s\r\n" % (i, b"a" * 1000) for i in range(300))))


def test_a_dripping_body_ends_at_the_total_deadline() -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(OK + b"Content-Length: 100000\r\n\r\n")
        for _ in range(100_000):
            connection.sendall(b" ")

    with pytest.raises(FetchTimeoutError, match="not done within 5 s"):
        fetched(drip, 100_000, total_timeout=5, monotonic=Ticking())  # type: ignore[arg-type]


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\nX-Drip: a", OK + b"Content-Length: 0\r\n"])
def test_a_head_that_never_ends_is_cut_at_the_total_deadline(begin: bytes) -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(begin)
        connection.recv(1)  # until the client goes

    with pytest.raises(FetchTimeoutError):
        fetched(answer, read_timeout=30, total_timeout=0.1)


def test_silence_is_a_timeout() -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(OK + b"Content-Length: 10\r\n\r\nabc")
        connection.recv(1)

    with pytest.raises(FetchTimeoutError):
        fetched(answer, read_timeout=0.1, total_timeout=30)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with HttpFetcher(f"http://127.0.0.1:{port}") as fetcher, pytest.raises(FetchError, match="no connection"):
        read_file(fetcher, "x", 10)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host", "file:///etc/passwd", "host", "http://", "http://host?x", "https://h#f", "",
        "http://[::1", "http://host:99999", "http://host:x", "http://host\u2100/",
    ],
)  # fmt: skip
def test_only_http_addresses(url: str) -> None:
    with pytest.raises(FetchError):
        HttpFetcher(url)


@pytest.mark.parametrize(
    "url", ["http://.x y/", "http://[::1]]:1", "http://a..b/", "http://" + "a" * 300, "http://*/", "http://%zz/"]
)
def test_an_address_that_leads_nowhere(url: str) -> None:
    with pytest.raises(FetchError), HttpFetcher(url) as fetcher:
        read_file(fetcher, "x", 10)


def test_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with serve(FILES) as server, HttpFetcher(server.url) as fetcher:
        assert read_file(fetcher, "empty", 10) == b""


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (b"Date: Mon, 01 Mar 2027 02:00:00 GMT\r\n", [datetime(2027, 3, 1, 2, tzinfo=UTC)]),
        (b"Date: yesterday\r\n", []),
        (b"Age: 30\r\nDate: Mon, 01 Mar 2027 02:00:00 GMT\r\n", []),  # a cache's copy: the date is an old one
        (b"", []),
    ],
)
def test_the_servers_date_is_told_also_where_the_file_is_absent(header: bytes, told: list[datetime]) -> None:
    heard: list[datetime] = []
    for status in (b"200 OK", b"404 Not Found"):
        head = b"HTTP/1.1 " + status + b"\r\nContent-Length: 1\r\n" + header + b"\r\nx"
        with raw_server(sends(head)) as url, HttpFetcher(url, on_date=heard.append) as fetcher, suppress(NotFoundError):
            read_file(fetcher, "x", 10)
    assert heard == told * 2


# ----------------------------------------------------------------------------------------- the sandbox server


def test_server_answers_head_and_keeps_the_connection() -> None:
    with serve(FILES) as server, requests.Session() as session:
        session.trust_env = False
        head = session.head(f"{server.url}/a/b.bin", timeout=5)
        assert head.headers["Content-Length"] == str(len(FILES["a/b.bin"]))
        assert head.content == b""
        assert session.get(f"{server.url}/none", timeout=5).status_code == 404
        assert session.post(f"{server.url}/a/b.bin", data=b"x", timeout=5).status_code == 501


def test_folder_store_stays_in_its_folder(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "public")
    (tmp_path / "secret").write_bytes(b"s")
    store["a/b"] = b"1"
    store["a/b"] = b"2"
    assert (dict(store), len(store), store.get("a")) == ({"a/b": b"2"}, 1, None)
    for key in ("../secret", "/etc/passwd", "a/../../secret", ""):
        assert key not in store
        with pytest.raises(KeyError):
            store[key]
        with pytest.raises(KeyError):
            store[key] = b"x"
    del store["a/b"]
    with pytest.raises(KeyError):
        del store["a/b"]
    assert list(store) == []


def test_a_whole_sync_over_http(tmp_path: Path) -> None:
    night = Night(store=FolderStore(tmp_path / "public"))
    night.publish()
    with serve(night.store) as server, HttpFetcher(server.url) as fetcher:
        report = night.device(tmp_path / "cache").client(fetcher=fetcher).refresh()
    assert report.vehicles == len(night.vehicles)
    store = StatusStore(tmp_path / "cache", EPOCH_KEY)
    assert store.vehicle(night.vehicles[0][0].plate) == night.vehicles[0][0]
    store.close()
