"""The six keys on GPIO pins: contacts to ground, with the pins' own pull-ups."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gpiozero import Button, Factory

from hw.buttons.keys import Key
from hw.errors import HardwareError
from hw.pins import pin_errors

Edge = Callable[[Key, bool], None]


class GpioKeys:
    """Reports edges of the contacts from a thread of the pin library's own."""

    def __init__(self, pins: Mapping[Key, int], edge: Edge, factory: Factory | None = None) -> None:
        """`pins` are GPIO numbers (BCM); `edge` is called with the key and whether its contact closed.

        HardwareError when the machine has no such pins or another program holds them.
        """
        self._buttons: list[Button] = []
        try:
            for key, pin in pins.items():
                button = Button(pin, pull_up=True, bounce_time=None, pin_factory=factory)
                self._buttons.append(button)
                button.when_pressed = lambda key=key: edge(key, True)
                button.when_released = lambda key=key: edge(key, False)
                if button.is_pressed:
                    edge(key, True)
        except pin_errors() as exc:
            self.close()
            for key in pins:
                edge(key, False)  # one that was told as closed would stay so, and be held for ever
            raise HardwareError("keys", f"pin {pin}: {exc}") from exc

    def close(self) -> None:
        """Let go of the pins; harmless twice."""
        for button in self._buttons:
            button.close()
        self._buttons = []
