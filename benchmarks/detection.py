"""Detection with ResNet-18 from scratch: ``visionkit fit`` beside torchvision's detectors in a plain float32 loop.

Both see the same pixels (the longer side of the pictures at ``--size``). torchvision's FCOS and Faster R-CNN have
its own defaults (256 channels, four convolutions, float32, NCHW) and the recipe of its reference script: SGD with
momentum 0.9, weight decay 1e-4, a learning rate of 0.02 for 16 images, linear warm-up, two steps down, horizontal
flips. Its pictures are decoded beforehand; visionkit reads JPEG files, augments, averages weights and validates
every epoch.

Without ``--epochs`` only speed is measured: from the end of the warm-up to the end of the last step, three times as
many steps of visionkit, whose are shorter. With it visionkit trains so many epochs through its command line, and
torchvision then trains for as many seconds as that took from start to end, start-up and validations included. Average
precision is COCO's, by the same code for both.

visionkit's defaults are leaner than torchvision's (half the channels, a quarter of the proposals); ``--equal`` gives
it torchvision's numbers, so that the ratio is that of equal networks: 256 channels, four convolutions, the same levels,
512 proposals a picture in the second stage of 2000, two layers of 1024 units there.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

KEY = "images_per_second"
REFERENCES = ["torchvision fcos", "torchvision faster_rcnn"]  # those that --only leaves
HEADS = {"fcos": "detect.yaml", "faster_rcnn": "detect_two_stage.yaml"}
WIDTHS = {  # torchvision's
    "fcos": {"model.neck.channels": 256, "model.head.channels": 256, "model.head.depth": 4},
    "faster_rcnn": {
        "model.neck.channels": 256,
        "model.head.width": 1024,
        "model.head.rois_per_image": 512,
        "model.head.pre_nms_train": 2000,
        "model.head.post_nms_train": 2000,
    },
}
WARMUP = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this comparison's options."""
    parser.add_argument("--data", required=True, help="folder with boxes (COCO, VOC or YOLO)")
    parser.add_argument("--size", type=int, nargs=2, default=(240, 320), metavar=("H", "W"), help="pixels of the model")
    parser.add_argument(
        "--steps", type=int, default=4, help="counted steps of torchvision where only speed is measured"
    )
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=0, help="train visionkit so long and compare precision too")
    parser.add_argument("--only", nargs="+", default=list(HEADS), choices=list(HEADS), help="default: both")
    parser.add_argument("--equal", action="store_true", help="torchvision's widths for visionkit, too")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further keys for visionkit fit")


