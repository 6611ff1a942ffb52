"""Which pictures a model was trained on, as far as the config of its run tells."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from visionkit.cli.config import configs
from visionkit.core.errors import VisionkitError
from visionkit.data.dataset import DataSplits, VisionDataset
from visionkit.data.formats import Formats, Request, read_labels
from visionkit.data.images.twins import first_twins
from visionkit.data.labels.faults import gathering
from visionkit.data.split import divide, divide_as_listed
from visionkit.models.run_folder import FOLDER, find_checkpoint

__all__ = ["CONFIG", "Pictures", "Training", "pictures_of", "shared", "training_of"]

CONFIG = "config.yaml"
"""Name of the file in the folder of a run."""


@dataclass(frozen=True)
class Training:
    """What the config of a run says of its pictures, as far as it decides which of them trained.

    Args:
        config: The config.yaml.
        root: Where the run's data lie; None for drawn shapes.
        val_fraction: Share of the pictures that validated, where the data brought no val split.
        split_seed: Seed of that split.
        split: A file that lists that split in place of these two, or None.
        options: What the readers of the task were told, such as ``ignore``.
    """

    config: Path
    root: str | None
    val_fraction: float = 0.2
    split_seed: int = 0
    split: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_settings(cls, config: Path, settings: Mapping[str, Any]) -> Training:
        """Return what the options of a data set say.

        Args:
            config: Where they stand.
            settings: ``init_args`` of the data.
        """
        fraction, seed, split = (settings.get(k) for k in ("val_fraction", "split_seed", "split"))
        root = settings.get("root")
        return cls(
            config,
            root if isinstance(root, str) else None,
            fraction if isinstance(fraction, float) and 0 < fraction < 1 else 0.2,
            seed if isinstance(seed, int) else 0,
            split if isinstance(split, str) else None,
            {k: settings[k] for k in ("ignore", "multilabel") if settings.get(k) is not None},
        )

    @property
    def rule(self) -> tuple[float, int, str | None]:
        """What decides which pictures validated."""
        return (0.0, 0, self.split) if self.split is not None else (self.val_fraction, self.split_seed, None)

    def lies_at(self, root: Path) -> bool:
        """Return whether the run's data lie at a root."""
        try:
            return self.root is not None and os.path.samefile(self.root, root)
        except OSError:
            return False

    def divide(self, found: DataSplits[VisionDataset[Any]], root: Path) -> DataSplits[VisionDataset[Any]]:
        """Divide training pictures as the run did.

        Args:
            found: What lies at the root, without validation pictures.
            root: Where the pictures lie.

        Raises:
            DataError: They cannot be divided so.
        """
        if self.split is not None:
            return divide_as_listed(found, Path(self.split), root)
        groups, labels = found.get("train").groups_and_labels()
        return divide(found, groups, labels, self.val_fraction, self.split_seed)


class Pictures(NamedTuple):
    """The pictures of a run, by their paths.

    Args:
        trained: Those that it was trained on.
        every: Those that lie there.
    """

    trained: Sequence[str]
    every: Sequence[str]


def training_of(ckpt: str | os.PathLike[str], head: str | None = None) -> Training | None:
    """Return what the run of a checkpoint says of its data: the config.yaml in the folder of the run.

    Args:
        ckpt: A checkpoint file or the folder of a run.
        head: Of a joint model, the head whose data are asked for; None for a model of one head.

    Returns:
        None where there is no config beside it, or one that says nothing of such data.
    """
    file = find_checkpoint(ckpt)
    folder = file.parent.parent if file.parent.name == FOLDER else file.parent
    config = folder / CONFIG
    try:
        data = configs.content_of(config).get("data") if config.is_file() else None
    except VisionkitError:
        return None
    settings = data.get("init_args") if isinstance(data, dict) else None
    if not isinstance(settings, dict):
        return None
    datasets = settings.get("datasets")
    if isinstance(datasets, dict):
        part = datasets.get(head)
        settings = part.get("init_args") if isinstance(part, dict) else None
    return Training.of_settings(config, settings) if isinstance(settings, dict) else None


def pictures_of(training: Training, table: Formats[Any], *, channels: int = 3, masks: bool = False) -> Pictures | None:
    """Return the pictures of a run; None where they cannot be read any more.

    Args:
        training: What its config says.
        table: The formats of its task.
        channels: Of the images.
        masks: Whether it was trained on masks of objects.
    """
    if training.root is None:  # drawn shapes, which are no files
        return Pictures((), ())
    root = Path(training.root)
    try:
        with gathering():
            found = read_labels(table, Request(root, None, channels, (), {**training.options, "masks": masks}))
        every = [id for part in (found.train, found.val, found.test) if part is not None for id in part.ids]
        parts = found if found.val is not None or found.train is None else training.divide(found, root)
    except VisionkitError:
        return None
    return Pictures(() if parts.train is None else parts.train.ids, every)


def shared(trained: Sequence[str], measured: Sequence[str]) -> list[tuple[str, str]]:
    """Return the measured pictures that trained, too, byte for byte, each with the one that it is there.

    Args:
        trained: Paths.
        measured: Paths.
    """
    if not trained:
        return []
    paths = [*trained, *measured]
    first = first_twins(paths, ["trained"] * len(trained) + ["measured"] * len(measured))
    return [(paths[i], paths[first[i]]) for i in range(len(trained), len(paths)) if first[i] < len(trained)]
