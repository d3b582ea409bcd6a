"""`markcheck bench all`: every part's figures on one page, and what is missed is shown as missed."""

from __future__ import annotations

import json
from math import inf
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scripts.bench import everything
from scripts.bench.everything import PARTS, plot, share_of, write_page
from scripts.bench.figures import Figure
from scripts.cli.main import main
from tests.nightly import BEGAN

MET = Figure(name="quick", measured="1.00x", value=1.0, at_most=2)
MISSED = Figure(name="slow", measured="4.00x", value=4.0, at_most=2)
LOOSE = Figure(name="counted", measured="7", value=7.0)


@pytest.mark.parametrize(
    ("value", "at_most", "at_least", "share"),
    [(1, 2, None, 0.5), (4, 2, None, 2), (50, None, 100, 2), (200, None, 100, 0.5), (0, 0, None, 0), (1, 0, None, inf),
     (0, None, 3, inf), (-5, None, 0, inf), (5, None, 0, 0)],
)  # fmt: skip
def test_a_bar_is_as_long_as_the_share_of_the_target_that_was_used(value, at_most, at_least, share) -> None:
    assert share_of(Figure(name="f", measured="", value=value, at_most=at_most, at_least=at_least)) == share


def test_the_page_holds_command_machine_every_figure_and_first_what_was_missed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(everything.REASONS, "slow", "It does more.")
    found = {"decide": [MET, LOOSE], "qr": [MISSED]}
    page, picture = write_page(found, tmp_path / "pages", "markcheck bench all --write DIR", BEGAN)
    text = page.read_text(encoding="utf-8")
    assert "markcheck bench all --write DIR" in text
    assert "1 targets met, 1 missed." in text
    assert "- slow: 4.00x, wanted <= 2 x. It does more.\n" in text
    assert text.index("- slow") < text.index("| quick |") < text.index("| counted |") < text.index("| slow |")
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for colour in ((0x1B, 0x6E, 0x3C), (0xB3, 0x40, 0x1E)):
        assert (pixels == colour).all(axis=1).any()


def test_the_plot_marks_the_target_and_never_leaves_its_frame() -> None:
    endless = Figure(name="x" * 200, measured="", value=1.0, at_most=0)
    image = plot({"decide": [endless]}).convert("RGB")
    assert image.getpixel((image.width - 4, image.height // 2)) == (255, 255, 255)


def test_the_page_is_there_after_each_part(tmp_path: Path, monkeypatch, capsys) -> None:
    def broken(*_: object) -> list[Figure]:
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(PARTS, "decide", ("The decision", lambda *_: [MET]))
    monkeypatch.setitem(PARTS, "audit", ("The audit log", broken))
    assert main(["bench", "all", "--only", "decide,audit", "--json", "--write", str(tmp_path)]) == 1
    assert json.loads(capsys.readouterr().out).items() >= {"part": "decide", "name": "quick", "verdict": "met"}.items()
    page = (tmp_path / everything.PAGE).read_text(encoding="utf-8")
    assert "| quick |" in page
    assert "markcheck bench all --only decide,audit --write DIR" in page


@pytest.mark.parametrize(("figures", "status"), [([MET, LOOSE], 0), ([MET, MISSED], 1)])
def test_a_missed_target_is_the_exit_status(monkeypatch, capsys, figures, status) -> None:
    monkeypatch.setitem(PARTS, "decide", ("The decision", lambda *_: figures))
    assert main(["bench", "all", "--only", "decide"]) == status
    assert "quick" in capsys.readouterr().out


def test_a_part_that_is_none_is_wrong_usage(capsys) -> None:
    assert main(["bench", "all", "--only", "decide,nonsense"]) == 2
    assert "'nonsense' is none of decide" in capsys.readouterr().err


def test_a_part_measures_what_its_own_command_does(tmp_path: Path) -> None:
    effort = everything.QUICK
    names = {
        figure.name for part in ("decide", "audit") for figure in PARTS[part][1](effort, tmp_path, lambda *_: None)
    }
    assert names == {
        "one decision / one bare ES256 verification", "sealed record / bare append with its sync",
        "plain record / bare append with its sync",
    }  # fmt: skip
