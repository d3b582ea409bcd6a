"""Provisioning: one signed file makes a device this device, once; any other file changes nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from firmware.config import Home, load_online
from firmware.provision import (
    MAX_FILE,
    ConsumedError,
    Provisioner,
    ProvisionError,
    Provisioning,
    board_serial,
    provision_payload,
    provisioning_key,
    read_provisioning,
)
from firmware.settings import CentreSettings, load_settings
from scripts.cli.main import main
from scripts.cli.provision import AGAIN, CONSUMED
from scripts.sandbox.audit_keys import open_or_make_key
from scripts.sandbox.provision import make_provisioning, sign_provisioning
from scripts.sandbox.publisher import Publisher
from scripts.sandbox.publisher_keys import PublisherKeys
from scripts.sandbox.registry import RegistryError
from tests.conftest import ROOT
from tests.status_world import World, make_world
from verifier.clock import system_clock
from verifier.codec import cbor
from verifier.codec.cose import TYP_HOT, join, protected_header, sig_structure
from verifier.identity import IdentityError, Why
from verifier.repository import SignatureError
from verifier.types import Algorithm

SERIAL = "10000000a1b2c3d4"
SETTINGS = (ROOT / "docs/examples/demo.toml").read_text()
OLD = '[device]\nname = "OLD"\n'
NAME = "hand-9"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with make_world(tmp_path_factory.mktemp("world")).serving() as world:
        yield world


@dataclass
class Device:
    """A device that was installed with the world's root, and what is done with files for it."""

    world: World
    folder: Path
    home: Home = field(init=False)
    serial: str = SERIAL

    def __post_init__(self) -> None:
        self.home = Home(self.folder / "home")
        self.config.write_text(OLD)

    @property
    def config(self) -> Path:
        return self.folder / "markcheck.toml"

    @property
    def root(self) -> bytes:
        return self.world.home.root_file.read_bytes()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.world.port}"

    def values(self, **changes: Any) -> dict[str, Any]:
        values = {
            "settings": SETTINGS, "centre": self.url, "ca": self.world.ca.root_pem, "serial": SERIAL,
            "code": changes.get("code") or self.world.store.enrolment_code(NAME, system_clock()),
        }  # fmt: skip
        return values | changes

    def file(self, **changes: Any) -> bytes:
        return make_provisioning(self.world.live.authority.publisher, **self.values(**changes))

    def provisioner(self) -> Provisioner:
        return Provisioner(self.home, self.config, self.root, system_clock, self.folder / "run", self.serial)

    def contents(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}


@pytest.fixture
def device(world: World, tmp_path: Path) -> Device:
    return Device(world, tmp_path)


# ------------------------------------------------------------------------------------------------------ applying it


def test_a_device_that_is_made_anew_begins_with_its_own_settings(device: Device) -> None:
    sent = CentreSettings(device.home.folder)
    device.home.folder.mkdir(parents=True)
    assert sent.take(b"version = 5\n") != ""
    device.provisioner().apply(device.file(settings="version = 2\n" + SETTINGS))
    assert sent.held is None
    settings, remark = sent.over(*load_settings(device.config))
    assert (settings.version, remark) == (2, "")


def test_a_good_file_gives_settings_root_centre_and_a_certificate_for_a_key_made_here(device: Device) -> None:
    data = device.file()
    certificate = device.provisioner().apply(data)
    assert certificate.device == NAME
    assert device.config.read_text() == SETTINGS
    assert device.home.root.read_bytes() == device.root
    assert device.home.ca.read_text() == device.world.ca.root_pem
    online = load_online(device.home)
    assert online is not None
    assert online.url == device.url
    key = device.home.device_key
    assert key.stat().st_mode & 0o777 == 0o600
    assert b"PRIVATE KEY" in key.read_bytes()
    assert b"PRIVATE KEY" not in data
    assert not device.home.audit_key.exists()


def test_the_key_that_its_log_is_sealed_to_may_come_with_it(device: Device) -> None:
    public = device.folder / "public"
    public.mkdir()
    open_or_make_key(device.folder, public)
    (pem,) = (path.read_text() for path in public.iterdir())
    device.provisioner().apply(device.file(audit_key=pem))
    assert device.home.audit_key.read_text() == pem


def test_a_second_use_of_the_same_file_is_refused_and_changes_nothing(device: Device) -> None:
    data = device.file()
    device.provisioner().apply(data)
    before = device.contents()
    with pytest.raises(ConsumedError, match="applied before"):
        device.provisioner().apply(data)
    assert device.contents() == before
    device.provisioner().apply(device.file())  # another one is taken
    with pytest.raises(ConsumedError):
        device.provisioner().apply(data)


def test_a_file_for_another_board_is_refused_and_one_for_any_board_is_taken(device: Device) -> None:
    data = device.file()
    for device.serial in ("10000000ffffffff", ""):
        before = device.contents()
        with pytest.raises(ProvisionError, match="another device"):
            device.provisioner().apply(data)
        assert device.contents() == before
    assert device.provisioner().apply(device.file(serial="")).device == NAME


