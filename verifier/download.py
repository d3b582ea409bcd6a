"""Resumable download of what the index names: a base in content-named chunks, and deltas."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from verifier.cache.swap import file_digest
from verifier.codec.index import BaseEntry, DeltaEntry
from verifier.errors import DigestError, NotFoundError, RejectedError
from verifier.net import Fetcher, read_file
from verifier.snapshot import check_digest

SYNC_EVERY = 8  # chunks; what a power cut may cost
TRIES = 3  # for a delta: a server may be a moment behind its own index


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...


class Meter:
    """A fetcher that counts what goes through it."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self.requests = 0
        self.bytes = 0

    def fetch(self, path: str, max_length: int) -> Iterator[bytes]:
        """As `Fetcher.fetch`."""
        self.requests += 1
        for piece in self._fetcher.fetch(path, max_length):
            self.bytes += len(piece)
            yield piece


def chunk_path(digest: bytes) -> str:
    """Where a chunk lies on the server."""
    name = digest.hex()
    return f"chunk/{name[:2]}/{name}"


def status_list_path(region: str, digest: bytes) -> str:
    """Where a region's status list lies on the server."""
    return f"tsl/{region}/{digest.hex()}"


def delta_path(region: str, digest: bytes) -> str:
    """Where a region's delta lies on the server."""
    return f"delta/{region}/{digest.hex()}"


def hot_path(region: str) -> str:
    """Where a region's hot list lies on the server: the one file there that is replaced."""
    return f"hot/{region}/head.cose"


def fetch_delta(entry: DeltaEntry, region: str, path: Path, fetcher: Fetcher) -> None:
    """A delta as a file, unless it is there already; a wrong or absent one is asked for TRIES times.

    DigestError, NotFoundError, FetchError, OSError.
    """
    if path.exists() and path.stat().st_size == entry.length and file_digest(path) == entry.sha256:
        return
    for left in reversed(range(TRIES)):
        try:
            data = read_file(fetcher, delta_path(region, entry.sha256), entry.length)
            check_digest("delta", data, entry.length, entry.sha256)
            break
        except (NotFoundError, RejectedError, DigestError):
            if not left:
                raise
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as handle:
        handle.write(data)
        _to_disk(handle)


def fetch_base(
    entry: BaseEntry, part: Path, fetcher: Fetcher, progress: Callable[[int, int], None], spare: Path | None = None
) -> int:
    """Complete the partial file; whatever of it, or of a `spare` older file, has the right digests is not fetched.

    Returns the number of chunks fetched. DigestError for a chunk that is not what the index names: what came before
    it stays. FetchError, OSError.
    """
    whole, fetched = hashlib.sha256(), 0
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("r+b" if part.exists() else "x+b") as handle:
        done = _verified_prefix(entry, handle, whole)
        for number in range(done, len(entry.hashes)):
            progress(number * entry.chunk, entry.length)
            length, digest = entry.chunk_length(number), entry.hashes[number]
            data = _spared(spare, number * entry.chunk, length, digest)
            if data is None:
                data = read_file(fetcher, chunk_path(digest), length)
                check_digest(f"chunk {number}", data, length, digest)
                fetched += 1
            handle.write(data)
            whole.update(data)
            if (number + 1) % SYNC_EVERY == 0:
                _to_disk(handle)
        _to_disk(handle)
    progress(entry.length, entry.length)
    if whole.digest() != entry.sha256:
        part.unlink()
        raise DigestError("base: digest differs from the signed one")
    return fetched


def _spared(spare: Path | None, offset: int, length: int, digest: bytes) -> bytes | None:
    """A chunk out of an older file; None when it is not there or not the same. A rotten card is no error here."""
    if spare is None:
        return None
    try:
        with spare.open("rb") as handle:
            handle.seek(offset)
            data = handle.read(length)
    except OSError:
        return None
    return data if hashlib.sha256(data).digest() == digest else None


def detach(part: Path) -> None:
    """Take a partial file away that is another file too: the base in use, after a cut behind the swap.

    A download cuts and extends its file in place, and readers have that base open. As `spare` it serves all the same.
    """
    with suppress(FileNotFoundError):
        if part.stat().st_nlink > 1:
            part.unlink()


def held_bytes(part: Path) -> int:
    """How much of a partial file there is."""
    try:
        return part.stat().st_size
    except FileNotFoundError:
        return 0


def _verified_prefix(entry: BaseEntry, handle: BinaryIO, whole: _Hash) -> int:
    """Number of leading chunks that are right; the file is cut behind them."""
    done = 0
    for number, digest in enumerate(entry.hashes):
        length = entry.chunk_length(number)
        data = handle.read(length)
        if len(data) != length or hashlib.sha256(data).digest() != digest:
            break
        whole.update(data)
        done = number + 1
    handle.truncate(min(done * entry.chunk, entry.length))
    handle.seek(0, os.SEEK_END)
    return done


def _to_disk(handle: BinaryIO) -> None:
    handle.flush()
    os.fsync(handle.fileno())
