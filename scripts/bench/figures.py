"""A measured figure beside its target, and how figures are told: in the terminal, to machines, on a page."""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from scripts.bench.timing import machine

_CPU = Path("/proc/cpuinfo")


class Verdict(StrEnum):
    """How a figure stands to its target."""

    MET = "met"
    MISSED = "missed"
    OTHER_SCALE = "not at this scale"  # the target is for a full-size fleet
    ELSEWHERE = "not measured here"
    NONE = "-"  # a figure without a target


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One row: what was measured, in words and as the number that is held against the limit."""

    name: str
    measured: str
    value: float | None = None
    at_most: float | None = None
    at_least: float | None = None
    unit: str = "x"
    comparable: bool = True  # whether the target is meant for a run of this scale
    note: str = ""  # how it was measured, or why it was not

    @property
    def target(self) -> str:
        """The limit in words."""
        if self.at_most is not None:
            return f"<= {self.at_most:g} {self.unit}".rstrip()
        return "-" if self.at_least is None else f">= {self.at_least:g} {self.unit}".rstrip()

    @property
    def verdict(self) -> Verdict:
        """Whether the target is met."""
        if self.at_most is None and self.at_least is None:
            return Verdict.NONE if self.value is not None else Verdict.ELSEWHERE
        if self.value is None:
            return Verdict.ELSEWHERE
        if not self.comparable:
            return Verdict.OTHER_SCALE
        low = self.at_least is None or self.value >= self.at_least
        return Verdict.MET if low and (self.at_most is None or self.value <= self.at_most) else Verdict.MISSED


def aligned(figures: Sequence[Figure]) -> list[str]:
    """A line for each figure for people, with its note below it; the head comes first."""
    rows = [("", "target", "measured", ""), *map(_row, figures)]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = []
    for figure, row in zip((None, *figures), rows, strict=True):
        head = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=False))
        lines.append(f"{head}  {row[3]}".rstrip())
        if figure is not None and figure.note:
            lines.append(f"    {figure.note}")
    return lines


def table(figures: Sequence[Figure]) -> list[str]:
    """The lines of a table in Markdown."""
    rows = [("quantity", "target", "measured", ""), *map(_row, figures)]
    lines = ["| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in rows]
    return [lines[0], "|---|---|---|---|", *lines[1:]]


def to_json(figure: Figure) -> dict[str, object]:
    """One object for machines."""
    return {
        "name": figure.name, "value": figure.value, "unit": figure.unit, "at_most": figure.at_most,
        "at_least": figure.at_least, "target": figure.target, "verdict": figure.verdict.value,
        "measured": figure.measured, "note": figure.note,
    }  # fmt: skip


def _row(figure: Figure) -> tuple[str, str, str, str]:
    return figure.name, figure.target, figure.measured, figure.verdict.value


def machine_line() -> str:
    """Architecture, processor, cores and versions: what explains the figures, and nothing that names the machine."""
    versions = f"SQLite {sqlite3.sqlite_version}, zlib {zlib.ZLIB_RUNTIME_VERSION}"
    return f"{machine()}, {_processor()}, {os.cpu_count()} cores, {versions}"


def _processor() -> str:
    try:
        lines = _CPU.read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown processor"
    names = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model")))
    return next(names, "unknown processor")
