"""`markcheck audit upload` and `purge`: the log to the centre with a sign of life, and what is old off the device."""

from __future__ import annotations

import time
from contextlib import closing, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import click

from firmware.build import open_store, software_version, trusted_time
from firmware.config import REGION, Home, OnlineSettings, load_audit, load_online
from firmware.keeper import open_keeper
from scripts.cli.console import home_option, json_option, print_json, problem
from scripts.cli.enrol import why_not_enrolled
from verifier.adapters import online_failure
from verifier.audit_file import read_lines, start_of
from verifier.audit_upload import AcknowledgedHead, AuditUploader, Uploaded, purge
from verifier.clock import system_clock
from verifier.codec.device import AuditHead
from verifier.errors import AuditError, CacheError, FetchError, StatusError
from verifier.heartbeat import Heartbeat, LogWord, load_vitals, send_heartbeat
from verifier.online import Poster, boottime_ms
from verifier.online_http import HttpPoster
from verifier.photos import PhotoStore
from verifier.types import SHANGHAI, OnlineState

CONNECT_MS, TOTAL_MS = 5_000, 60_000  # nobody waits for it, and an upload is up to 1 MiB


@click.command("upload")
@click.option("--centre", help="Address of the status server.  [default: that of online.toml]")
@json_option
@home_option
def upload_command(centre: str | None, as_json: bool, home: Home) -> int:
    """Send the centre what it does not have of the log, with a sign of life that tells how far the log goes.

    Sent twice, a line is kept once; what was cut off in between is sent again. Needs the device's certificate. A
    device that the centre refuses asks why, and obeys the order that may come with the answer.

    \b
    Examples:
      markcheck audit upload
      markcheck audit upload --centre https://centre.example/ --json

    Exit status: 0 when the centre has the whole log and finds that it continues, else 1.
    """
    settings = load_online(home)
    if centre is not None:
        named = settings or OnlineSettings(url=centre, ca=home.ca, certificate=home.certificate, key=home.device_key)
        settings = replace(named, url=centre)
    if settings is None:
        raise click.UsageError("give --centre: this device has no online.toml")
    if any(path is not None and not path.exists() for path in (settings.certificate, settings.key)):
        problem(why_not_enrolled(home))
        return 1
    try:
        done, failure, word = send(home, _poster(settings))
    except FetchError as exc:
        if online_failure(exc).state is OnlineState.DENIED:
            _ask_why(home)
        raise
    if as_json:
        sent, known = (done.sent, done.acknowledged.seq) if done else (0, None)
        print_json({"sent": sent, "acknowledged": known, "centre": word.value, "problem": failure or None})
    elif done is not None:
        click.echo(f"{done.sent} lines sent; the centre has {done.acknowledged.seq} and says: {word.value}")
    if failure:
        problem(failure)
    if word is LogWord.BROKEN:
        problem("the centre says that this log does not continue what it told before; keep it as it is")
    return 1 if failure or word is not LogWord.CONTINUES else 0


def send(home: Home, poster: Poster) -> tuple[Uploaded | None, str, LogWord]:
    """What was sent, why not all of it was, and what the centre says of the log's head. FetchError.

    A log that is not what it was, or that the centre cannot take now, is told of all the more.
    """
    done, failure = None, ""
    try:
        done = AuditUploader(home.audit, AcknowledgedHead(home.audit_sent), poster).run()
    except AuditError as exc:
        failure = str(exc)
    except StatusError as exc:
        if online_failure(exc).state is OnlineState.DENIED:
            raise
        failure = str(exc)
    return done, failure, send_heartbeat(poster, sign_of_life(home))


def _poster(settings: OnlineSettings) -> HttpPoster:
    pair = (str(settings.certificate), str(settings.key)) if settings.certificate and settings.key else None
    return HttpPoster(
        settings.url, ca_file=str(settings.ca) if settings.ca else None, client_certificate=pair,
        monotonic_ms=boottime_ms, connect_ms=CONNECT_MS, total_ms=TOTAL_MS,
    )  # fmt: skip


def _ask_why(home: Home) -> None:
    """A running program does so when a look-up is denied; a device that lies idle looks nothing up. OSError."""
    keeper = open_keeper(home, system_clock)
    if keeper is not None:
        for remark in keeper.keep(denied=True).remarks:
            problem(remark)


def sign_of_life(home: Home) -> Heartbeat:
    """What the device tells of itself now: what the program noted last, and what its files say. ConfigError, OSError.

    The uptime is the machine's.
    """
    now = system_clock()
    beat = Heartbeat(
        software=software_version().partition(" ")[2],
        uptime_s=int(time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))),
        region=REGION,
        audit=_told_head(home.audit),
        vitals=load_vitals(home.vitals),
        clock=now,
        doubts=trusted_time(home, system_clock).doubts(now),
    )
    store, _ = open_store(home)
    with closing(store):
        try:
            info = store.info()
        except CacheError:
            return beat
    age = int((now - info.as_of).total_seconds())
    return replace(beat, region=info.region, seq=info.seq, hot_seq=info.hot_seq or 0, data_age_s=age)


def _told_head(log: Path) -> AuditHead:
    """The log's head; of one whose chain is broken, that of the last line before."""
    head = start_of(log)
    with suppress(AuditError):
        for line in read_lines(log) if log.exists() else ():
            head = line.head if line.finished else head
    return head


@click.command("purge")
@click.option("--days", type=click.IntRange(0, 3650), help="Days to keep.  [default: retention_days of audit.toml, 30]")
@json_option
@home_option
def purge_command(days: int | None, as_json: bool, home: Home) -> int:
    """Remove what is older than the days to keep, and only what the centre has acknowledged.

    Photos that are no evidence go by the same days.

    \b
    Examples:
      markcheck audit purge
      markcheck audit purge --days 7 --json
    """
    kept = load_audit(home).retention_days if days is None else days
    now = system_clock()
    lines = purge(home.audit, AcknowledgedHead(home.audit_sent).load(), now.astimezone(SHANGHAI).date(), kept)
    photos = PhotoStore(home.photos).purge(now - timedelta(days=kept))
    if as_json:
        print_json({"lines": lines, "photos": photos, "days": kept})
    else:
        click.echo(f"{lines} lines and {photos} photos removed; {kept} days are kept")
    return 0
