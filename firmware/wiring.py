"""Puts the program of the handheld together from its settings, runs it, and takes it apart again.

A part that is missing or fails at the start is a banner, never a block: checks by whatever is left go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from firmware import probes, self_tests
from firmware.alive import DiskCheck, Notifier, Watchdog
from firmware.app import Draw, Panel, Parts, Program, monotonic_ms
from firmware.build import Device, audit_log, build_device, device_context, epoch_key, software_version, trusted_time
from firmware.cameras import chosen_source
from firmware.checks import RunChecks
from firmware.choices import FILE, KeptChoices
from firmware.config import Home, default_home, file_finder
from firmware.console_link import listen
from firmware.console_trials import Overheard, SharedPanel, Sounding, Trials
from firmware.draw import draw
from firmware.ending import DONE, Ending, power_off, watched
from firmware.eyes import CAMERA, ENGINE, IDLE_S, Eyes, Trigger
from firmware.in_use import HOT_S, DeviceInUse, FetchHot, HotThread
from firmware.jobs import Running, SyncProcess
from firmware.keeper import default_run, wipe_files, wipe_once_more
from firmware.login import LoginDesk
from firmware.logs import LogRing, fault_notes
from firmware.machine import states as st
from firmware.machine.events import Event, Kept, LookedUp, PartFault
from firmware.machine.states import State, Status
from firmware.pins import OnPins, OutputsOnPins
from firmware.probes import Probing
from firmware.scanner import Scanner, ScanSource
from firmware.settings import KeySettings, Settings, SoundSettings
from firmware.stop_photos import HeldPhotos, StopPhotos, fault_frames
from hw.buttons.keys import Key
from hw.interfaces import CameraSettings
from verifier.audit import CheckContext
from verifier.cache import schema
from verifier.check import Verifier
from verifier.clock import Clock, system_clock
from verifier.codec.credential import decode, parse_claims
from verifier.errors import CodeError, PlateError
from verifier.hot_follow import HotFollower
from verifier.officers import OfficerFile
from verifier.online import Centre
from verifier.plates import display_text
from verifier.wipe import Wiper

if TYPE_CHECKING:
    from gpiozero import Factory

    from firmware.tags import TagThread
    from hw.sound.gpio import SoundPins
    from verifier.trusted_time import TrustedTime

LIMITS_MS = {"ui": 2_000, "scanner": 15_000, "disk": 90_000}  # how old the last sign of each may be

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
        self.probing.start()  # before: what the policy says decides where it opens
        self.program.begin(self.parts)
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
        page = self.program.state.page
        if isinstance(page, st.Off) and not page.kept:
            self.program.post(Kept())
            self.program.turn()  # the last words, now that they are true


def run_program(
    settings: Settings, remark: str, panel: Panel, inputs: Inputs | None, *, config: Path, home: Path | None
) -> int:
    """Build, run and close: the exit status, as `firmware.start.start` tells it."""
    ending = Ending()
    with watched(ending):
        appliance = build_program(
            settings, panel, inputs or Inputs(), config=config, home=home, remark=remark, ending=ending
        )
        try:
            appliance.run()
        finally:
            if not appliance.switched_off:
                panel.close()  # at once: the verdict on it has nobody behind it any more
            appliance.close()
            panel.close(keep_picture=appliance.switched_off)  # "safe to unplug" stays
    if appliance.switched_off and settings.device.switch_off == "machine":
        return power_off()
    return ending.status or DONE


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

    ring = LogRing(house.folder / "log.jsonl", inputs.clock)
    choices = KeptChoices(house.folder / FILE, ring.note)
    first = choices.applied(_first_state(settings))
    program = Program(draw=inputs.draw, wall=inputs.clock, now_ms=inputs.now_ms, state=first, beat=beat)
    if remark:
        program.post(PartFault("settings", remark))
    ending = ending or Ending()
    ending.stops(program)
    with ExitStack() as stack:  # what is there already is let go when the rest cannot be made
        stack.callback(notifier.close)
        stack.callback(wipe_once_more(house, inputs.clock, default_run()))  # when no part writes any more
        stack.callback(lambda: choices.keep(program.state))  # of the last second
        builder = _Builder(
            settings, inputs, program, watchdog, stack, house, file_finder(config.parent, house), ring, choices
        )
        parts, probing = builder.build(panel)
        return Appliance(program, parts, probing, notifier, ending, stack.pop_all())


def _first_state(settings: Settings) -> State:
    device = settings.device
    counted = f"settings {settings.version}" if settings.version else ""
    about = tuple(filter(None, (software_version(), device.name, counted)))
    officers = settings.officers
    return State(
        language=device.language, province=device.province,
        status=Status(demo=device.demo, about=about, settings=settings.version),
        locked=officers.required, lock_ms=officers.lock_minutes * 60_000 if officers.required else None,
    )  # fmt: skip


@dataclass(slots=True)
class _Builder:
    """Makes one part after the other, and remembers how to let each go."""

    settings: Settings
    inputs: Inputs
    program: Program
    watchdog: Watchdog
    stack: ExitStack
    home: Home
    file: Callable[[str], Path]
    ring: LogRing
    choices: KeptChoices
    tests: dict[str, self_tests.Test] = field(default_factory=dict)
    for_tags: Verifier | None = None  # of the device in use
    held: HeldPhotos = field(default_factory=HeldPhotos)
    player: Sounding | None = None
    on_pins: list[probes.Probe] = field(default_factory=list)

    def build(self, panel: Panel) -> tuple[Parts, Probing]:
        """Eyes first: their process takes longest until it is ready."""
        eyes = self._eyes()
        time_known = trusted_time(self.home, self.inputs.clock)
        in_use = self._in_use(time_known)
        photos, heard, shared = self._photos(eyes), Overheard(self.program.post), SharedPanel(panel)
        checks = self._checks(in_use, photos)
        self._engine()
        tags = self._reader(photos.of_alarms(heard.post))
        play = self._sound()
        self._keys()
        probing = self._probing(in_use, time_known, checks)
        self._disk()
        self._tests(in_use, time_known)
        self._listen(eyes, tags, heard, shared)
        clock = self.inputs.clock
        log = audit_log(self.home, clock)[0]
        desk = LoginDesk(OfficerFile(self.home.officers), self.program.post, clock, log)
        parts = Parts(checks=checks, jobs=self._jobs(), panel=shared, eyes=eyes, tags=tags, play=play, login=desk)
        return parts, probing

    def _in_use(self, time_known: TrustedTime) -> DeviceInUse:
        """The device, with the hot list followed where there is a source. A child goes by the machine's clock, so by
        another one nothing is fetched."""
        clock, made = self.inputs.clock, list[DeviceInUse]()
        hint = None
        if self.settings.sync.source and clock is system_clock:
            process = SyncProcess((*self._sync_arguments(), "--hot"), HOT_S)
            follower = HotFollower(FetchHot(process, lambda: made[0].device if made else None), self.inputs.now_ms)
            self.stack.callback(HotThread(follower, process, self._may_fetch).close)
            hint = follower.hint
        in_use = DeviceInUse(
            lambda: build_device(
                self.home,
                clock,
                context=self._context(),
                hot_hint=hint,
                counted=lambda count: self.program.post(LookedUp(count.flagged)),
            ),
            lambda: epoch_key(self.home, clock, time_known)[0],
        )
        made.append(in_use)
        self.stack.callback(in_use.close)
        return in_use

    def _may_fetch(self) -> bool:
        return self.program.state.network is not st.Network.OFF and (self.home.cache / schema.CURRENT).exists()

    def _sync_arguments(self) -> tuple[str, ...]:
        sync = self.settings.sync
        return ("--home", str(self.home.folder), "--from", sync.source, "--region", sync.region)

    def _context(self) -> Callable[[], CheckContext]:
        """Who checks with which device, and what the officer is at."""
        device = device_context(self.home, self.inputs.clock)

        def context() -> CheckContext:
            state = self.program.state
            officer = None if state.officer is None else state.officer.officer_id
            return replace(device(), mode=state.mode.value, officer=officer)

        return context

    def _eyes(self) -> Eyes | None:
        camera = self.settings.camera
        source = self.inputs.source or chosen_source(camera, self.file)
        if source is None:
            return None
        faults = fault_frames(self.home, self.inputs.clock)
        scanner = Scanner(source, fault_frames=faults, spare=camera.spare, photos=True)

        def alive() -> None:
            self.watchdog.sign("scanner", self.inputs.now_ms())
            self.held.expire()

        eyes = Eyes(
            scanner, self.program.post, label=mark_label,
            zoom=lambda on: scanner.adjust(CameraSettings(zoom=on)), keep=self.held.put, alive=alive,
        )  # fmt: skip
        self.stack.callback(eyes.close)
        self.tests[CAMERA] = self_tests.camera(lambda: eyes.frame_s, time.monotonic, 3 * IDLE_S)
        return eyes

    def _photos(self, eyes: Eyes | None) -> StopPhotos:
        photograph = None if eyes is None else eyes.photograph
        photos = StopPhotos(self.home, self.inputs.clock, self.held, photograph, self.program.post)
        self.stack.callback(photos.close)
        return photos

    def _checks(self, in_use: DeviceInUse, photos: StopPhotos) -> RunChecks:
        checks = RunChecks(in_use.device.verifier, self.program.post, photos)
        self.stack.callback(checks.close)

        def use(device: Device) -> None:
            self.for_tags = self._tag_verifier(device)
            checks.use(device.verifier, device.online)

        in_use.start(use)
        return checks

    def _tag_verifier(self, device: Device) -> Verifier:
        """One more, because the tags are checked in their own thread."""
        clock = self.inputs.clock
        return Verifier(
            device.store, clock=clock, audit=audit_log(self.home, clock)[0], software=software_version(),
            time=trusted_time(self.home, clock), context=self._context(),
        )  # fmt: skip

    def _engine(self) -> None:
        barcode = self.settings.barcode
        if not barcode.port:
            return
        from firmware.scan_engine import EngineScanner  # noqa: PLC0415 - loads pyserial, where there is an engine
        from hw.barcode import BarcodeEngine, serial_port  # noqa: PLC0415

        engine = EngineScanner(BarcodeEngine(serial_port(Path(barcode.port), barcode.baud)))
        self.stack.callback(Trigger(engine, self.program.post, label=mark_label).close)
        self._watch(ENGINE)

    def _reader(self, post: Callable[[Event], None]) -> TagThread | None:
        if not self._has_reader:
            return None
        from firmware.readers import start_reader  # noqa: PLC0415 - loads pyserial and drivers, where there is a reader

        self._watch("reader")
        return start_reader(self.settings.reader, post, lambda: self.for_tags, file=self.file, stack=self.stack)

    @property
    def _has_reader(self) -> bool:
        return bool(self.settings.reader.port or self.settings.reader.scene)

    def _sound(self) -> Callable[[str], None]:
        sound = self.settings.sound
        if sound.source == "none":
            return self.inputs.play or (lambda signal: None)
        from hw.sound.gpio import GpioOutputs  # noqa: PLC0415 - loads gpiozero
        from hw.sound.player import Player  # noqa: PLC0415

        self._watch("sound")
        outputs = OnPins("sound", lambda: GpioOutputs(_sound_pins(sound), self.inputs.pins), self.inputs.now_ms)
        self._on_pins(outputs.probe)
        self.player = player = Player(
            OutputsOnPins(outputs), failed=lambda problem: self.program.post(PartFault("sound", problem))
        )
        self.stack.callback(player.close)
        return player.play

    def _keys(self) -> None:
        if self.inputs.attach is not None:
            self.stack.callback(self.inputs.attach(self.program))
        if self.settings.keys.source == "none":
            return
        from hw.buttons.gpio import GpioKeys  # noqa: PLC0415 - loads gpiozero

        self._watch("keys")
        pins = _key_pins(self.settings.keys)
        keys = OnPins("keys", lambda: GpioKeys(pins, self.program.edge, self.inputs.pins), self.inputs.now_ms)
        self._on_pins(keys.probe)
        self.stack.callback(keys.close)

    def _on_pins(self, probe: probes.Probe) -> None:
        """Opened here, so that what is there counts from the first moment; what is not is tried again later."""
        for event in probe():
            self.program.post(event)
        self.on_pins.append(probe)

    def _probing(self, in_use: DeviceInUse, time_known: TrustedTime, checks: RunChecks) -> Probing:
        clock = self.inputs.clock
        asked: tuple[probes.Probe, ...] = (
            *self.on_pins,
            probes.erased(Wiper(wipe_files(self.home, default_run()), clock).record, self.program.stop),
            fault_notes(self.ring, lambda: self.program.state.faults),
            lambda: self.choices.keep(self.program.state),
            checks.news,
            probes.counts(self.home.audit, clock),
            probes.vitals(self.home.vitals, lambda: self.program.state, clock, self.inputs.now_ms),
            lambda: probes.data(in_use.device.store, time_known, clock, has_key=in_use.has_key)(),
            probes.modes(lambda: in_use.device.store.policy(), has_reader=self._has_reader),
            probes.battery(self.file(self.settings.paths.sysfs)),
            lambda: probes.network(_centre(in_use))(),
        )
        probing = Probing(asked, self.program.post)
        self.stack.callback(probing.close)
        return probing

    def _disk(self) -> None:
        def told(problem: str) -> None:
            self.watchdog.sign("disk", self.inputs.now_ms())
            self.program.post(PartFault("audit", problem))

        self.stack.callback(DiskCheck(self.home.folder, told).close)

    def _jobs(self) -> Running:
        process = SyncProcess(self._sync_arguments() if self.settings.sync.source else ())
        self.stack.callback(process.close)
        tests = MappingProxyType(self.tests)
        return Running(
            self.program.post, lambda: self.program.state.language, sync=process,
            self_test=lambda language: self_tests.panel_lines(self_tests.self_test(tests), language),
        )  # fmt: skip

    def _tests(self, in_use: DeviceInUse, time_known: TrustedTime) -> None:
        self._watch("panel")
        self.tests |= {
            "cache": lambda: self_tests.cache(in_use.device.store)(),
            "trust": lambda: self_tests.trust(in_use.device.store)(),
            "clock": self_tests.clock(time_known, self.inputs.clock),
            "network": lambda: self_tests.network(_centre(in_use))(),
            "battery": self_tests.battery(self.file(self.settings.paths.sysfs)),
            "disk": self_tests.disk(self.home.folder),
            "audit": self_tests.audit(self.home.audit),
        }

    def _listen(self, eyes: Eyes | None, tags: TagThread | None, heard: Overheard, panel: SharedPanel) -> None:
        """To the technician's console."""
        asked = MappingProxyType(self.tests)
        trials = Trials(self._state, eyes=eyes, tags=tags, heard=heard, player=self.player, panel=panel)
        self.stack.callback(listen(default_run(), self._state, asked, trials.requests()))

    def _state(self) -> State:
        return self.program.state

    def _watch(self, part: str) -> None:
        self.tests[part] = self_tests.standing(part, lambda: self.program.state.faults)


def _centre(in_use: DeviceInUse) -> Centre | None:
    online = in_use.device.online
    return None if online is None else online.centre


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
