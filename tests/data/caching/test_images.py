"""Cached pictures: the same samples with and without, never stale, never torn, within the limit, shared."""

import dataclasses
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time

import cv2
import lightning as L
import numpy as np
import pytest
import torch

from visionkit import DataSplits, VisionDataModule
from visionkit.core.errors import DataError, UsageError
from visionkit.data.caching.images import CacheSettings, ImageCache
from visionkit.data.caching.store import RECORD, ImageStore
from visionkit.data.dataset import VisionDataset
from visionkit.data.images.reading import check_images
from visionkit.data.loading import EvaluationView, TrainingLoader, TrainingView, evaluation_loader
from visionkit.data.samplers import EpochSampler
from visionkit.data.transforms.augmentation import Augmentation
from visionkit.data.transforms.crop import RandomScaledCrop
from visionkit.data.transforms.mosaic import Mosaic
from visionkit.data.transforms.preprocessing import Preprocessing
from visionkit.tasks.classification.data import ClassificationData
from visionkit.tasks.classification.readers.reader import ClassDataset, Entry
from visionkit.tasks.classification.readers.shapes import ShapesClassification
from visionkit.tasks.detection.readers.reader import BoxDataset, make_entry
from visionkit.tasks.multitask.data import MultiTaskData
from visionkit.tasks.multitask.dataset import put_together
from visionkit.tasks.multitask.loading import CombineAlike
from visionkit.training import datamodule

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="caches are shared by files that Windows lacks")

PLACE = Preprocessing(32, resize="letterbox")
AUGMENT = Augmentation([{"RandomResizedCrop": {"size": "input"}}, {"HorizontalFlip": {"p": 0.5}}])
COUNT, BYTES = 12, 32 * 32 * 3


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    found = []
    for i in range(COUNT):
        path = tmp_path / "photos" / f"{i}.jpg"
        path.parent.mkdir(exist_ok=True)
        shape = (int(rng.integers(40, 200)), int(rng.integers(40, 200)), 3)
        cv2.imwrite(str(path), cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), shape[1::-1]))
        found.append(path)
    return found


def classes(files):
    return ClassDataset([Entry(str(f), (i % 3,), f.name) for i, f in enumerate(files)], ["a", "b", "c"])


def boxes(files):
    found = []
    for f in files:
        height, width = cv2.imread(str(f)).shape[:2]
        found.append(make_entry(str(f), f.name, [], ["a"], size=(height, width), source="labels"))
    return BoxDataset(found, ["a"])


def cache_of(dataset, kind="ram", folder=None, limit=1.0, whole=()):
    return ImageCache(CacheSettings(kind, None, limit), [dataset], PLACE, whole=whole, folder=folder)


def epochs(dataset, cache=None, *, workers=0, combine=None, epochs=2, augment=AUGMENT):
    view = TrainingView(dataset, PLACE, augment, seed=1, combine=combine, cache=cache)
    sampler = EpochSampler(view, seed=1)
    loader = TrainingLoader(view, sampler, batch_size=4, workers=workers)
    found = []
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        found += [b for batch in loader for b in zip(batch.images.clone(), batch.targets, batch.infos, strict=True)]
    return found


def equal(first, second):
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if dataclasses.is_dataclass(first):
        return all(equal(getattr(first, f.name), getattr(second, f.name)) for f in dataclasses.fields(first))
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[k], second[k]) for k in first)
    return first == second


def same(first, second):
    return len(first) == len(second) and all(
        equal(x, y) for one, other in zip(first, second, strict=True) for x, y in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("kind", ["ram", "disk"])
@pytest.mark.parametrize("workers", [0, 2])
def test_training_sees_the_same_with_and_without_cache(files, tmp_path, kind, workers):
    dataset = classes(files)
    assert same(epochs(dataset, cache_of(dataset, kind, tmp_path / "cache"), workers=workers), epochs(dataset))


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [{"CoarseDropout": {"p": 1.0}}],
        [{"PixelDropout": {"p": 0.5, "dropout_prob": 0.5}}],
        [{"HorizontalFlip": {"p": 0.5}}, {"CoarseDropout": {"p": 0.5}}],
        [{"RandomResizedCrop": {"size": "input", "scale": [1, 1], "ratio": [1, 1]}}, {"GridDropout": {"p": 1.0}}],
        [{"OneOf": {"transforms": [{"RandomGamma": {"p": 1.0}}, {"ChannelDropout": {"p": 1.0}}], "p": 0.5}}],
    ],
)
def test_memory_of_all_processes_is_never_changed(files, entries):
    dataset, augment = classes(files), Augmentation(entries)
    cache = cache_of(dataset)
    list(evaluation_loader(EvaluationView(dataset, PLACE, cache), batch_size=4, workers=0))
    before = [cache.store.read(row).pixels for row in cache.store.rows.values()]
    assert same(epochs(dataset, cache, augment=augment), epochs(dataset, augment=augment))
    for row, pixels in zip(cache.store.rows.values(), before, strict=True):
        np.testing.assert_array_equal(cache.store.read(row).pixels, pixels)


