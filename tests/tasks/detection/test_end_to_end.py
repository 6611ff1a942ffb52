"""Detection through the command line: the same behaviour as in classification, by the same code."""

import csv
import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import visionkit
from visionkit.cli.main import run
from visionkit.data.shapes import SHAPES
from visionkit.tasks.detection.readers.shapes import ShapesDetection

SMALL = [
    "--model.backbone.layers=[1,1,1,1]",
    "--model.backbone.block=basic",
    "--model.neck.channels=32",
    "--model.head.score_threshold=0.01",
    "--data.size=64",
    "--data.batch_size=6",
    "--data.num_workers=0",
    "--trainer.logger=false",
]
ONE = ["--model.neck.max_level=5", "--model.head.channels=32"]
TWO = ["--model.head.width=32", "--model.head.rois_per_image=16", "--model.neck.max_level=5"]
HEADS = {"one": ("detect.yaml", ONE), "two": ("detect_two_stage.yaml", TWO)}


def write_coco(root, split, count, seed):
    """Pictures of 80 x 64 pixels and a COCO file whose ids are shuffled and have gaps; the last picture is empty."""
    drawn = ShapesDetection(count, seed=seed, size=64)
    (root / split).mkdir(parents=True)
    rng = np.random.default_rng(seed)
    image_ids = (rng.permutation(count) * 7 + 3).tolist()
    categories = dict(zip(drawn.classes, (rng.permutation(len(drawn.classes)) * 11 + 5).tolist(), strict=True))
    images, annotations = [], []
    for i in range(count):
        sample = drawn[i]
        wide = np.zeros((64, 80, 3), np.uint8)
        wide[:, :64] = sample.image.permute(1, 2, 0).numpy()
        name = f"{split}_{i}.png"
        cv2.imwrite(str(root / split / name), wide[:, :, ::-1])
        images.append({"id": image_ids[i], "file_name": name, "width": 80, "height": 64})
        if i == count - 1:
            continue
        for box, label in zip(sample.target.boxes.tolist(), sample.target.labels.tolist(), strict=True):
            x, y, w, h = box[0], box[1], box[2] - box[0], box[3] - box[1]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_ids[i],
                    "category_id": categories[drawn.classes[label]],
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": int(rng.random() < 0.05),
                }
            )
    (root / "annotations").mkdir(exist_ok=True)
    named = [{"id": k, "name": n} for n, k in categories.items()]
    content = {"images": images, "annotations": annotations, "categories": named}
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def fit(root, out, config="detect.yaml", *more):
    return run(["fit", "-c", config, "--data.root", str(root), *SMALL, "--trainer.default_root_dir", str(out), *more])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "pictures"
    for seed, (split, count) in enumerate((("train", 19), ("val", 9), ("test", 5))):
        write_coco(root, split, count, seed)
    return root


