"""One scanner process as the program holds it: started, asked, heard, ended."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Callable
from enum import Enum, auto

from firmware.scan_protocol import (
    GRANT,
    MAX_PHOTO,
    PHOTO_GRANT,
    PHOTO_HEADER,
    PHOTO_PLACE,
    Begin,
    Done,
    End,
    Failed,
    Job,
    Message,
    MessageParser,
    Missing,
    ProtocolError,
    Ready,
    Unusable,
    encode_settings,
)
from hw.interfaces import CameraSettings

_CHUNK = 1 << 16  # bytes
_REAP_S = 1.0
_JPEG_BEGIN, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"  # ISO/IEC 10918-1 clause B.1.1.3

Spawn = Callable[[Job, int, int], "subprocess.Popen[bytes]"]


def spawn_worker(job: Job, reports: int, slot: int) -> subprocess.Popen[bytes]:
    """Start a scanner process that writes to these two open files and reads its grants from a pipe; OSError."""
    # -P: a module in the working folder must not stand in for a library. What libraries print is not ours to show.
    command = [sys.executable, "-P", "-m", "firmware.scan_worker", str(reports), str(slot), job.to_text()]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(  # noqa: S603 - our own interpreter and module
        command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, pass_fds=(reports, slot), bufsize=0
    )


class State(Enum):
    """What a scanner process is at."""

    STARTING = auto()
    CAPTURING = auto()
    DECODING = auto()


EXPECTED: dict[State, tuple[type[Message], ...]] = {
    State.STARTING: (Ready, Missing, Failed),
    State.CAPTURING: (Begin, Unusable, Done, Missing, Failed),
    State.DECODING: (End, Failed),
}


class ScanProcess:
    """One process, what it is at and since when."""

    def __init__(self, spawn: Spawn, job: Job, slot: int, now: float) -> None:
        """OSError when no process can be made."""
        self._reports, theirs = os.pipe()
        try:
            self._process = spawn(job, theirs, slot)
        except OSError:
            os.close(self._reports)
            raise
        finally:
            os.close(theirs)
        if self._process.stdin is not None:
            os.set_blocking(self._process.stdin.fileno(), False)  # who takes no grants must not hold up the program
        self._parser = MessageParser()
        self._poll = select.poll()
        self._poll.register(self._reports, select.POLLIN)
        self.state, self.since, self.frame = State.STARTING, now, ""
        self.photo = 0  # the number of the photo that the frame under way is wanted for
        self._told = CameraSettings()

    def enter(self, state: State, now: float) -> None:
        """It is at something else now."""
        self.state, self.since = state, now

    def grant(self, now: float, settings: CameraSettings, photo: int = 0) -> None:
        """Ask for one more frame, taken so, and for a photo of it; that nobody listens is noticed at the next reading.

        ProtocolError when it talks on without taking its grants, until the pipe is full of them.
        """
        self.enter(State.CAPTURING, now)
        order = PHOTO_GRANT if photo else GRANT
        order = order if settings == self._told else encode_settings(settings) + order
        self._told, self.photo = settings, photo
        try:
            taken = None if self._process.stdin is None else self._process.stdin.write(order)
        except BrokenPipeError:
            return
        if taken != len(order):
            raise ProtocolError("it answers what it was not asked")

    def read(self, timeout_s: float) -> list[Message]:
        """What it said, waiting for the first byte only; ProtocolError; EOFError when it is gone."""
        messages: list[Message] = []
        for _ in range(17):  # more than the longest message; a process that never stops talking is not heard to the end
            if messages or not self._poll.poll(max(0.0, timeout_s) * 1000):
                break
            data = os.read(self._reports, _CHUNK)
            if not data:
                raise EOFError
            messages += self._parser.feed(data)
            timeout_s = 0.0
        return messages

    def end(self) -> int | None:
        """End it, whatever it is doing: its exit status, negative for a signal; None when it does not even die."""
        self._process.kill()
        os.close(self._reports)
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            return self._process.wait(_REAP_S)
        except subprocess.TimeoutExpired:  # stuck in a driver
            return None


def photo_in(slot: int) -> bytes:
    """The photo of the newest frame in the slot, a JPEG of at most MAX_PHOTO bytes by its two ends; empty without one.

    To be read before the next frame is granted: that takes its place.
    """
    # Read, not mapped: who wrote it may have shortened it.
    header = os.pread(slot, PHOTO_HEADER.size, PHOTO_PLACE)
    length = PHOTO_HEADER.unpack(header)[0] if len(header) == PHOTO_HEADER.size else 0
    if not 0 < length <= MAX_PHOTO:
        return b""
    jpeg = os.pread(slot, length, PHOTO_PLACE + PHOTO_HEADER.size)
    whole = len(jpeg) == length and jpeg.startswith(_JPEG_BEGIN) and jpeg.endswith(_JPEG_END)
    return jpeg if whole else b""
