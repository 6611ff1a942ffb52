"""fit --minutes: a training that is planned to end in time, by a trial of its steps."""

from __future__ import annotations

import gc
import json
import math
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from visionkit.cli import clock
from visionkit.cli.config import bounded_yaml
from visionkit.cli.config.auto import flattened, last_value, processes_of, resolve, values_of
from visionkit.cli.config.classes import Place
from visionkit.cli.config.run_config import NAME
from visionkit.cli.trial import Trial
from visionkit.core.errors import UsageError
from visionkit.core.files import read_text
from visionkit.core.machine import return_freed_memory, tune
from visionkit.core.text import say
from visionkit.data.caching.images import CacheSettings
from visionkit.training.advice import AUTO, Choice
from visionkit.training.datamodule import VisionDataModule
from visionkit.training.progressive import cost
from visionkit.training.run.budget import Pace, Plan, plan, time_limit
from visionkit.training.run.trial import STEPS, Stopwatch, duration
from visionkit.training.task import Task

__all__ = ["planned"]

LIMIT, SIZE = "trainer.max_time", "data.size"
EPOCHS, BATCHES, EVERY = "trainer.max_epochs", "trainer.limit_train_batches", "trainer.check_val_every_n_epoch"
PLANNED = (EPOCHS, BATCHES, EVERY)
"""What a plan says."""
REFUSED = ("trainer.max_steps", "trainer.val_check_interval")
"""What would change it."""
PLAN = "VISIONKIT_PLAN"
"""Tells the processes that Lightning starts what the first one has planned."""
END = 2.0  # seconds, for the pictures of the curves and the last words
SPARE = 0.03  # of the time, for steps that take longer than those of the trial
SOLVING = 2.0  # seconds, of a probe
LEAST_SCALE, MOST_SCALE = 0.6, 1.4  # of the usual size
USED = 0.9  # of the time, below which it is said that a training needs less
LONGER = 4  # times the updates that the rules want, beyond which a training gains no more


def planned(arguments: Sequence[str], given: Sequence[str]) -> tuple[list[str], list[Choice]]:
    """Return the arguments of ``fit`` with a plan in place of a time limit, and what was chosen.

    A run that goes on keeps the plan that its config.yaml holds.

    Args:
        arguments: The command line after the command; configs by path or by their text.
        given: The whole as a person wrote it, for messages.

    Raises:
        UsageError: The time does not suffice, or no plan can be made for this training.
    """
    limit = time_limit(last_value(arguments, LIMIT))
    if limit is None:
        return resolve("fit", arguments)
    if int(os.environ.get("LOCAL_RANK", 0)) > 0 and PLAN in os.environ:  # the first process has planned
        told = json.loads(os.environ[PLAN])
        return _with_plan(arguments, told["found"], known=[Choice(**c) for c in told["choices"]])
    start = clock.elapsed()
    argv, choices = resolve("fit", arguments)
    reading = clock.elapsed() - start  # once more, when all is chosen
    asked = {key: last_value(argv, key) for key in (*PLANNED, *REFUSED, "trainer.num_nodes", "ckpt_path")}
    _refuse(asked)
    epochs = asked[EPOCHS] if EPOCHS not in _keys(choices) else None
    scale, processes = 1.0, processes_of(values_of(argv))
    try:
        tried = _tried(argv, given, choices, processes)
        wanted = next((c.value for c in choices if c.key == EPOCHS), None)
        if SIZE in _keys(choices) and wanted is not None:
            scale = _scale(plan(_left(limit) - reading, tried.pace, tried.batches), wanted * tried.batches)
            argv, others = resolve("fit", arguments, scale=scale)
            if others != choices:
                choices, tried = others, _tried(argv, given, others, processes)
    except _GoesOn as e:
        return _as_before(arguments, choices, e)
    fixed = epochs if isinstance(epochs, int) and epochs > 0 else None
    while True:
        left = _left(limit) - reading
        made = plan(left, tried.pace, tried.batches, epochs=fixed, most=None if wanted is None else LONGER * wanted)
        found = {EPOCHS: made.epochs, BATCHES: made.batches, EVERY: made.every}
        argv, others = _with_plan(arguments, found, scale=scale)
        if not _stronger(others, choices):
            break
        choices, tried = others, _tried(argv, given, others, processes)
    choices = others
    choices += _said(made, tried, limit, fixed=fixed is not None)
    _tell(found, choices)
    if made.seconds < USED * left:
        say(f"note     about {duration(limit - left + made.seconds)} of {duration(limit)} are of use")
    return argv, choices


