"""The page that a driver's phone shows: what it serves is read back by the real decoders and verified."""

from __future__ import annotations

import http.client
import io
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

import numpy as np
import pytest
from PIL import Image

from hw.qr.decoders import available_decoders
from hw.qr.pipeline import decode_frame
from scripts.cli.main import main
from scripts.sandbox.authority import Authority, AuthorityFolder
from scripts.sandbox.fleet import Vehicle
from scripts.sandbox.server import serve_answers
from scripts.sandbox.wallet import RENEW_S, Wallet
from tests.test_codes import rasterised
from verifier.codec.credential import decode
from verifier.plates import display_text
from verifier.trust import load_trust_list
from verifier.types import CodeFault, Plate, PresentationMode
from verifier.vehicle_words import VEHICLE_TYPES
from verifier.verify import VerifiedCredential, verify

BEGAN = datetime(2026, 11, 22, 1, 0, tzinfo=UTC)
PAGE = files("scripts.sandbox").joinpath("wallet.html").read_text(encoding="utf-8")


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = BEGAN

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class World(NamedTuple):
    """A wallet over a folder, beside the authority as another command has it."""

    folder: AuthorityFolder
    authority: Authority
    wallet: Wallet
    clock: Clock

    def get(self, path: str, **query: str) -> tuple[int, bytes]:
        answer = self.wallet.respond(f"{path}?{urlencode(query)}" if query else path)
        return answer.status, answer.body

    def proven(self, vehicle: Vehicle, mode: str, suffix: str = "png", **more: str) -> VerifiedCredential:
        return verify(decode(self.payload(vehicle, mode, suffix, **more)), self.trust, self.clock())

    def payload(self, vehicle: Vehicle, mode: str, suffix: str = "png", **more: str) -> bytes:
        status, body = self.get(f"/code.{suffix}", mode=mode, **names(vehicle.plate), **more)
        assert status == 200, body
        picture = Image.open(io.BytesIO(body)) if suffix == "png" else rasterised(body)
        (code,) = decode_frame(np.asarray(picture.convert("L")), available_decoders(), budget_s=60)
        return code.payload

    def shown(self, vehicle: Vehicle) -> dict:
        status, body = self.get("/vehicle.json", **names(vehicle.plate))
        assert status == 200, body
        return json.loads(body)

    @property
    def trust(self):
        return load_trust_list(self.authority.issuer.trust_entries())


def names(plate: Plate) -> dict[str, str]:
    return {"plate": plate.text, "kind": plate.kind or ""}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sandbox")
    AuthorityFolder(folder).create(clock=lambda: BEGAN, scale=64, seed=3)
    return folder


@pytest.fixture
def world(made) -> World:
    (made / "private" / "events.jsonl").unlink(missing_ok=True)
    clock, folder = Clock(), AuthorityFolder(made)
    return World(folder, folder.open(clock=clock), Wallet(folder, clock=clock), clock)


def a_vehicle(world: World, *, tagged: bool = True) -> Vehicle:
    return next(v for v in world.authority.registry.vehicles.values() if bool(v.tid) is tagged)


# ---------------------------------------------------------------------------------------------- the codes


@pytest.mark.parametrize("suffix", ["png", "svg"])
@pytest.mark.parametrize("mode", list(PresentationMode))
def test_every_code_verifies_in_its_mode(mode, suffix, world):
    vehicle = a_vehicle(world)
    proven = world.proven(vehicle, mode.value, suffix)
    assert (proven.credential.plate, proven.mode, proven.fault) == (vehicle.plate, mode, None)
    assert (proven.shown_at is not None) is (mode is PresentationMode.LIVE)
    assert proven.credential.serial == world.authority.registry.credential(vehicle.plate).serial


def test_a_live_code_is_another_after_its_renewal_and_fresh_again(world):
    vehicle = a_vehicle(world)
    old = world.payload(vehicle, "live")
    world.clock.pass_by(RENEW_S)
    new = world.payload(vehicle, "live")
    assert old != new
    world.clock.pass_by(61)  # the old one was shown 91 s ago, the new one 61 s ago
    faults = [verify(decode(code), world.trust, world.clock()).fault for code in (old, new)]
    assert faults == [CodeFault.STALE_PRESENTATION, None]


