"""What `markcheck sync` says, stores and tries again, and what `markcheck cache info` leaves alone."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from scripts.cli.main import main
from scripts.sandbox.authority import AuthorityFolder
from scripts.sandbox.folder_store import FolderStore
from scripts.sandbox.publisher import Publisher
from scripts.sandbox.server import serve
from tests.nightly import EPOCH_KEY, Night
from tests.test_cache_store import forms
from verifier.clock import system_clock
from verifier.errors import FetchError
from verifier.net import HttpFetcher, read_file
from verifier.types import Plate


@pytest.fixture
def url() -> Iterator[str]:
    """A server with a publication of now."""
    night = Night(clock=system_clock)  # type: ignore[arg-type]
    night.publish()
    with serve(night.store) as server:
        yield server.url


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MARKCHECK_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def root(tmp_path: Path, url: str) -> Path:
    """The root metadata of that publication."""
    path = tmp_path / "root.json"
    with HttpFetcher(url) as fetcher:
        path.write_bytes(read_file(fetcher, "metadata/1.root.json", 1 << 16))
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "epoch.key"
    path.write_text(EPOCH_KEY.hex() + "\n")
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    err = capsys.readouterr().err.strip()
    lines = [line for line in err.splitlines() if line and not line.startswith(("Usage:", "Try "))]
    assert len(lines) == 1, err
    return lines[0]


GARBAGE = [b"", b"garbage\n", b"{}", b"\xff" * 64, b"[" * 100_000, b'{"signed": {"_type": "root"}, "signatures": []}']


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("which", ["--root", "--epoch-key"])
def test_a_garbage_file_is_one_line_and_nothing_is_stored(
    which: str, garbage: bytes, home: Path, root: Path, key: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"--root": root, "--epoch-key": key}
    given[which].write_bytes(garbage)
    arguments = [str(part) for pair in given.items() for part in pair]
    assert main(["sync", "--from", url, *arguments]) in (1, 2)
    assert ("root" if which == "--root" else "epoch key") in one_line(capsys)
    assert not home.exists()


@pytest.mark.parametrize("which", ["--root", "--epoch-key"])
def test_garbage_leaves_what_was_stored(
    which: str, home: Path, root: Path, key: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sync", "--from", url, "--root", str(root), "--epoch-key", str(key)]) == 0
    before = files(home)
    root.write_bytes(b"garbage")
    capsys.readouterr()
    assert main(["sync", "--from", url, which, str(root)]) in (1, 2)
    assert "another root" not in one_line(capsys)
    assert files(home) == before


def test_other_metadata_are_no_root(
    home: Path, root: Path, url: str, capsys: pytest.CaptureFixture[str], key: Path
) -> None:
    night = Night()
    night.publish()
    root.write_bytes(night.store["metadata/timestamp.json"])
    assert main(["sync", "--from", url, "--root", str(root), "--epoch-key", str(key)]) in (1, 2)
    assert "root" in one_line(capsys)
    assert not home.exists()


def test_a_key_is_not_stored_when_the_root_is_missing(home: Path, key: Path, url: str) -> None:
    assert main(["sync", "--from", url, "--epoch-key", str(key)]) == 2
    assert not home.exists()


def test_files_are_stored_whole_and_for_the_owner_only(home: Path, root: Path, key: Path, url: str) -> None:
    assert main(["sync", "--from", url, "--root", str(root), "--epoch-key", str(key)]) == 0
    assert (home / "root.json").read_bytes() == root.read_bytes()
    assert (home / "epoch.key").read_text().strip() == EPOCH_KEY.hex()
    assert {p.name: p.stat().st_mode & 0o777 for p in home.iterdir() if p.is_file()} == {
        "root.json": 0o600,
        "epoch.key": 0o600,
    }
    assert main(["sync", "--from", url, "--root", str(root), "--epoch-key", str(key)]) == 0  # the same again


def test_another_key_replaces_the_old_one(home: Path, root: Path, key: Path, url: str) -> None:
    assert main(["sync", "--from", url, "--root", str(root), "--epoch-key", str(key)]) == 0
    key.write_text("ab" * 32)
    assert main(["sync", "--from", url, "--epoch-key", str(key)]) == 0
    assert (home / "epoch.key").read_text().strip() == "ab" * 32


def test_a_damaged_stored_key_is_replaced(home: Path, root: Path, key: Path, url: str) -> None:
    home.mkdir()
    (home / "epoch.key").write_bytes(b"garbage")
    assert main(["sync", "--from", url, "--root", str(root), "--epoch-key", str(key)]) == 0
    assert (home / "epoch.key").read_text().strip() == EPOCH_KEY.hex()


def test_another_root_is_refused(
    home: Path, root: Path, key: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sync", "--from", url, "--root", str(root)]) == 0
    before = files(home)
    root.write_bytes(Publisher({}, system_clock).root_bytes())
    capsys.readouterr()
    assert main(["sync", "--from", url, "--root", str(root), "--epoch-key", str(key)]) in (1, 2)
    assert "this device was made with another root; use another --home" in one_line(capsys)
    assert files(home) == before


@pytest.mark.parametrize("address", ["http://[::1", "http://127.0.0.1:99999", "http://a..b/", "nonsense"])
def test_a_bad_address_is_one_line(address: str, home: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sync", "--from", address, "--root", str(root)]) in (1, 2)
    assert one_line(capsys)


@pytest.mark.parametrize("damage", [None, b"no database at all" * 99])
def test_cache_info_changes_nothing(
    damage: bytes | None, home: Path, root: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sync", "--from", url, "--root", str(root)]) == 0
    (home / "cache" / "state.db").unlink()
    if damage is not None:
        (home / "cache" / "state.db").write_bytes(damage)
    before = files(home)
    capsys.readouterr()
    assert main(["cache", "info"]) == 0
    shown = capsys.readouterr().out
    assert ("the state file cannot be read" in shown) == (damage is not None)
    assert files(home) == before
    assert main(["sync", "--from", url]) == 0
    assert "state.db was lost" in capsys.readouterr().out


def test_cache_info_under_a_suspect_clock_tells_the_least_age(
    home: Path, root: Path, url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["sync", "--from", url, "--root", str(root)]) == 0
    before = run("cache", "info", capsys=capsys)
    assert (0 <= int(str(before["age_s"])) < 600, before["age_at_least"]) == (True, False)
    for days in (-30, 500):  # behind the newest signed time, and far ahead of it
        monkeypatch.setattr("scripts.cli.cache.system_clock", lambda days=days: system_clock() + timedelta(days=days))
        told = run("cache", "info", capsys=capsys)
        assert (0 <= int(str(told["age_s"])) < 600, told["age_at_least"]) == (True, True)
        assert main(["cache", "info"]) == 0
        assert "at least 0:0" in capsys.readouterr().out


def test_cache_info_without_data(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "info"]) == 1
    assert "no data" in one_line(capsys)
    assert not home.exists()


# ------------------------------------------------------------------------------------- what a sync can be asked


def run(*arguments: str, capsys: pytest.CaptureFixture[str], status: int = 0) -> dict[str, object]:
    """The JSON that a command prints."""
    capsys.readouterr()
    assert main([*arguments, "--json"]) == status
    answer: dict[str, object] = json.loads(capsys.readouterr().out)
    return answer


@pytest.fixture
def sandbox(tmp_path: Path) -> Path:
    """A sandbox authority that has published one night."""
    folder = tmp_path / "sandbox"
    assert main(["sandbox", "publish", "--folder", str(folder), "--scale", "400"]) == 0
    return folder


def lapse(sandbox: Path, number: int) -> Plate:
    """An event with one of the sandbox's vehicles."""
    plate = list(AuthorityFolder(sandbox).open(clock=system_clock).registry.vehicles)[number]
    words = ["--folder", str(sandbox), "--plate", plate.text, "--kind", str(plate.kind), "--until", "2026-01"]
    assert main(["sandbox", "event", "lapse", *words]) == 0
    return plate


