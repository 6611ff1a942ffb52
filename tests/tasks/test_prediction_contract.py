"""What every prediction promises, each task's and one of a user's own."""

import json
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from tests import my_heads
from visionkit import (
    BoxPrediction,
    ClassPrediction,
    DataError,
    ImageInfo,
    InstancePrediction,
    MaskPrediction,
    MultiTaskPrediction,
    Prediction,
    UsageError,
)
from visionkit.core.joining import Joining
from visionkit.core.prediction import Agreement

SIZE = (40, 60)
WHOLE = (0, 0, *SIZE)
SEEN = ImageInfo("a.png", SIZE, scale=(1.6, 1.6), offset=(0, 16))  # letterboxed to 64 x 128
MIRRORED = ImageInfo("a.png", SIZE, scale=(1.6, -1.6), offset=(0, 128 - 16))
NAMES = ("a", "b", "c")


def classes(seed):
    return ClassPrediction(torch.randn(3, generator=generator(seed)).softmax(0))


def tags(seed):
    return ClassPrediction(torch.rand(3, generator=generator(seed)), multilabel=True, threshold=0.4)


def boxes(seed):
    g = generator(seed)
    corner = torch.rand(6, 2, generator=g) * torch.tensor([40.0, 20])
    placed = torch.cat([corner, corner + 5 + torch.rand(6, 2, generator=g) * 14], 1) * 1.6 + torch.tensor(
        [16, 0, 16, 0]
    )
    scores = torch.rand(6, generator=g).sort(descending=True).values
    return BoxPrediction(placed, scores, torch.randint(0, 3, (6,), generator=g))


def instances(seed):
    found = boxes(seed)
    masks = F.interpolate(torch.rand(6, 1, 4, 4, generator=generator(seed)), size=28, mode="bicubic")[:, 0].clamp(0, 1)
    return InstancePrediction(found.boxes, found.scores, found.labels, masks=masks, frames=found.boxes)


def masks(seed):
    return MaskPrediction.of(torch.randn(3, 8, 16, generator=generator(seed)) * 3, 8)


def points(seed):
    found = boxes(seed)
    apart = torch.cartesian_prod(torch.tensor([24.0, 60, 90]), torch.tensor([10.0, 50]))
    jitter = torch.rand(6, 2, generator=generator(seed)) * 8
    return my_heads.PointPrediction(apart + jitter, found.scores, found.labels)


def joint(seed):
    return MultiTaskPrediction({"kind": classes(seed), "cars": instances(seed + 1), "ground": masks(seed + 2)})


def generator(seed):
    return torch.Generator().manual_seed(seed)


def flipped(boxes):
    return torch.stack([128 - boxes[:, 2], boxes[:, 1], 128 - boxes[:, 0], boxes[:, 3]], 1)


def mirror_boxes(p):
    return BoxPrediction(flipped(p.boxes), p.scores, p.labels)


def mirror_instances(p):
    boxes = flipped(p.boxes)
    return InstancePrediction(boxes, p.scores, p.labels, masks=p.masks.flip(2), frames=boxes)


def mirror_masks(p):
    return MaskPrediction.of(p.views[0].scores.flip(2), 8)


def mirror_points(p):
    return my_heads.PointPrediction(torch.stack([128 - p.points[:, 0], p.points[:, 1]], 1), p.scores, p.labels)


def mirror_joint(p):
    parts = p.parts
    return MultiTaskPrediction(
        {"kind": parts["kind"], "cars": mirror_instances(parts["cars"]), "ground": mirror_masks(parts["ground"])}
    )


@dataclass(frozen=True)
class Case:
    """A kind of prediction: how one is made of a seed, and what a network says of the mirror image."""

    make: Any
    mirror: Any
    names: tuple[str, ...] = NAMES
    kinds: Any = None

    def restored(self, seed=0):
        return self.make(seed).restore(SEEN)

    def read(self, record):
        """Read a record as a line of predictions.jsonl; what lies in pictures beside it is put in."""
        kind = type(self.make(0))
        return kind.from_record(record, self.names, **({"kinds": self.kinds} if self.kinds else {}))


