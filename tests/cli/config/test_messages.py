"""What the parser says, in one line. The messages are the parser's own, of parsers as the command line has them."""

import os

os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")

import jsonargparse
import lightning
import pytest
import yaml

import visionkit
from visionkit.cli.config.messages import explain


class Said(Exception):
    pass


class Parser(jsonargparse.ArgumentParser):
    def error(self, message, ex=None):
        if not self.exit_on_error:
            super().error(message, ex)
        raise Said(message)


@pytest.fixture(scope="module")
def parser():
    for name in visionkit.PUBLIC:
        getattr(visionkit, name)
    inner = Parser()
    inner.add_argument("-c", "--config", action="config")
    inner.add_subclass_arguments(visionkit.Task, "model", required=False)
    inner.add_subclass_arguments(visionkit.VisionDataModule, "data", required=False)
    others = {"accelerator", "strategy", "callbacks", "plugins", "logger", "profiler", "precision"}
    inner.add_class_arguments(lightning.Trainer, "trainer", fail_untyped=False, skip=others)
    outer = Parser()
    outer.add_subcommands().add_subcommand("fit", inner)
    return outer


@pytest.fixture
def said(parser):
    """Return the explanation of what the parser says against these arguments."""

    def complain(*arguments):
        with pytest.raises(Said) as raised:
            parser.parse_args(["fit", *arguments])
        text = explain(str(raised.value), arguments)
        assert "\n" not in text
        assert "Union" not in text
        assert "Namespace" not in text
        return text

    return complain


MODEL, DATA = ["--model", "Classifier"], ["--data", "ClassificationData"]
SGD = [*MODEL, "--model.recipe.optimizer", "torch.optim.SGD"]
OPTIONS = {
    "key": ([*MODEL, "--model.backbone", "ResNet", "--model.backbone.dpth", "3"], "--model.backbone.dpth: ResNet has no key 'dpth'; did you mean 'depth'?"),
    "key with init_args": ([*MODEL, "--model.init_args.backbone", "ResNet", "--model.init_args.backbone.init_args.dpth", "3"], "--model.backbone.dpth: ResNet has no key 'dpth'; did you mean 'depth'?"),
    "key near nothing": ([*MODEL, "--model.mix", "MixUpCutMix", "--model.mix.zzz=1"], "--model.mix.zzz: MixUpCutMix has no key 'zzz'; it has "),
    "key of a dataclass": ([*MODEL, "--model.recipe.warmup", "1"], "--model.recipe.warmup: Recipe has no key 'warmup'; did you mean 'warmup_epochs'?"),
    "key of a head": ([*MODEL, "--model.head", "LinearHead", "--model.head.drop", "1"], "--model.head.drop: LinearHead has no key 'drop'; did you mean 'dropout'?"),
    "key of an optimizer": ([*SGD, "--model.recipe.optimizer.lrr", "1"], "--model.recipe.optimizer.lrr: SGD has no key 'lrr'; did you mean 'lr'?"),
    "type": ([*DATA, "--data.batch_size", "many"], "--data.batch_size: expected int, got many"),
    "type or none": (["--trainer.max_epochs", "lots"], "--trainer.max_epochs: expected int, got lots"),
    "one of two types": ([*DATA, "--data.size", "big"], "--data.size: expected int or tuple, got big"),
    "type in a head": ([*MODEL, "--model.head", "LinearHead", "--model.head.dropout", "x"], "--model.head.dropout: expected float, got x"),
    "type in an optimizer": ([*SGD, "--model.recipe.optimizer.lr", "fast"], "--model.recipe.optimizer.lr: expected float, got fast"),
    "literal": ([*DATA, "--data.resize", "sqush"], "--data.resize: expected one of 'squash', 'crop', 'letterbox', got sqush"),
    "literal or none": ([*DATA, "--data.denoise", "x"], "--data.denoise: expected one of 'median', 'bilateral', 'nlm', got x"),
    "task": (["--model", "Clasifier"], "--model: there is no class 'Clasifier'; there are Classifier, MultiTask, Detector, Segmenter"),
    "data": (["--data", "Photos"], "--data: there is no class 'Photos'; there are ClassificationData, MultiTaskData, DetectionData, SegmentationData"),
    "backbone": ([*MODEL, "--model.backbone", "BgNet"], "--model.backbone: there is no class 'BgNet'; there are ResNet, TimmBackbone"),
    "head": ([*MODEL, "--model.head", "BgHead"], "--model.head: there is no class 'BgHead'; there are LinearHead, MLPHead, FCOSHead, FasterRCNNHead, MaskRCNNHead, DeepLabV3PlusHead, FPNSegmentationHead, FCNHead"),
    "mix": ([*MODEL, "--model.mix", "Mixup"], "--model.mix: there is no class 'Mixup'; there are MixUpCutMix"),
    "neck": (["--model", "Detector", "--model.neck", "PFN"], "--model.neck: there is no class 'PFN'; there are IdentityNeck, FPN"),
    "key of a neck": (["--model", "Detector", "--model.neck", "FPN", "--model.neck.level", "2"], "--model.neck.level: FPN has no key 'level'; did you mean 'min_level'?"),
    "key of a head's base": (["--model", "Detector", "--model.head", "MaskRCNNHead", "--model.head.detectoins", "5"], "--model.head.detectoins: MaskRCNNHead has no key 'detectoins'; did you mean 'detections'?"),
    "multi_scale": (["--model", "Detector", "--model.multi_scale", "Multi"], "--model.multi_scale: there is no class 'Multi'; there are MultiScale"),
    "optimizer": ([*MODEL, "--model.recipe.optimizer", "AdamX"], "--model.recipe.optimizer: there is no class 'AdamX'; there are AdamW, SGD, Adam, and the others of torch.optim"),
    "short option": (["--max_epochs", "3"], "--max_epochs: there is no such option; did you mean '--trainer.max_epochs'?"),
    "short option of the data": (["--batch_size=3"], "--batch_size: there is no such option; did you mean '--data.batch_size'?"),
    "unlike any option": (["--xyzxyz"], "--xyzxyz: there is no such option"),
    "word": (["foo"], "foo: there is no such option"),
}  # fmt: skip


