"""What rounding costs: a trained checkpoint's own metric on validation pictures in float32, bf16 and 8 bits.

Nothing is trained. OpenVINO computes all three; ranges for 8 bits come from at most 100 training pictures, as they are
predicted. Compared is the metric that chose the checkpoint (top-1, mAP, mIoU), against the truth, in original pixels.
``images_per_second`` is network and decoding, pictures being in memory, batches of 8; ``ready_s`` is what exporting,
calibrating and compiling take.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time

KEY = "metric"
REFERENCES = ["float32"]
PRECISIONS = {"float32": "32", "bf16": "bf16", "int8": "int8"}
DATA = {"classify": "ClassificationData", "detect": "DetectionData", "segment": "SegmentationData"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this comparison's options."""
    parser.add_argument("--task", choices=tuple(DATA), default="classify", help="default: classify")
    parser.add_argument("--ckpt", required=True, help="checkpoint of visionkit fit")
    parser.add_argument("--data", required=True, help="its data, with training and validation pictures")


def cases(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each case."""
    given = ["--task", options.task, "--ckpt", options.ckpt, "--data", options.data]
    return {name: [sys.executable, __file__, name, *given] for name in PRECISIONS}


def main() -> None:
    """Run one case and print its figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=tuple(PRECISIONS))
    add_arguments(parser)
    options = parser.parse_args()

    import visionkit
    from visionkit.core.sample import Sample, collate
    from visionkit.prediction.backends.convert import convert

    model = visionkit.load(options.ckpt).eval()
    splits = getattr(visionkit, DATA[options.task])(root=options.data, size=model.preprocessing.size).splits

    def samples(dataset: visionkit.VisionDataset, most: int) -> list[Sample]:
        count = min(len(dataset), most)
        chosen = [k * len(dataset) // count for k in range(count)]
        return [model.preprocessing(dataset.load(k, model.preprocessing.scale)) for k in chosen]

    shown = samples(splits.val, len(splits.val))
    batches = [collate(shown[k : k + 8]) for k in range(0, len(shown), 8)]
    learnt = [sample.image[None] for sample in samples(splits.train, 100)] if options.case == "int8" else None
    start = time.perf_counter()
    fast = convert(model, "openvino", precision=PRECISIONS[options.case], calibration=learnt)
    for batch in (batches[0], batches[-1]):
        fast.decode(batch.images)
    ready = time.perf_counter() - start
    start = time.perf_counter()
    found = [fast.decode(batch.images) for batch in batches]
    seconds = time.perf_counter() - start
    metric = model.head.metric(model.classes)
    for predictions, batch in zip(found, batches, strict=True):
        metric.update(
            [p.restore(info) for p, info in zip(predictions, batch.infos, strict=True)],
            [t.restore(info) for t, info in zip(batch.targets, batch.infos, strict=True)],
        )
    figures = {
        KEY: round(float(metric.compute()[metric.monitor]), 4),
        "name": metric.monitor,
        "pictures": len(shown),
        "images_per_second": round(len(shown) / seconds, 1),
        "ready_s": round(ready, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
