"""Pretrained weights: any common file in, a report of what was loaded out."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from visionkit.errors import DataError, UsageError

__all__ = ["StageCount", "WeightsReport", "find_weights", "load_weights", "read_state_dict"]

_CONTAINERS = ("state_dict", "model", "state_dict_ema", "model_state_dict", "model_ema")
_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors", ".bin")
_COUNTER = "num_batches_tracked"  # BatchNorm's step counter: many files leave it out, no forward pass needs it


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
class WeightsReport:
    """What of a file went into a module.

    Args:
        source: The file or hub name, as it was given.
        prefix: What the file's tensor names have before the module's.
        stages: Counts for each stage, in order.
        adapted: For each tensor that was changed, its name and the rule.
        missing: The module's tensors that the file lacks.
        mismatched: The module's tensors that have another shape in the file, with both shapes.
        unused: The file's tensors that were not used.
        surplus: Those of ``unused`` that belong to parts of the stages which this module lacks.
        coverage: Fraction of the module's tensors, 0 to 1, that were loaded or adapted (BatchNorm's counters apart).
    """

    source: str
    prefix: str
    stages: tuple[StageCount, ...]
    adapted: tuple[str, ...]
    missing: tuple[str, ...]
    mismatched: tuple[str, ...]
    unused: tuple[str, ...]
    surplus: tuple[str, ...]
    coverage: float

    def __str__(self) -> str:
        """Return a table of the stages and a summary."""
        width = max(len("stage"), *(len(s.name) for s in self.stages))
        rows = [f"{s.name:<{width}}  {s.loaded:>6}  {s.adapted:>7}  {s.missing:>7}" for s in self.stages]
        lines = [f"weights {self.source}: {self.coverage:.1%} of the tensors loaded"]
        if self.prefix:
            lines[0] += f" (under {self.prefix!r})"
        lines += [f"{'stage':<{width}}  {'loaded':>6}  {'adapted':>7}  {'missing':>7}", *rows]
        lines += [f"adapted: {line}" for line in self.adapted]
        for title in ("missing", "mismatched", "unused"):
            if names := getattr(self, title):
                more = f", ... {len(names)} in all" if len(names) > 3 else ""
                lines.append(f"{title}: {', '.join(names[:3])}{more}")
        return "\n".join(lines)


def load_weights(
    module: nn.Module,
    source: str | Path,
    *,
    stages: Mapping[str, Sequence[nn.Module]] | None = None,
    partial: bool = False,
    min_coverage: float = 0.95,
) -> WeightsReport:
    """Copy a file's tensors into a module by name, whatever prefix they have, and report what fitted.

    A first convolution with other input channels is adapted: summed over the file's channels for one channel, else
    repeated and rescaled by old/new (timm's rule). Nothing is written unless the file passes.

    Args:
        module: The module to fill; its values are kept where the file has none.
        source: A .pth, .pt, .ckpt or .safetensors file, or a hub name (``timm/NAME``, ``hf-hub:OWNER/NAME``).
        stages: Modules of each stage, for the report; default: ``module.stages()`` or the module's children.
        partial: Go on where less than ``min_coverage`` is covered or the file has parts that the module lacks.
        min_coverage: Fraction of the module's tensors, 0 to 1, that the file must cover.

    Raises:
        UsageError: There is no such file.
        DataError: The file cannot be read or does not fit; with ``partial``, only if not one tensor fits.
    """
    tensors = read_state_dict(find_weights(source))
    targets = {name: t for name, t in module.state_dict().items() if isinstance(t, Tensor)}
    prefix, names = _match(tensors, targets)
    first_conv = next((f"{name}.weight" for name, m in module.named_modules() if isinstance(m, nn.Conv2d)), None)

    copies: dict[str, Tensor] = {}
    adapted: dict[str, str] = {}
    mismatched: dict[str, str] = {}
    for name, theirs in names.items():
        have, want = tensors[theirs], targets[name]
        if have.shape == want.shape:
            copies[name] = have
        elif name == first_conv and (have.shape[0], *have.shape[2:]) == (want.shape[0], *want.shape[2:]):
            copies[name], rule = _adapt_input(have, want.shape[1])
            adapted[name] = f"{name}: {rule}"
        else:
            mismatched[name] = f"{name} ({_shape(have)} in the file, {_shape(want)} here)"

    counted = [name for name in targets if not name.endswith(_COUNTER)]
    used = {names[name] for name in copies}
    unused = tuple(name for name in tensors if name not in used)
    report = WeightsReport(
        source=str(source),
        prefix=prefix,
        stages=_count(counted, _stage_names(module, targets, stages), copies, adapted),
        adapted=tuple(adapted.values()),
        missing=tuple(name for name in counted if name not in names),
        mismatched=tuple(mismatched.values()),
        unused=unused,
        surplus=tuple(_surplus(unused, prefix, targets)),
        coverage=sum(name in copies for name in counted) / max(1, len(counted)),
    )
    if not copies or (not partial and (report.coverage < min_coverage or report.surplus)):
        raise DataError(_refusal(report, module, tensors))
    with torch.no_grad():
        for name, tensor in copies.items():
            targets[name].copy_(tensor)  # casts fp16 and bf16
    return report


def find_weights(source: str | Path) -> Path:
    """Return the local file of a path or, downloaded if need be, of a hub name.

    Args:
        source: A path, or ``timm/NAME`` or ``hf-hub:OWNER/NAME``, whose model.safetensors is taken.

    Raises:
        UsageError: There is no such file.
        DataError: The hub cannot be reached or has no such file.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path
    name = str(source)
    if name.startswith("hf-hub:"):
        return _download(name.removeprefix("hf-hub:"))
    if re.fullmatch(r"timm/[\w.-]+", name) and not name.endswith(_SUFFIXES):
        return _download(name)
    raise UsageError(f"weights {name}: file not found (hub names are written timm/NAME or hf-hub:OWNER/NAME)")


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a file by name, without running any code it may hold.

    Files that wrap them under ``state_dict``, ``model`` or ``state_dict_ema`` (the first that is there) are unwrapped.

    Args:
        path: A PyTorch (.pth, .pt, .ckpt) or safetensors file; the content decides, not the name.

    Raises:
        DataError: The file is damaged, of another format, holds no tensors or would run code.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as e:
        raise DataError(f"{path}: cannot be read: {e.strerror}") from e
    if not head:
        raise DataError(f"{path}: the file is empty (0 bytes)")
    if head[8:] == b"{":
        content = _read_safetensors(path)
    elif head[:2] == b"PK" or head[:1] == b"\x80":  # zip (torch >= 1.6) or plain pickle
        content = _read_torch(path)
    else:
        raise DataError(f"{path}: neither a PyTorch (.pth, .pt, .ckpt) nor a safetensors file")
    while isinstance(content, Mapping) and (
        inner := next((content[k] for k in _CONTAINERS if isinstance(content.get(k), Mapping)), None)
    ):
        content = inner
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if not tensors:
        raise DataError(f"{path}: holds no tensors by name; expected a state dict")
    return tensors


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as e:
        raise DataError(f"{path}: damaged or no safetensors file: {_first_line(e)}") from e


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # torch.load raises many kinds for a damaged file
        if refused := re.search(r"GLOBAL ([\w.]+)", str(e)):
            raise DataError(
                f"{path}: refused, it holds the Python object {refused[1]}, which could run code: "
                "save the state dict alone and load that"
            ) from e
        raise DataError(f"{path}: damaged or no PyTorch file: {_first_line(e)}") from e


def _download(repository: str) -> Path:
    """Fetch model.safetensors from the Hugging Face hub, or say within seconds that it cannot be had."""
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    name = "model.safetensors"
    try:
        if isinstance(cached := try_to_load_from_cache(repository, name), str):
            return Path(cached)
        if not constants.HF_HUB_OFFLINE:
            _reach(constants.ENDPOINT)  # the client's own retries take half a minute
        return Path(hf_hub_download(repository, name, etag_timeout=5))
    except (OSError, ValueError) as e:  # the client's errors and urllib's derive from these
        raise DataError(
            f"weights {repository}: cannot be fetched from the hub ({_first_line(e)}): "
            "download the file elsewhere and give its path"
        ) from e


def _reach(endpoint: str) -> None:
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    try:
        urlopen(Request(endpoint, method="HEAD"), timeout=5).close()  # noqa: S310 - the hub client's own https address
    except HTTPError:
        return  # it answers


def _match(tensors: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> tuple[str, dict[str, str]]:
    """Return the file's prefix under which most names match, and the module's name -> the file's name."""
    wrapper = _wrapper(targets)  # may be absent from the file
    wanted = {_dotted(n): name for name in targets for n in (name, name.removeprefix(wrapper))}
    found: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for theirs in tensors:
        parts = theirs.split(".")
        for i in range(len(parts)):
            if name := wanted.get(_dotted(".".join(parts[i:]))):
                found["".join(f"{p}." for p in parts[:i])][name] = theirs
    if not found:
        return "", {}

    def quality(prefix: str) -> tuple[int, int, int]:
        names = found[prefix]
        return len(names), sum(tensors[t].shape == targets[n].shape for n, t in names.items()), -len(prefix)

    best = max(found, key=quality)
    return best, found[best]


def _wrapper(names: Iterable[str]) -> str:
    """Return the one child name, with its dot, under which all names are, or nothing."""
    heads = {name.partition(".")[0] for name in names}
    return f"{heads.pop()}." if len(heads) == 1 else ""


def _dotted(name: str) -> str:
    """Make timm's names with and without features_only equal: stages_0.blocks and stages.0.blocks."""
    return name.replace("_", ".")


def _adapt_input(weight: Tensor, channels: int) -> tuple[Tensor, str]:
    """Give a convolution [O, I, h, w] other input channels."""
    old = weight.shape[1]
    weight = weight.float()
    if channels == 1:
        return weight.sum(1, keepdim=True), f"summed over {old} input channels for 1"
    repeated = weight.repeat(1, -(-channels // old), 1, 1)[:, :channels]
    return repeated * (old / channels), f"{old} input channels repeated to {channels}, scaled by {old}/{channels}"


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


def _surplus(unused: Iterable[str], prefix: str, targets: Mapping[str, Tensor]) -> list[str]:
    """Return the file's tensors that lie in a child of this module but in a part which that child lacks."""
    wrapper = _wrapper(targets)
    ours = [name.removeprefix(wrapper) for name in targets]
    children = {name.partition(".")[0] for name in ours}
    parts = {_dotted(name.rpartition(".")[0]) for name in ours}
    own = {name: name.removeprefix(prefix).removeprefix(wrapper) for name in unused if name.startswith(prefix)}
    return [k for k, n in own.items() if n.split(".")[0] in children and _dotted(n.rpartition(".")[0]) not in parts]


def _refusal(report: WeightsReport, module: nn.Module, tensors: Iterable[str]) -> str:
    facts = [f"weights {report.source}: {report.coverage:.1%} of the network's tensors are in the file"]
    if report.prefix:
        facts.append(f"prefix {report.prefix!r}")
    if lacking := (*report.mismatched, *report.missing):
        facts.append(f"first missing: {lacking[0]}")
    if left := report.surplus or report.unused:
        facts.append(f"{len(left)} of the file's have no place here, first: {left[0]}")
    hint = getattr(module, "weights_hint", None)
    if callable(hint) and (said := hint([n.removeprefix(report.prefix) for n in tensors])):
        facts.append(said)
    if report.coverage:
        facts.append("set partial: true to go on with what fits")
    return "; ".join(facts)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__
