"""What the tests of the online look-up share: a device with old data, and a centre that answers over real sockets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from firmware.build import software_version
from firmware.config import REGION
from scripts.sandbox.authority import Authority, new_authority
from scripts.sandbox.folder_store import MemoryFetcher
from scripts.sandbox.keys import SigningKey, signing_key
from scripts.sandbox.showcase import Showcase
from verifier.audit import AuditLog
from verifier.cache.keys import CREDENTIAL, PLATE, VIN, KeyHasher, plate_bytes, serial_bytes
from verifier.cache.store import StatusStore
from verifier.cache.values import to_wide
from verifier.check import CheckResult, Observation, Verifier
from verifier.codec.cose import TYP_ONLINE, join, protected_header, sig_structure
from verifier.codec.online import (
    ANSWER_TYPE,
    CONTENT_TYPE,
    LIFE,
    AskedId,
    DocumentWord,
    IdKind,
    OnlineAnswer,
    Report,
    Row,
    RowStatus,
    StatusRequest,
    VinWord,
    answer_payload,
    decode_report,
    decode_request,
    encode_receipt,
    encode_request,
    request_hash,
)
from verifier.codec.status import ListedStatus
from verifier.late import LateAnswers
from verifier.link import Mode
from verifier.online import Centre, at_once
from verifier.online_http import HttpPoster
from verifier.recheck import Rechecker, Upkeep
from verifier.recheck_queue import RecheckQueue
from verifier.sync import SyncClient
from verifier.types import Algorithm, KeyRole, Plate, PlateSeen
from verifier.vin import Vin

START = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
OLD = timedelta(days=3)  # data of this age give grade C
ISSUER = "000000"


def status_key(issuer: str = ISSUER, alg: Algorithm = Algorithm.ES256, regions: tuple[str, ...] = ("*",)) -> SigningKey:
    return signing_key(alg, issuer=issuer, regions=regions, role=KeyRole.STATUS, now=START)


def signed(answer: OnlineAnswer, key: SigningKey) -> bytes:
    """The answer as a centre with this key signs it."""
    protected, payload = protected_header(key.alg, key.entry.kid, TYP_ONLINE), answer_payload(answer)
    return join(protected, payload, key.sign(sig_structure(protected, payload)))


@dataclass
class OnlineWorld:
    """A register, the night's set made of it, and a centre that reads the register itself. The test turns the clock."""

    now: datetime = START
    key: SigningKey = field(default_factory=status_key)
    store: dict[str, bytes] = field(default_factory=dict)
    spoil: Callable[[OnlineAnswer], OnlineAnswer] = lambda answer: answer
    centre_clock: Callable[[], datetime] | None = None
    reports: list[Report] = field(default_factory=list)
    unknown: bool = False
    serves: frozenset[IdKind] = frozenset(IdKind)

    def __post_init__(self) -> None:
        self.authority: Authority = new_authority(self.store, clock=self.clock, scale=500, seed=3)
        self.authority.begin_status(self.key)
        self.showcase = Showcase(self.authority)
        self.authority.publish()
        self.signer = self.key
        self.hasher = KeyHasher(self.authority.epoch_key)
        self.digest = cache(self.hasher.digest)

    def clock(self) -> datetime:
        return self.now

    def sync(self, folder: Path) -> None:
        root = self.authority.publisher.root_bytes()
        key = self.authority.epoch_key
        SyncClient(folder / "cache", MemoryFetcher(self.store), self.clock, root, REGION, epoch_key=key).refresh()

    @contextmanager
    def old_data(self, folder: Path) -> Iterator[Path]:
        """A device in this folder with data of three days ago; afterwards the centre is as it was in the beginning."""
        self.now = START
        self.sync(folder)
        self.now = START + OLD
        yield folder
        self.now, self.spoil, self.signer, self.centre_clock = START, lambda answer: answer, self.key, None
        self.unknown, self.serves = False, frozenset(IdKind)

    def vehicle(self):
        """One with nothing against it that nobody else uses."""
        return self.showcase._next()

    # ------------------------------------------------------------------------------------------ the centre

    def row(self, asked: AskedId, as_of: datetime) -> Row:
        if self.unknown:
            return Row(status=RowStatus.UNKNOWN, as_of=as_of)
        record: int | DocumentWord | VinWord | None = None
        registry = self.authority.registry
        for plate, vehicle in registry.vehicles.items():
            if asked.kind is IdKind.PLATE and self.digest(PLATE, plate_bytes(plate)) == asked.key:
                record = to_wide(vehicle.record())
            if asked.kind is IdKind.VIN and self.digest(VIN, vehicle.vin.encode()) == asked.key:
                record = VinWord(self.digest(PLATE, plate_bytes(plate)), to_wide(vehicle.record()))
            if asked.kind is IdKind.CREDENTIAL:
                for entry in registry.credentials(plate):
                    if self.digest(CREDENTIAL, serial_bytes(entry.serial)) == asked.key:
                        record = DocumentWord(ListedStatus(registry.states[entry.index]))
        return Row(status=RowStatus.ABSENT if record is None else RowStatus.FOUND, as_of=as_of, record=record)

    def takes(self, path: str, body: bytes) -> bool:
        """Whether this centre serves all that is asked."""
        return path == "/v1/reports" or self.serves.issuperset(asked.kind for asked in decode_request(body).ids)

    def answer(self, body: bytes) -> bytes:
        request = decode_request(body)
        now = (self.centre_clock or self.clock)().replace(microsecond=0)
        answer = OnlineAnswer(
            issuer=ISSUER,
            issued_at=now,
            expires_at=now + LIFE,
            nonce=request.nonce,
            request_hash=request_hash(body),
            rows=tuple(self.row(asked, now) for asked in request.ids),
            hot_seq=0,
        )
        return signed(self.spoil(answer), self.signer)

    def respond(self, path: str, body: bytes) -> tuple[str, bytes]:
        if path == "/v1/reports":
            report = decode_report(body)
            self.reports.append(report)
            return CONTENT_TYPE, encode_receipt(report.report_id)
        return ANSWER_TYPE, self.answer(body)

    @contextmanager
    def serving(self) -> Iterator[str]:
        """The address of the centre, over plain HTTP on loopback."""
        world = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                good = world.takes(self.path, body)
                content_type, data = world.respond(self.path, body) if good else ("application/problem+json", b"{}")
                self.send_response(200 if good else 400)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class Ticker:
    """Milliseconds that only the test moves on."""

    def __init__(self) -> None:
        self.ms = 0

    def __call__(self) -> int:
        return self.ms


