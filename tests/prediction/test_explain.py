"""Maps of models whose right map is known by construction."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

import visionkit
from visionkit import (
    FCNHead,
    FCOSHead,
    FeatureSpec,
    Head,
    LinearHead,
    MLPHead,
    Preprocessing,
    Sample,
    UsageError,
    VisionModel,
    convert,
)
from visionkit.core.sample import ImageInfo
from visionkit.core.thresholds import Thresholds
from visionkit.models.backbones.base import Backbone
from visionkit.prediction.explain import Explainer, explain, explain_samples
from visionkit.prediction.explanations.maps import contributions, look
from visionkit.tasks.detection.types import BoxPrediction

RED, BLUE = 0, 2
COLOURS = ("red", "green", "blue")


class Mean(Backbone):
    """The mean colour of each cell of 8 and of 16 pixels."""

    def __init__(self):
        super().__init__()
        self.features = FeatureSpec((3, 3), (8, 16))
        self.in_channels, self.mean, self.std = 3, (0.0,) * 3, (1.0,) * 3

    def forward(self, x):
        return [F.avg_pool2d(x, 8), F.avg_pool2d(x, 16)]


def picture(size=(64, 64), **places):
    """Return a grey picture with squares of 16 pixels of a colour: red=(top, left)."""
    image = torch.full((3, *size), 90, dtype=torch.uint8)
    for name, (top, left) in places.items():
        square = image[:, top : top + 16, left : left + 16]
        square.zero_()
        square[["red", "green", "blue"].index(name)] = 255
    return image


def classifier(head=LinearHead, **options):
    """Return a model whose class is the colour that there is more of."""
    model = VisionModel(Mean(), lambda f, n: head(f, n, **options), ["red", "green", "blue"],
                        preprocessing=Preprocessing(64)).eval()  # fmt: skip
    if head is LinearHead:
        with torch.no_grad():
            model.head.classifier[-1].weight.copy_(torch.eye(3) * 120 - 40)
            model.head.classifier[-1].bias.copy_(torch.tensor([2.0, 0.0, 0.0]))
    return model


def sample(image, name="a.png"):
    return Sample(image, None, ImageInfo(name, tuple(image.shape[1:])))


def peak(values):
    row, column = divmod(int(values.argmax()), values.shape[1])
    return row, column


class TestClasses:
    def test_the_map_peaks_where_the_evidence_is_and_scores_above_the_centre(self):
        (found,) = explain(classifier(), picture(red=(0, 48), blue=(40, 8)))
        assert (found.label, found.box, found.mask) == ("red", None, None)
        row, column = peak(found.map)
        assert 0 <= row < 16
        assert 48 <= column < 64
        assert found.map.shape == (64, 64)
        assert float(found.map.max()) == 1
        assert float(found.map.min()) == 0
        assert found.map[44, 16] == 0  # blue speaks against red
        assert found.cells == (4, 4)
        assert found.insertion_minus_deletion > found.centre_blob + 0.05

    def test_it_follows_the_head_and_not_the_picture(self):
        """A map that is blind to the head would be the same for both classes."""
        model = classifier()
        looked = look(model, picture(red=(0, 48), blue=(48, 0)))
        red, blue = (looked.map_of(s).values for s in self._both(looked))
        assert peak(red)[0] < 16
        assert peak(red)[1] >= 48
        assert peak(blue)[0] >= 48
        assert peak(blue)[1] < 16
        ranks = [x.flatten().argsort().argsort().double() for x in (red, blue)]
        assert float(torch.corrcoef(torch.stack(ranks))[0, 1]) < 0.3

    @staticmethod
    def _both(looked):
        from visionkit.models.evidence import Subject

        return Subject(RED, 0.5), Subject(BLUE, 0.5)

    def test_what_it_adds_up_to_is_the_logit_of_a_head_that_is_linear_behind_its_pooling(self):
        torch.manual_seed(0)
        model = classifier()
        nn.init.normal_(model.head.classifier[-1].weight)
        nn.init.constant_(model.head.classifier[-1].bias, 0.7)
        image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
        looked = look(model, image)
        (subject,) = looked.subjects(most=1, min_score=None, without=())
        logit = float(model(image[None]).logits.detach()[0, subject.label])
        level = looked.levels[-1].detach()
        weight = model.head.classifier[-1].weight.detach()[subject.label]
        exact = (level[0] * weight[:, None, None]).sum(0) / level[
            0, 0
        ].numel()  # the definition of a class activation map
        assert float(exact.sum()) + 0.7 == pytest.approx(logit, abs=1e-5)
        gradient = weight[None, :, None, None].expand_as(level) / level[0, 0].numel()
        found = contributions([level], [gradient], [16], (64, 64)).values
        assert torch.allclose(looked.map_of(subject).values, found, atol=1e-6)
        assert float(found.sum()) + 0.7 == pytest.approx(logit, abs=0.05)  # enlarged smoothly

    def test_an_mlp_and_several_labels(self):
        torch.manual_seed(0)
        (found,) = explain(classifier(MLPHead), picture(red=(0, 48)))
        assert found.map.max() == 1
        several = classifier(multilabel=True, threshold=0.0)
        assert next(e.label for e in explain(several, picture(red=(0, 48)))) == "red"
        assert len(explain(several, picture(red=(0, 48)), most=2)) == 2

    def test_one_picture_gives_a_list_and_several_one_each(self, tmp_path):
        model = classifier()
        Image.fromarray(picture(red=(0, 0)).permute(1, 2, 0).numpy()).save(tmp_path / "a.png")
        (one,) = explain(model, tmp_path / "a.png")
        both = explain(model, [str(tmp_path / "a.png"), picture(blue=(8, 8)).permute(1, 2, 0).numpy()])
        assert [[e.label for e in found] for found in both] == [["red"], ["blue"]]
        assert torch.equal(both[0][0].map, one.map)
        assert visionkit.explain is explain
        assert both[1][0].image == "picture 1"
        read = (sample(image, name) for image, name in [(picture(blue=(8, 8)), "b.png"), (None, "never asked for")])
        (found,) = next(explain_samples(model, read))
        assert (found.image, found.label) == ("b.png", "blue")

    def test_a_grey_model_and_a_picture_of_another_size(self):
        class Grey(Mean):
            def __init__(self):
                super().__init__()
                self.features = FeatureSpec((1,), (8,))
                self.in_channels, self.mean, self.std = 1, (0.0,), (1.0,)

            def forward(self, x):
                return [F.avg_pool2d(x, 8)]

        model = VisionModel(Grey(), LinearHead, ["dark", "light"], preprocessing=Preprocessing(32, channels=1)).eval()
        with torch.no_grad():
            model.head.classifier[-1].weight.copy_(torch.tensor([[-5.0], [5.0]]))
        image = torch.zeros(1, 50, 100, dtype=torch.uint8)
        image[:, :20, :30] = 255
        (found,) = explain(model, image)
        assert found.label == "light"
        assert found.map.shape == (32, 32)
        assert found.draw(image).shape[0] == 3


class TestObjects:
    @pytest.fixture
    def detector(self):
        """Its class is the colour of a cell, its boxes are 2 cells of 8 pixels on each side of the cell's centre."""
        model = VisionModel(
            Mean(),
            lambda f, n: FCOSHead(f, n, depth=0, bins=0, score_threshold=0.3, nms_threshold=0.3),
            ["red", "green", "blue"],
            preprocessing=Preprocessing(128),
        ).eval()
        head = model.head
        with torch.no_grad():
            for conv in (head.classes, head.edges):
                conv.weight.zero_()
            for k in range(3):
                head.classes.weight[k, k, 1, 1] = 20
                head.classes.weight[k, [j for j in range(3) if j != k], 1, 1] = -20
            head.classes.bias.fill_(-10)
            head.edges.bias.fill_(1.5)
        return model

    def test_each_box_has_a_map_of_its_own_that_ends_at_twice_the_box(self, detector):
        image = picture((128, 128), red=(16, 96), blue=(80, 16))
        found = explain(detector, image, most=10)
        assert {e.label for e in found} == {"red", "blue"}
        for one in found:
            x1, y1, x2, y2 = one.box
            row, column = peak(one.map)
            assert y1 <= row < y2
            assert x1 <= column < x2
            outside = one.map.clone()
            outside[max(0, int(y1 - (y2 - y1) / 2) - 1) : int(y2 + (y2 - y1) / 2) + 2,
                    max(0, int(x1 - (x2 - x1) / 2) - 1) : int(x2 + (x2 - x1) / 2) + 2] = 0  # fmt: skip
            assert float(outside.max()) == 0

    def test_the_cell_that_the_box_comes_from_is_asked(self, detector):
        looked = look(detector, picture((128, 128), red=(16, 96)))
        (subject, *_) = looked.subjects(most=1, min_score=None, without=())
        gradient = torch.autograd.grad(
            detector.head.evidence(looked.outputs, subject).logits.sum(), looked.levels, allow_unused=True
        )
        cells = [(int((g[0].abs().sum(0) > 0).sum()) if g is not None else 0) for g in gradient]
        assert sum(cells) == 1  # the kernel reads its own cell alone

    def test_how_many_and_from_which_score_on(self, detector):
        image = picture((128, 128), red=(16, 96), blue=(80, 16))
        assert len(explain(detector, image, most=1)) == 1
        assert explain(detector, image, min_score=1.0) == []
        strict = Thresholds("precision>=0.95", {"red": 0.1, "blue": 1.0})
        found = Explainer(detector, most=10, thresholds=strict)(sample(image))
        assert {e.label for e in found} == {"red"}
        assert explain(detector, picture((128, 128))) == []

    @pytest.mark.parametrize("most", [1, 3])
    @pytest.mark.parametrize(
        ("values", "labels"),
        [
            ({"red": 0.9, "blue": None}, ["blue"]),
            ({"red": 0.9, "blue": 0.5}, ["blue"]),
            ({"red": 0.05, "blue": None}, ["red", "red", "red"]),
            ({"red": 0.05}, ["red", "red", "red"]),
        ],
    )
    def test_what_is_explained_is_what_the_records_hold(self, detector, monkeypatch, most, values, labels):
        blue = (
            0.6 if values["red"] == 0.9 else 0.1
        )  # an unnamed class, or one of which nothing is promised: from 0.3 on
        at = torch.tensor([[0.0, 0, 20, 20], [40, 0, 60, 20], [80, 0, 100, 20], [0, 60, 20, 80]])
        said = BoxPrediction(at, torch.tensor([0.8, 0.8, 0.8, blue]), torch.tensor([RED, RED, RED, BLUE]))
        monkeypatch.setattr(detector.head, "decode", lambda outputs: [said])
        detector.thresholds = Thresholds("by hand", values)
        assert [e.label for e in explain(detector, picture((128, 128)), most=most)] == labels[:most]
        kept = detector.chosen(said)
        assert [COLOURS[k] for k in kept.at_least(kept.drawn).labels] == labels
        above = [e.label for e in explain(detector, picture((128, 128)), most=most, min_score=0.7)]
        assert above == ["red", "red", "red"][:most], "a lowest score goes before the model's thresholds"

    def test_boxes_are_those_of_the_original(self, detector):
        large = F.interpolate(picture((128, 128), red=(16, 96))[None].float(), scale_factor=3)[0].to(torch.uint8)
        (found, *_) = explain(detector, large)
        (predicted,) = [detector.predict(large)]
        assert found.box == pytest.approx(predicted.boxes[0].tolist(), abs=1e-3)
        assert found.record()["box"] == list(found.box)


