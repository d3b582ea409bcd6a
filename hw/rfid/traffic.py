"""Recorded traffic of a reader: a file of JSON lines that can be played back without the reader.

First line: `{"format": "reader-traffic", "version": 1, "protocol": ..., "baudrate": ...}`. Every further line:
`{"t": seconds, "dir": "in" | "out", "hex": ...}`, "in" from the reader to us.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self, TextIO

from hw.errors import HardwareError, one_line

FORMAT = {"format": "reader-traffic", "version": 1}
_LONGEST_LINE = 1 << 20  # characters


class TrafficError(HardwareError):
    """A file that holds no traffic; the problem names the line."""

    def __init__(self, problem: str) -> None:
        super().__init__("traffic", one_line(problem))
        self.args = (problem,)


class Chunk(NamedTuple):
    """Bytes that went over the line at once."""

    seconds: float
    direction: str  # "in" or "out"
    data: bytes


class TrafficWriter:
    """Writes a file of traffic; a context manager."""

    def __init__(self, path: Path, protocol: str, baudrate: int) -> None:
        """OSError."""
        self._file: TextIO = path.open("w", encoding="ascii")
        self._put({**FORMAT, "protocol": protocol, "baudrate": baudrate})

    def write(self, seconds: float, direction: str, data: bytes) -> None:
        """Add what just went over the line."""
        if not self._file.closed:
            self._put({"t": round(seconds, 6), "dir": direction, "hex": data.hex()})

    def close(self) -> None:
        """Finish the file; harmless twice."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _put(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")


class Traffic:
    """A file of traffic: its protocol, and its chunks in order."""

    def __init__(self, path: Path) -> None:
        """OSError, TrafficError."""
        self._path = path
        with path.open(encoding="utf-8", errors="replace") as file:
            head = _object(file.readline(_LONGEST_LINE), 1)
        if {name: head.get(name) for name in FORMAT} != FORMAT or not isinstance(head.get("protocol"), str):
            raise TrafficError("line 1: no recorded traffic")
        self.protocol: str = head["protocol"]

    def chunks(self) -> Iterator[Chunk]:
        """What went over the line; TrafficError, OSError."""
        with self._path.open(encoding="utf-8", errors="replace") as file:
            file.readline(_LONGEST_LINE)
            number = 1
            while line := file.readline(_LONGEST_LINE):
                number += 1
                yield _chunk(_object(line, number), number)


def _object(line: str, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise TrafficError(f"line {number}: no JSON") from exc
    if not isinstance(value, dict):
        raise TrafficError(f"line {number}: no object")
    return value


def _chunk(line: dict[str, Any], number: int) -> Chunk:
    direction, text = line.get("dir"), line.get("hex")
    try:
        seconds, data = float(line.get("t", "")), bytes.fromhex(str(text))
    except (TypeError, ValueError, OverflowError) as exc:
        raise TrafficError(f"line {number}: no traffic") from exc
    if direction not in ("in", "out") or not math.isfinite(seconds) or not isinstance(text, str):
        raise TrafficError(f"line {number}: no traffic")
    return Chunk(seconds, direction, data)
