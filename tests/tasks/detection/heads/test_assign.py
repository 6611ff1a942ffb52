import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator

from visionkit.tasks.detection.heads.assign import Points, assign_by_centre, assign_by_task, crowded, pad_objects
from visionkit.tasks.detection.types import BoxTarget


def points(size=64, strides=(8, 16)):
    centres, cells = [], []
    for s in strides:
        y, x = torch.meshgrid(torch.arange(size // s), torch.arange(size // s), indexing="ij")
        grid = (torch.stack([x, y], -1).flatten(0, 1) + 0.5) * s
        centres.append(grid)
        cells.append(torch.full((len(grid),), float(s)))
    return Points(torch.cat(centres), torch.cat(cells))


def test_objects_are_padded_to_few_shapes():
    one = BoxTarget.make([[0.0, 0, 5, 5]] * 3, [2, 1, 0], [False, True, False])
    objects = pad_objects([one, BoxTarget.make([], [])])
    assert objects.boxes.shape == (2, 8, 4)
    assert objects.learnt.sum(1).tolist() == [2, 0]
    assert objects.crowd.sum(1).tolist() == [1, 0]
    assert pad_objects([BoxTarget.make([], [])]).boxes.shape == (1, 8, 4)
    assert pad_objects([BoxTarget.make([[0.0, 0, 5, 5]] * 9, [0] * 9)]).boxes.shape == (1, 16, 4)


def test_centre_by_hand():
    """A box of 32 x 32 around (32, 32): its largest distances, 16 to 28, are of the level of 8 px cells only."""
    place = points()
    found = assign_by_centre(place, pad_objects([BoxTarget.make([[16.0, 16, 48, 48]], [1])]), radius=1.5)
    owners = place.centres[found.positive[0]].tolist()
    assert sorted(owners) == [[28, 28], [28, 36], [36, 28], [36, 36]]
    assert found.labels[0, found.positive[0]].tolist() == [1] * 4
    assert found.boxes[0, found.positive[0]][0].tolist() == [16, 16, 48, 48]
    assert torch.equal(found.quality, found.positive.float())


def test_centre_gives_a_location_the_smallest_box():
    target = BoxTarget.make([[8.0, 8, 56, 56], [24.0, 24, 40, 40]], [0, 1])
    found = assign_by_centre(points(), pad_objects([target]), radius=2.6)
    assert set(found.labels[0, found.positive[0]].tolist()) == {0, 1}
    at = (points().centres == torch.tensor([28.0, 28.0])).all(1) & (points().strides == 8)
    assert found.labels[0, at].tolist() == [1]


def by_loops(place, target, boxes, scores, candidates, alpha, beta):
    """TOOD's assignment as one would write it down, an object at a time."""
    from torchvision.ops import box_iou

    overlap = box_iou(target.boxes, boxes)
    wanted = {}
    for m, (box, label) in enumerate(zip(target.boxes, target.labels.tolist(), strict=True)):
        inside = [a for a, (x, y) in enumerate(place.centres.tolist()) if box[0] < x < box[2] and box[1] < y < box[3]]
        value = {a: float(scores[a, label] ** alpha * overlap[m, a] ** beta) for a in inside}
        for a in sorted(inside, key=lambda a: -value[a])[:candidates]:
            if a not in wanted or overlap[m, a] > overlap[wanted[a][0], a]:
                wanted[a] = (m, value[a])
    quality = {}
    for m in range(len(target)):
        mine = {a: v for a, (o, v) in wanted.items() if o == m}
        for a, v in mine.items():
            quality[a] = v / max(mine.values()) * max(float(overlap[m, b]) for b in mine)
    return {a: m for a, (m, _) in wanted.items()}, quality


def test_task_aligned_is_what_loops_say():
    place = points(96, (8, 16, 32))
    for seed in range(8):
        g = torch.Generator().manual_seed(seed)
        corner = torch.rand(5, 2, generator=g) * 50
        target = BoxTarget.make(
            torch.cat([corner, corner + 12 + torch.rand(5, 2, generator=g) * 40], 1), [0, 1, 2, 0, 1]
        )
        shift = torch.rand(len(place.strides), 4, generator=g) * 25 + 4
        boxes = torch.cat([place.centres - shift[:, :2], place.centres + shift[:, 2:]], 1)
        scores = torch.rand(len(place.strides), 3, generator=g)
        owner, quality = by_loops(place, target, boxes, scores, 9, 1.0, 6.0)
        empty = BoxTarget.make([], [])
        found = assign_by_task(
            place,
            pad_objects([empty, target]),
            torch.stack([boxes, boxes]),
            torch.stack([scores, scores]),
            candidates=9,
        )
        assert not found.positive[0].any()
        assert set(found.positive[1].nonzero()[:, 0].tolist()) == set(owner)
        for a, m in owner.items():
            assert found.boxes[1, a].tolist() == target.boxes[m].tolist()
            assert found.labels[1, a] == target.labels[m]
            torch.testing.assert_close(float(found.quality[1, a]), quality[a], atol=1e-5, rtol=1e-4)
        assert (found.quality[1] > 0).sum() <= len(owner)


def test_crowds_cover_their_locations():
    target = BoxTarget.make([[0.0, 0, 16, 16], [32.0, 32, 64, 64]], [0, 0], [True, False])
    place = points()
    covered = place.centres[crowded(place, pad_objects([target]))[0]].tolist()
    assert sorted(covered) == [[4, 4], [4, 12], [8, 8], [12, 4], [12, 12]]
    found = assign_by_task(place, pad_objects([target]), torch.rand(1, 80, 4), torch.rand(1, 80, 2))
    assert (place.centres[found.positive[0]] > 32).all()


def test_locations_at_corners_are_torchvisions_anchors():
    anchors = AnchorGenerator(sizes=((8,), (16,)), aspect_ratios=((1.0,), (1.0,)))
    boxes = torch.cat(anchors.grid_anchors([(8, 8), (4, 4)], [[torch.tensor(s), torch.tensor(s)] for s in (8, 16)]))
    place = points()
    torch.testing.assert_close((boxes[:, :2] + boxes[:, 2:]) / 2, place.centres - place.strides[:, None] / 2)
