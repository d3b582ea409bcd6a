"""What the handheld shows and knows at one moment: frozen values, no behaviour but small questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from types import MappingProxyType

from firmware.digit_entry import Digits
from firmware.machine.events import SeenCode, SeenTag
from firmware.plate_entry import Entry
from hw.buttons.keys import Key
from verifier.check import CheckResult, Observation
from verifier.officers import LONGEST_NUMBER, LONGEST_PIN, SHORTEST_PIN, LoginFault, Officer
from verifier.recheck_queue import News
from verifier.roles import DUTIES, Duty, LimitedAnswer
from verifier.types import Hint, WorkMode
from verifier.verdict import VerdictCode
from verifier.wording import Language

HISTORY = 50  # checks that can be looked at again
WAITING = 20  # alarms that wait to be acknowledged; older ones are in the history


Mode = WorkMode
"""What the officer is at; always on the screen."""


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
    DISPUTE = "dispute"
    SYNC = "sync"
    NETWORK = "network"
    LANGUAGE = "language"
    BRIGHTNESS = "brightness"
    SELF_TEST = "self_test"
    INFO = "info"
    POWER_OFF = "power_off"
    LOCK = "lock"  # one press up from the first


MENU_DUTIES: dict[MenuItem, Duty] = {
    MenuItem.LOOKUP: Duty.CHECK, MenuItem.TAGS: Duty.CHECK, MenuItem.CHECKPOINT: Duty.CHECKPOINT,
    MenuItem.ACCIDENT: Duty.ACCIDENT, MenuItem.HISTORY: Duty.HISTORY, MenuItem.DISPUTE: Duty.CHECK,
    MenuItem.SYNC: Duty.UPKEEP,
    MenuItem.NETWORK: Duty.UPKEEP, MenuItem.SELF_TEST: Duty.UPKEEP,
}  # fmt: skip
"""The others are for everybody who has logged in."""
MENU_MODES: dict[MenuItem, Mode] = {
    MenuItem.TAGS: Mode.TAGS, MenuItem.CHECKPOINT: Mode.CHECKPOINT, MenuItem.ACCIDENT: Mode.ACCIDENT,
}  # fmt: skip
"""The lines that a policy may take out."""


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
class PurposeChoice:
    """What a typed plate is looked up for; `typed` is the page to go back to."""

    seen: Observation
    typed: Typing


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a limited role gets of a check, for a car by its code, tag or plate."""

    number: int
    answer: LimitedAnswer
    since_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tags:
    """Tags in the field, the strongest first. The cursor is on the strongest, or on the one that a key has `moved` it
    to; `since_ms`: when a list put another tag under it, None where a key did."""

    tags: tuple[SeenTag, ...] = ()
    cursor: int = 0
    moved: bool = False
    since_ms: int | None = None


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
class NewsList:
    """Checks of earlier that are decided otherwise now, one at a time."""

    news: tuple[News, ...]  # newest first; never empty
    since_ms: int
    cursor: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Menu:
    """The menu; on a locked device that of whoever wants to switch it off. A checkpoint `behind` it goes on."""

    cursor: int = 0
    behind: Checkpoint | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """About this device; `lines` come with the self-test or a sync, else the page shows the standing facts."""

    title: MenuItem = MenuItem.INFO
    lines: tuple[str, ...] = ()
    busy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """The device is locked: number, then PIN. `attempt` is under way; `refused` stands there until a key, and where
    no try counts until then, until `until_ms`. A checkpoint `behind` goes on."""

    number: Digits = field(default_factory=lambda: Digits(shortest=1, longest=LONGEST_NUMBER))
    pin: Digits = field(default_factory=lambda: Digits(shortest=SHORTEST_PIN, longest=LONGEST_PIN))
    attempt: int | None = None
    asked_ms: int = 0
    refused: LoginFault | None = None
    until_ms: int | None = None
    wait_s: int = 0  # of that, as told
    behind: Checkpoint | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Off:
    """Switched off; the words stay on the panel. Not before all is `kept` on the disk they say that it is over."""

    flat: bool = False  # the battery is empty
    kept: bool = False


Page = (
    Boot | Ready | Aim | Choose | Checking | Shown | Typing | Tags | Checkpoint | Accident | HistoryList | NewsList
    | Menu | Info | Off | Login | PurposeChoice | Answer
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
    about: tuple[str, ...] = ()  # this device: version, name, version of its settings
    settings: int = 0  # version of those in force; 0: not counted


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything the panel is drawn from."""

    page: Page = field(default_factory=Boot)
    mode: Mode = Mode.ROADSIDE
    opens: Mode = Mode.ROADSIDE  # after the start and after a login, as the policy says
    offered: frozenset[Mode] = frozenset(Mode)  # by the policy
    language: Language = "zh"
    province: str = "京"
    network: Network = Network.AUTO
    brightness: int = 2  # of 0 to 3
    status: Status = field(default_factory=Status)
    faults: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # part to problem
    light: Light = Light.ON
    touched_ms: int = 0
    swallowed: Key | None = None  # the key that woke the panel, until it is let go
    warned_ms: int | None = None  # when the panel's last warning came up (`checking.warning`)
    numbers: int = 0  # checks begun since the start
    first_car: Observation | None = None  # what was seen of car A of an accident, until car B is seen
    history: tuple[Outcome, ...] = ()  # newest first
    day: date | None = None
    counts: Mapping[VerdictCode, int] = field(default_factory=lambda: MappingProxyType({}))  # of that day
    news: tuple[News, ...] = ()  # that the officer has not seen, oldest first
    rung: frozenset[str] = frozenset()  # the numbers of those that were heard
    lock_ms: int | None = None  # without a key; None: nobody has to log in
    locked: bool = False
    officer: Officer | None = None  # who has logged in last
    attempts: int = 0  # logins begun since the start
    acted_ms: int = 0  # the last key
    flagged_ms: int | None = None  # the last typed plate beyond what the policy allows

    def may(self, duty: Duty) -> bool:
        """Whether whoever holds the device may do this: everything, where nobody has to log in."""
        if self.lock_ms is None:
            return True
        return not self.locked and self.officer is not None and duty in DUTIES[self.officer.role]

    @property
    def menu(self) -> tuple[MenuItem, ...]:
        """The lines that are for whoever holds the device; whoever that is may switch it off."""
        if self.locked:
            return (MenuItem.POWER_OFF,)
        duties = ((item, MENU_DUTIES.get(item)) for item in MenuItem)
        shown = (item for item, duty in duties if duty is None or self.may(duty))
        absent = {
            *((MenuItem.LOCK,) if self.lock_ms is None else ()),
            *((MenuItem.DISPUTE,) if self.disputable is None or not self.may(Duty.VERDICT) else ()),
            *(item for item, mode in MENU_MODES.items() if mode not in self.offered),
        }
        return tuple(item for item in shown if item not in absent)

    @property
    def disputable(self) -> Outcome | None:
        """The newest check whose verdict rests on a record of the centre's; None without one."""
        evidence = ((outcome, outcome.result.evidence) for outcome in self.history)
        return next((outcome for outcome, seen in evidence if seen.cache.answer or seen.online.answer), None)
