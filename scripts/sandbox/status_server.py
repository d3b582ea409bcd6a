"""The reference status server: look-ups, reports, audit logs, enrolment, epoch key, signs of life.

One register stands behind its answers and behind the published lists; its books are in `status_store`.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from scripts.sandbox.authority import KEY_EPOCH
from scripts.sandbox.database import DatabaseError
from scripts.sandbox.device_ca import DEVICE_LIFE, CsrError, DeviceCa, requested_key_hash
from scripts.sandbox.follow import LiveAuthority
from scripts.sandbox.json_schema import SchemaError, check
from scripts.sandbox.regions import NATIONAL
from scripts.sandbox.registry import RegistryError
from scripts.sandbox.server import Answer
from scripts.sandbox.status_api import ENDPOINTS, JSON
from scripts.sandbox.status_http import Request, Routes, refusal
from scripts.sandbox.status_lookup import Lookup
from scripts.sandbox.status_store import DeviceState, RefusedError, Standing, StatusStore
from verifier.clock import Clock
from verifier.codec.cose import TYP_ONLINE, join, protected_header, sig_structure
from verifier.codec.device import (
    AUDIT_PATH,
    ENROL_PATH,
    EPOCH_KEY_PATH,
    HEARTBEAT_PATH,
    TYP_ORDER,
    AuditHead,
    DeviceFormatError,
    Refusal,
    WipeOrder,
    decode_upload,
    encode_audit_head,
    order_payload,
)
from verifier.codec.online import (
    LIFE,
    REPORTS_PATH,
    STATUS_PATH,
    OnlineAnswer,
    OnlineFormatError,
    answer_payload,
    decode_report,
    decode_request,
    encode_receipt,
    request_hash,
)
from verifier.download import hot_path

ROUTES: Routes = {path: endpoint.route for path, endpoint in ENDPOINTS.items()}
RETRY_AFTER_S = 5
MAX_CALLERS = 10_000


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests a second in the long run, and so many at once."""

    a_second: float
    at_once: int


DEVICE_RATE = Rate(10, 60)  # an officer's checks, and a night's audit log after days in the field
STRANGER_RATE = Rate(0.5, 20)  # by address; whoever has no certificate has only the enrolment to ask for


