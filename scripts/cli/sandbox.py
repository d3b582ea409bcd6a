"""`markcheck sandbox`: an authority with made-up vehicles, for demos, training and tests."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click

from scripts.cli.console import json_option, print_json, progress_bar
from scripts.sandbox.authority import EVENTS, Authority, AuthorityFolder
from scripts.sandbox.codes import Code, print_sheet, qr_picture
from scripts.sandbox.fleet import MAX_SCALE, Vehicle
from scripts.sandbox.server import serve as serve_files
from verifier.clock import system_clock
from verifier.errors import PlateError
from verifier.plates import display_text, parse_plate
from verifier.types import Month, Plate, PresentationMode

DEFAULT_SCALE = 20_000
PORT = 8122
RENEWAL_S = 12 * 3600  # seconds; the signed time stamp lives 48 hours
MODES = {mode.value: mode for mode in PresentationMode}

_FOLDER = click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("sandbox"),
    show_default=True,
    help="Folder of the sandbox authority.",
)


@click.group()
def sandbox() -> None:
    """An authority with made-up vehicles: issues credentials, publishes and serves the signed distribution.

    \b
    Examples:
      markcheck sandbox serve                          make one if there is none, publish, serve on this machine
      markcheck sandbox issue --mode stored --out code.png
      markcheck sandbox event revoke --plate 京N5U677
      markcheck sandbox publish                        publish what has changed

    Its format is a documented reference format, not that of any real platform. Its private keys lie in
    FOLDER/private: keep that folder off every device.
    """


def _open_or_create(folder: AuthorityFolder, scale: int | None, seed: int | None) -> Authority:
    if folder.exists():
        if scale is not None or seed is not None:
            raise click.UsageError(f"{folder.folder} holds an authority already: --scale and --seed make a new one")
        return folder.open(clock=system_clock)
    click.echo(f"making a new authority in {folder.folder}", err=True)
    return folder.create(clock=system_clock, scale=scale or DEFAULT_SCALE, seed=1 if seed is None else seed)


def _publish(authority: Authority) -> None:
    began = time.monotonic()
    with progress_bar() as progress:
        published = authority.publish(progress)
    click.echo(
        f"published no. {published.seq}: {published.vehicles:,} vehicles in {time.monotonic() - began:.1f} s", err=True
    )


_SCALE = click.option(
    "--scale",
    type=click.IntRange(16, MAX_SCALE),
    help=f"Vehicles of a new authority.  [default: {DEFAULT_SCALE}]",
)
_SEED = click.option("--seed", type=int, help="Seed of a new authority's vehicles.  [default: 1]")


@sandbox.command()
@_FOLDER
@_SCALE
@_SEED
def publish(folder: Path, scale: int | None, seed: int | None) -> None:
    """Publish the register into FOLDER/public, for any web server to hand out.

    \b
    Examples:
      markcheck sandbox publish
      markcheck sandbox publish --folder big --scale 1000000
    """
    _publish(_open_or_create(AuthorityFolder(folder), scale, seed))


@sandbox.command()
@_FOLDER
@_SCALE
@_SEED
@click.option(
    "--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="Port; 0 for any free one."
)
@click.option("--seconds", type=click.FloatRange(0, 10**8), help="Stop after so many seconds.  [default: at Ctrl-C]")
def serve(folder: Path, scale: int | None, seed: int | None, port: int, seconds: float | None) -> None:
    """Publish, and serve the distribution on this machine until Ctrl-C.

    \b
    Examples:
      markcheck sandbox serve
      markcheck sandbox serve --scale 100000 --folder big --port 8200
    """
    home = AuthorityFolder(folder)
    authority = _open_or_create(home, scale, seed)
    _publish(authority)
    with serve_files(authority.store, port=port) as server:
        click.echo(f"serving {server.url}  (Ctrl-C stops)")
        click.echo(f"  markcheck sync --from {server.url} --root {home.root_file} --epoch-key {home.epoch_key_file}")
        end = time.monotonic() + (10**8 if seconds is None else seconds)
        try:
            while (left := end - time.monotonic()) > 0:
                time.sleep(min(left, RENEWAL_S))
                authority.publisher.renew()
        except KeyboardInterrupt:
            click.echo("stopped", err=True)


def _plate_option(function: Any) -> Any:
    function = click.option("--kind", help="Plate kind, where several vehicles carry the text.")(function)
    return click.option("--plate", help="The vehicle's plate.")(function)


@sandbox.command()
@_FOLDER
@_plate_option
@click.option("--mode", type=click.Choice(sorted(MODES)), default="stored", show_default=True, help="Presentation.")
@click.option("--count", type=click.IntRange(1, 1000), default=1, show_default=True, help="How many vehicles.")
@click.option("--out", type=click.Path(path_type=Path), help="PNG file, or a folder when there are several.")
@click.option("--sheet", type=click.Path(dir_okay=False, path_type=Path), help="A4 sheet to print, .pdf or .png.")
@json_option
def issue(
    folder: Path,
    plate: str | None,
    kind: str | None,
    mode: str,
    count: int,
    out: Path | None,
    sheet: Path | None,
    as_json: bool,
) -> None:
    """Issue credentials as texts, QR pictures or a sheet to print. Without --plate, vehicles are drawn at random.

    \b
    Examples:
      markcheck sandbox issue --out code.png
      markcheck sandbox issue --plate 京N5U677 --mode printed --sheet sheet.pdf
      markcheck sandbox issue --count 100 --out codes/
    """
    if plate is not None and count != 1:
        raise click.UsageError("--plate and --count exclude each other")
    if out is not None and (out.is_dir() if count == 1 else out.is_file()):
        raise click.UsageError("--out takes a PNG file for one code and a folder for several")
    if sheet is not None and (count > 6 or sheet.suffix.lower() not in (".pdf", ".png")):
        raise click.UsageError("--sheet takes up to six codes and a name that ends in .pdf or .png")
    authority = AuthorityFolder(folder).open(clock=system_clock)
    codes = []
    for vehicle in _vehicles(authority, plate, kind, count):
        text = authority.text(vehicle.plate, MODES[mode])
        codes.append(Code(text, f"{display_text(vehicle.plate)}  {vehicle.valid_until}  {mode}"))
        if as_json:
            print_json({"plate": vehicle.plate.text, "kind": vehicle.plate.kind, "mode": mode, "text": text})
        elif out is None and sheet is None:
            click.echo(text)
        if out is not None:
            _save(text, out if count == 1 else out / f"{vehicle.plate.text}-{vehicle.plate.kind}.png")
    if sheet is not None:
        print_sheet(codes, sheet)
        click.echo(f"wrote {sheet}", err=True)


def _vehicles(authority: Authority, plate: str | None, kind: str | None, count: int) -> Iterator[Vehicle]:
    if plate is not None:
        yield authority.registry.find(_parse(plate, kind))
        return
    everyone = list(authority.registry.vehicles.values())
    random.shuffle(everyone)
    yield from islice(everyone, count)


def _parse(plate: str, kind: str | None) -> Plate:
    try:
        return parse_plate(plate, kind)
    except PlateError as exc:
        raise click.UsageError(str(exc)) from exc


def _save(text: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    qr_picture(text).save(path, format="PNG")
    click.echo(f"wrote {path}", err=True)


@sandbox.command()
@click.argument("event", type=click.Choice(sorted(EVENTS)))
@_FOLDER
@_plate_option
@click.option("--until", metavar="YYYY-MM", help="Inspection month, for renew and lapse.")
@click.option("--letters", help="Status letters, for status.")
@click.option("--new-plate", help="The plate a replated vehicle gets.")
def event(
    event: str,
    folder: Path,
    plate: str | None,
    kind: str | None,
    until: str | None,
    letters: str | None,
    new_plate: str | None,
) -> None:
    """Change the register; the change is published with the next 'publish' or 'serve'.

    \b
    Examples:
      markcheck sandbox event revoke --plate 京N5U677
      markcheck sandbox event renew --plate 京N5U677 --until 2028-11
      markcheck sandbox event lapse --plate 京N5U677 --until 2026-05
      markcheck sandbox event status --plate 京N5U677 --letters C
      markcheck sandbox event replate --plate 京N5U677 --new-plate 京A12345
    """
    if plate is None:
        raise click.UsageError("--plate is needed")
    typed = _parse(plate, kind)
    wanted: dict[str, Any] = {"event": event}
    if event in ("renew", "lapse"):
        wanted["until"] = _month(until)
    if event == "status":
        if not letters:
            raise click.UsageError("--letters is needed")
        wanted["letters"] = letters
    new = _parse(new_plate or "", None) if event == "replate" else None
    home = AuthorityFolder(folder)
    authority = home.open(clock=system_clock)
    target = authority.registry.find(typed).plate
    if new is not None:
        wanted |= {"new_plate": new.text, "new_kind": new.kind or target.kind}
    home.record(authority, {**wanted, "plate": target.text, "kind": target.kind})


def _month(text: str | None) -> str:
    try:
        return str(Month.parse(text or ""))
    except ValueError as exc:
        raise click.UsageError("--until takes a month, YYYY-MM") from exc
