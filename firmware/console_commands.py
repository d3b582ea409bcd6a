"""The console's commands. Each yields rows; none prints, and none takes a plate, a path or an address."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from firmware.console_link import SOCKET, LinkError, NoProgramError, ask
from firmware.console_session import Command, Row, Session, UsageError, plain, record
from firmware.parts import NAMES

RING = "log.jsonl"
FAILURES = "failures.log"
EXPORT = "export"
PARTS = tuple(NAMES)
_KEPT_EXPORTS = 3
_ERASE = "ERASE"
_SYNC_WORDS = {
    "done": "done", "unreachable": "no connection; the old data stay in use", "busy": "one is running already",
    "card": "the card fails; the old data stay in use", "refused": "the data were refused; the old data stay in use",
    "no key": "neither a shift nor the centre has given the epoch key; the old data stay in use",
    "none": "no source is set", "hung": "it took too long and was ended", "broken": "it failed",
}  # fmt: skip


def _row(**facts: Any) -> Row:
    return Row("  ".join(f"{name} {'-' if value is None else value}" for name, value in facts.items()), facts)


def _none(arguments: list[str], usage: str) -> None:
    if arguments:
        raise UsageError(usage)


def _ask(session: Session, request: str, limit_s: float = 5.0, **more: str) -> dict[str, Any]:
    if session.run is None:
        raise NoProgramError("no program is running")
    return ask(session.run / SOCKET, request, limit_s=limit_s, **more)


# ----------------------------------------------------------------------------------------------------- free


def _help(session: Session, arguments: list[str]) -> Iterator[Row]:
    named = [name for name in arguments if name in COMMANDS]
    if len(named) != len(arguments):
        raise UsageError("help [command]")
    for name in named or COMMANDS:
        command = COMMANDS[name]
        needs = "" if command.free else " (after login)"
        words = f"  [{' '.join(command.words)}]" if named and command.words else ""
        facts = {"command": name, "help": command.help, "free": command.free, "words": command.words}
        yield Row(f"{name:9} {command.help}{needs}{words}", facts)
    if not named:
        yield Row("-j behind a command: JSON, one object a line; quit: leave", {"command": "quit", "help": "leave"})


def _version(_: Session, arguments: list[str]) -> Iterator[Row]:
    import platform  # noqa: PLC0415 - commands load what they need

    from firmware.build import software_version  # noqa: PLC0415

    _none(arguments, "version")
    yield _row(software=software_version(), python=platform.python_version(), machine=platform.machine())


def _status(session: Session, arguments: list[str]) -> Iterator[Row]:
    from firmware.logs import masked  # noqa: PLC0415
    from firmware.settings import CentreSettings  # noqa: PLC0415

    _none(arguments, "status")
    try:
        program = _ask(session, "status")
    except LinkError as exc:
        yield _row(program=str(exc))
    else:
        faults = program.pop("faults", {})
        yield _row(**{"program": "running", **{_word(name): _word(value) for name, value in program.items()}})
        for part, problem in faults.items() if isinstance(faults, dict) else ():
            yield _row(fault=_word(part), problem=masked(str(problem)))
        waiting, counted = CentreSettings(session.home.folder).version, program.get("settings_version")
        if waiting > (counted if isinstance(counted, int) else 0):
            yield _row(settings=f"version {waiting} of the centre counts from the next start")
    yield _data(session)
    if session.remark:
        yield _row(settings=masked(session.remark))


def _word(value: Any) -> Any:
    """What the program told, as far as it is no long text."""
    return value if value is None or isinstance(value, bool | int | float) else plain(str(value))[:40]


def _data(session: Session) -> Row:
    """How old the data in use are."""
    from firmware.build import open_store  # noqa: PLC0415
    from verifier.errors import CacheError, CacheMissingError  # noqa: PLC0415

    store, _ = open_store(session.home)
    with closing(store):
        try:
            info = store.info()
        except CacheMissingError:
            return _row(data="none")
        except CacheError:
            return _row(data="damaged")
    hours = (session.clock() - info.as_of).total_seconds() / 3600
    return _row(
        data=f"no. {info.seq}", region=info.region, as_of=info.as_of.isoformat(timespec="minutes"),
        age_h=round(hours, 1),
    )  # fmt: skip


def _selftest(session: Session, arguments: list[str]) -> Iterator[Row]:
    """By the program, which holds the parts; without one by itself."""
    from firmware.logs import masked  # noqa: PLC0415
    from firmware.self_tests import Ended  # noqa: PLC0415

    if not set(arguments) <= set(PARTS):
        raise UsageError(f"selftest [{' '.join(PARTS)}]")
    failed = tested = 0
    for report in _reports(session, list(dict.fromkeys(arguments))):
        tested, failed = tested + 1, failed + (report.state is Ended.FAIL)
        text = f"{report.state.value:5} {report.part:9} {report.ms:5} ms  {masked(report.detail)}"
        yield Row(text, {**asdict(report), "detail": masked(report.detail)})
    yield Row(f"FAILED {failed} of {tested}" if failed else "OK", {"result": "FAILED" if failed else "OK",
              "failed": failed, "tested": tested})  # fmt: skip


def _reports(session: Session, named: list[str]) -> Iterator[Any]:
    from firmware import console_parts  # noqa: PLC0415

    try:
        there = [str(part) for part in _ask(session, "parts").get("parts", [])]
    except NoProgramError:
        tests = console_parts.own_tests(session.settings, session.home, session.clock, session.config.parent)
        parts = named or list(tests)
        yield from (_absent(part) for part in parts if part not in tests)
        yield from console_parts.reports(tests, [part for part in parts if part in tests])
        return
    for part in named or [part for part in PARTS if part in there]:
        yield _asked(session, part) if part in there else _absent(part)


def _absent(part: str) -> Any:
    from firmware.self_tests import Ended, PartReport  # noqa: PLC0415

    return PartReport(part, Ended.NOTE, 0, "none is set")


def _asked(session: Session, part: str) -> Any:
    from firmware.self_tests import Ended, PartReport, limit_of  # noqa: PLC0415

    try:
        told = _ask(session, "selftest", limit_of(part) + 2, part=part)
        return PartReport(part, Ended(told["state"]), int(told["ms"]), str(told["detail"]))
    except (LinkError, KeyError, ValueError, TypeError):
        return PartReport(part, Ended.FAIL, 0, "the program did not answer")


def _login(session: Session, arguments: list[str]) -> Iterator[Row]:
    from firmware.console_login import LoginError, LoginFault  # noqa: PLC0415

    _none(arguments, "login")
    try:
        challenge = session.login.challenge()
        yield Row(f"device {challenge.device}  challenge {challenge.nonce}", asdict(challenge))
        answer = session.terminal.read("answer: ", lambda _: [], lambda: None, keep=False)
        name = session.login.answer(answer)
    except LoginError as exc:
        wait_s = round(exc.wait.total_seconds())
        more = f"; wait {wait_s} s" if wait_s else ""
        if exc.fault is LoginFault.WRONG:  # so many there are not: after the fifth they take their time
            record(session, "login", "refused")
        yield Row(f"login refused: {exc.fault.value}{more}", {"login": "refused", "wait_s": wait_s})
        return
    record(session, "login", "done")
    yield _row(login=name)


# ---------------------------------------------------------------------------------------------- after login


def _logout(session: Session, arguments: list[str]) -> Iterator[Row]:
    _none(arguments, "logout")
    session.login.end()
    session.terminal.forget()
    yield _row(logout="done")


def _logs(session: Session, arguments: list[str]) -> Iterator[Row]:
    from firmware.logs import LogRing, tail  # noqa: PLC0415

    most = arguments[0] if arguments else "20"
    if len(arguments) > 1 or not (most.isascii() and most.isdigit() and 1 <= int(most[:9]) <= 500):
        raise UsageError("logs [1 to 500]")
    failures = tail(session.home.folder / FAILURES)[-int(most) :]
    notes = LogRing(session.home.folder / RING, session.clock).lines(int(most))
    yield _row(failures=len(failures), notes=len(notes))
    for line in failures:
        yield Row(line, {"failure": line})
    for note in notes:
        yield Row(f"{note['at']} {note['part']:9} {note['text']}", note)


def _sync(session: Session, arguments: list[str]) -> Iterator[Row]:
    from firmware.jobs import SyncProcess  # noqa: PLC0415

    if arguments not in ([], ["hot"], ["full", "yes"]):
        raise UsageError("sync [hot]; everything anew, for which the card needs room twice: sync full yes")
    given = session.settings.sync
    words = ("--home", str(session.home.folder), "--from", given.source, "--region", given.region)
    more = tuple(f"--{word}" for word in arguments[:1])
    kind = SyncProcess((*words, *more) if given.source else ()).run().get("kind", "broken")
    kind = kind if kind in _SYNC_WORDS else "broken"
    yield Row(f"sync: {_SYNC_WORDS[kind]}", {"sync": kind})
    if kind == "done":
        yield _data(session)


def _data_sets(session: Session, arguments: list[str]) -> Iterator[Row]:
    """Each set with its number, the moment that it describes, and how long that is ago."""
    from firmware.build import open_store  # noqa: PLC0415

    _none(arguments, "data")
    store, _ = open_store(session.home)
    with closing(store):
        info = store.info()
    for name, number, as_of in (
        ("status", info.seq, info.as_of), ("hot", info.hot_seq, info.hot_as_of), ("trust", None, info.trust_as_of),
    ):  # fmt: skip
        hours = None if as_of is None else round((session.clock() - as_of).total_seconds() / 3600, 1)
        moment = None if as_of is None else as_of.isoformat(timespec="minutes")
        yield _row(data=name, number=number, as_of=moment, age_h=hours)


def _scan(session: Session, arguments: list[str]) -> Iterator[Row]:
    from firmware import console_parts  # noqa: PLC0415
    from firmware.console_trials import LOOK_S  # noqa: PLC0415

    _none(arguments, "scan")
    try:
        seen = _ask(session, "scan", LOOK_S + 2)
    except NoProgramError:
        seen = console_parts.own_look(session.settings, session.config.parent, session.home)
    codes = seen.pop("codes", [])
    yield _row(**_told(seen))
    yield from _rows_of(codes)


def _tags(session: Session, arguments: list[str]) -> Iterator[Row]:
    from firmware import console_parts  # noqa: PLC0415
    from firmware.console_trials import TAGS_S  # noqa: PLC0415

    _none(arguments, "tags")
    try:
        seen = _ask(session, "tags", TAGS_S + 2)
    except NoProgramError:
        seen = console_parts.own_tags(session.settings)
    tags = seen.pop("tags", [])
    yield _row(tags=len(tags) if isinstance(tags, list) else 0, **_told(seen))
    yield from _rows_of(tags)


def _told(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What another part told, as far as it is no long text, without what names a car or a tag."""
    from firmware.logs import masked  # noqa: PLC0415

    return {
        _word(name): masked(value)[:40] if isinstance(value, str) else _word(value) for name, value in facts.items()
    }


