"""Pictures from disk in place of a camera: one file, or a folder of them. Nothing in a file is trusted.

A file is refused by its size before it is read, and a picture by its header before its pixels are decoded.
The limits are such that each is given or refused within about a second, and takes some 300 MB at the worst.
"""

from __future__ import annotations

import errno
import io
import re
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from hw.errors import FrameError, one_line
from hw.interfaces import Frame

MAX_BYTES = 20_000_000
MAX_PIXELS = 25_000_000  # more than any screen has; these formats are decoded whole
MAX_PIXELS_WEBP = 16_000_000  # its decoder takes twice the time, and 15 bytes a pixel
MAX_PIXELS_JPEG = 51_000_000  # phones take 12 to 50; a large one is decoded to a fraction of its size
# Phones put further pictures behind a photograph, for depth or brightness; Pillow calls that MPO.
_LIMITS = {"JPEG": MAX_PIXELS_JPEG, "MPO": MAX_PIXELS_JPEG, "WEBP": MAX_PIXELS_WEBP}
MAX_SCANS = 32  # of a JPEG picture; encoders write ten to twenty, and its decoder goes over all pixels for each
MAX_SEGMENTS = 2000  # of a JPEG picture; each can hold 65 kB, and Pillow takes time for empty ones too
MAX_SIDE = 4096  # pixels; what is larger is scaled down to it

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")  # Pillow knows many more, hardly ever looked after

_DEEP = frozenset({"I", "I;16", "I;16B", "I;16L"})  # older Pillow gives 16-bit PNG as "I"
_WITH_ALPHA = frozenset({"LA", "PA", "RGBA", "RGBa"})
_ALPHA_BANDS = frozenset({"LA", "RGBA"})
_PLAIN = frozenset({"1", "L", "P", "RGB", "RGBX", "YCbCr", "CMYK"})
_STRIP_PIXELS = 4_000_000  # converted at a time, so that copies stay small beside the picture

# ITU-T T.81 annex B.1.1: a marker that is followed by a segment or ends the picture. Stuffed bytes, TEM and restarts
# are none.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
_SOI, _EOI, _SOS = b"\xff\xd8", b"\xff\xd9", b"\xff\xda"

_TOO_MANY_PARTS = "more scans or segments than any encoder writes"
_TOO_LARGE = f"larger than {MAX_BYTES // 1_000_000} MB"
_OS_PROBLEMS = {
    errno.ENOENT: "no such file or folder",
    errno.EACCES: "no permission to read it",
    errno.EPERM: "no permission to read it",
    errno.ELOOP: "a link that leads back to itself",
}


class FileSource:
    """A picture file, or the pictures directly in a folder in the order of their names.

    Each file gives one `Frame` or one `FrameError`; so do a missing path and an empty folder. Subfolders are
    not entered, other files in a folder are passed over, and of an animation the first picture counts. `skip` files
    at the beginning are passed over without being opened.
    """

    def __init__(self, path: Path, *, skip: int = 0) -> None:
        self._path, self._skip = path, skip
        self._closed = False
        self.total: int | None = None  # files; known once the first was asked for

    def frames(self) -> Iterator[Frame | FrameError]:
        """One value for each file, read when it is asked for."""
        try:
            paths = _pictures(self._path)
        except FrameError as error:
            yield error
            return
        self.total = len(paths)
        for path in paths[self._skip :]:
            if self._closed:
                return
            try:
                frame: Frame | FrameError = load_picture(path)
            except FrameError as error:
                frame = error
            yield frame

    def close(self) -> None:
        """End the iteration; harmless twice."""
        self._closed = True


def load_picture(path: Path) -> Frame:
    """The luminance of one picture file, upright or not, at most MAX_SIDE long; FrameError when unusable."""
    name = _name(path)
    data = _bytes(path, name)
    with warnings.catch_warnings():
        # Pillow warns of what is checked below (many pixels) and of what does no harm (odd metadata).
        warnings.simplefilter("ignore")
        with _decoded(data, name) as image:
            gray = _fitted(_luminance(image, name))
    return Frame(gray=gray, name=one_line(name))


def _name(path: Path) -> str:
    return path.name or str(path)


def _pictures(path: Path) -> list[Path]:
    name = _name(path)
    try:
        if not stat.S_ISDIR(path.stat().st_mode):
            return [path]
        found = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES)
    except (OSError, ValueError) as exc:
        raise FrameError(name, os_problem(exc)) from exc
    if not found:
        raise FrameError(name, "no pictures in this folder")
    return found


