import numpy as np
import pytest
import torch

from visionkit import Augmentation, Preprocessing
from visionkit.core.sample import ImageInfo, Sample
from visionkit.core.seeds import derive_seed
from visionkit.data.dataset import VisionDataset
from visionkit.data.loading import (
    EvaluationView,
    TrainingLoader,
    TrainingView,
    evaluation_loader,
)
from visionkit.data.samplers import EpochSampler, EvaluationSampler
from visionkit.data.transforms.augmentation import DETECTION_AUGMENTATION
from visionkit.data.transforms.mosaic import Mosaic
from visionkit.tasks.classification.readers.shapes import ShapesClassification
from visionkit.tasks.detection.types import BoxTarget

AUGMENT = [{"HorizontalFlip": {"p": 0.5}}, {"ColorJitter": {"p": 1.0}}]


def view(count=22, seed=0):
    return TrainingView(ShapesClassification(count, size=32), Preprocessing(32), Augmentation(AUGMENT), seed=seed)


def loader(workers=0, *, batch_size=5, seed=0, weights=None, **processes):
    v = view(seed=seed)
    return TrainingLoader(
        v, EpochSampler(v, seed=seed, weights=weights, **processes), batch_size=batch_size, workers=workers
    )


def epoch(train, number):
    train.sampler.set_epoch(number)
    return [b.images for b in train]


def test_workers_do_not_change_what_is_loaded():
    alone, two = loader(0), loader(2)
    for number in (0, 1):
        for a, b in zip(epoch(alone, number), epoch(two, number), strict=True):
            assert torch.equal(a, b)


def test_epochs_and_seeds_differ_and_repeat():
    first, second = epoch(loader(), 0), epoch(loader(), 1)
    assert not torch.equal(torch.cat(first), torch.cat(second))
    assert torch.equal(torch.cat(first), torch.cat(epoch(loader(), 0)))
    assert not torch.equal(torch.cat(first), torch.cat(epoch(loader(seed=1), 0)))


def test_global_random_state_neither_matters_nor_changes():
    torch.manual_seed(1)
    first = epoch(loader(), 0)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = epoch(loader(), 0)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(state, before)


def test_each_image_at_most_once_and_no_batch_of_another_size():
    train = loader()
    keys = list(train.sampler)
    assert sorted(i for _, i in keys) == list(range(22))
    assert [len(b) for b in epoch(train, 0)] == [5, 5, 5, 5]
    assert len(train) == 4


def test_fewer_images_than_a_batch_make_one_batch():
    assert [len(b) for b in epoch(loader(batch_size=64), 0)] == [22]


def test_batches_are_uint8_channels_last():
    batch = epoch(loader(), 0)[0]
    assert batch.dtype == torch.uint8
    assert batch.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("workers", [0, 2])
def test_goes_on_within_an_epoch(workers):
    whole = epoch(loader(), 3)
    first = loader(workers)
    first.sampler.set_epoch(3)
    batches = iter(first)
    next(batches), next(batches)
    state = first.state_dict()
    second = loader(workers)
    second.load_state_dict(state)
    rest = epoch(second, 3)
    assert len(second) == len(first) == 4
    assert all(torch.equal(a, b) for a, b in zip(rest, whole[2:], strict=True))
    following = epoch(second, 4)
    assert len(following) == 4, "the next epoch is whole again"


def test_state_at_the_end_of_an_epoch_is_the_start_of_the_next():
    train = loader()
    batches = iter(train)
    for _ in range(4):
        next(batches)
    again = loader()
    again.load_state_dict(train.state_dict())
    assert len(epoch(again, 1)) == 4


def test_an_epoch_that_was_cut_short_is_followed_by_a_whole_one():
    train = loader()
    next(iter(train))
    assert len(epoch(train, 1)) == 4


def test_processes_share_an_epoch_evenly_without_overlap():
    parts = [[i for _, i in loader(num_replicas=3, rank=r).sampler] for r in range(3)]
    assert [len(p) for p in parts] == [7, 7, 7]
    assert len({i for p in parts for i in p}) == 21


