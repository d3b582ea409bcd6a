"""Writes the tables of docs/decision.md and the example of docs/credential-format.md from the code.

python -m scripts.make_docs
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from scripts.credential_example import PARTS
from verifier import decide, facts
from verifier.adapters import READINGS, SIGNATURES
from verifier.policy import Policy
from verifier.types import CodeFault, StatusLetter
from verifier.verdict import Action, Reason, VerdictCode
from verifier.wording import ACTIONS, REASONS, STATUS_LETTERS, VERDICTS

_DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = (_DOCS / "decision.md", _DOCS / "credential-format.md")
_SECTION = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    heads = list(head)
    lines = [heads, ["---"] * len(heads), *([str(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _verdicts() -> str:
    rows = []
    for number, (code, _) in enumerate(decide.PRECEDENCE, 1):
        words = VERDICTS[code]
        clock = code is VerdictCode.UNDECIDED and number < len(decide.PRECEDENCE)
        actions = ", ".join(decide.ACTIONS[code]) or "–"
        rows.append((number, f"{code} (clock)" if clock else code, words.text.zh, words.text.en, words.tone, actions))
    return _table(("#", "code", "zh", "en", "tone", "actions"), rows)


def _policy() -> str:
    policy = Policy()
    names = ("fresh", "stale", "watch_stale", "trust_stale", "propagation", "live_code_max_age", "clock_skew")
    return _table(("setting", "default"), ((name, getattr(policy, name)) for name in names))


def _reasons() -> str:
    def effect(reason: Reason) -> str:
        if reason in decide.CAUTION_REASONS:
            return "caution"
        return "note" if reason in decide.NOTE_REASONS else ""

    return _table(
        ("code", "zh", "en", "tone", "brings"),
        ((r, REASONS[r].zh, REASONS[r].en, effect(r), decide.REASON_ACTIONS.get(r, "")) for r in Reason),
    )


def _actions() -> str:
    return _table(("code", "zh", "en"), ((a, ACTIONS[a].zh, ACTIONS[a].en) for a in Action))


def _letters() -> str:
    effects = {
        "watch": facts.WATCH_LETTERS,
        "deregistered": facts.DEREGISTERED_LETTERS,
        "restricted": facts.RESTRICTED_LETTERS,
        "note": facts.NOTE_LETTERS,
        "overdue": {StatusLetter.OVERDUE},
    }

    def effect(letter: StatusLetter) -> str:
        return next((name for name, letters in effects.items() if letter in letters), "none")

    return _table(
        ("letter", "zh", "en", "effect"),
        ((s.value, STATUS_LETTERS[s].zh, STATUS_LETTERS[s].en, effect(s)) for s in StatusLetter),
    )


def _faults() -> str:
    rows: list[tuple[str, str, str]] = []
    for fault in CodeFault:
        if fault in READINGS:
            rows.append((fault, READINGS[fault], "–"))
        else:
            rows.append((fault, "ok", SIGNATURES.get(fault, "valid, the fault kept as a finding")))
    return _table(("fault", "code", "signature"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "verdicts": _verdicts,
    "policy": _policy,
    "reasons": _reasons,
    "actions": _actions,
    "letters": _letters,
    "faults": _faults,
    **PARTS,
}


def with_tables(page: str) -> str:
    """The page with every table made anew."""
    return _SECTION.sub(lambda m: m[1] + TABLES[m[2]]() + m[3], page)


def main() -> None:
    """Write the pages."""
    for page in PAGES:
        page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
