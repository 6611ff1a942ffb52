from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visionkit import DataError, ImageInfo
from visionkit.data.labels.masks import ObjectMasks
from visionkit.tasks.detection.types import BOX_COLUMNS, DRAWN_SCORE, BoxPrediction, BoxTarget

NAMES = ("cat", "dog")


def prediction():
    return BoxPrediction(
        torch.tensor([[1.0, 2, 11, 22], [30, 30, 60, 50], [5, 5, 9, 9]]),
        torch.tensor([0.9, 0.3, 0.2]),
        torch.tensor([1, 0, 1]),
        (60, 80),
    )


class TestTarget:
    def test_made_from_lists(self):
        t = BoxTarget.make([[0, 0, 4, 5], [1, 1, 3, 2]], [1, 0], crowd=[False, True])
        assert (t.boxes.dtype, t.labels.dtype, t.crowd.dtype) == (torch.float32, torch.int64, torch.bool)
        assert t.areas.tolist() == [20, 2]
        assert BoxTarget.make([[0, 0, 4, 5]], [1], areas=[7]).areas.tolist() == [7]
        assert len(t) == 2
        empty = BoxTarget.make([], [])
        assert (len(empty), empty.boxes.shape) == (0, (0, 4))

    @pytest.mark.parametrize(
        ("boxes", "labels", "crowd", "areas"),
        [((2, 4), 1, 1, 1), ((1, 3), 1, 1, 1), ((1, 4), 1, 2, 1), ((1, 4), 1, 1, 2)],
    )
    def test_shapes_that_disagree(self, boxes, labels, crowd, areas):
        with pytest.raises(DataError, match="must be"):
            BoxTarget(torch.zeros(boxes), torch.zeros(labels).long(), torch.zeros(crowd).bool(), torch.zeros(areas))

    @settings(max_examples=50)
    @given(
        scale=st.tuples(st.floats(0.2, 4), st.floats(0.2, 4)), offset=st.tuples(st.integers(0, 90), st.integers(0, 90))
    )
    def test_placed_and_brought_back(self, scale, offset):
        truth = BoxTarget.make([[10.0, 20, 50, 90], [0, 0, 100, 120]], [0, 1])
        size = (round(120 * scale[0]) + offset[0] + 1, round(100 * scale[1]) + offset[1] + 1)
        placed = truth.place(scale, offset, size)
        assert len(placed) == 2
        assert not placed.crowd.any()
        info = ImageInfo("a", (120, 100), scale, offset)
        assert placed.restore(info) is truth, "the truth of the original, exactly"
        found = BoxPrediction(placed.boxes, torch.tensor([0.9, 0.8]), placed.labels).restore(info)
        torch.testing.assert_close(found.boxes, truth.boxes, atol=1e-2, rtol=0)
        assert found.size == (120, 100)

    def test_two_steps_are_one(self):
        truth = BoxTarget.make([[10.0, 20, 50, 90]], [0])
        twice = truth.place((2, 3), (0, 0), (400, 400)).place((1, 1), (5, -6), (400, 400))
        assert twice.boxes.tolist() == [[24, 45, 144, 185]]
        assert twice.restore(ImageInfo("a", (1, 1))) is truth

    def test_less_than_a_quarter_is_a_crowd(self):
        truth = BoxTarget.make([[0.0, 0, 40, 10], [0, 20, 40, 30], [0, 0, 20, 10]], [0, 1, 0])
        placed = truth.place((1, 1), (0, -29), (50, 100))  # a column of 11, 11 and -9 pixels is left
        assert placed.boxes.tolist() == [[0, 0, 11, 10], [0, 20, 11, 30]]
        assert placed.crowd.tolist() == [False, False]
        placed = truth.place((1, 1), (0, -31), (50, 100))
        assert placed.crowd.tolist() == [True, True]
        assert placed.labels.tolist() == [0, 1]
        assert placed.areas.tolist() == [400, 400], "those of the originals"
        assert len(placed.restore(ImageInfo("a", (50, 40)))) == 3

    def test_thinner_than_a_pixel_is_dropped(self):
        placed = BoxTarget.make([[0.0, 0, 9, 40], [0, 0, 10, 40]], [0, 1]).place((0.1, 0.1), (0, 0), (10, 10))
        assert placed.labels.tolist() == [1]

    def test_through_albumentations_and_back(self):
        truth = BoxTarget.make([[0.0, 0, 9, 40], [0, 0, 10, 40], [5, 5, 8, 8]], [0, 1, 2], crowd=[0, 0, 1])
        arrays = truth.arrays()
        assert arrays["bboxes"].shape == (3, 4)
        arrays = {"bboxes": arrays["bboxes"][[2, 0]] + 4, "box_index": arrays["box_index"][[2, 0]]}
        changed = truth.with_arrays(arrays, (20, 20))
        assert changed.labels.tolist() == [2, 0]
        assert changed.crowd.tolist() == [True, False]
        assert changed.boxes.tolist() == [[9, 9, 12, 12], [4, 4, 13, 20]]
        assert changed.restore(ImageInfo("a", (20, 20))) is changed
        assert len(truth.with_arrays({"bboxes": [], "box_index": []}, (20, 20))) == 0


