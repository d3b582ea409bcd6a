"""What a technician tries at the console: one look of the camera, the tags in the field, light, sound and panel.

On the running program's own parts, without what the officer is at: no check comes of it, and nothing that names a car
or a tag is told.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from firmware.machine import states as st
from firmware.machine.events import Event, SeenTag, TagsSeen
from firmware.scanner import CodeEvent, FaultEvent, Heartbeat, HintEvent, usual
from firmware.scanner import Event as ScanEvent
from hw.errors import HardwareError
from hw.sound.patterns import Beat, Colour

if TYPE_CHECKING:
    from PIL import Image

    from firmware.app import Panel, TagField
    from firmware.console_link import Request
    from firmware.machine.states import State

LOOK_S = 5.0
TAGS_S = 3.0
CARD_S = 2.0  # for which the panel shows the test picture
MOST_TAGS = 8
_BRIGHT = 255

Facts = dict[str, Any]

_MS = 400
OUTPUTS: Mapping[str, tuple[Beat, ...]] = {
    "led": tuple(Beat(_MS, colour=colour) for colour in (Colour.GREEN, Colour.AMBER, Colour.RED)),
    "buzzer": tuple(Beat(_MS, hz) for hz in (2_400, 1_600, 500)),
    "motor": (Beat(2 * _MS, motor=True),),
}
WHAT = {
    "led": "green, amber, red", "buzzer": "high, middle, low", "motor": "one long",
    "panel": "squares, then the page again",
}  # fmt: skip


# -------------------------------------------------------------------------------------------------- what was seen


def looked(events: Iterable[ScanEvent]) -> Facts:
    """What one look came to: frames, milliseconds a frame, the codes without their payloads, else the usual hint."""
    events = list(events)
    beats = [event.ms for event in events if isinstance(event, Heartbeat)]
    codes = [event for event in events if isinstance(event, CodeEvent)]
    hint = usual(Counter(event.hint for event in events if isinstance(event, HintEvent)))
    fault = next((f"{event.reason.value} {event.component}" for event in events if isinstance(event, FaultEvent)), None)
    return {
        "frames": len(beats),
        "ms": round(sum(beats) / len(beats)) if beats else None,
        "codes": [_code(event) for event in codes[:MOST_TAGS]],
        "hint": None if codes or hint is None or hint.hint is None else hint.hint.value,
        "fault": None if codes else fault,
    }


def _code(event: CodeEvent) -> Facts:
    code = event.code
    return {
        "code": "mark" if event.is_mark else "foreign", "bytes": len(code.payload), "version": code.version,
        "decoder": code.decoder,
    }  # fmt: skip


def _tag(tag: SeenTag) -> Facts:
    evidence = tag.evidence
    return {
        "rssi_dbm": round(tag.rssi_dbm, 1), "antenna": tag.antenna, "auth": evidence.auth.value,
        "names_a_plate": evidence.plate is not None,
    }  # fmt: skip


# ------------------------------------------------------------------------------------------- the program's parts


class Overheard:
    """The way of events to the program, on which the newest list of tags can be waited for."""

    def __init__(self, post: Callable[[Event], None]) -> None:
        self._post = post
        self._changed = threading.Condition()
        self._tags: tuple[SeenTag, ...] | None = None

    def post(self, event: Event) -> None:
        """Pass it on; from any thread."""
        self._post(event)
        if isinstance(event, TagsSeen):
            with self._changed:
                self._tags = event.tags
                self._changed.notify_all()

    def tags(self, limit_s: float) -> tuple[SeenTag, ...] | None:
        """The first list from now on that is not empty; an empty one when there is no other; None without any."""
        with self._changed:
            self._tags = None
            self._changed.wait_for(lambda: bool(self._tags), limit_s)
            return self._tags


class SharedPanel:
    """A panel on which a test picture may stand for a moment; whatever the program draws takes its place at once."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self._lock = threading.Lock()
        self._testing = threading.Lock()
        self._drawn = threading.Event()
        self._last: Image.Image | None = None
        self._level: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self._panel.size

    def show(self, image: Image.Image) -> None:
        """As the panel's own; HardwareError."""
        with self._lock:
            self._last = image
            self._drawn.set()
            self._panel.show(image)

    def contrast(self, level: int) -> None:
        """As the panel's own; HardwareError."""
        with self._lock:
            self._level = level
            self._panel.contrast(level)

    def reset(self) -> None:
        """As the panel's own; HardwareError."""
        with self._lock:
            self._panel.reset()

    def close(self, *, keep_picture: bool = False) -> None:
        """As the panel's own."""
        with self._lock:
            self._panel.close(keep_picture=keep_picture)

    def test(self, limit_s: float = CARD_S) -> None:
        """Squares at full contrast for so many seconds, unless the program draws something meanwhile; HardwareError."""
        if not self._testing.acquire(blocking=False):
            return
        try:
            with self._lock:
                self._drawn.clear()
                self._panel.contrast(_BRIGHT)
                self._panel.show(squares(self._panel.size))
            self._drawn.wait(limit_s)
            with self._lock:
                if self._level is not None:
                    self._panel.contrast(self._level)
                if not self._drawn.is_set() and self._last is not None:
                    self._panel.show(self._last)
        finally:
            self._testing.release()


