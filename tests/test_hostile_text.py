"""Texts in codes that try to steer a terminal, to mislead the eye or to be opened.

They stand where a text may stand: signed by a key of the trust list, by one that is not, and in codes that are no
mark at all. Whatever they are, the verdict or the fault is the coded one, and nothing of them is printed.
"""

from __future__ import annotations

import io
import json
import os
import pty
import re
import socket
import subprocess
import sys
import unicodedata
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import segno

from hw.qr.decoders import available_decoders
from scripts.cli.main import main
from scripts.sandbox.authority import Authority, AuthorityFolder
from scripts.sandbox.folder_store import FolderStore
from scripts.sandbox.issuer import NATIONAL
from scripts.sandbox.keys import SigningKey, make_private_key, signing_key
from scripts.sandbox.server import serve
from tests.conftest import ROOT
from verifier.clock import system_clock
from verifier.codec import base45, cbor, cose
from verifier.codec.credential import (
    COLOUR,
    INNER,
    ISS,
    MARK,
    MAX_TEXT,
    PLATE,
    USE,
    VEHICLE_TYPE,
    encode,
    encode_claims,
)
from verifier.types import Algorithm, KeyRole, Month, PresentationMode, StatusLetter

# Each carries the word "owned" where it can, so that a piece of it in an output is noticed.
TEXTS = {
    "window title": "\x1b]0;owned\x07",
    "terminal sequence": "\x1b[2J\x1b[31mowned",
    "eight-bit sequence": "\x9b2J\x9d0;owned\x9c\x90owned\x9c",
    "control characters": "owned\x00\x08\x7f\r\n\t\x0b",
    "right to left": "\u202eB粤owned\u2067\u2069\u200f\u061c",
    "zero width": "粤\u200bB\ufeffowned\u2060\u00ad",
    "line separators": "粤B\u2028owned\u2029\x85",
    "address": "https://owned.example/?a=1",
    "markup": "<script>owned</script>&#27;${owned}`owned`%s{0}",
    "full width": "粤Ｂ１２３４５",
    "decomposed": "粤B\u03011234\u20dd5",
    "radical for 黑": "\u2fcaB12345",
    "Cyrillic letter": "粤\u0412" + "12345",
    "long": "粤B" + "owned" * 50,
}
TOO_LONG = "粤B" + "owned" * 200  # with it the text of the code is longer than a mark's may be
FIELDS: dict[str, tuple[int, ...]] = {
    "plate": (MARK, PLATE),
    "vehicle type": (MARK, VEHICLE_TYPE),
    "use": (MARK, USE),
    "colour": (MARK, COLOUR),
    "issuer": (ISS,),
}
FOREIGN = {  # what others' codes hold, and the fault it has
    "address": (b"https://owned.example/?plate=1", "NOT_A_MARK"),
    "address in capitals": (b"HTTPS://OWNED.EXAMPLE/", "NOT_A_MARK"),
    "long address": (b"https://owned.example/" + b"owned/" * 160, "NOT_A_MARK"),
    "other schemes": (b"WIFI:T:WPA;S:owned;P:owned;; javascript:owned file:///owned", "NOT_A_MARK"),
    "window title": (b"\x1b]0;owned\x07\x1b[2J", "NOT_A_MARK"),
    "eight-bit sequence": (b"\x9b2J\x9d0;owned\x9c\xff\xfe", "NOT_A_MARK"),
    "right to left": ("\u202eowned\u2066\u200b".encode(), "NOT_A_MARK"),
    "nothing but zeros": (bytes(20), "NOT_A_MARK"),
    "version": (b"VM2:\x1b[31mowned", "VERSION"),
    "sequence after the prefix": (b"VM1:\x1b]0;owned\x07", "ENCODING"),
    "not ASCII after the prefix": ("VM1:\u202e逾期".encode(), "ENCODING"),
    "address after the prefix": (b"VM1:HTTPS://OWNED.EXAMPLE/A", "ENCODING"),
    "long after the prefix": (b"VM1:" + b"OWNED" * 200, "OVERSIZE"),
    "sequence that is a number in CBOR": (b"VM1:" + base45.encode(b"\xd2\x1b[2Jowned").encode(), "COSE_SHAPE"),
    "sequence that is no CBOR": (b"VM1:" + base45.encode(b"\xd2\x1b[31mowned").encode(), "CBOR"),
}
VERDICTS = {  # by fault; any other fault is one of the form
    "": "VALID",
    "NOT_A_MARK": "NOT_A_MARK",
    "VERSION": "UNSUPPORTED_VERSION",
    "SIGNATURE": "FORGED",
    "UNKNOWN_KEY": "UNTRUSTED_ISSUER",
}

