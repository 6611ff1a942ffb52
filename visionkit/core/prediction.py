"""What comes back: the base of every prediction, and how far two of them say the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, Self, TypeAlias

from torch import Tensor

from visionkit.core.errors import DataError, UsageError
from visionkit.core.joining import Joining
from visionkit.core.sample import ImageInfo
from visionkit.core.tally import Tally

__all__ = ["Agreement", "Prediction", "Recorded", "Region", "ids_of", "reading_record", "recorded"]

Region: TypeAlias = tuple[int, int, int, int]
"""Top, left, bottom and right of a part of a picture, in pixels; bottom and right lie just behind it."""


class Prediction:
    """What the model says of one image. Each task has its own; class names cross its boundary, ids stay inside.

    A subclass defines ``restore``, ``draw`` and ``record``. What has a neutral answer has it here (``rows``,
    ``at_least``, ``over``, ``agreement``, ``tally``). What has none (``from_record``, ``merge``, ``combine``,
    ``select_classes``) is refused in one line until the subclass defines it.
    """

    def restore(self, info: ImageInfo) -> Self:
        """Return the prediction in pixels of the original image."""
        self._refuse("restore(info)", "predictions cannot be brought to pixels of the original")

    def draw(self, image: Tensor, names: Sequence[str]) -> Tensor:
        """Draw it onto a copy of a uint8 RGB image [3, H, W] and return the picture, uint8 [3, H, W]."""
        self._refuse("draw(image, names)", "predictions cannot be drawn")

    def record(self, names: Sequence[str]) -> dict[str, Any]:
        """Return it as a JSON-ready dict with class names, never ids.

        Args:
            names: Class names, in the order of their ids.
        """
        self._refuse("record(names)", "predictions cannot be written")

    @classmethod
    def from_record(cls, record: Mapping[str, Any], names: Sequence[str]) -> Self:
        """Return the prediction of which :meth:`record` makes this record; what else the record holds is passed over.

        Args:
            record: What ``record`` returned, or a line of ``predictions.jsonl``.
            names: Class names, in the order of their ids.

        Raises:
            DataError: The record is no such record, or names another class.
            UsageError: Such predictions are not read from records.
        """
        cls._refuse("from_record(record, names)", "predictions cannot be read from records")

    @classmethod
    def merge(cls, parts: Sequence[Self], regions: Sequence[Region]) -> Self:
        """Return one prediction of an image from those of several views of it by one model.

        Args:
            parts: At least one, each restored to the image, in any order.
            regions: The pixels of the image that each speaks of; together they are the image.

        Raises:
            UsageError: Such predictions cannot be put together.
        """
        cls._refuse(
            "merge(parts, regions)",
            "predictions cannot be put together from several views (--flip, --scales, --window)",
        )

    @classmethod
    def combine(cls, parts: Sequence[Self], joining: Joining) -> Self:
        """Return one prediction of an image from those of several models, whose classes are joined by name.

        Args:
            parts: At least one, that of each model in order, restored to the image; with several views they are merged.
            joining: The classes and weights of the models; the ids that come out are positions among its ``classes``.

        Raises:
            UsageError: Such predictions cannot be put together.
        """
        cls._refuse("combine(parts, joining)", "predictions cannot be put together from several models (--ckpt A B)")

    def select_classes(self, names: Sequence[str], kept: Sequence[str]) -> Self:
        """Return the prediction restricted to some classes; their ids become their positions in ``kept``.

        Args:
            names: Class names, in the order of the ids of this prediction.
            kept: Those to keep, at least one, in the order of the ids that come out.

        Raises:
            UsageError: A class is not among ``names`` or stands there twice, or such predictions cannot be restricted.
        """
        self._refuse("select_classes(names, kept)", "predictions cannot be restricted to some classes")

    def rows(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return the rows of the table: the record as one, unless a prediction has a row an object.

        Args:
            names: Class names, in the order of their ids.
        """
        return [self.record(names)]

    def at_least(self, score: float) -> Self:
        """Return the prediction with the objects alone that have at least this score, 0..1: all without objects."""
        return self

    def over(self, thresholds: Mapping[str, float | None], names: Sequence[str]) -> Self:
        """Return the prediction with what reaches its class's threshold alone: all of it where nothing has a score.

        Args:
            thresholds: Class name -> score, 0..1; None where nothing is promised of a class. A class that is not named
                has none.
            names: Class names, in the order of the ids of this prediction.
        """
        return self

    def agreement(self, other: Self) -> Agreement | Mapping[str, Agreement | None] | None:
        """Return how far another prediction says the same; None where the two cannot be compared.

        Several heads return theirs by name.

        Args:
            other: Of the same image, by a faster network.
        """
        return None

    @classmethod
    def tally(cls, record: Mapping[str, Any], min_score: float | None = None) -> dict[str, Tally]:
        """Return what a record says in numbers, by what is counted, in a word: nothing unless a subclass says so.

        Args:
            record: What :meth:`record` returned.
            min_score: Objects with a lower score were left out of it; None where none were.
        """
        return {}

    @classmethod
    def _refuse(cls, method: str, what: str) -> NoReturn:
        raise UsageError(f"{cls.__name__} {what}: it defines no {method}")


