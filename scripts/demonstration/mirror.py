"""What the handheld shows and does, told to the page: the panel's picture and words, sound, light and vibration."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from datetime import datetime

from PIL import Image

from firmware.app import Panel
from firmware.draw import draw, shown
from firmware.machine import states as st
from firmware.machine.states import Light, State
from firmware.pages import demo_forms, page_view
from firmware.views import result_view
from hw.sound.patterns import Beat
from scripts.demonstration.feed import Feed


class MirroredPanel:
    """A panel, and every picture of it on the page too. `glass` tells what can be seen on it."""

    def __init__(self, panel: Panel, glass: Callable[[], Image.Image], feed: Feed, beside: Panel | None = None) -> None:
        """`beside` is one more place for the same pictures: a terminal."""
        self._panel, self._glass, self._feed, self._beside = panel, glass, feed, beside
        self._contrast = 255
        self._texts: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self._panel.size

    def draw(self, state: State, wall: datetime, now_ms: int, size: tuple[int, int]) -> Image.Image:
        """As `firmware.draw.draw`; the words are kept for those who cannot see the picture."""
        self._texts = page_texts(shown(state, now_ms), wall)
        return draw(state, wall, now_ms, size)

    def show(self, image: Image.Image) -> None:
        """Put a picture on the panel; HardwareError."""
        self._panel.show(image)
        self._tell()

    def contrast(self, level: int) -> None:
        """Brightness, 0 to 255; HardwareError."""
        self._panel.contrast(level)
        self._contrast = level
        if self._beside is not None:
            self._beside.contrast(level)
        self._tell()

    def reset(self) -> None:
        """Tell the controller everything again; HardwareError."""
        self._panel.reset()

    def close(self, *, keep_picture: bool = False) -> None:
        """Let go of it; harmless twice."""
        self._panel.close(keep_picture=keep_picture)

    def _tell(self) -> None:
        picture = self._glass()
        if self._beside is not None:
            self._beside.show(picture)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        width, height = picture.size
        png = base64.b64encode(buffer.getvalue()).decode("ascii")
        self._feed.tell(
            "panel",
            {"width": width, "height": height, "png": png, "contrast": self._contrast, "texts": list(self._texts)},
        )


class MirroredOutputs:
    """Buzzer, LED and motor, on the page."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    def put(self, beat: Beat) -> None:
        """Sound, light and motor until the next."""
        self._feed.pass_by(
            "beat", {"ms": beat.ms, "hz": beat.hz, "colour": beat.colour.value, "motor": beat.motor}
        )  # fmt: skip

    def close(self) -> None:
        """Silent and dark."""


def page_texts(state: State, wall: datetime) -> tuple[str, ...]:
    """Everything that is written on the page, in the officer's language; nothing while the panel is off."""
    page = state.page
    if state.light is Light.SLEEP and not isinstance(page, st.Off):
        return ()
    if not isinstance(page, st.Shown):
        return page_view(state, wall).texts
    view = result_view(page.outcome.result, state.language)
    if page.sheet:
        title, texts = view.lists[min(page.sheet, len(view.lists)) - 1]
        return (title, *texts)
    parts = (
        view.headline, view.plate, view.text, *view.reasons, view.source, view.age, view.grade, *demo_forms(state)[:1]
    )  # fmt: skip
    return tuple(part for part in parts if part)
