import pytest
from PIL import Image

from visionkit.core.errors import DataError, UsageError
from visionkit.data.formats import recognise
from visionkit.tasks.segmentation.readers.formats import FORMATS


def find_masks(root):
    """The layout of masks that is read."""
    first = next((r for r in recognise(root, FORMATS) if r.format.name != "COCO JSON"), None)
    if first is not None and first.problem is not None:
        raise first.problem
    return None if first is None else first.found


def pictures(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(root / name)


def found(root):
    layout = find_masks(root)
    return layout.name, {n: (str(p.images.relative_to(root)), str(p.masks.relative_to(root))) for n, p in layout.splits.items()}  # fmt: skip


@pytest.mark.parametrize(
    ("images", "masks"),
    [("images", "masks"), ("image", "mask"), ("Images", "Labels"), ("imgs", "annotations"), ("img_dir", "ann_dir"),
     ("images", "semantic_masks"), ("images", "targets"), ("images", "annotation")],
)  # fmt: skip
@pytest.mark.parametrize(
    "words", [("train", "val", "test"), ("train2017", "val2017", "test2017"), ("training", "validation", "testing")]
)
def test_splits_within_images_and_masks(tmp_path, images, masks, words):
    for word in words:
        pictures(tmp_path, f"{images}/{word}/a.jpg", f"{masks}/{word}/a.png")
    splits = {n: (f"{images}/{w}", f"{masks}/{w}") for n, w in zip(("train", "val", "test"), words, strict=True)}
    assert found(tmp_path) == ("masks", splits)


def test_images_and_masks_within_splits(tmp_path):
    for word in ("train", "valid"):
        pictures(tmp_path, f"{word}/images/a.jpg", f"{word}/masks/a.png")
    pictures(tmp_path, "test/images/a.jpg")
    assert found(tmp_path) == (
        "masks",
        {"train": ("train/images", "train/masks"), "val": ("valid/images", "valid/masks")},
    )
    assert find_masks(tmp_path).notes == ("test has no masks and is left out",)


def test_flat(tmp_path):
    pictures(tmp_path, "images/day/a.jpg", "masks/day/a.png")
    assert found(tmp_path) == ("masks", {"": ("images", "masks")})


@pytest.mark.parametrize("ending", ["annot", "_labels", "_masks"])
def test_masks_beside_splits(tmp_path, ending):
    for word in ("train", "val"):
        pictures(tmp_path, f"{word}/a.jpg", f"{word}{ending}/a.png")
    pictures(tmp_path, "test/a.jpg")
    assert found(tmp_path) == ("masks", {n: (n, f"{n}{ending}") for n in ("train", "val")})
    assert find_masks(tmp_path).notes == ("test has no masks (testannot) and is left out",)


def test_camvid_as_it_was_published(tmp_path):
    pictures(tmp_path, "701_StillsRaw_full/a.png", "701_StillsRaw_full/b.png", "LabeledApproved_full/a_L.png")
    assert found(tmp_path) == ("masks", {"": ("701_StillsRaw_full", "LabeledApproved_full")})
    pictures(tmp_path, "more/a_mask.png")
    with pytest.raises(
        UsageError, match=r"several folders of masks \(LabeledApproved_full for .*, more for .*\); keep one pair"
    ):
        find_masks(tmp_path)


def test_voc_and_cityscapes(tmp_path):
    voc, city = tmp_path / "voc", tmp_path / "city"
    pictures(voc, "JPEGImages/a.jpg", "SegmentationClass/a.png")
    assert found(voc) == ("Pascal VOC", {"": ("JPEGImages", "SegmentationClass")})
    (voc / "ImageSets" / "Segmentation").mkdir(parents=True)
    (voc / "ImageSets" / "Segmentation" / "trainval.txt").write_text("a\n")
    assert set(find_masks(voc).splits) == {"train"}
    (voc / "ImageSets" / "Segmentation" / "val.txt").write_text("a\n")
    assert set(find_masks(voc).splits) == {"val"}
    for word in ("train", "val", "test"):
        pictures(city, f"leftImg8bit/{word}/aachen/a_leftImg8bit.png")
    pictures(city, "gtFine/train/aachen/a_gtFine_labelIds.png", "gtFine/train/aachen/a_gtFine_labelTrainIds.png")
    pictures(city, "gtFine/val/aachen/a_gtFine_labelTrainIds.png")
    layout = find_masks(city)
    assert layout.name == "Cityscapes"
    assert {n: p.ending for n, p in layout.splits.items()} == {"train": "_labelIds", "val": "_labelTrainIds"}
    assert layout.notes == ("leftImg8bit/test has no masks (gtFine/test) and is left out",)


def test_folders_that_hold_something_else(tmp_path):
    pictures(tmp_path, "images/train/a.jpg")
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "a.txt").write_text("0 0.5 0.5 1 1\n")
    (tmp_path / "annotations").mkdir()
    assert find_masks(tmp_path) is None
    pictures(tmp_path, "semantic_masks/train/a.png")
    assert found(tmp_path) == ("masks", {"train": ("images/train", "semantic_masks/train")})


def test_folders_that_do_not_fit(tmp_path):
    pictures(tmp_path, "images/train/a.jpg", "images/val/a.jpg", "masks/train/a.png")
    assert find_masks(tmp_path).notes == ("images/val has no masks (masks/val) and is left out",)
    pictures(tmp_path, "masks/test/a.png")
    with pytest.raises(
        DataError, match=rf"^{tmp_path}/images: has no folder test/ as {tmp_path}/masks has; divide both alike"
    ):
        find_masks(tmp_path)
    pictures(tmp_path, "images/test/a.jpg", "images/train2/a.jpg")
    with pytest.raises(DataError, match=rf"^{tmp_path}/images: has both train/ and train2/; keep one$"):
        find_masks(tmp_path)
    pictures(tmp_path, "labels/train/a.png")
    with pytest.raises(
        UsageError, match=rf"^{tmp_path}: several folders can be meant \(labels/, masks/\); keep one of them, move"
    ):
        find_masks(tmp_path)


def test_images_divided_and_masks_not(tmp_path):
    pictures(tmp_path, "images/train/a.jpg", "masks/a.png")
    with pytest.raises(DataError, match=rf"^{tmp_path}/masks: has no folder train/ as {tmp_path}/images has"):
        find_masks(tmp_path)
