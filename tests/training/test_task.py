"""Training: exact resume, averaging, stopping, several processes."""

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from visionkit import Classifier, DataError, LinearHead, MixUpCutMix, ResNet, UsageError
from visionkit.core.seeds import derive_seed
from visionkit.data.dataset import DataSplits
from visionkit.data.transforms.augmentation import Augmentation
from visionkit.data.transforms.preprocessing import Preprocessing
from visionkit.models import checkpoint
from visionkit.models.ops import fused_norm
from visionkit.tasks.classification.readers.shapes import ShapesClassification
from visionkit.training.datamodule import VisionDataModule
from visionkit.training.recipe import Recipe
from visionkit.training.run.checkpoints import SafeCheckpointIO
from visionkit.training.run.folder import RunFolder

SIZE = 32


def data(**settings):
    splits = DataSplits(ShapesClassification(20, size=SIZE), ShapesClassification(6, size=SIZE, seed=1))
    return VisionDataModule(
        splits,
        preprocessing=Preprocessing(SIZE),
        augment=Augmentation([{"HorizontalFlip": {"p": 0.5}}, {"ColorJitter": {"p": 0.5}}]),
        **{"batch_size": 5, "num_workers": 0, **settings},
    )


def task(classes, **settings):
    torch.manual_seed(0)
    backbone = ResNet(layers=(1, 1, 1, 1), block="basic", stem="small", stochastic_depth=0.3)
    defaults = {"recipe": Recipe(warmup_epochs=0.5), "mix": MixUpCutMix(), "preprocessing": Preprocessing(SIZE)}
    return Classifier(backbone, lambda f, k: LinearHead(f, k, dropout=0.3), classes, **{**defaults, **settings})


def trainer(epochs, callbacks=(), **settings):
    return L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        callbacks=list(callbacks),
        plugins=[SafeCheckpointIO()],
        **settings,
    )


class Stop(Exception):
    pass


class StopAt(L.Callback):
    """Ends the process's training as a kill would, at the start of a batch."""

    def __init__(self, epoch, batch):
        self.at = (epoch, batch)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == self.at:
            raise Stop


def weights_after(t):
    return {k: v.clone() for k, v in t.model.state_dict().items()}


@pytest.mark.parametrize("ema", [None, 0.9])
@pytest.mark.parametrize(
    ("saving", "stop"),
    [({"save_on_train_epoch_end": True}, (2, 1)), ({"every_n_train_steps": 3, "save_top_k": -1}, (2, 1))],
    ids=["end of epoch", "within an epoch"],
)
def test_resumed_training_is_bit_equal(tmp_path, saving, stop, ema):
    recipe = Recipe(warmup_epochs=0.5, ema=ema)
    d = data()
    whole = task(d.classes, recipe=recipe)
    trainer(4).fit(whole, datamodule=d)

    keep = ModelCheckpoint(tmp_path, filename="{step}", **saving)
    first = task(d.classes, recipe=recipe)
    with pytest.raises(Stop):
        trainer(4, [keep, StopAt(*stop)]).fit(first, datamodule=data())
    newest = max(tmp_path.glob("*.ckpt"), key=lambda p: p.stat().st_mtime_ns)

    torch.manual_seed(1234)  # another process has another random state
    second = task(d.classes, recipe=recipe)
    for p in second.parameters():
        torch.nn.init.normal_(p)
    trainer(4).fit(second, datamodule=data(num_workers=1), ckpt_path=newest)
    expected, got = weights_after(whole), weights_after(second)
    assert all(torch.equal(expected[k], got[k]) for k in expected)


def test_checkpoint_of_plain_lightning_trainer_loads_by_itself(tmp_path):
    d = data()
    t = task(d.classes)
    run = trainer(1)
    run.fit(t, datamodule=d)
    run.save_checkpoint(tmp_path / "x.ckpt")
    model = checkpoint.load(tmp_path / "x.ckpt")
    batch = next(iter(d.val_dataloader()))
    t.eval()
    assert torch.equal(model(batch.images).logits, t(batch.images).logits)
    assert checkpoint.read(tmp_path / "x.ckpt")[checkpoint.KEY]["task"] == "visionkit.Classifier"


