"""The facts of one check, derived once from all that was seen and answered, rule by rule.

R1 to R18 are those of docs/decision.md; `verifier/decide.py` picks the verdict from these facts.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from verifier.plates import OUT_OF_SCOPE_KINDS
from verifier.policy import Policy
from verifier.types import (
    SHANGHAI,
    CacheState,
    CodeFault,
    CodeReading,
    Credential,
    CredentialState,
    CredentialStatus,
    Evidence,
    Month,
    OnlineState,
    Plate,
    SignatureState,
    Source,
    StatusAnswer,
    StatusLetter,
    TagAuth,
    TagEvidence,
    TagLevel,
    TagRecord,
    VehicleRecord,
    VinAnswer,
    same_plate,
)
from verifier.verdict import Finding, Grade, Reason

R, L = Reason, StatusLetter

WATCH_LETTERS = frozenset({L.STOLEN, L.SUSPECT, L.HIT_AND_RUN})
DEREGISTERED_LETTERS = frozenset({L.DEREGISTERED, L.FORCED_DEREGISTRATION, L.PLATES_VOID})
RESTRICTED_LETTERS = frozenset({L.SEALED, L.IMPOUNDED, L.LAID_UP})
NOTE_LETTERS = frozenset({L.TRANSFERRED_OUT, L.OPEN_VIOLATIONS, L.CUSTOMS, L.OPEN_ACCIDENT, L.LOCKED})

GOOD_GRADES = frozenset({Grade.ONLINE, Grade.FRESH_CACHE})
RECORD_GRADES = GOOD_GRADES | {Grade.STALE_CACHE}

_ANSWERS = frozenset({OnlineState.OK, OnlineState.NOT_FOUND, OnlineState.SEVERAL})
_NO_ANSWER = {
    OnlineState.DENIED: R.ONLINE_DENIED,
    OnlineState.TIMEOUT: R.ONLINE_TIMEOUT,
    OnlineState.UNREACHABLE: R.ONLINE_UNREACHABLE,
    OnlineState.BAD_SIGNATURE: R.ONLINE_REJECTED,
}
_READING_REASON = {
    CodeReading.NONE: R.QR_UNREADABLE,
    CodeReading.MALFORMED: R.QR_MALFORMED,
    CodeReading.FOREIGN: R.QR_FOREIGN,
    CodeReading.UNSUPPORTED_VERSION: R.QR_VERSION,
}
# Document findings that ask for a newer credential and no more: the vehicle's record decides.
_OUTLIVED = frozenset({CodeFault.EXPIRED, CodeFault.LIFETIME})


class Facts:
    """What the rules have found, derived in the order in which they need each other."""

    def __init__(self, evidence: Evidence, policy: Policy, now: datetime) -> None:
        self.evidence, self.policy, self.now = evidence, policy, now
        self.findings: list[Finding] = []
        self._clock()
        self._code()
        self._identities()
        self._trust_list()
        self._status()
        self._replating()
        self._newer_credential()
        self._validity()
        self._documents()
        self._watch()
        self._consistency()

    def note(self, reason: Reason, source: Source) -> None:
        """Keep one finding."""
        self.findings.append(Finding(reason, source))

    # ------------------------------------------------------------------------------------------ facts

    def _clock(self) -> None:
        """R5: a suspect clock, and its repair by a good online answer."""
        cache, online, skew = self.evidence.cache, self.evidence.online, self.policy.clock_skew
        # The moment that the cached data describe; None where there are none, or they are corrupt (R4).
        self.cache_as_of = cache.as_of if cache.state is CacheState.OK else None
        behind = self.cache_as_of is not None and self.now < self.cache_as_of - skew
        self.clock_suspect = behind or not self.evidence.clock_trusted
        server = online.server_time if online.state in _ANSWERS else None
        if server is not None:
            if self.clock_suspect or abs(server - self.now) > skew:
                self.note(R.CLOCK_CORRECTED, Source.ONLINE)
            self.now, self.clock_suspect = server, False
        if self.clock_suspect:
            self.note(R.CLOCK_SUSPECT, Source.CLOCK)

    def _code(self) -> None:
        """What the shown code is worth: a proven credential, a forgery, a key we cannot trust, or unread."""
        code = self.evidence.code
        self.credential: Credential | None = None
        self.forged, self.key_trouble, self.reading = False, False, None
        if code is None:
            return
        if code.reading is not CodeReading.OK:
            self.reading = code.reading
            self.note(_READING_REASON[code.reading], Source.CODE)
        elif code.signature is SignatureState.VALID:
            self.credential = code.credential
        elif code.signature is SignatureState.INVALID:
            self.forged = True
        else:
            # An unknown key says nothing about forgery; a withdrawn one proves nothing either.
            self.key_trouble = True
            unknown = code.signature is not SignatureState.REVOKED_KEY
            self.note(R.QR_ISSUER_UNKNOWN if unknown else R.QR_KEY_REVOKED, Source.CODE)

    def _identities(self) -> None:
        """R1: who the vehicle is, by proof (trusted) and by hearsay (weak)."""
        seen, tag, code = self.evidence.plate_seen, self.evidence.tag, self.evidence.code
        self.trusted: list[tuple[Source, Plate]] = []
        self.weak: list[tuple[Source, Plate]] = []
        if seen is not None:
            (self.trusted if seen.confirmed else self.weak).append((Source.PLATE_SEEN, seen.plate))
        if self.credential is not None:
            self.trusted.append((Source.CODE, self.credential.plate))
        if tag is not None:
            failed = self._tag_failed(tag)
            if tag.plate is not None:
                trusted = tag.auth is TagAuth.OK and not failed and not self._outlived(tag, tag.plate)
                (self.trusted if trusted else self.weak).append((Source.TAG, tag.plate))
            if failed:
                self.note(R.TAG_AUTH_FAILED, Source.TAG)
        if code is not None and code.credential is not None and self.credential is None:
            self.weak.append((Source.CODE, code.credential.plate))
        self.subject = next((plate for _, plate in self.trusted + self.weak), None)

    def _tag_failed(self, tag: TagEvidence) -> bool:
        """R1: the tag's proof failed, something speaks for a copy, or the register names another tag."""
        return tag.auth is TagAuth.FAIL or bool(tag.suspicions) or self._denied(tag) or self._of_another_code(tag)

    def _denied(self, tag: TagEvidence) -> bool:
        """The register gives this TID to another vehicle, or to none although the tag names one.

        Old data, or a tag that was written after them, prove nothing of the kind (R6).
        """
        as_of = self.evidence.cache.as_of
        unknown = tag.record is TagRecord.UNKNOWN and tag.plate is not None
        if not (unknown or tag.record is TagRecord.OTHER_VEHICLE) or as_of is None:
            return False
        known_by = (as_of - self.policy.propagation).astimezone(SHANGHAI).date()
        newer = tag.issued_on is not None and tag.issued_on >= known_by
        return not newer and self._within(as_of, self.policy.fresh)

    def _outlived(self, tag: TagEvidence, named: Plate) -> bool:
        """R3: another trusted identity tells another plate than the tag's certificate.

        A certificate names the plate of the day it was written, which may be before a re-plating: it is believed
        against that identity only where fresh data still have the tag on that vehicle.
        """
        seen, code = self.evidence.plate_seen, self.credential
        others = [seen.plate] if seen is not None and seen.confirmed else []
        others += [code.plate] if code is not None else []
        if tag.level < TagLevel.CERTIFIED or all(same_plate(named, plate) for plate in others):
            return False
        return not (tag.record is TagRecord.BOUND and self._cache_knows(code))

    def _cache_knows(self, code: Credential | None) -> bool:
        """Whether the cache is fresh by a good clock, and the credential no newer than what it can know of."""
        as_of = self.cache_as_of
        if as_of is None or self.clock_suspect:
            return False
        return self._within(as_of, self.policy.fresh) and not (code and self._issued_after(code, as_of))

    def _of_another_code(self, tag: TagEvidence) -> bool:
        """The proven credential is bound to another tag, and it is not that tag which is the older one."""
        if self.credential is None or tag.tid_matches is not False or tag.record is TagRecord.BOUND:
            return False
        return tag.issued_on is None or tag.issued_on < self.credential.issued_at.astimezone(SHANGHAI).date()

    def _trust_list(self) -> None:
        """R18: the credential was proven under a trust list past its time; `code_alone` when nothing else is proof."""
        code = self.evidence.code
        as_of = code.trust_as_of if code is not None and self.credential is not None else None
        self.list_old = as_of is not None and not self.clock_suspect and self.now - as_of > self.policy.trust_stale
        self.code_alone = self.list_old and all(source is Source.CODE for source, _ in self.trusted)
        if self.list_old:
            self.note(R.TRUST_LIST_OLD, Source.CACHE)

    def _status(self) -> None:
        """R4 and the grade: which source speaks, how old it is, and whether its record may be used (R1)."""
        cache, online, cached = self.evidence.cache, self.evidence.online, self.cache_as_of
        self.record: VehicleRecord | None = None
        self.record_trusted = self.record_fresh = self.absence_proven = self.from_cache = False
        self.as_of: datetime | None = None
        self.grade = Grade.NOTHING if self.credential is None else Grade.SIGNATURE_ONLY
        if online.state in _NO_ANSWER:
            self.note(_NO_ANSWER[online.state], Source.ONLINE)
        if cache.state is CacheState.CORRUPT:
            self.note(R.CACHE_REJECTED, Source.CACHE)
        self._document_state()
        if online.state is OnlineState.OK and online.answer is not None and online.answer.vehicle is not None:
            self._use(online.answer, Grade.ONLINE, self.now)
        elif online.state is OnlineState.NOT_FOUND:
            self._use(StatusAnswer(vehicle=None), Grade.ONLINE, self.now)
        elif online.state is OnlineState.SEVERAL:
            pass  # the one that the cache has may not be the one that stands there (R2)
        elif cached is not None and cache.covers and cache.answer is not None:
            self.from_cache = True
            self._use(cache.answer, self._cache_grade(self.now - cached), cached)
        elif self.subject is not None:
            self.note(R.NO_STATUS_DATA, Source.CACHE)

    def _document_state(self) -> None:
        """What the licence repository says of the proven credential: the online answer, else the cache.

        The cached list of states is national and checked on its own, so it counts whatever plates are covered and
        whatever became of the vehicles' data.
        """
        cache, online = self.evidence.cache, self.evidence.online
        self.document: CredentialStatus | None = None
        if self.credential is None:
            return
        if cache.answer is not None:
            self.document = cache.answer.credential
        if online.state in _ANSWERS and online.answer is not None:
            self.document = online.answer.credential or self.document

    def _cache_grade(self, age: timedelta) -> Grade:
        if age <= self.policy.fresh:
            return Grade.FRESH_CACHE
        return Grade.STALE_CACHE if age <= self.policy.stale else Grade.SIGNATURE_ONLY

    def _within(self, as_of: datetime, age: timedelta) -> bool:
        """Whether data of this moment are at most so old; by a clock that is behind them nobody can tell (R5)."""
        return -self.policy.clock_skew <= self.now - as_of <= age

    def _use(self, answer: StatusAnswer, grade: Grade, as_of: datetime) -> None:
        record = answer.vehicle
        if record is None:
            self._absence(grade, as_of)
            return
        if any(same_plate(record.plate, plate) for _, plate in self.trusted):
            self.record_trusted = True
        elif any(same_plate(record.plate, plate) for _, plate in self.hearsay()):
            self.note(R.ID_WEAK, Source.RECORD)
        elif self.document is not None and record.plate.text == self.document.superseded_by_plate:
            self.record_trusted = True  # R3: the proven credential's vehicle carries this plate now
        else:
            # Found only through an unproven code, or not the record of anything that was seen: not used at all.
            self.note(R.NO_STATUS_DATA, Source.RECORD)
            return
        self.record, self.grade, self.as_of = record, grade, as_of
        self.record_fresh = grade in GOOD_GRADES and self._within(as_of, self.policy.fresh)
        if not self.record_fresh:
            self.note(R.DATA_STALE, Source.CACHE)
        if self.code_alone:
            self._rests_on_the_list()

    def _rests_on_the_list(self) -> None:
        """R18: no verdict that takes the code's word is of a better grade than the list it was proven by."""
        if self.grade in GOOD_GRADES:
            self.grade = Grade.STALE_CACHE

    def _absence(self, grade: Grade, as_of: datetime) -> None:
        """R6: when "not in this set" means "not in the register"."""
        if not self.trusted and not self.hearsay():
            return
        self.as_of = as_of
        if not self.trusted:
            self.note(R.ID_WEAK, Source.RECORD)
        recent = self.from_cache and self.credential is not None and self._issued_after(self.credential, as_of)
        if recent:
            self.note(R.NEWLY_ISSUED, Source.CODE)
        self.absence_proven = grade in GOOD_GRADES and not recent
        self.grade = grade if self.absence_proven else Grade.SIGNATURE_ONLY
        if grade not in GOOD_GRADES:
            self.note(R.DATA_STALE, Source.CACHE)

    def _issued_after(self, credential: Credential, as_of: datetime) -> bool:
        return credential.issued_at + self.policy.propagation > as_of

    def _replating(self) -> None:
        """R3: the register says that the shown credential's vehicle carries another plate now, and it was seen."""
        self.replated: tuple[Plate, str] | None = None  # the credential's plate, and the text of the new one
        new = self.document.superseded_by_plate if self.document is not None else None
        others = [plate for source, plate in self.trusted + self.weak if source is not Source.CODE]
        if self.credential is not None and new is not None and any(plate.text == new for plate in others):
            self.replated = self.credential.plate, new
            self.note(R.REPLATED, Source.RECORD)

    def _same_vehicle(self, a: Plate, b: Plate) -> bool:
        """R2, and R3 for the plate that the proven credential was issued for."""
        if same_plate(a, b):
            return True
        if self.replated is None:
            return False
        old, new = self.replated
        return (a.text == new and same_plate(b, old)) or (b.text == new and same_plate(a, old))

    def _newer_credential(self) -> None:
        """R7: a proven credential that the cache cannot know of yet outranks the cached inspection month."""
        self.newer = (
            self.from_cache
            and self.record is not None
            and self.credential is not None
            and self.as_of is not None
            and self._issued_after(self.credential, self.as_of)
            and self._same_vehicle(self.record.plate, self.credential.plate)
        )

    def _validity(self) -> None:
        """Whether the vehicle is overdue (None: not known), by the month's end in Asia/Shanghai (R15)."""
        today = Month.at(self.now)
        credential, record = self.credential, self.record
        self.credential_month_past = credential is not None and credential.valid_until < today
        self.month: Month | None = credential.valid_until if credential is not None else None
        self.overdue: bool | None = None
        if record is None:
            return
        self.month = record.inspection_valid_until
        cached = L.OVERDUE in record.status or (None if self.month is None else self.month < today)
        self.overdue = cached
        if self.newer and credential is not None and cached is not False and not self.credential_month_past:
            # Letter Q and the month are one fact, told twice: the newer credential outranks both.
            self.overdue, self.month = False, credential.valid_until
            self.note(R.CREDENTIAL_NEWER_THAN_CACHE, Source.CODE)
            if self.list_old:
                self._rests_on_the_list()
        if record.status & NOTE_LETTERS:
            self.note(R.STATUS_NOTE, Source.RECORD)
        if record.ctp_until is not None and self.now.astimezone(SHANGHAI).date() > record.ctp_until:
            self.note(R.CTP_LAPSED, Source.RECORD)

    def _documents(self) -> None:
        """Facts of the proven credential itself: revoked, superseded, not begun, outdated, not live."""
        self.revoked = self.superseded = self.not_yet = False
        credential, code = self.credential, self.evidence.code
        if credential is None or code is None:
            return
        state = self.document.state if self.document else None
        self.revoked = state is CredentialState.REVOKED
        newest = self.record.credential_serial if self.record else None
        other_serial = newest is not None and newest != credential.serial and not self.newer
        self.superseded = state is CredentialState.SUPERSEDED or other_serial
        begins = max(credential.issued_at, credential.not_before or credential.issued_at)
        self.not_yet = begins > self.now + self.policy.clock_skew
        if self.revoked:
            self.note(R.CREDENTIAL_REVOKED, Source.RECORD)
        if code.fault in _OUTLIVED or (self.credential_month_past and self.overdue is False):
            self.note(R.CREDENTIAL_OUTDATED, Source.CODE)
        late = code.shown_at is not None and abs(self.now - code.shown_at) > self.policy.live_code_max_age
        if late or code.fault is CodeFault.NEEDS_PRESENTATION:
            self.note(R.QR_NOT_LIVE, Source.CODE)  # R11: forwarded pictures are allowed, so a note

    def _watch(self) -> None:
        """Watch list hits and letters C, J, N: on whom, and how old (R1, R8)."""
        self.wanted = self.watch_confirm = False
        trusted = {source for source, _ in self.trusted}
        for hit in self.evidence.watch:
            if hit.basis is Source.CODE and hit.basis not in trusted:
                self.note(R.WATCH_LEAD, Source.WATCH_LIST)
            else:
                fresh = self._within(hit.as_of, self.policy.watch_stale)
                self._hit(hit.basis in trusted, fresh, Source.WATCH_LIST)
        if self.record is not None and self.record.status & WATCH_LETTERS:
            self._hit(self.record_trusted, self.record_fresh, Source.RECORD)
        online, cache = self.evidence.online, self.evidence.cache
        if online.state is OnlineState.SEVERAL:
            self._kind_unknown(Source.ONLINE, self.now if online.watched else None)
        elif cache.watched and self.cache_as_of is not None:
            self._kind_unknown(Source.CACHE, self.cache_as_of)

    def _kind_unknown(self, source: Source, wanted: datetime | None) -> None:
        """R2 and R8: vehicles of several kinds have the seen text, nobody said which kind it is, and at that moment one
        of them was wanted; None where none is."""
        if not self.trusted and not self.hearsay():
            self.note(R.WATCH_LEAD if wanted is not None else R.NO_STATUS_DATA, source)
            return
        self.note(R.WATCH_KIND, source)
        if wanted is None:
            return
        self.watch_confirm = True
        if not self._within(wanted, self.policy.watch_stale):
            self.note(R.WATCH_STALE, source)
        if self.as_of is None:
            self.as_of = wanted

    def _hit(self, trusted: bool, fresh: bool, source: Source) -> None:
        trusted = trusted and not self.code_alone
        if trusted and fresh:
            self.wanted = True
            return
        self.watch_confirm = True
        if not fresh:
            self.note(R.WATCH_STALE, source)
        if not trusted:
            self.note(R.WATCH_UNCONFIRMED, source)

    def _consistency(self) -> None:
        """R1 and R2: do the identities, and the VIN that the credential is bound to, speak of one vehicle."""
        self.mismatch = self._other_vin() or any(
            not self._same_vehicle(a, b) for i, (_, a) in enumerate(self.trusted) for _, b in self.trusted[i + 1 :]
        )
        for source, plate in self.weak:
            if self.subject is not None and not self._same_vehicle(self.subject, plate):
                self.note(R.ID_UNCONFIRMED_MISMATCH, source)

    def _other_vin(self) -> bool:
        """R1: whether the proven credential is bound to another VIN than the typed one; notes whose VIN that is.

        The centre's word on it is a doubt and no mismatch: unlike with the credential, nothing tells a slip in typing.
        """
        code, word = self.evidence.code, self.evidence.online.vin
        # An unproven code could name any VIN: nothing that it says of one is evidence.
        matches = code.vin_matches if code is not None and self.credential is not None else None
        self.vin_confirmed = False
        if matches is False:
            self.note(R.VIN_MISMATCH, Source.CODE)
        elif word in (VinAnswer.OTHER, VinAnswer.WANTED):
            self.note(R.VIN_MISMATCH, Source.ONLINE)
        elif word is VinAnswer.ABSENT:
            self.note(R.VIN_NOT_FOUND, Source.ONLINE)
        elif matches or word is VinAnswer.SAME:
            self.vin_confirmed = True
            self.note(R.VIN_CONFIRMED, Source.CODE if matches else Source.ONLINE)
        if word is VinAnswer.WANTED:
            self.note(R.VIN_WANTED, Source.ONLINE)
        return matches is False

    # --------------------------------------------------------------------------- what the rules ask for

    def record_says(self, letters: frozenset[StatusLetter]) -> bool:
        """Whether the usable record carries one of these letters."""
        return self.record is not None and not self.record.status.isdisjoint(letters)

    def out_of_scope(self) -> bool:
        """Whether the vehicle is one that others check; an unproven code alone cannot say so."""
        first = next((plate for _, plate in self.trusted + self.hearsay()), None)
        return first is not None and first.kind in OUT_OF_SCOPE_KINDS

    def hearsay(self) -> list[tuple[Source, Plate]]:
        """The weak identities but for what an unproven code says of itself."""
        return [(source, plate) for source, plate in self.weak if source is not Source.CODE]

    def valid_by_record(self, grades: frozenset[Grade]) -> bool:
        """Whether a record of one of these grades says in validity; one without a month says nothing."""
        return self.overdue is False and self.grade in grades
