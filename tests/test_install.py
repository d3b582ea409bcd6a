"""scripts/install: what it says, what it does into a folder, and what it leaves alone."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import click
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from firmware.pages import PARTS
from firmware.settings import read_settings
from scripts.cli.main import cli
from tests.conftest import ROOT

INSTALL = ROOT / "scripts" / "install"
VENV = Path(sys.prefix)
SCRIPTS = [INSTALL, *(p for p in (ROOT / "systemd" / "libexec").iterdir() if "python" not in p.read_text()[:30])]
SOURCES = (
    "firmware", "hw", "scripts", "verifier", "systemd", "docs/operations.md", "docs/examples", "pyproject.toml",
    "README.md", "requirements.lock", "requirements-picamera2.lock",
)  # fmt: skip
TOUCHES_THE_SYSTEM = ("systemctl", "apt-get", "systemd-sysusers", "systemd-tmpfiles", "udevadm", "useradd")


def copy_of_the_sources(to: Path) -> Path:
    """What is installed from: the working tree may change while a test runs."""
    leave_out = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=leave_out)
        else:
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, to / name)
    return to


def install(sources: Path, *arguments: str | Path, **more: object) -> subprocess.CompletedProcess[str]:
    command = [sources / "scripts" / "install", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **more)


def installed_tree(folder: Path) -> Path:
    """A root folder with the appliance of this working tree, run by the environment of the tests."""
    run = install(copy_of_the_sources(folder / "sources"), "--root", folder / "root", "--venv", VENV)
    assert run.returncode == 0, run.stderr
    return folder / "root"


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sources that no test here changes."""
    return copy_of_the_sources(tmp_path_factory.mktemp("first"))


def contents(root: Path) -> dict[str, tuple[int, str]]:
    """Each file and link below, when it was written and where it leads."""
    found = {}
    for folder, folders, names in os.walk(root):
        for name in (*folders, *names):
            path = Path(folder, name)
            found[str(path.relative_to(root))] = (
                path.lstat().st_mtime_ns,
                str(path.readlink()) if path.is_symlink() else "",
            )
    return found


def steps(told: str) -> list[str]:
    return re.findall(r"^install:   (?!systemctl)(.+)$", told, re.MULTILINE)


def releases(root: Path) -> set[str]:
    return {path.name for path in (root / "opt/markcheck/releases").iterdir()}


# --------------------------------------------------------------------------------------------------- what it does


