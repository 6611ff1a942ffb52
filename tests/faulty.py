"""Data sets of every format with a fault of each kind, and the place where each was put."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests import corpus
from tests.corpus import BOX, HEIGHT, NAMES, WIDTH

Planted = dict[str, list[str]]
"""Id of a finding -> what its places must name: a file, or words."""

GREY = np.linspace(0, 255, WIDTH * HEIGHT, dtype=np.uint8).reshape(HEIGHT, WIDTH)


def place(root: Path, format: str, name: str) -> Path:
    """The image file of a name such as train03."""
    split = name[:-2]
    label = NAMES[int(name[-2:]) % 2]
    return {
        "class folders": root / split / label / f"{name}.jpg",
        "manifest": root / "images" / split / f"{name}.jpg",
        "COCO JSON": root / split / f"{name}.jpg",
        "Pascal VOC": root / "JPEGImages" / f"{name}.jpg",
        "YOLO": root / "images" / split / f"{name}.jpg",
        "mask folders": root / "images" / split / f"{name}.jpg",
        "Cityscapes": root / "leftImg8bit" / split / "town" / f"{name}_leftImg8bit.jpg",
    }[format.partition(",")[0]]


def states_sizes(format: str) -> bool:
    """Whether labels say how large their picture is."""
    return not format.startswith(("class folders", "manifest", "YOLO"))


def jpeg(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def spoil_pictures(root: Path, format: str, planted: Planted) -> None:
    """Put a picture of each odd kind into training, copies into both splits."""

    def at(name: str) -> Path:
        return place(root, format, name)

    def write(id: str, name: str, data: bytes) -> None:
        at(name).write_bytes(data)
        planted.setdefault(id, []).append(str(at(name)))

    exif = Image.Exif()
    exif[0x0112] = 3
    whole = corpus.jpeg(1)
    write("picture-unreadable", "train00", b"<html>not found</html>")
    write("picture-truncated", "train01", whole[: len(whole) // 2])
    write("picture-turned", "train02", jpeg(Image.fromarray(corpus.pixels(2)), exif=exif, quality=92))
    write("picture-mode", "train03", jpeg(Image.fromarray(corpus.pixels(3)).convert("CMYK")))
    write("picture-flat", "train04", jpeg(Image.new("RGB", (WIDTH, HEIGHT), (40, 90, 130))))
    write("picture-small", "train05", jpeg(Image.fromarray(corpus.pixels(5)).resize((28, 21))))
    write("picture-shape", "train06", jpeg(Image.fromarray(corpus.pixels(6)).resize((900, 40))))
    if states_sizes(format):
        planted["label-size"] = [str(at("train05")), str(at("train06"))]
    at("train00").with_name("more.dng").write_bytes(b"II*\0")
    planted["picture-kind"] = ["1 files that end in .dng"]
    write("leak-exact", "val00", at("train08").read_bytes())
    write("leak-near", "val01", jpeg(Image.fromarray(corpus.pixels(9)), quality=35))
    write("duplicate-conflict", "train11", at("train10").read_bytes())
    write("duplicate-exact", "train14", at("train12").read_bytes())
    write("duplicate-near", "train18", jpeg(Image.fromarray(corpus.pixels(16)), quality=35))
    for k in range(5):
        shifted = np.roll(corpus.pixels(1020), k, 1)
        write("duplicate-frames", f"val{20 + 2 * k}", jpeg(Image.fromarray(shifted), quality=90 - 5 * k))


# ---- labels, format by format


def spoil_classes(root: Path, planted: Planted) -> None:
    (root / "val" / "lion").mkdir()
    (root / "val" / "lion" / "x.jpg").write_bytes(corpus.jpeg(5000))
    (root / "train" / "loose.jpg").write_bytes(corpus.jpeg(5001))
    planted["class-unknown"] = [str(root / "val" / "lion")]
    planted["image-unlabelled"] = [str(root / "train" / "loose.jpg")]


def spoil_manifest(root: Path, planted: Planted) -> None:
    file = root / "list.csv"
    lines = file.read_text().splitlines()
    at = {line.partition(",")[0][-11:-4].strip("/"): n for n, line in enumerate(lines, 1)}

    def line(name: str) -> int:
        return at[name]

    lines[line("train22") - 1] = f"images/train/train22.jpg,{NAMES[0]}"
    lines[line("train23") - 1] = "images/train/train23.jpg,,train"
    lines[line("train24") - 1] = f"images/train/train24.jpg,{NAMES[0]},somewhere"
    lines[line("train26") - 1] = f"images/train/gone.jpg,{NAMES[0]},train"
    lines += [f"images/train/train27.jpg,{NAMES[0]},train", "images/val/val05.jpg,lion,val"]
    lines += [f"images/train/train28.jpg,{NAMES[0]},val"]
    file.write_text("\n".join(lines) + "\n")
    planted["label-syntax"] = [f"{file}:{line(n)}" for n in ("train22", "train23", "train24")]
    planted["image-missing"] = [f"{file}:{line('train26')}"]
    planted["image-twice"] = [f"{file}:{len(lines) - 2}", f"{file}:{len(lines) - 1}"]
    planted["leak-exact"] += [f"{file}:{len(lines)}"]


BOXES: dict[str, tuple[int, tuple[float, float, float, float]]] = {
    "box-degenerate": (0, (10, 10, 10, 10)),
    "box-outside": (1, (50, 30, 90, 44)),
    "box-repeated": (0, BOX),
    "box-duplicate": (1, (8, 6, 40, 31)),
    "box-contradictory": (1, (8, 7, 40, 30)),
    "object-small": (1, (50, 40, 52, 42)),
    "box-shape": (0, (2, 40, 62, 41)),
}
"""What is added to val02, val03, ...; classes so that the picture's own box is of the same one, or not."""


