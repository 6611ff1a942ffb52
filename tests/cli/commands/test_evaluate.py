"""visionkit evaluate: the numbers of validate with intervals, the folder, what it says, what it refuses."""

import csv
import json
import shutil
from contextlib import redirect_stderr, redirect_stdout
from functools import cache, partial, partialmethod
from io import StringIO

import pytest
import torch

import visionkit
from tests import corpus
from visionkit import (
    FPN,
    ClassificationData,
    FCNHead,
    FCOSHead,
    LinearHead,
    MaskRCNNHead,
    Preprocessing,
    ResNet,
    Task,
    VisionModel,
)
from visionkit.cli.main import run
from visionkit.cli.measured import data_for
from visionkit.data.loading import EvaluationView, evaluation_loader
from visionkit.evaluation.ensembling import MembersJudged
from visionkit.evaluation.folder import read_evaluation
from visionkit.evaluation.measures import measure
from visionkit.evaluation.view_gain import gain_of_views
from visionkit.models.model_digest import model_digest

CLASSES = {"classification": ("cat", "dog"), "detection": ("cat", "dog"), "instance": ("cat", "dog"),
           "segmentation": ("background", "cat", "dog")}  # fmt: skip
WRITERS = {"classification": corpus.class_folders, "detection": corpus.coco, "instance": corpus.coco,
           "segmentation": corpus.mask_folders}  # fmt: skip


def model(task, classes=None, **head):
    """A network that was never trained, and says enough to be wrong in every way."""
    torch.manual_seed(3)
    backbone = ResNet(layers=(1, 1, 1, 1), block="basic")

    def make(features, number):
        if task == "classification":
            return LinearHead(features, number, **head)
        if task == "segmentation":
            return FCNHead(features, number)
        if task == "detection":
            return FCOSHead(features, number, channels=16, depth=1, score_threshold=0.0)
        small = {"width": 16, "mask_channels": 8, "mask_depth": 1, "score_threshold": 0.0}
        return MaskRCNNHead(features, number, **small)

    neck = {"neck": lambda f: FPN(f, channels=16, max_level=5)} if task in ("detection", "instance") else {}
    made = VisionModel(backbone, make, classes or CLASSES[task], preprocessing=Preprocessing(64), **neck).eval()
    with torch.no_grad():
        if task == "classification":  # else all pictures look alike
            made.head.classifier[-1].weight.mul_(30)
    return made


@pytest.fixture(autouse=True, scope="module")
def few_draws():
    """Intervals have tests of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("visionkit.evaluation.evaluate.measure", partial(measure, draws=20))
        patch.setattr("visionkit.cli.evaluating.gain_of_views", partial(gain_of_views, draws=20))
        patch.setattr(MembersJudged, "entry", partialmethod(MembersJudged.entry, draws=20))
        patch.setattr("visionkit.evaluation.model_weights.DRAWS", 20)
        yield


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A checkpoint and a data set for each task."""
    root = tmp_path_factory.mktemp("places")
    found = {}
    for task, write in WRITERS.items():
        ckpt, data = root / f"{task}.ckpt", root / task
        visionkit.save(model(task), ckpt)
        found[task] = (str(ckpt), str(write(data)))
    return found


@pytest.fixture(scope="module")
def whole(places, few_draws, tmp_path_factory):
    """The folder of an evaluation of each task, and what was said."""
    root = tmp_path_factory.mktemp("whole")

    @cache
    def made(task):
        ckpt, data = places[task]
        out = root / task
        given = ["evaluate", "--ckpt", ckpt, "--data", data, "--precision", "32", "--num-workers", "0"]
        with redirect_stdout(StringIO()) as said, redirect_stderr(StringIO()) as wrong:
            assert run([*given, "--out", str(out)]) == 0
        return out, said.getvalue(), wrong.getvalue()

    return made


@pytest.fixture
def evaluate(tmp_path, capsys):
    """Run the command into a folder; return what it prints and says as errors."""

    def call(*arguments, out="out", status=0):
        capsys.readouterr()
        given = ["evaluate", *map(str, arguments), "--out", str(tmp_path / out)]
        assert run(given) == status, capsys.readouterr().err
        return capsys.readouterr()

    return call


def validated(ckpt, dataset):
    """Return the numbers of the validation step itself."""
    made = visionkit.load(ckpt)
    task = Task(made)
    task._start_evaluation("val")
    with torch.no_grad():
        for batch in evaluation_loader(EvaluationView(dataset, made.preprocessing), batch_size=7, workers=0):
            task._evaluation_step("val", batch)
    return {k: float(v) for k, v in task.metric("val").compute().items() if v.ndim == 0}


