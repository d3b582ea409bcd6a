"""The technician's serial console: `python -m firmware.console --config FILE` on a terminal.

A closed table of commands, and no shell behind it. Nothing that is slow to load is loaded before a command needs it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from firmware.console_line import HangUpError, RefusedLineError, Terminal
from firmware.console_session import Command, Session, UsageError, plain, record
from verifier.durable import replace_file

PROMPT = "markcheck> "
BLUETOOTH = "/dev/serial1"  # Raspberry Pi OS's name for the UART that the radio may have
KEYS, TRIES = "console-keys", "console-tries.json"  # in the home
FREED = "console-freed.json"  # in the folder in memory
_MOST_FREE = 60  # records of commands before a login, in an hour: nobody at the plug may fill the card
_HOUR_S = 3600.0


class AwayError(Exception):
    """Nobody was there for so long that the line does not count."""


class Console:
    """Reads lines and runs commands, until the line hangs up or somebody leaves."""

    def __init__(
        self, session: Session, commands: Mapping[str, Command], now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._session, self._commands, self._now_s = session, commands, now_s
        self._told: str | None = None  # who was logged in when the last line was told

    def serve(self) -> None:
        """Until it is over; nobody is logged in afterwards."""
        terminal, login = self._session.terminal, self._session.login
        try:
            with terminal.opened():
                self._say("markcheck console; 'help' lists the commands")
                while self._one():
                    pass
        except (HangUpError, KeyboardInterrupt):  # ^C between two lines: there will be a new console
            pass
        finally:
            login.end()

    def _one(self) -> bool:
        """One line; False for the last one."""
        terminal, login = self._session.terminal, self._session.login
        try:
            line = terminal.read(self._prompt(), self._complete, self._idle)
            self._idle()
            login.active()
            words = line.split()
            if words[:1] in (["quit"], ["exit"]):
                return False
            if words:
                self._run(words)
            login.active()
            self._idle()
        except RefusedLineError as exc:
            self._say(f"line ignored: {exc.why.value}")
        except AwayError:
            pass
        except KeyboardInterrupt:
            self._say("^C")
        return True

    def _prompt(self) -> str:
        name = self._told = self._session.login.technician
        return PROMPT if name is None else f"{name}@{PROMPT}"

    def _idle(self) -> None:
        """Tell who was away for too long; what was typed before does not stay."""
        login, was, self._told = self._session.login, self._told, self._session.login.technician
        if was is not None and login.technician is None and login.was_away:
            self._session.terminal.forget()
            self._say("\nlogged out: nothing was typed for 5 minutes")
            raise AwayError

    def _say(self, text: str) -> None:
        self._session.terminal.write(text + "\n")

    def _complete(self, text: str) -> list[str]:
        first, _, rest = text.lstrip().partition(" ")
        if not rest and text == text.rstrip():
            return sorted(name for name in (*self._commands, "quit") if name.startswith(first))
        command = self._commands.get(first)
        words = (*self._commands,) if first == "help" else () if command is None else command.words
        return sorted(word for word in words if word.startswith(rest.rpartition(" ")[2]))

    # ------------------------------------------------------------------------------------------- one command

    def _run(self, words: list[str]) -> None:
        name, arguments = words[0], words[1:]
        command = self._commands.get(name)
        as_json = "-j" in arguments
        if command is None:
            self._fail("no such command; 'help' lists them", as_json=as_json)
            return
        technician = self._session.login.technician
        if technician is None and not command.free:
            self._note(name, "refused")
            self._fail(f"{name}: log in first", as_json=as_json)
            return
        if not self._note(name, "asked") and not command.without_record:
            self._fail(f"{name}: refused, because it could not be recorded", as_json=as_json)
            return
        self._told_rows(name, command, [word for word in arguments if word != "-j"], as_json=as_json)

    def _fail(self, text: str, *, as_json: bool) -> None:
        text = plain(text)
        self._say(json.dumps({"error": text}) if as_json else text)

    def _told_rows(self, name: str, command: Command, arguments: list[str], *, as_json: bool) -> None:
        import sqlite3  # noqa: PLC0415 - with the first command

        from firmware.console_link import LinkError  # noqa: PLC0415
        from hw.errors import HardwareError  # noqa: PLC0415
        from verifier.errors import VerifierError  # noqa: PLC0415

        try:
            for row in command.run(self._session, arguments):
                self._say(json.dumps(row.facts) if as_json else plain(row.text))
        except UsageError as exc:
            self._fail(f"usage: {exc}", as_json=as_json)
        except (VerifierError, HardwareError, LinkError, sqlite3.Error) as exc:
            self._fail(f"{name}: {exc}", as_json=as_json)
        except OSError as exc:
            self._fail(f"{name}: {exc.strerror or 'error'}", as_json=as_json)

    def _note(self, name: str, outcome: str) -> bool:
        """Record who asked for what; whether that is on the card. Words that were typed are no part of it."""
        session, now_s = self._session, self._now_s()
        if session.login.technician is None:
            known = max(session.freed, _read_freed(session.run), key=len)  # the same, unless one could not be kept
            freed = [moment for moment in known if 0 <= now_s - moment < _HOUR_S]
            if len(freed) >= _MOST_FREE:
                return False
            session.freed[:] = [*freed, now_s]
            _keep_freed(session.run, session.freed)
        return record(session, name, outcome)


def _read_freed(run: Path | None) -> list[float]:
    """When commands before a login were recorded by this session and those before it: who hangs up begins none anew."""
    try:
        moments = json.loads((run / FREED).read_bytes()) if run is not None else []
        return [float(moment) for moment in moments[:_MOST_FREE]]
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return []


def _keep_freed(run: Path | None, moments: list[float]) -> None:
    if run is not None:
        with suppress(OSError):  # then they count within this session
            run.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(run / FREED, json.dumps(moments).encode())


# --------------------------------------------------------------------------------------------------- running


def open_session(config: Path, home: Path | None, terminal: Terminal, **parts: Any) -> Session:
    """A session on this configuration; SettingsError. `parts` stand in place of clocks and the system's programs."""
    from firmware.config import Home, default_home  # noqa: PLC0415 - not for --help
    from firmware.console_login import Login  # noqa: PLC0415
    from firmware.settings import LAST_GOOD, CentreSettings, load_settings  # noqa: PLC0415
    from verifier.clock import system_clock  # noqa: PLC0415

    settings, remark = load_settings(config, (home or default_home()) / LAST_GOOD)
    named = Path(settings.paths.home).expanduser() if settings.paths.home else default_home()
    house = Home(home or named)
    settings, remark = CentreSettings(house.folder).over(settings, remark)
    clock = parts.pop("clock", None) or system_clock
    login = Login(
        plain(settings.device.name)[:40] or "unnamed", house.folder / KEYS, house.folder / TRIES,
        clock=clock, now_s=parts.pop("now_s", None) or _boottime_s,
    )  # fmt: skip
    return Session(
        settings=settings, remark=remark, config=config, home=house, login=login, terminal=terminal, clock=clock,
        run=parts.pop("run", None) or _run_folder(), switch=parts.pop("switch", None) or _switch, **parts,
    )  # fmt: skip


