"""visionkit as a library: its parts in other people's training loops, modules and detectors, and heads of their own."""

import json
import shutil
import sys
import warnings
from collections import OrderedDict
from functools import cache, partial
from pathlib import Path

import lightning as L
import pytest
import torch
import torchvision
import yaml
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.models import detection
from torchvision.models.feature_extraction import create_feature_extractor

import visionkit
from visionkit import (
    FPN,
    BoxTarget,
    ClassificationData,
    Classifier,
    ClassTarget,
    DataSplits,
    DeepLabV3PlusHead,
    DetectionData,
    Detector,
    FasterRCNNHead,
    FCNHead,
    FCOSHead,
    FPNSegmentationHead,
    IdentityNeck,
    ImageInfo,
    LinearHead,
    MaskRCNNHead,
    MaskTarget,
    MLPHead,
    ObjectMasks,
    Preprocessing,
    ResNet,
    SegmentationData,
    Segmenter,
    ShapesClassification,
    ShapesDetection,
    ShapesSegmentation,
    VisionDataModule,
    VisionModel,
    collate,
)
from visionkit.cli.main import run
from visionkit.models import checkpoint
from visionkit.training.recipe import Recipe

HERE = Path(__file__).parent
SIZE = 64
BACKGROUND = ShapesSegmentation(1).classes.index("background")
CLASSES = ["circle", "cross", "ring", "square", "star", "triangle"]
tiny = partial(ResNet, layers=(1, 1, 1, 1), block="basic")

# ---- other people's data: float pictures that they normalised, labels as plain numbers and tensors


@cache
def own_loader(kind):
    if kind == "label":
        samples = list(ShapesClassification(6, size=SIZE))
        truths = [int(s.target.scores.argmax()) for s in samples]
    elif kind == "boxes":
        samples = list(ShapesDetection(4, size=SIZE, masks=True))
        truths = [
            {"boxes": s.target.boxes, "labels": s.target.labels, "masks": s.target.masks.dense()} for s in samples
        ]
    else:
        samples = list(ShapesSegmentation(4, size=SIZE))
        truths = [s.target.mask for s in samples]
    pairs = [(s.image.float() / 127.5 - 1, t) for s, t in zip(samples, truths, strict=True)]
    return DataLoader(pairs, batch_size=len(pairs), shuffle=True, collate_fn=own_collate)


def own_collate(pairs):
    images, truths = zip(*pairs, strict=True)
    return torch.stack(images), truths


def as_target(truth):
    if isinstance(truth, int):
        return ClassTarget(F.one_hot(torch.tensor(truth), len(CLASSES)).float())
    if isinstance(truth, dict):
        return BoxTarget.make(truth["boxes"], truth["labels"], masks=ObjectMasks.from_dense(truth["masks"]))
    return MaskTarget(truth)


def share_right(prediction, truth):
    if isinstance(truth, int):
        return float(prediction.probabilities.argmax() == truth)
    if isinstance(truth, dict):
        overlap = torchvision.ops.box_iou(truth["boxes"], prediction.boxes)
        hit = (overlap > 0.5) & (truth["labels"][:, None] == prediction.labels) & (prediction.scores > 0.3)
        return hit.any(1).float().mean().item()
    return (prediction.labels == truth)[truth != BACKGROUND].float().mean().item()


# ---- a. backbone, neck and each head in a plain PyTorch loop

PYRAMID = partial(FPN, channels=32, min_level=2, max_level=5, extra="pool")
HEADS = [
    (LinearHead, "label", IdentityNeck, {}),
    (MLPHead, "label", IdentityNeck, {"width": 32}),
    (FCOSHead, "boxes", partial(FPN, channels=32, max_level=5), {"channels": 32, "depth": 1}),
    (FasterRCNNHead, "boxes", PYRAMID, {"width": 64, "rois_per_image": 64}),
    (MaskRCNNHead, "boxes", PYRAMID, {"width": 64, "rois_per_image": 64, "mask_depth": 1}),
    (DeepLabV3PlusHead, "mask", IdentityNeck, {"channels": 32, "dropout": 0.0}),
    (FPNSegmentationHead, "mask", PYRAMID, {"channels": 32, "dropout": 0.0}),
    (FCNHead, "mask", IdentityNeck, {"level": 1, "dropout": 0.0}),
]

