"""The pictograms: a verdict's shape alone tells its tone, so colour blindness and glare do not matter."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image, ImageDraw

from verifier.verdict import Tone, VerdictCode

ICON_PX = 28
LIT = 255  # as in decoded one-bit pictures; a 1 would stay lit when the picture is inverted

_FINE = 8  # dots for each pixel of an icon in another size, before it is reduced

_QUESTION_MARK = (
    " ##### ",
    "##   ##",
    "     ##",
    "    ## ",
    "   ##  ",
    "   ##  ",
    "       ",
    "   ##  ",
    "   ##  ",
)


class _Grid:
    """Draws in a grid of 28 x 28 whose cells are so many dots wide; corners are cells and belong to the shape."""

    def __init__(self, dots: int) -> None:
        self.dots = dots
        self.picture = Image.new("L", (ICON_PX * dots, ICON_PX * dots))
        self.draw = ImageDraw.Draw(self.picture)

    def box(self, x0: int, y0: int, x1: int, y1: int) -> tuple[int, int, int, int]:
        """The dots of these cells, inclusive as Pillow takes them."""
        return x0 * self.dots, y0 * self.dots, (x1 + 1) * self.dots - 1, (y1 + 1) * self.dots - 1

    def line(self, *cells: tuple[int, int]) -> None:
        """Dark, four cells wide, through the middles of these cells."""
        middle = self.dots // 2
        points = [(x * self.dots + middle, y * self.dots + middle) for x, y in cells]
        self.draw.line(points, fill=0, width=4 * self.dots, joint="curve")


def draw_icon(tone: Tone, code: VerdictCode | None = None, px: int = ICON_PX) -> Image.Image:
    """So many pixels square, mode "L", lit on dark; one bit at 28 pixels, smooth edges in other sizes.

    UNDECIDED has a shape of its own: it is neither good nor bad.
    """
    grid = _Grid(1 if px == ICON_PX else _FINE)
    shape = _question if code is VerdictCode.UNDECIDED else _SHAPES[tone]
    shape(grid)
    return grid.picture if px == ICON_PX else grid.picture.resize((px, px), Image.Resampling.BOX)


def _pass(grid: _Grid) -> None:
    """A full disc with a tick."""
    grid.draw.ellipse(grid.box(0, 0, 27, 27), fill=LIT)
    grid.line((7, 14), (12, 19), (21, 9))


def _note(grid: _Grid) -> None:
    """A ring with an i."""
    grid.draw.ellipse(grid.box(0, 0, 27, 27), outline=LIT, width=2 * grid.dots)
    grid.draw.rectangle(grid.box(12, 6, 15, 8), fill=LIT)
    grid.draw.rectangle(grid.box(12, 11, 15, 21), fill=LIT)


def _caution(grid: _Grid) -> None:
    """A full triangle with an exclamation mark."""
    left, top, right, bottom = grid.box(13, 0, 14, 27)
    edge = ICON_PX * grid.dots - 1
    grid.draw.polygon(((left, top), (right, top), (edge, bottom), (0, bottom)), fill=LIT)
    grid.draw.rectangle(grid.box(12, 9, 15, 18), fill=0)
    grid.draw.rectangle(grid.box(12, 21, 15, 24), fill=0)


def _stop(grid: _Grid) -> None:
    """A full square with a cross."""
    grid.draw.rectangle(grid.box(0, 0, 27, 27), fill=LIT)
    grid.line((7, 7), (20, 20))
    grid.line((20, 7), (7, 20))


def _question(grid: _Grid) -> None:
    """An outlined box with a question mark."""
    grid.draw.rounded_rectangle(grid.box(0, 0, 27, 27), radius=4 * grid.dots, outline=LIT, width=2 * grid.dots)
    for row, pixels in enumerate(_QUESTION_MARK):
        for column, pixel in enumerate(pixels):
            if pixel == "#":
                x, y = 7 + 2 * column, 5 + 2 * row
                grid.draw.rectangle(grid.box(x, y, x + 1, y + 1), fill=LIT)


_SHAPES: dict[Tone, Callable[[_Grid], None]] = {
    Tone.PASS: _pass,
    Tone.NOTE: _note,
    Tone.CAUTION: _caution,
    Tone.STOP: _stop,
}


# ---------------------------------------------------------------------------------------- the status bar's icons

_ONLINE = (
    "        ##",
    "        ##",
    "     ## ##",
    "     ## ##",
    "  ## ## ##",
    "  ## ## ##",
    "# ## ## ##",
    "# ## ## ##",
)
_OFFLINE = (
    "#    #    ",
    " #  #     ",
    "  ##      ",
    "  ##      ",
    " #  #     ",
    "#    #    ",
    "          ",
    "# ## ## ##",
)
_HELD_OFF = (
    "  ######  ",
    " #     ## ",
    "#     # ##",
    "#    #   #",
    "#   #    #",
    "## #     #",
    " ##     # ",
    "  ######  ",
)
_DATA = (
    " ##### ",
    "#     #",
    "#######",
    "#     #",
    "#######",
    "#     #",
    "#     #",
    " ##### ",
)
_CLOCK = (
    "  ####  ",
    " #    # ",
    "#   #  #",
    "#   #  #",
    "#   ## #",
    "#      #",
    " #    # ",
    "  ####  ",
)
_CLOCK_DOUBTED = (
    "  ####     ",
    " #    #  ##",
    "#   #  # ##",
    "#   #  # ##",
    "#   ## # ##",
    "#      #   ",
    " #    #  ##",
    "  ####   ##",
)

_PLUG = (
    "     ##   ",
    "    ######",
    " ######   ",
    "#######   ",
    "#######   ",
    " ######   ",
    "    ######",
    "     ##   ",
)


def network_icon(online: bool, held_off: bool) -> Image.Image:
    """Bars of signal, a cross over empty ones, or the officer's own barring."""
    return _bitmap(_HELD_OFF if held_off else _ONLINE if online else _OFFLINE)


def data_icon() -> Image.Image:
    """A store of data, before its age."""
    return _bitmap(_DATA)


def clock_icon(doubted: bool) -> Image.Image:
    """A clock; with an exclamation mark where it is doubted."""
    return _bitmap(_CLOCK_DOUBTED if doubted else _CLOCK)


def battery_icon(percent: int, charging: bool) -> Image.Image:
    """Filled as far as the battery is; with a plug's stripes while it is charged."""
    picture = Image.new("1", (14, 8))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, 11, 7), outline=LIT)
    draw.rectangle((12, 2, 13, 5), fill=LIT)
    filled = round(max(0, min(100, percent)) * 8 / 100)
    if filled:
        draw.rectangle((2, 2, 1 + filled, 5), fill=LIT)
    if charging:
        for x in range(3, 10, 2):
            draw.line((x, 2, x, 5), fill=LIT if x > 1 + filled else 0)
    return picture


def mains_icon() -> Image.Image:
    """A plug: there is no battery, or it is not asked."""
    return _bitmap(_PLUG)


def signal_bars(level: int) -> Image.Image:
    """Eight steps, so many of them lit; the others are a dot each, so that a weak signal is not an empty place."""
    picture = Image.new("1", (31, 9))
    draw = ImageDraw.Draw(picture)
    for step in range(8):
        top = 0 if step < level else 8
        draw.rectangle((4 * step, top, 4 * step + 2, 8), fill=LIT)
    return picture


def _bitmap(rows: tuple[str, ...]) -> Image.Image:
    picture = Image.new("1", (len(rows[0]), len(rows)))
    picture.putdata([LIT * (pixel == "#") for row in rows for pixel in row])
    return picture
