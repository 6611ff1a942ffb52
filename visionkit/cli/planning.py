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
from datetime import timedelta
from pathlib import Path
from typing import Any

from visionkit.cli import clock
from visionkit.cli.config import bounded_yaml
from visionkit.cli.config.auto import CHOSEN, flattened, resolve, values_of
from visionkit.cli.config.classes import Place
from visionkit.cli.config.run_config import NAME
from visionkit.cli.trial import Trial
from visionkit.core.errors import UsageError
from visionkit.core.machine import return_freed_memory, tune
from visionkit.core.text import say
from visionkit.data.caching.images import CacheSettings
from visionkit.training.advice import Choice
from visionkit.training.datamodule import VisionDataModule
from visionkit.training.progressive import cost
from visionkit.training.run.budget import Pace, Plan, plan
from visionkit.training.run.trial import duration
from visionkit.training.task import Task

__all__ = ["planned", "time_limit"]

LIMIT, SIZE = "trainer.max_time", "data.size"
EPOCHS, BATCHES, EVERY = "trainer.max_epochs", "trainer.limit_train_batches", "trainer.check_val_every_n_epoch"
PLANNED = (EPOCHS, BATCHES, EVERY)
"""What a plan says."""
END = 2.0  # seconds, for the pictures of the curves and the last words
SPARE = 0.02  # of the time, for steps that take longer than those of the trial
SOLVING = 2.0  # seconds, of a probe
LEAST_SCALE, MOST_SCALE = 0.6, 1.4  # of the usual size
USED = 0.9  # of the time, below which it is said that a training needs less
CACHED = 0.02  # of the time of a step where the features of a frozen backbone are kept
LONGER = 4  # times the updates that the rules want, beyond which a training gains no more


def planned(arguments: Sequence[str], given: Sequence[str]) -> tuple[list[str], list[Choice]]:
    """Return the arguments of ``fit`` with a plan in place of a time limit, and what was chosen.

    A run that goes on keeps the plan that its config.yaml holds.

    Args:
        arguments: The command line after the command; configs by path or by their text.
        given: The whole as a person wrote it, for messages.

    Raises:
        UsageError: The time does not suffice.
    """
    argv, choices = resolve("fit", arguments)
    limit = time_limit(values_of(arguments).get(tuple(LIMIT.split("."))))
    if limit is None:
        return argv, choices
    if int(os.environ.get("LOCAL_RANK", 0)) > 0 and CHOSEN in os.environ:  # the first process has planned
        return _with_plan(arguments, {c.key: c.value for c in choices if c.key in PLANNED}, known=choices)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise UsageError("under torchrun no process can plan for all: set --trainer.max_epochs in place of a time")
    asked = None if EPOCHS in _keys(choices) else values_of(argv).get(tuple(EPOCHS.split(".")))
    epochs = asked if isinstance(asked, int) and asked > 0 else None
    scale = 1.0
    try:
        tried = _tried(argv, given, choices)
        wanted = next((c.value for c in choices if c.key == EPOCHS), None)
        if SIZE in _keys(choices) and wanted is not None:
            scale = _scale(plan(_left(limit), tried.pace, tried.batches), wanted * tried.batches)
            argv, others = resolve("fit", arguments, scale=scale)
            if others != choices:
                choices, tried = others, _tried(argv, given, others)
    except _GoesOn as e:
        before = [replace(c, value=e.config[place]) for c in choices if (place := tuple(c.key.split("."))) in e.config]
        return _with_plan(arguments, {key: e.config[tuple(key.split("."))] for key in PLANNED}, known=before)
    left = _left(limit)
    made = plan(left, tried.pace, tried.batches, epochs=epochs, most=None if wanted is None else LONGER * wanted)
    argv, choices = _with_plan(arguments, {EPOCHS: made.epochs, BATCHES: made.batches, EVERY: made.every}, scale=scale)
    choices += _said(made, tried, limit, fixed=epochs is not None)
    os.environ[CHOSEN] = json.dumps([vars(choice) for choice in choices])
    if made.seconds < USED * left:
        say(f"note     about {duration(limit - left + made.seconds)} of {duration(limit)} are of use")
    return argv, choices


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


def _tried(argv: Sequence[str], given: Sequence[str], choices: Sequence[Choice]) -> _Tried:
    """Try a training, of which nothing is kept."""
    with tempfile.TemporaryDirectory(prefix="visionkit-") as folder:
        tried = Timing(["fit", *argv], list(given), folder=Path(folder), choices=choices).tried
    gc.collect()
    return_freed_memory()
    return tried


