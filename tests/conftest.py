"""What several test files share."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# A busy machine is no finding, and the normal run is always the same run.
settings.register_profile("normal", deadline=None, derandomize=True, database=None)
settings.load_profile("normal")

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(__file__).resolve().parent / "data"


def load_data(name: str) -> Any:
    return json.loads((DATA / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def vectors() -> Callable[[str], Path]:
    """Finds an external test vector file, or skips the test with a message."""
    folder = Path(os.environ.get("MARKCHECK_VECTORS", ROOT.parent / "shared" / "vectors"))

    def find(name: str) -> Path:
        path = folder / name
        if not path.exists():
            pytest.skip(f"external vectors not present: {name} (set MARKCHECK_VECTORS to their folder)")
        return path

    return find
