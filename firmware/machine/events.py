"""What happens to the handheld. Times are integer milliseconds that never go back, and come beside the event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from types import MappingProxyType

from hw.buttons.keys import KeyEvent
from verifier.check import CheckResult, Observation
from verifier.officers import LoginFault, Officer
from verifier.recheck_queue import News
from verifier.types import Hint, TagEvidence, WorkMode
from verifier.verdict import VerdictCode


@dataclass(frozen=True, slots=True)
class SeenCode:
    """A code in a frame; `label` is for choosing between several, never for a verdict."""

    payload: bytes
    is_mark: bool = True
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenTag:
    """A tag in the field: what is known of it offline, and how strongly it is read (dBm)."""

    evidence: TagEvidence
    rssi_dbm: float
    antenna: int = 1


@dataclass(frozen=True, slots=True)
class Tick:
    """Time goes by."""


@dataclass(frozen=True, slots=True)
class Started:
    """The parts are up; what is not, comes as a `PartFault`."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The parts are let go, and everything is on the disk."""


@dataclass(frozen=True, slots=True)
class CodesSeen:
    """The new codes of one frame; `triggered`: read by an engine whose own trigger the officer has pulled."""

    codes: tuple[SeenCode, ...]
    triggered: bool = False


@dataclass(frozen=True, slots=True)
class HintSeen:
    """Nothing was read in a frame, and this is why."""

    hint: Hint | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The verdicts of check `number`, one or the two of an accident; once more with `late` when the centre answered.

    `seen`: what was checked, for the history of an officer who has not waited.
    """

    number: int
    results: tuple[CheckResult, ...]
    late: bool = False
    seen: tuple[Observation, ...] = ()


@dataclass(frozen=True, slots=True)
class TagsSeen:
    """The tags in the field now."""

    tags: tuple[SeenTag, ...]


@dataclass(frozen=True, slots=True)
class Passed:
    """Vehicles that went by in order."""

    vehicles: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """A vehicle in a lane that is not in order."""

    number: int
    result: CheckResult
    lane: int


@dataclass(frozen=True, slots=True)
class PartFault:
    """A part does not work; an empty problem: it works again."""

    part: str
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerRead:
    """The battery, in percent; None on mains."""

    percent: int | None
    charging: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRead:
    """Whether the centre is reached, and when it is tried again."""

    online: bool
    retry_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRead:
    """The moment the data in use describe, and whether the clock is doubted."""

    as_of: datetime | None
    clock_doubted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModesRead:
    """What the policy in force says of this device: the mode in which it opens, and those that it offers."""

    opens: WorkMode
    offered: frozenset[WorkMode]


@dataclass(frozen=True, slots=True)
class Reported:
    """What a sync or a self-test came to, in lines for the panel; `job` is the line of the menu that began it."""

    lines: tuple[str, ...]
    job: str


@dataclass(frozen=True, slots=True)
class Counted:
    """The verdicts of this day in Asia/Shanghai, as the audit log has them."""

    day: date
    counts: Mapping[VerdictCode, int] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class NewsRead:
    """Checks of earlier that the centre has decided otherwise since, and that nobody has looked at; oldest first."""

    news: tuple[News, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedIn:
    """A login that was asked for under this number has let somebody in."""

    attempt: int
    officer: Officer


@dataclass(frozen=True, slots=True, kw_only=True)
class NotLetIn:
    """A login that was asked for under this number has not; for `wait_ms` no further try counts."""

    attempt: int
    why: LoginFault
    wait_ms: int = 0


@dataclass(frozen=True, slots=True)
class LookedUp:
    """A typed plate was counted; `flagged`: they are more within the hour than the policy allows."""

    flagged: bool


Event = (
    KeyEvent | Tick | Started | Kept | CodesSeen | HintSeen | Checked | TagsSeen | Passed | Alarm | PartFault
    | PowerRead | NetworkRead | DataRead | ModesRead | Reported | Counted | NewsRead | LoggedIn | NotLetIn | LookedUp
)  # fmt: skip
