"""Promise 7: whoever stands between a device and its publisher changes nothing and costs little."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from scripts.sandbox.folder_store import MemoryFetcher
from scripts.sandbox.server import serve
from tests import fault_proxy as faults
from tests.fault_proxy import Fault, fault_proxy
from tests.nightly import Device
from tests.syncing import SPOIL, device_behind, first_night, index_of, publish_seed, recovers, seed_in_use
from tests.torture.run import Run
from verifier.errors import FetchError, SyncError
from verifier.net import HttpFetcher
from verifier.sync_report import SyncOutcome

STEPS = 40
LONGEST_S, MOST_BYTES = 5.0, 8 << 20  # that an attack may cost
SLACK_S = 2.0  # for the machine, which does other things too
_ODD = some.integers(0, 1 << 30)


class Endless(MemoryFetcher):
    """A mirror one of whose objects goes on until the device has had enough."""

    def __init__(self, store: dict[str, bytes], path: str) -> None:
        super().__init__(store)
        self._path = path

    def fetch(self, path: str, max_length: int) -> Iterator[bytes]:
        if path != self._path:
            yield from super().fetch(path, max_length)
            return
        got = 0
        while got <= max_length:
            got += 1 << 16
            yield bytes(1 << 16)
        raise FetchError(path, "longer than allowed")  # as the fetchers of the product do


class Mirrors(RuleBasedStateMachine):
    """A publisher, a device, and everything that was ever published in the hands of an attacker."""

    tried = 0  # examples so far; hypothesis makes the objects itself

    def __init__(self) -> None:
        super().__init__()
        type(self).tried += 1
        self.folder = Path(tempfile.mkdtemp(prefix="mirrors-"))
        self.night = first_night()
        self.device: Device = self.night.device(self.folder / "cache")
        self.device.client().refresh()
        self.published = [dict(self.night.store)]
        self.newest = self.used = 0  # seeds: published last, in use
        self.silent_hours = 0

    def teardown(self) -> None:
        """Liveness: however it was treated, the next honest night is in use after one sync."""
        self.publish()
        recovers(self.device, self.newest)
        shutil.rmtree(self.folder)

    @rule()
    def publish(self) -> None:
        """The next night."""
        self.night.clock.move(hours=1)
        self.newest += 1
        self.silent_hours = 0
        publish_seed(self.night, self.newest)
        self.published.append(dict(self.night.store))

    @rule(hours=some.integers(1, 60))
    def time_passes(self, hours: int) -> None:
        """Nobody publishes anything."""
        self.night.clock.move(hours=hours)
        self.silent_hours += hours

    @precondition(lambda self: self.silent_hours < 20)
    @rule()
    def honest_sync(self) -> None:
        """What is published is in use after one sync."""
        self.device.client().refresh()
        assert seed_in_use(self.device) == self.newest
        self.used = self.newest

    def attacked(self, store: dict[str, bytes], fetcher: MemoryFetcher | None = None) -> None:
        """A sync from a store that the attacker made of what he has."""
        try:
            report = self.device.client(fetcher=fetcher or MemoryFetcher(store)).refresh()
        except SyncError:
            return
        # What he may do is to hand out what was published: never less than the device has.
        assert report.outcome is SyncOutcome.FRESH or report.seq_after > self.used + 1
        self.used = report.seq_after - 1
        assert self.used <= self.newest

    @rule(odd=_ODD)
    def rollback(self, odd: int) -> None:
        """Some publication of before, whole."""
        self.attacked(self.published[odd % len(self.published)])

    @rule(odd=_ODD, count=some.integers(1, 5))
    def mix(self, odd: int, count: int) -> None:
        """Objects of other publications, and of others' places, among the newest."""
        draw, store = random.Random(odd), dict(self.published[-1])
        paths = sorted(store)
        for _ in range(count):
            old = draw.choice(self.published)
            store[draw.choice(paths)] = old[draw.choice(sorted(old))]
        old = draw.choice(self.published)
        for path in draw.sample(sorted(old), min(count, len(old))):
            store[path] = old[path]
        self.attacked(store)

    @rule(odd=_ODD, how=some.sampled_from(sorted(SPOIL)))
    def spoil(self, odd: int, how: str) -> None:
        """An object that was cut, lengthened, altered or replaced."""
        store = dict(self.published[-1])
        path = sorted(store)[odd % len(store)]
        self.attacked(store | {path: SPOIL[how](store[path])})

    @rule(odd=_ODD)
    def withhold(self, odd: int) -> None:
        """An object that is not there."""
        store = dict(self.published[-1])
        del store[sorted(store)[odd % len(store)]]
        self.attacked(store)

    @rule(odd=_ODD)
    def endless(self, odd: int) -> None:
        """An object without end."""
        store = self.published[-1]
        self.attacked(store, Endless(store, sorted(store)[odd % len(store)]))

    @rule(what=some.sampled_from(["trust", "state.db", "stage"]))
    def lose(self, what: str) -> None:
        """The card loses one of the files that say what was accepted; the set in use still does."""
        path = self.device.root / what
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    @invariant()
    def one_whole_publication_is_in_use(self) -> None:
        """Safety: every answer is of one night, and never of an older one than before."""
        assert seed_in_use(self.device) == self.used
        assert index_of(self.night).seq == self.newest + 1


