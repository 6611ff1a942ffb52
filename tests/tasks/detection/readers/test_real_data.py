"""Detection on real photos."""

import json

import pytest

from visionkit import CocoDataset, DetectionData, YoloDataset
from visionkit.cli.main import run


def test_coco_and_yolo_files_of_the_same_photos_give_the_same_targets(data_root):
    coco = CocoDataset(data_root / "coco128" / "annotations" / "instances_train2017.json")
    yolo = YoloDataset(data_root / "coco128", "train", classes=coco.classes)
    names = {i.rpartition("/")[2]: k for k, i in enumerate(yolo.ids)}
    for k, image in enumerate(coco.ids[:20]):
        a, b = coco[k].target, yolo[names[image.rpartition("/")[2]]].target
        a = a.select(~a.crowd)
        order = [sorted(range(len(t)), key=lambda j, t=t: [round(v, 1) for v in t.boxes[j].tolist()]) for t in (a, b)]
        assert a.labels[order[0]].tolist() == b.labels[order[1]].tolist()
        assert len(a) == len(b)
        if len(a):
            assert (a.boxes[order[0]] - b.boxes[order[1]]).abs().max() < 0.02


def test_real_pictures_and_boxes_reach_the_model(data_root):
    data = DetectionData(str(data_root / "detection" / "bccd"), size=128, batch_size=4, num_workers=0)
    data.setup("fit")
    assert data.classes == ("Platelets", "RBC", "WBC")
    for loader in (data.train_dataloader(), data.val_dataloader()):
        batch = next(iter(loader))
        assert batch.images.shape == (4, 3, 128, 128)
        for target in batch.targets:
            assert target.boxes.min() >= 0
            assert target.boxes.max() <= 128
            assert (target.boxes[:, 2:] > target.boxes[:, :2]).all()


@pytest.mark.slow
@pytest.mark.parametrize(("config", "enough"), [("detect.yaml", 0.3), ("detect_two_stage.yaml", 0.25)])
def test_blood_cells_are_found_from_scratch(config, enough, data_root, tmp_path):
    root = data_root / "detection" / "bccd"
    settings = {"data.root": root, "data.size": "[240, 320]", "trainer.max_epochs": 10, "trainer.logger": "false",
                "trainer.check_val_every_n_epoch": 5, "trainer.default_root_dir": tmp_path / "out"}  # fmt: skip
    assert run(["fit", "-c", config, *(f"--{k}={v}" for k, v in settings.items())]) == 0
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["val/map"] > enough
    best = str(tmp_path / "out" / "checkpoints" / "best.ckpt")
    assert (
        run(["test", "--ckpt_path", best, f"--data.root={root}", f"--trainer.default_root_dir={tmp_path / 'out'}"]) == 0
    )
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["test/map"] > enough
