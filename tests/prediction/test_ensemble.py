"""Several checkpoints that predict as one: against the models one by one, and on the command line."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import visionkit
from visionkit import DataError, UsageError, Views, VisionModel
from visionkit.cli.main import run
from visionkit.core.joining import Joining
from visionkit.models.necks.fpn import FPN
from visionkit.prediction.ensemble import make_ensemble
from visionkit.prediction.files import ImageFile, predict_to_folder
from visionkit.prediction.members import Members

COLOURS = ("blue", "green", "red")


def small(seed, classes=COLOURS, *, head=visionkit.LinearHead, neck=None, size=32, channels=3):
    torch.manual_seed(seed)
    backbone = visionkit.ResNet(
        layers=(1, 1, 1, 1), block="basic", stem="small", depthwise_separable=True, in_channels=channels
    )
    given = {} if neck is None else {"neck": neck}
    preprocessing = visionkit.Preprocessing(size, channels=channels)
    return VisionModel(backbone, head, classes, preprocessing=preprocessing, **given).eval()


def detector(seed, classes=COLOURS):
    made = small(
        seed,
        classes,
        head=lambda f, n: visionkit.FCOSHead(f, n, channels=32, depth=0, score_threshold=0.0, detections=20),
        neck=lambda f: FPN(f, 32, min_level=3, max_level=5),
        size=64,
    )
    torch.nn.init.normal_(made.head.classes.weight, std=0.5)
    return made


def segmenter(seed, classes=COLOURS, size=32):
    return small(seed, classes, head=visionkit.FCNHead, size=size)


def saved(folder, *models):
    paths = []
    for k, model in enumerate(models):
        visionkit.save(model, folder / f"{k}.ckpt")
        paths.append(str(folder / f"{k}.ckpt"))
    return paths


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for k, size in enumerate([(40, 60), (33, 33), (80, 50)]):
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(tmp_path / "in" / f"{k}.png")
    return [str(tmp_path / "in" / f"{k}.png") for k in range(3)]


def records(folder):
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


class TestEnsemble:
    def test_probabilities_are_those_of_the_models_by_name(self, tmp_path, pictures):
        """Other size, order of classes, classes that one alone knows."""
        paths = saved(tmp_path, small(0), small(1, ("red", "blue", "white"), size=48))
        ensemble = make_ensemble(paths, weights=(3, 1))
        assert ensemble.classes == (*COLOURS, "white")
        found = [p.probabilities for p in ensemble.predict(pictures)]
        for picture, mean in zip(pictures, found, strict=True):
            one, two = (visionkit.load(path)(picture).probabilities for path in paths)
            blue, red = 0.75 * one[0] + 0.25 * two[1], 0.75 * one[2] + 0.25 * two[0]
            expected = torch.stack([blue, one[1], red, two[2]])
            torch.testing.assert_close(mean, expected / expected.sum())

    def test_one_member_alone_says_the_same_to_the_last_bit(self, tmp_path, pictures):
        for model in (small(0), detector(1), segmenter(2)):
            (path,) = saved(tmp_path, model)
            one, plain = make_ensemble([path]), visionkit.load(path)
            for alone, single in zip(one.predict(pictures), plain.predict(pictures), strict=True):
                assert alone.record(COLOURS) == single.record(COLOURS)

    def test_boxes_of_two_equal_models_are_theirs(self, tmp_path, pictures):
        paths = saved(tmp_path, detector(1), detector(1))
        both, one = make_ensemble(paths).predict(pictures[0]), visionkit.load(paths[0])(pictures[0])
        assert len(one) >= 3
        torch.testing.assert_close(both.scores, one.scores)
        torch.testing.assert_close(both.boxes, one.boxes, atol=1e-3, rtol=0)

    def test_pixels_are_means(self, tmp_path, pictures):
        paths = saved(tmp_path, segmenter(1), segmenter(2, COLOURS[::-1], size=64))
        both = make_ensemble(paths).predict(pictures[0]).probabilities()
        one, two = (visionkit.load(path)(pictures[0]).probabilities() for path in paths)
        torch.testing.assert_close(both, (one + two.flip(0)) / 2)

    @pytest.mark.parametrize("views", [Views(flip=True), Views(window=24, overlap=0.5), Views(scales=(1, 1.5))])
    def test_views_are_put_together_before_models(self, tmp_path, pictures, views):
        paths = saved(tmp_path, small(0), small(1, size=48))
        both = make_ensemble(paths, views=views, batch_size=4)
        found = both.predict(pictures)
        alone = [list(visionkit.predict_files(path, pictures, views=views)) for path in paths]
        for mean, one, two in zip(found, *alone, strict=True):
            expected = (one.prediction.probabilities + two.prediction.probabilities) / 2
            torch.testing.assert_close(mean.probabilities, expected)

    def test_what_is_wrong_with_a_picture_is_its_own(self, tmp_path, pictures):
        paths = saved(tmp_path, small(0), small(1))
        ensemble = make_ensemble(paths)
        first, *_ = (ensemble.prepare(s, keep=False) for s in samples(pictures))
        results = list(ensemble.results([first, DataError("b.png: is no image"), first]))
        assert str(results[1]) == "b.png: is no image"
        assert torch.equal(results[0][1].probabilities, results[2][1].probabilities)

    def test_a_loaded_list_is_called_with_pictures_and_with_samples(self, tmp_path, pictures):
        paths = saved(tmp_path, small(0), small(1))
        model = visionkit.load(paths)
        one = model(pictures[0])
        assert torch.equal(model([pictures[0]])[0].probabilities, one.probabilities)
        assert torch.equal(next(model(samples(pictures))).probabilities, one.probabilities)
        assert torch.equal(next(model(list(samples(pictures)))).probabilities, one.probabilities)
        found = list(visionkit.predict_files(paths, pictures))
        assert torch.equal(found[0].prediction.probabilities, one.probabilities)
        assert found[0].classes == COLOURS

    def test_the_largest_size_decides_how_pictures_are_decoded(self, tmp_path):
        ensemble = make_ensemble(saved(tmp_path, small(0, size=32), small(1, size=64)))
        assert ensemble.scale()((640, 640)) == (0.1, 0.1)
        assert make_ensemble([str(tmp_path / "0.ckpt")], views=Views(flip=True)).scale() is None

    def test_other_weights_need_no_other_models(self, tmp_path, pictures):
        paths = saved(tmp_path, small(0), small(1))
        ensemble = make_ensemble(paths)
        second = ensemble.with_weights((0, 2))
        assert second.weights == (0, 1)
        assert second.predictors is ensemble.predictors
        torch.testing.assert_close(
            second.predict(pictures[0]).probabilities, visionkit.load(paths[1])(pictures[0]).probabilities
        )

    def test_the_cost_is_measured(self, tmp_path, pictures):
        ensemble = make_ensemble(saved(tmp_path, small(0), small(1), small(2)))
        assert ensemble.cost() is None
        ensemble.predict(pictures)
        assert ensemble.cost() > 1
        (found,) = ensemble.each(ensemble.prepare(s, keep=False) for s in samples(pictures[:1]))
        before = ensemble.seconds
        ensemble.combine(found[1], (1, 0, 0))
        assert ensemble.seconds == before, "other weights are being tried"
        ensemble.combine(found[1])
        assert ensemble.seconds > before > 0
        assert ensemble.cost_line().startswith("cost     3 models, about ")

    def test_joint_models_are_joined_head_by_head(self, tmp_path, pictures):
        def joint(seed):
            return visionkit.join_heads({"kind": small(seed), "ground": with_backbone(segmenter(seed), small(seed))})

        paths = saved(tmp_path, joint(0), joint(1))
        both = make_ensemble(paths).predict(pictures[0])
        one, two = (visionkit.load(path)(pictures[0]) for path in paths)
        torch.testing.assert_close(
            both.parts["kind"].probabilities,
            (one.parts["kind"].probabilities + two.parts["kind"].probabilities) / 2,
        )
        torch.testing.assert_close(
            both.parts["ground"].probabilities(),
            (one.parts["ground"].probabilities() + two.parts["ground"].probabilities()) / 2,
        )


def with_backbone(model, other):
    model.backbone.load_state_dict(other.backbone.state_dict())
    return model


def samples(pictures):
    from visionkit.data.images.given import samples_of

    return samples_of(pictures, 3)


class TestWhatIsRefused:
    def test_other_tasks(self, tmp_path):
        paths = saved(tmp_path, small(0), detector(1))
        with pytest.raises(
            UsageError, match=r"0\.ckpt gives class predictions, .*1\.ckpt gives box predictions: models"
        ):
            make_ensemble(paths)

    def test_one_label_and_several(self, tmp_path):
        tags = small(1, head=lambda f, n: visionkit.LinearHead(f, n, multilabel=True))
        with pytest.raises(UsageError, match="gives class predictions, .* gives class predictions of several labels"):
            make_ensemble(saved(tmp_path, small(0), tags))

    def test_no_class_in_common(self, tmp_path):
        paths = saved(tmp_path, small(0), small(1, ("cat", "dog", "cow", "hen")))
        words = r"0\.ckpt \(blue, green, red\) and .*1\.ckpt \(cat, dog, cow, ... 4 in all\) have no class in common"
        with pytest.raises(UsageError, match=words):
            make_ensemble(paths)

    def test_other_channels(self, tmp_path):
        with pytest.raises(UsageError, match=r"0\.ckpt takes pictures of 3 channels, .*1\.ckpt of 1"):
            make_ensemble(saved(tmp_path, small(0), small(1, channels=1)))

    def test_the_same_file_under_two_names(self, tmp_path):
        (path,) = saved(tmp_path, small(0))
        (tmp_path / "best.ckpt").symlink_to(path)
        with pytest.raises(UsageError, match="is given twice"):
            make_ensemble([path, str(tmp_path / "best.ckpt")])
        assert len(Members.load([path, path]).models) == 1

    def test_a_file_that_is_missing_is_named(self, tmp_path):
        (path,) = saved(tmp_path, small(0))
        with pytest.raises(DataError, match=r"missing\.ckpt: "):
            make_ensemble([path, str(tmp_path / "missing.ckpt")])


class TestLines:
    def members(self, *classes, weights=None):
        names = [f"{k}.ckpt" for k in range(len(classes))]
        joining = Joining.of(classes, weights)
        return Members(tuple(names), (small(0),) * len(classes), joining)

    def test_nothing_where_all_is_the_same(self):
        assert self.members(COLOURS, COLOURS).lines() == []

    def test_other_orders_and_other_classes(self):
        assert self.members(COLOURS, COLOURS[::-1]).lines() == [
            "classes  1.ckpt has those of 0.ckpt in another order: they are joined by name"
        ]
        assert self.members(COLOURS, ("red", "blue", "white")).lines() == [
            "classes  1.ckpt knows white too and does not know green: a class is judged by the models that know it"
        ]

    def test_weights_that_are_not_equal(self):
        assert self.members(COLOURS, COLOURS, weights=(3, 1)).lines() == ["weights  0.ckpt 0.75, 1.ckpt 0.25"]


class TestCommand:
    def test_several_checkpoints_predict_into_a_folder(self, tmp_path, pictures, capsys):
        paths = saved(tmp_path, small(0), small(1))
        folder = tmp_path / "in"
        given = ["--out", str(tmp_path / "o"), str(folder), "--num-workers", "0", "--save-images"]
        assert run(["predict", "--ckpt", *paths, *given]) == 0
        told = capsys.readouterr()
        assert "cost     2 models, about " in told.out
        assert told.err == ""
        for record, picture in zip(records(tmp_path / "o"), pictures, strict=True):
            found = [visionkit.load(path)(picture).probabilities for path in paths]
            assert list(record["probabilities"].values()) == pytest.approx(((found[0] + found[1]) / 2).tolist())
        assert len(list((tmp_path / "o" / "images").glob("*.jpg"))) == 3
        again = ["predict", "--ckpt", paths[0], "--ckpt", paths[1], "--out", str(tmp_path / "o2"), str(folder)]
        assert run(again) == 0
        assert records(tmp_path / "o2") == records(tmp_path / "o")

    def test_formats_and_crops(self, tmp_path, pictures):
        paths = saved(tmp_path, detector(0), detector(1, ("red", "white")))
        done = predict_to_folder(
            paths, [ImageFile(p) for p in pictures], tmp_path / "o",
            formats=["coco", "yolo"], save_crops=True, min_score=0.01, num_workers=0,
        )  # fmt: skip
        assert done.count == 3
        assert not done.problems
        labels = {o["label"] for record in records(tmp_path / "o") for o in record["objects"]}
        assert "white" in labels
        assert any((tmp_path / "o" / "crops").rglob("*.jpg"))

    def test_going_on_wants_the_same_checkpoints_and_weights(self, tmp_path, pictures):
        paths = saved(tmp_path, small(0), small(1), small(2))
        files, out = [ImageFile(p) for p in pictures], tmp_path / "o"
        predict_to_folder(paths[:2], files[:2], out, num_workers=0, weights=(1, 3))
        whole = predict_to_folder(paths[:2], files, out, num_workers=0, weights=(1, 3), resume=True)
        assert whole.count == 3
        for other in (paths[::2], paths[:1], paths):
            with pytest.raises(UsageError, match="made with another checkpoint"):
                predict_to_folder(other, files, out, num_workers=0, resume=True)
        with pytest.raises(UsageError, match=r"made with another weight of each checkpoint \(--fitted\)"):
            predict_to_folder(paths[:2], files, out, num_workers=0, resume=True)

    def test_weights_of_an_evaluation(self, tmp_path, pictures, capsys):
        from visionkit.prediction.resuming import digest

        paths = saved(tmp_path, small(0), small(1), small(2))
        hashes = [digest(path) for path in (tmp_path / "1.ckpt", tmp_path / "0.ckpt")]
        (tmp_path / "e").mkdir()
        told = {
            "model": {"checkpoints": [{"path": "?", "sha256": own} for own in hashes]},
            "ensemble": {"weights": [0.25, 0.75]},
        }
        (tmp_path / "e" / "evaluation.json").write_text(json.dumps(told))
        given = ["--fitted", str(tmp_path / "e"), "--out", str(tmp_path / "o"), pictures[0]]
        assert run(["predict", "--ckpt", *paths[:2], *given]) == 0
        assert f"weights  {paths[0]} 0.75, {paths[1]} 0.25" in capsys.readouterr().out
        one, two = (visionkit.load(path)(pictures[0]).probabilities for path in paths[:2])
        (record,) = records(tmp_path / "o")
        assert list(record["probabilities"].values()) == pytest.approx((0.75 * one + 0.25 * two).tolist())
        assert run(["predict", "--ckpt", paths[0], paths[2], *given]) == 2
        assert "2.ckpt: is none of the 2 checkpoints that" in capsys.readouterr().err
        assert run(["predict", "--ckpt", paths[0], *given]) == 2
        assert "--fitted gives the weights of several checkpoints" in capsys.readouterr().err
