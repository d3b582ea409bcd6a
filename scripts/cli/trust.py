"""`markcheck trust`: which keys this device trusts, and for what."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from firmware.build import open_store
from firmware.config import Home
from firmware.views import columns, printable
from scripts.cli.console import FILE, home_option, json_option, print_json, problem
from verifier.cache.store import GenerationInfo
from verifier.clock import system_clock
from verifier.codec import cbor
from verifier.errors import CacheMissingError
from verifier.trust import ANY_REGION, MAX_BYTES, TrustedKey, TrustList, load_trust_list
from verifier.types import SHANGHAI, KeyRole, KeyState, utc

F = TypeVar("F", bound=Callable[..., Any])

_POSIX = re.compile("[0-9]{1,10}")
_KID = re.compile("[0-9a-f]{4,16}")


class Standing(StrEnum):
    """What a key is worth at one moment."""

    ACTIVE = "active"
    NOT_YET = "not yet"
    RETIRED = "retired"  # signs no more; what it signed is accepted until its `until`
    OVER = "over"
    COMPROMISED = "compromised"


class TrustSource(NamedTuple):
    """A trust list, and the publication it came with; None for a list from a file."""

    trust: TrustList
    publication: GenerationInfo | None


# ---------------------------------------------------------------------------- what both groups of commands share


def _time(_: click.Context, __: click.Parameter, value: str | None) -> datetime:
    """ISO 8601 with an offset, or POSIX seconds, to an aware datetime."""
    if value is None:
        return system_clock()
    try:
        moment = utc(int(value)) if _POSIX.fullmatch(value) else datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise click.BadParameter("a time without offset means another moment in each place: add Z or +08:00")
        moment.astimezone(SHANGHAI)  # the calendar's first and last day have no such time
    except (ValueError, OverflowError) as exc:
        raise click.BadParameter("not a time: ISO 8601 like 2026-11-22T08:00:00+08:00, or POSIX seconds") from exc
    return moment


def at_option(function: F) -> F:
    """--at TIME, given to the command as an aware datetime, now when it is not given."""
    return click.option(
        "--at",
        metavar="TIME",
        callback=_time,
        help="Look as of this moment: ISO 8601 with offset or Z, or POSIX seconds.  [default: now]",
    )(function)


def entries_option(name: str) -> Callable[[F], F]:
    """An option for a file of trust entries, given to the command as `entries`."""
    return click.option(
        name,
        "entries",
        type=FILE,
        help="CBOR array of trust list entries.  [default: the device's own list]",
    )


def trust_source(entries: Path | None, home: Home) -> TrustSource:
    """The trust list in the file, else the device's own; TrustListError, CacheMissingError, CacheCorruptError."""
    if entries is not None:
        with entries.open("rb") as file:
            return TrustSource(load_trust_list(file.read(MAX_BYTES + 1)), None)
    store, _ = open_store(home)
    try:
        return TrustSource(load_trust_list(store.trust_entries()), store.info())
    except CacheMissingError as exc:
        raise CacheMissingError("no data, so no trust list: run 'markcheck sync' first, or name a file") from exc
    finally:
        store.close()


# --------------------------------------------------------------------------------------------- the commands


@click.group()
def trust() -> None:
    """The keys whose signatures this device accepts.

    \b
    Examples:
      markcheck trust list
      markcheck trust list --at 2028-01-01T00:00:00+08:00
      markcheck trust show 96e6e3

    Keys come with the signed distribution alone: no command adds one.
    """


@trust.command("list")
@entries_option("--entries")
@at_option
@json_option
@home_option
def list_keys(entries: Path | None, at: datetime, as_json: bool, home: Home) -> None:
    """All keys with their state as of one moment.

    \b
    Examples:
      markcheck trust list
      markcheck trust list --entries entries.cbor --json
      markcheck trust list --at 2028-01-01T00:00:00+08:00

    Keys come with the signed distribution alone: no command adds one.
    """
    source = trust_source(entries, home)
    keys = sorted(source.trust.keys.values(), key=lambda key: (key.issuer, key.role, key.not_before, key.kid))
    counts = Counter(standing(key, at) for key in keys)
    if as_json:
        counted = {state.name.lower(): counts[state] for state in Standing}
        found = [key_json(key, at) for key in keys]
        print_json({"at": at.isoformat(), **_publication_json(source), "counts": counted, "keys": found})
        return
    click.echo(f"{len(keys)} keys as of {_moment(at.timestamp())}{_counted(counts)}")
    if source.publication is not None:
        info = source.publication
        click.echo(f"from publication no. {info.seq} ({info.region}), data of {_moment(info.as_of.timestamp())}")
    for row in _table([_HEAD, *(_row(key, at) for key in keys)]):
        click.echo(row)


