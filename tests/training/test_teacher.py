"""Learning from teachers: what they may be, what is kept of them, and that a training with one is as any other."""

import copy
import shutil

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

import visionkit
from visionkit import (
    FPN,
    Classifier,
    DataError,
    FCOSHead,
    LinearHead,
    MixUpCutMix,
    Preprocessing,
    ResNet,
    UsageError,
    VisionModel,
)
from visionkit.core.thresholds import Thresholds
from visionkit.data.dataset import DataSplits
from visionkit.models import checkpoint
from visionkit.models.model_digest import digests_of
from visionkit.models.store_thresholds import store_thresholds
from visionkit.tasks.classification.readers.shapes import ShapesClassification
from visionkit.training.datamodule import VisionDataModule
from visionkit.training.recipe import Recipe
from visionkit.training.run.checkpoints import SafeCheckpointIO
from visionkit.training.teacher import Teacher, _edges

SIZE = 32


def backbone(**settings):
    return ResNet(layers=(1, 1, 1, 1), block="basic", stem="small", **settings)


def network(classes, seed=0, size=SIZE, head=LinearHead, **settings):
    torch.manual_seed(seed)
    made = VisionModel(
        backbone(**settings), head, classes, preprocessing=Preprocessing(size, channels=settings.get("in_channels", 3))
    )
    with torch.no_grad():
        made.head.classifier[-1].weight.normal_(0, 0.5)
    return made.eval()


def data(**settings):
    splits = DataSplits(ShapesClassification(12, size=SIZE), ShapesClassification(4, size=SIZE, seed=1))
    return VisionDataModule(
        splits, preprocessing=Preprocessing(SIZE), **{"batch_size": 4, "num_workers": 0, **settings}
    )


CLASSES = data().classes


@pytest.fixture
def teacher(tmp_path):
    path = tmp_path / "teacher.ckpt"
    visionkit.save(network(CLASSES, seed=3), path)
    return path


def task(teacher, seed=0, **settings):
    torch.manual_seed(seed)
    defaults = {"recipe": Recipe(warmup_epochs=0.5), "preprocessing": Preprocessing(SIZE)}
    given = teacher if teacher is None or isinstance(teacher, list) else str(teacher)
    return Classifier(backbone(), LinearHead, CLASSES, **{**defaults, "teacher": given, **settings})


def trainer(epochs=1, callbacks=(), **settings):
    return L.Trainer(max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False,
                     enable_model_summary=False, num_sanity_val_steps=0, use_distributed_sampler=False,
                     enable_checkpointing=bool(callbacks), callbacks=list(callbacks), plugins=[SafeCheckpointIO()], **settings)  # fmt: skip


class Stop(Exception):
    pass


class StopAt(L.Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (1, 2):
            raise Stop


def test_a_step_blends_labels_and_teacher(teacher):
    one = task(teacher, recipe=Recipe(teacher_weight=0.25, teacher_temperature=2.0))
    one.teacher.load(one.model, one.recipe)
    one.model.train()
    batch = next(iter(data().train_dataloader()))
    outputs = one.model.outputs(batch)
    losses = one.model.loss(outputs, batch.targets)
    blended = one.teacher.blend(one.model, losses, outputs, batch)
    with torch.no_grad():
        theirs = network(CLASSES, seed=3)(batch.images).logits
    kl = torch.nn.functional.kl_div((outputs.logits / 2).log_softmax(1), (theirs / 2).softmax(1), reduction="batchmean")
    assert set(blended) == {"loss", "teacher"}
    torch.testing.assert_close(blended["loss"], 0.75 * losses["loss"])
    torch.testing.assert_close(blended["teacher"], 0.25 * 4 * kl)


def test_the_teacher_is_logged_and_neither_saved_nor_trained(teacher, tmp_path):
    one = task(teacher, recipe=Recipe(ema=0.9, warmup_epochs=0))
    before = sum(p.numel() for p in task(None).parameters())
    run = trainer()
    run.fit(one, datamodule=data())
    assert sum(p.numel() for p in one.parameters()) == before
    assert not any("teacher" in key for key in one.state_dict())
    assert run.callback_metrics["train/teacher"] < run.callback_metrics["train/loss"]
    run.save_checkpoint(tmp_path / "x.ckpt")
    content = checkpoint.read(tmp_path / "x.ckpt")
    assert not any("teacher" in key for key in content["state_dict"])
    (said,) = content["visionkit"]["teachers"]
    assert said["source"] == "teacher.ckpt"
    assert len(said["sha256"]) == 64
    assert copy.deepcopy(one).teacher is one.teacher, "an average of the weights makes no copy of it"
    assert torch.equal(
        one.teacher._members[0].model.head.classifier[-1].weight, network(CLASSES, 3).head.classifier[-1].weight
    )


def test_resumed_training_is_bit_equal_and_wants_the_same_teacher(teacher, tmp_path):
    recipe = Recipe(warmup_epochs=0.5, ema=0.9, progressive=0.5)

    def made():
        return task(teacher, recipe=recipe, mix=MixUpCutMix())

    whole = made()
    trainer(2).fit(whole, datamodule=data())
    with pytest.raises(Stop):
        trainer(2, [ModelCheckpoint(tmp_path, "cut", every_n_train_steps=4), StopAt()]).fit(made(), datamodule=data())
    second = made()
    trainer(2).fit(second, datamodule=data(), ckpt_path=tmp_path / "cut.ckpt")
    expected, got = whole.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(expected[k], got[k]) for k in expected)
    store_thresholds(teacher, Thresholds("f1", {CLASSES[0]: 0.5}))
    again = made()
    again.teacher.load(again.model, again.recipe)
    (named,) = checkpoint.read(tmp_path / "cut.ckpt")["visionkit"]["teachers"]
    again.teacher.refuse_others([named], "cut.ckpt")  # thresholds make no other teacher
    again.teacher.refuse_others([{**named, "sha256": digests_of(teacher)[1]}], "cut.ckpt")  # as files were named before
    visionkit.save(network(CLASSES, seed=4), teacher)
    with pytest.raises(DataError, match=r"was taught by teacher.ckpt \(\w{12}\), and model.teacher is .* now"):
        trainer(2).fit(made(), datamodule=data(), ckpt_path=tmp_path / "cut.ckpt")
    without = task(None, recipe=recipe, mix=MixUpCutMix())
    trainer(2).fit(without, datamodule=data(), ckpt_path=tmp_path / "cut.ckpt")


