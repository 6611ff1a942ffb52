"""Small data sets on the disk, and predictions of them as other programs write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from visionkit.tasks.detection.metrics.metric import DetectionMetric
from visionkit.tasks.detection.readers.coco import CocoDataset

SIZE = (120, 160)
"""Height and width of all pictures."""
CATEGORIES = ((3, "cat"), (7, "dog"), (9, "bird"))


def picture(path: Path, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1], (len(path.name) * 7 % 255, 90, 90)).save(path)
    return path


def coco_scene(folder: Path, images: int = 12, seed: int = 0, masks: bool = False) -> CocoDataset:
    """A COCO data set of random objects, some of them crowds, some pictures without any; ids are no positions."""
    rng = np.random.default_rng(seed)
    pictures: list[Any] = []
    annotations: list[Any] = []
    for k in range(images):
        name = f"images/{k:03d}.png"
        picture(folder / name)
        pictures.append({"id": 11 + 3 * k, "file_name": name, "width": SIZE[1], "height": SIZE[0]})
        for _ in range(0 if k == 1 else int(rng.integers(1, 7))):
            w, h = (int(v) for v in rng.integers(6, 70, 2))
            x, y = int(rng.integers(0, SIZE[1] - w)), int(rng.integers(0, SIZE[0] - h))
            one = {
                "id": len(annotations) + 1, "image_id": 11 + 3 * k, "category_id": int(rng.choice([3, 7, 9])),
                "bbox": [x, y, w, h], "area": w * h, "iscrowd": int(rng.random() < 0.1),
            }  # fmt: skip
            if masks:
                mask = np.zeros(SIZE, np.uint8)
                rows, columns = np.mgrid[0:h, 0:w] + 0.5
                mask[y : y + h, x : x + w] = (2 * rows / h - 1) ** 2 + (2 * columns / w - 1) ** 2 <= 1
                one |= {"segmentation": run_lengths(mask), "area": int(mask.sum())}
            annotations.append(one)
    file = folder / "instances.json"
    categories = [{"id": i, "name": n} for i, n in CATEGORIES]
    file.write_text(json.dumps({"images": pictures, "annotations": annotations, "categories": categories}))
    return CocoDataset(file, masks=masks)


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    from faster_coco_eval.core import mask as coco

    packed = coco.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": packed["counts"].decode("ascii")}


def unpacked(rle: dict[str, Any]) -> np.ndarray:
    from faster_coco_eval.core import mask as coco

    return coco.decode({"size": rle["size"], "counts": rle["counts"].encode("ascii")})


def coco_results(file: Path, seed: int = 0, masks: bool = False) -> list[dict[str, Any]]:
    """Results near the truth of an annotation file, some of another class or twice, and some out of nowhere."""
    rng = np.random.default_rng(seed + 100)
    content = json.loads(file.read_text())
    found: list[dict[str, Any]] = []

    def add(image: int, category: int, x: float, y: float, w: float, h: float, like: Any = None) -> None:
        one: dict[str, Any] = {"image_id": image, "category_id": category, "bbox": [x, y, w, h]}
        if masks:
            mask = np.zeros(SIZE, np.uint8)
            mask[max(0, int(y)) : int(y + h), max(0, int(x)) : int(x + w)] = 1
            one["segmentation"] = run_lengths(mask if like is None else unpacked(like) & mask)
        found.append(one)

    for a in content["annotations"]:
        x, y, w, h = a["bbox"]
        for _ in range(1 + (rng.random() < 0.2)):
            category = int(rng.choice([3, 7, 9])) if rng.random() < 0.15 else a["category_id"]
            dx, dy, dw, dh = rng.normal(0, 0.08, 4)
            add(a["image_id"], category, x + dx * w, y + dy * h, w * (1 + dw), h * (1 + dh), a.get("segmentation"))
    for image in content["images"]:
        for _ in range(2):
            x, y, w, h = rng.uniform(0, 80), rng.uniform(0, 60), rng.uniform(5, 60), rng.uniform(5, 50)
            add(image["id"], int(rng.choice([3, 7, 9])), x, y, w, h)
    scores = rng.permutation(len(found)) / len(found)  # all different
    for one, score in zip(found, scores.tolist(), strict=True):
        one["score"] = score
    return found


def write_json(folder: Path, content: Any, name: str = "results.json") -> Path:
    file = folder / name
    file.write_text(json.dumps(content))
    return file


def measured_boxes(found: Any, data: Any, *, masks: bool = False) -> dict[str, Any]:
    """Return what the metric of detection says of predictions by position."""
    metric = DetectionMetric(data.classes, masks=masks)
    for k in range(len(data)):
        target, info = data.target_of(k, SIZE)
        metric.update([found[k]], [target.restore(info)])
    return metric.compute()
