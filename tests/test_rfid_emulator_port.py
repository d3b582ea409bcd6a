"""The emulated reader behind a pseudo-terminal: its line's real speed, and every fault a driver has to survive.

The port is opened with `os.open` and nothing else; the clock is turned by hand.
"""

from __future__ import annotations

import os
import signal
import stat
import threading
import time

import pytest
from click.testing import CliRunner

from hw.rfid.emulator import frames
from hw.rfid.emulator.device import FIFO_BYTES, EmulatedReader, Fifo
from hw.rfid.emulator.faults import Fault, FaultKind
from hw.rfid.emulator.frames import a0_frame, m100_frame
from hw.rfid.emulator.port import PortEmulator, PtyPort, running
from hw.rfid.emulator.scene import Passage, Radio, ReaderSetup, Scene, Tag, lane_scene
from scripts.cli.reader_emulate import emulate
from tests.conftest import ROOT

EPC = bytes.fromhex("e20010710000529b0940b402")
TAG = Tag(epc=EPC, tid=bytes.fromhex("e280117020000123456789ab"))
NOTICE = bytes.fromhex("bb02220011c83000e20010710000529b0940b402")  # up to the tag's CRC
START, STOP = bytes.fromhex("bb0027000322ffff4a7e"), bytes.fromhex("bb00280000287e")
STOPPED = bytes.fromhex("bb01280001002a7e")
POLL, BEAT = bytes.fromhex("bb00220000227e"), bytes.fromhex("bb01ff000115167e")
GET_REGION, SET_CHINA_2 = bytes.fromhex("bb00080000087e"), bytes.fromhex("bb0007000101097e")
REGION_US, REGION_CHINA_2 = bytes.fromhex("bb01080001020c7e"), bytes.fromhex("bb01080001010b7e")


def scene(*faults: Fault, tags: tuple[Tag, ...] = (TAG,), **settings) -> Scene:
    passages = tuple(Passage(tag=tag, rssi_dbm=-56.0) for tag in tags)
    return Scene(passages=passages, faults=faults, **settings)


def fault(kind: FaultKind, **settings) -> Fault:
    return Fault(kind=kind, **settings)


class Bench:
    """An emulator on a pseudo-terminal, and a host that uses plain system calls."""

    def __init__(self, emulator: PortEmulator) -> None:
        self.emulator, self.now = emulator, 0.0
        self.open()

    def open(self) -> None:
        self.fd = os.open(self.emulator.port.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)

    def close(self) -> None:
        os.close(self.fd)

    def spend(self, seconds: float, tick: float = 0.002) -> bytes:
        """Turn for so long, and what the host got meanwhile."""
        got = b""
        for _ in range(max(1, round(seconds / tick))):
            self.now += tick
            self.emulator.turn(self.now)
            got += self.read()
        return got

    def read(self) -> bytes:
        try:
            return os.read(self.fd, 65536)
        except BlockingIOError:
            return b""

    def ask(self, command: bytes, seconds: float = 0.2) -> bytes:
        os.write(self.fd, command)
        return self.spend(seconds)


@pytest.fixture
def bench(tmp_path):
    """Makes benches for scenes, and takes them down."""
    made = []

    def make(what: Scene, protocol: str = "m100", *, paced: bool = True) -> Bench:
        port = PtyPort(tmp_path / f"reader{len(made)}")
        made.append(Bench(PortEmulator(EmulatedReader(protocol, what, paced=paced), port)))
        return made[-1]

    yield make
    for each in made:
        each.emulator.port.unplug()
        each.close()


# -------------------------------------------------------------------------------------------------- the line


def test_a_host_opens_the_path_and_gets_the_readers_bytes_unchanged(bench):
    host = bench(scene())
    answer = host.ask(POLL)
    assert answer.startswith(NOTICE)
    assert len(answer) == 24
    every_byte = bytes(range(256))
    host.emulator.port.write(every_byte)
    assert host.read() == every_byte