class TestRegions:
    def test_the_largest_component_of_a_class_is_explained_and_the_background_is_not(self):
        model = VisionModel(
            Mean(), lambda f, n: FCNHead(f, n, level=0), ["Background", "red"], preprocessing=Preprocessing(64)
        ).eval()
        plain = nn.Conv2d(3, 2, 1)
        with torch.no_grad():
            plain.weight.copy_(torch.tensor([[0.0, 9.0, 0.0], [20.0, -15.0, 0.0]])[..., None, None])
            plain.bias.zero_()
        model.head.layers = plain
        image = picture(red=(0, 48))
        image[0, 40:64, 8:40] = 255
        image[1:, 40:64, 8:40] = 0
        image[1, :, :8] = 255
        found = explain(model, image, most=5)
        assert [e.label for e in found] == ["red", "red"]
        assert found[0].box == (8, 40, 40, 64)
        assert found[0].mask.sum() == 24 * 32
        row, column = peak(found[0].map)
        assert 40 <= row < 64
        assert 8 <= column < 40
        assert found[0].map[8, 56] == 0  # the other component is not asked about


class TestRefusals:
    def test_what_cannot_be_explained_is_said_in_one_line(self, tmp_path):
        model = classifier()
        with pytest.raises(UsageError, match=r"^the model is in training mode: call model.eval\(\) before explain$"):
            explain(classifier().train(), picture())
        with pytest.raises(UsageError, match="one that convert made has no gradients"):
            explain(convert(model), picture())
        visionkit.save(model, tmp_path / "a.ckpt")
        both = visionkit.load([tmp_path / "a.ckpt", tmp_path / "a.ckpt"], trust=["tests", __name__.split(".")[0]])
        with pytest.raises(UsageError, match="^explain tells what one model goes by: load one checkpoint"):
            explain(both, picture())
        for given in ({"most": 0}, {"steps": 1}):
            with pytest.raises(UsageError, match="from 1 on.*from 2 on"):
                Explainer(model, **given)
        with pytest.raises(UsageError, match=r"min_score=2 \(from 0 to 1\)"):
            explain(model, picture(), min_score=2)

        class Own(Head):
            def forward(self, features):
                return features[-1]

        own = VisionModel(Mean(), lambda f, n: Own(), ["a", "b"], preprocessing=Preprocessing(64)).eval()
        with pytest.raises(UsageError, match="^Own cannot be explained"):
            explain(own, picture())

    def test_weights_and_gradients_of_the_model_stay_as_they_were(self):
        model = classifier()
        before = {k: v.clone() for k, v in model.state_dict().items()}
        explain(model, picture(red=(0, 48)))
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
        assert all(p.grad is None for p in model.parameters())


def test_a_record_is_plain_and_has_what_the_map_is_worth():
    (found,) = explain(classifier(), picture(red=(0, 48)))
    record = json.loads(json.dumps(found.record()))
    assert set(record) == {"image", "label", "score", "insertion_minus_deletion", "centre_blob"}
    assert record["insertion_minus_deletion"] == found.insertion_minus_deletion


def test_nothing_that_speaks_for_it_is_a_map_of_zeros():
    (found,) = explain(classifier(), torch.zeros(3, 64, 64, dtype=torch.uint8))
    assert float(found.map.max()) == 0
    assert np.isfinite(found.insertion_minus_deletion)