STEPS = {"label": 24, "boxes": 35, "mask": 30}
LEARNT = {"label": 0.9, "boxes": 0.5, "mask": 0.35}  # share that is right then; by chance near 0.17, 0 and 0


@pytest.mark.parametrize(("head_class", "kind", "neck_class", "settings"), HEADS, ids=[h[0].__name__ for h in HEADS])
def test_head_learns_in_a_plain_loop(head_class, kind, neck_class, settings):
    torch.manual_seed(0)
    backbone = tiny(output_stride=16 if kind == "mask" else 32)
    neck = neck_class(backbone.features)
    head = head_class(neck.features, len(CLASSES) + (kind == "mask"), **settings)  # masks have a background
    net = nn.ModuleList([backbone, neck, head])
    optimizer = torch.optim.Adam(net.parameters(), lr=4e-3)
    history = []
    for _epoch in range(STEPS[kind]):
        for images, truths in own_loader(kind):
            outputs = head(neck(backbone(images)))
            losses = head.loss(outputs, [as_target(t) for t in truths])
            loss = sum(losses.values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            history.append(loss.item())
    assert all(p.grad is not None for p in head.parameters())
    assert sum(history[-3:]) < 0.5 * sum(history[:3]), history

    net.eval()
    images, truths = next(iter(own_loader(kind)))
    with torch.no_grad():
        predictions = head.decode(head(neck(backbone(images))))
    predictions = [p.restore(ImageInfo("", (SIZE, SIZE))) for p in predictions]
    assert len(predictions) == len(images)
    right = [share_right(p, t) for p, t in zip(predictions, truths, strict=True)]
    assert sum(right) / len(right) > LEARNT[kind], right
    names = CLASSES if kind != "mask" else ShapesSegmentation(1).classes
    for p in predictions:
        json.dumps(p.record(names))
        assert p.draw(torch.zeros(3, SIZE, SIZE, dtype=torch.uint8), names).shape == (3, SIZE, SIZE)


# ---- b. in somebody's own LightningModule


class OwnModule(L.LightningModule):
    """Somebody's module: their names, steps and optimizer; one visionkit head beside a layer of their own."""

    def __init__(self):
        super().__init__()
        self.net = tiny()
        self.shapes = LinearHead(self.net.features, len(CLASSES))
        self.brightness = nn.Linear(self.net.features.channels[-1], 1)
        self.seen = []

    def training_step(self, batch, batch_idx):
        images, labels = batch
        levels = self.net(images)
        losses = self.shapes.loss(self.shapes(levels), [as_target(int(k)) for k in labels])
        own = F.mse_loss(self.brightness(levels[-1].mean((2, 3)))[:, 0], images.mean((1, 2, 3)))
        loss = sum(losses.values()) + own
        self.seen.append(loss.item())
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.02, momentum=0.9)


def own_trainer(**settings):
    return L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
                     **{"enable_checkpointing": False, **settings})  # fmt: skip


def test_parts_in_somebodys_lightning_module():
    torch.manual_seed(0)
    pairs = [(images[k], truths[k]) for images, truths in own_loader("label") for k in range(len(images))]
    module = OwnModule()
    own_trainer(max_epochs=20).fit(module, DataLoader(pairs, batch_size=6))
    assert len(module.seen) == 20
    assert module.seen[-1] < 0.3 * module.seen[0]


def test_whole_model_in_somebodys_lightning_module(tmp_path):
    class Own(L.LightningModule):
        def __init__(self, model):
            super().__init__()
            self.model = model
            self.seen = []

        def training_step(self, batch, batch_idx):
            loss = sum(self.model.loss(self.model(batch.images), batch.targets).values())
            self.seen.append(loss.item())
            return loss

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=2e-3)

    torch.manual_seed(0)
    head = partial(FCOSHead, channels=32, depth=1)
    own = Own(
        VisionModel(tiny(), head, CLASSES, partial(FPN, channels=32, max_level=5), preprocessing=Preprocessing(SIZE))
    )
    samples = list(ShapesDetection(4, size=SIZE))
    own_trainer(max_epochs=25).fit(own, DataLoader(samples, batch_size=4, collate_fn=collate))
    assert own.seen[-1] < 0.5 * own.seen[0]
    visionkit.save(own.model, tmp_path / "own.ckpt")
    assert visionkit.load(tmp_path / "own.ckpt").classes == tuple(CLASSES)


