"""Training a ResNet at 224 px from JPEG files: visionkit beside torchvision's, timm's and Lightning's own ways.

Each is used in its default way on the CPU and the same files, with the same batch size and as many loader processes as
it takes by default, at most one a core (torchvision's reference script 16, timm's train.py 4; plain Lightning, whose
documentation names no number, as many as timm; visionkit chooses one for two cores):

- torchvision reference: the loop of ``references/classification/train.py``: ImageFolder and PIL, random resized crop
  and flip, SGD, float32, accuracy of each batch.
- timm: the loop of ``train.py``: timm's network, data set, loader with its prefetcher and its default augmentation
  (colour jitter too), label smoothing, its optimizer and schedule, float32.
- plain Lightning: a LightningModule with a torchmetrics accuracy and two ``self.log`` a step under a Trainer with its
  defaults (TensorBoard, checkpoint, bar), the input of torchvision's reference.
- visionkit fit: ``classify.yaml``, which augments more than any of the others. "cached": its second epoch with
  ``--data.cache ram``, where no file is read any more; none of the others offers that.

The bare loops train torchvision's ResNet on one batch in memory, without data loading, metrics and logging: they are
limits, not competitors. Counted is the time from the end of the warm-up to the end of the last step, all that lies
between steps included; ``seconds`` is the whole process from its first import on.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

KEY = "images_per_second"
REFERENCES = ["torchvision reference", "timm", "plain Lightning", "bare bf16 channels_last"]
SIZE = 224
WARMUP = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this comparison's options."""
    parser.add_argument("--data", required=True, help="folder of class folders (with train/ and val/), JPEG")
    parser.add_argument("--steps", type=int, default=8, help=f"counted steps, after {WARMUP} of warm-up")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--depth", type=int, default=18, help="of the ResNet")


