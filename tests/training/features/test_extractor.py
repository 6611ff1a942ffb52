import os
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from visionkit import (
    FPN,
    DeepLabV3PlusHead,
    FCOSHead,
    IdentityNeck,
    LinearHead,
    MLPHead,
    Preprocessing,
    ResNet,
    VisionModel,
)
from visionkit.core.files import locked
from visionkit.data.loading import EvaluationView, TrainingLoader, evaluation_loader
from visionkit.data.samplers import EpochSampler
from visionkit.tasks.classification.readers.shapes import ShapesClassification
from visionkit.training.features.extractor import Extractor, collect, image_key
from visionkit.training.features.store import CacheError, FeatureStore, Level, make_room, remove_store, remove_with_lock
from visionkit.training.features.view import FeatureView

CPU = torch.device("cpu")
SIZE = 64
LEVELS = (Level((3, 4, 5), "bfloat16", True, True), Level((2, 2, 2), "float32", False, True))


def model(head=LinearHead, neck=IdentityNeck, **settings):
    torch.manual_seed(0)
    backbone = ResNet(layers=(1, 1, 1, 1), block="basic", **settings)
    made = VisionModel(backbone, head, ["a", "b", "c"], neck, preprocessing=Preprocessing(SIZE))
    made.backbone.freeze()
    return made.to(memory_format=torch.channels_last)


def extractor(made=None, **settings):
    made = made if made is not None else model()
    return Extractor(made, **{"size": (SIZE, SIZE), "batch_size": 4, "context": nullcontext, **settings})


def pictures(count=10, seed=0, size=SIZE):
    view = EvaluationView(ShapesClassification(count, size=SIZE, seed=seed), Preprocessing(size))
    return evaluation_loader(view, batch_size=4, workers=0)


