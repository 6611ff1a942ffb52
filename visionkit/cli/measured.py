"""Which pictures a model is measured on: the data below a root, and a split of them that it was not trained on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from visionkit.cli.recognise import TABLES, Candidate, Task, recognise
from visionkit.cli.trained_on import CONFIG, Training, pictures_of, shared
from visionkit.core.errors import DataError, UsageError
from visionkit.core.text import shortened
from visionkit.data.dataset import DataSplits, VisionDataset
from visionkit.data.formats import Request, read_labels
from visionkit.data.formats import recognise as recognise_formats
from visionkit.data.labels.faults import Fault, gathering

__all__ = ["SPLITS", "MeasuredData", "NoSplitError", "Split", "data_for"]

Split: TypeAlias = Literal["test", "val", "train", "all"]
SPLITS: tuple[Split, ...] = ("test", "val", "train", "all")
"""What can be measured on: a split of the data, or all pictures of data that have none."""
NAMES = ("train", "val", "test")
Data: TypeAlias = VisionDataset[Any]
Trainings: TypeAlias = Mapping[str, Training | None]

Standing: TypeAlias = Literal["trained", "unknown", "validated", "foreign"]
STANDINGS: tuple[Standing, ...] = ("trained", "unknown", "validated", "foreign")
"""How pictures stand to those of a run: some trained, nothing is known, some validated, all are others."""

KNOWN_BY_HEART = "pictures of training are counted: these numbers say how well they are known by heart, no more"


class NoSplitError(DataError):
    """The data have no such split."""


@dataclass(frozen=True)
class MeasuredData:
    """The pictures that a model is measured on.

    Args:
        dataset: They and their labels; class ids are those of the model.
        split: Which part of the data they are; "all" where the data have no parts.
        task: What their labels are for.
        format: How the labels are written.
        root: Where they lie.
        source: One sentence that says what was read.
        warnings: What makes the numbers worth less, a line each.
    """

    dataset: Data
    split: Split
    task: Task
    format: str
    root: Path
    source: str
    warnings: tuple[str, ...] = ()


class _Chosen(NamedTuple):
    """A split, the training pictures beside it as far as they are known, and what makes it worth less."""

    dataset: Data
    split: Split
    beside: Sequence[str] = ()
    warnings: tuple[str, ...] = ()


def data_for(
    root: str | os.PathLike[str],
    *,
    task: Task | None = None,
    split: Split | None = None,
    classes: Sequence[str] | None = None,
    channels: int = 3,
    multilabel: bool | None = None,
    trainings: Trainings | None = None,
) -> MeasuredData:
    """Return the pictures to measure a model on, with their labels; classes are joined by their names.

    It is the test split where there is one, else the val split. Where the data bring neither, it is the pictures that
    validated in the run, which are taken from all by the same rule as ``fit`` takes them. And it is all of them where
    no model is asked about, or where they are known to be others than those of its run.

    Args:
        root: The folder of a data set, the file that lists it, or a config that names it.
        task: What the labels are for; None takes the likeliest.
        split: Which part to take; None as said above.
        classes: The model's class names in the order of their ids; None takes those of the data.
        channels: Of the images.
        multilabel: Whether an image can have several classes; None takes it from the data.
        trainings: By checkpoint, what its run says of its data, None where nothing is known; None without any model.

    Raises:
        DataError: There are no such data, their labels are wrong or name classes that the model does not know, or there
            is no such split.
        UsageError: The root does not hold data of this task, or is divided where all are asked for.
    """
    found, candidate, faults = _read(Path(root), task, classes, channels, multilabel, trainings or {})
    chosen = _choose(found, candidate, split, channels, trainings)
    parts = {"", chosen.split} | (set() if chosen.split in ("val", "test") and _brings(found, chosen) else {*NAMES})
    _refuse_faults([f for f in faults if f.split in parts], candidate.root, known_classes=classes is not None)
    if not len(chosen.dataset):
        raise DataError(f"{candidate.root}: the {chosen.split} split holds no pictures; choose another with --split")
    told = [*chosen.warnings, *_overlap(chosen, candidate, channels, trainings)]
    return MeasuredData(
        chosen.dataset, chosen.split, candidate.task, candidate.format, candidate.root, found.source, tuple(told)
    )


def _read(
    root: Path,
    task: Task | None,
    classes: Sequence[str] | None,
    channels: int,
    multilabel: bool | None,
    trainings: Trainings,
) -> tuple[DataSplits[Data], Candidate, list[Fault]]:
    """Return all that lies at a root, how it was taken, and what is wrong with the labels."""
    candidate = _candidate(root, task)
    known = [t for t in trainings.values() if t is not None]
    options = {**(known[0].options if known and candidate.config is None else {}), **candidate.data_options}
    if multilabel is not None:
        options["multilabel"] = multilabel
    options["masks"] = candidate.task == "instance"
    request = Request(candidate.root, classes, channels, (), options, own_names=not trainings)
    try:
        with gathering() as faults:
            found = read_labels(TABLES[candidate.task], request)
    except DataError as e:
        if not any("--data.ignore" in line for line in e.lines):
            raise
        raise DataError(
            *e.lines, "data.ignore stands in a config here: give one as --data in place of the folder"
        ) from e
    return found, candidate, faults


def _candidate(root: Path, task: Task | None) -> Candidate:
    """Return how a root is taken for a task.

    Raises:
        DataError: There is no such folder, or nothing that is understood.
        UsageError: It holds data of other tasks.
    """
    if task is not None and root.is_dir():
        for here in recognise_formats(root, TABLES[task]):
            if here.format.fallback:  # other data look the same by their names
                break
            if here.problem is not None:
                raise here.problem
            return Candidate(task, here.format.name, root, {}, "it was asked for")
    every = recognise(root)
    fitting = [c for c in every if task in (None, c.task)]
    if not fitting:
        there = ", ".join(dict.fromkeys(c.task for c in every))
        raise UsageError(f"{root}: holds data for {there}, and {task} is asked for; give the root of such data")
    if (problem := fitting[0].problem) is not None:
        raise problem
    return fitting[0]


def _choose(
    found: DataSplits[Data], candidate: Candidate, asked: Split | None, channels: int, trainings: Trainings | None
) -> _Chosen:
    """Return the split to measure on."""
    train = found.train
    if asked == "all" or (asked == "train" and found.val is not None and train is not None):
        whole = _Chosen(train, "train") if asked == "train" and train is not None else _all(found)
        if not trainings:
            return whole._replace(warnings=(KNOWN_BY_HEART,) if asked == "train" else ())
        return whole._replace(warnings=_of_training(whole.dataset, candidate, channels, trainings))
    for name in ("test", "val") if asked is None else (asked,):
        part: Data | None = getattr(found, name)
        if part is not None and name != "train":
            return _Chosen(part, name, () if train is None else train.ids)
    if train is None or asked == "test":
        there = [name for name in NAMES if getattr(found, name) is not None]
        choices = "|".join([*there, *(["all"] if len(there) == 1 else [])])
        raise NoSplitError(
            f"{candidate.root}: has no {asked or 'test'} split ({found.source}); choose another with --split {choices}"
        )
    if asked is None and (trainings is None or _standing(train, candidate, channels, trainings) == "foreign"):
        return _all(found)
    divided = _divided(found, train, candidate, asked, trainings or {})
    if asked == "train" and trainings:
        return divided._replace(warnings=_of_training(divided.dataset, candidate, channels, trainings))
    return divided


def _all(found: DataSplits[Data]) -> _Chosen:
    """Return all pictures, where they are of no split, or of one alone.

    Raises:
        UsageError: They are divided.
    """
    there = {name: part for name in NAMES if (part := getattr(found, name)) is not None}
    if len(there) > 1:
        raise UsageError(f"--split all: these pictures are divided into {', '.join(there)}: choose one of them")
    return _Chosen(next(iter(there.values())), "all")


def _divided(
    found: DataSplits[Data], train: Data, candidate: Candidate, asked: Split | None, trainings: Trainings
) -> _Chosen:
    """Return the part of the training pictures that validated in all runs, or, where asked for, that trained."""
    rules = {t.rule: t for t in trainings.values() if t is not None}
    if not rules:
        own = Training.of_settings(candidate.root, candidate.settings)
        rules = {own.rule: own}
    parts = [rule.divide(found, candidate.root) for rule in rules.values()]
    if asked == "train":
        return _Chosen(parts[0].get("train"), "train", (), (KNOWN_BY_HEART,))
    left = set.intersection(*(set(part.get("val").ids) for part in parts))
    if not left:
        raise NoSplitError(
            f"{candidate.root}: one of the checkpoints or another was trained on each of its pictures, since their "
            "runs divided them in different ways; give pictures that none has seen"
        )
    told = _of_unknown(candidate, trainings)
    if len(rules) > 1:
        told.append(f"the runs divided these pictures in different ways; the {len(left)} that trained none are counted")
    rows = [i for i, id in enumerate(train.ids) if id in left]
    return _Chosen(train.subset(rows), "val", [id for id in train.ids if id not in left], tuple(told))


def _standing(pictures: Data, candidate: Candidate, channels: int, trainings: Trainings) -> Standing:
    """Return how pictures stand to those of the runs; of several runs what says the most against them."""
    table, masks = TABLES[candidate.task], candidate.task == "instance"
    found: set[Standing] = {"foreign"}
    for training in trainings.values():
        if training is None:
            found.add("unknown")
        elif training.lies_at(candidate.root):
            return "trained"
        elif (theirs := pictures_of(training, table, channels=channels, masks=masks)) is None:
            found.add("unknown")
        elif shared(theirs.trained, pictures.ids):
            return "trained"
        elif shared(theirs.every, pictures.ids):
            found.add("validated")
    return next(one for one in STANDINGS if one in found)


def _of_training(pictures: Data, candidate: Candidate, channels: int, trainings: Trainings) -> tuple[str, ...]:
    """Return what to say of pictures that were asked for whatever trained on them, as far as it is known."""
    known = _standing(pictures, candidate, channels, trainings) == "trained"
    return (*((KNOWN_BY_HEART,) if known else ()), *_of_unknown(candidate, trainings))


def _of_unknown(candidate: Candidate, trainings: Trainings) -> list[str]:
    """Return a line for each model of which nothing is known."""
    return [
        f"{name}: which pictures it was trained on is not known (no {CONFIG} of a run beside it); if they are of "
        f"{candidate.root}, some of them may be counted here: give pictures that it has not seen"
        for name, training in trainings.items()
        if training is None
    ]


def _overlap(chosen: _Chosen, candidate: Candidate, channels: int, trainings: Trainings | None) -> list[str]:
    """Return what to say of pictures that are among those of training, byte for byte."""
    known = [t for t in (trainings or {}).values() if t is not None]
    places: dict[str, Sequence[str]] = {}
    if trainings is None or len(known) < len(trainings) or any(t.lies_at(candidate.root) for t in known):
        places[str(candidate.root)] = chosen.beside
    told = []
    for training in known:
        if training.root is None or training.lies_at(candidate.root) or KNOWN_BY_HEART in chosen.warnings:
            continue
        theirs = pictures_of(training, TABLES[candidate.task], channels=channels, masks=candidate.task == "instance")
        if theirs is None:
            told.append(
                f"{training.root}: the data of the run ({training.config}) cannot be read any more: whether pictures "
                "of its training are counted here is not known"
            )
        else:
            places.setdefault(training.root, theirs.trained)
    for place, trained in places.items():
        if twins := shared(trained, chosen.dataset.ids):
            one, other = twins[0]
            told.append(
                f"{len(twins)} of the {len(chosen.dataset)} pictures are among the training pictures of {place}, too, "
                f"so the numbers flatter (first: {one} = {other})"
            )
    return told


def _brings(found: DataSplits[Data], chosen: _Chosen) -> bool:
    """Return whether a split is one that the data bring."""
    return chosen.dataset is getattr(found, chosen.split)


def _refuse_faults(wrong: Sequence[Fault], root: Path, *, known_classes: bool) -> None:
    """Refuse wrong labels.

    Raises:
        DataError: There are any.
    """
    if not wrong:
        return
    unknown = [f for f in wrong if f.kind == "class-unknown"]
    if unknown and known_classes:
        count = "a label names a class" if len(unknown) == 1 else f"{len(unknown)} labels name classes"
        raise DataError(
            *shortened([f.message for f in unknown], 3),
            f"{root}: {count} that the model does not know, so it cannot be right there; call the class as the model "
            "does, or leave these pictures out",
        )
    raise DataError(
        *shortened([f.message for f in wrong]), f"{root}: its labels are wrong; visionkit check {root} shows them all"
    )
