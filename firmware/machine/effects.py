"""What the machine asks the program to do. The program does it and reports by events; the machine never waits."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from firmware.machine.states import Light, Network
from verifier.check import CheckResult, Observation
from verifier.recheck_queue import News
from verifier.types import Hint
from verifier.verdict import Tone
from verifier.wording import Language


class Signal(StrEnum):
    """What is heard, seen by the LED and felt beside the four tones of a verdict."""

    DECODED = "decoded"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Scan:
    """Look for codes, or stop."""

    on: bool


@dataclass(frozen=True, slots=True)
class Aid:
    """The camera may do something about what keeps it from reading: torch, exposure."""

    hint: Hint | None


@dataclass(frozen=True, slots=True)
class ReadTags:
    """Read tags, or stop."""

    on: bool


@dataclass(frozen=True, slots=True)
class Watch:
    """Checkpoint: read every lane and check by itself, or stop."""

    on: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Run a check of one car, or of the two of an accident in one record."""

    number: int
    seen: tuple[Observation, ...]


@dataclass(frozen=True, slots=True)
class Play:
    """Sound, LED and vibration."""

    signal: Tone | Signal


@dataclass(frozen=True, slots=True)
class SetLight:
    """Panel on, dimmed or off; `brightness` of 0 to 3."""

    light: Light
    brightness: int


@dataclass(frozen=True, slots=True)
class Sync:
    """Fetch the data now."""


@dataclass(frozen=True, slots=True)
class SelfTest:
    """Test every part now."""


@dataclass(frozen=True, slots=True)
class UseNetwork:
    """Follow the network, or keep off it; AUTO tries at once."""

    network: Network


@dataclass(frozen=True, slots=True)
class Missed:
    """The officer is to be told of this: its check is not on the panel any more."""

    news: News


@dataclass(frozen=True, slots=True)
class Told:
    """The officer has seen what became of this check."""

    check_id: str


@dataclass(frozen=True, slots=True)
class Dispute:
    """The officer holds the record behind this check for wrong; answered by `Reported`, in this language."""

    result: CheckResult
    language: Language


@dataclass(frozen=True, slots=True, kw_only=True)
class LogIn:
    """Try this PIN; answered under the number of the attempt."""

    attempt: int
    number: str
    pin: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class PowerOff:
    """Put everything on the disk and switch off."""


Effect = (
    Scan | Aid | ReadTags | Watch | Check | Play | SetLight | Sync | SelfTest | UseNetwork | Missed | Told | Dispute
    | LogIn
    | PowerOff
)  # fmt: skip
