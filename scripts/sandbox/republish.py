"""Keeps what is published current while it is served: events within seconds, signatures before they run out."""

from __future__ import annotations

import time
from collections.abc import Callable

from scripts.sandbox.follow import LiveAuthority
from scripts.sandbox.hot import RENEWAL as HOT_RENEWAL
from scripts.sandbox.nightly import PublicationError

RENEWAL_S = 12 * 3600  # the signed time stamp lives 48 hours


class Republisher:
    """Publishes what was carried out since it was made; whoever makes it publishes a night next."""

    def __init__(self, live: LiveAuthority, *, ticks: Callable[[], float] = time.monotonic) -> None:
        self._live, self._ticks = live, ticks
        self._vehicles, self._others = live.vehicle_events, live.other_events
        self._hot_at = self._signed_at = ticks()

    def step(self) -> list[str]:
        """Look for new events, publish them, renew what is due; a line for each thing that is worth one.

        RegistryError for events that cannot be read; OSError.
        """
        self._live.catch_up()
        lines = []
        for publish in (self._trust, self._hot):
            try:
                lines += publish()
            except PublicationError as exc:
                lines.append(str(exc))
        if self._ticks() - self._signed_at >= RENEWAL_S:
            self._signed_at = self._ticks()
            self._live.authority.publisher.renew()
        return lines

    def _trust(self) -> list[str]:
        counted = self._live.other_events
        if counted == self._others:
            return []
        self._others = counted  # what is refused now would be refused every second
        self._live.authority.publish_trust()
        return [f"published trust list version {self._live.authority.trust_version}"]

    def _hot(self) -> list[str]:
        """All changes since the last night; or the list as it is, when it grows old."""
        counted, now = self._live.vehicle_events, self._ticks()
        if counted != self._vehicles:
            self._vehicles, self._hot_at = counted, now
            hot = self._live.authority.publish_hot()
            return [f"published hot list no. {hot.hot_seq}: {hot.count:,} rows"]
        if now - self._hot_at >= HOT_RENEWAL.total_seconds():
            self._hot_at = now
            if self._live.authority.publisher.missing():
                # Devices that cannot have a file wait for a base that does without it.
                published = self._live.authority.publish()
                return [f"files of the last night were gone: published no. {published.seq} in its place"]
            self._live.authority.publisher.renew_hot()
        return []
