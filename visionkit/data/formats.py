"""How data sets lie on the disk: what a task knows of it in one table, and the one way from a root to the splits."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from visionkit.core.errors import DataError, UsageError, VisionkitError
from visionkit.core.files import missing
from visionkit.core.text import printable
from visionkit.data.dataset import DataSplits, VisionDataset
from visionkit.data.images.listing import list_images, passed_over
from visionkit.data.labels.checks import UnlabelledError, refuse_leaks
from visionkit.data.labels.faults import attempt, reading_split
from visionkit.data.labels.foreign import find_foreign
from visionkit.data.split import divide, divide_as_listed

__all__ = [
    *("Format", "Formats", "Holds", "Part", "Recognised", "Request"),
    *("find_splits", "read_labels", "recognise"),
    *("below", "make_splits", "read_parts", "require_train", "tell_parts"),
]

D = TypeVar("D", bound=VisionDataset[Any])

Holds: TypeAlias = Literal["class", "classes", "boxes", "masks", "pixels", "names", "groups"]
"""What labels can say: one class an image, several classes an image, boxes, masks of objects, a class for each pixel;
names of the classes (else their numbers alone); what must stay on one side of a split."""


@dataclass(frozen=True)
class Request:
    """What is asked of a reader.

    Args:
        root: The folder or file; None for drawn shapes.
        classes: Class names in order (of a checkpoint); None takes those of the training images.
        channels: 3 for RGB, 1 for gray, another number for multi-band files.
        need: The splits that must be there.
        options: What the readers of one task alone know, such as ``masks``.
        own_names: Whether other splits may say the class names where there are no training images: nothing is trained.
    """

    root: Path | None
    classes: Sequence[str] | None
    channels: int
    need: Collection[str]
    options: Mapping[str, Any]
    own_names: bool = False

    @property
    def place(self) -> Path:
        """The root, where the data are not drawn."""
        assert self.root is not None
        return self.root


@dataclass(frozen=True)
class Format(Generic[D]):
    """One way in which a data set can lie on the disk: a line of a task's table.

    Args:
        name: What it is called in messages.
        layout: What lies where, as messages list it, the name included.
        find: Takes a folder or file that exists; returns what was found there (folders or files by split, say), or None
            where it is not of this format. Looks at names and, where they say too little, at labels; decodes no image.
            Raises UsageError where several things can be meant, DataError where what lies there is wrong.
        read: Takes what was found and the request; returns the data sets, with a source that says what was read.
        holds: What its labels can say.
        fallback: Whether folders of other formats look the same by their names: it counts where no other does.
    """

    name: str
    layout: str
    find: Callable[[Path], Any]
    read: Callable[[Any, Request], DataSplits[D]]
    holds: frozenset[Holds]
    fallback: bool = False


@dataclass(frozen=True)
class Formats(Generic[D]):
    """All that a task knows of data sets on the disk.

    Args:
        formats: The formats that it reads; of several in one folder the first is read.
        labels: What a folder lacks that is of no format: boxes, masks, ...
        draw: Takes a number of pictures, a seed and the request; returns drawn shapes, the data without a root.
        drawn: Number of drawn pictures for training and for validation.
        check: Raises DataError where the training images, before validation images are taken from them, teach nothing.
    """

    formats: tuple[Format[D], ...]
    labels: str
    draw: Callable[[int, int, Request], D]
    drawn: tuple[int, int]
    check: Callable[[DataSplits[D], Request], None]

    def understood(self) -> str:
        """Return what is understood, for messages."""
        *others, last = [f.layout for f in self.formats]
        return f"understood are {', '.join(others)} and {last}" if others else f"understood is {last}"


@dataclass(frozen=True)
class Recognised(Generic[D]):
    """A format that a folder or file is of.

    Args:
        format: The format.
        found: What its ``find`` returned; None where that failed.
        problem: Why it failed: of this format, but unclear (UsageError) or wrong (DataError).
    """

    format: Format[D]
    found: Any = None
    problem: VisionkitError | None = None


def recognise(root: Path, table: Formats[D]) -> list[Recognised[D]]:
    """Return the formats of a task that a folder or file is of, the one that is read first; by names, without pixels.

    Args:
        root: The folder or file; none that exists is of no format.
        table: The formats of the task.
    """
    found: list[Recognised[D]] = []
    for format in table.formats if root.exists() else ():
        if format.fallback and found:
            continue
        try:
            here = format.find(root)
        except (DataError, UsageError) as e:
            found.append(Recognised(format, problem=e))
            continue
        if here is not None:
            found.append(Recognised(format, here))
    return found


def find_splits(
    root: str | os.PathLike[str] | None,
    table: Formats[D],
    *,
    val_fraction: float = 0.2,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    channels: int = 3,
    need: Collection[str] = ("train", "val"),
    listed: str | os.PathLike[str] | None = None,
    **options: Any,
) -> DataSplits[D]:
    """Find the images with labels below ``root`` and divide them into training, validation and test.

    Of several formats in one folder the first of the table is read. Where there are training images and no validation
    images, the latter are taken from the former: the same way each time, by class, never through a group.

    Args:
        root: The folder of a data set, or the file that lists it; None for drawn shapes.
        table: The formats that the task reads.
        val_fraction: Share of the images for validation where it is split automatically, in (0, 1).
        seed: Of the automatic split and of the drawn shapes.
        classes: Class names in order (of a checkpoint); None takes those of the training images.
        channels: 3 for RGB, 1 for gray, another number for multi-band files.
        need: The splits that must be there; to evaluate, ``("val",)`` or ``("test",)`` with ``classes``.
        listed: A file that says which of the training images validate, where it is split; see
            :func:`visionkit.data.split.divide_as_listed`. None splits automatically.
        options: What the readers of the task alone know, such as ``masks``.

    Raises:
        DataError: Images or labels are missing, wrong or disagree, or a split that is needed is not there.
        UsageError: A value is out of range, several files or folders can be meant, or the format lacks what is asked.
    """
    if not 0 < val_fraction < 1:
        raise UsageError(f"val_fraction: {val_fraction} is not between 0 and 1; give a share such as 0.2")
    if root is not None and not os.fspath(root):
        raise UsageError("data.root is empty, which would be the working folder: give a folder, or null to draw shapes")
    request = Request(None if root is None else Path(root), classes, channels, need, options)
    if root is None:
        found = _draw(table, request, seed)
    else:
        found = _tell_passed_over(read_labels(table, request), request.place)
        leaks = refuse_leaks(found, root)
        found = replace(found, source="\n         ".join([found.source, *map(printable, leaks)]))
    if found.train is not None:
        table.check(found, request)
        if found.val is None and listed is not None and root is not None:
            found = divide_as_listed(found, Path(listed), Path(root))
        elif found.val is None:
            found = divide(found, *found.get("train").groups_and_labels(), val_fraction, seed)
    for name in need:
        found.get(name)
    if found.train is not None and len(found.train) < 2:
        raise DataError(f"{root}: {len(found.train)} training image(s); give 2 or more")
    return found


def _tell_passed_over(found: DataSplits[D], root: Path) -> DataSplits[D]:
    """Return the data sets with a source that says what lies beside their images and is not read."""
    folders = {
        os.path.dirname(id) for data in (found.train, found.val, found.test) if data is not None for id in data.ids
    }
    lines = passed_over([root, *sorted(folders)]).lines()
    return replace(found, source="; ".join([found.source, *lines]))


def _draw(table: Formats[D], request: Request, seed: int) -> DataSplits[D]:
    train, val = (table.draw(number, 2 * seed + part, request) for part, number in enumerate(table.drawn))
    if request.classes is not None and tuple(request.classes) != train.classes:
        raise UsageError(
            f"without a root the data are drawn shapes ({', '.join(train.classes)}), but the classes are "
            f"{', '.join(request.classes[:6])}; give the root of your images"
        )
    numbers = "{} for training, {} for validation".format(*table.drawn)
    return DataSplits(train, val, None, f"drawn shapes: {numbers} (seed {seed})")


def read_labels(table: Formats[D], request: Request) -> DataSplits[D]:
    """Read the labels below a root, in the first of the formats that it is of, and divide nothing.

    Args:
        table: The formats of the task.
        request: What is asked.

    Raises:
        DataError: Images or labels are missing or wrong.
        UsageError: Several files or folders can be meant, or the format lacks what is asked.
    """
    root = request.place
    if not root.exists():
        raise DataError(f"{missing(root, 'folder or file')}; {table.understood()}")
    recognised = recognise(root, table)
    foreign = find_foreign(root)
    if foreign is not None and not recognised:
        raise DataError(foreign.refusal())
    if not recognised:
        if root.is_file():
            raise UsageError(f"{root}: is neither a folder nor a file of a known format; {table.understood()}")
        images = len(list_images(root, channels=request.channels))
        what = f"holds {images} images but no {table.labels}" if images else f"holds no images and no {table.labels}"
        what = "; ".join([what, *passed_over([root]).lines()])
        raise DataError(f"{root}: {what}; {table.understood()}")
    first, *others = recognised
    if first.problem is not None:
        raise first.problem
    try:
        found = first.format.read(first.found, request)
    except UnlabelledError as e:
        raise e if foreign is None else DataError(foreign.refusal()) from None
    also = [] if foreign is None else [f"{foreign.name} ({printable(below(foreign.file, root))})"]
    also += [r.format.name for r in others if not isinstance(r.problem, DataError)]  # several files lie there, too
    if not also:
        return found
    source = f"{found.source}; {' and '.join(also)} labels lie there too and are not read"
    return DataSplits(found.train, found.val, found.test, source)


# ---- what the readers of several formats do alike


@dataclass(frozen=True)
class Part(Generic[D]):
    """A split that was found.

    Args:
        where: Where it is told or lies, below the root.
        read: Takes ``classes`` (None for those of its labels), ``channels`` and options; returns the data set.
    """

    where: str
    read: Callable[..., D]


def below(path: Path, root: Path) -> str:
    """Return a path as it is told beside the root."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def require_train(parts: Collection[str], request: Request) -> None:
    """Refuse a data set without training images where they must tell the class names.

    Args:
        parts: The splits that are there; "" for images of no split.
        request: What is asked; with classes, or where others may name them, all is well.

    Raises:
        UsageError: It is so.
    """
    if request.classes is None and not request.own_names and not {"train", ""} & set(parts):
        raise UsageError(
            f"{request.root}: has no train split to take the class names from; add it or give a checkpoint"
        )


