"""Maps of explanations beside a blob in the centre, those of a head that learnt nothing, and chance.

Each map is scored by insertion minus deletion (Petsiuk et al., BMVC 2018) on the same pictures and the same classes,
objects or regions, which are those that the trained model finds. ``above_blob`` is the mean difference to the blob, by
picture, with its standard error. ``rank_correlation`` (Spearman) is that of the maps with those of heads at random on
the same backbone and neck, on average over five: what is near 1 is blind to what the head learnt (Adebayo et al.,
NeurIPS 2018). Give a checkpoint, or timm's weights of ImageNet.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import statistics
import sys
import time
from typing import Any

KEY = "insertion_minus_deletion"
REFERENCES = ["centre blob"]
HEADS = 5
"""Heads at random: the sign of one alone, which all its maps share, is chance."""
CASES = {"maps": "maps", "centre blob": "blob", "head at random": "random", "chance": "chance"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this comparison's options."""
    parser.add_argument("--data", required=True, help="folder of pictures; of many, evenly spaced ones")
    parser.add_argument("--ckpt", default="", help="checkpoint, or folder of a run")
    parser.add_argument("--weights", default="", help="weights of a timm classifier, in place of a checkpoint")
    parser.add_argument("--name", default="tf_efficientnet_lite0", help="the network of these weights")
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--most", type=int, default=1, help="objects, labels or regions a picture")


def cases(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each case."""
    given = ["--data", options.data, "--ckpt", options.ckpt, "--weights", options.weights, "--name", options.name]
    given += ["--pictures", str(options.pictures), "--most", str(options.most), "--seed", "{turn}"]
    return {name: [sys.executable, __file__, case, *given] for name, case in CASES.items()}


def classifier(name: str, weights: str) -> Any:
    """Return a timm classifier of ImageNet with its own last layer as a model; classes are called by number."""
    import torch

    import visionkit
    from visionkit.models.weights.file import read_weights

    (tensors,) = read_weights(weights).groups.values()
    weight, bias = tensors["classifier.weight"].float(), tensors["classifier.bias"].float()
    model = visionkit.VisionModel(
        visionkit.TimmBackbone(name, weights=weights, mean=(0.5,) * 3, std=(0.5,) * 3),
        visionkit.LinearHead,
        [str(k) for k in range(len(bias))],
        preprocessing=visionkit.Preprocessing(224, resize="crop"),
    )
    layer = model.head.classifier[-1]
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return model.eval()


def rank_correlation(a: Any, b: Any) -> float:
    """Return Spearman's correlation of two maps of one size."""
    from scipy.stats import spearmanr

    return float(spearmanr(a.flatten(), b.flatten()).statistic)


def main() -> None:
    """Run one case and print its figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=tuple(CASES.values()))
    parser.add_argument("--seed", type=int, default=0)
    add_arguments(parser)
    options = parser.parse_args()

    import torch

    import visionkit
    from visionkit.data.images.listing import list_images
    from visionkit.prediction.draw import is_background
    from visionkit.prediction.explanations.judging import Judge, region_of
    from visionkit.prediction.explanations.maps import look

    model = visionkit.load(options.ckpt) if options.ckpt else classifier(options.name, options.weights)
    torch.manual_seed(options.seed)
    others = []
    for _ in range(HEADS if options.case == "maps" else options.case == "random"):
        others.append(copy.copy(model))
        others[-1]._modules = {**model._modules, "head": visionkit.VisionModel.from_spec(model.spec()).head.eval()}
    fast = visionkit.convert(model)
    every = list_images(options.data)
    step = max(1, len(every) // options.pictures)
    without = {k for k, name in enumerate(model.classes) if is_background(name)}
    scores, apart, correlations, count, cpu = [], [], [], 0, 0.0
    for path in every[::step][: options.pictures]:
        image = torch.from_numpy(visionkit.read_image(path)).permute(2, 0, 1)
        sample = visionkit.Sample(image, None, visionkit.ImageInfo(str(path), tuple(image.shape[1:])))
        seen = model.preprocessing(sample).image
        looked, at_random = look(model, seen), [look(other, seen) for other in others]
        own, blobs = [], []
        for subject in looked.subjects(most=options.most, min_score=None, without=without):
            region = region_of(subject.box, looked.size)
            start = time.process_time()
            values = region.cut(looked.map_of(subject).values)
            cpu += time.process_time() - start
            judge = Judge(lambda pictures, subject=subject: fast.evidence(pictures, subject).scores, seen, region)
            others_say = [region.cut(other.map_of(subject).values) for other in at_random]
            correlations += [[rank_correlation(values, said) for said in others_say]] if others_say else []
            if options.case == "random":
                (values,) = others_say
            elif options.case == "blob":
                values = region.blob()
            elif options.case == "chance":
                values = torch.rand(values.shape)
            own.append(judge(values))
            blobs.append(judge(region.blob()) if options.case == "maps" else 0.0)
            count += 1
        if own:
            scores.append(statistics.fmean(own))
            apart.append(statistics.fmean(own) - statistics.fmean(blobs))
    if not scores:
        sys.exit("the model finds nothing to explain in these pictures")
    figures = {KEY: round(statistics.fmean(scores), 4), "pictures": len(scores), "maps": count}
    if options.case == "maps":
        error = statistics.stdev(apart) / len(apart) ** 0.5
        figures |= {"above_blob": round(statistics.fmean(apart), 4), "standard_error": round(error, 4)}
        figures |= {"cpu_ms_per_map": round(1000 * cpu / count, 1)}
    if correlations:
        figures["rank_correlation"] = round(statistics.fmean(map(statistics.fmean, correlations)), 3)
    figures["peak_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
