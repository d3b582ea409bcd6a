"""`markcheck bench`: figures beside their targets, each with a baseline in the same run."""

from __future__ import annotations

import click

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
