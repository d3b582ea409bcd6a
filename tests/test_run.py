"""The appliance as a process: first picture, signals, service manager, terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from firmware.app import Program
from firmware.choices import FILE
from firmware.machine import states as st
from firmware.panel import PanelAtHand
from firmware.settings import LAST_GOOD, Settings, load_settings, read_settings
from firmware.start import first_picture, start
from firmware.wiring import Inputs
from hw.buttons.keys import Key, KeyEvent, Touch
from hw.display.panel import MODELS
from hw.power.fake import write_power
from scripts.cli.terminal import half_blocks, touches
from tests.conftest import ROOT

DEMO = ROOT / "docs" / "examples" / "demo.toml"
HEAVY = {
    "cbor2", "click", "cryptography", "cv2", "gpiozero", "luma.oled", "numpy", "requests", "rich", "serial",
    "sqlite3", "sqlite_utils", "tuf", "verifier.cache", "verifier.check", "verifier.decide", "firmware.app",
}  # fmt: skip

BEFORE_THE_FIRST_PICTURE = """
import sys
from pathlib import Path
class Panel:
    size = (128, 64)
    def show(self, image):
        assert image.getbbox()
        print(*sys.modules, sep="\\n")
        sys.stdout.flush()
        __import__("os")._exit(0)
from firmware.start import start
start(Path(sys.argv[1]), Path(sys.argv[2]), panel=Panel())
"""


@contextmanager
def running(
    *command: str, home: Path, notify: Path | None = None, stdin: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen]:
    environment = {**os.environ, **({"NOTIFY_SOCKET": str(notify)} if notify else {})}
    process = subprocess.Popen(
        [sys.executable, *command, "--home", str(home)], cwd=ROOT, env=environment, stdin=stdin,
        stdout=subprocess.PIPE if stdin == subprocess.DEVNULL else stdin, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def manager(folder: Path) -> Iterator[socket.socket]:
    """A service manager's ear."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(folder / "notify"))
        ear.settimeout(30)
        yield ear


