"""MultiTaskData: a data set for each head, or one labelled for several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from torch.utils.data import DataLoader

from visionkit.core.component import parameters_of
from visionkit.core.errors import UsageError
from visionkit.core.machine import choose_workers
from visionkit.data.caching.images import CacheSettings
from visionkit.data.dataset import DataSplits, VisionDataset
from visionkit.data.loading import TrainingLoader, TrainingView
from visionkit.data.samplers import EpochSampler
from visionkit.data.transforms.preprocessing import Preprocessing
from visionkit.tasks.multitask.dataset import MultiTaskDataset, Source, put_together
from visionkit.tasks.multitask.loading import CombineAlike, InterleavedSampler, InterleavedView
from visionkit.tasks.multitask.types import MultiTaskTarget, names_of
from visionkit.training.advice import AUTO, Advice, Choice, Updates, advise_recipe, steps_an_epoch
from visionkit.training.datamodule import VisionDataModule, too_few
from visionkit.training.filedata import SizedData

__all__ = ["MultiTaskData"]

SHARED = ("size", "resize", "denoise", "denoise_strength", "channels")
UPDATES = Updates(random=1500, pretrained=600, gpu=4000, drawn=750)
OURS = ("check_images", "skip_corrupt", "seed")


class MultiTaskData(SizedData[MultiTaskTarget]):
    """A data set for each head; pictures that are in several of them carry the labels of all.

    Each training batch holds ``batch_size`` pictures of each data set (of data sets that share pictures: of them
    together, as the first of them says). An epoch is as long as ``epoch`` says; a data set that is at its end before
    starts again in a new order.

    Args:
        datasets: ClassificationData, DetectionData or SegmentationData for each head, by the head's name, with root,
            augment, batch_size and the like; what all have in common stands here below. Data sets that share pictures
            are augmented as the first of them says. A picture that validates one head trains none.
        classes: Class names of all heads in order, as head/class; none takes those of the data sets.
        epoch: How long an epoch is: "longest" until each data set was shown once, "shortest" until the first was, or a
            number of batches.
        common: Options of all data, see SizedData.
    """

    in_common: ClassVar[Sequence[str]] = (
        *(*SHARED, *OURS),
        *("num_workers", "cache", "cache_folder", "cache_limit"),
    )
    """Arguments that data sets may not have for themselves."""

    def __init__(
        self,
        datasets: dict[str, VisionDataModule],  # type: ignore[type-arg]  # of any targets; jsonargparse wants the class
        *,
        classes: list[str] | None = None,
        epoch: Literal["longest", "shortest"] | int = "longest",
        **common: Any,
    ) -> None:
        if not datasets:
            raise UsageError("data.datasets is empty: give a data set for each head")
        if epoch not in ("longest", "shortest") and not (isinstance(epoch, int) and epoch >= 1):
            raise UsageError(f"data.epoch={epoch!r}: longest, shortest or a number of batches from 1 on")
        batch_size = sum(module.batch_size for module in datasets.values())
        super().__init__(augment=None, combine=None, batch_size=batch_size, **common)
        for name, module in datasets.items():
            _refuse_own(name, module, self)
            module.preprocessing = self.preprocessing
            if classes is not None:
                _fix_classes(name, module, classes)
        self.datasets = datasets
        self.epoch = epoch
        self._sources: list[Source] = []

    @property
    def multilabel(self) -> list[str]:
        """Heads whose pictures can have several classes."""
        return [name for name, module in self.datasets.items() if getattr(module, "multilabel", False)]

    @property
    def sources(self) -> list[Source]:
        """Heads in groups whose data sets share pictures."""
        assert self.splits is not None  # reads the data
        return self._sources

    def notes(self) -> list[str]:
        """Say what a batch and an epoch are."""
        told = super().notes()
        if self.splits.train is None:
            return told
        sizes = [f"{self.datasets[source[0]].batch_size} of {' and '.join(source)}" for source in self.sources]
        length = f"{self.epoch} batches" if isinstance(self.epoch, int) else f"until the {self.epoch} was shown once"
        return [*told, f"batches  {', '.join(sizes)} in each; an epoch lasts {length}"]

    def batch_sizes(self) -> dict[str, int]:
        """Return the options that say how many pictures of each data set a training batch holds."""
        return {f"--data.datasets.{s[0]}.batch_size": self.datasets[s[0]].batch_size for s in self.sources}

    def halve_batches(self) -> None:
        """Let training batches hold half of each data set's pictures, one at least."""
        for module in self.datasets.values():
            module.halve_batches()
        self.batch_size = sum(self.datasets[source[0]].batch_size for source in self.sources)

    def advise(self, advice: Advice, key: str = "data") -> None:
        """Choose what each data set would choose alone, the largest of their sizes, and the recipe of the longest."""
        wishes: dict[str, tuple[int, Choice]] = {}
        steps, drawn = 1, True
        for name, module in self.datasets.items():
            own = f"{key}.datasets.{name}"
            alone = Advice({"data.size": AUTO}, gpu=advice.gpu, processes=advice.processes, scale=advice.scale)
            module.advise(alone)
            if (choice := alone.choices.get("data.size")) is not None:
                side = max(choice.value) if isinstance(choice.value, list) else choice.value
                wishes[name] = (side, choice)
            module.advise(advice, own)
            if (train := module.splits.train) is not None:
                batch = advice.get(f"{own}.batch_size")
                batch = batch if isinstance(batch, int) and batch > 0 else module.batch_size
                steps = max(steps, steps_an_epoch(len(train), batch, advice.processes))
                drawn = drawn and train.files()[0] is None
        if wishes:
            largest = max(wishes, key=lambda name: wishes[name][0])
            advice.settle(f"{key}.size", lambda: (wishes[largest][0], f"{largest}: {wishes[largest][1].reason}"))
        advise_recipe(advice, steps, updates=UPDATES, drawn=drawn)

    def read(self) -> DataSplits[VisionDataset[MultiTaskTarget]]:
        """Read all data sets and put them together."""
        made, self._sources = put_together({name: module.splits for name, module in self.datasets.items()})
        return DataSplits(made.train, made.val, made.test, made.source)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the loader of augmented training batches with pictures of each data set."""
        world, rank = self._processes()
        train = self.splits.get("train")
        assert isinstance(train, MultiTaskDataset)
        views, orders, shares = [], [], []
        for source in self.sources:
            module = self.datasets[source[0]]
            indices = [i for i, member in enumerate(train.members) if not member.keys().isdisjoint(source)]
            view: TrainingView[MultiTaskTarget] = TrainingView(
                train.subset(indices),
                self.preprocessing,
                module.augmentation,
                seed=self.seed,
                combine=None if module.combine is None else CombineAlike(module.combine),
                epochs=self._epochs(),
                cache=self._image_cache(),
            )
            order = EpochSampler(
                view, seed=self.seed, weights=self._weights(train, indices, source), num_replicas=world, rank=rank
            )
            if len(order) == 0:
                raise too_few(len(indices), "training", world, f" of {', '.join(source)}")
            views.append(view)
            orders.append(order)
            shares.append(module.batch_size)
        whole = InterleavedView(views)
        sampler = InterleavedSampler(whole, orders, shares=shares, steps=self._steps(orders, shares))
        self.batch_size = sum(shares)
        return TrainingLoader(
            whole,  # asked for by its sampler alone
            sampler,
            batch_size=self.batch_size,
            workers=self._workers(len(sampler)),
            pin_memory=self._pin(),
        )

    def _combines(self) -> bool:
        """Return whether whole training pictures of any data set are read."""
        return any(module._combines() for module in self.datasets.values())

    def _steps(self, orders: list[EpochSampler], shares: list[int]) -> int:
        if isinstance(self.epoch, int):
            return self.epoch
        batches = [max(1, len(order) // share) for order, share in zip(orders, shares, strict=True)]
        return max(batches) if self.epoch == "longest" else min(batches)

    def _weights(self, train: MultiTaskDataset, indices: list[int], source: Source) -> Any:
        """Return how often each picture of a group of data sets is drawn."""
        found = {}
        for name in source:
            weights = self.datasets[name].sample_weights(train.parts[name])
            if weights is not None:
                found[name] = weights
        if not found:
            return None
        if len(source) > 1:
            raise UsageError(
                f"data.datasets.{next(iter(found))}.balance sampling: its pictures are those of "
                f"{', '.join(s for s in source if s not in found)}, too; take balance loss"
            )
        return found[source[0]][[train.members[i][source[0]] for i in indices]]


def _refuse_own(name: str, module: VisionDataModule[Any], ours: VisionDataModule[Any]) -> None:
    """Refuse settings of one data set that all have in common, unless they say the same."""
    defaults = parameters_of(type(module))
    standard = Preprocessing(**{k: p.default for k, p in defaults.items() if k in SHARED and p.default is not p.empty})
    standard_cache = CacheSettings()
    theirs = module.preprocessing
    pairs = {k: (getattr(theirs, k), getattr(standard, k), getattr(ours.preprocessing, k)) for k in SHARED}
    pairs |= {k: (getattr(module, k), defaults[k].default, getattr(ours, k)) for k in OURS if k in defaults}
    pairs |= {
        f"cache{suffix}": (getattr(module.cache, key), getattr(standard_cache, key), getattr(ours.cache, key))
        for key, suffix in (("kind", ""), ("folder", "_folder"), ("limit", "_limit"))
    }
    pairs["num_workers"] = (module.num_workers, choose_workers(), ours.num_workers)
    for key, (value, default, here) in pairs.items():
        if value not in (default, here):
            raise UsageError(
                f"data.datasets.{name}.{key} is {value!r}, but all data sets have that in common: set data.{key}"
            )


def _fix_classes(name: str, module: VisionDataModule[Any], classes: Sequence[str]) -> None:
    """Give a data set its class names."""
    own = names_of(name, classes)
    if not own or not hasattr(module, "fixed_classes"):
        raise UsageError(f"data.classes names none for data.datasets.{name}: write them as {name}/class")
    module.fixed_classes = list(own)
