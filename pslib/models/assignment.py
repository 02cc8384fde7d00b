"""Which cell answers for which person: FCOS's target assignment.

Tian et al., "FCOS" (2019), Sec. 3.1-3.2, with centre sampling, as AlignPS trains (Sec. III-C).  A cell at point
(x, y) of a level with stride s is *positive* for a box when

1. the point lies strictly inside the square of half-side ``1.5 s`` around the box's centre (at most 3 x 3 cells);
2. it lies strictly inside the box: left, top, right, bottom > 0;
3. the box suits the level: ``lower < max(left, top, right, bottom) <= upper``, in pixels.

Of several boxes the one of smallest area wins, of equal areas the first.  Everything else is background.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["assign_batch", "assign_targets", "positive_cells"]


def assign_targets(
    points: Tensor, strides: Tensor, ranges: Tensor, boxes: Tensor, center_radius: float = 1.5
) -> tuple[Tensor, Tensor]:
    """Assign the boxes (N, 4) of one image, xyxy in pixels, to the cells of all its levels.

    ``points`` (A, 2) as (x, y) and ``strides`` (A,) in pixels, ``ranges`` (A, 2) the (lower, upper) of each cell's
    level in pixels.  Returns ``matched`` (A,) int64, the index of the cell's box or -1, and ``target_ltrb`` (A, 4)
    in strides, zero where unmatched.  ``center_radius`` is in strides; infinity switches centre sampling off.

    >>> points = torch.tensor([[4.0, 4.0], [12.0, 4.0], [20.0, 4.0]])
    >>> everything = torch.tensor([0.0, torch.inf]).expand(3, 2)
    >>> assign_targets(points, torch.full((3,), 8.0), everything, torch.tensor([[0.0, 0.0, 16.0, 16.0]]))
    (tensor([ 0,  0, -1]), tensor([[0.5000, 0.5000, 1.5000, 1.5000],
            [1.5000, 0.5000, 0.5000, 1.5000],
            [0.0000, 0.0000, 0.0000, 0.0000]]))
    """
    if len(boxes) == 0 or len(points) == 0:
        matched = torch.full((len(points),), -1, dtype=torch.int64, device=points.device)
        return matched, points.new_zeros(len(points), 4)
    boxes = boxes.to(points.dtype)
    positive = positive_cells(points, strides, ranges, boxes, center_radius)
    x1, y1, x2, y2 = boxes.T.unsqueeze(-1)  # each (N, 1)
    area = ((x2 - x1) * (y2 - y1)).expand_as(positive).masked_fill(~positive, torch.inf)
    smallest, winner = area.min(dim=0)
    background = smallest.isinf()
    won = boxes[winner]  # (A, 4)
    ltrb = torch.cat([points - won[:, :2], won[:, 2:] - points], dim=1)
    target = (ltrb / strides.unsqueeze(1)).masked_fill(background.unsqueeze(1), 0.0)
    return winner.masked_fill(background, -1), target


def positive_cells(
    points: Tensor, strides: Tensor, ranges: Tensor, boxes: Tensor, center_radius: float = 1.5
) -> Tensor:
    """Which cells are positive for each of the boxes (N, 4) by itself, whoever else stands there: (N, A) bool.

    The other arguments as in :func:`assign_targets`.
    """
    x, y = points[:, 0], points[:, 1]
    # Boxes on the first axis, cells on the second: the reductions over few boxes then run over whole vectors.
    x1, y1, x2, y2 = boxes.to(points.dtype).T.unsqueeze(-1)  # each (N, 1)
    left, top, right, bottom = x - x1, y - y1, x2 - x, y2 - y  # each (N, A)
    nearest = torch.minimum(torch.minimum(left, right), torch.minimum(top, bottom))
    farthest = torch.maximum(torch.maximum(left, right), torch.maximum(top, bottom))
    off_centre = torch.maximum((x - (x1 + x2) / 2).abs(), (y - (y1 + y2) / 2).abs())
    positive = (nearest > 0) & (off_centre < center_radius * strides)
    return positive & (farthest > ranges[:, 0]) & (farthest <= ranges[:, 1])


def assign_batch(
    points: Tensor, strides: Tensor, ranges: Tensor, boxes: Sequence[Tensor], center_radius: float = 1.5
) -> tuple[Tensor, Tensor]:
    """:func:`assign_targets` for the boxes of each of B images: ``matched`` (B, A) and ``target_ltrb`` (B, A, 4)."""
    assigned = [assign_targets(points, strides, ranges, one, center_radius) for one in boxes]
    matched, target = zip(*assigned, strict=True)
    return torch.stack(matched), torch.stack(target)
