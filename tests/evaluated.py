"""Evaluations of drawn predictions, for what reads them."""

import hashlib

import torch

from visionkit import BoxTarget, ClassTarget
from visionkit.evaluation.folder import EvaluatedImage, Evaluation, new_metric
from visionkit.evaluation.measures import measure
from visionkit.tasks.classification.types import ClassPrediction
from visionkit.tasks.detection.types import BoxPrediction
from visionkit.tasks.segmentation.types import MaskPrediction, MaskTarget

PETS = ("cat", "dog", "fox")


def sha(text):
    return hashlib.sha256(str(text).encode()).hexdigest()


def image(name, truth, group=None, size=(100, 120)):
    """A picture whose bytes go by its name without folders."""
    return EvaluatedImage(str(name), sha(str(name).rpartition("/")[2]), group, size, truth)


def classified(labels, answers, *, classes=PETS, groups=None, folder="data", draws=200):
    """Pictures with a label and an answer each, as class ids."""
    metric = new_metric("classification", classes)
    for label, answer in zip(labels, answers, strict=True):
        scores = torch.full((len(classes),), 0.1)
        scores[answer] = 0.9
        metric.update([ClassPrediction(scores)], [ClassTarget(torch.eye(len(classes))[label])])
    names = [f"{folder}/{k:03d}.jpg" for k in range(len(labels))]
    groups = groups or [None] * len(labels)
    images = [image(n, {"label": classes[k]}, group) for n, k, group in zip(names, labels, groups, strict=True)]
    return finished("classification", classes, images, metric, draws)


def detected(pairs, *, classes=("car", "bus"), folder="data", draws=200):
    """Pictures of boxes: pairs of prediction and target."""
    metric = new_metric("detection", classes)
    metric.update(*map(list, zip(*pairs, strict=True)))
    images = [
        image(f"{folder}/{k:03d}.jpg", {"objects": objects(target, classes)}) for k, (_, target) in enumerate(pairs)
    ]
    return finished("detection", classes, images, metric, draws)


def objects(target, classes):
    rows = zip(target.boxes.tolist(), target.labels.tolist(), target.crowd.tolist(), target.areas.tolist(), strict=True)
    return [{"label": classes[k], "box": box, "crowd": crowd, "area": area} for box, k, crowd, area in rows]


def boxes(seed, count=40, noise=3.0, missing=0.2, classes=2):
    """Pairs of prediction and target, the targets by the number of the picture alone."""
    noisy = torch.Generator().manual_seed(seed)
    pairs = []
    for k in range(count):
        g = torch.Generator().manual_seed(1000 + k)
        n = int(torch.randint(1, 5, (), generator=g))
        corner = torch.rand(n, 2, generator=g) * 60
        truth = torch.cat([corner, corner + 10 + 30 * torch.rand(n, 2, generator=g)], 1)
        labels = torch.randint(classes, (n,), generator=g)
        found = truth + noise * torch.randn(n, 4, generator=noisy)
        found[:, 2:] = torch.maximum(found[:, 2:], found[:, :2] + 1)
        seen = torch.rand(n, generator=noisy) >= missing
        scores = 0.3 + 0.7 * torch.rand(n, generator=noisy)
        pairs.append((BoxPrediction(found[seen], scores[seen], labels[seen]), BoxTarget.make(truth, labels)))
    return pairs


def segmented(count=30, wrong=0.1, seed=0, *, classes=("road", "sky"), draws=200):
    metric = new_metric("segmentation", classes)
    g = torch.Generator().manual_seed(seed)
    images = []
    for k in range(count):
        own = torch.Generator().manual_seed(2000 + k)
        truth = torch.randint(2, (2, 3), generator=own).repeat_interleave(8, 0).repeat_interleave(8, 1)
        found = torch.where(torch.rand(truth.shape, generator=g) < wrong, 1 - truth, truth)
        metric.update([MaskPrediction.of(torch.eye(2)[found].permute(2, 0, 1), 1)], [MaskTarget(truth.byte())])
        pixels = torch.bincount(truth.flatten(), minlength=2).tolist()
        images.append(image(f"data/{k:03d}.png", {"pixels": dict(zip(classes, pixels, strict=True))}, size=(16, 24)))
    return finished("segmentation", classes, images, metric, draws)


def finished(task, classes, images, metric, draws):
    found = Evaluation(task, classes, images, metric, {})
    found.metrics = measure(metric, found.groups, draws=draws)
    found.data = {"root": "data", "split": "val", "format": "folders"}
    found.model = {"checkpoints": [], "predictions": "somebody's"}
    return found
