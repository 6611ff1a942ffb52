"""Advice: what a user leaves to ``auto``, chosen from the data by stated rules, each value with its reason."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from visionkit.data.dataset import VisionDataset
from visionkit.data.labels.checks import header_size

__all__ = [
    "AUTO",
    "MOST_EPOCHS",
    "USUAL",
    "Advice",
    "Choice",
    "Updates",
    "advise_recipe",
    "directed",
    "image_sizes",
    "settle_batch",
    "settle_flip",
    "settle_strength",
    "spread",
    "steps_an_epoch",
]

AUTO = "auto"
"""The word that leaves a value to these rules."""
USUAL = "usual"
"""The reason of what is as always: it is written down, but not worth a line on the terminal."""
LOOKED_AT = 2000
"""Images that are looked at, at most: spread evenly over the data set."""
FEWEST_EPOCHS, MOST_EPOCHS = 5, 300
EMA_SHARE = 0.1  # of the updates: the time constant of the average
WARMUP_SHARE = 0.05  # of the updates
LONG = 30  # epochs, from which on images are changed strongly
FEWEST_AVERAGED = 10  # updates
RATE = 1e-3  # of AdamW
DIRECTED = {
    *("left", "right", "clockwise", "arrow", "arrows"),
    *("digit", "digits", "letter", "letters", "text", "character"),
}
"""Words of class names that say that an image must not be mirrored."""


@dataclass(frozen=True)
class Choice:
    """A value and why it was taken.

    Args:
        key: Where it stands in a config, such as ``data.size``.
        value: What was chosen, as YAML can hold it.
        reason: Why, in a few words.
    """

    key: str
    value: Any
    reason: str

    def __str__(self) -> str:
        """Return key, value and reason."""
        value = "null" if self.value is None else f"{self.value:g}" if isinstance(self.value, float) else self.value
        return f"{self.key} {value}: {self.reason}"


class Advice:
    """Settles the keys of a config that are ``auto``, and knows the values of the others.

    Args:
        settings: Value of each key that is given, by its dotted name without ``init_args``.
        gpu: Whether a GPU trains.
        processes: Processes that train together; each takes a batch.
        scale: What the time that there is makes of the usual size of images, > 0; 1 without a limit.
    """

    def __init__(
        self, settings: Mapping[str, Any], *, gpu: bool = False, processes: int = 1, scale: float = 1.0
    ) -> None:
        self.settings = dict(settings)
        self.gpu = gpu
        self.processes = processes
        self.scale = scale
        self.choices: dict[str, Choice] = {}

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key: as given, or as chosen by now; the default where it is neither."""
        if key in self.choices:
            return self.choices[key].value
        value = self.settings.get(key, default)
        return default if value == AUTO else value

    def settle(self, key: str, choose: Callable[[], tuple[Any, str]]) -> Any:
        """Return the value of a key, which is chosen where it is ``auto``.

        Args:
            key: Its dotted name.
            choose: Returns a value and its reason; called only where it is needed.
        """
        if self.settings.get(key) == AUTO and key not in self.choices:
            self.choices[key] = Choice(key, *choose())
        return self.get(key)

    @property
    def pretrained(self) -> bool:
        """Whether the backbone starts from weights."""
        return bool(self.settings.get("model.backbone.weights"))


@dataclass(frozen=True)
class Updates:
    """Optimizer steps of a whole training.

    Args:
        random: From random weights, on a CPU.
        pretrained: From pretrained weights, on a CPU.
        gpu: On a GPU.
        drawn: Of drawn shapes.
    """

    random: int
    pretrained: int
    gpu: int
    drawn: int

    def wanted(self, advice: Advice, *, drawn: bool) -> int:
        """Return those of a training."""
        if drawn:
            return self.drawn
        return self.gpu if advice.gpu else self.pretrained if advice.pretrained else self.random


