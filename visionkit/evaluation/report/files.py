"""Where the pictures of an evaluation lie now: the same bytes as when they were measured."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from visionkit.core.errors import DataError, VisionkitError
from visionkit.core.files import read_bytes
from visionkit.data.images.listing import list_images
from visionkit.evaluation.folder import EvaluatedImage

__all__ = ["PictureFiles", "moved_to"]

_LARGEST = 2_000_000_000  # bytes of a picture file
_NAMESAKES = 8  # files of one name that are looked into


def moved_to(id: str, measured: str, root: str | os.PathLike[str] | None) -> str:
    """Return where a picture lies below another root as it lay below the one that was measured.

    Args:
        id: Its path.
        measured: The root that the evaluation names, a folder or a file in it; "" where it names none.
        root: The other one; None where there is none.

    Returns:
        An absolute path; "" where the picture lay elsewhere.
    """
    if root is None or not measured or "\0" in id + measured:
        return ""
    now = os.path.dirname(root) if os.path.isfile(root) else root
    before = os.path.dirname(measured) if os.path.isfile(measured) else measured
    below = os.path.relpath(os.path.abspath(id), os.path.abspath(before))
    return "" if below.startswith(os.pardir) else os.path.join(os.path.abspath(now), below)


class PictureFiles:
    """Finds the file of a picture: where its name says, else by name below the root.

    Args:
        measured: The root that the evaluation names; "" where it names none.
        root: Where the data lie now; None for where they were.
    """

    def __init__(self, measured: str, root: str | os.PathLike[str] | None = None) -> None:
        self._measured = measured
        self._moved = root is not None
        self._root = Path(root if root is not None else measured or ".")
        self._named: dict[str, list[str]] | None = None
        self.gone: set[str] = set()
        """Pictures that lie nowhere."""
        self.changed: set[str] = set()
        """Pictures whose file holds other bytes now."""

    def read(self, image: EvaluatedImage) -> bytes | None:
        """Return the file of a picture, or None where it is gone or has changed, which is remembered."""
        there = False
        for place in self._places(image.id):
            if not os.path.isfile(place):
                continue
            try:
                data = read_bytes(place, limit=_LARGEST)
            except DataError:
                continue
            there = True
            if hashlib.sha256(data).hexdigest() == image.sha256:
                return data
        (self.changed if there else self.gone).add(image.id)
        return None

    def _places(self, id: str) -> Iterator[str]:
        if "\0" in id:
            return
        folder = self._root.parent if self._root.is_file() else self._root
        if not self._moved:
            yield id
        elif place := moved_to(id, self._measured, self._root):
            yield place
        yield os.path.join(folder, id)  # an absolute path stays what it is
        yield from self._namesakes(folder).get(os.path.basename(id), [])[:_NAMESAKES]

    def _namesakes(self, folder: Path) -> dict[str, list[str]]:
        """Return the pictures below the root by their names; listed once, where one is missing."""
        if self._named is None:
            self._named = {}
            try:
                for path in list_images(folder, channels=4) if (self._moved or self._measured) else ():
                    self._named.setdefault(os.path.basename(path), []).append(str(path))
            except VisionkitError:
                pass
        return self._named
