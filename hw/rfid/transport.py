"""The line to a reader: one thread that reads, and what is lost when the plug is pulled; here the serial one."""

from __future__ import annotations

import termios
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import serial

from hw.errors import DeviceNotFoundError, LinkLostError

READ_TIMEOUT_S = 0.1
WRITE_TIMEOUT_S = 1.0
GATHER_S = 0.012  # at 921600 baud 1106 bytes, a quarter of what a port's buffer holds
_MOST = 1 << 16  # bytes of one read

# What pyserial and the terminal layer raise when a port goes away; `in_waiting` raises a plain OSError (EIO).
LOST = (OSError, termios.error)

Received = Callable[[bytes], None]
"""Gets what was read; empty when the line was silent for READ_TIMEOUT_S."""
Lost = Callable[[LinkLostError], None]
Tap = Callable[[str, bytes], None]
"""Gets direction ("in" from the reader, "out" to it) and the bytes."""


class Link(Protocol):
    """An open line to a reader."""

    def write(self, data: bytes) -> None:
        """Send; LinkLostError."""
        ...

    def close(self) -> None:
        """Let go of the line; harmless twice."""
        ...


class Connect(Protocol):
    """Opens a line; calls back from its reading thread until it is closed."""

    def __call__(self, received: Received, lost: Lost) -> Link:
        """DeviceNotFoundError when there is no such line."""
        ...


class Channel(Protocol):
    """What a line is made of; LinkLostError or LOST from every method."""

    def read(self) -> bytes | None:
        """What has come; empty when the line was silent, None where that says nothing."""
        ...

    def write(self, data: bytes, /) -> object:
        """Send all bytes."""
        ...

    def wake(self) -> None:
        """End a read that waits."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class ThreadedLink:
    """A line with its reading thread."""

    def __init__(self, channel: Channel, received: Received, lost: Lost, tap: Tap | None = None) -> None:
        self._channel = channel
        self._received, self._lost, self._tap = received, lost, tap
        self._writing = threading.Lock()  # the reading thread may answer by itself
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tag reader line", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        """Send all bytes; nothing that was received is thrown away for it. LinkLostError."""
        try:
            with self._writing:
                if self._tap:
                    self._tap("out", data)
                self._channel.write(data)
        except LOST as exc:
            raise _lost_error(exc) from exc

    def close(self) -> None:
        """End the thread and let go of the line; harmless twice."""
        self._closing.set()
        with suppress(*LOST):  # gone already
            self._channel.wake()
        if self._thread is not threading.current_thread():
            self._thread.join()
        with suppress(*LOST):
            self._channel.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                data = self._channel.read()
                if data and self._tap:
                    self._tap("in", data)
            except (LinkLostError, *LOST) as exc:
                if not self._closing.is_set():
                    self._lost(exc if isinstance(exc, LinkLostError) else _lost_error(exc))
                return
            if data is not None:
                self._received(data)


class _SerialPort:
    """A serial port of pyserial."""

    def __init__(self, port: serial.Serial) -> None:
        self._port = port
        self.write, self.wake, self.close = port.write, port.cancel_read, port.close

    def read(self) -> bytes:
        """All that waits, in one call: one byte a call falls behind at 921600 baud."""
        port = self._port
        waiting = port.in_waiting
        data: bytes = port.read(min(waiting, _MOST) or 1)
        if data and not waiting:
            # A byte alone begins a frame. Let the rest come, instead of waking up for each piece.
            time.sleep(GATHER_S)
            data += port.read(min(port.in_waiting, _MOST))
        return data


def serial_line(path: Path, baudrate: int, tap: Tap | None = None) -> Connect:
    """How to open the port at `path` (8N1), exclusively: two programs on one line break each other's frames."""

    def connect(received: Received, lost: Lost) -> Link:
        try:
            # A pseudo terminal has no RTS and DTR; pyserial goes on without them (ENOTTY, EINVAL).
            port = serial.Serial(
                str(path), baudrate, timeout=READ_TIMEOUT_S, write_timeout=WRITE_TIMEOUT_S, exclusive=True
            )
        except (*LOST, ValueError) as exc:
            raise DeviceNotFoundError("tag reader", f"port cannot be opened{_number(exc)}") from exc
        return ThreadedLink(_SerialPort(port), received, lost, tap)

    return connect


def monotonic_tap(write: Callable[[float, str, bytes], None]) -> Tap:
    """A tap that tells seconds since it was made."""
    began = time.monotonic()
    return lambda direction, data: write(time.monotonic() - began, direction, data)


def _lost_error(exc: BaseException) -> LinkLostError:
    return LinkLostError("tag reader", f"line lost{_number(exc)}")


def _number(exc: BaseException) -> str:
    number = getattr(exc, "errno", None)
    return f" (errno {number})" if isinstance(number, int) else ""
