import os
from functools import partial

import numpy as np
import pytest
from PIL import Image

from tests.pictures import colour_of
from visionkit.core.errors import DataError, UsageError
from visionkit.data import formats
from visionkit.data.shapes import SHAPES
from visionkit.tasks.segmentation.readers.formats import FORMATS
from visionkit.tasks.segmentation.readers.shapes import ShapesSegmentation

find_splits = partial(formats.find_splits, table=FORMATS)

VOC_NAMES = ("background", "aeroplane", "bicycle")


def write(root, images, masks, names, values=(0, 1), *, image=".jpg", mask=".png", palette=None, colours=None):
    """Write an image and its mask for each name; ``values`` are the ids in each mask, or one list a name."""
    for i, name in enumerate(names):
        row = values[i] if isinstance(values[0], list | tuple) else values
        (root / images / name).parent.mkdir(parents=True, exist_ok=True)
        (root / masks / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (len(row), 1), colour_of(f"{images}{name}")).save(root / images / f"{name}{image}")
        pixels = np.array([row], np.uint8)
        picture = Image.fromarray(pixels if colours is None else np.array(colours, np.uint8)[pixels])
        if palette is not None:
            picture.putpalette(palette)
        picture.save(root / masks / f"{name}{mask}")


def names_file(root, *names, file="classes.txt"):
    root.mkdir(parents=True, exist_ok=True)
    (root / file).write_text("\n".join(names))


def sizes(found):
    return [None if d is None else len(d) for d in (found.train, found.val, found.test)]


# --- drawn


def test_drawn_without_a_root():
    found = find_splits(None)
    assert isinstance(found.train, ShapesSegmentation)
    assert sizes(found) == [600, 150, None]
    assert found.train.classes == ("background", *SHAPES)
    assert found.train.seed != found.val.seed
    assert found.train[0].image.shape == (3, 128, 128)
    assert found.source == "drawn shapes: 600 for training, 150 for validation (seed 0)"
    assert find_splits(None, seed=3).train.seed not in (found.train.seed, found.val.seed)
    assert find_splits(None, classes=["background", *SHAPES], channels=1).val.channels == 1
    with pytest.raises(
        UsageError, match=r"without a root the data are drawn shapes \(background, circle, .*\), but the classes"
    ):
        find_splits(None, classes=["cat"])
    with pytest.raises(UsageError, match="ignore: sky: drawn shapes ignore nothing"):
        find_splits(None, ignore=["sky"])


# --- every layout


@pytest.mark.parametrize(
    "places",
    [
        {"train": ("images/train", "masks/train"), "val": ("images/val", "masks/val"), "test": ("images/test", "masks/test")},
        {"train": ("train/images", "train/labels"), "val": ("valid/images", "valid/labels")},
        {"train": ("train", "trainannot"), "val": ("val", "valannot"), "test": ("test", "testannot")},
        {"train": ("images/training", "annotations/training"), "val": ("images/validation", "annotations/validation")},
    ],
)  # fmt: skip
@pytest.mark.parametrize("deep", ["", "city/"])
def test_folders(tmp_path, places, deep):
    for n, (split, (images, masks)) in enumerate(places.items()):
        write(tmp_path, images, masks, [f"{deep}{split}{i}" for i in range(2 + n)], (0, 1, 2, 3))
    names_file(tmp_path, "sky", "road", "void", "car")
    found = find_splits(tmp_path)
    assert sizes(found)[: len(places)] == [2, 3, 4][: len(places)]
    assert found.train.classes == found.val.classes == ("sky", "road", "car")
    assert found.val[1].target.mask.tolist() == [[0, 1, 255, 2]]
    told = ", ".join(f"{n} {2 + i} images ({p}, {m})" for i, (n, (p, m)) in enumerate(places.items()))
    assert found.source == f"masks of {tmp_path}: {told}; 3 classes of classes.txt, void ignored"