def spoil_coco(root: Path, planted: Planted, *, masks: bool = False) -> None:
    file = root / "annotations" / "instances_val.json"
    content = json.loads(file.read_text())
    notes = content["annotations"]

    def add(id: str | None, image: int, label: int, box: tuple[float, float, float, float], **more: object) -> None:
        x1, y1, x2, y2 = box
        outline = [[x1, y1, x2, y1, x2, y2, x1, y2]]
        note = {"id": 900 + len(notes), "image_id": image, "category_id": label + 1, "iscrowd": 0}
        note |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": outline}
        notes.append(note | more)
        if id is not None:
            planted.setdefault(id, []).append(f"annotations[{len(notes) - 1}]")

    for image, (id, (label, box)) in enumerate(BOXES.items(), 2):
        add(id, image, label, box)
    add("class-unknown", 9, 7, BOX)
    add("label-orphan", 999, 0, (1, 1, 20, 20))
    add("label-syntax", 11, 0, BOX, bbox=[1, 2, 3])
    add("box-missing", 12, 0, BOX, bbox=None, segmentation=None)
    content["images"] += [dict(content["images"][0], id=77, file_name="gone.jpg")]
    content["images"] += [dict(content["images"][13], id=78)]
    planted["image-missing"] = ["gone.jpg"]
    planted["image-twice"] = [f"images[{len(content['images']) - 1}]"]
    if masks:
        add("outline-missing", 15, 0, (41, 2, 60, 20), segmentation=[[1, 2]])
    content["annotations"] = [n for n in notes if n["image_id"] != 17]
    planted["image-unlabelled"] = [str(root / "val" / "val17.jpg")]
    gone = next(i for i, n in enumerate(notes) if n["image_id"] == 17)
    for id, words in planted.items():  # one annotation fewer before all of these
        planted[id] = [
            f"annotations[{int(w[12:-1]) - 1}]" if w.startswith("annotations[") and int(w[12:-1]) > gone else w
            for w in words
        ]
    file.write_text(json.dumps(content))


def spoil_voc(root: Path, planted: Planted) -> None:
    def write(name: str, objects: list, id: str | None = None, line: int = 4) -> Path:
        file = root / "Annotations" / f"{name}.xml"
        file.write_text(corpus.voc_xml(name, objects))
        if id is not None:
            planted.setdefault(id, []).append(f"{file}:{line}")
        return file

    for k, (id, (label, box)) in enumerate(BOXES.items(), 2):
        write(f"val{k:02}", [(NAMES[k % 2], BOX), (NAMES[label], box)], id)
    write("val09", [(NAMES[1], BOX), ("lion", (41, 2, 60, 20))], "class-unknown")
    file = write("val11", [(NAMES[1], BOX)])
    file.write_text(file.read_text().replace("<xmax>40</xmax>", "<xmax>forty</xmax>"))
    planted["label-syntax"] = [f"{file}:3"]
    planted["image-missing"] = [str(write("val12", [(NAMES[0], BOX)]))]
    (root / "JPEGImages" / "val12.jpg").unlink()
    (root / "Annotations" / "val13.xml").unlink()
    planted["label-missing"] = [f"{root / 'ImageSets' / 'Main' / 'val.txt'}:14"]
    write("val17", [])
    planted["image-unlabelled"] = [str(root / "JPEGImages" / "val17.jpg")]
    (root / "Annotations" / "val15.xml").write_text("<annotation><object>")
    planted["label-syntax"] += [f"{root / 'Annotations' / 'val15.xml'}:1"]


