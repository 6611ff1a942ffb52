"""Altered copies of photos found again, and photos called copies that are none: visionkit beside a difference hash.

Of each of some photos one copy is made for each way to alter it; then all photos and the copies made in that way are
searched. A photo counts as found where its copy is in its group. Called wrongly is a pair of photos that were given, of
which one must look at each: neighbouring frames and true copies are among them (``--list`` names them). The other case
is a difference hash of 64 bits at distance 4, as other tools have it.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

KEY = "found"
REFERENCES = ["difference hash"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this comparison's options."""
    parser.add_argument("--data", required=True, help="folder of photos, all different")
    parser.add_argument("--copies", type=int, default=1000, help="photos that are altered")
    parser.add_argument("--hashes", type=int, default=1_000_000, help="random hashes that are searched at distance 3")
    parser.add_argument("--list", action="store_true", help="name the photos of --data that are called copies")


def cases(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the command of each case."""
    given = ["--data", options.data, "--copies", str(options.copies), "--hashes", str(options.hashes)]
    given += ["--list"] if options.list else []
    common = [sys.executable, __file__]
    return {"visionkit": [*common, "visionkit", *given], "difference hash": [*common, "dhash", *given]}


def alterations() -> dict[str, Callable[[Any], Any]]:
    """Return the ways to alter a Pillow image, by name."""
    from PIL import ImageEnhance, ImageFilter, ImageOps

    def crop(im: Any, share: float) -> Any:
        x, y = round(im.width * share), round(im.height * share)
        return im.crop((x, y, im.width - x, im.height - y))

    def crop_anywhere(im: Any) -> Any:
        rng = random.Random(f"{im.width} {im.height} {im.getpixel((0, 0))}")
        x, y = round(rng.uniform(0, 0.1) * im.width), round(rng.uniform(0, 0.1) * im.height)
        return im.crop((x, y, x + round(0.9 * im.width), y + round(0.9 * im.height)))

    return {
        "half size": lambda im: im.resize((max(1, im.width // 2), max(1, im.height // 2))),
        "224 x 224": lambda im: im.resize((224, 224)),
        "JPEG 30": lambda im: im,
        "brightness": lambda im: ImageEnhance.Brightness(im).enhance(1.3),
        "gray": lambda im: im.convert("L"),
        "blur": lambda im: im.filter(ImageFilter.GaussianBlur(2)),
        "crop 2.5 %": lambda im: crop(im, 0.025),
        "crop 5 %": lambda im: crop(im, 0.05),
        "crop 10 % in all": crop_anywhere,
        "crop 10 %": lambda im: crop(im, 0.1),
        "flip": ImageOps.mirror,
        "flip, crop 5 %": lambda im: ImageOps.mirror(crop(im, 0.05)),
    }


def by_difference_hash(facts: list[Any]) -> list[tuple[int, int]]:
    """Return pairs whose difference hashes of 64 bits (8 rows of 9 gray values) differ in 4 bits at most."""
    import cv2
    import numpy as np

    from visionkit.data.audit.hashes import HashIndex

    small = np.stack([cv2.resize(f.thumbnail, (9, 8), interpolation=cv2.INTER_AREA) for f in facts])
    hashes = np.packbits((small[:, :, 1:] > small[:, :, :-1]).reshape(-1, 64), axis=1).view(np.uint64)[:, 0]
    near = HashIndex(hashes, 4).near(hashes)
    return [(int(i), int(j)) for one, other in near for i, j in zip(one, other, strict=True) if i < j]


def by_visionkit(facts: list[Any]) -> list[tuple[int, int]]:
    """Return pairs of members of a group, each with the first."""
    from visionkit.data.audit.duplicates import find_duplicates

    return [(k, i) for i, k in enumerate(find_duplicates(facts).first) if i != k]


def components(pairs: list[tuple[int, int]], count: int) -> list[int]:
    """Return for each picture the number of its group."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    one, other = np.array(pairs).reshape(-1, 2).T
    graph = coo_array((np.ones(len(pairs)), (one, other)), shape=(count, count))
    return list(connected_components(graph, directed=False)[1].tolist())


def seconds_of_index(count: int) -> float:
    """Return the processor seconds of a search for pairs of random hashes at distance 3, planted ones among them."""
    import numpy as np

    from visionkit.data.audit.hashes import HashIndex

    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
    planted = count // 50
    for _ in range(3):
        hashes[-planted:] = hashes[:planted] ^ (np.uint64(1) << rng.integers(0, 64, planted, dtype=np.uint64))
    start = time.process_time()
    pairs = sum(int((i < j).sum()) for i, j in HashIndex(hashes, 3).near(hashes))
    assert pairs >= planted
    return time.process_time() - start


def main() -> None:
    """Run one case and print its figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=("visionkit", "dhash"))
    add_arguments(parser)
    options = parser.parse_args()

    import tempfile
    from pathlib import Path

    from PIL import Image

    from visionkit.data.audit.pictures import survey
    from visionkit.data.images.listing import list_images

    search = by_visionkit if options.case == "visionkit" else by_difference_hash
    paths = list_images(options.data)
    originals = [f for f in survey(paths) if f.error is None]
    called = search(originals)
    for i, j in called if options.list else ():
        print(originals[i].path, originals[j].path)
    chosen = sorted(random.Random(1).sample(range(len(originals)), min(options.copies, len(originals))))
    found, cpu = {}, []
    for name, alter in alterations().items():
        with tempfile.TemporaryDirectory() as folder:
            for i in chosen:
                made = io.BytesIO()
                with Image.open(originals[i].path) as im:
                    alter(im.convert("RGB")).save(made, "JPEG", quality=30 if name == "JPEG 30" else 90)
                Path(folder, f"{i:06}.jpg").write_bytes(made.getvalue())
            copies = survey(list_images(folder))
        start = time.process_time()
        pairs = search([*originals, *copies])
        cpu.append(time.process_time() - start)
        group = components(pairs, len(originals) + len(copies))
        together = sum(group[i] == group[len(originals) + k] for k, i in enumerate(chosen))
        found[name] = round(together / len(chosen), 3)
    figures = {
        KEY: round(statistics.mean(found.values()), 4),
        **found,
        "called_of_the_given": len(called),
        "search_cpu_s": round(statistics.median(cpu), 2),
        "index_cpu_s": round(seconds_of_index(options.hashes), 2),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
