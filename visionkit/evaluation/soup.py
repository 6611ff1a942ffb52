"""The weights of several trainings averaged into one model, where they started from the same network.

Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time", ICML 2022: the greedy recipe.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from visionkit.core.component import Spec, parameters_of
from visionkit.core.errors import DataError
from visionkit.core.text import printable
from visionkit.data.transforms.preprocessing import Preprocessing
from visionkit.models.backbones.base import Backbone
from visionkit.models.head import Head
from visionkit.models.model import VisionModel, teachers_of
from visionkit.models.weights.load import Generation, WeightsReport

__all__ = ["Ingredient", "Soup", "average", "check_alike", "cook", "recompute_statistics"]

FAR = 0.75
"""Of what the worse of two models reaches: their middle reaches less where they do not lie in one valley."""
IN_TRAINING = frozenset({"weights", "partial", "stochastic_depth", "zero_init_last"})
"""What backbones and necks are told that has no part in what they compute once they are trained."""


@dataclass(frozen=True)
class Ingredient:
    """A model that may go into a soup.

    Args:
        name: What messages call it: its checkpoint as it was given.
        sha256: Digest of the model, in hex.
        model: In evaluation mode.
        file_sha256: Of the file, in hex, by which passports of before name it.
    """

    name: str
    sha256: str
    model: VisionModel
    file_sha256: str = ""


@dataclass(frozen=True)
class Soup:
    """What came out.

    Args:
        model: In evaluation mode.
        made_of: The ingredients that were averaged; one where nothing is gained by more.
        value: Of the model.
        best: Of the best ingredient alone.
    """

    model: VisionModel
    made_of: tuple[Ingredient, ...]
    value: float
    best: float


def check_alike(ingredients: Sequence[Ingredient]) -> None:
    """Refuse models that cannot be averaged, as far as their descriptions and passports tell.

    Raises:
        DataError: They differ in network, classes or preprocessing, or their backbones started from different files.
    """
    first = ingredients[0]
    for other in ingredients[1:]:
        ours, theirs = first.model, other.model
        if ours.classes != theirs.classes:
            same = set(ours.classes) == set(theirs.classes)
            what = "have their classes in different orders" if same else "know different classes"
            raise DataError(f"{first.name} and {other.name} {what}: such weights have no average; predict with both")
        mine, yours = ours.spec(), theirs.spec()
        for part in ("backbone", "neck", "head", "preprocessing"):
            differ = _differences(getattr(ours, part), mine[part], getattr(theirs, part), yours[part])
            if differ:
                raise DataError(
                    f"{first.name} and {other.name} differ in their {part} ({differ}): such weights have no average; "
                    "predict with both (visionkit predict --ckpt A B)"
                )
        _refuse_other_start(first, other)


def average(models: Sequence[VisionModel]) -> dict[str, Tensor]:
    """Return the mean of the weights of models, by name; whole numbers are the first one's."""
    states = [model.state_dict() for model in models]
    mean: dict[str, Tensor] = {}
    for name, first in states[0].items():
        if first.is_floating_point():
            mean[name] = torch.stack([state[name].double() for state in states]).mean(0).to(first.dtype)
        else:
            mean[name] = first.clone()
    return mean


@torch.no_grad()
def recompute_statistics(model: VisionModel, batches: Iterable[Tensor], kept: Sequence[str] = ()) -> int:
    """Compute what batch normalisation knows of its maps anew, over training pictures, and return how many they were.

    The mean of averaged networks' statistics is not that of the averaged network's maps.

    Args:
        model: In evaluation mode; it is changed.
        batches: uint8 [B, C, H, W], preprocessed.
        kept: Names of modules whose statistics stay, such as those of a frozen backbone.
    """
    norms = {name: m for name, m in model.named_modules() if isinstance(m, _BatchNorm) and m.track_running_stats}
    found = {name: module for name, module in norms.items() if name not in kept}
    if not found:
        return 0
    count = 0
    with _counting(list(found.values())):
        for images in batches:
            model(images.to(model.scale.device))
            count += len(images)
    return count


