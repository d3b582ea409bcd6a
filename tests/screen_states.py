"""States of the device whose pictures are stored: verdicts, and every page as an officer comes to it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache

from PIL import Image

from firmware.machine import events as ev
from firmware.machine import states as st
from firmware.machine.going import shut
from firmware.machine.states import Light, MenuItem, Mode, Network, Outcome, State, Status
from firmware.plate_entry import Entry
from firmware.verdict_screen import PANEL, Around, page_ink
from firmware.views import VerdictView
from hw.buttons.keys import Key
from tests.hand import Hand
from tests.test_plate_entry import card_presses, presses
from verifier.check import CheckResult, Observation
from verifier.officers import LoginFault, Officer
from verifier.policy import Policy
from verifier.recheck_queue import News
from verifier.roles import Answer, LimitedAnswer
from verifier.types import (
    CodeEvidence,
    CodeReading,
    Credential,
    Evidence,
    Hint,
    Month,
    Plate,
    PresentationMode,
    Serial,
    SignatureState,
    Source,
    TagAuth,
    TagEvidence,
)
from verifier.verdict import Action, Finding, Grade, Reason, Role, Tone, Verdict, VerdictCode
from verifier.wording import VERDICTS, Language

NOW = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)
NOW_MS = 120_000
NOTHING_ROUND = Around()
PLATES = ("京A12345", "京AD12345", "川X1234应急", "粤ZF023港", "WJ京12345", None)
AGES = (timedelta(0), timedelta(hours=8), timedelta(days=5), timedelta(days=12), timedelta(days=365), None)
CARS = (("K33", "AJ", "A"), ("B11", "CFI", "P"), ("Z99", "Z", None))  # type, colours, use: usual, longest, unknown


def make_verdict(
    code: VerdictCode,
    *,
    plate: str | None = "京A12345",
    grade: Grade = Grade.FRESH_CACHE,
    age: timedelta | None = timedelta(hours=8),
    month: Month | None = Month(2027, 8),  # noqa: B008 - a constant
    reasons: tuple[Reason, ...] = (Reason.DATA_STALE, Reason.CTP_LAPSED, Reason.ID_WEAK, Reason.STATUS_NOTE),
    actions: tuple[Action, ...] = (Action.CHECK_VIN, Action.CONFIRM_CENTRE),
) -> Verdict:
    """A verdict with the tone of its code; nothing here claims that the rules would give it."""
    return Verdict(
        code=code,
        grade=grade,
        tone=VERDICTS[code].tone,
        findings=tuple(Finding(reason=reason, source=Source.CACHE) for reason in reasons),
        actions=actions,
        policy="test",
        plate=None if plate is None else Plate(plate, None),
        valid_until=month,
        as_of=None if age is None else NOW - age,
    )


def make_credential(vehicle_type: str | None, colour: str | None, use: str | None) -> Credential:
    """A credential that says this of the car's looks."""
    return Credential(
        serial=Serial("00" * 8),
        plate=Plate("京A12345", "02"),
        valid_until=Month(2027, 8),
        issued_at=NOW,
        vehicle_type=vehicle_type,
        body_colour=colour,
        use_nature=use,
    )


def make_result(
    verdict: Verdict,
    credential: Credential | None = None,
    similar: tuple[Plate, ...] = (),
    mode: PresentationMode | None = PresentationMode.STORED,
    tag: TagEvidence | None = None,
) -> CheckResult:
    """A finished check with this verdict, of the car with this proven credential, shown in this mode, and this tag."""
    code = CodeEvidence(reading=CodeReading.NONE)
    if credential is not None:
        code = CodeEvidence(
            reading=CodeReading.OK, mode=mode, signature=SignatureState.VALID, credential=credential
        )  # fmt: skip
    return CheckResult(
        check_id="a", verdict=verdict, evidence=Evidence(code=code, tag=tag), now=NOW, earliest=NOW, policy=Policy(),
        similar=similar,
    )  # fmt: skip


def make_state(language: Language = "zh", **facts: object) -> State:
    """A device in service."""
    status = Status(battery=72, data_as_of=NOW - timedelta(hours=8), online=True, about=("markcheck 0.1.0", "P-001"))
    return replace(State(language=language, status=status), **facts)