@pytest.mark.parametrize("task", WRITERS)
def test_numbers_are_those_of_validate(places, whole, task):
    ckpt, root = places[task]
    out, said, wrong = whole(task)
    told = read_evaluation(out)
    dataset = data_for(root, task=task, classes=CLASSES[task]).dataset
    expected = validated(ckpt, dataset)
    assert {k: m.value for k, m in told.metrics.items()} == pytest.approx(expected, abs=1e-6)
    again = {k: float(v) for k, v in told.metric.compute().items() if v.ndim == 0}
    assert again == pytest.approx(expected, abs=1e-6)
    assert [image.id for image in told.images] == list(dataset.ids)
    assert all(len(line) <= 80 or root in line or str(out) in line for line in said.splitlines()), said
    assert f"visionkit report {out}" in said
    assert told.data["split"] == "val"
    assert wrong == "", "the data bring a val split: nothing to warn of"


@pytest.mark.parametrize("task", WRITERS)
def test_predictions_are_those_of_predict(places, whole, tmp_path, task):
    out, *_ = whole(task)
    pictures = [image.id for image in read_evaluation(out).images]
    assert run(["predict", "--ckpt", places[task][0], "--out", str(tmp_path), "--precision", "32", *pictures]) == 0
    files = [(folder / "predictions.jsonl").read_text() for folder in (out, tmp_path)]
    assert files[0] == files[1]
    assert next(iter(json.loads(files[0].splitlines()[0]))) == "image"
    if task == "segmentation":
        masks = [[m.read_bytes() for m in sorted((folder / "masks").glob("*.png"))] for folder in (out, tmp_path)]
        assert masks[0] == masks[1] != []


def test_the_folder_says_where_it_goes_wrong(places, whole):
    out, *_ = whole("classification")
    told = json.loads((out / "evaluation.json").read_text())
    records = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    images = [json.loads(line) for line in (out / "images.jsonl").read_text().splitlines()]
    assert [r["image"] for r in records] == [i["image"] for i in images]
    pairs = [(i["truth"]["label"], r["label"]) for i, r in zip(images, records, strict=True)]
    names = told["confusion"]["names"]
    for r, row in enumerate(told["confusion"]["counts"]):
        for c, n in enumerate(row):
            members = [k for k, pair in enumerate(pairs) if pair == (names[r], names[c])]
            assert n == len(members)
            if r != c:
                assert sorted(told["confusion"]["images"].get(f"{r},{c}", [])) == members
    wrong = [k for k, (true, found) in enumerate(pairs) if true != found]
    assert wrong
    assert told["worst"][: len(wrong)] == sorted(wrong, key=lambda k: -records[k]["score"]), "wrong and certain first"
    assert told["metrics"]["top1"]["value"] == pytest.approx(1 - len(wrong) / 30)
    assert told["metrics"]["top1"]["method"] == "wilson"
    assert told["model"]["checkpoints"][0]["path"] == places["classification"][0]
    assert told["model"]["seconds_per_image"] > 0


def test_classes_are_joined_by_name(places, whole, evaluate, tmp_path):
    """The same model with its classes in another order, and one that the data lack, has the same numbers."""
    _, root = places["classification"]
    made = model("classification", ("dog", "cat", "emu"))
    plain = model("classification")
    with torch.no_grad():
        layer, other = made.head.classifier[-1], plain.head.classifier[-1]
        layer.weight[:2], layer.bias[:2] = other.weight.flip(0), other.bias.flip(0)
        layer.weight[2], layer.bias[2] = 0, -1e4
    visionkit.save(made, tmp_path / "other.ckpt")
    said = evaluate("--ckpt", tmp_path / "other.ckpt", "--data", root, "--precision", "32")
    one, usual = (read_evaluation(out).metrics for out in (tmp_path / "out", whole("classification")[0]))
    assert one["top1"].value == usual["top1"].value
    assert one["accuracy/dog"].value == usual["accuracy/dog"].value
    assert "1 of the 3 classes is in none of the pictures: emu" in " ".join(said.out.split())


