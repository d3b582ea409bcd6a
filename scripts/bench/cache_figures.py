"""Figures of the status cache beside their targets: as text, for machines, as a page."""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from scripts.bench.timing import machine

QUICK = 1_000_000  # vehicles of the usual run, which has the page without a number
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


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheResult:
    """One run of the benchmark."""

    vehicles: int
    nights: int
    nightly: int  # changed rows a night
    figures: tuple[Figure, ...]


def text_report(result: CacheResult) -> str:
    """The figures for people."""
    rows = [("", "target", "measured", ""), *(_row(figure) for figure in result.figures)]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [machine_line(), _run_line(result), ""]
    for figure, row in zip((None, *result.figures), rows, strict=True):
        head = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=False))
        lines.append(f"{head}  {row[3]}".rstrip())
        if figure is not None and figure.note:
            lines.append(f"    {figure.note}")
    return "\n".join(lines)


def json_report(result: CacheResult) -> list[dict[str, object]]:
    """The figures for machines: first the run, then one object for each figure."""
    run: dict[str, object] = {"vehicles": result.vehicles, "nights": result.nights, "nightly_rows": result.nightly}
    return [run, *(_json(figure) for figure in result.figures)]


def write_page(result: CacheResult, folder: Path, command: str, now: datetime) -> Path:
    """Write the page with all figures, of its own for each scale; its path. OSError."""
    path = folder / ("cache.md" if result.vehicles == QUICK else f"cache-{result.vehicles}.md")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(_page(result, command, now), encoding="utf-8")
    return path


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


def _run_line(result: CacheResult) -> str:
    return f"{result.vehicles:,} vehicles, {result.nights} nights of {result.nightly:,} changed rows"


def _row(figure: Figure) -> tuple[str, str, str, str]:
    return figure.name, figure.target, figure.measured, figure.verdict.value


def _json(figure: Figure) -> dict[str, object]:
    return {
        "name": figure.name, "value": figure.value, "unit": figure.unit, "at_most": figure.at_most,
        "at_least": figure.at_least, "verdict": figure.verdict.value, "measured": figure.measured,
        "note": figure.note,
    }  # fmt: skip


_ABOUT = """Every ratio has its baseline in the same run, call by call or stretch by stretch in turn. `bare` is a point
query by Python's sqlite3 on a plain table `(k INTEGER PRIMARY KEY, v INTEGER)` with the same rows, opened in the same
way; each look-up is timed three times and its quickest counts. All vehicles are made up, with real plate syntax and
real keyed hashes. Every look-up that is timed is also held against the register that the vehicles come from, and the
first wrong answer ends the run. What is missed is printed as missed.
"""


def _page(result: CacheResult, command: str, now: datetime) -> str:
    return "\n".join(
        [
            "# The status cache\n",
            f"```\n{command}\n```\n",
            f"{now:%Y-%m-%d}, {machine_line()}. {_run_line(result)}.\n",
            _ABOUT,
            *_table(result.figures),
            "",
            *(f"- {figure.name}: {figure.note}." for figure in result.figures if figure.note),
            "",
        ]
    )


def _table(figures: Sequence[Figure]) -> list[str]:
    rows = [("quantity", "target", "measured", ""), *(_row(figure) for figure in figures)]
    lines = ["| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in rows]
    return [lines[0], "|---|---|---|---|", *lines[1:]]
