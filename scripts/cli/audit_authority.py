"""`markcheck audit` at the authority: its key, what came of a device's log, and a sealed log opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import click

from scripts.cli.console import FILE, write_private
from scripts.cli.sandbox_devices import open_books
from scripts.cli.sandbox_options import FOLDER
from scripts.sandbox.audit_keys import (
    PUBLIC_FILE,
    load_private_key,
    open_log,
    open_or_make_key,
    open_photo,
    opened_lines,
)
from scripts.sandbox.authority import AuthorityFolder
from verifier.audit_file import Entry
from verifier.errors import AuditError


def opened(file: Path, key: Path) -> Iterator[Entry]:
    """The lines of a log, opened with the private key in a file. AuditError."""
    return open_log(file, load_private_key(key))


def unsealing(key: Path) -> Callable[[str, bytes], bytes]:
    """What opens photos, by name and bytes, with the private key in a file. AuditError, also of each photo."""
    private = load_private_key(key)
    return lambda name, sealed: open_photo(private, name, sealed)


@click.command("key")
@FOLDER
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


@click.command("received")
@click.argument("device")
@FOLDER
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
        write_private(out, (line + b"\n" for line in books.audit_records(device, log)))


@click.command("open")
@click.argument("file", type=FILE)
@click.option("--key", type=FILE, required=True, help="The authority's private key.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="A file, mode 0600.  [default: stdout]")
def open_command(file: Path, key: Path, out: Path | None) -> int:
    """A sealed log as a plain one, in a chain of its own: each record names the line that it was. Or a sealed picture.

    \b
    Examples:
      markcheck audit open audit.jsonl --key sandbox/private/audit.key --out opened.jsonl
      markcheck audit open fault-000001-hang.box --key sandbox/private/audit.key --out fault.png
      markcheck replay opened.jsonl
    """
    if file.suffix == ".box":  # under the name that it was sealed with
        if out is None:
            raise click.UsageError("--out: a picture goes to a file")
        write_private(out, [open_photo(load_private_key(key), file.name, file.read_bytes())])
        return 0
    lines = opened_lines(open_log(file, load_private_key(key)))
    if out is None:
        for line in lines:
            click.echo(line)
        return 0
    write_private(out, (line + b"\n" for line in lines))
    return 0