JOINT = tuple(f"{head}/{name}" for head in ("kind", "cars", "ground") for name in NAMES)
CASES = {
    "classes": Case(classes, lambda p: p),
    "tags": Case(tags, lambda p: p),
    "boxes": Case(boxes, mirror_boxes),
    "instances": Case(instances, mirror_instances),
    "masks": Case(masks, mirror_masks),
    "joint": Case(
        joint, mirror_joint, JOINT, {"kind": ClassPrediction, "cars": InstancePrediction, "ground": MaskPrediction}
    ),
    "own": Case(points, mirror_points),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def same(a, b):
    """Assert that two predictions say the same, up to the last digits and the order of what is equally certain."""
    assert type(a) is type(b)
    if isinstance(a, MultiTaskPrediction):
        assert list(a.parts) == list(b.parts)
        for head, part in a.parts.items():
            same(part, b.parts[head])
    elif isinstance(a, MaskPrediction):
        assert a.size == b.size
        assert (a.labels != b.labels).float().mean() < 1e-3
    elif isinstance(a, ClassPrediction):
        torch.testing.assert_close(a.probabilities, b.probabilities)
        assert a.multilabel == b.multilabel
    else:
        assert a.size == b.size
        place = "points" if isinstance(a, my_heads.PointPrediction) else "boxes"
        torch.testing.assert_close(getattr(a, place), getattr(b, place), atol=1e-3, rtol=0)
        torch.testing.assert_close(a.scores, b.scores)
        assert torch.equal(a.labels, b.labels)
        if isinstance(a, InstancePrediction):
            assert (a.pasted.dense() != b.pasted.dense()).mean() < 1e-3


def with_pixels(record, prediction):
    """Put the class ids of masks into the record, as a reader of the pictures beside it does."""
    if isinstance(prediction, MaskPrediction):
        return {**record, "mask": prediction.labels.numpy()}
    if isinstance(prediction, MultiTaskPrediction):
        return {head: with_pixels(record[head], part) for head, part in prediction.parts.items()}
    return record


def test_it_is_a_prediction_that_restores_to_the_original(case):
    found = case.restored()
    assert isinstance(found, Prediction)
    assert type(found) is type(case.make(0))
    same(found, case.make(0).restore(SEEN))


def test_a_mirror_image_comes_back_unmirrored(case):
    same(case.mirror(case.make(3)).restore(MIRRORED), case.restored(3))


def test_it_is_drawn_on_a_copy(case):
    image = torch.full((3, *SIZE), 90, dtype=torch.uint8)
    drawn = case.restored().draw(image, case.names)
    assert (drawn.shape, drawn.dtype) == ((3, *SIZE), torch.uint8)
    assert (image == 90).all()
    assert (drawn != 90).any()


def test_its_record_is_json_with_names(case):
    record = case.restored().record(case.names)
    text = json.dumps(record)
    assert json.loads(text) == record
    other = case.restored().record([name.upper() for name in case.names] if case.names == NAMES else case.names)
    assert (other == record) == (case.names != NAMES), "names are what it is told with"


def test_a_record_is_read_back(case):
    found = case.restored(1)
    line = json.loads(json.dumps({"image": "a.png", "n": 3, **found.record(case.names)}))
    again = case.read(with_pixels(line, found))
    if isinstance(again, my_heads.PointPrediction):
        again = again.restore(ImageInfo("a.png", SIZE))  # its record does not say the size
    same(again, found)
    assert json.loads(json.dumps(again.record(case.names))) == {
        k: v for k, v in line.items() if k not in ("image", "n")
    }
    assert again.rows(case.names) == found.rows(case.names)


@pytest.mark.parametrize("name", [n for n in CASES if n != "own"])
def test_a_record_of_something_else_is_refused(name):
    case = CASES[name]
    with pytest.raises(DataError, match=r"^record: no '.*' in it; give a record of such a prediction"):
        case.read({"image": "a.png"})


@pytest.mark.parametrize("name", ["classes", "tags", "boxes", "instances"])
def test_a_record_of_another_class_is_refused(name):
    case = CASES[name]
    record = case.restored().record(NAMES)
    with pytest.raises(DataError, match=r"^record: no '.*' in it"):
        type(case.make(0)).from_record(record, ("x", "y", "z"))


def test_one_part_is_itself(case):
    found = case.restored(2)
    same(type(found).merge([found], [WHOLE]), found)


def test_two_equal_parts_are_itself(case):
    found = case.restored(2)
    same(type(found).merge([found, case.restored(2)], [WHOLE, WHOLE]), found)


def test_the_order_of_parts_does_not_matter(case):
    parts = [case.restored(seed) for seed in (4, 5, 6)]
    regions = [WHOLE, (0, 0, 40, 35), (0, 20, 40, 60)]
    kind = type(parts[0])
    same(kind.merge(parts, regions), kind.merge(parts[::-1], regions[::-1]))


def test_a_mirrored_view_and_the_plain_one_are_the_plain_one(case):
    plain, mirror = case.restored(7), case.mirror(case.make(7)).restore(MIRRORED)
    same(type(plain).merge([plain, mirror], [WHOLE, WHOLE]), plain)


def test_merged_ones_merge_again(case):
    found = case.restored(8)
    kind = type(found)
    two = kind.merge([found, case.restored(8)], [WHOLE, WHOLE])
    same(kind.merge([two, found], [WHOLE, WHOLE]), found)


def test_what_is_merged_can_do_all_the_rest(case):
    parts = [case.restored(seed) for seed in (1, 2)]
    found = type(parts[0]).merge(parts, [WHOLE, WHOLE])
    image = torch.full((3, *SIZE), 90, dtype=torch.uint8)
    assert found.draw(image, case.names).shape == (3, *SIZE)
    assert json.loads(json.dumps(found.record(case.names)))
    assert isinstance(found.rows(case.names), list)
    assert type(found.at_least(0.5)) is type(found)


@pytest.mark.parametrize("name", [n for n in CASES if n != "own"])
class TestCombine:
    def test_one_model_is_itself(self, name):
        case = CASES[name]
        found = case.restored(2)
        one = type(found).combine([found], Joining.of([case.names]))
        same(one, found)
        assert one.record(case.names) == found.record(case.names), "to the last digit"

    def test_two_that_agree_are_one(self, name):
        case = CASES[name]
        parts = [case.restored(2), case.restored(2)]
        for weights in (None, (3, 1), (1, 0)):
            same(type(parts[0]).combine(parts, Joining.of([case.names] * 2, weights)), parts[0])

    def test_a_model_without_weight_has_no_say(self, name):
        case = CASES[name]
        parts = [case.restored(2), case.restored(3)]
        same(type(parts[0]).combine(parts, Joining.of([case.names] * 2, (0, 1))), parts[1])

    def test_the_order_of_models_does_not_matter(self, name):
        case = CASES[name]
        parts, weights = [case.restored(seed) for seed in (4, 5, 6)], (1, 2, 3)
        kind = type(parts[0])
        one = kind.combine(parts, Joining.of([case.names] * 3, weights))
        same(kind.combine(parts[::-1], Joining.of([case.names] * 3, weights[::-1])), one)

    def test_classes_are_joined_by_name(self, name):
        case = CASES[name]
        parts = [case.restored(seed) for seed in (4, 5)]
        turned = case.names[::-1]
        kind = type(parts[0])
        other = parts[1].select_classes(case.names, turned)
        if name == "joint":  # its heads stay in order
            turned = tuple(n for head in ("kind", "cars", "ground") for n in turned if n.startswith(head))
            other = parts[1].select_classes(case.names, turned)
        one = kind.combine(parts, Joining.of([case.names] * 2))
        two = kind.combine([parts[0], unrestricted(other)], Joining.of([case.names, turned]))
        same(two, one)

    def test_what_is_combined_can_do_all_the_rest(self, name):
        case = CASES[name]
        parts = [case.restored(seed) for seed in (1, 2)]
        found = type(parts[0]).combine(parts, Joining.of([case.names] * 2))
        assert found.draw(torch.full((3, *SIZE), 90, dtype=torch.uint8), case.names).shape == (3, *SIZE)
        record = json.loads(json.dumps(found.record(case.names)))
        assert list(record) == list(parts[0].record(case.names))
        assert isinstance(found.rows(case.names), list)
        assert type(found.at_least(0.5)) is type(found)
        assert found.agreement(found) is not None
        same(found.select_classes(case.names, case.names), found)


def unrestricted(prediction):
    """Masks whose scores stand in the order of the classes that are kept, as a model would give them."""
    if isinstance(prediction, MultiTaskPrediction):
        return MultiTaskPrediction({head: unrestricted(part) for head, part in prediction.parts.items()})
    if isinstance(prediction, MaskPrediction):
        views = tuple(replace(v, scores=v.scores[list(prediction.kept)]) for v in prediction.views)
        return replace(prediction, views=views, kept=None)
    return prediction


def test_what_defines_no_combine_is_refused():
    parts = [points(1).restore(SEEN)] * 2
    with pytest.raises(
        UsageError, match=r"^PointPrediction predictions cannot be put together from several models \(--ck"
    ):
        my_heads.PointPrediction.combine(parts, Joining.of([NAMES] * 2))


class TestModelsThatKnowDifferentClasses:
    JOINED = Joining.of([("a", "b"), ("b", "c")], (3, 1))

    def test_of_one_label_means_sum_to_one_again(self):
        parts = [ClassPrediction(torch.tensor([0.6, 0.4])), ClassPrediction(torch.tensor([0.2, 0.8]))]
        found = ClassPrediction.combine(parts, self.JOINED).probabilities
        mean = torch.tensor([0.6, 0.75 * 0.4 + 0.25 * 0.2, 0.8])
        torch.testing.assert_close(found, mean / mean.sum())

    def test_of_several_labels_each_is_its_own_mean(self):
        parts = [
            ClassPrediction(torch.tensor([0.6, 0.4]), True, 0.4),
            ClassPrediction(torch.tensor([0.2, 0.8]), True, 0.8),
        ]
        found = ClassPrediction.combine(parts, self.JOINED)
        assert found.probabilities.tolist() == pytest.approx([0.6, 0.35, 0.8])
        assert found.threshold == pytest.approx(0.5)

    def test_of_pixels_means_sum_to_one_again(self):
        chances = torch.tensor([0.6, 0.4]), torch.tensor([0.2, 0.8])
        parts = [MaskPrediction.of(c.log().reshape(2, 1, 1), 8).restore(ImageInfo("a", (8, 8))) for c in chances]
        found = MaskPrediction.combine(parts, self.JOINED)
        mean = torch.tensor([0.6, 0.35, 0.8])
        torch.testing.assert_close(found.probabilities()[:, 3, 5], mean / mean.sum())
        assert (found.labels == 2).all()
        assert found.record(("a", "b", "c"))["pixels"] == {"c": 64}

    def test_a_box_of_one_that_alone_knows_the_class_keeps_its_score(self):
        box = torch.tensor([[10.0, 10, 30, 30]])
        first = BoxPrediction(box.repeat(2, 1), torch.tensor([0.8, 0.4]), torch.tensor([0, 1]), SIZE)
        second = BoxPrediction(box + 2, torch.tensor([0.6]), torch.tensor([0]), SIZE)
        found = BoxPrediction.combine([first, second], self.JOINED)
        assert found.labels.tolist() == [0, 1]
        assert found.scores.tolist() == pytest.approx([0.8, 0.75 * 0.4 + 0.25 * 0.6])
        moved = 2 * 0.25 * 0.6 / 0.45
        torch.testing.assert_close(found.boxes[1], box[0] + moved)


def test_the_mean_of_models_is_that_of_probabilities_after_their_views():
    """A model with two views counts as much as one with a single view."""
    chances = ((0.9, 0.05, 0.05), (0.5, 0.3, 0.2), (0.1, 0.6, 0.3))
    parts = [MaskPrediction.of(torch.tensor(p).log().reshape(3, 1, 1), 8) for p in chances]
    parts = [p.restore(ImageInfo("a", (8, 8))) for p in parts]
    two = MaskPrediction.merge(parts[:2], [(0, 0, 8, 8)] * 2)
    both = MaskPrediction.combine([two, parts[2]], Joining.of([NAMES] * 2))
    mean = torch.tensor([(0.7 + 0.1) / 2, (0.175 + 0.6) / 2, (0.125 + 0.3) / 2])
    torch.testing.assert_close(both.probabilities()[:, 0, 0], mean)
    left = both.select_classes(NAMES, ["c", "b"])
    torch.testing.assert_close(left.probabilities()[:, 0, 0], mean[[2, 1]] / mean[1:].sum())
    with pytest.raises(UsageError, match="merge the views of each model, then combine"):
        MaskPrediction.merge([both, parts[0]], [(0, 0, 8, 8)] * 2)
    with pytest.raises(UsageError, match="restricted to some classes cannot be put together"):
        MaskPrediction.combine([left, parts[0]], Joining.of([NAMES] * 2))


def test_masks_of_models_are_averaged():
    """Two models see the halves of an object: the pixels of both are those where the mean reaches one half."""
    frame = torch.tensor([[10.0, 10, 38, 38]])

    def half(left, score):
        mask = torch.zeros(1, 28, 28)
        mask[:, :, :14] = 1.0 if left else 0.2
        mask[:, :, 14:] = 0.2 if left else 1.0
        return InstancePrediction(frame, torch.tensor([score]), torch.tensor([0]), SIZE, masks=mask, frames=frame)

    found = InstancePrediction.combine([half(True, 0.9), half(False, 0.9)], Joining.of([NAMES] * 2))
    assert found.pasted.dense().sum() > 26 * 26, "0.6 everywhere"
    weighted = InstancePrediction.combine([half(True, 0.9), half(False, 0.9)], Joining.of([NAMES] * 2, (3, 1)))
    columns = weighted.pasted.dense()[0].any(0).nonzero()[0]
    assert (columns.min(), columns.max()) == (10, 23), "0.8 on the left, 0.4 on the right"


def test_boxes_must_be_restored_to_be_combined():
    with pytest.raises(UsageError, match="in the original picture: call restore"):
        BoxPrediction.combine([boxes(1), boxes(2)], Joining.of([NAMES] * 2))


@pytest.mark.parametrize("name", [n for n in CASES if n != "own"])
class TestSelectClasses:
    def test_all_of_them_are_itself(self, name):
        case = CASES[name]
        same(case.restored().select_classes(case.names, case.names), case.restored())

    def test_ids_are_positions_among_those_kept(self, name):
        case = CASES[name]
        found = case.restored(3)
        turned = found.select_classes(case.names, case.names[::-1])
        a, b = found.record(case.names), turned.record(case.names[::-1])
        if name == "joint":
            assert b["cars"] == a["cars"]
        elif "probabilities" in a:
            assert b["probabilities"] == pytest.approx(a["probabilities"])
            assert b["label"] == a["label"]
        else:
            assert b == a

    def test_what_is_not_kept_is_gone(self, name):
        case = CASES[name]
        kept = ("cars/c", "cars/a") if name == "joint" else ("c", "a")
        record = case.restored(3).select_classes(case.names, kept).record(kept)
        assert '"b"' not in json.dumps(record)
        assert '"c"' in json.dumps(record)

    @pytest.mark.parametrize("kept", [("a", "x"), ("a", "a"), ()])
    def test_names_must_be_there_once(self, name, kept):
        case = CASES[name]
        kept = tuple(f"cars/{k}" for k in kept) if name == "joint" else kept
        with pytest.raises(UsageError, match="^classes to keep, .*: "):
            case.restored().select_classes(case.names, kept)


def test_probabilities_of_one_label_sum_to_one_again():
    found = ClassPrediction(torch.tensor([0.5, 0.3, 0.2])).select_classes(NAMES, ("c", "b"))
    torch.testing.assert_close(found.probabilities, torch.tensor([0.4, 0.6]))
    none = ClassPrediction(torch.tensor([1.0, 0.0, 0.0])).select_classes(NAMES, ("c", "b"))
    torch.testing.assert_close(none.probabilities, torch.tensor([0.5, 0.5]))
    several = ClassPrediction(torch.tensor([0.5, 0.3, 0.9]), True, 0.4).select_classes(NAMES, ("c", "b"))
    assert several.probabilities.tolist() == pytest.approx([0.9, 0.3])


def test_a_head_without_a_class_that_is_kept_is_left_out():
    found = joint(0).restore(SEEN).select_classes(JOINT, ("ground/c", "kind/a", "ground/a"))
    assert list(found.parts) == ["kind", "ground"]
    assert set(found.parts["ground"].record(("c", "a"))["pixels"]) == {"a", "c"}


def test_rows_are_flat(case):
    for row in case.restored().rows(case.names):
        assert isinstance(row, dict)
        assert json.loads(json.dumps(row)) == row


def test_at_least_keeps_what_is_certain(case):
    found = case.restored(5)
    same(found.at_least(0.0), found)
    strong = found.at_least(0.5)
    parts = strong.parts.values() if isinstance(strong, MultiTaskPrediction) else [strong]
    for part in parts:
        if isinstance(part, BoxPrediction | my_heads.PointPrediction):
            assert 0 < len(part.scores) < 6
            assert (part.scores >= 0.5).all()


def test_agreement_with_itself_is_whole(case):
    found = case.restored()
    agreement = found.agreement(case.restored())
    if isinstance(found, my_heads.PointPrediction):
        assert agreement is None, "it does not say"
        return
    for one in agreement.values() if isinstance(found, MultiTaskPrediction) else [agreement]:
        assert isinstance(one, Agreement)
        assert (one.share, one.difference) == (1, 0)
        assert one.total > 0


# ---- the base


class Bare(Prediction):
    """Says nothing at all."""


def test_what_has_a_neutral_answer_has_it():
    class Said(Bare):
        def record(self, names):
            return {"said": names[0]}

    assert Said().rows(NAMES) == [{"said": "a"}]
    bare = Said()
    assert bare.at_least(0.9) is bare
    assert bare.agreement(Said()) is None


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("restore", (SEEN,)),
        ("draw", (torch.zeros(3, 4, 4, dtype=torch.uint8), NAMES)),
        ("record", (NAMES,)),
        ("from_record", ({}, NAMES)),
        ("merge", ([], [])),
        ("combine", ([], None)),
        ("select_classes", (NAMES, NAMES)),
    ],
)
def test_what_has_none_is_refused_in_one_line(method, arguments):
    with pytest.raises(UsageError, match=rf"^Bare predictions cannot be .*: it defines no {method}\(") as raised:
        getattr(Bare(), method)(*arguments)
    assert "\n" not in str(raised.value)


