"""The first stage of two-stage person search: where people may stand, and which of those boxes are learned from.

A region proposal network (RPN; Ren et al., "Faster R-CNN", 2015) sees a box of every size and shape, an *anchor*, at
every cell of the trunk's map, and says of each whether a person is in it and how to move its sides.  The best boxes
are the *proposals*.  In training the ground-truth boxes join them (IAN, Sec. III, item 2), and a sample of all,
labelled by overlap, goes on to the second stage: the *regions of interest* (ROIs).

RPN, anchors and matching are torchvision's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.rpn import AnchorGenerator, RegionProposalNetwork, RPNHead
from torchvision.ops import box_iou

__all__ = ["build_rpn", "RoiSample", "match_rois", "sample_rois"]


class _FullPrecisionHead(RPNHead):
    """torchvision's head with outputs in float32: in bfloat16 a box 100 px wide would be off by half a pixel."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        objectness, deltas = super().forward(x)
        return [level.float() for level in objectness], [level.float() for level in deltas]


def build_rpn(
    channels: int,
    anchor_sizes: Sequence[float],
    anchor_ratios: Sequence[float],
    *,
    positive_iou: float,
    negative_iou: float,
    samples: int,
    positive_fraction: float,
    before_nms: tuple[int, int],
    after_nms: tuple[int, int],
    nms_threshold: float,
    score_threshold: float,
) -> RegionProposalNetwork:
    """torchvision's RPN on one map of ``channels``.

    At each cell stands one anchor for each of ``anchor_sizes`` (px, the root of its area) and ``anchor_ratios``
    (height / width).  An anchor is positive from ``positive_iou`` on, and so is the best one of every box; negative
    below ``negative_iou``; the losses read ``samples`` of them an image.  The pairs are (training, test): the
    best-scored boxes before, and at most so many after, non-maximum suppression.
    """
    anchors = AnchorGenerator((tuple(anchor_sizes),), (tuple(anchor_ratios),))
    return RegionProposalNetwork(
        anchors,
        _FullPrecisionHead(channels, anchors.num_anchors_per_location()[0]),
        positive_iou,
        negative_iou,
        samples,
        positive_fraction,
        dict(zip(("training", "testing"), before_nms, strict=True)),
        dict(zip(("training", "testing"), after_nms, strict=True)),
        nms_threshold,
        score_threshold,
    )


@dataclass(frozen=True)
class RoiSample:
    """The ROIs of one image that a training step learns from, ground-truth boxes first."""

    boxes: Tensor  # (R, 4) px
    labels: Tensor  # (R,) in 0..I-1, -1 for people without identity, I for background
    matched: Tensor  # (R, 4) px, the box of the person in the ROI; the ROI itself where there is none
    truth: Tensor  # (R,) bool, the ROI is a ground-truth box


def match_rois(proposals: Tensor, boxes: Tensor, positive_iou: float) -> Tensor:
    """For each of the ``proposals`` (P, 4) the box of ``boxes`` (N, 4) it overlaps most: index (P,).

    It is -1, background, where the overlap (intersection over union) stays below ``positive_iou``.

    >>> people = torch.tensor([[0.0, 0.0, 10.0, 30.0], [20.0, 0.0, 30.0, 30.0]])
    >>> match_rois(torch.tensor([[20.0, 0.0, 30.0, 20.0], [12.0, 0.0, 18.0, 30.0]]), people, 0.5).tolist()
    [1, -1]
    """
    if len(proposals) == 0 or len(boxes) == 0:  # torchvision's matcher refuses both
        return torch.full((len(proposals),), -1, device=proposals.device)
    return Matcher(positive_iou, positive_iou)(box_iou(boxes, proposals))


def sample_rois(
    proposals: Tensor,
    boxes: Tensor,
    labels: Tensor,
    background: int,
    count: int,
    positive_fraction: float,
    positive_iou: float,
) -> RoiSample:
    """Choose ``count`` ROIs of one image from its ``proposals`` (P, 4) and ground-truth ``boxes`` (N, 4).

    Every ground-truth box is one of them, since center loss reads these (torchvision's sampler could miss some), with
    its own label of ``labels`` (N,).  Then positive proposals, drawn at random, fill up to ``positive_fraction`` of
    ``count``, and background (class number ``background``) takes the rest; fewer where there are not enough.
    """
    match = match_rois(proposals, boxes, positive_iou)
    positive = _draw((match >= 0).nonzero().squeeze(1), int(count * positive_fraction) - len(boxes))
    negative = _draw((match < 0).nonzero().squeeze(1), count - len(boxes) - len(positive))
    drawn = torch.cat([positive, negative])
    found = match[positive]
    return RoiSample(
        boxes=torch.cat([boxes, proposals[drawn]]),
        labels=torch.cat([labels, labels[found], labels.new_full((len(negative),), background)]),
        matched=torch.cat([boxes, boxes[found], proposals[negative]]),
        truth=torch.arange(len(boxes) + len(drawn), device=boxes.device) < len(boxes),
    )


def _draw(candidates: Tensor, count: int) -> Tensor:
    """At most ``count`` of the ``candidates`` (K,), at random."""
    return candidates[torch.randperm(len(candidates), device=candidates.device)[: max(0, count)]]
