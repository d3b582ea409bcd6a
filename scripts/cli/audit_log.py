"""`markcheck audit`: a log is verified, shown, decided on again, and exported, on the device or at the authority.

Without `--key` nothing of the authority is loaded.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click

from firmware.config import Home
from scripts.case_file import Photo, Place, case_json, object_in, places_of, slip
from scripts.cli.console import FILE, home_option, json_option, print_json, problem, write_private
from scripts.cli.decide import replay_all
from verifier.audit import checks_of
from verifier.audit_file import Entry, log_head, read_lines, start_of
from verifier.audit_upload import AcknowledgedHead, check_passes
from verifier.errors import AuditError
from verifier.photos import PhotoStore
from verifier.policy import load_policy
from verifier.seal import SESSION, is_sealed

Unseal = Callable[[str, bytes], bytes]
"""Name and bytes of a sealed photo to the photo."""
_CHECK_ID = re.compile(r"[0-9a-f]{32}")
F = TypeVar("F", bound=Callable[..., Any])


def _log_options(function: F) -> F:
    function = click.option("--key", type=FILE, help="The authority's private key, which opens a sealed log.")(function)
    return click.argument("file", type=FILE, required=False)(function)


def _log_of(file: Path | None, home: Home) -> Path:
    """The named log, or the device's own; AuditError without one."""
    if file is None and not home.audit.exists():
        raise AuditError("there is no audit log yet")
    return file or home.audit


def _entries(file: Path, key: Path | None) -> Iterator[Entry]:
    """The lines of a log, opened where there is a key; without it a sealed record stays closed."""
    if key is not None:
        from scripts.cli.audit_authority import opened  # noqa: PLC0415 - the authority's, and no device has it

        yield from opened(file, key)
        return
    for line in read_lines(file):
        closed = line.entry is not None and is_sealed(line.entry)
        yield Entry(line, None if closed else line.entry, sealed=closed)


@click.command("verify")
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
    for one in _entries(log, key):
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


@click.command("show")
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
    entries = (one for one in _entries(_log_of(file, home), key) if one.record or (one.line.entry or {}).get("codes"))
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


def _shown(one: Entry) -> str:
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


@click.command("replay")
@_log_options
@click.option("--policy", "policy_files", type=FILE, multiple=True, help="Policy that a record names; repeatable.")
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
    for one in _entries(log, key):
        if one.line.entry is None:
            yield {"unreadable": one.line.number}
        elif one.record is not None:
            yield one.record
        elif key is None:
            raise AuditError("audit log: it is sealed; --key opens it")


@click.command("export")
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
    places = places_of(check_id, (Place(o.line, o.record, o.sealed) for o in _entries(log, key) if o.record))
    pictures = [] if photos is None else _photos(places, photos, None if key is None else _unseal(key))
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for suffix, text in (
        ("json", json.dumps(case_json(check_id, places, pictures), ensure_ascii=False, indent=1) + "\n"),
        ("html", slip(check_id, places, pictures)),
    ):
        written.append(out / f"check-{check_id}.{suffix}")
        write_private(written[-1], [text.encode()])
    if as_json:
        print_json({"written": [str(path) for path in written]})
    else:
        click.echo("\n".join(map(str, written)))
    return 0


def _unseal(key: Path) -> Unseal:
    from scripts.cli.audit_authority import unsealing  # noqa: PLC0415 - the authority's, and no device has it

    return unsealing(key)


def _photos(places: list[Place], folder: Path, unseal: Unseal | None) -> list[Photo]:
    """The photos that the records name, as far as they are there; one without a record is no evidence."""
    found = []
    stored = {photo.path.name: photo.path for photo in PhotoStore(folder).photos()}
    for record in (place.record for place in places if place.record.get("kind") == "photo"):
        name = record.get("name")
        if name is None:  # there is none, and the record says why
            continue
        if not isinstance(name, str) or name not in stored:
            problem("note: a photo that the log names is not in the folder")
            continue
        data = stored[name].read_bytes()
        if stored[name].suffix == ".box":
            if unseal is None:
                raise AuditError("photo: it is sealed; --key opens it")
            data = unseal(name, data)
        found.append(Photo(name, data, hashlib.sha256(data).hexdigest() == record.get("sha256")))
    return found
