"""The SPI bus of the panel: luma's own, down to the bytes and to the line that says what they are."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable

import pytest
from gpiozero import Device
from gpiozero.pins.mock import MockFactory
from PIL import Image

from firmware.panel import PanelAtHand
from firmware.settings import PanelSettings, read_settings
from hw.display.bus import SpiBus
from hw.display.simulator import SimulatedPanel
from hw.errors import DeviceNotFoundError, HardwareError

DC, RESET = 17, 18
PICTURE = Image.frombytes("1", (128, 64), random.Random(3).randbytes(1024))


class Port:
    """As a `spidev.SpiDev`, with a controller at its end that looks at the line D/C."""

    def __init__(self, pins: MockFactory, glass: SimulatedPanel) -> None:
        self.pins, self.glass = pins, glass
        self.max_speed_hz = 0
        self.opened: tuple[int, int] | None = None

    def open(self, bus: int, device: int) -> None:
        self.opened = (bus, device)

    def writebytes(self, values: Iterable[int]) -> None:
        assert self.pins.pin(RESET).state == 1, "held in reset"
        self.glass.data(bytes(values)) if self.pins.pin(DC).state else self.glass.command(*values)

    def close(self) -> None:
        self.opened = None


def test_a_picture_arrives_over_spi_with_its_lines_on_the_pins_of_the_settings() -> None:
    pins, glass = MockFactory(), SimulatedPanel()
    port = Port(pins, glass)
    settings = read_settings(f"[panel]\ndc = {DC}\nreset = {RESET}\n").panel

    def bus(panel: PanelSettings) -> SpiBus:
        return SpiBus(dc=panel.dc, reset=panel.reset, factory=pins, port=port)

    panel = PanelAtHand(settings, bus)
    panel.show(PICTURE)
    assert glass.image().tobytes() == PICTURE.tobytes()
    assert (port.opened, port.max_speed_hz) == ((0, 0), 8_000_000)
    assert [state.state for state in pins.pin(RESET).states[-2:]] == [0, 1]  # a pulse
    panel.close()
    assert port.opened is None
    SpiBus(dc=DC, reset=RESET, factory=pins, port=port).cleanup()  # pins and port were given back


def test_without_the_bus_or_its_library_the_pins_are_free_for_the_next_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spidev", None)
    pins, glass = MockFactory(), SimulatedPanel()
    panel = PanelAtHand(PanelSettings(), lambda s: SpiBus(dc=s.dc, reset=s.reset, factory=pins))
    for _ in range(2):
        with pytest.raises(ImportError, match="spidev"):
            panel.show(PICTURE)
    SpiBus(dc=24, reset=25, factory=pins, port=Port(pins, glass)).cleanup()


def test_a_panel_that_does_not_start_gives_its_bus_back_for_the_next_try() -> None:
    pins, glass = MockFactory(), SimulatedPanel()
    panel = PanelAtHand(PanelSettings(), lambda _: SpiBus(dc=DC, reset=RESET, factory=pins, port=Port(pins, glass)))
    glass.unplug()
    for _ in range(2):
        with pytest.raises(HardwareError, match="start sequence not taken"):
            panel.show(PICTURE)
    glass.replug()
    panel.show(PICTURE)
    assert glass.image().tobytes() == PICTURE.tobytes()


def test_a_line_on_a_pin_that_another_part_has_is_a_named_fault() -> None:
    pins = MockFactory()
    port = Port(pins, SimulatedPanel())
    held = SpiBus(dc=DC, reset=RESET, factory=pins, port=port)
    with pytest.raises(DeviceNotFoundError, match=f"panel: pin {RESET}"):
        SpiBus(dc=DC + 10, reset=RESET, factory=pins, port=port)
    held.cleanup()
    held.cleanup()


def test_the_bus_of_the_settings_is_lumas_own_with_what_is_missing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Device, "pin_factory", MockFactory())
    monkeypatch.setitem(sys.modules, "spidev", None)
    with pytest.raises(DeviceNotFoundError, match=r"no spi bus \(ModuleNotFoundError\)"):
        PanelAtHand(PanelSettings()).show(PICTURE)
