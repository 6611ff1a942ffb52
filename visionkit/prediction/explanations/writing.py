"""Explanations as files: a drawing and a record a map, and what they are worth together."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

from torch import Tensor

from visionkit.core.errors import DataError, UsageError
from visionkit.core.files import read_text, replacing, write_text
from visionkit.core.sample import ImageInfo, Sample
from visionkit.core.thresholds import Thresholds
from visionkit.models.model import VisionModel
from visionkit.prediction.backends.available import BackendName
from visionkit.prediction.explain import Explainer
from visionkit.prediction.explanations.judging import Scored, passes, verdict
from visionkit.prediction.views import Views
from visionkit.prediction.writers import WriterJob, files_beside

__all__ = ["EXPLANATIONS", "ExplanationWriter", "refuse_unexplained"]

EXPLANATIONS = "explanations"
"""Folder of the drawings and records."""
_RECORD_LIMIT = 1_000_000  # bytes of a record that is read again


class ExplanationWriter:
    """Writes ``explanations/PICTURE.jpg``, or ``PICTURE_K.jpg`` where several things are said of it, and ``.json``.

    K counts from 1. The files lie as the pictures do.

    Args:
        model: What predicts the pictures, in evaluation mode, on the device to use.
        job: What is to be written where.
        most: Things of a picture that are explained at most, from 1 on.
        thresholds: What does not reach its class's is not explained; see :class:`Explainer`.

    Raises:
        UsageError: The model cannot be explained, or takes pictures that cannot be drawn on.
    """

    wants_pixels = True
    """It is given the picture, too."""

    def __init__(self, model: VisionModel, job: WriterJob, most: int, thresholds: Thresholds | None = None) -> None:
        self.explainer = Explainer(model, most=most, min_score=job.min_score, thresholds=thresholds)
        if model.backbone.in_channels not in (1, 3):
            raise UsageError(
                f"--explain draws on RGB and grey pictures; this model takes {model.backbone.in_channels} channels"
            )
        self.most, self.says_one = most, model.head.says_one
        self.folder = job.out / EXPLANATIONS
        self.outputs: tuple[Path, ...] = (self.folder,)
        self.names = files_beside(job.images, "")
        self.verdict: str | None = None
        """What the maps are worth, in a sentence, once all are written."""

    def cost(self) -> str:
        """Return what a map costs, in a line."""
        return (
            f"explaining: each map takes {passes()} predictions more, to see what it is worth; "
            f"{1 if self.says_one else f'at most {self.most}'} a picture"
        )

    def files_of(self, image: str) -> list[Path]:
        """Return the files of a picture that are there."""
        found: list[Path] = []
        for number in count(1):
            there = [path for path in self._pair(image, number) if path.exists()]
            found += there
            if not there or self.says_one:
                return found
        raise AssertionError("files without end")

    def add(self, info: ImageInfo, prediction: Any, *image: Tensor) -> None:
        """Write the explanations of a picture.

        Args:
            info: Of the picture.
            prediction: Not used: what is explained is computed with gradients, in 32 bits.
            image: The picture, uint8 [C, H, W], with all its pixels.
        """
        from PIL import Image

        (picture,) = image
        for path in reversed(self.files_of(info.id)):  # of before: it may have had more
            path.unlink()
        for number, one in enumerate(self.explainer(Sample(picture, None, info)), 1):
            drawing, record = self._pair(info.id, number)
            with replacing(drawing) as temporary:
                Image.fromarray(one.draw(picture).permute(1, 2, 0).numpy()).save(temporary, quality=90)
            said = {**one.record(), "map": drawing.name}
            write_text(record, json.dumps(said, ensure_ascii=False, indent=1) + "\n")

    def finish(self) -> None:
        """Sum up what all maps of these pictures are worth, those of before a break included."""
        self.verdict = verdict([self._scores(image) for image in dict.fromkeys(self.names)])

    def _pair(self, image: str, number: int) -> tuple[Path, Path]:
        """Return the drawing and the record of a map of a picture."""
        name = self.names[image]
        stem = name.name if self.says_one else f"{name.name}_{number}"
        folder = self.folder / name.parent
        return folder / f"{stem}.jpg", folder / f"{stem}.json"

    def _scores(self, image: str) -> list[Scored]:
        """Return what the maps of a picture score, as their records say; what is no record of ours counts as none."""
        found = []
        for path in self.files_of(image):
            if path.suffix == ".json":
                try:
                    record = json.loads(read_text(path, limit=_RECORD_LIMIT))
                    found.append(Scored(float(record["insertion_minus_deletion"]), float(record["centre_blob"])))
                except (DataError, ValueError, TypeError, LookupError, RecursionError):
                    continue
        return found


def refuse_unexplained(
    backend: BackendName, precision: str, views: Views | None, *, reduced: bool, models: int = 1
) -> None:
    """Refuse what predictions that are explained cannot be made with.

    Raises:
        UsageError: Naming the option.
    """
    reason = None
    if models > 1:
        reason = "explains what one model goes by: give one --ckpt"
    elif backend != "torch":
        reason = f"needs gradients, which torch alone computes: leave --backend {backend} out"
    elif precision == "int8":
        reason = "needs gradients, which whole numbers have none of: leave --precision int8 out"
    elif views is not None:
        reason = "explains what the model says of a picture as a whole: leave --flip, --scales and --window out"
    elif reduced:
        reason = "draws on all pixels of a picture: leave --reduced-decode out"
    if reason is not None:
        raise UsageError(f"--explain {reason}")
