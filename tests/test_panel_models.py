"""Every model of panel against its simulated controller, byte by byte, and our packers against luma's own bytes."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterable
from typing import get_args, get_type_hints

import luma.oled.device
import pytest
from luma.core.framebuffer import full_frame
from PIL import Image

from firmware.settings import PanelSettings
from hw.display.panel import MODELS, LumaPanel, open_panel
from hw.display.simulated import SIMULATED
from hw.display.simulated_ram import SimulatedSsd1322, SimulatedSsd1351
from hw.display.simulator import Module, PanelProtocolError
from hw.display.sizes import SIZES
from hw.errors import DeviceFaultError


def noise(model: str, seed: int = 1) -> Image.Image:
    row = MODELS[model]
    raw = random.Random(seed).randbytes(3 * row.size[0] * row.size[1])
    return Image.frombytes("RGB", row.size, raw).convert(row.mode, dither=Image.Dither.NONE)


def on_glass(model: str, picture: Image.Image) -> bytes:
    """What of a picture the controller's depth leaves."""
    if model == "ssd1322":
        return picture.point(lambda value: (value >> 4) * 17).tobytes()
    if model != "ssd1351":
        return picture.tobytes()
    red, green, blue = picture.split()
    five = [(value >> 3) * 255 // 31 for value in range(256)]
    six = [(value >> 2) * 255 // 63 for value in range(256)]
    return Image.merge("RGB", (red.point(five), green.point(six), blue.point(five))).tobytes()


@pytest.fixture(params=sorted(MODELS))
def model(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def glass(model: str) -> Module:
    return SIMULATED[model]()


@pytest.fixture
def panel(model: str, glass: Module) -> LumaPanel:
    return open_panel(model, glass)


def is_dark(glass: Module) -> bool:
    return glass.image().getbbox() is None


def test_every_model_has_a_size_a_driver_a_simulated_controller_and_a_name_in_the_settings() -> None:
    for table in (SIZES, SIMULATED, get_args(get_type_hints(PanelSettings)["model"])):
        assert set(table) == set(MODELS), f"add {set(table) ^ set(MODELS)} where it is not"


def test_the_start_sequence_leaves_a_lit_and_empty_panel(panel: LumaPanel, glass: Module, model: str) -> None:
    assert glass.on
    assert is_dark(glass)
    assert panel.size == glass.image().size == MODELS[model].size


@pytest.mark.parametrize("seed", range(3))
def test_a_picture_arrives_as_it_was_sent(panel: LumaPanel, glass: Module, model: str, seed: int) -> None:
    frames = glass.frames
    panel.show(noise(model, seed))
    assert glass.image().tobytes() == on_glass(model, noise(model, seed))
    assert glass.frames == frames + 1


class Recorder:
    """A bus that keeps what was sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []

    def command(self, *values: int) -> None:
        self.sent.append(("command", bytes(values)))

    def data(self, values: Iterable[int]) -> None:
        self.sent.append(("data", bytes(values)))

    def cleanup(self) -> None:
        pass


@pytest.mark.parametrize("seed", range(3))
def test_our_bytes_are_lumas_own(model: str, seed: int) -> None:
    row, bus, picture = MODELS[model], Recorder(), noise(model, seed)
    driver = getattr(luma.oled.device, row.driver)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        device = driver(bus, width=row.size[0], height=row.size[1])
        device.persist, device.framebuffer = True, full_frame()
        bus.sent.clear()
        device.display(picture if row.mode == "1" else picture.convert("RGB"))
    lumas = list(bus.sent)
    bus.sent.clear()
    row.send(device, picture)
    assert bus.sent == lumas


def test_contrast(panel: LumaPanel, glass: Module) -> None:
    for level in (0, 1, 255):
        panel.contrast(level)
        assert glass.contrast == level


def test_a_fault_of_the_bus_is_a_device_fault_and_reset_brings_everything_back(
    panel: LumaPanel, glass: Module, model: str
) -> None:
    panel.contrast(10)
    panel.show(noise(model))
    glass.unplug()
    for call in (lambda: panel.show(noise(model, 2)), lambda: panel.contrast(10), panel.reset):
        with pytest.raises(DeviceFaultError):
            call()
    glass.replug()
    assert is_dark(glass)
    panel.reset()
    assert glass.contrast == 10
    assert glass.image().tobytes() == on_glass(model, noise(model, 2))


def test_close_switches_off_or_leaves_the_last_page(model: str) -> None:
    for keep in (False, True):
        glass = SIMULATED[model]()
        panel = open_panel(model, glass)
        panel.show(noise(model))
        panel.close(keep_picture=keep)
        assert is_dark(glass) != keep
        assert glass.closed


def test_any_mode_of_picture_is_shown_without_dithering(panel: LumaPanel, glass: Module, model: str) -> None:
    for mode in ("1", "L", "RGB"):
        picture = Image.new(mode, MODELS[model].size)
        picture.paste(255 if mode != "RGB" else (255, 255, 255), (0, 0, 64, 32))
        panel.show(picture)
        assert glass.image().convert("1").getbbox() == (0, 0, 64, 32)


@pytest.mark.parametrize("model", ["sh1106", "ssd1322", "ssd1351"], indirect=True)
def test_what_a_controller_does_not_know_is_refused(panel: LumaPanel, glass: Module) -> None:
    for opcode in (0xD4, 0x2F, 256, -1):
        with pytest.raises(PanelProtocolError):
            glass.command(opcode)


def test_a_locked_command_and_another_mounting_are_refused() -> None:
    for made, opcode, argument in ((SimulatedSsd1351(), 0xB1, 0x32), (SimulatedSsd1351(), 0xA0, 0x72),
                                   (SimulatedSsd1322(), 0xA0, 0x06), (SimulatedSsd1322(), 0x15, 0x00)):  # fmt: skip
        with pytest.raises(PanelProtocolError):  # noqa: PT012 - the lock is refused at once, an argument when it comes
            made.command(opcode)
            made.data([argument, 0x7F])


def test_inversion_and_all_pixels_are_the_controllers_own(model: str) -> None:
    glass = SIMULATED[model]()
    open_panel(model, glass)
    glass.command(0xA7)
    assert glass.image().convert("L").getextrema() == (255, 255)
    glass.command(0xA6)
    assert is_dark(glass)
    glass.command(0xA5)
    assert glass.image().convert("L").getextrema() == (255, 255)
