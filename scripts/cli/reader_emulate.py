"""`markcheck reader emulate`: an emulated tag reader behind a pseudo-terminal."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click

from hw.rfid.emulator.device import ENGINES, EmulatedReader
from hw.rfid.emulator.faults import FaultKind
from hw.rfid.emulator.llrp_messages import greeting
from hw.rfid.emulator.port import PortEmulator, PtyPort
from hw.rfid.emulator.scene import SceneError
from hw.rfid.emulator.scene_file import fault_from_text, load_scene
from hw.rfid.emulator.tcp_port import TcpPort
from hw.rfid.llrp import PORT
from hw.rfid.models import MODELS
from hw.rfid.tcp import address_of
from scripts.cli.console import FILE

_STATUS_S = 10.0


@click.command(epilog="Kinds of faults: " + ", ".join(FaultKind) + ".")
@click.option("--protocol", type=click.Choice(sorted(ENGINES)), required=True, help="Family of the reader.")
@click.option(
    "--scene",
    "scene_file",
    type=FILE,
    required=True,
    help="Scene (TOML): tags, cars, radio and faults.",
)
@click.option(
    "--link",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Make a link to the port at this path.",
)
@click.option("--listen", metavar="HOST:PORT", help="Where an llrp reader listens.  [default: 127.0.0.1:5084]")
@click.option("--baud", type=click.IntRange(9_600, 921_600), help="Speed of the line.  [default: 115200]")
@click.option("--seed", type=click.IntRange(min=0), help="Play the scene with another seed.")
@click.option(
    "--faults", "fault_texts", multiple=True, metavar="KIND[@SECONDS][,NAME=VALUE...]", help="One more fault."
)
def emulate(
    protocol: str,
    scene_file: Path,
    link: Path | None,
    listen: str | None,
    baud: int | None,
    seed: int | None,
    fault_texts: tuple[str, ...],
) -> int:
    """Play a tag reader: open the path or the address it names as you would a real one's.

    \b
    Examples:
      markcheck reader emulate --protocol m100 --scene docs/examples/scene-roadside.toml --link /tmp/reader
      markcheck reader emulate --protocol a0 --scene docs/examples/scene-lanes.toml
      markcheck reader emulate --protocol gx --scene docs/examples/scene-roadside.toml --baud 921600
      markcheck reader emulate --protocol llrp --scene docs/examples/scene-lanes.toml --listen 127.0.0.1:5084
      markcheck reader emulate --protocol m100 --scene scene.toml --faults unplug@10,seconds=3
      markcheck reader emulate --protocol m100 --scene scene.toml --faults bit_flip,rate=0.001 --faults lost_ack

    The line has its real speed and its buffers run over, and a host may close and open the port as often as it
    likes; the scene begins when it first does. Nothing can be written into the tags. Ctrl-C ends it and takes the
    link away. The settings of a fault are those of the tables `fault` in a scene.
    """
    try:
        faults = tuple(fault_from_text(text) for text in fault_texts)
    except SceneError as exc:
        raise click.UsageError(f"--faults: {exc.problem}") from exc
    scene = load_scene(scene_file)
    scene = replace(scene, faults=scene.faults + faults, seed=scene.seed if seed is None else seed)
    in_network = MODELS[protocol].in_network
    if (link or baud) if in_network else listen:
        raise click.UsageError("--listen is for llrp readers, --link and --baud for all others")
    port = _tcp_port(listen or "127.0.0.1") if in_network else PtyPort(link)
    reader = EmulatedReader(protocol, scene, paced=not in_network)
    if baud is not None:
        reader.engine.baud = baud
    emulator = PortEmulator(reader, port)
    speed = "" if in_network else f", {reader.engine.baud} baud"
    click.echo(f"{protocol} reader at {emulator.port.path}{speed}; Ctrl-C ends it")
    try:
        with _stopped_by_signals() as stop:
            emulator.run(time.monotonic, stop, _teller(emulator))
    finally:
        emulator.port.unplug()
    click.echo(status_line(emulator))
    return 0


def _tcp_port(listen: str) -> TcpPort:
    try:
        return TcpPort(*address_of(listen, PORT), greeting)
    except ValueError as exc:
        raise click.UsageError(f"--listen: {exc}") from exc


def status_line(emulator: PortEmulator) -> str:
    """What the emulator has done so far, on one line."""
    figures = emulator.reader.figures
    parts = [
        f"port {emulator.state}", f"{figures.commands} commands", f"{figures.reads} reads",
        f"{figures.frames} frames", f"{figures.bytes_sent} bytes", f"{figures.dropped + emulator.port.lost} lost",
        f"{figures.junk} junk bytes heard", f"{figures.faults} faults",
    ]  # fmt: skip
    return ", ".join(parts)


def _teller(emulator: PortEmulator) -> Callable[[float], None]:
    """Says something every now and then, when there is something new to say."""
    due, last = _STATUS_S, ""

    def told(now: float) -> None:
        nonlocal due, last
        if now >= due:
            due, line = now + _STATUS_S, status_line(emulator)
            if line != last:
                click.echo(f"{now:6.0f} s  {line}", err=True)
            last = line

    return told


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; their former handlers come back afterwards."""
    stop = threading.Event()
    former = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
