"""The handheld on this machine: how soon it shows something, how quickly it answers, what it takes, what it loses.

The program is the real one with the real scanner process; panel, camera and keys are emulated, the data are a
sandbox's. Times count what an officer sees: until the pixels are on the glass.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from PIL import Image

from firmware.app import monotonic_ms
from firmware.config import REGION, Home
from firmware.machine import states as st
from firmware.machine.events import CodesSeen, SeenCode
from firmware.panel import PanelAtHand
from firmware.settings import read_settings
from firmware.wiring import Appliance, Inputs, build_program
from hw.buttons.keys import Key
from hw.display.simulator import SimulatedPanel
from scripts.bench.figures import Figure, machine_line
from scripts.sandbox.authority import Authority, new_authority
from scripts.sandbox.codes import qr_picture
from scripts.sandbox.folder_store import MemoryFetcher
from verifier.clock import system_clock
from verifier.secret_files import write_secret
from verifier.sync import SyncClient
from verifier.types import Plate, PresentationMode

PAGE = "appliance.md"
FRAME = (1536, 864)  # width and height of a frame
SCALE = 2_000
STARTS, SCANS, PRESSES = 5, 20, 40
DEBOUNCE_MS = 20  # part of every key's time
HOUR = 360  # checks: one every ten seconds
SETTLED = 2 * HOUR  # checks before it: what is kept of the last hour, or of so many checks, is full then

FIRST_PIXELS_S, READY_S, VERDICT_MS, KEY_MS = 0.3, 1.5, 300, 50
NOTICED_S, BACK_S = 2.0, 5.0
RSS_MAIN_MB, RSS_SCANNER_MB, DRIFT_MB = 60, 130, 2.0

Progress = Callable[[str, int, int], None]

_SETTINGS = """
[panel]
bus = "simulated"
[camera]
kind = "window"
path = "window.png"
[reader]
port = "/nowhere/reader"
"""
_NO_PINS = '[keys]\nsource = "none"\n[sound]\nsource = "none"\n'
_PINS = {"GPIOZERO_PIN_FACTORY": "mock", "GPIOZERO_MOCK_PIN_CLASS": "mockpwmpin"}

# The appliance as it is started, telling when the first picture was on the glass and when it was ready.
_TOLD = """
import sys, time
from pathlib import Path
from firmware import start
class Panel(start.PanelAtHand):
    def show(self, image):
        super().show(image)
        print(time.monotonic(), flush=True)
start.PanelAtHand = Panel
sys.exit(start.start(Path(sys.argv[1]), Path(sys.argv[2])))
"""


def bench_appliance(progress: Progress) -> list[Figure]:
    """All figures, each in its own run; some minutes."""
    with tempfile.TemporaryDirectory(prefix="markcheck-bench-") as folder:
        home = Home(Path(folder))
        authority = _device(home)
        figures: list[Figure] = []
        for at, part in enumerate((_starts, _memory, _scans, _keys, _hang, _hour)):
            progress("appliance", at, 6)
            figures += part(home, authority)
        progress("appliance", 6, 6)
    return figures


def _device(home: Home) -> Authority:
    """A sandbox authority, and a device that has its data."""
    store: dict[str, bytes] = {}
    authority = new_authority(store, clock=system_clock, scale=SCALE, seed=1)
    authority.publish()
    home.root.write_bytes(authority.publisher.root_bytes())
    write_secret(home.epoch_key, authority.epoch_key.hex().encode())
    SyncClient(home.cache, MemoryFetcher(store), system_clock, authority.publisher.root_bytes(), REGION).refresh()
    return authority


# ------------------------------------------------------------------------------------------ as a process


@contextmanager
def _process(home: Home) -> Iterator[subprocess.Popen[str]]:
    config = home.folder / "markcheck.toml"
    config.write_text(_SETTINGS, encoding="utf-8")
    command = [sys.executable, "-c", _TOLD, str(config), str(home.folder)]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and program
        command, stdout=subprocess.PIPE, stderr=quiet, stdin=quiet, text=True, env={**os.environ, **_PINS}
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate()


def _starts(home: Home, _: Authority) -> Iterator[Figure]:
    """From exec to the first picture, and to the page that waits for the trigger, which is the second."""
    bare, first, ready = [], [], []
    for _round in range(STARTS):
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        bare.append(time.monotonic() - began)
        began = time.monotonic()
        with _process(home) as process:
            first.append(_moment(process) - began)
            ready.append(_moment(process) - began)
    python = min(bare)
    for name, times, target in (("exec to first pixels", first, FIRST_PIXELS_S), ("exec to ready", ready, READY_S)):
        best = min(times)  # what else the machine does makes it slower and never quicker
        yield Figure(
            name=name, value=best, at_most=target, unit="s",
            measured=f"{best:.2f} s, best of {STARTS}; {best / python:.1f} times bare Python",
        )  # fmt: skip


def _moment(process: subprocess.Popen[str]) -> float:
    """When the next picture was on the glass."""
    line = process.stdout.readline() if process.stdout is not None else ""
    if not line:
        raise ChildProcessError("the appliance ended before its first pages")
    return float(line)


def _memory(home: Home, authority: Authority) -> Iterator[Figure]:
    _hold(home, _code(authority, 0))
    with _process(home) as process:
        _moment(process)
        _moment(process)
        time.sleep(4)  # the scanner has read frames
        scanners = _children(process.pid)
        main, scanner = _rss_mb(process.pid), max((_rss_mb(pid) for pid in scanners), default=None)
    yield Figure(
        name="memory of the program", value=main, at_most=RSS_MAIN_MB, unit="MB",
        measured=f"{main:.0f} MB resident", note="without a centre; the library for asking one takes some 8 MB more",
    )  # fmt: skip
    yield Figure(
        name="memory of the scanner", value=scanner, at_most=RSS_SCANNER_MB, unit="MB",
        measured="no scanner process" if scanner is None else f"{scanner:.0f} MB resident",
    )  # fmt: skip


def _rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _children(pid: int) -> list[int]:
    """The scanner processes of a program."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for number in (task / "children").read_text(encoding="ascii").split():
            with suppress(OSError):
                if b"firmware.scan_worker" in Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0"):
                    found.append(int(number))
    return found


