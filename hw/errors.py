"""What goes wrong with parts, in words for a technician; a text names no path, plate or key.

The errors survive pickling, because the scanner process sends them to the program.
"""

from __future__ import annotations

_LONGEST = 120  # characters; a screen line or a log line, not a page


def one_line(text: str) -> str:
    """The text as one printable line of bounded length: what is not printable becomes "?"."""
    line = "".join(char if char.isprintable() else "?" for char in text[: _LONGEST + 1])
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


class HardwareError(Exception):
    """Root of everything this package raises: which component, and what is the matter with it."""

    def __init__(self, component: str, problem: str) -> None:
        super().__init__(component, problem)
        self.component = component
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.component}: {self.problem}"


class DeviceNotFoundError(HardwareError):
    """The part, or the library that drives it, is not there."""


class DeviceTimeoutError(HardwareError):
    """The part did not answer in time; that says nothing about what it would have answered."""


class DeviceFaultError(HardwareError):
    """The part answered with a fault; `code` is the number it gave."""

    def __init__(self, component: str, problem: str, code: int) -> None:
        super().__init__(component, problem)
        self.args = (component, problem, code)
        self.code = code


class FrameError(HardwareError):
    """A picture that cannot be used; the component is the file's name without its folder."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(one_line(name), one_line(problem))
