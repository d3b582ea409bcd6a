"""Video files: every frame in order with its time, and every bad file as exactly one error that says where."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from firmware.build import EPOCH_KEY_IN_A_FILE, PLAIN_LOG
from firmware.config import REGION, Home
from firmware.scanner import Event, Heartbeat, Scanner
from hw.camera import video
from hw.camera.files import MAX_SIDE
from hw.camera.video import VideoFrame, VideoSource
from hw.errors import FrameError
from scripts.bench.optics import Gray
from scripts.cli import check as check_command
from scripts.cli.main import main
from scripts.sandbox.authority import Authority, new_authority
from scripts.sandbox.codes import any_qr_picture, qr_picture
from scripts.sandbox.folder_store import MemoryFetcher
from verifier.clock import system_clock
from verifier.secret_files import write_secret
from verifier.sync import SyncClient
from verifier.types import Hint, Month, PresentationMode, StatusLetter
from verifier.wording import AIM_AGAIN, HINTS

KINDS = {"a.avi": "MJPG", "a.mp4": "mp4v", "a.mkv": "MJPG"}


def grays(count: int, size: tuple[int, int] = (96, 128)) -> list[Gray]:
    """Frames that tell their number by their light."""
    return [np.full(size, 40 + 7 * number, np.uint8) for number in range(count)]


def save_video(path: Path, frames: list[Gray], fps: float = 25.0) -> Path:
    height, width = frames[0].shape
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*KINDS[f"a{path.suffix}"]), fps, (width, height))
    for gray in frames:
        writer.write(cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR))
    writer.release()
    return path


def all_of(path: Path, skip: int = 0) -> tuple[list[VideoFrame], list[FrameError]]:
    values = list(VideoSource(path, skip=skip).frames())
    assert all(isinstance(value, VideoFrame) for value in values[:-1])
    frames = [value for value in values if isinstance(value, VideoFrame)]
    return frames, [value for value in values if isinstance(value, FrameError)]


def error_of(path: Path) -> FrameError:
    frames, errors = all_of(path)
    assert frames == []
    [error] = errors
    assert len(str(error).splitlines()) == 1
    assert str(path.parent) not in str(error)
    return error


@pytest.mark.parametrize("name", KINDS)
def test_each_frame_comes_in_order_with_its_time(tmp_path: Path, name: str) -> None:
    path = save_video(tmp_path / name, grays(30))
    frames, errors = all_of(path)
    assert errors == []
    assert [frame.at_s for frame in frames] == pytest.approx([number / 25 for number in range(30)])
    assert frames[3].name == f"{name} frame 4 at 0:00.12"
    for frame, gray in zip(frames, grays(30), strict=True):
        assert frame.gray.dtype == np.uint8
        assert frame.gray.flags.c_contiguous
        assert frame.gray.shape == gray.shape
        assert abs(int(frame.gray.mean()) - int(gray[0, 0])) < 4


@pytest.mark.parametrize("name", KINDS)
def test_frames_already_seen_are_passed_over(tmp_path: Path, name: str) -> None:
    path = save_video(tmp_path / name, grays(30))
    frames, errors = all_of(path, skip=20)
    assert errors == []
    assert [round(frame.at_s * 25) for frame in frames] == list(range(20, 30))
    assert abs(int(frames[0].gray.mean()) - (40 + 7 * 20)) < 4


def test_behind_the_end_there_is_nothing_and_no_error(tmp_path: Path) -> None:
    path = save_video(tmp_path / "a.avi", grays(10))
    assert all_of(path, skip=10) == ([], [])


def test_the_number_of_frames_is_told(tmp_path: Path) -> None:
    source = VideoSource(save_video(tmp_path / "a.avi", grays(10)))
    assert source.total is None
    next(source.frames())
    assert source.total == 10


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_video_cut_short_gives_what_is_there_and_one_error(tmp_path: Path, name: str, share: float) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (60, 96, 128), dtype=np.uint8)
    path = save_video(tmp_path / name, list(noise))
    os.truncate(path, int(path.stat().st_size * share))
    frames, errors = all_of(path)
    [error] = errors
    assert error.component == name
    if frames:
        last = f"frame {len(frames)} at 0:0{frames[-1].at_s:.2f}"
        assert error.problem == f"damaged or cut short after {last}, of 60 frames"
    else:
        assert error.problem in ("damaged or cut short, or a video without pictures", "no pictures in this video")


def test_a_damaged_video_gives_frames_and_at_most_one_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    for name in KINDS:
        whole = save_video(tmp_path / name, grays(20)).read_bytes()
        for _ in range(12):
            data = bytearray(whole)
            for place in rng.integers(12, len(data), 20):
                data[place] = int(rng.integers(0, 256))
            (tmp_path / name).write_bytes(data)
            _, errors = all_of(tmp_path / name)
            assert len(errors) <= 1


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "the file is empty"),
        (b"not a video\n" * 50, "not a video of a known kind"),
        (b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n", "not a video of a known kind"),
        (b"ffconcat version 1.0\nfile /etc/hostname\n", "not a video of a known kind"),
        (b"RIFF\nv=0\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n", "not a video of a known kind"),
        (b"RIFF" + bytes(4) + b"AVI " + bytes(300), "damaged or cut short, or a video without pictures"),
        (bytes(4) + b"ftypisom" + bytes(300), "damaged or cut short, or a video without pictures"),
    ],
)
def test_what_is_not_a_video_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "a.avi"
    path.write_bytes(content)
    assert error_of(path).problem == problem


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.avi")  # opening it would wait for ever
    (tmp_path / "folder.avi").mkdir()
    problems = {
        "gone.avi": "no such file or folder",
        "pipe.avi": "not a file",
        "folder.avi": "not a file",
        "null\0byte.avi": "not a possible file name",
    }
    assert {name: error_of(tmp_path / name).problem for name in problems} == problems


def test_a_name_is_neither_an_address_nor_a_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("concat:a.avi", "a_%02d.avi", "https:a.avi"):
        save_video(Path("a.avi"), grays(3)).rename(name)
        frames, errors = all_of(Path(name))
        assert (len(frames), errors) == (3, [])
    assert error_of(Path("http://127.0.0.1:9/a.avi")).problem == "no such file or folder"


def test_large_frames_are_scaled_down(tmp_path: Path) -> None:
    [frame], errors = all_of(save_video(tmp_path / "a.avi", grays(1, (100, 5000))))
    assert frame.gray.shape == (82, MAX_SIDE)
    assert errors == []


def test_frames_of_too_many_pixels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_video(tmp_path / "a.avi", grays(2))
    monkeypatch.setattr(video, "MAX_PIXELS", 96 * 128)
    assert all_of(path)[1] == []
    monkeypatch.setattr(video, "MAX_PIXELS", 96 * 128 - 1)
    assert "megapixels" in error_of(path).problem


def test_a_video_without_end_is_left_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_video(tmp_path / "a.avi", grays(12))
    monkeypatch.setattr(video, "MAX_FRAMES", 12)
    assert all_of(path)[1] == []
    monkeypatch.setattr(video, "MAX_FRAMES", 11)
    frames, [error] = all_of(path)
    assert len(frames) == 11
    assert error.problem == "longer than 11 frames; the rest was not looked at"


def test_closing_ends_the_iteration(tmp_path: Path) -> None:
    source = VideoSource(save_video(tmp_path / "a.avi", grays(5)))
    frames = source.frames()
    assert isinstance(next(frames), VideoFrame)
    source.close()
    source.close()
    assert list(frames) == []


# ----------------------------------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    """With a home that has its data, told by MARKCHECK_HOME."""
    store: dict[str, bytes] = {}
    made = new_authority(store, clock=system_clock, scale=200, seed=3)
    made.publish()
    home = Home(tmp_path_factory.mktemp("home"))
    write_secret(home.epoch_key, made.epoch_key.hex().encode())
    SyncClient(home.cache, MemoryFetcher(store), system_clock, made.publisher.root_bytes(), REGION).refresh()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MARKCHECK_HOME", str(home.folder))
        yield made


def in_view(picture: Image.Image, at: tuple[int, int] = (20, 20)) -> Gray:
    """The code as a camera frame shows it."""
    whole = Image.new("L", (640, 480), 170)
    whole.paste(picture.resize((400, 400)), at)
    return np.asarray(whole, np.uint8)


def checked(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    status = main(["check", "--json", *arguments])
    told = capsys.readouterr()
    return status, [json.loads(line) for line in told.out.splitlines()], told.err


def test_a_video_gives_the_verdict_of_its_picture_once(
    tmp_path: Path, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    now = system_clock()
    good = (v for v in authority.registry.vehicles.values() if v.status == {StatusLetter.NORMAL})
    vehicle = next(v for v in good if v.valid_until > Month.at(now) and v.plate.kind == "02")
    frame = in_view(qr_picture(authority.text(vehicle.plate, PresentationMode.STORED, now)))
    Image.fromarray(frame).save(tmp_path / "still.png")
    path = save_video(tmp_path / "held.avi", [in_view(any_qr_picture("https://example.org"))] * 3 + [frame] * 57)
    _, [still], _ = checked(capsys, str(tmp_path / "still.png"))
    status, [foreign, found], _ = checked(capsys, str(path))
    assert status == 0
    assert still["verdict"] == found["verdict"] == "VALID"
    assert (still["plate"], found["picture"]) == (found["plate"], "held.avi frame 4 at 0:00.12")
    assert foreign["verdict"] != "VALID"


def test_sixty_frames_of_one_code_held_in_view_are_one_row_of_the_audit_log(
    tmp_path: Path, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    audit = Home(Path(os.environ["MARKCHECK_HOME"])).audit
    audit.unlink(missing_ok=True)
    vehicle = next(iter(authority.registry.vehicles.values()))
    frame = in_view(qr_picture(authority.text(vehicle.plate, PresentationMode.STORED, system_clock())))
    status, found, _ = checked(capsys, str(save_video(tmp_path / "held.avi", [frame] * 60)))
    assert (status, len(found), len(audit.read_bytes().splitlines())) == (0, 1, 1)


def test_a_code_in_a_video_is_checked_when_it_comes_into_view_and_not_at_the_end(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_video(tmp_path / "a.avi", [in_view(any_qr_picture(f"https://example.org/{n}")) for n in range(8)])
    frames_read: list[int] = []

    class Listening(Scanner):
        def poll(self, timeout_s: float = 0.0) -> list[Event]:
            events = super().poll(timeout_s)
            frames_read.extend(event.frames for event in events if isinstance(event, Heartbeat))
            return events

    monkeypatch.setattr(check_command, "Scanner", Listening)
    seen = [frames_read[-1] for _ in check_command._in_video(path)]
    assert seen == [1, 2, 3, 4, 5, 6, 7, 8]


def test_every_hint_of_the_scanner_has_a_word_that_fits() -> None:
    assert set(HINTS) == set(Hint)
    for text in (AIM_AGAIN, *HINTS.values()):
        assert 0 < len(text.zh) <= 8
        assert 0 < len(text.en) <= 16


def test_a_video_without_a_code_is_a_verdict_and_a_reason(
    tmp_path: Path, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_video(tmp_path / "empty.avi", [np.full((480, 640), 8, np.uint8)] * 5)
    status, [found], remarks = checked(capsys, str(path))
    assert (status, found["picture"], found["verdict"]) == (0, "empty.avi", "UNREADABLE")
    assert HINTS[Hint.DARK].en in remarks


def test_a_bad_video_is_an_error_and_its_good_part_counts(
    tmp_path: Path, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_video(tmp_path / "short.avi", [in_view(any_qr_picture("https://example.org"))] * 40)
    os.truncate(path, path.stat().st_size // 2)
    status, found, remarks = checked(capsys, str(path))
    assert (status, len(found)) == (1, 1)
    assert "short.avi: damaged or cut short after frame " in remarks
    (tmp_path / "none.mp4").write_bytes(b"no video")
    assert checked(capsys, str(tmp_path / "none.mp4")) == (1, [], remarks_of("none.mp4: not a video of a known kind"))


def remarks_of(text: str) -> str:
    return f"markcheck: note: {EPOCH_KEY_IN_A_FILE}\nmarkcheck: note: {PLAIN_LOG}\nmarkcheck: {text}\n"
