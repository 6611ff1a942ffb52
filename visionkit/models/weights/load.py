"""Pretrained weights: any common file in, and a passport of what was loaded out."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from visionkit.core.errors import DataError
from visionkit.core.text import printable
from visionkit.models.torch_file import NO_WEIGHTS, NOT_FINITE, no_weights, not_finite
from visionkit.models.weights.file import COUNTER, WeightsFile, is_hub_name, read_weights
from visionkit.models.weights.match import Fit, fit, nearest, top_level

__all__ = ["Generation", "StageCount", "Statistics", "WeightsReport", "lineage_of", "load_weights"]


@dataclass(frozen=True)
class StageCount:
    """How many tensors of one stage were loaded.

    Args:
        name: Name of the stage.
        loaded: Tensors copied as they are.
        adapted: Tensors copied after a change of shape.
        missing: Tensors for which the file has nothing that fits.
    """

    name: str
    loaded: int
    adapted: int
    missing: int


@dataclass(frozen=True)
class Statistics:
    """The pixel statistics of a backbone, and where they come from.

    Args:
        mean: Mean of each channel in force, 0 to 1.
        std: Standard deviation of each channel in force, 0 to 1.
        mean_from: Whether the mean was taken from the file, given by the user, or assumed.
        std_from: Likewise for the standard deviation.
        file_mean: What the file says, or None where it says nothing.
        file_std: What the file says, or None where it says nothing.
        says: Where the file says it, or whose statistics are assumed, in words.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    mean_from: Literal["file", "given", "assumed"]
    std_from: Literal["file", "given", "assumed"]
    file_mean: tuple[float, ...] | None
    file_std: tuple[float, ...] | None
    says: str

    def __str__(self) -> str:
        """Return them in a line."""
        mean, std = self._origin("mean"), self._origin("std")
        if mean == std:
            line = f"mean {_numbers(self.mean)}, std {_numbers(self.std)}: {mean}"
        else:
            line = f"mean {_numbers(self.mean)}: {mean}; std {_numbers(self.std)}: {std}"
        differs = [
            f"{key} {_numbers(theirs)}"
            for key, theirs, ours in (("mean", self.file_mean, self.mean), ("std", self.file_std, self.std))
            if theirs is not None and getattr(self, f"{key}_from") == "given" and theirs != ours
        ]
        return line + (f"; {self.says} says {', '.join(differs)}" if differs else "")

    def _origin(self, key: str) -> str:
        origin = getattr(self, f"{key}_from")
        if origin == "file":
            return f"from {self.says}"
        return "as given" if origin == "given" else f"not in the file, {self.says} assumed"


@dataclass(frozen=True)
class Generation:
    """One step of where weights come from: a file that others were started from.

    Args:
        source: The file or hub name, as it was given.
        sha256: Hash of the file, in hex; of a visionkit checkpoint the digest of its model.
        kind: What the file is, in words.
        coverage: Fraction of the backbone's tensors, 0 to 1, that it gave.
    """

    source: str
    sha256: str
    kind: str
    coverage: float


