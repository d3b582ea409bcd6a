"""Keeps the pictures on which the scanner died: the last few, as PNG, readable by nobody else.

They show cars and their plates, so they are sealed like photos where the device has the authority's key: then a
technician sends them to the authority, and whoever has the card sees none.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from firmware.scan_protocol import FRAME_HEADER, MAX_FRAME_PIXELS, MAX_FRAME_SIDE

KEPT = 5
_NAME = re.compile(r"fault-(\d{6})-[a-z_]+\.(png|box)")
_GREY = 0  # colour type, PNG (ISO/IEC 15948) clause 11.2.2


Seal = Callable[[str, bytes], bytes]
"""Seals a picture under its name."""


class FaultFrames:
    """A folder of pictures with a number each; the oldest go."""

    def __init__(self, folder: Path, *, kept: int = KEPT, seal: Seal | None = None) -> None:
        """`seal`: as a .box that this device cannot open; without it as a plain picture."""
        self._folder, self._kept, self._seal = folder, kept, seal

    def save(self, slot: int, reason: str) -> Path | None:
        """Keep the frame in the slot, an open file; None when there is none in it or the disk does not take it."""
        png = _png_of(slot)
        if png is None:
            return None
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            older = self._pictures()
            number = int(older[-1].name[6:12]) + 1 if older else 1
            suffix = "png" if self._seal is None else "box"
            path = self._folder / f"fault-{number % 1_000_000:06}-{reason.lower()}.{suffix}"
            self._write(path, png if self._seal is None else self._seal(path.name, png))
            for old in [*older, path][: -self._kept]:
                old.unlink(missing_ok=True)
        except OSError:
            return None
        return path

    def _write(self, path: Path, data: bytes) -> None:
        """The whole picture or none: half of one would push out one that helps. OSError."""
        try:
            with open(path, "wb", opener=_for_the_owner) as file:
                file.write(data)
        except OSError:
            path.unlink(missing_ok=True)
            raise

    def forget_plain(self) -> None:
        """Remove the plain pictures of before, where they are sealed now; what the disk does not let go stays."""
        if self._seal is not None:
            with suppress(OSError):
                for path in self._pictures():
                    if path.suffix == ".png":
                        path.unlink()

    def _pictures(self) -> list[Path]:
        return sorted(path for path in self._folder.iterdir() if _NAME.fullmatch(path.name))


def _for_the_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _png_of(slot: int) -> bytes | None:
    # Read, not mapped: who wrote it may have shortened it.
    header = os.pread(slot, FRAME_HEADER.size, 0)
    if len(header) < FRAME_HEADER.size:
        return None
    height, width = FRAME_HEADER.unpack(header)
    if not 0 < height * width <= MAX_FRAME_PIXELS or max(height, width) > MAX_FRAME_SIDE:
        return None
    pixels = os.pread(slot, height * width, FRAME_HEADER.size)
    return png(pixels, height, width) if len(pixels) == height * width else None


def png(pixels: bytes, height: int, width: int) -> bytes:
    """A PNG file (ISO/IEC 15948) of height x width grey bytes; made here because the program loads no image library."""
    rows = b"".join(b"\0" + pixels[start : start + width] for start in range(0, height * width, width))
    header = struct.pack(">IIBBBBB", width, height, 8, _GREY, 0, 0, 0)
    parts = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows, 1)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
