"""`markcheck bench`: figures beside their targets, each with a baseline in the same run."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click

from scripts.bench import appliance, cache_figures, everything, status_server
from scripts.bench.audit import TARGET as AUDIT_TARGET
from scripts.bench.audit import bench_audit
from scripts.bench.cache import DISK_BYTES, LARGEST, SMALLEST, bench_cache
from scripts.bench.credential import IMPORT_TARGET, IMPORT_TARGET_ES256, Row, bench_credential, bench_import
from scripts.bench.decision import TARGET, bench_decision
from scripts.bench.figures import Verdict, aligned, to_json
from scripts.bench.picture_sets import FolderSet, PictureSetError, RoadsideSet
from scripts.bench.qr import measure
from scripts.bench.qr_report import json_report, text_report, write_page
from scripts.bench.reader import bench_reader
from scripts.bench.rivals import ZXING
from scripts.bench.timing import machine
from scripts.bench.video import measure_video
from scripts.cli.console import json_option, print_json, progress_bar
from verifier.clock import system_clock


@click.group()
def bench() -> None:
    """Measure on this machine.

    \b
    Examples:
      markcheck bench decide
      markcheck bench decide --json
      markcheck bench audit
      markcheck bench credential
      markcheck bench qr --per-condition 4
      markcheck bench cache
      markcheck bench status-server
      markcheck bench all --quick
    """


@bench.command("decide")
@json_option
def bench_decide(as_json: bool) -> None:
    """One decision, beside one bare ES256 verification in the same run.

    \b
    Examples:
      markcheck bench decide
    """
    found = bench_decision()
    if as_json:
        print_json({"decide_us": found.ours_us, "es256_us": found.baseline_us, "ratio": found.ratio, "target": TARGET})
        return
    click.echo(machine())
    click.echo(f"decide        {found.ours_us:6.1f} µs median")
    click.echo(f"bare ES256    {found.baseline_us:6.1f} µs median")
    click.echo(
        f"ratio         {found.ratio:6.2f}      target {TARGET:g}: {'met' if found.ratio <= TARGET else 'missed'}"
    )


@bench.command("audit")
@click.option(
    "--folder", type=click.Path(exists=True, file_okay=False, path_type=Path), help="On the disk to be measured."
)
@json_option
def bench_audit_command(folder: Path | None, as_json: bool) -> None:
    """A record into the audit log, sealed and plain, beside a bare append of as many bytes with its sync to the disk.

    \b
    Examples:
      markcheck bench audit
      markcheck bench audit --folder /var/lib --json
    """
    found = bench_audit(folder)
    if not as_json:
        click.echo(machine())
    for name, pair in found.items():
        if as_json:
            times = {"ours_us": pair.ours_us, "bare_us": pair.baseline_us, "ratio": pair.ratio}
            print_json({"name": f"{name} record", **times, "target": AUDIT_TARGET})
        else:
            bare = f"bare append {pair.baseline_us:8.1f} µs"
            told = _met(pair.ratio, AUDIT_TARGET)
            click.echo(
                f"{name:7}{pair.ours_us:9.1f} µs   {bare}   ratio {pair.ratio:5.2f}   target {AUDIT_TARGET:g}: {told}"
            )


@bench.command("credential")
@json_option
def bench_credential_command(as_json: bool) -> None:
    """A code's text to its proven credential, and the way back, each beside its bare signatures; and the cold import.

    \b
    Examples:
      markcheck bench credential
      markcheck bench credential --json
    """
    rows, started = list(bench_credential()), bench_import()
    if as_json:
        for row in rows:
            print_json(_row_json(row))
        times = {"bare_ms": started.bare_ms, "loaded_ms": started.loaded_ms, "import_ms": started.ours_ms}
        targets = {"target_ms": IMPORT_TARGET, "target_es256": IMPORT_TARGET_ES256}
        print_json(
            {"name": "cold import", **times, "es256": started.ours_ms * 1000 / rows[0].pair.baseline_us, **targets}
        )
        return
    click.echo(machine())
    for row in rows:
        pair = row.pair
        beside = f"{row.baseline:21}{pair.baseline_us:8.1f} µs"
        click.echo(f"{row.name:22}{pair.ours_us:8.1f} µs   {beside}   ratio {pair.ratio:5.2f}{_against(row)}")
        if row.issues:
            click.echo(f"{'':22}{row.rate}")
    added, verifications = started.ours_ms, started.ours_ms * 1000 / rows[0].pair.baseline_us
    click.echo(
        f"{'cold import':22}{added:8.1f} ms CPU over {started.bare_ms:.1f} ms of bare Python   "
        f"target {IMPORT_TARGET:g}: {_met(added, IMPORT_TARGET)}"
    )
    click.echo(
        f"{'':22}{verifications:8.0f} bare ES256        "
        f"target {IMPORT_TARGET_ES256:.0f}: {_met(verifications, IMPORT_TARGET_ES256)}"
    )


def _row_json(row: Row) -> dict[str, object]:
    times = {"ours_us": row.pair.ours_us, "baseline_us": row.pair.baseline_us, "ratio": row.pair.ratio}
    rate = {"a_second": row.a_second, "fleet_days": row.fleet_days} if row.issues else {}
    return {"name": row.name, "baseline": row.baseline, **times, "target": row.target, **rate}


def _against(row: Row) -> str:
    return "" if row.target is None else f"   target {row.target:g}: {_met(row.pair.ratio, row.target)}"


def _met(value: float, target: float) -> str:
    return "met" if value <= target else "missed"


@bench.command("qr")
@click.option("--set", "folder", type=click.Path(path_type=Path), help="Folder with pictures and a manifest.csv.")
@click.option(
    "--seed", type=click.IntRange(0, 2**31), default=1, show_default=True, help="Seed of the generated frames."
)
@click.option(
    "--per-condition", type=click.IntRange(1, 1000), default=12, show_default=True, help="Frames of each condition."
)
@click.option("--write", "target", type=click.Path(file_okay=False, path_type=Path), help="Folder for page and plot.")
@json_option
def bench_qr(folder: Path | None, seed: int, per_condition: int, target: Path | None, as_json: bool) -> None:
    """Reading codes: our stages beside each decoder alone, on generated roadside frames or on your own pictures.

    The manifest has the columns file, all_expected_json (a list of texts) or expected, and category if you like.
    The times of the camera's path are measured on generated frames only.

    \b
    Examples:
      markcheck bench qr                                   some minutes
      markcheck bench qr --per-condition 4 --json          a quick look, for machines
      markcheck bench qr --set photographs                 photographs/manifest.csv and what it lists
      markcheck bench qr --write docs/benchmarks           the page and the plot as well
    """
    try:
        pictures = FolderSet(folder) if folder else RoadsideSet(seed, per_condition)
    except PictureSetError as exc:
        raise click.UsageError(str(exc)) from exc
    with progress_bar() as progress:
        result = measure(pictures, progress)
        if not folder and ZXING not in result.missing:
            result = replace(result, video=measure_video(seed, progress))
    command = f"markcheck bench qr {'--set DIR' if folder else f'--seed {seed} --per-condition {per_condition}'}"
    if as_json:
        print_json(json_report(result, {"set": "folder" if folder else "roadside", "command": command}))
    else:
        click.echo(text_report(result))
    if target:
        for path in write_page(result, target, f"{command} --write DIR", seed, system_clock()):
            click.echo(path, err=True)


def _scale(_: click.Context, __: click.Parameter, value: str) -> int:
    try:
        scale = int(float(value))
    except (ValueError, OverflowError) as exc:
        raise click.BadParameter("not a number: an example is 1e6") from exc
    if not SMALLEST <= scale <= LARGEST:
        raise click.BadParameter(f"not between {SMALLEST} and {LARGEST}")
    return scale


@bench.command("cache")
@click.option(
    "--scale", callback=_scale, default="1e6", show_default=True, help="Number of vehicles; 42250000 is a release run."
)
@click.option("--nights", type=click.IntRange(1, 89), default=30, show_default=True, help="Missed nights.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep all files below this new folder.  [default: a temporary one]",
)
@click.option("--write", "target", type=click.Path(file_okay=False, path_type=Path), help="Folder for the page.")
@json_option
def bench_cache_command(scale: int, nights: int, folder: Path | None, target: Path | None, as_json: bool) -> None:
    """The status cache: size, look-ups, nights of changes and the real sync, beside their targets.

    Vehicles are made up from a fixed seed. A look-up that answers otherwise than the register ends the run.

    \b
    Examples:
      markcheck bench cache                                         about a minute
      markcheck bench cache --scale 20000 --nights 3 --json         a quick look, for machines
      markcheck bench cache --scale 42250000 --write docs/benchmarks
    """
    with _bench_folder(folder, scale) as work, progress_bar() as progress:
        result = bench_cache(scale, nights, work, progress)
    if as_json:
        for line in cache_figures.json_report(result):
            print_json(line)
    else:
        click.echo(cache_figures.text_report(result))
    if target:
        command = f"markcheck bench cache --scale {scale} --nights {nights} --write DIR"
        click.echo(cache_figures.write_page(result, target, command, system_clock()), err=True)


@bench.command("status-server")
@click.option("--handhelds", type=click.IntRange(1, 500), default=200, show_default=True, help="Asking at once.")
@click.option("--checks", type=click.IntRange(1, 1000), default=4, show_default=True, help="Batches of each, each way.")
@click.option("--write", "target", type=click.Path(file_okay=False, path_type=Path), help="Folder for the page.")
@json_option
def bench_status_server_command(handhelds: int, checks: int, target: Path | None, as_json: bool) -> None:
    """The status server under many handhelds: answers a second, times and errors, beside the bare edge.

    \b
    Examples:
      markcheck bench status-server                                    about two minutes
      markcheck bench status-server --handhelds 10 --checks 2 --json   a quick look, for machines
    """
    with tempfile.TemporaryDirectory(prefix="markcheck-bench-") as work, progress_bar() as progress:
        result = status_server.bench_status_server(handhelds, checks, Path(work), progress)
    if as_json:
        for line in status_server.json_report(result):
            print_json(line)
    else:
        click.echo(status_server.text_report(result))
    if target:
        command = f"markcheck bench status-server --handhelds {handhelds} --checks {checks} --write DIR"
        click.echo(status_server.write_page(result, target, command, system_clock()), err=True)


@contextmanager
def _bench_folder(folder: Path | None, scale: int) -> Iterator[Path]:
    """A folder for the run's files: the given one, which stays, or one that is removed. UsageError."""
    if folder is not None:
        if folder.exists():
            raise click.UsageError("--folder: exists already")
        folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="markcheck-bench-") as temporary:
        work = folder or Path(temporary)
        needed = int(scale * DISK_BYTES) + (64 << 20)
        if shutil.disk_usage(work).free < needed:
            raise click.UsageError(f"not enough room: {needed >> 20} MiB needed; --folder takes another place")
        yield work


