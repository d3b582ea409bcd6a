"""Updates: a signed release is taken when it works, and whatever goes wrong, the one before is in use."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata

from firmware.bundle import RELEASE_TARGET, BundleError, check_version, fetch, read_offer, unpack
from firmware.health import problems
from firmware.settings import LAST_GOOD
from firmware.update import TRIES, Outcome, UpdateError
from hw.power.sysfs import PowerReading
from scripts.cli.main import main
from scripts.sandbox.folder_store import FolderStore, MemoryFetcher
from scripts.sandbox.release import Bundle, make_bundle
from tests.appliance_tree import World, bundle_of, make_world, on_path, open_world, tools_of, with_version
from tests.conftest import ROOT
from tests.nightly import Night
from tests.test_install import VENV, copy_of_the_sources, install, releases
from verifier.errors import DigestError, RollbackError, SyncBusyError, SyncError
from verifier.repository import SignatureError, SignedRepository, Target
from verifier.snapshot import ExpiredError, NoSpaceError

NEWER, OLDER = "7.0.1", "0.0.9"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sources that no test changes: what is installed."""
    return copy_of_the_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundle_of(tmp_path_factory.mktemp("newer"), NEWER)


@pytest.fixture(scope="module")
def made(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world that no test changes."""
    folder = tmp_path_factory.mktemp("made")
    make_world(folder, sources)
    return folder


@pytest.fixture
def world(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    shutil.copytree(made, tmp_path / "world", symlinks=True)
    world = open_world(tmp_path / "world")
    monkeypatch.setenv("PATH", on_path(tools_of(world)))
    return world


def signed(length: int = 10, **custom: object) -> Target:
    return Target(path="targets/x", length=length, sha256="0" * 64, custom=custom)


# ---------------------------------------------------------------------------------------------------- taking it


def test_a_newer_release_is_made_tried_watched_and_confirmed_and_the_one_before_stays(
    world: World, newer: Bundle
) -> None:
    before = world.in_use
    world.ask_for_the_real_health_check()
    world.publish(newer)
    done = world.update()
    assert done.outcome is Outcome.UPDATED
    assert (done.before, done.after) == (before, world.in_use)
    assert world.in_use.startswith(f"{NEWER}-")
    assert world.releases.named("confirmed") == world.in_use
    assert releases(world.releases.tree) == {before, world.in_use}
    assert (world.releases.path(world.in_use) / "venv/bin/markcheck").exists()
    calls = [call for call in world.calls() if not call.startswith("show")]
    assert calls == [
        f"start markcheck-health@{world.in_use}.service", "daemon-reload", "restart markcheck.service",
        f"running releases/{world.in_use}", "start timers.target",
        "try-restart markcheck-console@*.service",
    ]  # fmt: skip
    assert not world.releases.stage.exists()
    assert not world.releases.refused.exists()


def test_a_release_that_is_in_use_already_is_not_fetched_again_and_nothing_is_restarted(
    world: World, newer: Bundle
) -> None:
    world.publish(newer)
    world.update()
    calls = len(world.calls())
    fetcher = MemoryFetcher(FolderStore(world.public))
    assert world.update(fetcher=fetcher).outcome is Outcome.FRESH
    assert not any(path.startswith("targets/") for path in fetcher.requests)
    assert len(world.calls()) == calls


def test_where_no_release_is_offered_nothing_happens(world: World) -> None:
    assert world.update().outcome is Outcome.NONE
    assert world.calls() == []


def test_what_was_installed_by_hand_from_the_same_sources_is_what_is_offered(world: World, sources: Path) -> None:
    before = world.in_use
    world.publish(make_bundle(sources))
    assert world.update().outcome is Outcome.FRESH
    assert world.in_use == before
    assert world.update().outcome is Outcome.FRESH
    assert world.calls() == []


def test_units_and_rules_of_a_release_come_and_go_with_it(world: World, sources: Path, tmp_path: Path) -> None:
    unit = world.releases.tree / "etc/systemd/system/markcheck.service"
    old = unit.read_text()
    for version, fate in (("7.1", ""), ("7.2", "ends again")):
        new = with_version(copy_of_the_sources(tmp_path / version), version, fate)
        with (new / "systemd/markcheck.service").open("a") as file:
            file.write(f"# {version}\n")
        world.publish(make_bundle(new))
        if fate:
            with pytest.raises(UpdateError, match="ends again"):
                world.update()
        else:
            world.update()
    assert unit.read_text() == f"{old}# 7.1\n"


UNIT = "[Unit]\nDescription={}\n[Install]\nWantedBy=timers.target\n"


def test_a_unit_that_a_release_no_longer_has_goes_a_new_one_is_enabled_and_what_was_disabled_by_hand_stays_so(
    world: World, tmp_path: Path
) -> None:
    units = world.releases.tree / "etc/systemd/system"
    wants = units / "timers.target.wants"
    (units / "markcheck-gone.timer").write_text(UNIT.format("gone"))
    (wants / "markcheck-gone.timer").symlink_to("/etc/systemd/system/markcheck-gone.timer")
    (units / "marker.timer").write_text(UNIT.format("of somebody else"))
    (wants / "markcheck-sync.timer").unlink()
    new = with_version(copy_of_the_sources(tmp_path / "new"), NEWER)
    (new / "systemd/markcheck-fresh.timer").write_text(UNIT.format("fresh"))
    (new / "systemd/markcheck-sync.timer").write_text(UNIT.format("another"))
    world.publish(make_bundle(new))
    world.update()
    assert not (units / "markcheck-gone.timer").exists()
    assert (units / "marker.timer").exists()
    assert "another" in (units / "markcheck-sync.timer").read_text()
    assert {path.name for path in wants.iterdir()} == {
        "markcheck-fresh.timer", "markcheck-update.timer", "markcheck-audit-upload.timer",
    }  # fmt: skip
    assert str((wants / "markcheck-fresh.timer").readlink()) == "/etc/systemd/system/markcheck-fresh.timer"


# -------------------------------------------------------------------------------------------------- refusing it


def refused_without_a_trace(world: World, error: type[Exception], text: str, **options: object) -> None:
    before, files = world.in_use, releases(world.releases.tree)
    with pytest.raises(error, match=text):
        world.update(**options)
    assert (world.in_use, world.releases.named("confirmed")) == (before, before)
    assert releases(world.releases.tree) == files
    assert "restart markcheck.service" not in world.calls()


def test_a_release_signed_by_another_key_is_refused(world: World, newer: Bundle) -> None:
    world.publish(newer)
    name = "metadata/1.release.json"
    store = FolderStore(world.public)
    metadata = Metadata.from_bytes(store[name])
    metadata.sign(CryptoSigner(Ed25519PrivateKey.generate()))
    store[name] = metadata.to_bytes()
    refused_without_a_trace(world, SyncError, "signed metadata")


def test_a_whole_distribution_of_somebody_else_is_refused(world: World, newer: Bundle, tmp_path: Path) -> None:
    other = Night()
    other.publish()
    other.publisher.publish_release(newer)
    refused_without_a_trace(world, SignatureError, "signature", fetcher=MemoryFetcher(other.store))


@pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d + b"x", lambda d: d[:99] + b"?" + d[100:]])
def test_a_bundle_that_was_changed_on_the_way_is_refused(world: World, newer: Bundle, change: object) -> None:
    world.publish(newer)
    store = FolderStore(world.public)
    (path,) = (path for path in store if path.startswith("targets/release/"))
    store[path] = change(store[path])  # type: ignore[operator]
    refused_without_a_trace(world, SyncError, "length or digest|more than")


def test_metadata_older_than_those_seen_and_expired_ones_are_refused(world: World, newer: Bundle) -> None:
    store = FolderStore(world.public)
    old = dict(store)
    world.publish(newer)
    assert world.updater().offered() is not None
    with pytest.raises(RollbackError):
        world.updater(fetcher=MemoryFetcher(old)).offered()
    world.night.clock.move(days=3)
    with pytest.raises(ExpiredError):
        world.updater().offered()


def test_an_older_version_is_refused_unless_its_publisher_withdrew_those_above(
    world: World, newer: Bundle, tmp_path: Path
) -> None:
    older = bundle_of(tmp_path / "older", OLDER)
    world.publish(older)
    refused_without_a_trace(world, RollbackError, f"{OLDER}: older than")
    world.publish(older, withdrawal=True)
    assert world.update().after.startswith(f"{OLDER}-")
    world.publish(newer)
    assert world.update().after.startswith(f"{NEWER}-")


def test_versions_are_compared_by_number() -> None:
    for offered, installed in (("0.10", "0.9"), ("1", "1.0"), ("1.0.1", "1"), ("1", ""), ("1", "2rc1")):
        check_version(read_offer(signed(version=offered)), installed)
    for offered, installed in (("0.9", "0.10"), ("1", "1.0.1")):
        with pytest.raises(RollbackError):
            check_version(read_offer(signed(version=offered)), installed)


@pytest.mark.parametrize("custom", [{}, {"version": 1}, {"version": "1/../2"}, {"version": "1", "withdrawal": "yes"}])
def test_a_release_that_is_signed_without_a_plain_version_is_refused(custom: dict[str, object]) -> None:
    with pytest.raises(BundleError, match="without a version"):
        read_offer(signed(**custom))


def test_a_bundle_of_another_version_than_it_was_signed_as_is_refused(world: World, newer: Bundle) -> None:
    world.publish(Bundle("7.5", newer.data))
    before = world.in_use
    with pytest.raises(BundleError, match="not the version"):
        world.update()
    assert world.in_use == before
    assert world.calls() == []


def test_without_room_off_the_charger_or_without_a_root_nothing_is_fetched(world: World, newer: Bundle) -> None:
    world.publish(newer)
    refused_without_a_trace(world, NoSpaceError, "MiB needed", free_space=lambda path: len(newer.data))
    refused_without_a_trace(world, UpdateError, "charger", power=PowerReading(80, charging=False))
    world.releases.root.unlink()
    refused_without_a_trace(world, UpdateError, "no root")
    assert not world.releases.stage.exists()


def test_two_updates_do_not_run_at_once(world: World, newer: Bundle) -> None:
    world.publish(newer)
    with (world.releases.folder / "update.lock").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        refused_without_a_trace(world, SyncBusyError, "another update")


def test_on_a_charger_it_is_taken(world: World, newer: Bundle) -> None:
    world.publish(newer)
    assert world.update(power=PowerReading(80, charging=True)).outcome is Outcome.UPDATED


def test_new_libraries_without_their_wheels_are_refused(world: World, tmp_path: Path) -> None:
    """By the script itself, with an environment of its own; nothing is asked of any network."""
    other = with_version(copy_of_the_sources(tmp_path / "other"), "8")
    with (other / "requirements.lock").open("a") as file:
        file.write("nowhere==1 \\\n    --hash=sha256:00\n")
    run = install(other, "--release-only", "--root", world.releases.tree)
    assert run.returncode == 1
    assert "there are no wheels of them" in run.stderr
    assert run.stdout == ""


def test_what_could_not_be_made_leaves_nothing_on_the_card_but_the_bundle(world: World, tmp_path: Path) -> None:
    """As where the card is full while the release is made: the program's records need the room."""
    bad = with_version(copy_of_the_sources(tmp_path / "bad"), "8.1")
    script = (bad / "scripts/install").read_text()
    (bad / "scripts/install").write_text(
        script.replace("    sync -f", "    fail 'no space left on device'\n    sync -f")
    )
    world.publish(make_bundle(bad))
    refused_without_a_trace(world, UpdateError, "could not be made: install: no space left")
    assert {path.name for path in world.releases.stage.iterdir()} == {"bundle.tar.gz"}
    (world.releases.path(world.in_use) / "complete").unlink()  # as after a cut during an installation by hand
    refused_without_a_trace(world, UpdateError, "could not be made")


# ----------------------------------------------------------------------------------------------- leaving it again


def test_a_release_whose_health_check_fails_is_never_in_use(world: World, newer: Bundle) -> None:
    world.publish(newer)
    world.ask_for_the_real_health_check()
    world.config.write_text("[panel]\nmodle = 1\n")
    left_for_the_one_before(world, "cannot work here")
    assert "settings: markcheck.toml: panel.modle" in world.log.read_text()


def left_for_the_one_before(world: World, text: str, **options: object) -> None:
    before = world.in_use
    with pytest.raises(UpdateError, match=text):
        world.update(**options)
    assert (world.in_use, world.releases.named("confirmed")) == (before, before)


@pytest.mark.parametrize("fate", ["does not start", "ends again", "gives up"])
def test_a_program_that_does_not_keep_running_is_left_for_the_one_before(
    world: World, tmp_path: Path, fate: str
) -> None:
    before = world.in_use
    world.publish(bundle_of(tmp_path / "bad", "9.9", fate))
    (world.releases.tree / "run/systemd/system").mkdir(parents=True)
    left_for_the_one_before(world, f"{before} is in use")
    assert world.calls()[-2:] == ["daemon-reload", "--no-block try-restart markcheck.service"]
    assert "9.9-" in world.releases.refused.read_text()


def test_a_release_that_did_not_work_twice_is_not_tried_by_itself_again(
    world: World, newer: Bundle, tmp_path: Path
) -> None:
    world.publish(bundle_of(tmp_path / "bad", "6.0", "ends again"))
    for _ in range(TRIES):
        left_for_the_one_before(world, "ends again")
    calls = len(world.calls())
    left_for_the_one_before(world, f"did not work here {TRIES} times")
    assert len(world.calls()) == calls
    with pytest.raises(UpdateError, match="ends again"):
        world.update(again=True)
    world.publish(newer)
    assert world.update().outcome is Outcome.UPDATED
    assert not any(name.startswith("6.0-") for name in releases(world.releases.tree))


def test_what_a_device_lacks_anyway_is_no_fault_of_a_release_and_what_it_cannot_read_is(tmp_path: Path) -> None:
    night, config, home = Night(), tmp_path / "markcheck.toml", tmp_path / "home"
    config.write_text((ROOT / "docs/examples/demo.toml").read_text())
    assert problems(config, home) == []
    night.publish()
    night.device(home / "cache").client().refresh()
    assert problems(config, home) == []
    index = home / "cache/current/index.cbor"
    index.write_bytes(index.read_bytes()[:-1])
    (problem,) = problems(config, home)
    assert problem.startswith("data: ")
    shutil.rmtree(home / "cache")
    config.write_text("[panel]\nmodle = 1\n")
    assert problems(config, home) == ["settings: markcheck.toml: panel.modle: no such setting (model?)"]
    (home / LAST_GOOD).write_text((ROOT / "docs/examples/demo.toml").read_text())
    assert problems(config, home) == []


def test_a_release_whose_panel_lacks_a_library_of_its_bus_does_not_work_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, demo = tmp_path / "markcheck.toml", (ROOT / "docs/examples/demo.toml").read_text()
    for bus, library in (("spi", "spidev"), ("i2c", "smbus2")):
        monkeypatch.setitem(sys.modules, library, None)
        config.write_text(demo.replace('bus = "simulated"', f'bus = "{bus}"'))
        (problem,) = problems(config, tmp_path / "home")
        assert problem.startswith(f"{library}: ")


# ------------------------------------------------------------------------------------------------------ power cuts

CUT = """
import os, sys
from pathlib import Path
from tests.appliance_tree import open_world
def step(name):
    print(name, flush=True)
    if name == sys.argv[2]:
        os._exit(9)
open_world(Path(sys.argv[1])).update(on_step=step)
"""
STEPS = ["fetched", "unpacked", "made", "healthy", "used", "reloaded", "restarted", "watched", "confirmed"]


def run_to(world: World, step: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", CUT, world.folder, step]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)


def boot(world: World) -> None:
    """What the unit before the program does."""
    script = world.releases.folder / "confirmed/libexec/release"
    environment = {**os.environ, "MARKCHECK_ROOT": str(world.releases.tree)}
    subprocess.run([script, "back"], env=environment, check=False, capture_output=True)


SOME = ("made", "used", "confirmed")  # before, in and after the change of the release in use


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(SOME, id="some"),
        pytest.param([step for step in STEPS if step not in SOME], id="the others", marks=pytest.mark.long),
    ],
)
def test_a_power_cut_at_any_step_leaves_the_old_release_or_the_new_one_and_the_next_update_succeeds(
    world: World, newer: Bundle, tmp_path: Path, steps: Sequence[str]
) -> None:
    world.publish(newer)
    before, kept = world.in_use, tmp_path / "kept"
    shutil.copytree(world.releases.folder, kept, symlinks=True)
    assert run_to(world, "").stdout.split() == STEPS
    for step in steps:
        shutil.rmtree(world.releases.folder)
        shutil.copytree(kept, world.releases.folder, symlinks=True)
        cut = run_to(world, step)
        assert (cut.returncode, cut.stdout.split()[-1]) == (9, step)
        boot(world)
        assert world.in_use == world.releases.named("confirmed")
        assert (world.in_use == before) == (step != "confirmed")
        assert (world.releases.path(world.in_use) / "complete").exists()
        assert world.update().after.startswith(f"{NEWER}-")


