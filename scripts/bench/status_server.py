"""The status server under many handhelds at once: real TLS, real certificates, every answer verified and compared.

Server and handhelds share this machine; the server runs in a process of its own. Beside it, in the same run, the same
edge answers with fixed bytes: what TLS and HTTP cost alone.
"""

from __future__ import annotations

import http.client
import multiprocessing
import secrets
import ssl
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from multiprocessing.connection import Connection
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from scripts.bench.figures import machine_line
from scripts.sandbox.authority import AuthorityFolder
from scripts.sandbox.database import sqlite_database
from scripts.sandbox.device_ca import DeviceCa, make_csr
from scripts.sandbox.follow import LiveAuthority
from scripts.sandbox.server import Answer
from scripts.sandbox.status_http import Request, Respond, serve_https
from scripts.sandbox.status_server import ROUTES, StatusService
from scripts.sandbox.status_store import StatusStore
from verifier.cache.keys import PLATE, KeyHasher, plate_bytes
from verifier.cache.values import to_wide
from verifier.clock import system_clock
from verifier.codec.online import (
    ANSWER_TYPE,
    CONTENT_TYPE,
    MAX_IDS,
    STATUS_PATH,
    AskedId,
    IdKind,
    OnlineFormatError,
    StatusRequest,
    decode_answer,
    decode_request,
    encode_request,
)
from verifier.trust import TrustList, load_trust_list

PAGE = "status-server.md"
SCALE = 20_000
PACE_S = 10.0  # between two checks of one handheld: a busy checkpoint
TOTAL_S = 1.5  # what a handheld waits for an answer
TIMEOUT_S = 30.0  # what it waits here, so that slow answers are counted and not lost
_BOOKS = "status.db"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One way of asking, and what came of it; times in milliseconds, `bare` the same way with fixed answers."""

    name: str
    asked: int
    errors: int  # no answer, or one that does not verify or says otherwise than the register
    late: int  # after more than TOTAL_S
    seconds: float
    p50_ms: float
    p95_ms: float
    bare_seconds: float
    bare_p50_ms: float
    bare_errors: int

    @property
    def a_second(self) -> float:
        """Answers a second."""
        return (self.asked - self.errors) / self.seconds

    @property
    def share(self) -> float:
        """Rate beside that of the bare edge."""
        return self.bare_seconds / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One run."""

    handhelds: int
    loads: tuple[Load, ...]


@dataclass(frozen=True, slots=True)
class _Asked:
    """One exchange: what was sent, what came (None: nothing), and how long it took."""

    request: bytes
    body: bytes | None
    seconds: float


def bench_status_server(
    handhelds: int, checks: int, folder: Path, progress: Progress, *, scale: int = SCALE, pace_s: float = PACE_S
) -> Result:
    """Make an authority and its devices below `folder`, and ask `checks` batches of 50 with each in three ways.

    RuntimeError when a server does not start.
    """
    home = AuthorityFolder(folder / "sandbox")
    home.create(clock=system_clock, scale=scale, seed=1)
    contexts = _devices(home, folder, handhelds, progress)
    with _serving(folder, bare=False) as port, _serving(folder, bare=True) as bare_port:
        live = LiveAuthority(home, clock=system_clock)  # once the server has recorded its key
        register = _Register(live)
        loads = []
        for name, keep, pace in (
            ("a connection for each check", False, 0.0),
            ("one connection kept", True, 0.0),
            (f"a check every {pace_s:g} s, a connection for each", False, pace_s),
        ):
            progress(name, 0, 2)
            bare = _Run(bare_port, contexts, checks, register, keep=keep, pace_s=pace).run()
            progress(name, 1, 2)
            run = _Run(port, contexts, checks, register, keep=keep, pace_s=pace).run()
            progress(name, 2, 2)
            loads.append(_load(name, run, bare, register))
    return Result(handhelds=handhelds, loads=tuple(loads))