def test_the_phone_signs_a_live_code_with_the_key_that_its_credential_names(world):
    vehicle = a_vehicle(world)
    by_phone, by_platform = (world.proven(vehicle, "live", signer=signer) for signer in ("holder", "platform"))
    assert (by_phone.holder_signed, by_phone.fault) == (True, None)
    assert (by_platform.holder_signed, by_platform.fault) == (False, None)
    world.clock.pass_by(RENEW_S)
    assert world.proven(vehicle, "live", signer="holder").shown_at == world.clock()


@pytest.mark.parametrize("mode", ["stored", "printed", "tag_label"])
def test_what_is_kept_on_the_phone_stays_the_same_all_day(mode, world):
    vehicle = a_vehicle(world)
    first = world.payload(vehicle, mode)
    world.clock.pass_by(14.9 * 3600)  # 23:54 in Shanghai
    assert world.payload(vehicle, mode) == first
    world.clock.pass_by(600)
    tomorrow = world.payload(vehicle, mode)
    assert tomorrow != first
    old, new = (verify(decode(code), world.trust, world.clock()) for code in (first, tomorrow))
    assert (old.credential.serial, old.fault) == (new.credential.serial, new.fault)
    assert new.credential.issued_at == world.clock()


def test_a_kept_credential_is_dated_when_it_was_got_and_not_before(world):
    """Backdated to the morning, it would look older than data of the same day, and a lawful driver's as superseded."""
    world.clock.pass_by(5 * 3600)
    assert world.proven(a_vehicle(world), "stored").credential.issued_at == world.clock()


# --------------------------------------------------------------------------------------------- the events


def record(world: World, vehicle: Vehicle, **event: str) -> None:
    """As another command does it, with an authority of its own."""
    other = world.folder.open(clock=world.clock)
    world.folder.record(other, {**event, **names(vehicle.plate)})


def test_a_revocation_shows_without_a_restart(world):
    vehicle = a_vehicle(world)
    assert world.shown(vehicle)["in_force"] is True
    record(world, vehicle, event="revoke")
    assert world.shown(vehicle)["in_force"] is False


def test_a_renewal_brings_a_new_credential_with_the_new_month(world):
    vehicle = a_vehicle(world)
    old = world.proven(vehicle, "stored").credential
    world.clock.pass_by(60)
    record(world, vehicle, event="renew", until="2029-05")
    new = world.proven(vehicle, "stored").credential
    assert (str(new.valid_until), new.serial != old.serial, new.issued_at) == ("2029-05", True, world.clock())
    assert world.shown(vehicle)["valid_until"] == "2029-05"


def test_a_changed_plate_is_the_one_that_is_found(world):
    vehicle = a_vehicle(world)
    new = Plate(vehicle.plate.text[:2] + "66A88", "02")
    record(world, vehicle, event="replate", new_plate=new.text, new_kind="02")
    assert world.get("/vehicle.json", **names(vehicle.plate))[0] == 400
    assert world.get("/vehicle.json", **names(new))[0] == 200


def test_a_new_issuing_key_signs_from_its_event_on(world):
    vehicle = a_vehicle(world)
    world.clock.pass_by(60)
    other = world.folder.open(clock=world.clock)
    world.folder.record_key(other, "compromise-key", vehicle.city.code)
    trust = load_trust_list(other.issuer.trust_entries())
    proven = verify(decode(world.payload(vehicle, "stored")), trust, world.clock())
    assert proven.fault is None


def test_half_a_line_of_an_event_waits_for_its_other_half(world):
    vehicle = a_vehicle(world)
    line = json.dumps({"event": "revoke", **names(vehicle.plate)}) + "\n"
    path = world.folder.private / "events.jsonl"
    path.write_text(line[:20])
    assert world.shown(vehicle)["in_force"] is True
    path.write_text(line)
    assert world.shown(vehicle)["in_force"] is False


def test_an_event_that_cannot_be_repeated_does_not_repeat_those_before_it(world):
    vehicle, moved = a_vehicle(world), Plate("京A8D8D8", "02")
    replate = {"event": "replate", **names(vehicle.plate), "new_plate": moved.text, "new_kind": moved.kind}
    refused = {"event": "status", **names(moved), "letters": "?"}
    lines = [json.dumps(event) + "\n" for event in (replate, refused)]
    (world.folder.private / "events.jsonl").write_text("".join(lines))
    answers = [world.get("/vehicle.json", **names(moved)) for _ in range(2)]
    assert answers == [(400, b"a status letter that GA/T 16 does not have\n")] * 2


