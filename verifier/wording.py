"""Every officer text in Chinese and English: one table each for verdicts, reasons, actions and hints.

A verdict text and a reason or action has at most 8 Chinese or 16 Latin characters, a headline at most 3 or 8.
The wording states facts and what the officer may do; amounts, points and article numbers belong elsewhere.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from verifier.types import Hint, PresentationMode, Purpose, StatusLetter, TagLevel
from verifier.verdict import Action, Reason, Tone, VerdictCode

Language = Literal["zh", "en"]
LANGUAGES: tuple[Language, ...] = ("zh", "en")


class Text(NamedTuple):
    """One text in both languages."""

    zh: str
    en: str

    def in_(self, language: Language) -> str:
        """The text in the language asked for."""
        return self.zh if language == "zh" else self.en


class VerdictText(NamedTuple):
    """The words and the tone of one verdict: a headline for the largest line, and the verdict's own text."""

    headline: Text
    text: Text
    tone: Tone


V, R, A = VerdictCode, Reason, Action

VERDICTS: dict[VerdictCode, VerdictText] = {
    V.WANTED: VerdictText(Text("布控", "WATCHED"), Text("布控车辆", "WATCHLIST HIT"), Tone.STOP),
    V.FORGED: VerdictText(Text("疑伪造", "FORGED?"), Text("疑似伪造凭证", "SUSPECT FORGED"), Tone.STOP),
    V.MISMATCH: VerdictText(Text("不符", "MISMATCH"), Text("车证不符", "PLATE MISMATCH"), Tone.STOP),
    V.WATCH_CONFIRM: VerdictText(Text("核牌", "HIT?"), Text("疑似布控先核牌", "HIT? CHECK PLATE"), Tone.CAUTION),
    V.DEREGISTERED: VerdictText(Text("注销", "DEREG."), Text("已注销或报废", "DEREGISTERED"), Tone.STOP),
    V.RESTRICTED: VerdictText(Text("受限", "RESTRICT"), Text("查封扣留停驶", "RESTRICTED"), Tone.STOP),
    V.OUT_OF_SCOPE: VerdictText(Text("范围外", "NO SCOPE"), Text("不在核查范围", "OUT OF SCOPE"), Tone.CAUTION),
    V.EXPIRED: VerdictText(Text("逾期", "OVERDUE"), Text("检验已逾期", "OVERDUE"), Tone.STOP),
    V.REVOKED: VerdictText(Text("撤销", "REVOKED"), Text("凭证已撤销", "REVOKED"), Tone.STOP),
    V.SUPERSEDED: VerdictText(Text("旧证", "OLD MARK"), Text("旧凭证车辆有效", "OLD MARK, VALID"), Tone.NOTE),
    V.NOT_YET_VALID: VerdictText(Text("未生效", "NOT YET"), Text("凭证未生效", "NOT YET VALID"), Tone.CAUTION),
    V.EXPIRED_UNCONFIRMED: VerdictText(
        Text("待核实", "OVERDUE?"), Text("疑似逾期待核实", "OVERDUE? CHECK"), Tone.CAUTION
    ),
    V.NOT_FOUND: VerdictText(Text("查无", "NO ENTRY"), Text("查无记录", "NOT FOUND"), Tone.CAUTION),
    V.VALID: VerdictText(Text("有效", "VALID"), Text("检验有效", "VALID"), Tone.PASS),
    V.VALID_STALE: VerdictText(Text("有效", "VALID"), Text("有效数据较旧", "VALID (OLD DATA)"), Tone.NOTE),
    V.SIGNED_ONLY: VerdictText(Text("仅验签", "SIGNED"), Text("验签通过未核状态", "SIGNED ONLY"), Tone.NOTE),
    V.UNTRUSTED_ISSUER: VerdictText(Text("不可信", "UNKNOWN"), Text("签发方不可信", "UNKNOWN ISSUER"), Tone.CAUTION),
    V.UNREADABLE: VerdictText(Text("重扫", "RESCAN"), Text("无法识读请重扫", "UNREADABLE"), Tone.CAUTION),
    V.NOT_A_MARK: VerdictText(Text("非标志", "NO MARK"), Text("非检验标志码", "NOT A MARK CODE"), Tone.CAUTION),
    V.UNSUPPORTED_VERSION: VerdictText(Text("请更新", "UPDATE"), Text("码版本过新", "UPDATE DEVICE"), Tone.CAUTION),
    V.UNDECIDED: VerdictText(Text("未判定", "UNCLEAR"), Text("无法判定", "CANNOT DECIDE"), Tone.CAUTION),
}

