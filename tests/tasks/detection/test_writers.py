import json
from pathlib import Path

import pytest
import torch

from visionkit import DataError, ImageInfo
from visionkit.prediction.writers import WriterJob
from visionkit.tasks.detection.types import BoxPrediction
from visionkit.tasks.detection.writers import CocoWriter, YoloWriter

NAMES = ("cat", "dog")
FOUND = BoxPrediction(
    torch.tensor([[10.0, 20, 30, 60], [0, 0, 80, 60]]), torch.tensor([0.75, 0.5]), torch.tensor([1, 0])
)
NOTHING = FOUND.at_least(1)


def job(out, images, annotations=None):
    return WriterJob(out, NAMES, tuple(images), annotations)


def annotations(folder, images, categories=((7, "dog"), (3, "cat"), (9, "bird"))):
    path = folder / "instances.json"
    content = {
        "images": [{"id": i, "file_name": name} for i, name in images],
        "categories": [{"id": i, "name": name} for i, name in categories],
    }
    path.write_text(json.dumps(content))
    return path


class TestCoco:
    def write(self, task, images):
        writer = CocoWriter(task)
        for name in images:
            writer.add(ImageInfo(name, (60, 80)), FOUND)
        assert not any(p.exists() for p in writer.outputs)
        writer.finish()
        assert sorted(task.out.iterdir()) == sorted(writer.outputs)
        return json.loads((task.out / "predictions.coco.json").read_text())

    def test_ids_of_its_own_and_what_they_mean(self, tmp_path):
        images = ["x/a.png", "broken.png", "b.png"]
        results = self.write(job(tmp_path / "out", images), ["x/a.png", "b.png"])
        assert results[0] == {"image_id": 1, "category_id": 2, "bbox": [10, 20, 20, 40], "score": 0.75}
        assert results[1] == {"image_id": 1, "category_id": 1, "bbox": [0, 0, 80, 60], "score": 0.5}
        assert [r["image_id"] for r in results] == [1, 1, 3, 3], "a picture's number does not depend on the others"
        assert json.loads((tmp_path / "out" / "predictions.coco_images.json").read_text()) == {
            "images": [
                {"id": 1, "file_name": "x/a.png", "width": 80, "height": 60},
                {"id": 3, "file_name": "b.png", "width": 80, "height": 60},
            ],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        }

    def test_ids_of_an_annotation_file(self, tmp_path):
        file = annotations(tmp_path, [(41, "b.png"), (42, "a.png")])
        results = self.write(job(tmp_path / "out", ["x/a.png", "b.png"], file), ["x/a.png", "b.png"])
        assert [(r["image_id"], r["category_id"]) for r in results] == [(42, 7), (42, 3), (41, 7), (41, 3)]

    def test_the_longest_common_end_decides(self, tmp_path):
        file = annotations(tmp_path, [(1, "train/a.png"), (2, "val/a.png"), (3, "other/val/a.png")])
        images = ["/data/val/a.png", "/data/train/a.png"]
        results = self.write(job(tmp_path / "out", images[1:], file), images[1:])
        assert {r["image_id"] for r in results} == {1}
        with pytest.raises(DataError, match=r"/data/val/a\.png: .*instances\.json has 2 images that it may be"):
            CocoWriter(job(tmp_path, images[:1], file))

    @pytest.mark.parametrize(
        ("images", "known", "words"),
        [
            (["c.png"], [(1, "a.png")], r"c\.png: .*instances\.json has no image of this name"),
            (["z/a.png"], [(1, "x/a.png"), (2, "y/a.png")], r"z/a\.png: .*2 images that it may be, of ids \[1, 2\]"),
            (["x/a.png", "y/a.png"], [(1, "a.png")], r"y/a\.png: .*one image for it and x/a\.png, of id 1"),
        ],
    )
    def test_pictures_that_do_not_fit(self, tmp_path, images, known, words):
        with pytest.raises(DataError, match=words):
            CocoWriter(job(tmp_path, images, annotations(tmp_path, known)))

    @pytest.mark.parametrize(
        ("categories", "words"),
        [
            ([(1, "cat")], "no categories named 'dog'"),
            ([(1, "cat"), (2, "dog"), (3, "dog")], "'dog' has id 3 and id 2; keep one"),
        ],
    )
    def test_classes_that_do_not_fit(self, tmp_path, categories, words):
        with pytest.raises(DataError, match=words):
            CocoWriter(job(tmp_path, ["a.png"], annotations(tmp_path, [(1, "a.png")], categories)))

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (None, "no such file"),
            ("", "no valid JSON"),
            ("[]", "holds a list, no COCO data set"),
            ('{"images": [{"id": 1}], "categories": []}', r"images\[0\]: file_name is None"),
            ('{"images": []}', "lacks the list.* categories"),
        ],
    )
    def test_no_annotation_file(self, tmp_path, content, words):
        if content is not None:
            (tmp_path / "a.json").write_text(content)
        with pytest.raises(DataError, match=rf"a\.json:.*{words}"):
            CocoWriter(job(tmp_path, ["a.png"], tmp_path / "a.json"))

    def test_pycocotools_reads_the_results(self, tmp_path, capsys):
        from pycocotools.coco import COCO

        self.write(job(tmp_path / "out", ["a.png"]), ["a.png"])
        legend = json.loads((tmp_path / "out" / "predictions.coco_images.json").read_text())
        known = COCO()
        known.dataset = {"info": {}, **legend, "annotations": []}
        known.createIndex()
        assert len(known.loadRes(str(tmp_path / "out" / "predictions.coco.json")).anns) == 2

    def test_nothing_found(self, tmp_path):
        writer = CocoWriter(job(tmp_path, ["a.png"]))
        writer.add(ImageInfo("a.png", (60, 80)), NOTHING)
        writer.finish()
        assert json.loads((tmp_path / "predictions.coco.json").read_text()) == []
        assert len(json.loads((tmp_path / "predictions.coco_images.json").read_text())["images"]) == 1