# --------------------------------------------------------------------------------------------- the vehicle


def test_the_page_is_told_what_a_driver_may_see_and_no_more(world):
    vehicle = a_vehicle(world)
    shown = world.shown(vehicle)
    assert (shown["shown"], shown["valid_until"]) == (display_text(vehicle.plate), str(vehicle.valid_until))
    assert shown["card_number"].replace(" ", "") == (vehicle.tid or "")[-12:]
    assert shown["vehicle_type"] == VEHICLE_TYPES[vehicle.vehicle_type].zh
    _, body = world.get("/vehicle.json", **names(vehicle.plate))
    secret = (vehicle.vin, vehicle.tid or "", world.authority.registry.credential(vehicle.plate).serial)
    assert not [text for text in secret if text.encode() in body]


def test_an_overdue_inspection_and_a_lapsed_insurance_are_said(world):
    vehicle = a_vehicle(world)
    world.clock.now = datetime(2030, 1, 1, tzinfo=UTC)
    assert (world.shown(vehicle)["overdue"], world.shown(vehicle)["ctp_lapsed"]) == (True, True)
    world.clock.now = datetime.combine(vehicle.ctp_until, datetime.min.time(), UTC)  # 08:00 in Shanghai
    assert world.shown(vehicle)["ctp_lapsed"] is False


def test_without_a_plate_a_vehicle_is_drawn_that_has_a_credential(world):
    drawn = {json.loads(world.get("/vehicle.json")[1])["plate"] for _ in range(40)}
    assert len(drawn) > 5
    issued = {v.plate.text for v in world.authority.registry.vehicles.values() if v.ecred_issued}
    assert drawn <= issued


def test_who_names_no_vehicle_gets_the_one_that_was_given(world):
    vehicle = a_vehicle(world)
    wallet = Wallet(world.folder, clock=world.clock, first=Plate(vehicle.plate.text, None))
    moved = wallet.respond("/")
    assert moved.status == 302
    target = dict(moved.headers)["Location"]
    assert target == f"/?{urlencode(names(vehicle.plate))}"
    assert wallet.respond(target).status == 200


# ------------------------------------------------------------------------------------------ what is refused


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x>',
    "京A12345\r\nSet-Cookie: a=b",
    "京" * 3400,
    "A" * 10_240,
    "\x1b[2J",
]


@pytest.mark.parametrize("path", ["/vehicle.json", "/code.svg", "/code.png"])
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_parameters_are_refused_in_one_line_that_does_not_repeat_them(path, text, world):
    vehicle = a_vehicle(world)
    mode = {} if path == "/vehicle.json" else {"mode": "stored"}
    good = {**names(vehicle.plate), **mode}
    for name in ("plate", "kind", "mode", "signer", text):
        status, body = world.get(path, **{**good, name: text})
        assert status == 400
        assert re.fullmatch(r"[^\x00-\x1f<>]{1,120}\n", body.decode())
        assert not any(word in body.decode() for word in ("script", "img", "Cookie", "AAAA", "京京", "[2J"))


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/code.svg", 400),
        ("/code.svg?mode=stored", 400),
        ("/code.svg?mode=stored&mode=live", 400),
        ("/code.svg?" + "a=b&" * 5000, 400),
        ("/vehicle.json?plate=", 400),
        ("/vehicle.json?plate=%FF%FE", 400),
        ("/nothing", 404),
        ("/wallet.html", 404),
        ("//", 404),
        ("//[", 404),
        ("/../private/epoch.key", 404),
        ("/private/epoch.key", 404),
        ("*", 404),
        ("", 404),
    ],
)
def test_anything_else_is_refused(target, status, world):
    assert world.wallet.respond(target).status == status


def test_a_vehicle_without_tag_has_no_label(world):
    vehicle = a_vehicle(world, tagged=False)
    status, body = world.get("/code.png", mode="tag_label", **names(vehicle.plate))
    assert (status, body) == (400, b"the vehicle has no in-car tag\n")
    assert world.shown(vehicle)["card_number"] is None


def test_only_a_live_code_has_a_signer(world):
    vehicle = a_vehicle(world)
    assert world.get("/code.png", mode="stored", signer="holder", **names(vehicle.plate))[0] == 400
    assert world.get("/code.png", mode="live", signer="forger", **names(vehicle.plate))[0] == 400


