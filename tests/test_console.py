"""A technician at the serial console: the real program of it on a real terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from firmware.console import KEYS, Console, open_session
from firmware.console_commands import COMMANDS
from firmware.console_line import Terminal
from firmware.console_login import Challenge, ConsoleKey, KeyKind, hmac_answer
from tests.centres import OnlineWorld
from tests.conftest import ROOT
from tests.officer import home_of
from verifier.audit import read_log

SECRET = bytes(range(32))
PATIENCE_S = 40.0
SETTINGS = """
[device]
name = "MC-0001"
[panel]
bus = "simulated"
[keys]
source = "none"
[sound]
source = "none"
[camera]
kind = "none"
[paths]
sysfs = "sys"
"""


class Line:
    """The technician's end of the line."""

    def __init__(self, fd: int, pid: int) -> None:
        self.fd, self.pid = fd, pid
        self.all = b""
        self._seen = 0

    def type(self, text: str | bytes) -> None:
        data = text.encode() if isinstance(text, str) else text
        while data:
            _, ready, _ = select.select([], [self.fd], [], 0.5)
            self._take(0.0)
            if ready:
                data = data[os.write(self.fd, data[:1024]) :]

    def expect(self, pattern: str) -> re.Match[str]:
        """What comes next up to this; what was seen is not seen again."""
        end = time.monotonic() + PATIENCE_S
        while True:
            text = self.all[self._seen :].decode("ascii")
            if found := re.search(pattern, text):
                self._seen += found.end()
                return found
            if time.monotonic() > end or not self._take(0.2):
                raise AssertionError(f"{pattern!r} did not come: {text[-600:]!r}")

    def ask(self, command: str) -> str:
        self.type(command + "\r")
        return self.expect(r"(?s)\n(.*?)(?:\w[\w-]*@)?markcheck> $").group(1)

    def login(self, secret: bytes = SECRET) -> str:
        self.type("login\r")
        device, nonce = self.expect(r"device (\S+)  challenge (\S+)").groups()
        self.expect("answer: ")
        return self.ask(hmac_answer(secret, Challenge(device, nonce)))

    def ended(self) -> int:
        while self._take(PATIENCE_S):
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _take(self, wait_s: float) -> bool:
        """False when the other end has closed."""
        if not select.select([self.fd], [], [], wait_s)[0]:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            return False
        self.all += data
        return bool(data)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / KEYS).write_text(ConsoleKey("field-3", KeyKind.HMAC, SECRET).line() + "\n")
    (tmp_path / "device.toml").write_text(SETTINGS)
    return folder


@contextmanager
def console(home: Path) -> Iterator[Line]:
    """With a controlling terminal that does not tell its size, as a serial line is."""
    config = home.parent / "device.toml"
    words = [sys.executable, "-P", "-m", "firmware.console", "--config", str(config), "--home", str(home)]
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a test run in the background ignores it, and that is inherited
        environment = {**os.environ, "TERM": "vt220", "MARKCHECK_RUN": str(home.parent / "run")}
        os.execve(words[0], words, environment)  # noqa: S606
    line = Line(fd, pid)
    try:
        line.expect("markcheck> ")
        yield line
    finally:
        if line.fd >= 0:
            os.close(fd)
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def events(home: Path) -> list[tuple[str, str, str | None]]:
    return [(entry["command"], entry["outcome"], entry["technician"]) for entry in read_log(home / "audit.jsonl")]


def test_a_technician_finds_the_commands_tests_the_device_logs_in_reads_the_logs_and_leaves(home: Path) -> None:
    (home / "failures.log").write_text("2026-11-22T20:48:01Z markcheck.service watchdog at 京A12345\n")
    with console(home) as line:
        assert "selftest  test every part" in line.ask("help")
        line.type("ver\t")
        line.expect("version $")  # with a space behind it
        line.type("\r")
        line.expect(r"software markcheck \S+")
        line.expect("markcheck> $")
        line.type("lo\t\t")
        line.expect("login  logout  logs")
        line.type("\x15")
        told = line.ask("selftest")
        assert re.search(r"PASS  panel +\d+ ms  ssd1309", told)
        assert re.search(r"FAIL  cache +\d+ ms  no generation in use", told)
        assert told.rstrip().endswith("FAILED 2 of 11")
        assert line.ask("selftest disk audit").rstrip().endswith("OK")
        assert "log in first" in line.ask("logs")
        assert "login field-3" in line.login()
        told = line.ask("logs")
        assert "markcheck.service watchdog" in told
        assert "A12345" not in told
        assert "logout done" in line.ask("logout")
        assert "log in first" in line.ask("logs")
        line.type("quit\r")
        assert line.ended() == 0
    told = events(home)
    assert ("logs", "refused", None) in told
    assert ("login", "done", "field-3") in told
    assert ("logs", "asked", "field-3") in told
    assert not any(secret in (home / "audit.jsonl").read_text() for secret in (SECRET.hex(), "answer"))


def test_facts_for_machines_are_one_json_object_a_line(home: Path) -> None:
    with console(home) as line:
        rows = [json.loads(row) for row in line.ask("selftest -j disk clock").splitlines() if row]
    assert [(row["part"], row["state"]) for row in rows[:2]] == [("disk", "PASS"), ("clock", "PASS")]
    assert rows[2] == {"result": "OK", "failed": 0, "tested": 2}


