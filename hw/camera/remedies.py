"""What a camera can do about frames in which nothing is read: lamp and exposure, as values for its driver to apply."""

from __future__ import annotations

from hw.interfaces import CameraSettings
from verifier.types import Hint

_STEP_S = 0.5  # of nothing read, until exposure is tried otherwise
_BRACKET = (0, -1, 1)  # stops; less first: screens burn out more often than paper drowns


def remedy(settings: CameraSettings, hint: Hint | None, *, unread_s: float) -> CameraSettings:
    """The settings for the next frames, from those of a frame in which nothing was read for `unread_s` seconds.

    Darkness asks for the lamp, and for a stop more where that is lit already; glare for less light. Anything else
    is bracketed, because an exposure for the scene may be none for the code. The lamp, once lit, stays until it
    dazzles: without it the dark would be back.
    """
    if hint is Hint.DARK:
        return CameraSettings(torch=True, exposure_ev=1 if settings.torch else 0)
    if hint is Hint.GLARE:
        return CameraSettings(torch=False, exposure_ev=-1)
    step = int(unread_s / _STEP_S) % len(_BRACKET)
    return CameraSettings(torch=settings.torch, exposure_ev=_BRACKET[step])
