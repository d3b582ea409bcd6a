"""`markcheck enrol`, `shift` and `device`: the device's certificate, the epoch key of a shift, and erasing it all."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from firmware.build import trusted_time
from firmware.config import Home
from firmware.keeper import (
    ERASED,
    Keeper,
    Kept,
    default_run,
    enrol_at,
    open_keeper,
    wipe_files,
)
from scripts.cli.console import FILE, home_option, json_option, print_json, problem
from verifier.clock import system_clock
from verifier.errors import SyncBusyError
from verifier.identity import REASONS, Certificate, IdentityError, Why
from verifier.wipe import Wiper, WipeRecord


@click.command()
@click.option("--centre", "url", metavar="URL", help="Address of the centre's status server, https.")
@click.option(
    "--ca",
    "ca_file",
    type=FILE,
    help="The one CA certificate (PEM) by which the centre is known; kept.",
)
@click.option("--code", help="The registrar's code for this device, good for one enrolment.")
@click.option("--renew", is_flag=True, help="Another certificate for the one there is.")
@click.option("--status", is_flag=True, help="What certificate there is, without asking anybody.")
@json_option
@home_option
def enrol(
    url: str | None, ca_file: Path | None, code: str | None, renew: bool, status: bool, as_json: bool, home: Home
) -> int:
    """Make this device known at its centre: a key and a certificate of its own.

    The key is made here and never leaves; the certificate lives for 72 hours.

    \b
    Examples:
      markcheck enrol --centre https://127.0.0.1:8124 --ca sandbox/device-ca.pem --code ABCDE-FGHJK-LMNPQ-RSTUV
      markcheck enrol --renew
      markcheck enrol --status --json

    Where an enrolment broke off, the same code may be given again. Exit status: 0 there is a certificate, 1 there is
    none, or none that is good.
    """
    first = any(value is not None for value in (url, ca_file, code))
    if first + renew + status != 1 or (first and not (url and ca_file and code)):
        raise click.UsageError("give --centre, --ca and --code, or --renew, or --status")
    if status:
        return _show_status(home, as_json)
    if url and ca_file and code:
        return _told(enrol_at(home, url, ca_file.read_bytes(), code, system_clock, default_run()), as_json)
    kept = _keeper(home).keep(denied=True)
    return _told_kept(kept, as_json)


def _keeper(home: Home) -> Keeper:
    keeper = open_keeper(home, system_clock, time=trusted_time(home, system_clock))
    if keeper is None:
        raise IdentityError(Why.NOT_ENROLLED)
    return keeper


def _told(certificate: Certificate, as_json: bool) -> int:
    now = system_clock()
    if as_json:
        print_json(certificate_json(certificate, now))
    else:
        click.echo(certificate_text(certificate, now))
    return 0 if now < certificate.not_after else 1


def _told_kept(kept: Kept, as_json: bool) -> int:
    for remark in kept.remarks:
        problem(remark)
    if kept.why is None and kept.certificate is not None:
        return _told(kept.certificate, as_json)
    if as_json:
        why = kept.why or Why.NOT_ENROLLED
        print_json({"enrolled": False, "why": why.value, "erased": kept.wiped is not None})
    elif kept.why is None:
        problem(REASONS[Why.NOT_ENROLLED])
    return 1


def _show_status(home: Home, as_json: bool) -> int:
    keeper = open_keeper(home, system_clock, time=trusted_time(home, system_clock))
    certificate = None if keeper is None else keeper.identity.certificate()
    if certificate is not None:
        return _told(certificate, as_json)
    wiped = _wiped(home)
    if as_json:
        erased = None if wiped is None else wiped.at.isoformat()
        print_json({"enrolled": False, "why": Why.NOT_ENROLLED.value, "erased_at": erased})
    else:
        problem(why_not_enrolled(home))
    return 1


def why_not_enrolled(home: Home) -> str:
    """Of a device without key or certificate, for people: it never had them, or it was erased."""
    return REASONS[Why.NOT_ENROLLED] if _wiped(home) is None else ERASED


def _wiped(home: Home) -> WipeRecord | None:
    return Wiper(wipe_files(home, None), system_clock).record()


def certificate_json(certificate: Certificate, now: datetime) -> dict[str, Any]:
    """A certificate for machines; `remaining_s` is 0 for one that has ended."""
    left = max(0, int((certificate.not_after - now).total_seconds()))
    return {
        "enrolled": left > 0,
        "device": certificate.device,
        "valid_until": certificate.not_after.isoformat(),
        "renew_from": certificate.renew_from.isoformat(),
        "remaining_s": left,
        "why": None if left else Why.EXPIRED.value,
    }


def certificate_text(certificate: Certificate, now: datetime) -> str:
    """A certificate for people."""
    until = certificate.not_after.isoformat(timespec="minutes")
    if now >= certificate.not_after:
        return f"{certificate.device}: {REASONS[Why.EXPIRED]} (it ended {until})"
    left = (certificate.not_after - now).total_seconds() / 3600
    due = ", due to be renewed" if now >= certificate.renew_from else ""
    return f"{certificate.device}: certificate until {until}, {left:.0f} h left{due}"


# ------------------------------------------------------------------------------------------------------ shift


@click.group()
def shift() -> None:
    """The epoch key during a shift: fetched, held in memory, wrapped under a PIN.

    \b
    Examples:
      markcheck shift begin --pin
      markcheck shift unlock               after a reboot without a network
      markcheck shift end
    """


@shift.command()
@click.option("--pin", is_flag=True, help="Ask for a PIN and keep the key on the card under it.")
@json_option
@home_option
def begin(pin: bool, as_json: bool, home: Home) -> int:
    """Fetch the epoch key; good for 72 hours, and gone with the power unless a PIN wraps it.

    \b
    Examples:
      markcheck shift begin
      markcheck shift begin --pin          for a reboot where there is no network
    """
    keeper = _keeper(home)
    chosen = click.prompt("PIN", hide_input=True, confirmation_prompt=True) if pin else None
    before = _wiped(home)
    try:
        key = keeper.begin_shift(chosen)
    except IdentityError as exc:
        problem(str(exc))
        if _wiped(home) != before:
            problem(ERASED)
        return 1
    _told_key(key.epoch, key.valid_until, as_json)
    return 0


@shift.command()
@json_option
@home_option
def unlock(as_json: bool, home: Home) -> None:
    """Open the wrapped key with the PIN. Five wrong ones in a row destroy it.

    \b
    Examples:
      markcheck shift unlock
    """
    keeper = _keeper(home)
    key = keeper.unlock(click.prompt("PIN", hide_input=True))
    _told_key(key.epoch, key.valid_until, as_json)


@shift.command()
@home_option
def end(home: Home) -> None:
    """Destroy the key of the shift, in memory and on the card; not one that 'sync --epoch-key' keeps in a file.

    \b
    Examples:
      markcheck shift end
    """
    was_one = _keeper(home).end_shift()
    told = "the key of the shift is destroyed" if was_one else "there was no key of a shift"
    click.echo(f"{told}; the one in {home.epoch_key.name} beside the data stays" if home.epoch_key.exists() else told)


def _told_key(epoch: int, until: datetime, as_json: bool) -> None:
    if as_json:
        print_json({"key_epoch": epoch, "valid_until": until.isoformat()})
    else:
        click.echo(f"the key of epoch {epoch} is here until {until.isoformat(timespec='minutes')}")


# ----------------------------------------------------------------------------------------------------- device


@click.group()
def device() -> None:
    """This device as a whole.

    \b
    Examples:
      markcheck device wipe --yes
    """


@device.command()
@click.option("--yes", is_flag=True, help="Without this nothing is erased.")
@home_option
def wipe(yes: bool, home: Home) -> int:
    """Erase keys, cache, re-check queue and audit log. What was not uploaded is lost.

    \b
    Examples:
      markcheck device wipe --yes

    What erases is the destruction of the keys; a card may keep blocks of deleted files, those of an audit log that is
    not sealed among them.
    """
    if not yes:
        problem(f"this erases all keys and data below {home.folder}: say --yes")
        return 2
    try:
        Wiper(wipe_files(home, default_run()), system_clock).by_hand()
    except SyncBusyError:
        problem("the keys are destroyed; a sync is running, so the data go with the next command")
        return 1
    click.echo("erased")
    return 0