# ---- c. under torchvision's detectors


class Levels(nn.Module):
    """visionkit's backbone and FPN as torchvision's detectors want them."""

    def __init__(self, backbone, neck):
        super().__init__()
        self.backbone, self.neck, self.out_channels = backbone, neck, neck.features.channels[0]

    def forward(self, images):
        return OrderedDict((str(k), x) for k, x in enumerate(self.neck(self.backbone(images))))


@pytest.mark.parametrize(
    ("detector", "settings"),
    [
        (detection.FCOS, {}),
        (detection.RetinaNet, {}),
        (detection.FasterRCNN, {"min_level": 2, "max_level": 6, "extra": "pool"}),
    ],
)
def test_torchvision_detectors_take_backbone_and_fpn(detector, settings):
    torch.manual_seed(0)
    backbone = tiny()
    levels = Levels(backbone, FPN(backbone.features, 32, **settings))
    model = detector(levels, num_classes=len(CLASSES) + 1, min_size=SIZE, max_size=SIZE)
    samples = [s for s in ShapesDetection(4, size=SIZE) if len(s.target)]
    images = [s.image.float() / 255 for s in samples]
    targets = [{"boxes": s.target.boxes, "labels": s.target.labels + 1} for s in samples]  # 0 is their background
    losses = model.train()(images, targets)
    assert losses
    assert all(torch.isfinite(v) for v in losses.values())
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() and p.grad.abs().sum() > 0 for p in backbone.conv1.parameters())
    with torch.no_grad():
        predictions = model.eval()(images)
    assert len(predictions) == len(samples)
    assert all(p["boxes"].shape == (len(p["scores"]), 4) for p in predictions)


# ---- d. weights in, stages frozen


@pytest.fixture(scope="module")
def torchvision_file(tmp_path_factory):
    """torchvision's ResNet-18 with random weights and statistics, as a file, and the network itself."""
    torch.manual_seed(3)
    theirs = torchvision.models.resnet18(weights=None).eval()
    for name, buffer in theirs.named_buffers():
        if "running_var" in name:
            buffer.uniform_(0.5, 1.5)
        elif "running_mean" in name:
            buffer.normal_(0, 0.1)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(theirs.state_dict(), path)
    return theirs, path


def test_features_of_torchvisions_weights_equal_torchvisions(torchvision_file):
    theirs, path = torchvision_file
    ours = ResNet(18, weights=str(path)).eval()
    names = ["layer1", "layer2", "layer3", "layer4"]
    images = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        expected, levels = create_feature_extractor(theirs, names)(images), ours(images)
    for name, level, channels, stride in zip(names, levels, ours.features.channels, ours.features.strides, strict=True):
        torch.testing.assert_close(level, expected[name], atol=1e-6, rtol=1e-6)
        assert level.shape == (2, channels, 96 // stride, 64 // stride)
        assert level.std() > 0.01
    assert ours.weights_report.coverage == 1.0


def test_frozen_stages_neither_learn_nor_move_their_statistics(torchvision_file):
    backbone = ResNet(18, weights=str(torchvision_file[1]))
    backbone.freeze(["stem", "layer1"])
    assert backbone.frozen == ("stem", "layer1")
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1)
    backbone.train()
    backbone(torch.randn(4, 3, SIZE, SIZE))[-1].square().mean().backward()
    optimizer.step()
    moved = {k for k, v in backbone.state_dict().items() if not torch.equal(v, before[k])}
    assert {k.partition(".")[0] for k in moved} == {"layer2", "layer3", "layer4"}
    assert "layer2.0.bn1.running_mean" in moved
    backbone.thaw()
    assert all(p.requires_grad for p in backbone.parameters())


# ---- e. tasks and data with the user's own Trainer; save, load, predict

