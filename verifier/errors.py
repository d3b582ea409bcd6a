"""Errors by meaning. A text here may reach a log: it never carries a plate, a serial number or a key."""

from __future__ import annotations

from verifier.types import CodeFault, Credential


class VerifierError(Exception):
    """Root of everything this package raises."""


class CodeError(VerifierError):
    """A code was refused; `fault` names the first check that failed."""

    def __init__(self, fault: CodeFault, detail: str = "") -> None:
        super().__init__(f"{fault.value}: {detail}" if detail else fault.value)
        self.fault = fault
        self.detail = detail


class UntrustedError(CodeError):
    """A code that is well-formed but not to be trusted as it stands; `claims` is what it says of itself."""

    def __init__(self, fault: CodeFault, detail: str = "", claims: Credential | None = None) -> None:
        super().__init__(fault, detail)
        self.claims = claims


class PlateError(VerifierError):
    """A text that is not a plate number."""


class TrustListError(VerifierError):
    """A trust list that is refused as a whole."""


class PolicyError(VerifierError):
    """A policy that is refused; the text names the setting."""


class EvidenceError(VerifierError):
    """Evidence in a file that cannot be read; the text names the field."""


class CacheError(VerifierError):
    """The cache cannot answer."""


class CacheMissingError(CacheError):
    """There is no generation in use."""


class CacheCorruptError(CacheError):
    """Stored data fail their checksum: the answer is "cannot say", never "not found"."""


class EpochKeyError(CacheError):
    """The epoch key is absent or not the one this cache was made under."""


class SyncError(VerifierError):
    """A sync that did not end well; the set in use stays in use."""


class RollbackError(SyncError):
    """The server offered something older than what was already accepted."""


class DigestError(SyncError):
    """Bytes that do not have the length or digest that the signed index names."""


class SyncBusyError(SyncError):
    """Another sync is running."""


class FetchError(SyncError):
    """The network or the server failed; `url_path` is the path on the server."""

    def __init__(self, url_path: str, problem: str) -> None:
        super().__init__(f"{url_path}: {problem}")
        self.url_path = url_path


class StatusError(FetchError):
    """The server answered with another status than 200; `code` is that status.

    `retry_after` is for how many seconds it asked to be left alone, None when it did not.
    """

    def __init__(self, url_path: str, code: int, retry_after: int | None = None) -> None:
        super().__init__(url_path, f"the server answered {code}")
        self.code = code
        self.retry_after = retry_after


class NotFoundError(StatusError):
    """The server says that it does not have this file."""

    def __init__(self, url_path: str) -> None:
        super().__init__(url_path, 404)


class FetchTimeoutError(FetchError):
    """Not done within the time for one file."""


class RefusedError(FetchError):
    """The server does not take this device's certificate."""


class RejectedError(FetchError):
    """An answer of a form that is not accepted: a redirect, an encoding, more bytes than allowed."""


class AuditError(VerifierError):
    """An audit file that is damaged or was changed."""
