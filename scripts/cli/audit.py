"""`markcheck audit`: the log of all checks, on the device and where it is opened.

A sub-command's module is loaded when it is asked for: no device loads what is the authority's.
"""

from __future__ import annotations

import click

from scripts.cli.console import LateGroup

COMMANDS = {
    "verify": (
        "scripts.cli.audit_log:verify_command",
        "Whether no line was changed, moved, removed or put in; with a key also whether each is as it was sealed.",
    ),
    "show": (
        "scripts.cli.audit_log:show_command",
        "The newest records. Of a sealed log the device itself can show days and verdicts alone.",
    ),
    "replay": (
        "scripts.cli.audit_log:replay_command",
        "Decide again on every check in a log, sealed or plain, and compare.",
    ),
    "export": (
        "scripts.cli.audit_log:export_command",
        "One check for a case file: its records as JSON, and a slip in Chinese to print from any browser.",
    ),
    "upload": (
        "scripts.cli.audit_send:upload_command",
        "Send the centre what it does not have of the log, with a sign of life that tells how far the log goes.",
    ),
    "purge": (
        "scripts.cli.audit_send:purge_command",
        "Remove what is older than the days to keep, and only what the centre has acknowledged.",
    ),
    "key": (
        "scripts.cli.audit_authority:key_command",
        "The authority's key for sealed logs, made at the first time. A device is given the public half by hand.",
    ),
    "received": (
        "scripts.cli.audit_authority:received_command",
        "What the centre has of a device's log, as the file that the device has.",
    ),
    "open": (
        "scripts.cli.audit_authority:open_command",
        "A sealed log as a plain one, in a chain of its own: each record names the line that it was. "
        "Or a sealed picture.",
    ),
}


@click.group(cls=LateGroup, commands_at=COMMANDS)
def audit() -> None:
    """The log of all checks: verify, show, open, replay, export, upload, purge.

    \b
    Examples:
      markcheck audit verify
      markcheck audit show --last 5
      markcheck audit upload --centre https://centre.example/
      markcheck audit replay audit.jsonl --key sandbox/private/audit.key
    """