REASONS: dict[Reason, Text] = {
    R.CLOCK_CORRECTED: Text("时钟已校正", "CLOCK FIXED"),
    R.CLOCK_SUSPECT: Text("设备时钟可疑", "CLOCK SUSPECT"),
    R.QR_UNREADABLE: Text("码无法识读", "QR UNREADABLE"),
    R.QR_MALFORMED: Text("码内容残缺", "QR MALFORMED"),
    R.QR_FOREIGN: Text("非本系统码", "FOREIGN QR"),
    R.QR_VERSION: Text("码版本不支持", "QR VERSION"),
    R.QR_NOT_LIVE: Text("动态码已过时", "LIVE QR TOO OLD"),
    R.QR_ISSUER_UNKNOWN: Text("签发密钥未知", "KEY UNKNOWN"),
    R.QR_KEY_REVOKED: Text("签发密钥已停用", "KEY REVOKED"),
    R.TAG_AUTH_FAILED: Text("标识鉴权失败", "TAG AUTH FAILED"),
    R.ID_UNCONFIRMED_MISMATCH: Text("号牌读数不一致", "READS DIFFER"),
    R.ID_WEAK: Text("号牌未经确认", "ID UNCONFIRMED"),
    R.REPLATED: Text("车辆已换号牌", "REPLATED"),
    R.WATCH_STALE: Text("布控数据较旧", "OLD WATCH DATA"),
    R.WATCH_UNCONFIRMED: Text("号牌未经目视", "PLATE UNSEEN"),
    R.WATCH_LEAD: Text("码内号牌涉布控", "WATCH LEAD"),
    R.WATCH_KIND: Text("号牌种类待核", "WHICH KIND?"),
    R.STATUS_NOTE: Text("另有登记事项", "OTHER STATUS"),
    R.CTP_LAPSED: Text("交强险已过期", "INSURANCE OUT"),
    R.CREDENTIAL_NEWER_THAN_CACHE: Text("凭证新于缓存", "MARK IS NEWER"),
    R.NEWLY_ISSUED: Text("新核发未入库", "NEWLY ISSUED"),
    R.NO_STATUS_DATA: Text("无状态数据", "NO STATUS DATA"),
    R.STATUS_TOO_OLD: Text("状态数据过旧", "STATUS TOO OLD"),
    R.DATA_STALE: Text("数据已过更新期", "DATA STALE"),
    R.CREDENTIAL_REVOKED: Text("凭证已被撤销", "MARK REVOKED"),
    R.VEHICLE_VALID: Text("车辆检验有效", "VEHICLE VALID"),
    R.CREDENTIAL_OUTDATED: Text("凭证日期较旧", "MARK OUTDATED"),
    R.ONLINE_DENIED: Text("联网被拒绝", "ONLINE DENIED"),
    R.ONLINE_REJECTED: Text("联网应答不可信", "BAD REPLY"),
    R.ONLINE_TIMEOUT: Text("联网超时", "ONLINE TIMEOUT"),
    R.ONLINE_UNREACHABLE: Text("网络不通", "NO NETWORK"),
    R.CACHE_REJECTED: Text("缓存校验失败", "CACHE REJECTED"),
    R.TRUST_LIST_OLD: Text("信任名单过旧", "OLD TRUST LIST"),
    R.VIN_MISMATCH: Text("车架号不符", "VIN DIFFERS"),
    R.VIN_CONFIRMED: Text("车架号相符", "VIN CONFIRMED"),
    R.VIN_NOT_FOUND: Text("车架号查无登记", "VIN NOT FOUND"),
    R.VIN_WANTED: Text("车架号涉布控", "VIN WATCHED"),
}

