"""The start of a data set: what it is, which pictures validate, and a config in which each number says why."""

from __future__ import annotations

import csv
import io
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from visionkit.cli.backbone_choice import MOST_PICTURES, choose_backbone, choose_size
from visionkit.cli.config import configs
from visionkit.cli.config.auto import flattened, make_advice, make_data
from visionkit.cli.config.classes import Place
from visionkit.cli.config.described import say_default
from visionkit.cli.config.descriptions import describe
from visionkit.cli.recognise import Candidate, recognise
from visionkit.core.errors import DataError, UsageError
from visionkit.core.files import make_folder, write_text
from visionkit.core.text import printable
from visionkit.data.audit.duplicates import find_duplicates
from visionkit.data.audit.pictures import survey
from visionkit.data.audit.split import keep_together, validation_share
from visionkit.data.split import place_below, split
from visionkit.tasks.classification.advice import CPU_SIZE
from visionkit.training.advice import AUTO, Choice
from visionkit.training.datamodule import VisionDataModule
from visionkit.training.run.budget import time_limit

__all__ = ["Started", "start"]

CONFIGS = {
    "classification": "classify.yaml",
    "detection": "detect.yaml",
    "instance": "detect_masks.yaml",
    "segmentation": "segment.yaml",
}
FEW = 100  # pictures, of which a validation says little
SAID = ("data.size", "trainer.max_epochs", "data.batch_size", "model.recipe.optimizer.lr", "model.recipe.freeze")
"""Choices that are said on the terminal, too."""
TIMED = re.compile(
    r"data\.(size|mosaic|augment\.(?!HorizontalFlip).*)|trainer\.max_epochs|model\.(recipe\.(ema|warmup_epochs)|neck\.min_level)"
)
"""What is chosen when a training starts that has a time."""
_NONE = Choice("", None, "")
BACKBONE = {("model", "backbone", key) for key in ("class_path", "weights", "depth", "name")}
PICTURES_A_SECOND = 1.0  # of the time that a training has, that networks are asked about
WIDTH = 40  # characters of a line before its comment


@dataclass
class Started:
    """A data set that was looked at.

    Args:
        config: Where the config belongs.
        text: Of the config.
        split: Where the list of the split belongs, with its text; None where the data brings validation pictures.
        lines: What was found, for the terminal.
    """

    config: Path
    text: str
    split: tuple[Path, str] | None = None
    lines: list[str] = field(default_factory=list)

    def write(self) -> None:
        """Write config and list."""
        make_folder(self.config.parent)
        if self.split is not None:
            write_text(*self.split)
        write_text(self.config, self.text)


def start(
    root: Path, out: Path, name: str, task: str | None = None, given: Mapping[Place, Any] | None = None
) -> Started:
    """Look at a data set and choose what it wants.

    Args:
        root: The folder, or the file that lists it.
        out: Folder of the files to write.
        name: What they are called, without suffix.
        task: What to learn; None takes the likeliest.
        given: Keys that the command line sets, which what is chosen must suit.

    Raises:
        DataError: There is nothing that can be learnt from.
        UsageError: It does not serve this task.
    """
    given = given or {}
    candidate, lines = _recognised(root, task)
    content = configs.content_of(configs.folder() / CONFIGS[candidate.task])
    data = content["data"]["init_args"]
    data |= {"root": str(candidate.root.resolve()), **candidate.data_options}
    module, listed = _data(content), None
    if module.splits.divided:
        listed = (out / f"{name}-split.csv", _split(module, candidate.root, lines))
        with tempfile.TemporaryDirectory(prefix="visionkit-") as folder:  # nothing is written before all is known
            data["split"] = str(Path(folder, listed[0].name))
            write_text(Path(data["split"]), listed[1])
            module = _data(content)
            assert module.splits.train is not None  # read
        data["split"] = str(listed[0].absolute())
    else:
        lines.append(f"data     {module.splits.source.splitlines()[0]}")
    lines.append(f"classes  {len(module.classes)}: {printable(', '.join(module.classes[:12]))}"
                 + (", ..." if len(module.classes) > 12 else ""))  # fmt: skip
    content["model"]["init_args"]["backbone"]["init_args"]["weights"] = AUTO
    reasons: dict[Place, str] = {}
    if candidate.task == "classification" and not BACKBONE & set(given):
        reasons |= choose_backbone(content, module, lines, _looked_at(given))
    advice = make_advice({**dict(flattened(content)), **given}, module)
    tuned = candidate.task == "classification" and not advice.gpu and advice.get("model.recipe.freeze") is None
    if tuned and advice.choices.get("data.size", _NONE).value == CPU_SIZE:
        reasons |= choose_size(content, module, lines, given, _looked_at(given))
        advice = make_advice({**dict(flattened(content)), **given}, module)
    timed = [key for key in advice.choices if _seconds(given) is not None and TIMED.fullmatch(key)]
    choices = [c for c in advice.choices.values() if c.key not in timed]
    reasons |= {tuple(c.key.split(".")): c.reason for c in choices}
    reasons |= {tuple(key.split(".")): "from the time that there is" for key in timed}
    found = {tuple(choice.key.split(".")): choice.value for choice in choices}
    head = [
        f"# {printable(str(root))}: {candidate.task}, {candidate.format}; written by visionkit init",
        "# Each number says why it was chosen; change what you know better.",
        f"#   visionkit fit -c {name}.yaml",
        "",
    ]
    reasons["model", "backbone", "weights"] = "pretrained ones, fetched once (visionkit backbone list); null: random"
    text = "\n".join([*head, *_lines(_short(content, found), reasons)]) + "\n"
    lines += [f"chosen   {c}" for c in choices if c.key in SAID]
    return Started(out / f"{name}.yaml", text, listed, lines)


