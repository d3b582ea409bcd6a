"""The appliance: `python -m firmware --config FILE`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from firmware.start import start


def main(argv: Sequence[str] | None = None) -> int:
    """Run until the officer switches off, or a signal; the exit status is that of `firmware.start`."""
    parser = argparse.ArgumentParser(prog="python -m firmware", description="The handheld's program.")
    parser.add_argument("--config", type=Path, required=True, help="settings (TOML)")
    parser.add_argument("--home", type=Path, help="folder of the device's files")
    options = parser.parse_args(argv)
    return start(options.config, options.home)


if __name__ == "__main__":
    sys.exit(main())
