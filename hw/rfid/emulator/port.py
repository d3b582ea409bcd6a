"""An emulated reader behind a pseudo-terminal: a host opens the path as it would open a serial port."""

from __future__ import annotations

import errno
import os
import pty
import select
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from hw.rfid.emulator.device import EmulatedReader
from hw.rfid.emulator.faults import FaultKind

TICK_S = 0.002
_IDLE_S = 0.02  # while nothing is under way: the host's bytes end the wait, a due fault may be late by this
_NO_HOST_S = 0.01
_READ_BYTES = 4096


class Port(Protocol):
    """Where a host finds an emulated reader."""

    lost: int

    @property
    def path(self) -> str:
        """What a host is to open."""
        ...

    @property
    def master(self) -> int:
        """The file descriptor that tells of the host's bytes; -1 while unplugged."""
        ...

    def plug(self) -> None:
        """Come (back)."""
        ...

    def unplug(self) -> None:
        """Go away like a pulled plug; harmless twice."""
        ...

    def read(self) -> bytes | None:
        """What the host has sent since; None while there is no host."""
        ...

    def write(self, data: bytes) -> None:
        """Give bytes to the host."""
        ...


class PtyPort:
    """A pseudo-terminal, and a link to it at a path of one's choice. Nothing here waits."""

    def __init__(self, link: Path | None = None) -> None:
        """OSError when the link cannot be made; what is at its place and is no link stays untouched."""
        self._link = link
        self._master = -1
        self._slave_name = ""
        self.lost = 0  # bytes that the host did not fetch in time
        self.plug()

    @property
    def path(self) -> str:
        """What a host is to open."""
        return str(self._link or self._slave_name)

    @property
    def master(self) -> int:
        """The file descriptor of our side; -1 while unplugged."""
        return self._master

    def plug(self) -> None:
        """Come (back) with a new pseudo-terminal."""
        self._master, slave = pty.openpty()
        try:
            tty.setraw(slave)
            self._slave_name = os.ttyname(slave)
            os.set_blocking(self._master, False)
            self._make_link()
        except OSError:
            self.unplug()
            raise
        finally:
            os.close(slave)  # or a host's closing would go unnoticed

    def unplug(self) -> None:
        """Go away like a pulled plug; harmless twice."""
        if self._link and self._link.is_symlink() and str(self._link.readlink()) == self._slave_name:
            self._link.unlink(missing_ok=True)
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    def read(self) -> bytes | None:
        """What the host has sent since; None while no host has the port open."""
        try:
            return os.read(self._master, _READ_BYTES)
        except BlockingIOError:
            return b""
        except OSError as exc:
            if exc.errno != errno.EIO:
                raise
            return None

    def write(self, data: bytes) -> None:
        """Give bytes to the host; what its buffer has no room for is lost, as in a real port."""
        try:
            written = os.write(self._master, data) if data else 0
        except OSError as exc:
            if exc.errno not in (errno.EIO, errno.EAGAIN):
                raise
            written = 0
        self.lost += len(data) - written

    def _make_link(self) -> None:
        if self._link is None:
            return
        if os.path.lexists(self._link) and not self._link.is_symlink():
            raise FileExistsError(errno.EEXIST, "is there and is no link", str(self._link))
        if not self._link.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "no such folder", str(self._link.parent))
        fresh = self._link.with_name(f"{self._link.name}.{os.getpid()}")
        fresh.symlink_to(self._slave_name)
        fresh.replace(self._link)


class PortEmulator:
    """An emulated reader and its port. `turn` is one step at a given moment; `run` steps until it is told to stop."""

    def __init__(self, reader: EmulatedReader, port: Port) -> None:
        self.reader, self.port = reader, port
        self.hosts = 0  # how often a host opened the port
        self._open = False
        self._plug_at_s: float | None = None

    @property
    def state(self) -> str:
        """One word for people."""
        if self._plug_at_s is not None:
            return "unplugged"
        return "open" if self._open else "waiting"

    def turn(self, now: float) -> None:
        """Let time pass until now (seconds since the beginning), in both directions.

        Until a host has opened the port for the first time nothing happens: its power-up is the scene's beginning.
        """
        if self._plug_at_s is not None:
            if now < self._plug_at_s:
                return
            self.port.plug()
            self._plug_at_s = None
        if self.hosts and (unplug := self.reader.faults.take(FaultKind.UNPLUG, now)):
            self.port.unplug()
            self.reader.power_cycle()
            self._open, self._plug_at_s = False, now + unplug.seconds
            return
        heard = self.port.read()
        if heard is None and not self.hosts:
            return
        self.hosts += heard is not None and not self._open
        self._open = heard is not None
        data = self.reader.turn(now, heard or b"")
        if self._open:  # a closed port keeps nothing
            self.port.write(data)

    def run(
        self, clock: Callable[[], float], stop: threading.Event, told: Callable[[float], None] | None = None
    ) -> None:
        """Turn every 2 ms while something goes on; `clock` gives seconds that never go back.

        The scene begins when a host first opens the port. `told` is given the seconds since `run` was called after
        each turn.
        """
        started = began = clock()
        while not stop.is_set():
            now = clock()
            if not self.hosts:
                began = now
            self.turn(now - began)
            if told is not None:
                told(now - started)
            if not self._open:
                stop.wait(_NO_HOST_S)
            else:
                select.select([self.port.master], [], [], _IDLE_S if self.reader.idle else TICK_S)


@contextmanager
def running(
    reader: EmulatedReader, clock: Callable[[], float], link: Path | None = None, port: Port | None = None
) -> Iterator[PortEmulator]:
    """An emulator in a thread of its own, behind a pseudo-terminal or `port`, which is gone afterwards."""
    emulator = PortEmulator(reader, port or PtyPort(link))
    stop = threading.Event()
    thread = threading.Thread(target=emulator.run, args=(clock, stop), name="reader-emulator", daemon=True)
    thread.start()
    try:
        yield emulator
    finally:
        stop.set()
        thread.join()
        emulator.port.unplug()
