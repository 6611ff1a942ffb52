"""Boxes of several views put together: by hand, and what a perfect detector sees through windows."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visionkit import BoxPrediction, InstancePrediction, Views
from visionkit.models.ops.nms import suppress
from visionkit.tasks.detection.merging import merge_boxes

SIZE = (100, 200)
WHOLE = (0, 0, *SIZE)
LEFT, RIGHT = (0, 0, 100, 120), (0, 80, 100, 200)  # they share x = 80..120


def found(*objects, size=SIZE):
    """Return a prediction of objects (x1, y1, x2, y2, score, label)."""
    rows = torch.tensor([o[:4] for o in objects], dtype=torch.float32).reshape(-1, 4)
    scores = torch.tensor([o[4] for o in objects], dtype=torch.float32).reshape(-1)
    return BoxPrediction(rows, scores, torch.tensor([o[5] for o in objects], dtype=torch.int64), size)


def merged(*pairs):
    whole = BoxPrediction.merge([p for p, _ in pairs], [r for _, r in pairs])
    rows = zip(whole.boxes.tolist(), whole.scores.tolist(), whole.labels.tolist(), strict=True)
    return [(*(round(v, 4) for v in box), round(score, 4), label) for box, score, label in rows]


class TestWholePictures:
    def test_boxes_are_weighted_by_score_and_scores_are_shared_by_all_views(self):
        a = found((10, 10, 50, 50, 0.9, 1))
        b = found((14, 10, 54, 50, 0.3, 1))
        assert merged((a, WHOLE), (b, WHOLE)) == [(11, 10, 51, 50, 0.6, 1)]
        assert merged((a, WHOLE), (b, WHOLE), (found(), WHOLE)) == [(11, 10, 51, 50, 0.4, 1)], "one does not see it"

    def test_weak_neighbours_of_one_view_do_not_pull(self):
        """What ruins fusion that takes all: the others of the same view stand alone, as weak as they are."""
        a = found((10, 10, 50, 50, 0.9, 0), (14, 12, 58, 54, 0.1, 0))
        b = found((10, 10, 50, 50, 0.8, 0))
        assert merged((a, WHOLE), (b, WHOLE)) == [(10, 10, 50, 50, 0.85, 0), (14, 12, 58, 54, 0.05, 0)]

    def test_the_best_of_a_view_belongs_to_an_object(self):
        a = found((10, 10, 50, 50, 0.6, 0))
        b = found((12, 10, 52, 50, 0.5, 0), (10, 10, 50, 50, 0.9, 0))
        assert merged((a, WHOLE), (b, WHOLE)) == [(10, 10, 50, 50, 0.75, 0), (12, 10, 52, 50, 0.25, 0)]

    def test_classes_and_places_apart(self):
        a = found((10, 10, 50, 50, 0.9, 0), (60, 10, 90, 50, 0.8, 0))
        b = found((10, 10, 50, 50, 0.7, 1), (63, 10, 140, 50, 0.6, 0))
        assert [row[4] for row in merged((a, WHOLE), (b, WHOLE))] == [0.45, 0.4, 0.35, 0.3]

    def test_models_count_by_their_shares(self):
        a = found((10, 10, 50, 50, 0.9, 0), (60, 10, 90, 50, 0.4, 1))
        b = found((14, 10, 54, 50, 0.3, 0), (60, 10, 90, 50, 0.8, 1))
        shares = torch.tensor([[0.75, 0.0], [0.25, 1.0]])  # the first does not know class 1
        boxes, scores, labels = ([getattr(p, name) for p in (a, b)] for name in ("boxes", "scores", "labels"))
        first, second = merge_boxes(boxes, scores, labels, [WHOLE, WHOLE], shares)
        assert (first.label, first.score, first.members) == (1, pytest.approx(0.8), [(1, 1)])
        assert (second.label, second.score) == (0, pytest.approx(0.75 * 0.9 + 0.25 * 0.3))
        assert second.box == pytest.approx([10.4, 10, 50.4, 50])
        equal = merge_boxes(boxes, scores, labels, [WHOLE, WHOLE], torch.ones(2, 2))
        assert equal == merge_boxes(boxes, scores, labels, [WHOLE, WHOLE])

    def test_no_objects(self):
        assert merged((found(), WHOLE)) == merged((found(), WHOLE), (found(), WHOLE)) == []

    def test_scores_of_nothing(self):
        assert merged((found((1, 1, 9, 9, 0.0, 0)), WHOLE), (found((1, 1, 9, 9, 0.0, 0)), WHOLE)) == [
            (1, 1, 9, 9, 0, 0)
        ]


class TestWindows:
    def test_an_object_across_a_seam_is_one(self):
        a, b = found((60, 20, 120, 60, 0.9, 0)), found((80, 22, 140, 60, 0.7, 0))
        assert merged((a, LEFT), (b, RIGHT)) == [(60, 20, 140, 60, 0.8, 0)]

    def test_a_box_that_ends_near_the_edge_is_cut_too(self):
        a, b = found((60, 20, 118.5, 60, 0.9, 0)), found((83, 20, 140, 60, 0.7, 0))
        assert merged((a, LEFT), (b, RIGHT)) == [(60, 20, 140, 60, 0.8, 0)]

    def test_what_reaches_over_the_edge_ends_there(self):
        a, b = found((60, 20, 131, 60, 0.9, 0)), found((71, 20, 140, 60, 0.7, 0))
        assert merged((a, LEFT), (b, RIGHT)) == [(60, 20, 140, 60, 0.8, 0)]

    def test_the_window_that_sees_more_says_how_sure_it_is(self):
        a, b = found((60, 20, 120, 60, 0.9, 0)), found((80, 20, 180, 60, 0.7, 0))
        assert merged((a, LEFT), (b, RIGHT)) == [(60, 20, 180, 60, 0.7, 0)]

    def test_the_whole_view_wins_over_its_fragment(self):
        a, b = found((100, 20, 120, 55, 0.4, 0)), found((98, 20, 150, 60, 0.9, 0))
        assert merged((a, LEFT), (b, RIGHT)) == [(98, 20, 150, 60, 0.9, 0)]

    def test_both_see_it_whole(self):
        a, b = found((90, 20, 110, 60, 0.9, 0)), found((92, 20, 112, 60, 0.3, 0))
        assert merged((a, LEFT), (b, RIGHT)) == [(90.5, 20, 110.5, 60, 0.6, 0)]
        assert merged((a, LEFT), (found(), RIGHT)) == [(90, 20, 110, 60, 0.45, 0)], "it was seen there and not found"

    def test_a_window_elsewhere_does_not_count(self):
        a = found((10, 20, 40, 60, 0.9, 0))
        assert merged((a, LEFT), (found(), RIGHT)) == [(10, 20, 40, 60, 0.9, 0)]

    def test_a_window_that_sees_a_small_part_does_not_count(self):
        a = found((20, 20, 90, 60, 0.9, 0))
        assert merged((a, LEFT), (found(), RIGHT)) == [(20, 20, 90, 60, 0.9, 0)]

    def test_two_objects_that_touch_in_what_both_see_stay_two(self):
        a = found((60, 20, 100, 60, 0.9, 0), (100, 20, 120, 60, 0.5, 0))
        b = found((80, 20, 100, 60, 0.4, 0), (100, 20, 140, 60, 0.8, 0))
        assert merged((a, LEFT), (b, RIGHT)) == [(60, 20, 100, 60, 0.9, 0), (100, 20, 140, 60, 0.8, 0)]

    def test_other_classes_are_other_objects(self):
        a, b = found((60, 20, 120, 60, 0.9, 0)), found((80, 20, 150, 60, 0.7, 1))
        assert merged((a, LEFT), (b, RIGHT)) == [(60, 20, 120, 60, 0.9, 0), (80, 20, 150, 60, 0.7, 1)]

    def test_other_heights_are_other_objects(self):
        a, b = found((60, 5, 120, 30, 0.9, 0)), found((80, 25, 150, 60, 0.7, 0))
        assert len(merged((a, LEFT), (b, RIGHT))) == 2

    def test_without_overlap_the_length_along_the_seam_decides(self):
        left, right = (0, 0, 100, 100), (0, 100, 100, 200)
        a, b = found((60, 20, 100, 60, 0.9, 0)), found((100, 22, 140, 60, 0.7, 0))
        assert merged((a, left), (b, right)) == [(60, 20, 140, 60, 0.8, 0)]
        assert len(merged((a, left), (found((100, 45, 150, 90, 0.7, 0)), right))) == 2
        assert len(merged((a, left), (found((110, 20, 150, 60, 0.7, 0)), right))) == 2, "it does not reach the seam"

    def test_the_edge_of_the_picture_cuts_nothing(self):
        a, b = found((0, 20, 30, 100, 0.9, 0)), found((0, 20, 34, 100, 0.3, 0))
        assert merged((a, LEFT), (b, LEFT)) == [(0, 20, 31, 100, 0.6, 0)]

    def test_an_object_larger_than_a_window_goes_from_part_to_part(self):
        regions = Views(window=80).regions(SIZE)
        truth = torch.tensor([10.0, 15, 190, 95])
        parts = [seen(truth[None], r, [0.5]) for r in regions]
        ((*box, score, label),) = merged(*zip(parts, regions, strict=True))
        assert (box, score, label) == (truth.tolist(), 0.5, 0)

    def test_what_soft_suppression_leaves_of_a_part_is_no_object(self):
        candidates = found((60, 20, 120, 60, 0.9, 0), (64, 23, 120, 62, 0.7, 0), (60, 17, 118, 57, 0.6, 0))
        parts = (candidates.boxes, candidates.scores, candidates.labels)
        kept, values = suppress(*parts, kind="soft", min_score=0.05)
        a = BoxPrediction(candidates.boxes[kept], values, candidates.labels[kept], SIZE)
        assert len(values) == 3, "their scores are lowered, and they stay"
        b = found((80, 20, 140, 60, 0.7, 0))
        for parts in (((a, LEFT), (b, RIGHT)), ((b, RIGHT), (a, LEFT))):
            assert merged(*parts) == [(60, 20, 140, 60, 0.8, 0)]
        whole = found((60, 20, 110, 60, 0.9, 0), (64, 23, 108, 62, 0.3, 0))
        assert len(merged((whole, LEFT))) == 2, "no edge is near: they stay as they are without windows"

    def test_two_cut_objects_in_a_crowd_stay_two(self):
        a = found((60, 20, 120, 60, 0.9, 0), (60, 42, 120, 82, 0.5, 0))
        b = found((80, 20, 140, 60, 0.7, 0), (80, 42, 140, 82, 0.6, 0))
        assert len(merged((a, LEFT), (b, RIGHT))) == 2
        assert len(merged((a, LEFT), (found((80, 20, 140, 60, 0.7, 0)), RIGHT))) == 2, "one window saw it alone"

    def test_mirrored_windows(self):
        a, b = found((60, 20, 120, 60, 0.9, 0)), found((80, 20, 140, 60, 0.7, 0))
        again = found((60, 20, 120, 60, 0.5, 0))
        assert merged((a, LEFT), (again, LEFT), (b, RIGHT), (found(), RIGHT)) == [(60, 20, 140, 60, 0.525, 0)]


def seen(boxes, region, scores, labels=None):
    """Return what a perfect detector says of a window."""
    top, left, bottom, right = region
    inside = torch.stack([
        boxes[:, 0].clamp(left, right), boxes[:, 1].clamp(top, bottom),
        boxes[:, 2].clamp(left, right), boxes[:, 3].clamp(top, bottom),
    ], 1)  # fmt: skip
    shown = ((inside[:, 2:] - inside[:, :2]) >= 1).all(1)
    labels = torch.zeros(len(boxes), dtype=torch.int64) if labels is None else labels
    values = torch.as_tensor(scores, dtype=torch.float32)
    order = values[shown].argsort(descending=True)
    return BoxPrediction(inside[shown][order], values[shown][order], labels[shown][order], SIZE)


def scattered(rng, size, count):
    """Return boxes, 8 to 120 pixels a side, that do not overlap."""
    kept = []
    for _ in range(count):
        sides = rng.integers(8, 121, 2)
        corner = rng.integers(0, np.maximum(1, np.array(size[::-1]) - sides))
        box = [*corner, *np.minimum(corner + sides, size[::-1])]
        if all(box[0] >= b[2] or b[0] >= box[2] or box[1] >= b[3] or b[1] >= box[3] for b in kept):
            kept.append(box)
    return torch.tensor(kept, dtype=torch.float32).reshape(-1, 4)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**20),
    size=st.tuples(st.integers(60, 300), st.integers(60, 300)),
    window=st.integers(60, 150),
    overlap=st.floats(0.35, 0.6),
    flip=st.booleans(),
)
def test_a_perfect_detector_sees_through_windows_what_there_is(seed, size, window, overlap, flip):
    rng = np.random.default_rng(seed)
    truth = scattered(rng, size, 12)
    labels = torch.from_numpy(rng.integers(0, 2, len(truth)))
    scores = torch.from_numpy(rng.permutation(np.linspace(0.1, 0.9, len(truth))).astype(np.float32))
    views = Views(flip=flip, window=window, overlap=overlap)
    regions = [r for r in views.regions(size) for _ in range(1 + flip)]
    parts = [seen(truth, r, scores, labels) for r in regions]
    whole = BoxPrediction.merge(parts, regions)
    order = scores.argsort(descending=True)
    torch.testing.assert_close(whole.boxes, truth[order], atol=1e-3, rtol=0)
    assert torch.equal(whole.labels, labels[order])
    torch.testing.assert_close(whole.scores, scores[order])
    back = BoxPrediction.merge(parts[::-1], regions[::-1])
    torch.testing.assert_close((back.boxes, back.scores), (whole.boxes, whole.scores))


@settings(max_examples=40)
@given(seed=st.integers(0, 2**20), views=st.integers(1, 4), noise=st.floats(0, 4))
def test_rules_of_whole_views(seed, views, noise):
    """Whatever is found: at most one box a view in an object, no box lost, scores between nothing and the best."""
    g = torch.Generator().manual_seed(seed)
    corner = torch.rand(15, 2, generator=g) * 70
    base = torch.cat([corner, corner + 5 + torch.rand(15, 2, generator=g) * 60], 1)
    boxes = [base + noise * torch.randn(base.shape, generator=g) for _ in range(views)]
    boxes = [torch.cat([b[:, :2].minimum(b[:, 2:] - 1), b[:, 2:]], 1).clamp(0, 150) for b in boxes]
    scores = [torch.rand(15, generator=g) for _ in range(views)]
    labels = [torch.randint(0, 2, (15,), generator=g) for _ in range(views)]
    clusters = merge_boxes(boxes, scores, labels, [(0, 0, 150, 150)] * views)
    members = [m for c in clusters for m in c.members]
    assert sorted(members) == [(v, k) for v in range(views) for k in range(15)]
    for c in clusters:
        assert len({v for v, _ in c.members}) == len(c.members)
        assert {int(labels[v][k]) for v, k in c.members} == {c.label}
        assert c.score == pytest.approx(sum(float(scores[v][k]) for v, k in c.members) / views)
    assert [c.score for c in clusters] == sorted((c.score for c in clusters), reverse=True)


# ---- masks


def ellipses(boxes, size, side=56):
    """Return the masks of ellipses in their boxes, [N, M, M], as a perfect mask branch says them, and their pixels."""
    place = (torch.arange(side) + 0.5) / side * 2 - 1
    soft = ((1 - (place[:, None] ** 2 + place**2)) * 5 + 0.5).clamp(0, 1)
    y, x = torch.arange(size[0])[:, None] + 0.5, torch.arange(size[1]) + 0.5
    dense = [
        ((x - (a + c) / 2) / (c - a) * 2) ** 2 + ((y - (b + d) / 2) / (d - b) * 2) ** 2 <= 1 for a, b, c, d in boxes
    ]
    return soft.expand(len(boxes), -1, -1), torch.stack(dense)


def close(found, truth):
    """Whether masks are the same but for a share of a hundredth."""
    return ((found != truth).sum() / truth.sum()).item() < 0.03


class TestMasks:
    boxes = ((60.0, 20, 150, 80), (10, 10, 40, 50))

    def whole(self):
        masks, dense = ellipses(self.boxes, SIZE)
        boxes = torch.tensor(self.boxes)
        return InstancePrediction(
            boxes, torch.tensor([0.9, 0.6]), torch.tensor([0, 1]), SIZE, masks=masks, frames=boxes
        ), dense

    def test_of_two_equal_views(self):
        one, dense = self.whole()
        two = InstancePrediction.merge([one, one], [WHOLE, WHOLE])
        assert [close(torch.from_numpy(m), d) for m, d in zip(two.pasted.dense(), dense, strict=True)] == [True, True]
        assert torch.equal(torch.from_numpy(two.pasted.dense()), torch.from_numpy(one.pasted.dense()))

    def test_of_windows_add_up(self):
        """Each window's mask is cut out of the whole one, and lies in the part of the box that the window shows."""
        _, dense = self.whole()
        parts = []
        for top, left, bottom, right in (LEFT, RIGHT):
            shown = dense[:1, top:bottom, left:right].float()
            frame = torch.tensor([[max(60.0, left), 20, min(150.0, right), 80]])
            inside = shown[:, 20:80, int(frame[0, 0]) - left : int(frame[0, 2]) - left]
            masks = torch.nn.functional.interpolate(inside[None], (64, 64), mode="bilinear")[0]
            parts.append(
                InstancePrediction(frame, torch.tensor([0.8]), torch.tensor([0]), SIZE, masks=masks, frames=frame)
            )
        joined = InstancePrediction.merge(parts, [LEFT, RIGHT])
        assert joined.boxes.tolist() == [[60, 20, 150, 80]]
        assert close(torch.from_numpy(joined.pasted.dense()[0]).bool(), dense[0])

    def test_a_pixel_wants_one_half_of_the_weight(self):
        one, _ = self.whole()
        first = one.select(torch.tensor([0]))
        empty = InstancePrediction(
            first.boxes, torch.tensor([0.8]), first.labels, SIZE, masks=first.masks * 0, frames=first.frames
        )
        weak = InstancePrediction(
            first.boxes, torch.tensor([0.95]), first.labels, SIZE, masks=first.masks * 0, frames=first.frames
        )
        assert InstancePrediction.merge([first, empty], [WHOLE] * 2).pasted.areas()[0] > 0, "0.9 of 1.7"
        assert InstancePrediction.merge([first, weak], [WHOLE] * 2).pasted.areas()[0] == 0, "0.9 of 1.85"

    def test_merged_ones_merge_again_and_are_chosen_from(self):
        one, _ = self.whole()
        two = InstancePrediction.merge([one, one], [WHOLE, WHOLE])
        again = InstancePrediction.merge([two, one], [WHOLE, WHOLE])
        assert torch.equal(torch.from_numpy(again.pasted.dense()), torch.from_numpy(one.pasted.dense()))
        strong = two.at_least(0.7)
        assert (len(strong), strong.pasted.areas().tolist()) == (1, one.pasted.areas()[:1].tolist())