@pytest.fixture(scope="module", params=HEADS)
def trained(request, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "out"
    config, more = HEADS[request.param]
    assert fit(data, out, config, *more, "--trainer.max_epochs=3") == 0
    return out


def test_run_folder_holds_what_it_should(trained):
    names = {str(p.relative_to(trained)) for p in trained.rglob("*") if p.is_file()}
    assert names >= {
        "config.yaml", "metrics.csv", "metrics.json", "checkpoints/best.ckpt", "checkpoints/last.ckpt",
        "confusion_matrix.png", "pr_curves.png", "error_types.png", "learning_curves.png",
    }  # fmt: skip
    best = json.loads((trained / "metrics.json").read_text())
    assert {"val/map", "val/map_50", "val/map_75", "val/mar_100", "val/loss", "val/errors/missed"} <= set(best)
    rows = list(csv.DictReader((trained / "metrics.csv").open()))
    assert best["val/map"] == pytest.approx(max(float(r["val/map"]) for r in rows), abs=1e-5)


def test_validate_predict_and_pycocotools_agree(trained, data, tmp_path, capsys):
    best = str(trained / "checkpoints" / "best.ckpt")
    values = json.loads((trained / "metrics.json").read_text())
    capsys.readouterr()
    assert run(["validate", "--ckpt_path", best, "--data.root", str(data), "--data.num_workers=0"]) == 0
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("val/"))
    assert float(printed["val/map"]) == pytest.approx(values["val/map"], abs=1e-4)
    validate = ["validate", "--ckpt_path", best, "--data.root", str(data), "--data.num_workers=0"]
    assert run([*validate, "--trainer.precision=32-true"]) == 0
    exact = dict(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("val/"))

    truth = data / "annotations" / "instances_val.json"
    out = tmp_path / "p"
    assert run(["predict", "--ckpt", best, "--out", str(out), str(data / "val"), "--save-images", "--format", "coco",
                "--format", "yolo", "--coco-annotations", str(truth), "--precision=32"]) == 0  # fmt: skip
    records = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert len(records) == 9
    assert all((r["width"], r["height"]) == (80, 64) for r in records)
    objects = [o for r in records for o in r["objects"]]
    assert objects
    assert all(0 <= o["box"][0] < o["box"][2] <= 80 and 0 <= o["box"][1] < o["box"][3] <= 64 for o in objects)
    assert set(objects[0]) == {"label", "score", "box"}
    assert len(list((out / "images").iterdir())) == 9
    coco = COCO(str(truth))
    scores = COCOeval(coco, coco.loadRes(str(out / "predictions.coco.json")), "bbox")
    scores.evaluate()
    scores.accumulate()
    scores.summarize()
    assert scores.stats[0] == pytest.approx(float(exact["val/map"]), abs=1e-4)

    assert run(["test", "--ckpt_path", best, "--data.root", str(data), "--trainer.default_root_dir", str(tmp_path / "t"),
                "--data.num_workers=0"]) == 0  # fmt: skip
    assert "test/map" in json.loads((tmp_path / "t" / "metrics.json").read_text())


def test_other_ids_for_the_same_pictures_give_the_same_numbers(trained, data, tmp_path, capsys):
    """Ids of images and categories are shuffled, with gaps: names carry the meaning."""
    root = tmp_path / "d"
    shutil.copytree(data, root)
    file = root / "annotations" / "instances_val.json"
    content = json.loads(file.read_text())
    images = {r["id"]: 1000 - 3 * r["id"] for r in content["images"]}
    categories = {r["id"]: (37 * r["id"]) % 101 for r in content["categories"]}
    for record in content["annotations"]:
        record |= {"image_id": images[record["image_id"]], "category_id": categories[record["category_id"]]}
    for records, ids in ((content["images"], images), (content["categories"], categories)):
        for record in records:
            record["id"] = ids[record["id"]]
    content["categories"].reverse()
    file.write_text(json.dumps(content))
    best = str(trained / "checkpoints" / "best.ckpt")
    said = []
    for folder in (data, root):
        capsys.readouterr()
        assert run(["validate", "--ckpt_path", best, "--data.root", str(folder), "--data.num_workers=0"]) == 0
        said.append([line for line in capsys.readouterr().out.splitlines() if line.startswith("val/")])
    assert said[0] == said[1]
    assert len(said[0]) > 10


def test_checkpoint_describes_itself(trained):
    best = trained / "checkpoints" / "best.ckpt"
    model = visionkit.load(best)
    assert set(model.classes) == set(SHAPES)
    kept = torch.load(best, weights_only=True)["state_dict"]
    assert all(torch.equal(value, kept[f"model.{key}"]) for key, value in model.state_dict().items())
    images = torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for prediction in model.eval().predict(images):
        assert len(prediction) > 0, "its score_threshold of 0.01 came along"
        assert prediction.scores.min() >= 0.01
        assert prediction.boxes.shape == (len(prediction), 4)


@pytest.mark.parametrize("kind", HEADS)
def test_a_run_that_was_cut_off_goes_on_to_bit_equal_weights(kind, data, tmp_path, cut_off):
    """Mosaic, augmentation, multi-scale and the sampling of proposals included."""
    config, more = HEADS[kind]
    extra = [*more, "--model.multi_scale", "MultiScale", "--trainer.max_epochs", "3", "--data.mosaic", "0.5"]
    assert fit(data, tmp_path / "whole", config, *extra) == 0
    with pytest.raises(Exception) as raised:  # noqa: PT011  # its class is in a file that the command line imports
        fit(data, tmp_path / "cut", config, *extra, cut_off)
    assert type(raised.value).__name__ == "CutOff"
    assert fit(data, tmp_path / "cut", config, *extra, "--ckpt_path", "last") == 0
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
        printed = (line.split() for line in text.splitlines() if line.startswith("val/"))
        values.append({k: float(v) for k, v in printed})
    assert {"val/map", "val/loss"} <= set(values[0])
    losses = [{k: v.pop(k) for k in LOSSES if k in v} for v in values]
    assert values[0] == values[1]
    assert losses[0] == pytest.approx(losses[1], abs=2e-4)  # another batch size adds up in another order