def pages_ink(view: VerdictView, size: tuple[int, int] = PANEL, around: Around = NOTHING_ROUND) -> list[Image.Image]:
    """The verdict page, then the pages of reasons, actions and the vehicle."""
    return [page_ink(view, number, size, around) for number in range(1 + len(view.lists))]


def showing(state: State, *results: CheckResult, car: int = 0, sheet: int = 0) -> State:
    """The state with these verdicts on the panel."""
    outcomes = tuple(Outcome(number=1, seen=Observation(), result=result) for result in results)
    return replace(state, page=st.Shown(outcomes=outcomes, since_ms=0, car=car, sheet=sheet))


def verdict_states(language: Language) -> dict[str, State]:
    """Every verdict over all plates, grades and ages in turn; then sheets, the two cars of an accident, demos."""
    state = make_state(language)
    demo = replace(state, status=replace(state.status, demo=True))
    states = {}
    for number, code in enumerate(VerdictCode):
        verdict = make_verdict(
            code,
            plate=PLATES[number % len(PLATES)],
            grade=list(Grade)[number % len(Grade)],
            age=AGES[(number // 2) % len(AGES)],
            month=None if number % 7 == 6 else Month(2027, 8),
            actions=(Action.CONFIRM_PLATE, Action.CONFIRM_CENTRE) if number % 4 == 3 else (Action.CHECK_VIN,),
        )
        states[code] = showing(state, make_result(verdict))
    for code in (VerdictCode.VALID, VerdictCode.EXPIRED, VerdictCode.NOT_FOUND, VerdictCode.SIGNED_ONLY):
        actions = (Action.CONFIRM_PLATE,) if code is VerdictCode.NOT_FOUND else (Action.RELEASE,)
        states[f"demo {code}"] = showing(demo, make_result(make_verdict(code, actions=actions)))
    similar = (Plate("京A12B45", "02"), Plate("京A1234B", "02"))
    sheets = make_result(make_verdict(VerdictCode.NOT_FOUND), make_credential(*CARS[1]), similar)
    for number in range(1, 5):
        states[f"sheet {number}"] = showing(demo if number == 2 else state, sheets, sheet=number)
    for mode in PresentationMode:
        shown = make_result(make_verdict(VerdictCode.NOT_FOUND), make_credential(*CARS[1]), similar, mode)
        states[f"sheet 5 {mode}"] = showing(state, shown, sheet=5)
    tag = TagEvidence(
        auth=TagAuth.UNSUPPORTED, tid="", plate=Plate("京A12345", "02"), vehicle_type="K33", body_colour="AJ"
    )  # fmt: skip
    read = make_verdict(VerdictCode.VALID, reasons=(Reason.ID_WEAK,), actions=(Action.CONFIRM_PLATE,))
    states["sheet of a tag"] = showing(state, make_result(read, tag=tag), sheet=3)
    both = make_result(read, make_credential("K33", "E", "A"), tag=tag)
    states["sheet of code and tag"] = showing(state, both, sheet=3)
    crash = replace(state, mode=Mode.ACCIDENT)
    cars = (
        make_result(make_verdict(VerdictCode.EXPIRED)),
        make_result(make_verdict(VerdictCode.VALID, plate=PLATES[1])),
    )
    states["car A"], states["car B"] = (showing(crash, *cars, car=car) for car in (0, 1))
    states["car A why"] = showing(crash, *cars, sheet=1)
    doubted = make_verdict(VerdictCode.VALID, reasons=(Reason.TAG_AUTH_FAILED,), actions=(Action.CONFIRM_PLATE,))
    states["VALID in doubt"] = showing(state, make_result(replace(doubted, tone=Tone.CAUTION)))
    good = make_verdict(VerdictCode.VALID, reasons=(), actions=(Action.CONFIRM_PLATE, Action.RELEASE))
    states["VALID to confirm"] = showing(state, make_result(good))
    return states


def page_states(language: Language) -> dict[str, State]:
    """Every page that is no verdict, as an officer comes to it."""
    ready = Hand(make_state(language)).happens(ev.Started()).state
    worn = replace(
        ready, network=Network.OFF, faults={"camera": "MISSING"},
        status=replace(ready.status, battery=41, online=False, clock_doubted=True, demo=True),
    )  # fmt: skip
    return {
        "boot": make_state(language),
        **reading_states(ready, worn),
        **typing_states(ready, worn),
        **list_states(ready, worn),
        **device_states(ready, worn),
        **login_states(ready),
    }


def _after(start: State, *keys: str | Key) -> State:
    return Hand(start).press(*keys).state


def _menu(ready: State, item: MenuItem) -> State:
    hand = Hand(ready)
    hand.hold("ok")
    return hand.press(*["down"] * hand.state.menu.index(item)).state


def reading_states(ready: State, worn: State) -> dict[str, State]:
    """Until a code is read; `worn` is a device with all its banners."""
    aim = _after(ready, "ok")
    lost = replace(aim.page, named=True, hint=Hint.GLARE)
    return {
        "ready": ready,
        "ready on mains": replace(ready, status=replace(ready.status, battery=None, online=False)),
        "ready with everything": worn,
        "battery low": replace(ready, status=replace(ready.status, battery=7, demo=True)),
        "aim": aim,
        "aim with a hint": replace(aim, page=lost),
        "choose": Hand(ready).press("ok").sees("京A12345", "沪B9K821", "a very long label of someone else").state,
        "checking": replace(ready, page=st.Checking(number=1, since_ms=0, seen=(), behind=st.Ready())),
    }


def typing_states(ready: State, worn: State) -> dict[str, State]:
    """Plates, and the numbers on cards."""
    return {
        "typing 0": _after(ready, "up"),
        "typing 1": _after(ready, "up", *presses("京AD12345")[:1]),
        "typing 2": _after(ready, "up", *presses("京AD12345")[:6]),
        "typing 7": _after(ready, "up", *presses("京A1234警")[:13]),
        "typing 8 with everything": _after(worn, "up", *presses("京AD12345")[:14]),
        "typing to compare": replace(
            _after(ready, "up"),
            mode=Mode.ROADSIDE,
            page=st.Typing(entry=Entry("京"), seen=Observation(code=b"this car")),
        ),
        "typed": _after(ready, "up", *presses("京A12345"), "right"),
        "typed long": _after(worn, "up", *presses("川XS1234应急")),
        "card 0": _after(ready, "up", *presses("京A12345"), "up"),
        "card 5": _after(ready, "up", *presses("京A12345"), "up", *card_presses("1020B")),
        "card 11 with everything": _after(worn, "up", *presses("京A12345"), "up", *card_presses("10203040506")),
        "card 12": _after(ready, "up", *presses("京A12345"), "up", *card_presses("10203040506F")),
        "card whole": _after(ready, "up", *presses("京A12345"), "up", *card_presses("10203040506F"), "ok"),
    }


def list_states(ready: State, worn: State) -> dict[str, State]:
    """Tags, cars that pass, the cars of an accident, and what was checked before."""
    tags = Hand(ready).press("left").happens(ev.TagsSeen(tuple(map(_tag, PLATES[:4], (-38.0, -51.0, -60.0, -77.0)))))
    lane = Hand(_menu(ready, MenuItem.CHECKPOINT)).press("ok").happens(ev.Passed(128))
    alarm = Hand(lane.state).happens(ev.Alarm(number=9, result=make_result(make_verdict(VerdictCode.WANTED)), lane=3))
    past = (VerdictCode.VALID, VerdictCode.FORGED, VerdictCode.SIGNED_ONLY, VerdictCode.EXPIRED_UNCONFIRMED)
    history = tuple(
        Outcome(number=at, seen=Observation(), result=make_result(make_verdict(code, plate=PLATES[at])))
        for at, code in enumerate(past)
    )
    counts = {VerdictCode.VALID: 37, VerdictCode.FORGED: 1, VerdictCode.EXPIRED: 2}
    crash = _after(ready, "right")
    news = tuple(
        News(check_id=str(at), at=NOW - timedelta(hours=4 * at), then=then, now=now, plate=Plate(PLATES[at], None))
        for at, (then, now) in enumerate(_CHANGES)
    )
    told = replace(ready, news=news, day=NOW.date(), counts=counts)
    return {
        "tags": tags.state,
        "tags none": _after(ready, "left"),
        "checkpoint": lane.state,
        "checkpoint alarm": alarm.state,
        "accident": crash,
        "accident second": Hand(crash).press("ok").sees("car one").state,
        "history": _after(replace(ready, history=history, counts=counts), "down"),
        "history empty": _after(ready, "down"),
        "ready with news": told,
        "news": _after(told, "down"),
        "news with everything": _after(replace(worn, news=news), "down", "down", "down"),
    }


def device_states(ready: State, worn: State) -> dict[str, State]:
    """The menu, and what it leads to."""
    tested = ("PASS camera 182 ms", "PASS reader 40 ms", "FAIL clock")
    return {
        "menu": _menu(ready, MenuItem.LOOKUP),
        "menu end": _menu(ready, MenuItem.BRIGHTNESS),
        "sync": _after(_menu(ready, MenuItem.SYNC), "ok"),
        "self-test": replace(ready, page=st.Info(title=MenuItem.SELF_TEST, lines=tested)),
        "about": _after(_menu(ready, MenuItem.INFO), "ok"),
        "about with everything": replace(worn, page=st.Info()),
        "switching off": replace(ready, page=st.Off(), light=Light.SLEEP),
        "off": replace(ready, page=st.Off(kept=True), light=Light.SLEEP),
        "off flat": replace(ready, page=st.Off(flat=True, kept=True)),
    }  # fmt: skip


def login_states(ready: State) -> dict[str, State]:
    """The pages of a device that somebody has to log in at."""
    guarded = replace(ready, lock_ms=600_000, officer=Officer(officer_id="110001", role=Role.OFFICER))
    closed = replace(guarded, page=st.Login(), locked=True)
    typing = Hand(closed).press("up", "left", "up", "left", "up", "up").state
    pin = Hand(shut(closed)[0]).press("up", "ok", "left", "left").state
    told = replace(closed, page=st.Login(refused=LoginFault.WRONG))
    waits = replace(closed, page=st.Login(refused=LoginFault.WAIT, until_ms=NOW_MS + 60_000, wait_s=60))
    lane = replace(closed, page=st.Checkpoint(passed=128, alarms=2), mode=Mode.CHECKPOINT)
    insurer = replace(guarded, officer=Officer(officer_id="110001", role=Role.INSURER))
    yes = LimitedAnswer(answer=Answer.YES, month=Month(2027, 8), as_of=NOW, policy="test", age=None)
    answer = st.Answer(number=1, answer=yes, since_ms=0)
    purpose = Hand(guarded).press("up", *presses("京AD12345"), "ok").state
    return {
        "login": typing,
        "login pin": pin,
        "login tried": replace(closed, page=st.Login(attempt=1)),
        "login refused": told,
        "login wait": waits,
        "purpose": purpose,
        "limited answer": replace(insurer, page=answer),
        "limited answer at a gate": replace(insurer, page=answer, officer=Officer(officer_id="1", role=Role.GATE)),
        "checkpoint locked": lane,
        "menu lock": replace(guarded, page=st.Menu(cursor=len(guarded.menu) - 1)),
        "look-ups flagged": replace(guarded, flagged_ms=NOW_MS),
    }


def _tag(plate: str, rssi_dbm: float) -> ev.SeenTag:
    evidence = TagEvidence(auth=TagAuth.OK, tid=plate, plate=Plate(plate, None))
    return ev.SeenTag(evidence=evidence, rssi_dbm=rssi_dbm)


_CHANGES = (
    (VerdictCode.EXPIRED_UNCONFIRMED, VerdictCode.VALID),
    (VerdictCode.SIGNED_ONLY, VerdictCode.REVOKED),
    (VerdictCode.VALID_STALE, VerdictCode.REVOKED),
)


@cache
def stored_states(language: Language) -> dict[str, State]:
    """Every state whose picture is stored, by its name."""
    return {**verdict_states(language), **page_states(language)}
