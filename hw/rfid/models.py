"""The readers we can drive: a new one is a row here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hw.rfid.a0 import A0Codec, A0Driver
from hw.rfid.driver import Driver
from hw.rfid.gx import GxCodec, GxDriver
from hw.rfid.llrp import LlrpDriver, llrp_line
from hw.rfid.llrp_codec import LlrpCodec
from hw.rfid.m100 import M100Codec, M100Driver
from hw.rfid.packets import Codec
from hw.rfid.transport import Connect, Tap, serial_line


@dataclass(frozen=True, slots=True)
class Model:
    """A family of readers that speak one protocol."""

    driver: Callable[..., Driver]
    codec: Callable[[], Codec]
    baudrate: int = 115_200  # of a line that nothing else is said of; 0: a line without a speed
    line: Callable[[Path, int, Tap | None], Connect] = serial_line
    in_network: bool = False  # its port is an address


MODELS = {
    "m100": Model(M100Driver, M100Codec),
    "a0": Model(A0Driver, A0Codec),
    "gx": Model(GxDriver, GxCodec),
    "llrp": Model(LlrpDriver, LlrpCodec, 0, llrp_line, in_network=True),  # needs the library pyllrp
}
