"""The units of the appliance: that they are sound, tight, and start what there is."""

from __future__ import annotations

import fcntl
import inspect
import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import termios
from collections.abc import Iterator
from datetime import timedelta
from fnmatch import fnmatch
from pathlib import Path

import click
import pytest

from firmware.alive import Watchdog
from firmware.config import Home
from firmware.console_session import WIDTH
from firmware.settings import LAST_GOOD
from scripts.cli.main import cli
from scripts.sandbox.audit_keys import open_log
from scripts.sandbox.server import serve
from tests.conftest import ROOT
from tests.nightly import EPOCH_KEY, Night
from tests.sealed_logs import KEY, PRIVATE, record
from tests.test_install import installed_tree
from tests.test_run import manager
from verifier.audit import AuditLog
from verifier.audit_file import log_head
from verifier.audit_upload import AcknowledgedHead
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


AS_ROOT = {"markcheck-update.service", "markcheck-roll-back.service"}


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
        (tmp_path / unit.name).write_text(unit.read_text().replace("=/opt/markcheck/", f"={root}/opt/markcheck/"))
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
def test_only_what_changes_releases_runs_as_root_and_no_unit_dumps_its_memory_or_hides_what_the_program_reads(
    unit: Path,
) -> None:
    assert line(unit, "User") == ("root" if unit.name in AS_ROOT else "markcheck")
    assert line(unit, "CapabilityBoundingSet") == ("CAP_DAC_OVERRIDE" if unit.name in AS_ROOT else "")
    assert line(unit, "LimitCORE") == "0"
    if unit.name in AS_ROOT:  # it has nothing of the program's files
        assert line(unit, "InaccessiblePaths") == "-/var/lib/markcheck -/run/markcheck"
        assert not {"StateDirectory", "MARKCHECK_HOME"} & set(re.findall(r"\w+", unit.read_text()))
        return
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


# A device is given its root with --trust-root, and its provisioning file on the boot partition.
GIVEN_LATER = {"/opt/markcheck/root.json", "/boot/firmware/markcheck-provision.cose"}
STARTED = [(unit, words) for unit in SERVICES for words in commands(unit)]


@pytest.mark.parametrize(("unit", "words"), STARTED, ids=lambda v: v.name if isinstance(v, Path) else v[-1])
def test_every_command_of_a_unit_is_there_and_takes_its_options(unit: Path, words: list[str], root: Path) -> None:
    words = [in_tree(root, word.lstrip("-") if word is words[0] else word) for word in words]
    assert os.access(words[0], os.X_OK)
    given_later = {in_tree(root, word) for word in GIVEN_LATER}
    assert all(Path(word).exists() for word in words if word.startswith("/") and word not in given_later)
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


