"""An epoch of classification: ``visionkit fit`` beside ultralytics' trainer, from the same pictures.

Both train the same ResNet from scratch at 224 px with the same batch size, on the same subset of the pictures, and
validate after each epoch. ultralytics is used with its defaults (RandAugment, random erasing, averaged weights; on a
CPU it trains in float32 and reads in the training process); its plots are off, as they ask for a font that it would
download, and so is every connection to the network. visionkit is used with ``classify.yaml``.

ResNet-50 is ultralytics' ``yolov8-cls-resnet50.yaml`` (torchvision's network with a 1280-channel convolution before
the classes), ResNet-18 its ``yolo11-cls-resnet18.yaml`` without the start weights, which it would download. Counted
are the epochs after the first one, from the start of an epoch to the end of its validation and checkpoint;
``training_seconds`` is the training alone.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

KEY = "seconds"
REFERENCES: list[str] = []  # the peers of the depths that are measured, filled by cases()
LOWER = True
SIZE = 224


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this comparison's options."""
    parser.add_argument("--data", required=True, help="folder with train/ and val/, each of class folders")
    parser.add_argument("--depths", type=int, nargs="+", default=[18, 50], choices=(18, 50), help="of the ResNet")
    parser.add_argument("--train", type=int, default=80, help="training pictures of an epoch")
    parser.add_argument("--val", type=int, default=20, help="validation pictures")
    parser.add_argument("--batch-size", type=int, default=16, help="default: ultralytics' own")
    parser.add_argument("--epochs", type=int, default=2, help="the first one is not counted")


def cases(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each case."""
    REFERENCES[:] = [f"ultralytics ResNet-{depth}" for depth in options.depths]
    given = ["--data", options.data, "--train", str(options.train), "--val", str(options.val)]
    given += ["--batch-size", str(options.batch_size), "--epochs", str(options.epochs)]
    return {
        f"{case} ResNet-{depth}": [sys.executable, __file__, case, *given, "--depths", str(depth)]
        for depth in options.depths
        for case in ("visionkit", "ultralytics")
    }


def visionkit(options: argparse.Namespace, data: Path, folder: Path) -> tuple[list[float], list[float], list[float]]:
    """Train through the command line; return when epochs started, trainings ended and epochs ended."""
    from measuring.steps import StepTimes, fit

    settings = {
        "data.root": data,
        "data.size": SIZE,
        "data.batch_size": options.batch_size,
        "model.backbone.depth": options.depths[0],
        "trainer.accelerator": "cpu",
        "trainer.max_epochs": options.epochs,
        "model.recipe.progressive": "null",
    }
    fit("classify.yaml", settings)
    steps = len(StepTimes.ends) // options.epochs
    return StepTimes.epochs, StepTimes.ends[steps - 1 :: steps], [*StepTimes.epochs[1:], *StepTimes.done]


def ultralytics(options: argparse.Namespace, data: Path, folder: Path) -> tuple[list[float], list[float], list[float]]:
    """Train with ultralytics; return when epochs started, trainings ended and epochs ended."""
    os.environ |= {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_CONFIG_DIR": str(folder)}
    from ultralytics import YOLO, settings

    settings.update({"sync": False, "datasets_dir": str(folder), "runs_dir": str(folder)})
    model: Any = YOLO(network(options.depths[0], folder), task="classify")
    starts: list[float] = []
    trained: list[float] = []
    ends: list[float] = []
    for event, times in (
        ("on_train_epoch_start", starts),
        ("on_train_epoch_end", trained),
        ("on_fit_epoch_end", ends),
    ):
        model.add_callback(event, lambda trainer, times=times: times.append(time.perf_counter()))
    model.train(
        data=str(data),
        epochs=options.epochs,
        batch=options.batch_size,
        imgsz=SIZE,
        device="cpu",
        pretrained=False,
        plots=False,
        project=str(folder),
    )
    return starts, trained, ends[: options.epochs]  # it reports the last validation of the best weights as one more


def network(depth: int, folder: Path) -> str:
    """Return the description of ultralytics' ResNet, as it takes it."""
    if depth == 50:
        return "yolov8n-cls-resnet50.yaml"
    path = folder / "resnet18-cls.yaml"
    path.write_text(
        "nc: 1000\n"
        "backbone:\n"
        "  - [-1, 1, TorchVision, [512, resnet18, null, True, 2]]\n"  # theirs has DEFAULT weights
        "head:\n"
        "  - [-1, 1, Classify, [nc]]\n"
    )
    return str(path)


def subset(root: Path, folder: Path, train: int, val: int) -> Path:
    """Link equally many pictures of each class into a folder and return it."""
    for split, count in (("train", train), ("val", val)):
        classes = sorted(p for p in (root / split).iterdir() if p.is_dir())
        for k, source in enumerate(classes):
            target = folder / "pictures" / split / source.name
            target.mkdir(parents=True)
            share = count // len(classes) + (k < count % len(classes))
            pictures = sorted(source.iterdir())[:share]
            if len(pictures) < share:
                sys.exit(f"{source} has {len(pictures)} pictures, {share} are wanted: lower --{split}")
            for path in pictures:
                (target / path.name).symlink_to(path.resolve())
    return folder / "pictures"


def main() -> None:
    """Run one case and print its figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=("visionkit", "ultralytics"))
    add_arguments(parser)
    options = parser.parse_args()
    if options.epochs < 2:
        parser.error("--epochs must be at least 2: the first one is not counted")

    from measuring.figures import report

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = subset(Path(options.data), folder, options.train, options.val)
        run = visionkit if options.case == "visionkit" else ultralytics
        starts, trained, ends = run(options, data, folder)
    training = [b - a for a, b in zip(starts, trained, strict=True)][1:]
    whole = [b - a for a, b in zip(starts, ends, strict=True)][1:]
    found = {KEY: statistics.median(whole), "training_seconds": statistics.median(training)}
    report(found, workers=options.case == "visionkit")  # ultralytics reads in the training process on a CPU


if __name__ == "__main__":
    main()
