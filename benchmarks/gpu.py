"""What a GPU makes of visionkit, in one script of at most ten minutes that writes one JSON.

    python benchmarks/gpu.py --json gpu.json [--minutes 9]

- compiled: a bare loop of torchvision's ResNet-50 at 224 px, bf16, channels_last, compiled, one batch in memory: the
  limit of the next.
- fit: the same network by ``visionkit fit`` from JPEG files of 500 x 375 pixels, augmented, the steady state of its
  last epoch, and how long it waited for pictures.
- fcos, deeplab: a training step of FCOS (ResNet-50, 640 px) and DeepLabV3+ (ResNet-50, 512 px), data in memory, beside
  torchvision's FCOS and DeepLabV3, all in bf16 autocast; visionkit's in channels_last, as `fit` has it.
- predict: ``visionkit predict`` of the JPEG files to JSON lines, the whole command.
- average_precision: COCO's numbers of drawn detections, on the processor of that machine.
- two_processes: ``fit`` on two GPUs beside one, where there are two.
- tests: ``pytest -m gpu``.

Each part is a process of its own, and says in the JSON why it was left out where the time is over or something is
missing. ``--short`` makes all of it tiny, on whatever device there is: to see that the script works.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PARTS = ("compiled", "fit", "fcos", "deeplab", "predict", "average_precision", "two_processes", "tests")
LEAST = 20.0  # seconds, below which no further part is begun
CLASSES = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--json", required=True, metavar="FILE", help="all figures go there, after each part")
    parser.add_argument("--minutes", type=float, default=9.0, help="that it may take in all (default: 9)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    parser.add_argument("--short", action="store_true", help="tiny sizes and few steps, on a CPU too")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--photos", help=argparse.SUPPRESS)


def sizes(options: argparse.Namespace) -> dict[str, Any]:
    """Return how large everything is."""
    if options.short:
        return {
            "depth": 18,
            "side": 64,
            "batch": 4,
            "steps": 3,
            "photos": 24,
            "detect": 96,
            "segment": 64,
            "images": 40,
        }
    return {"depth": 50, "side": 224, "batch": 128, "steps": 30, "photos": 6000, "detect": 640, "segment": 512,
            "images": 2000}  # fmt: skip


def device() -> Any:
    """Return the GPU, or what there is."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def timed(step: Callable[[], Any], steps: int) -> dict[str, float]:
    """Return the median milliseconds of a step and the most memory in MiB, after a warm-up."""
    import torch

    cuda = device().type == "cuda"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for k in range(steps + max(2, steps // 3)):
        start = time.perf_counter()
        step()
        if cuda:
            torch.cuda.synchronize()
        if k >= max(2, steps // 3):
            seconds.append(time.perf_counter() - start)
    memory = torch.cuda.max_memory_reserved() / 2**20 if cuda else 0.0
    return {"ms": 1000 * statistics.median(seconds), "gpu_mib": memory}


def trained(model: Any, loss_of: Callable[[], Any]) -> Callable[[], Any]:
    """Return a training step in bf16 autocast."""
    import torch

    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def step() -> None:
        with torch.autocast(device().type, torch.bfloat16):
            loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


# ---- parts


def compiled(options: argparse.Namespace) -> dict[str, Any]:
    """Train torchvision's network on one batch in memory."""
    import torch
    import torchvision
    from torch.nn import functional as F

    from visionkit.core.machine import tune

    tune(device())
    s = sizes(options)
    net = getattr(torchvision.models, f"resnet{s['depth']}")(num_classes=CLASSES)
    net = net.to(device(), memory_format=torch.channels_last)
    run = net if options.short else torch.compile(net)
    images = torch.randn(s["batch"], 3, s["side"], s["side"], device=device())
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(CLASSES, (s["batch"],), device=device())
    found = timed(trained(net, lambda: F.cross_entropy(run(images).float(), labels)), s["steps"])
    return {**found, "images_per_second": 1000 * s["batch"] / found["ms"]}


def fit(options: argparse.Namespace, devices: int = 1) -> dict[str, Any]:
    """Train the same network through the command line from files."""
    from measuring.steps import fit as run

    s = sizes(options)
    settings = {
        "data.root": options.photos,
        "data.size": s["side"],
        "data.batch_size": s["batch"],
        "model.backbone.depth": s["depth"],
        "model.recipe.progressive": "null",
        "model.recipe.compile": "false" if options.short else "true",
        "trainer.devices": devices,
        "trainer.max_epochs": 1 if options.short else 3,
        "trainer.logger": "false",
        "pictures": "none",
    }
    if device().type == "cpu":
        settings |= {"trainer.accelerator": "cpu"}
    start = time.perf_counter()
    out = run("classify.yaml", settings)
    seconds = time.perf_counter() - start
    if int(os.environ.get("LOCAL_RANK", 0)):  # the first of several processes has the figures
        sys.exit(0)
    row = list(csv.DictReader((out / "metrics.csv").open()))[-1]
    kept = ("images_per_second", "seconds", "seconds_waiting")
    return {k: float(row[k]) for k in kept} | {"whole_seconds": seconds, "batch": s["batch"]}


def fcos(options: argparse.Namespace) -> dict[str, Any]:
    """Train FCOS on a batch in memory, beside torchvision's."""
    import torch
    from torch import nn
    from torchvision.models.detection import FCOS
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    from visionkit import FPN, BoxTarget, FCOSHead, ResNet, VisionModel
    from visionkit.core.machine import tune

    tune(device())
    s = sizes(options)
    batch, side, where = max(2, s["batch"] // 8), s["detect"], device()
    images = torch.randint(256, (batch, 3, side, side), dtype=torch.uint8, device=where)
    generator = torch.Generator().manual_seed(0)
    boxes, labels = [], []
    for k in range(batch):
        extent = torch.rand(3 + k % 9, 2, generator=generator).square() * 0.6 * side + 12
        corner = torch.rand(len(extent), 2, generator=generator) * (side - extent)
        boxes.append(torch.cat([corner, corner + extent], 1))
        labels.append(torch.randint(CLASSES, (len(extent),), generator=generator))
    targets = [BoxTarget.make(b, k).to(where) for b, k in zip(boxes, labels, strict=True)]
    names = [f"class {k}" for k in range(CLASSES)]
    ours = VisionModel(ResNet(s["depth"]), lambda f, n: FCOSHead(f, n), names, lambda f: FPN(f))
    ours = ours.to(where, memory_format=torch.channels_last).train()
    found = {"visionkit": timed(trained(ours, lambda: sum(ours.loss(ours(images), targets).values())), s["steps"])}
    ours.cpu()
    norm: Any = nn.BatchNorm2d
    pyramid = resnet_fpn_backbone(
        backbone_name=f"resnet{s['depth']}", weights=None, norm_layer=norm, trainable_layers=5,
        returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256),
    )  # fmt: skip
    theirs = FCOS(pyramid, num_classes=CLASSES, min_size=side, max_size=side).to(where).train()
    pictures = list(images.float() / 255)
    truth = [{"boxes": b.to(where), "labels": k.to(where)} for b, k in zip(boxes, labels, strict=True)]
    found["torchvision"] = timed(trained(theirs, lambda: sum(theirs(pictures, truth).values())), s["steps"])
    return found


def deeplab(options: argparse.Namespace) -> dict[str, Any]:
    """Train DeepLabV3+ on a batch in memory, beside torchvision's DeepLabV3."""
    import torch
    from torch.nn import functional as F
    from torchvision import models

    from visionkit import DeepLabV3PlusHead, MaskTarget, ResNet, VisionModel
    from visionkit.core.machine import tune

    tune(device())
    s = sizes(options)
    batch, side, where = max(2, s["batch"] // 8), s["segment"], device()
    images = torch.randint(256, (batch, 3, side, side), dtype=torch.uint8, device=where)
    masks = torch.randint(CLASSES, (batch, side // 16, side // 16), device=where)
    masks = masks.repeat_interleave(16, 1).repeat_interleave(16, 2)
    names = [f"class {k}" for k in range(CLASSES)]
    ours = VisionModel(ResNet(s["depth"], output_stride=16), lambda f, n: DeepLabV3PlusHead(f, n), names)
    ours = ours.to(where, memory_format=torch.channels_last).train()
    targets = [MaskTarget(mask.to(torch.uint8)) for mask in masks]
    found = {"visionkit": timed(trained(ours, lambda: sum(ours.loss(ours(images), targets).values())), s["steps"])}
    ours.cpu()
    theirs = models.segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=CLASSES)
    theirs = theirs.to(where).train()
    floats = images.float() / 255
    loss = trained(theirs, lambda: F.cross_entropy(theirs(floats)["out"].float(), masks))
    found["torchvision, stride 8"] = timed(loss, s["steps"])
    return found


def predict(options: argparse.Namespace) -> dict[str, Any]:
    """Apply a model to the files through the command line."""
    import visionkit
    from visionkit.cli.main import run

    s = sizes(options)
    model = visionkit.VisionModel(
        visionkit.ResNet(s["depth"]), visionkit.LinearHead, [f"class {k}" for k in range(CLASSES)]
    )
    with tempfile.TemporaryDirectory() as folder:
        visionkit.save(model, Path(folder) / "model.ckpt")
        start = time.perf_counter()
        status = run(["predict", "--ckpt", f"{folder}/model.ckpt", "--out", f"{folder}/out", options.photos])
        seconds = time.perf_counter() - start
        if status:
            sys.exit(status)
        lines = len((Path(folder) / "out" / "predictions.jsonl").read_text().splitlines())
    return {"images": lines, "seconds": seconds, "images_per_second": lines / seconds}


def average_precision(options: argparse.Namespace) -> dict[str, Any]:
    """Measure drawn detections."""
    import torch

    from visionkit import BoxPrediction, BoxTarget, DetectionMetric

    images = sizes(options)["images"]
    generator = torch.Generator().manual_seed(0)
    metric = DetectionMetric([f"class {k}" for k in range(80)])
    corners = torch.rand(images, 8, 2, generator=generator) * 500
    truth = torch.cat([corners, corners + 20 + 100 * torch.rand(images, 8, 2, generator=generator)], 2)
    labels = torch.randint(80, (images, 8), generator=generator)
    start = time.perf_counter()
    for k in range(images):
        boxes = (truth[k] + 8 * torch.randn(8, 4, generator=generator)).repeat(10, 1)
        scores = torch.rand(80, generator=generator)
        found = BoxPrediction(boxes, scores, labels[k].repeat(10))
        metric.update([found], [BoxTarget.make(truth[k], labels[k])])
    value = float(metric.compute()["map"])
    return {"images": images, "seconds": time.perf_counter() - start, "map": value}


def two_processes(options: argparse.Namespace) -> dict[str, Any]:
    """Train on two GPUs."""
    import torch

    if torch.cuda.device_count() < 2:
        return {"left_out": f"{torch.cuda.device_count()} GPUs"}
    return fit(options, devices=2)


def tests(options: argparse.Namespace) -> dict[str, Any]:
    """Run the tests that need a GPU."""
    folder = Path(__file__).parents[1]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    command += ["--collect-only"] if options.short else []
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return {"status": done.returncode, "said": done.stdout.splitlines()[-15:]}


RUN: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "compiled": compiled,
    "fit": fit,
    "fcos": fcos,
    "deeplab": deeplab,
    "predict": predict,
    "average_precision": average_precision,
    "two_processes": two_processes,
    "tests": tests,
}


# ---- all of them


def draw_photos(folder: Path, count: int) -> None:
    """Write JPEG files of about 60 kB: blurred noise, a folder a class, a sixth of them to validate."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    drawn = [cv2.GaussianBlur(rng.integers(0, 256, (375, 500, 3), np.uint8), (0, 0), 1 + k % 4) for k in range(40)]
    coded = [cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes() for picture in drawn]
    for k in range(count):
        path = folder / ("val" if k % 6 == 5 else "train") / f"class {k // 6 % 4}" / f"{k}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(coded[k % len(coded)])


def run_all(options: argparse.Namespace) -> dict[str, Any]:
    """Run every part in time; return and write what they found."""
    from run import machine

    start = time.perf_counter()
    found: dict[str, Any] = {"machine": machine(), "short": options.short}
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        draw_photos(photos, sizes(options)["photos"])
        for part in options.only:
            left = 60 * options.minutes - (time.perf_counter() - start)
            found[part] = _part(part, options, photos, left) if left > LEAST else {"left_out": "the time is over"}
            Path(options.json).write_text(json.dumps(found, indent=2) + "\n")
            print(part, json.dumps(found[part]), flush=True)
    return found


def _part(part: str, options: argparse.Namespace, photos: Path, left: float) -> dict[str, Any]:
    command = [sys.executable, __file__, "--part", part, "--json", os.devnull, "--photos", str(photos)]
    start = time.perf_counter()
    try:
        done = subprocess.run(
            [*command, *(["--short"] if options.short else [])],
            capture_output=True, text=True, check=False, timeout=left,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"left_out": f"it did not end within {left:.0f} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        return {"failed": (done.stdout + done.stderr).splitlines()[-8:]}
    return {**json.loads(lines[-1]), "part_seconds": round(time.perf_counter() - start, 1)}


def main() -> None:
    """Run all parts, or one."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(RUN[options.part](options)), flush=True)
    else:
        run_all(options)


if __name__ == "__main__":
    main()
