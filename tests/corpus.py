"""Data sets of every format, as small as they can be, for tests of what looks at whole folders."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

HEIGHT, WIDTH = 48, 64
NAMES = ("cat", "dog")
COUNTS = {"train": 30, "val": 30}
BOX = (8, 6, 40, 30)
"""xyxy of the one object of each picture."""


@cache
def pixels(seed: int) -> np.ndarray:
    """A picture unlike all others: a few random shapes, smooth, so that small copies of it stay alike."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


@cache
def jpeg(seed: int) -> bytes:
    """The same as a file."""
    file = io.BytesIO()
    Image.fromarray(pixels(seed)).save(file, "JPEG", quality=92)
    return file.getvalue()


def pictures(folder: Path, split: str) -> list[tuple[str, int]]:
    """Write the pictures of a split; return their names without endings, and their classes."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for i in range(COUNTS[split]):
        name = f"{split}{i:02}"
        (folder / f"{name}.jpg").write_bytes(jpeg(i + 1000 * (split == "val")))
        found.append((name, i % 2))
    return found


def class_folders(root: Path) -> Path:
    for split in COUNTS:
        for name, label in pictures(root / split, split):
            (root / split / NAMES[label]).mkdir(exist_ok=True)
            (root / split / f"{name}.jpg").rename(root / split / NAMES[label] / f"{name}.jpg")
    return root


def manifest(root: Path) -> Path:
    rows = [
        f"images/{split}/{name}.jpg,{NAMES[label]},{split}"
        for split in COUNTS
        for name, label in pictures(root / "images" / split, split)
    ]
    (root / "list.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    return root


def coco(root: Path) -> Path:
    x1, y1, x2, y2 = BOX
    (root / "annotations").mkdir(parents=True)
    for split in COUNTS:
        images, notes = [], []
        for i, (name, label) in enumerate(pictures(root / split, split)):
            images.append({"id": i, "file_name": f"{name}.jpg", "width": WIDTH, "height": HEIGHT})
            outline = [[x1, y1, x2, y1, x2, y2, x1, y2]]
            box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "segmentation": outline}
            notes.append({"id": i, "image_id": i, "category_id": label + 1, "iscrowd": 0} | box)
        kinds = [{"id": k + 1, "name": n} for k, n in enumerate(NAMES)]
        content = {"images": images, "annotations": notes, "categories": kinds}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def voc_xml(name: str, objects: list[tuple[str, tuple[int, int, int, int]]]) -> str:
    """An XML file, an object a line from line 3 on."""
    lines = [f"<annotation><filename>{name}.jpg</filename>"]
    lines += [f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"]
    for label, (x1, y1, x2, y2) in objects:
        box = f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
        lines += [f"<object><name>{label}</name><bndbox>{box}</bndbox></object>"]
    return "\n".join([*lines, "</annotation>"]) + "\n"


def voc(root: Path) -> Path:
    (root / "Annotations").mkdir(parents=True)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for split in COUNTS:
        names = pictures(root / "JPEGImages", split)
        for name, label in names:
            (root / "Annotations" / f"{name}.xml").write_text(voc_xml(name, [(NAMES[label], BOX)]))
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{n}\n" for n, _ in names))
    return root


def yolo_line(label: int, box: tuple[float, float, float, float] = BOX) -> str:
    """A box as YOLO writes it."""
    x1, y1, x2, y2 = box
    numbers = ((x1 + x2) / 2 / WIDTH, (y1 + y2) / 2 / HEIGHT, (x2 - x1) / WIDTH, (y2 - y1) / HEIGHT)
    return " ".join([str(label), *(f"{n:.6f}" for n in numbers)])


def yolo(root: Path) -> Path:
    for split in COUNTS:
        (root / "labels" / split).mkdir(parents=True)
        for name, label in pictures(root / "images" / split, split):
            (root / "labels" / split / f"{name}.txt").write_text(yolo_line(label) + "\n")
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: [{', '.join(NAMES)}]\n")
    return root


def yolo_polygons(root: Path) -> Path:
    """YOLO with outlines."""
    yolo(root)
    x1, y1, x2, y2 = BOX[0] / WIDTH, BOX[1] / HEIGHT, BOX[2] / WIDTH, BOX[3] / HEIGHT
    for file in root.glob("labels/*/*.txt"):
        label = file.read_text().split()[0]
        file.write_text(f"{label} {x1} {y1} {x2} {y1} {x2} {y2} {x1} {y2}\n")
    return root


def mask(label: int) -> np.ndarray:
    """A mask of ids."""
    found = np.zeros((HEIGHT, WIDTH), np.uint8)
    found[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 1 + label
    return found


def mask_folders(root: Path, images: str = "images/{}", masks: str = "masks/{}", ending: str = "") -> Path:
    for split in COUNTS:
        folder = root / masks.format(split)
        folder.mkdir(parents=True, exist_ok=True)
        for name, label in pictures(root / images.format(split), split):
            Image.fromarray(mask(label)).save(folder / f"{name}{ending}.png")
    (root / "classes.txt").write_text("\n".join(("background", *NAMES)) + "\n")
    return root


def voc_masks(root: Path) -> Path:
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, count in COUNTS.items():
        (lists / f"{split}.txt").write_text("".join(f"{split}{i:02}\n" for i in range(count)))
    return mask_folders(root, "JPEGImages", "SegmentationClass")


def cityscapes(root: Path) -> Path:
    mask_folders(root, "leftImg8bit/{}/town", "gtFine/{}/town", "_gtFine_labelIds")
    for file in root.glob("leftImg8bit/*/*/*.jpg"):
        file.rename(file.with_name(f"{file.stem}_leftImg8bit.jpg"))
    return root


FORMATS = {
    "class folders": (class_folders, "classification"),
    "manifest": (manifest, "classification"),
    "COCO JSON": (coco, "detection"),
    "COCO JSON, masks": (coco, "instance"),
    "Pascal VOC": (voc, "detection"),
    "YOLO": (yolo, "detection"),
    "YOLO, masks": (yolo_polygons, "instance"),
    "mask folders": (mask_folders, "segmentation"),
    "COCO JSON, pixels": (coco, "segmentation"),
    "Pascal VOC, pixels": (voc_masks, "segmentation"),
    "Cityscapes": (cityscapes, "segmentation"),
}
"""A name for each way to lie on the disk -> what writes one, and the task."""
