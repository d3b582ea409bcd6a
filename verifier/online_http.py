"""Posting to the centre over HTTP: one attempt, bounded in size and time. Loads the HTTP library: import it late."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from urllib.parse import urlsplit

import requests

from verifier.errors import FetchError, FetchTimeoutError, RefusedError, RejectedError, StatusError
from verifier.net import READ_SIZE, guarded_session, is_base, translated

MAX_RETRY_AFTER = 300  # seconds; whoever asks for more is asked again all the same
# What a server's TLS says of a certificate that it does not take (RFC 8446 clause 6.2), as the library words it.
_NOT_TAKEN = (
    "ALERT_BAD_CERTIFICATE", "ALERT_UNSUPPORTED_CERTIFICATE", "ALERT_CERTIFICATE_REVOKED", "ALERT_CERTIFICATE_EXPIRED",
    "ALERT_CERTIFICATE_UNKNOWN", "ALERT_CERTIFICATE_REQUIRED", "ALERT_UNKNOWN_CA", "ALERT_ACCESS_DENIED",
)  # fmt: skip


class HttpPoster:
    """Posts below one base address, by a connection of its own each time; used by several threads at once.

    `ca_file` is the one CA that is trusted, `client_certificate` the device's certificate and key (PEM files): both
    are read at each request, so renewed ones count at once. FetchError for an address that is not https, or http to
    this machine itself. Times are in milliseconds.
    """

    def __init__(
        self,
        base_url: str,
        *,
        ca_file: str | None,
        client_certificate: tuple[str, str] | None,
        monotonic_ms: Callable[[], int],
        connect_ms: int,
        total_ms: int,
    ) -> None:
        if not is_base(base_url) or not _is_private(base_url):
            raise FetchError("base address", "not an https address")
        self._base = base_url.rstrip("/") + "/"
        self._ca_file, self._certificate = ca_file, client_certificate
        self._monotonic_ms = monotonic_ms
        self._connect_ms, self._total_ms = connect_ms, total_ms

    def post(self, path: str, body: bytes, content_type: str, answer_type: str, max_length: int) -> bytes:
        """The body of the answer.

        StatusError for another status than 200, RefusedError when TLS refuses this device, RejectedError for what the
        centre does not send, FetchTimeoutError, FetchError when the connection cannot be had or breaks off.
        """
        deadline = self._monotonic_ms() + self._total_ms
        headers = {"Content-Type": content_type, "Accept": answer_type, "Connection": "close"}
        seconds = self._total_ms / 1000
        session = guarded_session(seconds, ca_file=self._ca_file, client_certificate=self._certificate)
        with session, translated(path), _tls_told_apart(path):
            response = session.post(
                self._base + path, data=body, headers=headers, stream=True, allow_redirects=False,
                timeout=(self._connect_ms / 1000, seconds),
            )  # fmt: skip
            with response:
                length = _announced(path, response, answer_type, max_length)
                return self._body(path, response, length, deadline)

    def _body(self, path: str, response: requests.Response, length: int, deadline: int) -> bytes:
        out = bytearray()
        while len(out) < length:
            if self._monotonic_ms() >= deadline:
                raise FetchTimeoutError(path, f"not done within {self._total_ms} ms")
            piece = response.raw.read1(min(READ_SIZE, length - len(out)), decode_content=False)
            if not piece:
                raise FetchError(path, "the answer broke off")
            out += piece
        return bytes(out)


def _is_private(url: str) -> bool:
    """Whether nobody on the way can read along."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        return True
    try:
        return ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return parts.hostname == "localhost"


def _announced(path: str, response: requests.Response, answer_type: str, max_length: int) -> int:
    """The length of an answer that may be read."""
    code, headers = response.status_code, response.headers
    if 300 <= code < 400:
        raise RejectedError(path, "redirects are not followed")
    if code != 200:
        raise StatusError(path, code, _retry_after(headers.get("Retry-After", "")))
    if headers.get("Content-Type", "").split(";")[0].strip().lower() != answer_type:
        raise RejectedError(path, "an answer of another type")
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise RejectedError(path, "an encoding that was not asked for")
    length = headers.get("Content-Length", "")
    if "Transfer-Encoding" in headers or not (length.isascii() and length.isdigit()):
        raise RejectedError(path, "an answer that does not say its length")
    if int(length[:18]) > max_length:
        raise RejectedError(path, f"more than {max_length} bytes")
    return int(length[:18])


def _retry_after(text: str) -> int | None:
    """Seconds (RFC 9110 clause 10.2.3, the form without a date), within bounds."""
    if not (text.isascii() and text.isdigit()):
        return None
    return min(int(text[:9]), MAX_RETRY_AFTER)


@contextmanager
def _tls_told_apart(path: str) -> Iterator[None]:
    """A certificate that we do not take, one of ours that they do not take, and a broken handshake: three answers."""
    try:
        yield
    except (requests.ConnectionError, OSError) as exc:
        causes = _causes(exc)
        if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
            raise RejectedError(path, "a server whose certificate does not verify") from exc
        reasons = [cause.reason or "" for cause in causes if isinstance(cause, ssl.SSLError)]
        if any(told in reason for reason in reasons for told in _NOT_TAKEN):
            raise RefusedError(path, "the server does not take this device's certificate") from exc
        raise


_MOST_CAUSES = 32


def _causes(error: BaseException) -> list[BaseException]:
    """An error and what it came from: the libraries put that into the arguments, a `reason`, or the context."""
    found = [error]
    for cause in found:  # which grows
        inner = (*cause.args, getattr(cause, "reason", None), cause.__cause__, cause.__context__)
        new = [one for one in inner if isinstance(one, BaseException) and not any(one is old for old in found)]
        found += new[: _MOST_CAUSES - len(found)]
    return found