@pytest.mark.parametrize("task", ["classification", "detection"])
def test_a_class_that_the_model_does_not_know_is_refused(places, evaluate, tmp_path, task):
    visionkit.save(model(task, ("cat", "Dog")), tmp_path / "other.ckpt")
    said = evaluate("--ckpt", tmp_path / "other.ckpt", "--data", places[task][1], status=1).err
    assert "class 'dog' is not one of cat, Dog; did you mean 'Dog'?" in said
    assert "that the model does not know" in said
    assert not (tmp_path / "out").exists()


def test_a_class_that_is_not_in_this_split_does_not_matter(places, evaluate, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(places["detection"][1], root)
    file = root / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    content["categories"].append({"id": 9, "name": "emu"})
    content["annotations"][0]["category_id"] = 9
    file.write_text(json.dumps(content))
    evaluate("--ckpt", places["detection"][0], "--data", root)


def test_damaged_pictures_are_named_and_left_out(places, evaluate, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(places["classification"][1], root)
    (root / "val" / "cat" / "val00.jpg").write_bytes(b"")
    (root / "val" / "dog" / "val01.jpg").write_bytes((root / "val" / "dog" / "val01.jpg").read_bytes()[:300])
    said = evaluate("--ckpt", places["classification"][0], "--data", root, status=1)
    assert "val00.jpg: the file is empty" in said.err
    assert said.err.rstrip().endswith("error: 2 of 30 pictures are left out of all numbers")
    assert "of 28 pictures" in said.out
    assert len(read_evaluation(tmp_path / "out").images) == 28
    for file in root.glob("val/*/*.jpg"):
        file.write_bytes(b"")
    said = evaluate("--ckpt", places["classification"][0], "--data", root, out="none", status=1)
    assert "no picture is left to count" in said.err
    assert not (tmp_path / "none" / "evaluation.json").exists()


def test_an_evaluation_is_not_replaced_unasked(places, evaluate, tmp_path):
    ckpt, root = places["classification"]
    evaluate("--ckpt", ckpt, "--data", root)
    before = (tmp_path / "out" / "evaluation.json").read_bytes()
    said = evaluate("--ckpt", "nothing.ckpt", "--data", root, status=2).err
    assert "already holds evaluation.json: choose another --out, or replace it with --overwrite" in said
    assert (tmp_path / "out" / "evaluation.json").read_bytes() == before
    evaluate("--ckpt", ckpt, "--data", root, "--overwrite", "--split", "train")
    assert read_evaluation(tmp_path / "out").data["split"] == "train"


def test_views_tell_their_gain_and_cost(places, whole, evaluate, tmp_path):
    ckpt, root = places["classification"]
    said = evaluate("--ckpt", ckpt, "--data", root, "--flip", "--precision", "32")
    told = read_evaluation(tmp_path / "out")
    plain = read_evaluation(whole("classification")[0])
    entry = told.views
    assert (entry["views"], entry["monitor"]) == ("--flip", "top1")
    one = entry["metrics"]["top1"]
    assert one["plain"] == plain.metrics["top1"].value
    assert one["several"] == told.metrics["top1"].value
    assert one["gain"] == pytest.approx(one["several"] - one["plain"])
    assert one["low"] <= one["gain"] <= one["high"]
    assert entry["cost"] > 0
    assert "views" in said.out
    assert told.model["views"] == "--flip"


def test_a_head_of_a_joint_model(places, evaluate, tmp_path):
    classes = ["animal/cat", "animal/dog", "sky/day", "sky/night"]
    torch.manual_seed(0)
    backbone = ResNet(layers=(1, 1, 1, 1), block="basic")
    joint = visionkit.MultiTask(backbone, {"animal": LinearHead, "sky": LinearHead}, lambda f: FPN(f, channels=16),
                                classes, preprocessing=Preprocessing(64)).model  # fmt: skip
    visionkit.save(joint.eval(), tmp_path / "joint.ckpt", task="visionkit.MultiTask")
    root = places["classification"][1]
    said = evaluate("--ckpt", tmp_path / "joint.ckpt", "--data", root, status=2).err
    assert "it has the heads animal, sky, and one is evaluated at a time: add --head animal" in said
    said = evaluate("--ckpt", tmp_path / "joint.ckpt", "--data", root, "--head", "dog", status=2).err
    assert "--head dog: there is no such head; it has the heads animal, sky" in said
    evaluate("--ckpt", tmp_path / "joint.ckpt", "--data", root, "--head", "animal")
    assert tuple(read_evaluation(tmp_path / "out").classes) == ("cat", "dog")
    said = evaluate("--ckpt", places["classification"][0], "--data", root, "--head", "animal", out="x", status=2).err
    assert "has one head alone: leave --head out" in said


def test_boxes_alone_of_a_model_that_finds_masks(places, evaluate, tmp_path):
    ckpt, root = places["instance"]
    evaluate("--ckpt", ckpt, "--data", root, "--task", "detection")
    told = read_evaluation(tmp_path / "out")
    assert told.task == "detection"
    assert not any(key.startswith("mask_") for key in told.metrics)
    said = evaluate("--ckpt", ckpt, "--data", root, "--task", "segmentation", out="x", status=2).err
    assert "is for instance (or detection, for its boxes alone): leave --task out" in said


def test_several_labels_at_a_threshold(places, evaluate, tmp_path):
    root = tmp_path / "data"
    names = corpus.pictures(root / "p", "val")
    rows = [f"p/{name}.jpg,{'cat|dog' if i % 3 == 0 else corpus.NAMES[label]},video{i // 5}"
            for i, (name, label) in enumerate(names)]  # fmt: skip
    (root / "list.csv").write_text("\n".join(["path,labels,group", *rows]) + "\n")
    visionkit.save(model("classification", multilabel=True), tmp_path / "several.ckpt")
    said = evaluate("--ckpt", tmp_path / "several.ckpt", "--data", root, "--split", "all", "--precision", "32")
    told = read_evaluation(tmp_path / "out")
    expected = validated(tmp_path / "several.ckpt", data_for(root, task="classification", classes=("cat", "dog"),
                                                             multilabel=True).dataset)  # fmt: skip
    assert {k: m.value for k, m in told.metrics.items()} == pytest.approx(expected, abs=1e-6)
    assert told.multilabel
    assert told.confusion is None
    assert len(set(told.groups)) == 6
    assert "in 6 groups" in said.out
    assert told.images[0].truth == {"labels": ["cat", "dog"]}
    recalls = [point[0] for point in told.curves["pr"]["cat"]]
    assert recalls == sorted(recalls)


WRONG = {
    "nothing": ([], 2, "visionkit evaluate needs a model or predictions"),
    "both": (["--ckpt", "@", "--predictions", "x", "--data", "@", "--out", "o"], 2, "not allowed with argument"),
    "no data": (["--ckpt", "@", "--out", "o"], 2, "the following arguments are required: --data"),
    "views of a file": (["--predictions", "x.json", "--data", "@d", "--out", "o", "--flip"], 2, "--flip is for a model"),
    "other data": (["--ckpt", "@", "--data", "@s", "--out", "o"], 2, "holds data for segmentation"),
    "no folder": (["--ckpt", "@", "--data", "none", "--out", "o"], 1, "none: no such folder or file"),
    "no checkpoint": (["--ckpt", "none.ckpt", "--data", "@d", "--out", "o"], 1, "none.ckpt: no such file"),
    "twice": (["--ckpt", "@", "@", "--data", "@d", "--out", "o"], 2, "given twice"),
    "no test": (["--ckpt", "@", "--data", "@d", "--out", "o", "--split", "test"], 1, "has no test split"),
    "all of parts": (["--ckpt", "@", "--data", "@d", "--out", "o", "--split", "all"], 2, "are divided into train, val"),
    "overlap": (["--ckpt", "@", "--data", "@d", "--out", "o", "--overlap", "0.5"], 2, "add --window, too"),
    "batch": (["--ckpt", "@", "--data", "@d", "--out", "o", "--batch-size", "0"], 2, "must be at least 1"),
    "rule": (["--ckpt", "@", "--data", "@d", "--out", "o", "--choose", "best"], 2, "best"),
    "pixels": (["--predictions", "m", "--data", "@s", "--task", "segmentation", "--out", "o", "--choose", "f1"], 2,
               "a class for each pixel has none"),
    "own": (["--predictions", "o/predictions.csv", "--data", "@d", "--out", "o"], 2, "--out o: holds the predictions that"),
    "no option": (["--ckpt", "@", "--data", "@d", "--out", "o", "--spilt", "val"], 2, "did you mean --split?"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_asked_wrongly_is_one_line(places, tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    arguments, status, words = WRONG[name]
    ckpt, data = places["classification"]
    put = {"@": ckpt, "@d": data, "@s": places["segmentation"][1]}
    assert run(["evaluate", *(put.get(a, a) for a in arguments)]) == status
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert words in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "o").exists()


def test_a_checkpoint_and_the_folder_of_its_run_are_the_same(places, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ckpt = tmp_path / "run" / "checkpoints" / "best.ckpt"
    ckpt.parent.mkdir(parents=True)
    ckpt.touch()
    assert run(["evaluate", "--ckpt", "run", "run/checkpoints/best.ckpt", "--data", "none", "--out", "o"]) == 2
    assert capsys.readouterr().err == (
        "error: --ckpt run/checkpoints/best.ckpt: given twice (as run); an ensemble is made of different models\n"
    )


# ---- thresholds and several models


def test_thresholds_are_stored_in_the_checkpoint(places, evaluate, tmp_path):
    ckpt, root = places["detection"]
    shutil.copy(ckpt, tmp_path / "own.ckpt")
    said = evaluate("--ckpt", tmp_path / "own.ckpt", "--data", root, "--split", "train", "--choose", "f1")
    entry = read_evaluation(tmp_path / "out").thresholds
    assert (entry["chosen_on"]["split"], entry["told_on"]["split"]) == ("val", "train")
    assert f"stored in {tmp_path / 'own.ckpt'}: visionkit predict goes by them" in said.out
    stored = visionkit.load(tmp_path / "own.ckpt").thresholds
    assert stored.rule == "f1"
    assert dict(stored.values) == {name: facts["threshold"] for name, facts in entry["classes"].items()}
    digest = model_digest(tmp_path / "own.ckpt")
    assert digest == model_digest(ckpt), "thresholds make no other model"
    assert read_evaluation(tmp_path / "out").model["checkpoints"][0]["sha256"] == digest
    halves = evaluate("--predictions", tmp_path / "out" / "predictions.jsonl", "--data", f"{root}/annotations/"
                      "instances_train.json", "--choose", "f1", out="halves").out  # fmt: skip
    assert read_evaluation(tmp_path / "halves").thresholds["told_on"] is None
    assert "they stand in evaluation.json" in halves
    said = evaluate("--ckpt", tmp_path / "own.ckpt", "--data", root, "--choose", "none", out="none")
    assert "holds no thresholds any more" in said.out
    assert visionkit.load(tmp_path / "own.ckpt").thresholds is None
    assert read_evaluation(tmp_path / "none").thresholds is None


def test_pixels_have_no_thresholds(places, evaluate, tmp_path):
    ckpt, root = places["segmentation"]
    said = evaluate("--ckpt", ckpt, "--data", root, "--choose", "f1", status=2).err
    assert "a class for each pixel has none" in said
    assert not (tmp_path / "out").exists()


def test_several_checkpoints_speak_as_one(places, evaluate, tmp_path):
    ckpt, root = places["classification"]
    torch.manual_seed(9)
    other = model("classification", ("dog", "cat"))
    with torch.no_grad():
        other.head.classifier[-1].weight.normal_()
    visionkit.save(other, tmp_path / "other.ckpt")
    said = evaluate("--ckpt", ckpt, tmp_path / "other.ckpt", "--data", root, "--precision", "32", "--flip")
    told = read_evaluation(tmp_path / "out")
    assert [c["path"] for c in told.model["checkpoints"]] == [ckpt, str(tmp_path / "other.ckpt")]
    assert told.model["weights"] == {ckpt: 0.5, str(tmp_path / "other.ckpt"): 0.5}, "val itself is measured"
    assert [m["name"] for m in told.ensemble["members"]] == [ckpt, str(tmp_path / "other.ckpt")]
    assert told.views["views"] == "--flip"
    single = evaluate("--ckpt", tmp_path / "other.ckpt", "--data", root, "--precision", "32", "--flip", out="single")
    alone = read_evaluation(tmp_path / "single")
    assert told.ensemble["members"][1]["metrics"]["top1"] == pytest.approx(alone.metrics["top1"].value, abs=1e-6)
    assert "together" in said.out
    assert "together" not in single.out
    wrong = evaluate("--ckpt", ckpt, tmp_path / "other.ckpt", "--data", root, "--choose", "none", out="x", status=2)
    assert "give one with --ckpt" in wrong.err


# ---- predictions without a model


@pytest.mark.parametrize("task", WRITERS)
def test_predictions_of_a_file_have_the_same_numbers(places, whole, evaluate, tmp_path, task):
    out, *_ = whole(task)
    evaluate("--predictions", out / "predictions.jsonl", "--data", places[task][1], "--task", task)
    one, again = (read_evaluation(folder) for folder in (out, tmp_path / "out"))
    assert {k: m.value for k, m in again.metrics.items()} == pytest.approx(
        {k: m.value for k, m in one.metrics.items()}, abs=1e-6
    )
    assert again.model["predictions"] == str(out / "predictions.jsonl")
    records = [(folder / "predictions.jsonl").read_text() for folder in (out, tmp_path / "out")]
    assert records[0] == records[1]


def test_a_table_of_labels_alone(places, evaluate, tmp_path):
    _, root = places["classification"]
    dataset = data_for(root).dataset
    names = [dataset.classes[labels[0]] for labels in dataset.labels]
    names[0] = "dog" if names[0] == "cat" else "cat"
    with (tmp_path / "p.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label"), *zip(dataset.ids, names, strict=True)])
    said = evaluate("--predictions", tmp_path / "p.csv", "--data", root)
    told = read_evaluation(tmp_path / "out")
    assert told.metrics["top1"].value == pytest.approx(29 / 30)
    assert "ece" not in told.metrics
    assert told.calibration is None
    assert said.out.splitlines()[2].startswith("top-1 0.967 [")


# ---- what was trained on


def test_pictures_that_the_run_trained_on_are_not_counted(places, evaluate, tmp_path):
    """Class folders without splits: what validated in the run is measured, and only that."""
    ckpt, parted = places["classification"]
    root = shutil.copytree(f"{parted}/train", tmp_path / "flat")
    best = tmp_path / "run" / "checkpoints" / "best.ckpt"
    best.parent.mkdir(parents=True)
    shutil.copy(ckpt, best)
    settings = f"{{root: {root}, val_fraction: 0.4, split_seed: 5}}"
    (tmp_path / "run" / "config.yaml").write_text(
        f"data: {{class_path: visionkit.ClassificationData, init_args: {settings}}}\n"
    )
    evaluate("--ckpt", tmp_path / "run", "--data", root)
    told = read_evaluation(tmp_path / "out")
    expected = ClassificationData(str(root), val_fraction=0.4, split_seed=5).splits.val.ids
    assert [image.id for image in told.images] == list(expected)
    assert told.data["split"] == "val"
    assert told.model["checkpoints"][0]["name"] == "run"
    said = evaluate("--ckpt", ckpt, "--data", root, out="alone")
    assert "classification.ckpt: which pictures it was trained on is not known" in said.err
    said = evaluate("--ckpt", tmp_path / "run", "--data", f"{parted}/val", out="foreign")
    assert "data     all pictures of" in said.out
    assert len(read_evaluation(tmp_path / "foreign").images) == 30


@pytest.mark.slow
def test_what_a_run_validated_on_is_what_is_measured(places, evaluate, tmp_path):
    root = shutil.copytree(f"{places['classification'][1]}/train", tmp_path / "flat")
    small = ["--model.backbone.layers=[1,1,1,1]", "--model.backbone.block=basic", "--data.size=32",
             "--data.num_workers=0", "--trainer.logger=false", "--trainer.max_epochs=1", "--data.batch_size=4",
             "--data.val_fraction=0.4", "--data.split_seed=5"]  # fmt: skip
    work = tmp_path / "run"
    assert run(["fit", "-c", "classify.yaml", "--data.root", str(root), *small, "--trainer.default_root_dir",
                str(work), "--trainer.precision=32-true"]) == 0  # fmt: skip
    evaluate("--ckpt", work, "--data", root, "--precision", "32")
    told = read_evaluation(tmp_path / "out")
    expected = ClassificationData(str(root), val_fraction=0.4, split_seed=5).splits.val.ids
    assert [image.id for image in told.images] == list(expected)
    best = json.loads((work / "metrics.json").read_text())
    assert told.metrics["top1"].value == pytest.approx(best["val/top1"], abs=1e-6)


def test_nothing_is_chosen_on_pictures_that_may_have_trained(places, tmp_path, evaluate):
    ckpt, root = places["classification"]
    data = shutil.copytree(root, tmp_path / "parts")
    (data / "val").rename(data / "test")  # what validated is taken from the training pictures: of which run?
    shutil.copy(ckpt, tmp_path / "alone.ckpt")
    said = evaluate("--ckpt", tmp_path / "alone.ckpt", "--data", data, "--choose", "f1").err
    assert "warning: val split: " in said
    assert "which pictures it was trained on is not known" in said
    assert said.rstrip().endswith("warning: so nothing is chosen on the val split")
    told = read_evaluation(tmp_path / "out")
    assert told.thresholds["chosen_on"]["split"] == "test"
