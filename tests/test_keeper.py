"""What the thread that keeps a device up may and may not be disturbed by."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from firmware.build import build_device
from firmware.config import Home
from firmware.keeper import Keeper, device_client
from tests.handhelds import Field
from tests.status_world import World, make_world
from verifier.clock import system_clock
from verifier.epoch_key import is_in_memory
from verifier.identity import Client
from verifier.recheck import Upkeep


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = make_world(tmp_path_factory.mktemp("world"))
    with made.serving():
        yield made


@pytest.fixture
def field(world: World, tmp_path: Path) -> Iterator[Field]:
    memory = Path("/dev/shm") / f"markcheck-test-{os.getpid()}-keeper"  # noqa: S108
    if not is_in_memory(memory.parent):
        pytest.skip("no file system in memory here")
    made = Field(world, Home(tmp_path / "home"), memory)
    made.enrolled()
    made.sync()
    yield made
    shutil.rmtree(memory, ignore_errors=True)


def test_a_shift_that_ends_while_its_key_is_on_the_way_leaves_no_key(field: Field) -> None:
    asked, go = threading.Event(), threading.Event()
    identity = field.keeper().identity.files
    real = device_client(field.url, identity)

    def slow(certified: bool) -> Client:
        asked.set()
        assert go.wait(20)
        return real(certified)

    keeper = Keeper(field.home, slow, identity, system_clock, run=field.run)
    begins = threading.Thread(target=keeper.begin_shift)
    ends = threading.Thread(target=keeper.end_shift)
    begins.start()
    assert asked.wait(20)
    ends.start()
    ends.join(0.3)  # as long as it would take without the other
    go.set()
    begins.join(20)
    ends.join(20)
    assert keeper.key_is_gone()


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "no space left"), TypeError("a mistake of ours")])
def test_rechecks_that_fail_keep_no_device_from_renewing_its_certificate(
    field: Field, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    field.keeper().begin_shift()
    field.aged(hours=60)
    old = field.serial()
    device = build_device(field.home, system_clock, run=field.run)
    assert device.online is not None

    def full(standing: object) -> None:
        raise failure

    monkeypatch.setattr(device.online.rechecker, "run", full)
    device.online.upkeep.step()
    device.store.close()
    assert field.serial() != old


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "no space left"), TypeError("a mistake of ours")])
def test_an_upkeep_without_a_certificate_outlives_a_recheck_that_fails(
    field: Field, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    """Its thread is never begun again, and a thread that dies ends the program."""
    field.keeper().begin_shift()
    device = build_device(field.home, system_clock, run=field.run)
    assert device.online is not None
    over, tries = threading.Event(), []

    def full(standing: object) -> None:
        tries.append(standing)
        raise failure

    monkeypatch.setattr(device.online.rechecker, "run", full)
    upkeep = Upkeep(device.online.centre, device.online.verifier, device.online.rechecker)
    monkeypatch.setattr("verifier.recheck.STEP_S", 0.0)
    monkeypatch.setattr("verifier.recheck.RECHECK_EVERY_MS", 0)
    thread = threading.Thread(target=upkeep.run, args=(over,))
    thread.start()
    while len(tries) < 2:
        assert thread.is_alive()
        thread.join(0.01)
    over.set()
    thread.join(20)
    device.store.close()
