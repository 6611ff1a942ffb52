"""The truth and the prediction of several tasks: one of each task's, by the name of its head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visionkit.core.errors import UsageError
from visionkit.core.joining import Joining
from visionkit.core.prediction import Agreement, Prediction, Region, ids_of, recorded
from visionkit.core.sample import ImageInfo, SpatialTarget, Target, is_spatial

__all__ = ["MultiTaskPrediction", "MultiTaskTarget", "flat_classes", "names_of"]


def flat_classes(classes: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the classes of several heads in one list, as ``head/class``."""
    return tuple(f"{head}/{name}" for head, names in classes.items() for name in names)


def names_of(head: str, classes: Sequence[str]) -> tuple[str, ...]:
    """Return the classes of one head from the list of :func:`flat_classes`."""
    return tuple(name.removeprefix(f"{head}/") for name in classes if name.startswith(f"{head}/"))


@dataclass(frozen=True)
class MultiTaskTarget:
    """The truth about an image for the tasks that it is labelled for.

    Args:
        parts: The target of each such task, by the name of its head.
    """

    parts: Mapping[str, Target]

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Return the target with its tensors on ``device``."""
        return replace(self, parts={k: t.to(device, non_blocking=non_blocking) for k, t in self.parts.items()})

    def restore(self, info: ImageInfo) -> Self:
        """Return the truth in pixels of the original image."""
        return replace(self, parts={k: t.restore(info) for k, t in self.parts.items()})

    def draw(self, image: Tensor, names: Sequence[str]) -> Tensor:
        """Draw the truth for all tasks that the image is labelled for onto it, uint8 [3, H, W]; as predictions are.

        A target that defines no ``draw`` of its own is left out.
        """
        for head, part in self.parts.items():
            draw = getattr(part, "draw", None)
            if draw is not None:
                image = draw(image, [name for name in names if name.startswith(f"{head}/")])
        return image

    def place(self, scale: tuple[float, float], offset: tuple[int, int], size: tuple[int, int]) -> Self:
        """Return the target after its image was resized, shifted and cut or padded; see SpatialTarget."""
        placed = {k: t.place(scale, offset, size) if is_spatial(t) else t for k, t in self.parts.items()}
        return replace(self, parts=placed)

    def join(self, others: Sequence[Self]) -> Self:
        """Return the target of a picture that images were pasted into: for the tasks that all of them are labelled for.

        What does not lie in pixels, such as the class of an image, cannot be said of several and is left out.
        """
        joined: dict[str, Target] = {}
        for name, part in self.parts.items():
            more = [other.parts[name] for other in others if name in other.parts]
            if is_spatial(part):
                if len(more) == len(others):
                    joined[name] = part.join(more)  # type: ignore[arg-type]  # targets of one task are of one kind
            elif not others:
                joined[name] = part
        return replace(self, parts=joined)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what albumentations changes together with the image, that of all tasks put together.

        Only one ``mask`` can go along: those of further tasks are among the ``masks``.
        """
        joined: dict[str, NDArray[Any]] = {}
        boxes = 0
        for part in self._spatial().values():
            own = part.arrays()
            if "mask" in own and "mask" in joined:
                own["masks"] = own.pop("mask")[None]
            if "box_index" in own:
                own["box_index"] = own["box_index"] + boxes
            boxes += len(own.get("bboxes", ()))
            joined |= {k: np.concatenate([joined[k], v]) if k in joined else v for k, v in own.items()}
        return joined

    def with_arrays(self, arrays: Mapping[str, NDArray[Any]], size: tuple[int, int]) -> Self:
        """Return the target of a training image that was changed at random; it has no original any more."""
        changed = dict(self.parts)
        boxes = masks = 0
        mask = arrays.get("mask")
        for name, part in self._spatial().items():
            own = part.arrays()
            given: dict[str, NDArray[Any]] = {}
            if "bboxes" in own:
                index = np.asarray(arrays["box_index"]).reshape(-1)
                mine = (index >= boxes) & (index < boxes + len(own["bboxes"]))
                given["bboxes"] = np.asarray(arrays["bboxes"]).reshape(-1, 4)[mine]
                given["box_index"] = index[mine] - boxes
                boxes += len(own["bboxes"])
            if "masks" in own:
                given["masks"] = arrays["masks"][masks : masks + len(own["masks"])]
                masks += len(own["masks"])
            if "mask" in own and mask is not None:
                given["mask"], mask = mask, None
            elif "mask" in own:
                given["mask"] = arrays["masks"][masks]
                masks += 1
            changed[name] = part.with_arrays(given, size)
        return replace(self, parts=changed)

    def _spatial(self) -> dict[str, SpatialTarget]:
        return {k: t for k, t in self.parts.items() if is_spatial(t)}


