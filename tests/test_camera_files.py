"""Pictures from disk: every kind that is taken, and every bad one as exactly one value with one line of text."""

from __future__ import annotations

import io
import os
import pickle
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hw.camera.files import MAX_BYTES, MAX_SCANS, MAX_SIDE, SUFFIXES, FileSource
from hw.errors import DeviceFaultError, DeviceNotFoundError, FrameError, HardwareError
from hw.interfaces import Frame
from hw.qr.decoders import available_decoders
from hw.qr.pipeline import decode_frame
from tests.drawn import draw

MARK = "VM1:" + "0A$ 9+Z." * 7


def all_of(path: Path) -> list[Frame | FrameError]:
    return list(FileSource(path).frames())


def frame_of(path: Path) -> Frame:
    [frame] = all_of(path)
    assert isinstance(frame, Frame), frame
    assert frame.gray.dtype == np.uint8
    assert frame.gray.ndim == 2
    assert frame.gray.flags.c_contiguous
    assert frame.name == path.name
    return frame


def error_of(path: Path) -> FrameError:
    [error] = all_of(path)
    assert isinstance(error, FrameError), error
    assert len(str(error).splitlines()) == 1
    assert str(path.parent) not in str(error)
    return error


def reads(frame: Frame) -> bool:
    codes = decode_frame(frame.gray, available_decoders(), budget_s=30)
    return [code.payload for code in codes] == [MARK.encode()]


@pytest.fixture
def code() -> Image.Image:
    return Image.fromarray(draw(MARK))


# --------------------------------------------------------------------------------------------- what is taken


@pytest.mark.parametrize("suffix", sorted(SUFFIXES | {".PNG", ".Jpg"}))
def test_each_kind_of_file_is_read(tmp_path: Path, code: Image.Image, suffix: str) -> None:
    path = tmp_path / f"shot{suffix}"
    code.save(path)
    frame = frame_of(path)
    assert frame.gray.shape == (code.height, code.width)
    assert reads(frame)


KINDS = "1.png L.png LA.png P.png RGB.png RGBA.png RGB.jpg CMYK.jpg CMYK.tif YCbCr.tif RGBA.tif RGBA.webp P.gif"


@pytest.mark.parametrize("name", KINDS.split())
def test_each_kind_of_pixel_is_read(tmp_path: Path, code: Image.Image, name: str) -> None:
    path = tmp_path / name
    code.convert("RGB").convert(path.stem).save(path)
    frame = frame_of(path)
    np.testing.assert_allclose(frame.gray, np.asarray(code), atol=40)
    assert reads(frame)


def test_deep_grey_keeps_its_upper_eight_bits(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.array([[0, 255, 256, 0x7FFF, 0x8000, 0xFFFF]], np.uint16)).save(path)
    assert frame_of(path).gray.tolist() == [[0, 0, 1, 127, 128, 255]]


def test_transparency_is_white(tmp_path: Path) -> None:
    pixels = np.zeros((1, 3, 4), np.uint8)  # black throughout: absent, half there, there
    pixels[0, :, 3] = [0, 128, 255]
    Image.fromarray(pixels).save(tmp_path / "alpha.png")
    assert frame_of(tmp_path / "alpha.png").gray.tolist() == [[255, 127, 0]]

    indexed = Image.new("P", (2, 1))
    indexed.putpalette([0, 0, 0, 10, 10, 10])
    indexed.putdata([0, 1])
    indexed.save(tmp_path / "indexed.png", transparency=0)
    assert frame_of(tmp_path / "indexed.png").gray.tolist() == [[255, 10]]


def test_colours_become_luminance(tmp_path: Path) -> None:
    path = tmp_path / "colours.png"
    Image.fromarray(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)).save(path)
    assert frame_of(path).gray.tolist() == [[76, 150, 29]]