def test_a_card_brings_nights_hot_list_and_province(
    home: Path, sandbox: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Everything that comes by network comes from a folder, with the same reports."""
    card = home.parent / "card"
    shutil.copytree(sandbox / "public", card)
    sync = ("sync", "--from", str(card))
    key = ("--epoch-key", str(sandbox / "private" / "epoch.key"))
    first = run(*sync, "--root", str(sandbox / "root.json"), *key, capsys=capsys)
    assert (first["outcome"], first["seq_before"], first["seq_after"]) == ("snapshot", None, 1)
    lapse(sandbox, 0)
    assert main(["sandbox", "publish", "--folder", str(sandbox), "--hot"]) == 0
    shutil.copytree(sandbox / "public", card, dirs_exist_ok=True)
    hot = run(*sync, "--hot", capsys=capsys)
    assert (hot["outcome"], hot["seq_after"]) == ("hot", 2)
    assert hot["rows"] in (1, 2)
    assert run(*sync, "--hot", capsys=capsys)["outcome"] == "fresh"
    assert main(["sandbox", "publish", "--folder", str(sandbox)]) == 0
    shutil.copytree(sandbox / "public", card, dirs_exist_ok=True)
    assert run(*sync, capsys=capsys)["outcome"] == "deltas"
    assert main(["sandbox", "publish", "--folder", str(sandbox), "--region", "粤"]) == 0
    assert main(["sync", "--from", str(sandbox / "public"), "--region", "yue"]) == 0
    shown = run("cache", "info", capsys=capsys)
    assert (shown["region"], shown["scope"], shown["covers"]) == ("yue", "province", ["粤"])


def test_a_card_with_an_older_night_is_refused(home: Path, sandbox: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = home.parent / "card"
    shutil.copytree(sandbox / "public", card)
    assert main(["sandbox", "publish", "--folder", str(sandbox)]) == 0
    sync = ("sync", "--root", str(sandbox / "root.json"), "--epoch-key", str(sandbox / "private/epoch.key"), "--from")
    assert run(*sync, str(sandbox / "public"), capsys=capsys)["seq_after"] == 2
    failed = run(*sync, str(card), capsys=capsys, status=1)
    assert failed["outcome"] == "failed"
    assert "older" in str(failed["error"])
    assert run("cache", "info", capsys=capsys)["seq"] == 2


def test_sync_now_rereads_and_repairs_what_is_damaged(
    home: Path, sandbox: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sync = ("sync", "--from", str(sandbox / "public"), "--root", str(sandbox / "root.json"))
    run(*sync, capsys=capsys)
    base = home / "cache" / "current" / "base.db"
    whole = base.read_bytes()
    middle = len(whole) // 2
    base.write_bytes(whole[:middle] + b"rotten" + whole[middle + 6 :])
    assert run(*sync, capsys=capsys)["outcome"] == "fresh"
    repaired = run(*sync, "--recheck", capsys=capsys)
    assert (repaired["outcome"], repaired["seq_before"], repaired["seq_after"]) == ("snapshot", 1, 1)
    assert "the set in use was damaged: base: digest" in repaired["notes"]  # type: ignore[operator]
    assert base.read_bytes() == whole
    assert run(*sync, "--recheck", capsys=capsys)["outcome"] == "fresh"


def test_retry_tells_when_it_tries_again_and_ends_when_it_is_done(
    home: Path, root: Path, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("scripts.cli.cache.time.sleep", slept.append)
    real = HttpFetcher.fetch

    def fetch(self: HttpFetcher, path: str, max_length: int) -> Iterator[bytes]:
        if len(slept) < 3:
            raise FetchError(path, "no connection, or it broke off")
        return real(self, path, max_length)

    monkeypatch.setattr(HttpFetcher, "fetch", fetch)
    assert main(["sync", "--from", url, "--root", str(root)]) == 1  # a failure from before counts too
    assert main(["sync", "--from", url, "--retry"]) == 0
    shown = capsys.readouterr()
    assert shown.err.count("no connection, or it broke off; trying again at ") == 3
    assert "sync done (snapshot)" in shown.out
    minutes = [int(seconds // 60) for seconds in slept]
    assert [low <= m <= low * 1.25 for low, m in zip((2, 4, 8), minutes, strict=True)] == [True] * 3
    assert run("cache", "info", capsys=capsys)["failures"] == 0


@pytest.mark.parametrize(
    "words", [("--hot", "--recheck"), ("--from", ".", "--retry"), ("--from", "no such folder"), ("--from", "ftp://x")]
)
def test_what_does_not_go_together_is_wrong_usage_or_refused(
    words: tuple[str, ...], home: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sync", "--from", "http://127.0.0.1:9", "--root", str(root), *words]) in (1, 2)
    assert one_line(capsys)
    assert not (home / "cache").exists()


def test_a_folder_that_is_not_there_is_named(home: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sync", "--from", "no such folder", "--root", str(root)]) == 2
    assert "--from: no such folder: no such folder, and not an http or https address" in capsys.readouterr().err


def test_a_sync_that_needs_the_epoch_key_says_how_it_comes(
    home: Path, sandbox: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    public = str(sandbox / "public")
    assert main(["sync", "--from", public, "--root", str(sandbox / "root.json")]) == 0
    lapse(sandbox, 0)
    assert main(["sandbox", "publish", "--folder", str(sandbox)]) == 0
    capsys.readouterr()
    assert main(["sync", "--from", public]) == 1
    how = "they were made under: run 'markcheck shift begin' (sandbox: --epoch-key FILE)"
    assert capsys.readouterr().err.endswith(f"{how}\n")
    assert str(run("sync", "--from", public, capsys=capsys, status=1)["error"]).endswith(how)


@pytest.mark.parametrize(
    "words",
    ["--trust-only --hot", "--trust-only --snapshot", "--hot --accept-large", "--region tibet", "--hot --scale 99"],
)
def test_options_of_publish_that_exclude_each_other(
    words: str, sandbox: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(sandbox / "public")
    capsys.readouterr()
    assert main(["sandbox", "publish", "--folder", str(sandbox), *words.split()]) == 2
    assert files(sandbox / "public") == before


def test_publish_says_what_a_night_became(sandbox: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lapse(sandbox, 0)
    capsys.readouterr()
    assert main(["sandbox", "publish", "--folder", str(sandbox)]) == 0
    assert re.search(r"no\. 2: 400 vehicles, delta of \d+ bytes, [12] rows changed", capsys.readouterr().err)
    assert main(["sandbox", "publish", "--folder", str(sandbox), "--snapshot"]) == 0
    assert "snapshot (asked for)" in capsys.readouterr().err


def test_no_plate_can_be_found_in_any_file_report_or_log_after_syncs_of_deltas_and_hot_rows(
    home: Path, sandbox: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """As `strings` over the whole card would look for one: what a check leaves in the audit log is not in question."""
    caplog.set_level(logging.DEBUG)
    began = list(AuthorityFolder(sandbox).open(clock=system_clock).registry.vehicles.values())
    key = sandbox / "private" / "epoch.key"
    with serve(FolderStore(sandbox / "public")) as server:
        sync = ("sync", "--from", server.url)
        assert main([*sync, "--root", str(sandbox / "root.json"), "--epoch-key", str(key)]) == 0
        lapse(sandbox, 0)
        assert main(["sandbox", "publish", "--folder", str(sandbox)]) == 0
        assert main([*sync, "--json"]) == 0
        lapse(sandbox, 1)
        assert main(["sandbox", "publish", "--folder", str(sandbox), "--hot"]) == 0
        assert main([*sync, "--hot", "--json"]) == 0
    assert main(["sync", "--from", "http://127.0.0.1:9/"]) == 1  # and a failure in state.db
    assert main(["cache", "info", "--json"]) == 0
    assert main(["cache", "info"]) == 0
    held = files(home)
    names = {path.rpartition("/")[2] for path in held}
    assert {"state.db", "base.db", "changes.db", "hot.cose", "index.cbor", "timestamp.json"} <= names
    told = capfd.readouterr()
    assert '"outcome": "deltas"' in told.out
    assert '"outcome": "hot"' in told.out
    held |= {"stdout": told.out.encode(), "stderr": told.err.encode(), "log": caplog.text.encode()}
    secrets = {form for vehicle in began for form in forms(vehicle.plate)}
    secrets |= {form for vehicle in began if vehicle.tid for form in (vehicle.tid.encode(), bytes.fromhex(vehicle.tid))}
    for path, data in held.items():
        assert not [secret for secret in secrets if secret in data], path
