"""Promises 11, 12 and 13: parts that hang, lines that are cut or full of noise, and a day of scanning."""

from __future__ import annotations

import gc
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from firmware.machine import events as ev
from firmware.machine.checking import CONFIRM_MS
from firmware.machine.states import State
from firmware.machine.steps import step
from firmware.scanner import CodeEvent, FaultEvent, FaultReason, Scanner, ScanSource
from firmware.views import result_view
from hw.buttons.keys import Key, KeyEvent
from hw.rfid.emulator.faults import Fault, FaultKind
from hw.rfid.types import GapReason
from tests.conftest import ROOT
from tests.screen_states import pages_ink
from tests.test_check import World as CheckWorld
from tests.test_check import seen_plate
from tests.test_rfid_codec import PROTOCOLS, noise_gives_no_tag
from tests.test_rfid_driver import EPCS, gaps_of, reads_of, tag
from tests.test_rfid_driver import World as ReaderWorld
from tests.test_run import DEMO, manager
from tests.test_scanner import EMPTY, MARK, TRAPPED, save, scene
from tests.torture.run import Run
from verifier.check import Observation
from verifier.types import PresentationMode

SCANNER_S, PROCESS_S, BOARD_S = 3.0, 15.0, 30.0
SLACK_S = 1.0  # for the test's own process on a busy machine
PATIENCE_S = 90.0  # for what is no promise: that a process starts at all
UNIT, BOARD = ROOT / "systemd" / "markcheck.service", ROOT / "systemd" / "system.conf.d" / "markcheck.conf"


def hanging_parts(run: Run) -> None:
    """Promise 11."""
    worst: dict[str, float] = {}
    for number, _ in enumerate(run.rounds("hanging scanners", 0.4)):
        kind, hang = [("camera", _stuck_camera), ("decoder", _stuck_decoder)][number % 2]
        seconds = hang(run.new_folder())
        worst[kind] = max(worst.get(kind, 0.0), seconds)
        assert seconds <= SCANNER_S + SLACK_S, f"a stuck {kind} was replaced after {seconds:.1f} s"
        run.counts["hanging scanners"] += 1
    for seed in run.rounds("hanging programs", 0.6):
        seconds = _stopped_program(run.new_folder(), random.Random(seed))
        worst["program"] = max(worst.get("program", 0.0), seconds)
        assert seconds <= PROCESS_S + SLACK_S, f"a stopped program was replaced after {seconds:.1f} s"
        run.counts["hanging programs"] += 1
    run.note("until it was replaced, at most: " + ", ".join(f"{what} {took:.1f} s" for what, took in worst.items()))
    board = int(_setting(BOARD, "RuntimeWatchdogSec"))
    assert board <= BOARD_S
    run.note(f"the board's own watchdog is set to {board} s; no board was at hand to let it bite")


def _stuck_camera(folder: Path) -> float:
    """Seconds until a camera that gives nothing has a process of its own again."""
    source = ScanSource(make="tests.scan_stand_ins:Stuck", path=folder, live=True)
    with Scanner(source) as scanner:
        return _replaced(scanner)


def _stuck_decoder(folder: Path) -> float:
    """The same for a frame over which the decoder never comes back; then the next frame is read."""
    picture = folder / "window.png"
    save(picture, EMPTY)
    source = ScanSource(make="tests.scan_stand_ins:Window", path=picture, live=True)
    with Scanner(source, decoders=TRAPPED) as scanner:
        _until(scanner, lambda: scanner._frames > 0)
        save(picture, scene("HANG"))
        seconds = _replaced(scanner)
        save(picture, scene(MARK))
        end = time.monotonic() + PATIENCE_S
        while not any(isinstance(event, CodeEvent) for event in scanner.poll(0.05)):
            assert time.monotonic() < end, "nothing is read after the hang"
        return seconds


