"""The sandbox's certificate authority for devices (X.509, RFC 5280): one P-256 root for the server and the handhelds.

Its key is made here and stays here; a device gets the root certificate by hand, as it gets root.json.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from verifier.clock import Clock
from verifier.codec.device import DEVICE_ID
from verifier.secret_files import write_secret

ROOT_LIFE = timedelta(days=3650)
SERVER_LIFE = timedelta(days=397)
DEVICE_LIFE = timedelta(hours=72)
BACKDATED = timedelta(minutes=10)  # clocks of a server and its signer differ
MAX_CSR = 4096  # characters of PEM
LOOPBACK = ("localhost", "127.0.0.1", "::1")
URN = "urn:markcheck:device:"

_CA_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "markcheck sandbox device CA")])
_KEY_FILE, _CERTIFICATE_FILE = "device-ca.key", "device-ca.pem"


class CsrError(ValueError):
    """A certificate request that is refused; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCertificate:
    """A client certificate: its PEM, its serial number and its key's SHA-256 (both hex), and its last moment."""

    pem: str
    serial: str
    key: str
    not_after: datetime


class DeviceCa:
    """Issues the server's certificate and those of the devices."""

    def __init__(self, private: EllipticCurvePrivateKey, root: x509.Certificate, clock: Clock) -> None:
        self._private = private
        self._root = root
        self._clock = clock

    @classmethod
    def generate(cls, clock: Clock) -> DeviceCa:
        """A fresh root, in memory only."""
        private = generate(SECP256R1())
        builder = _builder(_CA_NAME, private.public_key(), clock(), ROOT_LIFE)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
        builder = builder.add_extension(_key_id(private.public_key()), critical=False)
        return cls(private, builder.sign(private, SHA256()), clock)

    @classmethod
    def open(cls, private: Path, public: Path, clock: Clock) -> DeviceCa:
        """The root kept as `private`/device-ca.key and `public`/device-ca.pem, made there at the first time.

        OSError; ValueError for files that hold something else.
        """
        key_file, root_file = private / _KEY_FILE, ca_file(public)
        if not key_file.exists():
            made = cls.generate(clock)
            root_file.write_text(made.root_pem, encoding="ascii")
            write_secret(key_file, _key_pem(made._private))  # last: with it the root is there
        key = load_pem_private_key(key_file.read_bytes(), None)
        root = x509.load_pem_x509_certificate(root_file.read_bytes())
        if not isinstance(key, EllipticCurvePrivateKey) or root.public_key() != key.public_key():
            raise ValueError(f"{root_file.name}: not the certificate of the key in {key_file.name}")
        return cls(key, root, clock)

    @property
    def root_pem(self) -> str:
        """The root certificate, which a device is given by hand."""
        return self._root.public_bytes(Encoding.PEM).decode("ascii")

    def device_certificate(self, csr_pem: str, device: str) -> DeviceCertificate:
        """A 72-hour client certificate for the key of this request; CsrError.

        Only the key is taken from the request: what the device is called says the authority.
        """
        if DEVICE_ID.fullmatch(device) is None:
            raise ValueError("device id: lower-case letters, digits and hyphens, at most 40")
        public, now = _requested_key(csr_pem), self._clock()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
        alternative = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(URN + device)])
        signed = self._leaf(name, public, now, DEVICE_LIFE, ExtendedKeyUsageOID.CLIENT_AUTH, alternative)
        return DeviceCertificate(
            pem=signed.public_bytes(Encoding.PEM).decode("ascii"), serial=f"{signed.serial_number:x}",
            key=key_hash(public), not_after=signed.not_valid_after_utc,
        )  # fmt: skip

    def server_context(self, names: Sequence[str] = LOOPBACK) -> ssl.SSLContext:
        """TLS 1.2 or later for a server of these names, with a fresh key; clients may show a certificate of ours.

        A request without one is for the server to refuse: enrolment has none yet.
        """
        key = generate(SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        alternative = x509.SubjectAlternativeName([_general_name(text) for text in names])
        usage = ExtendedKeyUsageOID.SERVER_AUTH
        signed = self._leaf(name, key.public_key(), self._clock(), SERVER_LIFE, usage, alternative)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.verify_mode = ssl.CERT_OPTIONAL
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
        context.load_verify_locations(cadata=self.root_pem)
        with tempfile.TemporaryDirectory() as folder:  # the ssl module reads a key from files alone
            pair = Path(folder) / "server.pem"
            write_secret(pair, _key_pem(key) + signed.public_bytes(Encoding.PEM))
            context.load_cert_chain(os.fspath(pair))
        return context

    def _leaf(
        self,
        name: x509.Name,
        public: EllipticCurvePublicKey,
        now: datetime,
        life: timedelta,
        purpose: x509.ObjectIdentifier,
        alternative: x509.SubjectAlternativeName,
    ) -> x509.Certificate:
        builder = _builder(name, public, now, life)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._private.public_key())
        for extension, critical in (
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_usage(signs_certificates=False), True),
            (x509.ExtendedKeyUsage([purpose]), False),
            (alternative, False),
            (_key_id(public), False),
            (issuer, False),
        ):
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(self._private, SHA256())


def ca_file(folder: Path) -> Path:
    """Where `DeviceCa.open` keeps the root certificate."""
    return folder / _CERTIFICATE_FILE


def make_csr(private: EllipticCurvePrivateKey) -> str:
    """A request (PKCS 10, RFC 2986) for a certificate of this key, as a device makes it."""
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return request.sign(private, SHA256()).public_bytes(Encoding.PEM).decode("ascii")


def key_hash(public: EllipticCurvePublicKey) -> str:
    """SHA-256 of the key's SubjectPublicKeyInfo, as hex."""
    return hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def requested_key_hash(csr_pem: str) -> str:
    """The hash of the key in a request; CsrError."""
    return key_hash(_requested_key(csr_pem))


_PEM = re.compile(r"-----BEGIN CERTIFICATE REQUEST-----\n[A-Za-z0-9+/=\n]+-----END CERTIFICATE REQUEST-----\n?")


def _requested_key(csr_pem: str) -> EllipticCurvePublicKey:
    if len(csr_pem) > MAX_CSR or _PEM.fullmatch(csr_pem) is None:
        raise CsrError("not a certificate request in PEM")
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode("ascii"))
        public, sound = request.public_key(), request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as exc:
        raise CsrError("not a certificate request that this program can read") from exc
    if not isinstance(public, EllipticCurvePublicKey) or not isinstance(public.curve, SECP256R1):
        raise CsrError("the key is not on P-256")
    if not sound:
        raise CsrError("not signed with the key that it asks for")
    return public


def _builder(
    name: x509.Name, public: EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(_CA_NAME)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + life)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _key_id(public: EllipticCurvePublicKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(public)


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _key_pem(private: EllipticCurvePrivateKey) -> bytes:
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
