"""`markcheck check`: the verdict on pictures, on a video, or on a plate."""

from __future__ import annotations

import dataclasses
import stat
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import click

from firmware.build import Device, build_device
from firmware.config import Home
from firmware.scanner import (
    VIDEO_SUFFIXES,
    CodeEvent,
    Event,
    FaultEvent,
    HintEvent,
    Scanner,
    pictures,
    usual,
    video,
)
from firmware.views import CARS, VerdictView, printable, terminal_card, verdict_view
from hw.errors import DeviceTimeoutError, FrameError, one_line
from scripts.cli.console import home_option, json_option, print_json, problem
from scripts.cli.erasing import unless_erased
from verifier.adapters import NOTHING_READ
from verifier.audit import verdict_to_json
from verifier.check import CheckResult, Observation, read_card
from verifier.clock import system_clock
from verifier.errors import PlateError
from verifier.online import at_once
from verifier.plates import display_text, parse_plate
from verifier.roles import answer_lines, limited_answer
from verifier.types import Credential, Hint, PlateSeen, Purpose
from verifier.verdict import Age, Role, View
from verifier.vin import Vin, read_vin
from verifier.wording import AIM_AGAIN, HINTS, Language, Text

SCREEN_SCALE = 4  # a panel pixel in the saved picture
EMPTY_CODE = b"\n"  # a foreign code that is empty was read all the same
POLL_S = 0.5
ENGINE_S = 60.0  # for which a code is waited for
BATCH = 100  # paths of one scanner process: the system bounds what a process may be told at its start
SIMILAR = Text("近似号牌", "SIMILAR:")


@click.command()
@click.argument("pictures", nargs=-1, metavar="[PICTURE]...", type=click.Path(path_type=Path))
@click.option("--plate", help="The plate on the car, as typed by the officer.")
@click.option("--kind", help="Plate kind of GA/T 16.7, two digits; needed where several vehicles carry the text.")
@click.option(
    "--vin",
    help="The VIN on the car, as typed by the officer; compared with the code, and by the centre with --online.",
)
@click.option("--card", help="The number on the tag's card, as typed by the officer; with --plate.")
@click.option(
    "--port",
    type=click.Path(path_type=Path),
    help="Serial port of a barcode engine: the next code that it reads, in place of a PICTURE.",
)
@click.option("--baud", type=click.IntRange(300, 4_000_000), help="Speed of that port.  [default: 9600]")
@click.option("--paper/--no-paper", default=None, help="Whether a paper mark is displayed in the car.")
@click.option("--lang", type=click.Choice(["zh", "en"]), default="zh", show_default=True, help="Language.")
@click.option(
    "--screens",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for pictures of the officer's panel.",
)
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default=Role.OFFICER.value,
    show_default=True,
    help="Who is looking; insurer, rental and gate get yes or no and the month.",
)
@click.option("--online", is_flag=True, help="Ask the centre too where the local verdict leaves something open.")
@json_option
@home_option
def check(
    pictures: tuple[Path, ...],
    plate: str | None,
    kind: str | None,
    vin: str | None,
    card: str | None,
    port: Path | None,
    baud: int | None,
    paper: bool | None,
    lang: Language,
    screens: Path | None,
    role: str,
    online: bool,
    as_json: bool,
    home: Home,
) -> int:
    """The verdict on pictures or a video of a code, or on a plate.

    \b
    Examples:
      markcheck check photo.png
      markcheck check --plate 京A12345 --kind 02
      markcheck check photo.png --plate 京A12345     is it the code of this car
      markcheck check photo.png --vin LSVAA49J4E2000001
      markcheck check --plate 京A12345 --vin LSVAA49J4E2000001 --online     does the centre have it on this plate
      markcheck check --plate 京A12345 --card "1020 3040 5060"     a tag's label whose code is worn
      markcheck check photos/ --json
      markcheck check video.avi                      one verdict for each code that comes into view
      markcheck check photo.png --lang en --screens out/
      markcheck check photo.png --role insurer
      markcheck check --port /dev/ttyACM0            one code from a barcode engine
      markcheck check --plate 京A12345 --online      the local verdict, then what the centre says

    A PICTURE is a picture file, a folder of them, or a video file. Exit status: 0 when a verdict was reached for
    everything, 1 when a picture could not be used, 2 for wrong usage.
    """
    if card is not None and (plate is None or pictures or port is not None):
        raise click.UsageError("--card goes with --plate alone: data know a card's number only with its plate")
    if not pictures and plate is None and port is None:
        raise click.UsageError("give a PICTURE, --plate or --port")
    if port is not None and pictures:
        raise click.UsageError("--port stands in place of a PICTURE")
    if baud is not None and port is None:
        raise click.UsageError("--baud goes with --port")
    if kind is not None and plate is None:
        raise click.UsageError("--kind goes with --plate")
    if vin is not None and not pictures and port is None and not online:
        raise click.UsageError("--vin goes with a PICTURE, --port or --online: code or centre is to know it")
    seen = Observation(
        plate_seen=_typed(plate, kind), paper_displayed=paper, vin=_typed_vin(vin), card=_typed_card(card)
    )
    output = _Output(lang, screens, Role(role), as_json)
    with _device(home) as (device, look):
        run = _asking(device) if online else lambda seen: [device.verifier.check(seen)]
        if port is not None:
            seen = dataclasses.replace(seen, code=_from_engine(port, baud))
        for name, result in _checks(run, pictures, seen, look):
            output.show(name, result)
    return 1 if output.unusable else 0


