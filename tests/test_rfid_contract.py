"""What every reader must do, on emulated readers behind a real port, and on a real one where there is one.

With MARKCHECK_READER=/dev/ttyUSB0 (a gantry's HOST) and MARKCHECK_READER_PROTOCOL=m100 (a0, gx, llrp) the same tests
run on that reader; a tag must lie before it.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

from hw.errors import (
    DeviceNotFoundError,
    LinkLostError,
    RegionRefusedError,
    TagError,
    TagProblem,
    UnsupportedError,
)
from hw.rfid.driver import Driver
from hw.rfid.emulator.device import EmulatedReader
from hw.rfid.emulator.faults import Fault, FaultKind
from hw.rfid.emulator.llrp_messages import greeting
from hw.rfid.emulator.port import PortEmulator, PtyPort, running
from hw.rfid.emulator.scene import Passage, Scene, Tag
from hw.rfid.emulator.tcp_port import TcpPort
from hw.rfid.models import MODELS
from hw.rfid.types import (
    AuthResult,
    Bank,
    Event,
    Gap,
    GapReason,
    Region,
    RoundEnd,
    Selector,
    TagRead,
    Unsupported,
)

REAL = os.environ.get("MARKCHECK_READER")
_NEEDS = {"llrp": pytest.mark.skipif(find_spec("pyllrp") is None, reason="the optional extra llrp is not installed")}
EMULATED = [pytest.param(name, marks=_NEEDS.get(name, ())) for name in sorted(MODELS)]
USER = bytes(range(102))  # as long as a tag certificate (TC1)
TAGS = tuple(
    Tag(epc=bytes((n,)) * 12, tid=b"\xe2\x80\x11\x60" + bytes((n,)) * 8, user=USER) for n in (0xA0, 0xBB, 0x5A)
)


class Place(NamedTuple):
    """A reader's port."""

    protocol: str
    path: Path
    emulator: PortEmulator | None

    def driver(self) -> Driver:
        model = MODELS[self.protocol]
        return model.driver(model.line(self.path, model.baudrate, None))


@contextmanager
def emulated(protocol: str, folder: Path, *faults: Fault) -> Iterator[Place]:
    scene = Scene(passages=tuple(Passage(tag=tag, rssi_dbm=-50.0) for tag in TAGS), faults=faults)
    in_network = MODELS[protocol].in_network
    port = TcpPort("127.0.0.1", 0, greeting) if in_network else PtyPort(folder / "reader")
    with running(EmulatedReader(protocol, scene, paced=not in_network), time.monotonic, port=port) as emulator:
        yield Place(protocol, Path(port.path), emulator)


@pytest.fixture(params=[*EMULATED, *(["real"] if REAL else [])])
def place(request, tmp_path) -> Iterator[Place]:
    if request.param == "real":
        yield Place(os.environ.get("MARKCHECK_READER_PROTOCOL", "m100"), Path(REAL or ""), None)
        return
    with emulated(request.param, tmp_path) as found:
        yield found


@pytest.fixture
def reader(place) -> Iterator[Driver]:
    with place.driver() as driver:
        yield driver


def until(scan, wanted, seconds: float = 60.0) -> list[Event]:
    """The events up to the first wanted one."""
    events: list[Event] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        event = scan.poll(0.1)
        if event is not None:
            events.append(event)
            if wanted(event):
                return events
    pytest.fail(f"not within {seconds} s; {len(events)} other events")


def is_read(event: Event) -> bool:
    return isinstance(event, TagRead)


def test_it_says_who_it_is_and_confirms_band_and_power(reader):
    caps = reader.identify()
    assert (caps.antennas >= 1, bool(caps.model), bool(caps.protocols)) == (True, True, True)
    assert reader.get_region() is Region.CHINA_920
    assert reader.get_power() == reader.radio.power_dbm
    assert reader.health().timeouts == 0


def test_it_leaves_the_band_for_nobody(reader):
    with pytest.raises(RegionRefusedError):
        reader.set_region(Region.US)
    assert reader.get_region() is Region.CHINA_920


def test_a_single_look_finds_the_tags_and_a_second_one_finds_them_again(reader, place):
    for _ in range(2):
        found = {read.epc for read in reader.read_once(3.0)}
        assert found == {tag.epc for tag in TAGS} if place.emulator else found


def test_a_scan_tells_reads_and_ends_within_300_ms(reader):
    took_s = []
    for _ in range(3):  # in one of them this machine may be busy
        with reader.inventory() as scan:
            until(scan, is_read)
            began = time.monotonic()
        took_s.append(time.monotonic() - began)
        assert all(isinstance(event, TagRead | RoundEnd) for event in scan)
    assert min(took_s) <= (0.35 if reader.codec.name == "a0" else 0.3)
    assert reader.get_region() is Region.CHINA_920  # it listens again


