"""What the handheld shows and knows at one moment: frozen values, no behaviour but small questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from types import MappingProxyType

from firmware.machine.events import SeenCode, SeenTag
from firmware.plate_entry import Entry
from hw.buttons.keys import Key
from verifier.check import CheckResult, Observation
from verifier.types import Hint
from verifier.verdict import VerdictCode
from verifier.wording import Language

HISTORY = 50  # checks that can be looked at again
WAITING = 20  # alarms that wait to be acknowledged; older ones are in the history


class Mode(StrEnum):
    """What the officer is at; always on the screen."""

    ROADSIDE = "roadside"
    LOOKUP = "lookup"
    TAGS = "tags"
    CHECKPOINT = "checkpoint"
    ACCIDENT = "accident"


class Light(StrEnum):
    """The panel: on, dimmed, off."""

    ON = "on"
    DIM = "dim"
    SLEEP = "sleep"


class Network(StrEnum):
    """AUTO follows the network; OFF is the officer's word and wins."""

    AUTO = "auto"
    OFF = "off"


class MenuItem(StrEnum):
    """The lines of the menu, in order."""

    LOOKUP = "lookup"
    TAGS = "tags"
    CHECKPOINT = "checkpoint"
    ACCIDENT = "accident"
    HISTORY = "history"
    SYNC = "sync"
    NETWORK = "network"
    LANGUAGE = "language"
    BRIGHTNESS = "brightness"
    SELF_TEST = "self_test"
    INFO = "info"
    POWER_OFF = "power_off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A finished check: its number on this device, what was seen, and the result that counts now."""

    number: int
    seen: Observation
    result: CheckResult


# ------------------------------------------------------------------------------------------------- pages


@dataclass(frozen=True, slots=True)
class Boot:
    """Starting."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Waiting for the trigger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """The camera looks for a code. `foreign` was read while a mark is still looked for; `named`: what is wrong stands
    there, because the time of the trigger is over."""

    since_ms: int
    hint: Hint | None = None
    named: bool = False
    foreign: SeenCode | None = None
    foreign_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Choose:
    """Several marks in one frame: the officer says which car."""

    codes: tuple[SeenCode, ...]
    cursor: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Checking:
    """A check runs; until it has taken a moment, the page behind stays on the panel."""

    number: int
    since_ms: int
    seen: tuple[Observation, ...]
    behind: Page


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One verdict (or the two of an accident); `sheet` 0 is the verdict, then reasons, actions, vehicle."""

    outcomes: tuple[Outcome, ...]
    since_ms: int
    car: int = 0
    sheet: int = 0

    @property
    def outcome(self) -> Outcome:
        """The one on the panel."""
        return self.outcomes[self.car]


@dataclass(frozen=True, slots=True, kw_only=True)
class Typing:
    """A plate is typed; `seen` is what it will be compared with, `kind` the plate kind where the officer chose one."""

    entry: Entry
    seen: Observation
    kind: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tags:
    """Tags in the field, the strongest first."""

    tags: tuple[SeenTag, ...] = ()
    cursor: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Continuous reading. The first of `waiting`, each with its lane, is shown until it is acknowledged."""

    passed: int = 0
    alarms: int = 0
    waiting: tuple[tuple[Outcome, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Accident:
    """Two cars, one record: the officer shows the one that is missing (`State.first_car`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryList:
    """The last checks and today's counts."""

    cursor: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Menu:
    """The menu."""

    cursor: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """About this device; `lines` come with the self-test or a sync, else the page shows the standing facts."""

    title: MenuItem = MenuItem.INFO
    lines: tuple[str, ...] = ()
    busy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Off:
    """Switched off; the words stay on the panel."""

    flat: bool = False  # the battery is empty


Page = (
    Boot | Ready | Aim | Choose | Checking | Shown | Typing | Tags | Checkpoint | Accident | HistoryList | Menu
    | Info | Off
)  # fmt: skip


# ------------------------------------------------------------------------------------------------- the whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The status bar's facts. `battery` in percent, None on mains; `data_as_of` None without data."""

    battery: int | None = None
    charging: bool = False
    online: bool = False
    retry_ms: int | None = None
    data_as_of: datetime | None = None
    clock_doubted: bool = False
    demo: bool = False
    about: tuple[str, ...] = ()  # this device: version, name


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything the panel is drawn from."""

    page: Page = field(default_factory=Boot)
    mode: Mode = Mode.ROADSIDE
    language: Language = "zh"
    province: str = "京"
    network: Network = Network.AUTO
    brightness: int = 2  # of 0 to 3
    status: Status = field(default_factory=Status)
    faults: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # part to problem
    light: Light = Light.ON
    touched_ms: int = 0
    swallowed: Key | None = None  # the key that woke the panel, until it is let go
    numbers: int = 0  # checks begun since the start
    first_car: Observation | None = None  # what was seen of car A of an accident, until car B is seen
    history: tuple[Outcome, ...] = ()  # newest first
    day: date | None = None
    counts: Mapping[VerdictCode, int] = field(default_factory=lambda: MappingProxyType({}))  # of that day
