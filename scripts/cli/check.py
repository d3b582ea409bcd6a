"""`markcheck check`: the verdict on pictures or on a plate."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from firmware.build import build_device
from firmware.config import Home
from firmware.scan import payloads
from firmware.screens import render_verdict
from firmware.views import VerdictView, terminal_card, verdict_view
from hw.camera.files import FileSource
from hw.display.panel import open_panel
from hw.display.simulator import SimulatedPanel
from hw.errors import FrameError
from hw.qr.decoders import available_decoders
from scripts.cli.console import home_option, json_option, print_json, problem
from verifier.audit import verdict_to_json
from verifier.check import CheckResult, Observation, Verifier
from verifier.clock import system_clock
from verifier.errors import PlateError
from verifier.plates import parse_plate
from verifier.types import PlateSeen
from verifier.wording import Language

SCREEN_SCALE = 4  # a panel pixel in the saved picture


@click.command()
@click.argument("pictures", nargs=-1, metavar="[PICTURE]...", type=click.Path(path_type=Path))
@click.option("--plate", help="The plate on the car, as typed by the officer.")
@click.option("--kind", help="Plate kind of GA/T 16.7, two digits.  [default: the commonest of the plate's class]")
@click.option("--paper/--no-paper", default=None, help="Whether a paper mark is displayed in the car.")
@click.option("--lang", type=click.Choice(["zh", "en"]), default="zh", show_default=True, help="Language.")
@click.option(
    "--screens",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for pictures of the officer's panel.",
)
@json_option
@home_option
def check(
    pictures: tuple[Path, ...],
    plate: str | None,
    kind: str | None,
    paper: bool | None,
    lang: Language,
    screens: Path | None,
    as_json: bool,
    home: Home,
) -> int:
    """The verdict on pictures of a code, or on a plate.

    \b
    Examples:
      markcheck check photo.png
      markcheck check --plate 京A12345 --kind 02
      markcheck check photo.png --plate 京A12345     is it the code of this car
      markcheck check photos/ --json
      markcheck check photo.png --lang en --screens out/

    A PICTURE is a picture file or a folder of them. Exit status: 0 when a verdict was reached for everything,
    1 when a picture could not be used, 2 for wrong usage.
    """
    if not pictures and plate is None:
        raise click.UsageError("give a PICTURE or --plate")
    try:
        typed = None if plate is None else PlateSeen(plate=parse_plate(plate, kind), confirmed=True)
    except PlateError as exc:
        raise click.UsageError(str(exc)) from exc
    if kind is not None and plate is None:
        raise click.UsageError("--kind goes with --plate")
    device = build_device(home, system_clock)
    for warning in device.warnings:
        problem(f"note: {warning}")
    seen = Observation(plate_seen=typed, paper_displayed=paper)
    unusable = False
    for name, result in _checks(device.verifier, pictures, seen):
        if isinstance(result, FrameError):
            unusable = True
            problem(str(result))
            continue
        view = verdict_view(result.verdict, now=result.now, language=lang)
        picture = None if screens is None else save_screen(view, screens, result.check_id)
        if as_json:
            print_json(_json(name, result, picture))
        else:
            _print(name, view, picture)
    device.store.close()
    return 1 if unusable else 0


def _checks(
    verifier: Verifier, pictures: tuple[Path, ...], seen: Observation
) -> Iterator[tuple[str, CheckResult | FrameError]]:
    if not pictures:
        yield "", verifier.check(seen)
        return
    decoders = available_decoders()
    for path in pictures:
        source = FileSource(path)
        for frame in source.frames():
            if isinstance(frame, FrameError):
                yield frame.component, frame
                continue
            for payload in payloads(frame, decoders):
                yield frame.name, verifier.check(dataclasses.replace(seen, code=payload))


def _print(name: str, view: VerdictView, picture: Path | None) -> None:
    if name:
        click.echo(name)
    click.echo(terminal_card(view, colour=sys.stdout.isatty()))
    if picture is not None:
        click.echo(f"panel: {picture}")


def _json(name: str, result: CheckResult, picture: Path | None) -> dict[str, Any]:
    return {
        "picture": name or None,
        "id": result.check_id,
        "at": result.now.isoformat(),
        **verdict_to_json(result.verdict),
        "panel": str(picture) if picture is not None else None,
    }


def save_screen(view: VerdictView, folder: Path, name: str) -> Path:
    """Show the view on a simulated panel through the real panel driver, and save what its glass shows as PNG."""
    glass = SimulatedPanel()
    panel = open_panel("ssd1309", glass)
    panel.show(render_verdict(view))
    image = glass.image()
    panel.close()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    image.resize((image.width * SCREEN_SCALE, image.height * SCREEN_SCALE)).save(path)
    return path
