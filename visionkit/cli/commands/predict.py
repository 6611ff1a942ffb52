"""predict: apply a checkpoint to pictures; needs no YAML."""

from __future__ import annotations

import argparse
import difflib
import os
import shlex
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from visionkit.cli.config.options import each_checkpoint, options_of
from visionkit.cli.view_options import add_loading, add_views, views_asked
from visionkit.core.errors import UsageError
from visionkit.core.text import say
from visionkit.models.run_folder import is_checkpoint

__all__ = ["main"]

STDIN = "-"
"""Stands for standard input."""
CKPT = ("--ckpt", "--ckpt_path", "--weights")


class Parser(argparse.ArgumentParser):
    """An argument parser that raises instead of printing its usage, and names the nearest option."""

    def error(self, message: str) -> NoReturn:
        """Raise a UsageError."""
        if message.startswith("unrecognized arguments:"):
            options = [o for action in self._actions for o in action.option_strings]
            unknown = [w for w in message.partition(":")[2].split() if w.startswith("-")]
            for word in unknown:
                near = difflib.get_close_matches(word.partition("=")[0], options, n=1)
                if near:
                    message += f"; did you mean {near[0]}?"
        raise UsageError(f"{self.prog}: {message}; see {self.prog} --help")


def parser() -> Parser:
    """Return the parser of ``visionkit predict``."""
    p = Parser(
        prog="visionkit predict",
        description="Apply a checkpoint to pictures. Writes DIR/predictions.jsonl, one record a picture, and "
        "DIR/predictions.csv. A classifier's hold image, label, score and the probability of each class by name; a "
        "detector's hold the objects with label, score and box, in the table one row an object; a segmenter's hold "
        "the pixels and the share of each class, and DIR/masks/ gets a picture of class ids for each.",
        allow_abbrev=False,
    )
    p.add_argument("pictures", nargs="*", metavar="PICTURES",
                   help="any of: picture files, folders (searched through), quoted globs, .csv/.jsonl manifests, whose "
                   "further columns come back in the records, http(s) URLs, which are read into memory, and - for the "
                   "bytes of one picture on standard input")  # fmt: skip
    p.add_argument("--list", metavar="FILE", dest="listed",
                   help="a file with the path of a picture in each line, or - for such lines on standard "
                   "input")  # fmt: skip
    p.add_argument(*CKPT, required=True, action="append", metavar="FILE",
                   help="checkpoint of visionkit fit or visionkit.save, or the folder of a run. Several (--ckpt A B) "
                   "predict as one: classes are joined by name, probabilities averaged, boxes and masks of one object "
                   "put together; all of them are in memory at once, and time adds up")  # fmt: skip
    p.add_argument("--fitted", metavar="DIR",
                   help="an evaluation of the same checkpoints (visionkit evaluate --ckpt A B): they count as much as "
                   "it found best, and its thresholds are used (default: all count the same)")  # fmt: skip
    p.add_argument("--out", required=True, metavar="DIR", help="folder for the results; made if need be")
    p.add_argument("--backend", choices=("torch", "compile", "openvino", "onnx"), default="torch",
                   help="what computes the network: torch; compile, code made for this machine (torch.compile: needs a "
                   "C++ compiler and half a minute); openvino, the fastest on most CPUs (pip install "
                   "'visionkit[openvino]'); or onnx, ONNX Runtime (pip install 'visionkit[onnx]'); predictions are "
                   "the same up to rounding (default: torch)")  # fmt: skip
    add_loading(p)
    p.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: a GPU when there is one)")
    p.add_argument("--precision", choices=("auto", "32", "bf16", "int8"), default="auto",
                   help="arithmetic of the network (default: bf16 where the processor is fast at it and the backend "
                   "has it: onnx computes in 32 bits); int8, with --backend openvino alone, is faster by half and "
                   "worth it for thousands of pictures (pip install 'visionkit[int8]'): it learns the range of each "
                   "map from pictures first, and says how near its predictions are to those in 32 bits")  # fmt: skip
    p.add_argument("--calibrate", nargs="+", metavar="PICTURES",
                   help="pictures that --precision int8 learns ranges from, at most 150 of them, evenly spaced "
                   "(default: the pictures that are predicted)")  # fmt: skip
    add_views(p)
    p.add_argument("--save-images", action="store_true",
                   help="also write DIR/images/, the pictures with predictions")  # fmt: skip
    p.add_argument("--save-crops", action="store_true",
                   help="also cut each object that a detector finds out of its picture, in full size, into "
                   "DIR/crops/CLASS/; those from --min-score on, or the ones that are drawn")  # fmt: skip
    p.add_argument("--explain", action="store_true",
                   help="also write DIR/explanations/: maps of where in a picture the evidence lies for its label, for "
                   "each of the first objects that are drawn, or for the largest regions of a class, as a picture and "
                   "a record. Each map is scored beside a blob in the centre (insertion minus deletion), which takes "
                   "some thirty times as long as the prediction: a map that scores no higher explains "
                   "nothing")  # fmt: skip
    p.add_argument("--explain-objects", type=int, metavar="N",
                   help="objects, labels or regions of a picture that --explain explains at most (default: "
                   "3)")  # fmt: skip
    p.add_argument("--reduced-decode", action="store_true",
                   help="decode large JPEGs at a half, a quarter or an eighth of their size where that is enough for "
                   "the model: several times as fast, and the last digits of scores can differ")  # fmt: skip
    p.add_argument("--format", action="append", default=[], metavar="NAME", dest="formats",
                   help="write a further format, too (repeatable); a detector's offers coco (predictions.coco.json) "
                   "and yolo (labels/, a text file a picture)")  # fmt: skip
    p.add_argument("--coco-annotations", metavar="FILE",
                   help="COCO annotation file whose ids of images, by file name, and of categories, by class name, "
                   "--format coco uses (default: from 1 on, as predictions.coco_images.json says)")  # fmt: skip
    p.add_argument("--min-score", type=float, metavar="S",
                   help="keep only objects with a score of at least S, 0..1 (default: by the thresholds that "
                   "visionkit evaluate --choose wrote into the checkpoint; without any all, and pictures show those "
                   "from 0.3 on)")  # fmt: skip
    p.add_argument("--overwrite", action="store_true", help="replace results that DIR already holds")
    p.add_argument("--resume", action="store_true",
                   help="go on where predictions into DIR stopped, with the same options: pictures that have a record "
                   "are passed over")  # fmt: skip
    p.add_argument("--trust", action="append", default=[], metavar="PACKAGE",
                   help="a package beside visionkit whose classes the checkpoint may name (repeatable)")  # fmt: skip
    return p


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    try:
        return parser().parse_intermixed_args(each_checkpoint(arguments, CKPT))
    except UsageError:
        given = options_of(arguments)
        found = next((o.name for o in given if not o.name.startswith("-") and is_checkpoint(o.name)), None)
        if found is None or any(o.name in CKPT for o in given):
            raise
        raise UsageError(
            f"{found} is a checkpoint or the folder of a run, no picture: write --ckpt {shlex.quote(found)}"
        ) from None


