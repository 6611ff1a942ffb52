"""Training with frozen and thawed parts: what moves, exact resume, several processes."""

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.nn import functional as F

from visionkit import FPN, LinearHead, UsageError, VisionModel
from visionkit.data.dataset import DataSplits
from visionkit.data.transforms.augmentation import Augmentation
from visionkit.data.transforms.preprocessing import Preprocessing
from visionkit.models import checkpoint
from visionkit.models.backbones.base import Backbone, FeatureSpec
from visionkit.tasks.classification.readers.shapes import ShapesClassification
from visionkit.training.datamodule import VisionDataModule
from visionkit.training.freezing import Freezing, FrozenModule
from visionkit.training.recipe import Recipe
from visionkit.training.run.checkpoints import SafeCheckpointIO
from visionkit.training.task import Task

SIZE = 32


class Tiny(Backbone):
    """Three stages of a convolution, a BatchNorm and dropout."""

    def __init__(self, norm=True, dropout=0.2):
        super().__init__()
        self.features, self.in_channels = FeatureSpec((4, 8, 8), (2, 4, 8)), 3
        self.mean, self.std = (0.5,) * 3, (0.25,) * 3
        for name, (before, after) in {"stem": (3, 4), "a": (4, 8), "b": (8, 8)}.items():
            parts = [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after) if norm else nn.Identity()]
            self.add_module(name, nn.Sequential(*parts, nn.ReLU(), nn.Dropout(dropout)))

    def forward(self, x):
        levels = [self.stem(x)]
        levels.append(self.a(levels[-1]))
        return [*levels, self.b(levels[-1])]

    def stages(self):
        return {"stem": [self.stem], "a": [self.a], "b": [self.b]}


def data(batch_size=5, **settings):
    splits = DataSplits(ShapesClassification(20, size=SIZE), ShapesClassification(6, size=SIZE, seed=1))
    augmentation = Augmentation([{"HorizontalFlip": {"p": 0.5}}])
    return VisionDataModule(
        splits,
        preprocessing=Preprocessing(SIZE),
        augment=augmentation,
        batch_size=batch_size,
        num_workers=0,
        **settings,
    )


def task(recipe, *, norm=True, dropout=0.2):
    torch.manual_seed(0)

    def neck(features):
        return FPN(features, 8, min_level=2, max_level=3, norm="batch" if norm else None)

    def head(features, classes):
        return LinearHead(features, classes, dropout=dropout)

    classes = data().classes
    return Task(VisionModel(Tiny(norm, dropout), head, classes, neck, preprocessing=Preprocessing(SIZE)), recipe=recipe)


def trainer(epochs, callbacks=(), **settings):
    defaults = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False}
    return L.Trainer(
        max_epochs=epochs,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        callbacks=list(callbacks),
        plugins=[SafeCheckpointIO()],
        **{**defaults, **settings},
    )


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.5)


def adamw_loop(parameters):
    return torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.5, fused=False, foreach=False)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1)


def state(t):
    return {k: v.clone() for k, v in t.model.state_dict().items()}


def moved(before, after):
    """Names of the parts with a tensor that is not bit-equal: of the neck, the head and each stage."""
    names = (k for k in before if not torch.equal(before[k], after[k]))
    return {k.split(".")[1] if k.startswith("backbone") else k.split(".")[0] for k in names}


class Watch(L.Callback):
    """Keeps the state after each epoch of training, and fails where a frozen BatchNorm or dropout is in training mode."""

    def __init__(self):
        self.states = []
        self.trained = []
        self.modes = set()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        model = pl_module.model
        for name, module in (*model.backbone.named_children(), *model.named_children()):
            if name == "backbone":
                continue
            modes = {m.training for m in module.modules()}
            assert len(modes) == 1, "a part is in one mode throughout"
            self.modes.add((trainer.current_epoch + 1, name, modes.pop()))
            gradient = {p.requires_grad for p in module.parameters()}
            assert gradient == {self.mode(trainer.current_epoch + 1, name)}

    def mode(self, epoch, name):
        (mode,) = (m for e, n, m in self.modes if (e, n) == (epoch, name))
        return mode

    def on_train_epoch_end(self, trainer, pl_module):
        self.states.append(state(pl_module))
        self.trained.append({n for e, n, m in self.modes if e == trainer.current_epoch + 1 and m})


TRUNK = {"stem", "a", "b", "neck"}


