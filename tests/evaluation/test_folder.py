"""The folder of an evaluation: what is written is read, and nothing else is."""

import json
import math

import numpy as np
import pytest

from tests import evaluated
from visionkit import DataError, UsageError
from visionkit.core.output import is_output
from visionkit.evaluation import folder as module
from visionkit.evaluation.folder import data_sha256, new_metric, read_evaluation, start_folder


def plain(values):
    return {k: v.tolist() for k, v in values.items()}


def pets():
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=40)
    answers = np.where(rng.random(40) < 0.8, labels, rng.integers(3, size=40))
    found = evaluated.classified(labels.tolist(), answers.tolist(), groups=[f"film {k // 2}" for k in range(40)])
    found.confusion = {
        "names": list(found.classes), "columns": list(found.classes),
        "counts": found.metric.compute()["confusion_matrix"], "images": {"0,1": [3, 5]},
    }  # fmt: skip
    found.curves = {"pr": {"cat": [[0.5, np.float32(0.5), 0.1]]}}
    found.worst = [3, 1]
    found.calibration = {"ece": math.nan, "bins": np.arange(3)}
    return found


@pytest.fixture
def written(tmp_path):
    found = pets()
    found.write(tmp_path / "out")
    return tmp_path / "out"


def edited(path, change):
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))


@pytest.mark.parametrize("make", [pets, lambda: evaluated.detected(evaluated.boxes(0)), evaluated.segmented])
def test_what_is_written_is_read(make, tmp_path):
    found = make()
    found.write(tmp_path / "a" / "out")
    again = read_evaluation(tmp_path / "a" / "out")
    assert (again.task, list(again.classes), again.images) == (found.task, list(found.classes), found.images)
    assert again.metrics == found.metrics
    assert again.metrics[found.metric.monitor].interval is not None
    assert again.record() == json.loads(json.dumps(found.record()))
    assert plain(again.metric.compute()).keys() == plain(found.metric.compute()).keys()
    rows = [0, 3, 3]
    for ask in (lambda m: m.compute(), lambda m: m.redraw(rows)):
        for (key, a), b in zip(ask(again.metric).items(), ask(found.metric).values(), strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=key)
    assert read_evaluation(tmp_path / "a" / "out" / "evaluation.json").task == found.task
    assert is_output(tmp_path / "a" / "out")


def test_numbers_and_what_belongs_to_them(written):
    told = json.loads((written / "evaluation.json").read_text())
    assert (told["format"], told["task"], told["classes"]) == (1, "classification", ["cat", "dog", "fox"])
    assert (told["data"]["images"], told["data"]["groups"]) == (40, 20)
    assert told["metrics"]["top1"]["method"] == "wilson"
    assert told["metrics"]["top1"]["unit"] == "groups"
    assert told["calibration"] == {"ece": None, "bins": [0, 1, 2]}
    assert sum(map(sum, told["confusion"]["counts"])) == 40
    lines = (written / "images.jsonl").read_text().splitlines()
    assert json.loads(lines[0]).keys() == {"image", "sha256", "group", "height", "width", "truth"}
    with np.load(written / "numbers.npz", allow_pickle=False) as arrays:
        assert int(arrays["images"]) == 40


def test_an_evaluation_is_replaced_when_that_is_asked_alone(written):
    found = evaluated.segmented()
    with pytest.raises(UsageError, match=r"out already holds an evaluation: .* --overwrite$"):
        found.write(written)
    assert read_evaluation(written).task == "classification"
    found.write(written, overwrite=True)
    assert read_evaluation(written).task == "segmentation"


def test_what_is_half_replaced_is_not_taken_for_whole(written, monkeypatch):
    def fail(*arguments):
        raise DataError("no space left")

    monkeypatch.setattr(module, "write_arrays", fail)
    with pytest.raises(DataError, match="no space left"):
        evaluated.segmented().write(written, overwrite=True)
    with pytest.raises(DataError, match=r"out: holds no evaluation\.json; give the --out of an evaluation that has"):
        read_evaluation(written)


def test_predictions_that_lie_there_do_not_keep_the_mark_away(tmp_path):
    out = start_folder(tmp_path / "out")
    (out / "predictions.jsonl").write_text("")
    (out / "masks").mkdir()
    evaluated.segmented().write(out)
    assert is_output(out)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "cat.jpg").write_bytes(b"x")
    evaluated.segmented().write(tmp_path / "theirs")
    assert not is_output(tmp_path / "theirs"), "somebody's pictures stay data"
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="a file has the name of this folder"):
        start_folder(tmp_path / "file")


def test_the_hash_of_data_goes_by_pictures_and_truth():
    a, b = (evaluated.image(f"{k}.jpg", {"label": "cat"}) for k in "ab")
    other = evaluated.image("b.jpg", {"label": "dog"})
    assert data_sha256([a, b]) == data_sha256([b, a])
    assert len({data_sha256(x) for x in ([a, b], [a], [a, other])}) == 3


def test_each_task_has_its_metric():
    assert new_metric("classification", ["a", "b"]).monitor == "top1"
    assert new_metric("classification", ["a", "b"], multilabel=True).monitor == "map"
    assert new_metric("instance", ["a", "b"]).monitor == "mask_map"
    with pytest.raises(UsageError, match="task 'pose': one of classification, detection, instance, segmentation"):
        new_metric("pose", ["a"])


