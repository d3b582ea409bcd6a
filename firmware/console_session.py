"""What a console's commands are made of: a session, rows, and a record of each command."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from firmware.config import Home
    from firmware.console_line import Terminal
    from firmware.console_login import Login
    from firmware.settings import Settings
    from verifier.audit import RecordLog

WIDTH = 120  # characters: a serial line does not tell its size


class UsageError(Exception):
    """A command that was called in another way; the text is its usage."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of output: the same for people and as facts for machines."""

    text: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Command:
    """What may be asked for. `words`: what may stand behind it, for completion. `free`: before a login, too.

    `without_record`: also when the audit log cannot be written, because it changes nothing or is the way out.
    """

    run: Callable[[Session, list[str]], Iterator[Row]]
    help: str
    words: tuple[str, ...] = ()
    free: bool = False
    without_record: bool = False


@dataclass(slots=True, kw_only=True)
class Session:
    """What the commands work with."""

    settings: Settings
    remark: str
    config: Path
    home: Home
    run: Path | None  # the folder in memory
    login: Login
    terminal: Terminal
    clock: Callable[[], datetime]
    switch: Callable[[Sequence[str]], int]  # runs a program of the system: its exit status
    audit: RecordLog | None = field(default=None)
    freed: list[float] = field(default_factory=list)  # when commands before a login were recorded


def plain(text: str) -> str:
    """As a terminal may get it: printable ASCII, on one line of bounded length."""
    line = "".join(char if " " <= char <= "~" else "?" for char in text[: WIDTH + 1])
    return line if len(line) <= WIDTH else line[: WIDTH - 3] + "..."


def record(session: Session, command: str, outcome: str) -> bool:
    """Put into the audit log who asked for what, and when; no word behind the command. Whether it is on the card."""
    import secrets  # noqa: PLC0415 - with the first record

    from firmware.build import audit_log, software_version  # noqa: PLC0415
    from verifier.errors import AuditError  # noqa: PLC0415

    if session.audit is None:
        session.audit = audit_log(session.home, session.clock)[0]
    event = {
        "v": 1, "kind": "event", "id": secrets.token_hex(8), "software": software_version(), "event": "console",
        "command": command, "outcome": outcome, "technician": session.login.technician,
        "at": session.clock().isoformat(timespec="seconds"),
    }  # fmt: skip
    try:
        session.audit.append(event)
    except AuditError:
        return False
    return True
