"""Promise 10: whose verdict is on the panel, that nobody is stuck, and that the console obeys nobody unknown."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from firmware.console import KEYS, PROMPT
from firmware.console_commands import COMMANDS
from firmware.console_login import IDLE_S, ConsoleKey, KeyKind
from firmware.machine import events as ev
from firmware.machine import states as st
from firmware.machine.effects import Check, Effect
from firmware.machine.states import State
from firmware.machine.steps import step
from hw.buttons.keys import Key, KeyEvent, Touch
from tests.hand import result_of
from tests.test_console import SECRET, Line
from tests.test_console_line import Desk
from tests.torture.mirrors import run_machine
from tests.torture.run import Run
from verifier.audit import read_log
from verifier.check import CheckResult, Observation
from verifier.types import Hint, Plate, TagAuth, TagEvidence, TagSeen
from verifier.verdict import Action, Grade, Tone, VerdictCode
from verifier.wording import VERDICTS

LONGEST_SHOWN_MS = 20_000
LONGEST_CHECK_MS = 5_000
SEEN_MS = 400  # a key before that was meant for what stood there before
TICK_MS = 100

_KEYS = some.sampled_from(list(Key))
_CODES = some.sampled_from(list(VerdictCode))


def _warning(page: st.Page) -> list[tuple[str, VerdictCode]]:
    """The stops and cautions of a page of verdicts, or the alarm that is to be acknowledged."""
    if isinstance(page, st.Checkpoint):
        return [(outcome.result.check_id, outcome.result.verdict.code) for outcome, _ in page.waiting[:1]]
    outcomes = page.outcomes if isinstance(page, st.Shown) else ()
    verdicts = [(one.result.check_id, one.result.verdict) for one in outcomes]
    return [(number, said.code) for number, said in verdicts if said.tone in (Tone.STOP, Tone.CAUTION)]


def _tag(number: int, read: bool) -> TagEvidence:
    tid = f"E2{number:022X}" if read else ""
    seen = TagSeen(epc=b"tag %d" % number, tid=bytes.fromhex(tid) or None)
    return TagEvidence(tid=tid, auth=TagAuth.UNSUPPORTED, plate=Plate("京A12345", "02"), seen=seen)


def _under(page: st.Page) -> bytes | None:
    """The EPC of the tag under the cursor."""
    seen = page.tags[page.cursor].evidence.seen if isinstance(page, st.Tags) and page.tags else None
    return None if seen is None else seen.epc


class Screens(RuleBasedStateMachine):
    """The pure machine of the handheld under whatever comes, beside a model of what was asked and answered."""

    tried = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).tried += 1
        self.state, self.now_ms = State(), 0
        self.asked: dict[int, tuple[Observation, ...]] = {}
        self.answers: dict[int, dict[str, CheckResult]] = {}  # by check number, then by id: the newest one
        self.seen = self.checks = 0
        self.shown_ms: int | None = None  # since when the same page of verdicts stands, whatever is answered meanwhile
        self.warned_ms = 0  # since when the same warning stands
        self.tids: set[int] = set()  # of these tags
        self.under_ms: int | None = None  # when a list put another tag under the cursor; None: a key did
        self.happens(ev.Started())

    def happens(self, event: ev.Event) -> tuple[Effect, ...]:
        """One event, now."""
        before = self.state.page
        self.state, effects = step(self.state, event, self.now_ms)
        self._takes_nothing_away_unseen(before, event)
        self._checks_the_tag_that_was_chosen(before, event, effects)
        for effect in effects:
            if isinstance(effect, Check):
                assert effect.number not in self.asked, "two checks of one number"
                self.asked[effect.number] = effect.seen
        if isinstance(self.state.page, st.Shown) and (self.state.page is not before):
            self.shown_ms = self.now_ms
        return effects

    def _takes_nothing_away_unseen(self, before: st.Page, event: ev.Event) -> None:
        """No finger, and no trigger of an engine, ends a stop, a caution or an alarm that has only just come up."""
        stood, stands = _warning(before), _warning(self.state.page)
        finger = isinstance(event, KeyEvent) or (isinstance(event, ev.CodesSeen) and event.triggered)
        leaves = isinstance(before, st.Checkpoint) and isinstance(event, KeyEvent) and event.touch is Touch.HOLD
        if stood and finger and not leaves and self.now_ms - self.warned_ms < SEEN_MS:
            assert stands == stood, "a warning was taken away unseen"
        if stands != stood:
            self.warned_ms = self.now_ms

    def _checks_the_tag_that_was_chosen(self, before: st.Page, event: ev.Event, effects: tuple[Effect, ...]) -> None:
        """The tag under the cursor is the one a key has moved it to while that is there, and is checked only after the
        officer could see that it is the one."""
        after = self.state.page
        if isinstance(after, st.Tags):
            under, is_under = _under(before), _under(after)
            if isinstance(event, KeyEvent) and event.touch is not Touch.RELEASE and after != before:
                self.under_ms = None if isinstance(before, st.Tags) else self.now_ms
            elif under != is_under:
                there = [tag.evidence.seen for tag in after.tags if tag.evidence.seen is not None]
                assert self.under_ms is not None or under not in [seen.epc for seen in there], (
                    "the cursor has moved by itself"
                )
                self.under_ms = self.now_ms
        if isinstance(before, st.Tags) and isinstance(event, KeyEvent):
            for effect in effects:
                if isinstance(effect, Check):
                    assert self.under_ms is None or self.now_ms - self.under_ms >= SEEN_MS, "another car's tag"
                    seen = effect.seen[-1].tag
                    assert seen is not None
                    assert seen.seen is not None
                    assert seen.seen.epc == _under(before)

    def time(self, milliseconds: int) -> None:
        """It goes by in ticks."""
        end = self.now_ms + milliseconds
        while self.now_ms < end:
            self.now_ms = min(end, self.now_ms + TICK_MS)
            self.happens(ev.Tick())

    # ------------------------------------------------------------------------------------------------ what comes

    @rule(key=_KEYS)
    def press(self, key: Key) -> None:
        """A finger, for a moment."""
        for touch in (Touch.PRESS, Touch.RELEASE):
            self.happens(KeyEvent(key, touch))
        self.now_ms += 80

    @rule(key=_KEYS, repeats=some.integers(0, 4))
    def hold(self, key: Key, repeats: int) -> None:
        """A finger that stays."""
        for touch in (Touch.PRESS, Touch.HOLD, *[Touch.REPEAT] * repeats, Touch.RELEASE):
            self.happens(KeyEvent(key, touch))
            self.now_ms += 300

    @rule(milliseconds=some.sampled_from([50, 400, 600, 3_000, 5_100, 15_100, 61_000]))
    def wait(self, milliseconds: int) -> None:
        """Nothing happens."""
        self.time(milliseconds)

    @rule(count=some.integers(1, 3), mark=some.booleans(), triggered=some.booleans())
    def codes(self, count: int, mark: bool, triggered: bool) -> None:
        """A frame with codes, each of a car that was not there before."""
        self.seen += count
        seen = tuple(ev.SeenCode(b"car %d" % (self.seen - at), mark) for at in range(count))
        self.happens(ev.CodesSeen(seen, triggered))

    @rule(hint=some.sampled_from([None, *Hint]))
    def hint(self, hint: Hint | None) -> None:
        """A frame with none."""
        self.happens(ev.HintSeen(hint))

    @rule(heard=some.dictionaries(some.integers(0, 3), some.tuples(some.integers(-60, -40), some.booleans())))
    def tags(self, heard: dict[int, tuple[int, bool]]) -> None:
        """Tags in the field, one louder than the other; a TID that was read stays so."""
        self.tids |= {at for at, (_, read) in heard.items() if read}
        seen = [ev.SeenTag(evidence=_tag(at, at in self.tids), rssi_dbm=rssi) for at, (rssi, _) in heard.items()]
        self.happens(ev.TagsSeen(tuple(seen)))

    @precondition(lambda self: isinstance(self.state.page, st.Ready | st.Tags))
    @rule(key=some.sampled_from([Key.UP, Key.DOWN, Key.OK]))
    def choose_a_tag(self, key: Key) -> None:
        """A finger that is after one of them."""
        self.press(key if isinstance(self.state.page, st.Tags) else Key.LEFT)

    @precondition(lambda self: self.asked)
    @rule(back=some.integers(0, 3), code=_CODES, confirm=some.booleans(), late=some.booleans(),
          grade=some.sampled_from(list(Grade)))  # fmt: skip
    def answer(self, back: int, code: VerdictCode, confirm: bool, late: bool, grade: Grade) -> None:
        """An answer to one of the last checks, be it the first, a late one or one too many."""
        number = sorted(self.asked)[-1 - back % len(self.asked)]
        results = tuple(self._result(number, car, code, confirm, grade) for car in range(len(self.asked[number])))
        self.answers.setdefault(number, {}).update({result.check_id: result for result in results})
        self.happens(ev.Checked(number=number, results=results, late=late, seen=self.asked[number]))

    def _result(self, number: int, car: int, code: VerdictCode, confirm: bool, grade: Grade) -> CheckResult:
        actions = [Action.CONFIRM_PLATE] if confirm else [Action.RELEASE]
        plate = Plate(f"京A{number % 10**5:05d}", "02")
        return result_of(f"{number}-{car}", code, grade=grade, actions=actions, plate=plate)

    @rule(number=some.integers(1000, 1010), code=_CODES)
    def stray_answer(self, number: int, code: VerdictCode) -> None:
        """An answer to a check that was never asked for."""
        before = self.state.page
        self.happens(ev.Checked(number=number, results=(result_of(f"stray {number}", code),)))
        assert isinstance(self.state.page, st.Shown) is isinstance(before, st.Shown)

    @rule(part=some.sampled_from(["camera", "reader", "network"]), problem=some.sampled_from(["", "hangs"]))
    def part(self, part: str, problem: str) -> None:
        """A part fails, or works again."""
        before = type(self.state.page)
        self.happens(ev.PartFault(part, problem))
        assert type(self.state.page) is before, "a fault blocks the officer"

    @rule(lane=some.integers(1, 4), code=_CODES)
    def alarm(self, lane: int, code: VerdictCode) -> None:
        """A car in a lane that is not in order."""
        self.happens(ev.Alarm(number=5000 + lane, result=result_of(f"lane {lane}", code), lane=lane))

    # ------------------------------------------------------------------------------------------------ safety

    @invariant()
    def the_verdict_is_that_of_what_was_seen(self) -> None:
        """Every verdict on the panel was given to the check that the panel shows, for the car it shows."""
        if not isinstance(page := self.state.page, st.Shown):
            return
        for outcome in page.outcomes:
            if outcome.result.check_id.startswith(("lane", "stray")):
                assert outcome.number not in self.asked
                continue
            number, car = map(int, outcome.result.check_id.split("-"))
            assert outcome.number == number, "the verdict of another check"
            assert outcome.seen == self.asked[number][car], "the verdict of another car"
            assert outcome.result == self.answers[number][outcome.result.check_id], "an answer that no longer counts"

    @invariant()
    def what_is_checked_is_the_last_thing_that_was_asked(self) -> None:
        """No check of before is waited for."""
        if isinstance(page := self.state.page, st.Checking):
            assert page.number == max(self.asked)
            assert page.seen == self.asked[page.number]

    @invariant()
    def memory_is_bounded(self) -> None:
        """Nothing that the panel keeps grows with the day."""
        assert len(self.state.history) <= st.HISTORY
        assert len(getattr(self.state.page, "waiting", ())) <= st.WAITING

    # ---------------------------------------------------------------------------------------------- liveness

    @precondition(lambda self: isinstance(self.state.page, st.Shown))
    @rule()
    def left_alone_a_verdict_goes(self) -> None:
        """Within 20 seconds, unless it is a stop, which a key ends."""
        page = self.state.page
        assert isinstance(page, st.Shown)
        stops = any(one.result.verdict.tone is Tone.STOP for one in page.outcomes)
        self.time(LONGEST_SHOWN_MS)
        assert isinstance(self.state.page, st.Shown) is stops
        if stops:
            for _ in range(2):  # the first one may only wake the panel
                if isinstance(self.state.page, st.Shown):
                    self.press(Key.BACK)
            assert not isinstance(self.state.page, st.Shown)

    @precondition(lambda self: isinstance(self.state.page, st.Checking))
    @rule()
    def left_alone_a_check_ends(self) -> None:
        """A program that never answers leaves nobody waiting."""
        self.time(LONGEST_CHECK_MS + TICK_MS)
        assert not isinstance(self.state.page, st.Checking)

    def teardown(self) -> None:
        """From everywhere two held keys lead to the trigger, and the trigger to a verdict."""
        for _ in range(2):
            self.hold(Key.BACK, 0)
        assert isinstance(self.state.page, st.Ready | st.Off)
        if isinstance(self.state.page, st.Ready):
            self.press(Key.OK)
            self.codes(1, mark=True, triggered=False)
            self.answer(0, VerdictCode.VALID, confirm=False, late=False, grade=Grade.ONLINE)
            assert isinstance(self.state.page, st.Shown)
            assert self.state.page.outcome.result.verdict.tone is VERDICTS[VerdictCode.VALID].tone


# ------------------------------------------------------------------------------------------------ the console

CLOSED = sorted(name for name, command in COMMANDS.items() if not command.free)
_NOISE = some.binary(max_size=60).map(lambda data: bytes(b for b in data if b not in b"\x03\x04\t\r\n"))


class ConsoleLines(RuleBasedStateMachine):
    """The real console on a pseudo-terminal, typed at by somebody with and without a key."""

    tried = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).tried += 1
        self.folder = Path(tempfile.mkdtemp(prefix="console-"))
        self.desk = Desk(self.folder)
        self.desk.home.mkdir()
        (self.desk.home / KEYS).write_text(ConsoleKey("field-3", KeyKind.HMAC, SECRET).line() + "\n")
        self.stack = ExitStack()
        self.line: Line = self.stack.enter_context(self.desk.served())
        self.known = False
        self.refused = 0

    def teardown(self) -> None:
        """Nothing that needs a login was done without one."""
        self.stack.close()
        entries = list(read_log(self.desk.home / "audit.jsonl")) if (self.desk.home / "audit.jsonl").exists() else []
        done = [entry for entry in entries if entry["command"] in CLOSED and entry["outcome"] != "refused"]
        assert all(entry["technician"] == "field-3" for entry in done)
        shutil.rmtree(self.folder)

    @rule(name=some.sampled_from(CLOSED), words=some.sampled_from(["", "yes", "-j", "--from x", "yes yes"]))
    def command_of_a_technician(self, name: str, words: str) -> None:
        """Without a login it does nothing; with one only what takes no time here is asked for."""
        before = list(self.desk.switched)
        if self.known:
            return
        answer = self.line.ask(f"{name} {words}".strip())
        assert f"{name}: log in first" in answer
        assert self.desk.switched == before == []

    @rule(data=_NOISE)
    def noise(self, data: bytes) -> None:
        """Whatever a bad line gives."""
        self.line.type(data + b"\r")
        self.line.expect(r"(?s)(?:\w[\w-]*@)?markcheck> $")

    @precondition(lambda self: not self.known)
    @rule(answer=some.sampled_from(["0000-0000-0000-0000", "x", "field-3", "A" * 80]))
    def wrong_answer(self, answer: str) -> None:
        """A login with nothing behind it."""
        self.line.type("login\r")
        if self.line.expect(r"answer: $|" + PROMPT + "$").group() == "answer: ":
            self.line.ask(answer)
            self.desk.now_s += 3601  # the delay after many tries is not what is tried here

    @precondition(lambda self: not self.known)
    @rule()
    def right_answer(self) -> None:
        """A technician."""
        self.line.login()
        self.known = "field-3@" in self.line.all[-40:].decode("ascii")
        assert self.known

    @precondition(lambda self: self.known)
    @rule()
    def away(self) -> None:
        """Nobody types for five minutes."""
        self.desk.now_s += IDLE_S + 1
        self.line.type("poweroff yes\r")
        self.line.expect("logged out")
        self.line.expect(PROMPT + "$")
        self.known = False
        assert self.desk.switched == []

    @invariant()
    def nothing_steers_the_terminal(self) -> None:
        """What the console writes is plain."""
        assert all(32 <= byte < 127 or byte in b"\r\n\b\a" for byte in self.line.all)


def screens_and_console(run: Run) -> None:
    """Promise 10."""
    for seed in run.rounds("examples", 0.7):
        before = Screens.tried
        run_machine(Screens, seed, 10 if run.seconds else 200, steps=50)
        run.counts["examples"] += Screens.tried - before
    for seed in run.rounds("console examples", 0.3):
        before = ConsoleLines.tried
        run_machine(ConsoleLines, seed, 1 if run.seconds else 10, steps=40)
        run.counts["console examples"] += ConsoleLines.tried - before