SGR = re.compile(r"\x1b\[(?:32|36|33|1;31|0)m")  # the colours of our own card, and their end
STEERING = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Mn", "Me"}


def assert_harmless(shown: bytes) -> None:
    plain = SGR.sub("", shown.decode("utf-8")).replace("\r\n", "\n").replace("\n", "")
    assert not {char for char in plain if unicodedata.category(char) in STEERING}
    assert "owned" not in plain.lower()
    assert "example" not in plain.lower()
    assert "\u2fca" not in plain


def test_what_counts_as_harmless():
    assert_harmless("\x1b[1;31m│ 疑似伪造 粤B·12345 │\x1b[0m\r\n".encode())
    for text in (*TEXTS.values(), "\x1b[5m", "\x1b[32", "a\rb"):
        if text not in (TEXTS["full width"], TEXTS["Cyrillic letter"]):  # not harmful to a terminal
            with pytest.raises(AssertionError):
                assert_harmless(text.encode())
    with pytest.raises(UnicodeDecodeError):
        assert_harmless(b"\x9b2J")


# ------------------------------------------------------------------------------------------------ the codes


class Codes:
    """Makes codes whose payload no issuer of ours would write, under keys that are trusted and keys that are not."""

    def __init__(self, authority: Authority) -> None:
        plate = next(
            vehicle.plate
            for vehicle in authority.registry.vehicles.values()
            if vehicle.status == {StatusLetter.NORMAL} and vehicle.valid_until > Month.at(system_clock())
        )
        self.credential = authority.credential(plate, PresentationMode.STORED, system_clock() - timedelta(days=2))
        issuer = self.credential.issuer
        self.listed, self.freshness = authority.issuer.keys[issuer], authority.issuer.keys[NATIONAL]
        self.unlisted = signing_key(
            Algorithm.ES256, issuer=issuer, regions=("*",), role=KeyRole.CREDENTIAL, now=system_clock()
        )
        self.forged = SigningKey(make_private_key(self.listed.entry.alg), self.listed.entry)

    def claims(self) -> dict[Any, Any]:
        return cbor.decode(encode_claims(self.credential))

    def text(self, change: Callable[[dict[Any, Any]], object], key: SigningKey | None = None) -> str:
        claims = self.claims()
        change(claims)
        return encode(sign(key or self.listed, cbor.encode(claims)))

    def field(self, field: str, text: str, key: SigningKey | None = None) -> str:
        *path, last = FIELDS[field]
        return self.text(lambda claims: (claims[path[0]] if path else claims).update({last: text}), key)

    def extended(self, text: str) -> str:
        """A good code with a later version's claim, which this version ignores."""
        return self.text(lambda claims: claims[MARK].update({64: text, 65: {text: text}}))


def sign(key: SigningKey, payload: bytes, protected: bytes | None = None, typ: int = cose.TYP_CREDENTIAL) -> bytes:
    protected = protected or cose.protected_header(key.entry.alg, key.entry.kid, typ)
    return cose.join(protected, payload, key.sign(cose.sig_structure(protected, payload)))


def odd_places(codes: Codes) -> dict[str, tuple[str, str]]:
    """Texts where no text may stand, all under keys of the trust list."""
    text, key = "\x1b]0;owned\x07\u202e", codes.listed
    good = encode_claims(codes.credential)
    plate = codes.credential.plate.text.encode()
    header = {1: int(key.entry.alg), 4: key.entry.kid, 16: cose.TYP_CREDENTIAL}
    wrapper = cbor.encode({6: int(system_clock().timestamp()), INNER: sign(key, good), text: text})
    return {
        "name of a claim": (codes.text(lambda claims: claims.update({text: text})), "CLAIMS"),
        "name in the mark": (codes.text(lambda claims: claims[MARK].update({text: text})), "CLAIMS"),
        "month": (codes.text(lambda claims: claims[MARK].update({4: text})), "CLAIMS"),
        "serial": (codes.text(lambda claims: claims.update({7: text})), "CLAIMS"),
        "not UTF-8": (encode(sign(key, good.replace(plate, b"\x9b2Jowned\xff"[: len(plate)]))), "CBOR"),
        "half a surrogate": (encode(sign(key, good.replace(plate[:3], b"\xed\xa0\x80"))), "CBOR"),
        "key id": (encode(sign(key, good, cbor.encode({**header, 4: text}))), "HEADER"),
        "header": (encode(sign(key, good, cbor.encode({**header, text: text}))), "HEADER"),
        "wrapper": (encode(sign(codes.freshness, wrapper, typ=cose.TYP_PRESENTATION)), "CLAIMS"),
    }


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sandbox")
    AuthorityFolder(folder).create(clock=system_clock, scale=60, seed=5).publish()
    return folder