def test_all_that_it_does_is_said_before_and_a_plan_does_nothing(first: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    planned = install(first, "--root", root, "--venv", VENV, "--plan")
    assert planned.returncode == 0
    assert not root.exists()
    done = install(first, "--root", root, "--venv", VENV)
    assert done.returncode == 0, done.stderr
    assert steps(done.stderr) == steps(planned.stderr)
    written = {f"write /{name}" for name in contents(root) if not (root / name).is_dir()}
    written = {re.sub(r"write \S+\.wants/", "enable ", name) for name in written}
    said = {step.replace(str(root), "").partition(",")[0] for step in steps(planned.stderr)}
    assert {name for name in written if "/opt/markcheck/" not in name} <= said
    assert done.stderr.index("this is to be done") < done.stderr.index("making")


def test_a_second_run_finds_nothing_to_do_and_writes_nothing(first: Path, tmp_path: Path) -> None:
    install(first, "--root", tmp_path, "--venv", VENV)
    before = contents(tmp_path)
    again = install(first, "--root", tmp_path, "--venv", VENV)
    assert again.returncode == 0
    assert "nothing to do" in again.stderr
    assert contents(tmp_path) == before


def test_a_configuration_that_is_there_is_kept_and_a_new_one_can_be_read(first: Path, tmp_path: Path) -> None:
    config = tmp_path / "etc/markcheck/markcheck.toml"
    install(first, "--root", tmp_path, "--venv", VENV)
    read_settings(config.read_text())
    config.write_text('[device]\nname = "MINE"\n')
    assert "keeping" in install(first, "--root", tmp_path, "--venv", VENV).stderr
    assert config.read_text() == '[device]\nname = "MINE"\n'


def test_a_changed_file_of_the_system_is_put_right_again(first: Path, tmp_path: Path) -> None:
    install(first, "--root", tmp_path, "--venv", VENV)
    unit = tmp_path / "etc/systemd/system/markcheck.service"
    unit.write_text("[Service]\nExecStart=/bin/false\n")
    run = install(first, "--root", tmp_path, "--venv", VENV)
    assert steps(run.stderr) == [f"write {unit}"]
    assert unit.read_bytes() == (ROOT / "systemd/markcheck.service").read_bytes()


def test_a_new_release_takes_over_as_a_whole_and_the_one_before_stays_beside_it(tmp_path: Path) -> None:
    sources, root = copy_of_the_sources(tmp_path / "sources"), tmp_path / "root"
    seen = []
    for line in ("", "# second\n", "# third\n"):
        with (sources / "verifier/types.py").open("a") as file:
            file.write(line)
        assert install(sources, "--root", root, "--venv", VENV).returncode == 0
        seen.append((root / "opt/markcheck/current").readlink().name)
    assert len(set(seen)) == 3
    assert releases(root) == set(seen[1:])


def test_units_of_ours_that_are_no_longer_in_the_release_are_removed_with_what_enabled_them(
    first: Path, tmp_path: Path
) -> None:
    install(first, "--root", tmp_path, "--venv", VENV)
    units = tmp_path / "etc/systemd/system"
    gone = units / "markcheck-hot.timer"
    gone.write_text("[Timer]\nOnCalendar=minutely\n")
    (units / "timers.target.wants" / gone.name).symlink_to(f"/etc/systemd/system/{gone.name}")
    (units / "markcheck.service.d").mkdir()  # what the owner of the device added
    run = install(first, "--root", tmp_path, "--venv", VENV)
    assert steps(run.stderr) == [f"remove {gone}"]
    assert [path for path in units.rglob(gone.name) if path.is_symlink() or path.exists()] == []
    assert (units / "markcheck.service.d").exists()


def test_every_unit_that_is_to_be_enabled_is_so_in_a_folder_too_once(first: Path, tmp_path: Path) -> None:
    install(first, "--root", tmp_path, "--venv", VENV)
    units = tmp_path / "etc/systemd/system"
    enabled = {path.name for path in units.glob("*.wants/*")}
    assert enabled == {path.name for path in units.glob("markcheck*") if "[Install]" in path.read_text()}
    assert {"markcheck.service", "markcheck-roll-back.service", "markcheck-update.timer"} <= enabled
    (units / "timers.target.wants/markcheck-update.timer").unlink()  # as `systemctl disable` does
    (units / "markcheck-update.timer").write_text("changed")
    install(first, "--root", tmp_path, "--venv", VENV)
    assert (units / "markcheck-update.timer").read_text() != "changed"
    assert not (units / "timers.target.wants/markcheck-update.timer").is_symlink()


def test_a_release_for_another_python_is_another_release_and_the_one_in_use_stays_whole(
    first: Path, tmp_path: Path
) -> None:
    names = set()
    for number in (11, 13):
        (tmp_path / "python3").write_text(f"#!/bin/sh\necho Python 3.{number}\n")
        (tmp_path / "python3").chmod(0o755)
        path = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        told = install(first, "--root", tmp_path / "root", "--plan", env=path).stderr
        names.add(re.search(r"make \S+/releases/(\S+)", told)[1])
    assert len(names) == 2


def test_whoever_owns_the_settings_folder_cannot_have_a_file_written_elsewhere(first: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    for name in ("elsewhere", "root/etc/markcheck"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "root/etc/markcheck/markcheck.toml.new").symlink_to(elsewhere)
    assert install(first, "--root", tmp_path / "root", "--venv", VENV).returncode == 0
    assert list(elsewhere.iterdir()) == []
    assert (tmp_path / "root/etc/markcheck/markcheck.toml").is_file()


def test_an_installation_waits_for_no_update_and_does_not_cut_in_on_one(first: Path, tmp_path: Path) -> None:
    install(first, "--root", tmp_path, "--venv", VENV)
    (tmp_path / "etc/systemd/system/markcheck.service").unlink()
    with (tmp_path / "opt/markcheck/update.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = install(first, "--root", tmp_path, "--venv", VENV)
    assert run.returncode == 1
    assert "an update is running" in run.stderr
    assert not (tmp_path / "etc/systemd/system/markcheck.service").exists()


def test_a_release_that_was_cut_off_is_made_anew(first: Path, tmp_path: Path) -> None:
    install(first, "--root", tmp_path, "--venv", VENV)
    release = (tmp_path / "opt/markcheck/current").resolve()
    (release / "complete").unlink()
    (release / "libexec/note-failure").write_text("half")
    assert install(first, "--root", tmp_path, "--venv", VENV).returncode == 0
    assert (release / "complete").exists()
    assert (release / "libexec/note-failure").read_bytes() == (ROOT / "systemd/libexec/note-failure").read_bytes()


def test_a_release_that_rests_on_another_python_is_made_anew(first: Path, tmp_path: Path) -> None:
    install(first, "--root", tmp_path, "--venv", VENV)
    complete = (tmp_path / "opt/markcheck/current").resolve() / "complete"
    complete.write_text("Python 3.9\n")
    assert [step.split()[0] for step in steps(install(first, "--root", tmp_path, "--venv", VENV).stderr)] == ["make"]
    assert complete.read_text() == f"{VENV.resolve()}\n"


def test_the_root_that_everything_is_trusted_by_is_written_once_and_never_replaced(first: Path, tmp_path: Path) -> None:
    root, other = tmp_path / "root.json", tmp_path / "other.json"
    root.write_text("one")
    other.write_text("another")
    given, tree = ("--root", tmp_path / "tree", "--venv", VENV), tmp_path / "tree/opt/markcheck/root.json"
    run = install(first, *given, "--trust-root", root)
    assert f"write {tree}" in steps(run.stderr)
    assert tree.read_text() == "one"
    assert "nothing to do" in install(first, *given, "--trust-root", root).stderr
    run = install(first, *given, "--trust-root", other)
    assert run.returncode == 1
    assert "made with another root" in run.stderr
    assert tree.read_text() == "one"
    assert "no such file" in install(first, *given, "--trust-root", tmp_path / "none").stderr


def test_a_release_alone_is_made_beside_the_one_in_use_and_its_name_is_all_that_is_told(
    first: Path, tmp_path: Path
) -> None:
    sources, root = shutil.copytree(first, tmp_path / "sources"), tmp_path / "root"
    install(first, "--root", root, "--venv", VENV)
    before = contents(root)
    with (sources / "verifier/types.py").open("a") as file:
        file.write("# another\n")
    run = install(sources, "--release-only", "--root", root, "--venv", VENV)
    assert run.returncode == 0, run.stderr
    name = run.stdout.strip()
    assert (root / "opt/markcheck/releases" / name / "complete").exists()
    after = {path: told for path, told in contents(root).items() if name not in path}
    assert after.keys() == before.keys()
    assert all(after[path] == before[path] for path in before if not path.endswith("releases"))


def test_a_release_that_is_in_use_is_not_made_anew_under_itself(first: Path, tmp_path: Path) -> None:
    install(first, "--root", tmp_path, "--venv", VENV)
    release = (tmp_path / "opt/markcheck/current").resolve()
    (release / "complete").write_text("Python 3.9\n")
    run = install(first, "--release-only", "--root", tmp_path, "--venv", VENV)
    assert run.stdout.strip() == release.name
    assert (release / "complete").read_text() == "Python 3.9\n"


def test_a_source_that_is_missing_stops_it_before_anything_is_done(tmp_path: Path) -> None:
    sources = copy_of_the_sources(tmp_path / "sources")
    (sources / "requirements.lock").unlink()
    run = install(sources, "--root", tmp_path / "root", "--venv", VENV)
    assert run.returncode != 0
    assert "requirements.lock" in run.stderr
    assert not (tmp_path / "root").exists()


def test_into_a_folder_it_calls_nothing_that_changes_the_running_system(first: Path, tmp_path: Path) -> None:
    traps, sprung = tmp_path / "traps", tmp_path / "sprung"
    traps.mkdir()
    for name in TOUCHES_THE_SYSTEM:
        (traps / name).write_text(f"#!/bin/sh\necho {name} >>{sprung}\n")
        (traps / name).chmod(0o755)
    path = {**os.environ, "PATH": f"{traps}:{os.environ['PATH']}"}
    assert install(first, "--root", tmp_path / "root", "--venv", VENV, env=path).returncode == 0
    assert not sprung.exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--frob"], "--frob: no such option"),
        (["--root"], "--root: a path is missing"),
        (["--root", "x", "--venv", "nowhere"], "nowhere: has no bin/markcheck"),
    ],
)
def test_wrong_usage_is_one_line_and_nothing_is_made(
    arguments: list[str], told: str, first: Path, tmp_path: Path
) -> None:
    run = install(first, *arguments, cwd=tmp_path)
    assert run.returncode == 1
    assert told in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_who_is_not_root_cannot_change_this_machine() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folder is closed to others
        sources = copy_of_the_sources(Path(name))
        sources.chmod(0o755)
        run = install(sources, user=65534, group=65534, cwd="/")
    assert run.returncode == 1
    assert "as root, please" in run.stderr


def test_help_begins_with_what_it_does(first: Path) -> None:
    run = install(first, "--help")
    assert run.returncode == 0
    assert run.stdout.startswith("Makes a Raspberry Pi")
    assert "--root DIR" in run.stdout


# ------------------------------------------------------------------------------------------------ what it installs


def needed(names: set[str]) -> set[str]:
    """The distributions that these need, they included, as they are installed here."""
    found, waiting = set(), {canonicalize_name(name) for name in names}
    while waiting:
        name = waiting.pop()
        found.add(name)
        try:
            wanted = [Requirement(text) for text in requires(name) or ()]
        except PackageNotFoundError:
            continue  # of another machine
        waiting |= {canonicalize_name(r.name) for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})}
        waiting -= found
    return found


