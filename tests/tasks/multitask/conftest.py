"""Pictures on disk with boxes, masks and classes; boxes and masks share some of them."""

import json
import os

import cv2
import numpy as np
import pytest

from visionkit.data.shapes import SHAPES, draw_scene

HEIGHT, WIDTH = 40, 56
SPLITS = {"train": (range(10), range(4, 14)), "val": (range(20, 26), range(23, 28))}
"""Numbers of the pictures with boxes, and with masks."""


@pytest.fixture(scope="package")
def pictures(tmp_path_factory):
    """Return a folder with boxes/ (COCO), masks/ and kinds/ (a folder a class); see SPLITS for what is shared."""
    root = tmp_path_factory.mktemp("pictures")
    for split, (boxed, masked) in SPLITS.items():
        for folder in ("boxes/annotations", f"boxes/{split}", f"masks/images/{split}", f"masks/masks/{split}"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        images, annotations = [], []
        for number in sorted({*boxed, *masked}):
            shown = [SHAPES[(number + j) % len(SHAPES)] for j in range(2)]
            scene = draw_scene((7, number), size=(HEIGHT, WIDTH), labels=shown)
            file = root / ("boxes" if number in boxed else "masks/images") / split / f"p{number}.png"
            cv2.imwrite(str(file), scene.image[:, :, ::-1])
            if number in boxed:
                images.append({"id": number, "file_name": file.name, "width": WIDTH, "height": HEIGHT})
                for (x1, y1, x2, y2), label in zip(scene.boxes.tolist(), shown, strict=True):
                    known = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
                    whose = {"id": len(annotations) + 1, "image_id": number, "category_id": SHAPES.index(label)}
                    annotations.append(whose | known)
            if number in masked:
                if number in boxed:
                    os.link(file, root / "masks/images" / split / file.name)
                mask = np.zeros((HEIGHT, WIDTH), np.uint8)
                for label, visible in zip(shown, scene.masks, strict=True):
                    mask[visible] = SHAPES.index(label) + 1
                cv2.imwrite(str(root / "masks/masks" / split / file.name), mask)
        named = [{"id": k, "name": n} for k, n in enumerate(SHAPES)]
        content = {"images": images, "annotations": annotations, "categories": named}
        (root / f"boxes/annotations/instances_{split}.json").write_text(json.dumps(content))
    (root / "masks" / "classes.txt").write_text("\n".join(("background", *SHAPES)))
    for split, count in (("train", 9), ("val", 6)):
        for i in range(count):
            label = SHAPES[i % 3]
            (root / "kinds" / split / label).mkdir(parents=True, exist_ok=True)
            scene = draw_scene((8 + count, i), size=(HEIGHT, WIDTH), labels=[label])
            cv2.imwrite(str(root / "kinds" / split / label / f"k{i}.png"), scene.image[:, :, ::-1])
    return root
