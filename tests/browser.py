"""A headless Chromium for tests, spoken to over a pair of pipes (Chrome DevTools Protocol, --remote-debugging-pipe)."""

from __future__ import annotations

import base64
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
LONGEST_S = 12.0
_POLL_S = 0.05


def find_browser() -> str | None:
    """The path of a Chromium, None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page in one browser."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._out = os.fdopen(to_browser, "wb", buffering=0)
        self._in = os.fdopen(from_browser, "rb", buffering=0)
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self._number = 0
        self.problems: list[str] = []  # what the page's console and security policy complain of
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        target = self._call("Target.createTarget", {"url": "about:blank"})["targetId"]
        attached = self._call("Target.attachToTarget", {"targetId": target, "flatten": True})
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """A command to the page, and its result."""
        return self._call(method, parameters, self._session)

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        answer = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = LONGEST_S) -> Any:
        """The expression's value once it is true."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"never true: {script}\n{self.run('document.body.innerText')}"
            time.sleep(_POLL_S)
        return value

    def click(self, selector: str) -> None:
        """With the mouse, in the middle of it."""
        self.wait(f"!!document.querySelector('{selector}')")
        spot = self.run(
            f"(() => {{ const one = document.querySelector('{selector}'); one.scrollIntoView({{block: 'center'}});"
            " const box = one.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=spot[0], y=spot[1], button="left", clickCount=1)

    def key(self, kind: str, name: str, code: int) -> None:
        self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code)

    def picture(self, width: int, height: int, *, scale: float = 1, mobile: bool = False) -> bytes:
        """A PNG of the page at this size."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile
        )
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def close(self) -> None:
        with suppress(OSError):
            self._out.close()
        self._thread.join(5)
        self._in.close()

    def _call(self, method: str, parameters: dict[str, Any], session: str | None = None) -> Any:
        self._number += 1
        order: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            order["sessionId"] = session
        self._out.write(json.dumps(order).encode() + b"\0")
        while True:
            answer = self._answers.get(timeout=LONGEST_S)
            if answer["id"] == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def _read(self) -> None:
        data = b""
        with suppress(OSError, ValueError):
            while piece := self._in.read(1 << 16):
                *messages, data = (data + piece).split(b"\0")
                for message in messages:
                    self._take(json.loads(message))

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            self._answers.put(message)
        elif message["method"] == "Runtime.exceptionThrown":
            self.problems.append(str(message["params"]["exceptionDetails"]))
        elif message["method"] == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
            entry = message["params"]["entry"]
            self.problems.append(f"{entry['text']} {entry.get('url', '').rpartition('/')[2]}")


@contextmanager
def browser(*options: str) -> Iterator[Browser]:
    """A fresh one with an empty profile, ended afterwards."""
    path = find_browser()
    assert path is not None
    to_browser, ours_out = os.pipe()
    ours_in, from_browser = os.pipe()
    with tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True) as profile:
        command = [
            path, "--headless=new", "--no-sandbox", "--remote-debugging-pipe", "--disable-gpu", "--no-first-run",
            "--disable-dev-shm-usage", "--disable-extensions", "--disable-background-networking", "--mute-audio",
            f"--user-data-dir={profile}", *options,
        ]  # fmt: skip
        # Chromium reads its orders from file 3 and answers on file 4.
        shell = 'exec "$@" 3<&"$IN" 4>&"$OUT"'
        environment = {**os.environ, "IN": str(to_browser), "OUT": str(from_browser), "HOME": profile}
        process = subprocess.Popen(
            ["bash", "-c", shell, "browser", *command], env=environment, pass_fds=(to_browser, from_browser),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        try:
            page = Browser(ours_out, ours_in)
            try:
                yield page
            finally:
                page.close()
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait(10)
