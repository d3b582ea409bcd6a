"""How the program ends: by the officer, by a signal, or by a mistake of ours; and what its exit status says."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from firmware.app import Program

DONE, FAILED, INTERRUPTED = 0, 1, 130
_SWITCH_OFF = ("systemctl", "poweroff")


class Ending:
    """The word that it is over, and the exit status: it may come from anywhere, and before the program stands."""

    def __init__(self) -> None:
        self.status: int | None = None
        self._stop: Callable[[], None] = lambda: None

    def say(self, status: int) -> None:
        """End with this status; the first word counts. From any thread, and from a signal's handler."""
        if self.status is None:
            self.status = status
        self._stop()

    def stops(self, program: Program) -> None:
        """This program ends by the word, at once if it was said already."""
        self._stop = program.stop
        if self.status is not None:
            program.stop()


@contextmanager
def watched(ending: Ending) -> Iterator[None]:
    """^C and SIGTERM end the program in good order; so does a thread that dies of a mistake of ours: the service
    manager starts the program anew, which is better than a handheld that has gone half deaf."""

    def died(args: threading.ExceptHookArgs) -> None:
        place = traceback.extract_tb(args.exc_traceback)[-1] if args.exc_traceback else None
        told = f" in {Path(place.filename).name}, line {place.lineno}" if place else ""
        name = args.thread.name if args.thread else "?"
        print(f"markcheck: our mistake: {args.exc_type.__name__}{told} (thread {name})", file=sys.stderr)
        ending.say(FAILED)

    def ended(number: int, _: FrameType | None) -> None:
        ending.say(INTERRUPTED if number == signal.SIGINT else DONE)

    hook, threading.excepthook = threading.excepthook, died
    mine = threading.current_thread() is threading.main_thread()
    former = {number: signal.signal(number, ended) for number in (signal.SIGINT, signal.SIGTERM) if mine}
    try:
        yield
    finally:
        threading.excepthook = hook
        for number, handler in former.items():
            signal.signal(number, handler)


def power_off() -> int:
    """Switch the machine off: the exit status."""
    try:
        return subprocess.run(_SWITCH_OFF, check=False).returncode and FAILED  # noqa: S603 - our own words
    except OSError as exc:
        print(f"markcheck: {_SWITCH_OFF[0]}: {exc.strerror}", file=sys.stderr)
        return FAILED
