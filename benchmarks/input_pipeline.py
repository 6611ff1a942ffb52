"""Pictures a second that one process with one thread makes of JPEG files, as batches ready for a network.

Training (the default): RandomResizedCrop and HorizontalFlip, as each library does it by default. "first epoch" reads
and decodes all files; "cached" is a later epoch of ``--data.cache ram`` or ``disk``. ``--plain``: resized and cut as
for evaluation. PIL + torchvision and cv2 + albumentations (float) end with normalised floats; visionkit ends with
bytes, which its model normalises on the device.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

KEY = "images_per_second"
REFERENCES = ["PIL + torchvision"]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this comparison's options."""
    parser.add_argument("--data", required=True, help="folder of JPEG files, with subfolders")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--count", type=int, default=256, help="files that are taken, at most")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument(
        "--repeats", type=int, default=3, help="epochs, of which the median counts; more within a second"
    )
    parser.add_argument("--plain", action="store_true", help="resize and crop only, as in evaluation")


def cases(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each case."""
    given = ["--data", options.data, "--size", str(options.size), "--count", str(options.count)]
    given += ["--batch-size", str(options.batch_size), "--repeats", str(options.repeats)]
    given += ["--plain"] if options.plain else []
    common = [sys.executable, __file__]
    return {
        "PIL + torchvision": [*common, "torchvision", *given],
        "cv2 + albumentations (float)": [*common, "albumentations", *given],
        "visionkit first epoch": [*common, "first", *given],
        "visionkit cached, memory": [*common, "ram", *given],
        "visionkit cached, disk": [*common, "disk", *given],
    }


def torchvision(files: list[Path], options: argparse.Namespace) -> Callable[[int], Iterable[Any]]:
    """Return what makes an epoch with Pillow and torchvision's transforms, as its reference training does."""
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms as tv

    size = options.size
    random_part = [tv.RandomResizedCrop(size), tv.RandomHorizontalFlip()]
    plain = [tv.Resize(round(size * 256 / 224)), tv.CenterCrop(size)]
    transform = tv.Compose([*(plain if options.plain else random_part), tv.ToTensor(), tv.Normalize(MEAN, STD)])

    class Files(Dataset[Any]):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, index: int) -> Any:
            with files[index].open("rb") as file:
                image = Image.open(file).convert("RGB")
            return transform(image), 0

    loader = DataLoader(Files(), batch_size=options.batch_size, shuffle=not options.plain)
    return lambda epoch: loader


def albumentations(files: list[Path], options: argparse.Namespace) -> Callable[[int], Iterable[Any]]:
    """Return what makes an epoch with OpenCV and albumentations, normalised floats."""
    import albumentations as album
    import cv2
    from albumentations.pytorch import ToTensorV2
    from torch.utils.data import DataLoader, Dataset

    size = options.size
    random_part = [album.RandomResizedCrop((size, size)), album.HorizontalFlip()]
    plain = [album.SmallestMaxSize(round(size * 256 / 224)), album.CenterCrop(size, size)]
    transform = album.Compose([*(plain if options.plain else random_part), album.Normalize(MEAN, STD), ToTensorV2()])

    class Files(Dataset[Any]):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, index: int) -> Any:
            image = cv2.cvtColor(cv2.imread(str(files[index])), cv2.COLOR_BGR2RGB)
            return transform(image=image)["image"], 0

    loader = DataLoader(Files(), batch_size=options.batch_size, shuffle=not options.plain)
    return lambda epoch: loader


def visionkit(
    files: list[Path], options: argparse.Namespace, cache: str, folder: str
) -> Callable[[int], Iterable[Any]]:
    """Return what makes an epoch with visionkit's own loaders."""
    from visionkit.data.caching.images import CacheSettings, ImageCache
    from visionkit.data.loading import EvaluationView, TrainingLoader, TrainingView, evaluation_loader
    from visionkit.data.samplers import EpochSampler
    from visionkit.data.transforms.augmentation import Augmentation
    from visionkit.data.transforms.preprocessing import Preprocessing
    from visionkit.tasks.classification.readers.reader import ClassDataset, Entry

    data = ClassDataset([Entry(str(f), (0,), f.name) for f in files], ["a", "b"])
    preprocessing = Preprocessing(options.size, resize="crop" if options.plain else "squash")
    kept = None
    if cache != "first":
        kept = ImageCache(
            CacheSettings("ram" if cache == "ram" else "disk"), [data], preprocessing, folder=Path(folder)
        )
    if options.plain:
        loader = evaluation_loader(EvaluationView(data, preprocessing, kept), batch_size=options.batch_size, workers=0)
        return lambda epoch: loader
    augmentation = Augmentation([{"RandomResizedCrop": {"size": "input"}}, {"HorizontalFlip": {"p": 0.5}}])
    view = TrainingView(data, preprocessing, augmentation, seed=0, cache=kept)
    sampler = EpochSampler(view, seed=0)
    training = TrainingLoader(view, sampler, batch_size=options.batch_size, workers=0)

    def epoch(number: int) -> Iterable[Any]:
        sampler.set_epoch(number)
        return training

    return epoch


def main() -> None:
    """Run one case and print its figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=("torchvision", "albumentations", "first", "ram", "disk"))
    add_arguments(parser)
    options = parser.parse_args()

    import cv2
    import torch

    from visionkit.core.machine import keep_freed_memory

    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    torch.manual_seed(0)
    random.seed(0)
    found = sorted(p for p in Path(options.data).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    step = max(1, len(found) // options.count)
    files = found[::step][: options.count]
    if len(files) < options.batch_size:
        sys.exit(f"{options.data}: {len(files)} JPEG files are fewer than a batch of {options.batch_size}")
    for file in files:  # all cases find the files in the system's memory
        file.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        if options.case == "torchvision":
            epoch = torchvision(files, options)
        elif options.case == "albumentations":
            epoch = albumentations(files, options)
        else:
            keep_freed_memory()  # as visionkit's trainings do
            epoch = visionkit(files, options, options.case, folder)
        seconds, images = [], 0
        while len(seconds) <= options.repeats or sum(seconds[1:]) < 1:  # the first one warms up, and fills the cache
            start, images = time.perf_counter(), 0
            for batch in epoch(len(seconds)):
                images += len(batch[0] if isinstance(batch, list) else batch)
            seconds.append(time.perf_counter() - start)
    rate = images / statistics.median(seconds[1:])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({KEY: round(rate, 1), "images": images, "epochs": len(seconds) - 1, "peak_mib": round(peak)}))


if __name__ == "__main__":
    main()
