"""visionkit compare from outside: what it says, writes and refuses."""

import functools
import json
import re

import numpy as np
import pytest

from tests import evaluated
from visionkit.cli.main import run
from visionkit.evaluation import comparison
from visionkit.evaluation.counting import count_predictions
from visionkit.evaluation.evaluate import evaluation_of, new_count
from visionkit.evaluation.folder import new_metric
from visionkit.evaluation.inputs.images import DataImages
from visionkit.evaluation.inputs.tables import read_table_of_classes
from visionkit.tasks.classification.readers.folder import FolderDataset


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(comparison, "draw_together", functools.partial(comparison.draw_together, draws=200))


def pets(folder, right, seed, n=100, **options):
    rng = np.random.default_rng(seed)
    labels = np.random.default_rng(99).integers(3, size=n)
    answers = np.where(rng.random(n) < right, labels, (labels + 1) % 3)
    evaluated.classified(labels.tolist(), answers.tolist(), draws=5, **options).write(folder)
    return str(folder)


def test_a_better_one(tmp_path, capsys):
    a, b = pets(tmp_path / "a", 0.6, 0), pets(tmp_path / "b", 0.9, 1)
    out = tmp_path / "told.json"
    assert run(["compare", a, b, "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "compared on 100 pictures (classification, 3 classes)"
    assert lines[2:4] == [f"A = {a}", f"B = {b}"]
    assert re.match(r"top1 0\.\d+ and 0\.\d+: B is better by 0\.\d+ \[0\.\d{4}, 0\.\d{4}\]", lines[4])
    assert lines[4].endswith(": shown")
    assert "(McNemar's exact test)" in lines[5]
    assert any(re.match(r"  macro_f1 +0\.\d+ -> 0\.\d+, \+0\.\d{4} \[.*\]: shown$", line) for line in lines)
    assert any(line.startswith("  of 3 values of classes and kinds ") for line in lines)
    assert lines[-1] == f"all differences: {out}"
    told = json.loads(out.read_text())
    assert (told["format"], told["images"], told["groups"], told["evaluations"]) == (1, 100, 100, {a: [a], b: [b]})
    (pair,) = told["comparisons"]
    assert (pair["a"], pair["b"], pair["main"]) == (a, b, "top1")
    one = pair["differences"]["top1"]
    assert one["shown"] is True
    assert one["difference"] == one["b"] - one["a"]
    assert one["low"] < one["difference"] < one["high"]
    assert pair["mcnemar"]["second"] == len(pair["better"])
    assert pair["better"][0].keys() == {"image", "a", "b"}
    named = next(line for line in lines if line.startswith("  B is better on "))
    assert named.count(".jpg") == min(5, len(pair["better"]))
    assert named.endswith(f", and {len(pair['better']) - 5} more")
    assert run(["compare", a, b, "--out", str(out)]) == 2
    assert "or add --overwrite" in capsys.readouterr().err
    assert run(["compare", b, a, "--out", str(out), "--overwrite"]) == 0
    assert "B is worse by 0." in capsys.readouterr().out


def test_no_difference_is_said_to_be_not_shown(tmp_path, capsys):
    a, b = pets(tmp_path / "a", 0.8, 0), pets(tmp_path / "b", 0.8, 1)
    assert run(["compare", a, b]) == 0
    out = capsys.readouterr().out
    assert ": not shown: the interval holds 0" in out
    few = [pets(tmp_path / f"few {k}", r, k, n=12) for k, r in enumerate((0.2, 1.0))]
    assert run(["compare", *few]) == 0
    assert ": not shown: too few to say: 12 images" in capsys.readouterr().out
    same = [pets(tmp_path / f"same {k}", 0.8, 0) for k in range(2)]
    assert run(["compare", *same]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[4:] == ["both say the same: no value differs, and no picture tells them apart"]


def test_each_is_compared_with_the_first(tmp_path, capsys):
    folders = [pets(tmp_path / name, 0.5 + 0.2 * k, k) for k, name in enumerate("abc")]
    assert run(["compare", *folders]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith(("A =", "B ="))] == [
        f"A = {folders[0]}", f"B = {folders[1]}", f"A = {folders[0]}", f"B = {folders[2]}",
    ]  # fmt: skip


def test_boxes_and_masks(tmp_path, capsys):
    for k, noise in enumerate((4.0, 1.0)):
        evaluated.detected(evaluated.boxes(k, noise=noise), draws=5).write(tmp_path / f"boxes{k}")
        evaluated.segmented(40, 0.2 - 0.1 * k, k, draws=5).write(tmp_path / f"masks{k}")
    assert run(["compare", str(tmp_path / "boxes0"), str(tmp_path / "boxes1")]) == 0
    out = capsys.readouterr().out
    assert "(detection, 2 classes)" in out
    assert "\nmap 0." in out
    assert "  map_50 " in out
    assert "pr_curve" not in out
    assert run(["compare", str(tmp_path / "masks0"), str(tmp_path / "masks1")]) == 0
    assert "\nmiou 0." in capsys.readouterr().out
    assert run(["compare", str(tmp_path / "boxes0"), str(tmp_path / "masks1")]) == 2
    assert "masks1: is of segmentation, " in capsys.readouterr().err


def test_seeds_of_two_recipes(tmp_path, capsys):
    old = [pets(tmp_path / f"old{k}", 0.6, k) for k in range(3)]
    new = [pets(tmp_path / f"new{k}", 0.9, k + 10) for k in range(3)]
    out = tmp_path / "told.json"
    assert run(["compare", "--group", "old", *old, "--group", "new", *new, "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "A = old, 3 runs\nB = new, 3 runs\n" in text
    assert "  runs of A: 0." in text
    assert "other pictures, these very runs" in text
    assert "other runs, these very pictures; both must be on one side of 0" in text
    told = json.loads(out.read_text())
    assert told["evaluations"] == {"old": old, "new": new}
    one = told["comparisons"][0]["differences"]["top1"]
    assert len(one["runs_of_a"]) == len(one["runs_of_b"]) == 3
    assert one["shown"] == (one["low"] > 0 and one["over_seeds"]["low"] > 0)
    assert run(["compare", "--group", "old", *old, "--group", "new", new[0]]) == 0
    text = capsys.readouterr().out
    assert "over seeds one run says nothing: an interval over pictures does not hold their spread" in text
    assert ": not shown: " in text


def test_what_cannot_be_compared(tmp_path, capsys):
    a, b = pets(tmp_path / "a", 0.8, 0), pets(tmp_path / "b", 0.8, 1, n=90)
    for arguments, said in (
        ([a], "give two or more folders that visionkit evaluate wrote"),
        ([a, a], "is given 2 times; a comparison with itself says nothing"),
        ([a, f"{a}/../a"], "is given 2 times"),
        ([a, b], "was evaluated on other pictures than"),
        ([a, "--group", "x", b], "not both"),
        (["--group", "x", a], "give a second --group to compare it with"),
        (["--group", "x", "--group", "y", b], "--group x: a name, then the folders of its seeds"),
        (["--group", "x", a, "--group", "x", b], "x is given 2 times"),
        ([a, b, "--out", str(tmp_path / "told.txt")], "give it a name that ends in .json"),
    ):
        assert run(["compare", *arguments]) == 2, arguments
        captured = capsys.readouterr()
        assert said in captured.err
        assert captured.err.count("\n") == 1
    (tmp_path / "empty").mkdir()
    assert run(["compare", a, str(tmp_path / "empty")]) == 1
    assert "empty: holds no evaluation.json" in capsys.readouterr().err


def test_names_of_strangers_show_and_do_nothing(tmp_path, capsys):
    classes = ("cat\x1b[31m", "dog\nerror: gone", "fox")
    labels = [0, 1, 2] * 40
    first = evaluated.classified(labels, [2] * 120, classes=classes, draws=5)
    second = evaluated.classified(labels, labels, classes=classes, draws=5)
    for e in (first, second):
        e.images = [evaluated.image(f"x\x1b[2J{k}.jpg", i.truth) for k, i in enumerate(e.images)]
    first.write(tmp_path / "a")
    second.write(tmp_path / "b")
    assert run(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\nerror: gone" not in out
    assert "accuracy/dog\\nerror: gone" in out


def label_tables(tmp_path, data, *, several):
    """Two evaluations of tables that hold labels alone."""
    folders = []
    for name, step in (("a", 1), ("b", 0)):
        table = tmp_path / f"{name}.csv"
        right = [data.classes[int(data.target_of(k, (8, 8))[0].scores.argmax())] for k in range(len(data))]
        said = [data.classes[(data.classes.index(c) + (step if k % 2 else 0)) % 3] for k, c in enumerate(right)]
        rows = [f"{id},{c}" for id, c in zip(data.ids, said, strict=True)]
        table.write_text("\n".join([f"image,{'labels' if several else 'label'}", *rows]) + "\n")
        found = read_table_of_classes(table, DataImages(data), data.classes, multilabel=several, allow_missing=False)
        metric = new_metric("classification", data.classes, multilabel=several)
        counted = count_predictions(found, data, new_count(data, metric))
        evaluation_of(counted, task="classification", unknown=found.unknown).write(tmp_path / name)
        folders.append(str(tmp_path / name))
    return folders


@pytest.mark.parametrize(("several", "main", "untold"), [(False, "top1", {"ece"}), (True, "micro_f1", {"map", "ece"})])
def test_numbers_that_label_tables_cannot_tell_are_not_compared(tmp_path, photos, capsys, several, main, untold):
    a, b = label_tables(tmp_path, FolderDataset(photos), several=several)
    out = tmp_path / "told.json"
    for asked in ([a, b], ["--group", "old", a, "--group", "new", b]):
        assert run(["compare", *asked, "--out", str(out), "--overwrite"]) == 0
        (pair,) = json.loads(out.read_text())["comparisons"]
        assert pair["main"] == main
        told = json.loads((tmp_path / "a" / "evaluation.json").read_text())["metrics"]
        assert pair["differences"].keys() == told.keys()
        assert not told.keys() & untold
        said = capsys.readouterr().out
        assert f"\n{main} " in said
        assert "ece" not in said
        assert "ap/" not in said
