import numpy as np
import pytest
import torch
from PIL import Image

from visionkit import FCNHead
from visionkit.core.errors import DataError
from visionkit.core.sample import ImageInfo
from visionkit.prediction.draw import PALETTE, draw_classes, palette
from visionkit.prediction.writers import WriterJob
from visionkit.tasks.segmentation.types import MaskPrediction
from visionkit.tasks.segmentation.writers import MaskWriter

NAMES = ("road", "sky", "car")
LABELS = torch.tensor([[0, 0, 1], [2, 1, 1]], dtype=torch.uint8)


def job(out, images, names=NAMES):
    return WriterJob(out, names, tuple(images))


def prediction(labels=LABELS, k=3):
    scores = torch.nn.functional.one_hot(labels.long(), k).permute(2, 0, 1).float()
    return MaskPrediction.of(scores, 1)


def write(out, images, **more):
    writer = MaskWriter(job(out, images, **more))
    for name in images:
        writer.add(ImageInfo(name, (2, 3)), prediction())
    writer.finish()
    return writer


def test_it_is_the_format_mask_that_is_written_without_being_asked_for():
    assert FCNHead.writers == {"mask": MaskWriter}
    assert FCNHead.standard == ("mask",)


def test_nothing_is_touched_before_the_first_prediction(tmp_path):
    writer = MaskWriter(job(tmp_path / "out", ["a.png"]))
    assert writer.outputs == (tmp_path / "out" / "masks",)
    assert not (tmp_path / "out").exists()


def test_class_ids_in_a_png_with_a_palette(tmp_path):
    write(tmp_path, ["x/a.jpg"])
    assert sorted(p.name for p in (tmp_path / "masks").iterdir()) == ["a.png", "classes.txt"], "nothing temporary"
    data = (tmp_path / "masks" / "a.png").read_bytes()
    assert (data[24], data[25]) == (8, 3), "bit depth and colour type of the PNG header: 8 bits, palette"
    with Image.open(tmp_path / "masks" / "a.png") as picture:
        assert picture.mode == "P"
        assert np.array_equal(np.array(picture), LABELS)
        assert tuple(picture.convert("RGB").getpixel((0, 1))) == PALETTE[2]
    assert (tmp_path / "masks" / "classes.txt").read_text() == "0\troad\n1\tsky\n2\tcar\n"


def test_colours_are_those_of_drawn_predictions(tmp_path):
    labels = torch.arange(255, dtype=torch.uint8).repeat_interleave(9)[None].repeat(5, 1)
    names = tuple(str(k) for k in range(255))
    writer = MaskWriter(job(tmp_path, ["a.jpg"], names))
    writer.add(ImageInfo("a.jpg", (5, 9 * 255)), prediction(labels, 255))
    shown = torch.from_numpy(np.array(Image.open(tmp_path / "masks" / "a.png").convert("RGB")))[2, 4::9]
    assert [tuple(c) for c in shown.tolist()] == palette(255)
    drawn = draw_classes(torch.zeros(3, 5, 9 * 255, dtype=torch.uint8), labels, names)[:, 2, 4::9]
    assert torch.equal(drawn.T, shown // 2)


@pytest.mark.parametrize(
    ("pictures", "files"),
    [
        (["/x/train/1.jpg", "/x/val/1.jpg"], ["train/1.png", "val/1.png"]),
        (["/x/1.jpg", "/x/1.png", "/x/2.png"], ["1.jpg.png", "1.png.png", "2.png.png"]),
        (["/x/classes.jpg", "/x/b.jpg"], ["classes.png", "b.png"]),
    ],
)
def test_masks_lie_as_the_pictures_do(pictures, files, tmp_path):
    write(tmp_path, pictures)
    found = {p.relative_to(tmp_path / "masks").as_posix() for p in (tmp_path / "masks").rglob("*.png")}
    assert found == set(files)


def test_a_mask_has_the_size_of_its_picture(tmp_path):
    info = ImageInfo("a.jpg", (7, 5), (2 / 7, 3 / 5), (0, 0))
    writer = MaskWriter(job(tmp_path, ["a.jpg"]))
    writer.add(info, prediction().restore(info))
    with Image.open(tmp_path / "masks" / "a.png") as picture:
        assert picture.size == (5, 7)


def test_a_mask_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write(tmp_path, ["a.jpg"])
    before = (tmp_path / "masks" / "a.png").read_bytes()

    def fail(self, file, **_):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(DataError, match=r"a\.png: cannot be written \(disk full\)"):
        write(tmp_path, ["a.jpg"])
    assert (tmp_path / "masks" / "a.png").read_bytes() == before
    assert sorted(p.name for p in (tmp_path / "masks").iterdir()) == ["a.png", "classes.txt"]
