"""Long work beside the program: a sync in a process of its own, the self-test in threads. Each ends in a `Reported`."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import datetime

from firmware.machine.events import Event, Reported
from firmware.machine.states import MenuItem
from verifier.types import SHANGHAI
from verifier.wording import Language, Text

SYNC_S = 900.0  # then the process is ended: what it has fetched is kept for the next one

_KINDS: dict[str, Text] = {
    "done": Text("同步完成", "SYNC DONE"),
    "unreachable": Text("网络不通,未同步", "NO CONNECTION"),
    "busy": Text("已在同步中", "ALREADY RUNNING"),
    "card": Text("存储故障,未同步", "STORAGE FAULT"),
    "no key": Text("无密钥,未同步", "NO EPOCH KEY"),
    "refused": Text("数据被拒,未同步", "DATA REFUSED"),
    "none": Text("未设同步地址", "NO SYNC SOURCE"),
    "hung": Text("同步超时", "SYNC TIMED OUT"),
    "broken": Text("同步失败", "SYNC FAILED"),
}
_IN_USE = Text("原数据继续有效", "OLD DATA IN USE")
_AS_OF = Text("数据{}", "DATA {}")
_NEW_SETTINGS = Text("新配置重启后生效", "CONFIG AT RESTART")

Lines = Callable[[Language], tuple[str, ...]]


class Running:
    """Runs each job at most once at a time: asked again while it runs, its one report answers both."""

    def __init__(
        self, post: Callable[[Event], None], language: Callable[[], Language], *, sync: Lines, self_test: Lines
    ) -> None:
        self._post, self._language = post, language
        self._work: dict[MenuItem, Lines] = {MenuItem.SYNC: sync, MenuItem.SELF_TEST: self_test}
        self._lock = threading.Lock()
        self._running: set[MenuItem] = set()

    def sync(self) -> None:
        """Fetch the data now."""
        self._start(MenuItem.SYNC)

    def self_test(self) -> None:
        """Test every part."""
        self._start(MenuItem.SELF_TEST)

    def _start(self, job: MenuItem) -> None:
        with self._lock:
            if job in self._running:
                return
            self._running.add(job)
        threading.Thread(target=self._run, args=(job,), name=job.value, daemon=True).start()

    def _run(self, job: MenuItem) -> None:
        lines = self._work[job](self._language())
        with self._lock:
            self._running.discard(job)
        self._post(Reported(lines, job.value))


class SyncProcess:
    """The sync as a child, which `close` ends with the program."""

    def __init__(self, arguments: Sequence[str], limit_s: float = SYNC_S) -> None:
        """`arguments` are those of `firmware.syncjob`; empty where no source is set."""
        self._arguments, self._limit_s = arguments, limit_s
        self._process: subprocess.Popen[str] | None = None

    def __call__(self, language: Language) -> tuple[str, ...]:
        """Run it: what came of it, in lines for the panel."""
        return sync_lines(self.run(), language)

    def run(self) -> dict[str, str]:
        """The outcome as `firmware.syncjob` tells it."""
        if not self._arguments:
            return {"kind": "none"}
        command = [sys.executable, "-P", "-m", "firmware.syncjob", *self._arguments]
        quiet = subprocess.DEVNULL
        try:
            with subprocess.Popen(command, stdin=quiet, stdout=subprocess.PIPE, stderr=quiet, text=True) as process:  # noqa: S603 - our own interpreter and module
                self._process = process
                try:
                    return self._outcome(process)
                except BaseException:  # whoever interrupts a console waits for no child, and leaves none behind
                    process.kill()
                    process.wait()
                    raise
        except OSError:
            return {"kind": "broken"}
        finally:
            self._process = None

    def close(self) -> None:
        """End it, if it runs: a sync may be cut off anywhere."""
        if (process := self._process) is not None:
            process.kill()

    def _outcome(self, process: subprocess.Popen[str]) -> dict[str, str]:
        try:
            told, _ = process.communicate(timeout=self._limit_s)
            outcome = json.loads(told.splitlines()[-1])
        except subprocess.TimeoutExpired:
            process.kill()
            return {"kind": "hung"}
        except (ValueError, IndexError):
            return {"kind": "broken"}
        return outcome if isinstance(outcome, dict) else {"kind": "broken"}


def sync_lines(outcome: dict[str, str], language: Language) -> tuple[str, ...]:
    """What came of a sync, in lines of at most 20 columns."""
    kind = outcome.get("kind", "broken")
    text = _KINDS.get(kind, _KINDS["broken"]).in_(language)
    if kind != "done":
        return text, _IN_USE.in_(language)
    moment = datetime.fromisoformat(outcome["as_of"]).astimezone(SHANGHAI)
    new = (_NEW_SETTINGS.in_(language),) if outcome.get("settings") else ()
    return text, _AS_OF.in_(language).format(moment.strftime("%m-%d %H:%M")), *new
