"""Puts the program of the handheld together from its settings, runs it, and takes it apart again.

A part that is missing or fails at the start is a banner, never a block: checks by whatever is left go on.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import TYPE_CHECKING

from firmware import diagnostics, probes
from firmware.alive import DiskCheck, Notifier, Watchdog
from firmware.app import Draw, Panel, Parts, Program, monotonic_ms
from firmware.build import Device, audit_log, build_device, device_context, epoch_key, software_version, trusted_time
from firmware.cameras import camera_source
from firmware.checks import RunChecks
from firmware.config import Home, default_home
from firmware.draw import draw
from firmware.eyes import CAMERA, ENGINE, IDLE_S, Eyes, Trigger
from firmware.fault_frames import FaultFrames
from firmware.jobs import Running, SyncProcess
from firmware.machine import states as st
from firmware.machine.events import PartFault
from firmware.machine.states import State, Status
from firmware.probes import Probing
from firmware.scanner import Scanner, ScanSource
from firmware.settings import KeySettings, Settings, SoundSettings
from hw.buttons.keys import Key
from hw.errors import HardwareError
from hw.interfaces import CameraSettings
from verifier.audit import CheckContext
from verifier.check import Verifier
from verifier.clock import Clock, system_clock
from verifier.codec.credential import decode, parse_claims
from verifier.errors import CodeError, PlateError
from verifier.plates import display_text

if TYPE_CHECKING:
    from gpiozero import Factory

    from firmware.tags import TagThread
    from hw.sound.gpio import SoundPins
    from verifier.trusted_time import TrustedTime

DONE, FAILED, INTERRUPTED = 0, 1, 130
LIMITS_MS = {"ui": 2_000, "scanner": 15_000, "disk": 90_000}  # how old the last sign of each may be
_SWITCH_OFF = ("systemctl", "poweroff")

Closer = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What stands in place of parts: for the terminal, the demo page and tests.

    `attach` is given the program when it stands, and returns what ends the keys that it brings. `pins` is a gpiozero
    factory. `play` hears the signals when no outputs are set. `notified` is the environment with NOTIFY_SOCKET.
    """

    attach: Callable[[Program], Closer] | None = None
    pins: Factory | None = None
    play: Callable[[str], None] | None = None
    clock: Clock = system_clock
    now_ms: Callable[[], int] = monotonic_ms
    draw: Draw = draw
    source: ScanSource | None = None
    notified: Mapping[str, str] | None = None


class Ending:
    """The word that it is over, and the exit status: it may come from anywhere, and before the program stands."""

    def __init__(self) -> None:
        self.status: int | None = None
        self._stop: Callable[[], None] = lambda: None

    def say(self, status: int) -> None:
        """End with this status; the first word counts. From any thread, and from a signal's handler."""
        if self.status is None:
            self.status = status
        self._stop()

    def stops(self, program: Program) -> None:
        """This program ends by the word, at once if it was said already."""
        self._stop = program.stop
        if self.status is not None:
            program.stop()


@dataclass(slots=True)
class Appliance:
    """The program with everything around it. `run` from the thread that shall own it; `close` afterwards."""

    program: Program
    parts: Parts
    probing: Probing
    notifier: Notifier
    ending: Ending
    stack: ExitStack

    def begin(self) -> None:
        """The first facts, the first page, and the word to the service manager."""
        self.program.begin(self.parts)
        self.probing.start()
        while isinstance(self.program.state.page, st.Boot) and not self.program.over:
            self.program.turn()
        if not self.program.over:
            self.notifier.tell("READY=1")

    def run(self) -> None:
        """Until it is over."""
        self.begin()
        self.program.run()

    def end(self, status: int) -> None:
        """End with this exit status; from any thread."""
        self.ending.say(status)

    @property
    def switched_off(self) -> bool:
        """Whether the officer, or the battery, has switched it off."""
        return isinstance(self.program.state.page, st.Off)

    def close(self) -> None:
        """Everything on the disk, every part but the panel let go; harmless twice."""
        self.notifier.tell("STOPPING=1")
        self.stack.close()


def run_program(
    settings: Settings, remark: str, panel: Panel, inputs: Inputs | None, *, config: Path, home: Path | None
) -> int:
    """Build, run and close: the exit status, as `firmware.start.start` tells it."""
    ending, switched_off = Ending(), False
    with _watched(ending):
        appliance = build_program(
            settings, panel, inputs or Inputs(), config=config, home=home, remark=remark, ending=ending
        )
        try:
            appliance.run()
        finally:
            appliance.close()
            switched_off = appliance.switched_off
            panel.close(keep_picture=switched_off)  # "safe to unplug" stays
    if switched_off and settings.device.switch_off == "machine":
        return _power_off()
    return ending.status or DONE


