"""Instance segmentation through the command line."""

import json

import cv2
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from visionkit.cli.main import run
from visionkit.tasks.detection.readers.shapes import ShapesDetection

SMALL = [
    "--model.backbone.layers=[1,1,1,1]",
    "--model.backbone.block=basic",
    "--model.neck.channels=32",
    "--model.neck.max_level=5",
    "--model.head.width=32",
    "--model.head.mask_channels=16",
    "--model.head.mask_depth=1",
    "--model.head.rois_per_image=16",
    "--model.head.score_threshold=0.02",
    "--data.size=64",
    "--data.batch_size=6",
    "--data.num_workers=0",
    "--trainer.logger=false",
]


def write_coco(root, split, count, seed):
    """Pictures and a COCO file with run lengths."""
    drawn = ShapesDetection(count, seed=seed, size=64, masks=True)
    (root / split).mkdir(parents=True)
    images, annotations = [], []
    for i in range(count):
        sample = drawn[i]
        cv2.imwrite(str(root / split / f"{split}{i}.png"), sample.image.permute(1, 2, 0).numpy()[:, :, ::-1])
        images.append({"id": i, "file_name": f"{split}{i}.png", "width": 64, "height": 64})
        target = sample.target
        for box, label, area, mask in zip(
            target.boxes.tolist(), target.labels.tolist(), target.areas.tolist(), target.masks.rles(), strict=True
        ):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": label,
                    "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                    "area": area,
                    "iscrowd": 0,
                    "segmentation": {**mask, "counts": mask["counts"].decode()},
                }
            )
    categories = [{"id": k, "name": n} for k, n in enumerate(drawn.classes)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / split / "_annotations.coco.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for seed, (split, count) in enumerate((("train", 24), ("val", 9))):
        write_coco(root, split, count, seed)
    return root


def test_fit_validate_predict_and_pycocotools_agree(data, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["--data.root", str(data), *SMALL, "--trainer.default_root_dir", str(out), "--trainer.max_epochs=2"]
    assert run(["fit", "-c", "detect_masks.yaml", *arguments]) == 0
    values = json.loads((out / "metrics.json").read_text())
    assert {"val/mask_map", "val/mask_map_50", "val/mask_mar_100", "val/map", "val/loss"} <= set(values)
    best = str(out / "checkpoints" / "best.ckpt")
    capsys.readouterr()
    assert run(["validate", "--ckpt_path", best, "--data.root", str(data), "--data.num_workers=0"]) == 0
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("val/"))
    assert float(printed["val/mask_map"]) == pytest.approx(values["val/mask_map"], abs=1e-4)

    truth = data / "val" / "_annotations.coco.json"
    found = tmp_path / "p"
    assert run(["predict", "--ckpt", best, "--out", str(found), str(data / "val"), "--save-images", "--format", "coco",
                "--coco-annotations", str(truth), "--precision=auto"]) == 0  # fmt: skip
    records = [json.loads(line) for line in (found / "predictions.jsonl").read_text().splitlines()]
    objects = [o for r in records for o in r["objects"]]
    assert objects
    assert all(set(o) == {"label", "score", "box", "mask"} for o in objects)
    assert all(o["mask"]["size"] == [64, 64] for o in objects)
    assert "mask_area" in (found / "predictions.csv").read_text().splitlines()[0]
    assert len(list((found / "images").iterdir())) == 9
    coco = COCO(str(truth))
    scores = COCOeval(coco, coco.loadRes(str(found / "predictions.coco.json")), "segm")
    scores.evaluate()
    scores.accumulate()
    scores.summarize()
    assert scores.stats[0] == pytest.approx(
        values["val/mask_map"], abs=2e-3
    )  # another batch size rounds bf16 otherwise


def test_masks_that_were_not_asked_for(data, tmp_path, capsys):
    arguments = [
        "--data.root",
        str(data),
        *SMALL,
        "--trainer.default_root_dir",
        str(tmp_path),
        "--trainer.max_epochs=1",
    ]
    assert run(["fit", "-c", "detect_masks.yaml", *arguments, "--data.masks=false"]) == 2
    error = capsys.readouterr().err.strip()
    assert error.endswith("set --data.masks true, or use FasterRCNNHead")
    assert len(error.splitlines()) == 1
