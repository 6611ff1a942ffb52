"""Segmentations as other tools read them: masks, pictures of class ids."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from torch import Tensor

from visionkit.core.files import replacing, write_text
from visionkit.core.sample import ImageInfo
from visionkit.core.text import printable
from visionkit.prediction.writers import WriterFactory, WriterJob, files_beside

__all__ = ["WRITERS", "MaskWriter"]


class ClassIds(Protocol):
    """What is read of a prediction: the class id of each pixel, [H, W]."""

    @property
    def labels(self) -> Tensor:
        """Class ids."""
        ...


class MaskWriter:
    """Writes ``masks/<picture>.png``: the class id of each pixel, 8 bits, of the picture's size.

    They are PNG files with a palette: programs that show pictures show a class in the colour that it has in drawn
    predictions, programs that read class ids find those. ``masks/classes.txt`` says which class an id is, a line
    ``id<TAB>name`` each; with it the folder can be read as the masks of a data set.

    The files lie as the pictures do, see ``prediction.writers.files_beside``: ``a/1.jpg`` and ``b/1.jpg`` become
    ``masks/a/1.png`` and ``masks/b/1.png``.

    Args:
        job: What is to be written where.
    """

    def __init__(self, job: WriterJob) -> None:
        self.names = job.names
        self.folder = job.out / "masks"
        self.outputs: tuple[Path, ...] = (self.folder,)
        self.files = files_beside(job.images, ".png")

    def file_of(self, image: str) -> Path:
        """Return the file of a picture."""
        return self.folder / self.files[image]

    def add(self, info: ImageInfo, prediction: ClassIds) -> None:
        """Write the mask of a picture."""
        from PIL import Image

        from visionkit.prediction.draw import palette

        picture = Image.fromarray(prediction.labels.cpu().numpy())  # mode L
        colours = [*palette(255), (0, 0, 0)]  # all: of fewer colours Pillow would write fewer bits
        picture.putpalette([value for colour in colours for value in colour])  # now of mode P
        with replacing(self.file_of(info.id)) as temporary:
            picture.save(temporary, format="PNG")

    def finish(self) -> None:
        """Write the class names."""
        write_text(
            self.folder / "classes.txt", "".join(f"{k}\t{printable(name)}\n" for k, name in enumerate(self.names))
        )


WRITERS: Mapping[str, WriterFactory] = {"mask": MaskWriter}
"""The formats of segmentations."""
