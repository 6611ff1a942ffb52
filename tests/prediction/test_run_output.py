"""Which faults end a run of predictions, and which are one picture's."""

import errno
import json

import numpy as np
import pytest
from PIL import Image

import visionkit
from visionkit import ClassPrediction, DataError, UsageError
from visionkit.prediction import files, run_output
from visionkit.prediction.files import ImageFile, predict_to_folder
from visionkit.prediction.resuming import alone


@pytest.fixture
def ckpt(tiny_model, tmp_path):
    visionkit.save(tiny_model, tmp_path / "m.ckpt")
    return tmp_path / "m.ckpt"


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(4):
        Image.fromarray(np.full((20, 30, 3), 40 * i, np.uint8)).save(tmp_path / "in" / f"{i}.png")
    return [ImageFile(str(tmp_path / "in" / f"{i}.png")) for i in range(4)]


def images(folder):
    return [json.loads(line)["image"] for line in (folder / "predictions.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EMFILE])
def test_a_full_disk_ends_the_run_in_one_line_and_what_is_written_stays(ckpt, pictures, tmp_path, monkeypatch, number):
    save = run_output._save_image

    def some(info, *more):
        if info.id == pictures[2].path:
            raise DataError("wrapped") from OSError(number, "as the system says it")
        save(info, *more)

    monkeypatch.setattr(run_output, "_save_image", some)
    with pytest.raises(DataError) as raised:
        predict_to_folder(ckpt, pictures, tmp_path / "out", save_images=True, num_workers=0, batch_size=1)
    assert str(raised.value).startswith(str(tmp_path / "out"))
    assert "\n" not in str(raised.value)
    assert images(tmp_path / "out") == [p.path for p in pictures[:2]]
    monkeypatch.undo()
    done = predict_to_folder(ckpt, pictures, tmp_path / "out", save_images=True, num_workers=0, resume=True)
    assert (done.count, done.problems) == (4, [])
    assert images(tmp_path / "out") == [p.path for p in pictures]


def test_a_picture_that_cannot_be_drawn_is_a_line(ckpt, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(ClassPrediction, "draw", lambda self, image, names: 1 / 0 if image.max() == 40 else image)
    done = predict_to_folder(ckpt, pictures, tmp_path / "out", save_images=True, num_workers=0)
    assert done.problems == [
        f"{pictures[1].path}: its prediction cannot be written (ZeroDivisionError: division by zero)"
    ]
    assert images(tmp_path / "out") == [p.path for k, p in enumerate(pictures) if k != 1]


def test_two_processes_never_write_into_one_folder(ckpt, pictures, tmp_path, monkeypatch):
    out = tmp_path / "out"
    predict_to_folder(ckpt, pictures[:2], out, num_workers=0)
    before = (out / "predictions.jsonl").read_bytes() + b'{"image": "half'
    (out / "predictions.jsonl").write_bytes(before)
    with alone(out / "predictions.jsonl", None):  # as a process that runs does
        for how in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(UsageError, match=f"{out}: another visionkit predict writes into it"):
                predict_to_folder(ckpt, pictures[:2], out, num_workers=0, **how)
            assert (out / "predictions.jsonl").read_bytes() == before
    assert predict_to_folder(ckpt, pictures[:2], out, num_workers=0, resume=True).count == 2
    assert not (out / ".predictions.lock").exists()

    whole = before[: before.rindex(b"\n") + 1]
    for folder, how in ((tmp_path / "new", {}), (out, {"resume": True})):
        if how:
            (out / "predictions.jsonl").write_bytes(whole[: whole.index(b"\n") + 1])

        def late(records, read):  # another one begins and ends between the look and the lock
            records.parent.mkdir(exist_ok=True)
            records.write_bytes(whole)
            return alone(records, read)

        monkeypatch.setattr(files, "alone", late)
        with pytest.raises(UsageError, match="has written into it just now"):
            predict_to_folder(ckpt, pictures[:2], folder, num_workers=0, **how)
        assert (folder / "predictions.jsonl").read_bytes() == whole
        monkeypatch.undo()


def test_ranges_of_8_bits_are_those_that_the_predictions_began_with(ckpt, pictures, tmp_path):
    pytest.importorskip("nncf")
    how = {"num_workers": 0, "backend": "openvino", "precision": "int8"}
    predict_to_folder(ckpt, pictures, tmp_path / "out", calibrate=pictures[:2], **how)
    with pytest.raises(UsageError, match="made with another list of pictures to learn ranges from"):
        predict_to_folder(ckpt, pictures, tmp_path / "out", calibrate=pictures[:3], resume=True, **how)