@dataclass(frozen=True)
class Recorded(Prediction):
    """The record of a prediction, in place of one that cannot be made of it: of pixels that lie in a file of their own.

    Args:
        said: What ``record`` returned.
    """

    said: Mapping[str, Any]

    def record(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the record."""
        return dict(self.said)


@dataclass(frozen=True)
class Agreement:
    """How far two predictions of one picture, or those of several pictures together, say the same.

    Args:
        what: In words, after a percentage: "of the pictures keep their class".
        same: How many agree, or how much.
        total: Of how many.
        difference: Sum of how far scores differ.
        scores: Of how many scores; 0 where none are compared.
    """

    what: str
    same: float
    total: float
    difference: float = 0.0
    scores: float = 0.0

    def __add__(self, other: Agreement) -> Agreement:
        """Return both together."""
        return Agreement(
            self.what,
            self.same + other.same,
            self.total + other.total,
            self.difference + other.difference,
            self.scores + other.scores,
        )

    @property
    def share(self) -> float:
        """How much agrees, 0..1; 1 where there is nothing that could differ."""
        return self.same / self.total if self.total else 1.0

    def summary(self) -> str:
        """Return it in words."""
        if not self.total:
            return f"nothing to compare: 0 {self.what}"
        mean = f", mean difference of a probability {self.difference / self.scores:.4f}" if self.scores else ""
        return f"{self.share:.1%} {self.what}{mean}"


def ids_of(names: Sequence[str], kept: Sequence[str]) -> list[int]:
    """Return the ids of the classes ``kept``: their positions among ``names``.

    Raises:
        UsageError: There is none, one is unknown, or one stands there twice.
    """
    positions = {name: k for k, name in enumerate(names)}
    unknown = [name for name in kept if name not in positions]
    if unknown or not kept or len(set(kept)) != len(kept):
        reason = f"{unknown[0]!r} is none of {', '.join(names)}" if unknown else "give names, at least one, each once"
        raise UsageError(f"classes to keep, {list(kept)}: {reason}")
    return [positions[name] for name in kept]


def recorded(record: Mapping[str, Any], key: str) -> Any:
    """Return what a record holds under a key.

    Raises:
        DataError: It holds nothing there.
    """
    if not isinstance(record, Mapping) or key not in record:
        raise DataError(f"record: no {key!r} in it; give a record of such a prediction, as predictions.jsonl holds it")
    return record[key]


@contextmanager
def reading_record() -> Iterator[None]:
    """Turn what a record's values raise, where they are none of such a prediction, into a DataError."""
    try:
        yield
    except (TypeError, ValueError, KeyError, RuntimeError, OverflowError) as e:
        reason = " ".join(str(e).split()) or type(e).__name__
        raise DataError(
            f"record: {reason:.200}; give a record of such a prediction, as predictions.jsonl holds it"
        ) from e
