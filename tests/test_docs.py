"""The documents say what the code does."""

from __future__ import annotations

import re

import click
import pytest

from scripts.cli.main import cli
from scripts.make_docs import PAGE, with_tables
from tests.conftest import ROOT

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def test_the_tables_of_the_decision_page_are_those_of_the_code():
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_tables(page), "run: python -m scripts.make_docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_pictures_exist(page):
    for target in re.findall(r'\]\(([^)#]+)\)|src="([^"]+)"', page.read_text(encoding="utf-8")):
        assert (page.parent / (target[0] or target[1])).exists(), target


def test_every_document_that_the_code_names_exists():
    for path in (p for package in ("verifier", "hw", "firmware", "scripts") for p in (ROOT / package).rglob("*.py")):
        for name in re.findall(r"docs/[\w/-]+\.md", path.read_text(encoding="utf-8")):
            assert (ROOT / name).exists(), f"{path.name}: {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_command_in_the_documents_parses(page):
    for line in re.findall(r"^ *markcheck (.+?)(?:   .*)?$", page.read_text(encoding="utf-8"), re.MULTILINE):
        command, words = cli, line.split()
        while isinstance(command, click.Group) and words:
            command = command.commands[words.pop(0)]
        options = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, line
