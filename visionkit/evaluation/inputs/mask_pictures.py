"""Pictures of class ids that a segmenter wrote, one an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from visionkit.core.errors import DataError
from visionkit.core.text import shortened
from visionkit.data.images.listing import list_images
from visionkit.data.labels.checks import header_size
from visionkit.data.labels.masks import IGNORE
from visionkit.evaluation.inputs.found import FilePredictions, class_of, find_lacking
from visionkit.evaluation.inputs.images import DataImages
from visionkit.tasks.segmentation.readers.class_table import find_table, read_table
from visionkit.tasks.segmentation.readers.mask_code import complete_table, make_code
from visionkit.tasks.segmentation.readers.mask_files import read_mask_file
from visionkit.tasks.segmentation.readers.pairing import MASK_ENDING
from visionkit.tasks.segmentation.types import MaskPrediction

__all__ = ["MaskPictures", "read_mask_pictures"]

_CLASSES = "classes.txt"


class MaskPictures:
    """Predictions of pixels, read from their pictures when they are asked for.

    Args:
        files: The picture of each position.
        folder: Where they lie; a file in it, or above it, says which class an id or a colour is. Without one, ids are
            positions in the classes of the data.
        images: Those of the data.
        classes: Class names in the order of their ids.

    Raises:
        DataError: A picture is not of its image's size, or the names of classes are wrong or not those of the data.
    """

    def __init__(self, files: Mapping[int, Path], folder: Path, images: DataImages, classes: Sequence[str]) -> None:
        own = folder / _CLASSES
        table = read_table(own) if own.is_file() else find_table([folder, folder.parent])
        full, self.note = complete_table(table, [str(f) for f in files.values()], str(folder), classes=classes)
        known = {name: k for k, name in enumerate(classes)}
        for name in make_code(full).classes:  # those of the table that are not void
            class_of(name, known, full.source)
        self.code = make_code(full, classes=classes)
        self.files = files
        self.classes = tuple(classes)
        wrong = []
        for position, file in files.items():
            size, wanted = header_size(file), images.size(position)
            if size is not None and size != wanted:
                wrong.append(
                    f"{file}: is {size[1]} x {size[0]} pixels, its image {images.ids[position]} {wanted[1]} x "
                    f"{wanted[0]}; predictions are compared in pixels of the original: resize the mask (nearest)"
                )
        if wrong:
            raise DataError(*shortened(wrong))

    def __call__(self, position: int) -> MaskPrediction:
        """Return the prediction of an image.

        Raises:
            DataError: Its picture cannot be read, or a pixel has no class.
        """
        file = self.files[position]
        mask = self.code.decode(read_mask_file(file), str(file))
        if none := int((mask == IGNORE).sum()):
            raise DataError(
                f"{file}: {none} pixels have no class (ids or colours that stand for nothing, such as 255); give each "
                "pixel the class that is predicted there"
            )
        record = {"height": mask.shape[0], "width": mask.shape[1], "mask": mask}
        return MaskPrediction.from_record(record, self.classes)


def read_mask_pictures(
    folder: Path, images: DataImages, classes: Sequence[str], *, allow_missing: bool
) -> FilePredictions:
    """Read a folder of pictures of class ids, or of colours that a table there names, as data sets have them.

    They are called like their images and lie as these do; a name may end in ``_mask``, ``_labelIds`` or the like.

    Args:
        folder: The pictures; classes.txt (``id name``) or another table of classes there or above names the ids.
        images: Those of the data.
        classes: Class names in the order of their ids.
        allow_missing: Whether images without a picture are left out.

    Raises:
        DataError: A picture or the table is wrong, or an image of the data has no picture.
    """
    files = list_images(folder)
    if not files:
        raise DataError(f"{folder}: holds no pictures of class ids; give the folder with one an image (PNG)")
    names = [f.relative_to(folder).with_suffix("").as_posix() for f in files]
    stems = {i for id in images.ids for i in (Path(id).stem, Path(id).name)}
    names = [n if Path(n).name in stems else MASK_ENDING.sub("", n) for n in names]
    first: dict[str, Path] = {}
    for name, file in zip(names, files, strict=True):
        if (other := first.setdefault(name, file)) is not file:
            raise DataError(f"{file}: {other} is a mask of the same image; keep one of them")
    matched = images.find(names, str(folder), stems=True)
    found = dict(sorted(zip(matched.positions, files, strict=True)))
    missing = find_lacking(found, images, str(folder), "mask", allow_missing=allow_missing)
    pictures = MaskPictures(found, folder, images, classes)
    remarks = [*matched.remarks, *missing.remarks]
    if pictures.note:
        remarks.append(f"{folder}: {pictures.note}")
    return FilePredictions(
        f"masks of {folder}: {len(found):,} pictures", tuple(found), pictures, missing.ids, tuple(remarks)
    )
