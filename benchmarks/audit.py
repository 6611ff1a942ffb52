"""One pass over a folder of pictures, as ``visionkit check`` makes it, beside decoding every picture whole.

visionkit's pass reads, hashes and decodes each file and keeps what is known of it and a thumbnail. The other case reads
each file and decodes it with OpenCV, as a training does. With ``--megapixels 12`` copies of that size are made first.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

KEY = "cpu_ms_per_picture"
REFERENCES = ["decoded whole"]
LOWER = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this comparison's options."""
    parser.add_argument("--data", required=True, help="folder of pictures")
    parser.add_argument("--megapixels", type=float, default=0, help="enlarge 40 of them to this size (0: as they are)")


def cases(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each case."""
    given = ["--data", options.data, "--megapixels", str(options.megapixels)]
    common = [sys.executable, __file__]
    return {"visionkit": [*common, "visionkit", *given], "decoded whole": [*common, "whole", *given]}


def enlarged(paths: list[Path], megapixels: float, folder: Path) -> list[Path]:
    """Make copies of so many pixels, with the noise of a sensor: without it they would hold next to no bits."""
    import cv2
    import numpy as np

    made = []
    for path in paths:
        pixels = cv2.imread(str(path))
        factor = (megapixels * 1e6 / (pixels.shape[0] * pixels.shape[1])) ** 0.5
        pixels = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
        noise = np.random.default_rng(0).normal(0, 4, pixels.shape)
        made.append(folder / f"{path.stem}.jpg")
        cv2.imwrite(str(made[-1]), np.uint8(np.clip(pixels + noise, 0, 255)), [cv2.IMWRITE_JPEG_QUALITY, 88])
    return made


def main() -> None:
    """Run one case and print its figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=("visionkit", "whole"))
    add_arguments(parser)
    options = parser.parse_args()

    import cv2

    from visionkit.data.audit.pictures import survey
    from visionkit.data.images.listing import list_images

    with tempfile.TemporaryDirectory() as folder:
        paths = list_images(options.data)
        if options.megapixels:
            paths = enlarged(paths[:40], options.megapixels, Path(folder))
        start, cpu = time.perf_counter(), time.process_time()
        if options.case == "visionkit":
            unreadable = sum(f.error is not None for f in survey(paths))
        else:
            unreadable = sum(cv2.imread(str(path)) is None for path in paths)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - start
    figures = {
        KEY: round(1000 * cpu / len(paths), 2),
        "wall_ms_per_picture": round(1000 * wall / len(paths), 2),
        "pictures": len(paths),
        "unreadable": unreadable,
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