@click.command()
@click.argument("cars", nargs=2, metavar="CAR_A CAR_B")
@click.option("--lang", type=click.Choice(["zh", "en"]), default="zh", show_default=True, help="Language.")
@json_option
@home_option
def accident(cars: tuple[str, str], lang: Language, as_json: bool, home: Home) -> int:
    """Two vehicles of a self-settled accident: both verdicts, kept in one record.

    \b
    Examples:
      markcheck accident a.png b.png
      markcheck accident a.png 京A12345

    A CAR is a picture of its code, or its plate.
    """
    a, b = (_observe(car) for car in cars)
    output = _Output(lang, None, Role.OFFICER, as_json)
    with _device(home) as (device, _):
        for name, result in zip(CARS, device.verifier.check_pair(a, b), strict=True):
            output.show(name.in_(lang), result)
    return 0


def _observe(car: str) -> Observation:
    """What is seen of one car: the one mark in a picture, else the typed plate."""
    mode = _mode(Path(car))
    if mode is None:
        return Observation(plate_seen=_typed(car, None), purpose=Purpose.ACCIDENT)
    if stat.S_ISDIR(mode):
        raise click.UsageError("a CAR is one picture, not a folder of them")
    marks: list[bytes] = []
    for _, code in _in_pictures([Path(car)]):
        if isinstance(code, FrameError):
            raise code
        marks.append(code)
    if len(marks) != 1:
        raise click.UsageError("more than one mark in the picture of one car")
    return Observation(code=marks[0], purpose=Purpose.ACCIDENT)