def _rows_of(told: Any) -> Iterator[Row]:
    yield from (_row(**_told(facts)) for facts in (told if isinstance(told, list) else ()) if isinstance(facts, dict))


def _test(session: Session, arguments: list[str]) -> Iterator[Row]:
    from firmware import console_parts  # noqa: PLC0415
    from firmware.console_trials import WHAT  # noqa: PLC0415

    if len(arguments) != 1 or arguments[0] not in WHAT:
        raise UsageError(f"test {' | '.join(WHAT)}")
    what = arguments[0]
    try:
        _ask(session, "test", what=what)
    except NoProgramError:
        console_parts.own_trial(session.settings, what)
    yield Row(f"test {what}: {WHAT[what]}; only who is there can tell whether it was so", {"test": what, "done": True})


def _cache(session: Session, arguments: list[str]) -> Iterator[Row]:
    from firmware.build import open_store  # noqa: PLC0415
    from firmware.logs import masked  # noqa: PLC0415

    _none(arguments, "cache")
    store, warning = open_store(session.home)
    with closing(store):
        info = store.info()
    yield _data(session)
    yield _row(vehicles=info.vehicles, bytes=info.bytes, key_epoch=info.key_epoch, base=info.base_seq,
               hot=info.hot_seq, trust_as_of=info.trust_as_of.isoformat(timespec="minutes"))  # fmt: skip
    for note in (*info.notes, *([warning] if warning else [])):
        yield _row(note=masked(note))


