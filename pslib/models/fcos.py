"""The FCOS head: two towers over every pyramid level, and a box at every cell.

Tian et al., "FCOS" (2019), as AlignPS uses it (Sec. III-A): a classification tower says *person or not*, a
regression tower gives the distances (left, top, right, bottom) to the four sides of the box and the centerness.
The towers are shared by all levels; one learned scale per level lets them regress in strides.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pslib.errors import require_choice

__all__ = ["HeadOutput", "FCOSHead", "tower", "level_points", "decode_ltrb"]


@dataclass(frozen=True)
class HeadOutput:
    """What the head says at one level of size (H, W)."""

    class_logits: Tensor  # (B, 1, H, W)
    ltrb: Tensor  # (B, 4, H, W) distances to the sides in strides, >= 0
    centerness_logits: Tensor  # (B, 1, H, W)
    class_tower: Tensor  # (B, channels, H, W) last features of the classification tower
    box_tower: Tensor  # (B, channels, H, W) last features of the regression tower


def tower(in_channels: int, channels: int, depth: int) -> nn.Sequential:
    """``depth`` times 3x3 convolution, group normalisation and ReLU; keeps height and width."""
    layers: list[nn.Module] = []
    for index in range(depth):
        width = in_channels if index == 0 else channels
        # Eight channels a group is what FCOS has at its width of 256 (32 groups).
        layers += [nn.Conv2d(width, channels, 3, padding=1), nn.GroupNorm(max(1, channels // 8), channels), nn.ReLU()]
    return nn.Sequential(*layers)


class FCOSHead(nn.Module):
    """Classification, box and centerness at every cell of every level.

    Centerness reads the regression tower (as AlignPS; the first FCOS read the classification tower).
    ``box_activation`` keeps distances positive: ``"exp"`` as in the FCOS paper, or ``"relu"`` as AlignPS's released
    code, where a cell that starts below zero gets no gradient, which short schedules cannot afford.

    >>> head = FCOSHead(in_channels=48, channels=32, depth=2, num_levels=1)
    >>> output = head([torch.zeros(2, 48, 8, 8)])[0]
    >>> tuple(output.ltrb.shape), bool((output.ltrb >= 0).all())
    ((2, 4, 8, 8), True)
    """

    def __init__(self, in_channels: int, channels: int, depth: int, num_levels: int, box_activation: str = "exp"):
        super().__init__()
        self.box_activation = require_choice("box activation", box_activation, ("exp", "relu"))
        self.class_tower = tower(in_channels, channels, depth)
        self.box_tower = tower(in_channels, channels, depth)
        self.classify = nn.Conv2d(channels, 1, 3, padding=1)
        self.regress = nn.Conv2d(channels, 4, 3, padding=1)
        self.centerness = nn.Conv2d(channels, 1, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(num_levels))
        for layer in (self.classify, self.regress, self.centerness):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)
        # Start by calling one cell in a hundred a person, or the many background cells drown the first steps.
        nn.init.constant_(self.classify.bias, -math.log((1 - 0.01) / 0.01))

    def forward(self, features: Sequence[Tensor]) -> list[HeadOutput]:
        """One map (B, in_channels, H, W) a level, finest first, to one output a level of the same height and width."""
        outputs = []
        for scale, feature in zip(self.scales, features, strict=True):
            class_tower, box_tower = self.class_tower(feature), self.box_tower(feature)
            raw = scale * self.regress(box_tower)
            ltrb = torch.relu(raw) if self.box_activation == "relu" else torch.exp(raw.clamp(max=6.0))
            outputs.append(
                HeadOutput(self.classify(class_tower), ltrb, self.centerness(box_tower), class_tower, box_tower)
            )
        return outputs


def level_points(height: int, width: int, stride: int, device: torch.device | None = None) -> Tensor:
    """Centre of every cell of a level in image pixels, row by row: (H*W, 2) as (x, y).

    >>> level_points(1, 2, stride=8).tolist()
    [[4.0, 4.0], [12.0, 4.0]]
    """
    ys = torch.arange(height, device=device) * stride + stride // 2
    xs = torch.arange(width, device=device) * stride + stride // 2
    grid_y, grid_x = torch.meshgrid(ys, xs, indexing="ij")
    return torch.stack([grid_x, grid_y], dim=-1).reshape(-1, 2).float()  # (H*W, 2)


def decode_ltrb(points: Tensor, ltrb: Tensor, strides: Tensor) -> Tensor:
    """Boxes [x1, y1, x2, y2] from points (A, 2), distances (..., A, 4) in strides and strides (A,).

    >>> decode_ltrb(torch.tensor([[12.0, 20.0]]), torch.tensor([[1.0, 2.0, 1.0, 2.0]]), torch.tensor([4.0])).tolist()
    [[8.0, 12.0, 16.0, 28.0]]
    """
    pixels = ltrb * strides[:, None]  # (..., A, 4)
    return torch.cat([points - pixels[..., :2], points + pixels[..., 2:]], dim=-1)
