"""Lines of text from a terminal, of bounded length. What is no plain character never becomes a part of a command.

GNU readline is not used: it keeps a line of any length, takes control characters into it, and cannot wait for two
things at once.
"""

from __future__ import annotations

import os
import select
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum

MOST = 256  # characters of a line
HISTORY = 30  # lines
_BLOCK = 4096  # bytes
_LONGEST_SEQUENCE = 12  # bytes behind ESC
_HARMLESS = frozenset(b"ABCDHFRc~")  # ends of the sequences that cursor keys and a terminal's own answers have

_BELL, _TAB, _ESC, _INTERRUPT, _END, _ERASE_LINE, _ERASE_WORD = 0x07, 0x09, 0x1B, 0x03, 0x04, 0x15, 0x17
_NEWLINES = frozenset(b"\r\n")
_BACKSPACES = frozenset(b"\x08\x7f")


class HangUpError(Exception):
    """Nobody is at the other end any more."""


class Spoilt(StrEnum):
    """Why a line does not count."""

    TOO_LONG = "too long"
    NOISE = "not plain text"


class RefusedLineError(Exception):
    """A line that does not count; `why` says so."""

    def __init__(self, why: Spoilt) -> None:
        super().__init__(why.value)
        self.why = why


Complete = Callable[[str], list[str]]
"""Whole words that may stand in the place of the last word of this text."""


class Editor:
    """One line while it is typed: takes bytes, echoes what it accepts. Constant work and memory for each byte."""

    def __init__(self, echo: Callable[[str], None], complete: Complete, history: list[str], prompt: str) -> None:
        self._echo, self._complete, self._history, self._prompt = echo, complete, history, prompt
        self._at = len(history)
        self._sequence: bytearray | None = None
        self.text = ""
        self.spoilt: Spoilt | None = None

    def feed(self, data: bytes) -> int | None:
        """How many bytes belong to the line, its end included; None while it has not ended. HangUpError for ^D."""
        at = 0
        while at < len(data):
            if self.spoilt is not None:  # nothing but the end counts
                ends = [place for end in (b"\n", b"\r") if (place := data.find(end, at)) >= 0]
                return min(ends) + 1 if ends else None
            byte = data[at]
            at += 1
            if byte in _NEWLINES:
                self.spoilt = Spoilt.NOISE if self._sequence is not None else None
                return at
            self._take(byte)
        return None

    def _take(self, byte: int) -> None:
        if self._sequence is not None:
            self._follow(byte)
        elif 0x20 <= byte <= 0x7E:
            self._insert(chr(byte))
        elif byte in _BACKSPACES:
            self._erase(1)
        elif byte == _ERASE_LINE:
            self._erase(len(self.text))
        elif byte == _ERASE_WORD:
            before, space, _ = self.text.rstrip().rpartition(" ")
            self._erase(len(self.text) - len(before + space))
        elif byte == _TAB:
            self._fill_in()
        elif byte == _ESC:
            self._sequence = bytearray()
        elif byte == _END and not self.text:
            raise HangUpError
        else:
            self.spoilt = Spoilt.NOISE

    def _insert(self, more: str) -> None:
        if len(self.text) + len(more) > MOST:
            self.spoilt = Spoilt.TOO_LONG
            self._echo(chr(_BELL))
            return
        self.text += more
        self._echo(more)

    def _erase(self, count: int) -> None:
        count = min(count, len(self.text))
        self.text = self.text[: len(self.text) - count]
        self._echo("\b \b" * count)

    def _follow(self, byte: int) -> None:
        """One more byte of an escape sequence (ECMA-48 clause 5.4): the cursor keys count, the rest of the known ones
        does nothing, and an unknown one spoils the line."""
        sequence = self._sequence if self._sequence is not None else bytearray()
        sequence.append(byte)
        if len(sequence) == 1:
            self._sequence = sequence if byte in b"[O" else None
            self.spoilt = None if byte in b"[O" else Spoilt.NOISE
        elif 0x40 <= byte <= 0x7E:
            self._sequence = None
            if byte not in _HARMLESS:
                self.spoilt = Spoilt.NOISE
            elif byte in b"AB":
                self._recall(-1 if byte == ord("A") else 1)
        elif not 0x20 <= byte <= 0x3F or len(sequence) > _LONGEST_SEQUENCE:
            self.spoilt = Spoilt.NOISE

    def _recall(self, step: int) -> None:
        at = self._at + step
        if 0 <= at <= len(self._history):
            self._at = at
            self._erase(len(self.text))
            self._insert(self._history[at] if at < len(self._history) else "")

    def _fill_in(self) -> None:
        """Complete the last word: with a space behind it when there is one choice, else as far as all agree."""
        found = self._complete(self.text)
        word = self.text.rpartition(" ")[2]
        if len(found) == 1:
            self._insert(found[0][len(word) :] + " ")
        elif more := _common(found)[len(word) :]:
            self._insert(more)
        elif found:
            self._echo("\n" + "  ".join(found) + "\n" + self._prompt + self.text)
        else:
            self._echo(chr(_BELL))