def _replaced(scanner: Scanner) -> float:
    """Seconds from the beginning of the hang until another process was begun."""
    _until(scanner, lambda: scanner._child is not None and scanner._child.state.name != "STARTING")
    end = time.monotonic() + PATIENCE_S
    while True:
        child = scanner._child
        since = time.monotonic() if child is None else child.since
        events = scanner.poll(0.05)
        if any(isinstance(event, FaultEvent) and event.reason is FaultReason.HANG for event in events):
            break
        assert time.monotonic() < end, "the hang was not noticed"
    _until(scanner, lambda: scanner._child is not None)
    return time.monotonic() - since


def _until(scanner: Scanner, holds: object) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < end, "the scanner does not start"
        scanner.poll(0.05)


def _setting(unit: Path, name: str) -> str:
    found = re.search(rf"^{name}=(\S+)$", unit.read_text(), re.MULTILINE)
    assert found, f"{unit.name} does not set {name}"
    return found[1]


def _stopped_program(folder: Path, draw: random.Random) -> float:
    """The whole program is stopped in its tracks; this process does what the unit tells the service manager to do."""
    watchdog_s, abort_s, again_s = (
        float(_setting(UNIT, name)) for name in ("WatchdogSec", "TimeoutAbortSec", "RestartSec")
    )
    home = folder / "home"
    home.mkdir()
    with manager(folder) as ear:
        ear.settimeout(PATIENCE_S)
        process = _started(home, folder / "notify")
        try:
            _hears(ear, b"WATCHDOG=1")
            time.sleep(draw.uniform(0, 3))
            began = time.monotonic()
            process.send_signal(signal.SIGSTOP)
            _silence(ear, watchdog_s)
            process.send_signal(signal.SIGABRT)
            try:
                process.wait(abort_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(PATIENCE_S)
            time.sleep(again_s)
            process = _started(home, folder / "notify")
            took = time.monotonic() - began
            _hears(ear, b"READY=1")
            return took
        finally:
            process.kill()
            process.wait()


def _started(home: Path, notify: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "firmware", "--config", str(DEMO), "--home", str(home)]
    return subprocess.Popen(
        words, cwd=ROOT, env={**os.environ, "NOTIFY_SOCKET": str(notify)}, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _hears(ear: socket.socket, message: bytes) -> None:
    while ear.recv(1000) != message:
        pass


def _silence(ear: socket.socket, seconds: float) -> None:
    """Until so many seconds have passed since the last sign of life."""
    ear.settimeout(seconds)
    try:
        while True:
            ear.recv(1000)
    except TimeoutError:
        ear.settimeout(PATIENCE_S)


# ---------------------------------------------------------------------------------------------- lines

NOISE = 1_005_000  # bytes of a round
REPLUG_S = 6.0  # between two tries to open a line there are 5 s at most


def bad_lines(run: Run) -> None:
    """Promise 12."""
    for number, seed in enumerate(run.rounds("noise bytes", 0.3)):
        noise_gives_no_tag(PROTOCOLS[number % len(PROTOCOLS)], NOISE, seed)
        run.counts["noise bytes"] += NOISE
    worst = within = 0.0
    for number, seed in enumerate(run.rounds("replugs", 0.7)):
        late = _replug(PROTOCOLS[number % len(PROTOCOLS)], random.Random(seed))
        worst, within = max(worst, late), within + (late <= 1)
        run.counts["replugs"] += 1
    run.note(f"served again {worst:.1f} s after the plug was back at the most, {within / run.counts['replugs']:.0%} "
             "within 1 s")  # fmt: skip


def _replug(protocol: str, draw: random.Random) -> float:
    """Seconds from the plug being in again to the next read; the clock is that of the test."""
    out_s, at_s = draw.choice((draw.uniform(0.2, 3), draw.uniform(3, 30))), draw.uniform(2, 4)
    fault = Fault(kind=FaultKind.UNPLUG, at_s=at_s, seconds=out_s)
    world = ReaderWorld(protocol, tags=[tag(EPCS[0])], faults=[fault])
    world.driver.open()
    events = world.events(at_s + out_s + 2 * REPLUG_S)
    lost = [gap for gap in gaps_of(events) if gap.reason is GapReason.LINK_LOST]
    assert lost, "the lost line was not told"
    assert lost[-1].over, "the reader did not come back"
    back_ns = (1 + at_s + out_s) * 1e9
    after = [read for read in reads_of(events) if read.mono_ns > back_ns]
    assert after, "nothing is read after the plug is in again"
    assert {read.epc for read in after} == {EPCS[0]}, "a tag that is not there"
    late = (after[0].mono_ns - back_ns) / 1e9
    assert late <= REPLUG_S, f"{late:.1f} s after the plug was back"
    return late


# ---------------------------------------------------------------------------------------------- a long day

WARM_UP, PART, DRAWN = 1000, 250, 25  # scans; each so many-th is drawn, too
MOST_A_SCAN = (1 << 20) / (24 * 3600 / 5)  # bytes: a megabyte in a day with a scan every five seconds
PAGES = 256 << 10  # bytes by which the allocator's pages come and go without any leak
BLOCKS = 0.02  # objects for each scan that may stay: none does, and a list that grows by halves may just have grown


def long_day(run: Run) -> None:
    """Promise 13."""
    world = CheckWorld(run.new_folder())
    world.sync()
    with closing(world.device.store):
        day = _Day(world)
        day.scans(WARM_UP)
        first, handles = _memory(), _handles()
        for _ in run.rounds("scans"):
            day.scans(PART)
            run.counts["scans"] += PART
            assert _handles() == handles, "handles that stay open"
        last, scans = _memory(), run.counts["scans"]
    grown, blocks = last[0] - first[0], last[1] - first[1]
    run.note(f"{grown / 1024:.0f} kB and {blocks} objects more after {scans:,} scans, {handles} handles throughout")
    assert grown <= PAGES + MOST_A_SCAN * scans, f"{grown >> 10} kB in {scans:,} scans"
    assert blocks <= 500 + BLOCKS * scans, f"{blocks} objects in {scans:,} scans"


def _handles() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _memory() -> tuple[int, int]:
    """Resident bytes, and objects that are allocated."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), sys.getallocatedblocks()


class _Day:
    """Codes, plates and bad codes, five seconds apart, each shown on the panel's pages."""

    def __init__(self, world: CheckWorld) -> None:
        self.world, self.now_ms = world, 0
        cars = [world.ordinary().plate for _ in range(20)]
        shown = world.now - timedelta(days=5)
        texts = [world.authority.text(car, PresentationMode.PRINTED, shown).encode() for car in cars]
        spoilt = [text[:-3] + b"AAA" for text in texts[:5]]
        self.seen = [Observation(code=text) for text in (*texts, *spoilt, b"https://example.org/")]
        self.seen += [Observation(plate_seen=seen_plate(car)) for car in cars]
        self.state, _ = step(State(), ev.Started(), 0)
        self.numbers = 0

    def scans(self, count: int) -> None:
        """So many, from the trigger to the verdict on the panel."""
        for _ in range(count):
            seen = self.seen[self.numbers % len(self.seen)]
            self.numbers += 1
            self.now_ms += 5000
            self.world.now += timedelta(seconds=5)
            result = self.world.device.verifier.check(seen)
            code = ev.SeenCode(seen.code or b"typed")
            for event in (KeyEvent(Key.OK), ev.CodesSeen((code,)),
                          ev.Checked(number=self.state.numbers + 1, results=(result,))):  # fmt: skip
                self.state, _ = step(self.state, event, self.now_ms)
            if self.numbers % DRAWN == 0:
                pages_ink(result_view(result, "zh"))
            self.now_ms += CONFIRM_MS  # a key at once takes no warning away
            self.state, _ = step(self.state, KeyEvent(Key.BACK), self.now_ms)
