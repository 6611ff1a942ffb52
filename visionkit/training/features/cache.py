"""A training's features: computed once, read in each epoch in place of the pictures, and removed with its end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning as L

from visionkit.core.errors import UsageError
from visionkit.core.files import locked
from visionkit.data.transforms.base import setting_without
from visionkit.models.model import VisionModel
from visionkit.training.datamodule import VisionDataModule
from visionkit.training.features.extractor import Extractor, collect
from visionkit.training.features.store import CacheError, FeatureStore, make_room, remove_with_lock
from visionkit.training.features.view import FeatureView
from visionkit.training.recipe import Recipe

__all__ = ["FeatureCache"]


class FeatureCache:
    """The features that a frozen backbone computes of the training and the validation pictures.

    They are computed when a loader asks for the first of them: the model is then on its device, with the weights of the
    checkpoint that a training resumes from.

    Args:
        model: Its backbone is frozen throughout.
        recipe: Says where features are kept, and whether training may go without.
        trainer: The training.
        data: The pictures; :meth:`view` can stand in its ``ready``.
        batch_transform: Changes each training batch, or None.
        taught: Whether a teacher sees the training pictures, too.
    """

    def __init__(
        self,
        model: VisionModel,
        recipe: Recipe,
        trainer: L.Trainer,
        data: VisionDataModule[Any],
        *,
        batch_transform: object = None,
        taught: bool = False,
    ) -> None:
        self.model = model
        self.recipe = recipe
        self.trainer = trainer
        self.data = data
        self.batch_transform = batch_transform
        self.taught = taught
        self._views: dict[str, FeatureView[Any]] | None = None  # by split, none where pictures have to be read

    def view(self, split: str) -> FeatureView[Any] | None:
        """Return a split with its features, None where they are computed anew in each epoch.

        Args:
            split: "train" or "val".

        Raises:
            UsageError: They cannot be kept, and the recipe refuses to go without.
        """
        if self._views is None:
            try:
                self._check()
                self._views = self._fill()
                if self.data.cache.kind != "none":
                    self.data.say("pictures not cached: their features are")
            except CacheError as e:
                if self.recipe.cache_features:
                    raise UsageError(f"recipe.cache_features true: {e}") from None
                self.data.say(f"features computed anew in each epoch: {e}")
                self._views = {}
        return self._views.get(split)

    def remove(self) -> None:
        """Remove the features when training has ended well, unless they are kept for others."""
        if self._views and self.recipe.cache_folder is None and self.trainer.is_global_zero:
            remove_with_lock(next(iter(self._views.values())).store.folder)

    def _check(self) -> None:
        """Refuse pictures that are not the same in each epoch."""
        data = self.data
        if type(data).train_dataloader is not VisionDataModule.train_dataloader:
            raise CacheError(f"{type(data).__name__} makes batches in a way of its own")
        if self.taught:
            raise CacheError("the teacher sees the pictures in each: set model.teacher null")
        if self.recipe.progressive is not None:
            raise CacheError("training pictures grow: set model.recipe.progressive null")
        changing = map(setting_without, (data.augmentation, data.combine, self.batch_transform))
        if settings := [setting for setting in changing if setting is not None]:
            raise CacheError(f"training pictures change at random: set {', '.join(settings)}")

    def _fill(self) -> dict[str, FeatureView[Any]]:
        """Compute the features that are not there yet."""
        start, trainer, limit = time.perf_counter(), self.trainer, self.recipe.cache_limit
        folder = Path(self.recipe.cache_folder or Path(trainer.default_root_dir) / "features")
        preprocessing, splits = self.data.preprocessing, self.data.splits
        extractor = Extractor(
            self.model,
            size=preprocessing.size,
            batch_size=self.data.batch_size,
            precision=str(trainer.precision),
            context=trainer.precision_plugin.forward_context,
        )
        name = extractor.key()
        sizes = {split: len(data) for split in ("train", "val") if (data := getattr(splits, split))}
        count = sum(sizes.values())
        views: dict[str, FeatureView[Any]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder / f"{name}.lock"):
                make_room(folder, name, count * extractor.record, limit)
                store = FeatureStore(folder / name, extractor.levels, limit=limit)
                before = store.count
                for split in sizes:
                    pictures = collect(store, extractor, self.data.all_images(split))
                    views[split] = FeatureView(
                        store, pictures, channels=preprocessing.channels, device=extractor.device
                    )
                store.map()  # before the lock is given back: another run may make room
        except OSError as e:
            raise CacheError(f"{folder} cannot be written ({e.strerror or e}): set recipe.cache_folder") from e
        found, seconds = count - (store.count - before), time.perf_counter() - start
        known = f" ({found:,} known already)" if found else ""
        size = store.count * store.record / 1e6
        self.data.say(f"features {count:,} pictures{known} in {seconds:.1f} s: {store.folder}, {size:.1f} MB")
        return views
