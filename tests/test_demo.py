"""The demo from end to end: the appliance's own program behind the page, the sandbox behind the program.

What is asserted are the words on the panel, as they are told to the page.
"""

from __future__ import annotations

import base64
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

from firmware.app import monotonic_ms
from firmware.machine.checking import too_soon
from firmware.settings import read_settings
from scripts.demonstration.app import Demo, main, running
from scripts.demonstration.handheld import settings_text
from scripts.demonstration.road import Fault, Road
from scripts.sandbox.server import serve
from tests.browser import Browser, browser, find_browser
from tests.conftest import ROOT

# The HTTP library lets go of a connection that was broken in its handshake only when memory is swept.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning"
)

LONGEST_S = 90.0  # a new camera process comes up to 5 s after a fault, and a busy machine takes its time to load one
FINGER_S = 0.04  # longer than contacts bounce
GOOD, RED = "^有效", ("撤销", "逾期", "布控", "伪造", "不符")  # headlines


class Hand:
    """Somebody with the handheld: shows it things, presses keys, reads the panel."""

    def __init__(self, demo: Demo) -> None:
        self.demo = demo
        self._number = 0
        self.text = ""
        self.news: list[str] = []
        self.beats: list[dict[str, object]] = []
        self.width = 0

    def look(self, seconds: float = 0.05) -> None:
        self._number, told = self.demo.feed.after(self._number, seconds)
        for topic, data in told:
            value = json.loads(data)
            if topic == "panel":
                self.text, self.width = " ".join(value["texts"]), value["width"]
            elif topic == "news":
                self.news.append(value[1])
            elif topic == "beat":
                self.beats.append(value)

    def reads(self, pattern: str) -> str:
        """The panel's words, once they are such."""
        self._until(lambda: re.search(pattern, self.text), pattern)
        return self.text

    def hears(self, pattern: str) -> None:
        self._until(lambda: any(re.search(pattern, line) for line in self.news), pattern)

    def _until(self, holds, what: str) -> None:
        end = time.monotonic() + LONGEST_S
        while not holds():
            assert time.monotonic() < end, f"never {what}: {self.text!r}, {self.news}"
            self.look()

    def tap(self, *keys: str) -> None:
        """Keys, each pressed by a finger that leaves a warning the moment it takes to be seen."""
        for key in keys:
            self._until(lambda: not too_soon(self.demo.handheld.program.state, monotonic_ms()), "a warning seen")
            for closed in (True, False):
                self.demo.stage.order("key", {"key": key, "closed": closed})
                time.sleep(FINGER_S)

    def show(self, card: str) -> None:
        """Hold a card up and pull the trigger, from wherever the device is."""
        self.demo.stage.order("hold", {"name": card})
        self.tap("back")
        self.reads("按确认键扫码|OK: SCAN")
        self.tap("ok")

    def put(self, switch: str, value: str = "on") -> None:
        self.news.clear()
        self.demo.stage.order("switch", {"name": switch, "value": value})


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Iterator[Demo]:
    with running(tmp_path_factory.mktemp("demo") / "demo", scale=600) as demo:
        yield demo


@pytest.fixture
def hand(demo) -> Iterator[Hand]:
    hand = Hand(demo)
    hand.look()
    yield hand
    for switch in ("hang", "reader", "battery", "clock", "aged"):
        hand.put(switch, "")
    hand.put("network", "none")


# --------------------------------------------------------------------------------------------- the ready-made codes


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ("live", GOOD), ("stored", GOOD), ("printed", GOOD),
        ("overdue", "^逾期"), ("revoked", "^撤销"), ("stolen", "^布控"),
        ("forged", "^疑?伪造"), ("superseded", "旧证|已换"), ("foreign", "非.*标志|不是"), ("unlisted", "密钥|签发"),
    ],
)  # fmt: skip
def test_each_card_gets_the_verdict_it_was_prepared_for(hand, card, words):
    hand.show(card)
    text = hand.reads(words)
    assert "测试数据" in text
    assert bool(re.match(GOOD, text)) == (words == GOOD)


