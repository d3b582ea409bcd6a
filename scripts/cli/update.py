"""`markcheck update`: signed releases of the program."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from firmware.bundle import check_version
from firmware.settings import SettingsError, load_settings
from firmware.update import Outcome, Releases, Updater, version_of
from hw.power.sysfs import read_power
from scripts.cli.console import json_option, print_json
from verifier.clock import system_clock
from verifier.errors import VerifierError
from verifier.net import Fetcher, FolderFetcher, HttpFetcher

LONGEST_FILE_S = 3600.0  # for a bundle with its wheels on a slow line

_TOLD = {
    Outcome.NONE: "no release is offered; {before} stays in use",
    Outcome.FRESH: "{before} is what is offered",
    Outcome.UPDATED: "{after} is in use; {before} stays beside it",
}


@click.command()
@click.option("--from", "source", metavar="URL|DIR", help="The distribution, or a folder with it; else the settings'.")
@click.option("--check", is_flag=True, help="Only say what is in use and what is offered.")
@click.option("--again", is_flag=True, help="Also a release that did not work here before.")
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("/etc/markcheck/markcheck.toml"),
    show_default=True,
    help="Settings; their sync.source counts without --from.",
)
@click.option(
    "--tree",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    default=Path("/"),
    show_default=True,
    help="Root of the file system that has opt/markcheck.",
)
@json_option
def update(source: str | None, check: bool, again: bool, config: Path, tree: Path, as_json: bool) -> int:
    """Take a newer signed release into use, if there is one and it works.

    \b
    Examples:
      markcheck update --check
      markcheck update
      markcheck update --from /media/card

    The release is verified as all data are, made beside the one in use, tried on this device's settings, and watched
    for a minute. One that fails is left for the one before. Exit status: 0 the release offered is in use, or none is
    offered; 1 not updated; 2 wrong usage.
    """
    source = source or _source(config)
    releases = Releases(tree)
    with ExitStack() as stack:
        fetcher: Fetcher = (
            stack.enter_context(HttpFetcher(source, total_timeout=LONGEST_FILE_S))
            if "://" in source
            else FolderFetcher(Path(source))
        )
        updater = Updater(releases, fetcher, system_clock)
        if check:
            return _told(updater, releases, as_json)
        done = updater.update(read_power(), again=again)
    if as_json:
        print_json({"outcome": done.outcome.value, "before": done.before, "after": done.after})
    else:
        click.echo(_TOLD[done.outcome].format(before=done.before, after=done.after))
    return 0


def _source(config: Path) -> str:
    try:
        source = load_settings(config)[0].sync.source
    except SettingsError as exc:
        raise click.UsageError(f"--from is needed: {config.absolute().parent}/{exc}") from exc
    if not source:
        raise click.UsageError("--from is needed: the settings name no sync.source")
    return source


def _told(updater: Updater, releases: Releases, as_json: bool) -> int:
    """What is in use, on trial, offered; and why what is offered would not be taken."""
    used, confirmed, offer = releases.named("current"), releases.named("confirmed"), updater.offered()
    problem, times = "", 0
    if offer is not None:
        times = releases.times_refused(offer.sha256)
        try:
            check_version(offer, version_of(used))
        except VerifierError as exc:
            problem = str(exc)
    if as_json:
        told = None if offer is None else {"version": offer.version, "withdrawal": offer.withdrawal, "refused": times}
        fresh = offer is not None and offer.sha256 == releases.bundle(used)
        print_json({"in_use": used, "confirmed": confirmed, "offered": told, "fresh": fresh, "problem": problem})
        return 0
    click.echo(f"in use     {used or '-'}{'' if used == confirmed else ', on trial'}")
    click.echo(f"offered    {'nothing' if offer is None else offer.version}")
    for line in (problem, f"it did not work here {times} times" if times else ""):
        if line:
            click.echo(f"           {line}")
    return 0
