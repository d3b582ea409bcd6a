"""Clean codes, as a printer would draw them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import segno
from PIL import Image

from scripts.bench.optics import Gray


def draw(content: str | bytes, module_px: int = 4, **options: Any) -> Gray:
    """Model 2, level M unless told otherwise, black on white with its quiet zone."""
    code = segno.make(content, **{"error": "m", "boost_error": False, "micro": False, **options})
    buffer = io.BytesIO()
    code.save(buffer, kind="png", scale=module_px, border=4)
    return np.array(Image.open(buffer).convert("L"))
