"""The epoch key of a shift: where it may lie, whom it opens for, and what a stolen card shows."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from firmware import syncjob
from firmware.build import EPOCH_KEY_IN_A_FILE, KEY_IS_WRAPPED, NO_EPOCH_KEY, build_device, epoch_key
from firmware.config import REGION, Home
from firmware.jobs import sync_lines
from firmware.keeper import ERASED, OTHER_EPOCH, default_run, wrap_files
from scripts.cli.enrol import shift
from scripts.cli.main import main
from scripts.sandbox import authority as authority_module
from scripts.sandbox import status_server
from scripts.sandbox.status_lookup import Lookup
from scripts.sandbox.status_store import DeviceError, DeviceState
from tests.handhelds import NAME, PIN, Field, every_byte
from tests.status_world import World, make_world
from verifier import epoch_key as module
from verifier.check import Observation
from verifier.clock import system_clock
from verifier.codec import cbor
from verifier.epoch_key import (
    LIFE,
    MAX_TRIES,
    EpochKey,
    Moment,
    WrapFiles,
    WrongPinError,
    check_pin,
    fetch_epoch_key,
    held,
    hold,
    is_in_memory,
    memory_file,
    unwrap,
    wrap,
)
from verifier.errors import EpochKeyError
from verifier.identity import REASONS, IdentityError, Why
from verifier.secret_files import destroy, write_secret
from verifier.types import PlateSeen
from verifier.verdict import Reason

K = bytes(range(32))
SECRET = b"a device's private key"
NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
KEY = EpochKey(key=K, epoch=3, valid_until=NOW + LIFE)
WRONG = "314159"


REAL_N = module.SCRYPT_N


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """scrypt at a 64th of its cost, but where the cost is the question."""
    monkeypatch.setattr(module, "SCRYPT_N", 1 << 10)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    folder = Path("/dev/shm") / f"markcheck-test-{os.getpid()}-{tmp_path.name[-20:]}"  # noqa: S108
    if not is_in_memory(folder.parent):
        pytest.skip("no file system in memory here")
    yield folder
    for path in folder.glob("*"):
        path.unlink()
    with suppress(FileNotFoundError):
        folder.rmdir()


@pytest.fixture
def files(tmp_path: Path) -> WrapFiles:
    made = WrapFiles(tmp_path / "epoch-key.wrapped", tmp_path / "epoch-key.tries")
    wrap(made, KEY, PIN, SECRET, NOW)
    return made


def at(now: datetime, least: datetime | None = None, doubted: bool = False) -> Moment:
    return Moment(now, least or now, doubted)


def gone(files: WrapFiles) -> bool:
    return not (files.wrapped.exists() or files.tries.exists())


# ------------------------------------------------------------------------------------------ under the PIN


def test_the_right_pin_opens_the_key_and_forgets_the_wrong_ones(files: WrapFiles):
    for left in (4, 3, 2, 1):
        with pytest.raises(WrongPinError) as caught:
            unwrap(files, WRONG, SECRET, at(NOW))
        assert caught.value.left == left
    assert unwrap(files, PIN, SECRET, at(NOW)) == KEY
    with pytest.raises(WrongPinError) as caught:
        unwrap(files, WRONG, SECRET, at(NOW))
    assert caught.value.left == 4


def test_five_wrong_pins_destroy_the_key(files: WrapFiles):
    for _ in range(MAX_TRIES):
        with pytest.raises(WrongPinError):
            unwrap(files, WRONG, SECRET, at(NOW))
    assert gone(files)
    with pytest.raises(EpochKeyError, match="none is wrapped"):
        unwrap(files, PIN, SECRET, at(NOW))


def test_a_try_counts_before_it_is_made_so_cutting_the_power_wins_none(files: WrapFiles, monkeypatch):
    class Cut(BaseException):
        pass

    def cut(*_):
        raise Cut

    for number in range(1, MAX_TRIES + 1):
        with monkeypatch.context() as patched:
            patched.setattr(module, "ChaCha20Poly1305", cut)
            with pytest.raises(Cut):
                unwrap(files, PIN, SECRET, at(NOW))
        assert files.tries.stat().st_size == number
    with pytest.raises(WrongPinError) as caught:
        unwrap(files, PIN, SECRET, at(NOW))  # the right one, too late
    assert caught.value.left == 0
    assert gone(files)


def test_a_try_that_cannot_be_counted_is_not_made(files: WrapFiles, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module.os, "write", full)
        with pytest.raises(OSError, match="No space"):
            unwrap(files, PIN, SECRET, at(NOW))
    assert unwrap(files, PIN, SECRET, at(NOW)) == KEY


def test_too_little_memory_is_no_wrong_pin(files: WrapFiles, monkeypatch):
    def poor(*_, **__):
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(module.hashlib, "scrypt", poor)
        with pytest.raises(EpochKeyError, match="memory"):
            unwrap(files, PIN, SECRET, at(NOW))
    assert files.tries.stat().st_size == 0


def test_the_pin_alone_opens_nothing_on_another_device(files: WrapFiles):
    with pytest.raises(WrongPinError):
        unwrap(files, PIN, b"another device's key", at(NOW))


def test_a_wrapped_key_older_than_72_hours_is_destroyed(files: WrapFiles):
    assert unwrap(files, PIN, SECRET, at(NOW + LIFE - timedelta(seconds=1))) == KEY
    with pytest.raises(EpochKeyError, match="past its time"):
        unwrap(files, PIN, SECRET, at(NOW + LIFE))
    assert gone(files)


def test_a_clock_that_was_set_back_gains_no_time(files: WrapFiles):
    """The device has seen a later time, or a later signature."""
    with pytest.raises(EpochKeyError, match="past its time"):
        unwrap(files, PIN, SECRET, at(NOW, least=NOW + LIFE, doubted=True))
    assert gone(files)


def test_a_clock_that_runs_ahead_under_suspicion_opens_and_destroys_nothing(files: WrapFiles):
    with pytest.raises(EpochKeyError, match="under suspicion"):
        unwrap(files, PIN, SECRET, at(NOW + timedelta(days=3650), least=NOW, doubted=True))
    assert unwrap(files, PIN, SECRET, at(NOW)) == KEY


@pytest.mark.parametrize("name", ["until", "epoch", "from", "salt", "nonce", "sealed"])
def test_no_field_of_the_file_can_be_changed(files: WrapFiles, name: str):
    raw = cbor.decode(files.wrapped.read_bytes())
    raw[name] = raw[name] + 3600 if isinstance(raw[name], int) else bytes([raw[name][0] ^ 1]) + raw[name][1:]
    files.wrapped.write_bytes(cbor.encode(raw))
    with pytest.raises(WrongPinError):
        unwrap(files, PIN, SECRET, at(NOW))


@pytest.mark.parametrize("data", [b"", b"\xff" * 40, b"\xa0", bytes(70_000)])
def test_a_file_that_is_no_wrapped_key_opens_nothing(files: WrapFiles, data: bytes):
    files.wrapped.write_bytes(data)
    with pytest.raises((EpochKeyError, OSError)):
        unwrap(files, PIN, SECRET, at(NOW))


def test_without_the_count_of_tries_nothing_opens(files: WrapFiles):
    files.tries.unlink()
    with pytest.raises(EpochKeyError, match="none is wrapped"):
        unwrap(files, PIN, SECRET, at(NOW))
    assert gone(files)


@pytest.mark.parametrize("pin", ["", "12345", "123456", "987654", "111111", "121212", "abcdef", "1" * 13, "١٢٣٤٥٧"])
def test_a_poor_pin_is_refused(pin: str):
    with pytest.raises(EpochKeyError, match="PIN"):
        check_pin(pin)


def test_the_pin_costs_64_mib_of_memory_and_no_more(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(module, "SCRYPT_N", REAL_N)
    assert 128 * module.SCRYPT_N * module.SCRYPT_R * module.SCRYPT_P == 64 << 20
    files = WrapFiles(tmp_path / "w", tmp_path / "t")
    wrap(files, KEY, PIN, SECRET, NOW)
    assert unwrap(files, PIN, SECRET, at(NOW)) == KEY


def test_what_is_destroyed_is_overwritten_where_it_lay(tmp_path: Path):
    path, twin = tmp_path / "secret", tmp_path / "twin"
    write_secret(path, K)
    os.link(path, twin)
    destroy(path)
    assert not path.exists()
    assert len(twin.read_bytes()) == len(K)
    assert twin.read_bytes() != K
    destroy(path)  # again
    path.symlink_to(twin)
    destroy(path)  # the link, and not what it names
    assert twin.exists()


# ---------------------------------------------------------------------------------------------- in memory


def test_a_key_is_held_in_memory_or_nowhere(memory: Path, tmp_path: Path):
    assert not is_in_memory(tmp_path)
    with pytest.raises(EpochKeyError, match="in memory"):
        hold(tmp_path / "run" / "k", KEY)
    assert not (tmp_path / "run" / "k").exists()
    path = memory_file(memory, tmp_path)
    hold(path, KEY)
    assert path.stat().st_mode & 0o777 == 0o600
    assert held(path, at(NOW)) == KEY


@pytest.mark.parametrize("kind", ["open to others", "a link"])
def test_a_folder_that_somebody_else_may_look_into_holds_no_key(memory: Path, tmp_path: Path, kind: str):
    memory.mkdir(mode=0o700)
    folder = memory / "own"
    folder.mkdir()
    if kind == "a link":
        folder.rmdir()
        folder.symlink_to(memory)
    else:
        folder.chmod(0o755)
    with pytest.raises(EpochKeyError, match="not this user's alone"):
        hold(folder / "k", KEY)
    assert not (folder / "k").exists()
    folder.unlink() if kind == "a link" else folder.rmdir()


def test_a_held_key_ends_with_its_time(memory: Path, tmp_path: Path):
    path = memory_file(memory, tmp_path)
    hold(path, KEY)
    assert held(path, at(NOW + timedelta(days=30), least=NOW, doubted=True)) is None
    assert held(path, at(NOW)) == KEY
    assert held(path, at(NOW + LIFE)) is None
    assert not path.exists()
    path.write_bytes(b"rotten")
    assert held(path, at(NOW)) is None


def test_the_folder_for_it_can_be_named(tmp_path: Path, memory: Path):
    assert default_run({"MARKCHECK_RUN": str(tmp_path)}) == tmp_path
    found = default_run({"XDG_RUNTIME_DIR": str(tmp_path)})
    assert found is None or is_in_memory(found.parent)


# ------------------------------------------------------------------------------------- with the real server


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = make_world(tmp_path_factory.mktemp("world"))
    with made.serving():
        yield made


@pytest.fixture
def field(world: World, tmp_path: Path, memory: Path) -> Field:
    with suppress(DeviceError):
        world.store.set_state(NAME, DeviceState.ACTIVE)
    made = Field(world, Home(tmp_path / "home"), memory)
    made.enrolled()
    made.sync()
    return made


def verdict(field: Field):
    plate = next(iter(field.world.live.authority.registry.vehicles))
    device = build_device(field.home, system_clock, run=field.run)
    try:
        result = device.verifier.check(Observation(plate_seen=PlateSeen(plate=plate, confirmed=True)))
    finally:
        device.store.close()
    return result, device.warnings


def found(result) -> bool:
    """Whether the cache said anything of the vehicle, and if not, that it did not say that there is none."""
    cache = result.evidence.cache
    has = cache.answer is not None and cache.answer.vehicle is not None
    assert has or not cache.covers
    return has


def test_a_shift_begins_with_the_key_in_memory_and_nothing_of_it_on_the_card(field: Field):
    before, warnings = verdict(field)
    assert not found(before)
    assert NO_EPOCH_KEY in warnings
    keeper = field.keeper()
    keeper.begin_shift()
    after, warnings = verdict(field)
    assert found(after)
    assert not [text for text in warnings if "epoch key" in text]
    keeper.end_shift()
    assert not found(verdict(field)[0])


def test_after_a_reboot_without_a_network_the_pin_brings_the_key_back(field: Field):
    key = field.keeper().begin_shift(PIN)
    memory_file(field.run, field.home.folder).unlink()  # the power is gone, and with it the memory
    assert epoch_key(field.home, system_clock, None, field.run) == (None, KEY_IS_WRAPPED)
    with pytest.raises(WrongPinError):
        field.keeper().unlock(WRONG)
    assert field.keeper().unlock(PIN) == key
    assert found(verdict(field)[0])


def test_a_stolen_card_shows_neither_the_key_nor_a_plate(field: Field):
    """Every file of the device during a shift with a PIN, after a check that was recorded, with the power gone."""
    authority = field.world.live.authority
    sealed_to = X25519PrivateKey.generate().public_key()
    field.home.audit_key.write_bytes(sealed_to.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    field.keeper().begin_shift(PIN)
    result, _ = verdict(field)
    assert found(result)
    assert field.home.audit.stat().st_size > 500
    memory_file(field.run, field.home.folder).unlink()
    card = every_byte(field.home.folder)
    assert len(card) > 10_000
    assert authority.epoch_key not in card
    assert authority.epoch_key.hex().encode() not in card
    assert PIN.encode() not in card
    plates = [plate.text for plate in authority.registry.vehicles]
    assert len(plates) >= 200
    for text in plates:
        assert text.encode() not in card
        assert text.encode("utf-16-le") not in card
        assert text[1:].encode() not in card


def test_a_night_without_a_shift_is_applied_under_the_centres_key_which_then_lies_nowhere(field: Field, monkeypatch):
    monkeypatch.setenv("MARKCHECK_RUN", str(field.run))
    field.home.root.write_bytes(field.world.home.root_file.read_bytes())
    authority, public = field.world.live.authority, str(field.world.home.public)
    for plate in list(authority.registry.vehicles)[-5:]:
        authority.registry.set_status(plate, "E")
    assert authority.publish().snapshot is None
    field.world.store.set_state(NAME, DeviceState.HELD)
    before = (field.home.cache / "current").readlink()
    without = syncjob.sync(field.home, public, REGION)
    assert (without.kind, "epoch key" in without.problem) == ("no key", True)
    told = sync_lines({"kind": without.kind}, "en")
    assert told == ("NO EPOCH KEY", "OLD DATA IN USE"), "nobody is told that the data are bad"
    assert (field.home.cache / "current").readlink() == before
    field.world.store.set_state(NAME, DeviceState.ACTIVE)
    assert syncjob.sync(field.home, public, REGION).kind == "done"
    assert (field.home.cache / "current" / "changes.db").exists()
    assert not field.run.exists() or not list(field.run.iterdir())
    card = every_byte(field.home.folder)
    assert authority.epoch_key not in card
    assert authority.epoch_key.hex().encode() not in card
    assert not found(verdict(field)[0])


def test_a_poor_pin_is_told_before_anything_is_fetched(field: Field):
    with pytest.raises(EpochKeyError, match="too simple"):
        field.keeper().begin_shift("111111")
    assert field.keeper().held_key() is None


def test_a_new_shift_without_a_pin_takes_the_wrapped_key_away(field: Field):
    field.keeper().begin_shift(PIN)
    field.keeper().begin_shift()
    assert gone(wrap_files(field.home))


def test_enrolling_anew_takes_the_key_that_was_wrapped_under_the_old_one(field: Field):
    field.keeper().begin_shift(PIN)
    field.enrolled()
    assert gone(wrap_files(field.home))


def test_the_key_for_72_hours_is_no_matter_of_the_centres_clock(field: Field):
    for until in ("2026-01-01T00:00:00+00:00", "9999-12-31T23:59:59+00:00", "1970-01-01T00:00:00+00:00"):

        class Centre:
            def ask(self, *_, until=until):
                return {"epoch_key": K.hex(), "key_epoch": 1, "valid_until": until}

        now = system_clock()
        left = fetch_epoch_key(Centre(), now).valid_until - now
        assert timedelta(minutes=59) <= left <= LIFE


@pytest.mark.parametrize(
    "answer",
    [
        {}, {"epoch_key": "zz"}, {"epoch_key": K.hex(), "key_epoch": "1", "valid_until": "2026-01-01T00:00:00+00:00"},
        {"epoch_key": "00", "key_epoch": 1, "valid_until": "2026-01-01T00:00:00+00:00"},
        {"epoch_key": K.hex(), "key_epoch": 1, "valid_until": "2026-01-01T00:00:00"},
        {"epoch_key": K.hex(), "key_epoch": -1, "valid_until": "2026-01-01T00:00:00+00:00"},
        {"epoch_key": K.hex(), "key_epoch": 1, "valid_until": 7},
    ],
)  # fmt: skip
def test_an_answer_of_another_form_is_no_key(answer: dict[str, object]):
    class Centre:
        def ask(self, *_):
            return answer

    with pytest.raises(IdentityError) as caught:
        fetch_epoch_key(Centre(), NOW)
    assert caught.value.why is Why.CENTRE


def test_with_the_key_in_a_file_the_program_says_so(field: Field):
    write_secret(field.home.epoch_key, field.world.live.authority.epoch_key.hex().encode())
    assert EPOCH_KEY_IN_A_FILE in verdict(field)[1]
    field.keeper().begin_shift()
    assert EPOCH_KEY_IN_A_FILE not in verdict(field)[1]


def test_a_new_epochs_key_is_fetched_when_the_data_in_use_need_it(tmp_path: Path, memory: Path, monkeypatch):
    """In between the officer sees that the data cannot be used, and never that a vehicle is not there."""
    world = make_world(tmp_path / "world")
    with world.serving():
        field = Field(world, Home(tmp_path / "home"), memory)
        field.enrolled()
        field.sync()
        keeper = field.keeper()
        keeper.begin_shift(PIN)
        assert (keeper.keep().key_changed, keeper.keep().remarks) == (False, ())
        authority = world.live.authority
        authority.epoch_key = bytes(reversed(K))
        monkeypatch.setattr(authority_module, "KEY_EPOCH", 2)
        monkeypatch.setattr(status_server, "KEY_EPOCH", 2)
        world.service._lookup = Lookup(world.live)
        authority.publish(snapshot=True, accept_large=True)
        field.sync()
        between, warnings = verdict(field)
        assert between.verdict.code.value == "UNDECIDED"
        assert not between.evidence.cache.covers  # so that nothing can be absent from it
        assert Reason.NO_STATUS_DATA in between.verdict.reasons, between.verdict.reasons
        assert OTHER_EPOCH in warnings
        kept = keeper.keep()
        assert kept.key_changed
        assert "new epoch" in kept.remarks[0]
        assert "--pin" in kept.remarks[0]
        assert gone(wrap_files(field.home))  # the old one opens nothing any more
        assert found(verdict(field)[0])
        assert not keeper.keep().key_changed


def test_data_of_an_old_epoch_are_told_and_wait_for_a_sync(tmp_path: Path, memory: Path, monkeypatch):
    world = make_world(tmp_path / "world")
    with world.serving():
        field = Field(world, Home(tmp_path / "home"), memory)
        field.enrolled()
        field.sync()
        world.live.authority.epoch_key = bytes(reversed(K))
        keeper = field.keeper()
        keeper.begin_shift()
        kept = keeper.keep()
        assert not kept.key_changed
        assert "sync first" in kept.remarks[0]


# ------------------------------------------------------------------------------------------------ commands


def test_begin_unlock_and_end_by_command(field: Field, monkeypatch, capsys):
    monkeypatch.setenv("MARKCHECK_RUN", str(field.run))
    home = ["--home", str(field.home.folder)]
    run = CliRunner().invoke(shift, ["begin", "--pin", "--json", *home], input=f"{PIN}\n{PIN}\n")
    assert run.exit_code == 0, run.output
    assert PIN not in run.output
    assert json.loads(run.output.splitlines()[-1])["key_epoch"] == 1
    memory_file(field.run, field.home.folder).unlink()
    run = CliRunner().invoke(shift, ["unlock", *home], input=f"{WRONG}\n")
    assert isinstance(run.exception, WrongPinError)
    run = CliRunner().invoke(shift, ["unlock", *home], input=f"{PIN}\n")
    assert "the key of epoch 1 is here until" in run.output
    assert main(["shift", "end", *home]) == 0
    assert not memory_file(field.run, field.home.folder).exists()
    assert gone(wrap_files(field.home))


def test_the_end_of_a_shift_says_which_key_is_gone_and_which_stays(field: Field, monkeypatch, capsys):
    monkeypatch.setenv("MARKCHECK_RUN", str(field.run))
    home = ["--home", str(field.home.folder)]
    field.keeper().begin_shift()
    for told in ("the key of the shift is destroyed\n", "there was no key of a shift\n"):
        assert main(["shift", "end", *home]) == 0
        assert capsys.readouterr().out == told
    field.keeper().begin_shift(PIN)
    memory_file(field.run, field.home.folder).unlink()  # a reboot: only the wrapped one is left
    write_secret(field.home.epoch_key, K.hex().encode())
    for told in ("the key of the shift is destroyed", "there was no key of a shift"):
        assert main(["shift", "end", *home]) == 0
        assert capsys.readouterr().out == f"{told}; the one in epoch.key beside the data stays\n"


def test_a_lost_device_that_begins_a_shift_says_that_it_was_erased_and_so_does_what_comes_after(
    field: Field, monkeypatch, capsys
):
    monkeypatch.setenv("MARKCHECK_RUN", str(field.run))
    home = ["--home", str(field.home.folder)]
    field.sync()
    field.world.store.set_state(NAME, DeviceState.LOST)
    assert main(["shift", "begin", *home]) == 1
    assert ERASED not in capsys.readouterr().err
    field.world.store.set_state(NAME, DeviceState.LOST, wipe=True)
    assert main(["shift", "begin", *home]) == 1
    told = capsys.readouterr().err
    assert REASONS[Why.LOST] in told
    assert ERASED in told
    assert main(["audit", "upload", *home]) == 1
    assert capsys.readouterr().err == f"markcheck: {ERASED}\n"


def test_an_upload_without_a_certificate_says_to_enrol(tmp_path: Path, capsys):
    assert main(["audit", "upload", "--centre", "https://127.0.0.1:9", "--home", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"markcheck: {REASONS[Why.NOT_ENROLLED]}\n"
