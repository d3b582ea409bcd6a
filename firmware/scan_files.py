"""Several pictures and folders of them as one source. Importing this loads Pillow; the scanner process does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hw.camera.files import FileSource
from hw.errors import FrameError
from hw.interfaces import Frame


class PictureFiles:
    """The pictures of each path, as `hw.camera.files.FileSource` gives them; `skip` of the first are not opened."""

    def __init__(self, *paths: Path, skip: int = 0) -> None:
        self._paths, self._skip = paths, skip
        self._closed = False

    def frames(self) -> Iterator[Frame | FrameError]:
        """One value for each file, read when it is asked for; one for a path that leads to none."""
        left = self._skip
        for path in self._paths:
            source = FileSource(path, skip=left)
            for frame in source.frames():
                if self._closed:
                    return
                if source.total is None and left:  # one value for the path, and that was had
                    continue
                yield frame
            left = max(0, left - (1 if source.total is None else source.total))

    def close(self) -> None:
        """End the iteration; harmless twice."""
        self._closed = True
