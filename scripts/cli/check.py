"""`markcheck check`: the verdict on pictures, on a video, or on a plate."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from firmware.build import build_device
from firmware.config import Home
from firmware.scan import payloads
from firmware.scanner import CodeEvent, FaultEvent, HintEvent, Scanner, video
from firmware.screens import render_verdict
from firmware.views import VerdictView, printable, terminal_card, verdict_view
from hw.camera.files import FileSource
from hw.camera.video import MAX_FRAMES
from hw.camera.video import SUFFIXES as VIDEO_SUFFIXES
from hw.display.panel import open_panel
from hw.display.simulator import SimulatedPanel
from hw.errors import FrameError, one_line
from hw.interfaces import CodeDecoder
from hw.qr.decoders import available_decoders
from hw.qr.reader import Deduplicator
from scripts.cli.console import home_option, json_option, print_json, problem, progress_bar
from verifier.adapters import NOTHING_READ
from verifier.audit import verdict_to_json
from verifier.check import CheckResult, Observation, Verifier
from verifier.clock import system_clock
from verifier.errors import PlateError
from verifier.plates import display_text, parse_plate
from verifier.roles import answer_lines, limited_answer
from verifier.types import Credential, Hint, PlateSeen, Purpose, Role, View
from verifier.vin import Vin, read_vin
from verifier.wording import HINTS, Language, Text

SCREEN_SCALE = 4  # a panel pixel in the saved picture
CARS = (Text("甲车", "CAR A"), Text("乙车", "CAR B"))
EMPTY_CODE = b"\n"  # a foreign code that is empty was read all the same
SIMILAR = Text("近似号牌", "SIMILAR:")


@click.command()
@click.argument("pictures", nargs=-1, metavar="[PICTURE]...", type=click.Path(path_type=Path))
@click.option("--plate", help="The plate on the car, as typed by the officer.")
@click.option("--kind", help="Plate kind of GA/T 16.7, two digits; needed where several vehicles carry the text.")
@click.option("--vin", help="The VIN on the car, as typed by the officer; compared with the code and kept nowhere.")
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
@json_option
@home_option
def check(
    pictures: tuple[Path, ...],
    plate: str | None,
    kind: str | None,
    vin: str | None,
    paper: bool | None,
    lang: Language,
    screens: Path | None,
    role: str,
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
      markcheck check photos/ --json
      markcheck check video.avi                      one verdict for each code that comes into view
      markcheck check photo.png --lang en --screens out/
      markcheck check photo.png --role insurer

    A PICTURE is a picture file, a folder of them, or a video file. Exit status: 0 when a verdict was reached for
    everything, 1 when a picture could not be used, 2 for wrong usage.
    """
    if not pictures and plate is None:
        raise click.UsageError("give a PICTURE or --plate")
    if kind is not None and plate is None:
        raise click.UsageError("--kind goes with --plate")
    if vin is not None and not pictures:
        raise click.UsageError("--vin goes with a PICTURE: it is compared with the code")
    seen = Observation(plate_seen=_typed(plate, kind), paper_displayed=paper, vin=_typed_vin(vin))
    output = _Output(lang, screens, Role(role), as_json)
    with _device(home) as verifier:
        for name, result in _checks(verifier, pictures, seen):
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
    with _device(home) as verifier:
        for name, result in zip(CARS, verifier.check_pair(a, b), strict=True):
            output.show(name.in_(lang), result)
    return 0


def _observe(car: str) -> Observation:
    """What is seen of one car: the one mark in a picture, else the typed plate."""
    if not Path(car).exists():
        return Observation(plate_seen=_typed(car, None), purpose=Purpose.ACCIDENT)
    frames = list(FileSource(Path(car)).frames())
    if len(frames) != 1:
        raise click.UsageError("a CAR is one picture, not a folder of them")
    if isinstance(frames[0], FrameError):
        raise frames[0]
    marks = payloads(frames[0], available_decoders())
    if len(marks) != 1:
        raise click.UsageError("more than one mark in the picture of one car")
    return Observation(code=marks[0], purpose=Purpose.ACCIDENT)


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


@contextmanager
def _device(home: Home) -> Iterator[Verifier]:
    device = build_device(home, system_clock)
    for warning in device.warnings:
        problem(f"note: {warning}")
    try:
        yield device.verifier
    finally:
        device.store.close()


