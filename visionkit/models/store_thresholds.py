"""Thresholds into a checkpoint that is there already, without a touch to all else that it holds."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from visionkit.core.errors import DataError
from visionkit.core.thresholds import Thresholds
from visionkit.models.checkpoint import KEY, read_both, write
from visionkit.models.content_digest import digest_of
from visionkit.models.description import check_description
from visionkit.models.run_folder import find_checkpoint

__all__ = ["store_thresholds"]


def store_thresholds(
    path: str | os.PathLike[str],
    thresholds: Thresholds | None,
    *,
    head: str | None = None,
    digest: str | None = None,
) -> Path:
    """Write thresholds into a checkpoint file, in place of those that it has; all else in it stays as it is.

    The file is replaced as a whole, by one with the same permissions: another that shares its bytes, as last.ckpt and
    best.ckpt of a run may, stays.

    Args:
        path: The file, or the folder of a run: its best checkpoint.
        thresholds: Of the file's classes; None takes out those that it has.
        head: Name of the head, of several, whose they are; those of the other heads stay. None for all.
        digest: Of the model that they were chosen for; None for whichever the file holds.

    Returns:
        The file.

    Raises:
        DataError: The file is no checkpoint, holds another model, has other classes, or cannot be written; it stays as
            it was.
    """
    file = find_checkpoint(path)
    content, raw = read_both(file)
    if digest is not None and digest_of(content, file) != digest:
        raise DataError(f"{file}: holds another model now, which these thresholds say nothing of; evaluate it again")
    description = {key: value for key, value in raw[KEY].items() if key != "thresholds"}
    classes = content[KEY]["model"]["classes"]
    if head is not None:
        before = content[KEY].get("thresholds")
        kept = None if before is None else Thresholds.from_plain(before, classes)
        heads = dict.fromkeys(name.partition("/")[0] for name in classes)
        parts = {name: None if kept is None else kept.part(name) for name in heads}
        thresholds = Thresholds.joined({**parts, head: thresholds})
    if thresholds is not None:
        description["thresholds"] = thresholds.plain()
        check_description(description, file)
    real = file.resolve()  # a link stays one
    write({**raw, KEY: description}, real, mode=stat.S_IMODE(real.stat().st_mode))
    return file