def _refuse(asked: Mapping[str, Any]) -> None:
    """Refuse what a plan does not know.

    Raises:
        UsageError: Naming it.
    """
    alone = "set --trainer.max_epochs in place of a time"
    if "TORCHELASTIC_RUN_ID" in os.environ or int(os.environ.get("SLURM_NTASKS") or 1) > 1:
        raise UsageError(f"--minutes: processes that others start cannot plan for one another: {alone}")
    if asked["trainer.num_nodes"] not in (None, 1):
        raise UsageError(f"--minutes: several machines cannot plan for one another: {alone}")
    for key in REFUSED:
        if asked[key] not in (None, -1):
            raise UsageError(f"--minutes plans steps and validations itself: leave out --{key} {asked[key]}")
    if asked["ckpt_path"] is not None:
        return  # what goes on was planned
    if asked[EVERY] not in (None, 1):
        raise UsageError(f"--minutes plans steps and validations itself: leave out --{EVERY} {asked[EVERY]}")
    for key in (BATCHES, EPOCHS):
        if asked[key] == 0 and asked[key] is not False:
            raise UsageError(f"--minutes: --{key} 0 leaves nothing to train")


def _as_before(arguments: Sequence[str], choices: Sequence[Choice], on: _GoesOn) -> tuple[list[str], list[Choice]]:
    """Return the arguments with what the config of a run says where nothing else is given."""
    say(f"plan     that of {on.file}: a run goes on as it was planned")
    why = "as the run began"
    config, own = on.config, values_of(arguments)
    before = [Choice(c.key, config[place], why) for c in choices if (place := tuple(c.key.split("."))) in config]
    left = [key for key in PLANNED if own.get(tuple(key.split("."))) in (None, AUTO)]
    found = {key: config.get(tuple(key.split("."))) for key in left}
    _tell(found, before)
    argv, kept = _with_plan(arguments, found, known=before)
    return argv, [*kept, Choice(LIMIT, None, why)]


def _tell(found: Mapping[str, Any], choices: Sequence[Choice]) -> None:
    """Tell the processes that Lightning will start."""
    os.environ[PLAN] = json.dumps({"found": dict(found), "choices": [vars(choice) for choice in choices]})


def _stronger(choices: Sequence[Choice], tried: Sequence[Choice]) -> bool:
    """Return whether pictures are changed more often than in the trial, which takes time."""
    before = {choice.key: choice.value for choice in tried}
    shares = [c for c in choices if c.key.startswith(("data.augment.", "data.mosaic")) and c.key in before]
    return any(c.value > before[c.key] for c in shares)


def _left(limit: float) -> float:
    return limit * (1 - SPARE) - clock.elapsed()


def _keys(choices: Sequence[Choice]) -> set[str]:
    return {choice.key for choice in choices}


def _scale(made: Plan, wanted: int) -> float:
    """Return what a time makes of the usual size: that at which it holds as many updates as are wanted.

    Args:
        made: The plan at the usual size.
        wanted: Updates of a training that knows no limit.
    """
    return min(max(math.sqrt(made.epochs * made.batches / wanted), LEAST_SCALE), MOST_SCALE)


def _tried(argv: Sequence[str], given: Sequence[str], choices: Sequence[Choice], processes: int) -> _Tried:
    """Try a training, of which nothing is kept, on one of the devices.

    Raises:
        UsageError: The data do not say how long they are.
    """
    with tempfile.TemporaryDirectory(prefix="visionkit-") as folder:
        tried = Timing(["fit", *argv], list(given), folder=Path(folder), choices=choices, processes=processes).tried
    gc.collect()
    return_freed_memory()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if not tried.batches:
        raise UsageError("--minutes: the data do not say how many batches an epoch has: set --trainer.max_epochs")
    return tried


@dataclass(frozen=True)
class _Tried:
    """What a trial has found.

    Args:
        pace: How long the parts take.
        batches: Training batches an epoch.
    """

    pace: Pace
    batches: int