def run_machine(
    machine: type[RuleBasedStateMachine], seed: int, examples: int, steps: int = STEPS, *, shortest: bool = True
) -> None:
    """The error of an example that breaks a rule, of the shortest one unless told, with that example on stderr."""
    phases = (Phase.generate, Phase.shrink) if shortest else (Phase.generate,)
    chosen = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, database=None, derandomize=False,
        suppress_health_check=list(HealthCheck), print_blob=False, phases=phases,
    )  # fmt: skip
    run_state_machine_as_test(hypothesis.seed(seed)(machine), settings=chosen)


def hostile_mirrors(run: Run) -> None:
    """Promise 7."""
    for seed in run.rounds("examples", 0.5):
        before = Mirrors.tried
        run_machine(Mirrors, seed, 2 if run.seconds else 50)
        run.counts["examples"] += Mirrors.tried - before
    run.note(f"an example is up to {STEPS} publications, syncs and attacks")
    _over_http(run)


# ------------------------------------------------------------------------------------------- a bad connection

CONNECTIONS = (
    "hang", "silent", "drip body", "drip head", "drip handshake", "reset at once", "reset in the middle", "truncated",
    "ten gigabytes", "endless chunks", "wrong type", "captive portal", "lying portal", "redirect", "compressed", "404",
    "500", "503",
)  # fmt: skip


def peak_bytes(*, anew: bool = False) -> int:
    """The most memory that this process has had, since it was last asked anew."""
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    field = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(field.split()[1]) * 1024


def _over_http(run: Run) -> None:
    """Each fault on the real client over a real socket, at a random request of the sync and at all that follow."""
    night, folder = first_night(), run.new_folder()
    device_behind(night, folder / "behind", hours=12)
    device = night.device(folder / "cache")
    with serve(night.store) as server:
        names = sorted(CONNECTIONS)
        random.Random(run.seed).shuffle(names)
        longest, most, done = 0.0, 0, 0
        for seed in run.rounds("bad connections", 0.4):
            name = names[done % len(names)]
            after = random.Random(seed).randrange(6)
            shutil.rmtree(device.root, ignore_errors=True)
            shutil.copytree(folder / "behind", device.root, symlinks=True)
            seconds, grown = _one_fault(device, server.url, faults.FAULTS[name], after)
            longest, most, done = max(longest, seconds), max(most, grown), done + 1
            assert seconds <= LONGEST_S + SLACK_S, f"{name}: {seconds:.1f} s"
            assert grown <= MOST_BYTES, f"{name}: {grown >> 20} MB"
            run.counts["bad connections"] += 1
    run.note(f"the longest sync over a bad connection took {longest:.1f} s, the largest one {most / (1 << 20):.1f} MB")
    if done < len(names):
        run.note(f"{done} of {len(names)} ways of a connection to be bad were tried")


def _one_fault(device: Device, url: str, fault: Fault, after: int) -> tuple[float, int]:
    """The seconds and the bytes that it costs; what is in use afterwards is what was, or what was published."""
    served = 0

    def sometimes(wire: faults.Wire) -> None:
        nonlocal served
        served += 1
        (fault if served > after else faults.clean)(wire)

    before = seed_in_use(device)
    with fault_proxy(sometimes, url) as proxy:
        held = peak_bytes(anew=True)
        began = time.monotonic()
        try:
            with HttpFetcher(proxy.url, read_timeout=2, total_timeout=LONGEST_S - 1) as fetcher:
                device.client(fetcher=fetcher).refresh()
        except SyncError:
            assert seed_in_use(device) == before, "a failed sync changed what is in use"
        took, grown = time.monotonic() - began, peak_bytes() - held
    assert seed_in_use(device) in (before, 1)
    return took, grown
