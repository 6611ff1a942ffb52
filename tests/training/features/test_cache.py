"""Training from cached features: the same weights and values as without, resumed, on two processes, refused."""

import re
from functools import partial

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from visionkit import (
    FPN,
    Classifier,
    DeepLabV3PlusHead,
    Detector,
    FasterRCNNHead,
    FCNHead,
    FCOSHead,
    FPNSegmentationHead,
    LinearHead,
    MixUpCutMix,
    MLPHead,
    ResNet,
    Segmenter,
    UsageError,
)
from visionkit.data.dataset import DataSplits
from visionkit.data.transforms.augmentation import Augmentation
from visionkit.data.transforms.mosaic import Mosaic
from visionkit.data.transforms.preprocessing import Preprocessing
from visionkit.tasks.classification.readers.shapes import ShapesClassification
from visionkit.tasks.detection.readers.shapes import ShapesDetection
from visionkit.tasks.segmentation.readers.shapes import ShapesSegmentation
from visionkit.training.datamodule import VisionDataModule
from visionkit.training.features.view import FeatureView
from visionkit.training.recipe import Recipe
from visionkit.training.run.checkpoints import SafeCheckpointIO

SIZE = 64
SHAPES = {Classifier: ShapesClassification, Detector: ShapesDetection, Segmenter: ShapesSegmentation}
MLP = partial(MLPHead, width=32, dropout=0.4)
SMALL_FPN = partial(FPN, channels=16)


def data(kind=Classifier, *, counts=(14, 6), **settings):
    train, val = (SHAPES[kind](n, size=SIZE, seed=seed) for seed, n in enumerate(counts))
    return VisionDataModule(
        DataSplits(train, val), preprocessing=Preprocessing(SIZE), **{"batch_size": 4, "num_workers": 0, **settings}
    )


def task(classes, kind=Classifier, head=LinearHead, neck=None, *, output_stride=32, recipe=None, **settings):
    torch.manual_seed(0)
    backbone = ResNet(layers=(1, 1, 1, 1), block="basic", stem="conv7", output_stride=output_stride)
    for name, value in backbone.named_buffers():  # BatchNorm statistics that are not those of a fresh network
        if value.ndim:
            value.uniform_(0.5, 1.5) if name.endswith("var") else value.uniform_(-0.2, 0.2)
    recipe = Recipe(**{"freeze": "backbone", "warmup_epochs": 0.5, **(recipe or {})})
    necks = {} if neck is None else {"neck": neck}
    return kind(
        backbone, **necks, head=head, classes=classes, preprocessing=Preprocessing(SIZE), recipe=recipe, **settings
    )


class Values(L.Callback):
    """Keeps all logged values of each epoch."""

    def __init__(self):
        self.rows = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.rows.append({k: float(v) for k, v in trainer.callback_metrics.items()})


def trainer(folder, epochs=2, callbacks=(), **settings):
    return L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        callbacks=list(callbacks),
        plugins=[SafeCheckpointIO()],
        default_root_dir=folder,
        **settings,
    )


def train(folder, cached, kind=Classifier, head=LinearHead, neck=None, *, output_stride=32, recipe=None, **settings):
    """Train two epochs; return weights, values and how often the backbone ran."""
    d = data(kind)
    recipe = {"cache_features": cached, **(recipe or {})}
    t = task(d.classes, kind, head, neck, output_stride=output_stride, recipe=recipe)
    calls, values = [], Values()
    t.model.backbone.register_forward_hook(lambda *_: calls.append(1))
    trainer(folder, callbacks=[values], **settings).fit(t, datamodule=d)
    return {k: v.clone() for k, v in t.model.state_dict().items()}, values.rows, len(calls)


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert [k for k in one if not torch.equal(one[k], other[k])] == []


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"head": MLP},
        {"recipe": {"ema": 0.9}, "head": MLP},
        {"kind": Detector, "head": partial(FCOSHead, channels=16, depth=1), "neck": SMALL_FPN},
        {"kind": Detector, "head": partial(FasterRCNNHead, width=32), "neck": SMALL_FPN},
        {
            "kind": Segmenter,
            "head": partial(DeepLabV3PlusHead, channels=16, low_level_channels=8, aux=0.4),
            "output_stride": 16,
        },
        {"kind": Segmenter, "head": FCNHead, "output_stride": 8},
        {"kind": Segmenter, "head": partial(FPNSegmentationHead, channels=16), "neck": partial(SMALL_FPN, min_level=2)},
    ],
    ids=["linear", "mlp", "ema", "fcos", "faster", "deeplab", "fcn", "fpn segmentation"],
)
def test_training_is_bit_equal_with_and_without(tmp_path, model):
    expected, rows, uncached = train(tmp_path / "a", False, **model)
    got, cached_rows, cached = train(tmp_path / "b", True, **model)
    assert_equal(expected, got)
    assert cached_rows == [pytest.approx(row, abs=1e-6, nan_ok=True) for row in rows]  # smaller last batches
    assert uncached == 2 * (3 + 2)
    assert cached == 1 + 4 + 2, "one probe, and each of 20 pictures once"
    assert not (tmp_path / "b" / "features").exists(), "removed when the training ended well"


