"""The device's certificate, against the real status server over TLS: how it comes, how it is renewed, why it is not."""

from __future__ import annotations

import errno
import json
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from firmware.config import Home, load_online
from scripts.cli.main import main
from scripts.sandbox.device_ca import DeviceCa, ca_file, make_csr
from scripts.sandbox.server import Answer
from scripts.sandbox.status_http import Respond, serve_https
from scripts.sandbox.status_server import ROUTES
from scripts.sandbox.status_store import DeviceError, DeviceState
from tests.fault_proxy import FAULTS, fault_proxy
from tests.handhelds import NAME, Field
from tests.status_world import Handheld, World, make_world
from verifier import identity
from verifier.clock import system_clock
from verifier.codec.device import Refusal
from verifier.device_http import DeviceClient
from verifier.identity import Identity, IdentityError, Why, settle
from verifier.online import boottime_ms


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = make_world(tmp_path_factory.mktemp("world"))
    with made.serving():
        yield made


@pytest.fixture
def field(world: World, tmp_path: Path) -> Field:
    with suppress(DeviceError):  # there is none yet
        world.store.set_state(NAME, DeviceState.ACTIVE)
    (tmp_path / "home").mkdir()
    return Field(world, Home(tmp_path / "home"), Path("/dev/shm") / f"markcheck-test-{os.getpid()}")  # noqa: S108


def refused(action) -> Why:
    with pytest.raises(IdentityError) as caught:
        action()
    return caught.value.why


@contextmanager
def served(field: Field, respond: Respond, context: ssl.SSLContext | None = None) -> Iterator[None]:
    """Another server in place of the centre's, with its certificate or another one."""
    port = field.world.port
    with serve_https(respond, ROUTES, context or field.world.ca.server_context()) as server:
        field.world.port = server.port
        try:
            yield
        finally:
            field.world.port = port


# ---------------------------------------------------------------------------------------------- enrolment


def test_a_code_brings_a_certificate_for_a_key_that_was_made_here(field: Field):
    certificate = field.keeper().enrol(field.code())
    assert certificate.device == NAME
    assert timedelta(hours=71) < certificate.not_after - system_clock() <= timedelta(hours=72)
    assert field.home.device_key.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in field.home.folder.iterdir()) == ["device-key.pem", "device.pem"]
    assert field.keeper().fetched_epoch().key == field.world.live.authority.epoch_key


def test_the_private_key_is_in_no_request(field: Field):
    seen: list[bytes] = []
    keeper = field.keeper()
    make = keeper.identity._client

    class Spy:
        def __init__(self, certified):
            self.inner = make(certified)

        def ask(self, method, path, value=None):
            seen.append(json.dumps(value).encode())
            return self.inner.ask(method, path, value)

    keeper.identity._client = Spy
    keeper.enrol(field.code())
    keeper.identity.renew()
    assert len(seen) == 2
    assert all(b"PRIVATE" not in body and b"CERTIFICATE REQUEST" in body for body in seen)


def test_a_code_serves_one_device_once(field: Field, tmp_path: Path):
    code = field.code()
    field.keeper().enrol(code)
    before = field.serial()
    other = Field(field.world, Home(tmp_path / "other"), field.run)
    other.home.folder.mkdir()
    assert refused(lambda: other.keeper().enrol(code)) is Why.CODE
    assert refused(lambda: field.keeper().enrol(code)) is Why.CODE
    assert field.serial() == before
    assert field.keeper().identity.certificate() is not None


@pytest.mark.parametrize("code", ["", "x" * 20 + "\n", "码" * 20, "A" * 24, "ABCDE-FGHJK-LMNPQ-RSTU!"])
def test_what_is_no_code_is_not_sent(field: Field, code: str):
    assert refused(lambda: field.keeper().enrol(code)) is Why.CODE
    assert list(field.home.folder.iterdir()) == []


def test_a_centre_under_another_ca_gets_no_code_and_gives_no_certificate(field: Field, tmp_path: Path):
    foreign = tmp_path / "foreign.pem"
    foreign.write_text(DeviceCa.generate(system_clock).root_pem)
    code = field.code()
    assert refused(lambda: field.keeper(ca=foreign).enrol(code)) is Why.CENTRE
    assert not field.home.certificate.exists()
    assert field.keeper().enrol(code).device == NAME  # it was not used up


def test_a_clock_by_which_the_centre_is_not_valid_is_told_as_the_clock(field: Field):
    """TLS judges by the machine's clock, so it is the centre whose time is another here."""
    later = system_clock() + timedelta(days=5000)
    for moment in (later, system_clock() - timedelta(days=5000)):
        strange = DeviceCa(field.world.ca._private, field.world.ca._root, lambda moment=moment: moment)
        context = strange.server_context()
        with served(field, field.world.service.respond, context):
            assert refused(lambda: field.keeper().enrol(field.code())) is Why.CLOCK


