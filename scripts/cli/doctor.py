"""`markcheck doctor`: whether the parts of this installation work, each told for itself."""

from __future__ import annotations

import platform
import re
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import click
import segno

from firmware.build import EPOCH_KEY_IN_A_FILE, SOFTWARE, open_store, software_version
from firmware.config import Home
from firmware.scanner import CodeEvent, FaultEvent, HintEvent, Scanner, pictures
from firmware.self_tests import Ended
from hw.camera.files import FileSource
from hw.errors import FrameError, HardwareError
from hw.qr.decoders import available_decoders, decoder_report
from hw.qr.pipeline import STILL_BUDGET_S, decode_frame
from hw.qr.symbol import QUIET_ZONE, measure_symbol
from scripts.cli.console import home_option, json_option, print_json
from verifier.clock import Clock, system_clock
from verifier.errors import VerifierError
from verifier.policy import Policy, load_policy
from verifier.sm2 import libcrypto

_SPECIMEN = "VM0:MARKCHECK DOCTOR"
# What a section's parts are known to raise when they are broken: the section fails with it, the others go on.
_EXPECTED = (VerifierError, HardwareError, OSError, sqlite3.Error, ImportError, AttributeError)


@dataclass(frozen=True, slots=True)
class Section:
    """What was found: one line for people, and the same as facts for machines."""

    state: Ended
    detail: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@click.command()
@click.option(
    "--picture", type=click.Path(path_type=Path), help="Examine the codes in this picture instead: how they are made."
)
@json_option
@home_option
def doctor(picture: Path | None, as_json: bool, home: Home) -> int:
    """Whether the parts of this installation work.

    \b
    Examples:
      markcheck doctor
      markcheck doctor --json
      markcheck doctor --picture photo.png    symbol version, size of a module, quiet zone

    Exit status: 0 when everything that is needed works, 1 when not; of a picture, 1 when no code is read in it.
    """
    failed = 0
    sections = _SECTIONS if picture is None else {"codes": lambda _: _codes(picture)}
    for name, examine in sections.items():
        section = _examined(examine, home)
        failed += section.state is Ended.FAIL
        if as_json:
            print_json({"section": name, "state": section.state, "detail": section.detail, **section.facts})
        else:
            click.echo(f"{section.state:5} {name:10} {section.detail}")
    if not as_json:
        click.echo(f"FAILED {failed} of {len(sections)}" if failed else "OK")
    return 1 if failed else 0


def _examined(examine: Callable[[Home], Section], home: Home) -> Section:
    try:
        return examine(home)
    except _EXPECTED as exc:
        return Section(Ended.FAIL, str(exc) or type(exc).__name__)


def _codes(picture: Path) -> Section:
    """How the codes of a picture are made (ISO/IEC 18004); what they say is not told."""
    found: list[dict[str, Any]] = []
    for frame in FileSource(picture).frames():
        if isinstance(frame, FrameError):
            raise frame
        for code in decode_frame(frame.gray, available_decoders(), budget_s=STILL_BUDGET_S):
            symbol = measure_symbol(frame.gray, code)
            faulty = symbol is not None and symbol.quiet_zone_missing
            facts = {} if symbol is None else asdict(symbol)
            found.append({"picture": frame.name, "decoder": code.decoder, "quiet_zone_missing": faulty, **facts})
    if not found:
        return Section(Ended.FAIL, "no code is read")
    faulty = any(code["quiet_zone_missing"] for code in found)
    return Section(Ended.NOTE if faulty else Ended.PASS, "; ".join(map(_made, found)), {"codes": found})


def _made(code: Mapping[str, Any]) -> str:
    if code.get("version") is None:
        return f"version unknown ({code['decoder']})"
    zone = "unknown" if code["quiet_zone"] is None else f"{code['quiet_zone']:g} of {QUIET_ZONE} modules"
    short = ", too narrow" if code["quiet_zone_missing"] else ""
    return (
        f"version {code['version']}, {code['module_px']:.1f} px a module, quiet zone {zone}{short} ({code['decoder']})"
    )


def _software(_: Home) -> Section:
    python = platform.python_version()
    detail = f"{software_version()}, Python {python} on {platform.system()} {platform.machine()}"
    return Section(Ended.PASS, detail, {"software": software_version(), "python": python, "executable": sys.executable})