def test_a_recording_for_which_there_is_no_room_ends_the_line_and_no_thread_dies_unheard(place):
    def full(direction: str, _: bytes) -> None:
        if direction == "in":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    model = MODELS[place.protocol]
    with pytest.raises(LinkLostError, match=rf"errno {errno.ENOSPC}"):
        model.driver(model.line(place.path, model.baudrate, full)).open()
    with place.driver() as driver:  # the line was let go of
        assert driver.read_once(2.0)


def test_while_it_scans_nothing_else_is_asked_of_it(reader):
    with reader.inventory() as scan:
        with pytest.raises(UnsupportedError):
            reader.get_power()
        until(scan, is_read)


def test_the_tid_of_a_tag_that_was_found_can_be_read(reader):
    for tag in reader.read_once(3.0):
        read = reader.read_memory(Selector(tag.epc), Bank.TID, 0, 4)
        assert (read.epc_echo, read.data[:1], len(read.data)) == (tag.epc, b"\xe2", 8)


def test_a_tags_user_memory_is_read_in_parts_and_put_together(reader, place):
    if place.emulator is None:
        pytest.skip("what a real tag holds is not known")
    for tag in TAGS[:2]:
        assert reader.read_memory(Selector(tag.epc), Bank.USER, 0, len(USER) // 2) == (USER, tag.epc)
    assert reader.read_memory(Selector(TAGS[0].epc), Bank.USER, 3, 5).data == USER[6:16]
    assert {read.epc for read in reader.read_once(3.0)} == {tag.epc for tag in TAGS}  # it scans as before


def test_a_tag_that_is_not_there_and_a_bank_that_is_too_short_are_faults_of_the_tag(reader):
    with pytest.raises(TagError) as caught:
        reader.read_memory(Selector(b"\x77" * 12), Bank.TID, 0, 4)
    assert caught.value.tag_problem is TagProblem.NOT_FOUND
    with pytest.raises(TagError):
        reader.read_memory(Selector(TAGS[0].epc), Bank.USER, 200, 8)
    assert reader.get_region() is Region.CHINA_920  # the reader itself is well


def test_authentication_is_the_readers_word_or_unsupported(reader):
    answer = reader.authenticate(Selector(TAGS[0].epc), "safe_mark", b"")
    assert isinstance(answer, AuthResult | Unsupported)


def test_a_second_program_does_not_get_the_port(place, reader):
    with pytest.raises(DeviceNotFoundError):
        place.driver().open()
    assert reader.get_region() is Region.CHINA_920


def test_closing_twice_is_harmless_and_a_closed_reader_can_be_opened_again(place):
    driver = place.driver()
    driver.open()
    driver.inventory().start()
    driver.close()
    driver.close()
    with pytest.raises(LinkLostError):
        driver.get_power()
    assert driver.open().antennas >= 1
    assert driver.read_once(3.0)
    driver.close()


def test_one_thread_reads_the_line_however_many_tags_there_are(reader):
    threads = threading.active_count()
    with reader.inventory() as scan:
        for _ in range(10):
            until(scan, is_read)
        assert threading.active_count() == threads
    reader.close()
    assert threading.active_count() == threads - 1


def test_closing_from_another_thread_ends_a_scan(reader):
    with reader.inventory() as scan:
        until(scan, is_read)
        closer = threading.Timer(0.1, reader.close)
        closer.start()
        for _ in scan:
            if reader.closed:
                break
        closer.join()
    assert list(scan) == []


@pytest.mark.parametrize("protocol", EMULATED)
def test_pulled_and_plugged_in_again_it_reads_within_six_seconds(protocol, tmp_path):
    fault = Fault(kind=FaultKind.UNPLUG, at_s=1.0, seconds=1.0)
    with emulated(protocol, tmp_path, fault) as place, place.driver() as driver, driver.inventory() as scan:
        lost = until(scan, lambda event: isinstance(event, Gap))[-1]
        assert lost == Gap(GapReason.LINK_LOST, 0.0)
        back = until(scan, lambda event: isinstance(event, Gap) and event.over)[-1]
        assert back.seconds <= 1.0 + 6.0
        until(scan, is_read)
        assert driver.health().reconnects == 1


@pytest.mark.parametrize("protocol", EMULATED)
def test_a_port_that_is_not_there_is_told_without_its_path(protocol, tmp_path):
    with pytest.raises(DeviceNotFoundError) as caught:
        MODELS[protocol].driver(MODELS[protocol].line(tmp_path / "secret-name", 115_200, None)).open()
    assert "secret-name" not in str(caught.value)