class _Register:
    """Random batches, and whether an answer to one is what the register says."""

    def __init__(self, live: LiveAuthority) -> None:
        authority = live.authority
        hasher = KeyHasher(authority.epoch_key)
        self._check = hasher.check_value
        self._trust: TrustList = load_trust_list(authority.trust_entries())
        self._wide = {
            hasher.digest(PLATE, plate_bytes(vehicle.plate)): to_wide(vehicle.record())
            for vehicle in authority.registry.vehicles.values()
        }
        self._keys = list(self._wide)

    def batch(self) -> bytes:
        ids = tuple(AskedId(IdKind.PLATE, secrets.choice(self._keys)) for _ in range(MAX_IDS))
        return encode_request(StatusRequest(nonce=secrets.token_bytes(16), key_check=self._check, ids=ids))

    def is_right(self, asked: _Asked) -> bool:
        if asked.body is None:
            return False
        try:
            answer, _ = decode_answer(asked.body, asked.request, self._trust)
        except OnlineFormatError:
            return False
        ids = decode_request(asked.request).ids
        return [row.record for row in answer.rows] == [self._wide[one.key] for one in ids]


class _Run:
    """All handhelds at once, each in a thread; they begin together."""

    def __init__(
        self,
        port: int,
        contexts: Sequence[ssl.SSLContext],
        checks: int,
        register: _Register,
        *,
        keep: bool,
        pace_s: float,
    ) -> None:
        self._port, self._contexts, self._keep, self._pace_s = port, contexts, keep, pace_s
        self._batches = [[register.batch() for _ in range(checks)] for _ in contexts]
        self._start = threading.Barrier(len(contexts) + 1)
        self.asked: list[_Asked] = []
        self.seconds = 0.0

    def run(self) -> _Run:
        threads = [threading.Thread(target=self._handheld, args=(number,)) for number in range(len(self._contexts))]
        for thread in threads:
            thread.start()
        self._start.wait()
        began = time.monotonic()
        for thread in threads:
            thread.join()
        self.seconds = time.monotonic() - began
        return self

    def _handheld(self, number: int) -> None:
        connection = self._connection(number)
        self._start.wait()
        due = time.monotonic() + self._pace_s * number / len(self._contexts)  # not all in the same moment
        out = []
        for request in self._batches[number]:
            time.sleep(max(0.0, due - time.monotonic()) if self._pace_s else 0.0)
            due += self._pace_s
            began = time.perf_counter()
            body = _post(connection, request)
            out.append(_Asked(request, body, time.perf_counter() - began))
            if body is None or not self._keep:
                connection.close()
                connection = self._connection(number)
        connection.close()
        self.asked += out

    def _connection(self, number: int) -> http.client.HTTPSConnection:
        context = self._contexts[number]
        return http.client.HTTPSConnection("127.0.0.1", self._port, timeout=TIMEOUT_S, context=context)


def _post(connection: http.client.HTTPSConnection, request: bytes) -> bytes | None:
    """The body of a 200; None for anything else. Connects where there is no connection."""
    try:
        connection.request("POST", f"/{STATUS_PATH}", request, {"Content-Type": CONTENT_TYPE})
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException):
        return None
    return body if response.status == 200 else None


def _load(name: str, run: _Run, bare: _Run, register: _Register) -> Load:
    times = sorted(asked.seconds * 1000 for asked in run.asked)
    return Load(
        name=name,
        asked=len(run.asked),
        errors=sum(not register.is_right(asked) for asked in run.asked),
        late=sum(asked.seconds > TOTAL_S for asked in run.asked),
        seconds=run.seconds,
        p50_ms=statistics.median(times),
        p95_ms=times[int(len(times) * 0.95)],
        bare_seconds=bare.seconds,
        bare_p50_ms=statistics.median(asked.seconds * 1000 for asked in bare.asked),
        bare_errors=sum(asked.body is None for asked in bare.asked),
    )


# ----------------------------------------------------------------------------------------------- the server


def _devices(home: AuthorityFolder, folder: Path, count: int, progress: Progress) -> list[ssl.SSLContext]:
    """As many enrolled devices: their TLS contexts."""
    ca, contexts = DeviceCa.open(home.private, home.folder, system_clock), []
    with closing(StatusStore(sqlite_database(folder / _BOOKS))) as store:
        for number in range(count):
            private, name = generate_private_key(SECP256R1()), f"handheld-{number}"
            code = store.enrolment_code(name, system_clock())
            made = ca.device_certificate(make_csr(private), name)
            store.device_of_code(code, made.key, system_clock())
            store.enrolled(name, code, made)
            pair = folder / "device.pem"
            key = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            pair.write_bytes(key + made.pem.encode())
            context = ssl.create_default_context(cadata=ca.root_pem)
            context.load_cert_chain(pair)
            contexts.append(context)
            progress("enrolment", number + 1, count)
    return contexts


