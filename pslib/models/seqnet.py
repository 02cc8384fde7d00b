"""SeqNet: detection first, then re-id, on boxes that are good already.

Li & Miao, "Sequential End-to-end Network for Efficient Person Search" (2021).  A proposal covers a person badly, and an
embedding is as good as the box that it is cut out of.  So the second stage comes twice: a first head, as Faster
R-CNN's, says which proposals are people and moves them, and the norm-aware ROI branch embeds the moved boxes:

    RPN -> proposals -> first head (the backbone's last stage) -> boxes -> ROI branch (a copy of that stage)

Each head has a sample of regions of its own in training, the second from the boxes that the first has moved.  A
detection's score is the first head's, its embedding that of the box in between.  The released code multiplies a
similarity by that score; here, as for every other model, nothing does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import clip_boxes_to_image

from pslib.models.batching import ImageBatch, Shapes
from pslib.models.nae import NAE, NAEConfig
from pslib.models.proposals import propose, require_shares
from pslib.models.reid_heads import refined_detections
from pslib.models.roi_branch import RoiBranchConfig

__all__ = ["FirstHead", "SeqNet", "SeqNetConfig"]


@dataclass(frozen=True)
class SeqNetConfig(NAEConfig):
    """Every switch of the model; the defaults suit the tiny profile.

    ``roi`` also says how the first head samples, cuts out and codes its regions.  Unlike NAE's its background begins
    right below the positive overlap, and as boxes that were moved lie closer to each other than proposals, the last
    suppression is milder than the first.  Boxes move by smooth L1, as in the released codes of both (NAE's defaults
    here have ROI-AlignPS's L1).
    """

    roi: RoiBranchConfig = RoiBranchConfig(negative_iou=None, box_beta=1.0, nms_threshold=0.5)
    first_nms_threshold: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        require_shares(self, "first_nms_threshold")


class FirstHead(nn.Module):
    """Faster R-CNN's classifier and regressor on vectors (R, width): logits (R, 2), background first; moves (R, 4)."""

    def __init__(self, width: int):
        super().__init__()
        self.person, self.box = nn.Linear(width, 2), nn.Linear(width, 4)
        # Small, so that training starts from the proposals' own boxes (Fast R-CNN, Sec. 2.3).
        nn.init.normal_(self.box.weight, std=0.001)
        nn.init.zeros_(self.box.bias)

    def forward(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(vectors.device.type, enabled=False):
            vectors = vectors.float()
            return self.person(vectors), self.box(vectors)


class SeqNet(NAE):
    """Finds people, then embeds them; the contract of :class:`pslib.models.nae.NAE`.

    To NAE's losses come first_class (cross-entropy) and first_box (released with weight 10, and roi_box with 1).
    """

    share_stage = False

    def __init__(self, config: SeqNetConfig, num_identities: int):
        super().__init__(config, num_identities)
        self.first = FirstHead(self.backbone.channels[-1])

    def find(self, trunk: Tensor, boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The first head on the ``boxes`` (R_i, 4) px of each image: logits (R, 2) and moves (R, 4)."""
        rois = self.roi.roi_layer(trunk, list(boxes))  # (R, C4, s, s)
        # The last stage's batch normalisation could not bear no region at all.
        deep = self.backbone.last_stage(rois) if len(rois) else rois.new_zeros(0, self.backbone.channels[-1], 1, 1)
        return self.first(deep.amax(dim=(2, 3)))

    def losses(self, batch: ImageBatch, trunk: Tensor, targets: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The losses of the three stages, unweighted."""
        proposals, losses = propose(self.rpn, batch, trunk, targets)
        samples = self.roi.sample(proposals, targets)
        logits, deltas = self.find(trunk, [sample.boxes for sample in samples])
        person = torch.cat([sample.labels for sample in samples]) != self.num_identities
        # A sum, since the mean of no rows is undefined.
        losses["first_class"] = F.cross_entropy(logits, person.long(), reduction="sum") / max(1, len(person))
        losses["first_box"] = self.roi.box_loss(deltas, samples)
        again = self.roi.sample(self.move([sample.boxes for sample in samples], deltas, batch.shapes), targets)
        return losses | self.roi.losses(self.roi.read(trunk, [sample.boxes for sample in again]), again)

    @torch.no_grad()
    def move(self, boxes: Sequence[Tensor], deltas: Tensor, shapes: Shapes) -> list[Tensor]:
        """The ``boxes`` (R_i, 4) px of each image where ``deltas`` (R, 4) move them, inside images of ``shapes`` px.

        No gradient passes: the second head cannot better its loss by moving the boxes.
        """
        moved = self.roi.box_coder.decode_single(deltas, torch.cat(list(boxes))).split([len(image) for image in boxes])
        return [clip_boxes_to_image(image, shape) for image, shape in zip(moved, shapes, strict=True)]

    def detect(self, batch: ImageBatch, trunk: Tensor) -> list[dict[str, Tensor]]:
        """Boxes, the first head's scores and unit embeddings of each image, thresholded and suppressed twice."""
        proposals, _ = propose(self.rpn, batch, trunk)
        logits, deltas = self.find(trunk, proposals)
        found = refined_detections(
            proposals,
            deltas,
            logits.softmax(dim=1)[:, 1],
            logits.new_zeros(len(logits), 0),  # nobody is embedded yet
            batch.shapes,
            self.roi.box_coder,
            score_threshold=self.config.roi.score_threshold,
            nms_threshold=self.config.first_nms_threshold,
            limit=self.config.roi.detections_per_image,
        )
        boxes = [result["boxes"] for result in found]
        scores = torch.cat([result["scores"] for result in found])
        return self.roi.detect(boxes, self.roi.read(trunk, boxes), batch.shapes, scores)
