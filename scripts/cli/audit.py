"""`markcheck audit`: the log of all checks, on the device and where it is opened."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import click
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from firmware.build import open_store, software_version
from firmware.config import REGION, Home, OnlineSettings, load_audit, load_online
from scripts.case_file import Photo, Place, case_json, object_in, places_of, slip
from scripts.cli.console import home_option, json_option, print_json, problem
from scripts.cli.decide import replay_all
from scripts.cli.sandbox_devices import open_books
from scripts.sandbox.audit_keys import (
    PUBLIC_FILE,
    Opened,
    load_private_key,
    open_log,
    open_or_make_key,
    open_photo,
    opened_lines,
)
from scripts.sandbox.authority import AuthorityFolder
from verifier.audit import checks_of
from verifier.audit_file import log_head, read_lines, start_of
from verifier.audit_upload import AcknowledgedHead, AuditUploader, check_passes, purge
from verifier.clock import system_clock
from verifier.codec.device import AuditHead
from verifier.errors import AuditError, CacheError
from verifier.heartbeat import Heartbeat, LogWord, send_heartbeat
from verifier.online import boottime_ms
from verifier.online_http import HttpPoster
from verifier.photos import PhotoStore
from verifier.policy import load_policy
from verifier.seal import SESSION, is_sealed
from verifier.types import SHANGHAI

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
CONNECT_MS, TOTAL_MS = 5_000, 60_000  # nobody waits for it, and an upload is up to 1 MiB
_CHECK_ID = re.compile(r"[0-9a-f]{32}")
F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def audit() -> None:
    """The log of all checks: verify, show, open, replay, export, upload, purge.

    \b
    Examples:
      markcheck audit verify
      markcheck audit show --last 5
      markcheck audit upload --centre https://centre.example/
      markcheck audit replay audit.jsonl --key sandbox/private/audit.key
    """


def _log_options(function: F) -> F:
    function = click.option("--key", type=_FILE, help="The authority's private key, which opens a sealed log.")(
        function
    )
    return click.argument("file", type=_FILE, required=False)(function)


def _log_of(file: Path | None, home: Home) -> Path:
    """The named log, or the device's own; AuditError without one."""
    if file is None and not home.audit.exists():
        raise AuditError("there is no audit log yet")
    return file or home.audit


def _opened(file: Path, key: Path | None) -> Iterator[Opened]:
    """The lines of a log, opened where there is a key; without it a sealed record stays closed."""
    if key is not None:
        yield from open_log(file, load_private_key(key))
        return
    for line in read_lines(file):
        closed = line.entry is not None and is_sealed(line.entry)
        yield Opened(line, None if closed else line.entry, sealed=closed)


# ------------------------------------------------------------------------------------------------- authority


@audit.command("key")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("sandbox"),
    show_default=True,
    help="Folder of the sandbox authority.",
)
def key_command(folder: Path) -> None:
    """The authority's key for sealed logs, made at the first time. A device is given the public half by hand.

    \b
    Examples:
      markcheck audit key
      cp sandbox/audit-key.pem ~/.local/share/markcheck/
    """
    home = AuthorityFolder(folder)
    if not home.exists():
        raise AuditError(f"no sandbox authority in {folder}: make one with 'markcheck sandbox serve'")
    open_or_make_key(home.private, folder)
    click.echo(folder / PUBLIC_FILE)


@audit.command("received")
@click.argument("device")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("sandbox"),
    show_default=True,
    help="Folder of the sandbox authority.",
)
@click.option("--database", metavar="URL", help="As given to 'sandbox serve'.  [default: in FOLDER]")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="A file, mode 0600.")
def received_command(device: str, folder: Path, database: str | None, out: Path) -> None:
    """What the centre has of a device's log, as the file that the device has.

    \b
    Examples:
      markcheck audit received handheld-7 --out handheld-7.jsonl
      markcheck audit replay handheld-7.jsonl --key sandbox/private/audit.key
    """
    with closing(open_books(AuthorityFolder(folder), database)) as books:
        log = next((known["audit_log"] for known in books.devices() if known["device"] == device), None)
        if log is None:
            raise AuditError("no such device")
        _write(out, (line + b"\n" for line in books.audit_records(device, log)))


