"""fit --dry-run: a few steps of everything with the real data and model, of which nothing is kept."""

from __future__ import annotations

import gc
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from visionkit.cli.faults import as_options, lacks_memory
from visionkit.cli.trial import Trial
from visionkit.core.errors import DataError
from visionkit.core.machine import return_freed_memory, tune
from visionkit.core.text import say
from visionkit.data.caching.images import CacheSettings
from visionkit.prediction.trained import load
from visionkit.training.datamodule import VisionDataModule
from visionkit.training.run.trial import STEPS, duration, peak_memory
from visionkit.training.task import Task

__all__ = ["DryRun"]


class DryRun(Trial):
    """Says what a training needs; where memory does not suffice, it looks for the batch that fits, by halving."""

    def _say_folder(self) -> None:
        say(f"run      none: a trial of {STEPS} steps, of which nothing is kept")

    def fit(self, model: Task, datamodule: VisionDataModule[Any], **kwargs: Any) -> None:
        """Try, with fewer pictures a batch while memory does not suffice, and say what came out.

        Raises:
            DataError: Memory does not suffice for what was asked; it names what fits.
        """
        kept = model.backbone_stays and model.teacher is None
        later = [name for name, on in (("features", kept), ("cache", datamodule.cache.kind != "none"))
                 if on and (name == "cache" or model.recipe.cache_features is not False)]  # fmt: skip
        model.recipe = replace(model.recipe, cache_features=False, probe=False, progressive=None)
        datamodule.cache = CacheSettings()
        where = None
        with self._ending(datamodule):
            self._announce(model, datamodule)
            asked = datamodule.batch_sizes()
            while (trouble := self._attempt(model, datamodule)) is not None:
                where, sizes = trouble, datamodule.batch_sizes()
                if all(n == 1 for n in sizes.values()):
                    raise DataError(f"not enough memory{where} for a single picture: lower --data.size")
                say(f"try      not enough memory{where} with {as_options(sizes)}")
                datamodule.halve_batches()
            self._report(model, datamodule, later)
        if where is not None:
            fits = as_options(datamodule.batch_sizes())
            raise DataError(f"not enough memory{where} with {as_options(asked)}; what fits: {fits}")

    def _attempt(self, model: Task, datamodule: VisionDataModule[Any]) -> str | None:
        """Train for some steps; return where memory did not suffice, or None."""
        try:
            tune(self.trainer.strategy.root_device)
            self.trainer.fit(model, datamodule=datamodule)
            return None
        except Exception as e:
            if (where := lacks_memory(e)) is None:
                raise
        model.zero_grad(set_to_none=True)
        self.trainer = model.trainer = datamodule.trainer = self.instantiate_trainer()
        gc.collect()
        return_freed_memory()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        return where

    def _report(self, model: Task, datamodule: VisionDataModule[Any], later: list[str]) -> None:
        device = self.trainer.strategy.root_device
        memory = peak_memory(device)
        step, validation = self.watch.seconds("train"), self.watch.seconds("val")
        size = Path(self.saving.last_model_path).stat().st_size / 1e6
        say(f"memory   {memory}")
        predicted = self._predict(model, datamodule, device)
        pictures = datamodule.batch_size
        say(
            f"time     a step of {pictures} pictures {duration(step)}, a validation batch {duration(validation)}, "
            f"a checkpoint ({size:.0f} MB) {duration(self.saving.seconds)}, a prediction {duration(predicted)}"
        )
        train, val = self.batches("train"), self.batches("val")
        epoch = train * step + val * validation + self.saving.seconds
        epochs = self.epochs if self.epochs is not None and self.epochs > 0 else None
        if self.steps is not None and self.steps > 0 and train:
            epochs = min(epochs or math.inf, self.steps / train)
        all_of_them = f", all {epochs:.3g} about {duration(epochs * epoch)}" if epochs is not None else ""
        say(f"         an epoch of {train} + {val} batches about {duration(epoch)}{all_of_them}")
        if later:
            what = "features are computed" if "features" in later else "pictures are decoded"
            say(f"         {what} once: epochs after the first take less")

    def _predict(self, model: Task, datamodule: VisionDataModule[Any], device: torch.device) -> float:
        """Predict a picture with the checkpoint; return the seconds that it takes once the model is loaded."""
        parts = (model.model.backbone, model.model.neck, model.model.head)
        trust = {type(part).__module__.partition(".")[0] for part in parts} - {"visionkit"}
        trained = load(self.saving.last_model_path, trust=sorted(trust), device=device)
        dataset = datamodule.splits.get("val" if datamodule.splits.val is not None else "train")
        sample = dataset[0]
        for _ in range(2):  # the first one makes ready what the others use
            start = time.perf_counter()
            next(iter(trained.predict_samples([sample])))
            seconds = time.perf_counter() - start
        return seconds
