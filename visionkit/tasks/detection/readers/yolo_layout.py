"""Where a YOLO data set has its images and class names: data.yaml, or folders alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from visionkit.core.errors import DataError, UsageError
from visionkit.core.files import read_text
from visionkit.data.images.reading import SUFFIXES, list_images
from visionkit.data.labels.names import Folders, same_folder, spellings
from visionkit.data.split import SPLIT_WORDS, split_word
from visionkit.tasks.detection.readers.yolo_names import (
    MAX_CLASSES,
    as_written,
    load_data,
    names_beside,
    names_file,
    names_with,
    read_names,
    shown,
)

__all__ = ["YAML_SUFFIXES", "YoloLayout", "find_yolo", "list_split"]

YAML_SUFFIXES = (".yaml", ".yml")


class YoloLayout(NamedTuple):
    """Where things are.

    Args:
        file: The data.yaml, or the folder where there is none.
        folder: The folder of the data set.
        names: Class names by id, or None where there are none.
        splits: Folders of images and lists of images by split; "" for images of no split.
        missing: Message of each split that is named but not there.
        points: Number of key points of an object and of numbers for each, where labels have them.
    """

    file: Path
    folder: Path
    names: tuple[str, ...] | None
    splits: dict[str, list[Path]]
    missing: dict[str, str]
    points: tuple[int, int] | None = None


def find_yolo(root: Path) -> YoloLayout | None:
    """Return the layout of a folder or of a data.yaml, or None where it is not YOLO.

    Raises:
        DataError: The data.yaml or a file of names is wrong.
    """
    if root.is_file() or root.suffix.lower() in YAML_SUFFIXES:
        return _from_yaml(root, load_data(root))
    for name in ("data.yaml", "data.yml", "dataset.yaml"):
        if (root / name).is_file():
            return _from_yaml(root / name, load_data(root / name))
    others = [f for f in sorted(root.glob("*.y*ml")) if f.suffix in YAML_SUFFIXES and _is_data_yaml(f)]
    if len(others) > 1:
        raise UsageError(f"{root}: several data files ({', '.join(f.name for f in others)}); give one as root")
    if others:
        return _from_yaml(others[0], load_data(others[0]))
    splits = _from_folders(root)
    names = None
    if not splits and (splits := _from_darknet(root)):
        names = _darknet_names(root)
    splits = splits or _from_beside(root)
    return YoloLayout(root, root, names or names_beside(root), splits, {}) if splits else None


def list_split(places: Sequence[Path], folder: Path, channels: int) -> list[Path]:
    """Return the images of a split, each once.

    Args:
        places: Folders, and .txt files that list images.
        folder: The folder of the data set; lists may count from it.
        channels: As in ``list_images``.

    Raises:
        DataError: A list names an image that is not there, with its line.
    """
    found: dict[Path, None] = {}
    disk = Folders()
    for place in places:
        if place.is_dir():
            found.update(dict.fromkeys(list_images(place, channels=channels)))
            continue
        for number, line in enumerate(read_text(place).split("\n"), 1):
            name = line.strip()
            if not name:
                continue
            names = [n for s in spellings(name) for n in (s, s.removeprefix("data/"))]  # CVAT writes data/ for here
            paths = (disk.find(base / n) for n in names for base in (place.parent, folder))
            image = next((p for p in paths if p is not None), None)
            if image is None:
                raise DataError(f"{place}:{number}: {name}: no such image, looked in {place.parent}; correct the line")
            found[Path(image)] = None
    return list(found)


def _from_folders(root: Path) -> dict[str, list[Path]]:
    images = _images_with_labels(root)
    if images is not None:
        return {name: [f] for name, f in _by_split(images).items()} or {"": [images]}
    found = {name: _images_with_labels(f) for name, f in _by_split(root).items()}
    return {name: [f] for name, f in found.items() if f is not None}


def _images_with_labels(folder: Path) -> Path | None:
    return same_folder(folder, "images") if same_folder(folder, "labels") is not None else None


def _from_darknet(root: Path) -> dict[str, list[Path]]:
    """Return the splits of Darknet's obj.data, as CVAT writes it: ``train = data/train.txt``."""
    file = root / "obj.data"
    if not file.is_file():
        return {}
    found: dict[str, list[Path]] = {}
    for number, line in enumerate(read_text(file).split("\n"), 1):
        key, equals, value = (part.strip() for part in line.partition("="))
        name = next((n for n, words in SPLIT_WORDS.items() if key.lower() in words), None)
        if not equals or name is None:
            continue
        place = _darknet_place(value, root)
        if place is None:
            raise DataError(f"{file}:{number}: {key}: no list {value}, looked in {root}; correct the path")
        if found.setdefault(name, [place]) != [place]:
            raise DataError(f"{file}:{number}: {key}: a second list of this split; keep one of them")
    return found