@bench.command("reader")
@click.option(
    "--seconds", type=click.FloatRange(0.2, 60), default=3.0, show_default=True, help="Of each run through a port."
)
@json_option
def bench_reader_command(seconds: float, as_json: bool) -> int:
    """Tag readers: speed beside the line's own rate, wrong reads, recovery, stopping and coming back.

    Emulated readers behind pseudo-terminals; exit status 1 when a target is missed.

    \b
    Examples:
      markcheck bench reader                        about a minute
      markcheck bench reader --seconds 1 --json
    """
    with progress_bar() as progress:
        figures = bench_reader(seconds, progress)
    if as_json:
        for figure in figures:
            print_json(to_json(figure))
    else:
        click.echo(machine())
        for figure in figures:
            click.echo(f"{figure.name:52}{figure.target:24}{figure.measured:44}{figure.verdict}")
    return 1 if any(figure.verdict is Verdict.MISSED for figure in figures) else 0


@bench.command("appliance")
@click.option("--write", "target", type=click.Path(file_okay=False, path_type=Path), help="Folder for the page.")
@json_option
def bench_appliance_command(target: Path | None, as_json: bool) -> int:
    """The handheld's program: first pixels, verdicts, keys, a frozen camera, memory, beside their targets.

    \b
    Examples:
      markcheck bench appliance                            about two minutes
      markcheck bench appliance --json
      markcheck bench appliance --write docs/benchmarks
    """
    with progress_bar() as progress:
        figures = appliance.bench_appliance(progress)
    if as_json:
        for figure in figures:
            print_json(to_json(figure))
    else:
        click.echo(appliance.text_report(figures))
    if target:
        command = "markcheck bench appliance --write DIR"
        click.echo(appliance.write_page(figures, target, command, system_clock()), err=True)
    return 1 if any(figure.verdict is Verdict.MISSED for figure in figures) else 0


