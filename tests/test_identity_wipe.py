"""Erasing a lost device: by an order of its centre that names it and is new, keys first, whatever interrupts it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from firmware.build import build_device
from firmware.config import Home
from firmware.keeper import ERASED, finish_wipe, open_keeper, wipe_files, wipe_once_more
from firmware.probes import WIPE_ROUNDS, erased
from scripts.cli.main import main
from scripts.sandbox.keys import status_key
from scripts.sandbox.status_store import DeviceError, DeviceState
from tests.handhelds import NAME, PIN, Field, every_byte
from tests.status_world import World, make_world
from verifier import epoch_key, wipe
from verifier.cache.swap import exclusive
from verifier.check import Observation
from verifier.clock import system_clock
from verifier.epoch_key import is_in_memory, memory_file
from verifier.errors import SyncBusyError
from verifier.identity import IdentityError, Why
from verifier.link import Mode
from verifier.online import at_once
from verifier.secret_files import destroy
from verifier.trust import TrustList, load_trust_list
from verifier.types import Plate, PlateSeen
from verifier.verdict import Reason, VerdictCode
from verifier.wipe import OrderError, Wiper, WipeRecord


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = make_world(tmp_path_factory.mktemp("world"))
    with made.serving():
        yield made


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epoch_key, "SCRYPT_N", 1 << 10)


@pytest.fixture
def field(world: World, tmp_path: Path) -> Iterator[Field]:
    """A device in a shift, with checks behind it."""
    memory = Path("/dev/shm") / f"markcheck-test-{os.getpid()}-wipe"  # noqa: S108
    if not is_in_memory(memory.parent):
        pytest.skip("no file system in memory here")
    with suppress(DeviceError):
        world.store.set_state(NAME, DeviceState.ACTIVE)
    made = Field(world, Home(tmp_path / "home"), memory)
    made.enrolled()
    made.sync()
    made.keeper().begin_shift(PIN)
    check(made)
    for folder in (made.home.photos, made.home.folder / "fault-frames"):
        folder.mkdir()
        (folder / "a.jpg").write_bytes(b"a picture")
    yield made
    shutil.rmtree(memory, ignore_errors=True)


def plate(field: Field):
    return next(iter(field.world.live.authority.registry.vehicles))


def check(field: Field):
    device = build_device(field.home, system_clock, run=field.run)
    result = device.verifier.check(Observation(plate_seen=PlateSeen(plate=plate(field), confirmed=True)))
    device.store.close()
    return result, device.warnings


def trust(field: Field) -> TrustList:
    return load_trust_list(field.trust_entries())


def secrets_of(field: Field) -> list[bytes]:
    body = field.home.device_key.read_text().split("-----")[2].strip().encode()
    return [body, field.home.wrapped_key.read_bytes(), field.world.live.authority.epoch_key, plate(field).text.encode()]


def left_of(field: Field) -> set[str]:
    return {p.relative_to(field.home.folder).as_posix() for p in field.home.folder.rglob("*") if p.is_file()}


KEPT = {"centre-ca.pem", "online.toml", "wiped.json", "cache/lock"}


# ----------------------------------------------------------------------------------------------- the order


def test_a_lost_device_erases_itself_when_it_next_speaks_to_its_centre(field: Field):
    secrets = secrets_of(field)
    forgotten: list[bool] = []
    keeper = field.keeper(forget=lambda: forgotten.append(True))
    field.world.store.set_state(NAME, DeviceState.LOST, wipe=True)
    kept = keeper.keep(denied=True)
    assert (kept.why, kept.wiped.done, kept.wiped.ordered) == (Why.LOST, True, True)
    assert ERASED in kept.remarks
    assert forgotten == [True]
    assert left_of(field) == KEPT
    assert not memory_file(field.run, field.home.folder).exists()
    card = every_byte(field.home.folder)
    assert not [secret for secret in secrets if secret in card]
    result, warnings = check(field)
    assert result.verdict.code is VerdictCode.UNDECIDED
    assert ERASED in warnings
    assert keeper.keep(denied=True).certificate is None


def test_a_lost_device_that_begins_a_shift_gets_the_order_in_place_of_the_key(field: Field):
    field.world.store.set_state(NAME, DeviceState.LOST, wipe=True)
    with pytest.raises(IdentityError) as caught:
        field.keeper().begin_shift()
    assert caught.value.why is Why.LOST
    assert left_of(field) == KEPT


def test_a_running_device_whose_look_up_is_denied_finds_out_why_and_obeys(field: Field):
    device = build_device(field.home, system_clock, run=field.run)
    online = device.online
    online.upkeep.step()
    assert not online.upkeep.changed.is_set()
    field.world.store.set_state(NAME, DeviceState.LOST, wipe=True)
    seen = Observation(plate_seen=PlateSeen(plate=Plate("京A00001", "02"), confirmed=True))
    results = []
    online.late(results.append, start=at_once).check(seen)
    assert Reason.ONLINE_DENIED in results[-1].verdict.reasons
    online.upkeep._keep_due = 0  # a minute later
    online.upkeep.step()
    assert online.upkeep.changed.is_set()
    assert not field.home.device_key.exists()
    assert device.verifier.check(seen).evidence.cache.answer is None


def test_in_offline_mode_nothing_is_asked(field: Field):
    field.aged(40)
    device = build_device(field.home, system_clock, run=field.run)
    before = field.serial()
    device.online.centre.choose(Mode.OFFLINE)
    device.online.upkeep.step()
    assert field.serial() == before
    device.online.centre.choose(Mode.AUTO)
    device.online.upkeep._keep_due = 0  # a minute later
    device.online.upkeep.step()
    assert field.serial() != before


def test_lost_without_an_order_erases_nothing(field: Field):
    before = left_of(field)
    field.world.store.set_state(NAME, DeviceState.LOST)
    assert field.keeper().keep(denied=True).wiped is None
    assert left_of(field) == before


def unsigned(field: Field) -> bytes:
    order = bytearray(field.order(1))
    order[-1] ^= 1
    return bytes(order)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("for another device", lambda field: field.order(1, device="hand-2")),
        ("signed by nobody in the list", lambda field: field.order(1, key=status_key("000000", 0))),
        ("with another signature", unsigned),
        ("no order at all", lambda _: b"\xd2" + bytes(40)),
        ("an answer of the look-up", lambda field: field.order(1).replace(b"\x19\xfd\xee", b"\x19\xfd\xed")),
    ],
)
def test_an_order_that_is_not_for_this_device_erases_nothing(field: Field, name: str, make):
    before = every_byte(field.home.folder)
    with pytest.raises(OrderError):
        field.keeper().wiper.obey(make(field), NAME, trust(field))
    assert every_byte(field.home.folder) == before, name


def test_an_order_that_cannot_be_verified_erases_nothing(field: Field):
    shutil.rmtree(field.home.cache)
    field.world.store.set_state(NAME, DeviceState.LOST, wipe=True)
    kept = field.keeper().keep(denied=True)
    assert kept.wiped is None
    assert "no trust list" in kept.remarks[1]
    assert field.home.device_key.exists()


def test_an_order_is_obeyed_once_also_after_the_device_was_found_again(field: Field):
    order, newer, known = field.order(5), field.order(6), trust(field)
    assert field.keeper().wiper.obey(order, NAME, known).done
    field.enrolled()
    field.sync()
    wiper = field.keeper().wiper
    for old in (order, field.order(4), field.order(1)):
        with pytest.raises(OrderError, match="obeyed before"):
            wiper.obey(old, NAME, known)
    assert field.home.device_key.exists()
    assert check(field)[1].count(ERASED) == 0
    assert wiper.obey(newer, NAME, known).order_seq == 6
    assert not field.home.device_key.exists()


def test_erasing_by_hand_does_not_use_up_the_numbers_of_orders(field: Field):
    known = trust(field)
    assert field.keeper().wiper.obey(field.order(5), NAME, known).order_seq == 5
    assert field.keeper().wiper.by_hand().order_seq == 5
    with pytest.raises(OrderError):
        field.keeper().wiper.obey(field.order(5), NAME, known)


@pytest.mark.parametrize("data", [b"", b"rotten", b"[]", b'{"v":1}', b'{"v":1,"order_seq":-1}'])
def test_a_record_that_rotted_stops_no_order(field: Field, data: bytes):
    field.home.wiped.write_bytes(data)
    assert field.keeper().wiper.obey(field.order(1), NAME, trust(field)).done


def test_a_key_that_the_settings_name_elsewhere_is_destroyed_too(field: Field):
    elsewhere = field.home.folder / "keys"
    elsewhere.mkdir()
    for path in (field.home.device_key, field.home.certificate):
        path.rename(elsewhere / path.name)
    settings = field.home.online.read_text()
    for name in ("device-key.pem", "device.pem"):
        settings = settings.replace(f'"{name}"', f'"keys/{name}"')
    field.home.online.write_text(settings)
    field.world.store.set_state(NAME, DeviceState.LOST, wipe=True)
    keeper = open_keeper(field.home, system_clock, run=field.run)
    assert keeper.keep(denied=True).wiped is not None
    assert list(elsewhere.iterdir()) == []


def test_a_full_card_saves_no_key(field: Field, monkeypatch):
    """What is written down first cannot be; what is destroyed needs no room."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(wipe, "replace_file", full)
        with pytest.raises(OSError, match="No space"):
            field.keeper().wiper.obey(field.order(1), NAME, trust(field))
    assert left_of(field) == KEPT - {"wiped.json"}


