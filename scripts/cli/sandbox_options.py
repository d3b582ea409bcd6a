"""What the commands of `markcheck sandbox` share: the authority's folder, and a vehicle by its plate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from verifier.errors import PlateError
from verifier.plates import parse_plate
from verifier.types import Plate

FOLDER = click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("sandbox"),
    show_default=True,
    help="Folder of the sandbox authority.",
)


def plate_option(function: Any) -> Any:
    """The options by which a vehicle is named."""
    function = click.option("--kind", help="Plate kind, where several vehicles carry the text.")(function)
    return click.option("--plate", help="The vehicle's plate.")(function)


def typed_plate(plate: str, kind: str | None) -> Plate:
    """The plate as it was typed; UsageError for one that is none."""
    try:
        return parse_plate(plate, kind)
    except PlateError as exc:
        raise click.UsageError(str(exc)) from exc
