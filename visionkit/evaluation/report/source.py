"""What a page is made of: an evaluation, a run, or both."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from visionkit.core.errors import DataError, VisionkitError
from visionkit.core.files import open_binary, read_text
from visionkit.evaluation.folder import NUMBERS, PREDICTIONS, Evaluation, read_evaluation
from visionkit.evaluation.report.marks import Facts, is_number
from visionkit.models.model_digest import holds_model
from visionkit.models.run_folder import BEST, FOLDER, LAST, MEMBER, members_in

__all__ = ["Run", "Source", "find_source"]

CURVES, CONFIG, VALUES = "metrics.csv", "config.yaml", "metrics.json"
"""What a run folder holds."""
_LIMIT = 20_000_000  # bytes of one of these
_LONGEST = 50_000_000  # bytes of a record


@dataclass(frozen=True)
class Run:
    """What the folder of a training knows.

    Args:
        folder: The folder.
        rows: metrics.csv, a mapping an epoch.
        config: Text of config.yaml; "" where there is none.
        best: metrics.json.
        checkpoint: Its best checkpoint, or its last one; None where there is none.
    """

    folder: Path
    rows: tuple[Mapping[str, float], ...] = ()
    config: str = ""
    best: Mapping[str, float] = field(default_factory=dict)
    checkpoint: Path | None = None

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Read a run folder.

        Raises:
            DataError: A file in it cannot be read.
        """
        best = _json(folder / VALUES)
        numbers = {k: float(v) for k, v in best.items() if is_number(v)}
        config = read_text(folder / CONFIG, limit=_LIMIT) if (folder / CONFIG).is_file() else ""
        found = (folder / FOLDER / name for name in (BEST, LAST))
        return cls(folder, _rows(folder / CURVES), config, numbers, next((p for p in found if p.is_file()), None))


