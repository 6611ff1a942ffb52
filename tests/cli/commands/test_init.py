"""init and train: a folder becomes a config that says why, a list of the split, and a model."""

import shutil

import numpy as np
import pytest
import yaml
from PIL import Image

from visionkit.cli.main import run

TINY = ("--model.backbone={class_path: ResNet, init_args: {layers: [1, 1, 1, 1], block: basic, stem: small}}",
        "--model.backbone.weights=null", "--model.recipe.probe=false", "--data.size=32", "--trainer.max_epochs=1", "--data.num_workers=0", "--trainer.logger=false")  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder without weights at hand."""
    monkeypatch.delenv("VISIONKIT_WEIGHTS", raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def smooth(seed, size=96):
    """Return a picture that near-duplicate search can tell from others."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (6, 6, 3), np.uint8))
    return small.resize((size, size), Image.Resampling.BICUBIC)


def test_a_config_with_reasons_and_a_list_of_the_split(photos, here, capsys):
    assert run(["init", str(photos)]) == 0
    said = capsys.readouterr().out
    assert "found    classification:" in said
    assert said.rstrip().endswith("next     visionkit fit -c photos.yaml")
    text = (here / "photos.yaml").read_text()
    config = yaml.safe_load(text)
    assert config["data"]["init_args"]["root"] == str(photos)
    assert config["data"]["init_args"]["size"] == 32
    assert config["model"]["init_args"]["backbone"] == {
        "class_path": "ResNet", "init_args": {"depth": 18, "weights": "auto"}
    }  # fmt: skip
    for line in text.splitlines():
        if any(
            f"{key}:" in line for key in ("size", "max_epochs", "batch_size", "lr", "ema", "balance", "warmup_epochs")
        ):
            assert "  # " in line, line
    rows = (here / "photos-split.csv").read_text().splitlines()
    assert rows[0] == "image,split"
    assert len(rows) == 25
    assert sum(row.endswith(",val") for row in rows) == 6, "30 % of 24, by class, copies together"


def test_it_runs_and_splits_as_the_list_says(photos, here, capsys):
    assert run(["init", str(photos)]) == 0
    listed = dict(row.split(",") for row in (here / "photos-split.csv").read_text().splitlines()[1:])
    assert run(["fit", "-c", "photos.yaml", *TINY, "--trainer.default_root_dir=r"]) == 0
    said = capsys.readouterr().out
    validate = sum(split == "val" for split in listed.values())
    assert f"photos-split.csv says: {24 - validate} for training, {validate} for validation" in said
    kept = yaml.safe_load((here / "r" / "config.yaml").read_text())
    assert kept["data"]["init_args"]["split"] == str(here / "photos-split.csv")


def test_near_duplicates_stay_on_one_side(tmp_path, here):
    root = tmp_path / "p"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for i in range(10):
            picture = smooth(i + 100 * (name == "b"))
            picture.save(root / name / f"{i}.png")
            picture.resize((80, 80)).save(root / name / f"{i}-copy.jpg", quality=60)
    assert run(["init", str(root)]) == 0
    listed = dict(row.split(",") for row in (here / "p-split.csv").read_text().splitlines()[1:])
    for name in ("a", "b"):
        for i in range(10):
            assert listed[f"{name}/{i}.png"] == listed[f"{name}/{i}-copy.jpg"]
    assert len(set(listed.values())) == 2


def test_the_same_folder_gives_the_same_files(photos, here):
    for out in ("one", "two"):
        assert run(["init", str(photos), "--out", out]) == 0
    assert (here / "one" / "photos-split.csv").read_bytes() == (here / "two" / "photos-split.csv").read_bytes()
    one, two = ((here / out / "photos.yaml").read_text() for out in ("one", "two"))
    assert one.replace("/one/", "/two/") == two


def test_data_with_validation_images_have_no_list(photos, here):
    root = here.parent / "parts"
    for part, count in (("train", 6), ("val", 2)):
        for name in ("blue", "red"):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                shutil.copy(photos / name / f"{i + (6 if part == 'val' else 0)}.png", root / part / name)
    assert run(["init", str(root)]) == 0
    assert sorted(p.name for p in here.iterdir()) == ["parts.yaml"]


def test_files_of_before_are_kept(photos, here, capsys):
    (here / "photos.yaml").write_text("mine")
    assert run(["init", str(photos)]) == 2
    assert "photos.yaml is there already: --overwrite replaces it" in capsys.readouterr().err
    assert (here / "photos.yaml").read_text() == "mine"
    assert run(["init", str(photos), "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["nowhere"], 1, "nowhere: no such folder or file"),
        (["PHOTOS", "--task", "detection"], 2, "--task detection: "),
        ([], 2, "FOLDER"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(photos, here, capsys, arguments, status, said):
    assert run(["init", *(str(photos) if a == "PHOTOS" else a for a in arguments)]) == status
    err = capsys.readouterr().err
    assert said in err
    assert len(err.splitlines()) <= 2
    assert not list(here.iterdir())


def test_train_is_init_and_fit(photos, here, capsys):
    assert run(["train", str(photos), *TINY]) == 0
    said = capsys.readouterr().out
    assert "config   runs/photos.yaml" in said
    assert (here / "runs" / "classify-1" / "checkpoints" / "best.ckpt").is_file()
    assert run(["train", str(photos), *TINY]) == 0
    assert "config   runs/photos.yaml of before is used" in capsys.readouterr().out
    assert (here / "runs" / "classify-2").is_dir()


def test_pictures_added_since_train(photos, here, capsys):
    assert run(["init", str(photos)]) == 0
    smooth(7, 24).save(photos / "red" / "new.png")
    assert run(["fit", "-c", "photos.yaml", *TINY, "--trainer.default_root_dir=r"]) == 0
    assert "1 images that it does not list train" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n", ":1: the columns of a split are image,split"),
        ("image,split\nred/0.png,valid\n", ":2: an image and train or val"),
        ("image,split\nred/0.png,val\nred/0.png,train\n", ":3: red/0.png trains and validates"),
        ("image,split\nred/x.png,val\n", "no image of"),
    ],
)
def test_a_list_that_is_none_is_named_with_its_line(photos, here, capsys, text, said):
    (here / "s.csv").write_text(text)
    assert run(["fit", "-c", "classify.yaml", f"--data.root={photos}", "--data.split=s.csv", *TINY]) == 1
    assert said in capsys.readouterr().err