@contextmanager
def _serving(folder: Path, *, bare: bool) -> Iterator[int]:
    """A server in a process of its own: its port."""
    method = multiprocessing.get_context("spawn")
    ours, theirs = method.Pipe()
    process = method.Process(target=_serve, args=(folder, bare, theirs), daemon=True)
    process.start()
    try:
        if not ours.poll(60):
            raise RuntimeError("the server of the measurement did not start")
        yield int(ours.recv())
    finally:
        ours.send(None)
        process.join(10)


def _serve(folder: Path, bare: bool, parent: Connection) -> None:
    home = AuthorityFolder(folder / "sandbox")
    ca = DeviceCa.open(home.private, home.folder, system_clock)
    with closing(StatusStore(sqlite_database(folder / _BOOKS))) as store:
        if bare:
            respond: Respond = _fixed
        else:
            respond = StatusService(LiveAuthority(home, clock=system_clock), store, ca, clock=system_clock).respond
        with serve_https(respond, ROUTES, ca.server_context()) as running:
            parent.send(running.port)
            parent.recv()


def _fixed(_: Request) -> Answer:
    return Answer(200, bytes(1500), ANSWER_TYPE)


# ----------------------------------------------------------------------------------------------- the figures

_HEAD = ("", "batches", "errors", "late", "answers/s", "p50", "p95", "bare p50", "rate / bare")


def _cells(load: Load) -> tuple[str, ...]:
    return (
        load.name, f"{load.asked:,}", str(load.errors), str(load.late), f"{load.a_second:.0f}",
        f"{load.p50_ms:.0f} ms", f"{load.p95_ms:.0f} ms", f"{load.bare_p50_ms:.0f} ms", f"{load.share:.2f}",
    )  # fmt: skip


def text_report(result: Result) -> str:
    """The figures for people."""
    rows = [_HEAD, *map(_cells, result.loads)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([machine_line(), f"{result.handhelds} handhelds, {MAX_IDS} identities a batch", "", *lines])


def json_report(result: Result) -> list[dict[str, object]]:
    """The figures for machines, one object for each way of asking."""
    return [
        {
            "name": load.name, "handhelds": result.handhelds, "batches": load.asked, "errors": load.errors,
            "late": load.late, "answers_a_second": load.a_second, "p50_ms": load.p50_ms, "p95_ms": load.p95_ms,
            "bare_p50_ms": load.bare_p50_ms, "bare_errors": load.bare_errors, "rate_to_bare": load.share,
        }
        for load in result.loads
    ]  # fmt: skip


_ABOUT = f"""Each handheld is a thread with its own key and certificate, and asks batches of {MAX_IDS} vehicles drawn
from {SCALE:,}. Where it says "a connection for each", every answer includes TCP, the whole TLS handshake with both
certificates and the end of the connection, as the device does it; elsewhere the handshake is made once. In the first
two rows a handheld asks again as soon as it is answered, so the times are those of {{handhelds}} requests that wait for
the same cores; the third is the load of a busy checkpoint at every one of them. Server (a process of its own, SQLite
books) and handhelds share the machine. Every answer is verified and compared with the register; one that fails is an
error. Late is what came after more than {TOTAL_S:g} s, when a handheld has given up. `bare` is the same edge in the
same run, answering 1,500 fixed bytes without a look at books or register: what TLS and HTTP cost alone.
"""


def write_page(result: Result, folder: Path, command: str, now: datetime) -> Path:
    """Write the page with all figures; its path. OSError."""
    rows = [f"| {' | '.join(row)} |" for row in (_HEAD, ("---",) * len(_HEAD), *map(_cells, result.loads))]
    head = ["# The status server\n", f"```\n{command}\n```\n", f"{now:%Y-%m-%d}, {machine_line()}.\n"]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PAGE
    path.write_text("\n".join([*head, _ABOUT.format(handhelds=result.handhelds), *rows, ""]), encoding="utf-8")
    return path
