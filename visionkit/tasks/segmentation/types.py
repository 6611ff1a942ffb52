"""The truth and the prediction of segmentation: a class for each pixel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visionkit.core.errors import DataError, UsageError
from visionkit.core.joining import Joining
from visionkit.core.prediction import Agreement, Prediction, Region, ids_of, reading_record, recorded
from visionkit.core.sample import ImageInfo
from visionkit.core.tally import Tally
from visionkit.data.labels.masks import IGNORE, place_mask
from visionkit.tasks.segmentation.sampling import MIN_VIEW_WEIGHT, View, common, sample, taper

__all__ = ["MAX_CLASSES", "MaskPrediction", "MaskTarget", "View"]

MAX_CLASSES = 255
CHUNK_VALUES = 2**22  # values of all classes that are computed at a time
SURE_LOGIT = 100  # of a class that is read, beside 0 of all others


@dataclass(frozen=True)
class MaskTarget:
    """The class of each pixel of an image.

    Args:
        mask: uint8 [H, W], class ids 0..K-1 and 255 for pixels that say nothing.
        weights: float32 [K], what a pixel of each class counts in the loss, or None for 1 each.
        original: The same truth in the original image, or None when this is it, or when there is none any more.

    Raises:
        DataError: The mask has another shape or type.
    """

    mask: Tensor
    weights: Tensor | None = None
    original: Self | None = None

    def __post_init__(self) -> None:
        """Check shape and type."""
        if self.mask.ndim != 2 or self.mask.dtype != torch.uint8:
            raise DataError(f"a mask is uint8 [H, W], not {self.mask.dtype} {list(self.mask.shape)}")

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Return the target with its tensors on ``device``; those of the original stay where they are."""
        weights = None if self.weights is None else self.weights.to(device, non_blocking=non_blocking)
        return replace(self, mask=self.mask.to(device, non_blocking=non_blocking), weights=weights)

    def restore(self, info: ImageInfo) -> Self:
        """Return the truth in pixels of the original image."""
        return self if self.original is None else self.original

    def draw(self, image: Tensor, names: Sequence[str]) -> Tensor:
        """Lay the classes, with the names of the larger regions, over a copy of the image, uint8 [3, H, W]."""
        from visionkit.prediction.draw import draw_classes

        return draw_classes(image, self.mask, names)

    def place(self, scale: tuple[float, float], offset: tuple[int, int], size: tuple[int, int]) -> Self:
        """Return the mask after its image was resized, shifted and cut or padded; what shows nothing is ignored."""
        placed = place_mask(self.mask.cpu().numpy(), scale, offset, size, fill=IGNORE)
        original = self if self.original is None else self.original
        return replace(self, mask=torch.from_numpy(placed).to(self.mask.device), original=original)

    def join(self, others: Sequence[Self]) -> Self:
        """Return the mask of a picture that images were pasted into; the originals are gone."""
        whole = self.mask
        for other in others:
            whole = torch.minimum(whole, other.mask)  # 255 where it says nothing
        return replace(self, mask=whole, original=None)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the mask for albumentations, one higher: 0, which it fills gaps with, says nothing."""
        return {"mask": self.mask.numpy() + np.uint8(1)}

    def with_arrays(self, arrays: Mapping[str, NDArray[Any]], size: tuple[int, int]) -> Self:
        """Return the mask after a random change; the original is gone."""
        changed = np.ascontiguousarray(arrays["mask"], np.uint8) - np.uint8(1)
        return replace(self, mask=torch.from_numpy(changed), original=None)


@dataclass(frozen=True)
class Said:
    """What one of several models says of an image.

    Args:
        prediction: The model's own.
        ids: Of each of its classes, the id among those of all.
        share: float32 [K], what the model counts for each of the K classes of all; 0 for those that it does not know.
    """

    prediction: MaskPrediction
    ids: tuple[int, ...]
    share: Tensor


@dataclass(frozen=True)
class MaskPrediction(Prediction):
    """What a segmenter says of an image. Pixels are computed when they are asked for.

    Args:
        views: One, or several that are averaged where they overlap.
        size: Height and width of the image.
        kept: Rows of the views' scores, or ids of all classes where several models speak, that it speaks of, in order;
            None for all.
        models: What several models say, whose weighted mean it is; empty for one model. The views then are those of
            all of them.
    """

    views: tuple[View, ...]
    size: tuple[int, int]
    kept: tuple[int, ...] | None = None
    models: tuple[Said, ...] = ()

    @classmethod
    def of(cls, scores: Tensor, stride: int) -> Self:
        """Make the prediction of what the network saw.

        Args:
            scores: Float [K, h, w], logits of cells of ``stride`` pixels.
            stride: Side of a cell.
        """
        return cls((View(scores, stride),), (scores.shape[1] * stride, scores.shape[2] * stride))

    @classmethod
    def merge(cls, parts: Sequence[Self], regions: Sequence[Region]) -> Self:
        """Return the prediction of an image from those of several views: mean probabilities where they overlap.

        Args:
            parts: Each restored to the image.
            regions: The pixels of the image that each speaks of.

        Raises:
            UsageError: They speak of different classes, or are of several models already.
        """
        if any(p.models for p in parts):
            raise UsageError("merge the views of each model, then combine the models")
        pairs = zip(parts, regions, strict=True)
        views = [replace(v, region=common(v.region, region)) for p, region in pairs for v in p.views]
        if len({p.kept for p in parts}) > 1:
            raise UsageError("predictions that were restricted to different classes cannot be put together")
        return cls(tuple(views), parts[0].size, parts[0].kept)

    @classmethod
    def combine(cls, parts: Sequence[Self], joining: Joining) -> Self:
        """Return the weighted mean of the models' probabilities, that of each class over the models that know it.

        Where models know different classes, the means of a pixel are brought to a sum of 1 again.

        Args:
            parts: That of each model, restored to the image.
            joining: The classes and weights of the models.

        Raises:
            UsageError: One is restricted to some classes, or there are more than 255 in all.
        """
        if any(p.kept is not None for p in parts):
            raise UsageError("predictions that were restricted to some classes cannot be put together")
        if len(joining.classes) > MAX_CLASSES:
            raise UsageError(f"the models know {len(joining.classes)} classes together; a mask holds {MAX_CLASSES}")
        if len(parts) == 1 and joining.ids[0] == tuple(range(len(joining.classes))):
            return parts[0]
        said = map(Said, parts, joining.ids, joining.shares)
        return cls(tuple(v for p in parts for v in p.views), parts[0].size, None, tuple(said))

    @classmethod
    def from_record(cls, record: Mapping[str, Any], names: Sequence[str]) -> Self:
        """Return the prediction of a record and the class ids of its pixels, as certain as can be.

        Records hold counts, not pixels: these lie in ``masks/`` beside them. Read the picture there and put it into the
        record as ``"mask"``.

        Args:
            record: What ``record`` returned, with ``"mask"``: class ids, uint8 [H, W], an array or tensor.
            names: Class names, in the order of their ids.

        Raises:
            DataError: The mask is missing, is of another size or holds another class.
        """
        size = (recorded(record, "height"), recorded(record, "width"))
        if record.get("mask") is None:
            raise DataError("record: holds no pixels; read its picture in masks/ and put the class ids in as 'mask'")
        with reading_record():
            mask = torch.as_tensor(record["mask"])
            if tuple(mask.shape) != size or not mask.numel() or mask.is_floating_point():
                raise ValueError(f"the mask is {list(mask.shape)} of {mask.dtype}, not whole numbers {list(size)}")
            if not 0 <= int(mask.min()) <= int(mask.max()) < len(names):
                raise ValueError(f"the mask has ids {int(mask.min())}..{int(mask.max())}, of {len(names)} classes")
        sure = torch.zeros((len(names), *size), dtype=torch.uint8)  # logits
        return cls.of(sure.scatter_(0, mask.long()[None], SURE_LOGIT), 1)

    def select_classes(self, names: Sequence[str], kept: Sequence[str]) -> Self:
        """Return the prediction of some classes alone: each pixel takes the most probable one of them.

        Args:
            names: Class names, in the order of the ids of this prediction.
            kept: Those to keep, in the order of the ids that come out.

        Raises:
            UsageError: A class is not among ``names`` or stands there twice.
        """
        ids = ids_of(names, kept)
        return replace(self, kept=tuple(ids if self.kept is None else [self.kept[k] for k in ids]))

    def restore(self, info: ImageInfo) -> Self:
        """Return the prediction in pixels of the original image."""
        moved = tuple(
            replace(
                v,
                scale=(v.scale[0] * info.scale[0], v.scale[1] * info.scale[1]),
                offset=(
                    v.scale[0] * info.offset[0] + v.offset[0],
                    v.scale[1] * info.offset[1] + v.offset[1],
                ),
            )
            for v in self.views
        )
        models = tuple(replace(m, prediction=m.prediction.restore(info)) for m in self.models)
        return replace(self, views=moved, size=info.size, models=models)

    @cached_property
    def labels(self) -> Tensor:
        """Class id of each pixel, uint8 [H, W]."""
        parts = [s.max(0).indices.to(torch.uint8) for s in self._scores()]  # several times as fast as argmax
        return torch.cat(parts)

    def probabilities(self) -> Tensor:
        """Return the probability of each class at each pixel, float32 [K, H, W]; large."""
        parts = torch.cat([s if self._averaged else s.softmax(0) for s in self._scores()], 1)
        if not self._averaged or self.kept is None:
            return parts
        total = parts.sum(0)
        return torch.where(total > 0, parts / total, 1 / len(parts))

    def probabilities_of(self, pixels: Tensor) -> Tensor:
        """Return the probability of each class at some pixels, float32 [P, K].

        Args:
            pixels: int64 [P], their places, row by row, never falling.
        """
        found, done = [], 0
        for scores in self._scores():
            flat = scores.flatten(1)  # [K, pixels]
            own = pixels[(pixels >= done) & (pixels < done + flat.shape[1])] - done
            found.append(flat[:, own.to(flat.device)].T)
            done += flat.shape[1]
        some = torch.cat(found)
        if not self._averaged:
            return some.softmax(1)
        total = some.sum(1, keepdim=True)
        return torch.where(total > 0, some / total, 1 / some.shape[1])

    def draw(self, image: Tensor, names: Sequence[str]) -> Tensor:
        """Lay the classes, with the names of the larger regions, over a copy of the image, uint8 [3, H, W]."""
        from visionkit.prediction.draw import draw_classes

        return draw_classes(image, self.labels, names)

    def record(self, names: Sequence[str]) -> dict[str, Any]:
        """Return width, height and, by class name, the pixels and the share of the image of each class that occurs."""
        counts = torch.bincount(self.labels.flatten(), minlength=len(names)).tolist()
        shown = {name: n for name, n in zip(names, counts, strict=True) if n}
        total = self.size[0] * self.size[1]
        shares = {name: round(n / total, 6) for name, n in shown.items()}
        return {"width": self.size[1], "height": self.size[0], "pixels": shown, "shares": shares}

    @classmethod
    def tally(cls, record: Mapping[str, Any], min_score: float | None = None) -> dict[str, Tally]:
        """Return the pixels of a record by class, said as shares of the area."""
        return {"area": Tally.told(record["pixels"], shares=True)}

    def agreement(self, other: Self) -> Agreement:
        """Return how many pixels have the same class."""
        same = float((self.labels == other.labels).sum())
        return Agreement("of the pixels keep their class", same, float(self.labels.numel()))

    def _scores(self) -> Iterator[Tensor]:
        """Yield scores, float32 [K, rows, W], rows by rows: logits of one view, mean probabilities of several."""
        height, width = self.size
        step = max(1, CHUNK_VALUES // (width * max(len(view.scores) for view in self.views)))
        for top in range(0, height, step):
            rows = range(top, min(top + step, height))
            scores = self._chances(rows) if self._averaged else sample(self.views[0], rows, range(width))
            yield scores if self.kept is None else scores[list(self.kept)]

    @property
    def _averaged(self) -> bool:
        """Whether scores are mean probabilities, not logits."""
        return len(self.views) > 1 or bool(self.models)

    def _chances(self, rows: range) -> Tensor:
        """Return the probabilities of all classes at some rows, float32 [K, rows, W]."""
        if not self.models:
            several = len(self.views) > 1
            return self._mean(rows) if several else sample(self.views[0], rows, range(self.size[1])).softmax(0)
        first = self.views[0].scores
        total = first.new_zeros((len(self.models[0].share), len(rows), self.size[1]), dtype=torch.float32)
        for model in self.models:
            place = torch.tensor(model.ids, device=first.device)
            chances = model.prediction._chances(rows)
            total.index_add_(0, place, chances * model.share.to(first.device)[place][:, None, None])
        if all(len(model.ids) == len(total) for model in self.models):
            return total
        return total / total.sum(0).clamp(min=MIN_VIEW_WEIGHT**2)

    def _mean(self, rows: range) -> Tensor:
        height, width = self.size
        first = self.views[0].scores
        total = first.new_zeros((len(first), len(rows), width), dtype=torch.float32)
        weight = first.new_zeros((len(rows), width), dtype=torch.float32)
        for view in self.views:
            top, left, bottom, right = view.region or (0, 0, height, width)
            seen, columns = range(max(top, rows.start), min(bottom, rows.stop)), range(left, right)
            if not seen or not columns:
                continue
            share = taper(seen, (top, bottom), height)[:, None] * taper(columns, (left, right), width)
            share = share.to(first.device)
            here = slice(seen.start - rows.start, seen.stop - rows.start), slice(left, right)
            total[:, *here] += sample(view, seen, columns).softmax(0) * share
            weight[here] += share
        return total / weight.clamp(min=MIN_VIEW_WEIGHT**2 / 2)
