"""Mutation testing: changes the product's code one small piece at a time and counts the changes no test notices.

    python -m tests.mutate verifier/decide.py tests/test_decide.py tests/test_decide_properties.py

Works on a copy of the tree in a temporary folder. It changes tables at module level too, which is where the order of
precedence and the actions stand; that is why no ready-made mutator is used here.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("firmware", "hw", "scripts", "tests", "verifier")

_SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip


def mutants(tree: ast.Module) -> Iterator[tuple[str, ast.Module]]:
    """Each mutant with a line that says what was changed where."""
    types = {id(n) for hint in _annotations(tree) for n in ast.walk(hint)}
    for number, node in enumerate(ast.walk(tree)):
        for what, change in _changes(node) if id(node) not in types else ():
            mutant = copy.deepcopy(tree)
            target = next(n for i, n in enumerate(ast.walk(mutant)) if i == number)
            change(target)
            line = getattr(node, "lineno", 0)
            yield f"line {line}: {what}", ast.fix_missing_locations(mutant)


def _annotations(tree: ast.Module) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        for field in ("annotation", "returns"):
            if isinstance(hint := getattr(node, field, None), ast.expr):
                yield hint


Change = Callable[[Any], object]


def _changes(node: Any) -> Iterator[tuple[str, Change]]:
    """What can be changed in this node: a text, and a function that changes a copy of it."""
    text = ast.unparse(node) if isinstance(node, ast.expr) else ""
    match node:
        case ast.Compare() if type(node.ops[0]) in _SWAPPED:
            new = _SWAPPED[type(node.ops[0])]
            yield f"{text}  ->  {new.__name__}", lambda n: n.ops.__setitem__(0, new())
        case ast.BoolOp() | ast.BinOp() if type(node.op) in _SWAPPED:
            new = _SWAPPED[type(node.op)]
            yield f"{text}  ->  {new.__name__}", lambda n: setattr(n, "op", new())
            yield from _without(node, "values", text)
        case ast.UnaryOp(op=ast.Not()):
            yield f"not {text}", lambda n: setattr(n, "operand", ast.UnaryOp(ast.Not(), n.operand))
        case ast.Constant(value=bool()):
            yield f"{node.value}  ->  {not node.value}", lambda n: setattr(n, "value", not n.value)
        case ast.If() | ast.IfExp():
            yield f"if not ({ast.unparse(node.test)})", lambda n: setattr(n, "test", ast.UnaryOp(ast.Not(), n.test))
        case ast.Set() | ast.Tuple(ctx=ast.Load()) | ast.List(ctx=ast.Load()):
            yield from _without(node, "elts", "elements")
        case ast.Dict():
            for i, key in enumerate(node.keys):
                yield f"without row {ast.unparse(key)}", lambda n, i=i: (n.keys.pop(i), n.values.pop(i))
    for field in ("body", "orelse"):
        block = getattr(node, field, None)
        for i, statement in enumerate(block if isinstance(block, list) else []):
            if _can_go(statement):
                yield (
                    f"without {ast.unparse(statement)}",
                    lambda n, f=field, i=i: getattr(n, f).__setitem__(i, ast.Pass()),
                )


def _without(node: Any, field: str, of: str) -> Iterator[tuple[str, Change]]:
    for i, part in enumerate(getattr(node, field, [])):
        yield f"without {ast.unparse(part)} of {of}", lambda n, i=i: getattr(n, field).pop(i)


def _can_go(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.AugAssign):
        return True
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)


def main() -> int:
    """Run all mutants of one file; 0 when every one of them was noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutate", description=__doc__.split("\n", 1)[0])
    parser.add_argument("module", type=Path, help="the file to change")
    parser.add_argument("tests", nargs="+", help="the tests that should notice")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at a time")
    options = parser.parse_args()
    source = options.module.read_text(encoding="utf-8")
    tree = ast.parse(source)
    everything = [
        (what, ast.unparse(mutant)) for what, mutant in mutants(tree) if ast.unparse(mutant) != ast.unparse(tree)
    ]
    survivors = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        copies = [copy_tree(Path(folder) / str(i)) for i in range(options.jobs)]

        def noticed(numbered: tuple[int, tuple[str, str]]) -> tuple[str, bool]:
            _, (what, text) = numbered
            place = copies.pop()
            seen = is_noticed(place, options.module, text, options.tests)
            copies.append(place)
            return what, seen

        for done, (what, seen) in enumerate(pool.map(noticed, enumerate(everything)), 1):
            if not seen:
                survivors.append(what)
                print(f"survived: {what}", flush=True)
            if sys.stderr.isatty():
                print(f"\r{done}/{len(everything)}", end="", file=sys.stderr, flush=True)
    print(f"{len(everything)} mutants, {len(survivors)} survived")
    return 1 if survivors else 0


def is_noticed(place: Path, module: Path, text: str, tests: Sequence[str]) -> bool:
    """Whether a test fails in this copy of the tree when the module has this text."""
    (place / module).write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header", *tests]
    vectors = os.environ.get("MARKCHECK_VECTORS", str(ROOT.parent / "shared" / "vectors"))
    environment = {**os.environ, "PYTHONPATH": ".", "MARKCHECK_VECTORS": vectors}
    return subprocess.run(command, cwd=place, capture_output=True, check=False, env=environment).returncode != 0


def copy_tree(place: Path) -> Path:
    """What the tests need, in a folder of its own."""
    place.mkdir()
    for name in FOLDERS:
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", place)
    return place


if __name__ == "__main__":
    sys.exit(main())
