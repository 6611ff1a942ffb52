"""Two trainings of one network and more: as one model, averaged into one, and one of them with views, with the cost.

Nothing is trained. Measured is the number that chose the checkpoints (top-1, mAP, mIoU), against the truth, in original
pixels: on the test split where the data has one, else on the val split. ``gain`` is over the mean of the checkpoints
alone, ``gain_best`` over the best of them, with the paired interval of 95 % over images. ``cost`` is the time of the
networks, in times of the first one's. The soup is cooked on the val split: where that is measured, too, its gain
flatters.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

KEY = "metric"
REFERENCES = ["first"]
CASES = ("first", "second", "ensemble", "soup", "flip", "scales")
VIEWS = {"flip": {"flip": True}, "scales": {"scales": (1.0, 1.25)}}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this comparison's options."""
    parser.add_argument("--ckpt", required=True, nargs="+", help="two checkpoints of visionkit fit, or more")
    parser.add_argument("--data", required=True, help="their data")


def cases(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each case."""
    given = ["--data", options.data, "--ckpt", *options.ckpt]
    return {name: [sys.executable, __file__, name, *given] for name in CASES}


def main() -> None:
    """Run one case and print its figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=CASES)
    add_arguments(parser)
    options = parser.parse_args()

    from visionkit.cli.commands.soup import task_of
    from visionkit.cli.measured import data_for
    from visionkit.cli.trained_on import training_of
    from visionkit.evaluation.ensembling import mean_gain
    from visionkit.prediction.ensemble import make_applied
    from visionkit.prediction.members import Members
    from visionkit.prediction.views import Views

    members = Members.load(options.ckpt)
    singles = [Members.of([name], [model]) for name, model in zip(members.names, members.models, strict=True)]
    asked = {
        "task": task_of(members.models[0]),
        "classes": members.classes,
        "channels": members.channels,
        "trainings": {name: training_of(name) for name in members.names},
    }
    data = data_for(options.data, **asked).dataset

    def measured(some: Members, views: Views | None = None) -> tuple[object, float]:
        predictor = make_applied(some, [], "torch", "auto", views, batch_size=None, calibrate=None, tell=None)
        metric = members.head.metric(members.classes)
        ready = (predictor.prepare(data[k], keep=False) for k in range(len(data)))
        start = time.process_time()
        for index, result in enumerate(predictor.results(ready)):
            metric.update([result[1]], [data[index].target])
        return metric, time.process_time() - start

    alone = [measured(one) for one in singles]
    seconds = alone[0][1]
    if options.case in ("first", "second"):
        found = alone[("first", "second").index(options.case)]
    elif options.case == "ensemble":
        found = measured(members)
    elif options.case == "soup":
        found = measured(cooked(members, data_for(options.data, split="val", **asked).dataset,
                                data_for(options.data, split="train", **asked).dataset))  # fmt: skip
    else:
        found = measured(singles[0], Views(**VIEWS[options.case]))
    metrics = [metric for metric, _ in alone]
    best = max(metrics, key=lambda m: float(m.compute()[m.monitor]))
    images = range(len(data))
    over_mean, over_best = mean_gain(found[0], metrics, images), mean_gain(found[0], [best], images)
    figures = {
        KEY: round(float(found[0].compute()[found[0].monitor]), 4),
        "name": found[0].monitor,
        "images": len(data),
        "gain": [round(v, 4) for v in (over_mean.value, over_mean.low, over_mean.high)],
        "gain_best": [round(v, 4) for v in (over_best.value, over_best.low, over_best.high)],
        "cost": round(found[1] / seconds, 2),
    }
    print(json.dumps(figures))


def cooked(members: object, val: object, train: object) -> object:
    """Return the soup of the models, as ``visionkit soup`` makes it."""
    from visionkit.cli.commands.soup import pictures_of, value_of
    from visionkit.evaluation.soup import Ingredient, check_alike, cook
    from visionkit.models import checkpoint
    from visionkit.prediction.members import Members
    from visionkit.prediction.resuming import digest

    parts = [Ingredient(*p) for p in zip(members.names, map(digest, members.files), members.models, strict=True)]
    check_alike(parts)
    content = checkpoint.read(members.files[0])
    soup = cook(
        parts,
        lambda model: value_of(model, val, None, 0),
        lambda: pictures_of(members.models[0], train, 0),
        make=lambda: checkpoint.make_model(content[checkpoint.KEY], members.files[0]),
        tell=lambda line: print(line, file=sys.stderr),
    )
    return Members.of(["soup"], [soup.model])


if __name__ == "__main__":
    main()
