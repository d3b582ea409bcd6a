"""`markcheck credential inspect` as a technician runs it."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from scripts.cli.credential import MEANINGS, STDIN_LIMIT
from scripts.cli.main import main
from scripts.sandbox.authority import AuthorityFolder
from scripts.sandbox.codes import qr_picture
from scripts.sandbox.folder_store import FolderStore
from scripts.sandbox.server import serve
from tests.golden import CASES, NOW, golden_trust
from verifier.clock import system_clock
from verifier.codec import cbor, cose
from verifier.codec.credential import ENCRYPTED, MARK, MAX_TEXT, encode, encode_claims
from verifier.trust import dump_entries
from verifier.types import Algorithm, CodeFault, PresentationMode

AT = str(int(NOW.timestamp()))
STORED = CASES["stored-es256"]["text"]
DATES = {"issued_at": "2026-11-20T00:00:00+00:00", "not_before": None, "expires_at": "2026-12-20T00:00:00+00:00"}


@pytest.fixture(scope="module")
def entries(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("trust") / "entries.cbor"
    path.write_bytes(dump_entries(golden_trust().keys.values()))
    return path


@pytest.fixture
def inspect(entries, capsys):
    """Runs the command on the example keys: exit status, stdout, stderr."""

    def run(*words: str, at: str = AT) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(["credential", "inspect", *words, "--trust", str(entries), "--at", at])
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return run


def type_in(monkeypatch, data: bytes) -> io.BytesIO:
    stream = io.BytesIO(data)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stream))
    return stream


def without_sm2() -> bool:
    return any(key.alg is Algorithm.SM2 and key.public is None for key in golden_trust().keys.values())


# ------------------------------------------------------------------------------------------------ answers


@pytest.mark.parametrize("case", CASES.values(), ids=lambda c: c["id"])
def test_complete_example(case, inspect):
    expected = case["expect"]
    if "sm2" in case["id"] and without_sm2():
        expected = {"ok": False, "code": "ALG_UNAVAILABLE"}
    status, out, err = inspect(case["text"], "--json", at=str(case["now"]))
    found = json.loads(out)
    assert {name: found[name] for name in expected} == expected
    more = {"key_id", "algorithm", "shown_at", "claims"} if found["ok"] else {"detail"}
    assert set(found) == {*expected, *more}
    assert (status, err) == (0 if expected["ok"] else 1, "")


def test_every_claim_has_a_readable_name(inspect):
    found = json.loads(inspect(CASES["live-holder-key"]["text"], "--json")[1])
    assert (found["key_id"], found["algorithm"]) == ("96e6e3139a51d81c", "ES256")
    assert found["shown_at"] == "2026-11-21T23:59:55+00:00"
    assert found["claims"] == {
        "plate": "粤BD12345", "plate_kind": "52", "vehicle_type": "K33", "inspection_valid_until": "2027-11",
        "compulsory_insurance_until": "2027-09-30", "use_nature": None, "body_colour": "A", "mode": "live",
        "serial": "3f5143c3872ca712", "issuer": "440300", **DATES, "status_list": 7, "status_index": 1234572,
        "vin_hash": "cdca2aaf73a0fdc2", "tid_hash": "12a1237becbc6bbe",
        "holder_key": "ES256 03b5f1a7cf62c181811755698811ce74e62800ed2192b9bb598fcc68f012e2c437", "encrypted": None,
    }  # fmt: skip


def test_a_table_for_people_has_chinese_time(inspect):
    status, out, _ = inspect(STORED)
    first, *rest = out.splitlines()
    rows = {line[:27].strip(): line[27:] for line in rest}
    assert (status, first.split()[:2]) == (0, ["ACCEPTED:", "stored"])
    assert (rows["plate"], rows["plate kind"]) == ("粤B·D12345", "52 小型新能源汽车")
    assert (rows["issued at"], rows["not before"]) == ("2026-11-20 08:00:00+08:00", "-")
    assert (rows["key id"], rows["status list"]) == ("96e6e3139a51d81c", "7")


def test_a_refusal_for_people_says_what_it_means(inspect):
    status, out, _ = inspect(CASES["expired-1s"]["text"])
    first, meaning, times = out.splitlines()
    assert (status, first, meaning) == (1, "REFUSED: EXPIRED", MEANINGS[CodeFault.EXPIRED])
    assert "ends 2026-11-22 07:59:59+08:00" in times
    assert "粤" not in out


def test_a_refusal_names_the_key_that_the_code_names(inspect):
    found = json.loads(inspect(CASES["forged-known-kid"]["text"], "--json")[1])
    assert found["detail"] == "credential: ES256, key 96e6e3139a51d81c"
    for name, key in (("online-too-old-91s", "shown 2026-11-22 07:58:29+08:00"), ("unknown-critical-header", "label")):
        assert key in json.loads(inspect(CASES[name]["text"], "--json")[1])["detail"]


def test_every_fault_has_a_sentence():
    assert set(MEANINGS) == set(CodeFault)
    assert len(set(MEANINGS.values())) == len(CodeFault)
    assert all(text.endswith(".") and text.isascii() and len(text) < 110 for text in MEANINGS.values())


@pytest.mark.parametrize(
    ("at", "ok"),
    [
        ("2026-12-20T07:59:59+08:00", True),
        ("2026-12-19T23:59:59Z", True),
        ("2026-12-20T00:00:00Z", False),
        ("1797724799", True),
        ("1797724800", False),
    ],
)
def test_the_moment_can_be_chosen(inspect, at, ok):
    found = json.loads(inspect(STORED, "--json", at=at)[1])
    assert found["ok"] is ok
    assert ok or found["code"] == "EXPIRED"


# ------------------------------------------------------------------------------------------ where it comes from


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_text_from_standard_input(inspect, monkeypatch, end):
    type_in(monkeypatch, STORED.encode() + end)
    status, out, _ = inspect("-", "--json")
    assert (status, json.loads(out)["plate"]) == (0, "粤BD12345")


def test_an_endless_input_is_not_read_to_its_end(inspect, monkeypatch):
    stream = type_in(monkeypatch, b"VM1:" + b"A" * 10_000_000)
    status, out, _ = inspect("-", "--json")
    assert (status, json.loads(out)["code"]) == (1, "OVERSIZE")
    assert stream.tell() < 10 * STDIN_LIMIT


def test_the_longest_text_may_end_its_line(inspect, monkeypatch):
    type_in(monkeypatch, b"VM1:" + b"0" * (MAX_TEXT - 4) + b"\n")
    assert json.loads(inspect("-", "--json")[1])["code"] != "OVERSIZE"


def test_a_picture_is_no_text(inspect, tmp_path):
    picture = tmp_path / "code.png"
    qr_picture(STORED).save(picture)
    status, out, _ = inspect(str(picture), "--json")
    told = json.loads(out)
    assert (status, told["code"]) == (1, "NOT_A_MARK")
    assert "use 'markcheck check'" in told["detail"]
    assert json.loads(inspect(f"{picture}x", "--json")[1])["detail"] == ""
    assert inspect("x" * 5000, "--json")[0] == 1


def test_without_a_file_the_keys_of_the_device_count(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MARKCHECK_HOME", str(tmp_path / "home"))
    authority = AuthorityFolder(tmp_path / "sandbox").create(clock=system_clock, scale=16, seed=5)
    plate = next(iter(authority.registry.vehicles))
    text = authority.text(plate, PresentationMode.STORED)
    assert main(["credential", "inspect", text]) == 1
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert "run 'markcheck sync' first" in shown.err
    authority.publish()
    with serve(FolderStore(tmp_path / "sandbox" / "public")) as server:
        assert main(["sync", "--from", server.url, "--root", str(tmp_path / "sandbox" / "root.json")]) == 0
    capsys.readouterr()
    assert main(["credential", "inspect", text, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["plate"] == plate.text
    assert main(["credential", "inspect", STORED, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["code"] == "UNKNOWN_KEY"


def test_the_encrypted_block_is_shown_as_it_is(tmp_path, capsys):
    authority = AuthorityFolder(tmp_path / "sandbox").create(clock=system_clock, scale=16, seed=5)
    credential = authority.credential(next(iter(authority.registry.vehicles)), PresentationMode.STORED)
    claims = cbor.decode(encode_claims(credential))
    claims[MARK][ENCRYPTED] = b"\x00\x1b[2J"
    key = authority.issuer.keys[credential.issuer]
    protected = cose.protected_header(key.entry.alg, key.entry.kid, cose.TYP_CREDENTIAL)
    signature = key.sign(cose.sig_structure(protected, payload := cbor.encode(claims)))
    (tmp_path / "entries.cbor").write_bytes(authority.issuer.trust_entries())
    text = encode(cose.join(protected, payload, signature))
    assert main(["credential", "inspect", text, "--trust", str(tmp_path / "entries.cbor"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["claims"]["encrypted"] == "001b5b324a"


# --------------------------------------------------------------------------------------------- wrong usage


@pytest.mark.parametrize(
    "words",
    [[], ["VM1:A", "B"], ["VM1:A", "--\x1b[31mred"], ["-x\x1b[31m", "VM1:\x1b[2J"]],
    ids=["none", "two", "no option", "short"],
)
def test_wrong_usage_echoes_nothing(inspect, words):
    status, out, err = inspect(*words)
    assert (status, out) == (2, "")
    assert "Error: give one TEXT" in err
    assert "\x1b" not in err
    assert "VM1" not in err


@pytest.mark.parametrize(
    "at",
    ["2026-11-22", "2026-11-22T08:00:00", "noon", "-1", "99999999999", "0001-01-01T00:00:00+14:00", "\x1b[31m", ""],
)
def test_a_moment_that_is_none_is_wrong_usage(inspect, at):
    status, out, err = inspect(STORED, at=at)
    assert (status, out) == (2, "")
    assert "Invalid value for '--at'" in err
    assert "\x1b" not in err


def bad_lists() -> dict[str, bytes]:
    keys = list(golden_trust().keys.values())
    whole = dump_entries(keys)
    return {
        "empty": b"",
        "text": b"-----BEGIN PUBLIC KEY-----\n",
        "cut": whole[:-1],
        "not a list": cbor.encode({}),
        "wrong kid": dump_entries([replace(keys[0], kid=bytes(8)), *keys[1:]]),
        "twice": dump_entries([keys[0], keys[0]]),
        "huge": bytes(5_000_000),
    }


@pytest.mark.parametrize("name", bad_lists())
@pytest.mark.parametrize("more", [[], ["--json"]], ids=["people", "json"])
def test_a_bad_trust_file_is_one_error_and_no_answer(name, more, tmp_path, capsys):
    path = tmp_path / "entries.cbor"
    path.write_bytes(bad_lists()[name])
    assert main(["credential", "inspect", STORED, "--trust", str(path), *more]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("markcheck: trust list: ")
    assert shown.err.count("\n") == 1


def test_a_missing_trust_file_is_wrong_usage(tmp_path, capsys):
    assert main(["credential", "inspect", STORED, "--trust", str(tmp_path / "absent.cbor")]) == 2
    shown = capsys.readouterr()
    assert (shown.out, "absent.cbor" in shown.err) == ("", True)


def test_now_is_the_default_moment(tmp_path, capsys):
    authority = AuthorityFolder(tmp_path / "sandbox").create(clock=system_clock, scale=16, seed=5)
    entries = tmp_path / "entries.cbor"
    entries.write_bytes(authority.issuer.trust_entries())
    plate = next(iter(authority.registry.vehicles))
    now = datetime.now(UTC)
    for issued, status in ((now, 0), (now - timedelta(days=31), 1)):
        text = authority.text(plate, PresentationMode.STORED, issued)
        assert main(["credential", "inspect", text, "--trust", str(entries)]) == status
    assert "REFUSED: EXPIRED" in capsys.readouterr().out
