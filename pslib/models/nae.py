"""NAE: Faster R-CNN whose second stage is the norm-aware ROI branch.

Chen et al., "Norm-Aware Embedding for Efficient Person Search" (2020): an RPN proposes boxes on the trunk's map, and
:class:`pslib.models.roi_branch.RoiBranch` says of each who it is, how surely it is a person, and how the box must move.
It is the rival that AlignPS's Table IX times, and the ROI-Align row of "separate training" in its Table VI.  NAE+ is
the same with ``roi.pixels``.  The released code multiplies a similarity by the detection's score; here, as for every
other model, nothing does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from pslib.models.backbones import build_backbone
from pslib.models.batching import ImageBatch, batch_images
from pslib.models.proposals import ProposalConfig, build_rpn, propose
from pslib.models.roi_branch import RoiBranch, RoiBranchConfig

__all__ = ["NAE", "NAEConfig"]


@dataclass(frozen=True)
class NAEConfig(ProposalConfig):
    """Every switch of the model; the defaults suit the tiny profile."""

    backbone: str = "tiny"
    backbone_weights: str | None = None  # torchvision's name of a set of weights
    frozen_backbone: bool = False  # the first layers and batch normalisations constant
    roi: RoiBranchConfig = RoiBranchConfig()


class NAE(nn.Module):
    """Finds people by proposals and embeds each; follows torchvision's contract for detectors.

    Args:
        config: the switches.
        num_identities: I, rows of the lookup table.

    In training ``model(images, targets)`` returns scalar losses, unweighted: rpn_class, rpn_box, roi_class, roi_box
    (released with weight 10) and roi_oim.  ``images`` is a list of (3, H, W) tensors (uint8, or floats in 0..1), a
    target is ``{"boxes": (N, 4) xyxy px, "labels": (N,) in 0..I-1 or -1}``.  After the optimiser's step the trainer
    calls :meth:`update_memory`.  In evaluation ``model(images)`` returns one dict an image: ``boxes`` (N, 4) px,
    ``scores`` (N,), ``embeddings`` (N, D) of unit length.
    """

    similarity = "cosine"
    share_stage = True  # nothing else goes over the backbone's last stage, so the branch needs no copy of it

    def __init__(self, config: NAEConfig, num_identities: int):
        super().__init__()
        self.config, self.num_identities = config, num_identities
        self.backbone = build_backbone(config.backbone, config.backbone_weights, config.frozen_backbone)
        self.roi = RoiBranch(config.roi, self.backbone, num_identities, self.share_stage)
        self.rpn = build_rpn(self.backbone.channels[-2], config)

    def follow_backbone(self) -> None:
        """Start the branch's last stage, where it has its own, at the backbone's: after weights were loaded there."""
        self.roi.copy_stage(self.backbone)

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        batch, trunk = self.look(images)
        if self.training:
            return self.losses(batch, trunk, targets)
        return self.detect(batch, trunk)

    def look(self, images: Sequence[Tensor]) -> tuple[ImageBatch, Tensor]:
        """The images as a batch, and its map (B, C4, h, w), which both stages read; float32 also under autocast."""
        batch = batch_images(images, multiple=self.backbone.strides[-1])
        return batch, self.backbone.trunk(batch.tensors).float()

    def losses(self, batch: ImageBatch, trunk: Tensor, targets: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The losses of both stages, unweighted."""
        proposals, losses = propose(self.rpn, batch, trunk, targets)
        samples = self.roi.sample(proposals, targets)
        return losses | self.roi.losses(self.roi.read(trunk, [sample.boxes for sample in samples]), samples)

    def update_memory(self) -> None:
        """Write the last batch's people into table and queue; the trainer calls it after the optimiser's step."""
        self.roi.update_memory()

    def detect(self, batch: ImageBatch, trunk: Tensor) -> list[dict[str, Tensor]]:
        """Boxes, scores and unit embeddings of each image after thresholding and non-maximum suppression."""
        proposals, _ = propose(self.rpn, batch, trunk)
        return self.roi.detect(proposals, self.roi.read(trunk, proposals), batch.shapes)

    def detect_and_embed(
        self, images: Sequence[Tensor], boxes: Sequence[Tensor]
    ) -> tuple[list[dict[str, Tensor]], list[Tensor]]:
        """One pass for both: the detections of each image, and unit embeddings (N, D) of its given ``boxes`` (N, 4) px.

        A given box (ground truth, a query) takes the place of a proposal and stays where it is.
        """
        batch, trunk = self.look(images)
        return self.detect(batch, trunk), self.embed(trunk, boxes)

    def embed(self, trunk: Tensor, boxes: Sequence[Tensor]) -> list[Tensor]:
        """Unit embeddings (N, D) of given ``boxes`` (N, 4) px of each image."""
        return list(self.roi.read(trunk, boxes).embeddings.split([len(people) for people in boxes]))
