"""Promises 15 and 16: units, sources and the core of the verification, held against gates."""

from __future__ import annotations

import ast
import json
import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT
from tests.mutate import copy_tree, is_noticed, mutants
from tests.torture.clocks import tested
from tests.torture.run import Run

PRODUCT = ("verifier", "hw", "firmware", "scripts")


def sources(run: Run) -> None:
    """Promise 15."""
    if shutil.which("systemd-analyze") is None:
        run.note("systemd-analyze is not here: the units were not held against it")
    words = ["tests/test_systemd.py", "-k", "exposure or service_manager_finds or runs_as_root"]
    run.counts["checks of units"] = tested(words)
    run.counts["files searched for secrets"] = _secrets()
    _bandit(run)


SECRETS = {
    "a private key": re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----\s+[A-Za-z0-9+/=\s]{40,}"),
    "a cloud key": re.compile(rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a token": re.compile(rb"\b(?:gh[pousr]_[A-Za-z0-9]{36}|glpat-[\w-]{20}|xox[abprs]-[\w-]{10,}|sk-\w{32,})"),
    "a word to log in with": re.compile(
        rb"(?i)\b(?:password|passwd|secret_key|api_?key|auth_?token)\s*[:=]\s*[\"'][^\"'\s{}$<>]{8,}[\"']"
    ),
    "an address with a password": re.compile(rb"\b[a-z][a-z0-9+]+://[^/\s:@\"'{}<>]+:[^/\s:@\"'{}<>]{4,}@"),
}


def secrets_in(data: bytes) -> list[str]:
    """What in a file looks as if it should be in nobody's hands."""
    return [what for what, pattern in SECRETS.items() if pattern.search(data)]


def committed() -> Iterator[Path]:
    """The files of the tree that git has or would take; all but the usual rubbish without git."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if listed.returncode == 0:
        names = [ROOT / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]
    else:
        names = [path for path in ROOT.rglob("*") if not {".venv", "__pycache__"} & set(path.parts)]
    yield from (path for path in names if path.is_file() and not path.is_symlink())


def _secrets() -> int:
    """How many files were searched."""
    count = 0
    for path in committed():
        found = secrets_in(path.read_bytes())
        assert not found, f"{path.relative_to(ROOT)}: {', '.join(found)}"
        count += 1
    return count


def tool(name: str) -> list[str] | None:
    """How to run a tool of the environment beside the product's; None where it is not."""
    python = Path(os.environ.get("MARKCHECK_TORTURE_TOOLS", "")) / "bin" / "python"
    if not python.is_file():
        return None
    there = subprocess.run([python, "-c", f"import {name}"], capture_output=True, check=False)
    return None if there.returncode else [str(python), "-m", name]


def _bandit(run: Run) -> None:
    """No finding of high severity in the product."""
    command = tool("bandit")
    if command is None:
        run.note("bandit is not installed here")
        return
    words = [*command, "-r", *PRODUCT, "-q", "-f", "json", "--severity-level", "high"]
    found = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    report = json.loads(found.stdout)
    issues = [f"{issue['filename']}:{issue['line_number']} {issue['test_id']}" for issue in report["results"]]
    assert not issues, "; ".join(issues)
    assert not report["errors"], report["errors"]
    run.counts["lines read by bandit"] = report["metrics"]["_totals"]["loc"]


# ------------------------------------------------------------------------------------------ the core's tests

DECIDED = ("tests/test_decide.py", "tests/test_tags.py", "tests/test_decide_properties.py")
CODES = (
    "tests/test_credential.py", "tests/test_credential_forms.py", "tests/test_conformance.py",
    "tests/test_credential_mutations.py",
)  # fmt: skip
CORE: dict[str, tuple[str, ...]] = {
    "verifier/decide.py": DECIDED, "verifier/facts.py": DECIDED, "verifier/codec/credential.py": CODES,
    "verifier/codec/cose.py": CODES, "verifier/codec/cbor.py": CODES, "verifier/codec/base45.py": CODES,
    "verifier/signature.py": ("tests/test_conformance.py", "tests/test_credential.py", "tests/test_sm2.py"),
}  # fmt: skip
LEAST_KILLED, ENOUGH = 0.95, 60  # of a smaller sample the share says little


def core_is_tested(run: Run) -> None:
    """Promise 16."""
    _coverage(run)
    everything = [(module, what, text) for module in CORE for what, text in _mutants(module)]
    random.Random(run.seed).shuffle(everything)
    place, survivors = copy_tree(run.folder / "tree"), list[str]()
    module = next(iter(CORE))
    unchanged = (ROOT / module).read_text(encoding="utf-8")
    assert not is_noticed(place, Path(module), unchanged, _core_tests()), "the tests fail though nothing was changed"
    for number, _ in enumerate(run.rounds("mutants")):
        if number == len(everything):
            break
        module, what, text = everything[number]
        original = (ROOT / module).read_text(encoding="utf-8")
        if not is_noticed(place, Path(module), text, CORE[module]):
            survivors.append(f"{module}: {what}")
        (place / module).write_text(original, encoding="utf-8")
        run.counts["mutants"] += 1
    tried = run.counts["mutants"]
    killed = 1 - len(survivors) / tried
    run.note(f"{killed:.1%} of {tried} mutants killed, of {len(everything):,} that there are")
    for text in survivors[:20]:
        run.note(f"survived: {text}")
    assert killed >= LEAST_KILLED or tried < ENOUGH, f"only {killed:.1%} killed"


def _mutants(module: str) -> Iterator[tuple[str, str]]:
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    same = ast.unparse(tree)
    for what, mutant in mutants(tree):
        if (text := ast.unparse(mutant)) != same:
            yield what, text


def _coverage(run: Run) -> None:
    """Which branches of the core its tests do not take, as a note."""
    command = tool("coverage")
    if command is None:
        run.note("coverage is not installed here: branches were not counted")
        return
    data = {**os.environ, "COVERAGE_FILE": str(run.folder / "coverage"), "MARKCHECK_VECTORS": str(_vectors())}
    options = ["--branch", f"--include={','.join(CORE)}"]
    words = [*command, "run", *options, "-m", "pytest", "-q", "-p", "no:cacheprovider", *_core_tests()]
    ran = subprocess.run(words, cwd=ROOT, env=data, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-1000:]
    report = run.folder / "coverage.json"
    subprocess.run([*command, "json", "-q", "-o", str(report)], cwd=ROOT, env=data, capture_output=True, check=True)
    for name, file in json.loads(report.read_text())["files"].items():
        summary = file["summary"]
        run.counts["branches taken"] += summary["covered_branches"]
        if summary["missing_branches"]:
            lines = ", ".join(f"{a}->{b}" for a, b in file["missing_branches"][:10])
            run.note(f"{name}: {summary['missing_branches']} branches not taken: {lines}")
    run.counts["modules measured"] += len(CORE)


def _core_tests() -> list[str]:
    return sorted({name for tests in CORE.values() for name in tests})


def _vectors() -> Path:
    return Path(os.environ.get("MARKCHECK_VECTORS", ROOT.parent / "shared" / "vectors"))
