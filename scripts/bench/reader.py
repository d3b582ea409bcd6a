"""Tag readers: how fast bytes become reads, and how soon a driver stops, recovers and comes back.

The line's own rate is the baseline of every speed, and seconds are those on the processor, all threads together: a
machine that does something else meanwhile is not a slow driver. Bytes through a port come from another process, so
that their writer does not share our interpreter.
"""

from __future__ import annotations

import pty
import random
import subprocess
import sys
import tempfile
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import close, ttyname
from pathlib import Path

from hw.rfid import a0, gx, m100
from hw.rfid.driver import Driver
from hw.rfid.emulator.device import EmulatedReader
from hw.rfid.emulator.faults import Fault, FaultKind
from hw.rfid.emulator.port import running
from hw.rfid.emulator.scene import Passage, Radio, Scene, Tag
from hw.rfid.framing import Splitter
from hw.rfid.inventory import Inventory
from hw.rfid.models import MODELS
from hw.rfid.packets import Codec, Sighting, tag_crc
from hw.rfid.session import Session
from hw.rfid.tracker import Tracker
from hw.rfid.transport import serial_line
from hw.rfid.types import Event, Gap, Health, TagRead
from scripts.bench.figures import Figure

Progress = Callable[[str, int, int], None]

SLOW, FAST = 115_200, 921_600  # baud
SLOW_TARGET, FAST_TARGET = 100, 20  # times the line's own frame rate
CPU_TARGET = 5.0  # percent of one core
RECOVERY_TARGET = 2  # frames
STOP_TARGET, REPLUG_TARGET = 0.3, 6.0  # seconds
DAMAGED, ERROR_RATE = 20_000, 1e-3
FRAMES = 20_000  # of one measurement in memory
STOPS = 5
_SEED = 1

# Writes what it is given on standard input to a file descriptor: again and again for so many seconds, at a byte rate.
_WRITER = """
import os, sys, time
fd, seconds, rate = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
data = sys.stdin.buffer.read()
began, sent = time.monotonic(), 0
while (now := time.monotonic() - began) < seconds:
    due = int(now * rate) - sent if rate else 65536
    at = sent % len(data)
    sent += os.write(fd, data[at : at + due]) if due > 0 else 0
    if rate:
        time.sleep(0.002)
"""


def bench_reader(seconds: float, progress: Progress) -> list[Figure]:
    """All figures; `seconds` is how long each measurement through a port lasts."""
    parts: list[Callable[[], Iterator[Figure]]] = [
        _in_memory, lambda: _through_port(seconds), lambda: _load(seconds), _damage, _recovery, _stop, _replug
    ]  # fmt: skip
    figures: list[Figure] = []
    for number, part in enumerate(parts, start=1):
        figures += part()
        progress("tag readers", number, len(parts))
    return figures


def _epcs(count: int) -> list[bytes]:
    rng = random.Random(_SEED)  # noqa: S311 - repeatable figures, no secret
    return [rng.randbytes(12) for _ in range(count)]


def _m100_notice(epc: bytes) -> bytes:
    words = b"\x30\x00" + epc
    return m100.build(m100.POLL, b"\xc9" + words + tag_crc(words).to_bytes(2, "big"), kind=2)


def _a0_notice(epc: bytes) -> bytes:
    return a0.build(a0.SESSION, b"\xac\x30\x00" + epc + b"\x3c")


def _gx_notice(epc: bytes) -> bytes:
    data = b"\x00\x0c" + epc + b"\x30\x00\x01\x01\xaa\x08\x00\x0e\x0a\x3d"
    return gx.build(gx.BASE << 8, data, flags=gx.FROM_READER)


_NOTICES = {"m100": _m100_notice, "a0": _a0_notice, "gx": _gx_notice}