def spoil_yolo(root: Path, planted: Planted, *, masks: bool = False) -> None:
    folder = root / "labels" / "val"

    def add(name: str, line: str, id: str, number: int = 2) -> None:
        file = folder / f"{name}.txt"
        file.write_text(file.read_text().rstrip("\n") + "\n" + line + "\n")
        planted.setdefault(id, []).append(f"{file}:{number}")

    for k, (id, (label, box)) in enumerate(BOXES.items(), 2):
        x1, x2, y1, y2 = box[0] / WIDTH, box[2] / WIDTH, box[1] / HEIGHT, box[3] / HEIGHT
        line = f"{label} {x1} {y1} {x2} {y1} {x2} {y2} {x1} {y2}" if masks else corpus.yolo_line(label, box)
        add(f"val{k:02}", line, id)
    add("val09", corpus.yolo_line(7, (41, 2, 60, 20)), "class-unknown")
    add("val11", "0 0.5 0.5 0.1", "label-syntax")
    add("val11", "0 0.5 half 0.1 0.1", "label-syntax", 3)
    (folder / "lonely.txt").write_text(corpus.yolo_line(0))
    planted["label-orphan"] = [str(folder / "lonely.txt")]
    (folder / "val17.txt").write_text("")
    (folder / "val15.txt").unlink()
    planted["image-unlabelled"] = [str(root / "images" / "val" / f"val{n}.jpg") for n in (15, 17)]
    if masks:
        add("val13", corpus.yolo_line(0, (41, 2, 60, 20)), "outline-missing")


def spoil_masks(root: Path, planted: Planted, images: Path, masks: Path, ending: str, listed: Path | None) -> None:
    def file(name: str) -> Path:
        return masks / f"{name}{ending}.png"

    wrong = corpus.mask(0)
    wrong[0, 0] = 44
    Image.fromarray(wrong).save(file("val02"))
    file("val03").write_bytes(b"\x89PNG nothing")
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(file("val04"))
    Image.fromarray(corpus.mask(0)[:-8]).save(file("val05"))
    planted["mask-value"] = [str(file("val02"))]
    planted["mask-unreadable"] = [str(file("val03"))]
    planted["mask-empty"] = [str(file("val04"))]
    planted["label-size"] = [*planted["label-size"], str(file("val05"))]
    file("val07").unlink()
    if listed is None:
        Image.fromarray(corpus.mask(0)).save(file("lonely"))
        planted["label-orphan"] = [str(file("lonely"))]
        if not ending:
            Image.fromarray(corpus.mask(0)).save(masks / "val06_mask.png")
            planted["mask-twice"] = ["val06"]
        planted["image-unlabelled"] = ["val07"]
    else:
        planted["label-missing"] = [f"{listed}:8"]
        listed.write_text(listed.read_text() + "gone\n")
        planted["image-missing"] = [f"{listed}:31"]


SPOIL: dict[str, Callable[[Path, Planted], None]] = {
    "class folders": spoil_classes,
    "manifest": spoil_manifest,
    "COCO JSON": spoil_coco,
    "COCO JSON, masks": lambda root, planted: spoil_coco(root, planted, masks=True),
    "Pascal VOC": spoil_voc,
    "YOLO": spoil_yolo,
    "YOLO, masks": lambda root, planted: spoil_yolo(root, planted, masks=True),
    "mask folders": lambda root, planted: spoil_masks(
        root, planted, root / "images" / "val", root / "masks" / "val", "", None
    ),
    "COCO JSON, pixels": lambda root, planted: spoil_coco(root, planted, masks=True),
    "Pascal VOC, pixels": lambda root, planted: spoil_masks(
        root, planted, root / "JPEGImages", root / "SegmentationClass", "",
        root / "ImageSets" / "Segmentation" / "val.txt",
    ),
    "Cityscapes": lambda root, planted: spoil_masks(
        root, planted, root / "leftImg8bit" / "val" / "town", root / "gtFine" / "val" / "town", "_gtFine_labelIds", None
    ),
}  # fmt: skip


def make(root: Path, format: str) -> Planted:
    """Write a data set with a fault of each kind; return where each is."""
    corpus.FORMATS[format][0](root)
    planted: Planted = {}
    spoil_pictures(root, format, planted)
    SPOIL[format](root, planted)
    return planted
