"""Erasing a device: keys first, then data, in an order that a power cut cannot undo.

What erases is the destruction of the keys: without them the cache is a table of numbers. The files go too, but a card
may keep blocks that were deleted.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from verifier.cache import schema
from verifier.cache.swap import exclusive
from verifier.clock import Clock
from verifier.codec.device import DeviceFormatError, decode_order
from verifier.codec.index import MAX_NUMBER
from verifier.durable import replace_file
from verifier.errors import VerifierError
from verifier.secret_files import destroy, read_secret
from verifier.trust import TrustList

VERSION = 1


class OrderError(VerifierError):
    """An order that is not obeyed; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WipeRecord:
    """What is kept of the last wipe, and outlives it: `order_seq` is the highest number that was obeyed, 0 for none."""

    order_seq: int
    ordered: bool  # by the centre, not by hand
    at: datetime
    done: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WipeFiles:
    """What a device has: `keys` are destroyed first, then the cache is emptied, then `data` go, files or folders."""

    record: Path
    keys: tuple[Path, ...]
    cache: Path
    data: tuple[Path, ...]


class Wiper:
    """Erases a device. `forget` lets a running program drop what it holds; `on_step` is told where a cut could come.

    Every method may raise OSError, and SyncBusyError while a sync runs: the keys are gone by then, and the rest
    follows with `resume`.
    """

    def __init__(
        self,
        files: WipeFiles,
        clock: Clock,
        *,
        forget: Callable[[], None] = lambda: None,
        on_step: Callable[[str], None] = lambda _name: None,
    ) -> None:
        self._files, self._clock, self._forget, self._step = files, clock, forget, on_step

    def record(self) -> WipeRecord | None:
        """Of the last wipe, None without one that can be read."""
        return _read(read_secret(self._files.record))

    def obey(self, order: bytes, device: str, trust: TrustList) -> WipeRecord:
        """Verify an order and carry it out; OrderError for one that is not for this device, or not new."""
        try:
            found = decode_order(order, device, trust)
        except DeviceFormatError as exc:
            raise OrderError(str(exc)) from exc
        before = self.record()
        if before is not None and found.order_seq <= before.order_seq:
            if not before.done:
                return self._carry_out(before)
            raise OrderError("order: one that was obeyed before")
        return self._carry_out(WipeRecord(order_seq=found.order_seq, ordered=True, at=self._clock(), done=False))

    def by_hand(self) -> WipeRecord:
        """Erase without an order; the numbers of orders go on."""
        before = self.record()
        seq = 0 if before is None else before.order_seq
        return self._carry_out(WipeRecord(order_seq=seq, ordered=False, at=self._clock(), done=False))

    def resume(self) -> WipeRecord | None:
        """Finish a wipe that was cut off; None when there was none to finish."""
        before = self.record()
        return None if before is None or before.done else self._carry_out(before)

    def again(self) -> WipeRecord | None:
        """Carry out the last wipe once more, for what was written since; None when there was none."""
        before = self.record()
        return None if before is None else self._carry_out(replace(before, done=False))

    def _carry_out(self, record: WipeRecord) -> WipeRecord:
        """All that can be destroyed, whatever one file does; then the first OSError, and the record is not done."""
        files, failures = self._files, list[OSError]()
        with suppress(OSError):  # a full card must not save the keys
            files.record.parent.mkdir(parents=True, exist_ok=True)
            self._keep(record)
        self._step("recorded")
        for path in files.keys:
            with _noted(failures):
                destroy(path)
            self._step(f"destroyed {path.name}")
        self._forget()
        with suppress(OSError):  # once more: there is room where the keys were, and a running program waits for it
            if self.record() != record:
                self._keep(record)
        with _noted(failures):
            self._empty_cache(failures)
        for path in files.data:
            with _noted(failures):
                _remove(path, destroy)
        if failures:
            raise failures[0]
        self._step("data gone")
        done = replace(record, done=True)
        self._keep(done)
        self._step("done")
        return done

    def _empty_cache(self, failures: list[OSError]) -> None:
        """All but the lock, which is held: a sync that ran meanwhile would put back what is removed here."""
        if not self._files.cache.exists():
            return
        with exclusive(self._files.cache):
            # First what is in use: no look-up may find half a set.
            with _noted(failures):
                (self._files.cache / schema.CURRENT).unlink(missing_ok=True)
            self._step("out of use")
            for path in sorted(self._files.cache.iterdir()):
                if path.name == schema.LOCK:
                    continue
                with _noted(failures):
                    _remove(path, Path.unlink)
                self._step(f"removed {path.name}")

    def _keep(self, record: WipeRecord) -> None:
        raw = {
            "v": VERSION, "order_seq": record.order_seq, "ordered": record.ordered, "at": record.at.isoformat(),
            "done": record.done,
        }  # fmt: skip
        replace_file(self._files.record, json.dumps(raw).encode() + b"\n")


@contextmanager
def _noted(failures: list[OSError]) -> Iterator[None]:
    """What cannot be done is kept for later, and the rest goes on."""
    try:
        yield
    except OSError as exc:
        failures.append(exc)


def _remove(path: Path, file: Callable[[Path], None]) -> None:
    """A file by `file`, or a folder with all in it that can be removed; then the OSError of what cannot."""
    if path.is_symlink() or not path.is_dir():
        file(path)
        return
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        shutil.rmtree(path)


def _read(data: bytes | None) -> WipeRecord | None:
    try:
        raw: dict[str, Any] = json.loads(data or b"null")
        seq, at = raw["order_seq"], datetime.fromisoformat(raw["at"])
        sound = raw["v"] == VERSION and type(seq) is int and 0 <= seq <= MAX_NUMBER
        if sound and type(raw["ordered"]) is bool and type(raw["done"]) is bool:
            return WipeRecord(order_seq=seq, ordered=raw["ordered"], at=at, done=raw["done"])
    except (TypeError, KeyError, ValueError, RecursionError):
        pass
    return None
