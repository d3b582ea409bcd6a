"""The verdict and its vocabulary: what a check answers, how loud, why, and to whom."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from verifier.types import Code, Month, Plate, Source


class Grade(Code):
    """Quality of the status source behind a verdict."""

    ONLINE = "A"
    FRESH_CACHE = "B"
    STALE_CACHE = "C"
    SIGNATURE_ONLY = "D"
    NOTHING = "E"


class Tone(Code):
    """How loud a verdict is, from good to bad."""

    PASS = "pass"  # noqa: S105 - a tone, not a password
    NOTE = "note"
    CAUTION = "caution"
    STOP = "stop"


LOUD = frozenset({Tone.CAUTION, Tone.STOP})
"""The tones that hold a vehicle up."""


class VerdictCode(Code):
    """All verdicts, in order of precedence (the last three reading faults share one rank)."""

    # A new one: docs/developers.md, "A verdict". `ANSWERS` of roles.py and `_SETTLED` of late.py decide about it, too.

    WANTED = "WANTED"
    FORGED = "FORGED"
    MISMATCH = "MISMATCH"
    WATCH_CONFIRM = "WATCH_CONFIRM"
    DEREGISTERED = "DEREGISTERED"
    RESTRICTED = "RESTRICTED"
    OUT_OF_SCOPE = "OUT_OF_SCOPE"
    EXPIRED = "EXPIRED"
    REVOKED = "REVOKED"
    SUPERSEDED = "SUPERSEDED"
    NOT_YET_VALID = "NOT_YET_VALID"
    EXPIRED_UNCONFIRMED = "EXPIRED_UNCONFIRMED"
    NOT_FOUND = "NOT_FOUND"
    VALID = "VALID"
    VALID_STALE = "VALID_STALE"
    SIGNED_ONLY = "SIGNED_ONLY"
    UNTRUSTED_ISSUER = "UNTRUSTED_ISSUER"
    UNREADABLE = "UNREADABLE"
    NOT_A_MARK = "NOT_A_MARK"
    UNSUPPORTED_VERSION = "UNSUPPORTED_VERSION"
    UNDECIDED = "UNDECIDED"


class Reason(Code):
    """Why a verdict is what it is; the same codes serve device, server and reports."""

    CLOCK_CORRECTED = "CLOCK_CORRECTED"
    CLOCK_SUSPECT = "CLOCK_SUSPECT"
    QR_UNREADABLE = "QR_UNREADABLE"
    QR_MALFORMED = "QR_MALFORMED"
    QR_FOREIGN = "QR_FOREIGN"
    QR_VERSION = "QR_VERSION"
    QR_NOT_LIVE = "QR_NOT_LIVE"
    QR_ISSUER_UNKNOWN = "QR_ISSUER_UNKNOWN"
    QR_KEY_REVOKED = "QR_KEY_REVOKED"
    TAG_AUTH_FAILED = "TAG_AUTH_FAILED"
    ID_UNCONFIRMED_MISMATCH = "ID_UNCONFIRMED_MISMATCH"
    ID_WEAK = "ID_WEAK"
    REPLATED = "REPLATED"
    WATCH_STALE = "WATCH_STALE"
    WATCH_UNCONFIRMED = "WATCH_UNCONFIRMED"
    WATCH_LEAD = "WATCH_LEAD"
    WATCH_KIND = "WATCH_KIND"
    STATUS_NOTE = "STATUS_NOTE"
    CTP_LAPSED = "CTP_LAPSED"
    CREDENTIAL_NEWER_THAN_CACHE = "CREDENTIAL_NEWER_THAN_CACHE"
    NEWLY_ISSUED = "NEWLY_ISSUED"
    NO_STATUS_DATA = "NO_STATUS_DATA"
    STATUS_TOO_OLD = "STATUS_TOO_OLD"
    DATA_STALE = "DATA_STALE"
    CREDENTIAL_REVOKED = "CREDENTIAL_REVOKED"
    VEHICLE_VALID = "VEHICLE_VALID"
    CREDENTIAL_OUTDATED = "CREDENTIAL_OUTDATED"
    ONLINE_DENIED = "ONLINE_DENIED"
    ONLINE_REJECTED = "ONLINE_REJECTED"
    ONLINE_TIMEOUT = "ONLINE_TIMEOUT"
    ONLINE_UNREACHABLE = "ONLINE_UNREACHABLE"
    CACHE_REJECTED = "CACHE_REJECTED"
    TRUST_LIST_OLD = "TRUST_LIST_OLD"
    VIN_MISMATCH = "VIN_MISMATCH"
    VIN_CONFIRMED = "VIN_CONFIRMED"
    VIN_NOT_FOUND = "VIN_NOT_FOUND"
    VIN_WANTED = "VIN_WANTED"


class Action(Code):
    """What the officer may or should do (处置建议)."""

    RELEASE = "RELEASE"
    NO_PENALTY_NOT_SHOWN = "NO_PENALTY_NOT_SHOWN"
    NO_PENALTY_NOT_DISPLAYED = "NO_PENALTY_NOT_DISPLAYED"
    FOLLOW_LOCAL_DISPLAY_RULE = "FOLLOW_LOCAL_DISPLAY_RULE"
    CONFIRM_PLATE = "CONFIRM_PLATE"
    CONFIRM_CENTRE = "CONFIRM_CENTRE"
    ONLINE_RECHECK = "ONLINE_RECHECK"
    SYNC_NOW = "SYNC_NOW"
    RESCAN = "RESCAN"
    ENTER_PLATE = "ENTER_PLATE"
    CHECK_VIN = "CHECK_VIN"
    HANDLE_OVERDUE = "HANDLE_OVERDUE"
    PRESERVE_EVIDENCE = "PRESERVE_EVIDENCE"
    ASK_OWNER_REFRESH = "ASK_OWNER_REFRESH"


class Role(Code):
    """Who is looking (S29); `verifier.roles` says what each may see."""

    OFFICER = "officer"
    TECHNICIAN = "technician"
    AUDITOR = "auditor"
    INSURER = "insurer"
    RENTAL = "rental"  # rental, mortgage and trade
    GATE = "gate"  # gates and parking


class View(Code):
    """How much of a verdict a role may see."""

    FULL = "full"
    LIMITED = "limited"  # in validity or not, and the month
    NONE = "none"


class Finding(NamedTuple):
    """One fact that moved the verdict, and where it came from."""

    reason: Reason
    source: Source


class Age(NamedTuple):
    """How old data are; `at_least` when the clock that says so is under suspicion."""

    span: timedelta
    at_least: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The graded answer, with what it rests on and what the officer may do."""

    code: VerdictCode
    grade: Grade
    tone: Tone
    findings: tuple[Finding, ...]
    actions: tuple[Action, ...]
    policy: str  # name and version
    plate: Plate | None  # the vehicle the verdict speaks of
    valid_until: Month | None
    as_of: datetime | None  # moment the status data describe; None without status data

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """The reason codes, without repetition, in order."""
        return tuple(dict.fromkeys(f.reason for f in self.findings))

    def age(self, now: datetime) -> Age | None:
        """How old the status data are at `now`; None without any.

        An answer that corrected the clock is of this moment, whatever that clock shows. Negative where the data seem
        to come from the future, by a clock that nobody suspects.
        """
        if self.as_of is None:
            return None
        reasons = self.reasons
        span = timedelta(0) if Reason.CLOCK_CORRECTED in reasons else now - self.as_of
        suspect = Reason.CLOCK_SUSPECT in reasons
        return Age(max(span, timedelta(0)) if suspect else span, suspect)
