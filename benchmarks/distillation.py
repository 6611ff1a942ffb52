"""What a teacher is worth: the same ResNet from labels alone and taught by an ensemble, at equal wall time.

The time is that of the whole command that trains the student, from its first import to its last word, with the
teachers' passes in it; planning, sizes and start weights are the same for both. Each round has another seed. The number
that counts is that of the end of the training; ``best`` stands beside it.

The teachers are trained beforehand, once, as members of one ensemble, for ``--teacher-minutes`` each, unless
``--teachers`` names some: their mean stands in ``teachers``, and their time counts for nobody.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KEY = "metric"
REFERENCES = ["labels"]
CASES = ("labels", "distilled")
METRICS = {"classification": "val/top1", "detection": "val/map", "segmentation": "val/miou"}
TEACHERS_SEED = 1000  # no student has it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this comparison's options."""
    parser.add_argument("--data", required=True, help="the folder that visionkit train takes")
    parser.add_argument("--task", choices=list(METRICS), default="classification")
    parser.add_argument("--minutes", type=float, default=10.0, help="for each student")
    parser.add_argument("--depth", type=int, default=18, help="of the student's ResNet")
    parser.add_argument("--weights", default="none", metavar="FILE", help="the student's start weights; none: random")
    parser.add_argument("--teachers", nargs="+", metavar="RUN", help="checkpoints or runs that teach")
    parser.add_argument("--members", type=int, default=3, help="teachers that are trained otherwise")
    parser.add_argument("--teacher-minutes", type=float, default=20.0, help="for each of them")
    parser.add_argument("--teacher-depth", type=int, default=18, help="of their ResNets")
    parser.add_argument("--teacher-weights", metavar="FILE", help="their start weights; default: the student's")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further keys for every training")


def cases(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each case."""
    given = ["--data", options.data, "--task", options.task, "--weights", options.weights]
    for name in ("minutes", "depth", "members", "teacher_minutes", "teacher_depth"):
        given += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    given += ["--teacher-weights", options.teacher_weights] if options.teacher_weights else []
    given += ["--teachers", *options.teachers] if options.teachers else []
    given += ["--home", tempfile.mkdtemp(), "--seed", "{turn}"]
    return {name: [sys.executable, __file__, name, *given, "--set", *options.set] for name in CASES}


def student(options: argparse.Namespace, teachers: list[str]) -> dict[str, float]:
    """Train the student in an empty folder; return metric and wall time."""
    from visionkit.cli.main import run

    further = [f"--model.teacher={json.dumps(teachers)}"] if teachers else []
    command = training(options, options.minutes, options.depth, options.weights, options.seed)
    start, before = time.perf_counter(), os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            if status := run([*command, *further]):
                sys.exit(status)
        finally:
            os.chdir(before)
        seconds = time.perf_counter() - start
        values, epochs = values_of(next(Path(folder).glob("runs/*/metrics.csv")), METRICS[options.task])
    taught = [
        values_of(Path(path) / "metrics.csv", METRICS[options.task])[0][-1] for path in teachers if not options.teachers
    ]
    mean = {"teachers": sum(taught) / len(taught)} if taught else {}
    return {KEY: values[-1], "best": max(values), "seconds": seconds, "epochs": epochs, **mean}


def trained_teachers(options: argparse.Namespace) -> list[str]:
    """Return the teachers: those that are named, or an ensemble that the first round trains for all."""
    if options.teachers:
        return [str(Path(path).resolve()) for path in options.teachers]
    home, members = Path(options.home), options.members
    if not list(home.glob("runs/*/members.json")):
        weights = options.teacher_weights or options.weights
        command = training(options, members * options.teacher_minutes, options.teacher_depth, weights, TEACHERS_SEED)
        command = [sys.executable, "-m", "visionkit", *command, f"--members={members}"]
        subprocess.run(command, cwd=home, check=True, stdout=sys.stderr)
    return [str(path) for path in sorted(home.glob("runs/*/member-*"))]


def training(options: argparse.Namespace, minutes: float, depth: int, weights: str, seed: int) -> list[str]:
    """Return the arguments of ``visionkit`` that train a ResNet."""
    file = "null" if weights == "none" else str(Path(weights).resolve())
    command = ["train", str(Path(options.data).resolve()), "--task", options.task]
    command += [f"--minutes={minutes}", f"--seed_everything={seed}"]
    command += ["--model.backbone=ResNet", f"--model.backbone.depth={depth}", f"--model.backbone.weights={file}"]
    return [*command, "--trainer.accelerator=cpu", "--trainer.logger=false", *(f"--{pair}" for pair in options.set)]


def values_of(table: Path, key: str) -> tuple[list[float], float]:
    """Return a metric of each epoch that was validated, and how many epochs there were."""
    with table.open() as file:
        rows = [row for row in csv.DictReader(file) if row.get(key)]
    return [float(row[key]) for row in rows], float(rows[-1]["epoch"])


def main() -> None:
    """Run one case and print its figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--home", required=True, help="folder of the teachers that are trained")
    parser.add_argument("--seed", type=int, default=0)
    add_arguments(parser)
    options = parser.parse_args()
    found = student(options, trained_teachers(options) if options.case == "distilled" else [])

    from measuring.figures import report

    report(found)


if __name__ == "__main__":
    main()
