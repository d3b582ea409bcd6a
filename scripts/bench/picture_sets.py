"""What the decoders are measured on: generated roadside frames, or a folder of pictures with a manifest."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from hw.camera.files import load_picture
from scripts.bench.optics import Gray
from scripts.bench.roadside import CONDITIONS, frames, negatives

MANIFEST = "manifest.csv"


class PictureSetError(ValueError):
    """A folder that cannot be measured; the text says where and why."""


class Sample(NamedTuple):
    """One picture: `expected` holds every text that a decoder may rightly read in it, none for a picture without."""

    name: str
    category: str
    expected: frozenset[str]
    gray: Gray


class PictureSet(Protocol):
    """Samples that are made or read when they are asked for."""

    @property
    def generated(self) -> bool:
        """Whether these are roadside frames, of the size a camera gives."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Sample]: ...


@dataclass(frozen=True, slots=True)
class RoadsideSet:
    """`per_condition` frames of every condition, and as many without a code."""

    seed: int
    per_condition: int
    conditions: tuple[str, ...] = tuple(CONDITIONS)

    @property
    def generated(self) -> bool:
        """They are."""
        return True

    def __len__(self) -> int:
        return self.per_condition * (len(self.conditions) + 1)

    def __iter__(self) -> Iterator[Sample]:
        for made in frames(self.seed, self.per_condition, self.conditions):
            yield Sample(f"{made.condition}-{made.level:.2f}", made.condition, frozenset([made.text]), made.gray)
        for number, made in enumerate(negatives(self.seed, self.per_condition)):
            yield Sample(f"{made.condition}-{number}", made.condition, frozenset(), made.gray)


class _Row(NamedTuple):
    name: str
    path: Path
    category: str
    expected: frozenset[str]


class FolderSet:
    """The pictures that FOLDER/manifest.csv lists; PictureSetError, or FrameError for a picture that is unusable.

    Columns: `file` (relative to the folder), `all_expected_json` (a list of texts) or `expected` (one, or empty for
    none), and `category` if there is one. Further columns are passed over.
    """

    def __init__(self, folder: Path) -> None:
        self._rows = _manifest(folder)

    @property
    def generated(self) -> bool:
        """They are not: any size may occur."""
        return False

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Sample]:
        for row in self._rows:
            yield Sample(row.name, row.category, row.expected, load_picture(row.path).gray)


def _manifest(folder: Path) -> list[_Row]:
    if not folder.is_dir():
        raise PictureSetError(f"{folder}: no such folder")
    path = folder / MANIFEST
    if not path.is_file():
        raise PictureSetError(f"{folder}: holds no {MANIFEST}")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            columns = set(reader.fieldnames or ())
            if "file" not in columns or not columns & {"expected", "all_expected_json"}:
                raise PictureSetError(f"{MANIFEST}: needs the columns file and expected or all_expected_json")
            rows = [_row(folder, row, number) for number, row in enumerate(reader, 1)]
    except (csv.Error, UnicodeDecodeError) as exc:
        raise PictureSetError(f"{MANIFEST}: not a CSV file in UTF-8") from exc
    if not rows:
        raise PictureSetError(f"{MANIFEST}: lists no pictures")
    return rows


def _row(folder: Path, row: Mapping[str, str | None], number: int) -> _Row:
    name = row["file"] or ""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
        raise PictureSetError(f"{MANIFEST}, picture {number}: no such file in the folder")
    listed = row.get("all_expected_json")
    expected = _texts(listed, number) if listed else frozenset([row.get("expected") or ""])
    return _Row(name, path, row.get("category") or "all", frozenset(text for text in expected if text))


def _texts(listed: str, number: int) -> frozenset[str]:
    try:
        texts = json.loads(listed)
    except ValueError as exc:
        raise PictureSetError(f"{MANIFEST}, picture {number}: all_expected_json is not JSON") from exc
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise PictureSetError(f"{MANIFEST}, picture {number}: all_expected_json is not a list of texts")
    return frozenset(texts)
