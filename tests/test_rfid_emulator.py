"""The emulated readers' own protocols: bytes of public captures, and answers to every command a host uses."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw.rfid.emulator import frames
from hw.rfid.emulator.device import ENGINES, EmulatedReader
from hw.rfid.emulator.frames import (
    A0_FORMAT,
    GX_BASE,
    GX_FORMAT,
    GX_NOTICE,
    CommandSplitter,
    a0_frame,
    gx_frame,
    m100_format,
    m100_frame,
)
from hw.rfid.emulator.scene import AirProtocol, Authentication, Passage, Radio, ReaderSetup, Scene, Tag
from hw.rfid.models import MODELS
from tests.reader_lines import SERIAL

TID = bytes.fromhex("e280117020000123456789ab")
EPC = bytes.fromhex("e20010710000529b0940b402")
EMPTY = Scene()
FORMATS = {"m100": m100_format("bb"), "a0": A0_FORMAT, "gx": GX_FORMAT}
REFUSED_TAG = bytes.fromhex("e2000016551102060390eaaf")


def test_every_reader_on_a_serial_line_has_the_format_of_its_commands_here():
    assert FORMATS.keys() == set(SERIAL), f"add {set(SERIAL) - FORMATS.keys()} to FORMATS"


@pytest.fixture(scope="module")
def captures(vectors):
    """The public frames of our three protocols, by name."""
    listed = json.loads(vectors("rfid_vectors.json").read_text(encoding="utf-8"))["vectors"]
    return {entry["id"]: entry for entry in listed if entry["protocol"] in FORMATS}


def tag(epc: str | bytes = EPC, **settings) -> Tag:
    return Tag(epc=bytes.fromhex(epc) if isinstance(epc, str) else epc, tid=TID, **settings)


def held(*tags: Tag, dbm: float = -56.0, lane: int = 1, reader=None, radio=None, **settings) -> Scene:
    """Tags that stand before one antenna, always at the same strength."""
    passages = tuple(Passage(tag=each, rssi_dbm=dbm, lane=lane) for each in tags)
    return Scene(passages=passages, reader=reader or ReaderSetup(), radio=radio or Radio(), **settings)


class Talk:
    """A host without a port: sends, waits, gets all bytes."""

    def __init__(self, protocol: str, scene: Scene) -> None:
        self.reader, self.now = EmulatedReader(protocol, scene, paced=False), 0.0

    def __call__(self, command: bytes, seconds: float = 0.1) -> bytes:
        self.now += 0.001
        out = self.reader.turn(self.now, command)
        self.now += seconds
        return out + self.reader.turn(self.now)


def m100(code: int, params: str = "") -> bytes:
    return m100_frame(frames.COMMAND, code, bytes.fromhex(params))


def m100_reply(code: int, params: str | bytes = "00") -> bytes:
    return m100_frame(frames.RESPONSE, code, bytes.fromhex(params) if isinstance(params, str) else params)


def a0(code: int, data: str = "", address: int = 1) -> bytes:
    return a0_frame(address, code, bytes.fromhex(data))


def gx(code: int, data: str = "") -> bytes:
    return gx_frame(GX_BASE, code, bytes.fromhex(data))


def gx_notice(code: int, data: str | bytes) -> bytes:
    return gx_frame(GX_BASE | GX_NOTICE, code, bytes.fromhex(data) if isinstance(data, str) else data)


# -------------------------------------------------------------------------------------------- captured frames


def rebuilt(entry: dict) -> bytes:
    """The frame made anew from its fields by the emulator's codec."""
    data = bytes.fromhex(entry["hex"])
    if entry["protocol"] == "m100":
        return m100_frame(data[1], data[2], data[5:-2])
    if entry["protocol"] == "a0":
        return a0_frame(data[2], data[3], data[4:-1])
    return gx_frame(data[3], data[4], data[7:-2])


def test_every_genuine_public_frame_is_rebuilt_byte_for_byte(captures):
    genuine = [entry for entry in captures.values() if entry["kind"] != "doc-error"]
    assert len(genuine) >= 20
    for entry in genuine:
        assert rebuilt(entry).hex() == entry["hex"], entry["id"]


