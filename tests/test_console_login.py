"""Who is let in at the console, how often one may try, and for how long it lasts."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from firmware.console_login import (
    CHALLENGE_S,
    FREE_TRIES,
    IDLE_S,
    LONGEST_DELAY,
    Challenge,
    ConsoleKey,
    ConsoleKeyError,
    KeyKind,
    Login,
    LoginError,
    LoginFault,
    Tries,
    hmac_answer,
    load_console_keys,
    new_challenge,
)
from scripts.cli.main import main
from tests.conftest import ROOT

SECRET = bytes(range(32))
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32, 64)))
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Bench:
    """A login with its files and its clocks."""

    def __init__(self, folder: Path) -> None:
        self.keys, self.tries = folder / "keys", folder / "tries"
        self.keys.write_text(
            "# technicians\n"
            + ConsoleKey("field-3", KeyKind.HMAC, SECRET).line()
            + "\n"
            + ConsoleKey("hq", KeyKind.ED25519, PRIVATE.public_key().public_bytes_raw()).line()
            + "\n"
        )
        self.now, self.s = NOON, 1000.0

    def login(self) -> Login:
        return Login("MC-0001", self.keys, self.tries, clock=lambda: self.now, now_s=lambda: self.s)

    def wrong(self, login: Login) -> LoginError:
        login.challenge()
        with pytest.raises(LoginError) as caught:
            login.answer("0" * 16)
        return caught.value

    def right(self, login: Login) -> str:
        return login.answer(hmac_answer(SECRET, login.challenge()))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_typed_answer_counts_in_small_letters_with_hyphens_and_with_letters_taken_for_others(bench: Bench) -> None:
    login = bench.login()
    answer = hmac_answer(SECRET, login.challenge())
    typed = "-".join(answer[at : at + 4] for at in range(0, 16, 4)).lower().replace("0", "o").replace("1", "l")
    assert login.answer(typed) == "field-3"
    assert login.technician == "field-3"


def test_the_typed_answer_is_the_first_80_bits_of_hmac_sha256(bench: Bench) -> None:
    challenge = Challenge("MC-0001", "0123456789ABCDEF")
    digest = hmac.new(SECRET, b"markcheck console login 1|MC-0001|0123456789ABCDEF", hashlib.sha256).digest()
    usual = base64.b32encode(digest[:10]).decode()
    crockford = usual.translate(str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", "0123456789ABCDEFGHJKMNPQRSTVWXYZ"))
    assert hmac_answer(SECRET, challenge) == crockford


def test_a_pasted_signature_counts_and_one_for_another_device_or_challenge_does_not(bench: Bench) -> None:
    login = bench.login()
    challenge = login.challenge()
    for other in (replace(challenge, device="MC-0002"), replace(challenge, nonce="0" * 16)):
        with pytest.raises(LoginError, match="wrong"):
            login.answer(base64.b64encode(PRIVATE.sign(other.message())).decode())
        challenge = login.challenge()
    assert login.answer(base64.b64encode(PRIVATE.sign(challenge.message())).decode()) == "hq"


def test_an_answer_counts_once(bench: Bench) -> None:
    login = bench.login()
    answer = hmac_answer(SECRET, login.challenge())
    login.answer(answer)
    login.end()
    with pytest.raises(LoginError, match="ask for a new one"):
        login.answer(answer)
    login.challenge()
    with pytest.raises(LoginError, match="wrong"):
        login.answer(answer)


def test_after_a_wrong_answer_the_right_one_to_the_same_challenge_does_not_count(bench: Bench) -> None:
    login = bench.login()
    answer = hmac_answer(SECRET, login.challenge())
    with pytest.raises(LoginError, match="wrong"):
        login.answer("0" * 16)
    with pytest.raises(LoginError, match="ask for a new one"):
        login.answer(answer)


def test_a_challenge_does_not_last(bench: Bench) -> None:
    login = bench.login()
    answer = hmac_answer(SECRET, login.challenge())
    bench.s += CHALLENGE_S
    with pytest.raises(LoginError, match="ask for a new one"):
        login.answer(answer)


@given(st.text(max_size=300))
def test_no_other_text_is_an_answer(text: str) -> None:
    challenge = Challenge("MC-0001", "0123456789ABCDEF")
    for key in (ConsoleKey("a", KeyKind.HMAC, SECRET), ConsoleKey("b", KeyKind.ED25519, bytes(32))):
        assert not key.answered(challenge, text)


def test_the_delay_doubles_after_five_tries_up_to_an_hour_and_survives_a_restart(bench: Bench) -> None:
    waits = []
    for _ in range(FREE_TRIES + 9):
        error = bench.wrong(bench.login())
        waits.append(error.wait)
        bench.now += error.wait
    assert waits[:4] == [timedelta(0)] * 4
    assert [wait.total_seconds() for wait in waits[4:11]] == [30, 60, 120, 240, 480, 960, 1920]
    assert waits[-1] == LONGEST_DELAY
    assert bench.right(bench.login()) == "field-3"
    assert bench.wrong(bench.login()).wait == timedelta(0)


def test_during_the_delay_not_even_the_right_answer_counts(bench: Bench) -> None:
    login = bench.login()
    for _ in range(FREE_TRIES - 1):
        bench.wrong(login)
    held = login.challenge()
    bench.wrong(bench.login())
    with pytest.raises(LoginError) as caught:
        login.answer(hmac_answer(SECRET, held))
    assert caught.value.fault is LoginFault.WAIT
    assert login.technician is None


def test_a_try_is_on_the_disk_before_the_answer_is_looked_at(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def cut(key: ConsoleKey, challenge: Challenge, answer: str) -> bool:
        seen.append(json.loads(bench.tries.read_bytes())["failed"])
        raise KeyboardInterrupt

    monkeypatch.setattr(ConsoleKey, "answered", cut)
    login = bench.login()
    for _ in range(3):
        login.challenge()
        with pytest.raises(KeyboardInterrupt):
            login.answer("x")
    assert seen == [1, 2, 3]


def test_a_card_that_cannot_count_tries_lets_nobody_in(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("firmware.console_login.write_secret", full)
    login = bench.login()
    with pytest.raises(LoginError, match="cannot be counted"):
        bench.right(login)
    assert login.technician is None


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[1]", b'{"failed":-1,"failed_at":0.0}', b'{"failed":7,"failed_at":NaN}']
)
def test_a_damaged_count_of_tries_waits_once_and_not_for_ever(bench: Bench, data: bytes) -> None:
    bench.tries.write_bytes(data)
    login = bench.login()
    with pytest.raises(LoginError, match="too many"):
        login.challenge()
    bench.now += timedelta(seconds=30)
    assert bench.right(login) == "field-3"


def test_a_clock_that_was_set_back_costs_one_delay_at_most() -> None:
    tries = Tries(FREE_TRIES + 1, NOON.timestamp())
    assert tries.wait(NOON - timedelta(days=900)) == timedelta(seconds=60)


def test_five_minutes_without_a_line_log_out_and_no_late_line_logs_in_again(bench: Bench) -> None:
    login = bench.login()
    bench.right(login)
    bench.s += IDLE_S - 1
    login.active()
    bench.s += IDLE_S - 1
    assert login.technician == "field-3"
    bench.s += 1
    login.active()
    assert login.technician is None


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("password field-3 x", "line 1"), ("hmac-sha256 field-3", "line 1"), ("hmac-sha256 field-3 AAAA", "32 bytes"),
        ("hmac-sha256 Field_3 " + base64.b64encode(SECRET).decode(), "a name"), ("\xff", "not plain text"),
        ("\n".join([ConsoleKey("a", KeyKind.HMAC, SECRET).line()] * 2), "one name twice"),
    ],
)  # fmt: skip
def test_a_bad_file_of_keys_lets_nobody_in_and_names_the_line(tmp_path: Path, line: str, problem: str) -> None:
    (tmp_path / "keys").write_bytes(line.encode("latin-1"))
    with pytest.raises(ConsoleKeyError, match=problem):
        load_console_keys(tmp_path / "keys")


def test_a_device_without_keys_lets_nobody_in(tmp_path: Path) -> None:
    login = Login("x", tmp_path / "keys", tmp_path / "tries", clock=lambda: NOON, now_s=lambda: 0.0)
    with pytest.raises(LoginError, match="no technician's key"):
        login.challenge()


def test_no_key_can_be_seen_in_what_is_printed_of_it() -> None:
    assert repr(SECRET) not in repr(ConsoleKey("a", KeyKind.HMAC, SECRET))
    assert new_challenge("x").nonce != new_challenge("x").nonce


@pytest.mark.parametrize("kind", list(KeyKind))
def test_a_technician_makes_a_key_and_answers_with_it(
    bench: Bench, tmp_path: Path, kind: KeyKind, capsys: pytest.CaptureFixture[str]
) -> None:
    half = tmp_path / "half"
    assert main(["console", "key", "--name", "new", "--kind", kind.value, "--out", str(half)]) == 0
    bench.keys.write_text(capsys.readouterr().out)
    assert stat.S_IMODE(half.stat().st_mode) == 0o600
    assert main(["console", "key", "--name", "new", "--out", str(half)]) == 1
    capsys.readouterr()
    login = bench.login()
    words = ["--device", "MC-0001", "--challenge", login.challenge().nonce]
    assert main(["console", "answer", "--key", str(half), *words]) == 0
    assert login.answer(capsys.readouterr().out.strip()) == "new"


def test_a_file_that_is_no_key_answers_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "half").write_text("what is that")
    words = ["console", "answer", "--key", str(tmp_path / "half"), "--device", "x"]
    assert main([*words, "--challenge", new_challenge("x").nonce]) == 1
    assert "of no kind" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a b", "Field", "", "x" * 21, "a\n#"])
def test_a_name_that_no_device_could_read_makes_no_key(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    half = tmp_path / "half"
    assert main(["console", "key", "--name", name, "--out", str(half)]) == 2
    assert "a-z, 0-9 and -" in capsys.readouterr().err
    assert not half.exists()


@pytest.mark.parametrize("challenge", ["xyz", "", "0123456789ABCDE", "0123456789ABCDEFG", "0123456789ABCDE!"])
def test_what_is_no_challenge_is_not_answered(
    tmp_path: Path, challenge: str, capsys: pytest.CaptureFixture[str]
) -> None:
    half = tmp_path / "half"
    main(["console", "key", "--name", "new", "--out", str(half)])
    capsys.readouterr()
    words = ["console", "answer", "--key", str(half), "--device", "x", "--challenge", challenge]
    assert main(words) == 2
    assert capsys.readouterr().out == ""


def test_a_challenge_may_be_typed_as_an_answer_may(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half = tmp_path / "half"
    main(["console", "key", "--name", "new", "--out", str(half)])
    capsys.readouterr()
    for challenge in ("0123456789ABCDEF", "o123-4567 89ab-cdef"):
        main(["console", "answer", "--key", str(half), "--device", "x", "--challenge", challenge])
    first, second = capsys.readouterr().out.split()
    assert first == second


def test_starting_the_console_loads_no_database_cipher_or_picture() -> None:
    code = (
        "import sys; import firmware.console, firmware.console_commands;"
        "print(*sorted({'sqlite3','cryptography','requests','cv2','numpy','PIL','luma','gpiozero','tuf','serial'}"
        " & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env={**os.environ}
    )
    assert run.stdout.strip() == ""
