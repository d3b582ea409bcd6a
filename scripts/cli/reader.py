"""`markcheck reader`: talk to a tag reader, look at its bytes, record and replay them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from hw.rfid.driver import Driver
from hw.rfid.explain import Explainer, explain
from hw.rfid.models import MODELS
from hw.rfid.tracker import Arrived, Left, Tracker
from hw.rfid.traffic import Traffic, TrafficError, TrafficWriter
from hw.rfid.transport import Tap, monotonic_tap
from hw.rfid.types import (
    MAX_EPC_BYTES,
    AirProtocol,
    Bank,
    Event,
    Gap,
    InventoryConfig,
    RadioConfig,
    RoundEnd,
    Selector,
    TagRead,
)
from scripts.cli.console import FILE, F, json_option, print_json


class _Reader(click.Group):
    """A group with one command that is loaded only when it is asked for: it brings the emulators along."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, sorted."""
        return sorted([*super().list_commands(ctx), "emulate"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, None when there is none."""
        if cmd_name != "emulate":
            return super().get_command(ctx, cmd_name)
        command = import_module("scripts.cli.reader_emulate").emulate
        return command if isinstance(command, click.Command) else None


@click.group(cls=_Reader)
def reader() -> None:
    """A tag reader on a serial port, or in the network (llrp): ask it, read tags, look at its bytes.

    \b
    Examples:
      markcheck reader identify --protocol m100 --port /dev/ttyUSB0
      markcheck reader inventory --protocol m100 --port /dev/ttyUSB0 --seconds 5
      markcheck reader decode --protocol m100 bb02220011c83400e20010710000529b0940b402163dd37e
      markcheck reader emulate --help
    """


def _protocol_option(function: F) -> F:
    return click.option("--protocol", type=click.Choice(sorted(MODELS)), required=True, help="Family of the reader.")(
        function
    )


_PORT_OPTIONS: tuple[Callable[[F], F], ...] = (
    json_option,
    click.option("--power", type=float, default=20.0, show_default=True, help="Power in dBm."),
    click.option("--baud", type=click.IntRange(9_600, 921_600), help="Speed of the line.  [default: 115200]"),
    _protocol_option,
    click.option("--port", type=click.Path(path_type=Path), required=True, help="Serial port, or HOST[:PORT]."),
)


def _port_options(function: F) -> F:
    """--port, --protocol, --baud, --power, --json."""
    return reduce(lambda wrapped, option: option(wrapped), _PORT_OPTIONS, function)


_scan_options: tuple[Callable[[F], F], ...] = (
    click.option("--tid", type=click.IntRange(0, 32), default=0, help="Words of TID to read with every tag."),
    click.option(
        "--antenna",
        "antennas",
        type=click.IntRange(1, 32),
        multiple=True,
        default=(1,),
        help="Antenna; may be repeated.",
    ),
    click.option(
        "--air",
        type=click.Choice([air.value for air in AirProtocol]),
        default=AirProtocol.GEN2.value,
        show_default=True,
        help="Air protocol of the tags.",
    ),
    click.option("--seconds", type=click.FloatRange(0, 86_400), default=5.0, show_default=True, help="How long."),
)


def _scanning(function: F) -> F:
    """--seconds, --air, --antenna, --tid."""
    return reduce(lambda wrapped, option: option(wrapped), _scan_options, function)


@contextmanager
def _opened(port: Path, protocol: str, baud: int | None, power: float, tap: Tap | None = None) -> Iterator[Driver]:
    model = MODELS[protocol]
    line = model.line(port, baud or model.baudrate, tap)
    with model.driver(line, RadioConfig(power_dbm=power), reader_id=protocol) as driver:
        yield driver


@reader.command()
@_port_options
def identify(port: Path, protocol: str, baud: int | None, power: float, as_json: bool) -> None:
    """Who is there, what it can, and the band and power it confirms.

    \b
    Examples:
      markcheck reader identify --protocol a0 --port /dev/ttyUSB0 --json
    """
    with _opened(port, protocol, baud, power) as driver:
        caps = driver.identify()
        told = {**asdict(caps), "region": driver.get_region(), "power_dbm": driver.get_power()}
    if as_json:
        print_json(told)
        return
    for name, value in told.items():
        click.echo(f"{name:18} {', '.join(map(str, value)) if isinstance(value, tuple) else value}")


@reader.command()
@_scanning
@click.option("--track", is_flag=True, help="Tell of tags that arrive and leave instead of every read.")
@_port_options
def inventory(
    port: Path, protocol: str, baud: int | None, power: float, as_json: bool, track: bool, seconds: float, **scan: Any
) -> None:
    """Read tags continuously.

    \b
    Examples:
      markcheck reader inventory --protocol m100 --port /dev/ttyUSB0 --seconds 5
      markcheck reader inventory --protocol a0 --port /dev/ttyUSB0 --antenna 1 --antenna 2 --track --json
      markcheck reader inventory --protocol gx --port /dev/ttyUSB0 --air gb29768 --tid 6
    """
    tracker = Tracker() if track else None
    with _opened(port, protocol, baud, power) as driver:
        for event in _events(driver, seconds, _config(**scan)):
            for fields in _shown(event, tracker):
                _tell(fields, as_json)
        if tracker:
            for left in tracker.tick(time.monotonic_ns() + int(1e12)):
                _tell(_passing(left), as_json)
        health = driver.health()
    _tell({"event": "health", **asdict(health)}, as_json)


@reader.command()
@_scanning
@click.option("--epc", help="Read the memory of the tag with this EPC (hex) instead.")
@click.option(
    "--bank",
    type=click.Choice([bank.name.lower() for bank in Bank]),
    default="tid",
    show_default=True,
    help="With --epc: which of its memories.",
)
@click.option("--word", type=click.IntRange(0, 0xFFFF), default=0, show_default=True, help="First word.")
@click.option("--count", type=click.IntRange(1, 64), default=4, show_default=True, help="Words of 16 bits.")
@_port_options
def read(
    port: Path, protocol: str, baud: int | None, power: float, as_json: bool, epc: str | None, bank: str, word: int,
    count: int, seconds: float, **scan: Any,
) -> int:  # fmt: skip
    """The tags in the field, once; or words of one tag's memory. Exit status 1 when there is no tag.

    \b
    Examples:
      markcheck reader read --protocol m100 --port /dev/ttyUSB0 --seconds 1
      markcheck reader read --protocol gx --port /dev/ttyUSB0 --epc e28011606000 --bank user --count 32
    """
    selected = _selector(epc, scan["air"])
    with _opened(port, protocol, baud, power) as driver:
        if selected:
            words = driver.read_memory(selected, Bank[bank.upper()], word, count)
            _tell({"event": "memory", "epc": words.epc_echo.hex(), "bank": bank, "data": words.data.hex()}, as_json)
            return 0
        reads = driver.read_once(seconds, _config(**scan))
    for tag in reads:
        _tell(_read_fields(tag), as_json)
    return 0 if reads else 1


@reader.command()
@_scanning
@_port_options
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def record(
    port: Path, protocol: str, baud: int | None, power: float, as_json: bool, seconds: float, file: Path, **scan: Any
) -> None:
    """Write all traffic of an inventory to FILE, with time and direction.

    \b
    Examples:
      markcheck reader record --protocol m100 --port /dev/ttyUSB0 --seconds 5 traffic.jsonl
    """
    reads = 0
    with (
        TrafficWriter(file, protocol, baud or MODELS[protocol].baudrate) as writer,
        _opened(port, protocol, baud, power, monotonic_tap(writer.write)) as driver,
    ):
        for event in _events(driver, seconds, _config(**scan)):
            reads += isinstance(event, TagRead)
    _tell({"event": "recorded", "file": file.name, "reads": reads}, as_json)


@reader.command()
@click.argument("file", type=FILE)
def replay(file: Path) -> None:
    """Decode recorded traffic: one JSON object a line for each frame, in both directions.

    \b
    Examples:
      markcheck reader replay traffic.jsonl
    """
    traffic = Traffic(file)
    if traffic.protocol not in MODELS:
        raise TrafficError("line 1: unknown protocol")
    explainers = {side: Explainer(MODELS[traffic.protocol].codec()) for side in ("in", "out")}
    for chunk in traffic.chunks():
        for fields in explainers[chunk.direction].feed(chunk.data, chunk.seconds):
            print_json({"t": chunk.seconds, "dir": chunk.direction, **fields})
    for side, explainer in explainers.items():
        for fields in explainer.finish():
            print_json({"dir": side, **fields})


@reader.command()
@_protocol_option
@click.argument("text", metavar="HEX")
def decode(protocol: str, text: str) -> int:
    """What the bytes say: one JSON object a line for each frame, or why and where bytes were refused.

    \b
    Examples:
      markcheck reader decode --protocol m100 bb01ff000115167e
      markcheck reader decode --protocol a0 "a0 05 01 72 01 09 de"

    Exit status: 0 when every byte belongs to a good frame, 1 when not.
    """
    try:
        data = bytes.fromhex(text)
    except ValueError as exc:
        raise click.UsageError("HEX: not hexadecimal bytes") from exc
    found = list(explain(MODELS[protocol].codec(), data))
    for fields in found:
        print_json(fields)
    return 1 if not found or any("refused" in fields for fields in found) else 0


def _config(air: str, antennas: tuple[int, ...], tid: int) -> InventoryConfig:
    return InventoryConfig(protocol=AirProtocol(air), antennas=antennas, tid=tid)


def _selector(epc: str | None, air: str) -> Selector | None:
    try:
        code = None if epc is None else bytes.fromhex(epc)
    except ValueError as exc:
        raise click.UsageError("--epc: not hexadecimal bytes") from exc
    if code is not None and (len(code) > MAX_EPC_BYTES or len(code) % 2):
        raise click.UsageError(f"--epc: whole words, at most {MAX_EPC_BYTES} bytes")
    return None if code is None else Selector(code, AirProtocol(air))


def _events(driver: Driver, seconds: float, config: InventoryConfig) -> Iterator[Event]:
    end = time.monotonic() + seconds
    with driver.inventory(config) as scan:
        while (left := end - time.monotonic()) > 0:
            event = scan.poll(min(left, 0.2))
            if event is not None:
                yield event
    yield from scan


def _shown(event: Event, tracker: Tracker | None) -> list[dict[str, Any]]:
    """What is told of an event: reads and gaps; with a tracker passings and gaps."""
    if isinstance(event, Gap):
        return [{"event": "gap", **event._asdict()}]
    if isinstance(event, RoundEnd):
        return [_passing(left) for left in tracker.tick(time.monotonic_ns())] if tracker else []
    return [_passing(seen) for seen in tracker.see(event)] if tracker else [_read_fields(event)]


def _read_fields(read: TagRead) -> dict[str, Any]:
    fields = {name: value for name, value in read._asdict().items() if value is not None}
    hexed = {name: value.hex() for name, value in fields.items() if isinstance(value, bytes)}
    return {"event": "read", **fields, **hexed, "pc": f"{read.pc:04x}", "wall": read.wall.isoformat()}


def _passing(seen: Arrived | Left) -> dict[str, Any]:
    passing = seen.passing
    return {
        "event": "arrived" if isinstance(seen, Arrived) else "left",
        "protocol": passing.first.protocol, "epc": passing.first.epc.hex(),
        "tid": passing.first.tid.hex() if passing.first.tid else None,
        "reads": passing.count, "seconds": round(passing.seconds, 3), "lane": passing.lane,
        "peak_dbm": passing.peak_dbm, "alert": isinstance(seen, Arrived) and seen.alert,
    }  # fmt: skip


def _tell(fields: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(fields)
    else:
        click.echo("  ".join(f"{value}" if name == "event" else f"{name} {value}" for name, value in fields.items()))