# ------------------------------------------------------------------------------------- with its glass in view


class _Handheld:
    """The program in this process, turned by whoever measures."""

    def __init__(self, home: Home, settings: str) -> None:
        self.glass = SimulatedPanel()
        self.skipped_ms = 0
        panel = PanelAtHand(read_settings(settings).panel, lambda _: self.glass)
        inputs = Inputs(now_ms=lambda: monotonic_ms() + self.skipped_ms, notified={})
        self.appliance: Appliance = build_program(
            read_settings(settings), panel, inputs, config=home.folder / "markcheck.toml", home=home.folder
        )
        self.program = self.appliance.program
        self.appliance.begin()

    def until(self, holds: Callable[[], bool], limit_s: float = 30.0) -> float:
        """Turn until this holds: the seconds that took. TimeoutError."""
        began = time.monotonic()
        while not holds():
            if time.monotonic() - began > limit_s:
                raise TimeoutError(f"the program did not come to it: {type(self.program.state.page).__name__}")
            self.program.turn()
        return time.monotonic() - began

    def wait(self, seconds: float) -> None:
        """Turn for so long."""
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() >= end)

    def on(self, *pages: type[st.Page]) -> Callable[[], bool]:
        """Whether the program is on one of these pages, with its picture on the glass."""
        return lambda: isinstance(self.program.state.page, pages)

    def shows(self, plate: Plate) -> None:
        """A verdict on another car would be no figure. ValueError."""
        page = self.program.state.page
        if not isinstance(page, st.Shown) or page.outcome.result.verdict.plate != plate:
            raise ValueError("the verdict is not that of the code in view")

    def press(self, key: Key) -> float:
        """A key: the seconds from its contact to the next picture on the glass."""
        before, touched_ms = self.glass.frames, self.program.state.touched_ms
        self.program.edge(key, True)
        took = self.until(lambda: self.glass.frames > before and self.program.state.touched_ms > touched_ms)
        self.program.edge(key, False)
        self.wait(0.06)
        return took


@contextmanager
def _handheld(home: Home, settings: str) -> Iterator[_Handheld]:
    made = _Handheld(home, settings + _NO_PINS)
    try:
        yield made
    finally:
        made.appliance.close()


def _plate(authority: Authority, number: int) -> Plate:
    return list(authority.registry.vehicles)[number % SCALE]


def _code(authority: Authority, number: int) -> str:
    return authority.text(_plate(authority, number), PresentationMode.STORED)


