"""Figures of the status cache beside their targets: as text, for machines, as a page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from scripts.bench.figures import Figure, aligned, machine_line, table, to_json

QUICK = 1_000_000  # vehicles of the usual run, which has the page without a number


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheResult:
    """One run of the benchmark."""

    vehicles: int
    nights: int
    nightly: int  # changed rows a night
    figures: tuple[Figure, ...]


def text_report(result: CacheResult) -> str:
    """The figures for people."""
    return "\n".join([machine_line(), _run_line(result), "", *aligned(result.figures)])


def json_report(result: CacheResult) -> list[dict[str, object]]:
    """The figures for machines: first the run, then one object for each figure."""
    run: dict[str, object] = {"vehicles": result.vehicles, "nights": result.nights, "nightly_rows": result.nightly}
    return [run, *map(to_json, result.figures)]


def write_page(result: CacheResult, folder: Path, command: str, now: datetime) -> Path:
    """Write the page with all figures, of its own for each scale; its path. OSError."""
    path = folder / ("cache.md" if result.vehicles == QUICK else f"cache-{result.vehicles}.md")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(_page(result, command, now), encoding="utf-8")
    return path


def _run_line(result: CacheResult) -> str:
    return f"{result.vehicles:,} vehicles, {result.nights} nights of {result.nightly:,} changed rows"


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
            *table(result.figures),
            "",
            *(f"- {figure.name}: {figure.note}." for figure in result.figures if figure.note),
            "",
        ]
    )
