"""The first moments: settings, panel, first picture. Only then is everything else loaded.

Loading the verifier takes longer than an officer likes to look at a dark panel, so this module imports none of it at
its top, nor a database, ciphers, pins or the network.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from firmware.choices import FILE, chosen_language
from firmware.panel import PanelAtHand, two_lines
from firmware.settings import LAST_GOOD, CentreSettings, SettingsError, load_settings
from hw.errors import HardwareError

if TYPE_CHECKING:
    from firmware.app import Panel
    from firmware.wiring import Inputs
    from verifier.wording import Language

FAILED = 1
_STARTING = {"zh": "正在启动", "en": "STARTING"}


def start(config: Path, home: Path | None, *, panel: Panel | None = None, inputs: Inputs | None = None) -> int:
    """Run the program of this configuration: 0 when it was switched off or told to end, 1 when it could not go on,
    130 after ^C. `panel` and `inputs` stand in place of those that the settings name."""
    try:
        settings, remark = load_settings(config, (home or _default_home()) / LAST_GOOD)
    except SettingsError as exc:
        print(f"markcheck: {exc}", file=sys.stderr)
        return FAILED
    folder = home or (Path(settings.paths.home).expanduser() if settings.paths.home else _default_home())
    settings, remark = CentreSettings(folder).over(settings, remark)
    if remark:
        print(f"markcheck: {remark}", file=sys.stderr)
    shown = panel or PanelAtHand(settings.panel)
    first_picture(shown, chosen_language(folder / FILE, settings.device.language))
    from firmware.wiring import run_program  # noqa: PLC0415 - the first picture is on the panel by now

    return run_program(settings, remark, shown, inputs, config=config, home=home)


def _default_home() -> Path:
    from firmware.config import default_home  # noqa: PLC0415 - loads more than the first picture needs

    return default_home()


def first_picture(panel: Panel, language: Language) -> None:
    """The name and that it starts. A panel that does not take it is told of later, by the program."""
    from firmware.fonts import FontMissingError  # noqa: PLC0415 - loads PIL

    with suppress(HardwareError, FontMissingError):
        panel.show(two_lines(panel.size, ("MARKCHECK", _STARTING[language])))
