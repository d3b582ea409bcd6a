"""The words of the product: values that travel between its parts.

Document facts (the credential that was shown) and vehicle facts (what the register says) never share a
flag: `CredentialStatus` holds the first kind, `VehicleRecord` the second.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from enum import IntEnum, StrEnum
from typing import NamedTuple, NewType

# China keeps one civil time and no summer time, so a fixed offset needs no time-zone data on the device.
SHANGHAI = timezone(timedelta(hours=8), "Asia/Shanghai")


class Code(StrEnum):
    """A closed set of texts."""

    __hash__ = str.__hash__  # the same value as Enum's, computed in C: codes are looked up in tables all the time


Serial = NewType("Serial", str)  # a credential's cti (RFC 8392 clause 3.1.7) as lower-case hex
KeyId = NewType("KeyId", str)  # 8 bytes as lower-case hex


class Month(NamedTuple):
    """A calendar month, the unit of inspection validity; it ends with its last second in Asia/Shanghai."""

    year: int
    month: int

    @classmethod
    def parse(cls, text: str) -> Month:
        """Read "YYYY-MM"; ValueError for anything else."""
        if not (len(text) == 7 and text.isascii() and text[4] == "-" and (text[:4] + text[5:]).isdigit()):
            raise ValueError(f"not a month (YYYY-MM): {text[:16]!r}")
        return cls.of_number(int(text[:4]) * 100 + int(text[5:]))

    @classmethod
    def of_number(cls, number: int) -> Month:
        """Read the integer YYYYMM; ValueError when the month is not 1..12 or the year not 1900..9999."""
        year, month = divmod(number, 100)
        if not (1 <= month <= 12 and 1900 <= year <= 9999):
            raise ValueError(f"not a month (YYYYMM): {number}")
        return cls(year, month)

    @classmethod
    def at(cls, moment: datetime) -> Month:
        """The month that is on the calendar in China at this moment (aware datetime)."""
        local = moment.astimezone(SHANGHAI)
        return cls(local.year, local.month)

    def plus(self, months: int) -> Month:
        """The month so many months later (earlier when negative)."""
        year, month0 = divmod(self.year * 12 + self.month - 1 + months, 12)
        return Month(year, month0 + 1)

    @property
    def number(self) -> int:
        """The integer YYYYMM."""
        return self.year * 100 + self.month

    def __str__(self) -> str:
        return f"{self.year:04d}-{self.month:02d}"


class Plate(NamedTuple):
    """A vehicle's identity: canonical plate text (hphm) and plate kind (hpzl, GA/T 16.7), None if unknown."""

    text: str
    kind: str | None


def same_plate(a: Plate, b: Plate) -> bool:
    """R2: texts equal, and kinds equal when both are known."""
    return a.text == b.text and (a.kind is None or b.kind is None or a.kind == b.kind)


class PresentationMode(Code):
    """How the credential was shown (出示)."""

    LIVE = "live"
    STORED = "stored"
    PRINTED = "printed"
    TAG_LABEL = "tag_label"


class Algorithm(IntEnum):
    """COSE algorithm numbers (RFC 9053; SM2 in the private-use range)."""

    ES256 = -7
    EDDSA = -8
    SM2 = -65601


class KeyRole(IntEnum):
    """What a trusted key may sign."""

    CREDENTIAL = 1
    FRESHNESS = 2
    STATUS = 4
    TAG = 8


class KeyState(IntEnum):
    """State of a trust list entry."""

    ACTIVE = 1
    RETIRED = 2
    COMPROMISED = 3


class CodeFault(Code):
    """First failed check of a code, in the order in which the checks run."""

    NOT_A_MARK = "NOT_A_MARK"
    VERSION = "VERSION"
    OVERSIZE = "OVERSIZE"
    ENCODING = "ENCODING"
    COSE_SHAPE = "COSE_SHAPE"
    CBOR = "CBOR"
    HEADER = "HEADER"
    UNKNOWN_KEY = "UNKNOWN_KEY"
    ALG = "ALG"
    ALG_UNAVAILABLE = "ALG_UNAVAILABLE"
    SIGNATURE = "SIGNATURE"
    CLAIMS = "CLAIMS"
    KEY_COMPROMISED = "KEY_COMPROMISED"
    JURISDICTION = "JURISDICTION"
    KEY_WINDOW = "KEY_WINDOW"
    KEY_RETIRED = "KEY_RETIRED"
    LIFETIME = "LIFETIME"
    NOT_YET_VALID = "NOT_YET_VALID"
    EXPIRED = "EXPIRED"
    NEEDS_PRESENTATION = "NEEDS_PRESENTATION"
    HOLDER_KEY = "HOLDER_KEY"
    STALE_PRESENTATION = "STALE_PRESENTATION"


class CodeReading(Code):
    """What became of the code that was held before the camera."""

    OK = "ok"
    NONE = "none"
    MALFORMED = "malformed"
    FOREIGN = "foreign"
    UNSUPPORTED_VERSION = "unsupported_version"