def _bytes(path: Path, name: str) -> bytes:
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):  # opening a pipe waits for ever, opening a device may do anything
            raise FrameError(name, "not a file")
        if info.st_size > MAX_BYTES:
            raise FrameError(name, _TOO_LARGE)
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)  # one more than allowed, in case the file grows meanwhile
    except (OSError, ValueError) as exc:
        raise FrameError(name, os_problem(exc)) from exc
    if len(data) > MAX_BYTES:
        raise FrameError(name, _TOO_LARGE)
    if not data:
        raise FrameError(name, "the file is empty")
    return data


# What Pillow's decoders are known to raise for damaged data; they promise no single type.
_PILLOW_ERRORS = (
    OSError,  # EOF included; the usual one
    ValueError,
    SyntaxError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    MemoryError,
    RuntimeError,  # NotImplementedError included
    struct.error,
    zlib.error,
)


def os_problem(exc: OSError | ValueError) -> str:
    """Why the system does not give a file, in words of our own; ValueError is what it raises for the name itself."""
    if isinstance(exc, OSError):
        return _OS_PROBLEMS.get(exc.errno or 0, exc.strerror or "cannot be read")
    return "not a possible file name"  # an embedded null byte


def _decoded(data: bytes, name: str) -> Image.Image:
    """The picture with its pixels decoded, not yet converted."""
    if data.startswith(_SOI) and _has_many_parts(data):
        raise FrameError(name, _TOO_MANY_PARTS)
    # Nothing but Pillow's own calls stands in these blocks.
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError as exc:
        raise FrameError(name, _too_many(MAX_PIXELS_JPEG)) from exc
    except UnidentifiedImageError as exc:
        raise FrameError(name, "not a picture of a known format") from exc
    except _PILLOW_ERRORS as exc:
        raise FrameError(name, "damaged picture header") from exc
    limit = _LIMITS.get(image.format or "", MAX_PIXELS)
    if image.width * image.height > limit:
        raise FrameError(name, _too_many(limit))
    try:
        # JPEG can decode to luminance alone, and to a fraction of its size; for other formats nothing happens.
        image.draft("L", _fitting_size(image.size))
        image.load()
    except _PILLOW_ERRORS as exc:
        raise FrameError(name, "damaged or cut short") from exc
    return image


def _has_many_parts(data: bytes) -> bool:
    """Whether a JPEG picture has more scans or segments than its decoders manage in time; what follows it is none."""
    scans = place = 0
    for _ in range(MAX_SEGMENTS):
        marker = _MARKER.search(data, place)
        if marker is None or marker[0] == _EOI:
            return False
        scans += marker[0] == _SOS
        if scans > MAX_SCANS:
            return True
        # The length of a segment, or of the head of a scan: its pixels hold no marker.
        place = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return True


def _too_many(pixels: int) -> str:
    return f"more than {pixels // 1_000_000} megapixels"


def _luminance(image: Image.Image, name: str) -> NDArray[np.uint8]:
    """The picture in grey, height x width, strip by strip."""
    if image.mode not in _PLAIN | _WITH_ALPHA | _DEEP:
        raise FrameError(name, f"pixels of the kind {image.mode} are not supported")
    width, height = image.size
    gray = np.empty((height, width), np.uint8)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        gray[top:bottom] = _gray(image.crop((0, top, width, bottom)))
    return gray


def _gray(part: Image.Image) -> NDArray[np.uint8]:
    if part.mode in _DEEP:
        return np.asarray(np.clip(np.asarray(part), 0, 0xFFFF) // 256, np.uint8)
    if part.mode in _WITH_ALPHA or "transparency" in part.info:
        # Codes are printed on white; transparent pixels often hold black.
        part = part if part.mode in _ALPHA_BANDS else part.convert("RGBA")
        white = Image.new("L", part.size, "white")
        part = Image.composite(part.convert("L"), white, part.getchannel("A"))
    elif part.mode == "CMYK":
        part = part.convert("RGB")
    return np.asarray(part.convert("L"), np.uint8)


def _fitting_size(size: tuple[int, int]) -> tuple[int, int]:
    share = min(1.0, MAX_SIDE / max(size))
    return max(1, round(size[0] * share)), max(1, round(size[1] * share))


def _fitted(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = gray.shape
    size = _fitting_size((width, height))
    if size == (width, height):
        return gray
    return np.array(Image.fromarray(gray).resize(size, Image.Resampling.HAMMING))
