"""A release bundle: what is signed of it, whether it may be taken, and its files; no network, no service.

A bundle is a gzip-compressed tar archive (POSIX.1-1988 ustar) of plain files alone: the program's sources as they are
installed from, and `wheels/` with the libraries where it brings them. Anything else in it refuses the whole.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from verifier.durable import sync_file
from verifier.errors import DigestError, RollbackError, VerifierError
from verifier.net import Fetcher
from verifier.repository import Target

RELEASE_TARGET = "release/markcheck.tar.gz"
RELEASE_ROLE = "release"
MAX_BUNDLE = 512 << 20  # bytes
MAX_UNPACKED = 1 << 30  # bytes of all files
MAX_FILES = 10_000
ROOM = 6  # times a bundle's length: itself, unpacked, and installed

VERSION = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6}){0,3}", re.ASCII)

_BLOCK, _RECORD = 512, 10240  # bytes; of a tar archive, which ends in zeros up to a whole record
_PIECE = 1 << 16  # bytes
_MAX_NAME = 200  # characters
_PART = r"[A-Za-z0-9_+@-][A-Za-z0-9_.+@-]*"  # no hidden file, no "..", nothing a shell would take apart
_NAME = re.compile(rf"{_PART}(/{_PART})*", re.ASCII)


class BundleError(VerifierError):
    """A bundle that is not taken, though its publisher signed it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A signed release: its version, whether those above it were withdrawn, where it lies, its length and digest."""

    version: str
    withdrawal: bool
    path: str
    length: int  # bytes
    sha256: str  # hex


def read_offer(target: Target) -> Offer:
    """What is signed of a bundle; BundleError when it names no version."""
    version, withdrawal = target.custom.get("version"), target.custom.get("withdrawal", False)
    if type(version) is not str or VERSION.fullmatch(version) is None or type(withdrawal) is not bool:
        raise BundleError("release: signed without a version")
    return Offer(version=version, withdrawal=withdrawal, path=target.path, length=target.length, sha256=target.sha256)


def check_version(offer: Offer, installed: str) -> None:
    """RollbackError for a version below the installed one, unless its publisher says that it withdrew those above."""
    if _number(offer.version) < _number(installed) and not offer.withdrawal:
        raise RollbackError(f"release {offer.version}: older than {installed}, which is installed, and no withdrawal")


def _number(version: str) -> tuple[int, ...]:
    """Comparable; 0.1 is 0.1.0, and what is none of ours is older than everything."""
    parts = [int(part) for part in version.split(".")] if VERSION.fullmatch(version) else []
    while parts and not parts[-1]:
        parts.pop()
    return tuple(parts)


def fetch(offer: Offer, path: Path, fetcher: Fetcher) -> None:
    """The bundle as a file, unless it is there already. DigestError, FetchError, OSError."""
    if path.exists() and path.stat().st_size == offer.length and _digest(path) == offer.sha256:
        return
    whole, received = hashlib.sha256(), 0
    with path.open("wb") as file:
        for piece in fetcher.fetch(offer.path, offer.length):
            received += len(piece)
            if received > offer.length:
                break
            whole.update(piece)
            file.write(piece)
    if received != offer.length or whole.hexdigest() != offer.sha256:
        path.unlink()
        raise DigestError("release: length or digest differs from the signed one")
    sync_file(path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ------------------------------------------------------------------------------------------------- unpacking


def unpack(bundle: Path, folder: Path) -> None:
    """The files of a bundle below a new folder; BundleError names what is wrong with it. OSError.

    Not `tarfile.extractall`: its filters came after the Python of bookworm, and it takes kinds of members that no
    bundle has. Here a link, a device or an extended header is refused at its header, before anything is read of it.
    """
    folder.mkdir()
    left, count = MAX_UNPACKED, 0
    try:
        with gzip.open(bundle) as stream:
            for member in _members(stream):
                left, count = left - member.size, count + 1
                if left < 0 or count > MAX_FILES:
                    raise BundleError("release: unpacked it is larger than any release")
                _write(stream, member, folder / member.name)
    except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
        raise BundleError("release: not a whole gzip file") from exc


def _members(stream: gzip.GzipFile) -> Iterator[tarfile.TarInfo]:
    """Each header; whoever asks for the next one has read the file behind the last."""
    while (block := _exactly(stream, _BLOCK)) != bytes(_BLOCK):
        try:
            member = tarfile.TarInfo.frombuf(block, "ascii", "strict")
        except (tarfile.HeaderError, ValueError) as exc:
            raise BundleError("release: a damaged header in the archive") from exc
        if member.type != tarfile.REGTYPE:
            raise BundleError("release: a member that is no plain file")
        if len(member.name) > _MAX_NAME or _NAME.fullmatch(member.name) is None or member.size < 0:
            raise BundleError("release: a member with a name that is not plain and relative")
        yield member
        _exactly(stream, -member.size % _BLOCK)
    if stream.read(_RECORD).strip(b"\0") or stream.read(1):  # and the checksum of the whole has been looked at
        raise BundleError("release: something behind the end of the archive")


def _write(stream: gzip.GzipFile, member: tarfile.TarInfo, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = 0o755 if member.mode & 0o100 else 0o644
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    except (FileExistsError, NotADirectoryError) as exc:
        raise BundleError("release: two members of one name") from exc
    left = member.size
    with os.fdopen(handle, "wb") as file:
        while left:
            piece = _exactly(stream, min(left, _PIECE))
            file.write(piece)
            left -= len(piece)


def _exactly(stream: gzip.GzipFile, length: int) -> bytes:
    data = stream.read(length)
    if len(data) != length:
        raise EOFError
    return data