def _seconds(given: Mapping[Place, Any]) -> float | None:
    """Return the time that a training has by the command line."""
    place = ("trainer", "max_time")
    return time_limit({p[2]: value for p, value in given.items() if p[:2] == place and p[2:]} or given.get(place))


def _looked_at(given: Mapping[Place, Any]) -> int:
    """Return how many pictures networks are asked about: fewer where there is little time to train."""
    seconds = _seconds(given)
    return MOST_PICTURES if seconds is None else min(MOST_PICTURES, int(PICTURES_A_SECOND * seconds))


def _data(content: Mapping[str, Any]) -> VisionDataModule[Any]:
    """Return the data of a config."""
    made = make_data(dict(flattened(content)), ("data",))
    assert made is not None
    return made


def _recognised(root: Path, task: str | None) -> tuple[Candidate, list[str]]:
    found = [c for c in recognise(root) if c.config is None]
    if not found:
        raise UsageError(f"{root} is a config: visionkit fit -c {root}")
    usable = [c for c in found if c.problem is None and (task is None or c.task == task)]
    if not usable:
        for candidate in found:
            if candidate.problem is not None and task in (None, candidate.task):
                raise candidate.problem
        raise UsageError(f"--task {task}: {root} serves {', '.join(dict.fromkeys(c.task for c in found))}")
    chosen = usable[0]
    lines = [f"found    {chosen.task}: {chosen.reason}"]
    others = dict.fromkeys(c.task for c in usable[1:] if c.task != chosen.task)
    if others:
        lines.append(f"also     {', '.join(others)}: --task takes one of them")
    return chosen, lines


def _split(module: VisionDataModule[Any], root: Path, lines: list[str]) -> str:
    """Choose the validation pictures anew, near duplicates on one side, and return the list."""
    parts = [part for part in (module.splits.train, module.splits.val) if part is not None]
    ids = [id for part in parts for id in part.ids]
    groups: list[str] = []
    labels: list[Collection[int]] = []
    for part in parts:
        own, shown = part.groups_and_labels()
        groups += own
        labels += shown
    found = find_duplicates(survey(ids))
    chosen = split(keep_together(groups, ids, found), labels, validation_share(len(ids)), 0)
    if not any(chosen) or all(chosen):
        raise DataError(f"{root}: no validation pictures can be set aside: all belong together; add pictures")
    alike = sum(k != i for i, k in enumerate(found.first))
    lines.append(
        f"split    {len(ids) - sum(chosen)} pictures for training, {sum(chosen)} for validation, by class"
        + (f"; {alike} near duplicates of others kept on their side" if alike else "")
    )
    if len(ids) < FEW:
        lines.append(f"note     {sum(chosen)} validation pictures: a difference of a few points says nothing")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("image", "split"))
    order = sorted(zip([place_below(id, root) for id in ids], chosen, strict=True))
    writer.writerows((name, "val" if validates else "train") for name, validates in order)
    return text.getvalue()


def _short(content: Mapping[str, Any], found: Mapping[Place, Any]) -> dict[str, Any]:
    """Return a config with what was chosen, without the keys that say what the defaults say."""

    def shortened(value: Any, place: Place, cls: str) -> Any:
        if isinstance(value, Mapping):
            name = str(value.get("class_path", "")).rpartition(".")[2] or cls
            kept = {}
            for key, entry in value.items():
                below = place if key == "init_args" else (*place, str(key))
                new = shortened(entry, below, name if key == "init_args" else str(key))
                if key == "init_args" and not new:
                    continue
                if not _says_nothing(str(key), new, below, name if key != "init_args" else "", found):
                    kept[key] = new
            return kept
        if isinstance(value, list):
            return [shortened(entry, place, cls) for entry in value]
        return found.get(place, value)

    return dict(shortened(content, (), ""))


def _says_nothing(key: str, value: Any, place: Place, cls: str, found: Mapping[Place, Any]) -> bool:
    if key == "augment" and found.get((*place, "HorizontalFlip", "p")) == 0.5:
        shares = [value for key, value in found.items() if key[: len(place)] == place and key[-1] == "p"]
        return all(shares) and AUTO not in _shares(value)  # the default of the data
    if place in found or not cls:
        return False
    described = describe(cls) or describe(cls.title())  # recipe: its settings stand there without a class
    argument = None if described is None else described.arguments.get(key)
    return argument is not None and argument.default == say_default(value)


def _shares(augment: Any) -> list[Any]:
    """Return how often each of a list of transforms is used."""
    return [options.get("p") for entry in augment for options in entry.values() if isinstance(options, Mapping)]


def _lines(value: Mapping[str, Any], reasons: Mapping[Place, str], place: Place = (), indent: int = 0) -> Iterator[str]:
    """Yield the lines of a config, with reasons beside the values."""
    for key, entry in value.items():
        below = place if key == "init_args" else (*place, str(key))
        start = f"{' ' * indent}{key}:"
        if isinstance(entry, Mapping) and entry:
            yield start
            yield from _lines(entry, reasons, below, indent + 2)
        elif isinstance(entry, list) and entry and isinstance(entry[0], Mapping):
            yield start
            yield from (f"{' ' * (indent + 2)}- {_flow(part)}" for part in entry)
        else:
            line = f"{start} {_flow(entry)}"
            reason = reasons.get(below)
            yield line if reason is None else f"{line:<{WIDTH}}  # {printable(reason)}"
        if indent == 0 and place == ():
            yield ""


def _flow(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False)
    return text.removesuffix("...\n").strip()