def some(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    levels = [torch.randn((count, *level.shape), generator=generator, dtype=level.torch_dtype) for level in LEVELS]
    levels[0] = levels[0].contiguous(memory_format=torch.channels_last)
    return levels, [f"{seed:02d}{i:030d}" for i in range(count)]


# ---- the store


def test_what_is_read_is_what_was_written(tmp_path):
    store = FeatureStore(tmp_path / "s", LEVELS)
    levels, keys = some(5)
    store.append(keys[:3], [x[:3] for x in levels])
    store.append(keys[3:], [x[3:] for x in levels])
    rows = np.array([4, 0, 0, 2])
    for opened in (store, FeatureStore(tmp_path / "s", LEVELS)):
        assert [opened.rows[k] for k in keys] == [0, 1, 2, 3, 4]
        read = opened.read(rows, CPU)
        for expected, got in zip(levels, read, strict=True):
            assert torch.equal(expected[rows], got)
            assert got.dtype == expected.dtype
        assert read[0].is_contiguous(memory_format=torch.channels_last)
        assert read[1].is_contiguous()
    assert store.record == 3 * 4 * 5 * 2 + 2 * 2 * 2 * 4
    assert (tmp_path / "s" / "features.bin").stat().st_size == 5 * store.record


def test_levels_that_nobody_reads_take_no_room(tmp_path):
    layout = (replace(LEVELS[0], kept=False), LEVELS[1])
    store = FeatureStore(tmp_path, layout)
    levels, keys = some(3)
    store.append(keys, levels)
    unread, kept = store.read(np.array([2, 1]), CPU)
    assert unread.shape == (2, 3, 4, 5)
    assert unread.untyped_storage().nbytes() == 2
    assert torch.equal(kept, levels[1][[2, 1]])
    assert store.record == LEVELS[1].size


def broken(name, change):
    def act(folder):
        path = folder / name
        path.write_bytes(change(path.read_bytes()))

    return act


RECORD = LEVELS[0].size + LEVELS[1].size


@pytest.mark.parametrize(
    ("damage", "left"),
    [
        (broken("features.bin", lambda b: b + b"half a record"), 5),  # killed while it wrote
        (broken("index", lambda b: b[:-7]), 4),
        (broken("features.bin", lambda b: b[:-1]), 0),  # not what a kill leaves
        (broken("features.bin", lambda b: b""), 0),
        (broken("index", lambda b: b[:40] + b[50:]), 0),
        (broken("store.json", lambda b: b[:-9]), 0),
        (lambda folder: (folder / "index").unlink(), 0),
        (lambda folder: (folder / "features.bin").unlink(), 0),
    ],
)
def test_what_is_damaged_is_dropped_and_filled_again(tmp_path, damage, left):
    levels, keys = some(5)
    FeatureStore(tmp_path, LEVELS).append(keys, levels)
    damage(tmp_path)
    for _ in range(2):
        store = FeatureStore(tmp_path, LEVELS)
        assert list(store.rows) == keys[:left]
    assert (tmp_path / "features.bin").stat().st_size == left * RECORD
    store.append(keys[left:], [x[left:] for x in levels])
    assert all(torch.equal(a, b) for a, b in zip(levels, store.read(np.arange(5), CPU), strict=True))
    assert list(FeatureStore(tmp_path, LEVELS).rows) == keys


def test_damaged_features_are_computed_anew(tmp_path):
    first, second, third = counting(), counting(), counting()
    store = FeatureStore(tmp_path, first.levels)
    whole = store.read(collect(store, first, pictures()).rows, CPU)
    with (tmp_path / "features.bin").open("r+b") as file:
        file.seek(3 * first.record + 10)
        byte = file.read(1)[0]
        file.seek(3 * first.record + 10)
        file.write(bytes([byte ^ 64]))
    for extract, computed in ((second, 1), (third, 0)):
        store = FeatureStore(tmp_path, extract.levels)
        found = collect(store, extract, pictures())
        assert extract.seen == computed
        assert all(torch.equal(a, b) for a, b in zip(whole, store.read(found.rows, CPU), strict=True))


def test_features_stay_readable_when_another_run_makes_room(tmp_path):
    levels, keys = some(5)
    reader = FeatureStore(tmp_path / "s", LEVELS)
    reader.append(keys, levels)
    reader.map()
    remove_store(tmp_path / "s")
    assert torch.equal(reader.read(np.arange(5), CPU)[0], levels[0])


def test_a_reader_keeps_what_another_process_drops(tmp_path):
    levels, keys = some(5)
    reader = FeatureStore(tmp_path, LEVELS)
    reader.append(keys, levels)
    reader.read(np.arange(5), CPU)
    broken("index", lambda b: b"?")(tmp_path)
    assert FeatureStore(tmp_path, LEVELS).rows == {}
    assert torch.equal(reader.read(np.arange(5), CPU)[0], levels[0])


def filled(folder, name, count, age):
    levels, keys = some(count)
    FeatureStore(folder / name, LEVELS).append(keys, levels)
    used = time.time() - age
    os.utime(folder / name / "store.json", (used, used))


def test_the_least_recently_used_make_room(tmp_path):
    for name, age in (("old", 30), ("older", 40), ("new", 10)):
        filled(tmp_path, name, 10, age)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("not a store")
    one = sum(p.stat().st_size for p in (tmp_path / "new").iterdir())
    make_room(tmp_path, "next", one, 3.5 * one / 1e9)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["mine", "new", "old"]
    FeatureStore(tmp_path / "old", LEVELS)  # used
    with locked(tmp_path / "new.lock"):  # being filled
        make_room(tmp_path, "next", one, 1.5 * one / 1e9)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["mine", "new"]
    make_room(tmp_path, "new", one, 1.5 * one / 1e9)
    assert (tmp_path / "new").is_dir(), "a store does not make room for itself"
    with pytest.raises(CacheError, match=r"^they take 2e-06 GB: raise recipe.cache_limit 1e-06$"):
        make_room(tmp_path, "next", 2000, 1e-6)
    with pytest.raises(CacheError, match="GB left"):
        make_room(tmp_path, "next", 10**18, 1e10)


def test_a_store_never_outgrows_its_limit(tmp_path):
    levels, keys = some(5)
    store = FeatureStore(tmp_path, LEVELS, limit=4.5 * RECORD / 1e9)
    store.append(keys[:4], [x[:4] for x in levels])
    with pytest.raises(CacheError, match="full with features of other pictures: remove it or raise"):
        store.append(keys[4:], [x[4:] for x in levels])


def test_removing_leaves_what_is_not_ours(tmp_path):
    filled(tmp_path / "features", "a", 2, 0)
    with locked(tmp_path / "features" / "a.lock"):
        pass
    remove_with_lock(tmp_path / "features" / "a")
    assert list(tmp_path.iterdir()) == []
    filled(tmp_path / "features", "a", 2, 0)
    (tmp_path / "features" / "letter.txt").write_text("mine")
    remove_with_lock(tmp_path / "features" / "a")
    assert [p.name for p in tmp_path.rglob("*")] == ["features", "letter.txt"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such lock")
def test_a_lock_keeps_others_out(tmp_path):
    with locked(tmp_path / "lock") as first, locked(tmp_path / "lock", wait=False) as second:
        assert (first, second) == (True, False)
    with locked(tmp_path / "lock", wait=False) as third:
        assert third


# ---- what is computed


def expected_levels(made, images):
    with torch.no_grad():
        return made.backbone(made.normalise(images))


@pytest.mark.parametrize(
    ("head", "neck", "kept"),
    [
        (LinearHead, IdentityNeck, [True]),
        (MLPHead, IdentityNeck, [True]),
        (FCOSHead, partial(FPN, channels=8), [False, True, True, True]),
        (FCOSHead, partial(FPN, channels=8, min_level=2), [True, True, True, True]),
        (partial(DeepLabV3PlusHead, channels=8), IdentityNeck, [True, False, False, True]),
        (partial(DeepLabV3PlusHead, channels=8, aux=0.4), IdentityNeck, [True, False, True, True]),
    ],
)
def test_levels_that_the_head_reads_are_kept(head, neck, kept):
    made = model(head, neck)
    before = {k: v.clone() for k, v in made.state_dict().items()}
    state = torch.get_rng_state()
    assert [level.kept for level in extractor(made).levels] == kept
    assert all(torch.equal(v, before[k]) for k, v in made.state_dict().items()), "statistics do not move"
    assert torch.equal(state, torch.get_rng_state())
    assert made.training


def test_features_are_the_backbones(tmp_path):
    made = model(partial(DeepLabV3PlusHead, channels=8))
    extract = extractor(made)
    store = FeatureStore(tmp_path, extract.levels)
    found = collect(store, extract, pictures())
    batches = list(pictures())
    view = FeatureView(store, found, channels=3, device=CPU)
    for start, batch in zip((0, 4, 8), batches, strict=True):
        got = view.__getitems__(range(start, start + len(batch)))
        assert got.images.shape == (len(batch), 3, 0, 0)
        assert got.infos == batch.infos
        assert all(torch.equal(a.scores, b.scores) for a, b in zip(got.targets, batch.targets, strict=True))
        assert got.features is not None
        for level, expected, mine in zip(
            extract.levels, expected_levels(made, batch.images), got.features, strict=True
        ):
            torch.testing.assert_close(mine, expected if level.kept else torch.zeros_like(expected))
            assert not level.kept or mine.is_contiguous(memory_format=torch.channels_last)


def test_bf16_is_kept_as_bf16(tmp_path):
    made = model()
    extract = extractor(made, context=partial(torch.autocast, "cpu", torch.bfloat16), precision="bf16-mixed")
    assert [(level.dtype, level.size) for level in extract.levels] == [("bfloat16", 2 * 512)]
    assert extract.key() != extractor(made).key()


def test_key_of_a_picture_is_that_of_its_pixels():
    batch = next(iter(pictures()))
    image = batch.images[0]
    assert len({image_key(x) for x in batch.images}) == 4
    assert image_key(image) == image_key(image.contiguous())
    changed = image.clone()
    changed[2, 63, 63] ^= 1
    assert image_key(changed) != image_key(image)
    assert image_key(image.reshape(3, 32, 128)) != image_key(image)
    other = next(iter(pictures(size=SIZE - 8)))  # another preprocessing
    assert image_key(other.images[0]) != image_key(image)


def test_key_of_a_store_is_that_of_all_its_numbers_depend_on():
    made = model()
    key = extractor(made).key()
    assert key == extractor(model()).key() == extractor(model(MLPHead)).key() == extractor(model(), batch_size=8).key()
    others = {
        "neck": extractor(model(FCOSHead, partial(FPN, channels=8))).key(),
        "level": extractor(model(FCOSHead, partial(FPN, channels=8, min_level=2))).key(),
        "size": extractor(model(partial(DeepLabV3PlusHead, channels=8))).key(),
        "larger": extractor(model(partial(DeepLabV3PlusHead, channels=8)), size=(96, 96)).key(),
        "precision": extractor(made, precision="bf16-mixed").key(),
        "setting": extractor(model(stem="small")).key(),
        "statistics": extractor(model(mean=(0.5, 0.5, 0.5))).key(),
    }
    with torch.no_grad():
        made.backbone.layer1[0].conv1.weight[0, 0, 0, 0] += 1e-6
    others["weight"] = extractor(made).key()
    made.backbone.layer1[0].conv1.weight[0, 0, 0, 0].data -= 1e-6
    made.backbone.bn1.running_var[0] += 1e-6
    others["buffer"] = extractor(made).key()
    assert len({key, *others.values()}) == len(others) + 1
    assert len(key) == 16


# ---- one pass


class Counting(Extractor):
    """Counts pictures, and stops as a kill would."""

    seen = 0
    stop_after = 10**9

    def __call__(self, images):
        if self.seen + len(images) > self.stop_after:
            raise KeyboardInterrupt
        self.seen += len(images)
        return super().__call__(images)


def counting(**settings):
    return Counting(model(), size=(SIZE, SIZE), batch_size=4, context=nullcontext, **settings)


def test_a_killed_pass_goes_on_where_it_was(tmp_path):
    first, second = counting(), counting()
    first.stop_after = 8
    with pytest.raises(KeyboardInterrupt):
        collect(FeatureStore(tmp_path, first.levels), first, pictures())
    found = collect(FeatureStore(tmp_path, second.levels), second, pictures())
    assert (first.seen, second.seen) == (8, 2)
    assert len(set(found.rows.tolist())) == 10


def test_new_pictures_join_the_old_and_equal_ones_are_one(tmp_path):
    extract = counting()
    collect(FeatureStore(tmp_path, extract.levels), extract, pictures(6))
    store = FeatureStore(tmp_path, extract.levels)
    twice = [*pictures(9), *pictures(9)]
    found = collect(store, extract, twice)
    assert extract.seen == 9
    assert found.rows.tolist() == 2 * list(range(9))
    assert len(found.targets) == len(found.infos) == 18


def test_workers_leave_no_open_files(tmp_path):
    extract = counting()
    view = EvaluationView(ShapesClassification(10, size=SIZE), Preprocessing(SIZE))
    found = collect(FeatureStore(tmp_path, extract.levels), extract, evaluation_loader(view, batch_size=4, workers=1))
    assert not any(target.scores.is_shared() for target in found.targets)


def test_training_batches_come_in_the_order_of_the_uncached_loader(tmp_path):
    extract = extractor()
    store = FeatureStore(tmp_path, extract.levels)
    view = FeatureView(store, collect(store, extract, pictures(10)), channels=3, device=CPU)
    order = EvaluationView(ShapesClassification(10, size=SIZE), Preprocessing(SIZE))
    for settings in ({}, {"num_replicas": 2, "rank": 1}, {"weights": torch.linspace(0.1, 1, 10)}):
        loader = TrainingLoader(view, EpochSampler(view, seed=3, **settings), batch_size=3, workers=0)
        keys = EpochSampler(order, seed=3, **settings)
        for epoch in (0, 1):
            loader.sampler.set_epoch(epoch)
            keys.set_epoch(epoch)
            loader.skip(epoch)
            names = [info.id for batch in loader for info in batch.infos]
            expected = [order[i].info.id for _, i in keys]
            assert names == expected[3 * epoch : len(expected) // 3 * 3]
            assert loader.state_dict() == {"batches": len(expected) // 3}
