"""Tables of classes, measured as scikit-learn measures them."""

import csv
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from tests.scenes import picture
from visionkit import DataError, UsageError
from visionkit.evaluation.inputs.reading import read_predictions
from visionkit.tasks.classification.metric import ClassificationMetric
from visionkit.tasks.classification.readers.manifest import ManifestDataset

NAMES = ("cat", "cow", "dog", "emu", "fox", "gnu", "hen")


def scene(folder, images=30, seed=0, several=False):
    """Pictures of one of seven classes, or of several, listed in a manifest."""
    rng = np.random.default_rng(seed)
    column = "labels" if several else "label"
    lines = [f"path,{column}"]
    for k in range(images):
        picture(folder / f"pictures/{k:03d}.png", (4, 5))
        chosen = [n for n in NAMES if rng.random() < 0.3] if several else [NAMES[k] if k < 7 else rng.choice(NAMES)]
        lines.append(f"pictures/{k:03d}.png,{'|'.join(chosen)}")
    (folder / "data.csv").write_text("\n".join(lines) + "\n")
    return ManifestDataset(folder / "data.csv", classes=NAMES)


def probabilities(images=30, seed=0, several=False):
    rng = np.random.default_rng(seed + 5)
    if several:
        return rng.random((images, len(NAMES)))
    return rng.dirichlet(np.full(len(NAMES), 0.4), images)


def write(folder, rows, name="predicted.csv"):
    file = folder / name
    if name.endswith("l"):
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return file
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


def read(file, data, **options):
    return read_predictions(file, task="classification", dataset=data, classes=data.classes, **options)


def measured(found, data):
    metric = ClassificationMetric(data.classes, multilabel=data.multilabel)
    for k in found:
        metric.update([found[k]], [data.target_of(k, (4, 5))[0]])
    return metric.compute()


def truth(data):
    return np.array([np.isin(np.arange(len(NAMES)), e.labels) for e in data.entries])


@pytest.mark.parametrize("name", ["predicted.csv", "predicted.jsonl"])
@pytest.mark.parametrize("prefix", ["", "probabilities/"])
def test_a_column_a_class_is_measured_as_by_scikit_learn(tmp_path, name, prefix):
    data, values = scene(tmp_path), probabilities()
    rows = [
        {"image": f"pictures/{k:03d}.png", **{prefix + n: v for n, v in zip(NAMES, row.tolist(), strict=True)}}
        for k, row in enumerate(values)
    ]
    found = read(write(tmp_path, rows[::-1], name), data)
    assert found.remarks == found.missing == found.unknown == ()
    told, true = measured(found, data), truth(data).argmax(1)
    assert float(told["top1"]) == pytest.approx(sklearn.accuracy_score(true, values.argmax(1)), abs=1e-6)
    assert float(told["top5"]) == pytest.approx(sklearn.top_k_accuracy_score(true, values, k=5), abs=1e-6)
    assert float(told["macro_f1"]) == pytest.approx(sklearn.f1_score(true, values.argmax(1), average="macro"), abs=1e-6)
    recalls = sklearn.recall_score(true, values.argmax(1), average=None)
    for name, recall in zip(NAMES, recalls, strict=True):
        assert float(told[f"accuracy/{name}"]) == pytest.approx(recall, abs=1e-6)
    assert (told["confusion_matrix"].numpy() == sklearn.confusion_matrix(true, values.argmax(1))).all()


def test_several_labels_are_measured_as_by_scikit_learn(tmp_path):
    data, values = scene(tmp_path, several=True), probabilities(several=True)
    rows = [{"image": f"{k:03d}", **dict(zip(NAMES, row.tolist(), strict=True))} for k, row in enumerate(values)]
    told, true = measured(read(write(tmp_path, rows), data), data), truth(data)
    for k, name in enumerate(NAMES):
        expected = sklearn.average_precision_score(true[:, k], values[:, k])
        assert float(told[f"ap/{name}"]) == pytest.approx(expected, abs=1e-6)
    expected = sklearn.average_precision_score(true, values, average="macro")
    assert float(told["map"]) == pytest.approx(expected, abs=1e-6)
    for kind in ("micro", "macro"):
        expected = sklearn.f1_score(true, values >= 0.5, average=kind)
        assert float(told[f"{kind}_f1"]) == pytest.approx(expected, abs=1e-6)


