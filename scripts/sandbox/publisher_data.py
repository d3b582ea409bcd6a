"""The data of one region in the publisher's store: base, deltas and status list, put there and read back."""

from __future__ import annotations

from collections.abc import MutableMapping
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

from scripts.sandbox.nightly import State
from verifier.cache.changes import write_changes
from verifier.codec.delta import Delta, decode_delta
from verifier.codec.index import BaseEntry, DeltaEntry, Index, StatusListEntry
from verifier.codec.status import deflate
from verifier.download import chunk_path, delta_path, status_list_path
from verifier.errors import CacheError, SyncError

LIST_BITS = 2


class RegionData:
    """Whatever an index names. It is put before the index is signed: nobody asks for it until then.

    `chunk` is the length of a base's pieces in bytes.
    """

    def __init__(self, store: MutableMapping[str, bytes], region: str, chunk: int) -> None:
        self._store, self._region, self._chunk = store, region, chunk

    def missing(self, index: Index) -> list[str]:
        """What the store does not have of it, or not whole; sorted. Of chunks only the presence is looked at."""
        files = {delta_path(self._region, delta.sha256): delta.sha256 for delta in index.deltas}
        files[status_list_path(self._region, index.tsl.sha256)] = index.tsl.sha256
        lost = {path for path in map(chunk_path, index.base.hashes) if path not in self._store}
        return sorted(lost | {p for p, digest in files.items() if sha256(self._store.get(p, b"")).digest() != digest})

    def read_back(self, index: Index | None, folder: Path, epoch_key: bytes, stack: ExitStack) -> State | None:
        """The register as devices hold it now; None when there is none, or something of it is gone or damaged."""
        if index is None:
            return None
        base, changes = folder / "base.db", folder / "changes.db"
        try:
            with base.open("wb") as out:
                for digest in index.base.hashes:
                    out.write(self._stored(chunk_path(digest), digest))
            if index.deltas:
                deltas = (self._stored_delta(entry, epoch_key) for entry in index.deltas)
                write_changes(changes, base, None, deltas, epoch_key=epoch_key)
            state = State(base, changes if index.deltas else None, epoch_key)
        except (KeyError, CacheError, SyncError):
            return None
        stack.callback(state.close)
        return state

    def _stored(self, path: str, digest: bytes) -> bytes:
        data = self._store[path]
        if sha256(data).digest() != digest:
            raise KeyError(path)
        return data

    def _stored_delta(self, entry: DeltaEntry, epoch_key: bytes) -> Delta:
        return decode_delta(self._store[delta_path(self._region, entry.sha256)], entry, epoch_key)

    def put_base(self, path: Path, seq: int, vehicles: int) -> BaseEntry:
        """A base in pieces, each under its digest."""
        whole, hashes, length = sha256(), [], 0
        with path.open("rb") as handle:
            while data := handle.read(self._chunk):
                digest = sha256(data).digest()
                self._store[chunk_path(digest)] = data
                whole.update(data)
                hashes.append(digest)
                length += len(data)
        return BaseEntry(
            seq=seq, n=vehicles, length=length, sha256=whole.digest(), chunk=self._chunk, hashes=tuple(hashes)
        )

    def put_status_list(self, raw: bytes, number: int) -> StatusListEntry:
        """The packed statuses of `LIST_BITS` each, compressed."""
        packed = deflate(raw)
        entry = StatusListEntry(
            number=number, length=len(packed), sha256=sha256(packed).digest(), bits=LIST_BITS,
            raw_length=len(raw),
        )  # fmt: skip
        self._store[status_list_path(self._region, entry.sha256)] = packed
        return entry