def cook(
    ingredients: Sequence[Ingredient],
    measure: Callable[[VisionModel], float],
    batches: Callable[[], Iterable[Tensor]],
    *,
    make: Callable[[], VisionModel],
    tell: Callable[[str], None],
) -> Soup:
    """Average models greedily: the best comes first, each further one stays where the average is not worse with it.

    Args:
        ingredients: Two or more; see :func:`check_alike`.
        measure: How good a model is on validation pictures; higher is better.
        batches: Gives training pictures, uint8 [B, C, H, W], preprocessed, each time from the start.
        make: Makes a model of the same kind, whose weights do not matter.
        tell: Is told in a line each what came out.

    Raises:
        DataError: The middle of two models is far worse than both: they started from different weights.
    """
    values = [measure(one.model) for one in ingredients]
    for one, value in zip(ingredients, values, strict=True):
        tell(f"member   {one.name}: {value:.4f}")
    order = sorted(range(len(values)), key=lambda k: -values[k])  # of equal ones the first
    best = values[order[0]]
    soup = Soup(ingredients[order[0]].model, (ingredients[order[0]],), best, best)
    frozen = _frozen([one.model for one in ingredients])

    def mixed(some: Sequence[Ingredient]) -> VisionModel:
        model = make()
        model.load_state_dict(average([one.model for one in some]))
        recompute_statistics(model.eval(), batches(), frozen)
        model.thresholds = None  # they speak of another model
        return model

    for k in order[1:]:
        one = ingredients[k]
        tried = mixed([*soup.made_of, one])
        value = measure(tried)
        words = " + ".join(each.name for each in (*soup.made_of, one))
        if value >= soup.value:
            tell(f"average  {words}: {value:.4f}, {one.name} stays")
            soup = Soup(tried, (*soup.made_of, one), value, best)
            continue
        tell(f"average  {words}: {value:.4f}, {one.name} is left out")
        first = ingredients[order[0]]
        middle = value if len(soup.made_of) == 1 else measure(mixed([first, one]))
        if middle < FAR * values[k]:
            raise DataError(
                f"{first.name} ({best:.4f}) and {one.name} ({values[k]:.4f}) did not start from the same weights, head "
                f"included: half way between them is {middle:.4f}; train them from one checkpoint, or predict with "
                "both (visionkit predict --ckpt A B)"
            )
    if len(soup.made_of) > 1:
        _pass_on(soup)
    return soup