def _keys(session: Session, arguments: list[str]) -> Iterator[Row]:
    from firmware.build import open_store  # noqa: PLC0415
    from firmware.logs import masked  # noqa: PLC0415
    from verifier.trust import load_trust_list  # noqa: PLC0415
    from verifier.types import utc  # noqa: PLC0415

    _none(arguments, "keys")
    store, _ = open_store(session.home)
    with closing(store):
        keys = load_trust_list(store.trust_entries()).keys.values()
    for key in keys:
        yield _row(
            kid=key.key_id, issuer=masked(key.issuer), role=key.role.name.lower(), state=key.state.name.lower(),
            until=utc(key.until).date().isoformat(),
        )  # fmt: skip


def _net(session: Session, arguments: list[str]) -> Iterator[Row]:
    from firmware.config import load_online  # noqa: PLC0415
    from firmware.logs import masked  # noqa: PLC0415
    from verifier.cache import schema  # noqa: PLC0415
    from verifier.cache.marks import read_history  # noqa: PLC0415

    _none(arguments, "net")
    online = load_online(session.home)
    yield _row(centre="none is set") if online is None else _row(centre=masked(online.url), mode=online.mode.value)
    yield _row(sync=masked(session.settings.sync.source) or "none is set", region=session.settings.sync.region)
    if (session.home.cache / schema.STATE).exists():
        past = read_history(session.home.cache / schema.STATE)
        good = None if past.last_good is None else past.last_good.isoformat(timespec="minutes")
        yield _row(last_good_sync=good, failures_since=past.failures, last_failure=masked(past.last_failure or "-"))


