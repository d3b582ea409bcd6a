"""docs/features.md: every promise stands there once, and what is to show it exists and runs."""

from __future__ import annotations

import ast
import re
from functools import cache
from typing import NamedTuple

import pytest

from tests.conftest import ROOT, load_data
from tests.test_docs import parsed

PAGE = ROOT / "docs" / "features.md"
GROUPS = {"A": 14, "B": 9, "C": 17, "D": 12, "E": 8, "F": 14, "G": 9, "H": 10, "I": 8, "J": 6, "K": 8}
STATES = ("done", "partly", "not yet")
NAMED = re.compile(r"`tests/(test_\w+\.py)::(test_\w+)(?:\[([^\]`]+)\])?`( \(long run\))?")
CASES = {case["id"] for case in load_data("decision_cases.json")["cases"]}
COMMAND = re.compile(r"`markcheck ([^`]+)`")


class Row(NamedTuple):
    number: str
    state: str
    text: str
    proofs: str


class Proof(NamedTuple):
    """A test that a row names; `case` is a decision case, `long` whether the row says that it is a long one."""

    file: str
    name: str
    case: str
    long: bool


def rows() -> list[Row]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return [Row(*line[2:-2].split(" | ")) for line in lines if re.match(r"\| [A-K]\d", line)]


def proofs(row: Row) -> list[Proof]:
    return [Proof(file, name, case, bool(long)) for file, name, case, long in NAMED.findall(row.proofs)]


@cache
def tree(file: str) -> ast.Module:
    return ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))


def node_of(proof: Proof) -> ast.FunctionDef:
    found = [node for node in tree(proof.file).body if isinstance(node, ast.FunctionDef) and node.name == proof.name]
    assert len(found) == 1, f"{proof.file}::{proof.name}"
    return found[0]


def marks(proof: Proof) -> set[str]:
    """The marks of a test itself, those of single parameters left out."""
    names = [ast.unparse(one.func if isinstance(one, ast.Call) else one) for one in node_of(proof).decorator_list]
    return {name.removeprefix("pytest.mark.") for name in names}


def whole_file_may_be_skipped(file: str) -> bool:
    """Whether something that a machine may lack takes all tests of the file along."""
    top = [ast.unparse(node) for node in tree(file).body if not isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return any("importorskip" in text or "allow_module_level" in text or "pytestmark" in text for text in top)


def test_every_promise_stands_there_once_and_in_its_order():
    promised = [f"{group}{number}" for group, last in GROUPS.items() for number in range(1, last + 1)]
    assert len(promised) == 115
    assert [row.number for row in rows()] == promised


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.number)
def test_what_a_row_names_exists_and_can_be_run(row: Row):
    assert row.state in STATES
    assert (row.state == "partly") == ("Missing: " in row.text), "who says partly says what is missing"
    named = proofs(row)
    assert NAMED.sub("", COMMAND.sub("", row.proofs)).strip(" ·") == "", "nothing but tests and commands"
    for proof in named:
        assert proof.long == ("long" in marks(proof)), proof
        if proof.case:
            assert (proof.name, proof.case in CASES) == ("test_decision_case", True), proof
    for line in COMMAND.findall(row.proofs):
        parsed(line)


@pytest.mark.parametrize("row", [row for row in rows() if row.state == "done"], ids=lambda row: row.number)
def test_a_row_that_is_done_names_a_test_that_runs_on_every_machine(row: Row):
    always = [proof for proof in proofs(row) if not marks(proof) & {"long", "skip", "skipif", "xfail"}]
    assert [proof for proof in always if not whole_file_may_be_skipped(proof.file)], row.number


def test_the_sums_at_the_top_of_the_page_are_those_of_its_rows():
    text = PAGE.read_text(encoding="utf-8")
    states = [row.state for row in rows()]
    names = ", ".join(row.number for row in rows() if row.state == "partly")
    partly = f"{states.count('partly')} partly done" + f" ({names})" * bool(names)
    assert f"Today {states.count('done')} are done, {partly} and {states.count('not yet')} not yet." in text