def test_records_of_pixels_want_the_pixels():
    found = masks(0).restore(SEEN)
    record = found.record(NAMES)
    with pytest.raises(DataError, match="record: holds no pixels; read its picture in masks/"):
        MaskPrediction.from_record(record, NAMES)
    with pytest.raises(DataError, match=r"record: the mask is \[39, 60\] of torch.uint8, not whole numbers \[40, 60\]"):
        MaskPrediction.from_record({**record, "mask": found.labels[1:]}, NAMES)
    with pytest.raises(DataError, match=r"record: the mask has ids 0\.\.2, of 2 classes"):
        MaskPrediction.from_record({**record, "mask": found.labels}, NAMES[:2])
    again = MaskPrediction.from_record({**record, "mask": found.labels}, NAMES)
    assert torch.equal(again.labels, found.labels)
    assert again.probabilities().max(0).values.min() == 1


def test_a_joint_record_wants_kinds():
    with pytest.raises(UsageError, match="a joint record does not say of which kind its parts are: give kinds="):
        MultiTaskPrediction.from_record({}, JOINT)


def test_masks_of_a_record_are_where_they_are():
    found = instances(0).restore(SEEN)
    again = InstancePrediction.from_record(found.record(NAMES), NAMES)
    with pytest.raises(UsageError, match="are in pixels of the original already"):
        again.restore(SEEN)
    assert again.agreement(found).share == 1


