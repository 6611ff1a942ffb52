"""Several tasks through the command line: the same behaviour as in the other tasks, by the same code."""

import csv
import json
import shutil

import cv2
import lightning as L
import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Checkpoint
from PIL import Image

import visionkit
from visionkit import (
    FPN,
    ClassificationData,
    DetectionData,
    FCOSHead,
    FPNSegmentationHead,
    LinearHead,
    MultiTask,
    MultiTaskData,
    Preprocessing,
    ResNet,
    SegmentationData,
    Task,
)
from visionkit.cli.config import configs
from visionkit.cli.main import run
from visionkit.data.shapes import SHAPES
from visionkit.prediction.files import ImageFile
from visionkit.prediction.stream import results_of
from visionkit.tasks.multitask.take_join import take_head
from visionkit.training.recipe import Recipe

SMALL = [
    "--model.backbone.layers=[1,1,1,1]",
    "--model.backbone.block=basic",
    "--model.neck.channels=16",
    "--model.neck.max_level=5",
    "--model.heads.segmentation.channels=16",
    "--model.heads.detection.channels=16",
    "--model.heads.detection.score_threshold=0.0",
    "--data.size=32",
    "--data.epoch=4",
    "--data.num_workers=0",
    "--data.datasets.segmentation.batch_size=2",
    "--data.datasets.detection.batch_size=2",
    "--data.datasets.classification.batch_size=1",
    "--trainer.logger=false",
    "--trainer.precision=32-true",
    "--trainer.accelerator=cpu",
    "--trainer.max_epochs=2",
]
HEADS = ("segmentation", "detection", "classification")
MONITORED = {"segmentation": "miou", "detection": "map", "classification": "top1"}
FOLDERS = {"segmentation": "masks", "detection": "boxes", "classification": "kinds"}


def roots(pictures):
    return [f"--data.datasets.{head}.root={pictures}/{folder}" for head, folder in FOLDERS.items()]


def fit(pictures, out, *more):
    return run(["fit", "-c", "multitask.yaml", *SMALL, *roots(pictures), "--trainer.default_root_dir", str(out), *more])


def checkpoint_of(out, name="best"):
    return str(out / "checkpoints" / f"{name}.ckpt")


