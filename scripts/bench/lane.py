"""A checkpoint over several lanes, simulated: the real driver, tracker and checks, an emulated reader, traffic.

Among made-up vehicles in order some are planted: overdue, stolen, copied and unknown ones. The alarms must be exactly
those, each before its car has left the antenna's zone. A tag that names no plate is among them only where the reader
reads memory: without it, it may be that of a car in order, and is counted as not checked. A clock that jumps makes
minutes of traffic pass in seconds.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from firmware.build import build_device
from firmware.checkpoint import LEARNT, Checkpoint, Counts
from firmware.config import REGION, Home
from firmware.machine.events import Alarm, Event, PartFault
from firmware.tags import TC1_WORDS, Field, TagThread
from hw.rfid.driver import Driver
from hw.rfid.emulator.device import EmulatedReader
from hw.rfid.emulator.scene import Identity, Radio, Scene, lane_scene
from hw.rfid.models import MODELS
from hw.rfid.session import Wait
from hw.rfid.transport import Connect
from hw.rfid.types import RadioConfig
from scripts.bench.figures import Figure
from scripts.emulated_line import EmulatedLine, JumpingClock
from scripts.sandbox.authority import Authority, new_authority
from scripts.sandbox.fleet import Vehicle
from scripts.sandbox.folder_store import MemoryFetcher
from scripts.sandbox.tags import PersonalisedTag, TagForm, bind_tag, certificate
from verifier.check import CheckResult, Observation
from verifier.codec.tag import tc0_epc
from verifier.secret_files import write_secret
from verifier.sync import SyncClient
from verifier.types import Month, Plate, StatusLetter

Progress = Callable[[str, int, int], None]

BEGAN = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
POWER_DBM = 30.0
TWO_LANES = 2  # a copy drives so many lanes beside the original, at about the same moment
FORMS = {"a0": TagForm.TC0, "gx": TagForm.TC1}  # what a reader can read of a car at this speed
BAUD = {"a0": 115_200, "gx": 921_600}  # a certificate with every read needs the faster line
_STEP_NS = 2_000_000
_IN_ORDER = frozenset(map(StatusLetter, "ABGHIO"))


class Planted(StrEnum):
    """What is wrong with a vehicle."""

    OVERDUE = "overdue"
    STOLEN = "stolen"
    COPIED = "copied"  # its tag was copied whole: two cars with one identity
    BANK_COPIED = "certificate of another tag"
    UNKNOWN_TAG = "unknown tag"  # no field that we know
    UNKNOWN_PLATE = "unknown plate"  # a plate that is not in the register


SHARES = {  # vehicles of a thousand
    Planted.OVERDUE: 10, Planted.STOLEN: 5, Planted.COPIED: 5, Planted.BANK_COPIED: 5, Planted.UNKNOWN_TAG: 5,
    Planted.UNKNOWN_PLATE: 5,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """How the lanes are filled."""

    vehicles: int = 1000
    lanes: int = 4
    speed_kmh: float = 120.0
    headway_s: float = 1.0
    seed: int = 1
    read_probability: float = 0.7  # of a tag before an antenna, in one round


@dataclass(frozen=True, slots=True)
class Lane:
    """A scene, what was planted in it by EPC, when each EPC's last car leaves (seconds), and the device's folder.

    Of the tags `nameless` this reader can tell nothing.
    """

    traffic: Traffic
    scene: Scene
    planted: dict[bytes, Planted]
    nameless: frozenset[bytes]
    leaves_s: dict[bytes, float]
    lanes: dict[bytes, set[int]]
    home: Home


@dataclass(slots=True)
class Run:
    """What a run told. Seconds of the scene's clock."""

    checked: dict[bytes, float] = field(default_factory=dict)  # by EPC: when it was first checked
    alarms: dict[bytes, float] = field(default_factory=dict)
    alarm_lanes: dict[bytes, int] = field(default_factory=dict)
    words: dict[bytes, str] = field(default_factory=dict)
    check_s: float = 0.0  # in checks, records on the disk included
    cpu_s: float = 0.0  # of the handheld, without the emulated reader
    reads: int = 0
    faults: list[str] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)


# --------------------------------------------------------------------------------------------- the traffic