def cases(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each case."""
    given = ["--data", options.data, "--steps", str(options.steps)]
    given += ["--batch-size", str(options.batch_size), "--depth", str(options.depth)]
    return {name: [sys.executable, __file__, name, *given] for name in CASES}


def visionkit(options: argparse.Namespace, *, cached: bool = False) -> list[float]:
    """Train through the command line; return when each step ended, where pictures are cached those from epoch 2 on."""
    from measuring.steps import StepTimes, fit

    settings = {
        "data.root": options.data,
        "data.size": SIZE,
        "data.batch_size": options.batch_size,
        "model.backbone.depth": options.depth,
        "trainer.accelerator": "cpu",
        "trainer.max_epochs": 2 if cached else 1,
        "trainer.limit_train_batches": WARMUP + options.steps,
        "trainer.limit_val_batches": 1,
        "data.cache": "ram" if cached else "none",
        "model.recipe.progressive": "null",
    }
    fit("classify.yaml", settings)
    return StepTimes.ends[len(StepTimes.ends) // 2 :] if cached else StepTimes.ends


def reference(options: argparse.Namespace) -> list[float]:
    """Train as torchvision's reference script does."""
    import torch
    import torchvision
    from measuring.figures import workers
    from torch import nn

    dataset = image_folder(options.data)
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=options.batch_size,
        sampler=torch.utils.data.RandomSampler(dataset),
        num_workers=workers(16),
        pin_memory=torch.cuda.is_available(),
    )
    model = getattr(torchvision.models, f"resnet{options.depth}")(num_classes=len(dataset.classes))
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    meters: dict[str, list[float]] = {"loss": [], "acc1": [], "acc5": []}

    def step(images: Any, labels: Any) -> None:
        outputs = model(images)
        loss = criterion(outputs, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.inference_mode():
            right = outputs.topk(5, 1).indices == labels[:, None]
            meters["acc1"].append(right[:, :1].sum().item())
            meters["acc5"].append(right.sum().item())
        meters["loss"].append(loss.item())

    model.train()
    return timed(step, endless(loader), options.steps)


def timm(options: argparse.Namespace) -> list[float]:
    """Train as timm's train.py does."""
    import timm
    import torch
    from measuring.figures import workers
    from timm.data import create_dataset, create_loader, resolve_data_config
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2
    from timm.utils import AverageMeter

    torch.manual_seed(42)
    dataset = create_dataset("", root=options.data, split="train", is_training=True, batch_size=options.batch_size)
    model = timm.create_model(f"resnet{options.depth}", num_classes=len(list((Path(options.data) / "train").iterdir())))
    data = resolve_data_config({}, model=model)
    loader = create_loader(
        dataset,
        input_size=(3, SIZE, SIZE),
        batch_size=options.batch_size,
        is_training=True,
        interpolation="random",
        mean=data["mean"],
        std=data["std"],
        num_workers=workers(4),
        device=torch.device("cpu"),
    )
    criterion = LabelSmoothingCrossEntropy(smoothing=0.1)
    rate = 0.1 * options.batch_size / 256
    optimizer = create_optimizer_v2(model, opt="sgd", lr=rate, weight_decay=2e-5, momentum=0.9)
    schedule, _ = create_scheduler_v2(optimizer, warmup_epochs=5, updates_per_epoch=len(loader))
    losses = AverageMeter()
    updates = itertools.count(1)

    def step(images: Any, labels: Any) -> None:
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.update(loss.item(), images.size(0))
        schedule.step_update(num_updates=next(updates), metric=losses.avg)

    model.train()
    return timed(step, endless(loader), options.steps)


def plain_lightning(options: argparse.Namespace) -> list[float]:
    """Train a LightningModule as Lightning's documentation writes them."""
    import lightning as L
    import torch
    import torchmetrics
    import torchvision
    from measuring.figures import workers
    from measuring.steps import StepTimes
    from torch.nn import functional as F

    dataset = image_folder(options.data)
    classes = len(dataset.classes)

    class ResNet(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = getattr(torchvision.models, f"resnet{options.depth}")(num_classes=classes)
            self.accuracy = torchmetrics.classification.MulticlassAccuracy(num_classes=classes)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            images, labels = batch
            outputs = self.model(images)
            loss = F.cross_entropy(outputs, labels)
            self.accuracy(outputs, labels)
            self.log("train_loss", loss, prog_bar=True)
            self.log("train_acc", self.accuracy, on_step=True, on_epoch=True)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    loader = torch.utils.data.DataLoader(
        dataset, batch_size=options.batch_size, shuffle=True, num_workers=workers(4), persistent_workers=True
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            max_epochs=1,
            limit_train_batches=WARMUP + options.steps,
            default_root_dir=folder,
            accelerator="cpu",
            callbacks=[StepTimes()],
        )
        trainer.fit(ResNet(), loader)
    return StepTimes.ends


def bare(options: argparse.Namespace, *, bf16: bool) -> list[float]:
    """Train torchvision's network on one batch in memory."""
    import torch
    import torchvision

    torch.manual_seed(0)
    layout = torch.channels_last if bf16 else torch.contiguous_format
    model = getattr(torchvision.models, f"resnet{options.depth}")(num_classes=10).to(memory_format=layout)
    batch = torch.randn(options.batch_size, 3, SIZE, SIZE).contiguous(memory_format=layout)
    targets = torch.randint(0, 10, (options.batch_size,))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    total = WARMUP + options.steps
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: 0.5 * (1 + math.cos(math.pi * s / total)))

    def step(images: Any, labels: Any) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = torch.nn.functional.cross_entropy(model(images), labels, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    return timed(step, itertools.repeat((batch, targets)), options.steps)


def image_folder(root: str) -> Any:
    """Return the training pictures as torchvision's reference script reads and augments them."""
    import torch
    from torchvision import transforms as T
    from torchvision.datasets import ImageFolder

    steps = [
        T.RandomResizedCrop(SIZE, antialias=True),
        T.RandomHorizontalFlip(0.5),
        T.PILToTensor(),
        T.ConvertImageDtype(torch.float),
        T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
    return ImageFolder(str(Path(root) / "train"), T.Compose(steps))


def endless(loader: Iterable[Any]) -> Iterator[Any]:
    """Return the batches of one epoch after the other."""
    return itertools.chain.from_iterable(itertools.repeat(loader))


def timed(step: Callable[[Any, Any], None], batches: Iterator[Any], steps: int) -> list[float]:
    """Make the steps of warm-up and measurement; return when each ended."""
    ends = []
    for images, labels in itertools.islice(batches, WARMUP + steps):
        step(images, labels)
        ends.append(time.perf_counter())
    return ends


CASES: dict[str, Callable[[argparse.Namespace], list[float]]] = {
    "bare fp32 NCHW": lambda options: bare(options, bf16=False),
    "torchvision reference": reference,
    "timm": timm,
    "plain Lightning": plain_lightning,
    "visionkit fit": visionkit,
    "visionkit fit, cached": lambda options: visionkit(options, cached=True),
    "bare bf16 channels_last": lambda options: bare(options, bf16=True),
}


def main() -> None:
    """Run one case and print its figures."""
    start = time.perf_counter()
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=list(CASES))
    add_arguments(parser)
    options = parser.parse_args()
    ends = CASES[options.case](options)
    seconds = time.perf_counter() - start

    from measuring.figures import report, speed

    found = {KEY: speed(ends, images=options.batch_size, warmup=WARMUP), "seconds": seconds}
    report(found, workers=not options.case.startswith("bare"))


if __name__ == "__main__":
    main()
