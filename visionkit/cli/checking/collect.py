"""A snapshot of a data set: its labels by the readers that train by them, its pictures in one pass."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from visionkit.cli.checking.deep import Doubts, Network, doubts_of
from visionkit.cli.recognise import TABLES, Candidate
from visionkit.core.errors import DataError, VisionkitError
from visionkit.data.audit.duplicates import Duplicates, find_duplicates
from visionkit.data.audit.pictures import PictureFacts, survey
from visionkit.data.audit.snapshot import Labelled, Series, Snapshot, Twins
from visionkit.data.dataset import DataSplits
from visionkit.data.formats import Request, read_labels
from visionkit.data.images.listing import list_images, passed_over
from visionkit.data.labels.checks import header_size
from visionkit.data.labels.faults import Fault, attempt, gathering
from visionkit.tasks.classification.readers.folder import FolderDataset
from visionkit.tasks.classification.readers.reader import ClassDataset
from visionkit.tasks.detection.advice import advise
from visionkit.tasks.detection.readers.reader import BoxDataset
from visionkit.tasks.detection.readers.yolo import YoloDataset
from visionkit.tasks.segmentation.readers.mask_code import MaskValueError
from visionkit.tasks.segmentation.readers.mask_files import in_threads
from visionkit.tasks.segmentation.readers.reader import MaskDataset
from visionkit.training.advice import AUTO, Advice

__all__ = ["DEFAULT_SIZE", "collect"]

DEFAULT_SIZE = 320
"""Side of the square that the model sees where nothing says it, pixels."""
_SPLITS = ("train", "val", "test")


def collect(
    candidate: Candidate,
    *,
    size: tuple[int, int] | None = None,
    weights: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Snapshot:
    """Return all that checks look at.

    Args:
        candidate: What lies there, and how it is taken.
        size: Height and width that the model would see; None takes what the config says, else what training would
            choose from the boxes.
        weights: Pretrained weights whose features propose copies and doubt labels; None does without.
        progress: Called with (done, total) after each picture.

    Raises:
        UsageError: There are no such weights.
        DataError: The weights cannot be read.
    """
    network = None if weights is None else Network(weights)
    settings = candidate.settings
    asked = settings.get("channels")
    channels = asked if isinstance(asked, int) else 3
    classes = settings.get("classes")
    request = Request(candidate.root, classes, channels, (), candidate.data_options)
    with gathering() as faults:
        splits = _read(candidate, request, faults)
        parts = {n: d for n in _SPLITS if splits is not None and (d := getattr(splits, n)) is not None}
        images = [image for name, data in parts.items() for image in _labelled(name, data, faults)]
    left_out = [(path, name) for name, data in parts.items() for path in getattr(data, "without_mask", ())]
    images = [i for i in images if os.path.isfile(i.path)]  # what is missing was told
    beside = [path for path, _ in left_out]
    paths = list(dict.fromkeys([*(i.path for i in images), *beside])) or _all_images(candidate.root, channels)
    facts = {f.path: f for f in survey(paths, channels=channels, progress=progress)}
    placed = [_in_pixels(i, facts[i.path]) for i in images]
    whole = None if network is None else network.features([i.path for i in placed], [None] * len(placed), progress)
    found = find_duplicates([facts[i.path] for i in placed], features=whole)
    doubts = Doubts()
    if network is not None and whole is not None:
        doubts = doubts_of(placed, whole, found.first, network, progress)
    train = next(iter(parts.values()), None)
    seen, stride = _seen(candidate, splits)
    return Snapshot(
        root=str(candidate.root),
        task=candidate.task,
        format=candidate.format,
        classes=() if train is None else train.classes,
        images=tuple(placed),
        pictures=facts,
        faults=tuple(faults),
        corrections=tuple(_corrections(parts)),
        twins=tuple(Twins(p.one, p.other, p.kind) for p in found.pairs),
        series=tuple(_series(found)),
        unlabelled=tuple(left_out),
        orphans=tuple(dict.fromkeys(str(f) for d in parts.values() if isinstance(d, YoloDataset) for f in d.lonely)),
        kinds=dict(passed_over([candidate.root]).kinds) if candidate.root.is_dir() else {},
        size=size or seen,
        stride=stride,
        suspects=doubts.suspects,
        agreement=doubts.agreement,
    )


def _read(candidate: Candidate, request: Request, faults: list[Fault]) -> DataSplits[Any] | None:
    """Read the labels; what makes them unreadable as a whole, or teaches nothing, is a fault, too."""
    table = TABLES[candidate.task]
    try:
        found = read_labels(table, request)
    except VisionkitError as e:
        faults += [Fault("label-unreadable", line) for line in e.lines]
        return None
    if found.train is not None:
        kind = "class-empty" if candidate.task == "classification" else "image-unlabelled"
        attempt(kind, table.check, found, request)
    return found


def _all_images(root: Path, channels: int) -> list[str]:
    """Return the pictures below a folder whose labels cannot be read."""
    folder = root if root.is_dir() else root.parent
    return [str(p) for p in list_images(folder, channels=channels)]


def _labelled(split: str, data: Any, faults: list[Fault]) -> Iterator[Labelled]:
    if isinstance(data, BoxDataset):
        yield from _of_boxes(split, data, faults)
    elif isinstance(data, MaskDataset):
        yield from _of_masks(split, data, faults)
    elif isinstance(data, ClassDataset):
        for entry in data.entries:
            source = str(getattr(data, "file", "")) if not isinstance(data, FolderDataset) else ""
            yield Labelled(entry.id, split, entry.labels, source)


def _of_boxes(split: str, data: BoxDataset, faults: list[Fault]) -> Iterator[Labelled]:
    for message in in_threads(data.mismatch, range(len(data))):
        if message is not None:
            faults.append(Fault("label-size", message, split))
    for entry in data.entries:
        rows = entry.objects
        boxes = rows[:, :4] if not entry.relative else rows[:, :4].copy()
        yield Labelled(
            entry.id, split, entry.labels, entry.source, boxes, rows[:, 4].astype(np.int64), rows[:, 5] > 0,
            entry.places, edges=(1, 1) if entry.relative else entry.size,
        )  # fmt: skip


def _of_masks(split: str, data: MaskDataset, faults: list[Fault]) -> Iterator[Labelled]:
    messages = in_threads(data.mismatch, range(len(data)))
    for i, message in enumerate(messages):
        if message is not None:
            faults.append(Fault(_kind_of(data, i), message, split))
    for i, entry in enumerate(data.entries):
        counts = data.subset([i]).pixel_counts() if messages[i] is None else None
        shown = () if counts is None else tuple(np.flatnonzero(counts).tolist())
        yield Labelled(entry.id, split, shown, entry.mask, pixels=counts)


def _kind_of(data: MaskDataset, index: int) -> str:
    """Return which finding it is that a mask does not fit."""
    try:
        data.read_mask(index)
    except MaskValueError:
        return "mask-value"
    except DataError:
        return "mask-unreadable"
    return "label-size"


def _in_pixels(image: Labelled, facts: PictureFacts) -> Labelled:
    """Return an image with boxes in pixels of the picture, where they are shares of it."""
    if image.boxes is None or image.edges != (1, 1) or not facts.width:
        return image
    edges = (facts.width, facts.height) if facts.orientation in (5, 6, 7, 8) else (facts.height, facts.width)
    boxes = image.boxes * np.array([edges[1], edges[0]] * 2, np.float32)
    return Labelled(
        image.path, image.split, image.classes, image.source, boxes, image.ids, image.crowd, image.places, None, edges
    )


def _corrections(parts: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield what the readers put right by themselves."""
    for split, data in parts.items():
        for entry in data.entries if isinstance(data, BoxDataset) else ():
            yield from (Fault(c.kind, c.text, split) for c in entry.corrections)
        for problem in data.problems if isinstance(data, MaskDataset) else ():
            yield Fault("outline-missing", problem, split)