def test_on_a_full_card_the_record_stands_as_soon_as_a_key_has_made_room_and_ends_the_program(
    field: Field, monkeypatch
):
    """Only then does a running program learn of it, whichever process wipes; a sync may hold up all that follows."""
    ended: list[bool] = []
    probe = erased(Wiper(wipe_files(field.home, field.run), system_clock).record, lambda: ended.append(True))
    probe()
    write = wipe.replace_file

    def full_while_the_key_is_there(path: Path, data: bytes) -> None:
        if field.home.device_key.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data)

    monkeypatch.setattr(wipe, "replace_file", full_while_the_key_is_there)
    with exclusive(field.home.cache), pytest.raises(SyncBusyError):
        field.keeper().wiper.obey(field.order(1), NAME, trust(field))
    found = field.keeper().wiper.record()
    assert found is not None
    assert not found.done
    for _ in range(WIPE_ROUNDS - 1):
        probe()
    assert ended == []  # whoever wipes is given the time for it
    probe()
    assert ended == [True]
    assert finish_wipe(field.home, system_clock, field.run) == ERASED  # at the start that follows
    assert left_of(field) == KEPT


def test_a_program_that_starts_beside_an_unfinished_wipe_is_not_ended_again_and_again(field: Field):
    with exclusive(field.home.cache), pytest.raises(SyncBusyError):
        field.keeper().wiper.by_hand()
    ended: list[bool] = []
    probe = erased(field.keeper().wiper.record, lambda: ended.append(True))
    for _ in range(2 * WIPE_ROUNDS):
        probe()
    assert ended == []
    finish_wipe(field.home, system_clock, field.run)
    probe()
    assert ended == [True]


