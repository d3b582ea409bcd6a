"""`markcheck sync` and `markcheck cache`: fetch the signed distribution, and say what is held."""

from __future__ import annotations

import os
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from firmware.build import open_store
from firmware.config import REGION, Home
from scripts.cli.console import home_option, json_option, print_json, problem, progress_bar
from verifier.cache.keys import load_epoch_key
from verifier.clock import system_clock
from verifier.errors import CacheMissingError
from verifier.net import HttpFetcher
from verifier.repository import check_root
from verifier.sync import SyncClient, SyncReport, sync_history
from verifier.trust import load_trust_list


@click.command()
@click.option("--from", "url", required=True, metavar="URL", help="Address of the distribution.")
@click.option(
    "--root",
    "root_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Root metadata; needed the first time, kept afterwards and never replaced.",
)
@click.option(
    "--epoch-key",
    "key_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Keep a copy of this epoch key beside the data, in place of an older one. For demos only.",
)
@click.option("--region", default=REGION, show_default=True, help="Which region's data.")
@json_option
@home_option
def sync(url: str, root_file: Path | None, key_file: Path | None, region: str, as_json: bool, home: Home) -> int:
    """Bring the status cache up to date from a signed distribution.

    \b
    Examples:
      markcheck sync --from http://127.0.0.1:8122/ --root sandbox/root.json --epoch-key sandbox/private/epoch.key
      markcheck sync --from http://127.0.0.1:8122/

    Whatever fails, the data in use stay in use. Exit status: 0 up to date, 1 not, 2 wrong usage.
    """
    _keep_files(home, root_file, key_file)
    with HttpFetcher(url) as fetcher, progress_bar() as progress:
        client = SyncClient(home.cache, fetcher, system_clock, home.root.read_bytes(), region, progress=progress)
        report = client.refresh()
    if as_json:
        print_json(report_json(report))
    else:
        click.echo(report_text(report))
    return 0


def _keep_files(home: Home, root_file: Path | None, key_file: Path | None) -> None:
    """Store root metadata and epoch key in the home: both are checked before either is written."""
    held = home.root.read_bytes() if home.root.exists() else None
    root = held if root_file is None else root_file.read_bytes()
    if root is None:
        raise click.UsageError("--root FILE is needed the first time")
    if root_file is not None:
        check_root(root)
    if held is not None and root != held:
        raise click.UsageError("this device was made with another root; use another --home")
    key = None if key_file is None else load_epoch_key(key_file)
    home.folder.mkdir(parents=True, exist_ok=True)
    if held is None:
        _store(home.root, root)
    if key is not None:
        _store(home.epoch_key, f"{key.hex()}\n".encode())


def _store(path: Path, data: bytes) -> None:
    """Write a file for its owner only, whole or not at all."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # made with mode 0600
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def report_text(report: SyncReport) -> str:
    """A sync's report for people: one line, and one for each remark."""
    before = "nothing" if report.seq_before is None else f"no. {report.seq_before}"
    lines = [
        f"sync done ({report.outcome}): {report.vehicles:,} vehicles, {report.bytes_fetched:,} bytes in "
        f"{report.requests} requests, {report.seconds:.2f} s; {before} -> no. {report.seq_after}, "
        f"data of {report.as_of.isoformat(timespec='minutes')}"
    ]
    return "\n".join([*lines, *(f"note: {note}" for note in report.notes)])


def report_json(report: SyncReport) -> dict[str, object]:
    """A sync's report for machines."""
    return {
        "outcome": report.outcome.value,
        "region": report.region,
        "seq_before": report.seq_before,
        "seq_after": report.seq_after,
        "vehicles": report.vehicles,
        "bytes": report.bytes_fetched,
        "requests": report.requests,
        "seconds": round(report.seconds, 3),
        "as_of": report.as_of.isoformat(),
        "notes": list(report.notes),
    }


@click.group()
def cache() -> None:
    """The status cache on this device.

    \b
    Examples:
      markcheck cache info
      markcheck cache info --json
    """


@cache.command()
@json_option
@home_option
def info(as_json: bool, home: Home) -> int:
    """What is held: region, number, age, coverage, size, and how the last sync went.

    \b
    Examples:
      markcheck cache info
      markcheck cache info --home /var/lib/markcheck --json
    """
    store, warning = open_store(home)
    history = sync_history(home.cache)
    try:
        held = store.info()
        keys = len(load_trust_list(store.trust_entries()).keys)
    except CacheMissingError:
        problem("no data: run 'markcheck sync' first")
        return 1
    finally:
        store.close()
    age = int((system_clock() - held.as_of).total_seconds())
    facts: dict[str, Any] = {
        "region": held.region,
        "seq": held.seq,
        "as_of": held.as_of.isoformat(),
        "age_s": age,
        "scope": held.scope,
        "covers": list(held.covers),
        "vehicles": held.vehicles,
        "bytes": held.bytes,
        "trusted_keys": keys,
        "key_epoch": held.key_epoch,
        "last_success": history.last_good.isoformat() if history.last_good else None,
        "last_failure": history.last_failure,
    }
    if as_json:
        print_json(facts)
        return 0
    problem(f"note: {warning}")
    shown = {**facts, "age_s": str(timedelta(seconds=age)), "covers": " ".join(held.covers)}
    for name, value in shown.items():
        click.echo(f"{name.removesuffix('_s').replace('_', ' '):14} {'-' if value is None else value}")
    return 0
