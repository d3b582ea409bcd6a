"""Who this device is: a P-256 key made here, and a certificate of the centre that lives for 72 hours.

A device that is not renewed gets nothing: that is how a lost one is shut out. So each failure has one reason, and no
failure costs the certificate that there is (docs/online-api.md, "The device itself").
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from verifier.clock import Clock
from verifier.codec.device import DEVICE_ID, ENROL_PATH
from verifier.durable import replace_file, sync_folder
from verifier.errors import VerifierError
from verifier.secret_files import destroy, read_secret, write_secret
from verifier.types import Code

LONGEST_LIFE = timedelta(days=8)  # of a certificate that is taken: short lives are the remote revocation

_CODE = re.compile(r"[A-Za-z0-9-]{20,23}")


class Why(Code):
    """The one reason why there is no certificate, or no key."""

    NOT_ENROLLED = "NOT_ENROLLED"
    LOST = "LOST"
    HELD = "HELD"
    EXPIRED = "EXPIRED"
    UNKNOWN = "UNKNOWN"
    CLOCK = "CLOCK"
    CODE = "CODE"
    CENTRE = "CENTRE"
    UNREACHABLE = "UNREACHABLE"


REASONS = {
    Why.NOT_ENROLLED: "this device is not enrolled: 'markcheck enrol' with a code of the registrar",
    Why.LOST: "the centre has this device down as lost",
    Why.HELD: "the centre holds this device back: go to the registrar",
    Why.EXPIRED: "the certificate has ended: enrol with a new code (and look at the clock)",
    Why.UNKNOWN: "the centre does not know this device's certificate: enrol with a new code",
    Why.CLOCK: "by this clock the centre's certificate is not valid: set the clock first",
    Why.CODE: "the code is wrong, used or too old: ask for another one",
    Why.CENTRE: "what answers is not the centre that this device trusts, or it does not speak as one",
    Why.UNREACHABLE: "the centre cannot be reached now: try again",
}
"""Each reason for people."""


class IdentityError(VerifierError):
    """No certificate or no key; `order` is what the refusal carried, and proves nothing before it is verified."""

    def __init__(self, why: Why, *, order: bytes | None = None) -> None:
        super().__init__(REASONS[why])
        self.why = why
        self.order = order


class Client(Protocol):
    """What asks the centre: `verifier.device_http.DeviceClient`."""

    def ask(self, method: str, path: str, value: dict[str, str] | None = None) -> dict[str, Any]:
        """The JSON object that the centre answers; IdentityError."""


@dataclass(frozen=True, slots=True)
class IdentityFiles:
    """Where they lie. The key never leaves its file but for the TLS handshake and a request's signature."""

    ca: Path
    certificate: Path
    key: Path

    @property
    def next_key(self) -> Path:
        """The key of an enrolment that has not been answered yet: the same code must come with the same key."""
        return self.key.with_name(f"{self.key.name}.next")


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What stands in the device's certificate."""

    device: str
    not_before: datetime
    not_after: datetime

    @property
    def renew_from(self) -> datetime:
        """Half of its life: from then on it is to be renewed."""
        return self.not_before + (self.not_after - self.not_before) / 2


