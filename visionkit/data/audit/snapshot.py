"""What is known of a data set when its checks begin: pictures and labels, collected once."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionkit.data.audit.pictures import PictureFacts
from visionkit.data.labels.faults import Fault

__all__ = ["Labelled", "Series", "Snapshot", "Suspicion", "Twins"]


@dataclass(frozen=True, eq=False)
class Labelled:
    """An image with its labels, as a reader gives them.

    Args:
        path: The image file.
        split: ``train``, ``val`` or ``test``.
        classes: Ids of the classes that it shows.
        source: The file that its labels come from, or "".
        boxes: float32 [N, 4], xyxy in pixels; None where the task has none, or the picture cannot be read.
        ids: Class id of each box, [N].
        crowd: Whether each box is a crowd, [N].
        places: Where each box stands (file:line).
        pixels: Number of pixels of each class, [K]; None where the task has none or the mask cannot be read.
        edges: Height and width as the labels say, or None.
    """

    path: str
    split: str
    classes: tuple[int, ...]
    source: str = ""
    boxes: NDArray[np.float32] | None = None
    ids: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    crowd: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    places: tuple[str, ...] = ()
    pixels: NDArray[Any] | None = None
    edges: tuple[int, int] | None = None


@dataclass(frozen=True)
class Twins:
    """Two images that show the same.

    Args:
        one: Position of the first among the images of the snapshot.
        other: Position of the second.
        kind: ``identical``, or how they differ: ``near``, ``flipped``, ``cropped``.
    """

    one: int
    other: int
    kind: str


@dataclass(frozen=True)
class Series:
    """Images that hang together by pairs of twins.

    Args:
        members: Their positions among the images of the snapshot.
    """

    members: tuple[int, ...]


@dataclass(frozen=True)
class Suspicion:
    """A label that a model would give otherwise.

    Args:
        image: Position of the image among those of the snapshot.
        given: Class id as labelled.
        likelier: Class id that is expected.
        probability: Of the class as labelled, 0..1.
        box: Position of the box in its image, or None where the image as a whole is meant.
    """

    image: int
    given: int
    likelier: int
    probability: float
    box: int | None = None


@dataclass(frozen=True)
class Snapshot:
    """All that checks look at.

    Args:
        root: The folder or file.
        task: ``classification``, ``detection``, ``instance`` or ``segmentation``.
        format: How the labels are written.
        classes: Class names.
        images: The images that were read, of all splits.
        pictures: What is known of each image file, by path.
        faults: What the readers would refuse.
        corrections: What the readers put right by themselves.
        twins: Pairs of images that show the same.
        series: Images that hang together by such pairs.
        unlabelled: Images that were left out since they have no labels, with their split.
        orphans: Label files of no image.
        kinds: Number of pictures of kinds that are not read, by suffix.
        size: Height and width that the model would see.
        stride: Pixels there from one place of the finest feature map to the next.
        suspects: Labels that a model would give otherwise, the likeliest mistakes first.
        agreement: Share of the labels that it would give, too; None where it was not asked.
    """

    root: str
    task: str
    format: str
    classes: tuple[str, ...]
    images: tuple[Labelled, ...]
    pictures: dict[str, PictureFacts]
    faults: tuple[Fault, ...] = ()
    corrections: tuple[Fault, ...] = ()
    twins: tuple[Twins, ...] = ()
    series: tuple[Series, ...] = ()
    unlabelled: tuple[tuple[str, str], ...] = ()
    orphans: tuple[str, ...] = ()
    kinds: dict[str, int] = field(default_factory=dict)
    size: tuple[int, int] = (320, 320)
    stride: int = 8
    suspects: tuple[Suspicion, ...] = ()
    agreement: float | None = None

    @cached_property
    def splits(self) -> dict[str, list[Labelled]]:
        """The images of each split that has any."""
        found = {name: [i for i in self.images if i.split == name] for name in ("train", "val", "test")}
        return {name: images for name, images in found.items() if images}

    @cached_property
    def split_of(self) -> dict[str, tuple[str, ...]]:
        """The splits of each image file, and of each file of labels that is of one image."""
        found: dict[str, list[str]] = {}
        for image in self.images:
            for file in {image.path, image.source} - {""}:
                splits = found.setdefault(file, [])
                if image.split not in splits:
                    splits.append(image.split)
        return {file: tuple(splits) for file, splits in found.items()}

    @cached_property
    def image_of(self) -> dict[str, tuple[str, ...]]:
        """The image of each file of labels that is of one alone."""
        found: dict[str, list[str]] = {}
        for image in self.images:
            found.setdefault(image.source, []).append(image.path)
        return {file: tuple(paths) for file, paths in found.items() if file and len(paths) == 1}

    @cached_property
    def edges_of(self) -> dict[str, tuple[int, int]]:
        """Height and width of each upright picture that can be read."""
        return {
            path: (f.width, f.height) if f.orientation in (5, 6, 7, 8) else (f.height, f.width)
            for path, f in self.pictures.items()
            if f.error is None and f.width
        }

    def counts(self, split: str) -> NDArray[np.int64]:
        """Return how often each class comes in a split, int64 [K]: boxes, or images that show it."""
        found = np.zeros(len(self.classes), np.int64)
        for image in self.splits.get(split, ()):
            ids = image.ids[~image.crowd] if image.boxes is not None else np.array(image.classes, np.int64)
            np.add.at(found, ids, 1)
        return found