def test_where_the_centre_cannot_be_reached_the_same_file_serves_again(device: Device) -> None:
    code = device.world.store.enrolment_code(NAME, system_clock())
    values = Provisioning(id=b"i" * 16, **device.values(code=code, centre="https://127.0.0.1:9"))
    signer = device.world.live.authority.publisher.private_key("provisioning")
    with pytest.raises(IdentityError) as told:
        device.provisioner().apply(sign_provisioning(provision_payload(values), signer))
    assert told.value.why is Why.UNREACHABLE
    values = Provisioning(id=b"i" * 16, **device.values(code=code))
    data = sign_provisioning(provision_payload(values), signer)
    assert device.provisioner().apply(data).device == NAME
    with pytest.raises(ConsumedError):
        device.provisioner().apply(data)


def test_a_cut_behind_the_enrolment_does_not_ask_for_a_second_one(device: Device) -> None:
    data = device.file()
    device.provisioner().apply(data)
    noted = device.home.folder / "provisioned.json"
    (number,) = json.loads(noted.read_text())["consumed"]
    certificate, empty = device.home.certificate.read_bytes(), hashlib.sha256(b"").hexdigest()
    noted.write_text(json.dumps({"consumed": [], "begun": [number, empty]}))
    device.provisioner().apply(data)  # its code is used: to ask again would be refused
    assert device.home.certificate.read_bytes() == certificate
    assert json.loads(noted.read_text()) == {"consumed": [number], "begun": []}


def test_a_code_that_was_used_elsewhere_leaves_the_certificate_and_the_centre_that_there_are(
    device: Device, tmp_path: Path
) -> None:
    device.provisioner().apply(device.file())
    before = device.home.certificate.read_bytes()
    used = device.file()
    (tmp_path / "other").mkdir()
    Device(device.world, tmp_path / "other").provisioner().apply(used)
    with pytest.raises(IdentityError) as told:
        device.provisioner().apply(used)
    assert told.value.why is Why.CODE
    assert device.home.certificate.read_bytes() == before
    assert not device.home.ca.with_name("centre-ca.pem.next").exists()


# ------------------------------------------------------------------------------------------------------ refusing it


def changed(device: Device, **changes: object) -> bytes:
    """Signed by the right key, with a payload that the sandbox would not make."""
    raw = {"v": 1, "id": b"x" * 16, "audit_key": "", **device.values(code="AAAAA-BBBBB-CCCCC-DDDDD"), **changes}
    payload = cbor.encode({name: value for name, value in raw.items() if value is not None})
    return sign_provisioning(payload, device.world.live.authority.publisher.private_key("provisioning"))


