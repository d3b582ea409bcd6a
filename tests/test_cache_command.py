"""What `markcheck sync` stores of the files it is given, and what `markcheck cache info` leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.cli.main import main
from scripts.sandbox.publisher import Publisher
from scripts.sandbox.server import serve
from tests.nightly import EPOCH_KEY, Night
from verifier.clock import system_clock
from verifier.net import HttpFetcher, read_file


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


def test_cache_info_without_data(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "info"]) == 1
    assert "no data" in one_line(capsys)
    assert not home.exists()