@dataclass(frozen=True)
class WeightsReport:
    """The passport of a backbone's weights: which file they come from, and what of it went where.

    Args:
        source: The file or hub name, as it was given.
        sha256: Hash of the file, in hex; of a visionkit checkpoint the digest of its model.
        kind: What the file is, in words, such as ``visionkit checkpoint of a Classifier, 10 classes``.
        container: Where in the file the tensors lie, such as ``state_dict``; "" for the file itself.
        prefix: What the file's tensor names have before the module's.
        averaged: Whether they are averages over the training (EMA).
        stages: Counts for each stage, in order.
        adapted: For each tensor that was changed, its name and the rule.
        missing: The module's tensors that the file lacks.
        mismatched: The module's tensors that have another shape in the file, with both shapes.
        unused: The file's tensors that were not used.
        surplus: Those of ``unused`` that belong to parts of the stages which this module lacks.
        coverage: Fraction of the module's tensors, 0 to 1, that were loaded or adapted (BatchNorm's counters apart).
        required: The fraction, 0 to 1, that was asked for.
        statistics: The pixel statistics and where they come from; None for a module that is no backbone.
        lineage: What the source itself was started from, newest first.
    """

    source: str
    sha256: str
    kind: str
    container: str
    prefix: str
    averaged: bool
    stages: tuple[StageCount, ...]
    adapted: tuple[str, ...]
    missing: tuple[str, ...]
    mismatched: tuple[str, ...]
    unused: tuple[str, ...]
    surplus: tuple[str, ...]
    coverage: float
    required: float
    statistics: Statistics | None = None
    lineage: tuple[Generation, ...] = ()

    @property
    def verdict(self) -> str:
        """Whether the file covers the module, in words."""
        if self.coverage < self.required:
            return f"less than the {self.required:.0%} asked for; went on with what fits (partial)"
        if self.surplus:
            return f"{len(self.surplus)} of the file's tensors have no place here; went on with what fits (partial)"
        if self.mismatched:
            return f"{len(self.mismatched)} tensors have another shape in the file; went on with what fits (partial)"
        return "complete" if self.coverage == 1 else f"enough, {self.required:.0%} are asked for"

    def __str__(self) -> str:
        """Return a table of the stages and a summary."""
        width = max([len("stage"), *(len(s.name) for s in self.stages)])
        rows = [f"{s.name:<{width}}  {s.loaded:>6}  {s.adapted:>7}  {s.missing:>7}" for s in self.stages]
        lines = [f"weights {self.source}: {self.coverage:.1%} of the tensors loaded"]
        if self.prefix:
            lines[0] += f" (under {self.prefix!r})"
        if rows:  # an average of checkpoints has none
            lines += [f"{'stage':<{width}}  {'loaded':>6}  {'adapted':>7}  {'missing':>7}", *rows]
        lines += [f"adapted: {line}" for line in self.adapted]
        for title in ("missing", "mismatched"):
            if names := getattr(self, title):
                more = f", ... {len(names)} in all" if len(names) > 3 else ""
                lines.append(f"{title}: {', '.join(names[:3])}{more}")
        if self.unused:
            lines.append(
                f"left over: {', '.join(f'{k} ({n})' for k, n in top_level(self.unused, self.prefix).items())}"
            )
        lines.append(f"verdict: {self.verdict}")
        place = f" of {self.container}" if self.container else ""
        averaged = f"; averaged weights (EMA){place}" if self.averaged else ""
        lines.append(f"passport: {self.kind}, sha256 {self.sha256[:12]}{averaged}")
        if self.statistics is not None:
            lines.append(f"statistics: {self.statistics}")
        lines += [f"itself from {g.source} ({g.kind}), {g.coverage:.1%}" for g in self.lineage]
        return "\n".join(map(printable, lines))

    def plain(self) -> dict[str, Any]:
        """Return the passport in plain data (for JSON and checkpoints); :meth:`from_plain` makes it again.

        Of a file's path the name alone: who is given the checkpoint need not know where the file lay.
        """
        return {**{f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}, "source": self._name}

    @property
    def _name(self) -> str:
        return self.source if is_hub_name(self.source) else Path(self.source).name

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> WeightsReport:
        """Make a passport from what :meth:`plain` returned; entries of later versions are left out.

        Raises:
            DataError: The data is no passport.
        """
        try:
            values = _values(cls, data)
            values["coverage"], values["required"] = float(data["coverage"]), float(data["required"])
            values["stages"] = tuple(StageCount(**_values(StageCount, s)) for s in data["stages"])
            values["lineage"] = tuple(Generation(**_values(Generation, g)) for g in data.get("lineage", ()))
            if (statistics := data.get("statistics")) is not None:
                values["statistics"] = Statistics(**_values(Statistics, statistics))
            return cls(**values)
        except (TypeError, KeyError, AttributeError, ValueError) as e:
            raise DataError(f"the passport of the weights cannot be read ({e}): use a file of this version") from e


def load_weights(
    module: nn.Module,
    source: str | Path | WeightsFile,
    *,
    stages: Mapping[str, Sequence[nn.Module]] | None = None,
    partial: bool = False,
    min_coverage: float = 0.95,
) -> WeightsReport:
    """Copy a file's tensors into a module by name, whatever prefix they have, and report what fitted.

    Where the file holds both plain and averaged weights (EMA), the averaged ones are taken. A first convolution with
    other input channels is adapted: summed over the file's channels for one channel, else repeated and rescaled by
    old/new (timm's rule). Nothing is written unless the file passes.

    Args:
        module: The module to fill; its values are kept where the file has none.
        source: A .pth, .pt, .ckpt or .safetensors file, a hub name (``timm/NAME``, ``hf-hub:OWNER/NAME``), or what
            :func:`visionkit.models.weights.file.read_weights` returned.
        stages: Modules of each stage, for the report; default: ``module.stages()`` or the module's children.
        partial: Go on where less than ``min_coverage`` is covered, a tensor has another shape or the file has parts
            that the module lacks.
        min_coverage: Fraction of the module's tensors, 0 to 1, that the file must cover.

    Raises:
        UsageError: There is no such file.
        DataError: The file cannot be read, is not finite or does not fit (with ``partial``, not one tensor does).
    """
    file = source if isinstance(source, WeightsFile) else read_weights(source)
    found = fit(file, module)
    if not found.copies or (not partial and (found.coverage < min_coverage or found.surplus or found.mismatched)):
        raise DataError(_refusal(file, found, module))
    if found.rivals:
        raise DataError(found.choice(file.source))
    targets = {name: t for name, t in module.state_dict().items() if isinstance(t, Tensor)}
    theirs = {name: file.groups[found.container][found.names[name]] for name in found.copies}  # before any change
    if (bad := no_weights(theirs, targets)) is not None:
        kind = str(theirs[bad].dtype).removeprefix("torch.")
        raise DataError(f"weights {file.source}: {found.names[bad]} ({kind}) {NO_WEIGHTS}: take those of 16 or 32 bits")
    if (bad := not_finite(found.copies, targets)) is not None:
        raise DataError(f"weights {file.source}: {found.names[bad]} {NOT_FINITE}: take another file")
    with torch.no_grad():
        for name, tensor in found.copies.items():
            targets[name].copy_(tensor)  # casts fp16 and bf16
    counted = [name for name in targets if not name.endswith(COUNTER)]
    return WeightsReport(
        source=file.source,
        sha256=file.digest or file.sha256,
        kind=file.kind,
        container=found.container,
        prefix=found.prefix,
        averaged=found.averaged,
        stages=_count(counted, _stage_names(module, targets, stages), found.copies, found.adapted),
        adapted=tuple(found.adapted.values()),
        missing=found.missing,
        mismatched=tuple(found.mismatched.values()),
        unused=found.unused,
        surplus=found.surplus,
        coverage=found.coverage,
        required=min_coverage,
        lineage=lineage_of(file),
    )


