"""`markcheck checkpoint`: check every car that passes a tag reader, and speak up only on a finding."""

from __future__ import annotations

import json
import queue
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from firmware.build import build_device
from firmware.checkpoint import Checkpoint, Counts, WatchList
from firmware.config import Home
from firmware.machine.events import Alarm, Event, PartFault
from firmware.tags import TC1_WORDS, Field, TagThread
from firmware.views import printable
from hw.rfid.driver import Driver
from hw.rfid.models import MODELS
from hw.rfid.types import AirProtocol, RadioConfig
from scripts.cli.console import FILE, home_option, json_option, print_json, problem, progress_bar
from scripts.cli.erasing import unless_erased
from verifier.clock import system_clock
from verifier.errors import PlateError
from verifier.plates import display_text, parse_plate
from verifier.types import SHANGHAI, Plate, Source, WatchHit
from verifier.vehicle_words import vehicle_words
from verifier.wording import REASONS, TAG_LEVELS, VERDICTS, Language

POLL_S = 0.2
PLATE_COLUMNS = 12
MAX_LIST = 4 * 1024 * 1024  # bytes
MAX_WATCHED = 100_000  # plates


@click.command()
@click.option("--protocol", type=click.Choice(sorted(MODELS)), required=True, help="Family of the reader.")
@click.option("--port", type=click.Path(path_type=Path), help="Serial port, or HOST[:PORT].")
@click.option("--baud", type=click.IntRange(9_600, 921_600), help="Speed of the line.  [default: 115200]")
@click.option("--power", type=float, default=30.0, show_default=True, help="Power in dBm.")
@click.option("--antenna", "antennas", type=click.IntRange(1, 32), multiple=True, help="Antenna of a lane, in order.")
@click.option(
    "--air",
    type=click.Choice([air.value for air in AirProtocol]),
    default=AirProtocol.GEN2.value,
    show_default=True,
    help="Of the tags.",
)
@click.option("--watch-list", type=FILE, help="Plates to look for here (JSON).")
@click.option("--seconds", type=click.FloatRange(min=0.1), help="End by itself.")
@click.option("--lang", type=click.Choice(["zh", "en"]), default="zh", show_default=True, help="Language.")
@click.option("--simulate", is_flag=True, help="Made-up traffic before an emulated reader instead of a port.")
@click.option("--vehicles", type=click.IntRange(40, 20_000), default=1000, show_default=True, help="Simulated.")
@click.option("--lanes", type=click.IntRange(3, 4), default=4, show_default=True, help="Simulated.")
@click.option("--speed", type=click.FloatRange(5, 200), default=120.0, show_default=True, help="Simulated, in km/h.")
@click.option(
    "--headway", type=click.FloatRange(0.5, 60), default=1.0, show_default=True, help="Simulated, seconds in a lane."
)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of the simulated traffic.")
@json_option
@home_option
def checkpoint(
    protocol: str, port: Path | None, simulate: bool, as_json: bool, home: Home, lang: Language, **given: Any
) -> int:
    """Check every car that passes a tag reader; only a finding is told.

    \b
    Examples:
      markcheck checkpoint --protocol a0 --port /dev/ttyUSB0 --antenna 1 --antenna 2
      markcheck checkpoint --protocol gx --port /dev/ttyUSB0 --json
      markcheck checkpoint --protocol llrp --port 192.0.2.7 --antenna 1 --antenna 2
      markcheck checkpoint --protocol a0 --port /dev/ttyUSB0 --watch-list tonight.json
      markcheck checkpoint --protocol a0 --simulate             1,000 cars on four lanes at 120 km/h

    The data on this device decide; the network is never waited for. Every car is recorded before it is told of. Ctrl-C
    ends it, and so does the erasing of the device. A reader that can reads TID and certificate along, 63 times a second
    at 115200 baud; otherwise a tag is known by its EPC alone, and one that names no plate is counted as unchecked. A
    watch list is {"as_of": TIME, "plates": [{"plate": ..., "plate_kind": ..., "kind": ...}]}.

    Exit status: 1 when the reader was never there, or the device was erased; with --simulate, when the alarms are not
    exactly the planted cars.
    """
    if simulate:
        return _simulated(protocol, as_json, given)
    if port is None:
        raise click.UsageError("give --port, or --simulate")
    return _Run(home, _Output(as_json, lang), given).over(protocol, port)