def test_two_codes_in_view_are_for_the_officer_to_choose_from(hand):
    hand.show("two")
    hand.reads("请选择")
    hand.tap("ok")
    hand.reads(GOOD)


def test_a_good_code_in_another_car_is_unmasked_by_the_plate_on_it(hand):
    hand.show("copied")
    assert "·" in hand.reads("有效")
    shown = hand.demo.handheld.program.state.page.outcome.result.verdict.plate
    assert shown != hand.demo.stage._cards.all["copied"].plate


def test_a_verdict_is_heard_seen_and_felt(hand):
    hand.show("stolen")
    hand.reads("布控")
    hand._until(lambda: sum(beat["colour"] == "red" for beat in hand.beats) >= 3, "three red beats")
    assert all(beat["motor"] and beat["hz"] for beat in hand.beats if beat["colour"] == "red")


# ------------------------------------------------------------------------------------------------ the switches


@pytest.mark.parametrize(("switch", "words"), [("overdue", "^逾期"), ("steal", "^布控")])  # revoked: by the page, below
def test_what_the_authority_says_of_a_car_counts_at_the_next_check_and_can_be_undone(hand, switch, words):
    hand.show("printed")
    hand.reads(GOOD)
    hand.put(switch)
    hand.hears("device: synced")
    hand.show("printed")
    hand.reads(words)
    hand.put(switch, "")
    hand.hears("device: synced")
    hand.show("printed")
    hand.reads(GOOD)


def test_without_a_network_the_grade_falls_and_nothing_freezes(hand):
    hand.show("live")
    hand.reads("在线.* A ")
    hand.put("network", "cut")
    hand.show("copied")
    hand.reads("离线.* B ")
    hand.tap("back")
    hand.reads("按确认键扫码")


@pytest.mark.parametrize("fault", ["cut", "drip", "portal"])
def test_no_network_however_false_makes_a_lawful_car_red_or_a_stolen_one_green(hand, fault):
    hand.put("network", fault)
    hand.show("stored")
    text = hand.reads(GOOD)
    assert not text.startswith(RED)
    hand.show("stolen")
    assert not re.match(GOOD, hand.reads("布控"))


def test_data_of_five_days_are_told_as_such_and_are_enough_with_a_network(hand):
    hand.put("network", "cut")
    hand.put("aged")
    hand.show("stored")
    text = hand.reads("浙|有效|未")
    assert re.search(r"5\s*天", hand.reads("天")), text
    assert not hand.text.startswith(RED)
    hand.put("network", "none")
    hand.put("aged", "")


def test_a_wrong_clock_makes_no_lawful_car_overdue_and_is_told(hand):
    hand.put("clock")
    hand._until(lambda: hand.demo.handheld.program.state.status.clock_doubted, "doubt of the clock")
    hand.show("stored")
    hand.reads("浙B")
    assert not hand.text.startswith(RED)
    hand.put("clock", "")
    hand._until(lambda: not hand.demo.handheld.program.state.status.clock_doubted, "trust in the clock")


def test_a_camera_that_hangs_is_told_and_reads_again_when_it_wakes(hand):
    hand.put("hang")
    hand.show("stored")
    hand.reads("相机故障")
    hand.put("hang", "")
    hand._until(lambda: "camera" not in hand.demo.handheld.program.state.faults, "a camera that works")
    hand.show("stored")
    hand.reads(GOOD)


def test_a_tag_before_the_reader_is_listed_and_checked_and_a_pulled_plug_is_told(hand):
    hand.demo.stage.order("tag", {"name": "stolen", "value": "on"})
    hand.demo.stage.order("tag", {"name": "stored", "value": "on"})
    hand.tap("back", "back", "left")
    hand.reads("川A·9878L")
    hand.reads("浙B·0832C")
    hand.tap("ok")
    hand.reads("布控")
    for name in ("stolen", "stored"):
        hand.demo.stage.order("tag", {"name": name, "value": ""})
    hand.tap("back", "left")
    hand.reads("未读到标识")
    hand.put("reader")
    hand.reads("读写器故障")
    hand.put("reader", "")
    hand._until(lambda: "reader" not in hand.demo.handheld.program.state.faults, "a reader that works")