class SignatureState(Code):
    """What the signature says of the code."""

    VALID = "valid"
    INVALID = "invalid"
    UNKNOWN_KEY = "unknown_key"
    REVOKED_KEY = "revoked_key"


class TagAuth(Code):
    """Result of the mutual authentication between reader and in-car tag."""

    OK = "ok"
    UNSUPPORTED = "unsupported"
    FAIL = "fail"


class TagLevel(IntEnum):
    """How far a tag's evidence goes; data can be proven offline, a chip only by a reader that holds keys."""

    READ = 0  # TID or EPC seen: says nothing, for both can be put into another chip
    BOUND = 1  # the TID is that of a valid record or of the shown credential
    CERTIFIED = 2  # the signed certificate names this TID, this EPC and the plate
    AUTHENTICATED = 3  # the reader says that the chip proved itself


class TagRecord(Code):
    """What the register says of a tag's TID, in a set that can say it."""

    BOUND = "bound"  # it is the tag of this plate's vehicle
    OTHER_VEHICLE = "other_vehicle"  # it is the tag of another vehicle
    UNKNOWN = "unknown"  # it is no vehicle's tag


class TagSuspicion(Code):
    """What speaks for a copy or a replay: a lead with evidence, never a verdict."""

    OTHER_TAG = "other_tag"  # the certificate was signed for another TID or EPC: a copied user bank
    TWO_EPCS = "two_epcs"  # one TID with two EPCs
    TWO_TAGS = "two_tags"  # one plate on two tags
    TWO_PLACES = "two_places"  # strong on two antennas that no car passes together
    OTHER_CARD = "other_card"  # the number typed from its card is not that of the tag on the typed plate's vehicle


class StatusLetter(Code):
    """Vehicle status letters; the register gives several of them in one string."""

    NORMAL = "A"
    TRANSFERRED_OUT = "B"
    STOLEN = "C"
    LAID_UP = "D"
    DEREGISTERED = "E"
    OPEN_VIOLATIONS = "G"
    CUSTOMS = "H"
    OPEN_ACCIDENT = "I"
    SUSPECT = "J"
    SEALED = "K"
    IMPOUNDED = "L"
    FORCED_DEREGISTRATION = "M"
    HIT_AND_RUN = "N"
    LOCKED = "O"
    PLATES_VOID = "P"
    OVERDUE = "Q"


class CredentialState(Code):
    """Document state of the presented credential in the licence repository."""

    ACTIVE = "active"
    REVOKED = "revoked"
    SUPERSEDED = "superseded"


class CacheState(Code):
    """Whether the cache could answer."""

    OK = "ok"
    MISSING = "missing"
    CORRUPT = "corrupt"


class OnlineState(Code):
    """Outcome of the online look-up; the first three are answers."""

    OK = "ok"
    NOT_FOUND = "not_found"
    SEVERAL = "several"  # vehicles of more than one plate kind carry the text, and nobody said which stands there
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    DENIED = "denied"
    BAD_SIGNATURE = "bad_signature"
    DISABLED = "disabled"


class VinAnswer(Code):
    """Whose VIN it is that was typed, by the centre's register."""

    SAME = "same"  # of the vehicle that was looked up
    OTHER = "other"  # of one with another plate
    WANTED = "wanted"  # of one that is looked for (letters C, J, N), as no other word on the plate tells
    ABSENT = "absent"  # of none


class Purpose(Code):
    """Why the officer looks."""

    ENFORCEMENT = "enforcement"
    CHECKPOINT = "checkpoint"
    ACCIDENT = "accident"
    REPORT = "report"  # somebody has told of the vehicle
    OTHER = "other"


class WorkMode(Code):
    """What an officer is at with a handheld."""

    ROADSIDE = "roadside"
    LOOKUP = "lookup"
    TAGS = "tags"
    CHECKPOINT = "checkpoint"
    ACCIDENT = "accident"


class Source(Code):
    """Where a finding comes from."""

    CODE = "code"
    TAG = "tag"
    PLATE_SEEN = "plate_seen"
    RECORD = "record"
    WATCH_LIST = "watch_list"
    CACHE = "cache"
    ONLINE = "online"
    CLOCK = "clock"


# ---------------------------------------------------------------------------------------- the credential


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """The claims of a credential that the decision needs (VM1 payload, docs/credential-format.md)."""

    serial: Serial
    plate: Plate
    valid_until: Month
    issued_at: datetime
    mode: PresentationMode | None = None
    issuer: str = ""  # administrative division code, 6 digits (GB/T 2260)
    not_before: datetime | None = None
    expires_at: datetime | None = None
    status_list: int | None = None  # number of the Token Status List
    status_index: int | None = None
    ctp_until: date | None = None
    vehicle_type: str | None = None
    use_nature: str | None = None
    body_colour: str | None = None
    vin_hash: bytes | None = None
    tid_hash: bytes | None = None


# --------------------------------------------------------------------------------- what the sources answer


