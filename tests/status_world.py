"""What the tests of the status server share: an authority in a folder, its server over real TLS, and handhelds."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from scripts.sandbox.authority import AuthorityFolder
from scripts.sandbox.database import Database, open_database, sqlite_database
from scripts.sandbox.device_ca import DeviceCa, make_csr
from scripts.sandbox.follow import LiveAuthority
from scripts.sandbox.status_http import HttpLimits, serve_https
from scripts.sandbox.status_server import ROUTES, Rate, StatusService
from scripts.sandbox.status_store import StatusStore
from verifier.cache.keys import KeyHasher, plate_bytes, serial_bytes, tag_bytes
from verifier.clock import Clock, system_clock
from verifier.codec.online import PERSONS, AskedId, IdKind, StatusRequest, decode_answer, encode_request
from verifier.trust import load_trust_list
from verifier.types import Plate, Serial

SCALE = 200
NO_LIMIT = Rate(1e6, 1_000_000)


@dataclass(frozen=True)
class Reply:
    """An answer as it came."""

    status: int
    content_type: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, object]:
        return json.loads(self.body)

    @property
    def reason(self) -> str:
        return str(self.json["reason"])


@dataclass
class Handheld:
    """A device with a key of its own, and a certificate once it is enrolled."""

    world: World
    private: EllipticCurvePrivateKey = field(default_factory=lambda: generate_private_key(SECP256R1()))
    pem: str | None = None

    def pair(self) -> bytes:
        """Key and certificate, as PEM."""
        assert self.pem is not None
        key = self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return key + self.pem.encode()

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.world.ca.root_pem)
        if self.pem is not None:
            pair = self.world.folder / f"{secrets.token_hex(4)}.pem"
            pair.write_bytes(self.pair())
            context.load_cert_chain(pair)
            pair.unlink()
        return context

    def connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("127.0.0.1", self.world.port, timeout=10, context=self.context())

    def ask(
        self, method: str, path: str, body: bytes | None = None, content_type: str | None = None, **headers: str
    ) -> Reply:
        connection = self.connect()
        if content_type is not None:
            headers["Content-Type"] = content_type
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            data = response.read()
            return Reply(response.status, response.headers.get_content_type(), dict(response.headers), data)
        finally:
            connection.close()

    def post_json(self, path: str, value: object) -> Reply:
        return self.ask("POST", path, json.dumps(value).encode(), "application/json")

    def post_cbor(self, path: str, body: bytes) -> Reply:
        return self.ask("POST", path, body, "application/cbor")

    def enrol(self, code: str | None) -> Reply:
        value = {"csr": make_csr(self.private)} | ({} if code is None else {"code": code})
        reply = self.post_json("/v1/enrol", value)
        if reply.status == 200:
            self.pem = str(reply.json["certificate"])
        return reply


@dataclass
class World:
    """An authority, its books and its server, which listens on `port` while `serving`."""

    folder: Path
    home: AuthorityFolder
    live: LiveAuthority
    store: StatusStore
    ca: DeviceCa
    service: StatusService
    clock: Clock
    limits: HttpLimits = field(default_factory=HttpLimits)
    port: int = 0

    @contextmanager
    def serving(self) -> Iterator[World]:
        with serve_https(self.service.respond, ROUTES, self.ca.server_context(), limits=self.limits) as running:
            self.port = running.port
            yield self

    def handheld(self, name: str) -> Handheld:
        made = Handheld(self)
        code = self.store.enrolment_code(name, self.clock())
        reply = made.enrol(code)
        assert reply.status == 200, reply.body
        return made

    def plate_id(self, plate: Plate) -> AskedId:
        return self._id(IdKind.PLATE, plate_bytes(plate))

    def tag_id(self, tid: str) -> AskedId:
        return self._id(IdKind.TAG, tag_bytes(tid))

    def serial_id(self, serial: Serial) -> AskedId:
        return self._id(IdKind.CREDENTIAL, serial_bytes(serial))

    def vin_id(self, vin: str) -> AskedId:
        return self._id(IdKind.VIN, vin.encode())

    def _id(self, kind: IdKind, canonical: bytes) -> AskedId:
        return AskedId(kind, KeyHasher(self.live.authority.epoch_key).digest(PERSONS[kind], canonical))

    def request(self, *ids: AskedId) -> bytes:
        check = KeyHasher(self.live.authority.epoch_key).check_value
        return encode_request(StatusRequest(nonce=secrets.token_bytes(16), key_check=check, ids=ids))

    def answer(self, handheld: Handheld, *ids: AskedId):
        """The verified answer to a look-up, as a device with the published trust list reads it."""
        request = self.request(*ids)
        reply = handheld.post_cbor("/v1/status", request)
        assert (reply.status, reply.content_type) == (200, "application/cose"), reply.body
        trust = load_trust_list(self.live.authority.trust_entries())
        answer, _ = decode_answer(reply.body, request, trust)
        return answer


def make_world(folder: Path, database: Database | None = None, *, clock: Clock = system_clock, **options) -> World:
    """A world in this folder, made there at the first time; `options` are those of StatusService."""
    home = AuthorityFolder(folder / "sandbox")
    make = None if home.exists() else lambda: home.create(clock=clock, scale=SCALE, seed=7)
    live = LiveAuthority(home, clock=clock, make=make)
    database = database or sqlite_database(folder / "status.db")
    store = StatusStore(database)
    weakref.finalize(store, database.close)  # a world has no end of its own
    ca = DeviceCa.open(home.private, home.folder, clock)
    options = {"device_rate": NO_LIMIT, "stranger_rate": NO_LIMIT} | options
    service = StatusService(live, store, ca, clock=clock, **options)
    return World(folder, home, live, store, ca, service, clock)


# ---------------------------------------------------------------------------------------------- PostgreSQL


def postgresql_missing() -> str | None:
    """Why there can be no PostgreSQL here; None when there can."""
    try:
        import psycopg  # noqa: F401, PLC0415 - whether it is there is the question
    except ImportError:
        return "psycopg is not installed"
    return None if shutil.which("initdb") and shutil.which("postgres") else "no PostgreSQL server is installed"


@contextmanager
def postgresql() -> Iterator[str]:
    """A PostgreSQL server of its own, by its URL: in a temporary folder, on a socket there, as no privileged user."""
    user = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="markcheck-pg-"))
    data = folder / "data"
    if user:
        shutil.chown(folder, **user)
    options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, **user}
    try:
        subprocess.run(["initdb", "-D", data, "-U", "books", "-A", "trust", "-E", "UTF8", "--no-sync"], **quiet)
        subprocess.run(["pg_ctl", "-D", data, "-l", folder / "log", "-w", "-o", options, "start"], **quiet)
        try:
            yield f"postgresql://books@/postgres?host={folder}"
        finally:
            subprocess.run(["pg_ctl", "-D", data, "-m", "immediate", "stop"], **quiet)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def emptied(url: str) -> Iterator[Database]:
    """The database at this URL with nothing in it."""
    database = open_database(url)
    with database.transaction() as run:
        run("DROP SCHEMA public CASCADE")
        run("CREATE SCHEMA public")
    try:
        yield database
    finally:
        database.close()


def raw_connection(world: World) -> ssl.SSLSocket:
    """A TLS connection without a certificate, to send on it what no client library would."""
    context = ssl.create_default_context(cadata=world.ca.root_pem)
    return context.wrap_socket(socket.create_connection(("127.0.0.1", world.port), 10), server_hostname="localhost")