def test_camvid_as_it_was_published(tmp_path):
    colours = [(128, 128, 128), (128, 0, 0), (0, 0, 0)]
    write(
        tmp_path,
        "701_StillsRaw_full",
        "LabeledApproved_full",
        [f"{i}" for i in range(10)],
        (0, 1, 2),
        mask="_L.png",
        colours=colours,
    )
    names_file(tmp_path, "128 128 128\tSky", "128 0 0\t\tBuilding", "0 0 0\tVoid", file="label_colors.txt")
    found = find_splits(tmp_path)
    assert sizes(found) == [8, 2, None]
    assert found.train.classes == ("Sky", "Building")
    assert found.train[0].target.mask.tolist() == [[0, 1, 255]]
    assert found.source == (
        f"masks of {tmp_path}: 10 images (701_StillsRaw_full, LabeledApproved_full); 2 classes of label_colors.txt, Void "
        "ignored; automatic split: 8 for training, 2 for validation, by class (seed 0)"
    )


def voc(root, **more):
    write(root, "JPEGImages", "SegmentationClass", ["a", "b", "c", "d"], (0, 1, 20, 255), **more)
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    for name, lines in {"train": "a\nb\n", "val": "c\n", "trainval": "a\nb\nc\n"}.items():
        (root / "ImageSets" / "Segmentation" / f"{name}.txt").write_text(lines)


VOC_COLOURS = np.zeros((256, 3), np.uint8)
VOC_COLOURS[[0, 1, 20, 255]] = (0, 0, 0), (128, 0, 0), (0, 64, 128), (224, 224, 192)


@pytest.mark.parametrize("more", [{}, {"palette": VOC_COLOURS.ravel().tolist()}, {"colours": VOC_COLOURS}])
def test_pascal_voc(tmp_path, more):
    voc(tmp_path, **more)
    found = find_splits(tmp_path)
    assert sizes(found) == [2, 1, None]
    assert len(found.train.classes) == 21
    assert found.train.classes[20] == "tvmonitor"
    for i in range(2):
        assert found.train[i].target.mask.tolist() == [[0, 1, 20, 255]]
    lists = "ImageSets/Segmentation"
    assert found.source == (
        f"Pascal VOC of {tmp_path}: train 2 images (JPEGImages, SegmentationClass, {lists}/train.txt), val 1 images "
        f"(JPEGImages, SegmentationClass, {lists}/val.txt); 21 classes of the 21 built-in names of Pascal VOC, void ignored"
    )
    names_file(tmp_path, "0 nothing", "1 crack", "20 hole")
    if not more:
        assert find_splits(tmp_path).train.classes == ("nothing", "crack", "hole")


def test_pascal_voc_with_a_list_of_secret_masks(tmp_path):
    voc(tmp_path)
    Image.new("RGB", (4, 1)).save(tmp_path / "JPEGImages" / "t.jpg")
    (tmp_path / "ImageSets" / "Segmentation" / "test.txt").write_text("t\n")
    found = find_splits(tmp_path)
    assert sizes(found) == [2, 1, None]
    assert "; the 1 images of test have no masks and are left out;" in found.source
    with pytest.raises(DataError, match="there is no test split: Pascal VOC of"):
        find_splits(tmp_path, need=("test",))


def test_cityscapes(tmp_path):
    for split, ending, values in (("train", "labelIds", (0, 7, 23, 33)), ("val", "labelTrainIds", (255, 0, 10, 18))):
        folders = f"leftImg8bit/{split}", f"gtFine/{split}"
        write(
            tmp_path,
            *folders,
            [f"aachen/{split}{i}" for i in range(2)],
            values,
            image="_leftImg8bit.png",
            mask=f"_gtFine_{ending}.png",
        )
    Image.new("RGB", (4, 1)).save(tmp_path / "gtFine" / "train" / "aachen" / "train0_gtFine_color.png")
    found = find_splits(tmp_path)
    assert sizes(found) == [2, 2, None]
    assert len(found.train.classes) == 19
    assert [found.train.classes[i] for i in (0, 10, 18)] == ["road", "sky", "bicycle"]
    assert found.train[0].target.mask.tolist() == found.val[0].target.mask.tolist() == [[255, 0, 10, 18]]
    assert "; 19 classes of the 19 built-in names of Cityscapes, void ignored" in found.source


