"""Whatever the network does: the local verdict stands first, the wait ends, nobody turns red or green by it."""

from __future__ import annotations

import itertools
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from scripts.sandbox.keys import SigningKey, make_private_key
from tests import fault_proxy as faults
from tests.centres import OLD, START, Handset, OnlineWorld, later, status_key
from tests.fault_proxy import FAULTS, Fault, FaultProxy, fault_proxy
from tests.test_identity import NETWORK
from tests.torture.mirrors import CONNECTIONS
from verifier.audit import read_log, replay
from verifier.codec.online import OnlineAnswer
from verifier.errors import FetchError, FetchTimeoutError, RejectedError
from verifier.online_http import HttpPoster
from verifier.types import Month, OnlineState
from verifier.verdict import Grade, Reason, Tone, VerdictCode

SHORT_MS = 300  # in place of 1500, where a test really waits
V = VerdictCode


@pytest.fixture(scope="module")
def world() -> OnlineWorld:
    return OnlineWorld()


@pytest.fixture
def home(world: OnlineWorld, tmp_path: Path) -> Iterator[Path]:
    with world.old_data(tmp_path) as folder:
        yield folder


def after_fault(
    world: OnlineWorld, home: Path, fault: Fault, *, total_ms: int = 10_000
) -> tuple[Handset, FaultProxy, OnlineState]:
    """A valid vehicle and data of three days, while the network does this: what must hold whatever it is."""
    vehicle = world.vehicle()
    with world.serving() as upstream, fault_proxy(fault, upstream) as proxy:
        hand = Handset(world, home, proxy.url, total_ms=total_ms)
        at_local: list[int] = []
        hand.watch = lambda: at_local.append(proxy.connections)
        local, late = hand.check(vehicle.plate)
        # The local verdict was on the screen before anything went out.
        assert at_local[0] == 0
        assert proxy.connections == 1 or total_ms == SHORT_MS  # on a busy machine nothing may have gone out by then
        assert (local.verdict.code, local.verdict.tone, local.late) == (V.VALID_STALE, Tone.NOTE, False)
        # No answer changes nothing but the reasons (R4).
        state = late.evidence.online.state
        assert (late.verdict.code, late.verdict.tone, late.verdict.grade) == (
            V.VALID_STALE,
            Tone.NOTE,
            Grade.STALE_CACHE,
        )
        assert late.check_id == local.check_id
        assert set(late.verdict.reasons) - set(local.verdict.reasons) == {REASONS[state]}
        # Nothing is lost: the check waits for a better hour, and its records can be decided again.
        assert [number for number, _, _ in hand.queue.waiting()] == [local.check_id]
        entries = list(read_log(hand.audit))
        assert [(entry["kind"], entry["id"]) for entry in entries] == [
            ("check", late.check_id),
            ("upgrade", late.check_id),
        ]
        assert all(replay(entry)[1] for entry in entries)
        assert hand.centre.link.failures == 1
        assert len(proxy.requests) <= 1  # one attempt
        # And when the network is good again, the next check has its answer.
        proxy.fault = faults.clean
        world.spoil, world.signer, world.centre_clock = (lambda answer: answer), world.key, None
        patient = Handset(world, home, proxy.url)
        assert patient.check(vehicle.plate)[-1].verdict.grade is Grade.ONLINE
        hand.close()
        patient.close()
    return hand, proxy, state


REASONS = {
    OnlineState.TIMEOUT: Reason.ONLINE_TIMEOUT,
    OnlineState.UNREACHABLE: Reason.ONLINE_UNREACHABLE,
    OnlineState.DENIED: Reason.ONLINE_DENIED,
    OnlineState.BAD_SIGNATURE: Reason.ONLINE_REJECTED,
}


NO_ANSWERS = {
    "reset at once": OnlineState.UNREACHABLE,
    "reset in the middle": OnlineState.UNREACHABLE,
    "truncated": OnlineState.UNREACHABLE,
    "ten gigabytes": OnlineState.BAD_SIGNATURE,
    "endless chunks": OnlineState.BAD_SIGNATURE,
    "wrong type": OnlineState.BAD_SIGNATURE,
    "captive portal": OnlineState.BAD_SIGNATURE,
    "lying portal": OnlineState.BAD_SIGNATURE,
    "redirect": OnlineState.BAD_SIGNATURE,
    "compressed": OnlineState.BAD_SIGNATURE,
    "401": OnlineState.DENIED,
    "403": OnlineState.DENIED,
    "404": OnlineState.UNREACHABLE,
    "409": OnlineState.UNREACHABLE,
    "500": OnlineState.UNREACHABLE,
}
SLOW = ("silent", "hang", "drip head", "drip body")


