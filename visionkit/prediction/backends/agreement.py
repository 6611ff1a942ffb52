"""How near the predictions of a faster model come to those of the one that it was made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from visionkit.core.prediction import Agreement, Prediction
from visionkit.core.sample import ImageInfo
from visionkit.models.model import VisionModel

__all__ = ["MIN_AGREEMENT", "Comparison", "compare"]

MIN_AGREEMENT = 0.95
"""Share from which on predictions agree. Of what small trained networks say bf16 keeps 99 %, 8 bits 97 % and more, with
metrics as good (benchmarks/int8_accuracy.py); where 8 bits kept 95 % a detector had lost a point of precision."""


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found.

    Args:
        heads: By the name of each head ("" where there is one alone), how far its predictions agree; None where they
            offer no measure.
    """

    heads: Mapping[str, Agreement | None]

    @property
    def good(self) -> bool:
        """Whether at least ``MIN_AGREEMENT`` of what each head says stays the same, as far as it was compared."""
        return all(found is None or found.share >= MIN_AGREEMENT for found in self.heads.values())

    def summary(self) -> str:
        """Return it in words: ``99.0% of the pictures keep their class, ...``."""
        parts = []
        for name, found in self.heads.items():
            words = "not compared (its predictions offer no agreement())" if found is None else found.summary()
            parts.append(f"{name}: {words}" if name else words)
        return "; ".join(parts)


def compare(model: VisionModel, fast: VisionModel, images: Iterable[Tensor]) -> Comparison:
    """Compare what two models predict of the same pictures.

    Args:
        model: As it was trained, in float32.
        fast: What is compared with it.
        images: uint8 [B, C, H, W] each, preprocessed.
    """
    totals: dict[str, Agreement | None] = {}
    device = model.scale.device
    for batch in images:
        shown = batch.to(device)
        with torch.no_grad():
            pairs = zip(_predictions(model, shown), _predictions(fast, shown), strict=True)
        for truth, found in pairs:
            for name, part in _agreement(truth, found).items():
                total = totals.get(name)
                totals[name] = part if part is None or total is None else total + part
    return Comparison(totals)


def _predictions(model: VisionModel, shown: Tensor) -> list[Prediction]:
    """Return the predictions of preprocessed images in the pixels that the model sees."""
    info = ImageInfo("", (shown.shape[2], shown.shape[3]))
    return [prediction.restore(info) for prediction in model.decode(shown)]


def _agreement(truth: Prediction, found: Prediction) -> Mapping[str, Agreement | None]:
    part = truth.agreement(found)
    return part if isinstance(part, Mapping) else {"": part}
