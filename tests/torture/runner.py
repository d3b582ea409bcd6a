"""One promise, proven in a process of its own: one that dies, hangs or grows is a failure and takes no other along."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from tests.conftest import ROOT
from tests.torture.results import Result, plain
from tests.torture.run import Promise

GRACE_S = 600.0  # for the round that was under way when the time was over; longer hangs
LOGGED = 60  # lines


def prove(promise: Promise, seed: int, seconds: float | None, module: str = "tests.torture.promises") -> Result:
    """The result of a promise of this module; STOPPED when this process was interrupted meanwhile."""
    with tempfile.TemporaryDirectory(prefix=f"torture-{promise.number}-", ignore_cleanup_errors=True) as folder:
        watch = _Watch(promise, Path(folder), seed, seconds, module)
        try:
            watch.start()
            return watch.result()
        except KeyboardInterrupt:
            return watch.made("STOPPED", "interrupted")
        finally:
            watch.end()


class _Watch:
    """The process, what it has said, and its limits."""

    def __init__(self, promise: Promise, folder: Path, seed: int, seconds: float | None, module: str) -> None:
        self._promise, self._seed, self._began = promise, seed, time.monotonic()
        self._said: dict[str, Any] = {"counts": {}, "notes": []}
        self._late = False
        self._errors: IO[bytes] = (folder / "errors").open("w+b")
        work = folder / "work"
        work.mkdir()
        allowed = "all" if seconds is None else str(seconds)
        self._words = [module, str(promise.number), str(seed), allowed, str(work)]
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(work)}
        self._child: subprocess.Popen[str] | None = None
        self._alarm = threading.Timer(GRACE_S + 3 * (seconds or 0), self._too_late)
        self._alarm.daemon = True
        self._endless = seconds is None

    def start(self) -> None:
        """Begin, and say so."""
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.child", *self._words], cwd=ROOT, stdout=subprocess.PIPE,
            stderr=self._errors, text=True, encoding="utf-8", start_new_session=True, env=self._environment,
        )  # fmt: skip
        if not self._endless:
            self._alarm.start()
        show(f"{self._promise.number:>2}  {self._promise.title}", end="" if sys.stderr.isatty() else "\n")

    def result(self) -> Result:
        """Wait for the end of it."""
        assert self._child is not None
        assert self._child.stdout is not None
        for line in self._child.stdout:
            self._said |= json.loads(line)
            if sys.stderr.isatty():
                show(f"\r\33[K{self._promise.number:>2}  {self._counted()}", end="")
        status = self._child.wait()
        if "result" in self._said:
            made = self.made(self._said["result"], self._said["reason"])
        else:
            made = self.made("FAIL", self._why(status))
        show(f"{self._promise.number:>2}  {made.result} {self._counted()} {made.reason}", clear=True)
        return made

    def end(self) -> None:
        """Nothing that it started stays."""
        self._alarm.cancel()
        if self._child is not None:
            self._kill()
            self._child.wait()
            if self._child.stdout is not None:
                self._child.stdout.close()
        self._errors.close()

    def _too_late(self) -> None:
        self._late = True
        self._kill()

    def _kill(self) -> None:
        """The process and whatever it started."""
        if self._child is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)

    def _counted(self) -> str:
        counts = ", ".join(f"{count:,} {what}" for what, count in self._said["counts"].items())
        return f"{time.monotonic() - self._began:.0f} s: {counts}"

    def _log(self) -> list[str]:
        self._errors.seek(0)
        text = self._errors.read().decode("utf-8", "replace")
        return [plain(line) for line in text.splitlines()][-LOGGED:]

    def _why(self, status: int) -> str:
        if self._late:
            return "it did not end"
        said = [line for line in self._log() if line]
        errors = [line for line in said if "Error" in line.split(" ")[0]] or said
        return f"{errors[-1] if errors else 'no word'} (exit status {status})"

    def made(self, result: str, reason: str) -> Result:
        """The result, as it stands."""
        return Result(
            number=self._promise.number, title=self._promise.title, result=result, reason=plain(reason),
            seed=self._seed, seconds=round(time.monotonic() - self._began, 1), counts=self._said["counts"],
            notes=self._said["notes"], log=self._log() if result == "FAIL" else [],
        )  # fmt: skip


def show(text: str, end: str = "\n", *, clear: bool = False) -> None:
    """Progress, beside the results."""
    start = "\r\33[K" if clear and sys.stderr.isatty() else ""
    print(f"{start}{text}", end=end, file=sys.stderr, flush=True)
