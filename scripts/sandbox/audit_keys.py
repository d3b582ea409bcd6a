"""The authority's side of sealed audit logs: its private key, and what opens with it. No device has any of this."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from verifier.audit_file import Entry, Line, digest, dump, read_lines
from verifier.errors import AuditError
from verifier.seal import (
    KEY_LENGTH,
    NONCE,
    SESSION,
    SUITE,
    Ratchet,
    associated,
    audit_key,
    is_sealed,
    photo_info,
    session_info,
)
from verifier.secret_files import write_secret

PUBLIC_FILE = "audit-key.pem"
PRIVATE_FILE = "audit.key"


def open_or_make_key(private: Path, public: Path) -> X25519PrivateKey:
    """The key kept as `private`/audit.key and `public`/audit-key.pem, made there at the first time. AuditError."""
    path = private / PRIVATE_FILE
    if not path.exists():
        made = X25519PrivateKey.generate()
        write_secret(path, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key = load_private_key(path)
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    if not (public / PUBLIC_FILE).exists():
        (public / PUBLIC_FILE).write_bytes(pem)
    return key


def load_private_key(path: Path) -> X25519PrivateKey:
    """Read the private key; AuditError for anything else."""
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except OSError as exc:
        raise AuditError(f"private audit key: cannot be read: {exc.strerror}") from exc
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise AuditError("private audit key: not a private key in PEM") from exc
    if not isinstance(key, X25519PrivateKey):
        raise AuditError("private audit key: not an X25519 key")
    return key


class Opener:
    """Opens the lines of one log in order. Several sessions may run at once."""

    def __init__(self, private: X25519PrivateKey) -> None:
        self._private, self._id = private, audit_key(private.public_key()).key_id
        self._sessions: dict[str, Ratchet] = {}

    def open(self, line: Line) -> Entry:
        """One line; AuditError names the number of one that was not sealed as it stands."""
        entry = line.entry
        if entry is None:
            return Entry(line, None, sealed=False)
        if not is_sealed(entry):
            return Entry(line, {name: value for name, value in entry.items() if name != "prev"}, sealed=False)
        try:
            if entry.get("kind") == SESSION:
                if entry["to"] != self._id:
                    raise AuditError(f"audit log: line {line.number} is sealed to another key")
                self._begin(entry)
                return Entry(line, None, sealed=True)
            return Entry(line, self._record(entry), sealed=True)
        except (InvalidTag, ValueError, KeyError, TypeError, RecursionError) as exc:
            raise AuditError(f"audit log: line {line.number} is not as it was sealed") from exc

    def _begin(self, entry: dict[str, Any]) -> None:
        if entry["s"] in self._sessions:
            raise ValueError("a session that began before")
        first = SUITE.decrypt(_box(entry), self._private, session_info(entry["s"], entry["prev"]))
        if len(first) != KEY_LENGTH:
            raise ValueError("not a key")
        self._sessions[entry["s"]] = Ratchet(first)

    def _record(self, entry: dict[str, Any]) -> dict[str, Any]:
        ratchet = self._sessions[entry["s"]]
        if entry["n"] != ratchet.number:
            raise ValueError("not the next record of its session")
        plain = ChaCha20Poly1305(ratchet.step()).decrypt(NONCE, _box(entry), associated(entry, entry["prev"]))
        record = json.loads(plain)
        if not isinstance(record, dict):
            raise TypeError("not a record")
        return record


def open_log(path: Path, private: X25519PrivateKey) -> Iterator[Entry]:
    """The lines of a log, opened; AuditError names the first that does not follow or does not open."""
    opener = Opener(private)
    return (opener.open(line) for line in read_lines(path))


def opened_lines(opened: Iterator[Entry]) -> Iterator[bytes]:
    """A plain log of the same records, in a chain of its own; `of` says which line each was."""
    previous = "0" * 64
    for one in opened:
        if one.record is not None:
            of = {"line": one.line.number, "head": one.line.head.head.hex()}
            made = dump(previous, {**one.record, "of": of})
            previous = digest(made)
            yield made


def open_photo(private: X25519PrivateKey, name: str, sealed: bytes) -> bytes:
    """A photo that a device sealed under this name; AuditError."""
    try:
        return SUITE.decrypt(sealed, private, photo_info(name))
    except InvalidTag as exc:
        raise AuditError("photo: not as it was sealed") from exc


def _box(entry: dict[str, Any]) -> bytes:
    return base64.b64decode(entry["box"], validate=True)
