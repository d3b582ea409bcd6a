"""The libraries that read QR codes, each behind the same two names: `name` and `decode`.

Either may be missing: there is no zxing-cpp wheel for 32-bit ARM, and pyzbar needs the shared library zbar.
Only QR model 2 is asked for: any wider choice reads noise as 1-D bars or Micro QR.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, NamedTuple

from hw.errors import DeviceNotFoundError, one_line
from hw.interfaces import CodeDecoder
from verifier.types import CodeSeen

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Not installed; installed without its shared library; installed in a version without what is used here.
_UNUSABLE = (ImportError, OSError, AttributeError)


class ZxingDecoder:
    """zxing-cpp: a millisecond a frame, payload bytes exactly as encoded. ImportError when not installed."""

    name = "zxing"
    package = "zxing-cpp"

    def __init__(self) -> None:
        import zxingcpp  # noqa: PLC0415 - optional

        self._read = zxingcpp.read_barcodes
        self._formats = zxingcpp.BarcodeFormats(zxingcpp.BarcodeFormat.QRCodeModel2)
        self._text_mode = zxingcpp.TextMode.Plain  # the default rewrites control bytes

    def decode(self, gray: NDArray[np.uint8]) -> list[CodeSeen]:
        """All codes in a uint8 height x width picture; corners clockwise from the code's own top left."""
        if gray.size == 0:
            return []
        found = self._read(gray, formats=self._formats, text_mode=self._text_mode)
        return [
            CodeSeen(
                payload=code.bytes,
                corners=_zxing_corners(code.position),
                decoder=self.name,
                version=_zxing_version(code),
            )
            for code in found
        ]


def _zxing_corners(position: object) -> tuple[tuple[int, int], ...]:
    names = ("top_left", "top_right", "bottom_right", "bottom_left")
    return tuple((point.x, point.y) for point in (getattr(position, name) for name in names))


def _zxing_version(code: object) -> int | None:
    """The symbol version, which releases before 3.1 do not tell."""
    extra = getattr(code, "extra", None)
    number = str(extra.get("Version")) if isinstance(extra, dict) else ""
    return int(number) if number.isdecimal() else None


class ZbarDecoder:
    """pyzbar: slower, but reads some dirty codes and moiré that zxing does not. ImportError when not usable.

    zbar turns a payload into UTF-8 text. Pure ASCII comes back byte for byte, and the payload of a mark is
    base45, thus ASCII. Any other payload comes back as zbar's guess at its text (a byte order mark is
    dropped): good enough to call the code foreign, and no other bytes could be recovered from it.
    """

    name = "zbar"
    package = "pyzbar"

    def __init__(self) -> None:
        from pyzbar import pyzbar  # noqa: PLC0415 - optional

        self._read = pyzbar.decode
        # Without this list zbar also runs its 1-D readers, which find bars in noise and warn on stderr.
        self._symbols = [pyzbar.ZBarSymbol.QRCODE]

    def decode(self, gray: NDArray[np.uint8]) -> list[CodeSeen]:
        """All codes in a uint8 height x width picture; corners are the hull of what zbar saw."""
        if gray.size == 0:
            return []
        return [
            CodeSeen(payload=code.data, corners=tuple((x, y) for x, y in code.polygon), decoder=self.name)
            for code in self._read(gray, symbols=self._symbols)
        ]


_DECODERS = (ZxingDecoder, ZbarDecoder)  # the quick one first


def available_decoders() -> list[CodeDecoder]:
    """The decoders that work here, the quick one first; DeviceNotFoundError when there is none."""
    found: list[CodeDecoder] = []
    for make in _DECODERS:
        try:
            found.append(make())
        except _UNUSABLE:
            continue
    if not found:
        raise DeviceNotFoundError(
            "decoder", "no QR library: install zxing-cpp, or pyzbar with the system package libzbar0"
        )
    return found


class DecoderState(NamedTuple):
    """Whether a decoder works here, and its package's version or else what keeps it from working."""

    name: str
    works: bool
    detail: str


def decoder_report() -> list[DecoderState]:
    """One line of diagnostics for each decoder that could be here."""
    report = []
    for make in _DECODERS:
        try:
            make()
        except _UNUSABLE as exc:
            report.append(DecoderState(make.name, False, _problem(exc)))
        else:
            report.append(DecoderState(make.name, True, _version_of(make.package)))
    return report


def _problem(exc: Exception) -> str:
    if isinstance(exc, ModuleNotFoundError):
        return "not installed"
    if isinstance(exc, AttributeError):
        return one_line(f"installed in a version without what is needed: {exc}")
    return one_line(f"installed, but does not load: {exc}")


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # built from source, without metadata
        return "version not known"
