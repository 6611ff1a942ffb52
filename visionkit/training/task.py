"""Task: the only LightningModule of the project, with all its train, validation and test steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from visionkit.core.component import Spec, class_path, parameters_of
from visionkit.core.distributed import gather_objects
from visionkit.core.errors import DataError, UsageError
from visionkit.core.machine import has_compiler, refuse_foreign_code
from visionkit.core.prediction import Prediction
from visionkit.core.sample import Batch
from visionkit.core.seeds import derive_seed
from visionkit.core.text import say
from visionkit.core.thresholds import Thresholds
from visionkit.data.loading import TrainingLoader
from visionkit.models import checkpoint as checkpoints
from visionkit.models.description import check_description
from visionkit.models.head import Head
from visionkit.models.model import VisionModel
from visionkit.training.datamodule import VisionDataModule
from visionkit.training.ema import EMA
from visionkit.training.features.cache import FeatureCache
from visionkit.training.freezing import Freezing
from visionkit.training.losses import EpochLosses
from visionkit.training.metric import MetricFactory, TaskMetric
from visionkit.training.probe import Probe
from visionkit.training.progressive import shrink
from visionkit.training.recipe import Recipe
from visionkit.training.resuming import KEY as TOLD
from visionkit.training.resuming import PatientStopping, go_on, told
from visionkit.training.teacher import Teacher

__all__ = ["BatchTransform", "Task"]

BatchTransform = Callable[[Batch[Any]], Batch[Any]]
"""Changes a training batch on the device, such as MixUp and CutMix."""


class Task(L.LightningModule):
    """Trains, validates and tests a VisionModel. Each task subclasses it to choose model, metric and defaults only.

    Random numbers of a training step depend on (seed, epoch, batch, process) alone, so a resumed run is the same run.

    Args:
        model: Backbone, neck and head with their class names.
        metric: Makes the metric from the class names; None takes the head's.
        recipe: Optimizer, schedule, averaging and stopping.
        batch_transform: Changes each training batch on the device, such as MixUpCutMix.
        seed: Seed of dropout, stochastic depth and batch transforms.
        teacher: Checkpoints, or folders of runs, whose predictions it imitates beside its labels; see Teacher. None
            learns from labels alone.
    """

    config: ClassVar[str]
    """Name of the shipped config of this task."""
    linked: ClassVar[Mapping[str, str]] = {
        **{name: f"data.{name}" for name in ("classes", "multilabel", "preprocessing")},
        "seed": "seed_everything",
    }
    """Arguments that the command line fills, where a task has them, with where it takes them from: an attribute of the
    data or a key of the config. All others stand in configs; their types say which classes they take."""

    def __init__(
        self,
        model: VisionModel,
        metric: MetricFactory | None = None,
        *,
        recipe: Recipe | None = None,
        batch_transform: BatchTransform | None = None,
        seed: int = 0,
        teacher: str | Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe if recipe is not None else Recipe()
        self.batch_transform = batch_transform
        self.seed = seed
        self.teacher = None if teacher is None else Teacher(teacher)
        metric = metric if metric is not None else model.head.metric
        self.metrics = torch.nn.ModuleDict({"val": metric(model.classes), "test": metric(model.classes)})
        self._training = EpochLosses()
        self._losses: dict[str, Tensor] = {}  # sums over the images of an evaluation on this process
        self._images: dict[str, int] = {}  # how many images each loss speaks of
        self._features: FeatureCache | None = None
        self._resumed: dict[str, Any] | None = None  # the checkpoint, until there is an optimizer
        self._steps_per_epoch = 1.0
        self._total_steps = 1
        self.values: dict[str, dict[str, Tensor]] = {}
        """All values of the last validation and test, by stage ("val", "test"); confusion matrices too."""
        self.watch_training: Callable[[Batch[Any]], None] | None = None
        """Is shown each training batch as the network sees it, before the network does."""
        self.watch_validation: Callable[[Sequence[Prediction], Batch[Any]], None] | None = None
        """Is shown the predictions of each validation batch, in pixels that the network saw."""

    @property
    def monitor(self) -> str:
        """Key of the validation metric that says which checkpoint is the best."""
        return self.monitors["best"][0]

    @property
    def monitor_mode(self) -> str:
        """Whether a higher ("max") or lower ("min") value of ``monitor`` is better."""
        return self.monitors["best"][1]

    @property
    def monitors(self) -> dict[str, tuple[str, str]]:
        """Name of each checkpoint that is kept for a best value -> key of the value, and "max" or "min"."""
        return {name: (f"val/{key}", mode) for name, (key, mode) in self.metric("val").monitors.items()}

    def forward(self, images: Tensor) -> Any:
        """Compute the model's outputs.

        Args:
            images: uint8 [B, C, H, W].
        """
        return self.model(images)

    @classmethod
    def config_of(cls, model: Spec) -> dict[str, Any]:
        """Return the keys of a config, below ``model``, that describe a model in its own words.

        Args:
            model: What :meth:`VisionModel.spec` returned.
        """
        accepted = parameters_of(cls)
        return {part: spec for part, spec in model.items() if part in accepted and part not in cls.linked}

    @classmethod
    def trains(cls, head: Head) -> bool:
        """Return whether a head is of this task's kind: it predicts what the task's usual one predicts."""
        usual = parameters_of(cls)["head"].default.prediction
        return issubclass(head.prediction, usual)

    # ---- steps

    def on_train_epoch_start(self) -> None:
        """Start the means of the losses anew."""
        self._training.start()

    def on_train_start(self) -> None:
        """After a resume within an epoch, go on with its remaining batches.

        Lightning would do so itself, had the scheduler not asked for the number of steps, and with it for the loader,
        before the checkpoint's progress was known.
        """
        done = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        loader = self.trainer.train_dataloader
        if isinstance(loader, TrainingLoader):
            loader.skip(done if done < self.trainer.num_training_batches else 0)
        if self.trainer.fit_loop.restarted_mid_epoch:
            self._log(self._training.taken())

    def on_train_batch_start(self, batch: Batch[Any], batch_idx: int) -> None:
        """Tie the random numbers of this step to its place in the training."""
        seed = derive_seed("step", self.seed, self.current_epoch, batch_idx, self.global_rank)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed also tells every absent accelerator: 1 ms
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(seed)

    def training_step(self, batch: Batch[Any], batch_idx: int) -> Tensor:
        """Return the sum of the head's losses over a batch."""
        if self.batch_transform is not None:
            batch = self.batch_transform(batch)
        if self.recipe.progressive is not None:
            done = self.global_step / max(1, self._total_steps)
            batch = shrink(batch, done, self.recipe.progressive)
        if self.watch_training is not None:
            self.watch_training(batch)
        outputs = self.model.outputs(batch)
        losses = self.model.loss(outputs, batch.targets)
        if self.teacher is not None:
            losses = self.teacher.blend(self.model, losses, outputs, batch)
        sums: dict[str, Tensor] = {}  # of several heads one each: processes can have labels for different ones
        for name, value in losses.items():
            head = name.partition("/")[0]
            sums[head] = sums[head] + value if head in sums else value
        named = _named_losses("train", sums)
        self._training.add(named, len(batch))
        return named["train/loss"]

    def on_train_batch_end(self, outputs: Any, batch: Batch[Any], batch_idx: int) -> None:
        """Log the means of the losses when the epoch ends or may end: each ``self.log`` takes 0.25 ms, a sum none."""
        trainer = self.trainer
        check = trainer.val_check_batch or math.inf  # early stopping may end an epoch after a validation within it
        loop = trainer.fit_loop.epoch_loop
        if loop.done or (batch_idx + 1) % check == 0 or (loop.total_batch_idx + 1) % check == 0:
            self._log(self._training.take())

    def _log(self, losses: list[tuple[dict[str, Tensor], int]]) -> None:
        for means, images in losses:
            self.log_dict(means, on_step=False, on_epoch=True, batch_size=images, sync_dist=True)

    def validation_step(self, batch: Batch[Any], batch_idx: int) -> None:
        """Add a batch to the validation loss and metric, from one forward pass."""
        self._evaluation_step("val", batch)

    def test_step(self, batch: Batch[Any], batch_idx: int) -> None:
        """Add a batch to the test loss and metric, from one forward pass."""
        self._evaluation_step("test", batch)

    def on_train_epoch_end(self) -> None:
        """Stop with a clear message when the training has diverged."""
        loss = self.trainer.callback_metrics.get("train/loss")
        if loss is not None and not math.isfinite(loss):
            rates = sorted({g["lr"] for o in self.trainer.optimizers for g in o.param_groups})
            raise DataError(
                f"training diverged in epoch {self.current_epoch + 1}: the loss is {float(loss)} "
                f"(learning rate {rates[-1]:.3g}); lower the learning rate or set --trainer.gradient_clip_val 1"
            )

    def on_validation_epoch_start(self) -> None:
        """Start loss and metric anew."""
        self._start_evaluation("val")

    def on_validation_epoch_end(self) -> None:
        """Log loss and metric."""
        self._finish_evaluation("val")

    def on_test_epoch_start(self) -> None:
        """Start loss and metric anew."""
        self._start_evaluation("test")

    def on_test_epoch_end(self) -> None:
        """Log loss and metric."""
        self._finish_evaluation("test")

    def _start_evaluation(self, stage: str) -> None:
        self.metric(stage).reset()
        self._losses, self._images = {}, {}

    def _evaluation_step(self, stage: str, batch: Batch[Any]) -> None:
        outputs = self.model.outputs(batch)
        for name, value in self.model.loss(outputs, batch.targets).items():
            images = self.model.head.count_labelled(name, batch.targets)
            self._losses[name] = self._losses.get(name, 0.0) + value.detach().float() * images
            self._images[name] = self._images.get(name, 0) + images
        decoded = self.model.head.decode(outputs)
        if stage == "val" and self.watch_validation is not None:
            self.watch_validation(decoded, batch)
        predictions = [p.restore(i) for p, i in zip(decoded, batch.infos, strict=True)]
        truth = [t.restore(i) for t, i in zip(batch.targets, batch.infos, strict=True)]
        metric = self.metric(stage)
        metric.update(predictions, truth)  # in pixels of the originals
        metric.add_infos(batch.infos)

    def _finish_evaluation(self, stage: str) -> None:
        """Log losses and metric over all images of all processes, each counted once."""
        parts = gather_objects({k: (float(v), self._images[k]) for k, v in self._losses.items()})
        means = {}
        for name in sorted({name for part in parts for name in part}):
            sums, images = zip(*(part[name] for part in parts if name in part), strict=True)
            means[name] = torch.tensor(sum(sums) / sum(images))
        values = self.metric(stage).compute()
        self.values[stage] = {k: v.detach().cpu() for k, v in values.items()}
        scalars = {f"{stage}/{k}": v.float() for k, v in values.items() if v.ndim == 0}
        self.log_dict({**_named_losses(stage, means), **scalars})  # equal on all processes already

    def metric(self, stage: str) -> TaskMetric:
        """Return the metric of a stage, "val" or "test"."""
        metric = self.metrics[stage]
        assert isinstance(metric, TaskMetric)
        return metric

    # ---- set-up

    def setup(self, stage: str) -> None:
        """Bring the weights into channels_last order, in which convolutions are fast (CPU and CUDA); compile.

        Raises:
            UsageError: The recipe asks for what cannot be had, or the data have another preprocessing than the model.
        """
        if stage == "fit":
            self._leave_out(self.model.thresholds, "the model")
            self.model.thresholds = None
        data = self.trainer.datamodule  # type: ignore[attr-defined]  # set at run time
        if isinstance(data, VisionDataModule):
            self.model.take_preprocessing(data.preprocessing)
        if stage == "fit" and self.teacher is not None:
            self.teacher.load(self.model, self.recipe)
        if self.device.type in ("cpu", "cuda"):
            self.model.to(memory_format=torch.channels_last)
        if stage == "fit" and self.recipe.compile:
            if self.trainer.strategy.root_device.type == "cpu" and not has_compiler():
                raise UsageError(
                    "recipe.compile needs a C++ compiler on a CPU, and none of g++, clang++ and $CXX is found: install "
                    "one, or set recipe.compile false, which is as fast there"
                )
            refuse_foreign_code()
            for part in (self.model.backbone, self.model.neck):
                part.compile()
        self._features = None
        dry = self.trainer.fast_dev_run  # type: ignore[attr-defined]  # set at run time
        if stage == "fit" and self.recipe.cache_features is not False and not dry:
            self._cache_features()

    def teardown(self, stage: str) -> None:
        """Remove what a training that ended well has kept for itself."""
        features, self._features = self._features, None
        if features is not None:
            features.remove()

    def _leave_out(self, thresholds: Thresholds | None, whose: object) -> None:
        """Say of thresholds that a training does not keep them: they speak of the model as it was."""
        if thresholds is not None and self.trainer.is_global_zero:
            say(
                f"note     the thresholds of {whose} ({thresholds.rule}) are left out, since the model changes now: "
                "visionkit evaluate --choose finds new ones"
            )

    def _cache_features(self) -> None:
        """Let the data read the features of a frozen backbone in place of pictures."""
        if not self.backbone_stays:
            if self.recipe.cache_features:
                raise UsageError(
                    "recipe.cache_features needs a backbone that is frozen throughout: set recipe.freeze backbone and "
                    "recipe.thaw null"
                )
            return
        data = self.trainer.datamodule  # type: ignore[attr-defined]  # set at run time
        if isinstance(data, VisionDataModule):
            self._features = FeatureCache(
                self.model,
                self.recipe,
                self.trainer,
                data,
                batch_transform=self.batch_transform,
                taught=self.teacher is not None,
            )
            data.ready = self._features.view

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Make optimizer and schedule as the recipe says."""
        total = int(self.trainer.estimated_stepping_batches)
        self.trainer.fit_loop.setup_data()  # done by the line above, but with max_epochs -1
        batches = self.trainer.num_training_batches
        per_epoch = math.ceil(batches / self.trainer.accumulate_grad_batches) if math.isfinite(batches) else total
        optimizer, scheduler = self.recipe.configure(self.model, total_steps=total, steps_per_epoch=per_epoch)
        self._steps_per_epoch, self._total_steps = per_epoch, total
        if self._resumed is not None:
            path = self.trainer.ckpt_path or "the checkpoint"
            make = self.recipe.make_optimizer
            go_on(self._resumed, self.model, optimizer, scheduler, per_epoch, path, make=make)
            self._resumed = None
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_callbacks(self) -> list[Callback]:
        """Bring the callbacks that the recipe asks for."""
        callbacks: list[Callback] = []
        if self.recipe.ema is not None and self.trainer.state.fn == "fit":  # checkpoints hold the averaged weights
            callbacks.append(EMA(self.recipe.ema))
        if self.recipe.freeze is not None and self.trainer.state.fn == "fit":
            callbacks.append(Freezing(self.recipe))
        if self.recipe.probe and self.trainer.state.fn == "fit":
            callbacks.append(Probe())
        if self.recipe.early_stopping is not None:
            callbacks.append(PatientStopping(self.monitor, patience=self.recipe.early_stopping, mode=self.monitor_mode))
        return callbacks

    @property
    def backbone_stays(self) -> bool:
        """Whether the recipe keeps the whole backbone frozen throughout, so that its features stay the same."""
        parts = {part.name: part for part in self.recipe.parts(self.model)}
        return all(parts[name].frozen and parts[name].thaw is None for name in self.model.backbone.stages())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Describe the model in the checkpoint, so that ``visionkit.load`` needs nothing else."""
        checkpoint[checkpoints.KEY] = checkpoints.spec_of_model(self.model, task=class_path(type(self)))
        if self.teacher is not None:
            checkpoint[checkpoints.KEY]["teachers"] = self.teacher.passport()
        if checkpoint.get("optimizer_states"):
            checkpoint[TOLD] = told(self.model, self.trainer.optimizers[0], self._steps_per_epoch)
            checkpoint[TOLD]["losses"] = gather_objects(self._training.state())  # of the epoch that runs, by process

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint whose classes, by name and order, or weights are not this model's."""
        if checkpoints.KEY not in checkpoint:
            return
        if self.trainer.state.fn == "fit" and self.recipe.ema is None and "current_model_state" in checkpoint:
            checkpoint["state_dict"] = checkpoint["current_model_state"]  # the averaging has been turned off
        path = self.trainer.ckpt_path or "the checkpoint"
        description = check_description(checkpoint[checkpoints.KEY], path)
        theirs = description["model"]["classes"]
        if tuple(theirs) != self.model.classes:
            raise DataError(
                f"{path}: the checkpoint's classes are {theirs}, the data's are {list(self.model.classes)}: "
                "name the checkpoint's with --data.classes, or start without --ckpt_path"
            )
        if self.strict_loading:
            whose = (description["task"] or "").rpartition(".")[2]
            what = f"this {type(self).__name__}'s model" + (f", it is a checkpoint of a {whose}" if whose else "")
            checkpoints.fit_state(self.model, checkpoint, path, what)
        checkpoints.adopt(self.model, description, path)  # a resumed backbone has no weights file
        if self.trainer.state.fn == "fit" and "thresholds" in description:
            self._leave_out(Thresholds.from_plain(description["thresholds"], theirs), path)
        if self.trainer.state.fn == "fit" and self.teacher is not None:
            self.teacher.refuse_others(description.get("teachers") or (), path)
        if self.trainer.state.fn == "fit" and checkpoint.get("optimizer_states"):
            self._resumed = checkpoint
            try:
                losses = checkpoint.get(TOLD, {}).get("losses", ())
                if len(losses) == self.trainer.world_size:
                    self._training.load(losses[self.global_rank])
            except (AttributeError, TypeError, ValueError) as e:
                raise DataError(f"{path}: its losses are damaged: the training cannot go on from this file") from e


def _named_losses(stage: str, losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the sum as "<stage>/loss", and each loss by name where there are several."""
    total = torch.stack(list(losses.values())).sum()
    return {f"{stage}/loss": total} | {f"{stage}/{k}": v for k, v in losses.items() if k != "loss"}
