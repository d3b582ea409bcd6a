"""The panel: luma's real driver against the simulated controller, byte by byte."""

from __future__ import annotations

import atexit
import random

import pytest
from PIL import Image

from hw.display.panel import MODELS, LumaPanel, open_panel
from hw.display.simulator import PanelProtocolError, SimulatedPanel
from hw.errors import DeviceFaultError

SIZE = (128, 64)


def noise(seed: int = 1) -> Image.Image:
    return Image.frombytes("1", SIZE, random.Random(seed).randbytes(SIZE[0] * SIZE[1] // 8))


def is_dark(glass: SimulatedPanel) -> bool:
    return glass.image().getbbox() is None


@pytest.fixture(params=sorted(MODELS))
def glass(request: pytest.FixtureRequest) -> SimulatedPanel:
    return SimulatedPanel(needs_charge_pump=request.param == "ssd1306")


@pytest.fixture
def panel(glass: SimulatedPanel) -> LumaPanel:
    return open_panel("ssd1306" if glass.needs_charge_pump else "ssd1309", glass)


@pytest.fixture
def awake() -> SimulatedPanel:
    """A controller that was told the least it needs to show its RAM."""
    glass = SimulatedPanel()
    glass.command(0x20, 0x00, 0x8D, 0x14, 0xA1, 0xC8, 0xAF)
    glass.data(bytes(1024))
    return glass


# --------------------------------------------------------------------------------- driver and simulator


def test_the_start_sequence_clears_the_panel_before_it_is_lit(panel: LumaPanel, glass: SimulatedPanel) -> None:
    assert glass.on
    assert is_dark(glass)
    assert glass.commands > 20


@pytest.mark.parametrize("seed", range(5))
def test_a_picture_arrives_as_it_was_sent(panel: LumaPanel, glass: SimulatedPanel, seed: int) -> None:
    panel.show(noise(seed))
    assert glass.image().tobytes() == noise(seed).tobytes()


def test_one_frame_is_1024_bytes(panel: LumaPanel, glass: SimulatedPanel) -> None:
    frames, data_bytes = glass.frames, glass.data_bytes
    panel.show(noise())
    assert (glass.frames - frames, glass.data_bytes - data_bytes) == (1, 1024)


def test_grey_is_cut_at_the_middle_without_dithering(panel: LumaPanel, glass: SimulatedPanel) -> None:
    picture = Image.new("L", SIZE, 127)
    picture.paste(128, (64, 0, 128, 64))
    panel.show(picture)
    assert glass.image().getbbox() == (64, 0, 128, 64)


def test_contrast(panel: LumaPanel, glass: SimulatedPanel) -> None:
    for level in (0, 1, 255):
        panel.contrast(level)
        assert glass.contrast == level


@pytest.mark.parametrize("level", [-1, 256])
def test_contrast_outside_a_byte_is_refused(panel: LumaPanel, level: int) -> None:
    with pytest.raises(ValueError, match="contrast"):
        panel.contrast(level)


@pytest.mark.parametrize("size", [(64, 128), (128, 63), (256, 64)])
def test_a_picture_of_another_size_is_refused(panel: LumaPanel, glass: SimulatedPanel, size: tuple[int, int]) -> None:
    before = glass.data_bytes
    with pytest.raises(ValueError, match="picture of"):
        panel.show(Image.new("1", size))
    assert glass.data_bytes == before
    assert panel.size == SIZE


def test_an_unknown_model_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="ssd1309, ssd1306"):
        open_panel("ssd9999", SimulatedPanel())


# ------------------------------------------------------------------------------------ faults and the end


def test_a_fault_of_the_bus_is_a_device_fault(panel: LumaPanel, glass: SimulatedPanel) -> None:
    glass.unplug()
    with pytest.raises(DeviceFaultError) as caught:
        panel.show(noise())
    assert caught.value.component == "panel"
    assert caught.value.code == 121  # EREMOTEIO


def test_a_panel_that_is_not_there_is_a_device_fault() -> None:
    glass = SimulatedPanel()
    glass.unplug()
    with pytest.raises(DeviceFaultError):
        open_panel("ssd1309", glass)


def test_reset_brings_back_contrast_and_picture(panel: LumaPanel, glass: SimulatedPanel) -> None:
    panel.contrast(10)
    panel.show(noise())
    glass.unplug()
    with pytest.raises(DeviceFaultError):
        panel.show(noise(2))
    glass.replug()
    assert is_dark(glass)
    panel.reset()
    assert glass.contrast == 10
    assert glass.image().tobytes() == noise(2).tobytes()


def test_a_picture_changed_after_show_does_not_change_what_reset_shows(panel: LumaPanel, glass: SimulatedPanel) -> None:
    picture = noise()
    panel.show(picture)
    picture.paste(0, (0, 0, *SIZE))
    panel.reset()
    assert glass.image().tobytes() == noise().tobytes()


def test_close_switches_off_and_is_harmless_twice(panel: LumaPanel, glass: SimulatedPanel) -> None:
    panel.show(noise())
    panel.close()
    panel.close()
    assert is_dark(glass)
    assert glass.closed
    with pytest.raises(DeviceFaultError):
        panel.show(noise())


def test_close_can_leave_the_last_page_on_the_glass(panel: LumaPanel, glass: SimulatedPanel) -> None:
    panel.show(noise())
    panel.close(keep_picture=True)
    assert glass.image().tobytes() == noise().tobytes()


def test_close_of_a_lost_panel_gives_the_bus_back(panel: LumaPanel, glass: SimulatedPanel) -> None:
    glass.unplug()
    panel.close()
    assert glass.closed


def test_the_hook_luma_runs_at_exit_leaves_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    hooks = []
    monkeypatch.setattr(atexit, "register", hooks.append)
    glass = SimulatedPanel()
    panel = open_panel("ssd1309", glass)
    panel.show(noise())
    sent = glass.commands
    for hook in hooks:
        hook()
    assert hooks
    assert glass.commands == sent
    assert glass.image().tobytes() == noise().tobytes()


# ----------------------------------------------------------------------------- the controller by itself


def test_inversion_is_the_controllers_own(awake: SimulatedPanel) -> None:
    awake.data([0x01])
    awake.command(0xA7)
    assert awake.image().getpixel((0, 0)) == 0
    assert awake.image().getpixel((1, 0)) == 255
    awake.command(0xA6)
    assert awake.image().getbbox() == (0, 0, 1, 1)


def test_all_pixels_lit_ignores_the_ram(awake: SimulatedPanel) -> None:
    awake.command(0xA5)
    assert awake.image().getextrema() == (255, 255)
    awake.command(0xA4)
    assert is_dark(awake)


def test_nothing_shows_while_off_or_without_the_charge_pump(awake: SimulatedPanel) -> None:
    awake.data([0xFF] * 1024)
    for dark, lit in (((0xAE,), (0xAF,)), ((0x8D, 0x10), (0x8D, 0x14))):
        awake.command(*dark)
        assert is_dark(awake)
        awake.command(*lit)
        assert not is_dark(awake)


def test_a_window_keeps_data_inside_it_and_begins_anew(awake: SimulatedPanel) -> None:
    awake.command(0x21, 10, 13, 0x22, 2, 3)
    frames = awake.frames
    awake.data([0xFF] * 8)
    assert awake.image().getbbox() == (10, 16, 14, 32)
    assert awake.frames == frames + 1
    awake.data([0x00])
    assert awake.image().getpixel((10, 16)) == 0


def test_mirrored_glass_offset_and_fewer_rows(awake: SimulatedPanel) -> None:
    awake.data([0x01])
    awake.command(0xC0)
    assert awake.image().getbbox() == (0, 63, 1, 64)
    awake.command(0xC8, 0xD3, 8)
    assert awake.image().getbbox() == (0, 56, 1, 57)
    awake.command(0x40 | 56)
    assert awake.image().getbbox() == (0, 0, 1, 1)
    awake.command(0xA8, 31, 0xA5)
    assert awake.image().getbbox() == (0, 0, 128, 32)


def test_column_order_acts_on_data_written_later(awake: SimulatedPanel) -> None:
    awake.data([0x01])
    awake.command(0xA0)
    assert awake.image().getbbox() == (0, 0, 1, 1)
    awake.command(0x21, 0, 127, 0x22, 0, 7)
    awake.data([0x01])
    assert awake.image().getpixel((127, 0)) == 255


def test_a_command_may_arrive_byte_by_byte(awake: SimulatedPanel) -> None:
    for byte in (0x81, 0x33, 0x22, 1, 1):
        awake.command(byte)
    awake.data([0xFF])
    assert awake.contrast == 0x33
    assert awake.image().getbbox() == (0, 8, 1, 16)


UNKNOWN = [*range(0x20), *range(0x23, 0x2E), *range(0x2F, 0x40), 0x80, 0x8C, *range(0xB0, 0xB8), 0xD4, 0xD6, 0xFD]


@pytest.mark.parametrize("opcode", UNKNOWN)
def test_an_unknown_command_is_refused(awake: SimulatedPanel, opcode: int) -> None:
    with pytest.raises(PanelProtocolError, match=f"{opcode:02X}h"):
        awake.command(opcode)


@pytest.mark.parametrize(
    "command",
    [(0x20, 0x02), (0x21, 5, 4), (0x21, 0, 128), (0x22, 0, 8), (0x8D, 0x00), (0xA8, 14), (0xA8, 64), (256,)],
)
def test_a_value_outside_its_range_is_refused(awake: SimulatedPanel, command: tuple[int, ...]) -> None:
    with pytest.raises(PanelProtocolError):
        awake.command(*command)


def test_data_in_the_middle_of_a_command_is_refused(awake: SimulatedPanel) -> None:
    awake.command(0x81)
    with pytest.raises(PanelProtocolError, match="81h"):
        awake.data([0x00])


def test_data_before_an_addressing_mode_is_refused() -> None:
    with pytest.raises(PanelProtocolError, match="addressing"):
        SimulatedPanel().data([0x00])


def test_a_mistake_in_the_driver_is_not_taken_for_a_fault_of_the_panel(panel: LumaPanel, glass: SimulatedPanel) -> None:
    glass.cleanup()
    with pytest.raises(PanelProtocolError):
        panel.show(noise())
