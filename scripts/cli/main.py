"""The command `markcheck`."""

from __future__ import annotations

import io
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import click

from firmware.fonts import FontMissingError
from hw.errors import HardwareError
from scripts.cli.bench import bench
from scripts.cli.cache import cache, sync
from scripts.cli.check import accident, check
from scripts.cli.console import EXIT_USAGE, problem
from scripts.cli.credential import credential
from scripts.cli.decide import decide, replay
from scripts.cli.doctor import doctor
from scripts.cli.sandbox import sandbox
from scripts.cli.trust import trust
from scripts.sandbox.registry import RegistryError
from verifier.errors import VerifierError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="markcheck")
def cli() -> None:
    """Check a vehicle's electronic inspection mark.

    \b
    Examples:
      markcheck sandbox serve                      an authority with made-up vehicles, on this machine
      markcheck sync --from http://127.0.0.1:8122/ --root sandbox/root.json
      markcheck check photo.png                    the verdict on a picture of a code
      markcheck check --plate 京A12345             the verdict on a plate
    """


for command in (check, accident, sync, cache, decide, replay, credential, trust, sandbox, bench, doctor):
    cli.add_command(command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status: 0 done, 1 not done, 2 wrong usage."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without Chinese must not cost the verdict
    try:
        status = cli.main(args=argv, prog_name="markcheck", standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        return EXIT_USAGE
    except click.exceptions.Abort:
        problem("stopped")
        return 130
    except _EXPECTED as exc:
        problem(str(exc))
        return 1
    except Exception as exc:  # noqa: BLE001 - the outermost edge: one line, and the place for who can mend it
        place = traceback.extract_tb(exc.__traceback__)[-1]
        problem(f"our mistake: {type(exc).__name__} in {Path(place.filename).name}, line {place.lineno}")
        return 1
    return status if isinstance(status, int) else 0


_EXPECTED = (VerifierError, HardwareError, FontMissingError, RegistryError, OSError)


if __name__ == "__main__":
    sys.exit(main())
