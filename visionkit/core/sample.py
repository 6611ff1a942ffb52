"""What flows through visionkit: images with their targets, alone and in batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

from visionkit.core.errors import DataError

if TYPE_CHECKING:
    from typing_extensions import TypeIs

__all__ = [
    "Batch",
    "ImageInfo",
    "Loaded",
    "Sample",
    "SpatialTarget",
    "Target",
    "assemble",
    "batch_memory",
    "collate",
    "is_spatial",
]


@dataclass(frozen=True)
class ImageInfo:
    """Where an image comes from and how to go back to its original pixels.

    A pixel (y, x) of the original lies at ``(y * scale[0] + offset[0], x * scale[1] + offset[1])`` of the image
    that the model sees.

    Args:
        id: Path of the file, or another name that is unique in the data set.
        size: Height and width of the original in pixels, after EXIF orientation.
        scale: Vertical and horizontal factor of the resize.
        offset: Vertical and horizontal shift in pixels; positive after padding, negative after cropping.
        extra: Further columns of the manifest (a text beside the image, ...); they come back with predictions.
    """

    id: str
    size: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0, 0)
    extra: Mapping[str, Any] = field(default_factory=dict)


class Target(Protocol):
    """The truth about one image. Each task has its own."""

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Return the target with its tensors on ``device``."""
        ...

    def restore(self, info: ImageInfo) -> Self:
        """Return the truth in pixels of the original image, which is what metrics compare with."""
        ...


@runtime_checkable
class SpatialTarget(Target, Protocol):
    """A target that lies in pixels (boxes, masks) and moves with its image."""

    def place(self, scale: tuple[float, float], offset: tuple[int, int], size: tuple[int, int]) -> Self:
        """Return the target after its image was resized, shifted and cut or padded.

        A pixel (y, x) moves to ``(y * scale[0] + offset[0], x * scale[1] + offset[1])``. What :meth:`restore` returns
        stays the truth of the original.

        Where the picture shows nothing of the image (bars, the rest of a canvas), the target says nothing: no boxes,
        pixels of masks that are ignored.

        Args:
            scale: Vertical and horizontal factor.
            offset: Vertical and horizontal shift in pixels.
            size: Height and width of the picture that comes out.
        """
        ...

    def join(self, others: Sequence[Self]) -> Self:
        """Return the target of a picture that images were pasted into side by side; it has no original any more.

        Each image was placed on its own part of the picture and says nothing elsewhere: boxes are put into one list,
        and of masks each pixel comes from the one that says something there.

        Args:
            others: The targets of the other images, placed in the same picture.
        """
        ...

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what albumentations changes together with the image.

        ``bboxes``, float32 [N, 4] xyxy in pixels, with ``box_index``, int64 [N], to find the rest by; ``masks``, uint8
        [N, H, W], those of the N objects, left out where there are none; and ``mask``, uint8 or int32 [H, W].
        """
        ...

    def with_arrays(self, arrays: Mapping[str, NDArray[Any]], size: tuple[int, int]) -> Self:
        """Return the target of a training image that was changed at random; it has no original any more.

        Args:
            arrays: What :meth:`arrays` returned, changed; ``bboxes`` may have become fewer.
            size: Height and width of the changed image.
        """
        ...


def is_spatial(target: Any) -> TypeIs[SpatialTarget]:
    """Return whether a target lies in pixels; ``isinstance`` takes fifty times as long, which each image would pay."""
    kind: Any = type(target)
    return _is_spatial_kind(kind)


@cache
def _is_spatial_kind(kind: Any) -> bool:
    return issubclass(kind, SpatialTarget)


T = TypeVar("T", bound=Target)


@dataclass(frozen=True)
class Sample(Generic[T]):
    """One image, uint8 [C, H, W] (RGB for C = 3), its target and its info.

    ``reduced`` is 1, or 2, 4 or 8 where the image was decoded at that part of its size, edges rounded up: target and
    info then speak of the whole original, ``info.size``. Preprocessing takes account of it; after it, it is 1.
    """

    image: Tensor
    target: T
    info: ImageInfo
    reduced: int = 1

    def replace(self, **changes: Any) -> Sample[T]:
        """Return a copy with some fields changed."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Batch(Generic[T]):
    """Images of one size, uint8 [B, C, H, W] in channels_last memory order, their targets and infos.

    ``features`` are what a frozen backbone makes of them, where a cache brings that: float [B, C_l, H_l, W_l] a level.
    The images then are empty, [B, C, 0, 0].
    """

    images: Tensor
    targets: list[T]
    infos: list[ImageInfo]
    features: list[Tensor] | None = None

    def __len__(self) -> int:
        """Return the number of images, B."""
        return len(self.infos)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch[T]:
        """Return the batch with its tensors on ``device``; the images stay uint8.

        From page-locked memory it does not wait for the copy: a GPU goes on computing meanwhile.
        """
        non_blocking = non_blocking or self.images.is_pinned()
        images = self.images.to(device, non_blocking=non_blocking)
        targets = [t.to(device, non_blocking=non_blocking) for t in self.targets]
        features = self.features and [f.to(device, non_blocking=non_blocking) for f in self.features]
        return Batch(images, targets, self.infos, features)

    def pin_memory(self) -> Batch[T]:
        """Return the batch with its images in page-locked memory, for a faster copy to a GPU."""
        features = self.features and [f.pin_memory() for f in self.features]
        return Batch(self.images.pin_memory(), self.targets, self.infos, features)