@trust.command()
@click.argument("kid")
@entries_option("--entries")
@at_option
@json_option
@home_option
def show(kid: str, entries: Path | None, at: datetime, as_json: bool, home: Home) -> int:
    """One key in full. KID is its id or the first 4 or more hex digits of it.

    \b
    Examples:
      markcheck trust show 96e6e3139a51d81c
      markcheck trust show 96e6 --entries entries.cbor --json

    Keys come with the signed distribution alone: no command adds one.
    """
    wanted = kid.lower()
    if not _KID.fullmatch(wanted):
        raise click.UsageError("KID: 4 to 16 hex digits")
    source = trust_source(entries, home)
    found = [key for key in source.trust.keys.values() if key.key_id.startswith(wanted)]
    if len(found) != 1:
        many = f"{len(found)} keys have ids that begin so: give more digits"
        problem(many if found else "no key with this id in the list")
        return 1
    if as_json:
        print_json({"at": at.isoformat(), **_publication_json(source), **key_json(found[0], at)})
    else:
        click.echo(_in_full(found[0], at))
    return 0


# ------------------------------------------------------------------------------------------- what they show


def standing(key: TrustedKey, at: datetime) -> Standing:
    """What the key is worth at that moment, as verification judges it."""
    now = at.timestamp()
    if key.state is KeyState.COMPROMISED:
        return Standing.COMPROMISED
    if now < key.not_before:
        return Standing.NOT_YET
    if now > key.until:
        return Standing.OVER
    return Standing.RETIRED if now > key.not_after or key.state is KeyState.RETIRED else Standing.ACTIVE


def key_json(key: TrustedKey, at: datetime) -> dict[str, Any]:
    """One key for machines; `usable` tells whether this machine can use the algorithm."""
    return {
        "key_id": key.key_id,
        "algorithm": key.alg.name,
        "role": key.role.name.lower(),
        "issuer": printable(key.issuer),
        "regions": [printable(region) for region in key.regions],
        "state": standing(key, at).name.lower(),
        "signs_from": _moment(key.not_before),
        "signs_until": _moment(key.not_after),
        "accepted_until": _moment(key.until),
        "usable": key.public is not None,
        "public_key": key.key.hex(),
        "fingerprint": fingerprint(key),
    }


def fingerprint(key: TrustedKey) -> str:
    """SHA-256 over the CBOR array [alg, key] as hex: the key id is its first 8 bytes."""
    return hashlib.sha256(cbor.encode([int(key.alg), key.key])).hexdigest()


def _publication_json(source: TrustSource) -> dict[str, Any]:
    info = source.publication
    return {"as_of": info.as_of.isoformat() if info else None, "sequence": info.seq if info else None}


def _counted(counts: Counter[Standing]) -> str:
    named = [f"{counts[state]} {state.value}" for state in Standing if counts[state]]
    return f": {', '.join(named)}" if named else ""


_HEAD = ("key id", "alg", "role", "issuer", "regions", "signs from", "signs until", "accepted until", "state")
_DATE = 10  # characters of YYYY-MM-DD


def _row(key: TrustedKey, at: datetime) -> tuple[str, ...]:
    dates = (_moment(moment)[:_DATE] for moment in (key.not_before, key.not_after, key.until))
    regions = printable(" ".join(key.regions), 20)
    issuer = printable(key.issuer, 12)
    return (key.key_id, key.alg.name, key.role.name.lower(), issuer, regions, *dates, _state_text(key, at, _DATE))


def _state_text(key: TrustedKey, at: datetime, length: int | None = None) -> str:
    state = standing(key, at)
    text = state.value
    if state is Standing.RETIRED:
        text = f"retired, accepted until {_moment(key.until)[:length]}"
    return text if key.public is not None else f"{text} ({key.alg.name} is not available here)"


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """The rows as lines with aligned columns; a Chinese character takes two."""
    widths = [max(columns(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell + " " * (width - columns(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _in_full(key: TrustedKey, at: datetime) -> str:
    rows = [
        ("key id", key.key_id),
        ("algorithm", key.alg.name),
        ("may sign", _may_sign(key)),
        ("issuer", printable(key.issuer)),
        ("state", _state_text(key, at)),
        ("as of", _moment(at.timestamp())),
        ("signs from", _moment(key.not_before)),
        ("signs until", _moment(key.not_after)),
        ("accepted until", _moment(key.until)),
        ("public key", key.key.hex()),
        ("fingerprint", fingerprint(key)),
    ]
    return "\n".join(_table(rows))


def _may_sign(key: TrustedKey) -> str:
    if key.role is KeyRole.FRESHNESS:
        return "the wrappers of live codes"
    if key.role is KeyRole.STATUS:
        return "answers about status"
    if key.role is KeyRole.TAG:
        return "certificates in vehicle tags"
    if ANY_REGION in key.regions:
        return "credentials for all plates"
    return f"credentials for plates that begin with {printable(' '.join(key.regions))}"


def _moment(seconds: float) -> str:
    """POSIX seconds as a time in Asia/Shanghai; "@seconds" for what no calendar has."""
    try:
        return datetime.fromtimestamp(seconds, SHANGHAI).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return f"@{seconds}"
