"""The demo's page over loopback: who may ask, how much, and what is told. No handheld stands behind it here."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import pytest

from scripts.demonstration.feed import MAX_PASSING, Feed
from scripts.demonstration.server import (
    MAX_ORDER,
    MAX_PICTURE,
    MAX_STREAMS,
    OrderError,
    Page,
    content_policy,
    serve_page,
)

PNG, JPEG = b"\x89PNG\r\n\x1a\n" + bytes(40), b"\xff\xd8\xff" + bytes(40)
PAGE = files("scripts.demonstration").joinpath("page.html").read_bytes()


@dataclass
class Recorder:
    """A stage that keeps what it was asked."""

    orders: list[tuple[str, object]] = field(default_factory=list)
    pictures: list[bytes] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)

    def order(self, name: str, value: dict[str, object]) -> None:
        if name == "refused":
            raise OrderError("not today")
        self.orders.append((name, value))

    def take_picture(self, data: bytes) -> None:
        self.pictures.append(data)

    def picture(self, name: str) -> bytes | None:
        return {"a-card": JPEG}.get(name)

    def left(self) -> None:
        self.gone.set()


@dataclass
class World:
    stage: Recorder
    feed: Feed
    page: Page

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.page.port}"

    def ask(self, method: str, path: str, body: bytes | None = None, token: str | None = None, **headers: str):
        """Status, headers and body; headers with an underscore for each hyphen."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.page.port, timeout=10)) as connection:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, f"/{token or self.page.token}/{path}", body, named)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    def order(self, path: str, value: object, **headers: str) -> int:
        headers = {"Origin": self.origin, "Content_Type": "application/json"} | headers
        return self.ask("POST", path, json.dumps(value).encode(), **headers)[0]

    def listen(self) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.page.port, timeout=10)
        connection.request("GET", f"/{self.page.token}/events")
        return connection.getresponse()


@pytest.fixture
def world() -> Iterator[World]:
    stage, feed = Recorder(), Feed()
    with serve_page(stage, feed) as page:
        yield World(stage, feed, page)


def news(stream: http.client.HTTPResponse) -> tuple[str, object]:
    """The next event."""
    topic = stream.readline().decode().strip().removeprefix("event: ")
    data = json.loads(stream.readline().decode().removeprefix("data: "))
    assert stream.readline() == b"\n"
    return topic, data


# ------------------------------------------------------------------------------------------------ who may ask


def test_the_page_is_served_on_the_loopback_address_alone(world):
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{24}/", world.page.url)
    port = f":{world.page.port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    assert [line[1] for line in lines if line[1].endswith(port) and line[3] == "0A"] == [f"0100007F{port}"]


@pytest.mark.parametrize("path", ["", "events", "picture/a-card"])
def test_without_the_token_there_is_nothing(world, path):
    wrong = world.page.token[:-1] + ("A" if world.page.token[-1] != "A" else "B")
    for token in (wrong, "x", world.page.token + "x", "%00"):
        assert world.ask("GET", path, token=token)[0] == 404
    assert world.ask("POST", "key", b"{}", token=wrong, Origin=world.origin, Content_Type="application/json")[0] == 404
    assert world.stage.orders == []


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "evil.example:{port}", ""])
def test_a_name_that_was_bound_to_this_machine_is_not_this_page(world, host):
    status, _, body = world.ask("GET", "", Host=host.format(port=world.page.port))
    assert (status, b"<html" in body) == (421, False)


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1:1", None]
)
def test_an_order_from_another_origin_or_from_none_is_refused(world, origin):
    headers = {"Content_Type": "application/json"}
    if origin is not None:
        headers["Origin"] = origin.format(port=world.page.port)
    assert world.ask("POST", "key", b"{}", **headers)[0] == 403
    assert world.stage.orders == []


def test_a_picture_of_the_page_embedded_by_another_site_is_refused(world):
    assert world.ask("GET", "picture/a-card", Sec_Fetch_Site="cross-site")[0] == 403
    assert world.ask("GET", "picture/a-card", Sec_Fetch_Site="same-origin")[0] == 200


def test_a_form_of_another_page_cannot_give_an_order(world):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert world.order("key", {}, Content_Type=kind) == 415
    assert world.stage.orders == []


def test_an_order_of_the_page_is_carried_out(world):
    assert world.order("key", {"key": "ok", "closed": True}) == 204
    assert world.order("key", {}, Origin=f"http://localhost:{world.page.port}") == 204
    assert world.stage.orders == [("key", {"key": "ok", "closed": True}), ("key", {})]


# --------------------------------------------------------------------------------------------------- how much


def test_an_order_that_is_too_long_or_none_is_refused(world):
    assert world.order("key", {"x": "y" * MAX_ORDER}) == 413
    assert world.order("key", [1]) == 400
    assert world.order("refused", {}) == 400
    for body in (b"{", b"\xff", b"[" * 1000, b"1"):
        assert world.ask("POST", "key", body, Origin=world.origin, Content_Type="application/json")[0] == 400
    assert world.stage.orders == []


