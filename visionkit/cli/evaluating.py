"""What ``visionkit evaluate`` does, step by step."""

from __future__ import annotations

import shlex
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from visionkit.cli.choosing import choose_thresholds, forget_thresholds, stored
from visionkit.cli.measured import MeasuredData, NoSplitError, data_for
from visionkit.cli.predicting import Source, open_checkpoints, told_checkpoint
from visionkit.cli.trained_on import Training, training_of
from visionkit.core.errors import DataError, UsageError
from visionkit.core.machine import choose_workers
from visionkit.core.text import say
from visionkit.evaluation.counting import Count, Predicts, count, count_predictions
from visionkit.evaluation.evaluate import evaluation_of, new_count
from visionkit.evaluation.folder import Evaluation, new_metric
from visionkit.evaluation.inputs.reading import read_predictions
from visionkit.evaluation.output import records_of, writing_predictions
from visionkit.evaluation.rules import Rule
from visionkit.evaluation.view_gain import gain_of_views
from visionkit.evaluation.words import summary_of
from visionkit.models.head import Head
from visionkit.prediction.pictures import ImageFile
from visionkit.prediction.views import Views
from visionkit.training.redraw import RedrawnMetric

__all__ = ["Evaluated", "evaluate_checkpoints", "evaluate_file"]

Progress: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True)
class Evaluated:
    """What was done.

    Args:
        evaluation: The numbers, as they were written.
        problems: A line for each picture that was left out.
        lines: What to say at the end.
        fault: What went wrong beside the numbers, in a line.
    """

    evaluation: Evaluation
    problems: Sequence[str]
    lines: Sequence[str]
    fault: str | None = None


def evaluate_checkpoints(options: Namespace, views: Views | None, progress: Progress | None) -> Evaluated:
    """Evaluate one checkpoint, or several as an ensemble.

    Args:
        options: Of the command, checked.
        views: What the network sees of each picture beside the whole; None for nothing else.
        progress: Called with (done, total) after each picture.

    Raises:
        DataError: A checkpoint or the data cannot be used.
        UsageError: What is asked does not fit together.
    """
    rule = _rule(options)
    source = open_checkpoints(options, _tell)
    say(*source.lines, error=True)
    task = _task_of(source, options.task)
    if rule is not None:
        _refuse_pixels(task)
    trainings = {ckpt: training_of(ckpt, options.head) for ckpt in source.ckpts}
    data = _data(options, source, task, trainings, options.split)
    _say_data(data)
    metric = _metric(source.head, data, source.classes)
    beside = _beside(options, source, task, trainings, data) if rule is not None or len(source.ckpts) > 1 else None
    pictures = [ImageFile(id) for id in data.dataset.ids]
    predictor = source.make(pictures, None)
    fitted = judge = None
    if len(source.ckpts) > 1:
        predictor, fitted = _weighed(predictor, data, beside, rule)
        judge = _judge(predictor, lambda: _metric(source.head, data, source.classes)) if views is None else None
    workers = choose_workers() if options.num_workers is None else options.num_workers
    entry = None
    with writing_predictions(
        options.out, source.head, source.classes, data.dataset.ids, overwrite=options.overwrite
    ) as keep:
        counted = new_count(data.dataset, metric)
        first = keep if views is None else None
        count(predictor, data.dataset, counted, workers=workers, keep=first, judge=judge, progress=progress)
        if views is not None:
            plain, kept = counted, _readable(data, counted)
            several = _same_weights(source.make(pictures, views), predictor)
            counted = new_count(kept, _metric(source.head, data, source.classes))
            if len(source.ckpts) > 1:
                judge = _judge(several, lambda: _metric(source.head, data, source.classes))
            count(several, kept, counted, workers=workers, keep=keep, judge=judge, progress=progress)
            if len(counted.images) == len(plain.images):
                entry = gain_of_views(plain, counted, _words_of(options))
            counted.problems[:0] = plain.problems
            predictor = several
    told = _evaluation(counted, data, options, predictor)
    told.views = entry
    if judge is not None:
        told.ensemble = judge.entry(counted.metric, fitted, told.groups)
        told.model["weights"] = dict(zip(source.ckpts, predictor.weights, strict=True))  # type: ignore[attr-defined]
    lines: list[str] = []
    fault = None
    if rule is not None:
        chosen = None if beside is None else _evidence(predictor, beside, source, workers, progress)
        lines = choose_thresholds(rule, told, counted, chosen, beside, data)
        lines, fault = stored(told, lines, source)
    elif options.choose == "none":
        lines = forget_thresholds(source)
    told.model["checkpoints"] = list(map(told_checkpoint, source.ckpts, source.digests))
    return _done(told, counted, data, options, lines, fault)


