"""Promises 1, 3, 4 and 14: what is on the card after a power cut, after tampering, and in a thief's hands."""

from __future__ import annotations

import base64
import itertools
import json
import random
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests import test_audit_cuts, test_power_cuts
from tests.handhelds import every_byte
from tests.power_cuts import Nights
from tests.sealed_logs import KEY, a_clock, record, sealed_log, write_key
from tests.test_audit import EDITS, lines_of, tamper_matrix, write_lines
from tests.test_check import World, seen_plate
from tests.test_power_cuts import Card, card_in, cut_nights, nothing
from tests.torture.run import Run
from verifier.audit import AuditLog
from verifier.audit_file import log_head
from verifier.audit_upload import check_passes
from verifier.check import Observation
from verifier.errors import AuditError
from verifier.types import Plate

_CUTS = 100  # of a round


def power_cuts(run: Run) -> None:
    """Promise 1."""
    for seed in run.rounds("replayed cuts", 0.5):
        left = test_power_cuts.replay_cuts(run.new_folder(), seed, 1, _CUTS)
        run.counts["replayed cuts"] += left.total()
    for seed in run.rounds("killed syncs", 0.2):
        left = cut_nights(Nights(seed=seed), (folder := run.new_folder()) / "cache", folder, 3, nothing, nothing)
        run.counts["killed syncs"] += left.total()
    _ext4_cuts(run)


def _ext4_cuts(run: Run) -> None:
    folder = run.new_folder()
    try:
        with ExitStack() as stack:
            card: Card = stack.enter_context(card_in(folder))
            for number, seed in enumerate(run.rounds("cuts of ext4", 0.3)):
                (work := folder / str(number)).mkdir()
                root = card.mount / f"cache-{number}"
                left = cut_nights(Nights(seed=seed), root, work, 3, card.power_cut, card.back_again)
                run.counts["cuts of ext4"] += left.total()
                shutil.rmtree(root)
    except pytest.skip.Exception as exc:
        run.note(f"ext4 left out: {exc}")


def audit_cuts(run: Run) -> None:
    """Promise 3."""
    for seed in run.rounds("records after power cuts", 0.6):
        checked = test_audit_cuts.replay_cuts(run.new_folder(), seed, 12, _CUTS)
        run.counts["records after power cuts"] += checked
        run.counts["replayed cuts"] += _CUTS
    for number, _ in enumerate(run.rounds("records of killed writers", 0.4)):
        # The number of writers is the seed, too: another one draws other moments.
        run.counts["records of killed writers"] += test_audit_cuts.kill_writers(run.new_folder(), 4 + number)


def tampering(run: Run) -> None:
    """Promise 4."""
    kinds = itertools.cycle(itertools.product(EDITS, (False, True)))
    for seed in run.rounds("changed logs", 0.7):
        edit, chained_anew = next(kinds)
        tamper_matrix(run.new_folder(), edit, chained_anew, rounds=25, seed=seed)
        run.counts["changed logs"] += 25
    for seed in run.rounds("cut or replaced logs", 0.3):
        _cut_tails(run, run.new_folder(), random.Random(seed))


def _cut_tails(run: Run, folder: Path, draw: random.Random) -> None:
    """What no key finds: a tail that was cut off, or another log. The head that was told before finds it."""
    path, other = folder / "log", folder / "other"
    sealed_log(path, draw.randrange(3, 9))
    lines, told = lines_of(path), log_head(path)
    for length in range(1, len(lines)):
        write_lines(path, lines[:length])
        _does_not_pass(path, told)
    sealed_log(other, len(lines) + draw.randrange(3))
    _does_not_pass(other, told)
    write_lines(path, lines)
    AuditLog(path, key=KEY, clock=a_clock).append(record(99))
    check_passes(path, told)  # and a log that only went on passes
    run.counts["cut or replaced logs"] += len(lines)


def _does_not_pass(path: Path, told: object) -> None:
    with pytest.raises(AuditError):
        check_passes(path, told)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ stolen


def stolen_card(run: Run) -> None:
    """Promise 14."""
    for seed in run.rounds("plates", 1.0):
        folder = run.new_folder()
        try:
            with card_in(folder) as card:
                plates = _a_day(card.mount / "home", seed)
                card.remove()
                raw = card.image.read_bytes()
                card.insert()
        except pytest.skip.Exception as exc:
            run.note(f"no file system of its own, so deleted blocks were not searched: {exc}")
            plates = _a_day(folder / "home", seed)
            raw = every_byte(folder / "home")
        raw = _written(raw)
        assert b'"kind":"session"' in raw, "no record was found, so nothing can be said of plates either"
        for plate in plates:
            for form in forms(plate):
                assert form not in raw, f"a plate can be read on the card, as {form[:2].hex()}…"
        run.counts["plates"] += len(plates)
        run.counts["bytes searched"] += len(raw)


def _written(raw: bytes, block: int = 4096) -> bytes:
    """Without the blocks that were never written, which are most of a card."""
    empty = bytes(block)
    return b"".join(part for at in range(0, len(raw), block) if (part := raw[at : at + block]) != empty)


def _a_day(home: Path, seed: int) -> list[Plate]:
    """Syncs, checks of many kinds, a purge and a new log on one home; the plates that were checked."""
    home.mkdir()
    write_key(home / "audit-key.pem")
    world = World(home)
    world.sync()
    vehicles = list(world.authority.registry.vehicles)
    draw = random.Random(seed)
    plates = draw.sample(vehicles, 20)
    with closing(world.device.store):
        for plate in plates:
            world.check(plate_seen=seen_plate(plate))
        world.device.verifier.check_pair(*(Observation(plate_seen=seen_plate(plate)) for plate in plates[:2]))
        world.authority.publish()
        world.sync()
        (home / "audit.jsonl").rename(home / "audit.old")
        (home / "audit.old").unlink()
        for plate in plates[:5]:
            world.check(plate_seen=seen_plate(plate))
    return plates


def forms(plate: Plate) -> Iterator[bytes]:
    """Every way in which a plate may stand in a file: encodings, JSON, hex, and base64 at each of its alignments."""
    for text in (plate.text, plate.text[1:], f"{plate.text[:2]}·{plate.text[2:]}"):
        plain = [text.encode(code) for code in ("utf-8", "utf-16-le", "utf-16-be", "gb18030", "utf-32-le")]
        yield from plain
        yield json.dumps(text).strip('"').encode()
        for data in (plain[0], plain[3]):
            yield data.hex().encode()
            yield data.hex().upper().encode()
            for shift in range(3):
                yield _base64_inside(data, shift)


def _base64_inside(data: bytes, shift: int) -> bytes:
    """The characters that surely stand in the base64 of any text with `data` at a place of this remainder by three."""
    whole = base64.b64encode(bytes(shift) + data)
    begin = (8 * shift + 5) // 6
    return whole[begin : (8 * (shift + len(data))) // 6]
