"""The self-test of a device whose program does not run: the console opens each part itself, and lets it go again."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from firmware import self_tests
from firmware.build import open_store, trusted_time
from firmware.config import ConfigError, Home, file_finder, load_online
from firmware.self_tests import Answer, Ended, PartReport, Test, limit_of, report_of
from firmware.settings import Settings
from hw.errors import HardwareError, one_line
from verifier.cache.store import StatusStore
from verifier.clock import Clock

if TYPE_CHECKING:
    from hw.sound.gpio import GpioOutputs

_CONNECT_S = 2.0
_NOT_SET = Ended.NOTE, "none is set"

Ask = Callable[[str], PartReport]


def own_tests(settings: Settings, home: Home, clock: Clock, beside: Path) -> dict[str, Test]:
    """A test for each part, in the order in which they are told. Relative files as in the program: `beside` the
    settings, else in the home."""

    file = file_finder(beside, home)
    time_known = trusted_time(home, clock)
    return {
        "camera": lambda: _camera(settings, file),
        **({"barcode": lambda: _barcode(settings)} if settings.barcode.port else {}),
        "reader": lambda: _reader(settings),
        "panel": lambda: _panel(settings),
        "keys": lambda: _keys(settings),
        **({"sound": lambda: _sound(settings)} if settings.sound.source != "none" else {}),
        "cache": lambda: _with_store(home, self_tests.cache),
        "trust": lambda: _with_store(home, self_tests.trust),
        "clock": self_tests.clock(time_known, clock),
        "network": lambda: _network(home),
        "battery": self_tests.battery(file(settings.paths.sysfs)),
        "disk": self_tests.disk(home.folder),
        "audit": self_tests.audit(home.audit),
    }


def reports(tests: Mapping[str, Test], parts: list[str]) -> Iterator[PartReport]:
    """One after the other, each as soon as it is known."""
    return (report_of(part, tests[part]) for part in parts)


def _with_store(home: Home, make: Callable[[StatusStore], Test]) -> Answer:
    store, _ = open_store(home)
    with closing(store):
        return make(store)()


def _camera(settings: Settings, file: Callable[[str], Path]) -> Answer:
    """Whether a frame comes and can be read."""
    from firmware.cameras import chosen_source  # noqa: PLC0415 - parts are loaded when they are tested
    from firmware.scanner import FaultEvent, Heartbeat, Scanner  # noqa: PLC0415

    source = chosen_source(settings.camera, file)
    if source is None:
        return _NOT_SET
    end_s = time.monotonic() + limit_of("camera") - 1
    with closing(Scanner(source)) as scanner:
        while time.monotonic() < end_s:
            for event in scanner.poll(0.2):
                if isinstance(event, FaultEvent):
                    return Ended.FAIL, one_line(f"{event.reason.value} {event.component}: {event.problem}")
                if isinstance(event, Heartbeat):
                    return Ended.PASS, f"{settings.camera.kind}, a frame read in {event.ms:.0f} ms"
    return Ended.FAIL, "no frame came"


def own_look(settings: Settings, beside: Path, home: Home) -> dict[str, Any]:
    """As `firmware.console_trials.looked`, of a camera that no program holds."""
    from firmware.cameras import chosen_source  # noqa: PLC0415
    from firmware.console_trials import LOOK_S, looked  # noqa: PLC0415
    from firmware.scanner import CodeEvent, Event, Heartbeat, Scanner  # noqa: PLC0415

    source, events = chosen_source(settings.camera, file_finder(beside, home)), list[Event]()
    if source is None:
        raise HardwareError("camera", "none is set")
    end_s = time.monotonic() + limit_of("camera")
    with closing(Scanner(source)) as scanner:
        while time.monotonic() < end_s and not any(isinstance(event, CodeEvent) for event in events):
            warm = any(isinstance(event, Heartbeat) for event in events)
            events += scanner.poll(0.2)
            if not warm and any(isinstance(event, Heartbeat) for event in events):
                end_s = min(end_s, time.monotonic() + LOOK_S)
    return looked(events)


def own_tags(settings: Settings) -> dict[str, Any]:
    """The tags before a reader that no program holds, on the antennas and of the air protocol of the settings."""
    from firmware.console_trials import MOST_TAGS, TAGS_S  # noqa: PLC0415
    from firmware.readers import driver_at, field_of  # noqa: PLC0415

    reader = settings.reader
    if not reader.port:
        raise HardwareError("tag reader", "none is set")
    with closing(driver_at(reader, reader.port)()) as driver:
        caps = driver.open()
        reads = driver.read_once(TAGS_S, field_of(reader).config(caps, watching=False))
    strongest = sorted(reads, key=lambda read: read.rssi_raw, reverse=True)[:MOST_TAGS]
    return {
        "fault": None,
        "tags": [
            {"rssi_dbm": read.rssi_dbm, "antenna": read.antenna, "air": read.protocol.value} for read in strongest
        ],
    }


def own_trial(settings: Settings, what: str) -> None:
    """Light, sound, motor or panel, which no program holds; ends when it is over."""
    from firmware.console_trials import CARD_S, OUTPUTS, squares  # noqa: PLC0415

    if what == "panel":
        from firmware.panel import PanelAtHand  # noqa: PLC0415

        with closing(PanelAtHand(settings.panel)) as panel:
            panel.show(squares(panel.size))
            time.sleep(CARD_S)
        return
    if settings.sound.source == "none":
        raise HardwareError("sound", "none is set")
    with closing(_outputs(settings)) as outputs:
        for beat in OUTPUTS[what]:
            outputs.put(beat)
            time.sleep(beat.ms / 1000)


def _barcode(settings: Settings) -> Answer:
    from hw.barcode import serial_port  # noqa: PLC0415

    serial_port(Path(settings.barcode.port), settings.barcode.baud)().close()
    return Ended.PASS, "the port can be opened; engines do not answer"


def _reader(settings: Settings) -> Answer:
    """Who is there, and whether it takes the lawful band and power."""
    reader = settings.reader
    if not reader.port:
        return _NOT_SET if not reader.scene else (Ended.NOTE, "an emulated one: it exists in the program only")
    from firmware.readers import driver_at  # noqa: PLC0415

    with closing(driver_at(reader, reader.port)()) as driver:
        caps = driver.open()
    return Ended.PASS, one_line(f"{reader.protocol} {caps.model} {caps.firmware}")


def _panel(settings: Settings) -> Answer:
    """Whether it takes a picture; whether it is to be seen, is for who stands before it."""
    from PIL import Image  # noqa: PLC0415

    from firmware.panel import PanelAtHand  # noqa: PLC0415

    with closing(PanelAtHand(settings.panel)) as panel:
        panel.show(Image.new("1", panel.size, 1))
    return Ended.PASS, f"{settings.panel.model} on {settings.panel.bus} took a picture"


def _keys(settings: Settings) -> Answer:
    if settings.keys.source == "none":
        return _NOT_SET
    from hw.buttons.gpio import GpioKeys  # noqa: PLC0415
    from hw.buttons.keys import Key  # noqa: PLC0415

    pins = {key: getattr(settings.keys, key.value) for key in Key}
    closed: set[Key] = set()
    with closing(GpioKeys(pins, lambda key, down: closed.add(key) if down else None)):
        pass
    return Ended.PASS, f"{len(pins)} pins"


def _sound(settings: Settings) -> Answer:
    with closing(_outputs(settings)):
        pass
    return Ended.PASS, "4 pins"


def _outputs(settings: Settings) -> GpioOutputs:
    from hw.sound.gpio import GpioOutputs, SoundPins  # noqa: PLC0415

    pins = settings.sound
    return GpioOutputs(SoundPins(buzzer=pins.buzzer, green=pins.green, red=pins.red, motor=pins.motor))


def _network(home: Home) -> Answer:
    """Whether the centre takes a connection. Off the network a device works too."""
    try:
        online = load_online(home)
    except ConfigError as exc:
        return Ended.FAIL, one_line(str(exc))
    if online is None:
        return Ended.NOTE, "no centre is set"
    address = urlsplit(online.url)
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname or "", port), _CONNECT_S).close()
    except OSError as exc:
        return Ended.NOTE, f"the centre is not reached: {one_line(exc.strerror or 'no address')}"
    return Ended.PASS, "the centre takes connections"