def _parts(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...]:
    if value is None:
        return tuple(everything.PARTS)
    names = tuple(value.split(","))
    for name in names:
        if name not in everything.PARTS:
            raise click.BadParameter(f"{name!r} is none of {', '.join(everything.PARTS)}")
    return names


@bench.command("all")
@click.option("--only", "parts", callback=_parts, help="Some parts alone, with commas between them.")
@click.option("--quick", is_flag=True, help="Little of everything: to see that it runs.")
@click.option("--write", "target", type=click.Path(file_okay=False, path_type=Path), help="Folder for page and plot.")
@json_option
def bench_all_command(parts: tuple[str, ...], quick: bool, target: Path | None, as_json: bool) -> int:
    """Every figure beside its target, and with --write one page for all of them.

    Each part is printed when it is measured, and the page is written anew after each: a run that is broken off keeps
    what it has. Exit status 1 when a target is missed.

    \b
    Examples:
      markcheck bench all --quick                     some minutes
      markcheck bench all --only decide,audit
      markcheck bench all --write docs/benchmarks     about ten minutes, better on a machine that does nothing else
    """
    found: everything.Found = {}
    only = "" if parts == tuple(everything.PARTS) else f" --only {','.join(parts)}"
    command = f"markcheck bench all{' --quick' if quick else ''}{only} --write DIR"
    with progress_bar() as progress:
        for name, figures in everything.bench_everything(parts, _EFFORT[quick], progress):
            found[name] = figures
            if as_json:
                for figure in figures:
                    print_json({"part": name, **to_json(figure)})
            else:
                click.echo("\n".join([f"== {everything.PARTS[name][0]}", *aligned(figures), ""]))
            if target:
                everything.write_page(found, target, command, system_clock())
    return 1 if any(f.verdict is Verdict.MISSED for figures in found.values() for f in figures) else 0


_EFFORT = {False: everything.Effort(), True: everything.QUICK}
