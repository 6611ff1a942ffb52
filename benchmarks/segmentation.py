"""Segmentation: ``visionkit fit`` with DeepLabV3+ beside torchvision's DeepLabV3 head in a plain float32 loop.

Both have the same backbone and the same start weights, and see crops of the same size. visionkit's has its default
output stride of 16; torchvision's is measured with that, too, and with the 8 of torchvision's own DeepLabV3 models.
torchvision's head has its own defaults (256 channels, dense dilated convolutions) and the recipe of its reference
script: SGD with a learning rate of 0.01, momentum 0.9, weight decay 1e-4, polynomial decay, pictures resized at random
by 0.5 to 2, cropped and flipped. Its pictures are decoded beforehand; visionkit reads files, augments more, averages
weights and validates. From a ResNet-50 or -101 from scratch torchvision has a whole model, which is measured as its own
function makes it (``deeplabv3_resnet50``, output stride 8) and with a stride of 16; its shallower ResNets cannot be
dilated, so that there visionkit's are under torchvision's head.

Without ``--epochs`` only speed is measured: from the end of the warm-up to the end of the last step. With it visionkit
trains so many epochs through its command line, and torchvision then trains for as many seconds as that took from start
to end, start-up and validations included. The mean intersection over union is that of the whole validation set in
pixels of the originals, by the same code.
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
REFERENCES = ["torchvision stride 8", "torchvision stride 16"]  # the first is a whole model where there is one
WARMUP = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this comparison's options."""
    parser.add_argument("--data", required=True, help="folder with images and masks")
    parser.add_argument("--size", type=int, nargs=2, default=(240, 320), metavar=("H", "W"), help="pixels of the model")
    parser.add_argument("--steps", type=int, default=6, help="counted steps where only speed is measured")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=0, help="train visionkit so long and compare mIoU too")
    parser.add_argument("--depth", type=int, default=18, help="of the ResNet; 50 is what torchvision has a model of")
    parser.add_argument("--timm", metavar="NAME", help="a timm network instead of the ResNet")
    parser.add_argument("--weights", metavar="FILE", help="start weights of the backbone")
    parser.add_argument("--peer-stride", type=int, default=8, choices=(8, 16), help=argparse.SUPPRESS)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further keys for visionkit fit")