@pytest.mark.parametrize("case", OPTIONS)
def test_options(said, case):
    arguments, expected = OPTIONS[case]
    text = said(*arguments)
    assert text.startswith(expected)
    assert text == expected or expected.endswith(" ")


FILES = {
    "key": ("model:\n  class_path: Classifier\n  init_args:\n    backbone:\n      class_path: ResNet\n      init_args:\n        dpeth: 18\n", "7: model.backbone.dpeth: ResNet has no key 'dpeth'; did you mean 'depth'?"),
    "type": ("model:\n  class_path: Classifier\n  init_args:\n    recipe:\n      warmup_epochs: fast\n", "5: model.recipe.warmup_epochs: expected float, got fast"),
    "type in an optimizer": ("model:\n  class_path: Classifier\n  init_args:\n    recipe:\n      optimizer:\n        class_path: torch.optim.AdamW\n        init_args: {lr: x}\n", "7: model.recipe.optimizer.lr: expected float, got x"),
    "key of an optimizer": ("model:\n  class_path: Classifier\n  init_args:\n    recipe:\n      optimizer:\n        class_path: torch.optim.AdamW\n        init_args: {lrr: 1}\n", "7: model.recipe.optimizer.lrr: AdamW has no key 'lrr'; did you mean 'lr'?"),
    "class": ("model:\n  class_path: Classifier\n  init_args:\n    backbone:\n      class_path: BgNet\n", "4: model.backbone: there is no class 'BgNet'; there are ResNet, TimmBackbone"),
    "class of another kind": ("data:\n  class_path: ResNet\n", "1: data: there is no class 'ResNet'; there are ClassificationData, MultiTaskData, DetectionData, SegmentationData"),
    "module": ("model:\n  class_path: Classifier\n  init_args:\n    backbone:\n      class_path: nowhere.Net\n", "4: model.backbone: there is no module 'nowhere'; start where nowhere.py lies, or name its folder in PYTHONPATH"),
    "top level": ("data: null\ntrianer:\n  max_epochs: 1\n", "2: trianer: there is no such key; did you mean 'trainer'?"),
    "trainer": ("trainer:\n  max_epoch: 1\n", "2: trainer.max_epoch: there is no such key; did you mean 'max_epochs'?"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_files(said, tmp_path, case):
    text, expected = FILES[case]
    (tmp_path / "first.yaml").write_text("{}\n")
    (tmp_path / "a.yaml").write_text(text)
    files = [str(tmp_path / "first.yaml"), str(tmp_path / "a.yaml")]
    assert said("-c", files[0], "-c", files[1]) == f"{files[1]}:{expected}"


def test_the_command_line_is_named_where_it_overrides_a_file(said, tmp_path):
    (tmp_path / "a.yaml").write_text(
        yaml.safe_dump({"data": {"class_path": "ClassificationData", "init_args": {"batch_size": 3}}})
    )
    text = said("-c", str(tmp_path / "a.yaml"), "--data.batch_size=many")
    assert text == "--data.batch_size: expected int, got many"


STRINGS = {
    'Parser key "lr": Expected a <class \'float\'>. Got value: fast': "lr: expected float, got fast",
    "Expected a typing.Literal['ce', 'focal']. Got value: huber": "expected one of 'ce', 'focal', got huber",
    "Subcommand 'fit' does not accept option 'trianer.max_epochs'": "trianer: there is no such key; did you mean 'trainer'?",
    "Key 'modl' is not expected": "modl: there is no such key; did you mean 'model'?",
    "Unrecognized arguments: --trainer.max_epoch=3": "--trainer.max_epoch: there is no such option; did you mean '--trainer.max_epochs'?",
    "argument --data: expected one argument": "argument --data: expected one argument",
    "something new\nwith details": "something new",
    "": "not understood",
}  # fmt: skip


@pytest.mark.parametrize("message", STRINGS)
def test_messages_of_other_forms(message):
    assert explain(message, []) == STRINGS[message]
