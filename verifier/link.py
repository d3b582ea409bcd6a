"""Whether the centre is asked at the moment: a breaker with a memory, and the officer's word above it.

Pure: no clock, no thread, no network. Times are milliseconds of a clock that nobody sets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from verifier.types import Code, OnlineState

OPENS_AFTER = 2  # failures in a row
TRUSTED_AFTER = 2  # answers in a row, until a link that has failed before counts as a steady one again
FIRST_MS, LONGEST_MS = 15_000, 300_000
JITTER = 0.25  # of the delay, on top: devices that lost the centre together must not come back together


class Mode(Code):
    """What the officer has chosen."""

    AUTO = "auto"
    OFFLINE = "offline"  # no traffic at all
    ONLINE = "online"  # each check asks, whatever happened before


class Ask(Code):
    """Which checks ask the centre, while it may be asked."""

    WHEN_NEEDED = "when_needed"  # those that the local verdict leaves open
    ALWAYS = "always"


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """The breaker's state. `probe_at` is None while the link is closed, that is: while checks may ask."""

    mode: Mode = Mode.AUTO
    failures: int = 0  # in a row
    successes: int = 0  # in a row
    trips: int = 0  # openings since the link was steady; the delay doubles with each
    probe_at: int | None = None
    reason: OnlineState | None = None  # of the last failure, None after a success

    @property
    def asks(self) -> bool:
        """Whether a check may ask the centre."""
        return self.mode is Mode.ONLINE or (self.mode is Mode.AUTO and self.probe_at is None)

    def probe_due(self, now: int) -> bool:
        """Whether it is time to try in the background."""
        return self.mode is Mode.AUTO and self.probe_at is not None and now >= self.probe_at

    def next_try_ms(self, now: int) -> int | None:
        """How long until then, None where nothing is waited for."""
        return None if self.mode is not Mode.AUTO or self.probe_at is None else max(0, self.probe_at - now)


def delay_ms(trips: int, draw: float) -> int:
    """How long the link stays open after so many openings (from 1); `draw` is random, 0 to 1."""
    doublings = min(max(trips, 1) - 1, 5)  # 2^5 of the first are more than the longest
    return int(min(FIRST_MS << doublings, LONGEST_MS) * (1 + JITTER * draw))


def succeeded(link: Link) -> Link:
    """After an answer. One closes the link; the doubling is forgotten only when it stays so."""
    successes = min(link.successes + 1, TRUSTED_AFTER)
    trips = 0 if successes == TRUSTED_AFTER else link.trips
    return replace(link, failures=0, successes=successes, trips=trips, probe_at=None, reason=None)


def failed(link: Link, reason: OnlineState, now: int, draw: float, retry_after_ms: int = 0) -> Link:
    """After a look-up or a probe without an answer; the centre may have asked for a longer pause itself."""
    failures = min(link.failures + 1, OPENS_AFTER)
    link = replace(link, failures=failures, successes=0, reason=reason)
    was_open = link.probe_at is not None
    if failures < OPENS_AFTER and not was_open and not retry_after_ms:
        return link
    if link.probe_at is not None and now < link.probe_at:
        return link  # one that was under way when the link opened
    trips = min(link.trips + 1, 6)
    return replace(link, trips=trips, probe_at=now + max(delay_ms(trips, draw), min(retry_after_ms, LONGEST_MS)))


def retried(link: Link) -> Link:
    """After the officer asked to try again: the next check asks, and all delays begin anew."""
    return Link(mode=link.mode)


def chosen(link: Link, mode: Mode) -> Link:
    """After the officer chose a mode; AUTO begins anew."""
    return Link(mode=mode) if mode is Mode.AUTO else replace(link, mode=mode)
