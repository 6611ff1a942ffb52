"""Two evaluations on the same pictures: what is refused, and what is shown."""

import numpy as np
import pytest

from tests import evaluated
from visionkit import UsageError
from visionkit.evaluation.comparison import compare, difference_interval, draw_together
from visionkit.evaluation.intervals import mcnemar, wilson
from visionkit.evaluation.pairing import place_of
from visionkit.evaluation.seeds import compare_seeds


def answers(labels, right, seed):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(len(labels)) < right, labels, (labels + 1) % 3).tolist()


def pets(right, seed, n=200, **options):
    labels = np.random.default_rng(99).integers(3, size=n)
    return evaluated.classified(labels.tolist(), answers(labels, right, seed), **{"draws": 5, **options})


def shuffled(evaluation, seed=0):
    """The same evaluation with its pictures in another order, as another run may have met them."""
    order = np.random.default_rng(seed).permutation(len(evaluation.images))
    metric = evaluation.metric
    part = metric.pack(metric.join(metric._parts))
    part = {k: v[order] if v.ndim and len(v) == len(order) else v for k, v in part.items()}
    metric.take_arrays({"images": np.array(len(order)), **part})
    evaluation.images = [evaluation.images[k] for k in order]
    return evaluation


def named(*evaluations):
    return list(zip("ABCDEF", evaluations, strict=False))


def test_pictures_are_found_by_their_bytes_in_any_order_and_folder():
    a, b = pets(0.8, 0), shuffled(pets(0.8, 1, folder="elsewhere"))
    place = place_of(("A", a), ("B", b))
    assert [b.images[k].id.rpartition("/")[2] for k in place] == [i.id.rpartition("/")[2] for i in a.images]
    plain, moved = (compare(draw_together(named(a, e), 100)) for e in (pets(0.8, 1), b))
    assert moved.record() == plain.record()


def test_a_better_one_is_shown_and_an_equal_one_is_not():
    a, b = pets(0.7, 0), pets(0.9, 1)
    found = compare(draw_together(named(a, b), 400))
    one = found.differences["top1"]
    assert (one.a, one.b) == (a.metric.compute()["top1"], b.metric.compute()["top1"])
    assert one.shown
    assert one.interval.low < one.b - one.a < one.interval.high
    assert one.gain == pytest.approx(one.b - one.a)
    right = [e.metric.faults() == 0 for e in (a, b)]
    counts = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    assert found.mcnemar == (*counts, mcnemar(*counts))
    assert len(found.better) == counts[1]
    assert len(found.worse) == counts[0]
    assert {(o.a, o.b) for o in found.better} == {(1, 0)}
    back = compare(draw_together(named(b, a), 400)).differences["top1"]
    assert back.shown
    assert back.gain == pytest.approx(-one.gain)
    assert (back.interval.low, back.interval.high) == pytest.approx((-one.interval.high, -one.interval.low))
    same = compare(draw_together(named(a, pets(0.7, 5)), 400)).differences["top1"]
    assert not same.shown
    itself = compare(draw_together(named(a, pets(0.7, 0)), 100))
    assert not any(d.shown for d in itself.differences.values())
    assert not itself.better
    assert not itself.worse


def test_what_is_hard_for_both_takes_nothing_from_the_comparison():
    """The paired interval is far narrower than the two own ones where mistakes are shared."""
    labels = np.random.default_rng(99).integers(3, size=300)
    first = np.array(answers(labels, 0.7, 0))
    second = first.copy()
    mended = np.flatnonzero(first != labels)[:20]
    second[mended] = labels[mended]
    a, b = (evaluated.classified(labels.tolist(), x.tolist(), draws=100) for x in (first, second))
    one = compare(draw_together(named(a, b), 400)).differences["top1"]
    own = [e.metrics["top1"].interval for e in (a, b)]
    assert own[0].high > own[1].low, "the intervals of both overlap"
    assert one.shown


def test_lower_errors_are_gains():
    a, b = pets(0.7, 0), pets(0.95, 1)
    one = compare(draw_together(named(a, b), 100)).differences["ece"]
    assert one.lower
    assert one.gain == pytest.approx(one.a - one.b)


