"""Planted label errors among the first suspects: visionkit's ridge regression beside logistic regression and cleanlab.

Features are computed once with a frozen backbone; then a share of the labels is changed and suspects are put in order
out of five folds. Of n planted errors it is told how many are among the first n and the first 2n. cleanlab, where it is
installed, orders by the probabilities of the logistic regression, in its default way.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import statistics
import sys
import time
from typing import Any

KEY = "in_first_2n"
REFERENCES = ["logistic regression"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this comparison's options."""
    parser.add_argument("--data", required=True, help="folder of class folders")
    parser.add_argument("--weights", required=True, help="file of weights")
    parser.add_argument("--name", default="", help="a timm network; else ResNet-18")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--share", type=float, default=0.05, help="of the labels that are changed")


def cases(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each case."""
    given = ["--data", options.data, "--weights", options.weights, "--name", options.name]
    given += ["--size", str(options.size), "--share", str(options.share)]
    common = [sys.executable, __file__]
    found = {"visionkit": [*common, "visionkit", *given], "logistic regression": [*common, "logistic", *given]}
    if importlib.util.find_spec("cleanlab"):
        found["cleanlab"] = [*common, "cleanlab", *given]
    return found


def features(options: argparse.Namespace) -> tuple[Any, Any]:
    """Return the pooled features of the last level, [N, D], and the labels, [N]."""
    import cv2
    import numpy as np
    import torch

    import visionkit
    from visionkit.data.images.listing import list_images
    from visionkit.data.images.reading import read_image

    name = options.name
    net = (
        visionkit.TimmBackbone(name, weights=options.weights) if name else visionkit.ResNet(18, weights=options.weights)
    )
    mean, std = (127.5, 127.5) if name else ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    paths = list_images(options.data)
    names = sorted({p.parent.name for p in paths})
    made = []
    with torch.inference_mode():
        for start in range(0, len(paths), 32):
            size = (options.size, options.size)
            pixels = [cv2.resize(read_image(p), size, interpolation=cv2.INTER_AREA) for p in paths[start : start + 32]]
            batch = (np.stack(pixels).astype(np.float32) - np.float32(mean)) / np.float32(std)
            levels = net.eval()(torch.from_numpy(batch).permute(0, 3, 1, 2))
            made.append(levels[-1].mean((2, 3)).numpy())
    return np.concatenate(made), np.array([names.index(p.parent.name) for p in paths])


def ordered(case: str, values: Any, labels: Any) -> list[int]:
    """Return the positions of suspects, the most doubtful first."""
    import numpy as np

    if case == "visionkit":
        from visionkit.data.audit.suspects import label_suspects

        return [s.position for s in label_suspects(values, labels.tolist())]
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    chances = cross_val_predict(model, values, labels, cv=folds, method="predict_proba")
    if case == "cleanlab":
        from cleanlab.rank import get_label_quality_scores

        scores = get_label_quality_scores(labels, chances)
    else:
        scores = chances[np.arange(len(labels)), labels]
    return np.argsort(scores, kind="stable").tolist()


def main() -> None:
    """Run one case and print its figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=("visionkit", "logistic", "cleanlab"))
    add_arguments(parser)
    options = parser.parse_args()

    import numpy as np

    values, truth = features(options)
    count = round(options.share * len(truth))
    first, twice, cpu = [], [], []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        wrong = rng.choice(len(truth), count, replace=False)
        given = truth.copy()
        given[wrong] = (truth[wrong] + rng.integers(1, truth.max() + 1, count)) % (truth.max() + 1)
        start = time.process_time()
        order = ordered(options.case, values, given)
        cpu.append(time.process_time() - start)
        first.append(len(set(order[:count]) & set(wrong.tolist())) / count)
        twice.append(len(set(order[: 2 * count]) & set(wrong.tolist())) / count)
    figures = {
        KEY: round(statistics.mean(twice), 3),
        "in_first_n": round(statistics.mean(first), 3),
        "planted": count,
        "cpu_s": round(statistics.median(cpu), 2),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