def _power_off() -> int:
    try:
        return subprocess.run(_SWITCH_OFF, check=False).returncode and FAILED  # noqa: S603 - our own words
    except OSError as exc:
        print(f"markcheck: {_SWITCH_OFF[0]}: {exc.strerror}", file=sys.stderr)
        return FAILED


@contextmanager
def _watched(ending: Ending) -> Iterator[None]:
    """^C and SIGTERM end the program in good order; so does a thread that dies of a mistake of ours: the service
    manager starts the program anew, which is better than a handheld that has gone half deaf."""

    def died(args: threading.ExceptHookArgs) -> None:
        place = traceback.extract_tb(args.exc_traceback)[-1] if args.exc_traceback else None
        told = f" in {Path(place.filename).name}, line {place.lineno}" if place else ""
        name = args.thread.name if args.thread else "?"
        print(f"markcheck: our mistake: {args.exc_type.__name__}{told} (thread {name})", file=sys.stderr)
        ending.say(FAILED)

    def ended(number: int, _: FrameType | None) -> None:
        ending.say(INTERRUPTED if number == signal.SIGINT else DONE)

    hook, threading.excepthook = threading.excepthook, died
    mine = threading.current_thread() is threading.main_thread()
    former = {number: signal.signal(number, ended) for number in (signal.SIGINT, signal.SIGTERM) if mine}
    try:
        yield
    finally:
        threading.excepthook = hook
        for number, handler in former.items():
            signal.signal(number, handler)


# ------------------------------------------------------------------------------------------- putting together


def build_program(
    settings: Settings,
    panel: Panel,
    inputs: Inputs,
    *,
    config: Path,
    home: Path | None,
    remark: str = "",
    ending: Ending | None = None,
) -> Appliance:
    """The program with the parts that the settings name. Relative files of the settings are beside `config` or in the
    home; a home that is given goes before the one in the settings."""
    house = Home(home or (Path(settings.paths.home).expanduser() if settings.paths.home else default_home()))
    with suppress(OSError):  # told by the check of the disk
        house.folder.mkdir(parents=True, exist_ok=True)
    notifier = Notifier() if inputs.notified is None else Notifier(inputs.notified)
    watchdog = Watchdog(notifier.tell, LIMITS_MS)

    def beat(now_ms: int) -> None:
        watchdog.sign("ui", now_ms)
        watchdog.feed(now_ms)

    program = Program(
        draw=inputs.draw, wall=inputs.clock, now_ms=inputs.now_ms, state=_first_state(settings), beat=beat
    )
    if remark:
        program.post(PartFault("settings", remark))
    ending = ending or Ending()
    ending.stops(program)
    with ExitStack() as stack:  # what is there already is let go when the rest cannot be made
        stack.callback(notifier.close)
        builder = _Builder(settings, inputs, program, watchdog, stack, house, config.parent)
        parts, probing = builder.build(panel)
        return Appliance(program, parts, probing, notifier, ending, stack.pop_all())


def _first_state(settings: Settings) -> State:
    device = settings.device
    about = (software_version(), *((device.name,) if device.name else ()))
    return State(language=device.language, province=device.province, status=Status(demo=device.demo, about=about))