REFUSED = {
    "of another version": ({"v": 2}, "version that this program knows"),
    "with a field too many": ({"run": "rm -rf /"}, "version that this program knows"),
    "without a code": ({"code": None}, "version that this program knows"),
    "with a number for a text": ({"serial": 7}, "version that this program knows"),
    "with a short number": ({"id": b"x"}, "wrong length"),
    "with settings that cannot be used": ({"settings": "[panel]\nmodle = 1\n"}, "settings: panel.modle"),
    "with settings that are none": ({"settings": "= ="}, "settings: not TOML"),
    "with a centre without TLS": ({"centre": "http://127.0.0.1"}, "centre: an https address"),
    "with a centre that is a file": ({"centre": "file:///etc/passwd"}, "centre: an https address"),
    "with a CA that is none": ({"ca": "nothing"}, "ca: not a certificate"),
    "with an audit key that is none": ({"audit_key": "nothing"}, "audit_key: not a public key"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_signed_and_still_wrong_changes_nothing_and_says_what_is_wrong(
    name: str, device: Device
) -> None:
    changes, told = REFUSED[name]
    before = device.contents()
    with pytest.raises(ProvisionError, match=told):
        device.provisioner().apply(changed(device, **changes))
    assert device.contents() == before


def test_every_changed_byte_of_a_file_is_refused(device: Device) -> None:
    data = device.file()
    before = device.contents()
    for at in range(0, len(data), 7):
        with pytest.raises(ProvisionError):
            device.provisioner().apply(data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :])
    for bad in (b"", data[:-1], data + b"x", b"\xd2" * 100, bytes(MAX_FILE + 1)):
        with pytest.raises(ProvisionError):
            device.provisioner().apply(bad)
    assert device.contents() == before


def test_another_key_another_kind_of_message_or_another_root_is_refused(device: Device) -> None:
    data = device.file()
    payload = provision_payload(read_provisioning(data, device.root))
    key = device.world.live.authority.publisher.private_key("provisioning")
    header = protected_header(Algorithm.EDDSA, None, TYP_HOT)
    other = Publisher({}, system_clock)
    for bad in (
        sign_provisioning(payload, Ed25519PrivateKey.generate()),
        sign_provisioning(payload, device.world.live.authority.publisher.private_key("root")),
        join(header, payload, key.sign(sig_structure(header, payload))),
    ):
        with pytest.raises(ProvisionError):
            device.provisioner().apply(bad)
    with pytest.raises(ProvisionError, match="does not fit the root"):
        read_provisioning(data, other.root_bytes())


def test_a_root_without_the_key_or_one_that_is_not_whole_verifies_nothing(device: Device) -> None:
    assert provisioning_key(device.root) == provisioning_key(device.root)
    root = json.loads(device.root)
    for value in (None, "00", "zz" * 32, 7):
        root["signed"]["provisioning"] = value
        with pytest.raises(SignatureError):  # what is in it is signed with it
            provisioning_key(json.dumps(root).encode())


def test_data_of_another_root_are_not_taken_over(device: Device) -> None:
    device.home.folder.mkdir()
    device.home.root.write_bytes(Publisher({}, system_clock).root_bytes())
    with pytest.raises(ProvisionError, match="another root"):
        device.provisioner().apply(device.file())
    assert device.config.read_text() == OLD


def test_no_code_and_no_settings_stand_in_what_is_said_of_a_file(device: Device) -> None:
    code = "QQQQQ-WWWWW-EEEEE-RRRRR"
    values = read_provisioning(device.file(code=code), device.root)
    assert code not in repr(values)
    for changes, _ in REFUSED.values():
        with pytest.raises(ProvisionError) as told:
            device.provisioner().apply(changed(device, **({"code": code} | changes)))
        assert code not in str(told.value)
        assert len(str(told.value)) < 200


def test_the_boards_serial_number_is_read_as_the_firmware_writes_it(tmp_path: Path) -> None:
    assert board_serial(tmp_path) == ""
    path = tmp_path / "firmware/devicetree/base/serial-number"
    path.parent.mkdir(parents=True)
    for told, serial in ((f"{SERIAL}\0".encode(), SERIAL), (b"\xff\xff", ""), (b"", "")):
        path.write_bytes(told)
        assert board_serial(tmp_path) == serial


# -------------------------------------------------------------------------------------------------------- commands


def test_the_sandbox_makes_a_file_the_command_applies_it_and_it_is_destroyed(
    device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = device.world.home.folder, device.folder / "markcheck-provision.cose"
    settings = device.folder / "new.toml"
    settings.write_text(SETTINGS)
    books = f"sqlite:///{device.world.folder / 'status.db'}"
    made = ["sandbox", "device", "provision", NAME, "--folder", str(folder), "--out", str(out), "--database", books]
    assert main([*made, "--settings", str(settings)]) == 2
    assert main([*made, "--settings", str(settings), "--centre", device.url]) == 0
    assert out.stat().st_mode & 0o777 == 0o600
    copy = out.read_bytes()
    words = [
        "provision", str(out), "--config", str(device.config), "--root", str(device.world.home.root_file),
        "--home", str(device.home.folder),
    ]  # fmt: skip
    assert main(words) == 0
    assert capsys.readouterr().out.startswith(f"{NAME}: certificate until")
    assert not out.exists()
    out.write_bytes(copy)
    assert main(words) == CONSUMED
    assert not out.exists()
    out.write_bytes(copy[:-1])
    assert main(words) == 1
    assert out.exists()
    assert "not a provisioning file" in capsys.readouterr().err


def test_a_centre_that_is_away_is_told_apart_from_a_file_that_is_bad(
    device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    file = device.folder / "file.cose"
    file.write_bytes(device.file(serial="", centre="https://127.0.0.1:9"))
    words = ["provision", str(file), "--config", str(device.config), "--home", str(device.home.folder)]
    assert main([*words, "--root", str(device.world.home.root_file)]) == AGAIN
    assert file.exists()
    assert main([*words, "--root", str(device.folder / "none.json")]) == 1
    assert "No such file" in capsys.readouterr().err


def test_an_authority_whose_root_names_another_key_makes_no_file(device: Device, tmp_path: Path) -> None:
    store: dict[str, bytes] = {}
    Publisher(store, system_clock).save_keys(tmp_path / "keys")
    (tmp_path / "keys/provisioning.pem").unlink()  # as in a folder of an earlier program
    publisher = Publisher(store, system_clock, keys=PublisherKeys.load(tmp_path / "keys"))
    with pytest.raises(RegistryError, match="another key"):
        make_provisioning(publisher, **device.values())


def test_without_a_root_the_command_says_how_one_comes(
    device: Device, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file.cose").write_bytes(device.file())
    words = ["--root", str(tmp_path / "none.json"), "--home", str(tmp_path / "home")]
    assert main(["provision", str(tmp_path / "file.cose"), *words]) == 1
    how = "none.json: No such file or directory; scripts/install --trust-root, or --root FILE"
    assert how in capsys.readouterr().err
    assert (tmp_path / "file.cose").exists()