def test_bf16_training_is_equal(tmp_path):
    expected, rows, _ = train(tmp_path / "a", False, head=MLP, precision="bf16-mixed")
    got, cached_rows, _ = train(tmp_path / "b", True, head=MLP, precision="bf16-mixed")
    assert_equal(expected, got)
    assert cached_rows == [pytest.approx(row, abs=1e-3) for row in rows]


def test_accumulated_steps_and_weighted_drawing_are_the_same(tmp_path):
    def run(cached):
        d = data()
        d.sample_weights = lambda dataset: torch.linspace(0.1, 1.0, len(dataset), dtype=torch.float64)
        t = task(d.classes, head=MLP, recipe={"cache_features": cached})
        trainer(tmp_path, accumulate_grad_batches=2).fit(t, datamodule=d)
        return t.model.state_dict()

    assert_equal(run(False), run(True))


class Stop(Exception):
    pass


class StopAt(L.Callback):
    def __init__(self, epoch, batch):
        self.at = (epoch, batch)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.at:
            raise Stop


@pytest.mark.parametrize(
    "saving",
    [{"save_on_train_epoch_end": True}, {"every_n_train_steps": 2, "save_top_k": -1}],
    ids=["end of epoch", "within an epoch"],
)
def test_resumed_training_is_bit_equal(tmp_path, saving):
    recipe = {"cache_features": True}
    whole = task(data().classes, head=MLP, recipe=recipe | {"cache_features": False})
    trainer(tmp_path / "a", 3).fit(whole, datamodule=data())

    run = tmp_path / "b"
    keep = ModelCheckpoint(run, filename="{step}", **saving)
    with pytest.raises(Stop):
        trainer(run, 3, [keep, StopAt(1, 2)]).fit(task(data().classes, head=MLP, recipe=recipe), datamodule=data())
    assert len(list(run.glob("features/*/features.bin"))) == 1, "a run that stopped keeps its features"
    newest = max(run.glob("*.ckpt"), key=lambda p: p.stat().st_mtime_ns)

    second = task(data().classes, head=MLP, recipe=recipe)
    calls = []
    second.model.backbone.register_forward_hook(lambda *_: calls.append(1))
    for p in second.parameters():
        torch.nn.init.normal_(p)
    trainer(run, 3).fit(second, datamodule=data(), ckpt_path=newest)
    assert_equal(whole.model.state_dict(), second.model.state_dict())
    assert len(calls) == 1, "the probe alone"
    assert not (run / "features").exists()


def test_a_shared_folder_is_kept_and_found(tmp_path, capsys):
    recipe = {"cache_folder": str(tmp_path / "shared")}
    _, _, first = train(tmp_path / "a", None, recipe=recipe)
    (store,) = tmp_path.glob("shared/*/features.bin")
    assert store.stat().st_size == 20 * 512 * 4, "the means of the coarsest level alone"
    _, _, second = train(tmp_path / "b", None, head=MLP, recipe=recipe)
    assert (first, second) == (7, 1), "another head reads the same features"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("features 20 pictures in ")
    assert lines[0].endswith(f"s: {store.parent}, 0.0 MB")
    assert lines[1].startswith("features 20 pictures (20 known already) in ")


def test_evaluation_alone_takes_the_normal_way(tmp_path):
    d = data()
    t = task(d.classes, recipe={"cache_features": True})
    run = trainer(tmp_path)
    run.validate(t, datamodule=d, verbose=False)
    assert not isinstance(d.val_dataloader().dataset, FeatureView)
    run.fit(t, datamodule=d)
    run.validate(t, datamodule=d, verbose=False)
    assert not isinstance(d.val_dataloader().dataset, FeatureView)