# ------------------------------------------------------------------------------------------------ the page


@pytest.fixture
def server(world) -> Iterator[http.client.HTTPConnection]:
    with serve_answers(world.wallet.respond) as running:
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
        yield connection
        connection.close()


def test_nothing_that_is_served_is_ever_cached_or_guessed_at(server, world):
    vehicle = a_vehicle(world)
    query = urlencode({**names(vehicle.plate), "mode": "live"})
    kinds = {
        "/": "text/html; charset=utf-8",
        f"/code.svg?{query}": "image/svg+xml",
        f"/code.png?{query}": "image/png",
        "/vehicle.json": "application/json",
        "/vehicle.json?plate=x": "text/plain; charset=utf-8",
        "/nothing": "text/plain; charset=utf-8",
    }
    for target, kind in kinds.items():
        server.request("GET", target)
        answer = server.getresponse()
        body = answer.read()
        assert (answer.headers["Content-Type"], int(answer.headers["Content-Length"])) == (kind, len(body))
        assert (answer.headers["Cache-Control"], answer.headers["X-Content-Type-Options"]) == ("no-store", "nosniff")


def test_the_page_fetches_nothing_from_elsewhere():
    assert re.findall(r"https?:|//[a-z]|@import|url\(|\bsrc=|\bhref=", PAGE) == []
    assert re.search(r"\.(innerHTML|outerHTML|insertAdjacentHTML)|document\.write|\beval\b", PAGE) is None
    assert "测试数据 TEST DATA" in PAGE


def test_a_browser_runs_the_page_s_own_script_and_no_other(server):
    server.request("GET", "/")
    answer = server.getresponse()
    assert answer.read().decode() == PAGE
    policy = dict(rule.split(" ", 1) for rule in answer.headers["Content-Security-Policy"].split("; "))
    assert (policy["default-src"], policy["connect-src"], policy["img-src"]) == ("'none'", "'self'", "blob:")
    assert re.fullmatch(r"'sha256-[\w+/]{43}='", policy["script-src"])
    assert re.findall(r"\son\w+=|\sstyle=", PAGE) == [], "the policy would block it"


# ------------------------------------------------------------------------------------------- the commands


def test_the_command_tells_its_address_and_that_an_open_page_has_no_login(made, capsys):
    line = ["sandbox", "wallet", "--folder", str(made), "--port", "0", "--seconds", "0"]
    assert main(line) == 0
    shown = capsys.readouterr()
    assert urlsplit(shown.out.split()[1]).hostname == "127.0.0.1"
    assert "no login" not in shown.err
    assert main([*line, "--bind", "0.0.0.0"]) == 0  # noqa: S104 - for no time at all
    assert "no login" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ("--plate 京Z00000", 1),
        ("--plate nonsense", 2),
        ("--bind example.com", 2),
        ("--bind ::1", 2),
        ("--port 70000", 2),
    ],
)
def test_the_command_refuses_what_it_cannot_serve(more, status, made, capsys):
    assert main(["sandbox", "wallet", "--folder", str(made), "--port", "0", "--seconds", "0", *more.split()]) == status
    assert "Traceback" not in capsys.readouterr().err


def test_a_label_is_drawn_for_a_vehicle_with_a_tag_alone(world, made, tmp_path, capsys):
    label = tmp_path / "label.png"
    issuing = ["sandbox", "issue", "--folder", str(made), "--label", str(label)]
    assert main([*issuing, "--mode", "tag_label", "--json"]) == 0
    drawn = json.loads(capsys.readouterr().out)
    assert world.authority.vehicle(Plate(drawn["plate"], drawn["kind"])).tid is not None
    (code,) = decode_frame(np.asarray(Image.open(label).convert("L")), available_decoders(), budget_s=60)
    assert code.payload.decode() == drawn["text"]
    label.unlink()
    tagless = a_vehicle(world, tagged=False).plate
    named = ["--mode", "tag_label", "--plate", tagless.text, "--kind", tagless.kind or ""]
    assert main([*issuing, *named]) == 1
    assert "no in-car tag" in capsys.readouterr().err
    for wrong in (["--mode", "stored"], ["--mode", "tag_label", "--count", "2"]):
        assert main([*issuing, *wrong]) == 2
    assert not label.exists()