class TestYolo:
    def test_shares_of_the_picture(self, tmp_path):
        writer = YoloWriter(job(tmp_path, ["x/a.png", "x/b.png"]))
        assert writer.outputs == (tmp_path / "labels",)
        writer.add(ImageInfo("x/a.png", (60, 80)), FOUND)
        writer.add(ImageInfo("x/b.png", (60, 80)), NOTHING)
        writer.finish()
        lines = (tmp_path / "labels" / "a.txt").read_text().splitlines()
        assert [line.split()[0] for line in lines] == ["1", "0"]
        assert [float(v) for v in lines[0].split()[1:]] == pytest.approx([0.25, 40 / 60, 0.25, 40 / 60, 0.75], abs=1e-6)
        assert (tmp_path / "labels" / "b.txt").read_text() == ""
        assert (tmp_path / "labels" / "classes.txt").read_text() == "cat\ndog\n"

    @pytest.mark.parametrize(
        ("pictures", "files"),
        [
            ([], []),
            (["a.png"], ["a.txt"]),
            (["/x/a.png", "/x/b.jpg"], ["a.txt", "b.txt"]),
            (["/x/train/1.jpg", "/x/val/1.jpg"], ["train/1.txt", "val/1.txt"]),
            (["/x/1.jpg", "/x/val/1.jpg"], ["1.txt", "val/1.txt"]),
            (["/x/1.jpg", "/x/1.png", "/x/2.png"], ["1.jpg.txt", "1.png.txt", "2.png.txt"]),
            (["/x/1.jpg", "/x/1.png", "/x/1.jpg.png"], ["1.jpg.txt", "1.png.txt", "1.jpg.png.txt"]),
            (["/x/a.jpg", "/x/A.png"], ["a.jpg.txt", "A.png.txt"]),
            (["/x/classes.jpg", "/x/b.jpg"], ["classes.jpg.txt", "b.jpg.txt"]),
            (["/x/y/classes.jpg", "/x/b.jpg"], ["y/classes.txt", "b.txt"]),
            (["/x/a.jpg", "/x/../x/a.jpg"], ["a.txt", "a.txt"]),
        ],
    )
    def test_no_two_pictures_share_a_file(self, pictures, files):
        assert [p.as_posix() for p in YoloWriter(job(Path(), pictures)).files.values()] == files