def read_parts(parts: Mapping[str, Part[D]], request: Request, **options: Any) -> dict[str, D]:
    """Read the splits of a data set, training first: the others get its class names.

    Args:
        parts: The splits that were found; "" for images of no split, which are read as ``train``.
        request: What is asked.
        options: What the reader takes beside classes and channels.

    Returns:
        The data sets by split: train, val, test.

    Raises:
        UsageError: Nothing says the class names.
    """
    require_train(parts, request)
    places = {"train": parts[""]} if "" in parts else parts
    classes = request.classes
    done: dict[str, D] = {}
    for name in ("train", "val", "test"):
        if name in places:
            read = partial(places[name].read, classes=classes, channels=request.channels, **options)
            try:
                with reading_split(name):
                    data = attempt("label-unreadable", read)
            except UnlabelledError:
                if name != "test" or name in request.need:
                    raise
                continue  # training needs none; it is told
            if data is not None:
                done[name] = data
                classes = data.classes if classes is None else classes
    return done


def tell_parts(where: Mapping[str, str], done: Mapping[str, D], count: Callable[[D], str]) -> str:
    """Return what was read, such as ``train 3 images (a.json), val 2 images (b.json)``.

    Args:
        where: Where each split lies; "" for images of no split.
        done: The data sets by split.
        count: Says how much a data set holds.
    """
    if "" in where and "train" in done:
        return f"{count(done['train'])} ({where['']})"
    told = [f"{name} {count(data)} ({where[name]})" for name, data in done.items()]
    told += [f"{name} has no labels and is not read ({place})" for name, place in where.items() if name not in done]
    return ", ".join(told)


def make_splits(parts: Mapping[str, D], source: str) -> DataSplits[D]:
    """Return the data sets of some splits as one.

    Args:
        parts: The data sets by split.
        source: One sentence that says what was read.
    """
    return DataSplits(parts.get("train"), parts.get("val"), parts.get("test"), source)