class TestPrediction:
    def test_what_lies_outside_of_the_picture_is_cut_off_or_dropped(self):
        found = BoxPrediction(
            torch.tensor([[0.0, 0, 30, 30], [90, 90, 120, 120]]), torch.tensor([0.9, 0.8]), torch.tensor([1, 0])
        ).restore(ImageInfo("a", (40, 50), (2.0, 2.0), (10, 4)))
        assert found.boxes.tolist() == [[0, 0, 13, 10], [43, 40, 50, 40]][:1]
        assert (found.labels.tolist(), found.size) == ([1], (40, 50))

    def test_record(self):
        record = prediction().record(NAMES)
        assert (record["width"], record["height"]) == (80, 60)
        assert [o["label"] for o in record["objects"]] == ["dog", "cat", "dog"]
        assert record["objects"][0] == {"label": "dog", "score": torch.tensor(0.9).item(), "box": [1, 2, 11, 22]}

    def test_a_row_an_object(self):
        rows = prediction().rows(NAMES)
        assert len(rows) == 3
        assert tuple(rows[0]) == BOX_COLUMNS
        assert list(rows[1].values()) == ["cat", torch.tensor(0.3).item(), 30, 30, 60, 50, 80, 60]
        assert prediction().at_least(1).rows(NAMES) == []

    def test_at_least_a_score(self):
        kept = prediction().at_least(0.3)
        assert kept.scores.tolist() == pytest.approx([0.9, 0.3])
        assert (kept.labels.tolist(), len(kept.boxes), kept.size) == ([1, 0], 2, (60, 80))

    def test_classes_without_a_threshold_are_drawn_as_they_would_be_without_any(self):
        boxes = torch.tensor([[0.0, 0, 10, 10]] * 3 + [[30, 30, 50, 50]])
        found = BoxPrediction(boxes, torch.tensor([0.9, 0.5, 0.2, 0.05]), torch.tensor([0, 0, 1, 0]), (60, 80))
        some = found.over({"dog": 0.1}, NAMES)
        assert NAMES[1] == "dog"
        assert some.scores.tolist() == found.scores.tolist(), "a class that is not named keeps all"
        shown = some.at_least(some.drawn)
        assert shown.scores.tolist() == pytest.approx([0.9, 0.5, 0.2])
        assert some.select_classes(NAMES, ["dog"]).drawn.tolist() == [0.0]
        image = torch.full((3, 60, 80), 128, dtype=torch.uint8)
        picture = some.draw(image, NAMES)
        assert torch.equal(picture, shown.draw(image, NAMES))
        assert (picture[:, 30, 30:50] == 128).all()

    def test_weak_boxes_are_not_drawn(self):
        image = torch.full((3, 60, 80), 128, dtype=torch.uint8)
        picture = prediction().draw(image, NAMES)
        assert DRAWN_SCORE == 0.3
        assert (picture[:, 2, 1:11] != 128).any()
        assert (picture[:, 30, 30:60] != 128).any(), "the threshold itself counts"
        assert (picture[:, 5, 5:9] == 128).all()
        assert (image == 128).all()


def test_target_is_drawn_with_its_masks_the_smaller_objects_on_top(monkeypatch):
    calls = []
    monkeypatch.setattr("visionkit.prediction.draw.draw_boxes", lambda image, *rest: calls.append(rest) or image)
    monkeypatch.setattr("visionkit.prediction.draw.draw_masks", lambda image, *rest: calls.append(rest) or image)
    image = torch.zeros(3, 50, 50, dtype=torch.uint8)
    target = BoxTarget.make([[0, 0, 40, 40], [10, 10, 20, 20]], [0, 1], [True, False])
    target.draw(image, ["cat", "dog"])
    ((boxes, labels, texts),) = calls
    assert boxes.tolist() == [[10, 10, 20, 20], [0, 0, 40, 40]]
    assert labels.tolist() == [1, 0]
    assert texts == ["dog", "cat (ignored)"]
    dense = np.zeros((2, 50, 50), np.uint8)
    dense[0, :40, :40] = dense[1, 10:20, 10:20] = 1
    replace(target, masks=ObjectMasks.from_dense(dense)).draw(image, ["cat", "dog"])
    assert calls[1][0].areas().tolist() == [100, 1600]