def spoilt(make, *path, value):
    """Return a record of a prediction in which another value stands somewhere."""
    record = json.loads(json.dumps(make(0).restore(SEEN).record(NAMES)))
    inner = record
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return record


@pytest.mark.parametrize(
    ("make", "path", "value", "words"),
    [
        (boxes, ("objects", 0, "box"), [1, 2, 3], "a box has 3 numbers"),
        (boxes, ("objects", 0, "box"), [1, 2, 3, 4, 5, 6, 7, 8], "a box has 8 numbers"),
        (boxes, ("objects", 0, "box"), "here", "could not convert"),
        (boxes, ("objects", 0, "box"), None, "not iterable"),
        (boxes, ("objects", 0, "score"), "high", "could not convert"),
        (boxes, ("objects", 0, "label"), ["a"], "unhashable"),
        (boxes, ("objects",), None, "not iterable"),
        (boxes, ("height",), "tall", "invalid literal"),
        (instances, ("objects", 0, "mask"), 7, "record"),
        (classes, ("probabilities", "a"), "x", "could not convert"),
        (classes, ("probabilities",), [1.0], "no 'a' in it"),
        (tags, ("labels",), ["q"], "no 'q' in it"),
        (tags, ("labels",), 3, "not iterable"),
        (masks, ("mask",), "x", "record: "),
        (masks, ("mask",), torch.full(SIZE, -1), r"the mask has ids -1\.\.-1"),
        (masks, ("mask",), torch.full(SIZE, 0.5), "torch.float32, not whole numbers"),
    ],
)
def test_what_is_no_such_record_is_refused_in_a_line(make, path, value, words):
    with pytest.raises(DataError, match=words) as raised:
        type(make(0)).from_record(spoilt(make, *path, value=value), NAMES)
    assert "\n" not in str(raised.value)


