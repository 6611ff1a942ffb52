"""The contract of readers, held by every one of every task; and the tables that say what they read."""

import json
import pickle
import shutil
import tempfile
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import visionkit
from visionkit import (
    CocoDataset,
    CocoMaskDataset,
    FolderDataset,
    ManifestDataset,
    MaskFolderDataset,
    MultiTaskDataset,
    ObjectMasks,
    Sample,
    ShapesClassification,
    ShapesDetection,
    ShapesSegmentation,
    VocDataset,
    YoloDataset,
)
from visionkit.data.dataset import DataSplits, VisionDataset, knows_targets, load_sample
from visionkit.data.formats import find_splits, recognise
from visionkit.tasks.classification.readers.formats import FORMATS as CLASSES
from visionkit.tasks.detection.readers.formats import FORMATS as BOXES
from visionkit.tasks.multitask.dataset import put_together
from visionkit.tasks.segmentation.readers.formats import FORMATS as MASKS

HEIGHT, WIDTH = 48, 64
STEMS = ("a", "b", "c", "d")
LABELS = (0, 1, 1, 0)  # of the pictures; two classes
NAMES = ("cat", "dog")
BOX = (8, 6, 40, 30)  # xyxy
TABLES = {"classification": CLASSES, "detection": BOXES, "segmentation": MASKS}


# --- data sets, as small as they can be


