"""Predictions with masks: pasted, cut off, drawn and written."""

import json

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision.models.detection.roi_heads import paste_masks_in_image

from visionkit import DataError, ImageInfo, MaskRCNNHead, UsageError
from visionkit.prediction.writers import WriterJob
from visionkit.tasks.detection.instances import InstancePrediction, paste
from visionkit.tasks.detection.types import BOX_COLUMNS
from visionkit.tasks.detection.writers import CocoMaskWriter

NAMES = ("cat", "dog")


def make(boxes, masks, scores=None, labels=None, size=None):
    boxes = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    n = len(boxes)
    scores = torch.linspace(1, 0.5, n) if scores is None else torch.tensor(scores)
    labels = torch.arange(n) % 2 if labels is None else torch.tensor(labels)
    return InstancePrediction(boxes, scores, labels, size, masks=masks, frames=boxes)


def smooth(n, g, side=28):
    return F.interpolate(torch.rand(n, 1, 4, 4, generator=g), size=side, mode="bicubic")[:, 0].clamp(0, 1)


def full(n, side=28):
    return torch.ones(n, side, side)


def beyond_a_pixel(a, b):
    kernel = np.ones((3, 3), np.uint8)
    return int((((a & ~cv2.dilate(b, kernel)) | (b & ~cv2.dilate(a, kernel))) & 1).sum())


class TestPaste:
    @settings(max_examples=40)
    @given(
        seed=st.integers(0, 999), size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
        corner=st.tuples(st.floats(-50, 70), st.floats(-50, 70)), sides=st.tuples(st.floats(0.1, 120), st.floats(0.1, 120)),
    )  # fmt: skip
    def test_pixels_are_those_of_bilinear_sampling(self, seed, size, corner, sides):
        mask = smooth(1, torch.Generator().manual_seed(seed), 14)[0]
        box = torch.tensor([*corner, corner[0] + sides[0], corner[1] + sides[1]], dtype=torch.float32).double()
        y, x = torch.meshgrid(*(torch.arange(s, dtype=torch.float64) + 0.5 for s in size), indexing="ij")
        grid = torch.stack([(x - box[0]) / (box[2] - box[0]), (y - box[1]) / (box[3] - box[1])], -1) * 2 - 1
        expected = F.grid_sample(mask.double()[None, None], grid[None], align_corners=False)[0, 0]
        window, (top, left) = paste(mask.numpy(), box.tolist(), size)
        found = np.zeros(size, bool)
        found[top : top + window.shape[0], left : left + window.shape[1]] = window
        sure = (expected - 0.5).abs() > 1e-4
        assert ((torch.from_numpy(found) == (expected >= 0.5)) | ~sure).all()

    def test_torchvision_pastes_the_same_within_a_pixel(self):
        g = torch.Generator().manual_seed(0)
        corner = torch.rand(60, 2, generator=g) * torch.tensor([190.0, 150]) - 40
        boxes = torch.cat([corner, corner + 45 + torch.rand(60, 2, generator=g) * 80], 1).round()
        masks = smooth(60, g)
        ours = make(boxes, masks, size=(120, 160)).pasted.dense()
        theirs = (paste_masks_in_image(masks[:, None], boxes, (120, 160))[:, 0] >= 0.5).numpy().astype(np.uint8)
        assert ours.sum() > 20000
        assert sum(beyond_a_pixel(a, b) for a, b in zip(ours, theirs, strict=True)) < 1e-4 * ours.sum()

    def test_a_full_mask_is_its_box(self):
        found = make([[3.0, 4, 20, 9], [-5, -5, 8, 8], [30, 20, 99, 99], [50, 50, 60, 60]], full(4), size=(30, 40))
        assert found.pasted.boxes().tolist() == [[3, 4, 20, 9], [0, 0, 8, 8], [30, 20, 40, 30], [0, 0, 0, 0]]
        assert found.pasted.areas().tolist() == pytest.approx([85, 64, 100, 0], abs=1), "corners are round"

    def test_what_is_not_finite_is_nothing(self):
        found = make([[3.0, 4, float("nan"), 9], [0, 0, float("inf"), 9]], full(2), size=(30, 40))
        assert found.pasted.areas().tolist() == [0, 0]

    def test_objects_of_a_large_picture_are_never_all_pasted_whole(self):
        size = (3000, 4000)
        g = torch.Generator().manual_seed(0)
        room = torch.tensor(size[::-1])
        corner = torch.rand(100, 2, generator=g) * room * 0.7
        corners = torch.cat([corner, corner + 5 + torch.rand(100, 2, generator=g) * room * 0.3], 1)
        found = make(corners, smooth(100, g), size=size)
        with LargestTensor() as largest:
            assert len(found.rles()) == 100
        assert 0 < largest.numel <= 4 * size[0] * size[1]