def may_serve(line: str, config: Path, home: Path | None) -> bool:
    """Whether a console may open this line: no reader, no barcode engine and no radio is on it. SettingsError."""
    from firmware.config import default_home  # noqa: PLC0415 - not for --help
    from firmware.settings import LAST_GOOD, load_settings  # noqa: PLC0415

    settings, _ = load_settings(config, (home or default_home()) / LAST_GOOD)
    taken = (settings.reader.port, settings.barcode.port, BLUETOOTH)
    return os.path.realpath(line) not in {os.path.realpath(port) for port in taken if port}


def _boottime_s() -> float:
    """Seconds since the start, those asleep included."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _run_folder() -> Path | None:
    from firmware.keeper import default_run  # noqa: PLC0415

    return default_run()


def _switch(command: Sequence[str]) -> int:
    import subprocess  # noqa: PLC0415

    try:
        return subprocess.run(command, check=False, stdin=subprocess.DEVNULL).returncode  # noqa: S603 - our own words
    except OSError:
        return 127


def run_console(config: Path, home: Path | None) -> int:
    """Serve the terminal of this process: 0 when it has hung up or was left, 1 when the settings cannot be used."""
    from firmware.console_commands import COMMANDS  # noqa: PLC0415 - not for --help
    from firmware.settings import SettingsError  # noqa: PLC0415

    def hung_up(_: int, __: FrameType | None) -> None:
        raise HangUpError

    terminal = Terminal(sys.stdin.fileno(), sys.stdout.fileno())
    try:
        session = open_session(config, home, terminal)
    except SettingsError as exc:
        print(f"markcheck: {exc}", file=sys.stderr)
        return 1
    former = {number: signal.signal(number, hung_up) for number in (signal.SIGHUP, signal.SIGTERM)}
    # A library's warning, and a mistake of ours, may carry text from anywhere: the line gets a name and a place.
    hook, threading.excepthook = threading.excepthook, lambda args: _mistake(args.exc_type, args.exc_traceback)
    try:
        with warnings.catch_warnings(), suppress(HangUpError):
            warnings.simplefilter("ignore")
            Console(session, COMMANDS).serve()
    finally:
        threading.excepthook = hook
        for number, handler in former.items():
            signal.signal(number, handler)
    return 0


def _mistake(kind: type[BaseException], trace: TracebackType | None) -> None:
    import traceback  # noqa: PLC0415 - with the first mistake

    place = traceback.extract_tb(trace)[-1] if trace else None
    where = f" in {Path(place.filename).name}, line {place.lineno}" if place else ""
    print(f"markcheck: our mistake: {kind.__name__}{where}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status is that of `run_console`."""
    import argparse  # noqa: PLC0415 - not for who calls `run_console`

    parser = argparse.ArgumentParser(prog="python -m firmware.console", description="The technician's console.")
    parser.add_argument("--config", type=Path, required=True, help="settings (TOML)")
    parser.add_argument("--home", type=Path, help="folder of the device's files")
    parser.add_argument("--may-serve", metavar="TTY", help="only tell whether a console may open this line: 0 or 1")
    options = parser.parse_args(argv)
    sys.excepthook = lambda kind, _, place: _mistake(kind, place)
    if options.may_serve is not None:
        return _told_whether(options.may_serve, options.config, options.home)
    return run_console(options.config, options.home)


def _told_whether(line: str, config: Path, home: Path | None) -> int:
    from firmware.settings import SettingsError  # noqa: PLC0415

    try:
        if may_serve(line, config, home):
            return 0
    except SettingsError as exc:
        print(f"markcheck: {exc}", file=sys.stderr)
        return 1
    print("markcheck: the settings give this line to another part: no console on it", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
