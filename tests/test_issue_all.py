"""All credentials at once: who gets one, that the codes are good, and that a run may be cut off at any moment."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from firmware.build import build_device
from firmware.config import REGION, Home
from scripts.cli.main import main
from scripts.sandbox.authority import AuthorityFolder
from scripts.sandbox.folder_store import FolderStore, MemoryFetcher
from scripts.sandbox.issue_all import ENTRIES, LINE, MANIFEST, Report, daily, issue_all
from scripts.sandbox.issue_sources import FromAuthority, FromCountry, Source, is_valid
from scripts.sandbox.national import National
from scripts.sandbox.registry import ACTIVE, RegistryError
from verifier.cache.swap import file_digest
from verifier.cache.values import from_wide
from verifier.check import Observation
from verifier.durable import unfinished
from verifier.secret_files import write_secret
from verifier.snapshot import NoSpaceError
from verifier.sync import SyncClient
from verifier.trust import load_trust_list
from verifier.types import Month
from verifier.verdict import Tone, VerdictCode
from verifier.verify import verify_text

NOW = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
MONTH = Month.at(NOW)
SCALE = 400


def country(out: Path, issued_at: datetime, scale: int = SCALE, seed: int = 3) -> Source:
    return FromCountry(scale, seed, issued_at, out)


def issue(out: Path, source: Any = None, **options: Any) -> Report:
    options = {"per_shard": 20, "clock": lambda: NOW} | options
    return issue_all(source or partial(country, out), out, **options)


def lines(out: Path) -> list[dict[str, str]]:
    """Of all shards that can be seen in the folder; each must be whole."""
    return [json.loads(line) for path in sorted(out.glob("*.gz")) for line in gzip.open(path, "rt", encoding="utf-8")]


# --------------------------------------------------------------------------------------- who gets which code


def test_every_valid_vehicle_of_an_authority_gets_its_code_and_no_other_does(tmp_path):
    folder = AuthorityFolder(tmp_path / "sandbox")
    authority = folder.create(clock=lambda: NOW, scale=SCALE, seed=5)
    registry = authority.registry
    revoked = next(v for v in registry.vehicles.values() if is_valid(v.record(), MONTH))
    folder.record(authority, {"event": "revoke", "plate": revoked.plate.text, "kind": revoked.plate.kind})
    issue(tmp_path / "out", partial(FromAuthority, folder.folder))
    entries = {v.plate: registry.credential(v.plate) for v in registry.vehicles.values() if is_valid(v.record(), MONTH)}
    active = {entry.serial for entry in entries.values() if registry.states[entry.index] == ACTIVE}
    assert sorted(line["serial"] for line in lines(tmp_path / "out")) == sorted(active)
    assert registry.credential(revoked.plate).serial not in active
    assert 0 < len(active) < SCALE


def test_codes_drawn_from_every_issuers_shards_are_green_on_a_device_of_the_authority(tmp_path):
    folder, out = AuthorityFolder(tmp_path / "sandbox"), tmp_path / "out"
    authority = folder.create(clock=lambda: NOW, scale=SCALE, seed=5)
    folder.record_key(authority, "rotate-key", "110000")
    authority.publish()
    issue(out, partial(FromAuthority, folder.folder))
    home = Home(tmp_path / "device")
    home.folder.mkdir()
    write_secret(home.epoch_key, authority.epoch_key.hex().encode())
    fetcher = MemoryFetcher(dict(authority.store))
    SyncClient(home.cache, fetcher, lambda: NOW, authority.publisher.root_bytes(), REGION).refresh()
    drawn = {line["serial"]: line["text"] for path in out.glob("*-00000.jsonl.gz") for line in _first(path)}
    assert len(drawn) == 16
    with closing((device := build_device(home, lambda: NOW)).store):
        for text in drawn.values():
            verdict = device.verifier.check(Observation(code=text.encode())).verdict
            assert verdict.code is VerdictCode.VALID
            assert verdict.tone in (Tone.PASS, Tone.NOTE)  # a note where the register has more to say


def _first(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(file.readline())]


def test_the_countrys_codes_verify_under_the_trust_list_beside_them_and_are_those_of_its_valid_vehicles(tmp_path):
    report = issue(tmp_path)
    trust = load_trust_list((tmp_path / ENTRIES).read_bytes())
    found = lines(tmp_path)
    for line in found:
        verified = verify_text(line["text"], trust, NOW)
        assert verified.fault is None
        credential = verified.credential
        assert (credential.plate.text, credential.plate.kind) == (line["plate"], line["kind"])
        assert (credential.serial, credential.valid_until >= MONTH) == (line["serial"], True)
    fleet = National(SCALE, 3, NOW.date(), bytes(32))
    numbers = fleet.numbers(np.arange(SCALE))
    facts = zip(fleet.plates(numbers), fleet.wides(numbers).tolist(), strict=True)
    due = [plate for plate, wide in facts if is_valid(from_wide(wide, plate), MONTH)]
    assert sorted((line["plate"], line["kind"]) for line in found) == sorted((p.text, p.kind) for p in due)
    assert report.credentials == len(found) == len({line["serial"] for line in found})
    assert 0 < len(found) < SCALE


def test_the_manifest_says_of_each_shard_what_is_in_it(tmp_path):
    report = issue(tmp_path)
    shards = json.loads((tmp_path / MANIFEST).read_text())["shards"]
    assert [shard["file"] for shard in shards] == sorted(path.name for path in tmp_path.glob("*.gz"))
    assert sum(shard["vehicles"] for shard in shards) == SCALE
    for shard in shards:
        path = tmp_path / shard["file"]
        with gzip.open(path, "rt", encoding="utf-8") as file:
            serials = [json.loads(line)["serial"] for line in file]
        assert (shard["count"], shard["length"]) == (len(serials), path.stat().st_size)
        assert shard["sha256"] == file_digest(path).hex()
        assert [shard["first"], shard["last"]] == ([serials[0], serials[-1]] if serials else [None, None])
        assert shard["vehicles"] <= 20
        assert shard["length"] < 100 + LINE * 20
    assert report.written == report.whole


def test_several_processes_issue_to_the_same_vehicles_as_one(tmp_path):
    options = {"source": None, "limit": 60}
    alone, together = issue(tmp_path / "a", **options), issue(tmp_path / "b", **options, processes=2)
    assert [s["serial"] for s in lines(tmp_path / "a")] == [s["serial"] for s in lines(tmp_path / "b")]
    assert [(s.file, s.first, s.last) for s in alone.whole] == [(s.file, s.first, s.last) for s in together.whole]
    trust = load_trust_list((tmp_path / "b" / ENTRIES).read_bytes())
    assert all(verify_text(line["text"], trust, NOW).fault is None for line in lines(tmp_path / "b"))


def test_a_limit_is_the_first_vehicles_alone(tmp_path):
    report = issue(tmp_path, limit=47)
    assert sum(shard.vehicles for shard in report.whole) == 47
    assert max(shard.vehicles for shard in report.whole) == 20


# -------------------------------------------------------------------------------------------- interruptions


def test_a_run_that_is_killed_leaves_whole_shards_and_the_next_one_goes_on(tmp_path):
    line = [
        sys.executable, "-m", "scripts.cli.main", "sandbox", "issue-all", "--out", str(tmp_path), "--scale", "4000",
        "--per-shard", "40", "--processes", "2", "--limit", "2400",
    ]  # fmt: skip
    run = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _until(lambda: len(_manifest(tmp_path)) >= 3 or run.poll() is not None)
        workers = _children(run.pid)
        assert workers
    finally:
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
    _until(lambda: not any(_runs(pid) for pid in workers))
    before = {shard["file"]: shard["sha256"] for shard in _manifest(tmp_path)}
    assert len(before) >= 3, "it had not been at work"
    assert sum(shard["vehicles"] for shard in _manifest(tmp_path)) < 2400, "it was over already"
    assert lines(tmp_path)  # every shard that can be seen is whole
    assert all(file_digest(tmp_path / name).hex() == sha256 for name, sha256 in before.items())
    assert subprocess.run(line, check=False, stdout=subprocess.DEVNULL).returncode == 0
    after = {shard["file"]: shard["sha256"] for shard in _manifest(tmp_path)}
    assert sum(shard["vehicles"] for shard in _manifest(tmp_path)) == 2400
    assert before.items() <= after.items(), "nobody gets a second credential"
    serials = [line["serial"] for line in lines(tmp_path)]
    assert len(serials) == len(set(serials))
    trust = load_trust_list((tmp_path / ENTRIES).read_bytes())
    now = datetime.fromisoformat(json.loads((tmp_path / MANIFEST).read_text())["issued_at"])
    assert all(verify_text(line["text"], trust, now).fault is None for line in lines(tmp_path)[::50])


def _manifest(out: Path) -> list[dict[str, Any]]:
    path = out / MANIFEST
    return json.loads(path.read_text())["shards"] if path.exists() else []


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _until(holds: Any, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_shard_that_is_damaged_or_gone_is_written_anew_and_no_other(tmp_path):
    first = issue(tmp_path, limit=80)
    names = [shard.file for shard in first.whole]
    (tmp_path / names[0]).write_bytes(b"")
    (tmp_path / names[2]).unlink()
    later = issue(tmp_path, limit=80, clock=lambda: NOW + timedelta(hours=5))
    assert [shard.file for shard in later.written] == [names[0], names[2]]
    assert len(later.whole) == len(first.whole)
    trust = load_trust_list((tmp_path / ENTRIES).read_bytes())
    issued = {verify_text(line["text"], trust, NOW).credential.issued_at for line in lines(tmp_path)}
    assert issued == {NOW}, "one run has one moment of issue, however often it was cut off"


def test_a_folder_with_shards_of_another_run_is_refused_and_stays_as_it_is(tmp_path):
    issue(tmp_path / "out", limit=40)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.*")}
    for options in ({"limit": 60}, {"limit": 40, "per_shard": 10}):
        with pytest.raises(RegistryError, match="another run"):
            issue(tmp_path / "out", **options)
    with pytest.raises(RegistryError, match="another run"):
        issue(tmp_path / "out", lambda at: country(tmp_path / "out", at, seed=4), limit=40)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.*")} == before


def test_a_folder_with_anything_else_in_it_is_refused_and_an_authority_keeps_its_keys(tmp_path):
    folder = AuthorityFolder(tmp_path / "sandbox")
    folder.create(clock=lambda: NOW, scale=64, seed=5)
    before = {path: path.read_bytes() for path in folder.private.glob("*.pem")}
    with pytest.raises(RegistryError, match="neither empty"):
        issue(folder.folder)
    assert {path: path.read_bytes() for path in folder.private.glob("*.pem")} == before
    for text in ("", "[]", "{}", '{"issued_at": "x", "shards": []}'):
        (tmp_path / MANIFEST).write_text(text)
        with pytest.raises(RegistryError, match="not a manifest"):
            issue(tmp_path)


def test_what_happens_in_the_register_meanwhile_is_not_mixed_into_a_run(tmp_path):
    folder, out = AuthorityFolder(tmp_path / "sandbox"), tmp_path / "out"
    authority = folder.create(clock=lambda: NOW, scale=64, seed=5)
    issue(out, partial(FromAuthority, folder.folder))
    plate = next(iter(authority.registry.vehicles))
    folder.record(authority, {"event": "revoke", "plate": plate.text, "kind": plate.kind})
    with pytest.raises(RegistryError, match="another run"):
        issue(out, partial(FromAuthority, folder.folder))


def test_a_disk_that_is_too_small_is_told_before_anything_is_signed(tmp_path):
    with pytest.raises(NoSpaceError, match="free"):
        issue(tmp_path, free_space=lambda _: SCALE * LINE)
    assert list(tmp_path.glob("*.gz")) == []


def test_a_run_that_was_cut_off_at_its_very_first_line_goes_on_too(tmp_path):
    unfinished(tmp_path / MANIFEST).write_text('{"format"')
    assert issue(tmp_path, limit=20).credentials == len(lines(tmp_path))


def test_two_runs_do_not_write_into_one_folder(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with FolderStore(out).exclusive(), pytest.raises(RegistryError, match="another process"):
        issue(out)


def test_private_keys_are_readable_by_this_user_alone(tmp_path):
    issue(tmp_path, limit=40)
    keys = list((tmp_path / "private").glob("*.pem"))
    assert len(keys) == 31
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in keys)
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o700


# --------------------------------------------------------------------------------------------------- the command


def test_the_command_tells_its_rate_and_what_the_country_and_a_day_take(tmp_path, capsys):
    line = ["sandbox", "issue-all", "--out", str(tmp_path), "--scale", "300", "--processes", "1"]
    assert main([*line, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["vehicles"], told["shards"], told["shards_written"]) == (300, 31, 31)
    assert told["credentials"] == len(lines(tmp_path))
    rate = told["per_core_a_second"]
    assert rate > 0
    assert told["country_core_hours"] == pytest.approx(42_250_000 / rate / 3600, rel=0.01)
    assert told["day_core_hours"] == pytest.approx(daily() / rate / 3600, rel=0.01)
    assert 42_250_000 / 30 < daily() < 42_250_000 / 25
    assert main(line) == 0
    out = capsys.readouterr().out
    assert "31 shards, 0 of them now" in out
    assert "one core" not in out, "nothing was signed, so there is no rate"


def test_without_an_authority_nothing_is_begun(tmp_path, capsys):
    line = ["sandbox", "issue-all", "--out", str(tmp_path / "out"), "--folder", str(tmp_path / "none")]
    assert main(line) == 1
    assert "no sandbox authority" in capsys.readouterr().err
    assert list((tmp_path / "out").glob("*")) == []


def test_a_vehicle_that_is_overdue_or_out_of_the_register_has_no_credential_coming():
    fleet = National(2000, 3, NOW.date(), bytes(32))
    numbers = fleet.numbers(np.arange(2000))
    record = from_wide(int(fleet.wides(numbers)[0]), fleet.plates(numbers)[0])
    good = replace(record, status=frozenset("A"), inspection_valid_until=MONTH)
    assert is_valid(good, MONTH)
    assert not is_valid(replace(good, inspection_valid_until=MONTH.plus(-1)), MONTH)
    for letters in ("AQ", "E"):
        assert not is_valid(replace(good, status=frozenset(letters)), MONTH)