class _Output:
    """Tells of alarms and faults, one line each."""

    def __init__(self, as_json: bool, lang: Language) -> None:
        self._as_json, self._lang = as_json, lang

    def alarm(self, alarm: Alarm, at: datetime) -> None:
        result, tag = alarm.result, alarm.result.evidence.tag
        verdict, suspicions = result.verdict, tag.suspicions if tag else ()
        if self._as_json:
            print_json(
                {
                    "event": "alarm", "at": at.isoformat(), "lane": alarm.lane, "check": result.check_id,
                    "verdict": verdict.code.value, "tone": verdict.tone.value, "grade": verdict.grade.value,
                    "plate": verdict.plate and verdict.plate.text, "plate_kind": verdict.plate and verdict.plate.kind,
                    "reasons": [reason.value for reason in verdict.reasons],
                    "vehicle": tag and {"type": tag.vehicle_type, "colour": tag.body_colour},
                    "tag_level": tag and int(tag.level), "suspicions": [suspicion.value for suspicion in suspicions],
                    "remarks": list(result.remarks),
                }
            )  # fmt: skip
            return
        plate = "--" if verdict.plate is None else printable(display_text(verdict.plate), PLATE_COLUMNS)
        words = [VERDICTS[verdict.code].text.in_(self._lang)]
        words += [REASONS[reason].in_(self._lang) for reason in verdict.reasons]
        words += [looks.in_(self._lang) for _, looks in vehicle_words(None, None, tag)]
        level = "" if tag is None else TAG_LEVELS[tag.level].in_(self._lang)
        clock = at.astimezone(SHANGHAI).strftime("%H:%M:%S")
        click.echo("  ".join([clock, f"{alarm.lane}", plate, *words, level, *suspicions]))
        for remark in result.remarks:
            problem(remark)

    def fault(self, text: str) -> None:
        if self._as_json:
            print_json({"event": "reader", "problem": text})
        else:
            problem(f"tag reader: {text}" if text else "tag reader: works again")

    def counts(self, counts: Counts) -> None:
        values = {name: getattr(counts, name) for name in ("vehicles", "alarms", "unchecked", "suspects")}
        if self._as_json:
            print_json({"event": "counts", **values})
        else:
            click.echo(", ".join(f"{value} {name}" for name, value in values.items()))


class _Run:
    """A checkpoint until Ctrl-C."""

    def __init__(self, home: Home, output: _Output, given: dict[str, Any]) -> None:
        self._home, self._output, self._given = home, output, given
        self._counts = Counts()
        self._queue: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def over(self, protocol: str, port: Path) -> int:
        """Watch the lanes; the exit status."""
        given, model = self._given, MODELS[protocol]
        line = model.line(port, given["baud"] or model.baudrate, None)
        radio = RadioConfig(power_dbm=given["power"])
        field = Field(
            antennas=given["antennas"] or (1,), air=AirProtocol(given["air"]), user_words=TC1_WORDS
        )  # fmt: skip
        watch_list = None if given["watch_list"] is None else load_watch_list(given["watch_list"])
        with unless_erased(self._home) as look:
            thread = self._watch(lambda: model.driver(line, radio, reader_id=protocol), field, watch_list, look)
        self._tell_rest()
        self._output.counts(self._counts)
        return 0 if thread.opened else 1

    def _watch(
        self, driver: Callable[[], Driver], field: Field, watch_list: WatchList | None, look: Callable[[], None]
    ) -> TagThread:
        """Until the time is over or Ctrl-C, or what `look` raises."""
        device = build_device(self._home, system_clock)
        verifier = device.verifier

        def made(with_memory: bool) -> Checkpoint:
            fresh = Checkpoint(verifier.check, verifier.look_at, watch_list=watch_list, with_memory=with_memory)
            fresh.counts = self._counts  # goes on where the one before the reader was lost ended
            return fresh

        thread = TagThread(driver, self._queue.put, verifier.look_at, made, field=field)
        thread.start()
        thread.watch(on=True)
        try:
            self._told(self._given["seconds"], look)
        finally:
            thread.close()
            device.store.close()
        return thread

    def _told(self, seconds: float | None, look: Callable[[], None]) -> None:
        """Tell until the time is over or Ctrl-C, or what `look` raises."""
        end = None if seconds is None else time.monotonic() + seconds
        try:
            while end is None or time.monotonic() < end:
                look()
                with suppress(queue.Empty):
                    self._tell(self._queue.get(timeout=POLL_S))
        except KeyboardInterrupt:
            click.echo(err=True)

    def _tell_rest(self) -> None:
        while not self._queue.empty():
            self._tell(self._queue.get())

    def _tell(self, event: Event) -> None:
        if isinstance(event, Alarm):
            self._output.alarm(event, system_clock())
        elif isinstance(event, PartFault):
            self._output.fault(event.problem)