SETTINGS = {"size": SIZE, "batch_size": 4, "num_workers": 0}
TASKS = {
    "classification": (Classifier, ClassificationData, {}, {}),
    "detection": (Detector, DetectionData, {"neck": partial(FPN, channels=32, max_level=5), "head": partial(FCOSHead, channels=32)}, {}),
    "segmentation": (Segmenter, SegmentationData, {"head": partial(DeepLabV3PlusHead, channels=32)}, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", TASKS)
def test_tasks_in_the_users_own_trainer(name, tmp_path):
    task_class, data_class, parts, more = TASKS[name]
    torch.manual_seed(0)
    data = data_class(**SETTINGS, **more)
    task = task_class(tiny(), classes=data.classes, preprocessing=data.preprocessing, recipe=Recipe(ema=None), **parts)
    trainer = own_trainer(max_epochs=1, limit_train_batches=3, limit_val_batches=2, default_root_dir=tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*num_workers.*|.*does not have many workers.*")
        trainer.fit(task, datamodule=data)
        (values,) = trainer.validate(task, datamodule=data, verbose=False)
    assert task.monitor in values
    assert torch.isfinite(torch.tensor(values["val/loss"]))
    model = task.model.eval()
    images = torch.stack([s.image for s in list(ShapesDetection(3, size=96))])  # another size than the model's
    predictions = model.predict(images)
    visionkit.save(model, tmp_path / "saved.ckpt")
    trainer.save_checkpoint(tmp_path / "lightning.ckpt")
    for file in ("saved.ckpt", "lightning.ckpt"):
        loaded = visionkit.load(tmp_path / file)
        assert loaded.classes == tuple(data.classes)
        assert loaded.preprocessing.size == (SIZE, SIZE)
        plain = checkpoint.load(tmp_path / file).to(memory_format=torch.channels_last)
        again = plain.predict(images)  # as trained: the same arithmetic
        assert len(loaded.predict(images)) == 3
        assert len(again) == 3
        for a, b in zip(predictions, again, strict=True):
            assert json.dumps(a.record(data.classes)) == json.dumps(b.record(data.classes))
    with pytest.raises(visionkit.UsageError, match="training mode"):
        model.train().predict(images)


def test_own_data_sets_of_samples_train_a_task():
    splits = DataSplits(ShapesDetection(8, size=96), ShapesDetection(4, size=96, seed=1))
    data = VisionDataModule(splits, preprocessing=Preprocessing(SIZE), batch_size=4, num_workers=0)
    parts = {"neck": partial(FPN, channels=32, max_level=5), "head": partial(FCOSHead, channels=32, depth=0)}
    task = Detector(tiny(), classes=data.classes, preprocessing=data.preprocessing, **parts)
    trainer = own_trainer(max_epochs=1)
    trainer.fit(task, datamodule=data)
    assert trainer.global_step == 2
    assert "val/map" in trainer.callback_metrics


# ---- f. a head outside the package, through the command line

CONFIG = """\
seed_everything: 0

trainer:
  max_epochs: 2
  accelerator: cpu
  precision: 32-true
  gradient_clip_val: 10.0
  logger: false

model:
  class_path: Detector
  init_args:
    backbone:
      class_path: ResNet
      init_args:
        layers: [1, 1, 1, 1]    # a small one
        block: basic
    neck:
      class_path: FPN
      init_args:
        channels: 32
        min_level: 2            # cells of 4 pixels
        max_level: 5
    head:
      class_path: my_heads.KeypointHead
      init_args:
        channels: 32
    recipe:
      optimizer:
        class_path: torch.optim.AdamW
        init_args:
          lr: 2.0e-3
      warmup_epochs: 0.3

data:
  class_path: DetectionData
  init_args:
    size: 64                    # the drawn shapes, at half their size
    batch_size: 8
    num_workers: 0
    mosaic: 0.0
    augment: null
"""


@pytest.fixture
def elsewhere(monkeypatch):
    """A process that knows nothing of my_heads.py yet."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "path", [p for p in sys.path if p and not (Path(p) / "my_heads.py").is_file()])
        patch.delitem(sys.modules, "my_heads", raising=False)
        yield patch
        sys.modules.pop("my_heads", None)


@pytest.fixture(scope="module")
def keypoints(tmp_path_factory):
    """A folder with my_heads.py and points.yaml, in which the command line has trained for an epoch."""
    folder = tmp_path_factory.mktemp("keypoints")
    shutil.copy(HERE / "my_heads.py", folder)
    (folder / "points.yaml").write_text(CONFIG)
    short = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=60"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        assert run(["fit", "-c", "points.yaml", "--trainer.default_root_dir=out", *short]) == 0
    sys.modules.pop("my_heads", None)
    return folder


def test_own_head_learns_from_the_command_line(keypoints, elsewhere):
    elsewhere.syspath_prepend(keypoints)
    values = json.loads((keypoints / "out" / "metrics.json").read_text())
    model = visionkit.load(keypoints / "out" / "checkpoints" / "best.ckpt", trust=["my_heads"])
    assert type(model.head).__name__ == "KeypointHead"
    assert model.head.prediction.__name__ == "PointPrediction"
    samples = list(ShapesDetection(60, seed=1))  # the first of those that validated, 128 pixels
    batch = collate([model.preprocessing(s) for s in samples])
    predictions = [p.restore(i) for p, i in zip(model.decode(batch.images), batch.infos, strict=True)]
    found = f1(model, predictions, samples)
    chance = f1(model, [*predictions[1:], predictions[0]], samples)  # each picture has another's points
    assert found["f1"] == pytest.approx(values["val/f1"], abs=0.12)
    assert found["f1"] > 0.2
    assert found["f1"] > 4 * chance["f1"]


def f1(model, predictions, samples):
    metric = model.head.metric(model.classes)
    metric.update(predictions, [s.target for s in samples])
    return metric.compute()


def test_own_head_validates(keypoints, elsewhere, capsys):
    elsewhere.chdir(keypoints)
    values = json.loads((keypoints / "out" / "metrics.json").read_text())
    assert run(["validate", "-c", "out/config.yaml", "--ckpt_path", "best"]) == 0
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("val/"))
    assert float(printed["val/f1"]) == pytest.approx(values["val/f1"], abs=1e-4)
    assert "val/f1/circle" in printed


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for k, sample in enumerate(ShapesDetection(3, seed=1, size=160)):
        Image.fromarray(sample.image.permute(1, 2, 0).numpy()).save(folder / f"{k}.png")
    return folder


def predict(keypoints, out, pictures, *more):
    checkpoint = str(keypoints / "out" / "checkpoints" / "best.ckpt")
    return run(["predict", "--ckpt", checkpoint, "--out", str(out), str(pictures), *more])


def test_own_head_predicts_when_it_is_trusted(keypoints, elsewhere, pictures, tmp_path):
    elsewhere.syspath_prepend(keypoints)
    assert predict(keypoints, tmp_path, pictures, "--trust", "my_heads", "--save-images", "--min-score", "0.2") == 0
    records = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [Path(r["image"]).name for r in records] == ["0.png", "1.png", "2.png"]
    objects = [o for r in records for o in r["objects"]]
    assert objects
    assert all(o["label"] in CLASSES and 0.2 <= o["score"] <= 1 for o in objects)
    assert all(0 <= v < 160 for o in objects for v in o["point"])
    assert max(v for o in objects for v in o["point"]) > SIZE, "points are in pixels of the original"
    rows = (tmp_path / "predictions.csv").read_text().splitlines()
    assert rows[0] == "image,label,score,x,y"
    assert len(rows) == 1 + len(objects)
    assert len(list((tmp_path / "images").glob("*.jpg"))) == 3


def test_own_head_is_found_beside_the_person_who_predicts(keypoints, elsewhere, pictures, tmp_path):
    elsewhere.chdir(keypoints)
    assert predict(keypoints, tmp_path, pictures, "--trust", "my_heads") == 0


def test_own_head_is_refused_without_trust(keypoints, elsewhere, pictures, tmp_path, capsys):
    elsewhere.syspath_prepend(keypoints)
    assert predict(keypoints, tmp_path / "p", pictures) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "my_heads.KeypointHead, outside visionkit" in line
    assert "--trust my_heads" in line
    assert "my_heads" not in sys.modules, "nothing of it was imported"
    with pytest.raises(visionkit.UsageError, match=r"trust=\['my_heads'\]"):
        visionkit.load(keypoints / "out" / "checkpoints" / "best.ckpt")


# ---- the pieces of that head, by hand


@pytest.fixture
def my_heads(elsewhere):
    elsewhere.syspath_prepend(HERE)
    import my_heads

    return my_heads


def test_perfect_heat_decodes_to_the_centres_and_costs_nothing(my_heads):
    head = my_heads.KeypointHead(visionkit.FeatureSpec((8,), (4,)), 2)
    target = BoxTarget.make([[8, 8, 24, 28], [40, 4, 60, 20]], [0, 1])
    heat, known = head._heat(target, torch.zeros(2, 16, 16))
    outputs = my_heads.KeypointOutputs(torch.where(heat == 1, 20.0, -20.0)[None])
    (prediction,) = head.decode(outputs)
    assert known.all()
    assert heat[0, 4, 4] == 1
    assert heat[1, 3, 12] == 1
    assert {(*p, k) for p, k in zip(map(tuple, prediction.points.tolist()), prediction.labels.tolist(), strict=True)} == {
        (18.0, 18.0, 0), (50.0, 14.0, 1)}  # fmt: skip  # the middles of the cells that hold (16, 18) and (50, 12)
    assert head.loss(outputs, [target])["heat"] < 1e-6
    wrong = my_heads.KeypointOutputs(-outputs.logits)
    assert head.loss(wrong, [target])["heat"] > 20


def test_points_go_back_to_the_original(my_heads):
    prediction = my_heads.PointPrediction(
        torch.tensor([[32.0, 32.0], [2.0, 2.0]]), torch.tensor([0.9, 0.8]), torch.tensor([1, 0])
    )
    restored = prediction.restore(ImageInfo("", (100, 200), scale=(0.32, 0.32), offset=(16, 0)))  # letterboxed to 64
    assert restored.points.tolist() == [pytest.approx([100, 50])], "the second lies in the bar above the picture"
    assert restored.record(["a", "b"])["objects"][0]["label"] == "b"


def test_crowds_are_neither_learnt_nor_counted(my_heads):
    crowd = BoxTarget.make([[0, 0, 64, 64]], [0], crowd=[True])
    head = my_heads.KeypointHead(visionkit.FeatureSpec((8,), (4,)), 2)
    outputs = my_heads.KeypointOutputs(torch.full((1, 2, 16, 16), 5.0))
    assert head.loss(outputs, [crowd])["heat"] == 0
    metric = my_heads.PointMetric(["a", "b"])
    metric.update(
        [my_heads.PointPrediction(torch.zeros(0, 2), torch.zeros(0), torch.zeros(0, dtype=torch.int64))], [crowd]
    )
    assert "f1/a" not in metric.compute()


def test_metric_by_hand(my_heads):
    metric = my_heads.PointMetric(["a", "b"])
    target = BoxTarget.make([[0, 0, 20, 20], [40, 40, 60, 60]], [0, 1])  # reach: 5 pixels
    points = torch.tensor([[10.0, 14.0], [10.0, 10.0], [50.0, 44.0], [50.0, 50.0]])
    labels, scores = torch.tensor([0, 0, 1, 0]), torch.tensor([0.9, 0.8, 0.7, 0.6])
    metric.update([my_heads.PointPrediction(points, scores, labels)], [target])
    values = metric.compute()  # right: the first alone; a double, one 6 pixels away, one of another class
    assert values["precision"] == pytest.approx(1 / 4)
    assert values["recall"] == pytest.approx(1 / 2)
    assert values["f1"] == pytest.approx(1 / 3)
    assert values["f1/b"] == 0


def test_the_notebook_shows_this_head_and_this_config():
    cells = json.loads((HERE.parent / "notebooks" / "library.ipynb").read_text(encoding="utf-8"))["cells"]
    written = {}
    for cell in cells:
        first, _, rest = "".join(cell["source"]).partition("\n")
        if first.startswith("%%writefile"):
            written[first.split()[1]] = rest.rstrip("\n") + "\n"
    assert written["my_heads.py"] == (HERE / "my_heads.py").read_text(encoding="utf-8")
    assert yaml.safe_load(written["points.yaml"]) == yaml.safe_load(CONFIG)
