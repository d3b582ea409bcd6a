"""What the officer chose in the menu, language and brightness, kept over a restart in `choices.json` of the home.

It is read before the first picture, so this module loads no more than that needs.

The language of the settings holds until the officer chose another one, and again once it is changed in the settings:
beside a choice stands what was configured when it was made.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verifier.durable import replace_file
from verifier.wording import LANGUAGES, Language

if TYPE_CHECKING:
    from firmware.machine.states import State

FILE = "choices.json"
BRIGHTNESSES = 4
_MOST_BYTES = 1024
_NAMES = {"language", "brightness", "configured"}


@dataclass(frozen=True, slots=True)
class Choices:
    """What was chosen, and the language of the settings at that time."""

    language: Language
    brightness: int
    configured: Language


class KeptChoices:
    """The file. `keep` is a probe: asked every second, it writes what has changed, and posts nothing."""

    def __init__(self, path: Path, note: Callable[[str, str], object]) -> None:
        """`note` takes a part and what is the matter with it, for the log."""
        self._path, self._note = path, note
        self._known: Choices | None = None
        self._configured: Language = "zh"

    def applied(self, state: State) -> State:
        """The state as the officer left it; `state` is that of the settings."""
        self._configured = state.language
        kept = self._load()
        if kept is not None:
            language = kept.language if kept.configured == state.language else state.language
            state = replace(state, language=language, brightness=kept.brightness)
        self._known = self._of(state) if kept is None else kept
        return state

    def keep(self, state: State) -> tuple[()]:
        """Write what was chosen since; what cannot be written is noted, and tried again with the next choice."""
        chosen = self._of(state)
        if chosen != self._known:
            self._known = chosen
            try:
                replace_file(self._path, json.dumps(_fields(chosen)).encode())
            except OSError as exc:
                self._note("choices", f"not kept: {exc.strerror}")
        return ()

    def _of(self, state: State) -> Choices:
        return Choices(state.language, state.brightness, self._configured)

    def _load(self) -> Choices | None:
        try:
            return load_choices(self._path)
        except OSError as exc:
            self._note("choices", f"cannot be read: {exc.strerror}")
        except ValueError as exc:
            self._note("choices", str(exc))
        return None


def chosen_language(path: Path, configured: Language) -> Language:
    """The officer's, where he chose one; else that of the settings. The program tells of a file that is damaged."""
    with suppress(OSError, ValueError):
        kept = load_choices(path)
        if kept is not None and kept.configured == configured:
            return kept.language
    return configured


def load_choices(path: Path) -> Choices | None:
    """What was chosen, None where nothing was. OSError; ValueError for anything that is not what `keep` writes."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return None
    choices = _read(data)
    if choices is None:
        raise ValueError("damaged: the settings hold")
    return choices


def _fields(choices: Choices) -> dict[str, Any]:
    return {name: getattr(choices, name) for name in sorted(_NAMES)}


def _read(data: bytes) -> Choices | None:
    """None for anything that is not what `keep` writes."""
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if len(data) > _MOST_BYTES or not isinstance(raw, dict) or raw.keys() != _NAMES:
        return None
    level = raw["brightness"]
    languages = raw["language"] in LANGUAGES and raw["configured"] in LANGUAGES
    if not languages or type(level) is not int or not 0 <= level < BRIGHTNESSES:
        return None
    return Choices(raw["language"], level, raw["configured"])
