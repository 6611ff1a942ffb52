"""Applying a model to picture files."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from visionkit import checkpoint
from visionkit.errors import DataError, UsageError
from visionkit.loading import loader_settings
from visionkit.model import VisionModel
from visionkit.ops.files import replacing
from visionkit.ops.machine import choose_precision, choose_workers
from visionkit.sample import ImageInfo, Prediction, Sample, collate
from visionkit.transforms.images import read_image
from visionkit.transforms.preprocessing import Preprocessing

__all__ = ["Picture", "PredictionRun", "predict_files", "predict_to_folder"]


@dataclass(frozen=True)
class Picture:
    """A picture file to predict.

    Args:
        path: The file, as it is named in the record.
        extra: Further columns that come back in the record.
    """

    path: str
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PredictionRun:
    """What :func:`predict_to_folder` did.

    Args:
        records: The JSONL file.
        count: Records in it.
        problems: One line for each picture that could not be read.
        seconds: Wall time, loading of the checkpoint included.
    """

    records: Path
    count: int
    problems: list[str]
    seconds: float


def predict_files(
    model: VisionModel,
    pictures: Sequence[Picture],
    *,
    batch_size: int = 32,
    num_workers: int = 0,
    precision: str = "auto",
) -> Iterator[tuple[ImageInfo, Prediction] | DataError]:
    """Yield info and prediction of each picture in order, in original pixels; a DataError for one that cannot be read.

    Args:
        model: In evaluation mode, on the device to use.
        pictures: The files.
        batch_size: Pictures at once.
        num_workers: Processes that read pictures; 0 reads them in this one.
        precision: "32", "bf16", or "auto" for bf16 where the processor is fast at it.
    """
    device = model.scale.device
    model = model.to(memory_format=torch.channels_last) if device.type in ("cpu", "cuda") else model
    fast = precision == "bf16" or (precision == "auto" and choose_precision(device) == "bf16-mixed")
    loader = DataLoader(
        _Pictures(pictures, model.preprocessing),
        batch_size=batch_size,
        **{**loader_settings(num_workers, device.type == "cuda"), "collate_fn": _collate_readable},
    )
    for batch, problems in loader:
        found: dict[int, Any] = dict(problems)
        if batch is not None:
            with torch.autocast(device.type, torch.bfloat16) if fast else nullcontext():
                predictions = model.predict(batch.images.to(device, non_blocking=True))
            results = [(i, p.restore(i)) for i, p in zip(batch.infos, predictions, strict=True)]
        else:
            results = []
        rest = iter(results)
        for k in range(len(results) + len(found)):
            yield DataError(found[k]) if k in found else next(rest)


def predict_to_folder(
    ckpt: str | Path,
    pictures: Sequence[Picture],
    out: str | Path,
    *,
    batch_size: int = 32,
    num_workers: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    save_images: bool = False,
    overwrite: bool = False,
    trust: Collection[str] = (),
) -> PredictionRun:
    """Write ``predictions.jsonl`` and ``predictions.csv``: one record a picture.

    Args:
        ckpt: Checkpoint file.
        pictures: The files.
        out: Folder for the results.
        batch_size: Pictures at once.
        num_workers: Processes that read pictures; None chooses by the machine and the number of pictures.
        device: A torch device, or "auto" for a GPU when there is one.
        precision: As in :func:`predict_files`.
        save_images: Whether to write the pictures with their predictions into ``out/images``.
        overwrite: Whether to replace results that are there, file by file; nothing else is removed.
        trust: Names of top-level packages, beside visionkit, whose classes the checkpoint may name.

    Raises:
        UsageError: ``out`` holds results already, the device is not there, or such pictures cannot be drawn on.
        DataError: The checkpoint cannot be used.
    """
    start = time.perf_counter()
    out = Path(out)
    records, table = out / "predictions.jsonl", out / "predictions.csv"
    if not overwrite and any(p.exists() for p in (records, table, *([out / "images"] if save_images else []))):
        raise UsageError(f"{out} already holds predictions: choose another --out, or replace them with --overwrite")
    model = checkpoint.load(ckpt, trust=trust, device=_device(device))
    if save_images and model.backbone.in_channels not in (1, 3):
        raise UsageError(
            f"--save-images draws on RGB and grey pictures; this model takes {model.backbone.in_channels} channels"
        )
    if num_workers is None:
        num_workers = min(choose_workers(), len(pictures) // (2 * batch_size))  # few pictures: not worth a process
    names, problems, rows = model.classes, [], []
    with replacing(records) as temporary, temporary.open("w", encoding="utf-8") as file:
        for number, result in enumerate(
            predict_files(model, pictures, batch_size=batch_size, num_workers=num_workers, precision=precision)
        ):
            if isinstance(result, DataError):
                problems.append(str(result))
                continue
            info, prediction = result
            record = {**info.extra, "image": info.id, **prediction.record(names)}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            rows.append(_flat(record))
            if save_images:
                _save_picture(info, prediction, names, out / "images", number)
    with replacing(table) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(k for row in rows for k in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return PredictionRun(records, len(rows), problems, time.perf_counter() - start)


class _Pictures(Dataset[Any]):
    def __init__(self, pictures: Sequence[Picture], preprocessing: Preprocessing) -> None:
        self.pictures = pictures
        self.preprocessing = preprocessing

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Sample[Any] | str:
        picture = self.pictures[index]
        try:
            pixels = read_image(picture.path, channels=self.preprocessing.channels)
        except DataError as e:
            return str(e)
        info = ImageInfo(picture.path, pixels.shape[:2], extra=picture.extra)
        return self.preprocessing(Sample(torch.from_numpy(pixels).permute(2, 0, 1), None, info))


def _collate_readable(items: list[Sample[Any] | str]) -> tuple[Any, list[tuple[int, str]]]:
    samples = [i for i in items if isinstance(i, Sample)]
    problems = [(k, i) for k, i in enumerate(items) if isinstance(i, str)]
    return (collate(samples) if samples else None), problems


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """Return the record as a row of a table: a column a class, lists joined by ``|``."""
    row: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, dict):
            row |= {f"{key}/{name}": v for name, v in value.items()}
        else:
            row[key] = "|".join(map(str, value)) if isinstance(value, list) else value
    return row


def _save_picture(info: ImageInfo, prediction: Prediction, names: Sequence[str], folder: Path, number: int) -> None:
    from PIL import Image

    pixels: Tensor = torch.from_numpy(read_image(info.id)).permute(2, 0, 1)
    drawn = prediction.draw(pixels, names).permute(1, 2, 0).numpy()
    with replacing(folder / f"{number:05d}_{Path(info.id).stem}.jpg") as temporary:
        Image.fromarray(drawn).save(temporary, quality=92)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as e:
        raise UsageError(f"--device {name}: not available here ({str(e).splitlines()[0]})") from e
    return torch.device(name)