@pytest.fixture(scope="module")
def trained(pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "out"
    assert fit(pictures, out) == 0
    return out


def rows_of(out):
    return [{k: float(v) for k, v in row.items()} for row in csv.DictReader((out / "metrics.csv").open())]


def test_run_folder_holds_what_it_should(trained):
    names = {str(p.relative_to(trained)) for p in trained.rglob("*") if p.is_file()}
    assert names >= {
        "config.yaml", "metrics.csv", "metrics.json", "learning_curves.png", "checkpoints/last.ckpt",
        "checkpoints/best.ckpt", *(f"checkpoints/best-{head}.ckpt" for head in HEADS),
        "segmentation_class_iou.png", "detection_pr_curves.png", "classification_confusion_matrix.png",
    }  # fmt: skip
    rows = rows_of(trained)
    for row in rows:
        mean = sum(row[f"val/{head}/{key}"] for head, key in MONITORED.items()) / 3
        assert row["val/combined"] == pytest.approx(mean, abs=1e-5)
        losses = [v for k, v in row.items() if k.startswith("val/") and k.count("/") == 2 and k.split("/")[2] in LOSSES]
        assert len(losses) == 6
        assert row["val/loss"] == pytest.approx(sum(losses), rel=1e-4)
        assert all(np.isfinite(row[f"train/{k}"]) for k in ("loss", "detection", "classification"))
    best = json.loads((trained / "metrics.json").read_text())
    assert best["val/combined"] == pytest.approx(max(r["val/combined"] for r in rows), abs=1e-5)
    for head, key in MONITORED.items():
        highest = max(r[f"val/{head}/{key}"] for r in rows)
        assert best[f"best-{head}/val/{head}/{key}"] == pytest.approx(highest, abs=1e-5)
        epoch = best[f"best-{head}/epoch"]
        assert rows[int(epoch) - 1][f"val/{head}/{key}"] == pytest.approx(highest, abs=1e-5)
        assert torch.load(checkpoint_of(trained, f"best-{head}"), weights_only=True)["epoch"] == epoch - 1


def test_one_pass_of_the_backbone_answers_all_heads(trained, pictures):
    model = visionkit.load(checkpoint_of(trained))
    passes = []
    model.backbone.register_forward_hook(lambda module, inputs, output: passes.append(len(inputs[0])))
    files = [ImageFile(str(p)) for p in sorted((pictures / "boxes" / "val").iterdir())]
    found = list(results_of(model, files, batch_size=4))
    assert passes == [4, 2]
    assert all(set(prediction.parts) == set(HEADS) for _, prediction in found)


def test_a_head_on_the_trained_trunk_joins_and_leaves_the_others_as_they_were(trained, pictures, tmp_path, capsys):
    joint, out, whole = checkpoint_of(trained), tmp_path / "new", str(tmp_path / "whole.ckpt")
    own = [a for a in SMALL if not a.startswith(("--model.heads", "--data.datasets", "--data.epoch"))]
    trunk = [f"--model.{part}.weights={joint}" for part in ("backbone", "neck")] + ["--model.recipe.freeze=trunk"]
    given = ["--data.root", f"{pictures}/boxes", "--data.batch_size=2", "--trainer.max_epochs=1", *trunk]
    assert run(["fit", "-c", "detect.yaml", *own, *given, f"--trainer.default_root_dir={out}"]) == 0
    said = capsys.readouterr().out
    assert said.count("100.0% of the tensors loaded") == 2
    assert "frozen: the backbone" in said
    assert run(["heads", "join", whole, joint, f"again={checkpoint_of(out)}"]) == 0
    before, after = visionkit.load(joint), visionkit.load(whole)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    for first, second in zip(before.predict(images), after.predict(images), strict=True):
        assert set(second.parts) == {*HEADS, "again"}
        mine = {k: v for k, v in second.record(after.classes).items() if k != "again"}
        assert mine == first.record(before.classes)


LOSSES = ("cross_entropy", "dice", "classification", "box", "distribution", "loss")


def own_data(head, pictures, *, num_workers=0):
    settings = {"size": 32, "resize": "letterbox", "batch_size": 1, "num_workers": num_workers}
    kind = {"segmentation": SegmentationData, "detection": DetectionData, "classification": ClassificationData}[head]
    return kind(f"{pictures}/{FOLDERS[head]}", **settings)


def all_data(pictures, **settings):
    settings = {"size": 32, "num_workers": 0, **settings}
    given = {head: own_data(head, pictures, num_workers=settings["num_workers"]) for head in HEADS}
    return MultiTaskData(given, **settings)


def trainer(epochs=1, callbacks=(), **settings):
    return L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=any(isinstance(c, Checkpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        callbacks=list(callbacks),
        **settings,
    )


def measured(model, data):
    runner = trainer()
    runner.validate(Task(model), datamodule=data, verbose=False)
    return dict(runner.callback_metrics)


def test_each_head_is_measured_as_if_it_were_alone(trained, pictures):
    model = visionkit.load(checkpoint_of(trained))
    data = all_data(pictures)
    data.batch_size = 1  # another batch size adds up in another order
    together = measured(model, data)
    losses = {}
    for head in HEADS:
        alone = measured(take_head(model, head), own_data(head, pictures))
        losses[head] = alone.pop("val/loss")
        for key, value in alone.items():
            got = together[f"val/{head}/{key.removeprefix('val/')}"]
            if key.removeprefix("val/") in LOSSES:
                torch.testing.assert_close(got, value, rtol=0, atol=1e-6)
            else:
                assert torch.equal(got, value) or (got.isnan() and value.isnan()), key
        assert f"val/{MONITORED[head]}" in alone
    assert together["val/classification/loss"] == pytest.approx(losses["classification"].item(), abs=1e-6)
    assert together["val/loss"] == pytest.approx(sum(losses.values()).item(), abs=1e-5)


@pytest.mark.parametrize("name", ["best", "best-detection", "last"])
def test_validate_says_what_the_run_said(trained, capsys, name):
    capsys.readouterr()
    assert run(["validate", "-c", str(trained / "config.yaml"), "--ckpt_path", name]) == 0
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("val/"))
    kept = json.loads((trained / "metrics.json").read_text())
    epoch = {"best": kept["epoch"], "best-detection": kept["best-detection/epoch"], "last": 2}[name]
    row = rows_of(trained)[int(epoch) - 1]
    for key in ("val/combined", "val/loss", *(f"val/{head}/{value}" for head, value in MONITORED.items())):
        assert float(printed[key]) == pytest.approx(row[key], abs=2e-3), key


def test_validate_without_a_config(trained, pictures, capsys):
    """The checkpoint describes its heads; the shipped config brings data sets of their names."""
    best = checkpoint_of(trained)
    assert run(["validate", "--ckpt_path", best, *roots(pictures), "--data.num_workers=0"]) == 0
    assert "val/combined" in capsys.readouterr().out


def test_a_head_taken_out_is_measured_by_its_own_room(trained, pictures, tmp_path, capsys):
    for head in ("detection", "classification"):
        out = str(tmp_path / f"{head}.ckpt")
        assert run(["heads", "take", checkpoint_of(trained), head, out]) == 0
        capsys.readouterr()
        root = f"{pictures}/{FOLDERS[head]}"
        assert run(["validate", "--ckpt_path", out, "--data.root", root, "--data.num_workers=0",
                    "--trainer.precision=32-true"]) == 0  # fmt: skip
        printed = dict(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("val/"))
        kept = rows_of(trained)[int(json.loads((trained / "metrics.json").read_text())["epoch"]) - 1]
        key = MONITORED[head]
        assert float(printed[f"val/{key}"]) == pytest.approx(kept[f"val/{head}/{key}"], abs=2e-3)


@pytest.fixture(scope="module")
def predicted(trained, pictures, tmp_path_factory):
    out = tmp_path_factory.mktemp("predicted") / "p"
    assert run(["predict", "--ckpt", checkpoint_of(trained), "--out", str(out), f"{pictures}/boxes/val", "--save-images",
                "--format", "detection/coco", "--format", "detection/yolo", "--precision=32"]) == 0  # fmt: skip
    return out


def records_of(out):
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


class TestPredict:
    def test_records_have_all_heads(self, predicted):
        records = records_of(predicted)
        assert len(records) == 6
        for record in records:
            assert list(record) == ["image", *HEADS]
            assert (record["detection"]["width"], record["detection"]["height"]) == (56, 40)
            assert sum(record["segmentation"]["pixels"].values()) == 56 * 40
            assert set(record["classification"]["probabilities"]) == {"circle", "cross", "ring"}
        assert any(r["detection"]["objects"] for r in records)

    def test_tables(self, predicted):
        (first, *_) = rows = list(csv.DictReader((predicted / "predictions.csv").open()))
        assert len(rows) == 6
        assert first["classification/label"] == records_of(predicted)[0]["classification"]["label"]
        assert int(first["detection/objects"]) == len(records_of(predicted)[0]["detection"]["objects"])
        objects = list(csv.DictReader((predicted / "detection" / "predictions.csv").open()))
        assert len(objects) == sum(len(r["detection"]["objects"]) for r in records_of(predicted))
        assert set(objects[0]) >= {"image", "label", "score", "x1", "y1", "x2", "y2"}
        assert objects[0]["label"] in SHAPES
        kinds = list(csv.DictReader((predicted / "classification" / "predictions.csv").open()))
        assert [k["label"] for k in kinds] == [r["classification"]["label"] for r in records_of(predicted)]

    def test_formats_of_each_head_in_its_folder(self, predicted):
        mask = Image.open(predicted / "segmentation" / "masks" / "p20.png")
        assert mask.size == (56, 40)
        record = records_of(predicted)[0]["segmentation"]["pixels"]
        assert np.bincount(np.asarray(mask).ravel(), minlength=7)[0] == record.get("background", 0)
        found = json.loads((predicted / "detection" / "predictions.coco.json").read_text())
        assert len(found) == sum(len(r["detection"]["objects"]) for r in records_of(predicted))
        assert len(list((predicted / "detection" / "labels").rglob("p2*.txt"))) == 6
        assert not (predicted / "masks").exists()

    def test_pictures_show_all_heads(self, predicted, pictures):
        drawn = sorted((predicted / "images").iterdir())
        assert len(drawn) == 6
        image, plain = cv2.imread(str(drawn[0])), cv2.imread(str(pictures / "boxes/val/p20.png"))
        assert image.shape == plain.shape
        assert (abs(image.astype(int) - plain) > 30).mean() > 0.05

    def test_unsure_objects_are_left_out(self, trained, pictures, predicted, tmp_path):
        scores = sorted(o["score"] for r in records_of(predicted) for o in r["detection"]["objects"])
        limit = (scores[len(scores) // 2] + scores[len(scores) // 2 + 1]) / 2
        assert run(["predict", "--ckpt", checkpoint_of(trained), "--out", str(tmp_path / "p"), f"{pictures}/boxes/val",
                    "--min-score", f"{limit:.9f}", "--precision=32"]) == 0  # fmt: skip
        records = records_of(tmp_path / "p")
        left = sorted(o["score"] for r in records for o in r["detection"]["objects"])
        assert left == [s for s in scores if s >= limit]
        assert [r["segmentation"] for r in records] == [r["segmentation"] for r in records_of(predicted)]

    def test_what_it_does_not_offer(self, trained, pictures, tmp_path, capsys):
        status = run(["predict", "--ckpt", checkpoint_of(trained), "--out", str(tmp_path / "p"), f"{pictures}/boxes/val",
                      "--format", "coco"])  # fmt: skip
        err = capsys.readouterr().err
        assert status == 2
        assert len(err.splitlines()) == 1
        assert "detection/coco" in err
        assert not (tmp_path / "p").exists()

    def test_views_serve_every_head(self, trained, pictures, predicted, tmp_path):
        assert run(["predict", "--ckpt", checkpoint_of(trained), "--out", str(tmp_path / "p"), f"{pictures}/boxes/val",
                    "--flip", "--window", "32", "--precision=32"]) == 0  # fmt: skip
        records = records_of(tmp_path / "p")
        assert len(records) == 6
        for record, plain in zip(records, records_of(predicted), strict=True):
            assert list(record) == list(plain)
            assert sum(record["segmentation"]["pixels"].values()) == 56 * 40
            assert sum(record["classification"]["probabilities"].values()) == pytest.approx(1, abs=1e-4)
            assert record["classification"] != plain["classification"]
        assert any(r["detection"]["objects"] for r in records)


def test_a_run_that_was_cut_off_goes_on_to_bit_equal_weights(trained, pictures, tmp_path, cut_off):
    out = tmp_path / "out"
    with pytest.raises(Exception) as raised:  # noqa: PT011  # its class is in a file that the command line imports
        fit(pictures, out, cut_off)
    assert type(raised.value).__name__ == "CutOff"
    assert len(rows_of(out)) == 1
    assert fit(pictures, out, "--ckpt_path", "last") == 0
    a, b = (torch.load(checkpoint_of(folder, "last"), weights_only=True)["state_dict"] for folder in (trained, out))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)
    ours, theirs = (json.loads((folder / "metrics.json").read_text()) for folder in (out, trained))
    assert ours == theirs
    assert {p.name for p in (out / "checkpoints").iterdir()} == {p.name for p in (trained / "checkpoints").iterdir()}


class Stop(Exception):
    pass


class SaveAndStop(Checkpoint):  # Lightning asks such callbacks last
    def __init__(self, path, epoch, batch):
        self.path, self.at = path, (epoch, batch)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.at:
            trainer.save_checkpoint(self.path)
            raise Stop


def task(classes):
    torch.manual_seed(0)
    heads = {
        "segmentation": lambda f, k: FPNSegmentationHead(f, k, channels=16, dropout=0.2),
        "detection": lambda f, k: FCOSHead(f, k, channels=16, depth=1),
        "classification": lambda f, k: LinearHead(f, k, dropout=0.2),
    }
    backbone = ResNet(layers=(1, 1, 1, 1), block="basic", stem="small", stochastic_depth=0.2)
    neck = lambda f: FPN(f, channels=16, max_level=5)  # noqa: E731
    recipe = Recipe(ema=0.9, warmup_epochs=0.5)
    settings = {"balance": "uncertainty", "preprocessing": Preprocessing(32, resize="letterbox"), "recipe": recipe}
    return MultiTask(backbone, heads, neck, classes, **settings)


def test_a_run_resumed_within_an_epoch_is_bit_equal(pictures, tmp_path):
    """Mosaics, crops, dropout, averaged weights and learnt factors included; repeats of a data set, too."""
    data = all_data(pictures, epoch=16)
    whole = task(data.classes)
    trainer(2, limit_val_batches=0).fit(whole, datamodule=data)
    with pytest.raises(Stop):
        trainer(2, [SaveAndStop(tmp_path / "x.ckpt", 1, 10)], limit_val_batches=0).fit(
            task(data.classes), datamodule=all_data(pictures, epoch=16)
        )
    torch.manual_seed(99)
    second = task(data.classes)
    for p in second.parameters():
        torch.nn.init.normal_(p)
    trainer(2, limit_val_batches=0).fit(
        second, datamodule=all_data(pictures, epoch=16, num_workers=1), ckpt_path=tmp_path / "x.ckpt", weights_only=True
    )
    a, b = whole.state_dict(), second.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert whole.model.head.log_variances.abs().min() > 0


def validate_and_fit(pictures, settings):
    """Return the values of the first validation, and the sum of all weights after an epoch."""
    data = all_data(pictures, epoch=6)
    two = task(data.classes)
    run = trainer(1, **settings)
    run.validate(two, datamodule=data, verbose=False)
    values = {k: float(v) for k, v in run.callback_metrics.items()}
    run.fit(two, datamodule=data)
    return values, sum(p.double().sum().item() for p in two.model.parameters())


@pytest.mark.parametrize(
    "kept",
    [
        "apart",
        "shared",
    ],
)
def test_two_processes_measure_the_same_and_train_to_the_end(pictures, tmp_path, kept, pair):
    """Fourteen pictures that validate, in three data sets: the processes have unlike numbers of each."""
    root = pictures
    if kept == "apart":  # copies are pictures of their own
        root = tmp_path / "copy"
        shutil.copytree(pictures, root)
    one, _ = validate_and_fit(root, {})
    ((two, weights), (other, others)), _ = pair(validate_and_fit, root, {"devices": 2, "strategy": "ddp"})
    assert two == other or all(two[k] == other[k] or two[k] != two[k] for k in two)
    assert weights == others
    assert one.keys() == two.keys()
    assert {"val/combined", *(f"val/{head}/{key}" for head, key in MONITORED.items())} <= one.keys()
    for key, value in one.items():
        assert two[key] == pytest.approx(value, abs=1e-5, nan_ok=True), key


def test_nested_keys_are_overridden_one_by_one(capsys):
    def printed(*more):
        fixed = ["--model.recipe.ema=0.99", "--model.recipe.warmup_epochs=1"]  # which the batch would choose
        assert run(["fit", "-c", "multitask.yaml", *fixed, *more, "--print_config=full"]) == 0
        return yaml.safe_load(capsys.readouterr().out)

    expected = printed()
    model, data = (expected[k]["init_args"] for k in ("model", "data"))
    assert list(model["heads"]) == list(HEADS)
    assert data["datasets"]["detection"]["init_args"].pop("batch_size") == 4
    assert model["heads"]["classification"]["init_args"].pop("dropout") == 0.0
    assert model.pop("weights") is None
    found = printed("--data.datasets.detection.batch_size", "2", "--model.heads.classification.dropout", "0.2",
                    "--model.weights", "{detection: 2.0}")  # fmt: skip
    model, data = (found[k]["init_args"] for k in ("model", "data"))
    assert data["datasets"]["detection"]["init_args"].pop("batch_size") == 2
    assert model["heads"]["classification"]["init_args"].pop("dropout") == 0.2
    assert model.pop("weights") == {"detection": 2.0}
    assert found == expected


def config(tmp_path, heads, datasets):
    """Write a config as the shipped one with other heads and data sets."""
    content = yaml.safe_load((configs.folder() / "multitask.yaml").read_text())
    content["model"]["init_args"]["heads"] = heads
    content["data"]["init_args"]["datasets"] = datasets
    content["model"]["init_args"]["backbone"]["init_args"] |= {"layers": [1, 1, 1, 1], "block": "basic"}
    content["model"]["init_args"]["neck"]["init_args"] |= {"channels": 16, "max_level": 5}
    content["data"]["init_args"] |= {"size": 32, "epoch": 2, "num_workers": 0}
    content["trainer"] |= {
        "max_epochs": 1,
        "logger": False,
        "precision": "32-true",
        "default_root_dir": str(tmp_path / "o"),
    }
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return str(tmp_path / "own.yaml")


def part(name, **settings):
    return {"class_path": name, "init_args": settings}


def test_two_heads_of_one_kind(pictures, tmp_path, capsys):
    """Two detectors of the same pictures and two classifiers, one of them with several labels."""
    lines = [f"{pictures}/boxes/{'train' if n < 10 else 'val'}/p{n}.png,{'ring|cross' if n % 2 else 'ring'},{'train' if n < 10 else 'val'}"
             for n in (*range(10), *range(20, 26))]  # fmt: skip
    (tmp_path / "tags.csv").write_text("path,labels,split\n" + "\n".join(lines))
    boxes = part("DetectionData", root=f"{pictures}/boxes", batch_size=3)
    path = config(
        tmp_path,
        {
            "one": part("FCOSHead", channels=16),
            "two": part("FasterRCNNHead", width=32, rois_per_image=8),
            "kind": part("LinearHead"),
            "tags": part("MLPHead", width=8),
        },
        {
            "one": boxes,
            "two": boxes,
            "kind": part("ClassificationData", root=f"{pictures}/kinds", batch_size=2),
            "tags": part("ClassificationData", root=str(tmp_path / "tags.csv"), batch_size=2),
        },
    )
    assert run(["fit", "-c", path]) == 0
    assert "3 of one and two and tags, 2 of kind in each" in capsys.readouterr().out
    kept = json.loads((tmp_path / "o" / "metrics.json").read_text())
    assert {"val/one/map", "val/two/map", "val/kind/top1", "val/tags/map", "val/two/rpn_box"} <= kept.keys()
    values = [kept[f"val/{key}"] for key in ("one/map", "two/map", "kind/top1", "tags/map")]
    assert kept["val/combined"] == pytest.approx(sum(values) / 4, abs=1e-6)
    best = str(tmp_path / "o" / "checkpoints" / "best.ckpt")
    assert run(["predict", "--ckpt", best, "--out", str(tmp_path / "p"), f"{pictures}/boxes/val"]) == 0
    record = records_of(tmp_path / "p")[0]
    assert list(record) == ["image", "one", "two", "kind", "tags"]
    assert "labels" in record["tags"]
    assert "labels" not in record["kind"]
    assert run(["validate", "-c", str(tmp_path / "o" / "config.yaml"), "--ckpt_path", "best"]) == 0


WRONG = {
    "names": (["kind"], ["kinds"], [], "model.heads are kind, data.datasets are kinds: give both the same names"),
    "a head more": (["kind", "more"], ["kind"], [], "model.heads are kind, more, data.datasets are kind: give both the same names"),
    "own size": (["kind"], ["kind"], ["--data.datasets.kind.size=64"], "data.datasets.kind.size is (64, 64), but all data sets have that in common: set data.size"),
    "weights": (["kind"], ["kind"], ["--model.weights={knd: 1.0}"], "weights: there is no head 'knd'; there are kind"),
    "epoch": (["kind"], ["kind"], ["--data.epoch=0"], "data.epoch=0: longest, shortest or a number of batches from 1 on"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_asked_wrongly_is_one_line(name, pictures, tmp_path, capsys):
    heads, datasets, more, words = WRONG[name]
    path = config(
        tmp_path,
        {head: part("LinearHead") for head in heads},
        {head: part("ClassificationData", root=f"{pictures}/kinds") for head in datasets},
    )
    assert run(["fit", "-c", path, *more]) == 2
    err = capsys.readouterr().err
    assert err == f"error: {words}\n"
    assert not (tmp_path / "o").exists()


def test_photos_with_boxes_and_masks(data_root):
    """coco128: most pictures have both."""
    root = data_root / "coco128"
    data = MultiTaskData(
        {
            "cars": DetectionData(str(root), batch_size=2, mosaic=0.0),
            "ground": SegmentationData(str(root), batch_size=2),
        },
        size=64,
        num_workers=0,
        check_images=False,
    )
    assert data.sources == [("cars", "ground")]
    train = data.splits.train
    assert sum(len(m) == 2 for m in train.members) > 50
    shared = next(k for k, m in enumerate(train.members) if len(m) == 2)
    sample = train[shared]
    assert sample.target.parts["ground"].mask.shape == sample.image.shape[1:]
    assert len(next(iter(data.train_dataloader()))) == 2
