"""The true class of each pixel of a picture that was measured."""

import numpy as np
import pytest
from PIL import Image

from tests import corpus
from visionkit.evaluation.folder import EvaluatedImage, Evaluation, new_metric
from visionkit.evaluation.report.truth import true_pixels
from visionkit.tasks.segmentation.readers.reader import MaskFolderDataset


@pytest.mark.parametrize("moved", [True, False])
def test_pictures_of_one_name_are_told_apart_by_their_folders(moved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sides = {}
    for side, shade in (("a", 0), ("b", 1)):
        file = tmp_path / "data" / "images" / side / "1.jpg"
        file.parent.mkdir(parents=True)
        file.write_bytes(corpus.jpeg(shade))
        mask = tmp_path / "data" / "masks" / side / "1.png"
        mask.parent.mkdir(parents=True)
        Image.fromarray(np.full((corpus.HEIGHT, corpus.WIDTH), shade, np.uint8)).save(mask)
        sides[side] = EvaluatedImage(
            f"data/images/{side}/1.jpg", "0" * 64, None, (corpus.HEIGHT, corpus.WIDTH), {"pixels": {}}
        )
    (tmp_path / "data" / "masks" / "classes.txt").write_text("0 sky\n1 road\n")
    evaluation = Evaluation(
        "segmentation", ["sky", "road"], list(sides.values()), new_metric("segmentation", ["sky", "road"]), {},
        data={"root": str(tmp_path / "data"), "split": "all"},
    )  # fmt: skip
    now = tmp_path / ("moved" if moved else "data")
    (tmp_path / "data").rename(now)
    data = MaskFolderDataset(now / "images", now / "masks")
    truth = true_pixels(evaluation, lambda split: data, "all", now if moved else None)
    assert [int(truth(k).max()) for k in range(2)] == [0, 1]
