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
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from unittest.mock import patch

from PIL import Image, ImageChops

from firmware.draw import BAR_INK, INKS, draw
from firmware.fonts import Font
from firmware.machine import events as ev
from firmware.machine import states as st
from firmware.machine.going import shut
from firmware.machine.states import Light, MenuItem, Mode, Network, Outcome, State, Status
from firmware.plate_entry import Entry
from hw.buttons.keys import Key
from tests.hand import Hand
from tests.test_plate_entry import card_presses, presses
from verifier.check import CheckResult, Observation
from verifier.officers import LoginFault, Officer
from verifier.policy import Policy
from verifier.recheck import News
from verifier.roles import Answer, LimitedAnswer
from verifier.types import (
    CodeEvidence,
    CodeReading,
    Credential,
    Evidence,
    Hint,
    Month,
    Plate,
    PresentationMode,
    Serial,
    SignatureState,
    Source,
    TagAuth,
    TagEvidence,
)
from verifier.verdict import Action, Finding, Grade, Reason, Role, Tone, Verdict, VerdictCode
from verifier.wording import LANGUAGES, VERDICTS, Language

ROOT = Path(__file__).parent.parent
STORED = Path(__file__).parent / "data" / "screens.json"
PAGE = ROOT / "docs" / "screens.md"
IMAGES = ROOT / "docs" / "images"

SIZES = ((128, 64), (256, 64), (128, 128))
NOW = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)
NOW_MS = 120_000
PLATES = ("京A12345", "京AD12345", "川X1234应急", "粤ZF023港", "WJ京12345", None)
AGES = (timedelta(0), timedelta(hours=8), timedelta(days=5), timedelta(days=12), timedelta(days=365), None)
CARS = (("K33", "AJ", "A"), ("B11", "CFI", "P"), ("Z99", "Z", None))  # type, colours, use: usual, longest, unknown


# ------------------------------------------------------------------------------------------------ what is shown


def make_verdict(
    code: VerdictCode,
    *,
    plate: str | None = "京A12345",
    grade: Grade = Grade.FRESH_CACHE,
    age: timedelta | None = timedelta(hours=8),
    month: Month | None = Month(2027, 8),  # noqa: B008 - a constant
    reasons: tuple[Reason, ...] = (Reason.DATA_STALE, Reason.CTP_LAPSED, Reason.ID_WEAK, Reason.STATUS_NOTE),
    actions: tuple[Action, ...] = (Action.CHECK_VIN, Action.CONFIRM_CENTRE),
) -> Verdict:
    """A verdict with the tone of its code; nothing here claims that the rules would give it."""
    return Verdict(
        code=code,
        grade=grade,
        tone=VERDICTS[code].tone,
        findings=tuple(Finding(reason=reason, source=Source.CACHE) for reason in reasons),
        actions=actions,
        policy="test",
        plate=None if plate is None else Plate(plate, None),
        valid_until=month,
        as_of=None if age is None else NOW - age,
    )


def make_credential(vehicle_type: str | None, colour: str | None, use: str | None) -> Credential:
    """A credential that says this of the car's looks."""
    return Credential(
        serial=Serial("00" * 8),
        plate=Plate("京A12345", "02"),
        valid_until=Month(2027, 8),
        issued_at=NOW,
        vehicle_type=vehicle_type,
        body_colour=colour,
        use_nature=use,
    )


def make_result(
    verdict: Verdict,
    credential: Credential | None = None,
    similar: tuple[Plate, ...] = (),
    mode: PresentationMode | None = PresentationMode.STORED,
) -> CheckResult:
    """A finished check with this verdict, of the car with this proven credential, which was shown in this mode."""
    code = CodeEvidence(reading=CodeReading.NONE)
    if credential is not None:
        code = CodeEvidence(
            reading=CodeReading.OK, mode=mode, signature=SignatureState.VALID, credential=credential
        )  # fmt: skip
    return CheckResult(
        check_id="a", verdict=verdict, evidence=Evidence(code=code), now=NOW, earliest=NOW, policy=Policy(),
        similar=similar,
    )  # fmt: skip


