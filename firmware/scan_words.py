"""What the officer is told while no code is read: a hint what to do, or what is the matter with the scanner."""

from __future__ import annotations

from firmware.scanner import FaultReason
from verifier.types import Hint
from verifier.wording import HINTS, Text

_AIM_AGAIN = Text("请重新对准", "AIM AGAIN")  # a code seems to be there, and nothing measured tells why it is not read
_RESTARTING = Text("扫码重启中", "SCANNER RESTARTS")

FAULTS: dict[FaultReason, Text] = {
    FaultReason.HANG: _RESTARTING,
    FaultReason.CRASH: _RESTARTING,
    FaultReason.BABBLE: _RESTARTING,
    FaultReason.NO_START: _RESTARTING,
    FaultReason.MISSING: Text("扫码部件缺失", "NO SCANNER PART"),
    FaultReason.UNUSABLE: Text("图像无法使用", "BAD PICTURE"),
    FaultReason.NO_FRAMES: Text("未取得图像", "NO PICTURE YET"),
    FaultReason.ENDED: Text("已无更多图像", "NO MORE PICTURES"),
}


def hint_text(hint: Hint | None) -> Text:
    """At most 8 Chinese or 16 Latin characters for a `HintEvent`'s hint, its None included."""
    return _AIM_AGAIN if hint is None else HINTS[hint]
