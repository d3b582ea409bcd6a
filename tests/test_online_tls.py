"""The look-up over real TLS: whose certificate is taken, on either side, and against the status server itself."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from firmware.build import build_device
from firmware.config import REGION, ConfigError, Home, load_online
from scripts.cli.main import main
from scripts.sandbox.authority import Authority
from scripts.sandbox.device_ca import DeviceCa, make_csr
from tests import fault_proxy as faults
from tests.centres import Handset, OnlineWorld
from tests.conftest import ROOT
from tests.fault_proxy import fault_proxy
from tests.status_world import make_world
from verifier.check import Observation
from verifier.clock import system_clock
from verifier.errors import FetchError
from verifier.link import Ask, Mode
from verifier.net import FolderFetcher
from verifier.online import at_once
from verifier.secret_files import write_secret
from verifier.sync import SyncClient
from verifier.types import OnlineState, Plate, PlateSeen, StatusLetter
from verifier.verdict import Grade, VerdictCode

V = VerdictCode


@pytest.fixture(scope="module")
def world() -> OnlineWorld:
    return OnlineWorld()


@pytest.fixture
def home(world: OnlineWorld, tmp_path: Path) -> Iterator[Path]:
    with world.old_data(tmp_path) as folder:
        yield folder


def long_ago():
    return system_clock() - timedelta(days=3000)


def device_files(ca: DeviceCa, folder: Path) -> tuple[str, str]:
    """A device's certificate and key as files."""
    key = generate_private_key(SECP256R1())
    certificate, private = folder / "device.pem", folder / "device-key.pem"
    certificate.write_text(ca.device_certificate(make_csr(key), "hand-1").pem)
    write_secret(private, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return str(certificate), str(private)


def only_with_certificate(ca: DeviceCa) -> ssl.SSLContext:
    context = ca.server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def late_over_tls(world: OnlineWorld, home: Path, served: ssl.SSLContext, trusted: DeviceCa, pair):
    ca_file = home / "centre-ca.pem"
    ca_file.write_text(trusted.root_pem)
    with world.serving() as upstream, fault_proxy(faults.clean, upstream, tls=served) as proxy:
        hand = Handset(world, home, proxy.url, ca_file=str(ca_file), certificate=pair)
        _, late = hand.check(world.vehicle().plate)
        hand.close()
    return late


def test_an_answer_comes_over_mutual_tls(world, home):
    ca = DeviceCa.generate(system_clock)
    late = late_over_tls(world, home, only_with_certificate(ca), ca, device_files(ca, home))
    assert (late.verdict.code, late.verdict.grade) == (V.VALID, Grade.ONLINE)


def test_a_centre_with_an_expired_certificate_is_no_centre(world, home):
    ca, expired = DeviceCa.generate(system_clock), DeviceCa.generate(long_ago)
    late = late_over_tls(world, home, expired.server_context(), expired, device_files(ca, home))
    assert (late.evidence.online.state, late.verdict.code) == (OnlineState.BAD_SIGNATURE, V.VALID_STALE)


def test_a_centre_of_another_ca_is_no_centre(world, home):
    ca, other = DeviceCa.generate(system_clock), DeviceCa.generate(system_clock)
    late = late_over_tls(world, home, other.server_context(), ca, device_files(ca, home))
    assert (late.evidence.online.state, late.verdict.code) == (OnlineState.BAD_SIGNATURE, V.VALID_STALE)


def test_a_centre_of_another_name_is_no_centre(world, home):
    ca = DeviceCa.generate(system_clock)
    late = late_over_tls(world, home, ca.server_context(("centre.example",)), ca, device_files(ca, home))
    assert late.evidence.online.state is OnlineState.BAD_SIGNATURE


@pytest.mark.parametrize("whose", ["nobody", "stranger", "expired"])
def test_a_device_whose_certificate_is_not_taken_is_denied_and_the_vehicle_is_not_judged_by_it(world, home, whose):
    ca = DeviceCa.generate(system_clock)
    pair = None
    if whose == "stranger":
        pair = device_files(DeviceCa.generate(system_clock), home)
    elif whose == "expired":
        issuer = DeviceCa(ca._private, ca._root, long_ago)
        pair = device_files(issuer, home)
    late = late_over_tls(world, home, only_with_certificate(ca), ca, pair)
    assert (late.evidence.online.state, late.verdict.code) == (OnlineState.DENIED, V.VALID_STALE)


def test_without_its_files_a_device_reaches_nobody_and_says_so(world, home):
    hand = Handset(world, home, "https://127.0.0.1:9", ca_file=str(home / "no.pem"))
    _, late = hand.check(world.vehicle().plate)
    hand.close()
    assert (late.evidence.online.state, late.verdict.code) == (OnlineState.UNREACHABLE, V.VALID_STALE)


# ---------------------------------------------------------------------------- the device against the status server


@contextmanager
def device_of_a_status_server(folder: Path) -> Iterator[tuple[Authority, Home]]:
    """The authority whose status server runs, and the folder of a device that is enrolled there."""
    world = make_world(folder)
    authority = world.live.authority
    authority.publish()
    with world.serving():
        hand = world.handheld("hand-1")
        home = Home(folder / "device")
        home.folder.mkdir()
        write_secret(home.epoch_key, authority.epoch_key.hex().encode())
        (home.folder / "ca.pem").write_text(world.ca.root_pem)
        (home.folder / "device.pem").write_text(hand.pem)
        key = hand.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_secret(home.folder / "device-key.pem", key)
        home.online.write_text(
            f'url = "https://127.0.0.1:{world.port}"\nca = "ca.pem"\ncertificate = "device.pem"\n'
            'key = "device-key.pem"\nask = "always"\n'
        )
        root = authority.publisher.root_bytes()
        SyncClient(home.cache, FolderFetcher(world.home.public), system_clock, root, REGION).refresh()
        yield authority, home


def command(home: Home, plate: Plate, *more: str) -> list[str]:
    named = ["--plate", plate.text, "--kind", plate.kind or ""]
    return ["check", *named, "--online", "--json", "--home", str(home.folder), *more]


def test_a_device_built_from_its_folder_asks_the_status_server(tmp_path, capsys):
    with device_of_a_status_server(tmp_path) as (authority, home):
        device = build_device(home, system_clock)
        vehicle = next(iter(authority.registry.vehicles))
        shown = []
        late = device.online.late(shown.append, start=at_once)
        late.check(Observation(plate_seen=PlateSeen(plate=vehicle, confirmed=True)))
        device.store.close()
        assert main(command(home, vehicle)) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["late"], one["grade"]) for one in told] == [(False, "B"), (True, "A")]
    assert told[0]["id"] == told[1]["id"]
    assert [result.verdict.grade for result in shown] == [Grade.FRESH_CACHE, Grade.ONLINE]
    assert shown[1].evidence.online.state is OnlineState.OK
    assert shown[0].verdict.code is shown[1].verdict.code


