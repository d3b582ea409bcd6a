"""Whether this release can work on this device: run by a release that is not in use yet, before it may be.

    python -I -m firmware.health CONFIG

What the device lacks anyway (no data yet, no key of a shift) is no fault of the release.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from firmware.build import open_store
from firmware.config import Home, default_home
from firmware.fonts import FontMissingError, plate_font, text_font
from firmware.settings import LAST_GOOD, Settings, SettingsError, load_settings
from hw.qr.decoders import available_decoders
from verifier.errors import CacheMissingError, VerifierError

# What is loaded late while the program runs: an import that fails there would fail before an officer.
_LOADED_LATE = (
    "firmware.wiring", "firmware.scan_worker", "hw.display.panel", "verifier.check", "verifier.device_http",
    "verifier.online_http", "verifier.sync",
)  # fmt: skip
_OF_BUS = {"spi": ("hw.display.bus", "spidev"), "i2c": ("smbus2",), "simulated": ()}


def problems(config: Path, home: Path) -> list[str]:
    """What keeps this release from working with these settings and this home, in words; empty when nothing does."""
    found = _not_loaded(_LOADED_LATE)
    try:
        settings = _settings(config, home)
    except SettingsError as exc:
        return [*found, f"settings: {exc}"]
    found += _not_loaded(_OF_BUS[settings.panel.bus])
    if settings.camera.kind != "none" and not available_decoders():
        found.append("no decoder of codes works")
    try:
        plate_font(), text_font()
    except FontMissingError as exc:
        found.append(str(exc))
    return found + _data(Home(Path(settings.paths.home) if settings.paths.home else home))


def _not_loaded(names: tuple[str, ...]) -> list[str]:
    found = []
    for name in names:
        try:
            import_module(name)
        except (ImportError, OSError) as exc:
            found.append(f"{name}: {exc}")
    return found


def _settings(config: Path, home: Path) -> Settings:
    """As the program takes them, without keeping them: the last good ones where these cannot be used."""
    try:
        return load_settings(config)[0]
    except SettingsError:
        if not (home / LAST_GOOD).exists():
            raise
        return load_settings(home / LAST_GOOD)[0]


def _data(home: Home) -> list[str]:
    try:
        store, _ = open_store(home)
        try:
            store.info()
        finally:
            store.close()
    except CacheMissingError:
        return []
    except (VerifierError, OSError) as exc:
        return [f"data: {exc}"]
    return []


def main(arguments: list[str]) -> int:
    """0 when the release can work here; else 1 and the reasons on standard error."""
    found = problems(Path(arguments[0]), default_home())
    for problem in found:
        print(f"markcheck: {problem}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
