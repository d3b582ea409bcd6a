"""The demo: the handheld's own program in a browser, and everything around it, on this machine alone."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from firmware.fonts import FontMissingError
from hw.errors import HardwareError
from scripts.cli.terminal import Terminal
from scripts.demonstration import batch
from scripts.demonstration.cards import Cards
from scripts.demonstration.clock import MovableClock
from scripts.demonstration.feed import Feed
from scripts.demonstration.handheld import Handheld, Parts
from scripts.demonstration.server import Page, serve_page
from scripts.demonstration.stage import DemoStage
from scripts.demonstration.switches import Switches, pair
from scripts.demonstration.world import Happen, World, make_world
from scripts.sandbox.authority import Authority
from verifier.errors import VerifierError
from verifier.wording import Text

SCALE = 2_000
BELOW_THE_PANEL = 66  # line of a terminal, beneath the highest panel in half blocks


@dataclass(frozen=True)
class Demo:
    """A demo that runs."""

    page: Page
    feed: Feed
    world: World
    parts: Parts
    handheld: Handheld
    stage: DemoStage


@contextmanager
def running(
    folder: Path, *, port: int = 0, scale: int = SCALE, seed: int = 1, terminal: Terminal | None = None
) -> Iterator[Demo]:
    """Everything, under this folder, until the context ends. OSError, HardwareError, and what `make_world` raises."""
    made: list[Cards] = []

    def prepare(authority: Authority, happen: Happen) -> None:
        made.append(Cards(authority, happen))

    feed, clock = Feed(), MovableClock()
    with ExitStack() as stack:
        world = stack.enter_context(make_world(folder, scale=scale, seed=seed, prepare=prepare))
        parts = stack.enter_context(closing(Parts(folder / "parts")))
        handheld = Handheld(parts, feed, clock, world.source, terminal)
        stack.callback(handheld.stop)

        def told(text: Text) -> None:
            feed.pass_by("news", pair(text))

        (cards,) = made
        switches = stack.enter_context(closing(Switches(world, parts, handheld, clock, cards, told)))
        stage = stack.enter_context(closing(DemoStage(world, parts, handheld, cards, switches, feed)))
        switches.switch_on()
        page = stack.enter_context(serve_page(stage, feed, port=port))
        yield Demo(page, feed, world, parts, handheld, stage)


def main(argv: Sequence[str] | None = None) -> int:
    """Run until ^C: 0, or 1 when it could not begin. `--batch` is `scripts.demonstration.batch`."""
    parser = argparse.ArgumentParser(
        prog="scripts/demo", description="The handheld's own program in a browser, with everything it works with."
    )
    parser.add_argument("--batch", action="store_true", help="print checks of prepared pictures and end")
    parser.add_argument("--port", type=int, default=0, help="port of the page (default: any free one)")
    parser.add_argument("--no-browser", action="store_true", help="only tell the address")
    parser.add_argument("--scale", type=int, default=SCALE, help=f"vehicles of the sandbox (default: {SCALE})")
    parser.add_argument("--seed", type=int, default=1, help="seed of the sandbox's vehicles (default: 1)")
    parser.add_argument("--term", action="store_true", help="draw the panel in this terminal too, with keys (q ends)")
    given = list(sys.argv[1:] if argv is None else argv)
    if "--batch" in given:
        return batch.main(given)
    options = parser.parse_args(given)
    try:
        with _stopped() as stop, tempfile.TemporaryDirectory(prefix="markcheck-demo-") as folder:
            print("demo: making a sandbox authority, its data and a device …", flush=True)
            _run(Path(folder) / "demo", options, stop)
    except (VerifierError, HardwareError, FontMissingError, OSError, ValueError) as exc:
        print(f"demo: {exc}", file=sys.stderr)
        return 1
    print("demo: ended")
    return 0


def _run(folder: Path, options: argparse.Namespace, stop: threading.Event) -> None:
    with ExitStack() as stack:
        terminal = stack.enter_context(Terminal()) if options.term else None
        demo = stack.enter_context(
            running(folder, port=options.port, scale=options.scale, seed=options.seed, terminal=terminal)
        )
        line = f"demo: {demo.page.url}  (Ctrl-C ends)"
        print(line if terminal is None else f"\x1b[{BELOW_THE_PANEL};1H{line}", flush=True)
        if not options.no_browser and terminal is None:
            webbrowser.open(demo.page.url)
        while not stop.wait(0.2):
            if terminal is not None and demo.handheld.ended:
                return


@contextmanager
def _stopped() -> Iterator[threading.Event]:
    """An event that ^C and SIGTERM set."""
    stop = threading.Event()

    def ended(number: int, _: FrameType | None) -> None:
        stop.set()

    former = {number: signal.signal(number, ended) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
