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
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import AnchorGenerator, RegionProposalNetwork, RPNHead
from torchvision.ops import box_iou

from pslib.errors import UserError
from pslib.models.batching import ImageBatch

__all__ = [
    "ProposalConfig", "RoiSample", "build_rpn", "match_rois", "propose", "require_counts", "require_shares",
    "sample_rois",
]  # fmt: skip


@dataclass(frozen=True)
class ProposalConfig:
    """The switches of the RPN, which every model that has one takes over; the defaults suit the tiny profile.

    At each cell stands one anchor for each of ``anchor_sizes`` and ``anchor_ratios``.  An anchor is positive from
    ``rpn_positive_iou`` on, and so is the best one of every box; negative below ``rpn_negative_iou``.  The pairs are
    (training, test): the best-scored boxes before, and at most so many after, non-maximum suppression.
    """

    # px, the root of an anchor's area: people of the tiny sets are about 14 px wide and 42 px high
    anchor_sizes: tuple[float, ...] = (16.0, 24.0, 36.0, 54.0)
    anchor_ratios: tuple[float, ...] = (2.0, 3.0, 4.0)  # height / width
    rpn_positive_iou: float = 0.5  # 0.7 in Faster R-CNN, which few anchors of a coarse grid reach for narrow people
    rpn_negative_iou: float = 0.3
    rpn_samples: int = 64  # anchors an image in the RPN's losses
    rpn_positive_fraction: float = 0.5
    rpn_before_nms: tuple[int, int] = (600, 600)
    rpn_after_nms: tuple[int, int] = (100, 60)
    rpn_nms_threshold: float = 0.6  # 0.7 in Faster R-CNN; with 60 proposals fewer on one person find more people
    rpn_score_threshold: float = 0.0

    def __post_init__(self) -> None:
        if not self.anchor_sizes or not self.anchor_ratios or min(*self.anchor_sizes, *self.anchor_ratios) <= 0:
            raise UserError(
                f"anchor_sizes={self.anchor_sizes} with anchor_ratios={self.anchor_ratios} make no anchors: give one "
                "positive number or more for each."
            )
        require_counts(self, "rpn_samples", "rpn_before_nms", "rpn_after_nms")
        require_shares(self, "rpn_positive_fraction", "rpn_nms_threshold", "rpn_positive_iou")
        if not 0 <= self.rpn_negative_iou <= self.rpn_positive_iou:
            raise UserError(
                f"rpn_negative_iou={self.rpn_negative_iou} must lie between 0 and rpn_positive_iou="
                f"{self.rpn_positive_iou}: an overlap cannot be both."
            )


def require_counts(config: object, *names: str) -> None:
    """Raise UserError unless the named fields of ``config``, numbers or tuples of numbers, are 1 or more."""
    for name in names:
        value = getattr(config, name)
        if (min(value) if isinstance(value, tuple) else value) < 1:
            raise UserError(f"{name}={value} is too small: give at least 1.")


def require_shares(config: object, *names: str) -> None:
    """Raise UserError unless the named fields of ``config`` lie in 0..1."""
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise UserError(f"{name}={getattr(config, name)} is no share: give a number from 0 to 1.")


class _FullPrecisionHead(RPNHead):
    """torchvision's head that reads scores and moves out in float32, whatever the precision of the layers before.

    In bfloat16 a box 100 px wide would be off by half a pixel.
    """

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        hidden = [self.conv(level) for level in x]
        with torch.autocast(hidden[0].device.type, enabled=False):
            hidden = [level.float() for level in hidden]
            return [self.cls_logits(level) for level in hidden], [self.bbox_pred(level) for level in hidden]


def build_rpn(channels: int, config: ProposalConfig) -> RegionProposalNetwork:
    """torchvision's RPN on one map of ``channels``."""
    anchors = AnchorGenerator((tuple(config.anchor_sizes),), (tuple(config.anchor_ratios),))
    return RegionProposalNetwork(
        anchors,
        _FullPrecisionHead(channels, anchors.num_anchors_per_location()[0]),
        config.rpn_positive_iou,
        config.rpn_negative_iou,
        config.rpn_samples,
        config.rpn_positive_fraction,
        dict(zip(("training", "testing"), config.rpn_before_nms, strict=True)),
        dict(zip(("training", "testing"), config.rpn_after_nms, strict=True)),
        config.rpn_nms_threshold,
        config.rpn_score_threshold,
    )


def propose(
    rpn: RegionProposalNetwork, batch: ImageBatch, trunk: Tensor, targets: Sequence[dict[str, Tensor]] | None = None
) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Proposals (P, 4) px of each image, without gradient, and in training the losses "rpn_class" and "rpn_box"."""
    images = ImageList(batch.tensors, list(batch.shapes))
    proposals, losses = rpn(images, {"trunk": trunk}, targets)
    names = {"rpn_class": "loss_objectness", "rpn_box": "loss_rpn_box_reg"}
    return proposals, {name: losses[theirs] for name, theirs in names.items() if theirs in losses}


@dataclass(frozen=True)
class RoiSample:
    """The ROIs of one image that a training step learns from, ground-truth boxes first."""

    boxes: Tensor  # (R, 4) px
    labels: Tensor  # (R,) in 0..I-1, -1 for people without identity, I for background
    matched: Tensor  # (R, 4) px, the box of the person in the ROI; the ROI itself where there is none
    truth: Tensor  # (R,) bool, the ROI is a ground-truth box


def match_rois(proposals: Tensor, boxes: Tensor, positive_iou: float, negative_iou: float | None = None) -> Tensor:
    """For each of the ``proposals`` (P, 4) the box of ``boxes`` (N, 4) it overlaps most: index (P,).

    It is -1, background, where the overlap (intersection over union) stays below ``negative_iou`` (None: the same as
    ``positive_iou``), and -2, neither, where it lies between the two.

    >>> people = torch.tensor([[0.0, 0.0, 10.0, 30.0], [20.0, 0.0, 30.0, 30.0]])
    >>> match_rois(torch.tensor([[20.0, 0.0, 30.0, 20.0], [12.0, 0.0, 18.0, 30.0]]), people, 0.5).tolist()
    [1, -1]
    """
    if len(proposals) == 0 or len(boxes) == 0:  # torchvision's matcher refuses both
        return torch.full((len(proposals),), -1, device=proposals.device)
    return Matcher(positive_iou, positive_iou if negative_iou is None else negative_iou)(box_iou(boxes, proposals))


def sample_rois(
    proposals: Tensor,
    boxes: Tensor,
    labels: Tensor,
    background: int,
    count: int,
    positive_fraction: float,
    positive_iou: float,
    negative_iou: float | None = None,
) -> RoiSample:
    """Choose ``count`` ROIs of one image from its ``proposals`` (P, 4) and ground-truth ``boxes`` (N, 4).

    Every ground-truth box is one of them, since center loss reads these (torchvision's sampler could miss some), with
    its own label of ``labels`` (N,).  Then positive proposals, drawn at random, fill up to ``positive_fraction`` of
    ``count``, and background (class number ``background``) takes the rest; fewer where there are not enough.  Proposals
    that overlap a person by ``negative_iou`` or more, yet by less than ``positive_iou``, are not drawn.
    """
    match = match_rois(proposals, boxes, positive_iou, negative_iou)
    positive = _draw((match >= 0).nonzero().squeeze(1), int(count * positive_fraction) - len(boxes))
    negative = _draw((match == -1).nonzero().squeeze(1), count - len(boxes) - len(positive))
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
