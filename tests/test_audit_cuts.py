"""No acknowledged record is lost when the program is killed or the power is cut, and the chain goes on behind it."""

from __future__ import annotations

import random
import selectors
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from scripts.bench.crashed_disk import Disk, contents, in_hex, strace
from scripts.sandbox.audit_keys import open_log
from tests.conftest import ROOT
from tests.sealed_logs import PRIVATE, record, sealed_log, write_key
from verifier.audit_file import read_lines

MANY = 1_000_000  # records; more than a process writes before it is killed
LONGEST = 60.0  # seconds until the first record


def writer(log: Path, key: Path, count: int, wrapped: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    command = [*wrapped, sys.executable, "-m", "tests.sealed_logs", str(log), str(key), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT)


def killed(log: Path, key: Path, draw: random.Random) -> list[str]:
    """The numbers of the records that a process acknowledged before it was killed at a random moment."""
    with writer(log, key, MANY) as process:
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            assert selector.select(LONGEST), "nothing was written"
        time.sleep(draw.uniform(0, 0.05))
        process.kill()
        said = process.stdout.read()
    return [record(int(number))["id"] for number in said.splitlines(keepends=True) if number.endswith(b"\n")]


def kill_writers(folder: Path, times: int) -> int:
    """Kill so many writers of one log; how many records were acknowledged, all of which are there in order."""
    log, key, draw = folder / "log", write_key(folder / "key.pem"), random.Random(times)
    acknowledged: list[list[str]] = []
    for _ in range(times):
        acknowledged.append(killed(log, key, draw))
        assert acknowledged[-1]
    sessions: list[list[str]] = []
    for one in open_log(log, PRIVATE):
        if one.record is not None:
            sessions[-1].append(one.record["id"])
        elif one.sealed:
            sessions.append([])
    written = iter(sessions)
    for ids in acknowledged:
        session = next(found for found in written if found[: len(ids)] == ids)
        assert len(session) <= len(ids) + 1, "at most the one that was not acknowledged yet"
    sealed_log(log, 1)
    assert list(open_log(log, PRIVATE))
    return sum(map(len, acknowledged))


def test_a_writer_killed_at_any_moment_loses_no_acknowledged_record(tmp_path):
    assert kill_writers(tmp_path, 10) > 10


@pytest.mark.long
def test_sixty_killed_writers_lose_no_acknowledged_record(tmp_path):
    acknowledged = kill_writers(tmp_path, 60)
    print(acknowledged)
    assert acknowledged > 100


def replay_cuts(folder: Path, seed: int, count: int, cuts: int) -> int:
    """So many crashed disks of one run of appends; how many records were acknowledged on them, none of them lost."""
    if shutil.which("strace") is None:
        pytest.skip("recording system calls needs strace")
    draw, calls, checked = random.Random(seed), folder / "calls", 0
    home, crashed, key = folder / "home", folder / "crashed", write_key(folder / "key.pem")
    home.mkdir()
    before = [Disk(home, strict=strict) for strict in (True, False)]
    with writer(home / "log", key, count, strace(calls)) as process:
        said, _ = process.communicate()
    if process.returncode != 0:
        pytest.skip("strace records nothing here")
    assert len(said.split()) == count
    lines = [
        line for line in calls.read_text(encoding="ascii").splitlines()
        if in_hex(home) in line or line.startswith("write(1<")
    ]  # fmt: skip
    moments = sorted(draw.choices(range(len(lines) + 1), k=cuts))
    acknowledged = 0
    for number, line in enumerate([*lines, ""]):
        for _ in range(moments.count(number)):
            draw.choice(before).crashed(draw, crashed)
            assert_kept(crashed / "log", acknowledged, go_on=draw.random() < 0.2)
            checked += acknowledged
            shutil.rmtree(crashed)
        if line.startswith("write(1<"):
            acknowledged += 1
            continue
        for disk in before:
            disk.replay(line)
    assert acknowledged == count
    before[0].whole(crashed)
    assert contents(crashed) == contents(home), "the record is not all that happened"
    return checked


def assert_kept(log: Path, acknowledged: int, *, go_on: bool) -> None:
    """The log holds what was acknowledged, in one chain that opens, and takes more."""
    if not log.exists():
        assert acknowledged == 0, "acknowledged, and its file is gone"
        return
    if go_on:
        sealed_log(log, 1)
    found = [one.record["id"] for one in open_log(log, PRIVATE) if one.record is not None]
    expected = [record(number)["id"] for number in range(acknowledged)]
    assert found[:acknowledged] == expected, "acknowledged, and not there"
    assert all(line.number for line in read_lines(log))


def test_a_power_cut_at_any_moment_loses_no_acknowledged_record(tmp_path):
    assert replay_cuts(tmp_path, 1, 12, 200) > 0


@pytest.mark.long
def test_thousands_of_power_cuts_lose_no_acknowledged_record(tmp_path):
    checked = replay_cuts(tmp_path, 2, 60, 3000)
    print(checked)
    assert checked > 10_000


def test_the_replay_sees_records_that_were_acknowledged_before_they_were_on_the_disk(tmp_path, monkeypatch):
    """Without the sync of data, or of the new file's name, the same replay finds lost records: it is not blind."""
    source = tmp_path / "sitecustomize.py"
    for missing in ("os.fdatasync = lambda handle: None", "os.fsync = lambda handle: None"):
        source.write_text(f"import os\n{missing}\n", encoding="utf-8")
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
        folder = tmp_path / missing[:9]
        folder.mkdir()
        with pytest.raises(AssertionError, match="acknowledged, and"):
            replay_cuts(folder, 3, 12, 200)


def test_programs_that_append_at_the_same_time_leave_one_chain_with_all_records(tmp_path):
    key = write_key(tmp_path / "key.pem")
    writers = [writer(tmp_path / "log", key, 20) for _ in range(3)]
    assert [len(process.communicate()[0].split()) for process in writers] == [20] * 3
    assert len([one for one in open_log(tmp_path / "log", PRIVATE) if one.record]) == 60
