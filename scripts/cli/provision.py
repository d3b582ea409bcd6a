"""`markcheck provision`: settings and enrolment out of a signed file."""

from __future__ import annotations

from pathlib import Path

import click

from firmware.config import Home
from firmware.keeper import default_run
from firmware.provision import MAX_FILE, ConsumedError, Provisioner, ProvisionError, board_serial
from scripts.cli.console import home_option, problem
from scripts.cli.enrol import certificate_text
from verifier.clock import system_clock
from verifier.identity import IdentityError, Why
from verifier.secret_files import destroy

CONSUMED = 3  # exit status
AGAIN = 75  # exit status: EX_TEMPFAIL of sysexits.h

_PASSING = (Why.UNREACHABLE, Why.CLOCK)


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("/etc/markcheck/markcheck.toml"),
    show_default=True,
    help="The settings file that is replaced.",
)
@click.option(
    "--root",
    "root_file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("/opt/markcheck/root.json"),
    show_default=True,
    help="The root metadata that this device was given; they name the key that signs such files.",
)
@home_option
def provision(file: Path, config: Path, root_file: Path, home: Home) -> int:
    """Make this device what a signed file says: its settings and its enrolment, once.

    \b
    Examples:
      markcheck provision markcheck-provision.cose
      markcheck provision file.cose --config markcheck.toml --root sandbox/root.json --home /tmp/device

    The file is checked as a whole before anything is written, and destroyed when all is done. Exit status: 0 applied,
    1 refused, 2 wrong usage, 3 applied before, 75 the centre cannot be reached now: the same file serves again.
    """
    with file.open("rb") as opened:
        data = opened.read(MAX_FILE + 1)
    device = Provisioner(home, config, _root(root_file), system_clock, default_run(), board_serial())
    try:
        certificate = device.apply(data)
    except ConsumedError as exc:
        problem(str(exc))
        _destroy(file)
        return CONSUMED
    except IdentityError as exc:
        problem(str(exc))
        return AGAIN if exc.why in _PASSING else 1
    click.echo(certificate_text(certificate, system_clock()))
    _destroy(file)
    return 0


def _root(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as exc:
        raise ProvisionError(f"{file}: {exc.strerror}; scripts/install --trust-root, or --root FILE") from exc


def _destroy(file: Path) -> None:
    try:
        destroy(file)
    except OSError as exc:  # a boot partition is root's, and the unit removes it there
        problem(f"note: {file.name} could not be destroyed here ({exc.strerror}): it serves no second time")