# --- names


def test_names_of_the_splits_are_matched_by_name(tmp_path):
    for split in ("train", "val"):
        write(tmp_path, f"{split}/images", f"{split}/masks", [f"{split}{i}" for i in range(2)], (0, 1, 2))
    names_file(tmp_path / "train", "sky", "road", "car")
    names_file(tmp_path / "val", "car", "sky", "road")
    found = find_splits(tmp_path)
    assert found.val.classes == ("sky", "road", "car")
    assert found.train[0].target.mask.tolist() == [[0, 1, 2]]
    assert found.val[0].target.mask.tolist() == [[2, 0, 1]]
    (tmp_path / "val" / "classes.txt").unlink()
    with pytest.raises(
        DataError, match=rf"^{tmp_path}/val/masks: no file says what the ids in its masks are called, 0, 1, 2 \(in"
    ):
        find_splits(tmp_path)
    names_file(tmp_path / "val", "cars", "sky", "road")
    with pytest.raises(
        DataError, match=r"val/classes\.txt: class 'cars' is not one of sky, road, car; did you mean 'car'\?"
    ):
        find_splits(tmp_path)


def test_two_values_are_understood_over_all_splits(tmp_path):
    write(tmp_path, "images/train", "masks/train", ["a", "b"], (0, 255))
    write(tmp_path, "images/val", "masks/val", ["c"], (0, 0))
    found = find_splits(tmp_path)
    assert found.train.classes == found.val.classes == ("background", "foreground")
    assert found.train[0].target.mask.tolist() == [[0, 1]]
    assert found.val[0].target.mask.tolist() == [[0, 0]]
    assert found.source.endswith("; 2 classes (masks of 0 and 255: background and foreground)")
    write(tmp_path, "images/val", "masks/val", ["d"], (0, 1))
    with pytest.raises(
        DataError, match=rf"^{tmp_path}: no file says what the ids in its masks are called, 0, 1, 255 \(in 4 masks\);"
    ):
        find_splits(tmp_path)
    names_file(tmp_path, "crack")
    with pytest.raises(DataError) as e:
        find_splits(tmp_path)
    assert str(e.value) == (
        f"{tmp_path}/classes.txt: names crack alone, but the masks hold the ids 0, 1, 255 (in 4 masks); name each id, such as "
        "`0 background`"
    )


def test_one_name(tmp_path):
    write(tmp_path, "images", "masks", [f"{i}" for i in range(10)], [[0, 0]] * 5 + [[0, 255]] * 5)
    names_file(tmp_path, "crack")
    found = find_splits(tmp_path)
    assert found.train.classes == ("background", "crack")
    assert sorted(found.val.labels) == [(0,), (0, 1)]
    assert "; 2 classes of classes.txt (255 in masks is crack, 0 is background); automatic split" in found.source


def test_ignore(tmp_path):
    write(tmp_path, "images", "masks", ["a", "b", "c", "d"], (0, 1, 2))
    names_file(tmp_path, "sky", "road", "void")
    found = find_splits(tmp_path, ignore=["sky"], val_fraction=0.5)
    assert found.train.classes == found.val.classes == ("road", "void")
    assert found.train[0].target.mask.tolist() == [[255, 0, 1]]
    with pytest.raises(UsageError, match="ignore: class 'skies' is not one of sky, road, void; did you mean 'sky'"):
        find_splits(tmp_path, ignore=["skies"])


# --- the automatic split


def test_automatic_split_goes_by_class_and_not_by_place(tmp_path):
    values = [[0, 1]] * 20 + [[0, 2]] * 10 + [[3, 3]] * 10
    found = []
    for root in (tmp_path / "a", tmp_path / "b"):
        write(root, "images", "masks", [f"{i:02d}" for i in range(40)], values)
        names_file(root, "sky", "road", "car", "void")
        found.append(find_splits(root))
    for f in found:
        assert sizes(f) == [32, 8, None]
        assert sorted(f.val.labels) == [()] * 2 + [(0, 1)] * 4 + [(0, 2)] * 2
    assert [e.key for e in found[0].val.entries] == [e.key for e in found[1].val.entries]
    assert sizes(find_splits(tmp_path / "a", seed=1, val_fraction=0.5)) == [20, 20, None]