def _darknet_names(root: Path) -> tuple[str, ...] | None:
    """Return the class names of the file that obj.data names, or None where it names none that is there."""
    file = root / "obj.data"
    for line in read_text(file).split("\n") if file.is_file() else ():
        key, _, value = (part.strip() for part in line.partition("="))
        place = _darknet_place(value, root) if key.lower() == "names" else None
        if place is not None and place.is_file():
            return read_names(place)
    return None


def _darknet_place(value: str, root: Path) -> Path | None:
    return _resolve(value, (root,)) or _resolve(value.replace("\\", "/").removeprefix("data/"), (root,))


def _from_beside(root: Path) -> dict[str, list[Path]]:
    """Return folders of images with label files beside them, as labelImg leaves them with its classes.txt."""
    if not root.is_dir() or names_file(root) is None:
        return {}
    folders = {name: f for name, f in _by_split(root).items() if _has_labels_beside(f)}
    if folders:
        return {name: [f] for name, f in folders.items()}
    return {"": [root]} if _has_labels_beside(root) else {}


def _has_labels_beside(folder: Path) -> bool:
    return any(f.suffix.lower() in SUFFIXES and f.with_suffix(".txt").is_file() for f in sorted(folder.iterdir()))


def _by_split(folder: Path) -> dict[str, Path]:
    """Return the folders that are called like splits (train, val2017, ...)."""
    found: dict[str, Path] = {}
    for f in sorted(folder.iterdir()):
        word = split_word(f.name)
        if word is None or not f.is_dir():
            continue
        if word in found:
            raise DataError(f"{folder}: has both {found[word].name}/ and {f.name}/; keep one")
        found[word] = f
    return found


def _is_data_yaml(file: Path) -> bool:
    try:
        return bool({"train", "val", "names"} & {str(k).lower() for k in load_data(file)})
    except DataError:
        return False


def _from_yaml(file: Path, content: dict[str, Any]) -> YoloLayout:
    folder = file.parent
    if isinstance(content.get("path"), str | int):
        said = (Folders().folder(folder / name) for name in spellings(as_written(content["path"])))
        folder = next((Path(place) for place in said if place is not None), folder)
    splits: dict[str, list[Path]] = {}
    missing: dict[str, str] = {}
    content = {**{k.lower(): v for k, v in content.items() if isinstance(k, str)}, **content}  # CVAT: Train
    for name, words in SPLIT_WORDS.items():
        keys = [w for w in words if content.get(w)]
        if not keys:
            continue
        key = keys[0]
        if any(content[k] != content[key] for k in keys):
            raise DataError(f"{file}: has both {key} and {keys[1]}; keep one")
        values = content[key] if isinstance(content[key], list) else [content[key]]
        for value in values:
            if not isinstance(value, str):
                raise DataError(f"{file}: {key}: {shown(value)} is no path; give a folder or a .txt list of images")
            place = _resolve(value, (folder, file.parent))
            if place is None:
                missing[name] = f"{file}: {key}: no folder or list {value}, looked in {folder}; correct the path"
            else:
                splits.setdefault(name, []).append(place)
    for name in missing:
        splits.pop(name, None)
    if not splits and not missing:
        splits = _from_folders(folder)
        if not splits:
            raise DataError(f"{file}: has no key train or val, and no images/ and labels/ beside it; add them")
    names = names_with(file, content, folder)
    return YoloLayout(file, folder, names, splits, missing, _points(file, content))


def _points(file: Path, content: dict[str, Any]) -> tuple[int, int] | None:
    shape = content.get("kpt_shape")
    if shape is None:
        return None
    if not (isinstance(shape, list) and len(shape) == 2 and all(type(n) is int for n in shape)):
        raise DataError(f"{file}: kpt_shape: {shown(shape)} is no shape; write kpt_shape: [points, 2 or 3]")
    if not (1 <= shape[0] <= MAX_CLASSES and shape[1] in (2, 3)):
        raise DataError(f"{file}: kpt_shape: {shape} is no shape; write kpt_shape: [points, 2 or 3]")
    return shape[0], shape[1]


def _resolve(value: str, bases: Sequence[Path]) -> Path | None:
    disk = Folders()
    for base in bases:
        for tail in _tails(value, base):
            folder = disk.folder(base / tail)
            if folder is not None:
                return Path(folder)
            file = disk.find(base / tail)
            if file is not None and Path(file).suffix.lower() not in SUFFIXES:
                return Path(file)
    return None


def _tails(value: str, base: Path) -> Iterator[str]:
    """Yield what a path in a data.yaml can mean below a folder, the likeliest first."""
    for tail in spellings(value):
        yield tail
        while tail.startswith("../"):  # Roboflow writes ../train/images for train/images
            tail = tail[3:]
            yield tail
        own, slash, below = tail.partition(f"{base.resolve().name}/")  # the folder's own name before it
        if slash and (not own or own.endswith("/")):
            yield below