def test_an_answer_that_was_lost_is_asked_for_again_with_the_same_code(field: Field, monkeypatch: pytest.MonkeyPatch):
    """The server signs and dies: its certificate is in its books and nowhere else."""
    code, respond = field.code(), field.world.service.respond
    answers: list[int] = []

    def dies(request):
        answer = respond(request)
        answers.append(answer.status)
        return Answer(500, b"", "text/plain")

    with served(field, dies):
        assert refused(lambda: field.keeper().enrol(code)) is Why.UNREACHABLE
    assert answers == [200]
    assert field.keeper().identity.certificate() is None
    key = (field.home.folder / "device-key.pem.next").read_bytes()
    assert field.keeper().enrol(code).device == NAME
    assert field.home.device_key.read_bytes() == key


@pytest.mark.parametrize("full_at", range(4))
def test_a_full_card_at_any_write_costs_no_enrolment(field: Field, full_at: int, monkeypatch: pytest.MonkeyPatch):
    code, real, count = field.code(), os.fsync, [0]

    def fsync(handle):
        count[0] += 1
        if count[0] == full_at + 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match="No space"):
            field.keeper().enrol(code)
    if field.keeper().identity.certificate() is None:
        field.keeper().enrol(code)
    certificate = field.keeper().identity.renew()
    assert certificate.device == NAME


@pytest.mark.parametrize("cut", ["before", "between", "after"])
def test_a_cut_while_a_new_key_takes_its_place_leaves_one_whole_pair(
    field: Field, cut: str, monkeypatch: pytest.MonkeyPatch
):
    field.keeper().enrol(field.code())
    files = field.keeper().identity.files

    class Cut(BaseException):
        pass

    def stop(*_):
        raise Cut

    with monkeypatch.context() as patched:
        if cut == "before":
            patched.setattr(identity, "replace_file", stop)
        elif cut == "between":
            patched.setattr(identity, "destroy", stop)
        else:
            patched.setattr(identity, "sync_folder", stop)
        code = field.code()
        with pytest.raises(Cut):
            field.keeper().enrol(code)
    settle(files)
    if cut == "before":  # the centre has ended the old certificate, and the new one was not kept
        assert field.keeper().identity.certificate() is not None
        field.keeper().enrol(code)
    assert field.keeper().identity.renew().device == NAME
    assert not files.next_key.exists()


def test_the_key_of_before_is_overwritten_where_it_lay(field: Field, monkeypatch: pytest.MonkeyPatch):
    field.keeper().enrol(field.code())
    twin = field.home.folder / "twin"
    os.link(field.home.device_key, twin)  # the same blocks under another name
    old = twin.read_bytes()
    field.keeper().enrol(field.code())
    assert len(twin.read_bytes()) == len(old)
    assert b"PRIVATE" not in twin.read_bytes()


# ------------------------------------------------------------------------------------------------ renewal


def test_a_certificate_is_renewed_from_half_of_its_life_on(field: Field):
    keeper = field.enrolled()
    first = field.serial()
    assert (keeper.keep().renewed, field.serial()) == (False, first)
    field.aged(30)
    assert not keeper.keep().renewed
    field.aged(37)
    before = field.serial()
    kept = keeper.keep()
    assert kept.renewed
    assert kept.certificate.not_after - system_clock() > timedelta(hours=71)
    assert field.serial() != before


def test_at_the_dock_a_certificate_is_renewed_when_it_is_an_hour_old(field: Field):
    keeper = field.enrolled()
    field.aged(0.5)
    assert not keeper.keep(at_dock=True).renewed
    field.aged(1.5)
    assert keeper.keep(at_dock=True).renewed


def test_a_renewal_keeps_the_key_so_what_is_wrapped_under_it_still_opens(field: Field):
    keeper = field.enrolled()
    key = field.home.device_key.read_bytes()
    keeper.identity.renew()
    assert field.home.device_key.read_bytes() == key


def test_a_certificate_that_ended_gets_nothing_and_says_so(field: Field):
    keeper = field.enrolled()
    field.aged(80)
    kept = keeper.keep()
    assert (kept.renewed, kept.why) == (False, Why.EXPIRED)
    assert "enrol with a new code" in kept.remarks[0]
    assert refused(keeper.begin_shift) is Why.EXPIRED
    assert field.keeper().enrol(field.code()).device == NAME


@pytest.mark.parametrize(("state", "why"), [(DeviceState.LOST, Why.LOST), (DeviceState.HELD, Why.HELD)])
def test_a_device_that_is_lost_or_held_is_not_renewed_and_says_why(field: Field, state: DeviceState, why: Why):
    keeper = field.enrolled()
    field.aged(40)
    before = field.serial()
    field.world.store.set_state(NAME, state)
    assert keeper.keep().why is why
    assert refused(keeper.begin_shift) is why
    assert field.serial() == before
    assert field.home.device_key.exists()  # no order, no wipe


def test_a_device_out_of_the_books_says_that_nobody_knows_it(field: Field):
    keeper = field.enrolled()
    Handheld(field.world).enrol(field.code())  # another one under its name
    assert keeper.keep(denied=True).why is Why.UNKNOWN