def evaluate_file(options: Namespace, progress: Progress | None) -> Evaluated:
    """Evaluate predictions of a file or folder.

    Args:
        options: Of the command, checked.
        progress: Called with (done, total) after each picture.

    Raises:
        DataError: The predictions or the data cannot be used.
        UsageError: What is asked does not fit together.
    """
    rule = _rule(options)
    _refuse_own(Path(options.predictions), Path(options.out))
    data = data_for(options.data, task=options.task, split=options.split)
    if rule is not None:
        _refuse_pixels(data.task)
    _say_data(data)
    classes = data.dataset.classes
    found = read_predictions(
        options.predictions,
        task=data.task,
        dataset=data.dataset,
        classes=classes,
        root=str(data.root),
        coco_annotations=options.coco_annotations,
        allow_missing=options.allow_missing,
    )
    say(f"read     {found.source}")
    say(*(f"warning: {remark}" for remark in found.remarks), error=True)
    metric = new_metric(data.task, classes, multilabel=bool(getattr(data.dataset, "multilabel", False)))
    counted = new_count(data.dataset, metric)
    with writing_predictions(
        options.out, records_of(data.task), classes, data.dataset.ids, overwrite=options.overwrite
    ) as keep:
        count_predictions(found, data.dataset, counted, keep=keep, progress=progress)
    told = _evaluation(counted, data, options, None, found.unknown)
    lines = []
    if rule is not None:
        lines = [*choose_thresholds(rule, told, counted, None, None, data), "they stand in evaluation.json"]
    return _done(told, counted, data, options, lines)


# ---- before


def _rule(options: Namespace) -> Rule | None:
    return None if options.choose in (None, "none") else Rule.parse(options.choose)


def _refuse_pixels(task: str) -> None:
    """Refuse thresholds of pixels.

    Raises:
        UsageError: They are asked for.
    """
    if task == "segmentation":
        raise UsageError("--choose chooses thresholds of classes and objects: a class for each pixel has none")


def _refuse_own(predictions: Path, out: Path) -> None:
    """Refuse predictions that lie where the results go.

    Raises:
        UsageError: They would be replaced while they are read.
    """
    place, folder = predictions.resolve(), out.resolve()
    if place == folder or folder in place.parents:
        raise UsageError(f"--out {out}: holds the predictions that are measured ({predictions}); choose another folder")


def _tell(line: str) -> None:
    say(line, error=line.startswith("warning:"))


def _task_of(source: Source, asked: Any) -> Any:
    """Return what is measured: what the model predicts, or its boxes alone.

    Raises:
        UsageError: Something else is asked for.
    """
    own = source.task
    if asked in (None, own) or (own, asked) == ("instance", "detection"):
        return asked or own
    boxes = " (or detection, for its boxes alone)" if own == "instance" else ""
    raise UsageError(f"--task {asked}: {source.ckpts[0]} is for {own}{boxes}: leave --task out")


def _data(
    options: Namespace, source: Source, task: Any, trainings: dict[str, Training | None], split: Any
) -> MeasuredData:
    multilabel = bool(getattr(source.head, "multilabel", False)) if task == "classification" else None
    return data_for(
        options.data,
        task=task,
        split=split,
        classes=source.classes,
        channels=source.channels,
        multilabel=multilabel,
        trainings=trainings,
    )


def _say_data(data: MeasuredData) -> None:
    part = "all pictures" if data.split == "all" else f"the {data.split} split"
    say(f"data     {part} of {data.root} ({data.format or 'painted outlines'}): {len(data.dataset):,} pictures")
    say(*(f"warning: {line}" for line in data.warnings), error=True)


def _beside(
    options: Namespace, source: Source, task: Any, trainings: dict[str, Training | None], data: MeasuredData
) -> MeasuredData | None:
    """Return the val split, where another one is measured and there is one: what is chosen is chosen there.

    None where there is none, or where pictures of it may have trained a model.
    """
    if data.split in ("val", "all"):
        return None
    try:
        beside = _data(options, source, task, trainings, "val")
    except NoSplitError:
        return None
    if beside.warnings:
        say(*(f"warning: val split: {line}" for line in beside.warnings), error=True)
        say("warning: so nothing is chosen on the val split", error=True)
        return None
    return beside