@pytest.fixture(scope="module")
def home(sandbox, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("device")
    root, key = sandbox / "root.json", sandbox / "private" / "epoch.key"
    with serve(FolderStore(sandbox / "public")) as server:
        words = ["--from", server.url, "--root", str(root), "--epoch-key", str(key), "--home", str(folder)]
        assert main(["sync", *words]) == 0
    return folder


@pytest.fixture(scope="module")
def codes(sandbox) -> Codes:
    return Codes(AuthorityFolder(sandbox).open(clock=system_clock))


def draw(content: str | bytes, path: Path) -> None:
    code = segno.make(content, error="m", boost_error=False, micro=False, mask=0)  # to choose a mask takes most time
    code.save(str(path), scale=4, border=4)


@pytest.fixture(scope="module")
def pictures(codes, tmp_path_factory) -> dict[Path, str]:
    """Pictures of codes with the fault of each; "" for a good one."""
    folder = tmp_path_factory.mktemp("pictures")
    marks = {f"plate {name}": (codes.field("plate", text), "CLAIMS") for name, text in TEXTS.items()}
    marks |= {f"{field} address": (codes.field(field, TEXTS["address"]), "CLAIMS") for field in FIELDS}
    marks |= {"too long": (codes.field("plate", TOO_LONG), "OVERSIZE"), **odd_places(codes)}
    for name in ("window title", "address"):
        marks[f"unlisted {name}"] = (codes.field("plate", TEXTS[name], codes.unlisted), "UNKNOWN_KEY")
        marks[f"forged {name}"] = (codes.field("plate", TEXTS[name], codes.forged), "SIGNATURE")
        marks[f"good with {name}"] = (codes.extended(TEXTS[name]), "")
    found = {}
    for name, (text, fault) in marks.items():
        found[folder / f"mark {name}.png"] = fault
        draw(text, folder / f"mark {name}.png")
    for name, (data, fault) in FOREIGN.items():
        found[folder / f"foreign {name}.png"] = fault
        draw(data, folder / f"foreign {name}.png")
    return found


# ------------------------------------------------------------------------------------------ on a terminal


def on_a_terminal(*words: str, typed: bytes = b"") -> tuple[int, bytes]:
    """Run the program with a pseudo-terminal as stdout and stderr: its exit status, and all that it wrote there."""
    ours, its = pty.openpty()
    command = [sys.executable, "-m", "scripts.cli.main", *words]
    shown = b""
    try:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=its, stderr=its, cwd=ROOT) as program:
            os.close(its)
            assert program.stdin is not None
            with suppress(BrokenPipeError), program.stdin as stdin:
                stdin.write(typed)
            with suppress(OSError):  # so Linux says that nobody has the other end open any more
                while chunk := os.read(ours, 65536):
                    shown += chunk
        return program.returncode, shown
    finally:
        os.close(ours)


def faults_in(audit: Path) -> list[str]:
    records = [json.loads(line) for line in audit.read_bytes().splitlines()]
    return [record["evidence"]["qr"]["fault"] or "" for record in records]


def verdict_of(fault: str) -> str:
    return VERDICTS.get(fault, "UNREADABLE")


def test_no_check_of_a_picture_prints_anything_of_its_text(pictures, home):
    audit = home / "audit.jsonl"
    audit.unlink(missing_ok=True)
    folder = str(next(iter(pictures)).parent)
    status, shown = on_a_terminal("check", folder, "--home", str(home), "--json")
    results = [json.loads(line) for line in shown.splitlines() if line.startswith(b"{")]
    names, faults = [result["picture"] for result in results], faults_in(audit)
    assert status == 0
    assert dict(zip(names, faults, strict=True)) == {path.name: fault for path, fault in pictures.items()}
    assert [result["verdict"] for result in results] == [verdict_of(fault) for fault in faults]
    for written in (shown, audit.read_bytes()):
        assert_harmless(written)


def test_no_card_shows_anything_of_its_text(pictures, home):
    some = [str(path) for path in pictures][::3]
    status, shown = on_a_terminal("check", *some, "--home", str(home), "--lang", "en")
    assert status == 0
    assert SGR.search(shown.decode())  # a terminal it was
    assert_harmless(shown)
    assert shown.count("┌".encode()) == len(some)