def test_a_device_gets_every_library_that_it_needs_and_none_of_the_tests() -> None:
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    pattern = re.compile(re.search(r"^not_here='(.+)'$", INSTALL.read_text(), re.MULTILINE)[1])
    kept = {name for name in locked if not pattern.match(f"{name}==")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = {Requirement(text).name for text in (*project["dependencies"], *extras["scripts"], *extras["build"])}
    assert needed(wanted) - {"pip"} <= kept | {"colorama"}  # of another system
    assert kept & {canonicalize_name(Requirement(text).name) for text in extras["test"]} == set()


def test_what_the_spi_panel_needs_beside_the_locked_libraries_is_a_debian_package() -> None:
    """spidev has no wheel for the device, so it is Debian's, as the camera's library is."""
    packages = re.search(r"^packages=\((.+)\)$", INSTALL.read_text(), re.MULTILINE)[1].split()
    assert "python3-spidev" in packages
    assert "--system-site-packages" in INSTALL.read_text()


def test_the_lock_is_parted_without_losing_a_hash(tmp_path: Path) -> None:
    """The shell function by itself, on the real lock."""
    text = INSTALL.read_text()
    body = text[text.index("locked() {") : text.index("make_environment() {")]
    pattern = re.search(r"^not_here=.+$", text, re.MULTILINE)[0]
    for invert in ("", "-v"):
        script = f'set -euo pipefail\n{pattern}\n{body}\nlocked "$1" "$not_here" {invert}\n'
        run = subprocess.run(
            ["bash", "-c", script, "-", ROOT / "requirements.lock"], capture_output=True, text=True, check=True
        )
        (tmp_path / f"part{invert}").write_text(run.stdout)
    parts = [(tmp_path / name).read_text().splitlines() for name in ("part", "part-v")]
    whole = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if line.strip()]
    assert sorted(line for part in parts for line in part if line.strip()) == sorted(
        line for line in whole if not line.startswith("#")
    )
    assert all(parts)


