"""Segmentation through the command line: the same behaviour as in the other tasks, by the same code."""

import csv
import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import visionkit
from visionkit.cli.main import run
from visionkit.data.shapes import SHAPES, draw_scene

CLASSES = ("background", *SHAPES)
IDS = [0, 7, 9, 100, 140, 200, 254]  # as the mask files have them
SMALL = [
    "--model.backbone.layers=[1,1,1,1]",
    "--model.backbone.block=basic",
    "--data.size=64",
    "--data.batch_size=6",
    "--data.num_workers=0",
    "--trainer.logger=false",
]
HEADS = {
    "deeplab": ["--model.head.channels=32", "--model.head.aux=0.4", "--model.head.losses.dice=0.5"],
    "fpn": ["--model.backbone.output_stride=32", "--model.neck", "FPN", "--model.neck.channels=32", "--model.head",
            "FPNSegmentationHead", "--model.head.channels=32"],
    "fcn": ["--model.head", "FCNHead"],
}  # fmt: skip


def write_masks(root, split, count, seed):
    """Pictures of 80 x 60 pixels with index masks of sparse ids; the lowest rows are void."""
    (root / "images" / split).mkdir(parents=True)
    (root / "masks" / split).mkdir(parents=True)
    for i in range(count):
        labels = [SHAPES[(i + j) % len(SHAPES)] for j in range(2)]
        scene = draw_scene((seed, i), size=(60, 80), labels=labels)
        mask = np.zeros((60, 80), np.uint8)
        for label, visible in zip(labels, scene.masks, strict=True):
            mask[visible] = IDS[CLASSES.index(label)]
        mask[57:] = 3
        cv2.imwrite(str(root / "images" / split / f"{i}.png"), scene.image[:, :, ::-1])
        cv2.imwrite(str(root / "masks" / split / f"{i}.png"), mask)
    named = [*zip(IDS, CLASSES, strict=True), (3, "void")]
    (root / "classes.txt").write_text("".join(f"{i} {name}\n" for i, name in named))


