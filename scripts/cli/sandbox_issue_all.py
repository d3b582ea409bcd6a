"""`markcheck sandbox issue-all`: a credential for every valid vehicle, in shards that are ready to be pushed."""

from __future__ import annotations

import os
from datetime import datetime
from functools import partial
from pathlib import Path

import click

from scripts.cli.console import json_option, print_json, progress_bar
from scripts.cli.sandbox_options import FOLDER
from scripts.sandbox.issue_all import PER_SHARD, Report, daily, issue_all
from scripts.sandbox.issue_sources import FromAuthority, FromCountry, Source
from scripts.sandbox.national import MAX_SCALE
from scripts.sandbox.national_churn import OF_FLEET
from verifier.clock import system_clock


@click.command("issue-all")
@FOLDER
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of the shards.")
@click.option("--scale", type=click.IntRange(1, MAX_SCALE), help="The generated country with so many vehicles instead.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the generated country.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first so many vehicles.")
@click.option(
    "--per-shard", type=click.IntRange(min=1), default=PER_SHARD, show_default=True, help="Vehicles of a shard."
)
@click.option("--processes", type=click.IntRange(1, 256), help="Processes that sign.  [default: one for each core]")
@json_option
def issue_everyone(
    folder: Path,
    out: Path,
    scale: int | None,
    seed: int,
    limit: int | None,
    per_shard: int,
    processes: int | None,
    as_json: bool,
) -> None:
    """Issue a credential to every valid vehicle, in shards for the push, and tell the rate.

    \b
    Examples:
      markcheck sandbox issue-all --out shards
      markcheck sandbox issue-all --out country --scale 42250000
      markcheck sandbox issue-all --out try --scale 42250000 --limit 20000 --json

    A vehicle is valid when it is registered and its inspection has not lapsed; one whose credential was revoked gets
    none. Beside the shards stand manifest.json (number, first and last serial, length, SHA-256 of each) and
    entries.cbor, the trust list. The same command goes on after an interruption. The generated country has keys of
    its own, in private/ of the folder; its vehicles are made as they are needed, so memory stays small.
    """
    source = partial(_source, folder, out, scale, seed)
    count = processes or len(os.sched_getaffinity(0))
    with progress_bar() as progress:
        report = issue_all(
            source, out, clock=system_clock, per_shard=per_shard, processes=count, limit=limit, progress=progress
        )
    if as_json:
        print_json(_figures(report))
    else:
        _tell(report)


def _source(folder: Path, out: Path, scale: int | None, seed: int, issued_at: datetime) -> Source:
    if scale is None:
        return FromAuthority(folder, issued_at)
    return FromCountry(scale, seed, issued_at, out)


def _figures(report: Report) -> dict[str, object]:
    return {
        "vehicles": sum(shard.vehicles for shard in report.whole), "credentials": report.credentials,
        "shards": len(report.whole), "shards_written": len(report.written),
        "bytes": sum(shard.length for shard in report.whole), "seconds": round(report.seconds, 3),
        "processes": report.processes, "per_core_a_second": round(report.per_core, 1),
        "country": OF_FLEET, "country_core_hours": report.core_hours(OF_FLEET),
        "day": daily(), "day_core_hours": report.core_hours(daily()),
    }  # fmt: skip


def _tell(report: Report) -> None:
    vehicles = sum(shard.vehicles for shard in report.whole)
    click.echo(
        f"{report.credentials:,} credentials for {vehicles:,} vehicles in {len(report.whole):,} shards, "
        f"{len(report.written):,} of them now, in {report.seconds:.1f} s by {report.processes} processes"
    )
    country, day = report.core_hours(OF_FLEET), report.core_hours(daily())
    if country is None or day is None:
        return
    cores = report.processes
    click.echo(f"{report.per_core:,.0f} a second on one core")
    click.echo(f"{OF_FLEET:,}: {country:.1f} hours on one core, {country / cores:.1f} on {cores}")
    click.echo(
        f"{daily():,} that fall due a day: {day * 60:.0f} minutes on one core, {day * 60 / cores:.0f} on {cores}"
    )
