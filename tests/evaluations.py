"""Evaluations of all tasks as small as they can be, for tests of what reads them: with pictures, records and masks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests import corpus
from visionkit.core.sample import ImageInfo
from visionkit.data.labels.masks import ObjectMasks
from visionkit.evaluation.details import confusion_of
from visionkit.evaluation.folder import EvaluatedImage, Evaluation, new_metric
from visionkit.evaluation.measures import measure
from visionkit.prediction.writers import WriterJob
from visionkit.tasks.classification.types import ClassPrediction, ClassTarget
from visionkit.tasks.detection.instances import InstancePrediction
from visionkit.tasks.detection.types import BoxPrediction, BoxTarget
from visionkit.tasks.segmentation.types import MaskPrediction, MaskTarget
from visionkit.tasks.segmentation.writers import MaskWriter

HEIGHT, WIDTH = corpus.HEIGHT, corpus.WIDTH
TASKS = ("classification", "labels", "detection", "instance", "segmentation")
NAMES = ("cat", "dog", "bird")
ANSWERS = ((0, 0, 0.9), (0, 1, 0.97), (0, 1, 0.6), (1, 1, 0.8), (1, 2, 0.55), (2, 2, 0.7))


def make(task: str, folder: Path, data: Path, **options) -> Evaluation:
    """Write an evaluation of a task, "labels" for several labels a picture, and its pictures; return it."""
    makers = {"classification": classes, "labels": labels, "detection": boxes, "segmentation": pixels}
    if task == "instance":
        return boxes(folder, data, masks=True, **options)
    return makers[task](folder, data, **options)


def classes(
    folder: Path,
    data: Path,
    names: Sequence[str] = NAMES,
    answers: Sequence[tuple[int, int, float]] = ANSWERS,
    paths: Sequence[Path] = (),
    **more,
) -> Evaluation:
    """An evaluation of classes; of each picture the true class, the predicted one and its probability, and its path."""
    paths = list(paths) or [_picture(data, k) for k in range(len(answers))]
    targets = [ClassTarget.make(truth, len(names)) for truth, _, _ in answers]
    predictions = []
    for _, said, score in answers:
        rest = (1 - score) / max(1, len(names) - 1)
        predictions.append(ClassPrediction(torch.tensor([score if k == said else rest for k in range(len(names))])))
    truths = [{"label": names[truth]} for truth, _, _ in answers]
    counts = np.zeros((len(names), len(names)), int)
    places: dict[str, list[int]] = {}
    for k, (truth, said, _) in enumerate(answers):
        counts[truth, said] += 1
        if truth != said:
            places.setdefault(f"{truth},{said}", []).append(k)
    confusion = {"names": list(names), "columns": list(names), "counts": counts.tolist(), "images": places}
    worst = sorted(range(len(answers)), key=lambda k: (answers[k][0] == answers[k][1], -answers[k][2]))
    facts = {"confusion": confusion, "worst": worst, "curves": {}, **more}
    return _write(folder, data, "classification", names, paths, targets, predictions, truths, facts)


def labels(folder: Path, data: Path, names: Sequence[str] = NAMES, **more) -> Evaluation:
    """An evaluation of pictures with several labels each."""
    answers = [([0, 1], [0.9, 0.8, 0.1]), ([2], [0.7, 0.2, 0.3]), ([], [0.1, 0.1, 0.1])]
    paths = [_picture(data, k) for k in range(len(answers))]
    targets = [ClassTarget.make(truth, len(names)) for truth, _ in answers]
    predictions = [ClassPrediction(torch.tensor([*values, *[0.0] * (len(names) - 3)]), True) for _, values in answers]
    truths = [{"labels": [names[k] for k in truth]} for truth, _ in answers]
    curves = {"pr": {names[0]: [[1.0, 1.0, 0.9], [1.0, 0.5, 0.7]]}}
    facts = {"confusion": None, "worst": [1, 0, 2], "curves": curves, **more}
    return _write(folder, data, "classification", names, paths, targets, predictions, truths, facts, multilabel=True)


BOX, NEAR, HALF, FAR = (8, 6, 40, 30), (8, 6, 40, 36), (20, 6, 52, 30), (44, 32, 60, 46)


CASES = (  # true boxes and classes; found ones with scores
    ([BOX], [0], [BOX, NEAR], [0, 0], [0.9, 0.8]),  # a duplicate
    ([BOX], [1], [BOX], [0], [0.95]),  # confused
    ([BOX, FAR], [2, 0], [HALF], [2], [0.7]),  # poorly localised, and a missed one
    ([BOX], [0], [HALF, FAR], [1, 1], [0.6, 0.92]),  # both, background, missed
    ([], [], [], [], []),
)


def boxes(
    folder: Path, data: Path, names: Sequence[str] = NAMES, *, masks: bool = False, cases=CASES, **more
) -> Evaluation:
    """An evaluation of boxes with an error of each kind, of objects with masks where that is asked for."""
    paths = [_picture(data, k) for k in range(len(cases))]
    targets, predictions, truths = [], [], []
    for true, true_ids, found, ids, scores in cases:
        target = BoxTarget.make(true, true_ids, masks=_masks(true) if masks else None)
        parts = {"boxes": torch.tensor(found, dtype=torch.float32).reshape(-1, 4), "scores": torch.tensor(scores)}
        parts |= {"labels": torch.tensor(ids, dtype=torch.int64), "size": (HEIGHT, WIDTH)}
        empty = torch.zeros(len(found), 0, 0)
        predictions.append(
            InstancePrediction(**parts, masks=empty, frames=parts["boxes"], outlines=_masks(found))
            if masks
            else BoxPrediction(**parts)
        )
        targets.append(target)
        truths.append({
            "objects": [
                {"label": names[k], "box": list(b), "crowd": False, "area": float(a)}
                for k, b, a in zip(true_ids, true, target.areas.tolist(), strict=True)
            ]
        })  # fmt: skip
    n = len(names)
    task = "instance" if masks else "detection"
    metric = new_metric(task, names)
    metric.update(predictions, targets)
    confusion = confusion_of(metric, [0.0] * len(cases))
    if cases is CASES:
        places = {"1,0": [1], f"{n},0": [0], f"2,{n}": [2], f"{n},2": [2], f"0,{n}": [2, 3], f"{n},1": [3]}
        assert {cell: sorted(images) for cell, images in confusion["images"].items()} == places
    curves = {"pr": {names[0]: [[0.5, 1.0, 0.9], [0.5, 0.5, 0.8]]}}
    facts = {"confusion": confusion, "worst": [k for k in (3, 1, 2, 0, 4) if k < len(cases)], "curves": curves, **more}
    return _write(folder, data, task, names, paths, targets, predictions, truths, facts)


def pixels(folder: Path, data: Path, names: Sequence[str] = NAMES, **more) -> Evaluation:
    """An evaluation of pixels, with the masks that were predicted; the data are read as mask folders."""
    true = [np.zeros((HEIGHT, WIDTH), np.uint8) for _ in range(3)]
    for k, mask in enumerate(true):
        mask[BOX[1] : BOX[3], BOX[0] : BOX[2]] = k
    found = [mask.copy() for mask in true]
    found[1][BOX[1] : BOX[3], BOX[0] : BOX[2]] = 2  # all of it taken for another class
    found[2][BOX[1] : BOX[3], BOX[0] : BOX[2] - 8] = 0
    (data / "images").mkdir(parents=True, exist_ok=True)
    (data / "masks").mkdir(parents=True, exist_ok=True)
    paths = [_picture(data / "images", k) for k in range(3)]
    for path, mask in zip(paths, true, strict=True):
        Image.fromarray(mask).save(data / "masks" / f"{path.stem}.png")
    (data / "classes.txt").write_text("".join(f"{k} {name}\n" for k, name in enumerate(names)))
    targets = [MaskTarget(torch.from_numpy(mask)) for mask in true]
    ids = range(len(names))
    predictions = [
        MaskPrediction.from_record({"height": HEIGHT, "width": WIDTH, "mask": mask}, names) for mask in found
    ]
    truths = [{"pixels": {names[k]: n for k in ids if (n := int((mask == k).sum()))}} for mask in true]
    counts = np.zeros((len(names), len(names)), int)
    for a, b in zip(true, found, strict=True):
        np.add.at(counts, (a.ravel(), b.ravel()), 1)
    confusion = {
        "names": list(names),
        "columns": list(names),
        "counts": counts.tolist(),
        "images": {"1,2": [1], "2,0": [2]},
    }
    facts = {"confusion": confusion, "worst": [1, 2, 0], "curves": {}, **more}
    made = _write(folder, data, "segmentation", names, paths, targets, predictions, truths, facts)
    writer = MaskWriter(WriterJob(folder, tuple(names), tuple(map(str, paths))))
    for path, prediction in zip(paths, predictions, strict=True):
        writer.add(ImageInfo(str(path), (HEIGHT, WIDTH)), prediction)
    writer.finish()
    return made


def _masks(boxes) -> ObjectMasks:
    dense = np.zeros((len(boxes), HEIGHT, WIDTH), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(dense, boxes, strict=True):
        mask[y1:y2, x1:x2] = 1
    return ObjectMasks.from_dense(dense) if len(boxes) else ObjectMasks((), (HEIGHT, WIDTH))


def _picture(folder: Path, k: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"p{k:03}.jpg"
    path.write_bytes(corpus.jpeg(k))
    return path


def _write(folder, data, task, names, paths, targets, predictions, truths, facts, *, multilabel=False) -> Evaluation:
    metric = new_metric(task, names, multilabel=multilabel)
    if paths:
        metric.update(predictions, targets)
    images = [
        EvaluatedImage(str(p), hashlib.sha256(p.read_bytes()).hexdigest(), None, (HEIGHT, WIDTH), truth)
        for p, truth in zip(paths, truths, strict=True)
    ]
    about = {"root": str(data), "split": "val", "format": "made"}
    model = {
        "checkpoints": [{"path": "runs/a/checkpoints/best.ckpt", "sha256": "0" * 64, "name": "a"}],
        "precision": "32",
    }
    model |= {"predictions": None, "views": None, "seconds_per_image": 0.0125, "weights": None}
    metrics = measure(metric, draws=20)
    made = Evaluation(
        task, list(names), images, metric, metrics, multilabel=multilabel, data=about, model=model, **facts
    )
    made.write(folder)
    records = [{"image": i.id, **p.record(names)} for i, p in zip(images, predictions, strict=True)]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return made


class TrainedRun:
    """A run folder as a training leaves it, with no checkpoint that could be loaded."""

    ROWS = "epoch,step,val/loss,val/top1,train/loss,lr\n1,2,0.9,0.4,1.1,0.001\n2,4,0.5,0.75,0.6,0.001\n3,6,0.6,0.7,0.3,0.0005\n"

    def __init__(self, folder: Path) -> None:
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints" / "best.ckpt").write_bytes(b"no checkpoint")
        (folder / "metrics.csv").write_text(self.ROWS)
        (folder / "metrics.json").write_text(json.dumps({"epoch": 2, "val/top1": 0.75, "val/loss": 0.5, "val/x": None}))
        (folder / "config.yaml").write_text("model: {class_path: Classifier}\n# <b>a comment</b>\n")
        Image.fromarray(corpus.pixels(3)).save(folder / "confusion_matrix.png")
