"""The results of a run: a line of JSON for the machine and for each promise, and a table for people."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import ssl
import subprocess
import tempfile
import unicodedata
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.conftest import ROOT


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How the proof of one promise went. `seconds` are those it took; `log` is the end of what a failed one said."""

    number: int
    title: str
    result: str  # PASS, FAIL, SKIP, or STOPPED when somebody interrupted it
    reason: str
    seed: int
    seconds: float
    counts: dict[str, int]
    notes: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)


class Results:
    """Writes each result as soon as there is one: whatever ends the run, the file holds what stands."""

    def __init__(self, path: Path | None, began: datetime, command: str, seed: int) -> None:
        self.path = path or Path(tempfile.gettempdir()) / f"torture-{began:%Y%m%d-%H%M%S}.jsonl"
        self._file = self.path.open("w", encoding="utf-8")
        self._all: list[Result] = []
        self._interrupted = False
        self._write({"kind": "run", "began": began.isoformat(timespec="seconds"), "command": command, "seed": seed,
                     "machine": machine(), "code": code()})  # fmt: skip

    def __enter__(self) -> Results:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, result: Result) -> None:
        """One more promise."""
        self._all.append(result)
        self._write({"kind": "promise", **asdict(result)})
        if result.result == "STOPPED":
            raise KeyboardInterrupt

    def interrupted(self) -> None:
        """Somebody did not want to wait."""
        self._interrupted = True
        self._write({"kind": "interrupted"})

    @property
    def status(self) -> int:
        """The exit status."""
        if any(result.result == "FAIL" for result in self._all):
            return 1
        return 130 if self._interrupted else 0

    def table(self) -> str:
        """A line for each promise, and why where there is something to say."""
        lines = []
        for one in self._all:
            counts = ", ".join(f"{count:,} {what}" for what, count in one.counts.items()) or "-"
            lines.append(f"{one.number:>2}  {one.result:<7} {one.seconds:>7.1f} s  {counts}")
            lines += [f"        {text}" for text in (one.reason, *one.notes) if text]
        return "\n".join([*lines, f"results: {self.path}"])

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._file.flush()


def machine() -> dict[str, Any]:
    """What the figures were made on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": os.cpu_count(), "memory_gb": round(memory / (1 << 30), 1), "machine": platform.machine(),
        "processor": _processor(), "kernel": platform.release(), "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version, "openssl": ssl.OPENSSL_VERSION, "load": round(os.getloadavg()[0], 1),
        "niceness": os.nice(0),
    }  # fmt: skip


def _processor() -> str:
    """Its name, as the kernel tells it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    told = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return plain(told.get("model name") or told.get("model") or "unknown")


def code() -> str:
    """Which code was tried."""
    words = ["git", "describe", "--always", "--dirty"]
    run = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    return run.stdout.strip() or "unknown"


def plain(text: str, most: int = 300) -> str:
    """One line for a table, whatever it was made from."""
    line = " ".join(text.split())
    return "".join(char if unicodedata.category(char)[0] != "C" else "?" for char in line)[:most]
