"""`markcheck officers`: who may log in at this handheld."""

from __future__ import annotations

import sys

import click

from firmware.config import Home
from scripts.cli.console import home_option, json_option, print_json, problem
from verifier.officers import Officer, OfficerFile
from verifier.verdict import Role


@click.group()
def officers() -> None:
    """Who may log in at this handheld: add, list, remove.

    They have to where its settings say `[officers] required = true`.

    \b
    Examples:
      markcheck officers add 110001
      markcheck officers add 110009 --role technician
      markcheck officers list
      markcheck officers remove 110001
    """


@officers.command()
@click.argument("number")
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default=Role.OFFICER.value,
    show_default=True,
    help="What the number may do: an officer everything, a technician sync and self-test, an auditor the history; "
    "insurer, rental and gate get yes or no and the month.",
)
@click.option("--pin-stdin", is_flag=True, help="Read the PIN from the first line of stdin, and ask nobody.")
@home_option
def add(number: str, role: str, pin_stdin: bool, home: Home) -> None:
    """Enter a NUMBER of up to 12 digits with a PIN of 6 to 12, or give it a new PIN and role.

    Wrong PINs of before are forgotten. A running program knows the number at once.

    \b
    Examples:
      markcheck officers add 110001
      markcheck officers add 110007 --role auditor --pin-stdin < pin.txt
    """
    pin = sys.stdin.readline().rstrip("\r\n") if pin_stdin else _asked()
    home.folder.mkdir(parents=True, exist_ok=True)
    OfficerFile(home.officers).put(number, Role(role), pin)
    click.echo(f"{number}: {role}")


def _asked() -> str:
    pin: str = click.prompt("PIN", hide_input=True, confirmation_prompt=True)
    return pin


@officers.command("list")
@json_option
@home_option
def listed(as_json: bool, home: Home) -> None:
    """The numbers and their roles.

    \b
    Examples:
      markcheck officers list
      markcheck officers list --json
    """
    found = OfficerFile(home.officers).officers()
    for officer in found:
        _tell(officer, as_json)
    if not found:
        problem("nobody was entered: 'markcheck officers add' does that")


def _tell(officer: Officer, as_json: bool) -> None:
    if as_json:
        print_json({"number": officer.officer_id, "role": officer.role.value})
    else:
        click.echo(f"{officer.officer_id:<12}  {officer.role.value}")


@officers.command()
@click.argument("number")
@home_option
def remove(number: str, home: Home) -> int:
    """Take a NUMBER out: from its next login on it is not let in.

    \b
    Examples:
      markcheck officers remove 110001
    """
    if OfficerFile(home.officers).remove(number):
        click.echo(f"{number}: removed")
        return 0
    problem("there is no such number here")
    return 1