class Darken(Augmentation):
    """What a user might write: changes the image in place."""

    def __call__(self, sample, seed):
        sample.image[:] = sample.image // 2
        return sample


def test_an_augmentation_of_the_users_own_gets_samples_that_it_may_change(files):
    dataset, cache = classes(files), cache_of(classes(files))
    plain = epochs(dataset, augment=Augmentation(None))
    for found in (epochs(dataset, cache, augment=Darken(None)), epochs(dataset, augment=Darken(None))):
        assert same([(image,) for image, *_ in found], [(image // 2,) for image, *_ in plain])


def test_shared_pixels_cannot_be_written_and_outlive_the_store():
    store = ImageStore(None, limit=10**6)
    store.plan([bytes(16)])
    assert store.read(1) is None
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    store.write(1, pixels, (50, 70))
    shared, copied = store.read(1, shared=True), store.read(1)
    assert shared.size == copied.size == (50, 70)
    assert copied.pixels.flags.writeable
    if hasattr(os, "memfd_create"):
        assert not shared.pixels.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            shared.pixels[0] = 0
    other = pickle.loads(pickle.dumps(store))  # as a worker gets it
    np.testing.assert_array_equal(other.read(1, shared=True).pixels, pixels)
    store.close()
    assert store.read(1) is None
    np.testing.assert_array_equal(shared.pixels, pixels)
    other.close()


def test_damaged_pixels_are_replaced_for_all_that_have_seen_them(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    first = ImageStore(tmp_path, limit=10**6)
    first.plan([bytes(16)])
    first.write(1, pixels, (50, 70))
    first.close()
    with (tmp_path / "pixels.bin").open("r+b") as file:
        file.write(bytes(pixels.nbytes))  # what a machine that stopped may leave
    store = ImageStore(tmp_path, limit=10**6)
    store.plan([bytes(16)])
    other = pickle.loads(pickle.dumps(store))
    assert store.read(1) is None
    assert other.read(1) is None
    store.write(1, pixels, (50, 70))
    for each in (store, other, store):
        np.testing.assert_array_equal(each.read(1).pixels, pixels)
    store.close()
    other.close()


def test_memory_that_cannot_be_mapped_is_read(files, monkeypatch):
    def refuse(*_, **__):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("visionkit.data.caching.store.mmap.mmap", refuse)
    dataset = classes(files)
    cache = cache_of(dataset)
    assert cache.store.read(1, shared=True) is None
    assert same(epochs(dataset, cache), epochs(dataset))
    assert cache.store.read(1, shared=True).pixels.flags.writeable


@pytest.mark.parametrize("combine", [Mosaic(0.5), RandomScaledCrop((0.5, 2.0))])
def test_combined_pictures_are_the_same_and_come_from_the_cache(files, combine):
    dataset = boxes(files)
    plain = epochs(dataset, combine=combine)
    cache = cache_of(dataset, whole=[dataset])
    assert same(epochs(dataset, cache, combine=combine), plain)
    for f in files:
        os.unlink(f)
    assert same(epochs(dataset, cache, combine=combine), plain)


def test_cached_pictures_touch_no_file(files):
    dataset = classes(files)
    cache = cache_of(dataset)
    first = epochs(dataset, cache)
    for f in files:
        os.unlink(f)
    assert same(epochs(dataset, cache), first)
    view = EvaluationView(dataset, PLACE, cache)
    batch = next(iter(evaluation_loader(view, batch_size=COUNT, workers=1)))
    assert len(batch) == COUNT
    assert batch.images.is_contiguous(memory_format=torch.channels_last)


def test_a_worker_of_any_start_method_shares_the_cache(files):
    dataset = classes(files)
    cache = cache_of(dataset)
    view = EvaluationView(dataset, PLACE, cache)
    from torch.utils.data import DataLoader

    from visionkit.data.loading import loader_settings

    loader = DataLoader(view, batch_size=4, multiprocessing_context="spawn", **loader_settings(1, False))
    images = torch.cat([batch.images.clone() for batch in loader])
    for f in files:
        os.unlink(f)
    assert torch.equal(torch.cat([view[i].image[None] for i in range(COUNT)]), images)  # what the worker has put there


def test_the_disk_is_warm_for_the_next_run_and_never_stale(files, tmp_path):
    dataset = classes(files)
    first = cache_of(dataset, "disk", tmp_path / "cache")
    assert first.known == 0
    epochs(dataset, first, epochs=1)
    first.close()
    cv2.imwrite(str(files[0]), np.full((50, 60, 3), 7, np.uint8))  # changed
    os.utime(files[1])  # touched
    second = cache_of(dataset, "disk", tmp_path / "cache")
    assert second.known == COUNT - 2
    view = EvaluationView(dataset, PLACE, second)
    plain = EvaluationView(dataset, PLACE)
    assert all(torch.equal(view[i].image, plain[i].image) for i in range(COUNT))
    assert view[0].info == plain[0].info
    other = ImageCache(CacheSettings("disk"), [dataset], Preprocessing(16), folder=tmp_path / "cache")
    assert other.known == 0


def test_a_picture_replaced_by_one_of_the_same_size_and_time_is_read_anew(tmp_path):
    files = [tmp_path / f"{k}.bmp" for k in range(3)]  # files of one size, whatever they show
    for k, file in enumerate(files):
        cv2.imwrite(str(file), np.full((50, 60, 3), 20 * k, np.uint8))
    dataset = classes(files)
    first = cache_of(dataset, "disk", tmp_path / "cache")
    epochs(dataset, first, epochs=1)
    first.close()
    then = files[0].stat().st_mtime_ns
    cv2.imwrite(str(files[0]), np.full((50, 60, 3), 99, np.uint8))
    os.utime(files[0], ns=(then, then))  # as cp -p, rsync -t and unzip do
    second = cache_of(dataset, "disk", tmp_path / "cache")
    assert second.known == 2
    assert torch.equal(EvaluationView(dataset, PLACE, second)[0].image, EvaluationView(dataset, PLACE)[0].image)


@pytest.mark.parametrize(("place", "value"), [(24, 2**31), (36, 51), (40, 69)], ids=["shape", "height", "width"])
def test_a_damaged_record_is_no_picture(tmp_path, place, value):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    first = ImageStore(tmp_path, limit=10**6)
    first.plan([bytes(16)])
    first.write(1, pixels, (50, 70))
    first.close()
    with (tmp_path / "records.bin").open("r+b") as file:
        file.seek(RECORD.itemsize + place)
        assert int.from_bytes(file.read(4), "little") in (5, 50, 70)
        file.seek(RECORD.itemsize + place)
        file.write(value.to_bytes(4, "little"))
    store = ImageStore(tmp_path, limit=10**6)
    store.plan([bytes(16)])
    assert store.read(1) is None
    store.write(1, pixels, (50, 70))
    assert store.read(1).size == (50, 70)
    store.close()


def test_what_is_kept_is_never_overwritten(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    store = ImageStore(tmp_path, limit=10**6)
    store.plan([bytes(16)])
    store.write(1, pixels, (5, 7))
    store.close()
    with (tmp_path / "records.bin").open("r+b") as file:
        file.seek(16)
        file.write(bytes(8))  # where free room begins, damaged
    store = ImageStore(tmp_path, limit=10**6)
    store.plan([bytes(16), bytes(15) + b"1"])
    store.read(1)
    store.write(2, 255 - pixels, (5, 7))
    np.testing.assert_array_equal(store.read(1).pixels, pixels)
    store.close()


def test_the_limit_is_kept(files, tmp_path):
    dataset = classes(files)
    cache = cache_of(dataset, "disk", tmp_path / "cache", limit=(5 * BYTES + 10) / 1e9)
    assert "5 of them fit" in str(cache)
    assert same(epochs(dataset, cache), epochs(dataset))
    assert cache.store.used == 5 * BYTES
    assert max(p.stat().st_size for p in (tmp_path / "cache").rglob("*.bin")) == 5 * BYTES


def test_pictures_of_others_make_room(files, tmp_path):
    limit = (6 * BYTES + 10) / 1e9
    old, new = classes(files[:6]), classes(files[6:])
    first = cache_of(old, "disk", tmp_path / "cache", limit)
    assert all(
        sample.image.shape == (3, 32, 32) for sample in map(EvaluationView(old, PLACE, first).__getitem__, range(6))
    )
    held = cache_of(new, "disk", tmp_path / "cache", limit)  # while another process uses it nothing is removed
    assert held.store.used == 6 * BYTES
    held.close()
    first.close()
    third = cache_of(new, "disk", tmp_path / "cache", limit)
    assert third.store.used == 0
    assert same(epochs(new, third), epochs(new))
    other = ImageCache(CacheSettings("disk", None, limit), [old], Preprocessing((16, 64)), folder=tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*/pixels.bin"))) == 2  # in use
    third.close()
    other.close()
    ImageCache(CacheSettings("disk", None, limit), [old], Preprocessing((64, 16)), folder=tmp_path / "cache").close()
    assert len(list((tmp_path / "cache").glob("*/pixels.bin"))) == 1


def test_a_killed_process_leaves_no_torn_picture(tmp_path):
    code = f"""
        import numpy as np
        from pathlib import Path
        from visionkit.data.caching.store import ImageStore
        store = ImageStore(Path({str(tmp_path / "store")!r}), limit=10**9)
        keys = [bytes([i]) * 16 for i in range(200)]
        store.plan(keys)
        print("ready", flush=True)
        while True:
            for i, key in enumerate(keys):
                store.write(store.rows[key], np.full((300, 300, 3), i, np.uint8), (i, i))
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    store = ImageStore(tmp_path / "store", limit=10**9)
    keys = [bytes([i]) * 16 for i in range(200)]
    known = store.plan(keys)
    found = {i: store.read(store.rows[key]) for i, key in enumerate(keys)}
    assert known > 0
    assert sum(kept is not None for kept in found.values()) == known
    for i, kept in found.items():
        assert kept is None or ((kept.pixels == i).all() and kept.size == (i, i))


def test_pixels_that_never_reached_the_disk_are_read_anew(files, tmp_path):
    dataset = classes(files)
    first = cache_of(dataset, "disk", tmp_path / "cache")
    plain = epochs(dataset, first, epochs=1)
    first.close()
    (pixels,) = (tmp_path / "cache").glob("*/pixels.bin")
    with pixels.open("r+b") as file:  # what a power failure can leave
        file.seek(3 * BYTES)
        file.write(bytes(BYTES))
    with pixels.open("r+b") as file:
        file.truncate(11 * BYTES - 5)
    assert same(epochs(dataset, cache_of(dataset, "disk", tmp_path / "cache"), epochs=1), plain)


def test_a_full_disk_ends_caching_with_one_line(files, monkeypatch, capsys):
    dataset = classes(files)
    cache = cache_of(dataset)
    plain, write = epochs(dataset), os.pwrite

    def full(file, data, offset):
        if len(data) > 1000 and offset >= 3 * BYTES:
            raise OSError(28, "No space left on device")
        return write(file, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    assert same(epochs(dataset, cache), plain)
    assert same(epochs(dataset, pickle.loads(pickle.dumps(cache))), plain)  # another process
    assert capsys.readouterr().out.count("no longer cached") == 1


def test_data_sets_without_files_or_descriptions_are_read_anew(files):
    class Own(VisionDataset):
        classes = ("a", "b", "c")

        def __init__(self, inner):
            self.inner, self.ids = inner, inner.ids

        def __getitem__(self, index):
            return self.inner[index]

    class Sub(ClassDataset):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return sample.replace(image=255 - sample.image)

    inner = classes(files)
    for dataset in (Own(inner), Sub(inner.entries, inner.classes), ShapesClassification(COUNT, size=32)):
        cache = cache_of(dataset)
        assert same(epochs(dataset, cache), epochs(dataset))
        assert cache.store.used == 0
    assert "Own" in str(cache_of(Own(inner)))
    sub = Sub(inner.entries, inner.classes)
    assert not same(epochs(sub), epochs(inner))  # its own way to read counts


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cache": "tape"}, "cache='tape'"),
        ({"cache": "ram", "cache_folder": "x"}, "cache_folder is for data.cache disk"),
        ({"cache": "ram", "cache_limit": 0}, "cache_limit=0"),
    ],
)
def test_nonsense_is_refused(files, settings, message):
    with pytest.raises(UsageError, match=message):
        VisionDataModule(DataSplits(classes(files), None), preprocessing=PLACE, **settings)


def fit(data, folder, **settings):
    """Run two epochs through a trainer; return the pictures of all training and validation batches."""
    seen = []

    class Watching(L.LightningModule):
        def training_step(self, batch, index):
            seen.append((batch.images.clone(), tuple(i.id for i in batch.infos)))

        validation_step = training_step

        def configure_optimizers(self):
            return None

    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        reload_dataloaders_every_n_epochs=0,
        **settings,
    )
    trainer.fit(Watching(), datamodule=data)
    return seen


def module(files, **settings):
    dataset = classes(files)
    splits = DataSplits(dataset.subset(range(8)), dataset.subset(range(8, COUNT)))
    return VisionDataModule(splits, preprocessing=PLACE, augment=AUGMENT, batch_size=4, num_workers=2, **settings)


def test_a_training_says_where_its_pictures_are_and_removes_its_own(files, tmp_path, capsys):
    plain = fit(module(files), tmp_path / "run")
    assert "cached" not in capsys.readouterr().out
    for settings, where in (
        ({"cache": "ram"}, "memory"),
        ({"cache": "disk"}, str(tmp_path / "run" / "cache")),
        ({"cache": "disk", "cache_folder": str(tmp_path / "mine")}, str(tmp_path / "mine")),
        ({"cache": "disk", "cache_folder": str(tmp_path / "mine")}, "(12 known already)"),
    ):
        found = fit(module(files, **settings), tmp_path / "run")
        assert all(torch.equal(a, b) and i == j for (a, i), (b, j) in zip(found, plain, strict=True))
        (line,) = [x for x in capsys.readouterr().out.splitlines() if "cached" in x]
        assert line.startswith("pictures 12 cached")
        assert where in line
        assert line.endswith("0.0 MB")
    assert not (tmp_path / "run" / "cache").exists()
    assert (tmp_path / "mine").is_dir()


def test_a_folder_that_cannot_be_written_is_named(files, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file/cache cannot be written .*set data.cache_folder"):
        fit(module(files, cache="disk", cache_folder=str(tmp_path / "file" / "cache")), tmp_path)


def test_several_tasks_share_one_cache(files, tmp_path):
    splits = put_together({"kind": DataSplits(classes(files), None), "objects": DataSplits(boxes(files[4:]), None)})[0]
    dataset = splits.train
    cache = cache_of(dataset, whole=[dataset])
    assert cache.count == COUNT
    plain = epochs(dataset)
    assert same(epochs(dataset, cache), plain)
    mixed = epochs(dataset, combine=CombineAlike(Mosaic(1.0)))
    assert same(epochs(dataset, cache, combine=CombineAlike(Mosaic(1.0))), mixed)
    for f in files:
        os.unlink(f)
    assert same(epochs(dataset, cache), plain)
    assert same(epochs(dataset, cache, combine=CombineAlike(Mosaic(1.0))), mixed)


@pytest.mark.parametrize("settings", [{"cache": "ram"}, {"cache": "disk", "cache_folder": "x"}, {"cache_limit": 3.0}])
def test_several_tasks_say_it_once(settings):
    with pytest.raises(UsageError, match="all data sets have that in common"):
        MultiTaskData({"kind": ClassificationData(size=320, resize="letterbox", **settings)})


def test_a_trial_run_tries_the_cache_too(files, tmp_path, capsys):
    data = module(files, cache="disk", cache_folder=str(tmp_path / "mine"))
    seen = fit(data, tmp_path, fast_dev_run=True)
    assert "pictures 12 cached" in capsys.readouterr().out
    kept = {f.name for f, done in zip(files, ImageCache.decoded(data.cache, PLACE, files), strict=True) if done}
    assert {os.path.basename(name) for _, names in seen for name in names} <= kept  # workers read further ahead
    assert len(seen) == 2


def test_what_is_kept_as_it_is_now_needs_no_check(files, tmp_path, monkeypatch):
    settings = {"cache": "disk", "cache_folder": str(tmp_path / "mine")}
    checked = []

    def check(paths, *, channels, remarks):
        checked.append([p.name for p in paths if p is not None])
        return check_images(paths, channels=channels, remarks=remarks)

    monkeypatch.setattr(datamodule, "check_images", check)

    def setup(**changed):
        checked.clear()
        module(files, **settings | changed).setup("fit")
        return [name for names in checked for name in names]

    everything = [f.name for f in files]
    assert setup() == everything
    assert not (tmp_path / "mine").exists(), "asking makes nothing"
    fit(module(files, **settings), tmp_path)
    assert setup() == []
    assert setup(cache="none", cache_folder=None) == everything
    assert setup(cache_folder=None) == everything
    os.utime(files[3], ns=(1, 1))
    assert setup() == [files[3].name]
    files[5].write_bytes(files[5].read_bytes()[:-300])
    with pytest.raises(DataError, match=rf"{files[5].name}.*\n1 image of the train split"):
        setup()
    other = VisionDataModule(DataSplits(classes(files[:3]), None), preprocessing=Preprocessing(48), **settings)
    assert ImageCache.decoded(other.cache, other.preprocessing, files[:3]) == [False] * 3
