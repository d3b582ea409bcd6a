"""What a device asks of its centre for itself: JSON over HTTPS, with refusals that say why. Import it late.

Bounded as the look-up is (`verifier.online_http`): one attempt, one deadline, no redirects, an announced length. Unlike
there, the body of a refusal is read: it says whether this device is lost, and may carry an order.
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import requests

from verifier.codec.device import Refusal
from verifier.errors import FetchError, FetchTimeoutError, RefusedError, RejectedError
from verifier.identity import IdentityError, Why
from verifier.net import guarded_session, translated
from verifier.online_http import HttpPoster, _causes, _tls_told_apart

CONNECT_MS, TOTAL_MS = 5_000, 15_000
MAX_ANSWER = 16 * 1024  # bytes
JSON, PROBLEM = "application/json", "application/problem+json"

_REASONS = {
    Refusal.DEVICE_LOST: Why.LOST,
    Refusal.DEVICE_HELD: Why.HELD,
    Refusal.CERTIFICATE_MISSING: Why.UNKNOWN,
    Refusal.CERTIFICATE_UNKNOWN: Why.UNKNOWN,
    Refusal.CODE_REFUSED: Why.CODE,
}
# X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED (OpenSSL's x509_vfy.h).
_OUT_OF_TIME = (9, 10)


class DeviceClient(HttpPoster):
    """Asks for certificates and keys; used by one thread at a time. FetchError for an address that is not https."""

    def __init__(
        self,
        base_url: str,
        *,
        ca_file: str,
        client_certificate: tuple[str, str] | None,
        monotonic_ms: Callable[[], int],
        connect_ms: int = CONNECT_MS,
        total_ms: int = TOTAL_MS,
    ) -> None:
        super().__init__(
            base_url, ca_file=ca_file, client_certificate=client_certificate, monotonic_ms=monotonic_ms,
            connect_ms=connect_ms, total_ms=total_ms,
        )  # fmt: skip

    def ask(self, method: str, path: str, value: dict[str, str] | None = None) -> dict[str, Any]:
        """The JSON object that the centre answers; IdentityError with the one reason why there is none."""
        deadline = self._monotonic_ms() + self._total_ms
        with _one_reason(path):
            status, content_type, body = self._asked(method, path, value, deadline)
        if status == 200 and content_type == JSON:
            return _object(body)
        if content_type != PROBLEM:
            raise IdentityError(Why.UNREACHABLE if status >= 500 else Why.CENTRE)
        raise _refused(_object(body))

    def _asked(self, method: str, path: str, value: dict[str, str] | None, deadline: int) -> tuple[int, str, bytes]:
        """Status, type and body of the answer; FetchError and its kinds."""
        headers = {"Accept": JSON, "Connection": "close"} | ({} if value is None else {"Content-Type": JSON})
        data = None if value is None else json.dumps(value).encode()
        seconds = self._total_ms / 1000
        session = guarded_session(seconds, ca_file=self._ca_file, client_certificate=self._certificate)
        with session, translated(path), _tls_told_apart(path):
            response = session.request(
                method, self._base + path, data=data, headers=headers, stream=True, allow_redirects=False,
                timeout=(self._connect_ms / 1000, seconds),
            )  # fmt: skip
            with response:
                length = _announced(path, response)
                content_type = response.headers.get("Content-Type", "").split(";")[0].strip().lower()
                return response.status_code, content_type, self._body(path, response, length, deadline)


def _announced(path: str, response: requests.Response) -> int:
    headers, length = response.headers, response.headers.get("Content-Length", "")
    if 300 <= response.status_code < 400:
        raise RejectedError(path, "redirects are not followed")
    if headers.get("Content-Encoding", "identity").lower() != "identity" or "Transfer-Encoding" in headers:
        raise RejectedError(path, "an encoding that was not asked for")
    if not (length.isascii() and length.isdigit()) or int(length[:18]) > MAX_ANSWER:
        raise RejectedError(path, "an answer of no or too great a length")
    return int(length[:18])


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise IdentityError(Why.CENTRE) from exc
    if type(value) is not dict:
        raise IdentityError(Why.CENTRE)
    return value


def _refused(problem: dict[str, Any]) -> IdentityError:
    """A refusal's reason, and its order where it carries one. Both are claims: an order proves itself later."""
    try:
        reason = Refusal(str(problem.get("reason")))
    except ValueError:
        return IdentityError(Why.CENTRE)
    order = problem.get("order")
    try:
        carried = base64.b64decode(order, validate=True) if type(order) is str else None
    except ValueError:
        carried = None
    return IdentityError(_REASONS.get(reason, Why.UNREACHABLE), order=carried)


@contextmanager
def _one_reason(path: str) -> Iterator[None]:
    """What the network and TLS say, as one reason."""
    try:
        yield
    except RefusedError as exc:
        expired = any("CERTIFICATE_EXPIRED" in (getattr(cause, "reason", "") or "") for cause in _tls_causes(exc))
        raise IdentityError(Why.EXPIRED if expired else Why.UNKNOWN) from exc
    except RejectedError as exc:
        checks = [cause for cause in _tls_causes(exc) if isinstance(cause, ssl.SSLCertVerificationError)]
        clock = any(cause.verify_code in _OUT_OF_TIME for cause in checks)
        raise IdentityError(Why.CLOCK if clock else Why.CENTRE) from exc
    except (FetchTimeoutError, FetchError) as exc:
        raise IdentityError(Why.UNREACHABLE) from exc


def _tls_causes(error: BaseException) -> list[ssl.SSLError]:
    return [cause for cause in _causes(error) if isinstance(cause, ssl.SSLError)]
