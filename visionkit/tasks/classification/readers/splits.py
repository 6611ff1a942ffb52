"""Finding the training, validation and test images below a root."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from visionkit.core.errors import DataError, UsageError
from visionkit.data.dataset import DataSplits
from visionkit.data.shapes import SHAPES
from visionkit.data.split import SPLIT_WORDS, divide
from visionkit.tasks.classification.readers.folder import FolderDataset, class_folders, loose_images
from visionkit.tasks.classification.readers.manifest import MANIFEST_SUFFIXES, ManifestDataset, looks_like_manifest
from visionkit.tasks.classification.readers.reader import ClassDataset
from visionkit.tasks.classification.readers.shapes import ShapesClassification

__all__ = ["find_splits"]

_SHAPES_TRAIN, _SHAPES_VAL = 1200, 300


Splits = DataSplits[ClassDataset]


def find_splits(
    root: str | os.PathLike[str] | None,
    *,
    val_fraction: float = 0.2,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    channels: int = 3,
    multilabel: bool | None = None,
    need: Collection[str] = ("train", "val"),
) -> Splits:
    """Find the images below ``root`` and divide them into training, validation and test.

    Args:
        root: A folder with train/, val/ (or valid/, validation/) and test/ folders of class folders; or a folder per
            class; or a manifest (.csv or .jsonl), or the folder of exactly one manifest; None for drawn shapes. Where
            there are training images and no validation images, the latter are taken from the former.
        val_fraction: Share of the images for validation where it is split automatically, in (0, 1).
        seed: Of the automatic split and of the drawn shapes.
        classes: Class names in order (of a checkpoint); None takes those of the training images.
        channels: 3 for RGB, 1 for gray, another number for multi-band files.
        multilabel: Whether an image can have several classes; None takes what the manifest says.
        need: The splits that must be there; to evaluate, ``("val",)`` or ``("test",)`` with ``classes``.

    Raises:
        DataError: Images, folders or labels are missing or disagree, or a split that is needed is not there.
        UsageError: A value is out of range.
    """
    if not 0 < val_fraction < 1:
        raise UsageError(f"val_fraction: {val_fraction} is not between 0 and 1; give a share such as 0.2")
    if root is None:
        found = _from_shapes(seed, classes, channels, bool(multilabel))
    else:
        path = Path(root)
        manifest = _manifest(path)
        if manifest is not None:
            found = _from_manifest(manifest, classes, channels, multilabel)
        elif multilabel:
            raise UsageError(
                f"{path}: class folders give one label an image; for several, list the images in a manifest with the "
                "columns path,labels"
            )
        else:
            found = _from_folders(path, classes, channels)
    if found.train is not None and found.val is None:
        groups = found.train.groups or [e.key for e in found.train.entries]
        found = divide(found, groups, found.train.labels, val_fraction, seed)
    for name in need:
        found.get(name)
    _check(found, classes, root)
    return found


def _from_shapes(seed: int, classes: Sequence[str] | None, channels: int, multilabel: bool) -> Splits:
    if classes is not None and tuple(classes) != SHAPES:
        raise UsageError(
            f"without a root the data are drawn shapes ({', '.join(SHAPES)}), but the classes are "
            f"{', '.join(classes[:6])}; give the root of your images"
        )

    def drawn(count: int, part: int) -> ShapesClassification:
        return ShapesClassification(count, seed=2 * seed + part, multilabel=multilabel, channels=channels)

    source = f"drawn shapes: {_SHAPES_TRAIN} for training, {_SHAPES_VAL} for validation (seed {seed})"
    return Splits(drawn(_SHAPES_TRAIN, 0), drawn(_SHAPES_VAL, 1), None, source)


def _manifest(path: Path) -> Path | None:
    """Return the manifest that a root means, or None where it means folders."""
    if path.suffix.lower() in MANIFEST_SUFFIXES and not path.is_dir():
        return path
    if path.is_file():
        raise UsageError(
            f"{path}: is neither a folder nor a manifest; give a folder of images, a .csv or a .jsonl file"
        )
    if not path.is_dir():
        raise DataError(f"{path}: no such folder or file; check the path")
    if _split_folders(path):
        return None
    candidates = sorted(f for f in path.iterdir() if f.suffix.lower() in MANIFEST_SUFFIXES and f.is_file())
    found = [f for f in candidates if not f.name.startswith(".") and looks_like_manifest(f)]
    if len(found) > 1:
        names = ", ".join(f.name for f in found)
        raise UsageError(f"{path}: several manifests ({names}); give one as root, with a split column for all images")
    return found[0] if found else None


def _split_folders(path: Path) -> dict[str, Path]:
    """Return the folders named like splits, where they are splits and not classes of those names."""
    folders = {f.name: f for f in class_folders(path)}
    found: dict[str, Path] = {}
    for name, words in SPLIT_WORDS.items():
        here = [w for w in words if w in folders]
        if len(here) > 1:
            raise DataError(f"{path}: has both {here[0]}/ and {here[1]}/; keep one")
        if here:
            found[name] = folders[here[0]]
    words_only = all(f in sum(SPLIT_WORDS.values(), ()) for f in folders)
    if words_only or any(class_folders(f) and not loose_images(f) for f in found.values()):
        return found
    return {}  # classes that happen to have such names, as COCO's train has


def _from_folders(path: Path, classes: Sequence[str] | None, channels: int) -> Splits:
    folders = _split_folders(path)
    if not folders:
        data = FolderDataset(path, classes=classes, channels=channels)
        return Splits(data, None, None, f"{len(data)} images in class folders of {path}")
    if classes is None:
        if "train" not in folders:
            raise UsageError(f"{path}: has no train/ folder to take the class names from; add it or give a checkpoint")
        train = FolderDataset(folders["train"], channels=channels)
        for name, folder in folders.items():
            unknown = [f.name for f in class_folders(folder) if f.name not in train.classes]
            if unknown:
                raise DataError(_unknown(folder, name, unknown, train.classes))
        classes = train.classes
    parts = {name: FolderDataset(f, classes=classes, channels=channels) for name, f in folders.items()}
    names = ", ".join(f"{f.name}/ ({len(parts[n])} images)" for n, f in folders.items())
    return Splits(parts.get("train"), parts.get("val"), parts.get("test"), f"{names} of {path}")


def _from_manifest(path: Path, classes: Sequence[str] | None, channels: int, multilabel: bool | None) -> Splits:
    every = ManifestDataset(path, classes=classes, channels=channels, multilabel=multilabel)
    if not every.splits:
        return Splits(every, None, None, f"{len(every)} images of {path}")
    parts = {s: every.subset([i for i, e in enumerate(every.entries) if e.split == s]) for s in every.splits}
    if classes is None:
        if "train" not in parts:
            raise UsageError(f"{path}: has no train split to take the class names from; add it or give a checkpoint")
        trained = {i for labels in parts["train"].labels for i in labels}
        for name, part in parts.items():
            unknown = sorted({every.classes[i] for labels in part.labels for i in labels if i not in trained})
            if unknown:
                raise DataError(_unknown(path, name, unknown, [every.classes[i] for i in sorted(trained)]))
    _refuse_shared_groups(path, parts)
    names = ", ".join(f"{n} ({len(p)} images)" for n, p in parts.items())
    return Splits(parts.get("train"), parts.get("val"), parts.get("test"), f"{names}: the split column of {path}")


def _unknown(where: Path, name: str, unknown: Sequence[str], classes: Sequence[str]) -> str:
    return (
        f"{where}: {name} has classes that train does not have: {', '.join(unknown[:10])}"
        f"{', ...' if len(unknown) > 10 else ''} (train has {', '.join(classes[:10])}"
        f"{', ...' if len(classes) > 10 else ''}); add training images of them, or rename or remove them"
    )


def _refuse_shared_groups(path: Path, parts: dict[str, ManifestDataset]) -> None:
    side: dict[str, str] = {}
    for name, part in parts.items():
        for group in part.groups or ():
            if side.setdefault(group, name) != name:
                raise DataError(
                    f"{path}: group {group!r} is in both {side[group]} and {name}, so the score would flatter; keep "
                    "each group on one side, or remove the split column for an automatic split"
                )


def _check(found: Splits, classes: Sequence[str] | None, root: str | os.PathLike[str] | None) -> None:
    if found.train is None:
        return
    if len(found.train) < 2:
        raise DataError(f"{root}: {len(found.train)} training image(s); give 2 or more")
    trained = {i for labels in found.train.labels for i in labels}
    lost = [c for i, c in enumerate(found.train.classes) if i not in trained]
    if lost and classes is None:
        raise DataError(f"{root}: no training image of {', '.join(lost[:10])}; add images or another group of them")
