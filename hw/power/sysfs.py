"""The battery, as the kernel's power supply class tells it (Documentation/ABI/testing/sysfs-class-power)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SYSFS = Path("/sys")
_LONGEST = 64  # bytes of a value


@dataclass(frozen=True, slots=True)
class PowerReading:
    """Charge in percent, None on a device without a battery; `charging` also when it is full on mains."""

    percent: int | None
    charging: bool = False


def read_power(sysfs: Path = SYSFS) -> PowerReading:
    """The first battery that tells its charge. A gauge that answers nonsense is no battery: never "empty"."""
    for supply in sorted((sysfs / "class" / "power_supply").glob("*")):
        if _value(supply / "type") != "Battery":
            continue
        capacity = _value(supply / "capacity")
        if capacity.isascii() and capacity.isdigit() and int(capacity) <= 100:
            return PowerReading(int(capacity), _value(supply / "status") in ("Charging", "Full"))
    return PowerReading(None)


def _value(path: Path) -> str:
    """A value of sysfs; empty when it cannot be read: gauges on a bus answer with EIO now and then."""
    try:
        with path.open("rb") as file:
            return file.read(_LONGEST).decode("ascii", "replace").strip()
    except OSError:
        return ""
