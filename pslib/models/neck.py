"""The neck: from FPN to AlignPS's aligned feature aggregation (AFA), as switches of one module.

AlignPS, Sec. III-B.  A feature pyramid network (FPN) reduces C3, C4, C5 to one width by *lateral* convolutions,
adds the coarse maps into the fine ones from the top down, and smooths each sum by an *output* convolution.
AFA changes three things, and Table II of the paper is these three arguments::

    lateral   "conv" (1x1)    ->  "deformable" (3x3)
    output    "conv" (3x3)    ->  "deformable" (3x3)
    topdown   "sum"           ->  "concat"
"""

from collections.abc import Sequence

from torch import Tensor, nn

from pslib.errors import UserError, require_choice
from pslib.models.merging import MergingConv2d, concatenated, enlarged
from pslib.ops import DeformableConv2d

__all__ = ["LEVELS", "AlignedFeatureAggregation"]

LEVELS = ("P3", "P4", "P5")


class AlignedFeatureAggregation(nn.Module):
    """C3, C4, C5 to the wanted ones of P3, P4, P5, each (B, channels, H/stride, W/stride).

    ``in_channels`` are the widths of C3, C4, C5; ``levels`` names the maps to compute, finest first.  As in the
    released code, no convolution here has a bias, a normalisation or an activation: what leaves the neck is a
    linear read-out, and AlignPS takes it as the embedding itself.

    >>> import torch
    >>> neck = AlignedFeatureAggregation((32, 64, 128), 48, levels=("P3",))
    >>> maps = [torch.zeros(1, 32, 8, 8), torch.zeros(1, 64, 4, 4), torch.zeros(1, 128, 2, 2)]
    >>> [tuple(level.shape) for level in neck(maps)]
    [(1, 48, 8, 8)]
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        levels: Sequence[str] = LEVELS,
        lateral: str = "deformable",
        output: str = "deformable",
        topdown: str = "concat",
    ):
        super().__init__()
        require_choice("top-down operation", topdown, ("sum", "concat"))
        self.levels = tuple(require_choice("pyramid level", level, LEVELS) for level in levels)
        if len(in_channels) != len(LEVELS):
            raise UserError(
                f"the neck reads C3, C4 and C5, but the backbone has {len(in_channels)} maps: choose tiny or a ResNet."
            )
        self.concat = topdown == "concat"
        self.takes_parts = self.concat and output == "deformable"
        self.lateral = nn.ModuleList(_convolution(lateral, width, channels, 1) for width in in_channels)
        # With concatenation the maps grow on the way down: P5 reads one part, P4 two, P3 three.
        parts = {"P5": 1, "P4": 2, "P3": 3} if self.concat else dict.fromkeys(LEVELS, 1)
        self.output = nn.ModuleDict(
            {
                level: MergingConv2d(parts[level] * channels, channels)
                if self.takes_parts
                else _convolution(output, parts[level] * channels, channels, 3)
                for level in self.levels
            }
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """C3, C4, C5, each (B, its width, H/stride, W/stride), to a map (B, channels, H/stride, W/stride) a level."""
        if self.takes_parts:
            reduced = self._reduce(maps)
            return [self.output[level](*reduced[LEVELS.index(level) :]) for level in self.levels]
        merged = self.merge(maps)
        return [self.output[level](merged[level]) for level in self.levels]

    def merge(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """C3, C4, C5 brought together from the top down: what each output convolution computes from."""
        c3, c4, c5 = self._reduce(maps)
        p4 = self._merge(c4, c5)
        return {"P5": c5, "P4": p4, "P3": self._merge(c3, p4)}

    def _reduce(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [lateral(level) for lateral, level in zip(self.lateral, maps, strict=True)]

    def _merge(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """One top-down step: enlarge ``coarse`` to ``fine``'s size, then add or concatenate."""
        return concatenated((fine, coarse)) if self.concat else fine + enlarged(coarse, fine.shape[-2:])


def _convolution(kind: str, in_channels: int, out_channels: int, plain_size: int) -> nn.Module:
    """A deformable 3x3 convolution, or an ordinary one of ``plain_size`` (1 for laterals, 3 for outputs)."""
    require_choice("convolution", kind, ("conv", "deformable"))
    if kind == "deformable":
        return DeformableConv2d(in_channels, out_channels, kernel_size=3)
    return nn.Conv2d(in_channels, out_channels, plain_size, padding=plain_size // 2, bias=False)
