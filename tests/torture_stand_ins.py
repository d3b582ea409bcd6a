"""Promises that are kept, broken and not to be tried here, for the tests of the torture's own machinery."""

from __future__ import annotations

import os
import random
import time

from tests.torture.run import NotHereError, Promise, Run


def kept(run: Run) -> None:
    for seed in run.rounds("throws"):
        run.counts["throws"] += 1
        run.note(f"drew {random.Random(seed).randrange(10**6)}")


def broken(run: Run) -> None:
    run.counts["throws"] += 1
    run.tell(run)
    run.counts["throws"] += 1
    run.note("the second throw was it")
    raise AssertionError("a mixture")


def fatal(run: Run) -> None:
    run.counts["throws"] += 1
    os.abort()


def not_here(run: Run) -> None:
    raise NotHereError("there is no card here")


def idle(run: Run) -> None:
    assert not run.counts


def endless(run: Run) -> None:
    run.counts["throws"] += 1
    run.tell(run)
    time.sleep(600)


PROMISES = tuple(
    Promise(number=number, title=prove.__name__, prove=prove, figures={"throws": 2})
    for number, prove in enumerate((kept, broken, fatal, not_here, idle, endless), 1)
)
