"""Plays one pattern at a time, in a thread of its own; a new one ends the one before."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Protocol

from hw.errors import HardwareError
from hw.sound.patterns import PATTERNS, Beat

SILENCE = Beat(0)


class Outputs(Protocol):
    """Buzzer, LED and motor."""

    def put(self, beat: Beat) -> None:
        """Sound, light and motor as the beat says, until the next; HardwareError when they do not."""
        ...

    def close(self) -> None:
        """Silent and dark, and let go; harmless twice."""
        ...


class Player:
    """The one who plays. A check never waits for a sound.

    `failed` is told when the outputs do not work, and "" when they do again.
    """

    def __init__(self, outputs: Outputs, failed: Callable[[str], None] = lambda problem: None) -> None:
        self._outputs, self._failed = outputs, failed
        self._faulty = False
        self._wanted: queue.SimpleQueue[tuple[Beat, ...] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="sound", daemon=True)
        self._thread.start()

    def play(self, signal: str) -> None:
        """Begin a signal by its name in `PATTERNS`; returns at once."""
        self.beats(PATTERNS[signal])

    def beats(self, pattern: tuple[Beat, ...]) -> None:
        """Begin a pattern that is no signal; returns at once."""
        self._wanted.put(pattern)

    def close(self) -> None:
        """Silence, and the end of the thread."""
        self._wanted.put(None)
        self._thread.join(2)
        self._outputs.close()

    def _run(self) -> None:
        pattern = self._wanted.get()
        while pattern is not None:
            pattern = self._play(pattern)

    def _play(self, pattern: tuple[Beat, ...]) -> tuple[Beat, ...] | None:
        """Play until the end or the next pattern, which is returned."""
        try:
            for beat in pattern:
                self._outputs.put(beat)
                self._well()
                try:
                    return self._wanted.get(timeout=beat.ms / 1000)
                except queue.Empty:
                    continue
            self._outputs.put(SILENCE)
        except HardwareError as exc:
            self._faulty = True
            self._failed(exc.problem)
        return self._wanted.get()

    def _well(self) -> None:
        if self._faulty:
            self._faulty = False
            self._failed("")
