"""A release bundle out of a source tree (`firmware.bundle`): the same tree gives the same bytes."""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from firmware.bundle import VERSION
from scripts.sandbox.registry import RegistryError

# What scripts/install needs, as it lists it; folders with all that is in them.
PARTS = (
    "README.md", "docs/examples", "docs/operations.md", "firmware", "hw", "pyproject.toml",
    "requirements-picamera2.lock", "requirements.lock", "scripts", "systemd", "verifier",
)  # fmt: skip
_LEFT_OUT = re.compile(r"(^|/)(__pycache__|\.[^/]*|[^/]*\.egg-info)(/|$)|\.pyc$")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle and the version of the program in it."""

    version: str
    data: bytes


def make_bundle(sources: Path, wheels: Path | None = None) -> Bundle:
    """The bundle of this source tree, with the wheels of a folder; RegistryError for a tree that is none. OSError."""
    for part in PARTS:
        if not (sources / part).exists():
            raise RegistryError(f"{sources}: has no {part}, so it is no source tree")
    version = str(tomllib.loads((sources / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])
    if VERSION.fullmatch(version) is None:
        raise RegistryError(f"{sources}: pyproject.toml has a version that a release cannot have: numbers and dots")
    out = io.BytesIO()
    # No time and no name in the header (RFC 1952), and level 9 whatever the default is.
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=out, compresslevel=9, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, path in sorted({**dict(_sources(sources)), **dict(_wheels(wheels))}.items()):
            _add(archive, name, path)
    return Bundle(version, out.getvalue())


def _sources(sources: Path) -> Iterator[tuple[str, Path]]:
    for part in PARTS:
        top = sources / part
        for path in [top] if top.is_file() else top.rglob("*"):
            name = path.relative_to(sources).as_posix()
            if path.is_file() and not path.is_symlink() and _LEFT_OUT.search(name) is None:
                yield name, path


def _wheels(wheels: Path | None) -> Iterator[tuple[str, Path]]:
    return ((f"wheels/{path.name}", path) for path in (wheels.glob("*.whl") if wheels is not None else ()))


def _add(archive: tarfile.TarFile, name: str, path: Path) -> None:
    data = path.read_bytes()
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o755 if path.stat().st_mode & 0o100 else 0o644
    archive.addfile(member, io.BytesIO(data))
