"""The publisher's private keys: one Ed25519 key for each role."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

ROLES = ("root", "targets", "snapshot", "timestamp")
_SUFFIX = ".pem"


class PublisherKeys:
    """Signers by role name; the nightly roles of the regions come beside the four top-level ones."""

    def __init__(self, private: dict[str, Ed25519PrivateKey]) -> None:
        self._private = private
        self._signers = {role: CryptoSigner(key) for role, key in private.items()}

    @classmethod
    def generate(cls, region: str) -> PublisherKeys:
        """Fresh keys, in memory only."""
        return cls({role: Ed25519PrivateKey.generate() for role in (*ROLES, f"nightly-{region}")})

    @classmethod
    def load(cls, folder: Path) -> PublisherKeys:
        """Read what `save` wrote; FileNotFoundError when a top-level role's key is missing, ValueError for no key."""
        private = {}
        for path in sorted(folder.glob(f"*{_SUFFIX}")):
            key = load_pem_private_key(path.read_bytes(), password=None)
            if not isinstance(key, Ed25519PrivateKey):
                raise ValueError(f"{path.name}: not an Ed25519 key")  # noqa: TRY004 - a bad file, not a bad call
            private[path.name.removesuffix(_SUFFIX)] = key
        for role in ROLES:
            if role not in private:
                raise FileNotFoundError(f"{role}{_SUFFIX}")
        return cls(private)

    def save(self, folder: Path) -> None:
        """Write one file for each role, mode 0600, into a folder of mode 0700."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for role, key in self._private.items():
            data = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            path = folder / f"{role}{_SUFFIX}"
            fresh = path.with_suffix(".new")
            fresh.unlink(missing_ok=True)
            # The mode is given when the file is made: there is no moment at which others could read it.
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            fresh.replace(path)

    def ensure(self, role: str) -> None:
        """Make a key for a role that has none yet: a region that is new in a repository."""
        if role not in self._private:
            self._private[role] = Ed25519PrivateKey.generate()
            self._signers[role] = CryptoSigner(self._private[role])

    def __getitem__(self, role: str) -> CryptoSigner:
        return self._signers[role]