def test_the_command_asks_the_status_server_whose_vin_it_is_and_keeps_it_nowhere(tmp_path, capsys):
    with device_of_a_status_server(tmp_path) as (authority, home):
        car, other = [v for v in authority.registry.vehicles.values() if v.status == {StatusLetter.NORMAL}][:2]
        for vin, reason in ((car.vin, "VIN_CONFIRMED"), (other.vin, "VIN_MISMATCH")):
            assert main(command(home, car.plate, "--vin", vin)) == 0
            told = capsys.readouterr()
            local, late = (json.loads(line) for line in told.out.splitlines())
            assert (reason in late["reasons"], reason in local["reasons"]) == (True, False)
            assert vin not in told.out + told.err
    assert (late["tone"], "RELEASE" in late["actions"]) == ("caution", False)
    kept = b"".join(path.read_bytes() for path in home.folder.rglob("*") if path.is_file())
    assert (car.plate.text.encode() in kept, car.vin.encode() in kept, other.vin.encode() in kept) == (
        True, False, False
    )  # fmt: skip


# --------------------------------------------------------------------------------------------------- settings


def test_without_settings_nobody_is_asked(tmp_path):
    home = Home(tmp_path)
    write_secret(home.epoch_key, b"00" * 32)
    assert build_device(home, system_clock).online is None


GOOD = 'url = "https://centre.example"\nca = "a"\ncertificate = "b"\nkey = "c"\n'


def test_the_command_says_when_there_is_no_centre_to_ask(tmp_path, capsys):
    assert main(["check", "--plate", "京A12345", "--online", "--home", str(tmp_path)]) == 2
    assert "no centre to ask" in capsys.readouterr().err


def test_settings_have_defaults_and_files_beside_them(tmp_path):
    home = Home(tmp_path)
    home.online.write_text(GOOD)
    settings = load_online(home)
    assert (settings.ca, settings.ask, settings.mode) == (tmp_path / "a", Ask.WHEN_NEEDED, Mode.AUTO)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("nonsense", "online:"),
        ('ask = "always"', "online.url:"),
        ('url = "https://centre.example"', "online.ca:"),
        ('url = "HTTPS://centre.example"', "online.ca:"),
        (GOOD + 'ask = "sometimes"', "online.ask:"),
        (GOOD + 'mode = "on"', "online.mode:"),
        (GOOD + "retries = 3", "online.'retries'"),
        (GOOD + "mode = 3", "online.mode:"),
    ],
)
def test_a_wrong_setting_is_named_and_leaves_the_device_at_work_without_a_centre(tmp_path, text, path):
    home = Home(tmp_path)
    write_secret(home.epoch_key, b"00" * 32)
    home.online.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_online(home)
    assert str(caught.value).startswith(path)
    device = build_device(home, system_clock)
    assert device.online is None
    assert any(str(caught.value) in warning for warning in device.warnings)
    assert device.verifier.check(
        Observation(plate_seen=PlateSeen(plate=Plate("京A12345", "02"), confirmed=True))
    ).verdict.code is V.UNDECIDED  # fmt: skip


def test_a_plain_address_far_away_is_refused_when_it_is_to_be_used(tmp_path):
    home = Home(tmp_path)
    write_secret(home.epoch_key, b"00" * 32)
    home.online.write_text('url = "http://centre.example"\n')
    with pytest.raises(FetchError, match="not an https address"):
        build_device(home, system_clock).online.poster.prepare()


def test_a_device_with_a_centre_starts_without_the_http_library(tmp_path):
    home = Home(tmp_path)
    write_secret(home.epoch_key, b"00" * 32)
    home.online.write_text(GOOD)
    code = (
        "import sys; from pathlib import Path; from firmware.build import build_device;"
        "from firmware.config import Home; from verifier.clock import system_clock;"
        f"assert build_device(Home(Path({str(tmp_path)!r})), system_clock).online is not None;"
        "print(*sorted({'requests', 'urllib3'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip() == ""