def test_a_sync_is_refused_before_the_login_and_done_after_it(tmp_path: Path, home: Path) -> None:
    world = OnlineWorld(now=datetime.now(UTC))
    published = tmp_path / "published"
    for name, data in world.store.items():
        (published / name).parent.mkdir(parents=True, exist_ok=True)
        (published / name).write_bytes(data)
    home_of(world, home)
    (tmp_path / "device.toml").write_text(SETTINGS + f'[sync]\nsource = "{published}"\n')
    with console(home) as line:
        assert "sync: log in first" in line.ask("sync")
        line.login()
        told = line.ask("sync")
        assert "sync: done" in told
        assert re.search(r"data no\. \d+  region national", told)
        assert "kid " in line.ask("keys")
    assert ("sync", "refused", None) in events(home)
    assert ("sync", "asked", "field-3") in events(home)


def test_nobody_switches_the_machine_off_without_a_login_nor_without_saying_so_twice(home: Path) -> None:
    with console(home) as line:
        assert "poweroff: log in first" in line.ask("poweroff yes")
        line.login()
        assert "usage: poweroff yes" in line.ask("poweroff")


def test_six_wrong_answers_lock_the_login_and_a_new_line_does_not_unlock_it(home: Path) -> None:
    with console(home) as line:
        for _ in range(4):
            told = line.login(b"x" * 32)
            assert "login refused: the answer is wrong" in told
            assert "wait" not in told
        assert re.search(r"the answer is wrong; wait (29|30) s", line.login(b"x" * 32))
        assert "login refused: too many wrong answers" in line.ask("login")
    with console(home) as line:
        assert "login refused: too many wrong answers" in line.ask("login")
        assert "log in first" in line.ask("config")
    assert events(home).count(("login", "refused", None)) == 5


def test_nobody_at_the_plug_fills_the_card_with_records_not_even_by_hanging_up_again_and_again(
    tmp_path: Path, home: Path
) -> None:
    for _ in range(3):
        source, typing = os.pipe()
        sink = os.open(os.devnull, os.O_WRONLY)
        os.write(typing, b"help version\n" * 40)
        os.close(typing)
        session = open_session(tmp_path / "device.toml", home, Terminal(source, sink), run=tmp_path / "run")
        Console(session, COMMANDS).serve()
        os.close(source)
        os.close(sink)
    assert len(events(home)) == 60


def test_a_line_that_hangs_up_is_logged_out(home: Path) -> None:
    with console(home) as line:
        line.login()
        os.close(line.fd)
        line.fd = -1
        assert os.waitstatus_to_exitcode(os.waitpid(line.pid, 0)[1]) == 0
    with console(home) as line:
        assert "log in first" in line.ask("logs")


def test_interrupting_takes_back_the_line_and_ends_no_console(home: Path) -> None:
    with console(home) as line:
        line.type("help\x03")
        line.expect(r"\^C\r\n(.*)markcheck> $")
        line.type("\x1a\x1c\x13")  # ^Z, ^\ and ^S: no shell would bring the console back
        assert "line ignored: not plain text" in line.ask("")
        assert "software" in line.ask("version")


def children_of(pid: int) -> set[int]:
    return {int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


@pytest.mark.parametrize("how", ["^C", "hang-up"])
def test_a_sync_that_nobody_waits_for_any_more_is_ended(home: Path, how: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        source = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        (home.parent / "device.toml").write_text(SETTINGS + f'[sync]\nsource = "{source}"\n')
        (home / "root.json").write_bytes(OnlineWorld().authority.publisher.root_bytes())
        with console(home) as line:
            line.login()
            line.type("sync\r")
            silent.settimeout(PATIENCE_S)
            peer, _ = silent.accept()
            (child,) = children_of(line.pid)
            if how == "^C":
                line.type("\x03")
                line.expect(r"\^C\r\nfield-3@markcheck> $")
                assert children_of(line.pid) == set()
            else:
                os.close(line.fd)
                line.fd = -1
                assert os.waitstatus_to_exitcode(os.waitpid(line.pid, 0)[1]) == 0
            peer.close()
            with pytest.raises(ProcessLookupError):
                os.kill(child, 0)


def test_a_line_of_a_megabyte_is_ignored_and_the_next_one_counts(home: Path) -> None:
    with console(home) as line:
        began = time.monotonic()
        line.ask("version")
        usual = time.monotonic() - began
        line.type(b"x" * (1 << 20))
        assert "line ignored: too long" in line.ask("")
        assert time.monotonic() - began < 20 * usual + 10
        assert "software" in line.ask("version")
        assert len(line.all) < 4096
    assert {command for command, _, _ in events(home)} == {"version"}


NOISE = [
    b"\x00\xff\xfe\x80poweroff yes", b"\x1b]0;title\x07help", b"\x1b[31mhelp", b"help\x00", "帮助".encode(),
    b"\x9b31mx", b"\x1b[999999999999999999999A", b"help\x0b", bytes(range(128, 256)) * 20,
]  # fmt: skip


def test_noise_on_the_line_has_no_effect_and_is_never_printed(home: Path) -> None:
    with console(home) as line:
        for noise in NOISE:
            line.type(noise)
            assert "line ignored" in line.ask(""), noise
        assert "software" in line.ask("version")
        assert "no such command" in line.ask("%s%n${IFS}$(reboot)`reboot`;reboot")
        assert set(line.all) <= {*range(0x20, 0x7F), *b"\r\n\b\a"}
    assert {command for command, _, _ in events(home)} == {"version"}


def test_arrows_bring_back_lines_but_no_answer(home: Path) -> None:
    with console(home) as line:
        line.ask("version")
        line.login()
        line.type("\x1b[A")
        line.expect("login$")
        line.type("\x1b[A")
        line.expect("version$")
        assert "software" in line.ask("")


def test_settings_that_cannot_be_used_end_the_console_with_a_word(home: Path) -> None:
    (home.parent / "device.toml").write_text("[panel]\nbus = 3\n")
    with pytest.raises(AssertionError, match=r"panel\.bus: one of"), console(home):
        pass