def _common(words: list[str]) -> str:
    """What all begin with; empty without words."""
    shortest = min(words, key=len, default="")
    ends = (at for at in range(len(shortest), 0, -1) if all(word.startswith(shortest[:at]) for word in words))
    return shortest[: next(ends, 0)]


class Terminal:
    """Two ends of a line: a terminal, or files and pipes, which are read without echo."""

    def __init__(self, source: int, sink: int, *, poll_s: float = 1.0) -> None:
        """`source` and `sink` are file descriptors; while it waits, somebody may be asked every `poll_s` seconds."""
        self._source, self._sink, self._poll_s = source, sink, poll_s
        self._is_terminal = os.isatty(source)
        self._ahead = b""
        self._history: list[str] = []

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Bytes come as they are typed, without the terminal's own echo; as before afterwards."""
        if not self._is_terminal:
            yield
            return
        try:
            before = termios.tcgetattr(self._source)
            termios.tcsetattr(self._source, termios.TCSANOW, _by_byte(before))
        except termios.error as exc:
            raise HangUpError from exc
        try:
            yield
        finally:
            with suppress(termios.error):  # it has hung up
                termios.tcsetattr(self._source, termios.TCSANOW, before)

    def read(self, prompt: str, complete: Complete, waiting: Callable[[], None], *, keep: bool = True) -> str:
        """One line; RefusedLineError, HangUpError. `waiting` is called while nobody types, and may raise.

        `keep`: it can be recalled by a cursor key.
        """
        self.write(prompt)
        editor = Editor(self._echo, complete, self._history, prompt)
        while True:
            data = self._ahead or self._next(waiting)
            used = editor.feed(data)
            self._ahead = b"" if used is None else data[used:]
            if used is not None:
                break
        self.write("\n")
        if editor.spoilt is not None:
            raise RefusedLineError(editor.spoilt)
        if keep and editor.text.strip() and self._history[-1:] != [editor.text]:
            self._history[:] = [*self._history[1 - HISTORY :], editor.text]
        return editor.text

    def forget(self) -> None:
        """Nothing can be recalled any more, and what was typed ahead does not count."""
        self._history.clear()
        self._ahead = b""

    def write(self, text: str) -> None:
        """Write it whole; HangUpError."""
        data = text.encode("ascii", "replace")
        try:
            while data:
                data = data[os.write(self._sink, data) :]
        except OSError as exc:
            raise HangUpError from exc

    def _echo(self, text: str) -> None:
        if self._is_terminal:
            self.write(text)

    def _next(self, waiting: Callable[[], None]) -> bytes:
        while not select.select([self._source], [], [], self._poll_s)[0]:
            waiting()
        waiting()
        try:
            data = os.read(self._source, _BLOCK)
        except OSError as exc:
            raise HangUpError from exc
        if not data:
            raise HangUpError
        return data


def _by_byte(before: list[int | list[bytes | int]]) -> list[int | list[bytes | int]]:
    """Byte by byte, without echo. ^C still interrupts; ^Z, ^\\ and ^S would leave a console without a shell dead."""
    changed = [*before]
    iflag, oflag, _, lflag = (flag if isinstance(flag, int) else 0 for flag in before[:4])
    characters = before[6]
    changed[0] = (iflag | termios.ICRNL | termios.IGNBRK) & ~(termios.IXON | termios.IXOFF | termios.BRKINT)
    changed[1] = oflag | termios.OPOST | termios.ONLCR
    changed[3] = (lflag | termios.ISIG) & ~(termios.ICANON | termios.ECHO | termios.IEXTEN)
    if isinstance(characters, list):
        own = [*characters]
        own[termios.VSUSP] = own[termios.VQUIT] = b"\0"
        own[termios.VMIN], own[termios.VTIME] = 1, 0
        changed[6] = own
    return changed
