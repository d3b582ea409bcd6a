"""The value types of libcamera's Python bindings, as far as Picamera2 uses them: names and meanings are libcamera's."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass


class ControlType(enum.Enum):
    """Type of a control's value."""

    Null = 0
    Bool = 1
    Byte = 2
    Unsigned16 = 3
    Unsigned32 = 4
    Integer32 = 5
    Integer64 = 6
    Float = 7
    String = 8
    Rectangle = 9
    Size = 10
    Point = 11


@dataclass(frozen=True, slots=True)
class ControlId:
    """A control, property or piece of metadata; two are the same when their numbers are."""

    id: int
    name: str
    type: ControlType

    def __hash__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ControlId) and other.id == self.id


@dataclass(frozen=True, slots=True)
class ControlInfo:
    """What values a control takes."""

    min: object
    max: object
    default: object


# Picamera2 puts methods of its own on the next four, so they take attributes.


class Size:
    """Width and height in pixels."""

    def __init__(self, width: int = 0, height: int = 0) -> None:
        self.width, self.height = int(width), int(height)

    def __repr__(self) -> str:
        return f"libcamera.Size({self.width}, {self.height})"


class Rectangle:
    """Left, top, width and height in pixels."""

    def __init__(self, x: int = 0, y: int = 0, width: int = 0, height: int = 0) -> None:
        self.x, self.y, self.width, self.height = int(x), int(y), int(width), int(height)

    def __repr__(self) -> str:
        return f"libcamera.Rectangle({self.x}, {self.y}, {self.width}, {self.height})"


class Transform:
    """How the picture is turned."""

    def __init__(
        self, other: Transform | None = None, hflip: object = False, vflip: object = False, transpose: object = False
    ) -> None:
        self.hflip: bool = bool(hflip if other is None else other.hflip)
        self.vflip: bool = bool(vflip if other is None else other.vflip)
        self.transpose: bool = bool(transpose if other is None else other.transpose)

    def __str__(self) -> str:  # which Picamera2 makes its __repr__
        return f"<libcamera.Transform {self.hflip} {self.vflip} {self.transpose}>"


class ColorSpace:
    """Meaning of the pixels' values."""

    Primaries = enum.IntEnum("Primaries", ["Raw", "Smpte170m", "Rec709", "Rec2020"], start=0)
    TransferFunction = enum.IntEnum("TransferFunction", ["Linear", "Srgb", "Rec709"], start=0)
    YcbcrEncoding = enum.IntEnum("YcbcrEncoding", ["Null", "Rec601", "Rec709", "Rec2020"], start=0)
    Range = enum.IntEnum("Range", ["Full", "Limited"], start=0)

    def __init__(self, primaries: ColorSpace | int, transfer: int = 0, encoding: int = 0, range_: int = 0) -> None:
        if isinstance(primaries, ColorSpace):
            vars(self).update(vars(primaries))
            return
        self.primaries: enum.IntEnum = self.Primaries(primaries)
        self.transferFunction: enum.IntEnum = self.TransferFunction(transfer)
        self.ycbcrEncoding: enum.IntEnum = self.YcbcrEncoding(encoding)
        self.range: enum.IntEnum = self.Range(range_)

    def __str__(self) -> str:
        return f"<libcamera.ColorSpace {self.primaries} {self.transferFunction}>"

    @staticmethod
    def Raw() -> ColorSpace:  # noqa: N802, D102 - libcamera's name
        return ColorSpace(0, 0, 0, 0)

    @staticmethod
    def Sycc() -> ColorSpace:  # noqa: N802, D102
        return ColorSpace(2, 1, 1, 0)

    @staticmethod
    def Smpte170m() -> ColorSpace:  # noqa: N802, D102
        return ColorSpace(1, 2, 1, 1)

    @staticmethod
    def Rec709() -> ColorSpace:  # noqa: N802, D102
        return ColorSpace(2, 2, 2, 1)


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """A pixel format by its name."""

    name: str = ""

    def __str__(self) -> str:
        return self.name


Orientation = enum.Enum(
    "Orientation",
    "Rotate0 Rotate0Mirror Rotate180 Rotate180Mirror Rotate90Mirror Rotate270 Rotate270Mirror Rotate90",
)
StreamRole = enum.Enum("StreamRole", ["Raw", "StillCapture", "VideoRecording", "Viewfinder"])

# ------------------------------------------------------------------------------------------------- controls

SENSOR = (4608, 2592)  # pixels; the IMX708 of a Camera Module 3
MODES = ((1536, 864), (2304, 1296), SENSOR)

_FULL, _LEAST = Rectangle(0, 0, *SENSOR), Rectangle(0, 0, 64, 64)
_BOOL, _INT, _LONG, _FLOAT = ControlType.Bool, ControlType.Integer32, ControlType.Integer64, ControlType.Float
_RECTANGLE = ControlType.Rectangle

