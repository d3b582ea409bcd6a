"""`markcheck sync` and `markcheck cache`: fetch the signed distribution, and say what is held."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import click

from firmware.build import open_store, trusted_time
from firmware.config import REGION, ConfigError, Home
from firmware.keeper import Kept, default_run, finish_wipe, open_keeper
from firmware.settings import CentreSettings
from firmware.syncjob import clients
from scripts.cli.console import FILE, home_option, json_option, print_json, problem, progress_bar
from verifier.backoff import until_done
from verifier.cache.diagnose import diagnose
from verifier.cache.keys import load_epoch_key
from verifier.clock import system_clock, system_witness
from verifier.errors import CacheMissingError, SyncError, VerifierError
from verifier.hot_follow import HotFollower
from verifier.online import boottime_ms
from verifier.repository import check_root
from verifier.resync import resync
from verifier.secret_files import write_secret
from verifier.sync import SyncClient, sync_history
from verifier.sync_report import HotReport, KeyNeededError, SyncReport
from verifier.trust import load_trust_list
from verifier.trusted_time import TrustedTime, clock_report

KEY_FROM = "run 'markcheck shift begin' (sandbox: --epoch-key FILE)"


@click.command()
@click.option(
    "--from",
    "source",
    required=True,
    metavar="URL|DIR",
    help="Address of the distribution, or a folder with it.",
)
@click.option(
    "--root",
    "root_file",
    type=FILE,
    help="Root metadata; needed the first time, kept afterwards and never replaced.",
)
@click.option(
    "--epoch-key",
    "key_file",
    type=FILE,
    help="Keep a copy of this epoch key beside the data, in place of an older one. For demos only.",
)
@click.option("--region", default=REGION, show_default=True, help="Which region's data.")
@click.option("--hot", is_flag=True, help="Only the hot list: what changed since the last night.")
@click.option("--every", type=click.IntRange(5, 3600), metavar="SECONDS", help="With --hot: again and again.")
@click.option("--full", is_flag=True, help="Fetch everything anew beside what is held; needs --yes.")
@click.option("--yes", is_flag=True, help="With --full: it is meant.")
@click.option("--recheck", is_flag=True, help="Read all that is held and fetch anew what is damaged.")
@click.option("--retry", is_flag=True, help="Try again until it is done: after 1, 2, 4 ... 60 minutes.")
@json_option
@home_option
def sync(
    source: str,
    root_file: Path | None,
    key_file: Path | None,
    region: str,
    hot: bool,
    every: int | None,
    full: bool,
    yes: bool,
    recheck: bool,
    retry: bool,
    as_json: bool,
    home: Home,
) -> int:
    """Bring the status cache up to date from a signed distribution.

    \b
    Examples:
      markcheck sync --from http://127.0.0.1:8122/ --root sandbox/root.json --epoch-key sandbox/private/epoch.key
      markcheck sync --from http://127.0.0.1:8122/
      markcheck sync --from http://127.0.0.1:8122/ --hot           what changed since the night
      markcheck sync --from http://127.0.0.1:8122/ --hot --every 60
      markcheck sync --from http://127.0.0.1:8122/ --recheck       read everything held, repair what is damaged
      markcheck sync --from http://127.0.0.1:8122/ --full --yes    everything anew; until then what is held serves
      markcheck sync --from /media/card                            without a network, with the same checks
      markcheck sync --from http://127.0.0.1:8122/ --retry         until it is done; Ctrl-C stops

    Whatever fails, the data in use stay in use. Exit status: 0 up to date, 1 not, 2 wrong usage. A card must carry the
    distribution as it was published, metadata included, and its signed time stamp lives 48 hours. An enrolled device
    is at its dock here: its certificate is renewed too, and an order of its centre is obeyed.
    """
    if hot + recheck + full > 1:
        raise click.UsageError("--hot, --recheck and --full exclude each other")
    if every is not None and (not hot or retry):
        raise click.UsageError("--every goes with --hot, and tries again by itself")
    if full and not yes:
        raise click.UsageError("--full fetches all data anew, which may be hundreds of megabytes: say --yes")
    _checked_source(source, retry=retry)
    _keep_files(home, root_file, key_file)
    told_time = trusted_time(home, system_clock)
    if _kept(home, told_time, at_dock=not hot).wiped is not None:
        return 1
    with progress_bar() as bar, clients(home, source, region, told_time, CentreSettings(home.folder), bar) as client:
        if every is not None:
            return _follow_hot(HotFollower(client(home.cache).refresh_hot, boottime_ms, every_ms=every * 1000), as_json)
        attempt = _attempt(client, home.cache, hot=hot, full=full, recheck=recheck)
        try:
            report: SyncReport | HotReport = _until_done(attempt, home) if retry else attempt()
        except SyncError as exc:
            if as_json:
                print_json({"outcome": "failed", "region": region, "error": _text(exc)})
            else:
                problem(_text(exc))
            return 1
    _show(report, as_json)
    return 0 if _kept(home, told_time).wiped is None else 1  # the new data may be of another epoch


def _checked_source(source: str, *, retry: bool) -> None:
    """A folder has to be there, and is not tried again."""
    if "://" in source:
        return
    if retry:
        raise click.UsageError("--retry goes with an address")
    if not Path(source).is_dir():
        raise click.UsageError(f"--from: {source}: no such folder, and not an http or https address")


def _text(error: SyncError) -> str:
    return f"{error}: {KEY_FROM}" if isinstance(error, KeyNeededError) else str(error)


def _attempt(
    client: Callable[[Path], SyncClient], root: Path, *, hot: bool, full: bool, recheck: bool
) -> Callable[[], SyncReport | HotReport]:
    if full:
        return partial(resync, root, client)
    return client(root).refresh_hot if hot else partial(client(root).refresh, recheck=recheck)


def _follow_hot(follower: HotFollower[HotReport], as_json: bool) -> int:
    """Until Ctrl-C; each failure is told, and the next fetch is due as ever."""
    while True:
        time.sleep(follower.due_in_ms() / 1000)
        try:
            report = follower.step()
        except SyncError as exc:
            problem(_text(exc))
        else:
            if report is not None:
                _show(report, as_json)


def _kept(home: Home, told_time: TrustedTime, *, at_dock: bool = False) -> Kept:
    """What the device does for itself at its centre, where it is enrolled; problems are told and cost no sync."""
    if told := finish_wipe(home, system_clock, default_run()):
        problem(f"note: {told}")
    try:
        keeper = open_keeper(home, system_clock, time=told_time)
        kept = Kept(certificate=None) if keeper is None else keeper.keep(at_dock=at_dock)
    except (ConfigError, OSError, VerifierError) as exc:
        problem(f"note: {exc}")
        return Kept(certificate=None)
    for remark in kept.remarks:
        problem(f"note: {remark}")
    return kept


def _until_done(attempt: Callable[[], SyncReport | HotReport], home: Home) -> SyncReport | HotReport:
    """Call a sync until it ends well, and tell each failure and when it will be tried again."""

    def told(error: SyncError, again: datetime) -> None:
        problem(f"{_text(error)}; trying again at {again.astimezone().strftime('%H:%M:%S')}")

    return until_done(
        attempt, failures=sync_history(home.cache).failures, clock=system_clock, sleep=time.sleep,
        draw=random.SystemRandom().random, told=told,
    )  # fmt: skip


def _show(report: SyncReport | HotReport, as_json: bool) -> None:
    if as_json:
        print_json(report_json(report) if isinstance(report, SyncReport) else hot_json(report))
    else:
        click.echo(report_text(report) if isinstance(report, SyncReport) else hot_text(report))


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
        write_secret(home.root, root)
    if key is not None:
        write_secret(home.epoch_key, f"{key.hex()}\n".encode())


def report_text(report: SyncReport) -> str:
    """A sync's report for people: one line, and one for each remark."""
    before = "nothing" if report.seq_before is None else f"no. {report.seq_before}"
    lines = [
        f"sync done ({report.outcome}): {report.vehicles:,} vehicles in the base, {report.changed_rows:,} rows changed "
        f"since, {report.bytes_fetched:,} bytes in "
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
        "changed_rows": report.changed_rows,
        "bytes": report.bytes_fetched,
        "requests": report.requests,
        "seconds": round(report.seconds, 3),
        "as_of": report.as_of.isoformat(),
        "notes": list(report.notes),
    }