def make_state(language: Language = "zh", **facts: object) -> State:
    """A device in service."""
    status = Status(battery=72, data_as_of=NOW - timedelta(hours=8), online=True, about=("markcheck 0.1.0", "P-001"))
    return replace(State(language=language, status=status), **facts)


def showing(state: State, *results: CheckResult, car: int = 0, sheet: int = 0) -> State:
    """The state with these verdicts on the panel."""
    outcomes = tuple(Outcome(number=1, seen=Observation(), result=result) for result in results)
    return replace(state, page=st.Shown(outcomes=outcomes, since_ms=0, car=car, sheet=sheet))


def verdict_states(language: Language) -> dict[str, State]:
    """Every verdict over all plates, grades and ages in turn; then sheets, the two cars of an accident, demos."""
    state = make_state(language)
    demo = replace(state, status=replace(state.status, demo=True))
    states = {}
    for number, code in enumerate(VerdictCode):
        verdict = make_verdict(
            code,
            plate=PLATES[number % len(PLATES)],
            grade=list(Grade)[number % len(Grade)],
            age=AGES[(number // 2) % len(AGES)],
            month=None if number % 7 == 6 else Month(2027, 8),
            actions=(Action.CONFIRM_PLATE, Action.CONFIRM_CENTRE) if number % 4 == 3 else (Action.CHECK_VIN,),
        )
        states[code] = showing(state, make_result(verdict))
    for code in (VerdictCode.VALID, VerdictCode.EXPIRED, VerdictCode.NOT_FOUND, VerdictCode.SIGNED_ONLY):
        actions = (Action.CONFIRM_PLATE,) if code is VerdictCode.NOT_FOUND else (Action.RELEASE,)
        states[f"demo {code}"] = showing(demo, make_result(make_verdict(code, actions=actions)))
    similar = (Plate("京A12B45", "02"), Plate("京A1234B", "02"))
    sheets = make_result(make_verdict(VerdictCode.NOT_FOUND), make_credential(*CARS[1]), similar)
    for number in range(1, 5):
        states[f"sheet {number}"] = showing(demo if number == 2 else state, sheets, sheet=number)
    for mode in PresentationMode:
        shown = make_result(make_verdict(VerdictCode.NOT_FOUND), make_credential(*CARS[1]), similar, mode)
        states[f"sheet 5 {mode}"] = showing(state, shown, sheet=5)
    crash = replace(state, mode=Mode.ACCIDENT)
    cars = (
        make_result(make_verdict(VerdictCode.EXPIRED)),
        make_result(make_verdict(VerdictCode.VALID, plate=PLATES[1])),
    )
    states["car A"], states["car B"] = (showing(crash, *cars, car=car) for car in (0, 1))
    states["car A why"] = showing(crash, *cars, sheet=1)
    doubted = make_verdict(VerdictCode.VALID, reasons=(Reason.TAG_AUTH_FAILED,), actions=(Action.CONFIRM_PLATE,))
    states["VALID in doubt"] = showing(state, make_result(replace(doubted, tone=Tone.CAUTION)))
    good = make_verdict(VerdictCode.VALID, reasons=(), actions=(Action.CONFIRM_PLATE, Action.RELEASE))
    states["VALID to confirm"] = showing(state, make_result(good))
    return states


def page_states(language: Language) -> dict[str, State]:
    """Every page that is no verdict, as an officer comes to it."""
    state = make_state(language)
    ready = Hand(make_state(language)).happens(ev.Started()).state

    def after(*keys: str | Key, start: State = ready) -> State:
        return Hand(start).press(*keys).state

    def menu(item: MenuItem) -> State:
        hand = Hand(ready)
        hand.hold("ok")
        return hand.press(*["down"] * hand.state.menu.index(item)).state

    aim = after("ok")
    lost = replace(aim.page, named=True, hint=Hint.GLARE)
    tags = Hand(ready).press("left").happens(ev.TagsSeen(tuple(map(_tag, PLATES[:4], (-38.0, -51.0, -60.0, -77.0)))))
    lane = Hand(menu(MenuItem.CHECKPOINT)).press("ok").happens(ev.Passed(128))
    alarm = Hand(lane.state).happens(ev.Alarm(number=9, result=make_result(make_verdict(VerdictCode.WANTED)), lane=3))
    past = (VerdictCode.VALID, VerdictCode.FORGED, VerdictCode.SIGNED_ONLY, VerdictCode.EXPIRED_UNCONFIRMED)
    history = tuple(
        Outcome(number=at, seen=Observation(), result=make_result(make_verdict(code, plate=PLATES[at])))
        for at, code in enumerate(past)
    )
    counts = {VerdictCode.VALID: 37, VerdictCode.FORGED: 1, VerdictCode.EXPIRED: 2}
    worn = replace(
        ready, network=Network.OFF, faults={"camera": "MISSING"},
        status=replace(ready.status, battery=41, online=False, clock_doubted=True, demo=True),
    )  # fmt: skip
    crash = after("right")
    news = tuple(
        News(check_id=str(at), at=NOW - timedelta(hours=4 * at), then=then, now=now, plate=Plate(PLATES[at], None))
        for at, (then, now) in enumerate(_CHANGES)
    )
    told = replace(ready, news=news, day=NOW.date(), counts=counts)
    tested = ("PASS camera 182 ms", "PASS reader 40 ms", "FAIL clock")
    return {
        "boot": state,
        "ready": ready,
        "ready on mains": replace(ready, status=replace(ready.status, battery=None, online=False)),
        "ready with everything": worn,
        "battery low": replace(ready, status=replace(ready.status, battery=7, demo=True)),
        "aim": aim,
        "aim with a hint": replace(aim, page=lost),
        "choose": Hand(ready).press("ok").sees("京A12345", "沪B9K821", "a very long label of someone else").state,
        "checking": replace(ready, page=st.Checking(number=1, since_ms=0, seen=(), behind=st.Ready())),
        "typing 0": after("up"),
        "typing 1": after("up", *presses("京AD12345")[:1]),
        "typing 2": after("up", *presses("京AD12345")[:6]),
        "typing 7": after("up", *presses("京A1234警")[:13]),
        "typing 8 with everything": after("up", *presses("京AD12345")[:14], start=worn),
        "typing to compare": replace(
            after("up"), mode=Mode.ROADSIDE, page=st.Typing(entry=Entry("京"), seen=Observation(code=b"this car"))
        ),
        "typed": after("up", *presses("京A12345"), "right"),
        "typed long": after("up", *presses("川XS1234应急"), start=worn),
        "card 0": after("up", *presses("京A12345"), "up"),
        "card 5": after("up", *presses("京A12345"), "up", *card_presses("1020B")),
        "card 11 with everything": after("up", *presses("京A12345"), "up", *card_presses("10203040506"), start=worn),
        "card 12": after("up", *presses("京A12345"), "up", *card_presses("10203040506F")),
        "card whole": after("up", *presses("京A12345"), "up", *card_presses("10203040506F"), "ok"),
        "tags": tags.state,
        "tags none": after("left"),
        "checkpoint": lane.state,
        "checkpoint alarm": alarm.state,
        "accident": crash,
        "accident second": Hand(crash).press("ok").sees("car one").state,
        "history": after("down", start=replace(ready, history=history, counts=counts)),
        "history empty": after("down"),
        "ready with news": told,
        "news": after("down", start=told),
        "news with everything": after("down", "down", "down", start=replace(worn, news=news)),
        "menu": menu(MenuItem.LOOKUP),
        "menu end": menu(MenuItem.BRIGHTNESS),
        "sync": after("ok", start=menu(MenuItem.SYNC)),
        "self-test": replace(ready, page=st.Info(title=MenuItem.SELF_TEST, lines=tested)),
        "about": after("ok", start=menu(MenuItem.INFO)),
        "about with everything": replace(worn, page=st.Info()),
        "switching off": replace(ready, page=st.Off(), light=Light.SLEEP),
        "off": replace(ready, page=st.Off(kept=True), light=Light.SLEEP),
        "off flat": replace(ready, page=st.Off(flat=True, kept=True)),
        **login_states(ready),
    }  # fmt: skip


def login_states(ready: State) -> dict[str, State]:
    """The pages of a device that somebody has to log in at."""
    guarded = replace(ready, lock_ms=600_000, officer=Officer(officer_id="110001", role=Role.OFFICER))
    closed = replace(guarded, page=st.Login(), locked=True)
    typing = Hand(closed).press("up", "left", "up", "left", "up", "up").state
    pin = Hand(shut(closed)[0]).press("up", "ok", "left", "left").state
    told = replace(closed, page=st.Login(refused=LoginFault.WRONG))
    waits = replace(closed, page=st.Login(refused=LoginFault.WAIT, until_ms=NOW_MS + 60_000, wait_s=60))
    lane = replace(closed, page=st.Checkpoint(passed=128, alarms=2), mode=Mode.CHECKPOINT)
    insurer = replace(guarded, officer=Officer(officer_id="110001", role=Role.INSURER))
    yes = LimitedAnswer(answer=Answer.YES, month=Month(2027, 8), as_of=NOW, policy="test", age=None)
    answer = st.Answer(number=1, answer=yes, since_ms=0)
    purpose = Hand(guarded).press("up", *presses("京AD12345"), "ok").state
    return {
        "login": typing,
        "login pin": pin,
        "login tried": replace(closed, page=st.Login(attempt=1)),
        "login refused": told,
        "login wait": waits,
        "purpose": purpose,
        "limited answer": replace(insurer, page=answer),
        "limited answer at a gate": replace(insurer, page=answer, officer=Officer(officer_id="1", role=Role.GATE)),
        "checkpoint locked": lane,
        "menu lock": replace(guarded, page=st.Menu(cursor=len(guarded.menu) - 1)),
        "look-ups flagged": replace(guarded, flagged_ms=NOW_MS),
    }


def _tag(plate: str, rssi_dbm: float) -> ev.SeenTag:
    evidence = TagEvidence(auth=TagAuth.OK, tid=plate, plate=Plate(plate, None))
    return ev.SeenTag(evidence=evidence, rssi_dbm=rssi_dbm)


_CHANGES = (
    (VerdictCode.EXPIRED_UNCONFIRMED, VerdictCode.VALID),
    (VerdictCode.SIGNED_ONLY, VerdictCode.REVOKED),
    (VerdictCode.VALID_STALE, VerdictCode.REVOKED),
)


@cache
def stored_states(language: Language) -> dict[str, State]:
    """Every state whose picture is stored, by its name."""
    return {**verdict_states(language), **page_states(language)}


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
    names = list(json.loads(STORED.read_text(encoding="utf-8"))[sheet_name(size, language)])
    if name not in names:
        return None
    left, top = _place(names.index(name), size)
    with Image.open(IMAGES / f"{sheet_name(size, language)}.png") as sheet:
        return sheet.convert("RGB").crop((left, top, left + size[0], top + size[1]))


# ------------------------------------------------------------------------------------------------- strips

STRIP_SIZE = SIZES[0]
_TIMES = 2
STRIPS: dict[str, tuple[str, ...]] = {
    "check": ("ready", "aim with a hint", "VALID to confirm"),
    "tones": ("demo VALID", "VALID_STALE", "WATCH_CONFIRM", "demo EXPIRED"),
    "sheets": ("sheet 1", "sheet 3", "sheet 4", "sheet 5 stored"),
    "typing": ("typing 0", "typing 1", "typed", "card 5"),
    "tags": ("tags", "tags none"),
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
