"""How much of a check its record keeps (G7): the verdict and its reasons always, identities and photos by level.

A masked record decides again to the same verdict: each identity has a stand-in of its own, so what differed differs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from verifier.types import Code
from verifier.verdict import Tone


class Capture(Code):
    """What is kept; each level holds all of the one before."""

    MASKED = "masked"  # no plate, serial or tag
    IDENTITIES = "id"
    FULL = "full"  # with photos


PREFIX = 2  # characters of a plate that say where it is from: province and letter
_PLATES = frozenset({"plate", "text", "superseded_by_plate"})
_NUMBERS = frozenset({"serial", "credential_serial", "tid"})
_DROPPED = frozenset({"inputs", "request", "answer"})  # digests and signed answers, which name what was asked


def level_of(tone: object, usual: Capture, stop: Capture) -> Capture:
    """The level for a verdict of this tone: `usual` for one that found nothing against the vehicle."""
    return usual if tone in (Tone.PASS, Tone.NOTE) else stop


def captured(record: dict[str, Any], usual: Capture, stop: Capture) -> dict[str, Any]:
    """The record as it is to be kept. One of two vehicles is kept as the worse verdict asks; no check, as it is."""
    checks = [record.get("a"), record.get("b")] if record.get("kind") == "accident" else [record]
    verdicts = [check.get("verdict") for check in checks if isinstance(check, dict)]
    tones = [verdict.get("tone") for verdict in verdicts if isinstance(verdict, dict)]
    if not tones or any(level_of(tone, usual, stop) is not Capture.MASKED for tone in tones):
        return record
    masked: dict[str, Any] = _masked(record, _StandIns())
    return masked


class _StandIns:
    """The same stand-in for the same identity, within one record."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], str] = {}

    def plate(self, text: str) -> str:
        return text[:PREFIX] + self._of("plate", text, lambda number: f"*{number:04d}")

    def number(self, text: str) -> str:
        return self._of("number", text, lambda number: f"{number:04x}") if text else text

    def _of(self, kind: str, text: str, make: Callable[[int], str]) -> str:
        made = self._known.get((kind, text))
        if made is None:
            made = self._known[kind, text] = make(len(self._known) + 1)
        return made


def _masked(value: Any, stand_ins: _StandIns) -> Any:
    if isinstance(value, list):
        return [_masked(one, stand_ins) for one in value]
    if not isinstance(value, dict):
        return value
    out: dict[str, Any] = {}
    for name, inner in value.items():
        if name in _DROPPED:
            out[name] = {} if isinstance(inner, dict) else None
        elif name in _PLATES and isinstance(inner, str):
            out[name] = stand_ins.plate(inner)
        elif name in _NUMBERS and isinstance(inner, str):
            out[name] = stand_ins.number(inner)
        else:
            out[name] = _masked(inner, stand_ins)
    return out
