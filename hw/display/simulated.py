"""A simulated controller for each model of panel."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from hw.display.simulated_ram import SimulatedSsd1322, SimulatedSsd1351
from hw.display.simulated_sh1106 import SimulatedSh1106
from hw.display.simulator import Module, SimulatedPanel

SIMULATED: dict[str, Callable[[], Module]] = {
    "ssd1309": partial(SimulatedPanel, needs_charge_pump=False),
    "ssd1306": SimulatedPanel,
    "sh1106": SimulatedSh1106,
    "ssd1322": SimulatedSsd1322,
    "ssd1351": SimulatedSsd1351,
}
