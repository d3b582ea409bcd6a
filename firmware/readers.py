"""The tag reader that the settings name: on its port, or an emulated one that plays a scene."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from firmware.checkpoint import Checkpoint
from firmware.machine.events import Event, PartFault
from firmware.settings import ReaderSettings
from firmware.tags import PART, TC1_WORDS, Field, TagThread
from hw.rfid.driver import Driver
from hw.rfid.models import MODELS
from hw.rfid.types import AirProtocol, RadioConfig
from verifier.check import CheckResult, Observation, Verifier
from verifier.types import TagEvidence, TagSeen


def start_reader(
    reader: ReaderSettings,
    post: Callable[[Event], None],
    verifier: Callable[[], Verifier | None],
    *,
    file: Callable[[str], Path],
    stack: ExitStack,
) -> TagThread:
    """The started thread that reads tags; `stack` ends it, and the emulated reader after it.

    `verifier` gives the one of the device in use, which that thread alone may ask; there is one by now. `file` finds
    a file that the settings name.
    """
    port = reader.port or _emulated(reader, post, file, stack)

    def in_use() -> Verifier:
        found = verifier()
        assert found is not None  # noqa: S101 - set before the reader's thread begins
        return found

    def check(seen: Observation) -> CheckResult:
        return in_use().check(seen)

    def look_at(seen: TagSeen) -> TagEvidence:
        return in_use().look_at(seen)

    tags = TagThread(
        driver_at(reader, port),
        post,
        look_at,
        lambda with_memory: Checkpoint(check, look_at, with_memory=with_memory),
        field=field_of(reader),
    )
    tags.start()
    stack.callback(tags.close)
    return tags


def driver_at(reader: ReaderSettings, port: str) -> Callable[[], Driver]:
    """Makes the driver of the reader that the settings name, on this port."""
    model, radio = MODELS[reader.protocol], RadioConfig(power_dbm=reader.power_dbm)
    line = model.line(Path(port), reader.baud, None)
    return lambda: model.driver(line, radio, reader_id=reader.protocol)


def field_of(reader: ReaderSettings) -> Field:
    """Where and how it looks for tags."""
    return Field(antennas=tuple(range(1, reader.antennas + 1)), air=AirProtocol(reader.air), user_words=TC1_WORDS)


def _emulated(
    reader: ReaderSettings, post: Callable[[Event], None], file: Callable[[str], Path], stack: ExitStack
) -> str:
    """The port of a reader that plays the scene of the settings; one that leads nowhere when it cannot be read."""
    from hw.rfid.emulator.device import EmulatedReader  # noqa: PLC0415 - for a demo only
    from hw.rfid.emulator.llrp_messages import greeting  # noqa: PLC0415
    from hw.rfid.emulator.port import PtyPort, running  # noqa: PLC0415
    from hw.rfid.emulator.scene import SceneError  # noqa: PLC0415
    from hw.rfid.emulator.scene_file import load_scene  # noqa: PLC0415
    from hw.rfid.emulator.tcp_port import TcpPort  # noqa: PLC0415

    try:
        scene = load_scene(file(reader.scene))
    except (OSError, SceneError) as exc:
        post(PartFault(PART, f"scene: {exc}"))
        return "/nowhere"
    in_network = MODELS[reader.protocol].in_network
    port = TcpPort("127.0.0.1", 0, greeting) if in_network else PtyPort()
    played = EmulatedReader(reader.protocol, scene, paced=not in_network)
    return stack.enter_context(running(played, time.monotonic, port=port)).port.path