def test_every_public_command_is_understood(captures):
    commands = [entry for entry in captures.values() if entry["direction"] == "h2r" and "build" in entry["expect"]]
    assert len(commands) >= 9
    for entry in commands:
        splitter = CommandSplitter(FORMATS[entry["protocol"]])
        (command,) = splitter.feed(bytes.fromhex(entry["hex"]), 0)
        expect = entry["expect"]
        assert command.code == expect.get("cmd", expect.get("mid")), entry["id"]
        assert command.data.hex() == expect.get("params", expect.get("data")), entry["id"]


def test_frames_that_documents_print_wrongly_are_no_commands(captures):
    wrong = [entry for entry in captures.values() if entry["kind"] == "doc-error"]
    assert len(wrong) >= 3
    for entry in wrong:
        assert list(CommandSplitter(FORMATS[entry["protocol"]]).feed(bytes.fromhex(entry["hex"]), 0)) == [], entry["id"]
        assert "accept" not in entry["expect"] or rebuilt(entry).hex() != entry["hex"], entry["id"]


def fixed(khz: int, **settings) -> Radio:
    return Radio(frequency_khz=khz, **settings)


USER = bytes(8)
PLAIN_WRITE = "000000000300000001abcd"
# A scene and a command that make the reader send this captured frame.
PLAYED = {
    "m100-n1": ("m100", held(tag(user=USER), dbm=-56), m100(0x22)),
    "m100-n2": ("m100", held(tag(user=USER), dbm=-55), m100(0x22)),
    "m100-n5": ("m100", held(tag("e200001d7315016521408fc6"), dbm=-60), m100(0x27, "22ffff")),
    "m100-n9": ("m100", held(tag("30751feb705c5904e3d50d70", user=USER), dbm=-55), m100(0x22)),
    "m100-r1": ("m100", EMPTY, m100(0x22)),
    "m100-r2": ("m100", EMPTY, m100(0x28)),
    "m100-r3": ("m100", EMPTY, m100(0x12, "01")),
    "m100-r6": ("m100", held(tag(REFUSED_TAG, user=USER)), m100(0x49, PLAIN_WRITE)),
    "a0-n1": ("a0", held(tag("300833b2ddd9014000000001"), dbm=-74, radio=fixed(916_000)), a0(0x89, "01")),
    "a0-n2": ("a0", held(tag("e2004074850a0103163070e1"), dbm=-75, radio=fixed(913_000)), a0(0x89, "01")),
    "a0-n5": ("a0", held(tag("e2004074850a0103169067dd"), dbm=-82, radio=fixed(925_000)), a0(0x89, "01")),
    "a0-n6": ("a0", held(tag("e200301666130121155074ef"), dbm=-60, radio=fixed(865_500)), a0(0x89, "01")),
    "a0-n9": (
        "a0",
        held(
            tag("e28069150000401d63e2a44f"),
            dbm=-47,
            lane=8,
            reader=ReaderSetup(antennas=8),
            radio=fixed(867_500),
        ),
        a0(0x74, "07") + a0(0x8B, "010001"),
    ),
    "a0-f1": (
        "a0",
        held(*(tag(f"{number:024x}") for number in range(5)), radio=Radio(tags_per_s=17)),
        a0(0x89, "01"),
    ),
    "a0-f2": ("a0", held(tag(), radio=Radio(tags_per_s=25)), a0(0x8B, "010001")),
    "a0-r1": ("a0", EMPTY, a0(0x72)),
    "gx-n1": (
        "gx",
        held(tag("e2806915600002166510b331"), dbm=-30.2, radio=fixed(915_250)),
        gx(0x10, "0000000100"),
    ),
}


@pytest.mark.parametrize("name", PLAYED)
def test_a_played_scene_makes_the_bytes_of_the_capture(name, captures):
    protocol, scene, command = PLAYED[name]
    assert captures[name]["hex"] in Talk(protocol, scene)(command, 0.5).hex()


def test_every_captured_reader_frame_is_played_but_those_of_a_write_that_succeeds(captures):
    genuine = {n for n, e in captures.items() if e["direction"] == "r2h" and e["kind"] != "doc-error"}
    assert genuine - set(PLAYED) == {"m100-r4"}


# ------------------------------------------------------------------------------------------------- splitting