def test_labels_alone_tell_what_they_can(tmp_path):
    data, best = scene(tmp_path), probabilities().argmax(1)
    rows = [{"file_name": f"{k:03d}.png", "label": NAMES[i]} for k, i in enumerate(best)]
    found = read(write(tmp_path, rows), data)
    assert found.unknown == ("top5", "ece")
    assert "labels alone do not tell top5, ece, which is left out; give a column for each class" in found.remarks[0]
    told, true = measured(found, data), truth(data).argmax(1)
    assert float(told["top1"]) == pytest.approx(sklearn.accuracy_score(true, best), abs=1e-6)
    assert found[0].probabilities.sum() == 1


def test_a_score_of_the_label_is_its_probability(tmp_path):
    data = scene(tmp_path)
    rows = [{"image": f"{k:03d}.png", "label": "dog", "score": 0.4} for k in range(30)]
    found = read(write(tmp_path, rows), data)
    assert found.unknown == ("top5",)
    assert found[3].probabilities.tolist() == pytest.approx([0.1, 0.1, 0.4, 0.1, 0.1, 0.1, 0.1])


@pytest.mark.parametrize("score", [1 / 7, 0.1428, 0.1429])
def test_of_a_tie_the_label_wins(tmp_path, score):
    data, k = scene(tmp_path, 7), 7
    rows = [{"image": f"{i:03d}.png", "label": NAMES[i], "score": score} for i in range(k)]
    found = read(write(tmp_path, rows), data)
    assert [int(found[i].probabilities.argmax()) for i in range(k)] == list(range(k))
    assert found[3].probabilities.tolist() == pytest.approx([1 / 7] * 7, abs=1e-4)


def test_two_classes_of_one_half(tmp_path):
    (tmp_path / "data.csv").write_text("path,label\na.png,no\nb.png,yes\n")
    for name in "ab":
        picture(tmp_path / f"{name}.png", (4, 5))
    data = ManifestDataset(tmp_path / "data.csv", classes=("no", "yes"))
    found = read(write(tmp_path, [{"image": f"{i}.png", "label": "yes", "score": 0.5} for i in "ab"]), data)
    assert [int(found[i].probabilities.argmax()) for i in range(2)] == [1, 1]


def test_labels_of_several_classes(tmp_path):
    data = scene(tmp_path, 2, several=True)
    found = read(write(tmp_path, [{"image": "000.png", "labels": "dog|cat"}, {"image": "001.png", "labels": ""}]), data)
    assert found.unknown == ("map", "ap/", "ece")
    assert found[0].probabilities.tolist() == [1, 0, 1, 0, 0, 0, 0]
    assert found[1].probabilities.sum() == 0
    found = read(write(tmp_path, [{"image": f"00{k}.png", "labels": ["fox"]} for k in (0, 1)], "p.jsonl"), data)
    assert found[1].probabilities.argmax() == 4


def row(**values):
    return {"image": "001.png"} | dict.fromkeys(NAMES, 0.0) | {"cat": 1.0} | values


WITHOUT = {k: v for k, v in row().items() if k != "cow"}
BROKEN = {
    "a strange class": ({"image": "001.png", "label": "dogs"}, r":3: class 'dogs' is not one of.*did you mean 'dog'"),
    "no class": ({"image": "001.png", "label": ""}, r":3: 0 labels, and an image of the data has one"),
    "two classes": ({"image": "001.png", "label": "cat|dog"}, r":3: 2 labels, and an image of the data has one"),
    "a low score": ({"image": "001.png", "label": "dog", "score": 0.13}, r":3: the score 0\.13 cannot be that of the mo"),
    "a sum of two": (row(dog=1.0), r":3: the probabilities sum to 2, not to 1; give those of a softmax"),
    "a logit": (row(dog=-4.0), r":3: the probability of dog is -4, not from 0 to 1"),
    "no number": (row(dog="much"), r":3: the probability of dog is 'much'; give a number from 0 to 1"),
    "NaN": (row(dog="nan"), r":3: the probability of dog is 'nan'"),
    "a class without column": (WITHOUT, r":2: no column for the class 'cow' of the data beside those of others"),
    "another name of a class": (WITHOUT | {"cows": 0}, r":2: no column for the class 'cow' .*; is it 'cows'\?"),
    "no class at all": ({"image": "001.png", "size": 3}, r":2: no column 'label' and none of a class among image, size"),
    "an image twice": (row(image="000.png"), r":3: 000\.png has a prediction already, .*csv:2; keep one"),
    "a strange image": (row(image="999.png"), r": 999\.png: no such image in the data"),
    "no image": (row(image=""), r":3: names no image; write its file"),
}  # fmt: skip