def hot_text(report: HotReport) -> str:
    """A hot list's report for people, likewise."""
    before = "nothing" if report.seq_before is None else f"no. {report.seq_before}"
    what = "unchanged" if report.fresh else "replaced"
    lines = [
        f"hot list {what}: {report.rows:,} rows, {report.bytes_fetched:,} bytes, "
        f"{report.seconds:.2f} s; {before} -> no. {report.seq_after}, "
        f"data of {report.as_of.isoformat(timespec='minutes')}, "
        f"the next is due {report.next_update.isoformat(timespec='minutes')}"
    ]
    return "\n".join([*lines, *(f"note: {note}" for note in report.notes)])


def hot_json(report: HotReport) -> dict[str, object]:
    """A hot list's report for machines."""
    return {
        "outcome": "fresh" if report.fresh else "hot",
        "region": report.region,
        "seq_before": report.seq_before,
        "seq_after": report.seq_after,
        "rows": report.rows,
        "bytes": report.bytes_fetched,
        "seconds": round(report.seconds, 3),
        "as_of": report.as_of.isoformat(),
        "next_update": report.next_update.isoformat(),
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
    clock = clock_report(home.cache, system_clock(), system_witness())
    age = int((datetime.fromisoformat(clock["earliest"]) - held.as_of).total_seconds())
    facts: dict[str, Any] = {
        "region": held.region,
        "seq": held.seq,
        "as_of": held.as_of.isoformat(),
        "age_s": age,
        "age_at_least": bool(clock["doubts"]),
        "scope": held.scope,
        "covers": list(held.covers),
        "vehicles": held.vehicles,
        "changed_rows": held.changed_rows,
        "bytes": held.bytes,
        "trusted_keys": keys,
        "trust_as_of": held.trust_as_of.isoformat(),
        "key_epoch": held.key_epoch,
        "base_seq": held.base_seq,
        "hot_seq": held.hot_seq,
        "hot_as_of": _iso(held.hot_as_of),
        "hot_due": _iso(held.hot_due),
        "last_success": _iso(history.last_good),
        "last_failure": history.last_failure,
        "failures": history.failures,
    }
    if as_json:
        print_json({**facts, "notes": list(held.notes), "clock": clock, "files": diagnose(home.cache)})
        return 0
    for note in (*([warning] if warning else []), *held.notes):
        problem(f"note: {note}")
    least = "at least " if facts.pop("age_at_least") else ""
    shown = {**facts, "age_s": f"{least}{timedelta(seconds=age)}", "covers": " ".join(held.covers)}
    shown["vehicles"] = f"{held.vehicles:,} in the base (no. {held.base_seq})"
    shown["changed_rows"] = f"{held.changed_rows:,} since, of plates and tags"
    shown["clock"] = "; ".join(clock["doubts"]) or ("trusted" if clock["trusted"] else "nothing is known of it")
    for name, value in shown.items():
        click.echo(f"{name.removesuffix('_s').replace('_', ' '):14} {'-' if value is None else value}")
    return 0


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