def _check_explain(options: argparse.Namespace) -> None:
    """Refuse options of explanations that cannot be meant."""
    if options.explain_objects is not None:
        if not options.explain:
            raise UsageError("--explain-objects says how many objects --explain explains: add that, too")
        if options.explain_objects < 1:
            raise UsageError(f"--explain-objects must be at least 1, got {options.explain_objects}")
    number = next((p for p in options.pictures if p.isdecimal() and not os.path.lexists(p)), None)
    if options.explain and number is not None:
        raise UsageError(
            f"--explain takes no number, and no picture is called {number}: add --explain-objects {number}"
        )


def _tell(line: str) -> None:
    say(line, error=line.startswith("warning:"))


def _warn(line: str) -> None:
    say(line, error=True)


def main(command: str, arguments: Sequence[str]) -> int:
    """Run the command; the status is 1 when some pictures could not be predicted (the others are)."""
    if not arguments:
        raise UsageError(
            "visionkit predict needs a model, a folder for the results and pictures: visionkit predict "
            "--ckpt runs/classify-1 --out predictions PHOTOS; see visionkit predict --help"
        )
    options = _parsed(arguments)
    if options.batch_size is not None and options.batch_size < 1:
        raise UsageError(f"--batch-size must be at least 1, got {options.batch_size}")
    if options.num_workers is not None and options.num_workers < 0:
        raise UsageError(f"--num-workers must be at least 0, got {options.num_workers}")
    if options.min_score is not None and not 0 <= options.min_score <= 1:
        raise UsageError(f"--min-score must be from 0 to 1, got {options.min_score:g}")
    if options.coco_annotations is not None and "coco" not in options.formats:
        raise UsageError("--coco-annotations gives the ids of --format coco: add that, too")
    if options.calibrate is not None and options.precision != "int8":
        raise UsageError("--calibrate names pictures for --precision int8: add that, or leave it out")
    for option, wanted in (("--save-images draws on", options.save_images), ("--save-crops cuts", options.save_crops)):
        if options.reduced_decode and wanted:
            raise UsageError(f"{option} all pixels of a picture: leave --reduced-decode out")
    _check_explain(options)
    if not options.pictures and options.listed is None:
        raise UsageError("visionkit predict: which PICTURES? Give files, folders, globs, URLs, or --list FILE")
    if STDIN in options.pictures and (options.resume or options.listed == STDIN):
        what = "--list - reads standard input, too" if options.listed == STDIN else "--resume goes on with files alone"
        raise UsageError(f"- stands for one picture on standard input; {what}: give its file instead")
    views = views_asked(options)
    paths = list(dict.fromkeys(options.ckpt))
    if options.fitted is not None and len(paths) < 2:
        raise UsageError("--fitted gives the weights of several checkpoints: give those that were evaluated together")

    from visionkit.cli.counter import counting
    from visionkit.cli.summary import summary_of
    from visionkit.prediction.explain import MOST
    from visionkit.prediction.files import predict_to_folder
    from visionkit.prediction.sources import find_images, from_stdin, read_list

    fitted = None
    if options.fitted is not None:
        from visionkit.evaluation.fitted import read_fitted

        fitted = read_fitted(options.fitted, paths)
    asked: list[Any] = [from_stdin(sys.stdin.buffer) if p == STDIN else p for p in dict.fromkeys(options.pictures)]
    asked += [] if options.listed is None else read_list(options.listed, sys.stdin.buffer)
    pictures = find_images(asked, tell=_warn)
    try:
        with counting() as progress:
            result = predict_to_folder(
                paths,
                pictures,
                options.out,
                batch_size=options.batch_size,
                num_workers=options.num_workers,
                device=options.device,
                precision=options.precision,
                save_images=options.save_images,
                save_crops=options.save_crops,
                overwrite=options.overwrite,
                trust=options.trust,
                formats=options.formats,
                annotations=options.coco_annotations,
                min_score=options.min_score,
                views=views,
                backend=options.backend,
                calibrate=None if options.calibrate is None else find_images(options.calibrate, tell=_warn),
                tell=_tell,
                progress=progress,
                reduced=options.reduced_decode,
                resume=options.resume,
                explain=(options.explain_objects or MOST) if options.explain else None,
                weights=None if fitted is None else fitted.weights,
                thresholds=None if fitted is None else fitted.thresholds,
            )
    except KeyboardInterrupt:
        say("the same command with --resume goes on", error=True)
        raise
    if result.problems:
        count = f"{len(result.problems)} of {len(pictures)}"
        say(*result.problems, f"error: {count} pictures could not be predicted", error=True)
    say(*result.remarks, error=True)
    say(*summary_of(result, options.out, save_images=options.save_images, drawable=not options.reduced_decode))
    return 1 if result.problems else 0
