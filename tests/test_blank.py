"""A program that has died leaves no verdict on the panel for the next car."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from firmware import blank
from firmware.choices import FILE
from firmware.panel import PanelAtHand
from firmware.settings import LAST_GOOD, read_settings
from hw.display.panel import MODELS, open_panel
from hw.display.simulated import SIMULATED
from hw.display.simulator import SimulatedPanel
from tests.centres import START, OnlineWorld
from tests.conftest import ROOT
from tests.officer import home_of
from tests.test_plate_entry import presses
from verifier.wording import LANGUAGES

UNIT = (ROOT / "systemd" / "markcheck.service").read_text()
SETTINGS = '[keys]\nsource = "none"\n[camera]\nkind = "none"\n[sound]\nsource = "none"\n[paths]\nsysfs = "sys"\n'
KILLED = {"SERVICE_RESULT": "signal"}

PROGRAM = """
import socket, struct, sys, threading, time
from datetime import datetime
from pathlib import Path
from firmware.settings import load_settings
from firmware.panel import PanelAtHand
from firmware.start import start
from firmware.wiring import Inputs
from hw.buttons.keys import Key, KeyEvent, Touch

class Wire:
    def __init__(self, path):
        self.line = socket.socket(socket.AF_UNIX)
        self.line.connect(path)
    def command(self, *values):
        self.send(b"c", bytes(values))
    def data(self, values):
        self.send(b"d", bytes(values))
    def send(self, kind, data):
        self.line.sendall(kind + struct.pack(">I", len(data)) + data)
        assert self.line.recv(1) == b"k"
    def cleanup(self):
        self.line.close()

config, home, bus, now, *keys = sys.argv[1:]

def typed(program):
    def run():
        while type(program.state.page).__name__ == "Boot":
            time.sleep(0.01)
        for key in keys:
            program.post(KeyEvent(Key(key)))
            program.post(KeyEvent(Key(key), Touch.RELEASE))
    threading.Thread(target=run).start()
    return lambda: None