def test_an_exif_orientation_does_no_harm(tmp_path: Path, code: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter
    code.save(tmp_path / "turned.jpg", exif=exif)
    assert reads(frame_of(tmp_path / "turned.jpg"))


def test_of_an_animation_the_first_picture_counts(tmp_path: Path, code: Image.Image) -> None:
    blank = Image.new("L", code.size, 200)
    for suffix in ("gif", "webp", "png", "tif"):
        path = tmp_path / f"moving.{suffix}"
        code.save(path, save_all=True, append_images=[blank, blank])
        assert reads(frame_of(path))


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize(
    ("size", "fitted"), [((4096, 20), (4096, 20)), ((5000, 100), (4096, 82)), ((60, 9000), (27, 4096))]
)
def test_large_pictures_are_scaled_down(
    tmp_path: Path, suffix: str, size: tuple[int, int], fitted: tuple[int, int]
) -> None:
    path = tmp_path / f"large.{suffix}"
    Image.new("RGB", size, (90, 90, 90)).save(path)
    gray = frame_of(path).gray
    assert (gray.shape[1], gray.shape[0]) == fitted
    assert max(gray.shape) <= MAX_SIDE
    assert np.all(gray == 90)


def test_a_code_in_a_large_picture_is_still_read(tmp_path: Path, code: Image.Image) -> None:
    large = Image.new("L", (5600, 4400), 220)
    large.paste(code.resize((900, 900)), (4000, 3000))
    large.save(tmp_path / "large.png")
    assert reads(frame_of(tmp_path / "large.png"))


def test_one_pixel_and_one_line(tmp_path: Path) -> None:
    for size in ((1, 1), (30_000, 1)):
        path = tmp_path / "thin.png"
        Image.new("L", size, 7).save(path)
        assert np.all(frame_of(path).gray == 7)


# ------------------------------------------------------------------------------------------------ what is not


def png(width: int, height: int, colour: int = 0) -> bytes:
    """A PNG header with the size it claims, and hardly any pixels behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def saved(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("size", [(5_001, 5_000), (10_000, 10_000), (12_000, 12_000)])
@pytest.mark.parametrize("colour", [0, 2, 6])
def test_too_many_pixels_are_refused_before_they_are_decoded(
    tmp_path: Path, size: tuple[int, int], colour: int
) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(*size, colour))
    assert error_of(path).problem == "more than 25 megapixels"


@pytest.mark.parametrize("size", [(60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_what_pillow_itself_refuses_is_refused_in_our_words(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(*size))
    assert error_of(path).problem == "more than 51 megapixels"


def jpeg_of_claimed_size(width: int, height: int, *, progressive: bool = False) -> bytes:
    """A small JPEG picture whose header claims another size."""
    data = saved(Image.new("L", (64, 64), 200), "JPEG", progressive=progressive)
    place = data.index(b"\xff\xc2" if progressive else b"\xff\xc0") + 5  # SOF2 or SOF0, ITU-T T.81 annex B.2.2
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_of_more_than_a_phone_s_pixels_is_refused_by_its_header(tmp_path: Path, progressive: bool) -> None:
    path = tmp_path / "bomb.jpg"
    for size in ((8_500, 6_001), (10_000, 10_000), (12_000, 9_000), (65_535, 65_535)):
        path.write_bytes(jpeg_of_claimed_size(*size, progressive=progressive))
        assert error_of(path).problem == "more than 51 megapixels"


@pytest.mark.parametrize("size", [(4_000, 3_000), (8_160, 6_120)])
def test_a_phone_s_photograph_is_read(tmp_path: Path, size: tuple[int, int]) -> None:
    photograph = Image.new("RGB", size, (180, 170, 160))
    side = size[0] // 5
    photograph.paste(Image.fromarray(draw(MARK)).resize((side, side)), (size[0] // 2, size[1] // 3))
    photograph.save(tmp_path / "photograph.jpg", quality=80)
    assert reads(frame_of(tmp_path / "photograph.jpg"))


def test_a_phone_s_photograph_with_another_picture_behind_it_has_the_same_limit(tmp_path: Path) -> None:
    photograph = Image.new("RGB", (8_160, 6_120), (180, 170, 160))
    photograph.paste(Image.fromarray(draw(MARK)).resize((1_600, 1_600)), (4_000, 2_000))
    behind = Image.new("RGB", (400, 300))
    photograph.save(tmp_path / "photograph.jpg", "MPO", save_all=True, append_images=[behind], quality=40)
    assert reads(frame_of(tmp_path / "photograph.jpg"))


TOO_MANY_PARTS = "more scans or segments than any encoder writes"


def scans_of(data: bytes) -> list[int]:
    """Where the scans of a JPEG picture begin; it has no other segments that hold these two bytes."""
    return [place for place in range(len(data)) if data.startswith(b"\xff\xda", place)]


def jpeg_of_many_scans(picture: Image.Image, more: int) -> bytes:
    """A progressive JPEG picture whose second scan, which refines nothing any more, stands there so many times more."""
    data = saved(picture, "JPEG", progressive=True, quality=10)
    _first, second, third, *_ = scans_of(data)
    end = data.find(b"\xff\xc4", second, third)  # a table of the third
    end = third if end < 0 else end
    return data[:end] + data[second:end] * more + data[end:]


def test_a_jpeg_that_goes_over_its_pixels_a_thousand_times_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "scans.jpg"
    path.write_bytes(jpeg_of_many_scans(Image.new("RGB", (4_000, 3_000), (200, 10, 10)), 1_000))
    began = time.process_time()
    assert error_of(path).problem == TOO_MANY_PARTS
    assert time.process_time() - began <= 0.2


def test_a_jpeg_of_a_million_empty_segments_is_refused_at_once(tmp_path: Path) -> None:
    data, path = saved(Image.new("L", (64, 64)), "JPEG"), tmp_path / "segments.jpg"
    for place in (2, data.index(b"\xff\xd9")):  # before the picture and behind its scan
        path.write_bytes(data[:place] + b"\xff\xe0\x00\x02" * 1_000_000 + data[place:])
        began = time.process_time()
        assert error_of(path).problem == TOO_MANY_PARTS
        assert time.process_time() - began <= 0.2


def test_scans_are_counted_in_the_picture_and_not_in_what_stands_around_it(tmp_path: Path, code: Image.Image) -> None:
    """A moving photograph has a video behind it, and a thumbnail is a picture of its own."""
    data, many = jpeg_of_many_scans(code.convert("RGB"), MAX_SCANS - 10), b"\xff\xda\x00\x04ab" * 100
    assert len(scans_of(data)) == MAX_SCANS
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + len(many)) + many
    path = tmp_path / "moving.jpg"
    path.write_bytes(data[:2] + thumbnail + data[2:] + many)
    assert reads(frame_of(path))
    path.write_bytes(jpeg_of_many_scans(code.convert("RGB"), MAX_SCANS - 9))
    assert error_of(path).problem == TOO_MANY_PARTS


LARGEST = {"RGBA.png": (5_000, 5_000), "LA.tif": (5_000, 5_000), "RGBA.webp": (4_000, 4_000), "RGB.jpg": (8_160, 6_120)}


@pytest.mark.long  # measures time
@pytest.mark.parametrize("name", LARGEST)
def test_the_largest_pictures_that_are_taken_take_about_a_second(tmp_path: Path, name: str) -> None:
    width, height = LARGEST[name]
    pixels = np.random.default_rng(1).integers(100, 130, (height // 4, width // 4), dtype=np.uint8)
    pixels = pixels.repeat(4, axis=0).repeat(4, axis=1)
    path = tmp_path / name
    picture = Image.fromarray(pixels).convert(path.stem)
    if "A" in path.stem:
        picture.putalpha(128)
    picture.save(path, **({"compression": "tiff_lzw"} if name.endswith("tif") else {"quality": 60}))
    assert path.stat().st_size <= MAX_BYTES, "its bytes must not be what refuses it"
    began = time.process_time()
    frame_of(path)
    assert time.process_time() - began <= 1.5


def test_webp_has_a_limit_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "large.webp"
    Image.new("L", (4_000, 4_001)).save(path, quality=1, method=0)
    assert error_of(path).problem == "more than 16 megapixels"


def test_pillows_warning_size_is_no_problem_below_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9_000_000)
    path = tmp_path / "wide.png"
    path.write_bytes(png(4_000, 4_000))  # 16 megapixels, which Pillow warns of
    assert error_of(path).problem == "damaged or cut short"


def test_a_file_too_large_is_not_read(tmp_path: Path, code: Image.Image) -> None:
    path = tmp_path / "large.png"
    for extra, problem in ((0, None), (1, "larger than 20 MB")):
        path.write_bytes(saved(code, "PNG"))
        os.truncate(path, MAX_BYTES + extra)  # a hole after the picture takes no room on the disk
        if problem is None:
            assert reads(frame_of(path))
        else:
            assert error_of(path).problem == problem


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_file_cut_short_is_refused(tmp_path: Path, kind: str, share: float) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (120, 160), dtype=np.uint8)
    data = saved(Image.fromarray(noise), kind)
    path = tmp_path / "short.png"
    path.write_bytes(data[: int(len(data) * share)])
    assert error_of(path).problem in (
        "damaged or cut short",
        "damaged picture header",
        "not a picture of a known format",
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "the file is empty"),
        (b"not a picture\n" * 20, "not a picture of a known format"),
        (b"\x89PNG\r\n\x1a\n", "not a picture of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture of a known format"),
        (b"P5 2 2 255 abcd", "not a picture of a known format"),
    ],
)
def test_what_is_not_a_picture_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "file.png"
    path.write_bytes(content)
    assert error_of(path).problem == problem


def test_pixels_without_a_meaning_as_light_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "float.tif"
    Image.new("F", (4, 4), 0.5).save(path)
    assert error_of(path).problem == "pixels of the kind F are not supported"


def test_damaged_files_give_an_error_or_a_frame_and_nothing_else(tmp_path: Path, code: Image.Image) -> None:
    rng = np.random.default_rng(7)
    path = tmp_path / "damaged.png"
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"):
        whole = saved(code.resize((64, 64)), kind)
        for _ in range(60):
            data = bytearray(whole)
            for place in rng.integers(0, min(len(data), 400), 3):
                data[place] = int(rng.integers(0, 256))
            path.write_bytes(data)
            [value] = all_of(path)
            assert isinstance(value, Frame | FrameError)


# ------------------------------------------------------------------------------------------ paths and folders


def test_a_folder_goes_on_after_a_bad_file(tmp_path: Path, code: Image.Image) -> None:
    code.save(tmp_path / "c.png")
    code.save(tmp_path / "a.JPG")
    (tmp_path / "b.png").write_bytes(b"nothing")
    (tmp_path / "notes.txt").write_text("not looked at")
    (tmp_path / "inner").mkdir()
    code.save(tmp_path / "inner" / "z.png")
    values = all_of(tmp_path)
    assert [type(value) for value in values] == [Frame, FrameError, Frame]
    assert [value.name if isinstance(value, Frame) else value.component for value in values] == [
        "a.JPG",
        "b.png",
        "c.png",
    ]


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "round.png").symlink_to("round.png")
    (tmp_path / "broken.png").symlink_to("gone.png")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.png")  # opening it would wait for ever
    problems = {
        "gone.png": "no such file or folder",
        "broken.png": "no such file or folder",
        "round.png": "a link that leads back to itself",
        "empty": "no pictures in this folder",
        "pipe.png": "not a file",
        "null\0byte.png": "not a possible file name",
    }
    assert {name: error_of(tmp_path / name).problem for name in problems} == problems
    assert len(str(error_of(tmp_path / ("long" * 100 + ".png")))) < 250


def test_a_folder_that_contains_itself_is_not_followed(tmp_path: Path, code: Image.Image) -> None:
    code.save(tmp_path / "a.png")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "loop.png").symlink_to(tmp_path)
    frame, error = all_of(tmp_path)
    assert isinstance(frame, Frame)
    assert str(error) == "loop.png: not a file"


@contextmanager
def without_rights() -> Iterator[None]:
    """Act as a user who owns nothing, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_no_permission(tmp_path: Path, code: Image.Image) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    code.save(tmp_path / "secret.png")
    (tmp_path / "secret.png").chmod(0)
    with without_rights():
        for name in ("closed", "secret.png"):
            assert error_of(tmp_path / name).problem == "no permission to read it"


def test_a_name_cannot_break_the_line(tmp_path: Path) -> None:
    name = "two\nlines\x1b[31m\u202e.png"
    (tmp_path / name).write_bytes(b"nothing")
    assert str(error_of(tmp_path / name)) == "two?lines?[31m?.png: not a picture of a known format"
    undecodable = tmp_path / os.fsdecode(b"\xff.png")
    undecodable.write_bytes(b"nothing")
    assert str(error_of(undecodable)).encode() == b"?.png: not a picture of a known format"


def test_closing_ends_the_iteration(tmp_path: Path, code: Image.Image) -> None:
    for name in ("a.png", "b.png"):
        code.save(tmp_path / name)
    source = FileSource(tmp_path)
    frames = source.frames()
    assert isinstance(next(frames), Frame)
    source.close()
    source.close()
    assert list(frames) == []


def test_pictures_are_read_when_they_are_asked_for(tmp_path: Path, code: Image.Image) -> None:
    for name in ("a.png", "b.png"):
        code.save(tmp_path / name)
    frames = FileSource(tmp_path).frames()
    next(frames)
    (tmp_path / "b.png").unlink()
    assert str(next(frames)) == "b.png: no such file or folder"


# ------------------------------------------------------------------------------------------------ error values


@pytest.mark.parametrize(
    "error",
    [
        FrameError("a.png", "the file is empty"),
        DeviceNotFoundError("camera", "not connected"),
        DeviceFaultError("reader", "antenna missing", 0x22),
    ],
)
def test_errors_travel_between_processes(error: HardwareError) -> None:
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (type(copy), copy.args, str(copy)) == (type(error), error.args, f"{error.component}: {error.problem}")
    assert getattr(copy, "code", None) == getattr(error, "code", None)