# ------------------------------------------------------------------------------------------------ as scripts


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_a_script_parses_stops_at_the_first_error_and_is_executable(script: Path) -> None:
    text = script.read_text()
    shell = "bash" if text.startswith("#!/usr/bin/env bash\n") else "sh"
    assert text.startswith(("#!/usr/bin/env bash\n", "#!/bin/sh\n"))
    assert re.search(r"^set -euo pipefail$" if shell == "bash" else r"^set -eu$", text, re.MULTILINE)
    assert os.access(script, os.X_OK)
    subprocess.run([shell, "-n", script], check=True)


def unquoted(text: str) -> list[str]:
    """The lines of a shell script where an expansion stands bare as a word, or as a part of one: shellcheck's SC2086.

    Assignments, [[ ]], (( )) and the word of a case make no words of it.
    """
    found, nest, at, bare = [], [""], 0, ("[[", "((", "case ")
    closing = {'"': '"', "$(": ")", "${": "}", "(": ")", "[[": " ]]", "((": "))", "case ": " in"}
    while at < len(text):
        rest, top = text[at:], nest[-1]
        if top and rest.startswith(closing[top]):
            nest.pop()
            at += len(closing[top])
        elif rest[0] == "\\":
            at += 2
        elif rest[0] == "'" and top != '"':
            at = text.index("'", at + 1) + 1
        elif rest[0] == "#" and top != '"' and text[at - 1 : at] in ("", " ", "\n"):
            at = text.index("\n", at)
        else:
            assigned = re.search(r"(^|[\s(])\w+=[^\s(]*$", text[text.rfind("\n", 0, at) + 1 : at])
            word = top not in ('"', "${", *bare) and not assigned
            if word and re.match(r"\$[a-zA-Z0-9_{(@*]", rest) and "(" not in rest[2:3]:
                found.append(text[text.rfind("\n", 0, at) + 1 : text.find("\n", at)].strip())
            opened = next((o for o in ("$(", "${", '"') if rest.startswith(o)), "")
            if not opened and top != '"':
                opened = next((o for o in ("[[", "((", "case ", "(") if rest.startswith(o)), "")
            nest += [opened] if opened else []
            at += len(opened) or 1
    assert nest == [""]
    return found