def test_a_low_battery_is_told(hand):
    hand.put("battery")
    hand.tap("back")
    hand.reads("电量低|8%")


def test_the_panel_and_the_language_change_with_a_new_start(hand):
    for model, width in (("ssd1322", 256), ("ssd1351", 128), ("ssd1309", 128)):
        hand.put("panel", model)
        hand.look()
        assert hand.width == width
    hand.put("language", "en")
    hand.reads("OK: SCAN")
    hand.put("language", "zh")
    hand.reads("按确认键扫码")


def test_orders_that_make_no_sense_are_refused(demo):
    for name, value in (
        ("key", {"key": "f1", "closed": True}), ("key", {"key": "ok"}), ("key", {"key": "ok", "closed": 1}),
        ("hold", {"name": "../window"}), ("hold", {}), ("tag", {"name": "x", "value": "on"}), ("nothing", {}),
        ("switch", {"name": "network", "value": "x"}), ("switch", {"name": "x", "value": "on"}),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="no such"):
            demo.stage.order(name, value)


# ---------------------------------------------------------------------------------------------------- the browser


@contextmanager
def a_page(demo: Demo, *options: str) -> Iterator[Browser]:
    if find_browser() is None:
        pytest.skip("no Chromium here: Debian's package chromium")
    with browser("--window-size=1280,800", *options) as page:
        page.open(demo.page.url)
        page.wait("document.querySelectorAll('#cards button').length > 5")
        page.wait("[...document.querySelectorAll('#cards img')].every((one) => one.complete && one.naturalWidth)")
        yield page
        assert page.problems == []


@pytest.fixture(scope="module")
def page(demo) -> Iterator[Browser]:
    with a_page(demo) as page:
        yield page


def told(pattern: str) -> str:
    """That the words for who cannot see the panel match."""
    return f"/{pattern}/.test(document.querySelector('#told').textContent)"


def test_a_click_on_a_card_is_a_verdict_in_words_for_who_cannot_see_it(hand, page):
    page.click("#card-stored")
    page.wait(told(GOOD))
    page.wait("document.querySelector('#panel').alt === document.querySelector('#told').textContent")
    assert page.run("document.querySelector('#told').getAttribute('role')") == "status"
    assert page.run("document.querySelector('#panel').naturalWidth") == 128


def test_a_dropped_picture_is_a_verdict(hand, page):
    data = base64.b64encode(hand.demo.stage._shoot(hand.demo.stage._cards.all["stolen"])).decode()
    page.run(
        f"(() => {{ const bytes = Uint8Array.from(atob('{data}'), (one) => one.charCodeAt(0));"
        " const all = new DataTransfer(); all.items.add(new File([bytes], 'a.jpg', { type: 'image/jpeg' }));"
        " document.body.dispatchEvent(new DragEvent('drop', { dataTransfer: all, bubbles: true })); })()"
    )
    page.wait(told("布控"))


def test_revoked_on_the_page_the_same_code_is_red_and_green_again_when_undone(hand, page):
    page.click("#card-printed")
    page.wait(told(GOOD))
    for place, words in (("true", "撤销"), ("false", GOOD)):
        page.run("document.querySelector('#news').replaceChildren()")
        page.click("#switch-revoke")
        page.wait(f"document.querySelector('#switch-revoke').getAttribute('aria-checked') === '{place}'")
        page.wait("/同步|synced/.test(document.querySelector('#news').textContent)")
        page.click("#card-printed")
        page.wait(told(words))


def test_cutting_the_network_on_the_page_lowers_the_grade_and_freezes_nothing(hand, page):
    page.click("#switch-network-cut")
    page.click("#card-copied")
    page.wait(told("离线.* B "))
    page.click("#key-back")
    page.wait(told("按确认键扫码"))
    page.click("#switch-network-none")


def test_a_key_that_is_kept_down_is_held_and_let_go_when_the_window_loses_it(hand, page):
    page.click("#away")
    page.click("#key-back")
    page.wait(told("按确认键扫码"))
    page.key("rawKeyDown", "Enter", 13)
    page.wait(told("菜单|输入号牌"))
    page.run("dispatchEvent(new Event('blur'))")
    page.wait("!document.querySelector('.keys .down')")
    page.key("keyUp", "Enter", 13)
    page.key("rawKeyDown", "Escape", 27)
    page.key("keyUp", "Escape", 27)
    page.wait(told("按确认键扫码"))


