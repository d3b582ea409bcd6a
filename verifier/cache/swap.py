"""Generations on disk: written aside, made durable, then taken into use by one rename."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from verifier.cache import schema
from verifier.codec.index import Index, IndexFormatError, decode_index
from verifier.durable import sync_file, sync_folder
from verifier.errors import CacheCorruptError, SyncBusyError

Step = Callable[[str], None]
"""Told the name of each step before and after which a power cut could come."""

_READ = 1 << 20  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class InUse:
    """The generation that `current` names.

    `intact` says that index, trust list and policy are those it was made with; `sound`, that status list, base and
    changes fit too (the base by its length, the changes by what they say of themselves). `changes` is None where
    the index names no deltas.
    """

    name: str
    index: Index
    index_bytes: bytes
    entries: bytes
    entries_as_of: datetime
    policy: bytes
    status_list: bytes
    base: Path
    changes: Path | None
    intact: bool
    sound: bool


@contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Hold the lock of the one syncer; SyncBusyError when another process or thread has it."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / schema.LOCK).open("ab") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise SyncBusyError("another sync is running") from exc
        yield


def current_name(root: Path) -> str | None:
    """The generation's name that `current` holds, whatever is left of that generation; None without a link."""
    try:
        return (root / schema.CURRENT).readlink().name
    except OSError:
        return None


def in_use(root: Path) -> InUse | None:
    """The generation in use, None when there is none or its small files cannot be read."""
    try:
        target = (root / schema.CURRENT).readlink()
        path = root / target
        index_bytes, entries, policy, packed = (
            (path / name).read_bytes() for name in (schema.INDEX, schema.ENTRIES, schema.POLICY, schema.STATUS_LIST)
        )
        index = decode_index(index_bytes)
        length = (path / schema.BASE).stat().st_size
    except (OSError, IndexFormatError):
        return None
    intact = schema.content_of_name(target.name) == schema.content_hash(index_bytes, entries, policy)
    changes = path / schema.CHANGES if index.deltas else None
    sound = intact and hashlib.sha256(packed).digest() == index.tsl.sha256 and length == index.base.length
    return InUse(
        name=target.name, index=index, index_bytes=index_bytes, entries=entries,
        entries_as_of=schema.entries_as_of(path, index.issued_at), policy=policy,
        status_list=packed, base=path / schema.BASE, changes=changes, intact=intact,
        sound=sound and (changes is None or _as_new_as(changes, index)),
    )  # fmt: skip


def _as_new_as(changes: Path, index: Index) -> bool:
    """Whether a changes.db says that it belongs to this index."""
    try:
        with closing(schema.open_base(changes)) as connection:
            meta = schema.read_meta(connection)
    except (*schema.DAMAGE, CacheCorruptError):
        return False
    return (meta.region, meta.seq, meta.base_seq) == (index.region, index.seq, index.base.seq)


def write_generation(root: Path, linked: Mapping[str, Path], files: Mapping[str, bytes], step: Step) -> Path:
    """A temporary folder with hard links to the large files and with the small ones, all on disk; its path."""
    folder = root / schema.GENERATIONS / ".tmp"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, path in linked.items():
        # A link and not a rename: a cut before the swap must not cost the download.
        os.link(path, folder / name)
        sync_file(folder / name)
    for name, data in files.items():
        with (folder / name).open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
    sync_folder(folder)
    step("written")
    return folder


def adopt(root: Path, folder: Path, name: str, step: Step) -> None:
    """Give a written folder its name among the generations."""
    step("before-rename")
    target = root / schema.GENERATIONS / name
    shutil.rmtree(target, ignore_errors=True)  # an orphan of an earlier cut; `free_name` never gives the one in use
    folder.rename(target)
    step("after-rename")
    sync_folder(target.parent)


def switch(root: Path, name: str, step: Step) -> None:
    """Let `current` name this generation: the moment at which the new set comes into use."""
    step("before-symlink")
    fresh = root / f"{schema.CURRENT}.new"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(Path(schema.GENERATIONS) / name)
    fresh.replace(root / schema.CURRENT)
    step("after-symlink")
    sync_folder(root)


def sweep_generations(root: Path) -> None:
    """Remove every generation, finished or not, that is not in use."""
    current = current_name(root)
    for folder in (root / schema.GENERATIONS).glob("*"):
        if folder.name != current:
            shutil.rmtree(folder, ignore_errors=True)


def sweep_parts(root: Path, keep: Collection[str] = ()) -> None:
    """Remove what was downloaded, other than the files in `keep`."""
    for part in (root / schema.STAGE).glob("*"):
        if part.name not in keep:
            part.unlink(missing_ok=True)


def free_name(region: str, seq: int, content: str, taken: str | None) -> str:
    """A generation's name; other than `taken`, which `current` holds, even where little is left of it."""
    attempt = 0
    while (name := schema.generation_name(region, seq, content, attempt)) == taken:
        attempt += 1
    return name


def file_digest(path: Path) -> bytes:
    """SHA-256 of a file, read in pieces; OSError."""
    whole = hashlib.sha256()
    with path.open("rb") as handle:
        while piece := handle.read(_READ):
            whole.update(piece)
    return whole.digest()
