"""The front end: which promises, for how long, and where the results go."""

from __future__ import annotations

import argparse
import random
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

from tests.torture import promises as ours
from tests.torture.results import Results
from tests.torture.run import Promise
from tests.torture.runner import prove

EXAMPLES = """\
examples:
  scripts/torture --minutes 10                 every promise its share of ten minutes
  scripts/torture --only 5,7 --minutes 30      hostile inputs and hostile mirrors
  scripts/torture --only 1 --seed 4711         a run that failed, once more
  scripts/torture --full --out results.jsonl   until every figure is reached: many hours
  scripts/torture --list                       the promises and the figures of the full run
"""


def parser(known: Sequence[Promise]) -> argparse.ArgumentParser:
    """The words it takes."""
    words = argparse.ArgumentParser(
        prog="scripts/torture", usage="scripts/torture [--minutes N | --full] [--only LIST] [--seed N] [--out FILE]",
        description="Tries to break the promises of docs/reliability.md. Exit status 1 when one does not hold.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    time = words.add_mutually_exclusive_group()
    time.add_argument("--minutes", type=minutes, default=10.0, help="for all of them together; each gets one round at "
                      "least (default: 10)")  # fmt: skip
    time.add_argument("--full", action="store_true", help="until the figures of --list are reached")
    words.add_argument(
        "--only", type=numbers_of(known), default=None, help="numbers of promises, with commas between them"
    )
    words.add_argument("--seed", type=int, default=None, help="the same seed draws the same faults (default: any)")
    words.add_argument("--out", type=Path, default=None, help="file of results (default: torture-TIME.jsonl in the "
                       "temporary folder)")  # fmt: skip
    words.add_argument("--list", action="store_true", help="print the promises and end")
    return words


def minutes(text: str) -> float:
    """More than none."""
    value = float(text)
    if not 0 < value < 1e5:
        raise argparse.ArgumentTypeError(f"not a number of minutes: {text}")
    return value


def numbers_of(known: Sequence[Promise]) -> Callable[[str], list[int]]:
    """Reads numbers of promises that there are."""

    def numbers(text: str) -> list[int]:
        try:
            found = [int(word) for word in text.split(",")]
        except ValueError:
            found = []
        if not found or not set(found) <= {promise.number for promise in known}:
            raise argparse.ArgumentTypeError(f"not numbers of promises: {text!r}; --list tells them")
        return found

    return numbers


def listed(known: Sequence[Promise]) -> str:
    """The promises and how many of what the full run tries."""
    lines = []
    for promise in known:
        figures = ", ".join(f"{count:,} {what}" for what, count in promise.figures.items())
        lines.append(f"{promise.number:>2}  {promise.title}\n      full: {figures}")
    return "\n".join(lines)


def shares(chosen: Sequence[Promise], total_s: float | None) -> dict[int, float | None]:
    """Seconds for each of them; None: as long as it takes."""
    if total_s is None:
        return dict.fromkeys(promise.number for promise in chosen)
    whole = sum(promise.weight for promise in chosen)
    return {promise.number: total_s * promise.weight / whole for promise in chosen}


def main(argv: Sequence[str] | None = None, module: ModuleType = ours) -> int:
    """Try the promises of the module: 0 when none was broken, 1 when one was, 130 when it was interrupted."""
    known: Sequence[Promise] = module.PROMISES
    options = parser(known).parse_args(argv)
    if options.list:
        print(listed(known))
        return 0
    chosen = [promise for promise in known if options.only is None or promise.number in options.only]
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    words = " ".join(map(shlex.quote, sys.argv[1:] if argv is None else argv))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it would be ignored
    with Results(options.out, datetime.now(UTC), f"scripts/torture {words}".strip(), seed) as results:
        times = shares(chosen, None if options.full else options.minutes * 60)
        try:
            for promise in chosen:
                results.add(prove(promise, seed, times[promise.number], module.__name__))
        except KeyboardInterrupt:
            results.interrupted()
    print(results.table())
    return results.status


if __name__ == "__main__":
    sys.exit(main())