def _sightings(codec: Codec, stream: bytes) -> list[Sighting]:
    """The tags in a stream that comes in pieces of 4 KB."""
    splitter = Splitter(codec.layout, codec.inventory_cap)
    pieces = (stream[at : at + 4096] for at in range(0, len(stream), 4096))
    packets = [codec.decode(frame) for piece in pieces for frame in splitter.feed(piece, 0.0)]
    packets += [codec.decode(frame) for frame in splitter.flush()]  # after the stream, the line is silent
    return [packet for packet in packets if isinstance(packet, Sighting)]


def _in_memory() -> Iterator[Figure]:
    for name, notice in _NOTICES.items():
        codec, frames = MODELS[name].codec(), [notice(epc) for epc in _epcs(FRAMES)]
        stream, best = b"".join(frames), 0.0
        for _ in range(3):
            began = time.process_time()
            found = len(_sightings(codec, stream))
            best = max(best, found / (time.process_time() - began))
        yield from _speed(f"{name}: split, decode, check", best, len(frames[0]))


def _speed(name: str, rate: float, length: int) -> Iterator[Figure]:
    for baud, target in ((SLOW, SLOW_TARGET), (FAST, FAST_TARGET)):
        line = baud / 10 / length
        yield Figure(
            name=f"{name} / line at {baud}", value=rate / line, at_least=target,
            measured=f"{rate / line:.0f}x ({rate / 1000:.0f} k frames/s, line {line:.0f})",
        )  # fmt: skip


@contextmanager
def _written(data: bytes, seconds: float, rate: float) -> Iterator[Path]:
    """A port into which another process writes; `rate` in bytes a second, 0 as fast as it goes."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    writer = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-c", _WRITER, str(master), str(seconds), str(rate)], stdin=subprocess.PIPE, pass_fds=[master]
    )
    try:
        if writer.stdin:
            writer.stdin.write(data)
            writer.stdin.close()
        yield Path(ttyname(slave))
    finally:
        writer.kill()
        writer.wait()
        close(master)
        close(slave)


def _through_port(seconds: float) -> Iterator[Figure]:
    for name, notice in _NOTICES.items():
        frames = [notice(epc) for epc in _epcs(1000)]
        with _written(b"".join(frames), seconds + 2, 0) as path:
            taken, cpu, _ = _taken(name, path, seconds)
        yield from _speed(f"{name}: through a port, tracked", taken / cpu, len(frames[0]))


def _load(seconds: float) -> Iterator[Figure]:
    """The processor's share at the full rate of the slow line, reads tracked."""
    frames = [_m100_notice(epc) for epc in _epcs(200)]
    with _written(b"".join(frames), 2 * seconds + 2, SLOW / 10) as path:
        taken, cpu, passed = _taken("m100", path, 2 * seconds)
    share = 100 * cpu / passed
    yield Figure(
        name="CPU at a full line of 115200", value=share, at_most=CPU_TARGET, unit="% of one core",
        measured=f"{share:.1f} % ({taken / passed:.0f} reads/s)", note="line, session, driver and tracker",
    )  # fmt: skip


def _taken(name: str, path: Path, seconds: float) -> tuple[int, float, float]:
    """Frames, seconds on the processor and seconds that passed, from the first frame on."""
    model, health, tracker = MODELS[name], Health(), Tracker()
    driver = model.driver(serial_line(path, SLOW))
    session = Session(serial_line(path, SLOW), model.codec(), health)
    try:
        session.take(5.0)
        began, cpu, frames = time.perf_counter(), time.process_time(), health.frames
        while (passed := time.perf_counter() - began) < seconds:
            heard = session.take(0.1)
            if heard and isinstance(heard[0], Sighting):
                tracker.see(driver.tag_read(heard[0], heard[1]))
        return health.frames - frames - health.overruns, time.process_time() - cpu, passed
    finally:
        session.close()


