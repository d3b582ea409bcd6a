"""The picture for the panel: the state's page in the panel's own colours. `draw` is the `Draw` of `firmware.app`.

128 x 64 is one bit, 256 x 64 is grey, 128 x 128 is colour. Polarity and shape tell a tone on each of them; colour only
repeats it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from PIL import Image, ImageChops

from firmware.fonts import in_black_and_white
from firmware.machine import states as st
from firmware.machine.states import Light, State
from firmware.page_screens import page_view_ink, rows_of
from firmware.pages import CARS_SHORT, demo_forms, mode_forms, page_view
from firmware.sheet import Box, LayoutError
from firmware.verdict_screen import PANEL, Around, band, page_ink, verdict_ink
from firmware.views import CARS, VerdictView, result_view
from verifier.verdict import Tone, VerdictCode

CHECKING_MS = 250  # a check that is quicker is not announced
SHIFT_MS = 60_000
SHIFTS = ((0, 0), (1, 0), (1, 1), (0, 1))  # right and down, one after the other, against burning in

_MODES = {(128, 64): "1", (256, 64): "L", (128, 128): "RGB"}

Rgb = tuple[int, int, int]
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)
INKS: dict[Tone, Rgb] = {
    Tone.PASS: (0, 230, 90), Tone.NOTE: (70, 190, 255), Tone.CAUTION: (255, 180, 0), Tone.STOP: (215, 0, 0),
}  # fmt: skip
BAR_INK = (160, 190, 220)


def draw(state: State, wall: datetime, now_ms: int, size: tuple[int, int]) -> Image.Image:
    """The page as pixels: mode "1", "L" or "RGB" by the size of the panel. LayoutError for a size that is none."""
    if size not in _MODES:
        raise LayoutError(f"no layout for a panel of {size[0]}x{size[1]}")
    state = shown(state, now_ms)
    page = state.page
    if state.light is Light.SLEEP and not isinstance(page, st.Off):
        return Image.new(_MODES[size], size)
    if not isinstance(page, st.Shown):
        view = page_view(state, wall, rows_of(size))
        ink = shifted(page_view_ink(view, size), now_ms)
        return coloured(ink, view.tone, None, (0, 0, size[0], 11), size)
    result = page.outcome.result
    words = result_view(result, state.language)
    ink = shifted(page_ink(words, page.sheet, size, _around(state, page, size)), now_ms)
    return coloured(ink, words.tone, words.code, band(size, page.sheet), size)


def verdict_picture(view: VerdictView, size: tuple[int, int] = PANEL) -> Image.Image:
    """The verdict page alone, as a report shows it: nothing of the device it comes from."""
    return coloured(verdict_ink(view, size), view.tone, view.code, band(size, 0), size)


def shown(state: State, now_ms: int) -> State:
    """The state whose page is on the panel: a check that has only begun leaves the page before it."""
    page = state.page
    if isinstance(page, st.Checking) and now_ms - page.since_ms < CHECKING_MS:
        return replace(state, page=page.behind)
    return state


def _around(state: State, page: st.Shown, size: tuple[int, int]) -> Around:
    """On the small panel an English mode has its short forms, so that it does not take the room of facts."""
    modes = mode_forms(state)
    car = tuple(forms[page.car].in_(state.language) for forms in (CARS, CARS_SHORT)) if len(page.outcomes) > 1 else ()
    return Around(mode=modes[size == PANEL and state.language == "en" :], car=car, demo=demo_forms(state))


def shifted(ink: Image.Image, now_ms: int) -> Image.Image:
    """The picture one pixel aside, in turns, where no ink is lost by that."""
    box = ink.getbbox()
    if box is None:
        return ink
    wanted = SHIFTS[now_ms // SHIFT_MS % len(SHIFTS)]
    right, down = (_room(*edges) * way for edges, way in zip(_edges(box, ink.size), wanted, strict=True))
    moved = Image.new(ink.mode, ink.size)
    moved.paste(ink, (right, down))
    return moved


def _edges(box: Box, size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Empty pixels before and after the ink, across and down."""
    return (box[0], size[0] - box[2]), (box[1], size[1] - box[3])


def _room(before: int, after: int) -> int:
    return 1 if after else -1 if before else 0


def coloured(
    ink: Image.Image, tone: Tone | None, code: VerdictCode | None, part: Box, size: tuple[int, int]
) -> Image.Image:
    """Ink in the panel's own colours. STOP inverts the whole panel: seen from the side of an eye, without reading."""
    if _MODES[size] == "RGB":
        return _in_colours(ink, tone, code, part)
    ink = ImageChops.invert(ink) if tone is Tone.STOP else ink
    return ink if _MODES[size] == "L" else in_black_and_white(ink)


def _in_colours(ink: Image.Image, tone: Tone | None, code: VerdictCode | None, part: Box) -> Image.Image:
    """The part has the tone's colour: as ink on black, or as paper under white for STOP, whose rest is white paper."""
    stop = tone is Tone.STOP
    picture = _painted(ink, _BLACK if stop else _WHITE, _WHITE if stop else _BLACK)
    colour = BAR_INK if tone is None else _WHITE if code is VerdictCode.UNDECIDED else INKS[tone]
    inside = _painted(ink.crop(part), _WHITE, colour) if stop else _painted(ink.crop(part), colour, _BLACK)
    picture.paste(inside, part[:2])
    return picture


def _painted(ink: Image.Image, colour: Rgb, paper: Rgb) -> Image.Image:
    return Image.composite(Image.new("RGB", ink.size, colour), Image.new("RGB", ink.size, paper), ink)