def _write(path: Path, lines: Iterable[bytes]) -> None:
    """A file for its owner alone."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as target:
        target.writelines(lines)


# ----------------------------------------------------------------------------------------------------- reading


@audit.command("verify")
@_log_options
@json_option
@home_option
def verify_command(file: Path | None, key: Path | None, as_json: bool, home: Home) -> int:
    """Whether no line was changed, moved, removed or put in; with a key also whether each is as it was sealed.

    That the end was cut off shows where the centre has more: on the device's own log this is looked at too.

    \b
    Examples:
      markcheck audit verify
      markcheck audit verify audit.jsonl --key sandbox/private/audit.key --json

    Exit status: 0 when all is as it was written, else 1.
    """
    log = _log_of(file, home)
    if file is None:
        check_passes(log, AcknowledgedHead(home.audit_sent).load())
    found: dict[str, Any] = {"lines": 0, "records": 0, "sealed": 0, "unfinished": [], "from": start_of(log).seq}
    for one in _opened(log, key):
        found["lines"] += 1
        if one.line.entry is None:
            found["unfinished"].append(one.line.number)
        elif one.line.entry.get("kind") != SESSION:
            found["records"] += 1
            found["sealed"] += one.sealed
    found["head"] = log_head(log).head.hex()
    if as_json:
        print_json(found)
        return 0
    for number in found["unfinished"]:
        problem(f"note: line {number} is no record, as a power cut leaves it")
    if key is None and found["sealed"]:
        problem("note: the records are sealed; with --key it is looked at whether they open")
    if found["records"] > found["sealed"]:
        problem(f"note: {found['records'] - found['sealed']} records are not sealed")
    click.echo(f"{found['records']} records in one chain of {found['from'] + found['lines']} lines")
    return 0


@audit.command("show")
@_log_options
@click.option("--check", "check_id", help="Only this check, with all that its records hold.")
@click.option("--last", type=click.IntRange(1, 100_000), default=20, show_default=True, help="How many records.")
@json_option
@home_option
def show_command(
    file: Path | None, key: Path | None, check_id: str | None, last: int, as_json: bool, home: Home
) -> int:
    """The newest records. Of a sealed log the device itself can show days and verdicts alone.

    \b
    Examples:
      markcheck audit show
      markcheck audit show audit.jsonl --key sandbox/private/audit.key --last 5
      markcheck audit show audit.jsonl --check 0f0e0d0c0b0a09080706050403020100 --json
    """
    entries = (one for one in _opened(_log_of(file, home), key) if one.record or (one.line.entry or {}).get("codes"))
    if check_id is not None:
        places = places_of(check_id, (Place(o.line, o.record, o.sealed) for o in entries if o.record))
        for place in places:
            click.echo(json.dumps(place.record, ensure_ascii=False, indent=None if as_json else 1))
        return 0
    for one in deque(entries, maxlen=last):
        if as_json:
            print_json({"line": one.line.number, **(one.record or one.line.entry or {})})
        else:
            click.echo(_shown(one))
    return 0


def _shown(one: Opened) -> str:
    """One record on one line."""
    number = f"{one.line.number:6}"
    if one.record is None:
        entry = one.line.entry or {}
        codes = entry["codes"] if isinstance(entry["codes"], list) else []
        return f"{number}  {_printable(entry.get('day'))}  sealed  {' '.join(map(_printable, codes[:2]))}"
    told = [f"{number}  {_printable(one.record.get('kind'))}  {_printable(one.record.get('id'))}"]
    for check in checks_of(one.record):
        verdict, evidence = object_in(check, "verdict"), object_in(check, "evidence")
        fields = (evidence.get("now"), verdict.get("verdict"), verdict.get("grade"), verdict.get("plate"))
        told.append("  ".join(_printable(field) for field in fields))
        told += ["FLAGGED"] if check.get("flagged") else []
    return "  ".join(told)


def _printable(value: object) -> str:
    return "".join(char if char.isprintable() else "?" for char in str(value if value is not None else "-"))[:80]


@audit.command("open")
@click.argument("file", type=_FILE)
@click.option("--key", type=_FILE, required=True, help="The authority's private key.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="A file, mode 0600.  [default: stdout]")
def open_command(file: Path, key: Path, out: Path | None) -> int:
    """A sealed log as a plain one, in a chain of its own: each record names the line that it was.

    \b
    Examples:
      markcheck audit open audit.jsonl --key sandbox/private/audit.key --out opened.jsonl
      markcheck replay opened.jsonl
    """
    lines = opened_lines(_opened(file, key))
    if out is None:
        for line in lines:
            click.echo(line)
        return 0
    _write(out, (line + b"\n" for line in lines))
    return 0


@audit.command("replay")
@_log_options
@click.option("--policy", "policy_files", type=_FILE, multiple=True, help="Policy that a record names; repeatable.")
@json_option
@home_option
def replay_command(
    file: Path | None, key: Path | None, policy_files: tuple[Path, ...], as_json: bool, home: Home
) -> int:
    """Decide again on every check in a log, sealed or plain, and compare.

    \b
    Examples:
      markcheck audit replay
      markcheck audit replay audit.jsonl --key sandbox/private/audit.key

    Exit status: as of 'markcheck replay'.
    """
    log = _log_of(file, home)
    policies = {policy.label: policy for policy in (load_policy(path.read_bytes()) for path in policy_files)}
    return replay_all(_records(log, key), log.name, policies, as_json=as_json)


def _records(log: Path, key: Path | None) -> Iterator[dict[str, Any]]:
    for one in _opened(log, key):
        if one.line.entry is None:
            yield {"unreadable": one.line.number}
        elif one.record is not None:
            yield one.record
        elif key is None:
            raise AuditError("audit log: it is sealed; --key opens it")


@audit.command("export")
@_log_options
@click.option("--check", "check_id", required=True, help="Number of the check.")
@click.option(
    "--photos", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of the device's photos."
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path(), help="Folder for the two files."
)
@json_option
@home_option
def export_command(
    file: Path | None, key: Path | None, check_id: str, photos: Path | None, out: Path, as_json: bool, home: Home
) -> int:
    """One check for a case file: its records as JSON, and a slip in Chinese to print from any browser.

    \b
    Examples:
      markcheck audit export --check 0f0e0d0c0b0a09080706050403020100 --out case
      markcheck audit export --check 0f0e0d0c0b0a09080706050403020100 --photos photos --key sandbox/private/audit.key
    """
    if _CHECK_ID.fullmatch(check_id) is None:
        raise click.UsageError("--check: 32 digits 0-9 a-f")
    log = _log_of(file, home)
    places = places_of(check_id, (Place(o.line, o.record, o.sealed) for o in _opened(log, key) if o.record))
    private = None if key is None else load_private_key(key)
    pictures = [] if photos is None else _photos(places, photos, private)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for suffix, text in (
        ("json", json.dumps(case_json(check_id, places, pictures), ensure_ascii=False, indent=1) + "\n"),
        ("html", slip(check_id, places, pictures)),
    ):
        written.append(out / f"check-{check_id}.{suffix}")
        _write(written[-1], [text.encode()])
    if as_json:
        print_json({"written": [str(path) for path in written]})
    else:
        click.echo("\n".join(map(str, written)))
    return 0


def _photos(places: list[Place], folder: Path, private: X25519PrivateKey | None) -> list[Photo]:
    """The photos that the records name, as far as they are there; one without a record is no evidence."""
    found = []
    stored = {photo.path.name: photo.path for photo in PhotoStore(folder).photos()}
    for record in (place.record for place in places if place.record.get("kind") == "photo"):
        name = record.get("name")
        if not isinstance(name, str) or name not in stored:
            problem("note: a photo that the log names is not in the folder")
            continue
        data = stored[name].read_bytes()
        if stored[name].suffix == ".box":
            if private is None:
                raise AuditError("photo: it is sealed; --key opens it")
            data = open_photo(private, name, data)
        found.append(Photo(name, data, hashlib.sha256(data).hexdigest() == record.get("sha256")))
    return found


# ------------------------------------------------------------------------------------------ upload and retention


@audit.command("upload")
@click.option("--centre", help="Address of the status server.  [default: that of online.toml]")
@json_option
@home_option
def upload_command(centre: str | None, as_json: bool, home: Home) -> int:
    """Send the centre what it does not have of the log, and tell it how far the log goes.

    Sent twice, a line is kept once; what was cut off in between is sent again. Needs the device's certificate.

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
    poster = _poster(settings)
    failure, done = "", None
    try:
        done = AuditUploader(home.audit, AcknowledgedHead(home.audit_sent), poster).run()
    except AuditError as exc:
        failure = str(exc)  # of the log itself: then the centre is to hear of its head all the more
    word = send_heartbeat(poster, _heartbeat(home))
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


