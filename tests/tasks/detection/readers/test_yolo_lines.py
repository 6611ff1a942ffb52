"""Lines and files of YOLO that say something else than they seem to: refused with their place."""

import pytest

from tests.tasks.detection.readers.test_label_kinds import BOX, picture, text, yolo
from visionkit.core.errors import DataError
from visionkit.data.formats import find_splits
from visionkit.tasks.detection.readers.formats import FORMATS
from visionkit.tasks.detection.readers.yolo import YoloDataset


@pytest.mark.parametrize("line", ["0,0.5,0.5,0.2,0.2", "0, 0.5, 0.5, 0.2, 0.2", "0 0,5 0,5 0,2 0,2", "0;0.5;0.5;1;1"])
def test_commas_are_named(tmp_path, line):
    with pytest.raises(DataError, match=r"0\.txt:1: holds a comma or semicolon; YOLO parts columns by blanks"):
        YoloDataset(yolo(tmp_path, line))


def test_two_images_of_one_label_file(tmp_path):
    yolo(tmp_path, BOX)
    picture(tmp_path / "images/3.jpg")
    with pytest.raises(DataError, match=r"3\.png: has the same name as .*3\.jpg, so whose objects .*3\.txt lists"):
        YoloDataset(tmp_path)
    (tmp_path / "labels/3.txt").unlink()
    assert len(YoloDataset(tmp_path)) == 7


def test_boxes_of_two_corners(tmp_path):
    root = yolo(tmp_path, "0 0.1 0.2 0.4 0.6\n0 0.5 0.4 0.9 0.8")
    with pytest.raises(DataError, match=r"0\.txt:1: the box reaches out .* 6 of 12, and all fit as two corners x1 y1"):
        YoloDataset(root)
    text(root / "labels/5.txt", "0 0.5 0.5 0.2 0.2\n")
    assert len(YoloDataset(root).problems) == 5


def test_two_label_files_of_one_image(tmp_path):
    yolo(tmp_path, BOX)
    text(tmp_path / "images/3.txt", f"{BOX}\n")
    assert len(YoloDataset(tmp_path)) == 6
    text(tmp_path / "images/3.txt", "0 0.1 0.1 0.1 0.1\n")
    with pytest.raises(
        DataError, match=r"3\.png: has two label files that differ, .*labels/3\.txt and .*images/3\.txt"
    ):
        YoloDataset(tmp_path)


def test_one_name_in_upper_and_lower_case(tmp_path):
    text(yolo(tmp_path, BOX) / "labels/3.TXT", f"{BOX}\n")
    with pytest.raises(DataError, match=r"labels: has both 3\.txt and 3\.TXT; keep the right one"):
        YoloDataset(tmp_path)


def test_images_without_label_file_are_counted(tmp_path):
    yolo(tmp_path, BOX)
    told = "images have no label file and so no objects"
    assert told not in find_splits(tmp_path, FORMATS).source
    for i in (2, 3):
        (tmp_path / f"labels/{i}.txt").unlink()
    assert f"; 2 {told}" in find_splits(tmp_path, FORMATS).source