@dataclass(frozen=True, slots=True, kw_only=True)
class VehicleRecord:
    """Vehicle facts in the register."""

    plate: Plate
    status: frozenset[StatusLetter]
    inspection_valid_until: Month | None
    ecred_issued: bool
    ctp_until: date | None = None  # last day of compulsory insurance; None when not known
    credential_serial: Serial | None = None  # the newest credential issued for the vehicle, if the source says
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialStatus:
    """Document facts of the presented credential."""

    state: CredentialState
    superseded_by_plate: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusAnswer:
    """What one source says of one vehicle; `vehicle` None in an answer means "not in this set"."""

    vehicle: VehicleRecord | None
    credential: CredentialStatus | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEvidence:
    """The cache's contribution; `as_of` is the moment its data describe, `covers` whether it holds the area.

    `watched` says that a wanted vehicle of the set has the text of a plate whose kind nobody gave, and that another
    vehicle may have it too.
    """

    state: CacheState
    as_of: datetime | None = None
    scope: str | None = None
    covers: bool = False
    answer: StatusAnswer | None = None
    watched: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineEvidence:
    """The online look-up's contribution. `vin` is None where none was asked for, or the centre cannot say.

    `watched`, with SEVERAL, says that one of the vehicles that carry the plate's text is wanted.
    """

    state: OnlineState
    answer: StatusAnswer | None = None
    server_time: datetime | None = None
    vin: VinAnswer | None = None
    watched: bool = False


# ----------------------------------------------------------------------------------------- what was seen


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeEvidence:
    """The code that was shown. A credential is present only when `reading` is OK.

    `fault` names the failed check behind `signature`, or the document finding kept beside a valid signature.
    `trust_as_of` is the moment that the trust list describes by which it was judged, None when not known.
    `vin_matches` tells whether the VIN on the car is the one the proven credential was issued for, None when not
    compared; the VIN's text is kept nowhere.
    """

    reading: CodeReading
    mode: PresentationMode | None = None
    signature: SignatureState | None = None
    credential: Credential | None = None
    shown_at: datetime | None = None
    fault: CodeFault | None = None
    trust_as_of: datetime | None = None
    vin_matches: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TagSeen:
    """What a reader read of one tag. `tid` and `user` are None where they were not read; all of it is hostile.

    `auth` is what the reader's security module says; `suspicions` is what was noticed over several reads.
    """

    epc: bytes
    tid: bytes | None = None
    user: bytes | None = None
    auth: TagAuth = TagAuth.UNSUPPORTED
    suspicions: tuple[TagSuspicion, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TagEvidence:
    """The in-car tag that was read. `plate` is None where nothing readable names one.

    `fault` is why its certificate proves nothing; `issued_on` the proven one's day of issue, `vehicle_type` and
    `body_colour` what it says of the car's looks: they are shown, and no record keeps them. `record` is None where the
    register cannot say; `tid_matches` tells whether the proven credential is bound to this TID, None when not
    compared. Evidence with `seen` is worked out anew at each check.
    """

    auth: TagAuth
    tid: str  # hex; empty where it was not read
    plate: Plate | None
    level: TagLevel = TagLevel.READ
    fault: CodeFault | None = None
    issued_on: date | None = None  # in China
    vehicle_type: str | None = None
    body_colour: str | None = None
    record: TagRecord | None = None
    tid_matches: bool | None = None
    suspicions: tuple[TagSuspicion, ...] = ()
    seen: TagSeen | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlateSeen:
    """The plate on the car: typed or confirmed by the officer, or read by a camera."""

    plate: Plate
    confirmed: bool
    source: str = "officer"  # officer | anpr


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchHit:
    """A watch list (布控名单) hit; `basis` is the identity that hit."""

    basis: Source
    kind: str
    as_of: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that was seen and answered in one check."""

    code: CodeEvidence | None = None
    tag: TagEvidence | None = None
    plate_seen: PlateSeen | None = None
    paper_displayed: bool | None = None
    cache: CacheEvidence = CacheEvidence(state=CacheState.MISSING)
    online: OnlineEvidence = OnlineEvidence(state=OnlineState.DISABLED)
    watch: tuple[WatchHit, ...] = ()
    clock_trusted: bool = True
    purpose: Purpose = Purpose.ENFORCEMENT


# ------------------------------------------------------------------------------------------ what parts see


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeSeen:
    """A QR code found in a frame: its bytes, the corners (x, y) in frame pixels, and who read it.

    `version` is the symbol version, 1 to 40, where the decoder tells it; the side has 17 + 4 x version modules.
    """

    payload: bytes
    corners: tuple[tuple[int, int], ...]
    decoder: str
    version: int | None = None


class Hint(Code):
    """Why nothing was read in a frame, as measured in it: what the officer can do about."""

    NO_CODE = "NO_CODE"
    TOO_SMALL = "TOO_SMALL"
    BLURRED = "BLURRED"
    DARK = "DARK"
    GLARE = "GLARE"
    CUT_OFF = "CUT_OFF"


def utc(seconds: int) -> datetime:
    """POSIX seconds to an aware datetime."""
    return datetime.fromtimestamp(seconds, UTC)
