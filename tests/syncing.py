"""What the tests of the sync share: publications that tell their number, devices that were cut off, bad servers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scripts.sandbox.folder_store import MemoryFetcher
from scripts.sandbox.publisher import Published
from scripts.sandbox.publisher_keys import PublisherKeys
from tests.nightly import BEGAN, EPOCH_KEY, Device, FakeClock, Night, fleet, record
from verifier.cache.store import StatusStore
from verifier.codec.index import Index, decode_index
from verifier.errors import FetchError, SyncError
from verifier.policy import Policy, load_policy
from verifier.sync import sync_history
from verifier.trust import load_trust_list
from verifier.types import Serial


class PowerCut(BaseException):
    """Nothing may catch this, as nothing catches a power cut."""


def cut_at(step: str) -> Callable[[str], None]:
    """Pulls the plug at one of the sync's steps."""

    def cut(name: str) -> None:
        if name == step:
            raise PowerCut

    return cut


def first_night(**options: Any) -> Night:
    """A publisher that has published seed 0."""
    night = Night(**options)
    publish_seed(night, 0)
    return night


def device_behind(night: Night, root: Path, hours: float = 24) -> Device:
    """A device that holds the first publication; the second, of seed 1, is waiting."""
    device = night.device(root)
    device.client().refresh()
    night.clock.move(hours=hours)
    publish_seed(night, 1)
    return device


def copy_of(device: Device, root: Path) -> Device:
    """A device and its publisher that stand where these do; what either does next the other does not see."""
    night, keys = device.night, PublisherKeys(dict(device.night.publisher._keys._private))
    night = replace(night, store=dict(night.store), clock=FakeClock(night.clock()), publisher_keys=keys)
    shutil.copytree(device.root, root, symlinks=True)
    return night.device(root)


def steps_of(device: Device) -> tuple[str, ...]:
    """The steps that the next refresh goes through."""
    steps: list[str] = []
    device.client(on_step=steps.append).refresh()
    return tuple(steps)


def seed_in_use(device: Device) -> int:
    """Checks that one whole set is in use, and tells which one by the seed of its fleet."""
    with closing(StatusStore(device.root, EPOCH_KEY)) as store:
        info = store.info()
        seed = info.seq - 1
        for vehicle, tid in device.night.vehicles[:40]:
            assert store.vehicle(vehicle.plate) == record(vehicle.plate, seed)
            if tid is not None:
                assert store.vehicle_by_tag(tid, vehicle.plate) == record(vehicle.plate, seed)
        assert len(load_trust_list(store.trust_entries()).keys) == 6 + seed
        assert load_policy(store.policy()).version == 1 + seed
        assert store.credential(Serial("00"), 7, 4 * seed, ()) is not None
        assert store.credential(Serial("00"), 7, 4 * seed + 4, ()) is None
    return seed


def publish_seed(night: Night, seed: int, **changes: object) -> Published:
    """A publication whose every part tells its number."""
    night.vehicles = fleet(120, seed)
    night.states = [0] * (4 * seed + 1)
    night.keys = 6 + seed
    night.trust_version = 1 + seed
    night.policy = Policy(version=1 + seed)
    return night.publish(**changes)


def refused(device: Device, error: type[SyncError], **options: object) -> str:
    """A refresh that must fail so, after which the old set is in use and the failure is noted."""
    with pytest.raises(error) as caught:
        device.client(**options).refresh()
    assert seed_in_use(device) == 0
    history = sync_history(device.root)
    assert history.last_failure == str(caught.value)
    assert history.last_failure_at == device.night.clock()
    assert history.last_good == BEGAN
    text = str(caught.value)
    assert "\n" not in text
    assert not any(vehicle.plate.text in text for vehicle, _ in device.night.vehicles)
    return text


def recovers(device: Device, seed: int = 1) -> None:
    """The next refresh from the good store succeeds and leaves nothing behind."""
    report = device.client().refresh()
    assert report.seq_after == seed + 1
    assert seed_in_use(device) == seed
    assert len(list((device.root / "gen").iterdir())) == 1
    assert list((device.root / "stage").iterdir()) == []
    assert sync_history(device.root).last_failure is None


class Breaking:
    """A fetcher whose connection breaks after some chunks."""

    def __init__(self, inner: MemoryFetcher, chunks: int) -> None:
        self.inner, self.left = inner, chunks

    def fetch(self, path: str, max_length: int) -> Iterator[bytes]:
        if path.startswith("chunk"):
            self.left -= 1
            if self.left < 0:
                raise FetchError(path, "no connection, or it broke off")
        yield from self.inner.fetch(path, max_length)


class Dead:
    """A server that is down."""

    def fetch(self, path: str, max_length: int) -> Iterator[bytes]:
        raise FetchError(path, "no connection, or it broke off")


def chunk_count(device: Device) -> int:
    return sum(path.startswith("chunk") for path in device.fetcher.requests)


def index_path(night: Night) -> str:
    """The newest index's path in the store."""
    paths = [path for path in night.store if path.startswith("targets/nightly/")]
    return max(paths, key=lambda path: decode_index(night.store[path]).seq)


def index_of(night: Night) -> Index:
    return decode_index(night.store[index_path(night)])


SPOIL: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda d: d[:-1],
    "longer": lambda d: d + b"\0",
    "flipped": lambda d: d[: len(d) // 2] + bytes([d[len(d) // 2] ^ 0x10]) + d[len(d) // 2 + 1 :],
    "empty": lambda _: b"",
    "html": lambda _: b"<html>please log in</html>",
}


CHILD = """
import sys
from pathlib import Path
from scripts.sandbox.folder_store import FolderStore, MemoryFetcher
from tests.nightly import FakeClock
from verifier.sync import SyncClient
from datetime import datetime

root, public, bootstrap, now = sys.argv[1:]
def step(name):
    print(name, flush=True)
    sys.stdin.readline()
clock = FakeClock(datetime.fromisoformat(now))
fetcher = MemoryFetcher(FolderStore(Path(public)))
progress = lambda name, done, whole: step(f"{name} {done}") if name == "download" else None
trusted = Path(bootstrap).read_bytes()
SyncClient(Path(root), fetcher, clock, trusted, "national", on_step=step, progress=progress).refresh()
print("done", flush=True)
"""


def killed_at(number: int, arguments: list[str]) -> None:
    """Run a sync in a child and kill it after it has told so many steps."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        for _ in range(number):
            line = child.stdout.readline().strip()
            assert line, "the child failed"
            if line == "done":
                break
            child.stdin.write("\n")
            child.stdin.flush()
        child.kill()
