"""Pictures of a training: which are drawn when, what they show, and that the training does not feel them."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from visionkit.cli.main import run
from visionkit.core.sample import Batch, ImageInfo
from visionkit.tasks.classification.types import ClassPrediction, ClassTarget
from visionkit.training.pictures.callback import Pictures

TINY = [
    *("--model.backbone.layers=[1,1,1,1]", "--model.backbone.block=basic", "--model.backbone.stem=small"),
    *("--data.size=32", "--data.batch_size=4", "--data.num_workers=0", "--model.head.dropout=0.3"),
]


def fit(photos, folder, *more):
    arguments = ["--data.root", str(photos), *TINY, "--trainer.default_root_dir", str(folder), *more]
    assert run(["fit", "-c", "classify.yaml", *arguments]) == 0


def results(folder):
    weights = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    return weights, [{k: v for k, v in row.items() if "second" not in k} for row in rows]


def pictures(folder):
    return sorted(path.name for path in (folder / "pictures").glob("*.jpg"))


def test_a_training_with_pictures_is_bit_equal_to_one_without(photos, tmp_path):
    mix = ["--model.mix=MixUpCutMix", "--model.recipe.ema=0.9"]
    fit(photos, tmp_path / "a", "--trainer.max_epochs=3", "--pictures=none", "--trainer.logger=false", *mix)
    fit(photos, tmp_path / "b", "--trainer.max_epochs=3", "--pictures=3", *mix)
    (weights, rows), (others, other_rows) = results(tmp_path / "a"), results(tmp_path / "b")
    assert rows == other_rows
    assert all(torch.equal(weights[k], others[k]) for k in weights)
    assert not (tmp_path / "a" / "pictures").exists()
    assert pictures(tmp_path / "b") == ["train_batch.jpg", "val_epoch_003.jpg"]
    assert (tmp_path / "b" / "pictures" / ".visionkit-output").is_file(), "never data"
    sheet = Image.open(tmp_path / "b" / "pictures" / "val_epoch_003.jpg")
    assert min(sheet.size) > 400
    events = b"".join(path.read_bytes() for path in (tmp_path / "b" / "tensorboard").iterdir())
    assert b"pictures/train_batch" in events
    assert b"pictures/val" in events


def test_pictures_of_a_resumed_training(photos, tmp_path):
    fit(photos, tmp_path / "a", "--trainer.max_epochs=2", "--trainer.logger=false")
    assert pictures(tmp_path / "a") == ["train_batch.jpg", "val_epoch_001.jpg", "val_epoch_002.jpg"]
    first = (tmp_path / "a" / "pictures" / "val_epoch_001.jpg").read_bytes()
    fit(photos, tmp_path / "a", "--trainer.max_epochs=4", "--trainer.logger=false", "--ckpt_path=last")
    assert pictures(tmp_path / "a")[1:] == ["val_epoch_001.jpg", "val_epoch_002.jpg", "val_epoch_004.jpg"]
    assert (tmp_path / "a" / "pictures" / "val_epoch_001.jpg").read_bytes() == first


def test_features_in_place_of_pictures(photos, tmp_path):
    frozen = ["--model.recipe.freeze=backbone", "--data.augment=null", "--trainer.logger=false"]
    fit(photos, tmp_path / "a", "--trainer.max_epochs=1", *frozen)
    assert pictures(tmp_path / "a") == ["train_batch.jpg", "val_epoch_001.jpg"]
    pixels = np.asarray(Image.open(tmp_path / "a" / "pictures" / "train_batch.jpg"))
    assert pixels.std() > 20, "the pictures themselves, read again"


class Shown:
    """A sheet that keeps what it was given."""

    def __init__(self):
        self.calls = []

    def __call__(self, groups, heading):
        self.calls.append((groups, heading))
        return groups[0][0][0]


@pytest.fixture
def told(told_task, told_trainer, tmp_path):
    """A callback with a sheet that tells, a task and a trainer of three epochs."""
    task, trainer = told_task("max"), told_trainer(max_epochs=3)
    trainer.loggers, trainer.datamodule, trainer.state = [], None, SimpleNamespace(fn="fit")
    trainer.sanity_checking, trainer.lightning_module = False, task
    task.model = SimpleNamespace(classes=("cat", "dog"))
    task.watch_training = task.watch_validation = None
    return Pictures(tmp_path, Shown()), task, trainer


def batch(count=20):
    images = torch.zeros(count, 3, 32, 32, dtype=torch.uint8)
    infos = [ImageInfo(f"folder/{k}.jpg", (32, 32)) for k in range(count)]
    return Batch(images, [ClassTarget.make(k % 2, 2) for k in range(count)], infos)


def test_the_first_batch_alone_is_drawn(told, tmp_path):
    callback, task, trainer = told
    callback.on_train_start(trainer, task)
    task.watch_training(batch())
    ((groups, heading),) = callback.sheet.calls
    assert heading == "training batch of epoch 1, as the network sees it: 16 of 20 pictures"
    assert [caption for ((_, caption),) in groups] == [f"{k}.jpg" for k in range(16)]
    assert task.watch_training is None
    assert (tmp_path / "pictures" / "train_batch.jpg").is_file()


def test_other_processes_draw_nothing(told):
    callback, task, trainer = told
    trainer.is_global_zero = False
    callback.on_train_start(trainer, task)
    callback.on_validation_epoch_start(trainer, task)
    assert task.watch_training is None
    assert task.watch_validation is None


def test_what_cannot_be_drawn_is_said_once_and_ends_no_training(told, capsys):
    callback, task, trainer = told

    class Undrawable(ClassTarget):
        def draw(self, image, names):
            raise ZeroDivisionError("no ink")

    callback.on_train_start(trainer, task)
    made = batch(1)
    task.watch_training(Batch(made.images, [Undrawable(torch.ones(2))], made.infos))
    assert capsys.readouterr().err == "note     no pictures of this training: no ink\n"
    trainer.datamodule = None
    callback.on_validation_epoch_start(trainer, task)
    assert task.watch_validation is None


def test_a_validation_before_the_first_step_is_that_of_epoch_0(told):
    callback, task, trainer = told
    callback._pairs, callback._chosen = {"a": [(torch.zeros(3, 9, 9, dtype=torch.uint8), "")]}, [("a", 0)]
    trainer.global_step = 0
    assert callback._due(trainer)
    callback.on_validation_end(trainer, task)
    assert callback.sheet.calls[0][1] == "validation before the first step: truth | prediction"
    assert (callback.folder / "val_epoch_000.jpg").is_file()
    trainer.global_step = 7
    assert callback._due(trainer), "the first epoch is drawn as well"


def test_truth_beside_prediction(told):
    callback, task, trainer = told
    made = batch(2)
    dataset = [SimpleNamespace(image=i, target=t) for i, t in zip(made.images, made.targets, strict=True)]
    callback._chosen = [("folder/1.jpg", 1)]
    callback._keep(task, dataset, [ClassPrediction(torch.tensor([0.3, 0.7]))] * 2, made)
    callback.on_validation_end(trainer, task)
    (((group,), heading),) = callback.sheet.calls
    assert heading == "validation after epoch 1: truth | prediction"
    assert [caption for _, caption in group] == ["truth   1.jpg", "prediction"]
    assert not torch.equal(group[0][0], group[1][0]), "one says dog, the other dog 70%"
