"""The readers we can drive: a new one is a row here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hw.rfid.a0 import A0Codec, A0Driver
from hw.rfid.driver import Driver
from hw.rfid.gx import GxCodec, GxDriver
from hw.rfid.m100 import M100Codec, M100Driver
from hw.rfid.packets import Codec


@dataclass(frozen=True, slots=True)
class Model:
    """A family of readers that speak one protocol."""

    driver: Callable[..., Driver]
    codec: Callable[[], Codec]
    baudrate: int = 115_200


MODELS = {
    "m100": Model(M100Driver, M100Codec),
    "a0": Model(A0Driver, A0Codec),
    "gx": Model(GxDriver, GxCodec),
}
