"""The units of the appliance: that they are sound, tight, and start what there is."""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from firmware.alive import Watchdog
from firmware.start import LAST_GOOD
from scripts.cli.main import cli
from scripts.sandbox.server import serve
from tests.conftest import ROOT
from tests.nightly import EPOCH_KEY, Night
from tests.test_install import installed_tree
from tests.test_run import manager
from verifier.clock import system_clock
from verifier.net import HttpFetcher, read_file

UNITS = ROOT / "systemd"
SERVICES = sorted(UNITS.glob("*.service"))
TIMERS = sorted(UNITS.glob("*.timer"))
PROGRAM = "/opt/markcheck/current/"
DEMO = (ROOT / "docs/examples/demo.toml").read_text()

needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze, of Debian's package systemd, is not installed"
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed_tree(tmp_path_factory.mktemp("appliance"))


@pytest.fixture
def appliance(root: Path, tmp_path: Path) -> Iterator[Path]:
    """The same tree, with settings of a device without hardware."""
    config = root / "etc/markcheck/markcheck.toml"
    kept = config.read_text()
    config.write_text(DEMO)
    yield root
    config.write_text(kept)


def lines(unit: Path, name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", unit.read_text(), re.MULTILINE)


def line(unit: Path, name: str) -> str:
    (value,) = lines(unit, name)
    return value


def environment(unit: Path) -> dict[str, str]:
    return dict(word.split("=", 1) for value in lines(unit, "Environment") for word in shlex.split(value))


def commands(unit: Path) -> list[list[str]]:
    return [shlex.split(value) for name in ("ExecStart", "ExecStopPost") for value in lines(unit, name)]


def in_tree(root: Path, word: str) -> str:
    return f"{root}{word}" if word.startswith(("/opt/", "/etc/")) else word


def by_hand(root: Path, unit: Path, home: Path) -> tuple[list[str], dict[str, str]]:
    """What the unit starts, and its variables, in a tree and with a home of its own."""
    words = [in_tree(root, word) for word in commands(unit)[0]]
    home.mkdir(exist_ok=True)
    return words, {
        **{name: value for name, value in os.environ.items() if not name.startswith("MARKCHECK_")},
        **environment(unit), "MARKCHECK_HOME": str(home), "MARKCHECK_RUN": str(home), "LG_WD": str(home),
    }  # fmt: skip


# ----------------------------------------------------------------------------------------------- sound and tight


@needs_analyze
def test_the_service_manager_finds_nothing_wrong_with_any_unit(root: Path, tmp_path: Path) -> None:
    for unit in (*SERVICES, *TIMERS):
        (tmp_path / unit.name).write_text(unit.read_text().replace(PROGRAM, f"{root}{PROGRAM}"))
    (tmp_path / "bad.service").write_text("[Service]\nExecStart=/nowhere\nFrob=1\n")

    def verify(*names: str) -> str:
        run = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", *names], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        return "\n".join(line for line in run.stderr.splitlines() if str(tmp_path) in line or "markcheck" in line)

    assert "Frob" in verify("./bad.service")  # it does find what is wrong
    assert verify(*(f"./{unit.name}" for unit in (*SERVICES, *TIMERS))) == ""


@needs_analyze
@pytest.mark.parametrize("unit", SERVICES, ids=lambda p: p.name)
def test_the_exposure_of_a_unit_is_two_at_most(unit: Path) -> None:
    run = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", unit],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-300:] + run.stderr[-300:]


@pytest.mark.parametrize("unit", SERVICES, ids=lambda p: p.name)
def test_no_unit_runs_as_root_dumps_its_memory_or_hides_what_the_program_reads(unit: Path) -> None:
    assert line(unit, "User") == "markcheck"
    assert line(unit, "LimitCORE") == "0"
    runs_the_program = any("/venv/" in word for command in commands(unit) for word in command)
    if runs_the_program:  # the boot's name witnesses for the clock, and lies below /proc/sys
        assert "ProcSubset=pid" not in unit.read_text().replace("# Not ProcSubset=pid", "")
        assert environment(unit)["MARKCHECK_RUN"] in lines(unit, "ReadWritePaths")


# ----------------------------------------------------------------------------------------------- what they start


def click_words(words: list[str]) -> list[str]:
    """The words for `markcheck`; sync-by-settings adds what the settings say to its own."""
    if words[0].endswith("/bin/markcheck"):
        return words[1:]
    if words[1].endswith("/sync-by-settings"):
        return ["sync", "--from", "https://distribution.example/", "--region", "national", *words[3:]]
    return []


STARTED = [(unit, words) for unit in SERVICES for words in commands(unit)]


@pytest.mark.parametrize(("unit", "words"), STARTED, ids=lambda v: v.name if isinstance(v, Path) else v[-1])
def test_every_command_of_a_unit_is_there_and_takes_its_options(unit: Path, words: list[str], root: Path) -> None:
    words = [in_tree(root, word.lstrip("-") if word is words[0] else word) for word in words]
    assert os.access(words[0], os.X_OK)
    assert all(Path(word).exists() for word in words if word.startswith("/"))
    command, rest = cli, click_words(words)
    context = click.Context(cli)
    while rest and isinstance(command, click.Group):
        name = rest.pop(0)
        found = command.get_command(context, name)
        assert found is not None, name
        command = found
    if command is not cli:
        command.make_context("markcheck", rest)  # raises for what it does not take


def test_the_program_of_the_unit_says_ready_feeds_the_watchdog_and_ends_well(appliance: Path, tmp_path: Path) -> None:
    words, variables = by_hand(appliance, UNITS / "markcheck.service", tmp_path / "home")
    with manager(tmp_path) as ear:
        process = subprocess.Popen(
            words, env={**variables, "NOTIFY_SOCKET": str(tmp_path / "notify")}, cwd=tmp_path, stderr=subprocess.PIPE
        )
        try:
            told: set[bytes] = set()
            while not {b"READY=1", b"WATCHDOG=1"} <= told:
                told.add(ear.recv(100))
            process.send_signal(signal.SIGTERM)
            _, remarks = process.communicate(timeout=15)
        finally:
            process.kill()
    assert (process.returncode, remarks) == (0, b"")
    assert (tmp_path / "home" / LAST_GOOD).exists()


def test_the_nightly_and_the_hot_sync_take_their_source_from_the_settings(appliance: Path, tmp_path: Path) -> None:
    night = Night(clock=system_clock)
    night.publish()
    home = tmp_path / "home"
    with serve(night.store) as server:
        for unit in (UNITS / "markcheck-sync.service", UNITS / "markcheck-hot.service"):
            words, variables = by_hand(appliance, unit, home)
            with HttpFetcher(server.url) as fetcher:  # provisioning
                (home / "root.json").write_bytes(read_file(fetcher, "metadata/1.root.json", 1 << 16))
            (home / "epoch.key").write_text(EPOCH_KEY.hex())
            (home / "epoch.key").chmod(0o600)
            settings = f'{DEMO}\n[sync]\nsource = "{server.url}"\nregion = "{night.region}"\n'
            (appliance / "etc/markcheck/markcheck.toml").write_text(settings)
            run = subprocess.run(words, env=variables, cwd=tmp_path, capture_output=True, text=True, check=False)
            assert run.returncode == 0, run.stderr
            assert ("sync done" if "sync" in unit.stem else "hot list") in run.stdout
            condition = lines(unit, "ConditionPathExists")
            assert all(Path(path.replace("/var/lib/markcheck", str(home))).exists() for path in condition)


def test_without_a_source_a_sync_says_so_and_a_card_is_not_tried_again(appliance: Path, tmp_path: Path) -> None:
    words, variables = by_hand(appliance, UNITS / "markcheck-sync.service", tmp_path / "home")
    run = subprocess.run(words, env=variables, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "markcheck: no sync.source is set\n")
    (appliance / "etc/markcheck/markcheck.toml").write_text(f'{DEMO}\n[sync]\nsource = "{tmp_path / "no-card"}"\n')
    run = subprocess.run(words, env=variables, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert "--retry" not in run.stderr
    assert "folder" in run.stderr


def test_settings_that_cannot_be_used_leave_the_last_good_ones_in_force_for_a_sync_too(
    appliance: Path, tmp_path: Path
) -> None:
    words, variables = by_hand(appliance, UNITS / "markcheck-hot.service", tmp_path / "home")
    (appliance / "etc/markcheck/markcheck.toml").write_text("[sync]\nsource = 5\n")
    run = subprocess.run(words, env=variables, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "sync.source" in run.stderr
    (tmp_path / "home" / LAST_GOOD).write_text(DEMO)
    run = subprocess.run(words, env=variables, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "markcheck: no sync.source is set\n")


# ----------------------------------------------------------------------------------------------- failing and time


def test_a_program_that_hangs_is_back_within_fifteen_seconds_and_it_is_fed_in_time() -> None:
    unit = UNITS / "markcheck.service"
    dead = int(line(unit, "WatchdogSec")) + int(line(unit, "TimeoutAbortSec")) + int(line(unit, "RestartSec"))
    assert dead <= 15
    feeding = inspect.signature(Watchdog).parameters["every_ms"].default
    assert 3 * feeding <= int(line(unit, "WatchdogSec")) * 1000


def test_the_officers_program_is_started_anew_whatever_it_ends_of_and_never_given_up() -> None:
    unit = UNITS / "markcheck.service"
    assert line(unit, "Restart") == "always"
    assert line(unit, "StartLimitIntervalSec") == "0"
    assert lines(unit, "RestartPreventExitStatus") == []


def note(home: Path, unit: str, **told: str) -> list[str]:
    variables = {"PATH": os.environ["PATH"], "MARKCHECK_HOME": str(home), **told}
    subprocess.run([UNITS / "libexec/note-failure", unit], env=variables, check=True)
    log = home / "failures.log"
    return log.read_text().splitlines() if log.exists() else []


def test_how_a_unit_failed_is_on_the_card_and_that_it_ended_well_is_not(tmp_path: Path) -> None:
    assert note(tmp_path, "markcheck", SERVICE_RESULT="success", EXIT_CODE="exited", EXIT_STATUS="0") == []
    (first,) = note(tmp_path, "markcheck", SERVICE_RESULT="watchdog", EXIT_CODE="killed", EXIT_STATUS="ABRT")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ markcheck watchdog killed/ABRT", first)
    monitored = {"MONITOR_SERVICE_RESULT": "exit-code", "MONITOR_EXIT_CODE": "exited", "MONITOR_EXIT_STATUS": "1"}
    assert note(tmp_path, "markcheck-sync", **monitored)[1].endswith("Z markcheck-sync exit-code exited/1")


def test_a_unit_that_fails_for_ever_does_not_fill_the_card(tmp_path: Path) -> None:
    (tmp_path / "failures.log").write_text("x" * 70_000 + "\n")
    assert len(note(tmp_path, "markcheck", SERVICE_RESULT="exit-code")) == 1
    (tmp_path / "failures.log").write_text("y" * 70_000 + "\n")
    note(tmp_path, "markcheck", SERVICE_RESULT="exit-code")
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 150_000


def test_every_timer_has_its_service_and_every_failure_its_handler() -> None:
    assert {timer.stem for timer in TIMERS} < {unit.stem for unit in SERVICES}
    handlers = [value for unit in SERVICES for value in lines(unit, "OnFailure")]
    assert handlers
    assert all((UNITS / re.sub(r"@.*\.", "@.", name)).exists() for name in handlers)


def test_the_night_begins_at_half_past_two_in_china_and_is_made_up_for() -> None:
    timer = UNITS / "markcheck-sync.timer"
    told = {name: line(timer, name) for name in ("RandomizedDelaySec", "FixedRandomDelay", "Persistent")}
    assert told == {"RandomizedDelaySec": "2h", "FixedRandomDelay": "true", "Persistent": "true"}
    assert line(timer, "OnBootSec") == "5min"  # a read-only system forgets when it last ran
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze, of Debian's package systemd, is not installed")
    command = ["systemd-analyze", "calendar", "--base-time=2027-03-01 00:00:00 UTC", line(timer, "OnCalendar")]
    run = subprocess.run(command, env={**os.environ, "TZ": "UTC"}, capture_output=True, text=True, check=True)
    assert "Mon 2027-03-01 18:30:00 UTC" in run.stdout


# ----------------------------------------------------------------------------------- users, devices, permissions


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="systemd-sysusers is not installed")
def test_the_user_and_the_groups_of_the_units_are_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    conf = UNITS / "sysusers.d/markcheck.conf"
    subprocess.run(["systemd-sysusers", f"--root={tmp_path}", conf], check=True, capture_output=True)
    groups = dict(re.findall(r"^(\w+):[^:]*:\d+:(.*)$", (tmp_path / "etc/group").read_text(), re.MULTILINE))
    assert re.search(
        r"^markcheck:.*:/var/lib/markcheck:.*nologin$", (tmp_path / "etc/passwd").read_text(), re.MULTILINE
    )
    for name in line(UNITS / "markcheck.service", "SupplementaryGroups").split():
        assert groups[name] == "markcheck"


@pytest.mark.skipif(shutil.which("systemd-tmpfiles") is None, reason="systemd-tmpfiles is not installed")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_the_folders_of_secrets_are_the_programs_alone(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    for tool, name in (("systemd-sysusers", "sysusers.d"), ("systemd-tmpfiles", "tmpfiles.d")):
        create = ["--create"] if tool == "systemd-tmpfiles" else []
        conf = UNITS / name / "markcheck.conf"
        subprocess.run([tool, *create, f"--root={tmp_path}", conf], check=True, capture_output=True)
    for name in ("var/lib/markcheck", "run/markcheck"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o700
        assert (tmp_path / name).stat().st_uid != 0


MATCH = r"(SUBSYSTEM|KERNEL|ACTION|ATTRS\{\w+\})(==|!=)\"[^\"]+\""
ASSIGN = r"((GROUP|MODE|ENV\{\w+\})=|(SYMLINK|RUN)\+=)\"[^\"]+\""


def test_each_device_rule_is_well_formed_and_names_a_group_of_the_unit() -> None:
    """udev says nothing of a line that it cannot read, and drops it."""
    rules = [
        text for text in (UNITS / "rules.d/80-markcheck.rules").read_text().splitlines() if text and text[0] != "#"
    ]
    groups = line(UNITS / "markcheck.service", "SupplementaryGroups").split()
    for rule in rules:
        assert re.fullmatch(rf"{MATCH}(, {MATCH})*(, {ASSIGN})+", rule), rule
        assert set(re.findall(r'GROUP="(\w+)"', rule)) <= set(groups)
    readers = [rule for rule in rules if 'SYMLINK+="markcheck-reader"' in rule]
    ids = [re.findall(r'ATTRS\{id\w+\}=="([0-9a-f]{4})"', rule) for rule in readers]
    assert len(ids) == len({tuple(pair) for pair in ids}) >= 3
    assert all(len(pair) == 2 for pair in ids)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_programs_user_may_switch_the_machine_off_and_nothing_else(tmp_path: Path) -> None:
    """The rule itself, in a JavaScript engine."""
    rule = (UNITS / "polkit/49-markcheck.rules").read_text()
    asked = [
        ("org.freedesktop.login1.power-off", "markcheck"),
        ("org.freedesktop.login1.power-off", "somebody"),
        ("org.freedesktop.login1.reboot", "markcheck"),
        ("org.freedesktop.systemd1.manage-units", "markcheck"),
    ]
    code = (
        "let rule; const polkit = {Result: {YES: 'yes'}, addRule: f => { rule = f; }};"
        f"{rule}\n"
        f"console.log(JSON.stringify({json.dumps(asked)}.map(([id, user]) => rule({{id}}, {{user}}) ?? null)))"
    )
    run = subprocess.run(["node", "-e", code], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == ["yes", None, None, None]


def test_the_command_for_people_uses_the_files_of_the_units() -> None:
    text = (UNITS / "libexec/markcheck").read_text()
    for unit in SERVICES:
        for name, value in environment(unit).items():
            assert f"{name}={value}" in text or name.startswith(("PYTHON", "GPIOZERO")), (unit.name, name)
