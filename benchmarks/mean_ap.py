"""Average precision of 5,000 images with 80 classes: visionkit's metric beside COCO's code and what others make of it.

The data are drawn like COCO's validation set: about 7 objects an image of about 3 of the classes, one of them far more
frequent than the others, 1 % crowds, areas smaller than the boxes, and up to 100 detections an image: near the objects,
twice, of another class, and out of nowhere with low scores. Everything is in memory as tensors before the clock starts.
torchmetrics (its default, pycocotools) and visionkit get it in batches through ``update``, then ``compute``; COCO's
tools get one dictionary a box, made beforehand. visionkit's time is that of all that its metric tells by default:
besides COCO's twelve numbers the precision of each class, curves, confusion matrix and kinds of errors.

Each case compares its twelve numbers with those of the first one and fails where one differs by more than 1e-6.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring.figures import report

KEY = "seconds"
REFERENCES = ["torchmetrics + pycocotools"]
LOWER = True
TWELVE = (
    "map", "map_50", "map_75", "map_small", "map_medium", "map_large", "mar_1", "mar_10", "mar_100", "mar_small",
    "mar_medium", "mar_large",
)  # fmt: skip
SIZE = (640.0, 480.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this comparison's options."""
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--batch-size", type=int, default=16)


def cases(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each case; the first one says what the values are."""
    values = Path(tempfile.mkdtemp()) / "values.json"
    sizes = [f"--images={options.images}", f"--classes={options.classes}", f"--batch-size={options.batch_size}"]
    names = {"torchmetrics + pycocotools": "torchmetrics", "pycocotools": "pycocotools"}
    names |= {"faster_coco_eval": "faster_coco_eval", "visionkit": "visionkit"}
    return {name: [sys.executable, __file__, case, f"--values={values}", *sizes] for name, case in names.items()}


def draw(images: int, classes: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return predictions and truth of each image, in torchmetrics' words, always the same ones."""
    import numpy as np
    import torch

    rng = np.random.default_rng(0)
    frequency = 1 / (np.arange(classes) + 2.0)
    frequency[0] = 0.4 * frequency[1:].sum()
    local = rng.choice(classes, (images, 3), p=frequency / frequency.sum())  # classes that an image shows
    objects = rng.geometric(1 / 8.0, images) - 1  # none to many, 7 on average
    image = np.repeat(np.arange(images), objects)
    labels = local[image, rng.integers(3, size=len(image))]
    side = np.exp(rng.normal(np.log(70), 0.9, (len(image), 1)) + rng.normal(0, 0.25, (len(image), 2))).clip(4, 400)
    corner = rng.random((len(image), 2)) * (np.array(SIZE) - side).clip(0)
    truth = np.concatenate([corner, np.minimum(corner + side, SIZE)], 1)
    crowd = rng.random(len(image)) < 0.01
    areas = (truth[:, 2:] - truth[:, :2]).prod(1) * rng.uniform(0.5, 1, len(image))

    def near(which: Any, noise: float, low: float, high: float) -> tuple[Any, ...]:
        sides = np.tile(truth[which, 2:] - truth[which, :2], 2)
        boxes = truth[which] + noise * sides * rng.normal(size=(len(which), 4))
        other = rng.random(len(which)) < 0.1
        kinds = np.where(other, local[image[which], rng.integers(3, size=len(which))], labels[which])
        return boxes, rng.uniform(low, high, len(which)) ** 1.5, kinds, image[which]

    every = np.arange(len(image))
    parts = [
        near(every[rng.random(len(every)) < p], *how) for p, *how in ((0.85, 0.06, 0.1, 1), (0.6, 0.15, 0.05, 0.7))
    ]
    extra = np.repeat(np.arange(images), rng.integers(20, 120, images))  # out of nowhere
    wide = np.exp(rng.normal(np.log(60), 1, (len(extra), 2))).clip(3, 400)
    start = rng.random((len(extra), 2)) * SIZE
    kinds = np.where(rng.random(len(extra)) < 0.5, local[extra, rng.integers(3, size=len(extra))], 0)
    kinds = np.where(kinds == 0, rng.integers(classes, size=len(extra)), kinds)
    parts.append((np.concatenate([start, start + wide], 1), rng.uniform(0, 0.5, len(extra)) ** 2, kinds, extra))
    boxes, scores, found, place = (np.concatenate(p) for p in zip(*parts, strict=True))
    boxes = boxes.clip(0, [*SIZE, *SIZE])
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    boxes, truth = (boxes * 64).round() / 64, (truth * 64).round() / 64  # torchmetrics computes sides in float32
    order = np.lexsort((-scores, place))
    boxes, scores, found, place = boxes[order], scores[order], found[order], place[order]
    ends, real = np.searchsorted(place, np.arange(images + 1)), np.searchsorted(image, np.arange(images + 1))
    floats = {"boxes": boxes, "scores": scores, "truth": truth, "areas": areas}
    f32 = {k: torch.from_numpy(v.astype(np.float32)) for k, v in floats.items()}
    predicted, known, crowds = torch.from_numpy(found), torch.from_numpy(labels), torch.from_numpy(crowd)
    data = []
    for k in range(images):
        own, objects_ = slice(ends[k], min(ends[k + 1], ends[k] + 100)), slice(real[k], real[k + 1])
        prediction = {"boxes": f32["boxes"][own], "scores": f32["scores"][own], "labels": predicted[own]}
        target = {"boxes": f32["truth"][objects_], "labels": known[objects_]}
        data.append((prediction, {**target, "iscrowd": crowds[objects_], "area": f32["areas"][objects_]}))
    return data


def batches(data: list[Any], size: int) -> list[tuple[list[Any], list[Any]]]:
    """Return predictions and targets in batches."""
    parts = [data[i : i + size] for i in range(0, len(data), size)]
    return [([p for p, _ in part], [t for _, t in part]) for part in parts]


def torchmetrics(data: list[Any], options: argparse.Namespace) -> tuple[float, dict[str, float]]:
    """Return the seconds and the values of torchmetrics."""
    import numpy as np
    from torchmetrics.detection import MeanAveragePrecision

    metric = MeanAveragePrecision(rec_thresholds=np.linspace(0, 1, 101).tolist())  # its own are these in float32
    parts = batches([(p, {**t, "iscrowd": t["iscrowd"].long()}) for p, t in data], options.batch_size)
    start = time.perf_counter()
    for predictions, targets in parts:
        metric.update(predictions, targets)
    values = metric.compute()
    return time.perf_counter() - start, {k: float(values[k]) for k in TWELVE}


def visionkit(data: list[Any], options: argparse.Namespace) -> tuple[float, dict[str, float]]:
    """Return the seconds and the values of visionkit's metric."""
    from visionkit import BoxPrediction, BoxTarget, DetectionMetric

    metric = DetectionMetric([f"class {k}" for k in range(options.classes)])
    made = [
        (BoxPrediction(*(p[k] for k in ("boxes", "scores", "labels"))),
         BoxTarget(*(t[k] for k in ("boxes", "labels", "iscrowd", "area"))))
        for p, t in data
    ]  # fmt: skip
    parts = batches(made, options.batch_size)
    start = time.perf_counter()
    for predictions, targets in parts:
        metric.update(predictions, targets)
    values = metric.compute()
    return time.perf_counter() - start, {k: float(values[k]) for k in TWELVE}


def dictionaries(data: list[Any], classes: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the truth as COCO's file, and the results as COCO's list."""
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []

    def corner_and_sides(boxes: Any) -> Any:
        wide = boxes.double()
        wide[:, 2:] -= wide[:, :2]
        return wide.tolist()

    for number, (p, t) in enumerate(data, start=1):
        rows = zip(corner_and_sides(t["boxes"]), *(t[k].tolist() for k in ("labels", "iscrowd", "area")), strict=True)
        for box, label, crowd, area in rows:
            row = {"id": len(truth) + 1, "image_id": number, "category_id": label + 1, "bbox": box, "area": area}
            truth.append({**row, "iscrowd": int(crowd)})
        rows = zip(corner_and_sides(p["boxes"]), p["labels"].tolist(), p["scores"].tolist(), strict=True)
        found += [{"image_id": number, "category_id": k + 1, "bbox": box, "score": s} for box, k, s in rows]
    known = {"images": [{"id": i} for i in range(1, len(data) + 1)], "annotations": truth, "info": {}}
    return {**known, "categories": [{"id": k + 1, "name": str(k)} for k in range(classes)]}, found


def pycocotools(data: list[Any], options: argparse.Namespace) -> tuple[float, dict[str, float]]:
    """Return the seconds and the values of COCO's own code."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    known, found = dictionaries(data, options.classes)
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = known
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return time.perf_counter() - start, dict(zip(TWELVE, map(float, evaluation.stats), strict=True))


def faster_coco_eval(data: list[Any], options: argparse.Namespace) -> tuple[float, dict[str, float]]:
    """Return the seconds and the values of faster_coco_eval."""
    from faster_coco_eval import COCO, COCOeval_faster

    known, found = dictionaries(data, options.classes)
    start = time.perf_counter()
    truth = COCO(known)
    evaluation = COCOeval_faster(truth, truth.loadRes(found), "bbox", print_function=lambda *_: None)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return time.perf_counter() - start, dict(zip(TWELVE, map(float, evaluation.stats), strict=False))


def main() -> None:
    """Run one case and print its figures."""
    runs = {"torchmetrics": torchmetrics, "pycocotools": pycocotools, "visionkit": visionkit}
    runs["faster_coco_eval"] = faster_coco_eval
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=runs)
    parser.add_argument("--values", help="file for the values that all cases must have")
    add_arguments(parser)
    options = parser.parse_args()
    seconds, values = runs[options.case](draw(options.images, options.classes), options)
    if options.values:
        place = Path(options.values)
        if not place.is_file():
            place.write_text(json.dumps(values))
        for name, expected in json.loads(place.read_text()).items():
            if abs(values[name] - expected) > 1e-6:
                sys.exit(f"{options.case}: {name} is {values[name]}, not {expected}")
    report({KEY: seconds, "map": values["map"]})


if __name__ == "__main__":
    main()
