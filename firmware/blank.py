"""After the program has died: its last picture, perhaps a green verdict, must not greet the next car.

The service manager starts this when the program has ended (`ExecStopPost`). It tells how it ended by `SERVICE_RESULT`
(systemd.exec(5)): after a good end the last words, such as that the power may be cut, are left as they are.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from firmware.choices import FILE, chosen_language
from firmware.fonts import FontMissingError
from firmware.panel import PanelAtHand, two_lines
from firmware.settings import LAST_GOOD, CentreSettings, SettingsError, load_settings
from hw.errors import HardwareError

if TYPE_CHECKING:
    from firmware.app import Panel
    from verifier.wording import Language

DONE, FAILED = 0, 1
LIMIT_S = 6  # then it is ended by its own alarm: the program waits for this before it is started anew
_WORDS = {"zh": ("程序停止", "正在重启"), "en": ("STOPPED", "RESTARTING")}


def main(
    argv: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ, panel: Panel | None = None
) -> int:
    """0 when the panel says that the program has stopped, or when that is not so; 1 when it could not be told.

    `panel` stands in place of the one that the settings name.
    """
    parser = argparse.ArgumentParser(prog="python -m firmware.blank", description="Tell that the program has stopped.")
    parser.add_argument("--config", type=Path, required=True, help="settings (TOML)")
    options = parser.parse_args(argv)
    if environment.get("SERVICE_RESULT") == "success":
        return DONE
    home = environment.get("MARKCHECK_HOME", "")
    try:
        settings, _ = load_settings(options.config, Path(home) / LAST_GOOD if home else None)
        language = settings.device.language
        if named := settings.paths.home or home:
            folder = Path(named).expanduser()
            settings, _ = CentreSettings(folder).over(settings, "")
            language = chosen_language(folder / FILE, settings.device.language)
        tell(panel or PanelAtHand(settings.panel), language)
    except (SettingsError, HardwareError, FontMissingError) as exc:
        print(f"markcheck: {exc}", file=sys.stderr)
        return FAILED
    return DONE


def tell(panel: Panel, language: Language) -> None:
    """Put the words on the panel, where they stay. HardwareError, FontMissingError."""
    panel.show(two_lines(panel.size, _WORDS[language]))
    panel.close(keep_picture=True)


if __name__ == "__main__":
    signal.alarm(LIMIT_S)
    sys.exit(main())