class Handset:
    """One device of the world, with its files in `folder`."""

    def __init__(
        self, world: OnlineWorld, folder: Path, url: str, *, total_ms: int = 10_000, mode: Mode = Mode.AUTO,
        start=at_once, ca_file: str | None = None, certificate: tuple[str, str] | None = None,
        http_ms: int | None = None,
    ) -> None:  # fmt: skip
        self.world, self.audit = world, folder / "audit.jsonl"
        self.ticks = Ticker()
        self.store = StatusStore(folder / "cache", world.authority.epoch_key)
        self.verifier = Verifier(self.store, clock=world.clock, audit=AuditLog(self.audit), software=software_version())
        poster = HttpPoster(
            url, ca_file=ca_file, client_certificate=certificate, monotonic_ms=self.ticks,
            connect_ms=http_ms or total_ms, total_ms=http_ms or total_ms,
        )  # fmt: skip
        self.centre = Centre(
            poster, world.hasher, monotonic_ms=self.ticks, draw=lambda: 0.0, total_ms=total_ms, mode=mode
        )
        self.queue = RecheckQueue(folder / "rechecks.db", world.authority.epoch_key)
        self.shown: list[CheckResult] = []
        self.watch: Callable[[], None] = lambda: None  # called with each result that is shown
        self.late = LateAnswers(self.verifier, self.centre, self.show, queue=self.queue, start=start)
        self.rechecker = Rechecker(self.queue, self.centre, self.verifier, world.clock)
        self.upkeep = Upkeep(self.centre, self.verifier, self.rechecker, self.ticks)

    def show(self, result: CheckResult) -> None:
        self.watch()
        self.shown.append(result)

    def check(
        self, plate: Plate, code: bytes | None = None, *, fresh: bool = False, vin: Vin | None = None
    ) -> list[CheckResult]:
        """What the screen shows of one check, in order."""
        self.shown.clear()
        seen = Observation(plate_seen=PlateSeen(plate=plate, confirmed=True), code=code, vin=vin)
        self.late.check(seen, fresh=fresh)
        return list(self.shown)

    @staticmethod
    def request(world: OnlineWorld) -> bytes:
        """A question about a vehicle of the register, as bytes."""
        vehicle = AskedId(IdKind.PLATE, world.hasher.digest(PLATE, plate_bytes(world.vehicle().plate)))
        return encode_request(StatusRequest(nonce=bytes(16), key_check=world.hasher.check_value, ids=(vehicle,)))

    def close(self) -> None:
        self.store.close()


def later(answer: OnlineAnswer, **by: float) -> OnlineAnswer:
    """The same answer, made at another time."""
    moved = timedelta(**by)
    rows = tuple(replace(row, as_of=row.as_of + moved) for row in answer.rows)
    return replace(answer, issued_at=answer.issued_at + moved, expires_at=answer.expires_at + moved, rows=rows)
