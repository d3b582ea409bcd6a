"""A folder as a mapping from path to bytes, and any such mapping as a fetcher."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from scripts.sandbox.nightly import PublicationError
from verifier.errors import FetchError, NotFoundError, RejectedError
from verifier.net import check_path

PIECE = 1 << 16  # bytes


class FolderStore(MutableMapping[str, bytes]):
    """Files below a folder; keys are plain relative paths. A file is replaced at once or not at all."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir(parents=True, exist_ok=True)

    def __getitem__(self, key: str) -> bytes:
        try:
            return self._file(key).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as exc:
            raise KeyError(key) from exc

    def __contains__(self, key: object) -> bool:
        try:
            return isinstance(key, str) and self._file(key).is_file()
        except KeyError:
            return False

    def __setitem__(self, key: str, data: bytes) -> None:
        path = self._file(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(data)
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def __delitem__(self, key: str) -> None:
        try:
            self._file(key).unlink()
        except FileNotFoundError as exc:
            raise KeyError(key) from exc

    def __iter__(self) -> Iterator[str]:
        for path in sorted(self._path.rglob("*")):
            if path.is_file() and not path.name.startswith(".new-"):
                yield path.relative_to(self._path).as_posix()

    @contextmanager
    def exclusive(self, *, wait: bool = False) -> Iterator[None]:
        """Hold the lock of the one who adds and removes files; BlockingIOError when another has it, or `wait`."""
        with self._path.with_name(f"{self._path.name}.lock").open("ab") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            yield

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _file(self, key: str) -> Path:
        try:
            check_path(key)
        except FetchError as exc:
            raise KeyError(key) from exc
        return self._path / key


class MemoryFetcher:
    """A mapping as a `Fetcher`: the same files as through a server, without one. Keeps the paths asked for."""

    def __init__(self, store: Mapping[str, bytes]) -> None:
        self._store = store
        self.requests: list[str] = []

    def fetch(self, path: str, max_length: int) -> Iterator[bytes]:
        """As `Fetcher.fetch`."""
        check_path(path)
        self.requests.append(path)
        try:
            data = self._store[path]
        except KeyError as exc:
            raise NotFoundError(path) from exc
        if len(data) > max_length:
            raise RejectedError(path, f"more than {max_length} bytes")
        for start in range(0, len(data), PIECE):
            yield data[start : start + PIECE]


@contextmanager
def alone(store: MutableMapping[str, bytes], *, wait: bool = False) -> Iterator[None]:
    """One process at a time writes into a folder: what is put there has no reference yet, and numbers count up.

    PublicationError when another is at work, unless it is waited for.
    """
    if not isinstance(store, FolderStore):
        yield
        return
    with ExitStack() as stack:
        try:
            stack.enter_context(store.exclusive(wait=wait))
        except BlockingIOError as exc:
            raise PublicationError("another process is publishing into this folder or pruning it") from exc
        yield
