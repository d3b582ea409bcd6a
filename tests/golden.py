"""The complete examples of tests/data/vm1_golden.json, with the trust list they stand under."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from verifier.codec import cbor, cose
from verifier.trust import TrustList, load_trust_list
from verifier.types import utc

PATH = Path(__file__).resolve().parent / "data" / "vm1_golden.json"
GOLDEN: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
CASES: dict[str, dict[str, Any]] = {case["id"]: case for case in GOLDEN["cases"]}
NOW: datetime = utc(GOLDEN["now"])


def signed_list() -> list[Any]:
    """The parts of the COSE_Sign1 in which the example list stands; the product gets it through the distribution."""
    parts: list[Any] = cbor.decode(bytes.fromhex(GOLDEN["trust_list"]).removeprefix(bytes((cose.TAG,))))
    return parts


def golden_trust() -> TrustList:
    """The keys of the examples."""
    return load_trust_list(cbor.encode(cbor.decode(signed_list()[2])[3]))
