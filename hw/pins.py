"""What goes wrong with GPIO pins, in gpiozero and in the library below it."""

from __future__ import annotations

import sys

from gpiozero.exc import GPIOZeroError


def pin_errors() -> tuple[type[Exception], ...]:
    """What a pin that is not there, not allowed or held by another program raises; to be asked when it has.

    lgpio's own error is neither gpiozero's nor an OSError, and gpiozero lets it pass. It is looked for only where the
    library is loaded: loading it starts a thread and opens a pipe.
    """
    lgpio = sys.modules.get("lgpio")
    own: tuple[type[Exception], ...] = () if lgpio is None else (lgpio.error,)
    return (GPIOZeroError, OSError, ImportError, *own)  # a pin library named and not there is an ImportError
