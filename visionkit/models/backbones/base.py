"""The contract of a backbone: named feature maps, their channels and strides, and the pixel statistics it expects."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn

from visionkit.core.component import Component, parameters_of
from visionkit.core.errors import UsageError
from visionkit.models.backbones.identify import hint
from visionkit.models.backbones.statistics import per_channel
from visionkit.models.weights.file import WeightsFile, read_weights
from visionkit.models.weights.load import Statistics, WeightsReport, load_weights
from visionkit.models.weights.places import AUTO, auto_source

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Backbone", "FeatureSpec"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class FeatureSpec:
    """Channels and strides of a list of feature maps, one entry a level, fine to coarse.

    Args:
        channels: Channels of each level.
        strides: Pixels of the input per cell of each level.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        """Accept lists (as YAML and checkpoints bring them) and check the lengths."""
        object.__setattr__(self, "channels", tuple(self.channels))
        object.__setattr__(self, "strides", tuple(self.strides))
        if len(self.channels) != len(self.strides) or not self.channels:
            raise ValueError(f"channels {self.channels} and strides {self.strides} must have one entry a level")


class Backbone(Component, nn.Module):
    """Turns images into feature maps.

    Subclasses set ``features``, ``in_channels``, ``mean`` and ``std`` in their constructor and implement ``forward``.
    """

    weights_arguments = frozenset({"weights", "partial"})
    features: FeatureSpec
    """Channels and strides of what ``forward`` returns."""
    in_channels: int
    """Channels of the input image."""
    mean: tuple[float, ...]
    """Mean of each input channel, on the 0..1 scale, that the weights expect to be subtracted."""
    std: tuple[float, ...]
    """Standard deviation of each input channel, on the 0..1 scale, that the weights expect to be divided by."""
    _frozen: dict[str, list[nn.Parameter]]  # by stage, what a thaw gives its gradient back
    _still: Sequence[nn.Module]  # what stays in evaluation mode
    weights_report: WeightsReport | None = None
    """The passport of what was loaded from ``weights``, or None when the backbone starts from scratch."""

    def __init__(self) -> None:
        super().__init__()
        self._frozen = {}
        self._still = []

    def forward(self, x: Tensor) -> list[Tensor]:
        """Compute the feature maps.

        Args:
            x: Normalised float images [B, C, H, W].

        Returns:
            One tensor [B, C_l, H/s_l, W/s_l] a level, fine to coarse; sizes round up.
        """
        raise NotImplementedError

    def stages(self) -> dict[str, Sequence[nn.Module]]:
        """Return the modules of each stage in order (stem first), for reports and freezing."""
        raise NotImplementedError

    @classmethod
    def network_name(cls, arguments: Mapping[str, Any]) -> str | None:
        """Return timm's name of the network that constructor arguments make, or None where no weights are known for it.

        :func:`visionkit.models.weights.places.weights_at_hand` takes it.

        Args:
            arguments: The constructor's arguments by name; those that are left out have their defaults.
        """
        return None

    def load(
        self,
        weights: str | Path,
        *,
        partial: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        assumed: str = "ImageNet's",
    ) -> None:
        """Start from a file's weights and, unless others are given, its pixel statistics; keep their passport.

        Constructors call it last, with ``in_channels``, ``mean`` and ``std`` set to what holds without a file.

        Args:
            weights: File (.pth, .pt, .ckpt, .safetensors), hub name (timm/NAME, hf-hub:OWNER/NAME), or auto for the
                recommended ImageNet weights of this network.
            partial: Go on where the weights cover less than 95 % of the network or hold parts it lacks.
            mean: Mean of each channel, 0 to 1, that the user gave; it wins over the file's.
            std: Standard deviation of each channel, 0 to 1, that the user gave; it wins over the file's.
            assumed: Whose statistics hold where neither user nor file say them, in words.

        Raises:
            UsageError: There is no such file, or auto knows no weights for this network.
            DataError: The weights cannot be read, be fetched or do not fit.
        """
        if weights == AUTO:
            weights = auto_source(self.network_name(self._arguments), self.summary())
        file = read_weights(weights)
        report = load_weights(self, file, partial=partial)
        origins: dict[str, Any] = {}
        for key, given, said in (("mean", mean, file.mean), ("std", std, file.std)):
            origins[key] = "given" if given is not None else "assumed" if said is None else "file"
            if given is None and said is not None:
                setattr(self, key, per_channel(key, None, said, self.in_channels))
        says = file.says if file.mean or file.std else assumed
        statistics = Statistics(self.mean, self.std, origins["mean"], origins["std"], file.mean, file.std, says)
        self.weights_report = replace(report, statistics=statistics)

    def weights_hint(self, file: WeightsFile) -> str:
        """Say which backbone a file asks for that does not fit this one, as command-line arguments.

        Args:
            file: The file.
        """
        return hint(self, file)

    def freeze(self, stages: Collection[str] | None = None) -> None:
        """Stop training stages: no gradients, and in evaluation mode, so that BatchNorm's statistics do not move.

        Args:
            stages: Their names, as :meth:`stages` gives them; None freezes all.

        Raises:
            UsageError: There is no such stage.
        """
        parameters = self.stage_parameters()
        for name in self._known(stages):
            if name not in self._frozen:
                self._frozen[name] = [p for p in parameters[name] if p.requires_grad]
                for parameter in self._frozen[name]:
                    parameter.requires_grad_(False)
        self._keep_still()

    def thaw(self, stages: Collection[str] | None = None) -> None:
        """Train stages again that :meth:`freeze` has frozen; what never was trained stays so.

        Args:
            stages: Their names; None thaws all.

        Raises:
            UsageError: There is no such stage.
        """
        for name in self._known(stages):
            for parameter in self._frozen.pop(name, ()):
                parameter.requires_grad_(True)
        self._keep_still()

    @property
    def frozen(self) -> tuple[str, ...]:
        """Names of the frozen stages, in order."""
        return tuple(name for name in self.stages() if name in self._frozen)

    def train(self, mode: bool = True) -> Self:
        """Set training mode, but for frozen stages, which stay in evaluation mode."""
        super().train(mode)
        for module in self._still:
            module.eval()
        return self

    def _keep_still(self) -> None:
        """Remember which modules stay in evaluation mode: all, where nothing is trained, those outside stages too."""
        stages = self.stages()
        whole = len(self._frozen) == len(stages)
        self._still = list(self.children()) if whole else [m for name in self._frozen for m in stages[name]]
        self.train(self.training)

    def stage_parameters(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters of each stage; those in no stage (a position embedding) count as the first one's."""
        found = {name: [p for m in modules for p in m.parameters()] for name, modules in self.stages().items()}
        known = {id(p) for parameters in found.values() for p in parameters}
        found[next(iter(found))] += [p for p in self.parameters() if id(p) not in known]
        return found

    def _known(self, stages: Collection[str] | None) -> list[str]:
        names = list(self.stages())
        for name in stages or ():
            if name not in names:
                raise UsageError(f"the backbone has no stage {name!r}; it has {', '.join(names)}")
        return [n for n in names if stages is None or n in stages]

    def summary(self) -> str:
        """Return class and settings in words, for the first lines of a run."""
        hidden = ["weights", "partial", "mean", "std"]
        if self._arguments.get("layers") is not None:
            hidden.append("depth")  # it has no effect
        settings = (f"{k} {v}" for k, v in self._arguments.items() if k not in hidden and v != _default(self, k))
        return " ".join([type(self).__name__, ", ".join(settings)]).strip()

    def recorded_arguments(self) -> dict[str, Any]:
        """Describe the backbone with the statistics in force and without the file its weights came from."""
        in_force = {"weights": None, "mean": list(self.mean), "std": list(self.std)}
        accepted = parameters_of(type(self))  # a backbone of the user's need not take them all
        return {**super().recorded_arguments(), **{k: v for k, v in in_force.items() if k in accepted}}


def _default(backbone: Backbone, name: str) -> Any:
    return None if name in ("depth", "name") else parameters_of(type(backbone))[name].default
