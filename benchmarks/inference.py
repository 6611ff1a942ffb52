"""Latency of one picture: visionkit's backends beside torchvision's network as everyone calls it.

The picture is decoded and resized already, uint8 at 224 pixels; the end are the logits. "eager fp32" is torchvision's
ResNet in evaluation mode under inference_mode, in float32 and contiguous order, its normalisation included. Loading,
exporting and compiling are not counted but told ("ready_s"). All cases have the same weights.
"openvino, int8" learns its ranges from random pixels here: for what it does to accuracy see int8_accuracy.py.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time

KEY = "ms"
LOWER = True
REFERENCES = ["eager fp32"]
BACKENDS = ("torch", "compile", "openvino", "openvino, int8", "onnx")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this comparison's options."""
    parser.add_argument("--depth", type=int, choices=(18, 50), default=18)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each case is measured (default: 5)")


def cases(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each case."""
    given = ["--depth", str(options.depth), "--seconds", str(options.seconds)]
    return {name: [sys.executable, __file__, name, *given] for name in ("eager fp32", *BACKENDS)}


def main() -> None:
    """Run one case and print its figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=("eager fp32", *BACKENDS))
    add_arguments(parser)
    options = parser.parse_args()

    import torch
    import torchvision

    import visionkit
    from visionkit.prediction.backends.convert import convert

    torch.manual_seed(0)
    reference = getattr(torchvision.models, f"resnet{options.depth}")(num_classes=1000).eval()
    model = visionkit.VisionModel(visionkit.ResNet(options.depth), visionkit.LinearHead, [str(k) for k in range(1000)])
    own = {name: value for name, value in reference.state_dict().items() if not name.startswith("fc.")}
    model.backbone.load_state_dict(own)
    model.head.classifier[1].load_state_dict(reference.fc.state_dict())
    model.eval()
    images = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    mean, std = torch.tensor(model.backbone.mean).view(1, 3, 1, 1), torch.tensor(model.backbone.std).view(1, 3, 1, 1)

    def eager() -> torch.Tensor:
        with torch.inference_mode():
            return reference((images.float() / 255 - mean) / std)

    start = time.perf_counter()
    if options.case == "eager fp32":
        run = eager
    else:
        backend, _, precision = options.case.partition(", ")
        calibration = torch.randint(0, 256, (50, 3, 224, 224), dtype=torch.uint8) if precision else None
        fast = convert(model, backend, precision=precision or "auto", calibration=calibration)

        def run() -> torch.Tensor:
            return fast(images).logits

    run()
    ready = time.perf_counter() - start
    for _ in range(5):
        run()
    times, end = [], time.perf_counter() + options.seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    truth = eager()
    figures = {
        KEY: round(1000 * statistics.median(times), 3),
        "calls": len(times),
        "ready_s": round(ready, 2),
        "largest_difference": round(float((run().float() - truth).abs().max() / truth.abs().max()), 5),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