COMMANDS = {
    "m100": [m100(0x22), m100(0x27, "22ffff"), m100(0x39, "000000000300000004")],
    "a0": [a0(0x72), a0(0x8B, "010001"), a0(0x81, "03000600000000")],
    "gx": [gx(0xFF), gx(0x50, "0000000101020004"), gx(0x10, "0000000f01")],
}


@pytest.mark.parametrize("protocol", COMMANDS)
def test_commands_survive_any_cutting_and_the_junk_between_them(protocol):
    rng = random.Random(3)
    heads = {FORMATS[protocol].head}
    for _ in range(50):
        stream = b""
        for command in COMMANDS[protocol]:
            stream += bytes(b for b in rng.randbytes(rng.randrange(12)) if b not in heads) + command
        splitter, found = CommandSplitter(FORMATS[protocol]), []
        while stream:
            cut = rng.randrange(1, 9)
            found += splitter.feed(stream[:cut], 0)
            stream = stream[cut:]
        assert len(found) == 3


@pytest.mark.parametrize("protocol", COMMANDS)
@given(data=st.binary(max_size=2000))
def test_noise_is_never_kept_nor_answered_with_a_crash(protocol, data):
    reader = EmulatedReader(protocol, held(tag(user=USER)), paced=False)
    reader.turn(0.0, data)
    reader.turn(1.0)
    assert len(reader.engine._splitter._buffer) <= frames.MAX_COMMAND


@pytest.mark.parametrize("protocol", COMMANDS)
@given(data=st.data())
def test_any_data_of_any_command_is_answered_without_a_crash(protocol, data):
    code, params = data.draw(st.integers(0, 255)), data.draw(st.binary(max_size=40))
    build = {"m100": m100, "a0": a0, "gx": gx}[protocol]
    Talk(protocol, held(tag(user=USER)))(build(code, params.hex()), 0.05)


@pytest.mark.parametrize("protocol", COMMANDS)
def test_a_command_that_stops_in_the_middle_is_forgotten_and_the_next_one_heard(protocol):
    talk = Talk(protocol, EMPTY)
    talk(COMMANDS[protocol][0][:-2], 1.0)
    assert talk(COMMANDS[protocol][0]) != b""
    assert talk.reader.figures.junk == len(COMMANDS[protocol][0]) - 2


# ------------------------------------------------------------------------------------------------------ M100


def test_m100_names_itself():
    talk = Talk("m100", EMPTY)
    assert talk(m100(0x03, "00")) == m100_reply(0x03, b"\x00M100 26dBm V1.0")
    assert talk(m100(0x03, "05")) == m100_reply(0xFF, "0e")


def test_the_same_module_speaks_between_aa_and_dd():
    talk = Talk("m100", held(tag(), reader=ReaderSetup(framing="aa")))
    command = m100_frame(frames.COMMAND, 0x22, b"", "aa")
    assert command.hex() == "aa0022000022dd"
    answer = talk(command)
    assert (answer[0], answer[-1]) == (0xAA, 0xDD)
    assert talk(m100(0x22)) == b""


def test_m100_keeps_what_it_is_told_until_the_power_goes():
    talk = Talk("m100", EMPTY)
    for setter, getter, value in [
        (0x07, 0x08, "01"), (0xB6, 0xB7, "07d0"), (0xAB, 0xAA, "05"), (0x0E, 0x0D, "1120"), (0xF0, 0xF1, "020601b0"),
    ]:  # fmt: skip
        before = talk(m100(getter))
        assert talk(m100(setter, value)) == m100_reply(setter)
        assert talk(m100(getter)) == m100_reply(getter, value) != before
    talk.reader.power_cycle()
    assert talk(m100(0x08)) == m100_reply(0x08, "02")
    assert talk(m100(0xB7)) == m100_reply(0xB7, "0a28")


@pytest.mark.parametrize(
    ("code", "params"),
    [(0x07, "07"), (0xB6, "2710"), (0xAB, "ff"), (0x0E, "8020"), (0x39, "00"), (0x27, ""), (0x12, "03"), (0x0C, "01")],
)
def test_m100_refuses_parameters_out_of_their_range(code, params):
    assert Talk("m100", EMPTY)(m100(code, params)) == m100_reply(0xFF, "0e")


