import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from visionkit.core.errors import DataError
from visionkit.tasks.detection.readers.box_cleaning import RawBox, clean
from visionkit.tasks.detection.readers.reader import BoxDataset, BoxEntry, make_entry

CLASSES = ("cat", "dog")


def raw(*box, label=0, line=1, **more):
    return RawBox(tuple(map(float, box)), label, f"a.xml:{line}", **more)


def picture(path, width=40, height=30, **save):
    Image.new("RGB", (width, height)).save(path, **save)
    return str(path)


def rotated(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


# --- what becomes of a box


@pytest.mark.parametrize(
    ("box", "left", "text"),
    [
        ((1, 2, 3, 4), (1, 2, 3, 4), None),
        ((-1, -0.5, 41, 31), (0, 0, 40, 30), None),  # a pixel outside is how formats count
        ((-1.5, 2, 3, 4), (0, 2, 3, 4), "cat box -1.5, 2, 3, 4 reaches out of the picture of 40 x 30; clipped to 0, 2, 3, 4"),
        ((1, 2, 3, 34), (1, 2, 3, 30), "cat box 1, 2, 3, 34 reaches out of the picture of 40 x 30; clipped to 1, 2, 3, 30"),
        ((5, 5, 5, 5), None, "cat box 5, 5, 5, 5 has no area; dropped"),
        ((5, 5, 4, 9), None, "cat box 5, 5, 4, 9 has no area; dropped"),
        ((40, 2, 44, 4), None, "cat box 40, 2, 44, 4 lies outside of the picture of 40 x 30; dropped"),
        ((-9, 2, -4, 4), None, "cat box -9, 2, -4, 4 lies outside of the picture of 40 x 30; dropped"),
        ((1, 2, 1.0005, 4), None, "cat box 1, 2, 1.0005, 4 is too thin; dropped"),
        ((math.nan, 2, 3, 4), None, "cat box nan, 2, 3, 4 has a coordinate that is no finite number; dropped"),
        ((1, 2, math.inf, 4), None, "cat box 1, 2, inf, 4 has a coordinate that is no finite number; dropped"),
    ],
)  # fmt: skip
def test_each_way_to_be_wrong(box, left, text):
    rows, corrections, _ = clean([raw(7, 7, 9, 9, line=1), raw(*box, line=12)], (30, 40), CLASSES)
    assert rows[0].tolist() == [7, 7, 9, 9, 0, 0, 4]
    assert [tuple(r) for r in rows[1:, :4].tolist()] == ([] if left is None else [left])
    assert [c.text for c in corrections] == ([] if text is None else [f"a.xml:12: {text}"])
    assert [c.dropped for c in corrections] == ([] if text is None else [left is None])


@given(
    boxes=st.lists(st.tuples(*[st.floats(width=64)] * 4), max_size=6),
    size=st.none() | st.tuples(st.integers(1, 20_000), st.integers(1, 20_000)),
    area=st.none() | st.floats(),
)
@example(boxes=[(0.0, 0.0, 1e300, 1e300)], size=None, area=1e300)
@example(boxes=[(19_999.0, 0.0, 19_999.0015, 5.0)], size=(20_000, 20_000), area=1e-50)  # float32 rounds it away
def test_no_box_ever_comes_out_wrong(boxes, size, area):
    rows, corrections, _ = clean([raw(*b, area=area, crowd=True) for b in boxes], size, CLASSES)
    real = size or (480, 640)
    entry = BoxEntry("a.png", "a.png", rows, (), size)
    target = entry.target(real)
    x1, y1, x2, y2 = target.boxes.double().unbind(1)
    assert ((x1 >= 0) & (y1 >= 0) & (x2 <= real[1]) & (y2 <= real[0])).all()
    assert (x2 - x1 > 0).all()
    assert (y2 - y1 > 0).all()
    assert ((target.areas > 0) & target.areas.isfinite()).all()
    assert target.crowd.all()
    assert len(rows) + sum(c.dropped for c in corrections) == len(boxes)
    assert all(c.text.startswith("a.xml:1: cat box ") for c in corrections)


@given(
    boxes=st.lists(st.tuples(*[st.floats(-0.5, 1.5)] * 4), max_size=6),
    size=st.tuples(st.integers(1, 20_000), st.integers(1, 20_000)),
)
def test_boxes_in_shares_of_an_unknown_picture_are_put_right_when_it_is_read(boxes, size):
    rows, *_ = clean([raw(*b) for b in boxes], (1, 1), CLASSES, tolerance=0, thinnest=0)
    target = BoxEntry("a.png", "a.png", rows, (), relative=True).target(size)
    x1, y1, x2, y2 = target.boxes.double().unbind(1)
    assert ((x1 >= 0) & (y1 >= 0) & (x2 <= size[1]) & (y2 <= size[0]) & (x1 < x2) & (y1 < y2)).all()
    assert (target.areas > 0).all()


def test_area_is_that_of_the_file_or_of_the_box():
    areas = [None, 5.0, math.nan, math.inf, 0.0, -3.0]
    rows, *_ = clean([raw(0, 0, 4, 3, area=a) for a in areas], (30, 40), CLASSES)
    assert rows[:, 6].tolist() == [12, 5, 12, 12, 12, 12]


# --- the data set


def test_samples_and_subsets(tmp_path):
    names = [picture(tmp_path / f"{i}.png") for i in range(3)]
    boxes = [
        [raw(1, 2, 3, 4, label=1), raw(5, 5, 9, 9, label=0, crowd=True), raw(5, 5, 5, 9, line=7)],
        [],
        [raw(0, 0, 40, 30, label=1), raw(0, 0, 4, 30, label=0), raw(-8, 0, 4, 30, label=0, line=9)],
    ]
    entries = [
        make_entry(n, f"k{i}", b, CLASSES, size=(30, 40), source="a.xml", extra={"image_id": i})
        for i, (n, b) in enumerate(zip(names, boxes, strict=True))
    ]
    data = BoxDataset(entries, CLASSES)
    assert data.labels == [(1,), (), (0, 1)]
    assert data.problems == [
        "a.xml:7: cat box 5, 5, 5, 9 has no area; dropped",
        "a.xml:9: cat box -8, 0, 4, 30 reaches out of the picture of 40 x 30; clipped to 0, 0, 4, 30",
    ]
    assert [str(f) for f in data.files()] == data.ids == names
    sample = data[0]
    assert sample.image.shape == (3, 30, 40)
    assert sample.image.dtype == torch.uint8
    assert sample.info.size == (30, 40)
    assert sample.info.extra == {"image_id": 0}
    assert sample.target.boxes.tolist() == [[1, 2, 3, 4], [5, 5, 9, 9]]
    assert sample.target.labels.tolist() == [1, 0]
    assert sample.target.crowd.tolist() == [False, True]
    assert sample.target.areas.tolist() == [4, 16]
    assert len(data[1].target) == 0
    part = pickle.loads(pickle.dumps(data)).subset([2, 1])
    assert (part.ids, part.labels, part.problems) == (names[:0:-1], [(0, 1), ()], data.problems[1:])
    assert part.classes == CLASSES
    assert BoxDataset(entries, CLASSES, channels=1)[0].image.shape == (1, 30, 40)


def test_a_target_is_no_window_into_the_data_set(tmp_path):
    entry = make_entry(picture(tmp_path / "a.png"), "a", [raw(1, 2, 3, 4)], CLASSES, size=(30, 40), source="a.xml")
    data = BoxDataset([entry], CLASSES)
    data[0].target.boxes.zero_()
    assert data[0].target.boxes.tolist() == [[1, 2, 3, 4]]


def test_a_picture_of_another_size_than_labelled(tmp_path):
    name = picture(tmp_path / "a.png")
    data = BoxDataset([make_entry(name, "a", [], CLASSES, size=(60, 80), source="a.xml")], CLASSES)
    with pytest.raises(DataError) as e:
        data[0]
    assert str(e.value) == (
        f"{name}: is 40 x 30 pixels, but a.xml says 80 x 60: its labels belong to another picture or size; put back the "
        "original picture or label it anew"
    )
    turned = BoxDataset([make_entry(name, "a", [], CLASSES, size=(40, 30), source="a.xml")], CLASSES)
    with pytest.raises(DataError, match=r"is 40 x 30 pixels, but a\.xml says 30 x 40: its labels belong to another"):
        turned[0]


def test_a_picture_that_was_labelled_before_exif_turned_it(tmp_path):
    name = picture(tmp_path / "a.jpg", exif=rotated(6))
    stored = BoxDataset([make_entry(name, "a", [], CLASSES, size=(30, 40), source="a.xml")], CLASSES)
    with pytest.raises(
        DataError, match=r"a\.jpg: is 30 x 40 pixels, but a\.xml says 40 x 30: .*before its EXIF orient"
    ):
        stored[0]
    upright = BoxDataset([make_entry(name, "a", [], CLASSES, size=(40, 30), source="a.xml")], CLASSES)
    assert upright[0].info.size == (40, 30)


def test_boxes_without_a_size_take_it_from_the_head_of_the_file(tmp_path):
    name = picture(tmp_path / "a.png")
    data = BoxDataset([make_entry(name, "a", [raw(1, 2, 90, 20, line=4)], CLASSES, size=None, source="a.xml")], CLASSES)
    assert data.problems == [
        "a.xml:4: cat box 1, 2, 90, 20 reaches out of the picture of 40 x 30; clipped to 1, 2, 40, 20"
    ]
    assert data[0].target.boxes.tolist() == [[1, 2, 40, 20]]
    assert data[0].target.areas.tolist() == [39 * 18]


def test_boxes_of_pictures_whose_head_says_nothing_are_put_right_when_read(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((30, 40, 5), np.uint8))
    boxes = [raw(1, 2, 90, 20), raw(50, 2, 90, 20), raw(1, 2, 3, 4, area=3.0), raw(5, 5, 5, 9, line=3)]
    entry = make_entry(str(tmp_path / "a.npy"), "a", boxes, CLASSES, size=None, source="a.xml")
    data = BoxDataset([entry], CLASSES, channels=5)
    assert data.problems == ["a.xml:3: cat box 5, 5, 5, 9 has no area; dropped"]
    assert data[0].target.boxes.tolist() == [[1, 2, 40, 20], [1, 2, 3, 4]]
    assert data[0].target.areas.tolist() == [39 * 18, 3]
