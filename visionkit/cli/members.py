"""fit --members N: trainings from one start, one after another, whose models serve as an ensemble or make a soup.

All begin with the same weights, those of the head included, so that the weights of their models can be averaged
(Wortsman et al., "Model soups", ICML 2022). Order and augmentation are each one's own, and so is the learning rate:
members that were trained alike in all but their seed gain less together (Wenzel et al., "Hyperparameter Ensembles for
Robustness and Uncertainty Quantification", NeurIPS 2020).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from visionkit.cli.config import bounded_yaml, configs
from visionkit.cli.config.options import TRUST, Option, options_of
from visionkit.cli.config.short_names import keys_of, written_out
from visionkit.core.errors import DataError, UsageError
from visionkit.core.files import read_text, write_text
from visionkit.core.text import say
from visionkit.models.run_folder import FOLDER, LAST, MEMBER

__all__ = ["FACTORS", "asked_members", "divided", "fit_members", "holds_members"]

OPTION = "--members"
LEAST, MOST = 2, 10
FACTORS = (1.0, 0.7, 1.4)
"""Of the learning rate, for the first member, the second and so on; then again from the first on."""
FILE = "members.json"
"""Says which members are complete."""
RUNS = Path("runs")
LIMIT, HOME, CKPT = "trainer.max_time", "trainer.default_root_dir", "ckpt_path"
NEWEST = ("last", "auto")
SEEDS = 2**32

Fit = Callable[[list[str]], int]
"""Runs ``visionkit fit`` with arguments; returns its exit status."""


def asked_members(command: str, arguments: Sequence[str]) -> tuple[list[str], int | None]:
    """Return the arguments of ``fit`` without ``--members N``, and N; None where it does not stand.

    Raises:
        UsageError: N is no number from 2 to 10.
    """
    found = [option for option in options_of(arguments) if option.name == OPTION]
    if command != "fit" or not found:
        return list(arguments), None
    value = found[-1].value
    if not (value.isascii() and value.isdecimal() and LEAST <= int(value) <= MOST):
        raise UsageError(f"{OPTION} needs how many models to train, {LEAST} to {MOST}, got {value!r}")
    return [word for option in options_of(arguments) if option.name != OPTION for word in option.words], int(value)


def divided(arguments: Sequence[str], members: int) -> list[str]:
    """Return arguments in which each member has its share of the time that all have, where there is a limit."""
    from visionkit.cli.config.auto import last_value
    from visionkit.training.run.budget import time_limit

    seconds = time_limit(last_value(written_out("fit", configs.resolve(arguments)), LIMIT))
    if seconds is None:
        return list(arguments)
    return [*_without(arguments, LIMIT), f"--{LIMIT}={json.dumps({'seconds': max(1, int(seconds / members))})}"]


def fit_members(arguments: Sequence[str], members: int, fit: Fit) -> int:
    """Train members one after another, each a run of its own in ``runs/NAME-1/member-1`` and so on.

    The first one settles all that is left to the data, the time or the machine; the others take its config. With
    ``--ckpt_path FOLDER`` those that are complete stay, one that was stopped goes on, and the others follow.

    Args:
        arguments: The command line of ``fit`` without ``--members``.
        members: How many, 2 to 10; more than a folder holds are added to it.
        fit: What trains one.

    Returns:
        The exit status: that of the first training that did not end well, else 0.

    Raises:
        UsageError: Several processes are to train, or what it is to go on with holds no members.
    """
    from visionkit.cli.config.auto import processes_of, values_of
    from visionkit.training.run.claim import Claim

    written = written_out("fit", configs.resolve(arguments))
    asked = _asked(written)
    if not configs.paths(arguments) and asked is None:
        return fit(list(arguments))  # which says what is missing
    values = values_of(written)
    if values.get(("seed_everything",)) is False:
        raise UsageError(
            f"--seed_everything false: with {OPTION} all begin with one start: give a number, or leave it out"
        )
    if not configs.paths(arguments) and asked in NEWEST and not values.get(tuple(HOME.split("."))):
        raise UsageError(
            f"--{CKPT} {asked}: with {OPTION}, say by -c CONFIG whose folder is meant, or give it: --{CKPT} runs/NAME-1"
        )
    if (processes := processes_of(values)) > 1:
        raise UsageError(
            f"{OPTION} trains one model after another in one process, and {processes} processes are to share each: set "
            "--device 0, or --trainer.devices 1"
        )
    kept = _without(arguments, CKPT, HOME)
    with Claim() as claim:
        folder = _folder(claim, values, asked)
        complete = _complete(folder)
        if (first := folder / f"{MEMBER}1" / "config.yaml").is_file():
            say(f"plan     that of {first}: members go on as they began")
        for number in range(1, members + 1):
            own = folder / f"{MEMBER}{number}"
            if number in complete:
                say(f"member   {number} of {members}: complete, {own}")
                continue
            say(f"member   {number} of {members}: {own}")
            try:
                status = fit(_words(own, number, first, divided(kept, members) if number == 1 else kept))
            except BaseException:
                _say_how_to_go_on(folder, members, first)
                raise
            if status:
                _say_how_to_go_on(folder, members, first)
                return status
            complete.append(number)
            write_text(folder / FILE, json.dumps({"complete": complete}) + "\n")
    _say_next(folder, members, first)
    return 0


def _words(own: Path, number: int, first: Path, kept: list[str]) -> list[str]:
    """Return the arguments with which a member is trained."""
    config = own / "config.yaml"
    trust = [word for option in options_of(kept) if option.name == TRUST for word in option.words]
    if config.is_file():  # it was stopped
        return ["-c", str(config), f"--{CKPT}=auto", *trust]
    home = f"--{HOME}={own}"
    if number == 1:
        return [*kept, home]
    return ["-c", str(first), home, *trust, *_own_settings(first, number)]


def _own_settings(first: Path, number: int) -> list[str]:
    """Return what a member has for itself, beside the config of the first one."""
    from visionkit.cli.config.auto import flattened
    from visionkit.training.recipe import DECAY, RATE

    values = dict(flattened(bounded_yaml.load_file(first)))
    seed = int(values["seed_everything",])
    start = values.get(("start_seed",))
    words = [f"--seed_everything={(seed + number - 1) % SEEDS}", f"--start_seed={seed if start is None else start}"]
    optimizer, factor = ("model", "recipe", "optimizer"), FACTORS[(number - 1) % len(FACTORS)]
    rate = values.get((*optimizer, "lr"))
    if factor == 1:
        return words
    if values.get(optimizer, "") is None:  # the usual one
        settings = {"lr": float(f"{RATE * factor:.4g}"), "weight_decay": DECAY}
        usual = {"class_path": "torch.optim.AdamW", "init_args": settings}
        words.append(f"--model.recipe.optimizer={json.dumps(usual)}")
    elif isinstance(rate, int | float):
        words.append(f"--model.recipe.optimizer.lr={rate * factor:.4g}")
    return words


# ---- folders


def _asked(written: Sequence[str]) -> str | None:
    return next((o.value for o in reversed(options_of(written)) if o.name == f"--{CKPT}"), None)


def _folder(claim: Any, values: dict[tuple[str, ...], Any], asked: str | None) -> Path:
    """Return the folder of the members, made or found, and held.

    Raises:
        UsageError: It holds something else, or no members to go on with.
    """
    from visionkit.cli.config.descriptions import import_class
    from visionkit.training.run.claim import numbers

    root = values.get(tuple(HOME.split(".")))
    kind = Path(getattr(import_class(str(values.get(("model", "class_path"), ""))), "config", "run")).stem
    if asked is not None and asked not in NEWEST:
        folder = Path(asked)
        if not holds_members(folder):
            inside = holds_members(folder.parent)
            hint = f"give the folder of all members, {folder.parent}" if inside else "it holds no members"
            raise UsageError(f"--{CKPT} {asked}: with {OPTION} {hint}")
        claim.take(folder)
        return folder
    if asked is not None:
        known = [RUNS / f"{kind}-{number}" for number in numbers(RUNS, kind)] if root is None else [Path(root)]
        if found := [folder for folder in known if holds_members(folder)]:
            claim.take(found[-1])
            return found[-1]
        if asked == "last":
            raise UsageError(f"--{CKPT} last: no folder of members to go on with: {root or RUNS / f'{kind}-*'}")
    if root is None:
        made: Path = claim.take_numbered(RUNS, kind)
        return made
    folder = Path(root)
    if holds_members(folder):
        raise UsageError(
            f"{folder} already holds members: go on with them by --{CKPT} {folder}, or choose another --{HOME}"
        )
    if (folder / FOLDER / LAST).is_file():
        raise UsageError(f"{folder} already holds a run: choose another --{HOME}")
    claim.take(folder)
    return folder


def holds_members(folder: Path) -> bool:
    """Return whether a folder is one of members, complete or not, and so no run itself."""
    return (folder / FILE).is_file() or (folder / f"{MEMBER}1" / "config.yaml").is_file()


def _complete(folder: Path) -> list[int]:
    """Return the numbers of the members that are complete.

    Raises:
        DataError: The file that says so is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return []
    try:
        numbers = json.loads(read_text(path))["complete"]
        found = [n for n in numbers if isinstance(n, int) and (folder / f"{MEMBER}{n}" / FOLDER / LAST).is_file()]
    except (ValueError, KeyError, TypeError) as e:
        raise DataError(f"{path}: does not say which members are complete: remove it, and all are gone through") from e
    return found


