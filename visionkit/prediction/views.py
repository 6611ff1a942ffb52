"""Several views of one picture: windows, sizes and mirror images, to predict it at any size and more surely."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from visionkit.core.errors import UsageError
from visionkit.core.prediction import Region
from visionkit.core.sample import Sample
from visionkit.data.images.decode import Scale
from visionkit.data.transforms.preprocessing import Preprocessing

__all__ = ["Views"]

SIZE_STEP = 32  # a size that is scaled is a multiple of it: the coarsest feature maps fit
MIN_WINDOW = 16


@dataclass(frozen=True)
class Views:
    """What the network sees of one picture: each window of it, in each size, as it is and mirrored.

    Sizes and mirror images are averaged (He et al., "Deep Residual Learning", 2016); windows that overlap make pictures
    of any size possible without shrinking them (Ronneberger et al., "U-Net", 2015, the overlap-tile strategy). What the
    views say is put together by ``Prediction.merge``. Objects that windows cut become whole where windows overlap by
    a few pixels at least; objects are best smaller than the overlap, so that a window sees each as a whole.

    Args:
        flip: Whether each view is seen mirrored, too.
        scales: Factors of the model's size, above 0 and at most 8. Any but 1 are rounded to multiples of 32 pixels, at
            least 32; those that come out at the same size count once.
        window: Edge of the square, or (height, width), that is brought to the model's size at a time, in pixels of the
            picture, at least 16; None takes the whole picture. Where the picture is smaller, so is the window.
        overlap: Share of a window that the next one repeats, 0..0.9. The last window of a row or column is moved
            inwards to lie within the picture, and repeats more.

    Raises:
        UsageError: A value is out of range.
    """

    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    window: int | tuple[int, int] | None = None
    overlap: float = 0.25

    def __post_init__(self) -> None:
        """Check the values."""
        scales = self.scales
        if not (isinstance(scales, Sequence) and len(scales) and all(_is_number(s) and 0 < s <= 8 for s in scales)):
            raise UsageError(f"scales={scales!r}: factors of the model's size, above 0 and at most 8, at least one")
        edges = _edges(self.window)
        if edges is not None and not (len(edges) == 2 and all(_is_whole(e) and e >= MIN_WINDOW for e in edges)):
            raise UsageError(
                f"window={self.window!r}: a number of pixels from {MIN_WINDOW} on, or two as (height, width)"
            )
        if not (_is_number(self.overlap) and 0 <= self.overlap <= 0.9):
            raise UsageError(f"overlap={self.overlap!r}: a share of a window, 0..0.9")

    def __call__(self, sample: Sample[Any], preprocessing: Preprocessing) -> Iterator[tuple[Sample[Any], Region]]:
        """Yield each view at the size that the network sees, with the part of the picture that it shows.

        They are made one by one, as they are asked for.

        Args:
            sample: A picture as read, without a target.
            preprocessing: The model's.

        Yields:
            The view, whose info restores a prediction to pixels of the picture, and its region. The regions of all
            views cover the picture.
        """
        sizes = self.preprocessings(preprocessing)
        for region in self.regions((sample.image.shape[1], sample.image.shape[2])):
            top, left, bottom, right = region
            part = sample.replace(
                image=sample.image[:, top:bottom, left:right],
                info=replace(sample.info, offset=(sample.info.offset[0] - top, sample.info.offset[1] - left)),
            )
            for prepare in sizes:
                view = prepare(part)
                yield view, region
                if self.flip:
                    yield _mirrored(view), region

    @property
    def several(self) -> bool:
        """Whether a picture can have more than one view, whose predictions must be put together."""
        return self.flip or self.window is not None or len(set(self.scales)) > 1

    def scale(self, preprocessing: Preprocessing) -> Scale | None:
        """Return by how much a picture is resized for its only view, so that it can be decoded at a part of its size.

        None where there are several views: they are made from all pixels.

        Args:
            preprocessing: The model's.
        """
        return None if self.several else self.preprocessings(preprocessing)[0].scale

    def regions(self, size: tuple[int, int]) -> list[Region]:
        """Return the windows of a picture, row by row.

        Args:
            size: Height and width of the picture.
        """
        height, width = _edges(self.window) or size
        rows, columns = self._spans(size[0], height), self._spans(size[1], width)
        return [(top, left, bottom, right) for top, bottom in rows for left, right in columns]

    def preprocessings(self, preprocessing: Preprocessing) -> list[Preprocessing]:
        """Return what brings a window to each size: the model's preprocessing, at other sizes.

        Args:
            preprocessing: The model's.
        """
        sizes = dict.fromkeys(
            tuple(edge if scale == 1 else _multiple(edge * scale) for edge in preprocessing.size)
            for scale in self.scales
        )
        return [
            preprocessing
            if (height, width) == preprocessing.size
            else Preprocessing(
                (height, width),
                resize=preprocessing.resize,
                denoise=preprocessing.denoise,
                denoise_strength=preprocessing.denoise_strength,
                channels=preprocessing.channels,
            )
            for height, width in sizes
        ]

    def _spans(self, edge: int, window: int) -> list[tuple[int, int]]:
        """Return start and end of each window along one axis."""
        if window >= edge:
            return [(0, edge)]
        step = max(1, round(window * (1 - self.overlap)))
        starts = [*range(0, edge - window, step), edge - window]
        return [(start, start + window) for start in starts]


def _mirrored(view: Sample[Any]) -> Sample[Any]:
    """Return what the network sees with left and right exchanged: x becomes width - x."""
    info = view.info
    return view.replace(
        image=view.image.flip(2),
        info=replace(
            info,
            scale=(info.scale[0], -info.scale[1]),
            offset=(info.offset[0], view.image.shape[2] - info.offset[1]),
        ),
    )


def _multiple(edge: float) -> int:
    return max(SIZE_STEP, math.floor(edge / SIZE_STEP + 0.5) * SIZE_STEP)


def _edges(window: Any) -> tuple[int, ...] | None:
    """Return height and width of a window as asked for, not checked yet."""
    if window is None:
        return None
    return tuple(window) if isinstance(window, Sequence) and not isinstance(window, str) else (window, window)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