def test_every_fault_of_a_network_is_in_one_of_the_lists():
    nowhere = FAULTS.keys() - NO_ANSWERS.keys() - {*SLOW} - {*NETWORK} - {*CONNECTIONS}
    lists = "NO_ANSWERS or SLOW here, NETWORK of test_identity.py, or CONNECTIONS of torture/mirrors.py"
    assert not nowhere, f"add {nowhere} to {lists}"


@pytest.mark.parametrize(("fault", "state"), NO_ANSWERS.items())
def test_what_is_no_answer_changes_no_verdict(world, home, fault, state):
    assert after_fault(world, home, FAULTS[fault])[2] is state


@pytest.mark.parametrize("fault", SLOW)
def test_a_server_that_takes_its_time_costs_the_officer_no_more_than_the_budget(world, home, fault):
    began = time.monotonic()
    assert after_fault(world, home, FAULTS[fault], total_ms=SHORT_MS)[2] is OnlineState.TIMEOUT
    assert time.monotonic() - began < 10  # the machine may be busy; the drips alone would take a minute


def test_the_wait_ends_after_the_budget_of_one_and_a_half_seconds(world, home):
    vehicle = world.vehicle()
    with fault_proxy(faults.hang, "") as proxy:
        hand = Handset(world, home, proxy.url, total_ms=1500)
        began = time.monotonic()
        _, late = hand.check(vehicle.plate)
        waited = time.monotonic() - began
        hand.close()
    assert late.evidence.online.state is OnlineState.TIMEOUT
    assert 1.45 <= waited < 4


