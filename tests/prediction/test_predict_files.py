"""visionkit.predict_files: the same as the command, in Python."""

import io
import json

import numpy as np
import pytest
from PIL import Image

import visionkit
from visionkit import DataError, UsageError
from visionkit.prediction.files import ImageFile, predict_to_folder


@pytest.fixture
def ckpt(tiny_model, tmp_path):
    visionkit.save(tiny_model, tmp_path / "m.ckpt")
    return tmp_path / "m.ckpt"


def test_it_says_what_the_command_writes(ckpt, photos, tmp_path):
    found = list(visionkit.predict_files(ckpt, photos))
    pictures = [ImageFile(f.image) for f in found]
    written = predict_to_folder(ckpt, pictures, tmp_path / "out").records.read_text().splitlines()
    assert [json.loads(json.dumps(f.record())) for f in found] == list(map(json.loads, written))
    assert len(found) == 24
    assert found[0].info.size == (20, 24)
    assert found[0].classes == ("blue", "green", "red")


def test_a_model_in_hand_a_glob_and_a_manifest(ckpt, photos):
    model = visionkit.load(ckpt)
    (photos / "m.csv").write_text("path,label,note\nred/1.png,red,hello\n")
    found = list(visionkit.predict_files(model, [str(photos / "blue" / "*.png"), photos / "m.csv"], batch_size=3))
    assert len(found) == 9
    assert found[-1].record()["truth"] == "red"
    assert found[-1].info.extra["note"] == "hello"


def test_what_is_wrong_with_a_picture_is_raised_or_given_away(ckpt, photos):
    (photos / "blue" / "3.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"blue/3\.png: the file is empty"):
        list(visionkit.predict_files(ckpt, photos))
    problems = []
    assert len(list(visionkit.predict_files(ckpt, photos, on_error=problems.append))) == 23
    assert [str(p).split(":")[0] for p in problems] == [str(photos / "blue" / "3.png")]


def test_what_cannot_be_is_said_at_the_call(ckpt, photos):
    with pytest.raises(UsageError, match="min_score: these predictions are not filtered by it"):
        visionkit.predict_files(ckpt, photos, min_score=0.5)
    with pytest.raises(UsageError, match="no such picture, folder or manifest"):
        visionkit.predict_files(ckpt, photos / "nothing.jpg")


def animation(frames):
    stream = io.BytesIO()
    first, *others = (Image.fromarray(np.full((8, 8, 3), 40 * k, np.uint8)) for k in range(frames))
    first.save(stream, "GIF", save_all=True, append_images=others)
    return stream.getvalue()


def test_frames_that_are_left_out_are_told_once(ckpt, photos, tmp_path):
    for name, frames in (("a.gif", 3), ("b.gif", 2), ("c.gif", 1)):
        (tmp_path / name).write_bytes(animation(frames))
    told = []
    assert len(list(visionkit.predict_files(ckpt, str(tmp_path / "*.gif"), tell=told.append))) == 3
    assert told == ["2 files (a.gif, ...) hold several pictures (pages, frames): the first of each is predicted"]
    done = predict_to_folder(ckpt, [ImageFile(str(tmp_path / "a.gif"))], tmp_path / "out")
    assert done.remarks == ["a.gif holds several pictures (pages, frames): the first of each is predicted"]


def test_bytes_from_elsewhere_are_read_as_files_are(ckpt, photos, tmp_path):
    data = (photos / "red" / "0.png").read_bytes()
    pictures = [ImageFile("https://h.test/0.png", load=lambda: data), ImageFile(str(photos / "red" / "0.png"))]
    pictures.append(ImageFile("https://h.test/page", load=lambda: b"<html>"))
    done = predict_to_folder(ckpt, pictures, tmp_path / "out", save_images=True)
    first, second = map(json.loads, done.records.read_text().splitlines())
    assert first.pop("image") == "https://h.test/0.png"
    assert second.pop("image")
    assert first == second
    assert done.problems == ["https://h.test/page: a web page or XML, not an image; save it as PNG or JPEG"]
    assert len(list((tmp_path / "out" / "images").glob("*.jpg"))) == 2


def test_the_run_says_its_numbers_also_when_it_goes_on(ckpt, photos, tmp_path):
    pictures = [ImageFile(str(p)) for p in sorted(photos.rglob("*.png"))]
    done = predict_to_folder(ckpt, pictures, tmp_path / "out")
    records = list(map(json.loads, done.records.read_text().splitlines()))
    counts = done.tallies["classes"].counts
    assert sum(counts.values()) == 24
    assert all(counts.get(k, 0) == sum(r["label"] == k for r in records) for k in ("blue", "green", "red"))
    assert done.first == [(r["image"], f"{r['label']} {r['score']:.2f}") for r in records[:3]]
    assert [p.name for p in done.files] == ["predictions.csv"]
    again = predict_to_folder(ckpt, pictures, tmp_path / "out", resume=True)
    assert (again.tallies, again.first) == (done.tallies, done.first)
