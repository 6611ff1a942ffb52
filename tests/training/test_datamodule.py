from pathlib import Path

import lightning as L
import pytest
import torch
from PIL import Image

from visionkit import ClassificationData, DataError, Preprocessing, UsageError, VisionDataModule
from visionkit.data.dataset import DataSplits
from visionkit.tasks.classification.readers.shapes import ShapesClassification


def small(root: Path | None, **settings):
    return ClassificationData(None if root is None else str(root), size=32, num_workers=0, **settings)


def test_data_sets_made_in_python():
    splits = DataSplits(ShapesClassification(10, size=32), ShapesClassification(4, size=32, seed=1))
    data = VisionDataModule(splits, preprocessing=Preprocessing(32), batch_size=5, num_workers=0)
    data.setup("fit")
    assert [len(b) for b in data.train_dataloader()] == [5, 5]
    assert [len(b) for b in data.val_dataloader()] == [4]
    assert data.classes == splits.train.classes


@pytest.mark.parametrize(
    ("limits", "epochs"), [({"max_epochs": 7}, 7), ({"max_epochs": -1}, None), ({"max_steps": 3}, None)]
)
def test_combine_learns_how_many_epochs_there_are(limits, epochs):
    asked = []

    def combine(dataset, index, preprocessing, *, seed, epoch, epochs):
        asked.append(epochs)

    splits = DataSplits(ShapesClassification(4, size=32), ShapesClassification(4, size=32))
    data = VisionDataModule(splits, preprocessing=Preprocessing(32), combine=combine, batch_size=2, num_workers=0)
    next(iter(data.train_dataloader()))
    data.trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, **limits
    )
    next(iter(data.train_dataloader()))
    next(iter(data.val_dataloader()))
    assert asked == [None, None, epochs, epochs], "validation combines nothing"


def test_missing_split_names_the_source():
    data = VisionDataModule(DataSplits(ShapesClassification(10, size=32), None), preprocessing=Preprocessing(32))
    with pytest.raises(DataError, match="no val split: given in Python"):
        data.val_dataloader()


def test_without_splits_it_says_what_to_do():
    with pytest.raises(UsageError, match="give VisionDataModule its splits"):
        VisionDataModule(preprocessing=Preprocessing(32)).classes  # noqa: B018


@pytest.mark.parametrize("bad", [{"batch_size": 0}, {"num_workers": -1}])
def test_values_out_of_range(bad):
    with pytest.raises(UsageError, match=f"data.{next(iter(bad))}"):
        VisionDataModule(preprocessing=Preprocessing(32), **bad)


def test_preprocessing_is_one_object_for_training_and_validation(photos):
    data = small(photos)
    assert data.train_dataloader().dataset.preprocessing is data.val_dataloader().dataset.preprocessing


def test_corrupt_images_are_listed_all_at_once(photos):
    (photos / "red" / "1.png").write_bytes(b"")
    data = (photos / "blue" / "2.png").read_bytes()
    (photos / "blue" / "2.png").write_bytes(data[: len(data) // 2])
    module = small(photos)
    with pytest.raises(DataError) as e:
        module.setup("fit")
    lines = str(e.value).splitlines()
    together = small(photos, skip_corrupt=True)
    together.setup("fit")
    assert len(together.skipped) == 2
    assert len(together.splits.train) + len(together.splits.val) == 22
    assert "--data.skip_corrupt true" in lines[-1]
    assert all(any(name in line for line in together.skipped) for name in ("1.png", "2.png"))


def test_a_split_of_corrupt_images_only(photos):
    for path in photos.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="no image of the train split can be read") as raised:
        small(photos, skip_corrupt=True).setup("fit")
    assert not any("\n" in line for line in raised.value.lines)


@pytest.mark.parametrize(("split", "words"), [("train", "3 training images"), ("val", "1 validation image for")])
def test_each_process_needs_an_image(monkeypatch, split, words):
    splits = DataSplits(ShapesClassification(3, size=32), ShapesClassification(1, size=32, seed=1))
    data = VisionDataModule(splits, preprocessing=Preprocessing(32), num_workers=0)
    monkeypatch.setattr(data, "_processes", lambda: (4, 3))
    with pytest.raises(DataError, match=rf"{words}.* 4 processes, and each needs one: lower --trainer\.devices to \d$"):
        getattr(data, f"{split}_dataloader")()


def test_without_the_check_the_reader_names_the_file(photos):
    for path in photos.rglob("*.png"):
        path.write_bytes(b"")
    data = small(photos, check_images=False)
    data.setup("fit")
    with pytest.raises(DataError, match=r"\d\.png: "):
        next(iter(data.val_dataloader()))


def test_balanced_loss_weighs_classes_by_how_rare_they_are(photos):
    for i in range(24):
        Image.new("RGB", (8, 8)).save(photos / "red" / f"more{i}.png")
    data = small(photos, balance="loss")
    weights = data.splits.train[0].target.weights
    counts = torch.tensor([sum(k in labels for labels in data.splits.train.labels) for k in range(3)])
    torch.testing.assert_close(weights * counts, (weights * counts)[:1].expand(3))  # equal weight in all
    torch.testing.assert_close((weights * counts).sum(), counts.sum().float())


def test_balanced_sampling_shows_classes_equally_often(photos):
    for i in range(40):
        Image.new("RGB", (8, 8)).save(photos / "red" / f"more{i}.png")
    data = small(photos, balance="sampling", augment=None)
    labels = data.splits.train.labels
    sampler = data.train_dataloader().sampler
    counts = torch.zeros(3)
    for epoch in range(30):
        sampler.set_epoch(epoch)
        for _, i in sampler:
            counts[labels[i][0]] += 1
    assert (counts / counts.sum() - 1 / 3).abs().max() < 0.05


def test_fixed_classes_need_no_training_images(photos):
    data = small(photos, classes=["green", "red", "blue"])
    assert data.classes == ("green", "red", "blue")
    assert data.splits.val.classes == ("green", "red", "blue")