@dataclass(frozen=True)
class Source:
    """What a page is made of.

    Args:
        given: The folder that was named.
        folder: Where the evaluation lies; None without one.
        evaluation: The evaluation, or None.
        facts: Its numbers as they stand in ``evaluation.json``; empty without one.
        run: The training, where it is known.
        remarks: What should be said of the choice, a line each.
    """

    given: Path
    folder: Path | None
    evaluation: Evaluation | None
    facts: Facts
    run: Run | None
    remarks: tuple[str, ...] = ()

    def records(self, wanted: Collection[int] | None = None) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yield what was predicted: position and record of each picture; nothing where no file of them is there.

        A record has its ``line``, from 0 on, beside what it says.

        Args:
            wanted: Positions that are asked for; None for all.

        Raises:
            DataError: A line is none that ``evaluate`` wrote.
        """
        if self.folder is None or self.evaluation is None or not (self.folder / PREDICTIONS).is_file():
            return
        path = self.folder / PREDICTIONS
        places = {image.id: k for k, image in enumerate(self.evaluation.images)}
        with open_binary(path) as file:
            for number, line in enumerate(iter(lambda: file.readline(_LONGEST), b"")):
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError) as e:
                    raise DataError(
                        f"{path}:{number + 1}: is no record of a prediction ({e}); evaluate again"
                    ) from None
                if not isinstance(record, dict) or not isinstance(record.get("image"), str):
                    raise DataError(f"{path}:{number + 1}: is no record of a prediction; evaluate again")
                position = places.get(record["image"])
                if position is not None and (wanted is None or position in wanted):
                    yield position, {**record, "line": number}


def find_source(path: str | os.PathLike[str]) -> Source:
    """Return what a folder holds: an evaluation, or a run or members of an ensemble, with the newest one in it.

    To an evaluation belongs the run of its checkpoint, where that is there still and has not changed.

    Args:
        path: A folder that ``evaluate`` wrote, a run folder, or one of members with their evaluation.

    Raises:
        DataError: It is neither, or something in it is damaged.
    """
    given = Path(path)
    if not given.exists():
        raise DataError(f"{given}: no such folder; give the --out of visionkit evaluate, or the folder of a run")
    if given.is_file():
        given = given.parent
    if (given / NUMBERS).is_file():
        evaluation, facts = _read(given)
        return Source(given, given, evaluation, facts, _run_of(facts))
    trained = any((given / name).is_file() for name in (CURVES, VALUES))
    inside = sorted(given.glob(f"*/{NUMBERS}"), key=lambda p: (p.stat().st_mtime, p), reverse=True)
    members = not trained and bool(members_in(given))
    if members and not inside:
        raise DataError(
            f"{given}: its members were not evaluated together yet; give one of them, such as {given / MEMBER}1"
        )
    if not trained and not members:
        raise DataError(
            f"{given}: holds neither {NUMBERS} of visionkit evaluate nor {CURVES} of a training; give such a folder"
        )
    run = Run.read(given) if trained else None
    if not inside:
        return Source(given, None, None, Facts({}), run)
    folder = inside[0].parent
    others = ", ".join(p.parent.name for p in inside[1:])
    remarks: tuple[str, ...] = ()
    if others:
        remarks = (f"{given} holds several evaluations: the newest is shown, {folder.name} (not {others})",)
    evaluation, facts = _read(folder)
    if run is None:
        return Source(given, folder, evaluation, facts, _run_of(facts), remarks)
    if not _is_of(facts, run):
        remarks += (f"{folder} measured no checkpoint that {given} holds now: evaluate again for its own numbers",)
    return Source(given, folder, evaluation, facts, run, remarks)


def _read(folder: Path) -> tuple[Evaluation, Facts]:
    """Return an evaluation and its numbers."""
    evaluation = read_evaluation(folder)
    facts = Facts(evaluation.record())
    if any(not is_number(count) for row in facts.rows("confusion", "counts") for count in row):
        raise DataError(f"{folder / NUMBERS}: confusion: a count is larger than any number; evaluate again")
    return evaluation, facts


def _is_of(facts: Facts, run: Run) -> bool:
    """Return whether one of the checkpoints that were measured is there in a run still, wherever that lies now."""
    for k in range(len(facts.rows("model", "checkpoints"))):
        path, sha256 = (facts.text("model", "checkpoints", k, key) for key in ("path", "sha256"))
        for name in dict.fromkeys((Path(path).name, BEST, LAST)):
            file = run.folder / FOLDER / name
            try:
                if file.is_file() and holds_model(file, sha256):
                    return True
            except (VisionkitError, OSError, ValueError):
                continue
    return False


def _run_of(facts: Facts) -> Run | None:
    """Return the run of the first checkpoint, where the file that was measured lies there still."""
    path, sha256 = facts.text("model", "checkpoints", 0, "path"), facts.text("model", "checkpoints", 0, "sha256")
    folder = Path(path).parent.parent
    try:
        if (
            not path
            or Path(path).parent.name != FOLDER
            or not (folder / CURVES).is_file()
            or not holds_model(path, sha256)
        ):
            return None
        return Run.read(folder)
    except (VisionkitError, OSError, ValueError):
        return None


def _json(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(read_text(path, limit=_LIMIT))
    except (ValueError, RecursionError) as e:
        raise DataError(f"{path}: is no JSON ({e}); it is what a training writes, remove it") from None
    return found if isinstance(found, dict) else {}


def _rows(path: Path) -> tuple[Mapping[str, float], ...]:
    """Return the rows of metrics.csv; what is no finite number is left out."""
    if not path.is_file():
        return ()
    rows = []
    reader = csv.DictReader(io.StringIO(read_text(path, limit=_LIMIT)))
    try:
        for row in reader:
            numbers = {k: n for k, v in row.items() if k and (n := _number(v)) is not None}
            if "epoch" in numbers:
                rows.append(numbers)
    except csv.Error as e:
        where = f"{path}:{reader.line_num}"
        raise DataError(f"{where}: is no table ({e}); it is what a training writes, remove it") from None
    return tuple(rows)


def _number(text: object) -> float | None:
    try:
        value = float(str(text))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
