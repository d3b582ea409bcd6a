"""A battery that is only files: the same tree as the kernel's, in a folder."""

from __future__ import annotations

from pathlib import Path


def write_power(sysfs: Path, percent: int | str, status: str = "Discharging") -> None:
    """Let the fake battery tell this charge and status."""
    supply = sysfs / "class" / "power_supply" / "battery"
    supply.mkdir(parents=True, exist_ok=True)
    for name, value in (("type", "Battery"), ("capacity", str(percent)), ("status", status)):
        beside = supply / f".{name}"
        beside.write_text(f"{value}\n", encoding="ascii")
        beside.replace(supply / name)