def lineage_of(file: WeightsFile) -> tuple[Generation, ...]:
    """Return what a file's weights were started from, newest first; none where it has no passport.

    Raises:
        DataError: The passport cannot be read.
    """
    if file.passport is None:
        return ()
    try:
        parent = WeightsReport.from_plain(file.passport)
    except DataError as e:
        raise DataError(f"{file.source}: {e}") from e
    return (Generation(parent.source, parent.sha256, parent.kind, parent.coverage), *parent.lineage)


def _stage_names(
    module: nn.Module, targets: Mapping[str, Tensor], stages: Mapping[str, Sequence[nn.Module]] | None
) -> dict[str, str]:
    """Return the stage of each tensor, in the order of the stages."""
    if stages is None:
        given = getattr(module, "stages", None)
        stages = given() if callable(given) else {name: [child] for name, child in module.named_children()}
    path_of = {id(m): name for name, m in module.named_modules()}
    stage_of: dict[str, str] = {}
    for stage, modules in stages.items():
        for path in (path_of[id(m)] for m in modules):
            stage_of |= {name: stage for name in targets if name.startswith(f"{path}." if path else "")}
    return stage_of | {name: "other" for name in targets if name not in stage_of}


def _count(
    names: Iterable[str], stage_of: Mapping[str, str], copies: Collection[str], adapted: Collection[str]
) -> tuple[StageCount, ...]:
    counts = {stage: [0, 0, 0] for stage in stage_of.values()}
    for name in names:
        counts[stage_of[name]][1 if name in adapted else 0 if name in copies else 2] += 1
    return tuple(StageCount(stage, *c) for stage, c in counts.items() if sum(c))


def _refusal(file: WeightsFile, found: Fit, module: nn.Module) -> str:
    """Say in one line how much fits, what does not, and the nearest way out."""
    facts = [f"weights {file.source}: {found.coverage:.1%} of the network's tensors are in the file"]
    renamed = None
    if found.missing:
        renamed = nearest(found.missing[0], tuple(module.state_dict()[found.missing[0]].shape), file, found)
    ask = getattr(module, "weights_hint", None)
    renames_only = renamed is not None and not found.mismatched and found.coverage > 0.5
    hint = str(ask(file)) if callable(ask) and not renames_only else ""
    if found.coverage or not hint:  # of quite another network no name says anything
        if found.prefix:
            facts.append(f"prefix {found.prefix!r}")
        if found.mismatched:
            facts.append(f"first missing: {next(iter(found.mismatched.values()))}")
        elif found.missing:
            facts.append(f"first missing: {found.missing[0]}" + (f" (the file has {renamed})" if renamed else ""))
        if left := found.surplus or found.unused:
            facts.append(f"{len(left)} of the file's have no place here, first: {left[0]}")
    if hint:
        facts.append(hint)
    if found.coverage:
        facts.append("set partial: true to go on with what fits")
    return "; ".join(facts)


def _values(cls: type, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries that a dataclass knows, lists as tuples.

    Raises:
        TypeError: Text, or each of several, is something else.
    """
    known = {f.name: str(f.type) for f in dataclasses.fields(cls)}
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k in known}
    for key, value in values.items():
        texts = value if known[key] == "tuple[str, ...]" else (value,) if known[key] == "str" else ()
        if not all(isinstance(text, str) for text in texts):
            raise TypeError(f"{key} is {value!r:.60}")
    return values


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{v:.4g}" for v in values)
