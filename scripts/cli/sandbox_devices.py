"""`markcheck sandbox device` and `reports`: the books of the status server."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from scripts.cli.console import FILE, json_option, print_json, problem
from scripts.cli.sandbox_options import FOLDER
from scripts.sandbox.authority import AuthorityFolder
from scripts.sandbox.database import DatabaseError, open_database, sqlite_database
from scripts.sandbox.device_ca import ca_file
from scripts.sandbox.follow import LiveAuthority
from scripts.sandbox.provision import make_provisioning
from scripts.sandbox.registry import RegistryError
from scripts.sandbox.status_lookup import Lookup
from scripts.sandbox.status_store import DeviceError, DeviceState, StatusStore
from verifier.clock import system_clock
from verifier.codec.online import decode_report
from verifier.secret_files import write_secret

_NEEDED = ("settings", "centre", "out")
ACTIONS = {"restore": DeviceState.ACTIVE, "hold": DeviceState.HELD, "lost": DeviceState.LOST}


def open_books(home: AuthorityFolder, url: str | None) -> StatusStore:
    """The books at this URL, or those in the authority's folder. RegistryError."""
    try:
        return StatusStore(sqlite_database(home.private / "status.db") if url is None else open_database(url))
    except DatabaseError as exc:
        raise RegistryError(str(exc)) from exc


def _books_options(function: Any) -> Any:
    function = click.option("--database", metavar="URL", help="As given to 'serve'.  [default: in FOLDER]")(function)
    return FOLDER(function)


def _home(folder: Path) -> AuthorityFolder:
    home = AuthorityFolder(folder)
    if not home.exists():
        raise RegistryError(f"no sandbox authority in {folder}: make one with 'markcheck sandbox serve'")
    return home


@click.command()
@click.argument("action", metavar="ACTION", type=click.Choice(["list", "enrol", "provision", *ACTIONS]))
@click.argument("name", required=False)
@_books_options
@click.option("--new-log", is_flag=True, help="With enrol: its audit log begins anew, as on another card.")
@click.option("--wipe", is_flag=True, help="With lost: order it to erase its keys and data.")
@click.option("--settings", type=FILE, help="With provision: its settings file (TOML).")
@click.option("--centre", metavar="URL", help="With provision: address of the status server, https.")
@click.option("--serial", help="With provision: the board's serial number, so that no other device takes the file.")
@click.option("--audit-key", type=FILE, help="With provision: the public key that its log is sealed to.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="With provision: the file to write.")
@json_option
def device(
    action: str,
    name: str | None,
    folder: Path,
    database: str | None,
    new_log: bool,
    wipe: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """The handhelds that the status server knows.

    \b
    Examples:
      markcheck sandbox device list
      markcheck sandbox device enrol handheld-7            a code for one enrolment, good for a day
      markcheck sandbox device provision handheld-7 --settings handheld.toml --centre https://127.0.0.1:8124 \\
          --serial 10000000a1b2c3d4 --out markcheck-provision.cose
      markcheck sandbox device hold handheld-7             no new certificate, no epoch key
      markcheck sandbox device lost handheld-7 --wipe      nothing any more, but the order to erase itself
      markcheck sandbox device restore handheld-7
    """
    if (name is None) != (action == "list"):
        raise click.UsageError("NAME goes with every action but list")
    if (new_log and action not in ("enrol", "provision")) or (wipe and action != "lost"):
        raise click.UsageError("--new-log goes with enrol and provision, --wipe with lost")
    if any(given.values()) != (action == "provision") or (action == "provision" and not all(map(given.get, _NEEDED))):
        raise click.UsageError("provision, and nothing else, takes --settings, --centre and --out")
    with closing(open_books(_home(folder), database)) as books:
        try:
            if name is None:
                _list(books, as_json)
            elif action == "enrol":
                click.echo(books.enrolment_code(name, system_clock(), new_log=new_log))
            elif action == "provision":
                _provision(AuthorityFolder(folder), books, name, new_log, **given)
            else:
                books.set_state(name, ACTIONS[action], wipe=wipe)
                _tell_state(name, ACTIONS[action], wipe=wipe, as_json=as_json)
        except (DeviceError, DatabaseError) as exc:
            raise RegistryError(str(exc)) from exc


def _provision(
    home: AuthorityFolder,
    books: StatusStore,
    name: str,
    new_log: bool,
    *,
    settings: Path,
    centre: str,
    serial: str | None,
    audit_key: Path | None,
    out: Path,
) -> None:
    """Write a provisioning file with a fresh code; it is a secret until it is used."""
    if not ca_file(home.folder).exists():
        raise RegistryError("no CA for devices yet: 'markcheck sandbox serve' makes it")
    data = make_provisioning(
        home.open(clock=system_clock).publisher,
        settings=settings.read_text(encoding="utf-8"),
        centre=centre,
        ca=ca_file(home.folder).read_text(encoding="ascii"),
        code=books.enrolment_code(name, system_clock(), new_log=new_log),
        serial=serial or "",
        audit_key="" if audit_key is None else audit_key.read_text(encoding="ascii"),
    )
    write_secret(out, data)
    click.echo(f"wrote {out}: good for one enrolment within a day", err=True)


def _tell_state(name: str, state: DeviceState, *, wipe: bool, as_json: bool) -> None:
    if as_json:
        print_json({"device": name, "state": state.value, "wipe": wipe})
    else:
        click.echo(f"{name}: {state.value}{', ordered to erase itself' if wipe else ''}")


def _list(books: StatusStore, as_json: bool) -> None:
    for known in books.devices():
        if as_json:
            print_json(known)
            continue
        click.echo(_line(known))
        if known["audit_alarms"]:
            problem(f"{known['device']}: its audit log does not continue what it sent before")


def _line(known: dict[str, Any]) -> str:
    """One device: its standing, and what its last sign of life told, which is of the form in `status_api`."""
    beat = known["heartbeat"] or {}
    battery, age_s = beat.get("battery", {}).get("percent"), beat.get("data", {}).get("age_s")
    words = {
        "heard": (known["heard_at"] or "never")[:16],
        "battery": "-" if battery is None else f"{battery}%",
        "data": "-" if age_s is None else f"{age_s / 3600:.1f} h",
        "software": beat.get("software", "-"),
        "certificate until": (known["certificate_until"] or "none")[:16],
        "audit": known["audit_seq"],
    }
    told = "  ".join(f"{name} {value}" for name, value in words.items())
    return f"{known['device']:20} {known['state']:7}  {told}"


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
