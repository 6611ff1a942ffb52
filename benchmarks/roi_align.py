"""RoIAlign over a feature pyramid: forward and gradient, visionkit beside torchvision's MultiScaleRoIAlign.

Levels 2 to 5 of a picture, boxes of 12 to 250 pixels. torchvision reads what it is fast with, NCHW; visionkit reads
channels_last, the order that its models compute in. The features are given; the gradient that arrives is dense.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import sys
import time

KEY = "boxes_per_second"
REFERENCES = ["torchvision fp32", "torchvision bf16"]
STRIDES = (4, 8, 16, 32)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this comparison's options."""
    parser.add_argument("--boxes", type=int, default=128, help="boxes of each picture (default: 128)")
    parser.add_argument("--channels", type=int, default=128, help="channels of each level (default: 128)")
    parser.add_argument("--batch-size", type=int, default=8, help="pictures (default: 8)")
    parser.add_argument("--width", type=int, default=320, help="of a picture, in pixels (default: 320)")
    parser.add_argument("--height", type=int, default=240, help="of a picture, in pixels (default: 240)")
    parser.add_argument("--repeats", type=int, default=5, help="timed repeats of a case in a round (default: 5)")


def cases(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each case."""
    names = ("boxes", "channels", "batch_size", "width", "height", "repeats")
    sizes = [x for n in names for x in (f"--{n.replace('_', '-')}", str(getattr(options, n)))]
    common = [sys.executable, __file__, *sizes]
    return {
        "torchvision fp32": [*common, "torchvision"],
        "visionkit fp32": [*common, "visionkit"],
        "torchvision bf16": [*common, "torchvision", "--bf16"],
        "visionkit bf16": [*common, "visionkit", "--bf16"],
    }


def measure(case: str, options: argparse.Namespace) -> dict[str, float]:
    """Return boxes per second, and the median milliseconds of forward and gradient, after a warm-up."""
    import torch
    from torchvision.ops import MultiScaleRoIAlign

    from visionkit.models.ops.roi_align import roi_align

    generator = torch.Generator().manual_seed(0)
    size = torch.tensor([options.width, options.height])
    kind = torch.bfloat16 if options.bf16 else torch.float32
    order = torch.channels_last if case == "visionkit" else torch.contiguous_format
    features = []
    for s in STRIDES:
        shape = (options.batch_size, options.channels, math.ceil(options.height / s), math.ceil(options.width / s))
        level = torch.randn(*shape, generator=generator).to(kind).contiguous(memory_format=order)
        features.append(level.requires_grad_())
    rois = []
    for _ in range(options.batch_size):
        centre = torch.rand(options.boxes, 2, generator=generator) * size
        side = 12 * torch.exp(torch.rand(options.boxes, 2, generator=generator) * math.log(250 / 12))
        corners = torch.cat([centre - side / 2, centre + side / 2], 1)
        rois.append(torch.minimum(corners.clamp(min=0), size.repeat(2)))
    pool = MultiScaleRoIAlign([str(k) for k in range(len(STRIDES))], 7, 2)
    sizes = [(options.height, options.width)] * options.batch_size
    named = {str(k): x for k, x in enumerate(features)}
    forward, backward = [], []
    for _ in range(options.repeats + 1):
        start = time.perf_counter()
        if case == "visionkit":
            result = roi_align(features, rois, STRIDES)
        else:
            with torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):  # it has no bfloat16 kernel of its own
                result = pool(named, rois, sizes)
        middle = time.perf_counter()
        gradient = torch.ones_like(result)
        begin = time.perf_counter()
        result.backward(gradient)
        forward.append(middle - start)
        backward.append(time.perf_counter() - begin)
    totals = [a + b for a, b in zip(forward[1:], backward[1:], strict=True)]
    return {
        KEY: round(options.batch_size * options.boxes / statistics.median(totals)),
        "forward_ms": round(1e3 * statistics.median(forward[1:]), 1),
        "backward_ms": round(1e3 * statistics.median(backward[1:]), 1),
    }


def main() -> None:
    """Run one case and print its figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=("torchvision", "visionkit"))
    parser.add_argument("--bf16", action="store_true")
    add_arguments(parser)
    options = parser.parse_args()
    figures = measure(options.case, options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**figures, "peak_mib": round(peak)}))


if __name__ == "__main__":
    main()
