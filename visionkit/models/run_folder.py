"""The checkpoint that a run folder stands for."""

from __future__ import annotations

import os
from pathlib import Path

from visionkit.core.errors import DataError
from visionkit.core.text import say

__all__ = ["BEST", "FOLDER", "LAST", "MEMBER", "SUFFIXES", "find_checkpoint", "is_checkpoint", "members_in"]

FOLDER = "checkpoints"
BEST, LAST = "best.ckpt", "last.ckpt"
MEMBER = "member-"
"""What the names of the runs start with that were trained as members of one ensemble."""
SUFFIXES = (".ckpt", ".pt", ".pth")
"""How names of checkpoints end."""


def is_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Return whether a path looks like a checkpoint: a file with such a name, or the folder of a run that holds one."""
    given = Path(path)
    if given.is_dir():
        return any((folder / name).is_file() for folder in (given / FOLDER, given) for name in (BEST, LAST))
    return given.suffix in SUFFIXES and given.is_file()


def members_in(path: str | os.PathLike[str]) -> list[Path]:
    """Return the runs in a folder of members, as ``visionkit fit --members`` makes it, in order; none elsewhere.

    Args:
        path: A folder such as ``runs/classify-1``, in which the runs are ``member-1``, ``member-2`` and so on.
    """
    found = [p for p in Path(path).glob(f"{MEMBER}*") if p.name.removeprefix(MEMBER).isdecimal() and is_checkpoint(p)]
    return sorted(found, key=lambda p: int(p.name.removeprefix(MEMBER)))


def find_checkpoint(path: str | os.PathLike[str]) -> Path:
    """Return the file that is meant where a checkpoint is wanted: the one named, or that of a run folder.

    Of a run folder (``runs/classify-1``, or its ``checkpoints``) it is ``best.ckpt``; where a run was stopped before it
    had one, ``last.ckpt``, and that is said. Whatever is no folder comes back as it is, whether it is there or not.

    Args:
        path: A checkpoint file or a run folder.

    Raises:
        DataError: It is a folder without a checkpoint.
    """
    given = Path(path)
    if not given.is_dir():
        return given
    for folder in (given / FOLDER, given):
        if (folder / BEST).is_file():
            return folder / BEST
        if (folder / LAST).is_file():
            say(f"{given}: the run has no {BEST} yet: {LAST} is taken", error=True)
            return folder / LAST
    if members := members_in(given):
        raise DataError(f"{given}: holds {len(members)} members, each a model: give {members[0]}, or several of them")
    raise DataError(
        f"{given}: is a folder, and no run folder with {FOLDER}/{BEST} in it; give a checkpoint file or a run's folder"
    )
