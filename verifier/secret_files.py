"""Files that hold a secret: written for their owner alone, and overwritten before they are removed.

A card's controller may keep old copies of a block where no file system reaches them: what is destroyed here is gone for
whoever reads the card through its interface (docs/decisions/the-epoch-key-and-a-pin.md).
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from verifier.durable import sync_folder, taking_the_place, write_whole

MAX_READ = 64 * 1024  # bytes; longer than any secret

_PIECE = 1 << 20  # bytes


def write_secret(path: Path, data: bytes) -> None:
    """Write or replace a file of mode 0600, durably: the old one, the new one, or an OSError and the old one."""
    with taking_the_place(path, 0o600) as handle:
        try:
            os.fchmod(handle, 0o600)
            _overwrite(handle)  # of a run that was cut off
            os.ftruncate(handle, 0)
            write_whole(handle, data)
            os.fsync(handle)
        except BaseException:
            with suppress(OSError):
                _overwrite(handle)
            raise


def read_secret(path: Path) -> bytes | None:
    """The file's bytes, None without it; OSError, also for one that is longer than any secret."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_READ + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if len(data) > MAX_READ:
        raise OSError(f"{path.name}: too long")
    return data


def destroy(path: Path) -> None:
    """Overwrite a file in place, then remove it; nothing happens without it. OSError when it cannot be removed.

    A file that cannot be overwritten is removed all the same.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError:
        pass  # a link, or a card that has become read-only
    else:
        with suppress(OSError):
            _overwrite(handle)
        os.close(handle)
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def _overwrite(handle: int) -> None:
    size = at = os.fstat(handle).st_size
    while at > 0:
        at -= os.pwrite(handle, secrets.token_bytes(min(at, _PIECE)), size - at)
    if size:
        os.fsync(handle)
