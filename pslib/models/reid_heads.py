"""The second stage of two-stage person search: from what is cut out of the map to a feature and a better box.

A residual network goes over every ROI with its last stage and averages (IAN, Sec. III, item 3); VGG16 has two fully
connected layers with dropout instead.  Either gives one vector an ROI, which sibling linear layers read (item 4).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import RoIAlign, RoIPool, clip_boxes_to_image, nms, remove_small_boxes

from pslib.errors import UserError, require_choice
from pslib.models.batching import Shapes

__all__ = ["roi_layer", "average_stage", "FullyConnected", "HeadOutput", "LinearHead", "refined_detections"]


def roi_layer(kind: str, size: int, stride: int, sampling_ratio: int = 2, aligned: bool = True) -> nn.Module:
    """A layer (map (B, C, H, W), list of B boxes (R_i, 4) px) -> (R, C, size, size) for a map at ``stride``.

    ``"pool"`` rounds the box to cells and takes maxima, as the paper's Faster R-CNN; ``"align"`` samples between
    the cells (He et al., "Mask R-CNN"): each part at ``sampling_ratio`` x ``sampling_ratio`` points, or, with 0, at as
    many as it has cells.  ``aligned=False`` leaves out the shift by half a cell, as torchvision's own detectors, and so
    NAE and SeqNet, do; the code of ROI-AlignPS has the shift.
    """
    require_choice("ROI layer", kind, ("pool", "align"))
    if kind == "pool":
        return RoIPool(size, 1.0 / stride)
    return RoIAlign(size, 1.0 / stride, sampling_ratio=sampling_ratio, aligned=aligned)


def average_stage(stage: nn.Module, rois: Tensor) -> Tensor:
    """The last stage of a residual network over ROIs (R, C4, s, s), then the mean over the cells: (R, C5)."""
    return stage(rois).mean(dim=(2, 3))


class FullyConnected(nn.Module):
    """VGG's fc6 and fc7, each with ReLU and dropout: ROIs (R, C, s, s) to (R, width).

    ``dropout`` is the probability that a unit is dropped (the papers' p is the one that it is kept).
    """

    def __init__(self, channels: int, roi_size: int, width: int, dropout: float):
        super().__init__()
        self.fc6 = nn.Linear(channels * roi_size**2, width)
        self.fc7 = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        for layer in (self.fc6, self.fc7):
            # Keeps the size of the signal through the ReLUs, which short schedules from random weights need.
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def forward(self, rois: Tensor) -> Tensor:
        hidden = self.dropout(torch.relu(self.fc6(rois.flatten(1))))
        return self.dropout(torch.relu(self.fc7(hidden)))

    @torch.no_grad()
    def load_classifier(self, classifier: nn.Sequential) -> None:
        """Take over the first two linear layers of torchvision's VGG classifier (its items 0 and 3)."""
        for own, theirs in ((self.fc6, classifier[0]), (self.fc7, classifier[3])):
            if own.weight.shape != theirs.weight.shape:
                raise UserError(
                    f"a fully connected layer of {tuple(own.weight.shape)} cannot take VGG16's weights of "
                    f"{tuple(theirs.weight.shape)}: set fc_width=4096 and roi_size=7."
                )
            own.load_state_dict(theirs.state_dict())


@dataclass(frozen=True)
class HeadOutput:
    """What the second stage says about R regions."""

    features: Tensor  # (R, D) feat before its dropout
    dropped: Tensor  # (R, D) feat after its dropout; the same in evaluation
    deltas: Tensor  # (R, 4) how to move the box, as torchvision's BoxCoder encodes it
    person_logits: Tensor | None  # (R, 2) background and person, where they are told apart here


class LinearHead(nn.Module):
    """Sibling linear layers on vectors (R, channels): feature and box (IAN, Sec. III, item 4).

    With ``person`` a third one tells people from background (OIM, whose loss has no background class).
    ``feature_relu`` puts a ReLU on the feature, as E2E-PS's released network.
    """

    def __init__(self, channels: int, dim: int, feature_relu: bool = False, dropout: float = 0.0, person: bool = False):
        super().__init__()
        self.feat = nn.Linear(channels, dim)
        self.activation = nn.ReLU() if feature_relu else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.box = nn.Linear(channels, 4)
        self.person = nn.Linear(channels, 2) if person else None
        # Small, so that training starts from the proposals' own boxes (Fast R-CNN, Sec. 2.3).
        nn.init.normal_(self.box.weight, std=0.001)
        nn.init.zeros_(self.box.bias)

    def forward(self, vectors: Tensor) -> HeadOutput:
        features = self.activation(self.feat(vectors))
        person_logits = None if self.person is None else self.person(vectors)
        return HeadOutput(features, self.dropout(features), self.box(vectors), person_logits)


def refined_detections(
    proposals: Sequence[Tensor],
    deltas: Tensor,
    scores: Tensor,
    embeddings: Tensor,
    shapes: Shapes,
    coder: BoxCoder,
    *,
    score_threshold: float,
    nms_threshold: float,
    limit: int,
) -> list[dict[str, Tensor]]:
    """What is left of the ``proposals`` (P_i, 4) px of each image once ``deltas`` (R, 4) have moved them.

    ``scores`` (R,) and ``embeddings`` (R, D) go with them, R rows image by image; ``shapes`` are height and width
    of each image, px.  One dict an image, best first: at most ``limit`` boxes scored above ``score_threshold``, none of
    which overlaps a better one by more than ``nms_threshold``.
    """
    counts = [len(found) for found in proposals]
    moved = coder.decode_single(deltas.float(), torch.cat(list(proposals))).split(counts)
    results = []
    for shape, boxes, sure, features in zip(
        shapes, moved, scores.split(counts), embeddings.split(counts), strict=True
    ):
        boxes = clip_boxes_to_image(boxes, shape)
        keep = remove_small_boxes(boxes, min_size=1e-2)
        keep = keep[sure[keep] > score_threshold]
        keep = keep[nms(boxes[keep], sure[keep], nms_threshold)[:limit]]
        results.append({"boxes": boxes[keep], "scores": sure[keep], "embeddings": features[keep]})
    return results
