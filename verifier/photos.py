"""Photos of code and plate, in a folder of bounded size: evidence is never overwritten, other photos make room.

A photo is sealed to the authority's key where there is one. Its name has the check's number and a counter, and no more.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from verifier.audit import AuditLog
from verifier.durable import sync_folder
from verifier.errors import AuditError
from verifier.record_level import Capture
from verifier.seal import AuditKey, seal_photo
from verifier.types import Code

BUDGET = 64 << 20  # bytes of all photos
MAX_PHOTO = 2 << 20  # bytes
_JPEG = b"\xff\xd8\xff"
_CHECK_ID = re.compile(r"[0-9a-f]{32}")
_NAME = re.compile(r"([0-9]{8})-([ep])-([0-9a-f]{32})\.(jpg|box)")


class Stored(NamedTuple):
    """A photo in the folder; `number` grows with each."""

    number: int
    evidence: bool
    check_id: str
    path: Path
    size: int
    at_s: float  # when it was written, POSIX seconds


class PhotoOf(Code):
    """What a photo shows."""

    CODE = "code"  # the frame in which the code was read
    SCENE = "scene"  # what was before the camera when the verdict came: no code was read in it


class NoPhoto(Code):
    """Why a check that should have a photo has none."""

    NO_CAMERA = "no camera"
    NO_FRAME = "no frame"  # the camera gave none in time
    NOT_KEPT = "not kept"  # the card did not take it, or is full of evidence


@dataclass(frozen=True, slots=True)
class Kept:
    """A photo that was kept: its name, and what its audit record says of it."""

    name: str
    sha256: str
    evidence: bool


class PhotoStore:
    """The folder. Used by one thread at a time; `budget` is in bytes."""

    def __init__(self, folder: Path, *, key: AuditKey | None = None, budget: int = BUDGET) -> None:
        self._folder, self._key, self._budget = folder, key, budget

    def add(self, check_id: str, picture: bytes, *, evidence: bool) -> Kept:
        """Keep a JPEG of a check, `evidence` for ever; AuditError for what is none, or when there is no room."""
        if _CHECK_ID.fullmatch(check_id) is None:
            raise AuditError("photo: of no check")
        if not picture.startswith(_JPEG) or len(picture) > MAX_PHOTO:
            raise AuditError(f"photo: not a JPEG of at most {MAX_PHOTO >> 20} MiB")
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            name = self._name(check_id, evidence=evidence)
            data = picture if self._key is None else seal_photo(self._key, name, picture)
            self._make_room(len(data))
            self._write(name, data)
        except OSError as exc:
            raise AuditError(f"photo: cannot be kept: {exc.strerror}") from exc
        return Kept(name, hashlib.sha256(picture).hexdigest(), evidence)

    def drop(self, kept: Kept) -> None:
        """Remove one that could not be recorded: without a record it is no evidence. AuditError."""
        try:
            (self._folder / kept.name).unlink(missing_ok=True)
        except OSError as exc:
            raise AuditError(f"photo: cannot be removed: {exc.strerror}") from exc

    def photos(self) -> list[Stored]:
        """All of them, the oldest first."""
        try:
            paths = list(self._folder.iterdir())
        except FileNotFoundError:
            return []
        return sorted(stored for path in paths if (stored := _stored(path)) is not None)

    def purge(self, before: datetime) -> int:
        """Remove the photos from before this moment that are no evidence; how many. AuditError."""
        going = [stored for stored in self.photos() if not stored.evidence]
        try:
            old = [stored for stored in going if stored.at_s < before.timestamp()]
            for stored in old:
                stored.path.unlink(missing_ok=True)
        except OSError as exc:
            raise AuditError(f"photo: cannot be removed: {exc.strerror}") from exc
        return len(old)

    def _name(self, check_id: str, *, evidence: bool) -> str:
        number = max((stored.number for stored in self.photos()), default=0) + 1
        kind, suffix = "e" if evidence else "p", "jpg" if self._key is None else "box"
        return f"{number:08d}-{kind}-{check_id}.{suffix}"

    def _make_room(self, size: int) -> None:
        """Remove the oldest photos that are no evidence, as far as the budget needs it; OSError ENOSPC."""
        photos = self.photos()
        over = sum(stored.size for stored in photos) + size - self._budget
        going = [stored for stored in photos if not stored.evidence]
        if over > sum(stored.size for stored in going):
            raise OSError(errno.ENOSPC, "full of evidence")
        for stored in going:
            if over <= 0:
                return
            stored.path.unlink(missing_ok=True)
            over -= stored.size

    def _write(self, name: str, data: bytes) -> None:
        """Write a file; while the disk is full, the oldest photo that is no evidence goes."""
        while True:
            try:
                self._write_once(self._folder / name, data)
            except OSError as exc:
                going = next((stored for stored in self.photos() if not stored.evidence), None)
                if exc.errno != errno.ENOSPC or going is None:
                    raise
                going.path.unlink(missing_ok=True)
            else:
                return

    def _write_once(self, path: Path, data: bytes) -> None:
        fresh = path.with_name(".new")
        try:
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
        sync_folder(self._folder)


def _stored(path: Path) -> Stored | None:
    """None for what is no photo, or was one: another process may remove what is old."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        return None
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return Stored(int(match[1]), match[2] == "e", match[3], path, found.st_size, found.st_mtime)


def keep_photo(
    log: AuditLog,
    store: PhotoStore,
    check_id: str,
    picture: bytes,
    *,
    evidence: bool,
    of: PhotoOf = PhotoOf.CODE,
    level: Capture = Capture.FULL,
) -> Kept | None:
    """Keep a photo of a check and record it; None at a level that keeps none. AuditError, and then none is kept.

    The record has the photo's digest, so that neither photo nor record can be exchanged later.
    """
    if level is not Capture.FULL:
        return None
    kept = store.add(check_id, picture, evidence=evidence)
    try:
        log.append(photo_json(check_id, kept, of))
    except AuditError:
        store.drop(kept)
        raise
    return kept


def photo_json(check_id: str, kept: Kept, of: PhotoOf) -> dict[str, Any]:
    """The record of a photo."""
    return {
        "v": 1, "kind": "photo", "id": check_id, "name": kept.name, "sha256": kept.sha256, "evidence": kept.evidence,
        "of": of.value,
    }  # fmt: skip


def no_photo_json(check_id: str, why: NoPhoto) -> dict[str, Any]:
    """The record of a check that should have a photo and has none."""
    return {"v": 1, "kind": "photo", "id": check_id, "name": None, "sha256": None, "why": why.value}