class StatusService:
    """Answers requests whose form the edge has seen to. Several threads may call `respond` at once."""

    def __init__(
        self,
        live: LiveAuthority,
        store: StatusStore,
        ca: DeviceCa,
        *,
        clock: Clock,
        device_rate: Rate = DEVICE_RATE,
        stranger_rate: Rate = STRANGER_RATE,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        live.status_key()  # made now, so that the first night after this has it in its trust list
        self._live, self._store, self._ca, self._clock = live, store, ca, clock
        self._lookup = Lookup(live)
        self._hot = _HotNumber(live)
        self._devices, self._strangers = _Buckets(device_rate, ticks), _Buckets(stranger_rate, ticks)
        self._handlers: dict[str, Callable[[Request, Standing], Answer]] = {
            f"/{STATUS_PATH}": self._status,
            f"/{REPORTS_PATH}": self._report,
            f"/{AUDIT_PATH}": self._audit,
            f"/{EPOCH_KEY_PATH}": self._epoch_key,
            f"/{HEARTBEAT_PATH}": self._heartbeat,
        }

    def respond(self, request: Request) -> Answer:
        """The answer to a request to one of ROUTES; what cannot be answered gets a refusal."""
        shown = request.certificate
        within = self._strangers.take(request.address) if shown is None else self._devices.take(shown.name)
        if not within:
            return refusal(Refusal.TOO_MANY_REQUESTS, _later())
        try:
            return self._respond(request)
        except RefusedError as exc:
            if exc.known is None:
                return refusal(exc.reason)
            return refusal(exc.reason, audit={"seq": exc.known.seq, "head": exc.known.head.hex()})
        except (OnlineFormatError, DeviceFormatError, SchemaError, CsrError):
            return refusal(Refusal.REQUEST_MALFORMED)
        except (DatabaseError, RegistryError):
            return refusal(Refusal.UNAVAILABLE, _later())

    def _respond(self, request: Request) -> Answer:
        if request.path == f"/{ENROL_PATH}":
            return self._enrol(request)
        standing = self._standing(request)
        if standing.state is DeviceState.LOST:
            return self._lost(standing)
        return self._handlers[request.path](request, standing)

    def _standing(self, request: Request) -> Standing:
        if request.certificate is None:
            raise RefusedError(Refusal.CERTIFICATE_MISSING)
        return self._store.standing(request.certificate.serial, self._clock())

    # ------------------------------------------------------------------------------------------- the register

    def _status(self, request: Request, _: Standing) -> Answer:
        asked = decode_request(request.body)
        self._check_epoch(asked.key_check)
        now = self._clock().replace(microsecond=0)
        rows = self._lookup.rows(asked.ids, now)
        key = self._live.status_key()
        payload = answer_payload(
            OnlineAnswer(
                issuer=key.entry.issuer, issued_at=now, expires_at=now + LIFE, nonce=asked.nonce,
                request_hash=request_hash(request.body), rows=rows, hot_seq=self._hot(),
            )
        )  # fmt: skip
        return Answer(200, self._sign(TYP_ONLINE, payload), ENDPOINTS[request.path].answer_type)

    def _report(self, request: Request, standing: Standing) -> Answer:
        report = decode_report(request.body)
        self._check_epoch(report.key_check)
        self._store.keep_report(standing.device, report.report_id, request.body, self._clock())
        return Answer(200, encode_receipt(report.report_id), ENDPOINTS[request.path].answer_type)

    def _check_epoch(self, key_check: bytes) -> None:
        """Keys hashed under another epoch key would all be absent, and their vehicles lawful."""
        if key_check != self._lookup.key_check:
            raise RefusedError(Refusal.EPOCH_KEY_DIFFERS)

    # -------------------------------------------------------------------------------------------- the devices

    def _audit(self, request: Request, standing: Standing) -> Answer:
        known = self._store.keep_audit(standing.device, decode_upload(request.body), self._clock())
        return Answer(200, encode_audit_head(known), ENDPOINTS[request.path].answer_type)

    def _heartbeat(self, request: Request, standing: Standing) -> Answer:
        body, now = _json_body(request), self._clock()
        told = body.get("audit")
        head = None if told is None else AuditHead(told["seq"], bytes.fromhex(told["head"]))
        sound = self._store.keep_heartbeat(standing.device, body, head, now)
        word = "not told" if head is None else "continues" if sound else "broken"
        return _json_answer({"server_time": now.isoformat(timespec="seconds"), "audit": word})

    def _epoch_key(self, _: Request, standing: Standing) -> Answer:
        _in_good_standing(standing)
        until = self._clock() + DEVICE_LIFE
        key = self._live.authority.epoch_key.hex()
        return _json_answer({"key_epoch": KEY_EPOCH, "epoch_key": key, "valid_until": _text(until)})

    def _enrol(self, request: Request) -> Answer:
        """A code makes a device of whoever has it; without one, the certificate of the connection is renewed."""
        body = _json_body(request)
        csr, code, now = body["csr"], body.get("code"), self._clock()
        if code is None:
            standing = self._standing(request)
            if standing.state is DeviceState.LOST:
                return self._lost(standing)
            _in_good_standing(standing)
            made = self._ca.device_certificate(csr, standing.device)
            self._store.renewed(standing.device, made)
            device = standing.device
        else:
            device = self._store.device_of_code(code, requested_key_hash(csr), now)
            made = self._ca.device_certificate(csr, device)
            self._store.enrolled(device, code, made)
        return _json_answer({"device": device, "certificate": made.pem, "valid_until": _text(made.not_after)})

    def _lost(self, standing: Standing) -> Answer:
        """Nothing for a lost device but the order to erase itself, where that was given."""
        if not standing.wipe:
            return refusal(Refusal.DEVICE_LOST)
        issuer = self._live.status_key().entry.issuer
        order = WipeOrder(
            issuer=issuer,
            device=standing.device,
            order_seq=standing.wipe,
            issued_at=self._clock().replace(microsecond=0),
        )
        signed = self._sign(TYP_ORDER, order_payload(order))
        return refusal(Refusal.DEVICE_LOST, order=base64.b64encode(signed).decode("ascii"))

    def _sign(self, typ: int, payload: bytes) -> bytes:
        key = self._live.status_key()
        protected = protected_header(key.alg, key.entry.kid, typ)
        return join(protected, payload, key.sign(sig_structure(protected, payload)))


def _in_good_standing(standing: Standing) -> None:
    if standing.state is not DeviceState.ACTIVE:
        raise RefusedError(Refusal.DEVICE_HELD)


def _json_body(request: Request) -> dict[str, Any]:
    """The body, which fits the schema of its path; SchemaError."""
    try:
        body = json.loads(request.body)
    except (ValueError, RecursionError) as exc:
        raise SchemaError("body: not JSON") from exc
    check(body, ENDPOINTS[request.path].request or {})
    return dict(body)


def _json_answer(value: dict[str, object]) -> Answer:
    return Answer(200, json.dumps(value).encode(), JSON)


def _later() -> tuple[tuple[str, str], ...]:
    return (("Retry-After", str(RETRY_AFTER_S)),)


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


class _HotNumber:
    """The number of the hot list as it is published; read again when its bytes have changed."""

    def __init__(self, live: LiveAuthority) -> None:
        self._live = live
        self._read: tuple[bytes | None, int] = (None, 0)

    def __call__(self) -> int:
        authority = self._live.authority
        data = authority.store.get(hot_path(NATIONAL.name))
        if data != self._read[0]:
            hot = authority.publisher.hot()
            self._read = data, 0 if hot is None else hot.hot_seq
        return self._read[1]


class _Buckets:
    """A token bucket for each caller; the longest silent ones are forgotten first."""

    def __init__(self, rate: Rate, ticks: Callable[[], float]) -> None:
        self._rate = rate
        self._ticks = ticks
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}  # tokens, and when they were counted

    def take(self, caller: str) -> bool:
        """Whether the caller may ask once more now."""
        now, rate = self._ticks(), self._rate
        with self._lock:
            tokens, counted = self._buckets.pop(caller, (float(rate.at_once), now))
            tokens = min(rate.at_once, tokens + (now - counted) * rate.a_second)
            allowed = tokens >= 1
            while len(self._buckets) >= MAX_CALLERS:
                del self._buckets[next(iter(self._buckets))]
            self._buckets[caller] = (tokens - 1 if allowed else tokens, now)
            return allowed