def picture(path, height=HEIGHT, width=WIDTH, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.linspace(0, 200, width, dtype=np.uint8)[None, :, None]
    Image.fromarray(np.broadcast_to(ramp, (height, width, 3)) + np.uint8(seed)).save(path, quality=95)


def pictures(folder):
    for i, stem in enumerate(STEMS):
        picture(folder / f"{stem}.jpg", seed=i + 40 * ("val" in folder.parts))


def folders(root, wrong=False):
    for i, (stem, label) in enumerate(zip(STEMS, LABELS, strict=True)):
        picture(root / NAMES[label] / f"{stem}.jpg", seed=i)
    return root


def manifest(root, wrong=False, column="label"):
    pictures(root / "images")
    more = "|cat" if column == "labels" else ""
    rows = [f"images/{s}.jpg,{NAMES[k]}{more},note {s}" for s, k in zip(STEMS, LABELS, strict=True)]
    (root / "m.csv").write_text("\n".join([f"path,{column},note", *rows]))
    return root


def coco(root, wrong=False):
    """An object a picture; ``wrong`` gives the second picture one that lies outside and has no outline."""
    pictures(root / "images")
    x1, y1, x2, y2 = BOX
    images, notes = [], []
    for i, (stem, label) in enumerate(zip(STEMS, LABELS, strict=True)):
        images.append({"id": i, "file_name": f"{stem}.jpg", "width": WIDTH, "height": HEIGHT})
        outline = [[x1, y1, x2, y1, x2, y2, x1, y2]]
        box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": outline}
        notes.append({"id": i, "image_id": i, "category_id": label, "iscrowd": 0} | box)
    if wrong:
        notes.append({"id": 9, "image_id": 1, "category_id": 0, "bbox": [900, 900, 5, 5], "segmentation": [[1, 2]]})
    kinds = [{"id": k, "name": n} for k, n in enumerate(NAMES)]
    (root / "annotations.json").write_text(json.dumps({"images": images, "annotations": notes, "categories": kinds}))
    return root


def voc(root, wrong=False):
    pictures(root / "JPEGImages")
    (root / "Annotations").mkdir()
    for i, (stem, label) in enumerate(zip(STEMS, LABELS, strict=True)):
        boxes = [BOX, (900, 900, 905, 905)] if wrong and i == 1 else [BOX]
        shown = "".join(
            f"<object><name>{NAMES[label]}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax>"
            f"<ymax>{y2}</ymax></bndbox></object>\n"
            for x1, y1, x2, y2 in boxes
        )
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
        text = f"<annotation><filename>{stem}.jpg</filename>{size}\n{shown}</annotation>"
        (root / "Annotations" / f"{stem}.xml").write_text(text)
    return root


def yolo(root, wrong=False):
    pictures(root / "images")
    (root / "labels").mkdir()
    x1, y1, x2, y2 = BOX[0] / WIDTH, BOX[1] / HEIGHT, BOX[2] / WIDTH, BOX[3] / HEIGHT
    for i, (stem, label) in enumerate(zip(STEMS, LABELS, strict=True)):
        lines = [f"{label} {x1} {y1} {x2} {y1} {x2} {y2} {x1} {y2}"]
        lines += lines if wrong and i == 1 else []
        (root / "labels" / f"{stem}.txt").write_text("\n".join(lines))
    (root / "classes.txt").write_text("\n".join(NAMES))
    return root


def masks(root, wrong=False, images="images", labels="masks", ending=""):
    pictures(root / images)
    for stem, label in zip(STEMS, LABELS, strict=True):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 1 + label
        (root / labels).mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(root / labels / f"{stem}{ending}.png")
    (root / "classes.txt").write_text("\n".join(("background", *NAMES)))
    return root


def voc_masks(root, wrong=False):
    return masks(root, images="JPEGImages", labels="SegmentationClass")


def cityscapes(root, wrong=False):
    for split in ("train", "val"):
        masks(root, images=f"leftImg8bit/{split}/town", labels=f"gtFine/{split}/town", ending="_gtFine_labelIds")
    for file in root.glob("leftImg8bit/*/*/*.jpg"):
        file.rename(file.with_name(f"{file.stem}_leftImg8bit.jpg"))
    return root


def several(root, channels):
    """Boxes and masks of the same pictures."""
    coco(root)
    masks(root)
    boxes = CocoDataset(root / "annotations.json", channels=channels)
    pixels = MaskFolderDataset(root / "images", root / "masks", channels=channels)
    return put_together({"boxes": DataSplits(boxes, None), "pixels": DataSplits(pixels, None)})[0].train


READERS = {
    "folder": lambda root, c: FolderDataset(folders(root), channels=c),
    "manifest": lambda root, c: ManifestDataset(manifest(root) / "m.csv", channels=c),
    "manifest of several": lambda root, c: ManifestDataset(manifest(root, column="labels") / "m.csv", channels=c),
    "drawn classes": lambda root, c: ShapesClassification(6, size=48, channels=c),
    "drawn classes, several": lambda root, c: ShapesClassification(6, size=48, multilabel=True, channels=c),
    "COCO": lambda root, c: CocoDataset(coco(root) / "annotations.json", channels=c),
    "COCO with masks": lambda root, c: CocoDataset(coco(root) / "annotations.json", channels=c, masks=True),
    "Pascal VOC": lambda root, c: VocDataset(voc(root), channels=c),
    "YOLO": lambda root, c: YoloDataset(yolo(root), channels=c),
    "YOLO with masks": lambda root, c: YoloDataset(yolo(root), channels=c, masks=True),
    "drawn boxes": lambda root, c: ShapesDetection(6, size=48, channels=c),
    "drawn boxes with masks": lambda root, c: ShapesDetection(6, size=48, channels=c, masks=True),
    "masks": lambda root, c: MaskFolderDataset(masks(root) / "images", root / "masks", channels=c),
    "COCO as pixels": lambda root, c: CocoMaskDataset(coco(root) / "annotations.json", channels=c),
    "drawn pixels": lambda root, c: ShapesSegmentation(6, size=48, channels=c),
    "several tasks": several,
}
STATES_SIZES = ("COCO", "COCO with masks", "Pascal VOC", "masks", "COCO as pixels", "several tasks")
"""Readers whose labels say how large the picture is."""


def plain(value):
    """A target or whatever is in it, as values that compare."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.tolist()
    if isinstance(value, ObjectMasks):
        return value.dense().tolist()
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return value


def labels_of(target):
    """All class ids that a target holds, 255 for ignored pixels aside."""
    parts = getattr(target, "parts", None)
    if parts is not None:
        return set().union(*map(labels_of, parts.values()))
    if hasattr(target, "scores"):
        return set(torch.nonzero(target.scores).flatten().tolist())
    ids = target.mask if hasattr(target, "mask") else target.labels
    return set(ids.unique().tolist()) - {255}


@pytest.fixture(params=READERS)
def name(request):
    return request.param


@pytest.fixture
def data(name, tmp_path):
    return READERS[name](tmp_path / "data", 3)


# --- the contract


def test_every_public_reader_is_here(tmp_path):
    known = {type(make(tmp_path / name, 3)).__name__ for name, make in READERS.items()}
    public = {n for n in visionkit.PUBLIC if n.endswith("Dataset") or n.startswith("Shapes")}
    assert known == public - {"VisionDataset", "MaskDataset"}  # bases


def test_length_and_names(data):
    assert isinstance(data, VisionDataset)
    assert len(data) == len(data.ids) == len(set(data.ids)) == len(data.files()) > 2
    assert isinstance(data.classes, tuple)
    assert len(set(data.classes)) == len(data.classes) > 1
    assert all(isinstance(c, str) and c for c in data.classes)
    assert list(data.problems) == []
    assert all(f is None or f.is_file() for f in data.files())


@pytest.mark.parametrize("channels", [1, 3])
def test_samples(name, tmp_path, channels):
    data = READERS[name](tmp_path / "data", channels)
    for i in range(len(data)):
        sample = data[i]
        assert isinstance(sample, Sample)
        assert sample.image.dtype == torch.uint8
        assert sample.image.shape == (channels, *sample.info.size)
        assert sample.info.id == data.ids[i]
        assert labels_of(sample.target) <= set(range(len(data.classes)))
    assert set().union(*(labels_of(data[i].target) for i in range(len(data)))) - {0}


def test_labels_are_those_of_the_targets(data):
    """What splits and weights go by is what the model learns from."""
    if not hasattr(data, "labels"):
        assert isinstance(data, MultiTaskDataset)
        return
    assert [set(ids) for ids in data.labels] == [labels_of(data[i].target) for i in range(len(data))]


def test_targets_are_known_without_pixels(name, data, monkeypatch):
    """All that comes from files has ``target_of``: else its pictures could not be cached."""
    assert knows_targets(data) == all(f is not None for f in data.files()) or name.startswith("drawn classes")
    samples = [data[i] for i in range(len(data))]
    if not knows_targets(data):
        return

    def refuse(*args, **options):
        raise AssertionError("decoded a picture")

    monkeypatch.setattr("visionkit.data.dataset.load_image", refuse)
    monkeypatch.setattr("visionkit.data.shapes._background", refuse)
    for i, sample in enumerate(samples):
        target, info = data.target_of(i, sample.info.size)
        assert plain(target) == plain(sample.target)
        assert info == sample.info


def test_reading_is_deterministic(name, data, tmp_path):
    other = READERS[name](tmp_path / "again", 3)
    assert other.classes == data.classes
    for i in range(len(data)):
        assert torch.equal(other[i].image, data[i].image)
        assert plain(other[i].target) == plain(data[i].target) == plain(data[i].target)


def test_a_smaller_picture_has_the_same_target(data):
    for i in range(len(data)):
        small, whole = load_sample(data, i, lambda size: (0.2, 0.2)), data[i]
        assert plain(small.target) == plain(whole.target)
        assert small.info == whole.info
        assert small.image.shape[1] <= whole.image.shape[1]


def test_pictures_come_from_the_cache_where_there_is_one(data):
    seen = []

    def read(path, channels):
        seen.append((path, channels))
        return np.full((*whole.info.size, channels), 7, np.uint8)

    whole = data[0]
    cached = data.with_originals(read)
    if data.files()[0] is None:
        assert torch.equal(cached[0].image, whole.image)
        return
    sample = cached[0]
    assert (sample.image == 7).all()
    assert plain(sample.target) == plain(whole.target)
    assert seen == [(data.ids[0], 3)]
    assert torch.equal(data[0].image, whole.image)  # the data set itself is as it was


@cache
def made_once(name):
    root = Path(tempfile.mkdtemp(prefix="readers-"))
    data = READERS[name](root, 1)
    files = list(data.files())
    shutil.rmtree(root)  # what follows asks for nothing but names
    return data, files


@pytest.mark.parametrize("name", READERS)
@given(draw=st.data())
def test_subset_takes_any_entries_in_any_order(name, draw):
    data, files = made_once(name)
    chosen = draw.draw(st.lists(st.integers(0, len(data) - 1), max_size=8, unique=True))
    part = data.subset(chosen)
    assert type(part) is type(data)
    assert part.classes == data.classes
    assert list(part.ids) == [data.ids[i] for i in chosen]
    assert list(part.files()) == [files[i] for i in chosen]
    deeper = draw.draw(st.lists(st.integers(0, len(chosen) - 1), max_size=4)) if chosen else []
    assert list(part.subset(deeper).ids) == [data.ids[chosen[i]] for i in deeper]
    assert len(data) == len(data.ids) > len(data.subset([]))


def test_subset_keeps_pictures_with_their_targets(data):
    order = [2, 0]
    part = data.subset(order)
    for i, k in enumerate(order):
        assert torch.equal(part[i].image, data[k].image)
        assert plain(part[i].target) == plain(data[k].target)


def test_travels_to_worker_processes(data):
    other = pickle.loads(pickle.dumps(data))
    assert (other.classes, list(other.ids), list(other.problems)) == (data.classes, list(data.ids), list(data.problems))
    for i in range(len(data)):
        assert torch.equal(other[i].image, data[i].image)
        assert plain(other[i].target) == plain(data[i].target)


def test_a_split_goes_by_names_that_no_place_changes(name, data, tmp_path):
    if isinstance(data, MultiTaskDataset):
        return  # its parts are divided before they are put together
    groups, labels = data.groups_and_labels()
    assert len(groups) == len(labels) == len(data)
    assert len(set(groups)) == len(data)
    other = READERS[name](tmp_path / "another" / "place", 3)
    assert (list(groups), list(labels)) == tuple(map(list, other.groups_and_labels()))
    part = data.subset([1])
    assert tuple(map(list, part.groups_and_labels())) == ([groups[1]], [labels[1]])


def test_what_fits_is_no_mismatch(data):
    assert [data.mismatch(i) for i in range(len(data))] == [None] * len(data)


@pytest.mark.parametrize("name", STATES_SIZES)
def test_a_picture_of_another_size_is_named(name, tmp_path):
    data = READERS[name](tmp_path / "data", 3)
    picture(Path(data.ids[1]), height=20, width=30)
    message = data.mismatch(1)
    assert message.startswith(f"{data.ids[1]}: is 30 x 20 pixels, but ")
    assert f"says {WIDTH} x {HEIGHT}" in message
    assert "\n" not in message
    assert data.mismatch(0) is None
    assert data.subset([2, 1]).mismatch(1) == message


@pytest.mark.parametrize("name", sorted(set(READERS) - set(STATES_SIZES)))
def test_labels_without_a_size_fit_any_picture(name, tmp_path):
    data = READERS[name](tmp_path / "data", 3)
    if data.files()[1] is None:
        return
    picture(data.files()[1], height=20, width=30)
    assert data.mismatch(1) is None
    assert data[1].info.size == (20, 30)


@pytest.mark.parametrize(
    ("read", "file"),
    [
        (lambda root: CocoDataset(coco(root, wrong=True) / "annotations.json"), "annotations.json"),
        (lambda root: CocoDataset(coco(root, wrong=True) / "annotations.json", masks=True), "annotations.json"),
        (lambda root: VocDataset(voc(root, wrong=True)), "Annotations/b.xml"),
        (lambda root: YoloDataset(yolo(root, wrong=True)), "labels/b.txt"),
        (lambda root: YoloDataset(yolo(root, wrong=True), masks=True), "labels/b.txt"),
        (lambda root: CocoMaskDataset(coco(root, wrong=True) / "annotations.json"), "annotations.json"),
    ],
)
def test_wrong_labels_are_named_with_their_file(read, file, tmp_path):
    data = read(tmp_path)
    assert data.problems
    assert all(p.startswith(f"{tmp_path / file}:") and "\n" not in p for p in data.problems)
    assert list(data.subset([1]).problems) == list(data.problems)
    assert list(data.subset([0, 2]).problems) == []
    for i in range(len(data)):
        assert labels_of(data[i].target) <= set(range(len(data.classes)))


# --- the tables


EXAMPLES = {
    "class folders": folders,
    "manifest": manifest,
    "COCO JSON": coco,
    "Pascal VOC": voc,
    "YOLO": yolo,
    "mask folders": masks,
    "Pascal VOC with masks": voc_masks,
    "Cityscapes": cityscapes,
}
RECOGNISED = {
    "class folders": {"classification": ["class folders"]},
    "manifest": {"classification": ["manifest"]},
    "COCO JSON": {"detection": ["COCO JSON"], "segmentation": ["COCO JSON"]},
    "Pascal VOC": {"detection": ["Pascal VOC"]},
    "YOLO": {"detection": ["YOLO"]},
    "mask folders": {"segmentation": ["mask folders"]},
    "Pascal VOC with masks": {"segmentation": ["Pascal VOC"]},
    "Cityscapes": {"segmentation": ["Cityscapes"]},
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_tables_recognise_a_folder(example, tmp_path, monkeypatch):
    root = EXAMPLES[example](tmp_path)
    monkeypatch.setattr("PIL.Image.open", lambda *a, **k: pytest.fail("opened a picture"))
    monkeypatch.setattr("visionkit.data.images.reading._decode_file", lambda *a: pytest.fail("decoded a picture"))
    found = {task: recognise(root, table) for task, table in TABLES.items()}
    assert [r.problem for rs in found.values() for r in rs] == [None] * sum(map(len, found.values()))
    sure = {t: [r.format.name for r in rs if not r.format.fallback] for t, rs in found.items()}
    if example == "class folders":
        sure["classification"] = [r.format.name for r in found["classification"]]
    assert {t: names for t, names in sure.items() if names} == RECOGNISED[example]


def test_every_format_has_an_example():
    known = {(task, name) for row in RECOGNISED.values() for task, names in row.items() for name in names}
    assert {(task, f.name) for task, table in TABLES.items() for f in table.formats} == known


@pytest.mark.parametrize("task", TABLES)
def test_nothing_is_recognised_where_nothing_is(task, tmp_path):
    assert recognise(tmp_path, TABLES[task]) == []
    assert recognise(tmp_path / "nowhere", TABLES[task]) == []
    (tmp_path / "notes.md").write_text("no data")
    assert recognise(tmp_path / "notes.md", TABLES[task]) == []


@pytest.mark.parametrize(("task", "example"), [(t, e) for e, row in RECOGNISED.items() for t in row])
def test_what_a_format_holds_is_what_is_read(task, example, tmp_path):
    table = TABLES[task]
    root = EXAMPLES[example](tmp_path)
    (format,) = (r.format for r in recognise(root, table))
    found = find_splits(root, table, val_fraction=0.5)
    target = found.get("train")[0].target
    assert format.holds & {"class", "boxes", "pixels"} == {
        {"classification": "class", "detection": "boxes", "segmentation": "pixels"}[task]
    }
    assert ("names" in format.holds) == (found.train.classes[-1] in (*NAMES, "bicycle"))
    if task == "detection":
        masked = "masks" in format.holds
        assert target.masks is None
        if masked:
            assert find_splits(root, table, val_fraction=0.5, masks=True).train[0].target.masks is not None
        else:
            with pytest.raises(Exception, match=f"{format.name} has no masks"):
                find_splits(root, table, masks=True)
    if task == "classification":
        if "classes" in format.holds:
            assert find_splits(root, table, val_fraction=0.5, multilabel=True).train.multilabel
        else:
            with pytest.raises(Exception, match="give one label an image"):
                find_splits(root, table, multilabel=True)