def build_lane(folder: Path, traffic: Traffic, form: TagForm) -> Lane:
    """An authority, a device that has synced from it, and traffic of its vehicles; all by the seed."""
    store: dict[str, bytes] = {}
    clock = lambda: BEGAN  # noqa: E731
    authority = new_authority(store, clock=clock, scale=max(200, traffic.vehicles * 3 // 2), seed=traffic.seed)
    rng = random.Random(f"lane/{traffic.seed}")  # noqa: S311 - traffic that can be driven again, no secret
    chosen = _chosen(authority, traffic.vehicles)
    kinds = _drawn(traffic, form, rng)
    for place, kind in kinds.items():
        _happen(authority, chosen[place].plate, kind)
    authority.publish()
    home = _synced(folder, authority, store)
    tags = [authority.tag(vehicle.plate, form) for vehicle in chosen]
    planted: dict[bytes, Planted] = {}
    for place, kind in kinds.items():
        tags[place] = _spoilt(authority, tags, place, kind, rng)
        planted[tags[place].epc] = kind
    without_memory = form is TagForm.TC0
    nameless = {epc for epc, kind in planted.items() if kind is Planted.UNKNOWN_TAG and without_memory}
    return _driven(traffic, tags, planted, nameless, home)


def _driven(
    traffic: Traffic, tags: list[PersonalisedTag], planted: dict[bytes, Planted], nameless: set[bytes], home: Home
) -> Lane:
    identities: list[Identity] = [(tag.tid, tag.epc, tag.user) for tag in tags]
    scene = lane_scene(
        identities, lanes=traffic.lanes, speed_kmh=traffic.speed_kmh, headway_s=traffic.headway_s,
        vehicles=traffic.vehicles, seed=traffic.seed, radio=Radio(read_probability=traffic.read_probability),
    )  # fmt: skip
    leaves: dict[bytes, float] = {}
    lanes: dict[bytes, set[int]] = {}
    for passage in scene.passages:
        epc = passage.tag.epc
        gone = passage.at_s + scene.radio.zone_m / 2 / passage.speed_mps
        leaves[epc] = max(gone, leaves.get(epc, 0.0))
        lanes.setdefault(epc, set()).add(passage.lane)
    planted = {epc: kind for epc, kind in planted.items() if epc not in nameless}
    return Lane(traffic, scene, planted, frozenset(nameless), leaves, lanes, home)


def _chosen(authority: Authority, count: int) -> list[Vehicle]:
    """Vehicles in order, each with a tag; their plates have no Chinese character but the province."""
    month = Month.at(BEGAN)
    found = [
        vehicle
        for vehicle in authority.registry.vehicles.values()
        if vehicle.status <= _IN_ORDER and vehicle.valid_until >= month
    ][:count]
    for vehicle in found:
        if vehicle.tid is None:
            bind_tag(authority.registry, vehicle.plate, f"E2801170{vehicle.number:016X}")
    return found


def _drawn(traffic: Traffic, form: TagForm, rng: random.Random) -> dict[int, Planted]:
    """Which places in the traffic get what. A copy needs its original two lanes to the left, which stays as it is."""
    kinds: dict[int, Planted] = {}
    free = set(range(traffic.vehicles))
    for kind, share in SHARES.items():
        if kind is Planted.BANK_COPIED and form is TagForm.TC0:
            continue  # the reader of these lanes reads no certificate
        for _ in range(max(1, share * traffic.vehicles // 1000)):
            copied = kind is Planted.COPIED
            fit = [p for p in free if not copied or _copyable(p, traffic, free)]
            if fit:
                place = rng.choice(sorted(fit))
                kinds[place] = kind
                free -= {place, place - TWO_LANES} if copied else {place}
    return kinds


def _copyable(place: int, traffic: Traffic, free: set[int]) -> bool:
    """There is an original two lanes to the left, and the checkpoint has learnt how loud a car is."""
    return place >= 2 * LEARNT and place % traffic.lanes >= TWO_LANES and place - TWO_LANES in free


def _happen(authority: Authority, plate: Plate, kind: Planted) -> None:
    if kind is Planted.OVERDUE:
        authority.registry.lapse(plate, Month.at(BEGAN).plus(-3))
    elif kind is Planted.STOLEN:
        authority.registry.set_status(plate, "C")


def _spoilt(
    authority: Authority, tags: list[PersonalisedTag], place: int, kind: Planted, rng: random.Random
) -> PersonalisedTag:
    """The tag that the planted car really carries."""
    tag = tags[place]
    if kind is Planted.COPIED:
        return tags[place - TWO_LANES]
    if kind is Planted.BANK_COPIED:
        return tag._replace(tid=b"\xe2\x80\x11\x05" + rng.randbytes(8))
    if kind is Planted.UNKNOWN_TAG:
        return PersonalisedTag(b"\xe2\x00\x34\x12" + rng.randbytes(8), b"\x30" + rng.randbytes(11), rng.randbytes(128))
    if kind is Planted.UNKNOWN_PLATE:
        return _unregistered(authority, rng)
    return tag


def _unregistered(authority: Authority, rng: random.Random) -> PersonalisedTag:
    """A tag whose EPC claims a plate that no vehicle has; nobody signed it."""
    vehicle = next(v for v in authority.registry.vehicles.values() if v.tid is not None and v.plate.kind == "02")
    numbers = (f"{vehicle.plate.text[:2]}{rng.randrange(100_000):05d}" for _ in itertools.count())
    plate = next(p for p in (Plate(number, "02") for number in numbers) if p not in authority.registry.vehicles)
    entry = authority.registry.credential(vehicle.plate)
    claims = replace(certificate(vehicle, entry, BEGAN), plate=plate)
    return PersonalisedTag(b"\xe2\x80\x11\x05" + rng.randbytes(8), tc0_epc(claims, rng.randbytes(8)), b"")


def _synced(folder: Path, authority: Authority, store: dict[str, bytes]) -> Home:
    home = Home(folder)
    home.folder.mkdir(parents=True, exist_ok=True)
    write_secret(home.epoch_key, authority.epoch_key.hex().encode())
    SyncClient(
        home.cache, MemoryFetcher(store), lambda: BEGAN, authority.publisher.root_bytes(), REGION
    ).refresh()  # fmt: skip
    return home


# ------------------------------------------------------------------------------------------------- the run


class TimedReader(EmulatedReader):
    """An emulated reader, and the processor's seconds that went into it."""

    cpu_s = 0.0

    def turn(self, now: float, heard: bytes = b"") -> bytes:
        """As the reader's own."""
        began = time.process_time()
        data = super().turn(now, heard)
        self.cpu_s += time.process_time() - began
        return data


def emulated(lane: Lane, protocol: str) -> TimedReader:
    """The reader over the lanes, with the line's speed that its reads need."""
    reader = TimedReader(protocol, lane.scene)
    reader.engine.baud = BAUD[protocol]
    return reader


def simulate(lane: Lane, protocol: str, progress: Progress = lambda *_: None) -> Run:
    """Drive the traffic past the checkpoint under a clock that jumps."""
    reader, clock = emulated(lane, protocol), JumpingClock(BEGAN, step_ns=_STEP_NS)
    line, run, began = EmulatedLine(reader, clock), Run(), time.process_time()
    options = {"monotonic_ns": clock.monotonic_ns, "clock": clock.now, "wait": clock.wait}
    with watching(lane, run, driver(protocol, line.connect, **options), clock.monotonic_ns, clock.wait) as thread:
        end_ns = int((lane.scene.ends_s + 1.0) * 1e9)

        def turn() -> bool:
            if clock.ns >= end_ns:
                thread.close()
            came = line.turn()
            if came:
                progress("traffic", clock.ns // 1_000_000_000, end_ns // 1_000_000_000)
            return came

        clock.turn = turn
        thread.watch(on=True)
        thread.run()
    run.cpu_s = time.process_time() - began - reader.cpu_s
    run.reads = reader.figures.reads
    return run


def driver(protocol: str, connect: Connect, **options: Any) -> Callable[[], Driver]:
    """How to make the driver of this reader."""
    return lambda: MODELS[protocol].driver(connect, RadioConfig(power_dbm=POWER_DBM), reader_id="lane", **options)


@contextmanager
def watching(
    lane: Lane,
    run: Run,
    make: Callable[[], Driver],
    monotonic_ns: Callable[[], int] = time.monotonic_ns,
    wait: Wait = threading.Condition.wait,
) -> Iterator[TagThread]:
    """The program's tag thread over the device that `build_lane` made; what it tells is kept in `run`."""
    device, began = build_device(lane.home, lambda: BEGAN), monotonic_ns()
    epcs: dict[str, bytes] = {}

    def check(seen: Observation) -> CheckResult:
        started = time.perf_counter()
        result = device.verifier.check(seen)
        run.check_s += time.perf_counter() - started
        if seen.tag is not None and seen.tag.seen is not None:
            epcs[result.check_id] = seen.tag.seen.epc
            run.checked.setdefault(seen.tag.seen.epc, (monotonic_ns() - began) / 1e9)
        return result

    def post(event: Event) -> None:
        if isinstance(event, Alarm):
            epc = epcs[event.result.check_id]
            run.alarms.setdefault(epc, (monotonic_ns() - began) / 1e9)
            run.alarm_lanes.setdefault(epc, event.lane)
            run.words.setdefault(epc, event.result.verdict.code.value)
        elif isinstance(event, PartFault) and event.problem:
            run.faults.append(event.problem)

    verifier = device.verifier

    def made(with_memory: bool) -> Checkpoint:
        fresh = Checkpoint(check, verifier.look_at, with_memory=with_memory)
        fresh.counts = run.counts
        return fresh

    thread = TagThread(
        make, post, verifier.look_at, made,
        field=Field(antennas=tuple(range(1, lane.traffic.lanes + 1)), user_words=TC1_WORDS),
        monotonic_ns=monotonic_ns, wait=wait,
    )  # fmt: skip
    try:
        yield thread
    finally:
        thread.close()
        device.store.close()


# ------------------------------------------------------------------------------------------------ the figures


def kinds_of_alarms(lane: Lane, run: Run) -> list[str]:
    """Each planted kind with what it was answered with, and how often; for people."""
    answers = Counter((lane.planted[epc], word) for epc, word in run.words.items() if epc in lane.planted)
    return [f"{kind.value:28} {word:22} {n}" for (kind, word), n in sorted(answers.items())]


def figures(lane: Lane, run: Run) -> Iterator[Figure]:
    """What was promised of the run, and what it cost."""
    identities, planted = set(lane.leaves_s), set(lane.planted)
    missed, false, silent = identities - set(run.checked), set(run.alarms) - planted, planted - set(run.alarms)
    margins = [lane.leaves_s[epc] - at_s for epc, at_s in run.alarms.items() if epc in planted]
    right = sum(run.alarm_lanes[epc] in lane.lanes[epc] for epc in run.alarms if epc in planted)
    count, seconds = lane.traffic.vehicles, lane.scene.ends_s
    yield _none("vehicles that passed unread", missed, f"{len(missed)} of {len(identities)} identities")
    yield _none("alarms for a vehicle in order", false, f"{len(false)} of {len(run.alarms)} alarms")
    yield _none("planted vehicles without an alarm", silent, f"{len(silent)} of {len(planted)}")
    unchecked = run.counts.unchecked
    yield Figure(
        name="tags without a plate that were miscounted", value=abs(unchecked - len(lane.nameless)), at_most=0, unit="",
        measured=f"{unchecked} of {len(lane.nameless)} counted as not checked",
    )  # fmt: skip
    yield Figure(
        name="latest alarm before its car left the zone", value=min(margins, default=None), at_least=0.0, unit="s",
        measured=f"{min(margins, default=0) * 1000:.0f} ms (middle {_middle(margins) * 1000:.0f} ms)",
    )  # fmt: skip
    yield _none("faults of the reader", run.faults, str(len(run.faults)))
    yield Figure(name="alarms with the right lane", value=right, measured=f"{right} of {len(margins)}")
    yield Figure(
        name="check and record of one vehicle",
        value=run.check_s / max(1, len(run.checked)),
        measured=f"{1000 * run.check_s / max(1, len(run.checked)):.2f} ms ({run.reads / count:.1f} reads a vehicle)",
    )
    share = run.cpu_s / seconds
    yield Figure(
        name="processor", value=share,
        measured=f"{100 * share:.1f} % of one core ({1 / share:.0f} times as fast as the road)",
        note="driver, tracker and checks; without the emulated reader",
    )  # fmt: skip


def _none(name: str, found: Collection[object], measured: str) -> Figure:
    return Figure(name=name, value=len(found), at_most=0, unit="", measured=measured)


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2] if values else 0.0