def test_the_nightly_sync_takes_its_source_from_the_settings(appliance: Path, tmp_path: Path) -> None:
    night, unit = Night(clock=system_clock), UNITS / "markcheck-sync.service"
    night.publish()
    home = tmp_path / "home"
    with serve(night.store) as server:
        words, variables = by_hand(appliance, unit, home)
        with HttpFetcher(server.url) as fetcher:  # provisioning
            (home / "root.json").write_bytes(read_file(fetcher, "metadata/1.root.json", 1 << 16))
        (home / "epoch.key").write_text(EPOCH_KEY.hex())
        (home / "epoch.key").chmod(0o600)
        settings = f'{DEMO}\n[sync]\nsource = "{server.url}"\nregion = "{night.region}"\n'
        (appliance / "etc/markcheck/markcheck.toml").write_text(settings)
        run = subprocess.run(words, env=variables, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "sync done" in run.stdout
    condition = lines(unit, "ConditionPathExists")
    assert all(Path(path.replace("/var/lib/markcheck", str(home))).exists() for path in condition)


def test_the_hot_list_is_fetched_by_the_program_alone_which_knows_the_officers_word_on_the_network() -> None:
    assert not [words for _, words in STARTED if "--hot" in words]


def test_what_is_old_and_acknowledged_goes_though_the_centre_is_away(appliance: Path, tmp_path: Path) -> None:
    """The commands of the unit, in their order, and as far as the service manager goes on after a failure."""
    unit, home = UNITS / "markcheck-audit-upload.service", Home(tmp_path / "home")
    _, variables = by_hand(appliance, unit, home.folder)
    old = system_clock() - timedelta(days=40)
    AuditLog(home.audit, key=KEY, clock=lambda: old).append(record(0))
    AcknowledgedHead(home.audit_sent).save(log_head(home.audit))
    AuditLog(home.audit, key=KEY).append(record(1))
    home.online.write_text('url = "http://127.0.0.1:9/"\n')
    for first, *words in commands(unit):
        words = [in_tree(appliance, word) for word in (first.lstrip("-"), *words)]
        run = subprocess.run(words, env=variables, cwd=tmp_path, capture_output=True, text=True, check=False)
        if run.returncode and not first.startswith("-"):
            break
    assert run.returncode == 1
    assert words[-1] == "upload"
    assert [one.record for one in open_log(home.audit, PRIVATE) if one.record] == [record(1)]


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
    words, variables = by_hand(appliance, UNITS / "markcheck-sync.service", tmp_path / "home")
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


def test_an_update_comes_behind_the_sync_and_is_not_made_up_for_by_day() -> None:
    sync, update = UNITS / "markcheck-sync.timer", UNITS / "markcheck-update.timer"
    assert lines(update, "Persistent") == lines(update, "OnBootSec") == []
    assert line(update, "OnCalendar") == "*-*-* 04:30:00 Asia/Shanghai"  # the last sync begins by then
    assert (line(sync, "OnCalendar"), line(sync, "RandomizedDelaySec")) == ("*-*-* 02:30:00 Asia/Shanghai", "2h")


def test_what_goes_back_at_a_boot_is_the_script_of_the_release_that_works_and_comes_before_the_program() -> None:
    unit = UNITS / "markcheck-roll-back.service"
    assert line(unit, "Before") == "markcheck.service"
    assert line(unit, "ExecStart") == line(UNITS / "markcheck-update.service", "ExecStopPost")
    assert line(unit, "ExecStart").split()[-2:] == ["/opt/markcheck/confirmed/libexec/release", "back"]


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


MATCH = r"(SUBSYSTEM|KERNEL|ACTION|SYMLINK|ATTRS\{\w+\})(==|!=)\"[^\"]+\""
ASSIGN = r"((GROUP|MODE|ENV\{\w+\})=|(SYMLINK|RUN|TAG|ENV\{SYSTEMD_WANTS\})\+=)\"[^\"]+\""


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


def console_of(kernel: str, **attributes: str) -> list[str]:
    """The units that the device rules start for a new tty: our reading of the few keys in use (udev(7))."""
    links: list[str] = []
    wanted: list[str] = []
    for rule in (UNITS / "rules.d/80-markcheck.rules").read_text().splitlines():
        fits = {"SUBSYSTEM": ["tty"], "KERNEL": [kernel], "ACTION": ["add"], "SYMLINK": links}
        keys = re.findall(r'(\w+(?:\{\w+\})?)(==|!=|\+=|=)"([^"]*)"', rule)
        for key, sign, value in keys:
            has = [attributes.get(key[6:-1], "")] if key.startswith("ATTRS") else fits.get(key, [])
            found = any(fnmatch(one, pattern) for one in has for pattern in value.split("|"))
            if sign in ("==", "!=") and found is not (sign == "=="):
                break
            if (key, sign) == ("SYMLINK", "+="):
                links.append(value)
            if (key, sign) == ("ENV{SYSTEMD_WANTS}", "+="):
                wanted.append(value.replace("%k", kernel))
    return wanted


def test_a_line_of_its_own_gets_a_console_and_the_bridge_of_a_reader_gets_none() -> None:
    for kernel in ("ttyGS0", "ttyAMA0"):
        assert console_of(kernel) == [f"markcheck-console@{kernel}.service"]
    assert console_of("ttyUSB0", idVendor="067b", idProduct="2303") == ["markcheck-console@ttyUSB0.service"]
    for vendor, product in (("10c4", "ea60"), ("1a86", "7523"), ("1a86", "55d4"), ("0403", "6001")):
        assert console_of("ttyUSB0", idVendor=vendor, idProduct=product) == []
    for kernel in ("ttyACM0", "ttyS0", "tty1", "console", "ptmx"):
        assert console_of(kernel) == []


CONSOLE = UNITS / "markcheck-console@.service"


def for_line(words: str, root: Path, name: str) -> list[str]:
    return [in_tree(root, word).replace("/dev/%I", name) for word in shlex.split(words)]


@pytest.mark.parametrize("table", ["reader", "barcode"])
def test_the_line_that_the_settings_give_to_a_reader_or_an_engine_gets_no_console(
    appliance: Path, tmp_path: Path, table: str
) -> None:
    _, variables = by_hand(appliance, CONSOLE, tmp_path / "home")
    (tmp_path / "ttyUSB0").touch()
    (tmp_path / "ttyUSB1").touch()
    (tmp_path / "markcheck-reader").symlink_to("ttyUSB0")
    config = appliance / "etc/markcheck/markcheck.toml"
    config.write_text(f'[{table}]\nport = "{tmp_path}/markcheck-reader"\n')
    for name, status in (("ttyUSB0", 1), ("ttyUSB1", 0)):
        words = for_line(line(CONSOLE, "ExecCondition"), appliance, str(tmp_path / name))
        run = subprocess.run(words, env=variables, capture_output=True, text=True, check=False)
        assert (run.returncode, run.stdout) == (status, "")
        assert ("another part" in run.stderr) is bool(status)
    config.write_text("[reader]\nport = 5\n")
    (tmp_path / "home" / LAST_GOOD).unlink()  # who reads nothing cannot know
    run = subprocess.run(words, env=variables, capture_output=True, text=True, check=False)
    assert run.returncode == 1


def test_new_settings_end_the_console_on_a_line_that_they_give_to_a_part() -> None:
    """The console asks for its line when it starts, so whatever starts the program anew starts the consoles, too."""
    for unit in SERVICES:
        after = [shlex.split(value) for value in lines(unit, "ExecStartPost")]
        restarted = {
            name for words in after if "try-restart" in words for name in words[words.index("try-restart") + 1 :]
        }
        consoles = any(fnmatch("markcheck-console@ttyUSB0.service", name) for name in restarted)
        assert consoles is ("markcheck.service" in restarted), unit.name
        assert consoles or unit.name != "markcheck-provision.service"


def test_the_console_of_the_unit_serves_its_line_and_a_hang_up_ends_it_well(appliance: Path, tmp_path: Path) -> None:
    words, variables = by_hand(appliance, CONSOLE, tmp_path / "home")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        words, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env=variables, cwd=tmp_path,
        start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(theirs)
    try:
        told = b""
        os.write(ours, b"version\r")
        while b"software markcheck" not in told:
            assert select.select([ours], [], [], 40)[0], told
            told += os.read(ours, 4096)
        os.close(ours)  # which hangs up
        _, remarks = process.communicate(timeout=20)
    finally:
        process.kill()
    assert (process.returncode, remarks) == (0, b"")
    assert (tmp_path / "home/audit.jsonl").exists()


def test_the_console_has_its_line_to_itself_and_ends_with_it() -> None:
    assert line(CONSOLE, "Conflicts") == "serial-getty@%i.service"
    assert line(CONSOLE, "BindsTo") == "dev-%i.device"
    told = {name: line(CONSOLE, name) for name in ("TTYPath", "TTYVHangup", "TTYReset", "Restart", "StandardError")}
    assert told == {
        "TTYPath": "/dev/%I", "TTYVHangup": "yes", "TTYReset": "yes", "Restart": "always", "StandardError": "journal",
    }  # fmt: skip
    assert (int(line(CONSOLE, "TTYRows")), int(line(CONSOLE, "TTYColumns"))) >= (24, 80)
    assert int(line(CONSOLE, "TTYColumns")) > WIDTH
    assert environment(CONSOLE)["TERM"] == "vt220"


def test_the_console_may_use_every_part_that_the_program_may() -> None:
    """Where no program runs it tests them itself."""
    allowed = set(lines(UNITS / "markcheck.service", "DeviceAllow"))
    assert allowed <= set(lines(CONSOLE, "DeviceAllow"))
    groups = [line(unit, "SupplementaryGroups") for unit in (UNITS / "markcheck.service", CONSOLE)]
    assert groups[0] == groups[1]


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_programs_user_may_switch_the_machine_off_or_start_it_anew_and_nothing_else(tmp_path: Path) -> None:
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
    assert json.loads(run.stdout) == ["yes", None, "yes", None]


def test_the_command_for_people_uses_the_files_of_the_units() -> None:
    text = (UNITS / "libexec/markcheck").read_text()
    for unit in SERVICES:
        for name, value in environment(unit).items():
            assert f"{name}={value}" in text or name.startswith(("PYTHON", "GPIOZERO", "TERM")), (unit.name, name)