def test_the_page_fits_a_phone_and_a_laptop(hand, page):
    for width, height in ((390, 844), (1280, 800)):
        page.picture(width, height, mobile=width < 500)
        assert page.run("document.documentElement.scrollWidth") <= width
        bottom = page.run("document.querySelector('#key-down').getBoundingClientRect().bottom + scrollY")
        assert bottom < height


def test_the_laptops_webcam_is_a_camera(hand, tmp_path):
    video = tmp_path / "held.y4m"
    picture = Image.open(io.BytesIO(hand.demo.stage._shoot(hand.demo.stage._cards.all["stored"])))
    y, u, v = (np.asarray(band) for band in picture.convert("YCbCr").split())
    frame = b"FRAME\n" + y.tobytes() + u[::2, ::2].tobytes() + v[::2, ::2].tobytes()
    video.write_bytes(b"YUV4MPEG2 W960 H720 F15:1 Ip A1:1 C420jpeg\n" + 3 * frame)
    options = (
        "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={video}",
    )  # fmt: skip
    hand.demo.stage.order("hold", {"name": ""})
    with a_page(hand.demo, *options) as page:
        page.click("#key-back")
        page.wait(told("按确认键扫码"))
        page.click("#webcam")
        page.wait("!document.querySelector('#video').hidden")
        page.click("#key-ok")
        page.wait(told(GOOD))
        page.click("#webcam")
        page.wait("document.querySelector('#webcam').getAttribute('aria-pressed') === 'false'")


# ----------------------------------------------------------------------------------------------- the road, the end


def fetched(road: Road) -> bytes | None:
    try:
        with urlopen(f"http://127.0.0.1:{road.port}/a", timeout=30) as answer:
            return answer.read()
    except OSError:
        return None


def test_a_road_carries_what_it_is_given_and_spoils_it_as_it_is_told():
    with serve({"a": b"data"}) as server, closing(Road(server.port)) as road:
        assert fetched(road) == b"data"
        road.choose(Fault.CUT)
        assert fetched(road) is None
        road.choose(Fault.PORTAL)
        assert b"log in" in fetched(road)
        road.choose(Fault.NONE)
        assert fetched(road) == b"data"


def test_the_command_tells_its_address_and_ends_cleanly(tmp_path):
    command = [sys.executable, "-m", "scripts.demonstration.app", "--no-browser", "--scale", "300"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        address = ""
        while "http://" not in address:
            address = process.stdout.readline()
            assert address, process.stderr.read()
        url = re.search(r"http://127\.0\.0\.1:\d+/[\w-]+/", address).group()
        with urlopen(url, timeout=30) as answer:  # noqa: S310 - our own address
            assert b"markcheck" in answer.read()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output.strip(), errors) == (0, "demo: ended", "")
    assert list(tmp_path.iterdir()) == []  # keys and data of the sandbox are gone


@pytest.mark.long
def test_in_a_terminal_the_panel_is_drawn_and_q_ends_it(tmp_path):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "scripts.demonstration.app", "--term", "--scale", "300"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while b"http://127.0.0.1:" not in shown:
            shown += os.read(ours, 4096)
        os.write(ours, b"q")
        with suppress(OSError):  # EIO: nobody has the other side open any more
            while piece := os.read(ours, 4096):
                shown += piece
        assert process.wait(20) == 0
    os.close(ours)
    assert "█▀▀".encode() in shown
    assert shown.rstrip().endswith(b"demo: ended")


def test_the_batch_run_is_the_one_over_prepared_pictures(capsys):
    with pytest.raises(SystemExit):
        main(["--batch", "--help"])
    assert "prepared pictures" in capsys.readouterr().out


def test_the_watermark_is_the_setting_of_a_device_for_tests(demo, tmp_path):
    assert demo.handheld.program.state.status.demo
    assert read_settings(settings_text(demo.parts, "ssd1309", "zh", "")).device.demo
