"""The first moments: settings, panel, first picture. Only then is everything else loaded.

Loading the verifier takes longer than an officer likes to look at a dark panel, so this module imports none of it at
its top, nor a database, ciphers, pins or the network.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firmware.settings import PanelSettings, SettingsError, load_settings
from hw.errors import DeviceNotFoundError, HardwareError

if TYPE_CHECKING:
    from PIL import Image

    from firmware.app import Panel
    from firmware.wiring import Inputs
    from verifier.wording import Language

FAILED = 1
LAST_GOOD = "last-good.toml"
_SIZES = {"ssd1322": (256, 64), "ssd1351": (128, 128)}  # all others: 128 x 64
_SIMULATED = {
    "sh1106": "hw.display.simulated_sh1106:SimulatedSh1106",
    "ssd1322": "hw.display.simulated_ram:SimulatedSsd1322",
    "ssd1351": "hw.display.simulated_ram:SimulatedSsd1351",
}
_STARTING = {"zh": "正在启动", "en": "STARTING"}


def start(config: Path, home: Path | None, *, panel: Panel | None = None, inputs: Inputs | None = None) -> int:
    """Run the program of this configuration: 0 when it was switched off or told to end, 1 when it could not go on,
    130 after ^C. `panel` and `inputs` stand in place of those that the settings name."""
    try:
        settings, remark = load_settings(config, (home or _default_home()) / LAST_GOOD)
    except SettingsError as exc:
        print(f"markcheck: {exc}", file=sys.stderr)
        return FAILED
    if remark:
        print(f"markcheck: {remark}", file=sys.stderr)
    shown = panel or PanelAtHand(settings.panel)
    first_picture(shown, settings.device.language)
    from firmware.wiring import run_program  # noqa: PLC0415 - the first picture is on the panel by now

    return run_program(settings, remark, shown, inputs, config=config, home=home)


def _default_home() -> Path:
    from firmware.config import default_home  # noqa: PLC0415 - loads more than the first picture needs

    return default_home()


def first_picture(panel: Panel, language: Language) -> None:
    """The name and that it starts. A panel that does not take it is told of later, by the program."""
    from firmware.fonts import FontMissingError  # noqa: PLC0415 - loads PIL

    with suppress(HardwareError, FontMissingError):
        panel.show(_picture(panel.size, _STARTING[language]))


def _picture(size: tuple[int, int], text: str) -> Image.Image:
    from PIL import Image  # noqa: PLC0415

    from firmware.fonts import plate_font, text_font  # noqa: PLC0415

    picture = Image.new("1", size)
    for top, line in ((size[1] // 2 - 18, plate_font().draw("MARKCHECK")), (size[1] // 2 + 4, text_font().draw(text))):
        picture.paste(line, ((size[0] - line.width) // 2, top))
    return picture


class PanelAtHand:
    """The panel that the settings name, opened when it is first used, and again when that failed."""

    def __init__(self, settings: PanelSettings, open_bus: Callable[[PanelSettings], Any] | None = None) -> None:
        self._settings, self._open_bus = settings, open_bus or _bus
        self._panel: Any = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, known before the panel is there."""
        return _SIZES.get(self._settings.model, (128, 64))

    def show(self, image: Image.Image) -> None:
        """Put a picture on the panel; HardwareError."""
        self._there().show(image)

    def contrast(self, level: int) -> None:
        """Brightness, 0 to 255; HardwareError."""
        self._there().contrast(level)

    def reset(self) -> None:
        """Tell the controller everything again; HardwareError."""
        self._there().reset()

    def close(self, *, keep_picture: bool = False) -> None:
        """Let go of it."""
        if self._panel is not None:
            self._panel.close(keep_picture=keep_picture)

    def _there(self) -> Any:
        if self._panel is None:
            from hw.display.panel import open_panel  # noqa: PLC0415 - loads luma

            self._panel = open_panel(self._settings.model, self._open_bus(self._settings))
        return self._panel


def _bus(settings: PanelSettings) -> Any:
    """The bus of a panel, or its simulation; DeviceNotFoundError."""
    if settings.bus == "simulated":
        module, name = _SIMULATED.get(settings.model, "hw.display.simulator:SimulatedPanel").split(":")
        return getattr(import_module(module), name)()
    from luma.core.error import Error  # noqa: PLC0415
    from luma.core.interface import serial  # noqa: PLC0415

    try:
        return serial.spi() if settings.bus == "spi" else serial.i2c()
    except (OSError, ImportError, RuntimeError, Error) as exc:
        raise DeviceNotFoundError("panel", f"no {settings.bus} bus ({type(exc).__name__})") from exc
