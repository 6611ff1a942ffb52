"""The order of training pictures of several data sets: each batch holds some of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data import Dataset

from visionkit.core.sample import Batch, Loaded, Sample, assemble
from visionkit.data.dataset import VisionDataset
from visionkit.data.images.decode import Array
from visionkit.data.loading import Combine, TrainingView
from visionkit.data.samplers import EpochSampler, Key
from visionkit.data.transforms.preprocessing import Preprocessing
from visionkit.tasks.multitask.dataset import MultiTaskDataset
from visionkit.tasks.multitask.types import MultiTaskTarget

__all__ = ["CombineAlike", "InterleavedSampler", "InterleavedView"]


class InterleavedView(Dataset[Sample[MultiTaskTarget]]):
    """Several training views as one; asked for by (epoch, position of the view, index, repeat).

    Args:
        views: The views.
    """

    def __init__(self, views: Sequence[TrainingView[MultiTaskTarget]]) -> None:
        self.views = list(views)

    def __len__(self) -> int:
        """Return the number of images."""
        return sum(len(view) for view in self.views)

    def __getitem__(self, key: Key) -> Sample[MultiTaskTarget]:
        """Return the sample of a view as it is in an epoch and a repeat."""
        return self.load(key).sample()

    def __getitems__(self, keys: Sequence[Key]) -> Batch[MultiTaskTarget]:
        """Return the samples of a batch, put together."""
        preprocessing = self.views[0].preprocessing
        return assemble(self.load, keys, preprocessing.size, preprocessing.channels)

    def load(self, key: Key, out: Array | None = None) -> Loaded[MultiTaskTarget]:
        """Return the sample of a view; its pixels may lie in an array, uint8 [H, W, C]."""
        return self.views[key[1]].load((key[0], *key[2:]), out)


class InterleavedSampler(EpochSampler):
    """Orders of several views, interleaved: each batch holds equally many images of a view as all others do.

    Within an epoch a view that is at its end starts again in a new order and with new random changes, as often as
    needed; one that is not is cut off.

    Args:
        view: The views as one.
        orders: The order of each view.
        shares: Images of each view in a batch.
        steps: Batches of an epoch.
    """

    def __init__(
        self, view: InterleavedView, orders: Sequence[EpochSampler], *, shares: Sequence[int], steps: int
    ) -> None:
        first = orders[0]
        super().__init__(view, seed=first.seed, num_replicas=first.num_replicas, rank=first.rank)
        self.orders = list(orders)
        self.shares = list(shares)
        self.steps = steps

    def __len__(self) -> int:
        """Return the number of samples of this process in an epoch."""
        return self.steps * sum(self.shares)

    def __iter__(self) -> Iterator[Key]:
        """Return the keys of this epoch, batch by batch."""
        streams = []
        for view, (order, share) in enumerate(zip(self.orders, self.shares, strict=True)):
            keys: list[Key] = []
            for repeat in range(-(-self.steps * share // len(order))):
                keys += [(self.epoch, view, index, repeat) for index in order.order(self.epoch, repeat)]
            streams.append([keys[step * share : (step + 1) * share] for step in range(self.steps)])
        batches = zip(*streams, strict=True)
        return iter([key for batch in batches for part in batch for key in part][self.start :])


class CombineAlike:
    """Puts pictures together that are labelled for the same heads: a picture of others would have fewer labels.

    Args:
        combine: Puts several pictures into one, such as Mosaic.
    """

    def __init__(self, combine: Combine) -> None:
        self.combine = combine
        self._alike: dict[tuple[str, ...], tuple[MultiTaskDataset, dict[int, int]]] = {}

    def __call__(
        self,
        dataset: VisionDataset[Any],
        index: int,
        preprocessing: Preprocessing,
        *,
        seed: int,
        epoch: int,
        epochs: int | None,
    ) -> Sample[Any] | None:
        """Return picture ``index`` with others of its kind, or None where it stays alone; see Combine."""
        assert isinstance(dataset, MultiTaskDataset)
        heads = tuple(dataset.members[index])
        if heads not in self._alike:
            indices = [i for i, member in enumerate(dataset.members) if tuple(member) == heads]
            self._alike[heads] = dataset.subset(indices), {i: place for place, i in enumerate(indices)}
        alike, place = self._alike[heads]
        return self.combine(alike, place[index], preprocessing, seed=seed, epoch=epoch, epochs=epochs)