# ------------------------------------------------------------------------------------------- the watch list


def load_watch_list(path: Path) -> WatchList:
    """What a list for this place says of a plate; UsageError names the first entry that cannot be used."""
    try:
        if path.stat().st_size > MAX_LIST:
            raise click.UsageError("--watch-list: too large")
        raw = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as exc:
        raise click.UsageError("--watch-list: not JSON") from exc
    entries = raw.get("plates") if isinstance(raw, dict) else None
    if not isinstance(entries, list) or len(entries) > MAX_WATCHED:
        raise click.UsageError('--watch-list: not {"as_of": ..., "plates": [...]}')
    listed: dict[str, list[tuple[Plate, WatchHit]]] = {}
    for number, entry in enumerate(entries):
        plate, hit = _entry(raw.get("as_of"), entry, number)
        listed.setdefault(plate.text, []).append((plate, hit))
    return lambda plate: _hits(listed.get(plate.text, ()), plate)


def _entry(as_of: object, entry: object, number: int) -> tuple[Plate, WatchHit]:
    fields = entry if isinstance(entry, dict) else {}
    try:
        plate = parse_plate(str(fields["plate"]), fields.get("plate_kind"))
        kind = str(fields.get("kind", "watch"))[:40]
        hit = WatchHit(basis=Source.TAG, kind=kind, as_of=_with_zone(datetime.fromisoformat(str(as_of))))
    except (PlateError, KeyError, ValueError, TypeError) as exc:
        raise click.UsageError(f"--watch-list: entry {number}, or as_of, cannot be used") from exc
    return plate, hit


def _with_zone(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return moment


def _hits(listed: Iterable[tuple[Plate, WatchHit]], plate: Plate) -> tuple[WatchHit, ...]:
    return tuple(hit for of, hit in listed if of.kind is None or plate.kind is None or of.kind == plate.kind)


# ------------------------------------------------------------------------------------------- made-up traffic


def _simulated(protocol: str, as_json: bool, given: dict[str, Any]) -> int:
    from scripts.bench import lane as lanes  # noqa: PLC0415 - brings the sandbox and the emulators along
    from scripts.bench.figures import Verdict  # noqa: PLC0415 - likewise

    if protocol not in lanes.FORMS:
        raise click.UsageError(f"--simulate: {' or '.join(lanes.FORMS)}; other readers have one antenna")
    traffic = lanes.Traffic(
        vehicles=given["vehicles"], lanes=given["lanes"], speed_kmh=given["speed"], headway_s=given["headway"],
        seed=given["seed"],
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="markcheck-lane-") as folder, progress_bar() as progress:
        lane = lanes.build_lane(Path(folder), traffic, lanes.FORMS[protocol])
        run = lanes.simulate(lane, protocol, progress)
    found = list(lanes.figures(lane, run))
    if as_json:
        for figure in found:
            print_json({"name": figure.name, "measured": figure.measured, "verdict": figure.verdict.value})
    else:
        _table(lane.traffic, lanes.kinds_of_alarms(lane, run), [(f.name, f.measured, f.verdict) for f in found])
    return 1 if any(figure.verdict is Verdict.MISSED for figure in found) else 0


def _table(traffic: Any, kinds: list[str], rows: list[tuple[str, str, str]]) -> None:
    click.echo(
        f"{traffic.vehicles} vehicles, {traffic.lanes} lanes, {traffic.speed_kmh:g} km/h, {traffic.headway_s:g} s, "
        f"a tag is heard in {100 * traffic.read_probability:.0f} % of an antenna's rounds"
    )
    for kind in kinds:
        click.echo(f"  {kind}")
    for name, measured, verdict in rows:
        click.echo(f"{name:44}{measured:52}{verdict}")
