"""The documents say what the code does."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import click
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from PIL import Image

from firmware import console_commands, login_pages
from firmware.console_login import LoginFault
from scripts import credential_example, make_docs
from scripts.cli.main import cli, main
from scripts.credential_example import AT, SEED, VIN, example
from scripts.make_docs import PAGES as MADE
from scripts.make_docs import with_tables
from scripts.sandbox.authority import AuthorityFolder
from scripts.sandbox.status_api import HEARTBEAT_REQUEST
from tests import make_screens
from tests.conftest import ROOT
from verifier import officers
from verifier.clock import system_clock
from verifier.codec import cbor
from verifier.errors import CodeError
from verifier.trust import TrustList, load_trust_list
from verifier.types import CodeFault
from verifier.verify import verify_text
from verifier.vin import VinState, check_vin
from verifier.wording import VERDICTS

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
ENTRANCES = ("officers.md", "back-office.md", "developers.md")
FOLDERS = ("verifier", "hw", "firmware", "scripts", "tests", "systemd")
NAMED_FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.*"))


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


def test_the_picture_of_the_packages_is_that_of_the_code():
    assert make_docs.PICTURE.read_text(encoding="utf-8") == make_docs.picture(), "run: python -m scripts.make_docs"


@pytest.mark.parametrize("name", make_screens.STRIPS)
def test_the_officers_pictures_are_cut_out_of_the_stored_screens(name):
    made = make_screens.strip(make_screens.STRIPS[name]).convert("RGB")
    with Image.open(make_screens.strip_path(name)) as stored:
        assert stored.convert("RGB").tobytes() == made.tobytes(), "run: python -m tests.make_screens"
    assert f"images/{make_screens.strip_path(name).name}" in (ROOT / "docs" / "officers.md").read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------- links and names


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings: small letters, no punctuation, hyphens for spaces."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    heads = [head.lower() for head in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
    return {re.sub(r"[^\w\- ]", "", head).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_pictures_and_anchors_exist(page):
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(r'\]\(([^)#]*)(?:#([^)]+))?\)|src="([^"]+)"', text):
        target = page.parent / (match[1] or match[3] or page.name)
        assert target.exists(), match[0]
        assert match[2] is None or match[2] in anchors(target), match[0]


def test_every_page_is_reached_from_another():
    named = {
        (page.parent / target).resolve()
        for page in PAGES
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    }
    entrances = {ROOT / "README.md", *(ROOT / "docs" / name for name in ENTRANCES)}
    own = [page for page in PAGES if page.parent == ROOT / "docs"]
    assert [page.name for page in own if page not in named | entrances] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_module_that_a_page_names_exists_and_has_what_is_said_to_stand_in_it(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`([\w./-]+\.(?:py|timer|service))`", text):
        made_up = "NAME" in name
        assert made_up or any(path.as_posix().endswith(f"/{name}") for path in NAMED_FILES), name
    for what, name in re.findall(r"`(\w+)` of\s+`([\w./-]+\.py)`", text):
        assert re.search(rf"\b{what}\b", (ROOT / name).read_text(encoding="utf-8")), f"{what} of {name}"


def test_every_document_that_the_code_names_exists():
    for path in (p for package in ("verifier", "hw", "firmware", "scripts") for p in (ROOT / package).rglob("*.py")):
        for name in re.findall(r"docs/[\w/-]+\.md", path.read_text(encoding="utf-8")):
            assert (ROOT / name).exists(), f"{path.name}: {name}"


# --------------------------------------------------------------------------------------------------- the commands


BLOCK = re.compile(r"^ *```\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    """What stands behind `markcheck` in the page's blocks, where a command can stand."""
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    return behind_the_name(re.split(r" {2,}", line.strip())[0] for block in blocks for line in block.splitlines())


def mentions(page: Path) -> list[str]:
    """The same in its lines of text, where the value of an option may be left out."""
    spans = re.findall(r"`([^`]+)`", BLOCK.sub("", page.read_text(encoding="utf-8")))
    return behind_the_name(" ".join(span.split()) for span in spans if not re.search(r" 1\|", span))  # that is signed


def behind_the_name(lines: Iterable[str]) -> list[str]:
    parts = (part.strip() for line in lines for part in re.split(r" \| | && ", line))
    found = (re.fullmatch(r"(?:\$ )?(?:sudo )?(?:\.venv/bin/)?markcheck (?!…)(.+)", part) for part in parts)
    return [re.split(r" >>? ", match[1])[0] for match in found if match]


def parsed(line: str) -> None:
    """Click finds each command and option of a line, values for those that need one, and no word too many."""
    command, words = cli, shlex.split(line)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name = words.pop(0)
        command = command.get_command(click.Context(command), name)
        assert command is not None, line
    context = click.Context(command)
    values, left, _ = command.make_parser(context).parse_args(words)
    assert not left, line
    for parameter in command.params:
        for value in _given(values.get(parameter.name)):
            if isinstance(parameter.type, click.Choice) and "…" not in value:
                parameter.type.convert(value, parameter, context)


