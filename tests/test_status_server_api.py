"""docs/openapi.json says what the status server does: every answer in it is drawn from the running server."""

from __future__ import annotations

import json
import re
import secrets
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta

import pytest

from scripts.sandbox.device_ca import make_csr
from scripts.sandbox.json_schema import SchemaError, check
from scripts.sandbox.status_api import openapi
from scripts.sandbox.status_http import STATUS, HttpLimits
from scripts.sandbox.status_server import ROUTES, Rate
from scripts.sandbox.status_store import DeviceState
from tests.conftest import ROOT
from tests.status_world import Handheld, Reply, World, make_world, raw_connection
from tests.test_status_server import HEARTBEAT, report_of
from verifier.clock import system_clock
from verifier.codec.device import AuditHead, AuditUpload, Refusal, encode_upload
from verifier.codec.online import StatusRequest, encode_report, encode_request
from verifier.types import Plate

FILE = json.loads((ROOT / "docs" / "openapi.json").read_text(encoding="utf-8"))
METHODS = ("get", "post", "put", "delete", "patch", "head", "options")
Body = tuple[bytes | None, str | None]


class Rig:
    """One authority behind three servers: one as it should be, one that is asked too often, one without its books."""

    def __init__(self, world: World, starved: World, away: World) -> None:
        self.world, self.starved, self.away = world, starved, away
        self.handheld = world.handheld("h-0")
        self.number = 0

    def fresh(self, state: DeviceState | None = None, *, wipe: bool = False, ended: bool = False) -> Handheld:
        self.number += 1
        name = f"f-{self.number}"
        made = self.world.handheld(name)
        if ended:
            self.world.handheld(name)
        if state is not None:
            self.world.store.set_state(name, state, wipe=wipe)
        return made

    def at(self, other: World) -> Handheld:
        return Handheld(other, self.handheld.private, self.handheld.pem)

    def body(self, path: str) -> Body:
        """A good body for this path."""
        world = self.world
        if path == "/v1/status":
            return world.request(world.plate_id(Plate("京A00000", "02"))), "application/cbor"
        if path == "/v1/reports":
            return encode_report(report_of(world)), "application/cbor"
        if path == "/v1/audit":
            return encode_upload(AuditUpload(AuditHead(), (secrets.token_bytes(8).hex().encode(),))), "application/cbor"
        if path == "/v1/heartbeat":
            return json.dumps(HEARTBEAT | {"audit": {"seq": 0, "head": "0" * 64}}).encode(), "application/json"
        if path == "/v1/enrol":
            return json.dumps({"csr": make_csr(self.handheld.private)}).encode(), "application/json"
        return None, None

    def ask(self, path: str, who: Handheld | None = None, body: Body | None = None, method: str | None = None) -> Reply:
        data, content_type = body or self.body(path)
        return (who or self.handheld).ask(method or ROUTES[path].method, path, data, content_type)

    def timed_out(self, path: str) -> Reply:
        with raw_connection(self.world) as connection:
            kind = ROUTES[path].content_type or ""
            connection.sendall(f"POST {path} HTTP/1.1\r\nContent-Type: {kind}\r\nContent-Length: 9\r\n\r\n{{".encode())
            return parsed(connection)

    def without_length(self, path: str) -> Reply:
        with raw_connection(self.world) as connection:
            connection.sendall(f"POST {path} HTTP/1.1\r\n\r\n".encode())
            return parsed(connection)

    def malformed(self, path: str) -> Reply:
        body, kind = self.body(path)
        if body is not None:
            return self.ask(path, body=(body + b"!", kind))
        with raw_connection(self.world) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nContent-Length: one\r\n\r\n".encode())
            return parsed(connection)

    def other_epoch(self, path: str) -> Reply:
        if path == "/v1/status":
            asked = (self.world.plate_id(Plate("京A00000", "02")),)
            body = encode_request(StatusRequest(nonce=bytes(16), key_check=bytes(16), ids=asked))
        else:
            body = encode_report(report_of(self.world, key_check=bytes(16)))
        return self.ask(path, body=(body, "application/cbor"))

    def another_report(self, path: str) -> Reply:
        report = report_of(self.world)
        self.ask(path, body=(encode_report(report), "application/cbor"))
        other = report_of(self.world, report_id=report.report_id, check_id=b"\x01" * 16)
        return self.ask(path, body=(encode_report(other), "application/cbor"))

    def audit(self, path: str, seq: int) -> Reply:
        device = self.fresh()
        first, other = (AuditUpload(AuditHead(), (line,)) for line in (b"one", b"two"))
        self.ask(path, device, (encode_upload(first), "application/cbor"))
        later = other if seq == 1 else AuditUpload(AuditHead(seq, bytes(32)), (b"later",))
        return self.ask(path, device, (encode_upload(later), "application/cbor"))

    def wrong_code(self, path: str) -> Reply:
        body = json.loads(self.body(path)[0] or b"") | {"code": "A" * 20}
        return self.ask(path, body=(json.dumps(body).encode(), "application/json"))


