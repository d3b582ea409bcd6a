"""Every benchmark in one run, and one page on which each figure stands beside its target."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from math import inf, log10
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from hw.errors import DeviceNotFoundError
from scripts.bench import audit, credential, decision, lane, status_server
from scripts.bench.appliance import bench_appliance
from scripts.bench.cache import bench_cache
from scripts.bench.figures import Figure, Verdict, machine_line, table
from scripts.bench.picture_sets import RoadsideSet
from scripts.bench.qr import measure, targets
from scripts.bench.reader import bench_reader
from scripts.bench.roadside import CONDITIONS
from scripts.bench.video import measure_video

PAGE, PLOT = "README.md", "all.png"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is measured: the usual run takes some ten minutes, the quick one a tenth of it."""

    frames: int = 12  # drawn roadside frames of each condition
    vehicles: int = 1_000_000  # in the cache
    nights: int = 30
    seconds: float = 3.0  # of each measurement through a reader's port
    passing: int = 1_000  # cars through the simulated lanes
    handhelds: int = 200
    checks: int = 4  # batches of each handheld, each way
    rounds: int = 1_000  # of a credential


QUICK = Effort(frames=2, vehicles=20_000, nights=3, seconds=0.5, passing=120, handhelds=20, checks=2, rounds=200)

Part = Callable[[Effort, Path, Progress], Iterable[Figure]]


# --------------------------------------------------------------------------------------------------- the parts


def _decision(_: Effort, __: Path, ___: Progress) -> Iterator[Figure]:
    pair = decision.bench_decision()
    yield Figure(
        name="one decision / one bare ES256 verification", value=pair.ratio, at_most=decision.TARGET,
        measured=f"{pair.ratio:.2f}x ({pair.ours_us:.1f} µs)",
    )  # fmt: skip


def _credential(effort: Effort, _: Path, __: Progress) -> Iterator[Figure]:
    rows = list(credential.bench_credential(effort.rounds))
    for row in rows:
        pair = row.pair
        yield Figure(
            name=f"{row.name} / {row.baseline}", value=pair.ratio, at_most=row.target,
            measured=f"{pair.ratio:.2f}x ({', '.join(filter(None, (f'{pair.ours_us:.0f} µs', row.rate)))})",
        )  # fmt: skip
    added = credential.bench_import().ours_ms
    verifications = added * 1000 / rows[0].pair.baseline_us
    yield Figure(
        name="cold import of what a check needs / bare ES256", value=verifications,
        at_most=credential.IMPORT_TARGET_ES256, measured=f"{verifications:.0f}x ({added:.0f} ms CPU)",
    )  # fmt: skip


def _audit(_: Effort, folder: Path, __: Progress) -> Iterator[Figure]:
    for name, pair in audit.bench_audit(folder).items():
        yield Figure(
            name=f"{name} record / bare append with its sync", value=pair.ratio, at_most=audit.TARGET,
            measured=f"{pair.ratio:.2f}x ({pair.ours_us:.0f} µs)",
        )  # fmt: skip


def _qr(effort: Effort, _: Path, progress: Progress) -> Iterable[Figure]:
    result = measure(RoadsideSet(1, effort.frames), progress)
    with suppress(DeviceNotFoundError):  # no zxing-cpp: its row is not there
        result = replace(result, video=measure_video(1, progress))
    return targets(result)


def _cache(effort: Effort, folder: Path, progress: Progress) -> Iterable[Figure]:
    return bench_cache(effort.vehicles, effort.nights, folder / "cache", progress).figures


def _reader(effort: Effort, _: Path, progress: Progress) -> Iterable[Figure]:
    return bench_reader(effort.seconds, progress)


def _lane(effort: Effort, folder: Path, progress: Progress) -> Iterable[Figure]:
    protocol = "a0"
    driven = lane.build_lane(folder / "lane", lane.Traffic(vehicles=effort.passing), lane.FORMS[protocol])
    return lane.figures(driven, lane.simulate(driven, protocol, progress))


def _status_server(effort: Effort, folder: Path, progress: Progress) -> Iterator[Figure]:
    found = status_server.bench_status_server(effort.handhelds, effort.checks, folder / "centre", progress)
    for load in found.loads:
        yield Figure(
            name=f"{load.name}: errors", value=load.errors, at_most=0, unit="",
            measured=f"{load.errors} of {load.asked} batches; {load.late} after more than {status_server.TOTAL_S:g} s",
        )  # fmt: skip
        yield Figure(
            name=f"{load.name}: rate / bare edge", value=load.share,
            measured=f"{load.share:.2f}x ({load.a_second:.0f} answers/s, p95 {load.p95_ms:.0f} ms)",
        )  # fmt: skip


def _appliance(_: Effort, __: Path, progress: Progress) -> Iterable[Figure]:
    return bench_appliance(progress)


PARTS: dict[str, tuple[str, Part]] = {
    "decide": ("The decision", _decision),
    "credential": ("The credential", _credential),
    "audit": ("The audit log", _audit),
    "cache": ("The status cache", _cache),
    "reader": ("Tag readers", _reader),
    "lane": ("The checkpoint", _lane),
    "appliance": ("The handheld", _appliance),
    "status-server": ("The status server", _status_server),
    "qr": ("Reading codes", _qr),
}

Found = dict[str, list[Figure]]


def bench_everything(parts: Sequence[str], effort: Effort, progress: Progress) -> Iterator[tuple[str, list[Figure]]]:
    """The figures of each part as soon as they are there, with its name."""
    for name in parts:
        with tempfile.TemporaryDirectory(prefix="markcheck-bench-") as folder:
            work = Path(folder)
            for below in ("cache", "lane", "centre"):
                (work / below).mkdir()
            yield name, list(PARTS[name][1](effort, work, progress))


