import numpy as np
import pytest
import torch
from PIL import Image

from visionkit.core.errors import DataError, UsageError
from visionkit.core.sample import SpatialTarget
from visionkit.tasks.segmentation.readers.reader import MaskDataset, MaskFolderDataset

NAMES = "background\nroad\nvoid\nsky\n"


def write(root, name, values, *, size=None, mask=None, exif=None):
    """Write an image and its mask."""
    values = np.asarray(values, np.uint8)
    for folder in ("images", "masks"):
        (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size or values.shape[::-1], (1, 2, 3)).save(
        root / "images" / f"{name}.jpg", exif=exif or Image.Exif()
    )
    Image.fromarray(values).save(root / "masks" / f"{mask or name}.png")


@pytest.fixture
def root(tmp_path):
    write(tmp_path, "a", [[0, 1, 1], [2, 3, 255]])
    write(tmp_path, "b", [[1, 1]])
    write(tmp_path, "c", [[2, 2]])
    (tmp_path / "classes.txt").write_text(NAMES)
    return tmp_path


def data(root, **more):
    return MaskFolderDataset(root / "images", root / "masks", **more)


def test_samples(root):
    read = data(root)
    assert isinstance(read, MaskDataset)
    assert read.classes == ("background", "road", "sky")
    assert read.code.ignored == ("void",)
    assert list(read.ids) == [str(root / "images" / f"{n}.jpg") for n in "abc"]
    assert [e.key for e in read.entries] == ["a.jpg", "b.jpg", "c.jpg"]
    assert read.problems == []
    sample = read[0]
    assert sample.target.mask.tolist() == [[0, 1, 1], [255, 2, 255]]
    assert sample.target.mask.dtype == torch.uint8
    assert isinstance(sample.target, SpatialTarget)
    assert sample.target.weights is None
    assert sample.image.shape == (3, 2, 3)
    assert sample.info.size == (2, 3)
    assert [read.mismatch(i) for i in range(3)] == [None] * 3
    assert [str(f) for f in read.files()] == list(read.ids)
    assert data(root, channels=1)[0].image.shape == (1, 2, 3)


def test_labels_and_pixels_are_counted_once(root, monkeypatch):
    read = data(root)
    calls = []
    original = MaskFolderDataset.read_mask
    monkeypatch.setattr(MaskFolderDataset, "read_mask", lambda self, i: calls.append(self.ids[i]) or original(self, i))
    read.subset([1]).mismatch(0)
    assert read.labels == [(0, 1, 2), (1,), ()]
    assert read.pixel_counts().tolist() == [1, 4, 1]
    assert read.pixel_counts().dtype == np.int64
    part = read.subset([2, 0])
    assert part.labels == [(), (0, 1, 2)]
    assert part.pixel_counts().tolist() == [1, 2, 1]
    assert sorted(calls) == sorted(read.ids)
    assert read.subset([]).pixel_counts().tolist() == [0, 0, 0]


def test_weights_go_to_the_targets(root):
    read = data(root)
    weighted = read.with_weights(torch.tensor([1, 2, 3])).subset([1])
    assert weighted[0].target.weights.tolist() == [1, 2, 3]
    assert weighted[0].target.weights.dtype == torch.float32
    assert read[0].target.weights is None
    assert weighted.with_weights(None)[0].target.weights is None
    with pytest.raises(UsageError, match=r"^weights: shape \[2\] for 3 classes; give one number for each class$"):
        read.with_weights(torch.ones(2))


def test_an_unknown_id_is_found_before_training(root):
    write(root, "b", [[1, 12, 12]])
    read = data(root)
    message = (
        f"{root}/masks/b.png: holds id 12 (2 pixels), which {root}/classes.txt does not name; add its name as line 13 or "
        "correct the mask"
    )
    assert read.mismatch(1) == message
    with pytest.raises(DataError) as e:
        read[1]
    assert str(e.value) == message
    assert read.labels == [(0, 1, 2), (), ()]  # the check names it; a split can be made without it
    assert read.pixel_counts().tolist() == [1, 2, 1]


def test_a_mask_of_another_size(root):
    write(root, "b", [[1, 1]], size=(5, 4))
    message = (
        f"{root}/images/b.jpg: is 5 x 4 pixels, but {root}/masks/b.png says 2 x 1: its labels belong to another picture or "
        "size; put back the original picture or label it anew"
    )
    read = data(root)
    assert read.mismatch(1) == message
    with pytest.raises(DataError) as e:
        read[1]
    assert str(e.value) == message


def test_images_that_are_turned_by_exif(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    write(root, "b", [[1], [1]], size=(2, 1), exif=exif)  # labelled upright
    write(root, "c", [[1, 1]], size=(2, 1), exif=exif)
    read = data(root)
    assert read.mismatch(1) is None
    assert read[1].target.mask.shape == (2, 1)
    assert "its labels were drawn on the picture as stored, before its EXIF orientation turns it" in read.mismatch(2)
    with pytest.raises(DataError, match="its labels were drawn on the picture as stored"):
        read[2]


def test_orientation_behind_the_pixels_of_a_png(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    (root / "images" / "b.jpg").unlink()
    (root / "masks" / "b.png").unlink()
    Image.new("RGB", (3, 2)).save(root / "images" / "d.png", exif=exif)
    content = (root / "images" / "d.png").read_bytes()
    start = content.index(b"eXIf") - 4
    stop = start + 12 + int.from_bytes(content[start : start + 4], "big")
    end = content.index(b"IEND") - 4
    (root / "images" / "d.png").write_bytes(content[:start] + content[stop:end] + content[start:stop] + content[end:])
    Image.fromarray(np.ones((3, 2), np.uint8)).save(root / "masks" / "d.png")
    read = data(root)
    assert read.mismatch(2) is None
    assert read[2].target.mask.shape == (3, 2)


def test_an_unreadable_mask(root):
    (root / "masks" / "b.png").write_bytes(b"")
    assert data(root).mismatch(1).startswith(f"{root}/masks/b.png: the mask cannot be read (")


def test_an_unreadable_image_is_not_the_masks_fault(root):
    (root / "images" / "b.jpg").write_bytes(b"")
    assert data(root).mismatch(1) is None


def test_tables(root):
    (root / "other.json").write_text('{"sky": 1, "road": 3, "background": 0, "void": 2}')
    assert data(root, table=root / "other.json")[0].target.mask.tolist() == [[0, 1, 1], [255, 2, 255]]
    assert data(root, table=root / "other.json").classes == ("background", "sky", "road")
    assert data(root, classes=["sky", "road", "background", "x"])[0].target.mask.tolist() == [[2, 1, 1], [255, 0, 255]]
    assert data(root, ignore=["sky"]).classes == ("background", "road", "void")
    (root / "masks" / "classes.txt").write_text("0 nothing\n1 asphalt\n2 void\n3 air\n")
    assert data(root).classes == ("nothing", "asphalt", "air")


def test_without_a_table(tmp_path):
    write(tmp_path, "a", [[0, 255]])
    assert data(tmp_path).classes == ("background", "foreground")
    assert data(tmp_path).understood == "masks of 0 and 255: background and foreground"
    assert data(tmp_path)[0].target.mask.tolist() == [[0, 1]]
    write(tmp_path, "b", [[0, 7]])
    with pytest.raises(
        DataError, match=rf"^{tmp_path}/masks: no file says what the ids in its masks are called, 0, 7, 255 "
    ):
        data(tmp_path)
