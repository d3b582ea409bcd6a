"""The lamp beside the camera, as the kernel offers it: a file that takes a brightness."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


class Lamp:
    """An LED of the kernel's class `leds` (Documentation/leds/leds-class.rst), by its folder; or no lamp at all.

    A lamp that does not answer keeps nobody from reading in daylight, so nothing here raises.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._lit: bool | None = None  # not known

    def light(self, on: bool) -> None:
        """On as bright as it goes, or off."""
        if self._folder is None or on is self._lit:
            return
        with suppress(OSError):
            (self._folder / "brightness").write_text(self._brightest() if on else "0", encoding="ascii")
            self._lit = on

    def _brightest(self) -> str:
        with suppress(OSError, ValueError):
            return str(int((self._folder / "max_brightness").read_text(encoding="ascii"))) if self._folder else "1"
        return "1"
