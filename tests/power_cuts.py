"""What the tests of power cuts share: nights with a known truth, and a sync in a process of its own to be cut off.

`python -m tests.power_cuts CACHE URL ROOT NOW` is that process: it says "go" when it begins and "done" at the end.
"""

from __future__ import annotations

import random
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from scripts.sandbox.server import serve
from tests.conftest import ROOT
from tests.nightly import EPOCH_KEY, FakeClock, Night, plates, record
from verifier.cache.store import StatusStore
from verifier.errors import CacheMissingError
from verifier.net import HttpFetcher
from verifier.sync import SyncClient
from verifier.sync_report import SyncReport
from verifier.trust import load_trust_list
from verifier.types import CredentialState, Plate, Serial, VehicleRecord

KNOWN = 400  # plates that ever stand in the register
LONGEST = 60.0  # seconds that a sync may take before the test gives it up


@dataclass
class Nights:
    """A publisher, and for each of its numbers what a device must answer that has it in use."""

    seed: int = 0
    night: Night = field(default_factory=Night)
    truths: dict[int, dict[Plate, VehicleRecord]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        self.known = list(plates(KNOWN))
        self.tags = {plate: f"E280{i:020X}" for i, plate in enumerate(self.known) if i % 3}
        self.register = {plate: record(plate, self.seed) for plate in self.known if self.draw.random() < 0.9}

    def publish(self) -> int:
        """The next night: some records changed, some vehicles came or went; each fourth on another base. Its number."""
        number = len(self.truths) + 1
        for plate in self.draw.sample(self.known, 8):
            if plate in self.register and self.draw.random() < 0.4:
                del self.register[plate]
            else:
                self.register[plate] = record(plate, self.draw.getrandbits(32))
        night = self.night
        night.clock.move(hours=1)
        night.vehicles = [(vehicle, self.tags.get(plate)) for plate, vehicle in self.register.items()]
        night.states = [number % 2] * (8 * number + 1)
        night.keys, night.trust_version = 6 + number % 4, number
        assert night.publish(snapshot=number % 4 == 0).seq == number
        self.truths[number] = dict(self.register)
        return number

    def in_use(self, root: Path) -> int | None:
        """The number of the set in use, every answer of which is that of this one night; None when there is none."""
        with closing(StatusStore(root, EPOCH_KEY)) as store:
            try:
                number = store.info().seq
            except CacheMissingError:
                return None
            truth = self.truths[number]
            for plate in self.known:
                assert store.vehicle(plate) == truth.get(plate), f"a wrong answer in no. {number}"
                if plate in self.tags:
                    assert store.vehicle_by_tag(self.tags[plate], plate) == truth.get(plate)
            assert len(load_trust_list(store.trust_entries()).keys) == 6 + number % 4
            last = store.credential(Serial("00"), 7, 8 * number, ())
            assert last is not None
            assert last.state is (CredentialState.REVOKED if number % 2 else CredentialState.ACTIVE)
            assert store.credential(Serial("00"), 7, 8 * number + 8, ()) is None
        return number

    def sync(self, root: Path, url: str) -> SyncReport:
        """A sync in this process."""
        with HttpFetcher(url) as fetcher:
            night = self.night
            return SyncClient(root, fetcher, night.clock, night.publisher.root_bytes(), night.region).refresh()

    @contextmanager
    def served(self, folder: Path) -> Iterator[str]:
        """The publications behind a web server, and the root metadata in a file of the folder; the server's URL."""
        (folder / "root.json").write_bytes(self.night.publisher.root_bytes())
        with serve(self.night.store) as server:
            yield server.url

    def child(self, root: Path, url: str, folder: Path, wrapped: Sequence[str] = ()) -> subprocess.Popen[str]:
        """A sync in a process of its own, which has just begun; `wrapped` is the front of its command."""
        arguments = [str(root), url, str(folder / "root.json"), self.night.clock().isoformat()]
        process = subprocess.Popen(
            [*wrapped, sys.executable, "-m", "tests.power_cuts", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        _expect(process, LONGEST, "go")
        return process

    def usual(self, url: str, folder: Path) -> float:
        """How long a first sync takes that nobody cuts off, in seconds."""
        return duration(self.child(folder / "whole", url, folder))


def cut_off(process: subprocess.Popen[str], after: float, cut: Callable[[], None]) -> bool:
    """Cut a sync off after so many seconds; whether it had said before that it was done."""
    with process:
        said = _expect(process, after, "done", None)
        cut()
        process.kill()
    return said == "done"


def duration(process: subprocess.Popen[str]) -> float:
    """How long a sync takes that nobody cuts off, in seconds."""
    began = time.monotonic()
    with process:
        _expect(process, LONGEST, "done")
    return time.monotonic() - began


def _expect(process: subprocess.Popen[str], within: float, *words: str | None) -> str | None:
    """What the process says within so many seconds, None for nothing; an error with its own words for all else."""
    said = _line(process, within)
    if said not in words:
        process.kill()
        raise AssertionError(f"the sync failed by itself: {process.communicate()[1]}")
    return said


def _line(process: subprocess.Popen[str], within: float) -> str | None:
    """The next line the process says within so many seconds, None when it says nothing yet."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        return process.stdout.readline().strip() if selector.select(within) else None


def main(root: str, url: str, trusted: str, now: str) -> None:
    clock = FakeClock(datetime.fromisoformat(now))
    with HttpFetcher(url) as fetcher:
        client = SyncClient(Path(root), fetcher, clock, Path(trusted).read_bytes(), "national")
        print("go", flush=True)
        client.refresh()
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