def parsed(connection: ssl.SSLSocket) -> Reply:
    data = b""
    while piece := connection.recv(65536):
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *fields = head.decode().split("\r\n")
    headers = dict(field.split(": ") for field in fields)
    return Reply(int(first.split()[1]), headers["Content-Type"], headers, body)


DRAWN: dict[Refusal, Callable[[Rig, str], Reply]] = {
    Refusal.REQUEST_MALFORMED: Rig.malformed,
    Refusal.CERTIFICATE_MISSING: lambda rig, path: rig.ask(path, Handheld(rig.world)),
    Refusal.CERTIFICATE_UNKNOWN: lambda rig, path: rig.ask(path, rig.fresh(ended=True)),
    Refusal.CODE_REFUSED: Rig.wrong_code,
    Refusal.DEVICE_LOST: lambda rig, path: rig.ask(path, rig.fresh(DeviceState.LOST, wipe=True)),
    Refusal.DEVICE_HELD: lambda rig, path: rig.ask(path, rig.fresh(DeviceState.HELD)),
    Refusal.METHOD_NOT_ALLOWED: lambda rig, path: rig.ask(path, method="DELETE"),
    Refusal.REQUEST_TIMEOUT: Rig.timed_out,
    Refusal.EPOCH_KEY_DIFFERS: Rig.other_epoch,
    Refusal.REPORT_DIFFERS: Rig.another_report,
    Refusal.AUDIT_GAP: lambda rig, path: rig.audit(path, 7),
    Refusal.AUDIT_BROKEN: lambda rig, path: rig.audit(path, 1),
    Refusal.LENGTH_REQUIRED: Rig.without_length,
    Refusal.BODY_TOO_LARGE: lambda rig, path: rig.ask(path, body=(bytes(2 << 20), "application/cbor")),
    Refusal.CONTENT_TYPE: lambda rig, path: rig.ask(path, body=(b"", "text/plain")),
    Refusal.TOO_MANY_REQUESTS: lambda rig, path: rig.ask(path, rig.at(rig.starved)),
    Refusal.UNAVAILABLE: lambda rig, path: rig.ask(path, rig.at(rig.away)),
}
"""How each refusal is drawn from a path that may give it."""


@pytest.fixture(scope="module")
def rig(tmp_path_factory) -> Iterator[Rig]:
    with ExitStack() as stack:
        worlds = []
        for rate in (Rate(1e6, 10**6), Rate(0, 0), Rate(1e6, 10**6)):
            made = make_world(tmp_path_factory.mktemp("rig"), device_rate=rate, stranger_rate=rate)
            made.limits = HttpLimits(request_s=1.0)
            worlds.append(made)
        for other in worlds[1:]:
            other.ca = worlds[0].ca
        for made in worlds:
            stack.enter_context(made.serving())
            stack.callback(made.store.close)
        with worlds[2].store._database.transaction() as run:
            run("DROP TABLE codes")
            run("ALTER TABLE certificates RENAME TO gone")
        yield Rig(*worlds)


def responses() -> list[tuple[str, str, str]]:
    """Path, status and reason of everything that the file promises; 200 has no reason."""
    out = []
    for path, operations in FILE["paths"].items():
        ((_, operation),) = operations.items()
        for status, response in operation["responses"].items():
            names = [""] if status == "200" else response["description"].split(", ")
            out += [(path, status, name) for name in names]
    return out


@pytest.mark.parametrize(("path", "status", "reason"), responses())
def test_every_answer_in_the_file_is_given_by_the_server(rig, path, status, reason):
    reply = rig.ask(path, rig.fresh()) if status == "200" else DRAWN[Refusal(reason)](rig, path)
    assert str(reply.status) == status, reply.body
    (operation,) = FILE["paths"][path].values()
    ((content_type, content),) = operation["responses"][status]["content"].items()
    assert reply.content_type == content_type
    if "schema" in content:
        check(reply.json, resolved(content["schema"]))
    if reason:
        assert (reply.reason, STATUS[Refusal(reason)]) == (reason, int(status))
        assert ("order" in reply.json) == (reason == "DEVICE_LOST")
        assert ("audit" in reply.json) == reason.startswith("AUDIT")


