"""The process in which one promise is proven: `python -m tests.torture.child MODULE NUMBER SEED SECONDS FOLDER`.

MODULE has the promises, SECONDS is a number or "all". It says how far it is as JSON lines on stdout, the last one with
the result. Whatever else happens to it is a failure: the traceback is on stderr.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.torture.run import NotHereError, Run

SKIPPED = (NotHereError, pytest.skip.Exception)
_EVERY_S = 0.5


class Teller:
    """Says how a run stands, not too often, on what was stdout before the tests got it."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
        os.dup2(2, 1)  # what the helpers of the tests print is no result
        self._last = 0.0

    def __call__(self, run: Run) -> None:
        """Unless something was said just now."""
        if time.monotonic() - self._last >= _EVERY_S:
            self.say(run)

    def say(self, run: Run, **more: Any) -> None:
        """At once."""
        self._last = time.monotonic()
        line = {"counts": dict(run.counts), "notes": run.notes, **more}
        self._out.write(json.dumps(line, ensure_ascii=False) + "\n")


def main(module: str, number: str, seed: str, seconds: str, folder: str) -> None:
    """Prove one promise."""
    tell = Teller()
    promise = next(one for one in importlib.import_module(module).PROMISES if one.number == int(number))
    allowed = None if seconds == "all" else float(seconds)
    run = Run(seed=int(seed), folder=Path(folder), seconds=allowed, figures=promise.figures, tell=tell)
    try:
        promise.prove(run)
    except SKIPPED as exc:
        tell.say(run, result="SKIP", reason=str(exc))
        return
    finally:
        tell.say(run)  # what was counted and noted last stands beside a failure too
    assert run.counts, "nothing was tried"
    tell.say(run, result="PASS", reason="")


if __name__ == "__main__":
    main(*sys.argv[1:])
