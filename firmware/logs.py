"""What the device notes of itself, in a ring of bounded size, and the bundle of it that may leave the device.

No personal data by construction: what is noted are parts and their faults, and the bundle takes no audit record, no
photo and no key. What free text remains goes through `masked`, once when it is noted and again when it leaves.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import tarfile
import threading
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hw.display.sizes import SIZES
from verifier.clock import Clock
from verifier.plates import PROVINCES

RING_BYTES = 128 * 1024  # of each of the two files
LONGEST = 200  # characters of a text
MOST_TAIL = 64 * 1024  # bytes of a log file in the bundle
MASK = "[masked]"
_LOOKED_AT = 8 * LONGEST  # characters of a text
_LONGEST_NAME = 40  # characters, the gaps in it included

# ------------------------------------------------------------------------------------------------- masking

_GAP = r"[\s·•・.‧∙_\-]{0,3}"
_MARKS = "警学挂港澳领使应急超试临"
_END = f"(?:{_GAP}[{_MARKS}])"


def _spread(one: str, least: int, most: int) -> str:
    return f"(?:{one}{_GAP}){{{least},{most}}}"


# Generous: what only looks like one of these is masked too. Letters O and I are taken for 0 and 1 by those who type.
_PLATES = (
    rf"[{PROVINCES}]{_GAP}{_spread('[0-9A-Z]', 4, 7)}{_END}{{0,2}}",
    rf"[{PROVINCES}]{_GAP}{_END}{_GAP}{_spread('[0-9]', 4, 6)}",
    rf"使{_GAP}{_spread('[0-9]', 6, 6)}",
    rf"{_spread('[0-9]', 5, 6)}[使领]",
    rf"W{_GAP}J{_GAP}[{PROVINCES}]?{_GAP}[0-9]{_GAP}{_spread('[0-9A-Z]', 4, 4)}",
    rf"[A-Z]{{2}}{_GAP}[0-9]{{5}}(?![0-9A-Z])",
    rf"(?<![0-9A-Z])[A-Z]{_GAP}(?=[0-9A-Z]*[0-9])[0-9A-Z]{{5,6}}(?![0-9A-Z])",  # without its province
)
_NUMBERS = (
    r"-----BEGIN [A-Z ]+-----.*?(?:-----END [A-Z ]+-----|\Z)",
    r"VM[0-9A-Z]?:[0-9A-Z $%*+./:\-]{8,}",  # a code's payload in base 45
    rf"(?=(?:[^0-9]{{0,6}}[0-9]){{4}})(?<![0-9A-Z]){_spread('[0-9A-HJ-NPR-Z]', 17, 17)}(?![0-9A-Z])",  # a VIN
    r"(?:[0-9A-F]{2}[:\- ]){5,}[0-9A-F]{2}",  # bytes apart
    r"(?<![0-9A-Z])[0-9A-F]{12,}(?![0-9A-Z])",  # serials, TIDs and keys in hex
    r"(?<![0-9A-F])(?=[A-F]*[0-9])[0-9A-F]{4}(?:[ \-][0-9A-F]{4}){2,}(?![0-9A-Z])",  # such as people write them
    r"(?=(?:[A-Z]*[0-9]){4})[0-9A-Z]{9,}",  # VINs with a slip, telephone and identity numbers
    r"(?=[A-Z+/=_\-]*[0-9])[0-9A-Z+/_\-]{20,}={0,2}",  # base 64, 32 and long names with numbers
    r"(?<=//)[^\s/@]+@",  # who asks, in an address
    r"\?[^\s]+",  # what is asked, in an address
)
_MASKED = re.compile("|".join((*_NUMBERS, *_PLATES)), re.IGNORECASE | re.DOTALL)
# Moments, and parts that are named like plates, but not behind a province. A camera's sensor: add yours.
_SENSORS = ("imx[0-9]{3}", "ov5647", "ov9281", "ov64a40")  # of Raspberry Pi's camera modules, and usual others
_KEPT = re.compile(
    rf"(?<![0-9A-Za-z{PROVINCES}])(?<![{PROVINCES}][\s·\-])(?:{'|'.join((*SIZES, *_SENSORS))})(?![0-9A-Za-z{_MARKS}])"
    r"|\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d)?(?:\.\d{1,6})?(?:Z|\+\d\d:\d\d)?"
)


def masked(text: str) -> str:
    """The text on one line of bounded length, without what may name a vehicle, a tag, a document, a person or a key."""
    plain = unicodedata.normalize("NFKC", text[:_LOOKED_AT])
    plain = "".join(char if char.isprintable() else " " for char in plain if unicodedata.category(char) != "Cf")
    told = _without_names(plain)
    return _cut(told if len(text) <= _LOOKED_AT else told[:-_LONGEST_NAME])  # which may have been cut in two


def _without_names(text: str) -> str:
    """What is kept stays as it is: what stands between is masked."""
    parts, at = [], 0
    for kept in _KEPT.finditer(text):
        parts += [_MASKED.sub(MASK, text[at : kept.start()]), kept.group()]
        at = kept.end()
    return "".join((*parts, _MASKED.sub(MASK, text[at:])))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _masked_values(value: Any, depth: int = 0) -> Any:
    """Every text in it, those of its names too; what is nested without end goes."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, Mapping) and depth < 8:
        return {masked(str(name)): _masked_values(inner, depth + 1) for name, inner in value.items()}
    if isinstance(value, list | tuple) and depth < 8:
        return [_masked_values(inner, depth + 1) for inner in value]
    return value if value is None or isinstance(value, bool | int | float) else MASK


