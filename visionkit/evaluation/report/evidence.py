"""Maps of the evidence on the page: what the model goes by in the worst pictures, and what these maps are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from markupsafe import Markup
from torch import Tensor

from visionkit.core.errors import VisionkitError
from visionkit.core.sample import ImageInfo, Sample
from visionkit.data.images.decode import Array
from visionkit.data.images.reading import load_image
from visionkit.evaluation.report.files import PictureFiles
from visionkit.evaluation.report.marks import name, say
from visionkit.evaluation.report.shots import Shot
from visionkit.evaluation.report.source import Source
from visionkit.prediction.explain import Explainer, Explanation
from visionkit.prediction.explanations.judging import verdict

__all__ = ["Evidence", "make_evidence"]

_FIGURE = (
    '<figure><div class="shots"><img src="{}" width="{}" height="{}" alt="where the evidence for {} lies"></div>'
    '<figcaption>{} {}<br>map {}, centre {}<span class="file" title="{}">{}</span></figcaption></figure>'
)
_LONGEST = 300  # letters of a file's path in the page


@dataclass(frozen=True)
class Evidence:
    """What is shown.

    Args:
        maps: Each with the picture under it, uint8 [h, w, 3].
        verdict: What they are worth, in a sentence; None without any.
    """

    maps: tuple[tuple[Explanation, Array], ...] = ()
    verdict: str | None = None

    def part(self, addresses: Sequence[str]) -> Markup:
        """Return them as HTML.

        Args:
            addresses: Of the pictures, in order.
        """
        figures = []
        for (one, picture), address in zip(self.maps, addresses, strict=True):
            file = one.image.replace("\\", "/").rpartition("/")[2] or one.image
            numbers = (f"{v:.2f}" for v in (one.score, one.insertion_minus_deletion, one.centre_blob))
            score, ours, centre = numbers
            figures.append(
                say(
                    _FIGURE, address, str(picture.shape[1]), str(picture.shape[0]), one.label, name(one.label), score,
                    ours, centre, one.image[:_LONGEST], name(file[:_LONGEST]),
                )
            )  # fmt: skip
        if not figures:
            return Markup("")
        about = (
            "Insertion minus deletion of each map stands beside that of a blob in the centre of the picture: a map "
            "that scores no higher explains nothing."
        )
        told = say("<p>{}.</p>", f"{self.verdict[0].upper()}{self.verdict[1:]}") if self.verdict else Markup("")
        return say('{}<p class="soft">{}</p><div class="gallery">{}</div>', told, about, Markup("\n").join(figures))


def make_evidence(
    source: Source, shots: Sequence[Shot], files: PictureFiles, explainer: Explainer | None, most: int
) -> Evidence:
    """Return the maps of the first pictures of the gallery.

    Args:
        source: An evaluation.
        shots: What the gallery shows, the worst first.
        files: Where the pictures lie.
        explainer: Explains what the evaluated model says; None makes no maps.
        most: Most pictures.
    """
    if explainer is None or source.evaluation is None:
        return Evidence()
    maps, scored = [], []
    for position in list(dict.fromkeys(shot.image for shot in shots))[:most]:
        image = source.evaluation.images[position]
        data = files.read(image)
        if data is None:
            continue
        try:
            pixels = load_image(image.id, channels=explainer.model.preprocessing.channels, data=data).pixels
        except VisionkitError:
            continue
        picture = torch.from_numpy(pixels).permute(2, 0, 1)
        found = explainer(Sample(picture, None, ImageInfo(image.id, (picture.shape[1], picture.shape[2]))))
        maps += [(one, _without_legend(one.draw(picture), picture)) for one in found]
        scored.append([one.scored for one in found])
    return Evidence(tuple(maps), verdict(scored))


def _without_legend(drawn: Tensor, picture: Tensor) -> Array:
    """Return the drawing, uint8 [h, w, 3], without what stands below the picture: the page says that itself."""
    height = round(drawn.shape[2] * picture.shape[1] / picture.shape[2])
    return drawn[:, :height].permute(1, 2, 0).contiguous().numpy()