class Darker(Augmentation):
    def __call__(self, sample, seed):
        return sample.replace(image=sample.image // 2)


FLIP = Augmentation([{"HorizontalFlip": {"p": 0.5}}])
REFUSED = [
    ({"augment": FLIP}, {}, {}, "set data.augment null$"),
    ({"augment": FLIP, "combine": Mosaic(0.3)}, {}, {}, "set data.augment null, data.mosaic 0$"),
    ({}, {"mix": MixUpCutMix()}, {}, "set model.mix null"),
    ({"augment": Darker(None)}, {}, {}, "set data.augment null$"),
    ({}, {}, {"cache_limit": 1e-6}, r"they take 1.02e-05 GB: raise recipe.cache_limit 1e-06"),
    ({}, {}, {"cache_folder": __file__}, "cannot be written"),
]


@pytest.mark.parametrize(("of_data", "of_task", "recipe", "message"), REFUSED)
def test_what_prevents_it_is_said(tmp_path, capsys, of_data, of_task, recipe, message):
    kind = Detector if "combine" in of_data else Classifier
    d = data(kind, counts=(4, 1), **of_data)
    parts = {"head": partial(FCOSHead, channels=16, depth=1), "neck": SMALL_FPN} if kind is Detector else of_task
    with pytest.raises(UsageError, match=f"^recipe.cache_features true: .*{message}"):
        trainer(tmp_path).fit(task(d.classes, kind, recipe=recipe | {"cache_features": True}, **parts), datamodule=d)
    trainer(tmp_path, 1).fit(task(d.classes, kind, recipe=recipe, **parts), datamodule=d)
    (line,) = capsys.readouterr().out.splitlines()
    assert re.search(f"^features computed anew in each epoch: .*{message}", line)


@pytest.mark.parametrize("recipe", [{"freeze": 2}, {"thaw": {2: "all"}}, {"thaw": {2: "layer4"}}, {"freeze": None}])
def test_a_backbone_that_is_trained_at_some_time_is_not_cached(tmp_path, capsys, recipe):
    d = data()
    with pytest.raises(UsageError, match=r"recipe\.cache_features .* set recipe.freeze backbone and recipe.thaw null"):
        trainer(tmp_path).fit(task(d.classes, recipe=recipe | {"cache_features": True}), datamodule=d)
    trainer(tmp_path, 2, limit_train_batches=1).fit(task(d.classes, recipe=recipe), datamodule=d)
    assert capsys.readouterr().out == ""


def test_batches_made_in_another_way_are_left_alone(tmp_path, capsys):
    class Own(VisionDataModule):
        def train_dataloader(self):
            return super().train_dataloader()

    splits = DataSplits(ShapesClassification(4, size=SIZE), ShapesClassification(2, size=SIZE, seed=1))
    d = Own(splits, preprocessing=Preprocessing(SIZE), batch_size=4, num_workers=0)
    with pytest.raises(UsageError, match="Own makes batches in a way of its own"):
        trainer(tmp_path).fit(task(d.classes, recipe={"cache_features": True}), datamodule=d)
    trainer(tmp_path, 1).fit(task(d.classes), datamodule=d)
    assert "computed anew in each epoch: Own makes batches" in capsys.readouterr().out


def test_a_trial_run_of_one_batch_fills_nothing(tmp_path, capsys):
    d = data()
    trainer(tmp_path, fast_dev_run=True).fit(task(d.classes), datamodule=d)
    assert capsys.readouterr().out == ""


def test_a_mix_of_no_batch_is_fine(tmp_path, capsys):
    d = data()
    t = task(d.classes, recipe={"cache_features": True}, mix=MixUpCutMix(p=0.0))
    trainer(tmp_path, 1).fit(t, datamodule=d)
    assert capsys.readouterr().out.startswith("features 20 pictures in")


def test_pictures_are_not_kept_beside_their_features(tmp_path, capsys):
    d = data(cache="ram")
    trainer(tmp_path, 1).fit(task(d.classes), datamodule=d)
    features, pictures = capsys.readouterr().out.splitlines()
    assert features.startswith("features 20 pictures in")
    assert pictures == "pictures not cached: their features are"


def test_mosaic_without_share_and_stages_by_number_or_name_are_fine(tmp_path, capsys):
    d = data(Detector, counts=(4, 1), combine=Mosaic(0.0))
    head = partial(FCOSHead, channels=16, depth=1)
    stages = list(task(d.classes).model.backbone.stages())
    for freeze in (len(stages), stages, "trunk"):
        t = task(d.classes, Detector, head, SMALL_FPN, recipe={"freeze": freeze, "cache_features": True})
        trainer(tmp_path, 1).fit(t, datamodule=d)
    assert capsys.readouterr().out.count("features 5 pictures in") == 3


def fit_with_and_without(folder):
    """Return calls of the backbone, values and the head's weights of a training with kept features, and without."""
    results = []
    for cached in (True, False):
        d = data(counts=(9, 5), batch_size=2)
        t = task(d.classes, head=MLP, recipe={"cache_features": cached, "cache_folder": folder})
        calls = []
        t.model.backbone.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        run = trainer(folder, devices=2, strategy="ddp")
        run.fit(t, datamodule=d)
        values = {k: float(v) for k, v in run.callback_metrics.items()}
        results.append([len(calls), values, {k: v.tolist() for k, v in t.model.head.state_dict().items()}])
    return results


def test_two_processes_fill_one_folder_and_train_as_without(tmp_path, pair):
    results, printed = pair(fit_with_and_without, str(tmp_path / "kept"))
    assert sorted(cached[0] for cached, _ in results) == [1, 1 + 5 + 3], "who comes second finds all 14 pictures"
    assert printed.count("features 14 pictures") == 1
    for cached, uncached in results:
        assert cached[1] == pytest.approx(uncached[1], abs=1e-6)
        assert cached[2] == uncached[2] == results[0][0][2]
