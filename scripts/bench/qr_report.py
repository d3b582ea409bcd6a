"""What a run of `bench qr` leaves: the table in the terminal, JSON, a page and two pictures."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from scripts.bench import figures
from scripts.bench.qr import ALL, FITTED, NATIVE, QrResult, Tally, targets
from scripts.bench.rivals import CARD, FULL, LIMIT_S
from scripts.bench.roadside import CONDITIONS, make, middle
from scripts.bench.timing import machine

_PACKAGES = ("zxing-cpp", "pyzbar", "opencv-python-headless", "numpy")
_SHORT = {FULL: "markcheck", CARD: "card only", "QRCodeDetector": "cv2", "QRCodeDetectorAruco": "cv2 Aruco"}
_COLOURS = ("#1b6e3c", "#6fbf8b", "#b07a1e", "#9a9a9a", "#5f6f8f", "#2f7fc1")


def machine_description() -> str:
    """Architecture, cores and versions: what explains the figures, and nothing that names the machine."""
    return f"{machine()}, {os.cpu_count()} cores, {', '.join(filter(None, map(_version, _PACKAGES)))}"


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return ""


# ------------------------------------------------------------------------------------------------------ tables

Row = tuple[str, ...]


def success_table(result: QrResult) -> list[Row]:
    """Per cent of pictures with a code that were read, by category and decoder; the head comes first."""
    rows = [("read, %", "pictures", *(_short(name) for name in result.names))]
    for category in (*result.categories, ALL):
        tallies = [result.tally(name, category) for name in result.names]
        rows.append((category, str(len(tallies[0].ms)), *(_percent(t) for t in tallies)))
    if not result.generated:
        fitted = [result.tally(name, ALL, FITTED) for name in result.names]
        rows.append((f"{ALL}, at {FITTED}", str(len(fitted[0].ms)), *(_percent(t) for t in fitted)))
    rows.append(("false decodes", "", *(str(result.tally(name).false) for name in result.names)))
    rows.append((f"stopped after {LIMIT_S:g} s", "", *(str(result.tally(name).stopped) for name in result.names)))
    return rows


def time_table(result: QrResult, categories: Iterable[str]) -> list[Row]:
    """Median and 95th percentile of CPU milliseconds, by category and decoder; the head comes first."""
    rows = [("ms, median / p95", "size", *(_short(name) for name in result.names))]
    sizes = (FITTED,) if result.generated else (NATIVE, FITTED)
    for category in categories:
        for size in sizes:
            rows.append((category, size, *(_ms(result.tally(name, category, size)) for name in result.names)))
    return rows


def video_lines(result: QrResult) -> list[str]:
    """The camera's path in words."""
    video = result.video
    if video is None:
        return []
    return [
        f"camera path, first call reads: {video.reading_ms:.2f} ms a frame, {video.ratio:.2f} of one zxing call "
        f"({video.zxing_ms:.2f} ms)",
        f"camera path, no code in view: {video.no_code_ms:.1f} ms a frame",
    ]


def _short(name: str) -> str:
    return _SHORT.get(name, name)


def _percent(tally: Tally) -> str:
    return "–" if tally.success is None else f"{tally.success:.1f}"


def _ms(tally: Tally) -> str:
    return f"{statistics.median(tally.ms):.3g} / {np.percentile(tally.ms, 95):.3g}"


def aligned(rows: Sequence[Row]) -> str:
    """A table for the terminal: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return "\n".join(lines)


def _markdown(rows: Sequence[Row]) -> str:
    ruled = [rows[0], ("---",) + ("---:",) * (len(rows[0]) - 1), *rows[1:]]
    return "".join(f"| {' | '.join(row)} |\n" for row in ruled)


# -------------------------------------------------------------------------------------------------- everything


def text_report(result: QrResult) -> str:
    """For the terminal."""
    missing = [f"not installed, left out: {', '.join(result.missing)}"] if result.missing else []
    parts = [
        machine_description(),
        aligned(success_table(result)),
        aligned(time_table(result, (ALL,))),
        "\n".join([*video_lines(result), *missing]),
        "\n".join(figures.aligned(targets(result))),
    ]
    return "\n\n".join(filter(None, parts))


def json_report(result: QrResult, settings: dict[str, Any]) -> dict[str, Any]:
    """For machines: every tally, by decoder, size and category."""
    sizes = (NATIVE,) if result.generated else (NATIVE, FITTED)
    return {
        **settings,
        "machine": machine_description(),
        "limit_s": LIMIT_S,
        "decoders": {
            name: {
                size: {c: result.tally(name, c, size).summary() for c in (*result.categories, ALL)} for size in sizes
            }
            for name in result.names
        },
        "not_installed": list(result.missing),
        "video": result.video._asdict() if result.video else None,
        "targets": [figures.to_json(target) for target in targets(result)],
    }


def write_page(result: QrResult, folder: Path, command: str, seed: int, now: datetime) -> list[Path]:
    """The page with its pictures in the folder; roadside frames and pictures of others have a page each."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "qr" if result.generated else "qr-set"
    written = [folder / f"{name}.md", folder / f"{name}.png"]
    written[0].write_text(_page(result, name, command, now), encoding="utf-8")
    plot(result).save(written[1], optimize=True)
    if result.generated:
        written.append(folder / "roadside.png")
        contact_sheet(seed, result.categories).save(written[-1], optimize=True)
    return written


