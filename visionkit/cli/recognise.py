"""What a folder, a file or a config holds: which task can learn from it, and in which format its labels are."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from visionkit.cli.config import configs
from visionkit.core.errors import DataError, UsageError, VisionkitError
from visionkit.core.files import read_text
from visionkit.data.formats import Formats, Recognised
from visionkit.data.formats import recognise as recognise_formats
from visionkit.data.images.listing import list_images
from visionkit.data.labels.coco_files import holds_outlines
from visionkit.data.labels.foreign import find_foreign
from visionkit.tasks.classification.readers.formats import FORMATS as CLASSES
from visionkit.tasks.detection.readers.formats import FORMATS as BOXES
from visionkit.tasks.segmentation.readers.formats import FORMATS as MASKS

__all__ = ["TABLES", "TASKS", "Candidate", "Task", "configured", "recognise"]

Task: TypeAlias = Literal["classification", "detection", "instance", "segmentation"]
TASKS: tuple[Task, ...] = ("classification", "detection", "instance", "segmentation")
TABLES: dict[Task, Formats[Any]] = {
    "classification": CLASSES,
    "detection": BOXES,
    "instance": BOXES,
    "segmentation": MASKS,
}
"""The formats that the data of each task can be in."""

_TASK_OF = {
    "ClassificationData": "classification",
    "DetectionData": "detection",
    "SegmentationData": "segmentation",
}
_CONFIGS = (".yaml", ".yml")
_LOOKED = 200  # label files that are looked into for outlines


@dataclass(frozen=True)
class Candidate:
    """One way to take what a folder holds.

    Args:
        task: What can be learnt.
        format: How its labels are written, as the tables of formats name it.
        root: What to give as ``data.root``.
        data_options: Further options of the data, such as ``masks: true``.
        reason: Why it was taken for that, in a line.
        problem: What is wrong with it, where it is of this format but cannot be read as it lies there.
        settings: All options of the data that a config gives; empty where there is none.
        config: The config that names it.
        model: The model that a config gives, as it stands there.
    """

    task: Task
    format: str
    root: Path
    data_options: dict[str, Any]
    reason: str
    problem: VisionkitError | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    config: Path | None = None
    model: Mapping[str, Any] = field(default_factory=dict)


def recognise(path: str | os.PathLike[str]) -> list[Candidate]:
    """Return the ways in which a folder, a file of labels or a config can be taken, the likeliest first.

    The order where several fit, and why:

    1. a manifest, since somebody wrote it for this;
    2. boxes (COCO JSON before Pascal VOC before YOLO): most labels with outlines have them for the sake of the boxes;
    3. masks of objects, from the same files where these have outlines;
    4. a class for each pixel, from mask files, or else painted from outlines;
    5. class folders, since any folder with folders of images looks like them: only where nothing else fits.

    What lies there in a broken or unclear form is among them, with its ``problem``, behind all that can be read.

    Args:
        path: The folder of a data set, the file that lists it (a manifest, a COCO .json, a data.yaml), or a config of
            visionkit, whose ``data`` says all.

    Raises:
        DataError: There is no such folder or file, or nothing that is understood lies there.
        UsageError: A config is wrong.
    """
    root = Path(path)
    if not root.exists():
        raise DataError(f"{root}: no such folder or file; check the path")
    if root.is_file() and root.suffix.lower() in _CONFIGS and _is_config(root):
        return configured(root)
    found = list(_candidates(root))
    if not found:
        raise _not_understood(root)
    return sorted(found, key=lambda c: c.problem is not None)  # a stable order


def configured(file: Path) -> list[Candidate]:
    """Return the data of a config: one, or one a head where it trains several.

    Raises:
        UsageError: The config is wrong, or names data that are none of visionkit's, or no root.
        DataError: The root does not exist.
    """
    content = configs.content_of(file)
    model = content.get("model")
    return [
        _of_config(file, name, settings, model if isinstance(model, dict) else {})
        for name, settings in _data_of(file, content.get("data"))
    ]


def _data_of(file: Path, data: Any, key: str = "data") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield class name and options of each data set below ``data``."""
    if isinstance(data, str):
        data = {"class_path": data}
    if not isinstance(data, dict) or not isinstance(data.get("class_path"), str):
        raise UsageError(f"{file}: {key}: names no class; write {key}.class_path: DetectionData or the like")
    name, settings = data["class_path"].rpartition(".")[2], data.get("init_args") or {}
    if name == "MultiTaskData" and isinstance(settings.get("datasets"), dict):
        shared = {k: v for k, v in settings.items() if k != "datasets"}
        for head, part in settings["datasets"].items():
            for inner, own in _data_of(file, part, f"{key}.datasets.{head}"):
                yield inner, {**shared, **own}
    elif name in _TASK_OF:
        yield name, settings
    else:
        raise UsageError(f"{file}: {key}: {name} is not one of {', '.join(_TASK_OF)}; check the folder itself")


