"""What goes wrong with parts, in words for a technician; a text names no path, plate or key.

The errors survive pickling, because the scanner process sends them to the program.
"""

from __future__ import annotations

from verifier.types import Code

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


class LinkLostError(HardwareError):
    """The line to the part is gone: unplugged, switched off, or taken by another program."""


class ReaderTimeoutError(DeviceTimeoutError):
    """The reader did not answer in time; that says nothing about any tag."""


class RejectedError(DeviceFaultError):
    """The reader refused a command; `code` is the number it gave."""


class TagProblem(Code):
    """Why a tag could not be read."""

    NOT_FOUND = "not_found"
    ACCESS = "access"
    OVERRUN = "overrun"
    LOCKED = "locked"
    POWER = "power"
    OTHER = "other"


class TagError(HardwareError):
    """The reader works, the tag did not give what was asked for."""

    def __init__(self, component: str, tag_problem: TagProblem) -> None:
        super().__init__(component, f"tag: {tag_problem.replace('_', ' ')}")
        self.args = (component, tag_problem)
        self.tag_problem = tag_problem


class UnsupportedError(HardwareError):
    """This part cannot do what was asked."""


class RegionRefusedError(HardwareError):
    """Band or power is not what the law allows, or the reader did not confirm it: nothing may be transmitted."""
