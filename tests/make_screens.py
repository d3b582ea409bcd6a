"""The screens whose pictures are stored: make them anew after a change that was looked at.

    python -m tests.make_screens            writes tests/data/screens.json, docs/screens.md and its contact sheets,
                                            and the strips of docs/officers.md
    python -m tests.make_screens --diff DIR only writes DIR/index.html: old, new and difference of what has changed

What an outline font draws may differ by a pixel between versions of FreeType, so the hashes are those of screens on
which such a word is a full box; the contact sheets show the words themselves.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from unittest.mock import patch

from PIL import Image, ImageChops

from firmware.draw import BAR_INK, INKS, draw
from firmware.fonts import Font
from firmware.machine.states import State
from tests.screen_states import NOW, NOW_MS, stored_states
from verifier.wording import LANGUAGES, Language

ROOT = Path(__file__).parent.parent
STORED = Path(__file__).parent / "data" / "screens.json"
PAGE = ROOT / "docs" / "screens.md"
IMAGES = ROOT / "docs" / "images"

SIZES = ((128, 64), (256, 64), (128, 128))


def picture(state: State, size: tuple[int, int]) -> Image.Image:
    """What the panel shows."""
    return draw(state, NOW, NOW_MS, size)


# ------------------------------------------------------------------------------------------------ hashes


@contextmanager
def outlines_as_boxes() -> Iterator[None]:
    """What an outline font draws becomes a full box of the same size."""
    real = Font.draw_grey

    def drawn(font: Font, text: str) -> Image.Image:
        made = real(font, text)
        return made if font.height in (12, 16) else Image.new("L", made.size, 255)

    with patch.object(Font, "draw_grey", drawn), patch.object(Font, "draw", Font._draw):  # nothing of before
        yield


def hashes(size: tuple[int, int], language: Language) -> dict[str, str]:
    """One hash for each screen."""
    with outlines_as_boxes():
        made = {name: picture(state, size) for name, state in stored_states(language).items()}
    return {name: hashlib.sha256(image.tobytes()).hexdigest()[:16] for name, image in made.items()}


def sheet_name(size: tuple[int, int], language: Language) -> str:
    """Of the contact sheet in docs/images, and of its hashes."""
    return f"screens-{size[0]}x{size[1]}-{language}"


# ------------------------------------------------------------------------------------------- contact sheets

_EDGE = 4
_FRAME = (60, 60, 90)


def columns_of(size: tuple[int, int]) -> int:
    """How many screens stand side by side."""
    return 3 if size[0] > 128 else 6


def contact_sheet(pictures: list[Image.Image], size: tuple[int, int]) -> Image.Image:
    """All pictures side by side, unenlarged: a screen's old picture can be cut out again."""
    columns = columns_of(size)
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (size[0] + _EDGE) + _EDGE, rows * (size[1] + _EDGE) + _EDGE), _FRAME)
    for number, image in enumerate(pictures):
        sheet.paste(image.convert("RGB"), _place(number, size))
    return sheet.quantize(palette=_palette(pictures[0].mode), dither=Image.Dither.NONE)


def _palette(mode: str) -> Image.Image:
    """Few colours, so that the sheets stay small: inks and their smooth edges in steps."""
    steps = {"1": (), "L": (1, 2), "RGB": (1, 2)}[mode]
    colours = [_FRAME, (0, 0, 0), (255, 255, 255), *((85 * step,) * 3 for step in steps)]
    if mode == "RGB":
        colours += [tuple(part * step // 2 for part in ink) for ink in (*INKS.values(), BAR_INK) for step in steps]
        colours.append((235, 128, 128))  # white words on red
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for colour in colours for part in colour])
    return palette


def _place(number: int, size: tuple[int, int]) -> tuple[int, int]:
    columns = columns_of(size)
    return _EDGE + number % columns * (size[0] + _EDGE), _EDGE + number // columns * (size[1] + _EDGE)


def stored_picture(name: str, size: tuple[int, int], language: Language) -> Image.Image | None:
    """The picture on the contact sheet; None for a new screen."""
    names, sheet = _stored_sheet(STORED, IMAGES, sheet_name(size, language))
    if name not in names:
        return None
    left, top = _place(names.index(name), size)
    return sheet.crop((left, top, left + size[0], top + size[1]))


@cache
def _stored_sheet(stored: Path, images: Path, sheet: str) -> tuple[list[str], Image.Image]:
    names = list(json.loads(stored.read_text(encoding="utf-8"))[sheet])
    with Image.open(images / f"{sheet}.png") as picture:
        return names, picture.convert("RGB")


# ------------------------------------------------------------------------------------------------- strips

STRIP_SIZE = SIZES[0]
_TIMES = 2
STRIPS: dict[str, tuple[str, ...]] = {
    "check": ("ready", "aim with a hint", "VALID to confirm"),
    "tones": ("demo VALID", "VALID_STALE", "WATCH_CONFIRM", "demo EXPIRED"),
    "sheets": ("sheet 1", "sheet 3", "sheet 4", "sheet 5 stored"),
    "typing": ("typing 0", "typing 1", "typed", "card 5"),
    "tags": ("tags", "tags none", "sheet of a tag"),
    "checkpoint": ("checkpoint", "checkpoint alarm", "checkpoint locked"),
    "accident": ("accident second", "car A", "car B"),
    "news": ("history", "ready with news", "news"),
    "login": ("login", "login pin", "purpose", "menu lock"),
    "worn": ("ready with everything", "battery low", "look-ups flagged"),
}
"""The pictures of docs/officers.md: some screens side by side."""


