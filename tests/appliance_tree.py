"""What the tests of updates share: a publisher, a device's tree by scripts/install, and what stands for systemctl."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firmware.update import Releases, Updated, Updater
from hw.power.sysfs import PowerReading
from scripts.sandbox.folder_store import FolderStore
from scripts.sandbox.publisher_keys import PublisherKeys
from scripts.sandbox.release import Bundle, make_bundle
from tests.nightly import Night
from tests.test_install import VENV, copy_of_the_sources, install
from verifier.net import FolderFetcher

MAINS = PowerReading(None)

# Stands where `systemctl` stands. How a release's program fares is told by the last line of the page that came with it;
# its health check is the real one where a test asks for it.
SYSTEMCTL = """#!/bin/sh
echo "$*" >>{log}
pid=$(cat {log}.pid 2>/dev/null || echo 1)
fate=$(tail -n 1 {opt}/current/docs/operations.md)
case "$*" in
"start markcheck-health@"*)
    [ -e {log}.real ] || exit 0
    name=${{2#markcheck-health@}} python=venv/bin/python
    cd / && MARKCHECK_HOME={home} exec {opt}/releases/${{name%.service}}/$python -m firmware.health {config} 2>>{log}
    ;;
"restart markcheck.service")
    echo $((pid + 1)) >{log}.pid
    echo "running $(readlink {opt}/current)" >>{log}
    [ "$fate" != "does not start" ]
    ;;
"show markcheck.service"*)
    [ "$fate" != "ends again" ] || echo $((pid + 1)) >{log}.pid
    [ "$fate" != "gives up" ] || state=failed
    printf 'ActiveState=%s\\nMainPID=%s\\nNRestarts=0\\n' "${{state:-active}}" "$pid"
    ;;
esac
"""


def with_version(sources: Path, version: str, fate: str = "") -> Path:
    """The sources as those of another version, whose program fares as `fate` says."""
    project, page = sources / "pyproject.toml", sources / "docs/operations.md"
    project.write_text(re.sub(r'^version = ".*"$', f'version = "{version}"', project.read_text(), flags=re.MULTILINE))
    page.write_text(f"{page.read_text()}\n{fate}\n")
    return sources


@dataclass
class World:
    """A distribution in a folder, and a device that was installed with its root."""

    folder: Path
    night: Night
    releases: Releases

    @property
    def public(self) -> Path:
        return self.folder / "public"

    @property
    def log(self) -> Path:
        return self.folder / "systemctl.log"

    @property
    def config(self) -> Path:
        return self.releases.tree / "etc/markcheck/markcheck.toml"

    @property
    def in_use(self) -> str:
        return self.releases.named("current")

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def ask_for_the_real_health_check(self) -> None:
        Path(f"{self.log}.real").touch()

    def publish(self, bundle: Bundle, **options: Any) -> None:
        self.night.publisher.publish_release(bundle, **options)

    def updater(self, **options: Any) -> Updater:
        values: dict[str, Any] = {"options": ("--venv", str(VENV)), "sleep": lambda seconds: None}
        fetcher = options.pop("fetcher", None) or FolderFetcher(self.public)
        return Updater(self.releases, fetcher, self.night.clock, **(values | options))

    def update(self, *, power: PowerReading = MAINS, again: bool = False, **options: Any) -> Updated:
        return self.updater(**options).update(power, again=again)


def make_world(folder: Path, sources: Path) -> None:
    """The distribution of one night with its keys, and the tree of a device with these sources installed."""
    night = Night(store=FolderStore(folder / "public"))
    night.publish()
    night.publisher.save_keys(folder / "keys")
    root = folder / "root.json"
    root.write_bytes(night.publisher.root_bytes())
    done = install(sources, "--root", folder / "tree", "--venv", VENV, "--trust-root", root)
    assert done.returncode == 0, done.stderr
    config = folder / "tree/etc/markcheck/markcheck.toml"
    config.write_text((sources / "docs/examples/demo.toml").read_text())


def open_world(folder: Path) -> World:
    """What `make_world` made, or a copy of it."""
    night = Night(store=FolderStore(folder / "public"), publisher_keys=PublisherKeys.load(folder / "keys"))
    return World(folder, night, Releases(folder / "tree"))


def tools_of(world: World) -> Path:
    """A folder for the PATH: systemctl, and a sync that does not wait for the disk of a machine that tests."""
    tools = world.folder / "bin"
    tools.mkdir()
    told = {"log": world.log, "opt": world.releases.folder, "config": world.config, "home": world.folder / "home"}
    (tools / "systemctl").write_text(SYSTEMCTL.format(**told))
    (tools / "sync").write_text("#!/bin/sh\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    return tools


def bundle_of(folder: Path, version: str, fate: str = "") -> Bundle:
    """A bundle of the working tree's sources, as of another version."""
    return make_bundle(with_version(copy_of_the_sources(folder), version, fate))


def on_path(folder: Path) -> str:
    return f"{folder}:{os.environ['PATH']}"