@pytest.mark.parametrize(
    ("optimizer", "ema", "freeze", "frozen"),
    [
        (None, None, "trunk", TRUNK),
        (adamw, 0.9, "trunk", TRUNK),
        (adamw_loop, None, 2, {"stem", "a"}),
        (sgd, 0.9, 2, {"stem", "a"}),
        (sgd, None, "backbone", TRUNK - {"neck"}),
    ],
)
def test_frozen_parts_are_bit_equal_after_training(tmp_path, optimizer, ema, freeze, frozen):
    t = task(Recipe(optimizer, freeze=freeze, ema=ema))
    before, watch = state(t), Watch()
    keep = ModelCheckpoint(tmp_path, filename="x", save_on_train_epoch_end=True)
    trainer(2, [watch, keep]).fit(t, datamodule=data())
    everything = {"stem", "a", "b", "neck", "head"}
    assert moved(before, state(t)) == everything - frozen
    assert watch.trained == [everything - frozen] * 2
    saved = checkpoint.read(tmp_path / "x.ckpt")
    for key in ("state_dict", *(["current_model_state"] if ema else [])):
        after = {k.removeprefix("model."): v for k, v in saved[key].items() if k.startswith("model.")}
        assert moved(before, after) == everything - frozen


def test_thawed_parts_train_from_their_epoch_on():
    t = task(Recipe(adamw, freeze="trunk", thaw={2: "b", 4: "all"}, thaw_warmup=0))
    watch, start = Watch(), state(t)
    trainer(5, [watch]).fit(t, datamodule=data())
    parts = [{"head"}, {"head", "b"}, {"head", "b"}, *[{"head", "b", "stem", "a", "neck"}] * 2]
    assert watch.trained == parts
    assert [moved(a, b) for a, b in zip([start, *watch.states], watch.states, strict=False)] == parts


