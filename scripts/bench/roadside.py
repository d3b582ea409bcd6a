"""Pictures of marks as the road makes them, all from a seed.

In the order in which nature does it: a surface is printed or lit, bent and turned, light falls on it, a lens blurs
it, a sensor adds noise, a codec loses detail. Each condition is graded from level 0, easy, to level 1, which nobody
can read. The ranges come from that alone; nothing was fitted to photographs.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from scripts.bench import optics
from scripts.bench.optics import Gray, Light
from scripts.bench.surfaces import Medium, Pose, Sheet, backdrop, compose, sheet
from scripts.sandbox.fleet import fleet
from scripts.sandbox.issuer import Issuer, issuing_keys
from scripts.sandbox.keys import SigningKey, public_bytes
from scripts.sandbox.registry import Registry
from verifier.trust import key_id
from verifier.types import Algorithm, PresentationMode

FRAME = (720, 1280)  # height and width of what the camera gives
NO_CODE = "no code"  # the condition of frames that hold none

_NOW = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
_LENS_PX = 0.45  # spread of a focused lens and its filter, in frame pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """Everything that makes one picture apart from chance. Lengths are in modules of the code unless named otherwise;
    light is linear, 1.0 saturates."""

    medium: Medium = Medium.PAPER
    quiet_zone: float = 4.0  # clear modules around the code; below 0 something covers its edge
    inverted: bool = False  # light modules on dark
    contrast: float = 0.93  # share of the paper's brightness that the ink takes away
    dirt: float = 0.0  # share of the code that is covered
    grid_px: float = 0.0  # pitch of the screen's pixels in frame pixels; 0 for none
    grid_depth: float = 0.0  # how dark the gaps between them are

    module_px: float = 4.0
    turn_deg: float = 0.0
    tilt_deg: float = 0.0
    cylinder_deg: float = 0.0  # half the angle that the code covers of the cylinder it is stuck to
    crumple: float = 0.0  # how far folds shift the modules
    offset: tuple[float, float] = (0.0, 0.0)  # of the code's middle from the frame's, as a share of the frame

    exposure: float = 0.5  # what white paper gives in full light
    shadow: float = 1.0  # light that remains behind a hard edge
    glare: float = 0.0  # share of the code that a mirrored sun covers
    reflection: float = 0.0  # light mirrored in the pane before the code, beside that of white paper
    dark_rows: float = 0.0  # share of the rows that a pulsed lamp leaves dark

    defocus: float = 0.0  # diameter of the disc that a point becomes
    motion: float = 0.0  # length of the line that a point becomes
    gain: float = 4.0  # sensor gain; noise grows with it
    skipping: bool = False  # the sensor skips lines instead of averaging
    jpeg: int = 92  # quality


class Ramp(NamedTuple):
    """How one field of a shot goes from level 0 to level 1."""

    easy: float
    hard: float
    geometric: bool = False

    def at(self, level: float) -> float:
        """The value at a level between 0 and 1."""
        if self.geometric:
            return float(self.easy * (self.hard / self.easy) ** level)
        return self.easy + (self.hard - self.easy) * level


@dataclass(frozen=True, slots=True)
class Condition:
    """What a condition fixes, and what it grades."""

    ramps: Mapping[str, Ramp]
    fixed: Mapping[str, Any] = field(default_factory=dict)


CONDITIONS: dict[str, Condition] = {
    "size": Condition({"module_px": Ramp(6, 0.9, geometric=True)}),
    "defocus": Condition({"defocus": Ramp(0, 2.2)}),
    "motion": Condition({"motion": Ramp(0, 3.2)}),
    "tilt": Condition({"tilt_deg": Ramp(0, 82)}, {"module_px": 5.0}),
    "low_light": Condition({"exposure": Ramp(0.3, 0.001, geometric=True)}),
    "noise": Condition({"gain": Ramp(4, 4000, geometric=True)}),
    "contrast": Condition({"contrast": Ramp(0.9, 0.04, geometric=True)}),
    "hard_shadow": Condition({"shadow": Ramp(0.7, 0.003, geometric=True)}),
    "glare": Condition({"glare": Ramp(0, 0.18)}, {"medium": Medium.LABEL}),
    "reflection": Condition({"reflection": Ramp(0.1, 30, geometric=True)}),
    "moire": Condition({"grid_depth": Ramp(0.1, 1)}, {"medium": Medium.PHONE, "grid_px": 1.17, "skipping": True}),
    "banding": Condition({"dark_rows": Ramp(0.01, 0.12)}),
    "dirt": Condition({"dirt": Ramp(0, 0.14)}),
    "crumple": Condition({"crumple": Ramp(0, 0.7)}),
    "cylinder": Condition({"cylinder_deg": Ramp(1, 89)}),
    "inversion": Condition({"module_px": Ramp(5, 1.0, geometric=True)}, {"inverted": True}),
    "missing_quiet_zone": Condition({"quiet_zone": Ramp(4, -3)}),
    "jpeg": Condition({"jpeg": Ramp(60, 1)}, {"module_px": 2.5}),
    "windscreen": Condition(
        {
            "reflection": Ramp(0.1, 12, geometric=True),
            "tilt_deg": Ramp(10, 62),
            "glare": Ramp(0, 0.15),
            "defocus": Ramp(0, 1.2),
        },
        {"medium": Medium.LABEL},
    ),
    "phone": Condition(
        {
            "grid_depth": Ramp(0.1, 0.8),
            "reflection": Ramp(0.02, 4, geometric=True),
            "motion": Ramp(0, 2.5),
            "dirt": Ramp(0, 0.04),
            "dark_rows": Ramp(0, 0.15),
        },
        {"medium": Medium.PHONE, "grid_px": 1.3},
    ),
    "paper": Condition(
        {
            "crumple": Ramp(0, 0.7),
            "dirt": Ramp(0, 0.06),
            "shadow": Ramp(0.8, 0.04, geometric=True),
            "contrast": Ramp(0.85, 0.2, geometric=True),
            "module_px": Ramp(4, 1.8, geometric=True),
        }
    ),
}


class Made(NamedTuple):
    """One picture and what it holds."""

    gray: Gray  # FRAME, uint8
    text: str  # empty where there is no code
    condition: str
    level: float
    shot: Shot


# ----------------------------------------------------------------------------------------------------- texts


def mark_text(seed: int) -> str:
    """The text of a made-up mark, signed, in any of the four presentations: 277 to 447 characters."""
    rng = np.random.default_rng(seed)
    vehicles = list(fleet(16, seed, _NOW.date()))
    registry = Registry(vehicles, seed)
    vehicle = vehicles[rng.integers(len(vehicles))]
    mode = tuple(PresentationMode)[rng.integers(len(PresentationMode))]
    issued = _NOW - timedelta(minutes=int(rng.integers(1, 20_000)))
    issuer = Issuer({issuer: _seeded(key, seed) for issuer, key in issuing_keys(_NOW).items()})
    return issuer.text(issuer.credential(vehicle, registry.credential(vehicle.plate), mode, issued), shown_at=_NOW)


def _seeded(key: SigningKey, seed: int) -> SigningKey:
    """An Ed25519 key from the seed in place of a fresh one: its signatures are the same each time, and as long."""
    private = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"{key.entry.issuer}:{seed}".encode()).digest())
    public = public_bytes(private)
    alg = Algorithm.EDDSA
    return SigningKey(private, replace(key.entry, alg=alg, key=public, kid=key_id(alg, public), public=None))


# --------------------------------------------------------------------------------------------------- pictures


def frames(seed: int, per_condition: int, conditions: Iterable[str] = tuple(CONDITIONS)) -> Iterator[Made]:
    """`per_condition` pictures of each condition, their levels evenly from 0 to 1."""
    for condition in conditions:
        for number in range(per_condition):
            level = number / (per_condition - 1) if per_condition > 1 else 0.5
            yield make(condition, level, seed + number)


def negatives(seed: int, count: int) -> Iterator[Made]:
    """Scenes without a code: bodywork, grilles, gravel, lettering."""
    for number in range(count):
        rng = np.random.default_rng([seed + number, zlib.crc32(NO_CODE.encode())])
        shot = _chance(rng)
        yield Made(_photograph(backdrop(rng, _doubled()), shot, rng), "", NO_CODE, 0.0, shot)


def make(condition: str, level: float, seed: int) -> Made:
    """The picture of one condition at a level between 0 and 1; KeyError for a condition that CONDITIONS lacks."""
    graded = CONDITIONS[condition]
    rng = np.random.default_rng([seed, zlib.crc32(condition.encode())])
    ramps = {name: ramp.at(level) for name, ramp in graded.ramps.items()}
    if "jpeg" in ramps:
        ramps["jpeg"] = round(ramps["jpeg"])
    shot = replace(_chance(rng), **{**graded.fixed, **ramps})
    text = mark_text(int(rng.integers(2**31)))
    printed = sheet(
        text,
        rng,
        medium=shot.medium,
        module_px=max(4, round(2 * shot.module_px)),
        contrast=shot.contrast,
        quiet_zone=shot.quiet_zone,
        dirt=shot.dirt,
        inverted=shot.inverted,
    )
    scene = compose(backdrop(rng, _doubled()), printed, _pose(shot), rng)
    return Made(_photograph(scene, shot, rng, printed), text, condition, level, shot)


def _doubled() -> tuple[int, int]:
    """The size in which light is computed: two points a pixel each way, so that the sensor has something to average."""
    return 2 * FRAME[0], 2 * FRAME[1]


def _chance(rng: np.random.Generator) -> Shot:
    """What varies from picture to picture under every condition, within what is easy."""
    return Shot(
        module_px=float(rng.uniform(3.4, 4.4)),
        turn_deg=float(rng.uniform(-14, 14)),
        tilt_deg=float(rng.uniform(0, 12)),
        offset=(float(rng.uniform(-0.1, 0.1)), float(rng.uniform(-0.06, 0.06))),
        exposure=float(rng.uniform(0.35, 0.65)),
        gain=float(rng.uniform(2, 8)),
        jpeg=int(rng.integers(86, 96)),
    )


def middle(shot: Shot) -> tuple[float, float]:
    """Where the code's middle lies in the frame: x, y in pixels."""
    return FRAME[1] * (0.5 + shot.offset[0]), FRAME[0] * (0.5 + shot.offset[1])