_ROADSIDE = """Every condition goes from easy to unreadable in equal steps: 100 % is out of reach, and what counts is
the distance between the columns. The frames are drawn: surface, light, lens, sensor, codec.

![Three levels of every condition](roadside.png)
"""
_COLUMNS = f"""`markcheck` is the ladder of stages with every decoder, `card only` the same with zbar and OpenCV alone.
The other columns are one call of that library on the frame as it is. Each decoder runs in its own process on one
thread and is stopped after {LIMIT_S:g} s of CPU time; times are CPU milliseconds. A false decode is a text that is not
in the picture.
"""


def _page(result: QrResult, name: str, command: str, now: datetime) -> str:
    title = "Reading codes: roadside frames" if result.generated else "Reading codes: a set of pictures"
    parts = [
        f"# {title}\n",
        f"```\n{command}\n```\n",
        f"{now:%Y-%m-%d}, {machine_description()}.\n",
        _COLUMNS,
        *([_ROADSIDE] if result.generated else []),
        f"![Success by category and decoder]({name}.png)\n",
        _markdown(success_table(result)),
        _markdown(time_table(result, (ALL, *result.categories))),
        *(f"{line[0].upper()}{line[1:]}.\n" for line in video_lines(result)),
        "\n".join([*figures.table(targets(result)), ""]),
    ]
    return "\n".join(parts)


# ---------------------------------------------------------------------------------------------------- pictures

_BAR, _GAP, _LABELS, _WIDTH, _HEAD = 5, 8, 190, 560, 34  # pixels


def plot(result: QrResult) -> Image.Image:
    """Bars of success, a group for each category and a colour for each decoder."""
    categories = [ALL, *(c for c in result.categories if result.tally(result.names[0], c).with_code)]
    group = _BAR * len(result.names) + _GAP
    image = Image.new("RGB", (_LABELS + _WIDTH + 30, _HEAD + group * len(categories) + 24), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(12)
    _legend(draw, font, result.names)
    bottom = _HEAD + group * len(categories)
    for percent in range(0, 101, 20):
        x = _LABELS + _WIDTH * percent // 100
        draw.line((x, _HEAD - 4, x, bottom), "#dddddd")
        draw.text((x, bottom + 4), f"{percent} %", "#555555", font, anchor="ma")
    for number, category in enumerate(categories):
        top = _HEAD + number * group
        draw.text((_LABELS - 8, top + group // 2 - _GAP // 2), category, "black", font, anchor="rm")
        for place, name in enumerate(result.names):
            length = _WIDTH * (result.tally(name, category).success or 0) / 100
            y = top + place * _BAR
            draw.rectangle((_LABELS, y, _LABELS + length, y + _BAR - 2), _COLOURS[place % len(_COLOURS)])
    return image.quantize(32)


def _legend(draw: ImageDraw.ImageDraw, font: Any, names: Sequence[str]) -> None:
    x = 10.0
    for place, name in enumerate(names):
        draw.rectangle((x, 9, x + 10, 19), _COLOURS[place % len(_COLOURS)])
        draw.text((x + 15, 14), _short(name), "black", font, anchor="lm")
        x += 35 + draw.textlength(_short(name), font)


_TILE, _SHEET_LEVELS, _SHEET_COLUMNS = 100, (0.1, 0.35, 0.7), 3


def contact_sheet(seed: int, categories: Sequence[str]) -> Image.Image:
    """The code of every condition among the categories at three levels, in 16 greys: what the conditions look like."""
    conditions = [category for category in categories if category in CONDITIONS]
    rows = -(-len(conditions) // _SHEET_COLUMNS)
    wide = _TILE * len(_SHEET_LEVELS) + 8
    sheet = Image.new("L", (wide * _SHEET_COLUMNS, (_TILE + 18) * rows), 255)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for number, condition in enumerate(conditions):
        left, top = number % _SHEET_COLUMNS * wide, number // _SHEET_COLUMNS * (_TILE + 18)
        draw.text((left + 2, top + 2), condition, 0, font)
        for place, level in enumerate(_SHEET_LEVELS):
            sheet.paste(_tile(condition, level, seed + number), (left + place * _TILE, top + 17))
    return sheet.quantize(16)


def _tile(condition: str, level: float, seed: int) -> Image.Image:
    made = make(condition, level, seed)
    x, y = middle(made.shot)
    half = 180
    picture = Image.fromarray(made.gray).crop((round(x - half), round(y - half), round(x + half), round(y + half)))
    return picture.resize((_TILE, _TILE), Image.Resampling.LANCZOS)