def test_before_the_first_picture_neither_verifier_nor_ciphers_nor_a_database_is_loaded(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BEFORE_THE_FIRST_PICTURE, str(DEMO), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(run.stdout.split())
    assert "firmware.fonts" in loaded
    assert loaded & HEAVY == set()


def test_the_real_panel_of_the_settings_needs_its_driver_and_nothing_else_more(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from firmware.settings import read_settings;"
        "from firmware.panel import PanelAtHand; from firmware.start import first_picture;"
        "panel = PanelAtHand(read_settings('[panel]\\nbus = \"simulated\"').panel); first_picture(panel, 'zh');"
        "assert panel._panel._device._serial_interface.image().getbbox(); print(*sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert set(run.stdout.split()) & HEAVY <= {"luma.oled", "cbor2"}  # which luma loads for itself


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_the_service_manager_hears_that_it_is_ready_and_a_signal_ends_it_in_good_order(
    tmp_path: Path, number: int, status: int
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with (
        manager(tmp_path) as ear,
        running("-m", "firmware", "--config", str(DEMO), home=home, notify=tmp_path / "notify") as process,
    ):
        told = [ear.recv(100), ear.recv(100)]
        assert b"READY=1" in told
        assert b"WATCHDOG=1" in told
        process.send_signal(number)
        assert process.wait(15) == status
        while told[-1] != b"STOPPING=1":
            told.append(ear.recv(100))
    assert (home / LAST_GOOD).exists()


def test_a_bad_file_leaves_the_last_good_settings_in_force(tmp_path: Path) -> None:
    config, home = tmp_path / "markcheck.toml", tmp_path / "home"
    home.mkdir()
    (home / LAST_GOOD).write_text(DEMO.read_text())
    config.write_text("[reader]\npower_dbm = 99\n")
    with (
        manager(tmp_path) as ear,
        running("-m", "firmware", "--config", str(config), home=home, notify=tmp_path / "notify") as process,
    ):
        while ear.recv(100) != b"READY=1":
            pass
        process.terminate()
        assert process.wait(15) == 0
        assert process.stderr.read().decode().startswith("markcheck: markcheck.toml: reader.power_dbm: 0 to 33")


def test_without_usable_settings_it_says_where_the_mistake_is(tmp_path: Path) -> None:
    config = tmp_path / "markcheck.toml"
    config.write_text("[panel]\nmodle = 'ssd1309'\n")
    with running("-m", "firmware", "--config", str(config), home=tmp_path) as process:
        assert process.wait(15) == 1
        assert process.stderr.read() == b"markcheck: markcheck.toml: panel.modle: no such setting (model?)\n"


def test_in_a_terminal_the_panel_is_drawn_in_half_blocks_and_q_ends_it(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    command = ("-m", "scripts.cli.main", "run", "--term", "--config", str(DEMO))
    with running(*command, home=tmp_path, stdin=slave) as process:
        os.close(slave)
        shown = _pictures(master, 2)[-1]  # the first picture, and the trigger
        assert set("▀▄█") <= set(shown)
        os.write(master, b"\x1b[A")
        assert _pictures(master, 1)[-1] != shown
        os.write(master, b"q")
        assert process.wait(15) == 0
    os.close(master)


def _pictures(terminal: int, count: int) -> list[str]:
    """What the terminal shows next."""
    data, end = b"", time.monotonic() + 30
    while data.count(b"\x1b[0m\r") < count:
        assert time.monotonic() < end, data[-200:]
        if select.select([terminal], [], [], 0.2)[0]:
            data += os.read(terminal, 65536)
    return data.decode(errors="ignore").split("\x1b[H")


def test_half_blocks_show_two_rows_in_one() -> None:
    image = Image.new("1", (4, 2))
    for x, y in ((1, 0), (2, 1), (3, 0), (3, 1)):
        image.putpixel((x, y), 255)
    assert list(half_blocks(image)) == [" ▀▄█"]


def test_strokes_are_keys_and_unknown_ones_nothing() -> None:
    assert touches(b"\r") == [KeyEvent(Key.OK), KeyEvent(Key.OK, Touch.RELEASE)]
    assert touches(b"\x1b[D")[0].key is Key.LEFT
    assert [event.touch for event in touches(b"m")] == [Touch.PRESS, Touch.HOLD, Touch.RELEASE]
    assert touches(b"x") == []


def test_a_thread_that_dies_of_a_mistake_of_ours_ends_the_program_so_that_it_is_started_anew(tmp_path: Path) -> None:
    code = (
        "import sys, threading; from pathlib import Path;"
        "from firmware.start import start; from firmware.wiring import Inputs\n"
        "def attach(program):\n"
        "    threading.Thread(target=lambda: {}['plate 京A12345'], name='odd').start()\n"
        "    return lambda: None\n"
        f"sys.exit(start(Path({str(DEMO)!r}), Path(sys.argv[2]), inputs=Inputs(attach=attach)))"
    )
    with running("-c", code, home=tmp_path) as process:
        assert process.wait(20) == 1
        assert process.stderr.read() == b"markcheck: our mistake: KeyError in <string>, line 3 (thread odd)\n"


def test_the_examples_are_read_and_the_longer_one_names_the_defaults() -> None:
    assert load_settings(DEMO)[0].device.demo
    settings, remark = load_settings(ROOT / "docs" / "examples" / "markcheck.toml")
    usual = Settings()
    assert (settings.keys, settings.sound, settings.panel, settings.barcode, remark) == (
        usual.keys, usual.sound, usual.panel, usual.barcode, "",
    )  # fmt: skip
    assert json.dumps(settings.device.switch_off) == '"machine"'


def test_the_officers_word_and_an_empty_battery_switch_the_machine_off_where_the_settings_say_so(
    tmp_path: Path,
) -> None:
    config, home, called = tmp_path / "markcheck.toml", tmp_path / "home", tmp_path / "called"
    config.write_text(DEMO.read_text().replace("demo = true", 'switch_off = "machine"'))
    write_power(home / "sys", 3)
    (tmp_path / "systemctl").write_text(f"#!/bin/sh\necho $1 > {called}\n")
    (tmp_path / "systemctl").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [sys.executable, "-m", "firmware", "--config", str(config), "--home", str(home)]
    assert subprocess.run(command, cwd=ROOT, env=environment, timeout=60).returncode == 0
    assert called.read_text() == "poweroff\n"


class Glass:
    """A panel that remembers."""

    size = (128, 64)

    def __init__(self) -> None:
        self.pictures: list[Image.Image] = []
        self.closed: list[bool] = []  # by whether the picture was to stay

    def show(self, image: Image.Image) -> None:
        self.pictures.append(image)

    def contrast(self, level: int) -> None: ...

    def reset(self) -> None: ...

    def close(self, *, keep_picture: bool = False) -> None:
        self.closed.append(keep_picture)


class Ends:
    """A part that tells what was on the panel when it was let go."""

    def __init__(self, glass: Glass, *, at_once: bool) -> None:
        self.glass, self.at_once = glass, at_once
        self.pictures, self.closed = 0, list[bool]()

    def attach(self, program: Program) -> Callable[[], None]:
        self.program = program
        if self.at_once:
            program.stop()
        return self.end

    def end(self) -> None:
        self.pictures, self.closed = len(self.glass.pictures), [*self.glass.closed]


BARE = '[keys]\nsource = "none"\n[camera]\nkind = "none"\n[sound]\nsource = "none"\n[paths]\nsysfs = "sys"\n'


def ended(tmp_path: Path, *, at_once: bool) -> Ends:
    (tmp_path / "markcheck.toml").write_text(BARE)
    part = Ends(Glass(), at_once=at_once)
    inputs = Inputs(attach=part.attach, notified={})
    assert start(tmp_path / "markcheck.toml", tmp_path, panel=part.glass, inputs=inputs) == 0
    return part


def test_the_panel_is_dark_before_the_parts_of_a_program_that_ends_are_let_go(tmp_path: Path) -> None:
    part = ended(tmp_path, at_once=True)
    assert part.closed == [False]
    assert len(part.glass.pictures) == part.pictures


def test_the_panel_says_that_it_is_over_not_before_every_part_has_been_let_go(tmp_path: Path) -> None:
    write_power(tmp_path / "sys", 3)
    part = ended(tmp_path, at_once=False)
    assert part.program.state.page == st.Off(flat=True, kept=True)
    assert (part.closed, part.glass.closed) == ([], [True])
    assert len(part.glass.pictures) == part.pictures + 1
    assert part.glass.pictures[-1].tobytes() != part.glass.pictures[-2].tobytes()


def test_the_first_picture_is_in_the_language_that_the_officer_chose(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(json.dumps({"language": "en", "brightness": 2, "configured": "zh"}))
    part, expected = ended(tmp_path, at_once=True), Glass()
    first_picture(expected, "en")
    assert part.glass.pictures[0].tobytes() == expected.pictures[0].tobytes()


@pytest.mark.parametrize("model", sorted(MODELS))
def test_every_panel_is_of_its_size_before_it_is_there_and_has_a_simulation(model: str) -> None:
    panel = PanelAtHand(read_settings(f'[panel]\nmodel = "{model}"\nbus = "simulated"').panel)
    assert panel.size == MODELS[model].size
    first_picture(panel, "zh")
    assert panel._panel._device._serial_interface.image().getbbox()
    panel.close()


WHEN_READY = """
import sys, threading, time
from pathlib import Path
from firmware.start import start
from firmware.wiring import Inputs
def told(program):
    def wait():
        while type(program.state.page).__name__ == "Boot":
            time.sleep(0.01)
        print(*sys.modules, sep="\\n", flush=True)
        program.stop()
    threading.Thread(target=wait).start()
    return lambda: None
sys.exit(start(Path(sys.argv[1]), Path(sys.argv[2]), inputs=Inputs(attach=told)))
"""


def test_a_program_that_is_ready_has_loaded_nothing_that_only_the_scanner_or_a_sync_needs(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WHEN_READY, str(DEMO), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=60)
    loaded = set(run.stdout.split())
    assert {"verifier.check", "firmware.tags"} <= loaded
    assert loaded & {"click", "cv2", "numpy", "pyzbar", "requests", "rich", "sqlite_utils", "tuf", "zxingcpp"} == set()