LOSSES = [f"val/{n}" for n in ("loss", "classification", "box", "distribution", "rpn_objectness", "rpn_box")]


BAD = {
    "no boxes": ("{tmp}/empty", 1, "empty"),
    "no folder": ("{tmp}/nowhere", 1, "nowhere: no such folder"),
    "broken json": ("{tmp}/broken", 1, "instances_train.json:1"),
    "broken xml": ("{tmp}/xml", 1, "a.xml:2"),
    "bad class id": ("{tmp}/yolo", 1, "a.txt:2"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_line(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "faults"
    for folder in (
        "empty",
        "broken/annotations",
        "broken/train",
        "xml/Annotations",
        "xml/JPEGImages",
        "yolo/images",
        "yolo/labels",
    ):
        (root / folder).mkdir(parents=True)
    (root / "broken/annotations/instances_train.json").write_text('{"images": [], "annotations": [}')
    (root / "xml/Annotations/a.xml").write_text("<annotation>\n<object></annotation>")
    for place in ("broken/train/a.png", "xml/JPEGImages/a.png", "yolo/images/a.png", "yolo/images/b.png"):
        cv2.imwrite(str(root / place), np.zeros((20, 20, 3), np.uint8))
    (root / "yolo/classes.txt").write_text("cat\ndog\n")
    (root / "yolo/labels/a.txt").write_text("0 0.5 0.5 0.2 0.2\n2 0.5 0.5 0.2 0.2\n")
    before = sorted(tmp_path.rglob("*"))
    where, status, words = BAD[name]
    assert run(["fit", "-c", "detect.yaml", "--data.root", where.replace("{tmp}", str(root))]) == status
    err = capsys.readouterr().err.strip().splitlines()
    assert words in err[-1]
    assert err[-1].startswith("error: ")
    assert sorted(tmp_path.rglob("*")) == before, "nothing is written"


def test_boxes_of_another_picture_size_end_the_run_before_it_starts(data, tmp_path, capsys):
    root = tmp_path / "d"
    shutil.copytree(data, root)
    cv2.imwrite(str(root / "train" / "train_3.png"), np.zeros((30, 40, 3), np.uint8))
    assert fit(root, tmp_path / "o") == 1
    assert "train_3.png: is 40 x 30 pixels, but" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_a_head_that_needs_a_pyramid_says_so(capsys, tmp_path):
    assert run(["fit", "-c", "detect.yaml", "--model.neck", "IdentityNeck"]) == 2
    assert "put an FPN before it" in capsys.readouterr().err


def test_faulty_boxes_are_named_and_left_out(tmp_path, capsys):
    """A box without area and one outside of its picture do not end a training in its fourth thousandth step."""
    for split in ("train", "val"):
        (tmp_path / "d" / "images" / split).mkdir(parents=True)
        (tmp_path / "d" / "labels" / split).mkdir(parents=True)
        for i in range(6):
            picture = np.random.default_rng((len(split), i)).integers(0, 255, (40, 50, 3), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / "d" / "images" / split / f"{i}.png"), picture)
            (tmp_path / "d" / "labels" / split / f"{i}.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    (tmp_path / "d/classes.txt").write_text("cell\n")
    faulty = tmp_path / "d" / "labels" / "train" / "3.txt"
    faulty.write_text("0 0.5 0.5 0.4 0.4\n0 0.3 0.3 0 0.2\n0 nan 0.2 0.1 0.1\n0 0.9 0.9 0.6 0.6\n")
    assert fit(tmp_path / "d", tmp_path / "o", "detect.yaml", *ONE, "--trainer.max_epochs=1") == 0
    said = capsys.readouterr()
    for line in (2, 3, 4):
        assert f"3.txt:{line}: " in said.err
    assert "labels   3 faulty ones" in said.out