def test_a_key_that_cannot_be_destroyed_saves_nothing_else_and_the_wipe_goes_on_at_the_next_start(field: Field):
    stuck = field.home.folder / "console-keys"
    stuck.mkdir()
    forgotten: list[bool] = []
    wiper = Wiper(wipe_files(field.home, field.run), system_clock, forget=lambda: forgotten.append(True))
    with pytest.raises(OSError, match="console-keys"):
        wiper.by_hand()
    assert forgotten == [True]
    assert left_of(field) == KEPT
    record = wiper.record()
    assert record is not None
    assert not record.done
    stuck.rmdir()
    assert finish_wipe(field.home, system_clock, field.run) == ERASED


def test_a_file_of_the_data_that_cannot_be_removed_saves_no_other(field: Field, monkeypatch):
    def broken(path):
        if path == field.home.audit:
            raise OSError(errno.EIO, "Input/output error")
        destroy(path)

    with monkeypatch.context() as patched:
        destroy = wipe.destroy
        patched.setattr(wipe, "destroy", broken)
        with pytest.raises(OSError, match="Input/output"):
            field.keeper().wiper.by_hand()
    assert left_of(field) == KEPT | {"audit.jsonl"}
    assert finish_wipe(field.home, system_clock, field.run) == ERASED
    assert left_of(field) == KEPT


def test_a_program_that_finished_a_wipe_at_its_start_keeps_what_it_writes_afterwards(field: Field):
    with exclusive(field.home.cache), pytest.raises(SyncBusyError):
        field.keeper().wiper.by_hand()
    ended = wipe_once_more(field.home, system_clock, field.run)
    assert finish_wipe(field.home, system_clock, field.run) == ERASED
    field.home.vitals.write_text("of a device without keys", encoding="utf-8")
    ended()
    assert field.home.vitals.exists()
    field.keeper().wiper.by_hand()
    field.home.vitals.write_text("of a program that has not ended yet", encoding="utf-8")
    ended()
    assert not field.home.vitals.exists()


def test_one_key_that_cannot_be_destroyed_saves_no_other(field: Field, monkeypatch):
    def broken(path):
        if path.name == "epoch-key.wrapped":
            raise OSError(errno.EIO, "Input/output error")
        destroy(path)

    with monkeypatch.context() as patched:
        patched.setattr(wipe, "destroy", broken)
        with pytest.raises(OSError, match="Input/output"):
            field.keeper().wiper.obey(field.order(1), NAME, trust(field))
    assert not field.home.device_key.exists()
    assert field.home.wrapped_key.exists()
    assert check(field)[1].count(ERASED) == 1  # at the next start
    assert not field.home.wrapped_key.exists()


def test_a_running_device_learns_that_its_shift_is_over(field: Field):
    device = build_device(field.home, system_clock, run=field.run)
    device.online.upkeep.step()
    assert not device.online.upkeep.changed.is_set()
    device.online.centre.choose(Mode.OFFLINE)
    field.keeper().end_shift()
    device.online.upkeep._keep_due = 0  # a minute later
    device.online.upkeep.step()
    assert device.online.upkeep.changed.is_set()
    device.store.close()


