"""Sound, LED, motor and battery."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path

import pytest
from gpiozero import Device
from gpiozero.pins.mock import MockFactory, MockPWMPin

from hw.errors import HardwareError
from hw.power.fake import write_power
from hw.power.sysfs import PowerReading, read_power
from hw.sound.gpio import GpioOutputs, SoundPins
from hw.sound.patterns import PATTERNS, Beat, Colour
from hw.sound.player import SILENCE, Player
from verifier.verdict import Tone

PATIENCE_S = 10


class Heard:
    """Outputs that remember."""

    def __init__(self, broken: bool = False) -> None:
        self.beats: queue.Queue[Beat] = queue.Queue()
        self.broken = broken
        self.closed = False

    def put(self, beat: Beat) -> None:
        if self.broken:
            raise HardwareError("sound", "no buzzer")
        self.beats.put(beat)

    def close(self) -> None:
        self.closed = True

    def until_silence(self) -> list[Beat]:
        beats: list[Beat] = []
        while not beats or beats[-1] != SILENCE:
            beats.append(self.beats.get(timeout=PATIENCE_S))
        return beats


@pytest.mark.parametrize("field", ["hz", "colour", "motor"])
def test_the_four_tones_are_told_apart_by_sound_and_stop_and_caution_by_light_and_touch_alone(field: str) -> None:
    told = {tone: tuple((beat.ms, getattr(beat, field)) for beat in PATTERNS[tone.value]) for tone in Tone}
    assert len(set(told.values())) == 4
    assert any(beat.motor for beat in PATTERNS["stop"])


def test_a_pattern_is_played_to_its_end() -> None:
    heard = Heard()
    player = Player(heard)
    player.play("pass")
    assert heard.until_silence() == [*PATTERNS["pass"], SILENCE]
    player.close()
    assert heard.closed


def test_a_new_pattern_ends_the_one_before() -> None:
    heard = Heard()
    player = Player(heard)
    player.play("stop")
    assert heard.beats.get(timeout=PATIENCE_S).colour is Colour.RED
    player.play("pass")
    assert heard.until_silence() == [*PATTERNS["pass"], SILENCE]
    player.close()


def test_outputs_that_fail_are_reported_and_nobody_waits() -> None:
    problems: queue.Queue[str] = queue.Queue()
    player = Player(Heard(broken=True), problems.put)
    player.play("stop")
    assert problems.get(timeout=PATIENCE_S) == "no buzzer"
    player.play("pass")
    assert problems.get(timeout=PATIENCE_S) == "no buzzer"
    player.close()


def test_outputs_that_work_again_are_reported_too() -> None:
    problems: queue.Queue[str] = queue.Queue()
    heard = Heard(broken=True)
    player = Player(heard, problems.put)
    player.play("stop")
    assert problems.get(timeout=PATIENCE_S) == "no buzzer"
    heard.broken = False
    player.play("pass")
    assert problems.get(timeout=PATIENCE_S) == ""
    assert heard.until_silence()
    player.play("pass")
    assert heard.until_silence()
    assert problems.empty()
    player.close()


@pytest.fixture
def factory() -> Iterator[MockFactory]:
    Device.pin_factory = made = MockFactory(pin_class=MockPWMPin)
    yield made
    made.reset()
    Device.pin_factory = None


def test_the_pins_sound_light_and_shake(factory: MockFactory) -> None:
    pins = SoundPins()
    outputs = GpioOutputs(pins, factory)
    buzzer, green, red, motor = (factory.pin(pin) for pin in (pins.buzzer, pins.green, pins.red, pins.motor))
    outputs.put(Beat(100, 500, Colour.AMBER, motor=True))
    assert (buzzer.frequency, buzzer.state, green.state, red.state, motor.state) == (500, 0.5, 1, 1, 1)
    outputs.put(SILENCE)
    assert (buzzer.state, green.state, red.state, motor.state) == (0, 0, 0, 0)
    outputs.close()


def test_outputs_of_which_one_is_not_there_hold_none_of_the_others(factory: MockFactory) -> None:
    wrong = SoundPins(motor=4000)
    with pytest.raises(HardwareError, match="sound"):
        GpioOutputs(wrong, factory)
    with pytest.raises(HardwareError, match="4000"):  # and not that the buzzer's is in use
        GpioOutputs(wrong, factory)
    GpioOutputs(SoundPins(), factory).close()


def test_the_battery_is_read_from_sysfs(tmp_path: Path) -> None:
    assert read_power(tmp_path) == PowerReading(None)
    write_power(tmp_path, 57)
    assert read_power(tmp_path) == PowerReading(57)
    write_power(tmp_path, 100, "Full")
    assert read_power(tmp_path) == PowerReading(100, charging=True)


@pytest.mark.parametrize("nonsense", ["", "-1", "255", "full", "３"])
def test_a_gauge_that_answers_nonsense_never_switches_the_device_off(tmp_path: Path, nonsense: str) -> None:
    write_power(tmp_path, 50)
    (tmp_path / "class/power_supply/battery/capacity").write_text(nonsense, encoding="utf-8")
    assert read_power(tmp_path) == PowerReading(None)
