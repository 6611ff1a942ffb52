"""Where weights are looked for, in which order, and which of several is taken."""

import pytest
from safetensors.torch import save_file

from tests import hub as stand_in
from visionkit.core.errors import DataError, UsageError
from visionkit.models.backbones.base import Backbone
from visionkit.models.backbones.resnet import ResNet
from visionkit.models.backbones.timm import TimmBackbone
from visionkit.models.weights.file import find_weights
from visionkit.models.weights.places import auto_source, hub_source, weights_at_hand


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """An empty mirror folder, an empty cache, and a hub that nobody may ask."""
    stand_in.use(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache")
    monkeypatch.setattr("visionkit.models.weights.file.fetch", lambda name: pytest.fail(f"asked for {name}"))
    monkeypatch.setenv("VISIONKIT_WEIGHTS", str(tmp_path / "mirror"))
    (tmp_path / "mirror").mkdir()
    return tmp_path / "mirror"


def in_cache(repository, cache):
    snapshot = cache / f"models--{repository.replace('/', '--')}" / "snapshots" / stand_in.COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"cached")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(stand_in.COMMIT)
    return snapshot / "model.safetensors"


class TestAtHand:
    def test_nothing_is_there(self, mirror):
        assert weights_at_hand(18) is None
        assert weights_at_hand("convnext_atto") is None
        assert weights_at_hand("no_such_network") is None

    def test_the_mirror_comes_before_the_cache(self, mirror, tmp_path):
        cached = in_cache("timm/resnet18.a1_in1k", tmp_path / "cache")
        assert weights_at_hand(18) == weights_at_hand("resnet18") == cached
        assert find_weights("timm/resnet18.a1_in1k") == cached
        for name in ("resnet18_mine.bin", "resnet18.tv_in1k.pth", "resnet18.pth", "resnet18.a1_in1k.safetensors"):
            (mirror / name).touch()  # each is taken before those that were there
            assert weights_at_hand(18) == mirror / name
        assert find_weights("timm/resnet18.a1_in1k") == mirror / "resnet18.a1_in1k.safetensors"
        assert find_weights("timm/resnet18.tv_in1k") == mirror / "resnet18.tv_in1k.pth"

    def test_by_alphabet_where_nothing_else_tells(self, mirror):
        for name in ("resnet18_b.safetensors", "resnet18_a.pth"):
            (mirror / name).touch()
        assert weights_at_hand(18) == mirror / "resnet18_a.pth"

    @pytest.mark.parametrize(
        "name",
        [
            "resnet18d.pth",
            "resnet180.pth",
            "seresnet18.pth",
            "resnet18_gn.a1h_in1k.safetensors",
            "resnet18.txt",
            "resnet50.pth",
        ],
    )
    def test_files_of_other_networks(self, mirror, name):
        (mirror / name).touch()
        assert weights_at_hand(18) is None

    def test_other_repositories_of_the_hub(self, mirror, tmp_path):
        (mirror / "me--mine.pth").touch()
        assert find_weights("hf-hub:me/mine") == mirror / "me--mine.pth"
        with pytest.raises(UsageError, match="no such file"):
            find_weights("me/mine")

    def test_the_mirror_is_no_folder(self, mirror, monkeypatch):
        monkeypatch.setenv("VISIONKIT_WEIGHTS", str(mirror / "nothere"))
        with pytest.raises(UsageError, match=r"VISIONKIT_WEIGHTS is .*nothere, which is no folder"):
            weights_at_hand(18)
        monkeypatch.setenv("VISIONKIT_WEIGHTS", "")
        assert weights_at_hand(18) is None


