"""Each check that looks at numbers: on a snapshot that has it, and on one that just has not; and how checks are run."""

from dataclasses import replace

import numpy as np
import pytest

from visionkit.core.errors import UsageError
from visionkit.data.audit.checks import CHECKS, run_checks, verdict
from visionkit.data.audit.findings import KINDS, SEVERITIES, Example, Finding, located, merge
from visionkit.data.audit.pictures import PictureFacts
from visionkit.data.audit.snapshot import Labelled, Series, Snapshot, Suspicion, Twins
from visionkit.data.labels.faults import Fault


def image(i, split="train", label=0, boxes=None):
    found = Labelled(f"{split}{i}.jpg", split, (label,))
    if boxes is None:
        return found
    return replace(
        found,
        boxes=np.array([b for b, _ in boxes], np.float32).reshape(-1, 4),
        ids=np.array([k for _, k in boxes], np.int64),
        crowd=np.zeros(len(boxes), bool),
        places=tuple(f"labels.txt:{n}" for n in range(1, len(boxes) + 1)),
    )


def snapshot(images, classes=("cat", "dog"), task="classification", **more):
    pictures = {i.path: PictureFacts(i.path, None, 1, b"", "JPEG", "RGB", 8, 100, 100, std=50.0) for i in images}
    return Snapshot("root", task, "format", classes, tuple(images), pictures, **more)


def boxes(*found, size=(100, 100), stride=8):
    return snapshot([image(0, boxes=found)], task="detection", size=size, stride=stride)


def classes(train, val=(30, 30), names=("cat", "dog")):
    images = [image(i, "train", k) for k, n in enumerate(train) for i in range(n)]
    return snapshot([*images, *(image(i, "val", k) for k, n in enumerate(val) for i in range(n))], names)


def ids(s):
    return [f.id for f in run_checks(s)]


def found(s, id):
    return next((f for f in run_checks(s) if f.id == id), None)


def test_the_table():
    assert all(k.severity in SEVERITIES and k.title and k.why.endswith(".") and k.cure for k in KINDS.values())
    assert not any(k.cure.endswith(".") or k.title.endswith(".") for k in KINDS.values())
    assert len({c.__name__ for c in CHECKS}) == len(CHECKS)


@pytest.mark.parametrize(
    ("s", "id"),
    [
        (classes((30, 0)), "class-empty"),
        (classes((30, 30), (30, 0)), "class-unseen"),
        (classes((30, 9)), "class-few"),
        (classes((520, 10)), "class-imbalance"),
        (classes((50, 50), (20, 30)), None),
        (classes((50, 50), (39, 61)), "split-skew"),
        (classes((30, 30), (14, 15)), "split-small"),
        (classes((30, 30), (0, 0)), None),
    ],
)
def test_numbers_of_classes(s, id):
    assert (id in ids(s)) if id else ids(s) == []


def test_just_enough_is_nothing():
    assert ids(classes((10, 500))) == ["split-skew"]
    assert ids(classes((30, 30), (15, 15))) == []
    assert ids(classes((50, 50), (41, 59))) == []


def test_classes_are_told_once():
    f = found(classes((30, *[1] * 20), names=tuple("abcdefghijklmnopqrstu")), "class-few")
    assert f.what.startswith("20 of 21 classes with fewer than 10 examples in training: b (1), c (1)")
    assert f.what.endswith(", and 12 more")
    assert len(f.examples) == 20