def _hold(home: Home, text: str | None) -> None:
    """A code before the camera, or nothing."""
    view = Image.new("L", FRAME, 128)
    if text is not None:
        code = qr_picture(text, scale=5)
        view.paste(code, ((FRAME[0] - code.width) // 2, (FRAME[1] - code.height) // 2))
    beside = home.folder / ".window.png"
    view.save(beside, format="PNG", compress_level=1)
    beside.replace(home.folder / "window.png")


def _scans(home: Home, authority: Authority) -> Iterator[Figure]:
    """From a code's coming into view, while the camera looks, to its verdict's picture."""
    times = []
    with _handheld(home, _SETTINGS) as held:
        for number in range(SCANS + 2):
            _hold(home, None)
            if held.on(st.Shown)():
                held.press(Key.BACK)
            held.press(Key.OK)
            held.wait(0.4)
            _hold(home, _code(authority, number))
            times.append(held.until(held.on(st.Shown)) * 1000)
            held.shows(_plate(authority, number))
    times = sorted(times[2:])  # without the first, which load what is loaded once
    p50, p95 = statistics.median(times), times[round(0.95 * (len(times) - 1))]
    yield Figure(
        name="code in view to verdict, offline, p95", value=p95, at_most=VERDICT_MS, unit="ms",
        measured=f"{p95:.0f} ms (p50 {p50:.0f}) of {len(times)} scans",
        note=f"frames of {FRAME[0]} x {FRAME[1]}, 15 a second, read from a file",
    )  # fmt: skip


def _keys(home: Home, _: Authority) -> Iterator[Figure]:
    with _handheld(home, _SETTINGS.replace('"window"', '"none"')) as held:
        held.press(Key.DOWN)
        held.press(Key.BACK)
        times = sorted(held.press(key) * 1000 for _ in range(PRESSES // 2) for key in (Key.UP, Key.BACK))
    p50, p95 = statistics.median(times), times[round(0.95 * (len(times) - 1))]
    yield Figure(
        name="key to pixels, p95", value=p95, at_most=KEY_MS, unit="ms",
        measured=f"{p95:.0f} ms (p50 {p50:.0f}) of {len(times)} presses", note=f"{DEBOUNCE_MS} ms of it are debounce",
    )  # fmt: skip


def _hang(home: Home, authority: Authority) -> Iterator[Figure]:
    """A scanner process that freezes while the officer looks for a code."""
    _hold(home, None)
    with _handheld(home, _SETTINGS) as held:
        held.press(Key.OK)
        held.wait(1.0)
        for pid in _children(os.getpid()):
            os.kill(pid, signal.SIGSTOP)
        noticed = held.until(lambda: "camera" in held.program.state.faults)
        key = held.press(Key.BACK)
        back = noticed + key + held.until(lambda: "camera" not in held.program.state.faults)
        _hold(home, _code(authority, 0))
        held.press(Key.OK)
        held.until(held.on(st.Shown))
    yield Figure(
        name="a frozen camera is noticed", value=noticed, at_most=NOTICED_S, unit="s",
        measured=f"{noticed:.2f} s; a key then took {key * 1000:.0f} ms",
    )  # fmt: skip
    yield Figure(name="and reads again", value=back, at_most=BACK_S, unit="s", measured=f"{back:.2f} s")


def _hour(home: Home, authority: Authority) -> Iterator[Figure]:
    """An hour of checks, ten seconds apart by the program's clock: what it has more after it than before it."""
    with _handheld(home, _SETTINGS.replace('"window"', '"none"')) as held:
        memory = files = 0.0
        for number in range(SETTLED + HOUR):
            code = SeenCode(_code(authority, number).encode())
            held.program.post(CodesSeen((code,), triggered=True))
            held.until(held.on(st.Checking))
            held.until(held.on(st.Shown))
            held.skipped_ms += 10_000
            if number == SETTLED:
                memory, files = _rss_mb(os.getpid()), _open_files()
        grown, opened = _rss_mb(os.getpid()) - memory, _open_files() - files
    yield Figure(
        name="memory gained in an hour of checks", value=grown, at_most=DRIFT_MB, unit="MB",
        measured=f"{grown:+.1f} MB over {HOUR} checks, after {SETTLED} others",
    )  # fmt: skip
    yield Figure(
        name="files left open by them", value=opened, at_most=0, unit="", measured=f"{opened:+.0f}",
    )  # fmt: skip


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# ------------------------------------------------------------------------------------------------ the report


def text_report(figures: list[Figure]) -> str:
    """The figures for people, each beside its target."""
    lines = [f"{f.name:42}{f.target:12}{f.measured:52}{f.verdict}" for f in figures]
    return "\n".join([machine_line(), "", *lines])


def write_page(figures: list[Figure], folder: Path, command: str, now: datetime) -> Path:
    """Write the page with all figures; its path. OSError."""
    rows = [f"| {f.name} | {f.target} | {f.measured}{f'; {f.note}' if f.note else ''} | {f.verdict} |" for f in figures]
    head = ["# The handheld\n", f"```\n{command}\n```\n", f"{now:%Y-%m-%d}, {machine_line()}.\n", _ABOUT]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PAGE
    path.write_text("\n".join([*head, "| | target | measured | |", "| --- | --- | --- | --- |", *rows, ""]), "utf-8")
    return path


_ABOUT = """The program is the real one, with its real scanner process and real data of a sandbox. The panel is a
simulated controller behind the real driver, the camera a picture file that is replaced, a key its contact. No
Raspberry Pi was measured.
"""