def _frozen(models: Sequence[VisionModel]) -> list[str]:
    """Return the names of batch normalisations whose statistics are the same in all: they did not move in training."""
    first, *others = [dict(model.named_modules()) for model in models]
    names = [name for name, m in first.items() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    return [
        name
        for name in names
        if all(torch.equal(getattr(first[name], k), getattr(other[name], k)) for other in others for k in _STATISTICS)
    ]


_STATISTICS = ("running_mean", "running_var")


@contextmanager
def _counting(norms: Sequence[_BatchNorm]) -> Any:
    """Let batch normalisations take the plain mean over what they see; those that see nothing stay as they are."""
    before = [(m.momentum, {k: v.clone() for k, v in m.named_buffers(recurse=False)}) for m in norms]
    for module in norms:
        module.reset_running_stats()
        module.momentum = None  # the mean over all batches
        module.train()
    try:
        yield
    finally:
        for module, (momentum, buffers) in zip(norms, before, strict=True):
            module.momentum = momentum
            module.eval()
            seen = module.num_batches_tracked
            if seen is None or not int(seen):
                for name, value in buffers.items():
                    getattr(module, name).copy_(value)


def _pass_on(soup: Soup) -> None:
    """Give the averaged model a passport that says what it is made of, and all that taught its parts."""
    own = soup.made_of[0].model.backbone.weights_report
    parts = [Generation(Path(one.name).name, one.sha256, "visionkit checkpoint", 1.0) for one in soup.made_of]
    older = () if own is None else (Generation(own.source, own.sha256, own.kind, own.coverage), *own.lineage)
    many = len(soup.made_of)
    hashes = "\n".join(one.sha256 for one in soup.made_of)
    report = WeightsReport(
        source=f"average of {', '.join(part.source for part in parts)}",
        sha256=hashlib.sha256(hashes.encode()).hexdigest(),
        kind=f"average of the weights of {many} visionkit checkpoints",
        container="", prefix="", averaged=False, stages=(), adapted=(), missing=(), mismatched=(), unused=(),
        surplus=(), coverage=1.0, required=1.0, statistics=None if own is None else own.statistics,
        lineage=(*parts, *older),
    )  # fmt: skip
    soup.model.backbone.weights_report = report
    soup.model.teachers = teachers_of(one.model for one in soup.made_of)


def _refuse_other_start(first: Ingredient, other: Ingredient) -> None:
    """Refuse two backbones whose passports name files that have nothing in common."""
    one, two = first.model.backbone.weights_report, other.model.backbone.weights_report
    if one is None and two is None:
        return
    ours, theirs = _ancestors(first), _ancestors(other)
    if set(ours) & set(theirs):
        return
    raise DataError(
        f"{first.name} started from {_start(one)}, {other.name} from {_start(two)}: weights of different starts have "
        "no average; predict with both (visionkit predict --ckpt A B)"
    )


def _ancestors(one: Ingredient) -> list[str]:
    report = one.model.backbone.weights_report
    own = [one.sha256, *([one.file_sha256] if one.file_sha256 else [])]
    return own if report is None else [*own, report.sha256, *(g.sha256 for g in report.lineage)]


def _start(report: WeightsReport | None) -> str:
    return "random weights" if report is None else printable(f"{report.source} (sha256 {report.sha256[:12]})")


def _differences(ours: Any, mine: Spec, theirs: Any, yours: Spec) -> str:
    """Return in words where two parts of models are not the same network, or see pictures otherwise; "" where nowhere.

    What a head was told of its loss is no matter, nor is what a backbone does in training alone.
    """
    if type(ours) is not type(theirs):
        return f"{type(ours).__name__} and {type(theirs).__name__}"
    if isinstance(ours, nn.Module):
        shapes = [{k: tuple(t.shape) for k, t in _tensors(part)} for part in (ours, theirs)]
        if shapes[0] != shapes[1]:
            name = next(k for k in [*shapes[0], *shapes[1]] if shapes[0].get(k) != shapes[1].get(k))
            return f"{name} {_shape(shapes[0].get(name))} and {_shape(shapes[1].get(name))}"
    if isinstance(ours, Head):
        return ""
    if isinstance(ours, Preprocessing):
        pairs = {k: (getattr(ours, k), getattr(theirs, k)) for k in parameters_of(Preprocessing)}
    else:
        defaults = {k: p.default for k, p in parameters_of(type(ours)).items() if p.default is not p.empty}
        one, two = (defaults | spec["init_args"] for spec in (mine, yours))
        pairs = {k: (one.get(k), two.get(k)) for k in sorted(one.keys() | two.keys()) if k not in IN_TRAINING}
        if isinstance(ours, Backbone):
            pairs |= {k: (getattr(ours, k), getattr(theirs, k)) for k in ("mean", "std")}
    return "; ".join(f"{k} {a} and {b}" for k, (a, b) in pairs.items() if _plain(a) != _plain(b))


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else "x".join(map(str, shape)) or "one number"


def _tensors(part: nn.Module) -> Iterable[tuple[str, Tensor]]:
    state: Mapping[str, Any] = part.state_dict()
    return ((k, t) for k, t in state.items() if isinstance(t, Tensor))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
