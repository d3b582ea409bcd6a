"""Records and screens, as docs/features.md promises them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest

from firmware.machine import events as ev
from firmware.machine import states as st
from firmware.pages import PageView
from firmware.views import VerdictView, result_view, terminal_card
from scripts.cli.main import main
from scripts.demonstration.mirror import page_texts
from scripts.sandbox.fleet import Vehicle
from tests.conftest import ROOT
from tests.screen_states import make_state, showing
from tests.test_check import World as CheckWorld
from tests.test_check import seen_plate
from tests.test_console import console, home  # noqa: F401 - home is a fixture
from tests.test_tags import World, on_the_car, tag_of
from verifier.audit import AuditLog, read_log
from verifier.check import Observation
from verifier.codec.online import OnlineAnswer, Report, Row, StatusRequest
from verifier.codec.tag import TagCertificate
from verifier.roles import LimitedAnswer
from verifier.types import Credential, CredentialStatus, TagEvidence, VehicleRecord
from verifier.verdict import VerdictCode
from verifier.wording import LANGUAGES


def texts_of(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from texts_of(part)


def test_two_cars_of_an_accident_are_exported_as_one_case_file_with_both_on_its_slip(tmp_path):
    world = CheckWorld(tmp_path)
    world.sync()
    plates = [world.ordinary().plate for _ in "ab"]
    world.device.verifier.check_pair(*(Observation(plate_seen=seen_plate(plate)) for plate in plates))
    world.device.store.close()
    (record,) = read_log(world.home.audit)
    out = tmp_path / "case"
    assert main(["audit", "export", str(world.home.audit), "--check", record["id"], "--out", str(out)]) == 0
    (case,) = json.loads((out / f"check-{record['id']}.json").read_text(encoding="utf-8"))["records"]
    assert [case["record"][car]["evidence"]["plate_seen"]["text"] for car in "ab"] == [p.text for p in plates]
    slip = (out / f"check-{record['id']}.html").read_text(encoding="utf-8")
    assert all(plate.text in slip for plate in plates)


ORDERS = ("audit purge", "purge", "rm audit.jsonl", "edit audit.jsonl", "logs clear", "sh", "python", "export rm")


def test_no_order_at_the_console_changes_or_removes_a_record(home: Path) -> None:  # noqa: F811
    AuditLog(home / "audit.jsonl").append({"kind": "check", "id": "1"})
    before = (home / "audit.jsonl").read_bytes()
    with console(home) as line:
        line.login()
        for order in ORDERS:
            told = line.ask(order)
            assert "no such command" in told or "usage" in told, order
    assert (home / "audit.jsonl").read_bytes().startswith(before)
    assert next(read_log(home / "audit.jsonl"))["kind"] == "check"


@pytest.fixture
def tagged(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.device.store.close()


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_page_shows_a_vin_a_tags_number_or_a_documents_number(tagged, language):
    vehicle = tagged.tagged[0]
    tag = tagged.tag(vehicle)
    result = tagged.check(tag, code=tagged.code(vehicle), plate_seen=on_the_car(vehicle))
    assert result.verdict.code is VerdictCode.VALID
    view = result_view(result, language)
    shown = [text for field in fields(view) for text in texts_of(getattr(view, field.name))]
    shown.append(terminal_card(view, colour=False))
    base = make_state(language)
    tags = replace(base, page=st.Tags(tags=(ev.SeenTag(evidence=tag_of(result), rssi_dbm=-40),)))
    asked = replace(base, page=st.Choose(codes=(ev.SeenCode(b"", label=vehicle.plate.text),)))
    for state in (*(showing(base, result, sheet=sheet) for sheet in range(4)), tags, asked):
        shown += page_texts(state, result.now)
    hidden = [vehicle.vin, vehicle.tid, tag.tid.hex(), tag.epc.hex(), result.credential.serial]
    assert any(vehicle.plate.text[2:] in text for text in shown)
    for text in shown:
        assert not [one for one in hidden if one.lower() in text.lower()], text


OWNERS = re.compile(r"owner|phone|address|id_card|holder|person|^name$", re.IGNORECASE)
WHAT_IS_SAID_OF_A_CAR = (
    Credential, VehicleRecord, CredentialStatus, TagCertificate, TagEvidence, StatusRequest, OnlineAnswer, Row, Report,
    VerdictView, PageView, LimitedAnswer, Vehicle,
)  # fmt: skip


def properties(schema: object) -> Iterator[str]:
    """The names of all properties of a schema, at any depth."""
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from properties(part)


def test_nothing_that_is_stored_asked_answered_or_shown_has_a_field_for_an_owner():
    names = {field.name for kind in WHAT_IS_SAID_OF_A_CAR for field in fields(kind)}
    names |= set(properties(json.loads((ROOT / "docs" / "openapi.json").read_text(encoding="utf-8"))))
    assert {"plate", "valid_until", "ctp_until", "hot_seq", "csr"} <= names
    assert [name for name in names if OWNERS.search(name)] == []
    assert OWNERS.search("owner_id")
    assert OWNERS.search("name")
