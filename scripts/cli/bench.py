"""`markcheck bench`: figures beside their targets, each with a baseline in the same run."""

from __future__ import annotations

import click

from scripts.bench.credential import IMPORT_TARGET, Row, bench_credential, bench_import
from scripts.bench.decision import TARGET, bench_decision
from scripts.bench.timing import machine
from scripts.cli.console import json_option, print_json


@click.group()
def bench() -> None:
    """Measure on this machine.

    \b
    Examples:
      markcheck bench decide
      markcheck bench decide --json
      markcheck bench credential
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


@bench.command("credential")
@json_option
def bench_credential_command(as_json: bool) -> None:
    """The text of a code to its proven credential, beside the bare verifications in it; and the cold import.

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
        print_json({"name": "cold import", **times, "target_ms": IMPORT_TARGET})
        return
    click.echo(machine())
    for row in rows:
        pair = row.pair
        beside = f"{row.baseline:16}{pair.baseline_us:8.1f} µs"
        click.echo(f"{row.name:22}{pair.ours_us:8.1f} µs   {beside}   ratio {pair.ratio:5.2f}{_against(row)}")
    added = started.ours_ms
    click.echo(
        f"{'cold import':22}{added:8.1f} ms CPU over {started.bare_ms:.1f} ms of bare Python   "
        f"target {IMPORT_TARGET:g}: {_met(added, IMPORT_TARGET)}"
    )


def _row_json(row: Row) -> dict[str, object]:
    times = {"ours_us": row.pair.ours_us, "baseline_us": row.pair.baseline_us, "ratio": row.pair.ratio}
    return {"name": row.name, "baseline": row.baseline, **times, "target": row.target}


def _against(row: Row) -> str:
    return "" if row.target is None else f"   target {row.target:g}: {_met(row.pair.ratio, row.target)}"


def _met(value: float, target: float) -> str:
    return "met" if value <= target else "missed"