class TestAtTheEdges:
    def test_a_box_outside_of_its_window_is_none(self):
        assert merged((found((130, 10, 150, 30, 0.9, 0)), LEFT), (found(), RIGHT)) == []

    def test_nor_is_one_that_is_nowhere(self):
        nowhere = found((float("nan"), 1, 9, 9, 0.9, 0), (1, 1, 9, 9, 0.5, 0))
        assert merged((nowhere, WHOLE), (found(), WHOLE)) == [(1, 1, 9, 9, 0.25, 0)]

    def test_a_sliver_belongs_to_the_object_whose_edge_lies_just_inside_the_next_window(self):
        windows = [(0, 0, 100, 122), (0, 116, 100, 200)]
        sliver, rest = found((119.6, 24, 122, 90, 0.8, 0)), found((119.6, 24, 180, 90, 0.8, 0))
        ((x1, _, x2, _, score, _),) = merged((sliver, windows[0]), (rest, windows[1]))
        assert (round(x1, 1), x2, score) == (119.6, 180, 0.8)

    def test_two_objects_across_a_corner_stay_two(self):
        windows = [(80, 0, 112, 64), (48, 63, 80, 127)]
        low, high = found((34.6, 80.8, 63.6, 89.5, 0.4, 0), size=(147, 127)), found((64.9, 61.7, 71.8, 80.0, 0.9, 0))
        assert [row[4] for row in merged((low, windows[0]), (high, windows[1]))] == [0.9, 0.4]

    def test_masks_of_objects_too_thin_for_a_pixel(self):
        def thin(box, score):
            boxes = torch.tensor([box])
            return InstancePrediction(
                boxes, torch.tensor([score]), torch.tensor([0]), (20, 20), masks=torch.ones(1, 28, 28), frames=boxes
            )

        parts = [thin([3.6, 2.0, 4.3, 10.0], 0.9), thin([3.6, 3.0, 4.55, 10.0], 0.8)]  # pixel centres at 3.5, 4.5
        one = InstancePrediction.merge(parts, [(0, 0, 20, 20)] * 2)
        assert len(one) == 1
        assert one.pasted.dense().shape == (1, 20, 20)
        assert set(one.pasted.dense().nonzero()[2].tolist()) <= {4}