def test_weights_draw_rare_images_more_often():
    weights = torch.ones(22, dtype=torch.float64)
    weights[3] = 21.0
    sampler = loader(weights=weights).sampler
    count = 0
    for number in range(50):
        sampler.set_epoch(number)
        count += sum(i == 3 for _, i in sampler)
    assert 0.4 < count / (50 * 22) < 0.6


@pytest.mark.parametrize("world", [1, 2, 4])
def test_evaluation_takes_each_image_once_over_all_processes(world):
    v = EvaluationView(ShapesClassification(7, size=32), Preprocessing(32))
    samplers = [EvaluationSampler(v, num_replicas=world, rank=r) for r in range(world)]
    assert sorted(i for s in samplers for i in s) == list(range(7))
    assert sum(len(s) for s in samplers) == 7


def test_evaluation_loader_keeps_order_and_the_small_last_batch():
    v = EvaluationView(ShapesClassification(7, size=32), Preprocessing(32))
    batches = list(evaluation_loader(v, batch_size=4, workers=1))
    assert [len(b) for b in batches] == [4, 3]
    assert [i.id for b in batches for i in b.infos] == list(v.dataset.ids)


class Boxes(VisionDataset):
    """Noise with one to three boxes."""

    classes = ("a", "b", "c")

    def __init__(self, count=22):
        self.ids = [str(i) for i in range(count)]

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        pixels = torch.from_numpy(rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)).permute(2, 0, 1)
        corner = rng.uniform(0, 20, (index % 3 + 1, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(5, 20, corner.shape)], 1)
        return Sample(pixels, BoxTarget.make(boxes, range(len(boxes))), ImageInfo(self.ids[index], (40, 56)))


def box_loader(workers=0, epochs=None, **options):
    v = TrainingView(
        Boxes(),
        Preprocessing(64, resize="letterbox"),
        Augmentation(DETECTION_AUGMENTATION),
        seed=3,
        combine=Mosaic(**{"p": 0.5} | options),
        epochs=epochs,
    )
    return TrainingLoader(v, EpochSampler(v, seed=3), batch_size=5, workers=workers)


def same(a, b):
    return torch.equal(a.images, b.images) and all(
        torch.equal(x.boxes, y.boxes) and torch.equal(x.labels, y.labels)
        for x, y in zip(a.targets, b.targets, strict=True)
    )


def test_mosaics_do_not_depend_on_workers_and_resume():
    whole = list(box_loader())
    assert all(same(a, b) for a, b in zip(whole, box_loader(2), strict=True))
    torch.manual_seed(5)
    np.random.seed(5)
    rest = box_loader()
    rest.skip(2)
    resumed = list(rest)
    assert len(resumed) == 2
    assert all(same(a, b) for a, b in zip(resumed, whole[2:], strict=True))
    other = box_loader()
    other.sampler.set_epoch(1)
    assert not any(same(a, b) for a, b in zip(whole, other, strict=True))


def test_mosaics_stop_for_the_last_epochs():
    v = box_loader(epochs=10, p=1.0, last=0.2).dataset
    plain = TrainingView(v.dataset, v.preprocessing, v.augmentation, seed=v.seed)
    unknown = box_loader(p=1.0, last=0.2).dataset
    for number in range(10):
        a, b, c = v[number, 4], plain[number, 4], unknown[number, 4]
        assert torch.equal(a.image, b.image) == (number >= 8)
        assert not torch.equal(c.image, b.image)


def test_combine_is_asked_with_place_and_seed():
    asked = []

    def combine(dataset, index, preprocessing, *, seed, epoch, epochs):
        asked.append((len(dataset), index, preprocessing.size, seed, epoch, epochs))

    v = TrainingView(Boxes(), Preprocessing(64), Augmentation(None), seed=3, combine=combine, epochs=9)
    alone = TrainingView(Boxes(), Preprocessing(64), Augmentation(None), seed=3)
    assert torch.equal(v[2, 7].image, alone[2, 7].image), "None leaves the image alone"
    assert asked == [(22, 7, (64, 64), derive_seed("combine", 3, 2, 7), 2, 9)]