# -------------------------------------------------------------------------------------------- interruptions


class Cut(BaseException):
    """Nothing may catch this, as nothing catches a power cut."""


@pytest.mark.parametrize("step", range(22))
def test_a_power_cut_at_any_step_of_a_wipe_is_finished_at_the_next_start(field: Field, step: int):
    secrets, count = secrets_of(field), [0]

    def cut(name: str) -> None:
        count[0] += 1
        if count[0] == step + 1:
            raise Cut

    wiper = Wiper(wipe_files(field.home, field.run), system_clock, on_step=cut)
    with suppress(Cut):
        wiper.obey(field.order(1), NAME, trust(field))
    _, warnings = check(field)  # the next start
    assert ERASED in warnings
    assert left_of(field) - {"audit.jsonl", "lookups.json"} == KEPT
    card = every_byte(field.home.folder)
    assert not [secret for secret in secrets[:3] if secret in card]


def test_the_keys_go_before_anything_else(field: Field):
    body, wrapped, key, _ = secrets_of(field)
    seen: list[str] = []

    def watch(name: str) -> None:
        seen.append(name)
        if not name.startswith(("recorded", "destroyed")):
            card = every_byte(field.home.folder)
            assert not [secret for secret in (body, wrapped, key) if secret in card]
        elif name == "recorded":
            assert field.home.cache.joinpath("current").exists()

    Wiper(wipe_files(field.home, field.run), system_clock, on_step=watch).by_hand()
    assert seen[0] == "recorded"
    assert seen.index("destroyed device-key.pem") < seen.index("out of use") < seen.index("data gone")


def test_a_wipe_while_a_sync_runs_destroys_the_keys_and_the_rest_when_the_sync_is_over(field: Field):
    with exclusive(field.home.cache):
        with pytest.raises(SyncBusyError):
            field.keeper().wiper.obey(field.order(1), NAME, trust(field))
        assert not field.home.device_key.exists()
        assert not field.home.wrapped_key.exists()
        assert "being erased" in finish_wipe(field.home, system_clock, field.run)
    assert finish_wipe(field.home, system_clock, field.run) == ERASED
    assert left_of(field) == KEPT


def test_a_wipe_while_checks_run_gives_no_error_and_no_pass_after_it(field: Field):
    device = build_device(field.home, system_clock, run=field.run)
    seen = Observation(plate_seen=PlateSeen(plate=plate(field), confirmed=True))
    results, stop, failed = [], threading.Event(), []

    def officer() -> None:
        try:
            while not stop.is_set():
                results.append(device.verifier.check(seen))
        except BaseException as exc:
            failed.append(exc)
            raise

    thread = threading.Thread(target=officer)
    thread.start()
    try:
        while not results:
            pass
        field.keeper(forget=device.store.close).wiper.obey(field.order(1), NAME, trust(field))
    finally:
        stop.set()
        thread.join(10)
    assert not failed
    last = device.verifier.check(seen)
    assert last.verdict.code is VerdictCode.UNDECIDED
    assert last.evidence.cache.answer is None


# ------------------------------------------------------------------------------------------------ commands


def test_erasing_by_command_needs_a_yes(field: Field, capsys):
    home = ["--home", str(field.home.folder)]
    before = every_byte(field.home.folder)
    assert main(["device", "wipe", *home]) == 2
    assert "say --yes" in capsys.readouterr().err
    assert every_byte(field.home.folder) == before
    assert main(["device", "wipe", "--yes", *home]) == 0
    assert left_of(field) == KEPT
    assert main(["device", "wipe", "--yes", *home]) == 0  # again
    assert main(["enrol", "--status", "--json", *home]) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["erased_at"] is not None


def test_a_sync_at_the_dock_brings_the_order_and_fetches_nothing_more(field: Field, monkeypatch, capsys):
    monkeypatch.setenv("MARKCHECK_RUN", str(field.run))
    field.home.root.write_bytes(field.world.home.root_file.read_bytes())
    field.aged(2)
    field.world.store.set_state(NAME, DeviceState.LOST, wipe=True)
    public = str(field.world.home.public)
    assert main(["sync", "--from", public, "--home", str(field.home.folder)]) == 1
    assert ERASED in capsys.readouterr().err
    assert left_of(field) == KEPT | {"root.json"}


def test_a_device_that_was_found_begins_anew(field: Field):
    field.world.store.set_state(NAME, DeviceState.LOST, wipe=True)
    assert field.keeper().keep(denied=True).wiped is not None
    field.world.store.set_state(NAME, DeviceState.ACTIVE)
    field.enrolled()
    field.sync()
    field.keeper().begin_shift()
    result, warnings = check(field)
    assert result.evidence.cache.answer.vehicle is not None
    assert ERASED not in warnings
    assert isinstance(field.keeper().wiper.record(), WipeRecord)
