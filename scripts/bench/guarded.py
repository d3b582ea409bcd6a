"""A decoder in a child process of its own: one that loops for ever, or crashes, costs one frame and not the run."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import NamedTuple

import cv2
import numpy as np

from hw.errors import DeviceNotFoundError
from scripts.bench.optics import Gray

Decode = Callable[[Gray], list[bytes]]  # a picture in, the payloads in it out

_START_S = 60.0  # for loading the libraries on a busy machine
_WAITING = 10  # times the limit, on the wall clock: for one that sleeps, or a machine with much else to do
_SPAWN = multiprocessing.get_context("spawn")  # a fork would copy threads and locks of the libraries


class Attempt(NamedTuple):
    """What one decoder made of one frame."""

    payloads: tuple[bytes, ...]
    ms: float  # CPU milliseconds of one thread; the whole limit when it was stopped
    stopped: bool  # took longer than the limit, or died


class GuardedDecoder:
    """Runs what `make` returns, with a limit on the processor time for each frame.

    `make` is called in the child, so it must be importable by name there. DeviceNotFoundError where its library is
    missing.
    """

    def __init__(self, make: Callable[[], Decode], limit_s: float) -> None:
        self._make, self._limit_s = make, limit_s
        self._start()

    def _start(self) -> None:
        self._pipe, theirs = _SPAWN.Pipe()
        self._child: SpawnProcess = _SPAWN.Process(target=_serve, args=(theirs, self._make, self._limit_s), daemon=True)
        self._child.start()
        theirs.close()
        problem = self._answer(_START_S)
        if problem != "":
            self.close()
            raise DeviceNotFoundError("decoder", str(problem or "did not start"))

    def read(self, gray: Gray) -> Attempt:
        """The payloads in a uint8 height x width picture."""
        self._pipe.send(gray)
        answer = self._answer(self._limit_s * _WAITING)
        if isinstance(answer, Attempt):
            return answer
        self.close()
        self._start()
        return Attempt((), self._limit_s * 1000, True)

    def _answer(self, limit_s: float) -> object:
        """What the child sends; None when it stays silent or is gone."""
        try:
            return self._pipe.recv() if self._pipe.poll(limit_s) else None
        except (EOFError, ConnectionError):
            return None

    def close(self) -> None:
        """End the child, whatever it is doing; harmless twice."""
        self._child.kill()
        self._child.join()
        self._pipe.close()


def _serve(pipe: Connection, make: Callable[[], Decode], limit_s: float) -> None:
    cv2.setNumThreads(1)  # every decoder is timed on one thread
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # its remarks on damaged codes are no news
    try:
        decode = make()
    except (ImportError, OSError, AttributeError, DeviceNotFoundError) as exc:
        pipe.send(str(exc) or type(exc).__name__)
        return
    decode(np.zeros((64, 64), np.uint8))  # what is loaded at first use is no frame's time
    pipe.send("")
    while True:
        try:
            gray = pipe.recv()
        except EOFError:
            return
        # Without a handler of Python's the signal ends the process in whatever native loop it is.
        signal.setitimer(signal.ITIMER_PROF, limit_s)
        began = time.process_time()
        payloads = tuple(decode(gray))
        ms = (time.process_time() - began) * 1000
        signal.setitimer(signal.ITIMER_PROF, 0)
        pipe.send(Attempt(payloads, ms, False))
