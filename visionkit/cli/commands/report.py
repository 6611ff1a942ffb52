"""report: an evaluation or a training as one page with words, numbers, charts and pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from visionkit.cli.commands.predict import Parser
from visionkit.core.errors import DataError, UsageError, VisionkitError
from visionkit.core.files import missing
from visionkit.core.text import say

if TYPE_CHECKING:
    from visionkit.evaluation.report.gallery import PixelTruth
    from visionkit.evaluation.report.source import Source
    from visionkit.prediction.explain import Explainer

__all__ = ["main", "parser"]


def parser() -> Parser:
    """Return the parser of ``visionkit report``."""
    p = Parser(
        prog="visionkit report",
        description="Write an evaluation, or a training, as one page of HTML that loads nothing: what is right and "
        "what is confused in words, numbers with intervals, what to do next, curves, a confusion matrix whose cells "
        "show their pictures, the worst pictures with truth beside prediction, suspected labels, thresholds, the "
        "data, and how all was made. Pictures whose files are gone or have changed are left out, and counted.",
        allow_abbrev=False,
    )
    p.add_argument("folder", metavar="RUN_OR_EVALUATION_DIR",
                   help="what visionkit evaluate wrote with --out, or the folder of a run: with the newest evaluation "
                   "that lies in it (evaluate --out RUN/evaluation), or else what the training knows; or of members "
                   "(runs/NAME-1), with that of their ensemble")  # fmt: skip
    p.add_argument("--out", required=True, metavar="FILE.html", help="the page; its folder is made if need be")
    p.add_argument("--pictures", type=int, default=200, metavar="N",
                   help="most pictures in the page; 200 make 1.5 MB at most (default: 200)")  # fmt: skip
    p.add_argument("--data", metavar="ROOT",
                   help="where the pictures lie now (default: where they were measured)")  # fmt: skip
    p.add_argument("--explain", action="store_true",
                   help="also show where in the worst pictures the evidence lies for what the model says, as predict "
                   "--explain does; the checkpoint must be the one that was evaluated")  # fmt: skip
    p.add_argument("--explain-pictures", type=int, metavar="N",
                   help="most pictures that --explain explains (default: 20)")  # fmt: skip
    p.add_argument("--trust", action="append", default=[], metavar="PACKAGE",
                   help="with --explain: a package beside visionkit whose classes the checkpoint may name "
                   "(repeatable)")  # fmt: skip
    p.add_argument("--overwrite", action="store_true", help="replace FILE.html where it exists")
    return p


def main(command: str, arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parser().parse_args(arguments)
    if options.pictures < 0:
        raise UsageError(f"--pictures {options.pictures}: a number from 0 on")
    if options.explain_pictures is not None and not (options.explain and options.explain_pictures > 0):
        what = "a number from 1 on" if options.explain else "it says how many pictures --explain explains: add that"
        raise UsageError(f"--explain-pictures {options.explain_pictures}: {what}")
    from visionkit.cli.commands.backbone import new_file

    out = new_file(options.out, ".html", "a page", overwrite=options.overwrite)

    if options.data is not None and not os.path.exists(options.data):
        raise DataError(f"--data {missing(options.data, 'folder or file')}")

    from visionkit.evaluation.report.page import EXPLAINED, write_report
    from visionkit.evaluation.report.source import find_source

    source = find_source(options.folder)
    left_out = write_report(
        source,
        out,
        pictures=options.pictures,
        data=options.data,
        truth=_truth(source, options.data),
        explainer=_explainer(source, options.trust) if options.explain else None,
        explained=options.explain_pictures or EXPLAINED,
    )
    for line in (*source.remarks, *left_out):
        say(f"note     {line}")
    say(f"report   {out} ({out.stat().st_size / 1e6:.1f} MB)")
    return 0


def _explainer(source: Source, trust: Sequence[str]) -> Explainer:
    """Return what explains the model that was evaluated.

    Raises:
        UsageError: There is none, there are several, or it has several heads.
        DataError: Its file is gone, or holds another model now.
    """
    from visionkit.models import checkpoint
    from visionkit.models.model_digest import holds_model
    from visionkit.prediction.explain import Explainer
    from visionkit.tasks.multitask.head import MultiTaskHead

    models = source.facts.rows("model", "checkpoints")
    if len(models) != 1:
        what = "an ensemble: it explains what one model goes by" if models else "no model: there is nothing to explain"
        raise UsageError(f"--explain: {source.given} is an evaluation of {what}")
    path, digest = (source.facts.text("model", "checkpoints", 0, key) for key in ("path", "sha256"))
    if not holds_model(path, digest):
        raise DataError(
            f"{path}: holds another model than the one that was evaluated; evaluate again, or leave --explain out"
        )
    model = checkpoint.load(path, trust=trust)
    if isinstance(model.head, MultiTaskHead):
        raise UsageError(
            f"--explain: {path} has several heads; take out the one with visionkit heads take and evaluate it"
        )
    return Explainer(model, thresholds=model.thresholds)


def _truth(source: Source, data: str | None) -> PixelTruth | None:
    """Return what finds the true classes of the pixels of a picture, where the data are there still."""
    evaluation = source.evaluation
    root = data or source.facts.text("data", "root")
    if evaluation is None or evaluation.task != "segmentation" or not root:
        return None
    from visionkit.evaluation.report.truth import true_pixels

    def load(split: Any) -> Any:
        from visionkit.cli.measured import data_for

        try:
            return data_for(root, task="segmentation", split=split, classes=evaluation.classes).dataset
        except VisionkitError:
            return None

    return true_pixels(evaluation, load, source.facts.text("data", "split"), data)
