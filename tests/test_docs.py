"""The documents say what the code does."""

from __future__ import annotations

import hashlib
import re

import click
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from scripts import credential_example
from scripts.cli.main import cli
from scripts.credential_example import AT, SEED, VIN, example
from scripts.make_docs import PAGES as MADE
from scripts.make_docs import with_tables
from tests.conftest import ROOT
from verifier.codec import cbor
from verifier.errors import CodeError
from verifier.trust import TrustList, load_trust_list
from verifier.types import CodeFault
from verifier.verify import verify_text
from verifier.vin import VinState, check_vin

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", MADE, ids=lambda p: p.name)
def test_what_is_made_from_the_code_stands_in_the_page(page):
    text = page.read_text(encoding="utf-8")
    assert text == with_tables(text), "run: python -m scripts.make_docs"


def hex_of(part: str) -> bytes:
    """The hex of all lines of a part, in order: words before the double space, and lines of hex alone."""
    lines = part.split("```")[1].splitlines()
    columns = [re.match(r" *([0-9a-f ]+?)(?:  |$)", line) for line in lines]
    return bytes.fromhex("".join(match[1] for match in columns if match))


def test_the_example_of_a_credential_verifies_at_its_stated_time():
    trust = load_trust_list(hex_of(credential_example.entry_lines()))
    verified = verify_text(re.search(r"^VM1:.*$", credential_example.text_lines(), re.MULTILINE)[0], trust, AT)
    assert verified.fault is None
    assert verified.credential == example().credential
    expires = example().credential.expires_at
    assert verify_text(example().text, trust, expires).fault is CodeFault.EXPIRED
    with pytest.raises(CodeError, match="UNKNOWN_KEY"):
        verify_text(example().text, TrustList(()), AT)
    assert "ACCEPTED: stored" in credential_example.inspect_lines()
    assert check_vin(VIN) is VinState.OK


def test_the_hex_of_the_examples_lines_is_its_encoding():
    made, part = example(), credential_example
    assert hex_of(part.header_lines()) == made.protected
    assert hex_of(part.claims_lines()) == made.payload
    assert hex_of(part.to_be_signed_lines()) == made.to_be_signed
    assert hex_of(part.sign1_lines()) == made.sign1
    assert hashlib.sha256(hex_of(part.key_id_lines())).digest()[:8] == made.entry.kid
    hashed = re.findall(r"^([0-9a-f]+) +(?:\"|cti)", part.fingerprint_lines(), re.MULTILINE)
    vin, tid = bytes.fromhex("".join(hashed[:3])), bytes.fromhex("".join(hashed[3:]))
    assert hashlib.sha256(vin).digest()[:8] == made.credential.vin_hash
    assert hashlib.sha256(tid).digest()[:8] == made.credential.tid_hash
    assert cbor.encode([int(made.entry.alg), made.entry.key]) == hex_of(part.key_id_lines())


def test_the_examples_key_is_the_published_one():
    """RFC 8032 clause 7.1, TEST 1: key pair, and its signature of the empty message."""
    private = Ed25519PrivateKey.from_private_bytes(SEED)
    assert private.sign(b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )
    assert f"`{SEED.hex()}`" in (ROOT / "docs" / "credential-format.md").read_text(encoding="utf-8")


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
    for line in re.findall(r"^ *(?:\$ )?markcheck (.+?)(?:   .*)?$", page.read_text(encoding="utf-8"), re.MULTILINE):
        command, words = cli, line.split()
        while isinstance(command, click.Group) and words and not words[0].startswith("--"):
            name = words.pop(0)
            command = command.get_command(click.Context(command), name)
            assert command is not None, line
        options = {name for parameter in command.params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, line