def test_the_search_for_bare_variables_finds_them() -> None:
    assert unquoted("rm $a\n") == ["rm $a"]
    assert unquoted('x "$(cat $a)" "${b}"\n') == ['x "$(cat $a)" "${b}"']
    assert unquoted("for x in ${a[@]}; do\n") == ["for x in ${a[@]}; do"]
    assert unquoted('a=$b/$k [[ $c == "$d" ]] ((e < $f)) "$g" \'$h\' # $i\ncase $j in\n') == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_no_variable_stands_without_quotes_as_a_word_of_a_command(script: Path) -> None:
    if (checker := shutil.which("shellcheck")) is not None:
        subprocess.run([checker, "--severity=warning", script], check=True)
    assert unquoted(script.read_text()) == []


# ------------------------------------------------------------------------------------------------ the page about it

PAGE = ROOT / "docs" / "operations.md"


def test_the_page_explains_every_banner_and_every_unit() -> None:
    text = PAGE.read_text()
    for part in PARTS.values():
        assert f"| {part.zh} {part.en} |" in text
    for unit in (ROOT / "systemd").glob("*.timer"):
        assert f"`{unit.name}`" in text


def test_every_command_as_root_in_the_page_takes_its_options() -> None:
    found = re.findall(r"sudo markcheck ((?:[a-z-]+ ?)+(?:--[^`\n]*)?)", PAGE.read_text())
    assert len(found) > 8
    for text in found:
        command, words = cli, text.split()
        while isinstance(command, click.Group):
            command = command.get_command(click.Context(command), words.pop(0))
            assert command is not None, text
        options = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, text