def test_images_without_masks_are_told(tmp_path):
    write(tmp_path, "images", "masks", [f"{i}" for i in range(10)])
    Image.new("RGB", (2, 1)).save(tmp_path / "images" / "more.jpg")
    found = find_splits(tmp_path)
    assert sizes(found) == [8, 2, None]
    assert "; 1 images of train have no mask and are left out; automatic split" in found.source
    (tmp_path / "images" / "0.jpg").unlink()
    with pytest.raises(DataError, match=rf"^{tmp_path}/masks/0\.png: no image of this name\n"):
        find_splits(tmp_path)


# --- what is wrong


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_the_same_image_in_two_splits(tmp_path, link):
    write(tmp_path, "images/train", "masks/train", ["a", "b"])
    write(tmp_path, "images/val", "masks/val", ["c"])
    (tmp_path / "images" / "val" / "c.jpg").unlink()
    link(tmp_path / "images" / "train" / "a.jpg", tmp_path / "images" / "val" / "c.jpg")
    with pytest.raises(
        DataError, match=r"c\.jpg, the same file as .*a\.jpg is in both train and val, so the score would flatter"
    ):
        find_splits(tmp_path)


def test_a_voc_name_in_two_lists(tmp_path):
    voc(tmp_path)
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text("c\na\n")
    with pytest.raises(DataError, match=r"a\.jpg is in both train and val, so the score would flatter; keep it in one"):
        find_splits(tmp_path)


def test_nothing_that_is_understood(tmp_path):
    understood = (
        r"understood are Pascal VOC \(JPEGImages with SegmentationClass\), Cityscapes \(leftImg8bit with gtFine\), folders of "
        r"images and masks \(images/train with masks/train, .*\) and COCO JSON with polygons \(.*\)"
    )
    with pytest.raises(DataError, match=rf"^{tmp_path}: holds no images and no masks; {understood}$"):
        find_splits(tmp_path)
    (tmp_path / "images").mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "images" / "a.png")
    with pytest.raises(DataError, match=rf"^{tmp_path}: holds 1 images but no masks; {understood}$"):
        find_splits(tmp_path)
    with pytest.raises(DataError, match=rf"nowhere: no such folder or file; check the path; {understood}$"):
        find_splits(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=rf"a\.png: is neither a folder nor a file of a known format; {understood}$"):
        find_splits(tmp_path / "images" / "a.png")
    with pytest.raises(UsageError, match="val_fraction: 1 is not between 0 and 1; give a share such as 0.2"):
        find_splits(tmp_path, val_fraction=1)


def test_too_little_to_learn_from(tmp_path):
    write(tmp_path / "a", "images", "masks", ["a"])
    with pytest.raises(DataError, match="cannot be divided into training and validation; add images"):
        find_splits(tmp_path / "a")
    write(tmp_path / "b", "images/train", "masks/train", ["a"])
    write(tmp_path / "b", "images/val", "masks/val", ["b"])
    with pytest.raises(DataError, match=r"b: 1 training image\(s\); give 2 or more"):
        find_splits(tmp_path / "b")
    write(tmp_path / "c", "images", "masks", ["a", "b"], (3, 3))
    names_file(tmp_path / "c", "sky", "road", "car", "void")
    with pytest.raises(DataError, match="c: no training mask shows a class; all is ignored, label some pixels$"):
        find_splits(tmp_path / "c")
    write(tmp_path / "c", "images", "masks", ["a", "b"], (7, 7))
    with pytest.raises(DataError, match=r"c: no training mask shows a class; .*a\.png: holds id 7 \(2 pixels\), which"):
        find_splits(tmp_path / "c")


