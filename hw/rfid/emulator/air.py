"""The radio side of an emulated reader: which tags answer on an antenna, how strongly, and in which Gen2 session."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from typing import NamedTuple

from hw.rfid.emulator.scene import LANE_WIDTH, AirProtocol, Authentication, Passage, Scene, Tag

# How long an inventoried flag stays B (ISO/IEC 18000-63 table of persistence times): S0 falls back when the field
# goes, which it does between rounds; S1 within 0.5 to 5 s in any case; S2 and S3 more than 2 s after the field went.
_PERSISTENCE = {1: 1.0, 2: 4.0, 3: 4.0}  # seconds


class Answer(NamedTuple):
    """One tag that answered."""

    tag: Tag
    rssi_dbm: float


class _Present:
    """A passage that is under way, with the tag's inventoried flags."""

    def __init__(self, passage: Passage) -> None:
        self.passage = passage
        self.flag_b_until: dict[int, float] = {}

    def flag(self, session: int, now: float) -> int:
        return int(self.flag_b_until.get(session, -math.inf) > now)

    def inventoried(self, session: int, target: int, now: float) -> None:
        if session == 0:
            return
        self.flag_b_until[session] = now + _PERSISTENCE[session] if target == 0 else -math.inf

    def energised(self, now: float) -> None:
        for session in (2, 3):  # their clocks start when the field goes
            if self.flag(session, now):
                self.flag_b_until[session] = now + _PERSISTENCE[session]


class Air:
    """Plays a scene. Moments must not go back; the same questions in the same order get the same answers."""

    def __init__(self, scene: Scene) -> None:
        self.radio = scene.radio
        self._full_power = scene.reader.max_power_dbm
        self._rng = random.Random(f"air/{scene.seed}")  # noqa: S311 - radio that can be played again, no secret
        spans = [(*p.span(self.radio.zone_m), place, p) for place, p in enumerate(scene.passages)]
        self._coming = sorted(((enters, place, leaves, p) for enters, leaves, place, p in spans), reverse=True)
        self._here: list[tuple[float, int, _Present]] = []  # heap by the moment of leaving

    def round(
        self,
        now: float,
        antenna: int,
        *,
        protocol: AirProtocol = AirProtocol.GEN2,
        power_dbm: float,
        session: int = 0,
        target: int = 0,
        authenticate: bool = False,
        select: Callable[[Tag], bool] | None = None,
    ) -> list[Answer]:
        """The tags that one inventory round singulates on an antenna, in order of arrival."""
        answers = []
        for present in self._presents(now):
            tag = present.passage.tag
            rssi_dbm = self._rssi(present.passage, now, antenna, power_dbm)
            if rssi_dbm is None or tag.protocol is not protocol:
                continue
            present.energised(now)
            if tag.authentication is Authentication.REQUIRED and not authenticate:
                continue
            if select is not None and not select(tag):
                continue
            if present.flag(session, now) == target and self._heard(present.passage, rssi_dbm):
                present.inventoried(session, target, now)
                answers.append(Answer(tag, rssi_dbm))
        return answers

    def access(
        self, now: float, antenna: int, *, power_dbm: float, select: Callable[[Tag], bool] | None = None
    ) -> Answer | None:
        """The Gen2 tag that an access command would reach: the strongest that is selected and answers."""
        answers = self.round(now, antenna, power_dbm=power_dbm, select=select)
        return max(answers, key=lambda answer: answer.rssi_dbm, default=None)

    def channel(self, count: int) -> int:
        """The channel of the next round, 0 to `count` - 1: a reader hops."""
        return self._rng.randrange(count)

    def _presents(self, now: float) -> list[_Present]:
        while self._coming and self._coming[-1][0] <= now:
            _, place, leaves, passage = self._coming.pop()
            heapq.heappush(self._here, (leaves, place, _Present(passage)))
        while self._here and self._here[0][0] < now:
            heapq.heappop(self._here)
        return [present for _, __, present in sorted(self._here, key=lambda entry: entry[1])]

    def _rssi(self, passage: Passage, now: float, antenna: int, power_dbm: float) -> float | None:
        """dBm at the reader; None where the beam does not reach."""
        if passage.rssi_dbm is not None:
            return passage.rssi_dbm if passage.lane == antenna else None
        radio, along = self.radio, passage.along(now)
        if abs(along) > radio.zone_m / 2:
            return None
        side = (passage.lane - antenna) * LANE_WIDTH + passage.offset_m
        distance = math.sqrt(along**2 + side**2 + radio.height_m**2)
        loss = 10 * radio.loss_exponent * math.log10(max(distance, 0.1)) + radio.side_loss_db_per_m * abs(side)
        noise = self._rng.gauss(0, radio.noise_db) if radio.noise_db else 0.0
        return radio.rssi_at_1m_dbm - (self._full_power - power_dbm) - loss + noise

    def _heard(self, passage: Passage, rssi_dbm: float) -> bool:
        if passage.rssi_dbm is not None:
            return True
        return rssi_dbm >= self.radio.sensitivity_dbm and self._rng.random() < self.radio.read_probability
