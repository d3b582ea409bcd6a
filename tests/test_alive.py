"""The watchdog: fed by signs of life and by nothing else."""

from __future__ import annotations

import queue
import socket
import threading
from pathlib import Path

from firmware.alive import DiskCheck, Notifier, Watchdog

LIMITS = {"panel": 2_000, "scanner": 5_000, "disk": 60_000}


def test_the_watchdog_is_fed_while_every_sign_is_fresh_and_no_longer() -> None:
    told: list[str] = []
    dog = Watchdog(told.append, LIMITS)
    for now in range(0, 10_000, 500):
        dog.sign("panel", now)
        if now < 4_000:
            dog.sign("scanner", now)
        dog.feed(now)
    assert told[:3] == ["WATCHDOG=1"] * 3
    assert dog.late(9_500) == ["scanner"]
    assert told[-1] == "STATUS=no sign of scanner"
    dog.sign("scanner", 10_000)
    dog.sign("panel", 10_000)
    assert dog.feed(10_000)


def test_a_part_that_is_not_there_is_not_waited_for() -> None:
    dog = Watchdog(lambda message: None, LIMITS)
    dog.sign("panel", 0)
    assert dog.feed(1_000)


def test_messages_reach_the_socket_of_the_service_manager(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(5)
        notifier = Notifier({"NOTIFY_SOCKET": str(path)})
        notifier.tell("READY=1")
        assert manager.recv(100) == b"READY=1"
        notifier.close()


def test_a_service_manager_that_does_not_read_stops_nobody(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        notifier = Notifier({"NOTIFY_SOCKET": str(path)})
        for _ in range(10_000):
            notifier.tell("WATCHDOG=1")
        notifier.close()


def test_without_a_service_manager_nothing_is_told() -> None:
    notifier = Notifier({})
    notifier.tell("READY=1")
    notifier.close()


def test_a_disk_that_takes_a_byte_is_a_sign_of_life(tmp_path: Path) -> None:
    told: queue.Queue[str] = queue.Queue()
    check = DiskCheck(tmp_path, told.put)
    assert told.get(timeout=10) == ""
    check.close()


def test_a_disk_that_takes_none_says_why_and_lives(tmp_path: Path) -> None:
    told: queue.Queue[str] = queue.Queue()
    check = DiskCheck(tmp_path / "gone", told.put, every_s=0.001)
    assert [told.get(timeout=10) for _ in range(3)] == ["No such file or directory"] * 3
    check.close()


def test_signs_may_come_from_other_threads_while_the_dog_is_fed() -> None:
    dog = Watchdog(lambda message: None, {str(at): 1_000 for at in range(2_000)})
    thread = threading.Thread(target=lambda: [dog.sign(str(at), 0) for at in range(2_000)])
    thread.start()
    while thread.is_alive():
        assert dog.late(0) == []
    thread.join()
