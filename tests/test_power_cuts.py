"""A power cut at any moment of a sync leaves the old or the new night, and the next sync ends in the new one."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import struct
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scripts.bench.crashed_disk import Disk, contents, in_hex, strace
from tests.power_cuts import Nights, cut_off, duration

FS_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32), include/uapi/linux/fs.h
NO_LOG_FLUSH = 2  # nothing more goes to the device: not the page cache, and not the journal either


def cut_nights(
    nights: Nights, root: Path, folder: Path, times: int, cut: Callable[[], None], again: Callable[[], None]
) -> Counter[str]:
    """So many nights, the sync of each cut off at a random moment; how often which set was left."""
    left: Counter[str] = Counter()
    draw = random.Random(times)
    with nights.served(folder) as url:
        new, usual = nights.publish(), nights.usual(url, folder)
        nights.sync(root, url)
        for _ in range(times):
            old, new = new, nights.publish()
            done = cut_off(nights.child(root, url, folder), draw.uniform(0, usual), cut)
            usual *= 0.93 if done else 1.025  # keeps to three cut syncs in four, however busy the machine is
            again()
            found = nights.in_use(root)
            assert found in (old, new)
            assert not done or found == new, "said to be done, and it was not"
            left["done" if done else "new" if found == new else "old"] += 1
            nights.sync(root, url)
            assert nights.in_use(root) == new
            assert len(list((root / "gen").iterdir())) == 1
            assert list((root / "stage").iterdir()) == []
    return left


def nothing() -> None:
    """A killed process leaves the machine as it is."""


def test_a_sync_killed_at_any_moment_leaves_one_whole_night(tmp_path: Path) -> None:
    cut_nights(Nights(seed=1), tmp_path / "cache", tmp_path, 4, nothing, nothing)


@pytest.mark.long
def test_a_hundred_syncs_killed_at_any_moment_leave_one_whole_night(tmp_path: Path) -> None:
    left = cut_nights(Nights(seed=2), tmp_path / "cache", tmp_path, 120, nothing, nothing)
    print(dict(left))
    assert left["old"] > 10  # else nothing was cut


def test_a_first_sync_killed_at_any_moment_leaves_nothing_or_one_whole_night(tmp_path: Path) -> None:
    nights, draw = Nights(seed=3), random.Random(3)
    with nights.served(tmp_path) as url:
        new, usual = nights.publish(), nights.usual(url, tmp_path)
        for number in range(3):
            root = tmp_path / f"cache-{number}"
            cut_off(nights.child(root, url, tmp_path), draw.uniform(0, usual), nothing)
            assert nights.in_use(root) in (None, new)
            nights.sync(root, url)
            assert nights.in_use(root) == new


# ------------------------------------------------------------------------------- the calls of a sync, replayed


def recorded(nights: Nights, root: Path, url: str, folder: Path) -> list[str]:
    """The system calls of one whole sync on the files of the cache."""
    log = folder / "calls"
    duration(nights.child(root, url, folder, wrapped=strace(log)))
    return [line for line in log.read_text(encoding="ascii").splitlines() if in_hex(root) in line]


def replay_cuts(folder: Path, seed: int, nights_long: int, cuts: int) -> Counter[int]:
    """So many crashed disks for each of so many nights; how often which set was left, 0 the old and 1 the new."""
    if shutil.which("strace") is None:
        pytest.skip("recording system calls needs strace")
    nights, draw, left = Nights(seed=seed), random.Random(seed), Counter[int]()
    root, crashed = folder / "cache", folder / "crashed"
    with nights.served(folder) as url:
        old = nights.publish()
        nights.sync(root, url)
        for _ in range(nights_long):
            new = nights.publish()
            disks = [Disk(root, strict=strict) for strict in (True, False)]
            try:
                calls = recorded(nights, root, url, folder)
            except AssertionError as exc:
                pytest.skip(f"strace records nothing here: {exc}")
            moments = sorted(draw.choices(range(len(calls) + 1), k=cuts))
            for number, call in enumerate([*calls, ""]):
                for _ in range(moments.count(number)):
                    draw.choice(disks).crashed(draw, crashed)
                    left[_after_a_crash(nights, crashed, url, old, new, recover=draw.random() < 0.1) - old] += 1
                    shutil.rmtree(crashed)
                for disk in disks:
                    disk.replay(call)
            disks[0].whole(crashed)
            assert contents(crashed) == contents(root), "the record is not all that happened"
            shutil.rmtree(crashed)
            old = new
    return left


def _after_a_crash(nights: Nights, root: Path, url: str, old: int, new: int, *, recover: bool) -> int:
    found = nights.in_use(root)
    assert found in (old, new)
    if recover:
        nights.sync(root, url)
        assert nights.in_use(root) == new
        assert list((root / "stage").iterdir()) == []
    return found


def test_a_disk_that_lost_what_was_not_on_it_holds_one_whole_night(tmp_path: Path) -> None:
    left = replay_cuts(tmp_path, 5, 2, 25)
    assert min(left[0], left[1]) > 3


@pytest.mark.long
def test_thousands_of_disks_hold_one_whole_night(tmp_path: Path) -> None:
    left = replay_cuts(tmp_path, 6, 10, 300)
    print(dict(left))
    assert min(left[0], left[1]) > 100


# ---------------------------------------------------------------------------- a real file system loses its memory


class Card:
    """An ext4 file system in a file, whose power can be cut: what was not on it then is gone."""

    def __init__(self, folder: Path) -> None:
        self.image, self.mount = folder / "card.img", folder / "card"
        self.mount.mkdir()
        with self.image.open("wb") as file:
            file.truncate(64 << 20)
        self._run("mkfs.ext4", "-q", "-F", str(self.image))
        self.insert()

    def insert(self) -> None:
        self._run("mount", "-o", "loop", str(self.image), str(self.mount))

    def remove(self) -> None:
        self._run("umount", str(self.mount))

    def power_cut(self) -> None:
        handle = os.open(self.mount, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, FS_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(handle)

    def back_again(self) -> None:
        self.remove()
        self.insert()

    def _run(self, *command: str) -> None:
        subprocess.run(command, check=True, capture_output=True)


@contextmanager
def card_in(folder: Path) -> Iterator[Card]:
    """A card in the machine; skips where none can be had."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("mkfs.ext4", "mount", "umount"))):
        pytest.skip("cutting the power of a file system needs root and mkfs.ext4")
    try:
        card = Card(folder)
    except subprocess.CalledProcessError as exc:
        pytest.skip(f"no loop mount here: {exc.stderr.decode(errors='replace').strip()}")
    try:
        try:
            card.power_cut()
        except OSError as exc:
            pytest.skip(f"the file system's power cannot be cut: {exc.strerror}")
        card.back_again()
        yield card
    finally:
        card.remove()


@pytest.fixture
def card(tmp_path: Path) -> Iterator[Card]:
    with card_in(tmp_path) as card:
        yield card


@pytest.mark.long
def test_power_cuts_on_ext4_leave_one_whole_night(card: Card, tmp_path: Path) -> None:
    left = cut_nights(Nights(seed=4), card.mount / "cache", tmp_path, 60, card.power_cut, card.back_again)
    print(dict(left))
    assert left["old"] > 5