def test_boxes_that_cover_each_other():
    f = found(boxes(((0, 0, 50, 50), 0), ((0, 0, 50, 46), 0)), "box-duplicate")
    assert f.examples[0].text == "labels.txt:2: a box of cat covers another one (IoU 0.92)"
    assert (f.examples[0].line, f.examples[0].mended) == (2, False)
    assert "box-duplicate" not in ids(boxes(((0, 0, 50, 50), 0), ((0, 0, 50, 44), 0)))  # 0.88
    f = found(boxes(((0, 0, 50, 50), 0), ((0, 0, 50, 46), 1)), "box-contradictory")
    assert f.examples[0].text == "labels.txt:2: a box of dog covers one of cat (IoU 0.92)"
    assert f.examples[0].boxes == ((0, 0, 50, 46), (0, 0, 50, 50))
    f = found(boxes(*[((0, 0, 50, 50), 0)] * 3), "box-repeated")
    assert [e.line for e in f.examples] == [2, 3]
    assert f.mended == 2


def test_fifty_contradictions_are_one_message():
    s = boxes(*(((0, 0, 50, 50 - k / 100), k % 2) for k in range(11)))
    assert [f.id for f in run_checks(s, only=["box-contradictory"])] == ["box-contradictory"]


def test_crowds_cover_what_they_like():
    s = boxes(((0, 0, 50, 50), 0), ((0, 0, 50, 46), 1))
    crowd = replace(s.images[0], crowd=np.array([False, True]))
    assert "box-contradictory" not in ids(replace(s, images=(crowd,)))


def test_small_objects_at_the_models_size():
    assert "object-small" not in ids(boxes(((0, 0, 16, 16), 0)))
    f = found(boxes(((0, 0, 15, 15), 0), ((0, 0, 4, 9), 0), ((0, 0, 90, 90), 0)), "object-small")
    assert f.what == "2 of 3 objects are under 16 pixels at size 100, 1 of them under 8 (at size 200: 1 under 16)"
    assert f.severity == "warning"
    assert f.examples[0].text == "labels.txt:2: cat is 6.0 pixels large at the model's size"
    assert "object-small" not in ids(boxes(((0, 0, 8, 8), 0), size=(200, 200)))
    few = boxes(((0, 0, 12, 12), 0), *[((k, 50, k + 30, 90), 1) for k in range(0, 60, 3)])
    assert found(few, "object-small").severity == "note"


def test_what_follows_from_units_is_not_told():
    s = replace(
        boxes(((0, 0, 0.5, 0.5), 0), ((0, 0, 0.5, 0.49), 1)),
        faults=(Fault("label-units", "a.xml:3: these are shares; multiply"),),
        corrections=(Fault("box-outside", "a.xml:3: outside; dropped"),),
    )
    assert [f.id for f in run_checks(s, only=["box", "object", "label"])] == ["label-units"]


def test_thin_boxes():
    assert "box-shape" in ids(boxes(((0, 0, 100, 1.9), 0)))
    assert "box-shape" not in ids(boxes(((0, 0, 100, 2.0), 0)))


def near(splits, pairs, kind="near"):
    images = [image(i, s) for i, s in enumerate(splits)]
    twins = tuple(Twins(a, b, kind) for a, b in pairs)
    members = tuple(sorted({m for p in pairs for m in p}))
    return snapshot(images, twins=twins, series=(Series(members),))


def test_near_images():
    across = near(["train", "val"], [(0, 1)])
    f = found(across, "leak-near")
    assert f.examples[0].text == "train0.jpg (train): is nearly the same as val1.jpg (val)"
    assert f.examples[0].splits == ("train", "val")
    assert verdict(across, [f]).changes
    within = near(["train"] * 4, [(0, 1), (1, 2), (2, 3)])
    assert found(within, "duplicate-near").examples[0].text.endswith("train1.jpg (train), and 2 more")
    video = near(["train"] * 50, [(k, k + 1) for k in range(49)])
    f = found(video, "duplicate-frames")
    assert len(f.examples) == 1
    assert len(f.examples[0].pictures) == 50
    assert "duplicate-near" not in ids(video)


