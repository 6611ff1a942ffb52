"""Training a head on a frozen backbone: features computed once and kept, beside features computed in every epoch.

Both are ``visionkit fit`` with the same settings and end with the same metrics, which are printed. An epoch is training
and validation, as metrics.csv has it; the first one, in which loaders start and features are computed, is not counted.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

KEY = "ms_per_epoch"
REFERENCES = ["in every epoch"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this comparison's options."""
    parser.add_argument("--data", required=True, help="folder of class folders")
    parser.add_argument("--name", default="tf_efficientnet_lite0", help="a timm network")
    parser.add_argument("--weights", required=True, help="its weights")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=8)


def cases(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each case."""
    given = ["--data", options.data, "--name", options.name, "--weights", options.weights, "--size", str(options.size)]
    given += ["--batch-size", str(options.batch_size), "--epochs", str(options.epochs)]
    common = [sys.executable, __file__]
    return {"once": [*common, "once", *given], "in every epoch": [*common, "every", *given]}


def main() -> None:
    """Run one case and print its figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=("once", "every"))
    add_arguments(parser)
    options = parser.parse_args()

    from visionkit.cli.main import run

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        settings = {
            "data.root": options.data,
            "data.size": options.size,
            "data.batch_size": options.batch_size,
            "data.augment": "null",
            "model.backbone": "TimmBackbone",
            "model.backbone.name": options.name,
            "model.backbone.weights": options.weights,
            "model.recipe.freeze": "backbone",
            "model.recipe.cache_features": "true" if options.case == "once" else "false",
            "trainer.max_epochs": options.epochs,
            "trainer.logger": "false",
            "trainer.default_root_dir": out,
        }
        start = time.perf_counter()
        if status := run(["fit", "-c", "classify.yaml", *(f"--{k}={v}" for k, v in settings.items())]):
            sys.exit(status)
        wall = time.perf_counter() - start
        rows = list(csv.DictReader((out / "metrics.csv").open()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures = {
        KEY: round(1000 * statistics.median(float(r["seconds"]) for r in rows[1:]), 1),
        "first_epoch_ms": round(1000 * float(rows[0]["seconds"])),
        "whole_run_s": round(wall, 1),
        "val/top1": float(rows[-1]["val/top1"]),
        "val/loss": float(rows[-1]["val/loss"]),
        "peak_mib": round(peak),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
