"""The program: one thread owns the state and the panel. Everybody else posts events.

Events go through the machine; what it asks for is done here, in one line each. Nothing here decides anything.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from firmware.draw import SHIFT_MS, shown
from firmware.fonts import FontMissingError
from firmware.machine import events as ev
from firmware.machine.effects import (
    Aid,
    Check,
    Dispute,
    Effect,
    LogIn,
    Missed,
    Play,
    PowerOff,
    ReadTags,
    Scan,
    SelfTest,
    SetLight,
    Sync,
    Told,
    UseNetwork,
    Watch,
)
from firmware.machine.states import Answer, Checking, Light, Network, Page, Shown, State
from firmware.machine.steps import step
from firmware.sheet import LayoutError
from hw.buttons.keys import Key
from hw.buttons.touches import Touches
from hw.errors import HardwareError
from hw.interfaces import Display
from verifier.check import CheckResult, Observation
from verifier.clock import Clock
from verifier.recheck_queue import News
from verifier.types import Hint
from verifier.wording import Language

if TYPE_CHECKING:
    from PIL import Image

TICK_MS = 50
MOST_EVENTS = 200  # of one round: whoever posts faster than that must not keep panel and keys waiting
PANEL = "panel"
RENEW_MS = 180_000  # the panel is told everything again: a controller that lost its supply is dark and says nothing
FIRST_RETRY_MS, RETRY_MS = 100, 5_000  # after the panel did not take a picture, each time twice as long
CONTRASTS = (16, 80, 160, 255)  # by the brightness 0 to 3


class Panel(Display, Protocol):
    """The panel, with its light."""

    def contrast(self, level: int) -> None:
        """Brightness of the lit pixels, 0 to 255."""
        ...

    def reset(self) -> None:
        """Tell the controller everything again."""
        ...

    def close(self, *, keep_picture: bool = False) -> None:
        """Let go of it, dark unless the picture is to stay; harmless twice."""
        ...


class Seeing(Protocol):
    """What looks for codes."""

    def look(self, on: bool) -> None:
        """Begin or end."""
        ...

    def aid(self, hint: Hint | None) -> None:
        """Do something about what keeps it from reading."""
        ...


class TagField(Protocol):
    """What reads tags."""

    def read(self, on: bool) -> None:
        """Show what is in the field."""
        ...

    def watch(self, on: bool) -> None:
        """Check every car that passes."""
        ...


class Checks(Protocol):
    """What runs checks; answers by `Checked` events, at once and perhaps once more."""

    def run(self, number: int, seen: tuple[Observation, ...]) -> None:
        """Begin a check."""
        ...

    def left(self, number: int) -> None:
        """The officer has gone on from this check: what is before the camera now is another car."""
        ...

    def use_network(self, network: Network) -> None:
        """Follow the network, or keep off it."""
        ...

    def missed(self, news: News) -> None:
        """The officer is to be told what became of a check that is not on the panel any more."""
        ...

    def told(self, check_id: str) -> None:
        """The officer has seen what became of a check of earlier."""
        ...

    def dispute(self, result: CheckResult, language: Language) -> None:
        """The officer holds the record behind a check for wrong; ends in a `Reported` event."""
        ...


class Jobs(Protocol):
    """Long work, done beside the program; each ends in a `Reported` event."""

    def sync(self) -> None:
        """Fetch the data now."""
        ...

    def self_test(self) -> None:
        """Test every part."""
        ...


class LogsIn(Protocol):
    """What tries PINs; answers by `LoggedIn` or `NotLetIn`."""

    def log_in(self, attempt: int, number: str, pin: str) -> None:
        """Begin to try one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the program works with; a part that is not there is None, and its banner comes as an event."""

    checks: Checks
    jobs: Jobs
    panel: Panel | None = None
    eyes: Seeing | None = None
    tags: TagField | None = None
    login: LogsIn | None = None
    play: Callable[[str], None] = lambda signal: None


Draw = Callable[[State, datetime, int, tuple[int, int]], "Image.Image"]
"""State, wall clock, now in milliseconds, size of the panel."""


@dataclass(frozen=True, slots=True)
class Edge:
    """The contact of a key has closed or opened at this moment."""

    key: Key
    closed: bool
    at_ms: int


def monotonic_ms() -> int:
    """Integer milliseconds that never go back."""
    return time.monotonic_ns() // 1_000_000


class Program:
    """The handheld. `post`, `edge` and `stop` may be called from any thread and never wait; the rest is for one."""

    def __init__(
        self,
        *,
        draw: Draw,
        wall: Clock,
        now_ms: Callable[[], int] = monotonic_ms,
        state: State | None = None,
        beat: Callable[[int], None] = lambda now_ms: None,
    ) -> None:
        """`beat` is called in every round: whoever watches the program learns that it lives."""
        self._draw, self._wall, self._now_ms, self._beat = draw, wall, now_ms, beat
        self._queue: queue.SimpleQueue[ev.Event | Edge] = queue.SimpleQueue()
        self._touches = Touches()
        self._parts: Parts | None = None
        self._sounds: list[str] = []  # of this round
        self._drawn: tuple[object, ...] | None = None
        self._panel_ms = self._ticked_ms = now_ms()
        self._retry_ms = 0  # until a panel that fails is tried again; 0: it works
        self._told = ""  # the panel's problem, as its banner has it
        self.state = state or State()
        self.over = False

    def post(self, event: ev.Event | Edge) -> None:
        """Something has happened."""
        self._queue.put(event)

    def edge(self, key: Key, closed: bool) -> None:
        """The contact of a key has closed or opened."""
        self._queue.put(Edge(key, closed, self._now_ms()))

    def stop(self) -> None:
        """End after this round."""
        self.over = True

    def begin(self, parts: Parts) -> None:
        """The parts are there."""
        self._parts = parts
        self._light(self.state.light, self.state.brightness)
        self.post(ev.Started())

    def run(self) -> None:
        """Until the officer switches off, or `stop`."""
        while not self.over:
            self.turn()

    def turn(self) -> None:
        """One round: wait for something, let the machine answer, do what it asks, draw, and only then be heard."""
        self._beat(self._now_ms())
        item = self._next()
        now_ms = self._now_ms()
        for _ in range(MOST_EVENTS):
            if item is None:
                break
            self._happened(item, now_ms)
            item = self._waiting()
        if item is not None:
            self._happened(item, now_ms)
        for event in self._touches.poll(now_ms):
            self._step(event, now_ms)
        if now_ms - self._ticked_ms >= TICK_MS:
            self._ticked_ms = now_ms
            self._step(ev.Tick(), now_ms)
        self._show()
        self._play()

    def _next(self) -> ev.Event | Edge | None:
        """The next thing, waited for until something is due."""
        now_ms, due_ms = self._now_ms(), self._touches.due_ms()
        tick_ms = self._ticked_ms + TICK_MS
        wait_ms = (tick_ms if due_ms is None else min(tick_ms, due_ms)) - now_ms
        if wait_ms <= 0:
            return self._waiting()
        try:
            return self._queue.get(timeout=wait_ms / 1000)
        except queue.Empty:
            return None

    def _waiting(self) -> ev.Event | Edge | None:
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None

    def _happened(self, item: ev.Event | Edge, now_ms: int) -> None:
        if not isinstance(item, Edge):
            self._step(item, now_ms)
            return
        # A press whose end waits in the queue as well counts, too: the program may have been busy for both.
        for event in self._touches.poll(item.at_ms):
            self._step(event, now_ms)
        self._touches.edge(item.key, item.closed, item.at_ms)

    def _step(self, event: ev.Event, now_ms: int) -> None:
        number = _check_at(self.state.page)
        self.state, effects = step(self.state, event, now_ms)
        if self._parts is not None:
            if number is not None and number != _check_at(self.state.page):
                self._parts.checks.left(number)
            for effect in effects:
                self._do(effect, self._parts)

    def _do(self, effect: Effect, parts: Parts) -> None:
        match effect:
            case Scan(on):
                if parts.eyes is not None:
                    parts.eyes.look(on)
            case Aid(hint):
                if parts.eyes is not None:
                    parts.eyes.aid(hint)
            case ReadTags(on):
                if parts.tags is not None:
                    parts.tags.read(on)
            case Watch(on):
                if parts.tags is not None:
                    parts.tags.watch(on)
            case Check():
                parts.checks.run(effect.number, effect.seen)
            case Play(signal):
                self._sounds.append(signal.value)
            case SetLight(light, brightness):
                self._light(light, brightness)
            case Sync():
                parts.jobs.sync()
            case SelfTest():
                parts.jobs.self_test()
            case UseNetwork(network):
                parts.checks.use_network(network)
            case Missed(news):
                parts.checks.missed(news)
            case Told(check_id):
                parts.checks.told(check_id)
            case Dispute(result, language):
                parts.checks.dispute(result, language)
            case LogIn():
                if parts.login is not None:
                    parts.login.log_in(effect.attempt, effect.number, effect.pin)
            case PowerOff():
                self.over = True

    def _play(self) -> None:
        """The last signal of the round, after its picture; with a panel that fails, alone."""
        if self._sounds and self._parts is not None:
            self._parts.play(self._sounds[-1])
        self._sounds.clear()

    # ---------------------------------------------------------------------------------------------- the panel

    def _show(self) -> None:
        """Draw what has changed. A panel that fails is tried again; checks go on, and are heard."""
        panel = None if self._parts is None else self._parts.panel
        if panel is None:
            return
        now_ms, wall = self._now_ms(), self._wall()
        renew = now_ms - self._panel_ms >= (self._retry_ms or RENEW_MS)
        content = (shown(self.state, now_ms), wall.replace(second=0, microsecond=0), now_ms // SHIFT_MS)
        if not renew and (self._retry_ms or self._drawn == content):
            return
        try:
            if renew:
                self._panel_ms = now_ms
                panel.reset()
                panel.contrast(_level(self.state.light, self.state.brightness))
            picture, problem = self._picture(wall, now_ms, panel.size)
            panel.show(picture)
        except HardwareError as exc:
            self._panel_failed(exc.problem, now_ms)
        else:
            self._drawn = content
            self._panel_failed("", now_ms, picture_problem=problem)

    def _picture(self, wall: datetime, now_ms: int, size: tuple[int, int]) -> tuple[Image.Image, str]:
        """The page; a dark panel and the reason where it cannot be drawn: never the page before it, whose verdict is
        that of another car."""
        try:
            return self._draw(self.state, wall, now_ms, size), ""
        except (LayoutError, FontMissingError) as exc:
            from PIL import Image  # noqa: PLC0415 - loaded by the drawing

            return Image.new("1", size), str(exc)

    def _light(self, light: Light, brightness: int) -> None:
        if self._parts is None or self._parts.panel is None or self._retry_ms:
            return
        try:
            self._parts.panel.contrast(_level(light, brightness))
        except HardwareError as exc:
            self._panel_failed(exc.problem, self._now_ms())

    def _panel_failed(self, problem: str, now_ms: int, picture_problem: str = "") -> None:
        if problem or self._retry_ms:
            self._panel_ms = now_ms
        self._retry_ms = min(2 * self._retry_ms or FIRST_RETRY_MS, RETRY_MS) if problem else 0
        if (problem or picture_problem) != self._told:
            self._told = problem or picture_problem
            self.post(ev.PartFault(PANEL, self._told))


def _check_at(page: Page) -> int | None:
    """The number of the check that the officer waits for or looks at."""
    match page:
        case Checking() | Answer():
            return page.number
        case Shown():
            return page.outcome.number
    return None


def _level(light: Light, brightness: int) -> int:
    return {Light.ON: CONTRASTS[brightness], Light.DIM: CONTRASTS[0], Light.SLEEP: 0}[light]