def _mode(path: Path) -> int | None:
    """Of what is there, as in stat(2); None where nothing is or the text is not a possible path."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return None


def _typed(plate: str | None, kind: str | None) -> PlateSeen | None:
    try:
        return None if plate is None else PlateSeen(plate=parse_plate(plate, kind), confirmed=True)
    except PlateError as exc:
        raise click.UsageError(str(exc)) from exc


def _typed_vin(vin: str | None) -> Vin | None:
    try:
        return None if vin is None else read_vin(vin)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc


def _typed_card(card: str | None) -> str:
    try:
        return "" if card is None else read_card(card)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc


@contextmanager
def _device(home: Home) -> Iterator[tuple[Device, Callable[[], None]]]:
    """The device, and what is called before each check, as `unless_erased` has it."""
    with unless_erased(home) as look:
        device = build_device(home, system_clock)
        for warning in device.warnings:
            problem(f"note: {warning}")
        try:
            yield device, look
        finally:
            device.store.close()


Run = Callable[[Observation], list[CheckResult]]
"""One check, with its local verdict and perhaps what the centre says after it."""


def _asking(device: Device) -> Run:
    """Checks that wait for the centre: a terminal has nothing else to show meanwhile."""
    if device.online is None:
        raise click.UsageError("there is no centre to ask: run 'markcheck enrol', then 'markcheck shift begin'")
    device.online.poster.prepare()
    shown: list[CheckResult] = []
    late = device.online.late(shown.append, start=at_once)

    def run(seen: Observation) -> list[CheckResult]:
        shown.clear()
        late.check(seen)
        return list(shown)

    return run


def _checks(
    run: Run, paths: tuple[Path, ...], seen: Observation, look: Callable[[], None]
) -> Iterator[tuple[str, CheckResult | FrameError]]:
    if not paths:
        look()
        for result in run(seen):
            yield "", result
        return
    for name, code in _codes(paths):
        if isinstance(code, FrameError):
            yield name, code
            continue
        look()
        for result in run(dataclasses.replace(seen, code=code)):
            yield name, result


def _from_engine(path: Path, baud: int | None) -> bytes:
    """The next code that a barcode engine reads; HardwareError."""
    from hw.barcode import BAUDRATE, NAME, BarcodeEngine, serial_port  # noqa: PLC0415 - loads pyserial

    until = time.monotonic() + ENGINE_S
    with closing(BarcodeEngine(serial_port(path, baud or BAUDRATE))) as engine:
        while (left := until - time.monotonic()) > 0:
            if codes := engine.poll(min(left, POLL_S)):
                return codes[0].payload
    raise DeviceTimeoutError(NAME, f"no code was read within {ENGINE_S:g} s")


def _codes(paths: Iterable[Path]) -> Iterator[tuple[str, bytes | FrameError]]:
    """What there is to see, one after the other, with the name of its picture."""
    for is_video, group in groupby(paths, _is_video):
        if is_video:
            for path in group:
                yield from _in_video(path)
        else:
            while batch := list(islice(group, BATCH)):
                yield from _in_pictures(batch)


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES and not stat.S_ISDIR(_mode(path) or 0)


def _in_pictures(paths: list[Path]) -> Iterator[tuple[str, bytes | FrameError]]:
    """Of each picture every mark, else the first foreign code, else NOTHING_READ; or why it cannot be used."""
    with Scanner(pictures(*paths)) as scanner:
        while not scanner.over:
            yield from _in_picture(scanner.poll(POLL_S))


def _in_picture(events: list[Event]) -> Iterator[tuple[str, bytes | FrameError]]:
    """What one call of the scanner told: never of two pictures, because it asks for the next one when it is called."""
    codes = [event for event in events if isinstance(event, CodeEvent)]
    for code in codes if codes and codes[0].is_mark else codes[:1]:
        yield code.frame, code.code.payload or EMPTY_CODE
    for event in events:
        if isinstance(event, HintEvent):
            yield event.frame, NOTHING_READ
        elif isinstance(event, FaultEvent):
            yield event.component, FrameError(event.component, event.problem)


def _in_video(path: Path) -> Iterator[tuple[str, bytes | FrameError]]:
    """What comes into view in a video, with the name of its first frame; NOTHING_READ when no frame shows a code."""
    hints: Counter[Hint | None] = Counter()
    is_empty = True
    with Scanner(video(path)) as scanner:
        for event in scanner.events():
            if isinstance(event, CodeEvent):
                is_empty = False
                yield event.frame, event.code.payload or EMPTY_CODE
            elif isinstance(event, FaultEvent):
                yield event.component, FrameError(event.component, event.problem)
            elif isinstance(event, HintEvent):
                hints[event.hint] += 1
    if is_empty and (hint := usual(hints)):
        problem(f"note: {(AIM_AGAIN if hint.hint is None else HINTS[hint.hint]).en}")
        yield one_line(path.name), NOTHING_READ


class _Output:
    """Shows results one by one; `unusable` tells whether a picture could not be used."""

    def __init__(self, language: Language, screens: Path | None, role: Role, as_json: bool) -> None:
        self._language, self._screens, self._role, self._as_json = language, screens, role, as_json
        self.unusable = False

    def show(self, name: str, result: CheckResult | FrameError) -> None:
        if isinstance(result, FrameError):
            self.unusable = True
            problem(str(result))
            return
        for remark in result.remarks:
            problem(f"note: {remark}")
        if name and not self._as_json:
            click.echo(printable(name))
        seen = result.policy.view(self._role)
        if seen is View.NONE:
            problem("this role may not look at vehicles")
            self.unusable = True
        elif seen is View.LIMITED:
            self._limited(name, result)
        else:
            self._full(name, result)

    def _full(self, name: str, result: CheckResult) -> None:
        view = verdict_view(
            result.verdict,
            now=result.earliest,
            language=self._language,
            credential=result.credential,
            mode=result.mode,
        )
        picture = None if self._screens is None else save_screen(view, self._screens, result.check_id)
        similar = [display_text(plate) for plate in result.similar]
        if self._as_json:
            found = {**verdict_to_json(result.verdict), "similar": [plate.text for plate in result.similar]}
            found |= {"late": result.late, **_age_json(result.age)}
            more = {"vehicle": _vehicle(result.credential), "panel": str(picture) if picture is not None else None}
            print_json({**_head(name, result), **found, **more})
            return
        click.echo(terminal_card(view, colour=sys.stdout.isatty()))
        if similar:
            click.echo(f"{SIMILAR.in_(self._language)} {' '.join(similar)}")
        if picture is not None:
            click.echo(f"panel: {picture}")

    def _limited(self, name: str, result: CheckResult) -> None:
        answer = limited_answer(result.evidence, result.policy, result.now, earliest=result.earliest)
        if self._as_json:
            facts = {
                "answer": answer.answer.value,
                "month": str(answer.month) if answer.month else None,
                "as_of": answer.as_of.isoformat() if answer.as_of else None,
                "policy": answer.policy,
                **_age_json(answer.age),
            }
            print_json({**_head(name, result), **facts})
            return
        for line in answer_lines(answer, self._role):
            click.echo(line.in_(self._language))


def _head(name: str, result: CheckResult) -> dict[str, Any]:
    return {"picture": name or None, "id": result.check_id, "at": result.now.isoformat()}


def _age_json(age: Age | None) -> dict[str, Any]:
    """The age of the data in seconds, None without data; a suspect clock tells only the least that it is."""
    if age is None:
        return {"age_s": None, "age_at_least": False}
    return {"age_s": int(age.span.total_seconds()), "age_at_least": age.at_least}


def _vehicle(proven: Credential | None) -> dict[str, str | None] | None:
    """What a proven credential says of the car's looks, by its codes."""
    if proven is None:
        return None
    return {"type": proven.vehicle_type, "colour": proven.body_colour, "use": proven.use_nature}


def save_screen(view: VerdictView, folder: Path, name: str) -> Path:
    """Show the view on a simulated panel through the real panel driver, and save what its glass shows as PNG."""
    from firmware.draw import verdict_picture  # noqa: PLC0415 - most checks are without pictures and their libraries
    from hw.display.panel import open_panel  # noqa: PLC0415 - as above
    from hw.display.simulator import SimulatedPanel  # noqa: PLC0415 - as above

    glass = SimulatedPanel()
    panel = open_panel("ssd1309", glass)
    panel.show(verdict_picture(view))
    image = glass.image()
    panel.close()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    image.resize((image.width * SCREEN_SCALE, image.height * SCREEN_SCALE)).save(path)
    return path