def test_a_body_announced_too_long_is_refused_before_it_is_sent(world):
    head = (
        f"POST /{world.page.token}/frame HTTP/1.1\r\nHost: 127.0.0.1:{world.page.port}\r\nOrigin: {world.origin}\r\n"
        f"Content-Type: image/jpeg\r\nContent-Length: {{}}\r\n\r\n"
    )
    for length in (str(MAX_PICTURE + 1), "9" * 400):
        with socket.create_connection(("127.0.0.1", world.page.port), timeout=10) as connection:
            connection.sendall(head.format(length).encode())
            assert connection.recv(64).startswith(b"HTTP/1.1 413 ")
    for length in ("-1", "1e3", "٣"):
        with socket.create_connection(("127.0.0.1", world.page.port), timeout=10) as connection:
            connection.sendall(head.format(length).encode())
            assert connection.recv(64).startswith(b"HTTP/1.1 400 ")
    assert world.stage.pictures == []


def test_a_body_in_pieces_without_a_length_is_refused(world):
    headers = {"Origin": world.origin, "Content_Type": "image/jpeg", "Transfer_Encoding": "chunked"}
    assert world.ask("POST", "frame", b"1\r\nx\r\n0\r\n\r\n", **headers)[0] == 411


def test_only_pictures_that_begin_as_their_type_does_are_taken(world):
    def post(kind: str, data: bytes) -> int:
        return world.ask("POST", "frame", data, Origin=world.origin, Content_Type=kind)[0]

    assert (post("image/png", PNG), post("image/jpeg", JPEG)) == (204, 204)
    refused = (("image/png", JPEG), ("image/jpeg", b""), ("image/svg+xml", b"<svg/>"), ("text/html", JPEG))
    assert {post(*one) for one in refused} == {415}
    assert world.stage.pictures == [PNG, JPEG]


@pytest.mark.parametrize(
    "path",
    [
        "picture/../../etc/passwd",
        "picture/%2e%2e%2fa",
        "picture/a-card/..",
        "picture//a-card",
        "picture/",
        "..",
        "page.html",
    ],
)
def test_no_path_leads_out_of_the_page(world, path):
    assert world.ask("GET", path)[0] == 404


def test_a_picture_that_there_is_comes_with_its_type(world):
    status, headers, body = world.ask("GET", "picture/a-card")
    assert (status, headers["Content-Type"], body) == (200, "image/jpeg", JPEG)
    assert headers["X-Content-Type-Options"] == "nosniff"


# ------------------------------------------------------------------------------------------------- what is told


def test_the_page_loads_nothing_from_elsewhere_and_runs_its_own_script_alone(world):
    _, headers, body = world.ask("GET", "")
    policy = headers["Content-Security-Policy"]
    assert policy == content_policy(body)
    assert "default-src 'none'" in policy
    assert not re.search(r"https?:|unsafe|\*", policy)
    assert not re.search(rb"(?:src|href|url\()\s*[=(]?\s*[\"']?(?:https?:)?//", PAGE)
    assert headers["Referrer-Policy"] == "no-referrer"  # or the token would travel


def test_who_comes_later_is_told_the_newest_of_what_lasts(world):
    for number in range(3):
        world.feed.tell("panel", {"number": number})
    world.feed.pass_by("beat", {"hz": 1})
    with closing(world.listen()) as stream:
        assert stream.getheader("Content-Type") == "text/event-stream"
        assert news(stream) == ("panel", {"number": 2})
        world.feed.pass_by("beat", {"hz": 2})
        assert news(stream) == ("beat", {"hz": 2})
        world.feed.tell("panel", {"number": 2})  # the same once more is no news
        world.feed.tell("panel", {"number": 3, "text": "有效\n\n"})
        assert news(stream) == ("panel", {"number": 3, "text": "有效\n\n"})


def test_a_page_that_goes_away_leaves_no_finger_on_a_key(world):
    stream = world.listen()
    assert not world.stage.gone.is_set()
    stream.close()
    for number in range(100):  # the server notices when it has something to say
        world.feed.tell("panel", number)
        if world.stage.gone.wait(0.05):
            break
    assert world.stage.gone.is_set()


def test_a_stranger_cannot_use_up_all_streams_for_ever(world):
    streams = [world.listen() for _ in range(MAX_STREAMS)]
    assert [stream.status for stream in streams] == [200] * MAX_STREAMS
    assert world.ask("GET", "events")[0] == 503
    assert world.ask("GET", "")[0] == 200
    for stream in streams:
        stream.close()


def test_a_listener_that_does_not_keep_up_costs_no_memory():
    feed = Feed()
    number, _ = feed.after(0, 0)
    for at in range(10 * MAX_PASSING):
        feed.pass_by("beat", at)
        feed.tell("panel", at)
    _, told = feed.after(number, 0)
    assert len(told) == MAX_PASSING + 1
    assert told[-1] == ("panel", str(10 * MAX_PASSING - 1))
