"""A file that takes the place of another: whole, durable, and by one writer at a time."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from firmware.config import Home
from firmware.keeper import wipe_files
from verifier.clock import system_clock
from verifier.durable import replace_file, unfinished
from verifier.secret_files import read_secret, write_secret
from verifier.wipe import Wiper

Write = Callable[[Path, bytes], None]
WRITERS = 4
CONTENTS = {bytes([ord("a") + writer]) * (2_000 + 700 * writer) for writer in range(WRITERS)}


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("write", [replace_file, write_secret])
def test_writers_of_one_file_wait_for_each_other_and_readers_see_one_of_them_whole(tmp_path: Path, write: Write):
    path, problems, torn = tmp_path / "note", list[str](), set[bytes]()
    write(path, min(CONTENTS))

    def replaced(content: bytes) -> None:
        for _ in range(40):
            try:
                write(path, content)
            except OSError as exc:
                problems.append(exc.strerror)
            torn.update({path.read_bytes()} - CONTENTS)

    threads = [threading.Thread(target=replaced, args=(content,)) for content in CONTENTS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (problems, {len(data) for data in torn}, names(tmp_path)) == ([], set(), ["note"])


@pytest.mark.parametrize("write", [replace_file, write_secret])
def test_what_a_writer_that_was_cut_off_left_is_no_part_of_the_next_file(tmp_path: Path, write: Write):
    path = tmp_path / "note"
    unfinished(path).write_bytes(b"x" * 10_000)
    write(path, b"short")
    assert (path.read_bytes(), names(tmp_path)) == (b"short", ["note"])


def test_a_secret_is_its_owners_alone_whatever_lay_in_its_place(tmp_path: Path):
    path = tmp_path / "key"
    unfinished(path).write_bytes(b"x")
    unfinished(path).chmod(0o644)
    write_secret(path, b"secret")
    assert (path.stat().st_mode & 0o777, read_secret(path)) == (0o600, b"secret")


@pytest.mark.parametrize("write", [replace_file, write_secret])
def test_a_link_in_the_place_of_the_new_file_is_not_followed(tmp_path: Path, write: Write):
    path, elsewhere = tmp_path / "note", tmp_path / "elsewhere"
    elsewhere.write_bytes(b"stays")
    unfinished(path).symlink_to(elsewhere)
    with pytest.raises(OSError, match="symbolic"):
        write(path, b"new")
    assert elsewhere.read_bytes() == b"stays"


@pytest.mark.parametrize("write", [replace_file, write_secret])
def test_a_card_that_fails_keeps_the_file_and_leaves_nothing_beside_it(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "note"
    write(path, b"old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="space"):
            write(path, b"new")
    assert (path.read_bytes(), names(tmp_path)) == (b"old", ["note"])


def test_a_wipe_takes_away_what_a_writer_that_was_cut_off_left(tmp_path: Path):
    home = Home(tmp_path / "home")
    home.folder.mkdir()
    named = (home.vitals, home.audit_sent, home.certificate, home.device_key, home.officers, home.lookups)
    for path in named:
        unfinished(path).write_bytes(b"of before")
    Wiper(wipe_files(home, None), system_clock).by_hand()
    assert sorted(path.name for path in home.folder.iterdir()) == [home.wiped.name]