class TestAuto:
    def test_a_file_of_the_mirror_is_loaded(self, mirror):
        donor = ResNet(18)
        save_file(donor.state_dict(), mirror / "resnet18_mine.safetensors")
        net = ResNet(18, weights="auto")
        assert all((v == donor.state_dict()[k]).all() for k, v in net.state_dict().items())
        assert net.weights_report.source == str(mirror / "resnet18_mine.safetensors")
        assert net.weights_report.plain()["source"] == "resnet18_mine.safetensors"
        assert net.recorded_arguments()["weights"] is None

    def test_other_channels_are_adapted(self, mirror):
        save_file(ResNet(18).state_dict(), mirror / "resnet18.safetensors")
        assert ResNet(18, in_channels=1, output_stride=8, weights="auto").weights_report.adapted

    def test_a_name_of_timm_brings_its_statistics(self, mirror):
        save_file(ResNet(34).state_dict(), mirror / "resnet34.ra4_e3600_r224_in1k.safetensors")
        net = ResNet(34, weights="auto")
        assert net.mean == (0.5, 0.5, 0.5)
        assert net.weights_report.source == "timm/resnet34.ra4_e3600_r224_in1k"

    def test_a_name_that_looks_like_timms_is_a_file(self, mirror):
        save_file(ResNet(18).state_dict(), mirror / "resnet18.mine.safetensors")
        assert ResNet(18, weights="auto").weights_report.source == str(mirror / "resnet18.mine.safetensors")
        assert ResNet(18, weights="timm/resnet18.mine").weights_report.statistics.mean_from == "assumed"

    def test_timm_networks(self, mirror):
        donor = TimmBackbone("resnet10t")
        save_file(donor.state_dict(), mirror / "resnet10t.c3_in1k.safetensors")
        for name in ("resnet10t", "resnet10t.c3_in1k"):
            report = TimmBackbone(name, weights="auto").weights_report
            assert (report.source, report.coverage) == ("timm/resnet10t.c3_in1k", 1)

    def test_real_files(self, mirror, monkeypatch, data_root):
        monkeypatch.setenv("VISIONKIT_WEIGHTS", str(data_root / "weights"))
        assert weights_at_hand(18) == data_root / "weights/resnet18_tinyimagenet.safetensors"
        assert ResNet(18, weights="auto").weights_report.coverage == 1
        net = TimmBackbone("tf_efficientnet_lite0", weights="auto")
        assert (net.weights_report.coverage, net.mean) == (1, (0.5, 0.5, 0.5))

    @pytest.mark.parametrize(
        ("make", "whose"),
        [
            (lambda: ResNet(18, stem="small", weights="auto"), "ResNet depth 18, stem small"),
            (lambda: ResNet(layers=(2, 2, 2, 2), weights="auto"), r"ResNet layers \(2, 2, 2, 2\)"),
            (lambda: ResNet(50, groups=2, weights="auto"), "ResNet depth 50, groups 2"),
            (lambda: ResNet(18, depthwise_separable=True, weights="auto"), "ResNet depth 18, depthwise_separable"),
            (lambda: TimmBackbone("resnet14t.c9", weights="auto"), None),
            (lambda: TimmBackbone("gcvit_tiny", weights="auto"), "TimmBackbone name gcvit_tiny"),
        ],
    )
    def test_networks_without_weights_are_one_line(self, mirror, make, whose):
        with pytest.raises(UsageError) as e:
            make()
        assert len(e.value.lines) == 1
        if whose:
            assert e.match(rf"weights: auto: none are known for {whose}.*; `visionkit backbone list`.*weights: null")

    def test_a_backbone_of_the_users_own_has_none(self):
        assert Backbone.network_name({}) is None
        with pytest.raises(UsageError, match="none are known for mine"):
            auto_source(None, "mine")

    def test_auto_is_a_backbones_word(self, mirror):
        with pytest.raises((UsageError, DataError), match="auto"):
            find_weights("auto")


def test_names_on_the_hub():
    assert hub_source("resnet50") == "timm/resnet50.a1_in1k"
    assert hub_source("convnext_atto") == hub_source("convnext_atto.d2_in1k") == "timm/convnext_atto.d2_in1k"
    assert hub_source("rdnet_tiny") == "hf-hub:naver-ai/rdnet_tiny.nv_in1k"
    assert hub_source("resnet18.no_such_tag") is None
    assert hub_source("nothing") is None
