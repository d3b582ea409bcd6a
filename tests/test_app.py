"""The program's loop: nobody starves it, no part ends it, no key is lost while it is busy."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from PIL import Image

from firmware.app import MOST_EVENTS, Edge, Parts, Program
from firmware.machine import events as ev
from firmware.machine import states as st
from firmware.machine.states import Network, State
from firmware.sheet import LayoutError
from hw.buttons.keys import Key, KeyEvent
from hw.errors import DeviceFaultError
from verifier.check import Observation
from verifier.recheck_queue import News

NOON = datetime(2026, 6, 1, 4, tzinfo=UTC)


class Glass:
    """A panel that may refuse."""

    size = (128, 64)

    def __init__(self) -> None:
        self.pictures: list[Image.Image] = []
        self.levels: list[int] = []
        self.problem: Exception | None = None
        self.resets = self.tries = 0

    def show(self, image: Image.Image) -> None:
        self._may()
        self.pictures.append(image)

    def contrast(self, level: int) -> None:
        self._may()
        self.levels.append(level)

    def reset(self) -> None:
        self._may()
        self.resets += 1

    def close(self, *, keep_picture: bool = False) -> None: ...

    def _may(self) -> None:
        self.tries += 1
        if self.problem is not None:
            raise self.problem


class Asked:
    """Checks and jobs that only remember."""

    def __init__(self) -> None:
        self.checks: list[int] = []

    def run(self, number: int, seen: tuple[Observation, ...]) -> None:
        self.checks.append(number)

    def left(self, number: int) -> None: ...

    def use_network(self, network: Network) -> None: ...

    def missed(self, news: News) -> None: ...

    def told(self, check_id: str) -> None: ...

    def dispute(self, result: object, language: str) -> None: ...

    def sync(self) -> None: ...

    def self_test(self) -> None: ...


class Bench:
    """A program whose clock only the test moves."""

    def __init__(self, draw: Callable[..., Image.Image] | None = None) -> None:
        self.now_ms, self.wall = 0, NOON
        self.glass, self.asked = Glass(), Asked()
        self.played: list[tuple[str, int]] = []
        self.drawn: list[State] = []
        self.program = Program(draw=draw or self._draw, wall=lambda: self.wall, now_ms=lambda: self.now_ms)
        self.program.begin(Parts(checks=self.asked, jobs=self.asked, panel=self.glass, play=self._play))
        self.go(0)

    def _draw(self, state: State, wall: datetime, now_ms: int, size: tuple[int, int]) -> Image.Image:
        self.drawn.append(state)
        return Image.new("1", size)

    def _play(self, signal: str) -> None:
        self.played.append((signal, len(self.glass.pictures)))

    def go(self, ms: int) -> Bench:
        """Time goes by, with a round every 50 ms."""
        end = self.now_ms + ms
        while True:
            self.now_ms = min(end, self.now_ms + 50)
            self.program.turn()
            if self.now_ms == end:
                return self


def test_whoever_posts_without_end_keeps_neither_keys_nor_panel_waiting() -> None:
    bench = Bench()
    for at in range(10 * MOST_EVENTS):
        bench.program.post(ev.PartFault(f"part {at % 7}", str(at)))
    bench.program.turn()
    shown = len(bench.glass.pictures)
    assert shown == 2  # the first page, and one after the first of ten loads
    bench.go(0)
    assert len(bench.glass.pictures) == shown + 1


def test_a_press_and_its_end_count_even_when_the_program_was_busy_for_both() -> None:
    bench = Bench()
    bench.now_ms = 1_000
    bench.program.post(Edge(Key.OK, True, 300))
    bench.program.post(Edge(Key.OK, False, 400))
    bench.program.turn()
    assert isinstance(bench.program.state.page, st.Aim)


def test_a_disturbance_while_the_program_was_busy_is_no_press() -> None:
    bench = Bench()
    bench.now_ms = 1_000
    bench.program.post(Edge(Key.OK, True, 300))
    bench.program.post(Edge(Key.OK, False, 305))
    bench.program.turn()
    assert isinstance(bench.program.state.page, st.Ready)


def test_a_picture_is_made_only_when_something_on_it_has_changed() -> None:
    bench = Bench()
    before = len(bench.drawn)
    bench.go(20_000)
    assert len(bench.drawn) == before
    bench.wall = NOON.replace(minute=1)
    bench.go(50)
    assert len(bench.drawn) == before + 1


def test_a_check_that_takes_a_moment_is_announced_after_250_ms() -> None:
    bench = Bench()
    bench.program.post(ev.CodesSeen((ev.SeenCode(b"car"),), triggered=True))
    bench.go(200)
    pictures = len(bench.drawn)
    bench.go(150)
    assert len(bench.drawn) == pictures + 1
    assert isinstance(bench.program.state.page, st.Checking)


def test_a_page_that_cannot_be_drawn_leaves_a_dark_panel_and_never_the_verdict_before_it() -> None:
    def draw(state: State, wall: datetime, now_ms: int, size: tuple[int, int]) -> Image.Image:
        if isinstance(state.page, st.Aim):
            raise LayoutError("too long")
        return Image.new("1", size, 255)

    bench = Bench(draw)
    bench.program.post(KeyEvent(Key.OK))
    bench.go(100)
    assert bench.glass.pictures[-1].getbbox() is None
    assert bench.program.state.faults == {"panel": "too long"}
    bench.program.post(KeyEvent(Key.BACK))
    bench.go(100)
    assert bench.glass.pictures[-1].getbbox()
    assert bench.program.state.faults == {}


def test_a_panel_that_refuses_one_picture_shows_the_next_at_once_and_not_the_verdict_before_it() -> None:
    bench = Bench()
    bench.glass.problem = DeviceFaultError("panel", "no answer", 121)
    bench.program.post(KeyEvent(Key.OK))
    bench.go(0)
    bench.glass.problem = None
    before = len(bench.glass.pictures)
    bench.go(200)
    assert len(bench.glass.pictures) > before
    assert "panel" not in bench.go(50).program.state.faults


def test_a_panel_that_fails_is_tried_again_ever_less_often_down_to_five_seconds_and_stops_nothing() -> None:
    bench = Bench()
    bench.glass.problem = DeviceFaultError("panel", "no answer", 121)
    bench.program.post(KeyEvent(Key.OK))
    bench.go(60_000)
    assert "panel" in bench.program.state.faults
    assert 10 <= bench.glass.tries <= 20
    before = bench.glass.tries
    bench.go(10_000)
    assert bench.glass.tries == before + 2
    bench.glass.problem = None
    bench.go(5_100)
    assert bench.glass.resets == 1
    assert "panel" not in bench.go(50).program.state.faults


def test_the_panel_is_told_everything_again_every_three_minutes() -> None:
    bench = Bench()
    bench.go(10 * 60_000)
    assert bench.glass.resets == 3


def test_a_signal_is_heard_after_its_picture() -> None:
    bench = Bench()
    before = len(bench.glass.pictures)
    bench.program.post(ev.CodesSeen((ev.SeenCode(b"car"),), triggered=True))
    bench.go(0)
    assert bench.played == [("decoded", before + 1)]


def test_the_last_page_stands_when_the_program_ends() -> None:
    bench = Bench()
    bench.program.post(ev.PowerRead(percent=3))
    bench.program.run()
    assert isinstance(bench.drawn[-1].page, st.Off)


def test_brightness_is_set_from_the_first_page_on() -> None:
    assert Bench().glass.levels == [160]
