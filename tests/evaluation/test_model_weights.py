"""Weights of models: found where the truth lies, equal where nothing is to be gained."""

import numpy as np
import pytest
import torch

from visionkit import BoxPrediction, BoxTarget, ClassPrediction, ClassTarget, DataError, MaskPrediction, MaskTarget
from visionkit.core.joining import Joining
from visionkit.core.sample import ImageInfo, Sample
from visionkit.data.dataset import VisionDataset
from visionkit.evaluation.model_weights import equal, fit_mixture, fit_weights, halves

NAMES = ("a", "b", "c")
SIZE = (20, 20)


class Said:
    """Stands for an ensemble: what each model says of each image is given."""

    batch_size = 4

    def __init__(self, kind, found, names=(NAMES, NAMES)):
        self.found = found
        self.joining = Joining.of(names)
        self.members = type("Members", (), {"joining": self.joining})
        self.classes = self.joining.classes
        self.names = tuple(f"{k}.ckpt" for k in range(len(names)))
        self.head = type("Head", (), {"prediction": kind})

    def scale(self):
        return None

    def prepare(self, sample, *, keep):
        return sample

    def each(self, items):
        for sample in items:
            yield sample, self.found[int(sample.info.id)]

    def combine(self, parts, weights):
        return type(parts[0]).combine(parts, self.joining.with_weights(weights))


def dataset(targets):
    class Truths(VisionDataset):
        classes = NAMES
        ids = tuple(str(k) for k in range(len(targets)))

        def __getitem__(self, index):
            return Sample(torch.zeros(3, *SIZE, dtype=torch.uint8), targets[index], ImageInfo(str(index), SIZE))

    return Truths()


def classified(n, sure, seed=0, *, several=False):
    """Models that give the truth a mean probability of ``sure`` each, independently, and the truth."""
    g = np.random.default_rng(seed)
    found, targets = [], []
    for _ in range(n):
        truth = int(g.integers(3))
        parts = []
        for s in sure:
            p = g.beta(8 * s, 8 * (1 - s))
            chances = np.full(3, (1 - p) if several else (1 - p) / 2)
            chances[truth] = p
            parts.append(ClassPrediction(torch.tensor(chances, dtype=torch.float32), several))
        found.append(tuple(parts))
        targets.append(ClassTarget.make(truth, 3))
    return found, targets


class TestMixture:
    def test_without_data_all_count_the_same(self):
        assert fit_mixture(np.ones((5, 3)), np.ones(5)) == pytest.approx(equal(3))

    def test_it_is_the_maximum(self):
        """Against a fine grid over the weights of two models."""
        g = np.random.default_rng(0)
        chances = np.column_stack([g.beta(4, 2, 60), g.beta(3, 3, 60)])
        counts = g.integers(1, 4, 60).astype(float)
        found = fit_mixture(chances, counts, prior=20)
        grid = np.linspace(0.001, 0.999, 9999)
        objective = (counts @ np.log(chances @ np.array([grid, 1 - grid]))) + 20 * 0.5 * np.log(grid * (1 - grid))
        assert found[0] == pytest.approx(grid[objective.argmax()], abs=1e-3)
        assert sum(found) == pytest.approx(1)

    def test_few_images_are_drawn_to_equal_ones(self):
        chances = np.tile([0.9, 0.3], (1000, 1))
        few, many = fit_mixture(chances[:5], np.ones(5)), fit_mixture(chances, np.ones(1000))
        assert 0.5 < few[0] < 0.62
        assert many[0] > 0.95