@dataclass(frozen=True)
class MultiTaskPrediction(Prediction):
    """What each head says of an image. Class names of all heads are ``head/class``.

    Args:
        parts: The prediction of each head, by its name.
    """

    parts: Mapping[str, Prediction]

    def restore(self, info: ImageInfo) -> Self:
        """Return the prediction in pixels of the original image."""
        return self._each(lambda _, part: part.restore(info))

    def at_least(self, score: float) -> Self:
        """Return the prediction with the objects alone that have at least this score, 0..1."""
        return self._each(lambda _, part: part.at_least(score))

    def over(self, thresholds: Mapping[str, float | None], names: Sequence[str]) -> Self:
        """Return the prediction as each head's own thresholds leave it.

        Args:
            thresholds: ``head/class`` -> score, 0..1, or None.
            names: Class names of all heads, as ``head/class``.
        """

        def one(head: str, part: Any) -> Any:
            start = f"{head}/"
            own = {name.removeprefix(start): v for name, v in thresholds.items() if name.startswith(start)}
            return part.over(own, names_of(head, names)) if own else part

        return self._each(one)

    def agreement(self, other: Self) -> dict[str, Agreement | None]:
        """Return how far each head says the same, None for one whose predictions cannot be compared."""
        found: dict[str, Agreement | None] = {}
        for head, part in self.parts.items():
            one = part.agreement(other.parts[head])
            found |= {f"{head}/{k}": v for k, v in one.items()} if isinstance(one, Mapping) else {head: one}
        return found

    def draw(self, image: Tensor, names: Sequence[str]) -> Tensor:
        """Draw all heads' predictions onto the image, in the order of the heads, uint8 [3, H, W].

        Names of classes are written behind that of their head.
        """
        for head, part in self.parts.items():
            image = part.draw(image, [name for name in names if name.startswith(f"{head}/")])
        return image

    def record(self, names: Sequence[str]) -> dict[str, Any]:
        """Return each head's record under the head's name."""
        return {head: part.record(names_of(head, names)) for head, part in self.parts.items()}

    @classmethod
    def from_record(
        cls, record: Mapping[str, Any], names: Sequence[str], *, kinds: Mapping[str, type[Prediction]] | None = None
    ) -> Self:
        """Return the prediction of which :meth:`record` makes this record.

        A record does not say of which kind each head's part is: a model's head knows (``Head.from_record``).

        Args:
            record: What ``record`` returned.
            names: Class names of all heads, as ``head/class``.
            kinds: Class of each head's predictions, by the head's name.

        Raises:
            DataError: A head's part is missing, or is no such record.
            UsageError: ``kinds`` is not given.
        """
        if kinds is None:
            raise UsageError(
                "a joint record does not say of which kind its parts are: give kinds={head: class of its predictions}, "
                "or call from_record of the model's head"
            )
        own = {head: recorded(record, head) for head in kinds}
        return cls({head: kind.from_record(own[head], names_of(head, names)) for head, kind in kinds.items()})

    @classmethod
    def merge(cls, parts: Sequence[Self], regions: Sequence[Region]) -> Self:
        """Return one prediction of an image from those of several views: head by head.

        Args:
            parts: Each restored to the image, and of the same heads.
            regions: The pixels of the image that each speaks of.
        """
        return parts[0]._each(lambda head, part: type(part).merge([p.parts[head] for p in parts], regions))

    @classmethod
    def combine(cls, parts: Sequence[Self], joining: Joining) -> Self:
        """Return one prediction of an image from those of several models of the same heads: head by head.

        Args:
            parts: That of each model.
            joining: The classes, as ``head/class``, and weights of the models.
        """

        def combined(head: str, part: Any) -> Prediction:
            names = tuple(names_of(head, own) for own in joining.names)
            own = Joining(names_of(head, joining.classes), names, joining.weights)
            found: Prediction = type(part).combine([p.parts[head] for p in parts], own)
            return found

        return parts[0]._each(combined)

    def select_classes(self, names: Sequence[str], kept: Sequence[str]) -> Self:
        """Return the prediction restricted to some classes; a head of which none is kept is left out.

        Args:
            names: Class names of all heads, as ``head/class``.
            kept: Those to keep; the classes of each head get ids in their order.

        Raises:
            UsageError: A class is not among ``names`` or stands there twice.
        """
        ids_of(names, kept)
        own = {head: names_of(head, kept) for head in self.parts}
        parts = {h: p.select_classes(names_of(h, names), own[h]) for h, p in self.parts.items() if own[h]}
        return replace(self, parts=parts)

    def rows(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return one row: of each head's record what is a single value, and how many there are of what is a list."""
        row: dict[str, Any] = {}
        for head, record in self.record(names).items():
            for key, value in record.items():
                if not isinstance(value, Mapping):
                    row[f"{head}/{key}"] = len(value) if isinstance(value, list) else value
        return [row]

    def _each(self, change: Callable[[str, Any], Prediction]) -> Self:
        """Return the prediction with each head's part changed."""
        return replace(self, parts={head: change(head, part) for head, part in self.parts.items()})
