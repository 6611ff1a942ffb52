"""Metrics that keep what each image adds, so that their values can be drawn again over any of the images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visionkit.core.distributed import gather_objects, order_of_images
from visionkit.core.errors import DataError, UsageError
from visionkit.training.metric import TaskMetric

__all__ = ["Counted", "ImageCounts", "RedrawnMetric", "taken"]

Array = NDArray[Any]
Part = TypeVar("Part")
Ready = TypeVar("Ready")


class Counted(NamedTuple):
    """The things that a value rests on: objects of a class, answers, pictures.

    Args:
        of: int64 [N], how many of them each image has.
        hits: int64 [N], how many of these are right; None where the value is more than the share of right ones.
        unit: What they are, such as "objects".
    """

    of: Array
    hits: Array | None
    unit: str


class RedrawnMetric(TaskMetric, Generic[Part, Ready]):
    """A metric whose values are sums over images, or sorted lists of what images bring.

    A subclass calls :meth:`keep` with the part that a batch adds, says how parts are joined and made ready (once), and
    which values they give when each image counts as often as its weight says (often).

    Args:
        classes: Class names, in the order of their ids.
    """

    settings: ClassVar[tuple[str, ...]] = ()
    """Names of attributes that its values depend on: those of other settings are not to be compared."""

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__(classes)
        self.sync_on_compute = False  # processes hold different numbers of images: compute gathers by itself
        self.compute_with_cache = False  # else a process with new images would wait for one without
        self._held = 0
        self._parts: list[Part] = []
        self._ready: tuple[int, Ready | None] | None = None

    def join(self, parts: Sequence[Part]) -> Part:
        """Return one part, on the CPU, with the images of one or more, in their order."""
        raise NotImplementedError

    def prepare(self, part: Part, order: Array) -> Ready:
        """Return what values are computed from.

        Args:
            part: That of all N images.
            order: int64 [N], positions in the part of the images in their order.
        """
        raise NotImplementedError

    def values(self, ready: Ready, weight: Array) -> dict[str, Tensor]:
        """Return the values when image k counts ``weight[k]`` times; int64 [N] with a sum above 0."""
        raise NotImplementedError

    def pack(self, part: Part) -> dict[str, Array]:
        """Return a part as plain arrays of numbers, and what the values depend on beside it, such as thresholds.

        Raises:
            UsageError: The metric does not say how.
        """
        raise UsageError(f"{type(self).__name__} cannot be kept in a file; give it the methods pack and unpack")

    def unpack(self, arrays: Mapping[str, Array], images: int) -> Part:
        """Return the part of so many images that :meth:`pack` told, and take over what it told beside it.

        Raises:
            DataError: These are no such arrays, or they do not fit the classes.
            UsageError: The metric does not say how.
        """
        raise UsageError(f"{type(self).__name__} cannot be read from a file; give it the methods pack and unpack")

    def drawer(self, ready: Ready) -> Callable[[Array], dict[str, float]]:
        """Return what gives the values without dimensions when image k counts as often as its weight says.

        A subclass may do more work here once, to do less a thousand times.
        """

        def draw(weight: Array) -> dict[str, float]:
            scalars = {k: v for k, v in self.values(ready, weight).items() if v.ndim == 0}
            return dict(zip(scalars, torch.stack(list(scalars.values())).tolist(), strict=True)) if scalars else {}

        return draw

    def count(self, ready: Ready, images: int) -> Iterator[tuple[str, Counted]]:
        """Yield the key of each value that rests on something else than whole images, and what that is."""
        yield from ()

    def find_faults(self, ready: Ready, images: int) -> Array:
        """Return how wrong each image is, float64 [N]; 0 where nothing is wrong, or where the metric does not say."""
        return np.zeros(images)

    def keep(self, images: int, part: Part) -> None:
        """Add what a batch of so many images brings; nothing where there are none."""
        self._ready = None
        if images:
            self._held += images
            self._parts.append(part)

    def reset(self) -> None:
        """Forget all images."""
        super().reset()
        self._held, self._parts, self._ready = 0, [], None

    def compute(self) -> dict[str, Tensor]:
        """Return the values over all updates since the last reset; an empty dict without any image."""
        images, ready = self._ready = self.gather()
        return {} if ready is None else self.values(ready, np.ones(images, np.int64))

    def redraw(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """Return the values over some of the images; see :meth:`TaskMetric.redraw`.

        Raises:
            UsageError: There is no such image.
        """
        images, ready = self._ready = self._ready or self.gather()
        chosen = np.asarray(rows, np.int64).reshape(-1)
        if ready is None or not len(chosen):
            if len(chosen):
                raise UsageError(f"row {chosen[0]} of a metric that has no images")
            return {}
        outside = chosen[(chosen < 0) | (chosen >= images)]
        if len(outside):
            raise UsageError(f"row {outside[0]} of a metric that has {images} images: 0 to {images - 1}")
        values = self.values(ready, np.bincount(chosen, minlength=images))
        return {k: v.squeeze() if v.numel() == 1 else v for k, v in values.items()}  # as torchmetrics does it

    def redraw_weighted(self, weight: Array) -> dict[str, Tensor]:
        """Return the values when each image counts as often as its weight says, as :meth:`redraw` does of rows.

        Args:
            weight: Whole numbers from 0 on, [N], in the order of the rows; with ones it is ``compute()``.

        Raises:
            UsageError: There are more or fewer images.
        """
        images, ready = self._ready = self._ready or self.gather()
        times = _times(weight, images)
        if ready is None or not times.any():
            return {}
        return {k: v.squeeze() if v.numel() == 1 else v for k, v in self.values(ready, times).items()}

    def drawing(self) -> Callable[[Array], dict[str, float]]:
        """Return what gives the values without dimensions for a weight of each image, many times over.

        The numbers are those of :meth:`redraw_weighted`, but for rounding, and for detections of one image and class
        that have the same score: those of its copies may be counted in another order. A value that has no meaning where
        nothing of its kind is drawn, such as a mean over no classes, is left out there.
        """
        images, ready = self._ready = self._ready or self.gather()
        if ready is None:
            return lambda weight: {}
        draw = self.drawer(ready)

        def drawn(weight: Array) -> dict[str, float]:
            times = _times(weight, images)
            return draw(times) if times.any() else {}

        return drawn

    def counted(self) -> Iterator[tuple[str, Counted]]:
        """Yield the key of each value that rests on something else than whole images, and what that is.

        Values of which :class:`Counted` has hits are the share of these.
        """
        images, ready = self._ready = self._ready or self.gather()
        return iter(()) if ready is None else self.count(ready, images)

    def faults(self) -> Array:
        """Return how wrong each image is, float64 [N] in the order of the rows; 0 where nothing is wrong."""
        images, ready = self._ready = self._ready or self.gather()
        return np.zeros(0) if ready is None else self.find_faults(ready, images)

    @property
    def images(self) -> int:
        """How many images this process holds."""
        return self._held

    def arrays(self) -> dict[str, Array]:
        """Return what the images of this process add, as plain arrays of numbers; :meth:`take_arrays` takes them."""
        part = self.pack(self.join(self._parts)) if self._parts else {}
        return {"images": np.array(self._held), **part}

    def take_arrays(self, arrays: Mapping[str, Array]) -> None:
        """Forget all images and take those that :meth:`arrays` told, bit for bit.

        Raises:
            DataError: These are no such arrays, or they do not fit the classes.
        """
        images = arrays.get("images")
        if images is None or images.shape or images.dtype.kind not in "iu" or not 0 <= images < 2**31:
            raise DataError("the number of images is missing")
        self.reset()
        if images:
            self.keep(int(images), self.unpack(arrays, int(images)))
            self._update_count += 1  # else torchmetrics takes it for empty

    def gather(self) -> tuple[int, Ready | None]:
        """Return the number of images of all processes and what is made of them, None without any."""
        shares = gather_objects((self._held, self.join(self._parts) if self._parts else None))
        order = order_of_images([held for held, _ in shares])
        parts = [part for _, part in shares if part is not None]
        return len(order), self.prepare(self.join(parts), order) if parts else None


class ImageCounts(NamedTuple):
    """Whole numbers that each image adds to the cells of a table; most add to few cells, and only those are kept.

    Args:
        image: int32 [E], position of the image.
        cell: int32 [E], where its number is added.
        number: int32 or int64 [E].
    """

    image: Tensor
    cell: Tensor
    number: Tensor

    @classmethod
    def make(cls, image: Array | Tensor, cell: Array | Tensor, number: Array | Tensor | None = None) -> Self:
        """Return counts of plain arrays of whole numbers, ones where there is no ``number``."""
        image, cell = (torch.as_tensor(v, dtype=torch.int32) for v in (image, cell))
        return cls(image, cell, torch.ones_like(cell) if number is None else torch.as_tensor(number))

    def total(self, weight: Array, cells: int) -> Tensor:
        """Return the sums, int64 [cells] on the CPU, exact, when image k counts ``weight[k]`` times."""
        added = torch.from_numpy(weight)[self.image] * self.number
        return torch.zeros(cells, dtype=torch.int64).index_add_(0, self.cell, added)

    def by_image(self, which: Tensor, images: int) -> Array:
        """Return the sum of some entries in each image, int64 [images]; ``which`` is a bool mask [E]."""
        sums = torch.zeros(images, dtype=torch.int64).index_add_(0, self.image[which], self.number[which].long())
        counts: Array = sums.numpy()
        return counts


def taken(arrays: Mapping[str, Array], name: str, shape: Sequence[int | None], kind: str, below: float = 0) -> Array:
    """Return an array of a file that :meth:`RedrawnMetric.take_arrays` takes, once it is what it should be.

    Args:
        arrays: By name.
        name: The one that is asked for.
        shape: Length along each dimension; None for any.
        kind: Kinds of numbers as numpy's ``dtype.kind``, such as "iu" or "f".
        below: Whole numbers lie from 0 up to this; 0 where they are not looked at.

    Raises:
        DataError: It is missing or something else.
    """
    array = arrays.get(name)
    if array is None or array.ndim != len(shape) or array.dtype.kind not in kind:
        raise DataError(f"the array {name!r} is missing or of another kind")
    if any(wanted is not None and wanted != length for wanted, length in zip(shape, array.shape, strict=True)):
        raise DataError(f"the array {name!r} has shape {array.shape}, not {tuple(shape)}")
    if below and array.size and (array.min() < 0 or array.max() >= below):
        raise DataError(f"the array {name!r} holds {array.min()} to {array.max()}, outside of 0 to {below - 1}")
    return array


def _times(weight: Array, images: int) -> Array:
    """Return weights as int64 [N], once they are such."""
    times = np.asarray(weight)
    if times.shape != (images,) or times.dtype.kind not in "iu" or (times < 0).any():
        raise UsageError(f"weights of {images} images: one whole number from 0 on for each")
    return times.astype(np.int64, copy=False)
