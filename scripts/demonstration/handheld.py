"""The demo's handheld: the appliance's own program with its settings, and emulated parts that can be spoilt."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from firmware.app import Program
from firmware.config import Home
from firmware.ending import DONE
from firmware.panel import PanelAtHand
from firmware.settings import PanelSettings, read_settings
from firmware.start import first_picture
from firmware.wiring import Appliance, Inputs, build_program
from hw.buttons.keys import Key
from hw.display.simulated import SIMULATED
from hw.display.sizes import SIZES
from hw.errors import HardwareError
from hw.power.fake import write_power
from hw.rfid.emulator.air import Air
from hw.rfid.emulator.device import EmulatedReader
from hw.rfid.emulator.port import PortEmulator, PtyPort
from hw.rfid.emulator.scene import Passage, Scene, Tag
from hw.sound.player import Player
from scripts.cli.terminal import Terminal
from scripts.demonstration.feed import Feed
from scripts.demonstration.mirror import MirroredOutputs, MirroredPanel
from verifier.clock import Clock
from verifier.wording import Language

PROTOCOL = "m100"
CHARGED, LOW = 76, 8  # percent
HELD_DBM = -48.0  # of a tag held before the reader; each further one is a little farther off
PANELS = {model: SIZES[model] for model in ("ssd1309", "ssd1322", "ssd1351")}
_WORKER = b"firmware.scan_worker"
_END_S = 15.0


class Parts:
    """Emulated parts, which outlive the program: camera window, battery, tag reader. All under one folder."""

    def __init__(self, folder: Path) -> None:
        """OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.window, self.sysfs = folder / "window.picture", folder / "sysfs"
        write_power(self.sysfs, CHARGED)
        self._port = PtyPort(folder / "reader")
        self._reader = EmulatedReader(PROTOCOL, Scene())
        self._emulator = PortEmulator(self._reader, self._port)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._hangs = threading.Event()
        self._threads = [
            threading.Thread(target=run, name=name, daemon=True)
            for name, run in (("reader-emulator", self._play), ("camera-hang", self._hang))
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the threads; whatever hangs goes on."""
        self.hang(False)
        self._over.set()
        for thread in self._threads:
            thread.join()
        with self._lock:
            self._port.unplug()

    # ------------------------------------------------------------------------------------------------ camera

    def see(self, data: bytes | None) -> None:
        """Hold a picture before the camera, as a whole; None takes it away."""
        if data is None:
            self.window.unlink(missing_ok=True)
            return
        beside = self.window.with_suffix(".new")
        beside.write_bytes(data)
        beside.replace(self.window)

    def hang(self, on: bool) -> None:
        """Let the camera's process stand still, and each that follows it."""
        if on:
            self._hangs.set()
            return
        self._hangs.clear()
        for number in _workers():
            _send(number, signal.SIGCONT)

    def _hang(self) -> None:
        while not self._over.wait(0.1):
            if self._hangs.is_set():
                for number in _workers():
                    _send(number, signal.SIGSTOP)

    # ----------------------------------------------------------------------------------------- battery, tags

    def charge(self, percent: int) -> None:
        """What the gauge tells."""
        write_power(self.sysfs, percent)

    @property
    def port(self) -> str:
        """Where the reader is plugged in, or would be."""
        return str(self.folder / "reader")

    def plug(self, on: bool) -> None:
        """Pull the reader's plug, or put it back."""
        with self._lock:
            if on and self._port.master < 0:
                self._port.plug()
            elif not on:
                self._port.unplug()
                self._reader.power_cycle()

    def hold_tags(self, tags: Iterable[Tag]) -> None:
        """These are before the reader now, the first the nearest, and no others."""
        passages = tuple(
            Passage(tag=tag, rssi_dbm=HELD_DBM - 6 * place) for place, tag in enumerate(tags)
        )  # fmt: skip
        with self._lock:
            self._reader.engine.air = Air(Scene(passages=passages))

    def _play(self) -> None:
        began = time.monotonic()
        while not self._over.is_set():
            with self._lock:
                if self._port.master >= 0:
                    self._emulator.turn(time.monotonic() - began)
                pause_s = 0.02 if self._reader.idle else 0.002
            self._over.wait(pause_s)


def _workers() -> list[int]:
    """The scanner processes that this process has started (proc(5))."""
    found = []
    with suppress(OSError):
        for task in Path("/proc/self/task").iterdir():
            with suppress(OSError):
                for child in (task / "children").read_text().split():
                    if _WORKER in Path(f"/proc/{child}/cmdline").read_bytes():
                        found.append(int(child))
    return found


def _send(number: int, what: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(number, what)


# ------------------------------------------------------------------------------------------------ the program


class Handheld:
    """The program in a thread of its own, started anew with another panel, language or folder."""

    def __init__(self, parts: Parts, feed: Feed, clock: Clock, source: str, terminal: Terminal | None = None) -> None:
        """`terminal` shows the panel too, and has the keys as well."""
        self._parts, self._feed, self._clock, self._source = parts, feed, clock, source
        self._terminal = terminal
        self._thread: threading.Thread | None = None
        self._appliance: Appliance | None = None
        self._lock = threading.Lock()

    @property
    def program(self) -> Program | None:
        """The program while it runs."""
        appliance = self._appliance
        return None if appliance is None or appliance.program.over else appliance.program

    @property
    def ended(self) -> bool:
        """Whether it was switched off by itself, and is not just being started anew."""
        with self._lock:
            return self._thread is not None and not self._thread.is_alive()

    def start(self, home: Home, model: str, language: Language) -> None:
        """Switch on; what ran before is ended. Waits for the first page. HardwareError when there is none."""
        with self._lock:
            self._stop()
            ready = threading.Event()
            self._thread = threading.Thread(
                target=self._run, args=(home, model, language, ready), name="main", daemon=True
            )
            self._thread.start()
            while not ready.wait(0.05) and self._thread.is_alive():
                pass
            if not ready.is_set():
                raise HardwareError("handheld", "the program did not start")

    def stop(self) -> None:
        """Switch off; harmless twice."""
        with self._lock:
            self._stop()

    def press(self, key: Key, closed: bool) -> None:
        """The contact of a key has closed or opened."""
        if (program := self.program) is not None:
            program.edge(key, closed)

    def _stop(self) -> None:
        if self._appliance is not None:
            self._appliance.end(DONE)
        if self._thread is not None:
            self._thread.join(_END_S)
        self._thread = None

    def _run(self, home: Home, model: str, language: Language, ready: threading.Event) -> None:
        settings = read_settings(settings_text(self._parts, model, language, self._source))
        panel = self._panel(settings.panel)
        first_picture(panel, language)
        with _playing(self._feed) as player, closing(panel):
            attach = None if self._terminal is None else self._terminal.inputs().attach
            inputs = Inputs(attach=attach, play=player.play, clock=self._clock, draw=panel.draw)
            config = self._parts.folder / "demo.toml"
            appliance = build_program(settings, panel, inputs, config=config, home=home.folder)
            try:
                appliance.begin()
                self._appliance = appliance
                ready.set()
                appliance.program.run()
            finally:
                self._appliance = None
                appliance.close()

    def _panel(self, settings: PanelSettings) -> MirroredPanel:
        glass = SIMULATED[settings.model]()
        beside = None if self._terminal is None else self._terminal.panel
        return MirroredPanel(PanelAtHand(settings, lambda _: glass), glass.image, self._feed, beside)


@contextmanager
def _playing(feed: Feed) -> Iterator[Player]:
    player = Player(MirroredOutputs(feed))
    try:
        yield player
    finally:
        player.close()


def settings_text(parts: Parts, model: str, language: Language, source: str) -> str:
    """The settings of the demo's device, as a file of the appliance has them."""
    return f"""
[device]
name = "demo"
language = "{language}"
demo = true

[panel]
model = "{model}"
bus = "simulated"

[keys]
source = "none"

[sound]
source = "none"

[camera]
kind = "window"
path = "{parts.window}"

[reader]
port = "{parts.port}"
protocol = "{PROTOCOL}"

[sync]
source = "{source}"

[paths]
sysfs = "{parts.sysfs}"
"""
