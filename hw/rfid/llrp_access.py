"""Reading tags' memory through LLRP: an AccessSpec that rides on an inventory (LLRP 1.0.1, AccessSpec and C1G2Read).

Its only operation is a read. A reader executes it on every tag of the inventory that the spec is for, and tells the
words in the tag's own report.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from hw.errors import TagProblem
from hw.rfid.llrp_codec import LOCKED, NO_RESPONSE, OVERRUN, READ_WORDS, SERIES, TID_PART, USER_PART
from hw.rfid.types import Bank, InventoryConfig

ACCESS_SPEC = 1
_EPC_BIT = 32  # where the EPC begins in its bank, behind CRC and PC

PROBLEMS = {NO_RESPONSE: TagProblem.NOT_FOUND, OVERRUN: TagProblem.OVERRUN, LOCKED: TagProblem.LOCKED}


class MemoryPart(NamedTuple):
    """Words of a bank, and which part of what a tag tells they are."""

    part: int
    bank: Bank
    word: int
    words: int
    password: bytes = bytes(4)


def along_with(config: InventoryConfig) -> list[MemoryPart]:
    """What is to be read of every tag: the TID, and the user memory in parts of READ_WORDS."""
    parts = [MemoryPart(TID_PART, Bank.TID, 0, config.tid)] if config.tid else []
    for part, word in enumerate(range(0, config.user, READ_WORDS), USER_PART):
        parts.append(MemoryPart(part, Bank.USER, word, min(READ_WORDS, config.user - word)))
    return parts


def access_spec(lib: Any, inventory: int, series: int, parts: Iterable[MemoryPart], epc: bytes = b"") -> Any:
    """The spec that reads these parts of the tags of a ROSpec; `epc` narrows it to those whose EPC begins so."""
    target = lib.C1G2TargetTag_Parameter(
        MB=Bank.EPC, Match=True, Pointer=_EPC_BIT, TagMask=b"\xff" * len(epc), TagData=epc
    )
    reads = [
        lib.C1G2Read_Parameter(
            OpSpecID=series << SERIES | of.part, AccessPassword=int.from_bytes(of.password, "big"), MB=int(of.bank),
            WordPointer=of.word, WordCount=of.words,
        )
        for of in parts
    ]  # fmt: skip
    command = lib.AccessCommand_Parameter(Parameters=[lib.C1G2TagSpec_Parameter(Parameters=[target]), *reads])
    return lib.AccessSpec_Parameter(
        AccessSpecID=ACCESS_SPEC, AntennaID=0, ProtocolID=1, CurrentState=False, ROSpecID=inventory,
        Parameters=[
            lib.AccessSpecStopTrigger_Parameter(AccessSpecStopTrigger=0, OperationCountValue=0), command,
            lib.AccessReportSpec_Parameter(AccessReportTrigger=0),
        ],
    )  # fmt: skip
