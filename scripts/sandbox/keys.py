"""The sandbox authority's signing keys. They are made here and never leave this side; the appliance has none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import assert_never

from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    derive_private_key,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from scripts.sandbox.sm2_keys import Sm2PrivateKey, is_sm2_pem
from verifier.codec.credential import HolderKey
from verifier.secret_files import write_secret
from verifier.signature import load_public_key
from verifier.trust import ANY_REGION, TrustedKey, key_id
from verifier.types import Algorithm, KeyRole, KeyState, Serial

PrivateKey = EllipticCurvePrivateKey | Ed25519PrivateKey | Sm2PrivateKey

DAY = 86400  # seconds
SIGNS_FOR = 400 * DAY  # how long a key signs
ACCEPTED_FOR = SIGNS_FOR + 800 * DAY  # its longest-lived credential outlives it by 800 days
BACKDATED = 400 * DAY  # the sandbox also shows credentials issued before it was started
# The longest life of what a key signed. A picture of a live code may be forwarded as long as its credential lives.
SIGNED_LIVES = {
    KeyRole.CREDENTIAL: 800 * DAY, KeyRole.FRESHNESS: 35 * DAY, KeyRole.STATUS: DAY, KeyRole.TAG: 800 * DAY,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key and the trust list entry of its public half."""

    private: PrivateKey
    entry: TrustedKey

    @property
    def alg(self) -> Algorithm:
        """The algorithm that it signs with."""
        return self.entry.alg

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature of the message."""
        return sign_raw(self.private, message)

    def in_state(self, state: KeyState) -> SigningKey:
        """The same key with its entry in another state."""
        return replace(self, entry=replace(self.entry, state=state))

    def ended(self, at: int, state: KeyState) -> SigningKey:
        """The same key when it signs no more from `at` (POSIX seconds) on; what it signed is accepted while it lives.

        ValueError when it did not sign yet at that moment.
        """
        if at < self.entry.not_before:
            raise ValueError("the key has not begun to sign")
        not_after = min(at, self.entry.not_after)
        until = min(self.entry.until, not_after + SIGNED_LIVES[self.entry.role])
        return replace(self, entry=replace(self.entry, not_after=not_after, until=until, state=state))


def make_private_key(alg: Algorithm) -> PrivateKey:
    """A fresh key; ValueError for an algorithm that this machine cannot sign with."""
    if alg is Algorithm.ES256:
        return generate_private_key(SECP256R1())
    if alg is Algorithm.EDDSA:
        return Ed25519PrivateKey.generate()
    if alg is Algorithm.SM2:
        return Sm2PrivateKey.generate()
    assert_never(alg)


def public_bytes(private: PrivateKey) -> bytes:
    """65 bytes 04 X Y, or 32 bytes."""
    if isinstance(private, Sm2PrivateKey):
        return private.public_bytes()
    public = private.public_key()
    if isinstance(private, Ed25519PrivateKey):
        return public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def sign_raw(private: PrivateKey, message: bytes) -> bytes:
    """r || s or R || S, 64 bytes."""
    if isinstance(private, (Ed25519PrivateKey, Sm2PrivateKey)):
        return private.sign(message)
    r, s = decode_dss_signature(private.sign(message, ECDSA(SHA256())))
    return r.to_bytes(32) + s.to_bytes(32)


def signing_key(alg: Algorithm, *, issuer: str, regions: tuple[str, ...], role: KeyRole, now: datetime) -> SigningKey:
    """A fresh key with its entry, good from a year before `now`."""
    return _with_entry(make_private_key(alg), alg, issuer, regions, role, int(now.timestamp()), BACKDATED)


def status_key(issuer: str, at: int, private: tuple[PrivateKey, Algorithm] | None = None) -> SigningKey:
    """The key with which a status server signs from `at` (POSIX seconds) on: a fresh one, or one that exists."""
    key, alg = private or (make_private_key(Algorithm.EDDSA), Algorithm.EDDSA)
    return _with_entry(key, alg, issuer, (ANY_REGION,), KeyRole.STATUS, at, 0)


def next_key(old: SigningKey, at: int, private: tuple[PrivateKey, Algorithm] | None = None) -> SigningKey:
    """The key that takes the place of `old` and signs from `at` (POSIX seconds) on: a fresh one of the same algorithm.

    Or one that exists, with its algorithm.
    """
    entry = old.entry
    key, alg = private or (make_private_key(entry.alg), entry.alg)
    return _with_entry(key, alg, entry.issuer, entry.regions, entry.role, at, 0)


def _with_entry(
    private: PrivateKey,
    alg: Algorithm,
    issuer: str,
    regions: tuple[str, ...],
    role: KeyRole,
    made: int,
    backdated: int,
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
        not_before=made - backdated,
        not_after=made + SIGNS_FOR,
        until=made + ACCEPTED_FOR,
        state=KeyState.ACTIVE,
    )
    return SigningKey(private, entry)


def save_keys(folder: Path, keys: Iterable[SigningKey]) -> None:
    """Write each key as FOLDER/ISSUER-ROLE.pem (PKCS 8, mode 0600)."""
    folder.mkdir(parents=True, exist_ok=True)
    for key in keys:
        write_secret(folder / f"{key.entry.issuer}-{key.entry.role.name.lower()}.pem", _to_pem(key.private))


def load_key(folder: Path, *, issuer: str, regions: tuple[str, ...], role: KeyRole, begin: datetime) -> SigningKey:
    """Read a key that `save_keys` wrote; `begin` is the moment the authority was made."""
    private, alg = _from_pem((folder / f"{issuer}-{role.name.lower()}.pem").read_bytes())
    return _with_entry(private, alg, issuer, regions, role, int(begin.timestamp()), BACKDATED)


def save_next_key(folder: Path, key: SigningKey) -> None:
    """Write a later key of an issuer beside the earlier ones, as FOLDER/ISSUER-ROLE-KID.pem."""
    write_secret(_later(folder, key.entry.issuer, key.entry.role, key.entry.key_id), _to_pem(key.private))


def load_next_key(folder: Path, old: SigningKey, kid: str, at: int) -> SigningKey:
    """Read the key that `save_next_key` wrote; ValueError when the file holds another one."""
    path = _later(folder, old.entry.issuer, old.entry.role, kid)
    return _named(next_key(old, at, _from_pem(path.read_bytes())), kid, path)


def load_status_key(folder: Path, issuer: str, kid: str, at: int) -> SigningKey:
    """Read the status key that `save_next_key` wrote; ValueError when the file holds another one."""
    path = _later(folder, issuer, KeyRole.STATUS, kid)
    return _named(status_key(issuer, at, _from_pem(path.read_bytes())), kid, path)


def _named(key: SigningKey, kid: str, path: Path) -> SigningKey:
    if key.entry.key_id != kid:
        raise ValueError(f"{path.name}: holds another key")
    return key


def _later(folder: Path, issuer: str, role: KeyRole, kid: str) -> Path:
    return folder / f"{issuer}-{role.name.lower()}-{kid}.pem"


def _to_pem(private: PrivateKey) -> bytes:
    if isinstance(private, Sm2PrivateKey):
        return private.pem()
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _from_pem(pem: bytes) -> tuple[PrivateKey, Algorithm]:
    if is_sm2_pem(pem):
        return Sm2PrivateKey.from_pem(pem), Algorithm.SM2
    private = load_pem_private_key(pem, None)
    if isinstance(private, Ed25519PrivateKey):
        return private, Algorithm.EDDSA
    if isinstance(private, EllipticCurvePrivateKey):
        return private, Algorithm.ES256
    raise TypeError("a private key that is neither P-256, Ed25519 nor SM2")


# ------------------------------------------------------------------------------------------ holders' keys


@dataclass(frozen=True, slots=True)
class HolderSigner:
    """The private half of a credential's confirmation key (cnf): it lies in the phone that shows the credential."""

    private: PrivateKey
    public: HolderKey

    @property
    def alg(self) -> Algorithm:
        """The algorithm that it signs with."""
        return self.public.alg

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature of the message."""
        return sign_raw(self.private, message)


_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # SP 800-186 clause 3.2.1.3


def holder_signer(seed: bytes, serial: Serial, alg: Algorithm = Algorithm.ES256) -> HolderSigner:
    """The holder's key of one credential, P-256 or Ed25519, always the same from the same secret seed.

    A re-issue has another serial and so another key: a lost phone shows nothing any more.
    """
    secret = HKDF(SHA256(), 48, None, b"VM1-HOLDER" + bytes.fromhex(serial)).derive(seed)
    if alg is Algorithm.EDDSA:
        private: PrivateKey = Ed25519PrivateKey.from_private_bytes(secret[:32])
        return HolderSigner(private, HolderKey(alg, public_bytes(private)))
    if alg is not Algorithm.ES256:
        raise ValueError("a holder's key is P-256 or Ed25519")
    # FIPS 186-5 appendix A.2.1: with 128 bits more than the order, the remainder has no bias that matters.
    private = derive_private_key(int.from_bytes(secret) % (_P256_ORDER - 1) + 1, SECP256R1())
    point = private.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    return HolderSigner(private, HolderKey(alg, point))
