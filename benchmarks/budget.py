"""A metric at equal wall time: `visionkit train FOLDER` beside what others get from the same pictures and seconds.

The time is that of the whole command, from its first import to its last word. Without ``--minutes`` visionkit chooses
its epochs and the others get as many seconds as it took; with it all get those. Each round has another seed. The number
that counts is that of the end of the training, not the best of many validations; ``best`` stands beside it.

- visionkit: ``visionkit train`` with nothing set but what ``--set`` says. visionkit 0.1.0: the defaults of before,
  which did not look at the data, from random weights, with as many epochs as there is time for.
- torchvision: the recipe of its reference scripts in a plain float32 loop: for classification random resized crop and
  flip, SGD (rate 0.1 for 256 pictures, 0.01 for 32 from pretrained weights), cosine; FCOS and DeepLabV3 as the modules
  ``detection`` and ``segmentation`` here say.
- timm: its loader with the augmentation of ``train.py``, label smoothing, SGD, cosine over the time.
- ultralytics: its trainer with its defaults and ``time``, which ends it; yolo11n for boxes, from random weights.
- smp: ``DeepLabV3Plus`` of segmentation_models_pytorch as its examples train: Adam 2e-4, cosine, Dice.

visionkit takes the start weights that lie at hand where ``--weights`` names none; ``none`` is random weights for all.
Peers get pictures of ``--size`` (default: those of their own, 224 px for classification), and ``--weights`` where they
have a ResNet-18. Their validation at the end does not count as time.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

KEY = "metric"
REFERENCES: list[str] = []  # the cases but the first, filled by cases()
CASES = {
    "classify": ("visionkit", "visionkit 0.1.0", "torchvision", "timm", "ultralytics"),
    "detect": ("visionkit", "visionkit 0.1.0", "torchvision", "ultralytics"),
    "segment": ("visionkit", "visionkit 0.1.0", "torchvision", "smp"),
}
METRICS = {"classify": "val/top1", "detect": "val/map", "segment": "val/miou"}
FORMER = {
    "classify": ("--data.size=64", "--data.batch_size=32", "--model.recipe.ema=null"),
    "detect": ("--data.size=128", "--data.batch_size=8", "--model.recipe.ema=0.998", "--data.mosaic=0.3"),
    "segment": ("--data.size=128", "--data.batch_size=8", "--model.recipe.ema=0.998"),
}
OF_BEFORE = ("--model.recipe.optimizer.lr=1e-3", "--model.recipe.warmup_epochs=1", "--model.backbone.weights=null")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this comparison's options."""
    parser.add_argument("--task", choices=list(CASES), required=True)
    parser.add_argument("--data", required=True, help="the folder that visionkit train takes")
    parser.add_argument("--minutes", type=float, default=0.0, help="for each case; 0: what visionkit takes by itself")
    parser.add_argument(
        "--weights", metavar="FILE", help="start weights of a ResNet-18 in torchvision's names; none: random"
    )
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="pixels of the peers' models")
    parser.add_argument("--batch-size", type=int, help="of the peers; default: 32, 8 for boxes and masks")
    parser.add_argument("--only", nargs="+", help="cases that are run; visionkit is always among them")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further keys for visionkit train")