@dataclass(slots=True)
class _Builder:
    """Makes one part after the other, and remembers how to let each go."""

    settings: Settings
    inputs: Inputs
    program: Program
    watchdog: Watchdog
    stack: ExitStack
    home: Home
    beside: Path
    tests: dict[str, diagnostics.Test] = field(default_factory=dict)

    def build(self, panel: Panel) -> tuple[Parts, Probing]:
        """Eyes first: their process takes longest until it is ready."""
        eyes = self._eyes()
        device = build_device(self.home, self.inputs.clock, context=self._context())
        self.stack.callback(device.store.close)
        time_known = trusted_time(self.home, self.inputs.clock)
        checks = self._checks(device)
        self._engine()
        tags = self._reader(device)
        play = self._sound()
        probing = self._probing(device, time_known)
        self._disk()
        self._keys()
        self._tests(device, time_known)
        return Parts(checks=checks, jobs=self._jobs(), panel=panel, eyes=eyes, tags=tags, play=play), probing

    def _context(self) -> Callable[[], CheckContext]:
        """Who checks with which device, and what the officer is at."""
        device = device_context(self.home, self.inputs.clock)
        return lambda: replace(device(), mode=self.program.state.mode.value)

    def _eyes(self) -> Eyes | None:
        camera = self.settings.camera
        source = self.inputs.source
        if source is None:
            if camera.kind == "none":
                return None
            source = camera_source(camera.kind, self._camera_path(), camera.lamp)
        faults = FaultFrames(self.home.folder / "fault-frames")
        scanner = Scanner(source, fault_frames=faults, spare=camera.spare)
        eyes = Eyes(
            scanner, self.program.post, label=mark_label,
            zoom=lambda on: scanner.adjust(CameraSettings(zoom=on)),
            alive=lambda: self.watchdog.sign("scanner", self.inputs.now_ms()),
        )  # fmt: skip
        self.stack.callback(eyes.close)
        self.tests[CAMERA] = diagnostics.camera(lambda: eyes.frame_s, time.monotonic, 3 * IDLE_S)
        return eyes

    def _camera_path(self) -> str:
        """A picture or video by its whole path; numbers and devices as they stand."""
        camera = self.settings.camera
        if camera.kind in ("window", "video", "files") and camera.path:
            return str(self._file(camera.path))
        return camera.path

    def _file(self, name: str) -> Path:
        path = self.beside / name
        return path if path.exists() else self.home.folder / name

    def _checks(self, device: Device) -> RunChecks:
        checks = RunChecks(device.verifier, self.program.post)
        self.stack.callback(checks.close)
        if device.online is not None:
            checks.with_centre(device.online.centre, device.online.late)
            device.online.prepare()
            over, upkeep = threading.Event(), device.online.upkeep
            threading.Thread(target=upkeep.run, args=(over,), name="upkeep", daemon=True).start()
            self.stack.callback(over.set)
        return checks

    def _engine(self) -> None:
        barcode = self.settings.barcode
        if not barcode.port:
            return
        from firmware.scan_engine import EngineScanner  # noqa: PLC0415 - loads pyserial, where there is an engine
        from hw.barcode import BarcodeEngine, serial_port  # noqa: PLC0415

        engine = EngineScanner(BarcodeEngine(serial_port(Path(barcode.port), barcode.baud)))
        self.stack.callback(Trigger(engine, self.program.post, label=mark_label).close)
        self._watch(ENGINE)

    def _reader(self, device: Device) -> TagThread | None:
        reader = self.settings.reader
        if not (reader.port or reader.scene):
            return None
        from firmware.checkpoint import Checkpoint  # noqa: PLC0415 - loads pyserial and drivers, where there is a reader
        from firmware.tags import Field, TagThread  # noqa: PLC0415
        from hw.rfid.models import MODELS  # noqa: PLC0415
        from hw.rfid.transport import serial_line  # noqa: PLC0415
        from hw.rfid.types import RadioConfig  # noqa: PLC0415

        self._watch("reader")
        model, radio = MODELS[reader.protocol], RadioConfig(power_dbm=reader.power_dbm)
        port = reader.port or self._emulated_reader()
        verifier = Verifier(  # one more, because the tags are checked in their own thread
            device.store, clock=self.inputs.clock, audit=audit_log(self.home, self.inputs.clock)[0],
            software=software_version(), time=trusted_time(self.home, self.inputs.clock), context=self._context(),
        )  # fmt: skip
        tags = TagThread(
            lambda: model.driver(serial_line(Path(port), reader.baud), radio, reader_id=reader.protocol),
            self.program.post,
            verifier.look_at,
            lambda with_memory: Checkpoint(verifier.check, verifier.look_at, with_memory=with_memory),
            field=Field(antennas=tuple(range(1, reader.antennas + 1))),
        )
        tags.start()
        self.stack.callback(tags.close)
        return tags

    def _emulated_reader(self) -> str:
        """The path of a reader that plays the scene of the settings; one that leads nowhere when it cannot be read."""
        from hw.rfid.emulator.device import EmulatedReader  # noqa: PLC0415 - for a demo only
        from hw.rfid.emulator.port import running  # noqa: PLC0415
        from hw.rfid.emulator.scene import SceneError  # noqa: PLC0415
        from hw.rfid.emulator.scene_file import load_scene  # noqa: PLC0415

        try:
            scene = load_scene(self._file(self.settings.reader.scene))
        except (OSError, SceneError) as exc:
            self.program.post(PartFault("reader", f"scene: {exc}"))
            return "/nowhere"
        emulated = EmulatedReader(self.settings.reader.protocol, scene)
        return self.stack.enter_context(running(emulated, time.monotonic)).port.path

    def _sound(self) -> Callable[[str], None]:
        sound = self.settings.sound
        if sound.source == "none":
            return self.inputs.play or (lambda signal: None)
        from hw.sound.gpio import GpioOutputs  # noqa: PLC0415 - loads gpiozero
        from hw.sound.player import Player  # noqa: PLC0415

        self._watch("sound")
        try:
            outputs = GpioOutputs(_sound_pins(sound), self.inputs.pins)
        except HardwareError as exc:
            self.program.post(PartFault("sound", exc.problem))
            return self.inputs.play or (lambda signal: None)
        player = Player(outputs, failed=lambda problem: self.program.post(PartFault("sound", problem)))
        self.stack.callback(player.close)
        return player.play

    def _keys(self) -> None:
        if self.inputs.attach is not None:
            self.stack.callback(self.inputs.attach(self.program))
        if self.settings.keys.source == "none":
            return
        from hw.buttons.gpio import GpioKeys  # noqa: PLC0415 - loads gpiozero

        self._watch("keys")
        try:
            keys = GpioKeys(_key_pins(self.settings.keys), self.program.edge, self.inputs.pins)
        except HardwareError as exc:
            self.program.post(PartFault("keys", exc.problem))
        else:
            self.stack.callback(keys.close)

    def _probing(self, device: Device, time_known: TrustedTime) -> Probing:
        clock = self.inputs.clock
        has_key = epoch_key(self.home, clock, time_known)[0] is not None
        asked = [
            probes.counts(self.home.audit, clock),
            probes.data(device.store, time_known, clock, has_key=has_key),
            probes.battery(self._sysfs()),
        ]
        if device.online is not None:
            asked.append(probes.network(device.online.centre))
        probing = Probing(tuple(asked), self.program.post)
        self.stack.callback(probing.close)
        return probing

    def _disk(self) -> None:
        def told(problem: str) -> None:
            self.watchdog.sign("disk", self.inputs.now_ms())
            self.program.post(PartFault("audit", problem))

        self.stack.callback(DiskCheck(self.home.folder, told).close)

    def _jobs(self) -> Running:
        sync = self.settings.sync
        arguments = ("--home", str(self.home.folder), "--from", sync.source, "--region", sync.region)
        process = SyncProcess(arguments if sync.source else ())
        self.stack.callback(process.close)
        tests = MappingProxyType(self.tests)
        return Running(
            self.program.post, lambda: self.program.state.language, sync=process,
            self_test=lambda language: diagnostics.panel_lines(diagnostics.self_test(tests), language),
        )  # fmt: skip

    def _tests(self, device: Device, time_known: TrustedTime) -> None:
        self._watch("panel")
        self.tests |= {
            "cache": diagnostics.cache(device.store),
            "trust": diagnostics.trust(device.store),
            "clock": diagnostics.clock(time_known, self.inputs.clock),
            "network": diagnostics.network(device.online.centre if device.online else None),
            "battery": diagnostics.battery(self._sysfs()),
            "disk": diagnostics.disk(self.home.folder),
            "audit": diagnostics.audit(self.home.audit),
        }

    def _watch(self, part: str) -> None:
        self.tests[part] = diagnostics.standing(part, lambda: self.program.state.faults)

    def _sysfs(self) -> Path:
        path = Path(self.settings.paths.sysfs)
        return path if path.is_absolute() else self._file(str(path))


def _key_pins(keys: KeySettings) -> dict[Key, int]:
    return {key: getattr(keys, key.value) for key in Key}


def _sound_pins(sound: SoundSettings) -> SoundPins:
    from hw.sound.gpio import SoundPins  # noqa: PLC0415 - loads gpiozero

    return SoundPins(buzzer=sound.buzzer, green=sound.green, red=sound.red, motor=sound.motor)


def mark_label(payload: bytes) -> str:
    """The plate that a mark names, unproven: to choose between several, and for nothing else."""
    try:
        claims, _ = parse_claims(decode(payload).credential.payload)
        return display_text(claims.plate)
    except (CodeError, PlateError):
        return ""
