"""The panel that the settings name, whose driver is loaded when it is first used, and what stands on it while the
program does not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from firmware.settings import PanelSettings
from hw.display.sizes import SIZES
from hw.errors import DeviceNotFoundError, HardwareError

if TYPE_CHECKING:
    from PIL import Image


class PanelAtHand:
    """The panel that the settings name, opened when it is first used, and again when that failed."""

    def __init__(self, settings: PanelSettings, open_bus: Callable[[PanelSettings], Any] | None = None) -> None:
        self._settings, self._open_bus = settings, open_bus or _bus
        self._panel: Any = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, known before the panel is there."""
        return SIZES[self._settings.model]

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

            bus = self._open_bus(self._settings)
            try:
                self._panel = open_panel(self._settings.model, bus)
            except HardwareError:
                with suppress(OSError):
                    bus.cleanup()  # or the next try finds its own pins taken
                raise
        return self._panel


def two_lines(size: tuple[int, int], texts: tuple[str, str]) -> Image.Image:
    """Two words in the middle, light on black, before and after the program: nothing in it looks like a verdict.

    FontMissingError.
    """
    from PIL import Image  # noqa: PLC0415 - not loaded before it is needed

    from firmware.fonts import plate_font, text_font  # noqa: PLC0415

    picture = Image.new("1", size)
    tops = (size[1] // 2 - 18, size[1] // 2 + 4)
    for top, line in zip(tops, (plate_font().draw(texts[0]), text_font().draw(texts[1])), strict=True):
        picture.paste(line, ((size[0] - line.width) // 2, top))
    return picture


def _bus(settings: PanelSettings) -> Any:
    """The bus of a panel, or its simulation; DeviceNotFoundError."""
    if settings.bus == "simulated":
        from hw.display.simulated import SIMULATED  # noqa: PLC0415 - for a demo only

        return SIMULATED[settings.model]()
    from luma.core.error import Error  # noqa: PLC0415

    try:
        if settings.bus == "spi":
            from hw.display.bus import SpiBus  # noqa: PLC0415 - loads gpiozero

            return SpiBus(dc=settings.dc, reset=settings.reset)
        from luma.core.interface import serial  # noqa: PLC0415

        return serial.i2c()
    except (OSError, ImportError, RuntimeError, Error) as exc:
        raise DeviceNotFoundError("panel", f"no {settings.bus} bus ({type(exc).__name__})") from exc