def cases(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each case; visionkit's comes first, as it says how long the others may train."""
    names = [n for n in CASES[options.task] if n == "visionkit" or options.only is None or n in options.only]
    REFERENCES[:] = names[1:]
    given = ["--task", options.task, "--data", options.data, "--minutes", str(options.minutes)]
    given += ["--weights", options.weights] if options.weights else []
    given += ["--size", *map(str, options.size)] if options.size else []
    given += ["--batch-size", str(options.batch_size)] if options.batch_size else []
    given += ["--times", f"{tempfile.mkdtemp()}/times.json", "--seed", "{turn}"]
    return {name: [sys.executable, __file__, name, *given, "--set", *options.set] for name in names}


# ---- visionkit


def visionkit(options: argparse.Namespace, former: bool = False) -> dict[str, float]:
    """Train through the command line in an empty folder; return metric and wall time."""
    from visionkit.cli.main import run

    start = time.perf_counter()
    data = str(Path(options.data).resolve())
    minutes = budget(options) / 60 if former else options.minutes
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        command = ["train", data, "--task", TASKS[options.task]]
        if former:
            command = ["fit", "-c", CONFIGS[options.task], f"--data.root={data}"]
        command += ["--trainer.accelerator=cpu", "--trainer.logger=false", f"--seed_everything={options.seed}"]
        command += [f"--minutes={minutes}"] if minutes else []
        if former:
            command += [*FORMER[options.task], *OF_BEFORE]
        elif options.weights:
            weights = "null" if options.weights == "none" else str(Path(options.weights).resolve())
            command += ["--model.backbone=ResNet", "--model.backbone.depth=18", f"--model.backbone.weights={weights}"]
        if status := run([*command, *(f"--{pair}" for pair in options.set)]):
            sys.exit(status)
        seconds = time.perf_counter() - start
        (out,) = Path("runs").glob("*/metrics.csv")
        rows = [row for row in csv.DictReader(out.open()) if row.get(METRICS[options.task])]
        values = [float(row[METRICS[options.task]]) for row in rows]
        os.chdir("/")
    if not former:
        Path(options.times).write_text(json.dumps({"seconds": seconds}))
    return {KEY: values[-1], "best": max(values), "seconds": seconds, "epochs": float(rows[-1]["epoch"])}


CONFIGS = {"classify": "classify.yaml", "detect": "detect.yaml", "segment": "segment.yaml"}
TASKS = {"classify": "classification", "detect": "detection", "segment": "segmentation"}


# ---- the others


def budget(options: argparse.Namespace) -> float:
    """Return the seconds that a peer may train."""
    return 60 * options.minutes or float(json.loads(Path(options.times).read_text())["seconds"])


def torchvision(options: argparse.Namespace) -> dict[str, float]:
    """Train in the way of torchvision's reference scripts."""
    if options.task != "classify":
        import detection
        import segmentation

        options.epochs, options.only, options.depth, options.timm, options.peer_stride = 1, ["fcos"], 18, None, 16
        seconds, options.times = budget(options) - elapsed(), f"{tempfile.mkdtemp()}/times.json"
        Path(options.times).write_text(json.dumps({"seconds": seconds}))
        options.weights = None if options.weights == "none" else options.weights
        found = (detection if options.task == "detect" else segmentation).torchvision(options)
        return {KEY: found[METRICS[options.task]], "seconds": found["seconds"]}
    import torch
    import torchvision as tv

    root = Path(options.data)
    side = options.size[0]
    train = pictures(root / "train", side, training=True)
    loader = torch.utils.data.DataLoader(train, batch_size=options.batch_size, shuffle=True, drop_last=True)
    model = start_from(tv.models.resnet18(num_classes=len(train.classes)), options.weights)
    rate = 0.01 if options.weights not in (None, "none") else 0.1 * options.batch_size / 256
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=1e-4)
    loop(options, model, loader, optimizer, torch.nn.CrossEntropyLoss())
    return {KEY: top1(model, root / "val", side), "seconds": elapsed()}


def timm(options: argparse.Namespace) -> dict[str, float]:
    """Train in the way of timm's train.py."""
    import timm
    import torch
    from timm.data import create_dataset, create_loader
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2

    root, side = Path(options.data), options.size[0]
    dataset = create_dataset("", root=str(root), split="train", is_training=True, batch_size=options.batch_size)
    model = start_from(
        timm.create_model("resnet18", num_classes=len(list((root / "train").iterdir()))), options.weights
    )
    loader = create_loader(
        dataset,
        input_size=(3, side, side),
        batch_size=options.batch_size,
        is_training=True,
        interpolation="random",
        mean=MEAN,
        std=STD,
        num_workers=0,
        use_prefetcher=False,
        device=torch.device("cpu"),
    )
    rate = 0.01 if options.weights not in (None, "none") else 0.1 * options.batch_size / 256
    optimizer = create_optimizer_v2(model, opt="sgd", lr=rate, weight_decay=2e-5, momentum=0.9)
    loop(options, model, loader, optimizer, LabelSmoothingCrossEntropy(smoothing=0.1))
    return {KEY: top1(model, root / "val", side), "seconds": elapsed()}


