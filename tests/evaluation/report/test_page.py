"""The page of an evaluation or a training: what stands in it, where its numbers come from, what strangers' text may do."""

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from io import BytesIO
from urllib.parse import parse_qs

import numpy as np
import pytest
from PIL import Image

import visionkit
from tests import evaluations
from visionkit.core.errors import DataError
from visionkit.core.thresholds import Thresholds
from visionkit.evaluation.report import page as page_module
from visionkit.evaluation.report.files import PictureFiles
from visionkit.evaluation.report.page import page, write_report
from visionkit.evaluation.report.shots import size_of
from visionkit.evaluation.report.source import find_source
from visionkit.models.model_digest import model_digest
from visionkit.models.store_thresholds import store_thresholds
from visionkit.prediction.draw import palette
from visionkit.prediction.resuming import note_images

VOID = {"meta", "img", "br"}
OWN = re.compile(  # digits of words, not of what was measured
    r"95\xa0%|90\xa0%|F1|IoU 0\.\d+|top-\d|recall with \d+ box|32 x 32|96 x 96|metrics\.csv|AP50"
)


class Page(HTMLParser):
    """What a page holds."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.text = text
        self.open, self.tags, self.found, self.loose, self.quotes = [], [], [], [], []
        self.attributes = []
        self.ids = []
        self.words = ""
        self.style = self.script = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.attributes.append((tag, attrs))
        if "id" in attrs:
            self.ids.append(attrs["id"])
        if tag == "data":
            self.found.append((attrs["data-key"], float(attrs["value"])))
        elif "data-key" in attrs:
            assert tag in ("path", "span")
        if tag not in VOID:
            self.open.append((tag, attrs))

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, text):
        inside = [tag for tag, _ in self.open]
        quoted = [a["data-key"] for t, a in self.open if t == "span" and "data-key" in a]
        self.quotes += [(key, text) for key in quoted]
        if inside and inside[-1] in ("style", "script"):
            setattr(self, inside[-1], text)
            return
        self.words += text
        quiet = {"data", "bdi", "pre", "code", "svg", "option", "h1", "title", "footer"} & set(inside)
        if not quiet and not quoted and re.search(r"\d", OWN.sub("", text)):
            self.loose.append(text)

    def all(self, tag):
        return [a for t, a in self.attributes if t == tag]


def made(task, tmp_path, **options):
    """An evaluation of a task, read again."""
    evaluations.make(task, tmp_path / "out", tmp_path / "data", **options)
    return find_source(tmp_path / "out")


def shown(source, **options):
    text, _ = page(source, **options)
    return Page(text)


def resolved(key, folder):
    """The number that a key names, read from the files themselves."""
    if " / " in key:
        part, whole = key.split(" / ")
        return resolved(part, folder) / resolved(whole, folder)
    if "?" in key:
        file, _, query = key.partition("?")
        return counted(folder / file, {k: v[0] for k, v in parse_qs(query).items()}, folder)
    file, _, path = key.partition("#")
    path, _, how = path.partition("@")
    found = (
        [json.loads(line) for line in (folder / file).read_text().splitlines()]
        if file.endswith("l")
        else json.loads((folder / file).read_text())
    )
    for part in path.split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        found = found[int(part)] if isinstance(found, list) else found[part]
    if how == "length":
        return len(found)
    if how == "diagonal":
        return sum(row[k] for k, row in enumerate(found))
    return summed(found) if isinstance(found, list) else found


def summed(values):
    if isinstance(values, list):
        return sum(map(summed, values))
    return 1 if isinstance(values, str) else values


def counted(file, query, folder):
    names = json.loads((folder / "evaluation.json").read_text())["classes"]
    name = names[int(query["class"])]
    total = 0
    for line in file.read_text().splitlines():
        truth = json.loads(line)["truth"]
        if "pixels" in truth:
            total += truth["pixels"].get(name, 0)
        elif "objects" in truth:
            total += sum(
                o["label"] == name and not o["crowd"] and query.get("size") in (None, size_of(o["area"]))
                for o in truth["objects"]
            )
        else:
            total += (truth.get("labels") or [truth.get("label")]).count(name)
    return total


@pytest.mark.parametrize("task", evaluations.TASKS)
def test_every_number_is_read_from_a_file(task, tmp_path):
    source = made(task, tmp_path)
    found = shown(source)
    assert len(found.found) > 10
    for key, value in found.found:
        assert value == pytest.approx(resolved(key, tmp_path / "out"), rel=1e-9), key
    assert found.loose == []


@pytest.mark.parametrize("task", evaluations.TASKS)
def test_one_file_that_loads_nothing(task, tmp_path):
    found = shown(made(task, tmp_path))
    assert (found.tags.count("script"), found.tags.count("style")) == (1, 1)
    policy = next(a["content"] for a in found.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    hashes = [base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in (found.style, found.script)]
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )
    assert {"link", "iframe", "object", "base", "form"} & set(found.tags) == set()
    for tag, attrs in found.attributes:
        assert not [k for k in attrs if k.startswith("on") or k == "style"], tag
        for key in ("src", "href"):
            assert attrs.get(key, "#").startswith(("data:image/webp;base64,", "#"))
    assert "url(" not in found.style
    assert "@import" not in found.style
    assert [a["alt"] for a in found.all("img")].count("") == 0
    assert len(set(found.ids)) == len(found.ids)


def test_the_parts_in_their_order(tmp_path):
    evaluations.TrainedRun(tmp_path / "run")
    evaluations.make("classification", tmp_path / "run" / "evaluation", tmp_path / "data")
    found = shown(find_source(tmp_path / "run"))
    parts = [a["id"] for a in found.all("section")]
    assert parts == ["numbers", "next", "training", "confusion", "pictures", "labels", "data", "made"]
    assert [a["href"] for a in found.all("a")] == [f"#{p}" for p in parts]
    assert "<pre>model: {class_path: Classifier}\n# &lt;b&gt;a comment&lt;/b&gt;</pre>" in found.text


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("classification", r"3 of 6 pictures are right \(50\.0.%, 95.% interval .* to .*\)\. Most often cat is taken for dog \(2, 66\.7.% of its pictures\)\. Beware: too few to say: 6 images\."),
        ("labels", r"The labels are found with an average precision of \d\.\d{3}, 95.% interval"),
        ("detection", r"The average precision is 0\.\d{3}.* of the objects are found, and .* of what is marked is right\. The most frequent error: cat is missed \(2, "),
        ("instance", r"The average precision of masks is 0\.\d{3}"),
        ("segmentation", r"\d\d\.\d.% of the pixels are right; mean IoU 0\.\d{3}.*\. Most often dog is taken for bird \(100\.0.% of its pixels\)\."),
    ],
)  # fmt: skip
def test_a_sentence_says_what_is_right_and_what_is_confused(task, words, tmp_path):
    assert re.search(words, shown(made(task, tmp_path)).words)


def test_classes_that_are_too_many_for_a_table_have_a_sentence(tmp_path):
    found = shown(made("classification", tmp_path, confusion=None))
    assert re.search(r"50\.0.% of the pictures are right, 95.% interval .* to ", found.words)


@pytest.mark.parametrize("task", evaluations.TASKS)
def test_three_lines_of_what_to_do(task, tmp_path):
    found = shown(made(task, tmp_path))
    content = re.search(r'<ol class="next">(.*?)</ol>', found.text, re.S)[1]
    assert 2 <= content.count("<li>") <= 3


PARTS = {
    "errors": {
        "metric": "map_50", "value": 0.5, "sentence": "Most would be gained by mending 3 missed objects: AP50 0.5 -> 0.75.",
        "kinds": [{"kind": "missed", "count": 3, "gain": 0.25, "gain_map": 0.2, "words": "objects that nothing finds, found (3)"},
                  {"kind": "confused", "count": 1, "gain": 0.05, "words": "objects taken for another class"}],
    },
    "calibration": {
        "words": "says 0.90 where 0.50 is right: too sure (12 objects)", "temperature": 1.5, "n": 30, "ece": 0.125,
        "bins": [{"low": 0.2, "high": 0.3, "count": 10, "confidence": 0.25, "accuracy": 0.5},
                 {"low": 0.7, "high": 0.8, "count": 20, "confidence": 0.75, "accuracy": 0.6}],
        "classes": {"cat": {"says": 0.9, "is": 0.5, "words": "says 0.90 where 0.50 is right: too sure"}},
    },
    "thresholds": {
        "rule": "precision>=0.95", "words": "precision of 0.95 at least", "level": 0.95, "kind": "objects",
        "chosen_on": {"split": "val", "images": 9, "units": 9}, "told_on": None,
        "classes": {
            "cat": {"threshold": 0.625, "bound": 0.95, "why": None, "more": None, "recall": None,
                    "precision": {"value": 0.96875, "low": 0.5, "high": 1.0, "method": "wilson", "n": 32}},
            "dog": {"threshold": None, "bound": None, "why": "too few", "more": {"images": 40, "things": 60},
                    "precision": None, "recall": None},
        },
    },
    "views": {"views": "flip", "monitor": "map", "cost": 2.0,
              "metrics": {"map": {"plain": 0.5, "several": 0.5625, "gain": 0.0625, "low": -0.25, "high": 0.125}}},
    "ensemble": {"weights": [0.5, 0.5], "fitted": False, "reason": "no val split", "monitor": "map", "cost": 2.5,
                 "members": [{"name": "a", "value": 0.4, "metrics": {"map": 0.4}}, {"name": "b", "value": 0.5, "metrics": {}}],
                 "gain_over_mean": {"value": 0.03125, "low": 0.0, "high": 0.0625},
                 "gain_over_best": {"value": -0.25, "low": None, "high": None, "best": "b"}},
}  # fmt: skip


def test_what_other_parts_of_an_evaluation_say(tmp_path):
    found = shown(made("detection", tmp_path, **PARTS))
    assert PARTS["errors"]["sentence"] in found.words
    assert "The rule precision>=0.95 gives no threshold for dog: label more of it, or ask for less." in found.words
    assert "Certainty: says 0.90 where 0.50 is right: too sure (12 objects)." in found.words
    assert "too few; about 40 more pictures would do" in found.words
    assert "0.969 (0.500 to 1.000) of 32" in found.words
    gained = "0.562 in place of 0.500, a gain of +0.062 (95\xa0% interval -0.250 to +0.125), at 2 times the time."
    assert f"flip in place of one view: average precision (AP) {gained}" in found.words
    assert (
        "+0.031 over the mean of its members (95\xa0% interval +0.000 to +0.062); -0.250 over the best of them, at 2.5"
        in found.words
    )
    assert [a["data-key"] for a in found.all("path") if "data-key" in a] == [
        "evaluation.json#/curves/pr/cat",
        "evaluation.json#/calibration/bins",
    ]
    for key, value in found.found:
        assert value == pytest.approx(resolved(key, tmp_path / "out")), key
    for key, text in found.quotes:
        assert text == resolved(key, tmp_path / "out")
    assert found.loose == []


STRANGE = {
    "<script>alert(1)</script>": "&lt;script&gt;alert(1)&lt;/script&gt;",
    "\u202egnp.exe": "\\u202egnp.exe",
    "شجرة": "<bdi>شجرة</bdi>",
    '"><img src=x onerror=alert(1)>': "&quot;&gt;&lt;img src=x onerror=alert(1)&gt;",
    "a/b~c#d@diagonal / e{}": "<bdi>a/b~c#d@diagonal / e{}</bdi>",
    "x" * 5000: "x" * 5000,
}


@pytest.mark.parametrize("task", evaluations.TASKS)
def test_names_of_strangers_are_text(task, tmp_path):
    names = list(STRANGE)
    data = tmp_path / "<b>da'ta</b>"
    evaluations.make(task, tmp_path / "out", data, names=names)
    found = shown(find_source(tmp_path / "out"))
    assert found.tags.count("script") == 1
    assert all("onerror" not in a for _, a in found.attributes)
    assert "\u202e" not in found.text
    assert "<b>da" not in found.text
    assert all(len(a["src"]) > 100 for a in found.all("img"))
    first = [v for k, v in STRANGE.items() if names.index(k) < 3]
    assert all(value in found.text for value in first)


def test_many_classes_are_pairs_in_place_of_a_matrix(tmp_path):
    names = [f"class {k}" for k in range(200)]
    answers = [(k, (k + 1) % 200 if k < 70 else k, 0.8) for k in range(200)]
    source = made("classification", tmp_path, names=names, answers=answers)
    found = shown(source)
    assert "table" in found.tags
    assert 'class="matrix"' not in found.text
    cells = [a["data-cell"] for a in found.all("button") if "data-cell" in a]
    assert len(cells) == 60
    assert len(found.text) < 1_500_000
    assert "and 10 rarer pairs" in found.words


def test_one_class(tmp_path):
    found = shown(made("classification", tmp_path, names=["cat"], answers=[(0, 0, 1.0)] * 3))
    assert "3 of 3 pictures are right" in found.words
    assert "Nothing is confused." in found.words
    assert not [a for a in found.all("button") if "data-cell" in a]


def test_nothing_right(tmp_path):
    found = shown(made("classification", tmp_path, answers=[(0, 1, 0.99), (1, 0, 0.5)]))
    assert "None of 2 pictures is right (0.0\xa0%" in found.words
    assert "at least 90\xa0% sure" in found.words


def test_one_picture(tmp_path):
    found = shown(made("classification", tmp_path, answers=[(0, 0, 1.0)]))
    assert "1 of 1 picture is right" in found.words
    assert len(found.all("img")) == 1


@pytest.mark.parametrize("task", evaluations.TASKS)
def test_without_records_of_predictions(task, tmp_path):
    source = made(task, tmp_path)
    (tmp_path / "out" / "predictions.jsonl").unlink()
    found = shown(source)
    assert not found.all("img")
    assert "There is nothing to show." in found.words


def test_no_object_was_predicted(tmp_path):
    source = made("detection", tmp_path)
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    empty = [json.dumps(json.loads(line) | {"objects": []}) for line in lines]
    (tmp_path / "out" / "predictions.jsonl").write_text("\n".join(empty) + "\n")
    kinds = {a["data-kinds"] for a in shown(source).all("figure")}
    assert kinds == {"missed"}


def test_pictures_that_are_gone_or_have_changed_are_counted(tmp_path):
    source = made("classification", tmp_path)
    (tmp_path / "data" / "p000.jpg").unlink()
    (tmp_path / "data" / "p001.jpg").write_bytes((tmp_path / "data" / "p002.jpg").read_bytes())
    text, left_out = page(source)
    assert left_out == (
        "1 picture left out: is not there any more",
        "1 picture left out: holds other bytes than when it was measured",
    )
    found = Page(text)
    assert len(found.all("img")) == 4
    assert all(line in found.words for line in left_out)


def test_pictures_that_were_moved_are_found(tmp_path):
    source = made("classification", tmp_path)
    (tmp_path / "data").rename(tmp_path / "moved")
    assert page(source)[1] == ("6 pictures left out: are not there any more",)
    assert page(source, data=tmp_path / "moved")[1] == ()
    (tmp_path / "deeper" / "x").mkdir(parents=True)
    shutil.copytree(tmp_path / "moved", tmp_path / "deeper" / "x" / "y")
    assert page(source, data=tmp_path / "deeper")[1] == ()  # by their names


def test_the_number_of_pictures(tmp_path):
    source = made("classification", tmp_path)
    assert len(shown(source, pictures=2).all("img")) == 2
    found = shown(source, pictures=0)
    assert not found.all("img")
    assert not [a for a in found.all("button") if "data-cell" in a]


def test_the_quality_goes_down_rather_than_the_size_up(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    answers = [(0, 1, 0.5 + k / 100) for k in range(6)]
    evaluations.make("classification", tmp_path / "out", tmp_path / "data", answers=answers)
    lines = []
    for line in (tmp_path / "out" / "images.jsonl").read_text().splitlines():
        record = json.loads(line)
        noise = BytesIO()
        Image.fromarray(rng.integers(0, 255, (150, 150, 3), dtype=np.uint8)).save(noise, "PNG")
        (tmp_path / "data" / record["image"].rpartition("/")[2]).write_bytes(noise.getvalue())
        lines.append(record | {"sha256": hashlib.sha256(noise.getvalue()).hexdigest()})
    source = find_source(tmp_path / "out")
    images = [replaced(i, r["sha256"]) for i, r in zip(source.evaluation.images, lines, strict=True)]
    source.evaluation.images = images
    whole = page(source)[0]
    room = len(whole) // 2
    monkeypatch.setattr(page_module, "ROOM", room)
    small = page(source)[0]
    assert len(small.encode()) <= room
    assert len(Page(small).all("img")) == len(Page(whole).all("img")) == 6


def replaced(image, sha256):
    return type(image)(image.id, sha256, image.group, image.size, image.truth)


def test_cells_are_buttons_where_there_are_pictures_of_them(tmp_path):
    found = shown(made("classification", tmp_path))
    buttons = [a for a in found.all("button") if "data-cell" in a]
    assert [(a["data-cell"], a["aria-label"]) for a in buttons] == [
        ("0,1", "cat taken for dog: 2"),
        ("1,2", "dog taken for bird: 1"),
    ]
    cells = [a["data-cells"] for a in found.all("figure")]
    assert sorted(cells) == ["", "", "", "0,1", "0,1", "1,2"]


def test_each_error_of_boxes_is_cut_out_with_its_kind(tmp_path):
    found = shown(made("detection", tmp_path))
    figures = found.all("figure")
    kinds = sorted(a["data-kinds"] for a in figures)
    assert kinds == ["background sure", "both", "confused sure", "duplicate", "missed", "missed", "poorly_localised"]
    missed = [a for a in figures if a["data-kinds"] == "missed"]
    assert {a["data-cells"] for a in missed} == {"0,3"}
    assert [a["data-cells"] for a in figures if a["data-kinds"] == "poorly_localised"] == ["3,2 2,3"]
    assert {a["data-sizes"] for a in figures} == {"small"}
    buttons = [a["data-kind"] for a in found.all("button") if "data-kind" in a]
    assert set(buttons) == {"missed", "confused", "poorly_localised", "both", "duplicate", "background", "sure"}


def test_a_wrong_box_on_an_object_that_is_found_lies_in_a_cell_that_counts_it(tmp_path):
    cases = [
        ([evaluations.BOX], [0], [evaluations.BOX, evaluations.NEAR], [0, 1], [0.9, 0.8]),  # confused, but found
        (
            [evaluations.BOX],
            [2],
            [evaluations.BOX, evaluations.HALF],
            [2, 2],
            [0.9, 0.7],
        ),  # poorly localised, but found
    ]
    source = made("detection", tmp_path, cases=cases)
    counts = source.facts.get("confusion", "counts")
    assert (counts[0][1], counts[2][3], counts[3][1], counts[3][2]) == (0, 0, 1, 1)
    found = {a["data-kinds"].split()[0]: a["data-cells"] for a in shown(source).all("figure")}
    assert found == {"confused": "3,1", "poorly_localised": "3,2"}


def test_truth_and_prediction_of_pixels_lie_side_by_side(tmp_path):
    source = made("segmentation", tmp_path)
    truth = [np.zeros((48, 64), np.uint8) for _ in range(3)]
    truth[1][6:30, 8:40] = 1
    found = shown(source, truth=lambda k: truth[k])
    assert len(found.all("img")) == 6
    assert found.all("figure")[0]["data-kinds"] == "unseen invented"
    pictures = [np.asarray(Image.open(BytesIO(base64.b64decode(a["src"].partition(",")[2])))) for a in found.all("img")]
    here = [picture[10:26, 12:36].reshape(-1, 3).mean(0) for picture in pictures[:2]]
    colours = np.array(palette(3), float)
    # both lie over the same picture: what differs is half of the colours' difference
    assert here[0] - here[1] == pytest.approx((colours[1] - colours[2]) / 2, abs=8)
    text = found.text
    assert text.index("truth: truth beside") < text.index("prediction: truth beside")


def test_masks_lie_where_all_pictures_that_were_given_put_them(tmp_path):
    source = made("segmentation", tmp_path)
    masks = tmp_path / "out" / "masks"
    (masks / "images").mkdir()
    for mask in masks.glob("p*.png"):
        mask.rename(masks / "images" / mask.name)
    ids = [image.id for image in source.evaluation.images]
    note_images(tmp_path / "out", [*ids, str(tmp_path / "data" / "other" / "not_counted.jpg")])
    text, left_out = page(source, truth=lambda k: np.zeros((48, 64), np.uint8))
    assert left_out == ()
    assert text.count('alt="prediction: ') == text.count('alt="truth: ') == 3


def test_a_mask_that_is_gone_is_counted(tmp_path):
    source = made("segmentation", tmp_path)
    (tmp_path / "out" / "masks" / "p001.png").unlink()
    text, left_out = page(source, truth=lambda k: np.zeros((48, 64), np.uint8))
    assert left_out == ("1 picture shown without the prediction: has no masks of it that could be read",)
    assert "Truth on the left" in text
    shutil.rmtree(tmp_path / "out" / "masks")
    text, left_out = page(source, truth=lambda k: np.zeros((48, 64), np.uint8))
    assert left_out == ("3 pictures shown without the prediction: have no masks of it that could be read",)
    assert "Truth on the left" not in text


def test_a_training_without_an_evaluation(tmp_path):
    evaluations.TrainedRun(tmp_path / "run")
    text, left_out = page(find_source(tmp_path / "run"))
    found = Page(text)
    assert left_out == ()
    assert "The best epoch is 2 (top1 0.750, loss 0.500)." in found.words
    assert (
        f"visionkit evaluate --ckpt {tmp_path / 'run'} --data DATA --out {tmp_path / 'run' / 'evaluation'}"
        in found.words
    )
    assert [a["data-key"] for a in found.all("path") if "data-key" in a] == [
        *("metrics.csv#train/loss", "metrics.csv#val/loss", "metrics.csv#val/top1"),
    ]
    assert [a["alt"] for a in found.all("img")] == ["confusion matrix"]
    assert found.loose == []


def test_the_run_of_an_evaluation_is_found_by_its_checkpoint(tmp_path):
    evaluations.TrainedRun(tmp_path / "run")
    file = tmp_path / "run" / "checkpoints" / "best.ckpt"
    evaluations.make("classification", tmp_path / "out", tmp_path / "data")
    place = tmp_path / "out" / "evaluation.json"
    facts = json.loads(place.read_text())
    for sha256, there in ((hashlib.sha256(b"no checkpoint").hexdigest(), True), ("1" * 64, False)):
        facts["model"]["checkpoints"] = [{"path": str(file), "sha256": sha256, "name": "run"}]
        place.write_text(json.dumps(facts))
        assert ('id="training"' in shown(find_source(tmp_path / "out")).text) == there


def test_thresholds_that_were_stored_meanwhile_do_not_part_an_evaluation_from_its_run(tiny_model, tmp_path):
    evaluations.TrainedRun(tmp_path / "run")
    file = tmp_path / "run" / "checkpoints" / "best.ckpt"
    visionkit.save(tiny_model, file)
    evaluations.make("classification", tmp_path / "out", tmp_path / "data")
    place = tmp_path / "out" / "evaluation.json"
    facts = json.loads(place.read_text())
    facts["model"]["checkpoints"] = [{"path": str(file), "sha256": model_digest(file), "name": "run"}]
    place.write_text(json.dumps(facts))
    store_thresholds(file, Thresholds("f1", {"red": 0.5}))
    assert find_source(tmp_path / "out").run is not None


def test_the_newest_evaluation_of_a_run_is_shown_and_the_others_named(tmp_path):
    import os

    evaluations.TrainedRun(tmp_path / "run")
    for number, name in enumerate(("first", "second")):
        evaluations.make("classification", tmp_path / "run" / name, tmp_path / "data")
        os.utime(tmp_path / "run" / name / "evaluation.json", (number + 1, number + 1))
    source = find_source(tmp_path / "run")
    assert source.folder == tmp_path / "run" / "second"
    assert source.remarks[0] == f"{tmp_path / 'run'} holds several evaluations: the newest is shown, second (not first)"


def checkpoint_of(folder, file, sha256):
    """Let an evaluation say which checkpoint it measured."""
    place = folder / "evaluation.json"
    facts = json.loads(place.read_text())
    facts["model"]["checkpoints"] = [{"path": str(file), "sha256": sha256, "name": "run"}]
    place.write_text(json.dumps(facts))


def test_an_evaluation_of_another_checkpoint_than_the_run_holds_is_called_so(tmp_path):
    evaluations.TrainedRun(tmp_path / "run")
    evaluations.make("classification", tmp_path / "run" / "evaluation", tmp_path / "data")
    sha256 = hashlib.sha256(b"no checkpoint").hexdigest()
    checkpoint_of(tmp_path / "run" / "evaluation", "where/it/was/checkpoints/best.ckpt", sha256)
    assert find_source(tmp_path / "run").remarks == ()
    (tmp_path / "run" / "checkpoints" / "best.ckpt").write_bytes(b"trained anew")
    source = find_source(tmp_path / "run")
    assert len(source.remarks) == 1
    assert "evaluation measured no checkpoint that" in source.remarks[0]
    assert "holds now: evaluate again" in shown(source).words


def test_members_with_their_evaluation(tmp_path):
    folder = tmp_path / "classify-1"
    for number in (1, 2):
        evaluations.TrainedRun(folder / f"member-{number}")
    with pytest.raises(
        DataError, match="members were not evaluated together yet; give one of them, such as .*member-1"
    ):
        find_source(folder)
    evaluations.make("classification", folder / "evaluation", tmp_path / "data")
    first = folder / "member-1" / "checkpoints" / "best.ckpt"
    checkpoint_of(folder / "evaluation", first, hashlib.sha256(b"no checkpoint").hexdigest())
    source = find_source(folder)
    assert (source.folder, source.run.folder, source.remarks) == (folder / "evaluation", folder / "member-1", ())


def test_labels_of_the_names_of_kinds_are_names(tmp_path):
    kinds = [{"kind": kind, "count": 1, "gain": 0.1} for kind in ("right", "missing")]
    found = shown(made("labels", tmp_path, names=["right", "missing", "bird"], errors={"kinds": kinds}))
    part = re.search(r'<section[^>]*id="errors".*?</section>', found.text, re.S)[0]
    assert "<bdi>right</bdi>" in part
    assert "<bdi>missing</bdi>" in part
    assert "<button" not in part


def test_pictures_are_kept_as_long_as_they_are_still_to_be_shown(tmp_path, monkeypatch):
    source = made("classification", tmp_path)
    alive, most = [0], [0]

    class Counted(bytes):
        def __new__(cls, data):
            alive[0] += 1
            most[0] = max(most[0], alive[0])
            return super().__new__(cls, data)

        def __del__(self):
            alive[0] -= 1

    read = PictureFiles.read
    monkeypatch.setattr(PictureFiles, "read", lambda self, image: Counted(read(self, image)))
    assert len(shown(source).all("img")) == 6
    assert most[0] <= 3


def test_a_table_of_a_training_that_is_none(tmp_path):
    evaluations.TrainedRun(tmp_path / "run")
    (tmp_path / "run" / "metrics.json").write_text('{"epoch": 2, "val/top1": 1' + "0" * 400 + "}")
    assert find_source(tmp_path / "run").run.best == {"epoch": 2.0}
    (tmp_path / "run" / "metrics.csv").write_text("epoch,val/loss\n1," + "9" * 200_000 + "\n")
    with pytest.raises(DataError, match=r"metrics\.csv:\d: is no table \(field larger than"):
        find_source(tmp_path / "run")


@pytest.mark.parametrize(
    ("place", "words"),
    [(("confusion", "counts", 0, 0), "a count is larger"), (("metrics", "top1", "value"), "are numbers or null")],
)
def test_numbers_that_no_float_holds(place, words, tmp_path):
    made("classification", tmp_path)
    file = tmp_path / "out" / "evaluation.json"
    told = holder = json.loads(file.read_text())
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = 10**400
    file.write_text(json.dumps(told))
    with pytest.raises(DataError, match=f"evaluation.json: .*{words}.*; evaluate again"):
        find_source(tmp_path / "out")


@pytest.mark.parametrize("columns", [0, 1, 2])
def test_a_table_of_confusions_that_is_not_square(columns, tmp_path):
    made("classification", tmp_path)
    file = tmp_path / "out" / "evaluation.json"
    told = json.loads(file.read_text())
    confusion = told["confusion"]
    confusion |= {"columns": confusion["columns"][:columns], "counts": [row[:columns] for row in confusion["counts"]]}
    confusion["images"] = {}
    file.write_text(json.dumps(told))
    assert page(find_source(tmp_path / "out"))[0].endswith("</html>\n")


def test_thirty_classes_of_boxes_are_a_matrix(tmp_path):
    names = [f"class {k}" for k in range(31)]
    assert 'class="matrix"' in shown(made("detection", tmp_path / "a", names=names[:30])).text
    assert 'class="matrix"' not in shown(made("detection", tmp_path / "b", names=names)).text


@pytest.mark.parametrize("line", ["", "{", "[1]", '{"label": 3}', '{"image": 7}'])
def test_damaged_records_are_one_line(line, tmp_path):
    source = made("classification", tmp_path)
    (tmp_path / "out" / "predictions.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match="predictions.jsonl:1: .*evaluate again") as e:
        page(source)
    assert len(e.value.lines) == 1


def test_records_with_odd_values_are_read_past(tmp_path):
    source = made("detection", tmp_path)
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    odd = [
        {"label": "cat", "score": float("nan"), "box": [0, 0, 1, 1]},
        {"label": "yak", "score": 1, "box": [0, 0, 1, 1]},
        3,
        {},
    ]
    first["objects"] = [*odd, *first["objects"]]
    (tmp_path / "out" / "predictions.jsonl").write_text("\n".join([json.dumps(first), *lines[1:]]) + "\n")
    found = shown(source)
    duplicate = next(k for k, v in found.found if k.startswith("predictions.jsonl#/0/"))
    assert duplicate == "predictions.jsonl#/0/objects/5/score"


def test_neither_a_run_nor_an_evaluation(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        find_source(tmp_path / "none")
    with pytest.raises(DataError, match="holds neither evaluation.json"):
        find_source(tmp_path)


def test_it_is_written(tmp_path):
    source = made("classification", tmp_path)
    assert write_report(source, tmp_path / "new" / "a.html") == ()
    assert (tmp_path / "new" / "a.html").read_text().startswith("<!DOCTYPE html>")


@pytest.mark.slow
def test_two_hundred_photos(tmp_path, data_root):
    root = data_root / "classification" / "imagenette224"
    names = sorted(p.name for p in (root / "val").iterdir())
    paths = [p for name in names for p in sorted((root / "val" / name).iterdir())[:20]]
    answers = [(k // 20, (k // 20 + k % 2) % 10, 0.5 + (k % 50) / 100) for k in range(200)]
    evaluations.classes(tmp_path / "out", root, names, answers, paths)
    text, left_out = page(find_source(tmp_path / "out"))
    found = Page(text)
    assert left_out == ()
    assert len(found.all("img")) == 200
    assert 500_000 < len(text.encode()) <= 1_500_000


JUNK = (None, 3, -1.5, True, "x", [], {}, ["x"], {"x": 1}, [[1]], "9" * 400)


def places(value, path=()):
    """All places in a JSON value, but for the outermost one."""
    for key, one in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, key)
        if isinstance(one, dict | list):
            yield from places(one, (*path, key))


def mutants(told, seed, count):
    rng = np.random.default_rng(seed)
    every = [p for p in places(told) if p[0] not in ("metrics", "worst")]
    for _ in range(count):
        changed = json.loads(json.dumps(told))
        for place in rng.choice(len(every), 2):
            holder = changed
            try:
                for key in every[place][:-1]:
                    holder = holder[key]
                holder[every[place][-1]] = JUNK[rng.integers(len(JUNK))]
            except (KeyError, IndexError, TypeError):  # the first one took its place away
                pass
        yield changed


@pytest.mark.parametrize(("task", "count"), [("detection", 40), pytest.param("detection", 2000, marks=pytest.mark.slow),
                                              pytest.param("classification", 500, marks=pytest.mark.slow)])  # fmt: skip
def test_odd_values_are_shown_or_refused_in_one_line(task, count, tmp_path):
    evaluations.make(task, tmp_path / "out", tmp_path / "data", **PARTS)
    place = tmp_path / "out" / "evaluation.json"
    told = json.loads(place.read_text())
    ends = []
    for changed in mutants(told, 0, count):
        place.write_text(json.dumps(changed))
        try:
            ends.append(page(find_source(tmp_path / "out"), pictures=0)[0][-8:])
        except DataError as e:
            ends.append(len(e.lines))
    assert set(ends) == {"</html>\n", 1}
    assert ends.count(1) < 0.75 * count
