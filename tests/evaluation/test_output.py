"""The folder of an evaluation while pictures are predicted."""

import numpy as np
import torch
from PIL import Image

from tests.scenes import picture
from visionkit import ImageInfo, Sample
from visionkit.evaluation.inputs.reading import read_predictions
from visionkit.evaluation.output import records_of, writing_predictions
from visionkit.tasks.segmentation.readers.reader import MaskFolderDataset
from visionkit.tasks.segmentation.types import MaskPrediction


def test_masks_are_found_again_where_pictures_of_a_folder_were_not_counted(tmp_path):
    size, names = (24, 32), ("sky", "road")
    for place in ("a", "b"):
        picture(tmp_path / f"data/images/{place}/1.jpg", size)
        Image.fromarray(np.zeros(size, np.uint8)).save(picture(tmp_path / f"data/masks/{place}/1.png", size))
    (tmp_path / "data/masks/classes.txt").write_text("sky\nroad\n")
    data = MaskFolderDataset(tmp_path / "data/images", tmp_path / "data/masks")
    pixels = np.random.default_rng(0).integers(0, 2, size).astype(np.uint8)
    said = MaskPrediction.from_record({"height": size[0], "width": size[1], "mask": pixels}, names)
    records = records_of("segmentation")
    with writing_predictions(tmp_path / "out", records, names, data.ids, overwrite=False) as keep:
        keep(Sample(torch.zeros(3, 0, 0, dtype=torch.uint8), None, ImageInfo(data.ids[0], size)), said, 0)
    assert (tmp_path / "out/masks/a/1.png").is_file()
    found = read_predictions(
        tmp_path / "out/predictions.jsonl", task="segmentation", dataset=data, classes=names, allow_missing=True
    )
    assert (found[0].labels.numpy() == pixels).all()
