"""The metric of classification: accuracy, F1, calibration, and average precision for several labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visionkit.core.errors import DataError, UsageError
from visionkit.tasks.classification.types import ClassPrediction, ClassTarget
from visionkit.training.plots import write_confusion_matrix
from visionkit.training.redraw import Counted, ImageCounts, RedrawnMetric, taken

__all__ = ["ClassificationMetric", "average_precision"]

Array = NDArray[Any]

FIXED_POINT = 2**30
"""Confidences are summed as whole numbers of this fraction: the sum is the same in any order and on any processes."""
LARGE_TABLE = 40_000
"""Cells of a table of all pairs of classes, from which on a bootstrap does without it."""
MAX_BINS = 100_000
"""Number of bins that a file may ask for."""


class _Part(NamedTuple):
    """What B images bring."""

    probabilities: Tensor
    """float32: of the predicted class, [B]; with several labels of each class, [B, K]."""
    answers: Tensor
    """int64 [B], cell of the confusion matrix; with several labels uint8 [B, K], 1 if true, + 2 if predicted."""
    top5: Tensor
    """bool [B], whether the true class is among the five best; empty where that is not asked."""


class _Ready(NamedTuple):
    """What values are computed from."""

    counts: ImageCounts
    """Confusions and hits among the best five, or hits, false and missed ones of several labels by class; then bins."""
    rankings: list[_Ranking]
    """With several labels: all images ranked by each class."""


class ClassificationMetric(RedrawnMetric[_Part, _Ready]):
    """Compares class probabilities with the truth over a whole data set.

    One label: "top1"; "top5" with more than 5 classes; "macro_f1" over the classes that occur in truth or predictions;
    "ece"; "accuracy/<class>" (recall) of each class that occurs in the truth; "confusion_matrix", int64 [K, K] counts,
    rows truth, columns prediction.

    Several labels: "map", the mean average precision over the classes that occur in the truth; "micro_f1" and
    "macro_f1" at the predictions' threshold, 0.5 by default, the latter over the classes that occur in truth or
    predictions; "ece" over all yes/no answers; "ap/<class>" of each class that occurs in the truth.

    The calibration error is Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3. Without any
    image ``compute`` returns an empty dict. Probabilities that are not finite are no answer, and so never right.

    Args:
        classes: Class names, in the order of their ids.
        multilabel: Whether several classes can be present at once.
        bins: Number of equally wide bins of the calibration error, from 1 on.
    """

    settings: ClassVar[tuple[str, ...]] = ("bins",)

    def __init__(self, classes: Sequence[str], *, multilabel: bool = False, bins: int = 15) -> None:
        super().__init__(classes)
        if bins < 1:
            raise UsageError(f"bins={bins}: a whole number from 1 on")
        self.multilabel = multilabel
        self.monitor = "map" if multilabel else "top1"
        self.bins = bins

    def update(self, predictions: Sequence[ClassPrediction], targets: Sequence[ClassTarget]) -> None:
        """Add the predictions and targets of a batch, both of length B.

        Raises:
            UsageError: The number of predictions, targets or classes does not fit.
        """
        if len(predictions) != len(targets):
            raise UsageError(f"{len(predictions)} predictions for {len(targets)} targets")
        if not predictions:
            return
        probabilities = torch.stack([p.probabilities for p in predictions]).detach().to(self.device, torch.float32)
        scores = torch.stack([t.scores for t in targets]).to(self.device)  # [B, K] each
        shape = (len(targets), len(self.classes))
        if probabilities.shape != shape or scores.shape != shape:
            raise UsageError(
                f"the metric has {shape[1]} classes, the predictions have {probabilities.shape[1]}, "
                f"the targets {scores.shape[1]}"
            )
        answered = probabilities.isfinite().all(1)  # [B]; what is no number is no answer, and never right
        probabilities = probabilities.where(answered[:, None], -torch.inf)
        top5 = torch.zeros(0, dtype=torch.bool, device=self.device)
        if self.multilabel:
            present = torch.stack([p.present() for p in predictions]).to(self.device) & answered[:, None]  # [B, K]
            answers = (scores > 0.5).to(torch.uint8) + 2 * present.to(torch.uint8)
            self.keep(len(targets), _Part(probabilities, answers, top5))
            return
        truth = scores.argmax(1)
        confidence, predicted = probabilities.max(1)  # [B] each
        predicted = predicted.where(answered, (truth + 1) % len(self.classes))
        if len(self.classes) > 5:
            top5 = (probabilities.topk(5).indices == truth[:, None]).any(1) & answered
        self.keep(len(targets), _Part(confidence, truth * len(self.classes) + predicted, top5))

    def join(self, parts: Sequence[_Part]) -> _Part:
        """Return what all images bring, one after another."""
        return _Part(*(torch.cat(values).cpu() for values in zip(*parts, strict=True)))

    def prepare(self, part: _Part, order: Array) -> _Ready:
        """Return what each image adds to counts and bins and, with several labels, the rankings."""
        probabilities, answers, top5 = (v[order] if len(v) else v for v in part)
        if not self.multilabel:
            k = len(self.classes)
            image = torch.arange(len(order))
            best = top5.nonzero().flatten()
            counts = [(image, answers, None), (best, torch.full_like(best, k * k), None)]
            right = answers % k == answers // k
            return _Ready(self._counted([*counts, *self._binned(image, probabilities, right)]), [])
        truth = (answers & 1).bool()
        counts = []
        for row, answer in enumerate((3, 2, 1)):
            image, cell = (answers == answer).nonzero(as_tuple=True)
            counts.append((image, cell + row * len(self.classes), None))
        image = torch.arange(len(order)).repeat_interleave(len(self.classes))
        binned = self._binned(image, probabilities.flatten(), truth.flatten())
        return _Ready(self._counted([*counts, *binned]), _rankings(probabilities, truth))

    def pack(self, part: _Part) -> dict[str, Array]:
        """Return a part as plain arrays, and the number of bins."""
        return {"bins": np.array(self.bins), **{name: v.numpy() for name, v in part._asdict().items()}}

    def unpack(self, arrays: Mapping[str, Array], images: int) -> _Part:
        """Return the part of so many images that :meth:`pack` told, and take over the number of bins.

        Raises:
            DataError: These are no such arrays, or they do not fit the classes.
        """
        k = len(self.classes)
        bins = int(taken(arrays, "bins", (), "iu", below=MAX_BINS))
        shape = (images, k) if self.multilabel else (images,)
        probabilities = taken(arrays, "probabilities", shape, "f")
        answers = taken(arrays, "answers", shape, "iu", below=4 if self.multilabel else k * k)
        top5 = taken(arrays, "top5", (images if k > 5 and not self.multilabel else 0,), "b")
        if not bins or np.isnan(probabilities).any() or (probabilities > 1.01).any():
            raise DataError("the arrays 'bins' or 'probabilities' hold what is none")
        self.bins = bins
        kind = np.uint8 if self.multilabel else np.int64
        arrays_of_part = (probabilities.astype(np.float32), answers.astype(kind), top5)
        return _Part(*(torch.from_numpy(np.ascontiguousarray(v)) for v in arrays_of_part))

    def values(self, ready: _Ready, weight: Array) -> dict[str, Tensor]:
        """Return the values when each image counts as often as its weight says."""
        first = self._first_bin
        total = ready.counts.total(weight, first + 3 * self.bins)
        sizes, hits, confidence = total[first:].view(3, self.bins)
        ece = _ece(sizes, hits, confidence)
        if self.multilabel:
            scalars = self._values_of_several(total[:first].view(3, -1), ece, ready.rankings, weight)
            return self._on_device(scalars)
        k = len(self.classes)
        confusion = total[: k * k].view(k, k)
        scalars = self._values_of_one(confusion.diag(), confusion.sum(1), confusion.sum(0), total[k * k], ece)
        return {**self._on_device(scalars), "confusion_matrix": confusion.to(self.device)}

    def drawer(self, ready: _Ready) -> Callable[[Array], dict[str, float]]:
        """Return what gives the numbers for weights of the images; of many classes without a table of all pairs."""
        k = len(self.classes)
        if self.multilabel or k * k < LARGE_TABLE:
            return super().drawer(ready)
        image, cell, number = ready.counts
        pair = cell < k * k
        truth, said, right = cell // k, cell % k, pair & (cell // k == cell % k)
        parts = [(right, truth), (pair, k + truth), (pair, 2 * k + said), (~pair, cell - k * k + 3 * k)]
        counts = self._counted([(image[which], cells[which], number[which]) for which, cells in parts])
        first = 3 * k + 1

        def draw(weight: Array) -> dict[str, float]:
            total = counts.total(weight, first + 3 * self.bins)
            hits, truths, predicted = total[: 3 * k].view(3, k)
            scalars = self._values_of_one(
                hits, truths, predicted, total[3 * k], _ece(*total[first:].view(3, self.bins))
            )
            return dict(zip(scalars, torch.stack(list(scalars.values())).tolist(), strict=True))

        return draw

    def count(self, ready: _Ready, images: int) -> Iterator[tuple[str, Counted]]:
        """Yield "top1", "top5" and "accuracy/<class>", shares of pictures; with several labels "ap/<class>"."""
        k, cell, image = len(self.classes), ready.counts.cell.numpy(), ready.counts.image.numpy()
        if self.multilabel:
            for c, name in enumerate(self.classes):
                there = (cell == c) | (cell == 2 * k + c)  # found, or missed
                yield f"ap/{name}", Counted(_once(image[there], images), None, "pictures of the class")
            return
        answer = np.zeros(images, np.int64)
        answer[image[cell < k * k]] = cell[cell < k * k]
        right = answer % k == answer // k
        yield "top1", Counted(np.ones(images, np.int64), right.astype(np.int64), "images")
        if k > 5:
            yield "top5", Counted(np.ones(images, np.int64), _once(image[cell == k * k], images), "images")
        for c, name in enumerate(self.classes):
            of = answer // k == c
            hits = (of & right).astype(np.int64)
            yield f"accuracy/{name}", Counted(of.astype(np.int64), hits, "pictures of the class")

    def find_faults(self, ready: _Ready, images: int) -> Array:
        """Return 1 for each image of which the class is wrong; with several labels how many of them are."""
        k, cell = len(self.classes), ready.counts.cell
        wrong = (cell >= k) & (cell < 3 * k) if self.multilabel else (cell < k * k) & (cell % k != cell // k)
        return ready.counts.by_image(wrong, images).astype(np.float64)

    def plot(self, values: dict[str, Tensor], folder: Path, prefix: str) -> list[Path]:
        """Write the confusion matrix as .png and .csv, or with several labels the average precisions as .png."""
        from visionkit.tasks.classification.plots import write_average_precision

        if "confusion_matrix" in values:
            counts = values["confusion_matrix"]
            images = int(counts.sum())
            title = f"{images} images, {int(counts.diag().sum()) / max(images, 1):.1%} right"
            return write_confusion_matrix(counts, self.classes, folder, prefix, title=title)
        if "map" in values:
            precisions = {n: float(values[f"ap/{n}"]) for n in self.classes if f"ap/{n}" in values}
            return write_average_precision(precisions, folder, prefix)
        return []

    def _values_of_one(
        self, hits: Tensor, truths: Tensor, predicted: Tensor, top5_hits: Tensor, ece: Tensor
    ) -> dict[str, Tensor]:
        """Return the values of right answers, true ones and given ones of each class, int64 [K] each."""
        total = truths.sum()
        values = {"top1": hits.sum() / total}
        if len(self.classes) > 5:
            values["top5"] = top5_hits / total
        values["macro_f1"] = _f1(hits, predicted - hits, truths - hits)
        values["ece"] = ece
        recalls = (hits / truths.clamp_min(1)).unbind()
        for name, recall, count in zip(self.classes, recalls, truths.tolist(), strict=True):
            if count:
                values[f"accuracy/{name}"] = recall
        return values

    def _values_of_several(
        self, counts: Tensor, ece: Tensor, rankings: Sequence[_Ranking], weight: Array
    ) -> dict[str, Tensor]:
        precisions = torch.cat([r.average_precision(torch.from_numpy(weight)) for r in rankings])
        present = ~precisions.isnan()
        values = {
            "map": precisions[present].mean() if present.any() else precisions.new_zeros(()),
            "micro_f1": _f1(*counts.sum(1, keepdim=True)),
            "macro_f1": _f1(*counts),
            "ece": ece,
        }
        for name, precision, is_present in zip(self.classes, precisions.unbind(), present.tolist(), strict=True):
            if is_present:
                values[f"ap/{name}"] = precision
        return values

    def _on_device(self, scalars: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return numbers on the metric's device, all in one copy."""
        return dict(zip(scalars, torch.stack(list(scalars.values())).to(self.device).unbind(), strict=True))

    # ---- what images add

    @property
    def _first_bin(self) -> int:
        """How many cells of the counts stand before the bins."""
        return 3 * len(self.classes) if self.multilabel else len(self.classes) ** 2 + 1

    def _binned(self, image: Tensor, confidence: Tensor, hits: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return images, cells and numbers of sizes, hits and confidences in bins (0, 1/bins], (1/bins, 2/bins], ...

        Args:
            image: int64 [N], position of the image.
            confidence: float32 [N].
            hits: bool [N], whether it came true.
        """
        confidence = confidence.clamp_min(0.0)  # of no answer it is -inf
        cell = self._first_bin + ((confidence * self.bins).ceil().long() - 1).clamp(0, self.bins - 1)
        numbers = (torch.ones_like(image), hits.long(), (confidence * FIXED_POINT).round().long())
        key = image * (self._first_bin + self.bins) + cell
        key, where = key.unique(return_inverse=True)  # several labels: one entry for all classes in a bin
        image, cell = key // (self._first_bin + self.bins), key % (self._first_bin + self.bins)
        summed = (torch.zeros_like(key).index_add_(0, where, n) for n in numbers)
        return [(image, cell + row * self.bins, n) for row, n in enumerate(summed)]

    @staticmethod
    def _counted(entries: Sequence[tuple[Tensor, Tensor, Tensor | None]]) -> ImageCounts:
        """Return images, cells and numbers in one."""
        parts = [ImageCounts.make(*entry) for entry in entries]
        return ImageCounts(*(torch.cat(values) for values in zip(*parts, strict=True)))


def average_precision(probabilities: Tensor, truth: Tensor) -> Tensor:
    """Return the average precision of each class, float32 [K] on the CPU.

    It is the sum over thresholds of precision times gain in recall. Equal probabilities share one threshold, as in
    scikit-learn. A class without positives gets nan.

    Args:
        probabilities: float32 [N, K].
        truth: bool [N, K].
    """
    weight = torch.ones(len(truth), dtype=torch.int64)
    return torch.cat([r.average_precision(weight) for r in _rankings(probabilities.cpu(), truth.cpu())])


def _rankings(probabilities: Tensor, truth: Tensor) -> list[_Ranking]:
    """Return the images ranked by each class, some classes at a time, to bound the memory."""
    step = max(1, 2_000_000 // len(truth))
    return [
        _Ranking.make(p, t) for p, t in zip(probabilities.split(step, dim=1), truth.split(step, dim=1), strict=True)
    ]


class _Ranking(NamedTuple):
    """Images by falling probability of each class.

    Args:
        order: int32 [N, K], positions of the images.
        hits: bool [N, K], whether they have the class.
        last: int32 [N, K], rank of the last image of equal probability.
        answered: bool [N, K], whether there is a probability; one of -inf is none, and never finds its class.
    """

    order: Tensor
    hits: Tensor
    last: Tensor
    answered: Tensor

    @classmethod
    def make(cls, probabilities: Tensor, truth: Tensor) -> _Ranking:
        n = len(truth)
        ranked, order = probabilities.sort(dim=0, descending=True)
        is_last = torch.ones_like(truth)
        is_last[:-1] = ranked[:-1] != ranked[1:]
        last = torch.where(is_last, torch.arange(n)[:, None], n).flip(0).cummin(0).values.flip(0)
        return cls(order.int(), truth.gather(0, order), last.int(), ranked > -torch.inf)

    def average_precision(self, weight: Tensor) -> Tensor:
        """Return that of each class, float32 [K], when image k counts ``weight[k]`` times; nan without positives."""
        counted = weight[self.order]  # [N, K]
        hits = self.hits * counted
        precision = (hits.cumsum(0) / counted.cumsum(0).clamp_min(1).double()).gather(0, self.last.long())
        return ((precision * hits * self.answered).sum(0) / hits.sum(0)).float()  # 0 / 0 is nan


def _once(image: Array, images: int) -> Array:
    """Return how often each image is named, int64 [images]."""
    return np.bincount(image, minlength=images)


def _ece(sizes: Tensor, hits: Tensor, confidence: Tensor) -> Tensor:
    """Return the calibration error of bins, int64 each; confidences in fractions of ``FIXED_POINT``."""
    return (hits * FIXED_POINT - confidence).abs().sum() / (sizes.sum() * FIXED_POINT)


def _f1(hits: Tensor, false: Tensor, missed: Tensor) -> Tensor:
    """Return the mean of 2 hits / (2 hits + false + missed) over the classes that occur at all; 0 if none does."""
    weight = 2 * hits + false + missed
    occurs = weight > 0
    return (2 * hits / weight.clamp_min(1)).sum() / occurs.sum().clamp_min(1)