def squares(size: tuple[int, int]) -> Image.Image:
    """Lit and dark squares of eight pixels in turn, with the outermost pixels lit: a shifted picture is seen."""
    from PIL import Image, ImageDraw  # noqa: PLC0415 - with the first test

    image = Image.new("1", size)
    draw = ImageDraw.Draw(image)
    for y in range(0, size[1], 8):
        for x in range(y % 16, size[0], 16):
            draw.rectangle((x, y, x + 7, y + 7), fill=1)
    draw.rectangle((0, 0, size[0] - 1, size[1] - 1), outline=1)
    return image


class Looking(Protocol):
    """The camera's side of the program; see `firmware.eyes.Eyes`."""

    def overhear(self, limit_s: float) -> list[ScanEvent]:
        """What is seen from now on, up to the first code."""
        ...


class Sounding(Protocol):
    """What plays beats; see `hw.sound.player.Player`."""

    def beats(self, pattern: tuple[Beat, ...]) -> None:
        """Begin to play them."""
        ...


def _is_looked_at(state: State) -> bool:
    """Whether a verdict is on the panel, or may come at any moment."""
    return state.mode is st.Mode.CHECKPOINT or isinstance(state.page, st.Checking | st.Shown | st.Answer)


class Trials:
    """What the program answers; a part that is not there is None."""

    def __init__(
        self,
        state: Callable[[], State],
        *,
        eyes: Looking | None,
        tags: TagField | None,
        heard: Overheard,
        player: Sounding | None,
        panel: SharedPanel,
    ) -> None:
        self._state, self._eyes, self._tags, self._heard = state, eyes, tags, heard
        self._player, self._panel = player, panel

    def requests(self) -> dict[str, Request]:
        """The rows for the program's table."""
        return {"scan": self._scan, "tags": self._read_tags, "test": self._test}

    def _scan(self, _: Mapping[str, Any]) -> Facts:
        if self._eyes is None:
            raise ValueError("no camera is set")
        return looked(self._eyes.overhear(LOOK_S))

    def _read_tags(self, _: Mapping[str, Any]) -> Facts:
        """The officer's own reading goes on as it is."""
        if self._tags is None:
            raise ValueError("no reader is set")
        if self._state().mode is st.Mode.CHECKPOINT:
            raise ValueError("busy: a checkpoint is watched")
        if isinstance(self._state().page, st.Tags):
            found = self._heard.tags(TAGS_S)
        else:
            self._tags.read(True)
            found = self._heard.tags(TAGS_S)
            self._tags.read(isinstance(self._state().page, st.Tags))
        fault = self._state().faults.get("reader")
        return {"fault": fault, "tags": [_tag(tag) for tag in (found or ())[:MOST_TAGS]]}

    def _test(self, asked: Mapping[str, Any]) -> Facts:
        what = str(asked.get("what"))[:20]
        if what == "panel":
            if _is_looked_at(self._state()):
                raise ValueError("busy: a check, a verdict or a checkpoint is on the panel")
            try:
                self._panel.test()
            except HardwareError as exc:
                raise ValueError(exc.problem) from exc
        elif what not in OUTPUTS:
            raise ValueError("no such test")
        elif self._player is None:
            raise ValueError("no outputs are set")
        else:
            self._player.beats(OUTPUTS[what])
        return {"test": what}
