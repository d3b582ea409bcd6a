"""OLED panels that luma.oled drives: 128 x 64 in one bit, 256 x 64 in grey, 128 x 128 in colour, on SPI or I2C."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hw.display.packers import send_pages, send_ram, send_window
from hw.display.sizes import SIZES
from hw.errors import DeviceFaultError

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True)
class Model:
    """The driver class in luma.oled.device, the size in pixels, the mode of its pictures, and who sends them."""

    driver: str
    size: tuple[int, int]
    mode: str
    send: Callable[[Any, Image.Image], None]


# A new panel is a new row here, in SIZES, and in SIMULATED of simulated.py.
MODELS: dict[str, Model] = {
    "ssd1309": Model("ssd1309", SIZES["ssd1309"], "1", send_window),
    "ssd1306": Model("ssd1306", SIZES["ssd1306"], "1", send_window),
    "sh1106": Model("sh1106", SIZES["sh1106"], "1", send_pages),
    "ssd1322": Model("ssd1322", SIZES["ssd1322"], "L", send_ram),
    "ssd1351": Model("ssd1351", SIZES["ssd1351"], "RGB", send_ram),
}


class LumaPanel:
    """A luma.oled device as the program's display, for the one thread that owns the panel."""

    def __init__(self, device: Any, model: Model) -> None:
        self._device, self._model = device, model
        # luma clears every panel when the interpreter ends. The last picture is ours to keep or to remove
        # (`close`), and a device that stays lit must not be woken by a hook that runs after its bus is gone.
        device.persist = True
        self._contrast: int | None = None
        self._last: Image.Image | None = None
        self._closed = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        width, height = self._device.size
        return width, height

    def show(self, image: Image.Image) -> None:
        """Put a picture of exactly `size` on the panel, in its colours; in one bit grey is cut at the middle."""
        if image.size != self.size:
            raise ValueError(f"picture of {image.size[0]}x{image.size[1]} for a panel of {self.size}")
        self._last = _in_mode(image, self._model.mode)
        with _bus("picture not taken"):
            self._model.send(self._device, self._last)

    def contrast(self, level: int) -> None:
        """Brightness of the lit pixels, 0 to 255; 0 is dim and not dark."""
        if not 0 <= level <= 255:
            raise ValueError(f"contrast not in 0..255: {level}")
        self._contrast = level
        with _bus("contrast not taken"):
            self._device.contrast(level)

    def reset(self) -> None:
        """Tell the controller everything again, then the last contrast and picture.

        For after an error and for every few minutes: a controller that lost its supply for a moment is dark
        and does not say so.
        """
        # luma sends the start sequence in the constructor only. The same object is used again because luma keeps
        # every device it has made alive until the program ends.
        try:
            with _bus("start sequence not taken"):
                type(self._device).__init__(self._device, self._device._serial_interface)
        finally:
            self._device.persist = True
        if self._contrast is not None:
            self.contrast(self._contrast)
        if self._last is not None:
            self.show(self._last)

    def close(self, *, keep_picture: bool = False) -> None:
        """Switch the panel off, unless its picture is to stay, and give the bus back; harmless twice."""
        if self._closed:
            return
        self._closed = True
        if not keep_picture:
            # A lost panel is dark already, and nobody is left who could do something about it.
            with suppress(DeviceFaultError), _bus("not switched off"):
                self._device.hide()
        serial, self._device._serial_interface = self._device._serial_interface, _NoBus()
        with suppress(DeviceFaultError), _bus("not given back"):
            serial.cleanup()


def open_panel(model: str, serial: Any) -> LumaPanel:
    """Start the panel of this model on a luma serial interface, or on a simulated module in its place."""
    if model not in MODELS:
        raise ValueError(f"panel: unknown model {model!r}; known: {', '.join(MODELS)}")
    row = MODELS[model]
    import luma.oled.device  # noqa: PLC0415 - 57 ms, and only where there is such a panel

    with _bus("start sequence not taken"):
        return LumaPanel(getattr(luma.oled.device, row.driver)(serial, width=row.size[0], height=row.size[1]), row)


class _NoBus:
    """Stands in for a bus that was given back; luma's hook calls it once more when the interpreter ends."""

    def command(self, *_: int) -> None:
        raise OSError(errno.EBADF, "panel closed")

    def data(self, _: object) -> None:
        raise OSError(errno.EBADF, "panel closed")

    def cleanup(self) -> None:
        pass


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    """A copy in this mode; dithering would make noise of small letters."""
    if image.mode == mode:
        return image.copy()
    if mode != "1":
        return image.convert(mode)
    from PIL import Image  # noqa: PLC0415 - only when a picture is there, which loaded it

    return image.convert("L").convert("1", dither=Image.Dither.NONE)  # ink from half of white on


@contextmanager
def _bus(problem: str) -> Iterator[None]:
    """Errors of the bus become DeviceFaultError; mistakes in our own code pass as they are."""
    import luma.core.error  # noqa: PLC0415 - see open_panel

    with warnings.catch_warnings():
        # luma.oled 3.16 calls Image.getdata, which Pillow 13 announces to drop in version 14.
        warnings.filterwarnings("ignore", message="Image.Image.getdata", category=DeprecationWarning)
        try:
            yield
        except (OSError, luma.core.error.Error) as exc:
            cause = exc if isinstance(exc, OSError) else exc.__context__
            code = getattr(cause, "errno", None) or 0
            raise DeviceFaultError("panel", f"{problem} ({type(exc).__name__})", code) from exc
