"""`markcheck run`: the handheld's program with the parts of a settings file, or with this terminal as its panel."""

from __future__ import annotations

from pathlib import Path

import click

from firmware.config import Home
from scripts.cli.console import FILE, home_option


@click.command()
@click.option(
    "--config",
    type=FILE,
    required=True,
    help="Settings (TOML).",
)
@click.option("--term", is_flag=True, help="Draw the panel in this terminal, and take the keys from it.")
@home_option
@click.pass_context
def run(context: click.Context, config: Path, term: bool, home: Home) -> int:
    """Run the handheld's program until it is switched off, or Ctrl-C.

    \b
    Examples:
      markcheck run --config docs/examples/demo.toml --term       without hardware, in this terminal
      markcheck run --config docs/examples/markcheck.toml         on the device

    Keys with --term: arrows, Enter (OK), Backspace or Esc (BACK), m (OK held: menu), b (BACK held), q (ends).
    The file's own home counts, unless --home is given. Exit status: 0 switched off or ended by SIGTERM, 1 when it
    could not go on, 2 wrong usage, 130 after Ctrl-C.
    """
    from firmware.start import start  # noqa: PLC0415 - loads the program step by step, the panel first

    given = home.folder if context.get_parameter_source("home") is click.core.ParameterSource.COMMANDLINE else None
    if not term:
        return start(config, given)
    from scripts.cli.terminal import Terminal  # noqa: PLC0415 - loads the program at once

    with Terminal() as terminal:
        return start(config, given, panel=terminal.panel, inputs=terminal.inputs())