class LargestTensor(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that is made."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        self.numel = max([self.numel, *(x.numel() for x in tree_leaves(made) if isinstance(x, torch.Tensor))])
        return made


class TestRestore:
    INFO = ImageInfo("a", (40, 50), (2.0, 2.0), (10, 4))

    def test_masks_do_not_move_where_boxes_are_cut_off(self):
        """The left half of the frame is the object; the frame's left quarter lies outside of the picture."""
        masks = full(1)
        masks[:, :, 14:] = 0
        found = make([[-16.0, 10, 64, 90]], masks).restore(self.INFO)
        assert found.boxes.tolist() == [[0, 0, 30, 40]]
        assert found.frames.tolist() == [[-10, 0, 30, 40]]
        assert found.pasted.boxes().tolist() == [[0, 0, 10, 40]]
        assert found.size == (40, 50)

    def test_masks_stay_in_step_with_boxes(self):
        masks = torch.stack([full(1)[0] * v for v in (0.9, 0.8, 0.7)])
        found = make([[0.0, 0, 30, 30], [190, 190, 220, 220], [10, 20, 60, 60]], masks).restore(self.INFO)
        assert found.masks[:, 0, 0].tolist() == pytest.approx([0.9, 0.7])
        assert found.labels.tolist() == [0, 0]
        kept = found.at_least(0.8)
        assert (len(kept), len(kept.masks), len(kept.frames), len(kept.rles())) == (1, 1, 1, 1)
        assert found.select(torch.tensor([1])).masks[0, 0, 0].item() == pytest.approx(0.7)

    def test_before_it_masks_cannot_be_pasted(self):
        with pytest.raises(UsageError, match="call restore"):
            make([[0.0, 0, 9, 9]], full(1)).rles()

    def test_shapes_that_disagree(self):
        with pytest.raises(DataError, match=r"masks \[2, 28, 28\], frames \[1, 4\] of 1 boxes must be \[1, M, M\]"):
            make([[0.0, 0, 9, 9]], full(2))


class TestOutput:
    FOUND = make([[1.0, 2, 11, 22], [30, 30, 60, 50], [5, 5, 9, 9]], full(3), [0.9, 0.3, 0.2], [1, 0, 1], (60, 80))

    def test_record(self):
        (first, *_) = self.FOUND.record(NAMES)["objects"]
        assert set(first) == {"label", "score", "box", "mask"}
        assert first["mask"]["size"] == [60, 80]
        assert first["mask"]["counts"] == self.FOUND.rles()[0]["counts"].decode()
        json.dumps(first)

    def test_rows(self):
        rows = self.FOUND.rows(NAMES)
        assert tuple(rows[0]) == MaskRCNNHead.columns == (*BOX_COLUMNS, "mask_area")
        assert [r["mask_area"] for r in rows] == [200, 600, 16]

    def test_drawn(self):
        image = torch.full((3, 60, 80), 128, dtype=torch.uint8)
        picture = self.FOUND.draw(image, NAMES)
        assert picture.shape == image.shape
        assert (image == 128).all()
        changed = (picture != 128).any(0)
        assert changed[2:22, 1:11].all()
        assert changed[30:50, 30:60].all(), "the threshold itself counts"
        changed[2:22, 1:11] = changed[30:50, 30:60] = False
        assert not changed.any()
        assert len(picture[:, 10, 5].unique()) > 1, "a colour shines through"

    def test_nothing_is_drawn_of_nothing(self):
        image = torch.randint(0, 255, (3, 60, 80), dtype=torch.uint8)
        assert torch.equal(self.FOUND.at_least(1).draw(image, NAMES), image)

    def test_pycocotools_reads_what_is_written(self, tmp_path, capsys):
        from pycocotools.coco import COCO

        assert MaskRCNNHead.writers["coco"] is CocoMaskWriter
        writer = MaskRCNNHead.writers["coco"](WriterJob(tmp_path, NAMES, ("a.png",)))
        writer.add(ImageInfo("a.png", (60, 80)), self.FOUND)
        writer.finish()
        results = json.loads((tmp_path / "predictions.coco.json").read_text())
        assert set(results[0]) == {"image_id", "category_id", "bbox", "score", "segmentation"}
        known = COCO()
        known.dataset = {
            "info": {},
            **json.loads((tmp_path / "predictions.coco_images.json").read_text()),
            "annotations": [],
        }
        known.createIndex()
        loaded = known.loadRes(str(tmp_path / "predictions.coco.json"))
        assert [int(loaded.annToMask(a).sum()) for a in loaded.anns.values()] == [200, 600, 16]

    def test_yolo_writes_boxes(self, tmp_path):
        writer = MaskRCNNHead.writers["yolo"](WriterJob(tmp_path, NAMES, ("a.png",)))
        writer.add(ImageInfo("a.png", (60, 80)), self.FOUND)
        assert len((tmp_path / "labels" / "a.txt").read_text().splitlines()) == 3
