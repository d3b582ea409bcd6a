"""The fuzzer on one target: `python -m tests.torture.fuzz TARGET SECONDS SEED FOLDER`, where atheris is installed.

FOLDER gets a copy of the corpus to grow, and the input that broke a promise if there is one.
"""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path
from types import FunctionType

from tests.torture.targets import CORPUS, LONGEST, Watch, hold

PACKAGES = ("verifier.", "hw.rfid.", "firmware.")


def our_functions() -> list[FunctionType]:
    """The functions under test, which are loaded by now."""
    found: dict[FunctionType, None] = {}
    for name, module in list(sys.modules.items()):
        if name.startswith(PACKAGES):
            for value in vars(module).values():
                members = vars(value).values() if isinstance(value, type) else (value,)
                found |= {one: None for one in members if isinstance(one, FunctionType)}
    return [one for one in found if one.__module__.startswith(PACKAGES)]


def main(name: str, seconds: str, seed: str, folder: str) -> None:
    """Fuzz for so long; ends by itself, with another status than 0 when something was found."""
    atheris = importlib.import_module("atheris")
    place = Path(folder)
    shutil.copytree(CORPUS / name, place / "corpus")
    for function in our_functions():
        atheris.instrument_func(function)
    watch = Watch()
    words = [
        name, f"-max_total_time={max(1, round(float(seconds)))}", f"-seed={int(seed) % (1 << 31)}", "-timeout=10",
        f"-max_len={LONGEST}", "-print_final_stats=1", f"-artifact_prefix={place}/", "-rss_limit_mb=1024",
        str(place / "corpus"),
    ]  # fmt: skip
    atheris.Setup(words, lambda data: hold(name, data, watch))
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
