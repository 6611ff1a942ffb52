"""A training step of the detectors, data in memory: visionkit's FCOS and Faster R-CNN beside torchvision's.

ResNet-18 with a feature pyramid, pictures of 320 pixels, about 7 objects in each, SGD. torchvision is as it comes:
float32, NCHW. visionkit takes what ``visionkit fit`` takes on a processor with bf16: autocast, channels_last, freed
memory kept. "same" cases are equal networks (256 channels, four convolutions in each branch, 512 boxes of 2000
proposals in the second stage, two layers of 1024 units, torchvision's assignment and losses); "own" ones are
visionkit's defaults. ``forward_ms``, ``loss_ms`` (assignment, sampling, second stage, losses) and ``backward_ms`` are
parts of ``ms``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from measuring.figures import report

KEY = "ms"
REFERENCES = ["torchvision fcos", "torchvision faster_rcnn"]
LOWER = True
HEADS = ("fcos", "faster_rcnn")
SAME: dict[str, dict[str, Any]] = {
    "fcos": {"assign": "centre", "class_loss": "focal", "bins": 0, "norm": "group", "channels": 256, "depth": 4,
             "cell": 0.0, "box_weight": 1.0},
    "faster_rcnn": {"width": 1024, "rois_per_image": 512, "pre_nms_train": 2000, "post_nms_train": 2000},
}  # fmt: skip
WARMUP = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this comparison's options."""
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--size", type=int, default=320, help="side of a picture in pixels (default: 320)")
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--steps", type=int, default=5, help="counted steps of a case in a round (default: 5)")
    parser.add_argument("--only", nargs="+", default=list(HEADS), choices=HEADS, help="default: both")


def cases(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each case."""
    REFERENCES[:] = [f"torchvision {name}" for name in options.only]
    sizes = [f"--{k.replace('_', '-')}={getattr(options, k)}" for k in ("batch_size", "size", "classes", "steps")]
    found = {}
    for name in options.only:
        for label, kind in (("torchvision", "torchvision"), ("visionkit same", "same"), ("visionkit own", "own")):
            found[f"{label} {name}"] = [sys.executable, __file__, kind, name, *sizes]
    return found


def draw(options: argparse.Namespace) -> tuple[Any, list[tuple[Any, Any]]]:
    """Return pictures, uint8 [B, 3, S, S], and boxes and labels of each, always the same ones."""
    import torch

    generator = torch.Generator().manual_seed(0)
    shape = (options.batch_size, 3, options.size, options.size)
    images = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    objects = []
    for k in range(options.batch_size):
        count = 3 + k % 9
        side = torch.rand(count, 2, generator=generator).square() * 0.6 * options.size + 12
        corner = torch.rand(count, 2, generator=generator) * (options.size - side)
        labels = torch.randint(options.classes, (count,), generator=generator)
        objects.append((torch.cat([corner, corner + side], 1), labels))
    return images, objects


def torchvision(options: argparse.Namespace) -> tuple[Any, Callable[[], tuple[Any, Any]]]:
    """Return torchvision's model, and what computes its outputs and losses."""
    from torch import nn
    from torchvision.models.detection import FCOS, FasterRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    images, objects = draw(options)
    common: dict[str, Any] = {"backbone_name": "resnet18", "weights": None, "norm_layer": nn.BatchNorm2d}
    common["trainable_layers"] = 5
    sizes = {"min_size": options.size, "max_size": options.size}
    model: nn.Module
    if options.head == "fcos":
        backbone = resnet_fpn_backbone(**common, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256))
        model = FCOS(backbone, num_classes=options.classes, **sizes)
    else:
        model = FasterRCNN(resnet_fpn_backbone(**common), num_classes=options.classes + 1, **sizes)
    shift = 0 if options.head == "fcos" else 1  # Faster R-CNN keeps 0 for the background
    pictures = list(images.float() / 255)
    targets = [{"boxes": b, "labels": k + shift} for b, k in objects]
    return model.train(), lambda: (time.perf_counter(), sum(model(pictures, targets).values()))


def visionkit(options: argparse.Namespace) -> tuple[Any, Callable[[], tuple[Any, Any]]]:
    """Return visionkit's model, and what computes its outputs and losses."""
    import torch

    from visionkit import FPN, BoxTarget, FasterRCNNHead, FCOSHead, ResNet, VisionModel
    from visionkit.core.machine import choose_precision, keep_freed_memory

    keep_freed_memory()
    images, objects = draw(options)
    images = images.contiguous(memory_format=torch.channels_last)
    targets = [BoxTarget.make(b, k) for b, k in objects]
    kind = FCOSHead if options.head == "fcos" else FasterRCNNHead
    levels: dict[str, Any] = {} if options.head == "fcos" else {"min_level": 2, "max_level": 6, "extra": "pool"}
    settings: dict[str, Any] = {}
    if options.case == "same":
        settings, levels = SAME[options.head], {**levels, "channels": 256, "norm": None}
    model = VisionModel(
        ResNet(18),
        lambda features, count: kind(features, count, **settings),
        [f"class {k}" for k in range(options.classes)],
        lambda features: FPN(features, **levels),
    )
    model = model.to(memory_format=torch.channels_last).train()
    bf16 = choose_precision(torch.device("cpu")) == "bf16-mixed"

    def step() -> tuple[Any, Any]:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            outputs = model(images)
            middle = time.perf_counter()
            return middle, sum(model.loss(outputs, targets).values())

    return model, step


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Return the median milliseconds of a step and of its parts."""
    import torch

    torch.manual_seed(0)
    model, step = (torchvision if options.case == "torchvision" else visionkit)(options)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)
    parts = []
    for _ in range(options.steps + WARMUP):
        start = time.perf_counter()
        middle, loss = step()
        begin = time.perf_counter()
        loss.backward()
        end = time.perf_counter()
        optimizer.step()
        optimizer.zero_grad()
        parts.append((time.perf_counter() - start, middle - start, begin - middle, end - begin))
    names = (KEY, "forward_ms", "loss_ms", "backward_ms")
    medians = (1e3 * statistics.median(p) for p in zip(*parts[WARMUP:], strict=True))
    figures = {name: round(value, 1) for name, value in zip(names, medians, strict=True)}
    if options.case == "torchvision":  # its losses come out of forward
        figures["forward_ms"] = round(figures["forward_ms"] + figures.pop("loss_ms"), 1)
    return figures


def main() -> None:
    """Run one case and print its figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=("torchvision", "same", "own"))
    parser.add_argument("head", choices=HEADS)
    add_arguments(parser)
    options = parser.parse_args()
    report(measure(options))


if __name__ == "__main__":
    main()
