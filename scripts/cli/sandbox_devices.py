"""`markcheck sandbox device` and `reports`: the books of the status server."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from scripts.cli.console import json_option, print_json, problem
from scripts.sandbox.authority import AuthorityFolder
from scripts.sandbox.database import DatabaseError, open_database, sqlite_database
from scripts.sandbox.follow import LiveAuthority
from scripts.sandbox.registry import RegistryError
from scripts.sandbox.status_lookup import Lookup
from scripts.sandbox.status_store import DeviceError, DeviceState, StatusStore
from verifier.clock import system_clock
from verifier.codec.online import decode_report

ACTIONS = {"restore": DeviceState.ACTIVE, "hold": DeviceState.HELD, "lost": DeviceState.LOST}


def open_books(home: AuthorityFolder, url: str | None) -> StatusStore:
    """The books at this URL, or those in the authority's folder. RegistryError."""
    try:
        return StatusStore(sqlite_database(home.private / "status.db") if url is None else open_database(url))
    except DatabaseError as exc:
        raise RegistryError(str(exc)) from exc


def _books_options(function: Any) -> Any:
    function = click.option("--database", metavar="URL", help="As given to 'serve'.  [default: in FOLDER]")(function)
    return click.option(
        "--folder",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("sandbox"),
        show_default=True,
        help="Folder of the sandbox authority.",
    )(function)


def _home(folder: Path) -> AuthorityFolder:
    home = AuthorityFolder(folder)
    if not home.exists():
        raise RegistryError(f"no sandbox authority in {folder}: make one with 'markcheck sandbox serve'")
    return home


@click.command()
@click.argument("action", metavar="ACTION", type=click.Choice(["list", "enrol", *ACTIONS]))
@click.argument("name", required=False)
@_books_options
@click.option("--new-log", is_flag=True, help="With enrol: its audit log begins anew, as on another card.")
@click.option("--wipe", is_flag=True, help="With lost: order it to erase its keys and data.")
@json_option
def device(
    action: str, name: str | None, folder: Path, database: str | None, new_log: bool, wipe: bool, as_json: bool
) -> None:
    """The handhelds that the status server knows.

    \b
    Examples:
      markcheck sandbox device list
      markcheck sandbox device enrol handheld-7            a code for one enrolment, good for a day
      markcheck sandbox device hold handheld-7             no new certificate, no epoch key
      markcheck sandbox device lost handheld-7 --wipe      nothing any more, but the order to erase itself
      markcheck sandbox device restore handheld-7
    """
    if (name is None) != (action == "list"):
        raise click.UsageError("NAME goes with every action but list")
    if (new_log and action != "enrol") or (wipe and action != "lost"):
        raise click.UsageError("--new-log goes with enrol, --wipe with lost")
    with closing(open_books(_home(folder), database)) as books:
        try:
            if name is None:
                _list(books, as_json)
            elif action == "enrol":
                click.echo(books.enrolment_code(name, system_clock(), new_log=new_log))
            else:
                books.set_state(name, ACTIONS[action], wipe=wipe)
        except (DeviceError, DatabaseError) as exc:
            raise RegistryError(str(exc)) from exc


def _list(books: StatusStore, as_json: bool) -> None:
    for known in books.devices():
        if as_json:
            print_json(known)
            continue
        until = known["certificate_until"] or "none"
        click.echo(f"{known['device']:40} {known['state']:7} certificate until {until}, audit {known['audit_seq']}")
        if known["audit_alarms"]:
            problem(f"{known['device']}: its audit log does not continue what it sent before")


@click.command()
@_books_options
@json_option
def reports(folder: Path, database: str | None, as_json: bool) -> None:
    """Checks that devices reported as confirmed, corrected or disputed, the oldest first, with the vehicle's plate.

    \b
    Examples:
      markcheck sandbox reports
    """
    home = _home(folder)
    lookup = Lookup(LiveAuthority(home, clock=system_clock))
    with closing(open_books(home, database)) as books:
        for name, received_at, body in books.reports():
            report = decode_report(body)
            plate = lookup.plate(report.vehicle)
            line = {
                "device": name, "received_at": received_at.isoformat(), "check": report.check_id.hex(),
                "reason": report.reason.value, "plate": plate.text if plate else None,
                "kind": plate.kind if plate else None, "checked_at": report.checked_at.isoformat(),
                "then": report.then.value, "now": report.now.value,
            }  # fmt: skip
            if as_json:
                print_json(line)
            else:
                click.echo("  ".join(str(value) for value in line.values()))
