from pathlib import Path

from visionkit.cli.summary import summary_of
from visionkit.core.tally import Tally
from visionkit.prediction.files import PredictionRun

OUT = Path("preds")


def run(tallies, first=(), files=("predictions.csv",), count=3):
    return PredictionRun(
        OUT / "predictions.jsonl", count, [], 1.25, files=[OUT / f for f in files], tallies=tallies, first=first
    )


def test_a_classifier():
    first = [("in/a/1.jpg", "cat 0.91"), ("in/b/2.jpg", "dog 0.55"), ("in/b/33.jpg", "cat 0.40")]
    assert summary_of(run({"classes": Tally({"cat": 2, "dog": 1})}, first), "preds", save_images=False) == [
        "3 predictions in 1.2 s: preds/predictions.jsonl",
        "classes  cat 2, dog 1",
        "first    a/1.jpg   cat 0.91",
        "         b/2.jpg   dog 0.55",
        "         b/33.jpg  cat 0.40",
        "files    preds: predictions.csv",
        "hint     --save-images also draws what was found, into images/ there",
    ]


def test_objects_say_from_which_score_on_and_folders_stand_once():
    tally = Tally({"RBC": 12, "WBC": 1}, which="from score 0.3 on")
    lines = summary_of(
        run({"objects": tally}, [("x/a.jpg", "none")], ("predictions.csv", "images", "det/labels", "det/predictions.csv")),
        "preds", save_images=True,
    )  # fmt: skip
    assert lines[1:] == [
        "objects  RBC 12, WBC 1 (13 in all, from score 0.3 on)",
        "first    a.jpg  none",
        "files    preds: predictions.csv, images/, det/",
    ]
    none = Tally({}, which="from score 0.5 on")
    assert summary_of(run({"objects": none}), "preds", save_images=True)[1] == "objects  none from score 0.5 on"


def test_many_classes_long_names_and_many_heads_stay_ten_lines_of_eighty_columns():
    names = {f"a class of a rather long name {k}": k + 1 for k in range(1000)}
    said = ", ".join(f"{name} 1" for name in names)
    first = [(f"pictures/{k}/{'deep/' * 30}{k}.jpg", said) for k in range(3)]
    heads = {f"head{k}": Tally(names, which="from score 0.3 on") for k in range(5)}
    files = [f"head{k}/predictions.csv" for k in range(40)]
    lines = summary_of(run(heads, first, files), "preds", save_images=False)
    assert len(lines) <= 10
    assert max(map(len, lines)) <= 80
    assert "999 more (500,500 in all, from score 0.3 on)" in lines[1]
    assert "  ...ep/" in lines[4]
    assert lines[4].endswith("999 more")


def test_nothing_predicted_says_so_alone():
    assert summary_of(run({}, count=0), "preds", save_images=False) == [
        "0 predictions in 1.2 s: preds/predictions.jsonl"
    ]


def test_names_cannot_act():
    lines = summary_of(
        run({"classes": Tally({"a\x1b[2J": 1})}, [("d/b\n.jpg", "a\x1b[2J 1")]), "preds", save_images=True
    )
    assert all(line.isprintable() for line in lines)


def test_many_files_take_two_lines():
    files = ["predictions.csv", "predictions.coco.json", "predictions.coco_images.json", "labels", "crops", "images"]
    lines = summary_of(run({}, files=files), "preds", save_images=True)
    assert lines[1:] == [
        "files    preds: predictions.csv, predictions.coco.json,",
        "         predictions.coco_images.json, labels/, crops/, images/",
    ]
