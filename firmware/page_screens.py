"""The words of every page but the verdict's as ink on a sheet, for every size of panel: bar, rows, foot.

The bar has the page's title, network, age of the data, clock and battery; the foot has what not every page has: the
mode where the title is another, a fault, and the mark of test data. Rows take the largest letters that fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress

from PIL import Image, ImageChops

from firmware.icons import battery_icon, clock_icon, data_icon, draw_icon, mains_icon, network_icon, signal_bars
from firmware.pages import ROWS, PageView
from firmware.rows import Row
from firmware.sheet import (
    GAP,
    LINE,
    UNIFONT_PX,
    LayoutError,
    Piece,
    Sheet,
    cut_words,
    label,
    pack,
    plate_picture,
    words,
)

_BODY_TOP = LINE - 1
_TEXT_PX = 12
_MOST_BETWEEN = 12  # empty pixels between two rows
_KEY_CHARACTERS = 5  # on one key; a group of more is shown by its first
_TONE_PX = 16  # of the icon beside an alarm

# Sizes of letters, big and usual, from the best; one bit has the two bitmap fonts only.
_SIZES: dict[tuple[int, int], tuple[tuple[int, int], ...]] = {
    (128, 64): ((UNIFONT_PX, _TEXT_PX),),
    (256, 64): ((24, UNIFONT_PX), (20, UNIFONT_PX), (UNIFONT_PX, UNIFONT_PX), (20, _TEXT_PX), (UNIFONT_PX, _TEXT_PX)),
    (128, 128): ((20, UNIFONT_PX), (UNIFONT_PX, UNIFONT_PX), (20, _TEXT_PX), (UNIFONT_PX, _TEXT_PX)),
}
_WIDE = 256  # from which the bar has room for what stands at the foot elsewhere


def rows_of(size: tuple[int, int]) -> int:
    """How many rows a list shows on such a panel."""
    return ROWS if size[1] < 128 else 2 * ROWS


def page_view_ink(view: PageView, size: tuple[int, int]) -> Image.Image:
    """The page in mode "L", 255 where there is ink; LayoutError when a text of ours does not fit."""
    if size not in _SIZES:
        raise LayoutError(f"no layout for a panel of {size[0]}x{size[1]}")
    if view.keys:
        return _typing(view, size)
    sheet = Sheet(size)
    around = _around(view, size, ("foot",), {})
    if not view.bare:
        _place_bar(sheet, around["bar"])
    _place_whole(sheet, size[1] - LINE, around.get("foot", []))
    sheet.picture.paste(_body(view, size, "foot" in around), (0, _BODY_TOP))
    return sheet.picture


# ------------------------------------------------------------------------------------------------- bar and foot


def _around(
    view: PageView, size: tuple[int, int], lines: tuple[str, ...], room: Mapping[str, int]
) -> dict[str, list[Image.Image]]:
    """Bar and foot; in a short bar the title gives way before an icon does."""
    room = {"bar": size[0] - 1, "foot": size[0] - 1, **room}
    with suppress(LayoutError):
        return pack(_facts(view, size, lines, icons=True), room)
    return pack(_facts(view, size, lines, icons=False), room)


def _facts(view: PageView, size: tuple[int, int], lines: tuple[str, ...], *, icons: bool) -> list[Piece]:
    """What not every page has, title, and four facts with their icons; without `icons` a word may lose its own."""
    bar, wide = ("bar",), size[0] >= _WIDE
    banner = Piece(tuple(label(text, LINE if "foot" in lines else LINE - 1) for text in view.banner), lines)
    demo = Piece(tuple(words(text) for text in view.demo), (*bar, *lines) if wide and not view.bare else lines)
    if view.bare:
        return [demo] if view.demo else []
    battery = mains_icon() if view.battery is None else battery_icon(view.battery, view.charging)
    percent = [_joined(battery, words(f"{view.battery}%"))] if wide and view.battery is not None else []
    network, age = words(view.network), words(view.age)
    network_forms = (_joined(network_icon(view.online, view.held_off), network), network)
    age_forms = (_joined(data_icon(), age), age)
    pieces = [
        banner,
        Piece(tuple(words(text) for text in view.title), bar),
        Piece(tuple(words(text) for text in view.mode), (*bar, *lines) if wide else lines),
        demo,
        Piece(network_forms[:1] if icons else network_forms, bar),
        Piece(age_forms[:1] if icons else age_forms, bar),
        Piece((clock_icon(view.clock_doubted),), bar),
        Piece((*percent, battery), bar),
    ]
    return [piece for piece in pieces if piece.forms]


def _joined(icon: Image.Image, text: Image.Image) -> Image.Image:
    both = Image.new("1", (icon.width + GAP + text.width, text.height))
    both.paste(icon, (0, (text.height - icon.height + 1) // 2))
    both.paste(text, (icon.width + GAP, 0))
    return both


def _place_bar(sheet: Sheet, pictures: list[Image.Image]) -> None:
    _place_whole(sheet, -1, pictures)
    sheet.picture.paste(255, (0, _BODY_TOP - 1, sheet.picture.width - 1, _BODY_TOP))


def _place_whole(sheet: Sheet, top: int, pictures: list[Image.Image]) -> None:
    """The first at the left end, the others at the right."""
    for picture in pictures[:1]:
        sheet.place(picture, 0, top + (LINE - picture.height) // 2)
    sheet.from_right(top, pictures[1:], rows=LINE - 1, right=sheet.picture.width - 1)


# ------------------------------------------------------------------------------------------------------- rows


def _body(view: PageView, size: tuple[int, int], foot: bool) -> Image.Image:
    """The rows between bar and foot, in the largest letters in which all of them fit."""
    room = (size[0], size[1] - _BODY_TOP - (LINE if foot else 0))
    problem = LayoutError("no size of letters")
    for sizes in _SIZES[size]:
        try:
            return _rows(view, room, *sizes)
        except LayoutError as exc:
            problem = exc
    raise problem


def _rows(view: PageView, room: tuple[int, int], big_px: int, text_px: int) -> Image.Image:
    sheet = Sheet(room)
    heights = _heights(view.rows, room[1], big_px, text_px)
    spare = room[1] - sum(heights)
    share = min(spare // (len(heights) + 1), _MOST_BETWEEN)
    top = max(share, (spare - (len(heights) - 1) * share) // 3) if len(heights) <= ROWS else min(spare, 2)
    for at, (row, height) in enumerate(zip(view.rows, heights, strict=True)):
        icon = draw_icon(view.tone, px=_TONE_PX) if view.tone is not None and at == 0 else None
        sheet.place(_strip(row, (room[0] - 1, height), big_px if row.big else text_px, icon), 0, top)
        top += height + share
    return sheet.picture


def _heights(rows: tuple[Row, ...], room: int, big_px: int, text_px: int) -> list[int]:
    """Lists have the usual pitch; a page with a big row may do with one pixel less."""
    pitches = (text_px + 1, text_px) if any(row.big for row in rows) else (text_px + 1,)
    for pitch in pitches:
        heights = [big_px if row.big else pitch for row in rows]
        # The last line of text leaves its lowest row empty.
        if sum(heights) <= room + (pitch == _TEXT_PX):
            return heights if sum(heights) <= room else [*heights[:-1], heights[-1] - 1]
    raise LayoutError(f"{len(rows)} rows do not fit {room} pixels")


def _strip(row: Row, size: tuple[int, int], px: int, icon: Image.Image | None) -> Image.Image:
    """One row as wide as the panel; inverted under the cursor."""
    strip = Sheet(size)
    right = [_letters(row.right, px)] if row.right else []
    if row.bars is not None:
        right.append(signal_bars(row.bars))
    if icon is not None:
        right.append(icon)
    strip.from_right(0, right, rows=size[1] - 1, right=size[0] - 1)
    room = size[0] - 2 - sum(picture.width + GAP + 1 for picture in right)
    text = cut_words(row.text, room) if row.outside and px == _TEXT_PX else _letters(row.text, px)
    if row.outside and text.width > room:
        raise LayoutError("smaller letters, or a shorter text")
    top = (size[1] - text.height) // 2
    if row.big and not row.left and not right:
        strip.centred(text, top)
    else:
        strip.place(text, 1, top)
    return ImageChops.invert(strip.picture) if row.chosen else strip.picture


def _letters(text: str, px: int) -> Image.Image:
    return words(text) if px == _TEXT_PX else plate_picture(text, px, grey=px != UNIFONT_PX)


# --------------------------------------------------------------------------------------------- typing a plate


def _typing(view: PageView, size: tuple[int, int]) -> Image.Image:
    """The plate over a cross of what the five keys stand for; fault and demo stand in its corners.

    Before anything is typed the provinces need more room, and where they have it each of them is to be seen.
    """
    empty = len(view.rows[0].text) == 1
    if empty:
        with suppress(LayoutError):
            return _all_provinces(view, size)
    tall = size[1] >= 128
    tops = (48, 70, 92) if tall else (28, 40, 52)
    sheet = Sheet(size)
    plate, top = _typed_plate(view.rows[0].text, size), _BODY_TOP + (8 if tall else 0)
    sheet.place(plate, 1, top)
    keys = [_letters(_short(text), _TEXT_PX) for text in view.keys]
    middle = size[0] // 2 if tall or size[0] >= _WIDE else max(55, keys[1].width + 14)
    ends = _cross(sheet, keys, tops, middle)
    lines = ("foot",) if tall else ("down", "up", "plate")
    room = {"up": ends[0], "down": ends[1], "plate": size[0] - plate.width - 2 * GAP}
    _place_corners(sheet, view, room, {"up": tops[0], "down": tops[2], "plate": top + 2}, lines)
    return sheet.picture


def _all_provinces(view: PageView, size: tuple[int, int]) -> Image.Image:
    """Eight a side, those of the left and the right key in two lines."""
    up, left, centre, right, down = view.keys
    sheet = Sheet(size)
    middle, lower = size[0] // 2, 24 if size[1] >= 128 else 0
    tops = (14 + lower, 26 + lower, 39 + lower, 52 + lower)
    sheet.centred(words(up), tops[0])
    sheet.centred(label(centre), 32 + lower)
    for row in (0, 1):
        sheet.place(words(left[4 * row : 4 * row + 4]), middle - 60, tops[1 + row])
        sheet.place(words(right[4 * row : 4 * row + 4]), middle + 12, tops[1 + row])
    bottom = words(down)
    sheet.centred(bottom, tops[3])
    room = {"up": middle - words(up).width // 2 - GAP, "down": middle - bottom.width // 2 - GAP}
    _place_corners(sheet, view, room, {"up": tops[0], "down": tops[3]}, ("foot",) if lower else ("down", "up"))
    return sheet.picture


def _place_corners(
    sheet: Sheet, view: PageView, room: dict[str, int], tops: dict[str, int], lines: tuple[str, ...]
) -> None:
    """The bar, and what not every page has: in the corners of the cross, or at the foot."""
    size = sheet.picture.size
    around = _around(view, size, lines, room)
    _place_bar(sheet, around["bar"])
    for line, top in {**tops, "foot": size[1] - LINE}.items():
        sheet.from_right(top, around.get(line, []), rows=LINE if line == "foot" else LINE - 2)


def _short(text: str) -> str:
    """The first of many characters."""
    return text if len(text) <= _KEY_CHARACTERS else f"{text[:3]}…"


def _typed_plate(text: str, size: tuple[int, int]) -> Image.Image:
    """As large as it fits."""
    for px in _plate_sizes(size):
        picture = plate_picture(text, px, grey=px != UNIFONT_PX)
        if picture.width <= size[0] - 2:
            return picture
    raise LayoutError("plate too long")


def _plate_sizes(size: tuple[int, int]) -> Iterator[int]:
    if size[1] >= 128:
        yield from (24, 20)
    yield UNIFONT_PX


def _cross(sheet: Sheet, keys: list[Image.Image], tops: tuple[int, int, int], middle: int) -> tuple[int, int]:
    """Up, left, middle, right, down; answers how much room is left at the right of the upper and the lower one."""
    up, left, centre, right, down = keys
    half = (max(centre.width, 16) + 1) // 2
    sheet.place(centre, middle - centre.width // 2, tops[1])
    sheet.place(left, middle - half - 4 - left.width, tops[1])
    sheet.place(right, middle + half + 4, tops[1])
    sheet.place(up, middle - up.width // 2, tops[0])
    sheet.place(down, middle - down.width // 2, tops[2])
    width = sheet.picture.width - GAP
    return width - middle - (up.width + 1) // 2, width - middle - (down.width + 1) // 2