def test_the_line_carries_a_tenth_of_its_speed_in_bytes(bench):
    host = bench(scene(tags=tuple(Tag(epc=n.to_bytes(12), tid=b"") for n in range(20)), radio=Radio(tags_per_s=400)))
    host.emulator.reader.engine.baud = 9_600
    got = len(host.ask(START, 2.0))
    assert 0.97 * 1920 <= got <= 1920


def test_what_the_readers_buffer_has_no_room_for_is_lost_and_counted(bench):
    host = bench(scene(tags=tuple(Tag(epc=n.to_bytes(12), tid=b"") for n in range(20)), radio=Radio(tags_per_s=400)))
    host.emulator.reader.engine.baud = 9_600
    host.ask(START, 3.0)
    assert host.emulator.reader.figures.dropped > 1000
    host.ask(STOP, 8.0)
    assert host.ask(POLL, 1.0).count(b"\xbb\x02\x22") == 20


def test_a_fifo_holds_four_kilobytes_and_lets_them_go_in_time():
    fifo = Fifo()
    fifo.put(bytes(5000), 1.0)
    assert (len(fifo), fifo.dropped) == (FIFO_BYTES, 5000 - FIFO_BYTES)
    assert len(fifo.take(1.1, 115_200)) == 1152
    assert len(fifo.take(1.1, 115_200)) == 0
    assert len(fifo.take(1.2, None)) == FIFO_BYTES - 1152
    fifo.put(b"ab", 9.0)  # an idle line saves nothing up
    assert fifo.take(9.0001, 115_200) == b"a"


@pytest.mark.parametrize("protocol", ["m100", "a0", "gx"])
def test_the_same_scene_gives_the_same_bytes_however_the_time_is_cut(protocol):
    identities = [(bytes(12), n.to_bytes(12), b"") for n in range(12)]
    what = lane_scene(identities, vehicles=12, seed=5, lanes=1 if protocol == "m100" else 4)
    start = {
        "m100": START,
        "a0": a0_frame(1, 0x8A, bytes.fromhex("0001010102010301" + "00ff")),
        "gx": frames.gx_frame(frames.GX_BASE, 0x10, bytes.fromhex("0000000f01")),
    }[protocol]

    def played(tick: float) -> bytes:
        reader, out = EmulatedReader(protocol, what), b""
        out += reader.turn(0.0, start)
        for step in range(1, round(6 / tick) + 1):
            out += reader.turn(step * tick)
        return out

    fine, coarse = played(0.002), played(0.5)
    assert fine == coarse
    assert len(fine) > 2000


def test_another_seed_gives_other_reads():
    def epcs(seed: int) -> bytes:
        reader = EmulatedReader("m100", lane_scene([(b"", bytes(12), b"")] * 4, vehicles=4, seed=seed, lanes=1))
        return reader.turn(0.0, START) + reader.turn(8.0)

    assert epcs(1) == epcs(1) != epcs(2)


def test_the_module_takes_another_speed_without_an_answer(bench):
    host = bench(scene())
    assert host.ask(m100_frame(0, 0x11, b"\x00\xc0")) == b""
    assert host.emulator.reader.engine.baud == 19_200
    assert host.ask(POLL).startswith(NOTICE)


# ------------------------------------------------------------------------------------ opening and closing


def test_a_host_may_close_and_open_the_port_and_finds_no_old_bytes(bench):
    host = bench(scene())
    host.ask(START)
    host.close()
    for _ in range(200):
        host.now += 0.002
        host.emulator.turn(host.now)
    assert host.emulator.state == "waiting"
    host.open()
    first = host.spend(0.1)
    assert host.emulator.state == "open"
    assert host.emulator.hosts == 2
    assert first.count(NOTICE) <= 6  # those of the last tenth of a second, not of the pause
    assert STOPPED in host.ask(STOP)


def test_a_host_that_does_not_read_loses_bytes_and_nothing_waits_for_it(bench):
    host = bench(scene(radio=Radio(tags_per_s=1000)), paced=False)
    os.write(host.fd, START)
    for _ in range(300):
        host.now += 0.1
        host.emulator.turn(host.now)
    assert host.emulator.port.lost > 100_000


