"""`markcheck console`: the technician's console on this terminal, and what a technician needs to log in to it."""

from __future__ import annotations

import base64
import secrets
from pathlib import Path

import click

from firmware.config import Home
from firmware.console_login import NAME, Challenge, ConsoleKey, ConsoleKeyError, KeyKind, hmac_answer, read_nonce
from scripts.cli.console import EXIT_USAGE, FILE, home_option, problem
from verifier.secret_files import MAX_READ, write_secret

_PRIVATE = "ed25519-private"


@click.group(invoke_without_command=True)
@click.option("--config", type=FILE, help="Settings (TOML).")
@home_option
@click.pass_context
def console(context: click.Context, config: Path | None, home: Home) -> int:
    """The technician's console: on a serial line, or in this terminal.

    \b
    Examples:
      markcheck console --config docs/examples/demo.toml
      markcheck console key --name field-3 --out field-3.key      a technician's key, and its line for the device
      markcheck console answer --key field-3.key --device MC-0001 --challenge 0123456789ABCDEF

    Without a command it opens the console on this terminal; the commands are for keys. The device
    knows its technicians by the lines in the file console-keys in its home.
    """
    if context.invoked_subcommand is not None:
        return 0
    if config is None:
        problem("--config is missing")
        return EXIT_USAGE
    from firmware.console import run_console  # noqa: PLC0415 - the two others do without

    given = context.get_parameter_source("home") is click.core.ParameterSource.COMMANDLINE
    return run_console(config, home.folder if given else None)


@console.command()
@click.option("--name", required=True, help="The technician, as records name them: a-z, 0-9 and -.")
@click.option(
    "--kind", type=click.Choice([kind.value for kind in KeyKind]), default=KeyKind.ED25519.value, show_default=True,
    help="ed25519: pasted answers, nothing secret on the device. hmac-sha256: 16 letters to type, a key a device.",
)  # fmt: skip
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The technician's half.")
def key(name: str, kind: str, out: Path) -> int:
    """Make a technician's key; prints the line for the device's file console-keys.

    \b
    Examples:
      markcheck console key --name field-3 --out field-3.key >> console-keys
    """
    if NAME.fullmatch(name) is None:
        raise click.UsageError("--name: 1 to 20 of a-z, 0-9 and -: no device reads another")
    if out.exists():
        problem(f"{out.name} is there already")
        return 1
    secret = secrets.token_bytes(32)
    made = ConsoleKey(name, KeyKind(kind), secret if kind == KeyKind.HMAC.value else _public(secret))
    word = kind if kind == KeyKind.HMAC.value else _PRIVATE
    write_secret(out, f"{word} {name} {base64.b64encode(secret).decode('ascii')}\n".encode())
    click.echo(made.line())
    return 0


@console.command()
@click.option("--key", "file", type=FILE, required=True, help="The technician's half, as 'console key' wrote it.")
@click.option("--device", required=True, help="As the console names it.")
@click.option("--challenge", required=True, help="The 16 letters that the console shows.")
def answer(file: Path, device: str, challenge: str) -> int:
    """The answer to a console's challenge.

    \b
    Examples:
      markcheck console answer --key field-3.key --device MC-0001 --challenge 0123456789ABCDEF
    """
    try:
        asked = Challenge(device, read_nonce(challenge))
    except ValueError as exc:
        raise click.UsageError(f"--challenge: {exc}") from exc
    try:
        with file.open("rb") as opened:
            kind, _, text = opened.read(MAX_READ).decode("ascii").split()
        secret = base64.b64decode(text, validate=True)
    except ValueError as exc:
        raise ConsoleKeyError("console key: not a kind, a name and a key") from exc
    if kind not in (KeyKind.HMAC.value, _PRIVATE) or len(secret) != 32:
        raise ConsoleKeyError("console key: of no kind that answers")
    click.echo(hmac_answer(secret, asked) if kind == KeyKind.HMAC.value else _signature(secret, asked))
    return 0


def _public(secret: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    return Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def _signature(secret: bytes, asked: Challenge) -> str:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    signed = Ed25519PrivateKey.from_private_bytes(secret).sign(asked.message())
    return base64.b64encode(signed).decode("ascii")
