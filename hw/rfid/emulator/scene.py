"""What an emulated reader has before its antennas: tags, the cars that carry them, and how radio behaves.

All values are frozen; `air.Air` plays them. Times are seconds since the reader got power, lengths are metres.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from hw.errors import HardwareError
from hw.rfid.emulator.faults import Fault

LANE_WIDTH = 3.5  # metres
MAX_ANTENNAS = 8
_BEAM_MARGIN = 1.0  # metres before and behind the zone within which a passage is looked at at all


class SceneError(HardwareError):
    """A scene that cannot be played; the problem names the place in the file."""

    def __init__(self, problem: str) -> None:
        super().__init__("scene", problem)
        self.args = (problem,)


class AirProtocol(StrEnum):
    """The air interface that a tag speaks."""

    GEN2 = "gen2"  # ISO/IEC 18000-63
    GB29768 = "gb29768"  # GB/T 29768


class Authentication(StrEnum):
    """What a tag makes of an inventory without mutual authentication, and of one with it."""

    NONE = "none"  # answers everybody
    REQUIRED = "required"  # answers only a reader whose security module has proved itself
    FAILS = "fails"  # answers everybody, and cannot prove itself: a copy without the key


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """One tag with its memory banks; every bank is whole 16-bit words."""

    epc: bytes
    tid: bytes
    user: bytes = b""
    protocol: AirProtocol = AirProtocol.GEN2
    access_password: int = 0  # 32 bits; 0 is no password
    kill_password: int = 0
    locked: frozenset[str] = frozenset()  # "user", "reserved": read only after the access password
    authentication: Authentication = Authentication.NONE

    def __post_init__(self) -> None:
        for name, bank, limit in (("epc", self.epc, 62), ("tid", self.tid, 64), ("user", self.user, 1024)):
            if len(bank) % 2 or len(bank) > limit:
                raise SceneError(f"{name}: not whole words of at most {limit} bytes")

    @property
    def pc(self) -> bytes:
        """The protocol control word: length of the EPC in words, and whether there is a user bank (UMI)."""
        return (len(self.epc) // 2 << 11 | (0x0400 if self.user else 0)).to_bytes(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """One tag's way past the antennas: at constant speed through one lane, or standing with speed 0.

    `at_s` is the moment right below the antenna; a standing tag is there from `at_s` for `for_s`. With `rssi_dbm`
    the antenna of the lane hears it always that strongly, and noise and read probability do not touch it.
    """

    tag: Tag
    lane: int = 1
    at_s: float = 0.0
    speed_mps: float = 0.0
    offset_m: float = 0.0  # to the right of the middle of the lane
    distance_m: float = 0.0  # along the road, of a standing tag
    for_s: float = math.inf
    rssi_dbm: float | None = None

    def along(self, now: float) -> float:
        """Metres past the antenna, negative before it."""
        return (now - self.at_s) * self.speed_mps if self.speed_mps else self.distance_m

    def span(self, zone_m: float) -> tuple[float, float]:
        """From when until when it can be in the zone at all."""
        if not self.speed_mps:
            return self.at_s, self.at_s + self.for_s
        half = (zone_m / 2 + _BEAM_MARGIN) / self.speed_mps
        return self.at_s - half, self.at_s + half


@dataclass(frozen=True, slots=True, kw_only=True)
class Radio:
    """How well tags are heard: path loss both ways, and a chance per try."""

    zone_m: float = 10.0  # length of road that an antenna lights
    height_m: float = 5.5  # of the antennas over the tags
    rssi_at_1m_dbm: float = -35.0  # at full power
    loss_exponent: float = 4.0  # backscatter: the way is gone twice
    side_loss_db_per_m: float = 2.0  # beside the middle of the beam
    noise_db: float = 1.5  # standard deviation
    sensitivity_dbm: float = -78.0
    read_probability: float = 0.3
    tags_per_s: float | None = None  # reads a second that the air interface gives; None: as the model does
    frequency_khz: int | None = None  # always this channel, instead of hopping


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderSetup:
    """The reader's own properties."""

    antennas: int = 4
    missing_antennas: frozenset[int] = frozenset()
    max_power_dbm: int = 33
    address: int = 1  # A0
    framing: str = "bb"  # M100: "bb" for BB..7E, "aa" for AA..DD
    old_round_end: bool = False  # A0: round end without the rate
    security_module: bool = False  # GX: can authenticate tags that demand it
    temperature_c: int = 36


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everything that an emulator plays."""

    seed: int = 1
    reader: ReaderSetup = ReaderSetup()
    radio: Radio = Radio()
    passages: tuple[Passage, ...] = ()
    faults: tuple[Fault, ...] = ()

    @property
    def ends_s(self) -> float:
        """When the last passage is over; infinite where a tag stays."""
        return max((p.span(self.radio.zone_m)[1] for p in self.passages), default=0.0)


Identity = tuple[bytes, bytes, bytes]  # TID, EPC, user bank


def lane_scene(
    tags: Iterable[Identity],
    *,
    lanes: int = 4,
    speed_kmh: float = 120.0,
    headway_s: float = 1.0,
    vehicles: int = 1000,
    seed: int = 1,
    start_s: float = 1.0,
    protocol: AirProtocol = AirProtocol.GEN2,
    reader: ReaderSetup | None = None,
    radio: Radio | None = None,
    faults: Iterable[Fault] = (),
) -> Scene:
    """Dense traffic: one vehicle for each (TID, EPC, user bank), by turns on each lane, one antenna over each.

    Two vehicles of one lane are `headway_s` apart, speeds differ by a tenth, places in the lane by half a metre:
    all by `seed`. SceneError when there are fewer tags than vehicles.
    """
    if not 1 <= lanes <= MAX_ANTENNAS or speed_kmh <= 0 or headway_s <= 0:
        raise SceneError("traffic: 1 to 8 lanes, speed and headway above zero")
    rng = random.Random(f"traffic/{seed}")  # noqa: S311 - a scene that can be played again, no secret
    passages = []
    for number, (tid, epc, user) in zip(range(vehicles), tags, strict=False):
        passages.append(
            Passage(
                tag=Tag(tid=tid, epc=epc, user=user, protocol=protocol),
                lane=number % lanes + 1,
                at_s=start_s + (number // lanes + rng.uniform(-0.2, 0.2) + number % lanes / lanes) * headway_s,
                speed_mps=speed_kmh / 3.6 * rng.uniform(0.9, 1.1),
                offset_m=rng.uniform(-0.5, 0.5),
            )
        )
    if len(passages) < vehicles:
        raise SceneError(f"traffic: {len(passages)} tags for {vehicles} vehicles")
    reader = reader or ReaderSetup(antennas=max(lanes, 4) if lanes <= 4 else MAX_ANTENNAS)
    return Scene(
        seed=seed, reader=reader, radio=radio or Radio(), passages=tuple(passages), faults=tuple(faults)
    )  # fmt: skip