def _clock(session: Session, arguments: list[str]) -> Iterator[Row]:
    from verifier.clock import system_witness  # noqa: PLC0415
    from verifier.trusted_time import clock_report  # noqa: PLC0415

    _none(arguments, "clock")
    now = session.clock()
    report = clock_report(session.home.cache, now, system_witness())
    yield _row(now=now.isoformat(timespec="seconds"), trusted=report["trusted"])
    for name, value in report.items():
        if name != "trusted" and value not in (None, []):
            yield _row(**{name: "; ".join(value) if isinstance(value, list) else value})


def _config(session: Session, arguments: list[str]) -> Iterator[Row]:
    from firmware.logs import masked  # noqa: PLC0415

    _none(arguments, "config")
    yield _row(settings=masked(session.remark) or "in force, with those that the centre sent")
    for name, value in _flat(asdict(session.settings)):
        yield _row(**{name: masked(value) if isinstance(value, str) else value})


def _flat(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each setting with its place in the file; what stands in no section comes first."""
    for section, values in settings.items():
        if isinstance(values, Mapping):
            yield from ((f"{section}.{name}", value) for name, value in values.items())
        else:
            yield section, values


def _export(session: Session, arguments: list[str]) -> Iterator[Row]:
    import base64  # noqa: PLC0415
    import hashlib  # noqa: PLC0415

    if arguments not in ([], ["print"]):
        raise UsageError("export [print]")
    data = log_bundle(session)
    name = f"logs-{session.clock():%Y%m%dT%H%M%SZ}.tar.gz"
    digest = hashlib.sha256(data).hexdigest()
    if not arguments:
        _keep(session.home.folder / EXPORT, name, data)
    yield Row(f"{name}  {len(data)} bytes  sha256 {digest}", {"file": name, "bytes": len(data), "sha256": digest})
    text = base64.b64encode(data).decode("ascii") if arguments else ""
    for at in range(0, len(text), 76):
        yield Row(text[at : at + 76], {"base64": text[at : at + 76]})


def _keep(folder: Path, name: str, data: bytes) -> None:
    from verifier.secret_files import write_secret  # noqa: PLC0415

    folder.mkdir(mode=0o700, exist_ok=True)
    write_secret(folder / name, data)
    older = sorted(path for path in folder.glob("logs-*.tar.gz") if path.name != name)
    for path in older[: 1 - _KEPT_EXPORTS]:
        path.unlink(missing_ok=True)


def log_bundle(session: Session) -> bytes:
    """What helps to find a fault, without personal data: no audit record, no photo, no device name, no key."""
    from firmware.logs import LogRing, bundle, tail  # noqa: PLC0415

    facts: dict[str, Any] = {
        name: [dict(row.facts) for row in _safely(command, session)]
        for name, command in (("version", _version), ("status", _status), ("selftest", _selftest), ("clock", _clock))
    }
    left_out = ("device.name", "centre.url", "sync.source", "paths.home")
    facts["settings"] = {name: value for name, value in _flat(asdict(session.settings)) if name not in left_out}
    facts["notes"] = LogRing(session.home.folder / RING, session.clock).lines(2000)
    return bundle(facts, {"failures": tail(session.home.folder / FAILURES)}, session.clock)


def _safely(command: Callable[[Session, list[str]], Iterator[Row]], session: Session) -> Iterator[Row]:
    """A part of the bundle that fails is told in its place."""
    import sqlite3  # noqa: PLC0415

    from verifier.errors import VerifierError  # noqa: PLC0415

    try:
        yield from command(session, [])
    except (VerifierError, OSError, sqlite3.Error) as exc:
        yield _row(error=type(exc).__name__)


def _wipe(session: Session, arguments: list[str]) -> Iterator[Row]:
    """The word is asked for on a line of its own: it is not in the history, and nobody types it by mistake."""
    from firmware.keeper import wipe_files  # noqa: PLC0415
    from verifier.errors import SyncBusyError  # noqa: PLC0415
    from verifier.wipe import Wiper  # noqa: PLC0415

    _none(arguments, "wipe")
    yield Row(f"this erases all keys, data and records; what was not uploaded is lost. To go on type {_ERASE}",
              {"wipe": "asked"})  # fmt: skip
    typed = session.terminal.read("erase: ", lambda _: [], lambda: None, keep=False)
    if typed.strip() != _ERASE or session.login.technician is None:
        yield _row(wipe="nothing was erased")
        return
    try:
        Wiper(wipe_files(session.home, session.run), session.clock).by_hand()
        yield _row(wipe="erased")
    except SyncBusyError:
        yield _row(wipe="the keys are destroyed; a sync is running, the data go when the program starts")
    finally:
        session.audit = None  # its session went with the log
        session.login.end()
        session.terminal.forget()


def _reboot(session: Session, arguments: list[str]) -> Iterator[Row]:
    if arguments != ["yes"]:
        raise UsageError("reboot yes")
    status = session.switch(("systemctl", "reboot"))
    yield _row(reboot="begun" if status == 0 else "the system did not take it", status=status)


def _poweroff(session: Session, arguments: list[str]) -> Iterator[Row]:
    if arguments != ["yes"]:
        raise UsageError("poweroff yes")
    status = session.switch(("systemctl", "poweroff"))
    yield _row(poweroff="begun" if status == 0 else "the system did not take it", status=status)


COMMANDS: Mapping[str, Command] = {
    "help": Command(_help, "the commands, or one of them", free=True, without_record=True),
    "version": Command(_version, "software and machine", free=True, without_record=True),
    "status": Command(_status, "how program and data stand", free=True, without_record=True),
    "selftest": Command(_selftest, "test every part, or those named", PARTS, free=True, without_record=True),
    "login": Command(_login, "a challenge, and the answer to it", free=True, without_record=True),
    "logout": Command(_logout, "nobody is logged in any more", without_record=True),
    "logs": Command(_logs, "the newest notes and failures", without_record=True),
    "sync": Command(_sync, "fetch the data now; hot: the hot list only; full yes: all anew", ("full", "hot", "yes")),
    "data": Command(_data_sets, "each set of data, and how old it is", without_record=True),
    "cache": Command(_cache, "the data in use", without_record=True),
    "keys": Command(_keys, "the issuers' keys that this device trusts", without_record=True),
    "scan": Command(_scan, "one look of the camera", without_record=True),
    "tags": Command(_tags, "the tags before the reader, for 3 s", without_record=True),
    "test": Command(_test, "light, sound, motor or panel", ("buzzer", "led", "motor", "panel"), without_record=True),
    "net": Command(_net, "centre and sync: addresses, and how the last sync went", without_record=True),
    "clock": Command(_clock, "what is known of the time", without_record=True),
    "config": Command(_config, "the settings in force", without_record=True),
    "export": Command(_export, "the logs without personal data, as a file; print: here", ("print",)),
    "wipe": Command(_wipe, "erase this device; asks for a word before"),
    "reboot": Command(_reboot, "start the machine anew; 'yes' behind it", ("yes",), without_record=True),
    "poweroff": Command(_poweroff, "switch the machine off; 'yes' behind it", ("yes",), without_record=True),
}  # fmt: skip
