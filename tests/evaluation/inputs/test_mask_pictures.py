"""Pictures of class ids, measured as scikit-learn measures pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn import metrics as sklearn

from tests.scenes import picture
from visionkit import DataError, ImageInfo
from visionkit.evaluation.inputs.reading import read_predictions
from visionkit.prediction.writers import WriterJob
from visionkit.tasks.segmentation.metrics.metric import SegmentationMetric
from visionkit.tasks.segmentation.readers.reader import MaskFolderDataset
from visionkit.tasks.segmentation.types import MaskPrediction
from visionkit.tasks.segmentation.writers import MaskWriter

SIZE = (24, 32)
NAMES = ("sky", "road", "tree")


def ids(seed, size=SIZE):
    """Ids in patches."""
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(0, 3, (size[0] // 4, size[1] // 4)), np.ones((4, 4), int)).astype(np.uint8)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def scene(folder, images=4):
    for k in range(images):
        picture(folder / f"images/{k:03d}.jpg", SIZE)
        truth = ids(k)
        truth[0] = 255
        save(folder / f"masks/{k:03d}.png", truth)
    (folder / "masks" / "classes.txt").write_text("0 sky\n1 road\n2 tree\n")
    return MaskFolderDataset(folder / "images", folder / "masks")


def read(path, data, **options):
    return read_predictions(path, task="segmentation", dataset=data, classes=data.classes, **options)


def measured(found, data):
    metric = SegmentationMetric(data.classes)
    for k in found:
        metric.update([found[k]], [data.target_of(k, SIZE)[0]])
    return metric.compute()


def test_masks_are_measured_as_by_scikit_learn(tmp_path):
    data = scene(tmp_path / "data")
    said = [np.where(np.random.default_rng(k).random(SIZE) < 0.7, ids(k), ids(k + 50)) for k in range(4)]
    for k, mask in enumerate(said):
        save(tmp_path / f"out/{k:03d}.png", mask)
    found = read(tmp_path / "out", data)
    assert found.remarks == (f"{tmp_path / 'out'}: ids are positions in the given classes",)
    told = measured(found, data)
    truth = np.stack([data.read_mask(k) for k in range(4)])
    true, predicted = truth[truth != 255], np.stack(said)[truth != 255]
    assert float(told["miou"]) == pytest.approx(sklearn.jaccard_score(true, predicted, average="macro"), abs=1e-6)
    assert float(told["mdice"]) == pytest.approx(sklearn.f1_score(true, predicted, average="macro"), abs=1e-6)
    assert float(told["pixel_accuracy"]) == pytest.approx(sklearn.accuracy_score(true, predicted), abs=1e-6)
    assert float(told["mean_accuracy"]) == pytest.approx(sklearn.balanced_accuracy_score(true, predicted), abs=1e-6)
    assert (told["confusion_matrix"].numpy() == sklearn.confusion_matrix(true, predicted)).all()


def test_names_count_not_ids(tmp_path):
    data = scene(tmp_path / "data", 1)
    save(tmp_path / "out/000_mask.png", np.full(SIZE, 7, np.uint8))
    (tmp_path / "out/classes.txt").write_text("5 road\n7 tree\n")
    found = read(tmp_path / "out", data)
    assert set(found[0].labels.flatten().tolist()) == {2}
    assert found.remarks == ()


def test_colours_that_a_table_names(tmp_path):
    data = scene(tmp_path / "data", 1)
    mask = np.zeros((*SIZE, 3), np.uint8)
    mask[:, :16] = (10, 20, 30)
    save(tmp_path / "out/000.png", mask)
    (tmp_path / "out/label_colors.txt").write_text("0 0 0 road\n10 20 30 tree\n")
    assert read(tmp_path / "out", data)[0].labels[0, [0, 31]].tolist() == [2, 1]


def test_masks_in_folders_and_two_endings(tmp_path):
    for k in (1, 2):
        picture(tmp_path / f"data/images/{k}/a.jpg", SIZE)
        save(tmp_path / f"data/masks/{k}/a.png", ids(k))
        save(tmp_path / f"out/{k}/a_labelIds.png", np.full(SIZE, k, np.uint8))
    (tmp_path / "data/masks/classes.txt").write_text("sky\nroad\ntree\n")
    data = MaskFolderDataset(tmp_path / "data/images", tmp_path / "data/masks")
    found = read(tmp_path / "out", data)
    assert [int(found[k].labels[0, 0]) for k in range(2)] == [1, 2]


def test_what_is_wrong_is_named(tmp_path):
    data = scene(tmp_path / "data", 2)
    out = tmp_path / "out"
    save(out / "000.png", ids(0, (24, 16)))
    with pytest.raises(DataError, match=r"out: 1 of 2 images have no mask \(first: .*001\.jpg\); .*--allow-missing"):
        read(out, data)
    with pytest.raises(
        DataError, match=r"000\.png: is 16 x 24 pixels, its image .*000\.jpg 32 x 24; predictions are c"
    ):
        read(out, data, allow_missing=True)
    save(out / "000.png", np.full(SIZE, 255, np.uint8))
    save(out / "001.png", np.full(SIZE, 9, np.uint8))
    found = read(out, data)
    with pytest.raises(DataError, match=r"000\.png: 768 pixels have no class .*such as 255"):
        found[0]
    with pytest.raises(
        DataError, match=r"001\.png: holds id 9 \(768 pixels\), which the list of classes does not name"
    ):
        found[1]
    save(out / "001_mask.png", ids(1))
    with pytest.raises(DataError, match=r"001_mask\.png: .*001\.png is a mask of the same image; keep one of them"):
        read(out, data)
    (out / "001_mask.png").unlink()
    (out / "classes.txt").write_text("0 sky\n1 street\n2 tree\n")
    with pytest.raises(DataError, match=r"classes\.txt: class 'street' is not one of sky, road, tree"):
        read(out, data)
    save(out / "other.png", ids(1))
    (out / "classes.txt").unlink()
    with pytest.raises(DataError, match=r"out: other: no such image in the data"):
        read(out, data)


@given(st.lists(st.integers(0, 2**16), min_size=2, max_size=2))
@settings(max_examples=10)
def test_what_is_written_is_read(tmp_path_factory, seeds):
    """Bit for bit, by the names of the classes."""
    folder = tmp_path_factory.mktemp("masks")
    data = scene(folder / "data", 2)
    writer = MaskWriter(WriterJob(folder / "out", ("tree", "sky", "road"), tuple(data.ids)))
    for id, seed in zip(data.ids, seeds, strict=True):
        record = {"height": SIZE[0], "width": SIZE[1], "mask": ids(seed)}
        writer.add(ImageInfo(id, SIZE), MaskPrediction.from_record(record, ("tree", "sky", "road")))
    writer.finish()
    found = read(folder / "out", data)
    for k, seed in enumerate(seeds):
        expected = np.array([2, 0, 1], np.uint8)[ids(seed)]
        assert (found[k].labels.numpy() == expected).all()