def test_a_black_hole_ends_like_any_other_wait(world, home):
    """A listener whose queue is full drops the SYN: nobody ever answers the connection."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        hand = Handset(world, home, f"http://127.0.0.1:{listener.getsockname()[1]}", total_ms=SHORT_MS)
        _, late = hand.check(world.vehicle().plate)
        for filler in fillers:
            filler.close()
        hand.close()
    assert late.evidence.online.state is OnlineState.TIMEOUT
    assert late.verdict.code is V.VALID_STALE


def test_a_503_with_retry_after_puts_off_the_next_attempt_and_no_verdict(world, home):
    vehicle = world.vehicle()
    with world.serving() as upstream, fault_proxy(faults.answers(503, "Retry-After: 120"), upstream) as proxy:
        hand = Handset(world, home, proxy.url)
        _, late = hand.check(vehicle.plate)
        assert (late.evidence.online.state, late.verdict.code) == (OnlineState.UNREACHABLE, V.VALID_STALE)
        assert hand.centre.next_try_ms() == 120_000
        assert len(hand.check(vehicle.plate)) == 1  # the next scan does not ask
        assert proxy.connections == 1
        hand.close()


# --------------------------------------------------------------------------------- answers that are not ours


def other_nonce(answer: OnlineAnswer) -> OnlineAnswer:
    return replace(answer, nonce=bytes(16))


def other_request(answer: OnlineAnswer) -> OnlineAnswer:
    return replace(answer, request_hash=bytes(32))


def one_row_more(answer: OnlineAnswer) -> OnlineAnswer:
    return replace(answer, rows=answer.rows * 2)


def other_issuer(answer: OnlineAnswer) -> OnlineAnswer:
    return replace(answer, issuer="110000")


def before_our_data(answer: OnlineAnswer) -> OnlineAnswer:
    return later(answer, days=-3, hours=-1)


def years_ahead(answer: OnlineAnswer) -> OnlineAnswer:
    return later(answer, days=401)


@pytest.mark.parametrize(
    "spoil",
    [other_nonce, other_request, one_row_more, other_issuer, before_our_data, years_ahead],
    ids=lambda spoil: spoil.__name__,
)
def test_an_answer_to_another_question_or_of_another_time_is_no_answer(world, home, spoil):
    world.spoil = spoil
    assert after_fault(world, home, faults.clean)[2] is OnlineState.BAD_SIGNATURE


def test_an_answer_signed_by_a_key_that_is_not_listed_is_no_answer(world, home):
    world.signer = status_key()
    assert after_fault(world, home, faults.clean)[2] is OnlineState.BAD_SIGNATURE


def test_an_answer_under_the_listed_key_id_by_another_key_is_no_answer(world, home):
    world.signer = SigningKey(make_private_key(world.key.alg), world.key.entry)
    assert after_fault(world, home, faults.clean)[2] is OnlineState.BAD_SIGNATURE


def test_a_key_for_credentials_signs_no_answers(world, home):
    world.signer = next(iter(world.authority.issuer.keys.values()))
    assert after_fault(world, home, faults.clean)[2] is OnlineState.BAD_SIGNATURE


def test_a_replayed_answer_is_no_answer(world, home):
    vehicle = world.vehicle()
    world.now = START + OLD
    with world.serving() as upstream, fault_proxy(faults.Replay(), upstream) as proxy:
        hand = Handset(world, home, proxy.url)
        assert hand.check(vehicle.plate)[-1].verdict.grade is Grade.ONLINE
        world.authority.registry.lapse(vehicle.plate, Month(2026, 9))
        replayed = hand.check(vehicle.plate, fresh=True)[-1]
        assert (replayed.evidence.online.state, replayed.verdict.code) == (OnlineState.BAD_SIGNATURE, V.VALID_STALE)
        hand.close()


# -------------------------------------------------------------------------------------------------- the clock


@pytest.mark.parametrize("days", [-365, 365])
def test_a_clock_that_is_off_by_a_year_is_put_right_by_an_answer(world, home, days):
    vehicle = world.vehicle()
    true = START + OLD
    world.now, world.centre_clock = true + timedelta(days=days), lambda: true
    with world.serving() as url:
        hand = Handset(world, home, url)
        shown = hand.check(vehicle.plate)
        hand.close()
    assert shown[0].verdict.code is not V.VALID
    assert (shown[-1].verdict.code, shown[-1].verdict.grade) == (V.VALID, Grade.ONLINE)
    assert Reason.CLOCK_CORRECTED in shown[-1].verdict.reasons


def test_a_clock_that_is_off_by_a_year_without_an_answer_decides_nothing_of_the_date(world, home):
    vehicle = world.vehicle()
    world.now = START - timedelta(days=365)
    with world.serving() as upstream, fault_proxy(faults.answers(500), upstream) as proxy:
        hand = Handset(world, home, proxy.url)
        assert {shown.verdict.code for shown in hand.check(vehicle.plate)} == {V.UNDECIDED}
        hand.close()


# ---------------------------------------------------------------------------------------------------- poster


def test_a_dripping_body_ends_at_the_deadline_of_the_injected_clock(world):
    ticks = itertools.count(0, 400)
    with world.serving() as upstream, fault_proxy(faults.drip_body, upstream) as proxy:
        poster = HttpPoster(
            proxy.url, ca_file=None, client_certificate=None, monotonic_ms=lambda: next(ticks), connect_ms=9000,
            total_ms=1500,
        )  # fmt: skip
        body = Handset.request(world)
        with pytest.raises(FetchTimeoutError):
            poster.post("v1/status", body, "application/cbor", "application/cose", 8192)
        assert proxy.sent < 300


def test_no_more_than_the_announced_bytes_are_read(world):
    with fault_proxy(faults.ten_gigabytes, "") as proxy:
        poster = HttpPoster(
            proxy.url, ca_file=None, client_certificate=None, monotonic_ms=lambda: 0, connect_ms=9000, total_ms=9000
        )
        with pytest.raises(RejectedError, match="more than 8192 bytes"):
            poster.post("v1/status", b"x", "application/cbor", "application/cose", 8192)


def test_a_tls_handshake_that_drips_is_cut(world):
    with fault_proxy(faults.drip_handshake, "") as proxy:
        poster = HttpPoster(
            proxy.url.replace("http:", "https:"), ca_file=ssl.get_default_verify_paths().cafile,
            client_certificate=None, monotonic_ms=lambda: 0, connect_ms=400, total_ms=9000,
        )  # fmt: skip
        with pytest.raises(FetchTimeoutError):
            poster.post("v1/status", b"x", "application/cbor", "application/cose", 8192)
        assert proxy.sent < 200  # of 16 kB, a byte every 50 ms


@pytest.mark.parametrize("url", ["http://example.org", "ftp://example.org", "http://10.0.0.1:80", "nonsense"])
def test_nothing_is_posted_over_plain_http_but_to_this_machine(url):
    with pytest.raises(FetchError):
        HttpPoster(url, ca_file=None, client_certificate=None, monotonic_ms=lambda: 0, connect_ms=1, total_ms=1)