def test_validation_takes_loss_and_metric_from_one_forward():
    d = data()
    t = task(d.classes)
    calls = []
    t.model.backbone.register_forward_hook(lambda *_: calls.append(1))
    run = trainer(1)
    run.validate(t, datamodule=d, verbose=False)
    assert len(calls) == 2  # 6 images in batches of 5
    assert {"val/loss", "val/top1"} <= set(run.callback_metrics)
    metric = t.metric("val")
    assert metric.image_ids() == [info.id for batch in d.val_dataloader() for info in batch.infos]
    assert metric.redraw(range(6))["top1"] == run.callback_metrics["val/top1"]


def test_logged_loss_is_the_mean_over_images():
    d = data()
    t = task(d.classes)
    run = trainer(1)
    run.validate(t, datamodule=d, verbose=False)
    t.eval()
    with torch.no_grad():
        losses = [(t.model.loss(t(b.images), b.targets)["loss"], len(b)) for b in d.val_dataloader()]
    expected = sum(loss * n for loss, n in losses) / sum(n for _, n in losses)
    torch.testing.assert_close(run.callback_metrics["val/loss"], expected)


class TrainingMeans(L.Callback):
    """Compares the logged training loss of each epoch with the mean of what the steps returned."""

    def __init__(self):
        self.losses, self.compared = [], 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))

    def on_train_epoch_end(self, trainer, pl_module):
        expected = torch.tensor(self.losses).mean()
        torch.testing.assert_close(trainer.callback_metrics["train/loss"], expected)
        self.losses, self.compared = [], self.compared + 1


class StopAfterAFirstValidation(L.Callback):
    """Ends the training within an epoch, as early stopping does."""

    def on_validation_end(self, trainer, pl_module):
        trainer.should_stop = trainer.current_epoch == 1


@pytest.mark.parametrize(
    ("settings", "others", "epochs"),
    [
        ({}, [], 3),
        ({"val_check_interval": 2}, [], 3),
        ({"max_steps": 6}, [], 2),  # ends within the second epoch
        ({"val_check_interval": 2}, [StopAfterAFirstValidation()], 2),
    ],
)
def test_logged_training_loss_is_the_mean_over_the_epoch(settings, others, epochs):
    d, means = data(), TrainingMeans()
    trainer(3, [means, *others], **settings).fit(task(d.classes), datamodule=d)
    assert means.compared == epochs


def test_a_step_draws_the_same_numbers_as_with_torchs_own_seeding():
    d = data()
    t = task(d.classes)
    trainer(1, limit_train_batches=1).fit(t, datamodule=d)
    t.on_train_batch_start(None, 7)
    found = torch.rand(5)
    torch.manual_seed(derive_seed("step", t.seed, t.current_epoch, 7, 0))
    assert torch.equal(found, torch.rand(5))


