"""The three FCOS losses: is this cell a person, where are her sides, how central is the cell.

Tian et al., "FCOS" (2019), Sec. 3; AlignPS uses them unchanged (Sec. III-A).  Boxes are distances
(left, top, right, bottom) from the cell to the sides of its box, in strides.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from pslib.errors import require_choice

__all__ = ["centerness_targets", "fcos_losses"]


def centerness_targets(ltrb: Tensor) -> Tensor:
    """How central a cell is in its box, 1 in the middle and towards 0 at the sides: (..., 4) > 0 to (...).

    ``sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b))``, FCOS Eq. 3.

    >>> centerness_targets(torch.tensor([[2.0, 3.0, 2.0, 3.0], [1.0, 2.0, 4.0, 2.0]]))
    tensor([1.0000, 0.5000])
    """
    left, top, right, bottom = ltrb.unbind(-1)
    horizontal = torch.minimum(left, right) / torch.maximum(left, right)
    vertical = torch.minimum(top, bottom) / torch.maximum(top, bottom)
    return (horizontal * vertical).sqrt()


def fcos_losses(
    class_logits: Tensor,
    ltrb: Tensor,
    centerness_logits: Tensor,
    matched: Tensor,
    target_ltrb: Tensor,
    normalizer: str = "positives",
    focal_alpha: float = 0.25,
    focal_gamma: float = 2.0,
) -> dict[str, Tensor]:
    """Focal, GIoU and centerness losses of a batch: {"classification", "box", "centerness"}, scalars.

    ``class_logits``, ``centerness_logits`` (B, A) over the cells of all levels; ``ltrb`` (B, A, 4) >= 0 in strides;
    ``matched`` (B, A) index of the cell's box or -1 for background; ``target_ltrb`` (B, A, 4) in strides, read where
    matched.  Computed in float32 or wider, whatever the autocast state.

    With P cells matched (positives), ``normalizer`` divides the three sums as follows:

    * ``"positives"`` (default; torchvision's FCOS): all by ``max(1, P)``;
    * ``"released"`` (AlignPS's code): classification by P + B; box weighted by the centerness target of its cell and
      divided by their sum; centerness by P.

    Without positives the box and centerness losses are zeros with a graph; without cells all three are.

    >>> no_person = torch.full((1, 6), -1)
    >>> logits = torch.zeros(1, 6, requires_grad=True)
    >>> losses = fcos_losses(logits, torch.ones(1, 6, 4), logits, no_person, torch.zeros(1, 6, 4))
    >>> {name: round(loss.item(), 4) for name, loss in losses.items()}
    {'classification': 0.7798, 'box': 0.0, 'centerness': 0.0}
    """
    require_choice("loss normalizer", normalizer, ("positives", "released"))
    with torch.autocast(class_logits.device.type, enabled=False):
        class_logits, ltrb, centerness_logits = (_at_least_float32(t) for t in (class_logits, ltrb, centerness_logits))
        positive = matched >= 0
        target = target_ltrb[positive].to(ltrb.dtype)  # (P, 4)
        central = centerness_targets(target)  # (P,)
        positives = max(1, len(target))
        classification = sigmoid_focal_loss(
            class_logits, positive.to(class_logits.dtype), alpha=focal_alpha, gamma=focal_gamma, reduction="sum"
        )
        # GIoU does not change when both boxes move, so the cell itself may stand at the origin.
        box = generalized_box_iou_loss(_around_origin(ltrb[positive]), _around_origin(target))
        centerness = F.binary_cross_entropy_with_logits(centerness_logits[positive], central, reduction="sum")
        if normalizer == "positives":
            classification, box = classification / positives, box.sum() / positives
        else:
            classification = classification / max(1, len(target) + len(class_logits))
            # A cell almost on its box's side has a target of almost 0: the floor keeps 0 / 0 away.
            box = (box * central).sum() / central.sum().clamp(min=1e-6)
        return {"classification": classification, "box": box, "centerness": centerness / positives}


def _around_origin(ltrb: Tensor) -> Tensor:
    """Distances (P, 4) as boxes [x1, y1, x2, y2] around a cell at the origin."""
    return torch.cat([-ltrb[:, :2], ltrb[:, 2:]], dim=1)


def _at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision to float32; float32 and float64 as they are."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