def test_boxes_and_masks():
    a, b = (evaluated.detected(evaluated.boxes(s, noise=n, count=60), draws=5) for s, n in ((0, 4.0), (1, 1.0)))
    found = compare(draw_together(named(a, b), 300))
    assert found.main == "map"
    assert found.differences["map"].shown
    assert found.mcnemar is None
    assert all(o.a > o.b for o in found.better)
    assert all(o.a < o.b for o in found.worse)
    a, b = evaluated.segmented(40, 0.2, 0, draws=5), evaluated.segmented(40, 0.1, 1, draws=5)
    found = compare(draw_together(named(a, b), 300))
    assert found.main == "miou"
    assert found.differences["miou"].shown
    assert found.better[0].a - found.better[0].b >= found.better[-1].a - found.better[-1].b > 0.005


def test_few_pictures_show_nothing():
    found = compare(draw_together(named(pets(0.1, 0, n=20), pets(1.0, 1, n=20)), 100))
    one = found.differences["top1"]
    assert one.interval.low > 0
    assert not one.shown
    assert one.basis.few == "too few to say: 20 images"


def test_a_class_that_is_always_wrong_and_then_always_right():
    """Each resample has the same difference: the interval still has a width, and few pictures show nothing."""
    labels = [0, 1] * 40
    a, b = (evaluated.classified(labels, x, draws=5) for x in ([0] * 80, labels))
    one = compare(draw_together(named(a, b), 50)).differences["accuracy/dog"]
    assert (one.a, one.b) == (0, 1)
    assert one.interval.high == 1
    assert one.interval.low == pytest.approx(2 * wilson(40, 40).low - 1)
    assert one.shown
    back = compare(draw_together(named(b, a), 50)).differences["accuracy/dog"]
    assert (back.interval.low, back.interval.high) == (-1, -one.interval.low)
    assert difference_interval(np.full(10, 0.5), 3).low < 0


def test_few_differing_pictures_are_left_to_the_exact_test():
    labels = [0, 1] * 50
    worse = [1 - k if i < 5 else k for i, k in enumerate(labels)]
    a, b = (evaluated.classified(labels, x, draws=5) for x in (worse, labels))
    found = compare(draw_together(named(a, b), 400))
    assert found.mcnemar.p == 0.0625
    assert found.differences["top1"].interval.low > 0
    assert not found.differences["top1"].shown


def test_groups_widen_the_interval_and_leave_out_mcnemar():
    groups = [f"film {k // 20}" for k in range(200)]
    a, b = pets(0.7, 0), pets(0.8, 1)
    alone = compare(draw_together(named(a, b), 300))
    assert alone.mcnemar is not None
    a, b = pets(0.7, 0, groups=groups), pets(0.8, 1)
    drawings = draw_together(named(a, b), 300)
    assert len(set(drawings.groups)) == 10
    found = compare(drawings)
    assert found.mcnemar is None
    assert found.differences["top1"].basis.unit == "groups"
    assert found.differences["top1"].basis.few == "too few to say: 10 groups"
    renamed = pets(0.8, 1, groups=[f"clip {k // 20}" for k in range(200)])
    assert draw_together(named(a, renamed), 2).groups == drawings.groups
    other = pets(0.8, 1, groups=[f"film {k // 10}" for k in range(200)])
    with pytest.raises(UsageError, match="^B: its pictures are grouped otherwise than A's; evaluate both again$"):
        draw_together(named(a, other), 2)


def refused(a, b):
    with pytest.raises(UsageError) as e:
        draw_together(named(a, b), 2)
    assert len(e.value.lines) == 1
    return str(e.value)


def test_other_pictures_are_refused_with_how_many_are_common():
    a, b = pets(0.8, 0, n=30), pets(0.8, 1, n=33)
    assert refused(a, b) == (
        "B: was evaluated on other pictures than A: 30 of 30 and 33 are the same by content; 3 in B alone "
        "(data/030.jpg, data/031.jpg, data/032.jpg); evaluate both on the same data"
    )
    b.images = [evaluated.image(f"new/{k}.jpg", i.truth) for k, i in enumerate(b.images)]
    said = refused(a, b)
    assert "0 of 30 and 33 are the same" in said
    assert (
        "30 in A alone (data/000.jpg, data/001.jpg, data/002.jpg, data/003.jpg, data/004.jpg, ... and 25 more)" in said
    )