def test_m100_refuses_an_unknown_command():
    assert Talk("m100", EMPTY)(m100(0x77)) == m100_reply(0xFF, "17")


def test_polling_on_and_on_says_for_every_empty_round_that_there_is_no_tag_until_it_is_stopped():
    talk = Talk("m100", EMPTY)
    heartbeat = bytes.fromhex("bb01ff000115167e")
    beats = talk(m100(0x27, "22ffff"), 1.0)
    assert beats == heartbeat * (len(beats) // 8)
    assert 45 <= len(beats) // 8 <= 51
    assert m100_reply(0x28) in talk(m100(0x28))
    assert talk(b"", 1.0) == b""


def test_polling_a_number_of_times_ends_by_itself():
    talk = Talk("m100", held(tag()))
    assert talk(m100(0x27, "220003"), 2.0).count(EPC) == 3
    assert not talk.reader.engine.scanning


def read(bank: int, word: int, count: int, key: str = "00000000") -> bytes:
    return m100(0x39, f"{key}{bank:02x}{word:04x}{count:04x}")


def test_memory_comes_with_the_epc_that_gave_it():
    user = bytes(range(128))
    talk = Talk("m100", held(tag(user=user)))
    echo = b"\x0e\x34\x00" + EPC
    assert talk(read(3, 0, 32)) == m100_reply(0x39, echo + user[:64])
    assert talk(read(3, 32, 32)) == m100_reply(0x39, echo + user[64:])
    assert talk(read(2, 0, 6)) == m100_reply(0x39, echo + TID)
    assert talk(read(1, 1, 7)) == m100_reply(0x39, echo + b"\x34\x00" + EPC)


def test_memory_that_cannot_be_read_is_refused_with_the_reason_a_tag_gives():
    echo = b"\x0e\x34\x00" + EPC
    locked = tag(user=USER, access_password=0x8A6B4C2D, locked=frozenset({"user"}))
    talk = Talk("m100", held(locked))
    assert talk(read(3, 0, 4)) == m100_reply(0xFF, b"\xa4" + echo)
    assert talk(read(3, 0, 4, "00000001")) == m100_reply(0xFF, b"\x16" + echo)
    assert talk(read(3, 0, 4, "8a6b4c2d")) == m100_reply(0x39, echo + USER)
    assert talk(read(3, 0, 5, "8a6b4c2d")) == m100_reply(0xFF, b"\xa3" + echo)
    assert Talk("m100", EMPTY)(read(3, 0, 1)) == m100_reply(0xFF, "09")
    assert talk(read(4, 0, 1)) == m100_reply(0xFF, "0e")


def test_a_selection_picks_one_of_two_tags_for_reading_and_not_for_inventory():
    other = "e200001d7315016521408fc6"
    talk = Talk("m100", held(tag(), tag(other)))
    assert talk(m100(0x0C, "0100000020" + "6000" + other)) == m100_reply(0x0C)
    assert talk(m100(0x0B)) == m100_reply(0x0B, "0100000020" + "6000" + other)
    assert bytes.fromhex(other) in talk(read(2, 0, 2))
    both = talk(m100(0x22))
    assert EPC in both
    assert bytes.fromhex(other) in both
    talk(m100(0x12, "00"))
    assert EPC not in talk(m100(0x22))


@pytest.mark.parametrize(
    ("command", "error"),
    [(m100(0x49, PLAIN_WRITE), "16"), (m100(0x82, "00000000020080"), "16"), (m100(0x65, "00000001"), "12")],
)
def test_writing_locking_and_killing_are_refused_and_noticed(command, error):
    talk = Talk("m100", held(tag(user=USER, access_password=5)))
    assert talk(command) == m100_reply(0xFF, bytes.fromhex(error) + b"\x0e\x34\x00" + EPC)
    assert talk.reader.engine.heard[command[2]] == 1


def test_sleep_eats_the_byte_that_wakes_and_the_settings():
    talk = Talk("m100", EMPTY)
    talk(m100(0x07, "01"))
    assert talk(m100(0x17)) == m100_reply(0x17)
    assert talk(m100(0x08)) == b""
    assert talk(m100(0x08)) == m100_reply(0x08, "02")


def test_a_session_that_keeps_its_flag_reads_a_tag_once():
    talk = Talk("m100", held(tag()))
    talk(m100(0x0E, "1220"))  # session S2, target A
    assert talk(m100(0x27, "2203e8"), 3.0).count(EPC) == 1
    talk(m100(0x28))
    talk(m100(0x0E, "12a0"))  # target B
    assert talk(m100(0x22)).count(EPC) == 1


# -------------------------------------------------------------------------------------------------------- A0


def test_a0_keeps_what_it_is_told_until_the_power_goes():
    talk = Talk("a0", EMPTY)
    assert talk(a0(0x78, "032b35")) == a0(0x78, "10")
    assert talk(a0(0x79)) == a0(0x79, "032b35")
    assert talk(a0(0x76, "14")) == a0(0x76, "10")
    assert talk(a0(0x77)) == a0(0x77, "14")
    assert talk(a0(0x76, "14151617")) == a0(0x76, "10")
    assert talk(a0(0x77)) == a0(0x77, "14151617")
    assert talk(a0(0x74, "02")) == a0(0x74, "10")
    assert talk(a0(0x75)) == a0(0x75, "02")
    assert talk(a0(0x7B)) == a0(0x7B, "0124")
    assert talk(a0(0x70), 1.0) == b""
    assert talk(a0(0x79)) == a0(0x79, "01073b")
    assert talk(a0(0x77)) == a0(0x77, "21")


@pytest.mark.parametrize(
    ("code", "data", "status"),
    [
        (0x78, "030007", "49"), (0x78, "092b35", "49"), (0x76, "28", "48"), (0x74, "04", "47"), (0x89, "", "41"),
        (0x8B, "040001", "41"), (0x81, "04000100000000", "43"), (0x8A, "ff00ff00ff00ff000001", "47"), (0x99, "", "11"),
    ],
)  # fmt: skip
def test_a0_refuses_with_the_status_of_its_document(code, data, status):
    assert Talk("a0", EMPTY)(a0(code, data)) == a0(code, status)


def test_a0_hears_only_its_address_and_everybodys():
    talk = Talk("a0", EMPTY)
    assert talk(a0(0x72, address=2)) == b""
    assert talk(a0(0x72, address=0xFF)) == a0(0x72, "0109")


def test_an_old_reader_ends_its_round_without_a_rate():
    scene = held(tag(), reader=ReaderSetup(old_round_end=True))
    assert Talk("a0", scene)(a0(0x89, "01")).endswith(a0(0x89, "0000000001"))


def test_fast_switching_takes_the_antennas_by_turns_and_counts():
    passages = tuple(Passage(tag=tag(f"{lane:024x}"), rssi_dbm=-60, lane=lane) for lane in (1, 2, 3, 4))
    scene = Scene(passages=passages, radio=fixed(920_500))
    out = Talk("a0", scene)(a0(0x8A, "00010101020103010002"), 1.0)
    notices = [out[at : at + 21] for at in range(0, 8 * 21, 21)]
    assert [notice[4] & 3 for notice in notices] == [0, 1, 2, 3] * 2
    assert {notice[4] >> 2 for notice in notices} == {44}
    assert [notice[7:19].hex() for notice in notices] == [f"{lane:024x}" for lane in (1, 2, 3, 4)] * 2
    end = out[8 * 21 :]
    assert end[:4] == b"\xa0\x0a\x01\x8a"
    assert end[4:7] == (8).to_bytes(3)
    assert int.from_bytes(end[7:11]) == round(8 / 167 * 1000)


def test_a_missing_antenna_is_named_by_real_time_and_by_fast_switching():
    scene = held(tag(), reader=ReaderSetup(missing_antennas=frozenset({1})))
    talk = Talk("a0", scene)
    assert talk(a0(0x89, "01")) == a0(0x89, "22")
    assert talk(a0(0x8A, "00010401040104010001")).startswith(a0(0x8A, "0022"))


def test_a0_reads_memory_of_every_tag_with_crc_and_counts():
    user = bytes(range(16))
    two = tag("e200001d7315016521408fc6")
    scene = held(tag(user=user), two, radio=fixed(920_500))
    talk = Talk("a0", scene)
    words = bytes.fromhex("3400") + EPC + bytes.fromhex("163d") + user[:8]
    record = (1).to_bytes(2) + bytes((len(words),)) + words + bytes((8, 44 << 2, 1))
    assert talk(a0(0x81, "03000400000000")) == a0_frame(1, 0x81, record)
    assert talk(a0(0x85, "000c" + two.epc.hex())) == a0(0x85, "10")
    assert talk(a0(0x86)) == a0(0x86, "000c" + two.epc.hex())
    assert talk(a0(0x81, "03000400000000")) == a0(0x81, "32")
    assert talk(a0(0x85, "01")) == a0(0x85, "10")
    both = talk(a0(0x81, "02000600000000"))
    assert both.count(TID) == 2
    assert both[4:6] == (2).to_bytes(2)


def test_a0_refuses_more_words_than_a_frame_can_carry():
    talk = Talk("a0", held(tag(bytes(62), user=bytes(1024))))
    assert talk(a0(0x81, "03000000000000")) == a0(0x81, "42")
    assert talk(a0(0x81, "0300ff00000000")) == a0(0x81, "42")
    assert talk(a0(0x81, "03005b00000000")) == a0(0x81, "42")
    assert talk(a0(0x81, "03005a00000000"))[1] == 255


def test_a0_says_no_tag_wrong_password_and_refuses_to_write():
    assert Talk("a0", EMPTY)(a0(0x81, "03000400000000")) == a0(0x81, "36")
    talk = Talk("a0", held(tag(user=USER, access_password=7)))
    assert talk(a0(0x81, "03000400000001")) == a0(0x81, "40")
    for code, data in [
        (0x82, "00000000030001abcd"),
        (0x94, "00000000030001abcd"),
        (0x83, "000000000101"),
        (0x84, "0" * 8),
    ]:
        assert talk(a0(code, data)) == a0(code, "40")
    assert talk(a0(0x81, "03000400000000"))[3:5] != b"\x81\x40"


def test_a0_answers_what_came_during_a_round_after_its_end():
    talk = Talk("a0", held(tag()))
    out = talk(a0(0x89, "0a") + a0(0x72), 1.0)
    assert out.count(EPC) == 10
    assert out.endswith(a0(0x72, "0109"))


# -------------------------------------------------------------------------------------------------------- GX


GB = {"protocol": AirProtocol.GB29768}


def test_gx_tells_what_it_can_and_keeps_band_and_power():
    talk = Talk("gx", EMPTY)
    assert talk(gx(0x00)) == gx(0x00, "052104" + "00050001020304" + "00020002")
    assert talk(gx(0x04)) == gx(0x04, "03")
    assert talk(gx(0x03, "00")) == gx(0x03, "00")
    assert talk(gx(0x04)) == gx(0x04, "00")
    assert talk(gx(0x01, "01140215")) == gx(0x01, "00")
    assert talk(gx(0x02)) == gx(0x02, "0114021503210421")
    assert talk(gx(0x01, "0122")) == gx(0x01, "02")
    assert talk(gx(0x01, "0914")) == gx(0x01, "01")
    assert talk(gx(0x03, "09")) == gx(0x03, "01")
    assert talk(gx(0xE2, "0301")) == gx(0xE2, "00")
    assert talk(gx(0xE3)) == gx(0xE3, "fe430100")


def test_gx_reads_epc_tid_and_user_bank_in_one_inventory():
    user = bytes(range(16))
    talk = Talk("gx", held(tag(user=user), dbm=-60, radio=fixed(920_625)))
    out = talk(gx(0x10, "000000010002000603000004"))
    notice = b"\x00\x0c" + EPC + bytes.fromhex("340001") + bytes.fromhex("0180") + b"\x02\x00"
    notice += b"\x03\x00\x0c" + TID + b"\x04\x00\x08" + user[:8] + b"\x08" + (920_625).to_bytes(4)
    assert out == gx(0x10, "00") + gx_notice(0x00, notice) + gx_notice(0x01, "00")


def test_gx_sends_no_read_after_it_said_that_the_inventory_is_over():
    talk = Talk("gx", held(*(tag(f"{number:024x}") for number in range(20))))
    talk(gx(0x10, "0000000101"), 0.2)
    out = talk(gx(0xFF), 0.5)
    assert out.count(b"\x5a\x00\x01\x12\x00") > 5
    assert out.endswith(gx_notice(0x01, "01"))


def test_gx_keeps_the_two_air_interfaces_apart():
    scene = held(tag(), tag("303132333435363738394142", **GB))
    talk = Talk("gx", scene)
    gen2, gb = talk(gx(0x10, "0000000100")), talk(gx(0x50, "0000000100"))
    assert EPC in gen2
    assert b"0123456789AB" not in gen2
    assert b"0123456789AB" in gb
    assert EPC not in gb
    assert gb.endswith(gx_notice(0x31, "00"))


def test_an_endless_inventory_ends_with_stop():
    talk = Talk("gx", held(tag(**GB)))
    assert talk(gx(0x50, "0000000101020004"), 1.0).count(EPC) > 100
    out = talk(gx(0xFF))
    assert gx(0xFF, "00") in out
    assert gx_notice(0x31, "01") in out
    assert talk(b"", 1.0) == b""


SAFE = "0000000100" + "0601"


@pytest.mark.parametrize(
    ("authentication", "module", "data", "seen", "result"),
    [
        (Authentication.REQUIRED, True, SAFE, True, b"\x02\x00"),
        (Authentication.REQUIRED, False, SAFE, False, None),
        (Authentication.NONE, False, SAFE, False, None),  # without a security module the command is refused
        (Authentication.REQUIRED, True, "0000000100", False, None),
        (Authentication.FAILS, True, SAFE, True, b"\x02\x0a"),
        (Authentication.FAILS, True, "0000000100", True, b""),
        (Authentication.NONE, True, "0000000100", True, b""),
    ],
)
def test_a_statutory_tag_answers_only_a_reader_that_can_prove_itself(authentication, module, data, seen, result):
    scene = held(tag(authentication=authentication, **GB), dbm=-60, reader=ReaderSetup(security_module=module))
    out = Talk("gx", scene)(gx(0x50, data))
    assert (EPC in out) is seen
    if result is not None:
        assert gx_notice(0x30, b"\x00\x0c" + EPC + bytes.fromhex("3000010180") + result) in out


@pytest.mark.parametrize(
    ("code", "data", "status"),
    [
        (0x10, "0000000000", "01"), (0x50, "0000001000", "01"), (0x50, "000001", "01"), (0x50, "00000001000100", "02"),
        (0x50, "00000001000200", "03"), (0x50, "000000010003000000", "04"), (0x50, "000000010009", "05"),
        (0x10, "000000010009", "06"), (0x51, "00000001", "0c"),
    ],
)  # fmt: skip
def test_gx_names_the_part_of_an_order_that_is_wrong(code, data, status):
    assert Talk("gx", EMPTY)(gx(code, data)) == gx(code, status)


def test_gx_filters_by_bits_of_a_bank():
    other = "e200001d7315016521408fc6"
    talk = Talk("gx", held(tag(), tag(other)))
    out = talk(gx(0x10, "0000000100" + "01" + "0010" + "01" + "0020" + "60" + other))
    assert bytes.fromhex(other) in out
    assert EPC not in out


def test_gx_refuses_to_write_to_a_tag():
    assert Talk("gx", held(tag()))(gx(0x11, "00000001")) == gx(0x11, "08")
    assert Talk("gx", held(tag()))(gx(0x51, "00000001")) == gx(0x51, "0c")
    assert Talk("gx", held(tag(**GB)))(gx(0x53, "00000001")) == gx(0x53, "08")


def test_every_model_starts_in_a_foreign_band_so_that_a_host_must_set_its_own():
    assert ENGINES.keys() == MODELS.keys(), f"add {MODELS.keys() - ENGINES.keys()} to ENGINES of emulator/device.py"
    assert SERIAL == ["a0", "gx", "m100"], "a line here for the one that is new"  # of llrp: tests/test_rfid_llrp.py
    assert Talk("m100", EMPTY)(m100(0x08)) == m100_reply(0x08, "02")
    assert Talk("a0", EMPTY)(a0(0x79)) == a0(0x79, "01073b")
    assert Talk("gx", EMPTY)(gx(0x04)) == gx(0x04, "03")
