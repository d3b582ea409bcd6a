"""`markcheck sandbox event`: what changes in the register and among the issuers' keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from scripts.cli.sandbox_options import FOLDER, plate_option, typed_plate
from scripts.sandbox.authority import EVENTS, KEY_EVENTS, Authority, AuthorityFolder
from scripts.sandbox.registry import RegistryError, city_of
from verifier.clock import system_clock
from verifier.plates import kinds_of, usual_kind
from verifier.types import SHANGHAI, Month, Plate

FIRST_MARK = 24  # months that a new vehicle's first mark is valid, where none are given

# The options that an event needs, and those that it may have.
_EVENT_OPTIONS: dict[str, tuple[set[str], set[str]]] = {
    "register": ({"plate"}, {"kind", "until", "city"}),
    "renew": ({"plate", "until"}, {"kind", "reason"}),
    "reissue": ({"plate"}, {"kind"}),
    "transfer": ({"plate"}, {"kind"}),
    "lost-paper": ({"plate"}, {"kind"}),
    "replate": ({"plate", "new_plate"}, {"kind"}),
    "revoke": ({"plate"}, {"kind"}),
    "lapse": ({"plate", "until"}, {"kind"}),
    "status": ({"plate", "letters"}, {"kind"}),
    "bind-tag": ({"plate", "tid"}, {"kind"}),
    "replace-tag": ({"plate", "tid"}, {"kind"}),
    "unbind-tag": ({"plate"}, {"kind"}),
    "rotate-key": ({"issuer"}, set()),
    "compromise-key": ({"issuer"}, {"kid"}),
}

# What becomes of it. The state of a credential comes with a night's status list, and not with the hot list.
_AS_HOT = ": 'markcheck sandbox publish' publishes it, and a running 'serve' does so itself"
_WITH_A_NIGHT = ": 'markcheck sandbox publish' publishes it, and then a sync brings it; a running 'serve' does not"
_BOTH = f"{_AS_HOT}; that the old credential is superseded waits for the next 'publish'"
_PUBLISHED = {
    "revoke": _WITH_A_NIGHT, "reissue": _WITH_A_NIGHT, "transfer": _WITH_A_NIGHT, "lost-paper": ": it changes nothing",
    "renew": _BOTH, "replate": _BOTH,
}  # fmt: skip


@click.command()
@click.argument("event", metavar="EVENT", type=click.Choice([*EVENTS, *KEY_EVENTS]))
@FOLDER
@plate_option
@click.option("--until", metavar="YYYY-MM", help="Inspection month, for renew, lapse and register.")
@click.option("--reason", type=click.Choice(["inspection", "exempt"]), help="Why renewed.  [default: inspection]")
@click.option("--letters", help="Status letters, for status.")
@click.option("--new-plate", help="The plate a replated vehicle gets.")
@click.option("--tid", metavar="HEX", help="The in-car tag's number, for bind-tag and replace-tag.")
@click.option("--city", help="Code or name of the city that registers, to be compared with the plate.")
@click.option("--issuer", metavar="CODE", help="Whose key: a city's code, or 000000 for the platform's freshness key.")
@click.option("--kid", metavar="HEX", help="For compromise-key: a retired key instead of the signing one.")
def event(event: str, folder: Path, **given: str | None) -> None:
    """Change the register or an issuer's key; 'publish' publishes the change.

    A running 'serve' does so itself for vehicles and keys; a credential that is revoked or superseded waits for the
    next 'publish'.

    \b
    Examples:
      markcheck sandbox event register --plate 粤B8D8D8 --city Shenzhen
      markcheck sandbox event renew --plate 京N5U677 --until 2028-11 --reason exempt
      markcheck sandbox event reissue --plate 京N5U677                 on request: the old credential is superseded
      markcheck sandbox event lost-paper --plate 京N5U677              changes nothing: the owner downloads it again
      markcheck sandbox event transfer --plate 京N5U677                another owner, who keeps the plate
      markcheck sandbox event replate --plate 京N5U677 --new-plate 京A12345
      markcheck sandbox event revoke --plate 京N5U677                  in wrong hands; 'reissue' then gives a new one
      markcheck sandbox event lapse --plate 京N5U677 --until 2026-05
      markcheck sandbox event status --plate 京N5U677 --letters C
      markcheck sandbox event replace-tag --plate 京N5U677 --tid E28011702000020A1B2C3D4E
      markcheck sandbox event rotate-key --issuer 440300               what the old key signed stays good
      markcheck sandbox event compromise-key --issuer 440300           what the old key signed is refused
    """
    options = {name: value for name, value in given.items() if value is not None}
    _check_options(event, set(options))
    home = AuthorityFolder(folder)
    if event in EVENTS:
        home.record(*_vehicle_event(home, event, options))
        click.echo(f"{event} recorded{_PUBLISHED.get(event, _AS_HOT)}", err=True)
        return
    authority = home.open(clock=system_clock)
    if "kid" in options:
        home.record_stolen(authority, options["issuer"], options["kid"].lower())
    else:
        home.record_key(authority, event, options["issuer"])
    click.echo(
        f"trust list version {authority.trust_version}: 'markcheck sandbox publish --trust-only' publishes it", err=True
    )


def _check_options(event: str, given: set[str]) -> None:
    needed, possible = _EVENT_OPTIONS[event]
    for name in sorted(needed - given):
        raise click.UsageError(f"--{name.replace('_', '-')} is needed")
    for name in sorted(given - needed - possible):
        raise click.UsageError(f"{event} takes no --{name.replace('_', '-')}")


def _vehicle_event(home: AuthorityFolder, event: str, options: dict[str, str]) -> tuple[Authority, dict[str, Any]]:
    """The authority, and the event as it is recorded; RegistryError for a vehicle or plate that is not there."""
    typed = typed_plate(options["plate"], options.get("kind"))
    wanted: dict[str, Any] = {"event": event}
    if "until" in options:
        wanted["until"] = _month(options["until"])
    elif event == "register":
        wanted["until"] = str(Month.at(system_clock()).plus(FIRST_MARK))
    wanted |= {name: options[name] for name in ("reason", "letters", "tid") if name in options}
    new = typed_plate(options["new_plate"], None) if event == "replate" else None
    authority = home.open(clock=system_clock)
    if event == "register":
        return authority, wanted | _registration(authority, typed, options.get("city"))
    target = authority.registry.find(typed).plate
    if new is not None:
        city_of(new.text)
        kept = target.kind in kinds_of(new.text)
        wanted |= {"new_plate": new.text, "new_kind": target.kind if kept else usual_kind(new.text)}
    return authority, {**wanted, "plate": target.text, "kind": target.kind}


def _registration(authority: Authority, plate: Plate, named: str | None) -> dict[str, Any]:
    """What a registration records beside its name and month."""
    city, now = city_of(plate.text), authority.clock()
    if named is not None and named.casefold() not in (city.code, city.name.casefold()):
        raise RegistryError(f"the plate belongs to {city.name} ({city.code})")
    return {
        "day": now.astimezone(SHANGHAI).date().isoformat(),
        "plate": plate.text,
        "kind": plate.kind or usual_kind(plate.text),
    }


def _month(text: str) -> str:
    try:
        return str(Month.parse(text))
    except ValueError as exc:
        raise click.UsageError("--until takes a month, YYYY-MM") from exc