def fit(root, out, *more):
    return run(
        ["fit", "-c", "segment.yaml", "--data.root", str(root), *SMALL, "--trainer.default_root_dir", str(out), *more]
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "pictures"
    for seed, (split, count) in enumerate((("train", 19), ("val", 9), ("test", 5))):
        write_masks(root, split, count, seed)
    return root


@pytest.fixture(scope="module", params=HEADS)
def trained(request, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "out"
    assert fit(data, out, *HEADS[request.param], "--trainer.max_epochs=3", "--model.recipe.ema=0.998",
               "--model.recipe.warmup_epochs=1") == 0  # fmt: skip
    return out


def test_run_folder_holds_what_it_should(trained):
    names = {str(p.relative_to(trained)) for p in trained.rglob("*") if p.is_file()}
    assert names >= {
        "config.yaml", "metrics.csv", "metrics.json", "checkpoints/best.ckpt", "checkpoints/last.ckpt",
        "confusion_matrix.png", "confusion_matrix.csv", "class_iou.png", "learning_curves.png",
    }  # fmt: skip
    best = json.loads((trained / "metrics.json").read_text())
    assert {"val/miou", "val/mdice", "val/pixel_accuracy", "val/boundary_f1", "val/iou/background"} <= set(best)
    rows = list(csv.DictReader((trained / "metrics.csv").open()))
    assert best["val/miou"] == pytest.approx(max(float(r["val/miou"]) for r in rows), abs=1e-5)
    counts = np.loadtxt(trained / "confusion_matrix.csv", delimiter=",", skiprows=1, usecols=range(1, 8))
    assert counts.sum() == 9 * 57 * 80, "every pixel of the originals once, void left out"


def test_masks_that_predict_writes_have_the_accuracy_that_validate_says(trained, data, tmp_path, capsys):
    best = str(trained / "checkpoints" / "best.ckpt")
    capsys.readouterr()
    assert run(["validate", "--ckpt_path", best, "--data.root", str(data), "--data.num_workers=0",
                "--trainer.precision=32-true"]) == 0  # fmt: skip
    printed = dict(line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.startswith("val/"))
    out = tmp_path / "p"
    assert run(["predict", "--ckpt", best, "--out", str(out), str(data / "images" / "val"), "--save-images",
                "--precision=32"]) == 0  # fmt: skip
    lut = np.full(256, 255, np.uint8)
    lut[IDS] = range(len(IDS))
    right = 0
    for i in range(9):
        found = np.asarray(Image.open(out / "masks" / f"{i}.png"))
        truth = lut[cv2.imread(str(data / "masks" / "val" / f"{i}.png"), cv2.IMREAD_GRAYSCALE)]
        right += int((found == truth)[truth != 255].sum())
    assert right / (9 * 57 * 80) == pytest.approx(float(printed["val/pixel_accuracy"]), abs=1e-4)
    records = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert [sum(r["pixels"].values()) for r in records] == [80 * 60] * 9
    assert set().union(*(r["pixels"] for r in records)) <= set(CLASSES)
    assert len(list((out / "images").iterdir())) == 9


def test_windows_mirrors_and_scales_through_the_command_line(trained, data, tmp_path):
    best = str(trained / "checkpoints" / "best.ckpt")
    picture = str(data / "images" / "val" / "0.png")
    assert run(["predict", "--ckpt", best, "--out", str(tmp_path / "p"), picture, "--flip", "--scales", "0.75,1",
                "--window", "48", "--overlap", "0.5"]) == 0  # fmt: skip
    views = np.asarray(Image.open(tmp_path / "p" / "masks" / "0.png"))
    assert views.shape == (60, 80)
    assert views.max() < len(CLASSES)
    assert run(["predict", "--ckpt", best, "--out", str(tmp_path / "plain"), picture]) == 0
    plain = np.asarray(Image.open(tmp_path / "plain" / "masks" / "0.png"))
    assert 0.3 < (views == plain).mean() < 1, "much the same, but not the one view alone"


def test_the_masks_written_are_a_data_set(trained, data, tmp_path):
    best = str(trained / "checkpoints" / "best.ckpt")
    root = tmp_path / "again"
    assert run(["predict", "--ckpt", best, "--out", str(root), str(data / "images" / "val")]) == 0
    shutil.copytree(data / "images" / "val", root / "images")
    found = visionkit.SegmentationData(str(root), num_workers=0)
    assert found.classes == CLASSES
    found.setup("fit")
    split = [part for part in (found.splits.train, found.splits.val) if part is not None]
    assert sum(len(part) for part in split) == 9
    written = {i: np.asarray(Image.open(root / "masks" / f"{i}.png")) for i in range(9)}
    for part in split:
        for k in range(len(part)):
            sample = part[k]
            number = int(sample.info.id.rpartition("/")[2].removesuffix(".png"))
            assert np.array_equal(sample.target.mask.numpy(), written[number])


def test_checkpoint_describes_itself(trained):
    model = visionkit.load(trained / "checkpoints" / "best.ckpt")
    assert model.classes == CLASSES
    images = torch.randint(0, 255, (2, 3, 70, 61), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for prediction in model.eval().predict(images):
        assert prediction.labels.shape == (70, 61)
        assert prediction.probabilities().sum(0).allclose(torch.ones(70, 61), atol=1e-4)


def test_a_run_that_was_cut_off_goes_on_to_bit_equal_weights(data, tmp_path, cut_off):
    """Crops, augmentation, class weights and dropout included."""
    extra = [*HEADS["deeplab"], "--model.head.dropout=0.2", "--trainer.max_epochs", "3", "--data.balance=loss"]
    assert fit(data, tmp_path / "whole", *extra) == 0
    with pytest.raises(Exception) as raised:  # noqa: PT011  # its class is in a file that the command line imports
        fit(data, tmp_path / "cut", *extra, cut_off)
    assert type(raised.value).__name__ == "CutOff"
    assert fit(data, tmp_path / "cut", *extra, "--ckpt_path", "last") == 0
    whole, cut = (torch.load(tmp_path / n / "checkpoints" / "last.ckpt", weights_only=True) for n in ("whole", "cut"))
    assert all(torch.equal(whole["state_dict"][k], cut["state_dict"][k]) for k in whole["state_dict"])


def test_metrics_are_equal_on_two_processes(trained, data, capsys, pair):
    """Nine pictures, batches of two: the processes have five and four."""
    best = str(trained / "checkpoints" / "best.ckpt")
    command = ["validate", "--ckpt_path", best, "--data.root", str(data), "--data.num_workers=0", "--data.batch_size=2",
               "--trainer.accelerator=cpu", "--trainer.precision=32-true"]  # fmt: skip
    capsys.readouterr()
    assert run([*command, "--trainer.devices=1"]) == 0
    alone = capsys.readouterr().out
    values = []
    for text in (alone, pair.run(*command, "--trainer.devices=2", "--trainer.strategy=ddp")):
        printed = (line.rsplit(maxsplit=1) for line in text.splitlines() if line.startswith("val/"))
        values.append({k.strip(): float(v) for k, v in printed})
    assert {"val/miou", "val/boundary_f1", "val/loss"} <= set(values[0])
    assert values[0] == pytest.approx(values[1], abs=2e-4)  # the loss adds up in another order
    metrics = [{k: v for k, v in found.items() if "iou" in k or "f1" in k or "acc" in k} for found in values]
    assert metrics[0] == metrics[1]


def spoil_size(root):
    cv2.imwrite(str(root / "masks" / "train" / "3.png"), np.zeros((30, 40), np.uint8))


def spoil_ids(root):
    mask = np.zeros((60, 80), np.uint8)
    mask[:2, :5] = 12
    cv2.imwrite(str(root / "masks" / "train" / "3.png"), mask)


def spoil_file(root):
    (root / "masks" / "train" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")


def spoil_picture(root):
    (root / "images" / "train" / "3.png").write_bytes(b"rubbish")


def spoil_table(root):
    (root / "classes.txt").write_text("0 background\n0 circle\n")


def spoil_all_masks(root):
    shutil.rmtree(root / "masks")


BAD = {
    "size": (spoil_size, "masks/train/3.png", "40 x 30"),
    "ids": (spoil_ids, "masks/train/3.png", "id 12 (10 pixels)"),
    "mask": (spoil_file, "masks/train/3.png", "the mask cannot be read"),
    "picture": (spoil_picture, "images/train/3.png", "not an image of a known kind"),
    "table": (spoil_table, "classes.txt:2", "id 0 is that of 'background' too"),
    "no masks": (spoil_all_masks, "pictures", "mask"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_before_training(name, data, capsys, tmp_path):
    root = tmp_path / "pictures"
    shutil.copytree(data, root)
    spoil, file, words = BAD[name]
    spoil(root)
    assert fit(root, tmp_path / "o") == 1
    err = capsys.readouterr().err
    assert err.splitlines()[-1].startswith("error: ") or err.startswith("error: ")
    assert any(file in line and words in line for line in err.splitlines()), err
    assert not (tmp_path / "o").exists()


def test_a_mask_that_does_not_fit_can_be_left_out(data, capsys, tmp_path):
    root = tmp_path / "pictures"
    shutil.copytree(data, root)
    spoil_size(root)
    assert fit(root, tmp_path / "o", *HEADS["fcn"], "--data.skip_corrupt=true", "--trainer.max_epochs=1") == 0
    said = capsys.readouterr()
    assert "masks/train/3.png" in said.err
    assert "skipped  1 pictures" in said.out


WRONG = {
    "loss": (["--model.head.losses.dise=1.0"], "dice"),
    "head without a pyramid": (["--model.head", "FPNSegmentationHead"], "FPN"),
    "one class": (["--data.classes=[background]"], "but the classes are background"),
    "crop_scale": (["--data.crop_scale=[2.0,0.5]"], "scale"),
    "fill_mask": (["--data.augment=[{Affine: {fill_mask: 255}}]"], "fill_mask"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_asked_wrongly_is_one_line(name, capsys, tmp_path):
    arguments, words = WRONG[name]
    status = fit(tmp_path, tmp_path / "o", "--data.root=null", *arguments)
    err = capsys.readouterr().err
    assert status == 2, err
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) == 1
    assert words in err
    assert not (tmp_path / "o").exists()


def test_a_batch_of_one_and_an_odd_size_train(data, tmp_path):
    assert fit(data, tmp_path / "o", *HEADS["deeplab"], "--data.batch_size=1", "--data.size=[45, 61]",
               "--trainer.max_epochs=1") == 0  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "o" / "metrics.csv").open()))
    assert np.isfinite(float(rows[0]["train/loss"]))


def test_a_data_set_of_one_class(tmp_path):
    """Cracks, cells, roads: masks of 0 and 255, one name."""
    for split, count in (("train", 6), ("val", 3)):
        write_masks(tmp_path / "d", split, count, count)
        for file in (tmp_path / "d" / "masks" / split).iterdir():
            mask = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
            cv2.imwrite(str(file), ((mask > 5) * 255).astype(np.uint8))
    (tmp_path / "d" / "classes.txt").write_text("crack\n")
    assert fit(tmp_path / "d", tmp_path / "o", *HEADS["fcn"], "--trainer.max_epochs=1") == 0
    metrics = json.loads((tmp_path / "o" / "metrics.json").read_text())
    assert {"val/iou/background", "val/iou/crack"} <= set(metrics)