# ------------------------------------------------------------------------------------------------ page and plot

_LOOK_UP = (
    "Plate to record: generation in use, keyed hash, hot list, changes, base, record, all in Python beside one query "
    "in C. A hash that is begun once is in; what is left is 0.02 ms of a check."
)
# What is known of a figure that may be missed. It stands on the page only when it was.
_FEW_FRAMES = (
    "In this run one frame is 8.3 points, so this is a tie; with 32 frames for each condition markcheck was ahead in "
    "all of them ([qr.md](qr.md))."
)
REASONS: dict[str, str] = {
    **{f"{condition}: ahead of the best single": _FEW_FRAMES for condition in CONDITIONS},
    "cold import of what a check needs / bare ES256": (
        "Most of it makes frozen dataclasses with slots (`python -X importtime`); libraries for the network, TUF and "
        "pictures are not loaded by it. It runs once a day, behind the first picture on the panel."
    ),
    "sealed record / bare append with its sync": (
        "The disk of this machine takes a forced write in 0.1 ms, so that sealing stands beside almost nothing; on a "
        "disk of an earlier run it was 1.04 to 1.32 x. A card takes milliseconds."
    ),
    "whole look-up p50 / bare p50": _LOOK_UP,
    "whole look-up p99 / bare p99": _LOOK_UP,
    "video: first call reads / one zxing call": (
        "Beside the one call stand taking the frame's grey and the look at what was read. Runs gave 1.35 to 1.67 x; it "
        "is some 4 ms of a frame's 33."
    ),
}


def write_page(found: Found, folder: Path, command: str, now: datetime) -> list[Path]:
    """The page with every figure, and its plot; their paths. OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    page, picture = folder / PAGE, folder / PLOT
    plot(found).save(picture, optimize=True)
    page.write_text("\n".join(_page(found, command, now)), encoding="utf-8")
    return [page, picture]


def _page(found: Found, command: str, now: datetime) -> Iterator[str]:
    every = [figure for figures in found.values() for figure in figures]
    missed = [figure for figure in every if figure.verdict is Verdict.MISSED]
    met = sum(figure.verdict is Verdict.MET for figure in every)
    yield f"# Figures beside their targets\n\n```\n{command}\n```\n\n{now:%Y-%m-%d}, {machine_line()}.\n"
    yield f"{met} targets met, {len(missed)} missed. No Raspberry Pi was measured. {_ABOUT}"
    yield f"![Every figure as a share of its target]({PLOT})\n"
    if missed:
        yield "## Missed\n"
        for figure in missed:
            yield f"- {figure.name}: {figure.measured}, wanted {figure.target}. {REASONS.get(figure.name, '')}".rstrip()
        yield ""
    for name, figures in found.items():
        yield f"## {PARTS[name][0]}\n\n`markcheck bench all --only {name}`\n"
        yield from table(figures)
        yield ""


_ABOUT = """Wherever it is possible, a figure is a ratio to a baseline
that was measured in the same run, in turn with it: a machine that is slower, or busy, is slower for both. How each
figure is made stands in the help of its command and on the pages beside this one.
"""

_ROW, _GROUP, _NAMES, _WIDTH, _HEAD = 16, 22, 400, 420, 30  # pixels
_DECADES = (0.01, 0.1, 1.0, 10.0)
_COLOURS = {Verdict.MET: "#1b6e3c", Verdict.MISSED: "#b3401e"}


def plot(found: Found) -> Image.Image:
    """A bar for each figure with a target: the share of it that was used, on a logarithmic scale."""
    held = {name: [f for f in figures if f.verdict in _COLOURS] for name, figures in found.items()}
    height = _HEAD + sum(_GROUP + _ROW * len(figures) for figures in held.values()) + 10
    image = Image.new("RGB", (_NAMES + _WIDTH + 20, height), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(12)
    for share in _DECADES:
        x = _place(share)
        draw.line((x, _HEAD - 6, x, height), "#333333" if share == 1 else "#dddddd")
        draw.text((x, _HEAD - 8), "target" if share == 1 else f"{share:g}", "#555555", font, anchor="ms")
    y = _HEAD
    for name, figures in held.items():
        draw.text((8, y + _GROUP - 6), PARTS[name][0], "black", font, anchor="ls")
        y += _GROUP
        for figure in figures:
            draw.text((_NAMES - 8, y + _ROW // 2), _short(figure.name), "black", font, anchor="rm")
            draw.rectangle(
                (_place(_DECADES[0]), y + 3, _place(share_of(figure)), y + _ROW - 3), _COLOURS[figure.verdict]
            )
            y += _ROW
    return image.quantize(32)


def share_of(figure: Figure) -> float:
    """How much of what its target allows a figure takes: up to 1 where it is met, infinite where nothing is allowed."""
    value = figure.value or 0.0
    used, allowed = (figure.at_least or 0.0, value) if figure.at_most is None else (value, figure.at_most)
    if allowed <= 0:
        return 0.0 if used <= allowed else inf
    return used / allowed


def _place(share: float) -> float:
    """The x of a share of the target, within the plot."""
    low, high = log10(_DECADES[0]), log10(_DECADES[-1])
    at = min(max(log10(share) if share > 0 else low, low), high)
    return _NAMES + (_WIDTH - 10) * (at - low) / (high - low)


def _short(name: str) -> str:
    return name if len(name) <= 62 else f"{name[:60]}…"