def test_the_learning_rate_of_a_thawed_stage_starts_at_its_epoch_with_accumulated_batches():
    rates = []

    class Rates(L.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            rates.append([g["lr"] for g in optimizer.param_groups[::2]])

    t = task(Recipe(sgd, schedule="constant", warmup_epochs=0, freeze=["b"], thaw={3: "b"}))
    trainer(4, [Rates()], accumulate_grad_batches=3).fit(t, datamodule=data())  # 4 batches: 2 steps an epoch
    late = next(i for i, r in enumerate(rates[0]) if r == 0)
    assert [r[late] for r in rates] == pytest.approx([0] * 4 + [0.1 / 3, 0.2 / 3, 0.1, 0.1])
    assert all(r[1 - late] == pytest.approx(0.1) for r in rates)


def test_training_for_a_number_of_steps_thaws_by_epochs():
    t = task(Recipe(sgd, freeze="backbone", thaw={2: "all"}))
    before = state(t)
    trainer(-1, max_steps=12).fit(t, datamodule=data())
    assert moved(before, state(t)) == {"stem", "a", "b", "neck", "head"}


class Stop(Exception):
    pass


class StopAt(L.Callback):
    """Ends the process's training as a kill would, at the start of a batch."""

    def __init__(self, epoch, batch):
        self.at = (epoch, batch)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.at:
            raise Stop


@pytest.mark.parametrize("ema", [None, 0.9])
@pytest.mark.parametrize(
    ("saving", "stop"),
    [
        ({"save_on_train_epoch_end": True}, (1, 1)),  # the next epoch thaws a stage
        ({"save_on_train_epoch_end": True}, (2, 1)),  # a stage is thawed already
        ({"every_n_train_steps": 3, "save_top_k": -1}, (2, 2)),  # within the epoch that thaws the rest
        ({"every_n_train_steps": 3, "save_top_k": -1}, (3, 1)),
    ],
)
def test_resumed_training_is_bit_equal(tmp_path, saving, stop, ema):
    recipe = Recipe(adamw, warmup_epochs=0.5, ema=ema, freeze="trunk", thaw={2: "b", 3: "all"}, layer_decay=0.5)
    whole = task(recipe)
    trainer(4).fit(whole, datamodule=data())

    keep = ModelCheckpoint(tmp_path, filename="{step}", **saving)
    first = task(recipe)
    with pytest.raises(Stop):
        trainer(4, [keep, StopAt(*stop)]).fit(first, datamodule=data())
    newest = max(tmp_path.glob("*.ckpt"), key=lambda p: p.stat().st_mtime_ns)

    second = task(recipe)
    for p in second.parameters():
        nn.init.normal_(p)
    trainer(4).fit(second, datamodule=data(), ckpt_path=newest)
    expected, got = state(whole), state(second)
    assert all(torch.equal(expected[k], got[k]) for k in expected)


def test_a_training_leaves_nothing_frozen_that_was_not_before():
    t = task(Recipe(sgd, freeze="trunk"))
    t.model.backbone.freeze(["stem"])
    trainer(1).fit(t, datamodule=data())
    assert t.model.backbone.frozen == ("stem",)
    assert all(p.requires_grad for n, p in t.model.named_parameters() if not n.startswith("backbone.stem"))
    before = state(t)
    t.recipe = Recipe(sgd)
    run = trainer(1)
    run.fit(t, datamodule=data())
    assert not any(isinstance(c, Freezing) for c in run.callbacks)
    assert moved(before, state(t)) == {"a", "b", "neck", "head"}


def test_a_training_that_breaks_leaves_nothing_frozen_either():
    t = task(Recipe(sgd, freeze="trunk"))
    with pytest.raises(Stop):
        trainer(1, [StopAt(0, 1)]).fit(t, datamodule=data())
    assert all(p.requires_grad for p in t.model.parameters())
    assert t.model.backbone.frozen == ()
    assert not t.model.neck._forward_pre_hooks


def test_thawing_after_the_end_is_refused_but_not_in_a_fast_dev_run():
    t = task(Recipe(sgd, freeze="trunk", thaw={2: "b", 30: "all"}))
    with pytest.raises(UsageError, match="recipe.thaw names epoch 30, but training ends with epoch 10"):
        trainer(10).fit(t, datamodule=data())
    trainer(10, fast_dev_run=True).fit(t, datamodule=data())


def test_evaluation_freezes_nothing():
    t = task(Recipe(freeze="trunk"))
    trainer(1).validate(t, datamodule=data(), verbose=False)
    assert all(p.requires_grad for p in t.parameters())


def test_any_module_stays_frozen_whatever_calls_train():
    inner = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    inner[0].bias.requires_grad_(False)
    outer = nn.Sequential(inner, nn.Linear(4, 2))
    frozen = FrozenModule(inner)
    before = {k: v.clone() for k, v in inner.state_dict().items()}
    outer.train()
    x = torch.randn(8, 4)
    outer(x).sum().backward()
    assert torch.equal(inner(x), F.batch_norm(inner[0](x), before["1.running_mean"], before["1.running_var"], eps=1e-5))
    assert all(torch.equal(v, before[k]) for k, v in inner.state_dict().items())
    assert all(p.grad is None for p in inner.parameters())
    frozen.thaw()
    assert [p.requires_grad for p in inner.parameters()] == [True, False, True, True]
    assert all(m.training for m in outer.modules())
    outer(x)
    assert inner[1].num_batches_tracked == 1


TRAINED = {"warmup_epochs": 0.5, "freeze": "trunk", "thaw": {2: "b", 3: "all"}, "thaw_warmup": 0.5}


def train_without_batch_norm(processes, batch_size):
    """Return the model's tensors after four epochs."""
    t = task(Recipe(sgd, **TRAINED), norm=False, dropout=0.0)
    settings = {"gradient_clip_val": 0.5, "accumulate_grad_batches": 2}
    if processes > 1:
        settings |= {"devices": processes, "strategy": "ddp"}
    trainer(4, **settings).fit(t, datamodule=data(batch_size))
    return {k: v.numpy() for k, v in t.model.state_dict().items()}


def test_two_processes_train_thawed_parts_as_one_does_with_the_whole_batch(pair):
    """The head reads the last level alone, so parts of the neck have no gradient: weight decay must leave them too."""
    (first, second), _ = pair(train_without_batch_norm, 2, 2)
    start = state(task(Recipe(), norm=False))
    one, first, second = (
        {k: torch.from_numpy(v) for k, v in m.items()} for m in (train_without_batch_norm(1, 4), first, second)
    )
    assert moved(start, one) == {"stem", "a", "b", "neck", "head"}
    assert torch.equal(start["neck.lateral.0.weight"], one["neck.lateral.0.weight"])
    for key, value in one.items():
        assert torch.equal(first[key], second[key]), key
        torch.testing.assert_close(first[key], value, rtol=1e-5, atol=1e-5, msg=key)
