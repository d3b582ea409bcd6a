"""A line of text from whatever comes over the wire."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware.console import KEYS, Console, open_session
from firmware.console_commands import COMMANDS
from firmware.console_line import MOST, Editor, HangUpError, RefusedLineError, Spoilt, Terminal
from firmware.console_login import IDLE_S, ConsoleKey, KeyKind
from firmware.console_session import Command, Row
from hw.errors import HardwareError
from tests.test_console import SECRET, SETTINGS, Line
from verifier.audit import read_log

WORDS = ["cache", "camera", "clock"]


def edited(data: bytes, history: list[str] | None = None) -> tuple[Editor, str]:
    told: list[str] = []
    editor = Editor(
        told.append, lambda text: [w for w in WORDS if w.startswith(text.split(" ")[-1])], history or [], "> "
    )
    editor.feed(data)
    return editor, "".join(told)


@given(st.binary(max_size=600))
def test_whatever_comes_the_line_is_short_and_plain_and_so_is_the_echo(data: bytes) -> None:
    try:
        editor, echo = edited(data)
    except HangUpError:
        return
    assert len(editor.text) <= MOST
    assert all(" " <= char <= "~" for char in editor.text)
    assert all(" " <= char <= "~" or char in "\b\a\n" for char in echo)


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_a_line_is_the_same_however_its_bytes_are_split(pieces: list[bytes]) -> None:
    data = b"".join(pieces).replace(b"\x04", b"") + b"\n"
    whole, _ = edited(data)
    split = Editor(lambda _: None, lambda text: [w for w in WORDS if w.startswith(text.split(" ")[-1])], [], "> ")
    for at in range(len(data)):
        if split.feed(data[at : at + 1]) is not None:
            break
    assert (split.text, split.spoilt) == (whole.text, whole.spoilt)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"hepl\x7f\x08lp", "help"), (b"help x\x17", "help "), (b"help\x15sync", "sync"), (b"cl\t", "clock "),
        (b"ca\t", "ca"), (b"cac\t", "cache "), (b"x\t", "x"), (b"a\x1b[Cb\x1b[3~c", "abc"), (b"\x1b[A", "sync"),
        (b"\x1bOA\x1bOA", "help"), (b"\x1b[A\x1b[B", ""), (b"\x1b[24;80Rx", "x"), (b"\x7f\x7fa", "a"),
    ],
)  # fmt: skip
def test_keys_edit_the_line(data: bytes, text: str) -> None:
    editor, _ = edited(data, ["help", "sync"])
    assert (editor.text, editor.spoilt) == (text, None)


@pytest.mark.parametrize("data", [b"a\x00", b"\xc3\xa9", b"\x1bx", b"\x1b[31m", b"\x1b[" + b"1" * 50, b"\x01", b"\x9b"])
def test_what_is_no_plain_text_spoils_the_line(data: bytes) -> None:
    editor, _ = edited(data)
    assert editor.spoilt is Spoilt.NOISE


def test_an_escape_that_is_cut_off_by_the_end_of_the_line_spoils_it() -> None:
    assert edited(b"poweroff yes\x1b\n")[0].spoilt is Spoilt.NOISE


def test_a_line_that_was_spoilt_stays_so_to_its_end_whatever_erases() -> None:
    editor, _ = edited(b"\x00\x15\x7fpoweroff yes\n")
    assert editor.spoilt is Spoilt.NOISE


def test_a_long_history_and_a_long_line_stay_bounded() -> None:
    source, typed = os.pipe()
    sink = os.open(os.devnull, os.O_WRONLY)
    terminal = Terminal(source, sink)
    for number in range(100):
        os.write(typed, f"line {number}\n".encode())
        terminal.read("", lambda _: [], lambda: None)
    assert len(terminal._history) == 30
    os.write(typed, b"y" * (MOST + 1) + b"\n")
    with pytest.raises(RefusedLineError, match="too long"):
        terminal.read("", lambda _: [], lambda: None)
    os.close(typed)
    with pytest.raises(HangUpError):
        terminal.read("", lambda _: [], lambda: None)
    os.close(source)
    os.close(sink)


class Desk:
    """A console in a thread of this process, whose clock and whose power switch are in our hands."""

    def __init__(self, tmp_path: Path) -> None:
        self.home = tmp_path / "home"
        self.now_s, self.switched = 0.0, list[tuple[str, ...]]()
        self.status = 0
        (tmp_path / "device.toml").write_text(SETTINGS)
        self.config = tmp_path / "device.toml"

    def switch(self, words: tuple[str, ...]) -> int:
        self.switched.append(words)
        return self.status

    @contextmanager
    def served(self, commands: Mapping[str, Command] = COMMANDS) -> Iterator[Line]:
        master, slave = os.openpty()
        session = open_session(
            self.config, self.home, Terminal(slave, slave, poll_s=0.02), switch=self.switch,
            clock=lambda: datetime(2026, 11, 22, 12, tzinfo=UTC), now_s=lambda: self.now_s,
            run=self.config.parent / "run",
        )  # fmt: skip
        thread = threading.Thread(target=Console(session, commands, lambda: self.now_s).serve)
        thread.start()
        line = Line(master, 0)
        try:
            line.expect("markcheck> $")
            yield line
        finally:
            line.type("\x15\x04")
            thread.join(20)
            os.close(master)
            os.close(slave)
            assert not thread.is_alive()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path)
    desk.home.mkdir()
    (desk.home / KEYS).write_text(ConsoleKey("field-3", KeyKind.HMAC, SECRET).line() + "\n")
    return desk


def test_who_types_nothing_for_five_minutes_is_logged_out_and_told_so(desk: Desk) -> None:
    with desk.served() as line:
        line.login()
        desk.now_s += IDLE_S - 1
        assert "settings" in line.ask("config")
        line.type("poweroff yes")  # and no end of the line
        line.expect("poweroff yes$")
        desk.now_s += IDLE_S
        line.expect("logged out: nothing was typed for 5 minutes")
        line.expect("markcheck> $")
        assert line.ask("").strip() == ""
        assert "poweroff: log in first" in line.ask("poweroff yes")
    assert desk.switched == []


def test_the_machine_is_switched_off_for_a_technician_who_says_yes_and_that_is_recorded_before(desk: Desk) -> None:
    with desk.served() as line:
        line.login()
        assert "poweroff begun" in line.ask("poweroff yes")
        desk.status = 1
        assert "the system did not take it" in line.ask("poweroff yes")
    assert desk.switched == [("systemctl", "poweroff")] * 2
    last = list(read_log(desk.home / "audit.jsonl"))[-1]
    assert (last["command"], last["technician"], last["kind"]) == ("poweroff", "field-3", "event")


def test_what_changes_something_is_refused_when_it_cannot_be_recorded(desk: Desk) -> None:
    (desk.home / "audit.jsonl").mkdir()
    with desk.served() as line:
        line.login()
        assert "sync: refused, because it could not be recorded" in line.ask("sync")
        assert "refused" in line.ask("export")
        assert "PASS  disk" in line.ask("selftest disk")
        assert "poweroff begun" in line.ask("poweroff yes")


def test_a_command_of_which_nothing_is_said_never_runs_without_a_record(desk: Desk) -> None:
    ran: list[int] = []

    def changes(_: object, __: list[str]) -> Iterator[Row]:
        ran.append(1)
        yield Row("changed", {})

    with desk.served({"changes": Command(changes, "", free=True)}) as line:
        assert "changed" in line.ask("changes")
    (desk.home / "audit.jsonl").unlink()
    (desk.home / "audit.jsonl").mkdir()
    with desk.served({"changes": Command(changes, "", free=True)}) as line:
        assert "changes: refused, because it could not be recorded" in line.ask("changes")
    assert ran == [1]


def test_only_what_fetches_exports_or_erases_needs_its_record() -> None:
    assert {name for name, command in COMMANDS.items() if not command.without_record} == {"sync", "export", "wipe"}


def test_nobody_at_the_plug_fills_the_card_with_records(desk: Desk) -> None:
    with desk.served() as line:
        for _ in range(70):
            line.ask("version")
        assert len(list(read_log(desk.home / "audit.jsonl"))) == 60
        line.login()
        line.ask("clock")
    assert list(read_log(desk.home / "audit.jsonl"))[-1]["command"] == "clock"


def test_a_settings_file_with_escapes_in_a_name_reaches_no_terminal(desk: Desk) -> None:
    desk.config.write_text(SETTINGS.replace("MC-0001", "\\u001b]0;x\\u0007京A12345"))
    with desk.served() as line:
        line.login()
        line.ask("config")
        line.ask("config -j")
        assert set(line.all) <= {*range(0x20, 0x7F), *b"\r\n\b\a"}


@pytest.mark.parametrize("how", ["idle", "logout"])
def test_what_one_technician_typed_cannot_be_brought_back_after_the_login(desk: Desk, how: str) -> None:
    with desk.served() as line:
        line.login()
        line.ask("clock")
        if how == "idle":
            desk.now_s += IDLE_S
            line.expect("logged out")
            line.expect("markcheck> $")
        else:
            line.ask("logout")
        line.type("\x1b[A\x1b[A")
        assert line.ask("").strip() == ""


HOSTILE = "\x1b]0;x\x07\r\n\x9b31m\u202e京A12345" + "x" * 10_000


def test_no_row_and_no_error_of_a_command_reaches_the_line_raw_or_without_end(desk: Desk) -> None:
    def fails(_: object, __: list[str]) -> Iterator[Row]:
        raise HardwareError("reader", HOSTILE)
        yield

    def tells(_: object, __: list[str]) -> Iterator[Row]:
        yield Row(HOSTILE, {"text": HOSTILE[:50]})

    commands = {"fails": Command(fails, "", free=True), "tells": Command(tells, "", free=True)}
    with desk.served(commands) as line:
        for word in ("fails", "tells", "tells -j"):
            assert len(line.ask(word)) < 200
        assert set(line.all) <= {*range(0x20, 0x7F), *b"\r\n\b\a"}
        assert b"\r\n\x9b" not in line.all


def test_every_command_answers_without_data_and_none_ends_the_console(desk: Desk) -> None:
    with desk.served() as line:
        line.login()
        for name in COMMANDS:
            if name not in ("login", "logout", "selftest"):
                if name != "wipe":  # which asks, and is tried in test_console_trials.py
                    assert line.ask(name).strip(), name
                assert line.ask(f"{name} -j x /etc/passwd").strip(), name


def test_an_export_is_a_file_of_its_owner_and_three_are_kept_and_on_the_line_it_is_the_same_archive(desk: Desk) -> None:
    (desk.home / "failures.log").write_text("2026-11-22T20:48:01Z markcheck.service watchdog at 京A12345\n")
    folder = desk.home / "export"
    folder.mkdir()
    for number in range(2020, 2026):
        (folder / f"logs-{number}0101T000000Z.tar.gz").write_bytes(b"")
    with desk.served() as line:
        line.login()
        name, size, digest = re.search(r"(logs-\S+)  (\d+) bytes  sha256 (\w+)", line.ask("export")).groups()  # type: ignore[union-attr]
        data = (folder / name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (int(size), digest)
        assert sorted(path.name for path in folder.iterdir())[:-1] == [
            "logs-20240101T000000Z.tar.gz", "logs-20250101T000000Z.tar.gz",
        ]  # fmt: skip
        rows = line.ask("export print").split()[5:]
        told = base64.b64decode("".join(rows))
    with tarfile.open(fileobj=io.BytesIO(told)) as archive:
        text = archive.extractfile("failures.log").read().decode()  # type: ignore[union-attr]
    assert text == "2026-11-22T20:48:01Z markcheck.service watchdog at [masked]\n"
