"""Training ResNet-18 at 224 px: visionkit from JPEG files beside bare PyTorch loops on data in memory.

The bare loops have the same architecture (torchvision's), optimizer, schedule and batch size, no data loading, no
augmentation, no metrics and no logging: they are the limit, not a competitor. visionkit reads JPEG files, augments,
logs and steps its schedule; its validation and its first epoch (start of the workers) are not counted.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

KEY = "images_per_second"
REFERENCES = ["bare fp32 NCHW", "bare bf16 channels_last"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this comparison's options."""
    parser.add_argument("--data", required=True, help="folder of class folders (with train/ and val/), JPEG")
    parser.add_argument("--steps", type=int, default=20, help="counted steps of a bare loop, and of an epoch")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--depth", type=int, default=18)


def cases(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each case."""
    common = [sys.executable, __file__]
    sizes = ["--steps", str(options.steps), "--batch-size", str(options.batch_size), "--depth", str(options.depth)]
    return {
        "bare fp32 NCHW": [*common, "bare", *sizes],
        "visionkit fit": [*common, "visionkit", *sizes, "--data", options.data],
        "bare bf16 channels_last": [*common, "bare", *sizes, "--bf16"],
    }


def bare(steps: int, batch_size: int, depth: int, bf16: bool) -> float:
    """Return the images per second of a plain loop after three steps of warm-up."""
    import torch
    import torchvision

    torch.manual_seed(0)
    layout = torch.channels_last if bf16 else torch.contiguous_format
    model = getattr(torchvision.models, f"resnet{depth}")(num_classes=10).to(memory_format=layout)
    images = torch.randn(batch_size, 3, 224, 224).contiguous(memory_format=layout)
    labels = torch.randint(0, 10, (batch_size,))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: 0.5 * (1 + math.cos(math.pi * s / (steps + 3))))
    times = []
    for _ in range(steps + 3):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = torch.nn.functional.cross_entropy(model(images), labels, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        times.append(time.perf_counter() - start)
    return batch_size * steps / sum(times[3:])


def visionkit(steps: int, batch_size: int, depth: int, data: str) -> float:
    """Return the images per second of ``visionkit fit`` in its second and third epoch."""
    from visionkit.cli import run

    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "run")
        settings = {
            "data.root": data,
            "data.size": 224,
            "data.batch_size": batch_size,
            "model.backbone.depth": depth,
            "trainer.max_epochs": 3,
            "trainer.limit_train_batches": steps,
            "trainer.limit_val_batches": 1,
            "trainer.default_root_dir": out,
        }
        status = run(["fit", "-c", "classify.yaml", *(f"--{k}={v}" for k, v in settings.items())])
        if status:
            sys.exit(status)
        rows = list(csv.DictReader((Path(out) / "metrics.csv").open()))
        return statistics.mean(float(r["images_per_second"]) for r in rows[1:])


def main() -> None:
    """Run one case and print its figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=("bare", "visionkit"))
    parser.add_argument("--bf16", action="store_true")
    add_arguments(parser)
    for action in parser._actions:
        action.required = action.dest == "case"
    options = parser.parse_args()
    if options.case == "bare":
        speed = bare(options.steps, options.batch_size, options.depth, options.bf16)
    else:
        speed = visionkit(options.steps, options.batch_size, options.depth, options.data)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({KEY: round(speed, 2), "peak_mib": round(peak)}))


if __name__ == "__main__":
    main()
