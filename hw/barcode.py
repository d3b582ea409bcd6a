"""A barcode engine on a serial line, or a keyboard wedge set to one: it finds and reads codes itself and sends texts.

What comes is a stranger's text, and noise where a plug moves: bounded, and nothing but text is taken.
"""

from __future__ import annotations

import re
import select
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import serial

from hw.errors import DeviceNotFoundError, LinkLostError
from verifier.types import CodeSeen

NAME = "barcode engine"
DECODER = "engine"
BAUDRATE = 9600  # as most engines leave the factory; USB ones take any
MAX_PAYLOAD = 7089  # bytes; the digits of a version 40-L symbol, ISO/IEC 18004 table 7
IDLE_S = 0.1  # of silence that end a payload without a line end; a hundred bytes at 9600 baud
PAUSE_S = 3.0  # between two calls: what was scanned before is not what the officer asks about now

_RETRY_S = (0.5, 1.0, 2.0, 5.0, 10.0)  # before the line is opened again, by the number of failures in a row
_MOST = 4096  # bytes of one read
_LINE_END = re.compile(rb"[\r\n]")
_ENCODINGS = ("utf-8", "gb18030")  # of codes that are not ours; ours are ASCII
_GONE = (OSError, termios.error)  # what pyserial and the terminal layer raise when a port goes away


class Port(Protocol):
    """The part of `serial.Serial` that is used; `read` returns at once with what there is."""

    @property
    def in_waiting(self) -> int:
        """Bytes that can be read without waiting."""
        ...

    def fileno(self) -> int:
        """The open file."""
        ...

    def read(self, size: int = 1) -> bytes:
        """At most so many bytes."""
        ...

    def reset_input_buffer(self) -> None:
        """Forget what has not been read."""
        ...

    def close(self) -> None:
        """Let go of the line."""
        ...


def serial_port(path: Path, baudrate: int = BAUDRATE) -> Callable[[], Port]:
    """How to open the line at `path` (8N1), for this program alone; OSError, termios.error, ValueError."""
    return lambda: serial.Serial(str(path), baudrate, timeout=0, exclusive=True)


class PayloadSplitter:
    """Payloads out of a stream of bytes that may be cut anywhere, each ended by CR, LF or silence."""

    def __init__(self, idle_s: float = IDLE_S) -> None:
        self._idle_s = idle_s
        self._last_s = 0.0
        self.reset()

    def reset(self) -> None:
        """Forget what has begun."""
        self._buffer = bytearray()
        self._is_too_long = False

    @property
    def has_begun(self) -> bool:
        """Whether a payload has not ended yet."""
        return bool(self._buffer) or self._is_too_long

    def feed(self, data: bytes, now_s: float) -> list[bytes]:
        """The payloads that end in these bytes."""
        self._last_s = now_s
        *ended, rest = _LINE_END.split(data)
        payloads = [payload for part in ended if (payload := self._end(part))]
        self._add(rest)
        return payloads

    def silence(self, now_s: float) -> list[bytes]:
        """The payload that has ended because nothing follows it."""
        if not self.has_begun or now_s - self._last_s < self._idle_s:
            return []
        payload = self._end(b"")
        return [payload] if payload else []

    def _add(self, part: bytes) -> None:
        if len(self._buffer) + len(part) > MAX_PAYLOAD:
            self._is_too_long = True
            self._buffer.clear()
        if not self._is_too_long:
            self._buffer += part

    def _end(self, part: bytes) -> bytes | None:
        self._add(part)
        payload = bytes(self._buffer)
        self.reset()
        return payload if _is_text(payload) else None


def _is_text(payload: bytes) -> bool:
    for encoding in _ENCODINGS:
        with suppress(UnicodeDecodeError):
            if payload and payload.decode(encoding).isprintable():
                return True
    return False


class BarcodeEngine:
    """Gives what the engine reads. The line is opened by the first call, and again after it was lost."""

    def __init__(
        self,
        open_port: Callable[[], Port],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        idle_s: float = IDLE_S,
    ) -> None:
        """`clock` gives seconds that never go back."""
        self._open_port, self._clock, self._sleep = open_port, clock, sleep
        self._idle_s = idle_s
        self._splitter = PayloadSplitter(idle_s)
        self._port: Port | None = None
        self._failures = 0  # in a row
        self._retry_at = self._left_s = clock()

    @property
    def retry_s(self) -> float:
        """Seconds until the line is opened again."""
        return max(0.0, self._retry_at - self._clock())

    def poll(self, timeout_s: float = 0.0) -> list[CodeSeen]:
        """The codes that were read; waits at most so many seconds, and no longer than for the first bytes.

        LinkLostError when the line is lost, DeviceNotFoundError when it cannot be opened; each attempt says so once,
        and between two attempts nothing comes. What came before a pause of `PAUSE_S` seconds is dropped.
        """
        try:
            return self._poll(timeout_s)
        finally:
            self._left_s = self._clock()

    def close(self) -> None:
        """Let go of the line; harmless twice, and the next call opens it again."""
        port, self._port = self._port, None
        self._splitter.reset()
        if port is not None:
            with suppress(*_GONE):  # gone already
                port.close()

    def _poll(self, timeout_s: float) -> list[CodeSeen]:
        if self._port is None:
            if wait_s := self.retry_s:
                self._sleep(min(timeout_s, wait_s))
                return []
            self._port = self._opened()
        try:
            data = self._read(self._port, timeout_s)
        except _GONE as exc:
            self._fail()
            raise LinkLostError(NAME, f"line lost{_number(exc)}") from exc
        now_s = self._clock()
        if data:
            self._failures = 0
        payloads = self._splitter.feed(data, now_s) if data else self._splitter.silence(now_s)
        return [CodeSeen(payload=payload, corners=(), decoder=DECODER) for payload in payloads]

    def _opened(self) -> Port:
        try:
            return self._open_port()
        except (*_GONE, ValueError) as exc:
            self._fail()
            raise DeviceNotFoundError(NAME, f"port cannot be opened{_number(exc)}") from exc

    def _read(self, port: Port, timeout_s: float) -> bytes:
        if self._clock() - self._left_s > PAUSE_S:
            port.reset_input_buffer()
            self._splitter.reset()
        ready = select.poll()
        ready.register(port.fileno(), select.POLLIN)
        wait_s = min(timeout_s, self._idle_s) if self._splitter.has_begun else timeout_s
        if not ready.poll(wait_s * 1000):
            return b""
        return port.read(min(port.in_waiting, _MOST) or 1)

    def _fail(self) -> None:
        self.close()
        self._retry_at = self._clock() + _RETRY_S[min(self._failures, len(_RETRY_S) - 1)]
        self._failures += 1


def _number(exc: BaseException) -> str:
    number = getattr(exc, "errno", None)
    return f" (errno {number})" if isinstance(number, int) else ""
