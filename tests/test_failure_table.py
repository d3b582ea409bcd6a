"""The failure table of docs/status-distribution.md names tests that exist."""

from __future__ import annotations

import ast
import re

from tests.conftest import ROOT

NAMED = re.compile(r"`(test_\w+\.py)::(test_\w+)`")


def rows() -> list[str]:
    text = (ROOT / "docs" / "status-distribution.md").read_text(encoding="utf-8")
    _, _, table = text.partition("| what befalls the device |")
    return [line for line in table.split("\n\n")[0].splitlines()[2:] if line]


def test_every_row_of_the_failure_table_names_tests_that_exist() -> None:
    assert len(rows()) >= 24
    for row in rows():
        named = NAMED.findall(row)
        assert named, row
        for file, name in named:
            tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
            assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{file}::{name}"
