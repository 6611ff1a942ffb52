"""Folders that visionkit wrote into carry a mark, so that their pictures are never taken for data."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

__all__ = ["OUTPUT_MARK", "is_output", "mark_output"]

OUTPUT_MARK = ".visionkit-output"
"""Name of the file that marks a folder."""
_TEXT = "visionkit wrote into this folder and passes over it where it looks for pictures; remove this file to read it\n"
_DEPTH = 4  # folders of folders of output that are looked into


def mark_output(folder: str | os.PathLike[str], *, own: Collection[str] = ()) -> bool:
    """Make a folder for output and mark it; return whether it is marked.

    A folder that holds anything else already, without a mark, may hold somebody's data and stays unmarked; mark the
    folders in it that are new. Hidden files do not count.

    Args:
        folder: The folder.
        own: Names in it that are output in any case, such as what an earlier run left.

    Raises:
        OSError: It cannot be made or written into.
    """
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    if (path / OUTPUT_MARK).is_file():
        return True
    if any(not name.startswith(".") and name not in own for name in os.listdir(path)):
        return False
    (path / OUTPUT_MARK).write_text(_TEXT, encoding="utf-8")  # at once: it counts by being there, and is never half
    return True


def is_output(folder: str | os.PathLike[str]) -> bool:
    """Return whether a folder carries the mark, or holds nothing but folders that do (such as ``runs``)."""
    return _is_output(os.fspath(folder), _DEPTH) is True


def _is_output(folder: str, depth: int) -> bool | None:
    """Return as :func:`is_output`; None for a folder that holds nothing to see."""
    if os.path.isfile(os.path.join(folder, OUTPUT_MARK)):
        return True
    found: bool | None = None
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                below = entry.is_dir(follow_symlinks=False) and depth > 0 and _is_output(entry.path, depth - 1)
                if below is False:
                    return False
                found = found or below
    except OSError:
        return False
    return found
