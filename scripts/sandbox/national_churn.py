"""What changes in the national fleet night by night, as deltas, with the truth about every vehicle kept beside it."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from scripts.sandbox.national import (
    ISSUED_BIT,
    OVERDUE_BIT,
    PLACE_BITS,
    PROVINCES,
    National,
    Numbers,
    Wides,
    changed_letters,
    digest_keys,
    narrow,
    pack_wides,
    pick,
    unpack_wides,
)
from verifier.cache.values import SEE_EXACT, TOMBSTONE
from verifier.codec.delta import Delta

NIGHTLY = 200_000  # changed rows a night,
OF_FLEET = 42_250_000  # in a fleet of so many

# What happens, per mille of a night's rows: a year's insurance, an inspection, another status, leaving the register;
# the rest is new. With a year's insurance for each of 42 million vehicles this is about a day's work.
_EVENTS = (580, 320, 50, 15)
_INSURED, _INSPECTED, _CHANGED, _GONE = range(len(_EVENTS))
_NEW = 1000 - sum(_EVENTS)
CREDENTIALS = NIGHTLY * (_EVENTS[_INSPECTED] + _NEW) // 1000  # of a night's rows: who gets a new credential
_TERMS = ((24, 600), (12, 300), (6, 100))  # months from one inspection to the next, per mille
_EARLY = 30  # days before its end from which an insurance is renewed
NO_VEHICLE = np.uint64((1 << 64) - 1)


class Churn:
    """The fleet's changes: each call of `night` is the next one, the same for the same fleet and number of rows.

    Vehicles in `spared` never change: those that share a key with another one, which a row of 24 bits cannot tell
    apart. That a new vehicle shares its key with one of the fleet is left to chance (once in thirty runs of a month
    at 42 million).
    """

    def __init__(self, fleet: National, nightly: int | None = None, spared: Iterable[int] = ()) -> None:
        self.fleet = fleet
        self.nightly = nightly or max(1, fleet.scale * NIGHTLY // OF_FLEET)
        self._spared = np.array(sorted(spared), np.int64)
        self._counts = fleet.counts.copy()
        self._nights: list[tuple[Numbers, Wides]] = []

    def night(self, region: str, base_seq: int, key_epoch: int) -> Delta:
        """The next night's delta, behind the one before it."""
        seq = base_seq + len(self._nights)
        numbers, wides = self._changes(len(self._nights) + 1)
        digests = self.fleet.digests(numbers)
        # Big-endian hashes sort as their keys do.
        order = np.argsort(np.ascontiguousarray(digests).view("S16").ravel(), kind="stable")
        numbers, wides, digests = numbers[order], wides[order], digests[order]
        keys = digest_keys(digests)
        differs = np.concatenate([[True], keys[1:] != keys[:-1], [True]])
        single = differs[1:] & differs[:-1]
        numbers, wides, digests, keys = numbers[single], wides[single], digests[single], keys[single]
        gone = wides == NO_VEHICLE
        values = np.where(gone, TOMBSTONE, narrow(self.fleet.scheme, wides)).astype(np.uint32)
        self._keep(numbers, wides)
        return Delta(
            region=region, seq_from=seq, seq_to=seq + 1, base_seq=base_seq, key_epoch=key_epoch,
            keys=array("Q", keys.tobytes()), values=array("I", values.tobytes()),
            exact=[(digests[i].tobytes(), int(wides[i])) for i in np.flatnonzero(values == SEE_EXACT)],
        )  # fmt: skip

    def wides(self, numbers: Numbers) -> Wides:
        """The facts of these vehicles after the nights so far; NO_VEHICLE for one that is not in the register."""
        place, province = numbers & (1 << PLACE_BITS) - 1, numbers >> PLACE_BITS
        out = np.where(place < self.fleet.counts[province], self.fleet.wides(numbers), NO_VEHICLE)
        for changed, wides in self._nights:
            found = np.searchsorted(changed, numbers).clip(max=len(changed) - 1)
            hit = changed[found] == numbers
            out[hit] = wides[found[hit]]
        return out

    def changed(self) -> Numbers:
        """All vehicles that changed so far."""
        return np.unique(np.concatenate([numbers for numbers, _ in self._nights]))

    def _keep(self, numbers: Numbers, wides: Wides) -> None:
        order = np.argsort(numbers)
        self._nights.append((numbers[order], wides[order]))

    def _changes(self, night: int) -> tuple[Numbers, Wides]:
        """Vehicles and their new facts, in no order."""
        fleet, rng = self.fleet, np.random.default_rng((self.fleet.seed, night))
        places = rng.integers(0, fleet.scale, self.nightly - self.nightly * _NEW // 1000)
        old = np.setdiff1d(fleet.numbers(places), self._spared)
        facts = self.wides(old)
        old, facts = old[facts != NO_VEHICLE], facts[facts != NO_VEHICLE]
        new = self._new(rng, self.nightly * _NEW // 1000)
        return np.concatenate([old, new]), np.concatenate([self._after(rng, facts, night), fleet.wides(new)])

    def _after(self, rng: np.random.Generator, wides: Wides, night: int) -> Wides:
        """The facts of these vehicles when this night's event has happened to each."""
        count, day = len(wides), self.fleet.today + timedelta(days=night)
        event = pick(_EVENTS, rng.integers(0, sum(_EVENTS), count))
        days, months, combos = unpack_wides(wides)
        days = np.where(event == _INSURED, day.toordinal() + 365 + rng.integers(0, _EARLY + 1, count), days)
        term = pick([share for _, share in _TERMS], rng.integers(0, 1000, count))
        until = day.year * 12 + day.month + np.array([months for months, _ in _TERMS])[term]
        inspected, changed = event == _INSPECTED, event == _CHANGED
        months = np.where(inspected, until, months)
        combos = np.where(inspected, combos & ~OVERDUE_BIT | ISSUED_BIT, combos)
        combos = np.where(changed, combos & (OVERDUE_BIT | ISSUED_BIT) | changed_letters(rng, count), combos)
        return np.where(event == _GONE, NO_VEHICLE, pack_wides(days, months, combos))

    def _new(self, rng: np.random.Generator, count: int) -> Numbers:
        """Vehicles that are registered for the first time."""
        shares = np.array([share for _, share in PROVINCES])
        fresh = np.bincount(rng.choice(len(PROVINCES), count, p=shares / shares.sum()), minlength=len(PROVINCES))
        starts = self._counts.copy()
        self._counts += fresh
        pieces: list[NDArray[np.int64]] = [
            np.arange(start, start + more) + (province << PLACE_BITS)
            for province, (start, more) in enumerate(zip(starts.tolist(), fresh.tolist(), strict=True))
        ]
        return np.concatenate(pieces)
