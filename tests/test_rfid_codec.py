"""Frames of tag readers: bytes that public captures and documents show, and bytes that must never become a tag."""

from __future__ import annotations

import json
import random
from binascii import crc_hqx

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw.errors import TagProblem
from hw.rfid import a0, gx, m100
from hw.rfid.framing import Refusal, Splitter
from hw.rfid.models import MODELS
from hw.rfid.packets import Answer, Codec, End, Fault, Packet, Refused, Request, Sighting, tag_crc
from hw.rfid.types import MAX_ANTENNA, AirProtocol, Health, Integrity
from tests.reader_lines import SERIAL

CODECS: dict[str, Codec] = {name: MODELS[name].codec() for name in SERIAL}
EPC = bytes.fromhex("e2801160600002084d6e7c1a")


def split(protocol: str, data: bytes, cap: int | None = None) -> tuple[list[bytes], Splitter, Health]:
    codec, health = CODECS[protocol], Health()
    splitter = Splitter(codec.layout, cap or codec.cap, health)
    return splitter.feed(data, 0.0), splitter, health


def packets(protocol: str, data: bytes) -> list[Packet]:
    return [CODECS[protocol].decode(frame) for frame in split(protocol, data)[0]]


def pc_of(epc: bytes) -> bytes:
    return (len(epc) // 2 << 11).to_bytes(2, "big")


def m100_notice(epc: bytes, rssi: int = -55, crc: int | None = None, head: int = 0xBB) -> bytes:
    words = pc_of(epc) + epc
    crc = crc_hqx(words, 0xFFFF) ^ 0xFFFF if crc is None else crc
    return m100.build(0x22, bytes((rssi & 0xFF,)) + words + crc.to_bytes(2, "big"), kind=2, head=head)


def a0_notice(epc: bytes, place: int = 0xAC, rssi: int = 60, phase: bytes = b"", command: int = 0x8B) -> bytes:
    return a0.build(command, bytes((place,)) + pc_of(epc) + epc + bytes((rssi,)) + phase)


def gx_notice(epc: bytes, fields: bytes = b"\x01\x60", mid: int = 0x00, **options: int) -> bytes:
    data = len(epc).to_bytes(2, "big") + epc + pc_of(epc) + b"\x01" + fields
    return gx.build(gx.BASE << 8 | mid, data, flags=gx.FROM_READER, **options)


NOTICES = {"m100": m100_notice, "a0": a0_notice, "gx": gx_notice}
PROTOCOLS = sorted(CODECS)


def test_every_reader_on_a_serial_line_has_a_notice_here():
    assert NOTICES.keys() == set(SERIAL), f"add {set(SERIAL) - NOTICES.keys()} to NOTICES"


# What public sources show


def test_every_handed_vector_of_our_protocols_is_read_or_refused_as_it_must_be(vectors):
    handed = json.loads(vectors("rfid_vectors.json").read_text())["vectors"]
    ours = [vector for vector in handed if vector["protocol"] in CODECS]
    assert len(ours) >= 30
    for vector in ours:
        check_vector(vector["protocol"], bytes.fromhex(vector["hex"]), vector["expect"])


def check_vector(protocol: str, data: bytes, expect: dict) -> None:
    got = packets(protocol, data)
    if expect.get("accept") is False:
        assert got == []
        return
    (packet,) = got
    if "build" in expect:
        assert rebuilt(protocol, expect) == data
        return
    if "mt" not in expect and "cmd" in expect and "epc" not in expect and "error" not in expect:
        assert packet.command == expect["cmd"]
    check_tag(packet, expect)
    if "params" in expect and isinstance(packet, Answer):
        assert packet.data.hex() == expect["params"]
    if "version" in expect:
        assert list(packet.data) == expect["version"]
    if expect.get("round_end"):
        assert packet.end == (expect["antenna"], expect["total_read"], expect["read_rate"])
    if "error" in expect:
        assert packet == Fault(None, int(expect["params"][:2], 16), bytes.fromhex(expect.get("epc", "")) or None)


def check_tag(packet: Packet, expect: dict) -> None:
    if "pc" in expect:
        assert isinstance(packet, Sighting)
        assert (packet.epc.hex(), f"{packet.pc:04x}") == (expect["epc"], expect["pc"])
    for name in ("rssi_dbm", "rssi_raw", "antenna", "freq_khz"):
        if name in expect and isinstance(packet, Sighting):
            assert getattr(packet, name) == expect[name]
    if "freq_mhz" in expect:
        assert packet.freq_khz == expect["freq_mhz"] * 1000
    if expect.get("tag_crc_ok"):
        assert packet.crc.hex() == expect["tag_crc"]
    if expect.get("cmd") == 0x49:
        assert m100.memory_answer(packet.data).epc.hex() == expect["epc"]


def rebuilt(protocol: str, expect: dict) -> bytes:
    if protocol == "m100":
        return m100.build(expect["cmd"], bytes.fromhex(expect["params"]))
    if protocol == "a0":
        return a0.build(expect["cmd"], bytes.fromhex(expect["data"]), address=expect["addr"])
    return gx.build(expect["mt"] << 8 | expect["mid"], bytes.fromhex(expect["data"]))


# Tags


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("words", [0, 1, 6, 8, 31])
def test_an_epc_of_any_length_from_none_to_496_bits_is_read(protocol, words):
    epc = bytes(range(words * 2))
    frames, _, _ = split(protocol, NOTICES[protocol](epc), CODECS[protocol].inventory_cap)
    (packet,) = [CODECS[protocol].decode(frame) for frame in frames]
    assert (packet.epc, packet.pc >> 11, packet.protocol) == (epc, words, AirProtocol.GEN2)


def test_a_damaged_epc_that_keeps_the_frames_checksum_fails_the_tags_own_crc():
    good = m100_notice(EPC)
    body = bytearray(good[1:-2])
    body[8] ^= 1
    body[9] ^= 1 if body[9] & 1 == body[8] & 1 else 0
    frame = good[:1] + bytes(body) + bytes((sum(body) & 0xFF,)) + good[-1:]
    assert packets("m100", frame) == [Refused(Refusal.TAG_CRC)]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pc_that_counts_other_words_than_the_epc_has_is_refused(protocol):
    words = (7 << 11).to_bytes(2, "big") + EPC
    frame = {
        "m100": m100.build(0x22, b"\xc9" + words + tag_crc(words).to_bytes(2, "big"), kind=2),
        "a0": a0.build(0x89, b"\xac" + (9 << 11).to_bytes(2, "big") + EPC + b"\x3c"),
        "gx": gx.build(gx.BASE << 8, b"\x00\x0c" + EPC + words[:2] + b"\x01", flags=gx.FROM_READER),
    }[protocol]
    assert packets(protocol, frame) == [Refused(Refusal.PC_LENGTH)]


def test_both_framings_of_the_handheld_family_are_read():
    first, second = packets("m100", m100_notice(EPC) + m100_notice(EPC, head=0xAA))
    assert first == second
    assert m100_notice(EPC, head=0xAA)[-1] == 0xDD


def test_a_notice_may_name_the_multi_poll_command():
    frame = bytearray(m100_notice(EPC))
    frame[2], frame[-2] = 0x27, (frame[-2] + 5) & 0xFF
    (packet,) = packets("m100", bytes(frame))
    assert packet.epc == EPC


def test_an_eight_port_readers_antenna_hides_in_the_rssi():
    (packet,) = packets("a0", a0_notice(EPC, place=0xAE, rssi=0x80 | 52))
    assert (packet.antenna, packet.rssi_dbm, packet.rssi_raw) == (7, -77.0, 0x80 | 52)


def test_phase_after_the_rssi_does_not_lengthen_the_epc():
    (packet,) = packets("a0", a0_notice(EPC, phase=b"\x12\x34"))
    assert (packet.epc, packet.rssi_raw, packet.integrity) == (EPC, 60, Integrity.CHECKSUM8)


@pytest.mark.parametrize("more", [1, 3, 4])
def test_other_bytes_after_the_rssi_refuse_the_frame(more):
    (packet,) = packets("a0", a0_notice(EPC, phase=bytes(more)))
    assert isinstance(packet, Refused)


def test_channels_of_the_lane_readers_are_those_of_the_documents():
    assert [a0.frequency_khz(index) for index in (0, 6, 7, 43, 53, 59)] == [
        865000,
        868000,
        902000,
        920000,
        925000,
        928000,
    ]
    assert (a0.frequency_index(920_000), a0.frequency_index(925_000)) == (43, 53)


def test_round_ends_are_read_with_and_without_a_rate():
    new = a0.build(0x89, b"\x02\x00\x11\x00\x00\x00\x05")
    old = a0.build(0x89, b"\x02\x00\x00\x00\x05")
    switch = a0.build(0x8A, b"\x00\x00\x07\x00\x00\x01\x00")
    ends = [packet.end for packet in packets("a0", new + old + switch)]
    assert ends == [(3, 5, 17), (3, 5, None), (None, 7, None)]


def test_a_missing_antenna_is_told_with_and_without_its_number():
    got = packets("a0", a0.build(0x89, b"\x22") + a0.build(0x8A, b"\x02\x22"))
    assert got == [Fault(0x89, 0x22), Fault(0x8A, 0x22, antenna=3)]


def test_a_frame_of_another_reader_on_the_bus_is_refused():
    assert a0.A0Codec(address=2).decode(a0_notice(EPC)) == Refused(Refusal.TYPE)
    frame = gx_notice(EPC, address=5)
    assert gx.GxCodec(address=4).decode(frame) == Refused(Refusal.TYPE)
    assert gx.GxCodec(address=5).decode(frame).epc == EPC


def test_tid_user_memory_and_frequency_come_with_the_notice():
    fields = b"\x01\xaa\x02\x00\x03\x00\x04\xe2\x80\x11\x60\x04\x00\x02\xbe\xef\x08\x00\x0e\x0a\x3d\x09\x10"
    for mid, protocol in gx.NOTICES.items():
        (tag,) = packets("gx", gx_notice(EPC, fields, mid))
        assert (tag.protocol, tag.tid.hex(), tag.user.hex(), tag.freq_khz) == (protocol, "e2801160", "beef", 920125)


def test_a_tid_of_no_length_is_none():
    """Two tags that gave none would otherwise be one chip with two EPCs: a copy that there is not."""
    (tag,) = packets("gx", gx_notice(EPC, b"\x02\x00\x03\x00\x00\x04\x00\x00\x0a\x00\x00"))
    assert (tag.tid, tag.user) == (None, None)


@pytest.mark.parametrize(("antenna", "read"), [(MAX_ANTENNA, True), (MAX_ANTENNA + 1, False), (0xFF, False)])
def test_an_antenna_that_no_reader_has_is_refused(antenna, read):
    """What a reader tells is counted by antenna, so they must be as few as a reader can have."""
    notice = len(EPC).to_bytes(2) + EPC + b"\x30\x00" + bytes((antenna,))
    packet = gx.GxCodec().decode(gx.build(gx.BASE << 8, notice, flags=gx.FROM_READER))
    assert isinstance(packet, Sighting) if read else packet == Refused(Refusal.SHAPE)


def test_a_failed_reading_leaves_no_tid():
    (tag,) = packets("gx", gx_notice(EPC, b"\x02\x04\x03\x00\x04\xe2\x80\x11\x60"))
    assert (tag.tid, tag.result) == (None, 4)


def test_fields_behind_an_unknown_one_are_not_guessed():
    (tag,) = packets("gx", gx_notice(EPC, b"\x01\x60\x77\x03\x00\x04\xe2\x80\x11\x60"))
    assert (tag.rssi_raw, tag.tid) == (0x60, None)


def test_a_field_that_is_cut_short_refuses_the_whole_notice():
    assert packets("gx", gx_notice(EPC, b"\x03\x00\x09\xe2")) == [Refused(Refusal.SHAPE)]


def test_the_rs485_address_stands_before_the_length():
    assert gx.build(gx.STOP, address=7)[3:8] == b"\x22\xff\x07\x00\x00"
    (answer,) = packets("gx", gx.build(gx.STOP, b"\x00", address=7))
    assert answer == Answer(gx.STOP, b"\x00")


def test_errors_are_read_with_and_without_the_tag_they_speak_of():
    echo = bytes((2 + len(EPC),)) + pc_of(EPC) + EPC
    assert packets("m100", m100.build(0xFF, b"\x09", kind=1)) == [Fault(None, 0x09)]
    assert packets("m100", m100.build(0xFF, b"\xa4" + echo, kind=1)) == [Fault(None, 0xA4, EPC)]
    assert packets("m100", m100.build(0xFF, b"\xa4" + echo[:-1], kind=1)) == [Refused(Refusal.SHAPE)]


def test_what_a_tag_answers_to_a_reading_has_a_name():
    names = [m100.tag_problem(code) for code in (0x09, 0x15, 0x16, 0xA3, 0xA4, 0xAB, 0xAF, 0x17, 0xB4)]
    p = TagProblem
    assert names == [p.NOT_FOUND, p.NOT_FOUND, p.ACCESS, p.OVERRUN, p.LOCKED, p.POWER, p.OTHER, None, None]


def test_memory_of_a_lane_readers_tag_is_believed_with_its_crc_only():
    head = pc_of(EPC) + EPC
    crc = tag_crc(head).to_bytes(2, "big")
    record = head + crc + b"\xbe\xef\x00\x01"
    for length in (4, 2):  # bytes, or words: documents differ
        got = a0.memory_answer(b"\x00\x02" + bytes((len(record),)) + record + bytes((length, 0xAC, 1)))
        assert got == (2, 0x3000, EPC, b"\xbe\xef\x00\x01")
    wrong = head + b"\x00\x00" + record[-4:]
    assert a0.memory_answer(b"\x00\x01" + bytes((len(wrong),)) + wrong + b"\x04\xac\x01") is Refusal.TAG_CRC


@given(st.binary(max_size=80))
def test_whatever_a_memory_answer_holds_it_is_read_or_refused(data):
    got = a0.memory_answer(data)
    assert isinstance(got, (Refusal, a0.MemoryAnswer))
    m100.memory_answer(data)
    gx.capabilities(data)


def test_no_driver_knows_a_command_that_changes_a_tag():
    forbidden = {
        "m100": {0x49, 0x65, 0x82},
        "a0": {0x82, 0x83, 0x84, 0x94},
        "gx": {0x11, 0x12, 0x13, 0x51, 0x52, 0x53, 0x61, 0x62, 0x63},
    }
    for module, codes in ((m100, forbidden["m100"]), (a0, forbidden["a0"])):
        assert not {
            v
            for k, v in vars(module).items()
            if k.isupper() and isinstance(v, int) and v in codes and k not in ("CAP", "INVENTORY_CAP")
        }
    known = {v for k, v in vars(gx).items() if k.isupper() and isinstance(v, int)} | set(gx.INVENTORY.values())
    assert not {gx.BASE << 8 | code for code in forbidden["gx"]} & known


# Streams


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_stream_cut_at_every_byte_gives_the_same_frames(protocol):
    notice = NOTICES[protocol]
    stream = b"\x00\x5a" + notice(EPC) + b"\x5a\x00" + notice(bytes(4)) + b"\xbb\xa0\x03" + notice(EPC) * 2
    whole, _, _ = split(protocol, stream)
    assert len(whole) == 4
    for cut in range(len(stream) + 1):
        splitter = Splitter(CODECS[protocol].layout, CODECS[protocol].cap)
        assert splitter.feed(stream[:cut], 0.0) + splitter.feed(stream[cut:], 0.0) == whole
    single = Splitter(CODECS[protocol].layout, CODECS[protocol].cap)
    assert [frame for byte in stream for frame in single.feed(bytes((byte,)), 0.0)] == whole


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(data=st.data())
def test_frames_among_noise_come_whole_and_in_order_however_the_stream_is_cut(protocol, data):
    epcs = data.draw(st.lists(st.binary(max_size=62).map(lambda b: b[: len(b) // 2 * 2]), max_size=6))
    quiet = bytes(set(range(256)) - {0xBB, 0xAA, 0xA0, 0x5A})
    noise = st.lists(st.sampled_from(quiet), max_size=9).map(bytes)
    stream = b"".join(data.draw(noise) + NOTICES[protocol](epc) for epc in epcs)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    splitter = Splitter(CODECS[protocol].layout, CODECS[protocol].inventory_cap)
    frames = [f for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True) for f in splitter.feed(stream[a:b], 0.0)]
    assert [CODECS[protocol].decode(frame).epc for frame in frames] == epcs
    assert splitter.pending == 0 or not epcs


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(stream=st.binary(max_size=400))
def test_whatever_comes_is_decoded_or_refused_and_never_an_error(protocol, stream):
    for packet in packets(protocol, stream):
        assert isinstance(packet, (Sighting, Answer, Fault, End, Request, Refused))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(payload=st.binary(max_size=70), command=st.integers(0, 255))
def test_a_sound_frame_with_any_content_is_decoded_or_refused(protocol, payload, command):
    frame = {
        "m100": m100.build(command, payload, kind=command % 3),
        "a0": a0.build((0x89, 0x8A, 0x8B, command)[command % 4], payload),
        "gx": gx.build(gx.BASE << 8 | (0x00, 0x30, 0x31, 0x40, command)[command % 5], payload, flags=gx.FROM_READER),
    }[protocol]
    (packet,) = packets(protocol, frame)
    if isinstance(packet, Sighting) and packet.protocol is AirProtocol.GEN2:
        assert packet.pc >> 11 == len(packet.epc) // 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_noise_never_grows_the_buffer_and_gives_no_tag(protocol):
    noise_gives_no_tag(protocol, 1_000_000)


@pytest.mark.long
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_fifty_million_bytes_of_noise_give_no_tag_that_counts(protocol):
    noise_gives_no_tag(protocol, 50_000_000)


def noise_gives_no_tag(protocol: str, size: int, seed: int = 7) -> None:
    """No tag; where a checksum alone protects, none that two equal reads confirm."""
    codec, rng, health = CODECS[protocol], random.Random(seed), Health()
    splitter = Splitter(codec.layout, codec.cap, health)
    tags: list[bytes] = []
    for _ in range(size // 5000):
        for frame in splitter.feed(rng.randbytes(5000), 0.0):
            packet = codec.decode(frame)
            if isinstance(packet, Sighting):
                tags.append(packet.epc)
        assert splitter.pending <= codec.cap + 12
    assert len(tags) == len(set(tags)) if protocol == "a0" and size > 1_000_000 else tags == []
    assert health.junk_bytes + health.bad_length + health.bad_checksum > size / 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_one_bad_byte_costs_at_most_two_frames(protocol):
    frames = [NOTICES[protocol](n.to_bytes(12, "big")) for n in range(0x1000, 0x1010)]
    stream = b"".join(frames)
    start, end = len(b"".join(frames[:5])), len(b"".join(frames[:6]))
    for at in range(start, end):
        for wrong in (0x00, 0xFF, stream[at] ^ 0x01, stream[at] ^ 0x80):
            damaged = stream[:at] + bytes((wrong,)) + stream[at + 1 :]
            got, _, _ = split(protocol, damaged, CODECS[protocol].inventory_cap)
            assert len(set(frames) & set(got)) >= len(frames) - (2 if damaged != stream else 0)


def test_a_length_above_the_cap_is_not_waited_for():
    liar = b"\xbb\x02\x22\x01\x00" + m100_notice(EPC)
    frames, splitter, health = split("m100", liar, m100.INVENTORY_CAP)
    assert (frames, splitter.pending, health.bad_length) == ([m100_notice(EPC)], 0, 1)


def test_a_frame_that_stops_for_50_ms_is_given_up_and_what_stands_inside_it_is_found():
    health = Health()
    splitter = Splitter(CODECS["m100"].layout, 512, health)
    assert splitter.feed(b"\xbb\x02\x22\x01\x00" + m100_notice(EPC), 1.0) == []
    assert splitter.feed(b"", 1.049) == []
    assert splitter.feed(b"", 1.05) == [m100_notice(EPC)]
    assert (splitter.pending, health.stalled) == (0, 1)


def test_bytes_that_are_late_but_there_are_no_stalled_frame():
    frame = m100_notice(EPC)
    splitter = Splitter(CODECS["m100"].layout, 512)
    assert splitter.feed(frame[:9], 1.0) == []
    assert splitter.feed(frame[9:], 9.0) == [frame]


# Mistakes of public drivers, each one seen in the wild


def test_a_frame_does_not_end_at_the_first_byte_that_looks_like_its_tail():
    epc = bytes.fromhex("7e7e7e7e7edd7e7e7e7e7e7e")
    (packet,) = packets("m100", m100_notice(epc))
    assert packet.epc == epc


def test_frames_need_not_have_24_bytes():
    short, long = m100_notice(bytes(4)), m100_notice(bytes(16))
    assert [len(frame) for frame in split("m100", short + long)[0]] == [16, 28]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_checksum_is_checked(protocol):
    frame = bytearray(NOTICES[protocol](EPC))
    frame[12] ^= 0x10
    frames, _, health = split(protocol, bytes(frame) + bytes(80))
    assert frames == []
    assert health.bad_checksum == 1


def test_a_head_is_sought_among_bytes_and_not_among_hex_digits():
    assert packets("m100", bytes.fromhex("0bb0") + m100_notice(EPC))[0].epc == EPC  # "0bb0" holds the text "bb"


def test_an_epc_may_contain_the_head_of_a_frame():
    epc = bytes.fromhex("e2a04fbbaa5a0001a013018b")
    for protocol in PROTOCOLS:
        assert [packet.epc for packet in packets(protocol, NOTICES[protocol](epc) * 3)] == [epc] * 3


# Damage


@pytest.mark.long
def test_no_wrong_epc_in_20000_frames_with_one_bad_byte_in_a_thousand():
    wrong, right = wrong_epcs(25_000, 1e-3)
    assert wrong == 0
    assert right > 23_000


def test_no_wrong_epc_in_2000_frames_with_one_bad_byte_in_a_hundred():
    wrong, right = wrong_epcs(2_000, 1e-2)
    assert wrong == 0
    assert right > 1_400


def wrong_epcs(count: int, rate: float) -> tuple[int, int]:
    """M100: (tags that were never sent, tags that came through)."""
    rng = random.Random(11)
    sent = [rng.randbytes(12) for _ in range(count)]
    stream = bytearray(b"".join(map(m100_notice, sent)))
    for at in range(len(stream)):
        if rng.random() < rate:
            stream[at] = rng.randrange(256)
    codec = CODECS["m100"]
    splitter = Splitter(codec.layout, codec.inventory_cap)
    got = [codec.decode(frame) for frame in splitter.feed(bytes(stream), 0.0)]
    epcs = {packet.epc for packet in got if isinstance(packet, Sighting)}
    return len(epcs - set(sent)), len(epcs & set(sent))