def _of_config(file: Path, name: str, settings: Mapping[str, Any], model: Mapping[str, Any]) -> Candidate:
    masks = name == "DetectionData" and settings.get("masks") is True
    task: Any = "instance" if masks else _TASK_OF[name]
    root = settings.get("root")
    if not isinstance(root, str):
        raise UsageError(
            f"{file}: data.root is not set, so the data are drawn shapes; give the folder of your pictures"
        )
    if not Path(root).exists():
        raise DataError(f"{root}: no such folder or file; correct data.root in {file}")
    known = recognise_formats(Path(root), TABLES[task])
    if not known:
        raise DataError(f"{root}: holds no {TABLES[task].labels}; {TABLES[task].understood()}")
    options = {k: settings[k] for k in ("masks", "multilabel", "ignore") if settings.get(k) is not None}
    return Candidate(
        task,
        known[0].format.name,
        Path(root),
        options,
        f"{file} says so",
        known[0].problem,
        settings,
        file,
        model,
    )


def _is_config(file: Path) -> bool:
    """Return whether a YAML file is a config of visionkit rather than a data.yaml."""
    content = configs.content_of(file)
    return "model" in content or isinstance(content.get("data"), dict | str)


def _candidates(root: Path) -> Iterator[Candidate]:
    classes = recognise_formats(root, CLASSES)
    boxes = [b for b in recognise_formats(root, BOXES) if not _labels_are_masks(b)]
    masks = recognise_formats(root, MASKS)
    manifests = [c for c in classes if not c.format.fallback]
    others = _beside(boxes)
    for c in manifests:
        yield Candidate("classification", c.format.name, root, {}, "a table lists images with classes", c.problem)
    for b in boxes[:1]:
        files = _coco_files(b)
        name = b.format.name
        outlined = _holds_outlines(b, files)
        yield Candidate("detection", name, root, {}, f"{name} labels give boxes{others}", b.problem)
        if outlined:
            reason = f"{name} labels give outlines, too: masks of objects are slower to learn than boxes"
            yield Candidate("instance", name, root, {"masks": True}, reason, b.problem)
    for m in masks:
        painted = not m.format.name or m.format.name == "COCO JSON"
        if painted and (len(masks) > 1 or not _holds_outlines(m, _coco_files(m))):
            continue  # mask files are read before outlines; boxes alone cannot be painted
        reason = "outlines can be painted as a class for each pixel" if painted else "each image has a mask file"
        yield Candidate("segmentation", m.format.name, root, {}, reason, m.problem)
    for c in classes:
        if c.format.fallback and not manifests and not boxes and not masks and list_images(root, channels=4):
            foreign = find_foreign(root)
            also = "" if foreign is None else f" ({foreign.name} labels lie there, too, and are not read)"
            yield Candidate("classification", c.format.name, root, {}, f"a folder of images per class{also}", c.problem)


def _beside(boxes: list[Recognised[Any]]) -> str:
    """Return what is to be said of labels in formats that are not read since another one is."""
    also = [b.format.name for b in boxes[1:] if not isinstance(b.problem, DataError)]
    return f" ({' and '.join(also)} labels lie there, too, and are not read)" if also else ""


def _labels_are_masks(found: Recognised[Any]) -> bool:
    """Return whether folders that look like YOLO's by their names hold mask files in place of text."""
    layout = found.found
    if found.format.name != "YOLO" or layout is None or layout.file.is_file():
        return False
    return not any(_label_files(layout))


def _label_files(layout: Any) -> Iterator[Path]:
    """Yield label files of a YOLO layout."""
    places = {p for ps in layout.splits.values() for p in ps}
    folders = {Path(*_as_labels(p.parts)) for p in places if p.is_dir()} | {p for p in places if p.is_dir()}
    if any(p.is_file() for p in places):
        folders.add(layout.folder)
    for folder in sorted(folders):
        if folder.is_dir():
            yield from (f for f in sorted(folder.rglob("*.txt")) if not f.name.startswith("."))


def _as_labels(parts: tuple[str, ...]) -> Iterator[str]:
    last = max((i for i, p in enumerate(parts) if p.lower() == "images"), default=-1)
    for i, part in enumerate(parts):
        yield "labels" if i == last else part


def _coco_files(found: Recognised[Any]) -> list[Path]:
    """Return the JSON files of COCO labels."""
    if found.format.name != "COCO JSON" or not isinstance(found.found, dict):
        return []
    return [part.read.args[0] for part in found.found.values()]


def _holds_outlines(found: Recognised[Any], files: list[Path]) -> bool:
    """Return whether labels have outlines: some in each COCO file, or any of the first label files of YOLO."""
    if found.found is None:
        return False
    if found.format.name == "COCO JSON":
        return all(map(holds_outlines, files))  # a split without any cannot be read
    return found.format.name == "YOLO" and any(map(_has_polygon, itertools.islice(_label_files(found.found), _LOOKED)))


def _has_polygon(file: Path) -> bool:
    try:
        lines = read_text(file).splitlines()
    except DataError:
        return False
    return any(len(line.split()) > 6 and len(line.split()) % 2 for line in lines)


def _not_understood(root: Path) -> VisionkitError:
    foreign = find_foreign(root)
    if foreign is not None:
        return DataError(foreign.refusal())
    kinds = "; ".join(dict.fromkeys(f"{table.labels}: {table.understood()}" for table in (CLASSES, BOXES, MASKS)))
    if root.is_file():
        return UsageError(f"{root}: is neither a folder nor a file of a known format; {kinds}")
    images = len(list_images(root))
    what = f"holds {images} images but no labels" if images else "holds no images and no labels"
    return DataError(f"{root}: {what}; {kinds}")
