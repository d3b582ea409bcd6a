"""Keys and sound whose pins come late: tried again, told of meanwhile, and then as if nothing had been."""

from __future__ import annotations

from pathlib import Path

import pytest
from gpiozero.exc import PinUnknownPi
from gpiozero.pins import Pin
from gpiozero.pins.mock import MockFactory, MockPWMPin

from firmware.machine import states as st
from firmware.machine.events import PartFault
from firmware.pins import RETRY_MS, OnPins, OutputsOnPins
from hw.errors import HardwareError
from hw.sound.patterns import Beat
from tests.centres import OnlineWorld
from tests.officer import SETTINGS, Officer, home_of

WITH_SOUND = SETTINGS.replace('"window"', '"none"').replace('source = "none"', 'source = "gpio"')
RETRY_S = RETRY_MS / 1000


class LatePins(MockFactory):
    """Pins that nobody may have until `there`."""

    def __init__(self) -> None:
        super().__init__(pin_class=MockPWMPin)
        self.there, self.asked = False, 0

    def pin(self, name: object) -> Pin:
        self.asked += 1
        if not self.there:
            raise PinUnknownPi("can not open gpiochip")
        return super().pin(name)


@pytest.fixture(scope="module")
def world() -> OnlineWorld:
    return OnlineWorld()


def test_keys_whose_pins_come_late_are_a_banner_until_then_and_a_press_arrives(
    world: OnlineWorld, tmp_path: Path
) -> None:
    pins = LatePins()
    officer = Officer(world, home_of(world, tmp_path / "home"), WITH_SOUND, pins=pins)
    try:
        officer.asks()
        assert officer.state.faults["keys"] == "pin 5: can not open gpiochip"
        assert officer.state.faults["sound"] == "can not open gpiochip"
        pins.there = True
        officer.skip(RETRY_S).asks()
        assert not {"keys", "sound"} & officer.state.faults.keys()
        officer.hold("ok").until(lambda: isinstance(officer.page, st.Menu))
    finally:
        officer.close()


def test_sound_whose_pins_come_late_is_heard_from_then_on(world: OnlineWorld, tmp_path: Path) -> None:
    pins = LatePins()
    officer = Officer(world, home_of(world, tmp_path / "home"), WITH_SOUND, pins=pins)
    try:
        officer.appliance.parts.play("pass")
        officer.until(lambda: "sound" in officer.state.faults)
        pins.there = True
        officer.skip(RETRY_S).asks()
        green = pins.pin(23)
        officer.appliance.parts.play("pass")
        officer.until(lambda: any(state.state for state in green.states))
        officer.until(lambda: "sound" not in officer.state.faults)
    finally:
        officer.close()


class Broken:
    """Outputs that are there from the third time on."""

    def __init__(self) -> None:
        self.tried, self.closed, self.beats = 0, 0, list[Beat]()

    def open(self) -> Broken:
        self.tried += 1
        if self.tried < 3:
            raise HardwareError("sound", "busy")
        return self

    def put(self, beat: Beat) -> None:
        self.beats.append(beat)

    def close(self) -> None:
        self.closed += 1


def test_what_is_not_there_is_tried_every_few_seconds_no_more_often_and_not_again_once_it_is() -> None:
    now_ms, part = [0], Broken()
    sound = OnPins("sound", part.open, lambda: now_ms[0])
    told = []
    for now_ms[0] in range(0, 4 * RETRY_MS, 100):
        told += sound.probe()
    assert part.tried == 3
    assert [told.index(PartFault("sound", problem)) * 100 for problem in ("busy", "")] == [0, 2 * RETRY_MS]
    assert set(told) == {PartFault("sound", "busy"), PartFault("sound", "")}


def test_a_beat_for_outputs_that_are_not_there_says_why_and_nothing_is_opened_after_the_end() -> None:
    part = Broken()
    sound = OnPins("sound", part.open, lambda: 0)
    outputs = OutputsOnPins(sound)
    sound.probe()
    with pytest.raises(HardwareError, match="sound: busy"):
        outputs.put(Beat(1))
    outputs.close()
    sound.probe()
    assert (part.tried, part.closed, part.beats) == (1, 0, [])