def ultralytics(options: argparse.Namespace) -> dict[str, float]:
    """Train with ultralytics' own trainer."""
    folder = Path(tempfile.mkdtemp())
    os.environ |= {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_CONFIG_DIR": str(folder)}
    from ultralytics import YOLO, settings

    settings.update({"sync": False, "datasets_dir": str(folder), "runs_dir": str(folder)})
    common: dict[str, Any] = {"device": "cpu", "plots": False, "project": str(folder), "seed": options.seed}
    common |= {"epochs": 10_000, "pretrained": False, "verbose": False}
    if options.task == "classify":
        from ultralytics_classification import network

        model: Any = YOLO(network(18, folder), task="classify")
        if options.weights and options.weights != "none":
            import torch
            import torchvision as tv

            whole = start_from(tv.models.resnet18(num_classes=2), options.weights)
            model.model.model[0].m.load_state_dict(torch.nn.Sequential(*list(whole.children())[:-2]).state_dict())
            model.ckpt = {"model": model.model}  # it keeps weights of what it calls a checkpoint alone
        data, key = str(Path(options.data).resolve()), "metrics/accuracy_top1"
    else:
        model, key = YOLO("yolo11n.yaml"), "metrics/mAP50-95(B)"
        data = yolo_copy(options.data, folder)
        common |= {"batch": options.batch_size}
    common["time"] = (budget(options) - elapsed()) / 3600
    model.train(data=data, imgsz=max(options.size), **common)
    seconds = elapsed()
    (table,) = folder.rglob("results.csv")
    values = [float({k.strip(): v for k, v in row.items()}[key]) for row in csv.DictReader(table.open())]
    return {KEY: values[-1], "best": max(values), "seconds": seconds, "epochs": float(len(values))}


def smp(options: argparse.Namespace) -> dict[str, float]:
    """Train segmentation_models_pytorch's DeepLabV3+ as its examples do."""
    import segmentation
    import segmentation_models_pytorch
    import torch

    from visionkit.data.formats import find_splits
    from visionkit.tasks.segmentation.readers.formats import FORMATS

    found = find_splits(options.data, FORMATS)
    train, val = found.get("train"), found.get("val")
    net = segmentation_models_pytorch.DeepLabV3Plus("resnet18", encoder_weights=None, classes=len(train.classes))
    if options.weights and options.weights != "none":
        net.encoder.load_state_dict(torchvision_weights(options.weights), strict=False)
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (MEAN, STD))
    samples = [train[i] for i in range(len(train))]
    loss = segmentation_models_pytorch.losses.DiceLoss("multiclass", from_logits=True, ignore_index=255)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-4)

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, images: Any) -> Any:
            return self.net((images - mean) / std)

    def batches() -> Iterator[Any]:
        for i in torch.randperm(len(samples)).split(options.batch_size):
            drawn = [segmentation.crop(samples[k], tuple(options.size)) for k in i.tolist()]
            if len(drawn) == options.batch_size:
                yield torch.stack([image for image, _ in drawn]), torch.stack([mask for _, mask in drawn])

    model = Model()
    loop(options, model, batches, optimizer, loss)
    padded = [-(-edge // 16) * 16 for edge in val[0].image.shape[1:]]
    return {KEY: segmentation.measure(Padded(model, padded), val)[METRICS["segment"]], "seconds": elapsed()}


class Padded:
    """A network that takes sides of whole multiples alone."""

    def __init__(self, model: Any, edges: list[int]) -> None:
        self.model, self.edges = model, edges

    def eval(self) -> None:
        """Prepare the network."""
        self.model.eval()

    def __call__(self, images: Any) -> Any:
        """Compute on the padded picture, cut to its own size."""
        from torch.nn import functional as F

        height, width = images.shape[2:]
        padded = F.pad(images, (0, self.edges[1] - width, 0, self.edges[0] - height))
        return self.model(padded)[..., :height, :width]


# ---- what they share

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def loop(options: argparse.Namespace, model: Any, loader: Any, optimizer: Any, criterion: Any) -> None:
    """Train until the time is over, with a cosine over it after a warm-up of a twentieth."""
    total, full = budget(options), [group["lr"] for group in optimizer.param_groups]
    start = elapsed()
    model.train()
    while True:
        for images, labels in loader() if callable(loader) else loader:
            passed = (elapsed() - start) / (total - start)
            if passed >= 1:
                return
            factor = min(1.0, passed / 0.05 + 0.05) * 0.5 * (1 + math.cos(math.pi * passed))
            for group, rate in zip(optimizer.param_groups, full, strict=True):
                group["lr"] = rate * factor
            loss = criterion(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def pictures(folder: Path, side: int, *, training: bool) -> Any:
    """Return a folder as torchvision's reference script reads it."""
    import torch
    from torchvision import transforms as T
    from torchvision.datasets import ImageFolder

    resized = [T.RandomResizedCrop(side, antialias=True), T.RandomHorizontalFlip()]
    if not training:
        resized = [T.Resize(round(side * 256 / 224), antialias=True), T.CenterCrop(side)]
    steps = [*resized, T.PILToTensor(), T.ConvertImageDtype(torch.float), T.Normalize(MEAN, STD)]
    return ImageFolder(str(folder), T.Compose(steps))


def torchvision_weights(file: str) -> dict[str, Any]:
    """Return start weights but for their last layer."""
    from safetensors.torch import load_file

    return {k: v.float() for k, v in load_file(file).items() if not k.startswith("fc.")}


def start_from(model: Any, weights: str | None) -> Any:
    """Give a ResNet-18 in torchvision's names the start weights, but for its last layer."""
    if weights and weights != "none":
        wrong = model.load_state_dict(torchvision_weights(weights), strict=False)
        assert not wrong.unexpected_keys, wrong
        assert all(k.startswith("fc.") or k.endswith("num_batches_tracked") for k in wrong.missing_keys), wrong
    return model


def top1(model: Any, folder: Path, side: int) -> float:
    """Return the share of pictures whose class is found."""
    import torch

    data = pictures(folder, side, training=False)
    model.eval()
    right = 0
    with torch.no_grad():
        for images, labels in torch.utils.data.DataLoader(data, batch_size=32):
            right += int((model(images).argmax(1) == labels).sum())
    return right / len(data)


def yolo_copy(root: str, folder: Path) -> str:
    """Write boxes as ultralytics reads them; return the file that lists them."""
    from visionkit.data.formats import find_splits
    from visionkit.tasks.detection.readers.formats import FORMATS

    found = find_splits(root, FORMATS)
    train = found.get("train")
    for name in ("train", "val"):
        data = found.get(name)
        for kind in ("images", "labels"):
            (folder / "yolo" / kind / name).mkdir(parents=True)
        for k, file in enumerate(data.files()):
            sample = data[k]
            height, width = sample.image.shape[1:]
            link = folder / "yolo" / "images" / name / Path(file).name
            link.symlink_to(Path(file).resolve())
            lines = []
            for (x1, y1, x2, y2), c in zip(sample.target.boxes.tolist(), sample.target.labels.tolist(), strict=True):
                box = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
                lines.append(" ".join([str(c), *(f"{v:.6f}" for v in box)]))
            (folder / "yolo" / "labels" / name / f"{link.stem}.txt").write_text("\n".join(lines))
    names = dict(enumerate(train.classes))
    listed = {"path": str(folder / "yolo"), "train": "images/train", "val": "images/val", "names": names}
    (folder / "data.yaml").write_text(json.dumps(listed))
    return str(folder / "data.yaml")


RUN: dict[str, Callable[[argparse.Namespace], dict[str, float]]] = {
    "visionkit": visionkit,
    "visionkit 0.1.0": lambda options: visionkit(options, former=True),
    "torchvision": torchvision,
    "timm": timm,
    "ultralytics": ultralytics,
    "smp": smp,
}


def main() -> None:
    """Run one case and print its figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=list(RUN))
    parser.add_argument("--times", required=True, help="file that says how long visionkit took")
    parser.add_argument("--seed", type=int, default=0)
    add_arguments(parser)
    options = parser.parse_args()
    options.size = options.size or ((224, 224) if options.task == "classify" else (320, 320))
    options.batch_size = options.batch_size or (32 if options.task == "classify" else 8)
    if not options.case.startswith("visionkit"):
        import torch

        torch.manual_seed(options.seed)
    found = RUN[options.case](options)

    from measuring.figures import report

    report(found)


_start = time.perf_counter()


def elapsed() -> float:
    """Return the seconds since this process has started to import."""
    return time.perf_counter() - _start


if __name__ == "__main__":
    main()