def _damage() -> Iterator[Figure]:
    """M100 frames with bytes made wrong at random."""
    rng = random.Random(_SEED)  # noqa: S311 - as above
    sent = _epcs(DAMAGED)
    stream = bytearray(b"".join(map(_m100_notice, sent)))
    for at in range(len(stream)):
        if rng.random() < ERROR_RATE:
            stream[at] = rng.randrange(256)
    got = {tag.epc for tag in _sightings(MODELS["m100"].codec(), bytes(stream))}
    wrong = len(got - set(sent))
    yield Figure(
        name="m100: wrong EPCs at one bad byte in 1000", value=wrong, at_most=0, unit="",
        measured=f"{wrong} ({len(got & set(sent))} of {DAMAGED} frames came through)",
    )  # fmt: skip


def _recovery() -> Iterator[Figure]:
    """Every byte of a frame made wrong in four ways: the most frames that are lost."""
    for name, notice in _NOTICES.items():
        codec, sent = MODELS[name].codec(), _epcs(12)
        frames = [notice(epc) for epc in sent]
        stream, start, end = b"".join(frames), len(frames[0]) * 4, len(frames[0]) * 5
        worst = 0
        for at in range(start, end):
            for wrong in {0x00, 0xFF, stream[at] ^ 0x01, stream[at] ^ 0x80} - {stream[at]}:
                damaged = stream[:at] + bytes((wrong,)) + stream[at + 1 :]
                got = {tag.epc for tag in _sightings(codec, damaged)}
                worst = max(worst, len(set(sent) - got))
        yield Figure(
            name=f"{name}: frames lost to one bad byte", value=worst, at_most=RECOVERY_TARGET, unit="",
            measured=f"{worst} at most, the damaged one among them",
        )  # fmt: skip


@contextmanager
def _emulated(protocol: str, *faults: Fault) -> Iterator[Driver]:
    tags = [Tag(epc=epc, tid=b"\xe2\x80\x11\x60" + epc[:8]) for epc in _epcs(20)]
    radio = Radio(tags_per_s=400.0)
    scene = Scene(passages=tuple(Passage(tag=tag, rssi_dbm=-50.0) for tag in tags), faults=faults, radio=radio)
    with tempfile.TemporaryDirectory(prefix="markcheck-bench-") as folder:
        link = Path(folder) / "reader"
        with (
            running(EmulatedReader(protocol, scene), time.monotonic, link),
            MODELS[protocol].driver(serial_line(link, SLOW)) as driver,
        ):
            yield driver


def _until(scan: Inventory, wanted: Callable[[Event], bool], seconds: float) -> Event | None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        event = scan.poll(0.1)
        if event is not None and wanted(event):
            return event
    return None


def _stop() -> Iterator[Figure]:
    """From asking to stop until the reader is silent, while it reads 400 tags a second."""
    for name in _NOTICES:
        times = []
        with _emulated(name) as driver:
            for _ in range(STOPS):
                with driver.inventory() as scan:
                    _until(scan, lambda event: isinstance(event, TagRead), 3.0)
                    began = time.monotonic()
                times.append(time.monotonic() - began)
        yield Figure(
            name=f"{name}: stop under full stream", value=max(times), at_most=STOP_TARGET, unit="s",
            measured=f"{max(times) * 1000:.0f} ms, the longest of {STOPS}",
        )  # fmt: skip


def _replug() -> Iterator[Figure]:
    """From the plug's return until the first read."""
    away = 1.0
    for name in _NOTICES:
        fault = Fault(kind=FaultKind.UNPLUG, at_s=1.0, seconds=away)
        with _emulated(name, fault) as driver, driver.inventory() as scan:
            _until(scan, lambda event: isinstance(event, Gap), 5.0)
            lost = time.monotonic()
            back = _until(scan, lambda event: isinstance(event, TagRead), REPLUG_TARGET + away + 1)
            passed = time.monotonic() - lost - away
        yield Figure(
            name=f"{name}: reading again after the plug is back", value=passed if back else None,
            at_most=REPLUG_TARGET, unit="s", measured=f"{passed:.2f} s" if back else "not in time",
        )  # fmt: skip
