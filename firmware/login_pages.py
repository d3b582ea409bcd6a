"""What stands on the pages of the login and of the limited answers, in words; see `firmware.pages`."""

from __future__ import annotations

from firmware.machine import states as st
from firmware.machine.states import State
from firmware.rows import Row
from verifier.officers import LoginFault
from verifier.roles import answer_lines
from verifier.verdict import Role
from verifier.wording import Text

REFUSALS: dict[LoginFault, Text] = {
    LoginFault.WRONG: Text("警号或密码有误", "WRONG NO. OR PIN"),
    LoginFault.WAIT: Text("错误次数过多", "TOO MANY TRIES"),
    LoginFault.NO_OFFICERS: Text("未录入人员", "NO OFFICERS"),
    LoginFault.FILE: Text("人员文件故障", "FILE FAULT"),
}
_TRYING, _AGAIN, _WAIT = (
    Text("正在核对", "CHECKING"),
    Text("按任意键重试", "ANY KEY: AGAIN"),
    Text("{}{}后再试", "WAIT {} {}"),
)
_SECONDS, _MINUTES = Text("秒", "s"), Text("分钟", "min")
_PROMPT, _HIDDEN = ">", "*"


def answer_rows(state: State, page: st.Answer, room: int) -> tuple[Row, ...]:
    """The limited answer, the same on every panel and in no tone's colour."""
    role = Role.INSURER if state.officer is None else state.officer.role
    return tuple(Row(text.in_(state.language)) for text in answer_lines(page.answer, role))


def login_rows(state: State, page: st.Login, room: int) -> tuple[Row, ...]:
    """What is typed, the PIN hidden; or what came of it, in words that tell nobody which of the two was wrong."""
    if page.attempt is not None:
        return (Row(_TRYING.in_(state.language), big=True),)
    if page.refused is None:
        entry = page.pin if page.number.done else page.number
        shown = _HIDDEN * len(entry.text) if page.number.done else entry.text
        cursor = "_" if len(entry.text) < entry.longest else ""
        return (Row(f"{_PROMPT}{shown}{cursor}", big=True, left=True),)
    told = Row(REFUSALS[page.refused].in_(state.language))
    if page.until_ms is None:
        return told, Row(_AGAIN.in_(state.language))
    unit = _SECONDS if page.wait_s <= 60 else _MINUTES
    number = page.wait_s if page.wait_s <= 60 else page.wait_s // 60
    return told, Row(_WAIT.in_(state.language).format(number, unit.in_(state.language)))
