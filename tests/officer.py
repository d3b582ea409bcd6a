"""An officer with a whole handheld: the real program over real parts, on a machine without hardware.

The panel is a simulated controller behind the real driver, the keys and outputs are mock pins under the real library,
the camera is a real scanner process that looks at a picture file, and the data come from a real sync.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from gpiozero.pins.mock import MockFactory, MockPWMPin
from PIL import Image

from firmware.app import monotonic_ms
from firmware.machine import states as st
from firmware.machine.checking import CONFIRM_MS, too_soon
from firmware.machine.states import State
from firmware.panel import PanelAtHand
from firmware.settings import read_settings
from firmware.wiring import Appliance, Inputs, build_program
from hw.display.simulator import SimulatedPanel
from hw.power.fake import write_power
from tests.centres import OnlineWorld
from tests.drawn import draw as drawn
from verifier.secret_files import write_secret
from verifier.verdict import VerdictCode

PATIENCE_S = 60.0  # for real processes on a busy machine
PINS = {"up": 5, "left": 6, "ok": 13, "right": 19, "down": 26, "back": 16}
SETTINGS = """
[device]
name = "MC-0001"
[camera]
kind = "window"
path = "window.png"
[sound]
source = "none"
[paths]
sysfs = "sys"
"""


def home_of(world: OnlineWorld, folder: Path) -> Path:
    """A device's folder with data of today."""
    folder.mkdir(parents=True, exist_ok=True)
    world.sync(folder)
    write_secret(folder / "epoch.key", world.authority.epoch_key.hex().encode())
    (folder / "root.json").write_bytes(world.authority.publisher.root_bytes())
    return folder


class Officer:
    """Holds a handheld that runs as long as somebody turns it."""

    def __init__(
        self,
        world: OnlineWorld,
        folder: Path,
        settings: str = SETTINGS,
        *,
        home: Path | None = None,
        pins: MockFactory | None = None,
    ) -> None:
        """`folder` has the settings, and is the home unless another is named."""
        self.world, self.home = world, home or folder
        self.skipped_ms = 0
        self._stopped_ms: int | None = None
        self.heard: list[str] = []
        self.seen_when_heard: list[bytes] = []  # what was on the glass when each signal began
        self.glass = SimulatedPanel()
        self.panel = PanelAtHand(read_settings("").panel, lambda _: self.glass)
        self.pins = pins or MockFactory(pin_class=MockPWMPin)
        config = folder / "markcheck.toml"
        config.write_text(settings, encoding="utf-8")
        inputs = Inputs(pins=self.pins, play=self._hear, clock=world.clock, now_ms=self.now_ms, notified={})
        self.appliance: Appliance = build_program(
            read_settings(settings), self.panel, inputs, config=config, home=self.home
        )
        self.program = self.appliance.program
        self.appliance.begin()

    def close(self) -> None:
        self.appliance.close()
        self.panel.close(keep_picture=self.appliance.switched_off)
        self.pins.reset()

    # ------------------------------------------------------------------------------------------------ time

    def now_ms(self) -> int:
        return self._stopped_ms if self._stopped_ms is not None else monotonic_ms() + self.skipped_ms

    @contextmanager
    def in_no_time(self) -> Iterator[None]:
        """By the program's clock what happens here takes no time, however long this machine needs for it."""
        began = monotonic_ms()
        self._stopped_ms = began + self.skipped_ms
        try:
            yield
        finally:
            self.skipped_ms -= monotonic_ms() - began
            self._stopped_ms = None

    def skip(self, seconds: float) -> Officer:
        """Time goes by in one leap; twice a round, so that everything due happens."""
        self.skipped_ms += round(seconds * 1000)
        return self.turns(2)

    def turns(self, rounds: int) -> Officer:
        for _ in range(rounds):
            self.program.turn()
        return self

    def wait(self, seconds: float) -> Officer:
        end = time.monotonic() + seconds
        return self.until(lambda: time.monotonic() >= end)

    def until(self, holds: Callable[[], bool], patience_s: float = PATIENCE_S) -> Officer:
        """The program runs until this holds."""
        end = time.monotonic() + patience_s
        while not holds():
            assert time.monotonic() < end, self.state.page
            self.program.turn()
        return self

    # ------------------------------------------------------------------------------------------------ hands

    def press(self, *keys: str) -> Officer:
        """Keys, pressed and let go as a finger does that leaves a warning the moment it takes to be seen."""
        for key in keys:
            self._looks()
            pin = self.pins.pin(PINS[key])
            pin.drive_low()
            self.wait(0.03)
            pin.drive_high()
            self.wait(0.03)
        return self

    def _looks(self) -> None:
        if too_soon(self.state, self.now_ms()):
            self.skip(CONFIRM_MS / 1000)

    def hold(self, key: str) -> Officer:
        self._looks()
        pin = self.pins.pin(PINS[key])
        pin.drive_low()
        self.wait(0.03).skip(1.5)
        pin.drive_high()
        return self.wait(0.03)

    def holds_up(self, *texts: str | bytes) -> Officer:
        """Codes before the camera, side by side; nothing without one."""
        view = np.full((864, 1536), 128, np.uint8)
        for at, text in enumerate(texts):
            code = drawn(text, 5)
            left = 40 + at * (1536 // max(1, len(texts)))
            view[60 : 60 + len(code), left : left + code.shape[1]] = code
        beside = self.home / ".window.png"
        Image.fromarray(view).save(beside, format="PNG")
        beside.replace(self.home / "window.png")
        return self

    def scans(self, *texts: str | bytes) -> Officer:
        """The trigger, a code in view, and what comes of it."""
        return self.holds_up(*texts).press("ok").until(lambda: not isinstance(self.page, st.Aim | st.Checking))

    def battery(self, percent: int) -> Officer:
        write_power(self.home / "sys", percent)
        return self.asks().asks()

    def asks(self) -> Officer:
        """What is asked every second, now."""
        self.appliance.probing.ask()
        return self.turns(2)

    def ready(self) -> Officer:
        """Back at the trigger, whatever it was."""
        self.holds_up()
        self.hold("back")
        return self.until(lambda: isinstance(self.page, st.Ready))

    # ------------------------------------------------------------------------------------------------- eyes

    @property
    def state(self) -> State:
        return self.program.state

    @property
    def page(self) -> st.Page:
        return self.state.page

    @property
    def shown(self) -> st.Shown:
        assert isinstance(self.page, st.Shown), self.page
        return self.page

    @property
    def verdict(self) -> VerdictCode:
        return self.shown.outcome.result.verdict.code

    def sees(self) -> bytes:
        """The pixels of the glass."""
        return self.glass.image().tobytes()

    def records(self) -> list[dict]:
        """The audit log."""
        path = self.home / "audit.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def _hear(self, signal: str) -> None:
        self.heard.append(signal)
        self.seen_when_heard.append(self.sees())


def children(name: str) -> list[int]:
    """The process numbers of our own children that run a module of this name."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError):  # a thread or a child may end between two looks
            for number in (task / "children").read_text().split():
                command = Path("/proc", number, "cmdline").read_bytes().split(b"\0")
                if name.encode() in command:
                    found.append(int(number))
    return found


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