def test_exact_copies():
    s = near(["train", "train", "val"], [(0, 1), (0, 2)], "identical")
    leak = found(s, "leak-exact")
    assert [e.pictures[0] for e in leak.examples] == ["train0.jpg", "train1.jpg"]  # both would give it away
    assert [e.text for e in found(s, "duplicate-exact").examples] == [
        "train1.jpg: is byte for byte the same as train0.jpg"
    ]
    other = replace(s, images=(s.images[0], replace(s.images[1], classes=(1,)), s.images[2]))
    assert found(other, "duplicate-exact") is None
    assert found(other, "duplicate-conflict").examples[0].file == "train1.jpg"


def test_without_validation_copies_can_be_parted():
    s = near(["train", "train"], [(0, 1)])
    assert verdict(s, run_checks(s)).changes
    assert "which an automatic split may part" in verdict(s, run_checks(s)).sentence


def test_suspects():
    doubted = (Suspicion(0, 0, 1, 0.03), Suspicion(1, 0, 1, 0.4))
    s = replace(snapshot([image(0), image(1)]), suspects=doubted, agreement=0.9)
    f = found(s, "label-suspect")
    assert [e.text for e in f.examples] == ["train0.jpg: labelled cat, looks like dog (3% for the label)"]
    assert f.what.endswith("otherwise: 1 (the model agrees with 90% of all labels; 1 more are doubted a little)")
    assert not verdict(s, [f]).changes
    assert "too few to doubt any" in found(replace(s, agreement=0.5), "label-suspect").what
    assert "label-suspect" not in ids(replace(s, suspects=(), agreement=0.9))
    assert "label-suspect" not in ids(snapshot([image(0)]))


# ---- running them


def test_a_check_that_fails_is_a_finding_and_not_the_end():
    def broken(s):
        raise ZeroDivisionError("division by\nzero")

    found = run_checks(classes((30, 9)), checks=[broken, *CHECKS])
    assert [f.id for f in found] == ["check-failed", "class-few", "split-skew"]
    assert "the check broken (broken, line" in found[0].examples[0].text
    assert found[0].examples[0].text.endswith("failed: ZeroDivisionError: division by zero")


def test_only_and_skip():
    s = classes((30, 9), (10, 0))
    assert {f.id for f in run_checks(s)} == {"class-few", "class-unseen", "split-small"}
    assert [f.id for f in run_checks(s, only=["class"])] == ["class-few", "class-unseen"]
    assert [f.id for f in run_checks(s, skip=["class", "split-small"])] == []
    with pytest.raises(UsageError, match="no finding is called 'leaks': give an id such as leak-exact, or all of"):
        run_checks(s, only=["leaks"])


def test_the_verdict_speaks_of_what_is_measured():
    s = classes((30, 30))
    flawed = Finding.of("box-outside", [Example("a", splits=("train",))])
    assert not verdict(s, flawed).changes
    assert verdict(s, Finding.of("box-outside", [Example("a", splits=("val",))])).changes
    assert verdict(s, Finding.of("label-syntax", [Example("a")])).changes  # of which split is not known
    assert not verdict(s, Finding.of("class-few", [Example("a", splits=("train",))])).changes
    assert verdict(s, []).sentence.startswith("Would this change your validation number? No")


def test_findings_of_one_kind_become_one():
    one = Finding.of("image-unlabelled", [Example("a")])
    other = Finding.of("image-unlabelled", [Example("b"), Example("c")], severity="warning")
    (f,) = merge([*one, *other])
    assert (f.count, f.severity, f.what) == (3, "warning", "images without labels: 3")
    assert [e.text for e in f.examples] == ["a", "b", "c"]
    assert Finding.of("leak-near", []) == []


def test_places_of_messages(tmp_path):
    odd = tmp_path / "a: b.txt"
    odd.write_text("")
    assert located(f"{odd}:12: wrong; mend") == (str(odd), 12)
    assert located(f"{odd}: wrong: very") == (str(odd), None)
    assert located("gone.txt:3: no such file") == ("gone.txt", 3)
    assert located("no place at all") == ("", None)
