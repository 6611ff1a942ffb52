"""evaluate: how good a checkpoint, or predictions of any tool, are on labelled pictures, with intervals."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from visionkit.cli.commands.predict import Parser
from visionkit.cli.view_options import add_loading, add_views, views_asked
from visionkit.core.errors import UsageError
from visionkit.core.text import say

__all__ = ["main", "parser"]

TASKS = ("classification", "detection", "instance", "segmentation")
SPLITS = ("test", "val", "train", "all")
WRITTEN = ("evaluation.json", "images.jsonl", "numbers.npz", "predictions.jsonl", "predictions.csv")
OF_MODELS = (
    *("batch_size", "num_workers", "device", "precision", "backend", "head", "overlap"),
    *("flip", "scales", "window", "trust"),
)
"""Options that say how a model predicts."""
USUAL = {"device": "auto", "precision": "auto", "backend": "torch"}


def parser() -> Parser:
    """Return the parser of ``visionkit evaluate``."""
    p = Parser(
        prog="visionkit evaluate",
        description="Say how good a checkpoint is on labelled pictures, or how good predictions are that any tool "
        "wrote: every number with a 95 % interval, which class is taken for which, the kinds of errors and what "
        "mending each would gain, how far scores are to be believed. Writes DIR/evaluation.json and "
        "DIR/predictions.jsonl; visionkit report and visionkit compare read DIR.",
        allow_abbrev=False,
    )
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument("--ckpt", "--ckpt_path", nargs="+", metavar="CKPT",
                      help="checkpoint of visionkit fit or visionkit.save, or the folder of a run; several predict "
                      "together, as an ensemble")  # fmt: skip
    what.add_argument("--predictions", metavar="FILE",
                      help="predictions in place of a model: predictions.jsonl of visionkit predict, COCO results "
                      "(.json), a folder of YOLO text files or of masks, or a .csv with the columns image, label "
                      "and score or a column a class")  # fmt: skip
    p.add_argument("--data", required=True, metavar="ROOT",
                   help="labelled pictures: the folder of a data set in any format that fit reads, the file that lists "
                   "it, or a config; classes are joined by their names")  # fmt: skip
    p.add_argument("--out", required=True, metavar="DIR", help="folder for the results; made if need be")
    p.add_argument("--split", choices=SPLITS,
                   help="which pictures (default: the test split where there is one, else the val split; where the "
                   "data bring neither, those that validated in the run; all of data without splits that were not "
                   "trained on)")  # fmt: skip
    p.add_argument("--task", choices=TASKS,
                   help="what the labels are for, where --predictions do not come with a model and the data fit "
                   "several; detection counts the boxes alone of a model that finds masks")  # fmt: skip
    p.add_argument("--head", metavar="NAME", help="the head of a joint model that is evaluated")
    p.add_argument("--choose", metavar="RULE",
                   help="also choose a threshold for each class: f1, 'precision>=0.95' or 'recall>=0.9' (a promise: it "
                   "is kept in 95 of 100 cases, or the command says that it cannot be given), 'precision~0.95' (a "
                   "plain estimate). They are chosen on the val split and told on the one that is measured, and stored "
                   "in the checkpoint, where predict finds them; none takes them out of it")  # fmt: skip
    p.add_argument("--coco-annotations", metavar="FILE",
                   help="COCO annotation file whose ids of images and categories COCO results use, where they are not "
                   "those of the data")  # fmt: skip
    p.add_argument("--allow-missing", action="store_true",
                   help="leave out pictures that --predictions say nothing of, where each needs a class, or one for "
                   "each pixel (default: they are refused)")  # fmt: skip
    add_loading(p)
    p.add_argument("--device", metavar="DEVICE", help="cpu, cuda, cuda:1, mps or auto (default: auto)")
    p.add_argument("--precision", choices=("auto", "32", "bf16", "int8"),
                   help="as in visionkit predict (default: auto, bf16 where the processor is fast at it)")  # fmt: skip
    p.add_argument("--backend", choices=("torch", "compile", "openvino", "onnx"),
                   help="what computes the network (default: torch)")  # fmt: skip
    add_views(p)
    p.add_argument("--overwrite", action="store_true", help="replace an evaluation that DIR already holds")
    p.add_argument("--trust", action="append", default=[], metavar="PACKAGE",
                   help="a package beside visionkit whose classes the checkpoint may name (repeatable)")  # fmt: skip
    return p


def main(command: str, arguments: Sequence[str]) -> int:
    """Run the command; the status is 1 when some pictures could not be read, or thresholds not be stored."""
    if not arguments:
        raise UsageError(
            "visionkit evaluate needs a model or predictions, labelled pictures and a folder for the results: "
            "visionkit evaluate --ckpt runs/classify-1 --data PHOTOS --out evaluation; see visionkit evaluate --help"
        )
    options = parser().parse_args(arguments)
    _check(options)
    for name, usual in USUAL.items():
        if getattr(options, name) is None:
            setattr(options, name, usual)

    from visionkit.cli.counter import counting
    from visionkit.cli.evaluating import evaluate_checkpoints, evaluate_file

    with counting() as progress:
        if options.predictions is not None:
            result = evaluate_file(options, progress)
        else:
            result = evaluate_checkpoints(options, views_asked(options), progress)
    if result.problems:
        count = f"{len(result.problems)} of {len(result.problems) + len(result.evaluation.images)}"
        say(*result.problems, f"error: {count} pictures are left out of all numbers", error=True)
    say(*result.lines)
    if result.fault is not None:
        say(f"error: {result.fault}", error=True)
    return 1 if result.problems or result.fault else 0


def _check(options: argparse.Namespace) -> None:
    """Refuse what cannot be, before anything heavy is imported.

    Raises:
        UsageError: Options do not fit each other, or the folder holds results.
    """
    if options.predictions is not None:
        given = [name for name in OF_MODELS if getattr(options, name) not in (None, False, [])]
        if given:
            raise UsageError(f"--{given[0].replace('_', '-')} is for a model: with --predictions leave it out")
    elif options.coco_annotations is not None:
        raise UsageError("--coco-annotations tells the ids of --predictions: with --ckpt leave it out")
    elif options.allow_missing:
        raise UsageError("--allow-missing speaks of --predictions: with --ckpt leave it out")
    if options.batch_size is not None and options.batch_size < 1:
        raise UsageError(f"--batch-size must be at least 1, got {options.batch_size}")
    if options.num_workers is not None and options.num_workers < 0:
        raise UsageError(f"--num-workers must be at least 0, got {options.num_workers}")
    _refuse_twice(options.ckpt or ())
    if options.choose == "none" and (options.predictions is not None or len(options.ckpt) > 1):
        raise UsageError("--choose none takes thresholds out of a checkpoint: give one with --ckpt")
    there = [name for name in WRITTEN if os.path.lexists(os.path.join(options.out, name))]
    if there and not options.overwrite:
        raise UsageError(
            f"{options.out} already holds {there[0]}: choose another --out, or replace it with --overwrite"
        )


def _refuse_twice(checkpoints: Sequence[str]) -> None:
    """Refuse a checkpoint that is given twice, be it once as the folder of its run.

    Raises:
        DataError: A folder holds no checkpoint.
        UsageError: One is.
    """
    if len(checkpoints) < 2:
        return
    from visionkit.models.run_folder import find_checkpoint

    first: dict[str, str] = {}
    for name in checkpoints:
        real = os.path.realpath(find_checkpoint(name))
        before = first.get(real)
        if before is not None:
            same = "" if before == name else f" (as {before})"
            raise UsageError(f"--ckpt {name}: given twice{same}; an ensemble is made of different models")
        first[real] = name