@pytest.mark.parametrize(
    ("name", "form"), [("good", "--json"), ("good", "people"), ("claims", "--json"), ("foreign", "people")]
)
def test_no_inspection_on_a_terminal_prints_anything_of_its_text(name, form, codes, home):
    text, answer = {
        "good": (codes.extended("".join(TEXTS.values())[:60]).encode(), "ACCEPTED"),
        "claims": (codes.field("plate", TEXTS["window title"]).encode(), "CLAIMS"),
        "foreign": (b"".join(data for data, _ in FOREIGN.values()), "NOT_A_MARK"),
    }[name]
    more = [form] if form == "--json" else []
    status, shown = on_a_terminal("credential", "inspect", "-", "--home", str(home), *more, typed=text)
    assert_harmless(shown)
    assert status == (0 if name == "good" else 1)
    if more:
        assert json.loads(shown).get("code", "ACCEPTED") == answer
    else:
        assert answer in shown.decode().splitlines()[0]


# --------------------------------------------------------------------------------------------- every place


@pytest.fixture
def inspect(home, capsysbinary, monkeypatch):
    """Inspects a text in both forms: the code of its refusal, "" when it is accepted; nothing of it may show."""

    def shown(text: str | bytes, *more: str) -> tuple[int, bytes]:
        words = ["--", text]
        if isinstance(text, bytes):
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
            words = ["-"]
        capsysbinary.readouterr()
        status = main(["credential", "inspect", "--home", str(home), *more, *words])
        written = capsysbinary.readouterr()
        assert_harmless(written.out + written.err)
        return status, written.out

    def run(text: str | bytes) -> str:
        status, people = shown(text)
        same, machines = shown(text, "--json")
        found = json.loads(machines)
        assert status == same == (0 if found["ok"] else 1)
        assert people.decode().startswith("ACCEPTED: " if found["ok"] else f"REFUSED: {found['code']}\n")
        return found.get("code", "")

    return run


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("name", TEXTS)
def test_a_text_in_a_signed_claim_is_a_fault(name, field, codes, inspect):
    text = codes.field(field, TEXTS[name])
    assert len(text) <= MAX_TEXT
    assert inspect(text) == "CLAIMS"


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_in_a_claim_that_nothing_proves_is_not_shown(name, codes, inspect):
    assert inspect(codes.field("plate", TEXTS[name], codes.unlisted)) == "UNKNOWN_KEY"
    assert inspect(codes.field("plate", TEXTS[name], codes.forged)) == "SIGNATURE"


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_in_a_claim_of_a_later_version_is_ignored(name, codes, inspect):
    text = codes.extended(TEXTS[name][:100])
    assert inspect(text) == ""


def test_a_text_where_none_may_stand_is_a_fault(codes, inspect):
    places = odd_places(codes)
    assert {name: inspect(text) for name, (text, _) in places.items()} == {
        name: fault for name, (_, fault) in places.items()
    }


def test_a_text_of_more_characters_than_a_mark_has_is_not_even_decoded(codes, inspect):
    for field in FIELDS:
        assert inspect(codes.field(field, TOO_LONG)) == "OVERSIZE"


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_text_is_named_and_not_shown(name, inspect):
    data, fault = FOREIGN[name]
    assert inspect(data) == fault


@pytest.mark.parametrize("text", [*TEXTS.values(), "VM1:\udc9b2J", "-\x1b[31m", "--\x1b[31mowned"])
def test_a_foreign_text_on_the_command_line_is_named_and_not_shown(text, inspect):
    assert inspect(text) == ("ENCODING" if text.startswith("VM1:") else "NOT_A_MARK")


# ------------------------------------------------------------------------------------------- never opened


def test_nothing_in_a_code_is_ever_opened(pictures, codes, home, monkeypatch, capsys):
    def opened(*_: object, **__: object) -> None:
        pytest.fail("something was opened")

    available_decoders()  # one of them asks the system for its library when it is first loaded
    for place in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, place, opened)
    monkeypatch.setattr(socket, "getaddrinfo", opened)
    monkeypatch.setattr(webbrowser, "open", opened)
    started: list[list[str]] = []
    popen = subprocess.Popen

    def start(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        started.append(command)
        return popen(command, **options)

    monkeypatch.setattr(subprocess, "Popen", start)
    addresses = [path for path in pictures if "address" in path.name]
    assert len(addresses) > 10
    assert main(["check", *map(str, addresses), "--home", str(home)]) == 0
    assert [command[1:4] for command in started] == [["-P", "-m", "firmware.scan_worker"]]  # before it read anything
    monkeypatch.setattr(subprocess, "Popen", opened)
    for text in (codes.field("plate", TEXTS["address"]), codes.extended(TEXTS["address"]), TEXTS["address"]):
        main(["credential", "inspect", text, "--home", str(home)])
    assert_harmless(capsys.readouterr().out.encode())