def test_early_stopping():
    d = data()
    t = task(d.classes, recipe=Recipe(early_stopping=1))
    for p in t.parameters():
        p.requires_grad_(False)
    t.model.head.classifier[1].bias.requires_grad_(True)
    t.recipe = Recipe(early_stopping=1, optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
    run = trainer(10)
    run.fit(t, datamodule=d)
    assert run.current_epoch < 10


def test_averaged_weights_are_what_validates_and_is_saved(tmp_path):
    d = data()
    t = task(d.classes, recipe=Recipe(ema=0.5))
    keep = ModelCheckpoint(tmp_path, filename="x", save_on_train_epoch_end=True)
    trainer(2, [keep]).fit(t, datamodule=d)
    content = checkpoint.read(tmp_path / "x.ckpt")
    name = "model.head.classifier.1.weight"
    assert not torch.equal(content["state_dict"][name], content["current_model_state"][name])
    assert torch.equal(content["state_dict"][name], t.state_dict()[name])


def test_diverged_training_says_so():
    d = data()
    t = task(d.classes, recipe=Recipe(optimizer=lambda p: torch.optim.SGD(p, lr=1e20), warmup_epochs=0))
    with pytest.raises(DataError, match=r"diverged in epoch \d.*lower the learning rate"):
        trainer(3).fit(t, datamodule=d)


def test_checkpoint_with_other_classes_is_refused(tmp_path):
    d = data()
    run = trainer(1)
    run.fit(task(d.classes), datamodule=d)
    run.save_checkpoint(tmp_path / "x.ckpt")
    other = task(tuple(reversed(d.classes)))
    with pytest.raises(DataError, match="classes are .*the data's are"):
        trainer(1).validate(other, datamodule=d, ckpt_path=tmp_path / "x.ckpt", weights_only=True)


def test_weights_are_trained_in_channels_last():
    d = data()
    t = task(d.classes)
    trainer(1).fit(t, datamodule=d)
    assert t.model.backbone.layer1[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_compiled_parts_train_the_same_weights(monkeypatch, tmp_path):
    """Only what Dynamo captures; making code of it takes a compiler and a minute."""
    compiled = []

    def capture(self):
        compiled.append(type(self).__name__)
        self._compiled_call_impl = torch.compile(self._call_impl, backend="eager")

    monkeypatch.setattr(torch.nn.Module, "compile", capture)
    monkeypatch.setattr("visionkit.training.task.has_compiler", lambda: True)
    monkeypatch.setattr(fused_norm, "_library", lambda: None)  # Dynamo sees torch's own functions
    weights = []
    for recipe in (Recipe(ema=0.9, compile=True), Recipe(ema=0.9)):
        d = data()
        t = task(d.classes, recipe=recipe)
        fitted = trainer(2)
        fitted.fit(t, datamodule=d)
        weights.append(t.state_dict())
        if recipe.compile:
            fitted.save_checkpoint(tmp_path / "c.ckpt")
            assert type(checkpoint.load(tmp_path / "c.ckpt").backbone).__name__ == "ResNet"
    assert compiled == ["ResNet", "IdentityNeck"]
    for name, value in weights[1].items():
        torch.testing.assert_close(weights[0][name], value, rtol=1e-4, atol=1e-5)


def test_compilation_without_a_compiler_is_refused(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    d = data()
    with pytest.raises(UsageError, match=r"recipe\.compile needs a C\+\+ compiler"):
        trainer(1).fit(task(d.classes, recipe=Recipe(compile=True)), datamodule=d)


def test_accumulated_batches_equal_a_larger_batch_in_steps():
    d = data()
    t = task(d.classes)
    run = trainer(2, accumulate_grad_batches=2)
    run.fit(t, datamodule=d)
    assert run.global_step == 4  # 4 batches an epoch, two together


def validate_and_fit(settings):
    """Return the values of a first validation, and the sum of all weights after an epoch."""
    d = data(batch_size=2)
    d._splits = DataSplits(ShapesClassification(21, size=32), ShapesClassification(9, size=32, seed=1))
    t = task(d.classes)
    run = trainer(1, **settings)
    run.validate(t, datamodule=d, verbose=False)
    before = {k: float(v) for k, v in run.callback_metrics.items()}
    run.fit(t, datamodule=d)
    return before, sum(p.double().sum().item() for p in t.parameters())


def test_two_processes_measure_the_same_and_train_to_the_end(pair):
    one, _ = validate_and_fit({})
    ((two, weights), (other, others)), _ = pair(validate_and_fit, {"devices": 2, "strategy": "ddp"})
    assert two == other
    assert weights == others, "both end with the same weights"
    assert one.keys() == two.keys()
    for key, value in one.items():
        assert two[key] == pytest.approx(value, abs=1e-5), key


def test_run_folder_rows_survive_a_resume(tmp_path):
    d = data()
    keep = ModelCheckpoint(tmp_path / "c", filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    trainer(3, [RunFolder(tmp_path), keep]).fit(task(d.classes), datamodule=d)
    before = (tmp_path / "metrics.csv").read_text()
    again = RunFolder(tmp_path)
    trainer(3, [again]).fit(task(d.classes), datamodule=data(), ckpt_path=tmp_path / "c" / "epoch=0.ckpt")
    after = (tmp_path / "metrics.csv").read_text()
    timeless = [[line.rsplit(",", 3)[0] for line in text.splitlines()] for text in (before, after)]
    assert timeless[0] == timeless[1]
    assert [r["epoch"] for r in again.rows] == [1, 2, 3]


class TestPreprocessing:
    def fitted(self, tmp_path, **settings):
        made = task(data().classes, recipe=Recipe(ema=None), **settings)
        trainer(1, limit_train_batches=1, limit_val_batches=1, default_root_dir=tmp_path).fit(made, datamodule=data())
        return made

    def test_what_nobody_gave_comes_from_the_data(self, tmp_path):
        made = self.fitted(tmp_path, preprocessing=None)
        checkpoint.save(made.model, tmp_path / "m.ckpt")
        assert checkpoint.load(tmp_path / "m.ckpt").preprocessing.size == (SIZE, SIZE)

    def test_another_than_the_datas_is_refused_before_training(self, tmp_path):
        with pytest.raises(UsageError, match=r"preprocessing \(64 x 64 .*is not the data's \(32 x 32"):
            self.fitted(tmp_path, preprocessing=Preprocessing(64))
