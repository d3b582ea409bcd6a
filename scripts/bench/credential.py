"""The way from the text of a code to its proven credential and from the register to the text.

Each stands beside the bare verifications or the bare signature that it contains.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial

from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from scripts.bench.timing import Pair, side_by_side
from scripts.sandbox.fleet import Vehicle, fleet
from scripts.sandbox.issuer import Issuer, issuing_keys
from scripts.sandbox.registry import CredentialEntry, Registry
from verifier.codec.cose import Sign1
from verifier.codec.credential import decode
from verifier.errors import CodeError
from verifier.signature import PublicKey, verify_with
from verifier.trust import TrustList, load_trust_list
from verifier.types import Algorithm, PresentationMode
from verifier.verify import verify_text

NOW = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
TARGET = 2.5  # times the bare verifications
FLEET = 42_250_000  # vehicles whose credentials an authority may have to sign anew
FOREIGN = "https://example.org/a-code-of-somebody-else"
IMPORT = "import verifier.check, verifier.cache.store"
IMPORT_TARGET = 60.0  # ms of CPU time over those of an interpreter that does nothing
# The same in bare ES256 verifications, on the machine where one took 51 µs: what a slower machine can be held to.
IMPORT_TARGET_ES256 = IMPORT_TARGET * 1000 / 51
IMPORT_RUNS = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way through verifier or issuer: medians of both sides, and the ratio that it must stay below.

    `issues`: a call gives a credential, so the time of one also tells a rate.
    """

    name: str
    baseline: str
    pair: Pair
    target: float | None = None
    issues: bool = False

    @property
    def a_second(self) -> float:
        """How many on one core."""
        return 1e6 / self.pair.ours_us

    @property
    def fleet_days(self) -> float:
        """How long as many as there are vehicles take on one core, in days."""
        return FLEET / self.a_second / 86400

    @property
    def rate(self) -> str:
        """Where the row issues: how many a second, and how long for all."""
        if not self.issues:
            return ""
        return f"{self.a_second:,.0f}/s, {self.fleet_days:.2g} days for {FLEET / 1e6:g} million on one core"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportTime:
    """CPU time (user and system, ms) of starting Python: doing nothing, and loading what a check needs."""

    bare_ms: float
    loaded_ms: float

    @property
    def ours_ms(self) -> float:
        """What the import adds."""
        return self.loaded_ms - self.bare_ms


def bench_credential(rounds: int = 1000) -> Iterator[Row]:
    """Each way in turn, call by call: on a busy machine a longer stretch is interrupted more often than a short one.

    SM2 only where this machine has it.
    """
    issuer = Issuer(issuing_keys(NOW))
    trust = load_trust_list(issuer.trust_entries())
    for alg in Algorithm:
        text = _text(issuer, alg, PresentationMode.STORED)
        if text is not None:
            pair = side_by_side(partial(_accept, text, trust), _bare(text, trust), rounds=rounds, repeat=1)
            yield Row(name=f"{alg.name} stored", baseline=f"bare {alg.name}", pair=pair, target=TARGET)
    live = _text(issuer, Algorithm.ES256, PresentationMode.LIVE) or ""
    stored = _text(issuer, Algorithm.ES256, PresentationMode.STORED) or ""
    pair = side_by_side(partial(_accept, live, trust), _bare(live, trust), rounds=rounds, repeat=1)
    yield Row(name="ES256 live", baseline="two bare ES256", pair=pair, target=TARGET)
    pair = side_by_side(partial(_refuse, FOREIGN, trust), _bare(stored, trust), rounds=rounds, repeat=1)
    yield Row(name="foreign code refused", baseline="bare ES256", pair=pair)
    yield _issue_row(issuer, rounds)


def _issue_row(issuer: Issuer, rounds: int) -> Row:
    """From a vehicle in the register to the text of its code, beside the signature in it alone."""
    found = _registered(issuer, Algorithm.ES256)
    assert found is not None  # noqa: S101 - every other city signs so
    issue = partial(_issue, issuer, *found, PresentationMode.STORED)
    key = issuer.keys[found[0].city.code].private
    assert isinstance(key, EllipticCurvePrivateKey)  # noqa: S101 - that is ES256
    message = decode(issue().encode()).credential.to_be_signed
    pair = side_by_side(issue, partial(key.sign, message, ECDSA(SHA256())), rounds=rounds, repeat=1)
    return Row(name="ES256 issue", baseline="bare ES256 signature", pair=pair, issues=True)


def _issue(issuer: Issuer, vehicle: Vehicle, entry: CredentialEntry, mode: PresentationMode) -> str:
    return issuer.text(issuer.credential(vehicle, entry, mode, NOW))


def _text(issuer: Issuer, alg: Algorithm, mode: PresentationMode) -> str | None:
    """The text of a code of a city whose key has this algorithm; None when no city has one."""
    found = _registered(issuer, alg)
    return None if found is None else _issue(issuer, *found, mode)


def _registered(issuer: Issuer, alg: Algorithm) -> tuple[Vehicle, CredentialEntry] | None:
    """A vehicle of a city whose key has this algorithm, and its entry; None when no city has one."""
    registry = Registry(fleet(500, 1, date(2026, 11, 22)), 1)
    for vehicle in registry.vehicles.values():
        if issuer.keys[vehicle.city.code].alg is alg:
            return vehicle, registry.credential(vehicle.plate)
    return None


def _accept(text: str, trust: TrustList) -> None:
    fault = verify_text(text, trust, NOW).fault
    if fault is not None:
        raise RuntimeError(f"the code of the measurement is refused: {fault}")


def _refuse(text: str, trust: TrustList) -> None:
    try:
        verify_text(text, trust, NOW)
    except CodeError:
        return
    raise RuntimeError("a foreign code is accepted")


def _bare(text: str, trust: TrustList) -> Callable[[], None]:
    """The verifications inside this text alone, on messages that were taken apart before."""
    signed = decode(text.encode())
    parts = [_prepared(sign1, trust) for sign1 in (signed.credential, signed.presentation) if sign1 is not None]

    def run() -> None:
        for public, message, signature in parts:
            if not verify_with(public, message, signature):
                raise RuntimeError("a signature of the measurement does not verify")

    return run


def _prepared(sign1: Sign1, trust: TrustList) -> tuple[PublicKey, bytes, bytes]:
    public = trust.keys[sign1.kid or b""].public
    if public is None:
        raise RuntimeError("the key of the baseline is not usable here")
    return public, sign1.to_be_signed, sign1.signature


# -------------------------------------------------------------------------------------------------- import


def bench_import(runs: int = IMPORT_RUNS) -> ImportTime:
    """Start Python several times in turn, with and without the import; byte code is compiled before."""
    with tempfile.TemporaryDirectory(prefix="markcheck-bench-") as folder:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = folder
        _cpu_ms(IMPORT, environment)
        pairs = [(_cpu_ms("pass", environment), _cpu_ms(IMPORT, environment)) for _ in range(runs)]
    bare, loaded = zip(*pairs, strict=True)
    return ImportTime(bare_ms=statistics.median(bare), loaded_ms=statistics.median(loaded))


def _cpu_ms(program: str, environment: Mapping[str, str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], env=dict(environment), check=True)  # noqa: S603 - our own two
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) * 1000