# As a Camera Module 3 on a Raspberry Pi 4 says of itself: type, least, most, default.
_CONTROLS: dict[str, tuple[ControlType, object, object, object]] = {
    "AeEnable": (_BOOL, False, True, True),
    "AeConstraintMode": (_INT, 0, 3, 0),
    "AeExposureMode": (_INT, 0, 3, 0),
    "AeMeteringMode": (_INT, 0, 3, 0),
    "AeFlickerMode": (_INT, 0, 1, 0),
    "AeFlickerPeriod": (_INT, 100, 1_000_000, None),
    "ExposureTime": (_INT, 26, 220_417_486, 20_000),
    "ExposureTimeMode": (_INT, 0, 1, 0),
    "ExposureValue": (_FLOAT, -8.0, 8.0, 0.0),
    "AnalogueGain": (_FLOAT, 1.122807, 16.0, 1.0),
    "AnalogueGainMode": (_INT, 0, 1, 0),
    "NoiseReductionMode": (_INT, 0, 4, 0),
    "FrameDurationLimits": (_LONG, 17_849, 220_535_845, 33_333),
    "ScalerCrop": (_RECTANGLE, _LEAST, _FULL, _FULL),
    "AfMode": (_INT, 0, 2, 0),
    "AfTrigger": (_INT, 0, 1, 0),
    "AfRange": (_INT, 0, 2, 0),
    "AfSpeed": (_INT, 0, 1, 0),
    "AfMetering": (_INT, 0, 1, 0),
    "AfPause": (_INT, 0, 2, 0),
    "AfWindows": (_RECTANGLE, Rectangle(), Rectangle(0, 0, 65535, 65535), Rectangle()),
    "LensPosition": (_FLOAT, 0.0, 15.0, 1.0),
}
_METADATA = {
    "SensorTimestamp": _LONG,  # nanoseconds of the monotonic clock, at the first line of the frame
    "FrameDuration": _LONG,
    "AfState": _INT,
    "FocusFoM": _INT,
    "Lux": _FLOAT,
    "DigitalGain": _FLOAT,
    "ColourTemperature": _INT,
}
_TYPES = {name: row[0] for name, row in _CONTROLS.items()} | _METADATA

IDS = {name: ControlId(number, name, kind) for number, (name, kind) in enumerate(_TYPES.items(), 1)}
CONTROLS = {IDS[name]: ControlInfo(*limits) for name, (_, *limits) in _CONTROLS.items()}


def _property(number: int, name: str, kind: ControlType) -> ControlId:
    return ControlId(1000 + number, name, kind)


PROPERTIES: dict[ControlId, object] = {
    _property(0, "Model", ControlType.String): "imx708",
    _property(1, "Location", _INT): 2,
    _property(2, "Rotation", _INT): 180,
    _property(3, "ColorFilterArrangement", _INT): 0,
    _property(4, "PixelArraySize", ControlType.Size): Size(*SENSOR),
    _property(5, "PixelArrayActiveAreas", _RECTANGLE): [Rectangle(16, 24, *SENSOR)],
    _property(6, "ScalerCropMaximum", _RECTANGLE): _FULL,
    _property(7, "UnitCellSize", ControlType.Size): Size(1400, 1400),
}

_CHOICES: dict[str, Sequence[str]] = {
    "AeConstraintModeEnum": ("Normal", "Highlight", "Shadows", "Custom"),
    "AeExposureModeEnum": ("Normal", "Short", "Long", "Custom"),
    "AeFlickerModeEnum": ("Off", "Manual", "Auto"),
    "AeMeteringModeEnum": ("CentreWeighted", "Spot", "Matrix", "Custom"),
    "AfMeteringEnum": ("Auto", "Windows"),
    "AfModeEnum": ("Manual", "Auto", "Continuous"),
    "AfPauseEnum": ("Immediate", "Deferred", "Resume"),
    "AfRangeEnum": ("Normal", "Macro", "Full"),
    "AfSpeedEnum": ("Normal", "Fast"),
    "AfStateEnum": ("Idle", "Scanning", "Focused", "Failed"),
    "AfTriggerEnum": ("Start", "Cancel"),
}
_DRAFT_CHOICES: dict[str, Sequence[str]] = {
    "NoiseReductionModeEnum": ("Off", "Fast", "HighQuality", "Minimal", "ZSL"),
    "ColorFilterArrangementEnum": ("RGGB", "GRBG", "GBRG", "BGGR", "RGB", "MONO"),
}


def _enums(choices: dict[str, Sequence[str]]) -> dict[str, object]:
    return {name: enum.IntEnum(name, list(values), start=0) for name, values in choices.items()}


ENUMS, DRAFT_ENUMS = _enums(_CHOICES), _enums(_DRAFT_CHOICES)
