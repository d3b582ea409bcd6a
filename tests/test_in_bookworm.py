"""The appliance in a bare Debian bookworm, and under the real service manager there: confined, updated, rolled back."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.sandbox.folder_store import FolderStore
from scripts.sandbox.publisher_keys import PublisherKeys
from scripts.sandbox.release import make_bundle
from tests.appliance_tree import with_version
from tests.conftest import ROOT
from tests.nightly import Night
from tests.test_install import copy_of_the_sources
from verifier.clock import system_clock

MIRROR = os.environ.get("MARKCHECK_DEBIAN_MIRROR", "").split()  # none: the one that debootstrap knows
PACKAGES = "systemd,systemd-sysv,dbus,udev,ca-certificates"
NETWORK = ("resolv.conf", "hosts", "pip.conf", "ssl/certs/ca-certificates.crt")  # that of this machine

pytestmark = pytest.mark.long
needs_nspawn = pytest.mark.skipif(
    shutil.which("systemd-nspawn") is None, reason="systemd-nspawn (systemd-container) is not installed"
)

# A probe runs as a unit of its own in the booted system, and switches it off at the end as the program's user.
BEGIN = """#!/bin/bash
exec >/srv/told 2>&1
pid() { systemctl show --property=MainPID --value markcheck; }
back() { # PID: until another process is ready
    local shown
    for _ in {1..600}; do
        shown="$(systemctl show --property=ActiveState,MainPID markcheck)"$'\\n'
        [[ $shown != *ActiveState=active* || $shown == *MainPID=0* || $shown == *"MainPID=$1"$'\\n'* ]] || return
        sleep 0.1
    done
}
back 0
"""
END = """
echo "asking to switch off"
runuser -u markcheck -- systemctl poweroff || echo "no power-off"
"""
CONFINED = """
echo "seccomp $(sed -n 's/^Seccomp:\\t//p' "/proc/$(pid)/status")"
echo "bounding $(sed -n 's/^CapBnd:\\t//p' "/proc/$(pid)/status")"
nsenter --target "$(pid)" --mount touch /etc/written 2>/dev/null || echo "read-only"
echo "timers $(systemctl list-timers --all 'markcheck*' | grep -c '^[^ ].*markcheck-')"
began=$(date +%s%3N) hung=$(pid)
kill -STOP "$hung"; back "$hung"
echo "hang_ms $(($(date +%s%3N) - began))"
began=$(date +%s%3N) crashed=$(pid)
kill -SEGV "$crashed"; back "$crashed"
echo "crash_ms $(($(date +%s%3N) - began))"
cat /var/lib/markcheck/failures.log
runuser -u markcheck -- systemctl restart systemd-journald || echo "nothing else"
"""
# Each line of `state`: the word, the versions in use, confirmed and running, and what the units and rules are of.
UPDATED = """
version() { sed -n 's|.*releases/\\([^/-]*\\)-.*|\\1|p' | head -n 1; }
of() { tail -n 1 "$1" | grep -o '^[#/]* of .*'; }
state() {
    echo "$1: $(readlink /opt/markcheck/current | version) $(readlink /opt/markcheck/confirmed | version)" \\
        "$(tr '\\0' '\\n' <"/proc/$(pid)/cmdline" | version)" \\
        "$(of /etc/systemd/system/markcheck.service)$(of /etc/polkit-1/rules.d/49-markcheck.rules)"
}
unit() { echo "$1: $(systemctl is-enabled "$1" 2>/dev/null) $(systemctl is-active "$1")"; }
ln -sfn /srv/first /srv/public
before=$(basename "$(readlink /opt/markcheck/confirmed)")
state "installed"
unit markcheck-gone.timer
systemctl start markcheck-update; echo "status $?"
state "updated"
unit markcheck-gone.timer; unit markcheck-fresh.timer
ln -sfn /srv/second /srv/public
broken=$(pid); systemctl start markcheck-update; echo "status $?"; back "$broken"
state "broken"
/opt/markcheck/confirmed/libexec/release use "$before"
state "on trial"
systemctl start markcheck-roll-back; echo "status $?"
state "rolled back"
unit markcheck-gone.timer; unit markcheck-fresh.timer
cat /opt/markcheck/refused
journalctl --no-pager -u markcheck-update -u markcheck-roll-back -u 'markcheck-health@*' | tail -n 30
"""
PROBE_UNIT = "[Unit]\nAfter=multi-user.target\n[Service]\nExecStart=/srv/probe\n[Install]\nWantedBy=multi-user.target\n"
TIMER = "[Timer]\nOnCalendar=hourly\n[Install]\nWantedBy=timers.target\n"
SERVICE = "[Service]\nType=oneshot\nExecStart=/bin/true\n"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_the_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def bookworm(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bare Debian made the appliance: needs the network, about 1 GB and some minutes."""
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        pytest.skip("debootstrap has to be installed, and needs root")
    root = tmp_path_factory.mktemp("debian") / "bookworm"
    command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", root, *MIRROR]
    try:
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            pytest.skip(f"no bookworm: {made.stdout[-200:]}")
        install_inside(root, sources)
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def install_inside(root: Path, sources: Path) -> None:
    """With the root of a distribution whose first night lies in srv/public, and whose keys in srv/keys."""
    shutil.copytree(sources, root / "srv/sources")
    night = Night(store=FolderStore(root / "srv/first"), clock=system_clock)
    night.publish()
    night.publisher.save_keys(root / "srv/keys")
    (root / "srv/root.json").write_bytes(night.publisher.root_bytes())
    for name in NETWORK:
        if Path("/etc", name).exists():
            shutil.copy(f"/etc/{name}", root / "etc" / name)
    subprocess.run(["mount", "-t", "proc", "proc", root / "proc"], check=True)
    try:
        run = inside(root, "/srv/sources/scripts/install", "--trust-root", "/srv/root.json")
        assert run.returncode == 0, run.stderr
        assert "nothing to do" in inside(root, "/srv/sources/scripts/install").stderr
    finally:
        subprocess.run(["umount", "--lazy", root / "proc"], check=True)
    demo = (ROOT / "docs/examples/demo.toml").read_text()
    (root / "etc/markcheck/markcheck.toml").write_text(f'{demo}\n[sync]\nsource = "/srv/public"\n')
    # As provisioning leaves it.
    assert inside(root, "chown", "-R", "markcheck:", "/etc/markcheck").returncode == 0
    (root / "etc/markcheck/markcheck.toml").chmod(0o600)


