"""The command `markcheck`."""

from __future__ import annotations

import io
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import click

from scripts.cli.console import EXIT_USAGE, LateGroup, problem

# Name: where the command is, and the first line of its help. Its module is loaded when the command is asked for.
COMMANDS = {
    "check": ("scripts.cli.check:check", "The verdict on pictures or a video of a code, or on a plate."),
    "accident": (
        "scripts.cli.check:accident",
        "Two vehicles of a self-settled accident: both verdicts, kept in one record.",
    ),
    "sync": ("scripts.cli.cache:sync", "Bring the status cache up to date from a signed distribution."),
    "cache": ("scripts.cli.cache:cache", "The status cache on this device."),
    "decide": ("scripts.cli.decide:decide", "Decide on evidence in a JSON file."),
    "replay": (
        "scripts.cli.decide:replay",
        "Decide again on every check in an audit log, or in one record taken out of it, and compare.",
    ),
    "audit": ("scripts.cli.audit:audit", "The log of all checks: verify, show, open, replay, export, upload, purge."),
    "credential": ("scripts.cli.credential:credential", "What stands in a code."),
    "trust": ("scripts.cli.trust:trust", "The keys whose signatures this device accepts."),
    "sandbox": (
        "scripts.cli.sandbox:sandbox",
        "An authority with made-up vehicles: issues credentials, publishes and serves the signed distribution.",
    ),
    "checkpoint": (
        "scripts.cli.checkpoint:checkpoint",
        "Check every car that passes a tag reader; only a finding is told.",
    ),
    "reader": (
        "scripts.cli.reader:reader",
        "A tag reader on a serial port, or in the network (llrp): ask it, read tags, look at its bytes.",
    ),
    "enrol": ("scripts.cli.enrol:enrol", "Make this device known at its centre: a key and a certificate of its own."),
    "shift": ("scripts.cli.enrol:shift", "The epoch key during a shift: fetched, held in memory, wrapped under a PIN."),
    "device": ("scripts.cli.enrol:device", "This device as a whole."),
    "provision": (
        "scripts.cli.provision:provision",
        "Make this device what a signed file says: its settings and its enrolment, once.",
    ),
    "update": ("scripts.cli.update:update", "Take a newer signed release into use, if there is one and it works."),
    "officers": ("scripts.cli.officers:officers", "Who may log in at this handheld: add, list, remove."),
    "run": ("scripts.cli.run:run", "Run the handheld's program until it is switched off, or Ctrl-C."),
    "console": ("scripts.cli.console_tty:console", "The technician's console: on a serial line, or in this terminal."),
    "bench": ("scripts.cli.bench:bench", "Measure on this machine."),
    "doctor": ("scripts.cli.doctor:doctor", "Whether the parts of this installation work."),
}

# Errors whose text is for the user, by name: naming them loads nothing, and what was not loaded was not raised.
EXPECTED = (
    "verifier.errors:VerifierError",
    "hw.errors:HardwareError",
    "firmware.config:ConfigError",
    "firmware.fonts:FontMissingError",
    "scripts.sandbox.registry:RegistryError",
    "builtins:OSError",
)


MESSAGE_LENGTH = 500  # characters


@click.group(
    cls=LateGroup,
    commands_at=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="markcheck")
def cli() -> None:
    """Check a vehicle's electronic inspection mark.

    \b
    Examples:
      markcheck sandbox serve                      an authority with made-up vehicles, on this machine
      markcheck sync --from http://127.0.0.1:8122/ --root sandbox/root.json --epoch-key sandbox/private/epoch.key
      markcheck check photo.png                    the verdict on a picture of a code
      markcheck check --plate 京A12345             the verdict on a plate
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status: 0 done, 1 not done, 2 wrong usage."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Chinese must not cost the verdict
    try:
        status = cli.main(args=argv, prog_name="markcheck", standalone_mode=False)
    except click.ClickException as exc:
        shown = io.StringIO()
        exc.show(shown)
        click.echo(_bounded(shown.getvalue()), nl=False, err=True)
        return EXIT_USAGE
    except click.exceptions.Abort:
        problem("stopped")
        return 130
    except Exception as exc:  # noqa: BLE001 - the outermost edge: one line, and the place for who can mend it
        if _is_expected(exc):
            problem(_bounded(_text_of(exc)))
            return 1
        place = traceback.extract_tb(exc.__traceback__)[-1]
        problem(f"our mistake: {type(exc).__name__} in {Path(place.filename).name}, line {place.lineno}")
        return 1
    return status if isinstance(status, int) else 0


def _text_of(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        named = f"{error.filename}: " if error.filename else ""
        return f"{named}{error.strerror}"
    return str(error)


def _bounded(text: str) -> str:
    """What is too long for a message loses its middle: a name of thousands of characters, or all of a bad file."""
    half = MESSAGE_LENGTH // 2
    return text if len(text) <= MESSAGE_LENGTH else f"{text[:half]} … {text[-half:]}"


def _is_expected(error: Exception) -> bool:
    return any(f"{kind.__module__}:{kind.__qualname__}" in EXPECTED for kind in type(error).__mro__)


if __name__ == "__main__":
    sys.exit(main())
