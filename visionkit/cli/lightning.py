"""Lightning's command line with visionkit's run folder, precision and messages; importing it takes seconds."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger, TensorBoardLogger

from visionkit.cli.config.configs import TOP
from visionkit.cli.config.descriptions import TRAINER_DEFAULTS, import_class
from visionkit.cli.config.options import TRUST, options_of, value_of
from visionkit.cli.config.run_config import config_text, home_of
from visionkit.cli.faults import as_options, lacks_memory
from visionkit.cli.making import check_data, check_machine, instead_of_last, place_loggers, refused
from visionkit.cli.members import holds_members
from visionkit.cli.parser import GIVEN_ARGUMENTS, Parser, names_class
from visionkit.core.errors import DataError, UsageError
from visionkit.core.machine import choose_precision, describe_processor, tune
from visionkit.core.text import printable, say, shortened
from visionkit.models import checkpoint as checkpoints
from visionkit.models.backbones.base import Backbone
from visionkit.models.model import VisionModel
from visionkit.models.necks.base import Neck
from visionkit.models.necks.identity import IdentityNeck
from visionkit.models.run_folder import BEST, FOLDER, LAST, MEMBER
from visionkit.prediction.backends.convert import convert
from visionkit.prediction.sheet import draw_sheet
from visionkit.training.advice import USUAL, Choice
from visionkit.training.datamodule import VisionDataModule
from visionkit.training.pictures.callback import Pictures
from visionkit.training.pictures.moments import read_moments
from visionkit.training.run.checkpoints import BestAndLast, SafeCheckpointIO
from visionkit.training.run.claim import Claim, numbers
from visionkit.training.run.folder import RunFolder
from visionkit.training.run.guidance import read_curves
from visionkit.training.run.progress import EpochLines, QuietBar
from visionkit.training.run.stopping import Stopped, Stopping, end_others
from visionkit.training.task import Task
from visionkit.training.teacher import checksums

__all__ = ["CLI"]

RUN_VARIABLE = "VISIONKIT_RUN_FOLDER"
"""Tells the processes that Lightning starts which run folder the first one chose."""
RUNS = Path("runs")
ROOT = "--trainer.default_root_dir"
MAX_SHOWN_FAULTS = 10  # faulty labels, at most


class CLI(LightningCLI):
    """LightningCLI with one owner for folder, checkpoints, precision and logging.

    Args:
        argv: The command and its arguments.
        given: The same as a person wrote it, with paths of configs, for messages; None where it is the same.
        claim: Holds the run folder; whoever gives it lets go of it.
        choices: What was chosen from the data where ``auto`` stood, for the first lines and config.yaml.
    """

    def __init__(
        self,
        argv: list[str],
        given: list[str] | None = None,
        *,
        claim: Claim | None = None,
        choices: Sequence[Choice] = (),
    ) -> None:
        GIVEN_ARGUMENTS[:] = given or argv
        Parser.started_in = os.getcwd()
        self.given = given or argv
        self.choices = choices
        self.claim = claim or Claim()
        super().__init__(
            Task,
            VisionDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,  # the run folder writes it
            seed_everything_default=0,
            parser_class=Parser,
            trainer_defaults=dict(TRAINER_DEFAULTS),
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=argv,
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse without Lightning's warning that sys.argv has arguments too: processes it starts need them there."""
        self.config = parser.parse_args(args)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Offer the three commands that need Trainer, model and data."""
        everything = LightningCLI.subcommands()
        return {GIVEN_ARGUMENTS[0]: everything[GIVEN_ARGUMENTS[0]]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Let the data say what the model must know; nothing is typed twice."""
        for part, base in (("model", Task), ("data", VisionDataModule)):
            for argument, source in base.linked.items():
                how: dict[str, Any] = {"apply_on": "instantiate"} if "." in source else {"compute_fn": int}
                parser.link_arguments(source, f"{part}.init_args.{argument}", **how)
        parser.add_argument("--pictures", type=read_moments, default="auto", help=TOP["pictures"])
        parser.add_argument("--start_seed", type=int | None, default=None, help=TOP["start_seed"])

    def _parse_ckpt_path(self) -> None:
        """Leave the parsed config alone: the command line and the YAML win over a checkpoint's hyper-parameters."""

    def _set_seed(self) -> None:
        """Seed start weights; what happens later has its own seeds."""
        check_machine(self.config[str(self.subcommand)], self.given)
        check_data(self.config[str(self.subcommand)], self.given)
        logging.getLogger("lightning.fabric.utilities.seed").setLevel(logging.WARNING)
        super()._set_seed()
        start = self._get(self.config, "start_seed")
        if start is not None:
            L.seed_everything(start, workers=True, verbose=False)

    def before_instantiate_classes(self) -> None:
        """Settle folder, checkpoint and precision, and what a checkpoint decides."""
        config = self.config[self.subcommand]
        self.folder = self._choose_folder(config)
        if config.trainer.precision is None and not config.trainer.plugins:
            config.trainer.precision = choose_precision(_device(config.trainer.accelerator))
        taught = checksums(_as_list(config.model.init_args.get("teacher"))) if self.subcommand == "fit" else []
        remarks = [f"teacher: {path}, sha256 {digest}" for path, digest in taught]
        self.config_text = config_text(self._parser(self.subcommand), config, self.choices, remarks)
        self._choose_checkpoint(config)
        if self.subcommand == "fit" and _is_first():
            self.folder = self._claim()
            os.environ[RUN_VARIABLE] = str(self.folder)  # for the processes that Lightning starts from this one
        config.trainer.default_root_dir = str(self.folder)
        place_loggers(_as_list(config.trainer.logger), self.folder)

    def instantiate_classes(self) -> None:
        """Make data, model and trainer; what a constructor refuses is the user's to mend, in one line."""
        try:
            super().instantiate_classes()
        except Exception as e:
            if (fault := refused(e, self.given)) is None:
                raise
            raise fault from None
        if self.subcommand == "fit" and self.model.teacher is not None:
            self.model.teacher.ready = self._fast
            self.model.teacher.trust = [option.value for option in options_of(self.given) if option.name == TRUST]

    def _fast(self, model: VisionModel) -> VisionModel:
        """Make a model that only predicts as fast as `predict` does, in the precision of the training."""
        fast = str(self.trainer.precision).startswith("bf16")
        return convert(model, precision="bf16" if fast else "32")

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Make the Trainer with visionkit's callbacks beside the user's."""
        self.run = RunFolder(self.folder, config=self.config_text if self.subcommand == "fit" else None)
        settings = self._get(self.config_init, "trainer")
        callbacks = self._callbacks(settings)
        self.stopping = Stopping(next((c for c in callbacks if isinstance(c, BestAndLast)), None))
        if self.subcommand == "fit":
            callbacks.append(self.stopping)
        if sys.stderr.isatty() and settings["enable_progress_bar"] is not False:
            callbacks.append(QuietBar())
        else:
            kwargs["enable_progress_bar"] = False
        kwargs["callbacks"] = [*_as_list(settings["callbacks"]), *callbacks]
        kwargs["plugins"] = [*_as_list(settings["plugins"]), SafeCheckpointIO()]
        kwargs["logger"] = self._loggers(settings["logger"])
        kwargs["enable_model_summary"] = bool(settings["enable_model_summary"])  # the first lines tell enough
        if self.subcommand != "fit":
            kwargs["enable_checkpointing"] = False
        return L.Trainer(**{**settings, **kwargs})

    def _callbacks(self, settings: Any) -> list[L.Callback]:
        callbacks: list[L.Callback] = [self.run, EpochLines(self.run)]
        pictures = self._get(self.config_init, "pictures")
        if self.subcommand == "fit" and pictures not in ("none", None):
            callbacks.append(Pictures(self.folder, draw_sheet, pictures))
        if self.subcommand == "fit" and settings["enable_checkpointing"] is not False:
            callbacks.append(BestAndLast(self.run))
        return callbacks

    # ---- commands

    def fit(self, model: Task, datamodule: VisionDataModule[Any], **kwargs: Any) -> None:
        """Train."""
        with self._ending(datamodule):
            self._announce(model, datamodule)
            tune(self.trainer.strategy.root_device)
            self.trainer.fit(model, datamodule=datamodule, **kwargs)
        self._report_skipped(datamodule)
        if self.trainer.is_global_zero:
            best = self.run.best
            if best:
                say(f"best     epoch {best['epoch']}: {model.monitor} {best[model.monitor]:.4f}")
            if self.run.rows:
                say(f"results  {self.folder}")
                self._guide(model, datamodule)

    @contextmanager
    def _ending(self, datamodule: VisionDataModule[Any]) -> Iterator[None]:
        """Say in words what ends a training too early."""
        try:
            with self.stopping.listening(self.trainer):
                yield
        except Stopped as e:
            raise SystemExit(self._stopped(e)) from None
        except Exception as e:
            if isinstance(e, MisconfigurationException):  # such as fewer epochs than the checkpoint has
                raise UsageError(" ".join(str(e).split())) from e
            if (where := lacks_memory(e)) is not None and any(n > 1 for n in datamodule.batch_sizes().values()):
                halves = {option: max(1, n // 2) for option, n in datamodule.batch_sizes().items()}
                raise DataError(
                    f"not enough memory{where} with {as_options(datamodule.batch_sizes())}: try {as_options(halves)}; "
                    "the same command with --dry-run finds what fits"
                ) from e
            if not self.stopping.number:
                raise
            raise SystemExit(self._stopped(Stopped(self.stopping.number))) from None  # others ended first

    def _guide(self, model: Task, datamodule: VisionDataModule[Any]) -> None:
        """Say in three lines at most what comes next."""
        if self._get(self.config_init, "trainer.enable_checkpointing") is not False:
            folder = shlex.quote(str(self.folder))
            measure = "test" if datamodule.splits.test is not None else "validate"
            predict = f"visionkit predict --ckpt {folder} --out predictions PHOTOS"
            say(f"next     {predict}; visionkit {measure} --ckpt {folder}")
        told = read_curves(self.run.rows, model.monitor, model.monitor_mode, planned=self.trainer.max_epochs)
        say(*(f"note     {line}" for line in told))

    def _stopped(self, e: Stopped) -> int:
        """Say what a signal has ended and how to go on; return the exit status."""
        if not self.trainer.is_global_zero:
            return 0  # Lightning's first process kills all where one of them fails
        end_others(self.trainer)
        name, go_on = signal.Signals(e.number).name, "start again with the same command"
        if e.saved:
            go_on = f"go on with: visionkit fit -c {shlex.quote(str(self.folder / 'config.yaml'))} --ckpt_path last"
        saved = f"saved: {e.saved}" if e.saved else "nothing of this epoch is saved"
        say(f"stopped by {name}; {saved}; {go_on}", error=True)
        return 128 + e.number

    def validate(self, model: Task, datamodule: VisionDataModule[Any], **kwargs: Any) -> None:
        """Measure on the validation data."""
        self._evaluate("val", model, datamodule, **kwargs)

    def test(self, model: Task, datamodule: VisionDataModule[Any], **kwargs: Any) -> None:
        """Measure on the test data."""
        self._evaluate("test", model, datamodule, **kwargs)

    def _evaluate(self, stage: str, model: Task, datamodule: VisionDataModule[Any], **kwargs: Any) -> None:
        self._announce(model, datamodule)
        evaluate = self.trainer.validate if stage == "val" else self.trainer.test
        evaluate(model, datamodule=datamodule, **{**kwargs, "verbose": False})
        self._report_skipped(datamodule)
        if self.trainer.is_global_zero:
            for key, value in self.trainer.callback_metrics.items():
                say(f"{key:<28} {float(value):.4f}")
            if stage == "test":
                say(f"results  {self.run.metrics_file}")

    # ---- decisions

    def _choose_folder(self, config: Namespace) -> Path:
        """Return the run folder: as asked, that of the config, or a numbered one."""
        if int(os.environ.get("LOCAL_RANK", 0)) > 0 and RUN_VARIABLE in os.environ:
            return Path(os.environ[RUN_VARIABLE])
        asked, home = config.trainer.default_root_dir, home_of(self.given)
        resumes = config.get("ckpt_path") is not None or self.subcommand != "fit"
        if home is not None and value_of(self.given, ROOT) is None:  # whatever folder it was written for
            asked = home if resumes else None
        self._kind: str | None = None  # of a numbered folder that is still to be made
        if asked is None:
            if "TORCHELASTIC_RUN_ID" in os.environ:
                raise UsageError("under torchrun all processes need one run folder: set --trainer.default_root_dir")
            kind, checkpoint = _config_name(config), config.get("ckpt_path")
            taken = numbers(RUNS, kind)
            known = [folder for n in taken if not holds_members(folder := RUNS / f"{kind}-{n}")]
            if checkpoint in ("last", "best") and not known:
                raise UsageError(f"--ckpt_path {checkpoint}: there is no run under runs/{kind}-* to continue")
            if checkpoint not in ("last", "best", "auto") or not known:
                self._kind = kind if self.subcommand == "fit" else None
                return RUNS / f"{kind}-{(taken or [0])[-1] + 1}"
            asked = known[-1]
        folder = Path(asked)
        if self.subcommand == "fit" and _is_first() and holds_members(folder):
            raise UsageError(
                f"{folder} holds members: go on with them by --members N --ckpt_path {folder}, with one of them by "
                f"--ckpt_path {folder / MEMBER}1, or choose another --trainer.default_root_dir"
            )
        if self.subcommand == "fit" and not config.get("ckpt_path") and _is_first() and _holds_run(folder):
            raise UsageError(
                f"{folder} already holds a run: choose another --trainer.default_root_dir, "
                "or continue it with --ckpt_path last"
            )
        return folder

    def _claim(self) -> Path:
        """Make the run folder and hold it; a folder that cannot be written is said before any picture is read."""
        if self._kind is not None:
            return self.claim.take_numbered(RUNS, self._kind)
        self.claim.take(self.folder)
        return self.folder

    def _choose_checkpoint(self, config: Namespace) -> None:
        asked = config.get("ckpt_path")
        if not asked and self.subcommand != "fit":
            if home_of(self.given) is None or not (self.folder / FOLDER / BEST).is_file():
                raise UsageError(f"{self.subcommand} needs --ckpt_path FILE (or best, last of the run folder)")
            asked = "best"  # of the run whose config is given
        if asked == "auto" and self.subcommand == "fit":
            asked = "last" if _holds_run(self.folder) else None
            if asked is None and _is_first():
                self._say_beginning()
        if not asked:
            config.ckpt_path = None
            return
        if Path(asked).is_dir():  # a run folder
            name = "last" if self.subcommand == "fit" else "best"
            asked = str(Path(asked) / FOLDER / f"{name}.ckpt")
        path = self.folder / FOLDER / f"{asked}.ckpt"  # last, best, best-TASK
        path = path if path.is_file() or asked in ("last", "best") else Path(asked)
        if not path.is_file():
            there = [name for name in ("last", "best") if (self.folder / FOLDER / f"{name}.ckpt").is_file()]
            hint = f"; there is --ckpt_path {there[0]}" if there else ""
            raise UsageError(f"--ckpt_path {asked}: there is no file {path}{hint}")
        config.ckpt_path = str(path)
        try:
            checkpoint = checkpoints.read(path)
        except DataError as e:
            own = self.subcommand == "fit" and path == self.folder / FOLDER / LAST
            raise (DataError(f"{e}; or {instead_of_last(path)}") if own else e) from None
        if self.subcommand == "fit" and "optimizer_states" not in checkpoint:
            raise UsageError(
                f"--ckpt_path {asked}: {path} holds a model alone, no training to go on with: "
                f"start from its backbone with --model.backbone.weights {path}"
            )
        described = checkpoint[checkpoints.KEY]
        theirs, ours = described["task"] or "", str(config.model.class_path)
        names = [task.rpartition(".")[2] for task in (theirs, ours) if task.startswith("visionkit.")]
        if len(set(names)) == 2:
            raise UsageError(
                f"--ckpt_path {asked}: {path} is a checkpoint of a {names[0]}, the config makes a {names[1]}: name the "
                "config that it was trained with, or none"
            )
        model = described["model"]
        data = config.data.init_args
        if data.get("classes") is None and self.subcommand != "fit":
            data.classes = list(model["classes"])  # one class map: the ids are those that the model was trained with
        for part in filter(names_class, vars(config.model.init_args).values()):
            cls = import_class(part["class_path"])
            if cls is not None and issubclass(cls, Backbone | Neck) and part.get("init_args", {}).get("weights"):
                part["init_args"]["weights"] = None  # the checkpoint brings them

    def _say_beginning(self) -> None:
        say(f"run      {self.folder} holds no checkpoint to go on from: it starts from the beginning")

    def _loggers(self, asked: Any) -> Any:
        if self.subcommand != "fit" or asked is False:
            return False
        if isinstance(asked, Logger | list):
            return asked
        try:
            return TensorBoardLogger(self.folder, name="", version="tensorboard")
        except ModuleNotFoundError:
            return False

    # ---- words

    def _announce(self, model: Task, datamodule: VisionDataModule[Any]) -> None:
        datamodule.setup(str(self.subcommand))  # faulty data ends the run here, before anything is written
        if self.subcommand == "fit" and model.teacher is not None:
            model.teacher.load(model.model, model.recipe)  # as does one that cannot teach
        if not self.trainer.is_global_zero:
            return
        backbone = model.model.backbone
        splits = datamodule.splits
        names = ", ".join(datamodule.classes[:8]) + (", ..." if len(datamodule.classes) > 8 else "")
        millions = sum(p.numel() for p in model.model.parameters()) / 1e6
        source = f"data     {splits.source}; {len(datamodule.classes)} classes: {printable(names)}"
        say(*source.splitlines())
        _report_labels(datamodule)
        say(f"input    {datamodule.preprocessing}")
        say(*(f"auto     {choice}" for choice in self.choices if choice.reason != USUAL))
        say(*(line for note in datamodule.notes() for line in note.splitlines()))
        parts = [backbone.summary(), *(m.summary() for m in (model.model.neck, model.model.head))]
        say(f"model    {' + '.join(p for p in parts if p != IdentityNeck.__name__)}, {millions:.1f} M parameters")
        files = splits.train.files() if self.subcommand == "fit" and splits.train is not None else [None]
        if backbone.weights_report is None and files[0] is not None and self._get(self.config, "ckpt_path") is None:
            say(
                "hint     it starts from random weights: pretrained ones are often worth more than all else "
                "(--model.backbone.weights auto fetches some, once)"
            )
        for report in (backbone.weights_report, model.model.neck.weights_report):
            if report is not None:
                say(*str(report).splitlines())
        if self.subcommand == "fit" and (trained := model.recipe.summary(model.model)):
            say(f"train    {trained}")
        if self.subcommand == "fit" and model.teacher is not None:
            say(*model.teacher.lines())
        device = self.trainer.strategy.root_device
        layout = "channels_last" if device.type in ("cpu", "cuda") else "contiguous"
        world = f", {self.trainer.world_size} processes" if self.trainer.world_size > 1 else ""
        say(f"machine  {describe_processor(device)}: precision {self.trainer.precision}, {layout}{world}")
        if self.subcommand == "fit":
            self._say_folder()
        else:
            say(f"ckpt     {self._get(self.config, 'ckpt_path')}")

    def _say_folder(self) -> None:
        source = self._get(self.config, "ckpt_path")
        run = f"{self.folder}" + (f", from {source}" if source else "")
        say(f"run      {run if self.trainer.max_epochs != 0 else 'none: --trainer.max_epochs is 0'}")

    def _report_skipped(self, datamodule: VisionDataModule[Any]) -> None:
        if datamodule.skipped and self.trainer.is_global_zero:
            say(*datamodule.skipped, error=True)
            say(f"skipped  {len(datamodule.skipped)} pictures that cannot be used (listed above)")


def _report_labels(datamodule: VisionDataModule[Any]) -> None:
    """Name the labels that the readers had to change."""
    splits = datamodule.splits
    problems = [p for d in (splits.train, splits.val, splits.test) if d is not None for p in d.problems]
    say(*shortened(problems, MAX_SHOWN_FAULTS), error=True)
    if problems:
        say(f"labels   {len(problems)} faulty ones were changed as listed above; correct them in their files")


def _holds_run(folder: Path) -> bool:
    return (folder / FOLDER / LAST).is_file()


def _is_first() -> bool:
    """Return whether this process speaks and writes for all of its run."""
    return all(int(os.environ.get(v, 0)) == 0 for v in ("RANK", "LOCAL_RANK"))


def _config_name(config: Namespace) -> str:
    path = str(config.model.class_path)
    for cls in _subclasses(Task):
        if path.rpartition(".")[2] == cls.__name__ and hasattr(cls, "config"):
            return Path(cls.config).stem
    return "run"


def _subclasses(cls: type[Task]) -> list[type[Task]]:
    return [s for direct in cls.__subclasses__() for s in (direct, *_subclasses(direct))]


def _device(accelerator: Any) -> torch.device:
    if accelerator in ("cpu",) or (accelerator == "auto" and not torch.cuda.is_available()):
        mps = accelerator == "auto" and torch.backends.mps.is_available()
        return torch.device("mps" if mps else "cpu")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
