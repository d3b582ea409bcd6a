"""`markcheck decide` and `markcheck replay`: the decision on evidence from a file."""

from __future__ import annotations

import json
from pathlib import Path

import click

from firmware.views import terminal_card, verdict_view
from scripts.cli.console import json_option, print_json, problem
from verifier.audit import read_log, verdict_to_json
from verifier.audit import replay as replay_entry
from verifier.decide import decide as decide_evidence
from verifier.errors import EvidenceError
from verifier.evidence import evidence_from_json
from verifier.policy import Policy, load_policy
from verifier.wording import Language

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("file", type=_FILE)
@click.option("--policy", "policy_file", type=_FILE, help="Policy to decide by.  [default: the built-in one]")
@click.option("--lang", type=click.Choice(["zh", "en"]), default="zh", show_default=True, help="Language.")
@json_option
def decide(file: Path, policy_file: Path | None, lang: Language, as_json: bool) -> int:
    """Decide on evidence in a JSON file.

    \b
    Examples:
      markcheck decide case.json
      markcheck decide case.json --json
    """
    try:
        evidence, now = evidence_from_json(json.loads(file.read_bytes()))
    except ValueError as exc:
        raise EvidenceError(f"{file.name}: not JSON") from exc
    policy = load_policy(policy_file.read_bytes()) if policy_file else Policy()
    verdict = decide_evidence(evidence, policy, now)
    if as_json:
        print_json(verdict_to_json(verdict))
    else:
        click.echo(terminal_card(verdict_view(verdict, now=now, language=lang), colour=False))
    return 0


@click.command()
@click.argument("log", type=_FILE)
@json_option
def replay(log: Path, as_json: bool) -> int:
    """Decide again on every record of an audit log, and compare.

    \b
    Examples:
      markcheck replay ~/.local/share/markcheck/audit.jsonl

    Exit status: 0 when the log is whole and every verdict is reached again, 1 when not.
    """
    checks = different = 0
    for entry in read_log(log):
        verdict, same = replay_entry(entry)
        checks += 1
        different += not same
        if as_json:
            print_json({"id": entry.get("id"), "same": same, **verdict_to_json(verdict)})
        elif not same:
            problem(f"check {checks}: decided again as {verdict.code.value} {verdict.grade.value}")
    if not as_json:
        click.echo(f"{checks} checks, {checks - different} with the same verdict")
    return 1 if different else 0