def time_limit(value: Any) -> float | None:
    """Return the seconds of a ``trainer.max_time``: DD:HH:MM:SS or a mapping of days, hours, minutes, seconds.

    Args:
        value: As it was given; None, and what is no time, which the parser says, gives None.
    """
    if isinstance(value, str) and value.count(":") == 3:
        parts = value.split(":")
        if all(part.strip().isdecimal() for part in parts):
            return float(sum(int(p) * n for p, n in zip(parts, (86400, 3600, 60, 1), strict=True)))
    if isinstance(value, Mapping):
        try:
            return timedelta(**value).total_seconds()
        except (TypeError, OverflowError):
            return None
    return None


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
    """Takes the time of a few steps, and says nothing."""

    again = True

    def before_instantiate_classes(self) -> None:
        """Go no further where a training goes on as it was planned."""
        self.begin = time.perf_counter()
        super().before_instantiate_classes()

    def _cut_short(self, config: Any) -> None:
        if config.ckpt_path is not None:
            raise _GoesOn(_config_of(config.ckpt_path))
        super()._cut_short(config)
        config.trainer.max_epochs = max(config.trainer.max_epochs, 2)  # the second one where data are few

    def fit(self, model: Task, datamodule: VisionDataModule[Any], **kwargs: Any) -> None:
        """Train for some steps."""
        cached, probes = model.backbone_stays and model.recipe.cache_features is not False, model.recipe.probe
        small = model.recipe.progressive
        model.recipe = replace(model.recipe, cache_features=False, probe=False, progressive=None)
        datamodule.cache = CacheSettings()
        with self._ending(datamodule):
            datamodule.setup("fit")
            tune(self.trainer.strategy.root_device)
            self.trainer.fit(model, datamodule=datamodule)
        step, forward = self.watch.seconds("train"), self.watch.seconds("val")
        assert self.watch.ready is not None  # a step was made
        once = self.watch.ready - self.begin - step + END
        train, val = self.batches("train"), self.batches("val")
        validation = val * forward
        if probes:
            once += train * forward + validation + SOLVING
        if cached:  # features are computed once, a step is that of the head alone
            once += train * forward + validation
            step, validation = CACHED * step, CACHED * validation
        if small is not None:
            step *= cost(datamodule.preprocessing.size, small)
        self.tried = _Tried(Pace(step, validation, self.saving.seconds, once), train)


class _GoesOn(Exception):  # noqa: N818  # no error
    """A training goes on that was planned before.

    Args:
        config: The keys of its config.
    """

    def __init__(self, config: dict[Place, Any]) -> None:
        super().__init__()
        self.config = config


def _config_of(checkpoint: str) -> dict[Place, Any]:
    """Return the keys of the config of a checkpoint's run."""
    config = Path(os.path.abspath(checkpoint)).parent.parent / NAME
    if not config.is_file():
        raise UsageError(f"--minutes: {checkpoint} has no {config} beside it that says how its training was planned")
    return {
        **dict.fromkeys(tuple(key.split(".")) for key in PLANNED),
        **dict(flattened(bounded_yaml.load_file(config))),
    }


def _with_plan(
    arguments: Sequence[str], found: Mapping[str, Any], *, scale: float = 1.0, known: Sequence[Choice] | None = None
) -> tuple[list[str], list[Choice]]:
    """Return the arguments with a plan in place of the time limit, and what is chosen for it."""
    further = [f"--{key}={json.dumps(value)}" for key, value in found.items()]
    return resolve("fit", [*arguments, *further, f"--{LIMIT}=null"], scale=scale, known=known)


def _said(made: Plan, tried: _Tried, limit: float, *, fixed: bool) -> list[Choice]:
    pace = tried.pace
    choices = []
    if not fixed:
        why = f"what {duration(limit)} hold: a step {duration(pace.step)}, a validation {duration(pace.validation)}"
        choices.append(Choice(EPOCHS, made.epochs, f"{why}, all else {duration(pace.once)}"))
    if made.batches < tried.batches:
        choices.append(Choice(BATCHES, made.batches, f"of {tried.batches} an epoch, so that the last one ends in time"))
    if made.every > 1:
        choices.append(Choice(EVERY, made.every, f"a validation takes {duration(pace.validation)}"))
    return choices