def test_classes_are_matched_by_name(tmp_path):
    names = list(CLASSES)
    path = tmp_path / "t.ckpt"
    visionkit.save(network([names[2], "other", names[0]], seed=3), path)
    one = task(path)
    one.teacher.load(one.model, one.recipe)
    member = one.teacher._members[0]
    assert member.own.tolist() == [0, 2]
    assert member.theirs.tolist() == [2, 0]
    lines = one.teacher.lines()
    assert "knows 2 of the classes" in lines[0]
    unknown = ", ".join(n for k, n in enumerate(names) if k not in (0, 2))
    assert lines[1] == f"teacher  {unknown}: not known to a teacher, learnt from labels alone"
    assert lines[2] == "teacher  weight 0.7, labels 0.3, temperature 3"
    both = task([str(path), str(path)])
    both.teacher.load(both.model, both.recipe)
    assert both.teacher.lines()[-1].endswith(", the mean of 2")


def test_the_mean_of_an_ensemble_is_learnt(teacher, tmp_path):
    visionkit.save(network(CLASSES, seed=9), tmp_path / "b.ckpt")
    batch = next(iter(data().train_dataloader()))
    values = []
    for given in ([teacher], [tmp_path / "b.ckpt"], [teacher, tmp_path / "b.ckpt"]):
        one = task(list(map(str, given)))
        one.teacher.load(one.model, one.recipe)
        outputs = one.model.eval().outputs(batch)
        values.append(float(one.teacher.blend(one.model, {}, outputs, batch)["teacher"]))
    assert values[2] == pytest.approx((values[0] + values[1]) / 2)


def test_the_teachers_that_a_training_goes_on_with_are_all_those_of_before(teacher, tmp_path):
    visionkit.save(network(CLASSES, seed=9), tmp_path / "b.ckpt")
    one, both, turned = (
        Teacher(list(map(str, given)))
        for given in ([teacher], [teacher, tmp_path / "b.ckpt"], [tmp_path / "b.ckpt", teacher])
    )
    for t in (one, both, turned):
        t.load(network(CLASSES), Recipe())
    both.refuse_others(turned.passport(), "x.ckpt")
    both.refuse_others([], "x.ckpt")
    with pytest.raises(DataError, match=r"x.ckpt: was taught by teacher.ckpt \(\w{12}\), and .*, \S*b.ckpt .* now"):
        both.refuse_others(one.passport(), "x.ckpt")
    with pytest.raises(DataError, match=r"was taught by teacher.ckpt .*, b.ckpt .*, and model.teacher is \S*teacher"):
        one.refuse_others(both.passport(), "x.ckpt")


