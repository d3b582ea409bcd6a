"""`markcheck decide` and `markcheck replay`: the decision on evidence from a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from firmware.views import terminal_card, verdict_view
from scripts.cli.console import FILE, json_option, print_json, problem
from verifier.audit import checks_of, read_log, verdict_to_json
from verifier.audit import replay as replay_check
from verifier.decide import decide as decide_evidence
from verifier.errors import EvidenceError
from verifier.evidence import evidence_from_json
from verifier.policy import Policy, load_policy
from verifier.wording import Language


@click.command()
@click.argument("file", type=FILE)
@click.option("--policy", "policy_file", type=FILE, help="Policy to decide by.  [default: the built-in one]")
@click.option("--lang", type=click.Choice(["zh", "en"]), default="zh", show_default=True, help="Language.")
@json_option
def decide(file: Path, policy_file: Path | None, lang: Language, as_json: bool) -> int:
    """Decide on evidence in a JSON file.

    \b
    Examples:
      markcheck decide case.json
      markcheck decide case.json --json

    The file holds the evidence of one check: as one entry's `evidence` in tests/data/decision_cases.json, and as that
    of a record of the audit log.
    """
    try:
        evidence, now = evidence_from_json(json.loads(file.read_bytes()))
    except (ValueError, RecursionError) as exc:
        raise EvidenceError(f"{file.name}: not JSON") from exc
    policy = load_policy(policy_file.read_bytes()) if policy_file else Policy()
    verdict = decide_evidence(evidence, policy, now)
    if as_json:
        print_json(verdict_to_json(verdict))
    else:
        click.echo(terminal_card(verdict_view(verdict, now=now, language=lang), colour=False))
    return 0


@click.command()
@click.argument("file", type=FILE)
@click.option("--policy", "policy_files", type=FILE, multiple=True, help="Policy that a record names; repeatable.")
@json_option
def replay(file: Path, policy_files: tuple[Path, ...], as_json: bool) -> int:
    """Decide again on every check in an audit log, or in one record taken out of it, and compare.

    \b
    Examples:
      markcheck replay ~/.local/share/markcheck/audit.jsonl
      markcheck replay record.json --json

    Exit status: 0 when every line is a record, each follows the one before, and every verdict is reached again; else 1.
    """
    policies = {policy.label: policy for policy in (load_policy(path.read_bytes()) for path in policy_files)}
    return replay_all(_records(file), file.name, policies, as_json=as_json)


def replay_all(entries: Iterable[dict[str, Any]], name: str, policies: Mapping[str, Policy], *, as_json: bool) -> int:
    """Decide again on all checks in these records, and say what differs: the exit status of `replay`."""
    done = different = unreadable = 0
    for entry in entries:
        if "unreadable" in entry:
            unreadable += 1
            problem(f"{name}: line {entry['unreadable']} is no record")
            continue
        for check in checks_of(entry):
            verdict, same = replay_check(check, policies)
            done += 1
            different += not same
            if as_json:
                print_json({"id": check.get("id"), "same": same, **verdict_to_json(verdict)})
            elif not same:
                problem(f"check {done}: decided again as {verdict.code.value} {verdict.grade.value}")
    if done == 0:
        problem(f"{name}: no audit record in it")
        return 1
    if not as_json:
        click.echo(f"{done} checks, {done - different} with the same verdict")
    return 1 if different or unreadable else 0


def _records(file: Path) -> Iterable[dict[str, Any]]:
    """One record by itself, or a log whose chain is checked on the way."""
    try:
        record = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return read_log(file)
    problem("note: one record by itself; whether others are missing cannot be told")
    return [record] if isinstance(record, dict) else []