def test_the_link_is_swapped_at_a_replug_and_gone_at_the_end(tmp_path):
    link = tmp_path / "reader"
    port = PtyPort(link)
    assert port.path == str(link)
    assert stat.S_ISCHR(link.stat().st_mode)
    held = os.open(port.path, os.O_RDWR | os.O_NOCTTY)  # keeps the name of the first one taken
    first = link.readlink()
    port.unplug()
    assert not link.is_symlink()
    port.plug()
    assert link.readlink() != first
    os.close(held)
    port.unplug()
    port.unplug()
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_link_is_left_alone(tmp_path):
    link = tmp_path / "reader"
    link.write_text("mine", encoding="ascii")
    with pytest.raises(FileExistsError):
        PtyPort(link)
    assert link.read_text(encoding="ascii") == "mine"


def test_a_link_into_a_missing_folder_is_told_by_that_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder.*gone"):
        PtyPort(tmp_path / "gone" / "reader")


def test_a_scene_begins_when_a_host_first_opens_the_port(tmp_path):
    what = scene(fault(FaultKind.JUNK, size=24), fault(FaultKind.UNPLUG, at_s=5.0))
    emulator = PortEmulator(EmulatedReader("m100", what), PtyPort(tmp_path / "reader"))
    for moment in (0.0, 3.0, 10.0):
        emulator.turn(moment)
    assert emulator.reader.figures.faults == 0
    host = Bench(emulator)
    assert len(host.spend(0.1)) == 24
    host.close()
    emulator.port.unplug()


def test_the_clock_of_a_scene_starts_with_the_first_host(tmp_path):
    reader = EmulatedReader("m100", Scene())
    with running(reader, time.monotonic, tmp_path / "reader") as emulator:
        began = time.monotonic()
        while time.monotonic() - began < 0.1:
            assert emulator.reader.engine.now == 0.0
        fd = os.open(emulator.port.path, os.O_RDWR | os.O_NOCTTY)
        os.write(fd, POLL)
        assert os.read(fd, 24) == BEAT
        os.close(fd)
        assert emulator.reader.engine.now < time.monotonic() - began - 0.05


def test_the_program_runs_in_a_thread_at_the_speed_of_the_clock(tmp_path):
    reader, before = EmulatedReader("m100", scene()), set(threading.enumerate())
    with running(reader, time.monotonic, tmp_path / "reader") as emulator:
        fd = os.open(emulator.port.path, os.O_RDWR | os.O_NOCTTY)
        os.write(fd, POLL)
        answer = b""
        while len(answer) < 24:
            answer += os.read(fd, 24)
        os.close(fd)
    assert answer.startswith(NOTICE)
    assert not (tmp_path / "reader").is_symlink()
    assert set(threading.enumerate()) <= before


# ---------------------------------------------------------------------------------------------------- faults


def test_junk_at_boot_comes_before_the_first_answer(bench):
    host = bench(scene(fault(FaultKind.JUNK, size=24)))
    out = host.ask(POLL)
    assert len(out) == 48
    assert out[24:].startswith(NOTICE)


@pytest.mark.parametrize("kind", [FaultKind.BIT_FLIP, FaultKind.BYTE_DROP, FaultKind.BYTE_INSERT])
def test_a_bad_line_spoils_bytes_at_its_rate_and_in_its_time(bench, kind):
    host = bench(scene(fault(kind, rate=0.01, at_s=1.0, for_s=20.0), radio=Radio(tags_per_s=400)), paced=False)
    clean = host.ask(START, 0.9)
    assert clean.count(NOTICE) == len(clean) // 24
    spoiled = host.spend(20.0, 0.01)
    wrong = host.emulator.reader.faults.taken[kind]
    expected = 0.01 * 20 * 400 * 24
    assert 0.8 * expected < wrong < 1.2 * expected
    whole = 20 * 400
    assert whole * 0.70 < spoiled.count(NOTICE) < whole * 0.90  # 0.99 ** 20 of those 20 bytes are whole
    host.spend(1.0)
    after = host.spend(1.0)
    assert after.count(NOTICE) >= 398


