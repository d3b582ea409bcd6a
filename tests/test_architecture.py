"""The direction of imports, and other habits that a reader may rely on."""

from __future__ import annotations

import ast
import graphlib
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest
from importlinter.cli import lint_imports

from scripts.cli.main import COMMANDS
from tests.conftest import ROOT

PACKAGES = ("verifier", "hw", "firmware", "scripts")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def test_imports_go_in_one_direction(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert lint_imports(no_cache=True) == 0


def test_no_imports_go_in_a_circle_not_even_those_inside_functions():
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)
    assert {"firmware.wiring", "firmware.console_commands", "verifier.decide", "scripts.cli.main"} <= graph.modules
    imported = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    graphlib.TopologicalSorter(imported).prepare()  # CycleError names the circle


def test_the_contract_of_hw_names_every_module_of_verifier_but_types():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = [c for c in contracts if c["source_modules" if "source_modules" in c else "layers"] == ["hw"]]
    folder = ROOT / "verifier"
    modules = {f"verifier.{p.stem}" for p in folder.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert set(contract["forbidden_modules"]) == modules - {"verifier.__init__", "verifier.types"}


def test_package_files_stay_empty():
    assert all(path.read_text() == "" for path in MODULES if path.name == "__init__.py")


def test_only_verify_makes_a_verified_credential():
    makers = [p.relative_to(ROOT).as_posix() for p in MODULES if re.search(r"\bVerifiedCredential\(", p.read_text())]
    assert makers == ["verifier/verify.py"]


def test_importing_the_officers_path_loads_no_heavy_library():
    code = (
        "import sys; before = set(sys.modules); import firmware.build, verifier.check;"
        "print(*sorted({'tuf','sqlite_utils','requests','cv2','numpy','PIL','luma','click'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip() == ""


def device_commands() -> list[str]:
    """The words of each command that a unit starts on the appliance, or that the page about it has people say there."""
    units = [path.read_text() for path in (ROOT / "systemd").glob("*.service")]
    started = [re.findall(r"^Exec\w+=-?\S+/bin/markcheck (.+)$", text, re.MULTILINE) for text in units]
    said = re.findall(r"sudo markcheck ([a-z-]+(?: [a-z-]+)*)", (ROOT / "docs/operations.md").read_text())
    return sorted({*(words for found in started for words in found), *said, "sync"})  # by libexec/sync-by-settings


def test_no_command_of_the_appliance_loads_anything_of_the_authority():
    commands = sorted({*device_commands(), *COMMANDS} - {"sandbox", "bench"})
    assert {"audit upload", "audit purge", "sync", "shift unlock", "doctor", "console"} <= {*commands}
    code = """if True:
        import sys
        import click
        from scripts.cli.main import cli
        for text in sys.argv[1:]:
            command, words = cli, text.split()
            while isinstance(command, click.Group) and words:
                command = command.get_command(click.Context(command), words.pop(0))
                assert command is not None, text
            foreign = ("scripts.sandbox", "scripts.demonstration", "scripts.bench")
            print(*(f"{text}: {name}" for name in sys.modules if name.startswith(foreign)), sep="\\n")
    """
    run = subprocess.run([sys.executable, "-c", code, *commands], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (run.returncode, run.stdout.split()) == (0, []), run.stderr


def test_of_the_commands_only_the_authoritys_import_the_sandbox():
    importing = re.compile(r"^\s*(?:from|import) scripts\.sandbox\b", re.MULTILINE)
    found = {path.stem for path in (ROOT / "scripts/cli").glob("*.py") if importing.search(path.read_text())}
    assert {name for name in found if not name.startswith("sandbox")} == {"audit_authority"}


# The edge of the commands, and that of the thread that outlives whatever lies in its queue.
OUTERMOST = (ROOT / "scripts" / "cli" / "main.py", ROOT / "verifier" / "recheck.py")


@pytest.mark.parametrize(
    "path", [p for p in MODULES if p not in OUTERMOST], ids=lambda p: p.relative_to(ROOT).as_posix()
)
def test_no_handler_catches_everything(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            names = ast.unparse(node.type) if node.type else ""
            cleans_up = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
            assert cleans_up or names not in ("", "Exception", "BaseException"), f"line {node.lineno}"


def test_no_index_address_or_machine_path_is_committed():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("no git here to tell what is committed")
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, check=True, cwd=ROOT).stdout.decode()
    hosts = re.compile(r"(?:files\.)?pythonhosted\.org|pypi\.org|--(?:extra-)?index-url|/root/|/home/\w+/")
    scratch = re.compile(r"(?<![\w.-])(?:/tmp)?/w(?:ork)?/")  # where this was made
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if path.suffix in (".png", ".jpg") or not path.is_file() or path == Path(__file__).resolve():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        assert not hosts.search(text), name
        assert not scratch.search(text), name
