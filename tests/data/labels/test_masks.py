"""Masks of objects beside pycocotools."""

import cv2
import numpy as np
import pytest
from faster_coco_eval.core import mask as engine
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco
from pycocotools.coco import COCO

from visionkit.core.errors import DataError
from visionkit.data.labels.masks import ObjectMasks, encode_window, place_mask, read_segmentation

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


def blobs(seed, size, count=3, fine=1):
    """Smooth random masks, uint8 [count, H, W]; ``fine`` > 1 makes larger patches."""
    rng = np.random.default_rng(seed)
    coarse = [rng.random([max(1, s // fine) for s in size]).astype(np.float32) for _ in range(count)]
    return np.stack([cv2.resize(c, size[::-1], interpolation=cv2.INTER_CUBIC) > 0.5 for c in coarse]).astype(np.uint8)


def theirs(segmentation, size):
    """What pycocotools makes of an annotation."""
    known = COCO()
    known.imgs = {1: {"height": size[0], "width": size[1]}}
    return known.annToMask({"image_id": 1, "segmentation": segmentation})


def ours(segmentation, size):
    return ObjectMasks((read_segmentation(segmentation, size, "here")[0],), size).dense()[0]


def near(a, b, pixels=1):
    """Say whether two masks differ by no more than a band along their edges."""
    kernel = np.ones((2 * pixels + 1,) * 2, np.uint8)
    outside = (a & ~cv2.dilate(b, kernel)) | (b & ~cv2.dilate(a, kernel))
    return not (outside & 1).any()


class TestReading:
    @settings(max_examples=60)
    @given(
        size=SIZES,
        polygons=st.lists(
            st.lists(st.tuples(*[st.floats(-15, 60)] * 2), min_size=3, max_size=9), min_size=1, max_size=3
        ),
    )
    def test_polygons(self, size, polygons):
        flat = [[v for point in p for v in point] for p in polygons]
        assert np.array_equal(ours(flat, size), theirs(flat, size))
        assert np.array_equal(ours(flat[0], size), theirs([flat[0]], size)), "a single polygon without its list"

    @settings(max_examples=60)
    @given(size=SIZES, seed=st.integers(0, 999), fine=st.integers(1, 9))
    def test_run_lengths(self, size, seed, fine):
        mask = blobs(seed, size, 1, fine)[0]
        packed = coco.encode(np.asfortranarray(mask))
        flat = mask.T.ravel()
        ends = np.flatnonzero(np.diff(flat, prepend=0))
        runs = np.diff([0, *ends, len(flat)]).tolist()
        for counts in (packed["counts"].decode(), runs):
            assert np.array_equal(ours({"size": list(size), "counts": counts}, size), mask)
        assert read_segmentation({"size": list(size), "counts": runs}, size, "here") == (packed["counts"], None)

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (None, "here: has no segmentation; give polygons or run lengths"),
            ([], "here: has no segmentation"),
            ({}, "here: has no segmentation"),
            ("polygon", "here: has no segmentation"),
            ([[1, 2, 3, 4]], "no list of polygons"),
            ([[1, 2, 3, 4, 5, 6, 7]], "no list of polygons"),
            ([[1, 2, 3, 4, 5, "6x"]], "no list of polygons"),
            ([[1, 2, 3, 4, 5, True]], "no list of polygons"),
            ([[1, 2, 3, 4, 5, float("nan")]], "no list of polygons"),
            ([[1, 2, 3, 4, 5, 10**400]], "no list of polygons"),
            ([[1, 2, 3, 4, 5, 1e6]], "no list of polygons"),
            ({"size": [6, 5], "counts": "0n0"}, r"here: segmentation is of size \[6, 5\], the picture \[5, 6\]"),
            ({"counts": "0n0"}, "of size None"),
            ({"size": [5, 6], "counts": [10, 10]}, "do not add up to 5 x 6"),
            ({"size": [5, 6], "counts": [40, -10]}, "do not add up"),
            ({"size": [5, 6], "counts": [15.0, 15]}, "do not add up"),
            ({"size": [5, 6], "counts": "0"}, "do not describe 5 x 6 pixels"),
            ({"size": [5, 6], "counts": "zzz"}, "do not describe"),
            ({"size": [5, 6], "counts": "0n0\x00"}, "do not describe"),
            ({"size": [5, 6], "counts": "0nä"}, "do not describe"),
            ({"size": [5, 6], "counts": None}, "do not describe"),
        ],
    )
    def test_what_is_no_mask(self, value, message):
        with pytest.raises(DataError, match=message) as e:
            read_segmentation(value, (5, 6), "here")
        assert "\n" not in str(e.value)

    @pytest.mark.parametrize("poor", [[50, 40, 51, 41], [1, 2, 3], [], {"counts": "x"}, [1, 2, 3, 4, 5, float("nan")]])
    def test_a_part_that_is_none_costs_its_object_nothing_else(self, poor):
        whole = [8, 6, 28, 6, 28, 22, 8, 22]
        outline, lost = read_segmentation([whole, poor], (48, 64), "here")
        assert ObjectMasks((outline,), (48, 64)).areas().tolist() == [320]
        assert lost == "here: segmentation[1] is no polygon of 3 points or more; left out"
        assert read_segmentation([poor, whole], (48, 64), "here")[1] == lost.replace("[1]", "[0]")
        assert read_segmentation([whole], (48, 64), "here")[1] is None

    @settings(max_examples=200)
    @given(st.text(st.characters(min_codepoint=40, max_codepoint=115), max_size=12))
    def test_text_is_run_lengths_of_this_size_or_refused(self, text):
        try:
            mask = ours({"size": [7, 9], "counts": text}, (7, 9))
        except DataError:
            return
        again = coco.encode(np.asfortranarray(mask))
        assert coco.area(again) == mask.sum()
        assert np.array_equal(coco.decode({"size": [7, 9], "counts": text.encode()}), mask)

    @pytest.mark.parametrize("split", ["instances_train2017.json"])
    def test_real_objects(self, data_root, split):
        known = COCO(str(data_root / "coco128" / "annotations" / split))
        crowds = 0
        for note in known.anns.values():
            image = known.imgs[note["image_id"]]
            size = (image["height"], image["width"])
            assert np.array_equal(ours(note["segmentation"], size), known.annToMask(note))
            crowds += note["iscrowd"]
        assert len(known.anns) > 900
        assert crowds > 5


class TestMasks:
    @settings(max_examples=40)
    @given(size=SIZES, seed=st.integers(0, 999), count=st.integers(0, 4))
    def test_dense_and_back(self, size, seed, count):
        dense = blobs(seed, size, count) if count else np.zeros((0, *size), np.uint8)
        masks = ObjectMasks.from_dense(dense)
        assert (len(masks), masks.size) == (count, size)
        assert np.array_equal(masks.dense(), dense)
        assert masks.dense().dtype == np.uint8
        assert masks.areas().tolist() == dense.sum((1, 2)).tolist()
        for mask, box in zip(dense, masks.boxes(), strict=True):
            expected = np.zeros_like(mask)
            x1, y1, x2, y2 = box.astype(int)
            expected[y1:y2, x1:x2] = 1
            assert not (mask & ~expected & 1).any()
            if mask.any():
                assert mask[y1:y2, x1:x2].any(0)[[0, -1]].all()
                assert mask[y1:y2, x1:x2].any(1)[[0, -1]].all()
            else:
                assert box.tolist() == [0, 0, 0, 0]

    def test_take_join_and_encode(self):
        polygon = (np.array([[1.0, 1], [5, 1], [5, 4]]),)
        masks = ObjectMasks((polygon, ObjectMasks.from_dense(np.ones((1, 6, 8))).outlines[0]), (6, 8))
        encoded = masks.encoded()
        assert all(isinstance(o, bytes) for o in encoded.outlines)
        assert np.array_equal(encoded.dense(), masks.dense())
        assert np.array_equal(masks.select([1, 0, 1]).dense(), masks.dense()[[1, 0, 1]])
        assert len(masks.select([])) == 0
        both = masks.join([masks.select([1]), masks.select([])])
        assert np.array_equal(both.dense(), masks.dense()[[0, 1, 1]])
        assert [r["size"] for r in masks.rles()] == [[6, 8]] * 2

    @settings(max_examples=80)
    @given(size=SIZES, seed=st.integers(0, 999), data=st.data())
    def test_a_window_of_a_picture(self, size, seed, data):
        y1, x1 = (data.draw(st.integers(0, s)) for s in size)
        y2, x2 = data.draw(st.integers(y1, size[0])), data.draw(st.integers(x1, size[1]))
        mask = np.zeros(size, np.uint8)
        kind = data.draw(st.sampled_from(["blobs", "full", "none"]))
        mask[y1:y2, x1:x2] = {"blobs": blobs(seed, size, 1)[0][y1:y2, x1:x2], "full": 1, "none": 0}[kind]
        counts = encode_window(mask[y1:y2, x1:x2] > 0, (y1, x1), size)
        assert counts == coco.encode(np.asfortranarray(mask))["counts"]


class TestPlace:
    @settings(max_examples=40)
    @given(
        seed=st.integers(0, 999),
        scale=st.tuples(st.floats(0.5, 3), st.floats(0.5, 3)),
        offset=st.tuples(st.integers(-40, 40), st.integers(-40, 40)),
        size=st.tuples(st.integers(8, 90), st.integers(8, 90)),
    )
    def test_run_lengths_move_as_a_resized_picture_does(self, seed, scale, offset, size):
        dense = blobs(seed, (48, 60), 2, fine=20)
        placed = ObjectMasks.from_dense(dense).place(scale, offset, size)
        assert placed.size == size
        inner = (round(60 * scale[1]), round(48 * scale[0]))
        for before, after in zip(dense, placed.dense(), strict=True):
            resized = cv2.resize(before * 255, inner, interpolation=cv2.INTER_LINEAR) // 128
            canvas = np.zeros((300, 400), np.uint8)
            canvas[50 + offset[0] :, 50 + offset[1] :][: inner[1], : inner[0]] = resized
            assert near(after, np.ascontiguousarray(canvas[50 : 50 + size[0], 50 : 50 + size[1]]))

    @settings(max_examples=40)
    @given(
        seed=st.integers(0, 999),
        scale=st.tuples(st.floats(0.3, 3), st.floats(0.3, 3)),
        offset=st.tuples(st.integers(-30, 30), st.integers(-30, 30)),
    )
    def test_polygons_move_exactly(self, seed, scale, offset):
        rng = np.random.default_rng(seed)
        points = rng.uniform(0, 60, (5, 2))
        placed = ObjectMasks(((points,),), (60, 60)).place(scale, offset, (100, 120))
        moved = points * scale[::-1] + np.array(offset[::-1])
        assert np.array_equal(placed.dense()[0], theirs([moved.ravel().tolist()], (100, 120)))

    @settings(max_examples=30)
    @given(seed=st.integers(0, 999), corner=st.tuples(st.integers(0, 40), st.integers(0, 40)), polygon=st.booleans())
    def test_cut_then_pasted(self, seed, corner, polygon):
        (y, x), edge = corner, 20
        if polygon:
            masks = ObjectMasks(((np.random.default_rng(seed).uniform(0, 60, (6, 2)),),), (60, 60))
        else:
            masks = ObjectMasks.from_dense(blobs(seed, (60, 60), 1, fine=7))
        cut = masks.place((1, 1), (-y, -x), (edge, edge)).place((1, 1), (y, x), (60, 60)).dense()[0]
        window = np.zeros((60, 60), np.uint8)
        window[y : y + edge, x : x + edge] = 1
        expected = masks.dense()[0] & window
        if polygon:  # COCO rounds coordinates below zero the other way: pixels along the outline may differ
            outline = np.round(masks.outlines[0][0] - 0.5).astype(np.int32)
            band = cv2.polylines(np.zeros((60, 60), np.uint8), [outline], True, 1, thickness=3)
            assert not ((cut ^ expected) & ~band & 1).any()
        else:
            assert np.array_equal(cut, expected)
        assert not (cut & ~window & 1).any()

    def test_nothing_stays_nothing(self):
        assert ObjectMasks((), (10, 10)).place((2, 2), (0, 0), (20, 20)) == ObjectMasks((), (20, 20))
        gone = ObjectMasks.from_dense(np.ones((1, 10, 10))).place((1, 1), (50, 0), (20, 20))
        assert gone.areas().tolist() == [0]

    @pytest.mark.parametrize("average", [True, False])
    def test_one_mask_fills_the_rest(self, average):
        mask = np.full((4, 6), 9, np.uint8)
        placed = place_mask(mask, (2, 0.5), (1, 2), (10, 8), fill=255, average=average)
        assert (placed[1:9, 2:5] == 9).all()
        assert (placed == 255).sum() == 80 - 24
        assert (place_mask(mask, (1, 1), (40, 0), (10, 8), fill=7) == 7).all()


@pytest.mark.parametrize(
    "polygon", [[v for i in range(500) for v in ((-131072, i) if i % 2 else (131072, i))], [0, 0, 131072, 0, 0, 131072]]
)
def test_a_polygon_that_reaches_far_out_takes_no_more_memory_than_its_picture(polygon, monkeypatch):
    edges = [0.0]
    rasterise = engine.frPyObjects

    def watched(given, *size):
        if isinstance(given, list):
            edges.extend(np.abs(np.diff(np.reshape(p, (-1, 2)), axis=0)).max(1).sum() for p in given)
        return rasterise(given, *size)

    monkeypatch.setattr(engine, "frPyObjects", watched)
    masks = ObjectMasks((read_segmentation([polygon], (64, 48), "here")[0],), (64, 48))
    masks.areas()
    masks.place((100.0, 100.0), (0, 0), (640, 480)).areas()
    assert max(edges) <= 2**20  # COCO's rasteriser takes a hundred bytes for each pixel of its edges


@settings(max_examples=100)
@given(SIZES, st.integers(0, 2**32 - 1), st.integers(3, 8), st.sampled_from([2, 100, 1000]))
def test_of_a_polygon_that_reaches_far_out_the_picture_shows_what_pycocotools_shows(size, seed, corners, far):
    rng = np.random.default_rng(seed)
    polygon = (rng.uniform(-far, far + 1, (corners, 2)) * max(size)).flatten().tolist()
    assert near(ours([polygon], size), theirs([polygon], size))


def test_an_outline_longer_than_any_object_is_filled_in_the_memory_of_its_picture(monkeypatch):
    monkeypatch.setattr("visionkit.data.labels.masks.MAX_LENGTH", 10.0)
    found = ours([[8, 6, 28, 6, 28, 22, 8, 22], [20, 10, 40, 10, 40, 30, 20, 30]], (40, 60))
    expected = theirs([[8, 6, 28, 6, 28, 22, 8, 22], [20, 10, 40, 10, 40, 30, 20, 30]], (40, 60))
    assert near(found, expected)
    assert found[12:20, 12:36].all()  # where two parts overlap they do not cancel out
