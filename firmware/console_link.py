"""The way from the serial console to the running program: a Unix socket, one JSON object a line in each direction.

Only the same user, or root, is answered; only what stands in the table is done. Nobody is logged in here: the console
asks for nothing that is not free, or that its own user could not do without it.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from firmware.machine.states import State
    from firmware.self_tests import Test

SOCKET = "console.sock"  # in the folder in memory
MAX_REQUEST = 1024  # bytes
MAX_ANSWER = 64 * 1024  # bytes
_PATIENCE_S = 5.0  # for a request, and for an answer to be taken
_AT_ONCE = 4
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid (unix(7), SO_PEERCRED)

Request = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class LinkError(Exception):
    """No answer; the text says why."""


class NoProgramError(LinkError):
    """There is no program that listens."""


class ConsoleLink:
    """The program's side. Listens from the beginning; `close` ends it."""

    def __init__(self, path: Path, requests: Mapping[str, Request], uids: frozenset[int] | None = None) -> None:
        """OSError where no socket can be made. One that a program left behind is replaced. `uids` may ask."""
        self._path, self._requests = path, dict(requests)
        self._uids = uids if uids is not None else frozenset((0, os.getuid()))
        self._places = threading.Semaphore(_AT_ONCE)
        with suppress(FileNotFoundError):
            path.unlink()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.bind(str(path))
            path.chmod(0o600)
            self._socket.listen(_AT_ONCE)
        except OSError:
            self._socket.close()
            raise
        self._thread = threading.Thread(target=self._run, name="console link", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no more; harmless twice."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        self._thread.join(1)

    def _run(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return
            if _uid_of(peer) not in self._uids or not self._places.acquire(blocking=False):
                peer.close()
                continue
            threading.Thread(target=self._serve, args=(peer,), name="console request", daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        try:
            with peer, suppress(OSError):
                peer.settimeout(_PATIENCE_S)
                answer = self._answer(_line(peer, MAX_REQUEST))
                peer.sendall(json.dumps(answer).encode()[: MAX_ANSWER - 1] + b"\n")
        finally:
            self._places.release()

    def _answer(self, line: bytes) -> Mapping[str, Any]:
        try:
            asked = json.loads(line)
            request = self._requests[asked["request"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            return {"error": "no such request"}
        try:
            return request(asked)
        except ValueError as exc:
            return {"error": str(exc)}


def listen(
    run: Path | None, state: Callable[[], State], tests: Mapping[str, Test], more: Mapping[str, Request] | None = None
) -> Callable[[], None]:
    """Listen in the folder in memory; what ends it. Where there is no such folder, nobody listens: checks go on.

    `more` requests are answered beside those of `program_requests`.
    """
    if run is None:
        return lambda: None
    try:
        run.mkdir(mode=0o700, parents=True, exist_ok=True)
        return ConsoleLink(run / SOCKET, {**program_requests(state, tests), **(more or {})}).close
    except OSError:
        return lambda: None


def _uid_of(peer: socket.socket) -> int:
    try:
        raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return -1
    uid: int = _CREDENTIALS.unpack(raw)[1]
    return uid


def _line(peer: socket.socket, most: int) -> bytes:
    """The bytes before a newline; OSError when it does not come, or too late for its length."""
    data = b""
    while b"\n" not in data:
        if len(data) > most:
            raise OSError("too long a line")
        more = peer.recv(most)
        if not more:
            raise OSError("cut off")
        data += more
    return data.partition(b"\n")[0]


def ask(path: Path, request: str, *, limit_s: float = _PATIENCE_S, **more: str) -> dict[str, Any]:
    """What the program answers; NoProgramError, LinkError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as peer:
        peer.settimeout(limit_s)
        try:
            peer.connect(str(path))
        except OSError as exc:
            raise NoProgramError("no program is running") from exc
        try:
            peer.sendall(json.dumps({"request": request, **more}).encode() + b"\n")
            answer = json.loads(_line(peer, MAX_ANSWER))
        except (OSError, ValueError, RecursionError) as exc:
            raise LinkError("the program does not answer") from exc
    if not isinstance(answer, dict) or "error" in answer:
        raise LinkError(str(answer.get("error"))[:100] if isinstance(answer, dict) else "no answer of its form")
    return answer


# ------------------------------------------------------------------------------------ what the program answers


def program_requests(state: Callable[[], State], tests: Mapping[str, Test]) -> dict[str, Request]:
    """The table: how the program stands, and the self-test of one of its parts. No page's content, no plate."""

    def status(_: Mapping[str, Any]) -> dict[str, Any]:
        now = state()
        return {
            "page": type(now.page).__name__.lower(), "light": now.light.value, "network": now.network.value,
            "online": now.status.online, "battery_percent": now.status.battery, "faults": dict(now.faults),
            "settings_version": now.status.settings or None,
        }  # fmt: skip

    def parts(_: Mapping[str, Any]) -> dict[str, Any]:
        return {"parts": list(tests)}

    def selftest(asked: Mapping[str, Any]) -> dict[str, Any]:
        from firmware.self_tests import report_of  # noqa: PLC0415 - loaded with the first self-test

        part = asked.get("part")
        if not isinstance(part, str) or part not in tests:
            raise ValueError("no such part")
        report = report_of(part, tests[part])
        return {"part": part, "state": report.state.value, "ms": report.ms, "detail": report.detail[:500]}

    return {"status": status, "parts": parts, "selftest": selftest}