class Timing(Trial):
    """Takes the time of a few steps, silently.

    Args:
        argv: As of a trial.
        given: As of a trial.
        folder: As of a trial.
        choices: As of a trial.
        processes: Those that are to train together; the trial is one.
    """

    least = 5.0

    def __init__(
        self, argv: list[str], given: list[str], *, folder: Path, choices: Sequence[Choice], processes: int
    ) -> None:
        self.begin, self.processes = time.perf_counter(), processes
        super().__init__(argv, given, folder=folder, choices=choices)

    def _cut_short(self, config: Any) -> None:
        if config.ckpt_path is not None:
            raise _GoesOn(config.ckpt_path)
        super()._cut_short(config)
        config.trainer.max_epochs = Stopwatch.MOST
        config.trainer.enable_progress_bar = False

    def _say_beginning(self) -> None:
        """Leave it to the training."""

    def fit(self, model: Task, datamodule: VisionDataModule[Any], **kwargs: Any) -> None:
        """Train for some steps, with pictures of the whole size and all that is ever trained."""
        recipe = model.recipe
        model.recipe = replace(recipe, cache_features=False, probe=False, progressive=None)
        if recipe.thaw:
            model.recipe = replace(model.recipe, freeze=None, thaw=None)
        datamodule.cache = CacheSettings()
        with self._ending(datamodule):
            datamodule.setup("fit")
            if self.trainer.limit_train_batches == STEPS:  # more than are read beforehand
                limit = self.limits["train"]
                self.trainer.limit_train_batches = min(
                    limit if isinstance(limit, int) else 10**9, STEPS + 2 * datamodule.num_workers
                )
            tune(self.trainer.strategy.root_device)
            self.trainer.fit(model, datamodule=datamodule)
        step, forward = self.watch.steady(), self.watch.seconds("val")
        train, val = (self.batches(stage, self.processes) for stage in ("train", "val"))
        shared = self.processes if self.trainer.strategy.root_device.type == "cpu" else 1  # they share its cores
        step, forward = shared * step, shared * forward
        once = END if self.watch.ready is None else self.watch.ready - self.begin - step + END
        validation = shared * self.watch.validation(val)
        if recipe.probe:
            once += train * forward + validation + SOLVING
        if recipe.progressive is not None:
            step *= cost(datamodule.preprocessing.size, recipe.progressive)
        self.tried = _Tried(Pace(step, validation, self.saving.seconds, once), train)


class _GoesOn(Exception):  # noqa: N818  # no error
    """A training goes on that was planned before.

    Args:
        checkpoint: From where.

    Raises:
        UsageError: No config lies beside it.
    """

    def __init__(self, checkpoint: str) -> None:
        super().__init__()
        self.file = Path(os.path.relpath(Path(os.path.abspath(checkpoint)).parent.parent / NAME))
        if not self.file.is_file():
            raise UsageError(f"--minutes: {checkpoint} has no {self.file} that says how its training was planned")
        if f"#   {LIMIT} null: " not in read_text(self.file):
            raise UsageError(
                f"--minutes: the run of {self.file} was not planned for a time: go on without, or begin another one"
            )
        self.config: dict[Place, Any] = dict(flattened(bounded_yaml.load_file(self.file)))


def _with_plan(
    arguments: Sequence[str], found: Mapping[str, Any], *, scale: float = 1.0, known: Sequence[Choice] | None = None
) -> tuple[list[str], list[Choice]]:
    """Return the arguments with a plan in place of the time limit, and what is chosen for it."""
    further = [f"--{key}={json.dumps(value)}" for key, value in found.items()]
    return resolve("fit", [*arguments, *further, f"--{LIMIT}=null"], scale=scale, known=known)


def _said(made: Plan, tried: _Tried, limit: float, *, fixed: bool) -> list[Choice]:
    pace = tried.pace
    choices = [Choice(LIMIT, None, f"{duration(limit)} are planned for")]
    if not fixed:
        why = f"what {duration(limit)} hold: a step {duration(pace.step)}, a validation {duration(pace.validation)}"
        choices.append(Choice(EPOCHS, made.epochs, f"{why}, all else {duration(pace.once)}"))
    if made.batches < tried.batches:
        choices.append(Choice(BATCHES, made.batches, f"of {tried.batches} an epoch, so that the last one ends in time"))
    if made.every > 1:
        choices.append(Choice(EVERY, made.every, f"a validation takes {duration(pace.validation)}"))
    return choices
