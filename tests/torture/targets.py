"""Where bytes from outside come in, as functions that hold any bytes against the promises: no crash, no hang, no harm.

Only what an input reaches is loaded: the fuzzer runs these in an environment of its own.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from firmware.console_line import MOST, Editor, HangUpError
from firmware.settings import SettingsError, read_settings
from hw.rfid import a0, gx, m100
from hw.rfid.framing import Splitter
from hw.rfid.packets import Codec, Sighting
from hw.rfid.types import AirProtocol, Health
from tests.fuzz_credential import judge

CORPUS = Path(__file__).resolve().parents[1] / "data" / "corpus"
HANG_S = 0.05  # of the processor: what else the machine does is no fault of ours
READ_ONCE_S = 0.5  # for what no scan waits for
LONGEST = 4096  # bytes of an input
WORDS = ["help", "status", "login", "sync", "logs", "poweroff"]


def qr(data: bytes) -> None:
    """The payload of a code, up to the verdict."""
    judge(data)


def _frames(codec: Codec) -> Callable[[bytes], None]:
    def target(data: bytes) -> None:
        """What comes over a reader's line, in one piece and in two."""
        health, half = Health(), len(data) // 2
        whole = Splitter(codec.layout, codec.cap, health)
        found = whole.feed(data, 0.0)
        assert whole.pending <= codec.cap + 12, "the buffer grows"
        parts = Splitter(codec.layout, codec.cap, Health())
        assert [*parts.feed(data[:half], 0.0), *parts.feed(data[half:], 0.0)] == found, "another cutting, other frames"
        for frame in found:
            packet = codec.decode(frame)
            if isinstance(packet, Sighting) and packet.protocol is AirProtocol.GEN2:
                assert packet.pc >> 11 == len(packet.epc) // 2, "a tag with another length than it says"

    return target


def console(data: bytes) -> None:
    """What is typed, or comes as noise, at the technician's line."""
    told: list[str] = []
    editor = Editor(told.append, lambda text: [w for w in WORDS if w.startswith(text)], ["status"], "> ")
    with suppress(HangUpError):
        editor.feed(data)
    assert len(editor.text) <= MOST, "a line without end"
    assert all(" " <= char <= "~" for char in editor.text), "no plain text"
    assert all(" " <= char <= "~" or char in "\b\a\n" for char in "".join(told)), "an echo that steers the terminal"


def settings(data: bytes) -> None:
    """The configuration file."""
    try:
        read_settings(data.decode("utf-8", "replace"))
    except SettingsError as exc:
        assert len(str(exc)) < 2 * LONGEST + 500  # noqa: PT017 - what it may raise, and nothing else


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "qr": qr, "m100": _frames(m100.M100Codec()), "a0": _frames(a0.A0Codec()), "gx": _frames(gx.GxCodec()),
    "console": console, "settings": settings,
}  # fmt: skip
FRAMES = ("m100", "a0", "gx")
LIMITS_S = dict.fromkeys(TARGETS, HANG_S) | {"settings": READ_ONCE_S}


def corpus(target: str) -> list[bytes]:
    """The committed inputs: good ones, and whatever once broke something."""
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


# ----------------------------------------------------------------------------------------------- side effects

FORBIDDEN = (
    "socket.connect", "socket.getaddrinfo", "socket.sendto", "subprocess.Popen", "os.system", "os.exec", "os.fork",
    "os.posix_spawn", "os.remove", "os.rename", "os.mkdir", "shutil.rmtree", "pickle.find_class", "webbrowser.open",
    "ctypes.dlopen",
)  # fmt: skip
_WRITING = 0o3 | 0o100 | 0o1000  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC


class Watch:
    """Hears what the interpreter is about to do; there is one in a process, because a hook cannot be taken out.

    What is loaded once, with the first input that needs it, is loaded before it listens: the whole corpus passes by.
    """

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []
        for name, target in TARGETS.items():
            for data in corpus(name):
                target(data)
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.on:
            return
        if event in FORBIDDEN or (event == "open" and _writes(arguments)):
            self.seen.append(event)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within it nothing forbidden may happen."""
        self.seen.clear()
        self.on = True
        try:
            yield
        finally:
            self.on = False
        assert not self.seen, f"an input made the program do {sorted(set(self.seen))}"


def _writes(arguments: tuple[object, ...]) -> bool:
    flags = arguments[2] if len(arguments) > 2 else 0
    return isinstance(flags, int) and bool(flags & _WRITING)


def took_s(target: Callable[[bytes], None], data: bytes, limit_s: float) -> float:
    """Processor time of one input in seconds, the least of three tries where the first one is too long."""
    best = float("inf")
    for _ in range(3):
        began = time.thread_time()
        target(data)
        best = min(best, time.thread_time() - began)
        if best <= limit_s:
            break
    return best


def hold(name: str, data: bytes, watch: Watch) -> None:
    """AssertionError, with the input, when it breaks a promise; the target's own error otherwise."""
    limit_s = LIMITS_S[name]
    try:
        with watch.watching():
            took = took_s(TARGETS[name], data, limit_s)
        assert took <= limit_s, f"{took * 1000:.0f} ms"
    except BaseException:
        print(f"{name}: the input was bytes.fromhex({data.hex()!r})", file=sys.stderr)
        raise


# ------------------------------------------------------------------------------------------- without a fuzzer

EDGES = (b"\0", b"\xff", b"\x7f", b"\x80", b"\xff\xff", b"\x1b[", b"\r\n", b"VM1:", b"%s", b"\xe7\xb2\xa4", b"\xd2\x84")


def mutated(inputs: list[bytes], draw: random.Random) -> bytes:
    """One of the inputs, changed a little or much; sometimes only noise."""
    if draw.random() < 0.03:
        return draw.randbytes(draw.randrange(1, 400))
    data = bytearray(draw.choice(inputs))
    for _ in range(draw.choice((1, 1, 2, 3, 6, 16))):
        kind, place = draw.randrange(8), draw.randrange(len(data) + 1)
        end = min(len(data), place + draw.choice((1, 1, 2, 4, 16, 64)))
        if kind == 0 and place < len(data):
            data[place] ^= 1 << draw.randrange(8)
        elif kind == 1 and place < len(data):
            data[place] = draw.randrange(256)
        elif kind == 2:
            del data[place:end]
        elif kind == 3:
            data[place:place] = draw.choice(EDGES) * draw.choice((1, 1, 2, 40))
        elif kind == 4:
            data[place:place] = data[place:end] * draw.choice((1, 2, 30))
        elif kind == 5:
            other = draw.choice(inputs)
            data[place:] = other[draw.randrange(len(other) + 1) :]
        elif kind == 6 and place < len(data):
            data[place] = (data[place] + draw.choice((-1, 1, 16, -16))) % 256
        else:
            data[place:place] = draw.randbytes(draw.choice((1, 2, 4, 8)))
    return bytes(data[:LONGEST])