def collate(samples: Sequence[Sample[T]]) -> Batch[T]:
    """Put samples of one image size into a batch.

    Raises:
        DataError: The images differ in size or channels.
    """
    shape = samples[0].image.shape
    for s in samples:
        if s.image.shape != shape:
            raise DataError(
                f"{s.info.id}: image of shape {tuple(s.image.shape)} in a batch of {tuple(shape)}; "
                "a preprocessing with a fixed size brings all images to one shape"
            )
    channels, height, width = shape
    pixels = batch_memory(len(samples), height, width, channels)
    for row, s in zip(pixels, samples, strict=True):
        row.copy_(s.image.permute(1, 2, 0))
    return Batch(pixels.permute(0, 3, 1, 2), [s.target for s in samples], [s.info for s in samples])


class Loaded(NamedTuple, Generic[T]):
    """A sample on its way into a batch, its image an array."""

    pixels: NDArray[np.uint8]
    """uint8 [H, W, C]; where it cannot be written it is memory of all processes."""
    target: T
    info: ImageInfo

    @classmethod
    def of(cls, sample: Sample[T]) -> Loaded[T]:
        """Return a sample as an array that shares its memory where that is in order."""
        return cls(np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy()), sample.target, sample.info)

    def sample(self) -> Sample[T]:
        """Return it as a sample with memory that may be changed."""
        pixels = self.pixels if self.pixels.flags.writeable else self.pixels.copy()
        return Sample(torch.from_numpy(pixels).permute(2, 0, 1), self.target, self.info)


K = TypeVar("K")


def assemble(
    make: Callable[[K, NDArray[np.uint8]], Loaded[T]], keys: Sequence[K], size: tuple[int, int], channels: int
) -> Batch[T]:
    """Return a batch whose pixels are made where they belong, without a further copy where that is possible.

    Args:
        make: Makes the sample of a key, and may put its pixels into the array, uint8 [H, W, C], that it is given.
        keys: What to make.
        size: Height and width of the pictures.
        channels: Their channels, C.

    Raises:
        DataError: The images differ in size or channels.
    """
    pixels = batch_memory(len(keys), *size, channels)
    made: list[Loaded[T]] = []
    for key, row in zip(keys, pixels.numpy(), strict=True):
        one = make(key, row)
        if one.pixels is not row and one.pixels.shape == row.shape:
            np.copyto(row, one.pixels)
            one = Loaded(row, one.target, one.info)
        made.append(one)
    if any(one.pixels.shape != (*size, channels) for one in made):
        return collate([one.sample() for one in made])
    return Batch(pixels.permute(0, 3, 1, 2), [one.target for one in made], [one.info for one in made])


def batch_memory(count: int, height: int, width: int, channels: int) -> Tensor:
    """Return room for the pixels of a batch, uint8 [B, H, W, C]; in a loader's worker memory that it shares."""
    shape = (count, height, width, channels)
    if get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    storage = torch.UntypedStorage._new_shared(count * height * width * channels)
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(shape)
