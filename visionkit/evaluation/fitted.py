"""What an evaluation fitted for the checkpoints that it measured together, given to them when they predict."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionkit.core.errors import DataError, UsageError
from visionkit.core.files import read_text
from visionkit.core.thresholds import Thresholds
from visionkit.evaluation.thresholds import thresholds_of
from visionkit.models.model_digest import digests_of
from visionkit.models.run_folder import find_checkpoint

__all__ = ["Fitted", "read_fitted"]

NUMBERS = "evaluation.json"
LIMIT = 200_000_000  # bytes


@dataclass(frozen=True)
class Fitted:
    """What was fitted for several checkpoints.

    Args:
        weights: What each counts, in the order in which they were given.
        thresholds: From which score on a class counts; None where none were chosen.
    """

    weights: tuple[float, ...]
    thresholds: Thresholds | None


def read_fitted(folder: str | os.PathLike[str], checkpoints: Sequence[str | os.PathLike[str]]) -> Fitted:
    """Return what an evaluation fitted for several checkpoints.

    Args:
        folder: The ``--out`` of ``visionkit evaluate --ckpt A B``.
        checkpoints: Files, or folders of runs; in any order.

    Raises:
        DataError: It is no evaluation, or a checkpoint cannot be read.
        UsageError: It is one of other checkpoints, by their models, or of one alone.
    """
    file = Path(folder) / NUMBERS
    if Path(folder).is_dir() and not file.exists():
        raise DataError(f"{folder}: holds no {NUMBERS}; give the --out of visionkit evaluate --ckpt A B")
    told = _read(file)
    weights = _weights(told, file)
    found = [find_checkpoint(path) for path in checkpoints]
    hashes = [next((own for own in digests_of(path) if own in weights), "") for path in found]
    for path, own in zip(found, hashes, strict=True):
        if not own:
            raise UsageError(f"{path}: is none of the {len(weights)} checkpoints that {folder} fitted; evaluate anew")
    if len(set(hashes)) < len(weights):
        raise UsageError(f"{folder} fitted {len(weights)} checkpoints together, not {len(hashes)}: give all of them")
    return Fitted(tuple(weights[own] for own in hashes), _thresholds(told, file))


def _read(file: Path) -> Any:
    try:
        return json.loads(read_text(file, limit=LIMIT))
    except (ValueError, RecursionError):
        raise DataError(f"{file}: is no evaluation (not JSON); evaluate again") from None


def _weights(told: Any, file: Path) -> dict[str, float]:
    """Return the weight of each checkpoint by the digest of its model."""
    try:
        entry, checkpoints = told["ensemble"], told["model"]["checkpoints"]
        if entry is None:
            raise UsageError(f"{file}: the evaluation of one model fitted no weights; evaluate --ckpt A B together")
        hashes, weights = [str(one["sha256"]) for one in checkpoints], [float(w) for w in entry["weights"]]
        if len(weights) != len(hashes) or not all(w >= 0 for w in weights) or not 0 < sum(weights) < math.inf:
            raise ValueError
    except (KeyError, TypeError, ValueError, OverflowError):  # whole numbers can be too large to be weights
        raise DataError(f"{file}: says no weights of checkpoints; evaluate again") from None
    return dict(zip(hashes, weights, strict=True))


def _thresholds(told: Any, file: Path) -> Thresholds | None:
    entry, classes = told.get("thresholds"), told.get("classes")
    if entry is None:
        return None
    names = [name for name in classes if isinstance(name, str)] if isinstance(classes, list) else []
    try:
        return thresholds_of(entry, names)
    except DataError as e:
        raise DataError(f"{file}: {e}") from None