FAULTS = {
    "format": (lambda t: t.update(format=2), "is no evaluation of format 1, which this version reads"),
    "no mapping": (lambda t: t.clear(), "is no evaluation of format 1"),
    "task": (lambda t: t.update(task="pose"), "task is one of"),
    "classes": (lambda t: t.update(classes=["cat", "cat", "fox"]), "classes are names, each once"),
    "no classes": (lambda t: t.update(classes="cat"), "classes is a list of names"),
    "other classes": (lambda t: t.update(classes=["cat", "dog", "owl"]), r"images\.jsonl:\d+: truth is"),
    "metrics": (lambda t: t.update(metrics=[1]), "metrics is a mapping"),
    "a value": (lambda t: t["metrics"]["top1"].update(value="1"), "metrics, 'top1': value, low and high are numbers"),
    "an interval": (lambda t: t["metrics"]["top1"].update(low=None), "metrics, 'top1': low, high and method go"),
    "a method": (lambda t: t["metrics"]["top1"].update(method=[1]), "metrics, 'top1': method is null or one of"),
    "a number": (lambda t: t["metrics"].update(top1=3), "metrics, 'top1': n is a whole number"),
    "worst": (lambda t: t.update(worst=[40]), "worst is a list of positions below 40"),
    "worst below": (lambda t: t.update(worst=[-1]), "worst is a list of positions below 40"),
    "confusion": (lambda t: t["confusion"]["counts"].pop(), "confusion: counts has 3 rows of 3 whole numbers"),
    "a cell": (lambda t: t["confusion"]["images"].update({"0,9": [1]}), "confusion: images are those of cells"),
    "a row": (lambda t: t["confusion"]["images"].update({"3,0": [1]}), "confusion: images are those of cells"),
    "a zero": (lambda t: t["confusion"]["images"].update({"00,1": [1]}), "confusion: images are those of cells"),
    "no cell": (lambda t: t["confusion"]["images"].update({"0;1": [1]}), "confusion: images are those of cells"),
    "many classes": (
        lambda t: t.update(classes=[str(k) for k in range(5001)]),
        "has 5,001 classes, and 5,000 can be read at most",
    ),
    "a picture": (lambda t: t["confusion"]["images"].update({"0,1": [99]}), "confusion: images are lists"),
    "thresholds": (lambda t: t.update(thresholds=[0.5]), "thresholds is a mapping or null"),
    "data": (lambda t: t["data"].update(images=39), r"images\.jsonl: lists other pictures or labels than"),
    "labels": (lambda t: t["data"].update(sha256="0" * 64), r"images\.jsonl: lists other pictures or labels than"),
    "several labels": (lambda t: t.update(multilabel=True), r"images\.jsonl:1: truth is .\"labels\": \[names\]"),
}


@pytest.mark.parametrize("what", FAULTS)
def test_numbers_that_are_none_are_refused_in_a_line(written, what):
    change, said = FAULTS[what]
    edited(written / "evaluation.json", change)
    with pytest.raises(DataError, match=said) as e:
        read_evaluation(written)
    assert len(e.value.lines) == 1
    assert str(written) in str(e.value)


LINES = {
    "no JSON": ("{", "is no JSON that evaluate wrote"),
    "a list": ("[]", "a line is a mapping"),
    "nan": ('{"image": NaN}', "NaN is no number"),
    "deep": ("[" * 100_000, "is no JSON"),
    "twice": ('{"image": "a", "image": "b"}', "comes twice"),
    "no name": ('{"image": 3}', "image is a text"),
    "no hash": ('{"image": "a", "sha256": "x"}', "sha256 is 64 digits"),
}


@pytest.mark.parametrize("what", LINES)
def test_pictures_that_are_none_are_refused_in_a_line(written, what):
    line, said = LINES[what]
    lines = (written / "images.jsonl").read_text().splitlines()
    (written / "images.jsonl").write_text("\n".join([*lines[:4], line, *lines[5:]]) + "\n")
    with pytest.raises(DataError, match=rf"images\.jsonl:5: .*{said}") as e:
        read_evaluation(written)
    assert len(e.value.lines) == 1


def test_files_that_are_missing_or_of_another_evaluation(written, tmp_path):
    other = tmp_path / "other"
    evaluated.classified([0, 1, 2], [0, 1, 1]).write(other)
    (written / "numbers.npz").write_bytes((other / "numbers.npz").read_bytes())
    with pytest.raises(DataError, match=r"numbers\.npz: holds 3 pictures, images\.jsonl 40; evaluate again"):
        read_evaluation(written)
    evaluated.segmented().write(tmp_path / "masks")
    (written / "numbers.npz").write_bytes((tmp_path / "masks" / "numbers.npz").read_bytes())
    with pytest.raises(DataError, match=r"numbers\.npz: the array 'bins' is missing or of another kind; evaluate"):
        read_evaluation(written)
    for name in ("numbers.npz", "images.jsonl"):
        (written / name).unlink()
        with pytest.raises(DataError, match=rf"{name}: no such file"):
            read_evaluation(written)
    with pytest.raises(DataError, match="nowhere"):
        read_evaluation(tmp_path / "nowhere")
