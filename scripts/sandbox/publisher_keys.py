"""The publisher's private keys: one Ed25519 key for each role, and two for each region (nightly, hot)."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

from verifier.secret_files import write_secret

ROLES = ("root", "targets", "snapshot", "timestamp")
PROVISIONING = "provisioning"
"""The name under which the key of provisioning files is kept; the root names it, and it is no role of the metadata."""
_SUFFIX = ".pem"


def nightly_role(region: str) -> str:
    """The role that signs a region's nightly index, and nothing else."""
    return f"nightly-{region}"


def hot_role(region: str) -> str:
    """The name under which the key of a region's hot list is kept; it is no role of the signed metadata."""
    return f"hot-{region}"


class PublisherKeys:
    """Signers by role name; keys of the regions come beside those of the four top-level roles.

    With a `folder`, a key that is made later is written there at once: what it signs must be renewed tomorrow.
    """

    def __init__(self, private: dict[str, Ed25519PrivateKey], folder: Path | None = None) -> None:
        self._private = private
        self._folder = folder
        self._signers = {role: CryptoSigner(key) for role, key in private.items()}

    @classmethod
    def generate(cls, region: str) -> PublisherKeys:
        """Fresh keys, in memory only."""
        roles = (*ROLES, nightly_role(region), hot_role(region))
        return cls({role: Ed25519PrivateKey.generate() for role in roles})

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
        return cls(private, folder)

    def save(self, folder: Path) -> None:
        """Write one file for each role, mode 0600, into a folder of mode 0700."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        for role, key in self._private.items():
            _write(folder / f"{role}{_SUFFIX}", key)

    def ensure(self, role: str) -> None:
        """Make a key for a role that has none yet: a region that is new in a repository. OSError."""
        if role not in self._private:
            key = Ed25519PrivateKey.generate()
            if self._folder is not None:
                _write(self._folder / f"{role}{_SUFFIX}", key)
            self._private[role] = key
            self._signers[role] = CryptoSigner(key)

    def private(self, role: str) -> Ed25519PrivateKey:
        """The key itself, to sign what is no metadata of the distribution."""
        return self._private[role]

    def __getitem__(self, role: str) -> CryptoSigner:
        return self._signers[role]


def _write(path: Path, key: Ed25519PrivateKey) -> None:
    write_secret(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