def _libraries(_: Home) -> Section:
    """The versions of what the device needs; a library from the system may have none that can be told."""
    found = {name: _version(name) for name in _needed()}
    unknown = [name for name, number in found.items() if number is None]
    detail = ", ".join(f"{name} {number or '?'}" for name, number in found.items())
    return Section(Ended.NOTE if unknown else Ended.PASS, detail, {"versions": found})


def _needed() -> list[str]:
    """The names in our own package's list of what it needs everywhere."""
    names = [re.match(r"[\w.-]+", line) for line in requires(SOFTWARE) or () if ";" not in line]
    return [name[0] for name in names if name]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _decoders(_: Home) -> Section:
    report = decoder_report()
    working = [decoder.name for decoder in report if decoder.works]
    stages = _ladder(working)
    facts = {"decoders": [decoder._asdict() for decoder in report], "ladder": stages}
    detail = ", ".join(f"{d.name} {d.detail}" for d in report)
    if not working:
        return Section(Ended.FAIL, detail, facts)
    state = Ended.PASS if len(working) == len(report) else Ended.NOTE
    return Section(state, f"{detail}; {len(stages)} stages, first {', '.join(stages[:2])}", facts)


def _ladder(decoders: list[str]) -> list[str]:
    from hw.qr.pipeline import STAGES  # noqa: PLC0415 - loads OpenCV, and its absence is this section's matter alone

    return [f"{stage.decoder} {stage.name}" for stage in STAGES if stage.decoder in decoders]


def _scanner(_: Home) -> Section:
    """Lets a scanner process read a picture of a code."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "specimen.png"
        segno.make(_SPECIMEN, micro=False).save(str(path), scale=8, border=QUIET_ZONE)
        with Scanner(pictures(path)) as scanner:
            event = next((e for e in scanner.events() if isinstance(e, CodeEvent | FaultEvent | HintEvent)), None)
    facts = {"ms": round((time.monotonic() - began) * 1000)}
    if isinstance(event, CodeEvent) and event.code.payload == _SPECIMEN.encode():
        return Section(Ended.PASS, f"a process was started and read a code: {facts['ms']} ms", facts)
    problem = event.problem if isinstance(event, FaultEvent) else "the process did not read a code"
    return Section(Ended.FAIL, problem, facts)


def _sm2(_: Home) -> Section:
    library = libcrypto()
    if library is None:
        return Section(Ended.NOTE, "no libcrypto of OpenSSL 3 with SM2: codes signed with SM2 cannot be proven")
    return Section(
        Ended.PASS, f"{library._name}, OpenSSL {library.OPENSSL_version_major()}", {"library": library._name}
    )


def _data(home: Home, clock: Clock = system_clock) -> Section:
    store, warning = open_store(home)
    try:
        held, policy = store.info(), load_policy(store.policy())
    finally:
        store.close()
    age = clock() - held.as_of
    remarks = [*held.notes, warning, *_remarks_on(age, policy)]
    facts = {"seq": held.seq, "as_of": held.as_of.isoformat(), "age_s": int(age.total_seconds()), "remarks": remarks}
    harmless = remarks == [EPOCH_KEY_IN_A_FILE]
    detail = f"no. {held.seq} of {held.as_of.isoformat(timespec='minutes')}, {held.vehicles:,} vehicles"
    return Section(Ended.PASS if harmless else Ended.NOTE, "; ".join([detail, *remarks]), facts)


def _remarks_on(age: timedelta, policy: Policy) -> list[str]:
    if age < -policy.clock_skew:
        return ["the clock is behind the data"]
    if age > policy.stale:
        return [f"older than {_hours(policy.stale)}: verdicts are limited"]
    return [f"older than {_hours(policy.fresh)}"] if age > policy.fresh else []


def _hours(age: timedelta) -> str:
    hours = age // timedelta(hours=1)
    return f"{hours} hours" if hours % 24 or hours < 48 else f"{hours // 24} days"


_SECTIONS: Mapping[str, Callable[[Home], Section]] = {
    "software": _software,
    "libraries": _libraries,
    "decoders": _decoders,
    "scanner": _scanner,
    "sm2": _sm2,
    "data": _data,
}
