"""What a distribution costs: bytes and requests for one device and for a fleet, computed from the format.

python -m scripts.distribution_costs [--devices N] [--tags SHARE]
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from verifier.cache.blocks import HEADER, MAX_SPAN, PER, ROW
from verifier.cache.keys import MAX_KEY
from verifier.cache.schema import PAGE_SIZE
from verifier.codec.index import BaseEntry, DeltaEntry, Index, StatusListEntry, encode_index

CHUNK = 1 << 20  # bytes
PAGE_HEADER, CELL = 8, 15  # bytes of a b-tree page and of a row's frame in it (SQLite file format, clause 1.6)

# Measured on 42.25 million synthetic vehicles, of which 200,000 change in a night.
FLEET, CHANGED = 42_250_000, 200_000
DELTA_ROW = 6.2  # bytes of a row in a delta of so many; fewer rows have wider gaps between their keys
LIST_ENTRY = 1.08e6 / FLEET  # bytes of a credential in the deflated status list
METADATA = {"timestamp": 450, "snapshot": 500, "snapshot, each region": 160, "nightly": 750, "targets": 650,
            "targets, each region": 380, "trust list and policy": 6000}  # bytes  # fmt: skip

FRESH_REQUESTS = 2  # the next root (404), timestamp
NIGHT_REQUESTS = 7  # and snapshot, nightly, index, delta, status list
FIRST_REQUESTS = 9  # the next root, timestamp, snapshot, targets, nightly, index, trust list, policy, status list
JITTER_H = 4  # hours over which the devices spread the nightly sync
HOT_EVERY_S = 60

NATION = 450_000_000  # vehicles, on paper
REGIONS = (  # name, vehicles in the region, credentials in the national status list, regions in the repository
    ("national, 42.25 M", FLEET, FLEET, 1),
    ("average province of 42.25 M", FLEET // 31, FLEET, 31),
    ("national, 450 M", NATION, NATION, 1),
    ("average province of 450 M", NATION // 31, NATION, 31),
    ("largest province of 450 M", 30_000_000, NATION, 31),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One region's figures, in bytes where nothing else is said."""

    vehicles: int
    credentials: int  # in the status list, which is national whatever the region
    regions: int  # that share the repository
    tags: float = 0.0  # share of vehicles with a tag: each is two more rows, its TID and its card number

    @property
    def rows(self) -> int:
        """Rows of the base."""
        return round(self.vehicles * (1 + 2 * self.tags))

    @property
    def base(self) -> int:
        """Length of base.db. A block ends where its keys span 2^32 or `PER` rows; the tree above is under 1 %."""
        rows = min(PER, 1 + self.rows * MAX_SPAN / MAX_KEY)
        blocks_of_a_page = int((PAGE_SIZE - PAGE_HEADER) / (CELL + HEADER + rows * ROW))
        return math.ceil(self.rows / rows / blocks_of_a_page) * PAGE_SIZE

    @property
    def chunks(self) -> int:
        """Files that the base is cut into."""
        return math.ceil(self.base / CHUNK)

    @property
    def delta(self) -> int:
        """One night's delta."""
        changed = max(1, round(self.rows * CHANGED / FLEET))
        return round(changed * (DELTA_ROW + math.log2(CHANGED / changed) / 8))

    @property
    def status_list(self) -> int:
        """The deflated status list."""
        return round(self.credentials * LIST_ENTRY)

    def index(self, nights: int) -> int:
        """The index with so many nights behind the base; encoded, not estimated."""
        digest = bytes(range(32))
        base = BaseEntry(
            seq=1, n=self.vehicles, length=self.base, sha256=digest, chunk=CHUNK, hashes=(digest,) * self.chunks
        )
        deltas = tuple(
            DeltaEntry(seq_from=n, seq_to=n + 1, length=self.delta, sha256=digest, rows=CHANGED)
            for n in range(1, nights + 1)
        )
        tsl = StatusListEntry(
            number=1, length=self.status_list, sha256=digest, bits=2, raw_length=self.credentials // 4
        )
        index = Index(
            region="national", seq=nights + 1, issued_at=datetime(2027, 1, 1, tzinfo=UTC), scope="national",
            covers=("*",), key_epoch=1, base=base, tsl=tsl, deltas=deltas, min_client=2,
        )  # fmt: skip
        return len(encode_index(index))

    @property
    def snapshot_metadata(self) -> int:
        """The role that names the versions of all others."""
        return METADATA["snapshot"] + self.regions * METADATA["snapshot, each region"]

    def night(self, nights: int = 1) -> int:
        """One night for a device that has the night before, when the base is so many nights old."""
        small = METADATA["timestamp"] + self.snapshot_metadata + METADATA["nightly"]
        return small + self.index(nights) + self.delta + self.status_list

    def first(self, nights: int = 0) -> int:
        """The first sync of a new device, when the base is so many nights old."""
        targets = METADATA["targets"] + self.regions * METADATA["targets, each region"]
        more = targets + METADATA["trust list and policy"] + self.base + nights * self.delta
        return self.night(nights) - self.delta + more


COLUMNS = ("region", "base", "chunks", "delta", "status list", "index", "a night", "requests", "first sync", "requests")


def table(tags: float) -> str:
    """Bytes and requests of one device."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    for name, cost in _costs(tags):
        cells = (
            name, _size(cost.base), f"{cost.chunks:,}", _size(cost.delta), _size(cost.status_list),
            _size(cost.index(45)), _size(cost.night(45)), NIGHT_REQUESTS,
            _size(cost.first(45)), f"{FIRST_REQUESTS + cost.chunks + 45:,}",
        )  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def fleet_table(devices: int, tags: float) -> str:
    """What so many devices take from the host in a night."""
    lines = [
        f"| {devices:,} devices, each with | a night | requests | over {JITTER_H} h |",
        "| --- | --- | --- | --- |",
    ]
    for name, cost in _costs(tags):
        whole, asked = devices * cost.night(45), devices * NIGHT_REQUESTS
        rate = f"{asked / JITTER_H / 3600:,.0f} requests/s, {whole * 8 / JITTER_H / 3600 / 1e6:,.0f} Mbit/s"
        lines.append(f"| {name} | {_size(whole)} | {asked:,} | {rate} |")
    lines.append(f"| nothing new | {_size(devices * METADATA['timestamp'])} | {devices * FRESH_REQUESTS:,} | – |")
    lines.append(f"| the hot list, all online | – | {devices / HOT_EVERY_S:,.0f} a second | – |")
    return "\n".join(lines)


def _costs(tags: float) -> Iterator[tuple[str, Cost]]:
    for name, vehicles, credentials, regions in REGIONS:
        yield name, Cost(vehicles=vehicles, credentials=credentials, regions=regions, tags=tags)


def _size(count: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} B"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description="What a distribution costs, computed from the format.")
    parser.add_argument("--devices", type=int, default=100_000, help="default: %(default)s")
    parser.add_argument("--tags", type=float, default=0.0, help="share of vehicles with a tag, 0 to 1")
    given = parser.parse_args(arguments)
    print(table(given.tags))
    print()
    print(fleet_table(given.devices, given.tags))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