def test_groups_stay_in_one_half():
    groups = [k // 3 for k in range(60)]
    sides = halves(groups, 0)
    assert all(len({sides[i] for i in range(60) if groups[i] == g}) == 1 for g in set(groups))
    assert sides.sum() in (27, 30, 33)
    assert (halves(groups, 1) != sides).any()


class TestClasses:
    def test_a_much_better_model_counts_more(self):
        found, targets = classified(200, (0.8, 0.35))
        fitted = fit_weights(Said(ClassPrediction, found), dataset(targets), workers=0)
        assert fitted.fitted
        assert fitted.weights[0] > 0.75
        assert sum(fitted.weights) == pytest.approx(1)
        assert fitted.reason.startswith(f"0.ckpt {fitted.weights[0]:.2f}, 1.ckpt {fitted.weights[1]:.2f}: better than")
        assert "cross-fitted on 200 images" in fitted.reason

    def test_equally_good_ones_count_the_same_most_of_the_time(self):
        taken = 0
        for seed in range(20):
            found, targets = classified(60, (0.7, 0.7), seed)
            fitted = fit_weights(Said(ClassPrediction, found), dataset(targets), workers=0, seed=seed)
            taken += fitted.fitted
            if not fitted.fitted:
                assert fitted.weights == (0.5, 0.5)
                assert fitted.reason.startswith("equal: fitted ones are not shown to be better (")
        assert taken <= 2

    def test_models_that_nearly_agree_count_the_same(self):
        """The first is better in each image, by next to nothing."""
        found, targets = classified(60, (0.7, 0.7))
        pairs = [(a, ClassPrediction(0.999 * a.probabilities + 0.001 / 3)) for a, _ in found]
        fitted = fit_weights(Said(ClassPrediction, pairs), dataset(targets), workers=0)
        assert fitted.weights == (0.5, 0.5)
        assert fitted.reason.startswith("equal: ")

    def test_several_labels(self):
        found, targets = classified(200, (0.8, 0.35), several=True)
        fitted = fit_weights(Said(ClassPrediction, found), dataset(targets), workers=0)
        assert fitted.fitted
        assert fitted.weights[0] > 0.7

    def test_models_that_know_other_classes_are_judged_by_the_common_ones(self):
        found, targets = classified(200, (0.8, 0.35))
        turned = [(a, ClassPrediction(b.probabilities.flip(0))) for a, b in found]
        said = Said(ClassPrediction, turned, (NAMES, ("d", "b", "a")))
        fitted = fit_weights(said, dataset(targets), workers=0)
        assert fitted.weights[0] > 0.5

    def test_too_few_images(self):
        found, targets = classified(19, (0.9, 0.1))
        fitted = fit_weights(Said(ClassPrediction, found), dataset(targets), workers=0)
        assert fitted.weights == (0.5, 0.5)
        assert fitted.reason == "equal: 19 images are too few to fit others"
        found, targets = classified(60, (0.9, 0.1))
        grouped = fit_weights(
            Said(ClassPrediction, found), dataset(targets), workers=0, groups=[k % 6 for k in range(60)]
        )
        assert grouped.reason == "equal: 6 images are too few to fit others"

    def test_an_image_that_cannot_be_read_is_told(self):
        found, targets = classified(30, (0.9, 0.1))

        def each(items):
            list(items)
            yield DataError("x.png: is no image")

        said = Said(ClassPrediction, found)
        said.each = each
        with pytest.raises(DataError, match=r"x\.png: is no image"):
            fit_weights(said, dataset(targets), workers=0)


def test_pixels(monkeypatch):
    monkeypatch.setattr(MaskPrediction, "probabilities", None)  # those of all pixels of a photo are gigabytes
    g = torch.Generator().manual_seed(0)
    found, targets = [], []
    for _ in range(24):
        mask = torch.randint(0, 3, SIZE, generator=g, dtype=torch.uint8)
        right = torch.nn.functional.one_hot(mask.long(), 3).permute(2, 0, 1).float()
        logits = [3 * right + torch.randn(3, *SIZE, generator=g), torch.randn(3, *SIZE, generator=g)]
        found.append(tuple(MaskPrediction.of(x, 1).restore(ImageInfo("", SIZE)) for x in logits))
        mask[:2] = 255
        targets.append(MaskTarget(mask))
    fitted = fit_weights(Said(MaskPrediction, found), dataset(targets), workers=0)
    assert fitted.fitted
    assert 0.65 < fitted.weights[0] < 0.8, "24 images leave something to the other one"


def test_boxes():
    """The second one's scores say nothing, and its boxes are often elsewhere."""
    g = torch.Generator().manual_seed(0)
    found, targets = [], []
    for _ in range(24):
        corners = torch.tensor([[1.0, 1], [11, 1], [1, 11], [11, 11]])
        truth = torch.cat([corners, corners + 7], 1)
        labels = torch.randint(0, 3, (4,), generator=g)
        targets.append(BoxTarget.make(truth[:3], labels[:3]))
        good = BoxPrediction(truth, torch.tensor([0.9, 0.8, 0.7, 0.3]), labels, SIZE)
        bad = BoxPrediction(truth + 2 * torch.rand(4, 4, generator=g), torch.rand(4, generator=g), labels, SIZE)
        found.append((good, bad))
    said = Said(BoxPrediction, found)
    fitted = fit_weights(said, dataset(targets), workers=0)
    assert fitted.fitted
    assert 0.55 < fitted.weights[0] < 0.8, "drawn to equal ones by half, with 24 images"
    assert "in mAP, cross-fitted on 24 images" in fitted.reason
    same = fit_weights(Said(BoxPrediction, [(a, a) for a, _ in found]), dataset(targets), workers=0)
    assert same.weights == (0.5, 0.5)