def spread(count: int, most: int = LOOKED_AT) -> Sequence[int]:
    """Return the positions of entries that stand for all: at most so many, spread evenly."""
    return range(count) if count <= most else [k * count // most for k in range(most)]


def image_sizes(data: VisionDataset[Any]) -> list[tuple[int, int]]:
    """Return height and width of the images, as the heads of their files say; at most ``LOOKED_AT``."""
    files = data.files()
    chosen = list(spread(len(files)))
    drawn = [k for k in chosen if files[k] is None]
    paths = [f for k in chosen if (f := files[k]) is not None]
    with ThreadPoolExecutor(4) as pool:
        found = [size for size in pool.map(header_size, paths) if size is not None]
    for k in drawn[:50]:
        _, height, width = data[k].image.shape
        found.append((height, width))
    return found


def directed(classes: Collection[str]) -> str | None:
    """Return a class name that says that left and right differ (left, arrow, digits, single letters), or None."""
    for name in classes:
        words = re.findall(r"[a-z]+", name.lower())
        if DIRECTED & set(words) or re.fullmatch(r"\s*[0-9A-Za-z]\s*", name):
            return name
    return None


def settle_flip(advice: Advice, classes: Collection[str], key: str = "data") -> None:
    """Leave out the mirror where class names say that left and right differ."""

    def choose() -> tuple[float, str]:
        if (name := directed(classes)) is not None:
            return 0.0, f'left and right differ, as the class "{name}" says'
        return 0.5, "no class name says that left and right differ"

    advice.settle(f"{key}.augment.HorizontalFlip.p", choose)


def settle_strength(advice: Advice, usual: Mapping[str, float]) -> None:
    """Choose how often training images are changed beyond crops and mirrors: never in a short training.

    From random weights a few epochs learn more from images as they are; strong changes pay in long trainings.

    Args:
        advice: What is chosen; the epochs are, by now.
        usual: Key -> share of the images.
    """
    epochs = advice.get("trainer.max_epochs")
    short = not advice.pretrained and isinstance(epochs, int) and 0 < epochs < LONG

    for key, share in usual.items():
        why = f"{epochs} epochs from random weights learn more from images as they are" if short else USUAL
        advice.settle(key, lambda share=share, why=why: (0.0 if short else share, why))  # type: ignore[misc]


def settle_batch(advice: Advice, images: int, *, usual: int, gpu: int, key: str = "data.batch_size") -> int:
    """Choose images a batch: as many as are usual, fewer where an epoch would have less than four steps.

    Args:
        advice: What is chosen.
        images: Training images.
        usual: Images a batch on a CPU.
        gpu: Images a batch on a GPU.
        key: Of the batch size.
    """

    def choose() -> tuple[int, str]:
        most = gpu if advice.gpu else usual
        size = most
        while size > 4 and images < 4 * size * advice.processes:
            size //= 2
        if size < most:
            return size, f"{images} images make {steps_an_epoch(images, size, advice.processes)} steps an epoch"
        return size, "usual on a GPU" if advice.gpu else "usual on a CPU"

    found = advice.settle(key, choose)
    return found if isinstance(found, int) and found > 0 else usual


def advise_recipe(
    advice: Advice,
    steps: int,
    *,
    updates: Updates,
    drawn: bool,
    batch: float = 1.0,
    usual: float = 1.0,
    most_epochs: int = MOST_EPOCHS,
) -> None:
    """Choose epochs, learning rate, averaging and warm-up from the number of updates.

    Args:
        advice: What is chosen.
        steps: Updates an epoch, >= 1.
        updates: What this task wants.
        drawn: Whether the images are drawn shapes.
        batch: Images a batch and process; the learning rate goes with its root (Malladi et al., "On the SDEs and
            Scaling Rules for Adaptive Gradient Algorithms", NeurIPS 2022).
        usual: The batch that ``RATE`` is for.
        most_epochs: Bound of the epochs.
    """
    limit = advice.get("trainer.limit_train_batches")
    if isinstance(limit, int | float) and limit > 0:
        steps = max(1, min(steps, limit) if isinstance(limit, int) else int(steps * limit))
    wanted_updates = updates.wanted(advice, drawn=drawn)
    start = "from pretrained weights" if advice.pretrained else "from random weights"

    def epochs() -> tuple[int, str]:
        wanted = round(wanted_updates / steps)
        number = min(max(wanted, FEWEST_EPOCHS), most_epochs)
        bound = ", no fewer" if number > wanted else ", no more" if number < wanted else ""
        return number, f"{number * steps:,} updates of {steps} an epoch, {start}{bound}"

    def rate_of_batch() -> tuple[float, str]:
        together = batch * advice.processes
        if together == usual:
            return RATE, "usual for this optimizer"
        return float(f"{RATE * math.sqrt(together / usual):.2g}"), f"{RATE:g} for {usual:g} images a batch, by the root"

    number = advice.settle("trainer.max_epochs", epochs)
    total = steps * number if isinstance(number, int) and number > 0 else wanted_updates
    advice.settle("model.recipe.optimizer.lr", rate_of_batch)

    def ema() -> tuple[float | None, str]:
        constant = EMA_SHARE * total
        if constant < FEWEST_AVERAGED:
            return None, f"{total} updates are too few to average"
        return round(1 - 1 / constant, 5), f"averages over {constant:.0f} of {total:,} updates"

    advice.settle("model.recipe.ema", ema)
    advice.settle(
        "model.recipe.warmup_epochs",
        lambda: (round(WARMUP_SHARE * total / steps, 2), f"{WARMUP_SHARE:.0%} of the updates"),
    )


def steps_an_epoch(images: int, batch: int, processes: int) -> int:
    """Return the updates of an epoch, at least 1; the last images that make no whole batch wait for another epoch."""
    return max(1, images // (batch * processes))