def _checks(
    verifier: Verifier, pictures: tuple[Path, ...], seen: Observation
) -> Iterator[tuple[str, CheckResult | FrameError]]:
    if not pictures:
        yield "", verifier.check(seen)
        return
    decoders = available_decoders()
    for path in pictures:
        is_video = path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir()
        for name, code in _in_video(path) if is_video else _in_pictures(path, decoders):
            found = code if isinstance(code, FrameError) else verifier.check(dataclasses.replace(seen, code=code))
            yield name, found


def _in_pictures(path: Path, decoders: Sequence[CodeDecoder]) -> Iterator[tuple[str, bytes | FrameError]]:
    """What each picture shows, with its name."""
    for frame in FileSource(path).frames():
        if isinstance(frame, FrameError):
            yield frame.component, frame
            continue
        for payload in payloads(frame, decoders):
            yield frame.name, payload


def _in_video(path: Path) -> list[tuple[str, bytes | FrameError]]:
    """What comes into view in a video, with the name of its first frame; NOTHING_READ when no frame shows a code."""
    found: list[tuple[str, bytes | FrameError]] = []
    hints: Counter[Hint | None] = Counter()
    frames = 0
    with Scanner(video(path), deduplicator=Deduplicator) as scanner, progress_bar() as progress:
        for event in scanner.events():
            if isinstance(event, CodeEvent):
                found.append((event.frame, event.code.payload or EMPTY_CODE))
            elif isinstance(event, FaultEvent):
                found.append((event.component, FrameError(event.component, event.problem)))
            elif isinstance(event, HintEvent):
                hints[event.hint] += 1
            else:
                frames = event.frames
                progress("frames", frames, event.total or MAX_FRAMES)
    if frames and all(isinstance(code, FrameError) for _, code in found):
        hint = hints.most_common(1)[0][0] if hints else None
        if hint is not None:
            problem(f"note: {HINTS[hint].en}")
        found.append((one_line(path.name), NOTHING_READ))
    return found


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
        view = verdict_view(result.verdict, now=result.now, language=self._language, credential=result.credential)
        picture = None if self._screens is None else save_screen(view, self._screens, result.check_id)
        similar = [display_text(plate) for plate in result.similar]
        if self._as_json:
            found = {**verdict_to_json(result.verdict), "similar": [plate.text for plate in result.similar]}
            more = {"vehicle": _vehicle(result.credential), "panel": str(picture) if picture is not None else None}
            print_json({**_head(name, result), **found, **more})
            return
        click.echo(terminal_card(view, colour=sys.stdout.isatty()))
        if similar:
            click.echo(f"{SIMILAR.in_(self._language)} {' '.join(similar)}")
        if picture is not None:
            click.echo(f"panel: {picture}")

    def _limited(self, name: str, result: CheckResult) -> None:
        answer = limited_answer(result.evidence, result.policy, result.now)
        if self._as_json:
            facts = {
                "answer": answer.answer.value,
                "month": str(answer.month) if answer.month else None,
                "as_of": answer.as_of.isoformat() if answer.as_of else None,
                "policy": answer.policy,
            }
            print_json({**_head(name, result), **facts})
            return
        for line in answer_lines(answer, self._role):
            click.echo(line.in_(self._language))


def _head(name: str, result: CheckResult) -> dict[str, Any]:
    return {"picture": name or None, "id": result.check_id, "at": result.now.isoformat()}


def _vehicle(proven: Credential | None) -> dict[str, str | None] | None:
    """What a proven credential says of the car's looks, by its codes."""
    if proven is None:
        return None
    return {"type": proven.vehicle_type, "colour": proven.body_colour, "use": proven.use_nature}


def save_screen(view: VerdictView, folder: Path, name: str) -> Path:
    """Show the view on a simulated panel through the real panel driver, and save what its glass shows as PNG."""
    glass = SimulatedPanel()
    panel = open_panel("ssd1309", glass)
    panel.show(render_verdict(view))
    image = glass.image()
    panel.close()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    image.resize((image.width * SCREEN_SCALE, image.height * SCREEN_SCALE)).save(path)
    return path