def inside(root: Path, *command: str, user: str = "root") -> subprocess.CompletedProcess[str]:
    words = ["chroot", f"--userspec={user}", root, *command]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def booted(root: Path, probe: str, seconds: int) -> str:
    """What a probe says that runs in the booted system, which has to switch itself off within that time."""
    (root / "srv/probe").write_text(BEGIN + probe + END)
    (root / "srv/probe").chmod(0o755)
    (root / "etc/systemd/system/probe.service").write_text(PROBE_UNIT)
    assert inside(root, "systemctl", "enable", "probe.service").returncode == 0
    words = ["systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--private-network",
             "--console=pipe", "-D", root]  # fmt: skip
    subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=seconds)
    told = (root / "srv/told").read_text()
    assert told.endswith("asking to switch off\n"), told
    return told


def test_a_bare_bookworm_becomes_an_appliance_whose_program_starts(bookworm: Path) -> None:
    links = bookworm / "etc/systemd/system"
    assert (links / "multi-user.target.wants/markcheck.service").is_symlink()
    assert (links / "timers.target.wants/markcheck-sync.timer").is_symlink()
    assert {"video", "gpio", "dialout"} < set(inside(bookworm, "id", "-nG", "markcheck").stdout.split())
    assert inside(bookworm, "/usr/local/bin/markcheck", "--version").returncode == 0
    assert inside(bookworm, "/usr/local/bin/markcheck", "--version", user="nobody").returncode == 1
    ended = inside(
        bookworm, "env", "MARKCHECK_HOME=/var/lib/markcheck", "MARKCHECK_RUN=/run/markcheck", "timeout",
        "--preserve-status", "20", "/opt/markcheck/current/venv/bin/markcheck", "run", "--config",
        "/etc/markcheck/markcheck.toml", user="markcheck",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert (bookworm / "var/lib/markcheck/last-good.toml").exists()


@needs_nspawn
def test_under_the_real_service_manager_it_is_confined_comes_back_and_may_switch_off(bookworm: Path) -> None:
    began = time.monotonic()
    told = booted(bookworm, CONFINED, 240)
    assert "seccomp 2\nbounding 0000000000000000\nread-only\ntimers 3\n" in told
    hang, crash = (int(re.search(rf"{name}_ms (\d+)", told)[1]) for name in ("hang", "crash"))
    assert crash <= 15_000
    assert hang <= crash + 14_000  # the watchdog's 10 s and the 2 s that it waits for a last word
    assert re.search(r"Z markcheck watchdog killed/ABRT\n.*Z markcheck signal killed/SEGV\n", told)
    assert "nothing else\nasking to switch off\n" in told
    assert time.monotonic() - began < 200  # it did switch off, and was not ended by the limit


def release_of(sources: Path, folder: Path, version: str) -> Path:
    """Sources of another version, with a unit, a rule and a timer that the one before has not."""
    made = with_version(shutil.copytree(sources, folder), version)
    for name in ("markcheck.service", "polkit/49-markcheck.rules"):
        with (made / "systemd" / name).open("a") as file:
            file.write(f"{'//' if name.endswith('rules') else '#'} of {version}\n")
    (made / "systemd/markcheck-fresh.timer").write_text(TIMER)
    (made / "systemd/markcheck-fresh.service").write_text(SERVICE)
    return made


@needs_nspawn
def test_under_the_real_service_manager_a_release_is_taken_and_a_broken_one_is_left_with_all_its_units(
    bookworm: Path, sources: Path, tmp_path: Path
) -> None:
    units, srv = bookworm / "etc/systemd/system", bookworm / "srv"
    (units / "markcheck-gone.timer").write_text(TIMER)  # of a release before
    (units / "markcheck-gone.service").write_text(SERVICE)
    assert inside(bookworm, "systemctl", "enable", "markcheck-gone.timer").returncode == 0
    keys = PublisherKeys.load(srv / "keys")
    publisher = Night(store=FolderStore(srv / "first"), clock=system_clock, publisher_keys=keys).publisher
    publisher.publish_release(make_bundle(release_of(sources, tmp_path / "good", "7.0.1")))
    shutil.copytree(srv / "first", srv / "second")
    publisher = Night(store=FolderStore(srv / "second"), clock=system_clock, publisher_keys=keys).publisher
    broken = release_of(sources, tmp_path / "broken", "7.0.2")
    wiring = broken / "firmware/wiring.py"
    wiring.write_text(
        wiring.read_text().replace("def run_program(", "def run_program(*_, **__):\n    return 1\n\n\ndef _run(")
    )
    publisher.publish_release(make_bundle(broken))

    told = booted(bookworm, UPDATED, 900)
    good = "7.0.1 7.0.1 7.0.1 # of 7.0.1// of 7.0.1"
    assert re.search(r"^installed: 0\S* 0\S* 0\S* $", told, re.MULTILINE), told
    assert "markcheck-gone.timer: enabled active\nstatus 0\n" in told, told
    gone = r"markcheck-gone.timer:  (inactive|failed)\nmarkcheck-fresh.timer: enabled active\n"
    assert re.search(rf"^updated: {good}\n{gone}", told, re.MULTILINE), told
    assert f"status 1\nbroken: {good}\n" in told, told
    assert re.search(r"^on trial: 0\S* 7.0.1 7.0.1 $", told, re.MULTILINE), told
    assert re.search(rf"^status 1\nrolled back: {good}\n{gone}", told, re.MULTILINE), told
