"""scripts/setup: the environment in use outlives whatever ends a run. Its Python and pip here are stand-ins."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

# It makes "environments" whose Python is the pip below, and says of itself what setup asks: that it will do.
PYTHON = """#!/bin/sh
case "$1 $2" in
"-c "*print*) echo 3.11 ;;
"-m venv") mkdir -p "$3/bin" && cp "$0.pip" "$3/bin/python" ;;
esac
"""
PIP = """#!/bin/sh
echo half >> .venv/packages
{then}
"""
GOOD, NEW = "the environment in use", "half\n"


class Tree:
    """A copy of the tree's part that setup needs, with an environment of before in use."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tools = folder / "tree", folder / "tools"
        self.tools.mkdir()
        (self.folder / "scripts").mkdir(parents=True)
        for name in ("scripts/setup", "requirements.lock", "requirements-picamera2.lock", "pyproject.toml"):
            shutil.copy(ROOT / name, self.folder / name)
        self._tool("python3.11", PYTHON)
        self._tool("dpkg-query", "#!/bin/sh\necho installed\n")
        self.environment = self.folder / ".venv"
        self.environment.mkdir()
        (self.environment / "packages").write_text(GOOD)
        (self.environment / "markcheck-setup").write_text("of another lock")

    def _tool(self, name: str, text: str) -> None:
        path = self.tools / name
        path.write_text(text)
        path.chmod(0o755)

    def set_up(self, then: str) -> int:
        """Run setup with a pip that ends so; its exit status."""
        self._tool("python3.11.pip", PIP.format(then=then))
        command = [self.folder / "scripts" / "setup"]
        path = f"{self.tools}:/usr/bin:/bin"
        return subprocess.run(command, env={"PATH": path}, capture_output=True, check=False, timeout=60).returncode

    def packages(self) -> str:
        return (self.environment / "packages").read_text()


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


ENDS = ["exit 1", "kill -TERM $PPID", "kill -INT $PPID", "kill -HUP $PPID"]


@pytest.mark.parametrize("then", ENDS)
def test_whatever_ends_a_run_the_environment_in_use_is_there_again(tree: Tree, then: str) -> None:
    assert tree.set_up(then) != 0
    assert tree.packages() == GOOD
    assert not (tree.folder / ".venv.old").exists()


def test_pip_that_outlives_the_signal_does_not_write_into_the_environment_that_is_put_back(tree: Tree) -> None:
    assert tree.set_up("kill -TERM $PPID; echo more >> .venv/packages") != 0
    assert tree.packages() == GOOD


def test_after_a_run_that_was_killed_the_next_one_begins_with_the_environment_that_was_whole(tree: Tree) -> None:
    tree.set_up("kill -KILL $PPID")
    assert tree.packages() == NEW, "killed in the middle"
    assert tree.set_up("exit 1") != 0
    assert tree.packages() == GOOD


def test_a_whole_run_leaves_the_new_environment_alone_and_the_next_has_nothing_to_do(tree: Tree) -> None:
    assert tree.set_up("exit 0") == 0
    assert tree.packages().startswith(NEW)
    assert not (tree.folder / ".venv.old").exists()
    assert tree.set_up("exit 1") == 0