def cases(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each case; visionkit's come first, as they say how long torchvision may train."""
    REFERENCES[:] = [f"torchvision {name}" for name in options.only]
    common = [sys.executable, __file__]
    sizes = ["--data", options.data, "--size", *map(str, options.size), "--steps", str(options.steps)]
    sizes += ["--batch-size", str(options.batch_size), "--epochs", str(options.epochs)]
    folder = tempfile.mkdtemp()
    found = {}
    for name in options.only:
        times = ["--times", f"{folder}/{name}.json", "--only", name]
        equal = ["--equal"] if options.equal else []
        found[f"visionkit {name}"] = [*common, "visionkit", *sizes, *times, *equal, "--set", *options.set]
        found[f"torchvision {name}"] = [*common, "torchvision", *sizes, *times]
    return found


def visionkit(options: argparse.Namespace) -> dict[str, float]:
    """Train through the command line; return speed, wall time and average precision."""
    from measuring.figures import speed
    from measuring.steps import StepTimes, common_settings, fit

    from visionkit.cli.main import run

    start = time.perf_counter()
    name = options.only[0]
    settings = common_settings(options, WARMUP + 3 * options.steps)
    if options.equal:
        settings |= WIDTHS[name]
    out = fit(HEADS[name], settings, options.set)
    seconds = time.perf_counter() - start
    if options.epochs:
        rows = list(csv.DictReader((out / "metrics.csv").open()))
        result = {KEY: statistics.mean(float(r["images_per_second"]) for r in rows[1:]), "seconds": seconds}
        best = str(out / "checkpoints" / "best.ckpt")
        data = [f"--data.root={options.data}", f"--trainer.default_root_dir={out}"]
        if run(["test", "--ckpt_path", best, *data]):
            sys.exit(1)
        metrics = json.loads((out / "metrics.json").read_text())
        result |= {k: metrics[k] for k in ("val/map", "val/map_50", "test/map", "test/map_50") if k in metrics}
    else:
        result = {KEY: speed(StepTimes.ends, images=options.batch_size, warmup=WARMUP), "seconds": seconds}
    Path(options.times).write_text(json.dumps({"seconds": seconds}))
    return result


def torchvision(options: argparse.Namespace) -> dict[str, float]:
    """Train torchvision's model in a plain loop; return speed, wall time and average precision."""
    import torch
    from measuring.figures import speed

    torch.manual_seed(getattr(options, "seed", 0))
    data = read(options.data)
    model = make(options.only[0], len(data["train"].classes), tuple(options.size))
    samples = [data["train"][i] for i in range(len(data["train"]))]
    shift = 0 if options.only[0] == "fcos" else 1  # Faster R-CNN keeps 0 for the background
    budget = json.loads(Path(options.times).read_text())["seconds"] if options.epochs else None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9, weight_decay=1e-4)
    full = 0.02 * options.batch_size / 16
    model.train()
    start, step, order, ends = time.perf_counter(), 0, [], []
    while (time.perf_counter() - start < budget) if budget else (step < WARMUP + options.steps):
        begin = time.perf_counter()
        if len(order) < options.batch_size:
            order = torch.randperm(len(samples)).tolist()
        images, targets = [], []
        for k in (order.pop() for _ in range(options.batch_size)):
            image, target = samples[k].image.contiguous().float() / 255, samples[k].target
            boxes = target.boxes.clone()
            if torch.rand(()) < 0.5:
                image = image.flip(-1)
                boxes[:, [0, 2]] = image.shape[-1] - boxes[:, [2, 0]]
            images.append(image)
            targets.append({"boxes": boxes, "labels": target.labels + shift})
        passed = (begin - start) / budget if budget else 0.0
        rate = full * min(1.0, (step + 1) / 100) * (0.1 if passed > 0.62 else 1.0) * (0.1 if passed > 0.85 else 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = sum(model(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        ends.append(time.perf_counter())
    result = {KEY: speed(ends, images=options.batch_size, warmup=WARMUP), "seconds": ends[-1] - start}
    if budget:
        for name in ("val", "test"):
            if data.get(name) is not None:
                result |= {f"{name}/{k}": v for k, v in measure(model, data[name], shift).items()}
    return result


def read(root: str) -> dict[str, Any]:
    """Return the data sets by split."""
    from visionkit.data.formats import find_splits
    from visionkit.tasks.detection.readers.formats import FORMATS

    found = find_splits(root, FORMATS)
    return {"train": found.train, "val": found.val, "test": found.test}


def make(name: str, classes: int, size: tuple[int, int]) -> Any:
    """Return torchvision's detector with a ResNet-18 and a feature pyramid, all of it trainable."""
    from torch import nn
    from torchvision.models.detection import FCOS, FasterRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    common: dict[str, Any] = {"backbone_name": "resnet18", "weights": None, "norm_layer": nn.BatchNorm2d}
    common["trainable_layers"] = 5
    sizes = {"min_size": min(size), "max_size": max(size)}
    if name == "fcos":
        backbone = resnet_fpn_backbone(**common, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256))
        return FCOS(backbone, num_classes=classes, score_thresh=0.05, **sizes)
    return FasterRCNN(resnet_fpn_backbone(**common), num_classes=classes + 1, **sizes)


def measure(model: Any, dataset: Any, shift: int) -> dict[str, float]:
    """Return average precision on a data set, in pixels of the originals."""
    import torch

    from visionkit import BoxPrediction, DetectionMetric

    metric = DetectionMetric(dataset.classes)
    model.eval()
    with torch.no_grad():
        for i in range(len(dataset)):
            sample = dataset[i]
            (found,) = model([sample.image.contiguous().float() / 255])
            prediction = BoxPrediction(found["boxes"], found["scores"], found["labels"] - shift)
            metric.update([prediction.restore(sample.info)], [sample.target])
    values = metric.compute()
    return {k: float(values[k]) for k in ("map", "map_50")}


def main() -> None:
    """Run one case and print its figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=("visionkit", "torchvision"))
    parser.add_argument("--times", required=True, help="file that says how long visionkit took")
    add_arguments(parser)
    options = parser.parse_args()
    figures = visionkit(options) if options.case == "visionkit" else torchvision(options)

    from measuring.figures import report

    report(figures, workers=options.case == "visionkit")


if __name__ == "__main__":
    main()
