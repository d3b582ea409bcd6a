"""Which codes are marks, by their first bytes and their shape. Loads no library: the program's side needs it too."""

from __future__ import annotations

import re
from collections.abc import Iterable

from verifier.types import CodeSeen

_MARK = re.compile(rb"VM[0-9]")  # any version of our prefix: a newer one deserves its own answer
# Prefix and base45 text (RFC 9285) long enough for a signature of 64 bytes: what is less proves nothing.
_WHOLE_MARK = re.compile(rb"VM[0-9]{1,2}:[0-9A-Z $%*+./:-]{96,}")


def marks(codes: Iterable[CodeSeen]) -> list[CodeSeen]:
    """The codes that begin like a mark, of whatever version; all of them, for the caller to choose from.

    Those that could be proven come first.
    """
    ours = [code for code in codes if _MARK.match(code.payload)]
    return sorted(ours, key=lambda code: not _is_whole(code))


def whole_marks(codes: Iterable[CodeSeen]) -> list[CodeSeen]:
    """The codes that have the shape of a mark: prefix, alphabet and enough text for a signature."""
    return [code for code in codes if _is_whole(code)]


def _is_whole(code: CodeSeen) -> bool:
    return _WHOLE_MARK.fullmatch(code.payload) is not None
