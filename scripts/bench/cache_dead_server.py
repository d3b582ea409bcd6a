"""A server that takes connections and never answers: what a device's own answers and its look-up online cost then."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace

from scripts.bench.cache_lookups import WrongAnswerError
from scripts.bench.cache_sync import Device
from scripts.bench.figures import Figure
from verifier.cache.store import StatusStore
from verifier.errors import FetchError, SyncError
from verifier.net import HttpFetcher
from verifier.online import CONNECT_MS, TOTAL_MS, boottime_ms
from verifier.online_http import HttpPoster
from verifier.types import Plate

GIVEN_UP_TARGET, LOCAL_TARGET = 1.6, 0.1  # seconds
_SILENCE = 1.0  # seconds after which the sync gives up here
_CBOR = "application/cbor"


@contextmanager
def silent_server() -> Iterator[str]:
    """Its address: the system completes the connection, and nobody ever reads from it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def dead_server_figures(device: Device, epoch_key: bytes, plates: Sequence[Plate]) -> Iterator[Figure]:
    """Local answers while a sync hangs on such a server, and how long the one attempt online takes to give up."""
    with silent_server() as url:
        given_up = _online_seconds(url)
        slowest, looked_up, hung = _local_seconds(replace(device, url=url), epoch_key, plates)
    yield Figure(
        name="officer's path with a dead server", unit="s", value=given_up, at_most=GIVEN_UP_TARGET,
        measured=f"{given_up:.2f} s", note="the one attempt online, until it is given up; no check waits for it",
    )  # fmt: skip
    yield Figure(
        name="local answer beside a dead server", unit="s", value=slowest, at_most=LOCAL_TARGET,
        measured=f"{slowest * 1000:.1f} ms (slowest of {looked_up:,} while a sync hung for {hung:.1f} s)",
        note="cache opened and plate looked up while the sync of the same cache waits for a server that takes the "
        "connection and says nothing",
    )  # fmt: skip


def _online_seconds(url: str) -> float:
    poster = HttpPoster(
        url, ca_file=None, client_certificate=None, monotonic_ms=boottime_ms, connect_ms=CONNECT_MS, total_ms=TOTAL_MS
    )
    began = time.perf_counter()
    try:
        poster.post("v1/status", b"\xa0", _CBOR, _CBOR, 1 << 16)
    except FetchError:
        return time.perf_counter() - began
    raise WrongAnswerError("a server that says nothing was taken for an answer")


def _local_seconds(device: Device, epoch_key: bytes, plates: Sequence[Plate]) -> tuple[float, int, float]:
    """The slowest answer, how many there were, and how long the sync hung."""
    slowest, looked_up, ended = 0.0, 0, threading.Event()
    outcome: list[bool] = []

    def hang() -> None:
        with HttpFetcher(device.url, read_timeout=_SILENCE) as http:
            try:
                device.refresh(http)
            except SyncError:
                outcome.append(True)
            finally:
                ended.set()

    began = time.perf_counter()
    thread = threading.Thread(target=hang, daemon=True)
    thread.start()
    while not ended.is_set() or not looked_up:
        asked = time.perf_counter()
        with closing(StatusStore(device.root, epoch_key)) as store:
            store.vehicle(plates[looked_up % len(plates)])
        slowest, looked_up = max(slowest, time.perf_counter() - asked), looked_up + 1
        ended.wait(0.002)
    thread.join()
    if not outcome:
        raise WrongAnswerError("a sync with a server that says nothing ended well")
    return slowest, looked_up, time.perf_counter() - began
