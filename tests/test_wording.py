from __future__ import annotations

import ast
import re

import pytest

from tests.conftest import ROOT, load_data
from verifier.types import StatusLetter
from verifier.verdict import Action, Reason, VerdictCode
from verifier.wording import ACTIONS, REASONS, STATUS_LETTERS, VERDICTS

CASES = load_data("decision_cases.json")
TABLES = load_data("domain_tables.json")


def all_texts():
    for code, words in VERDICTS.items():
        yield code, words.headline, 3, 8
        yield code, words.text, 8, 16
    for table in (REASONS, ACTIONS):
        for code, text in table.items():
            yield code, text, 8, 16


def test_every_code_has_its_words():
    assert set(VERDICTS) == set(VerdictCode)
    assert set(REASONS) == set(Reason)
    assert set(ACTIONS) == set(Action)
    assert set(STATUS_LETTERS) == set(StatusLetter)


def test_the_readme_says_how_many_verdicts_there_are():
    told = re.findall(r"\b(\d+) verdicts\b", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert told == [str(len(VerdictCode))], "README.md, under Decision"


def test_words_and_tones_are_those_of_the_decision_tables():
    for code, words in CASES["verdicts"].items():
        ours = VERDICTS[VerdictCode(code)]
        assert (ours.text.zh, ours.text.en, ours.tone) == (words["zh"], words["en"], words["tone"])
    for code, words in CASES["reasons"].items():
        assert REASONS[Reason(code)] == (words["zh"], words["en"])
    for code, words in CASES["actions"].items():
        assert ACTIONS[Action(code)] == (words["zh"], words["en"])


@pytest.mark.parametrize(("code", "text", "zh", "en"), list(all_texts()))
def test_at_most_8_chinese_or_16_latin_characters(code, text, zh, en):
    assert 1 <= len(text.zh) <= zh
    assert 1 <= len(text.en) <= en
    assert text.en.isascii()


def test_no_fine_point_or_article_number_anywhere():
    forbidden = re.compile(r"罚款|元|扣分|记分|[第]\S*条|法第|[¥￥]|\d|fine|points|article|yuan", re.IGNORECASE)
    for _, text, _, _ in all_texts():
        assert not forbidden.search(text.zh), text.zh
        assert not forbidden.search(text.en), text.en


def test_no_chinese_text_of_the_product_names_an_amount_points_or_an_article():
    forbidden = re.compile(r"罚款|\d\s*元|扣\S*分|记\S*分|第\S*条|法第|[¥￥]")
    for package in ("verifier", "hw", "firmware", "scripts"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    assert not forbidden.search(node.value), f"{path.name}:{node.lineno}"