def _poster(settings: OnlineSettings) -> HttpPoster:
    pair = (str(settings.certificate), str(settings.key)) if settings.certificate and settings.key else None
    return HttpPoster(
        settings.url, ca_file=str(settings.ca) if settings.ca else None, client_certificate=pair,
        monotonic_ms=boottime_ms, connect_ms=CONNECT_MS, total_ms=TOTAL_MS,
    )  # fmt: skip


def _heartbeat(home: Home) -> Heartbeat:
    """A sign of life from a command: of the data and the log; uptime is the machine's."""
    beat = Heartbeat(
        software=software_version().partition(" ")[2],
        uptime_s=int(time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))),
        region=REGION,
        audit=_told_head(home.audit),
    )
    store, _ = open_store(home)
    with closing(store):
        try:
            info = store.info()
        except CacheError:
            return beat
    age = int((system_clock() - info.as_of).total_seconds())
    return replace(beat, seq=info.seq, hot_seq=info.hot_seq or 0, data_age_s=age)


def _told_head(log: Path) -> AuditHead:
    """The log's head; of one whose chain is broken, that of the last line before."""
    head = start_of(log)
    with suppress(AuditError):
        for line in read_lines(log) if log.exists() else ():
            head = line.head if line.finished else head
    return head


@audit.command("purge")
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
