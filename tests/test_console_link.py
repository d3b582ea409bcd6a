"""The console asks the running program, over a socket that answers nobody else and does nothing else."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from firmware.config import Home
from firmware.console_link import SOCKET, ConsoleLink, LinkError, NoProgramError, ask, listen, program_requests
from firmware.console_parts import own_tests, reports
from firmware.machine.states import Ready, State
from firmware.pages import PARTS as PART_BANNERS
from firmware.parts import NAMES
from firmware.self_tests import Ended, Test, limit_of, report_of
from firmware.settings import read_settings
from scripts.sandbox.codes import any_qr_picture
from tests.centres import OnlineWorld
from tests.officer import SETTINGS as OFFICERS
from tests.officer import Officer, home_of
from tests.test_console import SETTINGS, console
from verifier.clock import system_clock

TESTS: dict[str, Test] = {
    "camera": lambda: (Ended.PASS, "last frame 0.2 s ago"),
    "reader": lambda: (Ended.FAIL, "no answer from 京A12345\x1b[31m"),
}
FAULTS = {"reader": "no answer from 京A12345\x1b[31m"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run" / SOCKET


@pytest.fixture
def link(path: Path) -> Iterator[ConsoleLink]:
    link = ConsoleLink(path, program_requests(lambda: State(page=Ready(), faults=FAULTS), TESTS))
    yield link
    link.close()


def raw(path: Path, data: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(20)
        peer.connect(str(path))
        try:
            peer.sendall(data)
            return peer.recv(65536)
        except (BrokenPipeError, ConnectionResetError):
            return b""


def test_the_program_tells_how_it_stands_and_tests_its_own_parts(path: Path, link: ConsoleLink) -> None:
    assert ask(path, "status")["page"] == "ready"
    assert ask(path, "parts") == {"parts": ["camera", "reader"]}
    assert ask(path, "selftest", part="camera")["state"] == "PASS"


def test_only_the_same_user_is_answered(path: Path) -> None:
    link = ConsoleLink(path, program_requests(State, TESTS), frozenset({os.getuid() + 1}))
    try:
        assert raw(path, b'{"request":"status"}\n') == b""
        with pytest.raises(LinkError):
            ask(path, "status")
    finally:
        link.close()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    assert not path.exists()


def test_the_socket_is_for_its_owner(path: Path, link: ConsoleLink) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "data",
    [
        b"\n", b"[]\n", b"1\n", b"\xff\n", b'{"request":["status"]}\n', b'{"request":"__class__"}\n',
        b'{"request":"poweroff"}\n', b'{"request":"selftest","part":["camera"]}\n', b'{"request":"selftest"}\n',
        b"[" * 1000 + b"\n",
    ],
)  # fmt: skip
def test_what_is_not_in_the_table_is_not_done(path: Path, link: ConsoleLink, data: bytes) -> None:
    assert "error" in json.loads(raw(path, data))
    assert ask(path, "status")["page"] == "ready"


def test_a_request_without_end_is_cut_off(path: Path, link: ConsoleLink) -> None:
    assert raw(path, b"x" * 100_000) == b""
    assert ask(path, "status")["page"] == "ready"


def test_a_socket_that_a_dead_program_left_is_replaced_and_counts_as_no_program(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(path))
    with pytest.raises(NoProgramError):
        ask(path, "status")
    link = ConsoleLink(path, program_requests(State, TESTS))
    assert ask(path, "status")["page"] == "boot"
    link.close()
    link.close()
    assert "console link" not in {thread.name for thread in threading.enumerate()}


def test_a_program_without_a_place_for_the_socket_goes_on_without_the_console(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for run in (None, tmp_path / "file", tmp_path / ("long" * 60)):
        listen(run, State, TESTS)()
    closer = listen(tmp_path / "new", State, TESTS)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert ask(tmp_path / "new" / SOCKET, "status")["page"] == "boot"
    closer()


def test_a_program_that_answers_nonsense_is_told_as_that(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            for answer in (b"what\n", b"[]\n", b"x" * 200_000, b""):
                peer, _ = server.accept()
                with peer:
                    peer.recv(100)
                    with suppress(OSError):
                        peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        for _ in range(4):
            with pytest.raises(LinkError):
                ask(path, "status")
        thread.join()


def test_the_console_lets_the_running_program_test_its_parts_and_prints_no_hostile_text(
    tmp_path: Path, path: Path, link: ConsoleLink
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "device.toml").write_text(SETTINGS)
    with console(home) as line:
        told = line.ask("selftest")
        assert "PASS  camera" in told
        assert "last frame 0.2 s ago" in told
        assert "FAIL  reader" in told
        assert "FAILED 1 of 2" in told
        assert "NOTE  barcode" in line.ask("selftest barcode")
        assert "page ready" in line.ask("status")
        assert b"12345" not in line.all
        assert b"\x1b" not in line.all


# ----------------------------------------------------------------------------------- without a program


def test_without_a_program_the_console_opens_the_parts_itself(tmp_path: Path) -> None:
    any_qr_picture("anything").save(tmp_path / "window.png")
    text = SETTINGS.replace('kind = "none"', 'kind = "window"\npath = "window.png"')
    tests = own_tests(read_settings(text), Home(tmp_path), system_clock, tmp_path)
    found = {report.part: report for report in reports(tests, ["camera", "panel", "disk"])}
    assert {report.state for report in found.values()} == {Ended.PASS}, found
    assert "a frame read in" in found["camera"].detail


FAULTY = """
[camera]
kind = "uvc"
path = "/dev/none"
[reader]
port = "/dev/none"
[barcode]
port = "/dev/none"
[panel]
bus = "spi"
[paths]
sysfs = "/nowhere"
"""


def test_every_part_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPIOZERO_PIN_FACTORY", "lgpio")  # as on the device; here it is not there
    tests = own_tests(read_settings(FAULTY), Home(tmp_path / "gone"), system_clock, tmp_path)
    failed = {report.part for report in reports(tests, list(tests)) if report.state is Ended.FAIL}
    assert failed >= {"camera", "reader", "barcode", "panel", "keys", "sound", "cache", "trust", "disk"}


def test_the_limits_of_all_parts_together_are_less_than_a_minute() -> None:
    assert sum(map(limit_of, NAMES)) <= 60


WHOLE = """
[barcode]
port = "/dev/none"
[reader]
port = "/dev/none"
"""


def test_program_and_console_test_all_parts_that_have_a_name_and_a_watched_one_has_its_banner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(own_tests(read_settings(FAULTY), Home(tmp_path), system_clock, tmp_path)) == list(NAMES)
    monkeypatch.setenv("MARKCHECK_RUN", str(tmp_path / "run"))
    world = OnlineWorld()
    settings = OFFICERS.replace('[sound]\nsource = "none"\n', "") + WHOLE
    with closing(Officer(world, home_of(world, tmp_path / "device"), settings)):
        assert set(ask(tmp_path / "run" / SOCKET, "parts")["parts"]) == set(NAMES)
    assert set(PART_BANNERS) >= {"camera", "barcode", "reader", "panel", "keys", "sound"}


def test_a_test_that_hangs_is_not_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firmware.self_tests._USUAL_LIMIT", 0.05)
    go, begun = threading.Event(), []

    def hangs() -> tuple[Ended, str]:
        begun.append(1)
        go.wait(30)
        return Ended.PASS, "at last"

    details = [report_of("disk", hangs).detail for _ in range(3)]
    go.set()
    assert details == ["no answer within 0.05 s", *["another test of it has not come back"] * 2]
    assert begun == [1]