def resolved(schema: dict) -> dict:
    if "$ref" in schema:
        *_, name = schema["$ref"].split("/")
        return FILE["components"]["schemas"][name]
    return schema


def test_the_server_has_no_path_and_no_method_that_the_file_lacks(rig):
    assert set(FILE["paths"]) == set(ROUTES)
    for path, operations in FILE["paths"].items():
        (method,) = operations
        for other in METHODS:
            if other != method:
                reply = rig.ask(path, body=(b"", None), method=other.upper())
                assert (reply.status, reply.headers["Allow"]) == (405, method.upper())
    for path in ("/", "/v1", "/v1/", "/v2/status", "/v1/status/", "/V1/status", "/v1/devices", "/openapi.json", "*"):
        assert rig.ask("/v1/epoch-key", method="GET").status == 200
        assert rig.handheld.ask("GET", path).reason == "PATH_UNKNOWN"


def test_each_path_takes_the_body_that_the_file_names(rig):
    for path, operations in FILE["paths"].items():
        (operation,) = operations.values()
        content = operation.get("requestBody", {}).get("content", {})
        body, kind = rig.body(path)
        assert list(content) == ([] if kind is None else [kind])
        if "schema" in content.get("application/json", {}):
            check(json.loads(body or b""), content["application/json"]["schema"])


def test_the_file_is_the_one_that_the_code_makes():
    assert openapi() == FILE, "run: python -m scripts.sandbox.status_api > docs/openapi.json"


def test_each_refusal_has_a_status_and_every_one_is_drawn():
    assert STATUS.keys() == set(Refusal)
    assert {Refusal(reason) for _, _, reason in responses() if reason} == set(DRAWN)
    assert set(Refusal) - set(DRAWN) == {Refusal.PATH_UNKNOWN}


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 2}, [1, 2], [0, 3, True, 1.0, "1", None]),
        ({"type": ["integer", "null"]}, [1, None], [True, "x"]),
        ({"type": "number"}, [1, 1.5], [True, "1"]),
        ({"type": "boolean"}, [True], [1, 0]),
        ({"type": "string", "minLength": 1, "maxLength": 2}, ["a", "ab"], ["", "abc", 1]),
        ({"type": "string", "pattern": "^[a-z]+$"}, ["a"], ["a\n", "A", "aA", ""]),
        ({"enum": ["a", 1]}, ["a", 1], ["b", None]),
        ({"const": "a"}, ["a"], ["b"]),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2}, [[1], [1, 2]], [[], ["a"], {}]),
        (
            {"type": "object", "properties": {"a": {}}, "required": ["a"], "additionalProperties": False},
            [{"a": 1}], [{}, {"a": 1, "b": 2}, []],
        ),
        (
            {"propertyNames": {"pattern": "^a"}, "additionalProperties": {"type": "integer"}, "maxProperties": 1},
            [{"a": 1}, {}], [{"b": 1}, {"a": "x"}, {"a": 1, "ab": 1}],
        ),
    ],
    ids=str,
)  # fmt: skip
def test_a_value_fits_a_schema_or_is_refused_without_being_repeated(schema, good, bad):
    for value in good:
        check(value, schema)
    for value in bad:
        with pytest.raises(SchemaError) as caught:
            check(value, schema)
        assert "京" not in str(caught.value)
    with pytest.raises(LookupError):
        check(1, {"oneOf": []})


def test_a_code_for_a_day_is_one_and_an_older_one_is_none(rig):
    old = rig.world.store.enrolment_code("h-old", system_clock() - timedelta(hours=25))
    assert Handheld(rig.world).enrol(old).reason == "CODE_REFUSED"


def test_the_page_explains_every_refusal_with_its_status():
    page = (ROOT / "docs" / "status-server.md").read_text(encoding="utf-8")
    told: dict[str, str] = {}
    for line in re.findall(r"^\| (`[A-Z_`, ]+) \| ([0-9, ]+) \|", page, re.MULTILINE):
        names, statuses = re.findall("[A-Z_]+", line[0]), line[1].split(", ")
        told |= zip(names, statuses if len(statuses) > 1 else statuses * len(names), strict=True)
    assert told == {reason.value: str(status) for reason, status in STATUS.items()}
