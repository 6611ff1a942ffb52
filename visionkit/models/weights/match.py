"""Which of a file's tensors belong to which of a module's, whatever prefix they have."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from visionkit.models.weights.file import COUNTER, PREFERRED, WeightsFile

__all__ = ["Fit", "first_convolution", "fit", "nearest", "top_level", "wrapper"]


@dataclass(frozen=True)
class Fit:
    """How a file's tensors fit a module's.

    Args:
        container: Where in the file they lie ("" for the file itself).
        prefix: What the file's names have before the module's.
        averaged: Whether they are averages over the training (EMA).
        names: The module's name -> the file's, of all that are in both.
        copies: The module's name -> the tensor that goes there, of all that fit.
        adapted: The module's name -> what was done, of those that were changed.
        mismatched: The module's name -> both shapes, of those that do not fit.
        missing: The module's names that the file lacks.
        unused: The file's names that were not used.
        surplus: Those of ``unused`` that belong to parts of the stages which the module lacks.
        coverage: Fraction of the module's tensors, 0 to 1, that are in ``copies`` (BatchNorm's counters apart).
        rivals: Where else in the file as many tensors fit, with other values, and nothing says which is the better.
    """

    container: str
    prefix: str
    averaged: bool
    names: Mapping[str, str]
    copies: Mapping[str, Tensor]
    adapted: Mapping[str, str]
    mismatched: Mapping[str, str]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    surplus: tuple[str, ...]
    coverage: float
    rivals: tuple[str, ...] = ()

    def choice(self, source: str) -> str:
        """Return what to say where there are rivals.

        Args:
            source: The file.
        """
        mine = _place(self.container, self.prefix)
        return (
            f"weights {source}: the network is in the file {len(self.rivals) + 1} times, under "
            f"{', '.join((mine, *self.rivals))}: say which, as {source}#{mine}"
        )


def fit(file: WeightsFile, module: nn.Module) -> Fit:
    """Find the place in a file and the prefix under which most of a module's tensors are.

    Of equally good ones, averaged weights (EMA) come before plain ones, then short prefixes.

    Args:
        file: The file.
        module: The module; nothing is written to it, and it may be on the meta device.
    """
    targets = {name: t for name, t in module.state_dict().items() if isinstance(t, Tensor)}
    container, prefix, names, others = _match(file, targets)
    tensors, first = file.groups[container], first_convolution(module)
    copies: dict[str, Tensor] = {}
    adapted: dict[str, str] = {}
    mismatched: dict[str, str] = {}
    for name, theirs in names.items():
        have, want = tensors[theirs], targets[name]
        if have.shape == want.shape:
            copies[name] = have
        elif name == first and (have.shape[0], *have.shape[2:]) == (want.shape[0], *want.shape[2:]):
            copies[name], rule = adapt_input(have, want.shape[1])
            adapted[name] = f"{name}: {rule}"
        else:
            mismatched[name] = f"{name} ({_shape(have)} in the file, {_shape(want)} here)"
    counted = [name for name in targets if not name.endswith(COUNTER)]
    used = {names[name] for name in copies}
    unused = tuple(name for name in tensors if name not in used)
    return Fit(
        container=container,
        prefix=prefix,
        averaged=file.is_averaged(container, prefix),
        names=names,
        copies=copies,
        adapted=adapted,
        mismatched=mismatched,
        missing=tuple(name for name in counted if name not in names),
        unused=unused,
        surplus=tuple(_surplus(unused, prefix, targets)),
        coverage=sum(name in copies for name in counted) / max(1, len(counted)),
        rivals=tuple(others),
    )


def first_convolution(module: nn.Module) -> str | None:
    """Return the name of the weight of a module's first convolution, which sees the image."""
    return next((f"{name}.weight" for name, m in module.named_modules() if isinstance(m, nn.Conv2d)), None)


