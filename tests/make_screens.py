"""The screens whose pixels are stored: make their hashes anew, and a sheet of pictures to look at before that.

    python -m tests.make_screens                  writes tests/data/screens.json
    python -m tests.make_screens --sheet out.png  also draws the screens, four times enlarged

Only what bitmap fonts and our own lines draw is hashed. The headline comes from an outline font, whose pixels
may differ between versions of FreeType; its box is left out, and tests look at it in other ways.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from PIL import Image

from firmware.screens import render_pages
from firmware.views import VerdictView, verdict_view
from verifier.types import Credential, Month, Plate, Serial, Source
from verifier.verdict import Action, Finding, Grade, Reason, Tone, Verdict, VerdictCode
from verifier.wording import LANGUAGES, VERDICTS

STORED = Path(__file__).parent / "data" / "screens.json"
NOW = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)
PLATES = ("京A12345", "京AD12345", "川X1234应急", "粤ZF023港", "WJ京12345", None)
AGES = (timedelta(0), timedelta(hours=8), timedelta(days=5), timedelta(days=12), timedelta(days=365), None)
HEADLINE_BOX = (30, 0, 128, 28)
CARS = (("K33", "AJ", "A"), ("B11", "CFI", "P"), ("Z99", "Z", None))  # type, colours, use: usual, longest, unknown


def make_verdict(
    code: VerdictCode,
    *,
    plate: str | None = "京A12345",
    grade: Grade = Grade.FRESH_CACHE,
    age: timedelta | None = timedelta(hours=8),
    month: Month | None = Month(2027, 8),  # noqa: B008 - a constant
    reasons: tuple[Reason, ...] = (Reason.DATA_STALE, Reason.CTP_LAPSED, Reason.ID_WEAK, Reason.STATUS_NOTE),
    actions: tuple[Action, ...] = (Action.CHECK_VIN, Action.CONFIRM_CENTRE),
) -> Verdict:
    """A verdict with the tone of its code; nothing here claims that the rules would give it."""
    return Verdict(
        code=code,
        grade=grade,
        tone=VERDICTS[code].tone,
        findings=tuple(Finding(reason=reason, source=Source.CACHE) for reason in reasons),
        actions=actions,
        policy="test",
        plate=None if plate is None else Plate(plate, None),
        valid_until=month,
        as_of=None if age is None else NOW - age,
    )


def make_credential(vehicle_type: str | None, colour: str | None, use: str | None) -> Credential:
    """A credential that says this of the car's looks."""
    return Credential(
        serial=Serial("00" * 8),
        plate=Plate("京A12345", "02"),
        valid_until=Month(2027, 8),
        issued_at=NOW,
        vehicle_type=vehicle_type,
        body_colour=colour,
        use_nature=use,
    )


def stored_views() -> dict[str, VerdictView]:
    """Every verdict in both languages, over all plates, grades and ages in turn; and the cars that are described."""
    views = {}
    for language in LANGUAGES:
        for number, code in enumerate(VerdictCode):
            verdict = make_verdict(
                code,
                plate=PLATES[number % len(PLATES)],
                grade=list(Grade)[number % len(Grade)],
                age=AGES[(number // 2) % len(AGES)],
                month=None if number % 7 == 6 else Month(2027, 8),
            )
            views[f"{language} {code}"] = verdict_view(verdict, now=NOW, language=language)
        for number, car in enumerate(CARS):
            verdict = make_verdict(VerdictCode.VALID, reasons=(Reason.VIN_CONFIRMED,), age=AGES[2 * number])
            views[f"{language} car {number}"] = verdict_view(
                verdict, now=NOW, language=language, credential=make_credential(*car)
            )
    return views


def hashes(view: VerdictView) -> list[str]:
    """One hash for each page; the first one without the headline's box."""
    first, *others = render_pages(view)
    first.paste(255 if view.tone is Tone.STOP else 0, HEADLINE_BOX)
    return [hashlib.sha256(page.tobytes()).hexdigest()[:16] for page in (first, *others)]


def contact_sheet(pages: list[Image.Image], columns: int = 6, scale: int = 4) -> Image.Image:
    """All pages side by side, enlarged without smoothing."""
    width, height = 128 * scale + 8, 64 * scale + 8
    sheet = Image.new("RGB", (columns * width + 8, -(-len(pages) // columns) * height + 8), (60, 60, 90))
    for number, page in enumerate(pages):
        enlarged = page.convert("RGB").resize((128 * scale, 64 * scale), Image.Resampling.NEAREST)
        sheet.paste(enlarged, (8 + number % columns * width, 8 + number // columns * height))
    return sheet


def main(argv: list[str]) -> int:
    """Write the hashes, and the sheet when asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheet", type=Path, help="PNG file for the pictures")
    sheet = parser.parse_args(argv).sheet
    views = stored_views()
    stored = {name: hashes(view) for name, view in views.items()}
    STORED.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if sheet is not None:
        contact_sheet([page for view in views.values() for page in render_pages(view)]).save(sheet)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
