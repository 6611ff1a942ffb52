"""Each batch has its share of each data set; the order depends on (seed, epoch) alone."""

from collections import Counter

import pytest
import torch

from visionkit import Augmentation, Mosaic, Preprocessing, ShapesDetection, ShapesSegmentation
from visionkit.data.loading import TrainingLoader, TrainingView
from visionkit.data.samplers import EpochSampler
from visionkit.tasks.classification.readers.shapes import ShapesClassification
from visionkit.tasks.multitask.dataset import MultiTaskDataset
from visionkit.tasks.multitask.loading import CombineAlike, InterleavedSampler, InterleavedView

COUNTS = (10, 4, 7)
SHARES = (2, 1, 3)


def views(counts=COUNTS):
    made = []
    for k, count in enumerate(counts):
        drawn = ShapesClassification(count, size=32, seed=k)
        members = [{f"head{k}": i} for i in range(count)]
        dataset = MultiTaskDataset({f"head{k}": drawn}, members, [f"head{k}/{c}" for c in drawn.classes])
        made.append(TrainingView(dataset, Preprocessing(32), Augmentation([{"ColorJitter": {"p": 1.0}}]), seed=3))
    return made


def sampler(steps=5, *, counts=COUNTS, shares=SHARES, seed=3, epoch=0, world=1, rank=0):
    parts = views(counts)
    orders = [EpochSampler(v, seed=seed, num_replicas=world, rank=rank) for v in parts]
    made = InterleavedSampler(InterleavedView(parts), orders, shares=shares, steps=steps)
    made.set_epoch(epoch)
    return made


def loader(steps=5, workers=0, **settings):
    order = sampler(steps, **settings)
    return TrainingLoader(order.dataset, order, batch_size=sum(order.shares), workers=workers)


def batches(order):
    keys, size = list(order), sum(order.shares)
    return [keys[k : k + size] for k in range(0, len(keys), size)]


@pytest.mark.parametrize("steps", [1, 5, 23])
def test_each_batch_has_exactly_the_shares(steps):
    order = sampler(steps, epoch=4)
    found = batches(order)
    assert len(found) == steps
    assert len(order) == steps * 6 == len(list(order))
    for batch in found:
        assert [key[1] for key in batch] == [0, 0, 1, 2, 2, 2]
        assert all(key[0] == 4 for key in batch)


def test_a_pass_shows_each_picture_once_and_the_next_is_in_another_order():
    keys = list(sampler(20))
    for view, count in enumerate(COUNTS):
        shown = [key[2:] for key in keys if key[1] == view]
        passes = [shown[k : k + count] for k in range(0, len(shown), count)]
        orders = []
        for number, once in enumerate(passes):
            assert {repeat for _, repeat in once} == {number}
            orders.append([index for index, _ in once])
            if len(once) == count:
                assert sorted(orders[-1]) == list(range(count))
        assert orders[0] != orders[1]
        assert len(shown) == 20 * SHARES[view], "the last pass is cut off"


def test_a_data_set_smaller_than_its_share_fills_it_with_repeats():
    found = batches(sampler(2, counts=(3, 2), shares=(2, 5)))
    for batch in found:
        assert len(batch) == 7
        assert len(set(batch)) == 7, "the same picture comes with another number"
    assert Counter(key[2] for batch in found for key in batch if key[1] == 1) == {0: 5, 1: 5}


def test_repeats_are_changed_at_random_anew():
    view = InterleavedView(views())
    first, again, other = view[0, 1, 2, 0], view[0, 1, 2, 0], view[0, 1, 2, 1]
    assert torch.equal(first.image, again.image)
    assert not torch.equal(first.image, other.image)
    assert not torch.equal(first.image, view[1, 1, 2, 0].image)
    assert first.info == other.info
    assert list(first.target.parts) == ["head1"]
    assert len(view) == 21


def test_order_depends_on_seed_and_epoch_alone():
    torch.manual_seed(1)
    first = list(sampler(9, epoch=2))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert list(sampler(9, epoch=2)) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert [k[1:] for k in sampler(9, epoch=3)] != [k[1:] for k in first]
    assert list(sampler(9, epoch=2, seed=4)) != first


@pytest.mark.parametrize("counts", [(10, 4, 7), (11, 5, 6)])
def test_processes_take_equally_many_steps_and_other_pictures(counts):
    whole = [list(sampler(30, counts=counts, world=2, rank=rank)) for rank in (0, 1)]
    assert len(whole[0]) == len(whole[1]) == 30 * 6
    for view, count in enumerate(counts):
        for repeat in range(5):
            halves = [{k[2] for k in keys if k[1] == view and k[3] == repeat} for keys in whole]
            assert not halves[0] & halves[1]
            assert len(halves[0]) == len(halves[1]) == count // 2


@pytest.mark.parametrize("workers", [0, 2])
def test_goes_on_within_an_epoch(workers):
    order = [b.images for b in loader(7)]
    first = loader(7, workers)
    some = iter(first)
    for k in range(3):
        assert torch.equal(next(some).images, order[k])
    second = loader(7, workers)
    second.load_state_dict(first.state_dict())
    rest = list(second)
    assert len(rest) == 4
    assert all(torch.equal(a.images, b) for a, b in zip(rest, order[3:], strict=True))
    second.sampler.set_epoch(1)
    following = list(second)
    assert len(following) == 7, "the next epoch is whole again"
    assert not torch.equal(following[0].images, order[0])


def test_skipping_keeps_the_shares():
    train = loader(6)
    train.skip(4)
    found = list(train)
    assert len(found) == 2
    for batch in found:
        assert [next(iter(t.parts)) for t in batch.targets] == ["head0"] * 2 + ["head1"] + ["head2"] * 3


def test_mosaics_are_made_of_pictures_with_the_same_labels():
    drawn, boxes = ShapesSegmentation(8, size=32), ShapesDetection(8, size=32)
    members = [{"masks": i, "boxes": i} if i % 2 else {"boxes": i} for i in range(8)]
    dataset = MultiTaskDataset({"masks": drawn, "boxes": boxes}, members, ["masks/a", "boxes/b"])
    plain, alike = Mosaic(1.0, last=0), CombineAlike(Mosaic(1.0, last=0))
    lost = 0
    for seed in range(20):
        for index in range(8):
            made = alike(dataset, index, Preprocessing(32), seed=seed, epoch=0, epochs=None)
            assert set(made.target.parts) == set(members[index])
            assert made.info.id == dataset.ids[index]
            mixed = plain(dataset, index, Preprocessing(32), seed=seed, epoch=0, epochs=None)
            lost += set(mixed.target.parts) != set(members[index])
    assert lost > 20  # what it is for
    one = MultiTaskDataset({"masks": drawn, "boxes": boxes}, [{"masks": 0}, {"boxes": 0}], ["masks/a", "boxes/b"])
    assert set(alike.__class__(plain)(one, 0, Preprocessing(32), seed=0, epoch=0, epochs=None).target.parts) == {
        "masks"
    }