moment = datetime.fromisoformat(now)
panel = PanelAtHand(load_settings(Path(config))[0].panel, lambda _: Wire(bus))
inputs = Inputs(attach=typed, play=lambda signal: print(signal, flush=True), clock=lambda: moment)
sys.exit(start(Path(config), Path(home), panel=panel, inputs=inputs))
"""


@contextmanager
def wired(glass: SimulatedPanel, path: Path) -> Iterator[None]:
    """Bytes for the glass over a socket: it goes on when whoever sent them is gone."""

    def serve() -> None:
        while True:
            try:
                line, _ = server.accept()
            except OSError:
                return
            with line, line.makefile("rb") as stream:
                while head := stream.read(5):
                    data = stream.read(struct.unpack(">I", head[1:])[0])
                    glass.command(*data) if head[:1] == b"c" else glass.data(data)
                    line.sendall(b"k")

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_a_green_of_a_program_that_was_killed_gives_way_to_the_words_that_it_has_stopped(tmp_path: Path) -> None:
    world, glass = OnlineWorld(), SimulatedPanel()
    home, config = home_of(world, tmp_path / "home"), tmp_path / "markcheck.toml"
    config.write_text(SETTINGS)
    plate = world.vehicle().plate
    kinds = ["right"] if plate.kind == "02" else []
    keys = ["up", *presses(plate.text), *kinds, "ok"]
    words = [str(config), str(home), str(tmp_path / "bus"), START.isoformat(), *keys]
    with wired(glass, tmp_path / "bus"):
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout.readline() == "pass\n"  # heard after its picture
            process.send_signal(signal.SIGKILL)
            assert process.wait(15) == -signal.SIGKILL
        finally:
            process.kill()
            process.communicate()
    green = glass.image().tobytes()
    assert glass.image().getbbox()
    panel = PanelAtHand(read_settings(SETTINGS).panel, lambda _: glass)
    assert blank.main(["--config", str(config)], KILLED, panel) == 0
    assert glass.image().getbbox()
    assert glass.image().tobytes() != green


@pytest.mark.parametrize("model", sorted(MODELS))
def test_every_panel_says_that_the_program_has_stopped_whatever_was_left_on_it(model: str, tmp_path: Path) -> None:
    told = []
    for language in LANGUAGES:
        glass = SIMULATED[model]()
        left_behind = open_panel(model, glass)
        left_behind.contrast(0)
        left_behind.show(Image.new(MODELS[model].mode, MODELS[model].size, "white"))
        config = f'[device]\nlanguage = "{language}"\n[panel]\nmodel = "{model}"\n'
        (tmp_path / "markcheck.toml").write_text(config)
        panel = PanelAtHand(read_settings(config).panel, lambda _, glass=glass: glass)
        assert blank.main(["--config", str(tmp_path / "markcheck.toml")], KILLED, panel) == 0
        picture = glass.image().convert("L")
        told.append(picture.tobytes())
        left, top, right, bottom = picture.getbbox()
        assert (left > 0, top > 0, right < panel.size[0], bottom < panel.size[1]) == (True,) * 4
        assert glass.contrast > 0
    assert told[0] != told[1]


@pytest.mark.parametrize("kept", ['{"brightness": 2, "configured": "zh", "language": "en"}', "{"])
def test_it_is_told_in_the_language_that_the_officer_chose(kept: str, tmp_path: Path) -> None:
    (tmp_path / "markcheck.toml").write_text("")
    (tmp_path / FILE).write_text(kept)
    glass, expected = SimulatedPanel(), SimulatedPanel()
    panel = PanelAtHand(read_settings("").panel, lambda _: glass)
    variables = {**KILLED, "MARKCHECK_HOME": str(tmp_path)}
    assert blank.main(["--config", str(tmp_path / "markcheck.toml")], variables, panel) == 0
    blank.tell(PanelAtHand(read_settings("").panel, lambda _: expected), "en" if len(kept) > 1 else "zh")
    assert glass.image().tobytes() == expected.image().tobytes()


def test_after_a_good_end_its_last_words_stay(tmp_path: Path) -> None:
    glass = SimulatedPanel()
    panel = PanelAtHand(read_settings("").panel, lambda _: glass)
    (tmp_path / "markcheck.toml").write_text("")
    assert blank.main(["--config", str(tmp_path / "markcheck.toml")], {"SERVICE_RESULT": "success"}, panel) == 0
    assert glass.commands == glass.data_bytes == 0


def test_the_last_good_settings_tell_the_panel_where_the_file_is_spoilt_and_without_any_it_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, glass = tmp_path / "markcheck.toml", SimulatedPanel()
    config.write_text("[panel]\nmodle = 1\n")
    variables = {**KILLED, "MARKCHECK_HOME": str(tmp_path)}
    panel = PanelAtHand(read_settings("").panel, lambda _: glass)
    assert blank.main(["--config", str(config)], variables, panel) == 1
    assert "panel.modle" in capsys.readouterr().err
    (tmp_path / LAST_GOOD).write_text("")
    assert blank.main(["--config", str(config)], variables, panel) == 0
    assert glass.image().getbbox()


def test_a_panel_that_is_gone_too_ends_it_with_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    glass = SimulatedPanel()
    glass.unplug()
    (tmp_path / "markcheck.toml").write_text("")
    panel = PanelAtHand(read_settings("").panel, lambda _: glass)
    assert blank.main(["--config", str(tmp_path / "markcheck.toml")], KILLED, panel) == 1
    assert capsys.readouterr().err.startswith("markcheck: panel: ")


def command() -> list[str]:
    """What the unit starts when the program has ended, the first of it."""
    first = re.findall(r"^ExecStopPost=-(.*)$", UNIT, re.MULTILINE)[0]
    return first.split()


def test_the_service_starts_it_first_when_the_program_has_ended_and_its_end_is_not_awaited_for_long(
    tmp_path: Path,
) -> None:
    words = command()
    assert words[1:4] == ["-P", "-m", "firmware.blank"]
    (tmp_path / "markcheck.toml").write_text('[panel]\nbus = "simulated"\n')
    mine = [sys.executable, *words[1:-1], str(tmp_path / "markcheck.toml")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **KILLED}
    run = subprocess.run(mine, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stderr) == (0, "")


def test_a_verdict_of_a_program_that_hangs_is_gone_within_twenty_seconds() -> None:
    seconds = {name: int(value) for name, value in re.findall(r"^(WatchdogSec|TimeoutAbortSec)=(\d+)$", UNIT, re.M)}
    assert seconds["WatchdogSec"] + seconds["TimeoutAbortSec"] + blank.LIMIT_S <= 20


def test_one_that_hangs_itself_is_ended_by_its_own_alarm(tmp_path: Path) -> None:
    """On a pipe that nobody writes to, in place of settings."""
    os.mkfifo(tmp_path / "markcheck.toml")
    mine = [sys.executable, "-m", "firmware.blank", "--config", str(tmp_path / "markcheck.toml")]
    run = subprocess.run(mine, cwd=ROOT, env={**os.environ, **KILLED}, timeout=60, check=False)
    assert run.returncode == -signal.SIGALRM
