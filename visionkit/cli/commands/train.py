"""fit, validate and test: what the command line asks for, help at once, everything else by Lightning."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import yaml

import visionkit
from visionkit.cli.config import bounded_yaml, configs
from visionkit.cli.config.classes import drop_replaced
from visionkit.cli.config.descriptions import keys_of_form
from visionkit.cli.config.options import TRUST, options_of, value_of
from visionkit.cli.config.print_config import PRINT, asked_to_print, printed
from visionkit.cli.config.short_config import shortened_config
from visionkit.cli.config.short_names import written_out
from visionkit.cli.config.train_help import train_help
from visionkit.cli.config.values import refuse_values
from visionkit.cli.imports import uncollected
from visionkit.cli.members import asked_members, fit_members
from visionkit.core.errors import UsageError
from visionkit.core.files import missing
from visionkit.core.text import say

__all__ = ["main"]

KNOWN = ("visionkit", "torch", "lightning")  # packages whose classes a run may name by itself
RUN_WORDS = ("last", "best", "auto")  # of the run folder itself


def main(command: str, arguments: Sequence[str]) -> int:
    """Run ``fit``, ``validate`` or ``test``."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # class_path: my_heads.MyHead finds my_heads.py beside the config
    arguments, members = asked_members(command, arguments)
    if members is not None and not {o.name for o in options_of(arguments)} & {"-h", "--help", PRINT}:
        if any(option.name == "--dry-run" for option in options_of(arguments)):
            raise UsageError("--dry-run tries one training, all members take what it says: leave out --members")
        return fit_members(arguments, members, partial(main, command))
    arguments, trust = _trusted(configs.resolve(arguments))
    if "-h" in arguments or "--help" in arguments:
        print(train_help(command, arguments))
        return 0
    arguments, print_config = asked_to_print(arguments)
    arguments, dry = _dry(command, arguments)
    _refuse_words(command, arguments)
    given = [*arguments, *(f"{TRUST}={name}" for name in trust)]  # in the user's own words, for messages and teachers
    arguments = _complete(command, _run_folders(command, written_out(command, arguments)), trust)
    refuse_values(arguments)
    with uncollected():
        from visionkit.cli.config.auto import asked_places, resolve
        from visionkit.cli.dry_run import DryRun
        from visionkit.cli.lightning import CLI
        from visionkit.cli.notices import hide_notices
        from visionkit.cli.planning import planned
        from visionkit.training.run.claim import Claim

        hide_notices()
        _import_named(arguments)
    shown = None if print_config is None else io.StringIO()
    try:
        with contextlib.nullcontext() if shown is None else contextlib.redirect_stdout(shown):
            settled, given = drop_replaced(_nulls(arguments)), [command, *given, *arguments]
            planning = command == "fit" and not dry and shown is None
            argv, choices = planned(settled, given) if planning else resolve(command, settled)
            argv = [command, *argv]
            if dry:
                with tempfile.TemporaryDirectory(prefix="visionkit-") as folder:
                    DryRun(argv, given, folder=Path(folder), choices=choices)
            else:
                with Claim() as claim:
                    CLI(argv, given, claim=claim, choices=choices)
    except SystemExit as e:  # --print_config and the like end so
        if shown is not None and not e.code:
            text = shown.getvalue()  # what modules of the user's print when they are imported comes first
            config, full = yaml.safe_load(text[text.index("seed_everything:") :]), print_config == "full"
            if not full:
                config = shortened_config(config, arguments, asked_places(arguments))
            print(printed(config, command, full=full), end="")
        return int(e.code or 0)
    return 0


def _import_named(arguments: Sequence[str]) -> None:
    """Import the public classes that the command line or a file of it names: imported ones have short names."""
    texts = list(arguments)
    for option in options_of(arguments):
        if option.value.endswith(bounded_yaml.YAML_FILES):
            with contextlib.suppress(UsageError):  # whoever takes it says what is wrong with it
                texts.append(bounded_yaml.read(Path(option.value)))
    words = {word for text in texts for word in re.findall(r"\w+", text)}
    for name in visionkit.PUBLIC:
        if name in words:
            getattr(visionkit, name)


