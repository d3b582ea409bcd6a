"""The printed demo: sandbox authority, first sync over HTTP, prepared pictures, verdicts, panel pictures."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from firmware.build import build_device
from firmware.config import REGION, Home
from firmware.fonts import FontMissingError
from firmware.views import columns, terminal_card, verdict_view
from hw.camera.files import FileSource
from hw.errors import FrameError, HardwareError
from hw.qr.decoders import available_decoders
from scripts.cli.cache import report_text
from scripts.cli.check import save_screen
from scripts.cli.console import progress_bar
from scripts.sandbox.authority import new_authority
from scripts.sandbox.server import serve
from scripts.sandbox.showcase import Exhibit, Showcase
from scripts.still_picture import payloads
from verifier.check import CheckResult, Observation, Verifier
from verifier.clock import system_clock
from verifier.errors import VerifierError
from verifier.net import HttpFetcher
from verifier.secret_files import write_secret
from verifier.sync import SyncClient
from verifier.types import PlateSeen


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; 0 when every check ended in the verdict it was prepared for."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description="Show the main job on prepared pictures.")
    parser.add_argument("--batch", action="store_true", help="print and end (without it: the handheld in a browser)")
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="folder for pictures (default: demo-out)")
    parser.add_argument("--scale", type=int, default=20_000, help="vehicles of the sandbox (default: 20000)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the sandbox's vehicles (default: 1)")
    options = parser.parse_args(argv)
    for part in ("pictures", "panel", "device"):
        shutil.rmtree(options.out / part, ignore_errors=True)
    try:
        exhibits = _prepare(options.out, options.scale, options.seed)
        return _show(exhibits, options.out)
    except (VerifierError, HardwareError, FontMissingError, OSError, ValueError) as exc:
        print(f"demo: {exc}", file=sys.stderr)
        return 1


def _prepare(out: Path, scale: int, seed: int) -> list[Exhibit]:
    """Authority and first sync: after this the device has no network any more."""
    print(f"sandbox authority: {scale:,} made-up vehicles, keys made now")
    store: dict[str, bytes] = {}
    authority = new_authority(store, clock=system_clock, scale=scale, seed=seed)
    showcase = Showcase(authority)
    showcase.before_publication()
    home = Home(out / "device")
    home.folder.mkdir(parents=True)
    home.root.write_bytes(authority.publisher.root_bytes())
    write_secret(home.epoch_key, authority.epoch_key.hex().encode())
    with progress_bar() as progress:
        authority.publish(progress)
    with serve(store) as server, HttpFetcher(server.url) as fetcher, progress_bar() as progress:
        client = SyncClient(
            home.cache, fetcher, system_clock, authority.publisher.root_bytes(), REGION, progress=progress
        )
        print(report_text(client.refresh()))
    return showcase.after_sync()


def _show(exhibits: Sequence[Exhibit], out: Path) -> int:
    device = build_device(Home(out / "device"), system_clock)
    for warning in device.warnings:
        print(f"note: {warning}")
    surprises = 0
    for exhibit in exhibits:
        result = _check(device.verifier, exhibit, out / "pictures")
        verdict = result.verdict
        zh, en = (verdict_view(verdict, now=result.earliest, language=language) for language in ("zh", "en"))
        print(f"\n{exhibit.title}")
        print(_beside(terminal_card(zh, colour=False), terminal_card(en, colour=False)))
        print(f"verdict: {verdict.code.value}, grade {verdict.grade.value}, tone {verdict.tone.value}")
        for view, language in ((zh, "zh"), (en, "en")):
            print(f"panel {language}: {save_screen(view, out / 'panel', f'{exhibit.name}-{language}')}")
        if verdict.code is not exhibit.expect:
            surprises += 1
            print(f"expected: {exhibit.expect.value}")
    device.store.close()
    print(f"\n{len(exhibits)} checks, {len(exhibits) - surprises} as expected; audit log: {out / 'device/audit.jsonl'}")
    return 1 if surprises else 0


def _check(verifier: Verifier, exhibit: Exhibit, folder: Path) -> CheckResult:
    seen = PlateSeen(plate=exhibit.plate, confirmed=True) if exhibit.plate else None
    code = None
    if exhibit.picture is not None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{exhibit.name}.png"
        exhibit.picture().save(path)
        (frame,) = FileSource(path).frames()
        if isinstance(frame, FrameError):
            raise frame
        code = payloads(frame, available_decoders())[0]
    return verifier.check(Observation(code=code, plate_seen=seen, paper_displayed=exhibit.paper))


def _beside(left: str, right: str) -> str:
    """Two cards side by side, the shorter one filled up."""
    rows_left, rows_right = left.split("\n"), right.split("\n")
    width = columns(rows_left[0])
    height = max(len(rows_left), len(rows_right))
    rows_left += [""] * (height - len(rows_left))
    rows_right += [""] * (height - len(rows_right))
    return "\n".join(
        f"{a}{' ' * (width - columns(a))}  {b}".rstrip() for a, b in zip(rows_left, rows_right, strict=True)
    )


if __name__ == "__main__":
    sys.exit(main())
