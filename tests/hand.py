"""A hand on the machine: readable scripts of what an officer does, over the pure state machine."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from firmware.machine import events as ev
from firmware.machine import states as st
from firmware.machine.effects import Check, Effect, Play
from firmware.machine.states import State
from firmware.machine.steps import step
from hw.buttons.keys import Key, KeyEvent, Touch
from verifier.check import CheckResult, Observation
from verifier.policy import Policy
from verifier.types import CodeEvidence, CodeReading, Evidence, Plate, Source
from verifier.verdict import Action, Finding, Grade, Reason, Tone, Verdict, VerdictCode
from verifier.wording import VERDICTS

NOON = datetime(2026, 6, 1, 4, tzinfo=UTC)
CAR = Plate("京A12345", "02")


def result_of(
    check: str = "a",
    code: VerdictCode = VerdictCode.VALID,
    *,
    grade: Grade = Grade.FRESH_CACHE,
    actions: Sequence[Action] = (Action.RELEASE,),
    reasons: Sequence[Reason] = (),
    plate: Plate | None = CAR,
    tone: Tone | None = None,
) -> CheckResult:
    """A result with this verdict."""
    verdict = Verdict(
        code=code, grade=grade, tone=tone or VERDICTS[code].tone, actions=tuple(actions), policy="test 1", plate=plate,
        findings=tuple(Finding(reason, Source.CACHE) for reason in reasons), valid_until=None, as_of=NOON,
    )  # fmt: skip
    evidence = Evidence(code=CodeEvidence(reading=CodeReading.NONE))
    return CheckResult(check_id=check, verdict=verdict, evidence=evidence, now=NOON, earliest=NOON, policy=Policy())


class Hand:
    """Holds a state, a clock, and everything that was asked of the program."""

    def __init__(self, state: State | None = None, now_ms: int = 0) -> None:
        self.state = state or State()
        self.now_ms = now_ms
        self.effects: list[Effect] = []
        self.did: tuple[Effect, ...] = ()  # by the last event

    @classmethod
    def ready(cls) -> Hand:
        """A device that waits for the trigger."""
        hand = cls()
        hand.happens(ev.Started())
        return hand

    @property
    def page(self) -> st.Page:
        """What the panel shows."""
        return self.state.page

    def happens(self, event: ev.Event) -> Hand:
        """One event, now."""
        self.state, self.did = step(self.state, event, self.now_ms)
        self.effects += self.did
        return self

    def press(self, *keys: str) -> Hand:
        """Keys, pressed and let go 100 ms apart."""
        for key in keys:
            self.happens(KeyEvent(Key(key)))
            done = self.did
            self.happens(KeyEvent(Key(key), Touch.RELEASE))
            self.did = done
            self.now_ms += 100
        return self

    def hold(self, key: str) -> Hand:
        """A key that stays down for a while."""
        for touch in (Touch.PRESS, Touch.HOLD, Touch.REPEAT, Touch.RELEASE):
            self.happens(KeyEvent(Key(key), touch))
            self.now_ms += 700
        return self

    def wait(self, seconds: float) -> Hand:
        """Time goes by, a tick every 50 ms."""
        until = self.now_ms + round(seconds * 1000)
        seen: list[Effect] = []
        while self.now_ms < until:
            self.now_ms += 50
            self.happens(ev.Tick())
            seen += self.did
        self.did = tuple(seen)
        return self

    def sees(self, *texts: str, mark: bool = True) -> Hand:
        """Codes in a frame."""
        return self.happens(ev.CodesSeen(tuple(ev.SeenCode(text.encode(), mark, text) for text in texts)))

    @property
    def asked(self) -> Check:
        """The last check that was asked for."""
        return [effect for effect in self.effects if isinstance(effect, Check)][-1]

    @property
    def checks(self) -> int:
        """How many checks were asked for."""
        return sum(isinstance(effect, Check) for effect in self.effects)

    @property
    def last_seen(self) -> Observation:
        """What the last check looks at."""
        return self.asked.seen[-1]

    def answers(self, *results: CheckResult, late: bool = False, number: int | None = None) -> Hand:
        """The program answers a check, the last one unless told."""
        number = self.asked.number if number is None else number
        seen = next((one.seen for one in self.effects if isinstance(one, Check) and one.number == number), ())
        return self.happens(ev.Checked(number=number, results=results or (result_of(),), late=late, seen=seen))

    def heard(self) -> list[str]:
        """The signals of the last event."""
        return [effect.signal.value for effect in self.did if isinstance(effect, Play)]
