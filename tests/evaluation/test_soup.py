"""Weights averaged: by hand, greedily, with statistics computed anew; other networks and starts are refused."""

import copy
import hashlib
from dataclasses import replace

import pytest
import torch
from torch import nn

import visionkit
from visionkit import DataError, VisionModel
from visionkit.core.thresholds import Thresholds
from visionkit.evaluation.soup import Ingredient, average, check_alike, cook, recompute_statistics
from visionkit.models.model_digest import model_digest
from visionkit.models.store_thresholds import store_thresholds
from visionkit.models.weights.load import Generation, WeightsReport

NAMES = ("blue", "green", "red")


def small(seed=0, classes=NAMES, *, size=32, layers=(1, 1, 1, 1), head=visionkit.LinearHead, **backbone):
    torch.manual_seed(seed)
    net = visionkit.ResNet(layers=layers, block="basic", stem="small", **backbone)
    return VisionModel(net, head, classes, preprocessing=visionkit.Preprocessing(size)).eval()


def moved(model, by):
    """Return a copy whose head's bias is moved: what it is worth can be read off it."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.head.classifier[1].bias[0] += by
    return other


def bias(model):
    return model.head.classifier[1].bias[0].item()


def named(*models):
    return [Ingredient(f"{k}.ckpt", f"{k}" * 64, model) for k, model in enumerate(models)]


def passport(sha256, lineage=()):
    return WeightsReport(
        f"{sha256[:3]}.pth", sha256, "weights", "", "", False, (), (), (), (), (), (), 1.0, 0.95, None, tuple(lineage)
    )


def started(model, report):
    made = copy.deepcopy(model)
    made.backbone.weights_report = report
    return made


def pictures(n=32, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 3, 32, 32), generator=g, dtype=torch.uint8)


def test_the_mean_of_weights_and_whole_numbers_of_the_first():
    one, two = small(0), small(1)
    one.backbone.bn1.num_batches_tracked.fill_(7)
    mean = average([one, two])
    name = "backbone.layer1.0.conv1.weight"
    torch.testing.assert_close(mean[name], (one.state_dict()[name] + two.state_dict()[name]) / 2)
    assert mean["backbone.bn1.num_batches_tracked"] == 7
    same = average([one, one, one])
    assert all(torch.equal(v, same[k]) for k, v in one.state_dict().items())


class TestStatistics:
    def test_they_are_those_of_the_pictures(self):
        model = small(0)
        count = recompute_statistics(model, pictures().split(16))
        assert count == 32
        maps = model.backbone.conv1(model.normalise(pictures()))
        torch.testing.assert_close(model.backbone.bn1.running_mean, maps.mean((0, 2, 3)))
        assert not any(m.training for m in model.modules())
        assert model.backbone.bn1.momentum == 0.1

    def test_those_of_frozen_layers_stay(self):
        model = small(0)
        recompute_statistics(model, pictures().split(16), kept=["backbone.bn1"])
        assert (model.backbone.bn1.running_mean == 0).all()
        assert (model.backbone.layer1[0].bn1.running_mean != 0).any()

    def test_a_layer_that_sees_nothing_stays(self):
        model = small(0)
        model.head.unused = nn.BatchNorm2d(4)
        model.head.unused.running_mean.fill_(3)
        recompute_statistics(model.eval(), pictures().split(16))
        assert (model.head.unused.running_mean == 3).all()

    def test_no_gradient_and_no_weight_moves(self):
        model = small(0)
        before = {k: v.clone() for k, v in model.named_parameters()}
        recompute_statistics(model, pictures().split(16))
        assert all(torch.equal(v, before[k]) for k, v in model.named_parameters())


class TestCook:
    """Models differ in one bias; ``measure`` says how near it comes to a number."""

    def soup(self, biases, aim, told=None):
        first = small(0)
        parts = named(*(moved(first, b - bias(first)) for b in biases))
        told = [] if told is None else told
        return cook(
            parts,
            lambda m: 1 - abs(bias(m) - aim),
            lambda: pictures().split(16),
            make=lambda: small(3),
            tell=told.append,
        )

    def test_the_best_comes_first_and_what_helps_stays(self):
        told = []
        soup = self.soup([0.5, 0.2, -0.1], 0.25, told)
        assert [one.name for one in soup.made_of] == ["1.ckpt"]
        assert bias(soup.model) == pytest.approx(0.2, abs=1e-6)
        assert soup.best == pytest.approx(0.95)
        assert soup.value >= soup.best
        assert told == [
            "member   0.ckpt: 0.7500",
            "member   1.ckpt: 0.9500",
            "member   2.ckpt: 0.6500",
            "average  1.ckpt + 0.ckpt: 0.9000, 0.ckpt is left out",
            "average  1.ckpt + 2.ckpt: 0.8000, 2.ckpt is left out",
        ]

    def test_an_average_that_is_better(self):
        soup = self.soup([0.0, 0.4, 5.0], 0.2)
        assert [one.name for one in soup.made_of] == ["0.ckpt", "1.ckpt"]
        assert bias(soup.model) == pytest.approx(0.2, abs=1e-6)
        assert soup.value == pytest.approx(1.0)
        assert soup.best == pytest.approx(0.8)
        report = soup.model.backbone.weights_report
        assert str(report).count("itself from") == 2
        assert report.source == "average of 0.ckpt, 1.ckpt"
        assert [g.sha256 for g in report.lineage] == ["0" * 64, "1" * 64]

    def test_never_under_the_best(self):
        g = torch.Generator().manual_seed(0)
        for _ in range(5):
            biases = (0.2 * torch.rand(3, generator=g)).tolist()
            soup = self.soup(biases, 0.1)
            assert soup.value >= max(1 - abs(b - 0.1) for b in biases) - 1e-6

    def test_models_that_do_not_lie_in_one_valley_are_refused_with_both_numbers(self):
        first = small(0)
        parts = named(first, moved(first, 2.0))

        def measure(model):
            return 0.3 if abs(bias(model) - bias(first) - 1) < 0.5 else 0.8

        words = r"0\.ckpt \(0\.8000\) and 1\.ckpt \(0\.8000\) did not start from the same weights, head included: half "
        with pytest.raises(DataError, match=words + r"way between them is 0\.3000"):
            cook(parts, measure, list, make=lambda: small(3), tell=lambda line: None)

    def test_statistics_of_the_average_are_computed_anew(self):
        first = small(0)
        other = moved(first, 0.2)
        other.backbone.bn1.running_mean.add_(5)
        soup = cook(
            named(first, other), lambda m: 1.0, lambda: pictures().split(16), make=lambda: small(3), tell=lambda _: None
        )
        maps = soup.model.backbone.conv1(soup.model.normalise(pictures()))
        torch.testing.assert_close(soup.model.backbone.bn1.running_mean, maps.mean((0, 2, 3)))
        still = soup.model.backbone.layer2[0].bn1.running_mean
        assert torch.equal(still, first.backbone.layer2[0].bn1.running_mean), "the same in both: it was frozen"


class TestCheck:
    @pytest.mark.parametrize(
        ("other", "words"),
        [
            (lambda: small(classes=("a", "b", "c")), "0.ckpt and 1.ckpt know different classes: such weights have no"),
            (lambda: small(classes=NAMES[::-1]), "0.ckpt and 1.ckpt have their classes in different orders"),
            (
                lambda: small(layers=(1, 1, 1, 2)),
                r"differ in their backbone \(layer4\.1\.conv1\.weight missing and 512x",
            ),
            (lambda: small(output_stride=16), r"differ in their backbone \(output_stride 32 and 16\)"),
            (lambda: small(mean=(0.5, 0.5, 0.5)), r"differ in their backbone \(mean "),
            (lambda: small(head=visionkit.MLPHead), r"differ in their head \(LinearHead and MLPHead\)"),
            (lambda: small(size=64), r"differ in their preprocessing \(size \(32, 32\) and \(64, 64\)\)"),
        ],
    )
    def test_other_networks_are_refused_by_name(self, other, words):
        with pytest.raises(DataError, match=words):
            check_alike(named(small(), other()))

    def test_what_matters_in_training_alone_may_differ(self):
        smooth = small(stochastic_depth=0.1, head=lambda f, n: visionkit.LinearHead(f, n, dropout=0.5))
        check_alike(named(small(), smooth))

    def test_other_starts_are_refused_by_name(self):
        parts = named(started(small(), passport("a" * 64)), started(small(), passport("b" * 64)))
        words = r"0\.ckpt started from aaa\.pth \(sha256 aaaaaaaaaaaa\), 1\.ckpt from bbb\.pth \(sha256 bbbbbbbbbbbb\): weig"
        with pytest.raises(DataError, match=words):
            check_alike(parts)
        with pytest.raises(DataError, match=r"1\.ckpt from random weights"):
            check_alike([parts[0], replace(parts[1], model=small())])

    def test_the_same_start_some_generations_ago_is_one(self):
        old = Generation("aaa.pth", "a" * 64, "weights", 1.0)
        check_alike(named(started(small(), passport("a" * 64)), started(small(), passport("b" * 64, [old]))))
        from_the_other = started(small(), passport("0" * 64))
        check_alike(named(started(small(), passport("c" * 64)), from_the_other))
        check_alike(named(small(), small(1)))

    def test_a_start_that_was_given_thresholds_meanwhile_is_the_same(self, tmp_path):
        file = tmp_path / "start.ckpt"
        visionkit.save(small(), file)
        start = visionkit.load(file)
        old = hashlib.sha256(file.read_bytes()).hexdigest()
        first = small(weights=str(file))
        store_thresholds(file, Thresholds("f1", {NAMES[0]: 0.5}))
        second = small(weights=str(file))
        check_alike(named(first, second))
        check_alike([Ingredient("start.ckpt", model_digest(file), start), *named(second)])
        of_before = started(small(), passport(old))
        check_alike([Ingredient("start.ckpt", "5" * 64, start, old), *named(of_before)])
