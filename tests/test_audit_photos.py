"""Photos: sealed, bounded, evidence never overwritten."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from PIL import Image

from scripts.sandbox.audit_keys import open_log, open_photo
from tests.sealed_logs import KEY, PRIVATE, sealed_log
from verifier.audit import AuditLog
from verifier.errors import AuditError
from verifier.photos import MAX_PHOTO, PhotoStore, keep_photo
from verifier.record_level import Capture

CHECK = "0f" * 16


def jpeg(size: int = 0) -> bytes:
    """A picture of at least so many bytes."""
    out = io.BytesIO()
    Image.new("L", (8, 8), 128).save(out, "JPEG")
    return out.getvalue() + bytes(max(0, size - len(out.getvalue())))


def names(store: PhotoStore) -> list[tuple[int, bool]]:
    return [(photo.number, photo.evidence) for photo in store.photos()]


def test_a_photo_is_sealed_and_opens_under_its_own_name_alone(tmp_path):
    kept = PhotoStore(tmp_path / "photos", key=KEY).add(CHECK, jpeg(), evidence=True)
    path = tmp_path / "photos" / kept.name
    sealed = path.read_bytes()
    assert jpeg()[:20] not in sealed
    assert len(sealed) == len(jpeg()) + 48
    assert open_photo(PRIVATE, kept.name, sealed) == jpeg()
    for name, data in ((f"x{kept.name}", sealed), (kept.name, sealed[:-1] + b"?")):
        with pytest.raises(AuditError, match="not as it was sealed"):
            open_photo(PRIVATE, name, data)
    assert path.stat().st_mode & 0o777 == 0o600


def test_other_photos_make_room_the_oldest_first_and_evidence_stays(tmp_path):
    store = PhotoStore(tmp_path, budget=5000)
    for evidence in (False, True, False, False, True):
        store.add(CHECK, jpeg(1000), evidence=evidence)
    store.add(CHECK, jpeg(1000), evidence=False)
    assert names(store) == [(2, True), (3, False), (4, False), (5, True), (6, False)]
    store.add(CHECK, jpeg(2000), evidence=True)
    assert names(store) == [(2, True), (5, True), (6, False), (7, True)]


def test_a_store_full_of_evidence_takes_no_more_and_loses_none(tmp_path):
    store = PhotoStore(tmp_path, budget=3000)
    for _ in range(3):
        store.add(CHECK, jpeg(1000), evidence=True)
    for evidence in (True, False):
        with pytest.raises(AuditError, match="full of evidence"):
            store.add(CHECK, jpeg(1000), evidence=evidence)
    assert len(names(store)) == 3


def test_a_photo_that_another_process_removes_meanwhile_costs_neither_the_order_nor_the_next_photo(tmp_path):
    folder = tmp_path / "photos"
    PhotoStore(folder).add("0" * 32, jpeg(), evidence=True)
    (folder / f"00000007-p-{'1' * 32}.jpg").symlink_to(tmp_path / "gone")  # its name was read, and then it went
    (stored,) = PhotoStore(folder).photos()
    assert (stored.number, stored.evidence) == (1, True)
    assert PhotoStore(folder).add("2" * 32, jpeg(), evidence=True).name.startswith("00000002-")


def test_what_would_not_help_is_not_removed(tmp_path):
    store = PhotoStore(tmp_path, budget=3000)
    store.add(CHECK, jpeg(2000), evidence=True)
    store.add(CHECK, jpeg(500), evidence=False)
    with pytest.raises(AuditError, match="full of evidence"):
        store.add(CHECK, jpeg(1500), evidence=True)
    assert len(names(store)) == 2


@pytest.mark.parametrize("picture", [b"", b"GIF89a", b"\xff\xd8\xff" + bytes(MAX_PHOTO)])
def test_what_is_no_jpeg_or_too_long_is_refused(tmp_path, picture):
    with pytest.raises(AuditError, match="not a JPEG"):
        PhotoStore(tmp_path).add(CHECK, picture, evidence=True)


@pytest.mark.parametrize("check_id", ["", "../../etc/passwd", "0F" * 16, "0f" * 16 + "\n"])
def test_a_name_cannot_be_made_from_what_is_no_check(tmp_path, check_id):
    with pytest.raises(AuditError, match="of no check"):
        PhotoStore(tmp_path).add(check_id, jpeg(), evidence=True)
    assert list(tmp_path.iterdir()) == []


def test_the_photos_digest_stands_in_the_log(tmp_path):
    log = sealed_log(tmp_path / "log", 1)
    kept = keep_photo(log, PhotoStore(tmp_path / "photos", key=KEY), CHECK, jpeg(), evidence=True)
    last = [one.record for one in open_log(tmp_path / "log", PRIVATE)][-1]
    assert last == {
        "v": 1, "kind": "photo", "id": CHECK, "name": kept.name, "sha256": hashlib.sha256(jpeg()).hexdigest(),
        "evidence": True, "of": "code",
    }  # fmt: skip


@pytest.mark.parametrize("level", [Capture.MASKED, Capture.IDENTITIES])
def test_below_the_full_level_no_photo_is_kept(tmp_path, level):
    log = sealed_log(tmp_path / "log", 1)
    assert keep_photo(log, PhotoStore(tmp_path / "photos"), CHECK, jpeg(), evidence=True, level=level) is None
    assert not (tmp_path / "photos").exists()


def test_old_photos_that_are_no_evidence_go_with_the_days(tmp_path):
    store = PhotoStore(tmp_path)
    for evidence in (True, False, False):
        store.add(CHECK, jpeg(), evidence=evidence)
    now = datetime(2026, 11, 22, tzinfo=UTC)
    for photo, days in zip(store.photos(), (40, 40, 1), strict=True):
        at = (now - timedelta(days=days)).timestamp()
        os.utime(photo.path, (at, at))
    assert store.purge(now - timedelta(days=30)) == 1
    assert names(store) == [(1, True), (3, False)]


def test_strange_files_in_the_folder_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    store = PhotoStore(tmp_path, budget=1000)
    store.add(CHECK, jpeg(900), evidence=False)
    store.add(CHECK, jpeg(900), evidence=False)
    assert (tmp_path / "notes.txt").exists()
    assert names(store) == [(2, False)]


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of its own with 900 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", str(place)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("a small disk needs the right to mount one")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_on_a_full_disk_evidence_takes_the_place_of_other_photos(small_disk):
    store = PhotoStore(small_disk / "photos", key=KEY)
    for evidence in (False, True, False):
        store.add(CHECK, jpeg(200_000), evidence=evidence)
    for _ in range(3):
        store.add(CHECK, jpeg(200_000), evidence=True)
    assert names(store) == [(2, True), (4, True), (5, True), (6, True)]
    with pytest.raises(AuditError, match="No space left"):
        store.add(CHECK, jpeg(200_000), evidence=True)
    assert len(names(store)) == 4
    assert all(open_photo(PRIVATE, photo.path.name, photo.path.read_bytes()) for photo in store.photos())
    assert [path for path in (small_disk / "photos").iterdir() if path.suffix == ".new"] == []


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def not_taken(log: AuditLog) -> str | None:
    """Why a record was not taken; None when it was."""
    try:
        log.append({"kind": "check", "id": "x", "text": "y" * 700})
    except AuditError as exc:
        return str(exc)
    return None


def test_on_a_full_disk_a_log_keeps_all_that_it_acknowledged(small_disk):
    log = sealed_log(small_disk / "log", 3)
    fill(small_disk / "ballast")
    kept, failure = 3, None
    while failure is None:
        failure = not_taken(log)
        kept += failure is None
    assert "No space left" in failure
    assert len([one for one in open_log(small_disk / "log", PRIVATE) if one.record]) == kept
    (small_disk / "ballast").unlink()
    log.append({"kind": "check", "id": "z"})
    assert len([one for one in open_log(small_disk / "log", PRIVATE) if one.record]) == kept + 1