def test_a_frame_comes_twice(bench):
    host = bench(scene(fault(FaultKind.DUPLICATE, count=2)))
    assert host.ask(POLL).count(NOTICE) == 2
    assert host.ask(POLL).count(NOTICE) == 2
    assert host.ask(POLL).count(NOTICE) == 1


def test_a_frame_comes_in_two_halves_with_a_pause(bench):
    host = bench(scene(fault(FaultKind.SPLIT, seconds=0.5)))
    first, second = host.ask(POLL, 0.3), host.spend(0.4)
    assert len(first) == len(second) == 12
    assert (first + second).startswith(NOTICE)


def test_a_frame_stops_after_its_length_field_and_the_next_is_whole(bench):
    host = bench(scene(fault(FaultKind.STALL, seconds=0.2)))
    assert host.ask(POLL, 0.1) == NOTICE[:5]
    assert host.ask(POLL, 0.4).startswith(NOTICE)


def test_an_answer_is_lost_and_the_command_still_obeyed(bench):
    host = bench(scene(fault(FaultKind.LOST_ACK)))
    assert host.ask(SET_CHINA_2) == b""
    assert host.ask(GET_REGION) == REGION_CHINA_2


def test_an_answer_comes_late(bench):
    host = bench(scene(fault(FaultKind.LATE_ACK, seconds=1.0)))
    assert host.ask(GET_REGION, 0.9) == b""
    assert host.spend(0.2) == REGION_US


@pytest.mark.parametrize(
    ("protocol", "command", "right"),
    [
        ("m100", GET_REGION, b"\xbb\x01\x08"),
        ("a0", a0_frame(1, 0x79, b""), b"\xa0\x06\x01\x79"),
        ("gx", frames.gx_frame(frames.GX_BASE, 0x04, b""), b"\x5a\x00\x01\x02\x04"),
    ],
)
def test_an_answer_names_another_command_in_a_sound_frame(bench, protocol, command, right):
    host = bench(scene(fault(FaultKind.WRONG_ACK)), protocol)
    wrong = host.ask(command)
    assert wrong[: len(right)] == right[:-1] + bytes((right[-1] ^ 1,))
    assert host.ask(command).startswith(right)


def test_a_reset_is_silent_and_loses_region_and_scan(bench):
    host = bench(scene(fault(FaultKind.RESET, at_s=1.0, seconds=0.5)))
    host.ask(SET_CHINA_2)
    assert NOTICE in host.ask(START, 0.7)
    host.spend(0.2)
    assert host.ask(GET_REGION, 0.3) == b""
    host.spend(0.2)
    assert host.ask(GET_REGION) == REGION_US
    assert host.spend(0.5) == b""


def test_a_sleeping_reader_loses_the_first_byte_and_its_settings(bench):
    host = bench(scene(fault(FaultKind.SLEEP, at_s=0.5)))
    host.ask(SET_CHINA_2, 0.6)
    assert host.ask(GET_REGION) == b""
    assert host.ask(GET_REGION) == REGION_US


def test_an_antenna_goes_missing_for_a_time(bench):
    what = scene(fault(FaultKind.ANTENNA_MISSING, at_s=1.0, for_s=1.0, antenna=1))
    host = bench(what, "a0")
    inventory, missing = a0_frame(1, 0x89, b"\x01"), a0_frame(1, 0x89, b"\x22")
    assert EPC in host.ask(inventory)
    host.spend(1.0)
    assert host.ask(inventory) == missing
    host.spend(1.0)
    assert EPC in host.ask(inventory)


def test_a_band_without_a_free_channel_is_told(bench):
    host = bench(scene(fault(FaultKind.FHSS, at_s=1.0, for_s=0.5)))
    error = m100_frame(1, 0xFF, b"\x20")
    assert error not in host.ask(START, 0.9)
    assert host.spend(0.5).count(error) > 10
    host.spend(0.2)
    assert error not in host.spend(0.5)