ACTIONS: dict[Action, Text] = {
    A.RELEASE: Text("予以放行", "RELEASE"),
    A.NO_PENALTY_NOT_SHOWN: Text("未出示不予处罚", "NOT SHOWN: OK"),
    A.NO_PENALTY_NOT_DISPLAYED: Text("未粘贴不予处罚", "NO PAPER: OK"),
    A.FOLLOW_LOCAL_DISPLAY_RULE: Text("粘贴按当地规定", "LOCAL MARK RULE"),
    A.CONFIRM_PLATE: Text("目视核对号牌", "CHECK PLATE"),
    A.CONFIRM_CENTRE: Text("联系中心核实", "CALL CENTRE"),
    A.ONLINE_RECHECK: Text("联网复核", "RECHECK ONLINE"),
    A.SYNC_NOW: Text("立即同步数据", "SYNC NOW"),
    A.RESCAN: Text("请重新扫码", "RESCAN"),
    A.ENTER_PLATE: Text("手输号牌查询", "ENTER PLATE"),
    A.CHECK_VIN: Text("核对车架号", "CHECK VIN"),
    A.HANDLE_OVERDUE: Text("依法处理逾期", "HANDLE OVERDUE"),
    A.PRESERVE_EVIDENCE: Text("固定证据", "SAVE EVIDENCE"),
    A.ASK_OWNER_REFRESH: Text("提示更新凭证", "ASK TO REFRESH"),
}

STATUS_LETTERS: dict[StatusLetter, Text] = {
    StatusLetter.NORMAL: Text("正常", "normal"),
    StatusLetter.TRANSFERRED_OUT: Text("转出", "transferred out"),
    StatusLetter.STOLEN: Text("被盗抢", "stolen"),
    StatusLetter.LAID_UP: Text("停驶", "laid up"),
    StatusLetter.DEREGISTERED: Text("注销", "deregistered"),
    StatusLetter.OPEN_VIOLATIONS: Text("违法未处理", "open violations"),
    StatusLetter.CUSTOMS: Text("海关监管", "customs"),
    StatusLetter.OPEN_ACCIDENT: Text("事故未处理", "open accident"),
    StatusLetter.SUSPECT: Text("嫌疑车", "suspect vehicle"),
    StatusLetter.SEALED: Text("查封", "sealed by court"),
    StatusLetter.IMPOUNDED: Text("扣留", "impounded"),
    StatusLetter.FORCED_DEREGISTRATION: Text("强制注销", "forced deregistration"),
    StatusLetter.HIT_AND_RUN: Text("事故逃逸", "hit and run"),
    StatusLetter.LOCKED: Text("锁定", "locked"),
    StatusLetter.PLATES_VOID: Text("牌证作废", "plates void"),
    StatusLetter.OVERDUE: Text("逾期未检验", "overdue"),
}

HINTS: dict[Hint, Text] = {
    Hint.NO_CODE: Text("未见码", "NO CODE"),
    Hint.TOO_SMALL: Text("请靠近", "COME CLOSER"),
    Hint.BLURRED: Text("请拿稳", "HOLD STILL"),
    Hint.DARK: Text("光线太暗", "MORE LIGHT"),
    Hint.GLARE: Text("反光请换角度", "GLARE: TILT"),
    Hint.CUT_OFF: Text("码不完整", "SHOW WHOLE CODE"),
}
AIM_AGAIN = Text("请重新对准", "AIM AGAIN")  # a code seems to be there, and nothing measured tells why it is not read

# How a code was presented. Not 在线 and 离线: beside these words the panel says so of the check itself.
PRESENTATIONS: dict[PresentationMode, Text] = {
    PresentationMode.LIVE: Text("动态码", "LIVE CODE"),
    PresentationMode.STORED: Text("存储码", "STORED"),
    PresentationMode.PRINTED: Text("打印码", "PRINTED"),
    PresentationMode.TAG_LABEL: Text("标识卡码", "CARD LABEL"),
}

# How far a tag's evidence goes; none of these says that the chip is the original one.
TAG_LEVELS: dict[TagLevel, Text] = {
    TagLevel.READ: Text("已读", "READ"),
    TagLevel.BOUND: Text("已登记", "LISTED"),
    TagLevel.CERTIFIED: Text("已验签", "SIGNED"),
    TagLevel.AUTHENTICATED: Text("读写器鉴权", "READER OK"),
}

PURPOSES: dict[Purpose, Text] = {
    Purpose.ENFORCEMENT: Text("路检", "ROAD"),
    Purpose.CHECKPOINT: Text("卡口", "LANE"),
    Purpose.ACCIDENT: Text("事故", "CRASH"),
    Purpose.REPORT: Text("举报", "TIP"),
    Purpose.OTHER: Text("其他", "OTHER"),
}
