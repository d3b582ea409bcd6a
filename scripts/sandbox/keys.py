"""The sandbox authority's signing keys. They are made here and never leave this side; the appliance has none."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from verifier.signature import load_public_key
from verifier.trust import TrustedKey, key_id
from verifier.types import Algorithm, KeyRole, KeyState

PrivateKey = EllipticCurvePrivateKey | Ed25519PrivateKey

DAY = 86400  # seconds
SIGNS_FOR = 400 * DAY  # how long a key signs
ACCEPTED_FOR = SIGNS_FOR + 800 * DAY  # its longest-lived credential outlives it by 800 days
BACKDATED = 400 * DAY  # the sandbox also shows credentials issued before it was started


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key and the trust list entry of its public half."""

    private: PrivateKey
    entry: TrustedKey

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature of the message."""
        return sign_raw(self.private, message)

    def in_state(self, state: KeyState) -> SigningKey:
        """The same key with its entry in another state."""
        return replace(self, entry=replace(self.entry, state=state))


def make_private_key(alg: Algorithm) -> PrivateKey:
    """A fresh key; ValueError for an algorithm that this machine cannot sign with."""
    if alg is Algorithm.ES256:
        return generate_private_key(SECP256R1())
    if alg is Algorithm.EDDSA:
        return Ed25519PrivateKey.generate()
    raise ValueError(f"no key can be made for {alg.name} here")


def public_bytes(private: PrivateKey) -> bytes:
    """65 bytes 04 X Y, or 32 bytes."""
    public = private.public_key()
    if isinstance(private, Ed25519PrivateKey):
        return public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def sign_raw(private: PrivateKey, message: bytes) -> bytes:
    """r || s or R || S, 64 bytes."""
    if isinstance(private, Ed25519PrivateKey):
        return private.sign(message)
    r, s = decode_dss_signature(private.sign(message, ECDSA(SHA256())))
    return r.to_bytes(32) + s.to_bytes(32)


def signing_key(alg: Algorithm, *, issuer: str, regions: tuple[str, ...], role: KeyRole, now: datetime) -> SigningKey:
    """A fresh key with its entry, good from a year before `now`."""
    return _with_entry(make_private_key(alg), alg, issuer, regions, role, int(now.timestamp()) - BACKDATED)


def _with_entry(
    private: PrivateKey, alg: Algorithm, issuer: str, regions: tuple[str, ...], role: KeyRole, begin: int
) -> SigningKey:
    public = public_bytes(private)
    entry = TrustedKey(
        kid=key_id(alg, public),
        alg=alg,
        key=public,
        public=load_public_key(alg, public),
        issuer=issuer,
        regions=regions,
        role=role,
        not_before=begin,
        not_after=begin + BACKDATED + SIGNS_FOR,
        until=begin + BACKDATED + ACCEPTED_FOR,
        state=KeyState.ACTIVE,
    )
    return SigningKey(private, entry)


def write_secret(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)


def save_keys(folder: Path, keys: Iterable[SigningKey]) -> None:
    """Write each key as FOLDER/ISSUER-ROLE.pem (PKCS 8, mode 0600)."""
    folder.mkdir(parents=True, exist_ok=True)
    for key in keys:
        pem = key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_secret(folder / f"{key.entry.issuer}-{key.entry.role.name.lower()}.pem", pem)


def load_key(folder: Path, *, issuer: str, regions: tuple[str, ...], role: KeyRole, begin: datetime) -> SigningKey:
    """Read a key that `save_keys` wrote; `begin` is the moment the authority was made."""
    private = load_pem_private_key((folder / f"{issuer}-{role.name.lower()}.pem").read_bytes(), None)
    if isinstance(private, Ed25519PrivateKey):
        alg = Algorithm.EDDSA
    elif isinstance(private, EllipticCurvePrivateKey):
        alg = Algorithm.ES256
    else:
        raise TypeError(f"{issuer}-{role.name.lower()}.pem: neither P-256 nor Ed25519")
    return _with_entry(private, alg, issuer, regions, role, int(begin.timestamp()) - BACKDATED)