# ---- words


def _without(arguments: Sequence[str], *keys: str) -> list[str]:
    """Return the arguments without the options that stand for one of the keys, or for a part of it."""

    def kept(option: Option) -> bool:
        name = "--ckpt_path" if option.name == "--ckpt" else option.name
        return not any(own == key or own.startswith(f"{key}.") for own in keys_of(name) for key in keys)

    return [word for option in options_of(arguments) if kept(option) for word in option.words]


def _say_how_to_go_on(folder: Path, members: int, first: Path) -> None:
    if first.is_file():
        quoted = shlex.quote(str(folder))
        say(f"members  go on with all of them: visionkit fit {OPTION} {members} --{CKPT} {quoted}", error=True)


def _say_next(folder: Path, members: int, first: Path) -> None:
    """Say how the models are used together."""
    from visionkit.cli.config.auto import flattened

    values = dict(flattened(bounded_yaml.load_file(first))) if first.is_file() else {}
    root = values.get(("data", "root"))
    data = "PICTURES" if root is None else shlex.quote(str(root))
    names = " ".join(shlex.quote(str(folder / f"{MEMBER}{k}")) for k in range(1, members + 1))
    out = [shlex.quote(str(folder / name)) for name in ("evaluation", "soup.ckpt")]
    say(
        f"members  {members} in {folder}: an ensemble of all, or one model of their weights",
        f"next     visionkit evaluate --ckpt {names} --data {data} --out {out[0]}",
        f"next     visionkit soup {names} --data {data} --out {out[1]}",
    )