def _given(value: object) -> list[str]:
    several = value if isinstance(value, list | tuple) else [value]
    return [one for one in several if isinstance(one, str)]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_command_in_the_documents_parses(page):
    for line in commands(page):
        parsed(line)
    for line in mentions(page):
        with suppress(click.BadOptionUsage):  # an option without its value
            parsed(line)


@pytest.mark.parametrize(
    "line",
    ["chek code.png", "sync --form DIR", "sync --from", "check --lang fr", "cache info more", "sandbox event burn"],
)
def test_a_mistake_in_a_command_is_found(line):
    with pytest.raises((AssertionError, click.UsageError)):
        parsed(line)


# Lines of the pages that are really run, in this order, in a home and a sandbox of their own. What the pages cannot
# know stands in place of their examples: a car of this sandbox, its folder for the address, the home's own log.
RUN = (
    "sync --from http://127.0.0.1:8122 --root sandbox/root.json --epoch-key sandbox/private/epoch.key",
    "sync --from http://127.0.0.1:8122 --hot",
    "sync --from /media/card",
    "cache info",
    "trust list",
    "sandbox issue --json",
    "sandbox issue --out code.png",
    "check code.png",
    "check code.png --role insurer",
    "check --plate 京A12345 --kind 02",
    "accident code.png 京A12345",
    "sandbox event revoke --plate 京A12345",
    "sandbox event status --plate 京N5U677 --letters C",
    "audit key",
    "audit verify",
    "replay ~/.local/share/markcheck/audit.jsonl",
    "sandbox device list",
    "sandbox device enrol handheld-7",
    "sandbox reports",
    "sandbox reports --json",
    "officers list",
    "reader decode --protocol m100 bb02220011c83400e20010710000529b0940b402163dd37e",
    "console key --name field-3 --out field-3.key",
    "console answer --key field-3.key --device MC-0001 --challenge 0123456789ABCDEF",
)


@pytest.fixture
def ready(tmp_path, monkeypatch) -> dict[str, str]:
    """A folder with a sandbox in it; what stands in place of the pages' examples."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MARKCHECK_HOME", str(tmp_path / "home"))
    AuthorityFolder(tmp_path / "sandbox").create(clock=system_clock, scale=200, seed=5).publish()
    cars = AuthorityFolder(tmp_path / "sandbox").open(clock=system_clock).registry.vehicles.values()
    plate = next(car.plate.text for car in cars if car.plate.kind == "02")
    public = str(tmp_path / "sandbox" / "public")
    return {
        "http://127.0.0.1:8122": public, "/media/card": public, "京A12345": plate, "京N5U677": plate,
        "~/.local/share/markcheck": str(tmp_path / "home"),
    }  # fmt: skip


def test_the_commands_of_the_documents_that_can_be_run_here_do_what_they_say(ready, capsys):
    said = {line for page in PAGES for line in commands(page)}
    for line in RUN:
        assert line in said, "no page says this any more"
        for theirs, ours in ready.items():
            line = line.replace(theirs, ours)
        assert main(shlex.split(line)) == 0, (line, capsys.readouterr().err)


# ------------------------------------------------------------------------------------------------------ whole pages


def test_the_page_of_the_console_has_its_commands_and_all_that_it_says():
    text = (ROOT / "docs" / "console.md").read_text(encoding="utf-8")
    table = text.partition("## Commands")[2].partition("\n\nA")[0]
    rows = [row.split("|")[1] for row in re.findall(r"^\| `.*$", table, re.MULTILINE)]
    assert set(console_commands.COMMANDS) <= {name for row in rows for name in re.findall(r"`(\w+)", row)}
    words = {*console_commands._SYNC_WORDS.values(), *(fault.value for fault in LoginFault)} - {"done"}
    assert [word for word in words if f"`{word}`" not in text] == []


def test_the_page_of_operations_tells_what_to_do_when_nobody_is_let_in():
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    for fault in (officers.LoginFault.NO_OFFICERS, officers.LoginFault.FILE):
        words = login_pages.REFUSALS[fault]
        assert words.zh in text
        assert words.en in text


@pytest.mark.parametrize("field", ["software", "uptime_s", "data", "battery", "counters", "program", "clock", "audit"])
def test_the_page_of_the_back_office_has_each_field_of_a_sign_of_life(field):
    assert field in HEARTBEAT_REQUEST["properties"]
    table = (ROOT / "docs" / "back-office.md").read_text(encoding="utf-8").partition("## What a sign of life holds")[2]
    assert f"`{field}`" in table
    assert len(HEARTBEAT_REQUEST["properties"]) == 8, "a field that the page does not have"


def test_the_officers_page_names_no_amount_points_or_article_and_each_verdict_once():
    text = (ROOT / "docs" / "officers.md").read_text(encoding="utf-8")
    assert not re.search(r"\d\s*元|[¥￥]|扣\s*\d|第\s*[\d一二三四五六七八九十]+\s*条", text)
    for words in VERDICTS.values():
        assert len(re.findall(rf"^\| {words.headline.zh} \| {words.text.zh} \|", text, re.MULTILINE)) == 1