def cases(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each case; visionkit's comes first, as it says how long torchvision may train."""
    common = ["--data", options.data, "--size", *map(str, options.size), "--steps", str(options.steps)]
    common += ["--batch-size", str(options.batch_size), "--epochs", str(options.epochs), "--depth", str(options.depth)]
    common += ["--timm", options.timm] if options.timm else []
    common += ["--weights", options.weights] if options.weights else []
    common += ["--times", f"{tempfile.mkdtemp()}/times.json"]
    peer = [sys.executable, __file__, "torchvision", *common, "--peer-stride"]
    first = f"torchvision deeplabv3_resnet{options.depth}" if whole_model(options) else "torchvision stride 8"
    REFERENCES[:] = [first, "torchvision stride 16"]
    return {
        "visionkit": [sys.executable, __file__, "visionkit", *common, "--set", *options.set],
        first: [*peer, "8"],
        "torchvision stride 16": [*peer, "16"],
    }


def visionkit(options: argparse.Namespace) -> dict[str, float]:
    """Train through the command line; return speed, wall time and intersection over union."""
    from measuring.figures import speed
    from measuring.steps import StepTimes, common_settings, fit

    start = time.perf_counter()
    settings = common_settings(options, WARMUP + options.steps)
    if options.timm:
        settings |= {"model.backbone": "TimmBackbone", "model.backbone.name": options.timm}
    else:
        settings["model.backbone.depth"] = options.depth
    settings["model.backbone.output_stride"] = 16
    if options.weights:
        settings["model.backbone.weights"] = options.weights
    out = fit("segment.yaml", settings, options.set)
    seconds = time.perf_counter() - start
    if options.epochs:
        rows = list(csv.DictReader((out / "metrics.csv").open()))
        result = {KEY: statistics.mean(float(r["images_per_second"]) for r in rows[1:]), "seconds": seconds}
        metrics = json.loads((out / "metrics.json").read_text())
        result |= {k: v for k, v in metrics.items() if k.startswith(("val/miou", "val/iou/", "val/pixel_accuracy"))}
    else:
        result = {KEY: speed(StepTimes.ends, images=options.batch_size, warmup=WARMUP), "seconds": seconds}
    Path(options.times).write_text(json.dumps({"seconds": seconds}))
    return result


def torchvision(options: argparse.Namespace) -> dict[str, float]:
    """Train torchvision's head in a plain loop; return speed, wall time and intersection over union."""
    import torch
    from measuring.figures import speed
    from torch.nn import functional as F

    from visionkit.data.formats import find_splits
    from visionkit.tasks.segmentation.readers.formats import FORMATS

    torch.manual_seed(getattr(options, "seed", 0))
    found = find_splits(options.data, FORMATS)
    train, val = found.get("train"), found.get("val")
    model = make(options, len(train.classes))
    samples = [train[i] for i in range(len(train))]
    budget = json.loads(Path(options.times).read_text())["seconds"] if options.epochs else None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9, weight_decay=1e-4)
    model.train()
    start, step, order, ends = time.perf_counter(), 0, [], []
    while (time.perf_counter() - start < budget) if budget else (step < WARMUP + options.steps):
        begin = time.perf_counter()
        if len(order) < options.batch_size:
            order = torch.randperm(len(samples)).tolist()
        drawn = [crop(samples[order.pop()], tuple(options.size)) for _ in range(options.batch_size)]
        images = torch.stack([image for image, _ in drawn])
        masks = torch.stack([mask for _, mask in drawn])
        passed = (begin - start) / budget if budget else 0.0
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (1 - min(passed, 1.0)) ** 0.9
        loss = F.cross_entropy(model(images), masks, ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        ends.append(time.perf_counter())
    result = {KEY: speed(ends, images=options.batch_size, warmup=WARMUP), "seconds": ends[-1] - start}
    return result | (measure(model, val) if budget else {})


def crop(sample: Any, size: tuple[int, int]) -> tuple[Any, Any]:
    """Resize a picture and its mask at random, cut them to ``size`` and mirror every second one."""
    import torch
    from torch.nn import functional as F

    image, mask = sample.image[None].float() / 255, sample.target.mask[None, None].float()
    factor = float(torch.empty(()).uniform_(0.5, 2.0))
    edges = [round(e * factor) for e in image.shape[2:]]
    image = F.interpolate(image, edges, mode="bilinear", antialias=True)
    mask = F.interpolate(mask, edges, mode="nearest")
    missing = (0, max(0, size[1] - edges[1]), 0, max(0, size[0] - edges[0]))
    image, mask = F.pad(image, missing), F.pad(mask, missing, value=255)
    top = int(torch.randint(image.shape[2] - size[0] + 1, ()))
    left = int(torch.randint(image.shape[3] - size[1] + 1, ()))
    image, mask = (t[0, :, top : top + size[0], left : left + size[1]] for t in (image, mask))
    if torch.rand(()) < 0.5:
        image, mask = image.flip(-1), mask.flip(-1)
    return image, mask[0].long()


def make(options: argparse.Namespace, classes: int) -> Any:
    """Return torchvision's model, or its head on visionkit's backbone with torch's own convolutions."""
    import torch
    from torch import nn
    from torch.nn import functional as F
    from torchvision.models.segmentation.deeplabv3 import DeepLabHead

    from visionkit import ResNet, TimmBackbone

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
            if whole_model(options):
                self.net: nn.Module = whole(options.depth, options.peer_stride, classes)
            else:
                if options.timm:
                    backbone: Any = TimmBackbone(
                        options.timm, output_stride=options.peer_stride, weights=options.weights
                    )
                else:
                    backbone = ResNet(options.depth, output_stride=options.peer_stride, weights=options.weights)
                for module in backbone.modules():
                    if type(module).__name__ == "DilatedConv2d":
                        module.__class__ = nn.Conv2d
                mean, std = backbone.mean, backbone.std
                self.net = nn.ModuleList([backbone, DeepLabHead(backbone.features.channels[-1], classes)])
            self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
            self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

        def forward(self, images: Any) -> Any:
            images = (images - self.mean) / self.std
            if isinstance(self.net, nn.ModuleList):
                backbone, head = self.net
                return F.interpolate(head(backbone(images)[-1]), images.shape[2:], mode="bilinear", align_corners=False)
            return self.net(images)["out"]

    return Model()


def whole_model(options: argparse.Namespace) -> bool:
    """Return whether torchvision has the whole model: its shallower ResNets cannot be dilated."""
    return options.depth >= 50 and not options.timm and not options.weights


def whole(depth: int, stride: int, classes: int) -> Any:
    """Return torchvision's DeepLabV3, at its own output stride of 8 or at 16."""
    from torchvision import models
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.models.segmentation.deeplabv3 import DeepLabHead, DeepLabV3

    if stride == 8:
        build = getattr(models.segmentation, f"deeplabv3_resnet{depth}")
        return build(weights=None, weights_backbone=None, num_classes=classes)
    net = getattr(models, f"resnet{depth}")(replace_stride_with_dilation=[False, False, True])
    return DeepLabV3(IntermediateLayerGetter(net, {"layer4": "out"}), DeepLabHead(2048, classes))


def measure(model: Any, dataset: Any) -> dict[str, float]:
    """Return the intersection over union on a data set, in pixels of the originals."""
    import torch

    from visionkit import MaskPrediction, SegmentationMetric

    metric = SegmentationMetric(dataset.classes)
    model.eval()
    with torch.no_grad():
        for i in range(len(dataset)):
            sample = dataset[i]
            found = model(sample.image[None].float() / 255)
            metric.update([MaskPrediction.of(found[0], 1)], [sample.target])
    values = metric.compute()
    return {f"val/{k}": float(v) for k, v in values.items() if k.startswith(("miou", "iou/", "pixel_accuracy"))}


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
