"""The measurement of the status server measures the real one, and finds a wrong answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scripts.bench.status_server import _Asked, _Register, bench_status_server, json_report, text_report, write_page
from tests.status_world import make_world
from verifier.clock import system_clock


def test_a_few_handhelds_are_answered_without_an_error(tmp_path):
    result = bench_status_server(3, 2, tmp_path, lambda *_: None, scale=200, pace_s=0.05)
    assert [(load.asked, load.errors, load.bare_errors) for load in result.loads] == [(6, 0, 0)] * 3
    assert len(json_report(result)) == 3
    assert "3 handhelds" in text_report(result)
    page = write_page(result, tmp_path / "out", "command", system_clock()).read_text()
    assert page.count("\n| ") == 5, "head, rule, three ways"


def test_no_answer_a_false_one_and_one_to_another_question_count_as_errors(tmp_path):
    world = make_world(tmp_path)
    with world.serving():
        handheld, register = world.handheld("h-0"), _Register(world.live)
        asked = _Asked(request := register.batch(), handheld.post_cbor("/v1/status", request).body, 0.1)
        assert register.is_right(asked)
        for wrong in (
            replace(asked, body=None),
            replace(asked, body=bytes(100)),
            replace(asked, request=register.batch()),
        ):
            assert not register.is_right(wrong)
        register._wide = dict.fromkeys(register._wide, 0)
        assert not register.is_right(asked), "what is compared is the register"
    world.store.close()


@pytest.mark.long
def test_two_hundred_handhelds_at_once_are_answered_without_an_error(tmp_path):
    result = bench_status_server(200, 2, tmp_path, lambda *_: None, pace_s=1.0)
    assert [(load.asked, load.errors) for load in result.loads] == [(400, 0)] * 3