@pytest.mark.parametrize(
    ("made", "recipe", "message"),
    [
        (lambda: network(["ant", "bee"]), {}, "knows none of the data's classes .*, its own are ant, bee"),
        (
            lambda: network(CLASSES, in_channels=1),
            {},
            "it sees pictures of 1 channels, the model that it is to teach 3",
        ),
        (lambda: network([*CLASSES[:2], "x"]), {"teacher_weight": 1.0}, "recipe.teacher_weight 1 leaves .* nothing"),
    ],
)
def test_what_cannot_teach_is_refused(tmp_path, made, recipe, message):
    path = tmp_path / "t.ckpt"
    visionkit.save(made(), path)
    one = task(path, recipe=Recipe(**recipe))
    with pytest.raises(UsageError, match=message):
        trainer().fit(one, datamodule=data())


def test_a_file_that_is_none_is_named(tmp_path):
    one = task(tmp_path / "none.ckpt")
    with pytest.raises(DataError, match=r"none.ckpt: no such file"):
        trainer().fit(one, datamodule=data())
    for nothing in ("", []):
        with pytest.raises(UsageError, match="model.teacher needs a checkpoint"):
            Teacher(nothing)
    trainer().validate(one, datamodule=data(), verbose=False)  # which asks no teacher


def test_a_temperature_is_refused_where_nothing_is_softened(tmp_path):
    net = VisionModel(backbone(), FCOSHead, ["a"], lambda f: FPN(f, channels=16), preprocessing=Preprocessing(SIZE))
    with pytest.raises(UsageError, match="recipe.teacher_temperature: FCOSHead imitates scores and boxes as they are"):
        Teacher("none.ckpt").load(net, Recipe(teacher_temperature=2.0))


@pytest.mark.parametrize("wrong", [{"teacher_weight": 0.0}, {"teacher_weight": 1.5}, {"teacher_temperature": 0.0}])
def test_settings_out_of_range(wrong):
    with pytest.raises(UsageError, match=f"recipe.{next(iter(wrong))}"):
        Recipe(**wrong)


@pytest.mark.parametrize(
    ("seen", "whole", "own", "size"),
    [
        ((64, 64), (64, 64), (64, 64), (64, 64)),
        ((32, 48), (64, 96), (64, 96), (32, 48)),  # smaller at times: the very same pictures
        ((64, 64), (64, 64), (100, 90), (100, 90)),
        ((64, 64), (128, 128), (256, 192), (128, 96)),  # smaller by as much
        ((64, 64), (224, 224), (64, 64), (32, 32)),
    ],
)
def test_the_size_at_which_a_teacher_sees_pictures(seen, whole, own, size):
    assert _edges(seen, whole, own) == size


def test_a_teacher_of_another_size_sees_the_same_pictures_resized(tmp_path):
    path = tmp_path / "t.ckpt"
    visionkit.save(network(CLASSES, seed=3, size=48), path)
    one = task(path)
    shapes = []
    one.teacher.load(one.model, one.recipe)
    one.teacher._members[0].model.backbone.register_forward_pre_hook(lambda m, x: shapes.append(x[0].shape[2:]))
    trainer(limit_train_batches=1).fit(one, datamodule=data())
    assert shapes == [(48, 48)]


def test_features_are_not_cached_beside_a_teacher(teacher, capsys):
    frozen = Recipe(freeze="backbone", warmup_epochs=0)
    trainer().fit(task(teacher, recipe=frozen), datamodule=data())
    said = capsys.readouterr().out
    assert "features computed anew in each epoch: the teacher sees the pictures in each: set model.teacher null" in said
    forced = Recipe(freeze="backbone", warmup_epochs=0, cache_features=True)
    with pytest.raises(UsageError, match="recipe.cache_features true: the teacher sees the pictures"):
        trainer().fit(task(teacher, recipe=forced), datamodule=data())


def test_a_folder_of_members_is_an_ensemble(teacher, tmp_path):
    for name in ("member-1", "member-2", "member-10"):
        (tmp_path / "runs" / name / "checkpoints").mkdir(parents=True)
        shutil.copy(teacher, tmp_path / "runs" / name / "checkpoints" / "best.ckpt")
    one = task(tmp_path / "runs")
    one.teacher.load(one.model, one.recipe)
    assert [m.path.parts[-3] for m in one.teacher._members] == ["member-1", "member-2", "member-10"]


def taught_for_an_epoch(path, settings):
    one = task(path, recipe=Recipe(warmup_epochs=0, ema=0.9))
    run = trainer(**settings)
    run.fit(one, datamodule=data())
    return float(run.callback_metrics["train/teacher"]), sum(p.double().sum().item() for p in one.parameters())


@pytest.mark.slow
def test_two_processes_are_taught_alike(teacher, pair):
    (one, two), _ = pair(taught_for_an_epoch, str(teacher), {"devices": 2, "strategy": "ddp"})
    assert one == two
    assert one[0] > 0