def strip(names: tuple[str, ...]) -> Image.Image:
    """These screens, cut out of the contact sheet and enlarged."""
    pictures = [stored_picture(name, STRIP_SIZE, "zh") for name in names]
    width, height = (side * _TIMES + _EDGE for side in STRIP_SIZE)
    made = Image.new("RGB", (len(names) * width + _EDGE, height + _EDGE), _FRAME)
    for at, image in enumerate(filter(None, pictures)):
        large = image.resize((width - _EDGE, height - _EDGE), Image.Resampling.NEAREST)
        made.paste(large, (_EDGE + at * width, _EDGE))
    return made.quantize(palette=_palette("1"), dither=Image.Dither.NONE)


def strip_path(name: str) -> Path:
    """Of a strip's picture."""
    return IMAGES / f"officers-{name}.png"


# ------------------------------------------------------------------------------------------- differences


def changed(size: tuple[int, int], language: Language) -> list[str]:
    """The names of screens that are not the stored ones."""
    old = json.loads(STORED.read_text(encoding="utf-8")).get(sheet_name(size, language), {})
    new = hashes(size, language)
    return [name for name in {**old, **new} if old.get(name) != new.get(name)]


def difference_page(folder: Path, sizes: tuple[tuple[int, int], ...] = SIZES) -> Path:
    """A page with old, new and difference of every changed screen."""
    rows = []
    for size in sizes:
        for language in LANGUAGES:
            for name in changed(size, language):
                stem = f"{sheet_name(size, language)}-{name.replace(' ', '-')}"
                cells = "".join(
                    f'<td><img src="{file}"></td>' for file in _differences(folder, stem, name, size, language)
                )
                rows.append(f"<tr><th>{sheet_name(size, language)}<br>{name}</th>{cells}</tr>\n")
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "index.html"
    head = "<!doctype html><meta charset=utf-8><title>Changed screens</title>"
    style = "<style>img{image-rendering:pixelated;zoom:2}td{background:#456}</style>"
    titles = "<tr><th></th><th>old</th><th>new</th><th>difference</th></tr>\n"
    page.write_text(f"{head}{style}<table>{titles}{''.join(rows)}</table>\n", encoding="utf-8")
    return page


def _differences(folder: Path, stem: str, name: str, size: tuple[int, int], language: Language) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    blank = Image.new("RGB", size)
    state = stored_states(language).get(name)
    old = stored_picture(name, size, language) or blank
    new = blank if state is None else picture(state, size).convert("RGB")
    files = []
    for kind, image in (("old", old), ("new", new), ("difference", ImageChops.difference(old, new))):
        files.append(f"{stem}-{kind}.png")
        image.save(folder / files[-1])
    return files


# -------------------------------------------------------------------------------------------------- the page


def docs_page() -> str:
    """docs/screens.md: the contact sheets, and what stands where on them."""
    parts = [_HEAD]
    for size in SIZES:
        parts.append(f"\n## {size[0]}×{size[1]}\n")
        for language in LANGUAGES:
            parts.append(f"\n![The screens below, {language}](images/{sheet_name(size, language)}.png)\n")
        parts.append(f"\nRow by row:\n\n{_names(size)}")
    return "".join(parts)


def _names(size: tuple[int, int]) -> str:
    names, columns = list(stored_states("zh")), columns_of(size)
    return "".join(
        f"{at // columns + 1}. {' · '.join(names[at : at + columns])}\n" for at in range(0, len(names), columns)
    )


_HEAD = """# Screens

Every screen that a test compares with its stored picture, on each panel and in both languages, pixel for pixel. Made by
`python -m tests.make_screens`; nothing here claims that the rules would give such a verdict for such a car.

- A verdict's icon, its headline and the polarity of the whole panel each tell its tone: a disc with a tick, a ring with
  an i, a triangle, a square with a cross on an inverted panel, an outlined question mark. Colour, where there is one,
  repeats that.
- Beside them: source (在线/离线) and age of the data, grade, mode, the month until which the inspection is valid, and
  in an inverted box what the officer is to do before all: 核牌, compare the plate with the car's.
- The bar of every other page: what page it is, network, age of the data, clock, battery. At the foot: the mode, a
  fault, and 测试数据 on a device with test data.
- Every minute the picture moves by one pixel where it loses nothing by that.
"""


def main(argv: list[str]) -> int:
    """Write hashes, contact sheets and page; or the differences only."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--diff", type=Path, metavar="DIR", help="only write the differences")
    folder = parser.parse_args(argv).diff
    if folder is not None:
        sys.stdout.write(f"{difference_page(folder)}\n")
        return 0
    stored = {}
    for size in SIZES:
        for language in LANGUAGES:
            stored[sheet_name(size, language)] = hashes(size, language)
            pictures = [picture(state, size) for state in stored_states(language).values()]
            contact_sheet(pictures, size).save(IMAGES / f"{sheet_name(size, language)}.png", optimize=True)
    STORED.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(docs_page(), encoding="utf-8")
    for name, screens in STRIPS.items():
        strip(screens).save(strip_path(name), optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
