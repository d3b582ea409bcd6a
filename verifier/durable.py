"""A file that takes the place of another whole and durably, whatever cuts its writer off."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TRIES = 1000  # each is lost to another writer only


def unfinished(path: Path) -> Path:
    """Where a writer of this file has its bytes until they are whole, and leaves them when it is cut off."""
    return path.with_name(f".{path.name}.new")


@contextmanager
def taking_the_place(path: Path, mode: int = 0o666) -> Iterator[int]:
    """The descriptor of what becomes the file, durably, at the end: the old or the new, never a part. OSError.

    One writer at a time, of all processes: the others wait. The file may hold what a writer that was cut off left.
    """
    fresh = unfinished(path)
    handle = open_locked(fresh, os.O_NOFOLLOW, mode)
    try:
        yield handle
        os.fsync(handle)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)
    sync_folder(path.parent)


def open_locked(path: Path, flags: int, mode: int) -> int:
    """A descriptor of the file, made if it is not there, under its lock. OSError.

    Whoever had the lock before may have given the name to another file meanwhile: then that one is opened.
    """
    for _ in range(_TRIES):
        handle = os.open(path, flags | os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))


def replace_file(path: Path, data: bytes) -> None:
    """Let these bytes take the place of a file's; see `taking_the_place`. OSError."""
    with taking_the_place(path) as handle:
        os.ftruncate(handle, 0)
        write_whole(handle, data)


def write_whole(handle: int, data: bytes) -> None:
    """Write all of it, from the beginning of the file. OSError."""
    written = 0
    while written < len(data):
        written += os.pwrite(handle, data[written:], written)


def sync_file(path: Path) -> None:
    """Force a file's bytes to the card."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Force a folder's names to the card: without it a rename may be forgotten in a power cut."""
    sync_file(path)