def _trusted(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the arguments without ``--trust PACKAGE``, and the packages: Lightning's parser does not know it."""
    options = options_of(arguments)
    packages = [option.value for option in options if option.name == TRUST]
    if not all(packages) or any(package.startswith("-") for package in packages):
        raise UsageError("--trust needs the name of a package whose classes the checkpoint may name")
    return [word for option in options if option.name != TRUST for word in option.words], packages


def _dry(command: str, arguments: list[str]) -> tuple[list[str], bool]:
    """Return the arguments of ``fit`` without ``--dry-run``, and whether it was among them."""
    found = [option for option in options_of(arguments) if option.name == "--dry-run"]
    if command != "fit" or not found:
        return arguments, False
    if wrong := next((option for option in found if option.words != ("--dry-run",)), None):
        raise UsageError(f"--dry-run takes no value, got {wrong.value!r}")
    if any(option.name == "--minutes" for option in options_of(arguments)):
        raise UsageError("--dry-run measures, and --minutes plans by such a measurement: give one of them")
    return [word for option in options_of(arguments) if option.name != "--dry-run" for word in option.words], True


def _refuse_words(command: str, arguments: Sequence[str]) -> None:
    """Refuse words that belong to no option, and say which option they are meant for.

    Raises:
        UsageError: Naming the word and the option.
    """
    from visionkit.models.run_folder import is_checkpoint

    before = None
    for option in options_of(arguments):
        if option.name.startswith("-"):
            before = option
            continue
        word = option.words[0]
        quoted, config = shlex.quote(word), Path(word, "config.yaml")
        if is_checkpoint(word):
            meant = f"write --ckpt {quoted}"
            if command == "fit":
                meant = f"--ckpt_path {quoted} goes on with its training"
                meant += f", -c {shlex.quote(str(config))} begins it anew" if config.is_file() else ""
        elif word.endswith(bounded_yaml.YAML_FILES) or f"{word}.yaml" in configs.shipped():
            meant = f"write -c {quoted}"
        elif before is not None and len(before.words) == 2:
            meant = f"{before.name} takes one value, which is {before.value}"
        elif Path(word).exists():
            meant = f"write --data {quoted}"
        else:
            meant = f"visionkit {command} --help lists them"
        raise UsageError(f"{word} belongs to no option: {meant}")


def _run_folders(command: str, arguments: list[str]) -> list[str]:
    """Return the arguments with the checkpoint of a run where its folder, or its config alone, is named."""
    from visionkit.models.run_folder import FOLDER, LAST, find_checkpoint

    asked = value_of(arguments, "--ckpt_path")
    if asked is None and command != "fit":
        files = configs.paths(arguments)
        run = files[-1].parent if files else None
        if run is not None and (run / FOLDER).is_dir() and "ckpt_path" not in configs.content_of(files[-1]):
            return [*arguments, f"--ckpt_path={find_checkpoint(run)}"]
    if asked is None or asked in RUN_WORDS:
        return arguments
    if not Path(asked).is_dir():
        return arguments if command == "fit" else _config_of_run(asked, arguments)
    last = next((p for p in (Path(asked, FOLDER, LAST), Path(asked, LAST)) if p.is_file()), None)
    found = last if last is not None and command == "fit" else find_checkpoint(asked)  # training goes on with the last
    kept = [word for option in options_of(arguments) if option.name != "--ckpt_path" for word in option.words]
    config = Path(asked, "config.yaml")
    if not configs.paths(arguments) and config.is_file():  # it knows the data of the run
        if others := _others(config):
            raise UsageError(f"{config} names the class {others[0]}, outside visionkit: to use it, say -c {config}")
        kept = ["-c", str(config), f"--trainer.default_root_dir={asked}", *kept]
    return [*kept, f"--ckpt_path={found}"]


def _config_of_run(checkpoint: str, arguments: list[str]) -> list[str]:
    """Return the arguments with the config of the run in whose folder a checkpoint lies: it knows the data."""
    from visionkit.models.run_folder import FOLDER

    folder = Path(os.path.abspath(checkpoint)).parent
    config = Path(os.path.relpath(folder.parent / "config.yaml"))
    if configs.paths(arguments) or folder.name != FOLDER or not config.is_file() or not Path(checkpoint).is_file():
        return arguments
    others = _others(config)
    if not others:
        return ["-c", str(config), *arguments]
    if not _names_data(arguments):
        raise UsageError(f"{config} names the class {others[0]}, outside visionkit: to use it, say -c {config}")
    say(
        f"{config} names the class {others[0]}, outside visionkit, and is not read: to use it, say -c {config}",
        error=True,
    )
    return arguments


def _others(config: Path) -> list[str]:
    """Return the classes in a config that are not visionkit's own."""
    return sorted(name for name in configs.classes_of(config) if name.partition(".")[0] not in KNOWN)


def _names_data(arguments: Sequence[str]) -> bool:
    return any(option.name == "--data" or option.name.endswith(".root") for option in options_of(arguments))


def _complete(command: str, arguments: list[str], trust: Sequence[str] = ()) -> list[str]:
    """Without ``-c``, take the shipped config and the model from the checkpoint, where one is named."""
    if files := configs.paths(arguments):
        configs.refuse_partial(files, arguments)
        return arguments
    checkpoint = value_of(arguments, "--ckpt_path")
    if checkpoint is not None and checkpoint not in RUN_WORDS and not os.path.lexists(checkpoint):
        raise UsageError(f"--ckpt_path {missing(checkpoint, 'file or folder')}")
    if checkpoint is None or not Path(checkpoint).is_file():
        config = f"-c CONFIG: a file or one of the shipped {', '.join(configs.shipped())}"
        if command == "fit":
            raise UsageError(f"{command} needs {config}")
        if checkpoint is not None:
            raise UsageError(f"{command}: --ckpt {checkpoint}: no such checkpoint or folder of a run")
        raise UsageError(f"{command} needs --ckpt RUN, the folder of a run or a checkpoint, or {config}")
    with uncollected():
        from visionkit.models import checkpoint as checkpoints

    content = checkpoints.read(checkpoint)
    described = content[checkpoints.KEY]
    completed = [*configs.from_checkpoint(described, checkpoint, trust, content["state_dict"]), *arguments]
    if command != "fit":
        _refuse_drawn(command, checkpoint, described["model"]["classes"], arguments)
    return completed


def _refuse_drawn(command: str, checkpoint: str, classes: Sequence[str], arguments: Sequence[str]) -> None:
    """Refuse to measure on drawn shapes what was trained on other data, where no data is named."""
    from visionkit.data.shapes import SHAPES

    if not _names_data(arguments) and set(classes) - {"background"} - set(SHAPES):
        seen = ", ".join(list(classes)[:3]) + (", ..." if len(classes) > 3 else "")
        raise UsageError(
            f"{command} needs --data.root PICTURES: {checkpoint} knows {seen}, and without a root drawn shapes are "
            f"measured ({', '.join(SHAPES)})"
        )


def _nulls(arguments: list[str]) -> list[str]:
    """Write ``--model.recipe.ema null`` so that jsonargparse takes it: below a class it reads null as a word."""
    written: list[str] = []
    within = [f"--model.{key}" for key in keys_of_form("settings") | keys_of_form("class")]
    for option in options_of(arguments):
        settings, _, key = option.name.replace(".init_args", "").rpartition(".")
        null = option.value == "null" and settings in within and key != "class_path"
        written += [f'{settings}={{"{key}": null}}'] if null else option.words
    return written