DYING = """#!/bin/sh
n=$(($(cat {count}) - 1))
echo "$n" >{count}
[ "$n" -ne 0 ] || {{ kill -9 "$PPID"; exit 1; }}
exec {tool} "$@"
"""


def dying_tools(folder: Path, count: Path) -> str:
    """A PATH whose tools, at the call that `count` counts down to, kill the script that called them."""
    folder.mkdir()
    for name in ("mv", "ln", "install", "sync", "mkdir", "rm"):
        (folder / name).write_text(DYING.format(count=count, tool=shutil.which(name)))
        (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def state_of(world: World) -> tuple[str, ...]:
    units = world.releases.tree / "etc/systemd/system"
    files = [path for path in sorted(units.iterdir()) if path.is_file() and path.suffix != ".new"]
    texts = [f"{path.name}: {path.read_text()}" for path in files]
    return (world.in_use, *texts, *sorted(path.name for path in units.glob("*.wants/*")))


@pytest.mark.parametrize("word", ["use", "back"])
def test_a_power_cut_at_any_command_of_the_switch_is_mended_by_the_next_boot(
    world: World, sources: Path, tmp_path: Path, word: str
) -> None:
    new = with_version(copy_of_the_sources(tmp_path / "new"), "7.3")
    for name in ("markcheck.service", "markcheck-sync.service"):
        with (new / "systemd" / name).open("a") as file:
            file.write("# new\n")
    (new / "systemd/markcheck-fresh.timer").write_text(UNIT.format("fresh"))
    (new / "systemd/markcheck-audit-upload.timer").unlink()
    run = install(new, "--release-only", "--root", world.releases.tree, "--venv", VENV)
    old, name = state_of(world), run.stdout.strip()
    script, count = world.releases.folder / "confirmed/libexec/release", tmp_path / "count"
    variables = {**os.environ, "MARKCHECK_ROOT": str(world.releases.tree)}
    dying = {**variables, "PATH": dying_tools(tmp_path / "dying", count)}

    def release(*words: str, env: dict[str, str]) -> int:
        return subprocess.run([script, *words], env=env, check=False, capture_output=True).returncode

    cuts = 0
    for number in range(1, 100):
        if word == "back":
            assert release("use", name, env=variables) == 0
        count.write_text(str(number))
        status = release(*(["use", name] if word == "use" else ["back"]), env=dying)
        if status >= 0:  # it came to its end before the cut
            break
        cuts += 1
        boot(world)
        assert state_of(world) == old
    assert cuts >= 8


def test_a_run_that_was_killed_on_trial_is_left_by_its_unit_and_counts_as_one_that_failed(
    world: World, newer: Bundle
) -> None:
    world.publish(newer)
    before = world.in_use
    run_to(world, "restarted")
    assert world.in_use != before
    words = [world.releases.folder / "confirmed/libexec/release", "back"]
    environment = {**os.environ, "MARKCHECK_ROOT": str(world.releases.tree)}
    run = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert (run.returncode, world.in_use) == (1, before)
    assert "on trial" in run.stderr
    assert world.releases.times_refused(hashlib.sha256(newer.data).hexdigest()) == 1
    assert subprocess.run(words, env=environment, check=False).returncode == 0


def test_the_end_of_an_update_that_found_another_one_running_leaves_that_ones_trial_alone(world: World) -> None:
    unit = (ROOT / "systemd/markcheck-update.service").read_text()
    (line,) = (line for line in unit.splitlines() if line.startswith("ExecStopPost="))
    words = [word.replace("/opt/", f"{world.releases.tree}/opt/") for word in line.partition("=")[2].split()]
    variables = {**os.environ, "MARKCHECK_ROOT": str(world.releases.tree)}
    before, other = world.in_use, f"{NEWER}-{'0' * 12}"
    current = world.releases.folder / "current"
    current.unlink()
    current.symlink_to(f"releases/{other}")  # on trial by the other one
    with (world.releases.folder / "update.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert subprocess.run(words, env=variables, check=False).returncode == 1
        assert world.in_use == other
    subprocess.run(words, env=variables, check=False)
    assert world.in_use == before


def test_below_an_overlay_in_memory_a_release_is_not_taken(world: World, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "stat").write_text("#!/bin/sh\necho overlayfs\n")
    (tools / "stat").chmod(0o755)
    (world.releases.tree / "proc").mkdir()
    (world.releases.tree / "proc/cmdline").write_text("console=tty1 boot=overlay root=/dev/mmcblk0p2\n")
    run = subprocess.run(
        [world.releases.folder / "current/libexec/release", "use", world.in_use],
        env={"PATH": on_path(tools), "MARKCHECK_ROOT": str(world.releases.tree)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 1
    assert "overlay in memory" in run.stderr


# ------------------------------------------------------------------------------------------------------ the archive


def archive(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=form) as made:
        for member, data in members:
            member.size = len(data)
            made.addfile(member, io.BytesIO(data))
    return out.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


GOOD = (member("scripts/install", mode=0o7755), b"#!/bin/sh\n")
EVIL = {
    "above": archive(GOOD, (member("../evil"), b"x")),
    "above, within": archive(GOOD, (member("scripts/../../evil"), b"x")),
    "absolute": archive(GOOD, (member("/evil"), b"x")),
    "hidden": archive(GOOD, (member(".git/hooks"), b"x")),
    "empty name": archive(GOOD, (member("a//b"), b"x")),
    "not plain": archive(GOOD, (member("a b"), b"x")),
    "symbolic link": archive(GOOD, (member("etc", tarfile.SYMTYPE, "/etc"), b""), (member("etc/evil"), b"x")),
    "hard link": archive(GOOD, (member("evil", tarfile.LNKTYPE, "/etc/passwd"), b"")),
    "device": archive(GOOD, (member("evil", tarfile.BLKTYPE), b"")),
    "pipe": archive(GOOD, (member("evil", tarfile.FIFOTYPE), b"")),
    "folder": archive(GOOD, (member("evil", tarfile.DIRTYPE), b"")),
    "sparse": archive(GOOD, (member("evil", tarfile.GNUTYPE_SPARSE), b"")),
    "extended header": archive(GOOD, (member("x" * 300), b"x"), form=tarfile.PAX_FORMAT),
    "long name of GNU": archive(GOOD, (member("x" * 300), b"x"), form=tarfile.GNU_FORMAT),
    "twice": archive(GOOD, GOOD),
    "below a file": archive(GOOD, (member("scripts/install/evil"), b"x")),
    "cut": archive(GOOD)[:-12],
    "no gzip": b"not at all",
    "no tar": gzip.compress(b"not at all" * 100),
    "endless": gzip.compress(member("a").tobuf(tarfile.USTAR_FORMAT)[:124] + b"\x80" + b"\xff" * 387),
    "nothing": b"",
}


@pytest.mark.parametrize("name", EVIL)
def test_an_archive_with_anything_but_plain_files_within_its_folder_is_refused_and_writes_nothing_beside_it(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "bundle").write_bytes(EVIL[name])
    with pytest.raises(BundleError):
        unpack(tmp_path / "bundle", tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "out"}
    found = [path for path in (tmp_path / "out").rglob("*") if not path.is_dir()]
    assert {path.name for path in found} <= {"install"}
    assert not any(path.is_symlink() for path in found)


def test_an_archive_that_grows_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("firmware.bundle.MAX_UNPACKED", 1 << 20)
    monkeypatch.setattr("firmware.bundle.MAX_FILES", 100)
    (tmp_path / "large").write_bytes(archive((member("a"), bytes(1 << 21))))
    (tmp_path / "many").write_bytes(archive(*((member(f"f{n}"), b"") for n in range(101))))
    for name in ("large", "many"):
        with pytest.raises(BundleError, match="larger"):
            unpack(tmp_path / name, tmp_path / f"{name}.out")
    assert not (tmp_path / "large.out/a").exists()


def test_what_is_unpacked_is_what_was_packed_without_any_mode_but_that_of_a_program(
    sources: Path, tmp_path: Path
) -> None:
    (tmp_path / "bundle").write_bytes(make_bundle(sources).data)
    unpack(tmp_path / "bundle", tmp_path / "out")
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (sources / path.relative_to(tmp_path / "out")).read_bytes()
            assert path.stat().st_mode & 0o7777 in (0o644, 0o755)
    assert os.access(tmp_path / "out/scripts/install", os.X_OK)
    (tmp_path / "odd").write_bytes(archive(GOOD))
    unpack(tmp_path / "odd", tmp_path / "odd.out")
    assert (tmp_path / "odd.out/scripts/install").stat().st_mode & 0o7777 == 0o755


def test_the_same_sources_give_the_same_bytes_whenever_and_wherever(sources: Path, tmp_path: Path) -> None:
    first = make_bundle(sources)
    again = shutil.copytree(sources, tmp_path / "again")
    for path in again.rglob("*"):
        os.utime(path, (1, 1))
    (again / "firmware/__pycache__").mkdir()
    (again / "firmware/__pycache__/x.pyc").write_bytes(b"x")
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    assert make_bundle(again, wheels) == first
    (wheels / "a-1-py3-none-any.whl").write_bytes(b"wheel")
    assert make_bundle(again, wheels) != first


def test_a_bundle_is_fetched_in_pieces_kept_for_the_next_try_and_never_longer_than_signed(tmp_path: Path) -> None:
    data = bytes(range(256)) * 1000
    offer = read_offer(
        Target(path="targets/x", length=len(data), sha256=hashlib.sha256(data).hexdigest(), custom={"version": "1"})
    )
    fetcher = MemoryFetcher({"targets/x": data})
    for _ in range(2):
        fetch(offer, tmp_path / "bundle", fetcher)
    assert (tmp_path / "bundle").read_bytes() == data
    assert len(fetcher.requests) == 1
    (tmp_path / "bundle").write_bytes(b"rotten")
    with pytest.raises(DigestError):
        fetch(offer, tmp_path / "bundle", MemoryFetcher({"targets/x": data[::-1]}))
    assert not (tmp_path / "bundle").exists()


# ------------------------------------------------------------------------------------------- publisher and command


def test_a_release_has_a_key_of_its_own_and_the_next_nights_keep_it_on_offer(newer: Bundle, tmp_path: Path) -> None:
    night = Night()
    with pytest.raises(Exception, match="beside a night"):
        night.publisher.publish_release(newer)
    night.publish()
    night.publisher.publish_release(newer)
    (role,) = (r for r in Metadata.from_bytes(night.store["metadata/2.targets.json"]).signed.delegations.roles.values()
               if r.name == "release")  # fmt: skip
    assert role.paths == [RELEASE_TARGET]
    for _ in range(20):  # 100 days: the release's own metadata would have expired
        night.clock.move(days=5)
        night.publish()
    device = night.device(tmp_path / "device")
    device.client().refresh()
    night.publisher.prune()
    assert sum(path.startswith("targets/release/") for path in night.store) == 1

    repository = SignedRepository(
        tmp_path / "t", MemoryFetcher(night.store), night.publisher.root_bytes(), night.clock()
    )
    repository.refresh()
    assert read_offer(repository.find(RELEASE_TARGET, 1 << 30)).version == NEWER


def test_the_command_tells_what_is_in_use_and_what_is_offered(
    world: World, newer: Bundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.cli.update.system_clock", world.night.clock)
    words = ["update", "--from", str(world.public), "--tree", str(world.releases.tree)]
    assert main(words) == 0
    assert "no release is offered" in capsys.readouterr().out
    world.publish(newer)
    assert main([*words, "--check"]) == 0
    told = capsys.readouterr().out
    assert f"in use     {world.in_use}\n" in told
    assert f"offered    {NEWER}\n" in told
    world.update()
    assert main([*words, "--check", "--json"]) == 0
    assert '"fresh": true' in capsys.readouterr().out
    assert main(words) == 0
    assert "is what is offered" in capsys.readouterr().out


def test_the_sandbox_publishes_a_release_that_a_device_takes(
    sources: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "sandbox")
    assert main(["sandbox", "publish", "--folder", folder, "--scale", "16"]) == 0
    assert main(["sandbox", "release", "--folder", folder, "--sources", str(sources)]) == 0
    assert main(["sandbox", "release", "--sources", str(sources), "--out", str(tmp_path / "out")]) == 0
    (written,) = (tmp_path / "out").iterdir()
    public = FolderStore(tmp_path / "sandbox/public")
    (path,) = (path for path in public if path.startswith("targets/release/"))
    assert public[path] == written.read_bytes() == make_bundle(sources).data
    assert main(["sandbox", "release", "--sources", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "no source tree" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------- the real thing

# Stands where `systemctl` stands, and does what the units say, as far as an update goes.
MANAGER = """#!{python}
import os, socket, subprocess, sys
from pathlib import Path
opt, config, folder = Path("{opt}"), "{config}", Path("{folder}")
environment = {{**os.environ, "MARKCHECK_HOME": str(folder / "home"), "MARKCHECK_RUN": str(folder / "run")}}
pid_file, told = folder / "pid", sys.argv[1:]

def alive():
    try:
        return pid_file.exists() and "State:\\tZ" not in Path("/proc", pid_file.read_text(), "status").read_text()
    except FileNotFoundError:
        return False

def restart():
    if alive():
        os.kill(int(pid_file.read_text()), 15)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        (folder / "notify").unlink(missing_ok=True)
        ear.bind(str(folder / "notify"))
        ear.settimeout(60)
        process = subprocess.Popen(
            [opt / "current/venv/bin/markcheck", "run", "--config", config], start_new_session=True,
            env=environment | {{"NOTIFY_SOCKET": str(folder / "notify")}},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        pid_file.write_text(str(process.pid))
        while process.poll() is None:
            ear.settimeout(0.2)
            try:
                if ear.recv(100) == b"READY=1":
                    return 0
            except TimeoutError:
                pass
    return 1

if told[0] == "start":
    name = told[1].removeprefix("markcheck-health@").removesuffix(".service")
    words = [opt / "releases" / name / "venv/bin/python", "-I", "-m", "firmware.health", config]
    sys.exit(subprocess.run(words, env=environment).returncode)
if told[-1] == "markcheck.service" and told[0] in ("restart", "--no-block"):
    sys.exit(restart())
if told[0] == "show":
    print("ActiveState=" + ("active" if alive() else "failed"))
    print("MainPID=" + pid_file.read_text())
"""


def give_it_an_environment_of_its_own(world: World) -> None:
    """As `scripts/install` makes one, with the libraries of the environment that tests."""
    release = world.releases.path(world.in_use)
    (release / "venv").unlink()
    subprocess.run(["python3", "-m", "venv", "--without-pip", release / "venv"], check=True)
    (site,) = (release / "venv/lib").glob("python3.*/site-packages")
    (libraries,) = (VENV / "lib").glob("python3.*/site-packages")
    (site / "libraries.pth").write_text(f"{libraries}\n")
    words = [release / "venv/bin/python", "-m", "pip", "--quiet", "install", "--no-index", "--no-deps"]
    sources = copy_of_the_sources(world.folder / "again")
    subprocess.run([*words, "--no-build-isolation", "--force-reinstall", sources], check=True, capture_output=True)
    (release / "complete").write_text(f"Python {sys.version_info[0]}.{sys.version_info[1]}\n")


def running_program(world: World) -> str:
    """The command of the process that the manager has started, by the release that its program came from."""
    pid = (world.folder / "pid").read_text()
    words = Path("/proc", pid, "cmdline").read_text().split("\0")
    return next(Path(word).resolve().relative_to(world.releases.path("").resolve()).parts[0] for word in words
                if "venv/bin/markcheck" in word)  # fmt: skip


@pytest.mark.long
def test_the_real_program_is_updated_in_an_environment_of_its_own_and_a_broken_one_is_left_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = MANAGER.format(python=sys.executable, opt=world.releases.folder, config=world.config, folder=world.folder)
    (world.folder / "bin/systemctl").write_text(manager)
    monkeypatch.setenv("PATH", f"{world.folder / 'bin'}:{on_path(VENV / 'bin')}")
    (world.releases.tree / "run/systemd/system").mkdir(parents=True)
    (world.folder / "home").mkdir()
    (world.folder / "run").mkdir(mode=0o700)
    give_it_an_environment_of_its_own(world)
    before = world.in_use
    try:
        good = with_version(copy_of_the_sources(tmp_path / "good"), "7.0.1")
        world.publish(make_bundle(good))
        done = world.update(options=())
        assert done.after == world.in_use == running_program(world) != before
        told = subprocess.run(
            [world.releases.folder / "current/venv/bin/markcheck", "--version"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "7.0.1" in told.stdout
        bad = with_version(copy_of_the_sources(tmp_path / "bad"), "7.0.2")
        wiring = bad / "firmware/wiring.py"
        wiring.write_text(
            wiring.read_text().replace("def run_program(", "def run_program(*_, **__):\n    return 1\n\n\ndef _run(")
        )
        world.publish(make_bundle(bad))
        with pytest.raises(UpdateError, match="does not start"):
            world.update(options=())
        assert world.in_use == world.releases.named("confirmed") == running_program(world) == done.after
    finally:
        if (world.folder / "pid").exists():
            os.kill(int((world.folder / "pid").read_text()), 15)


def wheel_with_the_libraries_of_the_tests(folder: Path) -> str:
    """A wheel that stands for all of them, by a path file; its entry in a lock file."""
    (libraries,) = (VENV / "lib").glob("python3.*/site-packages")
    info, name = "lib-1.dist-info", folder / "lib-1-py3-none-any.whl"
    files = {
        "lib.pth": f"import sys; sys.path.insert(1, {str(libraries)!r})\n",  # before what a new environment has
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: lib\nVersion: 1\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    folder.mkdir()
    with zipfile.ZipFile(name, "w") as made:
        for path, text in files.items():
            made.writestr(path, text)
        made.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD")))
    return f"lib==1 \\\n    --hash=sha256:{hashlib.sha256(name.read_bytes()).hexdigest()}\n"


@pytest.mark.long
@pytest.mark.parametrize("right", [True, False])
def test_other_libraries_come_from_the_bundles_wheels_with_their_hashes(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, right: bool
) -> None:
    monkeypatch.setenv("PATH", f"{world.folder / 'bin'}:{on_path(VENV / 'bin')}")
    sources = with_version(copy_of_the_sources(tmp_path / "sources"), NEWER)
    entry = wheel_with_the_libraries_of_the_tests(tmp_path / "wheels")
    (sources / "requirements.lock").write_text(entry if right else entry.replace(entry[-4:-1], "000"))
    world.publish(make_bundle(sources, tmp_path / "wheels"))
    if right:
        world.update(options=())
        assert world.in_use.startswith(f"{NEWER}-")
        assert list(world.releases.path(world.in_use).glob("venv/lib/python3*/site-packages/lib.pth"))
    else:
        left_for_the_one_before(world, "could not be made", options=())
