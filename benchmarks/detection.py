"""Detection with ResNet-18 from scratch: ``visionkit fit`` beside torchvision's detectors in a plain float32 loop.

Both see the same pixels (the longer side of the pictures at ``--size``). torchvision's FCOS and Faster R-CNN have
its own defaults (256 channels, four convolutions, float32, NCHW) and the recipe of its reference script: SGD with
momentum 0.9, weight decay 1e-4, a learning rate of 0.02 for 16 images, linear warm-up, two steps down, horizontal
flips. Its pictures are decoded beforehand; visionkit reads JPEG files, augments, averages weights and validates
every epoch.

Without ``--epochs`` only speed is measured. With it visionkit trains so many epochs through its command line,
and torchvision then trains for as many seconds as that took from start to end, start-up and validations included.
Average precision is COCO's, by the same code for both.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

KEY = "images_per_second"
REFERENCES = ["torchvision fcos", "torchvision fasterrcnn"]
HEADS = {"fcos": "detect.yaml", "fasterrcnn": "detect_two_stage.yaml"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this comparison's options."""
    parser.add_argument("--data", required=True, help="folder with boxes (COCO, VOC or YOLO)")
    parser.add_argument("--size", type=int, nargs=2, default=(240, 320), metavar=("H", "W"), help="pixels of the model")
    parser.add_argument("--steps", type=int, default=15, help="counted steps where only speed is measured")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=0, help="train visionkit so long and compare precision too")
    parser.add_argument("--models", nargs="+", default=list(HEADS), choices=list(HEADS))
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further keys for visionkit fit")


def cases(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each case; visionkit's come first, as they say how long torchvision may train."""
    common = [sys.executable, __file__]
    sizes = ["--data", options.data, "--size", *map(str, options.size), "--steps", str(options.steps)]
    sizes += ["--batch-size", str(options.batch_size), "--epochs", str(options.epochs)]
    folder = tempfile.mkdtemp()
    found = {}
    for name in options.models:
        times = ["--times", f"{folder}/{name}.json", "--models", name]
        found[f"visionkit {name}"] = [*common, "visionkit", *sizes, *times, "--set", *options.set]
        found[f"torchvision {name}"] = [*common, "torchvision", *sizes, *times]
    return found


def visionkit(options: argparse.Namespace) -> dict[str, float]:
    """Train through the command line; return speed, wall time and average precision."""
    from visionkit.cli import run

    start = time.perf_counter()
    config = HEADS[options.models[0]]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        settings: dict[str, Any] = {
            "data.root": options.data,
            "data.size": f"[{options.size[0]}, {options.size[1]}]",
            "data.batch_size": options.batch_size,
            "trainer.max_epochs": options.epochs or 3,
            "trainer.default_root_dir": out,
            "trainer.logger": "false",
        }
        if not options.epochs:
            settings |= {"trainer.limit_train_batches": options.steps, "trainer.limit_val_batches": 1}
        further = [f"--{pair}" for pair in options.set]
        if run(["fit", "-c", config, *(f"--{k}={v}" for k, v in settings.items()), *further]):
            sys.exit(1)
        seconds = time.perf_counter() - start
        rows = list(csv.DictReader((out / "metrics.csv").open()))
        result = {KEY: statistics.mean(float(r["images_per_second"]) for r in rows[1:]), "seconds": seconds}
        if options.epochs:
            best = str(out / "checkpoints" / "best.ckpt")
            data = [f"--data.root={options.data}", f"--trainer.default_root_dir={out}"]
            if run(["test", "--ckpt_path", best, *data]):
                sys.exit(1)
            metrics = json.loads((out / "metrics.json").read_text())
            result |= {k: metrics[k] for k in ("val/map", "val/map_50", "test/map", "test/map_50") if k in metrics}
    Path(options.times).write_text(json.dumps({"seconds": seconds}))
    return result


def torchvision(options: argparse.Namespace) -> dict[str, float]:
    """Train torchvision's model in a plain loop; return speed, wall time and average precision."""
    import torch

    torch.manual_seed(0)
    data = read(options.data)
    model = make(options.models[0], len(data["train"].classes), tuple(options.size))
    samples = [data["train"][i] for i in range(len(data["train"]))]
    shift = 0 if options.models[0] == "fcos" else 1  # Faster R-CNN keeps 0 for the background
    budget = json.loads(Path(options.times).read_text())["seconds"] if options.epochs else None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9, weight_decay=1e-4)
    full = 0.02 * options.batch_size / 16
    model.train()
    start, step, order, times = time.perf_counter(), 0, [], []
    while (time.perf_counter() - start < budget) if budget else (step < options.steps + 3):
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
        times.append(time.perf_counter() - begin)
    result = {KEY: options.batch_size * (step - 3) / sum(times[3:]), "seconds": time.perf_counter() - start}
    if budget:
        for name in ("val", "test"):
            if data.get(name) is not None:
                result |= {f"{name}/{k}": v for k, v in measure(model, data[name], shift).items()}
    return result


def read(root: str) -> dict[str, Any]:
    """Return the data sets by split."""
    from visionkit.detection.splits import find_box_splits

    found = find_box_splits(root)
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
    figures["peak_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(json.dumps({k: round(v, 4) for k, v in figures.items()}))


if __name__ == "__main__":
    main()
