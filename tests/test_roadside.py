"""The generated roadside frames: real marks, the same ones for the same seed, from easy to impossible."""

from __future__ import annotations

import numpy as np
import pytest

from hw.interfaces import CodeDecoder
from hw.qr.decoders import ZbarDecoder, ZxingDecoder
from scripts.bench import optics, surfaces
from scripts.bench.roadside import CONDITIONS, FRAME, NO_CODE, Ramp, frames, make, mark_text, negatives
from verifier.codec.credential import decode, parse_claims

SEED = 1


def texts(decoder: CodeDecoder, gray: optics.Gray) -> list[str]:
    return [code.payload.decode() for code in decoder.decode(gray)]


@pytest.fixture(scope="module")
def zxing() -> CodeDecoder:
    pytest.importorskip("zxingcpp", reason="zxing-cpp is not installed")
    return ZxingDecoder()


def test_texts_are_signed_marks_of_every_presentation():
    found = [mark_text(seed) for seed in range(24)]
    assert len({parse_claims(decode(text.encode()).credential.payload)[0].mode for text in found}) == 4
    assert all(270 <= len(text) <= 450 for text in found)
    assert len(set(found)) == 24


@pytest.mark.parametrize("condition", ["glare", "phone", "paper"])
def test_the_same_seed_gives_the_same_frame(condition):
    first, again, other = (make(condition, 0.4, seed) for seed in (SEED, SEED, SEED + 1))
    assert first.gray.tobytes() == again.gray.tobytes()
    assert first[1:] == again[1:]
    assert first.text != other.text
    assert not np.array_equal(first.gray, other.gray)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_easiest_level_is_read_by_one_call_and_the_hardest_by_nobody(condition, zxing):
    easy, hard = make(condition, 0, SEED), make(condition, 1, SEED)
    assert texts(zxing, easy.gray) == [easy.text]
    for decoder in (zxing, ZbarDecoder()):
        assert texts(decoder, hard.gray) == []
    for made in (easy, hard):
        assert made.gray.shape == FRAME
        assert made.gray.dtype == np.uint8
        assert made.gray.flags.c_contiguous


def test_levels_go_evenly_from_easy_to_impossible():
    made = list(frames(SEED, 3, ["contrast"]))
    assert [frame.level for frame in made] == [0, 0.5, 1]
    assert [frame.shot.contrast for frame in made] == pytest.approx([0.9, (0.9 * 0.04) ** 0.5, 0.04])
    assert Ramp(4, -4).at(0.25) == 2


def test_a_scene_without_a_code_holds_none(zxing):
    for made in negatives(SEED, 3):
        assert (made.text, made.condition) == ("", NO_CODE)
        assert made.gray.std() > 10
        assert texts(zxing, made.gray) == texts(ZbarDecoder(), made.gray) == []


def test_dirt_covers_the_share_it_is_given():
    clean, dirty = (
        surfaces.sheet(
            mark_text(SEED),
            np.random.default_rng(SEED),
            medium=surfaces.Medium.PAPER,
            module_px=4,
            contrast=0.9,
            quiet_zone=4,
            dirt=dirt,
            inverted=False,
        )
        for dirt in (0, 0.2)
    )
    edge = (clean.reflectance.shape[0] - clean.modules * 4) // 2
    inside = slice(edge, -edge)
    changed = clean.reflectance[inside, inside] != dirty.reflectance[inside, inside]
    assert changed.mean() == pytest.approx(0.2, abs=0.01)


def test_blur_and_readout_keep_the_light():
    light = np.zeros((60, 80), np.float32)
    light[30, 40] = 1
    for blurred in (optics.defocus(light, 7), optics.motion(light, 9, 30)):
        assert blurred.sum() == pytest.approx(1, abs=1e-4)
        assert blurred.max() < 0.3
    assert 4 * optics.pixels(light, skipping=False).sum() == pytest.approx(1)
