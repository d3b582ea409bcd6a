"""Keys: what a finger does, over contacts that bounce, and over mock pins under the real library."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import pairwise
from types import ModuleType

import pytest
from gpiozero import Device
from gpiozero.pins import PinInfo
from gpiozero.pins.mock import MockFactory, MockPin

from hw.buttons.gpio import GpioKeys
from hw.buttons.keys import Key, KeyEvent, Touch
from hw.buttons.touches import HOLD_MS, REPEAT_AFTER_MS, REPEAT_MS, STABLE_MS, Touches
from hw.errors import HardwareError

PINS = {key: 5 + at for at, key in enumerate(Key)}


def until(touches: Touches, start_ms: int, end_ms: int) -> list[tuple[int, Touch]]:
    """What is reported, polled every millisecond."""
    return [(now, event.touch) for now in range(start_ms, end_ms) for event in touches.poll(now)]


def test_a_contact_that_bounces_is_one_press_and_one_release() -> None:
    touches = Touches()
    for at, closed in enumerate([True, False, True, False, True]):
        touches.edge(Key.OK, closed, at * 3)
        assert touches.poll(at * 3) == []
    assert until(touches, 12, 100) == [(12 + STABLE_MS, Touch.PRESS)]
    for at, closed in enumerate([False, True, False]):
        touches.edge(Key.OK, closed, 200 + at)
    assert until(touches, 202, 300) == [(202 + STABLE_MS, Touch.RELEASE)]


def test_a_disturbance_shorter_than_a_finger_is_nothing() -> None:
    touches = Touches()
    touches.edge(Key.OK, True, 0)
    touches.edge(Key.OK, False, STABLE_MS - 1)
    assert until(touches, 0, 500) == []


def test_a_key_that_stays_down_is_held_once_and_repeats() -> None:
    touches = Touches()
    touches.edge(Key.DOWN, True, 0)
    seen = until(touches, 0, 2000)
    assert [touch for _, touch in seen].count(Touch.HOLD) == 1
    assert (STABLE_MS + HOLD_MS, Touch.HOLD) in seen
    repeats = [now for now, touch in seen if touch is Touch.REPEAT]
    assert repeats[0] == STABLE_MS + REPEAT_AFTER_MS
    assert {b - a for a, b in pairwise(repeats)} == {REPEAT_MS}


def test_a_late_poll_makes_one_repeat() -> None:
    touches = Touches()
    touches.edge(Key.UP, True, 0)
    touches.poll(STABLE_MS)
    assert [event.touch for event in touches.poll(1400)] == [Touch.REPEAT]


def test_two_keys_do_not_disturb_each_other() -> None:
    touches = Touches()
    touches.edge(Key.UP, True, 0)
    touches.edge(Key.OK, True, 5)
    assert touches.poll(STABLE_MS) == [KeyEvent(Key.UP)]
    assert touches.poll(5 + STABLE_MS) == [KeyEvent(Key.OK)]


def test_it_is_told_when_to_look_again_and_never_otherwise() -> None:
    touches = Touches()
    assert touches.due_ms() is None
    touches.edge(Key.OK, True, 10)
    for _ in range(20):
        due = touches.due_ms()
        assert due is not None
        assert touches.poll(due - 1) == []
        assert touches.poll(due) != []
    touches.edge(Key.OK, False, 10_000)
    touches.poll(10_100)
    assert touches.due_ms() is None


@pytest.fixture
def factory() -> Iterator[MockFactory]:
    Device.pin_factory = made = MockFactory()
    yield made
    made.reset()
    Device.pin_factory = None


def pin(factory: MockFactory, key: Key) -> MockPin:
    return factory.pin(PINS[key])


def test_the_edges_of_the_pins_are_reported_with_their_keys(factory: MockFactory) -> None:
    edges: list[tuple[Key, bool]] = []
    keys = GpioKeys(PINS, lambda key, closed: edges.append((key, closed)), factory)
    pin(factory, Key.OK).drive_low()
    pin(factory, Key.OK).drive_high()
    pin(factory, Key.BACK).drive_low()
    assert edges == [(Key.OK, True), (Key.OK, False), (Key.BACK, True)]
    keys.close()
    keys.close()


class HeldPin(MockPin):
    """A pin whose key is down when the program starts."""

    def _set_pull(self, value: str) -> None:
        super()._set_pull(value)
        self.drive_low()


def test_a_key_that_is_down_at_the_start_is_reported() -> None:
    edges: list[tuple[Key, bool]] = []
    keys = GpioKeys({Key.UP: 5}, lambda key, closed: edges.append((key, closed)), MockFactory(pin_class=HeldPin))
    keys.close()
    assert edges == [(Key.UP, True)]


def test_pins_that_cannot_be_used_are_a_named_fault(factory: MockFactory) -> None:
    with pytest.raises(HardwareError, match="keys"):
        GpioKeys({Key.OK: 4000}, lambda key, closed: None, factory)


def test_a_pin_library_that_is_not_there_is_a_named_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPIOZERO_PIN_FACTORY", "lgpio")
    monkeypatch.setitem(sys.modules, "lgpio", None)
    monkeypatch.setattr(Device, "pin_factory", None)
    with pytest.raises(HardwareError, match="keys"):
        GpioKeys(PINS, lambda key, closed: None)


class LgpioError(Exception):
    """As lgpio's own: neither an OSError nor gpiozero's."""


@pytest.fixture
def lgpio(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library has wheels for the device only; of it, what it raises."""
    library = ModuleType("lgpio")
    library.error = LgpioError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lgpio", library)


class BusyPin(HeldPin):
    """Every key is down, and another program holds the pin of the last."""

    def __init__(self, factory: MockFactory, info: PinInfo) -> None:
        if info.name == f"GPIO{max(PINS.values())}":
            raise LgpioError("'GPIO busy'")
        super().__init__(factory, info)


@pytest.mark.usefixtures("lgpio")
def test_what_the_pin_library_itself_raises_is_a_named_fault() -> None:
    with pytest.raises(HardwareError, match="keys: pin 10: 'GPIO busy'"):
        GpioKeys(PINS, lambda key, closed: None, MockFactory(pin_class=BusyPin))


@pytest.mark.usefixtures("lgpio")
def test_a_key_that_was_told_as_down_before_another_pin_failed_is_let_go() -> None:
    touches, now_ms = Touches(), 0
    with pytest.raises(HardwareError):
        GpioKeys(PINS, lambda key, closed: touches.edge(key, closed, now_ms), MockFactory(pin_class=BusyPin))
    assert until(touches, now_ms, 3_000) == []