def _series(found: Duplicates) -> Iterator[Series]:
    yield from (Series(tuple(members)) for members in found.groups())


def _seen(candidate: Candidate, splits: DataSplits[Any] | None) -> tuple[tuple[int, int], int]:
    """Return the size that the model would see, and the pixels from one place of its finest feature map to the next.

    Both are those of the config, or what training would choose from the boxes.
    """
    advice = Advice(
        {"check.size": candidate.settings.get("size", AUTO), "model.neck.min_level": _level(candidate.model)}
    )
    train = splits.train if splits is not None else None
    if candidate.task in ("detection", "instance") and train is not None:
        fitting = train.subset([i for i in range(len(train)) if _fits(train, i)])  # else it refuses the first
        advise(advice, DataSplits(fitting, None), "check")
    size, level = advice.get("check.size", DEFAULT_SIZE), advice.get("model.neck.min_level", 3)
    if isinstance(size, Sequence) and len(size) == 2 and all(isinstance(s, int) and s > 0 for s in size):
        edges = (size[0], size[1])
    else:
        edges = (size, size) if isinstance(size, int) and size > 0 else (DEFAULT_SIZE, DEFAULT_SIZE)
    return edges, 2**level if isinstance(level, int) and 0 <= level <= 8 else 8


def _fits(data: Any, index: int) -> bool:
    """Return whether the labels of a picture are of its size, as far as that is known."""
    size = header_size(data.ids[index])
    return size is None or data.entries[index].size in (None, size)


def _level(model: Mapping[str, Any]) -> Any:
    """Return the finest level of a detector's neck as a config gives it, or ``auto``."""
    options = model.get("init_args")
    neck = options.get("neck") if isinstance(options, dict) else None
    own = neck.get("init_args") if isinstance(neck, dict) else None
    return own.get("min_level", AUTO) if isinstance(own, dict) else AUTO
