"""`markcheck trust` as a technician runs it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import click
import pytest

from scripts.cli.main import cli, main
from scripts.cli.trust import Standing, standing
from scripts.sandbox.authority import AuthorityFolder
from scripts.sandbox.folder_store import FolderStore
from scripts.sandbox.server import serve
from tests.golden import CASES, NOW, golden_trust
from verifier.clock import system_clock
from verifier.codec import cbor
from verifier.codec.credential import decode
from verifier.errors import CodeError
from verifier.trust import TrustedKey, TrustList, dump_entries
from verifier.types import CodeFault, KeyState, utc
from verifier.verify import verify_text

ACTIVE, RETIRED, COMPROMISED, SM2 = "96e6e3139a51d81c", "2ab3d6d9f8853ef5", "cfbe084dacb26959", "03c9ac310d129659"


def write(path: Path, *keys: TrustedKey) -> Path:
    path.write_bytes(dump_entries(keys))
    return path


@pytest.fixture
def entries(tmp_path) -> Path:
    return write(tmp_path / "entries.cbor", *golden_trust().keys.values())


@pytest.fixture
def trust(entries, capsys):
    """Runs a command on the example keys: exit status, stdout, stderr."""

    def run(*words: str, at: str = "2026-11-22T08:00:00+08:00", file: Path = entries) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(["trust", *words, "--entries", str(file), "--at", at])
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return run


def example(kid: str, **change) -> TrustedKey:
    return replace(golden_trust().keys[bytes.fromhex(kid)], **change)


# --------------------------------------------------------------------------------------------------- list


def test_the_list_has_a_line_for_each_key_and_counts_them(trust):
    status, out, err = trust("list")
    title, head, *lines = out.splitlines()
    assert (status, err, len(lines)) == (0, "", 7)
    assert title == "7 keys as of 2026-11-22T08:00:00+08:00: 5 active, 1 retired, 1 compromised"
    assert head.split("  ")[0] == "key id"
    rows = {line.split()[0]: line.split() for line in lines}
    assert rows[ACTIVE][1:5] == ["ES256", "credential", "440300", "粤B"]
    assert rows[ACTIVE][5:] == ["2026-05-06", "2027-06-10", "2029-11-26", "active"]
    assert " ".join(rows[RETIRED][8:]) == "retired, accepted until 2027-09-18"
    assert rows[COMPROMISED][-1] == "compromised"


def test_the_list_for_machines(trust):
    found = json.loads(trust("list", "--json")[1])
    assert (found["at"], found["as_of"], found["sequence"]) == ("2026-11-22T08:00:00+08:00", None, None)
    assert found["counts"] == {"active": 5, "not_yet": 0, "retired": 1, "over": 0, "compromised": 1}
    keys = {key["key_id"]: key for key in found["keys"]}
    states = {kid: keys[kid]["state"] for kid in (ACTIVE, RETIRED, COMPROMISED)}
    assert states == {ACTIVE: "active", RETIRED: "retired", COMPROMISED: "compromised"}
    assert keys[RETIRED]["accepted_until"] == "2027-09-18T08:00:00+08:00"
    assert keys[SM2]["regions"] == ["川A", "川G"]
    assert keys[ACTIVE]["usable"] is True


def test_an_empty_list_is_a_list(trust, tmp_path):
    status, out, _ = trust("list", file=write(tmp_path / "none.cbor"))
    assert (status, out.splitlines()[0]) == (0, "0 keys as of 2026-11-22T08:00:00+08:00")


def test_each_state_of_a_key_at_its_borders():
    key = example(ACTIVE)
    expected = [
        (key.not_before - 1, Standing.NOT_YET),
        (key.not_before, Standing.ACTIVE),
        (key.not_after, Standing.ACTIVE),
        (key.not_after + 1, Standing.RETIRED),
        (key.until, Standing.RETIRED),
        (key.until + 1, Standing.OVER),
    ]
    assert [(at, standing(key, utc(at))) for at, _ in expected] == expected
    at = utc(key.not_before)
    assert standing(replace(key, state=KeyState.RETIRED), at) is Standing.RETIRED
    assert standing(replace(key, state=KeyState.COMPROMISED), at) is Standing.COMPROMISED


def proves(text: str, key: TrustedKey, at: datetime) -> bool:
    try:
        verify_text(text, TrustList([key]), at)
    except CodeError as exc:
        return exc.fault not in (CodeFault.KEY_COMPROMISED, CodeFault.KEY_RETIRED)
    return True


@pytest.mark.parametrize("state", KeyState)
@pytest.mark.parametrize("name", ["stored-es256", "stored-ed25519", "key-retired-still-accepted"])
def test_the_state_shown_is_what_verification_goes_by(name, state):
    text = CASES[name]["text"]
    key = replace(example(decode(text.encode()).credential.kid.hex()), state=state)
    for at in (NOW, utc(key.until), utc(key.until + 1)):
        assert proves(text, key, at) is (standing(key, at) in (Standing.ACTIVE, Standing.RETIRED))


def test_the_devices_own_list_says_where_it_comes_from(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MARKCHECK_HOME", str(tmp_path / "home"))
    for words in (["list"], ["show", "0000"]):
        assert main(["trust", *words]) == 1
        shown = capsys.readouterr()
        assert (shown.out, shown.err.count("\n")) == ("", 1)
        assert "run 'markcheck sync' first" in shown.err
    AuthorityFolder(tmp_path / "sandbox").create(clock=system_clock, scale=16, seed=5).publish()
    with serve(FolderStore(tmp_path / "sandbox" / "public")) as server:
        assert main(["sync", "--from", server.url, "--root", str(tmp_path / "sandbox" / "root.json")]) == 0
    capsys.readouterr()
    assert main(["cache", "info", "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert main(["trust", "list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["as_of"], found["sequence"]) == (info["as_of"], info["seq"])
    assert len(found["keys"]) == info["trusted_keys"] == found["counts"]["active"]
    assert main(["trust", "list"]) == 0
    assert "from publication no. 1 (national), data of 20" in capsys.readouterr().out
    assert main(["trust", "show", found["keys"][0]["key_id"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sequence"] == 1


# --------------------------------------------------------------------------------------------------- show


def test_one_key_in_full(trust):
    status, out, _ = trust("show", ACTIVE)
    rows = {line[:16].strip(): line[16:] for line in out.splitlines()}
    key = example(ACTIVE)
    assert (status, rows["key id"], rows["algorithm"], rows["state"]) == (0, ACTIVE, "ES256", "active")
    assert rows["may sign"] == "credentials for plates that begin with 粤B"
    assert (rows["public key"], rows["issuer"]) == (key.key.hex(), "440300")
    assert rows["fingerprint"] == hashlib.sha256(cbor.encode([-7, key.key])).hexdigest()
    assert rows["fingerprint"].startswith(ACTIVE)
    assert rows["accepted until"] == "2029-11-26T08:00:00+08:00"
    found = json.loads(trust("show", ACTIVE, "--json")[1])
    assert (found["public_key"], found["fingerprint"]) == (rows["public key"], rows["fingerprint"])


def test_what_a_key_of_another_role_may_sign(trust):
    assert "the wrappers of live codes" in trust("show", "db03d21129c0fcf9")[1]
    assert "answers about status" in trust("show", "fa4542bfeaecf520")[1]


def test_a_key_id_may_be_short_and_in_capitals(trust):
    for short in (ACTIVE[:4], ACTIVE[:5].upper(), ACTIVE):
        assert json.loads(trust("show", short, "--json")[1])["key_id"] == ACTIVE


def test_an_unknown_key_id_is_an_error(trust):
    status, out, err = trust("show", "ffff")
    assert (status, out, err) == (1, "", "markcheck: no key with this id in the list\n")


def test_an_ambiguous_key_id_is_an_error(trust, tmp_path):
    two = keys_that_begin_alike()
    file = write(tmp_path / "two.cbor", *two)
    status, out, err = trust("show", two[0].key_id[:4], file=file)
    assert (status, out) == (1, "")
    assert err == "markcheck: 2 keys have ids that begin so: give more digits\n"
    assert trust("show", two[0].key_id, file=file)[0] == 0


def keys_that_begin_alike() -> list[TrustedKey]:
    """Two Ed25519 keys whose ids share four digits; 32 bytes are nearly always some key."""
    base, seen = example("f9e27474bde95ec5"), {}
    for number in range(20_000):
        public = hashlib.sha256(number.to_bytes(4)).digest()
        kid = hashlib.sha256(cbor.encode([-8, public])).digest()[:8]
        other = seen.setdefault(kid[:2], replace(base, key=public, kid=kid))
        if other.kid != kid:
            return [other, replace(base, key=public, kid=kid)]
    raise AssertionError("no two of 20,000 ids begin alike")


@pytest.mark.parametrize("kid", ["", "96e", "xyz1", "96e6e3139a51d81c0", "\x1b[31m", "９６e6"])
def test_what_is_no_key_id_is_wrong_usage(trust, kid):
    status, out, err = trust("show", kid)
    assert (status, out) == (2, "")
    assert "KID: 4 to 16 hex digits" in err
    assert "\x1b" not in err


# ------------------------------------------------------------------------------------------- strange lists


@pytest.mark.parametrize("more", [[], ["--json"]], ids=["people", "json"])
def test_texts_of_a_list_are_made_harmless(trust, tmp_path, more):
    issuer, region = "\x1b]0;owned\x07\u202e44\x9b31m" + "0" * 200, "\x1b[2J"
    file = write(tmp_path / "strange.cbor", example(ACTIVE, issuer=issuer, regions=(region, "粤\u200b\u202e")))
    for words in (["list"], ["show", ACTIVE]):
        status, out, _ = trust(*words, *more, file=file)
        assert status == 0
        assert not {"\x1b", "\x07", "\x9b", "\u202e", "\u200b"} & set(out)
        assert "owned" not in out
        assert len(out) < 2000


@pytest.mark.parametrize("more", [[], ["--json"]], ids=["people", "json"])
def test_times_that_no_calendar_has_are_shown_as_numbers(trust, tmp_path, more):
    key = example(ACTIVE, not_before=-(2**63), not_after=2**63, until=2**64 - 1)
    file = write(tmp_path / "strange.cbor", key)
    for words in (["list"], ["show", ACTIVE]):
        status, out, _ = trust(*words, *more, file=file)
        assert status == 0
        assert "@-9223372" in out
        assert "active" in out


def test_a_list_that_is_refused_prints_nothing(trust, tmp_path):
    file = write(tmp_path / "bad.cbor", replace(example(ACTIVE), kid=bytes(8)))
    for words in (["list"], ["show", "0000"]):
        status, out, err = trust(*words, file=file)
        assert (status, out, err) == (1, "", "markcheck: trust list: entry 0: key id is not the hash of the key\n")


def test_no_command_adds_a_key(capsys):
    assert isinstance(group := cli.get_command(click.Context(cli), "trust"), click.Group)
    assert set(group.commands) == {"list", "show"}
    for path in ([], ["list"], ["show"]):
        assert main(["trust", *path, "--help"]) == 0
        assert "no command adds one" in " ".join(capsys.readouterr().out.split())
