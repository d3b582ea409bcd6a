"""Promises 5 and 6: hostile bytes and pictures, and every single changed bit of a credential."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np

from hw.qr.decoders import available_decoders
from hw.qr.reader import CodeReader
from scripts.sandbox.issuer import Issuer, issuing_keys
from tests.conftest import ROOT
from tests.drawn import draw as drawn_code
from tests.fuzz_credential import world
from tests.golden import CASES, NOW
from tests.torture.run import Run
from tests.torture.targets import FRAMES, TARGETS, Watch, corpus, hold, mutated
from verifier.adapters import code_evidence
from verifier.codec import base45
from verifier.codec.credential import PREFIX, encode
from verifier.decide import decide
from verifier.policy import Policy
from verifier.trust import TrustList, load_trust_list
from verifier.types import Credential, Evidence, Month, Plate, PresentationMode, Serial, SignatureState
from verifier.verdict import Tone

CLASSES = {"payloads": ("qr",), "frames": FRAMES, "other inputs": ("console", "settings")}
_AT_ONCE = 200  # inputs of a round
_NO_CODE_S = 30.0  # for one picture, on a busy machine


def hostile_inputs(run: Run) -> None:
    """Promise 5."""
    watch = Watch()
    for name in TARGETS:
        for data in corpus(name):
            hold(name, data, watch)
    for what, names in CLASSES.items():
        _generated(run, watch, what, names, 0.12)
    _pictures(run, watch, 0.14)
    _guided(run, 0.5)


def _generated(run: Run, watch: Watch, what: str, names: tuple[str, ...], share: float) -> None:
    inputs = {name: corpus(name) for name in names}
    for seed in run.rounds(what, share):
        draw = random.Random(seed)
        for _ in range(_AT_ONCE):
            name = draw.choice(names)
            hold(name, mutated(inputs[name], draw), watch)
        run.counts[what] += _AT_ONCE


def _pictures(run: Run, watch: Watch, share: float) -> None:
    """Pictures of hostile codes, torn and blurred ones and mere noise, through the whole reading of a frame."""
    reader = CodeReader(available_decoders())
    reader.read(np.zeros((480, 640), np.uint8))  # what is loaded with the first frame
    for seed in run.rounds("pictures", share):
        picture = hostile_picture(random.Random(seed))
        began = time.thread_time()
        with watch.watching():
            read = reader.read(picture)
        assert time.thread_time() - began < _NO_CODE_S, f"a picture of seed {seed} took too long"
        for code in read.codes:
            TARGETS["qr"](code.payload)
        run.counts["pictures"] += 1


def hostile_picture(draw: random.Random) -> np.ndarray:
    """480 rows of 640 grey pixels."""
    noise = np.random.default_rng(draw.getrandbits(32))
    if draw.random() < 0.15:
        return noise.integers(0, 256, (480, 640), dtype=np.uint8)
    picture = np.full((480, 640), draw.randrange(256), np.uint8)
    code = draw_hostile(draw)
    height, width = min(480, code.shape[0]), min(640, code.shape[1])
    top, left = draw.randrange(480 - height + 1), draw.randrange(640 - width + 1)
    picture[top : top + height, left : left + width] = code[:height, :width]
    for _ in range(draw.randrange(4)):
        kind = draw.randrange(4)
        if kind == 0:
            at = draw.randrange(470)
            picture[at : at + draw.randrange(1, 10)] = draw.randrange(256)
        elif kind == 1:
            picture = cv2.GaussianBlur(picture, (5, 5), 0)
        elif kind == 2:
            turn = cv2.getRotationMatrix2D((320, 240), draw.uniform(0, 360), draw.uniform(0.5, 1.5))
            picture = cv2.warpAffine(picture, turn, (640, 480))
        else:
            picture = picture ^ (noise.random((480, 640)) < 0.02).astype(np.uint8) * 255
    return picture


def draw_hostile(draw: random.Random) -> np.ndarray:
    """A code with an altered payload, as far as a code holds it."""
    data = mutated(corpus("qr"), draw)[:400] or b"\0"
    return drawn_code(data.decode("ascii") if data.isascii() else data, mask=0)  # to choose a mask takes most time


def _guided(run: Run, share: float) -> None:
    """The fuzzer that sees which code an input reaches, where it is installed."""
    tools = os.environ.get("MARKCHECK_TORTURE_TOOLS", "")
    python = Path(tools) / "bin" / "python"
    has = python.exists() and subprocess.run([python, "-c", "import atheris"], capture_output=True, check=False)
    if not has or has.returncode:
        run.note("atheris is not installed here: inputs were only changed at random, not guided by what they reach")
        return
    seconds = 3600.0 if run.seconds is None else max(2.0, run.seconds * share / len(TARGETS))
    for number, name in enumerate(TARGETS):
        seed = run.seed_of("guided inputs", number)
        words = [python, "-m", "tests.torture.fuzz", name, str(seconds), str(seed), run.new_folder()]
        fuzzed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
        found = re.search(r"stat::number_of_executed_units:\s*(\d+)", fuzzed.stderr)
        assert fuzzed.returncode == 0, f"{name}: {fuzzed.stderr[-4000:]}"
        assert found, f"{name}: the fuzzer did not say what it did"
        run.counts["guided inputs"] += int(found[1])
        run.tell(run)


# ----------------------------------------------------------------------------------------- every single bit


def one_bit(run: Run) -> None:
    """Promise 6: all bits and all truncations of each credential, one more credential in each round."""
    texts = {text for case in CASES.values() if _accepted(text := case["text"], world().trust, NOW)}
    assert len(texts) >= 6
    chosen = sorted(texts)
    for seed in run.rounds("credentials", 0.9):
        number = run.counts["credentials"]
        if number < len(chosen):
            bits_of(run, chosen[number], world().trust, NOW)
        else:
            bits_of(run, *made(random.Random(seed)))
        run.counts["credentials"] += 1
    _wycheproof(run)


def _accepted(text: str, trust: TrustList, now: datetime) -> bool:
    evidence = code_evidence(text.encode(), trust, now)
    return evidence.signature is SignatureState.VALID and evidence.fault is None


def made(draw: random.Random) -> tuple[str, TrustList, datetime]:
    """Another credential under keys of its own."""
    now = datetime(2026, 11, 22, tzinfo=UTC)
    issuer = Issuer(issuing_keys(now))
    credential = Credential(
        serial=Serial(draw.randbytes(12).hex()), plate=Plate(f"粤B{draw.randrange(10**5):05d}", "02"),
        valid_until=Month(2027, 1 + draw.randrange(12)), issued_at=now - timedelta(days=draw.randrange(1, 9)),
        mode=PresentationMode.STORED, issuer="440300", expires_at=now + timedelta(days=20),
        status_list=1, status_index=draw.randrange(9999), vehicle_type="K33", vin_hash=draw.randbytes(8),
    )  # fmt: skip
    text, trust = issuer.text(credential), load_trust_list(issuer.trust_entries())
    assert _accepted(text, trust, now)
    return text, trust, now


def bits_of(run: Run, text: str, trust: TrustList, now: datetime) -> None:
    """Not one of them is proven, or green."""
    data = base45.decode(text.removeprefix(PREFIX))
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        refused(encode(bytes(changed)), trust, now, f"bit {bit}")
    for length in range(len(data)):
        refused(encode(data[:length]), trust, now, f"the first {length} bytes")
    for length in range(1, len(text)):  # nothing at all is no code
        refused(text[:length], trust, now, f"the first {length} characters")
    run.counts["bits"] += len(data) * 8
    run.counts["truncations"] += len(data) + len(text) - 1


def refused(text: str, trust: TrustList, now: datetime, what: str) -> None:
    """AssertionError when it is not."""
    evidence = code_evidence(text.encode(), trust, now)
    verdict = decide(Evidence(code=evidence), Policy(), now)
    assert evidence.fault is not None, f"{what}: accepted"
    assert verdict.tone is not Tone.PASS, f"{what}: green"


def _wycheproof(run: Run) -> None:
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_conformance.py", "-k", "wyche"]
    tested = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert tested.returncode in (0, 5), tested.stdout[-3000:]
    if "skipped" in tested.stdout:
        run.note("the external signature vectors are not here (MARKCHECK_VECTORS)")