def test_splits_that_are_needed(tmp_path):
    write(tmp_path, "images/test", "masks/test", ["a"], (0, 1))
    names_file(tmp_path, "sky", "road")
    with pytest.raises(
        UsageError, match="has no train split to take the class names from; add it or give a checkpoint"
    ):
        find_splits(tmp_path)
    found = find_splits(tmp_path, classes=["road", "cow", "sky"], need=("test",))
    assert sizes(found) == [None, None, 1]
    assert found.test[0].target.mask.tolist() == [[2, 0]]
    assert "; 3 classes of classes.txt" in found.source
    with pytest.raises(DataError, match="there is no val split: masks of"):
        find_splits(tmp_path, classes=["road", "sky"], need=("val",))


def put(root, name, mode, size=(4, 2), value=0):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(root / name)


@pytest.mark.parametrize(
    ("image", "mask", "told"),
    [
        ("train/{}.jpg", "train/{}_mask.png", "train"),  # Roboflow
        ("{}.jpg", "{}_mask.png", "."),
        ("ds0/img/{}.jpg", "ds0/masks_machine/{}.png", "ds0/img, ds0/masks_machine"),  # Supervisely
        ("img/{}.jpg", "masks_machine/{}.jpg.png", "img, masks_machine"),
        ("default/{}.png", "defaultannot/{}.png", "default, defaultannot"),  # CVAT's CamVid
        ("Images/{}.jpg", "Labels/{}.png", "Images, Labels"),
        ("JPEGImages/default/{}.jpg", "SegmentationClass/default/{}.png", "JPEGImages, SegmentationClass"),  # CVAT
    ],
)
def test_what_other_tools_write(tmp_path, image, mask, told):
    for i in range(4):
        put(tmp_path, image.format(i), "RGB", value=(50 * i, 9, 9))
        put(tmp_path, mask.format(i), "L", value=i % 2)
    (tmp_path / "Classes.txt").write_text("sky\nroad\n")
    found = find_splits(tmp_path)
    assert found.train.classes == ("sky", "road")
    assert len(found.train) + len(found.val) == 4
    assert f"({told})" in found.source


def test_roboflow_names_its_classes(tmp_path):
    for split, n in (("train", 3), ("valid", 2)):
        for i in range(n):
            put(tmp_path, f"{split}/{i}_jpg.rf.{i}.jpg", "RGB", value=(50 * i, 9 * n, 9))
            put(tmp_path, f"{split}/{i}_jpg.rf.{i}_mask.png", "L", value=i % 2)
        (tmp_path / split / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, red\n")
    found = find_splits(tmp_path)
    assert found.train.classes == ("background", "red")
    assert [len(found.train), len(found.val)] == [3, 2]
    assert np.unique(found.train.read_mask(1)).tolist() == [1]


def test_names_pair_in_either_unicode_form(tmp_path):
    for i in range(4):
        put(tmp_path, f"images/B\xe4cker {i}.png", "RGB", value=(50 * i, 9, 9))
        put(tmp_path, f"masks/Ba\u0308cker {i}.png", "L", value=1)
    found = find_splits(tmp_path)
    assert len(found.train) + len(found.val) == 4


def test_ids_that_a_palette_has_no_colour_for_go_by_the_id(tmp_path):
    """A palette may end before 255, the border; what fills it up is no colour."""
    for i in range(4):
        put(tmp_path, f"images/{i}.png", "RGB", size=(3, 1), value=(50 * i, 9, 9))
        mask = Image.fromarray(np.array([[0, 1, 255]], np.uint8), "P")
        mask.putpalette([0, 0, 0, 128, 0, 0] + [0, 0, 0] * 253)
        (tmp_path / "masks").mkdir(exist_ok=True)
        mask.save(tmp_path / "masks" / f"{i}.png")
    (tmp_path / "labelmap.txt").write_text("background:0,0,0::\nred:128,0,0::\n")
    found = find_splits(tmp_path)
    assert found.train.read_mask(0).tolist() == [[0, 1, 255]]
