"""A terminal as the handheld: the panel in half blocks, the keys from the keyboard."""

from __future__ import annotations

import os
import select
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, TextIO

from PIL import Image

from firmware.app import Program
from firmware.wiring import Inputs
from hw.buttons.keys import Key, KeyEvent, Touch

SIZE = (128, 64)
_HOME, _HIDE, _CLEAR, _SHOW = "\x1b[H", "\x1b[?25l", "\x1b[2J", "\x1b[?25h"
_FAINT_BELOW = 20  # contrast under which the glass is drawn faint
_FAINT, _PLAIN = "\x1b[2m", "\x1b[0m"
_ESCAPE_S = 0.05  # in which the rest of an arrow's bytes comes

_STROKES: dict[bytes, Key] = {
    b"\x1b[A": Key.UP, b"\x1b[B": Key.DOWN, b"\x1b[C": Key.RIGHT, b"\x1b[D": Key.LEFT,
    b"\x1bOA": Key.UP, b"\x1bOB": Key.DOWN, b"\x1bOC": Key.RIGHT, b"\x1bOD": Key.LEFT,
    b"\r": Key.OK, b"\n": Key.OK, b"\x7f": Key.BACK, b"\x08": Key.BACK, b"\x1b": Key.BACK,
}  # fmt: skip
_HELD: dict[bytes, Key] = {b"m": Key.OK, b"b": Key.BACK}
_END = b"q"


class TerminalPanel:
    """The glass as text: one character for two pixels, one above the other."""

    size = SIZE

    def __init__(self, out: TextIO) -> None:
        self._out, self._style = out, _PLAIN

    def show(self, image: Image.Image) -> None:
        """Draw a picture of `size` at the terminal's top left."""
        lines = "\r\n".join(half_blocks(image))
        self._out.write(f"{_HOME}{self._style}{lines}{_PLAIN}\r\n")
        self._out.flush()

    def contrast(self, level: int) -> None:
        """A dimmed panel is drawn faint."""
        self._style = _FAINT if level < _FAINT_BELOW else _PLAIN

    def reset(self) -> None:
        """Clear what others have written."""
        self._out.write(_CLEAR)

    def close(self, *, keep_picture: bool = False) -> None:
        """The terminal stays as it is."""


def half_blocks(image: Image.Image) -> Iterator[str]:
    """The picture's rows, two in one line of text."""
    grey = image.convert("L").tobytes()
    rows = [grey[at : at + image.width] for at in range(0, len(grey), image.width)]
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        yield "".join(" ▄▀█"[2 * (a >= 128) + (b >= 128)] for a, b in zip(upper, lower, strict=True))


def touches(stroke: bytes) -> list[KeyEvent]:
    """What the bytes of one stroke mean. A terminal tells no key's release, so it follows at once."""
    if (held := _HELD.get(stroke)) is not None:
        return [KeyEvent(held), KeyEvent(held, Touch.HOLD), KeyEvent(held, Touch.RELEASE)]
    key = _STROKES.get(stroke)
    return [] if key is None else [KeyEvent(key), KeyEvent(key, Touch.RELEASE)]


class Terminal:
    """The terminal in its raw state while it is entered, and as it was before afterwards."""

    def __init__(self, keyboard: int | None = None, out: TextIO | None = None) -> None:
        self._keyboard = sys.stdin.fileno() if keyboard is None else keyboard
        self._out = out or sys.stdout
        self.panel = TerminalPanel(self._out)
        self._before: list[Any] | None = None

    def __enter__(self) -> Terminal:
        if os.isatty(self._keyboard):
            self._before = termios.tcgetattr(self._keyboard)
            tty.setcbreak(self._keyboard)  # ^C stays a signal
        self._out.write(_HIDE + _CLEAR)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._out.write(_SHOW)
        self._out.flush()
        if self._before is not None:
            termios.tcsetattr(self._keyboard, termios.TCSADRAIN, self._before)

    def inputs(self) -> Inputs:
        """The keyboard as the keys."""
        return Inputs(attach=self._attach)

    def _attach(self, program: Program) -> Callable[[], None]:
        over = threading.Event()
        thread = threading.Thread(target=self._read, args=(program, over), name="keyboard", daemon=True)
        thread.start()
        return over.set

    def _read(self, program: Program, over: threading.Event) -> None:
        while not over.is_set():
            stroke = self._stroke()
            if stroke in (b"", _END):  # nobody is at the keyboard any more
                program.stop()
                return
            for event in touches(stroke or b"?"):
                program.post(event)

    def _stroke(self) -> bytes | None:
        """The next stroke: an arrow is three bytes, Esc alone is one. None when there is none in a while."""
        if not select.select([self._keyboard], [], [], 0.2)[0]:
            return None
        data = os.read(self._keyboard, 1)
        if data == b"\x1b" and select.select([self._keyboard], [], [], _ESCAPE_S)[0]:
            data += os.read(self._keyboard, 2)
        return data
