"""`markcheck reader` as a technician runs it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hw.rfid import a0, gx, m100
from hw.rfid.emulator.device import EmulatedReader
from hw.rfid.emulator.port import running
from hw.rfid.emulator.scene import Passage, Scene, Tag
from hw.rfid.explain import Explainer, explain
from hw.rfid.models import MODELS
from hw.rfid.traffic import Traffic, TrafficError, TrafficWriter
from scripts.cli.main import main
from tests.test_rfid_codec import EPC, NOTICES, PROTOCOLS, a0_notice, gx_notice, m100_notice


@pytest.fixture(params=PROTOCOLS)
def port(request, tmp_path) -> Iterator[list[str]]:
    tags = [Tag(epc=bytes((n,)) * 12, tid=b"\xe2\x80\x11\x60" + bytes(8)) for n in (1, 2)]
    scene = Scene(passages=tuple(Passage(tag=tag, rssi_dbm=-50.0) for tag in tags))
    with running(EmulatedReader(request.param, scene), time.monotonic, tmp_path / "port"):
        yield ["--protocol", request.param, "--port", str(tmp_path / "port")]


def run(capsys, *argv: str) -> tuple[int, list[dict]]:
    status = main(["reader", *argv])
    return status, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def decoded(capsys, protocol: str, data: bytes) -> tuple[int, list[dict]]:
    return run(capsys, "decode", "--protocol", protocol, data.hex())


# Bytes


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_good_frame_is_told_with_its_fields(capsys, protocol):
    status, (told,) = decoded(capsys, protocol, NOTICES[protocol](EPC))
    assert status == 0
    assert (told["offset"], told["kind"], told["epc"], told["pc"]) == (0, "tag", EPC.hex(), "3000")


@pytest.mark.parametrize(
    ("protocol", "data", "refused"),
    [
        ("m100", "ff" + m100_notice(EPC)[:-2].hex() + "007e", [(0, "junk"), (1, "checksum")]),
        ("m100", m100_notice(EPC)[:-1].hex() + "00", [(0, "checksum")]),
        ("m100", m100_notice(EPC)[:-3].hex(), [(0, "incomplete")]),
        ("m100", m100_notice(EPC, crc=0x1234).hex(), [(0, "tag_crc")]),
        ("m100", "bb02220300", [(0, "length")]),
        ("a0", a0.build(0x89, b"\xac\x48\x00" + EPC + b"\x3c").hex(), [(0, "pc_length")]),
        ("a0", a0_notice(EPC)[:-1].hex() + "00", [(0, "checksum")]),
        ("gx", gx_notice(EPC)[:-1].hex() + "00", [(0, "checksum")]),
        ("gx", gx_notice(EPC, b"\x03\x00\x40").hex(), [(0, "shape")]),
        ("gx", gx.build(gx.APP << 8 | 0x33, b"", flags=gx.FROM_READER).hex(), [(0, "type")]),
    ],
)
def test_what_is_no_frame_is_told_with_kind_and_offset(capsys, protocol, data, refused):
    status, told = decoded(capsys, protocol, bytes.fromhex(data))
    assert status == 1
    found = [(line["offset"], line["refused"]) for line in told]
    assert found[: len(refused)] == refused
    assert all(kind in ("junk", "length") for _, kind in found[len(refused) :])


def test_good_frames_around_and_inside_a_refused_one_are_told_too(capsys):
    liar = bytes.fromhex("bb0222001e")
    status, told = decoded(capsys, "m100", m100_notice(EPC) + liar + m100_notice(bytes(2)) + b"\x00" * 30)
    assert status == 1
    kinds = [(line["offset"], line.get("refused", line.get("epc"))) for line in told]
    assert kinds[:3] == [(0, EPC.hex()), (24, "checksum"), (29, "0000")]


def test_vectors_that_must_be_refused_are_refused_by_the_command(capsys, vectors):
    for vector in json.loads(vectors("rfid_vectors.json").read_text())["vectors"]:
        if vector["protocol"] in PROTOCOLS:
            status, _ = decoded(capsys, vector["protocol"], bytes.fromhex(vector["hex"]))
            expected = vector["expect"].get("accept", True)
            # A frame to a reader may look like a wrong frame from one: these families do not tell the direction.
            assert status == (0 if expected else 1) or (vector["protocol"], vector["direction"]) == ("a0", "h2r")


def test_no_bytes_are_no_frame_and_no_hex_is_wrong_usage(capsys):
    assert decoded(capsys, "m100", b"") == (1, [])
    assert run(capsys, "decode", "--protocol", "m100", "xyz") == (2, [])


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(data=st.binary(max_size=200))
def test_every_byte_is_told_of_in_a_frame_or_in_a_refusal(protocol, data):
    told = list(explain(MODELS[protocol].codec(), data))
    covered = {at for line in told for at in range(line["offset"], line["offset"] + len(line["hex"]) // 2)}
    assert covered == set(range(len(data)))
    json.dumps(told)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.integers(1, 9), max_size=30))
def test_pieces_tell_the_same_as_the_whole(pieces):
    data = b"\x01\xbb" + m100_notice(EPC) + m100_notice(EPC)[:9] + m100_notice(bytes(2)) + b"\xff" * 70
    explainer, told, at = Explainer(m100.M100Codec()), [], 0
    for size in pieces:
        told += explainer.feed(data[at : at + size], 0.0)
        at = min(len(data), at + size)
    told += [*explainer.feed(data[at:], 0.0), *explainer.finish()]
    tags = [line for line in told if line.get("kind") == "tag"]
    assert tags == [line for line in explain(m100.M100Codec(), data) if line.get("kind") == "tag"]
    assert len(tags) == 2


# Recorded traffic


def test_what_is_recorded_can_be_replayed_and_shows_both_directions(capsys, port, tmp_path):
    file = tmp_path / "traffic.jsonl"
    status, (done,) = run(capsys, "record", *port, "--seconds", "0.5", "--json", str(file))
    assert (status, done["reads"] > 0) == (0, True)
    status, told = run(capsys, "replay", str(file))
    assert status == 0
    assert sum(line["dir"] == "in" and line.get("kind") == "tag" for line in told) == done["reads"]
    assert any(line["dir"] == "out" for line in told)
    assert [line["t"] for line in told if "t" in line] == sorted(line["t"] for line in told if "t" in line)


def test_recorded_traffic_comes_back_as_it_was(tmp_path):
    with TrafficWriter(tmp_path / "t", "a0", 9600) as writer:
        writer.write(0.5, "out", b"\xa0\x03\x01\x72\xea")
        writer.write(0.75, "in", b"\xa0\x05")
    writer.write(1.0, "in", b"late")
    traffic = Traffic(tmp_path / "t")
    assert (traffic.protocol, list(traffic.chunks())) == (
        "a0", [(0.5, "out", b"\xa0\x03\x01\x72\xea"), (0.75, "in", b"\xa0\x05")]
    )  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{", '{"format": "x"}', "[" * 100_000,
        '{"format": "reader-traffic", "version": 2, "protocol": "a0"}',
        '{"format": "reader-traffic", "version": 1, "protocol": "a0"}\n{"t": 1, "dir": "up", "hex": ""}',
        '{"format": "reader-traffic", "version": 1, "protocol": "a0"}\n{"t": 1, "dir": "in", "hex": "0"}',
        '{"format": "reader-traffic", "version": 1, "protocol": "a0"}\n{"dir": "in", "hex": "", "t": %s}' % ("9" * 400),
        '{"format": "reader-traffic", "version": 1, "protocol": "a0"}\n{"t": NaN, "dir": "in", "hex": ""}',
        '{"format": "reader-traffic", "version": 1, "protocol": "a0"}\n{"dir": "in", "hex": "00"}',
        '{"format": "reader-traffic", "version": 1, "protocol": "a0"}\n7',
    ],
)  # fmt: skip
def test_a_file_that_holds_no_traffic_is_refused_with_its_line(tmp_path, text):
    path = tmp_path / "t"
    path.write_text(text)
    with pytest.raises(TrafficError, match=r"line \d"):
        list(Traffic(path).chunks())


def test_a_file_of_an_unknown_protocol_is_refused_by_the_command(capsys, tmp_path):
    path = tmp_path / "t"
    path.write_text('{"format": "reader-traffic", "version": 1, "protocol": "zz"}\n')
    assert run(capsys, "replay", str(path)) == (1, [])


# A reader


def test_identify_tells_the_confirmed_band(capsys, port):
    status, (told,) = run(capsys, "identify", *port, "--json")
    assert (status, told["region"], told["power_dbm"]) == (0, "china_920_925", 20.0)


def test_inventory_tells_reads_and_ends_with_the_readers_health(capsys, port):
    status, told = run(capsys, "inventory", *port, "--seconds", "0.5", "--json")
    assert status == 0
    assert {line["epc"] for line in told if line["event"] == "read"} == {"01" * 12, "02" * 12}
    assert (told[-1]["event"], told[-1]["timeouts"]) == ("health", 0)


def test_inventory_can_tell_passings_instead(capsys, port):
    status, told = run(capsys, "inventory", *port, "--seconds", "0.5", "--track", "--json")
    assert status == 0
    assert sorted(line["event"] for line in told) == ["arrived", "arrived", "health", "left", "left"]


def test_read_tells_each_tag_once_or_its_memory(capsys, port):
    status, told = run(capsys, "read", *port, "--seconds", "2", "--json")
    assert (status, sorted(line["epc"] for line in told)) == (0, ["01" * 12, "02" * 12])
    status, (told,) = run(capsys, "read", *port, "--epc", "02" * 12, "--bank", "tid", "--count", "2", "--json")
    assert (status, told["data"]) == (0, "e2801160")


def test_a_port_that_is_not_there_is_one_line_on_stderr(capsys):
    assert main(["reader", "identify", "--protocol", "m100", "--port", str(Path("/nowhere/ttyUSB9"))]) == 1
    assert capsys.readouterr().err == "markcheck: tag reader: port cannot be opened (errno 2)\n"


@pytest.mark.parametrize("epc", ["zz", "ab" * 63, "ab" * 300, "abcdef"])
def test_a_code_that_no_tag_can_have_is_wrong_usage(capsys, epc):
    assert main(["reader", "read", "--protocol", "a0", "--port", "/nowhere", "--epc", epc]) == 2
    assert "--epc" in capsys.readouterr().err


def test_power_beyond_the_band_is_refused_before_the_port_is_opened(capsys):
    assert main(["reader", "identify", "--protocol", "m100", "--port", "/nowhere", "--power", "40"]) == 1
    assert "33 dBm" in capsys.readouterr().err


# The benchmark


@pytest.mark.long
def test_the_benchmark_holds_every_figure_against_a_target(capsys):
    main(["bench", "reader", "--seconds", "0.2", "--json"])
    figures = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {figure["verdict"] for figure in figures} <= {"met", "missed"}
    certain = {f["name"]: f["verdict"] for f in figures if "wrong EPCs" in f["name"] or "lost to one" in f["name"]}
    assert set(certain.values()) == {"met"}
    assert len(certain) == 4
    assert len(figures) == 23