def _pose(shot: Shot) -> Pose:
    x, y = middle(shot)
    return Pose(
        module_px=2 * shot.module_px,
        x=2 * x,
        y=2 * y,
        turn_deg=shot.turn_deg,
        tilt_deg=shot.tilt_deg,
        cylinder_deg=shot.cylinder_deg,
        crumple=shot.crumple,
        grid_pitch=shot.grid_px / shot.module_px,
        grid_depth=shot.grid_depth,
    )


def _photograph(scene: Light, shot: Shot, rng: np.random.Generator, printed: Sheet | None = None) -> Gray:
    """From reflectance at twice the size to the decoded file."""
    side_px = 2 * shot.module_px * (printed.modules if printed else 40)
    light = _lit(scene, shot, rng, side_px)
    # A sensor that skips has finer pixels, and its lens is made for those.
    light = optics.lens(light, 2 * _LENS_PX / (3 if shot.skipping else 1))
    light = optics.defocus(light, 2 * shot.module_px * shot.defocus)
    light = optics.motion(light, 2 * shot.module_px * shot.motion, float(rng.uniform(0, 180)))
    gray = optics.developed(optics.pixels(light, shot.skipping), rng, shot.gain)
    return optics.jpeg(gray, shot.jpeg)


def _lit(scene: Light, shot: Shot, rng: np.random.Generator, side_px: float) -> Light:
    """The scene's reflectance in its light; `side_px` is the code's side at twice the size."""
    shape = (scene.shape[0], scene.shape[1])
    x, y = (2 * place for place in middle(shot))
    light = scene * optics.sunlight(rng, shape)
    near = (x + rng.uniform(-0.3, 0.3) * side_px, y + rng.uniform(-0.3, 0.3) * side_px)
    if shot.shadow < 1:
        light *= optics.hard_shadow(shape, near, float(rng.uniform(0, 360)), shot.shadow)
    if shot.dark_rows > 0:
        light *= optics.banding(shape[0], side_px * rng.uniform(0.12, 0.2), shot.dark_rows, rng.uniform())
    light *= shot.exposure
    if shot.reflection > 0:
        # The camera's automatic exposure makes room for the added light.
        light = (light + shot.exposure * optics.reflection(rng, shape, shot.reflection)) / (1 + shot.reflection)
    if shot.glare > 0:
        radius = side_px * float(np.sqrt(shot.glare / np.pi))
        light += optics.glare(rng, shape, near, radius, float(rng.uniform(0.8, 1.25)))
    return np.asarray(light, np.float32)
