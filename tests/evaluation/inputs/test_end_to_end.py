"""`visionkit evaluate --predictions` over every format: the numbers are those of the metric that `validate` has."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.scenes import SIZE, coco_results, coco_scene, measured_boxes, picture, write_json
from visionkit.cli.main import run
from visionkit.evaluation.inputs.reading import read_predictions


def evaluated(tmp_path, predictions, data, *options):
    out = tmp_path / "evaluation"
    assert run(["evaluate", "--predictions", str(predictions), "--data", str(data), "--out", str(out), *options]) == 0
    told = json.loads((out / "evaluation.json").read_text())
    return told, {key: entry["value"] for key, entry in told["metrics"].items()}


def same(told, expected):
    """Whether numbers are the same to 1e-6."""
    scalars = {k: float(v) for k, v in expected.items() if v.ndim == 0}
    assert {k: v for k, v in told.items() if k in scalars} == pytest.approx(
        {k: scalars[k] for k in told if k in scalars}, abs=1e-6
    )
    return len(set(told) & set(scalars))


@pytest.mark.parametrize("form", ["coco", "yolo", "records"])
def test_boxes(tmp_path, form):
    data = coco_scene(tmp_path / "data")
    results = coco_results(data.file)
    file = write_json(tmp_path, results)
    found = read_predictions(file, task="detection", dataset=data, classes=data.classes)
    if form == "yolo":
        file = tmp_path / "labels"
        file.mkdir()
        for one in results:
            x, y, w, h = one["bbox"]
            shares = ((x + w / 2) / SIZE[1], (y + h / 2) / SIZE[0], w / SIZE[1], h / SIZE[0], one["score"])
            with (file / f"{(one['image_id'] - 11) // 3:03d}.txt").open("a") as stream:
                number = [3, 7, 9].index(one["category_id"])
                stream.write(" ".join([str(number), *(f"{v:.17g}" for v in shares)]) + "\n")
    if form == "records":
        file = tmp_path / "predictions.jsonl"
        lines = [json.dumps({"image": data.ids[k], **found[k].record(data.classes)}) for k in found]
        file.write_text("\n".join(lines))
    told, values = evaluated(tmp_path, file, data.file)
    assert same(values, measured_boxes(found, data)) > 15
    assert told["errors"]["value"] == pytest.approx(values["map_50"], abs=1e-6)
    assert told["model"]["predictions"]
    again = tmp_path / "again"  # its own predictions give the same numbers
    arguments = ["--predictions", str(tmp_path / "evaluation" / "predictions.jsonl"), "--data", str(data.file)]
    assert run(["evaluate", *arguments, "--out", str(again)]) == 0
    assert json.loads((again / "evaluation.json").read_text())["metrics"] == told["metrics"]


def test_masks_of_objects(tmp_path):
    data = coco_scene(tmp_path / "data", masks=True)
    file = write_json(tmp_path, coco_results(data.file, masks=True))
    _, values = evaluated(tmp_path, file, data.file, "--task", "instance")
    found = read_predictions(file, task="instance", dataset=data, classes=data.classes)
    assert same(values, measured_boxes(found, data, masks=True)) > 20
    assert "mask_map" in values


def test_pixels(tmp_path):
    for k in range(4):
        rng = np.random.default_rng(k)
        picture(tmp_path / f"data/images/{k}.png", (24, 32))
        for folder in ("data/masks", "predicted"):
            (tmp_path / folder).mkdir(exist_ok=True)
            mask = np.kron(rng.integers(0, 3, (6, 8)), np.ones((4, 4), int)).astype(np.uint8)
            Image.fromarray(mask).save(tmp_path / folder / f"{k}.png")
    (tmp_path / "data/masks/classes.txt").write_text("sky\nroad\ntree\n")
    told, values = evaluated(tmp_path, tmp_path / "predicted", tmp_path / "data")
    truth, found = (
        np.stack([np.asarray(Image.open(tmp_path / f"{folder}/{k}.png")) for k in range(4)])
        for folder in ("data/masks", "predicted")
    )
    assert values["pixel_accuracy"] == pytest.approx((truth == found).mean(), abs=1e-6)
    ious = [((truth == c) & (found == c)).sum() / ((truth == c) | (found == c)).sum() for c in range(3)]
    assert values["miou"] == pytest.approx(np.mean(ious), abs=1e-6)
    assert "boundary" in {kind["kind"] for kind in told["errors"]["kinds"]}
    assert told["classes"] == ["sky", "road", "tree"]


def test_classes(tmp_path):
    lines = ["path,label"]
    for k in range(6):
        picture(tmp_path / f"data/{k}.png", (4, 5))
        lines.append(f"{k}.png,{('cat', 'dog')[k % 2]}")
    (tmp_path / "data" / "data.csv").write_text("\n".join(lines))
    (tmp_path / "said.csv").write_text("image,label\n" + "".join(f"{k}.png,cat\n" for k in range(6)))
    told, values = evaluated(tmp_path, tmp_path / "said.csv", tmp_path / "data")
    assert values["top1"] == 0.5
    assert "ece" not in values
    assert told["calibration"] is None
    assert told["errors"]["kinds"][0]["kind"] == "cat and dog confused"


def test_pictures_without_a_class_are_refused_or_left_out(tmp_path, capsys):
    lines = ["path,label"]
    for k in range(6):
        picture(tmp_path / f"data/{k}.png", (4, 5))
        lines.append(f"{k}.png,{('cat', 'dog')[k % 2]}")
    (tmp_path / "data" / "data.csv").write_text("\n".join(lines))
    (tmp_path / "said.csv").write_text("image,cat,dog\n0.png,0.9,0.1\n1.png,0.75,0.25\n")
    options = [
        "--predictions",
        str(tmp_path / "said.csv"),
        "--data",
        str(tmp_path / "data"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert run(["evaluate", *options]) == 1
    assert "4 of 6 images have no prediction" in capsys.readouterr().err
    told, values = evaluated(tmp_path, tmp_path / "said.csv", tmp_path / "data", "--allow-missing")
    assert values["top1"] == 0.5
    assert told["data"]["images"] == 2
    assert run(["evaluate", "--ckpt", "a.ckpt", "--data", ".", "--out", "b", "--allow-missing"]) == 2