def test_classes_of_several_views_are_chosen_by_their_mean():
    """Each view alone would say b with certainty where it sees c; the mean says a."""
    chances = ((0.0001, 0.0003, 0.9996), (0.5, 0.3, 0.2))
    parts = [MaskPrediction.of(torch.tensor(p).log().reshape(3, 1, 1), 8) for p in chances]
    parts = [p.restore(ImageInfo("a", (8, 8))) for p in parts]
    both = MaskPrediction.merge(parts, [(0, 0, 8, 8)] * 2)
    left = both.select_classes(NAMES, ["b", "a"])
    mean = torch.tensor(chances).mean(0)
    assert torch.allclose(left.probabilities()[:, 0, 0], mean[[1, 0]] / mean[:2].sum(), atol=1e-5)
    assert (left.labels == 1).all()
    assert (left.select_classes(["b", "a"], ["b"]).labels == 0).all()
    assert left.select_classes(["b", "a"], ["a", "b"]).probabilities()[0, 0, 0] == pytest.approx(
        0.25005 / 0.4002, abs=1e-4
    )
    with pytest.raises(UsageError, match="restricted to different classes"):
        MaskPrediction.merge([parts[0], parts[1].select_classes(NAMES, ["a"])], [(0, 0, 8, 8)] * 2)
