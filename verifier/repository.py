"""The signed distribution (TUF) behind our own fetcher: which small files are current and genuine.

python-tuf decides about signatures, versions and expiry. Two of its habits do not suit this device and are worked
around here: `download_target` goes through /tmp and replaces its file before it is complete, and expiry is judged
by the machine's clock, which on a device without a battery-backed clock may lie in the past.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tuf.api import exceptions as tuf_errors
from tuf.api.metadata import Metadata, Root  # type: ignore[attr-defined]
from tuf.ngclient.config import UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from verifier.codec.index import MAX_NUMBER
from verifier.errors import DigestError, FetchError, RollbackError, StatusError, SyncError
from verifier.net import Fetcher, read_file
from verifier.snapshot import ExpiredError, SignedFile

METADATA, TARGETS = "metadata/", "targets/"
ENTRIES_TARGET, POLICY_TARGET = "trust/entries.cbor", "policy/policy.json"
SETTINGS_TARGET, MAX_SETTINGS = "settings/settings.toml", 64 << 10  # bytes

_LIMITS = UpdaterConfig(
    max_root_rotations=64,
    max_delegations=40,
    root_max_length=64 << 10,
    timestamp_max_length=16 << 10,
    snapshot_max_length=256 << 10,
    targets_max_length=1 << 20,
)


class SignatureError(SyncError):
    """Signed metadata that do not verify."""


class NotSignedError(SyncError):
    """A file that the signed distribution does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is signed of a file: its path on the server, its length in bytes, its digest (hex), the custom field."""

    path: str
    length: int
    sha256: str
    custom: Mapping[str, Any]


def check_root(data: bytes) -> None:
    """SignatureError unless these are root metadata, signed with their own keys."""
    try:
        root = Metadata[Root].from_bytes(data)
        if root.signed.type != Root.type:
            raise SignatureError("root: other metadata than those of the root")
        root.verify_delegate(Root.type, root)
    except tuf_errors.RepositoryError as exc:
        raise SignatureError("root: not the root metadata of a signed distribution") from exc


def index_target(region: str) -> str:
    """The target path of a region's nightly index."""
    return f"nightly/{region}/index.cbor"


class SignedRepository:
    """One run against the signed distribution; its verified metadata are kept in `trust_dir`.

    `now` is the moment by which expiry is judged; `bootstrap` the root metadata this device was made with.
    """

    def __init__(self, trust_dir: Path, fetcher: Fetcher, bootstrap: bytes, now: datetime) -> None:
        self._fetcher = fetcher
        trust_dir.mkdir(parents=True, exist_ok=True)
        for left in trust_dir.glob("tmp*"):  # of a run that was killed
            left.unlink()
        with _translated():
            self._updater = Updater(
                str(trust_dir), METADATA, fetcher=_Adapter(fetcher), config=_LIMITS, bootstrap=bootstrap
            )
        # There is no public way to give it a clock.
        self._updater._trusted_set.reference_time = now

    def refresh(self) -> None:
        """Fetch and verify root, timestamp, snapshot and targets metadata.

        SignatureError, ExpiredError, RollbackError, DigestError, FetchError; SyncError for anything else.
        """
        with _translated():
            self._updater.refresh()

    @property
    def ends(self) -> datetime:
        """When the verified time stamp runs out: whatever it stands for was made before."""
        ends: datetime = self._updater._trusted_set.timestamp.expires
        return ends

    def get(self, path: str, max_length: int, held: Iterable[bytes | None] = ()) -> SignedFile:
        """A small signed file: one of `held` when it is the current one, else fetched, bounded and verified."""
        target = self.find(path, max_length)
        for data in held:
            if data is not None and hashlib.sha256(data).hexdigest() == target.sha256:
                return _signed(data, target.custom)
        data = read_file(self._fetcher, target.path, target.length)
        if len(data) != target.length or hashlib.sha256(data).hexdigest() != target.sha256:
            raise DigestError("signed metadata: length or digest differs from the signed one")
        return _signed(data, target.custom)

    def find(self, path: str, max_length: int) -> Target:
        """What is signed of a file that the caller fetches; NotSignedError without it, SyncError as above."""
        with _translated():
            target = self._updater.get_targetinfo(path)
        if target is None:
            raise NotSignedError(f"{path}: not in the signed distribution")
        sha256 = target.hashes.get("sha256")
        if sha256 is None or target.length > max_length:
            raise SyncError(f"{path}: signed without SHA-256 or longer than {max_length} bytes")
        folder, slash, name = path.rpartition("/")
        custom = target.custom if isinstance(target.custom, dict) else {}
        return Target(
            path=f"{TARGETS}{folder}{slash}{sha256}.{name}", length=target.length, sha256=sha256, custom=custom
        )


class _Adapter(FetcherInterface):
    """Our fetcher as python-tuf wants it; its own way through a temporary file is not used."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher

    def _fetch(self, url: str) -> Iterator[bytes]:
        yield self.download_bytes(url, _LIMITS.targets_max_length)

    def download_bytes(self, url: str, max_length: int) -> bytes:
        try:
            return read_file(self._fetcher, url, max_length)
        except StatusError as exc:
            raise tuf_errors.DownloadHTTPError(str(exc), exc.code) from exc
        except FetchError as exc:
            raise tuf_errors.DownloadError(str(exc)) from exc


@contextmanager
def _translated() -> Iterator[None]:
    failure: SyncError | None = None
    try:
        yield
    except tuf_errors.DownloadError as exc:
        inner = exc.__cause__
        failure = inner if isinstance(inner, FetchError) else SyncError("signed metadata: download failed")
    except tuf_errors.ExpiredMetadataError as exc:
        raise ExpiredError(
            "signed metadata have expired: the publisher has not signed lately, or this clock runs ahead"
        ) from exc
    except tuf_errors.BadVersionNumberError as exc:
        raise RollbackError("signed metadata: older than what was accepted before") from exc
    except tuf_errors.UnsignedMetadataError as exc:
        raise SignatureError("signed metadata: signature does not verify") from exc
    except tuf_errors.LengthOrHashMismatchError as exc:
        raise DigestError("signed metadata: length or digest differs from the signed one") from exc
    except tuf_errors.RepositoryError as exc:
        raise SignatureError("signed metadata: not acceptable") from exc
    if failure is not None:
        raise failure


def _signed(data: bytes, custom: Mapping[str, Any]) -> SignedFile:
    """A file with the numbers in its target's custom field; 0 for each that is not there or is none of ours."""
    version, least = (
        value if type(value := custom.get(name)) is int and 0 < value <= MAX_NUMBER else 0
        for name in ("version", "least")
    )
    return SignedFile(data=data, version=version, least=least)
