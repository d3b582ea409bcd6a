"""The figures of docs/status-distribution.md come from the format, and a real publication agrees with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.distribution_costs import FIRST_REQUESTS, FRESH_REQUESTS, METADATA, NIGHT_REQUESTS, Cost, main
from tests.conftest import ROOT
from tests.nightly import EPOCH_KEY, Night, fleet, record
from verifier.cache.build import build_base


def test_the_guide_shows_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    page = (ROOT / "docs" / "status-distribution.md").read_text(encoding="utf-8")
    for table in capsys.readouterr().out.strip().split("\n\n"):
        assert table in page, "run: python -m scripts.distribution_costs, and put its tables into the guide"


@pytest.mark.parametrize("tagged", [0.0, 1.0])
def test_a_built_base_is_as_long_as_computed(tmp_path: Path, tagged: float) -> None:
    vehicles = [(vehicle, f"E280{i:020X}" if tagged else None) for i, (vehicle, _) in enumerate(fleet(12_000))]
    build_base(tmp_path / "base.db", vehicles, region="national", seq=1, epoch_key=EPOCH_KEY, key_epoch=1, replated={})
    cost = Cost(vehicles=12_000, credentials=12_000, regions=1, tags=tagged)
    assert (tmp_path / "base.db").stat().st_size / cost.base == pytest.approx(1, abs=0.05)


def test_a_device_asks_as_often_as_computed(tmp_path: Path) -> None:
    night = Night(vehicles=fleet(400))
    published = night.publish()
    device = night.device(tmp_path)
    first = device.client().refresh()
    assert first.requests == FIRST_REQUESTS + published.chunks
    assert device.client().refresh().requests == FRESH_REQUESTS
    night.clock.move(hours=24)
    plate = night.vehicles[0][0].plate
    night.publish(vehicles=[(record(plate, 9), None), *night.vehicles[1:]], status_list=bytes(3))
    assert device.client().refresh().requests == NIGHT_REQUESTS


def test_the_signed_metadata_are_about_as_long_as_assumed() -> None:
    night = Night()
    night.publish()
    for name, role in (("timestamp", "timestamp"), ("1.snapshot", "snapshot"), ("1.nightly-national", "nightly")):
        assumed = METADATA[role] + (METADATA["snapshot, each region"] if role == "snapshot" else 0)
        assert len(night.store[f"metadata/{name}.json"]) == pytest.approx(assumed, rel=0.35), name
    targets = METADATA["targets"] + METADATA["targets, each region"]
    assert len(night.store["metadata/1.targets.json"]) == pytest.approx(targets, rel=0.35)
