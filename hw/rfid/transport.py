"""The serial line: one thread that reads, and what is lost when the plug is pulled."""

from __future__ import annotations

import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import serial

from hw.errors import DeviceNotFoundError, LinkLostError

READ_TIMEOUT_S = 0.1
WRITE_TIMEOUT_S = 1.0
GATHER_S = 0.012  # at 921600 baud 1106 bytes, a quarter of what a port's buffer holds
_MOST = 1 << 16  # bytes of one read

# What pyserial and the terminal layer raise when a port goes away; `in_waiting` raises a plain OSError (EIO).
_LOST = (OSError, termios.error)

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


class SerialLink:
    """A serial port with its reading thread."""

    def __init__(self, port: serial.Serial, received: Received, lost: Lost, tap: Tap | None = None) -> None:
        self._port = port
        self._received = received
        self._lost = lost
        self._tap = tap
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tag reader line", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        """Send all bytes; nothing that was received is thrown away for it. LinkLostError."""
        if self._tap:
            self._tap("out", data)
        try:
            self._port.write(data)
        except _LOST as exc:
            raise _lost_error(exc) from exc

    def close(self) -> None:
        """End the thread and let go of the port; harmless twice."""
        self._closing.set()
        if self._thread is not threading.current_thread():
            self._port.cancel_read()
            self._thread.join()
        try:
            self._port.close()
        except _LOST:
            return  # gone already

    def _run(self) -> None:
        port = self._port
        while not self._closing.is_set():
            try:
                # All that waits, in one call: one byte a call falls behind at 921600 baud.
                waiting = port.in_waiting
                data = port.read(min(waiting, _MOST) or 1)
                if data and not waiting:
                    # A byte alone begins a frame. Let the rest come, instead of waking up for each piece.
                    time.sleep(GATHER_S)
                    data += port.read(min(port.in_waiting, _MOST))
                if data and self._tap:
                    self._tap("in", data)
            except _LOST as exc:
                if not self._closing.is_set():
                    self._lost(_lost_error(exc))
                return
            self._received(data)


def serial_line(path: Path, baudrate: int, tap: Tap | None = None) -> Connect:
    """How to open the port at `path` (8N1), exclusively: two programs on one line break each other's frames."""

    def connect(received: Received, lost: Lost) -> Link:
        try:
            # A pseudo terminal has no RTS and DTR; pyserial goes on without them (ENOTTY, EINVAL).
            port = serial.Serial(
                str(path), baudrate, timeout=READ_TIMEOUT_S, write_timeout=WRITE_TIMEOUT_S, exclusive=True
            )
        except (*_LOST, ValueError) as exc:
            raise DeviceNotFoundError("tag reader", f"port cannot be opened{_number(exc)}") from exc
        return SerialLink(port, received, lost, tap)

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