def test_an_overrun_takes_bytes_out_of_the_stream(bench):
    host = bench(scene(fault(FaultKind.OVERRUN, after_frames=3, size=30), tags=()))
    out = host.ask(m100_frame(0, 0x27, b"\x22\x00\x0a"), 1.0)
    assert len(out) == 10 * len(BEAT) - 30
    assert out.startswith(BEAT * 2)
    assert out.endswith(BEAT * 3)


def test_a_pulled_plug_ends_the_hosts_port_and_comes_back_reset(bench):
    host = bench(scene(fault(FaultKind.UNPLUG, at_s=1.0, seconds=2.0)))
    host.ask(SET_CHINA_2, 0.9)
    host.emulator.turn(1.01)
    path = host.emulator.port.path
    assert host.emulator.state == "unplugged"
    assert not os.path.lexists(path)
    with pytest.raises(OSError, match="Input/output error"):
        os.write(host.fd, GET_REGION)
    assert os.read(host.fd, 10) == b""
    host.close()
    host.emulator.turn(3.02)
    host.now = 3.02
    host.open()
    assert host.ask(GET_REGION) == REGION_US


def test_the_wrong_speed_is_garbage_in_both_directions(bench):
    host = bench(scene(fault(FaultKind.WRONG_BAUD, at_s=0.5, for_s=1.0)))
    host.spend(0.6)
    assert NOTICE[:4] not in host.ask(POLL * 20, 0.5)
    assert host.emulator.reader.figures.commands == 0
    host.spend(1.0)
    assert host.ask(POLL).startswith(NOTICE)


def test_every_fault_has_a_test_here():
    text = (ROOT / "tests" / "test_rfid_emulator_port.py").read_text(encoding="utf-8")
    assert [kind.name for kind in FaultKind if f"FaultKind.{kind.name}" not in text] == []


# ------------------------------------------------------------------------------------------------ the command


def test_the_command_says_the_path_and_ends_cleanly_on_a_signal(tmp_path):
    link, heard = tmp_path / "reader", []

    def host() -> None:
        while not link.exists():
            time.sleep(0.005)
        fd = os.open(link, os.O_RDWR | os.O_NOCTTY)
        os.write(fd, POLL)
        while sum(map(len, heard)) < 24:
            heard.append(os.read(fd, 24))
        os.close(fd)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=host)
    thread.start()
    scene_file = tmp_path / "scene.toml"
    scene_file.write_text(f'[[tag]]\nepc = "{EPC.hex()}"\ntid = "e280"\n[[pass]]\ntag = "1"\nrssi_dbm = -56\n')
    args = ["--protocol", "m100", "--scene", str(scene_file), "--link", str(link), "--faults", "duplicate@1"]
    run = CliRunner().invoke(emulate, args, standalone_mode=False)
    thread.join()
    assert run.return_value == 0
    assert f"m100 reader at {link}, 115200 baud" in run.output
    assert "1 commands, 1 reads, 1 frames, 24 bytes" in run.output
    assert b"".join(heard).startswith(NOTICE)
    assert not link.is_symlink()


@pytest.mark.parametrize("text", ["nonsense", "bit_flip,rate", "bit_flip,rate=2", "unplug@soon", "bit_flip,size=x"])
def test_a_fault_that_makes_no_sense_is_wrong_usage(text):
    path = str(ROOT / "docs" / "examples" / "scene-roadside.toml")
    run = CliRunner().invoke(emulate, ["--protocol", "m100", "--scene", path, "--faults", text])
    assert run.exit_code == 2
    assert "Error: --faults: fault: " in run.output


def test_a_missing_antenna_of_the_scene_is_missing_from_the_start(bench):
    host = bench(scene(reader=ReaderSetup(missing_antennas=frozenset({1}))), "a0")
    assert host.ask(a0_frame(1, 0x89, b"\x01")) == a0_frame(1, 0x89, b"\x22")
