"""What all commands share: remarks on stderr, progress bars, options, groups that load late."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from firmware.config import Home, default_home

EXIT_USAGE = 2
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
F = TypeVar("F", bound=Callable[..., Any])

ProgressCallback = Callable[[str, int, int], None]


def problem(text: str) -> None:
    """One line on stderr about what went wrong."""
    click.echo(f"markcheck: {text}", err=True)


def print_json(value: object) -> None:
    """One JSON object on one line on stdout."""
    click.echo(json.dumps(value, ensure_ascii=False))


def write_private(path: Path, lines: Iterable[bytes]) -> None:
    """A file for its owner alone."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as target:
        target.writelines(lines)


@contextmanager
def progress_bar() -> Iterator[ProgressCallback]:
    """A bar on stderr for each named step; nothing where stderr is no terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as bars:
        tasks: dict[str, TaskID] = {}

        def update(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step, total=total)
            bars.update(tasks[step], completed=done, total=total)

        yield update


class LateGroup(click.Group):
    """A group that loads the module of a command when the command is asked for, and no module to list them all.

    `commands_at` has for each name where the command is, as module:attribute, and the first line of its help.
    """

    def __init__(self, *args: Any, commands_at: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.commands_at = commands_at

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in the table."""
        return sorted(self.commands_at)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, None when there is none."""
        if cmd_name not in self.commands_at:
            return None
        module, attribute = self.commands_at[cmd_name][0].split(":")
        command = getattr(import_module(module), attribute)
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table as a list."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.commands_at[name][1]) for name in self.list_commands(ctx)])


def _home(_: click.Context, __: click.Parameter, value: Path | None) -> Home:
    return Home(value or default_home())


def home_option(function: F) -> F:
    """--home DIR, given to the command as a `Home`."""
    return click.option(
        "--home",
        type=click.Path(file_okay=False, path_type=Path),
        callback=_home,
        help="Folder of the device's files.  [default: $MARKCHECK_HOME or ~/.local/share/markcheck]",
    )(function)


def json_option(function: F) -> F:
    """--json, given to the command as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for machines, one object a line.")(function)