class Identity:
    """The device's key and certificate. `client` makes what asks the centre, with the certificate or without one.

    OSError for a card that fails; the certificate in use stays then.
    """

    def __init__(self, files: IdentityFiles, client: Callable[[bool], Client], clock: Clock) -> None:
        self.files, self._client, self._clock = files, client, clock

    def certificate(self) -> Certificate | None:
        """The present certificate, None without one that can be read. Finishes an enrolment that was cut off."""
        settle(self.files)
        found, key = _parsed(read_secret(self.files.certificate)), _load_key(self.files.key)
        return _claims(found) if found is not None and _fits(found, key) else None

    def enrol(self, code: str) -> Certificate:
        """The first certificate, for a code; IdentityError. After a failure the same code may be tried again."""
        if _CODE.fullmatch(code) is None:
            raise IdentityError(Why.CODE)
        settle(self.files)
        private = _load_key(self.files.next_key)
        if private is None:
            private = generate_private_key(SECP256R1())
            pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            write_secret(self.files.next_key, pem)
        answer = self._client(False).ask("POST", ENROL_PATH, {"csr": _request(private), "code": code})
        issued, claims = self._checked(answer, private)
        replace_file(self.files.certificate, issued.public_bytes(Encoding.PEM))
        settle(self.files)
        return claims

    def renew(self) -> Certificate:
        """A further certificate for the same key; IdentityError, and then the present one stays."""
        held = self.certificate()
        private = _load_key(self.files.key)
        if held is None or private is None:
            raise IdentityError(Why.NOT_ENROLLED)
        answer = self.ask("POST", ENROL_PATH, {"csr": _request(private)})
        issued, claims = self._checked(answer, private)
        if claims.device != held.device:
            raise IdentityError(Why.CENTRE)
        if claims.not_after <= held.not_after:
            return held  # the centre's clock went back: the longer life is the better one
        replace_file(self.files.certificate, issued.public_bytes(Encoding.PEM))
        return claims

    def ask(self, method: str, path: str, value: dict[str, str] | None = None) -> dict[str, Any]:
        """As `Client.ask`, with this device's certificate; IdentityError."""
        held = self.certificate()
        if held is None:
            raise IdentityError(Why.NOT_ENROLLED)
        try:
            return self._client(True).ask(method, path, value)
        except IdentityError as exc:
            # TLS says at most that a certificate was not taken, and may just break off: why is known here.
            if exc.why in (Why.UNKNOWN, Why.UNREACHABLE) and self._clock() >= held.not_after:
                raise IdentityError(Why.EXPIRED, order=exc.order) from exc
            raise

    def _checked(
        self, answer: dict[str, Any], private: EllipticCurvePrivateKey
    ) -> tuple[x509.Certificate, Certificate]:
        """A certificate by the trusted CA for this key; IdentityError for any other answer."""
        text = answer.get("certificate")
        issued = _parsed(text.encode() if type(text) is str else None)
        authority = _parsed(read_secret(self.files.ca))
        if issued is None or authority is None or not _fits(issued, private):
            raise IdentityError(Why.CENTRE)
        try:
            issued.verify_directly_issued_by(authority)
            purposes = issued.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.ExtensionNotFound) as exc:
            raise IdentityError(Why.CENTRE) from exc
        claims = _claims(issued)
        if claims is None or ExtendedKeyUsageOID.CLIENT_AUTH not in purposes:
            raise IdentityError(Why.CENTRE)
        return issued, claims


def settle(files: IdentityFiles) -> None:
    """Finish an enrolment that a power cut interrupted: the certificate is there, its key has yet to take its place.

    At no moment is there neither the old pair nor the new one.
    """
    coming = read_secret(files.next_key)
    if coming is None:
        return
    key, issued = _load_key(files.next_key), _parsed(read_secret(files.certificate))
    if key is None:
        destroy(files.next_key)  # rotten: another one is made
    elif issued is not None and _fits(issued, key):
        destroy(files.key)  # overwritten first: to rename over it would leave it readable on the card
        files.next_key.replace(files.key)
        sync_folder(files.key.parent)


def check_ca(data: bytes) -> None:
    """IdentityError for bytes that are no CA certificate in PEM."""
    if _parsed(data) is None or b"PRIVATE KEY" in data:
        raise IdentityError(Why.CENTRE)


def _request(private: EllipticCurvePrivateKey) -> str:
    """A certificate request (PKCS 10, RFC 2986) that names nobody: what the device is called says the centre."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(private, SHA256()).public_bytes(Encoding.PEM).decode("ascii")


def _load_key(path: Path) -> EllipticCurvePrivateKey | None:
    data = read_secret(path)
    try:
        key = None if data is None else load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, EllipticCurvePrivateKey) else None


def _parsed(pem: bytes | None) -> x509.Certificate | None:
    try:
        return None if pem is None else x509.load_pem_x509_certificate(pem)
    except ValueError:
        return None


def _fits(issued: x509.Certificate, key: EllipticCurvePrivateKey | None) -> bool:
    """Whether the certificate is for this key; one for a kind of key that nobody knows fits none."""
    try:
        return key is not None and issued.public_key() == key.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return False


def _claims(issued: x509.Certificate) -> Certificate | None:
    """What a certificate says; None for one that is no device's."""
    names = issued.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = names[0].value if len(names) == 1 else ""
    begin, end = issued.not_valid_before_utc, issued.not_valid_after_utc
    if type(name) is not str or DEVICE_ID.fullmatch(name) is None or not timedelta(0) < end - begin <= LONGEST_LIFE:
        return None
    return Certificate(device=name, not_before=begin, not_after=end)
