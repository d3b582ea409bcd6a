"""Seals audit records and photos to the authority's public key: the device cannot read back what it wrote.

HPKE (RFC 9180, base mode: X25519, HKDF-SHA256, ChaCha20-Poly1305) carries the first key of a session. Each record is
sealed (ChaCha20-Poly1305, RFC 8439) under a key of its own. Keys go forward by HMAC-SHA256, never back, and those
before are dropped. The tag of a record covers its place and the hash of the line before it, and so all before it.
Nothing here can open anything: the private key stays with the authority.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from verifier.errors import AuditError

SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
VERSION = 1
SESSION = "session"  # the kind of a line that opens a session
KEY_LENGTH = 32  # bytes
NONCE = bytes(12)  # each key seals one record
MAX_KEY_FILE = 4096  # bytes
_SESSION_ID = 8  # bytes


@dataclass(frozen=True, slots=True)
class AuditKey:
    """The authority's public key; `key_id` is the hex of the first 8 bytes of its SHA-256."""

    public: X25519PublicKey
    key_id: str


def audit_key(public: X25519PublicKey) -> AuditKey:
    """The key with its name."""
    raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return AuditKey(public, hashlib.sha256(raw).hexdigest()[:16])


def load_audit_key(path: Path) -> AuditKey:
    """Read a PEM file with an X25519 public key (RFC 8410); AuditError for anything else."""
    try:
        with path.open("rb") as file:
            public = load_pem_public_key(file.read(MAX_KEY_FILE))
    except OSError as exc:
        raise AuditError(f"audit key: cannot be read: {exc.strerror}") from exc
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise AuditError("audit key: not a public key in PEM") from exc
    if not isinstance(public, X25519PublicKey):
        raise AuditError("audit key: not an X25519 key")
    return audit_key(public)


@dataclass(slots=True)
class Ratchet:
    """A row of keys from a first one; what it holds leads to the keys that come, and to none before."""

    key: bytes = field(repr=False)
    number: int = 0  # of the next record

    def step(self) -> bytes:
        """The key of the next record."""
        now = hmac.digest(self.key, b"record", "sha256")
        self.key = hmac.digest(self.key, b"next", "sha256")
        self.number += 1
        return now


def session_info(session_id: str, previous: str) -> bytes:
    """What binds the first key of a session to its place in the log; both are hex."""
    return b"markcheck audit session 1|" + f"{session_id}|{previous}".encode()


def associated(fields: dict[str, Any], previous: str) -> bytes:
    """What the tag of a record covers besides it: all fields of its line that can be read, and the line before it."""
    readable = {name: value for name, value in fields.items() if name not in ("box", "prev")}
    told = json.dumps(readable, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return b"markcheck audit record 1|" + f"{previous}|{told}".encode()


class Session:
    """The records of one run of the program on one day; begins at a place in the log."""

    def __init__(self, key: AuditKey, previous: str, day: str) -> None:
        first = secrets.token_bytes(KEY_LENGTH)
        self.day = day
        self._id = secrets.token_hex(_SESSION_ID)
        self._ratchet = Ratchet(first)
        box = SUITE.encrypt(first, key.public, session_info(self._id, previous))
        self.opening: dict[str, Any] = {
            "day": day, "kind": SESSION, "v": VERSION, "s": self._id, "to": key.key_id, "box": _text(box),
        }  # fmt: skip

    def seal(self, plain: bytes, readable: dict[str, Any], previous: str) -> dict[str, Any]:
        """The fields of a record's line that follows the line of the hash `previous`; `readable` stays so."""
        fields = {**readable, "s": self._id, "n": self._ratchet.number}
        box = ChaCha20Poly1305(self._ratchet.step()).encrypt(NONCE, plain, associated(fields, previous))
        return {**fields, "box": _text(box)}


def is_sealed(entry: dict[str, Any]) -> bool:
    """Whether a line of the log is one of a sealed log."""
    return "box" in entry


def photo_info(name: str) -> bytes:
    """What binds a sealed photo to its name."""
    return b"markcheck photo 1|" + name.encode()


def seal_photo(key: AuditKey, name: str, picture: bytes) -> bytes:
    """A photo sealed by itself, bound to its name: 48 bytes more."""
    return SUITE.encrypt(picture, key.public, photo_info(name))


def _text(box: bytes) -> str:
    return base64.b64encode(box).decode("ascii")
