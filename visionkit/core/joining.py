"""Several models' classes put into one list, and what each model counts for each of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from visionkit.core.errors import UsageError

__all__ = ["Joining"]


@dataclass(frozen=True)
class Joining:
    """How what M models say becomes one: their classes are joined by name.

    Args:
        classes: The K names of all, each once: those of the first model in its order, then what the next one adds.
        names: Of each model, the names of its classes in the order of its ids.
        weights: What each model counts, from 0 on; they sum to 1.

    Raises:
        UsageError: The weights are not so many, below 0, no numbers or all 0.
    """

    classes: tuple[str, ...]
    names: tuple[tuple[str, ...], ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check the weights and let them sum to 1."""
        given = self.weights
        if len(given) != len(self.names):
            raise UsageError(f"{len(given)} weights for {len(self.names)} models: give one each")
        if not all(math.isfinite(w) and w >= 0 for w in given) or not sum(given) > 0:
            raise UsageError(f"weights {', '.join(f'{w:g}' for w in given)}: numbers from 0 on, at least one above it")
        total = sum(given)
        object.__setattr__(self, "weights", tuple(w / total for w in given))

    @classmethod
    def of(cls, names: Sequence[Sequence[str]], weights: Sequence[float] | None = None) -> Self:
        """Join the classes of models.

        Args:
            names: Of each model, the names of its classes in the order of its ids.
            weights: What each model counts; None is the same for all.
        """
        classes = tuple(dict.fromkeys(name for own in names for name in own))
        return cls(classes, tuple(map(tuple, names)), (1.0,) * len(names) if weights is None else tuple(weights))

    def with_weights(self, weights: Sequence[float]) -> Self:
        """Return the same classes with other weights."""
        return replace(self, weights=tuple(weights))

    def only(self, model: int) -> Self:
        """Return how one model alone is brought to the classes of all."""
        return replace(self, names=(self.names[model],), weights=(1.0,))

    @property
    def differ(self) -> bool:
        """Whether a model knows other classes than another."""
        return any(len(own) < len(self.classes) for own in self.names)

    @cached_property
    def ids(self) -> tuple[tuple[int, ...], ...]:
        """Of each model, the id of each of its classes among those of all."""
        place = {name: k for k, name in enumerate(self.classes)}
        return tuple(tuple(place[name] for name in own) for own in self.names)

    @cached_property
    def known(self) -> Tensor:
        """Which classes each model knows, bool [M, K]."""
        known = torch.zeros(len(self.names), len(self.classes), dtype=torch.bool)
        for row, ids in zip(known, self.ids, strict=True):
            row[list(ids)] = True
        return known

    @cached_property
    def shares(self) -> Tensor:
        """What each model counts for each class, float32 [M, K]; each class' shares sum to 1.

        They are the weights of the models that know the class, relative to each other. A class that models without
        weight alone know is theirs in equal parts.
        """
        given = self.known * torch.tensor(self.weights, dtype=torch.float64)[:, None]
        given = torch.where(given.sum(0) > 0, given, self.known.double())
        return (given / given.sum(0).clamp(min=1e-300)).float()