def test_copies_of_a_picture_count_as_often_as_they_are_there():
    a, b = pets(0.8, 0, n=30), pets(0.8, 1, n=30)
    for e in (a, b):
        e.images[7] = evaluated.image("copy/003.jpg", e.images[7].truth)
    assert sorted(place_of(("A", a), ("B", b)).tolist()) == list(range(30))
    c = pets(0.8, 1, n=30)
    assert "29 of 30 and 30 are the same" in refused(a, c)


def test_other_classes_tasks_labels_and_settings_are_refused():
    a = pets(0.8, 0, n=30)
    assert refused(a, pets(0.8, 0, n=30, classes=("cat", "dog", "owl"))) == (
        "B: has other classes than A: fox in A alone; owl in B alone; evaluate both with the same ones"
    )
    assert (
        refused(a, evaluated.segmented()) == "B: is of segmentation, A of classification; only the same can be compared"
    )
    b = pets(0.8, 0, n=30)
    b.multilabel = True
    assert "B: is of classification with several labels a picture, A of classification" in refused(a, b)
    b = pets(0.8, 0, n=30)
    was = b.images[4].truth["label"]
    other = "dog" if was != "dog" else "cat"
    b.images[4] = evaluated.image("data/004.jpg", {"label": other})
    assert refused(a, b) == (
        f"B: a picture has other labels than in A (first data/004.jpg: {other} instead of {was}); evaluate both on the "
        "same labels"
    )
    b = pets(0.8, 0, n=30)
    b.metric.bins = 7
    assert refused(a, b) == "B: was evaluated with bins 7, A with 15; evaluate both with the same one"


def test_the_same_classes_in_another_order_are_the_same():
    a = pets(0.8, 0, n=60)
    labels = [evaluated.PETS[::-1].index(i.truth["label"]) for i in a.images]
    b = evaluated.classified(labels, labels, classes=evaluated.PETS[::-1], draws=5)
    found = compare(draw_together(named(a, b), 50))
    assert found.differences["top1"].b == 1
    assert found.differences["accuracy/fox"].b == 1


def test_boxes_that_are_rounded_otherwise_are_the_same():
    a, b, c = (evaluated.detected(evaluated.boxes(0), draws=5) for _ in range(3))
    for e, shift in ((b, 0.004), (c, 0.5)):
        e.images = [
            evaluated.image(i.id, {"objects": [{**o, "box": [v + shift for v in o["box"]]} for o in i.truth["objects"]][::-1]})
            for i in e.images
        ]  # fmt: skip
    assert place_of(("A", a), ("B", b)).tolist() == list(range(40))
    said = refused(a, c)
    assert said.startswith("B: 40 pictures have other labels than in A (first data/000.jpg: ")
    assert said.endswith("objects of other places or sizes); evaluate both on the same labels")


def test_several_seeds_of_two_recipes():
    old, new = [pets(r, s) for s, r in enumerate((0.70, 0.71, 0.69))], [pets(0.9, s + 10) for s in range(3)]
    drawings = draw_together(named(*old, *new), 300)
    one = compare_seeds(drawings, range(3), range(3, 6))["top1"]
    assert one.a == [float(e.metric.compute()["top1"]) for e in old]
    assert one.pictures.b == pytest.approx(np.mean(one.b))
    assert one.seeds.method == "t"
    assert one.shown
    record = one.record()
    assert record["over_seeds"]["low"] > 0
    assert record["runs_of_b"] == one.b
    single = compare_seeds(drawings, range(3), range(3, 4))["top1"]
    assert single.seeds is None
    assert single.pictures.shown
    assert not single.shown, "one run says nothing of the spread"


def test_a_lucky_seed_is_not_a_better_recipe():
    """Over pictures alone a difference can be certain that another seed turns."""
    old, new = [pets(r, s) for s, r in enumerate((0.5, 0.9))], [pets(r, s + 10) for s, r in enumerate((0.65, 0.98))]
    one = compare_seeds(draw_together(named(*old, *new), 300), range(2), range(2, 4))["top1"]
    assert one.pictures.shown
    assert one.seeds.low < 0 < one.seeds.high
    assert not one.shown