def adapt_input(weight: Tensor, channels: int) -> tuple[Tensor, str]:
    """Give a convolution other input channels, and say how.

    Args:
        weight: Its weight [O, I, h, w].
        channels: Input channels that it shall have.
    """
    old = weight.shape[1]
    weight = weight.float()
    if channels == 1:
        return weight.sum(1, keepdim=True), f"summed over {old} input channels for 1"
    repeated = weight.repeat(1, -(-channels // old), 1, 1)[:, :channels]
    return repeated * (old / channels), f"{old} input channels repeated to {channels}, scaled by {old}/{channels}"


def nearest(name: str, shape: tuple[int, ...], file: WeightsFile, found: Fit) -> str | None:
    """Return the left-over tensor of a file whose name is most like a missing one's, of its shape.

    Args:
        name: The module's name that is missing.
        shape: Its shape.
        file: The file.
        found: How the file fits the module.
    """
    tensors = file.groups[found.container]
    names = {n.removeprefix(found.prefix): n for n in found.unused if tuple(tensors[n].shape) == shape}
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return names[near[0]] if near else None


def top_level(names: Iterable[str], prefix: str) -> dict[str, int]:
    """Count a file's names by their first part below what they share with a prefix: head, neck, fc, ...

    Args:
        names: The file's names.
        prefix: The prefix under which the module's tensors lie, with its dot.
    """
    counts: defaultdict[str, int] = defaultdict(int)
    parents = prefix.split(".")[:-1]
    for name in names:
        parts = name.split(".")
        shared = next((i for i, p in enumerate(parents) if i >= len(parts) - 1 or parts[i] != p), len(parents))
        counts[parts[shared]] += 1
    return dict(counts)


def wrapper(names: Iterable[str]) -> str:
    """Return the one child name, with its dot, under which all names are, or nothing."""
    heads = {name.partition(".")[0] for name in names}
    return f"{heads.pop()}." if len(heads) == 1 else ""


def _match(file: WeightsFile, targets: Mapping[str, Tensor]) -> tuple[str, str, dict[str, str], list[str]]:
    """Return the container and prefix where most names match, the module's name -> the file's name, and rivals."""
    ours = wrapper(targets)  # may be absent from the file
    wanted = {_dotted(n): name for name in targets for n in (name, name.removeprefix(ours))}
    found: defaultdict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for container, tensors in file.groups.items():
        for theirs in tensors:
            parts = theirs.split(".")
            for i in range(len(parts)):
                if name := wanted.get(_dotted(".".join(parts[i:]))):
                    found[container, "".join(f"{p}." for p in parts[:i])][name] = theirs
    if not found:
        return file.container, "", {}, []

    def quality(where: tuple[str, str]) -> tuple[int, int, bool, bool, int, int]:
        container, prefix = where
        names = {n: t for n, t in found[where].items() if not n.endswith(COUNTER)}
        fitting = sum(file.groups[container][t].shape == targets[n].shape for n, t in names.items())
        best = container == file.container
        return len(names), fitting, file.is_averaged(*where), best, len(found[where]), -len(prefix)

    where = max(found, key=quality)

    def differs(other: tuple[str, str]) -> bool:
        mine, theirs = (file.groups[w[0]] for w in (where, other))
        return any(
            not torch.equal(mine[k], theirs[found[other][n]]) for n, k in found[where].items() if n in found[other]
        )

    if where[1] == "" and where[0] in PREFERRED:  # the file's own network, whatever else it has
        return *where, found[where], []
    rivals = [w for w in found if w != where and quality(w)[:3] == quality(where)[:3] and differs(w)]
    return *where, found[where], [_place(*w) for w in rivals]


def _place(container: str, prefix: str) -> str:
    """Return where tensors lie, as ``FILE#PART`` names it."""
    return ".".join(filter(None, (container, prefix.removesuffix("."))))


def _dotted(name: str) -> str:
    """Make timm's names with and without features_only equal: stages_0.blocks and stages.0.blocks."""
    return name.replace("_", ".")


def _surplus(unused: Iterable[str], prefix: str, targets: Mapping[str, Tensor]) -> list[str]:
    """Return the file's tensors that lie in a child of the module but in a part which that child lacks."""
    wrapped = wrapper(targets)
    ours = [name.removeprefix(wrapped) for name in targets]
    children = {name.partition(".")[0] for name in ours}
    parts = {_dotted(name.rpartition(".")[0]) for name in ours}
    own = {name: name.removeprefix(prefix).removeprefix(wrapped) for name in unused if name.startswith(prefix)}
    return [k for k, n in own.items() if n.split(".")[0] in children and _dotted(n.rpartition(".")[0]) not in parts]


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