# ------------------------------------------------------------------------------------------------- the ring


class LogRing:
    """Notes in a file and the one before it; for several threads and processes. A card that takes none loses them."""

    def __init__(self, path: Path, clock: Clock, most: int = RING_BYTES) -> None:
        self._path, self._clock, self._most = path, clock, most
        self._lock = threading.Lock()
        self.lost = 0

    def note(self, part: str, text: str) -> None:
        """One line; never raises for what a card may do."""
        entry = {"at": self._clock().isoformat(timespec="seconds"), "part": masked(part), "text": masked(text)}
        line = json.dumps(entry, ensure_ascii=False).encode() + b"\n"
        with self._lock:
            try:
                self._append(line)
            except OSError:
                self.lost += 1

    def lines(self, most: int) -> list[dict[str, str]]:
        """The newest notes, the oldest of them first; what is no note of ours is passed over."""
        notes = [note for path in (_before(self._path), self._path) for note in _notes(path, self._most)]
        return notes[-most:] if most > 0 else []

    def _append(self, line: bytes) -> None:
        # Not the ring itself is locked: it is renamed.
        lock = os.open(self._path.with_name(f".{self._path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, line)
                if os.fstat(descriptor).st_size >= self._most:
                    self._path.replace(_before(self._path))
            finally:
                os.close(descriptor)
        finally:
            os.close(lock)


def _before(path: Path) -> Path:
    return path.with_name(path.name + ".old")


def _notes(path: Path, most: int) -> Iterator[dict[str, str]]:
    try:
        with path.open("rb") as file:
            data = file.read(2 * most)
    except OSError:
        return
    for line in data.splitlines():
        try:
            raw = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(raw, dict) and all(isinstance(raw.get(name), str) for name in ("at", "part", "text")):
            yield {name: masked(raw[name]) for name in ("at", "part", "text")}


def fault_notes(ring: LogRing, faults: Callable[[], Mapping[str, str]]) -> Callable[[], tuple[()]]:
    """A probe that notes faults as they come and go; it posts nothing."""
    known: dict[str, str] = {}

    def probe() -> tuple[()]:
        now = dict(faults())
        for part in known.keys() - now.keys():
            ring.note(part, "well again")
        for part, problem in now.items():
            if known.get(part) != problem:
                ring.note(part, problem)
        known.clear()
        known.update(now)
        return ()

    return probe


def tail(path: Path, most: int = MOST_TAIL) -> list[str]:
    """The last lines of a text file, masked; none of one that cannot be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - most))
            data = file.read(most)
    except OSError:
        return []
    lines = data.decode("utf-8", "replace").splitlines()
    return [masked(line) for line in (lines[1:] if size > most else lines)]


# ------------------------------------------------------------------------------------------------- the bundle


def bundle(facts: Mapping[str, Any], texts: Mapping[str, list[str]], clock: Clock) -> bytes:
    """A gzipped tar: each of `facts` as JSON, each of `texts` as lines; every text in it masked."""
    files = {f"{name}.json": json.dumps(_masked_values(value), ensure_ascii=False) for name, value in facts.items()}
    files |= {f"{name}.log": "\n".join(map(masked, lines)) for name, lines in texts.items()}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, text in sorted(files.items()):
            data = text.encode() + b"\n"
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.mode = len(data), int(clock().timestamp()), 0o600
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()