@pytest.mark.parametrize(("broken", "words"), BROKEN.values(), ids=BROKEN)
def test_what_is_wrong_is_named_with_its_line(tmp_path, broken, words):
    data = scene(tmp_path, 7)
    good = {k: "000.png" if k == "image" else v for k, v in broken.items()}
    good |= {k: v for k, v in {"label": "dog", "score": 0.9}.items() if k in broken}
    good |= {k: v for k, v in row().items() if k in broken and k != "image"}
    with pytest.raises(DataError, match="predicted.csv" + words):
        read(write(tmp_path, [good, broken]), data)


def test_images_without_a_prediction_are_refused_or_left_out(tmp_path):
    data = scene(tmp_path, 3 + 4)
    file = write(tmp_path, [{"image": f"{k:03d}.png", "label": "dog"} for k in (4, 1)])
    with pytest.raises(DataError, match=r"5 of 7 images have no prediction \(first: .*000\.png\); .*--allow-missing"):
        read(file, data)
    found = read(file, data, allow_missing=True)
    assert list(found) == [1, 4]
    assert len(found.missing) == 5
    assert "they are left out" in found.remarks[0]


def test_what_is_no_table(tmp_path):
    data = scene(tmp_path, 7)
    for name, content, words in (
        ("empty.csv", b"", "is empty"),
        ("head.csv", b"image,label\n", "holds no predictions"),
        ("cells.csv", b"image,label\n000.png\n", "1 cells where the header has 2"),
        ("list.json", b"[]", "is a JSON list, as COCO results are, and the data want classes; understood are a table"),
        ("photo.csv", b"\x89PNG\0\0", "is no text"),
        ("packed.json.gz", b"\x1f\x8b\x08", r"is compressed \(unpack it first\)"),
        ("latin.csv", "image,label\ncaf\u00e9.png,dog\n".encode("latin-1"), "latin.csv:2: is not UTF-8 text"),
        ("cut.jsonl", b'{"image": "000.png", "label": \n', r"cut\.jsonl:1: no valid JSON"),
        ("names.csv", b"picture,label\n000.png,dog\n", "no column 'image' among picture, label"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises((DataError, UsageError), match=words):
            read(tmp_path / name, data)
    with pytest.raises(DataError, match=r"none\.csv: no such file or folder of predictions"):
        read(tmp_path / "none.csv", data)
    (tmp_path / "best.ckpt").write_bytes(b"PK")
    with pytest.raises(UsageError, match="is a checkpoint or the folder of a run, no predictions; give it as --ckpt"):
        read(tmp_path / "best.ckpt", data)


@given(
    st.lists(st.lists(st.floats(2**-10, 1, width=32), min_size=7, max_size=7), min_size=3, max_size=3), st.booleans()
)
@settings(max_examples=20)
def test_what_is_written_is_read(tmp_path_factory, values, several):
    folder = tmp_path_factory.mktemp("table")
    data = scene(folder, 3, several=several)
    table = torch.tensor(values, dtype=torch.float32)
    table = table if several else table / table.sum(1, keepdim=True)
    rows = [{"image": data.ids[k], **dict(zip(NAMES, line, strict=True))} for k, line in enumerate(table.tolist())]
    for name in ("a.csv", "a.jsonl"):
        found = read(write(folder, rows, name), data)
        assert torch.equal(torch.stack([found[k].probabilities for k in found]), table)