def test_a_centre_that_is_away_costs_nothing(field: Field):
    keeper = field.enrolled()
    field.aged(40)
    before = field.serial()
    with served(field, lambda _: Answer(503, b"{}", "application/problem+json")):
        away = field.keeper()
        assert away.keep().why is Why.CENTRE
    assert field.serial() == before
    assert keeper.keep().renewed


@pytest.mark.parametrize("fault", ["other key", "other ca", "other name", "no certificate", "years", "not json"])
def test_a_certificate_that_is_not_ours_is_not_taken(field: Field, fault: str):
    field.enrolled()
    before = field.home.certificate.read_bytes()
    key = generate_private_key(SECP256R1())
    ours = load_pem_private_key(field.home.device_key.read_bytes(), None)
    pem = {
        "other key": field.world.ca.device_certificate(make_csr(key), NAME).pem,
        "other ca": DeviceCa.generate(system_clock).device_certificate(make_csr(ours), NAME).pem,
        "other name": field.world.ca.device_certificate(make_csr(ours), "hand-2").pem,
        "no certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "years": field.world.ca.root_pem,
        "not json": "",
    }[fault]
    body = b"<html>" if fault == "not json" else json.dumps({"certificate": pem, "device": NAME}).encode()
    with served(field, lambda _: Answer(200, body, "application/json")):
        assert refused(field.keeper().identity.renew) is Why.CENTRE
    assert field.home.certificate.read_bytes() == before


def test_a_certificate_that_does_not_fit_its_key_is_none(field: Field):
    keeper = field.enrolled()
    field.home.certificate.write_text(
        field.world.ca.device_certificate(make_csr(generate_private_key(SECP256R1())), NAME).pem
    )
    assert keeper.identity.certificate() is None
    assert refused(keeper.identity.renew) is Why.NOT_ENROLLED


def test_no_refusal_makes_a_device_forget_its_certificate(field: Field):
    field.enrolled()
    before = field.serial()
    for reason in Refusal:
        body = json.dumps({"reason": reason.value}).encode()
        with served(field, lambda _, body=body: Answer(403, body, "application/problem+json")):
            assert refused(field.keeper().identity.renew) in Why
    assert field.serial() == before


NETWORK = (
    "hang", "drip head", "drip handshake", "reset at once", "ten gigabytes", "endless chunks", "captive portal",
    "lying portal", "redirect", "502",
)  # fmt: skip


@pytest.mark.parametrize("fault", NETWORK)
def test_a_bad_network_ends_in_time_with_one_reason_and_costs_no_certificate(field: Field, fault):
    """Behind the centre's own certificate, as a gateway of its own would stand."""
    field.enrolled()
    before = field.serial()
    files = field.keeper().identity.files
    with fault_proxy(FAULTS[fault], field.url, tls=field.world.ca.server_context()) as proxy:
        client = DeviceClient(
            proxy.url, ca_file=str(files.ca), client_certificate=(str(files.certificate), str(files.key)),
            monotonic_ms=boottime_ms, connect_ms=300, total_ms=600,
        )  # fmt: skip
        began = boottime_ms()
        assert refused(Identity(files, lambda _: client, system_clock).renew) in (Why.UNREACHABLE, Why.CENTRE)
        assert boottime_ms() - began < 3_000
    assert field.serial() == before


# ------------------------------------------------------------------------------------------------ commands


def test_enrol_renew_and_status_by_command(field: Field, capsys: pytest.CaptureFixture[str]):
    home = ["--home", str(field.home.folder)]
    ca = str(ca_file(field.world.home.folder))
    assert main(["enrol", "--status", "--json", *home]) == 1
    assert json.loads(capsys.readouterr().out) == {"enrolled": False, "why": "NOT_ENROLLED", "erased_at": None}
    assert main(["enrol", "--renew", *home]) == 1
    assert "not enrolled" in capsys.readouterr().err
    assert main(["enrol", "--centre", field.url, "--ca", ca, "--code", field.code(), *home]) == 0
    assert f"{NAME}: certificate until" in capsys.readouterr().out
    assert main(["enrol", "--renew", "--json", *home]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["enrolled"], told["device"], told["why"]) == (True, NAME, None)
    assert 71 * 3600 < told["remaining_s"] <= 72 * 3600
    assert main(["enrol", "--status", *home]) == 0
    assert main(["enrol", "--centre", field.url, "--ca", ca, "--code", "A" * 20, *home]) == 1
    assert "wrong, used or too old" in capsys.readouterr().err
    assert main(["enrol", "--status", *home]) == 0
    field.aged(80)
    assert main(["enrol", "--status", "--json", *home]) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["why"] == "EXPIRED"


def test_enrolling_keeps_how_the_centre_is_asked(field: Field):
    field.home.online.write_text('url = "http://localhost"\nask = "always"\nmode = "offline"\n')
    ca = str(ca_file(field.world.home.folder))
    line = ["enrol", "--centre", field.url, "--ca", ca, "--code", field.code(), "--home", str(field.home.folder)]
    assert main(line) == 0
    settings = load_online(field.home)
    assert (settings.url, settings.ask, settings.mode) == (field.url, "always", "offline")
