"""When a camera's autofocus does not get there: a search by hand over the distances at which marks are read."""

from __future__ import annotations

from enum import IntEnum

SWEEP = (1.3, 2.0, 2.8, 3.5)  # dioptres: 77, 50, 36 and 29 cm
PATIENCE_S = 1.0  # without focus, until the search begins
HOLD_S = 0.4  # at each distance: the lens has moved after about 0.1 s, and some frames are read


class FocusState(IntEnum):
    """What the autofocus says of itself, libcamera's AfState."""

    IDLE = 0
    SCANNING = 1
    FOCUSED = 2
    FAILED = 3


class FocusSearch:
    """Says at which lens position the next frame is to be taken, from what the autofocus said with the last one."""

    def __init__(self) -> None:
        self._without_since: float | None = None
        self._sweep_since: float | None = None

    def position(self, state: FocusState, now_s: float) -> float | None:
        """Dioptres for the lens, or None for the autofocus; `now_s` is any clock's that never goes back.

        The autofocus has its turn again after each search, because the mark may have come nearer meanwhile.
        """
        if self._sweep_since is not None:
            step = int((now_s - self._sweep_since) / HOLD_S)
            if step < len(SWEEP):
                return SWEEP[step]
            self._sweep_since = self._without_since = None
            return None
        if state not in (FocusState.SCANNING, FocusState.FAILED):
            self._without_since = None
        elif self._without_since is None:
            self._without_since = now_s
        elif now_s - self._without_since >= PATIENCE_S:
            self._sweep_since = now_s
            return SWEEP[0]
        return None
