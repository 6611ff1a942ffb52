"""Predicting with one model of several heads beside one model a head, from picture files to predictions.

All models have the same weights: the single ones are the heads of the joint checkpoint, each with its own copy of the
backbone. Reading and resizing pictures, the network and decoding are counted; writing results is not. A first pass over
the pictures is not counted.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import sys
import time
from pathlib import Path

KEY = "pictures_per_second"
REFERENCES = ["a model a head"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this comparison's options."""
    parser.add_argument("--ckpt", required=True, help="checkpoint of a model of several heads")
    parser.add_argument("--pictures", required=True, help="folder of picture files")
    parser.add_argument("--batch-size", type=int, default=16)


def cases(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each case."""
    given = ["--ckpt", options.ckpt, "--pictures", options.pictures, "--batch-size", str(options.batch_size)]
    common = [sys.executable, __file__]
    return {"one model": [*common, "one", *given], "a model a head": [*common, "each", *given]}


def main() -> None:
    """Run one case and print its figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=("one", "each"))
    add_arguments(parser)
    options = parser.parse_args()

    import visionkit
    from visionkit.core.machine import keep_freed_memory
    from visionkit.prediction.files import ImageFile
    from visionkit.prediction.stream import results_of
    from visionkit.tasks.multitask.take_join import single_heads

    keep_freed_memory()
    whole = visionkit.load(options.ckpt)
    each = [copy.deepcopy(model) for model in single_heads({"": whole}).values()]
    models = [whole] if options.case == "one" else each
    pictures = [ImageFile(str(p)) for p in sorted(Path(options.pictures).iterdir())]
    for _ in range(2):
        start = time.perf_counter()
        for model in models:
            for result in results_of(model, pictures, batch_size=options.batch_size):
                if isinstance(result, visionkit.DataError):
                    raise result
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({KEY: round(len(pictures) / seconds, 2), "heads": len(each), "peak_mib": round(peak)}))


if __name__ == "__main__":
    main()
