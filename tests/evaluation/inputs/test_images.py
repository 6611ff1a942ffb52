"""Which image of the data a name means."""

import time

import pytest

from tests.scenes import picture
from visionkit import DataError
from visionkit.data.dataset import VisionDataset
from visionkit.evaluation.inputs.images import DataImages


class Data(VisionDataset):
    classes = ("a",)

    def __init__(self, ids):
        self.ids = list(ids)


def images(*ids, root=None):
    return DataImages(Data(ids), root)


FLAT = ("/d/val/1.jpg", "/d/val/2.jpg", "/d/val/3.png")
DEEP = ("/d/images/left/1.jpg", "/d/images/right/1.jpg", "/d/images/right/2.jpg")


@pytest.mark.parametrize(
    ("ids", "name", "position"),
    [
        (FLAT, "/d/val/2.jpg", 1),
        (FLAT, "val/2.jpg", 1),
        (FLAT, "2.jpg", 1),
        (FLAT, "/home/other/val/2.jpg", 1),
        (FLAT, "C:\\data\\val\\2.jpg", 1),
        (FLAT, "https://host/val/2.jpg?size=3", 1),
        (FLAT, "./2.jpg", 1),
        (DEEP, "right/1.jpg", 1),
        (DEEP, "images/left/1.jpg", 0),
        (DEEP, "/home/other/right/1.jpg", 1),
        (DEEP, "2.jpg", 2),
        (("/d/cafe\u0301/1.jpg",), "caf\u00e9/1.jpg", 0),
    ],
)
def test_names_that_mean_one(ids, name, position):
    assert images(*ids).find([name], "x").positions == [position]


def test_paths_as_readers_give_them_count_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()
    known = images("deep/../a/1.jpg", "b/1.jpg")
    assert known.find(["b/1.jpg", "a/1.jpg"], "x").positions == [1, 0]
    assert known.find(["deep/../a/1.jpg"], "x").positions == [0]


def test_names_without_ending():
    known = images("/d/1.jpg", "/d/2.png", "/d/3.tar.jpg")
    assert known.find(["2", "1.jpg", "3.tar"], "x", stems=True).positions == [1, 0, 2]
    with pytest.raises(DataError, match="none of its 1 images"):
        known.find(["2"], "x")
    with pytest.raises(DataError, match=r"x: 1 can be 2 images of the data \(/d/1\.jpg, /d/1\.png\): give its path"):
        images("/d/1.jpg", "/d/1.png").find(["1"], "x", stems=True)


def test_what_can_mean_several_is_refused_by_name():
    with pytest.raises(DataError, match=r"x: 1\.jpg can be 2 images of the data \(/d/images/left/1\.jpg, "):
        images(*DEEP).find(["1.jpg"], "x")
    with pytest.raises(DataError, match=r"x: a/1\.jpg and b/1\.jpg both can be /d/val/1\.jpg: give paths"):
        images(*FLAT).find(["a/1.jpg", "b/1.jpg"], "x")


def test_a_better_name_of_an_image_leaves_the_other_one_without():
    with pytest.raises(DataError, match=r"x: train/1\.jpg: no such image in the data") as told:
        images(*FLAT).find(["val/1.jpg", "train/1.jpg"], "x")
    assert told.value.lines[-1] == (
        "x: 1 of 2 images are not in the data; remove them, or evaluate on the split that they are of"
    )


def test_images_taken_by_name_alone_are_told():
    found = images(*FLAT).find(["train/1.jpg", "2.jpg"], "x")
    assert found.positions == [0, 1]
    assert found.remarks == [
        "1 images lie in another folder than predicted and are taken by their names (train/1.jpg = /d/val/1.jpg)"
    ]


def test_strangers_are_named():
    with pytest.raises(DataError, match=r"x: none of its 2 images is in the data: it names 8\.jpg, the data have /d/v"):
        images(*FLAT).find(["8.jpg", "9.jpg"], "x")
    many = [f"{k}.jpg" for k in range(2, 40)]
    with pytest.raises(DataError) as told:
        images(*FLAT).find(many, "x")
    assert len(told.value.lines) == 12
    assert "x: 37 of 38 images are not in the data" in told.value.lines[-1]


def test_the_root_parts_what_lies_deeper(tmp_path):
    ids = [str(picture(tmp_path / "a" / "1.png")), str(picture(tmp_path / "1.png"))]
    assert DataImages(Data(ids), tmp_path).find(["1.png", "a/1.png"], "x").positions == [1, 0]


def test_sizes_come_from_the_head_of_the_file(tmp_path):
    assert images(str(picture(tmp_path / "1.png", (30, 50)))).size(0) == (30, 50)


def test_thousands_of_files_of_one_name_are_found_at_once():
    ids = [f"/d/film{k}/rgb.png" for k in range(6000)]
    known = images(*ids)
    for names in (
        ids,
        [f"film{k}/rgb.png" for k in range(6000)],
        [f"/home/other/film{k}/rgb.png" for k in range(6000)],
    ):
        start = time.process_time()
        assert known.find(names, "x").positions == list(range(6000))
        assert time.process_time() - start < 2