def _metric(head: Head, data: MeasuredData, classes: Sequence[str]) -> RedrawnMetric[Any, Any]:
    """Return a new metric, the one that ``validate`` takes.

    Raises:
        UsageError: The head has one of its own, which evaluate does not know.
    """
    usual = new_metric(data.task, classes, multilabel=bool(getattr(head, "multilabel", False)))
    made = head.metric(classes)
    if data.task == "detection" and getattr(made, "masks", False):
        made = usual  # the boxes alone of a model that finds masks
    if type(made) is not type(usual):
        raise UsageError(
            f"the metric of {type(head).__name__} is a {type(made).__name__}, and evaluate counts by "
            f"{type(usual).__name__}: visionkit validate and visionkit test take it"
        )
    return made


# ---- several checkpoints


def _weighed(ensemble: Any, data: MeasuredData, beside: MeasuredData | None, rule: Rule | None) -> tuple[Any, Any]:
    """Return the ensemble with the weights that its members shall have, and what was fitted.

    Thresholds hold for the weights under which they were chosen: without a split to fit others on, these stay equal.
    """
    from visionkit.evaluation.ensembling import fit_weights, not_fitted

    if beside is None and rule is not None:
        why = "equal: the thresholds are chosen with them, and there is no other split to fit weights on"
        return ensemble, not_fitted(ensemble, why)
    on = beside or data
    fitted = fit_weights(ensemble, on.dataset, groups=getattr(on.dataset, "groups", None), tell=_tell)
    return (ensemble if beside is None else ensemble.with_weights(fitted.weights)), fitted


def _same_weights(several: Any, predictor: Any) -> Any:
    weights = getattr(predictor, "weights", None)
    return several if weights is None else several.with_weights(weights)


def _judge(ensemble: Any, make_metric: Callable[[], RedrawnMetric[Any, Any]]) -> Any:
    from visionkit.evaluation.ensembling import MembersJudged

    return MembersJudged(ensemble, make_metric)


# ---- while


def _readable(data: MeasuredData, counted: Count) -> Any:
    """Return the pictures that could be counted."""
    kept = {image.id for image in counted.images}
    return data.dataset.subset([i for i, id in enumerate(data.dataset.ids) if id in kept])


def _words_of(options: Namespace) -> str:
    """Return the views as they were asked for."""
    scales = None if options.scales is None else ",".join(f"{s:g}" for s in options.scales)
    window = "x".join(map(str, options.window)) if isinstance(options.window, tuple) else options.window
    given = {"--scales": scales, "--window": window, "--overlap": options.overlap}
    return " ".join(["--flip"] * options.flip + [f"{k} {v}" for k, v in given.items() if v is not None])


def _evidence(
    predictor: Predicts, beside: MeasuredData, source: Source, workers: int, progress: Progress | None
) -> Any:
    """Return what the val split says of thresholds."""
    counted = new_count(beside.dataset, _metric(source.head, beside, source.classes))
    try:
        count(predictor, beside.dataset, counted, workers=workers, progress=progress)
    except DataError as e:  # none of them can be read: what was measured is told all the same
        say(*(f"warning: {beside.split} split: {line}" for line in e.lines), error=True)
        return None
    if counted.problems:
        what = f"warning: {len(counted.problems)} pictures of the {beside.split} split had no part in the choice"
        say(*(line for e in counted.problems for line in e.lines), what, error=True)
    return counted.evidence


# ---- after


def _evaluation(
    counted: Count, data: MeasuredData, options: Namespace, predictor: Any, unknown: Sequence[str] = ()
) -> Evaluation:
    where = {"root": str(Path(options.data).absolute()), "split": data.split, "format": data.format}
    model: dict[str, Any] = {
        "checkpoints": [],
        "predictions": None if options.predictions is None else str(Path(options.predictions).absolute()),
        "views": _words_of(options) or None,
        "precision": None,
        "weights": None,
    }
    if predictor is not None:
        models = [p.model for p in getattr(predictor, "predictors", [predictor])]
        model["precision"] = "int8" if options.precision == "int8" else "bf16" if models[0].fast else "32"
        model |= {"backend": options.backend, "device": str(predictor.device)}
    return evaluation_of(counted, task=data.task, data=where, model=model, unknown=unknown)


def _done(
    told: Evaluation,
    counted: Count,
    data: MeasuredData,
    options: Namespace,
    chosen: Sequence[str],
    fault: str | None = None,
) -> Evaluated:
    """Write the numbers and return what to say of them."""
    told.write(options.out, overwrite=True)  # the old ones have gone
    page = Path(options.out).name or "report"
    steps = [f"visionkit report {shlex.quote(options.out)} --out {shlex.quote(page)}.html"]
    lines = [*summary_of(told, options.out, next_steps=steps)]
    at = next((k for k, line in enumerate(lines) if line.startswith("next ")), len(lines))
    lines[at:at] = chosen
    return Evaluated(told, [line for e in counted.problems for line in e.lines], lines, fault)
